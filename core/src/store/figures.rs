//! Figures that one thread counts and others read, without a metrics library.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets of a histogram: upper bounds are powers of two, and the last takes everything beyond 2^30.
const BUCKETS: usize = 32;

/// Counts of values by size.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn observe(&self, value: u64) {
        // 0 and 1 in the first, then (1, 2], (2, 4], …
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = self.buckets.get(bits as usize).or(self.buckets.last());
        if let Some(bucket) = bucket {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Returns what was counted so far.
    #[must_use]
    pub fn read(&self) -> HistogramFigures {
        let counts: Vec<_> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        HistogramFigures { counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// What a [`Histogram`] held when it was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HistogramFigures {
    counts: Vec<u64>,
    /// Sum of the values.
    pub sum: u64,
}

impl HistogramFigures {
    /// Returns upper bounds, inclusive, with how many values lie below each and above the one before; the last has no
    /// bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let last = self.counts.len().saturating_sub(1);
        self.counts.iter().enumerate().map(move |(i, count)| ((i < last).then(|| 1 << i), *count))
    }

    /// Returns how many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_below_their_bound() {
        let histogram = Histogram::default();
        let values = [0, 1, 2, 3, 4, 5, 1 << 30, (1 << 30) + 1, u64::MAX >> 1];
        values.into_iter().for_each(|value| histogram.observe(value));
        let figures = histogram.read();
        let filled: Vec<_> = figures.buckets().filter(|(_, count)| *count > 0).collect();
        let expected = [(Some(1), 2), (Some(2), 1), (Some(4), 2), (Some(8), 1), (Some(1 << 30), 1), (None, 2)];
        assert_eq!(filled, expected);
        assert_eq!((figures.count(), figures.sum), (9, values.iter().sum()));
    }
}
