//! Encryption at rest: a [`Store`] around a store, which seals every value on its way in and opens it on its way out.
//!
//! The master key, which lies elsewhere, seals the [`Keyring`]: the node's data key and a key of each collection. Each document has
//! a key of its own, wrapped under its collection's in the keyspace `keys`, made in the batch of its first value. What a document
//! says (tail, snapshots, views, bodies of ops) is sealed under its key, everything else under the data key; so a document is gone
//! when its key is. Keys of entries are not sealed: names of collections and ids of documents can be seen.
//!
//! Invariant: a batch that holds a value under a new key holds that key, wrapped, too; a collection's key is on the disk before.
//! Invariant: only a commit writes to the keyspace `keys`, so a key that was deleted does not come back by a rotation.

mod cache;
mod cipher;
mod keyring;
mod value;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Batch, Durability, EngineError, Entries, Health, Keyspace, Order, Read, Span, Store, StoreError, Usage};
use crate::entropy::Entropy;
use cache::KeyCache;
pub use cipher::{KEY_BYTES, SealKey};
pub use keyring::{KEYRING_BYTES_MAX, Keyring, KeyringError, KeyringHome, MemoryHome};
use value::{DataKey, Entry, Kind};

/// Names a store's keyring: random bytes.
pub type StoreId = [u8; 16];

/// Documents' keys that are wrapped again with one commit: half a millisecond.
const REWRAPPED_PER_COMMIT: usize = 256;

/// What a sealed store has done and is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SealFigures {
    /// Collections that have a key.
    pub collections: u64,
    /// Keys of documents, roughly.
    pub documents: u64,
    /// Whether keys of documents are being wrapped again, under new epochs of their collections.
    pub rotating: bool,
    /// How many have been looked at since the rotation began, or since the start.
    pub rewrapped: u64,
    /// Rotations that were ended since the start.
    pub rotations: u64,
}

/// A [`Store`] whose values are sealed on the disk. A clone is a handle to the same store.
#[derive(Clone)]
pub struct SealedStore {
    inner: Arc<dyn Store>,
    secrets: Arc<Secrets>,
}

struct Secrets {
    data: DataKey,
    keyring: Mutex<Keyring>,
    home: Box<dyn KeyringHome>,
    cache: Mutex<KeyCache>,
    entropy: Mutex<Entropy>,
    /// While keys are being wrapped again: the last document that was looked at.
    rewrap: Mutex<Option<Vec<u8>>>,
    rotating: AtomicBool,
    poisoned: AtomicBool,
    rewrapped: AtomicU64,
    rotations: AtomicU64,
}

impl std::fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedStore").finish_non_exhaustive()
    }
}

/// What these mutexes guard is whole between any two statements, so a panic elsewhere does not damage it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Secrets {
    /// Looks up a document's key, at the time of `read`, which was begun when `deleted` keys had been deleted.
    fn key_of(&self, read: &dyn Read, deleted: u64, document: &[u8]) -> Result<Option<SealKey>, StoreError> {
        if let Some(key) = lock(&self.cache).get(document) {
            return Ok(Some(key));
        }
        let Some(wrapped) = read.get(Keyspace::Keys, document)? else { return Ok(None) };
        let key = value::unwrap(&lock(&self.keyring), document, &wrapped).ok_or_else(|| StoreError::Damaged {
            keyspace: Keyspace::Keys,
            source: "a document's key does not open with its collection's".into(),
        })?;
        lock(&self.cache).insert_read(document, &key, deleted);
        Ok(Some(key))
    }

    fn deleted(&self) -> u64 {
        lock(&self.cache).deleted()
    }

    fn open(&self, read: &dyn Read, deleted: u64, entry: Entry<'_>, value: Bytes) -> Result<Bytes, StoreError> {
        entry.open(&self.data, value, &mut |document| self.key_of(read, deleted, document))
    }

    fn scan(self: &Arc<Self>, read: Arc<dyn Read>, deleted: u64, of: Keyspace, span: &Span, order: Order) -> Entries {
        let secrets = self.clone();
        let mut failed = false;
        Box::new(read.scan(of, span, order).map_while(move |entry| {
            if failed {
                return None;
            }
            let opened = entry.and_then(|(key, value)| {
                let value = secrets.open(&*read, deleted, Entry { keyspace: of, key: &key }, value)?;
                Ok((key, value))
            });
            failed = opened.is_err();
            Some(opened)
        }))
    }
}

impl SealedStore {
    /// Puts a store behind a keyring. `home` is where the keyring is kept when collections are added to it; `seed` is 32 fresh
    /// random bytes.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, keyring: Keyring, home: Box<dyn KeyringHome>, seed: &[u8; 32]) -> Self {
        let data = DataKey { store: *keyring.store(), key: keyring.data().clone() };
        let rewrap = keyring.is_rotating().then(Vec::new);
        Self {
            inner,
            secrets: Arc::new(Secrets {
                data,
                keyring: Mutex::new(keyring),
                home,
                cache: Mutex::default(),
                entropy: Mutex::new(Entropy::new(seed)),
                rotating: AtomicBool::new(rewrap.is_some()),
                rewrap: Mutex::new(rewrap),
                poisoned: AtomicBool::new(false),
                rewrapped: AtomicU64::new(0),
                rotations: AtomicU64::new(0),
            }),
        }
    }

    /// Begins a new epoch of every collection. From then on each commit wraps some keys again, until none is left under an older
    /// epoch and those are forgotten; [`Self::figures`] tell how far that is.
    ///
    /// # Errors
    /// That of the keyring's home; then nothing has changed.
    pub fn rotate(&self) -> Result<(), EngineError> {
        let mut rewrap = lock(&self.secrets.rewrap);
        let mut keyring = lock(&self.secrets.keyring);
        let mut next = keyring.clone();
        let names: Vec<String> = keyring.epochs().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            next.begin_epoch(&name, SealKey::new(lock(&self.secrets.entropy).bytes()));
        }
        self.secrets.home.save(&next)?;
        *keyring = next;
        self.secrets.rewrapped.store(0, Ordering::Relaxed);
        *rewrap = keyring.is_rotating().then(Vec::new);
        self.secrets.rotating.store(rewrap.is_some(), Ordering::Relaxed);
        Ok(())
    }

    /// Runs something with the keyring as it is now, which does not change meanwhile: for its home, when the master key does.
    pub fn with_keyring<T>(&self, run: impl FnOnce(&Keyring) -> T) -> T {
        run(&lock(&self.secrets.keyring))
    }

    /// Whether keys of documents are being wrapped again, with each commit.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.secrets.rotating.load(Ordering::Relaxed)
    }

    /// How many of them have been looked at since that began, or since the start.
    #[must_use]
    pub fn rewrapped(&self) -> u64 {
        self.secrets.rewrapped.load(Ordering::Relaxed)
    }

    /// Returns what was done.
    #[must_use]
    pub fn figures(&self) -> SealFigures {
        let documents = self.inner.usage().ok().and_then(|usage| {
            usage.keyspaces.iter().find(|(keyspace, _)| *keyspace == Keyspace::Keys).map(|(_, usage)| usage.entries)
        });
        SealFigures {
            collections: lock(&self.secrets.keyring).epochs().count() as u64,
            documents: documents.unwrap_or_default(),
            rotating: self.is_rotating(),
            rewrapped: self.rewrapped(),
            rotations: self.secrets.rotations.load(Ordering::Relaxed),
        }
    }

    fn sealing<'a>(&'a self, batch: &'a Batch) -> Sealing<'a> {
        let deleted = batch.writes().filter(|(keyspace, _, value)| *keyspace == Keyspace::Keys && value.is_none());
        Sealing {
            store: self,
            out: Batch::new(),
            made: BTreeMap::new(),
            deleted: deleted.map(|(_, key, _)| key).collect(),
        }
    }
}

/// A batch that is being sealed.
struct Sealing<'a> {
    store: &'a SealedStore,
    out: Batch,
    /// Keys of documents that have none yet.
    made: BTreeMap<Box<[u8]>, SealKey>,
    /// Documents whose keys the batch deletes.
    deleted: Vec<&'a Bytes>,
}

impl Sealing<'_> {
    fn seal(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let secrets = self.store.secrets.clone();
        let mut nonce = || lock(&secrets.entropy).bytes();
        self.out = batch.with_values(|keyspace, key, value| {
            Entry { keyspace, key }.seal(&secrets.data, value, &mut nonce, &mut |document| self.key_for(document))
        })?;
        for (document, key) in std::mem::take(&mut self.made) {
            self.wrap(&document, &key)?;
            self.made.insert(document, key);
        }
        Ok(())
    }

    /// Returns the key of a document, a new one if it has none.
    fn key_for(&mut self, document: &[u8]) -> Result<SealKey, StoreError> {
        if let Some(key) = self.made.get(document) {
            return Ok(key.clone());
        }
        let secrets = &self.store.secrets;
        if !self.deleted.iter().any(|deleted| ***deleted == *document)
            && let Some(key) = secrets.key_of(&*self.store.inner, secrets.deleted(), document)?
        {
            return Ok(key);
        }
        let key = SealKey::new(lock(&secrets.entropy).bytes());
        self.made.insert(document.into(), key.clone());
        Ok(key)
    }

    /// Adds a document's wrapped key to the batch, and a key of its collection to the keyring if that is new.
    fn wrap(&mut self, document: &[u8], key: &SealKey) -> Result<u32, StoreError> {
        let secrets = &self.store.secrets;
        let mut keyring = lock(&secrets.keyring);
        let collection = value::collection_of(document).unwrap_or_default();
        if keyring.newest(collection).is_none() {
            let mut next = keyring.clone();
            next.begin_epoch(collection, SealKey::new(lock(&secrets.entropy).bytes()));
            secrets.home.save(&next).map_err(StoreError::Commit)?;
            *keyring = next;
        }
        let nonce = lock(&secrets.entropy).bytes();
        let (epoch, wrapped) = value::wrap(&keyring, document, key, nonce)
            .ok_or_else(|| StoreError::Commit("a document's key has no collection".into()))?;
        self.out.put(Keyspace::Keys, document.to_vec(), wrapped);
        Ok(epoch)
    }

    /// Wraps some keys of older epochs again. Returns the last one that was looked at, if the end was not reached.
    fn rewrap(&mut self, after: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let secrets = self.store.secrets.clone();
        let span = if after.is_empty() { Span::all() } else { Span::all().after(after) };
        let mut last = None;
        let entries = self.store.inner.scan(Keyspace::Keys, &span, Order::Ascending);
        for entry in entries.take(REWRAPPED_PER_COMMIT) {
            let (document, wrapped) = entry?;
            secrets.rewrapped.fetch_add(1, Ordering::Relaxed);
            last = Some(document.to_vec());
            let is_written = self.made.contains_key(&document[..]) || self.deleted.iter().any(|key| **key == document);
            let (is_old, key) = {
                let keyring = lock(&secrets.keyring);
                let newest =
                    value::collection_of(&document).and_then(|name| keyring.newest(name)).map(|(epoch, _)| epoch);
                (newest != value::epoch_of(&wrapped), value::unwrap(&keyring, &document, &wrapped))
            };
            // One that does not open any more is told by whoever needs it.
            if let Some(key) = key.filter(|_| is_old && !is_written) {
                self.wrap(&document, &key)?;
            }
        }
        Ok(last)
    }
}

impl Read for SealedStore {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if Kind::of(keyspace, key) == Kind::Bare {
            return self.inner.get(keyspace, key);
        }
        let deleted = self.secrets.deleted();
        // Of one moment with the key: between two reads a document may be erased.
        let read = self.inner.snapshot();
        let Some(value) = read.get(keyspace, key)? else { return Ok(None) };
        self.secrets.open(&*read, deleted, Entry { keyspace, key }, value).map(Some)
    }

    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        let deleted = self.secrets.deleted();
        self.secrets.scan(Arc::from(self.inner.snapshot()), deleted, keyspace, span, order)
    }
}

struct SealedSnapshot {
    read: Arc<dyn Read>,
    deleted: u64,
    secrets: Arc<Secrets>,
}

impl Read for SealedSnapshot {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(value) = self.read.get(keyspace, key)? else { return Ok(None) };
        self.secrets.open(&*self.read, self.deleted, Entry { keyspace, key }, value).map(Some)
    }

    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        self.secrets.scan(self.read.clone(), self.deleted, keyspace, span, order)
    }
}

impl Store for SealedStore {
    fn snapshot(&self) -> Box<dyn Read> {
        let deleted = self.secrets.deleted();
        Box::new(SealedSnapshot { read: Arc::from(self.inner.snapshot()), deleted, secrets: self.secrets.clone() })
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        batch.check()?;
        if self.health() == Health::Poisoned {
            return Err(StoreError::Poisoned);
        }
        // What it guards is what a rotation begins with; no other commit runs meanwhile.
        let mut rewrap = lock(&self.secrets.rewrap);
        let mut sealing = self.sealing(batch);
        let outcome = sealing.seal(batch).and_then(|()| {
            let reached = rewrap.as_ref().map(|after| sealing.rewrap(after)).transpose()?;
            self.inner.commit(&sealing.out, durability)?;
            Ok(reached)
        });
        let reached = outcome.inspect_err(|error| {
            if !matches!(error, StoreError::TooLong { .. }) {
                self.secrets.poisoned.store(true, Ordering::Release);
            }
        })?;
        let Sealing { made, deleted, .. } = sealing;
        lock(&self.secrets.cache).note_commit(made, deleted);
        match reached {
            None => {}
            Some(Some(last)) => *rewrap = Some(last),
            // The last ones must be on the disk before what they were wrapped under is forgotten.
            Some(None) if durability == Durability::Synced => {
                let mut keyring = lock(&self.secrets.keyring);
                let mut next = keyring.clone();
                next.retire();
                // If it cannot be written down now, the next commit tries again.
                if self.secrets.home.save(&next).is_ok() {
                    *keyring = next;
                    *rewrap = None;
                    self.secrets.rotating.store(false, Ordering::Relaxed);
                    self.secrets.rotations.fetch_add(1, Ordering::Relaxed);
                }
            }
            Some(None) => {}
        }
        Ok(())
    }

    fn scrub(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        self.inner.scrub(stop)
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage()
    }

    fn health(&self) -> Health {
        if self.secrets.poisoned.load(Ordering::Acquire) { Health::Poisoned } else { self.inner.health() }
    }
}

/// Opens values of a store that the engine does not open any more.
#[derive(Clone, Debug)]
pub struct Opener {
    data: DataKey,
    keyring: Keyring,
}

impl Opener {
    /// Returns what opens the values of the keyring's store.
    #[must_use]
    pub fn new(keyring: Keyring) -> Self {
        Self { data: DataKey { store: *keyring.store(), key: keyring.data().clone() }, keyring }
    }

    /// Opens a value; none if it is not what was sealed. `wrapped` finds the wrapped key of a document.
    pub(super) fn open(
        &self,
        keyspace: Keyspace,
        key: &[u8],
        value: Bytes,
        wrapped: &dyn Fn(&[u8]) -> Option<Bytes>,
    ) -> Option<Bytes> {
        let mut key_of = |document: &[u8]| {
            Ok(wrapped(document).and_then(|wrapped| value::unwrap(&self.keyring, document, &wrapped)))
        };
        Entry { keyspace, key }.open(&self.data, value, &mut key_of).ok()
    }
}

#[cfg(test)]
mod tests;
