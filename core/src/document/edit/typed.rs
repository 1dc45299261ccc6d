//! From JSON values to what Automerge stores, by the declared types.

use std::borrow::Cow;

use automerge::{ScalarValue, TextEncoding, hydrate};

use super::budget::Budget;
use super::error::EditError;
use super::path::Path;
use super::types::Place;
use crate::document::json::{self, Value};
use crate::op::FieldKind;

/// Returns what to store for a value at a place, and charges for it.
pub(super) fn stored(
    value: &Value,
    place: &Place<'_>,
    path: Path<'_>,
    budget: &mut Budget,
) -> Result<hydrate::Value, EditError> {
    if let Some(kind) = place.kind()
        && let Some(stored) = declared(value, kind, path)?
    {
        budget.charge(&stored, path)?;
        return Ok(stored);
    }
    match value {
        Value::List(list) => {
            budget.container(path)?;
            let list = list
                .iter()
                .enumerate()
                .map(|(index, value)| stored(value, &place.index(index), Path::Index(&path, index), budget));
            Ok(hydrate::Value::List(list.collect::<Result<Vec<_>, _>>()?.into()))
        }
        Value::Map(map) => {
            budget.container(path)?;
            let mut stored_map = hydrate::Map::default();
            stored_map.reserve(map.len());
            for (key, value) in map {
                budget.bytes(key.len(), path)?;
                let value = stored(value, &place.key(key), Path::Key(&path, key), budget)?;
                stored_map.insert(key.clone(), hydrate::MapValue { value, conflict: false });
            }
            Ok(hydrate::Value::Map(stored_map))
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => {
            let stored = hydrate::Value::Scalar(plain(value));
            budget.charge(&stored, path)?;
            Ok(stored)
        }
    }
}

/// The scalar that stores a value without a declared type; null for containers, which callers handle before.
fn plain(value: &Value) -> ScalarValue {
    match value {
        Value::Null | Value::List(_) | Value::Map(_) => ScalarValue::Null,
        Value::Bool(bool) => ScalarValue::Boolean(*bool),
        Value::Int(int) => ScalarValue::Int(*int),
        Value::Uint(uint) => ScalarValue::Uint(*uint),
        Value::Float(float) => ScalarValue::F64(*float),
        Value::String(text) => ScalarValue::Str(text.as_str().into()),
    }
}

/// Converts to a declared type. `None` for null, which every field may be.
fn declared(value: &Value, kind: FieldKind, path: Path<'_>) -> Result<Option<hydrate::Value>, EditError> {
    let is = value.type_name();
    let stored = match (kind, value) {
        (_, Value::Null) => return Ok(None),
        (FieldKind::Text, Value::String(text)) => text_object(text),
        (FieldKind::Counter, Value::Int(int)) => hydrate::Value::Scalar(ScalarValue::counter(*int)),
        (FieldKind::Timestamp, Value::String(text)) => match json::timestamp_from_text(text) {
            Some(ms) => hydrate::Value::Scalar(ScalarValue::Timestamp(ms)),
            None => {
                return Err(EditError::mismatch(path, "the field is declared timestamp and the string is none")
                    .hint("write times as in RFC 3339: 2026-11-22T10:20:30Z"));
            }
        },
        (FieldKind::Bytes, Value::String(text)) => match json::bytes_from_text(text) {
            Some(bytes) => hydrate::Value::Scalar(ScalarValue::Bytes(bytes)),
            None => {
                return Err(EditError::mismatch(path, "the field is declared bytes and the string is not base64")
                    .hint("use the standard alphabet with padding (RFC 4648 section 4)"));
            }
        },
        (FieldKind::Text, _) => {
            return Err(EditError::mismatch(
                path,
                format!("the field is declared text, so it takes a string, not {is}"),
            ));
        }
        (FieldKind::Counter, _) => {
            return Err(EditError::mismatch(path, format!("the field is declared counter, and this is {is}"))
                .hint("counters are integers from -9223372036854775808 to 9223372036854775807"));
        }
        (FieldKind::Timestamp, _) => {
            return Err(EditError::mismatch(path, format!("the field is declared timestamp, and this is {is}"))
                .hint("write times as in RFC 3339: 2026-11-22T10:20:30Z"));
        }
        (FieldKind::Bytes, _) => {
            return Err(EditError::mismatch(path, format!("the field is declared bytes, and this is {is}"))
                .hint("write bytes as a base64 string"));
        }
    };
    Ok(Some(stored))
}

/// A mergeable text. All documents of this project count in code points (Automerge's native default).
pub(super) fn text_object(text: &str) -> hydrate::Value {
    hydrate::Value::text(TextEncoding::UnicodeCodePoint, text)
}

/// Returns the value with its declared timestamps written as documents show them, so that another way to write
/// the same time is no change.
pub(super) fn canonical<'v>(value: &'v Value, place: &Place<'_>) -> Cow<'v, Value> {
    if place.is_plain() {
        return Cow::Borrowed(value);
    }
    match value {
        Value::String(text) if place.kind() == Some(FieldKind::Timestamp) => {
            match json::timestamp_from_text(text).and_then(json::timestamp_to_text) {
                Some(text) => Cow::Owned(Value::String(text)),
                None => Cow::Borrowed(value),
            }
        }
        Value::List(list) => {
            let list = list.iter().enumerate().map(|(at, value)| canonical(value, &place.index(at)).into_owned());
            Cow::Owned(Value::List(list.collect()))
        }
        Value::Map(map) => {
            let map = map.iter().map(|(key, value)| (key.clone(), canonical(value, &place.key(key)).into_owned()));
            Cow::Owned(Value::Map(map.collect()))
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => {
            Cow::Borrowed(value)
        }
    }
}

/// Returns a value that was copied within the document as the declared types of its new place want it; where none
/// is declared it keeps the type that it had. Charges for it.
pub(super) fn copied(
    value: hydrate::Value,
    place: &Place<'_>,
    path: Path<'_>,
    budget: &mut Budget,
) -> Result<hydrate::Value, EditError> {
    if let (Some(kind), hydrate::Value::Scalar(_) | hydrate::Value::Text(_)) = (place.kind(), &value) {
        let value = declared(&shown(&value), kind, path)?.unwrap_or(value);
        budget.charge(&value, path)?;
        return Ok(value);
    }
    match value {
        hydrate::Value::Map(map) => {
            budget.container(path)?;
            let mut copy = hydrate::Map::default();
            for (key, entry) in map.iter() {
                budget.bytes(key.len(), path)?;
                let value = copied(entry.value.clone(), &place.key(key), Path::Key(&path, key), budget)?;
                copy.insert(key.clone(), hydrate::MapValue { value, conflict: false });
            }
            Ok(hydrate::Value::Map(copy))
        }
        hydrate::Value::List(list) => {
            budget.container(path)?;
            let copy = list.iter().enumerate().map(|(index, element)| {
                copied(element.value.clone(), &place.index(index), Path::Index(&path, index), budget)
            });
            Ok(hydrate::Value::List(copy.collect::<Result<Vec<_>, _>>()?.into()))
        }
        value @ (hydrate::Value::Scalar(_) | hydrate::Value::Text(_)) => {
            budget.charge(&value, path)?;
            Ok(value)
        }
    }
}

/// What JSON shows of a scalar or text.
fn shown(value: &hydrate::Value) -> Value {
    match value {
        hydrate::Value::Text(text) => Value::String(String::from(text)),
        hydrate::Value::Scalar(scalar) => json::owned_scalar_value(scalar),
        hydrate::Value::Map(_) | hydrate::Value::List(_) => Value::Null,
    }
}
