//! Places that queries name.

use std::fmt;
use std::str::FromStr;

use crate::document::json::{Pointer, PointerError, Value, Wanted};
use crate::limits;

/// A place in a document, or something about the document itself.
///
/// Written with dots (`address.city`) or as a JSON pointer (`/address/city`), which also names keys with dots in them. Where the
/// way leads through an array, it goes on in each of its objects; a number is a position too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Path {
    /// `_id`: the document's id.
    Id,
    /// `_modified`: when it was last changed, as RFC 3339 text.
    Modified,
    /// A place in it.
    Field(Vec<String>),
}

/// Why a text names no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// Two dots in a row, one at an end, or nothing.
    #[error(
        "a place is written with dots between its keys, as in address.city, or as a JSON pointer, as in /address/city"
    )]
    EmptyStep,
    /// A name that is kept for what documents have besides their content.
    #[error(
        "of what begins with _ there are only _id and _modified; a field of that name is written as a JSON pointer, as in /_x"
    )]
    Reserved,
    /// Not a JSON pointer, or too deep.
    #[error(transparent)]
    Pointer(#[from] PointerError),
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.starts_with('/') {
            return Ok(Self::Field(text.parse::<Pointer>()?.steps().to_vec()));
        }
        match text {
            "_id" => return Ok(Self::Id),
            "_modified" => return Ok(Self::Modified),
            _ if text.starts_with('_') => return Err(PathError::Reserved),
            _ => {}
        }
        let mut steps = Vec::new();
        for step in text.split('.') {
            if step.is_empty() {
                return Err(PathError::EmptyStep);
            }
            if steps.len() == limits::DOC_DEPTH_MAX {
                return Err(PointerError::TooDeep.into());
            }
            if step.len() > limits::DOC_KEY_BYTES_MAX {
                return Err(PointerError::StepTooLong.into());
            }
            steps.push(step.to_owned());
        }
        Ok(Self::Field(steps))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("_id"),
            Self::Modified => f.write_str("_modified"),
            Self::Field(steps) => {
                let plain = |step: &String| !step.is_empty() && !step.contains(['.', '/']);
                if !steps.is_empty() && steps.iter().all(plain) && !steps.iter().any(|step| step.starts_with('_')) {
                    return f.write_str(&steps.join("."));
                }
                let mut pointer = Pointer::ROOT;
                for step in steps {
                    pointer.push(step.clone());
                }
                fmt::Display::fmt(&pointer, f)
            }
        }
    }
}

impl Path {
    /// Adds the place, if it is one in the content.
    pub(super) fn add_to(&self, wanted: &mut Wanted) {
        if let Self::Field(steps) = self {
            wanted.add(steps);
        }
    }
}

/// Hands the values at a place to `found` until that returns true; returns whether it did.
pub(super) fn reach<'v>(value: &'v Value, steps: &[String], found: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    let Some((step, rest)) = steps.split_first() else { return found(value) };
    match value {
        Value::Map(map) => map.get(step).is_some_and(|value| reach(value, rest, found)),
        Value::List(list) => {
            let position = step.parse().ok().and_then(|at: usize| list.get(at));
            if position.is_some_and(|value| reach(value, rest, found)) {
                return true;
            }
            list.iter().any(|value| matches!(value, Value::Map(_)) && reach(value, steps, found))
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => false,
    }
}

/// As [`reach`], and where an array is at the place, each of its elements too.
pub(super) fn reach_each<'v>(value: &'v Value, steps: &[String], found: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    reach(value, steps, &mut |value| found(value) || matches!(value, Value::List(list) if list.iter().any(&mut *found)))
}
