//! Tests of the rule: named scenarios, random hostile histories, planted bugs, golden vectors.

mod golden;
mod histories;
mod mutants;
mod queries;
mod scenarios;
mod store;
mod world;
