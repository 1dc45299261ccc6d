//! The libp2p shell around the replication engine: moves bytes between authenticated members, and knows nothing of
//! ops.
//!
//! - Peers are named by their [`AuthorKey`](folkmoot_core::id::AuthorKey). The handshake proves it, and the gate, the
//!   first behaviour of the swarm, lets in members only. A stranger costs one handshake and reaches no protocol;
//!   while the join door is open it reaches exactly one, [`join()`].
//! - Between two members there is one session of four lanes ([`Lane`]), each a stream with frames in order. Everything
//!   queued is bounded, in both directions, by bytes and by number.
//! - Members that are not connected are dialled at every known address, with back-off.
//! - Gossipsub carries beacons only: measured, it loses and delays messages under load.
//! - A panic in libp2p restarts the swarm, not the process.
//!
//! Invariant: nothing here blocks the task that polls the swarm. Whatever waits for the application or for a peer
//! is a task of its own.

mod addresses;
mod config;
mod door;
mod event;
mod handle;
pub mod identity;
mod join;
pub mod limits;
mod metrics;
mod per_lane;
mod session;
mod shared;
mod supervisor;
mod swarm;
mod task;
#[cfg(test)]
mod tests;
mod ticket;

pub use config::{Discovery, HAS_QUIC, NetworkConfig};
pub use door::JoinDoor;
pub use event::{Direction, DisconnectReason, DownReason, JoinRequest, NetEvent, NetEvents, RefusedReason, ReplyError};
pub use folkmoot_core::replication::Lane;
pub use handle::{CommandError, NetHandle, PeerStatus};
pub use join::{JoinError, join};
pub use libp2p::Multiaddr;
pub use libp2p::multiaddr::Protocol;
pub use session::SendError;
pub use supervisor::Network;
pub use swarm::StartError;
pub use ticket::{ParseTicketError, Ticket};
