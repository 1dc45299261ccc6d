//! What is edited on both sides of the cut, and what must come of it.

use bytes::Bytes;
use folkmoot::DocId;
use folkmoot::api::{BulkOp, Conflict, Edit, Patch, PatchKind};
use serde::Serialize;
use serde_json::{Value, json};

/// A kind of concurrent edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    DifferentFields,
    SameField,
    Text,
    Counter,
    DeleteAndEdit,
    DeleteAlone,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::DifferentFields, Self::SameField, Self::Text, Self::Counter, Self::DeleteAndEdit, Self::DeleteAlone];

    /// Returns what it is called in tables.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::DifferentFields => "different fields",
            Self::SameField => "the same field",
            Self::Text => "a text",
            Self::Counter => "a counter",
            Self::DeleteAndEdit => "delete and edit",
            Self::DeleteAlone => "delete alone",
        }
    }

    /// Returns what the merge does, for people.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::DifferentFields => "both stand",
            Self::SameField => "both values kept",
            Self::Text => "merged by character",
            Self::Counter => "increments add up",
            Self::DeleteAndEdit => "edit brings it back",
            Self::DeleteAlone => "it stays deleted",
        }
    }

    /// Returns the members of the document that it is about.
    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::DifferentFields => &["mayor", "elevation"],
            Self::SameField => &["motto"],
            Self::Text => &["note"],
            Self::Counter => &["visits"],
            Self::DeleteAndEdit => &["population", "airport"],
            Self::DeleteAlone => &["population"],
        }
    }

    /// Returns the edit that makes the document ready, if it needs one.
    pub(super) fn preparation(self, id: &DocId) -> Option<BulkOp> {
        let body = match self {
            Self::Text => json!({ "ops": [{ "op": "text", "path": "/note", "value": "Kyoto is a city in Japan." }] }),
            Self::Counter => json!({ "ops": [{ "op": "counter", "path": "/visits", "value": 100 }] }),
            Self::SameField => return Some(merge(id, &json!({ "motto": "Nairobi" }))),
            Self::DifferentFields => return Some(merge(id, &json!({ "mayor": "vacant", "elevation": 0 }))),
            Self::DeleteAndEdit | Self::DeleteAlone => return None,
        };
        Some(edits(id, &body))
    }

    /// Returns the edit of the left half.
    pub(super) fn left(self, id: &DocId) -> BulkOp {
        match self {
            Self::DifferentFields => merge(id, &json!({ "mayor": "Emilie Lieberherr" })),
            Self::SameField => merge(id, &json!({ "motto": "Green city in the sun" })),
            // Behind "Kyoto is a ".
            Self::Text => {
                edits(id, &json!({ "ops": [{ "op": "splice", "path": "/note", "index": 11, "insert": "quiet " }] }))
            }
            Self::Counter => edits(id, &json!({ "ops": [{ "op": "increment", "path": "/visits", "by": 7 }] })),
            Self::DeleteAndEdit | Self::DeleteAlone => Edit::Delete { id: id.clone() }.into(),
        }
    }

    /// Returns the edit of the right half; there deletes have no counterpart, but for one.
    pub(super) fn right(self, id: &DocId) -> Option<BulkOp> {
        Some(match self {
            Self::DifferentFields => merge(id, &json!({ "elevation": 408 })),
            Self::SameField => merge(id, &json!({ "motto": "Place of cool waters" })),
            // Before the full stop.
            Self::Text => edits(
                id,
                &json!({ "ops": [{ "op": "splice", "path": "/note", "index": 24, "insert": ", once its capital" }] }),
            ),
            Self::Counter => edits(id, &json!({ "ops": [{ "op": "increment", "path": "/visits", "by": 35 }] })),
            Self::DeleteAndEdit => merge(id, &json!({ "airport": "OSL" })),
            Self::DeleteAlone => return None,
        })
    }
}

fn merge(id: &DocId, body: &Value) -> BulkOp {
    patch(id, PatchKind::Merge, body)
}

fn edits(id: &DocId, body: &Value) -> BulkOp {
    patch(id, PatchKind::Edits, body)
}

fn patch(id: &DocId, kind: PatchKind, body: &Value) -> BulkOp {
    let patch = Patch { kind, body: Bytes::from(body.to_string()) };
    BulkOp::from(Edit::Patch { id: id.clone(), patch })
}

/// A document at one time on one node; none if it does not exist.
pub(super) type Seen = Option<Value>;

/// A case as it went, from one document's point of view.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Case {
    #[serde(rename = "case")]
    pub(super) kind: Kind,
    pub(super) document: DocId,
    pub(super) name: String,
    /// Before the cut, the members that it is about; null if the document did not exist.
    pub(super) before: Seen,
    /// What the left half saw while cut off.
    pub(super) left: Seen,
    /// What the right half saw while cut off.
    pub(super) right: Seen,
    /// What every node sees after healing.
    pub(super) merged: Seen,
    /// What is not as it should be.
    pub(super) faults: Vec<String>,
}

impl Case {
    /// Judges a case: `merged` has the document of every node, `conflicts` is what one of them lists.
    pub(super) fn judge(
        kind: Kind,
        document: DocId,
        stages: [Seen; 3],
        merged: &[Seen],
        conflicts: &[Conflict],
    ) -> Self {
        let [before, left, right] = stages;
        let name = before.as_ref().and_then(|doc| doc["name"].as_str()).unwrap_or_default().to_owned();
        let mut faults = Vec::new();
        let first = merged.first().cloned().flatten();
        if merged.iter().any(|seen| *seen != first) {
            faults.push("nodes show different documents".to_owned());
        }
        let expected = expected(kind, before.as_ref(), &[left.as_ref(), right.as_ref()], first.as_ref());
        if first != expected {
            let text = |seen: &Seen| seen.as_ref().map_or_else(|| "no document".to_owned(), Value::to_string);
            faults.push(format!("expected {}, found {}", text(&expected), text(&first)));
        }
        faults.extend(wrong_conflicts(kind, first.as_ref(), conflicts));
        let about = |seen: Seen| seen.map(|doc| pick(&doc, kind.fields()));
        Self {
            kind,
            document,
            name,
            before: about(before),
            left: about(left),
            right: about(right),
            merged: about(first),
            faults,
        }
    }
}

/// Returns the whole document that the halves' edits must come to.
fn expected(kind: Kind, before: Option<&Value>, halves: &[Option<&Value>; 2], found: Option<&Value>) -> Seen {
    let with = |members: Value| {
        let mut doc = before?.clone();
        for (name, value) in members.as_object()? {
            doc[name] = value.clone();
        }
        Some(doc)
    };
    match kind {
        Kind::DifferentFields => with(json!({ "mayor": "Emilie Lieberherr", "elevation": 408 })),
        Kind::SameField => {
            // Which of the two is shown depends on who wrote it; that it is one of them does not.
            let shown = found.map(|doc| doc["motto"].clone());
            let motto =
                halves.iter().flatten().map(|doc| doc["motto"].clone()).find(|motto| Some(motto) == shown.as_ref());
            with(json!({ "motto": motto? }))
        }
        Kind::Text => with(json!({ "note": "Kyoto is a quiet city in Japan, once its capital." })),
        Kind::Counter => with(json!({ "visits": 142 })),
        Kind::DeleteAndEdit => with(json!({ "airport": "OSL" })),
        Kind::DeleteAlone => None,
    }
}

/// Returns what is wrong with the conflicts of a case: only two values of the same field are one.
fn wrong_conflicts(kind: Kind, shown: Option<&Value>, conflicts: &[Conflict]) -> Option<String> {
    match kind {
        Kind::SameField => {
            let [Conflict { pointer, values }] = conflicts else {
                return Some(format!("expected one conflict, found {}", conflicts.len()));
            };
            let mut found: Vec<_> = values.iter().filter_map(|value| value.value.as_str()).collect();
            let first_is_shown = found.first().copied() == shown.and_then(|doc| doc["motto"].as_str());
            found.sort_unstable();
            let right =
                pointer == "/motto" && first_is_shown && found == ["Green city in the sun", "Place of cool waters"];
            (!right).then(|| format!("the conflict at {pointer} has the values {found:?}"))
        }
        Kind::DifferentFields | Kind::Text | Kind::Counter | Kind::DeleteAndEdit | Kind::DeleteAlone => {
            let place = conflicts.first().map(|conflict| &conflict.pointer)?;
            Some(format!("unexpected conflict at {place}"))
        }
    }
}

fn pick(doc: &Value, fields: &[&str]) -> Value {
    fields.iter().filter_map(|field| Some(((*field).to_owned(), doc.get(field)?.clone()))).collect()
}

/// The documents of the cases, by their GeoNames ids.
pub(super) const fn geoname(kind: Kind) -> &'static str {
    match kind {
        // Zürich, Nairobi, Kyoto, Lisbon, Oslo, Quito.
        Kind::DifferentFields => "2657896",
        Kind::SameField => "184745",
        Kind::Text => "1857910",
        Kind::Counter => "2267057",
        Kind::DeleteAndEdit => "3143244",
        Kind::DeleteAlone => "3652462",
    }
}

#[cfg(test)]
mod tests {
    use folkmoot::api::ConflictValue;

    use super::*;

    fn conflict(values: [&str; 2]) -> Conflict {
        let values = values.map(|value| ConflictValue { value: value.into(), change: None, author: None });
        Conflict { pointer: "/motto".to_owned(), values: values.to_vec() }
    }

    fn judged(kind: Kind, stages: [Value; 3], merged: &[Value], conflicts: &[Conflict]) -> Vec<String> {
        let seen = |value: Value| if value.is_null() { None } else { Some(value) };
        let merged: Vec<Seen> = merged.iter().cloned().map(seen).collect();
        Case::judge(kind, "1".parse().unwrap(), stages.map(seen), &merged, conflicts).faults
    }

    #[test]
    fn a_lost_increment_is_a_fault() {
        let visits = |n: u32| json!({ "name": "Lisbon", "visits": n });
        let stages = || [visits(100), visits(107), visits(135)];
        assert!(judged(Kind::Counter, stages(), &[visits(142), visits(142)], &[]).is_empty());
        assert_eq!(judged(Kind::Counter, stages(), &[visits(135), visits(135)], &[]).len(), 1);
        assert_eq!(judged(Kind::Counter, stages(), &[visits(142), visits(107)], &[]).len(), 1);
    }

    #[test]
    fn the_same_field_must_keep_both_values() {
        let (green, cool) = ("Green city in the sun", "Place of cool waters");
        let motto = |text: &str| json!({ "name": "Nairobi", "motto": text });
        let stages = || [motto("Nairobi"), motto(green), motto(cool)];
        for shown in [green, cool] {
            let other = if shown == green { cool } else { green };
            assert!(judged(Kind::SameField, stages(), &[motto(shown)], &[conflict([shown, other])]).is_empty());
            // The first of the values must be the one that is shown.
            assert!(!judged(Kind::SameField, stages(), &[motto(shown)], &[conflict([other, shown])]).is_empty());
        }
        assert!(!judged(Kind::SameField, stages(), &[motto(green)], &[]).is_empty());
        assert!(!judged(Kind::SameField, stages(), &[motto("Nairobi")], &[conflict([green, cool])]).is_empty());
    }

    #[test]
    fn a_deleted_document_comes_back_only_by_an_edit() {
        let oslo = json!({ "name": "Oslo", "population": 1 });
        let edited = json!({ "name": "Oslo", "population": 1, "airport": "OSL" });
        let stages = || [oslo.clone(), Value::Null, edited.clone()];
        assert!(judged(Kind::DeleteAndEdit, stages(), std::slice::from_ref(&edited), &[]).is_empty());
        assert!(!judged(Kind::DeleteAndEdit, stages(), &[Value::Null], &[]).is_empty());
        assert!(!judged(Kind::DeleteAlone, [oslo.clone(), Value::Null, oslo.clone()], &[oslo], &[]).is_empty());
    }
}
