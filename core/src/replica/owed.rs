//! What has still to be carried out, so that neither a crash nor its size makes the documents miss it.
//!
//! A verdict changes when an act, a fork or a chain arrives, a dependent falls out of a document when another change
//! does. What follows is done in slices after the batch that holds the cause, and until it is done every batch says what
//! is left.
//!
//! Invariant: a batch that makes something owed names it, or holds its effect.

use super::records::{OwedRecord, TxRef};
use super::{OpenError, Replica};
use crate::authority::Rejudge;
use crate::id::StreamId;
use crate::store::Keyspace;

/// Key of the record in the keyspace `meta`.
const OWED: &[u8] = b"owed";

impl Replica {
    /// Sees to it that a transaction is looked at again, after a crash as well. One that waits is looked at after a start
    /// anyway: [`Self::make_ready`] is enough for it.
    pub(super) fn owe(&mut self, tx: TxRef) {
        self.owed.insert(tx);
        self.make_ready(tx);
    }

    /// Sees to it that a stream is judged again.
    pub(super) fn owe_stream(&mut self, stream: StreamId, from_seq: u64) {
        let from = self.rejudging.entry(stream).or_insert(from_seq);
        *from = from_seq.min(*from);
    }

    /// Takes over what the verdict engine says may have changed.
    pub(super) fn collect_rejudge(&mut self) {
        let chains = super::chains::StoredChains {
            store: &*self.store,
            undurable: &self.undurable,
            cluster: self.identity.cluster,
        };
        for Rejudge { stream, from_seq } in self.authority.take_rejudge(&chains) {
            // Of a stream that forks it may be another branch that counts now.
            self.branches_due |= self.heads.get(&stream).is_some_and(|head| head.fork.is_some());
            self.owe_stream(stream, from_seq);
        }
    }

    /// Puts what is owed into the batch, if it is not what the store says.
    pub(super) fn stage_owed(&mut self) {
        self.collect_rejudge();
        if self.rejudging.is_empty() && self.owed.is_empty() && self.owed_stored == OwedRecord::default() {
            return;
        }
        let record = OwedRecord {
            streams: self.rejudging.iter().map(|(stream, from)| (*stream, *from)).collect(),
            transactions: self.owed.iter().copied().collect(),
        };
        if record != self.owed_stored {
            self.put(Keyspace::Meta, OWED.to_vec(), &record.encode());
            self.owed_stored = record;
        }
    }

    /// Takes up what was owed when the replica was last open.
    pub(super) fn resume_owed(&mut self) -> Result<(), OpenError> {
        let store = self.store.clone();
        let Some(value) = super::open::read(&*store, Keyspace::Meta, OWED)? else { return Ok(()) };
        let record = OwedRecord::decode(&value).map_err(|error| super::open::damaged(Keyspace::Meta, error))?;
        for (stream, from) in &record.streams {
            self.owe_stream(*stream, *from);
        }
        for tx in &record.transactions {
            self.owe(*tx);
        }
        self.owed_stored = record;
        Ok(())
    }
}
