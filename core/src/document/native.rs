//! Our ids and Automerge's.

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
