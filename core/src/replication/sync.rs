//! Repair: digests tell where two replicas differ, cursors and compared ranges of heads tell what is missing.
//!
//! Each side pulls what it lacks itself. Cursors are an optimisation: where there is none, the other side does not know it,
//! or it brings nothing while digests go on to differ, ranges of heads are compared (see `ranges`).

use std::collections::BTreeMap;

use super::api::{AbsorbedCursor, Peer, Timestamp};
use super::digest::{HeadState, ShardDigest};
use super::engine::{Cx, Engine};
use super::frame::{Frame, HeadLine, Heads, HeadsAsk, Ranges, RangesAsk, Reach, RollUp, ShardSummary};
use super::heads::{Place, Shard, StreamAt};
use super::limits as bounds;
use super::misdeed::Misbehaviour;
use super::mutant::{Mutant, planted};
use super::peer::Pace;
use super::ranges::Session;
use crate::id::{Salt, ShardId, StoreEpoch, StreamId};

/// What is remembered of a peer's shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pub(super) cursor: Option<(StoreEpoch, u64)>,
    /// Rounds in a row that brought nothing although digests differed.
    fruitless: u8,
    /// When ranges may be compared again.
    ranges_after: Timestamp,
    /// What there was when ranges were last compared in vain: our digest, how many questions the peer had asked, how often it
    /// had been equal, and since when this is so.
    in_vain: Option<(ShardDigest, u64, u64, Timestamp)>,
}

impl Memory {
    pub(super) fn at(epoch: StoreEpoch, arrival: u64) -> Self {
        Self { cursor: Some((epoch, arrival)), ..Self::default() }
    }
}

/// A comparison of one shard with one peer.
#[derive(Debug)]
pub(super) struct Sync {
    request: u32,
    course: Course,
    epoch: StoreEpoch,
    /// Arrival from which the next cursor round goes on.
    arrival: Option<u64>,
    stage: Stage,
    /// Heads that were listed and are not durable here yet.
    waiting: BTreeMap<StreamId, u64>,
    /// Whether everything listed is here or waited for.
    is_whole: bool,
    is_useful: bool,
    /// Why it was begun.
    cause: Cause,
    deadline: Timestamp,
}

/// Why a comparison is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    /// Digests differ.
    Difference,
    /// It was time to look behind them.
    Check,
}

impl Sync {
    fn new(now: Timestamp, cause: Cause, course: Course, epoch: StoreEpoch) -> Self {
        Self {
            request: 0,
            course,
            epoch,
            arrival: None,
            stage: Stage::Between,
            waiting: BTreeMap::new(),
            is_whole: true,
            is_useful: false,
            cause,
            deadline: now.after(bounds::SYNC_TIMEOUT),
        }
    }

    /// Returns how many listed heads are waited for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns how many ranges have still to be asked for.
    pub(super) fn open_ranges(&self) -> usize {
        match &self.course {
            Course::Ranges(session) => session.open(),
            Course::Cursor(_) => 0,
        }
    }
}

/// How the difference is looked for.
#[derive(Debug)]
enum Course {
    /// By what changed after an arrival.
    Cursor(u64),
    /// By comparing ranges of heads.
    Ranges(Session),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// A question is out.
    Asked,
    /// There is more to ask.
    Between,
    /// All that there is to know is here.
    Listed,
}

/// What a listed head means for us.
enum Line {
    Nothing,
    /// It is pulled up to here.
    Waiting(u64),
    /// Something is to be done that a cursor must not pass.
    Unresolved,
}

impl Engine {
    // ---- digests ----

    fn roll_up(&self, cx: &Cx<'_>, peer: &Peer) -> Salt {
        if planted(Mutant::DigestsBlind) {
            return Salt::ZERO;
        }
        let mut sum = ShardDigest::default();
        for (collection, part) in self.heads.roll_ups() {
            if self.shares(cx, peer, collection) {
                sum.merge(part);
            }
        }
        Salt::new(sum.short())
    }

    pub(super) fn send_due_digests(&mut self, cx: &mut Cx<'_>) {
        let due: Vec<Peer> =
            self.peers.iter().filter(|(_, state)| state.digest_at <= cx.now).map(|(peer, _)| *peer).collect();
        for peer in due {
            let micros = u64::try_from(bounds::DIGEST_INTERVAL.as_micros()).unwrap_or(u64::MAX);
            let jitter = micros * 3 / 4 + self.random.below(micros / 2);
            if let Some(state) = self.peers.get_mut(&peer) {
                state.digest_at = cx.now.after(std::time::Duration::from_micros(jitter));
                state.digest_sent = cx.now;
                if state.introduction.is_none() {
                    continue;
                }
            }
            let digest = self.roll_up(cx, &peer);
            if self.send(cx, peer, &Frame::Digest(RollUp { digest })) {
                let lists = self.heads.shards().count() / bounds::SHARD_DIGESTS_MAX + bounds::LISTS_MIN;
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.lists_due = (state.lists_due + lists).min(lists * bounds::LISTS_MIN);
                }
            }
        }
    }

    /// Brings the next digest to all but one peer forward.
    pub(super) fn hasten_digests(&mut self, now: Timestamp, except: Option<Peer>) {
        for (peer, state) in &mut self.peers {
            if Some(*peer) != except {
                state.digest_at = state.digest_at.min(now.max(state.digest_sent.after(bounds::DIGEST_HASTE)));
            }
        }
    }

    pub(super) fn rolled_up(&mut self, cx: &mut Cx<'_>, peer: Peer, theirs: &RollUp) {
        let is_equal = theirs.digest == self.roll_up(cx, &peer);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.is_equal = is_equal;
        if is_equal {
            state.equals += 1;
            state.equal_at = cx.now;
            state.pace = Pace::KeepsUp;
            self.note_equal(cx, peer);
            self.bulks_equal(cx, peer);
            return self.check_salted(cx, peer);
        }
        self.send_shard_digests(cx, peer);
    }

    /// Equal digests acknowledge everything.
    fn note_equal(&mut self, cx: &Cx<'_>, peer: Peer) {
        let streams: Vec<(StreamAt, u64)> = self
            .acks
            .streams()
            .filter(|at| self.shares(cx, &peer, &at.shard().collection))
            .filter_map(|at| Some((at.clone(), self.heads.get(at)?.durable.tip.seq)))
            .collect();
        for (at, seq) in streams {
            self.note_ack(peer, &at, seq);
        }
    }

    fn send_shard_digests(&mut self, cx: &mut Cx<'_>, peer: Peer) {
        let resume = self.peers.get(&peer).and_then(|state| state.digest_resume.clone());
        let control = ShardId::control();
        let summary = |shard: &ShardId, digest: &ShardDigest| ShardSummary {
            shard: shard.clone(),
            digest: Salt::new(digest.short()),
            count: digest.count(),
        };
        let mut list: Vec<ShardSummary> =
            self.heads.shard(&control).map(|shard| summary(&control, &shard.digest)).into_iter().collect();
        list.extend(
            self.heads
                .shards()
                .filter(|(id, shard)| !id.is_control() && !shard.digest.is_empty())
                .filter(|(id, _)| resume.as_ref().is_none_or(|resume| *id >= resume))
                .filter(|(id, _)| self.shares(cx, &peer, &id.collection))
                .map(|(id, shard)| summary(id, &shard.digest)),
        );
        let mut unsent = None;
        for page in list.chunks(bounds::SHARD_DIGESTS_MAX) {
            if !self.send(cx, peer, &Frame::ShardDigests(page.to_vec())) {
                unsent = page.first().map(|summary| summary.shard.clone());
                break;
            }
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.digest_resume = unsent.filter(|shard| !shard.is_control());
        }
    }

    pub(super) fn shard_digests(&mut self, cx: &mut Cx<'_>, peer: Peer, digests: Vec<ShardSummary>) {
        for theirs in digests {
            let ours = self.heads.shard(&theirs.shard).map_or_else(ShardDigest::default, |shard| shard.digest);
            if Salt::new(ours.short()) == theirs.digest {
                self.bulk_equal(cx, peer, &theirs.shard);
                if let Some(memory) = self.memory.get_mut(&(peer, theirs.shard)) {
                    memory.fruitless = 0;
                }
                continue;
            }
            if theirs.count == 0 || !self.shares(cx, &peer, &theirs.shard.collection) {
                continue;
            }
            if self.bulk_first(cx, peer, &theirs.shard) {
                continue;
            }
            self.ask_for_lacking(peer, &theirs.shard);
            let place = Place::new(&theirs.shard);
            if let Some(state) = self.peers.get_mut(&peer)
                && state.sync_queue.len() < bounds::SYNC_QUEUE_MAX
                && !state.syncs.contains_key(&place)
            {
                state.sync_queue.insert(place);
            }
        }
        self.advance_syncs(cx, peer);
    }

    // ---- comparing heads ----

    /// Begins what waits, the control log before everything else, and asks for further pages.
    pub(super) fn advance_syncs(&mut self, cx: &mut Cx<'_>, peer: Peer) {
        loop {
            let Some(state) = self.peers.get_mut(&peer) else { return };
            let Some(epoch) = state.introduction.as_ref().map(|introduction| introduction.epoch) else { return };
            let control = Place::new(&ShardId::control());
            if state.syncs.len() >= bounds::SYNCS_PER_PEER_MAX || state.syncs.contains_key(&control) {
                return;
            }
            let Some(place) = state.sync_queue.pop_first() else { return };
            if state.syncs.contains_key(&place) {
                continue;
            }
            let key = (peer, place.shard.clone());
            let room = self.memory.len() < bounds::CURSORS_MAX;
            let mut fresh = Memory::default();
            let memory =
                if room || self.memory.contains_key(&key) { self.memory.entry(key).or_default() } else { &mut fresh };
            let cursor = memory.cursor.filter(|(known, _)| *known == epoch).map(|(_, arrival)| arrival);
            let may_compare = memory.ranges_after <= cx.now;
            let course = match cursor {
                Some(arrival) if memory.fruitless < bounds::FRUITLESS_ROUNDS_MAX || !may_compare => {
                    Course::Cursor(arrival)
                }
                Some(_) | None if may_compare => {
                    memory.fruitless = 0;
                    Course::Ranges(self.session(&place.shard))
                }
                Some(_) | None => continue,
            };
            let Some(state) = self.peers.get_mut(&peer) else { return };
            state.syncs.insert(place.clone(), Sync::new(cx.now, Cause::Difference, course, epoch));
            self.counters.syncs += 1;
            self.next_question(cx, peer, &place);
            self.finish_sync(cx, peer, &place);
        }
    }

    /// Compares the next shard with a peer whose digests are equal, if it is time for that.
    fn check_salted(&mut self, cx: &mut Cx<'_>, peer: Peer) {
        let Some(state) = self.peers.get(&peer) else { return };
        if state.checked_at.after(bounds::SALTED_CHECK_INTERVAL) > cx.now || !state.syncs.is_empty() {
            return;
        }
        let Some(epoch) = state.introduction.as_ref().map(|introduction| introduction.epoch) else { return };
        let is_next = |id: &ShardId| state.checked.as_ref().is_none_or(|last| id > last);
        let shared: Vec<&ShardId> =
            self.heads.shards().map(|(id, _)| id).filter(|id| self.shares(cx, &peer, &id.collection)).collect();
        let next = shared.iter().find(|id| is_next(id)).or(shared.first()).map(|id| (*id).clone());
        let Some(shard) = next else { return };
        let course = Course::Ranges(self.session(&shard));
        self.counters.salted_checks += 1;
        let place = Place::new(&shard);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.checked_at = cx.now;
            state.checked = Some(shard);
            state.syncs.insert(place.clone(), Sync::new(cx.now, Cause::Check, course, epoch));
        }
        self.next_question(cx, peer, &place);
    }

    /// Begins a comparison of ranges.
    fn session(&mut self, shard: &ShardId) -> Session {
        self.counters.ranges_compared += 1;
        let salt = self.random.salt();
        match self.heads.shard(shard) {
            Some(shard) => Session::new(shard, salt),
            None => Session::new(&Shard::default(), salt),
        }
    }

    fn next_question(&mut self, cx: &mut Cx<'_>, peer: Peer, place: &Place) {
        let request = self.request();
        let Some(sync) = self.peers.get_mut(&peer).and_then(|state| state.syncs.get_mut(place)) else { return };
        if sync.stage != Stage::Between || sync.waiting.len() >= bounds::HEADS_PAGE_MAX {
            return;
        }
        let shard = place.shard.clone();
        let frame = match &mut sync.course {
            Course::Cursor(after) => Frame::HeadsAsk(HeadsAsk { request, shard, epoch: sync.epoch, after: *after }),
            Course::Ranges(session) if session.is_done() => {
                sync.stage = Stage::Listed;
                return;
            }
            Course::Ranges(session) => {
                let empty = Shard::default();
                let Some((salt, ranges)) = session.next(self.heads.shard(&shard).unwrap_or(&empty)) else {
                    sync.is_whole = false;
                    sync.stage = Stage::Listed;
                    return;
                };
                self.counters.range_questions += 1;
                Frame::RangesAsk(RangesAsk { request, shard, salt, ranges })
            }
        };
        sync.request = request;
        sync.stage = Stage::Asked;
        sync.deadline = cx.now.after(bounds::REQUEST_TIMEOUT);
        if !self.send(cx, peer, &frame)
            && let Some(state) = self.peers.get_mut(&peer)
        {
            state.syncs.remove(place);
        }
    }

    /// Returns the comparison that waits for this answer.
    fn asked(&mut self, peer: &Peer, request: u32) -> Option<(Place, &mut Sync)> {
        let syncs = &mut self.peers.get_mut(peer)?.syncs;
        let found = syncs.iter_mut().find(|(_, sync)| sync.stage == Stage::Asked && sync.request == request);
        found.map(|(place, sync)| (place.clone(), sync))
    }

    /// Ends a comparison whose answer fits no question.
    fn sync_deceived(&mut self, cx: &mut Cx<'_>, peer: Peer, place: &Place) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.syncs.remove(place);
        }
        self.wrong_answer(cx, peer);
    }

    /// The peer cannot answer a comparison now.
    pub(super) fn sync_refused(&mut self, peer: &Peer, request: u32) {
        if let Some((place, _)) = self.asked(peer, request)
            && let Some(state) = self.peers.get_mut(peer)
        {
            state.syncs.remove(&place);
        }
    }

    /// Takes a page of heads; returns whether it was asked for.
    pub(super) fn heads_page(&mut self, cx: &mut Cx<'_>, peer: Peer, page: &Heads) -> bool {
        let is_asked = self.asked(&peer, page.request).is_some();
        self.take_page(cx, peer, page);
        is_asked
    }

    fn take_page(&mut self, cx: &mut Cx<'_>, peer: Peer, page: &Heads) {
        let Some((place, sync)) = self.asked(&peer, page.request) else { return };
        let Course::Cursor(after) = sync.course else { return self.sync_deceived(cx, peer, &place) };
        let Some(next) = page.next else {
            // The cursor is not known there.
            let session = self.session(&place.shard);
            if let Some((_, sync)) = self.asked(&peer, page.request) {
                sync.course = Course::Ranges(session);
                sync.stage = Stage::Between;
                sync.arrival = None;
            }
            self.next_question(cx, peer, &place);
            return self.finish_sync(cx, peer, &place);
        };
        if next <= after && !page.last {
            return self.sync_deceived(cx, peer, &place);
        }
        sync.course = Course::Cursor(next);
        sync.arrival = Some(next);
        sync.stage = if page.last { Stage::Listed } else { Stage::Between };
        self.take_lines(cx, peer, &place, &page.heads);
    }

    /// Takes an answer about ranges; returns whether it was asked for.
    pub(super) fn ranges(&mut self, cx: &mut Cx<'_>, peer: Peer, answer: &Ranges) -> bool {
        let is_asked = self.asked(&peer, answer.request).is_some();
        self.take_ranges(cx, peer, answer);
        is_asked
    }

    fn take_ranges(&mut self, cx: &mut Cx<'_>, peer: Peer, answer: &Ranges) {
        let Some((place, _)) = self.asked(&peer, answer.request) else { return };
        let Some(sync) = self.peers.get_mut(&peer).and_then(|state| state.syncs.get_mut(&place)) else { return };
        let empty = Shard::default();
        let lines = match &mut sync.course {
            Course::Ranges(session) => session.take(self.heads.shard(&place.shard).unwrap_or(&empty), &answer.parts),
            Course::Cursor(_) => Err(super::ranges::NoAnswer),
        };
        let Ok(lines) = lines else { return self.sync_deceived(cx, peer, &place) };
        // What changes there from now on has a later arrival than the first answer names.
        sync.arrival.get_or_insert(answer.arrival);
        sync.is_whole &= !answer.parts.is_empty();
        sync.stage = Stage::Between;
        self.take_lines(cx, peer, &place, &lines);
    }

    /// Takes heads that the peer lists, and goes on.
    fn take_lines(&mut self, cx: &mut Cx<'_>, peer: Peer, place: &Place, lines: &[HeadLine]) {
        let mut waiting = Vec::new();
        let mut is_whole = true;
        let mut is_useful = false;
        for line in lines {
            match self.line(cx, peer, &place.shard, line) {
                Line::Nothing => {}
                Line::Waiting(seq) => waiting.push((line.stream, seq)),
                Line::Unresolved => {
                    is_whole = false;
                    is_useful = true;
                }
            }
        }
        let Some(sync) = self.peers.get_mut(&peer).and_then(|state| state.syncs.get_mut(place)) else { return };
        sync.is_useful |= is_useful || !waiting.is_empty();
        sync.waiting.extend(waiting);
        sync.is_whole &= is_whole;
        sync.deadline = cx.now.after(bounds::SYNC_TIMEOUT);
        self.bulk_gap(cx, peer, &place.shard);
        self.next_question(cx, peer, place);
        self.finish_sync(cx, peer, place);
    }

    /// Compares a listed head with ours.
    fn line(&mut self, cx: &mut Cx<'_>, peer: Peer, shard: &ShardId, line: &HeadLine) -> Line {
        let at = StreamAt::new(shard, line.stream);
        let own = self.heads.get(&at);
        let (durable, ingested) = own.map_or((0, 0), |own| (own.durable.tip.seq, own.ingested.tip.seq));
        let fork = own.and_then(|own| own.fork);
        let pin = own.map_or_else(|| cx.policy.closed_at(&line.stream), |own| own.pin);
        match line.state() {
            HeadState::Open(tip) => {
                let differs = own.is_some_and(|own| {
                    fork.is_none()
                        && [own.durable.tip, own.ingested.tip].iter().any(|t| t.seq == tip.seq && t.id != tip.id)
                });
                if !differs {
                    self.note_ack(peer, &at, tip.seq);
                }
                let to = tip.seq.min(pin.map_or(u64::MAX, |pin| pin.seq));
                if fork.is_some() || to == 0 {
                    Line::Nothing
                } else if differs {
                    self.fork_suspected(cx, &at, peer, tip.seq);
                    Line::Unresolved
                } else if to > ingested {
                    if self.want(&at, peer, to, Reach::Pin(())) { Line::Waiting(to) } else { Line::Unresolved }
                } else if to > durable {
                    Line::Waiting(to)
                } else {
                    Line::Nothing
                }
            }
            HeadState::Forked { seq, .. } => {
                if fork.is_some_and(|own| own <= seq) {
                    return Line::Nothing;
                }
                self.fork_heard(cx, &at, peer, seq);
                Line::Unresolved
            }
        }
    }

    /// Strikes a stream off the lists that wait for it.
    pub(super) fn syncs_progressed(&mut self, cx: &mut Cx<'_>, at: &StreamAt, seq: u64) {
        let place = Place::new(at.shard());
        let mut struck = Vec::new();
        for (peer, state) in &mut self.peers {
            if let Some(sync) = state.syncs.get_mut(&place) {
                sync.deadline = cx.now.after(bounds::SYNC_TIMEOUT);
                if sync.waiting.get(&at.stream).is_some_and(|wanted| *wanted <= seq) {
                    sync.waiting.remove(&at.stream);
                    struck.push(*peer);
                }
            }
        }
        for peer in struck {
            self.next_question(cx, peer, &place);
            self.finish_sync(cx, peer, &place);
        }
    }

    /// Asks again for a stream that lists wait for and of which something else counts than was known when it was asked for. Without
    /// it the comparison would wait for what was refused until its time is over.
    pub(super) fn ask_again(&mut self, cx: &mut Cx<'_>, at: &StreamAt) {
        let place = Place::new(at.shard());
        let (have, end) = self.heads.get(at).map_or((0, u64::MAX), |own| (own.durable.tip.seq, own.live_end()));
        let waiting = self.peers.iter().filter_map(|(peer, state)| {
            let wanted = state.syncs.get(&place)?.waiting.get(&at.stream)?;
            Some((*peer, (*wanted).min(end)))
        });
        for (peer, to) in waiting.collect::<Vec<_>>() {
            if to > have && self.want(at, peer, to, Reach::Pin(())) {
                if let Some(sync) = self.peers.get_mut(&peer).and_then(|state| state.syncs.get_mut(&place)) {
                    sync.waiting.insert(at.stream, to);
                }
            } else if to <= have {
                self.syncs_progressed(cx, at, end);
            }
        }
    }

    fn finish_sync(&mut self, cx: &mut Cx<'_>, peer: Peer, place: &Place) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let is_done = |sync: &Sync| sync.stage == Stage::Listed && sync.waiting.is_empty();
        if !state.syncs.get(place).is_some_and(is_done) {
            return;
        }
        let Some(sync) = state.syncs.remove(place) else { return };
        let (questions, equals) = (state.questions, state.equals);
        let ours = self.heads.shard(&place.shard).map_or_else(ShardDigest::default, |shard| shard.digest);
        let mut is_false = false;
        if let Some(memory) = self.memory.get_mut(&(peer, place.shard.clone())) {
            if sync.is_whole
                && let Some(arrival) = sync.arrival
            {
                memory.cursor = Some((sync.epoch, arrival));
            }
            memory.fruitless = if sync.is_useful { 0 } else { memory.fruitless.saturating_add(1) };
            if matches!(sync.course, Course::Ranges(_)) && !sync.is_useful {
                memory.ranges_after = cx.now.after(bounds::RANGES_INTERVAL);
                // Who lacks something asks for it, and who has something shows it. If neither happens for long while nothing
                // changes here, its digest is none.
                let since = memory.in_vain.filter(|(digest, q, e, _)| (*digest, *q, *e) == (ours, questions, equals));
                let since = since.map_or(cx.now, |(.., since)| since);
                is_false = sync.cause == Cause::Difference && since.after(bounds::FALSE_DIGEST_AFTER) <= cx.now;
                memory.in_vain = Some((ours, questions, equals, if is_false { cx.now } else { since }));
            }
        }
        if sync.is_useful {
            // What it brought spreads at once to those who are not pushed to.
            self.hasten_digests(cx.now, None);
        }
        if sync.is_whole {
            self.bulk_synced(cx, peer, &place.shard);
        }
        if is_false {
            self.misbehaved(cx, peer, Misbehaviour::FalseDigest);
        }
        self.advance_syncs(cx, peer);
    }

    /// Gives up comparisons that make no progress.
    pub(super) fn sweep_syncs(&mut self, cx: &mut Cx<'_>) {
        let mut freed = Vec::new();
        for (peer, state) in &mut self.peers {
            let before = state.syncs.len();
            state.syncs.retain(|_, sync| sync.deadline > cx.now);
            if state.syncs.len() < before {
                freed.push(*peer);
            }
        }
        for peer in freed {
            self.advance_syncs(cx, peer);
        }
    }

    /// Returns how far the heads of peers' shards were absorbed. The caller may keep this and give it to
    /// [`Engine::new`]; losing it costs a comparison of ranges.
    pub fn cursors(&self) -> impl Iterator<Item = AbsorbedCursor> + '_ {
        self.memory.iter().filter_map(|((peer, shard), memory)| {
            let (epoch, arrival) = memory.cursor?;
            Some(AbsorbedCursor { peer: *peer, shard: shard.clone(), epoch, arrival })
        })
    }

    /// Returns how far one peer's shard was absorbed.
    #[must_use]
    pub fn absorbed(&self, peer: &Peer, shard: &ShardId) -> Option<(StoreEpoch, u64)> {
        self.memory.get(&(*peer, shard.clone())).and_then(|memory| memory.cursor)
    }
}
