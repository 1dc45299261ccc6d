//! The whole program in earnest: real processes, real disks, real connections over loopback.

mod bad_input;
mod crash;
mod disk_full;
mod first_steps;
mod hostile;
mod joining;
mod one_node;
mod partition;
mod retries;
mod tls;
