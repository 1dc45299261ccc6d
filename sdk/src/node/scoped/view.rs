//! What a caller may, where it is asked, and the record of what was refused.

use std::sync::Arc;

use folkmoot_core::audit::{AuditDecision, AuditMethod, Event};
use folkmoot_core::authority::{Action, Policy, Readable, TokenLimits};
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{CollectionName, DocId, OpId, PrincipalId};
use folkmoot_core::op::FieldRights;
use folkmoot_core::replica::WriteLimits;

use super::super::Node;
use super::super::audit::Who;
use super::super::convert::not_found;
use crate::api::{Edit, Error, ErrorCode, Result};

/// What is written at once: every action of it is checked.
const WRITES: [Action; 3] = [Action::Create, Action::Update, Action::Delete];

/// What the caller may at this moment.
pub(super) struct View {
    pub(super) policy: Arc<Policy>,
    pub(super) limits: TokenLimits,
    pub(super) statement: Option<OpId>,
    pub(super) principal: PrincipalId,
    pub(super) now: Hlc,
    /// Whose log tells what was refused.
    pub(super) node: Node,
}

impl View {
    /// Returns who asks.
    pub(super) fn who(&self) -> Who {
        let method = if self.statement.is_some() { AuditMethod::Token } else { AuditMethod::App };
        Who { principal: self.principal, method, credential: self.statement }
    }

    /// Returns the error of what is not allowed, and records that it was tried.
    pub(super) fn denied(
        &self,
        action: Action,
        place: &str,
        collection: Option<&CollectionName>,
        doc: Option<&DocId>,
    ) -> Error {
        let why = format!("no grant gives the right to {action} {place}");
        self.note_denied(action, &why, collection, doc);
        Error::new(ErrorCode::NotAllowed, why).hint("`folkmoot can` tells what may be done; an admin grants more")
    }

    /// Counts and records that something was tried in vain.
    fn note_denied(&self, action: Action, why: &str, collection: Option<&CollectionName>, doc: Option<&DocId>) {
        metrics::counter!("folkmoot_access_denied_total", "action" => action.name()).increment(1);
        let Who { principal, method, credential } = self.who();
        let event = Event::new(action.into(), AuditDecision::Denied)
            .by(Some(principal), method, credential)
            .on(collection.cloned(), doc.cloned());
        self.node.inner.note(event.because(why));
    }

    pub(super) fn may(&self, action: Action, collection: &CollectionName, doc: Option<&DocId>) -> bool {
        self.limits.allow(action, collection, doc) && self.policy.may(self.principal, action, collection, doc, self.now)
    }

    /// Returns to which fields of a document it may do something, or without one of each of the collection.
    pub(super) fn fields(&self, action: Action, collection: &CollectionName, doc: Option<&DocId>) -> FieldRights {
        if !self.limits.reach(action, collection, doc) {
            return FieldRights::any_of([]);
        }
        let given = self.policy.fields(self.principal, action, collection, doc, self.now);
        given.within(self.limits.target.fields.clone())
    }

    /// Returns whether it sees each document of a collection wholly or not at all.
    pub(super) fn sees_whole(&self, collection: &CollectionName) -> bool {
        self.limits.target.fields.is_all() && self.policy.sees_whole(self.principal, collection, self.now)
    }

    /// Returns what a write may read and write at most: the replica asks what the principal may, and does not know of tokens.
    pub(super) fn write_limits(&self) -> WriteLimits {
        let fields = &self.limits.target.fields;
        let read = self.limits.actions.has(Action::Read).then(|| fields.clone());
        WriteLimits { read, write: fields.clone() }
    }

    pub(super) fn may_everywhere(&self, action: Action) -> bool {
        self.limits.allow_everywhere(action) && self.policy.may_everywhere(self.principal, action, self.now)
    }

    pub(super) fn readable(&self, collection: &CollectionName) -> Readable {
        self.limits.narrow(self.policy.readable(self.principal, collection, self.now), collection)
    }

    /// Whether there is anything that it may do with documents of the collection.
    pub(super) fn knows(&self, collection: &CollectionName) -> bool {
        let mut some = [Action::Read, Action::Administer].into_iter().chain(WRITES);
        some.any(|action| self.may_somewhere(action, collection))
    }

    /// Whether it may do something with some document of the collection.
    pub(super) fn may_somewhere(&self, action: Action, collection: &CollectionName) -> bool {
        self.limits.target.touches(collection)
            && self.limits.actions.has(action)
            && self.policy.may_somewhere(self.principal, action, collection, self.now)
    }

    /// Checks that it may do something to the cluster or to all collections.
    pub(super) fn demand_everywhere(&self, action: Action) -> Result<()> {
        if self.may_everywhere(action) { Ok(()) } else { Err(self.denied(action, "on everything", None, None)) }
    }

    /// Checks that it may do something to a whole collection.
    pub(super) fn demand(&self, action: Action, collection: &CollectionName) -> Result<()> {
        if self.may(action, collection, None) {
            return Ok(());
        }
        Err(self.denied(action, &format!("on {collection}"), Some(collection), None))
    }

    /// Checks that it may do something in the collection. Otherwise nothing is told of it, not even whether it exists.
    pub(super) fn demand_some(&self, collection: &CollectionName) -> Result<()> {
        if self.knows(collection) {
            return Ok(());
        }
        Err(self.denied(Action::Read, &format!("on {collection}"), Some(collection), None))
    }

    /// Checks that it may read a document, at least in part, and returns in which; where it may do something else only, the
    /// document is not found.
    pub(super) fn demand_read(&self, collection: &CollectionName, id: &DocId) -> Result<FieldRights> {
        let fields = self.fields(Action::Read, collection, Some(id));
        if !fields.are_none() {
            return Ok(fields);
        }
        self.demand_some(collection)?;
        let why = format!("no grant gives the right to read {id} in {collection}");
        self.note_denied(Action::Read, &why, Some(collection), Some(id));
        Err(not_found(id))
    }

    /// Checks that it may write a document in some way; in which is told by the replica, which knows whether it exists.
    pub(super) fn demand_write(&self, collection: &CollectionName, edit: &Edit) -> Result<()> {
        let (wanted, doc) = Self::wanted(edit);
        // To delete a document is to touch all of it.
        let may = |action: Action| match action {
            Action::Delete => self.may(action, collection, doc),
            _ => !self.fields(action, collection, doc).are_none(),
        };
        if wanted.iter().any(|action| may(*action)) {
            // A token gives less than its principal may, and the replica does not know of it: all that the edit could turn
            // out to be must be within.
            let limited = wanted.iter().find(|action| !self.limits.reach(**action, collection, doc));
            return limited.map_or(Ok(()), |action| {
                Err(self.denied(*action, &format!("on {collection}, by this token"), Some(collection), doc))
            });
        }
        let action = wanted.first().copied().unwrap_or(Action::Update);
        let place = format!("on {} in {collection}", doc.map_or("a new document", DocId::as_str));
        Err(self.denied(action, &place, Some(collection), doc))
    }

    /// Returns what an edit could turn out to be, and of which document if that is known.
    pub(super) fn wanted(edit: &Edit) -> (&'static [Action], Option<&DocId>) {
        match edit {
            Edit::Create { id, .. } => (&[Action::Create], id.as_ref()),
            Edit::Put { id, .. } => (&[Action::Create, Action::Update], Some(id)),
            Edit::Patch { id, .. } => (&[Action::Update], Some(id)),
            Edit::Delete { id } => (&[Action::Delete], Some(id)),
        }
    }

    pub(super) fn note_each_refused<T>(&self, collection: &CollectionName, tried: &[Tried], outcomes: &[Result<T>]) {
        for (tried, outcome) in tried.iter().zip(outcomes) {
            self.note_refused(collection, tried, outcome);
        }
    }

    /// Records that the replica, which knows the document and its fields, did not allow an edit.
    pub(super) fn note_refused<T>(&self, collection: &CollectionName, tried: &Tried, outcome: &Result<T>) {
        let Some(error) = outcome.as_ref().err().filter(|error| error.code() == ErrorCode::NotAllowed) else { return };
        self.note_denied(tried.action, &error.to_string(), Some(collection), tried.doc.as_ref());
    }
}

/// What an edit was to do, for the record if it is refused.
pub(super) struct Tried {
    action: Action,
    doc: Option<DocId>,
}

impl Tried {
    pub(super) fn of(edit: &Edit) -> Self {
        let (wanted, doc) = View::wanted(edit);
        // What replaces a document is refused for what it changes.
        Self { action: wanted.last().copied().unwrap_or(Action::Update), doc: doc.cloned() }
    }
}
