//! A document without the effect of its void changes, and with everything that others wrote on top of them.
//!
//! A change can turn void after others have built on it: its author's rights were revoked further back. Leaving out
//! whatever depends on it would hide honest work (14 % of it in random documents), and keeping it would let a removed
//! author write through any careless one. So the accepted changes are written again:
//!
//! * Every accepted operation keeps its id, so references between accepted ones stay as they are.
//! * References to void operations are passed through: the predecessors of a dropped operation take its place (what
//!   overwrites a void value overwrites what that one had overwritten), and an insertion after a dropped element goes
//!   to that element's own anchor.
//! * *Inert* operations are dropped as well: those inside objects, or on elements, that only void operations made, and
//!   deletes and increments with nothing left to act on. A mark goes when an end hangs on a dropped or moved element.
//! * A change in whose middle operations are gone becomes several; sequence numbers are counted anew; dependencies are
//!   the surviving ones, reduced to the maximal (or they would pile up quadratically).
//!
//! The result lives in a hash space of its own, which never leaves the replica. It is a pure function of the *sets* of
//! changes and of void ones: order of arrival shows nowhere. With nothing void it is the identity, and with a void set
//! that is closed under dependents it equals leaving those changes out.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::rc::Rc;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ChangeHash, ExpandedChange};

use super::native::native_hash;

/// The accepted changes written again.
#[derive(Debug)]
pub struct Transplant {
    /// What to build the visible document from, each after those that it depends on.
    pub changes: Vec<Change>,
    /// For every change given, void ones too, the new changes that stand for it and its ancestors.
    pub heads: BTreeMap<ChangeHash, Vec<ChangeHash>>,
    /// How many accepted operations had to be dropped.
    pub inert: usize,
}

/// Writes the changes of a document again so that the `void` ones have no effect.
///
/// `changes` are all changes that passed the gate, void ones included, closed under dependencies, in any order.
#[must_use]
pub fn transplant(changes: &[Change], void: &BTreeSet<crate::id::ChangeHash>) -> Transplant {
    let void: BTreeSet<ChangeHash> = void.iter().map(native_hash).collect();
    let mut work = Work::default();
    for change in in_dependency_order(changes) {
        work.change(change, void.contains(&change.hash()));
    }
    Transplant { changes: work.changes, heads: work.heads, inert: work.inert }
}

/// Ties are broken by hash.
fn in_dependency_order(changes: &[Change]) -> Vec<&Change> {
    let by_hash: BTreeMap<ChangeHash, &Change> = changes.iter().map(|change| (change.hash(), change)).collect();
    let mut waits: BTreeMap<ChangeHash, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
    let mut ready = BTreeSet::new();
    for (hash, change) in &by_hash {
        if change.deps().is_empty() {
            ready.insert(*hash);
        }
        waits.insert(*hash, change.deps().len());
        for dep in change.deps() {
            dependents.entry(*dep).or_default().push(*hash);
        }
    }
    let mut order = Vec::with_capacity(by_hash.len());
    while let Some(hash) = ready.pop_first() {
        order.extend(by_hash.get(&hash).copied());
        for dependent in dependents.remove(&hash).unwrap_or_default() {
            if let Some(count) = waits.get_mut(&dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(dependent);
                }
            }
        }
    }
    order
}

#[derive(Default)]
struct Work {
    changes: Vec<Change>,
    heads: BTreeMap<ChangeHash, Vec<ChangeHash>>,
    inert: usize,
    /// Accepted changes of which something was written.
    written: BTreeSet<ChangeHash>,
    /// What each dropped operation had replaced, itself passed through.
    dropped: BTreeMap<OpId, Vec<OpId>>,
    /// Where each dropped element was inserted.
    anchors: BTreeMap<OpId, ElementId>,
    gone_objects: BTreeSet<OpId>,
    /// Elements that are no longer where their author put them, or hang on such a one.
    moved: BTreeSet<OpId>,
    sequences: BTreeMap<ActorId, u64>,
    positions: BTreeMap<ChangeHash, Position>,
}

/// Where a new change stands among the new ones.
struct Position {
    actor: ActorId,
    seq: u64,
    max_op: u64,
    /// The last sequence number of each actor among its ancestors and itself.
    clock: Rc<BTreeMap<ActorId, u64>>,
}

/// Operations with ids in a row.
struct Segment {
    start_op: u64,
    ops: Vec<Op>,
}

impl Work {
    fn change(&mut self, change: &Change, is_void: bool) {
        let deps = self.deps(change);
        let expanded = change.decode();
        let start_op = change.start_op().get();
        let torn = self.torn_marks(&expanded.operations);
        let mut segments: Vec<Segment> = Vec::new();
        let ops = (start_op..).zip(expanded.operations).zip(torn);
        for ((counter, op), torn) in ops {
            let id = OpId::new(counter, change.actor_id());
            let Some(op) = self.operation(id, op, is_void || torn) else {
                self.inert += usize::from(!is_void);
                continue;
            };
            match segments.last_mut() {
                Some(last) if last.start_op + last.ops.len() as u64 == counter => last.ops.push(op),
                _ => segments.push(Segment { start_op: counter, ops: vec![op] }),
            }
        }
        if !is_void && change.is_empty() {
            // A merge stays one: it holds heads together. Its operation ids must not leave a gap.
            let top = deps.iter().filter_map(|dep| self.positions.get(dep)).map(|position| position.max_op).max();
            segments.push(Segment { start_op: top.unwrap_or(0) + 1, ops: Vec::new() });
        }
        let mut heads = deps;
        for segment in segments {
            let seq = self.sequences.entry(change.actor_id().clone()).or_insert(0);
            *seq += 1;
            let seq = *seq;
            let Some(start_op) = NonZeroU64::new(segment.start_op) else {
                continue;
            };
            let new = Change::from(ExpandedChange {
                operations: segment.ops,
                actor_id: change.actor_id().clone(),
                hash: None,
                seq,
                start_op,
                time: expanded.time,
                message: expanded.message.clone(),
                deps: heads.clone(),
                // They may name the author, which only an actor's first change can.
                extra_bytes: if seq == change.seq() { expanded.extra_bytes.clone() } else { Vec::new() },
                author: None,
            });
            let max_op = segment.start_op + new.len() as u64 - 1;
            self.place(&new, seq, max_op, &heads);
            heads = vec![new.hash()];
            self.changes.push(new);
            self.written.insert(change.hash());
        }
        self.heads.insert(change.hash(), heads);
    }

    /// The new changes that stand for a change's dependencies, ascending; maximal where one of them is gone.
    fn deps(&self, change: &Change) -> Vec<ChangeHash> {
        let mut deps: Vec<ChangeHash> =
            change.deps().iter().filter_map(|dep| self.heads.get(dep)).flatten().copied().collect();
        deps.sort_unstable();
        deps.dedup();
        if deps.len() < 2 || change.deps().iter().all(|dep| self.written.contains(dep)) {
            return deps;
        }
        let all = deps.clone();
        deps.retain(|dep| {
            let Some(position) = self.positions.get(dep) else {
                return true;
            };
            let covers = |other: &ChangeHash| {
                let clock = self.positions.get(other).map(|other| &other.clock);
                clock.and_then(|clock| clock.get(&position.actor)).is_some_and(|seq| *seq >= position.seq)
            };
            !all.iter().any(|other| other != dep && covers(other))
        });
        deps
    }

    fn place(&mut self, new: &Change, seq: u64, max_op: u64, deps: &[ChangeHash]) {
        let mut clocks = deps.iter().filter_map(|dep| self.positions.get(dep)).map(|position| &position.clock);
        let mut clock = clocks.next().map(|first| BTreeMap::clone(first)).unwrap_or_default();
        for other in clocks {
            for (actor, seq) in other.iter() {
                let mine = clock.entry(actor.clone()).or_insert(0);
                *mine = (*mine).max(*seq);
            }
        }
        let actor = new.actor_id().clone();
        clock.insert(actor.clone(), seq);
        self.positions.insert(new.hash(), Position { actor, seq, max_op, clock: Rc::new(clock) });
    }

    /// Which operations are ends of a mark that has to go: its two ends are neighbours, and go together.
    fn torn_marks(&self, ops: &[Op]) -> Vec<bool> {
        let hangs = |op: &Op| match &op.key {
            Key::Seq(ElementId::Id(anchor)) => self.anchors.contains_key(anchor) || self.moved.contains(anchor),
            Key::Seq(ElementId::Head) | Key::Map(_) => false,
        };
        let mut torn = vec![false; ops.len()];
        for (pair, flags) in ops.windows(2).zip(0..) {
            if let [begin, end] = pair
                && matches!(begin.action, OpType::MarkBegin(_))
                && (hangs(begin) || hangs(end))
                && let Some(flags) = torn.get_mut(flags..flags + 2)
            {
                flags.fill(true);
            }
        }
        torn
    }

    /// Rewrites one operation; `None` if it has no place any more.
    fn operation(&mut self, id: OpId, mut op: Op, is_dropped: bool) -> Option<Op> {
        let had_preds = !op.pred.is_empty();
        let preds = self.surviving_preds(&op);
        let in_gone_object = match &op.obj {
            ObjectId::Id(object) => self.gone_objects.contains(object),
            ObjectId::Root => false,
        };
        let mut on_gone_element = false;
        if let Key::Seq(element) = &op.key {
            if op.insert {
                let (anchor, moved) = self.surviving_anchor(element.clone());
                op.key = Key::Seq(anchor);
                if moved {
                    self.moved.insert(id.clone());
                }
            } else if let ElementId::Id(element) = element {
                on_gone_element = self.anchors.contains_key(element);
            }
        }
        let acts = matches!(op.action, OpType::Delete | OpType::Increment(_));
        if is_dropped || in_gone_object || on_gone_element || (acts && had_preds && preds.is_empty()) {
            if op.insert
                && let Key::Seq(anchor) = op.key
            {
                self.anchors.insert(id.clone(), anchor);
            }
            if matches!(op.action, OpType::Make(_)) {
                self.gone_objects.insert(id.clone());
            }
            self.dropped.insert(id, preds);
            return None;
        }
        op.pred = preds.into();
        Some(op)
    }

    fn surviving_preds(&self, op: &Op) -> Vec<OpId> {
        // The predecessors of a dropped operation were passed through when it was dropped.
        let passed = |pred: &OpId| self.dropped.get(pred).cloned().unwrap_or_else(|| vec![pred.clone()]);
        let preds: BTreeSet<OpId> = op.pred.iter().flat_map(passed).collect();
        preds.into_iter().collect()
    }

    fn surviving_anchor(&self, element: ElementId) -> (ElementId, bool) {
        // The anchor of a dropped element was passed through when it was dropped.
        let ElementId::Id(id) = &element else {
            return (element, false);
        };
        match self.anchors.get(id) {
            Some(anchor) => (anchor.clone(), true),
            None => {
                let moved = self.moved.contains(id);
                (element, moved)
            }
        }
    }
}
