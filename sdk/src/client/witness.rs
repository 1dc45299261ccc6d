//! [`Witnesses`] in terms of HTTP calls.

use async_trait::async_trait;

use super::Client;
use super::access::taking_back;
use super::calls::quoted;
use crate::api::{NewWitnesses, Result, Revocation, RevokeOptions, Witness, Witnesses};
use crate::wire::Items;

#[async_trait]
impl Witnesses for Client {
    async fn witnesses(&self) -> Result<Vec<Witness>> {
        self.items("/v1/witnesses".to_owned()).await
    }

    async fn appoint_witnesses(&self, new: &NewWitnesses) -> Result<Vec<Witness>> {
        let made: Items<Witness> = self.make("/v1/witnesses".to_owned(), new).await?;
        Ok(made.items)
    }

    async fn dismiss_witness(&self, node: &str, options: &RevokeOptions) -> Result<Revocation> {
        let path = format!("/v1/witnesses/{}", quoted(node));
        self.transport.send(&taking_back(path, options)).await?.json()
    }
}
