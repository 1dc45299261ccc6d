use automerge::AutomergeError;

use super::path::Path;
use crate::document::json;

/// Why an edit was refused, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason} (pointer {pointer:?})")]
pub struct EditError {
    /// What kind of refusal it is.
    pub kind: EditErrorKind,
    /// JSON pointer: into the edit's own text if that could not be read, into the document if it could not be applied.
    pub pointer: String,
    /// What is wrong, for people.
    pub reason: String,
    /// What to do about it, where that is known.
    pub hint: Option<&'static str>,
    /// Index of the operation that failed, for edits that are lists of operations.
    pub operation: Option<usize>,
}

/// The kinds of [`EditError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EditErrorKind {
    /// The edit is no JSON, or not of the shape that its format has.
    Invalid,
    /// A `test` of a JSON patch found another value.
    TestFailed,
    /// The value does not fit the declared or present type of the field.
    TypeMismatch,
    /// The place that the edit names does not exist.
    NotFound,
    /// It reads or writes a field on which its author has no right.
    Withheld,
    /// A bound was exceeded.
    TooLarge,
    /// The version that the edit is based on is not known here.
    UnknownBase,
    /// Automerge refused an operation that was planned by its own state.
    Engine,
}

impl EditError {
    pub(super) fn new(kind: EditErrorKind, pointer: impl ToString, reason: impl Into<String>) -> Self {
        Self { kind, pointer: pointer.to_string(), reason: reason.into(), hint: None, operation: None }
    }

    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    pub(super) fn in_operation(mut self, index: usize) -> Self {
        self.operation = Some(index);
        self
    }

    pub(super) fn mismatch(path: Path<'_>, reason: impl Into<String>) -> Self {
        Self::new(EditErrorKind::TypeMismatch, path, reason)
    }
}

impl From<json::ParseError> for EditError {
    fn from(error: json::ParseError) -> Self {
        use json::ParseErrorKind as Parse;
        let kind = match error.kind {
            Parse::TooLarge { .. }
            | Parse::TooDeep { .. }
            | Parse::TooManyKeys { .. }
            | Parse::TooManyValues { .. }
            | Parse::KeyTooLong => EditErrorKind::TooLarge,
            Parse::NotUtf8 | Parse::Syntax { .. } | Parse::DuplicateKey | Parse::NumberTooLarge => {
                EditErrorKind::Invalid
            }
        };
        Self::new(kind, &error.pointer, format!("{} at byte {}", error.kind, error.offset))
    }
}

impl From<AutomergeError> for EditError {
    fn from(error: AutomergeError) -> Self {
        Self::new(EditErrorKind::Engine, "", format!("apply the edit to the document: {error}"))
    }
}
