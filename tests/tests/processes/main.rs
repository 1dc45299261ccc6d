//! The whole program in earnest: real processes, real disks, real connections over loopback.

mod access;
mod approvals;
mod audit;
mod bad_input;
mod bench;
mod bootstrap;
mod crash;
mod credentials;
mod demo;
mod devices;
mod disk_full;
mod durability;
mod erase;
mod examples;
mod faults;
mod fields;
mod first_steps;
mod history;
mod hostile;
mod indexes;
mod joining;
mod keys;
mod lan;
mod live;
mod oidc;
mod one_node;
mod partition;
mod passwords;
mod queries;
#[cfg(feature = "quic")]
mod quic;
mod quotas;
mod retries;
mod schema;
mod sealed;
mod sessions;
mod shell;
mod tables;
mod tls;
#[cfg(unix)]
mod tutorial;
mod types;
mod unique;
mod witness;
