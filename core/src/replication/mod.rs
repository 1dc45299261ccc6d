//! The replication protocol, sans-io: `docs/protocol.md` describes it from the outside.
//!
//! [`Engine`] knows what this replica has (heads), what its peers have, and brings the two together. It does no I/O and knows
//! no clock: [`Input`]s go in, [`Effect`]s come out, the time is an argument, and equal inputs give equal effects.
//!
//! - *Live*: ops that became durable are pushed to a few eager peers and announced to the rest.
//! - *Repair*: digests tell where two replicas differ, cursors and compared ranges of heads tell what is missing, ranged
//!   pulls fetch it.
//! - *Bulk*: a shard of which nothing is here, or far less than there is, is taken by its documents first, for readers, then by its ops.
//! - *Needs*: what is known by name only (a change, a pinned op) is searched for.
//! - *Sessions*: a stream that ends where a later one of the same author says is told by that one.
//! - *Forks*: where two chains of one stream part is found, and the other branch handed over as proof.
//! - *Conduct*: misdeeds and idle traffic are counted, and who goes too far is banned for a while.
//!
//! Invariants: only durable ops are counted in digests, served, passed on or acknowledged. Every run handed to the caller
//! continues its stream and ends in an op that a signature or a pin vouches for. Of one stream at most one range is under way.
//! Everything is bounded by a constant of [`limits`].

mod acks;
mod api;
mod bulk;
mod conduct;
mod credit;
mod digest;
mod discipline;
mod earlier;
mod engine;
mod figures;
#[cfg(any(test, feature = "testing"))]
mod forge;
mod fork;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod heads;
mod held;
mod lane;
pub mod limits;
mod live;
mod misdeed;
mod mutant;
mod need;
mod peer;
mod pull;
mod random;
mod ranges;
mod reach;
mod run;
mod serve;
mod status;
mod sync;

pub use api::{
    AbsorbedCursor, BulkDocument, CertificateState, Committed, Config, DisconnectReason, Effect, Input, Lane, OpForm,
    Peer, Policy, StoredHead, StoredOp, Subscription, Taken, Ticket, Timestamp,
};
pub use bulk::{BulkProgress, BulkStage, BulkStatus, Part};
pub use conduct::{Ban, ConductStatus};
pub use digest::{HeadState, ShardDigest, Tip};
pub use earlier::earlier_ends;
pub use engine::Engine;
#[cfg(any(test, feature = "testing"))]
pub use forge::{forge_documents, forge_run};
pub use misdeed::Misbehaviour;
/// Frames, for members in tests that speak the protocol without an engine.
#[cfg(feature = "testing")]
pub mod frames {
    pub use serde_bytes::ByteBuf;

    pub use super::frame::*;
}
#[cfg(any(test, feature = "planted-bugs"))]
pub use mutant::{Mutant, plant};
pub use reach::{Reach, StreamPrefix};
pub use status::{Counters, PeerStatus};

#[cfg(test)]
mod tests;
