//! Bulk: a shard of which nothing is here, or far less than there is, is taken by its documents first, so that they can be
//! read at once.
//!
//! Documents are claims until their ops are here: nothing else rests on them. When the pages are through, the shard is
//! compared and pulled as ever, but bare: an op says which changes it brings and the salts of their commitments, the changes
//! are here already. What does not match a commitment is pulled whole.
//!
//! All peers that have the shard are asked at once, each for other [`Part`]s of it. A part whose page does not come is asked of
//! the next peer, from where the last one ended.
//!
//! Invariant: of one part at most one page is under way, so no document is asked for twice at once.

mod bare;
mod pages;
mod part;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use part::Part;

use super::api::{Effect, Peer, Timestamp};
use super::engine::{Cx, Engine};
use super::heads::Place;
use super::limits as bounds;
use crate::hlc::Hlc;
use crate::id::{DocId, ShardId};

/// A shard that is taken in bulk.
#[derive(Debug)]
pub(super) struct Bulk {
    stage: BulkStage,
    /// What is still to be taken.
    parts: Vec<PartState>,
    /// Only documents that changed after this.
    since: Option<Hlc>,
    /// Who may be asked: connected, and seen to have more than we.
    candidates: BTreeSet<Peer>,
    /// How often each failed since it last gave something.
    failures: BTreeMap<Peer, u8>,
    /// Who gave documents.
    givers: BTreeSet<Peer>,
    /// Whose heads were listed and are here, since the ops are taken.
    synced: BTreeSet<Peer>,
    /// Who was seen to have no more than we after that.
    equal: BTreeSet<Peer>,
    /// When the first of them was.
    equal_since: Option<Timestamp>,
    /// When the last page came, or the first could have.
    progress_at: Timestamp,
    pages: u64,
    documents: u64,
    bytes: u64,
    total: u64,
    /// How many documents were here, and when, as this life of the engine began to take them; how long it took if it is over.
    resumed: u64,
    began: Timestamp,
    took: Option<Duration>,
}

/// A part of a shard that is not here yet.
#[derive(Debug)]
struct PartState {
    part: Part,
    /// Up to where its documents are here, or will be with the page that is being stored.
    after: Option<DocId>,
    /// Who gave its last page.
    last: Option<Peer>,
    page: Page,
}

/// The page of a part that is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Page {
    None,
    Asked {
        peer: Peer,
        request: u32,
        at: Timestamp,
    },
    /// It is on its way to the disk; its credit is given back when it is there. `before` is where it began.
    Storing {
        peer: Peer,
        request: u32,
        bytes: usize,
        before: Option<DocId>,
        is_last: bool,
    },
}

impl Page {
    const fn peer(&self) -> Option<Peer> {
        match self {
            Self::None => None,
            Self::Asked { peer, .. } | Self::Storing { peer, .. } => Some(*peer),
        }
    }

    const fn request(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Asked { request, .. } | Self::Storing { request, .. } => *request,
        }
    }
}

/// What of a shard is being taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BulkStage {
    /// Its documents.
    Documents,
    /// All documents are here, or nobody gives them; the ops come now.
    Ops,
}

/// How far a shard is that is taken in bulk: what has to be kept to go on after a stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BulkProgress {
    /// What is being taken.
    pub stage: BulkStage,
    /// The parts that are still to be taken, each from behind this document.
    pub parts: Vec<(Part, Option<DocId>)>,
    /// Only documents that changed after this.
    pub since: Option<Hlc>,
    /// Who gave documents.
    pub givers: Vec<Peer>,
    /// Documents taken.
    pub documents: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Documents that the shard has, as the givers say: at least so many.
    pub total: u64,
}

/// A shard that is taken in bulk, for those who watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BulkStatus {
    /// The shard.
    pub shard: ShardId,
    /// How far it is.
    pub progress: BulkProgress,
    /// Who is being asked now.
    pub asked: Vec<Peer>,
    /// Documents taken since this node started, and how long that took so far.
    pub lately: (u64, Duration),
    /// Ops that are known to be missing.
    pub ops_missing: u64,
}

impl Bulk {
    fn new(now: Timestamp, progress: BulkProgress) -> Self {
        let BulkProgress { stage, parts, since, givers, documents, bytes, total } = progress;
        let open = |(part, after)| PartState { part, after, last: None, page: Page::None };
        Self {
            stage,
            parts: parts.into_iter().map(open).collect(),
            since,
            candidates: BTreeSet::new(),
            failures: BTreeMap::new(),
            givers: givers.into_iter().collect(),
            synced: BTreeSet::new(),
            equal: BTreeSet::new(),
            equal_since: None,
            progress_at: now,
            pages: 0,
            documents,
            bytes,
            total,
            resumed: documents,
            began: now,
            took: None,
        }
    }

    fn progress(&self) -> BulkProgress {
        BulkProgress {
            stage: self.stage,
            parts: self.parts.iter().map(|part| (part.part, part.after.clone())).collect(),
            since: self.since,
            givers: self.givers.iter().copied().collect(),
            documents: self.documents,
            bytes: self.bytes,
            total: self.total.max(self.documents),
        }
    }

    fn under_way(&self, peer: &Peer) -> usize {
        self.parts.iter().filter(|part| part.page.peer() == Some(*peer)).count()
    }
}

impl BulkProgress {
    /// Nothing is here yet.
    fn begin(since: Option<Hlc>) -> Self {
        Self {
            stage: BulkStage::Documents,
            parts: vec![(Part::WHOLE, None)],
            since,
            givers: Vec::new(),
            documents: 0,
            bytes: 0,
            total: 0,
        }
    }

    /// Returns whether the numbers are in bounds, as those are that this program writes.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.parts.len() <= usize::from(bounds::BULK_PARTS_MAX) && self.parts.iter().all(|(part, _)| part.is_valid())
    }
}

impl Engine {
    /// Begins to take a shard in bulk if nothing of it is here; returns whether its documents are still being taken, so that
    /// its ops have to wait. `peer` has something of it.
    pub(super) fn bulk_first(&mut self, cx: &Cx<'_>, peer: Peer, shard: &ShardId) -> bool {
        let is_empty = self.heads.shard(shard).is_none_or(|held| held.digest.is_empty());
        if !self.bulks.contains_key(shard) {
            if shard.is_control() || !is_empty || self.bulks.len() >= bounds::BULKS_MAX {
                return false;
            }
            self.bulks.insert(shard.clone(), Bulk::new(cx.now, BulkProgress::begin(None)));
        }
        let Some(bulk) = self.bulks.get_mut(shard).filter(|bulk| bulk.stage == BulkStage::Documents) else {
            return false;
        };
        if bulk.failures.get(&peer).is_none_or(|failures| *failures < bounds::BULK_FAILURES_MAX) {
            bulk.candidates.insert(peer);
        }
        true
    }

    /// Begins to take the documents of a shard in bulk that changed since this replica was last up to date, if the ops that
    /// are missing are many.
    pub(super) fn bulk_gap(&mut self, cx: &Cx<'_>, peer: Peer, shard: &ShardId) {
        if shard.is_control() || self.bulks.contains_key(shard) || self.bulks.len() >= bounds::BULKS_MAX {
            return;
        }
        if self.ops_missing(shard) < self.config.bulk_gap_ops {
            return;
        }
        let streams = self.heads.shard(shard).into_iter().flat_map(|held| held.streams.values());
        let latest = streams.map(|stream| stream.durable.hlc).max().unwrap_or(Hlc::ZERO);
        // What was written elsewhere by a clock that is behind ours, and what came late, is not older than this as a rule;
        // what is, comes with its op.
        let margin = u64::try_from(bounds::BULK_SINCE_MARGIN.as_millis()).unwrap_or(u64::MAX);
        let since = Hlc::new(latest.millis().saturating_sub(margin), 0);
        let mut bulk = Bulk::new(cx.now, BulkProgress::begin(Some(since)));
        bulk.candidates.insert(peer);
        self.bulks.insert(shard.clone(), bulk);
        let wanted: Vec<_> = self.wants.keys().filter(|at| at.shard() == shard).cloned().collect();
        for at in wanted {
            self.drop_want(&at);
        }
        let place = Place::new(shard);
        for state in self.peers.values_mut() {
            state.syncs.remove(&place);
            state.sync_queue.remove(&place);
        }
    }

    /// Returns how many ops of a shard peers are known to have that are not here.
    fn ops_missing(&self, shard: &ShardId) -> u64 {
        let wants = self.wants.iter().filter(|(at, _)| at.shard() == shard);
        wants
            .map(|(at, want)| {
                let have = self.heads.get(at).map_or(0, |stream| stream.ingested.tip.seq);
                want.sources.values().max().map_or(0, |to| to.saturating_sub(have))
            })
            .sum()
    }

    /// Returns whether the changes of a shard's ops are probably here already.
    pub(super) fn pulls_bare(&self, shard: &ShardId) -> bool {
        self.bulks.get(shard).is_some_and(|bulk| bulk.stage == BulkStage::Ops && bulk.documents > 0)
    }

    /// Returns whether documents of the shard are still being taken.
    pub(super) fn takes_documents(&self, shard: &ShardId) -> bool {
        self.bulks.get(shard).is_some_and(|bulk| bulk.stage == BulkStage::Documents)
    }

    /// Returns whether what is here of a shard is only a beginning: no good for others who begin.
    pub(super) fn is_beginner(&self, shard: &ShardId) -> bool {
        self.bulks.get(shard).is_some_and(|bulk| bulk.since.is_none())
    }

    /// All documents are here that will come: now the ops.
    fn documents_done(&mut self, cx: &mut Cx<'_>, shard: &ShardId) {
        if let Some(bulk) = self.bulks.get_mut(shard) {
            bulk.stage = BulkStage::Ops;
            bulk.parts.clear();
            bulk.took = Some(Duration::from_micros(cx.now.micros().saturating_sub(bulk.began.micros())));
        }
        cx.effects.push(Effect::BulkMoved { shard: shard.clone() });
        for peer in self.introduced() {
            if self.shares(cx, &peer, &shard.collection)
                && let Some(state) = self.peers.get_mut(&peer)
            {
                state.sync_queue.insert(Place::new(shard));
                self.advance_syncs(cx, peer);
            }
        }
    }

    /// A peer's digests are ours.
    pub(super) fn bulks_equal(&mut self, cx: &mut Cx<'_>, peer: Peer) {
        let shards: Vec<ShardId> =
            self.bulks.keys().filter(|shard| self.shares(cx, &peer, &shard.collection)).cloned().collect();
        for shard in shards {
            let is_storing = |bulk: &Bulk| bulk.parts.iter().any(|part| matches!(part.page, Page::Storing { .. }));
            if self.bulks.get(&shard).is_some_and(is_storing) {
                // Nothing is judged before it is on the disk; digests come again.
                continue;
            }
            if self.takes_documents(&shard) {
                self.documents_done(cx, &shard);
            }
            self.bulk_equal(cx, peer, &shard);
        }
    }

    /// A peer's digest of a shard is ours: nothing is left to be taken from it, not even of sessions that later ones name.
    pub(super) fn bulk_equal(&mut self, cx: &mut Cx<'_>, peer: Peer, shard: &ShardId) {
        let Some(bulk) = self.bulks.get_mut(shard).filter(|bulk| bulk.stage == BulkStage::Ops) else { return };
        // A digest may be older than the documents that it overtook, or was overtaken by. Not so if all heads are here that were
        // asked for since: then it would differ.
        if bulk.synced.contains(&peer) {
            bulk.equal.insert(peer);
        }
        self.end_bulk(cx, shard);
    }

    /// The heads that a peer had when the documents were here are durable.
    pub(super) fn bulk_synced(&mut self, cx: &mut Cx<'_>, peer: Peer, shard: &ShardId) {
        let Some(bulk) = self.bulks.get_mut(shard).filter(|bulk| bulk.stage == BulkStage::Ops) else { return };
        bulk.synced.insert(peer);
        self.end_bulk(cx, shard);
    }

    /// Ends a shard if what all had who gave documents is here. Whoever is gone, or goes on to differ, is not waited for.
    fn end_bulk(&mut self, cx: &mut Cx<'_>, shard: &ShardId) {
        let peers = &self.peers;
        let Some(bulk) = self.bulks.get_mut(shard) else { return };
        let since = *bulk.equal_since.get_or_insert(cx.now);
        let is_equal = !bulk.equal.is_empty()
            && bulk.givers.iter().all(|giver| bulk.equal.contains(giver) || !peers.contains_key(giver));
        if !is_equal && since.after(bounds::BULK_END_PATIENCE) > cx.now {
            return;
        }
        self.whole.retain(|at| at.shard() != shard);
        if let Some(bulk) = self.bulks.remove(shard) {
            let progress = bulk.progress();
            cx.effects.push(Effect::BulkEnded { shard: shard.clone(), progress, equal: bulk.equal });
        }
    }

    /// Returns how far the shards are that are taken in bulk.
    #[must_use]
    pub fn bulks(&self) -> Vec<BulkStatus> {
        let status = |(shard, bulk): (&ShardId, &Bulk)| BulkStatus {
            shard: shard.clone(),
            progress: bulk.progress(),
            asked: bulk.parts.iter().filter_map(|part| part.page.peer()).collect::<BTreeSet<_>>().into_iter().collect(),
            lately: (bulk.documents - bulk.resumed, bulk.took.unwrap_or_else(|| self.now.since(bulk.began))),
            ops_missing: self.ops_missing(shard),
        };
        self.bulks.iter().map(status).collect()
    }

    /// Returns what has to be kept of a shard that is taken in bulk.
    #[must_use]
    pub fn bulk_progress(&self, shard: &ShardId) -> Option<BulkProgress> {
        self.bulks.get(shard).map(Bulk::progress)
    }

    /// Goes on with a shard that was being taken when the node stopped; call before anything else. Returns whether it does: not
    /// if there are more of them than are taken at once, nor with numbers out of bounds.
    pub fn resume_bulk(&mut self, shard: ShardId, progress: BulkProgress) -> bool {
        let goes_on = self.bulks.len() < bounds::BULKS_MAX && progress.is_valid();
        if goes_on {
            self.bulks.insert(shard, Bulk::new(self.now, progress));
        }
        goes_on
    }
}
