//! What witnesses make of forked streams.
//!
//! Who has the duty says, once it knows of a fork, where its chain of the stream ended before. Each of them has seen one chain,
//! and the branch is kept that enough of them saw, as far as they saw it. What is decided rests on evidence stronger than the
//! stream's certificate, and so on nothing that was ever done in the stream.
//!
//! For streams of acts this is settled together with the acts, for streams of data when it is asked what is to be judged again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::log::{ActIx, Log};
use super::{Authority, Chains};
use crate::authority::mutant::{Mutant, Site, planted};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, OpId, PrincipalId, StreamId};
use crate::op::{Act, Duty, Pin, Rank};

/// Which branch of a forked stream counts.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Kept {
    /// Where it ends; none if nothing from the fork on counts.
    pub(super) pin: Option<Pin>,
    /// Chains that are not here and on which hangs whether it goes on; one for each witness.
    pub(super) open: Vec<Pin>,
}

/// The potential evidence, and what it comes to.
#[derive(Default)]
pub(super) struct Evidence {
    by_stream: BTreeMap<StreamId, BTreeSet<(ActIx, Pin)>>,
    kept: BTreeMap<StreamId, Kept>,
    /// Streams of data for which that may be otherwise now.
    due: BTreeSet<StreamId>,
}

impl Evidence {
    pub(super) fn index(&mut self, act: ActIx, pins: &[Pin]) {
        for pin in pins {
            self.by_stream.entry(pin.stream).or_default().insert((act, *pin));
        }
    }

    /// Returns whether there is any on a stream.
    pub(super) fn concerns(&self, stream: StreamId) -> bool {
        self.by_stream.contains_key(&stream)
    }

    /// Returns the acts that pin a stream, each with its pin.
    pub(super) fn on(&self, stream: StreamId) -> impl Iterator<Item = (ActIx, Pin)> + '_ {
        self.by_stream.get(&stream).into_iter().flatten().copied()
    }

    /// Returns the acts that pin a stream at a number or beyond.
    pub(super) fn reaching(&self, stream: StreamId, seq: u64) -> impl Iterator<Item = ActIx> + '_ {
        self.on(stream).filter(move |(_, pin)| pin.seq >= seq).map(|(act, _)| act)
    }

    pub(super) fn kept(&self, stream: StreamId) -> Option<Kept> {
        self.kept.get(&stream).cloned()
    }

    /// What there is on the stream may come to something else now.
    pub(super) fn weigh_again(&mut self, stream: StreamId) {
        if self.concerns(stream) {
            self.due.insert(stream);
        }
    }

    /// Returns whether this is another result than before.
    fn set(&mut self, stream: StreamId, kept: Kept) -> bool {
        self.kept.insert(stream, kept.clone()).unwrap_or_default() != kept
    }
}

/// What one witness says of a stream.
struct Voice {
    /// How many must agree, itself among them.
    quorum: u8,
    pins: BTreeSet<Pin>,
}

/// A witness whose chain is here.
#[derive(Clone, Copy)]
struct Seen {
    quorum: u8,
    /// It saw all up to here.
    end: Pin,
}

/// Returns how many of these witnesses agree with as many as each asks for.
fn weight(quorums: impl Iterator<Item = u8>) -> usize {
    let mut quorums: Vec<usize> = quorums.map(usize::from).collect();
    quorums.sort_unstable();
    (1..=quorums.len()).rev().find(|count| quorums.get(count - 1).is_some_and(|asks| asks <= count)).unwrap_or(0)
}

/// A forked stream, and the chains of it that are here.
struct Tree<'a> {
    /// Where it forks.
    at: u64,
    chains: &'a dyn Chains,
}

impl Tree<'_> {
    /// Returns the last op from the fork on that two chains share; both are here.
    fn common(&self, one: &Pin, other: &Pin) -> Option<Pin> {
        let same = |seq| self.chains.at(seq, one).filter(|id| self.chains.at(seq, other) == Some(*id));
        let (mut low, mut high) = (self.at, one.seq.min(other.seq));
        let mut found = None;
        while low <= high {
            let middle = low + (high - low).div_ceil(2);
            match same(middle) {
                Some(head) => {
                    found = Some(Pin { seq: middle, head, ..*one });
                    low = middle + 1;
                }
                None => high = middle - 1,
            }
        }
        found
    }

    /// Returns up to where a witness saw the stream, by pins whose chains are here. Who saw two branches saw what they share.
    fn end(&self, pins: impl Iterator<Item = Pin>) -> Option<Pin> {
        let mut end: Option<Pin> = None;
        let mut is_split = false;
        for pin in pins {
            let Some(before) = end else {
                end = Some(pin);
                continue;
            };
            let common = self.common(&before, &pin);
            if common == Some(before) {
                end = Some(if is_split { before } else { pin });
            } else if common != Some(pin) {
                is_split = true;
                end = Some(common?);
            }
        }
        end
    }

    /// Follows the stream from the fork, at each split along the branch that most have seen, as long as enough have; `silent`
    /// are those of whom it is not known what they saw.
    fn climb(&self, mut seen: Vec<Seen>, silent: &[u8]) -> (Option<Pin>, bool) {
        let mut kept: Option<Pin> = None;
        let all = |branch: &[Seen]| weight(branch.iter().map(|seen| seen.quorum).chain(silent.iter().copied()));
        loop {
            let reached = kept.map_or(self.at - 1, |pin| pin.seq);
            let mut branches: BTreeMap<OpId, Vec<Seen>> = BTreeMap::new();
            for witness in seen.iter().filter(|seen| seen.end.seq > reached) {
                let first = self.chains.at(reached + 1, &witness.end).unwrap_or(OpId::ZERO);
                branches.entry(first).or_default().push(*witness);
            }
            let key = |weight: usize, first: &OpId| {
                let greater = planted(Site::Engine, Mutant::GreaterHashWins).then_some(*first);
                (weight, greater, Reverse(*first))
            };
            let weigh =
                |(first, branch): (&OpId, &Vec<Seen>)| key(weight(branch.iter().map(|seen| seen.quorum)), first);
            let best = branches.iter().max_by_key(|branch| weigh(*branch));
            let won = best.filter(|best| {
                let won = weigh(*best);
                let loses = |(first, branch): (&OpId, &Vec<Seen>)| first == best.0 || key(all(branch), first) < won;
                won.0 > 0 && all(&[]) < won.0 && branches.iter().all(loses)
            });
            let Some((_, branch)) = won else {
                return (kept, all(&[]) > 0 || branches.values().any(|branch| all(branch) > 0));
            };
            let mut ends = branch.iter().map(|seen| seen.end);
            if planted(Site::Engine, Mutant::FurthestWitnessSuffices) {
                return (ends.max_by_key(|end| (end.seq, end.head)), false);
            }
            let Some(first) = ends.next() else { return (kept, false) };
            // They share at least the first op of the branch.
            kept = ends.try_fold(first, |shared, end| self.common(&shared, &end));
            seen.clone_from(branch);
            if kept.is_none() {
                return (None, false);
            }
        }
    }
}

impl Log {
    /// Says what each witness says of a forked stream, as far as that counts for it.
    fn voices(&self, stream: StreamId, at: u64, certificate: ActIx) -> BTreeMap<(PrincipalId, Option<ActIx>), Voice> {
        let mut voices: BTreeMap<(PrincipalId, Option<ActIx>), Voice> = BTreeMap::new();
        let of_certificate = self.act(certificate);
        let Some(bound) = of_certificate.statement() else { return voices };
        for (ix, pin) in self.evidence.on(stream).filter(|(_, pin)| pin.seq >= at) {
            let record = self.act(ix);
            let strength = record.strength();
            let is_strong =
                strength < bound.rank || strength == bound.rank && planted(Site::Engine, Mutant::EvidenceOfEquals);
            let counts = record.is_effective() || planted(Site::Engine, Mutant::CutEvidenceCounts);
            let own = self.find(record.header.certificate).and_then(|ix| self.act(ix).statement());
            let Some(witness) = own.map(|own| own.to).filter(|_| is_strong && counts) else { continue };
            let is_own =
                witness == bound.to || of_certificate.act().is_some_and(|act| act.certifies(record.header.author));
            if is_own && !planted(Site::Engine, Mutant::WitnessInOwnCause) {
                continue;
            }
            let name = (witness, planted(Site::Engine, Mutant::WitnessCountsTwice).then_some(ix));
            let quorum = self.quorum_of(ix);
            let voice = voices.entry(name).or_insert(Voice { quorum, pins: BTreeSet::new() });
            voice.quorum = voice.quorum.min(quorum);
            voice.pins.insert(pin);
        }
        voices
    }

    /// Returns how many witnesses must agree before an act of evidence counts.
    pub(super) fn quorum_of(&self, evidence: ActIx) -> u8 {
        let parts = self.act(evidence).proof().iter().filter_map(|part| self.find(*part));
        let quorums = parts.filter_map(|part| match self.act(part).act() {
            Some(Act::Duty(given)) => match given.duty {
                Duty::Witness(quorum) => Some(quorum),
                Duty::ActFor(_) | Duty::Warden(()) | Duty::Registrar(_) => None,
            },
            Some(_) | None => None,
        });
        let quorum = quorums.min().unwrap_or(1);
        if planted(Site::Engine, Mutant::QuorumIgnored) { 1 } else { quorum }
    }

    /// Says what witnesses make of a stream.
    fn weigh(&self, stream: StreamId, certificate: ActIx, chains: &dyn Chains) -> Kept {
        let Some(at) = self.forks.get(&stream).copied() else { return Kept::default() };
        if planted(Site::Engine, Mutant::EvidenceIgnored) {
            return Kept::default();
        }
        let tree = Tree { at, chains };
        let mut seen = Vec::new();
        let (mut silent, mut open) = (Vec::new(), Vec::new());
        for Voice { quorum, pins } in self.voices(stream, at, certificate).into_values() {
            let lacking = pins.iter().find(|pin| chains.at(at, pin).is_none());
            if let Some(lacking) = lacking.filter(|_| !planted(Site::Engine, Mutant::MissingEvidenceIgnored)) {
                silent.push(quorum);
                open.push(*lacking);
                continue;
            }
            let here = pins.iter().rev().filter(|pin| chains.at(at, pin).is_some_and(|id| id != OpId::ZERO)).copied();
            let end = if planted(Site::Engine, Mutant::EquivocatorCounts) {
                here.max_by_key(|pin| (pin.seq, pin.head))
            } else {
                tree.end(here)
            };
            seen.extend(end.map(|end| Seen { quorum, end }));
        }
        let (pin, is_open) = tree.climb(seen, &silent);
        open.sort();
        Kept { pin, open: if is_open { open } else { Vec::new() } }
    }

    // ---- streams of acts ----

    /// Returns the forked streams of acts on which there is evidence, with rank and certificate, those of the strongest last.
    pub(super) fn forked_with_evidence(&self) -> Vec<(Rank, StreamId, ActIx)> {
        let forked = self.evidence.by_stream.keys().filter(|stream| self.forks.contains_key(stream));
        let of_acts = forked.filter_map(|stream| {
            let certificate = self.find(self.certificate_of(*stream)?)?;
            Some((self.act(certificate).statement()?.rank, *stream, certificate))
        });
        let mut found: Vec<_> = of_acts.collect();
        found.sort_by_key(|(rank, stream, _)| Reverse((*rank, *stream)));
        found
    }

    /// Settles what witnesses make of a stream of acts, of which all stronger acts are settled.
    pub(super) fn weigh_acts(&mut self, stream: StreamId, certificate: ActIx) {
        let kept = self.weigh(stream, certificate, self);
        self.evidence.set(stream, kept);
    }

    /// The effect of an act has changed: if it is evidence, it has to be weighed again.
    pub(super) fn evidence_changed(&mut self, act: ActIx) {
        let pins = self.act(act).act().map_or(&[][..], Act::evidence);
        let streams: Vec<StreamId> = pins.iter().map(|pin| pin.stream).collect();
        streams.into_iter().for_each(|stream| self.evidence.weigh_again(stream));
    }
}

/// A witness of forks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WitnessInfo {
    /// Its principal.
    pub principal: PrincipalId,
    /// The statement that gives it the duty.
    pub duty: OpId,
    /// How many witnesses must agree before it counts, itself among them.
    pub quorum: u8,
    /// Rank of the duty.
    pub rank: Rank,
    /// Its key, with the certificate under which it signs; none if it has none, or not any more.
    pub signs: Option<(AuthorKey, OpId)>,
    /// Acts of evidence by it that count.
    pub evidence: usize,
}

impl Authority {
    /// Weighs evidence on streams of data where that may come to something else than before.
    pub(super) fn weigh_evidence(&mut self, chains: &dyn Chains) {
        for stream in std::mem::take(&mut self.log.evidence.due) {
            let Some(fork) = self.log.forks.get(&stream).copied() else { continue };
            if self.log.is_control_stream(stream) {
                continue;
            }
            let Some(certificate) = self.streams.certificate(stream).and_then(|id| self.log.find(id)) else {
                // Not known how strong it is, until an op of it is noted.
                self.log.evidence.due.insert(stream);
                continue;
            };
            let kept = self.log.weigh(stream, certificate, chains);
            if self.log.evidence.set(stream, kept) {
                self.streams.rejudge_from(stream, fork);
            }
        }
    }

    /// Returns the chains that are not here and on which hangs which branch of a forked stream counts.
    #[must_use]
    pub fn awaited_evidence(&self, stream: StreamId, certificate: OpId) -> Vec<Pin> {
        self.log.find(certificate).map(|certificate| self.log.kept(stream, certificate).open).unwrap_or_default()
    }

    /// Returns the witnesses, by principal; of several duties of one that with the smallest quorum.
    #[must_use]
    pub fn witnesses(&self, now: Hlc) -> Vec<WitnessInfo> {
        let mut found: BTreeMap<PrincipalId, WitnessInfo> = BTreeMap::new();
        for statement in self.statements(now).filter(|statement| statement.denial.is_none()) {
            let Act::Duty(given) = statement.act else { continue };
            let Duty::Witness(quorum) = given.duty else { continue };
            let info = WitnessInfo {
                principal: statement.to,
                duty: statement.id,
                quorum,
                rank: statement.rank,
                signs: self.strongest_key(statement.to, now),
                evidence: self.evidence_by(statement.to).count(),
            };
            let known = found.entry(statement.to).or_insert_with(|| info.clone());
            if (quorum, info.rank, info.duty) < (known.quorum, known.rank, known.duty) {
                *known = info;
            }
        }
        found.into_values().collect()
    }

    fn strongest_key(&self, principal: PrincipalId, now: Hlc) -> Option<(AuthorKey, OpId)> {
        let certificates = self.log.given_to(principal).filter_map(|ix| match self.log.act(ix).act() {
            Some(Act::Certify(certify)) if self.in_force(ix, now) => {
                Some((certify.rank, self.log.act(ix).id, certify.key))
            }
            Some(_) | None => None,
        });
        certificates.min().map(|(_, id, key)| (key, id))
    }

    fn evidence_by(&self, principal: PrincipalId) -> impl Iterator<Item = ActIx> + '_ {
        let acts: BTreeSet<ActIx> = self.log.evidence.by_stream.values().flatten().map(|(act, _)| *act).collect();
        acts.into_iter().filter(move |act| {
            let record = self.log.act(*act);
            record.is_effective() && self.principal_of(record.header.certificate) == Some(principal)
        })
    }

    /// Returns how many acts of evidence count.
    #[must_use]
    pub fn evidence_count(&self) -> usize {
        let acts: BTreeSet<ActIx> = self.log.evidence.by_stream.values().flatten().map(|(act, _)| *act).collect();
        acts.into_iter().filter(|act| self.log.act(*act).is_effective()).count()
    }

    /// Returns the certificates under which a key gives evidence, each with the strength of that, the strongest first.
    #[must_use]
    pub fn witness_certificates(&self, key: AuthorKey, now: Hlc) -> Vec<(Rank, OpId)> {
        let strength = |principal| {
            let duties = self.log.given_to(principal).filter_map(|ix| match self.log.act(ix).act() {
                Some(Act::Duty(given)) if matches!(given.duty, Duty::Witness(_)) && self.in_force(ix, now) => {
                    Some(given.rank)
                }
                Some(_) | None => None,
            });
            duties.min()
        };
        let held = self.certificates_of(key, now).into_iter();
        let mut found: Vec<_> =
            held.filter_map(|held| Some((held.rank.max(strength(held.principal)?), held.id))).collect();
        found.sort();
        found
    }

    /// Returns whether evidence that a key would give under a certificate of its own, with this strength, could decide a forked
    /// stream on which it has said nothing yet, and that nothing decides.
    #[must_use]
    pub fn wants_evidence(
        &self,
        (key, own, strength): (AuthorKey, OpId, Rank),
        stream: StreamId,
        certificate: OpId,
    ) -> bool {
        let (Some(certificate), Some(witness)) = (self.log.find(certificate), self.principal_of(own)) else {
            return false;
        };
        let record = self.log.act(certificate);
        let Some(bound) = record.statement() else { return false };
        let is_own = witness == bound.to || record.act().is_some_and(|act| act.certifies(key));
        let has_spoken = || {
            self.log.evidence.on(stream).any(|(act, _)| {
                let record = self.log.act(act);
                matches!(record.effect, super::Verdict::Allowed | super::Verdict::Deferred(_))
                    && self.principal_of(record.header.certificate) == Some(witness)
            })
        };
        strength < bound.rank
            && !is_own
            && self.log.forks.contains_key(&stream)
            && self.log.kept(stream, certificate).pin.is_none()
            && !has_spoken()
    }
}
