//! [`Erasures`] in terms of HTTP calls.

use async_trait::async_trait;
use folkmoot_core::id::{CollectionName, OpId};

use super::Client;
use super::calls::{Query, collection_path};
use crate::api::{Erasure, Erasures, ErasuresPage, ErasuresQuery, NewErasure, Result};

#[async_trait]
impl Erasures for Client {
    async fn erase(&self, collection: &CollectionName, new: &NewErasure) -> Result<Erasure> {
        self.make(format!("{}/erase", collection_path(collection)), new).await
    }

    async fn erasures(&self, query: &ErasuresQuery) -> Result<ErasuresPage> {
        let query = Query::new("/v1/erasures".to_owned()).add("after", query.after.as_ref()).add("limit", query.limit);
        self.fetch(query.0).await
    }

    async fn erasure(&self, act: &OpId) -> Result<Erasure> {
        self.fetch(format!("/v1/erasures/{act}")).await
    }
}
