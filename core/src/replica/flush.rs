//! What gathers between two batches, and how it becomes one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::branch::Swap;
use super::load::Published;
use super::mutant::{Mutant, planted};
use super::records::{HeadRecord, ShardRecord, TxRef, ViewRecord};
use super::types::{ActError, Admitted, BatchId, Effect, RequestTicket, WriteError, WriteOutcome};
use super::write::OpenOp;
use super::{Now, Placed, Replica, commit_effect};
use crate::hash::{Domain, hash};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, OpId, ShardId, StreamId};
use crate::op::{Header, Op, Payload};
use crate::replication::{Input as NetInput, ShardDigest};
use crate::store::keys::{ArrivalKey, DocKey, Key as _, OpKey, SegmentKey, TailKey};
use crate::store::{Batch, Keyspace, Span};

/// Batches on their way at once: one being synced, one gathering behind it. More would only split the groups.
pub(super) const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// A document is folded when so many bytes lie beside what was folded last in two changes or more, or half of that, whichever
/// is more; or when it has become too long to be applied.
const TAIL_BYTES_MIN: usize = 4 << 10;

/// A shard as the replica keeps it.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// Ops that have arrived, durable or not.
    pub(super) arrivals: u64,
    /// The last durable arrival.
    pub(super) durable: u64,
    /// The last arrival that was applied.
    pub(super) applied: u64,
    pub(super) digest: ShardDigest,
    pub(super) documents: u64,
    pub(super) bytes: u64,
    pub(super) dirty: bool,
}

impl Shard {
    pub(super) const fn unapplied(&self) -> u64 {
        self.arrivals.saturating_sub(self.applied)
    }

    /// Counts a document no longer.
    pub(super) fn uncount(&mut self, key: &DocKey, before: &Published) {
        if before.heads.is_empty() {
            return;
        }
        self.digest.remove(&doc_entry(key, before));
        if !before.deleted {
            self.documents = self.documents.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(before.json_bytes);
        }
    }

    pub(super) fn record(&self) -> ShardRecord {
        ShardRecord {
            arrivals: self.arrivals,
            applied: self.applied,
            digest: crate::op::codec::encode(&self.digest),
            documents: self.documents,
            bytes: self.bytes,
        }
    }
}

/// Somebody who waits for a batch.
#[derive(Debug)]
pub(super) enum Waiter {
    Write(RequestTicket, WriteOutcome),
    Act(RequestTicket, Admitted),
}

impl Waiter {
    /// Tells that the batch is durable.
    fn answer(self) -> Effect {
        match self {
            Self::Write(ticket, outcome) => Effect::WriteDone { ticket, result: Ok(outcome) },
            Self::Act(ticket, done) => Effect::ActDone { ticket, result: Ok(done) },
        }
    }
}

/// What gathers until the next batch.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) batch: Batch,
    /// Values of this and earlier batches that are not committed yet, for reads of our own.
    pub(super) overlay: BTreeMap<(Keyspace, Vec<u8>), (BatchId, Option<Bytes>)>,
    /// Ops being filled with local transactions, by stream order.
    pub(super) open: BTreeMap<(ShardId, AuthorKey), Vec<OpenOp>>,
    /// Documents whose view must be written.
    pub(super) dirty: BTreeSet<DocKey>,
    pub(super) ops: Vec<(Placed, Option<AuthorKey>)>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) heads: BTreeSet<StreamId>,
    /// Forks whose branches this batch holds: shard, stream, sequence number, arrival.
    pub(super) forks: Vec<(ShardId, StreamId, u64, u64)>,
    /// Ops of branches in it.
    pub(super) branch_ops: Vec<Arc<Op>>,
    pub(super) swaps: Vec<Swap>,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct InFlight {
    id: BatchId,
    ops: Vec<(Placed, Option<AuthorKey>)>,
    waiters: Vec<Waiter>,
    feed: u64,
    durable: BTreeMap<ShardId, u64>,
    forks: Vec<(ShardId, StreamId, u64, u64)>,
    branch_ops: Vec<Arc<Op>>,
    swaps: Vec<Swap>,
    overlay: Vec<(Keyspace, Vec<u8>)>,
}

impl InFlight {
    pub(super) const fn id(&self) -> BatchId {
        self.id
    }
}

impl Replica {
    /// Stops taking writes for good.
    pub(super) fn halt(&mut self, reason: String) {
        self.halted.get_or_insert(reason);
    }

    /// Whether anything waits for a batch.
    #[must_use]
    pub fn has_staged(&self) -> bool {
        !self.staged.batch.is_empty()
            || !self.staged.open.is_empty()
            || !self.staged.dirty.is_empty()
            || !self.staged.waiters.is_empty()
            || self.bans_changed
            || self.schemas.is_changed()
            || self.uniques.is_changed()
            || self.shards.values().any(|shard| shard.dirty)
    }

    /// Turns what has gathered into one batch, unless enough batches are on their way already: then it goes on gathering, so
    /// that writes which arrive during a commit share the next op, signature and sync.
    pub fn flush(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.tell_damage(effects);
        if let Some(reason) = self.halted.clone() {
            self.fail_waiters(&reason, effects);
            effects.push(Effect::Halt(reason));
            return;
        }
        if self.in_flight.len() >= BATCHES_IN_FLIGHT_MAX || !self.has_staged() {
            return;
        }
        self.now = now;
        self.sign_open_ops();
        self.follow_signed();
        self.stage_owed();
        self.stage_bans();
        let id = self.next_batch;
        for key in std::mem::take(&mut self.staged.dirty) {
            self.write_view(&key, id);
        }
        self.uniques.all_claimed();
        self.stage_checks();
        self.stage_marks();
        self.stage_unique_checks();
        for stream in std::mem::take(&mut self.staged.heads) {
            if let Some(record) = self.heads.get(&stream) {
                let (key, value) = (stream.encode(), record.encode());
                self.put(Keyspace::Heads, key, &value);
            }
        }
        let mut durable = BTreeMap::new();
        let mut records = Vec::new();
        for (shard, state) in &mut self.shards {
            if std::mem::take(&mut state.dirty) {
                records.push((shard.clone(), state.record()));
                durable.insert(shard.clone(), state.arrivals);
            }
        }
        for (shard, record) in records {
            self.put(Keyspace::Meta, shard_record_key(&shard), &record.encode());
        }
        let own_heads = self
            .own
            .values()
            .filter_map(|own| self.heads.get(&own.stream).map(|head| (own.stream, head.seq, head.head)))
            .collect();
        self.next_batch = BatchId(id.0 + 1);
        let batch = std::mem::take(&mut self.staged.batch);
        let overlay = batch
            .writes()
            .filter(|(keyspace, key, _)| Self::is_read_back(*keyspace, key))
            .map(|(keyspace, key, _)| (keyspace, key.to_vec()))
            .collect();
        if planted(Mutant::AcknowledgedBeforeCommit) {
            effects.extend(std::mem::take(&mut self.staged.waiters).into_iter().map(Waiter::answer));
        }
        if planted(Mutant::SentBeforeCommit) {
            let ops = std::mem::take(&mut self.staged.ops);
            self.on_ops_durable(now, ops, effects);
        }
        self.in_flight.push_back(InFlight {
            id,
            ops: std::mem::take(&mut self.staged.ops),
            waiters: std::mem::take(&mut self.staged.waiters),
            feed: self.feed,
            durable,
            forks: std::mem::take(&mut self.staged.forks),
            branch_ops: std::mem::take(&mut self.staged.branch_ops),
            swaps: std::mem::take(&mut self.staged.swaps),
            overlay,
        });
        effects.push(commit_effect(id, batch, own_heads));
    }

    /// Signs what has gathered: from then on every change in a document has its place in an op.
    pub(super) fn sign_open_ops(&mut self) {
        for ((shard, author), ops) in std::mem::take(&mut self.staged.open) {
            for open in ops {
                self.sign_open(&shard, author, open);
            }
        }
    }

    /// Signs an op of our own and stages it.
    fn sign_open(&mut self, shard: &ShardId, author: AuthorKey, open: OpenOp) {
        let first_of = self.own.get(&(shard.clone(), author)).filter(|_| open.seq == 1).map(|own| &own.key);
        let earlier = first_of.map_or_else(Vec::new, |key| self.earlier_sessions(key));
        let Some(own) = self.own.get_mut(&(shard.clone(), author)) else {
            self.halt("an own stream vanished".to_owned());
            return;
        };
        let hlc = self.clock.tick(self.now.wall_ms);
        let control_heads = open.control_heads;
        let header = Header {
            version: crate::limits::OP_VERSION,
            cluster: self.identity.cluster,
            shard: shard.clone(),
            author,
            certificate: own.key.certificate,
            session: own.key.session,
            seq: open.seq,
            prev: own.last,
            earlier,
            hlc,
            control_heads,
            payload: Payload::Data(open.transactions),
        };
        let secret = match &self.identity.owner {
            Some(owner) if owner.author() == author => owner,
            Some(_) | None => &self.identity.node,
        };
        match Op::sign(header, open.bodies, secret) {
            Ok(op) => {
                own.last = op.id();
                let op = Arc::new(op);
                self.counters.ops_signed += 1;
                self.signed.insert(op.id());
                for (place, mut waiter) in open.waiters {
                    if let Waiter::Write(_, outcome) = &mut waiter {
                        outcome.hlc = hlc;
                        outcome.tx = Some(TxRef { stream: op.stream(), seq: open.seq, op: op.id(), tx: place });
                    }
                    self.staged.waiters.push(waiter);
                }
                self.stage_op(op.clone(), None);
                self.note_op(&op);
                self.note_local_transactions(&op, open.changes);
            }
            // Everything that goes into an op is bounded before; this is a bug, and going on would break the stream.
            Err(error) => self.halt(format!("sign an op: {error}")),
        }
    }

    /// Stages an op with its head and arrival, and tells the verdict engine.
    pub(super) fn stage_op(&mut self, op: Arc<Op>, from: Option<AuthorKey>) {
        let op = self.without_erased(op);
        let header = op.header();
        let shard = self.shards.entry(header.shard.clone()).or_default();
        shard.arrivals += 1;
        shard.dirty = true;
        let arrival = shard.arrivals;
        let stream = op.stream();
        self.put(Keyspace::Ops, OpKey::new(stream, header.seq).encode(), &op.encode());
        let arrival_key = ArrivalKey { shard: header.shard.clone(), arrival };
        self.put(Keyspace::Arrivals, arrival_key.encode(), &OpKey::new(stream, header.seq).encode());
        let head = self.heads.entry(stream).or_insert_with(|| HeadRecord {
            key: header.stream_key(),
            seq: 0,
            head: OpId::ZERO,
            arrival: 0,
            hlc: header.hlc,
            noted: 0,
            policies: Vec::new(),
            fork: None,
            seen: None,
            earlier: header.earlier.clone(),
        });
        head.seq = header.seq;
        head.head = op.id();
        head.arrival = arrival;
        head.hlc = header.hlc;
        if header.seq == 1 {
            let head = head.clone();
            self.note_sessions(stream, &head);
        }
        self.staged.heads.insert(stream);
        self.loose.note(op.id());
        self.undurable.insert(op.clone());
        let placed = Placed { op, arrival };
        self.queue.push(placed.clone());
        self.staged.ops.push((placed, from));
    }

    /// Writes the view of a changed document, its place in the feed, and what the shard counts of it.
    fn write_view(&mut self, key: &DocKey, batch: BatchId) {
        if self.is_erased(key) {
            return;
        }
        let of = self.shards_of(&key.collection);
        let shard_id = ShardId::of_document(&key.collection, &key.doc, of);
        let modified = self.modified(key);
        let Some(loaded) = self.cache.get(key) else { return };
        loaded.dirty = false;
        let deleted = !loaded.exists();
        let document = &mut loaded.document;
        let json = if deleted { Bytes::new() } else { document.json() };
        // What was applied again without any effect is no change for those who follow the feed.
        let is_same = |before: &&Published| before.heads == document.heads() && before.deleted == deleted;
        let feed = loaded.published.as_ref().filter(is_same).map_or_else(
            || {
                self.feed += 1;
                self.feed
            },
            |before| before.feed,
        );
        let view = ViewRecord {
            heads: document.heads().to_vec(),
            deleted,
            modified,
            feed,
            changes: (document.change_count() - document.void_changes().len()) as u64,
            voids: document.void_changes().iter().copied().collect(),
            deletes: loaded.deletes.clone(),
            json,
        };
        let now = Published { heads: view.heads.clone(), deleted, json_bytes: view.json.len() as u64, feed };
        let before = loaded.published.replace(now.clone());
        // One change alone is no shorter as a snapshot, however long it is.
        let is_long = loaded.tail.len() > 1 && loaded.tail_bytes >= TAIL_BYTES_MIN.max(loaded.snapshot_bytes / 2);
        let is_due = is_long || loaded.tail.len() >= document.fold_after();
        let folded = if is_due { document.fold(&loaded.tail, loaded.segments > 0).ok() } else { None };
        let turns = document.take_turns();
        let folded = folded.map(|folded| loaded.note_folded(folded));
        self.counters.documents_rolled_over += turns.rolled_over;
        self.counters.histories_loaded += turns.histories_loaded;
        self.cache.mark_busy(key, batch);
        let shard = self.shards.entry(shard_id).or_default();
        shard.dirty = true;
        // A document without an accepted change counts for nothing: a replica that never took its void changes has no such
        // document at all.
        if let Some(before) = &before {
            shard.uncount(key, before);
        }
        if !now.heads.is_empty() {
            shard.digest.add(&doc_entry(key, &now));
        }
        if !deleted {
            shard.documents += 1;
            shard.bytes += now.json_bytes;
        }
        if before.as_ref().is_none_or(|before| before.feed != now.feed) {
            if let Some(before) = before {
                self.delete(Keyspace::Index, feed_key(before.feed));
            }
            self.put(Keyspace::Index, feed_key(now.feed), &key.encode());
        }
        self.put(Keyspace::Views, key.encode(), &view.encode());
        self.flag(key, (!deleted).then_some(&*view.json));
        if self.uniques.is_stale(key) {
            self.claim(key, (!deleted).then_some(&*view.json));
        }
        self.counters.views_written += 1;
        if let Some(folded) = folded {
            for change in folded.tail {
                self.delete(Keyspace::Tail, TailKey { doc: key.clone(), change }.encode());
            }
            self.delete_segments(key, folded.obsolete);
            if let Some((index, part)) = folded.segment {
                self.put(Keyspace::Snapshots, SegmentKey { doc: key.clone(), index }.encode(), &part);
            }
            self.put(Keyspace::Snapshots, key.encode(), &folded.record.encode());
        }
    }

    /// Stages the removal of parts of a document's history.
    pub(super) fn delete_segments(&mut self, key: &DocKey, indexes: Range<u64>) {
        for index in indexes {
            self.delete(Keyspace::Snapshots, SegmentKey { doc: key.clone(), index }.encode());
        }
    }

    /// Returns the latest time of a document's heads and of its deletes that count.
    fn modified(&mut self, key: &DocKey) -> Hlc {
        let Some(loaded) = self.cache.get(key) else { return Hlc::ZERO };
        let heads = loaded.document.heads().to_vec();
        let known = std::mem::take(&mut loaded.times);
        let deletes = loaded.deletes.iter().filter(|delete| delete.counts).map(|delete| delete.hlc).max();
        let mut times = BTreeMap::new();
        for head in heads {
            let time = match known.get(&head) {
                Some(time) => Some(*time),
                None => self.placed_op(&head).map(|(_, op)| op.header().hlc),
            };
            times.extend(time.map(|time| (head, time)));
        }
        let modified = times.values().copied().chain(deletes).max().unwrap_or(Hlc::ZERO);
        if let Some(loaded) = self.cache.get(key) {
            loaded.times = times;
        }
        modified
    }

    /// Stages a change of a document that its history now holds and no snapshot does.
    pub(super) fn stage_change(&mut self, key: &DocKey, change: crate::id::ChangeHash, bytes: &[u8]) {
        if self.is_erased(key) {
            return;
        }
        self.put(Keyspace::Tail, TailKey { doc: key.clone(), change }.encode(), bytes);
        if let Some(loaded) = self.cache.get(key) {
            loaded.tail.push(change);
            loaded.tail_bytes += bytes.len();
        }
    }

    pub(super) fn on_committed(&mut self, now: Now, id: BatchId, effects: &mut Vec<Effect>) {
        while self.in_flight.front().is_some_and(|batch| batch.id <= id) {
            let Some(batch) = self.in_flight.pop_front() else { break };
            self.committed = batch.id;
            for key in batch.overlay {
                // A later batch may have written the key again; its value is still to be read from here.
                if self.staged.overlay.get(&key).is_some_and(|(written, _)| *written <= batch.id) {
                    self.staged.overlay.remove(&key);
                }
            }
            let mut shards = Vec::with_capacity(batch.durable.len());
            for (id, arrivals) in batch.durable {
                let shard = self.shards.entry(id.clone()).or_default();
                shard.durable = shard.durable.max(arrivals);
                shards.push(id);
            }
            // Told before anybody is answered: who has an answer may ask what it is part of.
            effects.push(Effect::Advanced { feed: batch.feed, shards });
            effects.extend(batch.waiters.into_iter().map(Waiter::answer));
            for op in &batch.branch_ops {
                self.undurable.remove_branch(op);
            }
            self.on_swaps_durable(now, batch.swaps, effects);
            self.on_ops_durable(now, batch.ops, effects);
            for (shard, stream, seq, arrival) in batch.forks {
                self.step_engine(now, NetInput::ForkStored { shard, stream, seq, arrival }, effects);
            }
            self.mark_batch(now, batch.feed);
        }
        self.cache.evict(self.committed);
    }

    pub(super) fn on_commit_failed(&mut self, id: BatchId, reason: &str, effects: &mut Vec<Effect>) {
        self.halt(format!("commit batch {}: {reason}", id.0));
        self.fail_waiters(reason, effects);
        effects.push(Effect::Halt(reason.to_owned()));
    }

    fn fail_waiters(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        let open = std::mem::take(&mut self.staged.open).into_values().flatten().flat_map(|open| open.waiters);
        let mut waiters: Vec<Waiter> = open.map(|(_, waiter)| waiter).collect();
        waiters.append(&mut self.staged.waiters);
        for batch in &mut self.in_flight {
            waiters.append(&mut batch.waiters);
        }
        for waiter in waiters {
            effects.push(match waiter {
                Waiter::Write(ticket, _) => {
                    Effect::WriteDone { ticket, result: Err(WriteError::Unknown(reason.to_owned())) }
                }
                Waiter::Act(ticket, _) => Effect::ActDone { ticket, result: Err(ActError::Unknown(reason.to_owned())) },
            });
        }
    }
}

/// First byte of the feed's keys in the keyspace `index` (0 is the index of changes).
pub(super) const INDEX_OF_FEED: u8 = 1;

/// Returns the key of an entry of the feed.
pub(crate) fn feed_key(feed: u64) -> Vec<u8> {
    let mut key = vec![INDEX_OF_FEED];
    key.extend_from_slice(&feed.to_be_bytes());
    key
}

/// Returns the key of a shard's record in the keyspace `meta`.
pub(super) fn shard_record_key(shard: &ShardId) -> Vec<u8> {
    let mut key = SHARD_RECORDS.to_vec();
    shard.write(&mut key);
    key
}

/// What the keys of the shards' records begin with.
pub(super) const SHARD_RECORDS: &[u8] = b"shard/";

/// Returns what a document adds to the digest of its shard.
pub(super) fn doc_entry(key: &DocKey, published: &Published) -> [u8; 32] {
    let heads: Vec<u8> = published.heads.iter().flat_map(|head| *head.as_bytes()).collect();
    hash(
        Domain::DocDigest,
        &[key.collection.as_str().as_bytes(), key.doc.as_str().as_bytes(), &heads, &[u8::from(published.deleted)]],
    )
}

/// Returns the keys of the feed after an entry.
pub(super) fn feed_span(after: u64) -> Span {
    Span::prefix([INDEX_OF_FEED]).after(&feed_key(after))
}

/// Returns the number in a key of the feed.
pub(super) fn feed_of_key(key: &[u8]) -> Option<u64> {
    let (first, number) = key.split_first()?;
    (*first == INDEX_OF_FEED).then_some(u64::from_be_bytes(number.try_into().ok()?))
}
