//! Which places of a document somebody looks at, so that the rest is not read.

use std::collections::BTreeMap;

use super::Value;

/// A tree of places.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wanted {
    /// Everything here and below.
    whole: bool,
    below: BTreeMap<String, Wanted>,
}

impl Wanted {
    /// The whole document.
    #[must_use]
    pub const fn everything() -> Self {
        Self { whole: true, below: BTreeMap::new() }
    }

    /// Returns whether nothing of the content is wanted.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.whole && self.below.is_empty()
    }

    /// Adds a place.
    pub fn add(&mut self, steps: &[String]) {
        let mut at = self;
        for step in steps {
            if at.whole {
                return;
            }
            at = at.below.entry(step.clone()).or_default();
        }
        *at = Self::everything();
    }

    /// Returns whether all of the place is wanted.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Returns what is wanted of a member.
    pub(super) fn member(&self, key: &str) -> Option<&Self> {
        self.below.get(key)
    }

    /// Returns the parts of a value that are in the tree; in arrays, of each element. None if nothing of it is.
    #[must_use]
    pub fn project(&self, value: Value) -> Option<Value> {
        match value {
            value if self.whole => Some(value),
            Value::Map(map) => {
                let of = |(key, value): (String, Value)| {
                    let value = self.below.get(&key)?.project(value)?;
                    Some((key, value))
                };
                Some(Value::Map(map.into_iter().filter_map(of).collect()))
            }
            Value::List(list) => Some(Value::List(list.into_iter().filter_map(|value| self.project(value)).collect())),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::String(_) => None,
        }
    }
}
