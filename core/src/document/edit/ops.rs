//! The edit format of this project, `application/vnd.folkmoot.edit+json`: what JSON patches cannot say.
//!
//! ```json
//! {"ops": [
//!   {"op": "set",       "path": "/title", "value": "…"},
//!   {"op": "delete",    "path": "/draft"},
//!   {"op": "increment", "path": "/votes", "by": 1},
//!   {"op": "splice",    "path": "/text", "index": 3, "delete": 2, "insert": "…"},
//!   {"op": "insert",    "path": "/tags", "index": 0, "values": ["a", "b"]},
//!   {"op": "remove",    "path": "/tags", "index": 0, "count": 1},
//!   {"op": "text",      "path": "/text", "value": "…"},
//!   {"op": "counter",   "path": "/votes", "value": 0},
//!   {"op": "timestamp", "path": "/due", "value": "2026-11-22T10:20:30Z"},
//!   {"op": "bytes",     "path": "/thumb", "value": "AAEC"}
//! ]}
//! ```
//!
//! * Operations apply in order, all or none. Paths are JSON pointers; an object on the way must exist.
//! * `set` and the four typed ones make a place read as the value, by the smallest change, and resolve a conflict
//!   there. In an array they replace an element that exists. `text` and `counter` without a value give what is
//!   there the type, and an absent field "" or 0.
//! * `increment` adds `by` (1 if absent, negative to subtract) to a counter; concurrent increments add up. On a field
//!   that is declared counter and absent it makes one.
//! * `splice` counts in Unicode code points. `insert` without `index` appends. `remove` without `count` removes one.
//! * Indices are those of the version that the edit is based on, after the edit's own earlier operations; what
//!   others inserted or removed meanwhile is taken into account.

use automerge::transaction::Transactable as _;
use automerge::{ObjType, Prop, ROOT, ScalarValueRef, ValueRef, hydrate};

use super::error::{EditError, EditErrorKind};
use super::live::{Container, Existence, Live};
use super::patch::not_found;
use super::path::Path;
use super::step::{self, Step};
use super::typed;
use crate::document::json::{self, Pointer, Value};
use crate::op::FieldKind;

/// One operation of an edit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EditOp {
    /// What it is about.
    pub path: Pointer,
    /// What it does.
    pub action: Action,
}

/// What an [`EditOp`] does at its path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Makes the place read as the value.
    Set(Value),
    /// Removes a member or element.
    Delete,
    /// Adds to a counter.
    Increment {
        /// How much.
        by: i64,
    },
    /// Replaces a part of a mergeable text.
    Splice {
        /// Where, in code points.
        index: usize,
        /// How many code points go.
        delete: usize,
        /// What comes.
        insert: String,
    },
    /// Inserts elements into an array.
    Insert {
        /// Where; none is the end.
        index: Option<usize>,
        /// What comes.
        values: Vec<Value>,
    },
    /// Removes elements of an array.
    Remove {
        /// The first.
        index: usize,
        /// How many.
        count: usize,
    },
    /// Makes a mergeable text, with a value or with what is there.
    Text(Option<String>),
    /// Makes a counter, with a value or with what is there.
    Counter(Option<i64>),
    /// Makes a point in time of milliseconds since 1970.
    Timestamp(i64),
    /// Makes bytes.
    Bytes(Vec<u8>),
}

impl Live<'_, '_> {
    pub(super) fn ops(&mut self, ops: &[EditOp]) -> Result<(), EditError> {
        for (index, op) in ops.iter().enumerate() {
            self.op(op).map_err(|error| error.in_operation(index))?;
        }
        Ok(())
    }

    fn op(&mut self, op: &EditOp) -> Result<(), EditError> {
        let path = &op.path;
        match &op.action {
            Action::Set(value) => self.set(path, value, Existence::Optional),
            Action::Delete => self.remove(path),
            Action::Increment { by } => self.increment(path, *by),
            Action::Splice { index, delete, insert } => self.splice(path, *index, *delete, insert),
            Action::Insert { index, values } => self.insert_values(path, *index, values),
            Action::Remove { index, count } => self.remove_elements(path, *index, *count),
            Action::Text(value) => self.make_text(path, value.as_deref()),
            Action::Counter(value) => self.make_counter(path, *value),
            Action::Timestamp(ms) => self.make(path, hydrate::Value::scalar(automerge::ScalarValue::Timestamp(*ms))),
            Action::Bytes(bytes) => self.make(path, hydrate::Value::scalar(bytes.clone())),
        }
    }

    fn increment(&mut self, path: &Pointer, by: i64) -> Result<(), EditError> {
        let (container, last) = self.parent(path)?;
        self.budget.operations(1, Path::of(path))?;
        let Some((prop, item)) = self.sight.find(self.tx, &container, last)? else {
            if container.is_list() || self.types.at(path.steps()).kind() != Some(FieldKind::Counter) {
                return Err(not_found(path).hint("make the counter first: {\"op\":\"counter\",…}"));
            }
            return self.make(path, hydrate::Value::scalar(automerge::ScalarValue::counter(by)));
        };
        match item.value() {
            ValueRef::Scalar(ScalarValueRef::Counter(now)) => {
                if now.checked_add(by).is_none() {
                    let reason = "the counter would leave the range of 64-bit integers";
                    return Err(EditError::new(EditErrorKind::TooLarge, path, reason));
                }
            }
            ValueRef::Scalar(_) | ValueRef::Object(_) => {
                return Err(EditError::mismatch(Path::of(path), "only a counter can be incremented")
                    .hint("turn a number into a counter first: {\"op\":\"counter\",…} without a value"));
            }
        }
        drop(item);
        Ok(self.tx.increment(&container.object, prop, by)?)
    }

    fn splice(&mut self, path: &Pointer, index: usize, delete: usize, insert: &str) -> Result<(), EditError> {
        let text = self.object(path)?;
        if text.as_ref().is_none_or(|text| text.kind != ObjType::Text) {
            if self.types.at(path.steps()).kind() == Some(FieldKind::Text) {
                // The field was written before it was declared, or never: what it reads as becomes the text.
                self.make_text(path, None)?;
                return self.splice(path, index, delete, insert);
            }
            return Err(EditError::mismatch(Path::of(path), "only a mergeable text can be spliced")
                .hint("make it one first: {\"op\":\"text\",…} without a value, or declare the field text"));
        }
        let Some(text) = text else { return Err(not_found(path)) };
        let length = self.sight.length(self.tx, &text)?;
        if index.checked_add(delete).is_none_or(|end| end > length) {
            return Err(out_of_range(path, length, "code points"));
        }
        self.budget.operations(delete + insert.chars().count(), Path::of(path))?;
        self.budget.bytes(insert.len(), Path::of(path))?;
        self.sight.remove(self.tx, &text, index, delete)?;
        if insert.is_empty() { Ok(()) } else { self.sight.insert_text(self.tx, &text, index, insert) }
    }

    fn insert_values(&mut self, path: &Pointer, index: Option<usize>, values: &[Value]) -> Result<(), EditError> {
        let list = self.list(path)?;
        let length = self.sight.length(self.tx, &list)?;
        let index = index.unwrap_or(length);
        if index > length {
            return Err(out_of_range(path, length, "elements"));
        }
        let place = self.types.at(path.steps());
        let path = Path::of(path);
        let values = values.iter().enumerate().map(|(at, value)| {
            typed::stored(value, &place.index(index + at), Path::Index(&path, index + at), &mut self.budget)
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        self.insert(&list, index, values)
    }

    fn remove_elements(&mut self, path: &Pointer, index: usize, count: usize) -> Result<(), EditError> {
        let list = self.list(path)?;
        let length = self.sight.length(self.tx, &list)?;
        if index.checked_add(count).is_none_or(|end| end > length) {
            return Err(out_of_range(path, length, "elements"));
        }
        self.budget.operations(count, Path::of(path))?;
        self.sight.remove(self.tx, &list, index, count)
    }

    fn make_text(&mut self, path: &Pointer, value: Option<&str>) -> Result<(), EditError> {
        let (container, last) = self.parent(path)?;
        let found = self.sight.find(self.tx, &container, last)?;
        let present = match found.as_ref().map(|(_, item)| (item.value(), item.id())) {
            None => None,
            Some((ValueRef::Object(ObjType::Text), _)) => match value {
                Some(value) => {
                    drop(found);
                    return self.set(path, &Value::String(value.to_owned()), Existence::Required);
                }
                None => return Ok(()),
            },
            Some((ValueRef::Scalar(ScalarValueRef::Str(text)), _)) => Some(text.clone().into_owned()),
            Some((ValueRef::Scalar(ScalarValueRef::Null), _)) => None,
            Some((_, _)) if value.is_some() => None,
            Some((_, _)) => {
                return Err(EditError::mismatch(Path::of(path), "only a string can become a mergeable text")
                    .hint("give a value to replace what is there"));
            }
        };
        drop(found);
        self.make(path, typed::text_object(value.or(present.as_deref()).unwrap_or_default()))
    }

    fn make_counter(&mut self, path: &Pointer, value: Option<i64>) -> Result<(), EditError> {
        let (container, last) = self.parent(path)?;
        let found = self.sight.find(self.tx, &container, last)?;
        let present = match found.as_ref().map(|(_, item)| item.value()) {
            None | Some(ValueRef::Scalar(ScalarValueRef::Null)) => None,
            Some(ValueRef::Scalar(ScalarValueRef::Counter(_))) => match value {
                Some(value) => {
                    drop(found);
                    return self.set(path, &Value::Int(value), Existence::Required);
                }
                None => return Ok(()),
            },
            Some(ValueRef::Scalar(scalar)) => match (json::scalar_value(scalar), value) {
                (_, Some(_)) => None,
                (Value::Int(present), None) => Some(present),
                (other, None) => {
                    let reason = format!("only an integer can become a counter, and this is {}", other.type_name());
                    return Err(
                        EditError::mismatch(Path::of(path), reason).hint("give a value to replace what is there")
                    );
                }
            },
            Some(ValueRef::Object(_)) if value.is_some() => None,
            Some(ValueRef::Object(_)) => {
                return Err(EditError::mismatch(Path::of(path), "only an integer can become a counter")
                    .hint("give a value to replace what is there"));
            }
        };
        drop(found);
        let value = value.or(present).unwrap_or_default();
        self.make(path, hydrate::Value::scalar(automerge::ScalarValue::counter(value)))
    }

    /// Writes a typed value, whatever is there.
    fn make(&mut self, path: &Pointer, value: hydrate::Value) -> Result<(), EditError> {
        let (container, last) = self.parent(path)?;
        self.budget.charge(&value, Path::of(path))?;
        let prop = match self.sight.find(self.tx, &container, last)? {
            Some((prop, _)) => prop,
            None if container.is_list() => return Err(not_found(path)),
            None => Prop::Map(last.to_owned()),
        };
        step::run(self.tx, vec![Step::Write { object: container.object, prop, value }])
    }

    fn parent<'p>(&mut self, path: &'p Pointer) -> Result<(Container, &'p str), EditError> {
        let Some((parents, last)) = path.split_last() else {
            return Err(EditError::mismatch(Path::ROOT, "the root of a document is always an object"));
        };
        Ok((self.container(parents)?, last))
    }

    /// Finds the object at a place; `None` if there is a scalar or nothing.
    fn object(&mut self, path: &Pointer) -> Result<Option<Container>, EditError> {
        match path.split_last() {
            None => Ok(Some(Container { object: ROOT, kind: ObjType::Map, seen: true })),
            Some((parents, last)) => {
                let parent = self.container(parents)?;
                self.sight.below(self.tx, &parent, last)
            }
        }
    }

    fn list(&mut self, path: &Pointer) -> Result<Container, EditError> {
        match self.object(path)? {
            Some(list) if list.is_list() => Ok(list),
            Some(_) => Err(EditError::mismatch(Path::of(path), "this is no array")),
            None => {
                let (parent, last) = self.parent(path)?;
                match self.sight.find(self.tx, &parent, last)? {
                    Some(_) => Err(EditError::mismatch(Path::of(path), "this is no array")),
                    None => Err(not_found(path).hint("make the array first: {\"op\":\"set\",…,\"value\":[]}")),
                }
            }
        }
    }
}

fn out_of_range(path: &Pointer, length: usize, unit: &str) -> EditError {
    let reason = format!("the index lies beyond the {length} {unit} that are there");
    EditError::new(EditErrorKind::NotFound, path, reason)
}
