//! Tests of the rule: named scenarios, random hostile histories, planted bugs, golden vectors.

mod attack;
mod erasure;
mod evidence;
mod fields;
mod golden;
mod histories;
mod mutants;
mod peppers;
mod policy;
mod properties;
mod queries;
mod rights;
mod scenarios;
mod store;
mod succession;
mod why;
mod withdraw;
mod world;
