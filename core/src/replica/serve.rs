//! What is read from the store for peers: of each answer no more than it may have, whatever a stream holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Replica;
use crate::id::{OpId, StreamId};
use crate::op::Op;
use crate::replication::{self, StoredOp, Tip};
use crate::store::keys::{Key as _, OpKey};
use crate::store::{Keyspace, Order, Store, envelope};

/// Ops of branches that are looked at to find where these end. A stream with more is one that somebody forked on purpose.
const BRANCH_OPS_LOOKED_AT_MAX: usize = 16_384;

impl Replica {
    /// Reads consecutive ops of the main chain, at least one if it is there.
    pub(super) fn read_ops(
        &mut self,
        stream: StreamId,
        from_seq: u64,
        ops_max: usize,
        bytes_max: usize,
    ) -> Vec<StoredOp> {
        let span = OpKey::stream(stream).starting_at(&OpKey::new(stream, from_seq).encode());
        let mut ops = Vec::new();
        let mut bytes = 0;
        let mut next = from_seq;
        for entry in self.store.scan(Keyspace::Ops, &span, Order::Ascending) {
            let Some((key, value)) = self.checked(entry) else { break };
            let Ok(key) = OpKey::decode(&key) else { break };
            if key.branch.is_some() {
                continue;
            }
            let Some(op) = self.stored_op(value) else { break };
            if key.seq != next || ops.len() >= ops_max || (!ops.is_empty() && bytes + op.bytes.len() > bytes_max) {
                break;
            }
            bytes += op.bytes.len();
            next += 1;
            ops.push(op);
        }
        ops
    }

    /// Unwraps a read of the store; a failed one stops the replica.
    fn checked<T>(&mut self, entry: Result<T, crate::store::StoreError>) -> Option<T> {
        entry.map_err(|error| self.halt(format!("read the store: {error}"))).ok()
    }

    fn stored_op(&mut self, value: bytes::Bytes) -> Option<StoredOp> {
        let bytes = envelope::open(value).ok()?;
        match Op::decode(&bytes, self.identity.cluster) {
            Ok(op) => Some(StoredOp { id: op.id(), signed: op.signature().is_some(), bytes }),
            Err(error) => {
                self.halt(format!("a stored op is damaged: {error}"));
                None
            }
        }
    }

    /// Reads the chain that holds `through`, or without it every branch, the main chain first, each from `from_seq` on.
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
        // Beyond what one answer can hold nothing has to be known, except how it hangs together.
        let end = from_seq.saturating_add(ops_max as u64);
        let tips = match through {
            Some(tip) => vec![(tip.seq, tip.id)],
            None => self.branch_tips(stream, from_seq, end),
        };
        let mut branches = Vec::new();
        if through.is_none() {
            branches.push(main.clone());
        }
        for (seq, id) in tips.into_iter().take(replication::limits::BRANCHES_MAX) {
            let mut chain = Vec::new();
            let (mut at, mut at_id) = (seq, id);
            while at >= from_seq
                && let Some(op) = self.branch_op(stream, at, at_id)
            {
                if at < end {
                    chain.push((at, at_id));
                }
                at -= 1;
                at_id = op.header().prev;
            }
            // What lies below the fork belongs to the main chain.
            let shared = usize::try_from(at.saturating_add(1).saturating_sub(from_seq)).unwrap_or(usize::MAX);
            let mut ops: Vec<StoredOp> = main.iter().take(shared).cloned().collect();
            let mut bytes: usize = ops.iter().map(|op| op.bytes.len()).sum();
            if ops.len() == shared {
                for (seq, id) in chain.into_iter().rev() {
                    let Some(op) = self.branch_op(stream, seq, id) else { break };
                    let encoded = op.encode();
                    bytes += encoded.len();
                    if ops.len() >= ops_max.max(1) || (!ops.is_empty() && bytes > bytes_max) {
                        break;
                    }
                    ops.push(StoredOp { id, signed: op.signature().is_some(), bytes: encoded.into() });
                }
            }
            branches.push(ops);
        }
        branches
    }

    /// Returns the last ops of the branches of a stream, before `end`.
    fn branch_tips(&mut self, stream: StreamId, from_seq: u64, end: u64) -> Vec<(u64, OpId)> {
        let Some(fork) = self.heads.get(&stream).and_then(|head| head.fork) else { return Vec::new() };
        let span = OpKey::stream(stream).starting_at(&OpKey::new(stream, from_seq.max(fork)).encode());
        let store: Arc<dyn Store> = self.store.clone();
        let mut found = Vec::new();
        let mut named = BTreeSet::new();
        for entry in store.scan(Keyspace::Ops, &span, Order::Ascending) {
            let Some((key, value)) = self.checked(entry) else { return Vec::new() };
            let Ok(key) = OpKey::decode(&key) else { continue };
            if key.seq >= end || found.len() >= BRANCH_OPS_LOOKED_AT_MAX {
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
        found
    }

    /// Reads a durable op of a branch.
    fn branch_op(&mut self, stream: StreamId, seq: u64, id: OpId) -> Option<Op> {
        let key = OpKey { stream, seq, branch: Some(id) };
        let value = self.store.get(Keyspace::Ops, &key.encode());
        let bytes = envelope::open(self.checked(value)??).ok()?;
        Op::decode(&bytes, self.identity.cluster).ok()
    }
}
