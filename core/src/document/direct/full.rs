//! All changes of a document, with Automerge's document of them once that is needed.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use automerge::legacy::OpId;
use automerge::{Automerge, Change, ReadDoc as _};
use bytes::Bytes;

use super::draft::Draft;
use super::incoming::{Incoming, Taken};
use super::tree::Tree;
use super::{Fresh, json};
use crate::document::gate::{Scan, base_path, guarded, prescan};
use crate::document::local::LocalChange;
use crate::document::native::native_hash;
use crate::document::view;
use crate::id::{ActorId, ChangeHash};
use crate::op::FieldPaths;

/// Memory of Automerge's document without changes, measured.
const DOCUMENT_BYTES: usize = 17 << 10;
/// Memory of a document that is not built, without its changes: the names of its heads, and the lists that hold them.
const UNBUILT_BYTES: usize = 1 << 10;
/// Memory of one change in Automerge's document, measured: 0.17 to 0.23 KiB.
const CHANGE_BYTES: usize = 205;
/// Most changes of a document of which a tree is made: beyond, finding each actor's last change takes longer than the
/// edits that it would save.
const TREE_CHANGES_MAX: usize = 4_096;

/// Most changes of a document of which a snapshot is kept rather than Automerge's document: loading takes 2 µs for each, at
/// every later snapshot. Long histories need no such snapshots.
const UNLOADED_CHANGES_MAX: usize = 256;

/// Estimates the memory of Automerge's document of so many changes, beside their values.
pub(in crate::document) const fn built_bytes(changes: usize) -> usize {
    DOCUMENT_BYTES + CHANGE_BYTES * changes
}

/// All changes of a document.
#[derive(Clone, Default)]
pub(in crate::document) struct Full {
    before: Before,
    /// The changes after that, each after those that it depends on.
    since: Vec<(ChangeHash, Bytes)>,
    /// How many changes there are in all; only while Automerge's document is not built.
    count: usize,
    /// Automerge's document of all of them, built when it is first needed. Boxed, so that a document that is not built does
    /// not take the room of one that is.
    built: OnceLock<Box<Automerge>>,
    tree: Knowledge,
    /// What the document reads as, if that was told when it was made.
    json: Option<Bytes>,
}

/// What there was before the changes that are listed.
#[derive(Clone, Default)]
enum Before {
    #[default]
    Nothing,
    /// What Automerge loads, in parts: a snapshot, and changes after it.
    History(Vec<Bytes>),
    Document(Box<Automerge>),
}

/// What is known of the document's tree.
#[derive(Clone, Default)]
enum Knowledge {
    #[default]
    Unasked,
    Has(Box<Tree>),
    HasNone,
}

impl From<Automerge> for Full {
    fn from(doc: Automerge) -> Self {
        Self { built: Box::new(doc).into(), ..Self::default() }
    }
}

impl From<Fresh> for Full {
    fn from(fresh: Fresh) -> Self {
        Self { since: vec![(fresh.hash, fresh.bytes)], count: 1, json: Some(fresh.json), ..Self::default() }
    }
}

impl Full {
    /// Returns the document of some changes, each after those that it depends on.
    pub(in crate::document) fn of(changes: Vec<(ChangeHash, Bytes)>) -> Self {
        Self { count: changes.len(), since: changes, ..Self::default() }
    }

    /// Returns the document of a stored history, its tree, and changes after it, each after those that it depends on. None if
    /// the tree does not hold all of them, or is damaged.
    pub(in crate::document) fn resume(history: &[Bytes], tree: &[u8], changes: &[(Scan, &[u8])]) -> Option<Self> {
        let (mut tree, count) = Tree::decode(tree)?;
        for (scan, bytes) in changes {
            if Incoming::read(scan, bytes)?.put_into(&mut tree, None) != Taken::Yes {
                return None;
            }
        }
        let full = Self::unbuilt(history.to_vec(), changes, count + changes.len());
        Some(Self { tree: Knowledge::Has(Box::new(tree)), ..full })
    }

    /// Returns the document of a stored history and changes after it, each after those that it depends on; of which there
    /// are `count` in all.
    pub(in crate::document) fn unbuilt(history: Vec<Bytes>, changes: &[(Scan, &[u8])], count: usize) -> Self {
        let since = changes.iter().map(|(scan, bytes)| (scan.hash, Bytes::copy_from_slice(bytes))).collect();
        Self { before: Before::History(history), since, count, tree: Knowledge::HasNone, ..Self::default() }
    }

    /// Notes a change that Automerge's document will have when it is built from the history.
    pub(in crate::document) fn note(&mut self, hash: ChangeHash, bytes: Bytes) {
        self.built.take();
        self.count += 1;
        self.since.push((hash, bytes));
        self.json = None;
    }

    /// Makes the listed changes a part of the history and returns it, if there is a history and the listed ones are just
    /// `changes`.
    pub(in crate::document) fn append(&mut self, changes: &[ChangeHash]) -> Option<Bytes> {
        let is_built = self.is_built();
        let Before::History(history) = &mut self.before else { return None };
        let listed: BTreeSet<&ChangeHash> = self.since.iter().map(|(hash, _)| hash).collect();
        if is_built || changes.len() != listed.len() || !changes.iter().all(|change| listed.contains(change)) {
            return None;
        }
        let part: Vec<u8> = self.since.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let part = Bytes::from(part);
        history.push(part.clone());
        self.since.clear();
        Some(part)
    }

    /// Returns the heads that the tree says, if there is one.
    pub(in crate::document) fn heads(&self) -> Option<&[ChangeHash]> {
        match &self.tree {
            Knowledge::Has(tree) => Some(&tree.heads),
            Knowledge::Unasked | Knowledge::HasNone => None,
        }
    }

    /// Returns whether the document has a tree.
    pub(in crate::document) fn has_tree(&mut self) -> bool {
        self.tree().is_some()
    }

    /// Encodes the tree to be stored beside the history; none if there is no tree.
    pub(in crate::document) fn encode_tree(&mut self) -> Option<Vec<u8>> {
        let changes = self.change_count();
        self.tree().map(|tree| tree.encode(changes))
    }

    /// Keeps a snapshot of the document in place of Automerge's document, where that is not needed for every later snapshot,
    /// since the history `is_long`, or is loaded fast.
    pub(in crate::document) fn unload(&mut self, snapshot: Bytes, is_long: bool) {
        let count = self.change_count();
        if (count > UNLOADED_CHANGES_MAX && !is_long) || !matches!(self.tree, Knowledge::Has(_)) {
            return;
        }
        self.count = count;
        self.before = Before::History(vec![snapshot]);
        self.since.clear();
        self.built.take();
    }

    /// Returns whether the tree, if there is one, is that of Automerge's document.
    pub(in crate::document) fn is_consistent(&self) -> bool {
        match &self.tree {
            Knowledge::Has(tree) => Tree::of(self.get()).is_some_and(|of| of.says_the_same(tree)),
            Knowledge::Unasked | Knowledge::HasNone => true,
        }
    }

    /// Returns whether Automerge's document is built already.
    pub(in crate::document) fn is_built(&self) -> bool {
        self.built.get().is_some()
    }

    /// Returns Automerge's document. It is an empty one if it cannot be built; [`settle`](Self::settle) tells.
    pub(in crate::document) fn get(&self) -> &Automerge {
        self.built.get_or_init(|| {
            let before = match &self.before {
                Before::Nothing => Ok(Automerge::new()),
                Before::History(parts) => loaded(parts),
                Before::Document(doc) => Ok((**doc).clone()),
            };
            Box::new(before.and_then(|before| self.with_changes(before)).unwrap_or_default())
        })
    }

    /// Returns Automerge's document to be changed.
    pub(in crate::document) fn get_mut(&mut self) -> &mut Automerge {
        self.get();
        self.before = Before::Nothing;
        self.since.clear();
        self.tree = Knowledge::Unasked;
        self.json = None;
        self.built.get_mut().expect("the first line builds it")
    }

    /// Builds Automerge's document, if it is not, so that nothing is kept beside it. Says why that cannot be done: a fault
    /// in this module, since what it took in is what Automerge would have made. `heads` are those that it must have, if that is known.
    pub(in crate::document) fn settle(&mut self, heads: Option<&[ChangeHash]>) -> Result<(), String> {
        if self.since.is_empty() && self.is_built() && matches!(self.before, Before::Nothing) {
            return Ok(());
        }
        if !self.is_built() {
            let before = match std::mem::take(&mut self.before) {
                Before::Nothing => Automerge::new(),
                Before::History(parts) => loaded(&parts)?,
                Before::Document(doc) => *doc,
            };
            self.built = Box::new(self.with_changes(before)?).into();
        }
        let mut native = self.get().get_heads();
        native.sort_unstable();
        if heads.is_some_and(|heads| !heads.iter().map(native_hash).eq(native)) {
            return Err("the document has other heads than it was given".to_owned());
        }
        self.before = Before::Nothing;
        self.since.clear();
        Ok(())
    }

    fn with_changes(&self, mut doc: Automerge) -> Result<Automerge, String> {
        guarded(|| {
            let changes = self.since.iter().map(|(_, bytes)| Change::try_from(&**bytes).map_err(|e| e.to_string()));
            view::apply_all(&mut doc, changes.collect::<Result<_, _>>()?).map(|()| doc)
        })
        .unwrap_or_else(Err)
    }

    /// Returns what the document reads as, if Automerge is not needed to tell.
    pub(in crate::document) fn json(&self) -> Option<Bytes> {
        match (&self.json, &self.tree) {
            (Some(json), _) => Some(json.clone()),
            (None, Knowledge::Has(tree)) => Some(json::rendered(|sink| tree.show(sink)).into()),
            (None, Knowledge::Unasked | Knowledge::HasNone) => None,
        }
    }

    pub(in crate::document) fn contains(&self, hash: &ChangeHash) -> bool {
        let is_in = |doc: &Automerge| doc.get_change_meta_by_hash(&native_hash(hash)).is_some();
        match (self.built.get(), &self.before) {
            (Some(doc), _) => is_in(doc),
            (None, _) if self.since.iter().any(|(one, _)| one == hash) => true,
            (None, Before::Document(doc)) => is_in(doc),
            (None, Before::History(_)) => is_in(self.get()),
            (None, Before::Nothing) => false,
        }
    }

    /// Returns the bytes of a change that Automerge does not have yet.
    pub(in crate::document) fn listed(&self, hash: &ChangeHash) -> Option<Bytes> {
        self.since.iter().find(|(one, _)| one == hash).map(|(_, bytes)| bytes.clone())
    }

    pub(in crate::document) fn change_count(&self) -> usize {
        self.built.get().map_or(self.count, |doc| doc.stats().num_changes as usize)
    }

    /// Estimates the memory that it takes, given the bytes of its changes.
    pub(in crate::document) fn memory_bytes(&self, value_bytes: usize) -> usize {
        let shown = match (&self.json, &self.tree) {
            (Some(json), _) => json.len(),
            (None, Knowledge::Has(tree)) => tree.memory_bytes(),
            (None, Knowledge::Unasked | Knowledge::HasNone) => 0,
        };
        let is_built = self.is_built() || matches!(self.before, Before::Document(_));
        let changes = if is_built { built_bytes(self.change_count()) } else { UNBUILT_BYTES };
        changes + value_bytes + shown
    }

    /// Returns how many maps the tree has, if there is one.
    #[cfg(test)]
    pub(in crate::document) fn map_count(&self) -> Option<usize> {
        match &self.tree {
            Knowledge::Has(tree) => Some(tree.maps.len()),
            Knowledge::Unasked | Knowledge::HasNone => None,
        }
    }

    /// Returns the tree of the document, if it has one.
    fn tree(&mut self) -> Option<&mut Tree> {
        if let Knowledge::Unasked = self.tree {
            let tree = match (&self.before, self.built.get()) {
                (Before::Nothing, None) => self.replayed(),
                _ if self.change_count() > TREE_CHANGES_MAX => None,
                _ => guarded(|| Tree::of(self.get())).ok().flatten(),
            };
            self.tree = tree.map_or(Knowledge::HasNone, |tree| Knowledge::Has(Box::new(tree)));
        }
        match &mut self.tree {
            Knowledge::Has(tree) => Some(tree),
            Knowledge::Unasked | Knowledge::HasNone => None,
        }
    }

    /// Makes the tree of the changes that are listed.
    fn replayed(&self) -> Option<Tree> {
        let mut tree = Tree::default();
        for (_, bytes) in &self.since {
            let scan = prescan(bytes).ok()?;
            if Incoming::read(&scan, bytes)?.put_into(&mut tree, None) != Taken::Yes {
                return None;
            }
        }
        Some(tree)
    }

    /// Takes in a change that comes after all others and needs no Automerge; returns whether it is such a one.
    pub(in crate::document) fn take(&mut self, scan: &Scan, bytes: &[u8], fields: Option<&FieldPaths>) -> bool {
        let Some(incoming) = Incoming::read(scan, bytes) else { return false };
        let Some(tree) = self.tree() else { return false };
        match incoming.put_into(tree, fields) {
            Taken::Yes => {
                self.add(scan.hash, Bytes::copy_from_slice(bytes));
                true
            }
            Taken::No => false,
            Taken::Spoilt => {
                self.tree = Knowledge::Unasked;
                false
            }
        }
    }

    /// Makes a change without Automerge. `None` if that cannot be done, for whatever reason; nothing has changed then.
    /// Otherwise the change, if the edit makes one.
    pub(in crate::document) fn edit(
        &mut self,
        actor: &ActorId,
        edit: impl FnOnce(&mut Draft<'_>) -> Option<()>,
    ) -> Option<Option<LocalChange>> {
        let mut draft = Draft::new(self.tree()?, actor)?;
        let is_done = edit(&mut draft).is_some();
        if draft.is_empty() {
            return is_done.then_some(None);
        }
        let change = if is_done { draft.finish() } else { None };
        let Some(change) = change else {
            self.tree = Knowledge::Unasked;
            return None;
        };
        self.add(change.hash, change.bytes.clone());
        Some(Some(change))
    }

    /// Returns the path of an object that is in the document, visible or not.
    pub(in crate::document) fn path_of(&self, object: &OpId) -> Option<Vec<String>> {
        let in_tree = match &self.tree {
            Knowledge::Has(tree) => tree.path_of_native(object),
            Knowledge::Unasked | Knowledge::HasNone => None,
        };
        in_tree.or_else(|| guarded(|| base_path(self.get(), object)).ok().flatten())
    }

    /// Notes a change that is in the tree.
    fn add(&mut self, hash: ChangeHash, bytes: Bytes) {
        self.count = self.change_count() + 1;
        if let Some(doc) = self.built.take() {
            self.before = Before::Document(doc);
            self.since.clear();
        }
        self.since.push((hash, bytes));
        self.json = None;
    }
}

fn loaded(history: &[Bytes]) -> Result<Automerge, String> {
    let load = |bytes: &[u8]| Automerge::load(bytes).map_err(|error| error.to_string());
    guarded(|| if let [snapshot] = history { load(snapshot) } else { load(&history.concat()) }).unwrap_or_else(Err)
}
