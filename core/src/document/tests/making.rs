//! Documents, edits and worlds of replicas for the tests.

use std::collections::BTreeSet;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value, hydrate};
use bytes::Bytes;

use crate::document::{Admission, Candidate, Document, History, LocalChange};
use crate::id::{ActorId, ChangeHash};
use crate::op::WriteAction;

/// Actor number `n`.
pub(super) fn actor(n: u8) -> ActorId {
    ActorId::new([n; 16])
}

/// Xorshift: the same numbers everywhere.
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..5 {
            random.next();
        }
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A change as it travels.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) actor: ActorId,
    pub(super) hash: ChangeHash,
    pub(super) bytes: Bytes,
    pub(super) action: WriteAction,
}

impl Sent {
    pub(super) fn new(actor: ActorId, change: LocalChange) -> Self {
        let action = if change.is_create { WriteAction::Create } else { WriteAction::Update };
        Self { actor, hash: change.hash, bytes: change.bytes, action }
    }

    pub(super) fn candidate(&self) -> Candidate<'_> {
        Candidate { bytes: &self.bytes, actor: self.actor, action: self.action, fields: None }
    }
}

/// Edits and returns the change.
pub(super) fn edit(
    document: &mut Document,
    by: u8,
    f: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
) -> Sent {
    let (change, ()) = document.local_edit(&actor(by), f).unwrap();
    Sent::new(actor(by), change.expect("the edit changes something"))
}

pub(super) fn put(document: &mut Document, by: u8, key: &str, value: i64) -> Sent {
    edit(document, by, |tx| tx.put(ROOT, key, value))
}

/// Offers changes and asserts that all are admitted or known.
pub(super) fn deliver(document: &mut Document, sent: &[Sent]) {
    let candidates: Vec<_> = sent.iter().map(Sent::candidate).collect();
    for (admission, sent) in document.admit(&candidates).iter().zip(sent) {
        assert!(
            matches!(admission, Admission::Admitted(hash) | Admission::Known(hash) if *hash == sent.hash),
            "{admission:?}"
        );
    }
}

pub(super) fn shown(document: &Document) -> hydrate::Value {
    document.view().hydrate(None)
}

/// All there is to compare between replicas.
pub(super) fn assert_same(a: &Document, b: &Document) {
    assert_eq!(a.heads(), b.heads());
    assert_eq!(shown(a), shown(b));
    assert_eq!(a.is_deleted(), b.is_deleted());
    let mut hashes = [a, b].map(|document| document.changes().collect::<BTreeSet<_>>());
    let other = hashes.last_mut().map(std::mem::take);
    assert_eq!(hashes.first(), other.as_ref());
}

/// A document with a list, a text with a mark, a map, a counter and a scalar.
pub(super) fn sample(document: &mut Document, by: u8) -> Sent {
    edit(document, by, |tx| {
        let list = tx.put_object(ROOT, "l", ObjType::List)?;
        for i in 0..4 {
            tx.insert(&list, i, i as i64)?;
        }
        let text = tx.put_object(ROOT, "t", ObjType::Text)?;
        tx.splice_text(&text, 0, 0, "hello brave new world")?;
        tx.mark(&text, Mark::new("bold".into(), true, 2, 8), ExpandMark::Both)?;
        let map = tx.put_object(ROOT, "m", ObjType::Map)?;
        tx.put(&map, "k", vec![1u8, 2, 3])?;
        tx.put(ROOT, "c", ScalarValue::counter(1))?;
        tx.put(ROOT, "a", 1)
    })
}

fn objects(tx: &Transaction<'_>) -> Vec<(ObjId, ObjType)> {
    let mut found = vec![(ROOT, ObjType::Map)];
    let mut next = 0;
    while let Some((object, kind)) = found.get(next).cloned() {
        next += 1;
        match kind {
            ObjType::Map | ObjType::Table => {
                for key in tx.keys(&object).collect::<Vec<_>>() {
                    if let Ok(Some((Value::Object(kind), id))) = tx.get(&object, key) {
                        found.push((id, kind));
                    }
                }
            }
            ObjType::List => {
                for index in 0..tx.length(&object) {
                    if let Ok(Some((Value::Object(kind), id))) = tx.get(&object, index) {
                        found.push((id, kind));
                    }
                }
            }
            ObjType::Text => {}
        }
    }
    found
}

/// A few random operations anywhere in the document.
pub(super) fn random_edit(random: &mut Random, tx: &mut Transaction<'_>) -> Result<(), AutomergeError> {
    for _ in 0..1 + random.below(4) {
        let objects = objects(tx);
        let (object, kind) = objects[random.below(objects.len())].clone();
        let (value, len) = (random.below(100) as i64, tx.length(&object));
        match kind {
            ObjType::Map | ObjType::Table => {
                let key = ["a", "b", "d", "m", "l2"][random.below(5)];
                match random.below(8) {
                    0 => drop(tx.delete(&object, key)),
                    1 => drop(tx.put_object(&object, key, ObjType::Map)?),
                    2 => drop(tx.put_object(&object, key, ObjType::List)?),
                    3 => drop(tx.increment(&object, if object == ROOT { "c" } else { key }, 1)),
                    4 => tx.put(&object, key, ScalarValue::counter(value))?,
                    5 => {
                        let text = tx.put_object(&object, key, ObjType::Text)?;
                        tx.splice_text(&text, 0, 0, "größe")?;
                    }
                    _ => tx.put(&object, key, value)?,
                }
            }
            ObjType::List => match random.below(5) {
                0 if len > 0 => tx.delete(&object, random.below(len))?,
                1 if len > 0 => tx.put(&object, random.below(len), value)?,
                2 => drop(tx.insert_object(&object, random.below(len + 1), ObjType::Map)?),
                _ => tx.insert(&object, random.below(len + 1), value)?,
            },
            ObjType::Text => match random.below(4) {
                0 if len > 2 => tx.splice_text(&object, random.below(len - 1), 1, "")?,
                1 if len > 3 => {
                    let start = random.below(len - 2);
                    tx.mark(&object, Mark::new("bold".into(), true, start, start + 2), ExpandMark::Both)?;
                }
                _ => tx.splice_text(&object, random.below(len + 1), 0, "xy")?,
            },
        }
    }
    Ok(())
}

/// A replica edits at random; returns the change if there is one.
pub(super) fn edit_at_random(random: &mut Random, document: &mut Document, by: u8) -> Option<Sent> {
    let (change, ()) = document.local_edit(&actor(by), |tx| random_edit(random, tx)).unwrap();
    change.map(|change| Sent::new(actor(by), change))
}

/// Several replicas that edit and now and then exchange; returns every change ever made, in order of making.
pub(super) fn history(random: &mut Random, actors: u8, steps: usize) -> Vec<Sent> {
    let mut first = Document::new();
    let mut all = vec![sample(&mut first, 99)];
    let mut replicas: Vec<Document> = (0..actors).map(|_| first.clone()).collect();
    for _ in 0..steps {
        let i = random.below(replicas.len());
        if random.below(3) == 0 {
            let has: BTreeSet<_> = replicas[random.below(actors.into())].changes().map(|(hash, _)| hash).collect();
            let new: Vec<_> = all.iter().filter(|sent| has.contains(&sent.hash)).cloned().collect();
            deliver(&mut replicas[i], &new);
            // Sometimes the merge is written down.
            if random.below(4) == 0 && replicas[i].heads().len() > 1 {
                all.push(put(&mut replicas[i], i as u8 + 1, "a", random.below(1_000_000) as i64 + 1_000));
            }
        } else {
            all.extend(edit_at_random(random, &mut replicas[i], i as u8 + 1));
        }
    }
    all
}

/// A replica that got everything at once.
pub(super) fn with_all(all: &[Sent]) -> Document {
    let mut document = Document::new();
    deliver(&mut document, all);
    document
}

/// Folds a document into one snapshot and what is stored beside it.
pub(super) fn fold(document: &mut Document) -> (Bytes, Vec<u8>) {
    let folded = document.fold(&[], false).unwrap();
    let History::Whole(snapshot) = folded.history else { panic!("a part only") };
    (snapshot, folded.short)
}
