//! The watermark: a small file beside the store that says how far this node's own streams reached.
//!
//! fjall can open with a silently shortened journal after one flipped bit. An author that went on from there would use
//! its sequence numbers twice, that is, fork. The watermark is written with each group commit, outside fjall, so at the
//! next start a store that ends before its mark is known to have lost something.
//!
//! Two slots in one pre-allocated file are written in turn, each with a counter and a checksum: one is written until it is
//! synced, then the other. A write torn by a crash damages one slot; the other still holds what was synced last. An old
//! mark is harmless: it proves less, never something
//! wrong. The mark of a commit is written after its sync, so it never promises more than the store had.
//!
//! What it cannot see: store and watermark restored together from an old copy. Peers see that. Layout: `docs/format.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Durability, owner_only};
use crate::hash::{Domain, hash};
use crate::id::{OpId, StoreEpoch, StreamId};

/// Streams that a watermark holds. A node has one open stream for each shard in which it writes; with more, those that
/// wrote last are kept. 256 of them take 18 KiB a commit, some 10 µs.
pub const MARKS_MAX: usize = 256;
/// Room for a full watermark, in whole pages.
const SLOT_BYTES: usize = 20 << 10;
const SLOTS: u64 = 2;
const MAGIC: [u8; 8] = *b"fmwater1";
const CHECKSUM_BYTES: usize = 32;
/// Magic, checksum, counter, epoch, forgotten, count.
const HEAD_BYTES: usize = 8 + CHECKSUM_BYTES + 8 + 8 + 8 + 4;
const MARK_BYTES: usize = 32 + 8 + 32;

const _: () = assert!(HEAD_BYTES + MARKS_MAX * MARK_BYTES <= SLOT_BYTES);

/// Why the watermark file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{doing} watermark file {path}")]
pub struct WatermarkError {
    /// What was being done.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the operating system says.
    pub source: io::Error,
}

/// How far a stream reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Sequence number of its last op.
    pub seq: u64,
    /// That op.
    pub op: OpId,
}

/// How far the own streams reached in one life of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watermark {
    epoch: StoreEpoch,
    /// With when each was last moved, by a count.
    marks: BTreeMap<StreamId, (Mark, u64)>,
    moves: u64,
    forgotten: u64,
}

impl Watermark {
    /// Returns the watermark of a store that has no stream yet.
    #[must_use]
    pub const fn new(epoch: StoreEpoch) -> Self {
        Self { epoch, marks: BTreeMap::new(), moves: 0, forgotten: 0 }
    }

    /// Returns the store's epoch.
    #[must_use]
    pub const fn epoch(&self) -> StoreEpoch {
        self.epoch
    }

    /// Returns the streams with their marks.
    pub fn marks(&self) -> impl Iterator<Item = (StreamId, Mark)> {
        self.marks.iter().map(|(stream, (mark, _))| (*stream, *mark))
    }

    /// Returns how many streams were left out since there were more than [`MARKS_MAX`]: the loss of their ends goes
    /// unseen here.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Moves the mark of a stream; never back.
    pub fn advance(&mut self, stream: StreamId, mark: Mark) {
        self.moves += 1;
        let entry = self.marks.entry(stream).or_insert((mark, self.moves));
        if entry.0.seq <= mark.seq {
            *entry = (mark, self.moves);
        }
        if self.marks.len() > MARKS_MAX {
            let oldest = self.marks.iter().min_by_key(|(_, (_, moved))| *moved).map(|(stream, _)| *stream);
            if let Some(oldest) = oldest {
                self.marks.remove(&oldest);
                self.forgotten += 1;
            }
        }
    }

    /// Drops the mark of a stream whose end is given up for lost.
    pub fn forget(&mut self, stream: &StreamId) {
        self.marks.remove(stream);
    }

    /// Compares the marks with what the store holds; `head` returns how far a stream reaches there.
    ///
    /// # Errors
    /// Those of `head`.
    pub fn compare<E>(
        &self,
        epoch: StoreEpoch,
        mut head: impl FnMut(&StreamId) -> Result<Option<Mark>, E>,
    ) -> Result<Standing, E> {
        if epoch != self.epoch {
            return Ok(Standing::OtherEpoch { recorded: self.epoch });
        }
        let mut lost = Vec::new();
        for (stream, expected) in self.marks() {
            let found = head(&stream)?;
            let holds = found.is_some_and(|found| found.seq > expected.seq || found == expected);
            if !holds {
                lost.push(Lost { stream, expected, found });
            }
        }
        Ok(if lost.is_empty() { Standing::Whole { forgotten: self.forgotten } } else { Standing::Lost(lost) })
    }

    fn encode(&self, counter: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEAD_BYTES + self.marks.len() * MARK_BYTES);
        body.extend_from_slice(&counter.to_be_bytes());
        body.extend_from_slice(self.epoch.as_bytes());
        body.extend_from_slice(&self.forgotten.to_be_bytes());
        // At most MARKS_MAX.
        body.extend_from_slice(&(self.marks.len() as u32).to_be_bytes());
        // In the order of their moves, which reading thus gets back.
        let mut marks: Vec<_> = self.marks.iter().collect();
        marks.sort_by_key(|(_, (_, moved))| *moved);
        for (stream, (mark, _)) in marks {
            body.extend_from_slice(stream.as_bytes());
            body.extend_from_slice(&mark.seq.to_be_bytes());
            body.extend_from_slice(mark.op.as_bytes());
        }
        [&MAGIC[..], &hash(Domain::Watermark, &[&body]), &body].concat()
    }

    fn decode(slot: &[u8]) -> Option<(u64, Self)> {
        let (magic, rest) = slot.split_first_chunk::<8>()?;
        let (checksum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
        let count = u32::from_be_bytes(*rest.get(24..)?.first_chunk()?) as usize;
        if *magic != MAGIC || count > MARKS_MAX {
            return None;
        }
        let body = rest.get(..HEAD_BYTES - 8 - CHECKSUM_BYTES + count * MARK_BYTES)?;
        if hash(Domain::Watermark, &[body]) != *checksum {
            return None;
        }
        let (counter, body) = body.split_first_chunk()?;
        let (epoch, body) = body.split_first_chunk()?;
        let (forgotten, body) = body.split_first_chunk()?;
        let mut watermark = Self::new(StoreEpoch::new(*epoch));
        for mark in body.get(4..)?.chunks_exact(MARK_BYTES) {
            let (stream, mark) = mark.split_first_chunk()?;
            let (seq, op) = mark.split_first_chunk()?;
            let mark = Mark { seq: u64::from_be_bytes(*seq), op: OpId::from_slice(op)? };
            watermark.advance(StreamId::new(*stream), mark);
        }
        watermark.forgotten = u64::from_be_bytes(*forgotten);
        Some((u64::from_be_bytes(*counter), watermark))
    }
}

/// A stream that does not reach its mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The stream.
    pub stream: StreamId,
    /// How far it had reached.
    pub expected: Mark,
    /// How far it reaches; at the same place, with another op.
    pub found: Option<Mark>,
}

/// What the watermark says about a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Every marked stream is there up to its mark.
    Whole {
        /// Streams about which nothing is known, see [`Watermark::forgotten`].
        forgotten: u64,
    },
    /// The store has lost acknowledged ops: not a number after the marks may be used in these streams.
    Lost(Vec<Lost>),
    /// The watermark belongs to another life of the store: one of the two was replaced.
    OtherEpoch {
        /// The epoch in the file.
        recorded: StoreEpoch,
    },
}

/// What was in the file when it was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// No file: a new data directory, or somebody removed it.
    Nothing,
    /// A watermark. With one slot damaged it may be as old as the sync before.
    Marks {
        /// The newer of those that could be read.
        watermark: Watermark,
        /// Slots that could not be read, 0 or 1.
        damaged: usize,
    },
    /// No slot can be read: nothing is proved, as after [`Recorded::Nothing`].
    Damaged,
}

/// The file, open for writing.
#[derive(Debug)]
pub struct WatermarkFile {
    path: PathBuf,
    file: File,
    /// Of the last record.
    counter: u64,
    /// The slot that holds what was synced last: it is not written until there is something newer that is.
    synced: u64,
    watermark: Watermark,
    durability: Durability,
}

impl WatermarkFile {
    /// Opens the file, makes it if it is not there, and tells what was in it.
    ///
    /// Marks of the same epoch are carried on, also those that the store does not reach: until the lost ops are fetched
    /// back or given up ([`Watermark::forget`]) every start tells of them.
    ///
    /// With [`Durability::Buffered`] a power cut may cost the marks since the last [`Self::sync`], with
    /// [`Durability::Synced`] each record pays a sync.
    ///
    /// # Errors
    /// [`WatermarkError`] if the file cannot be read or made.
    pub fn open(path: &Path, epoch: StoreEpoch, durability: Durability) -> Result<(Self, Recorded), WatermarkError> {
        let fail = |doing| move |source| WatermarkError { doing, path: path.to_owned(), source };
        let mut options = owner_only();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(fail("open"))?;
        let mut bytes = Vec::new();
        (&mut file).take(SLOTS * SLOT_BYTES as u64).read_to_end(&mut bytes).map_err(fail("read"))?;
        if bytes.len() < SLOTS as usize * SLOT_BYTES {
            // Zeros written, not a hole: later writes need no room and change nothing about the file but its content.
            file.write_all(&vec![0; SLOTS as usize * SLOT_BYTES - bytes.len()]).map_err(fail("allocate"))?;
            file.sync_all().map_err(fail("sync"))?;
            sync_directory_of(path).map_err(fail("sync the directory of"))?;
        }
        let (counter, newest, recorded) = decode_slots(&bytes);
        if counter > 0 {
            // A process that was killed may have written it without a sync.
            file.sync_data().map_err(fail("sync"))?;
        }
        let watermark = match &recorded {
            Recorded::Marks { watermark, .. } if watermark.epoch == epoch => watermark.clone(),
            Recorded::Marks { .. } | Recorded::Nothing | Recorded::Damaged => Watermark::new(epoch),
        };
        Ok((Self { path: path.to_owned(), file, counter, synced: newest, watermark, durability }, recorded))
    }

    /// Returns what is carried on.
    #[must_use]
    pub const fn watermark(&self) -> &Watermark {
        &self.watermark
    }

    /// Returns what is carried on, for a change that the next [`Self::record`] writes.
    pub const fn watermark_mut(&mut self) -> &mut Watermark {
        &mut self.watermark
    }

    /// Moves marks and writes the file; what was synced last stays in it until this is synced.
    ///
    /// # Errors
    /// [`WatermarkError`] if it cannot be written: the marks on disk are then older than the store, which is safe. The
    /// next call tries the same slot again, so that the good one stays.
    pub fn record(&mut self, marks: &[(StreamId, Mark)]) -> Result<(), WatermarkError> {
        for (stream, mark) in marks {
            self.watermark.advance(*stream, *mark);
        }
        let next = self.counter + 1;
        let slot = self.watermark.encode(next);
        let place = self.open_slot() * SLOT_BYTES as u64;
        let path = &self.path;
        let fail = |doing| move |source| WatermarkError { doing, path: path.clone(), source };
        self.file.seek(SeekFrom::Start(place)).and_then(|_| self.file.write_all(&slot)).map_err(fail("write"))?;
        self.counter = next;
        match self.durability {
            Durability::Buffered => Ok(()),
            Durability::Synced => self.sync(),
        }
    }

    /// The slot that is written until it is synced.
    const fn open_slot(&self) -> u64 {
        (self.synced + 1) % SLOTS
    }

    /// Makes the marks durable.
    ///
    /// # Errors
    /// [`WatermarkError`] if the file cannot be synced.
    pub fn sync(&mut self) -> Result<(), WatermarkError> {
        let fail = |source| WatermarkError { doing: "sync", path: self.path.clone(), source };
        self.file.sync_data().map_err(fail)?;
        self.synced = self.open_slot();
        Ok(())
    }
}

/// Returns the counter of the newest slot, which that is, and what it says.
fn decode_slots(bytes: &[u8]) -> (u64, u64, Recorded) {
    let slots = bytes.chunks(SLOT_BYTES);
    let is_blank = |slot: &[u8]| slot.iter().all(|byte| *byte == 0);
    let blank = slots.clone().filter(|slot| is_blank(slot)).count();
    let is_new = blank == slots.len();
    let mut read: Vec<_> = (0..).zip(slots).filter_map(|(at, slot)| Some((at, Watermark::decode(slot)?))).collect();
    read.sort_by_key(|(_, (counter, _))| *counter);
    // Before its second write a file has one blank slot, and nothing is wrong with it.
    let damaged = (SLOTS as usize).saturating_sub(read.len() + blank);
    match read.pop() {
        Some((at, (counter, watermark))) => (counter, at, Recorded::Marks { watermark, damaged }),
        None if is_new => (0, 0, Recorded::Nothing),
        None => (0, 0, Recorded::Damaged),
    }
}

/// Reads a watermark file without opening it for writing.
///
/// # Errors
/// [`WatermarkError`] if it is there and cannot be read.
pub fn read(path: &Path) -> Result<Recorded, WatermarkError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(SLOTS * SLOT_BYTES as u64).read_to_end(&mut bytes).map_err(|source| WatermarkError {
                doing: "read",
                path: path.to_owned(),
                source,
            })?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(WatermarkError { doing: "open", path: path.to_owned(), source }),
    }
    Ok(decode_slots(&bytes).2)
}

/// Makes a new file's name as durable as its content. Only Unix lets a directory be synced.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if cfg!(unix) && !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const EPOCH: StoreEpoch = StoreEpoch::new([7; 8]);

    fn stream(n: u64) -> StreamId {
        StreamId::new(hash(Domain::Stream, &[&n.to_be_bytes()]))
    }

    fn mark(seq: u64) -> Mark {
        Mark { seq, op: OpId::new([seq as u8; 32]) }
    }

    fn open(path: &Path) -> (WatermarkFile, Recorded) {
        WatermarkFile::open(path, EPOCH, Durability::Buffered).unwrap()
    }

    fn recorded_seq(path: &Path) -> (Option<u64>, usize) {
        match open(path).1 {
            Recorded::Marks { watermark, damaged } => (watermark.marks().map(|(_, mark)| mark.seq).max(), damaged),
            Recorded::Nothing => (None, 0),
            Recorded::Damaged => (None, 2),
        }
    }

    #[test]
    fn what_was_recorded_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        for durability in [Durability::Buffered, Durability::Synced] {
            let mut expected = None;
            for round in 1..=5 {
                let (mut file, recorded) = WatermarkFile::open(&path, EPOCH, durability).unwrap();
                match expected {
                    None => {}
                    Some(expected) => assert_eq!(recorded, Recorded::Marks { watermark: expected, damaged: 0 }),
                }
                file.record(&[(stream(1), mark(round)), (stream(round), mark(1))]).unwrap();
                // Reading renumbers the moves, so compare what reading gives.
                expected = Watermark::decode(&file.watermark().encode(0)).map(|(_, watermark)| watermark);
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 2 * SLOT_BYTES as u64, "the file never grows");
    }

    #[test]
    fn one_damaged_slot_costs_one_commit_and_two_prove_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        assert_eq!(open(&path).1, Recorded::Nothing);
        let (mut file, _) = open(&path);
        for seq in 1..=4 {
            file.record(&[(stream(1), mark(seq))]).unwrap();
            file.sync().unwrap();
        }
        let whole = fs::read(&path).unwrap();
        // Slot 0 has the newest, counter 4. Every byte that is in use matters.
        let used = HEAD_BYTES + MARK_BYTES;
        for byte in 0..used {
            let mut bytes = whole.clone();
            bytes[byte] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(recorded_seq(&path), (Some(3), 1), "byte {byte}");
        }
        for (cut, expected) in [(used - 1, (None, 2)), (SLOT_BYTES + used - 1, (Some(4), 1)), (0, (None, 0))] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(recorded_seq(&path), expected, "cut at {cut}");
        }
        let mut bytes = whole.clone();
        bytes[9] ^= 1;
        bytes[SLOT_BYTES + 9] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (mut file, recorded) = open(&path);
        assert_eq!(recorded, Recorded::Damaged);
        file.record(&[(stream(1), mark(5))]).unwrap();
        assert_eq!(recorded_seq(&path).0, Some(5), "it goes on from there");
    }

    #[test]
    fn what_was_synced_stays_until_something_newer_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        let slots = || {
            let bytes = fs::read(&path).unwrap();
            let seq = |slot: &[u8]| Watermark::decode(slot)?.1.marks().map(|(_, mark)| mark.seq).max();
            let mut found: Vec<_> = bytes.chunks(SLOT_BYTES).map(seq).collect();
            found.sort_unstable();
            found
        };
        let (mut file, _) = open(&path);
        let record = |file: &mut WatermarkFile, seq| file.record(&[(stream(1), mark(seq))]).unwrap();
        record(&mut file, 1);
        record(&mut file, 2);
        assert_eq!(slots(), [None, Some(2)], "a power cut before the first sync may tear all that there is");
        file.sync().unwrap();
        for seq in 3..=6 {
            record(&mut file, seq);
            assert_eq!(slots(), [Some(2), Some(seq)]);
        }
        file.sync().unwrap();
        record(&mut file, 7);
        assert_eq!(slots(), [Some(6), Some(7)]);
        // What a killed process left is synced when it is read, and stays.
        drop(file);
        let (mut file, _) = open(&path);
        record(&mut file, 8);
        assert_eq!(slots(), [Some(7), Some(8)]);
    }

    #[test]
    fn a_store_that_ends_early_is_told() {
        let mut watermark = Watermark::new(EPOCH);
        watermark.advance(stream(1), mark(5));
        watermark.advance(stream(1), mark(3));
        let compare = |found| watermark.compare(EPOCH, |_| Ok::<_, ()>(found)).unwrap();
        let lost = |found| Standing::Lost(vec![Lost { stream: stream(1), expected: mark(5), found }]);
        assert_eq!(compare(Some(mark(5))), Standing::Whole { forgotten: 0 });
        assert_eq!(compare(Some(mark(6))), Standing::Whole { forgotten: 0 });
        assert_eq!(compare(Some(mark(4))), lost(Some(mark(4))));
        assert_eq!(compare(None), lost(None));
        let other = Mark { seq: 5, op: OpId::new([99; 32]) };
        assert_eq!(compare(Some(other)), lost(Some(other)), "another op at the same place");
        let replaced = watermark.compare(StoreEpoch::new([8; 8]), |_| Ok::<_, ()>(None)).unwrap();
        assert_eq!(replaced, Standing::OtherEpoch { recorded: EPOCH });
    }

    #[test]
    fn losses_are_told_until_given_up_and_another_epoch_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        open(&path).0.record(&[(stream(1), mark(5)), (stream(2), mark(1))]).unwrap();
        open(&path).0.record(&[(stream(2), mark(2))]).unwrap();
        let (mut file, _) = open(&path);
        assert!(file.watermark().marks().any(|found| found == (stream(1), mark(5))));
        file.watermark_mut().forget(&stream(1));
        file.record(&[]).unwrap();
        assert_eq!(open(&path).0.watermark().marks().collect::<Vec<_>>(), [(stream(2), mark(2))]);
        let (file, recorded) = WatermarkFile::open(&path, StoreEpoch::new([8; 8]), Durability::Buffered).unwrap();
        assert!(matches!(recorded, Recorded::Marks { watermark, .. } if watermark.epoch() == EPOCH));
        assert_eq!(file.watermark().marks().count(), 0);
    }

    #[test]
    fn of_too_many_streams_the_latest_movers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        let (mut file, _) = open(&path);
        let all: Vec<_> = (0..MARKS_MAX as u64).map(|n| (stream(n), mark(1))).collect();
        file.record(&all).unwrap();
        file.record(&[(stream(0), mark(2))]).unwrap();
        // Reopened in between, for the order of moves must survive.
        let (mut file, _) = open(&path);
        file.record(&[(stream(1_000), mark(1))]).unwrap();
        let (file, _) = open(&path);
        let kept: Vec<_> = file.watermark().marks().map(|(stream, _)| stream).collect();
        assert_eq!((kept.len(), file.watermark().forgotten()), (MARKS_MAX, 1));
        assert!(kept.contains(&stream(0)) && kept.contains(&stream(1_000)) && !kept.contains(&stream(1)));
    }

    /// The format on disk: never to be edited, only added to.
    #[test]
    fn bytes_are_pinned() {
        let mut watermark = Watermark::new(EPOCH);
        watermark.advance(StreamId::new([1; 32]), Mark { seq: 258, op: OpId::new([2; 32]) });
        let slot = watermark.encode(9);
        let body = [
            &[0, 0, 0, 0, 0, 0, 0, 9][..],
            &[7; 8],
            &[0; 8],
            &[0, 0, 0, 1],
            &[1; 32],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[2; 32],
        ]
        .concat();
        assert_eq!(slot, [&b"fmwater1"[..], &hash(Domain::Watermark, &[&body]), &body].concat());
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = WatermarkFile::open(dir.path(), EPOCH, Durability::Buffered).unwrap_err();
        assert_eq!(error.to_string(), format!("open watermark file {}", dir.path().display()));
    }
}
