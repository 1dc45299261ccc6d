//! [`Authors`] in terms of HTTP calls.

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, OpId};
use http::Method;

use super::Client;
use super::access::taking_back;
use super::calls::Query;
use super::transport::Call;
use crate::api::{
    Approval, Approved, AuthorInfo, Authors, NodeRotation, Replacement, Result, Revocation, RevokeOptions, Succession,
    SuccessionBasis, Timestamp, Withdrawn,
};
use crate::wire::ReplaceAuthor;

#[async_trait]
impl Authors for Client {
    async fn authors(&self) -> Result<Vec<AuthorInfo>> {
        self.items("/v1/authors".to_owned()).await
    }

    async fn revoke_author(&self, key: &AuthorKey, options: &RevokeOptions) -> Result<Revocation> {
        self.transport.send(&taking_back(format!("/v1/authors/{key}"), options)).await?.json()
    }

    async fn replace_author(&self, old: &AuthorKey, new: &AuthorKey) -> Result<Replacement> {
        self.make(format!("/v1/authors/{old}/replacement"), &ReplaceAuthor { new: *new }).await
    }

    async fn rotate_node(&self) -> Result<NodeRotation> {
        self.transport.send(&Call::new(Method::POST, "/v1/authors".to_owned())).await?.json()
    }

    async fn succession_basis(&self, until: Option<Timestamp>) -> Result<SuccessionBasis> {
        self.fetch(Query::new("/v1/owners".to_owned()).add("until", until).0).await
    }

    async fn succeed(&self, op: Bytes) -> Result<Succession> {
        let mut call =
            Call::new(Method::POST, "/v1/owners".to_owned()).header("content-type", "application/octet-stream")?;
        call.body = op;
        self.transport.send(&call).await?.json()
    }

    async fn approvals(&self) -> Result<Vec<Approval>> {
        self.items("/v1/approvals".to_owned()).await
    }

    async fn approve(&self, op: &OpId) -> Result<Approved> {
        self.transport.send(&Call::new(Method::POST, format!("/v1/approvals/{op}"))).await?.json()
    }

    async fn withdraw(&self, op: &OpId) -> Result<Withdrawn> {
        self.transport.send(&Call::new(Method::DELETE, format!("/v1/approvals/{op}"))).await?.json()
    }
}
