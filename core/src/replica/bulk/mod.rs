//! Bulk, on the replica's side: documents given to a peer and taken from one, and bare ops.
//!
//! What is taken lies in the keyspace `pending` and is shown to readers where there is no view yet, or one that shows less. It is a
//! preview, no more: its changes have passed the gate and are named by their own hashes, but only ops say who wrote them. When
//! these are here, each change has matched a signed commitment or was pulled again, and what is left of the previews is refuted.
//!
//! Invariant: no document, view, digest or verdict rests on what was taken in bulk.
//! Invariant: how far a shard is goes to the disk with its documents, so a stop loses none of what is there.

mod bare;
mod give;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_bytes::ByteBuf;

use super::records::ViewRecord;
use super::types::{BatchId, Effect};
use super::{Now, Replica};
use crate::document::{Admission, Candidate, Document, gate};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ChangeHash, DocId, ShardId};
use crate::op::{WriteAction, codec};
use crate::replication::limits::DOCUMENT_CHANGES_MAX;
use crate::replication::{BulkDocument, BulkProgress, BulkStage, Input as NetInput, Part, Taken, limits};
use crate::store::keys::{DocKey, Key as _};
use crate::store::{Keyspace, Order, Read, Span, StoreError, envelope};

/// First bytes of the keys of bulk in the keyspace `pending` (0 and 1 are what ops wait for).
const PREVIEW_DOCUMENT: u8 = 2;
const PREVIEW_CHANGE: u8 = 3;
const BULK_PROGRESS: u8 = 4;
const BULK_LAST: u8 = 5;

/// A document that was taken in bulk.
#[derive(serde::Serialize, serde::Deserialize)]
struct Preview {
    source: AuthorKey,
    view: ByteBuf,
    changes: Vec<ChangeHash>,
}

/// How far a shard is, and when it was begun.
#[derive(serde::Serialize, serde::Deserialize)]
struct ProgressRecord {
    began_ms: u64,
    is_at_ops: bool,
    parts: Vec<(Part, Option<DocId>)>,
    since: Option<Hlc>,
    givers: Vec<AuthorKey>,
    documents: u64,
    bytes: u64,
    total: u64,
}

/// The shard that was taken in bulk last.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct LastBulk {
    /// The shard.
    pub shard: ShardId,
    /// Documents taken.
    pub documents: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Who gave them.
    pub givers: Vec<AuthorKey>,
    /// Milliseconds since 1970 at the first page.
    pub began_ms: u64,
    /// Milliseconds since 1970 when its ops were here.
    pub ended_ms: u64,
    /// Documents that no op made.
    pub refuted: u64,
}

impl LastBulk {
    fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

/// Whether anything that was taken in bulk may be there to be shown: readers need not look otherwise.
#[derive(Clone, Debug)]
pub struct Previews(Arc<AtomicBool>);

impl Default for Previews {
    /// There may be.
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Previews {
    pub(super) fn may_be(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What is under way of bulk.
pub(super) struct Bulks {
    /// Documents in a page that is given.
    page_documents: usize,
    /// Pages that go to the disk with a batch.
    storing: BTreeMap<(ShardId, u32), BatchId>,
    /// When the shards were begun that are being taken, in milliseconds since 1970.
    began: BTreeMap<ShardId, u64>,
    /// Shards whose previews are to be settled.
    ending: BTreeMap<ShardId, settle::Ending>,
    last: Option<LastBulk>,
    previews: Previews,
    /// Readers need not look any more when this batch is committed.
    unseen_after: BatchId,
}

impl Bulks {
    pub(super) fn new(page_documents: usize) -> Self {
        Self {
            page_documents: page_documents.clamp(1, limits::DOCUMENTS_PAGE_MAX),
            storing: BTreeMap::new(),
            began: BTreeMap::new(),
            ending: BTreeMap::new(),
            last: None,
            previews: Previews::default(),
            unseen_after: BatchId(0),
        }
    }
}

pub(super) fn preview_key(key: &DocKey) -> Vec<u8> {
    let mut out = vec![PREVIEW_DOCUMENT];
    key.write(&mut out);
    out
}

pub(super) fn change_key(hash: &ChangeHash) -> Vec<u8> {
    let mut out = vec![PREVIEW_CHANGE];
    out.extend(hash.as_bytes());
    out
}

fn progress_key(shard: &ShardId) -> Vec<u8> {
    let mut out = vec![BULK_PROGRESS];
    shard.write(&mut out);
    out
}

fn last_key() -> Vec<u8> {
    vec![BULK_LAST]
}

/// Returns the view that a peer claims of a document, if it has all that is seen by the one that is here.
pub(super) fn preview_of(
    store: &dyn Read,
    key: &DocKey,
    here: Option<&ViewRecord>,
) -> Result<Option<ViewRecord>, StoreError> {
    if here.is_some_and(|view| view.deleted && !view.heads.is_empty()) {
        return Ok(None);
    }
    let value = store.get(Keyspace::Pending, &preview_key(key))?;
    let has_all =
        |preview: &Preview| here.is_none_or(|view| view.heads.iter().all(|head| preview.changes.contains(head)));
    // A damaged preview is none: it can only be missed until the ops are here.
    let preview = value.and_then(decode_preview).filter(has_all);
    Ok(preview.and_then(|preview| ViewRecord::decode(&preview.view.into_vec().into()).ok()))
}

fn decode_preview(value: bytes::Bytes) -> Option<Preview> {
    codec::decode(&envelope::open(value).ok()?, crate::store::VALUE_BYTES_MAX).ok()
}

impl Replica {
    /// Returns the shard that was taken in bulk last.
    #[must_use]
    pub const fn last_bulk(&self) -> Option<&LastBulk> {
        self.bulks.last.as_ref()
    }

    /// Returns when a shard that is being taken in bulk was begun, in milliseconds since 1970.
    #[must_use]
    pub fn bulk_began_ms(&self, shard: &ShardId) -> Option<u64> {
        self.bulks.began.get(shard).copied()
    }

    /// Returns what tells readers whether to look for documents that were taken in bulk.
    #[must_use]
    pub fn previews(&self) -> Previews {
        self.bulks.previews.clone()
    }

    /// Tells readers whether to look. They go on until the views are on the disk that take the place of the last previews.
    fn tell_previews(&mut self) {
        let are_some = !self.bulks.ending.is_empty() || !self.bulks.began.is_empty();
        if are_some {
            self.bulks.unseen_after = self.next_batch;
            self.bulks.previews.0.store(true, Ordering::Release);
        } else if self.bulks.unseen_after <= self.committed {
            self.bulks.previews.0.store(false, Ordering::Release);
        }
    }

    /// Stages how far a shard is.
    pub(super) fn keep_bulk(&mut self, shard: &ShardId) {
        let Some(progress) = self.engine.bulk_progress(shard) else { return };
        let began_ms = *self.bulks.began.entry(shard.clone()).or_insert(self.now.wall_ms);
        let BulkProgress { stage, parts, since, givers, documents, bytes, total } = progress;
        let is_at_ops = stage == BulkStage::Ops;
        let record = ProgressRecord { began_ms, is_at_ops, parts, since, givers, documents, bytes, total };
        self.put(Keyspace::Pending, progress_key(shard), &codec::encode(&record));
        self.tell_previews();
    }

    /// Keeps documents that a peer gave, if all of them are documents.
    pub(super) fn take_documents(
        &mut self,
        now: Now,
        request: u32,
        from: AuthorKey,
        shard: ShardId,
        documents: &[BulkDocument],
        effects: &mut Vec<Effect>,
    ) {
        let built: Option<Vec<_>> = documents.iter().map(build).collect();
        let Some(built) = built else {
            let input = NetInput::DocumentsTaken { shard, request, outcome: Taken::Refused };
            return self.step_engine(now, input, effects);
        };
        // What was to be settled is taken once more; it is settled at the end of that.
        self.bulks.ending.remove(&shard);
        for (document, (view, hashes)) in documents.iter().zip(built) {
            let key = DocKey { collection: shard.collection.clone(), doc: document.doc.clone() };
            if self.is_erased(&key) {
                continue;
            }
            for (hash, change) in hashes.iter().zip(&document.changes) {
                self.put(Keyspace::Pending, change_key(hash), change);
            }
            let preview = Preview { source: from, view: ByteBuf::from(view.encode()), changes: hashes };
            self.put(Keyspace::Pending, preview_key(&key), &codec::encode(&preview));
        }
        self.keep_bulk(&shard);
        if documents.is_empty() {
            let input = NetInput::DocumentsTaken { shard, request, outcome: Taken::Stored };
            return self.step_engine(now, input, effects);
        }
        self.bulks.storing.insert((shard, request), self.next_batch);
    }

    /// Removes what was taken in bulk of a document.
    pub(super) fn forget_preview(&mut self, key: &DocKey) {
        let place = preview_key(key);
        match self.store.get(Keyspace::Pending, &place) {
            Ok(None) => {}
            Ok(Some(value)) => {
                for hash in decode_preview(value).into_iter().flat_map(|preview| preview.changes) {
                    self.delete(Keyspace::Pending, change_key(&hash));
                }
                self.delete(Keyspace::Pending, place);
            }
            Err(error) => self.halt(format!("read the store: {error}")),
        }
    }

    /// Tells the replication engine of pages that are durable now.
    pub(super) fn documents_durable(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.tell_previews();
        let committed = self.committed;
        let durable: Vec<(ShardId, u32)> =
            self.bulks.storing.iter().filter(|(_, batch)| **batch <= committed).map(|(page, _)| page.clone()).collect();
        for (shard, request) in durable {
            self.bulks.storing.remove(&(shard.clone(), request));
            self.step_engine(now, NetInput::DocumentsTaken { shard, request, outcome: Taken::Stored }, effects);
        }
    }

    /// Takes up shards that were being taken when the replica was last open.
    pub(super) fn resume_bulks(&mut self) -> Result<(), StoreError> {
        let store = self.store.clone();
        for entry in store.scan(Keyspace::Pending, &Span::prefix([BULK_PROGRESS]), Order::Ascending) {
            let (place, value) = entry?;
            let Some(shard) = place.get(1..).and_then(|key| ShardId::decode(key).ok()) else { continue };
            let record = envelope::open(value).ok();
            let record = record.and_then(|value| codec::decode(&value, crate::store::VALUE_BYTES_MAX).ok());
            // A damaged record costs what it says: the shard is begun again, or taken by its ops.
            let Some(ProgressRecord { began_ms, is_at_ops, parts, since, givers, documents, bytes, total }) = record
            else {
                continue;
            };
            let stage = if is_at_ops { BulkStage::Ops } else { BulkStage::Documents };
            self.bulks.began.insert(shard.clone(), began_ms);
            let progress = BulkProgress { stage, parts, since, givers, documents, bytes, total };
            if !self.engine.resume_bulk(shard.clone(), progress.clone()) {
                // Its ops come whole.
                self.bulk_ended(shard, &progress, BTreeSet::new());
            }
        }
        let last = store.get(Keyspace::Pending, &last_key())?;
        let last = last.and_then(|value| envelope::open(value).ok());
        self.bulks.last = last.and_then(|value| codec::decode(&value, crate::store::VALUE_BYTES_MAX).ok());
        self.tell_previews();
        Ok(())
    }
}

/// Returns whether a document with this view is handed over in bulk, if its changes fit a page.
fn is_given(view: &ViewRecord) -> bool {
    let is_plain = !view.deleted && view.voids.is_empty() && view.deletes.is_empty();
    is_plain && view.changes > 0 && view.changes <= DOCUMENT_CHANGES_MAX as u64
}

/// Builds a document from its changes, through the gate; returns its view and the names of its changes.
fn build(given: &BulkDocument) -> Option<(ViewRecord, Vec<ChangeHash>)> {
    let scans: Option<Vec<_>> = given.changes.iter().map(|bytes| gate::prescan(bytes).ok()).collect();
    let scans = scans?;
    let candidates: Vec<Candidate<'_>> = scans
        .iter()
        .zip(&given.changes)
        .map(|(scan, bytes)| Candidate {
            bytes,
            actor: scan.actor,
            action: if scan.deps.is_empty() { WriteAction::Create } else { WriteAction::Update },
            fields: None,
        })
        .collect();
    let mut document = Document::new();
    if !document.admit(&candidates).iter().all(|answer| matches!(answer, Admission::Admitted(_))) {
        return None;
    }
    let view = ViewRecord {
        heads: document.heads().to_vec(),
        deleted: false,
        modified: given.modified,
        feed: 0,
        changes: scans.len() as u64,
        voids: Vec::new(),
        deletes: Vec::new(),
        json: document.json(),
    };
    Some((view, scans.into_iter().map(|scan| scan.hash).collect()))
}
