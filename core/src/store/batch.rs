//! Batches: what is written at once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;

use super::{KEY_BYTES_MAX, Keyspace, StoreError, VALUE_BYTES_MAX};

/// Bytes that an entry costs beside its key and value, roughly, in the journal and the memtable.
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Writes that take effect together.
///
/// A key occurs once, with its last fate: merged batches touch the same heads and views again and again, and fjall gives
/// all writes of a batch one sequence number, so that two writes of one key would have no defined order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    writes: BTreeMap<(Keyspace, Bytes), Option<Bytes>>,
    bytes: usize,
    out_of_bounds: Option<(Keyspace, usize, usize)>,
}

impl Batch {
    /// Returns an empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self { writes: BTreeMap::new(), bytes: 0, out_of_bounds: None }
    }

    /// Adds the write of a value, in place of what the batch said about the key.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.write(keyspace, key.into(), Some(value.into()));
    }

    /// Adds the removal of a key, in place of what the batch said about it.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Bytes>) {
        self.write(keyspace, key.into(), None);
    }

    /// Adds all writes of a later batch.
    pub fn append(&mut self, later: Self) {
        for ((keyspace, key), value) in later.writes {
            self.write(keyspace, key, value);
        }
        self.out_of_bounds = self.out_of_bounds.or(later.out_of_bounds);
    }

    fn write(&mut self, keyspace: Keyspace, key: Bytes, value: Option<Bytes>) {
        let value_bytes = value.as_ref().map_or(0, Bytes::len);
        if key.is_empty() || key.len() > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            self.out_of_bounds.get_or_insert((keyspace, key.len(), value_bytes));
        }
        match self.writes.entry((keyspace, key)) {
            Entry::Vacant(entry) => {
                self.bytes += entry.key().1.len() + value_bytes + ENTRY_OVERHEAD_BYTES;
                entry.insert(value);
            }
            Entry::Occupied(mut entry) => {
                let before = entry.insert(value);
                self.bytes = self.bytes + value_bytes - before.map_or(0, |value| value.len());
            }
        }
    }

    /// Checks that every key and value is within its bounds.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] names the first that is not.
    pub const fn check(&self) -> Result<(), StoreError> {
        match self.out_of_bounds {
            None => Ok(()),
            Some((keyspace, key_bytes, value_bytes)) => Err(StoreError::TooLong { keyspace, key_bytes, value_bytes }),
        }
    }

    /// Returns how many keys are written or removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Returns whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Returns about how many bytes the batch takes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the batch with other values under the same keys.
    ///
    /// # Errors
    /// The first of `value`.
    pub(super) fn with_values<E>(
        &self,
        mut value: impl FnMut(Keyspace, &Bytes, &Bytes) -> Result<Bytes, E>,
    ) -> Result<Self, E> {
        // A copy of a map takes no search for the place of each entry.
        let mut out = self.clone();
        for ((keyspace, key), before) in &mut out.writes {
            if let Some(before) = before {
                let after = value(*keyspace, key, before)?;
                if key.len() > KEY_BYTES_MAX || after.len() > VALUE_BYTES_MAX {
                    out.out_of_bounds.get_or_insert((*keyspace, key.len(), after.len()));
                }
                out.bytes = out.bytes + after.len() - before.len();
                *before = after;
            }
        }
        Ok(out)
    }

    /// Returns the writes in the order of keyspace and key; `None` removes the key.
    pub fn writes(&self) -> impl Iterator<Item = (Keyspace, &Bytes, Option<&Bytes>)> {
        self.writes.iter().map(|((keyspace, key), value)| (*keyspace, key, value.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_a_key_counts_and_bytes_follow() {
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, "a", "12345");
        let mut alone = Batch::new();
        alone.put(Keyspace::Meta, "a", "12");
        let mut later = Batch::new();
        later.delete(Keyspace::Meta, "a");
        later.put(Keyspace::Meta, "a", "12");
        batch.append(later);
        assert_eq!(batch, alone);
        batch.delete(Keyspace::Meta, "a");
        assert_eq!(batch.bytes(), 1 + ENTRY_OVERHEAD_BYTES);
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn other_values_are_counted_and_bounded() {
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, "a", "12");
        batch.delete(Keyspace::Meta, "b");
        let mut longer = Batch::new();
        longer.put(Keyspace::Meta, "a", "12345");
        longer.delete(Keyspace::Meta, "b");
        assert_eq!(batch.with_values(|_, _, _| Ok::<_, ()>(Bytes::from("12345"))), Ok(longer));
        assert_eq!(batch.with_values(|_, _, _| Err("no")), Err("no"));
        let huge = batch.with_values(|_, _, _| Ok::<_, ()>(vec![0; VALUE_BYTES_MAX + 1].into())).unwrap();
        assert!(matches!(huge.check(), Err(StoreError::TooLong { keyspace: Keyspace::Meta, .. })));
    }

    #[test]
    fn bounds_are_remembered_even_when_merged() {
        for key in [vec![], vec![0; KEY_BYTES_MAX + 1]] {
            let mut bad = Batch::new();
            bad.delete(Keyspace::Ops, key);
            let mut batch = Batch::new();
            batch.put(Keyspace::Ops, vec![0; KEY_BYTES_MAX], "");
            assert!(batch.check().is_ok());
            batch.append(bad);
            assert!(matches!(batch.check(), Err(StoreError::TooLong { keyspace: Keyspace::Ops, .. })));
        }
    }
}
