//! The accept loop: bounded connections, time-outs for slow clients, and a shutdown that ends.
//!
//! `warp::serve` has none of these: its connections have no timer at all and its shutdown waits without limit.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::Front;
use super::entrance::Arrival;
use super::guard::Guarded;
use super::metrics::Counted;
use super::tls::{Tls, TlsError};

/// Head of a request: room for an entity tag of the most heads that an edit can be made onto.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Requests at once over one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
const HTTP2_PING: Duration = Duration::from_secs(20);
/// After a failed accept (no file descriptors, say): do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    /// Anyone on the network could read the token and the data.
    #[error(
        "refusing to listen on {0} in the clear, where other machines could reach it: give a certificate and its key with \
         --tls-cert and --tls-key, or, behind something that speaks TLS, --insecure-listen"
    )]
    Exposed(SocketAddr),
    #[error("speak TLS")]
    Tls(#[from] TlsError),
    #[error("listen on {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// Whether the server may listen where other machines reach it, in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    LoopbackOnly,
    Anywhere,
}

impl Exposure {
    /// Checks whether the server may listen on this address.
    ///
    /// # Errors
    /// [`ShellError::Exposed`] if others could reach it in the clear, without leave.
    pub(crate) fn permits(self, address: SocketAddr, tls: Option<&Tls>) -> Result<(), ShellError> {
        if self == Self::LoopbackOnly && tls.is_none() && !address.ip().is_loopback() {
            return Err(ShellError::Exposed(address));
        }
        Ok(())
    }
}

/// A bound socket.
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Listener {
    /// Binds a socket; port 0 picks a free one.
    ///
    /// # Errors
    /// The address is taken, not ours, or exposed without leave and without TLS.
    pub(crate) async fn bind(address: SocketAddr, exposure: Exposure, tls: Option<Tls>) -> Result<Self, ShellError> {
        exposure.permits(address, tls.as_ref())?;
        let bound = async {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address, tls })
        };
        bound.await.map_err(|source| ShellError::Bind { address, source })
    }

    /// Returns the address in use.
    #[cfg(test)]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL at which the API is reached on this machine.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Returns what the socket speaks TLS with.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Serves until the context's shutdown begins and its deadline has passed, or all requests have ended.
    pub(crate) async fn serve(self, front: Front) {
        let context = front.context().clone();
        let limits = &context.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            // Answers are small: copying one behind its head costs less than a vectored write.
            .writev(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32);
        let builder = Arc::new(builder);
        let slots = Arc::new(Semaphore::new(limits.connections_max));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        // A slot first: what has none waits unaccepted in the kernel's queue.
        let accept = || async {
            let slot = slots.clone().acquire_owned().await;
            (slot, self.socket.accept().await)
        };
        let mut accepting = Box::pin(accept());
        loop {
            let (slot, accepted) = tokio::select! {
                () = context.shut_down() => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    note_panic(ended);
                    continue;
                }
                accepted = &mut accepting => accepted,
            };
            accepting.set(accept());
            // The semaphore is never closed.
            let Ok(slot) = slot else { break };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Closed at once: an address that opens ever more is told nothing.
            let Some(in_use) = context.rates.connection(from.ip()) else { continue };
            let connection = Connection {
                front: front.clone(),
                builder: builder.clone(),
                watcher: graceful.watcher(),
                limits: limits.clone(),
            };
            let tls = self.tls.clone();
            connections.spawn(async move {
                let _counted = Counted::connection();
                connection.serve(stream, from.ip(), tls).await;
                drop((slot, in_use));
            });
        }
        drop(accepting);
        drop(self.socket);
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(limits.shutdown_timeout) => {
                tracing::warn!(connections = connections.len(), "requests did not end in time and are cut off");
            }
        }
        connections.shutdown().await;
    }
}

/// What an accepted connection needs.
struct Connection {
    front: Front,
    builder: Arc<auto::Builder<TokioExecutor>>,
    watcher: Watcher,
    limits: super::Limits,
}

impl Connection {
    async fn serve(self, stream: TcpStream, source: IpAddr, tls: Option<Tls>) {
        // Answers are written whole; waiting for more would only add latency. A failure costs no more than that.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.speak(stream, Arrival { source, certificate: None }).await };
        match tokio::time::timeout(self.limits.first_byte_timeout, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let certificate = shown.map(|certificate| Arc::from(certificate.as_ref()));
                self.speak(stream, Arrival { source, certificate }).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "no TLS came over a new connection"),
            Err(_) => tracing::debug!("a new connection was silent"),
        }
    }

    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, arrival: Arrival) {
        let Self { front, builder, watcher, limits } = self;
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            let front = front.clone();
            request.extensions_mut().insert(arrival.clone());
            async move { Ok::<_, Infallible>(front.answer(request).await) }
        });
        let io = TokioIo::new(Guarded::new(stream, limits.first_byte_timeout, limits.write_timeout));
        let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(error, "connection ended");
        }
    }
}

fn note_panic(ended: Result<(), JoinError>) {
    match ended {
        Err(error) if error.is_panic() => tracing::error!(%error, "a request panicked; its connection is closed"),
        Ok(()) | Err(_) => {}
    }
}
