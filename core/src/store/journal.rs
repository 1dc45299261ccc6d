//! Reading fjall's journals without fjall: is a journal whole, and what is in one that is not?
//!
//! fjall takes some damage in the middle of a journal for its end: it opens without an error, cuts the file there and so
//! destroys every later commit, acknowledged ones among them (one flipped bit in twelve). So each journal is read here
//! first. What follows the first unsound batch tells what happened: nothing sound behind it and it was the last of the
//! last journal, then it is a commit that a crash cut short; a sound one behind it, then the disk has changed what was
//! written.
//!
//! A batch is: 1, count u32, sequence number u64; for each item 2, type, compression, keyspace u64, length of the key
//! u16, of the value u32, of the stored value u32, key, stored value (or 4, keyspace u64: all of it cleared); 3, XXH3-64 of
//! the items' bytes u64, `FJL` 3. All numbers are little-endian. The rest of a file is zeros.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const TRAILER: &[u8] = b"FJL\x03";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const START_BYTES: usize = 1 + 4 + 8;
const END_BYTES: usize = 1 + 8 + TRAILER.len();
const ITEM_HEAD_BYTES: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
const CLEAR_BYTES: usize = 1 + 8;
const TYPE_VALUE: u8 = 0;
/// Values and the two kinds of tombstones; pointers to blobs are never in a journal.
const TYPE_MAX: u8 = 2;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
/// Commits between two that are in a journal: its sequence numbers have no gaps but those of other uses of the counter.
const SEQNO_STEP_MAX: u64 = 1 << 20;
/// An unsound batch of so many bytes is tried with each of its bits flipped: some seconds at the most. Larger ones come only
/// under load, and lose the item that was hit.
const CORRECTED_BYTES_MAX: usize = 64 << 10;
/// Torn ends that are kept: the newest, in case one of them was a whole commit that the disk has damaged.
const TORN_KEPT_MAX: usize = 4;
/// Folder of torn ends within the store's; fjall leaves it alone.
const TORN_FOLDER: &str = "torn";

/// An item that was read from a journal.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// The engine's number of the keyspace.
    pub(super) keyspace: u64,
    pub(super) key: &'a [u8],
    /// None: the key was deleted.
    pub(super) value: Option<Cow<'a, [u8]>>,
}

/// Something in a journal that is not a sound batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) journal: PathBuf,
    /// Where it begins.
    pub(super) at: usize,
    pub(super) kind: FlawKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlawKind {
    /// The last commit of the last journal is not whole: a crash cut it short.
    Torn,
    /// It was written whole, and is not any more.
    Damaged,
}

/// Numbers at the front of a slice.
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*part)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(part)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<usize> {
        self.take().and_then(|bytes| usize::try_from(u32::from_le_bytes(bytes)).ok())
    }
}

/// Reads the item at the front of `bytes`; returns it with its length.
fn item(bytes: &[u8]) -> Option<(Item<'_>, usize)> {
    let mut numbers = Numbers(bytes);
    if numbers.u8()? != ITEM {
        return None;
    }
    let (kind, compression) = (numbers.u8()?, numbers.u8()?);
    let keyspace = u64::from_le_bytes(numbers.take()?);
    let key_len = usize::from(u16::from_le_bytes(numbers.take()?));
    let (value_len, stored_len) = (numbers.u32()?, numbers.u32()?);
    if kind > TYPE_MAX || compression > LZ4 || key_len == 0 || value_len > super::VALUE_BYTES_MAX {
        return None;
    }
    let (key, stored) = (numbers.bytes(key_len)?, numbers.bytes(stored_len)?);
    let value = match (kind, compression) {
        (TYPE_VALUE, PLAIN) => Some(Cow::Borrowed(stored)),
        (TYPE_VALUE, _) => Some(Cow::Owned(lz4_flex::block::decompress(stored, value_len).ok()?)),
        _ => None,
    };
    Some((Item { keyspace, key, value }, ITEM_HEAD_BYTES + key_len + stored_len))
}

/// Returns the length of the item or clearing at the front of `bytes`, which is not looked into further.
fn entry_len(bytes: &[u8]) -> Option<usize> {
    let mut numbers = Numbers(bytes);
    match numbers.u8()? {
        CLEAR => bytes.get(..CLEAR_BYTES).map(<[u8]>::len),
        ITEM => {
            let (kind, compression) = (numbers.u8()?, numbers.u8()?);
            numbers.take::<8>()?;
            let key_len = usize::from(u16::from_le_bytes(numbers.take()?));
            let (_, stored_len) = (numbers.u32()?, numbers.u32()?);
            let len = ITEM_HEAD_BYTES.checked_add(key_len)?.checked_add(stored_len)?;
            (kind <= TYPE_MAX && compression <= LZ4 && len <= bytes.len()).then_some(len)
        }
        _ => None,
    }
}

/// Returns the sequence number and the length of the sound batch at the front of `bytes`, if there is one.
fn batch(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut numbers = Numbers(bytes);
    if numbers.u8()? != START {
        return None;
    }
    let count = numbers.u32()?;
    let seqno = u64::from_le_bytes(numbers.take()?);
    let mut at = START_BYTES;
    for _ in 0..count {
        at += entry_len(bytes.get(at..)?)?;
    }
    let mut end = Numbers(bytes.get(at..)?);
    if end.u8()? != END {
        return None;
    }
    let checksum = u64::from_le_bytes(end.take()?);
    let is_sound =
        end.bytes(TRAILER.len())? == TRAILER && xxhash_rust::xxh3::xxh3_64(bytes.get(START_BYTES..at)?) == checksum;
    is_sound.then_some((seqno, at + END_BYTES))
}

/// Returns where the next sound batch begins.
fn next_batch(bytes: &[u8], from: usize) -> Option<usize> {
    let candidates = bytes.iter().enumerate().skip(from).filter(|(_, byte)| **byte == START).map(|(at, _)| at);
    candidates.filter(|at| matches!(bytes.get(at + START_BYTES), Some(&(ITEM | CLEAR)))).find(|at| {
        // An empty batch is never written, so the tag behind the start is a cheap filter.
        bytes.get(*at..).is_some_and(|rest| batch(rest).is_some())
    })
}

/// Returns the batch that the bytes are, all of them, but for one bit; none if there is no such bit.
fn corrected(unsound: &[u8]) -> Option<Vec<u8>> {
    if unsound.len() > CORRECTED_BYTES_MAX {
        return None;
    }
    let mut bytes = unsound.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let flip = |bytes: &mut Vec<u8>| bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            flip(&mut bytes);
            // The checksum has 64 bits: no other flip in so few bytes makes it right by chance.
            if batch(&bytes).is_some_and(|(_, len)| len == bytes.len()) {
                return Some(bytes);
            }
            flip(&mut bytes);
        }
    }
    None
}

/// Returns the store's journals, oldest first.
fn journals(store: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Looks for the first flaw in the journals of a store. Reads each journal once, whole: 64 MiB of memory.
///
/// # Errors
/// That of the operating system if a journal cannot be read.
pub(super) fn check(store: &Path) -> io::Result<Option<Flaw>> {
    let journals = journals(store)?;
    let last = journals.last().map(|(number, _)| *number);
    let mut before: Option<u64> = None;
    for (number, journal) in journals {
        let bytes = fs::read(&journal)?;
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            // The numbers are in no checksum; one that jumps would hide later values of its keys for ever.
            let sound = batch(rest)
                .filter(|(seqno, _)| before.is_none_or(|before| *seqno > before && *seqno - before <= SEQNO_STEP_MAX));
            let Some((seqno, len)) = sound else {
                if rest.iter().all(|byte| *byte == 0) {
                    break;
                }
                let is_torn = Some(number) == last && batch(rest).is_none() && next_batch(&bytes, at + 1).is_none();
                let kind = if is_torn { FlawKind::Torn } else { FlawKind::Damaged };
                return Ok(Some(Flaw { journal, at, kind }));
            };
            before = Some(seqno);
            at += len;
        }
    }
    Ok(None)
}

/// Cuts off a commit that a crash cut short, as fjall would if it noticed; keeps what there is of it beside the journals.
///
/// # Errors
/// That of the operating system.
pub(super) fn cut_torn(store: &Path, flaw: &Flaw) -> io::Result<()> {
    let bytes = fs::read(&flaw.journal)?;
    let torn = bytes.get(flaw.at..).unwrap_or_default();
    let len = torn.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let folder = store.join(TORN_FOLDER);
    fs::create_dir_all(&folder)?;
    let mut kept = torn_ends(store)?;
    let next = kept.last().map_or(0, |(number, _)| number + 1);
    let mut file = File::create(folder.join(format!("{next}.part")))?;
    file.write_all(torn.get(..len).unwrap_or_default())?;
    file.sync_all()?;
    while kept.len() >= TORN_KEPT_MAX {
        fs::remove_file(kept.remove(0).1)?;
    }
    let journal = OpenOptions::new().write(true).open(&flaw.journal)?;
    journal.set_len(flaw.at as u64)?;
    journal.sync_all()
}

fn torn_ends(store: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    match fs::read_dir(store.join(TORN_FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".part")?.parse().ok());
                found.extend(number.map(|number| (number, path)));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Visits every item that can still be read, torn ends first, then the journals from the oldest. In an unsound batch one
/// flipped bit is put right; else its items are shown as far as they look like items: whoever takes them must be able to
/// check them.
///
/// # Errors
/// That of the operating system if the folder cannot be listed; files that cannot be read are told to `unreadable`.
pub(super) fn visit(
    store: &Path,
    mut unreadable: impl FnMut(&Path, &dyn std::fmt::Display),
    mut take: impl FnMut(Item<'_>),
) -> io::Result<()> {
    for (_, path) in torn_ends(store)?.into_iter().chain(journals(store)?) {
        match fs::read(&path) {
            Ok(bytes) => visit_bytes(&bytes, &mut take),
            Err(error) => unreadable(&path, &error),
        }
    }
    Ok(())
}

fn visit_bytes(bytes: &[u8], take: &mut impl FnMut(Item<'_>)) {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let bytes = bytes.get(..used).unwrap_or_default();
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if let Some((_, len)) = batch(rest) {
            visit_batch(rest.get(..len).unwrap_or_default(), take);
            at += len;
            continue;
        }
        let end = next_batch(bytes, at + 1).unwrap_or(bytes.len());
        let unsound = bytes.get(at..end).unwrap_or_default();
        match corrected(unsound) {
            Some(batch) => visit_batch(&batch, take),
            None => visit_unsound(unsound, take),
        }
        at = end;
    }
}

fn visit_batch(batch: &[u8], take: &mut impl FnMut(Item<'_>)) {
    let mut place = START_BYTES;
    while let Some(entry) = batch.get(place..).filter(|entry| entry.len() > END_BYTES) {
        let Some(len) = entry_len(entry) else { return };
        if let Some((item, _)) = item(entry) {
            take(item);
        }
        place += len;
    }
}

/// Goes byte by byte through what is no batch.
fn visit_unsound(bytes: &[u8], take: &mut impl FnMut(Item<'_>)) {
    let mut at = 0;
    while let Some(unsound) = bytes.get(at..).filter(|unsound| !unsound.is_empty()) {
        at += match item(unsound) {
            Some((item, len)) => {
                take(item);
                len
            }
            None => 1,
        };
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
