//! Bounds on an encoded change, checked before Automerge sees a byte of it.
//!
//! A change is column-wise and run-length encoded, so sixty bytes can announce ten thousand million operations, and
//! decoding it would never end. The scan reads every column's runs without expanding them: its cost is linear in the
//! encoded bytes, and it allocates nothing but the list of dependencies.

use sha2::{Digest, Sha256};

use super::GateError;
use crate::id::{ActorId, ChangeHash};
use crate::limits;

/// What the scan learns about a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    /// Automerge's hash of the change.
    pub hash: ChangeHash,
    /// Whose change it says it is.
    pub actor: ActorId,
    /// Position among the actor's changes, from 1.
    pub seq: u64,
    /// Number of its first operation.
    pub start_op: u64,
    /// The changes that it builds on, ascending.
    pub deps: Vec<ChangeHash>,
    /// How many operations it has.
    pub ops: u64,
    /// What it contains that needs more checks.
    pub contents: Contents,
}

/// Returns the hash of a change whose bytes are sound and which names `actor` as its author: only then is the hash a name
/// that others can rightly build on.
#[must_use]
pub fn bound_hash(bytes: &[u8], actor: &ActorId) -> Option<ChangeHash> {
    prescan(bytes).ok().filter(|scan| scan.actor == *actor).map(|scan| scan.hash)
}

/// Kinds of operations that need checks of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// Some operation makes an object.
    pub objects: bool,
    /// Some operation begins or ends a mark.
    pub marks: bool,
}

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// A change that is not compressed. Compressed ones and whole documents are refused: they hide their size.
const CHUNK_CHANGE: u8 = 1;
/// Op counters are 32 bits wide inside Automerge, and at the end of that range it panics; half is left unused.
const OP_COUNTER_MAX: u64 = 1 << 31;

/// The columns of a change, by Automerge's specification number. Its lowest three bits are the encoding.
mod column {
    pub(super) const KEY_TEXT: u64 = 21;
    pub(super) const ACTION: u64 = 66;
    pub(super) const PRED_GROUP: u64 = 112;
    pub(super) const PRED_ACTOR: u64 = 113;
    pub(super) const PRED_COUNTER: u64 = 115;
    pub(super) const ALL: [u64; 14] =
        [1, 2, 17, 19, KEY_TEXT, 52, ACTION, 86, 87, PRED_GROUP, PRED_ACTOR, PRED_COUNTER, 148, 165];

    /// How a column's values are encoded.
    pub(super) enum Encoding {
        Unsigned,
        Signed,
        Flags,
        Text,
        Raw,
    }

    pub(super) const fn encoding(spec: u64) -> Encoding {
        match spec & 7 {
            3 => Encoding::Signed,
            4 => Encoding::Flags,
            5 => Encoding::Text,
            7 => Encoding::Raw,
            _ => Encoding::Unsigned,
        }
    }
}

/// Scans an encoded change and checks everything that its bytes alone can show within the bounds of [`limits`].
///
/// # Errors
/// [`GateError::Encoding`] or [`GateError::Limit`]; both are verdicts.
pub fn prescan(bytes: &[u8]) -> Result<Scan, GateError> {
    if bytes.len() > limits::CHANGE_BYTES_MAX {
        return Err(GateError::Limit("bytes"));
    }
    let mut rest = ColumnReader(bytes);
    if rest.take(4)? != MAGIC {
        return Err(GateError::Encoding("magic"));
    }
    let checksum = rest.take(4)?;
    let hash: [u8; 32] = Sha256::digest(rest.0).into();
    if hash.get(..4) != Some(checksum) {
        return Err(GateError::Encoding("checksum"));
    }
    if rest.take(1)? != [CHUNK_CHANGE] {
        return Err(GateError::Encoding("chunk type"));
    }
    if rest.unsigned()? != rest.0.len() as u64 {
        return Err(GateError::Encoding("length"));
    }
    let deps = deps(&mut rest)?;
    let actor = actor(&mut rest)?;
    let seq = rest.unsigned()?;
    let start_op = rest.unsigned()?;
    if start_op == 0 || start_op > OP_COUNTER_MAX {
        return Err(GateError::Limit("operation counter"));
    }
    if rest.signed()?.unsigned_abs() > limits::CHANGE_TIME_MAX {
        return Err(GateError::Limit("time"));
    }
    let message = rest.unsigned()?;
    if message > limits::CHANGE_MESSAGE_BYTES_MAX as u64 {
        return Err(GateError::Limit("message"));
    }
    rest.take(message)?;
    let others = rest.unsigned()?;
    if others > limits::CHANGE_PREDS_MAX {
        return Err(GateError::Limit("actors"));
    }
    for _ in 0..others {
        actor_bytes(&mut rest)?;
    }
    let (ops, contents) = columns(&mut rest)?;
    if rest.0.len() > limits::CHANGE_EXTRA_BYTES_MAX {
        return Err(GateError::Limit("extra bytes"));
    }
    Ok(Scan { hash: ChangeHash::new(hash), actor, seq, start_op, deps, ops, contents })
}

fn deps(rest: &mut ColumnReader<'_>) -> Result<Vec<ChangeHash>, GateError> {
    let count = rest.unsigned()?;
    if count > limits::CHANGE_DEPS_MAX as u64 {
        return Err(GateError::Limit("dependencies"));
    }
    let mut deps = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let dep = ChangeHash::from_slice(rest.take(32)?).ok_or(GateError::Encoding("dependencies"))?;
        if deps.last().is_some_and(|last| *last >= dep) {
            return Err(GateError::Encoding("dependencies out of order"));
        }
        deps.push(dep);
    }
    Ok(deps)
}

fn actor_bytes<'a>(rest: &mut ColumnReader<'a>) -> Result<&'a [u8], GateError> {
    if rest.unsigned()? != ActorId::LEN as u64 {
        return Err(GateError::Encoding("actor is not 16 bytes"));
    }
    rest.take(ActorId::LEN as u64)
}

fn actor(rest: &mut ColumnReader<'_>) -> Result<ActorId, GateError> {
    ActorId::from_slice(actor_bytes(rest)?).ok_or(GateError::Encoding("actor is not 16 bytes"))
}

fn columns(rest: &mut ColumnReader<'_>) -> Result<(u64, Contents), GateError> {
    let count = rest.unsigned()?;
    if count > column::ALL.len() as u64 {
        return Err(GateError::Encoding("columns"));
    }
    let mut layout = [(0, 0); column::ALL.len()];
    let mut last = 0;
    for slot in layout.iter_mut().take(count as usize) {
        let (spec, len) = (rest.unsigned()?, rest.unsigned()?);
        if spec <= last || !column::ALL.contains(&spec) {
            return Err(GateError::Encoding("columns"));
        }
        last = spec;
        *slot = (spec, len);
    }
    let (mut ops, mut key_bytes, mut contents) = (0, 0, Contents::default());
    for (spec, len) in layout.into_iter().take(count as usize) {
        let mut data = ColumnReader(rest.take(len)?);
        let entries_max = match spec {
            column::PRED_ACTOR | column::PRED_COUNTER => limits::CHANGE_PREDS_MAX,
            _ => limits::CHANGE_OPS_MAX,
        };
        match (spec, column::encoding(spec)) {
            (column::ACTION, _) => ops = actions(&mut data, &mut contents)?,
            (column::PRED_GROUP, _) => {
                let mut preds = 0u64;
                data.runs(entries_max, |repeat, data| {
                    preds = preds.saturating_add(repeat.saturating_mul(data.unsigned()?));
                    Ok(())
                })?;
                if preds > limits::CHANGE_PREDS_MAX {
                    return Err(GateError::Limit("predecessors"));
                }
            }
            (_, column::Encoding::Unsigned) => data.runs(entries_max, |_, data| data.unsigned().map(drop))?,
            (_, column::Encoding::Signed) => data.runs(entries_max, |_, data| data.signed().map(drop))?,
            (_, column::Encoding::Text) => data.runs(entries_max, |repeat, data| {
                let len = data.unsigned()?;
                if len > limits::DOC_KEY_BYTES_MAX as u64 {
                    return Err(GateError::Limit("key"));
                }
                // Decoding writes each repetition out.
                key_bytes = repeat.saturating_mul(len).saturating_add(key_bytes);
                if key_bytes > limits::CHANGE_KEY_BYTES_MAX {
                    return Err(GateError::Limit("keys together"));
                }
                data.take(len).map(drop)
            })?,
            (_, column::Encoding::Flags) => data.flags(entries_max)?,
            (_, column::Encoding::Raw) => {}
        }
    }
    Ok((ops, contents))
}

/// Counts operations and notes which kinds there are.
fn actions(data: &mut ColumnReader<'_>, contents: &mut Contents) -> Result<u64, GateError> {
    let mut ops = 0u64;
    data.runs(limits::CHANGE_OPS_MAX, |repeat, data| {
        match data.unsigned()? {
            0 | 2 | 4 => contents.objects = true,
            1 | 3 | 5 => {}
            7 => contents.marks = true,
            6 => return Err(GateError::Table),
            _ => return Err(GateError::Encoding("unknown kind of operation")),
        }
        ops += repeat;
        Ok(())
    })?;
    Ok(ops)
}

/// What is left of an encoding.
pub(in crate::document) struct ColumnReader<'a>(pub(in crate::document) &'a [u8]);

impl<'a> ColumnReader<'a> {
    pub(in crate::document) fn take(&mut self, len: u64) -> Result<&'a [u8], GateError> {
        let len = usize::try_from(len).map_err(|_| GateError::Encoding("length"))?;
        let (head, tail) = self.0.split_at_checked(len).ok_or(GateError::Encoding("length"))?;
        self.0 = tail;
        Ok(head)
    }

    pub(in crate::document) fn unsigned(&mut self) -> Result<u64, GateError> {
        leb128::read::unsigned(&mut self.0).map_err(|_| GateError::Encoding("number"))
    }

    pub(in crate::document) fn signed(&mut self) -> Result<i64, GateError> {
        leb128::read::signed(&mut self.0).map_err(|_| GateError::Encoding("number"))
    }

    /// Walks a run-length encoded column: calls `value` where a value lies, with how often it is repeated. Runs of
    /// nulls count as entries too.
    pub(in crate::document) fn runs(
        &mut self,
        entries_max: u64,
        mut value: impl FnMut(u64, &mut Self) -> Result<(), GateError>,
    ) -> Result<(), GateError> {
        let mut entries = 0u64;
        let mut add = |count: u64| {
            entries = entries.saturating_add(count);
            if entries > entries_max { Err(GateError::Limit("operations")) } else { Ok(()) }
        };
        while !self.0.is_empty() {
            match self.signed()? {
                0 => add(self.unsigned()?)?,
                run if run > 0 => {
                    add(run.unsigned_abs())?;
                    value(run.unsigned_abs(), self)?;
                }
                literals => {
                    add(literals.unsigned_abs())?;
                    for _ in 0..literals.unsigned_abs() {
                        value(1, self)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Walks a column of flags: lengths of alternating runs.
    pub(in crate::document) fn flags(&mut self, entries_max: u64) -> Result<(), GateError> {
        let mut entries = 0u64;
        while !self.0.is_empty() {
            entries = entries.saturating_add(self.unsigned()?);
            if entries > entries_max {
                return Err(GateError::Limit("operations"));
            }
        }
        Ok(())
    }
}
