//! How commands fail.

use folkmoot::api::{ExitCode, error_chain};
use folkmoot::{Error, ErrorCode, ParseIdError};

use crate::config::ConfigError;

/// Why a command failed, and how the program ends for it.
#[derive(Debug)]
pub(super) enum Failure {
    /// A call failed.
    Call(Error),
    /// The user asked for something that cannot be.
    Usage(Error),
    /// Whoever reads the output has had enough, as `head` has: no reason to complain.
    OutputClosed,
}

impl Failure {
    pub(super) fn usage(detail: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::Usage(Error::new(ErrorCode::InvalidParameter, detail))
    }

    /// Returns what there is to tell.
    pub(super) fn error(&self) -> Option<&Error> {
        match self {
            Self::Call(error) | Self::Usage(error) => Some(error),
            Self::OutputClosed => None,
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Call(error) => error.code().exit_code(),
            Self::Usage(_) => ExitCode::Usage,
            Self::OutputClosed => ExitCode::Done,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<ParseIdError> for Failure {
    fn from(error: ParseIdError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error_chain(&error))
    }
}

impl From<std::io::Error> for Failure {
    /// Standard output cannot be written: what follows could not be told anyhow.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Call(Error::new(ErrorCode::Internal, format!("write the output: {error}")))
    }
}
