//! Documents of many shapes, to which hostile changes are offered.

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjType, ROOT, ScalarValue};

use super::{World, make};
use crate::document::{Admission, Candidate, Document};
use crate::id::ActorId;
use crate::op::WriteAction;

/// Returns the documents, each of them sound.
pub(super) fn documents() -> Vec<Document> {
    let mut documents =
        vec![Document::new(), small(), text(), lists(), deep(), counters(), wide(), many_heads(), long()];
    // Those of the older targets: conflicts, marks, deletes.
    documents.extend(World::new().before);
    documents
}

/// One change, as most documents have: Automerge's document is not built for it.
fn small() -> Document {
    let mut document = Document::new();
    make(&mut document, 1, |tx| {
        tx.put(ROOT, "name", "Ada")?;
        tx.put(ROOT, "born", 1815)?;
        let tags = tx.put_object(ROOT, "tags", ObjType::List)?;
        tx.insert(&tags, 0, "a")?;
        tx.insert(&tags, 1, 2.5)
    });
    document
}

fn text() -> Document {
    let mut document = Document::new();
    let object = |tx: &mut Transaction<'_>| super::object(tx, "t");
    make(&mut document, 1, |tx| {
        let text = tx.put_object(ROOT, "t", ObjType::Text)?;
        tx.splice_text(&text, 0, 0, "The quick brown fox jumps over the lazy dog. ¡Olé! 🦊")
    });
    for by in 2..5 {
        make(&mut document, by, |tx| {
            let text = object(tx)?;
            let at = usize::from(by);
            tx.splice_text(&text, at * 3, 2, "inserted")?;
            let mark = Mark::new("bold".into(), i64::from(by), at, at + 9);
            tx.mark(&text, mark, if by == 2 { ExpandMark::Both } else { ExpandMark::None })
        });
    }
    document
}

fn lists() -> Document {
    let mut document = Document::new();
    make(&mut document, 1, |tx| {
        let rows = tx.put_object(ROOT, "rows", ObjType::List)?;
        for i in 0..12 {
            let row = tx.insert_object(&rows, i, ObjType::Map)?;
            tx.put(&row, "i", i as i64)?;
            let cells = tx.put_object(&row, "cells", ObjType::List)?;
            tx.insert(&cells, 0, ScalarValue::Null)?;
        }
        Ok::<_, AutomergeError>(())
    });
    make(&mut document, 2, |tx| {
        let rows = super::object(tx, "rows")?;
        tx.delete(&rows, 3)?;
        tx.delete(&rows, 0)?;
        tx.insert(&rows, 2, ScalarValue::Timestamp(7))
    });
    document
}

/// Nearly as deep as a document may be.
fn deep() -> Document {
    let mut document = Document::new();
    make(&mut document, 1, |tx| {
        let mut at = ROOT;
        for _ in 0..crate::limits::DOC_DEPTH_MAX - 1 {
            at = tx.put_object(&at, "k", ObjType::Map)?;
        }
        tx.put(&at, "bottom", true)
    });
    document
}

fn counters() -> Document {
    let mut document = Document::new();
    make(&mut document, 1, |tx| tx.put(ROOT, "n", ScalarValue::counter(3)));
    for by in 2..8 {
        make(&mut document, by, |tx| tx.increment(ROOT, "n", i64::from(by) - 4));
    }
    document
}

/// Many keys.
fn wide() -> Document {
    let mut document = Document::new();
    make(&mut document, 1, |tx| {
        for key in 0..200 {
            tx.put(ROOT, format!("key-{key}"), key)?;
        }
        Ok::<_, AutomergeError>(())
    });
    document
}

/// Concurrent changes by forty authors.
fn many_heads() -> Document {
    let mut document = small();
    let before = document.clone();
    for by in 10..50 {
        let mut other = before.clone();
        let bytes = make(&mut other, by, |tx| {
            tx.put(ROOT, "name", format!("by {by}"))?;
            let tags = super::object(tx, "tags")?;
            tx.insert(&tags, 1, i64::from(by))
        });
        let candidate =
            Candidate { bytes: &bytes, actor: ActorId::new([by; 16]), action: WriteAction::Update, fields: None };
        let answers = document.admit(&[candidate]);
        assert!(matches!(answers.as_slice(), [Admission::Admitted(_)]), "{answers:?}");
    }
    document
}

/// A long history.
fn long() -> Document {
    let mut document = Document::new();
    for n in 0..150_i64 {
        make(&mut document, u8::try_from(1 + n % 3).unwrap_or(1), |tx| tx.put(ROOT, format!("k{}", n % 10), n));
    }
    document
}
