//! Received runs: decoded, checked as a chain, and verified by one signature.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::digest::Tip;
use super::limits as bounds;
use super::misdeed::Misbehaviour;
use super::mutant::{Mutant, planted};
use crate::authority::{ChainError, check_against_previous};
use crate::id::{AuthorKey, ClusterId, OpId, ShardId, StreamId};
use crate::keys::PublicKey;
use crate::op::{Op, OpError};

/// A chain of ops whose end is verified. Never empty.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) shard: ShardId,
    pub(super) stream: StreamId,
    pub(super) first: u64,
    pub(super) prev: OpId,
    pub(super) ops: Vec<Arc<Op>>,
}

/// Why a run cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RunError {
    /// The sender is at fault.
    Fault(Misbehaviour),
    /// Nothing here vouches for the end: it is unsigned, and no pin that is known here names it.
    Unvouched,
    /// An op of a later format: nobody's fault, but of no use to this program.
    LaterFormat,
}

/// Public keys made ready, in two generations so that evicting costs nothing.
#[derive(Debug, Default)]
pub(super) struct KeyCache {
    young: BTreeMap<AuthorKey, PublicKey>,
    old: BTreeMap<AuthorKey, PublicKey>,
    /// How many signatures were checked.
    pub(super) checks: u64,
}

impl KeyCache {
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn verify(&mut self, op: &Op) -> bool {
        self.checks += 1;
        let author = &op.header().author;
        if let Some(key) = self.young.get(author) {
            return op.is_signed_by(key);
        }
        let Some(key) = self.old.remove(author).or_else(|| PublicKey::new(author)) else { return false };
        let holds = op.is_signed_by(&key);
        if self.young.len() >= bounds::KEY_CACHE_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(*author, key);
        holds
    }
}

impl Run {
    /// Decodes a run and checks each op and the chain, not yet the signature.
    pub(super) fn decode(encoded: &[ByteBuf], cluster: ClusterId) -> Result<Option<Self>, RunError> {
        let mut ops: Vec<Arc<Op>> = Vec::with_capacity(encoded.len().min(bounds::RUN_OPS_MAX));
        for bytes in encoded {
            if bytes.len() > crate::limits::OP_BYTES_MAX {
                return Err(RunError::Fault(Misbehaviour::Malformed));
            }
            let op = Op::decode(bytes, cluster).map_err(|error| match error {
                OpError::ForeignCluster(_) => RunError::Fault(Misbehaviour::ForeignCluster),
                OpError::Signature => RunError::Fault(Misbehaviour::BadSignature),
                OpError::Version(_) => RunError::LaterFormat,
                OpError::Envelope(_) | OpError::Header(_) | OpError::Invalid(_) | OpError::Commitment { .. } => {
                    RunError::Fault(Misbehaviour::Malformed)
                }
            })?;
            if ops.last().is_some_and(|last| !continues(last, &op)) {
                return Err(RunError::Fault(Misbehaviour::BrokenChain));
            }
            ops.push(Arc::new(op));
        }
        let Some(first) = ops.first() else { return Ok(None) };
        let (shard, stream) = (first.header().shard.clone(), first.stream());
        Ok(Some(Self { shard, stream, first: first.header().seq, prev: first.header().prev, ops }))
    }

    /// Checks the signature of the last op; where there is none, whether it is one of the `anchors` that others vouch
    /// for. Signatures in mid-run, which nobody checked, are dropped.
    pub(super) fn verify(&mut self, keys: &mut KeyCache, anchors: &[Tip]) -> Result<(), RunError> {
        let Some((last, before)) = self.ops.split_last_mut() else { return Err(RunError::Unvouched) };
        let tip = Tip { seq: last.header().seq, id: last.id() };
        if last.signature().is_some() {
            if !keys.verify(last) && !planted(Mutant::SignatureNotChecked) {
                return Err(RunError::Fault(Misbehaviour::BadSignature));
            }
        } else if !anchors.contains(&tip) {
            return Err(RunError::Unvouched);
        }
        for op in before {
            if op.signature().is_some() {
                *op = Arc::new(Op::clone(op).without_signature());
            }
        }
        Ok(())
    }

    /// Returns the position of the last op.
    pub(super) fn tip(&self) -> Tip {
        self.ops.last().map_or(Tip::START, |op| Tip { seq: op.header().seq, id: op.id() })
    }

    /// Returns the op at `seq`.
    pub(super) fn at(&self, seq: u64) -> Option<&Arc<Op>> {
        self.ops.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// Cuts off what lies before `seq`.
    pub(super) fn skip_to(mut self, seq: u64) -> Option<Self> {
        let count = usize::try_from(seq.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.ops.len());
        self.ops.drain(..count);
        let first = self.ops.first()?;
        self.prev = first.header().prev;
        self.first = first.header().seq;
        Some(self)
    }

    /// Cuts off what lies beyond `seq`. The new last op loses its signature, which nobody checked: the chain vouches for it.
    pub(super) fn cut_after(mut self, seq: u64) -> Option<Self> {
        if self.tip().seq > seq {
            let keep = usize::try_from((seq + 1).checked_sub(self.first)?).ok()?;
            self.ops.truncate(keep);
        }
        (!self.ops.is_empty()).then_some(self)
    }

    /// Returns about how many bytes the run takes.
    pub(super) fn size(&self) -> usize {
        self.ops.iter().map(|op| op.size()).sum()
    }
}

/// Returns whether `op` directly follows `last` in the same stream.
fn continues(last: &Op, op: &Op) -> bool {
    match check_against_previous(op.header(), last.header(), last.id()) {
        Ok(()) => true,
        Err(ChainError::Previous) => planted(Mutant::LinkNotChecked),
        Err(ChainError::OtherStream | ChainError::Sequence { .. } | ChainError::TimeWentBack) => false,
    }
}
