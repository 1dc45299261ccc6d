//! Damage to changes: to their bytes, to their columns, to their operations.

use std::num::NonZeroU64;
use std::panic::AssertUnwindSafe;

use automerge::legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ChangeHash, ExpandedChange, ObjType, ScalarValue};

use super::dice::Dice;
use super::{body, chunk, chunk_of_type};

/// Operations that one change gets at most: more of them find nothing more, and cost time.
const OPERATIONS_MAX: usize = 40;

/// What a document has that operations can refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) heads: Vec<ChangeHash>,
    /// Actor, number of changes, first and last operation of one of them.
    pub(super) changes: Vec<(ActorId, u64, u64, u64)>,
    pub(super) top: u64,
}

/// Spoils bytes: the whole chunk, or its body with length and checksum put right.
pub(super) fn bytes(dice: &mut Dice, valid: &[u8], other: &[u8]) -> Vec<u8> {
    match dice.below(12) {
        0 => {
            let len = dice.below(200);
            dice.bytes(len)
        }
        1 => {
            let len = dice.below(120);
            let random = dice.bytes(len);
            chunk(&random)
        }
        2 => {
            let mut whole = valid.to_vec();
            spoil(dice, &mut whole, other);
            whole
        }
        3 => {
            let kind = dice.byte();
            chunk_of_type(kind, &body(valid))
        }
        _ => {
            let mut inner = body(valid);
            for _ in 0..1 + dice.below(4) {
                spoil(dice, &mut inner, other);
            }
            chunk(&inner)
        }
    }
}

fn spoil(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = dice.below(bytes.len() + 1).min(bytes.len().saturating_sub(1));
    match dice.below(7) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 | 2 => {
            let new = dice.byte();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = new;
            }
        }
        3 => bytes.truncate(at),
        4 => {
            let len = 1 + dice.below(4);
            let new = dice.bytes(len);
            bytes.splice(at..at, new);
        }
        5 => {
            let end = (at + 1 + dice.below(6)).min(bytes.len());
            if at < end {
                bytes.drain(at..end);
            }
        }
        _ => {
            let from = dice.below(other.len());
            let to = (from + 1 + dice.below(24)).min(other.len());
            let piece = other.get(from..to).unwrap_or_default().to_vec();
            let end = (at + piece.len()).min(bytes.len());
            bytes.splice(at..end.max(at), piece);
        }
    }
}

/// Writes fields and columns of a change anew, some of them with other numbers: what no encoder would write.
pub(super) fn columns(dice: &mut Dice, valid: &[u8], other: &[u8]) -> Vec<u8> {
    let inner = body(valid);
    let Some(mut parts) = Parts::read(&inner) else { return bytes(dice, valid, other) };
    let donor = body(other);
    let donor = Parts::read(&donor);
    for _ in 0..1 + dice.below(3) {
        match dice.below(12) {
            0 => parts.seq = dice.odd_number(),
            1 => parts.start_op = dice.odd_number(),
            2 => parts.time = dice.odd_number(),
            3 => {
                let len = dice.below(40);
                parts.actor = dice.bytes(len);
            }
            4 => {
                let deps = parts.deps.len() / 32;
                match dice.below(3) {
                    0 => parts.deps.truncate(32 * dice.below(deps)),
                    1 => {
                        let new = dice.bytes(32);
                        parts.deps.extend(new);
                    }
                    _ => parts.deps.extend_from_within(..),
                }
            }
            5 => {
                let len = dice.below(3);
                parts.others.push(dice.bytes(16 * len));
            }
            6 => {
                if let Some((spec, _)) = pick_mut(dice, &mut parts.columns) {
                    *spec = dice.odd_number();
                }
            }
            7 => {
                let taken = donor.as_ref().and_then(|donor| dice.pick(&donor.columns).cloned());
                if let (Some(new), Some(old)) = (taken, pick_mut(dice, &mut parts.columns)) {
                    *old = if old.0 == new.0 { new } else { (old.0, new.1) };
                }
            }
            8 => {
                let at = dice.below(parts.columns.len());
                if at < parts.columns.len() {
                    parts.columns.remove(at);
                }
            }
            9 => {
                // A run of any length of any value.
                let (count, value) = (dice.odd_number(), dice.odd_number());
                if let Some((_, data)) = pick_mut(dice, &mut parts.columns) {
                    data.clear();
                    signed(data, count.cast_signed());
                    unsigned(data, value);
                }
            }
            10 => {
                let len = dice.below(80);
                parts.extra = dice.bytes(len);
            }
            _ => {
                if let Some((_, data)) = pick_mut(dice, &mut parts.columns) {
                    spoil(dice, data, &donor.as_ref().map(|d| d.extra.clone()).unwrap_or_default());
                }
            }
        }
    }
    chunk(&parts.write())
}

fn pick_mut<'a, T>(dice: &mut Dice, items: &'a mut [T]) -> Option<&'a mut T> {
    let at = dice.below(items.len());
    items.get_mut(at)
}

fn unsigned(out: &mut Vec<u8>, value: u64) {
    leb128::write::unsigned(out, value).expect("writing to memory succeeds");
}

fn signed(out: &mut Vec<u8>, value: i64) {
    leb128::write::signed(out, value).expect("writing to memory succeeds");
}

/// The fields of an encoded change.
#[derive(Default)]
pub(super) struct Parts {
    deps: Vec<u8>,
    pub(super) actor: Vec<u8>,
    seq: u64,
    pub(super) start_op: u64,
    pub(super) time: u64,
    message: Vec<u8>,
    others: Vec<Vec<u8>>,
    pub(super) columns: Vec<(u64, Vec<u8>)>,
    pub(super) extra: Vec<u8>,
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(taken)
}

impl Parts {
    /// Makes the first column a run of the value that it begins with.
    pub(super) fn run_of(&mut self, count: i64) {
        if let Some((_, data)) = self.columns.first_mut() {
            let mut run = Vec::new();
            signed(&mut run, count);
            run.extend(data.iter().skip(1));
            *data = run;
        }
    }

    pub(super) fn read(mut rest: &[u8]) -> Option<Self> {
        let number = |rest: &mut &[u8]| leb128::read::unsigned(rest).ok();
        let count = number(&mut rest)?;
        let deps = take(&mut rest, count.checked_mul(32)?)?.to_vec();
        let len = number(&mut rest)?;
        let actor = take(&mut rest, len)?.to_vec();
        let (seq, start_op) = (number(&mut rest)?, number(&mut rest)?);
        let time = leb128::read::signed(&mut rest).ok()?.cast_unsigned();
        let len = number(&mut rest)?;
        let message = take(&mut rest, len)?.to_vec();
        let mut others = Vec::new();
        for _ in 0..number(&mut rest)? {
            let len = number(&mut rest)?;
            others.push(take(&mut rest, len)?.to_vec());
        }
        let mut specs = Vec::new();
        for _ in 0..number(&mut rest)? {
            specs.push((number(&mut rest)?, number(&mut rest)?));
        }
        let mut columns = Vec::new();
        for (spec, len) in specs {
            columns.push((spec, take(&mut rest, len)?.to_vec()));
        }
        Some(Self { deps, actor, seq, start_op, time, message, others, columns, extra: rest.to_vec() })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        unsigned(&mut out, self.deps.len() as u64 / 32);
        out.extend(&self.deps);
        unsigned(&mut out, self.actor.len() as u64);
        out.extend(&self.actor);
        unsigned(&mut out, self.seq);
        unsigned(&mut out, self.start_op);
        signed(&mut out, self.time.cast_signed());
        unsigned(&mut out, self.message.len() as u64);
        out.extend(&self.message);
        unsigned(&mut out, self.others.len() as u64);
        for other in &self.others {
            unsigned(&mut out, other.len() as u64);
            out.extend(other);
        }
        unsigned(&mut out, self.columns.len() as u64);
        for (spec, data) in &self.columns {
            unsigned(&mut out, *spec);
            unsigned(&mut out, data.len() as u64);
        }
        for (_, data) in &self.columns {
            out.extend(data);
        }
        out.extend(&self.extra);
        out
    }
}

/// Makes a well-formed change that follows the document, of operations that need not make sense.
pub(super) fn operations(dice: &mut Dice, valid: &[u8], known: &Known) -> Vec<u8> {
    let decoded = Change::try_from(valid).map(|change| change.decode());
    let Ok(mut change) = decoded else { return valid.to_vec() };
    let stranger = ActorId::from([0xee; 16]);
    let actor = if dice.chance(70) { stranger } else { dice.pick(&known.changes).map_or(stranger, |c| c.0.clone()) };
    let own = known.changes.iter().filter(|change| change.0 == actor).map(|change| change.1).max().unwrap_or(0);
    change.actor_id = actor;
    change.seq = own + 1;
    change.deps.clone_from(&known.heads);
    change.start_op = NonZeroU64::new(known.top + 1).unwrap_or(NonZeroU64::MIN);
    change.hash = None;
    // One at a time comes furthest.
    let times = if dice.chance(60) { 1 } else { 2 + dice.below(3) };
    for _ in 0..times {
        operation(dice, &mut change, known);
    }
    change.operations.truncate(OPERATIONS_MAX);
    match dice.below(40) {
        0 => change.seq = dice.odd_number(),
        1 => change.start_op = NonZeroU64::new(dice.odd_number()).unwrap_or(NonZeroU64::MIN),
        2 => change.deps.truncate(dice.below(change.deps.len())),
        3 => change.deps.reverse(),
        4 => change.message = Some("m".repeat(dice.below(300))),
        5 => change.extra_bytes = dice.bytes(9),
        6 => change.time = dice.odd_number().cast_signed(),
        _ => {}
    }
    // The encoder is Automerge's own, and not made for this either.
    let encoded = std::panic::catch_unwind(AssertUnwindSafe(|| Change::from(change).raw_bytes().to_vec()));
    encoded.unwrap_or_else(|_| valid.to_vec())
}

fn operation(dice: &mut Dice, change: &mut ExpandedChange, known: &Known) {
    let count = change.operations.len();
    let at = dice.below(count);
    let fresh = any_operation(dice, change, known);
    match dice.below(10) {
        0..=2 => change.operations.push(fresh),
        3 => {
            if at < count {
                change.operations.remove(at);
            }
        }
        4 => {
            if let Some(op) = change.operations.get(at).cloned() {
                change.operations.insert(dice.below(count + 1), op);
            }
        }
        5 => {
            let other = dice.below(count);
            if at < count {
                change.operations.swap(at, other);
            }
        }
        _ => {
            let Some(op) = change.operations.get_mut(at) else { return change.operations.push(fresh) };
            match dice.below(5) {
                0 => op.obj = fresh.obj,
                1 => op.key = fresh.key,
                2 => op.action = fresh.action,
                3 => op.pred = fresh.pred,
                _ => op.insert = !op.insert,
            }
        }
    }
}

fn any_operation(dice: &mut Dice, change: &ExpandedChange, known: &Known) -> Op {
    let obj = if dice.chance(40) { ObjectId::Root } else { ObjectId::Id(any_id(dice, change, known)) };
    let key = match dice.below(4) {
        0 => Key::Seq(ElementId::Head),
        1 => Key::Seq(ElementId::Id(any_id(dice, change, known))),
        2 => Key::Map(["name", "list", "t", "k", "n", "rows", ""][dice.below(7)].into()),
        _ => Key::Map("x".repeat(dice.below(40)).into()),
    };
    let preds: Vec<OpId> = (0..dice.below(3)).map(|_| any_id(dice, change, known)).collect();
    Op { action: any_action(dice), obj, key, pred: preds.into(), insert: dice.chance(35) }
}

/// Returns the id of an operation: usually one that there is.
fn any_id(dice: &mut Dice, change: &ExpandedChange, known: &Known) -> OpId {
    let own = change.start_op.get();
    match dice.below(10) {
        0 | 1 => OpId::new(own + dice.below(change.operations.len() + 2) as u64, &change.actor_id),
        2 => OpId::new(dice.odd_number(), &change.actor_id),
        3 => OpId::new(dice.below(9) as u64, &ActorId::from([0x77; 16])),
        _ => match dice.pick(&known.changes) {
            Some((actor, _, first, last)) => {
                let span = usize::try_from(last.saturating_sub(*first)).unwrap_or(0) + 1;
                OpId::new(first + dice.below(span) as u64, actor)
            }
            None => OpId::new(1, &change.actor_id),
        },
    }
}

fn any_action(dice: &mut Dice) -> OpType {
    let kinds = [ObjType::Map, ObjType::List, ObjType::Text, ObjType::Table];
    match dice.below(10) {
        0 => OpType::Make(kinds[dice.below(4)]),
        1 => OpType::Delete,
        2 => OpType::Increment(dice.odd_number().cast_signed()),
        3 => OpType::MarkBegin(MarkData { name: "m".into(), value: any_value(dice), expand: dice.chance(50) }),
        4 => OpType::MarkEnd(dice.chance(50)),
        _ => OpType::Put(any_value(dice)),
    }
}

fn any_value(dice: &mut Dice) -> ScalarValue {
    match dice.below(11) {
        0 => ScalarValue::Null,
        1 => ScalarValue::Boolean(dice.chance(50)),
        2 => ScalarValue::Int(dice.odd_number().cast_signed()),
        3 => ScalarValue::Uint(dice.odd_number()),
        4 => ScalarValue::F64(f64::from_bits(dice.odd_number())),
        5 => ScalarValue::Timestamp(dice.odd_number().cast_signed()),
        6 => ScalarValue::counter(dice.odd_number().cast_signed()),
        7 => ScalarValue::Bytes(dice.bytes(5)),
        8 => ScalarValue::Unknown { type_code: 10 + dice.byte() % 6, bytes: dice.bytes(3) },
        9 => ScalarValue::Str("é".repeat(dice.below(40)).into()),
        _ => ScalarValue::Str("s".into()),
    }
}
