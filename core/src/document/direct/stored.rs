//! A tree as it is stored beside its document's snapshot, so that the document can be edited without loading that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::decode::scalar;
use super::encode::write;
use super::runs::Input;
use super::tree::{Held, Id, Map, ROOT, Slot, Tree, Writer, owned};
use crate::id::{ActorId, ChangeHash};
use crate::limits;
use crate::op::codec;

/// What is in a slot beside scalars, which have the numbers that a change gives them.
mod kind {
    pub(super) const MAP: u8 = 16;
    pub(super) const LIST: u8 = 17;
    pub(super) const TEXT: u8 = 18;
}

/// An operation: its number, the position of its actor.
type WireId = (u64, u32);

/// Number of changes, highest operation, heads, actors with their last change, maps with their entries.
#[derive(Serialize, Deserialize)]
struct Wire(u64, u64, Vec<ChangeHash>, Vec<(ActorId, u64, ChangeHash)>, Vec<(WireId, Vec<WireSlot>)>);

/// Key, operation, kind, content.
#[derive(Serialize, Deserialize)]
struct WireSlot(String, WireId, u8, ByteBuf);

const fn wire_id(id: Id) -> WireId {
    (id.counter, id.writer)
}

/// Returns the kind and the content of a slot.
fn content(slot: &Slot) -> (u8, ByteBuf) {
    match &slot.held {
        Held::Scalar(value) => {
            let mut out = Vec::new();
            // There are ten kinds of scalars.
            let kind = write(&mut out, value) as u8;
            (kind, ByteBuf::from(out))
        }
        Held::Map => (kind::MAP, ByteBuf::new()),
        Held::List(json) => (kind::LIST, ByteBuf::from(json.as_bytes())),
        Held::Text(text) => (kind::TEXT, ByteBuf::from(text.as_bytes())),
    }
}

impl Tree {
    /// Encodes the tree of a document with so many changes.
    pub(in crate::document) fn encode(&self, changes: usize) -> Vec<u8> {
        let maps = self.maps.iter().map(|(id, map)| {
            let slots = map.entries.iter().map(|(key, slot)| {
                let (kind, data) = content(slot);
                WireSlot(key.to_string(), wire_id(slot.id), kind, data)
            });
            (wire_id(*id), slots.collect())
        });
        let writers = self.writers.iter().map(|writer| (writer.actor, writer.seq, writer.last)).collect();
        codec::encode(&Wire(changes as u64, self.top, self.heads.clone(), writers, maps.collect()))
    }

    /// Decodes a tree, with the number of the document's changes; none if it is damaged.
    pub(in crate::document) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let Wire(changes, top, heads, writers, maps): Wire = rmp_serde::from_slice(bytes).ok()?;
        let writers: Vec<_> = writers.into_iter().map(|(actor, seq, last)| Writer { actor, seq, last }).collect();
        let id = |(counter, writer): WireId| {
            (counter > 0 && (writer as usize) < writers.len()).then_some(Id { counter, writer })
        };
        // A map is made after the one that holds it, so that comes first.
        let mut depths = BTreeMap::from([(ROOT, 0)]);
        let mut decoded = BTreeMap::new();
        for (name, slots) in maps {
            let name = if name == wire_id(ROOT) { ROOT } else { id(name)? };
            let depth = depths.remove(&name)?;
            let mut map = Map { depth, entries: BTreeMap::new() };
            for WireSlot(key, name, kind, data) in slots {
                let id = id(name)?;
                let text = || std::str::from_utf8(&data).ok().map(Box::from);
                let held = match kind {
                    kind::MAP => {
                        if depth >= limits::DOC_DEPTH_MAX {
                            return None;
                        }
                        depths.insert(id, depth + 1);
                        Held::Map
                    }
                    kind::LIST => Held::List(text()?),
                    kind::TEXT => Held::Text(text()?),
                    code => {
                        Held::Scalar(owned(&scalar((data.len() as u64) << 4 | u64::from(code), &mut Input(&data))?))
                    }
                };
                map.entries.insert(key.into(), Slot { id, held });
            }
            decoded.insert(name, map);
        }
        if !depths.is_empty() {
            return None;
        }
        Some((Self { writers, top, heads, maps: decoded }, usize::try_from(changes).ok()?))
    }

    /// Returns whether two trees say the same; they may number actors in another way.
    pub(in crate::document) fn says_the_same(&self, other: &Self) -> bool {
        let actor = |tree: &Self, id: Id| (id.counter, tree.writers.get(id.writer as usize).map(|writer| writer.actor));
        let name = |tree: &Self, id: Id| (id != ROOT).then(|| actor(tree, id));
        let maps = |tree: &Self| -> BTreeMap<_, (usize, Vec<_>)> {
            let maps = tree.maps.iter().map(|(id, map)| {
                let slots = map.entries.iter().map(|(key, slot)| (key.clone(), actor(tree, slot.id), content(slot)));
                (name(tree, *id), (map.depth, slots.collect()))
            });
            maps.collect()
        };
        let writers = |tree: &Self| -> BTreeMap<ActorId, (u64, ChangeHash)> {
            let writers = tree.writers.iter().filter(|writer| writer.seq > 0);
            writers.map(|writer| (writer.actor, (writer.seq, writer.last))).collect()
        };
        self.top == other.top
            && self.heads == other.heads
            && writers(self) == writers(other)
            && maps(self) == maps(other)
    }
}
