//! Making indexes: what the thread beside the log does, in steps.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use super::cursor::{IndexView, Interval};
use super::definition::Definition;
use super::delta::Delta;
use super::run::{Entry, Run, RunBuilder, blocks_prefix, fences_key, run_of_key};
use super::{Building, INDEXES, Index, IndexRecord, Indexes, State, collection_prefix, lock, record_key};
use crate::id::{CollectionName, DocId};
use crate::op::{FieldRights, codec};
use crate::query::find::Candidate;
use crate::replica::{IdRange, ReadError, Reader};
use crate::store::{Batch, Keyspace, Order, Span, envelope};

/// Bytes of the entries of one step, beyond which it ends.
const STEP_BYTES_MAX: usize = 8 << 20;
/// Changes read in one step.
const CHANGES_PER_STEP: usize = 16_384;
/// Bytes of one batch.
const BATCH_BYTES: usize = 1 << 20;
/// Entries removed in one batch.
const REMOVED_PER_BATCH: usize = 4_096;

/// Who writes batches has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped;

/// Writes a batch and returns when it is on the disk.
type Commit<'a> = dyn FnMut(Batch) -> Result<(), Stopped> + 'a;

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The node is ending.
    #[error("the node is ending")]
    Stopped,
}

impl From<Stopped> for IndexError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<crate::store::StoreError> for IndexError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Read(error.into())
    }
}

/// Removes everything in a span, some at a time.
fn remove(indexes: &Indexes, span: &Span, commit: &mut Commit<'_>) -> Result<(), IndexError> {
    loop {
        let mut batch = Batch::new();
        let entries = indexes.store.scan(Keyspace::Index, span, Order::Ascending);
        for entry in entries.take(REMOVED_PER_BATCH) {
            batch.delete(Keyspace::Index, entry?.0.to_vec());
        }
        if batch.is_empty() {
            return Ok(());
        }
        commit(batch)?;
    }
}

/// Removes what is kept of a run.
fn remove_run(indexes: &Indexes, prefix: &[u8], run: u64, commit: &mut Commit<'_>) -> Result<(), IndexError> {
    remove(indexes, &Span::prefix(blocks_prefix(prefix, run)), commit)?;
    remove(indexes, &Span::prefix(fences_key(prefix, run)), commit)
}

impl Indexes {
    /// Says which indexes there are to be. What is declared no more is removed, what is new is made from the next [`Self::work`] on.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn declare(
        &self,
        wanted: BTreeMap<CollectionName, Vec<Definition>>,
        commit: &mut Commit<'_>,
    ) -> Result<(), IndexError> {
        let mut known = lock(&self.collections).clone();
        let mut next: BTreeMap<CollectionName, Vec<Arc<Index>>> = BTreeMap::new();
        for (collection, definitions) in wanted {
            let of = next.entry(collection.clone()).or_default();
            let mut before = known.remove(&collection).unwrap_or_default();
            for definition in definitions {
                match before.iter().position(|index| *index.definition == definition) {
                    Some(at) => of.push(before.swap_remove(at)),
                    None => of.push(self.open_index(&collection, definition, commit)?),
                }
            }
        }
        let kept: BTreeSet<Arc<[u8]>> = next.values().flatten().map(|index| index.prefix.clone()).collect();
        *lock(&self.collections) = next;
        self.remove_others(&kept, commit)
    }

    /// Opens an index, and removes what a step that was interrupted has left of it.
    fn open_index(
        &self,
        collection: &CollectionName,
        definition: Definition,
        commit: &mut Commit<'_>,
    ) -> Result<Arc<Index>, IndexError> {
        let index = match Index::open(&*self.store, collection, definition.clone()) {
            Ok(index) => index,
            // What cannot be read is made anew.
            Err(_) => Index::anew(&*self.store, collection, definition)?,
        };
        let runs: BTreeSet<u64> = lock(&index.state).record.runs.iter().map(|run| run.id).collect();
        let mut left = BTreeSet::new();
        for part in [fences_key(&index.prefix, 0), blocks_prefix(&index.prefix, 0)] {
            // One look for each run and one more, whatever there is in them.
            let mut span = Span::prefix(part.get(..part.len() - 8).unwrap_or_default());
            while let Some((key, _)) = self.store.first(Keyspace::Index, &span)? {
                let Some(run) = run_of_key(&index.prefix, &key) else { break };
                if !runs.contains(&run) {
                    left.insert(run);
                }
                let Some(next) = run.checked_add(1) else { break };
                let start = [part.get(..part.len() - 8).unwrap_or_default(), &next.to_be_bytes()].concat();
                span = span.starting_at(&start);
            }
        }
        left.into_iter().try_for_each(|run| remove_run(self, &index.prefix, run, commit))?;
        Ok(Arc::new(index))
    }

    /// Removes the indexes that are declared no more.
    fn remove_others(&self, kept: &BTreeSet<Arc<[u8]>>, commit: &mut Commit<'_>) -> Result<(), IndexError> {
        let mut span = Span::prefix([INDEXES]);
        while let Some((key, _)) = self.store.first(Keyspace::Index, &span)? {
            let prefix = prefix_of_key(&key).ok_or_else(|| super::damaged("key of an index"))?;
            let of = Span::prefix(prefix);
            if !kept.contains(prefix) {
                remove(self, &of, commit)?;
            }
            let Some(end) = of.into_end() else { break };
            span = span.starting_at(&end);
        }
        Ok(())
    }

    /// Takes a step of what there is to do for each index. Returns whether there is more to do at once.
    ///
    /// # Errors
    /// [`IndexError`]. An index that cannot be read is made anew at the next step.
    pub fn work(&self, reader: &Reader, commit: &mut Commit<'_>) -> Result<bool, IndexError> {
        let mut more = false;
        for index in self.all() {
            match self.step(&index, reader, commit) {
                Ok(has_more) => more |= has_more,
                Err(IndexError::Read(error)) => {
                    lock(&index.state).failed = Some(error.to_string());
                    return Err(IndexError::Read(error));
                }
                Err(stopped) => return Err(stopped),
            }
        }
        Ok(more)
    }

    fn step(&self, index: &Index, reader: &Reader, commit: &mut Commit<'_>) -> Result<bool, IndexError> {
        let (has_failed, building) = {
            let state = lock(&index.state);
            (state.failed.is_some(), state.record.building.clone())
        };
        if has_failed {
            self.reset(index, commit)?;
            return Ok(true);
        }
        match building {
            Some(building) => self.build(index, reader, building, commit).map(|()| true),
            None => self.follow(index, reader, commit),
        }
    }

    /// Throws an index away; it is made anew.
    fn reset(&self, index: &Index, commit: &mut Commit<'_>) -> Result<(), IndexError> {
        // Nobody begins to read it any more; who does has a snapshot.
        lock(&index.state).failed = Some("is made anew".to_owned());
        remove(self, &Span::prefix(&*index.prefix), commit)?;
        let end = crate::replica::feed_end_of(&*self.store)?;
        *lock(&index.state) = State::new(&index.definition, end);
        Ok(())
    }

    /// Throws the indexes of collections away, so that nothing is left in them of what was erased; they are made anew.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn forget(&self, collections: &BTreeSet<CollectionName>, commit: &mut Commit<'_>) -> Result<(), IndexError> {
        for collection in collections {
            for index in self.of(collection) {
                self.reset(&index, commit)?;
            }
            // Also of what is declared no more.
            remove(self, &Span::prefix(collection_prefix(collection)), commit)?;
        }
        Ok(())
    }

    /// Makes a part of a new index: of the next documents, those that have not changed since it was begun.
    fn build(
        &self,
        index: &Index,
        reader: &Reader,
        building: Building,
        commit: &mut Commit<'_>,
    ) -> Result<(), IndexError> {
        let views = reader.views(&index.collection).with_all();
        let at = lock(&index.state).record.covered;
        let wanted = index.wanted();
        let range = IdRange { after: building.after.clone(), ..IdRange::default() };
        let (mut entries, mut bytes, mut looked_at, mut last, mut is_multiple) = (Vec::new(), 0, 0, None, false);
        for view in views.scan(&range) {
            let view = view?;
            last = Some(view.doc.as_str().to_owned());
            looked_at += 1;
            // What has changed since then is in the feed behind that place.
            if view.feed <= at {
                let candidate = Candidate::read(&view, &wanted, &FieldRights::all())?;
                let keys = index.definition.keys(&candidate.subject());
                is_multiple |= keys.is_multiple;
                for key in &keys.keys {
                    let entry = Entry::new(key, view.doc.as_str(), view.feed);
                    bytes += entry.full.len() + 32;
                    entries.push(entry);
                }
            }
            if looked_at == self.sizes.documents_per_step || bytes >= STEP_BYTES_MAX {
                break;
            }
        }
        let is_over = looked_at < self.sizes.documents_per_step && bytes < STEP_BYTES_MAX;
        entries.sort_unstable();
        let run = self.write_run(index, 0, is_multiple, entries.into_iter().map(Ok), commit)?;
        let mut record = lock(&index.state).record.clone();
        record.building = (!is_over)
            .then(|| Building { after: last.or(building.after), documents: building.documents + looked_at as u64 });
        self.install(index, record, run.into_iter().collect(), &BTreeSet::new(), commit)
    }

    /// Takes in what has changed, writes it into a run when it has become much, and merges runs when they have become many.
    fn follow(&self, index: &Index, reader: &Reader, commit: &mut Commit<'_>) -> Result<bool, IndexError> {
        let views = reader.views(&index.collection).with_all();
        let delta = lock(&index.state).delta.clone();
        // The lock of the state is never taken under that of the changes: queries take them the other way round.
        let covered = lock(&index.state).record.covered;
        let (is_all, upto, is_due, entries, is_multiple) = {
            let mut delta = delta.write().unwrap_or_else(PoisonError::into_inner);
            let is_all = index.catch_up(&mut delta, &views, CHANGES_PER_STEP, self.sizes)?;
            let is_due = delta.bytes() >= self.sizes.changes_bytes
                || delta.upto.saturating_sub(covered) >= self.sizes.covered_every;
            let entries = if is_due { delta.live() } else { Vec::new() };
            (is_all, delta.upto, is_due, entries, delta.is_multiple)
        };
        if is_due {
            let run = self.write_run(index, 0, is_multiple, entries.into_iter().map(Ok), commit)?;
            let mut record = lock(&index.state).record.clone();
            record.covered = upto;
            self.install(index, record, run.into_iter().collect(), &BTreeSet::new(), commit)?;
        }
        Ok(self.merge(index, reader, commit)? || !is_all)
    }

    /// Merges the runs of a level that has many. Returns whether it did.
    fn merge(&self, index: &Index, reader: &Reader, commit: &mut Commit<'_>) -> Result<bool, IndexError> {
        let (runs, record) = {
            let state = lock(&index.state);
            (state.runs.clone(), state.record.clone())
        };
        let levels: BTreeSet<u8> = record.runs.iter().map(|run| run.level).collect();
        let of = |level: u8| runs.iter().filter(move |run| run.record.level == level);
        let Some(level) = levels.into_iter().find(|level| of(*level).count() >= self.sizes.runs_per_level) else {
            return Ok(false);
        };
        let merged: Vec<Arc<Run>> = of(level).cloned().collect();
        let ids: BTreeSet<u64> = merged.iter().map(|run| run.record.id).collect();
        let is_multiple = merged.iter().any(|run| run.record.is_multiple);
        let views = reader.views(&index.collection).with_all();
        let floor = views.feed_end()?;
        let view = IndexView {
            definition: index.definition.clone(),
            runs: merged,
            delta: Arc::new(RwLock::new(Delta::default())),
            is_multiple,
            has_always: false,
            blocks: RefCell::default(),
        };
        let everything = Interval { from: Vec::new(), before: None };
        let still = |entry: Entry| -> Result<Option<Entry>, ReadError> {
            let Some(doc) = entry.doc().and_then(|doc| doc.parse::<DocId>().ok()) else { return Ok(None) };
            Ok(views.get(&doc)?.filter(|view| view.feed == entry.feed).map(|_| entry))
        };
        let entries = view.entries(views.read(), &everything);
        let entries = entries.filter_map(|entry| entry.and_then(still).transpose());
        let run = self.write_run(index, level.saturating_add(1), is_multiple, entries, commit)?;
        let mut record = lock(&index.state).record.clone();
        record.floor = record.floor.max(floor);
        self.install(index, record, run.into_iter().collect(), &ids, commit)?;
        Ok(true)
    }

    /// Writes a run that nothing names yet.
    fn write_run(
        &self,
        index: &Index,
        level: u8,
        is_multiple: bool,
        entries: impl Iterator<Item = Result<Entry, ReadError>>,
        commit: &mut Commit<'_>,
    ) -> Result<Option<Run>, IndexError> {
        let id = lock(&index.state).record.next_run;
        let mut builder = RunBuilder::new(index.prefix.clone(), id, level, self.sizes.block_bytes);
        let mut batch = Batch::new();
        let mut bytes = 0;
        let mut has_always = false;
        for entry in entries {
            let entry = entry?;
            has_always |= entry.key().first() == Some(&super::ALWAYS);
            if let Some((key, value)) = builder.push(entry) {
                bytes += value.len();
                batch.put(Keyspace::Index, key, value);
            }
            if bytes >= BATCH_BYTES {
                bytes = 0;
                commit(std::mem::replace(&mut batch, Batch::new()))?;
            }
        }
        builder.note(is_multiple, has_always);
        let Some((run, writes)) = builder.finish() else { return Ok(None) };
        for (key, value) in writes {
            batch.put(Keyspace::Index, key, value);
        }
        commit(batch)?;
        Ok(Some(run))
    }

    /// Has the index go on with a record, with runs that are written and without others, which are removed.
    fn install(
        &self,
        index: &Index,
        mut record: IndexRecord,
        new: Vec<Run>,
        without: &BTreeSet<u64>,
        commit: &mut Commit<'_>,
    ) -> Result<(), IndexError> {
        record.next_run += 1;
        record.runs.retain(|run| !without.contains(&run.id));
        record.runs.extend(new.iter().map(|run| run.record.clone()));
        let mut batch = Batch::new();
        batch.put(Keyspace::Index, record_key(&index.prefix), envelope::enclose(&codec::encode(&record)));
        commit(batch)?;
        {
            let mut state = lock(&index.state);
            state.runs.retain(|run| !without.contains(&run.record.id));
            state.runs.extend(new.into_iter().map(Arc::new));
            if record.covered > state.record.covered {
                let rest = state.delta.read().unwrap_or_else(PoisonError::into_inner).behind(record.covered);
                state.delta = Arc::new(RwLock::new(rest));
            }
            state.record = record;
        }
        without.iter().try_for_each(|run| remove_run(self, &index.prefix, *run, commit))
    }
}

impl Index {
    /// An index of which nothing is made.
    fn anew(
        store: &dyn crate::store::Read,
        collection: &CollectionName,
        definition: Definition,
    ) -> Result<Self, ReadError> {
        let state = State::new(&definition, crate::replica::feed_end_of(store)?);
        let prefix = super::index_prefix(collection, definition.name()).into();
        let (collection, definition) = (collection.clone(), Arc::new(definition));
        Ok(Self { collection, definition, prefix, state: std::sync::Mutex::new(state) })
    }
}

/// Returns the part of a key that names its index.
fn prefix_of_key(key: &[u8]) -> Option<&[u8]> {
    let collection = key.iter().position(|byte| *byte == 0)?;
    let name = key.get(collection + 1..)?.iter().position(|byte| *byte == 0)?;
    key.get(..collection + 1 + name + 1)
}
