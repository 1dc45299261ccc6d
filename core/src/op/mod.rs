//! Ops: the signed unit of replication. Byte layout: `docs/format.md`.
//!
//! An op is a header, the bodies that the header commits to, and a signature over the header's hash. The chain carries
//! the signature: one verified head covers the run of ops that its chain of `prev` hashes proves, so the signature of an
//! op in mid-run need not be kept.

mod act;
mod apart;
#[cfg(any(test, feature = "testing"))]
pub mod arbitrary;
mod body;
mod check;
pub mod codec;
mod fields;
mod header;
mod role;
pub mod succession;
mod target;

pub use act::{
    Act, Approve, Certify, Collection, Control, Duty, DutyGrant, Erase, Erased, Evidence, Expires, FieldDeclaration,
    FieldKind, Genesis, Grant, IndexDeclaration, Introduced, Join, Member, PasswordHash, PepperShare, PepperShares,
    Pin, Principal, PrincipalKind, Rank, Readmit, Revoke, RevokeTarget, RoleRevision, Rules, Secret, Statement, Token,
    Unique, Withdraw,
};
pub(crate) use apart::Apart;
pub use body::{Body, Delete};
pub use fields::{ANY, FieldPath, FieldPathError, FieldPaths, FieldRights, Fields, Touched};
pub use header::{
    ChangeRef, Header, Payload, SessionEnd, StreamKey, Transaction, WriteAction, request_id, request_name,
};
pub use role::{Action, Actions, BuiltInRole, Rights, Role, UnknownAction};
pub use succession::{OwnerSet, RecoverySignature, Succeed, recovery_hash};
pub use target::{Documents, Target};

use bytes::Bytes;

use crate::hash::{Domain, hash};
use crate::id::{ClusterId, OpId, StreamId};
use crate::keys::{PublicKey, SecretKey, Signature};
use crate::limits;
use codec::CodecError;

/// Why an op is refused at the door.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The outer encoding is broken.
    #[error("decode op")]
    Envelope(#[source] CodecError),
    /// The header is of a version that this program does not know.
    #[error("op version {0} is not known here")]
    Version(u8),
    /// The header's encoding is broken.
    #[error("decode op header")]
    Header(#[source] CodecError),
    /// The header says something that no valid op says.
    #[error("invalid op: {0}")]
    Invalid(&'static str),
    /// The op belongs to another cluster.
    #[error("op belongs to cluster {0}")]
    ForeignCluster(ClusterId),
    /// A body is not the one that the header commits to.
    #[error("body {index} does not match its commitment")]
    Commitment {
        /// Position over all transactions.
        index: usize,
    },
    /// The signature is not the author's.
    #[error("bad signature")]
    Signature,
}

/// An op: decoded header beside its exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    id: OpId,
    stream: StreamId,
    header: std::sync::Arc<Header>,
    header_bytes: Bytes,
    bodies: Vec<Option<Body>>,
    signature: Option<Signature>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct WireOp(
    #[serde(with = "serde_bytes")] Vec<u8>,
    #[serde(with = "serde_bytes")] Option<Vec<u8>>,
    #[serde(deserialize_with = "codec::bounded_list::<{ limits::OP_CHANGES_MAX }, _, _>")] Vec<Option<Body>>,
);

/// Returns the version of an encoded header without decoding the rest, which another version may lay out otherwise.
fn header_version(header_bytes: &[u8]) -> Option<u8> {
    // An array of 1 to 15 elements, of which the first is a number below 128.
    match header_bytes {
        [0x91..=0x9f, version @ 0..=0x7f, ..] => Some(*version),
        _ => None,
    }
}

impl Op {
    /// Signs a new op. `bodies` are those of the header's changes, in order (none for a control op).
    ///
    /// # Errors
    /// [`OpError`] if the header or the bodies break a rule; an op of our own never should.
    pub fn sign(header: Header, bodies: Vec<Body>, key: &SecretKey) -> Result<Self, OpError> {
        let header_bytes = Bytes::from(codec::encode(&header));
        let mut op = Self::assemble(header, header_bytes, bodies.into_iter().map(Some).collect(), None);
        op.check(op.header.cluster)?;
        if op.header.author != key.author() {
            return Err(OpError::Signature);
        }
        op.signature = Some(key.sign_op(&op.id));
        Ok(op)
    }

    fn assemble(header: Header, header_bytes: Bytes, bodies: Vec<Option<Body>>, signature: Option<Signature>) -> Self {
        Self {
            id: OpId::new(hash(Domain::OpHeader, &[&header_bytes])),
            stream: header.stream_key().id(),
            header: std::sync::Arc::new(header),
            header_bytes,
            bodies,
            signature,
        }
    }

    /// Decodes an op and checks everything that the op alone shows, except the signature: encoding, bounds, order,
    /// placement of documents in the shard, and bodies against their commitments.
    ///
    /// # Errors
    /// [`OpError`], by what is wrong.
    pub fn decode(bytes: &[u8], cluster: ClusterId) -> Result<Self, OpError> {
        let WireOp(header_bytes, signature, bodies) =
            codec::decode(bytes, limits::OP_BYTES_MAX).map_err(OpError::Envelope)?;
        if let Some(version) = header_version(&header_bytes)
            && version != limits::OP_VERSION
        {
            return Err(OpError::Version(version));
        }
        let header: Header = codec::decode(&header_bytes, limits::HEADER_BYTES_MAX).map_err(OpError::Header)?;
        let signature = match signature {
            None => None,
            Some(bytes) => Some(Signature::new(bytes.try_into().map_err(|_| OpError::Invalid("signature length"))?)),
        };
        let op = Self::assemble(header, header_bytes.into(), bodies, signature);
        op.check(cluster)?;
        Ok(op)
    }

    /// Encodes the op for the wire and the store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // As `WireOp` reads it.
        codec::encode(&(
            serde_bytes::Bytes::new(&self.header_bytes),
            self.signature.as_ref().map(|signature| serde_bytes::Bytes::new(signature.as_bytes())),
            &self.bodies,
        ))
    }

    fn check(&self, cluster: ClusterId) -> Result<(), OpError> {
        self.header.check().map_err(OpError::Invalid)?;
        if self.header_bytes.len() > limits::HEADER_BYTES_MAX {
            return Err(OpError::Invalid("header too large"));
        }
        let own = if self.header.is_genesis() { ClusterId::from(self.id) } else { self.header.cluster };
        if own != cluster && !(self.header.is_genesis() && cluster == ClusterId::ZERO) {
            return Err(OpError::ForeignCluster(own));
        }
        let mut count = 0;
        for (index, change) in self.header.changes().enumerate() {
            count += 1;
            match self.bodies.get(index) {
                None => return Err(OpError::Invalid("fewer bodies than changes")),
                Some(None) => {}
                Some(Some(body)) => {
                    // The length first: it is the cheaper check.
                    if body.bytes.len() != change.body_bytes as usize || body.commitment() != change.commitment {
                        return Err(OpError::Commitment { index });
                    }
                }
            }
        }
        if self.bodies.len() != count {
            return Err(OpError::Invalid("more bodies than changes"));
        }
        Ok(())
    }

    /// Returns whether the op carries a signature and `key` made it.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.signature.is_some_and(|signature| key.verify_op(&self.id, &signature))
    }

    /// Returns the hash of the header.
    #[must_use]
    pub const fn id(&self) -> OpId {
        self.id
    }

    /// Returns the stream that the op belongs to.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    /// Returns the header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the header, shared.
    #[must_use]
    pub fn header_arc(&self) -> std::sync::Arc<Header> {
        self.header.clone()
    }

    /// Returns the exact bytes that were hashed.
    #[must_use]
    pub const fn header_bytes(&self) -> &Bytes {
        &self.header_bytes
    }

    /// Returns the bodies in the order of the header's changes; `None` where one is not here.
    #[must_use]
    pub fn bodies(&self) -> &[Option<Body>] {
        &self.bodies
    }

    /// Returns the signature, if this op ends a signed run.
    #[must_use]
    pub const fn signature(&self) -> Option<Signature> {
        self.signature
    }

    /// Drops the signature: for ops in mid-run, whose signature nobody checked.
    #[must_use]
    pub fn without_signature(mut self) -> Self {
        self.signature = None;
        self
    }

    /// Returns the op without the bodies of some changes; none if it has none of these.
    #[must_use]
    pub fn without_bodies(&self, leave_out: impl Fn(&ChangeRef) -> bool) -> Option<Self> {
        let mut bodies = self.bodies.clone();
        let mut is_changed = false;
        for (change, body) in self.header.changes().zip(&mut bodies) {
            if body.is_some() && leave_out(change) {
                *body = None;
                is_changed = true;
            }
        }
        is_changed.then(|| Self { bodies, ..self.clone() })
    }

    /// Returns the transactions with the bodies of each.
    pub fn transactions(&self) -> impl Iterator<Item = (&Transaction, &[Option<Body>])> {
        let mut rest: &[Option<Body>] = &self.bodies;
        self.header.transactions().iter().map(move |transaction| {
            let (own, other) = rest.split_at_checked(transaction.changes.len()).unwrap_or((rest, &[]));
            rest = other;
            (transaction, own)
        })
    }

    /// Returns about how many bytes the op takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.header_bytes.len() + 128 + self.bodies.iter().flatten().map(|body| body.bytes.len() + 32).sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
