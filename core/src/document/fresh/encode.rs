//! From content to the change that makes it.

use std::borrow::Cow;

use automerge::ScalarValueRef;
use sha2::{Digest as _, Sha256};

use super::content::{Container, Content, Item};
use super::runs::{Column, Deltas, Flags, signed, unsigned};
use crate::id::ActorId;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
/// The actor's first change (1), from operation 1, at time 0, with a message of length 0, naming 0 other actors.
pub(super) const FIRST: [u8; 5] = [1, 1, 0, 0, 0];

/// Columns of a change by Automerge's specification number; predecessors and marks do not occur here.
pub(super) mod column {
    pub(in super::super) const OBJECT_ACTOR: u64 = 1;
    pub(in super::super) const OBJECT_COUNTER: u64 = 2;
    pub(in super::super) const KEY_ACTOR: u64 = 17;
    pub(in super::super) const KEY_COUNTER: u64 = 19;
    pub(in super::super) const KEY_TEXT: u64 = 21;
    pub(in super::super) const INSERT: u64 = 52;
    pub(in super::super) const ACTION: u64 = 66;
    pub(in super::super) const VALUE_META: u64 = 86;
    pub(in super::super) const VALUE: u64 = 87;
    pub(in super::super) const PREDECESSORS: u64 = 112;
}

/// Kinds of operations, as numbers.
pub(super) mod action {
    pub(in super::super) const MAP: u64 = 0;
    pub(in super::super) const SET: u64 = 1;
    pub(in super::super) const LIST: u64 = 2;
    pub(in super::super) const TEXT: u64 = 4;
}

/// What the low bits of a value's meta number mean.
pub(super) mod meta {
    pub(in super::super) const NULL: u64 = 0;
    pub(in super::super) const FALSE: u64 = 1;
    pub(in super::super) const TRUE: u64 = 2;
    pub(in super::super) const UINT: u64 = 3;
    pub(in super::super) const INT: u64 = 4;
    pub(in super::super) const FLOAT: u64 = 5;
    pub(in super::super) const TEXT: u64 = 6;
    pub(in super::super) const BYTES: u64 = 7;
    pub(in super::super) const COUNTER: u64 = 8;
    pub(in super::super) const TIMESTAMP: u64 = 9;
}

/// Where an operation goes within its object.
enum Place<'a> {
    Key(&'a str),
    /// Behind the element that this operation inserted; 0 is the front.
    Behind(u64),
}

#[derive(Default)]
struct Operations<'a> {
    object_actor: Column<u64>,
    object_counter: Column<u64>,
    key_actor: Column<u64>,
    key_counter: Deltas,
    key_text: Column<&'a str>,
    insert: Flags,
    action: Column<u64>,
    value_meta: Column<u64>,
    value: Vec<u8>,
    count: u64,
}

impl<'a> Operations<'a> {
    /// Adds an operation on the object that operation `object` made; 0 is the root.
    fn push(&mut self, object: u64, place: Place<'a>, action: u64, value: &ScalarValueRef<'_>) {
        let own = |counter: u64| (counter > 0).then_some(0);
        self.count += 1;
        self.object_actor.push(own(object));
        self.object_counter.push((object > 0).then_some(object));
        let (key, behind) = match place {
            Place::Key(key) => (Some(key), None),
            Place::Behind(element) => (None, Some(element)),
        };
        self.key_text.push(key);
        self.key_actor.push(behind.and_then(own));
        self.key_counter.push(behind.map(u64::cast_signed));
        self.insert.push(behind.is_some());
        self.action.push(Some(action));
        let begin = self.value.len();
        let code = self.write(value);
        let len = (self.value.len() - begin) as u64;
        self.value_meta.push(Some(len << 4 | code));
    }

    fn item(&mut self, object: u64, place: Place<'a>, item: &Item<'_>, content: &Content<'_>, made: &mut Vec<u64>) {
        match item {
            Item::Scalar(scalar) => self.push(object, place, action::SET, scalar),
            Item::Container => {
                let action = match content.containers.get(made.len()) {
                    Some(Container::Map(_)) | None => action::MAP,
                    Some(Container::List(_)) => action::LIST,
                    Some(Container::Text(_)) => action::TEXT,
                };
                self.push(object, place, action, &ScalarValueRef::Null);
                made.push(self.count);
            }
        }
    }

    /// Returns the columns in their order, by specification number.
    fn finish(self) -> [(u64, Vec<u8>); 10] {
        let mut predecessors = Column::<u64>::default();
        predecessors.repeat(0, self.count);
        [
            (column::OBJECT_ACTOR, self.object_actor.finish()),
            (column::OBJECT_COUNTER, self.object_counter.finish()),
            (column::KEY_ACTOR, self.key_actor.finish()),
            (column::KEY_COUNTER, self.key_counter.finish()),
            (column::KEY_TEXT, self.key_text.finish()),
            (column::INSERT, self.insert.finish()),
            (column::ACTION, self.action.finish()),
            (column::VALUE_META, self.value_meta.finish()),
            (column::VALUE, self.value),
            (column::PREDECESSORS, predecessors.finish()),
        ]
    }

    fn write(&mut self, value: &ScalarValueRef<'_>) -> u64 {
        let out = &mut self.value;
        match value {
            ScalarValueRef::Null => meta::NULL,
            ScalarValueRef::Boolean(false) => meta::FALSE,
            ScalarValueRef::Boolean(true) => meta::TRUE,
            ScalarValueRef::Uint(uint) => {
                unsigned(out, *uint);
                meta::UINT
            }
            ScalarValueRef::Int(int) => {
                signed(out, *int);
                meta::INT
            }
            ScalarValueRef::F64(float) => {
                out.extend_from_slice(&float.to_le_bytes());
                meta::FLOAT
            }
            ScalarValueRef::Str(text) => {
                out.extend_from_slice(text.as_bytes());
                meta::TEXT
            }
            ScalarValueRef::Bytes(bytes) => {
                out.extend_from_slice(bytes);
                meta::BYTES
            }
            ScalarValueRef::Counter(int) => {
                signed(out, *int);
                meta::COUNTER
            }
            ScalarValueRef::Timestamp(ms) => {
                signed(out, *ms);
                meta::TIMESTAMP
            }
            ScalarValueRef::Unknown { type_code, bytes } => {
                out.extend_from_slice(bytes);
                u64::from(*type_code)
            }
        }
    }
}

/// Returns the raw bytes of the change by which `actor` fills an empty document.
pub(super) fn encode(content: &Content<'_>, actor: &ActorId) -> Vec<u8> {
    let mut ops = Operations::default();
    // The operation that made each container.
    let mut made = Vec::with_capacity(content.containers.len());
    made.push(0);
    for (index, container) in content.containers.iter().enumerate() {
        let object = made.get(index).copied().unwrap_or_default();
        match container {
            Container::Map(entries) => {
                for (key, item) in entries {
                    ops.item(object, Place::Key(key), item, content, &mut made);
                }
            }
            Container::List(items) => {
                let mut behind = 0;
                for item in items {
                    ops.item(object, Place::Behind(behind), item, content, &mut made);
                    behind = ops.count;
                }
            }
            Container::Text(text) => {
                let mut behind = 0;
                for char in text.split_inclusive(|_| true) {
                    let char = ScalarValueRef::Str(Cow::Borrowed(char));
                    ops.push(object, Place::Behind(behind), action::SET, &char);
                    behind = ops.count;
                }
            }
        }
    }
    chunk(actor, ops)
}

/// Puts a change together: no dependencies, the actor's first, from operation 1, without time, message or other actors.
fn chunk(actor: &ActorId, ops: Operations<'_>) -> Vec<u8> {
    let columns = ops.finish();
    let columns = || columns.iter().filter(|(_, data)| !data.is_empty());
    let mut body = Vec::with_capacity(64 + columns().map(|(_, data)| data.len() + 4).sum::<usize>());
    body.push(0);
    unsigned(&mut body, ActorId::LEN as u64);
    body.extend_from_slice(actor.as_bytes());
    body.extend_from_slice(&FIRST);
    unsigned(&mut body, columns().count() as u64);
    for (spec, data) in columns() {
        unsigned(&mut body, *spec);
        unsigned(&mut body, data.len() as u64);
    }
    for (_, data) in columns() {
        body.extend_from_slice(data);
    }
    let mut out = Vec::with_capacity(body.len() + 16);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.push(CHUNK_CHANGE);
    unsigned(&mut out, body.len() as u64);
    out.extend_from_slice(&body);
    let hash = Sha256::digest(out.get(8..).unwrap_or_default());
    for (place, byte) in out.iter_mut().skip(4).zip(hash.iter().take(4)) {
        *place = *byte;
    }
    out
}
