//! From durable ops to documents: verdict, gate, history, view.
//!
//! Work is done in slices, so that it may lag behind the log without delaying acknowledgements. What becomes of a
//! transaction is a function of the set of ops; the order in which slices come has no say, except that the changes of one
//! author to one document are offered in the order of its stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::mutant::{Mutant, planted};
use super::records::{ChangeRecord, DeleteRecord, TxRecord, TxRef, TxState};
use super::{Now, Placed, Replica};
use crate::authority::{Position, Verdict};
use crate::document::{Admission, Candidate, Document, gate};
use crate::id::{ChangeHash, ShardId};
use crate::op::{Body, Delete, Op, Transaction, WriteAction};
use crate::store::keys::{ArrivalKey, ChangeKey, ChangePlace, DocKey, Key as _, OpKey, QuarantineKey};
use crate::store::{Keyspace, envelope};

/// Bytes of durable ops kept in memory until they are applied; beyond, they are read back from the store.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Durable ops that wait to be applied, as far as memory allows.
#[derive(Debug, Default)]
pub(super) struct Queue {
    shards: BTreeMap<ShardId, VecDeque<Placed>>,
    bytes: usize,
}

impl Queue {
    /// Keeps an op, unless there is no room or one before it was not kept.
    pub(super) fn push(&mut self, placed: Placed) {
        if self.bytes + placed.op.size() > QUEUE_BYTES_MAX {
            return;
        }
        self.bytes += placed.op.size();
        self.shards.entry(placed.op.header().shard.clone()).or_default().push_back(placed);
    }

    /// Takes the op with this arrival, dropping what lies before it.
    fn take(&mut self, shard: &ShardId, arrival: u64) -> Option<Arc<Op>> {
        let queue = self.shards.get_mut(shard)?;
        while queue.front().is_some_and(|placed| placed.arrival <= arrival) {
            let placed = queue.pop_front()?;
            self.bytes -= placed.op.size();
            if placed.arrival == arrival {
                return Some(placed.op);
            }
        }
        None
    }
}

/// A transaction to be applied.
struct Work {
    tx: TxRef,
    op: Arc<Op>,
}

impl Work {
    fn transaction(&self) -> Option<(&Transaction, &[Option<Body>])> {
        self.op.transactions().nth(usize::from(self.tx.tx))
    }

    fn position(&self) -> Position {
        Position { stream: self.tx.stream, seq: self.tx.seq, op: self.tx.op }
    }
}

/// Why a transaction's changes have no effect, where they have none.
type Void = Option<(TxState, String)>;

/// Transactions that are offered to a document's gate together.
type Offered = Vec<(Work, Void)>;

/// What the verdict means for the documents.
enum Fate {
    /// Its changes count.
    Accepted,
    /// Its changes are part of history, without effect.
    Void(TxState, String),
    /// Its changes stay outside.
    Excluded(TxState, String),
}

/// What the gate says of one change of a transaction.
enum Gated {
    Passed,
    Missing(Vec<ChangeHash>),
    Bad(String),
    Held(String),
}

impl Replica {
    /// Applies durable ops to their documents, at most about `transactions_max` transactions. Returns whether there is more.
    pub fn work(&mut self, now: Now, transactions_max: usize, effects: &mut Vec<super::Effect>) -> bool {
        if self.halted.is_some() || !self.authority.rules().can_judge() {
            return false;
        }
        let mut list = Vec::new();
        while list.len() < transactions_max {
            let Some(tx) = self.ready.pop_first() else { break };
            if let Some(op) = self.load_op(&tx) {
                list.push(Work { tx, op });
            }
        }
        let shards: Vec<ShardId> =
            self.shards.iter().filter(|(_, shard)| shard.unapplied() > 0).map(|(id, _)| id.clone()).collect();
        for shard in shards {
            self.gather(&shard, transactions_max, &mut list);
        }
        if !list.is_empty() {
            self.apply(list);
            self.tell_wants(now, effects);
        }
        !self.ready.is_empty() || self.shards.values().any(|shard| shard.unapplied() > 0)
    }

    /// Collects the next durable ops of a shard.
    fn gather(&mut self, shard: &ShardId, transactions_max: usize, list: &mut Vec<Work>) {
        while list.len() < transactions_max {
            let Some(state) = self.shards.get_mut(shard).filter(|state| state.unapplied() > 0) else { return };
            state.applied += 1;
            state.dirty = true;
            let arrival = state.applied;
            let Some(op) = self.queue.take(shard, arrival).or_else(|| self.arrived(shard, arrival)) else { continue };
            if op.header().shard.is_control() {
                continue;
            }
            // What we wrote ourselves in this session is in the documents since it was written; only a verdict that changed
            // meanwhile has to be carried out.
            let own = op.header().session == self.session;
            for index in 0..op.header().transactions().len() {
                let tx = TxRef {
                    stream: op.stream(),
                    seq: op.header().seq,
                    op: op.id(),
                    tx: u16::try_from(index).unwrap_or(u16::MAX),
                };
                let work = Work { tx, op: op.clone() };
                let at = work.position();
                if own && self.authority.judge(&at, op.header(), index, &self.chains()).is_allowed() {
                    continue;
                }
                list.push(work);
            }
        }
    }

    /// Reads the op of an arrival; none where the arrival marks a fork.
    fn arrived(&mut self, shard: &ShardId, arrival: u64) -> Option<Arc<Op>> {
        let key = ArrivalKey { shard: shard.clone(), arrival }.encode();
        let place = self.read_store(Keyspace::Arrivals, &key)?;
        self.op_at(&place)
    }

    fn op_at(&mut self, key: &[u8]) -> Option<Arc<Op>> {
        let value = self.read_store(Keyspace::Ops, key)?;
        match Op::decode(&value, self.identity.cluster) {
            Ok(op) => Some(Arc::new(op)),
            Err(error) => {
                self.halt(format!("a stored op is damaged: {error}"));
                None
            }
        }
    }

    /// Reads the op of a transaction, on whichever branch it lies.
    pub(super) fn load_op(&mut self, tx: &TxRef) -> Option<Arc<Op>> {
        let main = OpKey::new(tx.stream, tx.seq);
        if let Some(op) = self.op_at(&main.encode())
            && op.id() == tx.op
        {
            return Some(op);
        }
        self.op_at(&OpKey { branch: Some(tx.op), ..main }.encode())
    }

    fn read_store(&mut self, keyspace: Keyspace, key: &[u8]) -> Option<bytes::Bytes> {
        match self.store.get(keyspace, key) {
            Ok(value) => match envelope::open(value?) {
                Ok(value) => Some(value),
                Err(error) => {
                    self.halt(format!("read keyspace {keyspace}: {error}"));
                    None
                }
            },
            Err(error) => {
                self.halt(format!("read the store: {error}"));
                None
            }
        }
    }

    /// Applies transactions: those of one document are offered to the gate together.
    fn apply(&mut self, mut list: Vec<Work>) {
        // The order of streams, which the gate relies on; also makes one batch the same whatever order it came in.
        list.sort_by_key(|work| work.tx);
        let mut singles: BTreeMap<DocKey, Offered> = BTreeMap::new();
        let mut others = Vec::new();
        for work in list {
            match self.fate(&work) {
                Fate::Excluded(state, reason) => {
                    self.take_out(&work.op, work.tx);
                    self.exclude(&work.op, work.tx, state, reason, Vec::new());
                }
                Fate::Accepted => sort_in(work, None, &mut singles, &mut others),
                Fate::Void(state, reason) => sort_in(work, Some((state, reason)), &mut singles, &mut others),
            }
        }
        for (key, works) in singles {
            self.apply_to_document(&key, works);
        }
        for (work, void) in others {
            self.apply_transaction(&work, void);
        }
    }

    /// Decides what the verdict, and an earlier transaction of the same request, mean.
    fn fate(&mut self, work: &Work) -> Fate {
        let header = work.op.header();
        let at = work.position();
        let verdict = self.authority.judge(&at, header, usize::from(work.tx.tx), &self.chains());
        match verdict {
            Verdict::Allowed => {}
            Verdict::Deferred(missing) => {
                return Fate::Excluded(TxState::Deferred, format!("waits for {missing:?}"));
            }
            Verdict::Refused => {
                return Fate::Excluded(TxState::NotAllowed, "the op contradicts its own ancestors".to_owned());
            }
            Verdict::NotAllowed => {
                return Fate::Excluded(
                    TxState::NotAllowed,
                    "no statement that its author knew gives the right".to_owned(),
                );
            }
            Verdict::AfterRevocation { by } => {
                return Fate::Void(TxState::AfterRevocation, format!("cut by the revocation {by}"));
            }
            Verdict::Forked { stream, at } => {
                return Fate::Excluded(TxState::Forked, format!("the stream {stream} forks at {at}"));
            }
        }
        if let Some((transaction, _)) = work.transaction()
            && let Some(request) = transaction.request
        {
            let seen = self.note_request(header.collection(), request, header.hlc, work.tx);
            if let Some(first) = self.first_counting(&seen, &work.tx)
                && first != work.tx
            {
                return Fate::Void(TxState::Duplicate, format!("the same request counts as {}", first.op));
            }
            // The first by time counts: one that was taken for the first until now does not any more.
            for other in seen.into_iter().filter(|other| *other != work.tx) {
                if self.tx_state(&other).is_none() {
                    self.make_ready(other);
                }
            }
        }
        Fate::Accepted
    }

    /// Returns the first of the transactions of one request that is not out of question; `judged`, which has the right, is
    /// in question whatever was noted of it before.
    fn first_counting(&mut self, seen: &[TxRef], judged: &TxRef) -> Option<TxRef> {
        seen.iter()
            .find(|tx| match self.tx_state(tx).filter(|_| *tx != judged) {
                None | Some(TxState::Duplicate) => true,
                Some(
                    TxState::Waiting
                    | TxState::Deferred
                    | TxState::NotAllowed
                    | TxState::BadChange
                    | TxState::AfterRevocation
                    | TxState::Forked
                    | TxState::Held,
                ) => false,
            })
            .copied()
    }

    /// Offers single-document transactions of one document to its gate.
    fn apply_to_document(&mut self, key: &DocKey, works: Offered) {
        if let Err(error) = self.ensure_loaded(key) {
            let reason = error.to_string();
            for (work, _) in works {
                self.exclude(&work.op, work.tx, TxState::Held, reason.clone(), Vec::new());
            }
            return;
        }
        let mut offered = Vec::new();
        for (work, void) in works {
            if let Some(earlier) = self.earlier_waiting(&work, key) {
                self.exclude(&work.op, work.tx, TxState::Waiting, format!("waits for {}", earlier.op), Vec::new());
                self.waiting_behind.entry(earlier).or_default().insert(work.tx);
                continue;
            }
            let Some((transaction, bodies)) = work.transaction() else { continue };
            let (Some(change), Some(body)) = (transaction.changes.first(), bodies.first()) else { continue };
            let Some(body) = body.clone() else {
                self.exclude(&work.op, work.tx, TxState::Waiting, "its body is not here".to_owned(), Vec::new());
                continue;
            };
            let actor = work.op.header().stream_key().actor(&transaction.principal, &key.doc);
            offered.push((work.tx, work.op.clone(), change.action, actor, body, void));
        }
        let candidates: Vec<Candidate<'_>> = offered
            .iter()
            .filter(|(_, _, action, ..)| *action != WriteAction::Delete)
            .map(|(_, _, action, actor, body, _)| Candidate { bytes: &body.bytes, actor: *actor, action: *action })
            .collect();
        let Some(loaded) = self.cache.get(key) else { return };
        let mut void: BTreeSet<ChangeHash> = loaded.document.void_changes().clone();
        if !void.is_empty() || offered.iter().any(|(.., void)| void.is_some()) {
            let named = |voided: bool| {
                let offered = offered.iter().filter(move |(.., void)| void.is_some() == voided);
                offered.filter_map(|(_, _, _, actor, body, _)| gate::bound_hash(&body.bytes, actor))
            };
            void.extend(named(true));
            for hash in named(false) {
                void.remove(&hash);
            }
        }
        let view = if void == *loaded.document.void_changes() { Ok(false) } else { loaded.document.set_void(void) };
        let mut admissions = match view {
            Ok(_) => loaded.document.admit(&candidates).into_iter(),
            Err(error) => {
                let reason = error.to_string();
                for (tx, op, ..) in offered {
                    self.exclude(&op, tx, TxState::Held, reason.clone(), Vec::new());
                }
                return;
            }
        };
        for (tx, op, action, _, body, void) in offered {
            let gated = if action == WriteAction::Delete {
                self.gate_delete(key, &op, tx, &body, void.is_none())
            } else {
                match admissions.next() {
                    Some(admission) => self.take_admission(key, &op, tx, &body, admission),
                    None => Gated::Held("the gate gave no answer".to_owned()),
                }
            };
            self.conclude(&op, tx, void, gated);
        }
        self.dirty(key);
    }

    /// Notes what the gate said of a change that stands alone.
    fn take_admission(&mut self, key: &DocKey, op: &Arc<Op>, tx: TxRef, body: &Body, admission: Admission) -> Gated {
        match admission {
            Admission::Admitted(hash) => {
                self.keep_change(key, hash, &ChangeRecord { tx, bytes: body.bytes.to_vec() });
                if let Some(loaded) = self.cache.get(key) {
                    loaded.modified = loaded.modified.max(op.header().hlc);
                }
                Gated::Passed
            }
            Admission::Known(_) => Gated::Passed,
            Admission::MissingDeps(missing) => Gated::Missing(missing),
            Admission::Bad(error) => Gated::Bad(error.to_string()),
            Admission::Held(hold) => Gated::Held(hold.to_string()),
        }
    }

    /// Adds a delete to a document, if what it covers is there.
    fn gate_delete(&mut self, key: &DocKey, op: &Arc<Op>, tx: TxRef, body: &Body, counts: bool) -> Gated {
        let delete = match Delete::decode(&body.bytes) {
            Ok(delete) => delete,
            Err(error) => return Gated::Bad(format!("delete: {error}")),
        };
        let Some(loaded) = self.cache.get(key) else {
            return Gated::Held("the document was not kept loaded".to_owned());
        };
        let missing: Vec<ChangeHash> =
            delete.heads.iter().filter(|head| !loaded.document.contains(head)).copied().collect();
        if !missing.is_empty() {
            return Gated::Missing(missing);
        }
        loaded.deletes.retain(|known| known.tx != tx);
        loaded.deletes.push(DeleteRecord { tx, heads: delete.heads, counts });
        loaded.deletes.sort();
        loaded.apply_deletes();
        if counts {
            loaded.modified = loaded.modified.max(op.header().hlc);
        }
        Gated::Passed
    }

    /// Applies a transaction over several documents: all of it or nothing.
    fn apply_transaction(&mut self, work: &Work, void: Void) {
        let Some((transaction, bodies)) = work.transaction() else { return };
        let header = work.op.header();
        let collection = header.collection().clone();
        let mut before: Vec<(DocKey, Document, Vec<DeleteRecord>)> = Vec::new();
        let mut kept = Vec::new();
        let mut result = Gated::Passed;
        for (change, body) in transaction.changes.iter().zip(bodies) {
            let key = DocKey { collection: collection.clone(), doc: change.doc.clone() };
            if let Some(earlier) = self.earlier_waiting(work, &key) {
                self.waiting_behind.entry(earlier).or_default().insert(work.tx);
                result = Gated::Missing(Vec::new());
                break;
            }
            let Some(body) = body else {
                result = Gated::Missing(Vec::new());
                break;
            };
            if let Err(error) = self.ensure_loaded(&key) {
                result = Gated::Held(error.to_string());
                break;
            }
            let Some(loaded) = self.cache.get(&key) else { continue };
            before.push((key.clone(), loaded.document.clone(), loaded.deletes.clone()));
            if change.action == WriteAction::Delete {
                result = self.gate_delete(&key, &work.op, work.tx, body, void.is_none());
            } else {
                let actor = header.stream_key().actor(&transaction.principal, &change.doc);
                let hash = gate::bound_hash(&body.bytes, &actor);
                let set = match void {
                    Some(_) => loaded.document.add_void(hash),
                    None => loaded.document.remove_void(hash),
                };
                if let Err(error) = set {
                    result = Gated::Held(error.to_string());
                    break;
                }
                let candidate = Candidate { bytes: &body.bytes, actor, action: change.action };
                result = match loaded.document.admit(&[candidate]).into_iter().next() {
                    Some(Admission::Admitted(hash)) => {
                        kept.push((key, hash, body.bytes.to_vec()));
                        Gated::Passed
                    }
                    Some(Admission::Known(_)) => Gated::Passed,
                    Some(Admission::MissingDeps(missing)) => Gated::Missing(missing),
                    Some(Admission::Bad(error)) => Gated::Bad(format!("document {}: {error}", change.doc)),
                    Some(Admission::Held(hold)) => Gated::Held(hold.to_string()),
                    None => Gated::Held("the gate gave no answer".to_owned()),
                };
            }
            if !matches!(result, Gated::Passed) {
                break;
            }
        }
        let passed = matches!(result, Gated::Passed);
        for (key, document, deletes) in before {
            if let Some(loaded) = self.cache.get(&key) {
                if passed {
                    if void.is_none() {
                        loaded.modified = loaded.modified.max(header.hlc);
                    }
                } else {
                    loaded.document = document;
                    loaded.deletes = deletes;
                }
            }
            if passed {
                self.dirty(&key);
            }
        }
        if passed {
            for (key, hash, bytes) in kept {
                self.keep_change(&key, hash, &ChangeRecord { tx: work.tx, bytes });
            }
        }
        self.conclude(&work.op, work.tx, void, result);
    }

    /// Writes down what became of a transaction.
    fn conclude(&mut self, op: &Arc<Op>, tx: TxRef, void: Void, gated: Gated) {
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
                    Some((state, reason)) => self.note_state(op, tx, state, reason, Vec::new()),
                    None => self.clear_state(tx),
                }
                self.wake_behind(tx);
            }
            Gated::Missing(missing) => match self.out_of_question(&missing) {
                Some(hash) => {
                    let reason = format!("builds on the change {hash}, which is not accepted");
                    self.exclude(op, tx, TxState::BadChange, reason, Vec::new());
                }
                None => {
                    let reason = match missing.first() {
                        Some(hash) => format!("waits for the change {hash}"),
                        None => "waits for an earlier transaction of its author".to_owned(),
                    };
                    self.exclude(op, tx, TxState::Waiting, reason, missing);
                }
            },
            Gated::Bad(reason) => self.exclude(op, tx, TxState::BadChange, reason, Vec::new()),
            Gated::Held(reason) => self.exclude(op, tx, TxState::Held, reason, Vec::new()),
        }
    }

    /// Returns a change among these that is never accepted.
    fn out_of_question(&mut self, changes: &[ChangeHash]) -> Option<ChangeHash> {
        for change in changes {
            if let Some(tx) = self.place_of(change)
                && self.tx_state(&tx).is_some_and(TxState::is_final)
            {
                return Some(*change);
            }
        }
        None
    }

    /// Keeps a transaction out of the documents, and remembers why and what it waits for.
    pub(super) fn exclude(
        &mut self,
        op: &Arc<Op>,
        tx: TxRef,
        state: TxState,
        reason: String,
        missing: Vec<ChangeHash>,
    ) {
        self.note_state(op, tx, state, reason, missing);
        let header = op.header();
        let Some((transaction, bodies)) = op.transactions().nth(usize::from(tx.tx)) else { return };
        let stream_key = header.stream_key();
        for (index, (change, body)) in transaction.changes.iter().zip(bodies).enumerate() {
            let key = DocKey { collection: header.collection().clone(), doc: change.doc.clone() };
            if matches!(state, TxState::Waiting | TxState::Deferred) {
                self.waiting_in.entry((tx.stream, key)).or_default().insert(tx);
            }
            // Only a change under its author's own actor has a name that others can rightly build on.
            let actor = stream_key.actor(&transaction.principal, &change.doc);
            let hash = body.as_ref().and_then(|body| gate::bound_hash(&body.bytes, &actor));
            if let Some(hash) = hash {
                self.index_change(hash, tx, index);
                if state.is_final() {
                    self.wake(&hash);
                }
            }
        }
        if state.is_final() {
            self.wake_behind(tx);
        }
    }

    /// Adds a change to what the store has of a document, and wakes what waited for it.
    pub(super) fn keep_change(&mut self, key: &DocKey, hash: ChangeHash, record: &ChangeRecord) {
        self.stage_change(key, hash, record);
        self.index_change(hash, record.tx, 0);
        if let Some(loaded) = self.cache.get(key) {
            loaded.tail.push(hash);
            loaded.tail_bytes += record.bytes.len();
        }
        self.wake(&hash);
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

    /// Makes the transactions ready that wait for a change.
    fn wake(&mut self, hash: &ChangeHash) {
        for tx in self.waiting_for.remove(hash).unwrap_or_default() {
            self.make_ready(tx);
        }
        if let Some(shard) = self.wanted.remove(hash) {
            self.settled.push((shard, *hash));
        }
    }

    fn wake_behind(&mut self, tx: TxRef) {
        for behind in self.waiting_behind.remove(&tx).unwrap_or_default() {
            self.make_ready(behind);
        }
    }

    pub(super) fn make_ready(&mut self, tx: TxRef) {
        self.ready.insert(tx);
    }

    /// Returns an earlier transaction of the same stream that touches the document and still waits: its author's later
    /// changes wait too, so that which of two changes with one actor and number comes first is the same everywhere.
    fn earlier_waiting(&self, work: &Work, key: &DocKey) -> Option<TxRef> {
        if self.waiting_in.is_empty() {
            return None;
        }
        self.waiting_in.get(&(work.tx.stream, key.clone()))?.iter().find(|tx| **tx < work.tx).copied()
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

    fn note_state(&mut self, op: &Arc<Op>, tx: TxRef, state: TxState, reason: String, missing: Vec<ChangeHash>) {
        self.forget_waits(op, tx);
        let before = self.tx_state(&tx);
        if let Some(before) = before {
            self.count_state(before, false);
        }
        self.count_state(state, true);
        for hash in &missing {
            self.waiting_for.entry(*hash).or_default().insert(tx);
            if self.wanted.insert(*hash, op.header().shard.clone()).is_none() {
                self.asked.push((op.header().shard.clone(), *hash));
            }
        }
        if state == TxState::Deferred {
            self.deferred.insert(tx);
        }
        let record = TxRecord { tx, state, reason, shard: op.header().shard.clone(), missing, hlc: op.header().hlc };
        let key = QuarantineKey { op: tx.op, transaction: tx.tx }.encode();
        self.put(Keyspace::Quarantine, key, &record.encode());
        // A duplicate was not in question; and what is noted again changes nothing for the others, or two of them would
        // call each other for ever.
        if state != TxState::Duplicate && before != Some(state) {
            self.unsettle_request(op, tx);
        }
    }

    pub(super) fn clear_state(&mut self, tx: TxRef) {
        if let Some(before) = self.tx_state(&tx) {
            self.count_state(before, false);
            self.delete(Keyspace::Quarantine, QuarantineKey { op: tx.op, transaction: tx.tx }.encode());
            if let Some(op) = self.load_op(&tx) {
                self.forget_waits(&op, tx);
            }
        }
    }

    /// When a transaction of a request is out of question, another one of the same request may count.
    fn unsettle_request(&mut self, op: &Arc<Op>, tx: TxRef) {
        let Some(transaction) = op.header().transactions().get(usize::from(tx.tx)) else { return };
        let Some(request) = transaction.request else { return };
        let Some(record) = self.request_record(op.header().collection(), request.name()) else { return };
        for other in record.of(request) {
            if other != tx && self.tx_state(&other) == Some(TxState::Duplicate) {
                self.make_ready(other);
            }
        }
    }

    fn forget_waits(&mut self, op: &Arc<Op>, tx: TxRef) {
        self.deferred.remove(&tx);
        if let Some(transaction) = op.header().transactions().get(usize::from(tx.tx)) {
            for change in &transaction.changes {
                let key = (tx.stream, DocKey { collection: op.header().collection().clone(), doc: change.doc.clone() });
                if let Some(waiting) = self.waiting_in.get_mut(&key) {
                    waiting.remove(&tx);
                    if waiting.is_empty() {
                        self.waiting_in.remove(&key);
                    }
                }
            }
        }
    }

    pub(super) fn count_state(&mut self, state: TxState, more: bool) {
        let count = self.tx_states.entry(state).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
    }

    /// Loads a document into the cache, if it is not there.
    pub(super) fn ensure_loaded(&mut self, key: &DocKey) -> Result<(), super::LoadError> {
        if !self.cache.contains(key) {
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
        self.staged.dirty.insert(key.clone());
    }
}

/// Sorts a transaction by whether it touches one document or several.
fn sort_in(work: Work, void: Void, singles: &mut BTreeMap<DocKey, Offered>, others: &mut Offered) {
    let header = work.op.header();
    match header.transactions().get(usize::from(work.tx.tx)).map(|transaction| &*transaction.changes) {
        Some([change]) => {
            let key = DocKey { collection: header.collection().clone(), doc: change.doc.clone() };
            singles.entry(key).or_default().push((work, void));
        }
        Some(_) | None => others.push((work, void)),
    }
}
