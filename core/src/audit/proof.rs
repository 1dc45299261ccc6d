//! Proofs that stand alone: a file that shows that a record is in a node's log, or that an op was signed, to whoever has nothing but
//! the file and this program.
//!
//! What a proof of a record says is: the key that it names signed this. Whether that key is a node's of the cluster is for the reader to know.
//! A proof of an op shows by which right its key signed it ([`Rights`]), to whoever knows the cluster's id.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::log::{LogError, RecordId, Stored, damaged, last_note, logs, stored_record};
use super::note::{Note, NoteError};
use super::record::{Record, RecordError};
use super::rights::{Rights, RightsProof, checked_chain, rights_of};
use super::tree::{Hash, PROOF_HASHES_MAX, inclusion, leaf_hash, verify_inclusion};
use crate::id::ClusterId;
use crate::limits::{AUDIT_PROOF_ACTS_MAX, AUDIT_PROOF_BYTES_MAX, AUDIT_PROOF_STREAMS_MAX};
use crate::op::{Op, OpError, codec};
use crate::store::keys::{Key as _, OpKey};
use crate::store::{Keyspace, Read, envelope};

/// What the files say that they are.
const FORMAT: &str = "folkmoot-audit-proof-1";
/// Headers in a proof: an op waits at most so many others for a signature.
const HEADERS_MAX: usize = 4_096;

/// A proof as a JSON file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofFile {
    /// Says what the file is.
    pub format: String,
    /// The record, if it is one that is proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordProof>,
    /// The op, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<OpProof>,
}

/// A record with its way to a signed root. Bytes are base64.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordProof {
    /// Its place in the log.
    pub index: u64,
    /// The record.
    pub record: String,
    /// Hashes beside its way, from the leaf up.
    pub path: Vec<String>,
    /// The checkpoint.
    pub checkpoint: String,
}

/// An op with its way to a signature. Bytes are base64.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpProof {
    /// The cluster.
    pub cluster: ClusterId,
    /// Ops without their bodies: the one that is proved, and those behind it up to the first that is signed.
    pub ops: Vec<String>,
    /// The acts that its author knew; none if they are too many for a proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<RightsProof>,
}

/// What a proof shows.
#[derive(Clone, Debug)]
pub enum Checked {
    /// A record.
    Record {
        /// The record.
        record: Box<Record>,
        /// Its place.
        index: u64,
        /// The checkpoint, all signatures on which hold.
        note: Box<Note>,
    },
    /// An op.
    Op {
        /// The op, without its bodies.
        op: Box<Op>,
        /// How many ops behind it the signature is.
        signed_after: usize,
        /// The acts that its author knew.
        rights: Option<Rights>,
    },
}

/// Why a file proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Larger than it may be.
    #[error("a proof has at most {AUDIT_PROOF_BYTES_MAX} bytes")]
    TooLong,
    /// Not such a file.
    #[error("the file is no proof of this kind: {0}")]
    Malformed(String),
    /// The record is none.
    #[error("the record cannot be read")]
    Record(#[from] RecordError),
    /// The op is none.
    #[error("the op cannot be read")]
    Op(#[from] OpError),
    /// The checkpoint is none.
    #[error("the checkpoint does not hold")]
    Note(#[from] NoteError),
    /// The hashes do not lead from the record to the root.
    #[error("the record is not the one of which the root was signed")]
    Path,
    /// The ops are no chain.
    #[error("the ops do not follow one another")]
    Chain,
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Signature,
    /// More acts than a proof has.
    #[error("a proof shows at most {AUDIT_PROOF_ACTS_MAX} acts of {AUDIT_PROOF_STREAMS_MAX} streams")]
    TooMany,
}

fn malformed(what: impl std::fmt::Display) -> ProofError {
    ProofError::Malformed(what.to_string())
}

pub(super) fn unbase64(text: &str) -> Result<Vec<u8>, ProofError> {
    let bytes = STANDARD.decode(text).map_err(malformed)?;
    if STANDARD.encode(&bytes) == text { Ok(bytes) } else { Err(malformed("a second form of base64")) }
}

/// Proves a record by the last checkpoint of its log.
///
/// # Errors
/// [`LogError::NotFound`] if it is not there (any more), or is younger than the last checkpoint.
pub fn prove_record(read: &dyn Read, id: RecordId) -> Result<ProofFile, LogError> {
    let logs = logs(read)?;
    let found = match id.incarnation {
        None => logs.last(),
        Some(incarnation) => logs.iter().find(|(_, state)| state.incarnation == incarnation),
    };
    let ordinal = found.map(|(ordinal, _)| *ordinal).ok_or(LogError::NotFound(id))?;
    let (_, bytes) = stored_record(read, ordinal, id.index)?.ok_or(LogError::NotFound(id))?;
    let note = last_note(read, ordinal)?.ok_or(LogError::NotFound(id))?;
    let size = note.checkpoint.size;
    if id.index >= size {
        return Err(LogError::NotFound(id));
    }
    let path = inclusion(&Stored { read, ordinal }, id.index, size)?;
    let record = RecordProof {
        index: id.index,
        record: STANDARD.encode(&bytes),
        path: path.iter().map(|hash| STANDARD.encode(hash)).collect(),
        checkpoint: note.text(),
    };
    Ok(ProofFile { format: FORMAT.to_owned(), record: Some(record), op: None })
}

/// Proves an op of the store, with the rights that it was made under: see `rights_of` for `control` and `knew`.
///
/// # Errors
/// [`LogError`] if the store cannot be read, or the ops behind it that sign it are not there.
pub fn prove_op(
    read: &dyn Read,
    cluster: ClusterId,
    op: Op,
    control: &[Op],
    knew: &[u64],
) -> Result<ProofFile, LogError> {
    let rights = rights_of(read, cluster, &op, control, knew)?;
    let ops = run_to_signature(read, cluster, op)?.iter().map(|op| STANDARD.encode(bare(op))).collect();
    Ok(ProofFile { format: FORMAT.to_owned(), record: None, op: Some(OpProof { cluster, ops, rights }) })
}

/// Returns an op and those behind it, up to the first that is signed.
///
/// # Errors
/// [`LogError`] if they are not there.
pub(super) fn run_to_signature(read: &dyn Read, cluster: ClusterId, op: Op) -> Result<Vec<Op>, LogError> {
    let wanted = op.id();
    let mut run = vec![op];
    while let Some(last) = run.last().filter(|last| last.signature().is_none()) {
        let key = OpKey::new(last.stream(), last.header().seq + 1).encode();
        let next = read.get(Keyspace::Ops, &key)?.ok_or(LogError::OpNotFound(wanted))?;
        if run.len() >= HEADERS_MAX {
            return Err(damaged("no op behind it is signed"));
        }
        run.push(Op::decode(&envelope::open(next).map_err(damaged)?, cluster).map_err(damaged)?);
    }
    Ok(run)
}

/// Returns the bytes of an op without its bodies: they are not what is signed, but committed to.
pub(super) fn bare(op: &Op) -> Vec<u8> {
    let signature = op.signature().map(|signature| serde_bytes::ByteBuf::from(signature.as_bytes().to_vec()));
    let bodies: Vec<Option<()>> = vec![None; op.bodies().len()];
    codec::encode(&(serde_bytes::Bytes::new(op.header_bytes()), signature, bodies))
}

/// Checks a proof; needs nothing but the file.
///
/// # Errors
/// [`ProofError`]: it proves nothing.
pub fn check_proof(file: &[u8]) -> Result<Checked, ProofError> {
    if file.len() > AUDIT_PROOF_BYTES_MAX {
        return Err(ProofError::TooLong);
    }
    let file: ProofFile = serde_json::from_slice(file).map_err(malformed)?;
    if file.format != FORMAT {
        return Err(malformed(format!("it is not of the format {FORMAT}")));
    }
    match (file.record, file.op) {
        (Some(record), None) => check_record(&record),
        (None, Some(op)) => check_op(&op),
        _ => Err(malformed("it is to hold a record or an op")),
    }
}

fn check_record(proof: &RecordProof) -> Result<Checked, ProofError> {
    let note = Note::parse(&proof.checkpoint)?;
    let bytes = unbase64(&proof.record)?;
    let record = Record::decode(&bytes)?;
    if proof.path.len() > PROOF_HASHES_MAX {
        return Err(ProofError::Path);
    }
    let hash = |text: &String| -> Result<Hash, ProofError> {
        unbase64(text)?.try_into().map_err(|_| malformed("a hash has 32 bytes"))
    };
    let path = proof.path.iter().map(hash).collect::<Result<Vec<_>, _>>()?;
    let checkpoint = &note.checkpoint;
    if !verify_inclusion(&leaf_hash(&bytes), proof.index, checkpoint.size, &path, &checkpoint.root) {
        return Err(ProofError::Path);
    }
    Ok(Checked::Record { record: Box::new(record), index: proof.index, note: Box::new(note) })
}

fn check_op(proof: &OpProof) -> Result<Checked, ProofError> {
    if proof.ops.len() > HEADERS_MAX {
        return Err(ProofError::Chain);
    }
    let ops = checked_chain(proof.cluster, &proof.ops)?;
    // A signed op ends the chain.
    if ops.iter().rev().skip(1).any(|op| op.signature().is_some()) {
        return Err(ProofError::Chain);
    }
    let signed_after = ops.len() - 1;
    let op = ops.into_iter().next().ok_or(ProofError::Chain)?;
    let rights = proof.rights.as_ref().map(|rights| Rights::check(proof.cluster, &op, rights)).transpose()?;
    Ok(Checked::Op { op: Box::new(op), signed_after, rights })
}
