//! Queries of a principal: what it may not see is not in any document that is looked at.

use async_trait::async_trait;
use folkmoot_core::authority::{Action, Readable};
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::op::FieldRights;
use futures_util::stream::BoxStream;

use super::super::query::Sight;
use super::Scoped;
use super::view::View;
use crate::api::{
    AggregatePage, AggregateQuery, FindPage, FindQuery, IndexInfo, Live, LiveEvent, Queries, Result, follow,
};

/// Says what the caller may see of each document of a collection, at this moment.
pub(super) fn sight(view: View, collection: &CollectionName) -> Sight {
    // Asked of each document only where they differ.
    if view.readable(collection) == Readable::All && view.fields(Action::Read, collection, None).are_all() {
        return Sight::everything();
    }
    let (collection, is_whole) = (collection.clone(), view.sees_whole(collection));
    let of = move |doc: &DocId| -> FieldRights { view.fields(Action::Read, &collection, Some(doc)) };
    Sight { of: Box::new(of), is_whole }
}

impl Live for Scoped {
    fn live(&self, collection: &CollectionName, query: FindQuery) -> BoxStream<'static, Result<LiveEvent>> {
        follow(self.clone(), collection.clone(), query)
    }
}

/// As [`sight`], of documents as they were. A part of a history shows nothing here: which part it would be of each document is no one set of fields.
fn sight_of_then(view: View, collection: &CollectionName) -> Sight {
    let collection = collection.clone();
    let of = move |doc: &DocId| -> FieldRights {
        let read = view.fields(Action::Read, &collection, Some(doc));
        let history = view.fields(Action::History, &collection, Some(doc));
        if history.are_all() || history == read { read } else { FieldRights::any_of([]) }
    };
    Sight { of: Box::new(of), is_whole: false }
}

impl View {
    /// Returns what the caller may see of a collection, as it is or as it was.
    ///
    /// # Errors
    /// That it may see nothing of it as it was.
    pub(super) fn sight(self, collection: &CollectionName, is_past: bool) -> Result<Sight> {
        if !is_past {
            return Ok(sight(self, collection));
        }
        if !self.may_somewhere(Action::History, collection) {
            return Err(self.denied(Action::History, &format!("of {collection}"), Some(collection), None));
        }
        Ok(sight_of_then(self, collection))
    }
}

#[async_trait]
impl Queries for Scoped {
    async fn find(&self, collection: &CollectionName, query: &FindQuery) -> Result<FindPage> {
        let view = self.view()?;
        view.demand_some(collection)?;
        let who = Some(view.who());
        self.node.inner.find_documents(who, view.sight(collection, query.at.is_some())?, collection, query).await
    }

    async fn aggregate(&self, collection: &CollectionName, query: &AggregateQuery) -> Result<AggregatePage> {
        let view = self.view()?;
        view.demand_some(collection)?;
        let who = Some(view.who());
        self.node.inner.aggregate_documents(who, view.sight(collection, query.at.is_some())?, collection, query).await
    }

    async fn indexes(&self, collection: &CollectionName) -> Result<Vec<IndexInfo>> {
        let view = self.view()?;
        view.demand_some(collection)?;
        // How many entries there are tells of all documents.
        if view.readable(collection) != Readable::All {
            return Err(view.denied(Action::Read, &format!("all of {collection}"), Some(collection), None));
        }
        self.node.indexes(collection).await
    }
}
