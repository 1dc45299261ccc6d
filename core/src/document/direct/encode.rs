//! From operations to the change that holds them.

use std::borrow::Cow;

use automerge::ScalarValueRef;
use sha2::{Digest as _, Sha256};

use super::content::{Container, Content, Item};
use super::runs::{Column, Deltas, Flags, signed, unsigned};
use crate::id::{ActorId, ChangeHash};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;

/// Columns of a change by Automerge's specification number; marks do not occur here.
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
    pub(in super::super) const PREDECESSOR_ACTOR: u64 = 113;
    pub(in super::super) const PREDECESSOR_COUNTER: u64 = 115;
}

/// Kinds of operations, as numbers.
pub(super) mod action {
    pub(in super::super) const MAP: u64 = 0;
    pub(in super::super) const SET: u64 = 1;
    pub(in super::super) const LIST: u64 = 2;
    pub(in super::super) const DELETE: u64 = 3;
    pub(in super::super) const TEXT: u64 = 4;
    pub(in super::super) const INCREMENT: u64 = 5;
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

/// Names an operation within a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ref {
    /// Position of its actor in the change's table; 0 is the change's own.
    pub(super) actor: u64,
    pub(super) counter: u64,
}

impl Ref {
    /// Names an operation of the change's own actor; `None` for number 0, which stands for the root or the front.
    fn own(counter: u64) -> Option<Self> {
        (counter > 0).then_some(Self { actor: 0, counter })
    }
}

/// Where an operation goes within its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place<'a, R> {
    Key(&'a str),
    /// Inserted behind the element that this operation inserted; none is the front.
    Behind(Option<R>),
}

/// What stands before the operations of a change. It has neither time nor message.
pub(super) struct Head<'a> {
    pub(super) deps: &'a [ChangeHash],
    pub(super) actor: &'a ActorId,
    pub(super) seq: u64,
    pub(super) start_op: u64,
    /// Other actors that the operations name, ascending.
    pub(super) others: &'a [ActorId],
}

/// The columns of a change.
#[derive(Default)]
pub(super) struct Operations<'a> {
    object_actor: Column<u64>,
    object_counter: Column<u64>,
    key_actor: Column<u64>,
    key_counter: Deltas,
    key_text: Column<&'a str>,
    insert: Flags,
    action: Column<u64>,
    value_meta: Column<u64>,
    value: Vec<u8>,
    predecessors: Column<u64>,
    predecessor_actor: Column<u64>,
    predecessor_counter: Deltas,
    count: u64,
}

impl<'a> Operations<'a> {
    /// Adds an operation on an object; none is the root.
    pub(super) fn push(
        &mut self,
        object: Option<Ref>,
        place: Place<'a, Ref>,
        action: u64,
        value: &ScalarValueRef<'_>,
        predecessor: Option<Ref>,
    ) {
        self.count += 1;
        self.object_actor.push(object.map(|object| object.actor));
        self.object_counter.push(object.map(|object| object.counter));
        let (key, behind) = match place {
            Place::Key(key) => (Some(key), None),
            Place::Behind(element) => (None, Some(element)),
        };
        self.key_text.push(key);
        self.key_actor.push(behind.flatten().map(|element| element.actor));
        self.key_counter.push(behind.map(|element| element.map_or(0, |element| element.counter).cast_signed()));
        self.insert.push(behind.is_some());
        self.action.push(Some(action));
        let begin = self.value.len();
        let code = write(&mut self.value, value);
        let len = (self.value.len() - begin) as u64;
        self.value_meta.push(Some(len << 4 | code));
        self.predecessors.push(Some(u64::from(predecessor.is_some())));
        if let Some(predecessor) = predecessor {
            self.predecessor_actor.push(Some(predecessor.actor));
            self.predecessor_counter.push(Some(predecessor.counter.cast_signed()));
        }
    }

    fn item(
        &mut self,
        object: u64,
        place: Place<'a, Ref>,
        item: &Item<'_>,
        content: &Content<'_>,
        made: &mut Vec<u64>,
    ) {
        match item {
            Item::Scalar(scalar) => self.push(Ref::own(object), place, action::SET, scalar, None),
            Item::Container => {
                let action = match content.containers.get(made.len()) {
                    Some(Container::Map(_)) | None => action::MAP,
                    Some(Container::List(_)) => action::LIST,
                    Some(Container::Text(_)) => action::TEXT,
                };
                self.push(Ref::own(object), place, action, &ScalarValueRef::Null, None);
                made.push(self.count);
            }
        }
    }

    /// Returns the columns in their order, by specification number.
    fn finish(self) -> [(u64, Vec<u8>); 12] {
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
            (column::PREDECESSORS, self.predecessors.finish()),
            (column::PREDECESSOR_ACTOR, self.predecessor_actor.finish()),
            (column::PREDECESSOR_COUNTER, self.predecessor_counter.finish()),
        ]
    }

    /// Puts a change together, without what only its hash shows: four bytes behind the first four are zero.
    pub(super) fn unhashed(self, head: &Head<'_>) -> Vec<u8> {
        let columns = self.finish();
        let columns = || columns.iter().filter(|(_, data)| !data.is_empty());
        let room = columns().map(|(_, data)| data.len() + 4).sum::<usize>();
        let mut body = Vec::with_capacity(64 + 32 * head.deps.len() + 17 * head.others.len() + room);
        unsigned(&mut body, head.deps.len() as u64);
        for dep in head.deps {
            body.extend_from_slice(dep.as_bytes());
        }
        let actor = |body: &mut Vec<u8>, actor: &ActorId| {
            unsigned(body, ActorId::LEN as u64);
            body.extend_from_slice(actor.as_bytes());
        };
        actor(&mut body, head.actor);
        unsigned(&mut body, head.seq);
        unsigned(&mut body, head.start_op);
        // Time 0, a message of no length.
        body.extend_from_slice(&[0, 0]);
        unsigned(&mut body, head.others.len() as u64);
        for other in head.others {
            actor(&mut body, other);
        }
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
        out
    }

    /// Puts a change together.
    pub(super) fn change(self, head: &Head<'_>) -> Vec<u8> {
        let mut out = self.unhashed(head);
        let hash = Sha256::digest(out.get(8..).unwrap_or_default());
        for (place, byte) in out.iter_mut().skip(4).zip(hash.iter().take(4)) {
            *place = *byte;
        }
        out
    }
}

/// Writes a value as changes hold it, and returns the number of its kind.
pub(super) fn write(out: &mut Vec<u8>, value: &ScalarValueRef<'_>) -> u64 {
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
                    ops.item(object, Place::Behind(Ref::own(behind)), item, content, &mut made);
                    behind = ops.count;
                }
            }
            Container::Text(text) => {
                let mut behind = 0;
                for char in text.split_inclusive(|_| true) {
                    let char = ScalarValueRef::Str(Cow::Borrowed(char));
                    ops.push(Ref::own(object), Place::Behind(Ref::own(behind)), action::SET, &char, None);
                    behind = ops.count;
                }
            }
        }
    }
    ops.change(&Head { deps: &[], actor, seq: 1, start_op: 1, others: &[] })
}
