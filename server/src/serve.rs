//! Serves a database over HTTP until told to stop.

use std::io;
use std::path::Path;
use std::sync::Arc;

use folkmoot::{Database, Node};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::Config;
use crate::http::{
    ClientCertificates, Context, Exposure, Front, Listener, Metrics, Origins, OwnerToken, Rates, ShellError, Tls,
};

/// File in the data directory that holds the first bearer token.
pub const TOKEN_FILE: &str = "owner.token";
/// File in the data directory that tells the addresses in use.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// The addresses in use of a running node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The HTTP API.
    pub http: String,
    /// The certificate that the API shows, if it speaks TLS: clients on this machine trust it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<std::path::PathBuf>,
    /// Where other nodes reach it.
    pub p2p: Vec<String>,
}

/// Why a database cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The token file cannot be read.
    #[error("read the token file {path}")]
    Token {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An origin in the configuration is none.
    #[error("http.cors_origins: {0:?} is no origin; one looks like https://app.example, without a path")]
    Origin(String),
    /// The addresses cannot be written down.
    #[error("write {path}")]
    Endpoints {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Metrics are recorded elsewhere already.
    #[error("install the metrics recorder: {0}")]
    Metrics(String),
}

impl ServeError {
    /// Returns whether the configuration must change for it to work.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Listen(ListenError(ShellError::Exposed(_) | ShellError::Tls(_))) | Self::Origin(_) => true,
            Self::Listen(ListenError(ShellError::Bind { .. }))
            | Self::Token { .. }
            | Self::Endpoints { .. }
            | Self::Metrics(_) => false,
        }
    }
}

/// Why the HTTP API cannot listen.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ListenError(#[from] ShellError);

/// A socket that is bound, so that its address is known before the database is open.
pub struct Server {
    listener: Listener,
    metrics: Metrics,
    origins: Origins,
}

/// What of the configuration is parsed before anything is begun.
struct Checked {
    exposure: Exposure,
    tls: Option<Tls>,
    origins: Origins,
}

impl Checked {
    fn new(config: &Config) -> Result<Self, ServeError> {
        let exposure = if config.insecure_listen { Exposure::Anywhere } else { Exposure::LoopbackOnly };
        let clients =
            if config.tls_client_certificates { ClientCertificates::Asked } else { ClientCertificates::Unasked };
        let tls =
            Tls::load(&config.tls_cert, &config.tls_key, clients).map_err(ShellError::from).map_err(ListenError)?;
        exposure.permits(config.listen, tls.as_ref()).map_err(ListenError)?;
        let origins = Origins::parse(&config.http.cors_origins).map_err(ServeError::Origin)?;
        Ok(Self { exposure, tls, origins })
    }
}

impl Server {
    /// Checks the configuration as far as that is possible without listening.
    ///
    /// # Errors
    /// [`ServeError`], always by [`ServeError::is_configuration`].
    pub fn check(config: &Config) -> Result<(), ServeError> {
        Checked::new(config).map(|_| ())
    }

    /// Binds the HTTP API and installs the metrics recorder, which must be there before the database opens.
    ///
    /// # Errors
    /// The address cannot be used, or is exposed without leave.
    pub async fn bind(config: &Config) -> Result<Self, ServeError> {
        let Checked { exposure, tls, origins } = Checked::new(config)?;
        let listener = Listener::bind(config.listen, exposure, tls).await.map_err(ListenError)?;
        let metrics = Metrics::install().map_err(|e| ServeError::Metrics(e.to_string()))?;
        Ok(Self { listener, metrics, origins })
    }

    /// Returns the address of the HTTP API.
    #[must_use]
    pub fn url(&self) -> String {
        self.listener.url()
    }

    /// Serves the database until `stop` ends, then lets open requests end within their deadline.
    ///
    /// # Errors
    /// The token file cannot be read or the addresses not be written down.
    pub async fn run(self, config: &Config, node: &Node, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let token_path = config.data.join(TOKEN_FILE);
        let token =
            std::fs::read_to_string(&token_path).map_err(|source| ServeError::Token { path: token_path, source })?;
        let database: Arc<dyn Database> = Arc::new(node.clone());
        let p2p = database.status().await.map(|status| status.p2p).unwrap_or_default();
        let certificate = (!config.tls_cert.as_os_str().is_empty()).then(|| {
            // A client may stand in another folder.
            std::path::absolute(&config.tls_cert).unwrap_or_else(|_| config.tls_cert.clone())
        });
        let endpoints = Endpoints { http: self.url(), certificate, p2p };
        let (down, shutdown) = watch::channel(false);
        let context = Context {
            database,
            entrance: Box::new(node.clone()),
            limits: config.http.limits(),
            rates: Rates::new(config.limits.rates()),
            metrics: self.metrics.clone(),
            origins: self.origins,
            live: crate::http::live_places(),
            shutdown,
        };
        let front = Front::new(context, OwnerToken::new(&token));
        let upkeep = tokio::spawn(self.metrics.upkeep(config.data.clone()));
        let renewal = self.listener.tls().cloned().map(|tls| tokio::spawn(tls.watch()));
        let serving = tokio::spawn(self.listener.serve(front));
        let path = config.data.join(ENDPOINTS_FILE);
        write_whole(&path, &endpoints).map_err(|source| ServeError::Endpoints { path: path.clone(), source })?;
        announce(config, &endpoints);
        stop.await;
        tracing::info!("shutting down");
        // Who finds the node by this file must not find one that has gone; if it stays, connecting tells the same.
        let _ = std::fs::remove_file(&path);
        let _ = down.send(true);
        if let Err(error) = serving.await {
            tracing::error!(%error, "the accept loop failed");
        }
        upkeep.abort();
        if let Some(renewal) = renewal {
            renewal.abort();
        }
        Ok(())
    }
}

/// Writes a file so that a reader sees all of it or the one before.
fn write_whole(path: &Path, endpoints: &Endpoints) -> io::Result<()> {
    let mut text = serde_json::to_vec(endpoints)?;
    text.push(b'\n');
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}

/// Tells people what they need to begin.
fn announce(config: &Config, endpoints: &Endpoints) {
    let data = config.data.display();
    eprintln!("Folkmoot is up.");
    eprintln!("  API    {}", endpoints.http);
    for address in &endpoints.p2p {
        eprintln!("  peers  {address}");
    }
    eprintln!("  data   {data}");
    eprintln!("  help   {}/docs", endpoints.http);
    eprintln!("  token  {data}/{TOKEN_FILE} (send it as `Authorization: Bearer TOKEN`)");
    eprintln!("  try    folkmoot put notes hello '{{\"text\":\"hello\"}}' && folkmoot get notes hello");
}

/// Ends when the process is told to stop: SIGINT or SIGTERM.
pub async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = interrupt => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(_) => {
                let _ = interrupt.await;
            }
        }
    }
    #[cfg(not(unix))]
    {
        let _ = interrupt.await;
    }
}
