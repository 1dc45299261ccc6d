//! The pass through all that may hold something of documents that were erased, or are so no longer: ops, answers to requests, and
//! ops that wait for others. It goes slice by slice, and begins anew after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::super::Replica;
use super::super::outcome::named_changes;
use super::super::records::{RequestRecord, TxRef};
use super::super::types::BatchId;
use super::{ErasureStage, Task, of_collection};
use crate::id::{CollectionName, StreamId};
use crate::op::Op;
use crate::store::keys::{ChangeKey, ChangePlace, DocKey, Key as _, OpKey, RequestKey};
use crate::store::{Keyspace, Order, Span, envelope};

/// Entries of one slice, and about how many bytes of them.
const SLICE_ENTRIES_MAX: usize = 256;
const SLICE_BYTES_MAX: usize = 2 << 20;
/// Documents ended in one slice.
const SLICE_DOCUMENTS_MAX: usize = 64;
/// Transactions that may wait to be looked at again before the pass goes on.
const OWED_MAX: usize = 1_024;
/// First bytes of keys in the keyspace `pending` under which ops lie.
const LOOSE: [u8; 2] = [0, 1];

/// What is read now.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// The ops of this stream; of the first one at the beginning.
    Ops(Option<StreamId>),
    /// Answers to requests.
    Answers(CollectionName),
    /// Ops that wait for others.
    Loose,
    /// Nothing more.
    End,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pass {
    tasks: BTreeMap<DocKey, Task>,
    collections: BTreeSet<CollectionName>,
    stage: Stage,
    /// The last key that was read.
    after: Option<Vec<u8>>,
}

/// An entry that was read.
type Entry = (Vec<u8>, Bytes);

impl Pass {
    fn new(tasks: BTreeMap<DocKey, Task>) -> Self {
        let collections = of_collection(&tasks);
        Self { tasks, collections, stage: Stage::Ops(None), after: None }
    }

    pub(super) fn is_about(&self, key: &DocKey) -> bool {
        self.tasks.contains_key(key)
    }

    pub(super) fn leave_out(&mut self, key: &DocKey) {
        self.tasks.remove(key);
    }

    /// Returns how many documents it erases.
    pub(super) fn erased(&self) -> usize {
        self.tasks.values().filter(|task| **task == Task::Erase).count()
    }

    fn task(&self, collection: &CollectionName, doc: &crate::id::DocId) -> Option<Task> {
        self.tasks.get(&DocKey { collection: collection.clone(), doc: doc.clone() }).copied()
    }

    fn go_on(&mut self, stage: Stage) {
        (self.stage, self.after) = (stage, None);
    }
}

impl Replica {
    /// Whether there is something to go through.
    pub(in super::super) fn has_erasures_to_carry_out(&self) -> bool {
        let is_due = !self.erasures.due.is_empty() && self.erasures.after <= self.committed;
        // While a stream's main chain is being replaced its ops change their places.
        (self.erasures.pass.is_some() || is_due) && self.swapping.is_empty()
    }

    /// Goes through a slice.
    pub(in super::super) fn carry_out_erasures(&mut self) {
        if !self.has_erasures_to_carry_out() || self.owed.len() >= OWED_MAX || self.halted.is_some() {
            return;
        }
        let mut pass = match self.erasures.pass.take() {
            Some(pass) => pass,
            None => Pass::new(std::mem::take(&mut self.erasures.due)),
        };
        match pass.stage.clone() {
            Stage::Ops(stream) => self.pass_ops(&mut pass, stream),
            Stage::Answers(collection) => self.pass_answers(&mut pass, &collection),
            Stage::Loose => self.pass_loose(&mut pass),
            Stage::End => self.end_pass(&mut pass),
        }
        if !(pass.stage == Stage::End && pass.tasks.is_empty()) {
            self.erasures.pass = Some(pass);
            return;
        }
        // The next pass reads from the store what this one has written: read before that is there, an op would get back what it has lost.
        let written = if self.has_staged() { self.next_batch } else { BatchId(self.next_batch.0.saturating_sub(1)) };
        self.erasures.after = self.erasures.after.max(written);
    }

    /// Reads the next entries; whether there may be more of them is said too.
    fn pass_entries(&mut self, keyspace: Keyspace, mut span: Span, after: Option<&[u8]>) -> (Vec<Entry>, bool) {
        if let Some(after) = after {
            span = span.after(after);
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let store = self.store.clone();
        for entry in store.scan(keyspace, &span, Order::Ascending) {
            let entry = entry.map_err(|error| error.to_string());
            let entry = entry
                .and_then(|(key, value)| Ok((key.to_vec(), envelope::open(value).map_err(|error| error.to_string())?)));
            match entry {
                Ok(entry) => {
                    bytes += entry.1.len();
                    entries.push(entry);
                }
                Err(error) => {
                    self.halt(format!("read keyspace {keyspace}: {error}"));
                    return (Vec::new(), true);
                }
            }
            if entries.len() >= SLICE_ENTRIES_MAX || bytes >= SLICE_BYTES_MAX {
                return (entries, true);
            }
        }
        (entries, false)
    }

    /// Returns the next stream in a collection that the pass is about.
    fn next_stream(&self, pass: &Pass, after: Option<StreamId>) -> Option<StreamId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut streams = self.heads.range((from, Bound::Unbounded));
        let is_of = |collection: &CollectionName| pass.collections.contains(collection);
        streams.find(|(_, head)| is_of(&head.key.shard.collection)).map(|(stream, _)| *stream)
    }

    fn pass_ops(&mut self, pass: &mut Pass, stream: Option<StreamId>) {
        let Some(stream) = stream.or_else(|| self.next_stream(pass, None)) else {
            return pass.go_on(first_answers(pass));
        };
        let (entries, more) = self.pass_entries(Keyspace::Ops, OpKey::stream(stream), pass.after.as_deref());
        for (place, value) in &entries {
            match Op::decode(value, self.identity.cluster) {
                Ok(op) => self.pass_op(pass, place, Arc::new(op)),
                Err(error) => return self.halt(format!("a stored op of the stream {stream} is damaged: {error}")),
            }
        }
        if more {
            pass.stage = Stage::Ops(Some(stream));
            pass.after = entries.into_iter().next_back().map(|(place, _)| place).or(pass.after.take());
            return;
        }
        match self.next_stream(pass, Some(stream)) {
            Some(next) => pass.go_on(Stage::Ops(Some(next))),
            None => pass.go_on(first_answers(pass)),
        }
    }

    /// Takes the bodies of erased documents out of an op, and has its transactions looked at again where that may change what
    /// becomes of them.
    fn pass_op(&mut self, pass: &Pass, place: &[u8], op: Arc<Op>) {
        let header = op.header();
        let collection = header.collection().clone();
        let task = |doc: &crate::id::DocId| pass.task(&collection, doc);
        if !header.changes().any(|change| task(&change.doc).is_some()) {
            return;
        }
        let is_main = OpKey::decode(place).is_ok_and(|key| key.branch.is_none());
        for (tx, transaction) in TxRef::all_of(&op).zip(header.transactions()) {
            let tasks: Vec<Option<Task>> = transaction.changes.iter().map(|change| task(&change.doc)).collect();
            for (index, hash) in named_changes(&op, tx) {
                if tasks.get(index) == Some(&Some(Task::Erase)) {
                    self.forget_change(&hash, tx);
                    self.settle_wants(&header.shard, &[hash]);
                }
            }
            // What waits for something of an erased document, or is refused for it, may be neither any more. What is restored
            // has to be applied.
            let is_unsettled = tasks.contains(&Some(Task::Restore))
                || tasks.contains(&Some(Task::Erase)) && self.tx_state(&tx).is_some();
            if is_main && is_unsettled {
                self.owe(tx);
            }
        }
        if let Some(bare) = op.without_bodies(|change| task(&change.doc) == Some(Task::Erase)) {
            self.put(Keyspace::Ops, place.to_vec(), &bare.encode());
        }
    }

    /// Removes a change of an erased document from the index: its name tells whether a guess at what it said is right.
    fn forget_change(&mut self, hash: &crate::id::ChangeHash, tx: TxRef) {
        let key = ChangeKey(*hash).encode();
        let place = self.read_back(Keyspace::Index, &key).and_then(|value| ChangePlace::decode(&value).ok());
        if place.is_some_and(|place| (place.stream, place.seq) == (tx.stream, tx.seq)) {
            self.delete(Keyspace::Index, key);
        }
    }

    /// Forgets what clients were told of erased documents: the versions in it are hashes of what they said.
    fn pass_answers(&mut self, pass: &mut Pass, collection: &CollectionName) {
        let span = Span::prefix(collection.encode());
        let (entries, more) = self.pass_entries(Keyspace::Requests, span, pass.after.as_deref());
        for (place, value) in &entries {
            let is_of_erased = |value: &[u8]| {
                let told = RequestRecord::decode(value).ok().and_then(|record| record.told);
                told.is_some_and(|told| {
                    told.items.iter().any(|(doc, ..)| pass.task(collection, doc) == Some(Task::Erase))
                })
            };
            let Ok(key) = RequestKey::decode(place) else { continue };
            // Something newer may be on its way to the disk.
            if is_of_erased(value)
                && let Some(record) = self.request_record(collection, key.request)
            {
                self.forget_answer(&key, record);
            }
        }
        if more {
            pass.after = entries.into_iter().next_back().map(|(place, _)| place).or(pass.after.take());
            return;
        }
        let next = pass.collections.range((Bound::Excluded(collection.clone()), Bound::Unbounded)).next().cloned();
        pass.go_on(next.map_or(Stage::Loose, Stage::Answers));
    }

    fn pass_loose(&mut self, pass: &mut Pass) {
        let [first, last] = LOOSE;
        let span = Span::range(vec![first], vec![last + 1]);
        let (entries, more) = self.pass_entries(Keyspace::Pending, span, pass.after.as_deref());
        for (place, value) in &entries {
            // What cannot be read is dropped by whoever needs it.
            let Ok(op) = Op::decode(value, self.identity.cluster) else { continue };
            let collection = op.header().collection().clone();
            let bare = op.without_bodies(|change| pass.task(&collection, &change.doc) == Some(Task::Erase));
            if let Some(bare) = bare {
                self.put(Keyspace::Pending, place.clone(), &bare.encode());
            }
        }
        if more {
            pass.after = entries.into_iter().next_back().map(|(place, _)| place).or(pass.after.take());
        } else {
            pass.go_on(Stage::End);
        }
    }

    /// Ends some documents: nothing is left of them in the store, their keys included.
    fn end_pass(&mut self, pass: &mut Pass) {
        for _ in 0..SLICE_DOCUMENTS_MAX {
            let Some((key, task)) = pass.tasks.pop_first() else { return };
            if task == Task::Restore || !self.is_erased(&key) {
                continue;
            }
            self.delete_shown(&key);
            self.delete(Keyspace::Keys, key.encode());
            self.set_stage(&key, ErasureStage::Swept);
            self.counters.documents_erased += 1;
            self.erasures.swept.insert(key, self.next_batch);
        }
    }
}

fn first_answers(pass: &Pass) -> Stage {
    pass.collections.first().cloned().map_or(Stage::Loose, Stage::Answers)
}
