//! Deleting, and coming back.

use std::collections::BTreeSet;

use super::making::{deliver, put};
use crate::document::Document;
use crate::id::ChangeHash;

fn heads(document: &Document) -> BTreeSet<ChangeHash> {
    document.heads().iter().copied().collect()
}

#[test]
fn a_delete_covers_what_it_saw_and_a_concurrent_change_brings_the_document_back() {
    let mut here = Document::new();
    let create = put(&mut here, 1, "a", 1);
    let mut there = Document::new();
    deliver(&mut there, &[create]);

    put(&mut here, 1, "a", 2);
    let delete = heads(&here);
    assert!(!here.is_deleted());
    assert!(here.set_deletes(delete.clone()));
    assert!(here.is_deleted());
    assert!(!here.set_deletes(delete.clone()));

    let concurrent = put(&mut there, 2, "b", 1);
    deliver(&mut here, std::slice::from_ref(&concurrent));
    assert!(!here.is_deleted(), "a change concurrent with the delete brings the document back");

    let both: BTreeSet<_> = delete.iter().copied().chain([concurrent.hash]).collect();
    assert!(here.set_deletes(both));
    assert!(here.is_deleted(), "two deletes together cover everything");
    put(&mut here, 1, "a", 3);
    assert!(!here.is_deleted(), "writing again brings it back");
}

#[test]
fn an_old_replica_does_not_bring_a_deleted_document_back() {
    let mut here = Document::new();
    let old = vec![put(&mut here, 1, "a", 1), put(&mut here, 1, "a", 2), put(&mut here, 1, "a", 3)];
    here.set_deletes(heads(&here));
    deliver(&mut here, &old);
    assert!(here.is_deleted());

    // The delete is here before all of what it names.
    let mut late = Document::new();
    late.set_deletes(heads(&here));
    assert!(!late.is_deleted(), "a document without changes is not a deleted one");
    deliver(&mut late, &old[..2]);
    assert!(!late.is_deleted(), "what the delete names is not here yet");
    deliver(&mut late, &old[2..]);
    assert!(late.is_deleted());
}

#[test]
fn void_changes_neither_keep_a_document_nor_bring_it_back() {
    let mut here = Document::new();
    let create = put(&mut here, 1, "a", 1);
    let mut there = here.clone();
    let void = put(&mut there, 2, "b", 1);
    here.set_deletes([create.hash].into());
    assert!(here.is_deleted());
    deliver(&mut here, std::slice::from_ref(&void));
    assert!(!here.is_deleted());
    assert!(here.add_void([void.hash]).unwrap());
    assert!(here.is_deleted());
    assert!(here.remove_void([void.hash]).unwrap());
    assert!(!here.is_deleted());

    // A delete that names a void change covers that one's ancestors.
    here.set_void([void.hash].into()).unwrap();
    here.set_deletes([void.hash].into());
    assert!(here.is_deleted());
    here.add_void([create.hash]).unwrap();
    assert!(here.is_empty());
    assert!(!here.is_deleted());
}
