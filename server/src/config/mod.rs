//! The configuration of a node: defaults < `folkmoot.toml` < environment (`FOLKMOOT_…`) < flags.
//!
//! Every layer is checked key by key, so that an error names the key and where its value came from.

mod layers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use layers::{ConfigError, Flag, Layered, Source, load};

use crate::http::Limits;

/// How a node runs. Read once at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where the HTTP API listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Let the HTTP API listen where other machines reach it in the clear: only behind something that speaks TLS.
    pub insecure_listen: bool,
    /// Where other nodes reach this one.
    pub p2p_listen: Vec<SocketAddr>,
    /// Addresses (multiaddr with peer id) of members to connect to at start.
    pub bootstrap: Vec<String>,
    /// Find members on the local network by mDNS.
    pub mdns: bool,
    /// The region that the node is in; empty for none.
    pub region: String,
    /// The zone within the region; empty for none.
    pub zone: String,
    /// Further labels.
    pub labels: Vec<String>,
    /// The HTTP shell.
    pub http: HttpConfig,
    /// The log.
    pub log: LogConfig,
}

/// Bounds of the HTTP shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Connections open at once; more wait.
    pub connections_max: usize,
    /// How long a new connection may stay silent.
    #[serde(with = "duration")]
    pub first_byte_timeout: Duration,
    /// How long the head of a request may take, and how long a connection may idle.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// How long a body may pause.
    #[serde(with = "duration")]
    pub body_idle_timeout: Duration,
    /// How long a body that is read whole may take.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long a client may take nothing of its answer.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// How long requests may go on after shutdown has begun.
    #[serde(with = "duration")]
    pub shutdown_timeout: Duration,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// What to log: a level, or directives as in `info,folkmoot_net=debug`.
    pub level: String,
    /// In which form.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("folkmoot-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            insecure_listen: false,
            p2p_listen: vec![SocketAddr::from(([127, 0, 0, 1], 7071))],
            bootstrap: Vec::new(),
            mdns: true,
            region: String::new(),
            zone: String::new(),
            labels: Vec::new(),
            http: HttpConfig {
                connections_max: 10_000,
                first_byte_timeout: Duration::from_secs(10),
                header_timeout: Duration::from_secs(30),
                body_idle_timeout: Duration::from_secs(30),
                body_timeout: Duration::from_secs(60),
                write_timeout: Duration::from_secs(60),
                shutdown_timeout: Duration::from_secs(10),
            },
            log: LogConfig { level: "info".to_owned(), format: LogFormat::Text },
        }
    }
}

impl HttpConfig {
    /// Returns the bounds for the shell.
    pub(crate) fn limits(&self) -> Limits {
        let Self {
            connections_max,
            first_byte_timeout,
            header_timeout,
            body_idle_timeout,
            body_timeout,
            write_timeout,
            shutdown_timeout,
        } = self.clone();
        Limits {
            connections_max,
            first_byte_timeout,
            header_timeout,
            body_idle_timeout,
            body_timeout,
            write_timeout,
            shutdown_timeout,
        }
    }
}

/// Durations as text with a unit.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        match humantime::parse_duration(&text) {
            Ok(value) if !value.is_zero() => Ok(value),
            Ok(_) | Err(_) => {
                Err(serde::de::Error::custom(format!("{text:?} is not a duration with a unit, as in \"30s\"")))
            }
        }
    }
}
