//! What documents were, as far as a principal may know.

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::authority::Action;
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::op::FieldRights;

use super::super::history::Rights;
use super::Scoped;
use super::view::{Tried, View};
use crate::api::{At, Diff, Edit, Histories, HistoryPage, HistoryQuery, Result, WriteOptions, WriteOutcome};

impl View {
    /// Checks that the caller may read a document and what it was, at least in part, and returns in which.
    pub(super) fn demand_history(&self, collection: &CollectionName, id: &DocId) -> Result<Rights> {
        let read = self.demand_read(collection, id)?;
        let history = self.fields(Action::History, collection, Some(id));
        if history.are_none() {
            return Err(self.denied(Action::History, &format!("of {id} in {collection}"), Some(collection), Some(id)));
        }
        Ok(vec![read, history])
    }
}

#[async_trait]
impl Histories for Scoped {
    async fn history(&self, collection: &CollectionName, id: &DocId, query: &HistoryQuery) -> Result<HistoryPage> {
        let view = self.view()?;
        let rights = view.demand_history(collection, id)?;
        self.node.inner.history(Some(view.who()), rights, (collection, id), query).await
    }

    async fn diff(&self, collection: &CollectionName, id: &DocId, from: &At, to: Option<&At>) -> Result<Diff> {
        let view = self.view()?;
        let rights = view.demand_history(collection, id)?;
        self.node.inner.diff(Some(view.who()), rights, (collection, id), from, to).await
    }

    async fn restore(
        &self,
        collection: &CollectionName,
        id: &DocId,
        at: Option<&At>,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        let view = self.view()?;
        let rights = view.demand_history(collection, id)?;
        let edit = Edit::Put { id: id.clone(), json: Bytes::new() };
        view.demand_write(collection, &edit)?;
        let tried = Tried::of(&edit);
        let writer = Some((self.principal, view.write_limits()));
        let written = self.node.restore_for(writer, rights, (collection, id), at, options).await;
        view.note_refused(collection, &tried, &written);
        written
    }

    async fn automerge(&self, collection: &CollectionName, id: &DocId) -> Result<Bytes> {
        let view = self.view()?;
        let rights = view.demand_history(collection, id)?;
        // A field cannot be taken out of a file without its changes becoming others.
        if !rights.iter().all(FieldRights::are_all) {
            let place = format!("of every field of {id} in {collection}, and a file leaves none out");
            return Err(view.denied(Action::History, &place, Some(collection), Some(id)));
        }
        self.node.inner.automerge(Some(view.who()), (collection, id)).await
    }
}
