//! JSON patches (RFC 6902) as values: their form, and their meaning on a plain JSON value.

use super::error::{EditError, EditErrorKind};
use crate::document::json::{Pointer, Value};

/// One operation of a JSON patch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Adds or replaces a member, or inserts an element (`-`: at the end).
    Add {
        /// Where.
        path: Pointer,
        /// What.
        value: Value,
    },
    /// Removes what is there.
    Remove {
        /// What.
        path: Pointer,
    },
    /// Replaces what is there.
    Replace {
        /// What.
        path: Pointer,
        /// By what.
        value: Value,
    },
    /// Removes a value and adds it elsewhere.
    Move {
        /// From where.
        from: Pointer,
        /// To where.
        path: Pointer,
    },
    /// Adds a copy of a value.
    Copy {
        /// Of what.
        from: Pointer,
        /// To where.
        path: Pointer,
    },
    /// Goes on only if the value is equal.
    Test {
        /// Where.
        path: Pointer,
        /// To what.
        value: Value,
    },
}

impl Operation {
    /// Returns the operation as the JSON object that RFC 6902 writes it as.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let text = |pointer: &Pointer| Value::String(pointer.to_string());
        let (name, path, second) = match self {
            Self::Add { path, value } => ("add", path, Some(("value", value.clone()))),
            Self::Remove { path } => ("remove", path, None),
            Self::Replace { path, value } => ("replace", path, Some(("value", value.clone()))),
            Self::Move { from, path } => ("move", path, Some(("from", text(from)))),
            Self::Copy { from, path } => ("copy", path, Some(("from", text(from)))),
            Self::Test { path, value } => ("test", path, Some(("value", value.clone()))),
        };
        let members = [Some(("op", Value::String(name.to_owned()))), Some(("path", text(path))), second];
        Value::Map(members.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// Applies a patch to a value.
///
/// # Errors
/// Those of RFC 6902, with the index of the operation. The value is then as the operations before it left it.
pub fn apply_to(value: &mut Value, patch: &[Operation]) -> Result<(), EditError> {
    for (index, operation) in patch.iter().enumerate() {
        apply_one(value, operation).map_err(|error| error.in_operation(index))?;
    }
    Ok(())
}

fn apply_one(root: &mut Value, operation: &Operation) -> Result<(), EditError> {
    match operation {
        Operation::Add { path, value } => add(root, path, value.clone()),
        Operation::Remove { path } => remove(root, path).map(|_| ()),
        Operation::Replace { path, value } => {
            value.clone_into(find_mut(root, path)?);
            Ok(())
        }
        Operation::Move { from, path } => {
            check_move(from, path)?;
            let value = if from == path { return find_mut(root, from).map(|_| ()) } else { remove(root, from)? };
            add(root, path, value)
        }
        Operation::Copy { from, path } => {
            let value = find_mut(root, from)?.clone();
            add(root, path, value)
        }
        Operation::Test { path, value } => {
            if find_mut(root, path)?.equals_numerically(value) {
                Ok(())
            } else {
                Err(test_failed(path))
            }
        }
    }
}

pub(super) fn check_move(from: &Pointer, path: &Pointer) -> Result<(), EditError> {
    if from.is_prefix_of(path) && from != path {
        return Err(EditError::new(EditErrorKind::Invalid, path, "a value cannot be moved into itself"));
    }
    Ok(())
}

pub(super) fn test_failed(path: &Pointer) -> EditError {
    EditError::new(EditErrorKind::TestFailed, path, "the value is not equal to the tested one")
        .hint("read the document again and make the patch anew")
}

pub(super) fn not_found(pointer: impl ToString) -> EditError {
    EditError::new(EditErrorKind::NotFound, pointer, "there is nothing at this place")
}

fn add(root: &mut Value, path: &Pointer, value: Value) -> Result<(), EditError> {
    let Some((parents, last)) = path.split_last() else {
        *root = value;
        return Ok(());
    };
    match descend(root, parents)? {
        Value::Map(map) => {
            map.insert(last.to_owned(), value);
        }
        Value::List(list) => {
            let index = insert_index(last, list.len(), path)?;
            list.insert(index, value);
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => {
            return Err(not_found(path));
        }
    }
    Ok(())
}

fn remove(root: &mut Value, path: &Pointer) -> Result<Value, EditError> {
    let Some((parents, last)) = path.split_last() else { return Err(no_root_removal()) };
    let removed = match descend(root, parents)? {
        Value::Map(map) => map.remove(last),
        Value::List(list) => index_of(last).filter(|index| *index < list.len()).map(|index| list.remove(index)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => None,
    };
    removed.ok_or_else(|| not_found(path))
}

pub(super) fn no_root_removal() -> EditError {
    EditError::new(EditErrorKind::Invalid, "", "the root of a document cannot be removed")
        .hint("delete the document instead")
}

fn find_mut<'v>(root: &'v mut Value, path: &Pointer) -> Result<&'v mut Value, EditError> {
    descend(root, path.steps())
}

fn descend<'v>(root: &'v mut Value, steps: &[String]) -> Result<&'v mut Value, EditError> {
    let mut here = root;
    for (at, step) in steps.iter().enumerate() {
        let below = match here {
            Value::Map(map) => map.get_mut(step),
            Value::List(list) => index_of(step).and_then(|index| list.get_mut(index)),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => None,
        };
        here = below.ok_or_else(|| not_found(super::path::Path::At(steps.get(..=at).unwrap_or(steps))))?;
    }
    Ok(here)
}

/// Reads an array index of a JSON pointer: digits without leading zeros.
pub(super) fn index_of(step: &str) -> Option<usize> {
    let canonical = step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { step.parse().ok() } else { None }
}

/// Reads where to insert into an array: an index up to its length, or `-` for its end.
pub(super) fn insert_index(step: &str, length: usize, path: &Pointer) -> Result<usize, EditError> {
    if step == "-" {
        return Ok(length);
    }
    index_of(step).filter(|index| *index <= length).ok_or_else(|| not_found(path))
}
