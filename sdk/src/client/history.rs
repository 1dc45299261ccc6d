//! [`Histories`] in terms of HTTP calls.

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::id::{CollectionName, DocId};
use http::Method;

use super::Client;
use super::calls::{Query, document_path};
use super::transport::Call;
use crate::api::{At, Diff, Histories, HistoryPage, HistoryQuery, Result, WriteOptions, WriteOutcome};

#[async_trait]
impl Histories for Client {
    async fn history(&self, collection: &CollectionName, id: &DocId, query: &HistoryQuery) -> Result<HistoryPage> {
        let path = Query::new(format!("{}/history", document_path(collection, id)))
            .add("after", query.after.as_ref())
            .add("limit", query.limit);
        self.fetch(path.0).await
    }

    async fn diff(&self, collection: &CollectionName, id: &DocId, from: &At, to: Option<&At>) -> Result<Diff> {
        let path = Query::new(format!("{}/diff", document_path(collection, id))).add("from", Some(from)).add("to", to);
        self.fetch(path.0).await
    }

    async fn restore(
        &self,
        collection: &CollectionName,
        id: &DocId,
        at: Option<&At>,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        let path = Query::new(format!("{}/restore", document_path(collection, id))).add("at", at).0;
        self.send_write(Call::new(Method::POST, path), options).await
    }

    async fn automerge(&self, collection: &CollectionName, id: &DocId) -> Result<Bytes> {
        let call = Call::new(Method::GET, format!("{}/automerge", document_path(collection, id)));
        Ok(self.transport.send(&call).await?.body)
    }
}
