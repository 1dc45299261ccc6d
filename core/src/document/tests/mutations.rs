//! Changes mutated at random: whatever is admitted leaves the document sound.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{ElementId, Key, MarkData, ObjectId, OpId, OpType};
use automerge::{Change, ExpandedChange, ObjType};

use super::making::Random;
use crate::document::fuzzing::{World, body, chunk, fuzz_admit};

pub(super) fn mutate_bytes(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let i = random.below(bytes.len());
        match random.below(8) {
            0 => bytes[i] ^= 1 << random.below(8),
            1 => bytes[i] = random.next() as u8,
            2 => bytes[i] = [0, 1, 0x7f, 0x80, 0xff, 0x40, 0x3f][random.below(7)],
            3 => drop(bytes.remove(i)),
            4 => bytes.insert(i, random.next() as u8),
            5 => bytes[i] = bytes[i].wrapping_add(1),
            6 => bytes[i] = bytes[i].wrapping_sub(1),
            _ => {
                let part = bytes[i..(i + 1 + random.below(8)).min(bytes.len())].to_vec();
                let at = random.below(bytes.len() + 1);
                bytes.splice(at..at, part);
            }
        }
    }
}

pub(super) fn mutate_operations(
    random: &mut Random,
    change: &mut ExpandedChange,
    ids: &[OpId],
    heads: &[automerge::ChangeHash],
) {
    let pick = |random: &mut Random| {
        let mut id = ids[random.below(ids.len())].clone();
        if random.below(6) == 0 {
            id.0 = 1 + random.below(60) as u64;
        }
        id
    };
    for _ in 0..1 + random.below(2) {
        let len = change.operations.len();
        match random.below(14) {
            0 => change.seq = random.below(8) as u64,
            1 => change.start_op = NonZeroU64::new(1 + random.below(80) as u64).unwrap(),
            2 => change.deps = heads.iter().filter(|_| random.below(2) == 0).copied().collect(),
            3 => change.actor_id = pick(random).1,
            4 if len > 0 => drop(change.operations.remove(random.below(len))),
            5 if len > 0 => {
                let copy = change.operations[random.below(len)].clone();
                change.operations.insert(random.below(len + 1), copy);
            }
            6 if len > 1 => change.operations.swap(random.below(len), random.below(len)),
            _ if len > 0 => {
                let (p, q, k) = (pick(random), pick(random), random.below(8));
                let op = &mut change.operations[random.below(len)];
                match random.below(5) {
                    0 if k < 3 => op.obj = ObjectId::Root,
                    0 => op.obj = ObjectId::Id(p),
                    1 => {
                        op.key = match k {
                            0..=2 => Key::Map(["name", "map", "zzz"][k].into()),
                            3 => Key::Seq(ElementId::Head),
                            _ => Key::Seq(ElementId::Id(p)),
                        };
                    }
                    2 => op.pred = [vec![], vec![p.clone(), q], vec![p]][k.min(2)].clone().into(),
                    3 => op.insert = !op.insert,
                    _ => {
                        op.action = match k {
                            0 => OpType::Delete,
                            1 => OpType::Increment(3),
                            2 => OpType::Put(5.into()),
                            3 => OpType::Make(ObjType::Map),
                            4 => OpType::Make(ObjType::Text),
                            5 => OpType::MarkEnd(false),
                            6 => OpType::MarkBegin(MarkData { name: "b".into(), value: 1.into(), expand: false }),
                            _ => OpType::Put("str".into()),
                        };
                    }
                }
            }
            _ => {}
        }
    }
}

#[test]
fn mutated_bytes_do_no_harm() {
    let (world, mut random, mut admitted) = (World::new(), Random::new(11), 0);
    for _ in 0..2_000 {
        let index = random.below(world.changes.len());
        let mut bytes = body(&world.changes[index]);
        mutate_bytes(&mut random, &mut bytes);
        admitted += u32::from(world.offer(index, &chunk(&bytes)));
    }
    assert!(admitted > 10, "only {admitted} admitted: the mutations miss the gate");
}

#[test]
fn mutated_operations_do_no_harm() {
    let (world, mut random, mut admitted) = (World::new(), Random::new(12), 0);
    let last = world.before.last().unwrap();
    let metas = last.full().get_changes_meta(&[]);
    let heads: Vec<_> = metas.iter().map(|meta| meta.hash).collect();
    let ids: Vec<_> = metas
        .iter()
        .flat_map(|meta| (meta.start_op..=meta.max_op).map(|counter| OpId::new(counter, &meta.actor)))
        .collect();
    for _ in 0..2_000 {
        let index = random.below(world.changes.len());
        let mut change = Change::try_from(world.changes[index].as_slice()).unwrap().decode();
        mutate_operations(&mut random, &mut change, &ids, &heads);
        // Some cannot even be encoded.
        let Ok(change) = catch_unwind(AssertUnwindSafe(|| Change::from(change))) else { continue };
        admitted += u32::from(world.offer(index, change.raw_bytes()));
    }
    assert!(admitted > 100, "only {admitted} admitted: the mutations miss the gate");
}

#[test]
fn the_fuzz_target_takes_any_bytes() {
    let (mut random, mut admitted) = (Random::new(13), 0);
    for _ in 0..1_000 {
        let data: Vec<u8> = (0..random.below(8)).map(|_| random.next() as u8).collect();
        admitted += u32::from(fuzz_admit(&data));
    }
    assert!(admitted > 10, "only {admitted} admitted");
}
