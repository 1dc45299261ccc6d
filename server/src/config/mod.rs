//! The configuration of a node: defaults < `folkmoot.toml` < environment (`FOLKMOOT_…`) < flags.
//!
//! Every layer is checked key by key, so that an error names the key and where its value came from.

mod layers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use folkmoot::node::{ClaimGrant, KeySettings, KeySource, OidcIssuer, Quotas, Secret};
use serde::{Deserialize, Serialize};

pub use layers::{ConfigError, Flag, Layered, Source, load};

use crate::http::{Limits, RateLimits};

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
    /// PEM file with the certificate of the HTTP API, and those that lead to its authority; empty for none.
    pub tls_cert: PathBuf,
    /// PEM file with its key, for the owner alone to read.
    pub tls_key: PathBuf,
    /// Ask clients for certificates; those of principals say who they are, others nothing.
    pub tls_client_certificates: bool,
    /// Where other nodes reach this one.
    pub p2p_listen: Vec<SocketAddr>,
    /// How: by TCP, by QUIC (UDP) or both, on the same addresses and ports.
    pub p2p_transports: Vec<P2pTransport>,
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
    /// What each principal and address may use.
    pub limits: LimitsConfig,
    /// Memory and disk.
    pub store: StoreConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// How the data directory is unlocked.
    pub keys: KeysConfig,
    /// Issuers of JSON Web Tokens that are believed.
    pub oidc: Vec<OidcConfig>,
    /// The log.
    pub log: LogConfig,
}

/// How nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum P2pTransport {
    /// TCP with Noise and Yamux: least CPU, for servers.
    Tcp,
    /// QUIC, for the edge. Only in programs that were built with the feature `quic`.
    Quic,
}

impl P2pTransport {
    /// The name as it stands in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }
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
    /// How long the node may take to begin its answer. Below a minute it cuts long polls and waits for durability short.
    #[serde(with = "duration")]
    pub answer_timeout: Duration,
    /// How long a client may take nothing of its answer.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// How long requests may go on after shutdown has begun.
    #[serde(with = "duration")]
    pub shutdown_timeout: Duration,
    /// Origins whose pages may use the API from a browser, as in `https://app.example`; `*` for all, none if empty.
    pub cors_origins: Vec<String>,
}

/// What each principal and address may use. The owner's token has no limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Requests of a principal a second in the long run, twice as many at once; 0 for no limit.
    pub requests_per_second: u32,
    /// Bytes of requests of a principal a second in the long run, twice as many at once.
    #[serde(with = "size")]
    pub bytes_per_second: u64,
    /// Change feeds and long polls of a principal at once.
    pub streams: usize,
    /// Connections from one address at once; those beyond are closed.
    pub connections_per_address: usize,
    /// How long after a right has ended it is closed by a revocation.
    #[serde(with = "duration")]
    pub ended_grace: Duration,
    /// Documents that the node takes in all; 0 for no limit. This and the others below are for the owner's token too.
    pub documents: u64,
    /// Bytes of their JSON text.
    #[serde(with = "size_or_none")]
    pub bytes: u64,
    /// Documents of each collection.
    pub documents_per_collection: u64,
    /// Bytes of the JSON text of each collection.
    #[serde(with = "size_or_none")]
    pub bytes_per_collection: u64,
    /// Documents that each principal makes in a day; 0 for no limit.
    pub documents_per_principal_day: u32,
    /// How long a query may take.
    #[serde(with = "duration")]
    pub query_time: Duration,
}

impl LimitsConfig {
    /// Returns how much the node takes.
    pub(crate) fn quotas(&self) -> Quotas {
        Quotas {
            documents: self.documents,
            bytes: self.bytes,
            documents_per_collection: self.documents_per_collection,
            bytes_per_collection: self.bytes_per_collection,
            documents_per_principal_day: self.documents_per_principal_day,
        }
    }

    /// Returns the bounds for the shell.
    pub(crate) fn rates(&self) -> RateLimits {
        RateLimits {
            requests: self.requests_per_second,
            bytes: u32::try_from(self.bytes_per_second).unwrap_or(u32::MAX),
            streams: self.streams,
            connections: self.connections_per_address,
        }
    }
}

/// Memory and disk that the store may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Memory for documents kept loaded, those edited last.
    #[serde(with = "size")]
    pub document_cache: u64,
    /// Memory for blocks of the store kept after reading.
    #[serde(with = "size")]
    pub block_cache: u64,
    /// Disk that the store's journal may take; opening reads it at some 150 MiB a second.
    #[serde(with = "size")]
    pub journal: u64,
}

/// How long records of the audit log are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// Days.
    pub retention_days: u32,
    /// Bytes of records, beyond which the oldest go earlier.
    #[serde(with = "size")]
    pub size: u64,
}

/// How the data directory is unlocked. The secrets themselves stand in files or in the environment, `FOLKMOOT_MASTER_KEY` and
/// `FOLKMOOT_PASSPHRASE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Where the master key of a new data directory comes from; `none` leaves it unsealed.
    pub source: KeySource,
    /// The file that holds the master key; empty for `master.key` in the data directory.
    pub file: PathBuf,
    /// A file that holds the passphrase; empty for none.
    pub passphrase_file: PathBuf,
    /// A command that prints the master key; empty for none.
    pub command: String,
}

/// An issuer of JSON Web Tokens that is believed (OpenID Connect).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// Its name: the claim `iss` of its tokens, to the letter.
    pub issuer: String,
    /// Which of its tokens count: one of their claim `aud`.
    pub audience: String,
    /// Where its keys are, an address or a file; without it the issuer is asked for the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// PEM file of the authorities to believe when it is asked, instead of the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The claim that names who is introduced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_claim: Option<String>,
    /// Whether who is no principal yet is made one.
    #[serde(default)]
    pub register: bool,
    /// The claim that limits a token to the actions which it lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_claim: Option<String>,
    /// How long a role by a claim lasts.
    #[serde(with = "duration", default = "grant_for")]
    pub grant_for: Duration,
    /// Roles by claims.
    #[serde(default)]
    pub grants: Vec<ClaimGrantConfig>,
}

const fn grant_for() -> Duration {
    OidcIssuer::GRANT_FOR
}

/// A role for those who have a value in a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimGrantConfig {
    /// The claim, or a JSON pointer into the claims.
    pub claim: String,
    /// What it is or, if it is a list, holds.
    pub value: String,
    /// The role.
    pub role: String,
    /// On which collections; on all if not given.
    #[serde(default = "every_collection")]
    pub collections: String,
}

fn every_collection() -> String {
    "*".to_owned()
}

impl OidcConfig {
    /// Returns the issuer for the node.
    pub(crate) fn issuer(&self) -> OidcIssuer {
        let Self { issuer, audience, jwks, ca, name_claim, register, scope_claim, grant_for, grants } = self.clone();
        let grants = grants.into_iter().map(|grant| {
            let ClaimGrantConfig { claim, value, role, collections } = grant;
            ClaimGrant { claim, value, role, collections }
        });
        let grants = grants.collect();
        OidcIssuer { issuer, audience, jwks, ca, name_claim, register, scope_claim, grant_for, grants }
    }
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
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_client_certificates: false,
            p2p_listen: vec![SocketAddr::from(([127, 0, 0, 1], 7071))],
            p2p_transports: vec![P2pTransport::Tcp],
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
                answer_timeout: Duration::from_secs(120),
                write_timeout: Duration::from_secs(60),
                shutdown_timeout: Duration::from_secs(10),
                cors_origins: Vec::new(),
            },
            limits: LimitsConfig {
                requests_per_second: 5_000,
                bytes_per_second: 64 << 20,
                streams: 1_000,
                connections_per_address: 5_000,
                ended_grace: Duration::from_secs(24 * 3_600),
                documents: 0,
                bytes: 0,
                documents_per_collection: 0,
                bytes_per_collection: 0,
                documents_per_principal_day: 0,
                query_time: Duration::from_secs(5),
            },
            store: StoreConfig { document_cache: 256 << 20, block_cache: 64 << 20, journal: 128 << 20 },
            audit: AuditConfig { retention_days: 400, size: 1 << 30 },
            keys: KeysConfig {
                source: KeySource::File,
                file: PathBuf::new(),
                passphrase_file: PathBuf::new(),
                command: String::new(),
            },
            oidc: Vec::new(),
            log: LogConfig { level: "info".to_owned(), format: LogFormat::Text },
        }
    }
}

/// Variables that hold secrets: no layer of the configuration, which is shown.
pub(crate) const KEYS: [&str; 2] = ["FOLKMOOT_MASTER_KEY", "FOLKMOOT_PASSPHRASE"];
/// The same for what takes their place.
pub(crate) const NEW_KEYS: [&str; 2] = ["FOLKMOOT_NEW_MASTER_KEY", "FOLKMOOT_NEW_PASSPHRASE"];

impl KeysConfig {
    /// Returns what it takes to unlock the data directory, as far as it was given; the variables are those of a master key and of a
    /// passphrase.
    ///
    /// # Errors
    /// The passphrase file cannot be read.
    pub(crate) fn settings(&self, [master_key, passphrase]: [&str; 2]) -> Result<KeySettings, String> {
        let variable = |name: &str| std::env::var(name).ok().map(Secret::new);
        let passphrase = if self.passphrase_file.as_os_str().is_empty() {
            variable(passphrase)
        } else {
            let text = std::fs::read_to_string(&self.passphrase_file)
                .map_err(|error| format!("keys.passphrase_file {}: {error}", self.passphrase_file.display()))?;
            Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
        };
        Ok(KeySettings {
            source: self.source,
            file: (!self.file.as_os_str().is_empty()).then(|| self.file.clone()),
            master_key: variable(master_key),
            passphrase,
            command: (!self.command.is_empty()).then(|| self.command.clone()),
        })
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
            answer_timeout,
            write_timeout,
            shutdown_timeout,
            cors_origins: _,
        } = self.clone();
        Limits {
            connections_max,
            first_byte_timeout,
            header_timeout,
            body_idle_timeout,
            body_timeout,
            answer_timeout,
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

/// The same, or 0 for no limit.
mod size_or_none {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        super::size::serialize(value, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let given = String::deserialize(deserializer)?;
        let size = if given == "0" { Some(0) } else { super::size::parse(&given) };
        size.ok_or_else(|| {
            serde::de::Error::custom(format!("{given:?} is neither 0 nor a size with a unit, as in \"256MiB\""))
        })
    }
}

/// Sizes as text with a unit.
mod size {
    use serde::{Deserialize as _, Deserializer, Serializer};

    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    /// What a store needs to work at all.
    const MIN: u64 = 1 << 20;

    pub(super) fn text(value: u64) -> String {
        match UNITS.iter().find(|(_, unit)| value >= *unit && value.is_multiple_of(*unit)) {
            Some((name, unit)) => format!("{}{name}", value / unit),
            None => format!("{value}B"),
        }
    }

    pub(super) fn parse(text: &str) -> Option<u64> {
        UNITS.iter().chain(&[("B", 1)]).find_map(|(name, unit)| {
            let number = text.strip_suffix(name)?.trim_end();
            number.parse::<u64>().ok()?.checked_mul(*unit)
        })
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let given = String::deserialize(deserializer)?;
        parse(&given).filter(|size| *size >= MIN).ok_or_else(|| {
            serde::de::Error::custom(format!("{given:?} is not a size with a unit from 1MiB on, as in \"256MiB\""))
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn sizes_have_units() {
            for size in [1 << 20, 3 << 20, 5 << 30, 1_025 << 10, 1_048_577] {
                assert_eq!(parse(&text(size)), Some(size));
            }
            assert_eq!(parse("256 MiB"), Some(256 << 20));
            for bad in ["", "5", "MiB", "5MB", "-1MiB", "1.5GiB", "99999999999999GiB"] {
                assert_eq!(parse(bad), None, "{bad}");
            }
        }
    }
}
