//! A member that lies: what it passes on is altered on the way.

use bytes::Bytes;
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{Body, Op};
use folkmoot_core::replication::{BulkDocument, forge_documents, forge_run};

use super::world::World;

/// Accusations that a lying member has deserved.
const DESERVED: [&str; 3] = ["BrokenChain", "BadSignature", "FalseDocuments"];
/// Of a hundred runs and pages of documents that it passes on, so many are altered.
const PERCENT_FORGED: u64 = 50;

impl World {
    /// Returns whether the accusation is one that the node has earned.
    pub(super) fn is_deserved(&self, accused: Option<usize>, what: &str) -> bool {
        accused.is_some() && accused == self.plan.hostile && DESERVED.contains(&what)
    }

    /// A node says of another that documents which it gave are not what the ops make.
    pub(super) fn refuted(&mut self, node: usize, what: &str) {
        self.report.documents_refuted += 1;
        // What counted when it was given may have been revoked since, or lie on the other branch of a fork.
        let is_revoked = self.plan.removed.is_some() || self.plan.cloned.is_some();
        // And who went back to an old copy of its data does not have what it gave.
        let may_be = [self.plan.hostile, self.plan.rolled_back];
        let is_one_of_them = may_be.iter().flatten().any(|one| what.contains(&self.nodes[*one].author().to_string()));
        if !is_revoked && !is_one_of_them {
            self.fail(format!("{} accuses an honest one: {what}", self.nodes[node].name));
        }
    }

    /// Returns what a node makes of a frame that it sends.
    pub(super) fn forged(&mut self, from: usize, frame: Bytes) -> Bytes {
        if self.plan.hostile != Some(from) || self.plan.healed || !self.random.chance(PERCENT_FORGED) {
            return frame;
        }
        let draw = self.random.bits();
        if let Some(forged) = forge_documents(&frame, |documents| alter(documents, draw)) {
            self.report.documents_forged += 1;
            return forged;
        }
        let forged = forge_run(&frame, |mut ops| {
            // Of a run, only the last op is vouched for by a signature, the others by the chain.
            let middle = ops.len().checked_sub(1).filter(|last| *last > 0);
            match (middle, draw % 4) {
                (Some(last), 0..=2) => {
                    let at = usize::try_from(draw >> 32).ok()? % last;
                    ops[at] = self.altered(&ops[at], &ops[at + 1])?;
                }
                _ => spoil_signature(ops.last_mut()?, self.cluster)?,
            }
            Some(ops)
        });
        let Some(forged) = forged else { return frame };
        self.report.forged += 1;
        forged
    }

    /// Returns an unsigned op that says something else at the same place: with the time of the next one.
    fn altered(&self, op: &[u8], next: &[u8]) -> Option<Vec<u8>> {
        let op = Op::decode(op, self.cluster).ok()?;
        let next = Op::decode(next, self.cluster).ok()?;
        let mut header = op.header().clone();
        if header.hlc == next.header().hlc {
            return None;
        }
        header.hlc = next.header().hlc;
        let bodies: Option<Vec<Body>> = op.bodies().iter().cloned().collect();
        // The simulator has everybody's key. A liar has not, and needs none, since the signature is left out.
        let owners = self.nodes.iter().filter_map(|node| node.identity.owner.as_ref());
        let keys: Vec<&SecretKey> = self.nodes.iter().map(|node| &node.identity.node).chain(owners).collect();
        let key = keys.into_iter().find(|key| key.author() == header.author)?;
        Some(Op::sign(header, bodies?, key).ok()?.without_signature().encode())
    }
}

/// Gives documents the changes of others, which is well-formed and nobody's, or spoils one.
fn alter(mut documents: Vec<BulkDocument>, draw: u64) -> Option<Vec<BulkDocument>> {
    let last = documents.len().checked_sub(1)?;
    if draw.is_multiple_of(4) || last == 0 {
        let change = documents.get_mut(last)?.changes.first_mut()?;
        let at = usize::try_from(draw >> 32).ok()? % change.len();
        *change.get_mut(at)? ^= 1;
        return Some(documents);
    }
    let changes: Vec<_> = documents.iter_mut().map(|document| std::mem::take(&mut document.changes)).collect();
    for (at, changes) in changes.into_iter().enumerate() {
        documents.get_mut((at + 1) % (last + 1))?.changes = changes;
    }
    Some(documents)
}

/// Flips a bit of an op's signature.
fn spoil_signature(op: &mut [u8], cluster: folkmoot_core::id::ClusterId) -> Option<()> {
    let signature = *Op::decode(op, cluster).ok()?.signature()?.as_bytes();
    let at = op.windows(signature.len()).position(|window| window == signature)?;
    op[at] ^= 1;
    Some(())
}
