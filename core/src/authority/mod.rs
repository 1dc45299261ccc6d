//! The control log's rule: who may do what, judged alike by every replica. In prose: `docs/authority.md`.
//!
//! [`Authority`] is the incremental engine that nodes run; [`mod@reference`] is the same rule as a plain function of a set
//! of headers, for tests, for `verify` and for fuzzing. Both judge from headers alone: whether a change is sound, and
//! what becomes of the changes that depend on it, is decided on top of this.
//!
//! How a node uses the engine:
//!
//! 1. Every act goes to [`Authority::add_control`], in any order. Acts further ahead of the node's clock than
//!    [`crate::limits::CLOCK_AHEAD_MAX`] are held back by the caller until their time has come.
//! 2. Every data op that is stored goes to [`Authority::note_data`], in the order of its stream, and every fork to
//!    [`Authority::note_fork`]. Nothing of a data op is kept but where its stream's knowledge of the control log grows.
//! 3. [`Authority::judge`] then decides each transaction.
//! 4. After any of these, [`Authority::take_rejudge`] names the ranges whose verdicts may have changed. For each op in
//!    them: `note_data` again (it ignores what it has) and `judge` again. It also finds how far pins reach into earlier
//!    sessions; [`Authority::take_reach_changed`] says whether [`Authority::closed_at`] answers otherwise since.
//!
//! Invariant: a verdict is a function of the set of ops. Neither the clock nor the order of arrival has a say.
//!
//! Deliberately absent: endorsement (a void op is never revived because somebody built on it; only a readmission
//! does that), causal revocation (an author's claim not to have known is worth nothing), and any trust in time.

mod chain;
mod engine;
mod mutant;
pub mod reference;
mod verdict;

#[cfg(test)]
mod tests;

pub use chain::{ChainError, check_against_previous};
pub use engine::{
    AddError, Added, Authority, CertificateInfo, Closed, CollectionConfig, CurrentOwners, CurrentToken, Decision,
    Denial, ErasureInfo, Fork, Ground, MemberInfo, Noted, Part, Password, PepperInfo, Policy, Reach, Readable, Rejudge,
    RulesState, Stance, StatementInfo, Testimony, TokenLimits, Waiting, WaitingRequest, Why, WitnessInfo, WrittenFor,
};
#[cfg(any(test, feature = "planted-bugs"))]
pub use mutant::{Mutant, Site, plant};
pub use verdict::{Missing, Verdict};

use crate::id::{OpId, StreamId};
#[cfg(doc)]
use crate::op::Header;
use crate::op::Pin;
pub use crate::op::{Action, Actions};

/// Where an op lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// Its stream.
    pub stream: StreamId,
    /// Its number there.
    pub seq: u64,
    /// Its id.
    pub op: OpId,
}

/// What the engine asks the store about data streams.
pub trait Chains {
    /// Returns the op at a place of the chain that ends in `end`, of which `seq` is at most that of `end`; the zero id if what
    /// ends there is no chain of that stream, and `None` while the ops of the chain, from `end` back to that number and with
    /// the one there, are not all here.
    ///
    /// A store that keeps one branch of each stream answers from what it has at `end.seq`: `None` if that is not
    /// `end.head`, else what it has at `seq`.
    fn at(&self, seq: u64, end: &Pin) -> Option<OpId>;

    /// Returns whether `op` lies on the chain that ends in `end`, under the conditions of [`Self::at`]. The engine also asks
    /// with an op that does not exist, to learn whether the chain is here.
    fn lies_on(&self, op: &Position, end: &Pin) -> Option<bool> {
        self.at(op.seq, end).map(|id| id == op.op)
    }

    /// Returns what the first op of the chain that ends in `end` names as the ends of earlier sessions
    /// ([`Header::earlier_ends`]); `None` while that chain is not here whole, or if there is none.
    fn earlier_ends(&self, end: &Pin) -> Option<Vec<Pin>>;
}
