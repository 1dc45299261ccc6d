//! Changes that this replica makes.

use std::collections::BTreeSet;

use automerge::legacy::{ElementId, Key, ObjectId, OpId};
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{Automerge, AutomergeError, Change, ExpandedChange, ReadDoc};
use bytes::Bytes;

use super::Document;
use super::direct::Fresh;
use super::edit;
use super::gate::{self, GateError, guarded};
use super::json::Value;
use super::native::{bare_change, change_hash, native_actor, native_hash};
use super::view::{self, View};
use crate::id::{ActorId, ChangeHash};
use crate::limits;

/// A change made here, as it is to be signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalChange {
    /// Automerge's hash of it.
    pub hash: ChangeHash,
    /// Its raw bytes; they pass the gate of every replica.
    pub bytes: Bytes,
    /// Whether it has no dependencies, so that the header says "create".
    pub is_create: bool,
}

/// Why an edit was not made; the document is as before, except after [`Broken`](Self::Broken).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError<E> {
    /// The edit itself failed.
    #[error("edit the document")]
    Edit(#[source] E),
    /// The change would not pass the gate: the edit is too large or nests too deep.
    #[error("the edit makes a change that no replica takes")]
    Gate(#[source] GateError),
    /// More concurrent heads than a change can depend on: merge them first, see [`Document::merge_heads`].
    #[error("the document has too many concurrent heads")]
    Heads,
    /// Automerge failed: this copy of the document must be dropped and loaded again.
    #[error("automerge failed: {0}")]
    Broken(String),
}

/// Never returned by the edit of an empty change.
enum NoEdit {}

impl Document {
    /// Edits the visible document under `actor` and returns the change, or `None` if nothing was changed.
    ///
    /// The change depends on all [heads](Document::heads), and has neither time nor message: the header has the time.
    /// An actor must belong to one stream, principal and document; two replicas that share one fork it.
    ///
    /// # Errors
    /// [`EditError`]. On any but [`EditError::Broken`] nothing was changed.
    pub fn local_edit<R, E>(
        &mut self,
        actor: &ActorId,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<(Option<LocalChange>, R), EditError<E>> {
        if self.heads.len() >= limits::CHANGE_DEPS_MAX {
            return Err(EditError::Heads);
        }
        if self.is_rolled_for(actor) {
            return self.edit_rolled(edit);
        }
        self.build().map_err(EditError::Broken)?;
        let native = native_actor(actor);
        if matches!(self.view, View::Full) {
            return self.edit_in_place(native, edit);
        }
        // On a copy: the change that comes out is only a draft of the one in the signed space.
        let mut draft = self.view().clone();
        draft.set_actor(native);
        let (change, result) = transact(&mut draft, edit)?;
        let Some(change) = change else {
            return Ok((None, result));
        };
        let expanded = self.retarget(&change);
        Ok((Some(self.commit(expanded)?), result))
    }

    /// Makes a [pristine](Self::is_pristine) document read as `value` and returns the change; none if that is an empty
    /// object. The same as the edit [`Edit::Put`](edit::Edit::Put) in every respect but the work that it takes.
    ///
    /// # Errors
    /// [`EditError::Edit`] or [`EditError::Gate`]; nothing was changed.
    pub fn fill(
        &mut self,
        actor: &ActorId,
        value: &Value,
        types: &edit::FieldTypes,
    ) -> Result<Option<LocalChange>, EditError<edit::EditError>> {
        debug_assert!(self.is_pristine(), "only an empty document can be filled");
        let map = edit::put_into_empty(value, types).map_err(EditError::Edit)?;
        let Some(fresh) = Fresh::make(actor, &map).map_err(EditError::Gate)? else { return Ok(None) };
        let change = LocalChange { hash: fresh.hash, bytes: fresh.bytes.clone(), is_create: true };
        self.begin(fresh);
        Ok(Some(change))
    }

    /// Edits the visible document as [`edit::apply`] does; without Automerge where that comes to the same. `base` is what the
    /// writer had seen; none is the current version.
    ///
    /// # Errors
    /// As for [`local_edit`](Self::local_edit).
    pub fn edit(
        &mut self,
        actor: &ActorId,
        base: Option<&[automerge::ChangeHash]>,
        change: &edit::Edit,
        types: &edit::FieldTypes,
    ) -> Result<Option<LocalChange>, EditError<edit::EditError>> {
        if base.is_none()
            && self.is_plain()
            && self.void.is_empty()
            && !self.is_pristine()
            && self.heads.len() < limits::CHANGE_DEPS_MAX
            && edit::may_be_direct(change)
            && let Some(done) = self.full.edit(actor, |draft| edit::apply_directly(draft, change, types))
        {
            if let Some(change) = &done {
                self.put_last(change.hash, change.bytes.len());
            }
            return Ok(done);
        }
        self.local_edit(actor, |tx| edit::apply(tx, base, change, types)).map(|(change, _)| change)
    }

    /// Returns the places in which a change that was made here writes, a position in a list or a text as [`ANY`](crate::op::ANY);
    /// none if they cannot be told.
    #[must_use]
    pub fn places_of(&self, change: &LocalChange) -> Option<BTreeSet<Vec<String>>> {
        let change = Change::try_from(&*change.bytes).ok()?;
        let operations = change.decode().operations;
        let path = |object: &OpId| match &self.view {
            View::Rolled(rolled) => guarded(|| gate::base_path(rolled.doc(), object)).ok().flatten(),
            View::Full | View::Plain(_) | View::Transplanted(_) => self.full.path_of(object),
        };
        let mut places = BTreeSet::new();
        let located = gate::located(&operations, change.start_op().get(), change.actor_id());
        let are_known = gate::all_places(located, path, |place| {
            places.insert(place.iter().map(|step| step.clone().into_owned()).collect());
            true
        });
        are_known.then_some(places)
    }

    /// Makes an empty change that depends on all heads: it says that the document is there again, after a delete, with the
    /// content that it had.
    ///
    /// # Errors
    /// [`EditError::Gate`], [`EditError::Heads`] or [`EditError::Broken`]; nothing was changed.
    pub fn touch<E>(&mut self, actor: &ActorId) -> Result<LocalChange, EditError<E>> {
        self.build().map_err(EditError::Broken)?;
        if self.heads.len() >= limits::CHANGE_DEPS_MAX {
            return Err(EditError::Heads);
        }
        let deps = self.heads.iter().map(native_hash).collect();
        let touch = self.follow(native_actor(actor), deps);
        self.commit(touch)
    }

    /// Makes an empty change that depends on as many heads as it may, if there are more than
    /// [`limits::DOC_HEADS_MAX`]: otherwise every later change would carry them all. Call it again until it returns
    /// `None`.
    ///
    /// # Errors
    /// [`EditError::Gate`] or [`EditError::Broken`]; nothing was changed.
    pub fn merge_heads(&mut self, actor: &ActorId) -> Result<Option<LocalChange>, EditError<std::convert::Infallible>> {
        if self.heads.len() <= limits::DOC_HEADS_MAX {
            return Ok(None);
        }
        self.build().map_err(EditError::Broken)?;
        // One place is kept for the actor's own last change.
        let deps: Vec<_> = self.heads.iter().take(limits::CHANGE_DEPS_MAX - 1).map(native_hash).collect();
        let merge = self.follow(native_actor(actor), deps);
        match self.commit::<NoEdit>(merge) {
            Ok(change) => Ok(Some(change)),
            Err(EditError::Gate(error)) => Err(EditError::Gate(error)),
            Err(EditError::Heads) => Err(EditError::Heads),
            Err(EditError::Broken(error)) => Err(EditError::Broken(error)),
            Err(EditError::Edit(never)) => match never {},
        }
    }

    /// The usual case: nothing is void, so the transaction's change is the one to sign.
    fn edit_in_place<R, E>(
        &mut self,
        actor: automerge::ActorId,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<(Option<LocalChange>, R), EditError<E>> {
        let full = self.full.get_mut();
        if *full.get_actor() != actor {
            full.set_actor(actor);
        }
        let (change, result) = transact(full, edit).inspect_err(|error| {
            if let EditError::Broken(panic) = error {
                self.broken = Some(panic.clone());
            }
        })?;
        let Some(change) = change else {
            return Ok((None, result));
        };
        if let Err(error) = check(self.full.get(), &change) {
            self.undo(&change)?;
            return Err(EditError::Gate(error));
        }
        let local = LocalChange::of(&change);
        self.heads.clear();
        self.heads.extend(self.full.get().get_heads().iter().map(change_hash));
        self.value_bytes += local.bytes.len();
        self.refresh_deleted();
        Ok((Some(local), result))
    }

    /// The same where the history is long and not loaded, for an actor for whom [that can be](Self::is_rolled_for).
    fn edit_rolled<R, E>(
        &mut self,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<(Option<LocalChange>, R), EditError<E>> {
        let View::Rolled(rolled) = &mut self.view else {
            return Err(EditError::Broken("the document is not rolled over".to_owned()));
        };
        let done = transact(rolled.doc_mut(), edit);
        let (change, result) = done.inspect_err(|error| {
            if let EditError::Broken(panic) = error {
                self.broken = Some(panic.clone());
            }
        })?;
        let Some(change) = change else {
            return Ok((None, result));
        };
        let heads: Vec<_> = self.heads.iter().map(native_hash).collect();
        let signed = guarded(|| rolled.signed(&change, &heads)).map_err(EditError::Broken)?;
        if let Err(error) = check(rolled.doc(), &signed) {
            // The whole document never saw it.
            self.build().map_err(EditError::Broken)?;
            return Err(EditError::Gate(error));
        }
        rolled.keep(&signed, &change);
        let local = LocalChange::of(&signed);
        self.full.note(local.hash, local.bytes.clone());
        self.put_last(local.hash, local.bytes.len());
        Ok((Some(local), result))
    }

    /// Takes the last change out again, by building the document without it: the rare way back from an edit that
    /// turned out too large only when it was encoded.
    fn undo<E>(&mut self, last: &Change) -> Result<(), EditError<E>> {
        let rebuilt = guarded(|| {
            let changes = self.full.get().get_changes(&[]).into_iter().filter(|change| change.hash() != last.hash());
            view::from_changes(changes.collect())
        });
        match rebuilt.unwrap_or_else(Err) {
            Ok(full) => {
                self.full = full.into();
                Ok(())
            }
            Err(error) => {
                self.broken = Some(error.clone());
                Err(EditError::Broken(error))
            }
        }
    }

    /// An empty change of an actor after `deps` and its own last change.
    fn follow(&self, actor: automerge::ActorId, mut deps: Vec<automerge::ChangeHash>) -> ExpandedChange {
        let last = self.full.get().get_changes_meta(&[]).into_iter().filter(|meta| *meta.actor == actor);
        let last = last.max_by_key(|meta| meta.seq).map(|meta| (meta.seq, meta.hash));
        deps.extend(last.map(|(_, hash)| hash));
        deps.sort_unstable();
        deps.dedup();
        let top =
            deps.iter().filter_map(|dep| self.full.get().get_change_meta_by_hash(dep)).map(|meta| meta.max_op).max();
        bare_change(actor, last.map_or(0, |(seq, _)| seq) + 1, top.unwrap_or(0), Vec::new(), deps)
    }

    /// Carries a change that was made on the view into the signed space. Operation ids are the same there, except that
    /// those of the change itself have to lie above its ancestors', void ones included.
    fn retarget(&self, draft: &Change) -> ExpandedChange {
        let deps = self.heads.iter().map(native_hash).collect();
        let mut change = self.follow(draft.actor_id().clone(), deps);
        let (from, to) = (draft.start_op().get(), change.start_op.get());
        let moved = |id: &mut OpId| {
            // All earlier operations of the view have smaller numbers.
            if id.0 >= from && id.1 == *draft.actor_id() {
                id.0 = id.0 - from + to;
            }
        };
        change.operations = draft.decode().operations;
        for op in &mut change.operations {
            if let ObjectId::Id(object) = &mut op.obj {
                moved(object);
            }
            if let Key::Seq(ElementId::Id(element)) = &mut op.key {
                moved(element);
            }
            let mut preds: Vec<OpId> = op.pred.iter().cloned().collect();
            preds.iter_mut().for_each(moved);
            op.pred = preds.into();
        }
        change
    }

    /// Takes in a change that was made for the signed space.
    fn commit<E>(&mut self, change: ExpandedChange) -> Result<LocalChange, EditError<E>> {
        let (full, change) = guarded(|| {
            let change = Change::from(change);
            let mut full = self.full.get().clone();
            view::apply_all(&mut full, vec![change.clone()]).map(|()| (full, change))
        })
        .unwrap_or_else(Err)
        .map_err(EditError::Broken)?;
        check(&full, &change).map_err(EditError::Gate)?;
        self.take_in(full, std::slice::from_ref(&change)).map_err(|error| EditError::Broken(error.to_string()))?;
        Ok(LocalChange::of(&change))
    }
}

impl LocalChange {
    fn of(change: &Change) -> Self {
        Self {
            hash: change_hash(&change.hash()),
            bytes: Bytes::copy_from_slice(change.raw_bytes()),
            is_create: change.deps().is_empty(),
        }
    }
}

/// Runs an edit as one transaction and returns the change, if it is one.
fn transact<R, E>(
    doc: &mut Automerge,
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
) -> Result<(Option<Change>, R), EditError<E>> {
    let mut transaction = guarded(|| doc.transaction()).map_err(EditError::Broken)?;
    // The transaction stays outside, so that a panic does not roll it back while unwinding: a second one would abort.
    let result = match guarded(|| edit(&mut transaction)) {
        Ok(Ok(result)) if transaction.pending_ops() as u64 <= limits::CHANGE_OPS_MAX => result,
        other => {
            let rolled_back = guarded(|| transaction.rollback());
            return Err(match (other, rolled_back) {
                (Err(panic), _) | (_, Err(panic)) => EditError::Broken(panic),
                (Ok(Ok(_)), Ok(_)) => EditError::Gate(GateError::Limit("operations")),
                (Ok(Err(error)), Ok(_)) => EditError::Edit(error),
            });
        }
    };
    let hash =
        guarded(|| transaction.commit_with(CommitOptions::default().with_time(0)).0).map_err(EditError::Broken)?;
    let change =
        guarded(|| hash.map(|hash| doc.get_change_by_hash(&hash).ok_or(AutomergeError::InvalidHash(hash))).transpose());
    match change {
        Ok(Ok(change)) => Ok((change, result)),
        Ok(Err(error)) => Err(EditError::Broken(error.to_string())),
        Err(panic) => Err(EditError::Broken(panic)),
    }
}

/// The bounds that an honest change can break.
fn check(doc: &Automerge, change: &Change) -> Result<(), GateError> {
    let scan = gate::prescan(change.raw_bytes())?;
    if scan.contents.objects && !gate::depth_fits(doc, change) {
        return Err(GateError::Depth);
    }
    Ok(())
}
