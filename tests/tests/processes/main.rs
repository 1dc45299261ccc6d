//! The whole program in earnest: real processes, real disks, real connections over loopback.

mod access;
mod audit;
mod bad_input;
mod bootstrap;
mod crash;
mod credentials;
mod disk_full;
mod erase;
mod faults;
mod fields;
mod first_steps;
mod hostile;
mod joining;
mod keys;
mod lan;
mod oidc;
mod one_node;
mod partition;
#[cfg(feature = "quic")]
mod quic;
mod retries;
mod sealed;
mod tls;
mod witness;
