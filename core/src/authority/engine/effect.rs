//! What the set of acts decides: revocations, readmissions, forks and consent.
//!
//! Effects are computed from the strongest acts to the weakest. An act of strength n rests on statements of rank at
//! most n, made by acts stronger than n, and is cut only by acts stronger than those statements: so when its turn
//! comes, all that it depends on is settled, and there is no recursion and no cycle.

use super::evidence::Kept;
use super::log::{ActIx, Log, Standing};
use super::past::Past;
use crate::authority::mutant::{Mutant, Site, planted};
use crate::authority::verdict::{Missing, Verdict};
use crate::authority::{Chains, Position};
use crate::id::{OpId, StreamId};
use crate::op::{Act, Pin, Rank};

/// An op whose right is asked for.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) position: Position,
    pub(super) past: &'a Past,
    pub(super) chains: &'a dyn Chains,
}

/// Whether an op lies within a pin.
enum Within {
    Yes,
    No,
    Unknown(Pin),
}

/// An act whose effect a settling has changed.
pub(super) struct Change {
    pub(super) act: ActIx,
    pub(super) was_effective: bool,
}

impl Chains for Log {
    fn at(&self, seq: u64, end: &Pin) -> Option<OpId> {
        Self::at(self, seq, end)
    }

    fn earlier_ends(&self, _: &Pin) -> Option<Vec<Pin>> {
        // Control streams name no earlier sessions.
        Some(Vec::new())
    }
}

fn within_pin(subject: &Subject<'_>, pin: &Pin) -> Within {
    let Position { seq, op, .. } = subject.position;
    if seq > pin.seq {
        return Within::No;
    }
    if planted(Site::Engine, Mutant::PinWithoutHash) {
        return Within::Yes;
    }
    let lies = if seq == pin.seq { Some(op == pin.head) } else { subject.chains.lies_on(&subject.position, pin) };
    match lies {
        Some(true) => Within::Yes,
        Some(false) => Within::No,
        None if planted(Site::Engine, Mutant::MissingPinTrusted) => Within::Yes,
        None => Within::Unknown(*pin),
    }
}

/// Planted bug: whether the op goes on where what witnesses keep ends.
fn goes_on(subject: &Subject<'_>, kept: &Kept) -> bool {
    let Position { stream, seq, op } = subject.position;
    let here = Pin { stream, seq, head: op };
    kept.pin.is_some_and(|pin| seq > pin.seq && subject.chains.at(pin.seq, &here) == Some(pin.head))
}

/// Of several ends the op needs to lie within one.
fn within(subject: &Subject<'_>, pins: impl Iterator<Item = Pin>) -> Within {
    if planted(Site::Engine, Mutant::PinForgotten) {
        return Within::No;
    }
    let mut best = Within::No;
    for pin in pins {
        best = match within_pin(subject, &pin) {
            Within::Yes => return Within::Yes,
            Within::Unknown(pin) if matches!(best, Within::No) => Within::Unknown(pin),
            Within::No | Within::Unknown(_) => best,
        };
    }
    best
}

impl Log {
    /// Computes effects again where needed; returns the acts whose effect is another than before.
    pub(super) fn settle(&mut self) -> Vec<Change> {
        let Some(from) = self.unsettled.take() else { return Vec::new() };
        let of_level = |(strength, acts): (&Rank, &Vec<ActIx>)| {
            let strength = *strength;
            acts.clone().into_iter().map(move |act| (strength, act))
        };
        let stale: Vec<(Rank, ActIx)> = self.levels.range(from..).flat_map(of_level).collect();
        // What witnesses make of a stream is settled before all that was ever done in it: they are stronger.
        let mut forked = self.forked_with_evidence();
        let mut changes = Vec::new();
        for (strength, act) in stale {
            while let Some((_, stream, certificate)) = forked.pop_if(|(rank, ..)| *rank <= strength) {
                self.weigh_acts(stream, certificate);
            }
            changes.extend(self.settle_one(act));
        }
        for (_, stream, certificate) in forked {
            self.weigh_acts(stream, certificate);
        }
        changes
    }

    /// Computes the effect of one act whose stronger acts are settled.
    pub(super) fn settle_one(&mut self, act: ActIx) -> Option<Change> {
        let effect = self.effect(act);
        let record = &mut self.acts[act.0];
        let was_effective = record.is_effective();
        let changed = record.effect != effect;
        record.effect = effect;
        changed.then_some(Change { act, was_effective })
    }

    fn effect(&self, ix: ActIx) -> Verdict {
        let record = self.act(ix);
        match record.standing {
            Standing::Refused => return Verdict::Refused,
            Standing::NotAllowed => return Verdict::NotAllowed,
            Standing::Potential { .. } => {}
        }
        let subject = self.subject(ix);
        if let Some(Act::Succeed(succeed)) = record.act() {
            return self.succession_effect(ix, succeed, &subject);
        }
        for statement in record.proof().iter().filter_map(|id| self.find(*id)) {
            if let Some(blame) = self.blame(statement, &subject) {
                return blame;
            }
        }
        let Some(certificate) = self.find(record.header.certificate) else {
            // Only the genesis has none.
            return Verdict::Allowed;
        };
        if let Some(blame) = self.fork_blame(certificate, &subject) {
            return blame;
        }
        if self.has_consent(ix, certificate) {
            Verdict::Allowed
        } else {
            Verdict::Deferred(Missing::Consent(record.id))
        }
    }

    /// Returns an act as what is judged.
    pub(super) fn subject(&self, ix: ActIx) -> Subject<'_> {
        let record = self.act(ix);
        let position = Position { stream: record.stream, seq: record.header.seq, op: record.id };
        Subject { position, past: &record.past, chains: self }
    }

    /// Returns why a statement does not count for an op; `None` if it does.
    pub(super) fn blame(&self, statement: ActIx, subject: &Subject<'_>) -> Option<Verdict> {
        let record = self.act(statement);
        if !record.is_effective() {
            return Some(record.effect);
        }
        let mut unknown = None;
        for revocation in &record.hitters {
            let revoker = self.act(*revocation);
            if !revoker.is_effective() {
                continue;
            }
            if planted(Site::Engine, Mutant::CausalRevocation) && !subject.past.contains(revoker.place) {
                continue;
            }
            match self.stands(*revocation, statement, subject) {
                Within::Yes => {}
                Within::No => return Some(Verdict::AfterRevocation { by: revoker.id }),
                Within::Unknown(pin) => {
                    unknown.get_or_insert(pin);
                }
            }
        }
        unknown.map(|pin| Verdict::Deferred(Missing::Pinned(pin)))
    }

    /// Returns the effective readmissions that are strong enough for a statement.
    pub(super) fn readmits_for(&self, revocation: ActIx, statement: ActIx) -> impl Iterator<Item = ActIx> + '_ {
        let rank = self.act(statement).statement().map(|statement| statement.rank);
        self.act(revocation).readmits.iter().copied().filter(move |readmit| {
            self.act(*readmit).is_effective() && rank.is_some_and(|rank| self.act(*readmit).strength() < rank)
        })
    }

    /// Returns whether the op lies within the pins of a revocation or of a readmission of it.
    fn stands(&self, revocation: ActIx, statement: ActIx, subject: &Subject<'_>) -> Within {
        let mut best = Within::No;
        for act in std::iter::once(revocation).chain(self.readmits_for(revocation, statement)) {
            match within(subject, self.pins_in(act, subject.position.stream)) {
                Within::Yes => return Within::Yes,
                Within::No => {}
                Within::Unknown(pin) => {
                    if matches!(best, Within::No) {
                        best = Within::Unknown(pin);
                    }
                }
            }
        }
        best
    }

    /// Returns why an op of a stream bound to `certificate` does not count because of a fork; `None` if it does.
    pub(super) fn fork_blame(&self, certificate: ActIx, subject: &Subject<'_>) -> Option<Verdict> {
        let Position { stream, seq, .. } = subject.position;
        let at = *self.forks.get(&stream)?;
        if seq < at || planted(Site::Engine, Mutant::ForkIgnored) {
            return None;
        }
        let kept = self.kept(stream, certificate);
        match kept.pin.map(|pin| within_pin(subject, &pin)) {
            Some(Within::Yes) => return None,
            Some(Within::Unknown(pin)) => return Some(Verdict::Deferred(Missing::Pinned(pin))),
            Some(Within::No) | None => {}
        }
        if planted(Site::Engine, Mutant::EvidenceHasNoEnd) && goes_on(subject, &kept) {
            return None;
        }
        // What witnesses that are waited for may have seen lies beyond what the others did.
        let is_beyond = kept.pin.is_none_or(|pin| seq > pin.seq);
        Some(match kept.open.first().filter(|_| is_beyond) {
            Some(pin) => Verdict::Deferred(Missing::Pinned(*pin)),
            None => Verdict::Forked { stream, at },
        })
    }

    /// Returns which branch of a forked stream counts: what acts pin, else what witnesses have seen.
    pub(super) fn kept(&self, stream: StreamId, certificate: ActIx) -> Kept {
        let seen = || self.evidence.kept(stream);
        if planted(Site::Engine, Mutant::EvidenceBeforePins)
            && let Some(kept) = seen().filter(|kept| kept.pin.is_some())
        {
            return kept;
        }
        match self.deciding_pin(stream, certificate) {
            Some((_, pin)) => Kept { pin: Some(pin), open: Vec::new() },
            None => seen().unwrap_or_default(),
        }
    }

    /// Returns the act that says by a pin which branch of a forked stream counts: the strongest effective revocation or
    /// readmission, then the one with the smallest id; those that cut the stream's certificate go before others.
    pub(super) fn deciding_pin(&self, stream: StreamId, certificate: ActIx) -> Option<(ActIx, Pin)> {
        let at = *self.forks.get(&stream)?;
        let rank = self.act(certificate).statement()?.rank;
        if planted(Site::Engine, Mutant::PinsIgnoreForks) {
            return None;
        }
        let pins = self.all_pins_in(stream);
        let mut deciding = pins
            .iter()
            .filter(|(act, pin)| pin.seq >= at && self.act(*act).strength() < rank && self.act(*act).is_effective());
        let cuts = |(act, _): &&(ActIx, Pin)| self.is_about(*act, certificate);
        deciding.clone().find(cuts).or_else(|| deciding.next()).copied()
    }

    /// Returns whether an act is a revocation that hits the statement, or a readmission of one.
    fn is_about(&self, act: ActIx, statement: ActIx) -> bool {
        let revocation = match self.act(act).act() {
            Some(Act::Readmit(readmit)) => self.find(readmit.revocation),
            Some(_) | None => Some(act),
        };
        revocation.is_some_and(|revocation| self.act(statement).hitters.contains(&revocation))
            && !planted(Site::Engine, Mutant::AnyPinDecides)
    }

    /// Acts under an owner key need as many owners as what made them owners says; others need no consent.
    fn has_consent(&self, ix: ActIx, certificate: ActIx) -> bool {
        let record = self.act(ix);
        let Some(set) = self.act(certificate).act().and_then(Act::owner_set) else { return true };
        if matches!(record.act(), Some(Act::Approve(_) | Act::Withdraw(_)))
            || planted(Site::Engine, Mutant::ThresholdIgnored)
        {
            return true;
        }
        let first = self.find(self.cluster.genesis()).filter(|_| planted(Site::Engine, Mutant::FirstThresholdStays));
        let first = first.and_then(|ix| self.act(ix).act()?.owner_set());
        let threshold = first.map_or(set.threshold, |first| first.threshold);
        self.consenting(ix, certificate).len() >= usize::from(threshold)
    }
}
