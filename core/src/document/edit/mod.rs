//! Edits: what a client asks to be changed in a document, turned into the smallest set of CRDT operations.
//!
//! A writer who sends a whole document has seen some version of it, the *base*. What differs between the base and what
//! is sent is what the writer changed; only that is written, onto the current version. So two writers who send whole
//! documents after changing different fields lose nothing:
//!
//! * a field that reads as at the base stays as it is now, whatever others made of it;
//! * a field that was removed is deleted if its value is still the one that the writer had seen;
//! * in an array, elements are told apart by identity, not index: what others inserted stays;
//! * a text is spliced, a counter incremented by the difference.
//!
//! With the current version as the base, the document reads afterwards exactly as what was sent.

mod align;
mod budget;
mod direct;
mod error;
mod limited;
mod live;
mod ops;
mod parse;
mod patch;
mod path;
mod plan;
mod positions;
mod sequence;
mod sequences;
mod sight;
mod step;
mod typed;
mod types;

#[cfg(test)]
mod tests;

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{ChangeHash, ObjType, ROOT, ReadDoc as _, hydrate};

pub(super) use align::{Element, Pair, align};
use budget::Budget;
pub(super) use direct::{apply_directly, may_be_direct};
pub use error::{EditError, EditErrorKind};
pub use limited::EditRights;
use live::Live;
pub use ops::{Action, EditOp};
pub use patch::{Operation, apply_to};
use plan::{Planner, filling, not_an_object};
use sight::Sight;
pub use types::FieldTypes;

use super::json::{self, Value};

/// A change that a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// The document shall read like this.
    Put(Value),
    /// RFC 7396.
    MergePatch(Value),
    /// RFC 6902.
    JsonPatch(Vec<Operation>),
    /// Operations of this project's own format; see [`EditOp`].
    Ops(Vec<EditOp>),
}

/// How the text of an edit is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EditFormat {
    /// A whole document.
    Document,
    /// RFC 7396.
    MergePatch,
    /// RFC 6902.
    JsonPatch,
    /// This project's own format.
    Ops,
}

impl EditFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Document, Self::MergePatch, Self::JsonPatch, Self::Ops];

    /// Returns the media type of the format.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Document => "application/json",
            Self::MergePatch => "application/merge-patch+json",
            Self::JsonPatch => "application/json-patch+json",
            Self::Ops => "application/vnd.folkmoot.edit+json",
        }
    }

    /// Returns the format of a media type, whatever its parameters and the case of its letters.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|format| format.media_type().eq_ignore_ascii_case(essence))
    }
}

impl Edit {
    /// Reads an edit from its text.
    ///
    /// # Errors
    /// If it is no JSON within the bounds, or not of the format's shape; the pointer leads into the text.
    pub fn parse(format: EditFormat, text: &[u8]) -> Result<Self, EditError> {
        let value = json::parse(text)?;
        match (format, value) {
            (EditFormat::Document, value @ Value::Map(_)) => Ok(Self::Put(value)),
            (EditFormat::MergePatch, value @ Value::Map(_)) => Ok(Self::MergePatch(value)),
            (EditFormat::Document | EditFormat::MergePatch, value) => Err(not_an_object(&value)),
            (EditFormat::JsonPatch, value) => parse::patch(value).map(Self::JsonPatch),
            (EditFormat::Ops, value) => parse::ops(value).map(Self::Ops),
        }
    }
}

/// What came of an edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// How many Automerge operations it took; 0 if the document was so already.
    pub operations: usize,
}

/// Applies an edit within an open transaction. `base` is what the writer had seen; none is the current version.
///
/// A JSON patch is evaluated against the base, its tests included. Documents must count text in code points, as
/// Automerge does natively.
///
/// # Errors
/// [`EditError`], with a pointer into the document. A refused [`Edit::Put`] or [`Edit::MergePatch`] has written
/// nothing; after a refused list of operations the transaction holds those before it and must be rolled back.
pub fn apply(
    tx: &mut Transaction<'_>,
    base: Option<&[ChangeHash]>,
    edit: &Edit,
    types: &FieldTypes,
) -> Result<Applied, EditError> {
    let before = tx.pending_ops();
    let base = stale(tx, base)?;
    let mut budget = Budget::new(before);
    match edit {
        Edit::Put(value) => put(tx, base, value, types, &mut budget)?,
        Edit::MergePatch(value) => {
            let Value::Map(patch) = value else { return Err(not_an_object(value)) };
            let place = types.root();
            let canonical = typed::canonical(value, &place);
            let patch = if let Value::Map(canonical) = &*canonical { canonical } else { patch };
            let mut planner = Planner { doc: &*tx, base, steps: Vec::new(), budget: &mut budget };
            let seen = planner.seen();
            planner.merge_map(&ROOT, &seen, patch, &place, path::Path::ROOT)?;
            let steps = planner.steps;
            step::run(tx, steps)?;
        }
        Edit::JsonPatch(patch) => match base {
            None => Live { tx: &mut *tx, types, budget, sight: Sight::new(None) }.patch(patch)?,
            Some(heads) => {
                let mut value = json::object_value(&*tx, &ROOT, ObjType::Map, Some(heads));
                apply_to(&mut value, patch)?;
                put(tx, base, &value, types, &mut budget)?;
            }
        },
        Edit::Ops(ops) => Live { tx: &mut *tx, types, budget, sight: Sight::new(base) }.ops(ops)?,
    }
    Ok(Applied { operations: tx.pending_ops() - before })
}

/// Returns what [`Edit::Put`] fills an empty document with.
pub(super) fn put_into_empty(value: &Value, types: &FieldTypes) -> Result<hydrate::Map, EditError> {
    filling(value, &types.root(), &mut Budget::new(0))
}

fn put(
    tx: &mut Transaction<'_>,
    base: Option<&[ChangeHash]>,
    value: &Value,
    types: &FieldTypes,
    budget: &mut Budget,
) -> Result<(), EditError> {
    let empty = base.is_none() && tx.pending_ops() == 0 && tx.get_heads().is_empty();
    let mut planner = Planner { doc: &*tx, base, steps: Vec::new(), budget };
    if empty {
        planner.create(value, &types.root())?;
    } else {
        planner.put_document(value, &types.root())?;
    }
    let steps = planner.steps;
    step::run(tx, steps)
}

/// Returns the base if it is not what the transaction shows now.
fn stale<'h>(tx: &Transaction<'_>, base: Option<&'h [ChangeHash]>) -> Result<Option<&'h [ChangeHash]>, EditError> {
    let Some(base) = base else { return Ok(None) };
    let mut heads = tx.get_heads();
    let mut sorted = base.to_vec();
    heads.sort_unstable();
    sorted.sort_unstable();
    sorted.dedup();
    if heads == sorted && tx.pending_ops() == 0 {
        return Ok(None);
    }
    if !tx.get_missing_deps(base).is_empty() {
        let reason = "the version that the edit is based on is not known here";
        return Err(EditError::new(EditErrorKind::UnknownBase, "", reason)
            .hint("read the document again and make the edit anew"));
    }
    Ok(Some(base))
}
