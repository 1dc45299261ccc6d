//! Hybrid logical time: 48 bits of milliseconds since 1970 and a 16-bit counter.
//!
//! Source: Kulkarni et al., "Logical Physical Clocks", OPODIS 2014.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A hybrid logical timestamp. Its order refines causality among honest authors; no right ever depends on it alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(u64);

impl Hlc {
    /// The beginning of time.
    pub const ZERO: Self = Self(0);
    /// Its end.
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the timestamp with these milliseconds since 1970 (the low 48 bits count) and counter.
    #[must_use]
    pub const fn new(millis: u64, counter: u16) -> Self {
        Self(millis << 16 | counter as u64)
    }

    /// Returns the timestamp from its encoded form.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Returns the encoded form.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Returns the milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// Returns the smallest timestamp after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & 0xffff)
    }
}

/// A clock that never goes back and is ahead of everything it has observed.
#[derive(Debug, Clone, Default)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// Makes a clock that goes on after `last`.
    #[must_use]
    pub const fn after(last: Hlc) -> Self {
        Self { last }
    }

    /// Returns a new timestamp, later than all before; `wall_millis` is the physical clock.
    pub fn tick(&mut self, wall_millis: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::new(wall_millis, 0));
        self.last
    }

    /// Takes notice of a timestamp from elsewhere, unless it is further than `ahead_max` ahead of the physical
    /// clock: such a one must not drag our clock along. Returns whether it was taken.
    pub fn observe(&mut self, other: Hlc, wall_millis: u64, ahead_max: Duration) -> bool {
        let limit = wall_millis.saturating_add(u64::try_from(ahead_max.as_millis()).unwrap_or(u64::MAX));
        if other.millis() > limit {
            return false;
        }
        self.last = self.last.max(other);
        true
    }

    /// Returns the last timestamp given out or observed.
    #[must_use]
    pub const fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back_and_refuses_the_far_future() {
        let mut clock = HlcClock::default();
        let a = clock.tick(1_000);
        let b = clock.tick(900);
        assert!(b > a && b.millis() == 1_000);
        assert!(clock.observe(Hlc::new(2_000, 7), 1_000, Duration::from_secs(5)));
        assert!(clock.tick(1_000) > Hlc::new(2_000, 7));
        assert!(!clock.observe(Hlc::new(60_000, 0), 1_000, Duration::from_secs(5)));
        assert!(clock.last().millis() == 2_000);
    }
}
