//! The log: lines for people on a terminal, objects for programs.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Why the log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directives are not valid.
    #[error("log.level {level:?}: {message}")]
    Level {
        /// The directives.
        level: String,
        /// What is wrong.
        message: String,
    },
}

/// Begins to log to standard error. A second call changes nothing.
///
/// # Errors
/// The level is not valid.
pub fn begin(config: &LogConfig) -> Result<(), LogError> {
    // libp2p tells its own name at `info`, in a line without words; what comes later wins.
    let filter = EnvFilter::try_new(format!("libp2p_swarm=warn,{}", config.level))
        .map_err(|e| LogError::Level { level: config.level.clone(), message: e.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A failure means that a log is being written already.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
