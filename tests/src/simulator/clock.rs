//! The clocks of a machine: a wall clock that is off and jumps, and a monotonic clock with a rate of its own.

use folkmoot_core::replica::Now;

use super::random::Random;

/// The true time at which every run begins, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_700_000_000_000;
/// How far the rate of a monotonic clock may be off, in parts per thousand: a hundred times what crystals do.
const RATE_OFF_MAX: u64 = 20;

/// The clocks of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// How far the wall clock is off.
    pub(super) skew_ms: i64,
    /// Milliseconds of the monotonic clock in 1,000 true ones.
    rate: u64,
    /// True time at which the process started, and its wall clock then: from there its monotonic clock counts.
    started: u64,
    started_wall: u64,
}

impl Clock {
    pub(super) fn draw(random: &mut Random) -> Self {
        let rate = random.within(1_000 - RATE_OFF_MAX, 1_001 + RATE_OFF_MAX);
        Self { skew_ms: 0, rate, started: 0, started_wall: EPOCH_MS }
    }

    /// A process starts on the machine.
    pub(super) fn start(&mut self, elapsed_ms: u64) {
        self.started = elapsed_ms;
        self.started_wall = self.wall_ms(elapsed_ms);
    }

    const fn wall_ms(&self, elapsed_ms: u64) -> u64 {
        (EPOCH_MS + elapsed_ms).saturating_add_signed(self.skew_ms)
    }

    /// Returns the time as the process measures it.
    pub(super) const fn now(&self, elapsed_ms: u64) -> Now {
        let run = (elapsed_ms - self.started) * self.rate / 1_000;
        Now { monotonic_ms: self.started_wall + run, wall_ms: self.wall_ms(elapsed_ms) }
    }

    /// Returns when, in true time, the monotonic clock shows `monotonic_ms`.
    pub(super) const fn when(&self, monotonic_ms: u64) -> u64 {
        self.started + (monotonic_ms.saturating_sub(self.started_wall) * 1_000).div_ceil(self.rate)
    }
}
