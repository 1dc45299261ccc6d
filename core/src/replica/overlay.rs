//! Staged values, and what the store will hold when all batches on their way are committed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::Replica;
use super::flush::INDEX_OF_FEED;
use super::spill::SPILLED;
use crate::store::{Keyspace, Order, Span, envelope};

impl Replica {
    /// Stages a value.
    pub(super) fn put(&mut self, keyspace: Keyspace, key: Vec<u8>, value: &[u8]) {
        let value = envelope::enclose(value);
        if Self::is_read_back(keyspace, &key) {
            self.staged.overlay.insert((keyspace, key.clone()), (self.next_batch, Some(value.clone())));
        }
        self.staged.batch.put(keyspace, key, value);
    }

    /// Stages the removal of a key.
    pub(super) fn delete(&mut self, keyspace: Keyspace, key: Vec<u8>) {
        if Self::is_read_back(keyspace, &key) {
            self.staged.overlay.insert((keyspace, key.clone()), (self.next_batch, None));
        }
        self.staged.batch.delete(keyspace, key);
    }

    /// Reads a value as it will be when all batches are committed. Only of keyspaces that [`Self::is_read_back`].
    pub(super) fn read_back(&mut self, keyspace: Keyspace, key: &[u8]) -> Option<Bytes> {
        debug_assert!(Self::is_read_back(keyspace, key), "{keyspace} is not in the overlay");
        let value = match self.staged.overlay.get(&(keyspace, key.to_vec())) {
            Some((_, value)) => value.clone()?,
            None => match self.store.get(keyspace, key) {
                Ok(value) => value?,
                Err(error) => {
                    self.halt(format!("read the store: {error}"));
                    return None;
                }
            },
        };
        match envelope::open(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.halt(format!("read keyspace {keyspace}: {error}"));
                None
            }
        }
    }

    /// Returns keys as they will be when all batches are committed, in order: those that begin so, behind `after`, at most `count`.
    /// Only of keyspaces that [`Self::is_read_back`].
    pub(super) fn keys_back(
        &mut self,
        keyspace: Keyspace,
        prefix: &[u8],
        after: Option<&[u8]>,
        count: usize,
    ) -> Vec<Vec<u8>> {
        debug_assert!(Self::is_read_back(keyspace, prefix), "{keyspace} is not in the overlay");
        let mut span = Span::prefix(prefix);
        if let Some(after) = after {
            span = span.after(after);
        }
        let from =
            after.map_or(Bound::Included((keyspace, prefix.to_vec())), |key| Bound::Excluded((keyspace, key.to_vec())));
        let staged = self.staged.overlay.range((from, Bound::Unbounded));
        let staged = staged.take_while(|((of, key), _)| *of == keyspace && key.starts_with(prefix));
        let staged: BTreeMap<&[u8], bool> = staged.map(|((_, key), (_, value))| (&**key, value.is_some())).collect();
        let mut keys: BTreeSet<Vec<u8>> =
            staged.iter().filter(|(_, is_there)| **is_there).map(|(key, _)| key.to_vec()).collect();
        let mut stored = 0;
        for entry in self.store.scan(keyspace, &span, Order::Ascending) {
            match entry {
                Ok((key, _)) if staged.contains_key(&*key) => {}
                Ok((key, _)) => {
                    keys.insert(key.to_vec());
                    stored += 1;
                }
                Err(error) => {
                    let reason = format!("read the store: {error}");
                    self.halt(reason);
                    return Vec::new();
                }
            }
            if stored == count {
                break;
            }
        }
        keys.into_iter().take(count).collect()
    }

    pub(super) fn is_read_back(keyspace: Keyspace, key: &[u8]) -> bool {
        match keyspace {
            Keyspace::Quarantine | Keyspace::Requests | Keyspace::Control => true,
            Keyspace::Index => key.first() != Some(&INDEX_OF_FEED),
            Keyspace::Pending => key.first() == Some(&SPILLED),
            Keyspace::Ops
            | Keyspace::Arrivals
            | Keyspace::Tail
            | Keyspace::Snapshots
            | Keyspace::Views
            | Keyspace::Heads
            | Keyspace::Audit
            | Keyspace::Meta
            | Keyspace::Keys => false,
        }
    }
}
