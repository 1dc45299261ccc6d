//! Edits from their JSON texts. Errors point into the text of the edit.

use std::collections::BTreeMap;

use super::error::{EditError, EditErrorKind};
use super::ops::{Action, EditOp};
use super::patch::Operation;
use crate::document::json::{self, Pointer, Value};
use crate::limits;

pub(super) fn patch(value: Value) -> Result<Vec<Operation>, EditError> {
    let Value::List(operations) = value else {
        return Err(EditError::new(EditErrorKind::Invalid, "", "a JSON patch is an array of operations"));
    };
    each(operations, "", |fields| {
        let operation = match fields.text("op")?.as_str() {
            "add" => Operation::Add { path: fields.pointer("path")?, value: fields.required("value")? },
            "remove" => Operation::Remove { path: fields.pointer("path")? },
            "replace" => Operation::Replace { path: fields.pointer("path")?, value: fields.required("value")? },
            "move" => Operation::Move { from: fields.pointer("from")?, path: fields.pointer("path")? },
            "copy" => Operation::Copy { from: fields.pointer("from")?, path: fields.pointer("path")? },
            "test" => Operation::Test { path: fields.pointer("path")?, value: fields.required("value")? },
            _ => {
                return Err(fields
                    .invalid("op", "there is no such operation")
                    .hint("one of add, remove, replace, move, copy, test (RFC 6902)"));
            }
        };
        // RFC 6902 section 4: members that are not defined are ignored.
        Ok(operation)
    })
}

pub(super) fn ops(value: Value) -> Result<Vec<EditOp>, EditError> {
    const SHAPE: &str = "an edit is an object with the member ops, an array of operations";
    let invalid = |pointer: &str| EditError::new(EditErrorKind::Invalid, pointer, SHAPE);
    let Value::Map(mut members) = value else { return Err(invalid("")) };
    let Some(Value::List(operations)) = members.remove("ops") else { return Err(invalid("/ops")) };
    if let Some(other) = members.keys().next() {
        let mut pointer = Pointer::ROOT;
        pointer.push(other);
        return Err(EditError::new(EditErrorKind::Invalid, pointer, "an edit has no such member"));
    }
    each(operations, "/ops", |fields| {
        let name = fields.text("op")?;
        let path = fields.pointer("path")?;
        let action = match name.as_str() {
            "set" => Action::Set(fields.required("value")?),
            "delete" => Action::Delete,
            "increment" => Action::Increment { by: fields.integer("by")?.unwrap_or(1) },
            "splice" => Action::Splice {
                index: fields.size("index")?.ok_or_else(|| fields.missing("index"))?,
                delete: fields.size("delete")?.unwrap_or(0),
                insert: fields.optional_text("insert")?.unwrap_or_default(),
            },
            "insert" => Action::Insert {
                index: fields.size("index")?,
                values: match fields.required("values")? {
                    Value::List(values) => values,
                    _ => return Err(fields.invalid("values", "values is an array")),
                },
            },
            "remove" => Action::Remove {
                index: fields.size("index")?.ok_or_else(|| fields.missing("index"))?,
                count: fields.size("count")?.unwrap_or(1),
            },
            "text" => Action::Text(fields.optional_text("value")?),
            "counter" => Action::Counter(fields.integer("value")?),
            "timestamp" => {
                let text = fields.text("value")?;
                Action::Timestamp(json::timestamp_from_text(&text).ok_or_else(|| {
                    fields
                        .invalid("value", "the string is no timestamp")
                        .hint("write times as in RFC 3339: 2026-11-22T10:20:30Z")
                })?)
            }
            "bytes" => {
                let text = fields.text("value")?;
                Action::Bytes(json::bytes_from_text(&text).ok_or_else(|| {
                    fields
                        .invalid("value", "the string is not base64")
                        .hint("use the standard alphabet with padding (RFC 4648 section 4)")
                })?)
            }
            _ => {
                return Err(fields
                    .invalid("op", "there is no such operation")
                    .hint("one of set, delete, increment, splice, insert, remove, text, counter, timestamp, bytes"));
            }
        };
        fields.finish()?;
        Ok(EditOp { path, action })
    })
}

fn each<T>(
    operations: Vec<Value>,
    at: &str,
    mut read: impl FnMut(&mut Fields) -> Result<T, EditError>,
) -> Result<Vec<T>, EditError> {
    if operations.len() > limits::EDIT_OPS_MAX {
        let reason = format!("an edit has at most {} operations", limits::EDIT_OPS_MAX);
        return Err(EditError::new(EditErrorKind::TooLarge, at, reason));
    }
    let read = |(index, operation)| {
        let at = format!("{at}/{index}");
        let result = match operation {
            Value::Map(members) => read(&mut Fields { members, at }),
            _ => Err(EditError::new(EditErrorKind::Invalid, at, "an operation is an object")),
        };
        result.map_err(|error| error.in_operation(index))
    };
    operations.into_iter().enumerate().map(read).collect()
}

/// The members of an operation; what is read is taken out.
struct Fields {
    members: BTreeMap<String, Value>,
    at: String,
}

impl Fields {
    fn invalid(&self, member: &str, reason: impl Into<String>) -> EditError {
        EditError::new(EditErrorKind::Invalid, format!("{}/{member}", self.at), reason)
    }

    fn missing(&self, member: &str) -> EditError {
        EditError::new(EditErrorKind::Invalid, &self.at, format!("the operation needs the member {member}"))
    }

    fn required(&mut self, member: &str) -> Result<Value, EditError> {
        self.members.remove(member).ok_or_else(|| self.missing(member))
    }

    fn text(&mut self, member: &str) -> Result<String, EditError> {
        self.optional_text(member)?.ok_or_else(|| self.missing(member))
    }

    fn optional_text(&mut self, member: &str) -> Result<Option<String>, EditError> {
        match self.members.remove(member) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(member, format!("{member} is a string"))),
        }
    }

    fn integer(&mut self, member: &str) -> Result<Option<i64>, EditError> {
        match self.members.remove(member) {
            None => Ok(None),
            Some(Value::Int(integer)) => Ok(Some(integer)),
            Some(_) => Err(self.invalid(member, format!("{member} is an integer"))),
        }
    }

    fn size(&mut self, member: &str) -> Result<Option<usize>, EditError> {
        let integer = self.integer(member)?;
        let size = integer.map(usize::try_from).transpose();
        size.map_err(|_| self.invalid(member, format!("{member} is not negative")))
    }

    fn pointer(&mut self, member: &str) -> Result<Pointer, EditError> {
        let text = self.text(member)?;
        text.parse().map_err(|error: json::PointerError| self.invalid(member, error.to_string()))
    }

    fn finish(&self) -> Result<(), EditError> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(other) => {
                let mut pointer: Pointer = self.at.parse().unwrap_or_default();
                pointer.push(other);
                Err(EditError::new(EditErrorKind::Invalid, pointer, "the operation has no such member"))
            }
        }
    }
}
