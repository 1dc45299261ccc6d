//! Planted bugs: deliberate breaks of the replica's invariants, by which the simulator proves that it would notice.
//!
//! Compiled in under the feature `planted-bugs` only; otherwise [`planted`] is constant.

/// A way to break the replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A write is acknowledged when its batch is given to the disk.
    AcknowledgedBeforeCommit,
    /// An op is sent when its batch is given to the disk.
    SentBeforeCommit,
    /// A transaction counts as applied though what it builds on is not here.
    NotWaitedFor,
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks the replicas of this thread, or mends them.
    pub fn plant(what: Option<Mutant>) {
        PLANTED.set(what);
    }

    pub(in crate::replica) fn planted(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::plant;
#[cfg(feature = "planted-bugs")]
pub(super) use switch::planted;

#[cfg(not(feature = "planted-bugs"))]
pub(super) const fn planted(_: Mutant) -> bool {
    false
}
