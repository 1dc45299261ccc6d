//! The rule as a plain function of a set of headers: everything is computed from nothing, in the order and words of
//! `docs/authority.md`. It shares no code with [`super::Authority`] but the types and the link between two headers, so
//! that a mistake in one shows as a difference between the two.
//!
//! Cost: for each act the whole set of acts that it knows, and for each revocation a pass over all acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chain::{check_against_previous, check_link};
use super::mutant::{Mutant, Site, planted};
use super::rights::{Action, Actions};
use super::verdict::{Missing, Verdict};
use crate::id::{AuthorKey, ClusterId, OpId, PrincipalId, StreamId};
use crate::op::{
    Act, BuiltInRole, Certify, Grant, Header, Payload, Pin, Rank, Readmit, Revoke, RevokeTarget, Role, Statement,
    Target, Transaction,
};

/// A set of ops, by id. All belong to the cluster and have passed [`crate::op::Op::decode`].
pub type Ops = BTreeMap<OpId, Arc<Header>>;

/// The verdicts on a set of ops.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdicts {
    /// On each act.
    pub control: BTreeMap<OpId, Verdict>,
    /// On each transaction, by op and position in the op.
    pub data: BTreeMap<(OpId, usize), Verdict>,
}

/// Returns the verdicts on every act and transaction of a set.
#[must_use]
pub fn judge_all(cluster: ClusterId, ops: &Ops) -> Verdicts {
    World::new(cluster, ops).verdicts()
}

/// What the act and its ancestors alone decide.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Refused,
    NotAllowed,
    Potential(Rank),
}

type Known = Arc<BTreeSet<OpId>>;

struct World<'a> {
    cluster: ClusterId,
    ops: &'a Ops,
    streams: BTreeMap<OpId, StreamId>,
    forks: BTreeMap<StreamId, u64>,
    /// Complete ops, each after what it follows and names.
    order: Vec<OpId>,
    /// Complete ops that contradict their ancestors.
    unsound: BTreeSet<OpId>,
    /// What each complete op knew.
    past: BTreeMap<OpId, Known>,
    standing: BTreeMap<OpId, Standing>,
    /// Potential acts of these kinds, the strongest first, then by id.
    revocations: Vec<OpId>,
    readmits: Vec<OpId>,
    pinning: Vec<OpId>,
    /// Potential grants by whom they are given to.
    grants: BTreeMap<PrincipalId, BTreeSet<OpId>>,
    /// The statements that each potential revocation hits.
    hits: BTreeMap<OpId, BTreeSet<OpId>>,
    /// Where each of the pinning acts lets streams stand.
    pins: BTreeMap<OpId, BTreeMap<StreamId, BTreeSet<Pin>>>,
    effects: BTreeMap<OpId, Verdict>,
}

/// Whether an op lies within pins.
enum Within {
    Yes,
    No,
    Unknown(Pin),
}

fn bug(mutant: Mutant) -> bool {
    planted(Site::Reference, mutant)
}

impl<'a> World<'a> {
    fn new(cluster: ClusterId, ops: &'a Ops) -> Self {
        let mut world = Self {
            cluster,
            ops,
            streams: ops.iter().map(|(id, header)| (*id, header.stream_key().id())).collect(),
            forks: BTreeMap::new(),
            order: Vec::new(),
            unsound: BTreeSet::new(),
            past: BTreeMap::new(),
            standing: BTreeMap::new(),
            revocations: Vec::new(),
            readmits: Vec::new(),
            pinning: Vec::new(),
            grants: BTreeMap::new(),
            hits: BTreeMap::new(),
            pins: BTreeMap::new(),
            effects: BTreeMap::new(),
        };
        world.find_forks();
        world.find_complete();
        for id in world.order.clone() {
            world.learn(id);
        }
        world.sort_acts();
        world.find_hits();
        world.find_pins();
        world.find_effects();
        world
    }

    fn verdicts(&self) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (id, header) in self.ops {
            match &header.payload {
                Payload::Control(_) => {
                    let verdict = self.effects.get(id).copied();
                    let verdict = verdict.unwrap_or_else(|| Verdict::Deferred(self.missing(header)));
                    verdicts.control.insert(*id, verdict);
                }
                Payload::Data(transactions) => {
                    for (index, transaction) in transactions.iter().enumerate() {
                        verdicts.data.insert((*id, index), self.judge(*id, header, transaction));
                    }
                }
            }
        }
        verdicts
    }

    // ---- what the headers alone say ----

    /// Two ops at one position of a stream.
    fn find_forks(&mut self) {
        let mut seen = BTreeSet::new();
        for (id, header) in self.ops {
            let Some(stream) = self.streams.get(id) else { continue };
            if !seen.insert((*stream, header.seq)) {
                let at = self.forks.entry(*stream).or_insert(header.seq);
                *at = header.seq.min(*at);
            }
        }
    }

    /// What an op directly follows and names.
    fn depends_on(header: &Header) -> impl Iterator<Item = OpId> + '_ {
        (header.seq > 1).then_some(header.prev).into_iter().chain(header.control_heads.iter().copied())
    }

    fn is_act(&self, id: OpId) -> bool {
        self.ops.get(&id).is_some_and(|header| header.control().is_some())
    }

    /// Complete: all that the op follows and names is here and complete; what it names are acts.
    fn find_complete(&mut self) {
        let mut waiting: BTreeMap<OpId, usize> = BTreeMap::new();
        let mut waiters: BTreeMap<OpId, Vec<OpId>> = BTreeMap::new();
        let mut ready = Vec::new();
        for (id, header) in self.ops {
            if header.control_heads.iter().any(|head| self.ops.contains_key(head) && !self.is_act(*head)) {
                continue;
            }
            let needs: Vec<_> = Self::depends_on(header).collect();
            for need in &needs {
                waiters.entry(*need).or_default().push(*id);
            }
            waiting.insert(*id, needs.len());
            if needs.is_empty() {
                ready.push(*id);
            }
        }
        while let Some(id) = ready.pop() {
            self.order.push(id);
            for waiter in waiters.remove(&id).unwrap_or_default() {
                if let Some(count) = waiting.get_mut(&waiter) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(waiter);
                    }
                }
            }
        }
    }

    fn is_complete(&self, id: OpId) -> bool {
        self.past.contains_key(&id)
    }

    fn missing(&self, header: &Header) -> Missing {
        if header.seq > 1 && !self.is_complete(header.prev) && header.control().is_none() {
            return Missing::Chain;
        }
        let lack = Self::depends_on(header).filter(|id| !self.is_complete(*id)).min();
        lack.map_or(Missing::Chain, Missing::Control)
    }

    /// Finds what a complete op knew, whether it is sound, and an act's standing.
    fn learn(&mut self, id: OpId) {
        let Some(header) = self.ops.get(&id) else { return };
        self.past.insert(id, self.knowledge(header));
        if !self.is_sound(header) {
            self.unsound.insert(id);
        }
        if header.control().is_some() {
            let standing = if self.unsound.contains(&id) { Standing::Refused } else { self.judge_standing(id, header) };
            self.standing.insert(id, standing);
        }
    }

    /// Everything reachable from the op's heads and from those of all earlier ops of its stream.
    fn knowledge(&self, header: &Header) -> Known {
        let previous = self.past.get(&header.prev).filter(|_| header.seq > 1);
        let mut known = previous.cloned().unwrap_or_default();
        let own = (header.seq > 1 && self.is_act(header.prev)).then_some(header.prev);
        for act in own.into_iter().chain(header.control_heads.iter().copied()) {
            if !known.contains(&act) {
                let theirs = self.past.get(&act).cloned().unwrap_or_default();
                let known = Arc::make_mut(&mut known);
                known.extend(theirs.iter().copied());
                known.insert(act);
            }
        }
        known
    }

    /// Whether the op agrees with what it follows and names: chain, and time that does not go back.
    fn is_sound(&self, header: &Header) -> bool {
        let follows = header.seq == 1
            || self.ops.get(&header.prev).is_some_and(|previous| {
                !self.unsound.contains(&header.prev) && check_against_previous(header, previous, header.prev).is_ok()
            });
        let heads = header.control_heads.iter();
        follows
            && heads
                .filter_map(|head| self.ops.get_key_value(head))
                .all(|(id, head)| self.standing.get(id) != Some(&Standing::Refused) && head.hlc <= header.hlc)
    }

    fn act(&self, id: OpId) -> Option<&'a Act> {
        self.ops.get(&id)?.control().map(|control| &control.act)
    }

    fn proof(&self, id: OpId) -> &'a [OpId] {
        self.ops.get(&id).and_then(|header| header.control()).map_or(&[], |control| &control.proof)
    }

    fn statement(&self, id: OpId) -> Option<Statement<'a>> {
        self.act(id)?.statement(id)
    }

    fn is_potential(&self, id: OpId) -> bool {
        matches!(self.standing.get(&id), Some(Standing::Potential(_)))
    }

    fn strength(&self, id: OpId) -> Option<Rank> {
        match self.standing.get(&id)? {
            Standing::Potential(strength) => Some(*strength),
            Standing::Refused | Standing::NotAllowed => None,
        }
    }

    fn knows(&self, op: OpId, act: OpId) -> bool {
        self.past.get(&op).is_some_and(|past| past.contains(&act))
    }

    // ---- the right to an act ----

    /// For whom the certificate lets the key speak.
    fn certified(&self, certificate: OpId, key: AuthorKey) -> Option<PrincipalId> {
        let holds = match self.act(certificate)? {
            Act::Genesis(genesis) => genesis.owners.contains(&key),
            Act::Certify(certify) => certify.key == key,
            Act::Member(_)
            | Act::Grant(_)
            | Act::Revoke(_)
            | Act::Readmit(_)
            | Act::Collection(_)
            | Act::Rules(_)
            | Act::Approve(_) => false,
        };
        self.statement(certificate).filter(|_| holds && self.is_potential(certificate)).map(|statement| statement.to)
    }

    fn is_owner(&self, header: &Header) -> bool {
        header.certificate == self.cluster.genesis()
    }

    fn judge_standing(&self, id: OpId, header: &Header) -> Standing {
        let Some(control) = header.control() else { return Standing::Refused };
        if matches!(control.act, Act::Genesis(_)) {
            let own = id == self.cluster.genesis();
            return if own { Standing::Potential(Rank::RECOVERY) } else { Standing::Refused };
        }
        if header.cluster != self.cluster {
            return Standing::Refused;
        }
        let Some(strength) = self.judge_proof(id, header, &control.proof) else { return Standing::NotAllowed };
        // First of all, or the recursion below would not go down: what is made is weaker than what makes it.
        let weaker = self.statement(id).is_none_or(|made| made.rank > strength || bug(Mutant::RankNotChecked));
        if weaker && self.gives_right(id, header, &control.act, strength) {
            Standing::Potential(strength)
        } else {
            Standing::NotAllowed
        }
    }

    /// The strength of the proof, if every statement in it is known, potential, given to the signer, not ended, and one
    /// of them is the stream's certificate.
    fn judge_proof(&self, id: OpId, header: &Header, proof: &[OpId]) -> Option<Rank> {
        let signer =
            self.certified(header.certificate, header.author).filter(|_| proof.contains(&header.certificate))?;
        let mut ranks = Vec::new();
        for part in proof {
            let statement = self.statement(*part)?;
            let ended = statement.not_after.is_some_and(|end| header.hlc > end) && !bug(Mutant::ExpiryIgnored);
            if !self.knows(id, *part) || !self.is_potential(*part) || statement.to != signer || ended {
                return None;
            }
            ranks.push(statement.rank);
        }
        if bug(Mutant::StrengthIsStrongest) { ranks.into_iter().min() } else { ranks.into_iter().max() }
    }

    /// Whether the proof of an act has an admin's grant whose target fits.
    fn administers(&self, id: OpId, fits: impl Fn(&Target) -> bool) -> bool {
        self.proof(id).iter().any(|part| {
            let Some(Act::Grant(Grant { role: Role::BuiltIn(role), target, .. })) = self.act(*part) else {
                return false;
            };
            *role == BuiltInRole::Admin && fits(target)
        })
    }

    fn administers_all(&self, id: OpId) -> bool {
        self.administers(id, |target| target.contains(&Target::everything()))
    }

    /// Whether the proof gives a right over what this statement gives.
    fn administers_statement(&self, id: OpId, statement: OpId) -> bool {
        let Some(Act::Grant(grant)) = self.act(statement) else { return self.administers_all(id) };
        self.administers(id, |target| target.contains(&grant.target))
    }

    fn gives_right(&self, id: OpId, header: &Header, act: &Act, strength: Rank) -> bool {
        let owner = self.is_owner(header);
        let signer = self.statement(header.certificate).map(|statement| statement.to);
        match act {
            Act::Genesis(_) => false,
            Act::Rules(_) | Act::Approve(_) => owner,
            Act::Member(_) => owner || self.administers_all(id),
            Act::Collection(made) => owner || self.administers(id, |target| target.matches(&made.name)),
            Act::Grant(made) => {
                owner
                    || self.administers(id, |target| target.contains(&made.target))
                    || bug(Mutant::NoAttenuation) && self.proof(id).len() > 1
            }
            Act::Certify(Certify { principal: None, .. }) => owner || self.administers(id, |_| true),
            Act::Certify(Certify { principal: Some(principal), .. }) => {
                let first = principal.introduced_by();
                let introduced = self.statement(first).filter(|statement| {
                    statement.to == *principal && self.knows(id, first) && self.is_potential(first)
                });
                signer == Some(*principal)
                    || introduced.is_some_and(|first| strength < first.rank) && (owner || self.administers_all(id))
                    || bug(Mutant::CertifyAnybody) && introduced.is_some() && self.administers(id, |_| true)
            }
            Act::Revoke(Revoke { target: RevokeTarget::Principal(principal), .. }) => {
                owner || signer == Some(*principal) || self.administers_all(id)
            }
            Act::Revoke(Revoke { target: RevokeTarget::Statement(target), .. }) => {
                self.knows(id, *target)
                    && self.statement(*target).is_some_and(|statement| {
                        (strength < statement.rank || bug(Mutant::EqualsRevoke) && strength == statement.rank)
                            && (owner || signer == Some(statement.to) || self.administers_statement(id, *target))
                    })
            }
            Act::Readmit(Readmit { revocation, .. }) => {
                let Some(Act::Revoke(revoke)) = self.act(*revocation).filter(|_| self.knows(id, *revocation)) else {
                    return false;
                };
                let over = match revoke.target {
                    RevokeTarget::Principal(_) => self.administers_all(id),
                    RevokeTarget::Statement(target) => {
                        self.administers_all(id) || self.knows(id, target) && self.administers_statement(id, target)
                    }
                };
                owner || over || bug(Mutant::ReadmitOneself)
            }
        }
    }

    // ---- revocations ----

    fn find_hits(&mut self) {
        for (id, header) in self.ops {
            let (Some(control), Some(strength)) = (header.control(), self.strength(*id)) else { continue };
            let Act::Revoke(revoke) = &control.act else { continue };
            let mut hits = BTreeSet::new();
            // Statements come after what they were made under, so one pass finds the cascade.
            for target in self.order.iter().filter(|target| self.is_potential(**target)) {
                let Some(statement) = self.statement(*target) else { continue };
                let named = match revoke.target {
                    RevokeTarget::Statement(named) => named == *target,
                    RevokeTarget::Principal(principal) => {
                        let survives = bug(Mutant::ConcurrentRegrantWins) && !self.knows(*id, *target);
                        statement.to == principal && !self.knows(*target, *id) && !survives
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

    fn sort_acts(&mut self) {
        self.revocations = self.by_strength(|act| matches!(act, Act::Revoke(_)));
        self.readmits = self.by_strength(|act| matches!(act, Act::Readmit(_)));
        self.pinning = self.by_strength(|act| matches!(act, Act::Revoke(_) | Act::Readmit(_)));
        for id in self.by_strength(|act| matches!(act, Act::Grant(_))) {
            if let Some(statement) = self.statement(id) {
                self.grants.entry(statement.to).or_default().insert(id);
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

    fn is_effective(&self, id: OpId) -> bool {
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
    fn find_pins(&mut self) {
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
    fn blame(&self, statement: OpId, op: OpId) -> Option<Verdict> {
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
    fn fork_blame(&self, op: OpId, header: &Header) -> Option<Verdict> {
        let stream = *self.streams.get(&op)?;
        let at = *self.forks.get(&stream)?;
        if header.seq < at || bug(Mutant::ForkIgnored) {
            return None;
        }
        let rank = self.statement(header.certificate)?.rank;
        let kept = self
            .pinning
            .iter()
            .copied()
            .filter(|id| self.is_effective(*id) && self.strength(*id).is_some_and(|strength| strength < rank))
            .filter_map(|id| self.pins_in(id, stream).filter(|pin| pin.seq >= at).max_by_key(|pin| (pin.seq, pin.head)))
            .next();
        match kept.filter(|_| !bug(Mutant::PinsIgnoreForks)).map(|pin| self.within_pin(op, pin)) {
            Some(Within::Yes) => None,
            Some(Within::Unknown(pin)) => Some(Verdict::Deferred(Missing::Pinned(pin))),
            Some(Within::No) | None => Some(Verdict::Forked { stream, at }),
        }
    }

    /// Whether as many owners stand behind an owner's act as the genesis asks.
    fn has_consent(&self, id: OpId, header: &Header) -> bool {
        if !self.is_owner(header) || matches!(self.act(id), Some(Act::Approve(_))) || bug(Mutant::ThresholdIgnored) {
            return true;
        }
        let Some(Act::Genesis(genesis)) = self.act(self.cluster.genesis()) else { return false };
        let mut consenting = BTreeSet::from([header.author]);
        for (approval, by) in self.ops {
            let names = matches!(self.act(*approval), Some(Act::Approve(approve)) if approve.act == id);
            let kept = self.fork_blame(*approval, by).is_none();
            if names && kept && self.is_potential(*approval) {
                consenting.insert(by.author);
            }
        }
        consenting.len() >= usize::from(genesis.threshold)
    }

    fn find_effects(&mut self) {
        for (id, standing) in self.standing.clone() {
            match standing {
                Standing::Refused => self.effects.insert(id, Verdict::Refused),
                Standing::NotAllowed => self.effects.insert(id, Verdict::NotAllowed),
                Standing::Potential(_) => None,
            };
        }
        // From the strongest to the weakest: an act hangs only on acts stronger than itself.
        for id in self.by_strength(|_| true) {
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

    // ---- data ----

    fn judge(&self, id: OpId, header: &Header, transaction: &Transaction) -> Verdict {
        if !self.is_complete(id) {
            return Verdict::Deferred(self.missing(header));
        }
        if self.unsound.contains(&id) {
            return Verdict::Refused;
        }
        let lasts = |statement: &Statement<'_>| {
            statement.not_after.is_none_or(|end| header.hlc <= end) || bug(Mutant::ExpiryIgnored)
        };
        // The right, revocations left aside.
        let certificate = header.certificate;
        let speaks = self.knows(id, certificate)
            && self.certified(certificate, header.author) == Some(transaction.principal)
            && self.statement(certificate).is_some_and(|statement| lasts(&statement));
        if !speaks {
            return Verdict::NotAllowed;
        }
        let needed: Actions = transaction.changes.iter().map(|change| Action::from(change.action)).collect();
        let known = |grant: &OpId| self.knows(id, *grant) || bug(Mutant::GrantNeedNotBeKnown);
        let grants: BTreeMap<OpId, Actions> = self
            .grants
            .get(&transaction.principal)
            .into_iter()
            .flatten()
            .filter(|grant| known(grant))
            .filter_map(|grant| {
                let statement = self.statement(*grant).filter(lasts)?;
                let Act::Grant(given) = statement.act else { return None };
                let fits = given.target.matches(header.collection());
                fits.then(|| (*grant, Actions::of_role(&given.role)))
            })
            .collect();
        let sum = |actions: &mut dyn Iterator<Item = Actions>| actions.fold(Actions::NONE, Actions::union);
        if !sum(&mut grants.values().copied()).contains(needed) {
            return Verdict::NotAllowed;
        }
        // What revocations leave of it.
        if let Some(blame) = self.blame(certificate, id) {
            return blame;
        }
        let blames: BTreeMap<OpId, Verdict> =
            grants.keys().filter_map(|grant| Some((*grant, self.blame(*grant, id)?))).collect();
        let left =
            sum(&mut grants.iter().filter(|(grant, _)| !blames.contains_key(grant)).map(|(_, actions)| *actions));
        let lacking = needed.without(left);
        if lacking != Actions::NONE {
            let guilty: Vec<Verdict> = grants
                .iter()
                .filter(|(_, actions)| actions.meets(lacking))
                .filter_map(|(grant, _)| blames.get(grant).copied())
                .collect();
            let waits = guilty.iter().find(|blame| matches!(blame, Verdict::Deferred(_)));
            return waits.or(guilty.first()).copied().unwrap_or(Verdict::NotAllowed);
        }
        self.fork_blame(id, header).unwrap_or(Verdict::Allowed)
    }
}
