//! Byte credits of one lane, in both directions. Limits are cumulative since the connection began.

use super::api::Lane;
use super::limits as bounds;

/// Returns how many bytes of a lane may be under way.
pub(super) const fn window(lane: Lane) -> u64 {
    match lane {
        Lane::Control => bounds::CONTROL_WINDOW,
        Lane::Live => bounds::LIVE_WINDOW,
        Lane::Repair => bounds::REPAIR_WINDOW,
        Lane::Snapshot => bounds::SNAPSHOT_WINDOW,
    }
}

/// Credit of one lane of one peer.
#[derive(Debug, Clone)]
pub(super) struct LaneCredit {
    window: u64,
    /// Bytes sent, and how many may be.
    sent: u64,
    send_limit: u64,
    /// Bytes received, done with, and how many may be received.
    received: u64,
    released: u64,
    receive_limit: u64,
}

impl LaneCredit {
    pub(super) const fn new(lane: Lane) -> Self {
        let window = window(lane);
        Self { window, sent: 0, send_limit: window, received: 0, released: 0, receive_limit: window }
    }

    /// Returns how many bytes may be sent now.
    pub(super) const fn available(&self) -> u64 {
        self.send_limit.saturating_sub(self.sent)
    }

    /// Returns whether the other side has taken nearly everything that was sent.
    pub(super) const fn is_recovered(&self) -> bool {
        self.available() >= self.window / 2
    }

    /// Takes credit for a frame; returns whether there was enough.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if bytes > self.available() {
            return false;
        }
        self.sent += bytes;
        true
    }

    /// Notes a grant; returns whether a correct receiver makes it: for no more than what was sent and a window, and for
    /// a quarter of a window more than the one before.
    pub(super) fn granted(&mut self, limit: u64) -> bool {
        let most = self.sent.saturating_add(self.window);
        let is_sound = limit <= most && limit >= self.send_limit.saturating_add(self.window / 4);
        self.send_limit = self.send_limit.max(limit.min(most));
        is_sound
    }

    /// Notes a received frame; returns whether it lay within the credit.
    pub(super) fn receive(&mut self, bytes: usize) -> bool {
        self.received = self.received.saturating_add(bytes as u64);
        self.received <= self.receive_limit
    }

    /// Notes that received bytes are dealt with; returns a new limit worth telling.
    pub(super) fn release(&mut self, bytes: usize) -> Option<u64> {
        self.released = self.released.saturating_add(bytes as u64).min(self.received);
        let limit = self.released.saturating_add(self.window);
        if limit - self.receive_limit.min(limit) < self.window / 4 {
            return None;
        }
        self.receive_limit = limit;
        Some(limit)
    }

    /// Returns the received bytes that are not dealt with.
    pub(super) const fn unreleased(&self) -> u64 {
        self.received - self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_bounds_what_is_under_way() {
        let mut sender = LaneCredit::new(Lane::Live);
        let mut receiver = LaneCredit::new(Lane::Live);
        let half = usize::try_from(bounds::LIVE_WINDOW / 2).unwrap();
        for _ in 0..2 {
            assert!(sender.take(half) && receiver.receive(half));
        }
        assert!(!sender.take(1));
        let limit = receiver.release(half).unwrap();
        assert!(sender.granted(limit));
        assert!(!sender.granted(limit), "nothing new");
        assert!(sender.take(half) && receiver.receive(half));
        assert!(!sender.take(1));
        assert!(!receiver.receive(1), "an overrun is seen");
        assert!(!sender.granted(u64::MAX));
        assert!(sender.available() <= bounds::LIVE_WINDOW, "a lying grant gives one window at most");
    }
}
