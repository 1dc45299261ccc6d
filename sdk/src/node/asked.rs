//! What a write asks for, as a hash: by it every node tells a retry from another request under the same idempotency key.

use folkmoot_core::hash::{Domain, hash};
use folkmoot_core::id::{CollectionName, RequestId};

use crate::api::{BulkOp, Edit, Heads, IdempotencyKey, Precondition};

/// Hash of an edit and of what it is made against. How long to wait and for what is no part of it: a retry may ask for
/// another durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked([u8; 32]);

impl Asked {
    /// Takes the edit as the client gave it, before the node makes an id for it.
    pub(super) fn of(op: &BulkOp) -> Self {
        let (kind, body): (&str, &[u8]) = match &op.edit {
            Edit::Create { json, .. } => ("create", json),
            Edit::Put { json, .. } => ("put", json),
            Edit::Patch { patch, .. } => (patch.kind.name(), &patch.body),
            Edit::Delete { .. } => ("delete", &[]),
        };
        let id = op.edit.id().map_or("", |id| id.as_str());
        let (condition, versions): (&str, &[Heads]) = match &op.precondition {
            Precondition::None => ("", &[]),
            Precondition::Exists => ("exists", &[]),
            Precondition::Absent => ("absent", &[]),
            Precondition::HeadsAre(heads) => ("is", heads),
            Precondition::HeadsAreNot(heads) => ("is-not", heads),
        };
        let versions = versions.iter().map(Heads::to_string).collect::<Vec<_>>().join(",");
        let base = op.merge_onto.as_ref().map(Heads::to_string).unwrap_or_default();
        let parts = [kind, id, condition, &versions, &base].map(str::as_bytes);
        let parts: Vec<&[u8]> = parts.into_iter().chain([body]).collect();
        Self(hash(Domain::RequestContent, &parts))
    }
}

/// Returns what the op carries for a request with a key.
pub(super) fn request_id(collection: &CollectionName, key: &IdempotencyKey, asked: &[Asked]) -> RequestId {
    let parts: Vec<&[u8]> = asked.iter().map(|asked| asked.0.as_slice()).collect();
    folkmoot_core::op::request_id(collection, key.as_str(), &parts)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use folkmoot_core::id::ChangeHash;

    use super::*;
    use crate::api::{Patch, PatchKind};

    #[test]
    fn everything_that_changes_the_effect_makes_another_request() {
        let json = Bytes::from_static(b"{}");
        let id: folkmoot_core::id::DocId = "a".parse().unwrap();
        let patch = |kind| Edit::Patch { id: id.clone(), patch: Patch { kind, body: json.clone() } };
        let put = |id: &str, json: &'static str| Edit::Put { id: id.parse().unwrap(), json: Bytes::from(json) };
        let edits = [
            Edit::Create { id: None, json: json.clone() },
            Edit::Create { id: Some(id.clone()), json: json.clone() },
            put("a", "{}"),
            put("b", "{}"),
            put("a", "{ }"),
            patch(PatchKind::Merge),
            patch(PatchKind::JsonPatch),
            patch(PatchKind::Edits),
            Edit::Delete { id: id.clone() },
        ];
        let heads = |byte| Heads::new(vec![ChangeHash::new([byte; 32])]);
        let conditions = [
            Precondition::None,
            Precondition::Exists,
            Precondition::Absent,
            Precondition::HeadsAre(vec![heads(1)]),
            Precondition::HeadsAre(vec![heads(2)]),
            Precondition::HeadsAreNot(vec![heads(1)]),
        ];
        let mut all = Vec::new();
        for edit in edits {
            for precondition in conditions.clone() {
                for merge_onto in [None, Some(heads(1))] {
                    let precondition = precondition.clone();
                    all.push(BulkOp { edit: edit.clone(), precondition, merge_onto, idempotency_key: None });
                }
            }
        }
        let distinct: std::collections::BTreeSet<_> = all.iter().map(|op| Asked::of(op).0).collect();
        assert_eq!(distinct.len(), all.len());
        let mut again = all[0].clone();
        again.idempotency_key = Some(IdempotencyKey::new("k").unwrap());
        assert_eq!(Asked::of(&again), Asked::of(&all[0]));
    }
}
