//! Planted bugs: deliberate breaks of the engine, by which tests and the simulator prove that they would notice.
//!
//! Compiled in for this crate's tests and under the feature `planted-bugs` only; otherwise [`planted`] is constant.

/// A way to break the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// What a comparison of ranges lists is forgotten.
    LinesForgotten,
    /// All digests are equal, as if somebody had crafted streams to that end.
    DigestsBlind,
    /// Within a run an op need not name the one before it, so that nobody vouches for the ops in its middle.
    LinkNotChecked,
    /// A run need not name our last op as the one before it.
    JointNotChecked,
    /// Any signature holds.
    SignatureNotChecked,
    /// A session that ends where a later one says is counted and listed on.
    SessionsNotFolded,
    /// What later sessions name and is not here is not gone after.
    LackingForgotten,
}

#[cfg(any(test, feature = "planted-bugs"))]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks the engines of this thread, or mends them.
    pub fn plant(what: Option<Mutant>) {
        PLANTED.set(what);
    }

    pub(in crate::replication) fn planted(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }
}

#[cfg(any(test, feature = "planted-bugs"))]
pub use switch::plant;
#[cfg(any(test, feature = "planted-bugs"))]
pub(super) use switch::planted;

#[cfg(not(any(test, feature = "planted-bugs")))]
pub(super) const fn planted(_: Mutant) -> bool {
    false
}
