//! What is decided about a transaction or an act.

use crate::id::{OpId, StreamId};
use crate::op::Pin;

/// What the rule says of a transaction or of an act, from headers alone. A function of the set of ops.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// It counts.
    Allowed,
    /// It cannot be judged before what is named here is known. Never counts meanwhile.
    Deferred(Missing),
    /// Something about it contradicts its own ancestors. Final.
    Refused,
    /// No statements that its author knew give the right, revocations left aside. Final.
    NotAllowed,
    /// The right was given, and this revocation cuts it here. A readmission can bring it back.
    AfterRevocation {
        /// The revocation: of several, the strongest, then the one with the smallest id.
        by: OpId,
    },
    /// It lies on a branch of a forked stream (its own, or that of an act it rests on) that does not count.
    Forked {
        /// The forked stream.
        stream: StreamId,
        /// Where it forks.
        at: u64,
    },
}

impl Verdict {
    /// Returns whether it counts.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed)
    }

    /// Returns the name of the verdict's kind, as shown to people and programs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Deferred(_) => "deferred",
            Self::Refused => "refused",
            Self::NotAllowed => "not_allowed",
            Self::AfterRevocation { .. } => "after_revocation",
            Self::Forked { .. } => "forked",
        }
    }

    /// Returns whether two verdicts decide the same. What exactly a deferred one waits for is a hint, not a decision:
    /// of several missing things each judge names the one that it met first.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self == other || matches!((self, other), (Self::Deferred(_), Self::Deferred(_)))
    }
}

/// What is missing for a verdict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Missing {
    /// An earlier op of the op's own stream.
    Chain,
    /// This op of the control log, or something that it names.
    Control(OpId),
    /// The consent of further owners to this act.
    Consent(OpId),
    /// The chain that ends in this pin.
    Pinned(Pin),
}
