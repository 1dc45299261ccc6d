//! How long to wait before asking again.

use std::time::Duration;

/// Before the second attempt.
const FIRST: Duration = Duration::from_millis(50);
/// Between later ones at most.
const LONGEST: Duration = Duration::from_secs(2);

/// Returns the pause after the `attempt`-th attempt (from 1): doubling, and between half and all of it, so that clients
/// who failed together do not come back together. A node's own wish is followed, up to the longest pause.
pub(super) fn pause(attempt: u32, wish: Option<Duration>) -> Duration {
    let full = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LONGEST);
    let full = wish.map_or(full, |wish| wish.clamp(full, LONGEST));
    // Without randomness from the system the pause is just not spread.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    full.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_stays_bounded() {
        for attempt in 1..40 {
            let pause = pause(attempt, Some(Duration::from_secs(3_600)));
            assert!(pause >= LONGEST / 2 && pause <= LONGEST);
        }
        assert!(pause(1, None) >= FIRST / 2 && pause(1, None) <= FIRST);
        assert!(pause(30, None) <= LONGEST);
    }
}
