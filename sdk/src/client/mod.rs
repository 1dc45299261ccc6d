//! The remote client: [`Database`](crate::Database) over HTTP/1.1.
//!
//! It knows several nodes and asks the next one when one cannot answer. Each write gets an idempotency key, so that
//! asking again is always safe, also at another node. What it has seen on one node it sees on every other: it carries the token of
//! its session along.

mod access;
mod audit;
mod authors;
mod backoff;
mod calls;
pub(crate) mod connections;
mod erasure;
mod events;
mod history;
mod live;
mod query;
mod sessions;
pub(crate) mod tls;
mod transport;
mod witness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use self::transport::{Carried, Transport};
use crate::api::{Error, ErrorCode, Result, SessionToken};

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

/// What a client shows of itself in each request.
#[derive(Clone)]
enum Shown {
    Nothing,
    Token(String),
    Password { name: String, password: String },
}

impl Shown {
    fn header(&self) -> Result<Option<http::HeaderValue>> {
        let text = match self {
            Self::Nothing => return Ok(None),
            Self::Token(token) => format!("Bearer {}", token.trim()),
            Self::Password { name, .. } if name.contains(':') => {
                let detail = "a name with a colon cannot be sent with a password: use the principal's id";
                return Err(Error::new(ErrorCode::InvalidParameter, detail));
            }
            Self::Password { name, password } => format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))),
        };
        let mut value = http::HeaderValue::from_str(&text)
            .map_err(|_| Error::new(ErrorCode::InvalidHeader, "the token holds characters that no header can carry"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// How to reach a database. What it shows of itself is never printed.
#[derive(Clone)]
pub struct ClientBuilder {
    urls: Vec<String>,
    shown: Shown,
    trusted: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    timeout: Duration,
    attempts: u32,
    session: Carrying,
}

/// What a client carries along from the beginning.
#[derive(Clone)]
enum Carrying {
    Nothing,
    Session(Option<SessionToken>),
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
            shown: Shown::Nothing,
            identity: None,
            trusted: None,
            timeout: TIMEOUT_DEFAULT,
            attempts: ATTEMPTS_DEFAULT,
            session: Carrying::Session(None),
        }
    }

    /// Returns the addresses of the nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.transport.urls()
    }

    /// Returns the token of what this client has seen so far, for another one that is to see no less; none before the first answer.
    #[must_use]
    pub fn seen(&self) -> Option<SessionToken> {
        self.transport.session()
    }
}

impl ClientBuilder {
    /// Adds another node of the same cluster, asked when those before it cannot answer.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Sets the bearer token: one of the cluster, or a JSON Web Token of an issuer that the nodes believe.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.shown = Shown::Token(token.into());
        self
    }

    /// Sets name and password of a user, instead of a token.
    #[must_use]
    pub fn password(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.shown = Shown::Password { name: name.into(), password: password.into() };
        self
    }

    /// Sets a certificate and its key, as PEM text, to show to nodes that ask for one. Without a token or password it says who
    /// the client is.
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
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

    /// Begins with what somebody else has seen: no node answers from an older state.
    ///
    /// A client carries a session along by itself: whichever of its nodes answers, it sees what it wrote and nothing older than what
    /// it read. A node that lacks something of that waits for it, some seconds, before the client asks the next one.
    #[must_use]
    pub fn session(mut self, session: SessionToken) -> Self {
        self.session = Carrying::Session(Some(session));
        self
    }

    /// Carries no session along: each node answers at once, from what it has.
    #[must_use]
    pub fn without_session(mut self) -> Self {
        self.session = Carrying::Nothing;
        self
    }

    /// Makes the client. Nothing is sent yet. It must be used within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`] if an address is not `http://host:port` or `https://host:port` or no
    /// certificate is in what to trust, [`ErrorCode::InvalidHeader`] if the token
    /// cannot be sent.
    pub fn build(self) -> Result<Client> {
        let identity = self.identity.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
        let trust = tls::Trust { given: self.trusted.as_deref(), identity };
        let carried = match self.session {
            Carrying::Nothing => Carried::No,
            Carrying::Session(session) => Carried::Yes(Mutex::new(session)),
        };
        let transport = Transport::new(&self.urls, self.shown.header()?, trust, self.timeout, self.attempts, carried)?;
        Ok(Client { transport: Arc::new(transport) })
    }
}
