//! A member that lies: what it passes on is altered on the way. And one that is no replica at all: a [`Villain`].

use bytes::Bytes;
use folkmoot_core::id::{ClusterId, ShardId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{Body, Op};
use folkmoot_core::replica::{Input, Replica};
use folkmoot_core::replication::{
    BulkDocument, DisconnectReason, Input as NetInput, Lane, Misbehaviour, forge_documents, forge_run,
};

use super::clock::EPOCH_MS;
use super::node::{Node, Ops};
use super::world::{Event, World};
use super::{COLLECTION, Trouble};
use crate::villain::{Attack, Material, Villain};

/// Accusations that a lying member has deserved.
const DESERVED: [Misbehaviour; 3] =
    [Misbehaviour::BrokenChain, Misbehaviour::BadSignature, Misbehaviour::FalseDocuments];
/// When a villain begins: its peers know each other by then.
pub(super) const BEGIN_MS: u64 = 5_000;
/// How often it strikes.
const STRIKE_MS: u64 = 50;
/// How long it may take until every node has banned it. What tells of itself only by being repeated takes longest.
const BANNED_MS_MAX: u64 = 180_000;
/// Of a hundred runs and pages of documents that it passes on, so many are altered.
const PERCENT_FORGED: u64 = 50;

/// Makes a villain of a node of the cluster.
pub(super) fn villain(attack: Attack, node: &Node, cluster: ClusterId) -> Villain {
    let control: Vec<Op> = Ops::new(cluster).all(&*node.store).into_iter().map(|(_, op)| Op::clone(&op)).collect();
    let collection = COLLECTION.parse().expect("a good name");
    let shard = ShardId { collection, index: 0, of: 1 };
    Villain::new(attack, Material::new(&node.identity, &control, shard))
}

impl World {
    /// The villain gets a frame.
    pub(super) fn villain_hears(&mut self, to: usize, from: usize, lane: Lane, bytes: &[u8]) {
        let peer = self.nodes[from].author();
        let Some(villain) = self.nodes[to].villain.as_mut() else { return };
        let frames = villain.received(peer, lane, bytes);
        self.send_all(to, from, frames);
    }

    /// The villain does harm to everybody it reaches.
    pub(super) fn strike(&mut self) {
        let Some(index) = self.plan.villain.filter(|_| !self.plan.healed) else { return };
        self.at(STRIKE_MS, Event::Strike);
        let peers: Vec<usize> = self.nodes[index].peers.keys().copied().collect();
        for to in peers {
            let (peer, now_ms) = (self.nodes[to].author(), EPOCH_MS + self.elapsed);
            let Some(villain) = self.nodes[index].villain.as_mut() else { return };
            let frames = villain.strike(peer, now_ms);
            self.send_all(index, to, frames);
        }
    }

    fn send_all(&mut self, from: usize, to: usize, frames: Vec<(Lane, Bytes)>) {
        let Some(session) = self.nodes[from].peers.get(&to).copied() else { return };
        for (lane, bytes) in frames {
            self.send(from, to, session, lane, bytes);
        }
    }

    /// Whether an op is the villain's, which lies on no disk before it is sent.
    pub(super) fn is_villains(&self, op: &Op) -> bool {
        self.plan.villain.is_some_and(|villain| op.header().author == self.nodes[villain].author())
    }

    /// Remembers who banned whom.
    pub(super) fn note_ban(&mut self, node: usize, banned: usize, reason: DisconnectReason) {
        if let DisconnectReason::Banned(..) = reason {
            self.report.bans += 1;
            // A node whose directory was copied, or came back from a backup, is honest all the same. That of which nobody takes anything,
            // since what it sends is forged, sees others lack it for ever and cannot know why.
            let is_honest = ![self.plan.hostile, self.plan.villain].contains(&Some(banned));
            if is_honest && self.plan.hostile != Some(node) {
                let (name, banned) = (&self.nodes[node].name, &self.nodes[banned].name);
                self.fail(format!("{name} has banned {banned}, which is honest: {reason}"));
            }
            let elapsed = self.elapsed;
            self.banned.entry((node, banned)).or_insert(elapsed);
        }
    }

    /// Everybody has banned the villain soon, and nobody else.
    pub(super) fn check_banned(&mut self) -> Result<(), String> {
        let Some(villain) = self.plan.villain else { return Ok(()) };
        for node in (0..self.nodes.len()).filter(|node| *node != villain) {
            let Some(at) = self.banned.get(&(node, villain)) else {
                let known = self.nodes[node].replica.as_ref().map(Replica::conduct);
                return Err(format!("{} has not banned the attacker: {known:?}", self.nodes[node].name));
            };
            let after = at - BEGIN_MS.min(*at);
            self.report.banned_after_ms = self.report.banned_after_ms.max(after);
            if after > BANNED_MS_MAX {
                return Err(format!("{} took {after} ms to ban the attacker", self.nodes[node].name));
            }
        }
        if let Some(((node, banned), _)) = self.banned.iter().find(|((_, banned), _)| *banned != villain) {
            return Err(format!("{} has banned {}", self.nodes[*node].name, self.nodes[*banned].name));
        }
        Ok(())
    }

    /// Returns whether the accusation is one that the node has earned.
    pub(super) fn is_deserved(&self, accused: Option<usize>, what: Misbehaviour) -> bool {
        let Some(accused) = accused else { return false };
        if self.plan.villain == Some(accused) {
            return matches!(self.options.trouble, Trouble::Attack(attack) if attack.misdeeds().contains(&what));
        }
        (self.plan.hostile == Some(accused) && DESERVED.contains(&what))
            || (self.plan.is_equivocator(accused) && what == Misbehaviour::Forked)
    }

    /// Somebody has mended who was at fault, and lets all nodes forget it.
    pub(super) fn pardon_all(&mut self) {
        let peers: Vec<_> = self.nodes.iter().map(Node::author).collect();
        for node in 0..self.nodes.len() {
            for peer in &peers {
                self.step(node, Input::Net(NetInput::Pardoned { peer: *peer }));
            }
        }
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
fn spoil_signature(op: &mut [u8], cluster: ClusterId) -> Option<()> {
    let signature = *Op::decode(op, cluster).ok()?.signature()?.as_bytes();
    let at = op.windows(signature.len()).position(|window| window == signature)?;
    op[at] ^= 1;
    Some(())
}
