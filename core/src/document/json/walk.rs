//! A walk over the visible state of a document, which renders it or builds a [`Value`] of it.
//!
//! It keeps its own stack: a document that is nested thousands deep must not overflow the thread's.
//! Automerge's own `AutoSerde` recurses, and takes six times as long.

use std::collections::BTreeMap;

use automerge::iter::{ListRange, MapRange};
use automerge::{Automerge, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, ScalarValueRef, ValueRef};

use super::parse::parse;
use super::{Value, bytes, timestamp};

/// Objects nested deeper are shown as null. The gate admits no document deeper than
/// [`crate::limits::DOC_DEPTH_MAX`], so this only bounds the memory that a fault elsewhere could take.
const WALK_DEPTH_MAX: usize = 256;

/// Takes the parts of a value in the order of its JSON text.
pub(in crate::document) trait Sink {
    fn open_map(&mut self);
    fn close_map(&mut self);
    fn open_list(&mut self);
    fn close_list(&mut self);
    fn key(&mut self, key: &str);
    fn scalar(&mut self, value: &ScalarValueRef<'_>);
    fn text(&mut self, text: String);
    /// A value that is canonical JSON text already.
    fn json(&mut self, json: &str);
    fn null(&mut self);
}

enum Frame<'a> {
    Map(MapRange<'a>),
    List(ListRange<'a>),
}

/// Walks an object as it is, or was at `heads`.
pub(super) fn walk<D: ReadDoc>(
    doc: &D,
    object: &ObjId,
    kind: ObjType,
    heads: Option<&[ChangeHash]>,
    sink: &mut impl Sink,
) {
    let mut frames = Vec::with_capacity(8);
    open(doc, object, kind, heads, &mut frames, sink);
    while let Some(frame) = frames.last_mut() {
        let value = match frame {
            Frame::Map(entries) => match entries.next() {
                Some(entry) => {
                    sink.key(&entry.key);
                    match &entry.value {
                        ValueRef::Object(kind) => Some((*kind, entry.id())),
                        ValueRef::Scalar(scalar) => {
                            sink.scalar(scalar);
                            None
                        }
                    }
                }
                None => {
                    sink.close_map();
                    frames.pop();
                    None
                }
            },
            Frame::List(elements) => match elements.next() {
                Some(element) => match &element.value {
                    ValueRef::Object(kind) => Some((*kind, element.id())),
                    ValueRef::Scalar(scalar) => {
                        sink.scalar(scalar);
                        None
                    }
                },
                None => {
                    sink.close_list();
                    frames.pop();
                    None
                }
            },
        };
        if let Some((kind, object)) = value {
            open(doc, &object, kind, heads, &mut frames, sink);
        }
    }
}

fn open<'a, D: ReadDoc>(
    doc: &'a D,
    object: &ObjId,
    kind: ObjType,
    heads: Option<&[ChangeHash]>,
    frames: &mut Vec<Frame<'a>>,
    sink: &mut impl Sink,
) {
    if frames.len() == WALK_DEPTH_MAX {
        sink.null();
        return;
    }
    match kind {
        ObjType::Map | ObjType::Table => {
            sink.open_map();
            frames.push(Frame::Map(match heads {
                None => doc.map_range(object, ..),
                Some(heads) => doc.map_range_at(object, .., heads),
            }));
        }
        ObjType::List => {
            sink.open_list();
            frames.push(Frame::List(match heads {
                None => doc.list_range(object, ..),
                Some(heads) => doc.list_range_at(object, .., heads),
            }));
        }
        ObjType::Text => {
            let text = match heads {
                None => doc.text(object),
                Some(heads) => doc.text_at(object, heads),
            };
            // It fails for an object that is not there only, and this one was just listed.
            sink.text(text.unwrap_or_default());
        }
    }
}

/// Returns the document as a value.
#[must_use]
pub fn to_value(doc: &Automerge) -> Value {
    object_value(doc, &ROOT, ObjType::Map, None)
}

/// Returns the document as it was at `heads`. Heads that are not in the document count as nothing.
#[must_use]
pub fn to_value_at(doc: &Automerge, heads: &[ChangeHash]) -> Value {
    object_value(doc, &ROOT, ObjType::Map, Some(heads))
}

/// Returns an object of a document, or of an open transaction, as a value.
pub(in crate::document) fn object_value<D: ReadDoc>(
    doc: &D,
    object: &ObjId,
    kind: ObjType,
    heads: Option<&[ChangeHash]>,
) -> Value {
    let mut builder = Builder { open: Vec::new(), key: String::new(), done: Value::Null };
    walk(doc, object, kind, heads, &mut builder);
    builder.done
}

/// Returns a scalar of a document as JSON shows it.
pub(in crate::document) fn scalar_value(scalar: &ScalarValueRef<'_>) -> Value {
    match scalar {
        ScalarValueRef::Null => Value::Null,
        ScalarValueRef::Boolean(bool) => Value::Bool(*bool),
        ScalarValueRef::Int(int) | ScalarValueRef::Counter(int) => Value::Int(*int),
        ScalarValueRef::Uint(uint) => Value::from_u64(*uint),
        ScalarValueRef::F64(float) => Value::from_f64(*float),
        ScalarValueRef::Str(text) => Value::String(text.clone().into_owned()),
        ScalarValueRef::Timestamp(ms) => timestamp::render(*ms).map_or(Value::Int(*ms), Value::String),
        ScalarValueRef::Bytes(raw) | ScalarValueRef::Unknown { bytes: raw, .. } => Value::String(bytes::encode(raw)),
    }
}

/// Returns an owned scalar as JSON shows it.
pub(in crate::document) fn owned_scalar_value(scalar: &ScalarValue) -> Value {
    match scalar {
        ScalarValue::Null => Value::Null,
        ScalarValue::Boolean(bool) => Value::Bool(*bool),
        ScalarValue::Int(int) => Value::Int(*int),
        ScalarValue::Counter(counter) => Value::Int(i64::from(counter)),
        ScalarValue::Uint(uint) => Value::from_u64(*uint),
        ScalarValue::F64(float) => Value::from_f64(*float),
        ScalarValue::Str(text) => Value::String(text.to_string()),
        ScalarValue::Timestamp(ms) => timestamp::render(*ms).map_or(Value::Int(*ms), Value::String),
        ScalarValue::Bytes(raw) | ScalarValue::Unknown { bytes: raw, .. } => Value::String(bytes::encode(raw)),
    }
}

/// A container under construction, with its own key if it is in a map.
enum Open {
    Map(BTreeMap<String, Value>, String),
    List(Vec<Value>, String),
}

struct Builder {
    open: Vec<Open>,
    /// The key of the value that comes next, if that is in a map.
    key: String,
    done: Value,
}

impl Builder {
    fn add(&mut self, value: Value) {
        match self.open.last_mut() {
            Some(Open::Map(map, _)) => {
                map.insert(std::mem::take(&mut self.key), value);
            }
            Some(Open::List(list, _)) => list.push(value),
            None => self.done = value,
        }
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some(Open::Map(map, key)) => {
                self.key = key;
                self.add(Value::Map(map));
            }
            Some(Open::List(list, key)) => {
                self.key = key;
                self.add(Value::List(list));
            }
            None => {}
        }
    }
}

impl Sink for Builder {
    fn open_map(&mut self) {
        self.open.push(Open::Map(BTreeMap::new(), std::mem::take(&mut self.key)));
    }

    fn close_map(&mut self) {
        self.close();
    }

    fn open_list(&mut self) {
        self.open.push(Open::List(Vec::new(), std::mem::take(&mut self.key)));
    }

    fn close_list(&mut self) {
        self.close();
    }

    fn key(&mut self, key: &str) {
        key.clone_into(&mut self.key);
    }

    fn scalar(&mut self, value: &ScalarValueRef<'_>) {
        self.add(scalar_value(value));
    }

    fn text(&mut self, text: String) {
        self.add(Value::String(text));
    }

    fn json(&mut self, json: &str) {
        self.add(parse(json.as_bytes()).unwrap_or(Value::Null));
    }

    fn null(&mut self) {
        self.add(Value::Null);
    }
}
