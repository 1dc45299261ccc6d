//! Bulk, on the replica's side: documents given to a peer and taken from one, and bare ops.
//!
//! What is taken lies in the keyspace `pending` and is shown to readers where there is no view yet. It is a preview, no more: its changes
//! have passed the gate and are named by their own hashes, but only ops say who wrote them. When these are here, each
//! change has matched a signed commitment or was pulled again, and what is left of the previews is refuted.
//!
//! Invariant: no document, view, digest or verdict rests on what was taken in bulk.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use super::load;
use super::records::ViewRecord;
use super::types::{BatchId, Effect};
use super::{Now, Replica};
use crate::document::{Admission, Candidate, Document, gate, json};
use crate::id::{AuthorKey, ChangeHash, DocId, Salt, ShardId};
use crate::op::codec::{self, tagged_enum};
use crate::op::{Body, Op, WriteAction};
use crate::replication::limits::{DOCUMENT_CHANGES_MAX, DOCUMENTS_BYTES_MAX, DOCUMENTS_PAGE_MAX};
use crate::replication::{BulkDocument, Input as NetInput, StoredOp, Taken};
use crate::store::keys::{ChangeKey, ChangePlace, DocKey, Key as _};
use crate::store::{Keyspace, Order, Read, Span, StoreError, envelope};

/// Documents looked at for one page: most may be of other shards or not fit for bulk.
const LOOKED_AT_MAX: usize = 2_048;
/// Claims settled in one step.
const SETTLED_MAX: usize = 256;
/// First bytes of the keys of previews in the keyspace `pending` (0 and 1 are what ops wait for).
const PREVIEW_DOCUMENT: u8 = 2;
const PREVIEW_CHANGE: u8 = 3;

tagged_enum! {
    /// A body of a bare op.
    #[derive(Clone, PartialEq, Debug)]
    pub enum BareBody {
        /// As it is, if it is here.
        0 => Whole(Option<Body>),
        /// Its salt, and the change that it is.
        1 => Named((Salt, ChangeHash)),
    }
}

/// Encoded header, signature, bodies.
#[derive(serde::Serialize, serde::Deserialize)]
struct BareOp(ByteBuf, Option<ByteBuf>, Vec<BareBody>);

/// A document that was taken in bulk.
#[derive(serde::Serialize, serde::Deserialize)]
struct Preview {
    source: AuthorKey,
    view: ByteBuf,
    changes: Vec<ChangeHash>,
}

/// What is under way of bulk.
#[derive(Default)]
pub(super) struct Bulks {
    /// Shards whose documents go to the disk with a batch.
    storing: BTreeMap<ShardId, BatchId>,
    /// Shards whose previews are to be settled, with the peer whose ops are ours.
    ending: BTreeMap<ShardId, AuthorKey>,
}

pub(super) fn preview_key(key: &DocKey) -> Vec<u8> {
    let mut out = vec![PREVIEW_DOCUMENT];
    out.extend(key.encode());
    out
}

pub(super) fn change_key(hash: &ChangeHash) -> Vec<u8> {
    let mut out = vec![PREVIEW_CHANGE];
    out.extend(hash.as_bytes());
    out
}

/// Returns the view that a peer claims of a document.
pub(super) fn preview_of(store: &dyn Read, key: &DocKey) -> Result<Option<ViewRecord>, StoreError> {
    let value = store.get(Keyspace::Pending, &preview_key(key))?;
    // A damaged preview is none: it can only be missed until the ops are here.
    Ok(value.and_then(decode_preview).and_then(|preview| ViewRecord::decode(&preview.view.into_vec().into()).ok()))
}

fn decode_preview(value: bytes::Bytes) -> Option<Preview> {
    codec::decode(&envelope::open(value).ok()?, crate::store::VALUE_BYTES_MAX).ok()
}

impl Replica {
    /// Reads documents for a peer. Those with deletes, void changes or a long history are left out.
    pub(super) fn read_documents(&self, shard: &ShardId, after: Option<&DocId>) -> (Vec<BulkDocument>, Option<DocId>) {
        let mut span = DocKey::collection(&shard.collection);
        if let Some(after) = after {
            span = span.after(&DocKey { collection: shard.collection.clone(), doc: after.clone() }.encode());
        }
        let mut documents = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        for (count, entry) in self.store.scan(Keyspace::Views, &span, Order::Ascending).enumerate() {
            if count >= LOOKED_AT_MAX || documents.len() >= DOCUMENTS_PAGE_MAX {
                return (documents, last);
            }
            let Some((key, value)) = entry.ok() else { return (documents, None) };
            let Ok(key) = DocKey::decode(&key) else { continue };
            if ShardId::of_document(&key.collection, &key.doc, shard.of) == *shard
                && let Some(document) = self.bulk_document(&key, value)
            {
                let size: usize = document.changes.iter().map(|change| change.len()).sum();
                if bytes + size > DOCUMENTS_BYTES_MAX && !documents.is_empty() {
                    return (documents, last);
                }
                bytes += size;
                documents.push(document);
            }
            last = Some(key.doc);
        }
        (documents, None)
    }

    fn bulk_document(&self, key: &DocKey, view: bytes::Bytes) -> Option<BulkDocument> {
        let view = ViewRecord::decode(&envelope::open(view).ok()?).ok()?;
        if !is_given(&view) {
            return None;
        }
        let loaded = load::load(&*self.store, key).ok()?;
        let changes: Vec<ByteBuf> =
            loaded.document.changes_with_deps().map(|(_, _, bytes)| ByteBuf::from(bytes.to_vec())).collect();
        let size: usize = changes.iter().map(|change| change.len()).sum();
        let fits = !changes.is_empty() && changes.len() <= DOCUMENT_CHANGES_MAX && size <= DOCUMENTS_BYTES_MAX;
        fits.then(|| BulkDocument { doc: key.doc.clone(), modified: view.modified, changes })
    }

    /// Keeps documents that a peer gave, if all of them are documents.
    pub(super) fn take_documents(
        &mut self,
        now: Now,
        from: AuthorKey,
        shard: ShardId,
        documents: &[BulkDocument],
        effects: &mut Vec<Effect>,
    ) {
        for document in documents {
            let Some((view, hashes)) = build(document) else {
                let input = NetInput::DocumentsTaken { shard, outcome: Taken::Refused };
                return self.step_engine(now, input, effects);
            };
            for (hash, change) in hashes.iter().zip(&document.changes) {
                self.put(Keyspace::Pending, change_key(hash), change);
            }
            let preview = Preview { source: from, view: ByteBuf::from(view.encode()), changes: hashes };
            let key = DocKey { collection: shard.collection.clone(), doc: document.doc.clone() };
            self.put(Keyspace::Pending, preview_key(&key), &codec::encode(&preview));
        }
        if documents.is_empty() {
            let input = NetInput::DocumentsTaken { shard, outcome: Taken::Stored };
            return self.step_engine(now, input, effects);
        }
        self.bulks.storing.insert(shard, self.next_batch);
    }

    /// Tells the replication engine of pages that are durable now.
    pub(super) fn documents_durable(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let durable: Vec<ShardId> = self
            .bulks
            .storing
            .iter()
            .filter(|(_, batch)| **batch <= self.committed)
            .map(|(shard, _)| shard.clone())
            .collect();
        for shard in durable {
            self.bulks.storing.remove(&shard);
            self.step_engine(now, NetInput::DocumentsTaken { shard, outcome: Taken::Stored }, effects);
        }
    }

    pub(super) fn bulk_ended(&mut self, shard: ShardId, equal: AuthorKey) {
        self.bulks.ending.insert(shard, equal);
    }

    /// Settles some previews of shards whose ops are here and applied: what the ops make stands, the rest goes.
    pub(super) fn settle_previews(&mut self) {
        if self.halted.is_some() || self.unapplied() > 0 || self.has_staged() || !self.in_flight.is_empty() {
            return;
        }
        let Some((shard, equal)) = self.bulks.ending.first_key_value().map(|(s, p)| (s.clone(), *p)) else { return };
        let mut prefix = vec![PREVIEW_DOCUMENT];
        prefix.extend(shard.collection.encode());
        let store = self.store.clone();
        let mut settled = 0;
        for entry in store.scan(Keyspace::Pending, &Span::prefix(prefix), Order::Ascending) {
            let (place, value) = match entry {
                Ok(entry) => entry,
                Err(error) => return self.halt(format!("read the store: {error}")),
            };
            let Some(key) = place.get(1..).and_then(|key| DocKey::decode(key).ok()) else { continue };
            if ShardId::of_document(&key.collection, &key.doc, shard.of) != shard {
                continue;
            }
            if settled >= SETTLED_MAX {
                return;
            }
            settled += 1;
            if let Some(preview) = decode_preview(value) {
                let is_true = preview.changes.iter().all(|hash| self.is_brought(&key, hash));
                // No proof against the giver: what counted there when it gave may have been revoked since.
                if !is_true && preview.source == equal {
                    self.counters.false_documents += 1;
                }
                for hash in &preview.changes {
                    self.delete(Keyspace::Pending, change_key(hash));
                }
            }
            self.delete(Keyspace::Pending, place.to_vec());
        }
        self.bulks.ending.remove(&shard);
    }

    /// Returns whether an op brought this change of the document. The index says it, without a look at the document: most
    /// documents of a shard would be loaded for this alone.
    fn is_brought(&mut self, key: &DocKey, change: &ChangeHash) -> bool {
        let place = self.read_back(Keyspace::Index, &ChangeKey(*change).encode());
        let Some(place) = place.and_then(|value| ChangePlace::decode(&value).ok()) else { return false };
        let op = self.chains().main_op(&place.stream, place.seq);
        op.is_some_and(|op| {
            let transaction = op.header().transactions().get(usize::from(place.transaction));
            let change = transaction.and_then(|transaction| transaction.changes.get(usize::from(place.change)));
            op.header().collection() == &key.collection && change.is_some_and(|change| change.doc == key.doc)
        })
    }

    /// Takes up shards that were being taken when the replica was last open.
    pub(super) fn resume_bulks(&mut self) -> Result<(), StoreError> {
        let store = self.store.clone();
        let mut last: BTreeMap<ShardId, (AuthorKey, DocId)> = BTreeMap::new();
        for entry in store.scan(Keyspace::Pending, &Span::prefix([PREVIEW_DOCUMENT]), Order::Ascending) {
            let (place, value) = entry?;
            let Some(key) = place.get(1..).and_then(|key| DocKey::decode(key).ok()) else { continue };
            let Some(preview) = decode_preview(value) else { continue };
            let shard = ShardId::of_document(&key.collection, &key.doc, self.shards_of(&key.collection));
            last.insert(shard, (preview.source, key.doc));
        }
        for (shard, (source, after)) in last {
            self.engine.resume_bulk(shard, source, after);
        }
        Ok(())
    }

    // ---- bare ops ----

    /// Returns ops with the names of their changes instead of the changes, as far as these are handed over in bulk.
    pub(super) fn bare(&self, ops: Vec<StoredOp>) -> Vec<StoredOp> {
        let mut given: BTreeMap<DocId, bool> = BTreeMap::new();
        ops.into_iter().map(|op| self.bare_op(op, &mut given)).collect()
    }

    fn bare_op(&self, op: StoredOp, given: &mut BTreeMap<DocId, bool>) -> StoredOp {
        let Ok(whole) = Op::decode(&op.bytes, self.identity.cluster) else { return op };
        let mut bodies = Vec::with_capacity(whole.bodies().len());
        for (change, body) in whole.header().changes().zip(whole.bodies()) {
            let is_given = *given.entry(change.doc.clone()).or_insert_with(|| {
                let key = DocKey { collection: whole.header().collection().clone(), doc: change.doc.clone() };
                super::read::read_view(&*self.store, &key).is_ok_and(|view| view.is_some_and(|view| is_given(&view)))
            });
            let named = body.as_ref().filter(|_| is_given && change.action != WriteAction::Delete).and_then(|body| {
                let scan = gate::prescan(&body.bytes).ok()?;
                Some(BareBody::Named((body.salt, scan.hash)))
            });
            bodies.push(named.unwrap_or_else(|| BareBody::Whole(body.clone())));
        }
        let signature = whole.signature().map(|signature| ByteBuf::from(signature.as_bytes().to_vec()));
        let bare = BareOp(ByteBuf::from(whole.header_bytes().to_vec()), signature, bodies);
        StoredOp { bytes: codec::encode(&bare).into(), ..op }
    }

    /// Puts the changes that were taken in bulk into bare ops; none if one of them is not here. Whether they are those that
    /// the headers commit to is seen when the ops are decoded.
    pub(super) fn complete_ops(&self, ops: &[bytes::Bytes]) -> Vec<bytes::Bytes> {
        ops.iter().map(|op| self.complete(op)).collect::<Option<_>>().unwrap_or_default()
    }

    fn complete(&self, bare: &[u8]) -> Option<bytes::Bytes> {
        let BareOp(header, signature, bodies) = codec::decode(bare, crate::limits::OP_BYTES_MAX).ok()?;
        let mut whole: Vec<Option<Body>> = Vec::with_capacity(bodies.len());
        for body in bodies {
            whole.push(match body {
                BareBody::Whole(body) => body,
                BareBody::Named((salt, hash)) => {
                    let bytes = self.store.get(Keyspace::Pending, &change_key(&hash)).ok()??;
                    Some(Body { salt, bytes: envelope::open(bytes).ok()? })
                }
            });
        }
        let op = bytes::Bytes::from(codec::encode(&(header, signature, whole)));
        // A change that is not the one committed to is pulled, and nobody's fault but the document's giver.
        Op::decode(&op, self.identity.cluster).ok().map(|_| op)
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
        json: json::render(document.view()).into(),
    };
    Some((view, scans.into_iter().map(|scan| scan.hash).collect()))
}
