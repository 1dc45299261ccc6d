//! An edit of a tree, operation by operation.

use std::collections::VecDeque;

use automerge::{ScalarValue, ScalarValueRef, hydrate};

use super::content::borrowed;
use super::encode::action;
use super::nested::Application;
use super::tree::{Held, Id, Op, Tree, Where, owned};
use crate::document::local::LocalChange;
use crate::id::ActorId;
use crate::limits;

/// A change under construction. Once it has failed, or was dropped with operations in it, its tree is of no use.
pub(in crate::document) struct Draft<'t> {
    tree: &'t mut Tree,
    own: u32,
    application: Application,
    operations: Vec<Op<'static>>,
}

impl<'t> Draft<'t> {
    /// Begins a change of an actor.
    pub(in crate::document) fn new(tree: &'t mut Tree, actor: &ActorId) -> Option<Self> {
        let own = tree.enter(actor)?;
        let application = Application::new(own, tree.top + 1);
        Some(Self { tree, own, application, operations: Vec::new() })
    }

    /// What the document is like with the operations so far.
    pub(in crate::document) const fn tree(&self) -> &Tree {
        self.tree
    }

    /// Whether nothing was changed so far.
    pub(in crate::document) const fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Ends the change; `None` if no gate would let it pass.
    pub(in crate::document) fn finish(self) -> Option<LocalChange> {
        if self.operations.len() as u64 > limits::CHANGE_OPS_MAX {
            return None;
        }
        self.application.finish(self.tree);
        self.tree.seal(self.own, &self.operations)
    }

    /// Writes a value to a key.
    pub(in crate::document) fn write(&mut self, map: Id, key: &str, value: &hydrate::Value) -> Option<()> {
        let slot = self.tree.map(map)?.get(key);
        let before = slot.map(|slot| slot.id);
        if let (Some(Held::Scalar(now)), hydrate::Value::Scalar(to)) = (slot.map(|slot| &slot.held), value) {
            match (now, to) {
                // Automerge compares with what the counter was when it was made.
                (ScalarValueRef::Counter(_), ScalarValue::Counter(_)) => return None,
                // It takes this for no change.
                _ if now == to => return Some(()),
                _ => {}
            }
        }
        let made = self.push(map, Where::Key(key.to_owned().into()), value, before)?;
        // Level by level, as Automerge does.
        let mut waiting = VecDeque::from([(made, value)]);
        while let Some((object, value)) = waiting.pop_front() {
            match value {
                hydrate::Value::Scalar(_) => {}
                hydrate::Value::Map(entries) => {
                    let mut entries: Vec<_> = entries.iter().collect();
                    entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
                    for (key, entry) in entries {
                        let id = self.push(object, Where::Key(key.clone().into()), &entry.value, None)?;
                        waiting.push_back((id, &entry.value));
                    }
                }
                hydrate::Value::List(items) => {
                    let mut behind = None;
                    for item in items.iter() {
                        let id = self.push(object, Where::Behind(behind), &item.value, None)?;
                        waiting.push_back((id, &item.value));
                        behind = Some(id);
                    }
                }
                hydrate::Value::Text(text) => {
                    let text = String::from(text);
                    let mut behind = None;
                    for char in text.split_inclusive(|_| true) {
                        let value = ScalarValueRef::Str(char.to_owned().into());
                        behind = Some(self.add(object, Where::Behind(behind), action::SET, value, None)?);
                    }
                }
            }
        }
        Some(())
    }

    /// Deletes a key that is there.
    pub(in crate::document) fn delete(&mut self, map: Id, key: &str) -> Option<()> {
        let before = self.tree.map(map)?.get(key)?.id;
        let place = Where::Key(key.to_owned().into());
        self.add(map, place, action::DELETE, ScalarValueRef::Null, Some(before)).map(drop)
    }

    /// Adds to a counter that is there.
    pub(in crate::document) fn increment(&mut self, map: Id, key: &str, by: i64) -> Option<()> {
        let before = self.tree.map(map)?.get(key)?.id;
        let place = Where::Key(key.to_owned().into());
        self.add(map, place, action::INCREMENT, ScalarValueRef::Int(by), Some(before)).map(drop)
    }

    fn push(&mut self, object: Id, place: Where<'static>, value: &hydrate::Value, before: Option<Id>) -> Option<Id> {
        let (action, value) = match value {
            hydrate::Value::Scalar(scalar) => (action::SET, owned(&borrowed(scalar))),
            hydrate::Value::Map(_) => (action::MAP, ScalarValueRef::Null),
            hydrate::Value::List(_) => (action::LIST, ScalarValueRef::Null),
            hydrate::Value::Text(_) => (action::TEXT, ScalarValueRef::Null),
        };
        self.add(object, place, action, value, before)
    }

    fn add(
        &mut self,
        object: Id,
        place: Where<'static>,
        action: u64,
        value: ScalarValueRef<'static>,
        predecessor: Option<Id>,
    ) -> Option<Id> {
        let (id, op) = (self.application.next(), Op { object, place, action, value, predecessor });
        self.application.carry_out(self.tree, &op)?;
        self.operations.push(op);
        Some(id)
    }
}
