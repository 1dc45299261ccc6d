//! The engine's own choices, from a seed. Nothing secret or adversarial hangs on them, except salts, from which
//! the state cannot be told.

use crate::hash::{Domain, hash_short};
use crate::id::Salt;
use crate::random::SplitMix64;

/// A small seeded generator.
#[derive(Debug, Clone)]
pub(super) struct Random(SplitMix64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// Returns the next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// Returns a salt that nobody can foresee who does not know the seed.
    pub(super) fn salt(&mut self) -> Salt {
        let (a, b) = (self.next(), self.next());
        Salt::new(hash_short(Domain::HeadDigest, &[b"salt", &a.to_le_bytes(), &b.to_le_bytes()]))
    }

    /// Returns a number below `bound` (0 for 0); the slight bias does not matter here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}
