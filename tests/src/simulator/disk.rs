//! The disk of a simulated node: a store in memory, in some worlds sealed.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use folkmoot_core::store::sealed::{Keyring, MemoryHome, SealKey, SealedStore};
use folkmoot_core::store::{
    Batch, Durability, Entries, Health, Keyspace, MemoryStore, Order, Read, Span, Store, StoreError, Survivors, Usage,
};

use super::random::Random;

/// A store that a node has at its disk.
pub struct Disk {
    memory: MemoryStore,
    sealing: Option<Sealing>,
}

/// The keyring, which lies beside the store and is on the disk whenever it was saved.
struct Sealing {
    home: MemoryHome,
    opened: Mutex<Opened>,
}

struct Opened {
    store: SealedStore,
    /// Makes each opening draw other random bytes.
    seed: [u8; 32],
}

impl Sealing {
    fn new(memory: &MemoryStore, home: MemoryHome, seed: [u8; 32]) -> Self {
        let store = SealedStore::new(Arc::new(memory.clone()), home.keyring(), Box::new(home.clone()), &seed);
        Self { home, opened: Mutex::new(Opened { store, seed }) }
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was in memory only.
    fn reopen(&self, memory: &MemoryStore) {
        let mut opened = self.opened();
        opened.seed = next_seed(opened.seed);
        *opened = Self::new(memory, self.home.clone(), opened.seed)
            .opened
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
    }
}

fn next_seed(mut seed: [u8; 32]) -> [u8; 32] {
    for byte in &mut seed {
        let (next, carries) = byte.overflowing_add(1);
        *byte = next;
        if !carries {
            break;
        }
    }
    seed
}

impl Disk {
    /// Returns an empty disk.
    pub fn new(is_sealed: bool, random: &mut Random) -> Self {
        let memory = MemoryStore::new();
        let sealing = is_sealed.then(|| {
            let keyring = Keyring::new([7; 16], SealKey::new(random.seed()));
            Sealing::new(&memory, MemoryHome::new(keyring), random.seed())
        });
        Self { memory, sealing }
    }

    fn with<T>(&self, run: impl FnOnce(&dyn Store) -> T) -> T {
        match &self.sealing {
            None => run(&self.memory),
            Some(sealing) => {
                let store = sealing.opened().store.clone();
                run(&store)
            }
        }
    }

    /// See [`MemoryStore::crash`].
    pub(super) fn crash(&self, survivors: Survivors) {
        self.memory.crash(survivors);
        if let Some(sealing) = &self.sealing {
            sealing.reopen(&self.memory);
        }
    }

    /// See [`MemoryStore::fail_next_sync`].
    pub(super) fn fail_next_sync(&self) {
        self.memory.fail_next_sync();
    }

    /// Returns a copy of what is on the disk, with the keyring of now: it only ever gains keys, but for a rotation.
    pub(super) fn clone_synced(&self) -> Self {
        let memory = self.memory.clone_synced();
        let sealing = self.sealing.as_ref().map(|sealing| {
            let mut opened = sealing.opened();
            opened.seed = next_seed(opened.seed);
            // Another one than the next of this disk.
            let mut seed = opened.seed;
            seed.reverse();
            Sealing::new(&memory, MemoryHome::new(sealing.home.keyring()), seed)
        });
        Self { memory, sealing }
    }

    /// Wraps the keys of all documents again, with the commits to come.
    pub(super) fn rotate(&self) {
        if let Some(sealing) = &self.sealing {
            sealing.opened().store.rotate().expect("a home in memory saves");
        }
    }
}

impl Read for Disk {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with(|store| store.get(keyspace, key))
    }

    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        self.with(|store| store.scan(keyspace, span, order))
    }
}

impl Store for Disk {
    fn snapshot(&self) -> Box<dyn Read> {
        self.with(|store| store.snapshot())
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.with(|store| store.commit(batch, durability))
    }

    fn scrub(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        self.with(|store| store.scrub(stop))
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        self.with(|store| store.usage())
    }

    fn health(&self) -> Health {
        self.with(|store| store.health())
    }
}
