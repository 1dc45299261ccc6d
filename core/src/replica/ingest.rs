//! Between the replication engine and the rest: its effects are carried out here, its questions answered from the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chains::StoredChains;
use super::rejudge::closed_tip;
use super::types::Effect;
use super::{Now, Placed, Replica};
use crate::authority::{Action, Authority, Decision, Noted, Position, WrittenFor};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ChangeHash, CollectionName, OpId, ShardId, StreamId};
use crate::limits::CLOCK_AHEAD_MAX;
use crate::op::Op;
use crate::replication::{
    self, CertificateState, Committed, DisconnectReason, Input as NetInput, OpForm, Policy, Timestamp, Tip,
};
use crate::store::Keyspace;
use crate::store::keys::{ChangeKey, ChangePlace, Key as _, OpKey, WrittenForKey};

impl Now {
    pub(super) const fn timestamp(self) -> Timestamp {
        Timestamp::from_micros(self.monotonic_ms.saturating_mul(1_000))
    }
}

/// The verdict engine as the replication engine asks it.
pub(super) struct AuthorityPolicy<'a> {
    pub(super) authority: &'a Authority,
    pub(super) closed: &'a BTreeMap<StreamId, Tip>,
    pub(super) now: Hlc,
}

impl Policy for AuthorityPolicy<'_> {
    fn certificate(&self, certificate: &OpId, author: &AuthorKey) -> CertificateState {
        // The genesis itself is bound to no certificate; it is its owners' own.
        let genesis = self.authority.cluster().genesis();
        let certificate = if *certificate == OpId::ZERO { genesis } else { *certificate };
        match self.authority.is_certified(certificate, *author) {
            None => CertificateState::Unknown,
            Some(true) => CertificateState::Known,
            Some(false) => CertificateState::Mismatch,
        }
    }

    fn closed_at(&self, stream: &StreamId) -> Option<Tip> {
        self.closed.get(stream).copied()
    }

    fn accepts_time(&self, hlc: Hlc) -> bool {
        let ahead = u64::try_from(CLOCK_AHEAD_MAX.as_millis()).unwrap_or(u64::MAX);
        hlc.millis() <= self.now.millis().saturating_add(ahead)
    }

    fn is_member(&self, peer: &AuthorKey) -> bool {
        self.authority.is_member(*peer, self.now)
    }

    fn may_sync(&self, peer: &AuthorKey, collection: &CollectionName) -> bool {
        collection.as_str() == CollectionName::CONTROL
            || self.authority.member(*peer, self.now).is_some_and(|member| {
                matches!(
                    self.authority.may(member.principal, Action::Read, collection, None, self.now),
                    Decision::Allowed { .. }
                )
            })
    }
}

impl Replica {
    /// Gives the replication engine an input and carries out what it asks for, questions to the store included.
    pub(super) fn step_engine(&mut self, now: Now, input: NetInput, effects: &mut Vec<Effect>) {
        let mut out = Vec::new();
        let policy =
            AuthorityPolicy { authority: &self.authority, closed: &self.closed, now: Hlc::new(now.wall_ms, 0) };
        self.engine.step(now.timestamp(), input, &policy, &mut out);
        self.carry_out(now, out, effects);
    }

    /// Says when the replica wants to be stepped again at the latest.
    #[must_use]
    pub fn next_wakeup_ms(&self) -> u64 {
        self.engine.next_wakeup().millis()
    }

    pub(super) fn carry_out(&mut self, now: Now, out: Vec<replication::Effect>, effects: &mut Vec<Effect>) {
        for effect in out {
            match effect {
                replication::Effect::Send { peer, lane, bytes } => effects.push(Effect::Send { peer, lane, bytes }),
                replication::Effect::Ingest { from, shard, stream, ops } => {
                    self.ingest(now, from, shard, stream, ops, effects);
                }
                replication::Effect::ReadDocuments { ticket, shard, after, part, since } => {
                    let (documents, next) = self.read_documents(&shard, after.as_ref(), part, since);
                    let total = self.shards.get(&shard).map_or(0, |state| state.documents);
                    self.step_engine(now, NetInput::DocumentsRead { ticket, documents, next, total }, effects);
                }
                replication::Effect::TakeDocuments { request, from, shard, documents } => {
                    self.take_documents(now, request, from, shard, &documents, effects);
                }
                replication::Effect::BulkMoved { shard } => self.keep_bulk(&shard),
                replication::Effect::CompleteOps { ticket, ops } => {
                    let ops = self.complete_ops(&ops);
                    self.step_engine(now, NetInput::OpsCompleted { ticket, ops }, effects);
                }
                replication::Effect::BulkEnded { shard, progress, equal } => self.bulk_ended(shard, &progress, equal),
                replication::Effect::ReadOps { ticket, stream, from_seq, ops_max, bytes_max, form, .. } => {
                    let mut ops = self.read_ops(stream, from_seq, ops_max, bytes_max);
                    if form == OpForm::Bare {
                        ops = self.bare(ops);
                    }
                    self.step_engine(now, NetInput::OpsRead { ticket, ops }, effects);
                }
                replication::Effect::ReadIds { ticket, stream, seqs, .. } => {
                    let ids = seqs.into_iter().map(|seq| self.chains().main(&stream, seq)).collect();
                    self.step_engine(now, NetInput::IdsRead { ticket, ids }, effects);
                }
                replication::Effect::ReadBranches { ticket, stream, from_seq, through, ops_max, bytes_max, .. } => {
                    let branches = self.read_branches(stream, from_seq, through, ops_max, bytes_max);
                    self.step_engine(now, NetInput::BranchesRead { ticket, branches }, effects);
                }
                replication::Effect::LocateChanges { ticket, changes, .. } => {
                    let found = changes.into_iter().filter_map(|change| self.locate(change)).collect();
                    self.step_engine(now, NetInput::ChangesLocated { ticket, found }, effects);
                }
                replication::Effect::ReadEarlier { ticket, stream, ends_max, .. } => {
                    let ends = self.read_earlier(stream, ends_max);
                    self.step_engine(now, NetInput::EarlierRead { ticket, ends }, effects);
                }
                replication::Effect::ForkFound { shard, stream, seq, ops, .. } => {
                    self.fork_found(now, shard, stream, seq, &ops, effects);
                }
                replication::Effect::Misbehaved { peer, what } => effects.push(Effect::Misbehaved { peer, what }),
                replication::Effect::Disconnect { peer, reason } => {
                    self.bans_changed |= matches!(reason, DisconnectReason::Banned(..));
                    effects.push(Effect::Disconnect { peer, reason });
                }
            }
        }
    }

    fn ingest(
        &mut self,
        now: Now,
        from: AuthorKey,
        shard: ShardId,
        stream: StreamId,
        ops: Vec<Arc<Op>>,
        effects: &mut Vec<Effect>,
    ) {
        self.notice_copy(&shard, stream, &ops, effects);
        let next = self.heads.get(&stream).map_or(1, |head| head.seq + 1);
        if self.halted.is_some() || ops.first().is_none_or(|op| op.header().seq != next) {
            self.step_engine(now, NetInput::Refused { shard, stream }, effects);
            return;
        }
        if next == 1
            && !shard.is_control()
            && !self.closed.contains_key(&stream)
            && let Some(first) = ops.first()
            && let Some(tip) = closed_tip(&self.authority, stream, first.header().certificate)
        {
            // The first of a stream whose certificate is void already. The engine did not know where it is closed, or it
            // would have asked for no more than that; it comes again for what stands.
            self.closed.insert(stream, tip);
            self.step_engine(now, NetInput::Refused { shard: shard.clone(), stream }, effects);
            self.step_engine(now, NetInput::PolicyChanged { streams: vec![(shard, stream)] }, effects);
            return;
        }
        for op in ops {
            self.clock.observe(op.header().hlc, now.wall_ms, CLOCK_AHEAD_MAX);
            self.counters.ops_ingested += 1;
            self.stage_op(op.clone(), Some(from));
            self.note_op(&op);
        }
    }

    /// Ends our session if somebody else goes on with it: a copy of this node, started from the same state.
    fn notice_copy(&mut self, shard: &ShardId, stream: StreamId, ops: &[Arc<Op>], effects: &mut Vec<Effect>) {
        let Some(first) = ops.first() else { return };
        let author = first.header().author;
        let is_own_key = author == self.identity.node.author()
            || self.identity.owner.as_ref().is_some_and(|owner| owner.author() == author);
        // Of a stream that this session has not begun here, too: it would begin it a second time.
        let is_current = first.header().session == self.session
            || self.own.get(&(shard.clone(), author)).is_some_and(|own| own.stream == stream);
        if !is_own_key || !is_current {
            return;
        }
        self.sign_open_ops();
        self.entropy.stir(ops.last().unwrap_or(first).id());
        self.begin_session();
        self.own.remove(&(shard.clone(), author));
        effects.push(Effect::Alarm {
            kind: "copy",
            detail: format!("another process signs with this node's key and session, in {shard}"),
        });
    }

    /// Tells the verdict engine of an op that continues its stream and is staged or stored.
    pub(super) fn note_op(&mut self, op: &Arc<Op>) {
        let header = op.header();
        if header.shard.is_control() {
            // The only error is that the op is no act, and the header check makes every op of this shard one.
            let _ = self.authority.add_control(op.id(), op.header_arc());
            self.policy_changed = true;
            self.follow_erasures();
            return;
        }
        let at = Position { stream: op.stream(), seq: header.seq, op: op.id() };
        let noted = self.authority.note_data(&at, header);
        for WrittenFor { principal, stream, from_seq } in self.authority.take_written_for() {
            self.put(Keyspace::Index, WrittenForKey { principal, stream }.encode(), &from_seq.encode());
        }
        // A stalled stream comes up again when the acts that it names are here.
        if matches!(noted, Noted::Stalled | Noted::Gap) {
            return;
        }
        let Some(head) = self.heads.get_mut(&at.stream).filter(|head| head.noted < header.seq) else { return };
        head.noted = header.seq;
        if matches!(noted, Noted::Grown | Noted::Refused) {
            head.policies.push(header.seq);
        }
        self.staged.heads.insert(at.stream);
    }

    /// A batch with these ops is durable.
    pub(super) fn on_ops_durable(
        &mut self,
        now: Now,
        ops: Vec<(Placed, Option<AuthorKey>)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut from: Option<Option<AuthorKey>> = None;
        let mut run: Vec<Committed> = Vec::new();
        let mut control = false;
        for (placed, source) in ops {
            let header = placed.op.header();
            self.undurable.remove(placed.op.stream(), header.seq);
            control |= header.shard.is_control();
            if from != Some(source) && !run.is_empty() {
                self.engine_committed(now, &std::mem::take(&mut run), from.flatten(), effects);
            }
            from = Some(source);
            run.push(Committed { op: self.without_erased(placed.op), arrival: placed.arrival });
        }
        if !run.is_empty() {
            self.engine_committed(now, &run, from.flatten(), effects);
        }
        if control {
            effects.push(Effect::MembersChanged);
        }
        self.apply_policy_changes(now, effects);
    }

    fn engine_committed(&mut self, now: Now, ops: &[Committed], from: Option<AuthorKey>, effects: &mut Vec<Effect>) {
        let mut out = Vec::new();
        let policy =
            AuthorityPolicy { authority: &self.authority, closed: &self.closed, now: Hlc::new(now.wall_ms, 0) };
        self.engine.committed(now.timestamp(), ops, from, &policy, &mut out);
        self.carry_out(now, out, effects);
    }

    pub(super) fn chains(&self) -> StoredChains<'_> {
        StoredChains { store: &*self.store, undurable: &self.undurable, cluster: self.identity.cluster }
    }

    /// Returns where a change lies.
    pub(super) fn locate(&mut self, change: ChangeHash) -> Option<(ChangeHash, StreamId, u64)> {
        let value = self.read_back(Keyspace::Index, &ChangeKey(change).encode())?;
        let place = ChangePlace::decode(&value).ok()?;
        Some((change, place.stream, place.seq))
    }

    fn fork_found(
        &mut self,
        now: Now,
        shard: ShardId,
        stream: StreamId,
        seq: u64,
        ops: &[Arc<Op>],
        effects: &mut Vec<Effect>,
    ) {
        self.notice_copy(&shard, stream, ops, effects);
        for op in ops {
            let at = op.header().seq;
            if self.chains().main(&stream, at) == Some(op.id()) {
                continue;
            }
            let op = &self.without_erased(op.clone());
            let key = OpKey { stream, seq: at, branch: Some(op.id()) };
            self.put(Keyspace::Ops, key.encode(), &op.encode());
            self.undurable.insert_branch(op.clone());
            self.staged.branch_ops.push(op.clone());
            self.note_branch_op(op, seq);
            self.note_aside(op);
        }
        if !shard.is_control() {
            self.authority.note_fork(stream, seq);
        }
        self.policy_changed = true;
        self.evidence_is_due();
        let state = self.shards.entry(shard.clone()).or_default();
        state.arrivals += 1;
        state.dirty = true;
        let arrival = state.arrivals;
        if let Some(head) = self.heads.get_mut(&stream) {
            if head.fork.is_none() {
                self.counters.forks += 1;
                effects.push(Effect::Alarm {
                    kind: "fork",
                    detail: format!("the author {} forked its stream in {shard} at {seq}", head.key.author),
                });
            }
            head.fork = Some(head.fork.map_or(seq, |known| known.min(seq)));
            head.seen.get_or_insert(Tip { seq: head.seq, id: head.head });
            head.arrival = arrival;
            self.staged.heads.insert(stream);
        }
        self.staged.forks.push((shard, stream, seq, arrival));
        self.apply_policy_changes(now, effects);
    }
}
