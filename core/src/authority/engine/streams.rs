//! Data streams: what is kept of them, how a transaction is judged, and what has to be judged again.

use std::collections::{BTreeMap, BTreeSet};

use super::judge::judge_transaction;
use super::log::{ActIx, Log};
use super::past::Past;
use super::{Chains, Position, Subject};
use crate::authority::mutant::{Mutant, Site, planted};
use crate::authority::verdict::{Missing, Verdict};
use crate::id::{OpId, PrincipalId, StreamId};
use crate::op::{Act, Header, Pin};

/// What [`super::Authority::note_data`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// The op knows no more of the control log than the one before it (or was noted before).
    Same,
    /// The op knows more than the one before it.
    Grown,
    /// The op contradicts its ancestors; it and all after it are refused.
    Refused,
    /// The op names acts that are not complete. It is not noted, nor can those after it be; the stream comes up in
    /// [`super::Authority::take_rejudge`] when the acts are.
    Stalled,
    /// Ops before this one have not been noted. Nothing was done.
    Gap,
}

/// A range of a data stream whose verdicts may have changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rejudge {
    /// The stream.
    pub stream: StreamId,
    /// The first op to note and judge again; all after it follow.
    pub from_seq: u64,
}

/// Others write for a principal in a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WrittenFor {
    /// For whom.
    pub principal: PrincipalId,
    /// The stream.
    pub stream: StreamId,
    /// The first op in which they do.
    pub from_seq: u64,
}

/// Where a range to judge again begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    At(u64),
    /// After this pin if its chain is here, else at the given number.
    AfterPin(Pin, u64),
}

/// From this op on the stream knows this much.
struct Run {
    from: u64,
    policy: usize,
}

struct StreamRecord {
    certificate: OpId,
    noted: u64,
    runs: Vec<Run>,
    refused_from: Option<u64>,
    stalled_by: Option<OpId>,
    /// The pinned ops among those that were to be noted.
    pinned: BTreeSet<OpId>,
}

/// The data streams noted so far.
#[derive(Default)]
pub(super) struct Streams {
    records: BTreeMap<StreamId, StreamRecord>,
    /// Distinct states of knowledge, shared by streams.
    policies: Vec<Past>,
    policy_of: BTreeMap<Past, usize>,
    by_certificate: BTreeMap<OpId, BTreeSet<StreamId>>,
    /// Streams whose next op names these acts, with that op's number.
    stalled: BTreeMap<OpId, BTreeMap<StreamId, u64>>,
    stale: BTreeMap<StreamId, BTreeSet<Start>>,
    /// Where others write for principals, and the first op that does. Only what may ever count is kept: of a principal that
    /// is attested, by somebody with a duty. So there are at most as many entries as attested principals for each stream of
    /// a node that has one.
    written_for: BTreeMap<PrincipalId, BTreeMap<StreamId, u64>>,
    written_news: Vec<WrittenFor>,
}

impl Streams {
    pub(super) fn note(&mut self, log: &Log, at: &Position, header: &Header) -> Noted {
        let record = self.records.entry(at.stream).or_insert_with(|| StreamRecord {
            certificate: header.certificate,
            noted: 0,
            runs: Vec::new(),
            refused_from: None,
            stalled_by: None,
            pinned: BTreeSet::new(),
        });
        if record.noted == 0 {
            self.by_certificate.entry(header.certificate).or_default().insert(at.stream);
        }
        if at.seq <= record.noted {
            return Noted::Same;
        }
        // A chain that a pin names is complete with this op: then what was deferred can be judged, even while this op
        // itself waits. Once only, or judging again would go on for ever.
        let is_pinned = || {
            let own = log.pinners.get(&at.stream).into_iter().flatten().copied();
            own.chain(log.reach.of(at.stream)).any(|(_, pin)| pin.head == at.op)
        };
        if at.seq > 1 && is_pinned() && record.pinned.insert(at.op) {
            self.stale.entry(at.stream).or_default().insert(Start::At(1));
        }
        if at.seq != record.noted + 1 {
            return Noted::Gap;
        }
        if let Some(missing) = header.control_heads.iter().find(|head| log.find(**head).is_none()) {
            record.stalled_by = Some(*missing);
            self.stalled.entry(*missing).or_default().insert(at.stream, at.seq);
            return Noted::Stalled;
        }
        record.stalled_by = None;
        record.noted = at.seq;
        if record.refused_from.is_some() {
            return Noted::Same;
        }
        let heads = || header.control_heads.iter().filter_map(|head| log.find(*head)).map(|head| log.act(head));
        let contradicts = heads().any(|head| head.effect == Verdict::Refused || head.header.hlc > header.hlc);
        if contradicts {
            record.refused_from = Some(at.seq);
            return Noted::Refused;
        }
        let known = record.runs.last().and_then(|run| self.policies.get(run.policy));
        let grown = known.unwrap_or(&Past::empty()).with(heads().map(|head| (&head.past, head.place)));
        let written = written_for_others(log, at, header, &grown);
        let is_same = known == Some(&grown);
        for written in written {
            self.add_written_for(written);
        }
        if is_same {
            return Noted::Same;
        }
        let Some(record) = self.records.get_mut(&at.stream) else { return Noted::Same };
        let policy = *self.policy_of.entry(grown.clone()).or_insert_with(|| {
            self.policies.push(grown);
            self.policies.len() - 1
        });
        record.runs.push(Run { from: at.seq, policy });
        Noted::Grown
    }

    pub(super) fn resume<'a>(&mut self, log: &Log, ops: impl IntoIterator<Item = (Position, &'a Header)>, last: u64) {
        let mut resumed = None;
        for (at, header) in ops {
            if let Some(record) = self.records.get_mut(&at.stream) {
                record.noted = at.seq.saturating_sub(1);
            }
            if matches!(self.note(log, &at, header), Noted::Stalled | Noted::Gap) {
                return;
            }
            resumed = Some(at.stream);
        }
        if let Some(record) = resumed.and_then(|stream| self.records.get_mut(&stream)) {
            record.noted = record.noted.max(last);
        }
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        if let Some(record) = self.records.remove(&stream) {
            if let Some(streams) = self.by_certificate.get_mut(&record.certificate) {
                streams.remove(&stream);
            }
            if let Some(stalled) = record.stalled_by.and_then(|missing| self.stalled.get_mut(&missing)) {
                stalled.remove(&stream);
            }
        }
        self.rejudge_from(stream, 1);
    }

    fn add_written_for(&mut self, written: WrittenFor) {
        let streams = self.written_for.entry(written.principal).or_default();
        // Told again only if it is earlier: of a stream whose branch has changed.
        if streams.get(&written.stream).is_none_or(|from| written.from_seq < *from) {
            streams.insert(written.stream, written.from_seq);
            self.written_news.push(written);
        }
    }

    pub(super) fn take_written_for(&mut self) -> Vec<WrittenFor> {
        std::mem::take(&mut self.written_news)
    }

    pub(super) fn resume_written_for(&mut self, written: WrittenFor) {
        let from = self.written_for.entry(written.principal).or_default().entry(written.stream).or_insert(u64::MAX);
        *from = written.from_seq.min(*from);
    }

    /// Returns the streams in which something is written that may hang on a statement other than a certificate, each with the
    /// first op of which that is so.
    pub(super) fn written_under(&self, log: &Log, statement: ActIx) -> BTreeMap<StreamId, u64> {
        let mut streams: BTreeMap<StreamId, u64> = BTreeMap::new();
        for principal in log.beneficiaries(statement) {
            let by_others =
                self.written_for.get(&principal).into_iter().flatten().map(|(stream, from)| (*stream, *from));
            // A certificate among what is given to the principal; other statements have no streams.
            let own = log.given_to(principal).flat_map(|ix| self.of_certificate(log.act(ix).id));
            let by_others = by_others.filter(|_| !planted(Site::Engine, Mutant::WrittenForForgotten));
            for (stream, from) in by_others.chain(own.map(|stream| (stream, 1))) {
                // Of several principals the one for whom the stream was written first.
                streams.entry(stream).and_modify(|first| *first = from.min(*first)).or_insert(from);
            }
        }
        streams
    }

    pub(super) fn of_certificate(&self, certificate: OpId) -> impl Iterator<Item = StreamId> + '_ {
        self.by_certificate.get(&certificate).into_iter().flatten().copied()
    }

    /// Returns the certificate of a noted stream.
    pub(super) fn certificate(&self, stream: StreamId) -> Option<OpId> {
        self.records.get(&stream).map(|record| record.certificate)
    }

    /// Returns what the stream's author knew at its last noted op.
    pub(super) fn knowledge(&self, stream: StreamId) -> Option<&Past> {
        self.policies.get(self.records.get(&stream)?.runs.last()?.policy)
    }

    // ---- what has to be judged again ----

    pub(super) fn rejudge_from(&mut self, stream: StreamId, seq: u64) {
        self.stale.entry(stream).or_default().insert(Start::At(seq));
    }

    /// An act is complete: streams that waited for it go on.
    pub(super) fn wake(&mut self, act: OpId) {
        for (stream, seq) in self.stalled.remove(&act).unwrap_or_default() {
            self.rejudge_from(stream, seq);
        }
    }

    /// The effect of an act has changed.
    pub(super) fn act_changed(&mut self, log: &Log, ix: ActIx, was_effective: bool) {
        let record = log.act(ix);
        if record.statement().is_some() {
            self.statement_changed(log, ix, None);
        }
        if record.is_effective() == was_effective {
            return;
        }
        let revocation = match record.act() {
            Some(Act::Revoke(_) | Act::Succeed(_)) => ix,
            Some(Act::Readmit(readmit)) => match log.find(readmit.revocation) {
                Some(revocation) => revocation,
                None => return,
            },
            Some(
                Act::Genesis(_)
                | Act::Certify(_)
                | Act::Member(_)
                | Act::Grant(_)
                | Act::Collection(_)
                | Act::Rules(_)
                | Act::Approve(_)
                | Act::Role(_)
                | Act::Duty(_)
                | Act::Principal(_)
                | Act::Join(_)
                | Act::Token(_)
                | Act::Evidence(_)
                | Act::Erase(_)
                | Act::Erased(_)
                | Act::Pepper(_)
                | Act::Withdraw(_),
            )
            | None => return,
        };
        for statement in &log.act(revocation).hits {
            self.statement_changed(log, *statement, Some(revocation));
        }
        let own = record.pins().iter().map(|pin| pin.stream);
        for stream in own.chain(log.reach.streams_of(ix)) {
            if let Some(fork) = log.forks.get(&stream).filter(|_| self.records.contains_key(&stream)) {
                self.rejudge_from(stream, *fork);
            }
        }
    }

    /// Something about a statement has changed for the ops that know it; where a revocation is the cause, only for those
    /// beyond its pins.
    fn statement_changed(&mut self, log: &Log, statement: ActIx, cause: Option<ActIx>) {
        let record = log.act(statement);
        let streams: BTreeMap<StreamId, u64> = match record.act() {
            Some(Act::Genesis(_) | Act::Succeed(_) | Act::Certify(_)) => {
                self.of_certificate(record.id).map(|stream| (stream, 1)).collect()
            }
            _ => self.written_under(log, statement),
        };
        for (stream, from) in streams {
            let Some(known_from) = self.known_from(stream, record.place) else { continue };
            let known_from = known_from.max(from);
            let pins = cause.map_or(&[][..], |cause| log.act(cause).pins());
            let start = match pins.binary_search_by_key(&stream, |pin| pin.stream) {
                Ok(at) => pins
                    .get(at)
                    .filter(|pin| pin.seq > 0)
                    .map_or(Start::At(known_from), |pin| Start::AfterPin(*pin, known_from)),
                Err(_) => Start::At(known_from),
            };
            self.stale.entry(stream).or_default().insert(start);
        }
    }

    /// Returns the number of the first op of the stream that knows the act.
    fn known_from(&self, stream: StreamId, place: super::past::Place) -> Option<u64> {
        let runs = &self.records.get(&stream)?.runs;
        let at = runs.partition_point(|run| !self.policies.get(run.policy).is_some_and(|past| past.contains(place)));
        if planted(Site::Engine, Mutant::GrantNeedNotBeKnown) {
            return Some(1);
        }
        runs.get(at).map(|run| run.from)
    }

    pub(super) fn take_rejudge(&mut self, log: &Log, chains: &dyn Chains) -> Vec<Rejudge> {
        let stale = std::mem::take(&mut self.stale);
        stale
            .into_iter()
            .filter_map(|(stream, starts)| {
                let from_seq = starts.iter().map(|start| start.resolve(log, chains)).min()?;
                Some(Rejudge { stream, from_seq })
            })
            .collect()
    }

    // ---- judging ----

    /// Returns what the author of a noted op knew of the control log.
    pub(super) fn past_of(&self, at: &Position) -> Option<&Past> {
        let record = self.records.get(&at.stream).filter(|record| at.seq <= record.noted)?;
        let run = record.runs.partition_point(|run| run.from <= at.seq).checked_sub(1)?;
        record.runs.get(run).and_then(|run| self.policies.get(run.policy))
    }

    pub(super) fn judge(
        &self,
        log: &Log,
        at: &Position,
        header: &Header,
        transaction: usize,
        chains: &dyn Chains,
    ) -> Verdict {
        let Some(record) = self.records.get(&at.stream) else { return Verdict::Deferred(Missing::Chain) };
        if at.seq > record.noted {
            return Verdict::Deferred(record.stalled_by.map_or(Missing::Chain, Missing::Control));
        }
        if record.refused_from.is_some_and(|from| at.seq >= from) {
            return Verdict::Refused;
        }
        let past = self.past_of(at);
        // The first op of a stream names acts, so there is a run; a transaction that does not exist has no right.
        let (Some(past), Some(transaction)) = (past, header.transactions().get(transaction)) else {
            return Verdict::Refused;
        };
        let subject = Subject { position: *at, past, chains };
        judge_transaction(log, &subject, header, transaction)
    }
}

impl Start {
    fn resolve(&self, log: &Log, chains: &dyn Chains) -> u64 {
        match self {
            Self::At(seq) => *seq,
            Self::AfterPin(pin, known_from) => {
                // Any answer about the first position says that the whole chain is here.
                let first = Position { stream: pin.stream, seq: 1, op: pin.head };
                let here = chains.lies_on(&first, pin).is_some();
                // Before a fork all branches are one; from it on, the branch that is here may not be the pinned one.
                let fork = log.forks.get(&pin.stream).copied().unwrap_or(u64::MAX);
                if here { (*known_from).max(fork.min(pin.seq.saturating_add(1))) } else { *known_from }
            }
        }
    }
}

/// Returns for whom an op writes besides its author's own principal, as far as that may ever count: those that had agreed to
/// it, by an author that had a duty, as its stream knows.
fn written_for_others(log: &Log, at: &Position, header: &Header, known: &Past) -> Vec<WrittenFor> {
    let signer = log.find(header.certificate).and_then(|ix| log.act(ix).statement()).map(|statement| statement.to);
    let knows = |ix: ActIx| known.contains(log.act(ix).place);
    let others: BTreeSet<PrincipalId> = header.transactions().iter().map(|transaction| transaction.principal).collect();
    let mut others = others.into_iter().filter(|principal| Some(*principal) != signer).peekable();
    let has_duty = || signer.is_some_and(|signer| log.duties_to_act(signer).filter_map(|duty| duty.given()).any(knows));
    if others.peek().is_none() || !has_duty() {
        return Vec::new();
    }
    let attested = |principal: &PrincipalId| {
        log.introduction(*principal).is_some_and(|(ix, introduced)| introduced.attest && knows(ix))
    };
    let written = |principal| WrittenFor { principal, stream: at.stream, from_seq: at.seq };
    others.filter(attested).map(written).collect()
}
