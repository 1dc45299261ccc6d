//! The difference of two versions of a document as a JSON patch.

use std::collections::BTreeMap;

use automerge::{Automerge, ChangeHash};

use super::edit::{Element, Operation, Pair, align};
use super::json::{self, Pointer, Value};

/// Returns a patch that turns the document as it was at `before` into what it was at `after`; empty if they read the
/// same. Heads that are not in the document count as nothing.
///
/// It compares the two as JSON. Automerge's own patches speak of CRDT objects, and an object that was replaced by an
/// equal one would be sent whole.
#[must_use]
pub fn between(doc: &Automerge, before: &[ChangeHash], after: &[ChangeHash]) -> Vec<Operation> {
    of_values(&json::to_value_at(doc, before), &json::to_value_at(doc, after))
}

/// Returns a patch that turns one value into the other.
#[must_use]
pub fn of_values(before: &Value, after: &Value) -> Vec<Operation> {
    let mut patch = Vec::new();
    values(before, after, &mut Pointer::ROOT.clone(), &mut patch);
    patch
}

fn values(before: &Value, after: &Value, at: &mut Pointer, patch: &mut Vec<Operation>) {
    match (before, after) {
        (Value::Map(before), Value::Map(after)) => maps(before, after, at, patch),
        (Value::List(before), Value::List(after)) => lists(before, after, at, patch),
        (before, after) if before == after => {}
        (_, after) => patch.push(Operation::Replace { path: at.clone(), value: after.clone() }),
    }
}

fn maps(
    before: &BTreeMap<String, Value>,
    after: &BTreeMap<String, Value>,
    at: &mut Pointer,
    patch: &mut Vec<Operation>,
) {
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        at.push(key);
        patch.push(Operation::Remove { path: at.clone() });
        at.pop();
    }
    for (key, value) in after {
        at.push(key);
        match before.get(key) {
            Some(before) => values(before, value, at, patch),
            None => patch.push(Operation::Add { path: at.clone(), value: value.clone() }),
        }
        at.pop();
    }
}

fn lists(before: &[Value], after: &[Value], at: &mut Pointer, patch: &mut Vec<Operation>) {
    // The place in the list as the operations so far have made it.
    let mut index = 0;
    for pair in align(before, after, |_| Element::Plain) {
        at.push(index.to_string());
        match pair {
            Pair::Keep { .. } => index += 1,
            Pair::Edit { base, given } => {
                if let (Some(before), Some(after)) = (before.get(base), after.get(given)) {
                    values(before, after, at, patch);
                }
                index += 1;
            }
            Pair::Remove { .. } => patch.push(Operation::Remove { path: at.clone() }),
            Pair::Add { given } => {
                if let Some(value) = after.get(given) {
                    patch.push(Operation::Add { path: at.clone(), value: value.clone() });
                }
                index += 1;
            }
        }
        at.pop();
    }
}
