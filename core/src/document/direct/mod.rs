//! Documents without Automerge: what is made and read directly, as long as it is simple.
//!
//! Nearly every change either fills a new document or sets, deletes or counts up fields of one that nobody else writes at
//! the same moment. Such a change is a function of what the document shows and of the operations that wrote it, a small
//! [`Tree`], and so it need not be made by a CRDT: it is [encoded](encode) directly, and one that comes from elsewhere is
//! [read](incoming) directly. Automerge's document is built when something else is asked for: an edit of a list or
//! a text, a change that is concurrent with another, a conflict, the past. Measured: 5 µs in place of 60 for a new
//! document, and in place of 50 to 180 for an edit.
//!
//! Invariant: the bytes are those that Automerge makes of the same edit, and a change that is read here is one that the
//! gate admits. Reading encodes what was read and compares, so both rest on one property, which tests hold against
//! Automerge: what is encoded here is what it encodes, admits, and shows.
//!
//! Invariant: whatever a tree does not hold with certainty goes to Automerge. A tree may always be thrown away.

mod content;
mod decode;
mod draft;
mod encode;
mod extract;
mod full;
mod incoming;
mod nested;
mod runs;
mod stored;
mod tree;

use automerge::hydrate;
use bytes::Bytes;
use content::Content;

pub(super) use draft::Draft;
pub(super) use full::{Full, built_bytes};
pub(super) use tree::{Held, Id, ROOT, Slot, Tree};

use super::gate::{GateError, Scan, prescan};
use super::json;
use crate::id::{ActorId, ChangeHash};
use crate::limits;
use crate::op::FieldPaths;

/// The one change of a document, with what the document shows.
#[derive(Clone)]
pub(super) struct Fresh {
    pub(super) hash: ChangeHash,
    pub(super) bytes: Bytes,
    pub(super) json: Bytes,
}

impl Fresh {
    /// Makes the change that fills an empty document; none if there is nothing to fill it with.
    pub(super) fn make(actor: &ActorId, map: &hydrate::Map) -> Result<Option<Self>, GateError> {
        let content = Content::of(map);
        if content.is_empty() {
            return Ok(None);
        }
        let bytes = encode::encode(&content, actor);
        let scan = prescan(&bytes)?;
        if content.depth() > limits::DOC_DEPTH_MAX {
            return Err(GateError::Depth);
        }
        Ok(Some(Self { hash: scan.hash, bytes: bytes.into(), json: rendered(&content) }))
    }

    /// Reads a change that was scanned; none if it is not of this kind, or writes outside of the fields that it declares.
    pub(super) fn read(scan: &Scan, bytes: &[u8], fields: Option<&FieldPaths>) -> Option<Self> {
        let content = decode::content(scan, bytes)?;
        let lies_within = fields.is_none_or(|fields| content.keys().all(|key| fields.lead_to(&[key])));
        if content.is_empty() || content.depth() > limits::DOC_DEPTH_MAX || !lies_within {
            return None;
        }
        if encode::encode(&content, &scan.actor) != bytes {
            return None;
        }
        Some(Self { hash: scan.hash, bytes: Bytes::copy_from_slice(bytes), json: rendered(&content) })
    }
}

fn rendered(content: &Content<'_>) -> Bytes {
    json::rendered(|sink| content.show(sink)).into()
}
