//! Scrubbing the disk: what was removed from the store is removed from its files.
//!
//! An LSM tree removes nothing by itself: a removed value lies on in older tables, blob files and journals until something happens
//! to rewrite them. So all of these are replaced: the journal is filled until the engine begins another one, memtables are
//! flushed, which sets the old journals free, and each keyspace that may hold anything of documents is compacted whole. That
//! it is done is told by the files: none that was there at the beginning is there any more.
//!
//! Cost: those keyspaces are read and written once, and 66 MiB of filler besides. Reads and writes go on meanwhile.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fjall::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};

use super::fjall_store::FjallStore;
use super::{Batch, Durability, EngineError, Health, Keyspace, Store as _, StoreError, panic_text};
use crate::random::SplitMix64;

/// Keyspaces that hold something of documents, or are named by a hash of what they said.
const SCRUBBED: [Keyspace; 9] = [
    Keyspace::Ops,
    Keyspace::Tail,
    Keyspace::Snapshots,
    Keyspace::Views,
    Keyspace::Index,
    Keyspace::Pending,
    Keyspace::Quarantine,
    Keyspace::Requests,
    Keyspace::Keys,
];
/// The engine begins another journal at the first flush after 64 million bytes.
const FILLER_PIECES: u64 = 66;
const FILLER_PIECE_BYTES: usize = 1 << 20;
/// What the keys of the filler, in `meta`, begin with.
pub(super) const FILLER: &[u8] = b"scrub/";
/// How often and how long it is waited for the engine's threads.
const POLL: Duration = Duration::from_millis(20);
const FLUSH_POLLS_MAX: usize = 3_000;
/// How often the engine is made to let go of old files.
const ROUNDS_MAX: usize = 25;
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Folders of a keyspace with its files.
const FOLDERS: [&str; 2] = ["tables", "blobs"];
const JOURNAL_END: &str = "jnl";

/// Tells the engine of a keyspace's filter, by its name.
type Assigner = Arc<dyn Fn(&str) -> Option<Arc<dyn Factory>> + Send + Sync>;

/// Has values that lie in files of their own written again by compactions: by itself the engine leaves such a file as it is
/// until a quarter of it is of no use.
#[derive(Clone, Default)]
pub(super) struct Rewriting(Arc<AtomicBool>);

impl RefUnwindSafe for Rewriting {}

impl Rewriting {
    /// Returns what the engine asks for filters, by the name of a keyspace.
    pub(super) fn assigner(&self) -> Assigner {
        let rewriting = self.clone();
        Arc::new(move |name| {
            (name == Keyspace::Snapshots.name()).then(|| Arc::new(rewriting.clone()) as Arc<dyn Factory>)
        })
    }

    /// Rewrites values until the guard is dropped.
    fn begin(&self) -> impl Drop + use<> {
        struct Guard(Arc<AtomicBool>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        self.0.store(true, Ordering::Release);
        Guard(self.0.clone())
    }
}

impl Factory for Rewriting {
    fn name(&self) -> &'static str {
        "rewriting"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Rewriter { is_on: self.0.load(Ordering::Acquire) })
    }
}

struct Rewriter {
    is_on: bool,
}

impl CompactionFilter for Rewriter {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _: &Context,
    ) -> fjall::compaction::filter::CompactionFilterResult {
        if self.is_on && item.is_indirection() {
            return item.value().map(Verdict::ReplaceValue);
        }
        Ok(Verdict::Keep)
    }
}

fn failed(error: impl Into<EngineError>) -> StoreError {
    StoreError::Scrub(error.into())
}

impl FjallStore {
    /// See [`super::Store::scrub`].
    pub(super) fn scrub_files(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        let run = AssertUnwindSafe(|| self.scrub_unguarded(stop));
        catch_unwind(run).unwrap_or_else(|panic| Err(failed(panic_text(&*panic))))
    }

    fn scrub_unguarded(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        let is_stopped = || stop.load(Ordering::Acquire);
        let before = self.files()?;
        let removed_by = self.db.visible_seqno();
        // Cheap, and tells whether somebody still reads what was removed: then all the rest would be for nothing.
        if !self.nobody_reads_before(removed_by, stop)? || !self.fill_journal(stop)? {
            return Ok(false);
        }
        for keyspace in Keyspace::ALL {
            self.flush(keyspace)?;
        }
        if !self.nobody_reads_before(removed_by, stop)? {
            return Ok(false);
        }
        let rewriting = self.rewriting.begin();
        for keyspace in SCRUBBED.into_iter().chain([Keyspace::Meta]) {
            if is_stopped() {
                return Ok(false);
            }
            if self.tree(keyspace).table_count() > 0 {
                self.tree(keyspace).major_compact().map_err(failed)?;
            }
        }
        drop(rewriting);
        // The engine drops a file of long values by what it knew of it before a compaction: it takes another one.
        self.mark_and_flush(Keyspace::Snapshots)?;
        self.tree(Keyspace::Snapshots).major_compact().map_err(failed)?;
        for _ in 0..ROUNDS_MAX {
            // The engine drops old files when it has begun a memtable after the compaction, and a reader when it is done.
            self.mark_and_flush(Keyspace::Meta)?;
            if before.iter().all(|path| !path.exists()) {
                return Ok(true);
            }
            if is_stopped() {
                return Ok(false);
            }
            std::thread::sleep(ROUND_PAUSE);
        }
        Ok(false)
    }

    /// Whether no snapshot is open that is older than this, so that a compaction drops what was removed before.
    fn nobody_reads_before(&self, seqno: u64, stop: &AtomicBool) -> Result<bool, StoreError> {
        for _ in 0..ROUNDS_MAX {
            if stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            self.mark_and_flush(Keyspace::Meta)?;
            if self.db.supervisor.snapshot_tracker.get_seqno_safe_to_gc() >= seqno {
                return Ok(true);
            }
            std::thread::sleep(ROUND_PAUSE);
        }
        Ok(false)
    }

    /// Writes so much that the engine begins another journal.
    fn fill_journal(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        // Nothing that a compression makes shorter.
        let mut random = SplitMix64::new(u64::from(std::process::id()));
        let mut removal = Batch::new();
        for piece in 0..FILLER_PIECES {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let key = [FILLER, &piece.to_be_bytes()].concat();
            let mut bytes = Vec::with_capacity(FILLER_PIECE_BYTES);
            while bytes.len() < FILLER_PIECE_BYTES {
                bytes.extend_from_slice(&random.next().to_le_bytes());
            }
            let mut batch = Batch::new();
            batch.put(Keyspace::Meta, key.clone(), bytes);
            removal.delete(Keyspace::Meta, key);
            self.commit(&batch, Durability::Buffered)?;
        }
        self.commit(&removal, Durability::Synced)?;
        Ok(!stop.load(Ordering::Acquire))
    }

    /// Begins a new memtable in a keyspace, by which the engine also looks after its snapshots, versions and journals.
    fn mark_and_flush(&self, keyspace: Keyspace) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.delete(keyspace, FILLER.to_vec());
        self.commit(&batch, Durability::Buffered)?;
        self.flush(keyspace)
    }

    /// Writes the memtable of a keyspace to a table.
    fn flush(&self, keyspace: Keyspace) -> Result<(), StoreError> {
        let tree = self.tree(keyspace);
        tree.rotate_memtable().map_err(failed)?;
        for _ in 0..FLUSH_POLLS_MAX {
            if tree.sealed_memtable_count() == 0 {
                return Ok(());
            }
            // A thread of the engine that has failed flushes nothing any more.
            if self.health() == Health::Poisoned {
                return Err(StoreError::Poisoned);
            }
            std::thread::sleep(POLL);
        }
        Err(failed(format!("the memtable of {keyspace} is not written to a table")))
    }

    /// Returns the files that may hold something of documents.
    fn files(&self) -> Result<BTreeSet<PathBuf>, StoreError> {
        let journals = list(&self.path)?.into_iter();
        let mut files: BTreeSet<PathBuf> =
            journals.filter(|path| path.extension().is_some_and(|end| end == JOURNAL_END)).collect();
        for keyspace in SCRUBBED {
            for folder in FOLDERS {
                files.extend(list(&self.tree(keyspace).path().join(folder))?);
            }
        }
        Ok(files)
    }
}

/// Returns what is in a folder; nothing if it is not there.
fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FjallOptions, Order, Read as _, Span};
    use super::*;

    fn found(folder: &Path, secret: &[u8]) -> Vec<PathBuf> {
        let mut holding = Vec::new();
        for path in list(folder).unwrap() {
            if path.is_dir() {
                holding.extend(found(&path, secret));
            } else if std::fs::read(&path).unwrap().windows(secret.len()).any(|part| part == secret) {
                holding.push(path);
            }
        }
        holding
    }

    fn long(text: &str, times: usize) -> Vec<u8> {
        (0..times).flat_map(|n| format!("{n} {text} ").into_bytes()).collect()
    }

    #[test]
    fn nothing_of_what_was_removed_stays_in_any_file() {
        let dir = tempfile::tempdir().unwrap();
        let options = FjallOptions { cache_bytes: 1 << 20, ..FjallOptions::default() };
        let store = FjallStore::open(dir.path(), options).unwrap();
        let write = |keyspace, key: &str, value: Option<Vec<u8>>| {
            let mut batch = Batch::new();
            match value {
                Some(value) => batch.put(keyspace, key.to_owned(), value),
                None => batch.delete(keyspace, key.to_owned()),
            }
            store.commit(&batch, Durability::Synced).unwrap();
        };
        for keyspace in [Keyspace::Ops, Keyspace::Snapshots, Keyspace::Views] {
            write(keyspace, "gone", Some(b"removed-secret".to_vec()));
            // So long that it lies in a file of its own, beside one that stays.
            write(keyspace, "long", Some(long("removed-long", 500)));
            write(keyspace, "stays", Some(long("kept-text", 500)));
            store.flush(keyspace).unwrap();
            // What was overwritten is to go as well.
            write(keyspace, "changed", Some(b"replaced-secret".to_vec()));
            write(keyspace, "changed", Some(b"new".to_vec()));
            write(keyspace, "gone", None);
            write(keyspace, "long", None);
        }
        let secrets: [&[u8]; 3] = [b"removed-secret", b"replaced-secret", b"removed-long"];
        for secret in secrets {
            assert!(!found(dir.path(), secret).is_empty(), "it is not even there before");
        }
        // While somebody reads the past, it is kept.
        write(Keyspace::Ops, "read", Some(b"removed-secret".to_vec()));
        let past = store.snapshot();
        write(Keyspace::Ops, "read", None);
        assert!(!store.scrub(&AtomicBool::new(false)).unwrap());
        assert_eq!(past.get(Keyspace::Ops, b"read").unwrap().as_deref(), Some(&b"removed-secret"[..]));
        drop(past);
        assert!(store.scrub(&AtomicBool::new(false)).unwrap());
        for secret in secrets {
            assert_eq!(found(dir.path(), secret), Vec::<PathBuf>::new());
        }
        assert!(!found(dir.path(), b"kept-text").is_empty());
        for keyspace in [Keyspace::Ops, Keyspace::Snapshots, Keyspace::Views] {
            assert_eq!(store.get(keyspace, b"stays").unwrap().as_deref(), Some(&long("kept-text", 500)[..]));
            assert_eq!(store.get(keyspace, b"changed").unwrap().as_deref(), Some(&b"new"[..]));
        }
        drop(store);
        let store = FjallStore::open(dir.path(), options).unwrap();
        assert_eq!(store.get(Keyspace::Snapshots, b"stays").unwrap().as_deref(), Some(&long("kept-text", 500)[..]));
        assert_eq!(store.scan(Keyspace::Meta, &Span::prefix(FILLER), Order::Ascending).count(), 0);
    }
}
