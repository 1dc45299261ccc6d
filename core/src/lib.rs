//! Folkmoot's engine: ids, signed ops, documents, verdicts, the store and replication.
//!
//! This crate knows no async runtime, no network and no clock: time and randomness are arguments, and what has
//! to happen outside is returned as effects. See `ARCHITECTURE.md` for the map.

pub mod audit;
pub mod authority;
pub mod document;
mod entropy;
pub mod figure;
pub mod hash;
pub mod hlc;
pub mod id;
pub mod keys;
pub mod limits;
pub mod op;
pub mod pepper;
mod pointer;
pub mod query;
mod random;
pub mod rate;
pub mod replica;
pub mod replication;
pub mod schema;
pub mod store;
