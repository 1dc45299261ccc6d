//! What whoever writes may write: asked before anything is signed, so that the verdict will not be against it.

use super::Replica;
use super::types::{WriteError, WriteLimits};
use crate::authority::{Action, Decision, Denial};
use crate::document::edit::{Edit, EditError, EditErrorKind, EditRights};
use crate::document::json::{self, Value};
use crate::document::{Document, LocalChange};
use crate::id::PrincipalId;
use crate::op::{FieldPaths, FieldRights};
use crate::store::keys::DocKey;

/// What somebody may with a document that it writes.
pub(super) struct WriteRights {
    edit: EditRights,
    /// Whether its grants are about some fields only: the header has to say which ones are touched.
    declares: bool,
}

/// The limits of a writer that has some.
pub(super) struct Limits(WriteRights);

impl Replica {
    /// Returns what a principal may do with a document, if the verdict on a write will not be against it: by its own right, and by
    /// our duty to write for it.
    pub(super) fn write_rights(
        &self,
        principal: PrincipalId,
        action: Action,
        key: &DocKey,
        limits: &WriteLimits,
    ) -> Result<WriteRights, WriteError> {
        let (collection, doc, now) = (&key.collection, &key.doc, self.clock.last());
        let own = principal == self.identity.principal || self.owner_principal() == Some(principal);
        if !own
            && let Decision::Denied(denial) =
                self.authority.may_act_for(self.identity.principal, principal, collection, doc, now)
        {
            return Err(WriteError::NotAllowed(format!("for {principal}: {denial}")));
        }
        let fields = |action| self.authority.fields(principal, action, collection, Some(doc), now);
        let (given, declares) = match self.authority.may(principal, action, collection, Some(doc), now) {
            Decision::Allowed { .. } => (FieldRights::all(), false),
            Decision::Denied(Denial::Withheld) if action != Action::Delete => (fields(action), true),
            Decision::Denied(denial) => return Err(WriteError::NotAllowed(denial.to_string())),
        };
        let read = match &limits.read {
            Some(limit) => fields(Action::Read).within(limit.clone()),
            None => FieldRights::any_of([]),
        };
        Ok(WriteRights { edit: EditRights { read, write: given.within(limits.write.clone()) }, declares })
    }
}

impl Limits {
    /// Returns the limits of a writer; none if it has none.
    pub(super) fn of(rights: WriteRights) -> Option<Self> {
        (rights.declares || !rights.edit.are_all()).then_some(Self(rights))
    }

    /// Returns what its writer may read.
    pub(super) const fn sight(&self) -> &FieldRights {
        &self.0.edit.read
    }

    /// Returns an edit as it is to be made: without touching what is withheld from its author. `base` is the version that the
    /// author had seen, none for the current one.
    ///
    /// # Errors
    /// [`EditErrorKind::Withheld`], with the place.
    pub(super) fn edit(
        &self,
        document: &Document,
        base: Option<&[automerge::ChangeHash]>,
        edit: &Edit,
    ) -> Result<Edit, EditError> {
        let before = match (edit, base) {
            (Edit::Put(_), _) if document.is_pristine() => Value::Null,
            (Edit::Put(_), Some(base)) => json::to_value_at(document.view(), base),
            (Edit::Put(_), None) => {
                let parsed = json::parse_within(&document.json(), json::Bounds::STORED);
                parsed.unwrap_or_else(|_| json::to_value(document.view()))
            }
            (Edit::MergePatch(_) | Edit::JsonPatch(_) | Edit::Ops(_), _) => Value::Null,
        };
        self.0.edit.limit(edit, &before)
    }

    /// Returns what the header is to declare of a change that was made, none if it need not declare anything.
    ///
    /// # Errors
    /// Those of [`EditRights::declaration`].
    pub(super) fn declaration(
        &self,
        document: &Document,
        change: &LocalChange,
    ) -> Result<Option<FieldPaths>, EditError> {
        let places = document.places_of(change).ok_or_else(|| EditError {
            kind: EditErrorKind::Engine,
            pointer: String::new(),
            reason: "cannot tell which fields the edit touches".to_owned(),
            hint: None,
            operation: None,
        })?;
        let fields = self.0.edit.declaration(&places)?;
        Ok(self.0.declares.then_some(fields))
    }
}
