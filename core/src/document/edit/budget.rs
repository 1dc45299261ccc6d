use automerge::{ScalarValue, hydrate};

use super::error::{EditError, EditErrorKind};
use super::path::Path;
use crate::limits;

/// What an edit may still write: its change must fit the format's bounds, which is checked before anything is done.
pub(super) struct Budget {
    operations: u64,
    bytes: usize,
}

impl Budget {
    /// `operations`: those that the transaction already holds.
    pub(super) fn new(operations: usize) -> Self {
        Self { operations: operations as u64, bytes: 0 }
    }

    /// Charges for a scalar or text.
    pub(super) fn charge(&mut self, value: &hydrate::Value, path: Path<'_>) -> Result<(), EditError> {
        match value {
            hydrate::Value::Scalar(ScalarValue::Str(text)) => self.bytes(text.len(), path)?,
            hydrate::Value::Scalar(ScalarValue::Bytes(bytes)) => self.bytes(bytes.len(), path)?,
            hydrate::Value::Text(text) => {
                let text = String::from(text);
                self.bytes(text.len(), path)?;
                self.operations(text.chars().count(), path)?;
            }
            hydrate::Value::Scalar(_) | hydrate::Value::Map(_) | hydrate::Value::List(_) => {}
        }
        self.operations(1, path)
    }

    /// Charges for a map or list, without what is in it.
    pub(super) fn container(&mut self, path: Path<'_>) -> Result<(), EditError> {
        if path.depth() >= limits::DOC_DEPTH_MAX {
            let reason = format!("documents are nested {} deep at most", limits::DOC_DEPTH_MAX);
            return Err(EditError::new(EditErrorKind::TooLarge, path, reason));
        }
        self.operations(1, path)
    }

    pub(super) fn operations(&mut self, count: usize, path: Path<'_>) -> Result<(), EditError> {
        self.operations += count as u64;
        if self.operations > limits::CHANGE_OPS_MAX {
            let reason = format!("the edit takes more than {} operations", limits::CHANGE_OPS_MAX);
            return Err(EditError::new(EditErrorKind::TooLarge, path, reason).hint(
                "make several smaller edits; each value, removed element and character of a mergeable text is one operation",
            ));
        }
        Ok(())
    }

    pub(super) fn bytes(&mut self, count: usize, path: Path<'_>) -> Result<(), EditError> {
        self.bytes += count;
        if self.bytes > limits::CHANGE_BYTES_MAX {
            let reason = format!("the edit writes more than {} bytes", limits::CHANGE_BYTES_MAX);
            return Err(EditError::new(EditErrorKind::TooLarge, path, reason)
                .hint("make several smaller edits, or keep large content as a blob beside the document"));
        }
        Ok(())
    }
}
