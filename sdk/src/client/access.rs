//! [`Access`] in terms of HTTP calls.

use async_trait::async_trait;
use folkmoot_core::id::OpId;
use http::Method;

use super::Client;
use super::calls::{Query, quoted};
use super::transport::Call;
use crate::api::{
    Access, AccessAnswer, AccessQuestion, Caller, GrantInfo, IssuedToken, MembershipInfo, NewCertificate, NewGrant,
    NewPassword, NewPrincipal, NewRole, NewToken, PrincipalInfo, PrincipalName, Result, Revocation, RevokeOptions,
    RoleInfo, Timestamp, TokenInfo,
};
use crate::wire::NewMember;

fn principal_path(name: &PrincipalName, rest: &str) -> String {
    format!("/v1/principals/{}{rest}", quoted(&name.to_string()))
}

pub(super) fn taking_back(path: String, options: &RevokeOptions) -> Call {
    let why = (!options.why.is_empty()).then_some(&options.why);
    let cascade = options.cascade.then_some(true);
    Call::new(Method::DELETE, Query::new(path).add("why", why).add("cascade", cascade).0)
}

impl Client {
    pub(super) async fn make<T: serde::de::DeserializeOwned>(
        &self,
        path: String,
        body: &impl serde::Serialize,
    ) -> Result<T> {
        let call = Call::new(Method::POST, path).json(body)?;
        self.transport.send(&call).await?.json()
    }
}

#[async_trait]
impl Access for Client {
    async fn caller(&self) -> Result<Caller> {
        self.fetch("/v1/caller".to_owned()).await
    }

    async fn principals(&self) -> Result<Vec<PrincipalInfo>> {
        self.items("/v1/principals".to_owned()).await
    }

    async fn principal(&self, name: &PrincipalName) -> Result<PrincipalInfo> {
        self.fetch(principal_path(name, "")).await
    }

    async fn add_principal(&self, new: &NewPrincipal) -> Result<PrincipalInfo> {
        self.make("/v1/principals".to_owned(), new).await
    }

    async fn remove_principal(&self, principal: &PrincipalName, options: &RevokeOptions) -> Result<Revocation> {
        self.transport.send(&taking_back(principal_path(principal, ""), options)).await?.json()
    }

    async fn roles(&self) -> Result<Vec<RoleInfo>> {
        self.items("/v1/roles".to_owned()).await
    }

    async fn add_role(&self, new: &NewRole) -> Result<RoleInfo> {
        self.make("/v1/roles".to_owned(), new).await
    }

    async fn grant(&self, principal: &PrincipalName, new: &NewGrant) -> Result<GrantInfo> {
        self.make(principal_path(principal, "/grants"), new).await
    }

    async fn join_group(
        &self,
        group: &PrincipalName,
        principal: &PrincipalName,
        until: Option<Timestamp>,
    ) -> Result<MembershipInfo> {
        let member = NewMember { principal: principal.to_string(), until };
        self.make(principal_path(group, "/members"), &member).await
    }

    async fn issue_token(&self, principal: &PrincipalName, new: &NewToken) -> Result<IssuedToken> {
        self.make(principal_path(principal, "/tokens"), new).await
    }

    async fn set_password(&self, principal: &PrincipalName, new: &NewPassword) -> Result<TokenInfo> {
        let call = Call::new(Method::PUT, principal_path(principal, "/password")).json(new)?;
        self.transport.send(&call).await?.json()
    }

    async fn trust_certificate(&self, principal: &PrincipalName, new: &NewCertificate) -> Result<TokenInfo> {
        self.make(principal_path(principal, "/certificates"), new).await
    }

    async fn revoke(&self, statement: &OpId, options: &RevokeOptions) -> Result<Revocation> {
        self.transport.send(&taking_back(format!("/v1/statements/{statement}"), options)).await?.json()
    }

    async fn readmit(&self, op: &OpId, transaction: u16) -> Result<Revocation> {
        let path = Query::new(format!("/v1/quarantine/{op}/release")).add("transaction", Some(transaction)).0;
        self.transport.send(&Call::new(Method::POST, path)).await?.json()
    }

    async fn can(&self, question: &AccessQuestion) -> Result<AccessAnswer> {
        let query = Query::new("/v1/can".to_owned())
            .add("action", Some(question.action))
            .add("principal", question.principal.as_ref())
            .add("collection", question.collection.as_ref())
            .add("id", question.id.as_ref())
            .add("field", question.field.as_ref());
        self.fetch(query.0).await
    }
}
