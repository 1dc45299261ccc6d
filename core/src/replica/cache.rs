//! Loaded documents, bounded in bytes, least recently used first out.

use std::collections::BTreeMap;

use super::load::Loaded;
use super::types::BatchId;
use crate::store::keys::DocKey;

#[derive(Debug)]
struct Entry {
    loaded: Loaded,
    used: u64,
    bytes: usize,
    /// Until this batch is committed, the store does not have the document as it is here.
    busy: Option<BatchId>,
}

/// The loaded documents of a replica.
#[derive(Debug)]
pub(super) struct Cache {
    entries: BTreeMap<DocKey, Entry>,
    by_use: BTreeMap<u64, DocKey>,
    clock: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { entries: BTreeMap::new(), by_use: BTreeMap::new(), clock: 0, bytes: 0, bytes_max }
    }

    pub(super) fn contains(&self, key: &DocKey) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns the document and marks it as used now.
    pub(super) fn get(&mut self, key: &DocKey) -> Option<&mut Loaded> {
        let entry = self.entries.get_mut(key)?;
        self.by_use.remove(&entry.used);
        self.clock += 1;
        entry.used = self.clock;
        self.by_use.insert(self.clock, key.clone());
        Some(&mut entry.loaded)
    }

    pub(super) fn insert(&mut self, key: DocKey, loaded: Loaded) {
        self.remove(&key);
        self.clock += 1;
        let bytes = loaded.document.memory_bytes();
        self.bytes += bytes;
        self.by_use.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { loaded, used: self.clock, bytes, busy: None });
    }

    pub(super) fn remove(&mut self, key: &DocKey) -> Option<Loaded> {
        let entry = self.entries.remove(key)?;
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry.loaded)
    }

    /// Says that the document changed and that `batch` carries the change to the store.
    pub(super) fn mark_busy(&mut self, key: &DocKey, batch: BatchId) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.busy = Some(batch);
            let bytes = entry.loaded.document.memory_bytes();
            self.bytes = self.bytes - entry.bytes + bytes;
            entry.bytes = bytes;
        }
    }

    /// Drops documents until the bound holds again, never one that the store does not have as it is here.
    pub(super) fn evict(&mut self, committed: BatchId) {
        if self.bytes <= self.bytes_max {
            return;
        }
        let mut kept = Vec::new();
        while self.bytes > self.bytes_max {
            let Some((used, key)) = self.by_use.pop_first() else { break };
            let Some(entry) = self.entries.get(&key) else { continue };
            if entry.loaded.dirty || entry.busy.is_some_and(|batch| batch > committed) {
                kept.push((used, key));
            } else if let Some(entry) = self.entries.remove(&key) {
                self.bytes -= entry.bytes;
            }
        }
        self.by_use.extend(kept);
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
