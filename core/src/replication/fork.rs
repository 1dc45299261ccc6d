//! Forks: two ops at one place of a stream. Finding where branches part, fetching the other one, proving it.
//!
//! Ids that a peer names are claims; what is handed to the caller is a branch verified by chain and signature that leaves
//! our own chain at a place where our own store holds another op.

use serde_bytes::ByteBuf;

use super::api::{Effect, Peer, Timestamp};
use super::digest::Tip;
use super::engine::{Cx, Engine};
use super::frame::{Answer, BranchAsk, Chain, ChainAsk, Frame, Reach};
use super::heads::{StreamAt, TimedTip};
use super::limits as bounds;
use super::misdeed::Misbehaviour;
use super::need::NeededPiece;
use super::run::{Run, RunError};
use super::serve::Question;
use crate::id::OpId;

/// A search for the place where our chain and a peer's part: equal at `low`, different at `high`.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) peer: Peer,
    low: u64,
    high: u64,
    request: u32,
    seqs: Vec<u64>,
    theirs: Vec<Option<OpId>>,
    deadline: Timestamp,
}

/// Branches asked for.
#[derive(Debug)]
pub(super) struct BranchFetch {
    pub(super) peer: Peer,
    pub(super) at: StreamAt,
    from: u64,
    /// The needed op.
    through: Option<Tip>,
    answers: usize,
    deadline: Timestamp,
}

/// How a branch relates to our own chain.
enum Relation {
    /// Its first op does not follow ours, so they part before.
    Detached,
    /// It leaves our chain at this sequence number.
    Parts(u64),
    /// It goes on where our chain ends.
    Extends,
    /// It is part of our chain.
    Same,
}

impl Engine {
    /// Begins to search where a peer's chain leaves ours, at `high` or before.
    pub(super) fn fork_suspected(&mut self, cx: &mut Cx<'_>, at: &StreamAt, peer: Peer, high: u64) {
        let is_doubted = self.peers.get(&peer).is_none_or(|state| state.doubted.contains_key(at));
        if high == 0
            || is_doubted
            || self.blocked.contains_key(at)
            || self.searches.contains_key(at)
            || self.searches.len() >= bounds::FORK_WORK_MAX
        {
            return;
        }
        self.counters.forks_suspected += 1;
        let search = Search { peer, low: 0, high, request: 0, seqs: Vec::new(), theirs: Vec::new(), deadline: cx.now };
        self.searches.insert(at.clone(), search);
        self.probe(cx, at);
    }

    /// Asks for ids at places spread evenly between the two ends.
    fn probe(&mut self, cx: &mut Cx<'_>, at: &StreamAt) {
        let request = self.request();
        let Some(search) = self.searches.get_mut(at) else { return };
        let width = search.high - search.low;
        let count = width.min(bounds::CHAIN_SEQS_MAX as u64);
        let place = |i: u64| u64::try_from(u128::from(width) * u128::from(i) / u128::from(count)).unwrap_or(width);
        search.seqs = (1..=count).map(|i| search.low + place(i)).collect();
        search.request = request;
        search.deadline = cx.now.after(bounds::REQUEST_TIMEOUT);
        let ask = ChainAsk { request, shard: at.shard().clone(), stream: at.stream, seqs: search.seqs.clone() };
        let peer = search.peer;
        if !self.send(cx, peer, &Frame::ChainAsk(ask)) {
            self.searches.remove(at);
        }
    }

    /// Takes op ids; returns whether they were asked for.
    pub(super) fn chain(&mut self, cx: &mut Cx<'_>, peer: Peer, chain: &Chain) -> bool {
        let is_asked = |search: &Search| search.request == chain.request && chain.request != 0 && search.peer == peer;
        let found = self.searches.iter_mut().find(|(_, search)| is_asked(search));
        let Some((at, search)) = found else { return false };
        let at = at.clone();
        if chain.ids.len() != search.seqs.len() {
            self.searches.remove(&at);
            self.wrong_answer(cx, peer);
            return true;
        }
        search.theirs = chain.ids.clone();
        search.request = 0;
        let seqs = search.seqs.clone();
        let ticket = self.ticket();
        self.questions.insert(ticket, Question::Search { at: at.clone() });
        cx.effects.push(Effect::ReadIds { ticket, shard: at.shard().clone(), stream: at.stream, seqs });
        true
    }

    pub(super) fn search_compared(&mut self, cx: &mut Cx<'_>, at: &StreamAt, own: &[Option<OpId>]) {
        let Some(search) = self.searches.get_mut(at) else { return };
        let before = (search.low, search.high);
        let pairs: Vec<(u64, OpId, OpId)> = search
            .seqs
            .iter()
            .zip(own)
            .zip(&search.theirs)
            .filter_map(|((seq, own), theirs)| Some((*seq, (*own)?, (*theirs)?)))
            .collect();
        let Some(high) = pairs.iter().find(|(_, own, theirs)| own != theirs).map(|(seq, ..)| *seq) else {
            // They do not part after all, or one side has moved on: the next digest tells.
            return self.doubt(cx, at);
        };
        search.high = high;
        let equal = pairs.iter().filter(|(seq, own, theirs)| *seq < high && own == theirs).map(|(seq, ..)| *seq);
        search.low = equal.max().unwrap_or(0).max(search.low);
        if search.high.saturating_sub(search.low) <= 1 {
            let peer = search.peer;
            self.searches.remove(at);
            self.fetch_branches(cx, at, peer, high, None);
        } else if (search.low, search.high) == before {
            self.doubt(cx, at);
        } else {
            self.probe(cx, at);
        }
    }

    /// Ends a search that found nothing. What the peer says of the stream is not looked into for a while; the stream
    /// itself goes on, or one liar could stop it.
    fn doubt(&mut self, cx: &Cx<'_>, at: &StreamAt) {
        let Some(search) = self.searches.remove(at) else { return };
        if let Some(state) = self.peers.get_mut(&search.peer)
            && state.doubted.len() < bounds::DOUBTED_MAX
        {
            state.doubted.insert(at.clone(), cx.now.after(bounds::BLOCKED_FOR));
        }
        self.drop_source(at, &search.peer);
    }

    /// A peer knows of a fork that we do not know of.
    pub(super) fn fork_heard(&mut self, cx: &mut Cx<'_>, at: &StreamAt, peer: Peer, seq: u64) {
        let durable = self.heads.get(at).map_or(0, |own| own.durable.tip.seq);
        if durable >= seq {
            self.fetch_branches(cx, at, peer, seq, None);
        } else if self.fork_news.len() < bounds::FORK_NEWS_MAX || self.fork_news.contains_key(at) {
            self.fork_news.insert(at.clone(), (peer, seq));
            // The proof needs the chain up to the fork, beyond a pin as well.
            self.want(at, peer, seq, Reach::Beyond(()));
        }
    }

    /// Goes after a fork once our own chain has reached it.
    pub(super) fn fork_news_due(&mut self, cx: &mut Cx<'_>, at: &StreamAt) {
        let durable = self.heads.get(at).map_or(0, |stream| stream.durable.tip.seq);
        if let Some((peer, seq)) = self.fork_news.get(at).copied()
            && durable >= seq
        {
            self.fork_news.remove(at);
            self.fetch_branches(cx, at, peer, seq, None);
        }
    }

    /// Asks a peer for branches; returns whether the question went out.
    pub(super) fn fetch_branches(
        &mut self,
        cx: &mut Cx<'_>,
        at: &StreamAt,
        peer: Peer,
        from: u64,
        through: Option<Tip>,
    ) -> bool {
        let is_under_way = self.branches.values().any(|fetch| fetch.at == *at && fetch.through == through);
        if is_under_way || self.branches.len() >= bounds::FORK_WORK_MAX {
            return false;
        }
        let request = self.request();
        let ask = BranchAsk { request, shard: at.shard().clone(), stream: at.stream, from, through };
        if !self.send(cx, peer, &Frame::BranchAsk(ask)) {
            return false;
        }
        let deadline = cx.now.after(bounds::REQUEST_TIMEOUT);
        self.branches.insert(request, BranchFetch { peer, at: at.clone(), from, through, answers: 0, deadline });
        true
    }

    /// Takes a branch; returns whether it was asked for.
    pub(super) fn branch(&mut self, cx: &mut Cx<'_>, peer: Peer, answer: &Answer) -> bool {
        if self.branches.get(&answer.request).is_none_or(|fetch| fetch.peer != peer) {
            return false;
        }
        self.take_branch(cx, peer, answer);
        true
    }

    fn take_branch(&mut self, cx: &mut Cx<'_>, peer: Peer, answer: &Answer) {
        let Some(fetch) = self.branches.get_mut(&answer.request) else { return };
        if answer.ops.is_empty() {
            self.branches.remove(&answer.request);
            return;
        }
        fetch.answers += 1;
        let (at, from, through) = (fetch.at.clone(), fetch.from, fetch.through);
        let is_excess = fetch.answers > bounds::BRANCHES_MAX;
        if through.is_some() {
            // One branch leads to the op, so this was the answer.
            self.branches.remove(&answer.request);
        }
        let run = match self.open_branch(cx, &answer.ops) {
            Ok(run) => run,
            Err(RunError::Fault(what)) => return self.misbehaved(cx, peer, what),
            Err(RunError::Unvouched | RunError::LaterFormat) => return,
        };
        let Some(run) =
            run.filter(|run| !is_excess && run.first == from && run.stream == at.stream && run.shard == *at.shard())
        else {
            return self.wrong_answer(cx, peer);
        };
        let ticket = self.ticket();
        let seqs = (from - 1..=run.tip().seq).collect();
        cx.effects.push(Effect::ReadIds { ticket, shard: at.shard().clone(), stream: at.stream, seqs });
        self.questions.insert(ticket, Question::Compare { peer, at, through, run });
    }

    fn open_branch(&mut self, cx: &Cx<'_>, ops: &[ByteBuf]) -> Result<Option<Run>, RunError> {
        let Some(run) = Run::decode(ops, self.config.cluster)? else { return Ok(None) };
        self.verify(cx, run).map(Some)
    }

    pub(super) fn branch_compared(
        &mut self,
        cx: &mut Cx<'_>,
        peer: Peer,
        at: &StreamAt,
        through: Option<Tip>,
        run: Run,
        own: &[Option<OpId>],
    ) {
        let tip = run.tip();
        let first = run.first;
        let is_continuation = through.is_some_and(|needed| self.continues_branch(at, needed, run.prev));
        let relation = if is_continuation { Relation::Parts(first) } else { relate(&run, own) };
        // What goes on with our own chain is no branch, nor is the piece after it.
        let parts = matches!(relation, Relation::Parts(_));
        match relation {
            Relation::Parts(seq) => {
                if let Some(run) = run.skip_to(seq) {
                    let is_certified = run.ops.first().is_some_and(|op| {
                        let header = op.header();
                        cx.policy.certificate(&header.certificate, &header.author)
                            == super::api::CertificateState::Known
                    });
                    if is_certified || at.shard().is_control() {
                        self.counters.forks_found += 1;
                        // Both branches are signed by the author: it gave itself away, whoever handed them over.
                        let is_news = self.heads.get(at).is_some_and(|stream| stream.fork.is_none());
                        if let Some(header) = run.ops.first().map(|op| op.header()).filter(|_| is_news)
                            && self.conduct.is_new_fork(header.author, header.session)
                        {
                            self.misbehaved(cx, header.author, Misbehaviour::Forked);
                        }
                        cx.effects.push(Effect::ForkFound {
                            from: peer,
                            shard: run.shard,
                            stream: run.stream,
                            seq,
                            ops: run.ops,
                        });
                    }
                }
            }
            Relation::Extends => {
                let reach = if through.is_some() { Reach::Beyond(()) } else { Reach::Pin(()) };
                self.place(cx, peer, run, reach, None);
            }
            Relation::Detached if through.is_none() => {
                self.fork_suspected(cx, at, peer, first.saturating_sub(1));
                return;
            }
            Relation::Detached => return self.needed_detached(cx, at, through, peer, first),
            Relation::Same => {}
        }
        if let Some(needed) = through {
            self.needed_arrived(cx, at, needed, peer, NeededPiece { end: tip, parts });
        }
    }

    pub(super) fn fork_stored(&mut self, cx: &mut Cx<'_>, at: &StreamAt, seq: u64, arrival: u64) {
        let pin = cx.policy.closed_at(&at.stream);
        self.heads.change(at.shard(), at.stream, pin, |stream| {
            stream.fork = Some(stream.fork.map_or(seq, |known| known.min(seq)));
            stream.ingested = stream.durable;
        });
        self.heads.arrived(at.shard(), at.stream, arrival);
        self.held.clear(at);
        self.drop_want(at);
        self.searches.remove(at);
        self.hasten_digests(cx.now, None);
    }

    /// The store has changed to another branch of a forked stream.
    pub(super) fn branch_changed(&mut self, cx: &mut Cx<'_>, at: &StreamAt, tip: TimedTip, arrival: u64) {
        self.heads.change(at.shard(), at.stream, cx.policy.closed_at(&at.stream), |stream| {
            stream.durable = tip;
            stream.ingested = tip;
        });
        self.heads.arrived(at.shard(), at.stream, arrival);
        self.held.clear(at);
        self.drop_want(at);
    }

    pub(super) fn sweep_forks(&mut self, cx: &Cx<'_>) {
        self.searches.retain(|_, search| search.deadline > cx.now);
        self.branches.retain(|_, fetch| fetch.deadline > cx.now);
        for state in self.peers.values_mut() {
            state.doubted.retain(|_, until| *until > cx.now);
        }
    }
}

/// Compares a branch with our ids from the place before its first op on.
fn relate(run: &Run, own: &[Option<OpId>]) -> Relation {
    let Some((before, own)) = own.split_first() else { return Relation::Detached };
    if run.first > 1 && *before != Some(run.prev) {
        return Relation::Detached;
    }
    for (op, own) in run.ops.iter().zip(own) {
        match own {
            Some(own) if *own == op.id() => {}
            Some(_) => return Relation::Parts(op.header().seq),
            None => return Relation::Extends,
        }
    }
    Relation::Same
}
