//! Reads: straight from the store, on the caller's own thread, without the replica.
//!
//! What is read is what is committed: every acknowledged write is there.

use std::sync::Arc;

use bytes::Bytes;

use super::Replica;
use super::bulk::Previews;
use super::erase::{ErasureRecord, erasure_of};
use super::expiry::{Expiries, Over};
use super::flush::{SHARD_RECORDS, feed_key, feed_of_key, feed_span};
use super::history;
use super::load::{self, LoadError};
use super::records::{ShardRecord, TxRecord, TxRef, ViewRecord};
use crate::document::Document;
use crate::hlc::Hlc;
use crate::id::{ChangeHash, ClusterId, CollectionName, DocId, ShardId};
use crate::op::{Op, codec};
use crate::replication::ShardDigest;
use crate::store::keys::{DocKey, Key as _, OpKey};
use crate::store::{Keyspace, Order, Read, Span, Store, StoreError, envelope};

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store cannot be read.
    #[error("read the store")]
    Store(#[from] StoreError),
    /// A record is damaged.
    #[error("a record in keyspace {keyspace} is damaged: {what}; run `folkmoot verify`")]
    Damaged {
        /// Where.
        keyspace: Keyspace,
        /// What.
        what: String,
    },
    /// A document cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A document as readers see it.
#[derive(Clone, Debug)]
pub struct View {
    /// Its id.
    pub doc: DocId,
    /// Maximal accepted changes, ascending.
    pub heads: Vec<ChangeHash>,
    /// Whether it is deleted; its JSON is empty then.
    pub deleted: bool,
    /// Whether it is erased, and gone for good. Then it is deleted too.
    pub erased: bool,
    /// Latest time of its heads and of its deletes.
    pub modified: Hlc,
    /// Accepted changes.
    pub changes: u64,
    /// Its place in the feed; 0 if it has none here.
    pub feed: u64,
    /// The JSON text.
    pub json: Bytes,
}

/// What readers see is the same. Where a document stands in the feed is each replica's own affair.
impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        let seen = |view: &Self| (view.deleted, view.erased, view.modified, view.changes);
        seen(self) == seen(other) && self.doc == other.doc && self.heads == other.heads && self.json == other.json
    }
}

impl Eq for View {}

/// A part of the feed of changes.
#[derive(Clone, Debug)]
pub struct FeedPage {
    /// What passed.
    pub entries: Vec<FeedEntry>,
    /// The place up to which was looked.
    pub reached: u64,
    /// Whether there was no more at that moment.
    pub is_end: bool,
}

/// One entry of the feed of changes: the latest change of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its place.
    pub seq: u64,
    /// The document.
    pub key: DocKey,
    /// As it is now.
    pub view: View,
}

/// What a shard holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// The shard.
    pub shard: ShardId,
    /// Ops that arrived.
    pub ops: u64,
    /// Of these, not yet applied.
    pub unapplied: u64,
    /// Documents that exist.
    pub documents: u64,
    /// Bytes of their JSON text.
    pub bytes: u64,
    /// Digest over ids, heads and deletions of the documents.
    pub digest: ShardDigest,
}

/// Reads what a replica has committed. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    store: Arc<dyn Store>,
    previews: Previews,
    expiries: Expiries,
}

pub(super) fn damaged(keyspace: Keyspace, what: impl std::fmt::Display) -> ReadError {
    ReadError::Damaged { keyspace, what: what.to_string() }
}

fn erased_view(doc: DocId, record: &ErasureRecord) -> View {
    let (heads, json) = (Vec::new(), Bytes::new());
    View { doc, heads, deleted: true, erased: true, modified: record.erased, changes: 0, feed: record.feed, json }
}

/// Every read of a document goes through here: what its time is over for is shown to nobody.
fn view_of(doc: DocId, value: Bytes, over: &Over) -> Result<View, ReadError> {
    Ok(shown(doc, view_record(value)?, over))
}

/// Returns a document that exists, as it is or as it was. What its time is over for now is shown to nobody as it was either.
fn view_at(
    snapshot: &dyn Read,
    key: DocKey,
    record: ViewRecord,
    over: &Over,
    past: Option<PastOf>,
) -> Result<Option<View>, ReadError> {
    let is_of_then = past.is_none_or(|past| record.modified <= past.time);
    let was_deleted = record.deleted;
    let view = shown(key.doc.clone(), record, over);
    match past {
        Some(PastOf { time, cluster }) if !is_of_then => {
            let is_over = view.deleted && !was_deleted;
            let was = if is_over { None } else { history::past_of(snapshot, &key, cluster)? };
            Ok(was.and_then(|was| was.view_at(view, time)))
        }
        _ => Ok(Some(view).filter(|view| !view.deleted)),
    }
}

pub(super) fn view_record(value: Bytes) -> Result<ViewRecord, ReadError> {
    let value = envelope::open(value).map_err(|error| damaged(Keyspace::Views, error))?;
    ViewRecord::decode(&value).map_err(|error| damaged(Keyspace::Views, error))
}

fn shown(doc: DocId, record: ViewRecord, over: &Over) -> View {
    let ViewRecord { heads, deleted, modified, changes, feed, json, .. } = record;
    let is_over = !deleted && over.is_ever() && over.hides(&json);
    let (deleted, json) = if is_over { (true, Bytes::new()) } else { (deleted, json) };
    View { doc, heads, deleted, erased: false, modified, changes, feed, json }
}

/// The documents of a collection at one moment. Keep it only as long as one answer takes.
pub struct Views {
    snapshot: Arc<dyn Read>,
    collection: CollectionName,
    over: Over,
    past: Option<PastOf>,
}

/// A time at which documents are looked at.
#[derive(Clone, Copy, Debug)]
struct PastOf {
    time: Hlc,
    cluster: ClusterId,
}

/// Which ids are looked at.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct IdRange {
    /// Not less than this.
    pub from: Option<String>,
    /// Greater than this.
    pub after: Option<String>,
    /// Less than this.
    pub before: Option<String>,
    /// Not greater than this.
    pub to: Option<String>,
}

impl IdRange {
    /// Returns whether all ids are looked at.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl Views {
    /// Returns a document that exists.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn get(&self, doc: &DocId) -> Result<Option<View>, ReadError> {
        self.get_unless(doc, &self.over)
    }

    fn get_unless(&self, doc: &DocId, over: &Over) -> Result<Option<View>, ReadError> {
        let key = DocKey { collection: self.collection.clone(), doc: doc.clone() };
        let Some(value) = self.snapshot.get(Keyspace::Views, &key.encode())? else { return Ok(None) };
        view_at(&*self.snapshot, key, view_record(value)?, over, self.past)
    }

    /// Whether documents are looked at as they were at some time, for which each may have to be made from its history.
    #[must_use]
    pub const fn are_past(&self) -> bool {
        self.past.is_some()
    }

    /// Returns the same documents with those whose time is over: for what is kept of documents, and not for readers.
    #[must_use]
    pub(crate) fn with_all(self) -> Self {
        Self { over: Over::default(), ..self }
    }

    /// As [`Self::get`], also if the document's time is over.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub(crate) fn get_kept(&self, doc: &DocId) -> Result<Option<View>, ReadError> {
        self.get_unless(doc, &Over::default())
    }

    /// Returns the last place of the feed of changes at this moment.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub(crate) fn feed_end(&self) -> Result<u64, ReadError> {
        feed_end_of(&*self.snapshot)
    }

    /// Returns the documents of all collections that have changed since a place in the feed, in its order, lazily.
    pub(crate) fn changes(&self, after: u64) -> impl Iterator<Item = Result<(u64, DocKey), ReadError>> + use<> {
        let entries = self.snapshot.scan(Keyspace::Index, &feed_span(after), Order::Ascending);
        entries.map(|entry| {
            let (key, value) = entry?;
            feed_entry(&key, value)
        })
    }

    /// Returns the snapshot.
    pub(crate) fn read(&self) -> &dyn Read {
        &*self.snapshot
    }

    /// Returns the documents that exist, by id, lazily.
    pub fn scan(&self, range: &IdRange) -> impl Iterator<Item = Result<View, ReadError>> + use<> {
        // Ids end with a zero byte in keys: the first key behind an id's own ends with a one.
        let key = |id: &String| [self.collection.encode(), id.as_bytes().to_vec()].concat();
        let next = |id: &String| [key(id), vec![1]].concat();
        let mut span = DocKey::collection(&self.collection);
        for from in range.from.iter().map(key).chain(range.after.iter().map(next)) {
            span = span.starting_at(&from);
        }
        for before in range.before.iter().map(key).chain(range.to.iter().map(next)) {
            span = span.before(&before);
        }
        let entries = self.snapshot.scan(Keyspace::Views, &span, Order::Ascending);
        let (over, past, snapshot) = (self.over.clone(), self.past, self.snapshot.clone());
        entries.filter_map(move |entry| {
            let read = || {
                let (key, value) = entry?;
                let key = DocKey::decode(&key).map_err(|error| damaged(Keyspace::Views, error))?;
                view_at(&*snapshot, key, view_record(value)?, &over, past)
            };
            read().transpose()
        })
    }
}

impl Reader {
    /// Reads from this store, as if no document's time were ever over.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, previews: Previews::default(), expiries: Expiries::default() }
    }

    /// Reads from the store of a replica that says when there is nothing to look for beside it, and which documents' time is over.
    #[must_use]
    pub fn of(replica: &Replica) -> Self {
        Self { store: replica.store.clone(), previews: replica.previews(), expiries: replica.expiries.clone() }
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns a document, deleted or not; none if it has no accepted change: then it never was, whatever else is kept
    /// of it here.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn get(&self, key: &DocKey) -> Result<Option<View>, ReadError> {
        let value = self.store.get(Keyspace::Views, &key.encode())?;
        if value.is_none()
            && let Some(record) = erasure_of(&*self.store, key)?
        {
            return Ok(Some(erased_view(key.doc.clone(), &record)));
        }
        let here = value.map(view_record).transpose()?.filter(|view| !view.heads.is_empty());
        let over = self.expiries.of(&key.collection);
        if !self.previews.may_be() {
            return Ok(here.map(|view| shown(key.doc.clone(), view, &over)));
        }
        // A node that has only just joined, or was away for long, shows what a peer says of a document, until its ops are here.
        let preview = super::bulk::preview_of(&*self.store, key, here.as_ref())?;
        Ok(preview.or(here).map(|view| shown(key.doc.clone(), view, &over)))
    }

    /// Returns documents that exist, by id: after `after`, with this prefix, until there are `limit` of them or
    /// `bytes_max` bytes of JSON.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn list(
        &self,
        collection: &CollectionName,
        prefix: &str,
        after: Option<&DocId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<View>, ReadError> {
        let mut span = DocKey::id_prefix(collection, prefix);
        if let Some(doc) = after {
            span = span.after(&DocKey { collection: collection.clone(), doc: doc.clone() }.encode());
        }
        let over = self.expiries.of(collection);
        let mut views = Vec::new();
        let mut bytes = 0;
        for entry in self.store.scan(Keyspace::Views, &span, Order::Ascending) {
            if views.len() >= limit || bytes >= bytes_max {
                break;
            }
            let (key, value) = entry?;
            let key = DocKey::decode(&key).map_err(|error| damaged(Keyspace::Views, error))?;
            let view = view_of(key.doc, value, &over)?;
            if !view.deleted {
                bytes += view.json.len();
                views.push(view);
            }
        }
        Ok(views)
    }

    /// Returns the documents of a collection as they are at this moment.
    #[must_use]
    pub fn views(&self, collection: &CollectionName) -> Views {
        let (snapshot, over) = (self.store.snapshot().into(), self.expiries.of(collection));
        Views { snapshot, collection: collection.clone(), over, past: None }
    }

    /// Returns the documents of a collection as they were at a time, by the clocks of those who wrote. Needs a thread with
    /// [`crate::document::gate::STACK_BYTES`] of stack.
    #[must_use]
    pub fn views_at(&self, collection: &CollectionName, time: Hlc, cluster: ClusterId) -> Views {
        Views { past: Some(PastOf { time, cluster }), ..self.views(collection) }
    }

    /// Returns the latest changes of documents after a place in the feed, in commit order, of all collections or of one, that pass.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn feed(
        &self,
        after: u64,
        collection: Option<&CollectionName>,
        prefix: &str,
        limit: usize,
        passes: &dyn Fn(&DocKey, &View) -> Result<bool, ReadError>,
    ) -> Result<FeedPage, ReadError> {
        /// Entries looked at in one call, so that a filter that matches little stays bounded.
        const LOOKED_AT_MAX: usize = 10_000;
        let snapshot = self.store.snapshot();
        let mut entries = Vec::new();
        let (mut reached, mut looked_at, mut is_end) = (after, 0, true);
        for entry in snapshot.scan(Keyspace::Index, &feed_span(after), Order::Ascending) {
            if entries.len() >= limit || looked_at >= LOOKED_AT_MAX {
                is_end = false;
                break;
            }
            looked_at += 1;
            let (key, value) = entry?;
            let (seq, key) = feed_entry(&key, value)?;
            reached = seq;
            if collection.is_some_and(|collection| *collection != key.collection)
                || !key.doc.as_str().starts_with(prefix)
            {
                continue;
            }
            if let Some(value) = snapshot.get(Keyspace::Views, &key.encode())? {
                let view = view_of(key.doc.clone(), value, &self.expiries.of(&key.collection))?;
                if passes(&key, &view)? {
                    entries.push(FeedEntry { seq, key, view });
                }
            } else if let Some(record) = erasure_of(&*snapshot, &key)? {
                let view = erased_view(key.doc.clone(), &record);
                if !passes(&key, &view)? {
                    continue;
                }
                entries.push(FeedEntry { seq, key, view });
            }
        }
        Ok(FeedPage { entries, reached, is_end })
    }

    /// Returns whether documents of a collection end by themselves, and so are hidden without a change of theirs.
    #[must_use]
    pub fn ends(&self, collection: &CollectionName) -> bool {
        self.expiries.of(collection).is_ever()
    }

    /// Returns the last place of the feed.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn feed_end(&self) -> Result<u64, ReadError> {
        feed_end_of(&*self.store)
    }

    /// Returns what each shard holds, by shard.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn shards(&self) -> Result<Vec<ShardInfo>, ReadError> {
        let mut shards = Vec::new();
        for entry in self.store.scan(Keyspace::Meta, &Span::prefix(SHARD_RECORDS), Order::Ascending) {
            let (key, value) = entry?;
            let id = key.get(SHARD_RECORDS.len()..).unwrap_or_default();
            let shard = ShardId::decode(id).map_err(|error| damaged(Keyspace::Meta, error))?;
            let value = envelope::open(value).map_err(|error| damaged(Keyspace::Meta, error))?;
            let record = ShardRecord::decode(&value).map_err(|error| damaged(Keyspace::Meta, error))?;
            let digest = codec::decode(&record.digest, 64).map_err(|error| damaged(Keyspace::Meta, error))?;
            shards.push(ShardInfo {
                shard,
                ops: record.arrivals,
                unapplied: record.arrivals.saturating_sub(record.applied),
                documents: record.documents,
                bytes: record.bytes,
                digest,
            });
        }
        Ok(shards)
    }

    /// Returns transactions that wait or are quarantined, by op, after the given key; and the key behind the page.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn transactions(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, TxRecord)>, ReadError> {
        let mut span = Span::all();
        if let Some(key) = after {
            span = span.after(key);
        }
        let mut records = Vec::new();
        for entry in self.store.scan(Keyspace::Quarantine, &span, Order::Ascending).take(limit) {
            let (key, value) = entry?;
            let value = envelope::open(value).map_err(|error| damaged(Keyspace::Quarantine, error))?;
            let record = TxRecord::decode(&value).map_err(|error| damaged(Keyspace::Quarantine, error))?;
            records.push((key, record));
        }
        Ok(records)
    }

    /// Returns the op of a transaction; none if it is not here.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read or the op is damaged.
    pub fn op(&self, tx: &TxRef, cluster: ClusterId) -> Result<Option<Op>, ReadError> {
        let main = OpKey::new(tx.stream, tx.seq);
        for key in [main, OpKey { branch: Some(tx.op), ..main }] {
            let Some(value) = self.store.get(Keyspace::Ops, &key.encode())? else { continue };
            let value = envelope::open(value).map_err(|error| damaged(Keyspace::Ops, error))?;
            let op = Op::decode(&value, cluster).map_err(|error| damaged(Keyspace::Ops, error))?;
            if op.id() == tx.op {
                return Ok(Some(op));
            }
        }
        Ok(None)
    }

    /// Loads a document with its history. Needs a thread with [`crate::document::gate::STACK_BYTES`] of stack.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read or the document is damaged.
    pub fn document(&self, key: &DocKey) -> Result<Document, ReadError> {
        Ok(load::load(&*self.store.snapshot(), key)?.document)
    }

    /// Returns whether an entry of the feed is still the latest of its document.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn feed_has(&self, seq: u64) -> Result<bool, ReadError> {
        Ok(self.store.get(Keyspace::Index, &feed_key(seq))?.is_some())
    }
}

/// Returns the last place of the feed of changes.
pub(crate) fn feed_end_of(store: &dyn Read) -> Result<u64, ReadError> {
    match store.last(Keyspace::Index, &feed_span(0))? {
        None => Ok(0),
        Some((key, _)) => feed_of_key(&key).ok_or_else(|| damaged(Keyspace::Index, "key of the feed")),
    }
}

/// Reads an entry of the feed.
fn feed_entry(key: &[u8], value: Bytes) -> Result<(u64, DocKey), ReadError> {
    let seq = feed_of_key(key).ok_or_else(|| damaged(Keyspace::Index, "key of the feed"))?;
    let value = envelope::open(value).map_err(|error| damaged(Keyspace::Index, error))?;
    Ok((seq, DocKey::decode(&value).map_err(|error| damaged(Keyspace::Index, error))?))
}

/// Reads a view from any read of a store; for checks.
pub(super) fn read_view(store: &dyn Read, key: &DocKey) -> Result<Option<ViewRecord>, ReadError> {
    store.get(Keyspace::Views, &key.encode())?.map(view_record).transpose()
}
