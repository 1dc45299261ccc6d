//! Files of Automerge that come from elsewhere: what they show is read, what they were is not taken over.
//!
//! A change counts here because an author of the cluster signed it, under an actor that is bound to that author. No change of a
//! file is either, so none can be admitted; its content becomes a new document of whoever brings it.
//!
//! A file is column-wise, run-length encoded and packed, so a hundred bytes can announce any number of operations, and what is
//! nested deep overflows the stack where Automerge recurses. [`outline`](self) reads every column within bounds before Automerge
//! sees a byte of it.

use std::collections::BTreeMap;
use std::io::Read as _;

use automerge::Automerge;
use sha2::{Digest as _, Sha256};

use super::gate::{ColumnReader, GateError, guarded};
use super::json;
use crate::limits;

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is none, or damaged.
    #[error("it is no Automerge document as `save` writes it: {0}")]
    Form(&'static str),
    /// It holds changes, or something else that Automerge writes.
    #[error("it holds no whole document but parts of one, as `saveIncremental` writes them")]
    NoDocument,
    /// More than is taken.
    #[error("it has too many or too large {0}")]
    Limit(&'static str),
    /// Automerge does not load it.
    #[error("Automerge does not load it: {0}")]
    Unloadable(String),
}

impl From<GateError> for FileError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Limit(what) => Self::Limit(what),
            GateError::Encoding(what) => Self::Form(what),
            _ => Self::Form("operations"),
        }
    }
}

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_DOCUMENT: u8 = 0;
const CHUNK_KINDS: std::ops::RangeInclusive<u8> = 0..=3;
/// Columns of operations or changes: Automerge has 16, and passes those over that later versions add.
const COLUMNS_MAX: u64 = 64;
const PACKED: u64 = 8;
/// Objects within objects, below the document itself: what JSON of a client may have.
const DEPTH_MAX: usize = limits::JSON_DEPTH_MAX - 1;

/// The columns that say how objects lie within one another, by Automerge's numbers.
mod column {
    pub(super) const OBJECT_ACTOR: u64 = 1;
    pub(super) const OBJECT_COUNTER: u64 = 2;
    pub(super) const ID_ACTOR: u64 = 33;
    pub(super) const ID_COUNTER: u64 = 35;
    pub(super) const ACTION: u64 = 66;
    /// Of changes: who made them.
    pub(super) const CHANGE_ACTOR: u64 = 1;
}

/// Returns the canonical JSON text of what a file shows. Needs a thread with [`super::gate::STACK_BYTES`] of stack.
///
/// # Errors
/// [`FileError`].
pub fn read(file: &[u8]) -> Result<String, FileError> {
    outline(file)?;
    let text = guarded(|| {
        let document = Automerge::load(file).map_err(|error| error.to_string())?;
        Ok::<_, String>(json::render(&document))
    });
    let text = text.and_then(|text| text).map_err(FileError::Unloadable)?;
    if text.len() > limits::JSON_BYTES_MAX { Err(FileError::Limit("values together")) } else { Ok(text) }
}

/// Checks that a file is a document within the bounds.
fn outline(file: &[u8]) -> Result<(), FileError> {
    if file.len() > limits::AUTOMERGE_FILE_BYTES_MAX {
        return Err(FileError::Limit("bytes"));
    }
    let mut rest = ColumnReader(file);
    if rest.take(4)? != MAGIC {
        return Err(FileError::Form("it begins otherwise"));
    }
    let checksum = rest.take(4)?;
    let hash: [u8; 32] = Sha256::digest(rest.0).into();
    if hash.get(..4) != Some(checksum) {
        return Err(FileError::Form("checksum"));
    }
    match rest.take(1)? {
        [CHUNK_DOCUMENT] => {}
        [kind] if CHUNK_KINDS.contains(kind) => return Err(FileError::NoDocument),
        _ => return Err(FileError::Form("kind")),
    }
    if rest.unsigned()? != rest.0.len() as u64 {
        return Err(FileError::Form("length"));
    }
    let actors = rest.unsigned()?;
    if actors > limits::AUTOMERGE_ACTORS_MAX {
        return Err(FileError::Limit("actors"));
    }
    for _ in 0..actors {
        let len = rest.unsigned()?;
        rest.take(len)?;
    }
    let heads = rest.unsigned()?;
    if heads > limits::AUTOMERGE_CHANGES_MAX {
        return Err(FileError::Limit("heads"));
    }
    rest.take(heads.saturating_mul(32))?;
    let (changes, operations) = (layout(&mut rest)?, layout(&mut rest)?);
    let mut room = limits::AUTOMERGE_UNPACKED_BYTES_MAX;
    let changes = columns(&mut rest, changes, &mut room)?;
    let operations = columns(&mut rest, operations, &mut room)?;
    let mut text_bytes = 0;
    for column in &changes {
        column.scan(&mut text_bytes)?;
    }
    if changes.iter().any(|column| {
        column.spec == column::CHANGE_ACTOR
            && column.values(false).is_ok_and(|all| all.len() as u64 > limits::AUTOMERGE_CHANGES_MAX)
    }) {
        return Err(FileError::Limit("changes"));
    }
    for column in &operations {
        column.scan(&mut text_bytes)?;
    }
    depth(&operations)
}

/// Which columns there are, and how many bytes each has.
fn layout(rest: &mut ColumnReader<'_>) -> Result<Vec<(u64, u64)>, FileError> {
    let count = rest.unsigned()?;
    if count > COLUMNS_MAX {
        return Err(FileError::Limit("columns"));
    }
    (0..count).map(|_| Ok((rest.unsigned()?, rest.unsigned()?))).collect()
}

struct Column {
    spec: u64,
    data: Vec<u8>,
}

fn columns(rest: &mut ColumnReader<'_>, layout: Vec<(u64, u64)>, room: &mut usize) -> Result<Vec<Column>, FileError> {
    let column = |(spec, len): (u64, u64)| {
        let bytes = rest.take(len)?;
        let mut data = Vec::new();
        if spec & PACKED != 0 {
            let unpacked = flate2::read::DeflateDecoder::new(bytes).take(*room as u64 + 1).read_to_end(&mut data);
            unpacked.map_err(|_| FileError::Form("a column does not unpack"))?;
        } else {
            data.extend_from_slice(bytes);
        }
        *room = room.checked_sub(data.len()).ok_or(FileError::Limit("bytes unpacked"))?;
        Ok(Column { spec: spec & !PACKED, data })
    };
    layout.into_iter().map(column).collect()
}

impl Column {
    /// Counts what the column holds, without writing runs out.
    fn scan(&self, text_bytes: &mut u64) -> Result<(), FileError> {
        let mut data = ColumnReader(&self.data);
        let most = limits::AUTOMERGE_OPS_MAX;
        match self.spec & 7 {
            0 => {
                let mut members = 0_u64;
                data.runs(most, |repeat, data| {
                    members = members.saturating_add(repeat.saturating_mul(data.unsigned()?));
                    if members > most { Err(GateError::Limit("operations")) } else { Ok(()) }
                })?;
            }
            3 => data.runs(most, |_, data| data.signed().map(drop))?,
            4 => data.flags(most)?,
            5 => data.runs(most, |repeat, data| {
                let len = data.unsigned()?;
                data.take(len)?;
                *text_bytes = repeat.saturating_mul(len).saturating_add(*text_bytes);
                if *text_bytes > limits::AUTOMERGE_UNPACKED_BYTES_MAX as u64 {
                    return Err(GateError::Limit("keys together"));
                }
                Ok(())
            })?,
            7 => {}
            _ => data.runs(most, |_, data| data.unsigned().map(drop))?,
        }
        Ok(())
    }

    /// Writes the numbers of a column out that was scanned; of differences, their sums.
    fn values(&self, differences: bool) -> Result<Vec<Option<i64>>, FileError> {
        let mut data = ColumnReader(&self.data);
        let (mut values, mut sum) = (Vec::new(), 0_i64);
        while !data.0.is_empty() {
            let run = data.signed()?;
            let (count, is_run) = match run {
                0 => (data.unsigned()?, false),
                run => (run.unsigned_abs(), run > 0),
            };
            let room = limits::AUTOMERGE_OPS_MAX.saturating_sub(values.len() as u64);
            if count > room {
                return Err(FileError::Limit("operations"));
            }
            let read = |data: &mut ColumnReader<'_>| {
                if differences {
                    return Ok(data.signed()?);
                }
                i64::try_from(data.unsigned()?).map_err(|_| FileError::Form("number"))
            };
            let mut put = |value: i64| {
                sum = if differences { sum.saturating_add(value) } else { value };
                values.push(Some(sum));
            };
            if run == 0 {
                values.extend((0..count).map(|_| None));
            } else if is_run {
                let value = read(&mut data)?;
                (0..count).for_each(|_| put(value));
            } else {
                for _ in 0..count {
                    put(read(&mut data)?);
                }
            }
        }
        Ok(values)
    }
}

type Id = (Option<i64>, Option<i64>);

/// Checks how deep objects are nested.
fn depth(operations: &[Column]) -> Result<(), FileError> {
    let values = |spec: u64, differences: bool| {
        let column = operations.iter().find(|column| column.spec == spec);
        column.map_or_else(|| Ok(Vec::new()), |column| column.values(differences))
    };
    let (ids, actions) =
        ((values(column::ID_ACTOR, false)?, values(column::ID_COUNTER, true)?), values(column::ACTION, false)?);
    let objects = (values(column::OBJECT_ACTOR, false)?, values(column::OBJECT_COUNTER, false)?);
    if ids.0.len() != actions.len() || ids.1.len() != actions.len() {
        return Err(FileError::Form("columns of different lengths"));
    }
    let at = |(actors, counters): &(Vec<Option<i64>>, Vec<Option<i64>>), row: usize| -> Id {
        // A column that has nothing but nulls may be left out.
        (actors.get(row).copied().flatten(), counters.get(row).copied().flatten())
    };
    // Those that make an object have even numbers.
    let makes = actions.iter().enumerate().filter(|(_, action)| action.is_some_and(|action| action % 2 == 0));
    let parents: BTreeMap<Id, Id> = makes.map(|(row, _)| (at(&ids, row), at(&objects, row))).collect();
    let mut known: BTreeMap<Id, usize> = BTreeMap::new();
    for id in parents.keys() {
        let (mut way, mut next) = (Vec::new(), *id);
        let above = loop {
            if let Some(depth) = known.get(&next) {
                break *depth;
            }
            let Some(parent) = parents.get(&next) else { break 0 };
            way.push(next);
            if way.len() > DEPTH_MAX {
                return Err(FileError::Limit("levels of nesting"));
            }
            next = *parent;
        };
        if above + way.len() > DEPTH_MAX {
            return Err(FileError::Limit("levels of nesting"));
        }
        known.extend(way.into_iter().rev().zip(above + 1..));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, ObjType, ROOT, ScalarValue};

    use super::*;

    fn sample(items: usize) -> AutoCommit {
        let mut document = AutoCommit::new();
        document.put(ROOT, "name", "Zürich").unwrap();
        document.put(ROOT, "votes", ScalarValue::counter(3)).unwrap();
        let list = document.put_object(ROOT, "list", ObjType::List).unwrap();
        for item in 0..items {
            document.insert(&list, item, format!("item number {item}")).unwrap();
        }
        let text = document.put_object(ROOT, "body", ObjType::Text).unwrap();
        document.splice_text(&text, 0, 0, "hello").unwrap();
        document.commit();
        document.put(ROOT, "name", "Zug").unwrap();
        document
    }

    #[test]
    fn what_a_file_shows_is_read() {
        let text = read(&sample(2).save()).unwrap();
        assert_eq!(text, r#"{"body":"hello","list":["item number 0","item number 1"],"name":"Zug","votes":3}"#);
        let large = sample(3_000).save();
        assert!(large.len() < 30_000, "it is packed");
        assert!(read(&large).unwrap().contains("item number 2999"));
        assert_eq!(read(&AutoCommit::new().save()).unwrap(), "{}");
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let mut document = sample(2);
        let file = document.save();
        assert_eq!(read(b""), Err(FileError::Form("length")));
        assert_eq!(read(b"{\"a\": 1}"), Err(FileError::Form("it begins otherwise")));
        let change = document.get_changes(&[]).first().unwrap().raw_bytes().to_vec();
        assert_eq!(read(&change), Err(FileError::NoDocument));
        let behind = [file.as_slice(), &change].concat();
        assert_eq!(read(&behind), Err(FileError::Form("checksum")));
        for end in 0..file.len() {
            assert!(read(&file[..end]).is_err(), "{end}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn nesting_is_bounded_before_automerge_sees_it() {
        let nested = |depth: usize| {
            let (mut document, mut object) = (AutoCommit::new(), ROOT);
            for _ in 0..depth {
                object = document.put_object(&object, "a", ObjType::Map).unwrap();
            }
            document.save()
        };
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(read(&nested(DEPTH_MAX + 1)), Err(FileError::Limit("levels of nesting")));
        assert_eq!(read(&nested(2_000)), Err(FileError::Limit("levels of nesting")));
    }

    /// A document chunk of these columns of operations.
    fn forged(columns: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let number = |bytes: &mut Vec<u8>, value: u64| drop(leb128::write::unsigned(bytes, value));
        let mut data = vec![0, 0, 0];
        number(&mut data, columns.len() as u64);
        for (spec, column) in columns {
            number(&mut data, *spec);
            number(&mut data, column.len() as u64);
        }
        columns.iter().for_each(|(_, column)| data.extend(column));
        let mut body = vec![CHUNK_DOCUMENT];
        number(&mut body, data.len() as u64);
        body.extend(data);
        let hash: [u8; 32] = Sha256::digest(&body).into();
        [MAGIC.as_slice(), &hash[..4], &body].concat()
    }

    fn run(count: i64, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        leb128::write::signed(&mut bytes, count).unwrap();
        bytes.extend(value);
        bytes
    }

    #[test]
    fn few_bytes_that_announce_much_are_refused() {
        use std::io::Write as _;
        let many = 1 << 40;
        assert_eq!(read(&forged(&[(66, run(many, &[1]))])), Err(FileError::Limit("operations")));
        assert_eq!(
            read(&forged(&[(52, run(1, &[0x80, 0x80, 0x80, 0x80, 0x80, 1]))])),
            Err(FileError::Limit("operations"))
        );
        let key = [vec![100], vec![b'k'; 100]].concat();
        assert_eq!(read(&forged(&[(21, run(500_000, &key))])), Err(FileError::Limit("keys together")));
        assert_eq!(read(&forged(&[(128, run(400_000, &[127]))])), Err(FileError::Limit("operations")));
        let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&vec![0; limits::AUTOMERGE_UNPACKED_BYTES_MAX + 1]).unwrap();
        let bomb = packer.finish().unwrap();
        assert!(bomb.len() < 100_000);
        assert_eq!(read(&forged(&[(87 | PACKED, bomb)])), Err(FileError::Limit("bytes unpacked")));
        // An object that lies within itself.
        let cycle = [(1, vec![1, 0]), (2, vec![1, 1]), (33, vec![1, 0]), (35, vec![1, 1]), (66, vec![1, 0])];
        assert_eq!(read(&forged(&cycle)), Err(FileError::Limit("levels of nesting")));
    }
}
