//! What a node writes down about itself and those who use it: an append-only log whose every state can be proved.
//!
//! The signed ops are the audit of what was written, and every replica has them. What leaves no op is recorded here, by the node
//! where it happens: what was refused, who came in, what was read where that is to be known, what was done to the node.
//! [`Record`]s are the leaves of a Merkle tree as in RFC 6962 ([`tree`]); the node signs the root as a note in the form of C2SP
//! ([`note`]), and peers countersign what extends the last one that they saw ([`witness`]).
//!
//! Invariant: what a checkpoint was signed for is never written again otherwise. A log that may have lost its end does not go on: the
//! node begins another one, and says so in both places.
//!
//! Invariant: a flood of events costs bounded memory and disk: what is alike is folded into one record with a count ([`fold`]).

mod check;
pub mod fold;
mod log;
pub mod note;
mod proof;
mod query;
mod record;
mod rights;
pub mod tree;
pub mod witness;

pub use check::{AuditDamage, AuditReport, check_log, stream_line};
pub use log::{
    Log, LogError, LogId, LogState, RecordId, Retention, last_note, logs, peers_notes, read_record, record_text,
};
pub use proof::{Checked, OpProof, ProofError, ProofFile, RecordProof, check_proof, prove_op, prove_record};
pub use query::{Found, LogCursor, LogPage, LogQuery, search};
pub use record::{AuditAction, AuditClass, AuditDecision, AuditMethod, Event, Record, RecordError};
pub use rights::{Rights, RightsProof};

#[cfg(test)]
mod tests;
