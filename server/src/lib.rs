//! The `folkmoot` program: HTTP API, configuration and command line over the SDK.
//!
//! It has no private door into the database: everything goes through [`folkmoot::Database`].

pub mod cli;
pub mod config;
mod http;
pub mod logging;
pub mod serve;
