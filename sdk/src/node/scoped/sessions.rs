//! Sessions of a principal: how far something is is told of what it may know of.

use std::time::Duration;

use async_trait::async_trait;

use super::Scoped;
use crate::api::{Result, SessionToken, Sessions, Touched};

#[async_trait]
impl Sessions for Scoped {
    async fn catch_up(&self, touched: &Touched, session: &SessionToken, timeout: Option<Duration>) -> Result<()> {
        self.view()?;
        self.node.inner.catch_up(touched, Some(session), timeout).await
    }

    async fn session(&self, touched: &Touched, seen: Option<&SessionToken>) -> Result<SessionToken> {
        let view = self.view()?;
        let is_known = touched.collection.as_ref().is_none_or(|collection| view.knows(collection));
        let cluster = Touched::cluster();
        self.node.inner.session_now(if is_known { touched } else { &cluster }, seen).await
    }
}
