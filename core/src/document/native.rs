//! Our ids and Automerge's.

use std::num::NonZeroU64;

use automerge::ExpandedChange;
use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId};

use crate::id::{ActorId, ChangeHash};

/// Returns Automerge's form of a change hash.
#[must_use]
pub const fn native_hash(hash: &ChangeHash) -> automerge::ChangeHash {
    automerge::ChangeHash(*hash.as_bytes())
}

/// Returns our form of a change hash.
#[must_use]
pub const fn change_hash(hash: &automerge::ChangeHash) -> ChangeHash {
    ChangeHash::new(hash.0)
}

/// Returns Automerge's form of an actor.
#[must_use]
pub fn native_actor(actor: &ActorId) -> automerge::ActorId {
    automerge::ActorId::from(actor.as_bytes().as_slice())
}

/// Returns a change of operations that begin behind the number `top`, with neither time nor message.
pub(super) fn bare_change(
    actor_id: automerge::ActorId,
    seq: u64,
    top: u64,
    operations: Vec<Op>,
    deps: impl IntoIterator<Item = automerge::ChangeHash>,
) -> ExpandedChange {
    ExpandedChange {
        operations,
        actor_id,
        hash: None,
        seq,
        start_op: NonZeroU64::MIN.saturating_add(top),
        time: 0,
        message: None,
        deps: deps.into_iter().collect(),
        extra_bytes: Vec::new(),
        author: None,
    }
}

/// Returns the operations that one refers to: its object, the element that it is at or behind, what it replaces.
pub(super) fn referred(op: &Op) -> impl Iterator<Item = &OpId> {
    let object = match &op.obj {
        ObjectId::Id(object) => Some(object),
        ObjectId::Root => None,
    };
    let element = match &op.key {
        Key::Seq(ElementId::Id(element)) => Some(element),
        Key::Seq(ElementId::Head) | Key::Map(_) => None,
    };
    object.into_iter().chain(element).chain(op.pred.iter())
}
