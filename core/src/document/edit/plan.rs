//! From "the document shall read like this" to the smallest set of writes, relative to what the writer had seen.

use automerge::iter::{ListRangeItem, MapRangeItem};
use automerge::{ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValueRef, ValueRef, hydrate};
use std::collections::BTreeMap;

use super::budget::Budget;
use super::error::{EditError, EditErrorKind};
use super::path::Path;
use super::step::Step;
use super::typed;
use super::types::Place;
use crate::document::json::{self, Value};
use crate::op::FieldKind;

/// Whether a value is named because it is part of a whole, or on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intent {
    /// Part of a whole: what reads the same stays untouched, conflicts included.
    Restate,
    /// Meant as such: a conflict at the place is resolved to it.
    Assign,
}

/// What the writer had seen of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// What is there now.
    Current,
    /// The object as it was at the base.
    AtBase,
    /// Not this object.
    Nothing,
}

/// A visible value with its identity.
pub(super) enum Item<'a> {
    Entry(MapRangeItem<'a>),
    Element(ListRangeItem<'a>),
}

impl<'a> Item<'a> {
    pub(super) fn value(&self) -> &ValueRef<'a> {
        match self {
            Self::Entry(entry) => &entry.value,
            Self::Element(element) => &element.value,
        }
    }

    /// Id of the operation that wrote it, and of the object if it is one.
    pub(super) fn id(&self) -> ObjId {
        match self {
            Self::Entry(entry) => entry.id(),
            Self::Element(element) => element.id(),
        }
    }

    fn conflict(&self) -> bool {
        match self {
            Self::Entry(entry) => entry.conflict,
            Self::Element(element) => element.conflict,
        }
    }
}

/// A place that can be written, and how its value came to be seen.
pub(super) struct Register<'a, 'i> {
    pub(super) object: &'a ObjId,
    pub(super) prop: Prop,
    pub(super) item: &'a Item<'i>,
    pub(super) seen: Seen,
}

/// Returns what an empty document is filled with so that it reads as `given`.
pub(super) fn filling(given: &Value, place: &Place<'_>, budget: &mut Budget) -> Result<hydrate::Map, EditError> {
    match given {
        Value::Map(_) => match typed::stored(given, place, Path::ROOT, budget)? {
            hydrate::Value::Map(map) => Ok(map),
            hydrate::Value::Scalar(_) | hydrate::Value::List(_) | hydrate::Value::Text(_) => Err(not_an_object(given)),
        },
        other => Err(not_an_object(other)),
    }
}

/// Collects the steps of one edit.
pub(super) struct Planner<'a, D> {
    pub(super) doc: &'a D,
    /// What the writer had seen; `None` if that is the current version.
    pub(super) base: Option<&'a [ChangeHash]>,
    pub(super) steps: Vec<Step>,
    pub(super) budget: &'a mut Budget,
}

impl<'a, D: ReadDoc> Planner<'a, D> {
    pub(super) fn seen(&self) -> Seen {
        if self.base.is_some() { Seen::AtBase } else { Seen::Current }
    }

    /// Makes the whole document read as `given`.
    pub(super) fn put_document(&mut self, given: &Value, place: &Place<'_>) -> Result<(), EditError> {
        match &*typed::canonical(given, place) {
            Value::Map(map) => self.put_map(&ROOT, &self.seen(), map, place, Path::ROOT),
            other => Err(not_an_object(other)),
        }
    }

    /// Fills a document that never had anything in it.
    pub(super) fn create(&mut self, given: &Value, place: &Place<'_>) -> Result<(), EditError> {
        let map = filling(given, place, self.budget)?;
        if !map.is_empty() {
            self.steps.push(Step::Create(map));
        }
        Ok(())
    }

    fn put_map(
        &mut self,
        object: &ObjId,
        seen: &Seen,
        given: &BTreeMap<String, Value>,
        place: &Place<'_>,
        path: Path<'_>,
    ) -> Result<(), EditError> {
        let doc = self.doc;
        let before: Option<BTreeMap<String, Item<'a>>> = match (seen, self.base) {
            (Seen::Current, _) | (Seen::AtBase, None) => None,
            (Seen::AtBase, Some(base)) => {
                Some(doc.map_range_at(object, .., base).map(|e| (e.key.clone().into_owned(), Item::Entry(e))).collect())
            }
            (Seen::Nothing, _) => Some(BTreeMap::new()),
        };
        // Both sides are in the order of the keys' bytes.
        let mut wanted = given.iter().peekable();
        for entry in doc.map_range(object, ..) {
            while let Some((key, value)) = wanted.next_if(|(key, _)| key.as_str() < entry.key.as_ref()) {
                self.put_absent(object, key, value, before.as_ref(), place, path)?;
            }
            let key = entry.key.clone();
            let item = Item::Entry(entry);
            let seen_item = before.as_ref().map(|before| before.get(&*key));
            match wanted.next_if(|(wanted, _)| wanted.as_str() == key) {
                Some((_, value)) => {
                    let (place, path) = (place.key(&key), Path::Key(&path, &key));
                    let Some(seen) = self.seen_as(&item, seen_item, value) else { continue };
                    let register = Register { object, prop: Prop::Map(key.to_string()), item: &item, seen };
                    self.put_value(&register, value, &place, path, Intent::Restate)?;
                }
                None => self.delete_seen(object, &key, &item, seen_item, path)?,
            }
        }
        for (key, value) in wanted {
            self.put_absent(object, key, value, before.as_ref(), place, path)?;
        }
        Ok(())
    }

    /// Decides how much of a current value the writer had seen; `None` if the writer left it as it was.
    fn seen_as(&self, item: &Item<'_>, before: Option<Option<&Item<'_>>>, given: &Value) -> Option<Seen> {
        match before {
            None => Some(Seen::Current),
            Some(Some(before)) if before.id() == item.id() => Some(Seen::AtBase),
            Some(Some(before)) if self.reads(before, self.base, given) => None,
            Some(Some(_) | None) => Some(Seen::Nothing),
        }
    }

    /// Writes a key that is not there now, unless it was when the writer looked, and with this value.
    fn put_absent(
        &mut self,
        object: &ObjId,
        key: &str,
        value: &Value,
        before: Option<&BTreeMap<String, Item<'_>>>,
        place: &Place<'_>,
        path: Path<'_>,
    ) -> Result<(), EditError> {
        if before.and_then(|before| before.get(key)).is_some_and(|item| self.reads(item, self.base, value)) {
            return Ok(());
        }
        let path = Path::Key(&path, key);
        self.budget.bytes(key.len(), path)?;
        let value = typed::stored(value, &place.key(key), path, self.budget)?;
        self.steps.push(Step::Write { object: object.clone(), prop: Prop::Map(key.to_owned()), value });
        Ok(())
    }

    /// Deletes a key if the writer had seen the value that it has.
    pub(super) fn delete_seen(
        &mut self,
        object: &ObjId,
        key: &str,
        item: &Item<'_>,
        before: Option<Option<&Item<'_>>>,
        path: Path<'_>,
    ) -> Result<(), EditError> {
        if before.is_some_and(|before| before.is_none_or(|before| before.id() != item.id())) {
            return Ok(());
        }
        self.budget.operations(1, Path::Key(&path, key))?;
        self.steps.push(Step::Delete { object: object.clone(), prop: Prop::Map(key.to_owned()) });
        Ok(())
    }

    /// Makes a place that has a value read as `given`.
    pub(super) fn put_value(
        &mut self,
        register: &Register<'_, 'a>,
        given: &Value,
        place: &Place<'_>,
        path: Path<'_>,
        intent: Intent,
    ) -> Result<(), EditError> {
        let item = register.item;
        let resolve = intent == Intent::Assign && item.conflict();
        match (item.value(), given) {
            _ if resolve => {}
            (ValueRef::Object(ObjType::Map | ObjType::Table), Value::Map(given)) if place.kind().is_none() => {
                return self.put_map(&item.id(), &register.seen, given, place, path);
            }
            (ValueRef::Object(ObjType::List), Value::List(given)) if place.kind().is_none() => {
                return self.put_list(&item.id(), &register.seen, given, place, path);
            }
            (ValueRef::Object(ObjType::Text), Value::String(given))
                if place.kind().is_none_or(|kind| kind == FieldKind::Text) =>
            {
                return self.put_text(&item.id(), &register.seen, given, path);
            }
            (ValueRef::Object(_), _) => {}
            (ValueRef::Scalar(ScalarValueRef::Counter(now)), Value::Int(to))
                if place.kind().is_none_or(|kind| kind == FieldKind::Counter) =>
            {
                return self.put_counter(register, *now, *to, path);
            }
            (ValueRef::Scalar(scalar), _) => {
                if reads(scalar, given) {
                    return Ok(());
                }
                if let Some(value) = same_type(scalar, given, place) {
                    self.budget.charge(&value, path)?;
                    return self.write(register, value);
                }
            }
        }
        let value = typed::stored(given, place, path, self.budget)?;
        self.write(register, value)
    }

    fn write(&mut self, register: &Register<'_, 'a>, value: hydrate::Value) -> Result<(), EditError> {
        self.steps.push(Step::Write { object: register.object.clone(), prop: register.prop.clone(), value });
        Ok(())
    }

    /// Adds to a counter what the writer added to what it showed.
    fn put_counter(&mut self, register: &Register<'_, 'a>, now: i64, to: i64, path: Path<'_>) -> Result<(), EditError> {
        let from = match (&register.seen, self.base) {
            (Seen::AtBase, Some(base)) => match self.doc.get_at(register.object, register.prop.clone(), base)? {
                Some((value, _)) => value.as_i64().unwrap_or(now),
                None => now,
            },
            (Seen::Current | Seen::AtBase | Seen::Nothing, _) => now,
        };
        let by = to.checked_sub(from).filter(|by| now.checked_add(*by).is_some());
        let by = by.ok_or_else(|| {
            EditError::new(EditErrorKind::TooLarge, path, "the counter would leave the range of 64-bit integers")
        })?;
        if by != 0 {
            self.budget.operations(1, path)?;
            self.steps.push(Step::Increment { object: register.object.clone(), prop: register.prop.clone(), by });
        }
        Ok(())
    }

    /// Applies a merge patch (RFC 7396) to a map.
    pub(super) fn merge_map(
        &mut self,
        object: &ObjId,
        seen: &Seen,
        patch: &BTreeMap<String, Value>,
        place: &Place<'_>,
        path: Path<'_>,
    ) -> Result<(), EditError> {
        for (key, value) in patch {
            let here = entry(self.doc, object, key, None);
            let before = match (seen, self.base) {
                (Seen::Current, _) | (Seen::AtBase, None) => None,
                (Seen::AtBase, Some(base)) => Some(entry(self.doc, object, key, Some(base))),
                (Seen::Nothing, _) => Some(None),
            };
            let before = before.as_ref().map(Option::as_ref);
            let (item, path_here, place) = (here.as_ref(), Path::Key(&path, key), place.key(key));
            match (item, value) {
                (None, Value::Null) => {}
                (Some(item), Value::Null) => self.delete_seen(object, key, item, before, path)?,
                (Some(item), value) => {
                    let seen = match before {
                        None => Seen::Current,
                        Some(Some(before)) if before.id() == item.id() => Seen::AtBase,
                        Some(Some(_) | None) => Seen::Nothing,
                    };
                    let register = Register { object, prop: Prop::Map(key.clone()), item, seen };
                    match (item.value(), value) {
                        // Into the shown object, in a conflict as well: a merge is about what is inside.
                        (ValueRef::Object(ObjType::Map | ObjType::Table), Value::Map(patch)) => {
                            self.merge_map(&item.id(), &register.seen, patch, &place, path_here)?;
                        }
                        _ => self.put_value(&register, &without_nulls(value), &place, path_here, Intent::Assign)?,
                    }
                }
                (None, value) => self.put_absent_at(object, key, &without_nulls(value), &place, path_here)?,
            }
        }
        Ok(())
    }

    /// Writes a key that is not there now.
    pub(super) fn put_absent_at(
        &mut self,
        object: &ObjId,
        key: &str,
        value: &Value,
        place: &Place<'_>,
        path: Path<'_>,
    ) -> Result<(), EditError> {
        self.budget.bytes(key.len(), path)?;
        let value = typed::stored(value, place, path, self.budget)?;
        self.steps.push(Step::Write { object: object.clone(), prop: Prop::Map(key.to_owned()), value });
        Ok(())
    }

    /// Returns whether a value reads as `given`.
    pub(super) fn reads(&self, item: &Item<'_>, at: Option<&[ChangeHash]>, given: &Value) -> bool {
        match item.value() {
            ValueRef::Scalar(scalar) => reads(scalar, given),
            ValueRef::Object(kind) => self.value_of_object(*kind, &item.id(), at) == *given,
        }
    }

    pub(super) fn value(&self, item: &Item<'_>, at: Option<&[ChangeHash]>) -> Value {
        match item.value() {
            ValueRef::Scalar(scalar) => json::scalar_value(scalar),
            ValueRef::Object(kind) => self.value_of_object(*kind, &item.id(), at),
        }
    }

    fn value_of_object(&self, kind: ObjType, object: &ObjId, at: Option<&[ChangeHash]>) -> Value {
        json::object_value(self.doc, object, kind, at)
    }
}

pub(super) fn not_an_object(value: &Value) -> EditError {
    let reason = format!("a document is an object, and this is {}", value.type_name());
    EditError::new(EditErrorKind::Invalid, "", reason)
}

/// Returns the entry of a map.
pub(super) fn entry<'a, D: ReadDoc>(
    doc: &'a D,
    object: &ObjId,
    key: &str,
    at: Option<&[ChangeHash]>,
) -> Option<Item<'a>> {
    let range = key.to_owned()..=key.to_owned();
    let mut entries = match at {
        None => doc.map_range(object, range),
        Some(heads) => doc.map_range_at(object, range, heads),
    };
    entries.next().map(Item::Entry)
}

/// Returns the element of a list.
pub(super) fn element<'a, D: ReadDoc>(
    doc: &'a D,
    list: &ObjId,
    index: usize,
    at: Option<&[ChangeHash]>,
) -> Option<Item<'a>> {
    let range = index..index.checked_add(1)?;
    let mut elements = match at {
        None => doc.list_range(list, range),
        Some(heads) => doc.list_range_at(list, range, heads),
    };
    elements.next().map(Item::Element)
}

pub(super) fn reads(scalar: &ScalarValueRef<'_>, given: &Value) -> bool {
    match (scalar, given) {
        (ScalarValueRef::Str(text), Value::String(given)) => text == given,
        (scalar, given) => json::scalar_value(scalar) == *given,
    }
}

/// Keeps the type of a timestamp or bytes that another program wrote, where the new string is one as well.
pub(super) fn same_type(scalar: &ScalarValueRef<'_>, given: &Value, place: &Place<'_>) -> Option<hydrate::Value> {
    let Value::String(given) = given else { return None };
    if place.kind().is_some() {
        return None;
    }
    let value = match scalar {
        ScalarValueRef::Timestamp(_) => {
            let ms = json::timestamp_from_text(given)?;
            (json::timestamp_to_text(ms).as_ref() == Some(given)).then_some(automerge::ScalarValue::Timestamp(ms))?
        }
        ScalarValueRef::Bytes(_) => automerge::ScalarValue::Bytes(json::bytes_from_text(given)?),
        ScalarValueRef::Null
        | ScalarValueRef::Boolean(_)
        | ScalarValueRef::Int(_)
        | ScalarValueRef::Uint(_)
        | ScalarValueRef::F64(_)
        | ScalarValueRef::Str(_)
        | ScalarValueRef::Counter(_)
        | ScalarValueRef::Unknown { .. } => return None,
    };
    Some(hydrate::Value::Scalar(value))
}

/// What a merge patch writes where there is no object to merge into.
pub(super) fn without_nulls(patch: &Value) -> Value {
    match patch {
        Value::Map(map) => Value::Map(
            map.iter()
                .filter(|(_, value)| **value != Value::Null)
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}
