//! The session with one peer: four lanes on one connection, from the hello to the last frame.
//!
//! Each lane is a stream that the peer with the smaller key (the leader) opened. The leader writes a hello, the
//! follower an ack, the leader a confirmation; after that frames go both ways. A frame is its length in four bytes
//! (big endian) and its bytes. Reader and writer of a lane are tasks of their own, so that two peers that both
//! write never wait for each other.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, ClusterId};
use futures_util::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter};
use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::event::{Direction, DownReason, EventSender, NetEvent};
use crate::limits::{FRAME_BYTES_MAX, FRAME_COST_BYTES, FRAME_TIME_MAX, INBOUND_LANE_BYTES_MAX};
use crate::metrics::NetMetrics;
use crate::per_lane::PerLane;
use folkmoot_core::replication::Lane;

/// Names one session, drawn by the leader: the four lanes belong together.
pub(crate) type SessionNonce = [u8; 8];

const HELLO_BYTES: usize = 40;
/// What ends the handshake of a lane.
const CONFIRMATION: [u8; 1] = [1];
/// Frames are read and written through buffers of this size, and bodies grow by it as their bytes arrive.
const BUFFER_BYTES: usize = 16 << 10;

/// Bytes that one lane of one peer may queue for sending: more than the engine's credit, so that what it has credit
/// for always fits.
pub(crate) const fn send_bytes_max(lane: Lane) -> usize {
    match lane {
        Lane::Control | Lane::Live => 2 * (FRAME_BYTES_MAX + FRAME_COST_BYTES),
        Lane::Repair | Lane::Snapshot => 3 * (FRAME_BYTES_MAX + FRAME_COST_BYTES),
    }
}

const _: () = {
    use folkmoot_core::replication::limits as engine;
    assert!(send_bytes_max(Lane::Control) as u64 >= engine::CONTROL_WINDOW + FRAME_BYTES_MAX as u64);
    assert!(send_bytes_max(Lane::Live) as u64 >= engine::LIVE_WINDOW + FRAME_BYTES_MAX as u64);
    assert!(send_bytes_max(Lane::Repair) as u64 >= engine::REPAIR_WINDOW + FRAME_BYTES_MAX as u64);
    assert!(send_bytes_max(Lane::Snapshot) as u64 >= engine::SNAPSHOT_WINDOW + FRAME_BYTES_MAX as u64);
    assert!(INBOUND_LANE_BYTES_MAX >= FRAME_BYTES_MAX + FRAME_COST_BYTES);
};

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no session with the peer.
    #[error("peer is not connected")]
    NotConnected,
    /// The lane's queue is full. [`NetEvent::Writable`] tells when to try again.
    #[error("the send queue of this lane is full")]
    Full,
    /// No lane carries a frame of this size.
    #[error("frame is longer than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
}

/// Why lanes could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("open lane")]
    Io(#[from] io::Error),
    #[error("the peer belongs to another cluster")]
    OtherCluster,
    #[error("the peer's answer does not belong to this session")]
    WrongAnswer,
}

/// Opens a lane as the leader; returns the round trip.
pub(crate) async fn lead<S>(stream: &mut S, cluster: ClusterId, nonce: SessionNonce) -> Result<Duration, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let sent = Instant::now();
    stream.write_all(&[cluster.as_bytes().as_slice(), &nonce].concat()).await?;
    stream.flush().await?;
    let mut ack: SessionNonce = [0; 8];
    stream.read_exact(&mut ack).await?;
    let rtt = sent.elapsed();
    if ack != nonce {
        return Err(HandshakeError::WrongAnswer);
    }
    stream.write_all(&CONFIRMATION).await?;
    stream.flush().await?;
    Ok(rtt)
}

/// Opens a lane as the follower; returns the leader's nonce and the round trip.
pub(crate) async fn follow<S>(stream: &mut S, cluster: ClusterId) -> Result<(SessionNonce, Duration), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    let (theirs, nonce) = hello.split_at(ClusterId::LEN);
    if theirs != cluster.as_bytes() {
        return Err(HandshakeError::OtherCluster);
    }
    let nonce: SessionNonce = nonce.try_into().map_err(|_| HandshakeError::WrongAnswer)?;
    let sent = Instant::now();
    stream.write_all(&nonce).await?;
    stream.flush().await?;
    let mut confirmation = [0; 1];
    stream.read_exact(&mut confirmation).await?;
    if confirmation != CONFIRMATION {
        return Err(HandshakeError::WrongAnswer);
    }
    Ok((nonce, sent.elapsed()))
}

#[derive(Debug)]
struct Outgoing {
    bytes: Bytes,
    /// Returned to the lane's budget once written.
    _permit: OwnedSemaphorePermit,
}

/// The sending end of a lane.
#[derive(Debug)]
struct LaneSender {
    queue: mpsc::Sender<Outgoing>,
    budget: Arc<Semaphore>,
    /// Somebody was told `Full` and waits for `Writable`.
    starved: Arc<AtomicBool>,
}

impl LaneSender {
    fn try_queue(&self, bytes: &Bytes) -> Result<(), SendError> {
        // At most FRAME_BYTES_MAX, so it fits.
        let cost = (bytes.len() + FRAME_COST_BYTES) as u32;
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(cost).map_err(|_| SendError::Full)?;
        self.queue.try_send(Outgoing { bytes: bytes.clone(), _permit: permit }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
        })
    }
}

/// What is known of a live session.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) nonce: SessionNonce,
    pub(crate) connection: ConnectionId,
    pub(crate) address: Multiaddr,
    pub(crate) direction: Direction,
    pub(crate) since: Instant,
    pub(crate) rtt_micros: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    lanes: PerLane<LaneSender>,
}

/// All live sessions, one per peer.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    live: Mutex<BTreeMap<AuthorKey, Arc<Live>>>,
    /// Makes the next session of a peer wait until the one before has told that it is down.
    turns: Mutex<BTreeMap<AuthorKey, Arc<tokio::sync::Mutex<()>>>>,
}

impl Sessions {
    fn with_live<T>(&self, with: impl FnOnce(&mut BTreeMap<AuthorKey, Arc<Live>>) -> T) -> T {
        with(&mut self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn turn(&self, peer: AuthorKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(peer).or_default())
    }

    fn forget_turn(&self, peer: &AuthorKey) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.get(peer).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(peer);
        }
    }

    pub(crate) fn get(&self, peer: &AuthorKey) -> Option<Arc<Live>> {
        self.with_live(|live| live.get(peer).cloned())
    }

    pub(crate) fn all(&self) -> Vec<(AuthorKey, Arc<Live>)> {
        self.with_live(|live| live.iter().map(|(peer, live)| (*peer, Arc::clone(live))).collect())
    }

    /// Queues a frame. Never waits.
    pub(crate) fn send(
        &self,
        peer: &AuthorKey,
        lane: Lane,
        bytes: &Bytes,
        metrics: &NetMetrics,
    ) -> Result<(), SendError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge);
        }
        let live = self.get(peer).ok_or(SendError::NotConnected)?;
        let sender = live.lanes.get(lane);
        let first = sender.try_queue(bytes);
        if first != Err(SendError::Full) {
            return first;
        }
        // The writer looks at the flag after each frame. It may have written the last one before the flag was set,
        // and then nothing would wake the caller: hence the second look.
        sender.starved.store(true, Ordering::SeqCst);
        let second = sender.try_queue(bytes);
        if second == Err(SendError::Full) {
            metrics.lanes.get(lane).send_full.increment(1);
        }
        second
    }
}

/// What a session needs from the network.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) events: EventSender,
    pub(crate) metrics: NetMetrics,
}

/// A session whose lanes are all open.
#[derive(Debug)]
pub(crate) struct Opened<S> {
    pub(crate) peer: AuthorKey,
    pub(crate) nonce: SessionNonce,
    pub(crate) connection: ConnectionId,
    pub(crate) address: Multiaddr,
    pub(crate) direction: Direction,
    pub(crate) rtt: Duration,
    pub(crate) streams: PerLane<S>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Opened<S> {
    /// Runs the session until it ends by itself or `end` tells why it must; a dropped `end` means a restart.
    /// `ended` is told as soon as the lanes are closed. Tells `PeerUp` first and `PeerDown` last.
    pub(crate) async fn run(self, context: Context, mut end: oneshot::Receiver<DownReason>, ended: impl AsyncFnOnce()) {
        let Context { sessions, events, metrics } = context.clone();
        let peer = self.peer;
        let turn = sessions.turn(peer);
        let guard = tokio::select! {
            guard = turn.lock() => guard,
            _ = &mut end => return,
        };
        let up = NetEvent::PeerUp { peer, rtt: self.rtt, address: self.address.clone(), direction: self.direction };
        let nonce = self.nonce;
        let mut tasks = self.start(&context);
        metrics.sessions.increment(1);
        metrics.peers.increment(1.0);
        // Readers begin when the event is queued, so no frame overtakes it.
        let told = events.send(up).await;
        let reason = match told {
            Err(_) => DownReason::Shutdown,
            Ok(()) => {
                tasks.begin();
                tokio::select! {
                    biased;
                    reason = &mut end => reason.unwrap_or(DownReason::Restart),
                    reason = tasks.first_end() => reason,
                }
            }
        };
        sessions.with_live(|live| {
            if live.get(&peer).is_some_and(|live| live.nonce == nonce) {
                live.remove(&peer);
            }
        });
        metrics.peers.decrement(1.0);
        if reason == DownReason::ProtocolViolation {
            metrics.violations.increment(1);
        }
        tasks.set.shutdown().await;
        ended().await;
        // An error means that nobody listens.
        let _ = events.send(NetEvent::PeerDown { peer, reason }).await;
        drop(guard);
        drop(turn);
        sessions.forget_turn(&peer);
    }

    /// Makes queues and tasks, and lets frames be queued.
    fn start(self, context: &Context) -> Tasks {
        let Self { peer, nonce, connection, address, direction, rtt, streams } = self;
        let mut set = JoinSet::new();
        let mut parts = Vec::with_capacity(Lane::ALL.len());
        let mut receivers = PerLane::from_fn(|_| None);
        let lanes = PerLane::from_fn(|lane| {
            let budget = send_bytes_max(lane);
            let (queue, receiver) = mpsc::channel(budget / FRAME_COST_BYTES);
            let sender = LaneSender { queue, budget: Arc::new(Semaphore::new(budget)), starved: Arc::default() };
            *receivers.get_mut(lane) = Some((receiver, Arc::clone(&sender.budget), Arc::clone(&sender.starved)));
            sender
        });
        let live = Arc::new(Live {
            nonce,
            connection,
            address,
            direction,
            since: Instant::now(),
            rtt_micros: AtomicU64::new(rtt.as_micros() as u64),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            lanes,
        });
        for (lane, stream) in streams.into_each() {
            let (read, write) = stream.split();
            let end = LaneEnd { peer, lane, live: Arc::clone(&live), context: context.clone() };
            if let Some((queue, budget, starved)) = receivers.get_mut(lane).take() {
                parts.push((end, read, write, queue, budget, starved));
            }
        }
        let mut starts = Vec::new();
        for (end, read, write, queue, budget, starved) in parts {
            let (start, started) = oneshot::channel::<()>();
            starts.push(start);
            let reader = end.clone();
            set.spawn(async move {
                // An error means that the session ended before it began; the task is being aborted.
                if started.await.is_err() {
                    return DownReason::ConnectionLost;
                }
                reader.read_frames(read).await
            });
            set.spawn(async move { end.write_frames(write, queue, budget, starved).await });
        }
        context.sessions.with_live(|sessions| sessions.insert(peer, live));
        Tasks { set, starts }
    }
}

/// The readers and writers of a session.
struct Tasks {
    set: JoinSet<DownReason>,
    starts: Vec<oneshot::Sender<()>>,
}

impl Tasks {
    /// Lets the readers read.
    fn begin(&mut self) {
        for start in self.starts.drain(..) {
            // A reader that is gone ends the session anyway.
            let _ = start.send(());
        }
    }

    /// Waits for the first task that ends: one lane lost is a session lost.
    async fn first_end(&mut self) -> DownReason {
        match self.set.join_next().await {
            Some(Ok(reason)) => reason,
            Some(Err(error)) => {
                tracing::error!(%error, "a lane's task panicked");
                DownReason::ConnectionLost
            }
            None => DownReason::ConnectionLost,
        }
    }
}

#[derive(Clone)]
struct LaneEnd {
    peer: AuthorKey,
    lane: Lane,
    live: Arc<Live>,
    context: Context,
}

impl LaneEnd {
    async fn read_frames(&self, stream: impl AsyncRead + Unpin) -> DownReason {
        let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
        let metrics = self.context.metrics.lanes.get(self.lane);
        loop {
            let bytes = match read_frame(&mut stream).await {
                Ok(bytes) => bytes,
                Err(ReadError::Lost) => return DownReason::ConnectionLost,
                Err(ReadError::TooLarge) => return DownReason::ProtocolViolation,
                // A line may be slow, whoever is at its other end.
                Err(ReadError::TooSlow) => return DownReason::Unresponsive,
            };
            metrics.frames_received.increment(1);
            metrics.bytes_received.increment(bytes.len() as u64);
            self.live.bytes_received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            // While this waits nothing more is read from this lane, and the peer's writer comes to a halt.
            if self.context.events.send_frame(self.peer, self.lane, bytes).await.is_err() {
                return DownReason::Shutdown;
            }
        }
    }

    async fn write_frames(
        &self,
        stream: impl AsyncWrite + Unpin,
        mut queue: mpsc::Receiver<Outgoing>,
        budget: Arc<Semaphore>,
        starved: Arc<AtomicBool>,
    ) -> DownReason {
        let mut stream = BufWriter::with_capacity(BUFFER_BYTES, stream);
        let metrics = self.context.metrics.lanes.get(self.lane);
        while let Some(outgoing) = queue.recv().await {
            let len = outgoing.bytes.len();
            if write_frame(&mut stream, &outgoing.bytes).await.is_err() {
                return DownReason::ConnectionLost;
            }
            drop(outgoing);
            metrics.frames_sent.increment(1);
            metrics.bytes_sent.increment(len as u64);
            self.live.bytes_sent.fetch_add(len as u64, Ordering::Relaxed);
            if queue.is_empty() && stream.flush().await.is_err() {
                return DownReason::ConnectionLost;
            }
            if budget.available_permits() >= send_bytes_max(self.lane) / 2 && starved.swap(false, Ordering::SeqCst) {
                let writable = NetEvent::Writable { peer: self.peer, lane: self.lane };
                if self.context.events.send(writable).await.is_err() {
                    return DownReason::Shutdown;
                }
            }
        }
        DownReason::ConnectionLost
    }
}

/// Why no frame was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadError {
    Lost,
    TooLarge,
    TooSlow,
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, ReadError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.map_err(|_| ReadError::Lost)?;
    let len = u32::from_be_bytes(header) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(ReadError::TooLarge);
    }
    let body = async {
        let mut body = Vec::new();
        while body.len() < len {
            // Grows as bytes arrive: a header alone claims no memory.
            let filled = body.len();
            body.resize(filled + (len - filled).min(filled.max(BUFFER_BYTES)), 0);
            let (_, rest) = body.split_at_mut(filled);
            stream.read_exact(rest).await.map_err(|_| ReadError::Lost)?;
        }
        Ok(Bytes::from(body))
    };
    tokio::time::timeout(FRAME_TIME_MAX, body).await.map_err(|_| ReadError::TooSlow)?
}

async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), bytes: &Bytes) -> io::Result<()> {
    // `Sessions::send` has checked the size.
    stream.write_all(&(bytes.len() as u32).to_be_bytes()).await?;
    stream.write_all(bytes).await
}

#[cfg(test)]
mod tests;
