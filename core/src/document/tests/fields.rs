//! Changes that declare which fields they touch, at the gate and on every way around it.

use std::collections::BTreeSet;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjType, ROOT, ReadDoc};

use super::making::{Sent, actor, assert_same, deliver, edit};
use super::rolled::roll;
use crate::document::edit::{self, Edit, EditErrorKind, EditFormat, EditRights, FieldTypes};
use crate::document::json::{self, Value};
use crate::document::redact::redact;
use crate::document::{Admission, Candidate, Document, GateError, LocalChange};
use crate::op::{FieldPaths, FieldRights, Fields};

const BAD: Admission = Admission::Bad(GateError::Fields);

fn paths(texts: &[&str]) -> FieldPaths {
    FieldPaths::of(texts.iter().map(|text| text.parse().unwrap()))
}

fn value(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap()
}

fn offer(document: &Document, sent: &Sent, fields: &[&str]) -> Admission {
    let fields = paths(fields);
    let candidate = Candidate { fields: Some(&fields), ..sent.candidate() };
    let mut target = document.clone();
    let answer = target.admit(&[candidate]).pop().unwrap();
    if !matches!(answer, Admission::Admitted(_)) {
        assert_same(&target, document);
    }
    answer
}

/// `{"l": [{"n": 1, "o": 2}], "m": {"k": {"deep": 1}, "n": 1}, "t": "text", "c": counter}`
fn base() -> (Document, Sent) {
    let mut document = Document::new();
    let made = edit(&mut document, 1, |tx| {
        let list = tx.put_object(ROOT, "l", ObjType::List)?;
        let element = tx.insert_object(&list, 0, ObjType::Map)?;
        tx.put(&element, "n", 1)?;
        tx.put(&element, "o", 2)?;
        let map = tx.put_object(ROOT, "m", ObjType::Map)?;
        let inner = tx.put_object(&map, "k", ObjType::Map)?;
        tx.put(&inner, "deep", 1)?;
        tx.put(&map, "n", 1)?;
        let text = tx.put_object(ROOT, "t", ObjType::Text)?;
        tx.splice_text(&text, 0, 0, "text")?;
        tx.put(ROOT, "c", automerge::ScalarValue::counter(1))
    });
    (document, made)
}

type Doing = fn(&mut Transaction<'_>) -> Result<(), AutomergeError>;
/// What is done, how, the fields that cover it, and those that do not.
type Case<'a> = (&'a str, Doing, &'a [&'a [&'a str]], &'a [&'a [&'a str]]);

fn below(tx: &Transaction<'_>, keys: &[&str]) -> automerge::ObjId {
    keys.iter().fold(ROOT, |object, key| match key.parse::<usize>() {
        Ok(index) => tx.get(object, index).unwrap().unwrap().1,
        Err(_) => tx.get(object, *key).unwrap().unwrap().1,
    })
}

#[test]
fn every_kind_of_operation_lies_in_its_place() {
    let cases: &[Case] = &[
        ("put", |tx| tx.put(ROOT, "x", 1), &[&["/x"], &["/*"], &["/w", "/x"]], &[&["/y"], &["/x/y"], &[]]),
        ("delete", |tx| tx.delete(ROOT, "m"), &[&["/m"]], &[&["/m/k", "/m/n"], &["/l"]]),
        ("increment", |tx| tx.increment(ROOT, "c", 2), &[&["/c"]], &[&["/t"]]),
        (
            "nested",
            |tx| {
                let map = below(tx, &["m", "k"]);
                tx.put(map, "deep", 2)
            },
            &[&["/m"], &["/m/k"], &["/m/k/deep"], &["/m/*/deep"]],
            &[&["/m/n"], &["/m/k/deeper"], &["/deep"], &["/k"]],
        ),
        (
            "element",
            |tx| {
                let element = below(tx, &["l", "0"]);
                tx.put(element, "n", 2)
            },
            &[&["/l"], &["/l/*"], &["/l/*/n"]],
            &[&["/l/*/o"], &["/l/0/n"], &["/n"]],
        ),
        (
            "insert",
            |tx| {
                let list = below(tx, &["l"]);
                tx.insert(list, 1, 7)
            },
            &[&["/l"], &["/l/*"]],
            &[&["/l/*/n"], &["/m"]],
        ),
        (
            "replace an element",
            |tx| {
                let list = below(tx, &["l"]);
                tx.put(list, 0, 7)
            },
            &[&["/l/*"]],
            &[&["/l/*/n", "/l/*/o"]],
        ),
        (
            "splice",
            |tx| {
                let text = below(tx, &["t"]);
                tx.splice_text(text, 1, 2, "longer than it was")
            },
            &[&["/t"], &["/t/*"]],
            &[&["/l"], &["/t/0"]],
        ),
        (
            "mark",
            |tx| {
                let text = below(tx, &["t"]);
                tx.mark(text, Mark::new("bold".into(), true, 1, 3), ExpandMark::Both)
            },
            &[&["/t"]],
            &[&["/c"]],
        ),
        (
            "make and fill",
            |tx| {
                let map = tx.put_object(ROOT, "new", ObjType::Map)?;
                let list = tx.put_object(&map, "list", ObjType::List)?;
                let element = tx.insert_object(&list, 0, ObjType::Map)?;
                tx.put(&element, "x", 1)
            },
            &[&["/new"]],
            &[&["/new/list"], &["/new/list/*/x"], &["/list"]],
        ),
        (
            "in two places",
            |tx| {
                tx.put(ROOT, "x", 1)?;
                let map = below(tx, &["m"]);
                tx.put(&map, "n", 3)?;
                tx.put(ROOT, "x", 2)
            },
            &[&["/m", "/x"], &["/m/n", "/x"]],
            &[&["/m/n"], &["/x"]],
        ),
    ];
    let (document, _) = base();
    for (name, doing, good, bad) in cases {
        let sent = edit(&mut document.clone(), 2, doing);
        for fields in *good {
            assert_eq!(offer(&document, &sent, fields), Admission::Admitted(sent.hash), "{name}: {fields:?}");
        }
        for fields in *bad {
            assert_eq!(offer(&document, &sent, fields), BAD, "{name}: {fields:?}");
        }
    }
}

#[test]
fn a_new_document_declares_what_is_in_it() {
    let mut document = Document::new();
    let given = value(r#"{"a":{"x":[1,{"y":2}]},"b":"text"}"#);
    let change = document.fill(&actor(1), &given, &FieldTypes::none()).unwrap().unwrap();
    let sent = Sent::new(actor(1), change);
    for (fields, is_good) in
        [(&["/a", "/b"][..], true), (&["/*"], true), (&["/a"], false), (&["/a/x", "/b"], false), (&[], false)]
    {
        let expected = if is_good { Admission::Admitted(sent.hash) } else { BAD };
        assert_eq!(offer(&Document::new(), &sent, fields), expected, "{fields:?}");
    }
}

/// A document of maps and values, which needs no Automerge, and a nested edit of it.
fn plain() -> (Document, Document, Sent) {
    let given = value(r#"{"a":{"b":{"c":1},"l":[1]},"d":2}"#);
    let mut document = Document::new();
    document.fill(&actor(1), &given, &FieldTypes::none()).unwrap().unwrap();
    let before = document.clone();
    let patch = Edit::parse(EditFormat::MergePatch, br#"{"a":{"b":{"c":2,"new":{"x":{"y":[1]}}}}}"#).unwrap();
    let change = document.edit(&actor(2), None, &patch, &FieldTypes::none()).unwrap().unwrap();
    (before, document, Sent::new(actor(2), change))
}

#[test]
fn the_short_way_gives_the_gates_answer() {
    let (before, _, sent) = plain();
    for fields in [
        &["/a"][..],
        &["/a/b"],
        &["/a/b/c", "/a/b/new"],
        &["/a/*"],
        &["/a/b/c"],
        &["/a/b/c", "/a/b/new/x"],
        &["/b"],
        &["/a/l"],
        &["/d"],
        &[],
    ] {
        let declared = paths(fields);
        let candidate = Candidate { fields: Some(&declared), ..sent.candidate() };
        let (mut direct, mut general) = (before.clone(), before.clone());
        let answers = direct.admit(std::slice::from_ref(&candidate));
        let is_built = direct.full.is_built();
        assert_eq!(answers, general.admit_by_gate(&[candidate]), "{fields:?}");
        assert_same(&direct, &general);
        let good = ["/a", "/a/b", "/a/*"].iter().any(|one| fields == [*one]) || fields == ["/a/b/c", "/a/b/new"];
        assert_eq!(matches!(answers[..], [Admission::Admitted(_)]), good, "{fields:?}");
        // What is good needs no Automerge.
        assert_eq!(is_built, !good, "{fields:?}");
    }
}

#[test]
fn places_do_not_depend_on_what_others_did() {
    // Somebody deletes, replaces or fights over what the change lies in; who has that comes to the same.
    let (document, _) = base();
    let sent = edit(&mut document.clone(), 2, |tx| {
        let map = below(tx, &["m", "k"]);
        tx.put(map, "deep", 2)
    });
    let element = edit(&mut document.clone(), 3, |tx| {
        let element = below(tx, &["l", "0"]);
        tx.put(element, "n", 2)
    });
    let others: [Doing; 3] = [
        |tx| {
            tx.delete(ROOT, "m")?;
            tx.delete(ROOT, "l")
        },
        |tx| {
            tx.put_object(ROOT, "m", ObjType::Map)?;
            let list = below(tx, &["l"]);
            tx.put(list, 0, 3)
        },
        |tx| {
            let map = below(tx, &["m"]);
            tx.delete(&map, "k")?;
            let list = below(tx, &["l"]);
            tx.delete(&list, 0)
        },
    ];
    for other in others {
        let mut document = document.clone();
        edit(&mut document, 4, other);
        assert_eq!(offer(&document, &sent, &["/m/k"]), Admission::Admitted(sent.hash));
        assert_eq!(offer(&document, &sent, &["/k"]), BAD);
        assert_eq!(offer(&document, &element, &["/l/*/n"]), Admission::Admitted(element.hash));
        assert_eq!(offer(&document, &element, &["/l/*/o"]), BAD);
    }
}

#[test]
fn a_batch_knows_the_objects_that_it_makes() {
    let mut document = Document::new();
    let first = edit(&mut document, 1, |tx| tx.put(ROOT, "z", 1));
    let before = document.clone();
    let made = edit(&mut document, 1, |tx| {
        let map = tx.put_object(ROOT, "a", ObjType::Map)?;
        let list = tx.put_object(&map, "l", ObjType::List)?;
        tx.insert_object(&list, 0, ObjType::Map).map(drop)
    });
    let used = edit(&mut document, 2, |tx| {
        let element = below(tx, &["a", "l", "0"]);
        tx.put(element, "n", 1)
    });
    for (fields, expected) in [(&["/a/l/*/n"], Admission::Admitted(used.hash)), (&["/l/*/n"], BAD)] {
        let declared = paths(fields);
        let candidates = [Candidate { fields: Some(&declared), ..used.candidate() }, made.candidate()];
        let mut target = before.clone();
        assert_eq!(target.admit_by_gate(&candidates), [expected, Admission::Admitted(made.hash)]);
    }
    // A change that is there already is held against the declaration of every header that brings it.
    deliver(&mut document, std::slice::from_ref(&first));
    for (fields, expected) in [(&["/a/l"], Admission::Known(used.hash)), (&["/z"], BAD)] {
        assert_eq!(offer(&document, &used, fields), expected);
    }
}

#[test]
fn a_long_history_need_not_be_loaded_to_tell_places() {
    let (mut document, _) = base();
    for n in 0..60 {
        edit(&mut document, 1, |tx| tx.put(ROOT, "c2", n));
    }
    let mut rolled = document.clone();
    assert!(roll(&mut rolled, 4));
    let sent = edit(&mut document, 2, |tx| {
        let map = below(tx, &["m", "k"]);
        tx.put(map, "deep", 2)
    });
    assert_eq!(offer(&rolled, &sent, &["/m/k"]), Admission::Admitted(sent.hash));
    assert_eq!(offer(&rolled, &sent, &["/m/n"]), BAD);
}

fn only(fields: &[&str]) -> FieldRights {
    FieldRights::any_of([Fields::Only(paths(fields))])
}

fn except(fields: &[&str]) -> FieldRights {
    FieldRights::any_of([Fields::Except(paths(fields))])
}

#[test]
fn what_is_withheld_is_not_shown() {
    let whole = r#"{"a":{"b":1,"c":[{"x":1,"y":2},3]},"s":5}"#;
    for (rights, seen) in [
        (FieldRights::all(), whole),
        (except(&["/s"]), r#"{"a":{"b":1,"c":[{"x":1,"y":2},3]}}"#),
        (except(&["/a/c/*/y", "/s"]), r#"{"a":{"b":1,"c":[{"x":1},3]}}"#),
        (except(&["/a/c/*"]), r#"{"a":{"b":1,"c":[]},"s":5}"#),
        (except(&["/s/below"]), whole),
        (only(&["/a/b"]), r#"{"a":{"b":1}}"#),
        (only(&["/a/c/*/x"]), r#"{"a":{"c":[{"x":1}]}}"#),
        (only(&["/s/below", "/a/b/below"]), r#"{"a":{}}"#),
        (FieldRights::any_of([]), "{}"),
        (
            FieldRights::any_of([Fields::Only(paths(&["/s"])), Fields::Except(paths(&["/s", "/a/c"]))]),
            r#"{"a":{"b":1},"s":5}"#,
        ),
        (FieldRights::all().within(Fields::Only(paths(&["/s"]))), r#"{"s":5}"#),
        (except(&["/a"]).within(Fields::Except(paths(&["/s"]))), "{}"),
    ] {
        assert_eq!(redact(value(whole), &rights), value(seen), "{rights:?}");
    }
}

/// What a writer without /salary and /people/*/pay makes of a document, and what its change is to declare.
fn put_limited(rights: &EditRights, given: Edit) -> Result<(String, FieldPaths), edit::EditError> {
    let before = value(r#"{"name":"a","note":"n","people":[{"name":"p","pay":7}],"salary":5}"#);
    let mut document = Document::new();
    document.fill(&actor(1), &before, &FieldTypes::none()).unwrap().unwrap();
    let edit = rights.limit(&given, &before)?;
    let change: Option<LocalChange> =
        document.edit(&actor(2), None, &edit, &FieldTypes::none()).map_err(|error| match error {
            crate::document::EditError::Edit(error) => error,
            other => panic!("{other}"),
        })?;
    let places = change.map_or_else(BTreeSet::new, |change| document.places_of(&change).unwrap());
    Ok((String::from_utf8(document.json().to_vec()).unwrap(), rights.declaration(&places)?))
}

#[test]
fn a_put_keeps_what_its_author_does_not_see() {
    let rights = || except(&["/people/*/pay", "/salary"]);
    let rights = EditRights { read: rights(), write: rights() };
    let put = |text: &str| put_limited(&rights, Edit::Put(value(text)));
    let (seen, fields) = put(r#"{"name":"b","people":[{"name":"p"}]}"#).unwrap();
    assert_eq!(seen, r#"{"name":"b","people":[{"name":"p","pay":7}],"salary":5}"#);
    assert_eq!(fields, paths(&["/name", "/note"]));
    let (seen, fields) = put(r#"{"name":"a","note":"n","people":[{"name":"q"}]}"#).unwrap();
    assert_eq!(seen, r#"{"name":"a","note":"n","people":[{"name":"q","pay":7}],"salary":5}"#);
    assert_eq!(fields, paths(&["/people/*/name"]));
    // A value for a withheld field is refused, also the one that it has: else it could be guessed.
    for (text, pointer) in [
        (r#"{"name":"a","salary":6}"#, "/salary"),
        (r#"{"name":"a","salary":5}"#, "/salary"),
        (r#"{"people":[{"name":"p","pay":7}]}"#, "/people/*/pay"),
        (r#"{"people":[{"name":"p"},{"name":"q"}]}"#, "/people"),
        (r#"{"people":3}"#, "/people"),
    ] {
        let error = put(text).unwrap_err();
        assert_eq!((error.kind, error.pointer.as_str()), (EditErrorKind::Withheld, pointer), "{text}");
    }
    // What may be read and not written may be given as it is, or left out.
    let reader = EditRights { read: FieldRights::all(), write: only(&["/name"]) };
    let put = |text: &str| put_limited(&reader, Edit::Put(value(text)));
    let (seen, fields) = put(r#"{"name":"b","salary":5}"#).unwrap();
    assert_eq!(seen, r#"{"name":"b","note":"n","people":[{"name":"p","pay":7}],"salary":5}"#);
    assert_eq!(fields, paths(&["/name"]));
    assert_eq!(put(r#"{"name":"b","salary":6}"#).unwrap_err().pointer, "/salary");
}

#[test]
fn edits_of_what_is_withheld_are_refused_before_they_tell_anything() {
    let rights = || except(&["/people/*/pay", "/salary"]);
    let rights = EditRights { read: rights(), write: rights() };
    for (format, text, pointer) in [
        (EditFormat::MergePatch, r#"{"name":"x","salary":1}"#, Some("/salary")),
        (EditFormat::MergePatch, r#"{"salary":null}"#, Some("/salary")),
        // Also where nothing would come of it: else the value could be guessed.
        (EditFormat::MergePatch, r#"{"salary":5}"#, Some("/salary")),
        // Whether there is something to merge into shows only when it is done.
        (EditFormat::MergePatch, r#"{"people":{"x":{"name":1}}}"#, Some("/people")),
        (EditFormat::MergePatch, r#"{"people":null}"#, Some("/people")),
        (EditFormat::MergePatch, r#"{"name":"x"}"#, None),
        (EditFormat::JsonPatch, r#"[{"op":"test","path":"/salary","value":5}]"#, Some("/salary")),
        (EditFormat::JsonPatch, r#"[{"op":"copy","from":"/salary","path":"/copy"}]"#, Some("/salary")),
        (EditFormat::JsonPatch, r#"[{"op":"move","from":"/salary","path":"/copy"}]"#, Some("/salary")),
        (EditFormat::JsonPatch, r#"[{"op":"copy","from":"/people","path":"/copy"}]"#, Some("/people")),
        (EditFormat::JsonPatch, r#"[{"op":"remove","path":"/people/0/pay/none"}]"#, Some("/people/0/pay/none")),
        (EditFormat::JsonPatch, r#"[{"op":"replace","path":"","value":{}}]"#, Some("")),
        (EditFormat::JsonPatch, r#"[{"op":"add","path":"/people/0/name","value":"q"}]"#, None),
        (EditFormat::Ops, r#"{"ops":[{"op":"set","path":"/salary","value":1}]}"#, Some("/salary")),
        (EditFormat::Ops, r#"{"ops":[{"op":"remove","path":"/people","index":0}]}"#, Some("/people")),
        (EditFormat::Ops, r#"{"ops":[{"op":"set","path":"/note","value":1}]}"#, None),
    ] {
        let result = put_limited(&rights, Edit::parse(format, text.as_bytes()).unwrap());
        let found = result.as_ref().err().map(|error| {
            assert_eq!(error.kind, EditErrorKind::Withheld);
            error.pointer.as_str()
        });
        assert_eq!(found, pointer, "{text}");
    }
}

#[test]
fn many_places_are_declared_by_what_is_around_them() {
    let rights = EditRights { read: except(&["/salary"]), write: except(&["/salary"]) };
    let places = |name: &str| (0..300).map(|n| vec![name.to_owned(), n.to_string()]).collect::<BTreeSet<_>>();
    assert_eq!(rights.declaration(&places("a")).unwrap(), paths(&["/a"]));
    let narrow = EditRights { read: FieldRights::all(), write: except(&["/a/secret"]) };
    assert_eq!(narrow.declaration(&places("a")).unwrap_err().kind, EditErrorKind::TooLarge);
    let long = BTreeSet::from([vec!["a".to_owned(), "x".repeat(600)]]);
    assert_eq!(rights.declaration(&long).unwrap(), paths(&["/a"]));
}
