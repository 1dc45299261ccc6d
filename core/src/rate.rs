//! Token buckets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How fast something may happen.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// How much at once.
    pub burst: u32,
    /// How much per second in the long run.
    pub per_second: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// One token bucket for each key, for at most so many keys.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    keys_max: usize,
    buckets: BTreeMap<K, Bucket>,
}

impl<K: Ord> Buckets<K> {
    /// Makes buckets for so many keys.
    #[must_use]
    pub const fn new(rate: Rate, keys_max: usize) -> Self {
        Self { rate, keys_max, buckets: BTreeMap::new() }
    }

    fn level(rate: Rate, bucket: &Bucket, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(bucket.filled).as_secs_f64();
        (bucket.tokens + seconds * rate.per_second).min(f64::from(rate.burst))
    }

    /// Takes a token of `key`; returns whether there was one.
    pub fn take(&mut self, key: K, now: Instant) -> bool {
        self.take_many(key, 1.0, now).is_ok()
    }

    /// Takes so many tokens of `key`, of a full bucket also more than it holds: what is owed is waited for by the next.
    ///
    /// When too many keys are remembered and none has filled up again, new keys get none: a flood from many addresses is
    /// answered like one from a single one.
    ///
    /// # Errors
    /// After which time they could be taken; none were.
    pub fn take_many(&mut self, key: K, tokens: f64, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        let wait = |lacking: f64| Duration::try_from_secs_f64(lacking / rate.per_second).unwrap_or(Duration::MAX);
        if self.buckets.len() >= self.keys_max && !self.buckets.contains_key(&key) {
            // A full bucket says no more than none at all.
            self.buckets.retain(|_, bucket| Self::level(rate, bucket, now) < f64::from(rate.burst));
            if self.buckets.len() >= self.keys_max {
                return Err(wait(1.0));
            }
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: f64::from(rate.burst), filled: now });
        let level = Self::level(rate, bucket, now);
        let needed = tokens.min(f64::from(rate.burst));
        let taken = if level >= needed { Ok(()) } else { Err(wait(needed - level)) };
        *bucket = Bucket { tokens: if taken.is_ok() { level - tokens } else { level }, filled: now };
        taken
    }

    /// Gives tokens back that were taken for nothing.
    pub fn give_back(&mut self, key: &K, tokens: f64) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.tokens += tokens;
        }
    }

    /// Takes tokens that are used already; what is not there is owed.
    pub fn charge(&mut self, key: K, tokens: f64, now: Instant) {
        let (rate, keys_max, is_known) = (self.rate, self.keys_max, self.buckets.contains_key(&key));
        if is_known || self.buckets.len() < keys_max {
            let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: f64::from(rate.burst), filled: now });
            *bucket = Bucket { tokens: Self::level(rate, bucket, now) - tokens, filled: now };
        }
    }

    /// Returns how many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Returns whether no key is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let mut buckets = Buckets::new(Rate { burst: 3, per_second: 2.0 }, 10);
        #[expect(clippy::disallowed_methods, reason = "only differences matter")]
        let start = Instant::now();
        let taken = |buckets: &mut Buckets<u8>, at| (0..10).filter(|_| buckets.take(1, at)).count();
        assert_eq!(taken(&mut buckets, start), 3);
        assert_eq!(taken(&mut buckets, start + Duration::from_millis(1_000)), 2);
        assert_eq!(taken(&mut buckets, start + Duration::from_secs(60)), 3);
        assert!(buckets.take(2, start), "another key has its own");
    }

    #[test]
    fn much_at_once_is_owed_and_the_wait_is_told() {
        let mut buckets = Buckets::new(Rate { burst: 10, per_second: 5.0 }, 10);
        #[expect(clippy::disallowed_methods, reason = "only differences matter")]
        let start = Instant::now();
        assert_eq!(buckets.take_many(1, 30.0, start), Ok(()), "a full bucket takes what is larger than it");
        assert_eq!(buckets.take_many(1, 1.0, start), Err(Duration::from_millis(4_200)));
        assert_eq!(buckets.take_many(1, 1.0, start + Duration::from_millis(4_200)), Ok(()));
    }

    #[test]
    fn keys_are_bounded_and_full_buckets_make_room() {
        let mut buckets = Buckets::new(Rate { burst: 1, per_second: 1.0 }, 2);
        #[expect(clippy::disallowed_methods, reason = "only differences matter")]
        let start = Instant::now();
        assert!(buckets.take(1, start) && buckets.take(2, start));
        assert!(!buckets.take(3, start));
        assert!(buckets.take(3, start + Duration::from_secs(2)));
        assert_eq!(buckets.len(), 1);
    }
}
