//! A document as loaded from the store, with what the store knows about it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use super::records::{DeleteRecord, SnapshotRecord, ViewRecord};
use crate::document::{Document, Folded, History};
use crate::hlc::Hlc;
use crate::id::ChangeHash;
use crate::store::keys::{DocKey, Key as _, SegmentKey, TailKey};
use crate::store::{Keyspace, Order, Read, StoreError, envelope};

/// Why a document cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The store cannot be read.
    #[error("read document {}/{} from the store", key.collection, key.doc)]
    Store {
        /// The document.
        key: DocKey,
        /// Why.
        source: StoreError,
    },
    /// A record or the snapshot of the document is damaged.
    #[error("document {}/{} is damaged on disk: {what}", key.collection, key.doc)]
    Damaged {
        /// The document.
        key: DocKey,
        /// What of it.
        what: String,
    },
}

/// What the feed, the digests and the counts hold of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) heads: Vec<ChangeHash>,
    pub(super) deleted: bool,
    pub(super) json_bytes: u64,
    pub(super) feed: u64,
}

/// A loaded document.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) document: Document,
    /// Times of the changes that came since it was loaded, and of its heads.
    pub(super) times: BTreeMap<ChangeHash, Hlc>,
    pub(crate) deletes: Vec<DeleteRecord>,
    /// What the store's view says; none if there is no view yet.
    pub(super) published: Option<Published>,
    /// Changes that no snapshot holds.
    pub(super) tail: Vec<ChangeHash>,
    pub(super) tail_bytes: usize,
    pub(super) snapshot_bytes: usize,
    /// The parts in which a long history is stored; none if it is stored in one with the rest.
    pub(super) segments: u64,
    /// Whether it differs from what the store has or will have with the batches on their way.
    pub(super) dirty: bool,
}

/// A document folded, as it is stored.
#[derive(Debug)]
pub(super) struct FoldedParts {
    pub(super) record: SnapshotRecord,
    /// Changes that need no longer be stored beside it.
    pub(super) tail: Vec<ChangeHash>,
    /// Parts of the history that are no longer needed.
    pub(super) obsolete: Range<u64>,
    /// A new part.
    pub(super) segment: Option<(u64, Bytes)>,
}

impl Loaded {
    /// Returns a document without history.
    pub(super) fn empty() -> Self {
        Self {
            document: Document::new(),
            times: BTreeMap::new(),
            deletes: Vec::new(),
            published: None,
            tail: Vec::new(),
            tail_bytes: 0,
            snapshot_bytes: 0,
            segments: 0,
            dirty: false,
        }
    }

    /// Whether the document is there for readers.
    pub(crate) fn exists(&self) -> bool {
        !self.document.heads().is_empty() && !self.document.is_deleted()
    }

    /// Notes that the document was folded; returns what that means for the store.
    pub(super) fn note_folded(&mut self, folded: Folded) -> FoldedParts {
        let tail = std::mem::take(&mut self.tail);
        self.tail_bytes = 0;
        let (mut obsolete, mut segment, mut automerge) = (0..0, None, Bytes::new());
        match folded.history {
            History::More(part) => {
                self.snapshot_bytes += part.len();
                segment = Some((self.segments, part));
                self.segments += 1;
            }
            History::Whole(whole) => {
                obsolete = 0..self.segments;
                self.snapshot_bytes = whole.len();
                if folded.is_long {
                    obsolete = 1..self.segments.max(1);
                    segment = Some((0, whole));
                    self.segments = 1;
                } else {
                    self.segments = 0;
                    automerge = whole;
                }
            }
        }
        let record = SnapshotRecord { short: folded.short.into(), automerge, segments: self.segments };
        FoldedParts { record, tail, obsolete, segment }
    }

    /// Hands the deletes that count to the document; call after each change of `deletes`.
    pub(super) fn apply_deletes(&mut self) {
        let heads = self
            .deletes
            .iter()
            .filter(|delete| delete.counts)
            .flat_map(|delete| delete.heads.iter().copied())
            .collect();
        self.document.set_deletes(heads);
    }
}

/// Loads a document; one that is not in the store is an empty one.
pub(crate) fn load(store: &dyn Read, key: &DocKey) -> Result<Loaded, LoadError> {
    let read = |source| LoadError::Store { key: key.clone(), source };
    let damaged = |what: &dyn std::fmt::Display| LoadError::Damaged { key: key.clone(), what: what.to_string() };
    // Changes are stored in the batch that holds their document's view, so where there is none there is nothing.
    let Some(view) = store.get(Keyspace::Views, &key.encode()).map_err(read)? else { return Ok(Loaded::empty()) };
    let view = envelope::open(view).map_err(|error| damaged(&error))?;
    let view = ViewRecord::decode(&view).map_err(|error| damaged(&error))?;
    let snapshot = match store.get(Keyspace::Snapshots, &key.encode()).map_err(read)? {
        None => None,
        Some(value) => {
            let value = envelope::open(value).map_err(|error| damaged(&error))?;
            Some(SnapshotRecord::decode(&value).map_err(|error| damaged(&error))?)
        }
    };
    let mut tail = Vec::new();
    let mut changes = Vec::new();
    let mut tail_bytes = 0;
    for entry in store.scan(Keyspace::Tail, &TailKey::document(key), Order::Ascending) {
        let (entry_key, value) = entry.map_err(read)?;
        let hash = TailKey::decode(&entry_key).map_err(|error| damaged(&error))?.change;
        let value = envelope::open(value).map_err(|error| damaged(&error))?;
        tail_bytes += value.len();
        tail.push(hash);
        changes.push(value);
    }
    let mut loaded = Loaded::empty();
    loaded.tail = tail;
    loaded.tail_bytes = tail_bytes;
    let (mut history, mut short) = (Vec::new(), Bytes::new());
    if let Some(snapshot) = snapshot {
        short = snapshot.short;
        loaded.segments = snapshot.segments;
        if snapshot.segments == 0 {
            history.push(snapshot.automerge);
        } else {
            history = load_segments(store, key, snapshot.segments)?;
        }
    }
    loaded.snapshot_bytes = history.iter().map(Bytes::len).sum();
    if !history.is_empty() || !changes.is_empty() {
        let tail = changes.iter().map(|change| &**change);
        let document = if view.voids.is_empty() && !short.is_empty() {
            Document::resume(&history, &short, tail, BTreeSet::new())
        } else {
            let whole = match history.as_slice() {
                [] => None,
                [one] => Some(one.clone()),
                parts => Some(parts.concat().into()),
            };
            Document::load(whole.as_deref(), tail, view.voids.iter().copied().collect(), BTreeSet::new())
        };
        loaded.document = document.map_err(|error| damaged(&error))?;
    }
    loaded.deletes = view.deletes;
    loaded.published = Some(Published {
        heads: view.heads,
        deleted: view.deleted,
        json_bytes: view.json.len() as u64,
        feed: view.feed,
    });
    if !loaded.deletes.is_empty() {
        loaded.apply_deletes();
    }
    Ok(loaded)
}

/// Reads the parts of a long history.
fn load_segments(store: &dyn Read, key: &DocKey, segments: u64) -> Result<Vec<Bytes>, LoadError> {
    let damaged = |what: String| LoadError::Damaged { key: key.clone(), what };
    let mut history = Vec::new();
    for entry in store.scan(Keyspace::Snapshots, &SegmentKey::document(key), Order::Ascending) {
        let (entry_key, value) = entry.map_err(|source| LoadError::Store { key: key.clone(), source })?;
        let index = SegmentKey::decode(&entry_key).map_err(|error| damaged(error.to_string()))?.index;
        if index != history.len() as u64 {
            break;
        }
        history.push(envelope::open(value).map_err(|error| damaged(error.to_string()))?);
    }
    if history.len() as u64 == segments {
        Ok(history)
    } else {
        Err(damaged(format!("{} of {segments} parts of its history", history.len())))
    }
}
