//! The task that owns the swarm: decides which connections live, carries the lanes of each peer to a session, dials.
//!
//! Of two peers the one with the smaller key leads: it alone opens lanes, and it alone decides between two
//! connections. So both sides agree on one session, however their dials crossed.

mod connections;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use folkmoot_core::id::AuthorKey;
use futures_util::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, ListenError, Stream, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub, identify, mdns, ping};
use libp2p_connection_limits::Exceeded;
use tokio::sync::{Notify, OwnedMutexGuard, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::addresses::{Dial, Stability, is_dialable, is_loopback, split_peer};
use crate::door::{Admission, JoinDoor};
use crate::event::{Direction, DownReason, NetEvent, RefusedReason};
use crate::handle::Command;
use crate::identity;
use crate::join;
use crate::limits::{
    ASSEMBLE_TIME_MAX, BEACON_BYTES_MAX, BEACONS_PER_PEER_BURST, BEACONS_PER_PEER_RATE, DIAL_TIME_MAX, JOIN_TIME_MAX,
    OUTBOX_MAX, PINNED_ADDRESSES_MAX, RATED_ADDRESSES_MAX, STABLE_SESSION, TICK,
};
use crate::per_lane::PerLane;
use crate::session::{self, HandshakeError, Opened};
use crate::shared::{Phase, Shared};
use crate::swarm::streams::{self, HandlerEvent, Protocol};
use crate::swarm::{Behaviour, BehaviourEvent, beacon_topic};
use folkmoot_core::rate::{Buckets, Rate};
use folkmoot_core::replication::Lane;

/// Messages of the tasks of connections that wait for the network task.
const INTERNAL_QUEUE_MAX: usize = 256;

/// Why the task returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Shutdown,
    /// The task of a connection panicked, and the swarm would count that connection for ever.
    ConnectionTaskPanicked,
}

/// What the supervisor gives the task.
pub(crate) struct Start {
    pub(crate) swarm: Swarm<Behaviour>,
    /// Which listener serves which configured address.
    pub(crate) listeners: HashMap<ListenerId, usize>,
    pub(crate) panicked: Arc<Notify>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: OwnedMutexGuard<mpsc::Receiver<Command>>,
    /// Held by the task and by every session: the supervisor waits until all are gone.
    pub(crate) alive: mpsc::Sender<()>,
}

/// What the tasks of connections tell.
enum Internal {
    Handshake(ConnectionId, Result<Box<Opened<Stream>>, HandshakeError>),
    SessionEnded(ConnectionId),
    GuestServed(ConnectionId),
}

enum Stage {
    /// A stranger that may ask to join.
    Guest,
    /// Lanes arrive one by one.
    Assembling(Box<PerLane<Option<Stream>>>),
    /// Hello and ack are under way.
    Handshaking,
    /// A session owns the lanes.
    Live { since: Instant, end: Option<oneshot::Sender<DownReason>> },
    /// The swarm was told to close it.
    Closing { since: Option<Instant> },
}

struct Connection {
    peer: AuthorKey,
    peer_id: PeerId,
    address: Multiaddr,
    direction: Direction,
    established: Instant,
    stage: Stage,
}

impl Connection {
    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Guest => Some(self.established + JOIN_TIME_MAX),
            Stage::Assembling(_) | Stage::Handshaking => Some(self.established + ASSEMBLE_TIME_MAX),
            Stage::Live { .. } | Stage::Closing { .. } => None,
        }
    }
}

struct Task {
    swarm: Swarm<Behaviour>,
    listeners: HashMap<ListenerId, usize>,
    shared: Arc<Shared>,
    own: AuthorKey,
    connections: HashMap<ConnectionId, Connection>,
    dials: HashMap<ConnectionId, Dial>,
    /// Members that were admitted when the door was last looked at.
    admitted: BTreeSet<AuthorKey>,
    beacon_rates: Buckets<AuthorKey>,
    outbox: VecDeque<NetEvent>,
    internal: mpsc::Sender<Internal>,
    alive: mpsc::Sender<()>,
}

/// Runs the swarm until the network is to stop.
pub(crate) async fn run(start: Start) -> Ended {
    let Start { swarm, listeners, panicked, shared, mut commands, alive } = start;
    let (internal, mut from_tasks) = mpsc::channel(INTERNAL_QUEUE_MAX);
    let events = shared.context.events.clone();
    let mut door = shared.door.changes();
    let mut phase = shared.phase.subscribe();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let beacons = Rate { burst: BEACONS_PER_PEER_BURST, per_second: BEACONS_PER_PEER_RATE };
    let mut task = Task {
        swarm,
        listeners,
        own: shared.config.secret.author(),
        shared,
        connections: HashMap::new(),
        dials: HashMap::new(),
        admitted: BTreeSet::new(),
        beacon_rates: Buckets::new(beacons, RATED_ADDRESSES_MAX),
        outbox: VecDeque::new(),
        internal,
        alive,
    };
    task.on_door_changed();
    loop {
        tokio::select! {
            event = task.swarm.select_next_some() => task.on_swarm_event(event),
            Some(internal) = from_tasks.recv() => task.on_internal(internal),
            command = commands.recv() => match command {
                Some(command) => task.on_command(command),
                // Every handle was dropped.
                None => break,
            },
            Ok(()) = door.changed() => task.on_door_changed(),
            _ = tick.tick() => task.on_tick(),
            () = events.room(), if !task.outbox.is_empty() => task.flush_outbox(),
            _ = phase.wait_for(|phase| *phase != Phase::Running) => break,
            () = events.closed() => break,
            () = panicked.notified() => return Ended::ConnectionTaskPanicked,
        }
    }
    for connection in task.connections.values_mut() {
        end_session(&mut connection.stage, DownReason::Shutdown);
    }
    Ended::Shutdown
}

/// Tells a session, if there is one, to end.
fn end_session(stage: &mut Stage, reason: DownReason) {
    if let Stage::Live { end, .. } = stage
        && let Some(end) = end.take()
    {
        // An error means that it has ended.
        let _ = end.send(reason);
    }
}

/// A number in 0 to 1 for back-off.
fn jitter() -> f64 {
    rand::random()
}

impl Task {
    fn tell(&mut self, event: NetEvent) {
        let event = if self.outbox.is_empty() { self.shared.context.events.try_send(event) } else { Err(event) };
        let Err(event) = event else { return };
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back(event);
        } else if matches!(event, NetEvent::Beacon { .. }) {
            self.shared.context.metrics.beacons_dropped.increment(1);
        } else {
            tracing::warn!(?event, "the application does not take events: dropped one");
        }
    }

    fn flush_outbox(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            if let Err(event) = self.shared.context.events.try_send(event) {
                self.outbox.push_front(event);
                return;
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Disconnect(peer, reason) => self.close_peer(&peer, DownReason::Disconnected(reason)),
            Command::PublishBeacon(bytes) => {
                let topic = beacon_topic(&self.shared.config.cluster);
                let beacons = self.swarm.behaviour_mut().beacons.inner_mut();
                if let Err(error) = beacons.publish(topic, bytes) {
                    // Nobody there, told already, or queues full: beacons are best effort.
                    tracing::debug!(%error, "beacon not published");
                }
            }
            Command::Dial => self.dial_due(Instant::now()),
            #[cfg(test)]
            Command::Panic => panic!("asked to panic by a test"),
        }
    }

    /// Makes the connections agree with who is admitted now.
    fn on_door_changed(&mut self) {
        let now = Instant::now();
        let door = Arc::clone(&self.shared.door);
        let mut to_close = Vec::new();
        for (id, connection) in &self.connections {
            match connection.stage {
                // A guest that has just become a member is still owed its answer.
                Stage::Guest => match door.admission(&connection.peer_id, now) {
                    Admission::Guest | Admission::Member => {}
                    Admission::Refused(_) => to_close.push((*id, DownReason::Removed)),
                },
                Stage::Assembling(_) | Stage::Handshaking | Stage::Live { .. } => {
                    to_close.extend(door.exclusion(&connection.peer, now).map(|reason| (*id, reason)));
                }
                Stage::Closing { .. } => {}
            }
        }
        for (id, reason) in to_close {
            self.close(id, reason);
        }
        let mut admitted = door.members();
        admitted.retain(|peer| door.exclusion(peer, now).is_none());
        self.shared.with_book(|book| {
            for peer in admitted.difference(&self.admitted) {
                book.retry(peer, now);
            }
            book.retain_learnt(|peer| door.is_member(peer));
        });
        self.admitted = admitted;
        self.dial_due(now);
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        let is_late = |connection: &Connection| connection.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<_> = self.connections.iter().filter(|(_, c)| is_late(c)).map(|(id, _)| *id).collect();
        for id in late {
            self.close(id, DownReason::Unresponsive);
        }
        self.dial_due(now);
    }

    fn dial_due(&mut self, now: Instant) {
        let connected: BTreeSet<_> = self.connections.values().map(|connection| connection.peer).collect();
        let door = &self.shared.door;
        let is_wanted =
            |peer: &AuthorKey| *peer != self.own && !connected.contains(peer) && door.exclusion(peer, now).is_none();
        let due = self.shared.with_book(|book| book.due(now, jitter(), is_wanted, |peer| door.is_member(peer)));
        for dial in due {
            let options = match &dial {
                Dial::Member(peer, addresses) => {
                    let Some(peer) = identity::peer_id(peer) else { continue };
                    DialOpts::peer_id(peer)
                        .condition(PeerCondition::DisconnectedAndNotDialing)
                        .addresses(addresses.clone())
                        .build()
                }
                Dial::Whoever(address) => DialOpts::unknown_peer_id().address(address.clone()).build(),
            };
            let id = options.connection_id();
            self.shared.context.metrics.dials.increment(1);
            match self.swarm.dial(options) {
                Ok(()) => drop(self.dials.insert(id, dial)),
                Err(error) => tracing::debug!(?dial, %error, "dial not begun"),
            }
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                if let Some(cause) = cause {
                    tracing::debug!(%cause, "connection closed");
                }
                self.on_closed(connection_id);
            }
            SwarmEvent::IncomingConnectionError { error, .. } => self.on_refused(&error),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failed(connection_id, &error);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => self.on_listening(listener_id, address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.shared.with_listening(|listening| listening.retain(|known| *known != address));
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                if let Err(error) = reason {
                    tracing::error!(%error, ?addresses, "listener closed");
                }
                self.shared.with_listening(|listening| listening.retain(|known| !addresses.contains(known)));
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener failed"),
            _ => {}
        }
    }

    fn on_listening(&mut self, listener: ListenerId, address: Multiaddr) {
        if let Some(index) = self.listeners.get(&listener) {
            self.shared.bind(*index, &address);
        }
        tracing::info!(%address, "listening");
        self.shared.with_listening(|listening| {
            if !listening.contains(&address) {
                listening.push(address.clone());
            }
        });
        self.tell(NetEvent::Listening(address));
    }

    fn on_refused(&mut self, error: &ListenError) {
        if let ListenError::Denied { cause } = error
            && cause.downcast_ref::<Exceeded>().is_some()
        {
            self.shared.context.metrics.refused.count(RefusedReason::ConnectionLimit);
        }
        tracing::debug!(?error, "no inbound connection");
    }

    fn on_dial_failed(&mut self, id: ConnectionId, error: &DialError) {
        self.shared.context.metrics.dials_failed.increment(1);
        let dial = self.dials.remove(&id);
        tracing::debug!(?dial, %error, "dial failed");
        if let (Some(Dial::Whoever(address)), DialError::LocalPeerId { .. }) = (dial, error) {
            self.shared.with_book(|book| book.forget_unnamed(&address));
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gate(event) => match event {},
            BehaviourEvent::Limits(event) => match event {},
            BehaviourEvent::Streams(streams::Event { connection, event }) => self.on_stream(connection, event),
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(&event),
            BehaviourEvent::Beacons(event) => self.on_gossip(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    self.learn(&peer, &address);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
        }
    }

    fn learn(&self, peer: &PeerId, address: &Multiaddr) {
        let Some(peer) = identity::author_key(peer) else { return };
        let address = split_peer(address).1;
        if self.shared.door.is_member(&peer) && is_dialable(&address) {
            self.shared.with_book(|book| book.learn(peer, address, Instant::now()));
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { connection_id, peer_id, info } = event else { return };
        let is_near = self.connections.get(&connection_id).is_some_and(|c| is_loopback(&c.address));
        // The address told first is to be tried first.
        for address in info.listen_addrs.iter().take(PINNED_ADDRESSES_MAX).rev() {
            if is_near || !is_loopback(address) {
                self.learn(&peer_id, address);
            }
        }
    }

    fn on_ping(&mut self, event: &ping::Event) {
        match &event.result {
            Ok(rtt) => {
                let peer = self.connections.get(&event.connection).map(|connection| connection.peer);
                let live = peer.and_then(|peer| self.shared.context.sessions.get(&peer));
                if let Some(live) = live.filter(|live| live.connection == event.connection) {
                    live.rtt_micros.store(rtt.as_micros() as u64, Ordering::Relaxed);
                }
            }
            Err(ping::Failure::Unsupported) => {}
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                self.close(event.connection, DownReason::Unresponsive);
            }
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else { return };
        let from = identity::author_key(&propagation_source);
        let from =
            from.filter(|from| message.data.len() <= BEACON_BYTES_MAX && self.beacon_rates.take(*from, Instant::now()));
        let verdict = match from {
            Some(_) => gossipsub::MessageAcceptance::Accept,
            None => gossipsub::MessageAcceptance::Ignore,
        };
        let beacons = self.swarm.behaviour_mut().beacons.inner_mut();
        // False if it has left the cache meanwhile; then it is not forwarded, which is all this is for.
        let _ = beacons.report_message_validation_result(&message_id, &propagation_source, verdict);
        let metrics = &self.shared.context.metrics;
        match from {
            Some(from) => {
                metrics.beacons_received.increment(1);
                self.tell(NetEvent::Beacon { from, bytes: message.data.into() });
            }
            None => metrics.beacons_dropped.increment(1),
        }
    }
}
