//! The network: peers, the connections between them, and what happens when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, StoreEpoch, StreamId};
use folkmoot_core::op::Op;
use folkmoot_core::replication::{
    Committed, Config, Effect, Engine, Input, Lane, StoredOp, Subscription, Taken, Timestamp,
};

use super::Options;
use super::peer::{CLUSTER, Members, Peer, Writer, index_of, key_of};
use crate::agenda::Agenda;
use crate::simulator::Random;

/// Time at the start, in microseconds since 1970.
const START: u64 = 1_700_000_000_000_000;
const MILLI: u64 = 1_000;
/// Within this time all connections come up.
const CONNECT_WITHIN: u64 = 200 * MILLI;
/// The way from one peer to another.
const DELAY: (u64, u64) = (5 * MILLI, 40 * MILLI);
/// A commit.
const COMMIT: (u64, u64) = (MILLI, 6 * MILLI);
/// After so many events the bounds of the peer at hand are checked.
const FIGURES_EVERY: u64 = 1_009;

enum Event {
    Frame { from: usize, to: usize, session: u64, lane: Lane, bytes: Bytes },
    Commit { node: usize, from: Option<AuthorKey>, ops: Vec<Arc<Op>> },
    Tick { node: usize, at: u64 },
    Up { a: usize, b: usize, session: u64 },
    Write { writer: usize },
}

/// What was sent so far.
#[derive(Clone, Copy)]
pub(super) struct Traffic {
    pub(super) frames: f64,
    pub(super) bytes: f64,
}

impl Traffic {
    pub(super) fn since(self, before: Self) -> Self {
        Self { frames: self.frames - before.frames, bytes: self.bytes - before.bytes }
    }
}

/// An op's way through the network.
struct Spread {
    written: u64,
    holders: usize,
    everywhere: Option<u64>,
}

/// The simulated network.
pub(super) struct Network {
    options: Options,
    random: Random,
    now: u64,
    agenda: Agenda<Event>,
    peers: Vec<Peer>,
    /// Delay of each connection that there may be.
    overlay: BTreeMap<(usize, usize), u64>,
    sessions: u64,
    writers: Vec<Writer>,
    writing_until: u64,
    /// Every op, by stream and order.
    log: BTreeMap<StreamId, Vec<(StoredOp, Spread)>>,
    /// Pairs of op and peer that are still to come.
    missing: usize,
    events: u64,
    delivered: u64,
    frames_sent: u64,
    bytes_sent: u64,
    failure: Option<String>,
}

impl Network {
    pub(super) fn new(options: Options) -> Self {
        let mut random = Random::new(options.seed);
        let overlay = overlay(options.peers, options.degree, &mut random);
        let peers = (0..options.peers).map(|index| peer(index, &mut random)).collect();
        let writers = (0..options.writers.min(options.peers))
            .map(|writer| Writer::new(writer * options.peers / options.writers.min(options.peers), &mut random))
            .collect();
        Self {
            options,
            random,
            now: START,
            agenda: Agenda::default(),
            peers,
            overlay,
            sessions: 0,
            writers,
            writing_until: 0,
            log: BTreeMap::new(),
            missing: 0,
            events: 0,
            delivered: 0,
            frames_sent: 0,
            bytes_sent: 0,
            failure: None,
        }
    }

    // ---- what is measured ----

    pub(super) const fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now - START)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) const fn traffic(&self) -> Traffic {
        Traffic { frames: self.frames_sent as f64, bytes: self.bytes_sent as f64 }
    }

    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) fn ops(&self) -> f64 {
        self.log.values().map(Vec::len).sum::<usize>() as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) fn op_bytes(&self) -> f64 {
        self.log.values().flatten().map(|(op, _)| op.bytes.len()).sum::<usize>() as f64
    }

    /// Returns how many milliseconds ops took to be everywhere: half of them at most the first, all the second.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) fn everywhere_ms(&self) -> (f64, f64) {
        let spreads = self.log.values().flatten().map(|(_, spread)| spread);
        let mut times: Vec<u64> = spreads.filter_map(|spread| Some(spread.everywhere? - spread.written)).collect();
        times.sort_unstable();
        let ms = |micros: Option<&u64>| micros.map_or(0.0, |micros| *micros as f64 / 1_000.0);
        (ms(times.get(times.len() / 2)), ms(times.last()))
    }

    /// Checks that all have the same and that nothing has outgrown its bound.
    pub(super) fn check(&self) -> Result<(), String> {
        let digests = |peer: &Peer| -> Vec<_> {
            peer.engine.digests().map(|(shard, digest)| (shard.clone(), digest.to_bytes())).collect()
        };
        let first = self.peers.first().map(digests);
        for (index, peer) in self.peers.iter().enumerate() {
            if Some(digests(peer)) != first {
                return Err(format!("peer {index} differs from peer 0"));
            }
            bounds_hold(index, &peer.engine)?;
        }
        Ok(())
    }

    // ---- what happens ----

    /// Connects all that the overlay connects and that are not connected.
    pub(super) fn connect_all(&mut self) {
        let pairs: Vec<(usize, usize)> = self.overlay.keys().copied().collect();
        for (a, b) in pairs {
            if !self.peers[a].links.contains_key(&b) {
                self.sessions += 1;
                let delay = self.random.within(0, CONNECT_WITHIN);
                self.at(delay, Event::Up { a, b, session: self.sessions });
            }
        }
    }

    /// Cuts every connection between the two halves.
    pub(super) fn split(&mut self) {
        // Peers of both halves lie everywhere in the overlay, as they do where a link between two sites fails.
        let pairs: Vec<(usize, usize)> = self.overlay.keys().copied().filter(|(a, b)| a % 2 != b % 2).collect();
        for (a, b) in pairs {
            for (node, peer) in [(a, b), (b, a)] {
                if self.peers[node].links.remove(&peer).is_some() {
                    self.step(node, Input::PeerDown { peer: key_of(peer) });
                }
            }
        }
    }

    /// Ends the split.
    pub(super) fn mend(&mut self) {
        self.connect_all();
    }

    /// Lets the writers write for a while.
    pub(super) fn write_for(&mut self, time: Duration) -> Result<(), String> {
        let micros = u64::try_from(time.as_micros()).expect("a short time");
        self.writing_until = self.now + micros;
        let pause = self.pause();
        for writer in 0..self.writers.len() {
            let delay = self.random.within(0, pause);
            self.at(delay, Event::Write { writer });
        }
        self.run_for(time)
    }

    /// Returns the time between two ops of one writer.
    fn pause(&self) -> u64 {
        1_000_000 * self.writers.len() as u64 / self.options.rate.max(1)
    }

    pub(super) fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + u64::try_from(time.as_micros()).expect("a short time");
        while self.agenda.next_at().is_some_and(|at| at <= end) {
            self.next()?;
        }
        self.now = end;
        Ok(())
    }

    /// Runs until every op is durable everywhere.
    pub(super) fn run_until_agreed(&mut self, time_max: Duration) -> Result<(), String> {
        let end = self.now + u64::try_from(time_max.as_micros()).expect("a short time");
        while self.missing > 0 {
            if self.now > end {
                return Err(format!("{} ops are still missing somewhere after {time_max:?}", self.missing));
            }
            self.next()?;
        }
        Ok(())
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.agenda.put(self.now + delay, event);
    }

    fn next(&mut self) -> Result<(), String> {
        let Some((at, event)) = self.agenda.take() else { return Err("nothing happens".to_owned()) };
        self.now = at;
        self.events += 1;
        match event {
            Event::Frame { from, to, session, lane, bytes } => {
                if self.peers[to].links.get(&from) == Some(&session) {
                    self.delivered += 1;
                    self.step(to, Input::Frame { peer: key_of(from), lane, bytes });
                }
            }
            Event::Commit { node, from, ops } => self.commit(node, from, &ops),
            Event::Tick { node, at } => {
                if self.peers[node].tick_at == at {
                    self.peers[node].tick_at = u64::MAX;
                    self.step(node, Input::Tick);
                }
            }
            Event::Up { a, b, session } => {
                self.peers[a].links.insert(b, session);
                self.peers[b].links.insert(a, session);
                self.step(a, Input::PeerUp { peer: key_of(b) });
                self.step(b, Input::PeerUp { peer: key_of(a) });
            }
            Event::Write { writer } => self.write(writer),
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn write(&mut self, writer: usize) {
        let pause = self.pause();
        if self.now + pause < self.writing_until {
            self.at(pause, Event::Write { writer });
        }
        let op = self.writers[writer].write(self.now / 1_000, &mut self.random);
        let stored = StoredOp { id: op.id(), signed: true, bytes: op.encode().into() };
        let spread = Spread { written: self.now, holders: 0, everywhere: None };
        self.log.entry(op.stream()).or_default().push((stored, spread));
        self.missing += self.peers.len();
        let node = self.writers[writer].node;
        self.begin_commit(node, None, vec![Arc::new(op)]);
    }

    fn begin_commit(&mut self, node: usize, from: Option<AuthorKey>, ops: Vec<Arc<Op>>) {
        let done = self.peers[node].disk_free.max(self.now) + self.random.within(COMMIT.0, COMMIT.1);
        self.peers[node].disk_free = done;
        self.at(done - self.now, Event::Commit { node, from, ops });
    }

    fn commit(&mut self, node: usize, from: Option<AuthorKey>, ops: &[Arc<Op>]) {
        let count = self.peers.len();
        let peer = &mut self.peers[node];
        let mut committed = Vec::new();
        for op in ops {
            let held = peer.stored.entry(op.stream()).or_default();
            if op.header().seq != *held + 1 {
                self.failure = Some(format!("peer {node} was given op {} after {held}", op.header().seq));
                return;
            }
            *held += 1;
            peer.arrivals += 1;
            committed.push(Committed { op: op.clone(), arrival: peer.arrivals });
            self.missing -= 1;
            let place = usize::try_from(op.header().seq - 1).expect("few");
            if let Some((_, spread)) = self.log.get_mut(&op.stream()).and_then(|log| log.get_mut(place)) {
                spread.holders += 1;
                if spread.holders == count {
                    spread.everywhere = Some(self.now);
                }
            }
        }
        let mut effects = Vec::new();
        peer.engine.committed(Timestamp::from_micros(self.now), &committed, from, &Members, &mut effects);
        self.carry_out(node, effects);
    }

    fn step(&mut self, node: usize, input: Input) {
        let mut effects = Vec::new();
        self.peers[node].engine.step(Timestamp::from_micros(self.now), input, &Members, &mut effects);
        if self.events.is_multiple_of(FIGURES_EVERY)
            && let Err(broken) = bounds_hold(node, &self.peers[node].engine)
        {
            self.failure = Some(broken);
        }
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { peer, lane, bytes } => self.send(node, index_of(&peer), lane, bytes),
                Effect::Ingest { from, ops, .. } => self.begin_commit(node, Some(from), ops),
                Effect::ReadOps { ticket, stream, from_seq, ops_max, bytes_max, .. } => {
                    let ops = self.read(node, stream, from_seq, ops_max, bytes_max);
                    self.step(node, Input::OpsRead { ticket, ops });
                }
                // Documents are left out here; without any, a shard that is taken in bulk goes on to its ops.
                Effect::ReadDocuments { ticket, .. } => {
                    self.step(node, Input::DocumentsRead { ticket, documents: Vec::new(), next: None, total: 0 });
                }
                Effect::TakeDocuments { shard, request, .. } => {
                    self.step(node, Input::DocumentsTaken { shard, request, outcome: Taken::Stored });
                }
                Effect::BulkMoved { .. } | Effect::BulkEnded { .. } => {}
                other => self.failure = Some(format!("peer {node} asks for what no honest network needs: {other:?}")),
            }
        }
        let wakeup = self.peers[node].engine.next_wakeup().micros().max(self.now + 1);
        if wakeup < self.peers[node].tick_at {
            self.peers[node].tick_at = wakeup;
            self.at(wakeup - self.now, Event::Tick { node, at: wakeup });
        }
    }

    fn read(&self, node: usize, stream: StreamId, from_seq: u64, ops_max: usize, bytes_max: usize) -> Vec<StoredOp> {
        let held = self.peers[node].stored.get(&stream).copied().unwrap_or(0);
        let index = |seq: u64| usize::try_from(seq).expect("few");
        let log = self.log.get(&stream).and_then(|log| log.get(index(from_seq - 1)..index(held))).unwrap_or_default();
        let mut bytes = 0;
        let fits = log.iter().take(ops_max).take_while(|(op, _)| {
            bytes += op.bytes.len();
            bytes <= bytes_max
        });
        fits.map(|(op, _)| op.clone()).collect()
    }

    fn send(&mut self, from: usize, to: usize, lane: Lane, bytes: Bytes) {
        let Some(session) = self.peers[from].links.get(&to).copied() else { return };
        self.frames_sent += 1;
        self.bytes_sent += bytes.len() as u64;
        // One delay for each connection, so that nothing overtakes.
        let delay = self.overlay.get(&(from.min(to), from.max(to))).copied().unwrap_or(DELAY.1);
        self.at(delay, Event::Frame { from, to, session, lane, bytes });
    }
}

fn bounds_hold(node: usize, engine: &Engine) -> Result<(), String> {
    match engine.figures().iter().find(|figure| !figure.is_within()) {
        None => Ok(()),
        Some(figure) => Err(format!("peer {node} keeps more than it may: {figure:?}")),
    }
}

fn peer(index: usize, random: &mut Random) -> Peer {
    let config = Config {
        me: key_of(index),
        cluster: CLUSTER,
        epoch: StoreEpoch::new(random.bits().to_le_bytes()),
        subscription: Subscription::All,
        bulk_gap_ops: folkmoot_core::replication::limits::BULK_GAP_OPS,
        seed: random.bits(),
        now: Timestamp::from_micros(START),
        held_bytes: 0,
    };
    Peer {
        engine: Engine::new(config, [], [], &Members),
        stored: BTreeMap::new(),
        arrivals: 0,
        disk_free: 0,
        tick_at: u64::MAX,
        links: BTreeMap::new(),
    }
}

/// Draws who is connected with whom, and how far apart: a ring, which keeps all together, and random connections.
fn overlay(peers: usize, degree: usize, random: &mut Random) -> BTreeMap<(usize, usize), u64> {
    let mut pairs: BTreeSet<(usize, usize)> = BTreeSet::new();
    let possible = peers * peers.saturating_sub(1) / 2;
    let wanted = (peers * degree / 2).min(possible);
    for a in 0..peers {
        // Within each half too, which are the odd and the even.
        for b in [(a + 1) % peers, (a + 2) % peers] {
            if a != b && pairs.len() < wanted {
                pairs.insert((a.min(b), a.max(b)));
            }
        }
    }
    while pairs.len() < wanted {
        let (a, b) = (random.index(peers), random.index(peers));
        if a != b {
            pairs.insert((a.min(b), a.max(b)));
        }
    }
    pairs.into_iter().map(|pair| (pair, random.within(DELAY.0, DELAY.1))).collect()
}
