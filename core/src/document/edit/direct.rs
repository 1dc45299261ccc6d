//! Edits of a document's tree: what [`plan`](super::plan) and [`live`](super::live) do where only maps and values are
//! touched, nothing is in conflict, and the writer had seen the current version.
//!
//! Anything else ends with `None`, an edit that is to be refused among it: the general way then says why.

use std::collections::BTreeMap;

use automerge::{ScalarValue, ScalarValueRef, hydrate};

use super::Edit;
use super::budget::Budget;
use super::ops::{Action, EditOp};
use super::patch::Operation;
use super::path::Path;
use super::plan::{reads, same_type, without_nulls};
use super::typed;
use super::types::{FieldTypes, Place};
use crate::document::direct::{Draft, Held, Id, ROOT, Slot, Tree};
use crate::document::json::{self, Pointer, Value};
use crate::op::FieldKind;

/// Returns whether an edit may be one that needs no Automerge, as far as the edit alone shows.
pub(in crate::document) fn may_be_direct(edit: &Edit) -> bool {
    let is_key = |path: &Pointer| path.steps().last().is_none_or(|step| step != "-");
    match edit {
        Edit::Put(_) | Edit::MergePatch(_) => true,
        Edit::JsonPatch(patch) => patch.iter().all(|operation| match operation {
            Operation::Add { path, .. }
            | Operation::Remove { path }
            | Operation::Replace { path, .. }
            | Operation::Test { path, .. } => is_key(path),
            Operation::Move { .. } | Operation::Copy { .. } => false,
        }),
        Edit::Ops(ops) => ops.iter().all(|op| match op.action {
            Action::Set(_)
            | Action::Delete
            | Action::Increment { .. }
            | Action::Counter(_)
            | Action::Timestamp(_)
            | Action::Bytes(_) => true,
            Action::Splice { .. } | Action::Insert { .. } | Action::Remove { .. } | Action::Text(_) => false,
        }),
    }
}

/// Applies an edit; `None` if it is not of this kind.
pub(in crate::document) fn apply_directly(draft: &mut Draft<'_>, edit: &Edit, types: &FieldTypes) -> Option<()> {
    let mut editor = Editor { draft, types, budget: Budget::new(0) };
    match edit {
        Edit::Put(value) => editor.put_document(value, &types.root()),
        Edit::MergePatch(value) => {
            let place = types.root();
            let canonical = typed::canonical(value, &place);
            let Value::Map(patch) = &*canonical else { return None };
            editor.run(|planner| planner.merge_map(ROOT, patch, &place, Path::ROOT))
        }
        Edit::JsonPatch(patch) => patch.iter().try_for_each(|operation| editor.operation(operation)),
        Edit::Ops(ops) => ops.iter().try_for_each(|op| editor.op(op)),
    }
}

/// One write.
struct Step {
    map: Id,
    key: String,
    what: What,
}

enum What {
    Write(hydrate::Value),
    Delete,
    Increment(i64),
}

/// Collects the writes of one edit or operation: a plan is made from reads alone.
struct Planner<'p> {
    tree: &'p Tree,
    steps: Vec<Step>,
    budget: &'p mut Budget,
}

impl Planner<'_> {
    /// Makes a map read as `given`.
    fn put_map(&mut self, id: Id, given: &BTreeMap<String, Value>, place: &Place<'_>, path: Path<'_>) -> Option<()> {
        // Both sides are in the order of the keys' bytes.
        let mut wanted = given.iter().peekable();
        for (key, slot) in self.tree.map(id)?.iter() {
            while let Some((key, value)) = wanted.next_if(|(wanted, _)| wanted.as_str() < key) {
                self.put_absent(id, key, value, &place.key(key), Path::Key(&path, key))?;
            }
            match wanted.next_if(|(wanted, _)| wanted.as_str() == key) {
                Some((_, value)) => self.put_value(id, key, slot, value, &place.key(key), Path::Key(&path, key))?,
                None => self.delete(id, key, Path::Key(&path, key))?,
            }
        }
        for (key, value) in wanted {
            self.put_absent(id, key, value, &place.key(key), Path::Key(&path, key))?;
        }
        Some(())
    }

    /// Applies a merge patch to a map.
    fn merge_map(&mut self, id: Id, patch: &BTreeMap<String, Value>, place: &Place<'_>, path: Path<'_>) -> Option<()> {
        let map = self.tree.map(id)?;
        for (key, value) in patch {
            let (place, path) = (place.key(key), Path::Key(&path, key));
            match (map.get(key), value) {
                (None, Value::Null) => {}
                (Some(_), Value::Null) => self.delete(id, key, path)?,
                (Some(slot), Value::Map(patch)) if matches!(slot.held(), Held::Map) => {
                    self.merge_map(slot.id(), patch, &place, path)?;
                }
                (Some(slot), value) => self.put_value(id, key, slot, &without_nulls(value), &place, path)?,
                (None, value) => self.put_absent(id, key, &without_nulls(value), &place, path)?,
            }
        }
        Some(())
    }

    fn put_absent(&mut self, map: Id, key: &str, value: &Value, place: &Place<'_>, path: Path<'_>) -> Option<()> {
        self.budget.bytes(key.len(), path).ok()?;
        let value = typed::stored(value, place, path, self.budget).ok()?;
        self.step(map, key, What::Write(value))
    }

    fn delete(&mut self, map: Id, key: &str, path: Path<'_>) -> Option<()> {
        self.budget.operations(1, path).ok()?;
        self.step(map, key, What::Delete)
    }

    /// Makes a place that has a value read as `given`.
    fn put_value(
        &mut self,
        map: Id,
        key: &str,
        slot: &Slot,
        given: &Value,
        place: &Place<'_>,
        path: Path<'_>,
    ) -> Option<()> {
        match (slot.held(), given) {
            (Held::Map, Value::Map(given)) if place.kind().is_none() => {
                return self.put_map(slot.id(), given, place, path);
            }
            (Held::List(now), Value::List(_)) if place.kind().is_none() => {
                // Elements are told apart by identity, which a tree does not know.
                return (place.is_plain() && json::render_value(given) == **now).then_some(());
            }
            (Held::Text(now), Value::String(given)) if place.kind().is_none_or(|kind| kind == FieldKind::Text) => {
                return (**now == **given).then_some(());
            }
            (Held::Map | Held::List(_) | Held::Text(_), _) => {}
            (Held::Scalar(ScalarValueRef::Counter(now)), Value::Int(to))
                if place.kind().is_none_or(|kind| kind == FieldKind::Counter) =>
            {
                let by = to.checked_sub(*now)?;
                if by == 0 {
                    return Some(());
                }
                self.budget.operations(1, path).ok()?;
                return self.step(map, key, What::Increment(by));
            }
            (Held::Scalar(scalar), _) => {
                if reads(scalar, given) {
                    return Some(());
                }
                if let Some(value) = same_type(scalar, given, place) {
                    self.budget.charge(&value, path).ok()?;
                    return self.step(map, key, What::Write(value));
                }
            }
        }
        let value = typed::stored(given, place, path, self.budget).ok()?;
        self.step(map, key, What::Write(value))
    }

    fn step(&mut self, map: Id, key: &str, what: What) -> Option<()> {
        self.steps.push(Step { map, key: key.to_owned(), what });
        Some(())
    }
}

/// Applies an edit to a draft.
struct Editor<'d, 't, 'f> {
    draft: &'d mut Draft<'t>,
    types: &'f FieldTypes,
    budget: Budget,
}

impl Editor<'_, '_, '_> {
    /// Plans on the document as it is now, then writes.
    fn run(&mut self, plan: impl FnOnce(&mut Planner<'_>) -> Option<()>) -> Option<()> {
        let mut planner = Planner { tree: self.draft.tree(), steps: Vec::new(), budget: &mut self.budget };
        plan(&mut planner)?;
        planner.steps.into_iter().try_for_each(|Step { map, key, what }| match what {
            What::Write(value) => self.draft.write(map, &key, &value),
            What::Delete => self.draft.delete(map, &key),
            What::Increment(by) => self.draft.increment(map, &key, by),
        })
    }

    fn put_document(&mut self, given: &Value, place: &Place<'_>) -> Option<()> {
        let canonical = typed::canonical(given, place);
        let Value::Map(map) = &*canonical else { return None };
        self.run(|planner| planner.put_map(ROOT, map, place, Path::ROOT))
    }

    fn operation(&mut self, operation: &Operation) -> Option<()> {
        match operation {
            Operation::Add { path, value } => self.set(path, value, true),
            Operation::Replace { path, value } => self.set(path, value, false),
            Operation::Remove { path } => self.remove(path),
            Operation::Test { path, value } => {
                let (map, key) = self.parent(path)?;
                let Held::Scalar(scalar) = self.draft.tree().map(map)?.get(key)?.held() else { return None };
                json::scalar_value(scalar).equals_numerically(value).then_some(())
            }
            Operation::Move { .. } | Operation::Copy { .. } => None,
        }
    }

    fn op(&mut self, op: &EditOp) -> Option<()> {
        let path = &op.path;
        match &op.action {
            Action::Set(value) => self.set(path, value, true),
            Action::Delete => self.remove(path),
            Action::Increment { by } => self.increment(path, *by),
            Action::Counter(Some(value)) => {
                let (map, key) = self.parent(path)?;
                let is_counter = |slot: &Slot| matches!(slot.held(), Held::Scalar(ScalarValueRef::Counter(_)));
                if self.draft.tree().map(map)?.get(key).is_some_and(is_counter) {
                    return self.set(path, &Value::Int(*value), false);
                }
                self.make(path, ScalarValue::counter(*value))
            }
            Action::Timestamp(ms) => self.make(path, ScalarValue::Timestamp(*ms)),
            Action::Bytes(bytes) => self.make(path, ScalarValue::Bytes(bytes.clone())),
            Action::Counter(None)
            | Action::Splice { .. }
            | Action::Insert { .. }
            | Action::Remove { .. }
            | Action::Text(_) => None,
        }
    }

    /// Makes a place read as `value`, whether there is something or only if there is.
    fn set(&mut self, path: &Pointer, value: &Value, may_be_absent: bool) -> Option<()> {
        let place = self.types.at(path.steps());
        let canonical = typed::canonical(value, &place);
        let value = &*canonical;
        if path.split_last().is_none() {
            return self.put_document(value, &place);
        }
        let (map, key) = self.parent(path)?;
        self.run(|planner| match planner.tree.map(map)?.get(key) {
            Some(slot) => planner.put_value(map, key, slot, value, &place, Path::of(path)),
            None if may_be_absent => planner.put_absent(map, key, value, &place, Path::of(path)),
            None => None,
        })
    }

    fn remove(&mut self, path: &Pointer) -> Option<()> {
        let (map, key) = self.parent(path)?;
        self.budget.operations(1, Path::of(path)).ok()?;
        self.draft.delete(map, key)
    }

    fn increment(&mut self, path: &Pointer, by: i64) -> Option<()> {
        let (map, key) = self.parent(path)?;
        self.budget.operations(1, Path::of(path)).ok()?;
        if self.draft.tree().map(map)?.get(key).is_none() {
            let is_declared = self.types.at(path.steps()).kind() == Some(FieldKind::Counter);
            return if is_declared { self.make(path, ScalarValue::counter(by)) } else { None };
        }
        self.draft.increment(map, key, by)
    }

    /// Writes a typed value, whatever is there.
    fn make(&mut self, path: &Pointer, value: ScalarValue) -> Option<()> {
        let (map, key) = self.parent(path)?;
        let value = hydrate::Value::Scalar(value);
        self.budget.charge(&value, Path::of(path)).ok()?;
        self.draft.write(map, key, &value)
    }

    /// Finds the map that a pointer leads into, and the key there.
    fn parent<'p>(&self, path: &'p Pointer) -> Option<(Id, &'p str)> {
        let (parents, last) = path.split_last()?;
        let mut map = ROOT;
        for step in parents {
            let slot = self.draft.tree().map(map)?.get(step)?;
            match slot.held() {
                Held::Map => map = slot.id(),
                Held::Scalar(_) | Held::List(_) | Held::Text(_) => return None,
            }
        }
        Some((map, last))
    }
}
