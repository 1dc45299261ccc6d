//! Erasures carried out: documents that are gone for good.
//!
//! It happens in four steps. A document is *hidden* in the batch that holds the act: its view, history and previews are removed,
//! and from then on nothing of it is read, written, applied, kept or given to anybody. Then it is *swept*: all ops that touch it
//! lose its bodies, slice by slice ([`pass`]), and with the last of them its key goes. Then the store is *scrubbed*, on another
//! thread: what was removed is removed from the disk. Then the node *tells* so in a receipt.
//!
//! A transaction keeps its verdict, which is judged from headers; its changes of erased documents count as carried out.
//!
//! Invariant: a batch that holds an act which erases a document holds the record of that, so a crash loses none.
//! Invariant: from when a document is hidden, no batch writes anything of what it said.

mod pass;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::flush::feed_key;
use super::load::Published;
use super::open::{OpenError, damaged};
use super::read::{ReadError, damaged as damaged_record, read_view};
use super::types::{BatchId, Effect, Signer};
use super::{Now, Replica};
use crate::hlc::Hlc;
use crate::id::{CollectionName, DocId, OpId, ShardId};
use crate::limits;
use crate::op::codec::{self, CodecError};
use crate::op::{Act, Erased, Op};
use crate::store::keys::{DocKey, ErasureKey, Key as _, SegmentKey, TailKey};
use crate::store::{Keyspace, Order, Read, StoreError, envelope};
use pass::Pass;

/// Bytes of a record: a number, a place and a time.
const RECORD_BYTES_MAX: usize = 64;
/// Receipts are given together.
const TELL_AFTER_MS: u64 = 2_000;
/// When a receipt could not be signed: an act may still come that gives the right.
const TELL_AGAIN_MS: u64 = 30_000;
/// When the disk could not be scrubbed because somebody reads an old state of the store.
const SCRUB_AGAIN_MS: u64 = 5_000;
/// A scrub rewrites much of the store: the next one waits for so many times as long as the last one took.
const SCRUB_SHARE: u64 = 10;

/// How far an erasure is with one document.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum ErasureStage {
    /// Nobody sees it; ops here may still have bodies of it.
    Hidden,
    /// The store has nothing of it; the disk may.
    Swept,
    /// Nothing is left of it.
    Gone,
}

impl From<ErasureStage> for u8 {
    fn from(stage: ErasureStage) -> Self {
        match stage {
            ErasureStage::Hidden => 0,
            ErasureStage::Swept => 1,
            ErasureStage::Gone => 2,
        }
    }
}

impl TryFrom<u8> for ErasureStage {
    type Error = &'static str;

    fn try_from(code: u8) -> Result<Self, Self::Error> {
        match code {
            0 => Ok(Self::Hidden),
            1 => Ok(Self::Swept),
            2 => Ok(Self::Gone),
            _ => Err("unknown stage of an erasure"),
        }
    }
}

/// What is kept of an erased document.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErasureRecord {
    /// How far the erasure is.
    pub stage: ErasureStage,
    /// Its place in the feed of changes.
    pub feed: u64,
    /// When it was erased, as the author of the act says.
    pub erased: Hlc,
}

impl ErasureRecord {
    /// Encodes the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// [`CodecError`] if the record is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, RECORD_BYTES_MAX)
    }
}

/// Reads what is kept of an erased document; none if it is not erased here.
pub(super) fn erasure_of(store: &dyn Read, key: &DocKey) -> Result<Option<ErasureRecord>, StoreError> {
    let Some(value) = store.get(Keyspace::Control, &ErasureKey(key.clone()).encode())? else { return Ok(None) };
    let record = envelope::open(value).ok().and_then(|value| ErasureRecord::decode(&value).ok());
    let damaged = || StoreError::Damaged { keyspace: Keyspace::Control, source: "record of an erasure".into() };
    record.map(Some).ok_or_else(damaged)
}

/// Returns the collections of which documents are erased and may be on the disk still.
///
/// # Errors
/// [`ReadError`] if the store cannot be read.
pub fn collections_with_erasures(store: &dyn Read) -> Result<BTreeSet<CollectionName>, ReadError> {
    let mut collections = BTreeSet::new();
    for entry in store.scan(Keyspace::Control, &ErasureKey::all(), Order::Ascending) {
        let (key, value) = entry?;
        let ErasureKey(key) = ErasureKey::decode(&key).map_err(|error| damaged_record(Keyspace::Control, error))?;
        let value = envelope::open(value).map_err(|error| damaged_record(Keyspace::Control, error))?;
        let record = ErasureRecord::decode(&value).map_err(|error| damaged_record(Keyspace::Control, error))?;
        if record.stage != ErasureStage::Gone {
            collections.insert(key.collection);
        }
    }
    Ok(collections)
}

/// What is to be done with the ops of a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    /// They lose its bodies.
    Erase,
    /// They are looked at again: the erasure counts no more.
    Restore,
}

/// How far the erasures are that this replica carries out. The documents that are under way are kept in memory: their names
/// are in the control log, which is in memory too.
#[derive(Debug, Default)]
pub(super) struct Erasures {
    /// Documents whose ops are to be gone through.
    due: BTreeMap<DocKey, Task>,
    /// Not before this batch is committed: it holds the last of their bodies.
    after: BatchId,
    pass: Option<Pass>,
    /// Documents that are swept, by the batch that says so.
    swept: BTreeMap<DocKey, BatchId>,
    /// Those for which the disk is being scrubbed.
    scrubbing: Option<BTreeSet<DocKey>>,
    scrub_at_ms: u64,
    /// Whether there may be something to tell, and when it is told.
    tell: bool,
    tell_at_ms: Option<u64>,
    /// Documents of which nothing is left.
    gone: u64,
}

/// How many documents are how far erased.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ErasureFigures {
    /// Hidden, and not swept.
    pub hidden: u64,
    /// Swept, and perhaps still on the disk.
    pub swept: u64,
    /// Gone.
    pub gone: u64,
}

impl Erasures {
    fn is_under_way(&self, key: &DocKey) -> bool {
        self.due.contains_key(key)
            || self.swept.contains_key(key)
            || self.pass.as_ref().is_some_and(|pass| pass.is_about(key))
    }
}

impl Replica {
    /// Returns how many documents are how far erased.
    #[must_use]
    pub fn erasure_figures(&self) -> ErasureFigures {
        let passing = self.erasures.pass.as_ref().map_or(0, Pass::erased);
        let due = self.erasures.due.values().filter(|task| **task == Task::Erase).count();
        ErasureFigures {
            hidden: (passing + due) as u64,
            swept: self.erasures.swept.len() as u64,
            gone: self.erasures.gone,
        }
    }

    /// Returns whether an erased document is gone from this replica's disk; none if it is not erased.
    #[must_use]
    pub fn erasure_stage(&self, key: &DocKey) -> Option<ErasureStage> {
        erasure_of(&*self.store, key).ok()?.map(|record| record.stage)
    }

    /// Whether a document is erased.
    pub(super) fn is_erased(&self, key: &DocKey) -> bool {
        self.authority.is_erased(&key.collection, &key.doc)
    }

    /// Returns an op without the bodies of erased documents.
    pub(super) fn without_erased(&self, op: Arc<Op>) -> Arc<Op> {
        match self.bare_of_erased(&op) {
            Some(bare) => Arc::new(bare),
            None => op,
        }
    }

    /// Returns an op without the bodies of erased documents, if it has such bodies.
    pub(super) fn bare_of_erased(&self, op: &Op) -> Option<Op> {
        if !self.authority.has_erasures() || op.header().shard.is_control() {
            return None;
        }
        let collection = op.header().collection();
        op.without_bodies(|change| self.authority.is_erased(collection, &change.doc))
    }

    /// Whether an op has all bodies that are not of erased documents.
    pub(super) fn is_whole(&self, op: &Op) -> bool {
        let collection = op.header().collection();
        let mut bodies = op.header().changes().zip(op.bodies());
        bodies.all(|(change, body)| body.is_some() || self.authority.is_erased(collection, &change.doc))
    }

    // ---- what acts say ----

    /// Carries out at once what acts that have come mean for what may be seen.
    pub(super) fn follow_erasures(&mut self) {
        self.erasures.tell = true;
        for (collection, doc) in self.authority.take_erasure_news() {
            let key = DocKey { collection, doc };
            let record = self.read_back(Keyspace::Control, &ErasureKey(key.clone()).encode());
            self.follow_erasure(key, record.is_some());
        }
    }

    fn follow_erasure(&mut self, key: DocKey, is_noted: bool) {
        match (self.is_erased(&key), is_noted) {
            (true, false) => self.hide(key),
            (false, true) => self.restore(key),
            (true, true) | (false, false) => {}
        }
    }

    /// Removes what shows a document.
    fn hide(&mut self, key: DocKey) {
        // What gathers may be about it: from here on nothing more comes of it.
        self.sign_open_ops();
        let loaded = self.cache.remove(&key);
        self.staged.dirty.remove(&key);
        let (published, tail, segments) = match loaded {
            Some(loaded) => (loaded.published, loaded.tail, loaded.segments),
            None => (self.published(&key), Vec::new(), 0),
        };
        let shard = ShardId::of_document(&key.collection, &key.doc, self.shards_of(&key.collection));
        if let Some(before) = published {
            let shard = self.shards.entry(shard).or_default();
            shard.dirty = true;
            shard.uncount(&key, &before);
            self.delete(Keyspace::Index, feed_key(before.feed));
        }
        self.feed += 1;
        let record = ErasureRecord { stage: ErasureStage::Hidden, feed: self.feed, erased: self.erased_at(&key) };
        self.put(Keyspace::Index, feed_key(record.feed), &key.encode());
        self.note_erasure(&key, &record);
        // Batches on their way may write what the store has not got yet.
        for change in tail {
            self.delete(Keyspace::Tail, TailKey { doc: key.clone(), change }.encode());
        }
        self.delete_segments(&key, 0..segments);
        self.delete_shown(&key);
        self.erasures.due.insert(key, Task::Erase);
        self.erasures.after = self.next_batch;
    }

    /// Takes back what [`Self::hide`] did. What is gone is gone: only bodies that are still here come back.
    fn restore(&mut self, key: DocKey) {
        let place = ErasureKey(key.clone()).encode();
        let record = self.read_back(Keyspace::Control, &place).and_then(|value| ErasureRecord::decode(&value).ok());
        if let Some(record) = record {
            self.delete(Keyspace::Index, feed_key(record.feed));
            if record.stage == ErasureStage::Gone {
                self.erasures.gone = self.erasures.gone.saturating_sub(1);
            }
        }
        self.delete(Keyspace::Control, place);
        self.erasures.swept.remove(&key);
        if let Some(pass) = &mut self.erasures.pass {
            pass.leave_out(&key);
        }
        self.erasures.due.insert(key, Task::Restore);
        self.erasures.after = self.next_batch;
    }

    fn note_erasure(&mut self, key: &DocKey, record: &ErasureRecord) {
        self.put(Keyspace::Control, ErasureKey(key.clone()).encode(), &record.encode());
    }

    /// Sets how far an erasure is.
    fn set_stage(&mut self, key: &DocKey, stage: ErasureStage) {
        let value = self.read_back(Keyspace::Control, &ErasureKey(key.clone()).encode());
        if let Some(record) = value.and_then(|value| ErasureRecord::decode(&value).ok()) {
            self.note_erasure(key, &ErasureRecord { stage, ..record });
        }
    }

    /// Returns the time of the first act by which a document is erased.
    fn erased_at(&self, key: &DocKey) -> Hlc {
        let counting = self.authority.erasures_of(&key.collection, &key.doc).filter(|info| info.verdict.is_allowed());
        counting.map(|info| info.hlc).min().unwrap_or(Hlc::ZERO)
    }

    /// Returns what the feed, the digests and the counts hold of a document that is not loaded.
    fn published(&mut self, key: &DocKey) -> Option<Published> {
        match read_view(&*self.store, key) {
            Ok(view) => view.map(|view| Published {
                heads: view.heads,
                deleted: view.deleted,
                json_bytes: view.json.len() as u64,
                feed: view.feed,
            }),
            Err(error) => {
                self.halt(format!("read the view of {}/{}: {error}", key.collection, key.doc));
                None
            }
        }
    }

    /// Removes what the store has of a document beside its ops.
    fn delete_shown(&mut self, key: &DocKey) {
        let spans = [(Keyspace::Tail, TailKey::document(key)), (Keyspace::Snapshots, SegmentKey::document(key))];
        let store = self.store.clone();
        for (keyspace, span) in spans {
            for entry in store.scan(keyspace, &span, Order::Ascending) {
                match entry {
                    Ok((place, _)) => self.delete(keyspace, place.to_vec()),
                    Err(error) => return self.halt(format!("read the store: {error}")),
                }
            }
        }
        self.delete(Keyspace::Snapshots, key.encode());
        self.delete(Keyspace::Views, key.encode());
        self.set_flag(key, false);
        self.unclaim(key);
        self.forget_preview(key);
    }

    /// Takes up what was under way when the replica was last open.
    pub(super) fn resume_erasures(&mut self) -> Result<(), OpenError> {
        let store = self.store.clone();
        let mut noted = BTreeSet::new();
        for entry in store.scan(Keyspace::Control, &ErasureKey::all(), Order::Ascending) {
            let (place, value) = entry?;
            let ErasureKey(key) = ErasureKey::decode(&place).map_err(|error| damaged(Keyspace::Control, error))?;
            let value = envelope::open(value).map_err(|error| damaged(Keyspace::Control, error))?;
            let record = ErasureRecord::decode(&value).map_err(|error| damaged(Keyspace::Control, error))?;
            match record.stage {
                ErasureStage::Hidden => drop(self.erasures.due.insert(key.clone(), Task::Erase)),
                ErasureStage::Swept => drop(self.erasures.swept.insert(key.clone(), BatchId::default())),
                ErasureStage::Gone => self.erasures.gone += 1,
            }
            noted.insert(key);
        }
        let of_acts = self.authority.take_erasure_news().into_iter();
        let all: BTreeSet<DocKey> =
            of_acts.map(|(collection, doc)| DocKey { collection, doc }).chain(noted.iter().cloned()).collect();
        for key in all {
            let is_noted = noted.contains(&key);
            self.follow_erasure(key, is_noted);
        }
        self.erasures.tell = true;
        Ok(())
    }

    // ---- the disk ----

    /// Has the disk scrubbed, if there is something that may still be on it.
    pub(super) fn scrub_if_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let erasures = &self.erasures;
        let is_busy = erasures.scrubbing.is_some()
            || erasures.pass.is_some()
            || !erasures.due.is_empty()
            || !self.owed.is_empty()
            || self.halted.is_some();
        if is_busy || erasures.swept.is_empty() || now.monotonic_ms < erasures.scrub_at_ms {
            return;
        }
        let committed = self.committed;
        if erasures.swept.values().any(|batch| *batch > committed) {
            return;
        }
        self.erasures.scrubbing = Some(self.erasures.swept.keys().cloned().collect());
        effects.push(Effect::Scrub);
    }

    /// The disk was scrubbed, or could not be for now.
    pub(super) fn scrubbed(&mut self, now: Now, is_clean: bool, took_ms: u64) {
        let Some(scrubbed) = self.erasures.scrubbing.take() else { return };
        if !is_clean {
            self.erasures.scrub_at_ms = now.monotonic_ms.saturating_add(SCRUB_AGAIN_MS);
            return;
        }
        self.erasures.scrub_at_ms = now.monotonic_ms.saturating_add(took_ms.saturating_mul(SCRUB_SHARE));
        for key in scrubbed {
            // One that was restored meanwhile is none of them any more.
            if self.erasures.swept.remove(&key).is_some() {
                self.set_stage(&key, ErasureStage::Gone);
                self.erasures.gone += 1;
            }
        }
        self.erasures.tell = true;
    }

    // ---- receipts ----

    /// Tells the cluster what is carried out, some at a time.
    pub(super) fn tell_erasures(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.halted.is_some() || !self.authority.rules().can_judge() {
            return;
        }
        if let Some(at) = self.erasures.tell_at_ms {
            if now.monotonic_ms < at {
                return;
            }
        } else if !std::mem::take(&mut self.erasures.tell) {
            return;
        }
        let acts = self.carried_out();
        if acts.is_empty() {
            self.erasures.tell_at_ms = None;
        } else if self.erasures.tell_at_ms.is_none() {
            self.erasures.tell_at_ms = Some(now.monotonic_ms.saturating_add(TELL_AFTER_MS));
        } else {
            self.tell(now, acts, effects);
        }
    }

    /// Returns erasures of which nothing is left here, and of which this node has not told.
    fn carried_out(&self) -> Vec<OpId> {
        let untold = self.authority.untold_erasures(self.identity.node.author());
        let done = untold.filter(|(_, erase)| {
            let key = |doc: &DocId| DocKey { collection: erase.collection.clone(), doc: doc.clone() };
            erase.documents.iter().all(|doc| !self.erasures.is_under_way(&key(doc)))
        });
        done.map(|(act, _)| act).take(limits::ERASED_ACTS_MAX).collect()
    }

    fn tell(&mut self, now: Now, mut acts: Vec<OpId>, effects: &mut Vec<Effect>) {
        acts.sort();
        let signed = self.signer(Signer::Node).and_then(|(secret, certificate)| {
            self.sign_act(now, &secret, certificate, Act::Erased(Erased { acts: acts.clone() }), None)
        });
        match signed {
            Ok(_) => {
                self.erasures.tell_at_ms = None;
                // There may be more of them.
                self.erasures.tell = true;
                effects.push(Effect::ErasuresCarriedOut(acts));
                self.apply_policy_changes(now, effects);
            }
            Err(_) => self.erasures.tell_at_ms = Some(now.monotonic_ms.saturating_add(TELL_AGAIN_MS)),
        }
    }
}

/// Names the documents of a collection.
fn of_collection(tasks: &BTreeMap<DocKey, Task>) -> BTreeSet<CollectionName> {
    tasks.keys().map(|key| key.collection.clone()).collect()
}
