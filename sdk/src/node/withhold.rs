//! Documents as somebody sees them who may not read all of their fields.

use bytes::Bytes;
use folkmoot_core::document::json::{self, Bounds, Pointer, Value};
use folkmoot_core::document::redact::{redact, redact_at};
use folkmoot_core::op::FieldRights;

use super::Inner;
use crate::api::{Conflict, Error, ErrorCode, Result};

/// Texts of more bytes than this together are worked on by a thread for blocking calls.
const INLINE_BYTES_MAX: usize = 64 << 10;

fn unreadable(source: json::ParseError) -> Error {
    Error::new(ErrorCode::Damaged, "a document cannot be read").with_source(source)
}

/// Parses what the store holds: whatever bounds there were, it has passed.
fn parsed(text: &[u8]) -> Result<Value> {
    json::parse_within(text, Bounds::STORED).map_err(unreadable)
}

fn without(rights: &FieldRights, text: &[u8]) -> Result<Bytes> {
    Ok(json::render_value(&redact(parsed(text)?, rights)).into())
}

fn conflict(rights: &FieldRights, mut conflict: Conflict) -> Result<Option<Conflict>> {
    let place: Pointer =
        conflict.pointer.parse().map_err(|_| Error::new(ErrorCode::Internal, "a conflict without a place"))?;
    for value in &mut conflict.values {
        let text = value.value.to_string();
        let Some(seen) = redact_at(parsed(text.as_bytes())?, rights, place.steps()) else { return Ok(None) };
        value.value = serde_json::from_str(&json::render_value(&seen))
            .map_err(|error| Error::new(ErrorCode::Internal, "render a value").with_source(error))?;
    }
    Ok(Some(conflict))
}

impl Inner {
    /// Leaves in each document what may be read of it.
    pub(super) async fn withhold(&self, mut texts: Vec<(FieldRights, &mut Bytes)>) -> Result<()> {
        texts.retain(|(rights, _)| !rights.are_all());
        if texts.iter().map(|(_, text)| text.len()).sum::<usize>() <= INLINE_BYTES_MAX {
            return texts.into_iter().try_for_each(|(rights, text)| {
                *text = without(&rights, text)?;
                Ok(())
            });
        }
        let whole: Vec<(FieldRights, Bytes)> =
            texts.iter().map(|(rights, text)| (rights.clone(), Bytes::clone(text))).collect();
        let seen = self.read_on_thread(move |_| {
            whole.iter().map(|(rights, text)| without(rights, text)).collect::<Result<Vec<_>>>()
        });
        for ((_, text), seen) in texts.into_iter().zip(seen.await??) {
            *text = seen;
        }
        Ok(())
    }

    /// Leaves out the conflicts, and the parts of them, that may not be read.
    pub(super) async fn withhold_conflicts(
        &self,
        rights: FieldRights,
        conflicts: Vec<Conflict>,
    ) -> Result<Vec<Conflict>> {
        if rights.are_all() {
            return Ok(conflicts);
        }
        self.read_on_thread(move |_| {
            conflicts.into_iter().filter_map(|one| conflict(&rights, one).transpose()).collect()
        })
        .await?
    }
}
