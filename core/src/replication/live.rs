//! The live path: taking runs, passing on what became durable, announcing, acknowledging.
//!
//! Plumtree (Leitão et al., "Epidemic Broadcast Trees", SRDS 2007) with the head of the stream as the "seen" test, so that
//! no table of message ids can run over.

use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::api::{CertificateState, Committed, Effect, Lane, Peer, Timestamp};
use super::digest::Tip;
use super::engine::{Cx, Engine};
use super::frame::{Frame, Position, Reach, Run as RunFrame};
use super::heads::{Place, Stream, StreamAt, TimedTip};
use super::limits as bounds;
use super::misdeed::Misbehaviour;
use super::mutant::{Mutant, planted};
use super::peer::{Link, Pace};
use super::run::{Run, RunError};
use crate::op::Op;

/// Credit to be given back when ops are dealt with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charge {
    pub(super) peer: Peer,
    pub(super) lane: Lane,
    pub(super) bytes: usize,
}

/// Ops handed to the caller.
#[derive(Debug)]
pub(super) struct InFlight {
    last: u64,
    bytes: usize,
    charge: Option<Charge>,
    /// Peers that are known to have them: nothing is gained by pushing to these.
    holders: Vec<Peer>,
}

/// An announced head that the eager path should bring.
#[derive(Debug)]
pub(super) struct Expected {
    due: Timestamp,
    pub(super) peer: Peer,
    at: StreamAt,
    seq: u64,
}

/// What became of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placed {
    /// Handed to the caller.
    Ingested,
    /// Nothing new.
    Duplicate,
    /// Kept until something else is here.
    Held,
    /// Of no use.
    Dropped,
    /// It leaves our chain.
    Forks,
}

impl Engine {
    pub(super) fn pushed(&mut self, cx: &mut Cx<'_>, peer: Peer, bytes: usize, ops: &[ByteBuf]) {
        let charge = Charge { peer, lane: Lane::Live, bytes };
        let checks = self.keys.checks;
        let placed = self.take_run(cx, peer, ops, Reach::Pin(()), charge);
        if placed != Some(Placed::Ingested) {
            let cost = if self.keys.checks > checks { bounds::IDLE_SIGNATURE } else { 0 };
            self.idle(cx, peer, Lane::Live, bytes, cost);
        }
        if placed == Some(Placed::Duplicate) {
            self.counters.duplicate_pushes += 1;
            if self.eager_count() > bounds::EAGER_MAX
                && self.peers.get(&peer).is_some_and(|state| state.link == Link::Eager)
                && self.send(cx, peer, &Frame::Prune(()))
                && let Some(state) = self.peers.get_mut(&peer)
            {
                state.link = Link::Lazy;
            }
        }
    }

    /// Decodes, verifies and places a run. Unless that is under way to the store, its credit is left to the caller to give back.
    /// `None` if the sender was at fault or nothing vouches for the run.
    pub(super) fn take_run(
        &mut self,
        cx: &mut Cx<'_>,
        peer: Peer,
        ops: &[ByteBuf],
        reach: Reach,
        charge: Charge,
    ) -> Option<Placed> {
        match self.open_run(cx, ops) {
            Ok(Some(run)) => Some(self.place(cx, peer, run, reach, Some(charge))),
            Ok(None) => Some(Placed::Duplicate),
            Err(RunError::Fault(what)) => {
                self.misbehaved(cx, peer, what);
                None
            }
            Err(RunError::Unvouched | RunError::LaterFormat) => None,
        }
    }

    /// Decodes and verifies a run; `None` if it brings nothing that is not here or under way.
    fn open_run(&mut self, cx: &Cx<'_>, ops: &[ByteBuf]) -> Result<Option<Run>, RunError> {
        if let [_, .., last] = ops {
            // Most of what arrives twice is told by its last op.
            let last = Run::decode(std::slice::from_ref(last), self.config.cluster)?;
            if last.is_some_and(|last| self.is_known(&last)) {
                return Ok(None);
            }
        }
        let Some(run) = Run::decode(ops, self.config.cluster)? else { return Ok(None) };
        if self.is_known(&run) {
            return Ok(None);
        }
        self.verify(cx, run).map(Some)
    }

    /// Checks a run's signature, or what else vouches for its end.
    pub(super) fn verify(&mut self, cx: &Cx<'_>, mut run: Run) -> Result<Run, RunError> {
        let at = StreamAt::new(&run.shard, run.stream);
        let mut anchors: Vec<Tip> = self.needed_tips(&at);
        anchors.extend(cx.policy.closed_at(&run.stream));
        run.verify(&mut self.keys, &anchors)?;
        Ok(run)
    }

    /// Returns whether the run ends within what we have, as far as that shows without reading.
    fn is_known(&self, run: &Run) -> bool {
        let at = StreamAt::new(&run.shard, run.stream);
        let Some(stream) = self.heads.get(&at) else { return false };
        let tip = run.tip();
        let differs = |known: Tip| known.seq > 0 && run.at(known.seq).is_some_and(|op| op.id() != known.id);
        tip.seq <= stream.ingested.tip.seq
            && (stream.fork.is_some() || !(differs(stream.ingested.tip) || differs(stream.durable.tip)))
    }

    /// Places a verified run, and then what was held behind it.
    pub(super) fn place(
        &mut self,
        cx: &mut Cx<'_>,
        from: Peer,
        run: Run,
        reach: Reach,
        charge: Option<Charge>,
    ) -> Placed {
        let at = StreamAt::new(&run.shard, run.stream);
        let placed = self.place_one(cx, from, run, reach, charge);
        if placed == Placed::Ingested {
            self.place_held(cx, &at);
        }
        placed
    }

    fn place_held(&mut self, cx: &mut Cx<'_>, at: &StreamAt) {
        let next = |engine: &Self| engine.heads.get(at).map_or(1, |stream| stream.ingested.tip.seq + 1);
        while let Some(held) = self.held.take_at(at, next(self)) {
            match self.place_one(cx, held.from, held.run, Reach::Pin(()), None) {
                Placed::Ingested | Placed::Duplicate | Placed::Dropped => {}
                Placed::Held | Placed::Forks => break,
            }
        }
        self.settle_want(at);
    }

    fn place_one(&mut self, cx: &mut Cx<'_>, from: Peer, run: Run, reach: Reach, charge: Option<Charge>) -> Placed {
        let at = StreamAt::new(&run.shard, run.stream);
        if !self.config.subscription.covers(&run.shard.collection) || !self.heads.has_room(&at) {
            return Placed::Dropped;
        }
        let known = self.heads.get(&at);
        let (durable, ingested) =
            known.map_or((TimedTip::START, TimedTip::START), |stream| (stream.durable, stream.ingested));
        let live_end =
            known.map_or_else(|| cx.policy.closed_at(&run.stream).map_or(u64::MAX, |pin| pin.seq), Stream::live_end);
        let forked = known.is_some_and(|stream| stream.fork.is_some());
        let limit = match reach {
            Reach::Pin(()) => live_end,
            Reach::Beyond(()) => u64::MAX,
        };
        if run.first > limit {
            return Placed::Dropped;
        }
        let Some(run) = run.cut_after(limit) else { return Placed::Dropped };
        for tip in [durable.tip, ingested.tip] {
            if tip.seq > 0 && !forked && run.at(tip.seq).is_some_and(|op| op.id() != tip.id) {
                self.fork_suspected(cx, &at, from, tip.seq);
                return Placed::Forks;
            }
        }
        if run.tip().seq <= ingested.tip.seq {
            return Placed::Duplicate;
        }
        if run.first > ingested.tip.seq + 1 {
            let last = run.tip().seq;
            self.held.keep(&at, from, run);
            self.want(&at, from, last, reach);
            return Placed::Held;
        }
        let Some(run) = run.skip_to(ingested.tip.seq + 1) else { return Placed::Duplicate };
        if run.prev != ingested.tip.id && !planted(Mutant::JointNotChecked) {
            self.fork_suspected(cx, &at, from, ingested.tip.seq);
            return Placed::Forks;
        }
        self.judge(cx, from, &at, run, ingested, charge)
    }

    /// Checks what the chain alone does not show, and hands the run to the caller.
    fn judge(
        &mut self,
        cx: &mut Cx<'_>,
        from: Peer,
        at: &StreamAt,
        run: Run,
        before: TimedTip,
        charge: Option<Charge>,
    ) -> Placed {
        let (Some(first), Some(last)) = (run.ops.first(), run.ops.last()) else { return Placed::Dropped };
        if first.header().hlc < before.hlc {
            self.misbehaved(cx, from, Misbehaviour::BrokenChain);
            self.block(cx.now, at);
            return Placed::Dropped;
        }
        if !cx.policy.accepts_time(last.header().hlc) {
            self.block(cx.now, at);
            self.held.keep(at, from, run);
            return Placed::Held;
        }
        let header = first.header();
        let certificate = if header.is_genesis() {
            CertificateState::Known
        } else {
            cx.policy.certificate(&header.certificate, &header.author)
        };
        match certificate {
            CertificateState::Known => {}
            CertificateState::Unknown => {
                self.counters.deferred += 1;
                self.block(cx.now, at);
                self.held.keep(at, from, run);
                if let Some(state) = self.peers.get_mut(&from) {
                    state.sync_queue.insert(Place::new(&crate::id::ShardId::control()));
                }
                self.advance_syncs(cx, from);
                return Placed::Held;
            }
            CertificateState::Mismatch => {
                self.misbehaved(cx, from, Misbehaviour::WrongCertificate);
                self.block(cx.now, at);
                return Placed::Dropped;
            }
        }
        let tip = TimedTip { tip: run.tip(), hlc: last.header().hlc };
        let bytes = run.size();
        if self.ingesting_bytes.saturating_add(bytes) > 2 * bounds::INGESTING_BYTES_MAX {
            return Placed::Dropped;
        }
        self.ingesting_bytes += bytes;
        if !self.burdens.contains(&header.author) {
            self.conduct.progressed(bytes);
        }
        let pin = cx.policy.closed_at(&at.stream);
        self.heads.change(at.shard(), at.stream, pin, |stream| stream.ingested = tip);
        let last = tip.tip.seq;
        let sources = self.wants.get(at).into_iter().flat_map(|want| &want.sources);
        let holders = sources.filter(|(_, upto)| **upto >= last).map(|(peer, _)| *peer).collect();
        self.in_flight.entry(at.clone()).or_default().push(InFlight { last, bytes, charge, holders });
        self.counters.ops_ingested += run.ops.len() as u64;
        self.settle_want(at);
        cx.effects.push(Effect::Ingest { from, shard: run.shard, stream: run.stream, ops: run.ops });
        Placed::Ingested
    }

    /// Tries again what was held for the clock or for a certificate.
    pub(super) fn retry_held(&mut self, cx: &mut Cx<'_>) {
        // What a gap held back is placed when that is filled. Here it is certificates and clocks, which may take their time.
        for at in self.held.next_streams(bounds::HELD_RETRIES) {
            if !self.blocked.contains_key(&at) {
                self.place_held(cx, &at);
            }
        }
    }

    pub(super) fn refused(&mut self, cx: &mut Cx<'_>, at: &StreamAt) {
        self.heads.change(at.shard(), at.stream, cx.policy.closed_at(&at.stream), |stream| {
            stream.ingested = stream.durable;
        });
        self.held.clear(at);
        self.block(cx.now, at);
        let flights = self.in_flight.remove(at).unwrap_or_default();
        self.landed(cx, flights);
    }

    /// Gives back what runs took that are under way no more.
    fn landed(&mut self, cx: &mut Cx<'_>, flights: Vec<InFlight>) {
        for InFlight { bytes, charge, .. } in flights {
            self.ingesting_bytes -= bytes;
            match charge {
                Some(Charge { peer, lane, bytes }) if self.burdens.contains(&peer) => {
                    self.idle(cx, peer, lane, bytes, 0)
                }
                Some(Charge { peer, lane, bytes }) => self.release(cx, peer, lane, bytes),
                None => {}
            }
        }
    }

    // ---- what became durable ----

    pub(super) fn committed_run(&mut self, cx: &mut Cx<'_>, run: &[Committed], from: Option<Peer>) {
        let Some(first) = run.first() else { return };
        let shard = first.op.header().shard.clone();
        let at = StreamAt::new(&shard, first.op.stream());
        let known = self.heads.get(&at).map_or(0, |stream| stream.durable.tip.seq);
        let fresh: Vec<Arc<Op>> = run
            .iter()
            .filter(|committed| committed.op.header().seq > known)
            .map(|committed| committed.op.clone())
            .collect();
        let Some(last) = fresh.last() else { return };
        let tip = TimedTip { tip: Tip { seq: last.header().seq, id: last.id() }, hlc: last.header().hlc };
        self.heads.change(&shard, at.stream, cx.policy.closed_at(&at.stream), |stream| {
            stream.durable = tip;
            if stream.ingested.tip.seq < tip.tip.seq {
                stream.ingested = tip;
            }
            stream.local |= from.is_none();
        });
        if let Some(arrival) = run.last().map(|committed| committed.arrival) {
            self.heads.arrived(&shard, at.stream, arrival);
        }
        if let Some(first) = fresh.first().filter(|first| first.header().seq == 1) {
            self.first_came(cx, &at, first, from);
        }
        self.counters.ops_committed += fresh.len() as u64;
        let is_burden = fresh.first().is_some_and(|op| self.burdens.contains(&op.header().author));
        if !is_burden {
            self.conduct.progressed(fresh.iter().map(|op| op.size()).sum());
        }
        let mut holders: Vec<Peer> = from.into_iter().collect();
        if let Some(mut flights) = self.in_flight.remove(&at) {
            let done: Vec<InFlight> = flights.extract_if(.., |flight| flight.last <= tip.tip.seq).collect();
            if !flights.is_empty() {
                self.in_flight.insert(at.clone(), flights);
            }
            // Whoever has the last of these has all.
            holders.extend(done.last().into_iter().flat_map(|flight| &flight.holders));
            self.landed(cx, done);
        }
        if let Some(from) = from {
            self.gather_ack(cx.now, from, &at, tip.tip.seq);
            if let Some(author) = fresh.first().map(|op| op.header().author) {
                self.gather_ack(cx.now, author, &at, tip.tip.seq);
            }
        }
        self.settle_want(&at);
        self.pass_on(cx, &at, &fresh, &holders);
        self.syncs_progressed(cx, &at, tip.tip.seq);
        self.fork_news_due(cx, &at);
    }

    /// Pushes ops to eager peers and announces them to the others, but for those that have them.
    fn pass_on(&mut self, cx: &mut Cx<'_>, at: &StreamAt, ops: &[Arc<Op>], holders: &[Peer]) {
        let Some(stream) = self.heads.get(at) else { return };
        let live_end = stream.live_end();
        let Some(last) = ops.last().map(|op| op.header().seq) else { return };
        if stream.fork.is_some() || last > live_end {
            return;
        }
        let targets: Vec<(Peer, Link, Pace)> = self
            .peers
            .iter()
            .filter(|(peer, _)| !holders.contains(peer) && self.shares(cx, peer, &at.shard().collection))
            .map(|(peer, state)| (*peer, state.link, state.pace))
            .collect();
        let any_eager = targets.iter().any(|(_, link, pace)| *link == Link::Eager && *pace == Pace::KeepsUp);
        let frames = if any_eager { encode_pushes(ops) } else { None };
        for (peer, link, pace) in targets {
            match (link, pace, &frames) {
                (_, Pace::Lagging, _) => {}
                (Link::Eager, Pace::KeepsUp, Some(frames)) => {
                    for frame in frames {
                        if self.send_encoded(cx, peer, Lane::Live, frame.clone()) {
                            self.counters.pushes_sent += 1;
                        } else {
                            self.counters.pushes_dropped += 1;
                            if let Some(state) = self.peers.get_mut(&peer) {
                                state.pace = Pace::Lagging;
                                state.announce.clear();
                            }
                            break;
                        }
                    }
                }
                (Link::Lazy, Pace::KeepsUp, _) | (Link::Eager, Pace::KeepsUp, None) => {
                    if let Some(state) = self.peers.get_mut(&peer)
                        && (state.announce.len() < bounds::GATHERED_MAX || state.announce.contains_key(at))
                    {
                        state.announce.insert(at.clone(), last);
                        self.flush_at.get_or_insert(cx.now.after(bounds::FLUSH_DELAY));
                    }
                }
            }
        }
    }

    // ---- announcements ----

    pub(super) fn announced(&mut self, cx: &mut Cx<'_>, peer: Peer, positions: Vec<Position>) {
        for Position { shard, stream, seq } in positions {
            let at = StreamAt::new(&shard, stream);
            let have = self.heads.get(&at).map_or(0, |stream| stream.ingested.tip.seq);
            if seq > have && self.shares(cx, &peer, &shard.collection) && self.expected.len() < bounds::EXPECTED_MAX {
                self.expected.push_back(Expected { due: cx.now.after(bounds::GRAFT_DELAY), peer, at, seq });
            }
        }
    }

    /// Pulls what was announced and did not come on the eager path.
    pub(super) fn sweep_expected(&mut self, cx: &mut Cx<'_>) {
        while self.expected.front().is_some_and(|expected| expected.due <= cx.now) {
            let Some(expected) = self.expected.pop_front() else { return };
            let have = self.heads.get(&expected.at).map_or(0, |stream| stream.ingested.tip.seq);
            if have >= expected.seq || self.blocked.contains_key(&expected.at) {
                continue;
            }
            self.want(&expected.at, expected.peer, expected.seq, Reach::Pin(()));
            if self.peers.get(&expected.peer).is_some_and(|state| state.link == Link::Lazy)
                && self.send(cx, expected.peer, &Frame::Graft(()))
            {
                self.grafted(&expected.peer);
            }
        }
    }

    pub(super) fn grafted(&mut self, peer: &Peer) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.link = Link::Eager;
        }
    }

    pub(super) fn pruned(&mut self, peer: &Peer) {
        if self.eager_count() > bounds::EAGER_MIN
            && let Some(state) = self.peers.get_mut(peer)
        {
            state.link = Link::Lazy;
        }
    }

    // ---- acknowledgements ----

    fn gather_ack(&mut self, now: Timestamp, peer: Peer, at: &StreamAt, seq: u64) {
        if let Some(state) = self.peers.get_mut(&peer)
            && (state.acks.len() < bounds::GATHERED_MAX || state.acks.contains_key(at))
        {
            state.acks.insert(at.clone(), seq);
            self.flush_at.get_or_insert(now.after(bounds::FLUSH_DELAY));
        }
    }

    pub(super) fn acknowledged(&mut self, peer: Peer, positions: Vec<Position>) {
        for Position { shard, stream, seq } in positions {
            self.note_ack(peer, &StreamAt::new(&shard, stream), seq);
        }
    }

    /// Notes that a peer has a stream written here durably up to `seq`.
    pub(super) fn note_ack(&mut self, peer: Peer, at: &StreamAt, seq: u64) {
        let Some(stream) = self.heads.get(at).filter(|stream| stream.local) else { return };
        // Nobody can have more than there is, except of a stream that forked.
        let seq = seq.min(stream.durable.tip.seq);
        self.acks.note(at, peer, seq);
    }

    /// Sends what was gathered.
    pub(super) fn flush(&mut self, cx: &mut Cx<'_>) {
        self.flush_at = None;
        if std::mem::take(&mut self.changes_due) {
            self.ask_for_changes(cx);
        }
        let peers: Vec<Peer> = self.peers.keys().copied().collect();
        for peer in peers {
            let Some(state) = self.peers.get_mut(&peer) else { continue };
            let acks = std::mem::take(&mut state.acks);
            let announce = std::mem::take(&mut state.announce);
            for positions in pages(acks) {
                // What does not go now is covered by the next acknowledgement or by equal digests.
                self.send(cx, peer, &Frame::Ack(positions));
            }
            for positions in pages(announce) {
                self.send(cx, peer, &Frame::Announce(positions));
            }
        }
    }
}

fn pages(positions: std::collections::BTreeMap<StreamAt, u64>) -> Vec<Vec<Position>> {
    let all: Vec<Position> =
        positions.into_iter().map(|(at, seq)| Position { shard: at.shard().clone(), stream: at.stream, seq }).collect();
    all.chunks(bounds::ANNOUNCE_MAX).map(<[Position]>::to_vec).collect()
}

/// Encodes ops as push frames, each ending with a signed op; `None` if they cannot be pushed, being too large or ending
/// unsigned.
fn encode_pushes(ops: &[Arc<Op>]) -> Option<Vec<bytes::Bytes>> {
    /// Half of the window, so that one push never takes all credit.
    const PUSH_BYTES_MAX: usize = (bounds::LIVE_WINDOW / 2) as usize;
    let mut frames = Vec::new();
    let mut rest = ops;
    while !rest.is_empty() {
        let mut bytes = 0;
        let mut fits = 0;
        for (index, op) in rest.iter().take(bounds::RUN_OPS_MAX).enumerate() {
            bytes += op.size();
            if bytes > PUSH_BYTES_MAX {
                break;
            }
            if op.signature().is_some() {
                fits = index + 1;
            }
        }
        let (run, after) = rest.split_at_checked(fits)?;
        let (last, before) = run.split_last()?;
        let encoded = before
            .iter()
            .map(|op| Op::clone(op).without_signature().encode())
            .chain([last.encode()])
            .map(ByteBuf::from)
            .collect();
        frames.push(Frame::Push(RunFrame { ops: encoded }).encode());
        rest = after;
    }
    Some(frames)
}
