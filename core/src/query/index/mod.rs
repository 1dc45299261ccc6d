//! Secondary indexes ([docs/query.md]).
//!
//! An index is made beside the log, by a thread of its own, of the feed of changes: writes do not wait for it. Its entries lie in sorted
//! runs, in which the entry of a document is good as long as the document stands where it stood in the feed. What has changed since
//! the last run is read from the feed before a query uses the index, so a query sees of an index what it sees of the documents. Nothing
//! rests on an index: it may be thrown away at any time, and is made anew where its declaration has changed or something is erased.
//!
//! Many documents have a place with several values (arrays): such a document has an entry for each of them, and one for the whole. Keys hold
//! the first [`SORTED_BYTES_MAX`](super::SORTED_BYTES_MAX) bytes of texts. So an index tells which documents may be meant; the selector
//! is asked of each.
//!
//! [docs/query.md]: https://github.com/folkmoot/folkmoot/blob/main/docs/query.md

mod cursor;
mod definition;
mod delta;
mod run;
#[cfg(test)]
mod tests;
mod work;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

pub(super) use cursor::{IndexView, Interval, behind_prefix};
pub(super) use definition::{ALWAYS, IndexField, Keys};
pub use definition::{Definition, IndexDeclarationError};
use delta::Delta;
pub use work::{IndexError, Stopped};

use super::find::Candidate;
use crate::document::json::Wanted;
use crate::figure::Figure;
use crate::id::CollectionName;
use crate::limits;
use crate::op::{FieldRights, IndexDeclaration, codec};
use crate::replica::{ReadError, Reader, Views};
use crate::store::keys::Key as _;
use crate::store::{Keyspace, Read, Store, VALUE_BYTES_MAX, envelope};
pub(super) use run::Entry;
use run::{Run, RunRecord};

/// First byte of the keys of indexes in the keyspace `index`.
const INDEXES: u8 = 4;
const RECORD: u8 = 0;
/// Changes that a query reads to bring an index up to its moment. Further behind, the index is not used.
const CAUGHT_UP_MAX: usize = 4_096;
/// Snapshots taken to find one that no index is ahead of.
const SNAPSHOTS_MAX: usize = 5;

/// What is kept of an index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct IndexRecord {
    declaration: IndexDeclaration,
    /// The runs hold what the feed of changes says up to here.
    covered: u64,
    /// The runs are of no use for moments before this place in the feed.
    floor: u64,
    building: Option<Building>,
    runs: Vec<RunRecord>,
    next_run: u64,
}

/// How far an index is that is being made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Building {
    /// Documents up to this one were looked at.
    after: Option<String>,
    /// So many.
    documents: u64,
}

struct Index {
    collection: CollectionName,
    definition: Arc<Definition>,
    /// What its keys in the store begin with.
    prefix: Arc<[u8]>,
    state: Mutex<State>,
}

struct State {
    record: IndexRecord,
    runs: Vec<Arc<Run>>,
    delta: Arc<RwLock<Delta>>,
    /// Why it cannot be read, until it is made anew.
    failed: Option<String>,
}

/// What is told of an index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexInfo {
    /// As declared.
    pub declaration: IndexDeclaration,
    /// While it is being made: documents that were looked at.
    pub building: Option<u64>,
    /// Entries, some of which may be of earlier moments.
    pub entries: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes that it takes in memory.
    pub memory: u64,
    /// Runs, in each of which a query looks.
    pub runs: usize,
    /// Where in the feed of changes it stands.
    pub upto: u64,
    /// Whether some document has several entries: then the index gives no order.
    pub is_multiple: bool,
    /// Why it is not used, if something is wrong with it.
    pub failed: Option<String>,
}

/// How much is done or kept at once.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Bytes of what has changed, beyond which it is written into a run.
    changes_bytes: usize,
    /// Where an index stands is written at least after so many changes of anything.
    covered_every: u64,
    /// Documents of one step of a new index.
    documents_per_step: usize,
    /// Bytes of a block of a run.
    block_bytes: usize,
    /// Runs of a level that are merged into one of the next.
    runs_per_level: usize,
}

const SIZES: Sizes = Sizes {
    changes_bytes: 4 << 20,
    covered_every: 65_536,
    documents_per_step: 32_768,
    block_bytes: 8 << 10,
    runs_per_level: 8,
};

/// The secondary indexes of a store.
///
/// Queries read them from any thread; [`Self::declare`], [`Self::work`] and [`Self::forget`] are called by one thread.
pub struct Indexes {
    store: Arc<dyn Store>,
    collections: Mutex<BTreeMap<CollectionName, Vec<Arc<Index>>>>,
    sizes: Sizes,
}

/// The documents of a collection at one moment, and the indexes that are of that moment.
pub struct Indexed {
    /// The documents.
    pub views: Views,
    pub(super) indexes: Vec<IndexView>,
}

impl Indexed {
    /// The documents alone.
    #[must_use]
    pub const fn without(views: Views) -> Self {
        Self { views, indexes: Vec::new() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn damaged(what: impl std::fmt::Display) -> ReadError {
    ReadError::Damaged { keyspace: Keyspace::Index, what: what.to_string() }
}

/// Returns what the keys of a collection's indexes begin with.
fn collection_prefix(collection: &CollectionName) -> Vec<u8> {
    let mut prefix = vec![INDEXES];
    collection.write(&mut prefix);
    prefix
}

/// Returns what the keys of an index begin with; names hold no zero byte.
fn index_prefix(collection: &CollectionName, name: &str) -> Vec<u8> {
    [&collection_prefix(collection)[..], name.as_bytes(), &[0]].concat()
}

fn record_key(prefix: &[u8]) -> Vec<u8> {
    [prefix, &[RECORD]].concat()
}

impl Indexes {
    /// Opens the indexes of a store. None is there before [`Self::declare`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, collections: Mutex::default(), sizes: SIZES }
    }

    fn of(&self, collection: &CollectionName) -> Vec<Arc<Index>> {
        lock(&self.collections).get(collection).cloned().unwrap_or_default()
    }

    fn all(&self) -> Vec<Arc<Index>> {
        lock(&self.collections).values().flatten().cloned().collect()
    }

    /// Returns the documents of a collection as they are at this moment, with the indexes that can be used.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read. An index that cannot be read is left out.
    pub fn views(&self, reader: &Reader, collection: &CollectionName) -> Result<Indexed, ReadError> {
        let indexes = self.of(collection);
        for _ in 0..SNAPSHOTS_MAX {
            let views = reader.views(collection);
            if indexes.is_empty() {
                return Ok(Indexed::without(views));
            }
            let end = views.feed_end()?;
            let opened: Result<Vec<_>, TooOld> =
                indexes.iter().map(|index| index.view(&views, end, self.sizes)).collect();
            // A later moment is wanted where runs were merged meanwhile.
            let Ok(opened) = opened else { continue };
            return Ok(Indexed { views, indexes: opened.into_iter().flatten().collect() });
        }
        Ok(Indexed::without(reader.views(collection)))
    }

    /// Has the indexes of a collection made anew, since one of them cannot be read; none is used until then.
    pub fn distrust(&self, collection: &CollectionName, why: &str) {
        for index in self.of(collection) {
            lock(&index.state).failed = Some(why.to_owned());
        }
    }

    /// Returns what there is to tell of the indexes of a collection.
    #[must_use]
    pub fn infos(&self, collection: &CollectionName) -> Vec<IndexInfo> {
        self.of(collection).iter().map(|index| index.info()).collect()
    }

    /// Returns what is kept in memory.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let all = self.all();
        let held = all.iter().map(|index| {
            let state = lock(&index.state);
            state.delta.read().unwrap_or_else(PoisonError::into_inner).bytes()
        });
        let most = held.max().unwrap_or(0);
        // One document more than fills it, of the largest.
        let bound =
            self.sizes.changes_bytes + definition::ENTRIES_PER_DOCUMENT_MAX * (limits::DOC_ID_BYTES_MAX + 4_096);
        vec![Figure::new("index_changes_bytes", most, bound)]
    }
}

impl Index {
    fn open(store: &dyn Read, collection: &CollectionName, definition: Definition) -> Result<Self, ReadError> {
        let prefix: Arc<[u8]> = index_prefix(collection, definition.name()).into();
        let record = match store.get(Keyspace::Index, &record_key(&prefix))? {
            None => None,
            Some(value) => {
                let value = envelope::open(value).map_err(damaged)?;
                let record: IndexRecord = codec::decode(&value, VALUE_BYTES_MAX).map_err(damaged)?;
                Some(record).filter(|record| record.declaration == *definition.declaration())
            }
        };
        let (collection, definition) = (collection.clone(), Arc::new(definition));
        let state = match record {
            None => State::new(&definition, crate::replica::feed_end_of(store)?),
            Some(record) => {
                let runs = record.runs.iter().map(|run| Run::open(store, &prefix, run.clone()).map(Arc::new));
                let runs = runs.collect::<Result<_, _>>()?;
                let delta = Arc::new(RwLock::new(Delta::new(record.covered)));
                State { record, runs, delta, failed: None }
            }
        };
        Ok(Self { collection, definition, prefix, state: Mutex::new(state) })
    }

    /// Returns the index at the moment of a snapshot; nothing if it cannot be used.
    ///
    /// # Errors
    /// The snapshot is too old for it: its runs are of a later moment.
    fn view(&self, views: &Views, end: u64, sizes: Sizes) -> Result<Option<IndexView>, TooOld> {
        let mut state = lock(&self.state);
        if state.record.building.is_some() || state.failed.is_some() {
            return Ok(None);
        }
        if state.record.floor.max(state.record.covered) > end {
            return Err(TooOld);
        }
        let delta = state.delta.clone();
        {
            let mut delta = delta.write().unwrap_or_else(PoisonError::into_inner);
            match self.catch_up(&mut delta, views, CAUGHT_UP_MAX, sizes) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => {
                    state.failed = Some(error.to_string());
                    return Ok(None);
                }
            }
        }
        let (is_multiple, has_always) = {
            let delta = delta.read().unwrap_or_else(PoisonError::into_inner);
            let runs = || state.runs.iter().map(|run| &run.record);
            (
                delta.is_multiple || runs().any(|run| run.is_multiple),
                delta.has_always || runs().any(|run| run.has_always),
            )
        };
        let (definition, runs) = (self.definition.clone(), state.runs.clone());
        Ok(Some(IndexView { definition, runs, delta, is_multiple, has_always, blocks: RefCell::default() }))
    }

    /// Takes in what has changed up to the moment of a snapshot. Returns whether that was all.
    fn catch_up(&self, delta: &mut Delta, views: &Views, most: usize, sizes: Sizes) -> Result<bool, ReadError> {
        let wanted = self.wanted();
        for (n, change) in views.changes(delta.upto).enumerate() {
            if n == most || delta.bytes() >= sizes.changes_bytes {
                return Ok(false);
            }
            let (feed, key) = change?;
            if key.collection == self.collection {
                let keys = match views.get_kept(&key.doc)? {
                    Some(view) => {
                        self.definition.keys(&Candidate::read(&view, &wanted, &FieldRights::all())?.subject())
                    }
                    None => Keys::default(),
                };
                delta.take(key.doc.as_str(), feed, &keys);
            }
            delta.upto = feed;
        }
        Ok(true)
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        self.definition.add_wanted(&mut wanted);
        wanted
    }

    fn info(&self) -> IndexInfo {
        let state = lock(&self.state);
        let delta = state.delta.read().unwrap_or_else(PoisonError::into_inner);
        let runs = || state.runs.iter().map(|run| &run.record);
        IndexInfo {
            declaration: self.definition.declaration().clone(),
            building: state.record.building.as_ref().map(|building| building.documents),
            entries: runs().map(|run| run.entries).sum::<u64>() + delta.count(&[], None, usize::MAX),
            bytes: runs().map(|run| run.bytes).sum(),
            memory: (state.runs.iter().map(|run| run.held()).sum::<usize>() + delta.bytes()) as u64,
            runs: state.runs.len(),
            upto: delta.upto,
            is_multiple: delta.is_multiple || runs().any(|run| run.is_multiple),
            failed: state.failed.clone(),
        }
    }
}

/// A snapshot is of an earlier moment than an index.
struct TooOld;

impl State {
    /// An index of which nothing is made yet: of the documents as they are at this place in the feed, or later.
    fn new(definition: &Definition, at: u64) -> Self {
        let record = IndexRecord {
            declaration: definition.declaration().clone(),
            covered: at,
            floor: at,
            building: Some(Building { after: None, documents: 0 }),
            runs: Vec::new(),
            next_run: 0,
        };
        Self { record, runs: Vec::new(), delta: Arc::new(RwLock::new(Delta::new(at))), failed: None }
    }
}
