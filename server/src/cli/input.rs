//! Standard input.

use std::io::Stdin;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::Failure;

/// Whether the lines of standard input are commands of the shell.
static ARE_COMMANDS: AtomicBool = AtomicBool::new(false);

/// Says that the lines of standard input are commands from now on: no command may take them for its own input.
pub(super) fn has_commands() {
    ARE_COMMANDS.store(true, Ordering::Relaxed);
}

/// Returns standard input for a command to read; `instead` tells how else it gets what it needs.
pub(super) fn standard_input(instead: &str) -> Result<Stdin, Failure> {
    if ARE_COMMANDS.load(Ordering::Relaxed) {
        return Err(Failure::usage(format!(
            "within the shell standard input is not read, as commands come from it: {instead}"
        )));
    }
    Ok(std::io::stdin())
}
