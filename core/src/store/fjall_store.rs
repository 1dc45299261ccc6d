//! The store on disk: one fjall database.
//!
//! fjall's facts that shape this file: options of a keyspace are taken at its creation and kept; the only bound on
//! memtables is their size times the keyspaces, and the journal's, which forces flushes; with a single worker thread
//! writers can starve it; opening replays the journal, so small memtables and a small journal keep opening near 1 s.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, KeyspaceCreateOptions, KvSeparationOptions, LsmError, PersistMode, Readable};

use super::journal::FlawKind;
use super::scrub::Rewriting;
use super::{
    Batch, Durability, EngineError, Entries, Health, Keyspace, KeyspaceUsage, Order, Read, Span, Store, StoreError,
    Usage, journal, keys, panic_text,
};

/// Version of the layout of keys and values that this program reads and writes.
pub const SCHEMA_VERSION: u32 = 1;
/// Background threads of fjall at the least: with one, writers were seen to starve it.
const WORKERS_MIN: usize = 2;
/// The least journal that fjall accepts, one segment.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;
/// The marker file without which fjall would make a new database in the directory.
const FJALL_MARKER: &str = "version";
/// The file that fjall locks while it is open.
const FJALL_LOCK: &str = "lock";
/// Where fjall puts its keyspaces; 0 is its own.
const FJALL_FIRST_KEYSPACE: &str = "keyspaces/1";

/// What can be set when a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FjallOptions {
    /// Cache of blocks read from tables, shared by all keyspaces. A fifth of the memory is a good size.
    pub cache_bytes: u64,
    /// All journal segments together. Opening replays them at some 150 MiB/s.
    pub journal_bytes: u64,
    /// Memtable of each keyspace; counts when the store is made.
    pub memtable_bytes: u64,
    /// Threads that flush and compact; at least 2 are used.
    pub workers: usize,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, journal_bytes: 128 << 20, memtable_bytes: 16 << 20, workers: WORKERS_MIN }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("data in {path} is in use by another process; stop that one, or choose another data directory")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Another version of fjall wrote it.
    #[error(
        "data in {path} has a storage format that this program does not read (version {found:?}); use the program that wrote it, or export there and import here"
    )]
    Format {
        /// The directory.
        path: PathBuf,
        /// What the directory says, if that can be read.
        found: Option<u8>,
    },
    /// Another version of this program wrote it.
    #[error(
        "data in {path} has schema version {found}, this program knows {SCHEMA_VERSION}; use a program that knows it"
    )]
    Schema {
        /// The directory.
        path: PathBuf,
        /// What the store says.
        found: u32,
    },
    /// The journal cannot be replayed: what was written last is damaged.
    #[error(
        "the journal in {path} is damaged; `folkmoot repair` makes the store again of what can be read, `folkmoot rejoin` of what peers have"
    )]
    Journal {
        /// The directory.
        path: PathBuf,
        /// What the engine says.
        source: EngineError,
    },
    /// Files are damaged or missing.
    #[error(
        "data in {path} is damaged or incomplete; `folkmoot repair` makes the store again of what can be read, `folkmoot rejoin` of what peers have"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        source: EngineError,
    },
    /// The operating system refuses.
    #[error("open the data in {path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the engine says.
        source: EngineError,
    },
}

impl OpenError {
    fn from_engine(path: &Path, error: fjall::Error) -> Self {
        let path = path.to_owned();
        match error {
            fjall::Error::Locked => Self::Locked { path },
            fjall::Error::InvalidVersion(found) => Self::Format { path, found: found.map(u8::from) },
            fjall::Error::JournalRecovery(_)
            | fjall::Error::InvalidTag(_)
            | fjall::Error::InvalidTrailer
            | fjall::Error::Decompress(_) => Self::Journal { path, source: error.into() },
            // The engine's own text repeats it in the form for debugging.
            fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
                Self::Io { path, source: error.into() }
            }
            other => Self::Damaged { path, source: other.into() },
        }
    }

    fn damaged(path: &Path, what: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), source: what.into() }
    }
}

/// A [`Store`] on disk. A clone is a handle to the same store; the directory is free again when the last is dropped.
#[derive(Clone)]
pub struct FjallStore {
    pub(super) db: Database,
    pub(super) path: Arc<Path>,
    pub(super) rewriting: Rewriting,
    keyspaces: Arc<BTreeMap<Keyspace, fjall::Keyspace>>,
    poisoned: Arc<AtomicBool>,
}

impl FjallStore {
    /// Opens the store in a directory, which is made if it is not there.
    ///
    /// The journals are read first, since fjall takes some damage in the middle of one for its end, see the module `journal`; only a
    /// commit that a crash cut short is cut off. A store that opens may still have lost its last commit, if the disk has
    /// damaged it. The watermark and the peers know better; see [`super::watermark`].
    ///
    /// # Errors
    /// [`OpenError`], by what the operator can do about it.
    pub fn open(path: &Path, options: FjallOptions) -> Result<Self, OpenError> {
        // fjall asserts on some of what it finds on disk; damage must come out as an error.
        catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(path, options))).unwrap_or_else(|panic| {
            Err(OpenError::Damaged { path: path.to_owned(), source: panic_text(&*panic).into() })
        })
    }

    fn open_unguarded(path: &Path, options: FjallOptions) -> Result<Self, OpenError> {
        let has = |name| path.join(name).try_exists();
        let io = |source: std::io::Error| OpenError::Io { path: path.to_owned(), source: source.into() };
        if has(FJALL_FIRST_KEYSPACE).map_err(io)? && !has(FJALL_MARKER).map_err(io)? {
            return Err(OpenError::damaged(path, "keyspaces without the version file"));
        }
        let engine = |error| OpenError::from_engine(path, error);
        if has(FJALL_MARKER).map_err(io)? {
            check_journals(path)?;
        }
        let rewriting = Rewriting::default();
        let db = Database::builder(path)
            .with_compaction_filter_factories(rewriting.assigner())
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(JOURNAL_BYTES_MIN))
            .worker_threads(options.workers.max(WORKERS_MIN))
            .open()
            .map_err(engine)?;
        // The schema version is on disk before anything else is made, in a table rather than in the journal, so that
        // losing the journal's end does not make the store look like none of ours.
        let is_new = db.list_keyspace_names().iter().all(|name| **name == *Keyspace::Meta.name());
        let meta = db.keyspace(Keyspace::Meta.name(), || create_options(Keyspace::Meta, options)).map_err(engine)?;
        match meta.get(keys::meta::SCHEMA).map_err(engine)? {
            Some(value) => match <[u8; 4]>::try_from(&*value).map(u32::from_be_bytes) {
                Ok(SCHEMA_VERSION) => {}
                Ok(found) => return Err(OpenError::Schema { path: path.to_owned(), found }),
                Err(_) => return Err(OpenError::damaged(path, "schema version of the wrong length")),
            },
            None if is_new => {
                meta.insert(keys::meta::SCHEMA, SCHEMA_VERSION.to_be_bytes()).map_err(engine)?;
                meta.rotate_memtable_and_wait().map_err(engine)?;
            }
            None => return Err(OpenError::damaged(path, "no schema version")),
        }
        let mut keyspaces = BTreeMap::new();
        for keyspace in Keyspace::ALL {
            let tree = db.keyspace(keyspace.name(), || create_options(keyspace, options)).map_err(engine)?;
            keyspaces.insert(keyspace, tree);
        }
        Ok(Self { db, path: path.into(), rewriting, keyspaces: Arc::new(keyspaces), poisoned: Arc::default() })
    }

    pub(super) fn tree(&self, keyspace: Keyspace) -> &fjall::Keyspace {
        self.keyspaces.get(&keyspace).expect("opening opens every keyspace")
    }
}

/// Refuses a store with a damaged journal, and cuts off a commit that a crash cut short.
fn check_journals(path: &Path) -> Result<(), OpenError> {
    let io = |source: std::io::Error| OpenError::Io { path: path.to_owned(), source: source.into() };
    let lock = match File::options().read(true).write(true).open(path.join(FJALL_LOCK)) {
        Ok(lock) => lock,
        // No process can have it open; fjall says what else is wrong with it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    // The last journal of a store that is in use is not whole at any moment. fjall takes the lock again, and waits a little
    // for another process.
    if lock.try_lock().is_err() {
        return Ok(());
    }
    let Some(flaw) = journal::check(path).map_err(io)? else { return Ok(()) };
    match flaw.kind {
        FlawKind::Torn => journal::cut_torn(path, &flaw).map_err(io),
        FlawKind::Damaged => {
            let what = format!("{} is not what was written, from byte {}", flaw.journal.display(), flaw.at);
            Err(OpenError::Journal { path: path.to_owned(), source: what.into() })
        }
    }
}

fn create_options(keyspace: Keyspace, options: FjallOptions) -> KeyspaceCreateOptions {
    // By default the two upper levels are stored as they are, which is most of a store of a gigabyte. Texts halve.
    let create = KeyspaceCreateOptions::default()
        .max_memtable_size(options.memtable_bytes)
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4));
    match keyspace {
        // Large values, rewritten often: kept apart, compaction moves keys only and scans of keys skip them.
        Keyspace::Snapshots => create.with_kv_separation(Some(KvSeparationOptions::default())),
        Keyspace::Ops
        | Keyspace::Arrivals
        | Keyspace::Tail
        | Keyspace::Views
        | Keyspace::Index
        | Keyspace::Heads
        | Keyspace::Pending
        | Keyspace::Control
        | Keyspace::Quarantine
        | Keyspace::Requests
        | Keyspace::Audit
        | Keyspace::Meta
        | Keyspace::Keys => create,
    }
}

fn read_error(keyspace: Keyspace, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
            StoreError::Read { keyspace, source: error.into() }
        }
        fjall::Error::Poisoned => StoreError::Read { keyspace, source: error.into() },
        other => StoreError::Damaged { keyspace, source: other.into() },
    }
}

fn entries(keyspace: Keyspace, iter: fjall::Iter, order: Order) -> Entries {
    let entry = move |guard: fjall::Guard| {
        let (key, value) = guard.into_inner().map_err(|error| read_error(keyspace, error))?;
        Ok((key.into(), value.into()))
    };
    // Whether the iterator goes on after an error is not said; ours does not.
    let mut failed = false;
    let until_error = move |entry: Result<_, _>| {
        let go_on = !failed;
        failed = entry.is_err();
        go_on.then_some(entry)
    };
    match order {
        Order::Ascending => Box::new(iter.map(entry).map_while(until_error)),
        Order::Descending => Box::new(iter.rev().map(entry).map_while(until_error)),
    }
}

/// Reads through a snapshot: fjall's keyspaces themselves read whatever is in the memtable, so between the first and the
/// last insertion of a batch they show a part of it (seen in the suite). A snapshot costs 0.1 µs.
fn get(
    snapshot: &fjall::Snapshot,
    store: &FjallStore,
    keyspace: Keyspace,
    key: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    let value = snapshot.get(store.tree(keyspace), key).map_err(|error| read_error(keyspace, error))?;
    Ok(value.map(Bytes::from))
}

/// See [`get`].
fn scan(snapshot: &fjall::Snapshot, store: &FjallStore, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
    match span.bounds() {
        None => Box::new(std::iter::empty()),
        Some(bounds) => entries(keyspace, snapshot.range::<&[u8], _>(store.tree(keyspace), bounds), order),
    }
}

impl Read for FjallStore {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        get(&self.db.snapshot(), self, keyspace, key)
    }

    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        scan(&self.db.snapshot(), self, keyspace, span, order)
    }
}

struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    store: FjallStore,
}

impl Read for FjallSnapshot {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        get(&self.snapshot, &self.store, keyspace, key)
    }

    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        scan(&self.snapshot, &self.store, keyspace, span, order)
    }
}

impl Store for FjallStore {
    fn snapshot(&self) -> Box<dyn Read> {
        Box::new(FjallSnapshot { snapshot: self.db.snapshot(), store: self.clone() })
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        batch.check()?;
        let mode = match durability {
            Durability::Synced => PersistMode::SyncData,
            Durability::Buffered => PersistMode::Buffer,
        };
        let outcome = if batch.is_empty() {
            // fjall skips an empty batch with its sync; what was buffered before must be safe all the same.
            self.db.persist(mode)
        } else {
            let mut writes = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), batch.len()).durability(Some(mode));
            for (keyspace, key, value) in batch.writes() {
                // Copied, for a slice would keep its whole buffer (a network frame, say) alive in the memtable.
                match value {
                    Some(value) => writes.insert(self.tree(keyspace), &**key, &**value),
                    None => writes.remove(self.tree(keyspace), &**key),
                }
            }
            writes.commit()
        };
        outcome.map_err(|error| {
            self.poisoned.store(true, Ordering::Release);
            match error {
                fjall::Error::Poisoned => StoreError::Poisoned,
                other => StoreError::Commit(other.into()),
            }
        })
    }

    fn scrub(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        self.scrub_files(stop)
    }

    /// Waits for a running commit; journal segments count with their full length although they are sparse files.
    fn usage(&self) -> Result<Usage, StoreError> {
        let journal_bytes = self.db.journal_disk_space().map_err(|error| StoreError::Usage(error.into()))?;
        let measure = |(keyspace, tree): (&Keyspace, &fjall::Keyspace)| {
            (*keyspace, KeyspaceUsage { entries: tree.approximate_len() as u64, disk_bytes: tree.disk_space() })
        };
        let keyspaces: Vec<_> = self.keyspaces.iter().map(measure).collect();
        Ok(Usage {
            disk_bytes: journal_bytes + keyspaces.iter().map(|(_, usage)| usage.disk_bytes).sum::<u64>(),
            journal_bytes,
            memtable_bytes: self.db.write_buffer_size(),
            keyspaces,
        })
    }

    fn health(&self) -> Health {
        if self.poisoned.load(Ordering::Acquire) { Health::Poisoned } else { Health::Writable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;
    use std::fs;

    fn small() -> FjallOptions {
        FjallOptions { cache_bytes: 1 << 20, ..FjallOptions::default() }
    }

    fn open(path: &Path) -> FjallStore {
        FjallStore::open(path, small()).unwrap()
    }

    fn put(store: &FjallStore, key: &'static str) {
        let mut batch = Batch::new();
        batch.put(Keyspace::Ops, key, "value");
        store.commit(&batch, Durability::Synced).unwrap();
    }

    #[test]
    fn passes_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        // Making a store takes half a second of syncs, so the cases share one, emptied for each.
        suite::run(|| {
            let mut batch = Batch::new();
            for keyspace in Keyspace::ALL {
                for entry in store.scan(keyspace, &Span::all(), Order::Ascending) {
                    batch.delete(keyspace, entry.unwrap().0);
                }
            }
            store.commit(&batch, Durability::Buffered).unwrap();
            Box::new(store.clone())
        });
    }

    #[test]
    fn holds_the_directory_and_keeps_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        put(&store, "a");
        let refused = FjallStore::open(dir.path(), small()).err().unwrap();
        assert!(matches!(refused, OpenError::Locked { .. }), "{refused:?}");
        drop(store);
        assert_eq!(open(dir.path()).get(Keyspace::Ops, b"a").unwrap().as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn refuses_what_it_cannot_read_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        put(&store, "a");
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, keys::meta::SCHEMA, (SCHEMA_VERSION + 1).to_be_bytes().to_vec());
        store.commit(&batch, Durability::Synced).unwrap();
        drop(store);
        let error = || FjallStore::open(dir.path(), small()).err().unwrap();
        assert!(matches!(error(), OpenError::Schema { found: 2, .. }), "{:?}", error());

        let marker = dir.path().join(FJALL_MARKER);
        let version = fs::read(&marker).unwrap();
        fs::write(&marker, [b'F', b'J', b'L', 2]).unwrap();
        assert!(matches!(error(), OpenError::Format { found: Some(2), .. }), "{:?}", error());
        fs::write(&marker, b"??").unwrap();
        assert!(matches!(error(), OpenError::Format { found: None, .. }), "{:?}", error());
        fs::remove_file(&marker).unwrap();
        assert!(matches!(error(), OpenError::Damaged { .. }), "{:?}", error());

        fs::write(&marker, version).unwrap();
        let journal = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let journal = journal.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max().unwrap();
        let mut bytes = fs::read(&journal).unwrap();
        let value = bytes.windows(5).position(|part| part == b"value").unwrap();
        bytes[value] ^= 1;
        fs::write(&journal, bytes).unwrap();
        assert!(matches!(error(), OpenError::Journal { .. }), "{:?}", error());
    }

    #[test]
    fn damage_in_a_table_is_an_error_of_the_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        put(&store, "a");
        store.tree(Keyspace::Ops).rotate_memtable_and_wait().unwrap();
        let tables = store.tree(Keyspace::Ops).path().join("tables");
        drop(store);
        for table in fs::read_dir(tables).unwrap().map(|entry| entry.unwrap().path()) {
            let mut bytes = fs::read(&table).unwrap();
            let value = bytes.windows(5).position(|part| part == b"value").unwrap();
            bytes[value] ^= 1;
            fs::write(&table, bytes).unwrap();
        }
        let store = open(dir.path());
        let read = store.get(Keyspace::Ops, b"a");
        assert!(matches!(read, Err(StoreError::Damaged { keyspace: Keyspace::Ops, .. })), "{read:?}");
        let scan: Vec<_> = store.scan(Keyspace::Ops, &Span::all(), Order::Ascending).collect();
        assert!(matches!(scan[..], [Err(StoreError::Damaged { .. })]), "{scan:?}");
    }
}
