//! What follows when verdicts change: transactions are looked at again, documents rebuilt, streams closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::load::Loaded;
use super::records::{ChangeRecord, HeadRecord, TxRef, TxState};
use super::types::Effect;
use super::{Now, Replica};
use crate::authority::{Authority, Closed, Position, Rejudge};
use crate::document::{Document, gate};
use crate::id::{ChangeHash, OpId, ShardId, StreamId};
use crate::op::Op;
use crate::replication::{Input as NetInput, Tip};
use crate::store::keys::{ChangeKey, ChangePlace, DocKey, Key as _, OpKey, TailKey};
use crate::store::{Keyspace, Order, envelope};

impl Replica {
    /// Carries out what a change of the control log, or a fork, means for what is here already.
    pub(super) fn apply_policy_changes(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let chains = super::chains::StoredChains {
            store: &*self.store,
            undurable: &self.undurable,
            cluster: self.identity.cluster,
        };
        let list = self.authority.take_rejudge(&chains);
        for Rejudge { stream, from_seq } in list {
            self.rejudge_stream(stream, from_seq);
        }
        // What waited for an act or a pinned chain may be judged now.
        if std::mem::take(&mut self.policy_changed) {
            for tx in self.deferred.clone() {
                self.make_ready(tx);
            }
            self.tell_closed(now, effects);
        }
        self.tell_wants(now, effects);
    }

    /// Makes the stored transactions of a stream ready whose verdict is not what was carried out.
    fn rejudge_stream(&mut self, stream: StreamId, from_seq: u64) {
        let span = OpKey::stream(stream).starting_at(&OpKey::new(stream, from_seq).encode());
        for entry in self.store.scan(Keyspace::Ops, &span, Order::Ascending) {
            let (key, value) = match entry {
                Ok(entry) => entry,
                Err(error) => return self.halt(format!("read the store: {error}")),
            };
            let Ok(OpKey { branch: None, .. }) = OpKey::decode(&key) else { continue };
            let Some(op) = envelope::open(value).ok().and_then(|bytes| Op::decode(&bytes, self.identity.cluster).ok())
            else {
                return self.halt(format!("a stored op of the stream {stream} is damaged"));
            };
            let op = Arc::new(op);
            self.note_op(&op);
            let at = Position { stream, seq: op.header().seq, op: op.id() };
            for index in 0..op.header().transactions().len() {
                let tx = TxRef { stream, seq: at.seq, op: at.op, tx: u16::try_from(index).unwrap_or(u16::MAX) };
                let verdict = self.authority.judge(&at, op.header(), index, &self.chains());
                let state = self.tx_state(&tx);
                let as_before = match state {
                    None => verdict.is_allowed(),
                    Some(state) => state.is_final() || state.agrees_with(&verdict),
                };
                if !as_before {
                    self.make_ready(tx);
                }
            }
        }
    }

    /// Tells the replication engine which streams are closed, where that changed.
    pub(super) fn tell_closed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let closed = closed_streams(&self.authority, &self.heads);
        let changed: Vec<(ShardId, StreamId)> = self
            .heads
            .iter()
            .filter(|(stream, _)| closed.get(stream) != self.closed.get(stream))
            .map(|(stream, head)| (head.key.shard.clone(), *stream))
            .collect();
        self.closed = closed;
        self.step_engine(now, NetInput::PolicyChanged { streams: changed }, effects);
    }

    /// Tells the replication engine which changes documents wait for, and which no longer.
    pub(super) fn tell_wants(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (shard, change) in std::mem::take(&mut self.settled) {
            self.step_engine(now, NetInput::ChangeSettled { shard, change }, effects);
        }
        for (shard, change) in std::mem::take(&mut self.asked) {
            // It may be durable here already and only wait for its turn.
            if self.wanted.contains_key(&change) {
                self.step_engine(now, NetInput::NeedChange { shard, change, hint: None }, effects);
            }
        }
    }

    /// Takes the changes of a transaction out of the documents whose history has them: they lie on a branch that does not
    /// count, or cannot be judged any more.
    pub(super) fn take_out(&mut self, op: &Arc<Op>, tx: TxRef) {
        let header = op.header();
        let Some((transaction, bodies)) = op.transactions().nth(usize::from(tx.tx)) else { return };
        let mut docs = BTreeSet::new();
        for (change, body) in transaction.changes.iter().zip(bodies) {
            let key = DocKey { collection: header.collection().clone(), doc: change.doc.clone() };
            let actor = header.stream_key().actor(&transaction.principal, &change.doc);
            let Some(hash) = body.as_ref().and_then(|body| gate::bound_hash(&body.bytes, &actor)) else { continue };
            if self.ensure_loaded(&key).is_err() {
                continue;
            }
            let has = self.cache.get(&key).is_some_and(|loaded| {
                loaded.document.contains(&hash) || loaded.deletes.iter().any(|delete| delete.tx == tx)
            });
            if has {
                docs.insert((key, hash));
            }
        }
        for (key, hash) in docs {
            self.rebuild_without(&key, &hash, tx);
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
        let mut deletes = old.deletes.clone();
        deletes.retain(|delete| delete.tx != without_tx);
        let (whole, broken): (Vec<_>, Vec<_>) =
            deletes.into_iter().partition(|delete| !delete.heads.iter().any(|head| out.contains(head)));
        let document = match Document::load(None, kept.iter().map(|(_, bytes)| &**bytes), void, BTreeSet::new()) {
            Ok(document) => document,
            Err(error) => return self.halt(format!("rebuild document {}/{}: {error}", key.collection, key.doc)),
        };
        let mut fresh = Loaded::empty();
        fresh.published = old.published.clone();
        fresh.modified = old.modified;
        fresh.document = document;
        fresh.deletes = whole;
        fresh.apply_deletes();
        self.counters.documents_rebuilt += 1;
        self.cache.insert(key.clone(), fresh);
        self.dirty(key);
        self.delete(Keyspace::Snapshots, key.encode());
        for hash in &out {
            self.delete(Keyspace::Tail, TailKey { doc: key.clone(), change: *hash }.encode());
            if let Some(tx) = self.place_of(hash).filter(|tx| *tx != without_tx) {
                self.make_ready(tx);
            }
        }
        for delete in broken {
            self.make_ready(delete.tx);
        }
        // The snapshot may have held what is left.
        for (hash, bytes) in kept {
            if let Some(tx) = self.place_of(&hash) {
                let record = ChangeRecord { tx, bytes: bytes.to_vec() };
                self.stage_change(key, hash, &record);
                if let Some(loaded) = self.cache.get(key) {
                    loaded.tail.push(hash);
                    loaded.tail_bytes += bytes.len();
                }
            }
        }
    }

    /// Returns the transaction that brought a change.
    pub(super) fn place_of(&mut self, hash: &ChangeHash) -> Option<TxRef> {
        let value = self.read_back(Keyspace::Index, &ChangeKey(*hash).encode())?;
        let place = ChangePlace::decode(&value).ok()?;
        let op = self.chains().main(&place.stream, place.seq)?;
        Some(TxRef { stream: place.stream, seq: place.seq, op, tx: place.transaction })
    }
}

/// Returns where streams are closed because their certificate is void.
pub(super) fn closed_streams(authority: &Authority, heads: &BTreeMap<StreamId, HeadRecord>) -> BTreeMap<StreamId, Tip> {
    let tip = |(stream, head): (&StreamId, &HeadRecord)| {
        closed_tip(authority, *stream, head.key.certificate).map(|tip| (*stream, tip))
    };
    heads.iter().filter_map(tip).collect()
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
            Verdict::AfterRevocation { .. } => self == Self::AfterRevocation,
            Verdict::Forked { .. } => self == Self::Forked,
        }
    }
}
