//! Explaining what was decided about an op.

use super::Replica;
use super::read::{ReadError, Reader, damaged};
use super::records::TxRecord;
use crate::authority::{Position, Why};
use crate::id::{ClusterId, OpId, StreamId};
use crate::op::Op;
use crate::store::keys::QuarantineKey;
use crate::store::{Keyspace, Order, Span, envelope};

impl Reader {
    /// Finds an op by its id: at once if a transaction of it waits or is quarantined, else by reading ops one after the other,
    /// some 300,000 in a second.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read or an op is damaged.
    pub fn find_op(&self, wanted: OpId, cluster: ClusterId) -> Result<Option<Op>, ReadError> {
        if let Some(record) = self.records_of(wanted)?.first()
            && let Some(op) = self.op(&record.tx, cluster)?
        {
            return Ok(Some(op));
        }
        for entry in self.store().snapshot().scan(Keyspace::Ops, &Span::all(), Order::Ascending) {
            let value = envelope::open(entry?.1).map_err(|error| damaged(Keyspace::Ops, error))?;
            let op = Op::decode(&value, cluster).map_err(|error| damaged(Keyspace::Ops, error))?;
            if op.id() == wanted {
                return Ok(Some(op));
            }
        }
        Ok(None)
    }

    /// Returns what is kept about an op's transactions that wait or are quarantined.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn records_of(&self, op: OpId) -> Result<Vec<TxRecord>, ReadError> {
        let entries = self.store().scan(Keyspace::Quarantine, &QuarantineKey::op(op), Order::Ascending);
        let record = |value| {
            let value = envelope::open(value).map_err(|error| damaged(Keyspace::Quarantine, error))?;
            TxRecord::decode(&value).map_err(|error| damaged(Keyspace::Quarantine, error))
        };
        entries.map(|entry| record(entry?.1)).collect()
    }
}

impl Replica {
    /// Returns the numbers of the ops of a data stream with which its author's knowledge of the control log grew.
    #[must_use]
    pub fn knowledge_of(&self, stream: &StreamId) -> Vec<u64> {
        self.heads.get(stream).map(|head| head.policies.clone()).unwrap_or_default()
    }

    /// Explains what the rule says of each transaction of a data op that is here.
    #[must_use]
    pub fn why(&self, op: &Op) -> Vec<Why> {
        let at = Position { stream: op.stream(), seq: op.header().seq, op: op.id() };
        let chains = self.chains();
        let transactions = op.header().transactions().len();
        (0..transactions).map(|transaction| self.authority.why(&at, op.header(), transaction, &chains)).collect()
    }
}
