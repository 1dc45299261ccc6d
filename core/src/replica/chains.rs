//! Answers about chains from what is stored and what is on its way to the store.

use std::collections::BTreeMap;

use crate::authority::{Chains, Position};
use crate::id::{OpId, StreamId};
use crate::op::{Op, Pin};
use crate::store::keys::{Key as _, OpKey};
use crate::store::{Keyspace, Read, envelope};

/// Ids of ops that are staged or in flight.
#[derive(Debug, Default)]
pub(super) struct Undurable {
    ids: BTreeMap<(StreamId, u64), OpId>,
}

impl Undurable {
    pub(super) fn insert(&mut self, stream: StreamId, seq: u64, id: OpId) {
        self.ids.insert((stream, seq), id);
    }

    pub(super) fn remove(&mut self, stream: StreamId, seq: u64) {
        self.ids.remove(&(stream, seq));
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
        if let Some(id) = self.undurable.ids.get(&(*stream, seq)) {
            return Some(*id);
        }
        let value = self.store.get(Keyspace::Ops, &OpKey::new(*stream, seq).encode()).ok()??;
        self.decode(value).map(|op| op.id())
    }

    /// Returns an op of a branch.
    fn branch(&self, stream: &StreamId, seq: u64, id: OpId) -> Option<Op> {
        let key = OpKey { stream: *stream, seq, branch: Some(id) };
        self.decode(self.store.get(Keyspace::Ops, &key.encode()).ok()??)
    }

    fn decode(&self, value: bytes::Bytes) -> Option<Op> {
        Op::decode(&envelope::open(value).ok()?, self.cluster).ok()
    }

    /// Returns whether the op at `seq` with `id` lies on the chain that ends in the op `head` at `head_seq`; `None` if that
    /// chain is not here whole.
    pub(super) fn on_chain(&self, stream: &StreamId, seq: u64, id: OpId, head_seq: u64, head: OpId) -> Option<bool> {
        if seq > head_seq {
            return Some(false);
        }
        // Down the branch until it meets the main chain; from there on the main chain's ids are the answer.
        let (mut at, mut at_id) = (head_seq, head);
        loop {
            if self.main(stream, at) == Some(at_id) {
                return Some(self.main(stream, seq)? == id);
            }
            let op = self.branch(stream, at, at_id)?;
            if at == seq {
                return Some(at_id == id);
            }
            at_id = op.header().prev;
            at = at.checked_sub(1)?;
        }
    }
}

impl Chains for StoredChains<'_> {
    fn lies_on(&self, op: &Position, end: &Pin) -> Option<bool> {
        self.on_chain(&op.stream, op.seq, op.op, end.seq, end.head)
    }
}
