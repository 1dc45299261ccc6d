//! A loaded document: what a replica keeps in memory.

use std::collections::BTreeSet;

use automerge::{Automerge, Change, ReadDoc};
use bytes::Bytes;

use super::fresh::{Fresh, Full};
use super::gate::{self, Admission, Candidate, Hold, guarded};
use super::json;
use super::native::{change_hash, native_hash};
use super::view::{self, View, ViewError};
use crate::id::ChangeHash;

/// Memory of a loaded document without changes, measured.
const DOCUMENT_BYTES: usize = 17 << 10;
/// Memory of a document that is not built, without its change: the names of its head, and the lists that hold them.
const FRESH_BYTES: usize = 1 << 10;
/// Memory of one change, measured: 0.17 to 0.23 KiB.
const CHANGE_BYTES: usize = 205;

/// A document in memory.
///
/// It holds every change that passed the gate, accepted or void: the *signed space*, whose hashes name changes in
/// headers, dependencies and `ETag`s. Reads go to the [*view*](Document::view), which is without the effect of void
/// changes. Usually nothing is void and both are the same; after a revocation that reaches back below honest work the
/// view lies in a [hash space of its own](super::transplant), with the same operation ids.
///
/// The caller decides which changes are void and which deletes count. It may name changes that are not here yet: naming
/// them first saves building the view twice.
///
/// Text is indexed by Unicode code points (Automerge's native unit; JavaScript counts UTF-16 units).
///
/// All methods need a thread with [`gate::STACK_BYTES`] of stack.
#[derive(Clone)]
pub struct Document {
    pub(super) full: Full,
    pub(super) view: View,
    /// Maximal accepted changes, ascending.
    pub(super) heads: Vec<ChangeHash>,
    /// As the caller named them.
    pub(super) void: BTreeSet<ChangeHash>,
    /// Those of them that are here.
    pub(super) void_here: BTreeSet<ChangeHash>,
    /// Heads named by deletes that count.
    deletes: BTreeSet<ChangeHash>,
    deleted: bool,
    /// Encoded bytes that went in.
    pub(super) value_bytes: usize,
    /// Why the document in memory is not to be trusted any more.
    pub(super) broken: Option<String>,
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

/// Why no snapshot could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("save the document: {0}")]
pub struct SnapshotError(String);

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document")
            .field("heads", &self.heads)
            .field("changes", &self.change_count())
            .field("void", &self.void_here.len())
            .field("deleted", &self.deleted)
            .finish_non_exhaustive()
    }
}

impl Document {
    /// Returns a document without changes.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Full::default(), Vec::new(), 0)
    }

    fn over(full: Automerge, value_bytes: usize) -> Self {
        let heads = full.get_heads().iter().map(change_hash).collect();
        Self::of(full.into(), heads, value_bytes)
    }

    const fn of(full: Full, heads: Vec<ChangeHash>, value_bytes: usize) -> Self {
        Self {
            full,
            view: View::Full,
            heads,
            void: BTreeSet::new(),
            void_here: BTreeSet::new(),
            deletes: BTreeSet::new(),
            deleted: false,
            value_bytes,
            broken: None,
        }
    }

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
        let mut value_bytes = snapshot.map_or(0, <[u8]>::len);
        let mut full = match snapshot {
            None => Automerge::new(),
            Some(bytes) => guarded(|| Automerge::load(bytes).map_err(|error| error.to_string()))
                .unwrap_or_else(Err)
                .map_err(LoadError::Snapshot)?,
        };
        let mut changes = Vec::new();
        for bytes in tail {
            gate::prescan(bytes).map_err(|error| LoadError::Change(error.to_string()))?;
            let change = guarded(|| Change::try_from(bytes).map_err(|error| error.to_string()));
            changes.push(change.unwrap_or_else(Err).map_err(LoadError::Change)?);
            value_bytes += bytes.len();
        }
        if !changes.is_empty() {
            guarded(|| view::apply_all(&mut full, changes)).unwrap_or_else(Err).map_err(LoadError::Tail)?;
        }
        let mut document = Self::over(full, value_bytes);
        document.deletes = deletes;
        document.set_void(void)?;
        document.refresh_deleted();
        Ok(document)
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

    /// Offers changes from outside to the gate and takes in those that pass; the answers are in the order of the
    /// candidates, which itself does not matter. A candidate may depend on another one.
    ///
    /// Changes of one actor must come in the order of its stream (one that waits for dependencies makes the actor's
    /// later ones wait): an author who gives two concurrent changes one sequence number gets the first in, and which
    /// is first has to be the same everywhere.
    pub fn admit(&mut self, candidates: &[Candidate<'_>]) -> Vec<Admission> {
        if let Some(admission) = self.admit_fresh(candidates) {
            return vec![admission];
        }
        if let Err(broken) = self.build() {
            return candidates.iter().map(|_| Admission::Held(Hold::Panicked(broken.clone()))).collect();
        }
        let outcome = gate::admit(self.full.get(), candidates);
        let Some(full) = outcome.doc else {
            return outcome.admissions;
        };
        match self.take_in(full, &outcome.changes) {
            Ok(()) => outcome.admissions,
            Err(error) => outcome
                .admissions
                .into_iter()
                .map(|answer| match answer {
                    Admission::Admitted(_) => Admission::Held(Hold::View(error.to_string())),
                    Admission::Known(_) | Admission::MissingDeps(_) | Admission::Bad(_) | Admission::Held(_) => answer,
                })
                .collect(),
        }
    }

    /// Takes in the one change of a document that has none, if it is plain.
    fn admit_fresh(&mut self, candidates: &[Candidate<'_>]) -> Option<Admission> {
        let [candidate] = candidates else { return None };
        if !self.is_pristine() {
            return None;
        }
        let scan = gate::scan(candidate).ok()?;
        if self.void.contains(&scan.hash) {
            return None;
        }
        self.begin(Fresh::read(&scan, candidate.bytes)?);
        Some(Admission::Admitted(scan.hash))
    }

    /// Returns whether no change ever was in this document, so that it can be [filled](Self::fill).
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.full.change_count() == 0 && self.broken.is_none()
    }

    /// Gives a pristine document its first change.
    pub(super) fn begin(&mut self, fresh: Fresh) {
        self.heads = vec![fresh.hash];
        self.value_bytes += fresh.bytes.len();
        self.full = fresh.into();
        self.view = View::Full;
        self.refresh_deleted();
    }

    /// Makes sure that Automerge's document is there.
    ///
    /// # Errors
    /// What is broken, if anything is.
    pub(super) fn build(&mut self) -> Result<(), String> {
        if self.broken.is_none() {
            self.broken = self.full.check().err();
        }
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Replaces the document by one with new changes; on an error nothing has changed.
    pub(super) fn take_in(&mut self, full: Automerge, new: &[Change]) -> Result<(), ViewError> {
        let void_here: BTreeSet<ChangeHash> = if self.void.is_empty() {
            BTreeSet::new()
        } else {
            let new = new.iter().map(|change| change_hash(&change.hash())).filter(|hash| self.void.contains(hash));
            self.void_here.iter().copied().chain(new).collect()
        };
        let extended = if void_here == self.void_here { self.view.extended(new, &void_here)? } else { None };
        let built = match extended {
            Some(built) => built,
            None => view::build(&full, &void_here)?,
        };
        self.view = built.view;
        self.heads = built.heads;
        self.full = full.into();
        self.void_here = void_here;
        self.value_bytes += new.iter().map(|change| change.raw_bytes().len()).sum::<usize>();
        self.refresh_deleted();
        Ok(())
    }

    /// Says which changes are void; they may be ones that are not here yet. Returns whether the visible state changed.
    ///
    /// # Errors
    /// [`ViewError`] if the visible document cannot be built; nothing has changed then.
    pub fn set_void(&mut self, void: BTreeSet<ChangeHash>) -> Result<bool, ViewError> {
        let here: BTreeSet<ChangeHash> = void.iter().filter(|hash| self.full.contains(hash)).copied().collect();
        let changed = here != self.void_here;
        if changed {
            let built = view::build(self.full.get(), &here)?;
            self.view = built.view;
            self.heads = built.heads;
            self.void_here = here;
            self.refresh_deleted();
        }
        self.void = void;
        Ok(changed)
    }

    /// Makes further changes void. Returns whether the visible state changed.
    ///
    /// # Errors
    /// As for [`set_void`](Self::set_void).
    pub fn add_void(&mut self, hashes: impl IntoIterator<Item = ChangeHash>) -> Result<bool, ViewError> {
        let mut void = self.void.clone();
        void.extend(hashes);
        self.set_void(void)
    }

    /// Makes changes accepted again. Returns whether the visible state changed.
    ///
    /// # Errors
    /// As for [`set_void`](Self::set_void).
    pub fn remove_void(&mut self, hashes: impl IntoIterator<Item = ChangeHash>) -> Result<bool, ViewError> {
        let mut void = self.void.clone();
        for hash in hashes {
            void.remove(&hash);
        }
        self.set_void(void)
    }

    /// Says which heads the deletes that count name, all of them together. Returns whether the document was thereby
    /// deleted or came back.
    pub fn set_deletes(&mut self, deletes: BTreeSet<ChangeHash>) -> bool {
        self.deletes = deletes;
        let before = self.deleted;
        self.refresh_deleted();
        before != self.deleted
    }

    pub(super) fn refresh_deleted(&mut self) {
        self.deleted = !self.deletes.is_empty() && !self.heads.is_empty() && self.heads_are_covered();
    }

    /// Whether every accepted head, and with it every accepted change, is an ancestor of what the deletes name, or is
    /// named itself.
    fn heads_are_covered(&self) -> bool {
        if self.heads.iter().all(|head| self.deletes.contains(head)) {
            return true;
        }
        let named: Vec<_> = self.deletes.iter().filter(|hash| self.full.contains(hash)).map(native_hash).collect();
        if named.is_empty() {
            return false;
        }
        let outside = self.full.get().get_changes_meta(&named);
        !outside.iter().any(|meta| self.heads.binary_search(&change_hash(&meta.hash)).is_ok())
    }

    /// Returns whether the document is deleted: it has accepted changes, and all of them were seen by deletes.
    /// A change concurrent with the deletes brings it back.
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Returns whether it has no accepted change at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Returns the maximal accepted changes in the signed space, ascending: what `ETag`s and digests are made of, and
    /// what a delete names.
    #[must_use]
    pub fn heads(&self) -> &[ChangeHash] {
        &self.heads
    }

    /// Returns the visible document, for reading.
    ///
    /// Its own hashes are those of the signed space only while [`is_transplanted`](Self::is_transplanted) is false: use
    /// [`view_heads`](Self::view_heads) for reads of the past.
    #[must_use]
    pub fn view(&self) -> &Automerge {
        match &self.view {
            View::Full => self.full.get(),
            View::Plain(doc) => doc,
            View::Transplanted(transplanted) => &transplanted.doc,
        }
    }

    /// Returns the canonical JSON text of the visible document.
    #[must_use]
    pub fn json(&self) -> Bytes {
        match (&self.view, self.full.fresh()) {
            (View::Full, Some(fresh)) => fresh.json.clone(),
            (View::Full | View::Plain(_) | View::Transplanted(_), _) => json::render(self.view()).into(),
        }
    }

    /// Returns the document of all changes in the signed space, void ones included: for history and audit, not for
    /// what clients read.
    #[must_use]
    pub fn full(&self) -> &Automerge {
        self.full.get()
    }

    /// Returns whether the view has hashes of its own.
    #[must_use]
    pub const fn is_transplanted(&self) -> bool {
        matches!(self.view, View::Transplanted(_))
    }

    /// Translates heads of the signed space into the view's, for its `_at` reads: the state that the accepted changes
    /// among the named ones and their ancestors make. `None` if one of them is not here, or is void in a view that
    /// leaves void changes out.
    #[must_use]
    pub fn view_heads(&self, heads: &[ChangeHash]) -> Option<Vec<automerge::ChangeHash>> {
        match &self.view {
            View::Full | View::Plain(_) => heads
                .iter()
                .map(|head| {
                    let head = native_hash(head);
                    self.view().get_change_meta_by_hash(&head).map(|_| head)
                })
                .collect(),
            View::Transplanted(transplanted) => {
                let mut all = BTreeSet::new();
                for head in heads {
                    all.extend(transplanted.heads.get(&native_hash(head))?.iter().copied());
                }
                Some(all.into_iter().collect())
            }
        }
    }

    /// Returns whether a change is here, accepted or void.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.full.contains(hash)
    }

    /// Returns the changes that were called void, also those that are not here.
    #[must_use]
    pub const fn named_void(&self) -> &BTreeSet<ChangeHash> {
        &self.void
    }

    /// Returns the void changes that are here.
    #[must_use]
    pub const fn void_changes(&self) -> &BTreeSet<ChangeHash> {
        &self.void_here
    }

    /// Returns the exact bytes of a change; the gate made sure that they come back as they came.
    #[must_use]
    pub fn change_bytes(&self, hash: &ChangeHash) -> Option<Bytes> {
        let change = guarded(|| self.full.get().get_change_by_hash(&native_hash(hash))).ok()??;
        Some(Bytes::copy_from_slice(change.raw_bytes()))
    }

    /// Returns all changes with their bytes, void ones included, each after those that it depends on.
    pub fn changes(&self) -> impl Iterator<Item = (ChangeHash, Bytes)> {
        let changes = guarded(|| self.full.get().get_changes(&[])).unwrap_or_default();
        changes.into_iter().map(|change| (change_hash(&change.hash()), Bytes::copy_from_slice(change.raw_bytes())))
    }

    /// Returns all changes with what they depend on and their bytes, each after those that it depends on.
    pub fn changes_with_deps(&self) -> impl Iterator<Item = (ChangeHash, Vec<ChangeHash>, Bytes)> {
        let changes = guarded(|| self.full.get().get_changes(&[])).unwrap_or_default();
        changes.into_iter().map(|change| {
            let deps = change.deps().iter().map(change_hash).collect();
            (change_hash(&change.hash()), deps, Bytes::copy_from_slice(change.raw_bytes()))
        })
    }

    /// Returns how many changes there are, void ones included.
    #[must_use]
    pub fn change_count(&self) -> usize {
        self.full.change_count()
    }

    /// Estimates the memory that the document takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let copies = match &self.view {
            View::Full => 1,
            View::Plain(_) | View::Transplanted(_) => 2,
        };
        if !self.full.is_built() {
            // The change and the text that it shows, which is about as long.
            return FRESH_BYTES + 2 * self.value_bytes;
        }
        copies * (DOCUMENT_BYTES + CHANGE_BYTES * self.change_count() + self.value_bytes)
    }

    /// Returns whether Automerge panicked in the middle of a local edit, so that this copy must be dropped and loaded
    /// again. It takes no further changes.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}
