//! Answering peers: one request of each peer at a time, and only while a largest frame fits its credit, so that a slow
//! reader costs a short queue of requests and no data.

use serde_bytes::ByteBuf;

use super::api::{Effect, Lane, OpForm, Peer, StoredOp, Ticket};
use super::digest::Tip;
use super::engine::{Cx, Engine, Worth};
use super::frame::{
    Answer, Chain, Documents, DocumentsAsk, Found, Frame, HeadLine, Heads, HeadsAsk, Pull, Ranges, RangesAsk, Reach,
};
use super::heads::{Shard, StreamAt};
use super::limits as bounds;
use super::peer::{Pace, Serve};
use super::ranges;
use super::run::Run;
use crate::id::{ChangeHash, OpId, ShardId, StreamId};

/// What a ticket was given out for.
#[derive(Debug)]
pub(super) enum Question {
    Ops {
        asker: Peer,
        pull: Pull,
        form: OpForm,
    },
    Documents {
        asker: Peer,
        request: u32,
    },
    /// Changes of our own for a peer's bare ops.
    Complete {
        peer: Peer,
        request: u32,
        bytes: usize,
    },
    Ids {
        asker: Peer,
        request: u32,
    },
    Branches {
        asker: Peer,
        request: u32,
    },
    Changes {
        asker: Peer,
        shard: ShardId,
    },
    /// Sessions before one that the asker lacks.
    Earlier {
        asker: Peer,
        shard: ShardId,
    },
    /// Own ids for a fork search.
    Search {
        at: StreamAt,
    },
    /// Own ids to compare a branch with.
    Compare {
        peer: Peer,
        at: StreamAt,
        /// The needed op, if the branch was asked for by name.
        through: Option<Tip>,
        run: Run,
    },
}

impl Question {
    /// Returns the peer that waits for the answer, or whose answer is being checked.
    pub(super) const fn asker(&self) -> Option<Peer> {
        match self {
            Self::Ops { asker, .. }
            | Self::Documents { asker, .. }
            | Self::Ids { asker, .. }
            | Self::Branches { asker, .. }
            | Self::Changes { asker, .. }
            | Self::Earlier { asker, .. } => Some(*asker),
            Self::Compare { peer, .. } | Self::Complete { peer, .. } => Some(*peer),
            Self::Search { .. } => None,
        }
    }
}

impl Engine {
    /// Takes a question, if the peer has not too many open and has not had too much read for it.
    pub(super) fn serve(&mut self, cx: &mut Cx<'_>, peer: Peer, request: u32, serve: Serve) -> Worth {
        let held = self.config.held_bytes.saturating_add(self.conduct.progress());
        let may_ask = self.conduct.may_be_served(&peer, held, cx.now);
        let Some(state) = self.peers.get_mut(&peer) else { return Worth::Useful };
        state.questions += 1;
        let compares = |serve: &Serve| matches!(serve, Serve::Ranges(_));
        let is_much = compares(&serve)
            && state.serving.iter().filter(|serve| compares(serve)).count() >= bounds::SYNCS_PER_PEER_MAX;
        if is_much || state.serving.len() >= bounds::SERVE_QUEUE_MAX || !may_ask {
            self.counters.service_refused += u64::from(!may_ask);
            self.send(cx, peer, &Frame::Busy(request));
            return Worth::Idle(0);
        }
        state.serving.push_back(serve);
        self.pump(cx, peer);
        Worth::Useful
    }

    /// Serves what waits, as far as credit goes.
    pub(super) fn pump(&mut self, cx: &mut Cx<'_>, peer: Peer) {
        loop {
            let Some(state) = self.peers.get_mut(&peer) else { return };
            if state.reading.is_some() || state.lane(Lane::Repair).available() < bounds::FRAME_BYTES_MAX as u64 {
                return;
            }
            let is_bulk = matches!(state.serving.front(), Some(Serve::Documents(_)));
            if is_bulk && state.lane(Lane::Snapshot).available() < bounds::FRAME_BYTES_MAX as u64 {
                return;
            }
            let Some(serve) = state.serving.pop_front() else { return };
            self.serve_one(cx, peer, serve);
        }
    }

    fn serve_one(&mut self, cx: &mut Cx<'_>, peer: Peer, serve: Serve) {
        let shard = match &serve {
            Serve::Heads(ask) => &ask.shard,
            Serve::Ranges(ask) => &ask.shard,
            Serve::Pull(pull) | Serve::BarePull(pull) => &pull.shard,
            Serve::Documents(ask) => &ask.shard,
            Serve::Want(want) => &want.shard,
            Serve::Earlier(ask) => &ask.shard,
            Serve::Chain(ask) => &ask.shard,
            Serve::Branches(ask) => &ask.shard,
        };
        let is_shared = self.shares(cx, &peer, &shard.collection);
        let ticket = self.ticket();
        let form = if matches!(serve, Serve::BarePull(_)) { OpForm::Bare } else { OpForm::Whole };
        let (question, effect) = match serve {
            Serve::Documents(ask) => {
                if !is_shared {
                    let page = Documents { request: ask.request, documents: Vec::new(), next: None, total: 0 };
                    self.send(cx, peer, &Frame::Documents(page));
                    return;
                }
                if self.is_beginner(&ask.shard) {
                    self.send(cx, peer, &Frame::Busy(ask.request));
                    return;
                }
                self.conduct.served(peer, bounds::SERVED_DOCUMENTS, cx.now);
                let DocumentsAsk { shard, after, part, since, .. } = ask;
                let effect = Effect::ReadDocuments { ticket, shard, after, part, since };
                (Question::Documents { asker: peer, request: ask.request }, effect)
            }
            Serve::Heads(ask) => {
                let page = if is_shared { self.page(&ask) } else { empty_page(&ask) };
                self.send(cx, peer, &Frame::Heads(page));
                return;
            }
            Serve::Ranges(ask) => {
                let frame = if is_shared {
                    self.compare(cx, &peer, &ask)
                } else {
                    Frame::Ranges(Ranges { request: ask.request, arrival: 0, parts: Vec::new() })
                };
                self.send(cx, peer, &frame);
                return;
            }
            Serve::Pull(pull) | Serve::BarePull(pull) => {
                let stream = self.heads.get(&StreamAt::new(&pull.shard, pull.stream));
                let end = stream.map_or(0, |stream| match (pull.reach, stream.pin) {
                    (Reach::Pin(()), Some(pin)) => pin.seq.min(stream.durable.tip.seq),
                    (Reach::Beyond(()), _) | (Reach::Pin(()), None) => stream.durable.tip.seq,
                });
                if !is_shared || pull.from > end {
                    self.send(cx, peer, &range_frame(form, Answer { request: pull.request, ops: Vec::new() }));
                    return;
                }
                let effect = Effect::ReadOps {
                    ticket,
                    shard: pull.shard.clone(),
                    stream: pull.stream,
                    from_seq: pull.from,
                    ops_max: bounds::RUN_OPS_MAX,
                    bytes_max: bounds::RUN_BYTES_MAX,
                    form,
                };
                (Question::Ops { asker: peer, pull, form }, effect)
            }
            Serve::Want(want) => {
                if !is_shared {
                    return;
                }
                let effect = Effect::LocateChanges { ticket, shard: want.shard.clone(), changes: want.changes };
                (Question::Changes { asker: peer, shard: want.shard }, effect)
            }
            Serve::Earlier(ask) => {
                if !is_shared {
                    return;
                }
                let effect = Effect::ReadEarlier {
                    ticket,
                    shard: ask.shard.clone(),
                    stream: ask.stream,
                    ends_max: bounds::EARLIER_MAX,
                };
                (Question::Earlier { asker: peer, shard: ask.shard }, effect)
            }
            Serve::Chain(ask) => {
                if !is_shared {
                    let ids = vec![None; ask.seqs.len()];
                    self.send(cx, peer, &Frame::Chain(Chain { request: ask.request, ids }));
                    return;
                }
                let effect = Effect::ReadIds { ticket, shard: ask.shard, stream: ask.stream, seqs: ask.seqs };
                (Question::Ids { asker: peer, request: ask.request }, effect)
            }
            Serve::Branches(ask) => {
                if !is_shared {
                    self.send(cx, peer, &Frame::Branch(Answer { request: ask.request, ops: Vec::new() }));
                    return;
                }
                let effect = Effect::ReadBranches {
                    ticket,
                    shard: ask.shard,
                    stream: ask.stream,
                    from_seq: ask.from,
                    through: ask.through,
                    ops_max: bounds::RUN_OPS_MAX,
                    bytes_max: bounds::RUN_BYTES_MAX,
                };
                (Question::Branches { asker: peer, request: ask.request }, effect)
            }
        };
        self.questions.insert(ticket, question);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.reading = Some(ticket);
        }
        cx.effects.push(effect);
    }

    /// Makes a page of heads that changed after a cursor of ours.
    fn page(&self, ask: &HeadsAsk) -> Heads {
        let Some(shard) = self.heads.shard(&ask.shard) else { return empty_page(ask) };
        if ask.epoch != self.config.epoch || ask.after > shard.arrival {
            return Heads { next: None, ..empty_page(ask) };
        }
        let line = |stream: &StreamId| {
            shard.streams.get(stream).and_then(|held| held.state()).map(|state| HeadLine::new(*stream, &state))
        };
        let mut taken = 0;
        let mut upto = ask.after;
        let heads = shard
            .by_arrival
            .range((std::ops::Bound::Excluded(ask.after), std::ops::Bound::Unbounded))
            .take(bounds::HEADS_PAGE_MAX)
            .inspect(|(arrival, _)| {
                taken += 1;
                upto = **arrival;
            })
            .filter_map(|(_, stream)| line(stream))
            .collect();
        Heads { request: ask.request, next: Some(upto), last: taken < bounds::HEADS_PAGE_MAX, heads }
    }

    /// Compares ranges of heads, unless the peer has had too much compared lately.
    fn compare(&mut self, cx: &Cx<'_>, peer: &Peer, ask: &RangesAsk) -> Frame {
        let empty = Shard::default();
        let shard = self.heads.shard(&ask.shard).unwrap_or(&empty);
        let Some(state) = self.peers.get_mut(peer) else { return Frame::Busy(ask.request) };
        let twice = 2 * shard.streams.len() as u64;
        if state.hashed(cx.now) > bounds::RANGE_HASHES_PER_SECOND + twice {
            return Frame::Busy(ask.request);
        }
        let answer = ranges::answer(shard, ask);
        state.note_hashed(answer.hashed);
        Frame::Ranges(Ranges { request: ask.request, arrival: shard.arrival, parts: answer.parts })
    }

    pub(super) fn answered(&mut self, ticket: Ticket) -> Option<Question> {
        let question = self.questions.remove(&ticket)?;
        if let Some(state) = question.asker().and_then(|asker| self.peers.get_mut(&asker))
            && state.reading == Some(ticket)
        {
            state.reading = None;
        }
        Some(question)
    }

    pub(super) fn ops_read(&mut self, cx: &mut Cx<'_>, ticket: Ticket, ops: &[StoredOp]) {
        let Some(Question::Ops { asker, pull, form }) = self.answered(ticket) else { return };
        let at = StreamAt::new(&pull.shard, pull.stream);
        let stream = self.heads.get(&at);
        let pin = match pull.reach {
            Reach::Pin(()) => stream.and_then(|stream| stream.pin),
            Reach::Beyond(()) => None,
        };
        let tip = stream.map_or(0, |stream| stream.durable.tip.seq);
        let run = cut_run(ops, pull.from, pull.to, pin);
        let end = pull.from + run.len() as u64;
        self.counters.ranges_served += 1;
        let encoded = run.iter().map(|op| ByteBuf::from(op.bytes.to_vec())).collect();
        self.send(cx, asker, &range_frame(form, Answer { request: pull.request, ops: encoded }));
        if end > tip
            && let Some(state) = self.peers.get_mut(&asker)
            && state.lane(Lane::Live).is_recovered()
        {
            // It has pulled up to our last op, so pushes make sense again.
            state.pace = Pace::KeepsUp;
        }
        self.pump(cx, asker);
    }

    pub(super) fn ids_read(&mut self, cx: &mut Cx<'_>, ticket: Ticket, ids: &[Option<OpId>]) {
        match self.answered(ticket) {
            Some(Question::Ids { asker, request }) => {
                self.send(cx, asker, &Frame::Chain(Chain { request, ids: ids.to_vec() }));
                self.pump(cx, asker);
            }
            Some(Question::Search { at }) => self.search_compared(cx, &at, ids),
            Some(Question::Compare { peer, at, through, run }) => {
                self.branch_compared(cx, peer, &at, through, run, ids)
            }
            Some(
                Question::Ops { .. }
                | Question::Branches { .. }
                | Question::Changes { .. }
                | Question::Earlier { .. }
                | Question::Documents { .. }
                | Question::Complete { .. },
            )
            | None => {}
        }
    }

    pub(super) fn branches_read(&mut self, cx: &mut Cx<'_>, ticket: Ticket, branches: &[Vec<StoredOp>]) {
        let Some(Question::Branches { asker, request }) = self.answered(ticket) else { return };
        for branch in branches.iter().take(bounds::BRANCHES_MAX) {
            // Cut where it may end: at a signed op, or where the reader was asked to stop.
            let signed = branch.iter().rposition(|op| op.signed).map_or(branch.len(), |index| index + 1);
            let ops: Vec<ByteBuf> = branch.iter().take(signed).map(|op| ByteBuf::from(op.bytes.to_vec())).collect();
            if !ops.is_empty() {
                self.send(cx, asker, &Frame::Branch(Answer { request, ops }));
            }
        }
        self.send(cx, asker, &Frame::Branch(Answer { request, ops: Vec::new() }));
        self.pump(cx, asker);
    }

    pub(super) fn changes_located(&mut self, cx: &mut Cx<'_>, ticket: Ticket, found: Vec<(ChangeHash, StreamId, u64)>) {
        let Some(Question::Changes { asker, shard }) = self.answered(ticket) else { return };
        if !found.is_empty() {
            let changes = found.into_iter().take(bounds::WANT_MAX).collect();
            self.send(cx, asker, &Frame::Found(Found { shard, changes }));
        }
        self.pump(cx, asker);
    }
}

/// Returns the part of the ops that makes a run: to the first signed op from `to` on, else to the pin, else to the last
/// signed op.
fn cut_run(ops: &[StoredOp], from: u64, to: u64, pin: Option<Tip>) -> &[StoredOp] {
    let mut bytes = 0;
    let fits = ops
        .iter()
        .take(bounds::RUN_OPS_MAX)
        .take_while(|op| {
            bytes += op.bytes.len();
            bytes <= bounds::RUN_BYTES_MAX
        })
        .count()
        .max(1);
    let ops = ops.get(..fits).unwrap_or(ops);
    let index = |seq: u64| usize::try_from(seq.saturating_sub(from)).unwrap_or(usize::MAX);
    let ops = pin.map_or(ops, |pin| ops.get(..=index(pin.seq)).unwrap_or(ops));
    let after_to = ops.iter().skip(index(to)).position(|op| op.signed).map(|offset| index(to) + offset);
    let pinned = ops.len().checked_sub(1).filter(|last| pin.is_some_and(|pin| index(pin.seq) == *last));
    let end = after_to.or(pinned).or_else(|| ops.iter().rposition(|op| op.signed));
    end.and_then(|end| ops.get(..=end)).unwrap_or(&[])
}

const fn range_frame(form: OpForm, answer: Answer) -> Frame {
    match form {
        OpForm::Whole => Frame::Range(answer),
        OpForm::Bare => Frame::BareRange(answer),
    }
}

const fn empty_page(ask: &HeadsAsk) -> Heads {
    Heads { request: ask.request, next: Some(ask.after), last: true, heads: Vec::new() }
}
