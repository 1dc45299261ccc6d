//! What was written by whom, found in the ops: the part of the audit that every replica has.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::read::{ReadError, Reader};
use super::records::{HeadRecord, TxState};
use crate::hlc::Hlc;
use crate::id::{ClusterId, CollectionName, OpId, PrincipalId, StreamId};
use crate::op::Op;
use crate::store::keys::{Key as _, OpKey, QuarantineKey, WrittenForKey};
use crate::store::{Keyspace, Order, Read, Span, envelope};

/// Ops read in one call, so that a filter that matches little stays bounded.
const OPS_READ_MAX: usize = 20_000;

/// Which writes are wanted; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct WrittenQuery {
    /// By whom, or on whose behalf, and the certificates that this principal has or had.
    pub principal: Option<(PrincipalId, BTreeSet<OpId>)>,
    /// In which collection; acts on no collection are in none.
    pub collection: Option<CollectionName>,
    /// At or after this, in milliseconds since 1970, as the author says.
    pub since_ms: Option<u64>,
    /// Before this.
    pub until_ms: Option<u64>,
}

/// The place of a transaction, in the order of times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WrittenAt {
    /// The op's time.
    pub hlc: Hlc,
    /// Its stream.
    pub stream: StreamId,
    /// Its sequence number.
    pub seq: u64,
    /// Which of its transactions; of an act 0.
    pub transaction: u16,
}

/// A transaction or an act.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its place.
    pub at: WrittenAt,
    /// The op.
    pub op: Op,
    /// Why it has no effect here, if it has none.
    pub state: Option<(TxState, String)>,
}

/// What was found, oldest first.
#[derive(Clone, Debug, Default)]
pub struct WrittenPage {
    /// The transactions and acts.
    pub items: Vec<Written>,
    /// Up to where was looked, if there may be more behind it.
    pub reached: Option<WrittenAt>,
}

/// One stream, at its next op.
struct Strand {
    stream: StreamId,
    /// Its last op.
    last: u64,
}

impl Reader {
    /// Returns the certificates that streams here are bound to.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn certificates(&self) -> Result<BTreeSet<OpId>, ReadError> {
        let heads = heads(&**self.store())?;
        Ok(heads.into_iter().map(|(_, head)| head.key.certificate).collect())
    }

    /// Returns transactions and acts, oldest first, behind a place: until there are `limit` of them, or many ops were read. Of a
    /// principal only the streams are read in which somebody wrote for it, or that are bound to a certificate of its own, and those of
    /// the control log; in each, the first op is found by halves.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn written(
        &self,
        cluster: ClusterId,
        query: &WrittenQuery,
        after: Option<WrittenAt>,
        limit: usize,
    ) -> Result<WrittenPage, ReadError> {
        let store = self.store().snapshot();
        let store = &*store;
        let start = Hlc::new(query.since_ms.unwrap_or_default(), 0).max(after.map_or(Hlc::ZERO, |after| after.hlc));
        let end = query.until_ms.map_or(u64::MAX, |until| Hlc::new(until, 0).raw());
        let written_for = query.principal.as_ref().map(|(id, _)| written_for(store, *id)).transpose()?;
        let mut strands = Vec::new();
        let mut next: BinaryHeap<Reverse<(Hlc, StreamId, u64, usize)>> = BinaryHeap::new();
        let mut ops_read = 0;
        for (stream, head) in heads(store)? {
            let is_control = head.key.shard.is_control();
            let of_principal = query.principal.as_ref().is_none_or(|(_, certificates)| {
                certificates.contains(&head.key.certificate)
                    || written_for.as_ref().is_some_and(|streams| streams.contains(&stream))
            });
            // An act on a collection lies in the control log.
            let in_collection =
                is_control || query.collection.as_ref().is_none_or(|name| head.key.shard.collection == *name);
            if head.hlc < start || !in_collection || !(of_principal || is_control) {
                continue;
            }
            let first = first_at(store, cluster, stream, head.seq, start, &mut ops_read)?;
            if let Some(hlc) = hlc_at(store, cluster, stream, first)? {
                next.push(Reverse((hlc, stream, first, strands.len())));
            }
            strands.push(Strand { stream, last: head.seq });
        }
        let mut page = WrittenPage::default();
        while let Some(Reverse((hlc, stream, seq, strand))) = next.pop() {
            if hlc.raw() >= end {
                continue;
            }
            let Some(op) = op_at(store, cluster, stream, seq)? else { continue };
            ops_read += 1;
            for transaction in 0..transactions(&op) {
                let at = WrittenAt { hlc, stream, seq, transaction };
                if after.is_some_and(|after| at <= after) {
                    continue;
                }
                if page.items.len() >= limit {
                    // The one before this one is where to go on.
                    page.reached = page.items.last().map(|last| last.at);
                    return Ok(page);
                }
                if query.matches(&op, transaction) {
                    let state = state(store, &op, transaction)?;
                    page.items.push(Written { at, op: op.clone(), state });
                }
            }
            if ops_read >= OPS_READ_MAX {
                page.reached = Some(WrittenAt { hlc, stream, seq, transaction: u16::MAX });
                return Ok(page);
            }
            let Some(Strand { stream, last }) = strands.get(strand) else { continue };
            if seq < *last
                && let Some(hlc) = hlc_at(store, cluster, *stream, seq + 1)?
            {
                next.push(Reverse((hlc, *stream, seq + 1, strand)));
            }
        }
        Ok(page)
    }
}

impl WrittenQuery {
    fn matches(&self, op: &Op, transaction: u16) -> bool {
        let header = op.header();
        let (principal, collection) = match header.control() {
            Some(control) => {
                let by_own = self.principal.as_ref().is_some_and(|(_, own)| own.contains(&header.certificate));
                let collection = match &control.act {
                    crate::op::Act::Collection(config) => Some(&config.name),
                    _ => None,
                };
                let by_whom = self.principal.as_ref().map(|(id, _)| *id);
                (by_whom.filter(|id| by_own || control.for_whom == Some(*id)), collection)
            }
            None => {
                let found = header.transactions().get(usize::from(transaction));
                (found.map(|found| found.principal), Some(header.collection()))
            }
        };
        self.principal.as_ref().is_none_or(|(id, _)| principal == Some(*id))
            && self.collection.as_ref().is_none_or(|name| collection == Some(name))
    }
}

/// Returns how many transactions an op has; an act counts as one.
fn transactions(op: &Op) -> u16 {
    u16::try_from(op.header().transactions().len()).unwrap_or(u16::MAX).max(u16::from(op.header().control().is_some()))
}

fn heads(store: &dyn Read) -> Result<Vec<(StreamId, HeadRecord)>, ReadError> {
    let damaged = |what: String| ReadError::Damaged { keyspace: Keyspace::Heads, what };
    let entries = store.scan(Keyspace::Heads, &Span::all(), Order::Ascending);
    entries
        .map(|entry| {
            let (key, value) = entry?;
            let stream = StreamId::decode(&key).map_err(|error| damaged(error.to_string()))?;
            let value = envelope::open(value).map_err(|error| damaged(error.to_string()))?;
            Ok((stream, HeadRecord::decode(&value).map_err(|error| damaged(error.to_string()))?))
        })
        .collect()
}

/// Returns the streams in which others write for a principal.
fn written_for(store: &dyn Read, principal: PrincipalId) -> Result<BTreeSet<StreamId>, ReadError> {
    let entries = store.scan(Keyspace::Index, &WrittenForKey::of(principal), Order::Ascending);
    let damaged = |what: String| ReadError::Damaged { keyspace: Keyspace::Index, what };
    entries
        .map(|entry| {
            let key = WrittenForKey::decode(&entry?.0).map_err(|error| damaged(error.to_string()))?;
            Ok(key.stream)
        })
        .collect()
}

fn op_at(store: &dyn Read, cluster: ClusterId, stream: StreamId, seq: u64) -> Result<Option<Op>, ReadError> {
    let damaged = |what: String| ReadError::Damaged { keyspace: Keyspace::Ops, what };
    let Some(value) = store.get(Keyspace::Ops, &OpKey::new(stream, seq).encode())? else { return Ok(None) };
    let value = envelope::open(value).map_err(|error| damaged(error.to_string()))?;
    Op::decode(&value, cluster).map(Some).map_err(|error| damaged(error.to_string()))
}

fn hlc_at(store: &dyn Read, cluster: ClusterId, stream: StreamId, seq: u64) -> Result<Option<Hlc>, ReadError> {
    Ok(op_at(store, cluster, stream, seq)?.map(|op| op.header().hlc))
}

/// Returns the first op of a stream that is not before a time: times do not fall in a stream.
fn first_at(
    store: &dyn Read,
    cluster: ClusterId,
    stream: StreamId,
    last: u64,
    start: Hlc,
    ops_read: &mut usize,
) -> Result<u64, ReadError> {
    let (mut low, mut high) = (1, last);
    while low < high && start > Hlc::ZERO {
        let middle = low + (high - low) / 2;
        *ops_read += 1;
        if hlc_at(store, cluster, stream, middle)?.is_some_and(|hlc| hlc < start) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Returns why a transaction has no effect here, if that is so.
fn state(store: &dyn Read, op: &Op, transaction: u16) -> Result<Option<(TxState, String)>, ReadError> {
    let damaged = |what: String| ReadError::Damaged { keyspace: Keyspace::Quarantine, what };
    let key = QuarantineKey { op: op.id(), transaction };
    let Some(value) = store.get(Keyspace::Quarantine, &key.encode())? else { return Ok(None) };
    let value = envelope::open(value).map_err(|error| damaged(error.to_string()))?;
    let record = super::records::TxRecord::decode(&value).map_err(|error| damaged(error.to_string()))?;
    Ok(Some((record.state, record.reason)))
}
