//! Searches for what is needed by name: a change that a document depends on, an op that a pin names. It may lie where
//! peers do not relay by themselves, beyond a pin or on another branch of a fork.

use std::time::Duration;

use super::api::{Peer, Timestamp};
use super::digest::Tip;
use super::engine::{Cx, Engine};
use super::frame::{Found, Frame, Reach, Want};
use super::heads::StreamAt;
use super::limits as bounds;
use crate::id::{ChangeHash, OpId, ShardId};

/// When a search is repeated.
#[derive(Debug)]
struct Retry {
    at: Timestamp,
    delay: Duration,
}

impl Retry {
    const fn now(now: Timestamp) -> Self {
        Self { at: now, delay: bounds::NEED_RETRY }
    }

    fn again(&mut self, now: Timestamp) {
        self.at = now.after(self.delay);
        self.delay = (self.delay * 2).min(bounds::NEED_RETRY_MAX);
    }
}

/// A change that is searched for.
#[derive(Debug)]
pub(super) struct NeededChange {
    hint: Option<Peer>,
    retry: Retry,
}

/// An op that is searched for.
#[derive(Debug)]
pub(super) struct NeededOp {
    tip: Tip,
    hint: Option<Peer>,
    retry: Retry,
    /// How often it was asked for: the peers take turns.
    tries: usize,
    /// Where to ask from, once known better than by our own head.
    from: Option<u64>,
    /// The last op of the branch that came so far.
    branch: Option<Tip>,
}

/// A piece of the chain that leads to a needed op.
#[derive(Clone, Copy, Debug)]
pub(super) struct NeededPiece {
    /// Its last op.
    pub(super) end: Tip,
    /// Whether it lies on another branch than our own chain.
    pub(super) parts: bool,
}

impl Engine {
    pub(super) fn need_change(&mut self, cx: &mut Cx<'_>, shard: ShardId, change: ChangeHash, hint: Option<Peer>) {
        let key = (shard, change);
        if self.needed_changes.contains_key(&key) {
            return;
        }
        if self.needed_changes.len() >= bounds::NEEDS_MAX {
            self.give_up_a_change(&key.0);
        }
        self.needed_changes.insert(key, NeededChange { hint, retry: Retry::now(cx.now) });
        // All that come in a moment are asked for together.
        self.changes_due = true;
        self.flush_at.get_or_insert(cx.now.after(bounds::FLUSH_DELAY));
    }

    /// Makes room: of a few that are searched for the one that is so longest in vain. Names of what does not exist keep
    /// nothing else away, and to know the oldest of all is not worth a look at each.
    fn give_up_a_change(&mut self, shard: &ShardId) {
        let mut pivot = [0; 32];
        pivot[..8].copy_from_slice(&self.random.next().to_be_bytes());
        let pivot = (shard.clone(), ChangeHash::new(pivot));
        let some = self.needed_changes.range(&pivot..).chain(self.needed_changes.range(..&pivot));
        let oldest = some.take(bounds::NEEDS_COMPARED).max_by_key(|(_, needed)| needed.retry.delay);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.needed_changes.remove(&key);
        }
    }

    pub(super) fn need_op(&mut self, cx: &mut Cx<'_>, at: &StreamAt, tip: Tip, hint: Option<Peer>) {
        if tip.seq > 0 && self.needed_ops.len() < bounds::NEEDS_MAX {
            let needed = NeededOp { tip, hint, retry: Retry::now(cx.now), tries: 0, from: None, branch: None };
            self.needed_ops.entry((at.clone(), tip.id)).or_insert(needed);
            self.ask_for_ops(cx);
        }
    }

    /// A peer appeared: it may have what is searched for.
    pub(super) fn meet_needs(&mut self, peer: Peer) {
        for needed in self.needed_changes.values_mut() {
            needed.retry.at = Timestamp::default();
        }
        for needed in self.needed_ops.values_mut() {
            needed.retry.at = Timestamp::default();
            needed.hint = Some(peer);
        }
    }

    pub(super) fn sweep_needs(&mut self, cx: &mut Cx<'_>) {
        self.ask_for_changes(cx);
        self.ask_for_ops(cx);
    }

    pub(super) fn ask_for_changes(&mut self, cx: &mut Cx<'_>) {
        let peers = self.introduced();
        let mut due: Vec<(ShardId, ChangeHash, Option<Peer>)> = Vec::new();
        for ((shard, change), needed) in &mut self.needed_changes {
            if needed.retry.at <= cx.now {
                needed.retry.again(cx.now);
                // The hint is asked first and alone, later everybody.
                due.push((shard.clone(), *change, needed.hint.take().filter(|hint| peers.contains(hint))));
            }
        }
        for group in due.chunk_by(|a, b| a.0 == b.0 && a.2 == b.2) {
            let Some((shard, _, hint)) = group.first() else { continue };
            for part in group.chunks(bounds::WANT_MAX) {
                let changes = part.iter().map(|(_, change, _)| *change).collect();
                let want = Frame::Want(Want { shard: shard.clone(), changes });
                for peer in peers.iter().filter(|peer| hint.is_none_or(|hint| hint == **peer)) {
                    if self.shares(cx, peer, &shard.collection) {
                        self.send(cx, *peer, &want);
                    }
                }
            }
        }
    }

    pub(super) fn found(&mut self, cx: &mut Cx<'_>, peer: Peer, found: Found) {
        if !self.shares(cx, &peer, &found.shard.collection) {
            return;
        }
        for (change, stream, seq) in found.changes {
            let at = StreamAt::new(&found.shard, stream);
            // On a branch it is of no use, unless a pin keeps that: then the pin's op is asked for.
            let own = self.heads.get(&at);
            let is_branch = own.and_then(|own| own.fork).is_some_and(|fork| fork <= seq);
            let is_behind = own.is_none_or(|own| own.ingested.tip.seq < seq);
            if is_branch || !self.needed_changes.contains_key(&(found.shard.clone(), change)) {
                continue;
            }
            if is_behind {
                self.want(&at, peer, seq, Reach::Beyond(()));
            } else {
                // Our own op at this place does not bring the change, or it only waits to be applied: the peer's op tells.
                // Beyond a pin no digest shows such a fork.
                self.fetch_branches(cx, &at, peer, seq, None);
            }
        }
    }

    fn ask_for_ops(&mut self, cx: &mut Cx<'_>) {
        let due: Vec<(StreamAt, OpId)> = self
            .needed_ops
            .iter()
            .filter(|(_, needed)| needed.retry.at <= cx.now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let peers: Vec<Peer> =
                self.introduced().into_iter().filter(|peer| self.shares(cx, peer, &key.0.shard().collection)).collect();
            let stream = self.heads.get(&key.0);
            let fork = stream.and_then(|stream| stream.fork);
            let durable = stream.map_or(0, |stream| stream.durable.tip.seq);
            let Some(needed) = self.needed_ops.get_mut(&key) else { continue };
            needed.retry.again(cx.now);
            let turn = needed.tries.checked_rem(peers.len()).unwrap_or(0);
            needed.tries += 1;
            let hinted = needed.hint.take().filter(|hint| peers.contains(hint));
            let Some(peer) = hinted.or_else(|| peers.get(turn).copied()) else { continue };
            let tip = needed.tip;
            let from = needed.from.unwrap_or_else(|| match fork {
                Some(fork) => fork.min(tip.seq),
                None if durable < tip.seq => durable + 1,
                None => tip.seq.saturating_sub(255).max(1),
            });
            self.fetch_branches(cx, &key.0, peer, from, Some(tip));
        }
    }

    /// Returns the ops that others vouch for by name.
    pub(super) fn needed_tips(&self, at: &StreamAt) -> Vec<Tip> {
        let from = (at.clone(), OpId::ZERO);
        self.needed_ops.range(from..).take_while(|((of, _), _)| of == at).map(|(_, needed)| needed.tip).collect()
    }

    /// Returns whether an op with this `prev` goes on with the branch that came so far.
    pub(super) fn continues_branch(&self, at: &StreamAt, needed: Tip, prev: OpId) -> bool {
        self.needed_ops
            .get(&(at.clone(), needed.id))
            .and_then(|needed| needed.branch)
            .is_some_and(|branch| branch.id == prev)
    }

    /// A piece of the needed branch came that does not follow our chain: they part further back.
    pub(super) fn needed_detached(
        &mut self,
        cx: &mut Cx<'_>,
        at: &StreamAt,
        needed: Option<Tip>,
        peer: Peer,
        first: u64,
    ) {
        let Some(tip) = needed else { return };
        let Some(entry) = self.needed_ops.get_mut(&(at.clone(), tip.id)) else { return };
        let from = (first / 2).max(1);
        entry.from = Some(from);
        entry.branch = None;
        if from < first {
            self.fetch_branches(cx, at, peer, from, Some(tip));
        }
    }

    /// A piece of the needed chain came; asks for the next one.
    pub(super) fn needed_arrived(
        &mut self,
        cx: &mut Cx<'_>,
        at: &StreamAt,
        needed: Tip,
        peer: Peer,
        NeededPiece { end, parts }: NeededPiece,
    ) {
        let Some(entry) = self.needed_ops.get_mut(&(at.clone(), needed.id)) else { return };
        entry.branch = parts.then_some(end);
        if end.seq < needed.seq {
            entry.from = Some(end.seq + 1);
            self.fetch_branches(cx, at, peer, end.seq + 1, Some(needed));
        }
    }
}
