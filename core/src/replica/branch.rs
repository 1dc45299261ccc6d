//! Branches of forked streams: the main chain becomes the one that a pin or witnesses keep, and chains that pins and evidence name
//! are fetched.
//!
//! Invariant: the index of changes names ops of main chains only.

use std::sync::Arc;

use super::outcome::named_changes;
use super::records::{TxRef, TxState};
use super::types::Effect;
use super::{Now, Replica};
use crate::authority::{Position, check_against_previous};
use crate::hlc::Hlc;
use crate::id::{OpId, ShardId, StreamId};
use crate::op::{Op, Pin};
use crate::replication::{Input as NetInput, Tip};
use crate::store::keys::{ChangeKey, ChangePlace, Key as _, OpKey};
use crate::store::{Keyspace, Order};

/// A stream whose main chain a batch replaces.
#[derive(Debug)]
pub(super) struct Swap {
    shard: ShardId,
    stream: StreamId,
    tip: Tip,
    hlc: Hlc,
    arrival: u64,
    /// What was the main chain, from where the two part.
    old: Vec<Arc<Op>>,
    /// What is it now.
    new: Vec<Arc<Op>>,
}

impl Replica {
    /// Changes to the branches that count, as far as they are here. Not while there is other work: what the old branch
    /// brought must be out of the documents.
    pub(super) fn follow_kept_branches(&mut self) {
        let is_busy = !self.ready.is_empty() || !self.rejudging.is_empty() || !self.swapping.is_empty();
        if !self.branches_due || is_busy {
            return;
        }
        self.branches_due = false;
        let forked: Vec<StreamId> =
            self.heads.iter().filter(|(_, head)| head.fork.is_some()).map(|(stream, _)| *stream).collect();
        for stream in forked {
            self.follow_kept_branch(stream);
        }
    }

    fn follow_kept_branch(&mut self, stream: StreamId) {
        let Some(head) = self.heads.get(&stream).cloned() else { return };
        for pin in self.authority.awaited_evidence(stream, head.key.certificate) {
            self.need_pin(&head.key.shard, pin);
        }
        if head.key.shard.is_control() {
            return;
        }
        let Some(pin) = self.authority.kept_branch(stream, head.key.certificate) else { return };
        let chains = self.chains();
        if chains.main(&stream, pin.seq) == Some(pin.head) {
            return;
        }
        let is_settled = self.undurable.is_settled(stream)
            && self.shards.get(&head.key.shard).is_none_or(|shard| shard.unapplied() == 0);
        if !is_settled {
            self.branches_due = true;
            return;
        }
        let Some(new) = self.branch_to(&pin) else { return self.need_pin(&head.key.shard, pin) };
        let Some(parts_at) = new.first().map(|op| op.header().seq) else { return };
        let old: Vec<Arc<Op>> = (parts_at..=head.seq).map_while(|seq| self.chains().main_op(&stream, seq)).collect();
        let mut is_out = true;
        for op in &old {
            for tx in TxRef::all_of(op) {
                if self.tx_state(&tx) != Some(TxState::Forked) {
                    self.owe(tx);
                    is_out = false;
                }
            }
        }
        if is_out {
            self.change_branch(stream, old, new);
        } else {
            self.branches_due = true;
        }
    }

    /// Returns the ops of the branch that ends in a pin, from where it leaves the main chain, and on to the next signed
    /// one if that is here; none if the branch is not here whole or is no sound chain.
    fn branch_to(&self, pin: &Pin) -> Option<Vec<Arc<Op>>> {
        let chains = self.chains();
        let mut branch: Vec<Arc<Op>> = Vec::new();
        let (mut seq, mut id) = (pin.seq, pin.head);
        let mut before = None;
        while seq > 0 {
            if let Some(op) = chains.main_op(&pin.stream, seq).filter(|op| op.id() == id) {
                before = Some(op);
                break;
            }
            let op = chains.branch_op(&pin.stream, seq, id)?;
            (seq, id) = (seq - 1, op.header().prev);
            branch.push(op);
        }
        branch.reverse();
        for op in &branch {
            if let Some(before) = before {
                check_against_previous(op.header(), before.header(), before.id()).ok()?;
            }
            before = Some(op.clone());
        }
        // Others must be able to verify what they are given.
        while let Some(last) = branch.last().filter(|last| last.signature().is_none()) {
            let Some(next) = self.branch_op_after(last) else { break };
            branch.push(next);
        }
        Some(branch)
    }

    fn branch_op_after(&self, last: &Op) -> Option<Arc<Op>> {
        let (stream, seq) = (last.stream(), last.header().seq.checked_add(1)?);
        let span = OpKey::place(stream, seq);
        let keys = self.store.scan(Keyspace::Ops, &span, Order::Ascending).filter_map(Result::ok);
        let branches = keys.filter_map(|(key, _)| OpKey::decode(&key).ok()?.branch);
        let mut ops = branches.filter_map(|id| self.chains().branch_op(&stream, seq, id));
        ops.find(|op| op.header().prev == last.id() && op.header().hlc >= last.header().hlc)
    }

    /// Makes a branch the main chain, in one batch, and has it judged once that is on the disk.
    fn change_branch(&mut self, stream: StreamId, old: Vec<Arc<Op>>, new: Vec<Arc<Op>>) {
        let bare = |ops: Vec<Arc<Op>>| -> Vec<Arc<Op>> { ops.into_iter().map(|op| self.without_erased(op)).collect() };
        let (old, new) = (bare(old), bare(new));
        let (Some(first), Some(last)) = (new.first().cloned(), new.last().cloned()) else { return };
        let parts_at = first.header().seq;
        let shard = last.header().shard.clone();
        for op in &old {
            let seq = op.header().seq;
            for tx in TxRef::all_of(op) {
                for (_, hash) in named_changes(op, tx) {
                    let key = ChangeKey(hash).encode();
                    let place =
                        self.read_back(Keyspace::Index, &key).and_then(|value| ChangePlace::decode(&value).ok());
                    if place.is_some_and(|place| place.stream == stream && place.seq >= parts_at) {
                        self.delete(Keyspace::Index, key);
                    }
                }
            }
            self.delete(Keyspace::Ops, OpKey::new(stream, seq).encode());
            self.put(Keyspace::Ops, OpKey { stream, seq, branch: Some(op.id()) }.encode(), &op.encode());
            self.undurable.insert_branch(op.clone());
        }
        for op in &new {
            let seq = op.header().seq;
            self.delete(Keyspace::Ops, OpKey { stream, seq, branch: Some(op.id()) }.encode());
            self.put(Keyspace::Ops, OpKey::new(stream, seq).encode(), &op.encode());
            self.undurable.insert(op.clone());
        }
        self.note_branch(stream, &new);
        let state = self.shards.entry(shard.clone()).or_default();
        state.arrivals += 1;
        state.dirty = true;
        let arrival = state.arrivals;
        let tip = Tip { seq: last.header().seq, id: last.id() };
        if let Some(head) = self.heads.get_mut(&stream) {
            head.seq = tip.seq;
            head.head = tip.id;
            head.hlc = last.header().hlc;
            head.arrival = arrival;
            self.staged.heads.insert(stream);
        }
        self.owe_stream(stream, parts_at);
        self.swapping.insert(stream);
        self.staged.swaps.push(Swap { shard, stream, tip, hlc: last.header().hlc, arrival, old, new });
    }

    /// Has the verdict engine note a stream again: what is shared from the store, as far as anything is learnt from it, and
    /// the branch.
    fn note_branch(&mut self, stream: StreamId, branch: &[Arc<Op>]) {
        let parts_at = branch.first().map_or(1, |op| op.header().seq);
        let Some(head) = self.heads.get_mut(&stream) else { return };
        head.policies.retain(|seq| *seq < parts_at);
        head.noted = head.noted.min(parts_at.saturating_sub(1));
        let shared_noted = head.noted;
        let shared: Vec<Arc<Op>> = {
            let policies = head.policies.clone();
            policies.iter().filter_map(|seq| self.chains().main_op(&stream, *seq)).collect()
        };
        self.authority.forget_data(stream);
        let noted = shared.iter().map(|op| (Position { stream, seq: op.header().seq, op: op.id() }, op.header()));
        self.authority.resume_data(noted, shared_noted);
        for op in branch {
            self.note_op(op);
        }
    }

    /// A batch with these changes of branch is durable.
    pub(super) fn on_swaps_durable(&mut self, now: Now, swaps: Vec<Swap>, effects: &mut Vec<Effect>) {
        for Swap { shard, stream, tip, hlc, arrival, old, new } in swaps {
            for op in &old {
                self.undurable.remove_branch(op);
            }
            for op in &new {
                self.undurable.remove(stream, op.header().seq);
            }
            self.swapping.remove(&stream);
            self.step_engine(now, NetInput::BranchChanged { shard, stream, tip, hlc, arrival }, effects);
        }
    }

    // ---- chains that pins name ----

    /// Asks for the chain that ends in a pin.
    pub(super) fn need_pin(&mut self, shard: &ShardId, pin: Pin) {
        let tip = Tip { seq: pin.seq, id: pin.head };
        if self.needed_pins.insert((pin.stream, pin.head), (shard.clone(), tip)).is_none() {
            self.asked_pins.push((shard.clone(), pin.stream, tip));
        }
    }

    /// Tells which of these chains are here, and has what waited for them judged.
    pub(super) fn settle_pins(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let here: Vec<(StreamId, OpId)> = self
            .needed_pins
            .iter()
            .filter(|((stream, id), (_, tip))| {
                self.chains().has_whole(&Pin { stream: *stream, seq: tip.seq, head: *id })
            })
            .map(|(key, _)| *key)
            .collect();
        for (stream, id) in here {
            self.needed_pins.remove(&(stream, id));
            self.branches_due = true;
            self.ready.extend(self.waits.deferred().iter().filter(|tx| tx.stream == stream));
            self.spilled.recall_all();
            self.step_engine(now, NetInput::OpSettled { stream, id }, effects);
        }
    }
}

impl Replica {
    /// Tells the verdict engine that an op is here which is not on the main chain.
    pub(super) fn note_aside(&mut self, op: &Op) {
        if op.header().shard.is_control() {
            let _ = self.authority.add_control(op.id(), op.header_arc());
            self.follow_erasures();
        } else {
            let at = Position { stream: op.stream(), seq: op.header().seq, op: op.id() };
            self.authority.note_aside(&at);
        }
    }
}
