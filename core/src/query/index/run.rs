//! Sorted runs of entries, in blocks.
//!
//! A run never changes. Its entries lie in blocks of some kilobytes, values of the store that are sealed like others; the first entry
//! of each block is kept in memory. Keys of the store say nothing of what is in the documents.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::op::codec;
use crate::replica::ReadError;
use crate::store::{Keyspace, Read, VALUE_BYTES_MAX, envelope};

/// One entry: a document has this key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::query) struct Entry {
    /// The key and the document's id behind it. Of two keys none is the beginning of the other, so this sorts by key, then by id.
    pub(super) full: Vec<u8>,
    /// Where the document stood in the feed of changes when it had this key. It has it still if it stands there.
    pub(in crate::query) feed: u64,
    /// Bytes of `full` that are the key.
    pub(super) key_len: u16,
}

impl Entry {
    pub(super) fn new(key: &[u8], doc: &str, feed: u64) -> Self {
        // Keys are bounded by the places of an index and the bytes by which values are sorted.
        let key_len = u16::try_from(key.len()).unwrap_or(u16::MAX);
        Self { full: [key, doc.as_bytes()].concat(), feed, key_len }
    }

    pub(in crate::query) fn key(&self) -> &[u8] {
        self.full.get(..usize::from(self.key_len)).unwrap_or(&self.full)
    }

    pub(in crate::query) fn doc(&self) -> Option<&str> {
        std::str::from_utf8(self.full.get(usize::from(self.key_len)..)?).ok()
    }
}

fn damaged(what: &'static str) -> ReadError {
    ReadError::Damaged { keyspace: Keyspace::Index, what: what.to_owned() }
}

/// Encodes a block: of each entry how many bytes it shares with the one before, and the others.
fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.iter().map(|entry| entry.full.len() + 16).sum());
    let mut before: &[u8] = &[];
    for entry in entries {
        let shared = before.iter().zip(&entry.full).take_while(|(a, b)| a == b).count().min(usize::from(u16::MAX));
        let rest = entry.full.get(shared..).unwrap_or_default();
        out.extend(u16::try_from(shared).unwrap_or_default().to_le_bytes());
        out.extend(u16::try_from(rest.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(entry.key_len.to_le_bytes());
        out.extend(entry.feed.to_le_bytes());
        out.extend(rest);
        before = &entry.full;
    }
    out
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Entry>> {
    fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*first)
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(128);
    while !bytes.is_empty() {
        let shared = usize::from(u16::from_le_bytes(number(&mut bytes)?));
        let len = usize::from(u16::from_le_bytes(number(&mut bytes)?));
        let key_len = u16::from_le_bytes(number(&mut bytes)?);
        let feed = u64::from_le_bytes(number(&mut bytes)?);
        let (rest, others) = bytes.split_at_checked(len)?;
        bytes = others;
        let before = entries.last().map_or(&[][..], |entry| &entry.full);
        let full = [before.get(..shared)?, rest].concat();
        if usize::from(key_len) > full.len() {
            return None;
        }
        entries.push(Entry { full, feed, key_len });
    }
    Some(entries)
}

/// What is kept of a run beside its blocks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RunRecord {
    /// Its number.
    pub(super) id: u64,
    /// How often its entries were merged.
    pub(super) level: u8,
    /// Entries.
    pub(super) entries: u64,
    /// Bytes of its blocks.
    pub(super) bytes: u64,
    /// Whether a document has several of them.
    pub(super) is_multiple: bool,
    /// Whether there are documents with too many.
    pub(super) has_always: bool,
}

/// A run that can be read.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) record: RunRecord,
    /// The first entry of each block.
    pub(super) fences: Vec<Box<[u8]>>,
    prefix: Arc<[u8]>,
}

const FENCES: u8 = 1;
const BLOCK: u8 = 2;

/// Returns what the keys of the runs of an index begin with.
fn part_key(prefix: &[u8], part: u8, run: u64) -> Vec<u8> {
    [prefix, &[part], &run.to_be_bytes()].concat()
}

/// Returns what the keys of a run's blocks begin with.
pub(super) fn blocks_prefix(prefix: &[u8], run: u64) -> Vec<u8> {
    part_key(prefix, BLOCK, run)
}

/// Returns the key of a run's fences.
pub(super) fn fences_key(prefix: &[u8], run: u64) -> Vec<u8> {
    part_key(prefix, FENCES, run)
}

/// Returns the number of the run that a key belongs to.
pub(super) fn run_of_key(prefix: &[u8], key: &[u8]) -> Option<u64> {
    let (part, rest) = key.strip_prefix(prefix)?.split_first()?;
    matches!(*part, FENCES | BLOCK).then_some(())?;
    Some(u64::from_be_bytes(*rest.first_chunk()?))
}

impl Run {
    /// Reads what is kept in memory of a run.
    pub(super) fn open(store: &dyn Read, prefix: &Arc<[u8]>, record: RunRecord) -> Result<Self, ReadError> {
        let value =
            store.get(Keyspace::Index, &fences_key(prefix, record.id))?.ok_or(damaged("a run has no fences"))?;
        let value = envelope::open(value).map_err(|_| damaged("fences of a run"))?;
        let fences: Vec<serde_bytes::ByteBuf> =
            codec::decode(&value, VALUE_BYTES_MAX).map_err(|_| damaged("fences of a run"))?;
        let fences = fences.into_iter().map(|fence| fence.into_vec().into_boxed_slice()).collect();
        Ok(Self { record, fences, prefix: prefix.clone() })
    }

    /// Bytes that it takes in memory.
    pub(super) fn held(&self) -> usize {
        self.fences.iter().map(|fence| fence.len() + 16).sum()
    }

    /// Reads a block.
    pub(super) fn block(&self, store: &dyn Read, number: usize) -> Result<Vec<Entry>, ReadError> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let key = [&blocks_prefix(&self.prefix, self.record.id)[..], &number.to_be_bytes()].concat();
        let value = store.get(Keyspace::Index, &key)?.ok_or(damaged("a run has no such block"))?;
        let value = envelope::open(value).map_err(|_| damaged("block of a run"))?;
        decode(&value).ok_or(damaged("block of a run"))
    }

    /// Returns the number of the block in which the first entry lies that is not before `from`, if it is in the run.
    pub(super) fn block_at(&self, from: &[u8]) -> usize {
        self.fences.partition_point(|fence| **fence <= *from).saturating_sub(1)
    }

    /// Returns the numbers of the blocks that hold what lies between.
    pub(super) fn blocks(&self, from: &[u8], before: Option<&[u8]>) -> Range<usize> {
        let last = before.map_or(self.fences.len(), |before| self.fences.partition_point(|fence| **fence < *before));
        self.block_at(from)..last
    }

    /// Returns about how many entries so many blocks hold, of which those at the ends are not wholly meant.
    pub(super) fn estimate(&self, blocks: usize) -> u64 {
        if blocks == self.fences.len() {
            return self.record.entries;
        }
        let per_block = self.record.entries / (self.fences.len().max(1) as u64);
        (blocks as u64).saturating_sub(1) * per_block
    }
}

/// A value that is to be written, behind its key.
type Write = (Vec<u8>, Bytes);

/// Makes the blocks of a run of entries that come in order.
pub(super) struct RunBuilder {
    prefix: Arc<[u8]>,
    record: RunRecord,
    fences: Vec<Box<[u8]>>,
    block: Vec<Entry>,
    block_bytes: usize,
    /// A block ends beyond this.
    block_bytes_max: usize,
}

impl RunBuilder {
    pub(super) fn new(prefix: Arc<[u8]>, id: u64, level: u8, block_bytes_max: usize) -> Self {
        let record = RunRecord { id, level, entries: 0, bytes: 0, is_multiple: false, has_always: false };
        Self { prefix, record, fences: Vec::new(), block: Vec::new(), block_bytes: 0, block_bytes_max }
    }

    /// Says what is known of the documents in it.
    pub(super) fn note(&mut self, is_multiple: bool, has_always: bool) {
        self.record.is_multiple |= is_multiple;
        self.record.has_always |= has_always;
    }

    /// Adds an entry; returns a block that is full, with its key.
    pub(super) fn push(&mut self, entry: Entry) -> Option<Write> {
        if self.block.is_empty() {
            self.fences.push(entry.full.clone().into_boxed_slice());
        }
        self.record.entries += 1;
        self.block_bytes += entry.full.len() + 16;
        self.block.push(entry);
        if self.block_bytes >= self.block_bytes_max { self.end_block() } else { None }
    }

    fn end_block(&mut self) -> Option<Write> {
        if self.block.is_empty() {
            return None;
        }
        let number = u32::try_from(self.fences.len() - 1).unwrap_or(u32::MAX);
        let value = envelope::enclose(&encode(&self.block));
        self.record.bytes += value.len() as u64;
        self.block.clear();
        self.block_bytes = 0;
        Some(([&blocks_prefix(&self.prefix, self.record.id)[..], &number.to_be_bytes()].concat(), value))
    }

    /// Ends the run; returns it and what is still to be written. None of nothing.
    pub(super) fn finish(mut self) -> Option<(Run, Vec<Write>)> {
        let mut writes: Vec<_> = self.end_block().into_iter().collect();
        if self.record.entries == 0 {
            return None;
        }
        let fences: Vec<&serde_bytes::Bytes> = self.fences.iter().map(|fence| serde_bytes::Bytes::new(fence)).collect();
        let fences = envelope::enclose(&codec::encode(&fences));
        writes.push((fences_key(&self.prefix, self.record.id), fences));
        Some((Run { record: self.record, fences: self.fences, prefix: self.prefix }, writes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_read_as_they_were_written(keys in prop::collection::btree_set(("[a-c]{0,5}", "[a-c]{1,3}"), 0..50)) {
            let mut entries: Vec<_> = keys.iter().zip(1..).map(|((key, doc), n)| Entry::new(key.as_bytes(), doc, n)).collect();
            entries.sort();
            prop_assert_eq!(decode(&encode(&entries)), Some(entries));
        }

        #[test]
        fn rubbish_is_no_block_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
