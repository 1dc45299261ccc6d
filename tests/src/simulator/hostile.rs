//! A member that lies: what it passes on is altered on the way.

use bytes::Bytes;
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{Body, Op};
use folkmoot_core::replication::forge_run;

use super::world::World;

/// Accusations that a lying member has deserved.
const DESERVED: [&str; 2] = ["BrokenChain", "BadSignature"];
/// Of a hundred runs that it passes on, so many are altered.
const PERCENT_FORGED: u64 = 50;

impl World {
    /// Returns whether the accusation is one that the node has earned.
    pub(super) fn is_deserved(&self, accused: Option<usize>, what: &str) -> bool {
        accused.is_some() && accused == self.plan.hostile && DESERVED.contains(&what)
    }

    /// Returns what a node makes of a frame that it sends.
    pub(super) fn forged(&mut self, from: usize, frame: Bytes) -> Bytes {
        if self.plan.hostile != Some(from) || self.plan.healed || !self.random.chance(PERCENT_FORGED) {
            return frame;
        }
        let draw = self.random.bits();
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

/// Flips a bit of an op's signature.
fn spoil_signature(op: &mut [u8], cluster: folkmoot_core::id::ClusterId) -> Option<()> {
    let signature = *Op::decode(op, cluster).ok()?.signature()?.as_bytes();
    let at = op.windows(signature.len()).position(|window| window == signature)?;
    op[at] ^= 1;
    Some(())
}
