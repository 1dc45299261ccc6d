//! What witnesses make of a forked stream, op by op.

use std::collections::{BTreeMap, BTreeSet};

use super::{World, bug};
use crate::authority::mutant::Mutant;
use crate::authority::verdict::{Missing, Verdict};
use crate::id::{OpId, PrincipalId, StreamId};
use crate::op::{Act, Duty, Header, Pin};

/// The branch that witnesses keep.
pub(super) struct Seen {
    /// Its ops, from the fork on.
    pub(super) kept: Vec<OpId>,
    /// A chain that is not here, if on it hangs whether the branch goes on.
    open: Option<Pin>,
}

/// What one witness says.
#[derive(Default)]
struct Voice {
    quorums: BTreeSet<u8>,
    /// The chains that it had, from the fork on.
    chains: BTreeSet<Vec<OpId>>,
    lacking: Option<Pin>,
}

enum Chain {
    Here(Vec<OpId>),
    Missing,
    None,
}

/// The greatest number of witnesses that ask for no more than that.
fn weight(quorums: &[u8]) -> usize {
    let content = |count: usize| quorums.iter().filter(|asks| usize::from(**asks) <= count).count() >= count;
    (0..=quorums.len()).rev().find(|count| content(*count)).unwrap_or(0)
}

impl Voice {
    fn quorum(&self) -> u8 {
        if bug(Mutant::QuorumIgnored) { 1 } else { self.quorums.first().copied().unwrap_or(1) }
    }

    /// The op after a path that the witness saw: if all that it saw lies on one line with that.
    fn next(&self, path: &[OpId]) -> Option<OpId> {
        let further = self.chains.iter().filter(|chain| chain.len() > path.len());
        if bug(Mutant::EquivocatorCounts) {
            let longest = further.max_by_key(|chain| (chain.len(), chain.last().copied()))?;
            return longest.starts_with(path).then(|| longest.get(path.len()).copied()).flatten();
        }
        let nexts: BTreeSet<Option<OpId>> = further.map(|chain| chain.get(path.len()).copied()).collect();
        let fits = |chain: &Vec<OpId>| chain.starts_with(path) || path.starts_with(chain);
        if nexts.len() != 1 || !self.chains.iter().all(fits) {
            return None;
        }
        nexts.into_iter().next().flatten()
    }
}

impl World<'_> {
    /// The ops of a chain from a number on.
    fn chain_from(&self, at: u64, end: &Pin) -> Chain {
        let mut chain = Vec::new();
        let mut id = end.head;
        for seq in (at..=end.seq).rev() {
            let Some(header) = self.ops.get(&id) else { return Chain::Missing };
            if header.seq != seq || self.streams.get(&id) != Some(&end.stream) {
                return Chain::None;
            }
            chain.push(id);
            id = header.prev;
        }
        chain.reverse();
        Chain::Here(chain)
    }

    /// What counts of what is said of a stream: by acts stronger than its certificate, of others than its author.
    fn voices(&self, stream: StreamId, at: u64, certificate: OpId) -> Vec<Voice> {
        let mut voices: BTreeMap<(PrincipalId, Option<OpId>), Voice> = BTreeMap::new();
        let Some(bound) = self.statement(certificate) else { return Vec::new() };
        for id in self.standing.keys() {
            let (Some(Act::Evidence(said)), Some(strength)) = (self.act(*id), self.strength(*id)) else { continue };
            let Some(header) = self.ops.get(id) else { continue };
            let strong = strength < bound.rank || bug(Mutant::EvidenceOfEquals) && strength == bound.rank;
            let counts = self.is_effective(*id) || bug(Mutant::CutEvidenceCounts);
            let Some(witness) = self.statement(header.certificate).map(|own| own.to) else { continue };
            let own = witness == bound.to || self.certified(certificate, header.author).is_some();
            if !strong || !counts || own && !bug(Mutant::WitnessInOwnCause) {
                continue;
            }
            for pin in said.pins.iter().filter(|pin| pin.stream == stream && pin.seq >= at) {
                let twice = bug(Mutant::WitnessCountsTwice).then_some(*id);
                let voice = voices.entry((witness, twice)).or_default();
                let asks = |duty: &Duty| if let Duty::Witness(quorum) = duty { Some(*quorum) } else { None };
                voice.quorums.extend(self.duties(*id).filter_map(asks));
                match self.chain_from(at, pin) {
                    Chain::Here(chain) => drop(voice.chains.insert(chain)),
                    Chain::Missing if bug(Mutant::MissingEvidenceIgnored) => {}
                    Chain::Missing => voice.lacking = voice.lacking.or(Some(*pin)),
                    Chain::None => {}
                }
            }
        }
        voices.into_values().collect()
    }

    /// Up from the fork, at each split along the branch of the most witnesses, as long as there are enough.
    pub(super) fn seen_by_witnesses(&self, stream: StreamId, at: u64, certificate: OpId) -> Seen {
        let mut seen = Seen { kept: Vec::new(), open: None };
        if bug(Mutant::EvidenceIgnored) {
            return seen;
        }
        let (waited_for, voices): (Vec<Voice>, Vec<Voice>) =
            self.voices(stream, at, certificate).into_iter().partition(|voice| voice.lacking.is_some());
        let silent: Vec<u8> = waited_for.iter().map(Voice::quorum).collect();
        loop {
            let mut branches: BTreeMap<OpId, Vec<u8>> = BTreeMap::new();
            for voice in &voices {
                if let Some(next) = voice.next(&seen.kept) {
                    branches.entry(next).or_default().push(voice.quorum());
                }
            }
            let at_most = |quorums: &[u8]| weight(&[quorums, &silent].concat());
            let best = branches.iter().map(|(first, quorums)| (weight(quorums), *first)).reduce(|best, other| {
                let greater = bug(Mutant::GreaterHashWins) && other.0 == best.0;
                if other.0 > best.0 || greater { other } else { best }
            });
            let wins = |(most, best): &(usize, OpId)| {
                let loses = |(first, quorums): (&OpId, &Vec<u8>)| {
                    let could = at_most(quorums);
                    first == best || could < *most || could == *most && ((best < first) != bug(Mutant::GreaterHashWins))
                };
                *most > 0 && at_most(&[]) < *most && branches.iter().all(loses)
            };
            let Some((_, next)) = best.filter(wins) else {
                let may_go_on = at_most(&[]) > 0 || branches.values().any(|quorums| at_most(quorums) > 0);
                seen.open = waited_for.first().and_then(|voice| voice.lacking).filter(|_| may_go_on);
                return seen;
            };
            if bug(Mutant::FurthestWitnessSuffices) {
                let chains = voices.iter().flat_map(|voice| &voice.chains);
                let furthest = chains.filter(|chain| chain.get(seen.kept.len()) == Some(&next)).max_by_key(|c| c.len());
                seen.kept = furthest.cloned().unwrap_or_default();
                return seen;
            }
            seen.kept.push(next);
        }
    }

    /// Why an op does not count, at the fork or beyond, where witnesses decide; `None` if it does.
    pub(super) fn blame_of_branch(&self, op: OpId, header: &Header, at: u64, seen: &Seen) -> Option<Verdict> {
        let place = usize::try_from(header.seq.saturating_sub(at)).unwrap_or(usize::MAX);
        if seen.kept.get(place) == Some(&op) || bug(Mutant::EvidenceHasNoEnd) && self.goes_on(op, at, &seen.kept) {
            return None;
        }
        let stream = *self.streams.get(&op)?;
        match seen.open.filter(|_| place >= seen.kept.len()) {
            Some(pin) => Some(Verdict::Deferred(Missing::Pinned(pin))),
            None => Some(Verdict::Forked { stream, at }),
        }
    }

    /// A planted bug.
    fn goes_on(&self, op: OpId, at: u64, kept: &[OpId]) -> bool {
        let (Some(header), Some(stream)) = (self.ops.get(&op), self.streams.get(&op)) else { return false };
        let end = Pin { stream: *stream, seq: header.seq, head: op };
        !kept.is_empty() && matches!(self.chain_from(at, &end), Chain::Here(chain) if chain.starts_with(kept))
    }
}
