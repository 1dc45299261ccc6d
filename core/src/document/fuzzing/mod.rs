//! Entry points of the fuzz targets: any bytes, offered to the gate as a change; and a campaign of very many.

mod campaign;
mod crafted;
mod dice;
mod library;
mod mutate;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjType, ROOT, ReadDoc, ScalarValue};
use sha2::{Digest, Sha256};

pub use campaign::{Answer, Campaign, INPUTS_PER_ROUND, Round};
pub use crafted::{first_change, hostile_changes, under_actor};

use super::direct::Tree;
use super::gate::prescan;
use super::{Admission, Candidate, Document};
use crate::id::ActorId;
use crate::op::WriteAction;

/// Offers a change made of `data` to a document, and panics if the document comes to harm.
///
/// The first byte says how the rest is used: as a whole chunk, as the body of one, or as (position, byte) pairs that
/// overwrite the body of one of the valid changes; the latter two get the right length and checksum. Returns whether
/// the change was admitted.
///
/// # Panics
/// When a rule of the gate is broken: that is what the fuzzer looks for.
pub fn fuzz_admit(data: &[u8]) -> bool {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(World::new);
    let Some((mode, rest)) = data.split_first() else { return false };
    let (index, bytes) = match mode % 8 {
        0 => (0, rest.to_vec()),
        1 => (0, chunk(rest)),
        _ => {
            let index = usize::from(mode / 8) % world.changes.len();
            let mut body = world.changes.get(index).map(|bytes| body(bytes)).unwrap_or_default();
            for pair in rest.chunks_exact(2) {
                if let [position, byte] = pair {
                    let len = body.len();
                    if let Some(place) = body.get_mut(usize::from(*position) % len.max(1)) {
                        *place = *byte;
                    }
                }
            }
            (index, chunk(&body))
        }
    };
    world.offer(index, &bytes)
}

/// Decodes `bytes` as what is stored beside a snapshot, and returns whether it is that. What the decoder accepts, it must read
/// again as the same.
///
/// # Panics
/// If that does not hold.
pub fn fuzz_tree(bytes: &[u8]) -> bool {
    let Some((tree, changes)) = Tree::decode(bytes) else { return false };
    let again = Tree::decode(&tree.encode(changes));
    assert!(again.is_some_and(|(again, _)| again.says_the_same(&tree)), "another tree after a round trip");
    true
}

/// A document, and valid changes that follow it one after the other.
pub(super) struct World {
    pub(super) before: Vec<Document>,
    pub(super) changes: Vec<Vec<u8>>,
}

impl World {
    pub(super) fn new() -> Self {
        let mut document = Document::new();
        make(&mut document, 1, |tx| {
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            for i in 0..6 {
                tx.insert(&list, i, i as i64)?;
            }
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "hello brave new world")?;
            tx.mark(&text, Mark::new("bold".into(), true, 2, 8), ExpandMark::Both)?;
            let map = tx.put_object(ROOT, "map", ObjType::Map)?;
            tx.put(&map, "k", vec![1u8, 2, 3])?;
            tx.put(ROOT, "counter", ScalarValue::counter(3))?;
            tx.put(ROOT, "name", "x")
        });
        let mut concurrent = document.clone();
        let there = make(&mut concurrent, 2, |tx| tx.put(ROOT, "name", "y"));
        make(&mut document, 1, |tx| tx.put(ROOT, "name", "z"));
        let answers = document.admit(&[Candidate {
            bytes: &there,
            actor: ActorId::new([2; 16]),
            action: WriteAction::Update,
            fields: None,
        }]);
        assert!(matches!(answers.as_slice(), [Admission::Admitted(_)]));
        let mut world = Self { before: Vec::new(), changes: Vec::new() };
        world.step(&mut document, |tx| tx.put(ROOT, "name", "merged"));
        world.step(&mut document, |tx| {
            let text = object(tx, "text")?;
            tx.splice_text(&text, 3, 2, "xyz")
        });
        world.step(&mut document, |tx| {
            let list = object(tx, "list")?;
            tx.insert(&list, 2, "w")?;
            tx.delete(&list, 0)
        });
        world.step(&mut document, |tx| tx.increment(ROOT, "counter", 4));
        world.step(&mut document, |tx| {
            let text = object(tx, "text")?;
            tx.mark(&text, Mark::new("em".into(), "v", 1, 6), ExpandMark::None)
        });
        world.step(&mut document, |tx| {
            let map = tx.put_object(ROOT, "map2", ObjType::Map)?;
            tx.put(&map, "x", 1.5)?;
            tx.delete(ROOT, "map")
        });
        world
    }

    fn step(&mut self, document: &mut Document, f: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>) {
        self.before.push(document.clone());
        self.changes.push(make(document, 7, f));
    }

    /// Offers bytes to the document before valid change `index`; returns whether they were admitted.
    pub(super) fn offer(&self, index: usize, bytes: &[u8]) -> bool {
        let Some(before) = self.before.get(index) else { return false };
        // Whoever is said to have written it may have: what matters here comes after that check.
        let (actor, action) = prescan(bytes).map_or((ActorId::ZERO, WriteAction::Update), |scan| {
            (scan.actor, if scan.deps.is_empty() { WriteAction::Create } else { WriteAction::Update })
        });
        let mut document = before.clone();
        let candidate = Candidate { bytes, actor, action, fields: None };
        let mut general = before.clone();
        let answers = document.admit(std::slice::from_ref(&candidate));
        assert_eq!(answers, general.admit_by_gate(&[candidate]), "the two ways differ");
        assert_eq!(document.json(), general.json(), "the two ways read otherwise");
        match answers.as_slice() {
            [Admission::Admitted(hash)] => {
                assert_eq!(document.change_bytes(hash).as_deref(), Some(bytes), "other bytes came back");
                assert_sound(&document);
                true
            }
            [Admission::Known(_) | Admission::MissingDeps(_) | Admission::Bad(_) | Admission::Held(_)] => {
                assert_eq!(document.heads(), before.heads(), "a refused change left something behind");
                assert_eq!(document.full().get_heads(), before.full().get_heads());
                false
            }
            _ => unreachable!("one candidate, one answer"),
        }
    }
}

/// Checks what must hold of any document at any time: it saves, loads to the same, and can be edited, and the edit
/// passes the gate of another replica.
///
/// # Panics
/// If it does not hold.
pub(super) fn assert_sound(document: &Document) {
    let snapshot = document.snapshot().expect("the document can be saved and loaded");
    let mut other = Document::load(Some(&snapshot), [], document.void_changes().clone(), BTreeSet::new())
        .expect("a verified snapshot loads");
    assert_eq!(other.heads(), document.heads());
    assert_eq!(other.full().get_heads(), document.full().get_heads());
    assert_shows_the_same(&other, document);
    let (mut editing, actor) = (document.clone(), ActorId::new([250; 16]));
    let change = editing.local_edit(&actor, |tx| tx.put(ROOT, "a key that nobody else writes", 1));
    let change = change.expect("the document can be edited").0.expect("the edit changes something");
    let action = if change.is_create { WriteAction::Create } else { WriteAction::Update };
    let answers = other.admit(&[Candidate { bytes: &change.bytes, actor, action, fields: None }]);
    assert_eq!(answers, [Admission::Admitted(change.hash)]);
    assert_eq!(other.heads(), editing.heads());
    assert_shows_the_same(&other, &editing);
    assert!(editing.snapshot().is_ok());
}

fn assert_shows_the_same(a: &Document, b: &Document) {
    assert_eq!(a.json(), b.json());
    let (a, b) = (a.view().hydrate(None), b.view().hydrate(None));
    // A number that is none does not equal itself.
    assert!(a == b || format!("{a:?}").contains("NaN"), "{a:?}\nagainst {b:?}");
}

fn make(
    document: &mut Document,
    by: u8,
    f: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
) -> Vec<u8> {
    let (change, ()) = document.local_edit(&ActorId::new([by; 16]), f).expect("a valid edit");
    change.expect("the edit changes something").bytes.to_vec()
}

fn object(tx: &Transaction<'_>, key: &str) -> Result<automerge::ObjId, AutomergeError> {
    let found = tx.get(ROOT, key)?.map(|(_, id)| id);
    found.ok_or_else(|| AutomergeError::InvalidObjId(key.to_owned()))
}

/// Wraps the body of a change in a chunk with the right length and checksum.
pub(super) fn chunk(body: &[u8]) -> Vec<u8> {
    chunk_of_type(1, body)
}

/// Wraps a body in a chunk of any type.
pub(super) fn chunk_of_type(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut hashed = vec![kind];
    leb128::write::unsigned(&mut hashed, body.len() as u64).expect("writing to memory succeeds");
    hashed.extend_from_slice(body);
    let digest = Sha256::digest(&hashed);
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83];
    bytes.extend(digest.iter().take(4));
    bytes.extend(hashed);
    bytes
}

/// Returns the body of a valid chunk.
pub(super) fn body(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes.get(9..).unwrap_or_default();
    leb128::read::unsigned(&mut rest).expect("the length of a valid chunk");
    rest.to_vec()
}
