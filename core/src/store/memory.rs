//! The twin of the disk store in memory, for tests and the simulator.
//!
//! It forgets what was not synced when the power is cut, as a disk does, and fails when told to. Everything it does is a
//! function of the calls made to it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Batch, Durability, Entries, Health, Keyspace, KeyspaceUsage, Order, Read, Span, Store, StoreError, Usage};

/// Which batches of those not synced are on the disk after a power cut. A journal loses a suffix, never a batch in the
/// middle, and never half of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivors {
    /// None of them.
    None,
    /// The oldest, at most so many.
    Oldest(usize),
}

type Tree = Arc<BTreeMap<Bytes, Bytes>>;

/// Trees by keyspace. Shared with snapshots and copied on the first write after one was taken.
#[derive(Clone, Default)]
struct Trees(BTreeMap<Keyspace, Tree>);

impl Trees {
    fn apply(&mut self, batch: &Batch) {
        for (keyspace, key, value) in batch.writes() {
            let tree = Arc::make_mut(self.0.entry(keyspace).or_default());
            match value {
                Some(value) => tree.insert(key.clone(), value.clone()),
                None => tree.remove(key),
            };
        }
    }
}

impl Read for Trees {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(&keyspace).and_then(|tree| tree.get(key)).cloned())
    }

    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        match self.0.get(&keyspace) {
            None => Box::new(std::iter::empty()),
            Some(tree) => Box::new(Scan { tree: tree.clone(), rest: span.clone(), order }),
        }
    }
}

/// A scan that owns its tree: it looks up the next key each time, since it cannot borrow from itself.
struct Scan {
    tree: Tree,
    rest: Span,
    order: Order,
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut range = self.tree.range::<[u8], _>(self.rest.bounds()?);
        let (key, value) = match self.order {
            Order::Ascending => range.next(),
            Order::Descending => range.next_back(),
        }?;
        let entry = (key.clone(), value.clone());
        let rest = std::mem::replace(&mut self.rest, Span::all());
        self.rest = match self.order {
            Order::Ascending => rest.after(&entry.0),
            Order::Descending => rest.before(&entry.0),
        };
        Some(Ok(entry))
    }
}

#[derive(Default)]
struct State {
    live: Trees,
    synced: Trees,
    /// Since the last sync, oldest first; the last of them failed if the store is poisoned.
    unsynced: Vec<Batch>,
    poisoned: bool,
    fail_next_sync: bool,
}

/// A [`Store`] in memory. A clone is a handle to the same store.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

impl MemoryStore {
    /// Returns an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state whole: every change below is made in full or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power and opens the store again: batches not synced are gone, except for `survivors`.
    ///
    /// A batch whose commit failed is among those not synced: it may survive.
    pub fn crash(&self, survivors: Survivors) {
        let mut state = self.state();
        let kept = match survivors {
            Survivors::None => 0,
            Survivors::Oldest(count) => count,
        };
        let State { synced, unsynced, .. } = &mut *state;
        for batch in unsynced.iter().take(kept) {
            synced.apply(batch);
        }
        let synced = synced.clone();
        *state = State { live: synced.clone(), synced, ..State::default() };
    }

    /// Ends the process and opens the store again: what reached the operating system is kept, synced or not.
    pub fn restart(&self) {
        self.crash(Survivors::Oldest(usize::MAX));
    }

    /// Makes the next synced commit fail and poison the store. What it wrote is not visible, but may survive a crash.
    pub fn fail_next_sync(&self) {
        self.state().fail_next_sync = true;
    }

    /// Returns how many batches a power cut would endanger.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// Returns a store of its own with what is synced now: an old copy of the data directory.
    #[must_use]
    pub fn clone_synced(&self) -> Self {
        let synced = self.state().synced.clone();
        Self(Arc::new(Mutex::new(State { live: synced.clone(), synced, ..State::default() })))
    }
}

impl Read for MemoryStore {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.state().live.get(keyspace, key)
    }

    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        self.state().live.scan(keyspace, span, order)
    }
}

impl Store for MemoryStore {
    fn snapshot(&self) -> Box<dyn Read> {
        Box::new(self.state().live.clone())
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        batch.check()?;
        let mut state = self.state();
        if state.poisoned {
            return Err(StoreError::Poisoned);
        }
        state.unsynced.push(batch.clone());
        if durability == Durability::Synced && state.fail_next_sync {
            state.fail_next_sync = false;
            state.poisoned = true;
            return Err(StoreError::Commit("sync failed as it was told to".into()));
        }
        state.live.apply(batch);
        match durability {
            Durability::Buffered => {}
            Durability::Synced => {
                let State { synced, unsynced, .. } = &mut *state;
                unsynced.drain(..).for_each(|batch| synced.apply(&batch));
            }
        }
        Ok(())
    }

    fn scrub(&self, _: &AtomicBool) -> Result<bool, StoreError> {
        // What is removed is nowhere, once it is synced.
        Ok(true)
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        let state = self.state();
        let measure = |keyspace: Keyspace| {
            let entries = state.live.0.get(&keyspace).map(|tree| tree.iter());
            let bytes = |(key, value): (&Bytes, &Bytes)| (key.len() + value.len()) as u64;
            let usage = KeyspaceUsage {
                entries: entries.clone().map_or(0, |entries| entries.len() as u64),
                disk_bytes: entries.map_or(0, |entries| entries.map(bytes).sum()),
            };
            (keyspace, usage)
        };
        let keyspaces: Vec<_> = Keyspace::ALL.into_iter().map(measure).collect();
        Ok(Usage {
            disk_bytes: keyspaces.iter().map(|(_, usage)| usage.disk_bytes).sum(),
            journal_bytes: 0,
            memtable_bytes: 0,
            keyspaces,
        })
    }

    fn health(&self) -> Health {
        if self.state().poisoned { Health::Poisoned } else { Health::Writable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    fn put(key: &str) -> Batch {
        let mut batch = Batch::new();
        batch.put(Keyspace::Ops, key.to_owned(), "v");
        batch.put(Keyspace::Heads, key.to_owned(), "v");
        batch
    }

    fn keys(store: &dyn Read) -> String {
        let keys = |keyspace| -> String {
            let entries = store.scan(keyspace, &Span::all(), Order::Ascending);
            entries.map(|entry| String::from_utf8(entry.unwrap().0.to_vec()).unwrap()).collect()
        };
        assert_eq!(keys(Keyspace::Ops), keys(Keyspace::Heads), "torn batch");
        keys(Keyspace::Ops)
    }

    #[test]
    fn passes_the_suite() {
        suite::run(|| Box::new(MemoryStore::new()));
    }

    #[test]
    fn a_crash_drops_what_is_not_synced_by_whole_batches() {
        for (survivors, expected) in [
            (Survivors::None, "ab"),
            (Survivors::Oldest(1), "abc"),
            (Survivors::Oldest(2), "abcd"),
            (Survivors::Oldest(9), "abcd"),
        ] {
            let store = MemoryStore::new();
            store.commit(&put("a"), Durability::Buffered).unwrap();
            store.commit(&put("b"), Durability::Synced).unwrap();
            store.commit(&put("c"), Durability::Buffered).unwrap();
            store.commit(&put("d"), Durability::Buffered).unwrap();
            assert_eq!((keys(&store).as_str(), store.unsynced()), ("abcd", 2));
            store.crash(survivors);
            assert_eq!(keys(&store), expected, "{survivors:?}");
            store.crash(Survivors::None);
            assert_eq!(keys(&store), expected, "what survived stays");
        }
    }

    #[test]
    fn a_failed_sync_poisons_and_its_batch_may_survive() {
        for (survivors, expected) in [(Survivors::None, "a"), (Survivors::Oldest(1), "ab")] {
            let store = MemoryStore::new();
            store.commit(&put("a"), Durability::Synced).unwrap();
            store.fail_next_sync();
            assert!(matches!(store.commit(&put("b"), Durability::Synced), Err(StoreError::Commit(_))));
            assert_eq!(store.health(), Health::Poisoned);
            assert!(matches!(store.commit(&put("c"), Durability::Buffered), Err(StoreError::Poisoned)));
            assert_eq!(keys(&store), "a", "reads go on, without the failed batch");
            store.crash(survivors);
            assert_eq!((keys(&store).as_str(), store.health()), (expected, Health::Writable));
            store.commit(&put("d"), Durability::Synced).unwrap();
        }
    }

    #[test]
    fn a_copy_is_old_and_its_own() {
        let store = MemoryStore::new();
        store.commit(&put("a"), Durability::Synced).unwrap();
        store.commit(&put("b"), Durability::Buffered).unwrap();
        let copy = store.clone_synced();
        store.commit(&put("c"), Durability::Synced).unwrap();
        copy.commit(&put("x"), Durability::Synced).unwrap();
        assert_eq!((keys(&store).as_str(), keys(&copy).as_str()), ("abc", "ax"));
    }
}
