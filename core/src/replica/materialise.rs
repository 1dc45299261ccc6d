//! From ops to documents, in slices: which transactions are due, and what their verdicts mean.
//!
//! Work may lag behind the log without delaying acknowledgements. Where it does not, an op and what it makes of its documents
//! share a batch, and so a sync. What becomes of a transaction is a function of the set of ops; the order in which slices come
//! has no say.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::records::{TxRef, TxState};
use super::{Now, Placed, Replica};
use crate::authority::{Missing, Position, Verdict};
use crate::id::ShardId;
use crate::op::{Body, Header, Op, Transaction};
use crate::store::keys::{ArrivalKey, DocKey, Key as _, OpKey};
use crate::store::{Keyspace, envelope};

/// Bytes of ops kept in memory until they are applied; beyond, they are read back from the store once they are durable.
pub(super) const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Ops that wait to be applied, as far as memory allows.
#[derive(Debug, Default)]
pub(super) struct Queue {
    shards: BTreeMap<ShardId, VecDeque<Placed>>,
    bytes: usize,
}

impl Queue {
    /// Keeps an op, unless there is no room.
    pub(super) fn push(&mut self, placed: Placed) {
        if self.bytes + placed.op.size() > QUEUE_BYTES_MAX {
            return;
        }
        self.bytes += placed.op.size();
        self.shards.entry(placed.op.header().shard.clone()).or_default().push_back(placed);
    }

    /// Returns the op with this arrival, where none lies before it.
    fn next(&self, shard: &ShardId, arrival: u64) -> Option<&Arc<Op>> {
        self.shards.get(shard)?.front().filter(|placed| placed.arrival == arrival).map(|placed| &placed.op)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
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
pub(super) struct Work {
    pub(super) tx: TxRef,
    pub(super) op: Arc<Op>,
}

impl Work {
    /// Returns the transactions of an op.
    pub(super) fn all_of(op: &Arc<Op>) -> impl Iterator<Item = Self> + use<> {
        let op = op.clone();
        TxRef::all_of(&op).map(move |tx| Self { tx, op: op.clone() })
    }

    pub(super) fn transaction(&self) -> Option<(&Transaction, &[Option<Body>])> {
        self.op.transactions().nth(usize::from(self.tx.tx))
    }

    fn position(&self) -> Position {
        self.tx.position()
    }
}

/// Why a transaction's changes have no effect, where they have none.
pub(super) type Void = Option<(TxState, String)>;

/// Transactions that are offered to a document's gate together.
pub(super) type Offered = Vec<(Work, Void)>;

/// What the verdict means for the documents.
enum Fate {
    /// Its changes count.
    Accepted,
    /// Its changes are part of history, without effect.
    Void(TxState, String),
    /// Its changes stay outside.
    Excluded(TxState, String),
}

impl Replica {
    /// Applies ops to their documents, at most about `transactions_max` transactions. Returns whether there is more.
    pub fn work(&mut self, now: Now, transactions_max: usize, effects: &mut Vec<super::Effect>) -> bool {
        if self.halted.is_some() || !self.authority.rules().can_judge() {
            return false;
        }
        self.now = now;
        self.expiries.set_now(now);
        self.regain();
        self.rejudge(transactions_max);
        self.carry_out_erasures();
        self.check_documents();
        self.find_claims();
        self.call_spilled();
        let mut list = Vec::new();
        while list.len() < transactions_max {
            let Some(tx) = self.ready.pop_first() else { break };
            self.owed.remove(&tx);
            if let Some(op) = self.load_op(&tx) {
                list.push(Work { tx, op: self.without_erased(op) });
            }
        }
        // What is looked at again may leave its documents, and what builds on it with it: by then every change in a document
        // must have its place in an op.
        let mut is_again = !list.is_empty();
        for shard in self.due_shards() {
            while list.len() < transactions_max && self.is_due(&shard) {
                self.gather(&shard, &mut list);
            }
        }
        is_again |= list.iter().any(|work| work.op.header().session == self.session);
        if is_again {
            self.sign_open_ops();
        }
        if !list.is_empty() {
            self.apply(list);
        }
        self.follow_kept_branches();
        self.tell_wants(now, effects);
        self.tell_accused(effects);
        if !self.has_some_to_look_at_again() {
            self.rests += 1;
        }
        self.has_work()
    }

    /// Whether what was looked at before is to be looked at again: what came since may let it count.
    pub(super) fn has_some_to_look_at_again(&self) -> bool {
        !self.ready.is_empty()
            || self.spilled.is_due(self.now.monotonic_ms)
            || self.rejudging.keys().any(|stream| !self.swapping.contains(stream))
    }

    /// Whether there is anything to be applied or judged.
    fn has_work(&self) -> bool {
        self.has_some_to_look_at_again()
            || self.loose.is_due()
            || self.has_erasures_to_carry_out()
            || self.has_documents_to_check()
            || self.has_claims_to_find()
            || self.rejudging.keys().any(|stream| !self.swapping.contains(stream))
            || self.shards.keys().any(|shard| self.is_due(shard))
    }

    /// Applies what was just signed, where nothing lies before it: its documents hold it already, and the batch that holds
    /// the op can say so.
    pub(super) fn follow_signed(&mut self) {
        if self.signed.is_empty() || !self.authority.rules().can_judge() {
            return;
        }
        let mut list = Vec::new();
        for shard in self.due_shards() {
            while self.next_op(&shard).is_some_and(|op| self.signed.contains(&op.id())) {
                self.gather(&shard, &mut list);
            }
        }
        if !list.is_empty() {
            self.apply(list);
        }
    }

    fn due_shards(&self) -> Vec<ShardId> {
        self.shards.keys().filter(|shard| self.is_due(shard)).cloned().collect()
    }

    /// Whether the next op of a shard can be applied: what is not durable yet is to be had from memory only.
    fn is_due(&self, shard: &ShardId) -> bool {
        self.shards.get(shard).is_some_and(|state| state.applied < state.durable) || self.next_op(shard).is_some()
    }

    fn next_op(&self, shard: &ShardId) -> Option<&Arc<Op>> {
        self.queue.next(shard, self.shards.get(shard)?.applied + 1)
    }

    /// Collects the transactions of the next op of a shard.
    fn gather(&mut self, shard: &ShardId, list: &mut Vec<Work>) {
        let Some(state) = self.shards.get_mut(shard) else { return };
        state.applied += 1;
        state.dirty = true;
        let arrival = state.applied;
        let Some(op) = self.queue.take(shard, arrival).or_else(|| self.arrived(shard, arrival)) else { return };
        let op = self.without_erased(op);
        let header = op.header();
        if header.shard.is_control() {
            return;
        }
        // What was signed here is in the documents since it was written; only a verdict that changed meanwhile, or an
        // earlier transaction of the same request, has to be carried out.
        let is_own = self.signed.remove(&op.id());
        for work in Work::all_of(&op) {
            if !is_own || !matches!(self.fate(&work), Fate::Accepted) {
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
        if let Some(op) = self.undurable.get(tx) {
            return Some(op);
        }
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
        // Streams in their order, and one batch the same whatever order it came in.
        list.sort_by_key(|work| work.tx);
        list.dedup_by_key(|work| work.tx);
        let mut singles: BTreeMap<DocKey, Offered> = BTreeMap::new();
        let mut others = Vec::new();
        for work in list {
            match self.fate(&work) {
                Fate::Excluded(state, reason) => {
                    self.take_out(&work.op, work.tx);
                    self.exclude(&work.op, work.tx, state, reason);
                }
                Fate::Accepted => self.sort_in(work, None, &mut singles, &mut others),
                Fate::Void(state, reason) => self.sort_in(work, Some((state, reason)), &mut singles, &mut others),
            }
        }
        for (key, works) in singles {
            self.apply_to_document(&key, works);
        }
        for (work, void) in others {
            self.apply_transaction(&work, void);
        }
    }

    /// Sorts a transaction by whether it touches one document or several.
    fn sort_in(&mut self, work: Work, void: Void, singles: &mut BTreeMap<DocKey, Offered>, others: &mut Offered) {
        let header = work.op.header();
        match header.transactions().get(usize::from(work.tx.tx)).map(|transaction| &*transaction.changes) {
            Some([change]) => {
                let key = DocKey { collection: header.collection().clone(), doc: change.doc.clone() };
                singles.entry(key).or_default().push((work, void));
            }
            Some(_) | None => {
                // Later ones of its stream come before it in this slice.
                self.waits.claim(work.tx, &work.op);
                others.push((work, void));
            }
        }
    }

    /// Returns what the rule says of a transaction. What a fork cuts off is forked, whatever else is wrong with it: not
    /// everybody holds all branches, and nobody judges one that he does not follow.
    pub(super) fn verdict(&self, at: &Position, header: &Header, transaction: usize) -> Verdict {
        let chains = self.chains();
        let forked = self.authority.fork_verdict(at, header.certificate, &chains);
        forked.unwrap_or_else(|| self.authority.judge(at, header, transaction, &chains))
    }

    /// Decides what the verdict, and an earlier transaction of the same request, mean.
    fn fate(&mut self, work: &Work) -> Fate {
        let header = work.op.header();
        match self.verdict(&work.position(), header, usize::from(work.tx.tx)) {
            Verdict::Allowed => {}
            Verdict::Deferred(missing) => {
                if let Missing::Pinned(pin) = missing {
                    self.need_pin(&header.shard, pin);
                }
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
                    self.owe(other);
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
}
