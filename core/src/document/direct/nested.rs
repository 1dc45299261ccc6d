//! Lists and texts that a change makes, with all that is in them, until it is known what they read as.

use std::collections::BTreeMap;

use automerge::ScalarValueRef;

use super::encode::action;
use super::tree::{Held, Id, Op, Tree, Where, owned};
use crate::document::json::{Sink, rendered};
use crate::limits;

/// A container.
pub(super) struct Nested {
    depth: usize,
    within: Within,
}

enum Within {
    Map(BTreeMap<Box<str>, Item>),
    /// The elements, and the last one's operation.
    List(Vec<Item>, Option<Id>),
    Text(String, Option<Id>),
}

enum Item {
    Scalar(ScalarValueRef<'static>),
    /// Position of the container.
    Container(usize),
}

impl Nested {
    pub(super) const fn list(depth: usize) -> Self {
        Self { depth, within: Within::List(Vec::new(), None) }
    }

    pub(super) const fn text(depth: usize) -> Self {
        Self { depth, within: Within::Text(String::new(), None) }
    }
}

/// Carries out the operations of one change on a tree.
pub(super) struct Application {
    own: u32,
    /// Number of the next operation.
    next: u64,
    containers: Vec<Nested>,
    /// The containers by the operations that made them.
    by_counter: BTreeMap<u64, usize>,
    /// Where in the tree containers begin: map, key, operation, position.
    roots: Vec<(Id, Box<str>, Id, usize)>,
}

impl Application {
    pub(super) const fn new(own: u32, start_op: u64) -> Self {
        Self { own, next: start_op, containers: Vec::new(), by_counter: BTreeMap::new(), roots: Vec::new() }
    }

    /// Names the operation that comes next.
    pub(super) const fn next(&self) -> Id {
        Id { counter: self.next, writer: self.own }
    }

    /// Carries out an operation; see [`Tree::carry_out`].
    pub(super) fn carry_out(&mut self, tree: &mut Tree, op: &Op<'_>) -> Option<()> {
        let id = self.next();
        self.next += 1;
        if op.object.writer == self.own
            && let Some(at) = self.by_counter.get(&op.object.counter)
        {
            return self.put_within(*at, id, op);
        }
        if let Some(nested) = tree.carry_out(id, op)? {
            let Where::Key(key) = &op.place else { return None };
            self.by_counter.insert(id.counter, self.containers.len());
            self.roots.push((op.object, key.as_ref().into(), id, self.containers.len()));
            self.containers.push(nested);
        }
        Some(())
    }

    /// Puts something into a container that this change made, at its end: nothing else comes of a value as a client gives it.
    fn put_within(&mut self, at: usize, id: Id, op: &Op<'_>) -> Option<()> {
        if op.predecessor.is_some() {
            return None;
        }
        let depth = self.containers.get(at)?.depth + 1;
        let made = match op.action {
            action::SET => None,
            action::MAP => Some(Nested { depth, within: Within::Map(BTreeMap::new()) }),
            action::LIST => Some(Nested::list(depth)),
            action::TEXT => Some(Nested::text(depth)),
            _ => return None,
        };
        let item = match &made {
            None if matches!(op.value, ScalarValueRef::Unknown { .. }) => return None,
            None => Item::Scalar(owned(&op.value)),
            Some(_) if depth > limits::DOC_DEPTH_MAX || !matches!(op.value, ScalarValueRef::Null) => return None,
            Some(_) => Item::Container(self.containers.len()),
        };
        match (&mut self.containers.get_mut(at)?.within, &op.place) {
            (Within::Map(entries), Where::Key(key)) => {
                if entries.insert(key.as_ref().into(), item).is_some() {
                    return None;
                }
            }
            (Within::List(items, last), Where::Behind(element)) if element == last => {
                items.push(item);
                *last = Some(id);
            }
            (Within::Text(text, last), Where::Behind(element)) if element == last => {
                let Item::Scalar(ScalarValueRef::Str(char)) = item else { return None };
                text.push_str(&char);
                *last = Some(id);
            }
            _ => return None,
        }
        if let Some(nested) = made {
            self.by_counter.insert(id.counter, self.containers.len());
            self.containers.push(nested);
        }
        Some(())
    }

    /// Puts into the tree what the containers read as.
    pub(super) fn finish(self, tree: &mut Tree) {
        for (object, key, id, at) in &self.roots {
            let held = match self.containers.get(*at).map(|nested| &nested.within) {
                Some(Within::Text(text, _)) => Held::Text(text.as_str().into()),
                Some(Within::List(..) | Within::Map(_)) | None => {
                    Held::List(rendered(|sink| self.show(*at, sink)).into())
                }
            };
            tree.fill(*object, key, *id, held);
        }
    }

    /// Recurses; what is in a tree has passed the bound on depth.
    fn show(&self, at: usize, sink: &mut impl Sink) {
        let item = |item: &Item, sink: &mut _| match item {
            Item::Scalar(scalar) => Sink::scalar(sink, scalar),
            Item::Container(at) => self.show(*at, sink),
        };
        match self.containers.get(at).map(|nested| &nested.within) {
            Some(Within::Map(entries)) => {
                sink.open_map();
                for (key, value) in entries {
                    sink.key(key);
                    item(value, sink);
                }
                sink.close_map();
            }
            Some(Within::List(items, _)) => {
                sink.open_list();
                items.iter().for_each(|value| item(value, sink));
                sink.close_list();
            }
            Some(Within::Text(text, _)) => sink.text(text.clone()),
            None => sink.null(),
        }
    }
}
