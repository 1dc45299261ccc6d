//! What follows when verdicts change: transactions are looked at again, documents rebuilt, streams closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::load::Loaded;
use super::outcome::named_changes;
use super::records::{HeadRecord, TxRef, TxState};
use super::types::Effect;
use super::{Now, Replica};
use crate::authority::{Authority, Closed, Position};
use crate::document::Document;
use crate::id::{ChangeHash, DocId, OpId, ShardId, StreamId};
use crate::op::{Op, StreamKey, WriteAction};
use crate::replication::{Input as NetInput, Tip};
use crate::store::keys::{DocKey, Key as _, OpKey, TailKey};
use crate::store::{Keyspace, Order, envelope};

/// Ops judged again in one slice.
const SLICE_OPS_MAX: usize = 256;
/// About how many bytes of ops are looked at in one slice.
const SLICE_BYTES_MAX: usize = 8 << 20;

impl Replica {
    /// Carries out what a change of the control log, or a fork, means for what is here already.
    pub(super) fn apply_policy_changes(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.collect_rejudge();
        self.policy_changed |= self.authority.take_reach_changed();
        self.need_open_pins();
        self.settle_pins(now, effects);
        // What waited for an act or a pinned chain may be judged now.
        if std::mem::take(&mut self.policy_changed) {
            self.branches_due = true;
            self.follow_schemas();
            self.follow_uniques();
            self.follow_expiries();
            self.evidence_is_due();
            self.ready.extend(self.waits.deferred());
            self.spilled.recall_all();
            self.tell_closed(now, effects);
        }
        self.tell_wants(now, effects);
    }

    /// Judges some of the ops again whose verdicts may have changed.
    pub(super) fn rejudge(&mut self, transactions_max: usize) {
        // What was found must be carried out before more of it is looked for, or it would gather without bound.
        if self.owed.len() >= transactions_max.max(SLICE_OPS_MAX) {
            return;
        }
        let next = self.rejudging.iter().find(|(stream, _)| !self.swapping.contains(*stream));
        let Some((stream, from)) = next.map(|(stream, from)| (*stream, *from)) else { return };
        let Some((ops, next)) = self.ops_from(stream, from, SLICE_OPS_MAX) else { return };
        for op in &ops {
            self.rejudge_op(op);
        }
        match next {
            Some(next) => drop(self.rejudging.insert(stream, next)),
            None => drop(self.rejudging.remove(&stream)),
        }
    }

    /// Returns the ops of a stream's main chain from a number on, at least one if there is any and at most about `count` and
    /// [`SLICE_BYTES_MAX`], and the number behind them; none if there is no more. Nothing if the store cannot be read.
    pub(super) fn ops_from(
        &mut self,
        stream: StreamId,
        from: u64,
        count: usize,
    ) -> Option<(Vec<Arc<Op>>, Option<u64>)> {
        let span = OpKey::stream(stream).starting_at(&OpKey::new(stream, from).encode());
        let mut ops: Vec<Arc<Op>> = Vec::new();
        let (mut reached, mut bytes) = (from, 0);
        let store = self.store.clone();
        for (looked_at, entry) in store.scan(Keyspace::Ops, &span, Order::Ascending).enumerate() {
            let (key, value) = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.halt(format!("read the store: {error}"));
                    return None;
                }
            };
            let Ok(OpKey { branch: None, seq, .. }) = OpKey::decode(&key) else { continue };
            if !ops.is_empty() && (looked_at >= count || bytes >= SLICE_BYTES_MAX) {
                return Some((ops, Some(reached)));
            }
            bytes += value.len();
            let Some(op) = envelope::open(value).ok().and_then(|bytes| Op::decode(&bytes, self.identity.cluster).ok())
            else {
                self.halt(format!("a stored op of the stream {stream} is damaged"));
                return None;
            };
            reached = seq + 1;
            ops.push(Arc::new(op));
        }
        ops.extend(self.undurable.from(stream, reached).cloned());
        Some((ops, None))
    }

    fn rejudge_op(&mut self, op: &Arc<Op>) {
        self.note_op(op);
        let at = Position { stream: op.stream(), seq: op.header().seq, op: op.id() };
        for tx in TxRef::all_of(op) {
            let verdict = self.verdict(&at, op.header(), usize::from(tx.tx));
            let as_before = match self.tx_state(&tx) {
                None => verdict.is_allowed(),
                Some(state) => state.agrees_with(&verdict),
            };
            if !as_before {
                self.owe(tx);
            }
        }
    }

    /// Tells the replication engine which streams are closed, where that changed.
    pub(super) fn tell_closed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let closed = closed_streams(&self.authority, &self.heads, &self.named);
        let known = self.heads.iter().map(|(stream, head)| (stream, &head.key)).chain(&self.named);
        let changed: Vec<(ShardId, StreamId)> = known
            .filter(|(stream, _)| closed.get(stream) != self.closed.get(stream))
            .map(|(stream, key)| (key.shard.clone(), *stream))
            .collect();
        self.closed = closed;
        self.step_engine(now, NetInput::PolicyChanged { streams: changed }, effects);
    }

    /// Tells the replication engine which changes documents wait for, and which no longer.
    pub(super) fn tell_wants(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (shard, stream, tip) in std::mem::take(&mut self.asked_pins) {
            self.step_engine(now, NetInput::NeedOp { shard, stream, tip, hint: None }, effects);
        }
        for (shard, change) in std::mem::take(&mut self.settled) {
            self.step_engine(now, NetInput::ChangeSettled { shard, change }, effects);
        }
        for (shard, change) in std::mem::take(&mut self.asked) {
            // It may be durable here already and only wait for its turn.
            if self.wanted.contains_key(&change) || (self.spilled.count() > 0 && self.locate(change).is_none()) {
                self.step_engine(now, NetInput::NeedChange { shard, change, hint: None }, effects);
            }
        }
    }

    /// Takes a transaction out of the documents whose history has it: it lies on a branch that does not count, cannot be
    /// judged any more, or builds on something that was taken out.
    pub(super) fn take_out(&mut self, op: &Arc<Op>, tx: TxRef) {
        let header = op.header();
        let Some(transaction) = header.transactions().get(usize::from(tx.tx)) else { return };
        let key = |doc: &DocId| DocKey { collection: header.collection().clone(), doc: doc.clone() };
        for change in transaction.changes.iter().filter(|change| change.action == WriteAction::Delete) {
            let key = key(&change.doc);
            if self.is_erased(&key) || self.ensure_loaded(&key).is_err() {
                continue;
            }
            let Some(loaded) = self.cache.get(&key) else { continue };
            if loaded.deletes.iter().any(|delete| delete.tx == tx) {
                loaded.deletes.retain(|delete| delete.tx != tx);
                loaded.apply_deletes();
                self.dirty(&key);
            }
        }
        for (index, hash) in named_changes(op, tx) {
            let Some(change) = transaction.changes.get(index) else { continue };
            let key = key(&change.doc);
            if self.is_erased(&key) || self.ensure_loaded(&key).is_err() {
                continue;
            }
            let has = self.cache.get(&key).is_some_and(|loaded| loaded.document.contains(&hash));
            if has && self.place_of(&hash) == Some(tx) {
                self.rebuild_without(&key, &hash, tx);
            }
        }
    }

    /// Builds a document anew without a change and without what builds on it: that waits, as it does on a replica that
    /// never had it.
    fn rebuild_without(&mut self, key: &DocKey, without: &ChangeHash, without_tx: TxRef) {
        let Some(old) = self.cache.get(key) else { return };
        let mut out = BTreeSet::from([*without]);
        let mut kept = Vec::new();
        for (hash, deps, bytes) in old.document.changes_with_deps() {
            if hash == *without || deps.iter().any(|dep| out.contains(dep)) {
                out.insert(hash);
            } else {
                kept.push((hash, bytes));
            }
        }
        let void = old.document.void_changes().clone();
        let (whole, broken): (Vec<_>, Vec<_>) =
            old.deletes.clone().into_iter().partition(|delete| !delete.heads.iter().any(|head| out.contains(head)));
        let document = match Document::load(None, kept.iter().map(|(_, bytes)| &**bytes), void, BTreeSet::new()) {
            Ok(document) => document,
            Err(error) => return self.halt(format!("rebuild document {}/{}: {error}", key.collection, key.doc)),
        };
        let segments = old.segments;
        let mut fresh = Loaded::empty();
        fresh.published = old.published.clone();
        fresh.times = std::mem::take(&mut old.times);
        fresh.document = document;
        fresh.deletes = whole;
        fresh.apply_deletes();
        self.counters.documents_rebuilt += 1;
        self.cache.insert(key.clone(), fresh);
        self.dirty(key);
        self.delete(Keyspace::Snapshots, key.encode());
        self.delete_segments(key, 0..segments);
        for hash in &out {
            self.delete(Keyspace::Tail, TailKey { doc: key.clone(), change: *hash }.encode());
            if let Some(tx) = self.place_of(hash).filter(|tx| *tx != without_tx) {
                self.owe(tx);
            }
        }
        for delete in broken {
            self.owe(delete.tx);
        }
        // The snapshot may have held what is left.
        for (hash, bytes) in kept {
            self.stage_change(key, hash, &bytes);
        }
    }
}

/// Returns where streams are closed because their certificate is void.
pub(super) fn closed_streams(
    authority: &Authority,
    heads: &BTreeMap<StreamId, HeadRecord>,
    named: &BTreeMap<StreamId, StreamKey>,
) -> BTreeMap<StreamId, Tip> {
    let known = heads.iter().map(|(stream, head)| (stream, &head.key)).chain(named);
    let tip = |(stream, key): (&StreamId, &StreamKey)| {
        closed_tip(authority, *stream, key.certificate).map(|tip| (*stream, tip))
    };
    known.filter_map(tip).collect()
}

/// Returns where a stream is closed because its certificate is void.
pub(super) fn closed_tip(authority: &Authority, stream: StreamId, certificate: OpId) -> Option<Tip> {
    match authority.closed_at(stream, certificate)? {
        Closed::Whole => Some(Tip::START),
        Closed::After(pin) => Some(Tip { seq: pin.seq, id: pin.head }),
    }
}

impl TxState {
    /// Returns whether what was carried out is what the verdict says.
    fn agrees_with(self, verdict: &crate::authority::Verdict) -> bool {
        use crate::authority::Verdict;
        match verdict {
            Verdict::Allowed => matches!(self, Self::Waiting | Self::BadChange | Self::Duplicate | Self::Held),
            Verdict::Deferred(_) => self == Self::Deferred,
            Verdict::Refused | Verdict::NotAllowed => self == Self::NotAllowed,
            Verdict::AfterRevocation { .. } => matches!(self, Self::AfterRevocation | Self::BadChange | Self::Held),
            Verdict::Forked { .. } => self == Self::Forked,
        }
    }
}
