//! The conflicts of a document: places that several writers wrote without having seen each other.
//!
//! Nothing is lost by a conflict. Automerge shows one of the values, the same one everywhere, and keeps the others
//! until somebody writes the place again, having seen them; such a write resolves it.

use automerge::iter::{ListRange, MapRange};
use automerge::{ActorId, Automerge, AutomergeError, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc as _, ValueRef};

use super::json::{self, Pointer, Value};
use crate::limits;

/// Most places that are listed.
pub const PLACES_MAX: usize = 1_000;
/// Most values that are listed for one place, the winner among them.
pub const ALTERNATIVES_MAX: usize = 64;

/// The conflicts of a document, in the order of a walk through it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conflicts {
    /// The places.
    pub places: Vec<Conflict>,
    /// There are more than were listed: more places, more values at one, or values of more than
    /// [`limits::JSON_BYTES_MAX`] in all.
    pub more: bool,
}

/// A place with several values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// Where.
    pub pointer: Pointer,
    /// What was written, the shown value first.
    pub alternatives: Vec<Alternative>,
}

/// One of the values of a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alternative {
    /// The value.
    pub value: Value,
    /// The change that wrote it.
    pub change: ChangeHash,
    /// The actor that wrote it.
    pub actor: ActorId,
}

/// Lists the conflicts of a document. Values that lost are not searched for conflicts of their own.
///
/// # Errors
/// If Automerge cannot read a place that it has just listed.
pub fn list(doc: &Automerge) -> Result<Conflicts, AutomergeError> {
    let mut search = Search { doc, found: Conflicts::default(), bytes: 0 };
    search.walk()?;
    Ok(search.found)
}

struct Search<'a> {
    doc: &'a Automerge,
    found: Conflicts,
    /// Of the values that were listed.
    bytes: usize,
}

enum Frame<'a> {
    Map(ObjId, MapRange<'a>),
    List(ObjId, ListRange<'a>),
}

impl Search<'_> {
    fn walk(&mut self) -> Result<(), AutomergeError> {
        let doc = self.doc;
        let mut pointer = Pointer::ROOT;
        let mut frames = vec![Frame::Map(ROOT, doc.map_range(&ROOT, ..))];
        while let Some(frame) = frames.last_mut() {
            let next = match frame {
                Frame::Map(object, entries) => entries.next().map(|entry| {
                    let child = object_of(&entry.value).map(|kind| (kind, entry.id()));
                    (object.clone(), Prop::Map(entry.key.into_owned()), entry.conflict, child)
                }),
                Frame::List(object, elements) => elements.next().map(|element| {
                    let child = object_of(&element.value).map(|kind| (kind, element.id()));
                    (object.clone(), Prop::Seq(element.index), element.conflict, child)
                }),
            };
            let Some((object, prop, conflict, child)) = next else {
                frames.pop();
                pointer.pop();
                continue;
            };
            pointer.push(prop.to_string());
            if conflict && !self.place(&pointer, &object, prop)? {
                return Ok(());
            }
            match child {
                Some((ObjType::Map | ObjType::Table, object)) => {
                    let entries = doc.map_range(&object, ..);
                    frames.push(Frame::Map(object, entries));
                }
                Some((ObjType::List, object)) => {
                    let elements = doc.list_range(&object, ..);
                    frames.push(Frame::List(object, elements));
                }
                // Characters of a text do not conflict: they are inserted and deleted, never overwritten.
                Some((ObjType::Text, _)) | None => pointer.pop(),
            }
        }
        Ok(())
    }

    /// Adds a place; returns whether there is room for more.
    fn place(&mut self, pointer: &Pointer, object: &ObjId, prop: Prop) -> Result<bool, AutomergeError> {
        if self.found.places.len() == PLACES_MAX {
            self.found.more = true;
            return Ok(false);
        }
        let mut alternatives = Vec::new();
        // The winner is the last.
        for (value, id) in self.doc.get_all(object, prop)?.into_iter().rev() {
            if alternatives.len() == ALTERNATIVES_MAX {
                self.found.more = true;
                break;
            }
            let (Some(change), ObjId::Id(_, actor, _)) = (self.doc.hash_for_opid(&id), &id) else { continue };
            let value = match &value {
                automerge::Value::Object(kind) => json::object_value(self.doc, &id, *kind, None),
                automerge::Value::Scalar(scalar) => json::owned_scalar_value(scalar),
            };
            self.bytes += json::render_value(&value).len();
            alternatives.push(Alternative { value, change, actor: actor.clone() });
            if self.bytes > limits::JSON_BYTES_MAX {
                self.found.more = true;
                break;
            }
        }
        if alternatives.len() > 1 {
            self.found.places.push(Conflict { pointer: pointer.clone(), alternatives });
        }
        Ok(self.bytes <= limits::JSON_BYTES_MAX)
    }
}

fn object_of(value: &ValueRef<'_>) -> Option<ObjType> {
    match value {
        ValueRef::Object(kind) => Some(*kind),
        ValueRef::Scalar(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::{Transactable as _, Transaction};

    use super::*;
    use crate::document::edit::{Edit, EditFormat, FieldTypes, apply};

    fn actor(byte: u8) -> ActorId {
        ActorId::from([byte; 16])
    }

    fn change(doc: &mut Automerge, write: impl FnOnce(&mut Transaction<'_>)) -> ChangeHash {
        let mut tx = doc.transaction();
        write(&mut tx);
        tx.commit().0.unwrap()
    }

    fn edit(doc: &mut Automerge, format: EditFormat, text: &str) -> ChangeHash {
        let edit = Edit::parse(format, text.as_bytes()).unwrap();
        change(doc, |tx| assert!(apply(tx, None, &edit, &FieldTypes::none()).unwrap().operations > 0))
    }

    /// Two writers who both write a scalar, an element and an object.
    fn conflicted() -> (Automerge, [ChangeHash; 2]) {
        let mut one = Automerge::new().with_actor(actor(1));
        edit(&mut one, EditFormat::Document, r#"{"a/b":0,"l":[0],"o":0,"quiet":0}"#);
        let mut two = one.fork().with_actor(actor(2));
        let first = edit(&mut one, EditFormat::Document, r#"{"a/b":1,"l":[1],"o":{"x":1},"quiet":0}"#);
        let second = edit(&mut two, EditFormat::Document, r#"{"a/b":2,"l":[2],"o":{"x":2},"quiet":2}"#);
        one.merge(&mut two).unwrap();
        (one, [first, second])
    }

    #[test]
    fn every_conflict_is_listed_with_its_writers() {
        let (doc, [first, second]) = conflicted();
        let found = list(&doc).unwrap();
        assert!(!found.more);
        let shown = json::to_value(&doc);
        let places: Vec<_> = found.places.iter().map(|place| place.pointer.to_string()).collect();
        assert_eq!(places, ["/a~1b", "/l/0", "/o"]);
        for place in &found.places {
            let writers: Vec<_> = place.alternatives.iter().map(|a| (a.change, a.actor.clone())).collect();
            assert_eq!(writers, [(second, actor(2)), (first, actor(1))], "the winner first");
        }
        assert_eq!(Some(&found.places[2].alternatives[0].value), shown.get("o"));
        assert_eq!(found.places[2].alternatives[1].value.to_string(), r#"{"x":1}"#);
        assert_eq!(found.places[0].alternatives[1].value, Value::Int(1));
    }

    #[test]
    fn a_write_resolves_and_a_restatement_does_not() {
        let (mut doc, _) = conflicted();
        let shown = json::render(&doc);
        let mut tx = doc.transaction();
        let restated = Edit::parse(EditFormat::Document, shown.as_bytes()).unwrap();
        assert_eq!(apply(&mut tx, None, &restated, &FieldTypes::none()).unwrap().operations, 0);
        tx.commit();
        assert_eq!(list(&doc).unwrap().places.len(), 3);
        // The winner is kept, by each way to write it.
        edit(&mut doc, EditFormat::MergePatch, r#"{"a/b":2}"#);
        edit(&mut doc, EditFormat::Ops, r#"{"ops":[{"op":"set","path":"/l/0","value":2}]}"#);
        edit(&mut doc, EditFormat::JsonPatch, r#"[{"op":"replace","path":"/o","value":{"x":2}}]"#);
        assert_eq!(list(&doc).unwrap(), Conflicts::default());
        assert_eq!(json::render(&doc), shown);
        // Or the loser is taken.
        let (mut doc, _) = conflicted();
        edit(&mut doc, EditFormat::MergePatch, r#"{"a/b":1,"l":[1],"o":{"y":1}}"#);
        assert!(json::render(&doc).starts_with(r#"{"a/b":1,"l":[1],"o":{"x":2,"y":1}"#));
        let left = list(&doc).unwrap();
        assert_eq!(left.places.len(), 1, "a merge into an object does not decide between objects");
        assert_eq!(left.places[0].pointer.to_string(), "/o");
    }

    #[test]
    fn conflicts_within_the_shown_values_are_found_and_the_lists_are_bounded() {
        let mut one = Automerge::new().with_actor(actor(1));
        edit(&mut one, EditFormat::Document, r#"{"deep":[{"k":{}}]}"#);
        let mut others: Vec<_> = (2..=70).map(|byte| one.fork().with_actor(actor(byte))).collect();
        for (index, other) in others.iter_mut().enumerate() {
            edit(other, EditFormat::MergePatch, &format!(r#"{{"deep":[{{"k":{{"z":{index}}}}}]}}"#));
        }
        for other in &mut others {
            one.merge(other).unwrap();
        }
        let found = list(&one).unwrap();
        assert!(found.more);
        assert_eq!(found.places[0].pointer.to_string(), "/deep/0/k/z");
        assert_eq!(found.places[0].alternatives.len(), ALTERNATIVES_MAX);
        // Many places.
        let mut one = Automerge::new().with_actor(actor(1));
        let mut two = Automerge::new().with_actor(actor(2));
        for doc in [&mut one, &mut two] {
            change(doc, |tx| (0..PLACES_MAX + 1).for_each(|key| tx.put(ROOT, key.to_string(), 1).unwrap()));
        }
        one.merge(&mut two).unwrap();
        let found = list(&one).unwrap();
        assert!(found.more);
        assert_eq!(found.places.len(), PLACES_MAX);
    }
}
