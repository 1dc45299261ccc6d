//! From a change to the content that it makes, if it makes plain content in an empty document.
//!
//! What is read here is encoded again and compared by the caller, so nothing is checked twice: this only has to be right
//! for what our encoder makes, and to come to an end on everything else.

use std::borrow::Cow;

use automerge::ScalarValueRef;

use super::content::{Container, Content, Item};
use super::encode::{FIRST, action, column, meta};
use super::runs::{Cells, Input, Sums};
use crate::document::gate::Scan;
use crate::id::ActorId;

/// The columns of an encoded change.
#[derive(Default)]
struct Columns<'a> {
    object_counter: Input<'a>,
    key_counter: Input<'a>,
    key_text: Input<'a>,
    action: Input<'a>,
    value_meta: Input<'a>,
    value: Input<'a>,
}

/// Reads a change of which [`prescan`](crate::document::gate::prescan) made `scan`.
pub(super) fn decode<'a>(scan: &Scan, bytes: &'a [u8]) -> Option<Content<'a>> {
    if !scan.deps.is_empty() || scan.contents.marks {
        return None;
    }
    let mut columns = columns(bytes)?;
    let mut objects = Cells::<u64>::new(columns.object_counter);
    let mut behinds = Sums::new(columns.key_counter);
    let mut keys = Cells::<&str>::new(columns.key_text);
    let mut actions = Cells::<u64>::new(columns.action);
    let mut metas = Cells::<u64>::new(columns.value_meta);
    let mut content = Content { containers: vec![Container::Map(Vec::new())] };
    // The operation that made each container; which of them is being filled.
    let (mut made, mut filled) = (vec![0], 0);
    for id in 1..=scan.ops {
        let object = objects.next()?.unwrap_or(0);
        while *made.get(filled)? != object {
            filled += 1;
        }
        let (key, behind) = (keys.next()?, behinds.next()?);
        let action = actions.next()??;
        let meta = metas.next()??;
        let item = match action {
            action::SET => Item::Scalar(scalar(meta, &mut columns.value)?),
            action::MAP | action::LIST | action::TEXT => {
                content.containers.push(match action {
                    action::MAP => Container::Map(Vec::new()),
                    action::LIST => Container::List(Vec::new()),
                    _ => Container::Text(Cow::Borrowed("")),
                });
                made.push(id);
                Item::Container
            }
            _ => return None,
        };
        match (content.containers.get_mut(filled)?, key, behind, item) {
            (Container::Map(entries), Some(key), None, item) => entries.push((Cow::Borrowed(key), item)),
            (Container::List(items), None, Some(_), item) => items.push(item),
            (Container::Text(text), None, Some(_), Item::Scalar(ScalarValueRef::Str(char))) => {
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

/// Finds the columns, behind the parts that are the same in all such changes.
fn columns(bytes: &[u8]) -> Option<Columns<'_>> {
    let mut rest = Input(bytes);
    rest.take(9)?;
    rest.unsigned()?;
    // No dependencies; the length of the actor, and the actor.
    rest.take(2 + ActorId::LEN as u64)?;
    if rest.take(FIRST.len() as u64)? != FIRST {
        return None;
    }
    let count = rest.unsigned()?;
    let mut layout = [(0, 0); 10];
    for place in layout.get_mut(..usize::try_from(count).ok()?)? {
        *place = (rest.unsigned()?, rest.unsigned()?);
    }
    let mut columns = Columns::default();
    for (spec, len) in layout.into_iter().take(count as usize) {
        let data = Input(rest.take(len)?);
        match spec {
            column::OBJECT_COUNTER => columns.object_counter = data,
            column::KEY_COUNTER => columns.key_counter = data,
            column::KEY_TEXT => columns.key_text = data,
            column::ACTION => columns.action = data,
            column::VALUE_META => columns.value_meta = data,
            column::VALUE => columns.value = data,
            // They follow from the others.
            column::OBJECT_ACTOR | column::KEY_ACTOR | column::INSERT | column::PREDECESSORS => {}
            _ => return None,
        }
    }
    Some(columns)
}

fn scalar<'a>(meta: u64, values: &mut Input<'a>) -> Option<ScalarValueRef<'a>> {
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
