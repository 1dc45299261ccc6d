//! The acts of the control log and their indexes: arrival in any order, completion, and what is fixed at completion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::erasure::Erasures;
use super::evidence::Evidence;
use super::past::{Past, Place};
use super::reach::Reach;
use crate::authority::chain::{check_against_previous, check_link};
use crate::authority::mutant::{Mutant, Site, planted};
use crate::authority::verdict::{Missing, Verdict};
use crate::id::{AuthorKey, ClusterId, CollectionName, OpId, PepperId, PrincipalId, StreamId};
use crate::op::{Act, Control, Header, Pin, Rank, RevokeTarget, Role, Statement};

/// Position of a complete act in [`Log::acts`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ActIx(pub(super) usize);

/// What the act and its ancestors alone decide: fixed when the act is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Refused,
    NotAllowed,
    /// Counts, unless a revocation, a fork or missing consent is in the way.
    Potential {
        strength: Rank,
    },
}

/// A complete act.
pub(super) struct ActRecord {
    pub(super) id: OpId,
    pub(super) header: Arc<Header>,
    pub(super) stream: StreamId,
    pub(super) place: Place,
    /// What its author knew, the act itself excluded.
    pub(super) past: Past,
    pub(super) standing: Standing,
    /// The verdict as of the last settling.
    pub(super) effect: Verdict,
    /// Of a statement: the potential revocations that hit it, by (strength, id).
    pub(super) hitters: Vec<ActIx>,
    /// Of a statement: the potential statements made under it.
    pub(super) made_under: Vec<ActIx>,
    /// Of a revocation: what it hits, and its potential readmissions by (strength, id).
    pub(super) hits: Vec<ActIx>,
    pub(super) readmits: Vec<ActIx>,
}

impl ActRecord {
    pub(super) fn control(&self) -> Option<&Control> {
        self.header.control()
    }

    pub(super) fn act(&self) -> Option<&Act> {
        self.control().map(|control| &control.act)
    }

    pub(super) fn proof(&self) -> &[OpId] {
        self.control().map_or(&[], |control| &control.proof)
    }

    pub(super) fn statement(&self) -> Option<Statement<'_>> {
        self.act()?.statement(self.id)
    }

    pub(super) fn pins(&self) -> &[Pin] {
        self.act().map_or(&[], Act::pins)
    }

    pub(super) fn is_potential(&self) -> bool {
        matches!(self.standing, Standing::Potential { .. })
    }

    /// Strength of a potential act; others have the weakest, and it never matters.
    pub(super) fn strength(&self) -> Rank {
        match self.standing {
            Standing::Potential { strength } => strength,
            Standing::Refused | Standing::NotAllowed => Rank(i16::MAX),
        }
    }

    pub(super) fn is_effective(&self) -> bool {
        self.effect.is_allowed()
    }
}

struct Chain {
    /// The act that the first of the chain follows in its stream.
    parent: Option<ActIx>,
    acts: Vec<ActIx>,
}

/// The control log as far as it is here.
pub(super) struct Log {
    pub(super) cluster: ClusterId,
    pub(super) acts: Vec<ActRecord>,
    /// Every act received, complete or not.
    headers: BTreeMap<OpId, Arc<Header>>,
    first_at: BTreeMap<(StreamId, u64), OpId>,
    complete: BTreeMap<OpId, ActIx>,
    /// Certificate and furthest complete act of each control stream.
    streams: BTreeMap<StreamId, (OpId, Option<ActIx>)>,
    chains: Vec<Chain>,
    /// Incomplete acts with what they directly lack, and the reverse.
    lacking: BTreeMap<OpId, BTreeSet<OpId>>,
    awaited: BTreeMap<OpId, Vec<OpId>>,
    /// First position at which a stream of any kind forks.
    pub(super) forks: BTreeMap<StreamId, u64>,
    // Indexes of potential acts.
    pub(super) levels: BTreeMap<Rank, Vec<ActIx>>,
    /// Statements by whom they are given to, in the order of ids.
    pub(super) given: BTreeMap<PrincipalId, Vec<ActIx>>,
    pub(super) certificates: BTreeMap<AuthorKey, Vec<ActIx>>,
    pub(super) members: BTreeMap<AuthorKey, Vec<ActIx>>,
    pub(super) principal_revocations: BTreeMap<PrincipalId, Vec<ActIx>>,
    /// Revocations and readmissions with a pin in the stream, by (strength, id).
    pub(super) pinners: BTreeMap<StreamId, Vec<(ActIx, Pin)>>,
    /// How far these reach into earlier sessions.
    pub(super) reach: Reach,
    pub(super) approvals: BTreeMap<OpId, Vec<ActIx>>,
    /// Joins by group, and grants by the role that they name.
    pub(super) joins: BTreeMap<PrincipalId, Vec<ActIx>>,
    pub(super) grants_of_role: BTreeMap<OpId, Vec<ActIx>>,
    pub(super) collections: BTreeMap<CollectionName, Vec<ActIx>>,
    pub(super) rules: Vec<ActIx>,
    pub(super) erasures: Erasures,
    pub(super) evidence: Evidence,
    /// Withdrawals by what they take back.
    pub(super) withdrawals: BTreeMap<OpId, Vec<ActIx>>,
    /// Acts that share a pepper.
    pub(super) peppers: BTreeMap<PepperId, Vec<ActIx>>,
    /// Changes of owners by what they come after.
    pub(super) successions: BTreeMap<OpId, Vec<ActIx>>,
    /// Acts that count or may yet, and that no other such act knew.
    pub(super) frontier: BTreeSet<ActIx>,
    /// The strongest strength from which on effects have to be computed again.
    pub(super) unsettled: Option<Rank>,
}

impl Log {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            acts: Vec::new(),
            headers: BTreeMap::new(),
            first_at: BTreeMap::new(),
            complete: BTreeMap::new(),
            streams: BTreeMap::new(),
            chains: Vec::new(),
            lacking: BTreeMap::new(),
            awaited: BTreeMap::new(),
            forks: BTreeMap::new(),
            levels: BTreeMap::new(),
            given: BTreeMap::new(),
            certificates: BTreeMap::new(),
            members: BTreeMap::new(),
            principal_revocations: BTreeMap::new(),
            pinners: BTreeMap::new(),
            reach: Reach::default(),
            approvals: BTreeMap::new(),
            joins: BTreeMap::new(),
            grants_of_role: BTreeMap::new(),
            collections: BTreeMap::new(),
            rules: Vec::new(),
            erasures: Erasures::default(),
            evidence: Evidence::default(),
            withdrawals: BTreeMap::new(),
            peppers: BTreeMap::new(),
            successions: BTreeMap::new(),
            frontier: BTreeSet::new(),
            unsettled: None,
        }
    }

    pub(super) fn act(&self, ix: ActIx) -> &ActRecord {
        &self.acts[ix.0]
    }

    /// Returns the act if it is complete.
    pub(super) fn find(&self, id: OpId) -> Option<ActIx> {
        self.complete.get(&id).copied()
    }

    pub(super) fn holds(&self, id: OpId) -> bool {
        self.headers.contains_key(&id)
    }

    /// Returns the smallest thing that an incomplete act directly lacks.
    pub(super) fn lack_of(&self, id: OpId) -> Option<OpId> {
        self.lacking.get(&id)?.first().copied()
    }

    /// Takes in an act that is not here yet; returns those that it completes, in a sound order.
    pub(super) fn receive(&mut self, id: OpId, header: Arc<Header>) -> Vec<ActIx> {
        let stream = header.stream_key().id();
        let seq = header.seq;
        self.headers.insert(id, header.clone());
        self.streams.entry(stream).or_insert((header.certificate, None));
        if self.first_at.insert((stream, seq), id).is_some() {
            self.fork(stream, seq);
        }
        // It may complete a pinned chain, on which the verdicts of its whole stream hang.
        if let Some(pinners) = self.pinners.get(&stream) {
            let strengths = pinners.iter().filter(|(_, pin)| pin.seq >= seq).map(|(act, _)| self.act(*act).strength());
            if let Some(strongest) = strengths.min() {
                self.unsettle(strongest);
            }
        }
        if let Some(strongest) = self.evidence.reaching(stream, seq).map(|act| self.act(act).strength()).min() {
            self.unsettle(strongest);
        }
        let previous = (seq > 1).then_some(header.prev);
        let lacks: BTreeSet<OpId> = previous
            .into_iter()
            .chain(header.control_heads.iter().copied())
            .filter(|d| self.find(*d).is_none())
            .collect();
        if !lacks.is_empty() {
            for lack in &lacks {
                self.awaited.entry(*lack).or_default().push(id);
            }
            self.lacking.insert(id, lacks);
            return Vec::new();
        }
        let mut completed = Vec::new();
        let mut ready = vec![id];
        while let Some(id) = ready.pop() {
            completed.push(self.complete(id));
            for waiter in self.awaited.remove(&id).unwrap_or_default() {
                if let Some(lacks) = self.lacking.get_mut(&waiter) {
                    lacks.remove(&id);
                    if lacks.is_empty() {
                        self.lacking.remove(&waiter);
                        ready.push(waiter);
                    }
                }
            }
        }
        completed
    }

    /// Notes that two ops share a position; returns whether that was news.
    pub(super) fn fork(&mut self, stream: StreamId, seq: u64) -> bool {
        let at = self.forks.entry(stream).or_insert(u64::MAX);
        let news = seq < *at;
        *at = seq.min(*at);
        news
    }

    /// Has the effects of acts of this strength and weaker computed again at the next settling.
    pub(super) fn unsettle(&mut self, strength: Rank) {
        self.unsettled = Some(self.unsettled.map_or(strength, |rank| rank.min(strength)));
    }

    fn complete(&mut self, id: OpId) -> ActIx {
        let header = self.headers[&id].clone();
        let stream = header.stream_key().id();
        let previous = if header.seq > 1 { self.find(header.prev) } else { None };
        let ix = ActIx(self.acts.len());
        let place = self.place(&header, previous, ix);
        let known = previous.into_iter().chain(header.control_heads.iter().filter_map(|head| self.find(*head)));
        let past = Past::empty().with(known.map(|ix| (&self.act(ix).past, self.act(ix).place)));
        let standing =
            if self.is_sound(&header, previous) { self.standing(id, &header, &past) } else { Standing::Refused };
        let effect = match standing {
            Standing::Refused => Verdict::Refused,
            Standing::NotAllowed => Verdict::NotAllowed,
            // Computed at the settling.
            Standing::Potential { .. } => Verdict::Deferred(Missing::Control(id)),
        };
        let record = ActRecord {
            id,
            header,
            stream,
            place,
            past,
            standing,
            effect,
            hitters: Vec::new(),
            made_under: Vec::new(),
            hits: Vec::new(),
            readmits: Vec::new(),
        };
        self.acts.push(record);
        self.complete.insert(id, ix);
        let furthest = self.streams.get(&stream).and_then(|(_, tip)| *tip).map(|tip| self.act(tip).header.seq);
        if furthest.is_none_or(|seq| seq < self.act(ix).header.seq)
            && let Some((_, tip)) = self.streams.get_mut(&stream)
        {
            *tip = Some(ix);
        }
        if matches!(standing, Standing::Potential { .. }) {
            self.index(ix);
        }
        ix
    }

    pub(super) fn is_control_stream(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Returns the certificate of a control stream.
    pub(super) fn certificate_of(&self, stream: StreamId) -> Option<OpId> {
        self.streams.get(&stream).map(|(certificate, _)| *certificate)
    }

    /// Returns the control streams with their certificates.
    pub(super) fn control_streams(&self) -> impl Iterator<Item = (StreamId, OpId)> + '_ {
        self.streams.iter().map(|(stream, (certificate, _))| (*stream, *certificate))
    }

    /// Returns the first op of a control stream that came, whether it is complete or not.
    pub(super) fn first_op(&self, stream: StreamId) -> Option<&Header> {
        self.headers.get(self.first_at.get(&(stream, 1))?).map(|header| &**header)
    }

    /// Returns what the author of a control stream knows, its own last act included.
    pub(super) fn own_knowledge(&self, stream: StreamId) -> Option<Past> {
        let record = self.act(self.streams.get(&stream)?.1?);
        Some(record.past.with(std::iter::once((&record.past, record.place))))
    }

    /// Brings the frontier up to date when acts have been added, and no other's effect has changed.
    pub(super) fn extend_frontier(&mut self, added: &[ActIx]) {
        for ix in added {
            let record = self.act(*ix);
            if matches!(record.effect, Verdict::Allowed | Verdict::Deferred(_)) {
                let past = record.past.clone();
                self.frontier.retain(|other| !past.contains(self.acts[other.0].place));
                self.frontier.insert(*ix);
            }
        }
    }

    /// Finds the frontier anew.
    pub(super) fn rebuild_frontier(&mut self) {
        let mut frontier: Vec<ActIx> = Vec::new();
        // An act is known only by later ones.
        for (at, record) in self.acts.iter().enumerate().rev() {
            let counts = matches!(record.effect, Verdict::Allowed | Verdict::Deferred(_));
            if counts && !frontier.iter().any(|head| self.act(*head).past.contains(record.place)) {
                frontier.push(ActIx(at));
            }
        }
        self.frontier = frontier.into_iter().collect();
    }

    fn place(&mut self, header: &Header, previous: Option<ActIx>, ix: ActIx) -> Place {
        let linked = previous.filter(|p| check_link(header, &self.act(*p).header, header.prev).is_ok());
        if let Some(previous) = linked {
            let place = self.act(previous).place;
            if let Some(chain) = self.chains.get_mut(place.chain).filter(|chain| chain.acts.last() == Some(&previous)) {
                chain.acts.push(ix);
                return Place { chain: place.chain, index: place.index + 1 };
            }
        }
        self.chains.push(Chain { parent: linked, acts: vec![ix] });
        Place { chain: self.chains.len() - 1, index: 0 }
    }

    /// Returns whether the header agrees with what it follows and names.
    fn is_sound(&self, header: &Header, previous: Option<ActIx>) -> bool {
        let follows = previous.is_none_or(|previous| {
            let record = self.act(previous);
            record.standing != Standing::Refused && check_against_previous(header, &record.header, header.prev).is_ok()
        });
        follows
            && header.control_heads.iter().filter_map(|head| self.find(*head)).all(|head| {
                let record = self.act(head);
                record.standing != Standing::Refused && record.header.hlc <= header.hlc
            })
    }

    fn insert_by_strength(&self, list: &mut Vec<ActIx>, ix: ActIx) {
        let order = |ix: ActIx| (self.act(ix).strength(), self.act(ix).id);
        let at = list.partition_point(|other| order(*other) < order(ix));
        if list.get(at) != Some(&ix) {
            list.insert(at, ix);
        }
    }

    fn index(&mut self, ix: ActIx) {
        let record = self.act(ix);
        let (id, header) = (record.id, record.header.clone());
        self.levels.entry(record.strength()).or_default().push(ix);
        let Some(control) = header.control() else { return };
        if let Some(statement) = control.act.statement(id) {
            self.index_statement(ix, control, statement);
        }
        match &control.act {
            Act::Genesis(genesis) => {
                for owner in &genesis.owners {
                    self.certificates.entry(*owner).or_default().push(ix);
                }
            }
            Act::Succeed(succeed) => {
                for owner in &succeed.owners {
                    self.certificates.entry(*owner).or_default().push(ix);
                }
                self.successions.entry(succeed.after).or_default().push(ix);
                self.index_pins(ix, &succeed.pins);
                if let Some(before) = self.find(succeed.after)
                    && !planted(Site::Engine, Mutant::SuccessionCutsNothing)
                {
                    self.add_hit(ix, before);
                }
                self.unsettle(self.act(ix).strength());
            }
            Act::Certify(certify) => self.certificates.entry(certify.key).or_default().push(ix),
            Act::Member(member) => self.members.entry(member.key).or_default().push(ix),
            Act::Grant(grant) => match &grant.role {
                Role::Custom(role) => self.grants_of_role.entry(*role).or_default().push(ix),
                Role::BuiltIn(_) => {}
            },
            Act::Join(join) => self.joins.entry(join.group).or_default().push(ix),
            Act::Role(_) | Act::Duty(_) | Act::Principal(_) | Act::Token(_) => {}
            Act::Withdraw(withdraw) => {
                for act in &withdraw.acts {
                    self.withdrawals.entry(*act).or_default().push(ix);
                }
            }
            Act::Pepper(shares) => self.peppers.entry(shares.pepper).or_default().push(ix),
            Act::Erase(_) | Act::Erased(_) => self.erasures.index(ix, &control.act),
            Act::Evidence(evidence) => {
                self.evidence.index(ix, &evidence.pins);
                self.unsettle(self.act(ix).strength());
            }
            Act::Collection(collection) => {
                self.collections.entry(collection.name.clone()).or_default().push(ix);
            }
            Act::Rules(_) => self.rules.push(ix),
            Act::Approve(approve) => {
                self.approvals.entry(approve.act).or_default().push(ix);
                if let Some(target) = self.find(approve.act).map(|target| self.act(target).strength()) {
                    self.unsettle(target);
                }
            }
            Act::Revoke(revoke) => {
                self.index_pins(ix, &revoke.pins);
                let targets = match revoke.target {
                    RevokeTarget::Statement(statement) => self.find(statement).into_iter().collect(),
                    RevokeTarget::Principal(principal) => {
                        self.principal_revocations.entry(principal).or_default().push(ix);
                        self.given.get(&principal).cloned().unwrap_or_default()
                    }
                };
                for statement in targets {
                    if self.hits_directly(ix, statement) {
                        self.add_hit(ix, statement);
                    }
                }
                self.unsettle(self.act(ix).strength());
            }
            Act::Readmit(readmit) => {
                self.index_pins(ix, &readmit.pins);
                if let Some(revocation) = self.find(readmit.revocation) {
                    let mut list = std::mem::take(&mut self.acts[revocation.0].readmits);
                    self.insert_by_strength(&mut list, ix);
                    self.acts[revocation.0].readmits = list;
                }
                self.unsettle(self.act(ix).strength());
            }
        }
    }

    fn index_statement(&mut self, ix: ActIx, control: &Control, statement: Statement<'_>) {
        let mut given = self.given.remove(&statement.to).unwrap_or_default();
        let at = given.partition_point(|other| self.act(*other).id < self.act(ix).id);
        given.insert(at, ix);
        self.given.insert(statement.to, given);
        for revocation in self.principal_revocations.get(&statement.to).cloned().unwrap_or_default() {
            if self.hits_directly(revocation, ix) {
                self.add_hit(revocation, ix);
            }
        }
        for under in control.proof.iter().filter_map(|id| self.find(*id)).collect::<Vec<_>>() {
            self.acts[under.0].made_under.push(ix);
            for revocation in self.act(under).hitters.clone() {
                if self.cascades(revocation) && self.may_cut(revocation, ix) {
                    self.add_hit(revocation, ix);
                }
            }
        }
    }

    fn index_pins(&mut self, ix: ActIx, pins: &[Pin]) {
        for pin in pins {
            let mut list = self.pinners.remove(&pin.stream).unwrap_or_default();
            let order = |ix: ActIx| (self.act(ix).strength(), self.act(ix).id);
            let at = list.partition_point(|(other, _)| order(*other) < order(ix));
            list.insert(at, (ix, *pin));
            self.pinners.insert(pin.stream, list);
            self.reach.open(ix, *pin);
        }
    }

    fn cascades(&self, revocation: ActIx) -> bool {
        matches!(self.act(revocation).act(), Some(Act::Revoke(revoke)) if revoke.cascade)
            && !planted(Site::Engine, Mutant::CascadeIgnored)
    }

    /// Returns whether the revocation is stronger than the statement.
    fn may_cut(&self, revocation: ActIx, statement: ActIx) -> bool {
        let strength = self.act(revocation).strength();
        self.act(statement)
            .statement()
            .is_some_and(|s| strength < s.rank || (strength == s.rank && planted(Site::Engine, Mutant::EqualsRevoke)))
    }

    fn hits_directly(&self, revocation: ActIx, statement: ActIx) -> bool {
        let (record, target) = (self.act(revocation), self.act(statement));
        let Some(Act::Revoke(revoke)) = record.act() else { return false };
        let named = match revoke.target {
            RevokeTarget::Statement(id) => id == target.id,
            RevokeTarget::Principal(principal) => {
                target.statement().is_some_and(|s| s.is_given_to(principal))
                    && !target.past.contains(record.place)
                    && (!planted(Site::Engine, Mutant::ConcurrentRegrantWins) || record.past.contains(target.place))
            }
        };
        named && self.may_cut(revocation, statement)
    }

    /// Records that the revocation hits the statement and, if it cascades, what was made under it.
    fn add_hit(&mut self, revocation: ActIx, statement: ActIx) {
        let mut open = vec![statement];
        while let Some(statement) = open.pop() {
            if self.act(statement).hitters.contains(&revocation) || !self.may_cut(revocation, statement) {
                continue;
            }
            let mut hitters = std::mem::take(&mut self.acts[statement.0].hitters);
            self.insert_by_strength(&mut hitters, revocation);
            self.acts[statement.0].hitters = hitters;
            self.acts[revocation.0].hits.push(statement);
            if self.cascades(revocation) {
                open.extend(self.act(statement).made_under.iter().copied());
            }
        }
    }

    /// Returns the control op at a place of the chain that ends in a pin, as [`crate::authority::Chains::at`] says.
    pub(super) fn at(&self, seq: u64, end: &Pin) -> Option<OpId> {
        let mut at = end.head;
        let mut expected = end.seq;
        loop {
            let header = self.headers.get(&at)?;
            if header.seq != expected || header.stream_key().id() != end.stream {
                return Some(OpId::ZERO);
            }
            if expected <= seq {
                return Some(at);
            }
            let Some(here) = self.find(at) else {
                at = header.prev;
                expected -= 1;
                continue;
            };
            // Of complete acts whole chains are skipped.
            let Place { chain, index } = self.act(here).place;
            let chain = self.chains.get(chain)?;
            let wanted = usize::try_from(expected - seq).ok().and_then(|back| (index as usize).checked_sub(back));
            if let Some(wanted) = wanted {
                return chain.acts.get(wanted).map(|ix| self.act(*ix).id);
            }
            let Some(parent) = chain.parent else { return Some(OpId::ZERO) };
            at = self.act(parent).id;
            expected = self.act(parent).header.seq;
        }
    }
}
