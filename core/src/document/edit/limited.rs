//! Edits by somebody who may not read or write all fields of the document.
//!
//! What such an edit comes to is told by the operations of its change, and nothing else is asked in the end:
//! [`EditRights::declaration`]. The rest is for the writer's sake, and so that an edit tells nothing of what is withheld: a document
//! is put as the writer sees it, and an edit that would compare or copy what it may not read is refused before it is tried.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{EditError, EditErrorKind};
use super::ops::EditOp;
use super::patch::Operation;
use super::path::Path;
use super::{Edit, not_an_object};
use crate::document::json::{Pointer, Value};
use crate::document::redact::redact_at;
use crate::limits;
use crate::op::{ANY, FieldPath, FieldPaths, FieldRights};

/// What a writer may with the fields of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditRights {
    /// What it may read. Who may read nothing at all writes blindly: what it leaves out of a document is meant to go.
    pub read: FieldRights,
    /// What it may write.
    pub write: FieldRights,
}

fn withheld(place: &[String]) -> EditError {
    EditError::new(EditErrorKind::Withheld, Path::At(place), "no grant gives the right to write this field")
}

fn unreadable(place: &[String]) -> EditError {
    EditError::new(EditErrorKind::Withheld, Path::At(place), "no grant gives the right to read this field")
}

impl EditRights {
    /// Returns whether nothing is withheld.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.write.are_all() && (self.read.are_all() || self.read.are_none())
    }

    fn sees(&self, place: &[String]) -> bool {
        self.read.are_none() || self.read.include(place)
    }

    /// Returns the edit as it is to be made: a put of a document keeps what is withheld as it is in `before`, what the writer had
    /// seen (null if the document is not there).
    ///
    /// # Errors
    /// [`EditErrorKind::Withheld`], with the place, if a field is named or given that is withheld.
    pub fn limit(&self, edit: &Edit, before: &Value) -> Result<Edit, EditError> {
        match edit {
            Edit::Put(given @ Value::Map(_)) => {
                let empty = Value::Map(BTreeMap::new());
                let before = if *before == Value::Null { &empty } else { before };
                self.completed(given, Some(before), &mut Vec::new()).map(Edit::Put)
            }
            Edit::Put(given) => Err(not_an_object(given)),
            Edit::MergePatch(patch) => self.merges(patch, &mut Vec::new()).map(|()| edit.clone()),
            Edit::JsonPatch(patch) => patch.iter().try_for_each(|op| self.patches(op)).map(|()| edit.clone()),
            Edit::Ops(ops) => {
                ops.iter().try_for_each(|EditOp { path, .. }| self.writes(path.steps())).map(|()| edit.clone())
            }
        }
    }

    fn writes(&self, place: &[String]) -> Result<(), EditError> {
        if self.write.include(place) { Ok(()) } else { Err(withheld(place)) }
    }

    fn reads(&self, place: &[String]) -> Result<(), EditError> {
        if self.read.include(place) { Ok(()) } else { Err(unreadable(place)) }
    }

    fn merges(&self, patch: &Value, place: &mut Vec<String>) -> Result<(), EditError> {
        match patch {
            Value::Map(map) if place.is_empty() || !self.write.include(place) && !self.write.exclude(place) => {
                map.iter().try_for_each(|(key, value)| {
                    place.push(key.clone());
                    self.merges(value, place)?;
                    place.pop();
                    Ok(())
                })
            }
            _ => self.writes(place),
        }
    }

    fn patches(&self, operation: &Operation) -> Result<(), EditError> {
        let source = |from: &Pointer| self.reads(from.steps());
        match operation {
            Operation::Add { path, .. } | Operation::Remove { path } | Operation::Replace { path, .. } => {
                self.writes(path.steps())
            }
            Operation::Move { from, path } => {
                source(from)?;
                self.writes(from.steps())?;
                self.writes(path.steps())
            }
            Operation::Copy { from, path } => {
                source(from)?;
                self.writes(path.steps())
            }
            Operation::Test { path, .. } => source(path),
        }
    }

    /// Returns what a place that is given a value is to read as.
    fn completed(&self, given: &Value, before: Option<&Value>, place: &mut Vec<String>) -> Result<Value, EditError> {
        let (may_write, may_read) = (self.write.include(place), self.sees(place));
        if may_write && may_read {
            return Ok(given.clone());
        }
        match (given, before) {
            (Value::Map(given), Some(Value::Map(before))) => {
                let mut map = BTreeMap::new();
                for key in given.keys().chain(before.keys().filter(|key| !given.contains_key(*key))) {
                    place.push(key.clone());
                    let value = match (given.get(key), before.get(key)) {
                        (Some(given), before) => Some(self.completed(given, before, place)?),
                        (None, Some(before)) => self.kept(before, place),
                        (None, None) => None,
                    };
                    map.extend(value.map(|value| (key.clone(), value)));
                    place.pop();
                }
                Ok(Value::Map(map))
            }
            (given, Some(before)) if self.reads_as(before, given, place) => Ok(before.clone()),
            (Value::List(given), Some(Value::List(before))) if given.len() == before.len() => {
                place.push(ANY.to_owned());
                let elements = given.iter().zip(before);
                let list: Result<Vec<_>, _> =
                    elements.map(|(given, before)| self.completed(given, Some(before), place)).collect();
                place.pop();
                list.map(Value::List)
            }
            // What is hidden in it would go with it.
            (_, Some(Value::Map(_) | Value::List(_))) => Err(withheld(place)),
            _ if may_write => Ok(given.clone()),
            _ => Err(withheld(place)),
        }
    }

    /// Whether a value that may be read, at least in part, reads as what is given. Of what may not be read nothing is told, not
    /// even that it is equal.
    fn reads_as(&self, before: &Value, given: &Value, place: &[String]) -> bool {
        !self.read.are_none() && redact_at(before.clone(), &self.read, place).as_ref() == Some(given)
    }

    /// Returns what is left of a value that the writer has left out.
    fn kept(&self, before: &Value, place: &mut Vec<String>) -> Option<Value> {
        if self.write.include(place) && self.sees(place) {
            return None;
        }
        match before {
            Value::Map(before) => {
                let mut map = BTreeMap::new();
                for (key, value) in before {
                    place.push(key.clone());
                    map.extend(self.kept(value, place).map(|value| (key.clone(), value)));
                    place.pop();
                }
                Some(Value::Map(map))
            }
            other => Some(other.clone()),
        }
    }

    /// Returns what the header of a change is to declare that writes in these places.
    ///
    /// # Errors
    /// [`EditErrorKind::Withheld`], with the place, if one of them may not be written; [`EditErrorKind::TooLarge`] if they are more
    /// than a header can declare.
    pub fn declaration(&self, places: &BTreeSet<Vec<String>>) -> Result<FieldPaths, EditError> {
        if let Some(place) = places.iter().find(|place| !self.write.include(place)) {
            return Err(withheld(place));
        }
        let named = |depth: usize| -> Option<FieldPaths> {
            let paths = places.iter().map(|place| named_at(place.get(..depth).unwrap_or(place)));
            paths.collect::<Option<Vec<_>>>().map(FieldPaths::of)
        };
        let deepest = places.iter().map(Vec::len).max().unwrap_or_default();
        // Fewer, by naming what is around them, as far as that may be written.
        let fits = |paths: &FieldPaths| {
            paths.len() <= limits::CHANGE_FIELDS_MAX && paths.iter().all(|path| self.write.include(path.steps()))
        };
        (0..=deepest).rev().filter_map(named).find(fits).ok_or_else(|| {
            let most = limits::CHANGE_FIELDS_MAX;
            let reason = format!("the edit touches more than {most} fields that must be named one by one");
            EditError::new(EditErrorKind::TooLarge, "", reason).hint("make it in several steps")
        })
    }
}

/// Names a place, or what is around it where its own name would be too long.
fn named_at(place: &[String]) -> Option<FieldPath> {
    (1..=place.len()).rev().find_map(|depth| {
        let mut pointer = Pointer::ROOT;
        place.iter().take(depth).for_each(|step| pointer.push(step.clone()));
        FieldPath::at(pointer)
    })
}
