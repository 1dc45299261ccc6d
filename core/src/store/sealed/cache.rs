//! Documents' keys that were used last, unwrapped.
#![expect(clippy::disallowed_types, reason = "only looked up, never gone through: the order shows nowhere")]

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::cipher::SealKey;

/// Keys in each of the two generations: some megabytes.
const GENERATION_MAX: usize = 16_384;

/// Keys by their documents, in two generations: when the young one is full it becomes the old one, and the old one is dropped.
#[derive(Default)]
pub(super) struct KeyCache {
    young: HashMap<Box<[u8]>, SealKey>,
    old: HashMap<Box<[u8]>, SealKey>,
    /// How many keys were deleted: what was read before a deletion may not be kept after it.
    deleted: u64,
}

impl KeyCache {
    pub(super) fn get(&mut self, document: &[u8]) -> Option<SealKey> {
        if let Some(key) = self.young.get(document) {
            return Some(key.clone());
        }
        let (document, key) = self.old.remove_entry(document)?;
        self.insert(document, key.clone());
        Some(key)
    }

    fn insert(&mut self, document: Box<[u8]>, key: SealKey) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(document, key);
    }

    pub(super) const fn deleted(&self) -> u64 {
        self.deleted
    }

    /// Keeps a key that was read when so many had been deleted.
    pub(super) fn insert_read(&mut self, document: &[u8], key: &SealKey, deleted: u64) {
        if self.deleted == deleted {
            self.insert(document.into(), key.clone());
        }
    }

    /// Keeps what a commit has made and forgets what it has deleted.
    pub(super) fn note_commit(&mut self, made: BTreeMap<Box<[u8]>, SealKey>, deleted: Vec<&Bytes>) {
        for document in deleted {
            self.deleted += 1;
            self.young.remove(&document[..]);
            self.old.remove(&document[..]);
        }
        for (document, key) in made {
            self.insert(document, key);
        }
    }
}
