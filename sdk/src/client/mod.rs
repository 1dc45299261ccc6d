//! The remote client: [`Database`](crate::Database) over HTTP/1.1.
//!
//! It knows several nodes and asks the next one when one cannot answer. Each write gets an idempotency key, so that
//! asking again is always safe, also at another node.

mod access;
mod backoff;
mod calls;
mod events;
mod tls;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use self::transport::Transport;
use crate::api::{Error, ErrorCode, Result};

/// A database elsewhere. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("urls", &self.transport.urls()).finish_non_exhaustive()
    }
}

/// How to reach a database. The token is never shown.
#[derive(Clone)]
pub struct ClientBuilder {
    urls: Vec<String>,
    token: Option<String>,
    trusted: Option<Vec<u8>>,
    timeout: Duration,
    attempts: u32,
}

/// How long one attempt may take, unless the request itself waits.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Attempts of one call over all nodes: with the back-off about three seconds.
const ATTEMPTS_DEFAULT: u32 = 6;

impl Client {
    /// Begins a client of the node at this address (`http://host:port` or `https://host:port`).
    #[must_use]
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            urls: vec![url.into()],
            token: None,
            trusted: None,
            timeout: TIMEOUT_DEFAULT,
            attempts: ATTEMPTS_DEFAULT,
        }
    }

    /// Returns the addresses of the nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.transport.urls()
    }
}

impl ClientBuilder {
    /// Adds another node of the same cluster, asked when those before it cannot answer.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Sets the bearer token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets which certificates or authorities to believe, as PEM text, instead of the machine's authorities. A node that shows
    /// one of exactly these certificates is believed whatever its name.
    #[must_use]
    pub fn trust(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trusted = Some(pem.into());
        self
    }

    /// Sets how long one attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often a call is tried, over all nodes; at least once.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Makes the client. Nothing is sent yet. It must be used within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`] if an address is not `http://host:port` or `https://host:port` or no
    /// certificate is in what to trust, [`ErrorCode::InvalidHeader`] if the token
    /// cannot be sent.
    pub fn build(self) -> Result<Client> {
        let token = match self.token {
            Some(token) => {
                let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
                    Error::new(ErrorCode::InvalidHeader, "the token holds characters that no header can carry")
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let transport = Transport::new(&self.urls, token, self.trusted.as_deref(), self.timeout, self.attempts)?;
        Ok(Client { transport: Arc::new(transport) })
    }
}
