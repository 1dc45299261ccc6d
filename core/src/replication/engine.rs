//! The engine: dispatch, connections, credit and time. What it does for each concern lies in the files beside this one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Subscription;
use super::acks::Acks;
use super::api::{
    AbsorbedCursor, Committed, Config, DisconnectReason, Effect, Input, Lane, Peer, Policy, StoredHead, Ticket,
    Timestamp,
};
use super::bulk::Bulk;
use super::conduct::Conduct;
use super::fork::{BranchFetch, Search};
use super::frame::{Credit, Frame, FrameError, Hello};
use super::heads::{Heads, StreamAt, TimedTip};
use super::held::Held;
use super::limits as bounds;
use super::live::{Expected, InFlight};
use super::misdeed::Misbehaviour;
use super::need::{NeededChange, NeededOp};
use super::peer::{Introduction, Link, PeerState};
use super::pull::{PullState, Want};
use super::random::Random;
use super::run::KeyCache;
use super::serve::Question;
use super::status::Counters;
use super::sync::Memory;
use crate::id::{ChangeHash, CollectionName, OpId, ShardId};

/// What every handler needs.
pub(super) struct Cx<'a> {
    pub(super) now: Timestamp,
    pub(super) policy: &'a dyn Policy,
    pub(super) effects: &'a mut Vec<Effect>,
}

/// What a frame brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Worth {
    /// It was asked for, or asks for what is given.
    Useful,
    /// Nothing, or nothing that shows at once; it counts so many bytes, or as many as it has.
    Idle(usize),
}

impl Worth {
    const fn if_asked(is_asked: bool) -> Self {
        if is_asked { Self::Useful } else { Self::Idle(bounds::IDLE_DIGEST) }
    }
}

/// The replication engine of one node. See the module's documentation.
pub struct Engine {
    pub(super) config: Config,
    pub(super) random: Random,
    pub(super) heads: Heads,
    pub(super) peers: BTreeMap<Peer, PeerState>,
    pub(super) memory: BTreeMap<(Peer, ShardId), Memory>,
    pub(super) keys: KeyCache,
    pub(super) held: Held,
    /// Streams that could not be taken, until when they are left alone.
    pub(super) blocked: BTreeMap<StreamAt, Timestamp>,
    /// Handed to the caller, not durable yet.
    pub(super) in_flight: BTreeMap<StreamAt, Vec<InFlight>>,
    /// Bytes of all that is in flight.
    pub(super) ingesting_bytes: usize,
    pub(super) wants: BTreeMap<StreamAt, Want>,
    pub(super) pulls: BTreeMap<u32, PullState>,
    pub(super) expected: VecDeque<Expected>,
    /// Who acknowledged how much of the streams written here.
    pub(super) acks: Acks,
    pub(super) searches: BTreeMap<StreamAt, Search>,
    pub(super) branches: BTreeMap<u32, BranchFetch>,
    /// Forks that peers told of while the prefix is missing here.
    pub(super) fork_news: BTreeMap<StreamAt, (Peer, u64)>,
    pub(super) needed_changes: BTreeMap<(ShardId, ChangeHash), NeededChange>,
    pub(super) needed_ops: BTreeMap<(StreamAt, OpId), NeededOp>,
    pub(super) questions: BTreeMap<Ticket, Question>,
    pub(super) bulks: BTreeMap<ShardId, Bulk>,
    /// Streams of these whose next range is pulled with its changes, since those were not here as named.
    pub(super) whole: BTreeSet<StreamAt>,
    pub(super) conduct: Conduct,
    /// Authors with very many transactions that wait.
    pub(super) burdens: BTreeSet<Peer>,
    pub(super) counters: Counters,
    /// The time of the last call.
    pub(super) now: Timestamp,
    next_ticket: u64,
    next_request: u32,
    pub(super) flush_at: Option<Timestamp>,
    /// Whether changes are to be asked for by name with the next flush.
    pub(super) changes_due: bool,
    sweep_at: Timestamp,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("me", &self.config.me).field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes the engine from what the store holds.
    pub fn new(
        config: Config,
        heads: impl IntoIterator<Item = StoredHead>,
        cursors: impl IntoIterator<Item = AbsorbedCursor>,
        policy: &dyn Policy,
    ) -> Self {
        let mut loaded = Heads::default();
        for head in heads {
            loaded.load(&head, policy);
        }
        let memory = cursors
            .into_iter()
            .take(bounds::CURSORS_MAX)
            .map(|cursor| ((cursor.peer, cursor.shard), Memory::at(cursor.epoch, cursor.arrival)))
            .collect();
        Self {
            random: Random::new(config.seed),
            sweep_at: config.now.after(bounds::SWEEP_INTERVAL),
            now: config.now,
            config,
            heads: loaded,
            peers: BTreeMap::new(),
            memory,
            keys: KeyCache::default(),
            held: Held::default(),
            blocked: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            ingesting_bytes: 0,
            wants: BTreeMap::new(),
            pulls: BTreeMap::new(),
            expected: VecDeque::new(),
            acks: Acks::default(),
            searches: BTreeMap::new(),
            branches: BTreeMap::new(),
            fork_news: BTreeMap::new(),
            needed_changes: BTreeMap::new(),
            needed_ops: BTreeMap::new(),
            questions: BTreeMap::new(),
            bulks: BTreeMap::new(),
            whole: BTreeSet::new(),
            conduct: Conduct::default(),
            burdens: BTreeSet::new(),
            counters: Counters::default(),
            next_ticket: 0,
            next_request: 0,
            flush_at: None,
            changes_due: false,
        }
    }

    /// Applies one input; appends what the caller must now do, in order.
    pub fn step(&mut self, now: Timestamp, input: Input, policy: &dyn Policy, effects: &mut Vec<Effect>) {
        self.now = now;
        let cx = &mut Cx { now, policy, effects };
        match input {
            Input::PeerUp { peer } => self.peer_up(cx, peer),
            Input::PeerDown { peer } => self.forget_peer(&peer),
            Input::Frame { peer, lane, bytes } => self.frame(cx, peer, lane, &bytes),
            Input::OpsRead { ticket, ops } => self.ops_read(cx, ticket, &ops),
            Input::IdsRead { ticket, ids } => self.ids_read(cx, ticket, &ids),
            Input::BranchesRead { ticket, branches } => self.branches_read(cx, ticket, &branches),
            Input::ChangesLocated { ticket, found } => self.changes_located(cx, ticket, found),
            Input::EarlierRead { ticket, ends } => self.earlier_read(cx, ticket, ends),
            Input::DocumentsRead { ticket, documents, next, total } => {
                self.documents_read(cx, ticket, documents, next, total);
            }
            Input::DocumentsTaken { shard, request, outcome } => self.documents_taken(cx, &shard, request, outcome),
            Input::OpsCompleted { ticket, ops } => self.ops_completed(cx, ticket, ops),
            Input::NeedChange { shard, change, hint } => self.need_change(cx, shard, change, hint),
            Input::ChangeSettled { shard, change } => {
                self.needed_changes.remove(&(shard, change));
            }
            Input::NeedOp { shard, stream, tip, hint } => self.need_op(cx, &StreamAt::new(&shard, stream), tip, hint),
            Input::OpSettled { stream, id } => {
                self.needed_ops.retain(|(at, needed), _| at.stream != stream || *needed != id);
            }
            Input::Refused { shard, stream } => self.refused(cx, &StreamAt::new(&shard, stream)),
            Input::ForkStored { shard, stream, seq, arrival } => {
                self.fork_stored(cx, &StreamAt::new(&shard, stream), seq, arrival);
            }
            Input::BranchChanged { shard, stream, tip, hlc, arrival } => {
                self.branch_changed(cx, &StreamAt::new(&shard, stream), TimedTip { tip, hlc }, arrival);
            }
            Input::PolicyChanged { streams } => self.policy_changed(cx, &streams),
            Input::Accused { peer, what } => self.misbehaved(cx, peer, what),
            Input::Waiting { author, names } => {
                if names > bounds::WAITING_MAX {
                    self.burdens.insert(author);
                } else {
                    self.burdens.remove(&author);
                }
            }
            Input::Pardoned { peer } => self.conduct.pardon(&peer),
            Input::Tick => {}
        }
        self.after_step(cx);
    }

    /// Takes notice of ops that became durable: heads and digests advance, peers are told. `from` is the peer of
    /// [`Effect::Ingest`], `None` for local writes. Ops of one stream must come in order.
    pub fn committed(
        &mut self,
        now: Timestamp,
        ops: &[Committed],
        from: Option<Peer>,
        policy: &dyn Policy,
        effects: &mut Vec<Effect>,
    ) {
        let cx = &mut Cx { now, policy, effects };
        for run in ops.chunk_by(|a, b| a.op.stream() == b.op.stream()) {
            self.committed_run(cx, run, from);
        }
        self.after_step(cx);
    }

    /// Returns when [`Input::Tick`] is due at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Timestamp {
        let digest = self.peers.values().map(|peer| peer.digest_at).min();
        [digest, self.flush_at].into_iter().flatten().fold(self.sweep_at, Timestamp::min)
    }

    fn after_step(&mut self, cx: &mut Cx<'_>) {
        if self.flush_at.is_some_and(|at| at <= cx.now) {
            self.flush(cx);
        }
        if self.sweep_at <= cx.now {
            self.sweep_at = cx.now.after(bounds::SWEEP_INTERVAL);
            self.sweep(cx);
        }
        self.send_due_digests(cx);
        self.schedule_documents(cx);
        self.schedule_pulls(cx);
    }

    fn sweep(&mut self, cx: &mut Cx<'_>) {
        self.blocked.retain(|_, until| *until > cx.now);
        self.sweep_pulls(cx);
        self.sweep_bulks(cx);
        self.sweep_syncs(cx);
        self.sweep_expected(cx);
        self.sweep_forks(cx);
        self.sweep_needs(cx);
        self.retry_held(cx);
        self.sweep_conduct(cx);
        let strangers: Vec<Peer> = self.peers.keys().copied().filter(|peer| !cx.policy.is_member(peer)).collect();
        for peer in strangers {
            self.disconnect(cx, peer, DisconnectReason::NotMember);
        }
    }

    // ---- connections ----

    fn peer_up(&mut self, cx: &mut Cx<'_>, peer: Peer) {
        self.forget_peer(&peer);
        if !cx.policy.is_member(&peer) {
            cx.effects.push(Effect::Disconnect { peer, reason: DisconnectReason::NotMember });
            return;
        }
        if let Some(time) = self.conduct.banned_for(&peer, cx.now) {
            let what = self.conduct.last(&peer).unwrap_or(Misbehaviour::Malformed);
            let reason = DisconnectReason::Banned(what, time);
            cx.effects.push(Effect::Disconnect { peer, reason });
            return;
        }
        if self.peers.len() >= bounds::PEERS_MAX {
            cx.effects.push(Effect::Disconnect { peer, reason: DisconnectReason::TooManyPeers });
            return;
        }
        let link = if self.eager_count() < bounds::EAGER_MAX { Link::Eager } else { Link::Lazy };
        let digest_at = cx.now.after(bounds::DIGEST_INTERVAL);
        self.peers.insert(peer, PeerState::new(link, digest_at));
        let collections = match &self.config.subscription {
            Subscription::All => None,
            Subscription::Collections(names) => Some(names.iter().take(bounds::SUBSCRIPTION_MAX).cloned().collect()),
        };
        let hello = Hello {
            version: bounds::PROTOCOL_VERSION,
            cluster: self.config.cluster,
            node: self.config.me,
            epoch: self.config.epoch,
            collections,
        };
        self.send(cx, peer, &Frame::Hello(hello));
    }

    fn hello(&mut self, cx: &mut Cx<'_>, peer: Peer, hello: Hello) {
        if hello.cluster != self.config.cluster {
            return self.misbehaved(cx, peer, Misbehaviour::ForeignCluster);
        }
        if hello.version != bounds::PROTOCOL_VERSION {
            return self.disconnect(cx, peer, DisconnectReason::ForeignVersion);
        }
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if hello.node != peer || state.introduction.is_some() {
            return self.misbehaved(cx, peer, Misbehaviour::FalseHello);
        }
        let subscription = match hello.collections {
            None => Subscription::All,
            Some(names) => Subscription::Collections(names.into_iter().collect()),
        };
        state.told_at = cx.now;
        state.introduction = Some(Introduction { epoch: hello.epoch, subscription });
        state.digest_at = cx.now;
        self.meet_needs(peer);
    }

    pub(super) fn forget_peer(&mut self, peer: &Peer) {
        if self.peers.remove(peer).is_none() {
            return;
        }
        self.forget_source(peer);
        self.forget_bulk_source(peer);
        self.questions.retain(|_, question| question.asker() != Some(*peer));
        self.searches.retain(|_, search| search.peer != *peer);
        self.branches.retain(|_, fetch| fetch.peer != *peer);
        self.fork_news.retain(|_, (from, _)| from != peer);
        self.expected.retain(|expected| expected.peer != *peer);
        self.acks.forget_peer(peer);
        if self.eager_count() < bounds::EAGER_MAX {
            let lazy: Vec<Peer> =
                self.peers.iter().filter(|(_, state)| state.link == Link::Lazy).map(|(peer, _)| *peer).collect();
            let choice = usize::try_from(self.random.below(lazy.len() as u64)).unwrap_or(0);
            if let Some(state) = lazy.get(choice).and_then(|peer| self.peers.get_mut(peer)) {
                state.link = Link::Eager;
            }
        }
    }

    pub(super) fn disconnect(&mut self, cx: &mut Cx<'_>, peer: Peer, reason: DisconnectReason) {
        self.forget_peer(&peer);
        cx.effects.push(Effect::Disconnect { peer, reason });
    }

    pub(super) fn eager_count(&self) -> usize {
        self.peers.values().filter(|peer| peer.link == Link::Eager).count()
    }

    /// Returns whether both sides hold the collection and may.
    pub(super) fn shares(&self, cx: &Cx<'_>, peer: &Peer, collection: &CollectionName) -> bool {
        let theirs = self.peers.get(peer).and_then(|state| state.introduction.as_ref());
        theirs.is_some_and(|theirs| theirs.subscription.covers(collection))
            && self.config.subscription.covers(collection)
            && (collection.as_str() == CollectionName::CONTROL
                || (cx.policy.may_sync(peer, collection) && cx.policy.may_sync(&self.config.me, collection)))
    }

    // ---- frames ----

    fn frame(&mut self, cx: &mut Cx<'_>, peer: Peer, lane: Lane, bytes: &Bytes) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        self.counters.frames_received += 1;
        state.heard(cx.now);
        let frame = Frame::decode(bytes);
        // Grants cost no credit: without them nothing could flow again.
        let is_free = matches!(frame, Ok(Some(Frame::Credit(_))));
        if !is_free && !state.lane_mut(lane).receive(bytes.len()) {
            return self.misbehaved(cx, peer, Misbehaviour::CreditOverrun);
        }
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.idle(cx, peer, lane, bytes.len(), 0),
            Err(error) => {
                self.release(cx, peer, lane, bytes.len());
                let what = match error {
                    FrameError::Encoding(_) | FrameError::Bounds(_) => Misbehaviour::Malformed,
                    FrameError::Unknown => Misbehaviour::UnknownFrame,
                };
                return self.misbehaved(cx, peer, what);
            }
        };
        if frame.lane() != lane {
            return self.misbehaved(cx, peer, Misbehaviour::WrongLane);
        }
        if frame.is_answer() {
            state.asked_since = None;
        }
        let is_introduced = state.introduction.is_some();
        let worth = match frame {
            Frame::Credit(Credit { lane, bytes }) => {
                if !state.lane_mut(lane).granted(bytes) {
                    self.misbehaved(cx, peer, Misbehaviour::FalseGrant);
                }
                return self.pump(cx, peer);
            }
            Frame::Hello(hello) => {
                self.hello(cx, peer, hello);
                Worth::Useful
            }
            // The lanes are ordered each for itself, so that a push may overtake the hello: digests bring it again.
            _ if !is_introduced => Worth::Idle(0),
            Frame::Push(run) => return self.pushed(cx, peer, bytes.len(), &run.ops),
            Frame::Announce(positions) => {
                self.announced(cx, peer, positions);
                Worth::Idle(0)
            }
            Frame::Graft(()) => {
                self.grafted(&peer);
                Worth::Idle(0)
            }
            Frame::Prune(()) => {
                self.pruned(&peer);
                Worth::Idle(0)
            }
            Frame::Digest(roll_up) => {
                state.told_at = cx.now;
                self.rolled_up(cx, peer, &roll_up);
                Worth::Idle(bounds::IDLE_DIGEST)
            }
            Frame::ShardDigests(digests) => {
                let is_due = state.lists_due > 0;
                state.lists_due = state.lists_due.saturating_sub(1);
                self.shard_digests(cx, peer, digests);
                Worth::if_asked(is_due)
            }
            Frame::Heads(heads) => Worth::if_asked(self.heads_page(cx, peer, &heads)),
            Frame::Range(answer) => return self.range(cx, peer, bytes.len(), &answer),
            Frame::BareRange(answer) => {
                let ops = answer.ops.into_iter().map(|op| Bytes::from(op.into_vec())).collect();
                return self.bare_range(cx, peer, bytes.len(), answer.request, ops);
            }
            Frame::Documents(page) => return self.documents(cx, peer, bytes.len(), page),
            Frame::DocumentsAsk(ask) => self.serve(cx, peer, ask.request, super::peer::Serve::Documents(ask)),
            Frame::BarePull(pull) => self.serve(cx, peer, pull.request, super::peer::Serve::BarePull(pull)),
            Frame::Ack(positions) => {
                self.acknowledged(peer, positions);
                Worth::Idle(0)
            }
            Frame::Found(found) => {
                self.found(cx, peer, found);
                Worth::Idle(0)
            }
            Frame::Earlier(told) => {
                self.earlier_told(cx, peer, told);
                Worth::Idle(0)
            }
            Frame::EarlierAsk(ask) => self.serve(cx, peer, 0, super::peer::Serve::Earlier(ask)),
            Frame::Chain(chain) => Worth::if_asked(self.chain(cx, peer, &chain)),
            Frame::Branch(answer) => Worth::if_asked(self.branch(cx, peer, &answer)),
            Frame::Busy(request) => {
                self.busy(&peer, request);
                Worth::Idle(0)
            }
            Frame::Ranges(answer) => Worth::if_asked(self.ranges(cx, peer, &answer)),
            Frame::RangesAsk(ask) => self.serve(cx, peer, ask.request, super::peer::Serve::Ranges(ask)),
            Frame::HeadsAsk(ask) => self.serve(cx, peer, ask.request, super::peer::Serve::Heads(ask)),
            Frame::Pull(pull) => self.serve(cx, peer, pull.request, super::peer::Serve::Pull(pull)),
            Frame::Want(want) => self.serve(cx, peer, 0, super::peer::Serve::Want(want)),
            Frame::ChainAsk(ask) => self.serve(cx, peer, ask.request, super::peer::Serve::Chain(ask)),
            Frame::BranchAsk(ask) => self.serve(cx, peer, ask.request, super::peer::Serve::Branches(ask)),
        };
        match worth {
            Worth::Useful => self.release(cx, peer, lane, bytes.len()),
            Worth::Idle(cost) => self.idle(cx, peer, lane, bytes.len(), cost),
        }
    }

    /// Sends a frame if there is credit; returns whether it went.
    pub(super) fn send(&mut self, cx: &mut Cx<'_>, peer: Peer, frame: &Frame) -> bool {
        let is_sent = self.send_encoded(cx, peer, frame.lane(), frame.encode());
        if let Some(state) = self.peers.get_mut(&peer).filter(|_| is_sent && frame.is_question()) {
            state.asked_since.get_or_insert(cx.now);
        }
        is_sent
    }

    /// Sends an encoded frame if there is credit; returns whether it went.
    pub(super) fn send_encoded(&mut self, cx: &mut Cx<'_>, peer: Peer, lane: Lane, bytes: Bytes) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else { return false };
        if !state.lane_mut(lane).take(bytes.len()) {
            return false;
        }
        if matches!(lane, Lane::Repair | Lane::Snapshot) {
            // All that goes there is an answer.
            self.conduct.served(peer, bytes.len(), cx.now);
        }
        cx.effects.push(Effect::Send { peer, lane, bytes });
        true
    }

    /// Gives back credit for received bytes that are dealt with.
    pub(super) fn release(&mut self, cx: &mut Cx<'_>, peer: Peer, lane: Lane, bytes: usize) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if let Some(limit) = state.lane_mut(lane).release(bytes) {
            let bytes = Frame::Credit(Credit { lane, bytes: limit }).encode();
            cx.effects.push(Effect::Send { peer, lane: Lane::Control, bytes });
        }
    }

    // ---- small numbers ----

    pub(super) const fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Returns a number for a question; 0 is never given, so that it stands for none.
    pub(super) fn request(&mut self) -> u32 {
        loop {
            self.next_request = self.next_request.wrapping_add(1);
            let taken = self.pulls.contains_key(&self.next_request) || self.branches.contains_key(&self.next_request);
            if self.next_request != 0 && !taken {
                return self.next_request;
            }
        }
    }

    /// Leaves a stream alone for a while.
    pub(super) fn block(&mut self, now: Timestamp, at: &StreamAt) {
        if self.blocked.len() < bounds::BLOCKED_MAX {
            self.blocked.insert(at.clone(), now.after(bounds::BLOCKED_FOR));
        }
        self.drop_want(at);
    }

    fn policy_changed(&mut self, cx: &mut Cx<'_>, streams: &[(ShardId, crate::id::StreamId)]) {
        for (shard, stream) in streams {
            let at = StreamAt::new(shard, *stream);
            if self.heads.get(&at).is_some() {
                let pin = cx.policy.closed_at(stream);
                self.heads.change(shard, *stream, pin, |entry| entry.pin = pin);
                self.settle_want(&at);
            }
        }
        self.blocked.clear();
        for (shard, stream) in streams {
            self.ask_again(cx, &StreamAt::new(shard, *stream));
        }
        self.retry_held(cx);
        self.hasten_digests(cx.now, None);
    }

    /// Returns the peers that are introduced.
    pub(super) fn introduced(&self) -> BTreeSet<Peer> {
        self.peers.iter().filter(|(_, state)| state.introduction.is_some()).map(|(peer, _)| *peer).collect()
    }
}
