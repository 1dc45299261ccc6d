//! The admission gate: what every change from outside passes before it touches a document.
//!
//! Automerge 0.12 is correct on honest input and unsafe on hostile input: one well-formed change of a hundred bytes can
//! panic it, hang it, take gigabytes, overflow the stack, or leave a document that saves and never loads again.
//! A signature does not help, for a signer can be hostile. The gate has two parts with different results:
//!
//! * **The static part is a verdict.** [`prescan`] bounds the encoded form; [`check`](self) then compares the change
//!   with the document at its dependencies. The result is a function of the change and its ancestors alone, so every
//!   replica reaches it, whatever else it holds. It must never ask about concurrent changes. [`GateError`] =
//!   `bad_change`, final.
//! * **The applied part is a local hold.** The change is applied to a clone under `catch_unwind`, read back and
//!   compared byte for byte; with marks the result is also saved and loaded. That depends on Automerge's version, so
//!   [`Hold`] is no verdict: the change waits, with an alarm, and everything else goes on.
//!
//! A batch shares one clone, one apply and one read-back; only when that fails is it halved to find the culprit.
//!
//! Callers run on threads with at least [`STACK_BYTES`] of stack, and never in a program built with `panic = "abort"`.
//! The depth of a document is bounded *before* anything recursive sees it.

mod batch;
mod check;
mod places;
mod prescan;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) use batch::{admit, scan};
pub(super) use check::{base_path, decode, depth_fits, located};
pub(super) use places::{Located, all_places};
pub(super) use prescan::ColumnReader;
pub use prescan::{Contents, Scan, bound_hash, prescan};

use crate::id::{ActorId, ChangeHash};
use crate::op::{FieldPaths, WriteAction};

/// Stack that a thread needs to work on documents: Automerge recurses by nesting in places, and 8 MiB carried a
/// thousand levels where [`crate::limits::DOC_DEPTH_MAX`] allows a hundred.
pub const STACK_BYTES: usize = 16 << 20;

/// A change from outside, with what its signed header says about it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The raw bytes of the change.
    pub bytes: &'a [u8],
    /// The actor under which the author of the header must write this document.
    pub actor: ActorId,
    /// What the header says is done. A delete is not an Automerge change and never fits.
    pub action: WriteAction,
    /// The fields that the header declares; none if the change may write anywhere. Who offers one change twice at once says the
    /// same of it both times.
    pub fields: Option<&'a FieldPaths>,
}

/// What became of a candidate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is in the document now.
    Admitted(ChangeHash),
    /// It was there before, or came twice.
    Known(ChangeHash),
    /// These of its dependencies are neither in the document nor admitted beside it: offer it again when they are.
    /// A dependency that is bad makes the change bad too; that is the caller's to know.
    MissingDeps(Vec<ChangeHash>),
    /// It breaks a rule: a verdict, the same on every replica.
    Bad(GateError),
    /// This program cannot take it: no verdict.
    Held(Hold),
}

/// Why a change is bad: a function of the change, its header and its ancestors alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum GateError {
    /// The bytes are not one canonical change.
    #[error("not a well-formed change: {0}")]
    Encoding(&'static str),
    /// Something is larger than its bound.
    #[error("too many or too large: {0}")]
    Limit(&'static str),
    /// An operation lies outside of the fields that the header declares.
    #[error("writes outside of the fields that its header declares")]
    Fields,
    /// Another actor than the header's author has here.
    #[error("written under an actor that is not its author's")]
    Actor,
    /// A create with dependencies, an update without, or a delete.
    #[error("does something else than its header says")]
    Action,
    /// The actor's sequence number does not follow from the dependencies.
    #[error("does not follow its actor's previous change")]
    Sequence,
    /// Operation ids do not begin right behind the ancestors' last.
    #[error("operation ids do not go on right behind those of its dependencies")]
    OperationIds,
    /// An operation refers to one that no dependency covers.
    #[error("refers to an operation that its dependencies do not cover")]
    Reference,
    /// The object is none.
    #[error("writes to an object that does not exist")]
    Object,
    /// A map key in a list, a position in a map, and the like.
    #[error("operation does not fit the type of its object")]
    Kind,
    /// The nesting exceeds [`crate::limits::DOC_DEPTH_MAX`].
    #[error("nested too deep")]
    Depth,
    /// A delete or increment of nothing, or an insertion that replaces something.
    #[error("operation has no or unfitting predecessors")]
    Predecessors,
    /// A mark's begin and end are not a pair.
    #[error("mark without its other end")]
    Mark,
    /// Tables are a relic that no client makes and no JSON shows.
    #[error("makes a table")]
    Table,
}

/// Why this program does not take a change although no rule forbids it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Hold {
    /// Automerge panicked; the document is as before.
    #[error("automerge panicked: {0}")]
    Panicked(String),
    /// Automerge returned an error.
    #[error("automerge refused it: {0}")]
    Refused(String),
    /// Automerge would give back other bytes than it was given.
    #[error("automerge does not give back the same bytes")]
    ReadBack,
    /// The document with it would save and not load again.
    #[error("the document with it does not load again")]
    Reload,
    /// The actor has another, concurrent change with this number: the author forked. Which one counts is decided
    /// above, from the streams; a document holds only one.
    #[error("its actor used this sequence number for another change")]
    SequenceTaken(ChangeHash),
    /// The document's visible form cannot be built with it.
    #[error("cannot build the visible document: {0}")]
    View(String),
}

/// Runs `f`, which gives foreign data to Automerge, and turns a panic into its message.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
    })
}
