//! What the network tells the application.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::id::AuthorKey;
use libp2p::Multiaddr;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::limits::{EVENT_QUEUE_MAX, FRAME_COST_BYTES, INBOUND_LANE_BYTES_MAX, JOIN_RESPONSE_BYTES_MAX};
use crate::per_lane::PerLane;
use crate::shared::Phase;
use folkmoot_core::replication::Lane;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// We did.
    Outbound,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DownReason {
    /// The connection broke or the peer closed it.
    ConnectionLost,
    /// The peer did not answer pings, or began a frame and did not end it.
    Unresponsive,
    /// The peer sent what breaks the protocol of the lanes.
    ProtocolViolation,
    /// The peer opened a new session, so it had lost this one.
    Replaced,
    /// The peer is a member no more.
    Removed,
    /// An operator cut the link.
    Blocked,
    /// The peer was banned for a time.
    Banned,
    /// The application asked for it.
    Disconnected(DisconnectReason),
    /// The network task was restarted.
    Restart,
    /// The network was shut down.
    Shutdown,
}

/// Why the application disconnects a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DisconnectReason {
    /// The peer does not take what is sent to it.
    QueueFull,
    /// The peer speaks another version of the protocol above the network.
    OtherVersion,
    /// The application knows that the peer is no member, and will say so by the set of members.
    NotMember,
    /// The application serves as many peers as it can.
    TooManyPeers,
    /// An operator asked for it.
    Requested,
}

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RefusedReason {
    /// Not a member, and the join door is closed.
    Stranger,
    /// A member whose link an operator has cut.
    Blocked,
    /// Banned for a time.
    Banned,
    /// Too many handshakes from one address.
    HandshakeRate,
    /// Too many guests, in all or from one address.
    GuestRate,
    /// Too many connections, in all or of one peer.
    ConnectionLimit,
}

/// What happened. Per peer the order is: `PeerUp`, its frames, `PeerDown`, and so on.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetEvent {
    /// All lanes to a member are open in both directions. There is one session per peer.
    PeerUp {
        /// The member.
        peer: AuthorKey,
        /// Round trip measured while the lanes opened.
        rtt: Duration,
        /// The address of its end.
        address: Multiaddr,
        /// Who dialled.
        direction: Direction,
    },
    /// The session is over; what was queued is lost.
    PeerDown {
        /// The member.
        peer: AuthorKey,
        /// Why.
        reason: DownReason,
    },
    /// A frame, at most [`crate::limits::FRAME_BYTES_MAX`].
    Frame {
        /// Who sent it.
        peer: AuthorKey,
        /// On which lane; frames of one lane are in order.
        lane: Lane,
        /// What was given to [`crate::NetHandle::send`].
        bytes: Bytes,
    },
    /// After [`crate::SendError::Full`]: half of the queue of that lane is free again.
    Writable {
        /// The member.
        peer: AuthorKey,
        /// The lane.
        lane: Lane,
    },
    /// A beacon, unverified. Anybody in the cluster may have written it.
    Beacon {
        /// The neighbour that forwarded it, not its author.
        from: AuthorKey,
        /// What was given to [`crate::NetHandle::publish_beacon`].
        bytes: Bytes,
    },
    /// The node listens on this address.
    Listening(Multiaddr),
    /// Somebody asks to join.
    Join(JoinRequest),
    /// The network task had panicked and runs again. `PeerDown` was told for every peer.
    Restarted,
}

/// A request to join; dropping it refuses.
#[derive(Debug)]
pub struct JoinRequest {
    /// Who asks: proved by the handshake.
    pub from: AuthorKey,
    /// Where from.
    pub address: Multiaddr,
    /// The request, at most [`crate::limits::JOIN_REQUEST_BYTES_MAX`]; nothing in it is verified.
    pub bytes: Bytes,
    pub(crate) reply: oneshot::Sender<Bytes>,
}

/// The answer was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// Longer than allowed.
    #[error("answer to a join request is longer than {JOIN_RESPONSE_BYTES_MAX} bytes")]
    TooLarge,
    /// The guest is gone, or its time is over.
    #[error("the guest is gone")]
    Gone,
}

impl JoinRequest {
    /// Answers. Whether the answer arrived is not known.
    ///
    /// # Errors
    /// See [`ReplyError`].
    pub fn reply(self, bytes: Bytes) -> Result<(), ReplyError> {
        if bytes.len() > JOIN_RESPONSE_BYTES_MAX {
            return Err(ReplyError::TooLarge);
        }
        self.reply.send(bytes).map_err(|_| ReplyError::Gone)
    }
}

#[derive(Debug)]
struct Queued {
    event: NetEvent,
    /// Returned to the lane's budget when the application takes the event.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The receiving end: one per network.
#[derive(Debug)]
pub struct NetEvents {
    queue: mpsc::Receiver<Queued>,
    phase: watch::Receiver<Phase>,
}

impl NetEvents {
    /// Returns the next event, or `None` once the network is shut down and all events were taken. Cancel safe.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        tokio::select! {
            biased;
            queued = self.queue.recv() => return queued.map(|queued| queued.event),
            _ = self.phase.wait_for(|phase| *phase == Phase::Stopped) => {}
        }
        // Handles may still hold senders. All that was sent before the end is in the queue.
        self.try_recv()
    }

    /// Returns the next event if there is one already.
    pub fn try_recv(&mut self) -> Option<NetEvent> {
        self.queue.try_recv().ok().map(|queued| queued.event)
    }
}

/// The application took its receiver away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NobodyListens;

/// The sending end. Frames wait here for the application within a byte budget per lane; that is what makes a
/// stalled application stop the readers.
#[derive(Debug, Clone)]
pub(crate) struct EventSender {
    queue: mpsc::Sender<Queued>,
    budgets: PerLane<Arc<Semaphore>>,
}

pub(crate) fn channel(phase: watch::Receiver<Phase>) -> (EventSender, NetEvents) {
    let (sender, receiver) = mpsc::channel(EVENT_QUEUE_MAX);
    let budgets = PerLane::from_fn(|_| Arc::new(Semaphore::new(INBOUND_LANE_BYTES_MAX)));
    (EventSender { queue: sender, budgets }, NetEvents { queue: receiver, phase })
}

impl EventSender {
    /// Waits for room, then sends. Used by tasks that may wait, never by the network task.
    pub(crate) async fn send(&self, event: NetEvent) -> Result<(), NobodyListens> {
        self.queue.send(Queued { event, _permit: None }).await.map_err(|_| NobodyListens)
    }

    /// Waits for the lane's budget and for room, then sends.
    pub(crate) async fn send_frame(&self, peer: AuthorKey, lane: Lane, bytes: Bytes) -> Result<(), NobodyListens> {
        // A frame is far smaller than the budget, so this fits u32 and never waits for ever.
        let cost = (bytes.len() + FRAME_COST_BYTES) as u32;
        let permit = Arc::clone(self.budgets.get(lane)).acquire_many_owned(cost).await.map_err(|_| NobodyListens)?;
        let event = NetEvent::Frame { peer, lane, bytes };
        self.queue.send(Queued { event, _permit: Some(permit) }).await.map_err(|_| NobodyListens)
    }

    /// Sends if there is room now, else gives the event back.
    pub(crate) fn try_send(&self, event: NetEvent) -> Result<(), NetEvent> {
        self.queue.try_send(Queued { event, _permit: None }).map_err(|error| error.into_inner().event)
    }

    /// Waits until there is room for at least one event. Returns at once if nobody listens.
    pub(crate) async fn room(&self) {
        // The slot is given back: only the network task sends without waiting, and it retries.
        drop(self.queue.reserve().await);
    }

    /// Waits until nobody listens any more.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }
}
