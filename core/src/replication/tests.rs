//! Engines in a small world with faults; forks and pins; hostile peers.

mod bulk;
mod convergence;
mod forks;
mod hostile;
mod ranges;
mod repair;
mod sessions;
mod world;
