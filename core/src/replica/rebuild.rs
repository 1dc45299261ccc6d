//! A store made again of the ops that can be read of a damaged one. Everything else (heads, views, snapshots, indexes, digests)
//! follows from them, as it does on any replica that gets them for the first time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::import::{Imported, RUN_OPS_MAX};
use super::open::{OpenError, ReplicaConfig};
use super::records::HeadRecord;
use super::types::{Effect, Input};
use super::{Identity, Now, Replica};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, OpId, ShardId, StreamId};
use crate::op::Op;
use crate::store::keys::OpKey;
use crate::store::salvage::Salvage;
use crate::store::watermark::Mark;
use crate::store::{Batch, Durability, Store, StoreError};

/// Places of a stream that are read together: what is kept in memory of each stream.
const PLACES_READ: u64 = 32;
/// Ops after which there is a commit.
const OPS_PER_COMMIT: usize = 512;
/// Transactions applied in one slice.
const WORK_SLICE: usize = 1_024;
/// Gaps that are told one by one.
const GAPS_TOLD_MAX: usize = 1_000;

/// Which ops are taken from the old store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// All.
    All,
    /// The control log, and what was signed here: what no peer need have.
    Own,
}

/// Where ops are that are wanted and were not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: StreamId,
    /// Its shard, if an op of the stream was found.
    pub shard: Option<ShardId>,
    /// Its author, if an op of the stream was found.
    pub author: Option<AuthorKey>,
    /// First sequence number.
    pub from: u64,
    /// Last sequence number.
    pub to: u64,
}

/// What a store was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Streams.
    pub streams: u64,
    /// Ops that are part of their streams again.
    pub ops: u64,
    /// Ops that are kept until those before them come from a peer.
    pub loose: u64,
    /// Entries that are no ops any more.
    pub damaged: u64,
    /// Ops of branches of forked streams, which are not taken: peers that know the fork prove it again.
    pub branches: u64,
    /// What is missing, the first thousand gaps.
    pub gaps: Vec<Gap>,
    /// How many ops are missing at least: the ends of others' streams may be missing without a trace.
    pub missing: u64,
    /// What could not be read, for people.
    pub problems: Vec<String>,
    /// Members that the control log knows.
    pub members: usize,
}

impl Rebuilt {
    fn missing(&mut self, gap: Gap) {
        self.missing = self.missing.saturating_add((gap.to - gap.from).saturating_add(1));
        if self.gaps.len() < GAPS_TOLD_MAX {
            self.gaps.push(gap);
        }
    }
}

/// Why a store cannot be made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The new store cannot be opened.
    #[error("begin the new store")]
    Open(#[from] OpenError),
    /// It cannot be written.
    #[error("write the new store")]
    Store(#[from] StoreError),
    /// The control log's beginning cannot be read: nobody's ops could be judged.
    #[error(
        "the control log cannot be read from the old store; `folkmoot rejoin` takes it from peers, with a ticket of one"
    )]
    NoControl,
    /// The replica stopped.
    #[error("apply the ops: {0}")]
    Halted(String),
}

/// What a store is made again of.
pub struct Rebuilding<'a> {
    /// What is left of the old one; none if nothing is wanted of it.
    pub old: Option<&'a mut Salvage>,
    /// Which of its ops are taken.
    pub selection: Selection,
    /// A copy of the control log from elsewhere.
    pub control: Vec<Op>,
    /// How far the own streams had reached.
    pub marks: Vec<(StreamId, Mark)>,
    /// Whose replica it is.
    pub identity: Identity,
    /// Keys that the node had before.
    pub earlier_keys: Vec<AuthorKey>,
    /// 32 fresh random bytes.
    pub seed: [u8; 32],
    /// The time.
    pub now: Now,
}

/// A stream that is being read.
struct Cursor {
    stream: StreamId,
    /// The place to read on from; none if all has been read.
    next: Option<u64>,
    read: VecDeque<Arc<Op>>,
    /// The place that comes next, if nothing is missing.
    expected: u64,
    /// How far the stream went, as far as that is known.
    reach: u64,
    shard: Option<ShardId>,
    author: Option<AuthorKey>,
}

/// Puts ops that can be read into a store, which may hold some already, and makes everything else of them. The store is
/// synced when this returns. Needs a thread with [`crate::document::gate::STACK_BYTES`] of stack.
///
/// # Errors
/// [`RebuildError`]; then the store is of no use.
pub fn rebuild(
    from: Rebuilding<'_>,
    store: &Arc<dyn Store>,
    mut progress: impl FnMut(&Rebuilt),
) -> Result<Rebuilt, RebuildError> {
    let Rebuilding { mut old, selection, control, marks, identity, earlier_keys, seed, now } = from;
    let present = [Some(&identity.node), identity.owner.as_ref()].into_iter().flatten().map(|key| key.author());
    let own: BTreeSet<AuthorKey> = present.chain(earlier_keys).collect();
    let cluster = identity.cluster;
    let mut report = Rebuilt::default();
    let replica = Replica::open(ReplicaConfig::default(), identity, store.clone(), &seed, now)?;
    let mut work = Work { replica, store: store.clone(), now, uncommitted: 0 };

    // The control log first: what is said there is what everything else is judged by.
    let mut data = Vec::new();
    let mut acts: BTreeMap<(Hlc, OpId), Arc<Op>> =
        control.into_iter().map(|op| ((op.header().hlc, op.id()), Arc::new(op))).collect();
    if let Some(old) = old.as_deref_mut() {
        for stream in old.streams() {
            let marked = marks.iter().find(|(marked, _)| *marked == stream).map_or(0, |(_, mark)| mark.seq);
            let mut cursor = Cursor::new(stream, marked.max(recorded(old, stream)));
            cursor.read_on(old, cluster, &mut report);
            let is_control = cursor.read.front().is_some_and(|op| op.header().shard.is_control());
            let is_own = cursor.author.is_some_and(|author| own.contains(&author));
            if is_control {
                while let Some(op) = cursor.next_op(old, cluster, &mut report) {
                    acts.insert((op.header().hlc, op.id()), op);
                }
                report.streams += 1;
            } else if selection == Selection::All || is_own {
                data.push(cursor);
            }
        }
        report.problems.extend(old.problems().iter().cloned());
    }
    let has_genesis = acts.values().any(|op| op.id() == cluster.genesis());
    if !has_genesis && work.replica.authority().members(Hlc::new(now.wall_ms, 0)).is_empty() {
        return Err(RebuildError::NoControl);
    }
    let mut runs: BTreeMap<StreamId, Vec<Arc<Op>>> = BTreeMap::new();
    for op in acts.into_values() {
        let run = runs.entry(op.stream()).or_default();
        run.push(op);
        if run.last().is_some_and(|op| op.signature().is_some()) {
            let run = std::mem::take(run);
            work.import(&run, &mut report)?;
        }
    }
    for run in runs.into_values().filter(|run| !run.is_empty()) {
        work.import(&run, &mut report)?;
    }
    work.settle()?;

    // The others by their time: an op is younger than what it builds on.
    let mut cursors: BTreeMap<StreamId, Cursor> = BTreeMap::new();
    let mut due = BinaryHeap::new();
    for cursor in data {
        report.streams += 1;
        if let Some(op) = cursor.read.front() {
            due.push(Reverse((op.header().hlc, cursor.stream)));
        }
        cursors.insert(cursor.stream, cursor);
    }
    if let Some(old) = old {
        while let Some(Reverse((_, stream))) = due.pop() {
            let Some(cursor) = cursors.get_mut(&stream) else { continue };
            let is_whole = |op: &Op| work.replica.is_whole(op);
            let run = cursor.next_run(old, cluster, &is_whole, &mut report);
            if let Some(op) = cursor.read.front() {
                due.push(Reverse((op.header().hlc, stream)));
            }
            work.import(&run, &mut report)?;
            progress(&report);
        }
    }
    work.settle()?;
    work.store.commit(&Batch::new(), Durability::Synced)?;
    let ends: BTreeMap<StreamId, u64> = marks
        .iter()
        .map(|(stream, mark)| (*stream, mark.seq))
        .chain(cursors.iter().map(|(stream, c)| (*stream, c.reach)))
        .fold(BTreeMap::new(), |mut ends, (stream, seq)| {
            ends.entry(stream).and_modify(|end: &mut u64| *end = seq.max(*end)).or_insert(seq);
            ends
        });
    for (stream, to) in ends {
        let cursor = cursors.get(&stream);
        let reached = work.replica.own_head(&stream).map_or(0, |(seq, _)| seq);
        let from = cursor.map_or(1, |cursor| cursor.expected).max(reached.saturating_add(1));
        if from <= to {
            let (shard, author) = cursor.map_or((None, None), |cursor| (cursor.shard.clone(), cursor.author));
            report.missing(Gap { stream, shard, author, from, to });
        }
    }
    report.loose = work.replica.loose_ops();
    report.members = work.replica.authority().members(Hlc::new(now.wall_ms, 0)).len();
    progress(&report);
    Ok(report)
}

impl Cursor {
    const fn new(stream: StreamId, reach: u64) -> Self {
        Self { stream, next: Some(1), read: VecDeque::new(), expected: 1, reach, shard: None, author: None }
    }

    /// Reads until there is an op, or no more.
    fn read_on(&mut self, old: &mut Salvage, cluster: crate::id::ClusterId, report: &mut Rebuilt) {
        while self.read.is_empty()
            && let Some(from) = self.next
        {
            let (entries, next) = old.read(self.stream, from, PLACES_READ, self.reach);
            self.next = next;
            let mut seen = BTreeSet::new();
            for (key, value) in entries {
                match decode(&key, &value, cluster) {
                    None => report.damaged += 1,
                    Some(_) if key.branch.is_some() => report.branches += 1,
                    Some(op) if seen.insert(op.id()) => {
                        self.shard.get_or_insert_with(|| op.header().shard.clone());
                        self.author.get_or_insert(op.header().author);
                        self.read.push_back(Arc::new(op));
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn next_op(&mut self, old: &mut Salvage, cluster: crate::id::ClusterId, report: &mut Rebuilt) -> Option<Arc<Op>> {
        self.read_on(old, cluster, report);
        let op = self.read.pop_front()?;
        let seq = op.header().seq;
        if seq > self.expected {
            report.missing(Gap {
                stream: self.stream,
                shard: self.shard.clone(),
                author: self.author,
                from: self.expected,
                to: seq - 1,
            });
        }
        self.expected = self.expected.max(seq.saturating_add(1));
        self.read_on(old, cluster, report);
        Some(op)
    }

    /// Returns the next ops that follow each other, up to one that is signed.
    /// A body that is lost, with its document's key, is taken from a peer with its op.
    fn next_run(
        &mut self,
        old: &mut Salvage,
        cluster: crate::id::ClusterId,
        is_whole: &dyn Fn(&Op) -> bool,
        report: &mut Rebuilt,
    ) -> Vec<Arc<Op>> {
        let mut run: Vec<Arc<Op>> = Vec::new();
        while let Some(op) = self.next_op(old, cluster, report) {
            if !is_whole(&op) {
                report.damaged += 1;
                break;
            }
            let follows = self.read.front().is_some_and(|next| next.header().prev == op.id());
            let is_end = op.signature().is_some() || !follows || run.len() + 1 >= RUN_OPS_MAX;
            run.push(op);
            if is_end {
                break;
            }
        }
        run
    }
}

fn decode(key: &OpKey, value: &[u8], cluster: crate::id::ClusterId) -> Option<Op> {
    let op = Op::decode(&bytes::Bytes::copy_from_slice(value), cluster).ok()?;
    (op.stream() == key.stream && op.header().seq == key.seq && key.branch.is_none_or(|id| id == op.id())).then_some(op)
}

/// The replica that takes the ops, with its store.
struct Work {
    replica: Replica,
    store: Arc<dyn Store>,
    now: Now,
    uncommitted: usize,
}

impl Work {
    fn import(&mut self, run: &[Arc<Op>], report: &mut Rebuilt) -> Result<(), RebuildError> {
        match self.replica.import(self.now, run) {
            Imported::Taken => report.ops += run.len() as u64,
            Imported::Known | Imported::Loose => {}
        }
        self.uncommitted += run.len();
        if self.uncommitted >= OPS_PER_COMMIT { self.settle() } else { Ok(()) }
    }

    /// Commits and applies everything that was taken.
    fn settle(&mut self) -> Result<(), RebuildError> {
        self.uncommitted = 0;
        loop {
            let mut effects = Vec::new();
            self.replica.flush(self.now, &mut effects);
            let more = self.replica.work(self.now, WORK_SLICE, &mut effects);
            self.replica.flush(self.now, &mut effects);
            let mut is_idle = !more;
            for effect in effects {
                if let Effect::Commit { id, batch, .. } = effect {
                    is_idle = false;
                    // Synced once at the end: until then the old store is the one that counts.
                    self.store.commit(&batch, Durability::Buffered)?;
                    self.replica.step(self.now, Input::Committed(id), &mut Vec::new());
                }
            }
            if let Some(reason) = self.replica.halted() {
                return Err(RebuildError::Halted(reason.to_owned()));
            }
            if is_idle {
                return Ok(());
            }
        }
    }
}

/// Returns where a stream ended when its head was last written to a table.
fn recorded(old: &Salvage, stream: StreamId) -> u64 {
    let head = old.head(stream).and_then(|value| HeadRecord::decode(&value).ok());
    head.map_or(0, |head| head.seq)
}
