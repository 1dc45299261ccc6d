//! Loaded documents, bounded in bytes, least recently used first out.

use std::collections::BTreeMap;

use super::load::Loaded;
use super::types::BatchId;
use crate::id::CollectionName;
use crate::store::keys::DocKey;

#[derive(Debug)]
struct Entry {
    key: DocKey,
    loaded: Loaded,
    bytes: usize,
    /// Until this batch is committed, the store does not have the document as it is here.
    busy: Option<BatchId>,
    /// Places of the entries that were used right before and right after this one.
    older: Option<usize>,
    newer: Option<usize>,
}

impl Entry {
    fn is_unstored(&self, committed: BatchId) -> bool {
        self.loaded.dirty || self.busy.is_some_and(|batch| batch > committed)
    }
}

/// The loaded documents of a replica.
///
/// A list through the entries keeps their order of use, so that using one costs no look-up beyond the first.
#[derive(Debug)]
pub(super) struct Cache {
    places: BTreeMap<DocKey, usize>,
    /// Boxed, so that the list grows without moving what it holds.
    entries: Vec<Option<Box<Entry>>>,
    free: Vec<usize>,
    oldest: Option<usize>,
    newest: Option<usize>,
    bytes: usize,
    bytes_max: usize,
    /// From how many changes on a document's history is long.
    long_history: usize,
}

impl Cache {
    pub(super) const fn new(bytes_max: usize, long_history: usize) -> Self {
        Self {
            places: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: None,
            newest: None,
            bytes: 0,
            bytes_max,
            long_history,
        }
    }

    /// Returns the document and marks it as used now.
    pub(super) fn get(&mut self, key: &DocKey) -> Option<&mut Loaded> {
        let place = self.place(key)?;
        if self.newest != Some(place) {
            self.unlink(place);
            self.link(place);
        }
        self.entry(place).map(|entry| &mut entry.loaded)
    }

    /// Finds an entry. Whoever asks for a document asks several times in a row, and searching is what costs.
    fn place(&self, key: &DocKey) -> Option<usize> {
        let newest = self
            .newest
            .filter(|place| self.entries.get(*place).and_then(Option::as_deref).is_some_and(|entry| entry.key == *key));
        newest.or_else(|| self.places.get(key).copied())
    }

    pub(super) fn insert(&mut self, key: DocKey, mut loaded: Loaded) {
        self.remove(&key);
        loaded.document.set_long_history(self.long_history);
        let bytes = loaded.document.memory_bytes();
        self.bytes += bytes;
        let entry = Box::new(Entry { key: key.clone(), loaded, bytes, busy: None, older: None, newer: None });
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.entries.push(None);
                self.entries.len() - 1
            }
        };
        if let Some(slot) = self.entries.get_mut(place) {
            *slot = Some(entry);
        }
        self.places.insert(key, place);
        self.link(place);
    }

    pub(super) fn remove(&mut self, key: &DocKey) -> Option<Loaded> {
        let place = self.places.remove(key)?;
        self.unlink(place);
        let entry = self.entries.get_mut(place)?.take()?;
        self.free.push(place);
        self.bytes -= entry.bytes;
        Some(entry.loaded)
    }

    fn entry(&mut self, place: usize) -> Option<&mut Entry> {
        self.entries.get_mut(place)?.as_deref_mut()
    }

    /// Takes an entry out of the order of use.
    fn unlink(&mut self, place: usize) {
        let Some(entry) = self.entry(place) else { return };
        let (older, newer) = (entry.older.take(), entry.newer.take());
        match older.and_then(|older| self.entry(older)) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match newer.and_then(|newer| self.entry(newer)) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    /// Puts an entry at the end of the order of use.
    fn link(&mut self, place: usize) {
        let before = self.newest.replace(place);
        if let Some(entry) = self.entry(place) {
            entry.older = before;
        }
        match before.and_then(|before| self.entry(before)) {
            Some(entry) => entry.newer = Some(place),
            None => self.oldest = Some(place),
        }
    }

    /// Says that the document changed and that `batch` carries the change to the store.
    pub(super) fn mark_busy(&mut self, key: &DocKey, batch: BatchId) {
        let Some(place) = self.place(key) else { return };
        let Some(entry) = self.entry(place) else { return };
        entry.busy = Some(batch);
        let before = std::mem::replace(&mut entry.bytes, entry.loaded.document.memory_bytes());
        let after = entry.bytes;
        self.bytes = self.bytes - before + after;
    }

    /// Drops documents until the bound holds again, never one that the store does not have as it is here.
    pub(super) fn evict(&mut self, committed: BatchId) {
        let mut next = self.oldest;
        while self.bytes > self.bytes_max
            && let Some(place) = next
            && let Some(entry) = self.entry(place)
        {
            next = entry.newer;
            if !entry.is_unstored(committed) {
                let key = entry.key.clone();
                self.remove(&key);
            }
        }
    }

    /// Whether the store does not have the document as it is here.
    pub(super) fn is_unstored(&self, key: &DocKey, committed: BatchId) -> bool {
        let entry = self.places.get(key).and_then(|place| self.entries.get(*place)).and_then(Option::as_deref);
        entry.is_some_and(|entry| entry.is_unstored(committed))
    }

    /// Returns the documents of a collection that the store does not have as they are here.
    pub(super) fn unstored_of(&self, collection: &CollectionName, committed: BatchId) -> Vec<DocKey> {
        let entries = self.entries.iter().filter_map(Option::as_deref);
        let of = entries.filter(|entry| entry.key.collection == *collection && entry.is_unstored(committed));
        of.map(|entry| entry.key.clone()).collect()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> DocKey {
        DocKey { collection: "c".parse().unwrap(), doc: format!("d{n}").parse().unwrap() }
    }

    /// The order of use, told from both ends.
    fn order(cache: &mut Cache) -> Vec<DocKey> {
        let mut keys = Vec::new();
        let mut next = cache.oldest;
        while let Some(entry) = next.and_then(|place| cache.entry(place)) {
            keys.push(entry.key.clone());
            next = entry.newer;
        }
        let mut back = Vec::new();
        let mut next = cache.newest;
        while let Some(entry) = next.and_then(|place| cache.entry(place)) {
            back.push(entry.key.clone());
            next = entry.older;
        }
        back.reverse();
        assert_eq!(keys, back);
        assert_eq!(keys.len(), cache.len());
        keys
    }

    #[test]
    fn the_longest_unused_goes_first_unless_the_store_lacks_it() {
        let mut cache = Cache::new(usize::MAX, usize::MAX);
        for n in 0..6 {
            cache.insert(key(n), Loaded::empty());
        }
        assert!(cache.get(&key(1)).is_some() && cache.get(&key(0)).is_some());
        assert!(cache.remove(&key(4)).is_some() && cache.remove(&key(4)).is_none());
        cache.insert(key(7), Loaded::empty());
        assert_eq!(order(&mut cache), [2, 3, 5, 1, 0, 7].map(key));
        cache.mark_busy(&key(3), BatchId(8));
        cache.get(&key(5)).unwrap().dirty = true;
        // That was a use as well.
        assert_eq!(order(&mut cache), [2, 3, 1, 0, 7, 5].map(key));
        let one = cache.bytes() / cache.len();
        cache.bytes_max = 3 * one;
        cache.evict(BatchId(7));
        assert_eq!(order(&mut cache), [3, 7, 5].map(key));
        cache.bytes_max = 0;
        cache.evict(BatchId(7));
        assert_eq!(order(&mut cache), [3, 5].map(key));
        cache.evict(BatchId(8));
        assert_eq!(order(&mut cache), [key(5)]);
        assert_eq!(cache.bytes(), one);
        // A document made anew takes the place of the old one.
        cache.insert(key(5), Loaded::empty());
        assert_eq!((order(&mut cache), cache.bytes()), (vec![key(5)], one));
    }
}
