//! The rule as a plain function of a set of headers: everything is computed from nothing, in the order and words of
//! `docs/authority.md`. It shares no code with [`super::Authority`] but the types and the link between two headers, so
//! that a mistake in one shows as a difference between the two.
//!
//! Cost: for each act the whole set of acts that it knows, and for each revocation a pass over all acts.

mod acts;
mod cuts;
mod data;
mod erasure;
mod evidence;
mod succession;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chain::check_against_previous;
use super::mutant::{Mutant, Site, planted};
use super::verdict::{Missing, Verdict};
use crate::id::{ClusterId, CollectionName, DocId, OpId, PrincipalId, StreamId};
use crate::op::{Act, Header, Payload, Pin, Rank, Statement};

/// A set of ops, by id. All belong to the cluster and have passed [`crate::op::Op::decode`].
pub type Ops = BTreeMap<OpId, Arc<Header>>;

/// The verdicts on a set of ops.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdicts {
    /// On each act.
    pub control: BTreeMap<OpId, Verdict>,
    /// On each transaction, by op and position in the op.
    pub data: BTreeMap<(OpId, usize), Verdict>,
    /// The documents that are erased.
    pub erased: BTreeSet<(CollectionName, DocId)>,
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
    /// Potential statements by whom they are given to.
    given: BTreeMap<PrincipalId, BTreeSet<OpId>>,
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
            given: BTreeMap::new(),
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
        let mut verdicts = Verdicts { erased: self.erased(), ..Verdicts::default() };
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
}
