//! The engine's own choices: SplitMix64 from a seed. Nothing secret or adversarial hangs on them, except salts, from which
//! the state cannot be told.

use crate::hash::{Domain, hash_short};
use crate::id::Salt;

/// A small seeded generator.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
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
