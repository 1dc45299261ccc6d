//! A document as loaded from the store, with what the store knows about it.

use std::collections::{BTreeMap, BTreeSet};

use super::records::{DeleteRecord, SnapshotRecord, ViewRecord};
use crate::document::Document;
use crate::hlc::Hlc;
use crate::id::ChangeHash;
use crate::store::keys::{DocKey, Key as _, TailKey};
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
    /// Whether it differs from what the store has or will have with the batches on their way.
    pub(super) dirty: bool,
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
            dirty: false,
        }
    }

    /// Whether the document is there for readers.
    pub(crate) fn exists(&self) -> bool {
        !self.document.heads().is_empty() && !self.document.is_deleted()
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
    loaded.snapshot_bytes = snapshot.as_ref().map_or(0, |snapshot| snapshot.automerge.len());
    if snapshot.is_some() || !changes.is_empty() {
        let tail = changes.iter().map(|change| &**change);
        let document = match snapshot {
            Some(SnapshotRecord { tree, automerge }) if view.voids.is_empty() && !tree.is_empty() => {
                Document::resume(automerge, &tree, tail, BTreeSet::new())
            }
            snapshot => {
                let automerge = snapshot.as_ref().map(|snapshot| &*snapshot.automerge);
                Document::load(automerge, tail, view.voids.iter().copied().collect(), BTreeSet::new())
            }
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
