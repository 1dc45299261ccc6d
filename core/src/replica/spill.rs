//! Transactions that wait and for whose names there is no room in memory: they lie on the disk, in the keyspace `pending`.
//!
//! Each has an entry that says for what it waits, and one for each name by which it is found: a change that it waits for, an
//! earlier transaction, a number that it claims. So what becomes of a transaction does not depend on where it waits. Changes are
//! asked for by name as well, though less often than those for which something waits in memory.
//!
//! Invariant: a transaction that waits is in memory or on the disk, never in both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Replica;
use super::open::{OpenError, damaged};
use super::records::TxRef;
use super::waits::{self, Awaited, Number};
use crate::id::{ChangeHash, OpId, ShardId, StreamId};
use crate::op::{Op, codec};
use crate::store::keys::Key as _;
use crate::store::{Keyspace, Order, Span, envelope};

/// First byte of the keys in the keyspace `pending`, and the second one.
pub(super) const SPILLED: u8 = 6;
const TRANSACTION: u8 = 0;
const FOR_CHANGE: u8 = 1;
const BEHIND: u8 = 2;
const CLAIM: u8 = 3;

/// Bytes of an entry: as many names as one transaction has at most.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Transactions that are called together.
const CALLED_MAX: usize = 64;
/// How often some are called although nothing came by their names: where verdicts may have changed, or at a start; and at any other
/// time, because there may be room for them in memory. What lies there may be a liar's, so that all of it costs little.
const URGENT_INTERVAL_MS: u64 = 100;
const CALM_INTERVAL_MS: u64 = 10_000;

/// What is known in memory of what waits on the disk.
#[derive(Debug, Default)]
pub(super) struct Spilled {
    count: u64,
    /// The last one that was called in turn, whether all are to be called soon, and when the next ones are.
    turn: Option<TxRef>,
    is_urgent: bool,
    turn_at_ms: u64,
    /// Names by which more are to be called, each with the last one that was.
    calling: BTreeMap<Vec<u8>, Option<TxRef>>,
}

/// The names by which a transaction is found, as the keys of their entries go on behind the kind.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Entry(Vec<(u8, serde_bytes::ByteBuf)>);

impl Spilled {
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Whether some are to be called.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.count > 0 && (!self.calling.is_empty() || self.turn_at_ms <= now_ms)
    }

    /// Has all be looked at again, page by page.
    pub(super) const fn recall_all(&mut self) {
        (self.turn, self.is_urgent, self.turn_at_ms) = (None, true, 0);
    }
}

fn tx_bytes(tx: &TxRef) -> Vec<u8> {
    let mut out = Vec::with_capacity(74);
    tx.stream.write(&mut out);
    out.extend(tx.seq.to_be_bytes());
    out.extend(tx.op.as_bytes());
    out.extend(tx.tx.to_be_bytes());
    out
}

/// Reads a transaction from the end of a key.
fn tx_of(key: &[u8]) -> Option<TxRef> {
    let bytes = key.last_chunk::<74>()?;
    let (stream, rest) = bytes.split_at_checked(32)?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (op, tx) = rest.split_at_checked(32)?;
    Some(TxRef {
        stream: StreamId::from_slice(stream)?,
        seq: u64::from_be_bytes(*seq),
        op: OpId::from_slice(op)?,
        tx: u16::from_be_bytes(tx.try_into().ok()?),
    })
}

/// Returns how the keys of a name begin.
fn prefix(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[SPILLED, kind], name].concat()
}

fn key(kind: u8, name: &[u8], tx: &TxRef) -> Vec<u8> {
    let mut key = prefix(kind, name);
    key.extend(tx_bytes(tx));
    key
}

fn number_bytes(number: &Number) -> Vec<u8> {
    let mut out = Vec::new();
    number.doc.write(&mut out);
    out.extend(number.actor.as_bytes());
    out.extend(number.seq.to_be_bytes());
    out
}

fn names_of(numbers: &[Number], awaited: &Awaited) -> Vec<(u8, serde_bytes::ByteBuf)> {
    let mut names: Vec<(u8, Vec<u8>)> = numbers.iter().map(|number| (CLAIM, number_bytes(number))).collect();
    names.extend(awaited.changes().iter().map(|hash| (FOR_CHANGE, hash.as_bytes().to_vec())));
    if let Awaited::Earlier(earlier) = awaited {
        names.push((BEHIND, tx_bytes(earlier)));
    }
    names.into_iter().map(|(kind, name)| (kind, serde_bytes::ByteBuf::from(name))).collect()
}

impl Replica {
    /// Notes that a transaction waits, and for what from now on.
    pub(super) fn keep_waiting(&mut self, tx: TxRef, op: &Op, awaited: &Awaited) {
        if self.waits.has_room_for(tx, op, awaited) {
            self.unspill(tx, &op.header().shard);
            let free = self.waits.put(tx, op, awaited.clone());
            return self.settle_wants(&op.header().shard, &free);
        }
        let free = self.waits.release(tx);
        self.settle_wants(&op.header().shard, &free);
        let entry = Entry(names_of(&waits::numbers(op, tx), awaited));
        if self.spilled_entry(&tx).is_some_and(|known| known == entry) {
            return;
        }
        self.unspill(tx, &op.header().shard);
        for (kind, name) in &entry.0 {
            self.put(Keyspace::Pending, key(*kind, name, &tx), &[]);
        }
        self.put(Keyspace::Pending, key(TRANSACTION, &[], &tx), &codec::encode(&entry));
        self.spilled.count += 1;
    }

    /// Notes that a transaction waits no longer.
    pub(super) fn leave_waits(&mut self, tx: TxRef, shard: &ShardId) {
        self.unspill(tx, shard);
        let free = self.waits.release(tx);
        self.settle_wants(shard, &free);
    }

    /// Removes a transaction from what waits on the disk.
    fn unspill(&mut self, tx: TxRef, shard: &ShardId) {
        let Some(Entry(names)) = self.spilled_entry(&tx) else { return };
        for (kind, name) in names {
            self.delete(Keyspace::Pending, key(kind, &name, &tx));
            // Others that wait for it have it asked for again.
            if kind == FOR_CHANGE
                && let Some(hash) = ChangeHash::from_slice(&name).filter(|hash| !self.wanted.contains_key(hash))
            {
                self.settled.push((shard.clone(), hash));
            }
        }
        self.delete(Keyspace::Pending, key(TRANSACTION, &[], &tx));
        self.spilled.count -= 1;
    }

    fn spilled_entry(&mut self, tx: &TxRef) -> Option<Entry> {
        if self.spilled.count == 0 {
            return None;
        }
        let value = self.read_back(Keyspace::Pending, &key(TRANSACTION, &[], tx))?;
        match codec::decode(&value, ENTRY_BYTES_MAX) {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.halt(format!("what waits on the disk is damaged: {error}"));
                None
            }
        }
    }

    // ---- what comes ----

    /// Has those looked at again that wait for a change.
    pub(super) fn wake_for(&mut self, hash: &ChangeHash) {
        self.ready.extend(self.waits.for_change(hash));
        self.call(prefix(FOR_CHANGE, hash.as_bytes()));
    }

    /// Has those looked at again that wait for an earlier transaction.
    pub(super) fn wake_behind(&mut self, tx: TxRef) {
        self.ready.extend(self.waits.behind(&tx));
        self.call(prefix(BEHIND, &tx_bytes(&tx)));
    }

    fn call(&mut self, name: Vec<u8>) {
        if self.spilled.count > 0 && self.spilled_under(&name, None, 1).next().is_some() {
            self.spilled.calling.insert(name, None);
        }
    }

    /// Returns an earlier transaction that claims a number.
    pub(super) fn claimed_earlier(&mut self, number: &Number, tx: TxRef) -> Option<TxRef> {
        let in_memory = self.waits.earlier(number, tx);
        if self.spilled.count == 0 {
            return in_memory;
        }
        let on_disk = self.spilled_under(&prefix(CLAIM, &number_bytes(number)), None, 1).next();
        in_memory.into_iter().chain(on_disk.filter(|first| *first < tx)).min()
    }

    /// Calls some of those whose time has come.
    pub(super) fn call_spilled(&mut self) {
        let now_ms = self.now.monotonic_ms;
        if !self.ready.is_empty() || !self.spilled.is_due(now_ms) {
            return;
        }
        let (name, after) =
            self.spilled.calling.pop_first().unwrap_or_else(|| (prefix(TRANSACTION, &[]), self.spilled.turn));
        let called: Vec<TxRef> = self.spilled_under(&name, after.as_ref(), CALLED_MAX).collect();
        let last = called.last().copied().filter(|_| called.len() == CALLED_MAX);
        self.ready.extend(called);
        if name != prefix(TRANSACTION, &[]) {
            self.spilled.calling.extend(last.map(|last| (name, Some(last))));
            return;
        }
        self.spilled.turn = last;
        self.spilled.is_urgent &= last.is_some();
        let interval_ms = if self.spilled.is_urgent { URGENT_INTERVAL_MS } else { CALM_INTERVAL_MS };
        self.spilled.turn_at_ms = now_ms.saturating_add(interval_ms);
    }

    /// Returns transactions that are found by a name, in order, those behind one and at most so many.
    fn spilled_under(
        &mut self,
        prefix: &[u8],
        after: Option<&TxRef>,
        count: usize,
    ) -> impl Iterator<Item = TxRef> + use<> {
        let after = after.map(|tx| [prefix, &tx_bytes(tx)].concat());
        let keys = self.keys_back(Keyspace::Pending, prefix, after.as_deref(), count);
        keys.into_iter().filter_map(|key| tx_of(&key))
    }

    /// Takes up what waited on the disk when the replica was last open: each is looked at again, page by page.
    pub(super) fn resume_spilled(&mut self) -> Result<(), OpenError> {
        let store = self.store.clone();
        for entry in store.scan(Keyspace::Pending, &Span::prefix(prefix(TRANSACTION, &[])), Order::Ascending) {
            let (place, value) = entry?;
            let value = envelope::open(value).map_err(|error| damaged(Keyspace::Pending, error))?;
            let _: Entry = codec::decode(&value, ENTRY_BYTES_MAX).map_err(|error| damaged(Keyspace::Pending, error))?;
            tx_of(&place).ok_or_else(|| damaged(Keyspace::Pending, "a key names no transaction"))?;
            self.spilled.count += 1;
        }
        self.spilled.recall_all();
        Ok(())
    }

    /// Whether no number is claimed by what waits.
    pub(super) fn is_nothing_claimed(&self) -> bool {
        self.spilled.count == 0 && self.waits.is_nothing_claimed()
    }

    /// Whether a transaction waits on the disk.
    pub(super) fn is_spilled(&mut self, tx: &TxRef) -> bool {
        self.spilled_entry(tx).is_some()
    }
}
