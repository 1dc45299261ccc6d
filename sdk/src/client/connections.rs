//! Connections over HTTP/1.1, kept open for a while, in the clear or by TLS.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::tls;
use crate::api::Result;

/// Idle connections are closed before a node closes them (its header time-out is 30 s).
const POOL_IDLE: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections without TLS where nobody speaks it: then nothing of it is loaded.
pub(crate) enum Connections {
    Clear(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// Whether somebody who is asked speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Clear,
    Tls,
}

impl Wanted {
    pub(crate) fn of<'a>(urls: impl IntoIterator<Item = &'a http::Uri>) -> Self {
        let encrypted = urls.into_iter().any(|url| url.scheme_str() == Some("https"));
        if encrypted { Self::Tls } else { Self::Clear }
    }
}

impl Connections {
    /// # Errors
    /// As [`tls::connector`].
    pub(crate) fn new(wanted: Wanted, trust: &tls::Trust<'_>) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(POOL_IDLE).pool_timer(TokioTimer::new()).timer(TokioTimer::new());
        Ok(match wanted {
            Wanted::Clear => Self::Clear(builder.build(connector)),
            Wanted::Tls => {
                connector.enforce_http(false);
                Self::Tls(builder.build(tls::connector(connector, trust)?))
            }
        })
    }

    /// Sends a request; redirections are not followed.
    pub(crate) async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        match self {
            Self::Clear(http) => http.request(request).await,
            Self::Tls(http) => http.request(request).await,
        }
    }
}
