//! What the set of acts decides: revocations, forks and consent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Standing, Within, World, bug};
use crate::authority::chain::check_link;
use crate::authority::mutant::Mutant;
use crate::authority::verdict::{Missing, Verdict};
use crate::id::{OpId, StreamId};
use crate::op::{Act, Header, Pin, Rank, RevokeTarget};

impl<'a> World<'a> {
    pub(super) fn find_hits(&mut self) {
        for (id, header) in self.ops {
            let (Some(control), Some(strength)) = (header.control(), self.strength(*id)) else { continue };
            let mut hits = BTreeSet::new();
            if let Act::Succeed(made) = &control.act
                && !bug(Mutant::SuccessionCutsNothing)
            {
                hits.insert(made.after);
            }
            let Act::Revoke(revoke) = &control.act else {
                self.hits.insert(*id, hits);
                continue;
            };
            // Statements come after what they were made under, so one pass finds the cascade.
            for target in self.order.iter().filter(|target| self.is_potential(**target)) {
                let Some(statement) = self.statement(*target) else { continue };
                let named = match revoke.target {
                    RevokeTarget::Statement(named) => named == *target,
                    RevokeTarget::Principal(principal) => {
                        let survives = bug(Mutant::ConcurrentRegrantWins) && !self.knows(*id, *target);
                        let given = !matches!(statement.act, Act::Role(_) | Act::Principal(_));
                        given && statement.to == principal && !self.knows(*target, *id) && !survives
                    }
                };
                let cascades = revoke.cascade && !bug(Mutant::CascadeIgnored);
                let under = cascades && self.proof(*target).iter().any(|part| hits.contains(part));
                let stronger = strength < statement.rank || bug(Mutant::EqualsRevoke) && strength == statement.rank;
                if (named || under) && stronger {
                    hits.insert(*target);
                }
            }
            self.hits.insert(*id, hits);
        }
    }

    pub(super) fn sort_acts(&mut self) {
        self.revocations = self.by_strength(|act| matches!(act, Act::Revoke(_) | Act::Succeed(_)));
        self.readmits = self.by_strength(|act| matches!(act, Act::Readmit(_)));
        self.pinning = self.by_strength(|act| matches!(act, Act::Revoke(_) | Act::Readmit(_) | Act::Succeed(_)));
        for id in self.by_strength(|_| true) {
            if let Some(statement) = self.statement(id) {
                self.given.entry(statement.to).or_default().insert(id);
            }
        }
    }

    /// Potential acts that fit, the strongest first, then by id.
    fn by_strength(&self, fits: impl Fn(&Act) -> bool) -> Vec<OpId> {
        let mut found: Vec<(Rank, OpId)> = self
            .standing
            .keys()
            .filter(|id| self.act(**id).is_some_and(&fits))
            .filter_map(|id| Some((self.strength(*id)?, *id)))
            .collect();
        found.sort();
        found.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn is_effective(&self, id: OpId) -> bool {
        self.effects.get(&id) == Some(&Verdict::Allowed)
    }

    /// Whether the op lies on the chain that ends in the pin.
    fn within_pin(&self, op: OpId, pin: &Pin) -> Within {
        let (Some(header), Some(stream)) = (self.ops.get(&op), self.streams.get(&op)) else { return Within::No };
        if *stream != pin.stream || header.seq > pin.seq {
            return Within::No;
        }
        if bug(Mutant::PinWithoutHash) || header.seq == pin.seq && op == pin.head {
            return Within::Yes;
        }
        if header.seq == pin.seq {
            return Within::No;
        }
        let mut at = pin.head;
        let mut seq = pin.seq;
        while seq > header.seq {
            let Some(here) = self.ops.get(&at) else {
                return if bug(Mutant::MissingPinTrusted) { Within::Yes } else { Within::Unknown(*pin) };
            };
            if here.seq != seq || self.streams.get(&at) != Some(&pin.stream) {
                return Within::No;
            }
            let broken =
                self.ops.get(&here.prev).is_some_and(|previous| check_link(here, previous, here.prev).is_err());
            if broken {
                return Within::No;
            }
            at = here.prev;
            seq -= 1;
        }
        if at == op {
            Within::Yes
        } else if self.ops.contains_key(&at) || bug(Mutant::MissingPinTrusted) {
            Within::No
        } else {
            Within::Unknown(*pin)
        }
    }

    /// The chain of a stream goes on, before its first op, with the ends of earlier sessions that this op names.
    pub(super) fn find_pins(&mut self) {
        for act in self.pinning.clone() {
            let listed = self.act(act).map_or(&[][..], Act::pins);
            let mut pins: BTreeMap<StreamId, BTreeSet<Pin>> = BTreeMap::new();
            let mut open: Vec<Pin> = listed.to_vec();
            while let Some(pin) = open.pop() {
                if !pins.entry(pin.stream).or_default().insert(pin) || bug(Mutant::PinEndsAtSession) {
                    continue;
                }
                let ends = self.first_of_chain(&pin).into_iter().flat_map(|first| first.earlier_ends());
                let is_listed = |stream| listed.iter().any(|pin| pin.stream == stream);
                open.extend(ends.filter(|end| !is_listed(end.stream) || bug(Mutant::EarlierPinIgnored)));
            }
            self.pins.insert(act, pins);
        }
    }

    /// The first op of the chain that ends in a pin, if all of it is here.
    fn first_of_chain(&self, pin: &Pin) -> Option<&'a Header> {
        let mut at = pin.head;
        for seq in (1..=pin.seq).rev() {
            let header = self.ops.get(&at)?;
            if header.seq != seq || self.streams.get(&at) != Some(&pin.stream) {
                return None;
            }
            if seq == 1 {
                return Some(header);
            }
            check_link(header, self.ops.get(&header.prev)?, header.prev).ok()?;
            at = header.prev;
        }
        None
    }

    fn pins_in(&self, act: OpId, stream: StreamId) -> impl Iterator<Item = &Pin> {
        self.pins.get(&act).and_then(|pins| pins.get(&stream)).into_iter().flatten()
    }

    fn within(&self, op: OpId, act: OpId) -> Within {
        let Some(stream) = self.streams.get(&op) else { return Within::No };
        let within = || self.pins_in(act, *stream).map(|pin| self.within_pin(op, pin));
        if within().any(|within| matches!(within, Within::Yes)) {
            return Within::Yes;
        }
        within().find(|within| matches!(within, Within::Unknown(_))).unwrap_or(Within::No)
    }

    /// Why a statement does not count for an op; `None` if it does.
    pub(super) fn blame(&self, statement: OpId, op: OpId) -> Option<Verdict> {
        let effect = self.effects.get(&statement).copied().unwrap_or(Verdict::NotAllowed);
        if !effect.is_allowed() {
            return Some(effect);
        }
        let rank = self.statement(statement)?.rank;
        let mut unknown = None;
        for revocation in self.revocations.iter().copied() {
            let hit = self.hits.get(&revocation).is_some_and(|hits| hits.contains(&statement));
            if !hit || !self.is_effective(revocation) {
                continue;
            }
            if bug(Mutant::CausalRevocation) && !self.knows(op, revocation) {
                continue;
            }
            let of = |act: &Act| matches!(act, Act::Readmit(readmit) if readmit.revocation == revocation);
            let strong = self
                .readmits
                .iter()
                .copied()
                .filter(|id| self.act(*id).is_some_and(of))
                .filter(|id| self.is_effective(*id) && self.strength(*id).is_some_and(|strength| strength < rank));
            let within: Vec<_> = std::iter::once(revocation).chain(strong).map(|act| self.within(op, act)).collect();
            if within.iter().any(|within| matches!(within, Within::Yes)) {
                continue;
            }
            match within.iter().find_map(|within| match within {
                Within::Unknown(pin) => Some(*pin),
                Within::Yes | Within::No => None,
            }) {
                Some(pin) => unknown = unknown.or(Some(pin)),
                None => return Some(Verdict::AfterRevocation { by: revocation }),
            }
        }
        unknown.map(|pin| Verdict::Deferred(Missing::Pinned(pin)))
    }

    // ---- forks and consent ----

    /// Why an op does not count because its stream forks; `None` if it does.
    pub(super) fn fork_blame(&self, op: OpId, header: &Header) -> Option<Verdict> {
        let stream = *self.streams.get(&op)?;
        let at = *self.forks.get(&stream)?;
        if header.seq < at || bug(Mutant::ForkIgnored) {
            return None;
        }
        let rank = self.statement(header.certificate)?.rank;
        // What cuts the certificate itself, then what pins the stream for another reason.
        let cuts = |id: &OpId| {
            let revocation = match self.act(*id) {
                Some(Act::Readmit(readmit)) => readmit.revocation,
                Some(_) | None => *id,
            };
            self.hits.get(&revocation).is_some_and(|hits| hits.contains(&header.certificate))
                && !bug(Mutant::AnyPinDecides)
        };
        let (cutting, other): (Vec<OpId>, Vec<OpId>) = self.pinning.iter().partition(|id| cuts(id));
        let kept = cutting
            .into_iter()
            .chain(other)
            .filter(|id| self.is_effective(*id) && self.strength(*id).is_some_and(|strength| strength < rank))
            .filter_map(|id| self.pins_in(id, stream).filter(|pin| pin.seq >= at).max_by_key(|pin| (pin.seq, pin.head)))
            .next();
        let kept = kept.filter(|_| !bug(Mutant::PinsIgnoreForks));
        let seen = self.seen_by_witnesses(stream, at, header.certificate);
        let has_priority = bug(Mutant::EvidenceBeforePins) && !seen.kept.is_empty();
        let Some(pin) = kept.filter(|_| !has_priority) else { return self.blame_of_branch(op, header, at, &seen) };
        match self.within_pin(op, pin) {
            Within::Yes => None,
            Within::Unknown(pin) => Some(Verdict::Deferred(Missing::Pinned(pin))),
            Within::No => Some(Verdict::Forked { stream, at }),
        }
    }

    /// Whether as many owners stand behind an owner's act as what made them owners asks.
    fn has_consent(&self, id: OpId, header: &Header) -> bool {
        let alone = matches!(self.act(id), Some(Act::Approve(_) | Act::Withdraw(_)));
        if !self.is_owner(header) || alone || bug(Mutant::ThresholdIgnored) {
            return true;
        }
        let owners = if bug(Mutant::FirstThresholdStays) { self.cluster.genesis() } else { header.certificate };
        let Some(set) = self.act(owners).and_then(Act::owner_set) else { return false };
        let mut consenting = BTreeSet::from([header.author]);
        for (approval, by) in self.ops {
            let names = matches!(self.act(*approval), Some(Act::Approve(approve)) if approve.act == id);
            let same = by.certificate == header.certificate || bug(Mutant::ForeignConsent);
            if !names || !same || !self.is_potential(*approval) {
                continue;
            }
            let cut = self.blame(by.certificate, *approval).is_some() && !bug(Mutant::CutConsent);
            if !cut && self.fork_blame(*approval, by).is_none() {
                consenting.insert(by.author);
            }
        }
        consenting.len() >= usize::from(set.threshold)
    }

    pub(super) fn find_effects(&mut self) {
        for (id, standing) in self.standing.clone() {
            match standing {
                Standing::Refused => self.effects.insert(id, Verdict::Refused),
                Standing::NotAllowed => self.effects.insert(id, Verdict::NotAllowed),
                Standing::Potential(_) => None,
            };
        }
        self.find_successions();
        // From the strongest to the weakest: an act hangs only on acts stronger than itself.
        for id in self.by_strength(|act| !matches!(act, Act::Genesis(_) | Act::Succeed(_))) {
            let Some(header) = self.ops.get(&id) else { continue };
            let blame = self.proof(id).iter().find_map(|part| self.blame(*part, id));
            let effect = match blame.or_else(|| self.fork_blame(id, header)) {
                Some(blame) => blame,
                None if self.has_consent(id, header) => Verdict::Allowed,
                None => Verdict::Deferred(Missing::Consent(id)),
            };
            self.effects.insert(id, effect);
        }
    }
}
