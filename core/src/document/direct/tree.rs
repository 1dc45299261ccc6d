//! What a document of maps and values shows, with what is needed to edit it: the operation that wrote each value, the
//! last change of each actor, the heads.
//!
//! It holds documents in which no place has more than one value. Lists and texts are in it as what they read as:
//! they can be replaced, not edited. Anything else is Automerge's.

use std::borrow::Cow;
use std::collections::BTreeMap;

use automerge::ScalarValueRef;
use automerge::legacy::OpId;

use super::encode::{Head, Operations, Place, Ref, action};
use super::nested::Nested;
use crate::document::gate::prescan;
use crate::document::json::Sink;
use crate::document::local::LocalChange;
use crate::id::{ActorId, ChangeHash};
use crate::limits;

/// Memory of an entry or an actor beside its text, about.
const ENTRY_BYTES: usize = 128;

/// Names an operation; number 0 is the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::document) struct Id {
    pub(super) counter: u64,
    /// Position in the tree's list of actors.
    pub(super) writer: u32,
}

/// The root of every document.
pub(in crate::document) const ROOT: Id = Id { counter: 0, writer: 0 };

/// An actor that wrote changes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) actor: ActorId,
    /// The number of its last change, and that change.
    pub(super) seq: u64,
    pub(super) last: ChangeHash,
}

/// A map.
#[derive(Clone, Debug, Default)]
pub(in crate::document) struct Map {
    /// How deep it lies; the root is 0.
    pub(super) depth: usize,
    pub(super) entries: BTreeMap<Box<str>, Slot>,
}

/// A value in a map.
#[derive(Clone, Debug)]
pub(in crate::document) struct Slot {
    /// What wrote it.
    pub(super) id: Id,
    pub(super) held: Held,
}

/// What is in a slot.
#[derive(Clone, Debug)]
pub(in crate::document) enum Held {
    Scalar(ScalarValueRef<'static>),
    /// The map that has the slot's name.
    Map,
    /// A list, as JSON.
    List(Box<str>),
    /// A mergeable text.
    Text(Box<str>),
}

/// An operation on a document.
#[derive(Clone, Debug)]
pub(super) struct Op<'a> {
    pub(super) object: Id,
    pub(super) place: Where<'a>,
    pub(super) action: u64,
    pub(super) value: ScalarValueRef<'a>,
    pub(super) predecessor: Option<Id>,
}

/// Where in its object.
#[derive(Clone, Debug)]
pub(super) enum Where<'a> {
    Key(Cow<'a, str>),
    Behind(Option<Id>),
}

/// A document that needs no Automerge.
#[derive(Clone, Debug)]
pub(in crate::document) struct Tree {
    pub(super) writers: Vec<Writer>,
    /// The highest number of an operation.
    pub(super) top: u64,
    /// Ascending.
    pub(super) heads: Vec<ChangeHash>,
    pub(super) maps: BTreeMap<Id, Map>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { writers: Vec::new(), top: 0, heads: Vec::new(), maps: BTreeMap::from([(ROOT, Map::default())]) }
    }
}

impl Slot {
    pub(in crate::document) const fn id(&self) -> Id {
        self.id
    }

    pub(in crate::document) const fn held(&self) -> &Held {
        &self.held
    }
}

impl Map {
    pub(in crate::document) fn get(&self, key: &str) -> Option<&Slot> {
        self.entries.get(key)
    }

    /// In the order of the keys' bytes.
    pub(in crate::document) fn iter(&self) -> impl Iterator<Item = (&str, &Slot)> {
        self.entries.iter().map(|(key, slot)| (&**key, slot))
    }
}

impl Tree {
    pub(in crate::document) fn map(&self, id: Id) -> Option<&Map> {
        self.maps.get(&id)
    }

    /// Estimates the memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let slot = |(key, slot): (&str, &Slot)| {
            let held = match &slot.held {
                Held::Scalar(ScalarValueRef::Str(text)) => text.len(),
                Held::Scalar(ScalarValueRef::Bytes(bytes)) => bytes.len(),
                Held::Scalar(_) | Held::Map => 0,
                Held::List(text) | Held::Text(text) => text.len(),
            };
            ENTRY_BYTES + key.len() + held
        };
        let maps = self.maps.values().map(|map| ENTRY_BYTES + map.iter().map(slot).sum::<usize>());
        maps.sum::<usize>() + ENTRY_BYTES * self.writers.len()
    }

    /// Shows the document as JSON does.
    pub(super) fn show(&self, sink: &mut impl Sink) {
        self.show_map(ROOT, sink);
    }

    /// Recurses; what is in a tree has passed the bound on depth.
    fn show_map(&self, id: Id, sink: &mut impl Sink) {
        sink.open_map();
        for (key, slot) in self.maps.get(&id).into_iter().flat_map(|map| &map.entries) {
            sink.key(key);
            match &slot.held {
                Held::Scalar(scalar) => sink.scalar(scalar),
                Held::Map => self.show_map(slot.id, sink),
                Held::List(json) => sink.json(json),
                Held::Text(text) => sink.text(text.to_string()),
            }
        }
        sink.close_map();
    }

    /// Returns the path of a map that is in the tree; none if it is not.
    pub(super) fn path_of(&self, map: Id) -> Option<Vec<String>> {
        let mut path = Vec::new();
        let mut here = map;
        while here != ROOT {
            let (around, key) = self.maps.iter().find_map(|(around, map)| {
                let slot = map.iter().find(|(_, slot)| slot.id == here && matches!(slot.held, Held::Map));
                slot.map(|(key, _)| (*around, key.to_owned()))
            })?;
            path.push(key);
            here = around;
        }
        path.reverse();
        Some(path)
    }

    /// Returns the path of a map, by Automerge's name of it.
    pub(super) fn path_of_native(&self, map: &OpId) -> Option<Vec<String>> {
        let writer = self.writer_of(&ActorId::from_slice(map.actor().to_bytes())?)?;
        self.path_of(Id { counter: map.counter(), writer })
    }

    pub(super) fn writer_of(&self, actor: &ActorId) -> Option<u32> {
        let at = self.writers.iter().position(|writer| writer.actor == *actor)?;
        u32::try_from(at).ok()
    }

    /// Returns the place of an actor, which may have written nothing yet.
    pub(super) fn enter(&mut self, actor: &ActorId) -> Option<u32> {
        if let Some(at) = self.writer_of(actor) {
            return Some(at);
        }
        let at = u32::try_from(self.writers.len()).ok()?;
        self.writers.push(Writer { actor: *actor, seq: 0, last: ChangeHash::ZERO });
        Some(at)
    }

    /// Returns what the next change of an actor depends on, ascending: the heads, and its own last change.
    pub(super) fn next_deps(&self, writer: u32) -> Vec<ChangeHash> {
        let mut deps = self.heads.clone();
        if let Some(writer) = self.writers.get(writer as usize).filter(|writer| writer.seq > 0)
            && let Err(at) = deps.binary_search(&writer.last)
        {
            deps.insert(at, writer.last);
        }
        deps
    }

    /// Notes a change whose operations are in the tree.
    pub(super) fn follow(&mut self, writer: u32, hash: ChangeHash, top: u64) {
        self.top = top;
        self.heads.clear();
        self.heads.push(hash);
        if let Some(writer) = self.writers.get_mut(writer as usize) {
            writer.seq += 1;
            writer.last = hash;
        }
    }

    /// Carries out an operation on a map that is not part of a list. `None` if a tree cannot hold what comes of it; the tree
    /// is of no use then.
    pub(super) fn carry_out(&mut self, id: Id, op: &Op<'_>) -> Option<Option<Nested>> {
        let map = self.maps.get_mut(&op.object)?;
        let depth = map.depth + 1;
        let Where::Key(key) = &op.place else { return None };
        let before = map.entries.get_mut(&**key);
        if before.as_ref().map(|slot| slot.id) != op.predecessor {
            return None;
        }
        let mut nested = None;
        let held = match op.action {
            action::SET => match &op.value {
                ScalarValueRef::Unknown { .. } => return None,
                value => Held::Scalar(owned(value)),
            },
            action::INCREMENT => {
                let Slot { held: Held::Scalar(ScalarValueRef::Counter(now)), .. } = before? else { return None };
                let ScalarValueRef::Int(by) = op.value else { return None };
                *now = now.checked_add(by)?;
                return Some(None);
            }
            action::DELETE => {
                let slot = map.entries.remove(&**key)?;
                self.forget(&slot);
                return matches!(op.value, ScalarValueRef::Null).then_some(None);
            }
            action::MAP | action::LIST | action::TEXT => {
                if depth > limits::DOC_DEPTH_MAX || !matches!(op.value, ScalarValueRef::Null) {
                    return None;
                }
                match op.action {
                    action::MAP => Held::Map,
                    action::LIST => {
                        nested = Some(Nested::list(depth));
                        Held::List(Box::default())
                    }
                    _ => {
                        nested = Some(Nested::text(depth));
                        Held::Text(Box::default())
                    }
                }
            }
            _ => return None,
        };
        let is_map = matches!(held, Held::Map);
        let slot = Slot { id, held };
        let replaced = match before {
            Some(before) => Some(std::mem::replace(before, slot)),
            None => {
                map.entries.insert(key.as_ref().into(), slot);
                None
            }
        };
        if let Some(replaced) = replaced {
            self.forget(&replaced);
        }
        if is_map {
            self.maps.insert(id, Map { depth, entries: BTreeMap::new() });
        }
        Some(nested)
    }

    /// Drops the maps below a slot that is gone.
    fn forget(&mut self, slot: &Slot) {
        let mut gone = match slot.held {
            Held::Map => vec![slot.id],
            Held::Scalar(_) | Held::List(_) | Held::Text(_) => return,
        };
        while let Some(map) = gone.pop().and_then(|id| self.maps.remove(&id)) {
            gone.extend(map.entries.values().filter(|slot| matches!(slot.held, Held::Map)).map(|slot| slot.id));
        }
    }

    /// Puts in what a list or text that was made reads as.
    pub(super) fn fill(&mut self, object: Id, key: &str, id: Id, held: Held) {
        if let Some(slot) = self.maps.get_mut(&object).and_then(|map| map.entries.get_mut(key))
            && slot.id == id
        {
            slot.held = held;
        }
    }

    /// Collects the columns of a change, and the other actors that it names.
    pub(super) fn columns<'o>(&self, own: u32, ops: &'o [Op<'_>]) -> Option<(Operations<'o>, Vec<ActorId>)> {
        let mut named: Vec<u32> = Vec::new();
        for op in ops {
            let behind = match op.place {
                Where::Key(_) => None,
                Where::Behind(element) => element,
            };
            let ids = [(op.object != ROOT).then_some(op.object), behind, op.predecessor];
            for writer in ids.into_iter().flatten().map(|id| id.writer).filter(|writer| *writer != own) {
                if !named.contains(&writer) {
                    named.push(writer);
                }
            }
        }
        let actor = |writer: &u32| self.writers.get(*writer as usize).map(|writer| writer.actor);
        named.sort_by_key(actor);
        let others = named.iter().map(actor).collect::<Option<Vec<_>>>()?;
        let reference = |id: Id| {
            let at = named.iter().position(|writer| *writer == id.writer).map_or(0, |at| at as u64 + 1);
            Ref { actor: at, counter: id.counter }
        };
        let mut columns = Operations::default();
        for op in ops {
            let place = match &op.place {
                Where::Key(key) => Place::Key(key),
                Where::Behind(element) => Place::Behind(element.map(reference)),
            };
            let object = (op.object != ROOT).then(|| reference(op.object));
            columns.push(object, place, op.action, &op.value, op.predecessor.map(reference));
        }
        Some((columns, others))
    }

    /// Turns operations of an actor that are in the tree into its next change, if a gate would let that pass.
    pub(super) fn seal(&mut self, own: u32, ops: &[Op<'_>]) -> Option<LocalChange> {
        let writer = self.writers.get(own as usize)?;
        let deps = self.next_deps(own);
        let (columns, others) = self.columns(own, ops)?;
        let start_op = self.top + 1;
        let head = Head { deps: &deps, actor: &writer.actor, seq: writer.seq + 1, start_op, others: &others };
        let bytes = columns.change(&head);
        let hash = prescan(&bytes).ok()?.hash;
        self.follow(own, hash, self.top + ops.len() as u64);
        Some(LocalChange { hash, bytes: bytes.into(), is_create: deps.is_empty() })
    }
}

/// Returns a value that owns its bytes.
pub(super) fn owned(value: &ScalarValueRef<'_>) -> ScalarValueRef<'static> {
    match value {
        ScalarValueRef::Bytes(bytes) => ScalarValueRef::Bytes(Cow::Owned(bytes.to_vec())),
        ScalarValueRef::Str(text) => ScalarValueRef::Str(Cow::Owned(text.as_ref().to_owned())),
        ScalarValueRef::Int(int) => ScalarValueRef::Int(*int),
        ScalarValueRef::Uint(uint) => ScalarValueRef::Uint(*uint),
        ScalarValueRef::F64(float) => ScalarValueRef::F64(*float),
        ScalarValueRef::Counter(int) => ScalarValueRef::Counter(*int),
        ScalarValueRef::Timestamp(ms) => ScalarValueRef::Timestamp(*ms),
        ScalarValueRef::Boolean(bool) => ScalarValueRef::Boolean(*bool),
        ScalarValueRef::Unknown { type_code, bytes } => {
            ScalarValueRef::Unknown { type_code: *type_code, bytes: Cow::Owned(bytes.to_vec()) }
        }
        ScalarValueRef::Null => ScalarValueRef::Null,
    }
}
