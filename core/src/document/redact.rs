//! What somebody sees of a document who may not read all of its fields.

use std::collections::BTreeMap;

use super::json::Value;
use crate::op::{ANY, FieldRights};

/// Returns what of a value may be read. Of a limit to some fields, these are left with the objects and arrays on the way to
/// them; of one that withholds some, all others are. An element of an array that may not be read at all is left out.
#[must_use]
pub fn redact(value: Value, rights: &FieldRights) -> Value {
    if rights.are_all() {
        return value;
    }
    visible(value, rights, &mut Vec::new()).unwrap_or_else(|| Value::Map(BTreeMap::new()))
}

/// Returns what may be read of the value at a place, as [`redact`] does of a whole document; none if nothing may.
#[must_use]
pub fn redact_at(value: Value, rights: &FieldRights, place: &[String]) -> Option<Value> {
    visible(value, rights, &mut place.to_vec())
}

/// Recurses; values have passed the bound on depth.
fn visible(value: Value, rights: &FieldRights, place: &mut Vec<String>) -> Option<Value> {
    if rights.include(place) {
        return Some(value);
    }
    if rights.exclude(place) {
        return None;
    }
    let mut below = |step: String, value| {
        place.push(step);
        let seen = visible(value, rights, place);
        place.pop();
        seen
    };
    match value {
        Value::Map(map) => {
            let seen = map.into_iter().filter_map(|(key, value)| below(key.clone(), value).map(|seen| (key, seen)));
            Some(Value::Map(seen.collect()))
        }
        Value::List(list) => {
            Some(Value::List(list.into_iter().filter_map(|value| below(ANY.to_owned(), value)).collect()))
        }
        scalar @ (Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Float(_)
        | Value::String(_)) => rights.show_scalar(place).then_some(scalar),
    }
}
