//! Token buckets.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// How fast something may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// How often at once.
    pub(crate) burst: u32,
    /// How often per second in the long run.
    pub(crate) per_second: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// One token bucket for each key, for at most `keys_max` keys.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    keys_max: usize,
    buckets: HashMap<K, Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(crate) fn new(rate: Rate, keys_max: usize) -> Self {
        Self { rate, keys_max, buckets: HashMap::new() }
    }

    /// Takes a token of `key`; returns whether there was one. When too many keys are remembered and none has
    /// filled up again, new keys get none: a flood from many addresses is answered like one from a single one.
    pub(crate) fn take(&mut self, key: K, now: Instant) -> bool {
        let Rate { burst, per_second } = self.rate;
        let burst = f64::from(burst);
        let level = |bucket: &Bucket| {
            let seconds = now.saturating_duration_since(bucket.filled).as_secs_f64();
            (bucket.tokens + seconds * per_second).min(burst)
        };
        if self.buckets.len() >= self.keys_max && !self.buckets.contains_key(&key) {
            // A full bucket says no more than none at all.
            self.buckets.retain(|_, bucket| level(bucket) < burst);
            if self.buckets.len() >= self.keys_max {
                return false;
            }
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: burst, filled: now });
        let tokens = level(bucket);
        let allowed = tokens >= 1.0;
        *bucket = Bucket { tokens: if allowed { tokens - 1.0 } else { tokens }, filled: now };
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let mut buckets = Buckets::new(Rate { burst: 3, per_second: 2.0 }, 10);
        let start = Instant::now();
        let taken = |buckets: &mut Buckets<u8>, at| (0..10).filter(|_| buckets.take(1, at)).count();
        assert_eq!(taken(&mut buckets, start), 3);
        assert_eq!(taken(&mut buckets, start + Duration::from_millis(1_000)), 2);
        assert_eq!(taken(&mut buckets, start + Duration::from_secs(60)), 3);
        assert!(buckets.take(2, start), "another key has its own");
    }

    #[test]
    fn keys_are_bounded_and_full_buckets_make_room() {
        let mut buckets = Buckets::new(Rate { burst: 1, per_second: 1.0 }, 2);
        let start = Instant::now();
        assert!(buckets.take(1, start) && buckets.take(2, start));
        assert!(!buckets.take(3, start));
        assert!(buckets.take(3, start + Duration::from_secs(2)));
        assert_eq!(buckets.buckets.len(), 1);
    }
}
