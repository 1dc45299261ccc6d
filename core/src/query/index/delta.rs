//! Entries of documents that changed lately, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::definition::{ALWAYS, Keys};
use super::run::Entry;

/// What an entry takes beside its own bytes.
const OVERHEAD: usize = 96;

/// What has changed since the last run was written: what there is to know is in the feed of changes, this is only kept ready.
///
/// Entries that a document had before stay until then, for readers of an earlier moment.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// How far the feed of changes was read.
    pub(super) upto: u64,
    /// (entry, place in the feed) → length of its key.
    entries: BTreeMap<(Vec<u8>, u64), u16>,
    /// Where each document stands in the feed.
    latest: BTreeMap<String, u64>,
    bytes: usize,
    pub(super) is_multiple: bool,
    pub(super) has_always: bool,
}

impl Delta {
    pub(super) fn new(upto: u64) -> Self {
        Self { upto, ..Self::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in what a document has now; nothing, if it does not exist.
    pub(super) fn take(&mut self, doc: &str, feed: u64, keys: &Keys) {
        self.is_multiple |= keys.is_multiple;
        self.bytes += doc.len() + OVERHEAD;
        self.latest.insert(doc.to_owned(), feed);
        for key in &keys.keys {
            self.has_always |= key.first() == Some(&ALWAYS);
            let entry = Entry::new(key, doc, feed);
            self.bytes += entry.full.len() + OVERHEAD;
            self.entries.insert((entry.full, feed), entry.key_len);
        }
    }

    /// Returns the first entries from `from`, or behind `from`, before `before`, at most so many.
    pub(super) fn some(&self, from: &Bound<(Vec<u8>, u64)>, before: Option<&[u8]>, count: usize) -> Vec<Entry> {
        let range = self.entries.range((from.clone(), Bound::Unbounded));
        let range = range.take_while(|((full, _), _)| before.is_none_or(|before| **full < *before));
        range.take(count).map(|((full, feed), len)| Entry { full: full.clone(), feed: *feed, key_len: *len }).collect()
    }

    /// Returns the last entry from `from` and before `before`.
    pub(super) fn last(&self, from: &[u8], before: Option<&[u8]>) -> Option<Entry> {
        let before = before.map_or(Bound::Unbounded, |before| Bound::Excluded((before.to_vec(), 0)));
        let ((full, feed), len) = self.entries.range((Bound::Unbounded, before)).next_back()?;
        (**full >= *from).then(|| Entry { full: full.clone(), feed: *feed, key_len: *len })
    }

    /// Returns how many entries lie between, up to `most`.
    pub(super) fn count(&self, from: &[u8], before: Option<&[u8]>, most: usize) -> u64 {
        let range = self.entries.range((Bound::Included((from.to_vec(), 0)), Bound::Unbounded));
        range.take_while(|((full, _), _)| before.is_none_or(|before| **full < *before)).take(most).count() as u64
    }

    /// Returns the entries that are still so, in order.
    pub(super) fn live(&self) -> Vec<Entry> {
        let entry =
            |((full, feed), len): (&(Vec<u8>, u64), &u16)| Entry { full: full.clone(), feed: *feed, key_len: *len };
        let entries = self.entries.iter().map(entry);
        entries.filter(|entry| entry.doc().and_then(|doc| self.latest.get(doc)) == Some(&entry.feed)).collect()
    }

    /// Returns what is left of it when everything up to `upto` is in a run.
    pub(super) fn behind(&self, upto: u64) -> Self {
        let mut rest = Self {
            upto: self.upto.max(upto),
            is_multiple: self.is_multiple,
            has_always: self.has_always,
            ..Self::default()
        };
        for (doc, feed) in self.latest.iter().filter(|(_, feed)| **feed > upto) {
            rest.bytes += doc.len() + OVERHEAD;
            rest.latest.insert(doc.clone(), *feed);
        }
        for ((full, feed), len) in self.entries.iter().filter(|((_, feed), _)| *feed > upto) {
            rest.bytes += full.len() + OVERHEAD;
            rest.entries.insert((full.clone(), *feed), *len);
        }
        rest
    }
}
