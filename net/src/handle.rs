//! The handle by which the application drives the network.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use folkmoot_core::id::AuthorKey;
use libp2p::Multiaddr;
use tokio::sync::mpsc;

use crate::addresses::{Room, is_dialable, split_peer};
use crate::door::JoinDoor;
use crate::event::{Direction, DisconnectReason};
use crate::limits::BEACON_BYTES_MAX;
use crate::session::SendError;
use crate::shared::{Phase, Shared};
use folkmoot_core::replication::Lane;

/// A connected member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its key.
    pub peer: AuthorKey,
    /// The address of its end.
    pub address: Multiaddr,
    /// Who dialled.
    pub direction: Direction,
    /// The last measured round trip.
    pub rtt: Duration,
    /// How long the session has lasted.
    pub connected_for: Duration,
    /// Bytes of the frames received in this session.
    pub bytes_received: u64,
    /// Bytes of the frames sent in this session.
    pub bytes_sent: u64,
}

/// What handles ask of the network task.
#[derive(Debug)]
pub(crate) enum Command {
    Disconnect(AuthorKey, DisconnectReason),
    PublishBeacon(Bytes),
    /// Look for due dials now.
    Dial,
    #[cfg(test)]
    Panic,
}

/// The request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Too many requests wait for the network task.
    #[error("the network is busy")]
    Busy,
    /// The network is shut down.
    #[error("the network is shut down")]
    Stopped,
    /// The beacon is longer than allowed.
    #[error("beacon is longer than {BEACON_BYTES_MAX} bytes")]
    BeaconTooLarge,
    /// No more addresses are remembered.
    #[error("too many addresses are remembered")]
    TooManyAddresses,
}

/// Drives the network. Cheap to clone; when the last one is dropped the network shuts down. No method but
/// [`NetHandle::shutdown`] waits.
#[derive(Debug, Clone)]
pub struct NetHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl NetHandle {
    /// Returns the node's own key.
    #[must_use]
    pub fn own_key(&self) -> AuthorKey {
        self.shared.config.secret.author()
    }

    /// Sets who is a member. Others are disconnected at once and not let in any more; members with known addresses
    /// are dialled. The node's own key is ignored.
    pub fn set_members(&self, members: BTreeSet<AuthorKey>) {
        self.shared.door.set_members(members);
    }

    /// Cuts the links to these peers, though they may be members, until another set is given: they are
    /// disconnected, not dialled, and refused when they dial. A tool for operators, and for trying out partitions.
    pub fn set_blocked(&self, blocked: BTreeSet<AuthorKey>) {
        self.shared.door.set_blocked(blocked);
    }

    /// Disconnects a peer and keeps it out for `time`. It is then dialled again. Bans are not kept over a restart of the
    /// process: the caller knows them.
    pub fn ban(&self, peer: AuthorKey, time: Duration) {
        self.shared.door.ban(peer, time, Instant::now());
    }

    /// Ends a ban.
    pub fn pardon(&self, peer: &AuthorKey) {
        self.shared.door.pardon(peer);
    }

    /// Opens or closes the door for strangers who want to join.
    pub fn set_join_door(&self, door: JoinDoor) {
        self.shared.door.set_join(door);
    }

    /// Queues a frame for a peer. What is queued is not yet sent, and is lost when the session ends.
    ///
    /// # Errors
    /// See [`SendError`]. After `Full` a [`crate::NetEvent::Writable`] follows, unless the session ends.
    pub fn send(&self, peer: &AuthorKey, lane: Lane, bytes: Bytes) -> Result<(), SendError> {
        let context = &self.shared.context;
        context.sessions.send(peer, lane, &bytes, &context.metrics)
    }

    fn command(&self, command: Command) -> Result<(), CommandError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Stopped,
        })
    }

    /// Ends the session with a peer. It may come back at once; see [`NetHandle::ban`].
    ///
    /// # Errors
    /// [`CommandError::Busy`] or [`CommandError::Stopped`].
    pub fn disconnect(&self, peer: AuthorKey, reason: DisconnectReason) -> Result<(), CommandError> {
        self.command(Command::Disconnect(peer, reason))
    }

    /// Remembers an address of a peer and dials it, now and whenever the peer is not connected.
    ///
    /// # Errors
    /// [`CommandError::TooManyAddresses`] if there is no room for it.
    pub fn add_address(&self, peer: AuthorKey, address: &Multiaddr) -> Result<(), CommandError> {
        let (_, address) = split_peer(address);
        match self.shared.with_book(|book| book.pin(peer, address, Instant::now())) {
            // If the task is busy it finds the address at its next tick.
            Room::Kept => drop(self.command(Command::Dial)),
            Room::Full => return Err(CommandError::TooManyAddresses),
        }
        Ok(())
    }

    /// Remembers an address that a peer is said to have, among the few that were confirmed last, and dials it when the peer
    /// is not connected. What cannot be dialled is nothing. It is forgotten when the peer is a member no more.
    pub fn learn_address(&self, peer: AuthorKey, address: &Multiaddr) {
        let (_, address) = split_peer(address);
        if is_dialable(&address) && self.shared.door.is_member(&peer) {
            self.shared.with_book(|book| book.learn(peer, address, Instant::now()));
        }
    }

    /// Dials an address, now and whenever no member is known to be there; with `/p2p/…` at its end like
    /// [`NetHandle::add_address`].
    ///
    /// # Errors
    /// [`CommandError::TooManyAddresses`] if there is no room for it.
    pub fn dial(&self, address: &Multiaddr) -> Result<(), CommandError> {
        let (peer, bare) = split_peer(address);
        if let Some(peer) = peer {
            return self.add_address(peer, &bare);
        }
        match self.shared.with_book(|book| book.pin_unnamed(bare, Instant::now())) {
            Room::Kept => drop(self.command(Command::Dial)),
            Room::Full => return Err(CommandError::TooManyAddresses),
        }
        Ok(())
    }

    /// Gives a beacon to the whole cluster, best effort. Equal beacons within 30 s are told once.
    ///
    /// # Errors
    /// [`CommandError::BeaconTooLarge`], [`CommandError::Busy`] or [`CommandError::Stopped`].
    pub fn publish_beacon(&self, bytes: Bytes) -> Result<(), CommandError> {
        if bytes.len() > BEACON_BYTES_MAX {
            return Err(CommandError::BeaconTooLarge);
        }
        self.command(Command::PublishBeacon(bytes))
    }

    /// Returns the addresses the node listens on, without those of `external`.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.shared.with_listening(|listening| listening.clone())
    }

    /// Returns the connected members, by key.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let sessions = self.shared.context.sessions.all();
        sessions
            .into_iter()
            .map(|(peer, live)| PeerStatus {
                peer,
                address: live.address.clone(),
                direction: live.direction,
                rtt: Duration::from_micros(live.rtt_micros.load(Ordering::Relaxed)),
                connected_for: live.since.elapsed(),
                bytes_received: live.bytes_received.load(Ordering::Relaxed),
                bytes_sent: live.bytes_sent.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// Ends all sessions, closes all sockets, and waits until that is done. Goes on if cancelled. The events must
    /// be received or dropped meanwhile: `PeerDown` is told for every peer.
    pub async fn shutdown(&self) {
        self.shared.stop();
        let mut phase = self.shared.phase.subscribe();
        // An error means that nobody holds the sender, which `self` does.
        let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
    }

    #[cfg(test)]
    pub(crate) fn panic_network_task(&self) {
        self.command(Command::Panic).unwrap();
    }
}
