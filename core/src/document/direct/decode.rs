//! From a change to its operations.
//!
//! Who reads with this encodes again what was read and compares, so nothing is checked twice: this only has to be right
//! for what our encoder makes, and to come to an end on everything else.

use std::borrow::Cow;

use automerge::ScalarValueRef;

use super::content::{Container, Content, Item};
use super::encode::{Place, Ref, action, column, meta};
use super::runs::{Cells, Input, Sums};
use crate::document::gate::Scan;
use crate::id::ActorId;

/// A change that is being read.
pub(super) struct Decoder<'a> {
    pub(super) start_op: u64,
    /// Other actors that it names.
    pub(super) others: Vec<ActorId>,
    object_actor: Cells<'a, u64>,
    object_counter: Cells<'a, u64>,
    key_actor: Cells<'a, u64>,
    key_counter: Sums<'a>,
    key_text: Cells<'a, &'a str>,
    action: Cells<'a, u64>,
    value_meta: Cells<'a, u64>,
    value: Input<'a>,
    predecessors: Cells<'a, u64>,
    predecessor_actor: Cells<'a, u64>,
    predecessor_counter: Sums<'a>,
}

/// An operation as it is written.
pub(super) struct Written<'a> {
    /// None is the root.
    pub(super) object: Option<Ref>,
    pub(super) place: Place<'a, Ref>,
    pub(super) action: u64,
    pub(super) value: ScalarValueRef<'a>,
    pub(super) predecessor: Option<Ref>,
}

impl<'a> Decoder<'a> {
    /// Begins to read a change of which [`prescan`](crate::document::gate::prescan) made `scan`. `None` if it has what
    /// our encoder does not write.
    pub(super) fn new(scan: &Scan, bytes: &'a [u8]) -> Option<Self> {
        if scan.contents.marks {
            return None;
        }
        let mut rest = Input(bytes);
        rest.take(9)?;
        rest.unsigned()?;
        let deps = rest.unsigned()?;
        rest.take(deps.checked_mul(32)?)?;
        // The length of the actor, and the actor.
        rest.take(1 + ActorId::LEN as u64)?;
        rest.unsigned()?;
        let start_op = rest.unsigned()?;
        // Neither time nor message.
        if rest.take(2)? != [0, 0] {
            return None;
        }
        let mut others = Vec::new();
        for _ in 0..rest.unsigned()? {
            rest.take(1)?;
            others.push(ActorId::from_slice(rest.take(ActorId::LEN as u64)?)?);
        }
        let mut layout = [(0, 0); 12];
        let count = usize::try_from(rest.unsigned()?).ok()?;
        for place in layout.get_mut(..count)? {
            *place = (rest.unsigned()?, rest.unsigned()?);
        }
        let mut columns = [Input::default(); 12];
        for (spec, len) in layout.into_iter().take(count) {
            let data = Input(rest.take(len)?);
            let place = COLUMNS.iter().position(|column| *column == spec)?;
            *columns.get_mut(place)? = data;
        }
        // Which operations insert follows from the rest.
        let [object_actor, object_counter, key_actor, key_counter, key_text, _, action, value_meta, value, p, pa, pc] =
            columns;
        Some(Self {
            start_op,
            others,
            object_actor: Cells::new(object_actor),
            object_counter: Cells::new(object_counter),
            key_actor: Cells::new(key_actor),
            key_counter: Sums::new(key_counter),
            key_text: Cells::new(key_text),
            action: Cells::new(action),
            value_meta: Cells::new(value_meta),
            value,
            predecessors: Cells::new(p),
            predecessor_actor: Cells::new(pa),
            predecessor_counter: Sums::new(pc),
        })
    }

    /// Reads the next operation; `None` if it is not of a kind that our encoder writes.
    pub(super) fn next(&mut self) -> Option<Written<'a>> {
        let reference = |actor, counter| match (actor, counter) {
            (None, None) => Some(None),
            (Some(actor), Some(counter)) => Some(Some(Ref { actor, counter })),
            (None, Some(_)) | (Some(_), None) => None,
        };
        let object = reference(self.object_actor.next()?, self.object_counter.next()?)?;
        let (key, actor, element) = (self.key_text.next()?, self.key_actor.next()?, self.key_counter.next()?);
        let place = match (key, actor, element) {
            (Some(key), None, None) => Place::Key(key),
            (None, None, Some(0)) => Place::Behind(None),
            (None, Some(_), Some(element)) => Place::Behind(reference(actor, Some(u64::try_from(element).ok()?))?),
            _ => return None,
        };
        let action = self.action.next()??;
        let meta = self.value_meta.next()??;
        let value = scalar(meta, &mut self.value)?;
        let predecessor = match self.predecessors.next()?? {
            0 => None,
            1 => {
                let counter = u64::try_from(self.predecessor_counter.next()??).ok()?;
                Some(Ref { actor: self.predecessor_actor.next()??, counter })
            }
            _ => return None,
        };
        Some(Written { object, place, action, value, predecessor })
    }
}

const COLUMNS: [u64; 12] = [
    column::OBJECT_ACTOR,
    column::OBJECT_COUNTER,
    column::KEY_ACTOR,
    column::KEY_COUNTER,
    column::KEY_TEXT,
    column::INSERT,
    column::ACTION,
    column::VALUE_META,
    column::VALUE,
    column::PREDECESSORS,
    column::PREDECESSOR_ACTOR,
    column::PREDECESSOR_COUNTER,
];

/// Reads the content that a change makes, if it makes plain content in an empty document.
pub(super) fn content<'a>(scan: &Scan, bytes: &'a [u8]) -> Option<Content<'a>> {
    if !scan.deps.is_empty() {
        return None;
    }
    let mut decoder = Decoder::new(scan, bytes)?;
    let mut content = Content { containers: vec![Container::Map(Vec::new())] };
    // The operation that made each container; which of them is being filled.
    let (mut made, mut filled) = (vec![0], 0);
    for id in 1..=scan.ops {
        let written = decoder.next()?;
        let object = written.object.map_or(0, |object| object.counter);
        while *made.get(filled)? != object {
            filled += 1;
        }
        let item = match written.action {
            action::SET => Item::Scalar(written.value),
            action::MAP | action::LIST | action::TEXT => {
                content.containers.push(match written.action {
                    action::MAP => Container::Map(Vec::new()),
                    action::LIST => Container::List(Vec::new()),
                    _ => Container::Text(Cow::Borrowed("")),
                });
                made.push(id);
                Item::Container
            }
            _ => return None,
        };
        match (content.containers.get_mut(filled)?, written.place, item) {
            (Container::Map(entries), Place::Key(key), item) => entries.push((Cow::Borrowed(key), item)),
            (Container::List(items), Place::Behind(_), item) => items.push(item),
            (Container::Text(text), Place::Behind(_), Item::Scalar(ScalarValueRef::Str(char))) => {
                text.to_mut().push_str(&char);
            }
            _ => return None,
        }
    }
    // Out of order or twice the same: encoding would not notice, for it takes them as they come.
    let sorted = content.containers.iter().all(|container| match container {
        Container::Map(entries) => entries.is_sorted_by(|(a, _), (b, _)| a < b),
        Container::List(_) | Container::Text(_) => true,
    });
    sorted.then_some(content)
}

/// Reads a value, given its kind and length.
pub(super) fn scalar<'a>(meta: u64, values: &mut Input<'a>) -> Option<ScalarValueRef<'a>> {
    let data = values.take(meta >> 4)?;
    let mut number = Input(data);
    Some(match meta & 15 {
        meta::NULL => ScalarValueRef::Null,
        meta::FALSE => ScalarValueRef::Boolean(false),
        meta::TRUE => ScalarValueRef::Boolean(true),
        meta::UINT => ScalarValueRef::Uint(number.unsigned()?),
        meta::INT => ScalarValueRef::Int(number.signed()?),
        meta::FLOAT => ScalarValueRef::F64(f64::from_le_bytes(data.try_into().ok()?)),
        meta::TEXT => ScalarValueRef::Str(Cow::Borrowed(std::str::from_utf8(data).ok()?)),
        meta::BYTES => ScalarValueRef::Bytes(Cow::Borrowed(data)),
        meta::COUNTER => ScalarValueRef::Counter(number.signed()?),
        meta::TIMESTAMP => ScalarValueRef::Timestamp(number.signed()?),
        // A kind of value that no client of ours makes; Automerge shall say what it is.
        _ => return None,
    })
}
