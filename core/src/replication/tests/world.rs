//! A small world of engines: virtual time, seeded faults, trivial stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_bytes::ByteBuf;

use super::super::frame::{Frame, Pull};
use super::super::random::Random;
use super::super::*;
use crate::hash::{Domain, hash};
use crate::hlc::Hlc;
use crate::id::{
    AuthorKey, ChangeHash, ClusterId, CollectionName, DocId, OpId, PrincipalId, Salt, SessionId, ShardId, StoreEpoch,
    StreamId,
};
use crate::keys::SecretKey;
use crate::op::{Body, ChangeRef, Header, Op, Payload, SessionEnd, Transaction, WriteAction, codec};

pub(super) const CLUSTER: ClusterId = ClusterId::new([7; 32]);
/// Where the worlds' time begins.
pub(super) const START: u64 = 1_700_000_000_000_000;

pub(super) fn shard() -> ShardId {
    ShardId { collection: "c".parse().unwrap(), index: 0, of: 1 }
}

pub(super) fn node_key(node: usize) -> Peer {
    SecretKey::from_seed(&[u8::try_from(node).unwrap() + 1; 32]).author()
}

/// Whether an op is signed: mid-run ops need not be, and signing is slow in tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealed {
    Signed,
    Bare,
}

/// An author session that appends to one stream.
#[derive(Clone)]
pub(super) struct Author {
    key: SecretKey,
    session: SessionId,
    shard: ShardId,
    pub(super) certificate: OpId,
    pub(super) tip: Tip,
    /// What the first op names.
    pub(super) earlier: Vec<SessionEnd>,
    /// Time of the next op, in milliseconds.
    pub(super) millis: u64,
}

impl Author {
    pub(super) fn new(number: u8) -> Self {
        Self::in_shard(number, shard())
    }

    pub(super) fn in_shard(number: u8, shard: ShardId) -> Self {
        Self {
            key: SecretKey::from_seed(&[number ^ 0x80; 32]),
            session: SessionId::new([number; 8]),
            shard,
            certificate: OpId::new([number; 32]),
            tip: Tip::START,
            earlier: Vec::new(),
            millis: START / 1_000,
        }
    }

    /// Where the session ends as it is now.
    pub(super) fn end(&self) -> SessionEnd {
        SessionEnd { session: self.session, seq: self.tip.seq, head: self.tip.id }
    }

    /// The same author in its next session, which names these ends.
    pub(super) fn restarted(&self, number: u16, earlier: Vec<SessionEnd>) -> Self {
        let mut session = [0xee; SessionId::LEN];
        session[..2].copy_from_slice(&number.to_be_bytes());
        Self { session: SessionId::new(session), tip: Tip::START, earlier, ..self.clone() }
    }

    pub(super) fn stream(&self) -> StreamId {
        self.header(Vec::new()).stream_key().id()
    }

    fn header(&self, changes: Vec<ChangeRef>) -> Header {
        Header {
            version: crate::limits::OP_VERSION,
            cluster: CLUSTER,
            shard: self.shard.clone(),
            author: self.key.author(),
            certificate: self.certificate,
            session: self.session,
            seq: self.tip.seq + 1,
            prev: self.tip.id,
            earlier: if self.tip.seq == 0 { self.earlier.clone() } else { Vec::new() },
            hlc: Hlc::new(self.millis, 0),
            control_heads: vec![CLUSTER.genesis()],
            payload: Payload::Data(vec![Transaction { principal: PrincipalId::ZERO, request: None, changes }]),
        }
    }

    pub(super) fn write(&mut self, text: &str) -> Arc<Op> {
        self.append(text, Sealed::Signed)
    }

    pub(super) fn append(&mut self, text: &str, sealed: Sealed) -> Arc<Op> {
        let body = Body { salt: Salt::new([3; 16]), bytes: Bytes::copy_from_slice(text.as_bytes()) };
        let doc: DocId = (0..)
            .map(|i| format!("d{i}").parse().unwrap())
            .find(|doc| ShardId::of_document(&self.shard.collection, doc, self.shard.of) == self.shard)
            .unwrap();
        let header = self.header(vec![ChangeRef {
            doc,
            action: WriteAction::Create,
            commitment: body.commitment(),
            body_bytes: body.bytes.len() as u32,
            fields: None,
        }]);
        let op = match sealed {
            Sealed::Signed => Op::sign(header, vec![body], &self.key).unwrap(),
            Sealed::Bare => {
                let header = ByteBuf::from(codec::encode(&header));
                let wire = codec::encode(&(header, None::<ByteBuf>, vec![Some(body)]));
                Op::decode(&wire, CLUSTER).unwrap()
            }
        };
        self.tip = Tip { seq: self.tip.seq + 1, id: op.id() };
        Arc::new(op)
    }
}

/// The change that an op of this world carries.
pub(super) fn change_of(op: &Op) -> ChangeHash {
    ChangeHash::new(hash(Domain::Commitment, &[&op.bodies()[0].as_ref().unwrap().bytes]))
}

/// What the verdict engine of a node would say.
#[derive(Clone, Default)]
pub(super) struct Verdicts {
    pub(super) unknown: BTreeSet<OpId>,
    pub(super) mismatched: BTreeSet<OpId>,
    pub(super) pins: BTreeMap<StreamId, Tip>,
    /// Pins of streams of which it is only known with their first op that they are closed.
    pub(super) late_pins: BTreeMap<StreamId, Tip>,
    pub(super) strangers: BTreeSet<Peer>,
    /// The wall clock, where it has moved since the start.
    pub(super) wall_ms: u64,
}

impl Policy for Verdicts {
    fn certificate(&self, certificate: &OpId, _author: &AuthorKey) -> CertificateState {
        if self.unknown.contains(certificate) {
            CertificateState::Unknown
        } else if self.mismatched.contains(certificate) {
            CertificateState::Mismatch
        } else {
            CertificateState::Known
        }
    }

    fn closed_at(&self, stream: &StreamId) -> Option<Tip> {
        self.pins.get(stream).copied()
    }

    fn accepts_time(&self, hlc: Hlc) -> bool {
        let ahead = crate::limits::CLOCK_AHEAD_MAX.as_millis() as u64;
        hlc.millis() <= self.wall_ms.max(START / 1_000) + ahead
    }

    fn is_member(&self, peer: &Peer) -> bool {
        !self.strangers.contains(peer)
    }

    fn may_sync(&self, _peer: &Peer, _collection: &CollectionName) -> bool {
        true
    }
}

/// The ops of one stream.
#[derive(Clone, Default)]
pub(super) struct Log {
    pub(super) main: Vec<Arc<Op>>,
    pub(super) branches: Vec<Vec<Arc<Op>>>,
    pub(super) fork: Option<u64>,
    arrival: u64,
}

impl Log {
    /// Returns the main chain and every branch, each whole.
    fn chains(&self) -> Vec<Vec<Arc<Op>>> {
        let prefix = |branch: &Vec<Arc<Op>>| {
            let first = branch[0].header().seq as usize;
            self.main[..first - 1].iter().chain(branch).cloned().collect()
        };
        std::iter::once(self.main.clone()).chain(self.branches.iter().map(prefix)).collect()
    }
}

/// A node: engine, store, verdicts.
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) logs: BTreeMap<(ShardId, StreamId), Log>,
    pub(super) verdicts: Verdicts,
    pub(super) misbehaved: Vec<(Peer, Misbehaviour)>,
    pub(super) disconnected: Vec<(Peer, DisconnectReason)>,
    pub(super) forks: Vec<(StreamId, u64)>,
    /// What it hands over in bulk, and took.
    pub(super) documents: BTreeMap<DocId, BulkDocument>,
    pub(super) bulk_ended: Vec<(Vec<Peer>, ShardId)>,
    /// The ids that it was asked for and gave, in order.
    pub(super) given: Vec<DocId>,
    /// What its disk says of shards that it takes in bulk.
    pub(super) bulks: BTreeMap<ShardId, BulkProgress>,
    /// Bare ops that it was to complete, and whether it lacks their changes.
    pub(super) completed: usize,
    pub(super) is_lacking: bool,
    arrivals: u64,
    /// Whether cursors are lost at the next start.
    forgetful: bool,
    wakeup: u64,
    /// Ranges asked for and not answered: stream, of whom, when.
    open: BTreeMap<u32, (StreamId, usize, u64)>,
    /// Every range that was asked for.
    pub(super) pulled: Vec<Pull>,
    /// Ops that came, by who sent them.
    pub(super) received: BTreeMap<usize, Vec<OpId>>,
}

impl Node {
    /// Returns how much of something the engine keeps.
    pub(super) fn held(&self, name: &str) -> usize {
        self.engine.figures().iter().find(|figure| figure.name == name).unwrap().held
    }

    pub(super) fn log(&self, stream: StreamId) -> Log {
        self.logs.get(&(shard(), stream)).cloned().unwrap_or_default()
    }

    pub(super) fn ops(&self) -> BTreeSet<OpId> {
        self.logs.values().flat_map(|log| &log.main).map(|op| op.id()).collect()
    }
}

/// Chances out of 1,000 and times of what goes wrong.
#[derive(Clone, Copy)]
pub(super) struct Faults {
    pub(super) lose: u64,
    pub(super) duplicate: u64,
    /// Whether frames of one lane may overtake each other.
    pub(super) reorder: u64,
    pub(super) delay_micros: u64,
}

pub(super) const CALM: Faults = Faults { lose: 0, duplicate: 0, reorder: 0, delay_micros: 2_000 };

#[derive(Clone)]
enum Event {
    Deliver { from: usize, to: usize, link: u64, lane: Lane, bytes: Bytes },
    Commit { node: usize, from: Peer, ops: Vec<Arc<Op>> },
    Give { node: usize, input: Input },
    Tick { node: usize },
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) now: u64,
    pub(super) bulk_gap_ops: u64,
    pub(super) faults: Faults,
    random: Random,
    events: BTreeMap<(u64, u64), Event>,
    order: u64,
    /// Number of the present connection of each pair, 0 for none.
    links: BTreeMap<(usize, usize), u64>,
    next_link: u64,
    lane_times: BTreeMap<(usize, usize, Lane), u64>,
    /// Pairs (from, to) whose frames vanish while the connection seems to stand.
    pub(super) silent: BTreeSet<(usize, usize)>,
    pub(super) frames: u64,
    /// Frames to peers that are no nodes, but hands of a test, with their senders.
    pub(super) outside: Vec<(usize, Bytes)>,
}

impl World {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            now: START,
            bulk_gap_ops: limits::BULK_GAP_OPS,
            faults: CALM,
            random: Random::new(seed),
            events: BTreeMap::new(),
            order: 0,
            links: BTreeMap::new(),
            next_link: 0,
            lane_times: BTreeMap::new(),
            silent: BTreeSet::new(),
            frames: 0,
            outside: Vec::new(),
        };
        for node in 0..nodes {
            world.add_node(node, seed, Subscription::All);
        }
        world
    }

    pub(super) fn add_node(&mut self, node: usize, seed: u64, subscription: Subscription) {
        let verdicts = Verdicts::default();
        let engine = Engine::new(self.config(node, seed, subscription), [], [], &verdicts);
        self.nodes.push(Node {
            engine,
            logs: BTreeMap::new(),
            verdicts,
            misbehaved: Vec::new(),
            disconnected: Vec::new(),
            forks: Vec::new(),
            documents: BTreeMap::new(),
            bulk_ended: Vec::new(),
            given: Vec::new(),
            bulks: BTreeMap::new(),
            completed: 0,
            is_lacking: false,
            arrivals: 0,
            forgetful: false,
            wakeup: u64::MAX,
            open: BTreeMap::new(),
            pulled: Vec::new(),
            received: BTreeMap::new(),
        });
    }

    /// Loses what a node knows of its peers' arrivals: all that is left to compare are digests and ranges.
    pub(super) fn restart_without_cursors(&mut self, node: usize) {
        self.nodes[node].forgetful = true;
        self.restart(node);
    }

    /// Takes a node's store back to an old state: `kept` ops of each stream are left, and arrivals are given out again.
    pub(super) fn restore(&mut self, node: usize, kept: usize) {
        let entry = &mut self.nodes[node];
        entry.arrivals = 0;
        for log in entry.logs.values_mut() {
            log.main.truncate(kept);
            entry.arrivals += 1;
            log.arrival = entry.arrivals;
        }
        self.restart(node);
    }

    fn config(&self, node: usize, seed: u64, subscription: Subscription) -> Config {
        Config {
            me: node_key(node),
            cluster: CLUSTER,
            epoch: StoreEpoch::new([u8::try_from(node).unwrap() + 1; 8]),
            subscription,
            bulk_gap_ops: self.bulk_gap_ops,
            seed: seed.wrapping_add(node as u64),
            now: Timestamp::from_micros(self.now),
            held_bytes: 0,
        }
    }

    /// Stops a node and starts it again from what its store holds, under the same or a new epoch.
    pub(super) fn restart(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            self.unlink(node, other);
        }
        let mut cursors: Vec<_> = self.nodes[node].engine.cursors().collect();
        if std::mem::take(&mut self.nodes[node].forgetful) {
            cursors.clear();
        }
        let config = self.config(node, 99, Subscription::All);
        let entry = &mut self.nodes[node];
        let heads = entry.logs.iter().filter(|(_, log)| !log.main.is_empty()).map(|((shard, stream), log)| {
            let last = log.main.last().unwrap();
            StoredHead {
                shard: shard.clone(),
                stream: *stream,
                tip: Tip { seq: last.header().seq, id: last.id() },
                hlc: last.header().hlc,
                arrival: log.arrival,
                fork: log.fork,
                earlier: earlier_ends(&log.main[0]),
            }
        });
        entry.engine = Engine::new(config, heads, cursors, &entry.verdicts);
        for (shard, progress) in &entry.bulks {
            entry.engine.resume_bulk(shard.clone(), progress.clone());
        }
        entry.open.clear();
        self.events.retain(|_, event| !matches!(event, Event::Commit { node: of, .. } if *of == node));
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        self.unlink(a, b);
        self.next_link += 1;
        self.links.insert((a.min(b), a.max(b)), self.next_link);
        self.lane_times.retain(|(x, y, _), _| (*x, *y) != (a, b) && (*x, *y) != (b, a));
        self.give(a, Input::PeerUp { peer: node_key(b) });
        self.give(b, Input::PeerUp { peer: node_key(a) });
    }

    pub(super) fn unlink(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))).is_some() {
            self.nodes[a].open.retain(|_, (_, of, _)| *of != b);
            self.nodes[b].open.retain(|_, (_, of, _)| *of != a);
            self.give(a, Input::PeerDown { peer: node_key(b) });
            self.give(b, Input::PeerDown { peer: node_key(a) });
        }
    }

    pub(super) fn link_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                self.link(a, b);
            }
        }
    }

    pub(super) fn give(&mut self, node: usize, input: Input) {
        let mut effects = Vec::new();
        let entry = &mut self.nodes[node];
        entry.verdicts.wall_ms = self.now / 1_000;
        entry.engine.step(Timestamp::from_micros(self.now), input, &entry.verdicts, &mut effects);
        self.act(node, effects);
    }

    /// Commits local writes.
    pub(super) fn write(&mut self, node: usize, ops: &[Arc<Op>]) {
        self.commit(node, ops, None);
    }

    pub(super) fn commit(&mut self, node: usize, ops: &[Arc<Op>], from: Option<Peer>) {
        let entry = &mut self.nodes[node];
        let mut committed = Vec::new();
        for op in ops {
            let log = entry.logs.entry((op.header().shard.clone(), op.stream())).or_default();
            assert_eq!(op.header().seq, log.main.len() as u64 + 1, "ops are handed over without gaps or repeats");
            assert_eq!(op.header().prev, log.main.last().map_or(OpId::ZERO, |last| last.id()));
            entry.arrivals += 1;
            log.arrival = entry.arrivals;
            log.main.push(op.clone());
            committed.push(Committed { op: op.clone(), arrival: entry.arrivals });
        }
        let mut effects = Vec::new();
        let now = Timestamp::from_micros(self.now);
        entry.engine.committed(now, &committed, from, &entry.verdicts, &mut effects);
        self.act(node, effects);
    }

    /// Puts ops into a store as they would be loaded at a start; call before anything is linked.
    pub(super) fn seed_store(&mut self, node: usize, ops: &[Arc<Op>]) {
        self.commit(node, ops, None);
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    fn act(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.one(node, effect);
        }
        self.check_bounds(node);
        let wakeup = self.nodes[node].engine.next_wakeup().micros().max(self.now + 1);
        if self.nodes[node].wakeup <= self.now || wakeup < self.nodes[node].wakeup {
            self.nodes[node].wakeup = wakeup;
            self.schedule(wakeup, Event::Tick { node });
        }
    }

    fn check_bounds(&self, node: usize) {
        for figure in self.nodes[node].engine.figures() {
            assert!(figure.is_within(), "{figure:?}");
        }
    }

    fn one(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { peer, lane, bytes } => self.send(node, &peer, lane, bytes),
            Effect::Ingest { from, ops, .. } => {
                assert!(!ops.is_empty());
                let (shard, stream) = (ops[0].header().shard.clone(), ops[0].stream());
                if let Some(pin) = self.nodes[node].verdicts.late_pins.remove(&stream) {
                    self.nodes[node].verdicts.pins.insert(stream, pin);
                    self.give(node, Input::Refused { shard: shard.clone(), stream });
                    self.give(node, Input::PolicyChanged { streams: vec![(shard, stream)] });
                    return;
                }
                let at = self.now + self.random.below(3_000);
                // A store commits in the order in which it was asked.
                let last = self.events.iter().filter_map(|((at, _), event)| match event {
                    Event::Commit { node: of, .. } if *of == node => Some(*at),
                    _ => None,
                });
                let at = last.max().unwrap_or(0).max(at);
                self.schedule(at, Event::Commit { node, from, ops });
            }
            Effect::ReadDocuments { ticket, after, part, since, .. } => {
                let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
                let entry = &mut self.nodes[node];
                let documents: Vec<BulkDocument> = entry
                    .documents
                    .range((from, std::ops::Bound::Unbounded))
                    .filter(|(id, document)| part.holds(id) && since.is_none_or(|since| document.modified > since))
                    .take(3)
                    .map(|(_, document)| document.clone())
                    .collect();
                let next = documents.get(2).map(|document| document.doc.clone());
                entry.given.extend(documents.iter().map(|document| document.doc.clone()));
                let total = entry.documents.len() as u64;
                self.later(node, Input::DocumentsRead { ticket, documents, next, total });
            }
            Effect::TakeDocuments { request, shard, documents, .. } => {
                let bad = documents.iter().any(|document| document.changes[0].is_empty());
                let entry = &mut self.nodes[node];
                if !bad {
                    entry.documents.extend(documents.into_iter().map(|d| (d.doc.clone(), d)));
                    entry.bulks.insert(shard.clone(), entry.engine.bulk_progress(&shard).unwrap());
                }
                let outcome = if bad { Taken::Refused } else { Taken::Stored };
                self.later(node, Input::DocumentsTaken { shard, request, outcome });
            }
            Effect::BulkMoved { shard } => {
                let entry = &mut self.nodes[node];
                entry.bulks.insert(shard.clone(), entry.engine.bulk_progress(&shard).unwrap());
            }
            Effect::CompleteOps { ticket, ops } => {
                let entry = &mut self.nodes[node];
                entry.completed += ops.len();
                let ops = if entry.is_lacking { Vec::new() } else { ops };
                self.later(node, Input::OpsCompleted { ticket, ops });
            }
            Effect::BulkEnded { equal, shard, .. } => {
                let entry = &mut self.nodes[node];
                entry.bulks.remove(&shard);
                entry.bulk_ended.push((equal.into_iter().collect(), shard));
            }
            Effect::ReadOps { ticket, shard, stream, from_seq, ops_max, bytes_max, .. } => {
                let main = self.nodes[node].logs.get(&(shard, stream)).map_or(&[][..], |log| &log.main);
                let ops = read(main, from_seq, ops_max, bytes_max);
                self.later(node, Input::OpsRead { ticket, ops });
            }
            Effect::ReadIds { ticket, shard, stream, seqs } => {
                let log = self.nodes[node].logs.get(&(shard, stream));
                let id = |seq: &u64| log?.main.get(usize::try_from(*seq).ok()?.checked_sub(1)?).map(|op| op.id());
                let ids = seqs.iter().map(id).collect();
                self.later(node, Input::IdsRead { ticket, ids });
            }
            Effect::ReadBranches { ticket, shard, stream, from_seq, through, ops_max, bytes_max } => {
                let chains = self.nodes[node].logs.get(&(shard, stream)).map_or(Vec::new(), Log::chains);
                let leads = |chain: &Vec<Arc<Op>>| {
                    through.is_none_or(|t| chain.get(t.seq as usize - 1).is_some_and(|op| op.id() == t.id))
                };
                let mut branches: Vec<_> = chains
                    .iter()
                    .filter(|chain| leads(chain))
                    .map(|chain| {
                        let end = through.map_or(chain.len(), |through| through.seq as usize);
                        read(&chain[..end], from_seq, ops_max, bytes_max)
                    })
                    .filter(|branch| !branch.is_empty())
                    .collect();
                branches.truncate(if through.is_some() { 1 } else { limits::BRANCHES_MAX });
                self.later(node, Input::BranchesRead { ticket, branches });
            }
            Effect::LocateChanges { ticket, changes, .. } => {
                let found = self.nodes[node]
                    .logs
                    .values()
                    .flat_map(|log| &log.main)
                    .filter(|op| changes.contains(&change_of(op)))
                    .map(|op| (change_of(op), op.stream(), op.header().seq))
                    .collect();
                self.later(node, Input::ChangesLocated { ticket, found });
            }
            Effect::ReadEarlier { ticket, shard, stream, ends_max } => {
                let mut ends: Vec<(StreamId, u64)> = Vec::new();
                let mut next = 0;
                let mut at = Some(stream);
                while let Some(stream) = at.filter(|_| ends.len() < ends_max) {
                    let log = self.nodes[node].logs.get(&(shard.clone(), stream));
                    let first = log.and_then(|log| log.main.first());
                    ends.extend(first.into_iter().flat_map(|first| earlier_ends(first)).map(|(s, tip)| (s, tip.seq)));
                    at = ends.get(next).map(|(stream, _)| *stream);
                    next += 1;
                }
                self.later(node, Input::EarlierRead { ticket, ends });
            }
            Effect::ForkFound { shard, stream, seq, ops, .. } => self.fork_found(node, &shard, stream, seq, ops),
            Effect::Misbehaved { peer, what } => self.nodes[node].misbehaved.push((peer, what)),
            Effect::Disconnect { peer, reason } => {
                self.nodes[node].disconnected.push((peer, reason));
                if let Some(other) = (0..self.nodes.len()).find(|other| node_key(*other) == peer) {
                    self.unlink(node, other);
                }
            }
        }
    }

    fn fork_found(&mut self, node: usize, shard: &ShardId, stream: StreamId, seq: u64, ops: Vec<Arc<Op>>) {
        let entry = &mut self.nodes[node];
        let log = entry.logs.get_mut(&(shard.clone(), stream)).unwrap();
        let first = ops.first().unwrap();
        assert!(first.header().seq >= seq);
        assert!(ops.last().unwrap().signature().is_some() || !entry.verdicts.pins.is_empty());
        let goes_on = log.branches.iter().any(|branch| branch.last().unwrap().id() == first.header().prev);
        // A piece that was asked for twice comes twice.
        let is_known = log.branches.iter().flatten().any(|op| op.id() == first.id());
        if first.header().seq == seq && !goes_on && !is_known {
            assert_eq!(
                first.header().prev,
                (seq as usize).checked_sub(2).map_or(OpId::ZERO, |before| log.main[before].id())
            );
            assert_ne!(log.main[seq as usize - 1].id(), first.id(), "a fork is two ops at one place");
        }
        if let Some(branch) = log.branches.iter_mut().find(|b| b.last().unwrap().id() == first.header().prev) {
            branch.extend(ops);
        } else if !is_known {
            log.branches.push(ops);
        }
        let smallest = log.fork.map_or(seq, |known| known.min(seq));
        log.fork = Some(smallest);
        entry.arrivals += 1;
        log.arrival = entry.arrivals;
        entry.forks.push((stream, seq));
        let arrival = log.arrival;
        self.later(node, Input::ForkStored { shard: shard.clone(), stream, seq: smallest, arrival });
    }

    fn later(&mut self, node: usize, input: Input) {
        let at = self.now + self.random.below(500);
        self.schedule(at, Event::Give { node, input });
    }

    fn send(&mut self, from: usize, peer: &Peer, lane: Lane, bytes: Bytes) {
        assert!(bytes.len() <= limits::FRAME_BYTES_MAX);
        self.frames += 1;
        let Some(to) = (0..self.nodes.len()).find(|to| node_key(*to) == *peer) else {
            self.outside.push((from, bytes));
            return;
        };
        self.watch_pull(from, to, &bytes);
        let Some(link) = self.links.get(&(from.min(to), from.max(to))).copied() else { return };
        let faults = self.faults;
        if self.silent.contains(&(from, to)) || self.random.below(1_000) < faults.lose {
            return;
        }
        let mut at = self.now + 100 + self.random.below(faults.delay_micros);
        let last = self.lane_times.entry((from, to, lane)).or_default();
        if self.random.below(1_000) >= faults.reorder {
            at = at.max(*last);
            *last = at;
        }
        let event = Event::Deliver { from, to, link, lane, bytes };
        if lane == Lane::Live && self.random.below(1_000) < faults.duplicate {
            self.schedule(at + 1_000, event.clone());
        }
        self.schedule(at, event);
    }

    fn count_ops(&mut self, from: usize, to: usize, bytes: &Bytes) {
        let ops = match Frame::decode(bytes) {
            Ok(Some(Frame::Push(run))) => run.ops,
            Ok(Some(Frame::Range(answer))) => answer.ops,
            _ => return,
        };
        let ids = ops.iter().map(|op| Op::decode(op, CLUSTER).unwrap().id());
        self.nodes[to].received.entry(from).or_default().extend(ids);
    }

    /// Sees to it that no range is fetched twice at once.
    fn watch_pull(&mut self, node: usize, of: usize, bytes: &Bytes) {
        let Ok(Some(Frame::Pull(pull) | Frame::BarePull(pull))) = Frame::decode(bytes) else { return };
        let now = self.now;
        let old = |since: u64| since + limits::PULL_PATIENCE.as_micros() as u64 <= now;
        let entry = &mut self.nodes[node];
        let clash = entry.open.values().any(|(stream, _, since)| *stream == pull.stream && !old(*since));
        assert!(!clash, "one range of a stream at a time");
        entry.open.insert(pull.request, (pull.stream, of, now));
        entry.pulled.push(pull);
    }

    /// Handles everything up to a time from now.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span.as_micros() as u64;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Handles events until something holds; returns after how long, or `None` if it did not within `span`.
    pub(super) fn run_while(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        let end = begin + span.as_micros() as u64;
        self.run_until(end, done).then(|| Duration::from_micros(self.now - begin))
    }

    fn run_until(&mut self, end: u64, done: impl Fn(&Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) else { return false };
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            match event {
                Event::Deliver { from, to, link, lane, bytes } => {
                    if self.links.get(&(from.min(to), from.max(to))) == Some(&link) {
                        if let Ok(Some(Frame::Range(answer) | Frame::BareRange(answer))) = Frame::decode(&bytes) {
                            self.nodes[to].open.remove(&answer.request);
                        }
                        if let Ok(Some(Frame::Busy(request))) = Frame::decode(&bytes) {
                            self.nodes[to].open.remove(&request);
                        }
                        self.count_ops(from, to, &bytes);
                        self.give(to, Input::Frame { peer: node_key(from), lane, bytes });
                    }
                }
                Event::Commit { node, from, ops } => self.commit(node, &ops, Some(from)),
                Event::Give { node, input } => self.give(node, input),
                Event::Tick { node } => {
                    if self.nodes[node].wakeup <= self.now {
                        self.give(node, Input::Tick);
                    }
                }
            }
        }
    }

    pub(super) fn is_converged(&self) -> bool {
        let digests = |node: &Node| -> BTreeMap<ShardId, ShardDigest> {
            node.engine.digests().filter(|(_, d)| !d.is_empty()).map(|(id, d)| (id.clone(), d)).collect()
        };
        let first = digests(&self.nodes[0]);
        self.nodes.iter().all(|node| digests(node) == first)
    }

    /// Requires that all nodes become equal, and that equal digests mean equal ops.
    pub(super) fn converge(&mut self, span: Duration) -> Duration {
        let took = self.run_while(span, Self::is_converged);
        let took = took.unwrap_or_else(|| {
            let heads: Vec<Vec<_>> = self.nodes.iter().map(|node| node.engine.heads(&shard()).collect()).collect();
            panic!("not converged: {heads:?}");
        });
        let first = self.nodes[0].ops();
        assert!(self.nodes.iter().all(|node| node.ops() == first || node.logs.values().any(|log| log.fork.is_some())));
        took
    }
}

fn read(chain: &[Arc<Op>], from_seq: u64, ops_max: usize, bytes_max: usize) -> Vec<StoredOp> {
    let mut bytes = 0;
    chain
        .iter()
        .skip(from_seq as usize - 1)
        .take(ops_max)
        .map(|op| StoredOp { bytes: op.encode().into(), id: op.id(), signed: op.signature().is_some() })
        .take_while(|op| {
            let is_first = bytes == 0;
            bytes += op.bytes.len();
            is_first || bytes <= bytes_max
        })
        .collect()
}

impl World {
    /// Requires equal digests where ops may lawfully differ: beyond pins.
    pub(super) fn converge_digests(&mut self, span: Duration) {
        assert!(self.run_while(span, Self::is_converged).is_some(), "not converged");
    }
}
