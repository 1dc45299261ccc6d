//! A document and what is stored of it: how it is loaded, folded, and rolled over when its history is long.

use std::collections::BTreeSet;

use automerge::{Automerge, Change};
use bytes::Bytes;

use super::Document;
use super::direct::Full;
use super::gate::{self, Scan, guarded};
use super::native::{change_hash, native_hash};
use super::rolled::Rolled;
use super::view::{self, View, ViewError};
use crate::id::ChangeHash;

/// What became of long histories.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turns {
    /// Times that a document was rolled over.
    pub rolled_over: u64,
    /// Times that the history was loaded again all the same: for a straggler, for one that may be wrong, or to be looked at.
    pub histories_loaded: u64,
}

/// Why a document could not be loaded. The stored ops remain the truth: build it again from those.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The snapshot is damaged.
    #[error("load the document's snapshot: {0}")]
    Snapshot(String),
    /// A change of the tail is damaged.
    #[error("read a change of the document's tail: {0}")]
    Change(String),
    /// The tail's changes do not fit onto the snapshot.
    #[error("apply the document's tail: {0}")]
    Tail(String),
    /// The visible form cannot be built.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// A document folded: what stands for all its changes in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folded {
    /// Its changes.
    pub history: History,
    /// What it takes to edit the document without loading those, for [`Document::resume`]; empty where loading is what it
    /// takes.
    pub short: Vec<u8>,
    /// Whether the history is so long that it is better stored in parts, so that it can be added to.
    pub is_long: bool,
}

/// Changes as Automerge loads them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum History {
    /// All of them, in place of what there was.
    Whole(Bytes),
    /// Those since, to be put behind what there is.
    More(Bytes),
}

/// Why no snapshot could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("save the document: {0}")]
pub struct SnapshotError(String);

impl Document {
    /// Loads a document from its snapshot and the changes since, in any order. All of it passed the gate before.
    /// `deletes` are the heads named by the deletes that count.
    ///
    /// # Errors
    /// [`LoadError`] if anything is damaged or missing.
    pub fn load<'a>(
        snapshot: Option<&[u8]>,
        tail: impl IntoIterator<Item = &'a [u8]>,
        void: BTreeSet<ChangeHash>,
        deletes: BTreeSet<ChangeHash>,
    ) -> Result<Self, LoadError> {
        let changes = scanned(tail)?;
        let mut document = match snapshot {
            None => Self::of_changes(&changes)?,
            Some(snapshot) => Self::of_snapshot(snapshot, &changes)?,
        };
        document.deletes = deletes;
        if !void.is_empty() {
            document.build().map_err(LoadError::Tail)?;
        }
        document.set_void(void)?;
        document.refresh_deleted();
        Ok(document)
    }

    /// Returns the document of all its changes, without building Automerge's.
    fn of_changes(changes: &[(Scan, &[u8])]) -> Result<Self, LoadError> {
        let (mut heads, mut here) = (BTreeSet::new(), BTreeSet::new());
        for (scan, _) in changes {
            if !scan.deps.iter().all(|dep| here.contains(dep)) {
                return Err(LoadError::Tail("changes without their dependencies".to_owned()));
            }
            for dep in &scan.deps {
                heads.remove(dep);
            }
            heads.insert(scan.hash);
            here.insert(scan.hash);
        }
        let value_bytes = changes.iter().map(|(_, bytes)| bytes.len()).sum();
        let changes = changes.iter().map(|(scan, bytes)| (scan.hash, Bytes::copy_from_slice(bytes)));
        Ok(Self::of(Full::of(changes.collect()), heads.into_iter().collect(), value_bytes))
    }

    fn of_snapshot(snapshot: &[u8], changes: &[(Scan, &[u8])]) -> Result<Self, LoadError> {
        let mut full = guarded(|| Automerge::load(snapshot).map_err(|error| error.to_string()))
            .unwrap_or_else(Err)
            .map_err(LoadError::Snapshot)?;
        let mut value_bytes = snapshot.len();
        let mut tail = Vec::with_capacity(changes.len());
        for (_, bytes) in changes {
            let change = guarded(|| Change::try_from(*bytes).map_err(|error| error.to_string()));
            tail.push(change.unwrap_or_else(Err).map_err(LoadError::Change)?);
            value_bytes += bytes.len();
        }
        if !tail.is_empty() {
            guarded(|| view::apply_all(&mut full, tail)).unwrap_or_else(Err).map_err(LoadError::Tail)?;
        }
        Ok(Self::over(full, value_bytes))
    }

    /// Returns the whole document encoded, void changes included, after loading it once to see that it can be.
    ///
    /// # Errors
    /// [`SnapshotError`] if it would not load to the same heads: keep the old snapshot and the tail then.
    pub fn snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        if let Some(broken) = &self.broken {
            return Err(SnapshotError(broken.clone()));
        }
        guarded(|| {
            let bytes = self.full.get().save();
            let again = Automerge::load(&bytes).map_err(|error| error.to_string())?;
            if again.get_heads() != self.full.get().get_heads() {
                return Err("it loads with other heads".to_owned());
            }
            Ok(bytes)
        })
        .unwrap_or_else(Err)
        .map_err(SnapshotError)
    }

    /// Folds the document for the store. `tail` are the changes since it was folded last; `is_apart` says that the history is
    /// stored in parts, so that those can be put behind it.
    ///
    /// # Errors
    /// As for [`snapshot`](Self::snapshot).
    pub fn fold(&mut self, tail: &[ChangeHash], is_apart: bool) -> Result<Folded, SnapshotError> {
        let more = if is_apart && self.is_long() && self.broken.is_none() { self.full.append(tail) } else { None };
        let history = match more {
            Some(more) => History::More(more),
            None => History::Whole(self.fold_whole()?),
        };
        let unsettled = self.unsettled();
        let short = if let View::Rolled(rolled) = &mut self.view {
            let heads: Vec<_> = self.heads.iter().map(native_hash).collect();
            if rolled.unsettled() >= 2 * unsettled
                && let Some(again) = rolled.again(&heads, unsettled)
            {
                **rolled = again;
                self.turns.rolled_over += 1;
            }
            rolled.encode()
        } else if self.is_plain() && self.void.is_empty() {
            self.full.encode_tree()
        } else {
            None
        };
        Ok(Folded { history, short: short.unwrap_or_default(), is_long: self.is_long() })
    }

    /// Makes a snapshot of all changes, and keeps that rather than Automerge's document where it can.
    fn fold_whole(&mut self) -> Result<Bytes, SnapshotError> {
        self.build().map_err(SnapshotError)?;
        let snapshot = Bytes::from(self.snapshot()?);
        if !self.is_plain() || !self.void.is_empty() {
            return Ok(snapshot);
        }
        if self.full.has_tree() {
            self.full.unload(snapshot.clone(), self.is_long());
            if !self.full.is_built() {
                self.value_bytes = snapshot.len();
            }
        } else if self.is_long() {
            self.roll(snapshot.clone(), self.unsettled());
        }
        Ok(snapshot)
    }

    /// Rolls the document over, if that is worth it. `snapshot` is one of all changes.
    pub(super) fn roll(&mut self, snapshot: Bytes, unsettled: usize) -> bool {
        let Some(rolled) = Rolled::of(self.full.get(), unsettled) else { return false };
        self.value_bytes = snapshot.len();
        self.full = Full::unbuilt(vec![snapshot], &[], rolled.count());
        self.view = View::Rolled(Box::new(rolled));
        self.turns.rolled_over += 1;
        true
    }

    /// Returns what became of its history since this was asked last.
    pub fn take_turns(&mut self) -> Turns {
        std::mem::take(&mut self.turns)
    }

    /// Says beyond how many changes the document is to be rolled over; it never is unless this is said.
    pub const fn set_long_history(&mut self, changes: usize) {
        self.long_history = changes;
    }

    fn is_long(&self) -> bool {
        self.full.change_count() > self.long_history
    }

    /// The latest changes, which are not settled: others may be on their way that know only some of them.
    const fn unsettled(&self) -> usize {
        self.long_history / 8
    }

    /// Returns how many changes may come before the document is to be folded again.
    #[must_use]
    pub fn fold_after(&self) -> usize {
        /// Changes that are applied when the document is loaded.
        const CHANGES: usize = 64;
        if !self.is_long() {
            CHANGES
        } else if self.full.is_built() {
            // All of the history is written again.
            self.full.change_count() / 16
        } else {
            self.long_history / 16
        }
    }

    /// Loads a document in which nothing is void as [`load`](Self::load) does, from what [`fold`](Self::fold) returned, its
    /// history in parts, and the changes since, in any order; without loading the history where that is not needed.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn resume<'a>(
        history: &[Bytes],
        short: &[u8],
        tail: impl IntoIterator<Item = &'a [u8]>,
        deletes: BTreeSet<ChangeHash>,
    ) -> Result<Self, LoadError> {
        let changes = scanned(tail)?;
        let value_bytes =
            history.iter().map(Bytes::len).sum::<usize>() + changes.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let mut document = if let Some(full) = Full::resume(history, short, &changes) {
            let heads = full.heads().unwrap_or_default().to_vec();
            Self::of(full, heads, value_bytes)
        } else if let Some(rolled) = Rolled::decode(short).and_then(|rolled| rolled.with_stored(&changes)) {
            let full = Full::unbuilt(history.to_vec(), &changes, rolled.count());
            let heads = rolled.heads().iter().map(change_hash).collect();
            let mut document = Self::of(full, heads, value_bytes);
            document.view = View::Rolled(Box::new(rolled));
            document
        } else {
            let tail = changes.iter().map(|(_, bytes)| *bytes);
            return Self::load(Some(&history.concat()), tail, BTreeSet::new(), deletes);
        };
        document.deletes = deletes;
        document.refresh_deleted();
        Ok(document)
    }
}

/// Scans stored changes and puts each after those that it depends on.
fn scanned<'a>(changes: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<(Scan, &'a [u8])>, LoadError> {
    let scan = |bytes| match gate::prescan(bytes) {
        Ok(scan) => Ok((scan, bytes)),
        Err(error) => Err(LoadError::Change(error.to_string())),
    };
    Ok(in_order(changes.into_iter().map(scan).collect::<Result<Vec<_>, _>>()?))
}

/// Puts changes after those that they depend on.
pub(super) fn in_order<T>(mut scanned: Vec<(Scan, T)>) -> Vec<(Scan, T)> {
    // Operation ids begin above those of the dependencies, or right behind them where a change has no operations.
    scanned.sort_by_key(|(scan, _)| (scan.start_op, scan.hash));
    let mut waiting: BTreeSet<ChangeHash> = scanned.iter().map(|(scan, _)| scan.hash).collect();
    let (mut ordered, mut rest) = (Vec::with_capacity(scanned.len()), scanned);
    loop {
        let before = ordered.len();
        let mut later = Vec::new();
        for (scan, of) in rest {
            if scan.deps.iter().any(|dep| waiting.contains(dep)) {
                later.push((scan, of));
            } else {
                waiting.remove(&scan.hash);
                ordered.push((scan, of));
            }
        }
        if later.is_empty() || ordered.len() == before {
            ordered.append(&mut later);
            return ordered;
        }
        rest = later;
    }
}
