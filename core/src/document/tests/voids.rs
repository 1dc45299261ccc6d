//! Documents without their void changes.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, Change, ObjType, ReadDoc};

use super::making::{Random, Sent, deliver, edit, history, put, shown, with_all};
use crate::document::Document;
use crate::document::fuzzing::assert_sound;
use crate::document::native::{change_hash, native_hash};
use crate::document::transplant::transplant;
use crate::id::ChangeHash;
use automerge::ROOT;
use automerge::transaction::Transactable;

fn changes(all: &[Sent]) -> Vec<Change> {
    all.iter().map(|sent| Change::try_from(sent.bytes.as_ref()).unwrap()).collect()
}

fn plain(changes: impl IntoIterator<Item = Change>) -> Automerge {
    let mut doc = Automerge::new();
    doc.apply_changes(changes.into_iter().collect::<Vec<_>>()).unwrap();
    doc
}

/// Void changes and everything that depends on them.
fn with_dependents(changes: &[Change], void: &BTreeSet<ChangeHash>) -> BTreeSet<ChangeHash> {
    let mut closed = void.clone();
    loop {
        let before = closed.len();
        for change in changes {
            if change.deps().iter().any(|dep| closed.contains(&change_hash(dep))) {
                closed.insert(change_hash(&change.hash()));
            }
        }
        if closed.len() == before {
            return closed;
        }
    }
}

#[test]
fn with_nothing_void_a_transplant_is_the_identity() {
    for seed in 1..=40 {
        let all = history(&mut Random::new(seed), 4, 30);
        let result = transplant(&changes(&all), &BTreeSet::new());
        assert_eq!(result.inert, 0);
        let before: BTreeMap<_, _> = all.iter().map(|sent| (native_hash(&sent.hash), sent.bytes.to_vec())).collect();
        let after: BTreeMap<_, _> =
            result.changes.iter().map(|change| (change.hash(), change.raw_bytes().to_vec())).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn with_dependents_void_too_a_transplant_leaves_them_out() {
    for seed in 1..=40 {
        let mut random = Random::new(seed);
        let all = changes(&history(&mut random, 4, 30));
        let void = all.iter().filter(|_| random.below(6) == 0).map(|change| change_hash(&change.hash())).collect();
        let void = with_dependents(&all, &void);
        let result = transplant(&all, &void);
        assert_eq!(result.inert, 0);
        let kept = all.iter().filter(|change| !void.contains(&change_hash(&change.hash()))).cloned();
        assert_eq!(plain(result.changes).hydrate(None), plain(kept).hydrate(None));
    }
}

#[test]
fn a_transplant_depends_on_no_order_and_loads() {
    let mut inert = 0;
    for seed in 1..=40 {
        let mut random = Random::new(seed);
        let mut all = changes(&history(&mut random, 4, 30));
        let by = all[random.below(all.len())].actor_id().clone();
        let from = 1 + random.below(4) as u64;
        let void: BTreeSet<_> = all
            .iter()
            .filter(|change| *change.actor_id() == by && change.seq() >= from)
            .map(|change| change_hash(&change.hash()))
            .collect();
        let first = transplant(&all, &void);
        inert += first.inert;
        let hashes: BTreeSet<_> = first.changes.iter().map(Change::hash).collect();
        let doc = plain(first.changes);
        assert_eq!(doc.get_changes_meta(&[]).len(), hashes.len());
        let again = Automerge::load(&doc.save()).unwrap();
        assert_eq!(again.hydrate(None), doc.hydrate(None));
        random.shuffle(&mut all);
        let mut second = transplant(&all, &void);
        assert_eq!(second.changes.iter().map(Change::hash).collect::<BTreeSet<_>>(), hashes);
        random.shuffle(&mut second.changes);
        let mut one_by_one = Automerge::new();
        for change in second.changes {
            one_by_one.apply_changes([change]).unwrap();
        }
        assert_eq!(one_by_one.hydrate(None), doc.hydrate(None));
        let mut document = Document::new();
        document.set_void(void).unwrap();
        for change in &all {
            assert!(first.heads.contains_key(&change.hash()));
        }
    }
    assert!(inert > 0, "the worlds contain operations on what void changes made");
}

#[test]
fn honest_work_on_top_of_a_void_change_stays() {
    let mut document = Document::new();
    put(&mut document, 1, "a", 1);
    let void = put(&mut document, 2, "a", 66);
    put(&mut document, 1, "b", 2);
    assert!(document.set_void([void.hash].into()).unwrap());
    assert!(document.is_transplanted());
    let value = |document: &Document, key: &str| document.view().get(ROOT, key).unwrap().unwrap().0.as_i64();
    assert_eq!((value(&document, "a"), value(&document, "b")), (Some(1), Some(2)));
    assert!(!document.set_void([void.hash, ChangeHash::ZERO].into()).unwrap(), "an unknown change changes nothing");
    let heads = document.heads().to_vec();
    let sent = edit(&mut document, 1, |tx| tx.put(ROOT, "a", 3));
    assert_eq!((value(&document, "a"), value(&document, "b")), (Some(3), Some(2)));
    // The past, in the view's own hashes.
    let past = document.view_heads(&heads).unwrap();
    assert_eq!(document.view().get_at(ROOT, "a", &past).unwrap().unwrap().0.as_i64(), Some(1));
    assert!(document.view_heads(&[ChangeHash::ZERO]).is_none());
    assert_sound(&document);
    // Readmitted: what overwrote the void value overwrites it still.
    assert!(document.remove_void([void.hash]).unwrap());
    assert_eq!(value(&document, "a"), Some(3));
    assert_eq!(document.heads(), [sent.hash]);
}

#[test]
fn a_void_change_that_nobody_builds_on_is_left_out() {
    let mut document = Document::new();
    let create = put(&mut document, 1, "a", 1);
    let mut other = document.clone();
    let void = put(&mut other, 2, "a", 66);
    document.set_void([void.hash].into()).unwrap();
    let before = shown(&document);
    deliver(&mut document, std::slice::from_ref(&void));
    assert_eq!(shown(&document), before);
    assert_eq!(document.heads(), [create.hash]);
    assert!(!document.is_transplanted());
    assert_eq!(document.change_count(), 2);
    // Its author goes on with the same actor: the next change follows the void one, as the gate demands.
    let sent = put(&mut document, 2, "b", 1);
    let mut third = with_all(&[create, void.clone(), sent]);
    third.set_void([void.hash].into()).unwrap();
    assert_eq!(shown(&third), shown(&document));
    assert_sound(&document);
}

#[test]
fn what_replaced_a_void_value_replaces_what_that_one_had_replaced() {
    let mut document = Document::new();
    edit(&mut document, 1, |tx| {
        tx.put(ROOT, "a", 1)?;
        tx.put(ROOT, "b", 1)?;
        let list = tx.put_object(ROOT, "l", ObjType::List)?;
        tx.insert(&list, 0, "first")?;
        tx.insert(&list, 1, "last")
    });
    let list = document.view().get(ROOT, "l").unwrap().unwrap().1;
    let void = edit(&mut document, 2, |tx| {
        tx.put(ROOT, "a", 66)?;
        tx.put(ROOT, "b", 66)?;
        tx.insert(&list, 1, "void")?;
        tx.put_object(ROOT, "void", ObjType::Map).map(drop)
    });
    let made = document.view().get(ROOT, "void").unwrap().unwrap().1;
    edit(&mut document, 1, |tx| {
        tx.put(ROOT, "a", 3)?;
        tx.delete(ROOT, "b")?;
        tx.insert(&list, 2, "after void")?;
        tx.put(&made, "inside", 1)
    });
    document.set_void([void.hash].into()).unwrap();
    let view = document.view();
    assert_eq!(view.get_all(ROOT, "a").unwrap().len(), 1, "no conflict with the value before the void one");
    assert!(view.get(ROOT, "b").unwrap().is_none());
    assert!(view.get(ROOT, "void").unwrap().is_none());
    let items: Vec<_> = view.values(&list).map(|(value, _)| value.as_str().unwrap().to_owned()).collect();
    assert_eq!(items, ["first", "after void", "last"]);
    assert_sound(&document);
}
