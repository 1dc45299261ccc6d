//! The keys of an issuer: how they are read, fetched, and kept.
//!
//! A task of its own fetches them, so that no request waits for an issuer for long and none can make the node ask it often. Keys that
//! were fetched stay while the issuer cannot be reached.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore, watch};

use super::issuer::{self, KeySource, OidcIssuer};
use super::jwt::{ALGORITHMS, Head, Refusal};
use crate::api::error_chain;
use crate::client::connections::{Connections, Wanted};
use crate::client::tls::Trust;

/// The largest set of keys, and the largest answer of a discovery.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Keys of a set.
const KEYS_MAX: usize = 64;
/// The largest file of authorities to believe.
const CA_BYTES_MAX: u64 = 1 << 20;
/// Bits of an RSA key that is not to be broken, and that is quick to check.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// How long a fetch may take, discovery included.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again at most.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// How long a request waits for a fetch that may bring the key which it needs.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Requests that wait so; those beyond are refused at once.
const WAITING_MAX: usize = 64;

/// How often an issuer is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How often keys are fetched when nothing asks for it: a key that the issuer has withdrawn counts so long at most.
    pub(super) usual: Duration,
    /// How often they are at most because a token names another one.
    pub(super) on_demand: Duration,
    /// How long after a failure it is tried again, doubled each time up to [`RETRY_MAX`].
    pub(super) retry: Duration,
}

impl Pace {
    pub(super) const USUAL: Self =
        Self { usual: Duration::from_secs(600), on_demand: Duration::from_secs(30), retry: Duration::from_secs(5) };
}

/// A key of an issuer.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl Key {
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Reads a key; none if it is for something else.
    fn of(jwk: &Jwk) -> Option<Self> {
        let fits: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::PS256],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
            // A shared secret is no key of an issuer.
            _ => return None,
        };
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|use_| *use_ == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let is_of =
            |algorithm: &&Algorithm| common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(**algorithm));
        let algorithms: Vec<Algorithm> = fits.iter().filter(is_of).copied().collect();
        let decoding = DecodingKey::from_jwk(jwk).ok()?;
        if let DecodingKeyKind::RsaModulusExponent { n, .. } = decoding.kind() {
            let n: &[u8] = n.get(n.iter().position(|byte| *byte != 0)?..)?;
            let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
            if !RSA_BITS.contains(&bits) {
                return None;
            }
        }
        (signs && !algorithms.is_empty()).then(|| Self { id: common.key_id.clone(), algorithms, decoding })
    }
}

/// The keys of an issuer (RFC 7517).
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Arc<Key>>,
    /// What it was read from: the same text is the same set.
    text: Bytes,
}

impl KeySet {
    /// Reads a set; what is in it for something else is passed over.
    pub(super) fn parse(text: Bytes) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        if text.len() > ANSWER_BYTES_MAX {
            return Err(format!("the set of keys has more than {ANSWER_BYTES_MAX} bytes"));
        }
        let set: Set<'_> =
            serde_json::from_slice(&text).map_err(|error| format!("the set of keys is none: {error}"))?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("the set has more than {KEYS_MAX} keys"));
        }
        let keys = set.keys.iter().filter_map(|key| Key::of(&serde_json::from_str(key.get()).ok()?).map(Arc::new));
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() {
            let names: Vec<String> = ALGORITHMS.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            return Err(format!("the set holds no key for {}", names.join(", ")));
        }
        Ok(Self { keys, text })
    }

    /// Returns the key that a token's head chooses. The algorithm is the key's: a token does not say how a key is to be used.
    pub(super) fn find(&self, head: &Head) -> Result<Arc<Key>, Refusal> {
        let named = |key: &&Arc<Key>| head.key.as_ref().is_none_or(|id| key.id.as_ref() == Some(id));
        let mut named = self.keys.iter().filter(named).peekable();
        if named.peek().is_none() {
            return Err(Refusal::Key);
        }
        let mut fits = named.filter(|key| key.algorithms.contains(&head.algorithm));
        match (fits.next(), fits.next(), &head.key) {
            (None, _, _) => Err(Refusal::Algorithm),
            (Some(_), Some(_), None) => Err(Refusal::NoKeyId),
            (Some(key), _, _) => Ok(key.clone()),
        }
    }
}

/// What is known of an issuer's keys.
#[derive(Debug, Clone, Default)]
struct Known {
    set: Option<Arc<KeySet>>,
    /// Another one for each other set.
    version: u64,
    /// Fetches that have ended.
    fetched: u64,
    /// When the last one began.
    began: Option<Instant>,
    is_fetching: bool,
}

impl Known {
    /// Returns whether a fetch that is under way, or may begin now, could bring what is missing.
    fn may_change(&self, pace: Pace) -> bool {
        self.is_fetching || self.began.is_none_or(|began| began.elapsed() >= pace.on_demand)
    }
}

/// An issuer and its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) config: OidcIssuer,
    pace: Pace,
    known: watch::Sender<Known>,
    wanted: Notify,
    waiting: Semaphore,
}

/// Why there is no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The token does not count.
    Refused(Refusal),
    /// The issuer's keys could never be had so far.
    NotYet,
}

impl Issuer {
    pub(super) fn new(config: OidcIssuer, pace: Pace) -> Self {
        Self {
            config,
            pace,
            known: watch::Sender::default(),
            wanted: Notify::new(),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }

    /// Returns which set of keys is known now.
    pub(super) fn version(&self) -> u64 {
        self.known.borrow().version
    }

    /// Returns whether no keys could be had yet.
    pub(super) fn is_without_keys(&self) -> bool {
        self.known.borrow().set.is_none()
    }

    /// Returns the key for a token and which set it is of. Where it is missing and the issuer may be asked, waits for that.
    pub(super) async fn key(&self, head: &Head) -> Result<(Arc<Key>, u64), NoKey> {
        let before = self.known.borrow().clone();
        let found = Self::find(&before, head);
        let missing = matches!(found, Err(NoKey::NotYet | NoKey::Refused(Refusal::Key)));
        if !missing || !before.may_change(self.pace) {
            return found;
        }
        let Ok(_waits) = self.waiting.try_acquire() else { return found };
        let mut known = self.known.subscribe();
        if !before.is_fetching {
            self.wanted.notify_one();
        }
        // Late is like never: what is known by then decides.
        let _ = tokio::time::timeout(WAIT_MAX, known.wait_for(|known| known.fetched > before.fetched)).await;
        let after = self.known.borrow().clone();
        Self::find(&after, head)
    }

    fn find(known: &Known, head: &Head) -> Result<(Arc<Key>, u64), NoKey> {
        let set = known.set.as_ref().ok_or(NoKey::NotYet)?;
        set.find(head).map(|key| (key, known.version)).map_err(NoKey::Refused)
    }

    /// Fetches the keys for ever; run it as a task.
    pub(super) async fn keep_keys(self: Arc<Self>) {
        let mut failures = 0_u32;
        loop {
            let began = tokio::time::Instant::now();
            self.known.send_modify(|known| (known.began, known.is_fetching) = (Some(Instant::now()), true));
            let late = |_| Err(format!("no answer within {} s", FETCH_TIME_MAX.as_secs()));
            let fetched = tokio::time::timeout(FETCH_TIME_MAX, self.fetch()).await.unwrap_or_else(late);
            let outcome = if fetched.is_ok() { "done" } else { "failed" };
            metrics::counter!("folkmoot_oidc_fetches_total", "outcome" => outcome).increment(1);
            let pause = match &fetched {
                Ok(_) => {
                    failures = 0;
                    self.pace.usual
                }
                Err(error) => {
                    let pause = self.pace.retry.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
                    failures = failures.saturating_add(1);
                    tracing::warn!(issuer = %self.config.issuer, error, "the keys of an issuer cannot be fetched");
                    pause
                }
            };
            self.known.send_modify(|known| {
                known.fetched += 1;
                known.is_fetching = false;
                if let Ok(set) = fetched
                    && known.set.as_ref().is_none_or(|before| before.text != set.text)
                {
                    tracing::info!(issuer = %self.config.issuer, keys = set.keys.len(), "the keys of an issuer have changed");
                    known.version += 1;
                    known.set = Some(Arc::new(set));
                }
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => tokio::time::sleep_until(began + self.pace.on_demand).await,
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let config = &self.config;
        let text = match config.key_source() {
            Some(KeySource::File(path)) => read(path.to_owned(), ANSWER_BYTES_MAX as u64).await?,
            Some(KeySource::Url(text)) => self.get(&issuer::url(text, Some(config))?).await?,
            None => {
                /// What of an issuer's description is needed.
                #[derive(Deserialize)]
                struct Discovered {
                    issuer: String,
                    jwks_uri: String,
                }
                let address = format!("{}/.well-known/openid-configuration", config.issuer.trim_end_matches('/'));
                let answer = self.get(&issuer::url(&address, None)?).await?;
                let found: Discovered = serde_json::from_slice(&answer)
                    .map_err(|error| format!("{address} describes no issuer: {error}"))?;
                if found.issuer != config.issuer {
                    return Err(format!("{address} describes another issuer, {:?}", found.issuer));
                }
                self.get(&issuer::url(&found.jwks_uri, Some(config))?).await?
            }
        };
        KeySet::parse(text)
    }

    async fn get(&self, url: &http::Uri) -> Result<Bytes, String> {
        let ca = match &self.config.ca {
            Some(path) => Some(read(path.clone(), CA_BYTES_MAX).await?),
            None => None,
        };
        let wanted = Wanted::of([url]);
        // The machine's authorities are read from files.
        let connections = tokio::task::spawn_blocking(move || {
            Connections::new(wanted, &Trust { given: ca.as_deref(), identity: None })
        });
        let connections = connections.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let request = Request::get(url).header(ACCEPT, "application/json").body(Full::default());
        let request = request.map_err(|error| format!("{url}: {error}"))?;
        let failed = |error: &(dyn std::error::Error + 'static)| format!("{url}: {}", error_chain(error));
        let response = connections.request(request).await.map_err(|error| failed(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("{url} answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| failed(&*error))
    }
}

/// Reads a file of bounded size on a thread that may wait for the disk.
async fn read(path: std::path::PathBuf, bytes_max: u64) -> Result<Bytes, String> {
    fn whole(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(std::io::Error::other(format!("it has more than {bytes_max} bytes")));
        }
        Ok(bytes)
    }
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || whole(&path, bytes_max)).await;
    let read = read.map_err(|error| error.to_string())?;
    read.map(Bytes::from).map_err(|error| format!("{shown}: {error}"))
}
