//! Operations one after the other on an open transaction, each on what those before it left.

use automerge::transaction::Transaction;
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, ValueRef, hydrate};

use super::budget::Budget;
use super::error::{EditError, EditErrorKind};
use super::patch::{self, Operation, index_of, not_found};
use super::path::Path;
use super::plan::{self, Intent, Item, Planner, Register, Seen};
use super::sight::Sight;
use super::step::{self, Step};
use super::typed;
use super::types::FieldTypes;
use crate::document::json::{self, Pointer, Value};

/// A transaction under a list of operations.
pub(super) struct Live<'a, 't> {
    pub(super) tx: &'a mut Transaction<'t>,
    pub(super) types: &'a FieldTypes,
    pub(super) budget: Budget,
    /// Translates the indices of a writer who had seen an older version.
    pub(super) sight: Sight<'a>,
}

/// A map or list, by identity.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) object: ObjId,
    pub(super) kind: ObjType,
    /// The writer had seen it, so that the indices are those of the base.
    pub(super) seen: bool,
}

impl Container {
    pub(super) fn is_list(&self) -> bool {
        self.kind == ObjType::List
    }
}

impl Live<'_, '_> {
    pub(super) fn patch(&mut self, patch: &[Operation]) -> Result<(), EditError> {
        for (index, operation) in patch.iter().enumerate() {
            self.operation(operation).map_err(|error| error.in_operation(index))?;
        }
        Ok(())
    }

    fn operation(&mut self, operation: &Operation) -> Result<(), EditError> {
        match operation {
            Operation::Add { path, value } => self.add(path, value),
            Operation::Remove { path } => self.remove(path),
            Operation::Replace { path, value } => self.set(path, value, Existence::Required),
            Operation::Move { from, path } => self.relocate(from, path),
            Operation::Copy { from, path } => {
                let value = self.read_typed(from)?;
                self.add_typed(path, value)
            }
            Operation::Test { path, value } => {
                if self.read(path)?.equals_numerically(value) {
                    Ok(())
                } else {
                    Err(patch::test_failed(path))
                }
            }
        }
    }

    fn add(&mut self, path: &Pointer, value: &Value) -> Result<(), EditError> {
        if let Some((parents, last)) = path.split_last() {
            let container = self.container(parents)?;
            if container.is_list() {
                let index = patch::insert_index(last, self.tx.length(&container.object), path)?;
                let place = self.types.at(path.steps());
                let value = typed::stored(value, &place, Path::of(path), &mut self.budget)?;
                return self.insert(&container, index, vec![value]);
            }
        }
        self.set(path, value, Existence::Optional)
    }

    /// Makes a place read as `value`.
    pub(super) fn set(&mut self, path: &Pointer, value: &Value, existence: Existence) -> Result<(), EditError> {
        let place = self.types.at(path.steps());
        let value = &*typed::canonical(value, &place);
        let target = match path.split_last() {
            Some((parents, last)) => Some((self.container(parents)?, last)),
            None => None,
        };
        let steps = {
            let tx = &*self.tx;
            let mut planner = Planner { doc: tx, base: None, steps: Vec::new(), budget: &mut self.budget };
            match target {
                None => planner.put_document(value, &place)?,
                Some((container, last)) => {
                    let found = self.sight.find(tx, &container, last)?;
                    match found {
                        Some((prop, item)) => {
                            let register =
                                Register { object: &container.object, prop, item: &item, seen: Seen::Current };
                            planner.put_value(&register, value, &place, Path::of(path), Intent::Assign)?;
                        }
                        None if existence == Existence::Optional && !container.is_list() => {
                            planner.put_absent_at(&container.object, last, value, &place, Path::of(path))?;
                        }
                        None => return Err(not_found(path)),
                    }
                }
            }
            planner.steps
        };
        step::run(self.tx, steps)
    }

    pub(super) fn remove(&mut self, path: &Pointer) -> Result<(), EditError> {
        let Some((parents, last)) = path.split_last() else { return Err(patch::no_root_removal()) };
        let container = self.container(parents)?;
        if self.sight.find(self.tx, &container, last)?.is_none() {
            return Err(not_found(path));
        }
        self.budget.operations(1, Path::of(path))?;
        match index_of(last) {
            Some(index) if container.is_list() => self.sight.remove(self.tx, &container, index, 1),
            Some(_) | None => Ok(automerge::transaction::Transactable::delete(self.tx, &container.object, last)?),
        }
    }

    fn relocate(&mut self, from: &Pointer, path: &Pointer) -> Result<(), EditError> {
        patch::check_move(from, path)?;
        let value = self.read_typed(from)?;
        if from == path {
            return Ok(());
        }
        // A move to something that contains the source replaces it whole, the source included.
        if !path.is_prefix_of(from) {
            self.remove(from)?;
        }
        self.add_typed(path, value)
    }

    /// Adds a copied value, with the types that it had.
    fn add_typed(&mut self, path: &Pointer, value: hydrate::Value) -> Result<(), EditError> {
        let place = self.types.at(path.steps());
        let value = typed::copied(value, &place, Path::of(path), &mut self.budget)?;
        let Some((parents, last)) = path.split_last() else { return self.replace_root(value) };
        let container = self.container(parents)?;
        if container.is_list() {
            let index = patch::insert_index(last, self.tx.length(&container.object), path)?;
            return self.insert(&container, index, vec![value]);
        }
        let prop = Prop::Map(last.to_owned());
        step::run(self.tx, vec![Step::Write { object: container.object, prop, value }])
    }

    /// Replaces the whole document, which keeps nothing of what it had.
    fn replace_root(&mut self, value: hydrate::Value) -> Result<(), EditError> {
        let hydrate::Value::Map(map) = value else {
            return Err(EditError::new(EditErrorKind::Invalid, "", "a document is an object"));
        };
        let keys: Vec<String> = self.tx.keys(&ROOT).collect();
        let gone = keys.into_iter().filter(|key| map.get(key).is_none());
        let mut steps: Vec<Step> = gone.map(|key| Step::Delete { object: ROOT, prop: Prop::Map(key) }).collect();
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        steps.extend(entries.into_iter().map(|(key, entry)| Step::Write {
            object: ROOT,
            prop: Prop::Map(key.clone()),
            value: entry.value.clone(),
        }));
        step::run(self.tx, steps)
    }

    /// Inserts elements that are paid for already.
    pub(super) fn insert(
        &mut self,
        list: &Container,
        index: usize,
        values: Vec<hydrate::Value>,
    ) -> Result<(), EditError> {
        self.sight.insert(self.tx, list, index, values)
    }

    /// Finds the container that some steps lead to.
    pub(super) fn container(&mut self, steps: &[String]) -> Result<Container, EditError> {
        let mut here = Container { object: ROOT, kind: ObjType::Map, seen: true };
        for (at, step) in steps.iter().enumerate() {
            let missing = || not_found(Path::At(steps.get(..=at).unwrap_or(steps)));
            let found = self.sight.below(self.tx, &here, step)?;
            here = found.filter(|below| below.kind != ObjType::Text).ok_or_else(missing)?;
        }
        Ok(here)
    }

    /// Returns the value at a place, as JSON.
    fn read(&mut self, path: &Pointer) -> Result<Value, EditError> {
        let Some((parents, last)) = path.split_last() else {
            return Ok(json::object_value(self.tx, &ROOT, ObjType::Map, None));
        };
        let container = self.container(parents)?;
        let (_, item) = self.sight.find(self.tx, &container, last)?.ok_or_else(|| not_found(path))?;
        Ok(match item.value() {
            ValueRef::Scalar(scalar) => json::scalar_value(scalar),
            ValueRef::Object(kind) => json::object_value(self.tx, &item.id(), *kind, None),
        })
    }

    /// Returns the value at a place, as it is stored.
    fn read_typed(&mut self, path: &Pointer) -> Result<hydrate::Value, EditError> {
        let Some((parents, last)) = path.split_last() else { return Ok(self.tx.hydrate(&ROOT, None)?) };
        let container = self.container(parents)?;
        let (prop, item) = self.sight.find(self.tx, &container, last)?.ok_or_else(|| not_found(path))?;
        match item.value() {
            ValueRef::Object(_) => Ok(self.tx.hydrate(item.id(), None)?),
            ValueRef::Scalar(_) => match self.tx.get(&container.object, prop)? {
                Some((automerge::Value::Scalar(scalar), _)) => Ok(hydrate::Value::Scalar(scalar.into_owned())),
                Some((automerge::Value::Object(_), _)) | None => Err(not_found(path)),
            },
        }
    }
}

/// Whether a place must have a value before it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Existence {
    Required,
    Optional,
}

/// Returns what a step of a pointer leads to in the current version.
pub(super) fn child<'t>(tx: &'t Transaction<'_>, container: &Container, step: &str) -> Option<(Prop, Item<'t>)> {
    if container.is_list() {
        let index = index_of(step)?;
        plan::element(tx, &container.object, index, None).map(|item| (Prop::Seq(index), item))
    } else {
        plan::entry(tx, &container.object, step, None).map(|item| (Prop::Map(step.to_owned()), item))
    }
}
