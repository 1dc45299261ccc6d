//! [`Audit`] in terms of HTTP calls.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;

use super::Client;
use super::calls::{Query, VERIFY_WAIT, quoted};
use super::transport::Call;
use folkmoot_core::id::OpId;

use crate::api::{Audit, AuditPage, AuditQuery, AuditStatus, AuditSubject, AuditVerifyReport, Explanation, Result};

#[async_trait]
impl Audit for Client {
    async fn audit(&self, query: &AuditQuery) -> Result<AuditPage> {
        let wait = query.wait.min(AuditQuery::WAIT_MAX);
        let path = Query::new("/v1/audit".to_owned())
            .add("principal", query.principal.as_ref())
            .add("collection", query.collection.as_ref())
            .add("action", query.action)
            .add("class", query.class)
            .add("decision", query.decision)
            .add("since", query.since)
            .add("until", query.until)
            .add("layer", query.layer)
            .add("limit", query.limit)
            .add("after", query.after.as_ref().map(|after| after.as_str()))
            .add("wait", (wait > Duration::ZERO).then(|| humantime::format_duration(wait).to_string()))
            .0;
        let mut call = Call::new(Method::GET, path);
        call.wait += wait;
        self.transport.send(&call).await?.json()
    }

    async fn audit_status(&self) -> Result<AuditStatus> {
        self.fetch("/v1/audit/status".to_owned()).await
    }

    async fn audit_proof(&self, subject: &AuditSubject) -> Result<Bytes> {
        let mut call = Call::new(Method::GET, format!("/v1/audit/proofs/{}", quoted(&subject.to_string())));
        call.wait = VERIFY_WAIT;
        Ok(self.transport.send(&call).await?.body)
    }

    async fn why(&self, op: &OpId) -> Result<Explanation> {
        let mut call = Call::new(Method::GET, format!("/v1/audit/why/{op}"));
        call.wait = VERIFY_WAIT;
        self.transport.send(&call).await?.json()
    }

    async fn audit_verify(&self) -> Result<AuditVerifyReport> {
        let mut call = Call::new(Method::POST, "/v1/audit/verify".to_owned());
        call.wait = VERIFY_WAIT;
        self.transport.send(&call).await?.json()
    }
}
