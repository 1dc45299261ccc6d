//! [`Sessions`] in terms of HTTP calls.

use std::time::Duration;

use async_trait::async_trait;
use http::Method;

use super::Client;
use super::calls::{Query, with_common};
use super::transport::Call;
use crate::api::{Durability, Result, SessionToken, Sessions, Touched};
use crate::wire;

fn path(touched: &Touched) -> String {
    let query = Query::new("/v1/session".to_owned());
    query.add("collection", touched.collection.as_ref()).add("id", touched.id.as_ref()).0
}

#[async_trait]
impl Sessions for Client {
    async fn catch_up(&self, touched: &Touched, session: &SessionToken, timeout: Option<Duration>) -> Result<()> {
        let call = Call::new(Method::GET, path(touched));
        self.transport.send(&with_common(call, Some(session), Durability::Local, timeout)?).await?;
        Ok(())
    }

    async fn session(&self, touched: &Touched, seen: Option<&SessionToken>) -> Result<SessionToken> {
        let answer: wire::SessionAnswer = self.fetch(path(touched)).await?;
        Ok(seen.map_or_else(|| answer.session.clone(), |seen| answer.session.joined(seen)))
    }
}
