//! The visible form of a document: its accepted changes without the effect of void ones.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, Change};

use super::gate::guarded;
use super::native::change_hash;
use super::rolled::Rolled;
use super::transplant::transplant;
use crate::id::ChangeHash;

/// Where the visible document lies.
#[derive(Clone)]
pub(super) enum View {
    /// Nothing is void: it is the document of all changes.
    Full,
    /// No accepted change depends on a void one: the accepted changes as they were signed.
    Plain(Box<Automerge>),
    /// The accepted changes written again, in a hash space of their own.
    Transplanted(Box<Transplanted>),
    /// Nothing is void, and the history is long: it need not be loaded.
    Rolled(Box<Rolled>),
}

/// A view in a hash space of its own.
#[derive(Clone)]
pub(super) struct Transplanted {
    pub(super) doc: Automerge,
    /// What stands for each signed change there.
    pub(super) heads: BTreeMap<automerge::ChangeHash, Vec<automerge::ChangeHash>>,
}

/// The visible document could not be built from the changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("build the visible document: {0}")]
pub struct ViewError(pub(super) String);

/// A view with the accepted heads in the signed space, ascending.
pub(super) struct Built {
    pub(super) view: View,
    pub(super) heads: Vec<ChangeHash>,
}

/// Builds the view of a document in which `void` are void; all of them are in the document.
pub(super) fn build(full: &Automerge, void: &BTreeSet<ChangeHash>) -> Result<Built, ViewError> {
    if void.is_empty() {
        let heads = full.get_heads().iter().map(change_hash).collect();
        return Ok(Built { view: View::Full, heads });
    }
    guarded(|| build_without(full, void)).unwrap_or_else(Err).map_err(ViewError)
}

fn build_without(full: &Automerge, void: &BTreeSet<ChangeHash>) -> Result<Built, String> {
    let changes = full.get_changes(&[]);
    let is_void = |hash: &automerge::ChangeHash| void.contains(&change_hash(hash));
    let heads = accepted_heads(&changes, is_void);
    let rests_on_void = changes.iter().any(|change| !is_void(&change.hash()) && change.deps().iter().any(is_void));
    if rests_on_void {
        let transplant = transplant(&changes, void);
        let doc = from_changes(transplant.changes)?;
        return Ok(Built { view: View::Transplanted(Box::new(Transplanted { doc, heads: transplant.heads })), heads });
    }
    let doc = from_changes(changes.into_iter().filter(|change| !is_void(&change.hash())).collect())?;
    Ok(Built { view: View::Plain(Box::new(doc)), heads })
}

/// Builds a document from changes that are closed under dependencies.
pub(super) fn from_changes(changes: Vec<Change>) -> Result<Automerge, String> {
    let mut doc = Automerge::new();
    apply_all(&mut doc, changes)?;
    Ok(doc)
}

/// Applies changes, all of them: one whose dependencies are missing would wait in Automerge's queue unseen.
pub(super) fn apply_all(doc: &mut Automerge, changes: Vec<Change>) -> Result<(), String> {
    let hashes: Vec<_> = changes.iter().map(Change::hash).collect();
    doc.apply_changes(changes).map_err(|error| error.to_string())?;
    if hashes.iter().all(|hash| doc.get_change_meta_by_hash(hash).is_some()) {
        Ok(())
    } else {
        Err("changes without their dependencies".to_owned())
    }
}

/// The accepted changes that are ancestors of no accepted one, even by way of void ones; ascending.
/// `changes` come each after those that it depends on.
fn accepted_heads(changes: &[Change], is_void: impl Fn(&automerge::ChangeHash) -> bool) -> Vec<ChangeHash> {
    let (mut below, mut heads) = (BTreeSet::new(), Vec::new());
    for change in changes.iter().rev() {
        let (hash, accepted) = (change.hash(), !is_void(&change.hash()));
        let is_below = below.contains(&hash);
        if accepted && !is_below {
            heads.push(change_hash(&hash));
        }
        if accepted || is_below {
            below.extend(change.deps().iter().copied());
        }
    }
    heads.sort_unstable();
    heads
}

impl View {
    /// Returns the view with new changes, if that needs no rebuilding.
    pub(super) fn extended(&self, new: &[Change], void: &BTreeSet<ChangeHash>) -> Result<Option<Built>, ViewError> {
        let is_void = |hash: &automerge::ChangeHash| void.contains(&change_hash(hash));
        let Self::Plain(doc) = self else {
            return Ok(None);
        };
        if new.iter().any(|change| is_void(&change.hash()) || change.deps().iter().any(is_void)) {
            return Ok(None);
        }
        let mut doc = doc.clone();
        guarded(|| apply_all(&mut doc, new.to_vec())).unwrap_or_else(Err).map_err(ViewError)?;
        let heads = doc.get_heads().iter().map(change_hash).collect();
        Ok(Some(Built { view: Self::Plain(doc), heads }))
    }
}
