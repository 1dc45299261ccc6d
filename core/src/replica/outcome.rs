//! What became of a transaction, and who is to be looked at again because of it.

use std::sync::Arc;

use super::Replica;
use super::materialise::Void;
use super::mutant::{Mutant, planted};
use super::offer::Gated;
use super::records::{TxRecord, TxRef, TxState};
use super::waits::{AWAITED_CHANGES_MAX, Awaited};
use crate::document::gate;
use crate::id::{ChangeHash, ShardId};
use crate::op::Op;
use crate::store::Keyspace;
use crate::store::keys::{ChangeKey, ChangePlace, DocKey, Key as _, QuarantineKey};

/// What is written down about a transaction that is not simply accepted.
struct Note {
    state: TxState,
    reason: String,
    /// For what it waits, if it does: then it is looked at again.
    awaited: Option<Awaited>,
}

impl Replica {
    /// Writes down what became of a transaction.
    pub(super) fn conclude(&mut self, op: &Arc<Op>, tx: TxRef, void: Void, gated: Gated) {
        let forgotten = planted(Mutant::NotWaitedFor) && matches!(gated, Gated::Missing(_));
        let gated = if forgotten { Gated::Passed } else { gated };
        if !matches!(gated, Gated::Passed) {
            // It may have been applied before what it builds on was taken out of one of its documents.
            self.take_out(op, tx);
        }
        match gated {
            Gated::Passed => {
                self.counters.transactions_applied += 1;
                match void {
                    Some((state, reason)) => {
                        self.note(op, tx, Note { state, reason, awaited: None });
                    }
                    // It was out of question: another one of the same request may have counted meanwhile.
                    None if self.clear_state(tx, &op.header().shard) => self.unsettle_request(op, tx),
                    None => {}
                }
                self.wake_behind(tx);
            }
            Gated::Missing(mut missing) => {
                missing.truncate(AWAITED_CHANGES_MAX);
                let reason = match missing.first() {
                    Some(hash) => format!("waits for the change {hash}"),
                    None => "waits for a change".to_owned(),
                };
                self.wait(op, tx, void, reason, Awaited::Changes(missing));
            }
            Gated::Behind(earlier) => {
                let reason = format!("its author gave the change the same number as one of {}", earlier.op);
                self.wait(op, tx, void, reason, Awaited::Earlier(earlier));
            }
            Gated::Bodiless => self.wait(op, tx, void, "its body is not here".to_owned(), Awaited::Other),
            Gated::Bad(reason) => self.exclude(op, tx, TxState::BadChange, reason),
            Gated::Held(reason) => self.exclude(op, tx, TxState::Held, reason),
        }
    }

    /// Keeps a transaction out of the documents until something else comes.
    fn wait(&mut self, op: &Arc<Op>, tx: TxRef, void: Void, reason: String, awaited: Awaited) {
        // A void one is void in any case; others may build on it all the same, so it waits like them.
        let (state, reason) = match void {
            Some((TxState::AfterRevocation, cut)) => (TxState::AfterRevocation, format!("{cut}; {reason}")),
            Some(_) | None => (TxState::Waiting, reason),
        };
        self.keep_outside(op, tx, Note { state, reason, awaited: Some(awaited) });
    }

    /// Keeps a transaction out of the documents, and remembers why.
    pub(super) fn exclude(&mut self, op: &Arc<Op>, tx: TxRef, state: TxState, reason: String) {
        let awaited = match state {
            TxState::Deferred => Some(Awaited::Act),
            TxState::Waiting | TxState::Held => Some(Awaited::Other),
            TxState::NotAllowed
            | TxState::BadChange
            | TxState::AfterRevocation
            | TxState::Duplicate
            | TxState::Forked => None,
        };
        self.keep_outside(op, tx, Note { state, reason, awaited });
    }

    fn keep_outside(&mut self, op: &Arc<Op>, tx: TxRef, note: Note) {
        let is_own =
            self.own.get(&(op.header().shard.clone(), op.header().author)).is_some_and(|own| own.stream == tx.stream);
        if is_own {
            // The next change under that actor would take the number of one that is not in the document.
            self.begin_session();
        }
        if let Some(awaited) = &note.awaited {
            self.keep_waiting(tx, op, awaited);
        }
        let state = note.state;
        self.note(op, tx, note);
        for (index, hash) in named_changes(op, tx) {
            // Of several transactions that bring one change, the one that has it in a document has the place.
            if self.place_of(&hash).is_none() {
                self.index_change(hash, tx, index);
            }
            // Who waits for it goes on waiting, but there is nobody left to be asked.
            self.settle_want(&op.header().shard, &hash);
        }
        if state.is_refusal() || state == TxState::Forked {
            self.wake_behind(tx);
        }
    }

    /// Notes the transactions of an op that lies on a branch which is not followed here.
    pub(super) fn note_branch_op(&mut self, op: &Arc<Op>, fork: u64) {
        for tx in TxRef::all_of(op) {
            let reason = format!("the stream {} forks at {fork}", tx.stream);
            self.note(op, tx, Note { state: TxState::Forked, reason, awaited: None });
        }
    }

    /// Adds a change to what the store has of a document, and wakes what waited for it.
    /// It is the one with this number of the transaction.
    pub(super) fn keep_change(&mut self, key: &DocKey, hash: ChangeHash, (tx, index): (TxRef, usize), bytes: &[u8]) {
        if !self.is_erased(key) {
            self.stage_change(key, hash, bytes);
            self.index_change(hash, tx, index);
        }
        self.wake_for(&hash);
        if let Some(head) = self.heads.get(&tx.stream) {
            let shard = head.key.shard.clone();
            self.settle_want(&shard, &hash);
        }
    }

    fn index_change(&mut self, hash: ChangeHash, tx: TxRef, index: usize) {
        let place = ChangePlace {
            stream: tx.stream,
            seq: tx.seq,
            transaction: tx.tx,
            change: u16::try_from(index).unwrap_or(u16::MAX),
        };
        self.put(Keyspace::Index, ChangeKey(hash).encode(), &place.encode());
    }

    /// Returns the transaction that brought a change, with its op.
    pub(super) fn placed_op(&mut self, hash: &ChangeHash) -> Option<(TxRef, Arc<Op>)> {
        let value = self.read_back(Keyspace::Index, &ChangeKey(*hash).encode())?;
        let place = ChangePlace::decode(&value).ok()?;
        let op = self.chains().main_op(&place.stream, place.seq)?;
        Some((TxRef { stream: place.stream, seq: place.seq, op: op.id(), tx: place.transaction }, op))
    }

    /// Returns the transaction that brought a change.
    pub(super) fn place_of(&mut self, hash: &ChangeHash) -> Option<TxRef> {
        self.placed_op(hash).map(|(tx, _)| tx)
    }

    /// Notes that a change is not to be asked for any more.
    fn settle_want(&mut self, shard: &ShardId, hash: &ChangeHash) {
        if self.wanted.remove(hash).is_some() || self.spilled.count() > 0 {
            self.settled.push((shard.clone(), *hash));
        }
    }

    pub(super) fn settle_wants(&mut self, shard: &ShardId, hashes: &[ChangeHash]) {
        hashes.iter().for_each(|hash| self.settle_want(shard, hash));
    }

    pub(super) fn make_ready(&mut self, tx: TxRef) {
        self.ready.insert(tx);
    }

    /// Returns what is noted about a transaction; none if it is accepted, or was never looked at.
    pub(super) fn tx_state(&mut self, tx: &TxRef) -> Option<TxState> {
        if self.tx_states.values().all(|count| *count == 0) {
            return None;
        }
        let key = QuarantineKey { op: tx.op, transaction: tx.tx }.encode();
        let value = self.read_back(Keyspace::Quarantine, &key)?;
        TxRecord::decode(&value).ok().map(|record| record.state)
    }

    fn note(&mut self, op: &Arc<Op>, tx: TxRef, note: Note) {
        let Note { state, reason, awaited } = note;
        let before = self.forget_state(&tx);
        if awaited.is_none() {
            self.leave_waits(tx, &op.header().shard);
        }
        self.count_state(state, true);
        let shard = &op.header().shard;
        let waits = awaited.is_some();
        let missing = awaited.map(Awaited::into_changes).unwrap_or_default();
        // What waits on the disk is asked for each time that it is looked at, and not remembered.
        let is_kept = self.waits.is_kept(&tx);
        for hash in &missing {
            // What is here and outside of the documents is not to be had from others either.
            if self.wanted.contains_key(hash) || self.place_of(hash).is_some() {
                continue;
            }
            if is_kept {
                self.wanted.insert(*hash, shard.clone());
            }
            self.asked.push((shard.clone(), *hash));
        }
        if before != Some(state) {
            self.accuse_author(op, state);
        }
        let record =
            TxRecord { tx, state, reason, shard: shard.clone(), missing, hlc: op.header().hlc, waits }.encode();
        let key = QuarantineKey { op: tx.op, transaction: tx.tx }.encode();
        // What is looked at again and waits on is not written again.
        if before != Some(state) || self.read_back(Keyspace::Quarantine, &key).as_deref() != Some(&*record) {
            self.put(Keyspace::Quarantine, key, &record);
        }
        // A duplicate was not in question; and what is noted again changes nothing for the others, or two of them would
        // call each other for ever.
        if state != TxState::Duplicate && before != Some(state) {
            self.unsettle_request(op, tx);
        }
    }

    /// Notes that a transaction is accepted; returns whether something else was noted.
    fn clear_state(&mut self, tx: TxRef, shard: &ShardId) -> bool {
        self.leave_waits(tx, shard);
        let was_noted = self.forget_state(&tx).is_some();
        if was_noted {
            self.delete(Keyspace::Quarantine, QuarantineKey { op: tx.op, transaction: tx.tx }.encode());
        }
        was_noted
    }

    /// Counts a transaction no longer among those of its state; returns that.
    fn forget_state(&mut self, tx: &TxRef) -> Option<TxState> {
        let before = self.tx_state(tx)?;
        self.count_state(before, false);
        Some(before)
    }

    /// When a transaction of a request is out of question, another one of the same request may count.
    fn unsettle_request(&mut self, op: &Arc<Op>, tx: TxRef) {
        let Some(transaction) = op.header().transactions().get(usize::from(tx.tx)) else { return };
        let Some(request) = transaction.request else { return };
        let Some(record) = self.request_record(op.header().collection(), request.name()) else { return };
        for other in record.of(request).filter(|other| *other != tx) {
            self.owe(other);
        }
    }

    pub(super) fn count_state(&mut self, state: TxState, more: bool) {
        let count = self.tx_states.entry(state).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
    }

    /// Loads a document into the cache, if it is not there.
    pub(super) fn ensure_loaded(&mut self, key: &DocKey) -> Result<(), super::LoadError> {
        if self.cache.get(key).is_none() {
            let loaded = super::load::load(&*self.store, key)?;
            self.counters.documents_loaded += 1;
            self.cache.insert(key.clone(), loaded);
        }
        Ok(())
    }

    pub(super) fn dirty(&mut self, key: &DocKey) {
        if let Some(loaded) = self.cache.get(key) {
            loaded.dirty = true;
        }
        self.uniques.note_change(key);
        self.staged.dirty.insert(key.clone());
    }
}

/// Returns the changes of a transaction that have a name on which others can rightly build, with their positions.
pub(super) fn named_changes(op: &Op, tx: TxRef) -> Vec<(usize, ChangeHash)> {
    let Some((transaction, bodies)) = op.transactions().nth(usize::from(tx.tx)) else { return Vec::new() };
    let key = op.header().stream_key();
    let changes = transaction.changes.iter().zip(bodies).enumerate();
    changes
        .filter_map(|(index, (change, body))| {
            let actor = key.actor(&transaction.principal, &change.doc);
            Some((index, gate::bound_hash(&body.as_ref()?.bytes, &actor)?))
        })
        .collect()
}
