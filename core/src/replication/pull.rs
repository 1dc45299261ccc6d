//! Ranged pulls: which streams are behind, who can give them, and what is under way.
//!
//! Work spreads over all peers that have it. One that does not answer loses its ranges to others, and gets no more than one at
//! a time, of what nobody else has, until it answers again; so it slows down nothing but itself.
//!
//! Invariant: of one stream at most one range is under way, so no range is ever fetched twice at once.

use std::collections::BTreeMap;

use super::api::{Lane, Peer, Timestamp};
use super::engine::{Cx, Engine};
use super::frame::{Answer, Frame, Pull, Reach};
use super::heads::StreamAt;
use super::limits as bounds;
use super::live::{Charge, Placed};
use super::misdeed::Misbehaviour;

/// A stream that is behind.
#[derive(Debug)]
pub(super) struct Want {
    /// Who has it up to where.
    pub(super) sources: BTreeMap<Peer, u64>,
    pub(super) reach: Reach,
    /// The range under way.
    pub(super) pull: Option<u32>,
}

/// A range under way.
#[derive(Debug)]
pub(super) struct PullState {
    pub(super) peer: Peer,
    pub(super) at: StreamAt,
    asked_at: Timestamp,
}

impl Engine {
    /// Notes that `peer` has the stream up to `to`; returns whether the stream will be pulled.
    pub(super) fn want(&mut self, at: &StreamAt, peer: Peer, to: u64, reach: Reach) -> bool {
        let (have, live_end) =
            self.heads.get(at).map_or((0, u64::MAX), |stream| (stream.ingested.tip.seq, stream.live_end()));
        let to = match reach {
            Reach::Pin(()) => to.min(live_end),
            Reach::Beyond(()) => to,
        };
        // Nobody fills the table with streams that there are not.
        let share = (bounds::WANTS_MAX / (self.peers.len() + 1)).max(bounds::WANTS_PER_PEER_MIN);
        let is_new = !self.wants.contains_key(at);
        let takes_documents = self.takes_documents(at.shard());
        let Some(state) = self.peers.get_mut(&peer) else { return false };
        if to <= have
            || self.blocked.contains_key(at)
            || takes_documents
            || !self.config.subscription.covers(&at.shard().collection)
            || (is_new && (self.wants.len() >= bounds::WANTS_MAX || state.offers >= share))
        {
            return false;
        }
        let full = self.wants.get(at).map(|want| &want.sources);
        let full = full.filter(|sources| sources.len() >= bounds::WANT_SOURCES_MAX && !sources.contains_key(&peer));
        if let Some((least, upto)) = full.and_then(|sources| sources.iter().min_by_key(|(_, upto)| **upto)) {
            // In reserve are those that have the most.
            if *upto >= to {
                return true;
            }
            let least = *least;
            self.drop_source(at, &least);
        }
        let want = self.wants.entry(at.clone()).or_insert_with(|| Want { sources: BTreeMap::new(), reach, pull: None });
        let Some(state) = self.peers.get_mut(&peer) else { return false };
        if let Some(known) = want.sources.get_mut(&peer) {
            *known = to.max(*known);
        } else {
            want.sources.insert(peer, to);
            state.offers += 1;
        }
        if reach == Reach::Beyond(()) {
            want.reach = reach;
        }
        if want.pull.is_none() {
            state.ready.insert(at.clone());
        }
        true
    }

    /// Forgets sources that have nothing more to give.
    pub(super) fn settle_want(&mut self, at: &StreamAt) {
        let (have, live_end) =
            self.heads.get(at).map_or((0, u64::MAX), |stream| (stream.ingested.tip.seq, stream.live_end()));
        let Some(want) = self.wants.get_mut(at) else { return };
        let limit = match want.reach {
            Reach::Pin(()) => live_end,
            Reach::Beyond(()) => u64::MAX,
        };
        let done: Vec<Peer> =
            want.sources.iter().filter(|(_, to)| have >= (**to).min(limit)).map(|(peer, _)| *peer).collect();
        for peer in done {
            self.drop_source(at, &peer);
        }
    }

    pub(super) fn drop_source(&mut self, at: &StreamAt, peer: &Peer) {
        let is_source = self.wants.get(at).is_some_and(|want| want.sources.contains_key(peer));
        if let Some(state) = self.peers.get_mut(peer) {
            state.ready.remove(at);
            state.offers = state.offers.saturating_sub(usize::from(is_source));
        }
        if let Some(want) = self.wants.get_mut(at) {
            want.sources.remove(peer);
            if want.sources.is_empty() && want.pull.is_none() {
                self.wants.remove(at);
            }
        }
    }

    /// Forgets that a stream is behind. A range under way still counts until its answer or time-out.
    pub(super) fn drop_want(&mut self, at: &StreamAt) {
        let sources: Vec<Peer> = self.wants.get(at).into_iter().flat_map(|want| want.sources.keys().copied()).collect();
        for peer in sources {
            self.drop_source(at, &peer);
        }
    }

    /// Forgets a peer that is gone.
    pub(super) fn forget_source(&mut self, peer: &Peer) {
        let streams: Vec<StreamAt> =
            self.wants.iter().filter(|(_, want)| want.sources.contains_key(peer)).map(|(at, _)| at.clone()).collect();
        for at in streams {
            self.drop_source(&at, peer);
        }
        let requests: Vec<u32> =
            self.pulls.iter().filter(|(_, pull)| pull.peer == *peer).map(|(request, _)| *request).collect();
        for request in requests {
            self.end_pull(request);
        }
    }

    /// Ends a range; its stream may be pulled again.
    pub(super) fn end_pull(&mut self, request: u32) -> Option<PullState> {
        let pull = self.pulls.remove(&request)?;
        if let Some(state) = self.peers.get_mut(&pull.peer) {
            state.pulls = state.pulls.saturating_sub(1);
        }
        if let Some(want) = self.wants.get_mut(&pull.at) {
            want.pull = None;
            if want.sources.is_empty() {
                self.wants.remove(&pull.at);
            } else {
                for peer in want.sources.keys() {
                    if let Some(state) = self.peers.get_mut(peer) {
                        state.ready.insert(pull.at.clone());
                    }
                }
            }
        }
        Some(pull)
    }

    /// Gives every peer with a free place the next stream that it can serve, one each in turn, so that work spreads.
    pub(super) fn schedule_pulls(&mut self, cx: &mut Cx<'_>) {
        while self.ingesting_bytes < bounds::INGESTING_BYTES_MAX {
            let free: Vec<(Peer, StreamAt)> = self
                .peers
                .iter()
                .filter(|(_, state)| state.has_place())
                .filter_map(|(peer, state)| Some((*peer, state.ready.first()?.clone())))
                .collect();
            let mut is_started = false;
            for (peer, at) in free {
                if self.peers.get(&peer).is_some_and(|state| state.late > 0) && self.has_better(&at, &peer) {
                    self.drop_source(&at, &peer);
                    is_started = true;
                } else {
                    is_started |= self.start_pull(cx, peer, &at);
                }
            }
            if !is_started {
                return;
            }
        }
    }

    /// Returns whether a peer other than this one has the stream and answers.
    fn has_better(&self, at: &StreamAt, peer: &Peer) -> bool {
        let sources = self.wants.get(at).into_iter().flat_map(|want| want.sources.keys());
        sources.filter(|other| *other != peer).any(|other| self.peers.get(other).is_some_and(|state| state.late == 0))
    }

    fn start_pull(&mut self, cx: &mut Cx<'_>, peer: Peer, at: &StreamAt) -> bool {
        let (have, live_end) =
            self.heads.get(at).map_or((0, u64::MAX), |stream| (stream.ingested.tip.seq, stream.live_end()));
        let Some(want) = self.wants.get(at).filter(|want| want.pull.is_none()) else {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.ready.remove(at);
            }
            return false;
        };
        let (reach, limit) = match want.reach {
            Reach::Pin(()) => (Reach::Pin(()), live_end),
            Reach::Beyond(()) => (Reach::Beyond(()), u64::MAX),
        };
        let from = have + 1;
        let gap_end = self.held.first(at).filter(|first| *first > from).map_or(u64::MAX, |first| first - 1);
        let to = want.sources.get(&peer).copied().unwrap_or(0).min(limit).min(gap_end);
        if to < from {
            self.drop_source(at, &peer);
            return true;
        }
        let request = self.request();
        let pull = Pull { request, shard: at.shard().clone(), stream: at.stream, from, to, reach };
        let is_bare = reach == Reach::Pin(()) && self.pulls_bare(at.shard()) && !self.whole.contains(at);
        if !self.send(cx, peer, &if is_bare { Frame::BarePull(pull) } else { Frame::Pull(pull) }) {
            return false;
        }
        self.counters.pulls_sent += 1;
        self.whole.remove(at);
        self.pulls.insert(request, PullState { peer, at: at.clone(), asked_at: cx.now });
        if let Some(want) = self.wants.get_mut(at) {
            want.pull = Some(request);
            for source in want.sources.keys() {
                if let Some(state) = self.peers.get_mut(source) {
                    state.ready.remove(at);
                }
            }
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.pulls += 1;
        }
        true
    }

    pub(super) fn range(&mut self, cx: &mut Cx<'_>, peer: Peer, bytes: usize, answer: &Answer) {
        let charge = Charge { peer, lane: Lane::Repair, bytes };
        if let Some(state) = self.peers.get_mut(&peer) {
            state.late = 0;
            state.gave_at = cx.now;
        }
        let asked = self.pulls.get(&answer.request).filter(|pull| pull.peer == peer).map(|pull| pull.at.clone());
        let Some(at) = asked else {
            // Late: the range was asked of another peer meanwhile. What still fits is taken.
            if self.take_run(cx, peer, &answer.ops, Reach::Pin(()), charge) != Some(Placed::Ingested) {
                self.idle(cx, peer, charge.lane, charge.bytes, 0);
            }
            return;
        };
        let reach = self.wants.get(&at).map_or(Reach::Pin(()), |want| want.reach);
        let placed = if answer.ops.is_empty() { None } else { self.take_run(cx, peer, &answer.ops, reach, charge) };
        if placed != Some(Placed::Ingested) {
            self.idle(cx, peer, charge.lane, charge.bytes, 0);
        }
        match placed {
            Some(Placed::Ingested | Placed::Duplicate) => {}
            // It has nothing that helps now; the next digest asks again.
            Some(Placed::Held | Placed::Dropped | Placed::Forks) | None => self.drop_source(&at, &peer),
        }
        self.end_pull(answer.request);
        self.settle_want(&at);
    }

    pub(super) fn busy(&mut self, peer: &Peer, request: u32) {
        self.bulk_refused(peer, request);
        if let Some(at) = self.pulls.get(&request).filter(|pull| pull.peer == *peer).map(|pull| pull.at.clone()) {
            self.drop_source(&at, peer);
            self.end_pull(request);
        }
        self.sync_refused(peer, request);
    }

    pub(super) fn sweep_pulls(&mut self, cx: &Cx<'_>) {
        let late: Vec<u32> =
            self.pulls.iter().filter(|(_, pull)| self.is_late(cx.now, pull)).map(|(request, _)| *request).collect();
        for request in late {
            self.counters.pulls_timed_out += 1;
            if let Some((at, peer)) = self.pulls.get(&request).map(|pull| (pull.at.clone(), pull.peer)) {
                self.drop_source(&at, &peer);
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.late = state.late.saturating_add(1);
                }
            }
            self.end_pull(request);
        }
    }

    /// Returns whether a range is no longer waited for: its time is over, or the peer gives nothing while another could.
    fn is_late(&self, now: Timestamp, pull: &PullState) -> bool {
        let gave_at = self.peers.get(&pull.peer).map_or(pull.asked_at, |state| state.gave_at.max(pull.asked_at));
        let sources = self.wants.get(&pull.at).into_iter().flat_map(|want| want.sources.keys());
        let mut others = sources.filter(|other| **other != pull.peer).filter_map(|other| self.peers.get(other));
        pull.asked_at.after(bounds::REQUEST_TIMEOUT) <= now
            || (gave_at.after(bounds::PULL_PATIENCE) <= now && others.any(|other| other.late == 0 && other.has_place()))
    }

    /// Notes that a peer answered with something that does not fit.
    pub(super) fn wrong_answer(&mut self, cx: &mut Cx<'_>, peer: Peer) {
        self.misbehaved(cx, peer, Misbehaviour::WrongAnswer);
    }
}
