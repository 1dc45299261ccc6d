//! The ordered key-value store under everything, its committer and its watermark.
//!
//! [`Store`] is the narrow waist: ordered keyspaces, atomic batches over several of them, repeatable snapshots. Two
//! engines stand behind it, [`FjallStore`] on disk and its twin [`MemoryStore`] for tests and the simulator; one suite
//! tests both. Everything above may assume exactly what the trait says and nothing of fjall.
//!
//! Invariant: only the [`Committer`] writes. fjall holds its journal lock through the sync, so writers that each sync
//! for themselves queue up one sync apiece (measured: 9 times slower than one writer with group commit).
//!
//! Invariant: a commit that failed has an *unknown* outcome. fjall refuses every write after a failed write or sync, yet
//! the batch that failed may be there after reopening. So nobody may answer "not written", and nobody may retry with
//! other content at the same place.
//!
//! A third one, [`sealed::SealedStore`], stands around one of them and seals what is on the disk.
//!
//! The byte layout of keys and values is in [`keys`] and [`envelope`] and described in `docs/format.md`.

mod batch;
mod committer;
#[cfg(test)]
#[cfg(unix)]
mod durability_tests;
pub mod envelope;
mod figures;
mod fjall_store;
mod journal;
pub mod keys;
mod memory;
pub mod salvage;
mod scrub;
pub mod sealed;
#[cfg(test)]
mod suite;
pub mod watermark;

pub use batch::Batch;
pub use committer::{
    BatchId, Committer, CommitterFigures, Completion, Outcome, QUEUE_BATCHES_MAX, QUEUE_BYTES_MAX, Submission,
    SubmitError,
};
pub use figures::{Histogram, HistogramFigures};
pub use fjall_store::{FjallOptions, FjallStore, OpenError};
pub use memory::{MemoryStore, Survivors};

use std::any::Any;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;

/// The longest key. fjall would cut the length of a key beyond 65,535 bytes; ours are far shorter (the longest, of an
/// index entry, holds a collection, a value cut to its bound, and a document id).
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// The longest value: a snapshot of the largest document with its history, with much room. fjall's own bound is 4 GiB.
pub const VALUE_BYTES_MAX: usize = 256 << 20;

macro_rules! keyspaces {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// The parts of the store, each an LSM tree of its own. The names are part of the format.
        ///
        /// Few on purpose: each costs some 100 KiB of disk, 40 ms to create and a memtable.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Keyspace {
            $($(#[$doc])* $name),*
        }

        impl Keyspace {
            /// All keyspaces, in order.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// Returns the name on disk.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text),*
                }
            }
        }
    };
}

keyspaces! {
    /// (stream, seq) → op, and (stream, seq, op) → op of another branch where the stream forked.
    Ops = "ops",
    /// (shard, arrival) → (stream, seq): the order in which this replica committed.
    Arrivals = "arrivals",
    /// (document, change) → change not yet folded into the document's snapshot.
    Tail = "tail",
    /// document → Automerge snapshot.
    Snapshots = "snapshots",
    /// document → JSON text with heads.
    Views = "views",
    /// Change hash → place in a stream, and secondary indexes of collections.
    Index = "index",
    /// stream → head.
    Heads = "heads",
    /// (missing hash, waiting op) → op.
    Pending = "pending",
    /// What the control log came to.
    Control = "control",
    /// (op, transaction) → why it has no effect.
    Quarantine = "quarantine",
    /// (principal, request) → answer given, so that a repeated request is not done twice.
    Requests = "requests",
    /// The audit stream's records.
    Audit = "audit",
    /// Facts about the store itself: schema version, epoch, counters.
    Meta = "meta",
    /// document → its key, wrapped; empty in a store that is not sealed.
    Keys = "keys",
}

impl fmt::Display for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A contiguous part of a keyspace: the keys from `from`, inclusive, to `to`, exclusive (`None`: to the end).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Span {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self { from: Vec::new(), to: None }
    }

    /// The keys from `from`, inclusive, to `to`, exclusive; none if they are the wrong way round.
    #[must_use]
    pub fn range(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Self {
        Self { from: from.into(), to: Some(to.into()) }
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let from = prefix.into();
        let mut to = from.clone();
        // The first key beyond the prefix: its last byte that can grow, grown. All 0xff: the end.
        while to.pop_if(|byte| *byte == u8::MAX).is_some() {}
        match to.last_mut() {
            Some(last) => {
                *last += 1;
                Self { from, to: Some(to) }
            }
            None => Self { from, to: None },
        }
    }

    /// Narrows the span to keys not less than `key`.
    #[must_use]
    pub fn starting_at(mut self, key: &[u8]) -> Self {
        if *key > *self.from {
            self.from = key.to_vec();
        }
        self
    }

    /// Narrows the span to keys greater than `key`: how a scan goes on after the last key it returned.
    #[must_use]
    pub fn after(self, key: &[u8]) -> Self {
        // Nothing lies between a key and the same with a zero byte added.
        let mut next = key.to_vec();
        next.push(0);
        self.starting_at(&next)
    }

    /// Narrows the span to keys less than `key`.
    #[must_use]
    pub fn before(mut self, key: &[u8]) -> Self {
        if self.to.as_deref().is_none_or(|to| key < to) {
            self.to = Some(key.to_vec());
        }
        self
    }

    /// Returns the key before which the span ends; none if that is the end of everything.
    #[must_use]
    pub fn into_end(self) -> Option<Vec<u8>> {
        self.to
    }

    /// Returns whether `key` lies in the span.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.from <= *key && self.to.as_deref().is_none_or(|to| key < to)
    }

    /// Returns the bounds, or `None` if no key can lie between them.
    fn bounds(&self) -> Option<Bounds<'_>> {
        match &self.to {
            None => Some((Bound::Included(&self.from), Bound::Unbounded)),
            Some(to) if *self.from < **to => Some((Bound::Included(&self.from), Bound::Excluded(to))),
            Some(_) => None,
        }
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The direction of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Greatest key first.
    Descending,
}

/// What a scan yields: keys with values, lazily. Drop it soon: an open scan holds back the removal of old versions.
pub type Entries = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send>;

/// The reading side of a store and of its snapshots.
pub trait Read: Send + Sync {
    /// Returns the value at `key`.
    ///
    /// # Errors
    /// [`StoreError`] if the value cannot be read or is damaged.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Returns the entries of `span` as of now, in key order. The caller takes as many as it wants; nothing is read
    /// before it asks. After an error the scan is over.
    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries;

    /// Returns the first entry of `span`.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn first(&self, keyspace: Keyspace, span: &Span) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.scan(keyspace, span, Order::Ascending).next().transpose()
    }

    /// Returns the last entry of `span`.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn last(&self, keyspace: Keyspace, span: &Span) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.scan(keyspace, span, Order::Descending).next().transpose()
    }
}

/// An ordered key-value store with keyspaces.
pub trait Store: Read {
    /// Returns a view of all keyspaces at one point of the commit order, which later commits do not change.
    ///
    /// Cheap to open; keep it only as long as one answer takes, for it holds back the removal of old versions.
    fn snapshot(&self) -> Box<dyn Read>;

    /// Writes a batch: all of it or nothing, visible all at once, and after every earlier batch.
    ///
    /// # Errors
    /// [`StoreError::TooLong`]: nothing was written and nothing else has changed. Any other error: the outcome is
    /// unknown, the store takes no more writes until it is opened again, and then the batch may be there.
    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError>;

    /// Sees to it that nothing is left on the disk of what was removed or replaced before this is called. Takes long: call it on a
    /// thread that serves nobody. It ends early, at its next step, when `stop` is set. Returns whether that is done; if not, somebody
    /// still reads an earlier state.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be done.
    fn scrub(&self, stop: &AtomicBool) -> Result<bool, StoreError>;

    /// Returns how much the store holds. Costs little, but may have to wait for a running commit.
    ///
    /// # Errors
    /// [`StoreError`] if the engine cannot tell.
    fn usage(&self) -> Result<Usage, StoreError>;

    /// Returns whether the store still takes writes, as far as it has been tried. Never blocks.
    fn health(&self) -> Health;
}

/// How safe a batch is when `commit` returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// On the disk, with every batch before it: survives loss of power.
    Synced,
    /// With the operating system: survives the end of the process. For what can be rebuilt.
    Buffered,
}

/// Whether a store takes writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It does.
    Writable,
    /// A write failed; it takes no more until it is opened again. Reads go on.
    Poisoned,
}

/// How much a store holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes on disk, all together.
    pub disk_bytes: u64,
    /// Bytes of the journal, part of the above.
    pub journal_bytes: u64,
    /// Bytes that sit in memory until they are flushed into tables.
    pub memtable_bytes: u64,
    /// By keyspace, in order.
    pub keyspaces: Vec<(Keyspace, KeyspaceUsage)>,
}

/// How much a keyspace holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyspaceUsage {
    /// Entries, roughly: versions not yet compacted away count as well.
    pub entries: u64,
    /// Bytes in tables.
    pub disk_bytes: u64,
}

/// Why reading or writing failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading failed.
    #[error("read from keyspace {keyspace}")]
    Read {
        /// Where.
        keyspace: Keyspace,
        /// What the engine says.
        source: EngineError,
    },
    /// What was read is not what was written: the disk or the file system has damaged it.
    #[error("keyspace {keyspace} is damaged on disk; stop the node and run `folkmoot repair` or `folkmoot rejoin`")]
    Damaged {
        /// Where.
        keyspace: Keyspace,
        /// What the engine says.
        source: EngineError,
    },
    /// Writing failed. Whether the batch is there is unknown until the store is opened again.
    #[error("commit a batch; its outcome is unknown until the store is opened again")]
    Commit(#[source] EngineError),
    /// An earlier write failed.
    #[error("the store takes no more writes, since an earlier one failed; it must be opened again")]
    Poisoned,
    /// A key is empty or a key or value longer than [`KEY_BYTES_MAX`] or [`VALUE_BYTES_MAX`]. Nothing was written.
    #[error("entry for keyspace {keyspace} out of bounds: key of {key_bytes} bytes, value of {value_bytes}")]
    TooLong {
        /// Where it was to go.
        keyspace: Keyspace,
        /// Length of the key.
        key_bytes: usize,
        /// Length of the value.
        value_bytes: usize,
    },
    /// What was removed cannot be removed from the disk.
    #[error("scrub the disk")]
    Scrub(#[source] EngineError),
    /// The engine cannot tell how much it holds.
    #[error("measure the store")]
    Usage(#[source] EngineError),
}

/// What the engine below says went wrong.
pub type EngineError = Box<dyn std::error::Error + Send + Sync>;

/// Returns options by which a new file is its owner's alone: mode 0600 where there are modes.
#[must_use]
pub fn owner_only() -> std::fs::OpenOptions {
    let mut options = std::fs::OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options
}

/// Returns what a panic of the engine said.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the storage engine panicked: {}", text.as_deref().unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_prefix_span_holds_exactly_the_keys_with_the_prefix(
            prefix in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..4),
            key in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..6),
        ) {
            prop_assert_eq!(Span::prefix(prefix.clone()).contains(&key), key.starts_with(&prefix));
        }

        #[test]
        fn narrowing_is_intersection(
            from in prop::collection::vec(0u8..3, 0..3),
            to in prop::collection::vec(0u8..3, 0..3),
            edge in prop::collection::vec(0u8..3, 0..3),
            key in prop::collection::vec(0u8..3, 0..4),
        ) {
            let span = Span::range(from, to);
            let inside = span.contains(&key);
            prop_assert_eq!(span.clone().starting_at(&edge).contains(&key), inside && key >= edge);
            prop_assert_eq!(span.clone().after(&edge).contains(&key), inside && key > edge);
            prop_assert_eq!(span.before(&edge).contains(&key), inside && key < edge);
        }
    }
}
