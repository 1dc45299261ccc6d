//! The static part: a change against the document at its dependencies.
//!
//! A batch is checked as a whole before any of it is applied, so the ancestors of a change lie partly in the document
//! (the base) and partly in the batch. Everything here asks about ancestors only.

use std::collections::BTreeMap;
use std::rc::Rc;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Automerge, Change, ChangeHash, ObjId, ObjType, Prop, ReadDoc};

use super::{Candidate, GateError, Located, Scan, all_places};
use crate::document::native::{change_hash, native_hash, referred};
use crate::limits;
use crate::op::{ANY, FieldPaths};

/// A change that passed the static part.
pub(super) struct Member {
    pub(super) change: Change,
    pub(super) marks: bool,
    start_op: u64,
    max_op: u64,
    past: Rc<Past>,
    /// Which members of the batch are its ancestors, itself included.
    ancestors: Bits,
}

/// What a change sees of the base.
struct Past {
    /// The dependencies in the base, its own and those of its ancestors in the batch; ascending.
    deps: Vec<ChangeHash>,
    /// For each actor with changes outside the past, the first operation id that is not seen.
    unseen: BTreeMap<ActorId, u64>,
}

/// A set of positions in the batch.
#[derive(Clone, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn insert(&mut self, index: usize) {
        let word = index / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits |= 1 << (index % 64);
        }
    }

    fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|bits| bits & 1 << (index % 64) != 0)
    }

    fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }
}

/// Why a change did not become a member.
pub(super) enum Rejection {
    Bad(GateError),
    MissingDeps(Vec<crate::id::ChangeHash>),
    /// Another member is the same actor's change with this number.
    SequenceTaken(crate::id::ChangeHash),
}

impl From<GateError> for Rejection {
    fn from(error: GateError) -> Self {
        Self::Bad(error)
    }
}

/// Decodes a change, if it is what was scanned.
pub(in crate::document) fn decode(scan: &Scan, bytes: &[u8]) -> Result<Change, GateError> {
    let change = Change::try_from(bytes).map_err(|_| GateError::Encoding("content"))?;
    if change.hash() != native_hash(&scan.hash) || change.len() as u64 != scan.ops {
        return Err(GateError::Encoding("not canonical"));
    }
    Ok(change)
}

/// Checks the changes of one batch, each after those that it depends on.
pub(super) struct Checker<'a> {
    base: &'a Automerge,
    heads: Vec<ChangeHash>,
    members: Vec<Member>,
    by_hash: BTreeMap<ChangeHash, usize>,
    /// Members of each actor, ascending by sequence number and so by operation ids.
    by_actor: BTreeMap<ActorId, Vec<usize>>,
    /// Objects made in the batch.
    made: BTreeMap<OpId, Made>,
    pasts: BTreeMap<Vec<ChangeHash>, Rc<Past>>,
}

/// An object that a change makes.
struct Made {
    kind: ObjType,
    depth: usize,
    /// Where it lies.
    within: ObjectId,
    step: String,
}

/// What a change is checked with.
struct Subject<'a> {
    change: &'a Change,
    fields: Option<&'a FieldPaths>,
    start_op: u64,
    past: &'a Past,
    ancestors: &'a Bits,
}

impl<'a> Checker<'a> {
    pub(super) fn new(base: &'a Automerge) -> Self {
        Self {
            base,
            heads: base.get_heads(),
            members: Vec::new(),
            by_hash: BTreeMap::new(),
            by_actor: BTreeMap::new(),
            made: BTreeMap::new(),
            pasts: BTreeMap::new(),
        }
    }

    pub(super) fn into_members(self) -> Vec<Member> {
        self.members
    }

    /// Checks one change; a good one becomes a member.
    pub(super) fn check(&mut self, scan: &Scan, candidate: &Candidate<'_>) -> Result<(), Rejection> {
        let change = decode(scan, candidate.bytes)?;
        let hash = change.hash();
        let (top, past, mut ancestors) = self.ancestry(&change)?;
        let start_op = change.start_op().get();
        // Right behind, also because Automerge takes ids that were left out for ids of operations once it has loaded them.
        if start_op != top.saturating_add(1) {
            return Err(GateError::OperationIds.into());
        }
        if let Some((index, twin)) = self.twin(&change) {
            return Err(if ancestors.contains(index) {
                GateError::Sequence.into()
            } else {
                Rejection::SequenceTaken(change_hash(&twin.change.hash()))
            });
        }
        let subject =
            Subject { change: &change, fields: candidate.fields, start_op, past: &past, ancestors: &ancestors };
        let made = self.operations(&subject)?;
        let actor = change.actor_id().clone();
        for (counter, object) in made {
            self.made.insert(OpId::new(counter, &actor), object);
        }
        let index = self.members.len();
        ancestors.insert(index);
        self.by_hash.insert(hash, index);
        self.by_actor.entry(actor).or_default().push(index);
        let max_op = if change.is_empty() { top } else { change.max_op() };
        self.members.push(Member { change, marks: scan.contents.marks, start_op, max_op, past, ancestors });
        Ok(())
    }

    /// Finds the member that is the same actor's change with the same number.
    fn twin(&self, change: &Change) -> Option<(usize, &Member)> {
        let indexes = self.by_actor.get(change.actor_id())?;
        let mut members = indexes.iter().filter_map(|index| Some((*index, self.members.get(*index)?)));
        members.find(|(_, member)| member.change.seq() == change.seq())
    }

    /// Finds the dependencies: the highest operation id of the ancestors, and which these are.
    fn ancestry(&mut self, change: &Change) -> Result<(u64, Rc<Past>, Bits), Rejection> {
        let (mut top, mut follows_own) = (0, change.seq() == 1);
        let (mut missing, mut ancestors, mut base_deps) = (Vec::new(), Bits::default(), Vec::new());
        for dep in change.deps() {
            let (max_op, own) = if let Some(member) = self.by_hash.get(dep).and_then(|index| self.members.get(*index)) {
                ancestors.extend(&member.ancestors);
                base_deps.extend_from_slice(&member.past.deps);
                let own = member.change.actor_id() == change.actor_id();
                (member.max_op, own && Some(change.seq()) == member.change.seq().checked_add(1))
            } else if let Some(meta) = self.base.get_change_meta_by_hash(dep) {
                base_deps.push(*dep);
                let own = *meta.actor == *change.actor_id();
                (meta.max_op, own && Some(change.seq()) == meta.seq.checked_add(1))
            } else {
                missing.push(change_hash(dep));
                continue;
            };
            top = top.max(max_op);
            follows_own |= own;
        }
        if !missing.is_empty() {
            return Err(Rejection::MissingDeps(missing));
        }
        if change.seq() == 0 || !follows_own {
            return Err(GateError::Sequence.into());
        }
        base_deps.sort_unstable();
        base_deps.dedup();
        Ok((top, self.past(base_deps), ancestors))
    }

    fn past(&mut self, deps: Vec<ChangeHash>) -> Rc<Past> {
        if let Some(past) = self.pasts.get(&deps) {
            return Rc::clone(past);
        }
        let mut unseen = BTreeMap::new();
        if !self.heads.iter().all(|head| deps.binary_search(head).is_ok()) {
            for meta in self.base.get_changes_meta(&deps) {
                let first = unseen.entry(meta.actor.into_owned()).or_insert(meta.start_op);
                *first = meta.start_op.min(*first);
            }
        }
        let past = Rc::new(Past { deps: deps.clone(), unseen });
        self.pasts.insert(deps, Rc::clone(&past));
        past
    }

    /// Checks every operation; returns the objects that the change makes.
    fn operations(&self, subject: &Subject<'_>) -> Result<BTreeMap<u64, Made>, GateError> {
        let mut made = BTreeMap::new();
        let operations = subject.change.decode().operations;
        let mut before: Option<&Op> = None;
        let mut rest = operations.iter().peekable();
        let mut id = subject.start_op;
        while let Some(op) = rest.next() {
            self.references(subject, op, id)?;
            let object = self.object_type(subject, &made, &op.obj)?;
            let sequence = matches!(object, ObjType::List | ObjType::Text);
            let fits = match &op.key {
                Key::Map(_) => !sequence && !op.insert,
                Key::Seq(ElementId::Head) => sequence && op.insert,
                Key::Seq(ElementId::Id(_)) => sequence,
            };
            if !fits {
                return Err(GateError::Kind);
            }
            if op.insert && !op.pred.is_empty() {
                return Err(GateError::Predecessors);
            }
            match &op.action {
                OpType::Make(ObjType::Table) => return Err(GateError::Table),
                OpType::Make(kind) => {
                    let depth = self.depth(subject, &made, &op.obj)? + 1;
                    if depth > limits::DOC_DEPTH_MAX {
                        return Err(GateError::Depth);
                    }
                    let (within, step) = (op.obj.clone(), step_of(op).to_owned());
                    made.insert(id, Made { kind: *kind, depth, within, step });
                }
                OpType::Delete | OpType::Increment(_) => {
                    if op.insert || op.pred.is_empty() {
                        return Err(GateError::Predecessors);
                    }
                }
                OpType::MarkBegin(_) => {
                    let paired =
                        rest.peek().is_some_and(|end| matches!(end.action, OpType::MarkEnd(_)) && end.obj == op.obj);
                    if object != ObjType::Text || !op.insert || !paired {
                        return Err(GateError::Mark);
                    }
                }
                OpType::MarkEnd(_) => {
                    if !op.insert || !before.is_some_and(|begin| matches!(begin.action, OpType::MarkBegin(_))) {
                        return Err(GateError::Mark);
                    }
                }
                OpType::Put(_) => {}
            }
            before = Some(op);
            id += 1;
        }
        if let Some(fields) = subject.fields {
            let places = located(&operations, subject.start_op, subject.change.actor_id());
            if !all_places(places, |object| self.path(object), |place| fields.lead_to(place)) {
                return Err(GateError::Fields);
            }
        }
        Ok(made)
    }

    /// Every operation that is referred to must be an ancestor's, or an earlier one of the change itself: a replica
    /// that lacks the concurrent changes has to come to the same verdict.
    fn references(&self, subject: &Subject<'_>, op: &Op, id: u64) -> Result<(), GateError> {
        if referred(op).all(|reference| self.covered(subject, reference, id)) {
            Ok(())
        } else {
            Err(GateError::Reference)
        }
    }

    fn covered(&self, subject: &Subject<'_>, reference: &OpId, id: u64) -> bool {
        let (counter, actor) = (reference.counter(), reference.actor());
        if counter == 0 || counter >= id {
            return false;
        }
        if is_own(subject, reference) {
            return true;
        }
        if let Some(index) = self.member_with(counter, actor) {
            return subject.ancestors.contains(index);
        }
        subject.past.unseen.get(actor).is_none_or(|first| counter < *first)
            && self.base.hash_for_opid(&ObjId::Id(counter, actor.clone(), 0)).is_some()
    }

    fn member_with(&self, counter: u64, actor: &ActorId) -> Option<usize> {
        let indexes = self.by_actor.get(actor)?;
        let range = |index: &usize| self.members.get(*index).map_or((0, 0), |member| (member.start_op, member.max_op));
        let after = indexes.partition_point(|index| range(index).0 <= counter);
        let index = indexes.get(after.checked_sub(1)?)?;
        (counter <= range(index).1).then_some(*index)
    }

    fn object_type(
        &self,
        subject: &Subject<'_>,
        made: &BTreeMap<u64, Made>,
        object: &ObjectId,
    ) -> Result<ObjType, GateError> {
        let ObjectId::Id(id) = object else {
            return Ok(ObjType::Map);
        };
        if is_own(subject, id) {
            return made.get(&id.counter()).map(|made| made.kind).ok_or(GateError::Object);
        }
        if let Some(made) = self.made.get(id) {
            return Ok(made.kind);
        }
        self.base.object_type(base_object(id)).map_err(|_| GateError::Object)
    }

    /// Returns the path of an object that the batch or the base has.
    fn path(&self, object: &OpId) -> Option<Vec<String>> {
        let (mut steps, mut object) = (Vec::new(), object);
        while let Some(made) = self.made.get(object) {
            steps.push(made.step.clone());
            match &made.within {
                ObjectId::Id(within) => object = within,
                ObjectId::Root => {
                    steps.reverse();
                    return Some(steps);
                }
            }
        }
        let mut path = base_path(self.base, object)?;
        path.extend(steps.into_iter().rev());
        Some(path)
    }

    fn depth(&self, subject: &Subject<'_>, made: &BTreeMap<u64, Made>, object: &ObjectId) -> Result<usize, GateError> {
        let ObjectId::Id(id) = object else {
            return Ok(0);
        };
        if is_own(subject, id) {
            return made.get(&id.counter()).map(|made| made.depth).ok_or(GateError::Object);
        }
        if let Some(made) = self.made.get(id) {
            return Ok(made.depth);
        }
        self.base.parents(base_object(id)).map(Iterator::count).map_err(|_| GateError::Object)
    }
}

/// Returns the key that an operation writes; any step for a position.
fn step_of(op: &Op) -> &str {
    match &op.key {
        Key::Map(key) => key,
        Key::Seq(_) => ANY,
    }
}

/// Returns where the operations of a change lie.
pub(in crate::document) fn located<'a>(
    operations: &'a [Op],
    start_op: u64,
    actor: &'a ActorId,
) -> impl Iterator<Item = Located<'a, OpId>> {
    (start_op..).zip(operations).map(move |(counter, op)| Located {
        object: match &op.obj {
            ObjectId::Root => None,
            ObjectId::Id(id) => Some(id.clone()),
        },
        step: step_of(op),
        makes: matches!(op.action, OpType::Make(_)).then(|| OpId::new(counter, actor)),
    })
}

/// Returns the path of an object that was made in a document, visible or not.
pub(in crate::document) fn base_path(base: &Automerge, object: &OpId) -> Option<Vec<String>> {
    let parents = base.parents(base_object(object)).ok()?;
    let steps = parents.map(|parent| match parent.prop {
        Prop::Map(key) => key,
        Prop::Seq(_) => ANY.to_owned(),
    });
    let mut path: Vec<String> = steps.collect();
    path.reverse();
    Some(path)
}

fn is_own(subject: &Subject<'_>, id: &OpId) -> bool {
    id.counter() >= subject.start_op && id.actor() == subject.change.actor_id()
}

fn base_object(id: &OpId) -> ObjId {
    // The index is a hint that Automerge checks.
    ObjId::Id(id.counter(), id.actor().clone(), 0)
}

/// Returns whether every object that an applied change made lies within the bound on depth.
pub(in crate::document) fn depth_fits(doc: &Automerge, change: &Change) -> bool {
    let start_op = change.start_op().get();
    (start_op..).zip(&change.decode().operations).all(|(counter, op)| match &op.action {
        OpType::Make(_) => {
            let parents = doc.parents(ObjId::Id(counter, change.actor_id().clone(), 0));
            parents.is_ok_and(|parents| parents.count() <= limits::DOC_DEPTH_MAX)
        }
        OpType::Delete | OpType::Increment(_) | OpType::Put(_) | OpType::MarkBegin(_) | OpType::MarkEnd(_) => true,
    })
}
