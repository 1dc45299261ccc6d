//! Worlds in which all nodes are witnesses: forks are settled while nodes are apart, down, restored and removed, by nobody else.

use folkmoot_core::authority::Verdict;
use folkmoot_core::replica::{ActRequest, Appointment, Input, Replica, Signer};

use super::disk::Disk;
use super::node::{Node, settle};
use super::world::World;
use folkmoot_core::replica::Now;

/// In every so-manieth world; seeds that once failed are none of these, and so stay what they were.
const EVERY: u64 = 9;
const AT: u64 = 4;

/// Returns whether the nodes of a world are witnesses.
pub(super) fn has_witnesses(seed: u64) -> bool {
    seed % EVERY == AT
}

/// The owner makes all nodes witnesses. One of them may run twice, or be removed: then it is a bad one.
pub(super) fn appoint(first: &mut Replica, store: &Disk, now: Now, nodes: &[Node]) {
    let appointment = Appointment { nodes: nodes.iter().map(Node::author).collect(), quorum: None, for_whom: None };
    let input = Input::Act { ticket: 0, signer: Signer::Owner, request: ActRequest::Appoint(appointment) };
    settle(first, store, now, Some(input));
}

impl World {
    /// Counts forks that witnesses have settled, as the first node knows it.
    pub(super) fn count_settled(&mut self) {
        let node = &self.nodes[0];
        let Some(replica) = &node.replica else { return };
        let ops = self.ops.all(&*node.store);
        let mut settled = std::collections::BTreeSet::new();
        for (_, op) in ops.iter().filter(|(_, op)| op.header().control().is_none()) {
            let stream = op.stream();
            let authority = replica.authority();
            let kept = authority.kept_branch(stream, op.header().certificate);
            let is_said = |verdict: Verdict| verdict.is_allowed();
            if kept.is_some_and(|kept| {
                authority.testimonies(stream).any(|said| said.pin.seq >= kept.seq && is_said(said.verdict))
            }) && authority.closed_at(stream, op.header().certificate).is_none()
            {
                settled.insert(stream);
            }
        }
        self.report.forks_settled = settled.len() as u64;
    }
}
