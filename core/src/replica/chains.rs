//! Answers about chains from what is stored and what is on its way to the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::records::TxRef;
use crate::authority::Chains;
use crate::id::{OpId, StreamId};
use crate::op::{Op, Pin};
use crate::store::keys::{Key as _, OpKey};
use crate::store::{Keyspace, Read, envelope};

/// Ops that are staged or in flight.
#[derive(Debug, Default)]
pub(super) struct Undurable {
    main: BTreeMap<(StreamId, u64), Arc<Op>>,
    branches: BTreeMap<(StreamId, u64, OpId), Arc<Op>>,
}

impl Undurable {
    pub(super) fn insert(&mut self, op: Arc<Op>) {
        self.main.insert((op.stream(), op.header().seq), op);
    }

    pub(super) fn insert_branch(&mut self, op: Arc<Op>) {
        self.branches.insert((op.stream(), op.header().seq, op.id()), op);
    }

    pub(super) fn remove(&mut self, stream: StreamId, seq: u64) {
        self.main.remove(&(stream, seq));
    }

    pub(super) fn remove_branch(&mut self, op: &Op) {
        self.branches.remove(&(op.stream(), op.header().seq, op.id()));
    }

    /// Returns the op of a transaction.
    pub(super) fn get(&self, tx: &TxRef) -> Option<Arc<Op>> {
        let main = self.main.get(&(tx.stream, tx.seq)).filter(|op| op.id() == tx.op);
        main.or_else(|| self.branches.get(&(tx.stream, tx.seq, tx.op))).cloned()
    }

    /// Returns the ops of a stream's main chain from a number on.
    pub(super) fn from(&self, stream: StreamId, seq: u64) -> impl Iterator<Item = &Arc<Op>> {
        self.main.range((stream, seq)..=(stream, u64::MAX)).map(|(_, op)| op)
    }

    /// Whether all of the stream's main chain is on the disk.
    pub(super) fn is_settled(&self, stream: StreamId) -> bool {
        self.from(stream, 0).next().is_none()
    }
}

/// What a replica can say about chains: the store beside what is on its way there.
pub(super) struct StoredChains<'a> {
    pub(super) store: &'a dyn Read,
    pub(super) undurable: &'a Undurable,
    pub(super) cluster: crate::id::ClusterId,
}

impl StoredChains<'_> {
    /// Returns the id of the op at a place of the main chain.
    pub(super) fn main(&self, stream: &StreamId, seq: u64) -> Option<OpId> {
        self.main_op(stream, seq).map(|op| op.id())
    }

    /// Returns the op at a place of the main chain.
    pub(super) fn main_op(&self, stream: &StreamId, seq: u64) -> Option<Arc<Op>> {
        if let Some(op) = self.undurable.main.get(&(*stream, seq)) {
            return Some(op.clone());
        }
        let value = self.store.get(Keyspace::Ops, &OpKey::new(*stream, seq).encode()).ok()??;
        self.decode(value).map(Arc::new)
    }

    /// Returns an op of a branch.
    pub(super) fn branch_op(&self, stream: &StreamId, seq: u64, id: OpId) -> Option<Arc<Op>> {
        if let Some(op) = self.undurable.branches.get(&(*stream, seq, id)) {
            return Some(op.clone());
        }
        let key = OpKey { stream: *stream, seq, branch: Some(id) };
        self.decode(self.store.get(Keyspace::Ops, &key.encode()).ok()??).map(Arc::new)
    }

    fn decode(&self, value: bytes::Bytes) -> Option<Op> {
        Op::decode(&envelope::open(value).ok()?, self.cluster).ok()
    }

    /// Returns whether the chain that ends in a pin is here whole.
    pub(super) fn has_whole(&self, end: &Pin) -> bool {
        self.at(1, end).is_some()
    }
}

impl Chains for StoredChains<'_> {
    fn at(&self, seq: u64, end: &Pin) -> Option<OpId> {
        if seq > end.seq {
            return Some(OpId::ZERO);
        }
        // Down the branch until it meets the main chain; from there on the main chain's ids are the answer.
        let (mut at, mut id) = (end.seq, end.head);
        while self.main(&end.stream, at) != Some(id) {
            let op = self.branch_op(&end.stream, at, id)?;
            if at == seq {
                return Some(id);
            }
            (at, id) = (at.checked_sub(1)?, op.header().prev);
        }
        self.main(&end.stream, seq)
    }

    fn earlier_ends(&self, end: &Pin) -> Option<Vec<Pin>> {
        let (mut at, mut id) = (end.seq, end.head);
        // Down the branch until it meets the main chain, whose first op is the answer.
        while self.main(&end.stream, at) != Some(id) {
            let op = self.branch_op(&end.stream, at, id)?;
            if at == 1 {
                return Some(op.header().earlier_ends().collect());
            }
            (at, id) = (at.checked_sub(1)?, op.header().prev);
        }
        self.main_op(&end.stream, 1).map(|first| first.header().earlier_ends().collect())
    }
}
