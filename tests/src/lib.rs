//! What the whole-system tests share: the files of the repository, nodes as processes, and the simulators.

mod agenda;
pub mod gate;
pub mod hostility;
pub mod processes;
pub mod scale;
pub mod simulator;
pub mod villain;

use std::path::{Path, PathBuf};

/// Returns the root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads a text file of the repository.
///
/// # Panics
/// If it cannot be read: the test that needs it has failed then.
#[must_use]
pub fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
