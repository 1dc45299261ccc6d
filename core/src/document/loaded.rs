//! A loaded document: what a replica keeps in memory.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, Change, ReadDoc};
use bytes::Bytes;

use super::direct::{Fresh, Full};
use super::gate::{self, Admission, Candidate, Hold, Scan, guarded};
use super::json;
use super::native::{change_hash, native_actor, native_hash};
use super::stored::{Turns, in_order};
use super::view::{self, View, ViewError};
use crate::id::{ActorId, ChangeHash};

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
    pub(super) deletes: BTreeSet<ChangeHash>,
    deleted: bool,
    /// Encoded bytes that went in.
    pub(super) value_bytes: usize,
    /// Why the document in memory is not to be trusted any more.
    pub(super) broken: Option<String>,
    /// How often its history was rolled over and had to be loaded again.
    pub(super) turns: Turns,
    /// Changes beyond which the history is long.
    pub(super) long_history: usize,
}

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

    pub(super) fn over(full: Automerge, value_bytes: usize) -> Self {
        let heads = full.get_heads().iter().map(change_hash).collect();
        Self::of(full.into(), heads, value_bytes)
    }

    pub(super) const fn of(full: Full, heads: Vec<ChangeHash>, value_bytes: usize) -> Self {
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
            turns: Turns { rolled_over: 0, histories_loaded: 0 },
            long_history: usize::MAX,
        }
    }

    /// Returns whether what is known of the document beside Automerge's agrees with that.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        match &self.view {
            View::Full => self.broken.is_some() || self.full.is_consistent(),
            View::Rolled(rolled) => json::render(rolled.doc()) == json::render(self.full.get()),
            View::Plain(_) | View::Transplanted(_) => true,
        }
    }

    /// Offers changes from outside to the gate and takes in those that pass; the answers are in the order of the
    /// candidates, which itself does not matter. A candidate may depend on another one.
    ///
    /// Changes of one actor must come in the order of its stream (one that waits for dependencies makes the actor's
    /// later ones wait): an author who gives two concurrent changes one sequence number gets the first in, and which
    /// is first has to be the same everywhere.
    pub fn admit(&mut self, candidates: &[Candidate<'_>]) -> Vec<Admission> {
        let mut admissions = self.admit_directly(candidates);
        let rest = candidates.get(admissions.len()..).unwrap_or_default();
        if !rest.is_empty() {
            let rolled = self.admit_rolled(rest);
            admissions.append(&mut rolled.unwrap_or_else(|| self.admit_by_gate(rest)));
        }
        admissions
    }

    /// Takes in changes without loading the history. None, and nothing has changed, if one of them needs that.
    fn admit_rolled(&mut self, candidates: &[Candidate<'_>]) -> Option<Vec<Admission>> {
        let View::Rolled(rolled) = &mut self.view else { return None };
        if self.broken.is_some() || !self.void.is_empty() {
            return None;
        }
        let mut offered = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            offered.push((gate::scan(candidate).ok()?, candidate.clone()));
        }
        let admissions = offered.iter().map(|(scan, _)| Admission::Admitted(scan.hash)).collect();
        let offered = in_order(offered);
        rolled.admit(&offered)?;
        for (scan, candidate) in offered {
            self.heads.retain(|head| !scan.deps.contains(head));
            self.heads.push(scan.hash);
            self.value_bytes += candidate.bytes.len();
            self.full.note(scan.hash, Bytes::copy_from_slice(candidate.bytes));
        }
        self.heads.sort_unstable();
        self.refresh_deleted();
        Some(admissions)
    }

    /// Makes the document ready to be edited by `actor` without loading its history; returns whether that can be.
    pub(super) fn is_rolled_for(&mut self, actor: &ActorId) -> bool {
        let View::Rolled(rolled) = &mut self.view else { return false };
        if self.broken.is_some() || !self.void.is_empty() {
            return false;
        }
        let heads: Vec<_> = self.heads.iter().map(native_hash).collect();
        rolled.begin_edit(&native_actor(actor), &heads)
    }

    /// The general way of [`admit`](Self::admit).
    pub(super) fn admit_by_gate(&mut self, candidates: &[Candidate<'_>]) -> Vec<Admission> {
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

    /// Takes in changes from the front as long as each comes right after all others and is simple; returns the answers.
    fn admit_directly(&mut self, candidates: &[Candidate<'_>]) -> Vec<Admission> {
        if !self.is_plain() || !self.void.is_empty() {
            return Vec::new();
        }
        let mut admissions = Vec::with_capacity(candidates.len());
        // Two changes with one number: the gate has a rule which of them is first.
        let mut numbers: BTreeMap<(ActorId, u64), ChangeHash> = BTreeMap::new();
        let mut scans = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let Ok(scan) = gate::scan(candidate) else { break };
            if candidates.len() > 1
                && numbers.insert((scan.actor, scan.seq), scan.hash).is_some_and(|other| other != scan.hash)
            {
                return admissions;
            }
            scans.push(scan);
        }
        for (scan, candidate) in scans.iter().zip(candidates) {
            if candidate.fields.is_none() && self.full.listed(&scan.hash).is_some() {
                admissions.push(Admission::Known(scan.hash));
            } else if self.admit_one(scan, candidate) {
                admissions.push(Admission::Admitted(scan.hash));
            } else {
                break;
            }
        }
        admissions
    }

    fn admit_one(&mut self, scan: &Scan, &Candidate { bytes, fields, .. }: &Candidate<'_>) -> bool {
        if self.is_pristine() {
            let Some(fresh) = Fresh::read(scan, bytes, fields) else { return false };
            self.begin(fresh);
            return true;
        }
        let is_taken = self.full.take(scan, bytes, fields);
        if is_taken {
            self.put_last(scan.hash, bytes.len());
        }
        is_taken
    }

    /// Notes a change that depends on all others and is in the document of all changes.
    pub(super) fn put_last(&mut self, hash: ChangeHash, bytes: usize) {
        self.heads.clear();
        self.heads.push(hash);
        self.value_bytes += bytes;
        self.refresh_deleted();
    }

    /// Returns whether nothing stands between the changes and what the document shows.
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self.view, View::Full) && self.broken.is_none()
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

    /// Loads the whole history, where only the end of a long one is loaded, so that all versions can be read.
    ///
    /// # Errors
    /// What is broken, if anything is.
    pub fn load_history(&mut self) -> Result<(), String> {
        self.build()
    }

    /// Makes sure that Automerge's document is there.
    ///
    /// # Errors
    /// What is broken, if anything is.
    pub(super) fn build(&mut self) -> Result<(), String> {
        if self.broken.is_none() {
            let is_whole = matches!(self.view, View::Full | View::Rolled(_));
            let heads = is_whole.then_some(&*self.heads);
            self.broken = self.full.settle(heads).err();
            if matches!(self.view, View::Rolled(_)) {
                self.view = View::Full;
                self.turns.histories_loaded += 1;
            }
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
        if let View::Rolled(rolled) = &self.view {
            let heads: Vec<_> = self.heads.iter().map(native_hash).collect();
            return rolled.are_covered(&heads, &self.deletes.iter().map(native_hash).collect());
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

    /// Returns whether some heads, in whatever order, are those of the document as it is.
    #[must_use]
    pub fn is_at(&self, heads: &[ChangeHash]) -> bool {
        match heads {
            [head] => self.heads == [*head],
            heads => heads.iter().collect::<BTreeSet<_>>().into_iter().eq(&self.heads),
        }
    }

    /// Returns the visible document, for reading.
    ///
    /// Its own hashes need not be those of the signed space: use [`view_heads`](Self::view_heads) for reads of the past.
    #[must_use]
    pub fn view(&self) -> &Automerge {
        match &self.view {
            View::Full => self.full.get(),
            View::Plain(doc) => doc,
            View::Transplanted(transplanted) => &transplanted.doc,
            View::Rolled(rolled) => rolled.doc(),
        }
    }

    /// Returns the visible document with its history, for reading what its parts came of; the hashes in it are those of the
    /// signed space unless it [is transplanted](Self::is_transplanted).
    #[must_use]
    pub fn view_with_history(&self) -> &Automerge {
        if matches!(self.view, View::Rolled(_)) { self.full.get() } else { self.view() }
    }

    /// Returns the canonical JSON text of the visible document.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let told = if self.is_plain() { self.full.json() } else { None };
        told.unwrap_or_else(|| json::render(self.view()).into())
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
    /// leaves void changes out, or may be part of a history that is not loaded: see [`base_for`](Self::base_for).
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
            View::Rolled(rolled) => rolled.at(&heads.iter().map(native_hash).collect::<Vec<_>>()),
        }
    }

    /// Translates heads that a writer had seen for an edit by `actor`; loads the history if it takes that. `None` as for
    /// [`view_heads`](Self::view_heads).
    pub fn base_for(&mut self, actor: &ActorId, heads: &[ChangeHash]) -> Option<Vec<automerge::ChangeHash>> {
        if matches!(self.view, View::Rolled(_)) && (!self.is_rolled_for(actor) || self.view_heads(heads).is_none()) {
            self.build().ok()?;
        }
        self.view_heads(heads)
    }

    /// Returns whether a change is here, accepted or void.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        let is_rolled = || matches!(&self.view, View::Rolled(rolled) if rolled.has(&native_hash(hash)));
        self.heads.binary_search(hash).is_ok() || is_rolled() || self.full.contains(hash)
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
        if let Some(bytes) = self.full.listed(hash) {
            return Some(bytes);
        }
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
        let full = self.full.memory_bytes(self.value_bytes);
        match &self.view {
            View::Full => full,
            View::Plain(_) | View::Transplanted(_) => 2 * full,
            View::Rolled(rolled) => full + rolled.memory_bytes(),
        }
    }

    /// Returns whether Automerge panicked in the middle of a local edit, so that this copy must be dropped and loaded
    /// again. It takes no further changes.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}
