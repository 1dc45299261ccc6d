//! Chance from a seed.

use crate::random::SplitMix64;

/// What is thrown to make up inputs.
#[derive(Clone, Debug)]
pub(super) struct Dice(SplitMix64);

impl Dice {
    pub(super) fn new(seed: u64, round: u64) -> Self {
        Self(SplitMix64::new(SplitMix64::new(seed).next() ^ round))
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.next()
    }

    /// Returns a number below `bound`; 0 for 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() >> 8).unwrap_or(usize::MAX).checked_rem(bound).unwrap_or(0)
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bits().to_le_bytes()[0]
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// Returns a number as those that break things: mostly small, often near a power of two, sometimes anything.
    pub(super) fn odd_number(&mut self) -> u64 {
        match self.below(6) {
            0 | 1 => self.bits() % 8,
            2 => self.bits() % 256,
            3 => (1_u64 << self.below(64)).wrapping_add(self.bits() % 3).wrapping_sub(1),
            4 => u64::MAX - self.bits() % 3,
            _ => self.bits() >> self.below(64),
        }
    }
}
