//! The HTTP face of a database: what is asked is turned into calls of [`folkmoot::Database`], what comes back into answers.
//!
//! Domain errors are answers, never warp rejections: the only rejection that can happen is that no path matches.

mod access;
mod audit;
mod auth;
mod authors;
mod body;
mod bulk;
mod changes;
mod collections;
mod cors;
mod docs;
mod documents;
mod entrance;
mod erasure;
mod events;
mod files;
mod front;
mod guard;
mod history;
mod host;
mod live;
mod metrics;
mod openapi;
mod problem;
mod queries;
mod rates;
mod reply;
mod request;
mod routes;
mod sessions;
mod shell;
mod state;
mod tls;
mod witness;

#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use auth::OwnerToken;
pub(crate) use cors::Origins;
pub(crate) use entrance::Entrance;
pub(crate) use front::Front;
pub(crate) use metrics::Metrics;
pub(crate) use rates::{RateLimits, Rates};
pub(crate) use shell::{Exposure, Listener, ShellError};
pub(crate) use tls::{ClientCertificates, Tls};

use folkmoot::Database;
use tokio::sync::{Semaphore, watch};

/// Bounds of the HTTP shell.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Connections open at once; more wait unaccepted.
    pub(crate) connections_max: usize,
    /// How long a new connection may stay silent.
    pub(crate) first_byte_timeout: Duration,
    /// How long a request's head may take, and how long a connection may idle between requests.
    pub(crate) header_timeout: Duration,
    /// How long a body may pause.
    pub(crate) body_idle_timeout: Duration,
    /// How long a body that is read whole may take.
    pub(crate) body_timeout: Duration,
    /// How long the node may take to begin its answer, once the body is here or while it comes.
    pub(crate) answer_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub(crate) write_timeout: Duration,
    /// How long requests may go on after shutdown has begun.
    pub(crate) shutdown_timeout: Duration,
}

/// What every handler can reach.
pub(crate) struct Context {
    /// The whole database: for the owner, and for what everybody may ask.
    pub(crate) database: Arc<dyn Database>,
    /// Finds out who somebody is.
    pub(crate) entrance: Box<dyn Entrance>,
    pub(crate) limits: Limits,
    pub(crate) rates: Arc<Rates>,
    pub(crate) metrics: Metrics,
    /// Whose pages may use the API from a browser.
    pub(crate) origins: Origins,
    /// Places of live connections.
    pub(crate) live: Arc<Semaphore>,
    /// Turns true when the server shuts down: whatever waits then ends.
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// Returns the places of live connections.
pub(crate) fn live_places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(live::CONNECTIONS_MAX))
}

impl Context {
    /// Waits until the server shuts down.
    pub(crate) async fn shut_down(&self) {
        let mut shutdown = self.shutdown.clone();
        // An error means that the sender is gone: nobody runs the server any more.
        let _ = shutdown.wait_for(|down| *down).await;
    }
}
