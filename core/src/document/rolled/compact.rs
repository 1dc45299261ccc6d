//! The settled changes of a document, written again as few as they need be.
//!
//! What decides over a document's future are its operations and their ids, not the changes that they came in. So the
//! settled changes can be replaced by others that hold those of their operations that still matter, with the same ids:
//!
//! * A value that a settled change has overwritten or deleted goes, and so does all that lies in a map, list or text
//!   that is gone in this way. The operation that replaced it takes over what it had replaced.
//! * Elements of lists and texts stay, deleted ones too where others were inserted behind them: without those they would
//!   stand in another order.
//! * Whatever a change refers to that is not settled yet stays, with the objects that it lies in.
//! * Operations of one actor whose ids follow each other share a change.
//!
//! A change that comes later and knows all settled ones shows the same in both documents: it refers to values and elements
//! that it has seen, and those are there; where it refers to something else, that is missed. The new changes have a hash space of their own that
//! never leaves the replica.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ChangeHash};

use crate::document::native::{bare_change, referred};

/// Whose the last change is. It is nobody's: the changes of an actor must have rising operation ids, and one of any actor may
/// follow that has lower ones than the highest.
const TIP_ACTOR: &[u8] = b"settled history.";

/// The settled changes written again.
#[derive(Debug, Default)]
pub(super) struct Compacted {
    /// Each after those that it depends on; the last is empty and stands for all that is settled.
    pub(super) changes: Vec<Change>,
    /// The last one of each actor and its number.
    pub(super) last: BTreeMap<ActorId, (u64, ChangeHash)>,
}

/// Operations of one actor with ids in a row.
struct Run {
    actor: ActorId,
    start_op: u64,
    ops: Vec<Op>,
}

/// Writes the `settled` ones of some changes again. `changes` come each after those that it depends on; the settled ones
/// are closed under dependencies. `top` is the highest number of an operation among those.
pub(super) fn compact(changes: &[Change], settled: &BTreeSet<ChangeHash>, top: u64) -> Compacted {
    let mut work = Work::default();
    let (mut ops, mut unsettled) = (Vec::<(OpId, Op)>::new(), Vec::new());
    for change in changes {
        let operations = change.decode().operations;
        if settled.contains(&change.hash()) {
            let numbered = (change.start_op().get()..).zip(operations);
            ops.extend(numbered.map(|(counter, op)| (OpId::new(counter, change.actor_id()), op)));
        } else {
            unsettled.extend(operations);
        }
    }
    // What an operation refers to has a lower number.
    ops.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (id, op) in &ops {
        work.read(id, op);
    }
    for op in &unsettled {
        work.pin(op);
    }
    work.find_leaves();
    for (id, op) in ops {
        work.write(id, op);
    }
    changes_of(work.runs, top)
}

#[derive(Default)]
struct Work {
    /// Values that a settled operation replaced or deleted.
    replaced: BTreeSet<OpId>,
    /// In which object each object lies that was made by a settled operation.
    parents: BTreeMap<OpId, ObjectId>,
    /// What is referred to by changes that are not settled.
    pinned: BTreeSet<OpId>,
    /// Behind which element each element was inserted.
    anchors: BTreeMap<OpId, ElementId>,
    /// Operations that gave elements other values.
    updates: Vec<(OpId, OpId)>,
    /// Deleted elements that nothing stands behind.
    leaves: BTreeSet<OpId>,
    /// What each dropped operation had replaced, itself passed through.
    dropped: BTreeMap<OpId, Vec<OpId>>,
    /// Objects of which nothing is to be seen any more.
    gone: BTreeSet<OpId>,
    runs: Vec<Run>,
    /// The last run of each actor.
    open: BTreeMap<ActorId, usize>,
}

impl Work {
    fn read(&mut self, id: &OpId, op: &Op) {
        if matches!(op.action, OpType::Make(_)) {
            self.parents.insert(id.clone(), op.obj.clone());
        }
        match &op.key {
            Key::Seq(anchor) if op.insert => drop(self.anchors.insert(id.clone(), anchor.clone())),
            Key::Seq(ElementId::Id(element)) if !matches!(op.action, OpType::Delete | OpType::Increment(_)) => {
                self.updates.push((id.clone(), element.clone()));
            }
            Key::Seq(_) | Key::Map(_) => {}
        }
        if !matches!(op.action, OpType::Increment(_)) {
            self.replaced.extend(op.pred.iter().cloned());
        }
    }

    fn pin(&mut self, op: &Op) {
        self.pinned.extend(referred(op).cloned());
        // And the objects that its object lies in.
        let mut object = &op.obj;
        while let ObjectId::Id(id) = object {
            self.pinned.insert(id.clone());
            object = self.parents.get(id).unwrap_or(&ObjectId::Root);
        }
    }

    /// Finds the deleted elements that may go.
    fn find_leaves(&mut self) {
        let is_over = |id: &OpId| self.replaced.contains(id) && !self.pinned.contains(id);
        let shown: BTreeSet<&OpId> =
            self.updates.iter().filter(|(update, _)| !is_over(update)).map(|(_, element)| element).collect();
        let mut behind: BTreeMap<&OpId, usize> = BTreeMap::new();
        for anchor in self.anchors.values() {
            if let ElementId::Id(anchor) = anchor {
                *behind.entry(anchor).or_insert(0) += 1;
            }
        }
        let mut leaves = BTreeSet::new();
        // What stands behind an element has a higher number.
        for (id, anchor) in self.anchors.iter().rev() {
            if is_over(id) && !shown.contains(id) && behind.get(id).is_none_or(|count| *count == 0) {
                leaves.insert(id.clone());
                if let ElementId::Id(anchor) = anchor
                    && let Some(count) = behind.get_mut(anchor)
                {
                    *count -= 1;
                }
            }
        }
        self.leaves = leaves;
    }

    fn write(&mut self, id: OpId, op: Op) {
        let Some(op) = self.operation(id.clone(), op) else { return };
        let OpId(counter, actor) = id;
        if let Some(run) = self.open.get(&actor).and_then(|at| self.runs.get_mut(*at))
            && run.start_op + run.ops.len() as u64 == counter
        {
            run.ops.push(op);
            return;
        }
        self.open.insert(actor.clone(), self.runs.len());
        self.runs.push(Run { actor, start_op: counter, ops: vec![op] });
    }

    /// Returns what is left of an operation; `None` if that is nothing.
    fn operation(&mut self, id: OpId, mut op: Op) -> Option<Op> {
        let is_replaced = self.replaced.contains(&id) && !self.pinned.contains(&id);
        if is_replaced && matches!(op.action, OpType::Make(_)) {
            self.gone.insert(id.clone());
        }
        let preds = self.surviving_preds(&op);
        let in_gone_object = match &op.obj {
            ObjectId::Id(object) => self.gone.contains(object),
            ObjectId::Root => false,
        };
        let on_leaf = self.leaves.contains(&id)
            || matches!(&op.key, Key::Seq(ElementId::Id(element)) if !op.insert && self.leaves.contains(element));
        let acts = matches!(op.action, OpType::Delete | OpType::Increment(_));
        if in_gone_object || on_leaf || (is_replaced && !op.insert) || (acts && preds.is_empty()) {
            if matches!(op.action, OpType::Make(_)) {
                self.gone.insert(id.clone());
            }
            self.dropped.insert(id, preds);
            return None;
        }
        op.pred = preds.into();
        Some(op)
    }

    fn surviving_preds(&self, op: &Op) -> Vec<OpId> {
        // An increment adds to one value; to add to what that had replaced would be wrong.
        let passes = !matches!(op.action, OpType::Increment(_));
        let mut preds = BTreeSet::new();
        for pred in op.pred.iter() {
            match self.dropped.get(pred) {
                None => drop(preds.insert(pred.clone())),
                Some(before) if passes => preds.extend(before.iter().cloned()),
                Some(_) => {}
            }
        }
        preds.into_iter().collect()
    }
}

/// Makes changes of the runs, which are in the order of their first operations, with an empty one at the end that stands for
/// all and after which operation ids go on behind `top`.
fn changes_of(mut runs: Vec<Run>, top: u64) -> Compacted {
    let mut compacted = Compacted::default();
    runs.push(Run { actor: ActorId::from(TIP_ACTOR), start_op: top + 1, ops: Vec::new() });
    let mut open: BTreeSet<(u64, ChangeHash)> = BTreeSet::new();
    for Run { actor, start_op, ops } in runs {
        let own = compacted.last.get(&actor).copied();
        // The operations of a change have higher ids than what it depends on, as Automerge expects.
        let above = open.split_off(&(start_op, ChangeHash([0; 32])));
        let deps: BTreeSet<ChangeHash> = open.into_iter().chain(own).map(|(_, hash)| hash).collect();
        open = above;
        let (seq, before) = (own.map_or(0, |(seq, _)| seq) + 1, start_op - 1);
        let max_op = before + ops.len() as u64;
        let change = Change::from(bare_change(actor.clone(), seq, before, ops, deps));
        open.insert((max_op, change.hash()));
        compacted.last.insert(actor, (seq, change.hash()));
        compacted.changes.push(change);
    }
    compacted
}
