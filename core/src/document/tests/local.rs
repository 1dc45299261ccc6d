//! Edits of this replica.

use std::collections::BTreeSet;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjType, ROOT, ReadDoc};

use super::making::{Random, Sent, actor, assert_same, deliver, edit_at_random, history, put, sample, shown, with_all};
use crate::document::fuzzing::assert_sound;
use crate::document::{Document, EditError, GateError};
use crate::id::ChangeHash;
use crate::limits;

#[test]
fn nothing_changed_is_no_change() {
    let mut document = Document::new();
    put(&mut document, 1, "a", 1);
    let heads = document.heads().to_vec();
    let (change, result) = document.local_edit(&actor(2), |tx| tx.put(ROOT, "a", 1).map(|()| "done")).unwrap();
    assert_eq!((change, result), (None, "done"));
    assert_eq!(document.heads(), heads);
}

#[test]
fn a_failed_edit_leaves_the_document_as_it_was() {
    let mut document = Document::new();
    sample(&mut document, 1);
    let before = document.clone();
    let failed = document.local_edit(&actor(1), |tx| {
        tx.put(ROOT, "a", 5).unwrap();
        let list = tx.get(ROOT, "l").unwrap().unwrap().1;
        tx.delete(&list, 0).unwrap();
        Err::<(), _>("no")
    });
    assert_eq!(failed.unwrap_err(), EditError::Edit("no"));
    assert_same(&document, &before);
    assert_sound(&document);
}

#[test]
fn a_panic_in_an_edit_breaks_only_this_copy() {
    let mut document = Document::new();
    put(&mut document, 1, "a", 1);
    let failed: Result<(_, ()), EditError<()>> = document.local_edit(&actor(1), |tx| {
        tx.put(ROOT, "a", 2).unwrap();
        panic!("an edit that panics")
    });
    assert_eq!(failed.unwrap_err(), EditError::Broken("an edit that panics".to_owned()));
    assert!(document.is_broken());
    assert!(matches!(document.local_edit(&actor(1), |tx| tx.put(ROOT, "a", 2)), Err(EditError::Broken(_))));
    assert!(document.snapshot().is_err());
}

#[test]
fn edits_beyond_the_bounds_of_the_gate_are_undone() {
    let mut document = Document::new();
    sample(&mut document, 1);
    let before = document.clone();
    let long_key = "k".repeat(limits::DOC_KEY_BYTES_MAX + 1);
    let failed = document.local_edit(&actor(1), |tx| tx.put(ROOT, long_key, 1));
    assert_eq!(failed.unwrap_err(), EditError::Gate(GateError::Limit("key")));
    assert_same(&document, &before);
    let failed = document.local_edit(&actor(1), |tx| tx.put(ROOT, "a", "x".repeat(limits::CHANGE_BYTES_MAX)));
    assert_eq!(failed.unwrap_err(), EditError::Gate(GateError::Limit("bytes")));
    let failed = document.local_edit(&actor(1), |tx| {
        let mut object = ROOT;
        for _ in 0..=limits::DOC_DEPTH_MAX {
            object = tx.put_object(&object, "deep", ObjType::Map)?;
        }
        Ok::<_, AutomergeError>(())
    });
    assert_eq!(failed.unwrap_err(), EditError::Gate(GateError::Depth));
    assert_same(&document, &before);
    assert_sound(&document);
}

#[test]
fn too_many_heads_are_merged_in_one_empty_change() {
    let mut document = Document::new();
    let create = put(&mut document, 1, "a", 0);
    let concurrent: Vec<_> = (2..=(limits::DOC_HEADS_MAX as u8 + 2))
        .map(|by| {
            let mut other = Document::new();
            deliver(&mut other, std::slice::from_ref(&create));
            put(&mut other, by, "a", by.into())
        })
        .collect();
    let mut all = vec![create];
    all.extend(concurrent[..limits::DOC_HEADS_MAX].iter().cloned());
    deliver(&mut document, &all);
    assert_eq!(document.merge_heads(&actor(1)), Ok(None));
    deliver(&mut document, &concurrent);
    let value = shown(&document);
    let merge = document.merge_heads(&actor(1)).unwrap().unwrap();
    assert_eq!(document.heads(), [merge.hash]);
    assert_eq!(shown(&document), value);
    all.extend(concurrent.last().cloned());
    all.push(Sent::new(actor(1), merge));
    assert_same(&document, &with_all(&all));
    assert_sound(&document);
}

/// Replicas hold one history with the same void changes; one of them edits on and on.
#[test]
fn edits_pass_the_gate_of_others_whatever_is_void() {
    for seed in 1..=30 {
        let mut random = Random::new(seed);
        let mut all = history(&mut random, 3, 25);
        let void: BTreeSet<ChangeHash> = all.iter().filter(|_| random.below(5) == 0).map(|sent| sent.hash).collect();
        let mut here = with_all(&all);
        here.set_void(void.clone()).unwrap();
        for _ in 0..6 {
            // A new actor, and one whose own changes may be void.
            let by = if random.below(2) == 0 { 77 } else { 1 + random.below(3) as u8 };
            let heads = here.heads().to_vec();
            if let Some(sent) = edit_at_random(&mut random, &mut here, by) {
                assert_eq!(here.heads(), [sent.hash], "an edit follows all heads: {heads:?}");
                all.push(sent);
            }
        }
        let mut there = with_all(&all);
        there.set_void(void).unwrap();
        assert_same(&here, &there);
        assert_sound(&here);
        here.set_void(BTreeSet::new()).unwrap();
        assert_same(&here, &with_all(&all));
    }
}
