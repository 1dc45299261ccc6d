//! What is read from the store for peers: of each answer no more than it may have, whatever a stream holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Replica;
use crate::id::{OpId, StreamId};
use crate::op::Op;
use crate::replication::limits::BRANCHES_MAX;
use crate::replication::{StoredOp, Tip};
use crate::store::keys::{Key as _, OpKey};
use crate::store::{Keyspace, Order, Store, StoreError, envelope};

/// What may be looked at to find one branch, in bytes of ops: some thousand ops of a copied data directory.
pub(super) const LOOKED_AT_BYTES_MAX: usize = 8 << 20;
/// What an op counts at least: a read.
const LOOK_BYTES_MIN: usize = 1 << 10;

/// A place on a branch.
type Place = (u64, OpId);

impl Replica {
    /// Reads consecutive ops of the main chain, at least one if it is there.
    pub(super) fn read_ops(
        &mut self,
        stream: StreamId,
        from_seq: u64,
        ops_max: usize,
        bytes_max: usize,
    ) -> Vec<StoredOp> {
        let store: Arc<dyn Store> = self.store.clone();
        let mut ops: Vec<StoredOp> = Vec::new();
        let mut bytes = 0;
        let mut next = from_seq;
        // Behind each op of a forked stream lie those of the branches: past these the scan begins anew.
        loop {
            let span = OpKey::stream(stream).starting_at(&OpKey::new(stream, next).encode());
            let mut is_branched = false;
            for entry in store.scan(Keyspace::Ops, &span, Order::Ascending) {
                let Some((key, value)) = self.checked(entry) else { return ops };
                let Ok(key) = OpKey::decode(&key) else { return ops };
                is_branched = key.branch.is_some() && key.seq < next;
                if is_branched {
                    break;
                }
                if key.branch.is_some() || key.seq != next || ops.len() >= ops_max {
                    return ops;
                }
                let Some(op) = self.stored_op(value) else { return ops };
                if !ops.is_empty() && bytes + op.bytes.len() > bytes_max {
                    return ops;
                }
                bytes += op.bytes.len();
                next += 1;
                ops.push(op);
            }
            if !is_branched {
                return ops;
            }
        }
    }

    /// Unwraps a read of the store for a peer. What is damaged is told and not given, the peer asks another; a read that fails
    /// otherwise stops the replica.
    fn checked<T>(&mut self, entry: Result<T, StoreError>) -> Option<T> {
        match entry {
            Ok(entry) => Some(entry),
            Err(error @ StoreError::Damaged { .. }) => {
                self.note_damage(error.to_string());
                None
            }
            Err(error) => {
                self.halt(format!("read the store: {error}"));
                None
            }
        }
    }

    fn stored_op(&mut self, value: bytes::Bytes) -> Option<StoredOp> {
        let bytes = envelope::open(value).ok()?;
        match Op::decode(&bytes, self.identity.cluster) {
            Ok(op) => {
                let bytes = self.bare_of_erased(&op).map_or(bytes, |bare| bare.encode().into());
                Some(StoredOp { id: op.id(), signed: op.signature().is_some(), bytes })
            }
            Err(error) => {
                self.note_damage(format!("a stored op is damaged: {error}"));
                None
            }
        }
    }

    /// Reads the chain that holds `through`, or without it up to [`BRANCHES_MAX`] of them, the main chain first; each from
    /// `from_seq` on, and no more than `ops_max` ops or `bytes_max` bytes, but one op.
    pub(super) fn read_branches(
        &mut self,
        stream: StreamId,
        from_seq: u64,
        through: Option<Tip>,
        ops_max: usize,
        bytes_max: usize,
    ) -> Vec<Vec<StoredOp>> {
        let main = self.read_ops(stream, from_seq, ops_max, bytes_max);
        if let Some(tip) = through
            && self.chains().main(&stream, tip.seq) == Some(tip.id)
        {
            return vec![main];
        }
        let end = from_seq.saturating_add(ops_max as u64);
        let ways = match through {
            // One that is too far off to be found lies on a branch that goes through here: most likely there is one.
            Some(tip) => self
                .way_down(stream, (tip.seq, tip.id), from_seq, end)
                .or_else(|| self.branch_ways(stream, from_seq, end, 1).pop())
                .into_iter()
                .collect(),
            None => self.branch_ways(stream, from_seq, end, BRANCHES_MAX),
        };
        let branches: Vec<_> = ways
            .into_iter()
            .map(|way| {
                // What lies below the fork belongs to the main chain.
                let shared = usize::try_from(way.parts_at.saturating_sub(from_seq)).unwrap_or(usize::MAX);
                let mut ops: Vec<StoredOp> = main.iter().take(shared).cloned().collect();
                let mut bytes: usize = ops.iter().map(|op| op.bytes.len()).sum();
                let places = if ops.len() == shared { way.places } else { Vec::new() };
                for (seq, id) in places {
                    let Some(op) = self.branch_value(stream, seq, id).and_then(|value| self.stored_op(value)) else {
                        break;
                    };
                    bytes += op.bytes.len();
                    if ops.len() >= ops_max.max(1) || (!ops.is_empty() && bytes > bytes_max) {
                        break;
                    }
                    ops.push(op);
                }
                ops
            })
            .collect();
        through.is_none().then_some(main).into_iter().chain(branches).collect()
    }

    /// Returns the ways to the last ops of some branches before `end`, as far as these are found.
    fn branch_ways(&mut self, stream: StreamId, from_seq: u64, end: u64, ways_max: usize) -> Vec<Way> {
        let tips = self.branch_tips(stream, from_seq, end);
        tips.into_iter().take(ways_max).filter_map(|tip| self.way_down(stream, tip, from_seq, end)).collect()
    }

    /// Returns the ops of branches before `end` that no other one found there names as the one before, the last first.
    fn branch_tips(&mut self, stream: StreamId, from_seq: u64, end: u64) -> Vec<Place> {
        let Some(fork) = self.heads.get(&stream).and_then(|head| head.fork) else { return Vec::new() };
        let span = OpKey::stream(stream).starting_at(&OpKey::new(stream, from_seq.max(fork)).encode());
        let store: Arc<dyn Store> = self.store.clone();
        let (mut found, mut named, mut looked_at) = (Vec::new(), BTreeSet::new(), 0);
        for entry in store.scan(Keyspace::Ops, &span, Order::Ascending) {
            let Some((key, value)) = self.checked(entry) else { return Vec::new() };
            let Ok(key) = OpKey::decode(&key) else { continue };
            looked_at += value.len().max(LOOK_BYTES_MIN);
            if key.seq >= end || looked_at > LOOKED_AT_BYTES_MAX {
                break;
            }
            let Some(id) = key.branch else { continue };
            let Ok(bytes) = envelope::open(value) else { continue };
            if let Ok(op) = Op::decode(&bytes, self.identity.cluster) {
                named.insert(op.header().prev);
                found.push((key.seq, id));
            }
        }
        found.retain(|(_, id)| !named.contains(id));
        found.reverse();
        found
    }

    /// Goes down a branch from one of its ops, to where it leaves the main chain or to `from_seq`; none if that is too far.
    fn way_down(&mut self, stream: StreamId, tip: Place, from_seq: u64, end: u64) -> Option<Way> {
        let mut places = Vec::new();
        let (mut at, mut looked_at) = (tip, 0);
        while at.0 >= from_seq
            && let Some(value) = self.branch_value(stream, at.0, at.1)
        {
            looked_at += value.len().max(LOOK_BYTES_MIN);
            if looked_at > LOOKED_AT_BYTES_MAX {
                return None;
            }
            let op = Op::decode(&envelope::open(value).ok()?, self.identity.cluster).ok()?;
            if at.0 < end {
                places.push(at);
            }
            at = (at.0.checked_sub(1)?, op.header().prev);
        }
        places.reverse();
        Some(Way { parts_at: at.0 + 1, places })
    }

    /// Reads a durable op of a branch, in its envelope.
    fn branch_value(&mut self, stream: StreamId, seq: u64, id: OpId) -> Option<bytes::Bytes> {
        let key = OpKey { stream, seq, branch: Some(id) };
        let value = self.store.get(Keyspace::Ops, &key.encode());
        self.checked(value)?
    }
}

/// The way along a branch.
struct Way {
    /// Where it leaves the main chain, or where the way was asked to begin if that is later.
    parts_at: u64,
    /// Its ops from there on, as far as one answer can reach.
    places: Vec<Place>,
}
