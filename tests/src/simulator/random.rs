//! The one source of chance: the same seed gives the same run, on every machine and with every version of every crate.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Starts from a seed and what is decided by it: chance that is the same in two runs however they differ otherwise.
    #[must_use]
    pub fn of(seed: u64, parts: &[u64]) -> Self {
        Self(parts.iter().fold(seed, |seed, part| Self(seed ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).bits()))
    }

    /// Returns 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from `from`, inclusive, to `to`, exclusive.
    ///
    /// # Panics
    /// If there is none.
    pub const fn within(&mut self, from: u64, to: u64) -> u64 {
        assert!(from < to, "an empty range");
        from + self.bits() % (to - from)
    }

    /// Returns an index below `len`.
    ///
    /// # Panics
    /// If `len` is 0.
    #[expect(clippy::cast_possible_truncation, reason = "below `len`, which is a usize")]
    pub const fn index(&mut self, len: usize) -> usize {
        self.within(0, len as u64) as usize
    }

    /// Returns true in `percent` of a hundred cases.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.bits() % 100 < percent
    }

    /// Returns 32 bytes.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for part in seed.chunks_exact_mut(8) {
            part.copy_from_slice(&self.bits().to_le_bytes());
        }
        seed
    }
}
