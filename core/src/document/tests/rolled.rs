//! Documents without their settled history, beside the same ones with all of it.

use std::collections::BTreeSet;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, Value};
use bytes::Bytes;

use super::making::{Random, Sent, assert_same, deliver, edit, edit_at_random, fold, history, put, with_all};
use crate::document::gate::prescan;
use crate::document::view::View;
use crate::document::{Document, Folded, History, native_hash};
use crate::id::ChangeHash;
use crate::op::WriteAction;

const LONG_CHANGES: usize = 4_096;
const UNSETTLED_CHANGES: usize = LONG_CHANGES / 8;

/// All that a document shows, with the operation that wrote each value, conflicts and marks.
fn told(doc: &Automerge) -> String {
    fn tell(doc: &Automerge, object: &ObjId, kind: ObjType, out: &mut String) {
        let mut places: Vec<(String, Vec<(Value<'_>, ObjId)>)> = Vec::new();
        match kind {
            ObjType::Map | ObjType::Table => {
                for key in doc.keys(object) {
                    places.push((key.clone(), doc.get_all(object, key).unwrap()));
                }
            }
            ObjType::List | ObjType::Text => {
                for index in 0..doc.length(object) {
                    places.push((index.to_string(), doc.get_all(object, index).unwrap()));
                }
            }
        }
        if kind == ObjType::Text {
            out.push_str(&format!("{:?}", doc.marks(object).unwrap()));
        }
        for (place, values) in places {
            for (value, id) in values {
                out.push_str(&format!("\n{object} {place}: {value:?} {id}"));
                if let Value::Object(kind) = value {
                    tell(doc, &id, kind, out);
                }
            }
        }
    }
    let mut out = String::new();
    tell(doc, &ROOT, ObjType::Map, &mut out);
    out
}

fn assert_tells_the_same(a: &Document, b: &Document) {
    assert_eq!(a.heads(), b.heads());
    let (left, right) = (told(a.view()), told(b.view()));
    let different = left.lines().zip(right.lines()).find(|(left, right)| left != right);
    assert!(left == right, "{different:?}");
    assert_eq!(a.change_count(), b.change_count());
}

fn is_rolled(document: &Document) -> bool {
    matches!(document.view, View::Rolled(_))
}

/// Rolls a document over, whatever its length.
pub(super) fn roll(document: &mut Document, unsettled: usize) -> bool {
    let (snapshot, _) = fold(document);
    document.build().unwrap();
    document.roll(snapshot, unsettled)
}

fn again(document: &mut Document, unsettled: usize) -> bool {
    let heads: Vec<_> = document.heads.iter().map(native_hash).collect();
    let View::Rolled(rolled) = &mut document.view else { return false };
    let Some(again) = rolled.again(&heads, unsettled) else { return false };
    **rolled = again;
    true
}

/// Stores a rolled document and loads it again.
fn stored(document: &Document) -> Option<Document> {
    let View::Rolled(rolled) = &document.view else { return None };
    let short = rolled.clone().encode().unwrap();
    let (snapshot, _) = fold(&mut document.clone());
    Some(Document::resume(&[snapshot], &short, [], BTreeSet::new()).unwrap())
}

fn sent_of(hash: &ChangeHash, bytes: Bytes) -> Sent {
    let scan = prescan(&bytes).unwrap();
    let action = if scan.deps.is_empty() { WriteAction::Create } else { WriteAction::Update };
    Sent { actor: scan.actor, hash: *hash, bytes, action }
}

/// A document, the same one rolled over, and others that edit and exchange.
struct World {
    random: Random,
    whole: Document,
    short: Document,
    others: Vec<Document>,
    /// What the others made and the two have not got.
    on_the_way: Vec<Sent>,
    /// Changes taken, and made, without the settled history.
    taken: usize,
    made: usize,
}

impl World {
    /// Begins with a random document; what some of its makers did alone comes late. None if it cannot be rolled over.
    fn new(seed: u64) -> Option<Self> {
        let mut random = Random::new(seed);
        let all = history(&mut random, 4, 50);
        let (before, late) = all.split_at(all.len() * (2 + random.below(3)) / 4);
        let mut whole = with_all(before);
        put(&mut whole, 77, "merged", seed as i64);
        let others = vec![whole.clone(); 3];
        let mut short = whole.clone();
        let unsettled = random.below(6);
        roll(&mut short, unsettled).then_some(Self {
            random,
            whole,
            short,
            others,
            on_the_way: late.to_vec(),
            taken: 0,
            made: 0,
        })
    }

    fn step(&mut self) {
        let random = &mut self.random;
        let at = random.below(self.others.len());
        match random.below(8) {
            0..=2 => {
                let made = edit_at_random(random, &mut self.others[at], at as u8 + 60);
                self.on_the_way.extend(made);
            }
            3 => {
                let from = self.others[random.below(3)].clone();
                let all: Vec<_> = from.changes().map(|(hash, bytes)| sent_of(&hash, bytes)).collect();
                deliver(&mut self.others[at], &all);
            }
            4 => {
                let from = &self.whole;
                let all: Vec<_> = from.changes().map(|(hash, bytes)| sent_of(&hash, bytes)).collect();
                deliver(&mut self.others[at], &all);
            }
            5 => self.edit(),
            6 => {
                // The oldest of the others' first; what it builds on may be among those that are not here yet.
                let late = random.below(12) == 0;
                let next = self.on_the_way.iter().position(|sent| {
                    let deps = prescan(&sent.bytes).unwrap().deps;
                    let is_late = sent.actor.as_bytes()[0] < 50;
                    is_late == late && deps.iter().all(|dep| self.whole.contains(dep))
                });
                let Some(next) = next else { return };
                let sent = self.on_the_way.remove(next);
                deliver(&mut self.whole, std::slice::from_ref(&sent));
                deliver(&mut self.short, &[sent]);
                self.taken += usize::from(is_rolled(&self.short));
            }
            _ => {
                let unsettled = random.below(8);
                if !is_rolled(&self.short) {
                    roll(&mut self.short, unsettled);
                } else if random.below(2) == 0 {
                    again(&mut self.short, unsettled);
                } else if let Some(loaded) = stored(&self.short) {
                    self.short = loaded;
                }
            }
        }
        assert_tells_the_same(&self.short, &self.whole);
    }

    fn edit(&mut self) {
        let by = 50 + self.random.below(3) as u8;
        let mut same = self.random.clone();
        let made = [(&mut self.random, &mut self.whole), (&mut same, &mut self.short)]
            .map(|(random, document)| edit_at_random(random, document, by).map(|sent| sent.bytes));
        assert_eq!(made[0], made[1], "the change to sign is the same");
        self.made += usize::from(is_rolled(&self.short));
    }
}

#[test]
fn whatever_comes_shows_the_same_without_the_settled_history() {
    let (mut taken, mut made) = (0, 0);
    for seed in 1..=30 {
        let Some(mut world) = World::new(seed) else { continue };
        for _ in 0..120 {
            world.step();
        }
        assert!(world.short.is_consistent());
        assert_same(&world.short, &world.whole);
        taken += world.taken;
        made += world.made;
    }
    assert!(taken > 60 && made > 150, "{taken} {made}");
}

/// A document with a list that two take turns in, long enough to be rolled over, and what one of them did alone early on.
fn long() -> (Document, Sent) {
    let mut document = Document::new();
    document.set_long_history(LONG_CHANGES);
    edit(&mut document, 1, |tx| {
        let list = tx.put_object(ROOT, "list", ObjType::List)?;
        tx.insert(&list, 0, "first")
    });
    let mut alone = document.clone();
    let early = put(&mut alone, 3, "early", 1);
    for n in 0..LONG_CHANGES as i64 {
        edit(&mut document, 1 + (n / 50 % 2) as u8, |tx| {
            let (_, list) = tx.get(ROOT, "list")?.expect("a list");
            tx.put(ROOT, "n", n)?;
            tx.put(&list, 0, n)
        });
    }
    (document, early)
}

#[test]
fn a_long_history_is_stored_in_parts_and_not_loaded() {
    let (mut document, early) = long();
    let Folded { history, short, is_long } = document.fold(&[], false).unwrap();
    let History::Whole(first) = history else { panic!("nothing was stored before") };
    assert!(is_rolled(&document) && is_long && !document.full.is_built());
    let mut parts = vec![first];
    let mut short = short;
    let count = LONG_CHANGES + 1;
    // More is put behind it, until the rest is settled as well; each time it loads from what is stored.
    let mut n = 0;
    for fold in 1..=8 {
        let mut tail = Vec::new();
        for _ in 0..UNSETTLED_CHANGES / 4 {
            n += 1;
            tail.push(put(&mut document, 1 + (n % 2) as u8, "m", n).hash);
        }
        let bytes: Vec<Bytes> = tail.iter().rev().map(|hash| document.change_bytes(hash).unwrap()).collect();
        let resumed = || bytes.iter().map(|bytes| &**bytes);
        let loaded = Document::resume(&parts, &short, resumed(), BTreeSet::new()).unwrap();
        assert!(is_rolled(&loaded) && loaded.change_count() == count + n as usize);
        assert_tells_the_same(&loaded, &document);
        let folded = document.fold(&tail, true).unwrap();
        let History::More(part) = folded.history else { panic!("the whole history was written again") };
        assert_eq!(part.len(), bytes.iter().map(Bytes::len).sum::<usize>());
        parts.push(part);
        short = folded.short;
        assert!(is_rolled(&document) && !document.full.is_built());
        let View::Rolled(rolled) = &document.view else { unreachable!() };
        let unsettled = if fold == 4 || fold == 8 {
            UNSETTLED_CHANGES
        } else {
            UNSETTLED_CHANGES + fold % 4 * (UNSETTLED_CHANGES / 4)
        };
        assert_eq!(rolled.unsettled(), unsettled);
        assert!(short.len() < 200_000, "{}", short.len());
    }
    let loaded = Document::resume(&parts, &short, [], BTreeSet::new()).unwrap();
    assert!(is_rolled(&loaded) && !loaded.full.is_built());
    assert_same(&loaded, &document);
    assert!(loaded.is_consistent());
    // Who was away since the beginning is heard, at the price of loading it all; the next to write goes on without.
    let mut late = Document::resume(&parts, &short, [], BTreeSet::new()).unwrap();
    late.set_long_history(LONG_CHANGES);
    deliver(&mut late, std::slice::from_ref(&early));
    assert!(!is_rolled(&late) && late.heads().len() == 2);
    assert!(matches!(late.view().get(ROOT, "early"), Ok(Some(_))));
    put(&mut late, 1, "m", -1);
    late.fold(&[], true).unwrap();
    assert!(is_rolled(&late), "all is known to the only head");
    assert!(matches!(late.view().get(ROOT, "early"), Ok(Some(_))));
    // Without what stands beside the history, or with a damaged one, there is still the history.
    for damaged in [&[][..], &short[..short.len() / 2]] {
        let loaded = Document::resume(&parts, damaged, [], BTreeSet::new()).unwrap();
        assert_tells_the_same(&loaded, &document);
    }
    // One that belongs to another state is found out.
    let older = Document::resume(&parts[..1], &short, [], BTreeSet::new()).unwrap();
    assert!(!older.is_consistent());
}

#[test]
fn a_delete_covers_a_long_history_without_loading_it() {
    let (mut document, _) = long();
    fold(&mut document);
    assert!(is_rolled(&document));
    let heads = document.heads().to_vec();
    put(&mut document, 1, "m", 1);
    assert!(!document.set_deletes(heads.into_iter().collect()), "something came after what the delete saw");
    let heads: BTreeSet<_> = document.heads().iter().copied().collect();
    assert!(document.set_deletes(heads.clone()) && document.is_deleted());
    put(&mut document, 2, "m", 2);
    assert!(!document.is_deleted());
    assert!(document.set_deletes(heads.into_iter().chain(document.heads().to_vec()).collect()));
    assert!(is_rolled(&document) && !document.full.is_built());
}

#[test]
fn what_a_writer_saw_of_a_long_history_is_found() {
    let (mut document, _) = long();
    fold(&mut document);
    let before = document.heads().to_vec();
    put(&mut document, 1, "n", -1);
    let by = super::making::actor(4);
    let base = document.base_for(&by, &before).unwrap();
    assert!(is_rolled(&document));
    assert_eq!(document.view().get_at(ROOT, "n", &base).unwrap().unwrap().0.as_i64(), Some(LONG_CHANGES as i64 - 1));
    // What is settled takes the history.
    let (first, _) = document.changes().next().unwrap();
    let base = document.base_for(&by, &[first]).unwrap();
    assert!(!is_rolled(&document));
    assert!(document.view().get_at(ROOT, "n", &base).unwrap().is_none());
    assert!(document.base_for(&by, &[ChangeHash::ZERO]).is_none());
}
