//! Under which right an op was made, shown to whoever knows the cluster's id only: the acts that its author knew, from the genesis on,
//! each in a chain that ends in a signature. Whoever has them judges by the same rule as every replica.
//!
//! What is shown is what the author knew. A revocation that it had not heard of is not in it: it may cut the op all the same, and a
//! node of the cluster is to be asked for that.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::log::{LogError, damaged};
use super::proof::{ProofError, bare, run_to_signature, unbase64};
use crate::authority::{Authority, Chains, Position, Why};
use crate::id::{ClusterId, OpId, StreamId};
use crate::keys::PublicKey;
use crate::limits::{AUDIT_PROOF_ACTS_MAX, AUDIT_PROOF_BYTES_MAX, AUDIT_PROOF_STREAMS_MAX};
use crate::op::{Op, Pin};
use crate::store::keys::{Key as _, OpKey};
use crate::store::{Keyspace, Read, envelope};

/// The acts that an author knew. Bytes are base64.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RightsProof {
    /// Chains of acts from their first one on, each up to one that is signed.
    pub acts: Vec<Vec<String>>,
    /// Earlier ops of the op's stream in which its author showed what it knew, each with those behind it up to one that is signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knew: Vec<Vec<String>>,
}

/// Acts that were shown, and prove themselves.
#[derive(Clone, Debug)]
pub struct Rights {
    acts: Vec<Op>,
    knew: Vec<Op>,
}

/// What lies on which branch of a stream is not shown.
struct NotShown;

impl Chains for NotShown {
    fn at(&self, _: u64, _: &Pin) -> Option<OpId> {
        None
    }

    fn earlier_ends(&self, _: &Pin) -> Option<Vec<Pin>> {
        None
    }
}

fn position(op: &Op) -> Position {
    Position { stream: op.stream(), seq: op.header().seq, op: op.id() }
}

/// Collects what shows the rights of an op; `None` if it is too much for a proof, or not all here. `control` is the control log; `knew` are the numbers of
/// earlier ops of the op's stream that show knowledge.
///
/// # Errors
/// [`LogError`] if the store cannot be read.
pub fn rights_of(
    read: &dyn Read,
    cluster: ClusterId,
    op: &Op,
    control: &[Op],
    knew: &[u64],
) -> Result<Option<RightsProof>, LogError> {
    let is_control = op.header().shard.is_control();
    let mut shown = Vec::new();
    // Of an act all before it are shown anyhow.
    for seq in knew.iter().filter(|seq| **seq < op.header().seq && !is_control) {
        let key = OpKey::new(op.stream(), *seq).encode();
        let stored = read.get(Keyspace::Ops, &key)?.ok_or(LogError::OpNotFound(op.id()))?;
        let earlier = Op::decode(&envelope::open(stored).map_err(damaged)?, cluster).map_err(damaged)?;
        shown.push(run_to_signature(read, cluster, earlier)?);
    }
    let by_id: BTreeMap<OpId, &Op> = control.iter().map(|act| (act.id(), act)).collect();
    let named = |op: &Op| -> Vec<OpId> {
        let before = (op.header().seq > 1 && op.header().shard.is_control()).then_some(op.header().prev);
        op.header().control_heads.iter().copied().chain(before).collect()
    };
    let mut open: Vec<OpId> = named(op);
    open.extend(shown.iter().filter_map(|run| run.first()).flat_map(named));
    open.extend(is_control.then(|| op.id()));
    open.push(cluster.genesis());
    let mut known: BTreeMap<StreamId, BTreeMap<u64, &Op>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        // What lies on a branch that is not kept, for instance.
        let Some(act) = by_id.get(&id) else { return Ok(None) };
        known.entry(act.stream()).or_default().insert(act.header().seq, act);
        open.extend(named(act));
    }
    if seen.len() > AUDIT_PROOF_ACTS_MAX || known.len() > AUDIT_PROOF_STREAMS_MAX {
        return Ok(None);
    }
    let text = |op: &Op| STANDARD.encode(bare(op));
    let mut acts = Vec::with_capacity(known.len());
    for chain in known.into_values() {
        let mut told: Vec<String> = chain.values().map(|act| text(act)).collect();
        if let Some((_, last)) = chain.last_key_value() {
            told.extend(run_to_signature(read, cluster, (*last).clone())?.iter().skip(1).map(text));
        }
        acts.push(told);
    }
    let knew: Vec<Vec<String>> = shown.iter().map(|run| run.iter().map(text).collect()).collect();
    // The JSON around it is a little more.
    let bytes: usize = acts.iter().chain(&knew).flatten().map(|text| text.len() + 16).sum();
    Ok((bytes < AUDIT_PROOF_BYTES_MAX / 4 * 3).then_some(RightsProof { acts, knew }))
}

/// Checks that ops follow one another and that the last one is signed; returns them.
pub(super) fn checked_chain(cluster: ClusterId, texts: &[String]) -> Result<Vec<Op>, ProofError> {
    let mut ops: Vec<Op> = Vec::new();
    for text in texts {
        let op = Op::decode(&unbase64(text)?, cluster)?;
        if let Some(before) = ops.last() {
            let (header, own) = (op.header(), before.header());
            if op.stream() != before.stream() || header.seq != own.seq + 1 || header.prev != before.id() {
                return Err(ProofError::Chain);
            }
        }
        ops.push(op);
    }
    let signed = ops.last().ok_or(ProofError::Chain)?;
    let key = PublicKey::new(&signed.header().author).ok_or(ProofError::Signature)?;
    if signed.is_signed_by(&key) { Ok(ops) } else { Err(ProofError::Signature) }
}

impl Rights {
    /// Checks what is shown for an op.
    ///
    /// # Errors
    /// [`ProofError`] if something of it does not prove itself.
    pub(super) fn check(cluster: ClusterId, op: &Op, proof: &RightsProof) -> Result<Self, ProofError> {
        let count = |chains: &[Vec<String>]| chains.iter().map(Vec::len).sum::<usize>();
        if proof.acts.len() > AUDIT_PROOF_STREAMS_MAX
            || count(&proof.acts) + count(&proof.knew) > 2 * AUDIT_PROOF_ACTS_MAX
        {
            return Err(ProofError::TooMany);
        }
        let mut acts = Vec::new();
        for chain in &proof.acts {
            let chain = checked_chain(cluster, chain)?;
            let begins =
                chain.first().is_some_and(|first| first.header().shard.is_control() && first.header().seq == 1);
            if !begins {
                return Err(ProofError::Chain);
            }
            acts.extend(chain);
        }
        let mut knew = Vec::new();
        for run in &proof.knew {
            let first = checked_chain(cluster, run)?.into_iter().next().ok_or(ProofError::Chain)?;
            if first.stream() != op.stream() || first.header().seq >= op.header().seq {
                return Err(ProofError::Chain);
            }
            knew.push(first);
        }
        knew.sort_by_key(|op| op.header().seq);
        Ok(Self { acts, knew })
    }

    /// Returns how many acts are shown.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.acts.len()
    }

    /// Returns whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// Judges the op by what is shown: each of its transactions, or the act that it is. Also returns the control log of it, which
    /// names whom it is about.
    #[must_use]
    pub fn judge(&self, op: &Op) -> (Authority, Vec<Why>) {
        let header = op.header();
        let mut authority = Authority::new(header.cluster);
        // Ops of the control shard are acts, so there is nothing that could be wrong with them.
        let _ = authority.add_controls(self.acts.iter().map(|act| (act.id(), act.header_arc())));
        if header.shard.is_control() {
            let whys = authority.why_act(op.id()).into_iter().collect();
            return (authority, whys);
        }
        let shown = self.knew.iter().chain([op]).map(|op| (position(op), op.header()));
        authority.resume_data(shown, header.seq);
        let at = position(op);
        let judged = (0..header.transactions().len()).map(|number| authority.why(&at, header, number, &NotShown));
        let whys = judged.collect();
        (authority, whys)
    }
}
