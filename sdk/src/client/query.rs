//! [`Queries`] in terms of HTTP calls.

use async_trait::async_trait;
use folkmoot_core::id::CollectionName;
use http::Method;

use super::Client;
use super::calls::collection_path;
use super::transport::Call;
use crate::api::{AggregatePage, AggregateQuery, FindPage, FindQuery, IndexInfo, Queries, QueryPlan, Result};
use crate::wire;

#[async_trait]
impl Queries for Client {
    async fn find(&self, collection: &CollectionName, query: &FindQuery) -> Result<FindPage> {
        let call = Call::question(format!("{}/query", collection_path(collection))).json(query)?;
        let found: wire::FoundDocuments = self.transport.send(&call).await?.json()?;
        let items = found.items.into_iter().map(|item| item.into_document(collection.clone())).collect();
        Ok(FindPage { items, next: found.next, plan: found.plan })
    }

    async fn aggregate(&self, collection: &CollectionName, query: &AggregateQuery) -> Result<AggregatePage> {
        let call = Call::question(format!("{}/aggregate", collection_path(collection))).json(query)?;
        self.transport.send(&call).await?.json()
    }

    async fn explain(&self, collection: &CollectionName, query: &FindQuery) -> Result<QueryPlan> {
        let call = Call::question(format!("{}/explain", collection_path(collection))).json(query)?;
        self.transport.send(&call).await?.json()
    }

    async fn indexes(&self, collection: &CollectionName) -> Result<Vec<IndexInfo>> {
        let call = Call::new(Method::GET, format!("{}/indexes", collection_path(collection)));
        let found: wire::Items<IndexInfo> = self.transport.send(&call).await?.json()?;
        Ok(found.items)
    }
}
