//! What each principal may ask for in a time, so that one cannot take a node from the others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use folkmoot::{Error, ErrorCode, PrincipalId, Result};
use folkmoot_core::rate::{Buckets, Rate};

/// Principals whose use is remembered.
const PRINCIPALS_MAX: usize = 65_536;
/// A burst is so many seconds of what may be asked for in the long run.
const BURST_SECONDS: u32 = 2;

/// Bounds of each principal; of the owner's token there are none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimits {
    /// Requests a second; 0 for no bound.
    pub(crate) requests: u32,
    /// Bytes of requests a second; 0 for no bound.
    pub(crate) bytes: u32,
    /// Change feeds and long polls at once.
    pub(crate) streams: usize,
    /// Connections at once from one address.
    pub(crate) connections: usize,
}

/// What principals and addresses use now.
pub(crate) struct Rates {
    limits: RateLimits,
    requests: Mutex<Buckets<PrincipalId>>,
    bytes: Mutex<Buckets<PrincipalId>>,
    streams: Counts<PrincipalId>,
    connections: Counts<IpAddr>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn limited(what: &'static str, detail: String, wait: Duration) -> Error {
    metrics::counter!("folkmoot_http_limited_total", "what" => what).increment(1);
    Error::new(ErrorCode::TooManyRequests, detail).retry_after(wait)
}

fn buckets(per_second: u32) -> Mutex<Buckets<PrincipalId>> {
    let rate = Rate { burst: per_second.saturating_mul(BURST_SECONDS), per_second: f64::from(per_second) };
    Mutex::new(Buckets::new(rate, PRINCIPALS_MAX))
}

impl Rates {
    pub(crate) fn new(limits: RateLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            requests: buckets(limits.requests),
            bytes: buckets(limits.bytes),
            streams: Counts::default(),
            connections: Counts::default(),
        })
    }

    /// Counts a request of a principal.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyRequests`], with the time to wait.
    pub(crate) fn admit(&self, principal: Option<PrincipalId>) -> Result<()> {
        let Some(principal) = principal else { return Ok(()) };
        let now = Instant::now();
        if self.limits.requests > 0 {
            let detail = |wait| {
                let detail = format!("more than {} requests a second", self.limits.requests);
                limited("requests", detail, wait)
            };
            lock(&self.requests).take_many(principal, 1.0, now).map_err(detail)?;
        }
        if self.limits.bytes > 0 {
            // What bodies hold is known when they have come: who has sent too much waits with the next.
            let detail = |wait| {
                let detail = format!("more than {} bytes a second", self.limits.bytes);
                limited("bytes", detail, wait)
            };
            lock(&self.bytes).take_many(principal, 0.0, now).map_err(detail)?;
        }
        Ok(())
    }

    /// Counts bytes that a principal has sent.
    fn charge(&self, principal: PrincipalId, bytes: usize) {
        if self.limits.bytes > 0 {
            lock(&self.bytes).charge(principal, bytes as f64, Instant::now());
        }
    }

    /// Returns what counts the bytes of a principal's request.
    pub(crate) fn meter(self: &Arc<Self>, principal: Option<PrincipalId>) -> Option<Meter> {
        principal.map(|principal| Meter { rates: self.clone(), principal })
    }

    /// Counts a stream of a principal while the returned guard lives.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyRequests`].
    pub(crate) fn stream(&self, principal: Option<PrincipalId>) -> Result<Option<InUse<PrincipalId>>> {
        let Some(principal) = principal else { return Ok(None) };
        let max = self.limits.streams;
        match self.streams.take(principal, max) {
            Some(stream) => Ok(Some(stream)),
            None => {
                let detail = format!("more than {max} change feeds and long polls at once");
                Err(limited("streams", detail, Duration::from_secs(5)))
            }
        }
    }

    /// Counts a connection from an address while the returned guard lives; none if there are too many.
    pub(crate) fn connection(&self, source: IpAddr) -> Option<InUse<IpAddr>> {
        let connection = self.connections.take(source.to_canonical(), self.limits.connections);
        if connection.is_none() {
            metrics::counter!("folkmoot_http_limited_total", "what" => "connections").increment(1);
        }
        connection
    }
}

/// Counts the bytes of one request.
pub(crate) struct Meter {
    rates: Arc<Rates>,
    principal: PrincipalId,
}

impl Meter {
    pub(crate) fn count(&self, bytes: usize) {
        self.rates.charge(self.principal, bytes);
    }
}

/// How much each key uses at once.
struct Counts<K>(Arc<Mutex<BTreeMap<K, usize>>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Copy> Counts<K> {
    fn take(&self, key: K, max: usize) -> Option<InUse<K>> {
        let mut counts = lock(&self.0);
        let count = counts.get(&key).copied().unwrap_or_default();
        if count >= max {
            return None;
        }
        counts.insert(key, count + 1);
        Some(InUse { counts: self.0.clone(), key })
    }
}

/// Something that is in use while this lives.
pub(crate) struct InUse<K: Ord> {
    counts: Arc<Mutex<BTreeMap<K, usize>>>,
    key: K,
}

impl<K: Ord> Drop for InUse<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        // The last one goes as a whole: what is not in use takes no memory.
        match counts.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Arc<Rates> {
        Rates::new(RateLimits { requests: 5, bytes: 1_000, streams: 2, connections: 3 })
    }

    const ANN: Option<PrincipalId> = Some(PrincipalId::new([1; 32]));
    const BOB: Option<PrincipalId> = Some(PrincipalId::new([2; 32]));

    #[test]
    fn who_asks_too_much_waits_and_nobody_else() {
        let rates = rates();
        assert_eq!((0..100).filter(|_| rates.admit(ANN).is_ok()).count(), 10);
        let error = rates.admit(ANN).unwrap_err();
        assert_eq!(error.code(), ErrorCode::TooManyRequests);
        assert!(error.retry_delay().is_some_and(|wait| wait <= Duration::from_millis(200)), "{error:?}");
        assert!(rates.admit(BOB).is_ok());
        assert!((0..100).all(|_| rates.admit(None).is_ok()), "the owner");
    }

    #[test]
    fn who_has_sent_too_much_waits_with_the_next() {
        let rates = rates();
        rates.meter(ANN).unwrap().count(7_000);
        let wait = rates.admit(ANN).unwrap_err().retry_delay().unwrap();
        assert!(wait > Duration::from_secs(4) && wait <= Duration::from_secs(5), "{wait:?}");
        assert!(rates.admit(BOB).is_ok());
    }

    #[test]
    fn what_is_in_use_is_counted_while_it_lives() {
        let rates = rates();
        let streams: Vec<_> = (0..2).map(|_| rates.stream(ANN).unwrap()).collect();
        assert_eq!(rates.stream(ANN).err().map(|error| error.code()), Some(ErrorCode::TooManyRequests));
        assert!(rates.stream(BOB).is_ok());
        drop(streams);
        assert!(rates.stream(ANN).is_ok());
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let connections: Vec<_> = [source, mapped, source].map(|source| rates.connection(source).unwrap()).into();
        assert!(rates.connection(mapped).is_none());
        drop(connections);
        assert!(lock(&rates.connections.0).is_empty());
    }
}
