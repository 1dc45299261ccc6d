use automerge::transaction::Transactable as _;
use automerge::{ObjId, ScalarValue};
use proptest::prelude::*;

use super::super::types::Place;
use super::*;
use crate::document::json::{Pointer, strategies, to_value};

#[test]
fn only_what_changed_is_written() {
    for (before, after, operations) in [
        (r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2}"#, 0),
        (r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#, 1),
        (r#"{"a":1,"b":2}"#, r#"{"a":1}"#, 1),
        (r#"{"a":{"b":{"c":1,"d":2}}}"#, r#"{"a":{"b":{"c":9,"d":2}}}"#, 1),
        (r#"{"l":[1,2,3,4,5]}"#, r#"{"l":[1,2,9,4,5]}"#, 1),
        (r#"{"l":[1,2,3]}"#, r#"{"l":[0,1,2,3]}"#, 1),
        (r#"{"l":[{"id":1,"v":1},{"id":2,"v":2}]}"#, r#"{"l":[{"id":2,"v":3}]}"#, 2),
        (r#"{"a":1}"#, r#"{"a":1.0}"#, 1),
        (r#"{"a":0.0}"#, r#"{"a":-0.0}"#, 0),
        (r#"{"a":[]}"#, r#"{"a":{}}"#, 1),
        (r#"{"a":"x"}"#, r#"{"a":{"b":["y"]}}"#, 3),
        (r#"{"":1,"~/":2}"#, r#"{"":2,"~/":2}"#, 1),
    ] {
        let mut doc = document(before);
        assert_eq!(put(&mut doc, after), operations, "{before} -> {after}");
        assert_eq!(value(&render(&doc)), value(after));
    }
}

#[test]
fn creation_is_one_operation_a_value_and_reproducible() {
    let text = r#"{"b":[1,{"c":null}],"a":"x"}"#;
    let (mut one, mut two) = (empty(1), empty(1));
    assert_eq!(put(&mut one, text), 5);
    put(&mut two, text);
    assert_eq!(one.get_heads(), two.get_heads());
    assert_eq!(render(&one), r#"{"a":"x","b":[1,{"c":null}]}"#);
    assert_eq!(put(&mut empty(1), "{}"), 0);
}

#[test]
fn whole_documents_with_different_fields_changed_lose_nothing() {
    let mut doc = document(r#"{"a":1,"b":2,"o":{"x":1,"y":1},"gone":1}"#);
    let base = doc.get_heads();
    put_at(&mut doc, &base, r#"{"a":9,"b":2,"o":{"x":9,"y":1},"gone":1,"new1":1}"#);
    put_at(&mut doc, &base, r#"{"a":1,"b":8,"o":{"x":1,"y":8},"new2":1}"#);
    assert_eq!(render(&doc), r#"{"a":9,"b":8,"new1":1,"new2":1,"o":{"x":9,"y":8}}"#);
}

#[test]
fn what_was_overwritten_or_replaced_meanwhile() {
    // Deleted by one who had not seen the new value: the value stays.
    let mut doc = document(r#"{"a":1,"o":{"x":1}}"#);
    let base = doc.get_heads();
    put(&mut doc, r#"{"a":2,"o":{"x":1}}"#);
    put_at(&mut doc, &base, r#"{"o":{"x":1}}"#);
    assert_eq!(render(&doc), r#"{"a":2,"o":{"x":1}}"#);
    // Both wrote it: the later one's.
    put_at(&mut doc, &base, r#"{"a":3,"o":{"x":1}}"#);
    assert_eq!(render(&doc), r#"{"a":3,"o":{"x":1}}"#);
    // Replaced by another kind, and left alone or changed by the other writer.
    put(&mut doc, r#"{"a":3,"o":5}"#);
    put_at(&mut doc, &base, r#"{"a":1,"o":{"x":1}}"#);
    assert_eq!(render(&doc), r#"{"a":3,"o":5}"#);
    put_at(&mut doc, &base, r#"{"a":1,"o":{"x":2}}"#);
    assert_eq!(render(&doc), r#"{"a":3,"o":{"x":2}}"#);
    // Deleted, and left alone or changed by the other.
    put(&mut doc, r#"{"a":3}"#);
    put_at(&mut doc, &base, r#"{"a":1,"o":{"x":1}}"#);
    assert_eq!(render(&doc), r#"{"a":3}"#);
    put_at(&mut doc, &base, r#"{"a":1,"o":{"x":4}}"#);
    assert_eq!(render(&doc), r#"{"a":3,"o":{"x":4}}"#);
}

#[test]
fn lists_keep_the_insertions_of_both() {
    for (base_text, one, two, merged) in [
        (r#"["a","b"]"#, r#"["a","x","b"]"#, r#"["a","b","y"]"#, r#"["a","x","b","y"]"#),
        (r#"["a"]"#, r#"["a","x"]"#, r#"["a","y"]"#, r#"["a","y","x"]"#),
        (r#"["a","b","c"]"#, r#"["c"]"#, r#"["a","b","y","c"]"#, r#"["y","c"]"#),
        (r#"["a","b","c"]"#, r#"["x","a","b","c"]"#, r#"["a","c"]"#, r#"["x","a","c"]"#),
        (r#"["a"]"#, r#"["x"]"#, r#"["y"]"#, r#"["y","x"]"#),
        (r#"["a","b"]"#, r#"["x","y","a","b"]"#, r#"["a"]"#, r#"["x","y","a"]"#),
        ("[1,2,3]", "[0,1,2,3]", "[1,2,9]", "[0,1,2,9]"),
        // One overwrote what the other removes: it stays. One removed what the other changed: the change stays.
        ("[1,2,3]", "[1,9,3]", "[1,3]", "[1,9,3]"),
        ("[1,2,3]", "[1,3]", "[1,9,3]", "[1,9,3]"),
        (
            r#"[{"id":1,"v":1},{"id":2,"v":1}]"#,
            r#"[{"id":0,"v":0},{"id":1,"v":2},{"id":2,"v":1}]"#,
            r#"[{"id":1,"v":1,"w":3},{"id":2,"v":5}]"#,
            r#"[{"id":0,"v":0},{"id":1,"v":2,"w":3},{"id":2,"v":5}]"#,
        ),
    ] {
        let whole = |list: &str| format!(r#"{{"l":{list}}}"#);
        let mut doc = document(&whole(base_text));
        let base = doc.get_heads();
        put_at(&mut doc, &base, &whole(one));
        put_at(&mut doc, &base, &whole(two));
        assert_eq!(value(&render(&doc)), value(&whole(merged)), "{one} and {two}");
    }
}

#[test]
fn texts_and_counters_merge() {
    let types = types(&[("/t", FieldKind::Text), ("/n", FieldKind::Counter)]);
    let put = |doc: &mut Automerge, base: Option<&[ChangeHash]>, text: &str| {
        edit_at(doc, base, &Edit::Put(value(text)), &types).unwrap().operations
    };
    let mut doc = empty(1);
    put(&mut doc, None, r#"{"n":10,"t":"the quick fox"}"#);
    let base = doc.get_heads();
    assert_eq!(put(&mut doc, Some(&base), r#"{"n":13,"t":"the very quick fox"}"#), 6);
    assert_eq!(put(&mut doc, Some(&base), r#"{"n":8,"t":"the quick 🦊"}"#), 5);
    assert_eq!(render(&doc), r#"{"n":11,"t":"the very quick 🦊"}"#);
    // Deleted by one, spliced around by the other.
    let base = doc.get_heads();
    put(&mut doc, Some(&base), r#"{"n":11,"t":"the 🦊"}"#);
    put(&mut doc, Some(&base), r#"{"n":11,"t":"the very quick-old 🦊!"}"#);
    assert_eq!(render(&doc), r#"{"n":11,"t":"the -old🦊!"}"#);
    // Undeclared, the present type decides.
    let none = FieldTypes::none();
    let applied = edit_at(&mut doc, None, &Edit::Put(value(r#"{"n":12,"t":"the -old🦊?"}"#)), &none).unwrap();
    assert_eq!(applied.operations, 3);
    // Out of range: nothing was written.
    let error = edit_at(&mut doc, None, &Edit::Put(value(r#"{"n":-9223372036854775808,"t":"x"}"#)), &none).unwrap_err();
    assert_eq!(refusal(&error), (EditErrorKind::TooLarge, "/n", None));
    assert_eq!(render(&doc), r#"{"n":12,"t":"the -old🦊?"}"#);
}

#[test]
fn declared_types_are_stored_and_refuse_others() {
    let types = types(&[
        ("/at", FieldKind::Timestamp),
        ("/raw/*", FieldKind::Bytes),
        ("/*/deep", FieldKind::Counter),
        ("/list/*/note", FieldKind::Text),
        ("no pointer", FieldKind::Text),
    ]);
    let mut doc = empty(1);
    let text = r#"{"at":"2026-11-22T11:20:30+01:00","list":[{"note":"hi"}],"o":{"deep":3},"raw":["AAE=",null]}"#;
    edit_at(&mut doc, None, &Edit::Put(value(text)), &types).unwrap();
    let shown = r#"{"at":"2026-11-22T10:20:30.000Z","list":[{"note":"hi"}],"o":{"deep":3},"raw":["AAE=",null]}"#;
    assert_eq!(render(&doc), shown);
    // Both ways to write the time are no change, and so it goes in a list.
    for text in [text, shown] {
        assert_eq!(edit_at(&mut doc, None, &Edit::Put(value(text)), &types).unwrap().operations, 0);
    }
    let at = |path: [&str; 2]| {
        let (_, object) = doc.get(ROOT, path[0]).unwrap().unwrap();
        doc.get(&object, path[1]).unwrap().unwrap().0.into_owned()
    };
    assert_eq!(at(["o", "deep"]), automerge::Value::counter(3));
    assert_eq!(doc.get(ROOT, "at").unwrap().unwrap().0, automerge::Value::timestamp(1_795_342_830_000));
    let (_, raw) = doc.get(ROOT, "raw").unwrap().unwrap();
    assert_eq!(doc.get(&raw, 0).unwrap().unwrap().0, automerge::Value::bytes(vec![0, 1]));
    let (_, list) = doc.get(ROOT, "list").unwrap().unwrap();
    let (_, element) = doc.get(&list, 0).unwrap().unwrap();
    assert_eq!(doc.get(&element, "note").unwrap().unwrap().0, automerge::Value::Object(ObjType::Text));
    for (text, pointer) in [
        (r#"{"at":"yesterday"}"#, "/at"),
        (r#"{"at":5}"#, "/at"),
        (r#"{"raw":["AAE"]}"#, "/raw/0"),
        (r#"{"raw":{"k":[]}}"#, "/raw/k"),
        (r#"{"x":{"deep":1.5}}"#, "/x/deep"),
        (r#"{"x":{"deep":9223372036854775808}}"#, "/x/deep"),
        (r#"{"list":[{"note":"x"},{"note":{}}]}"#, "/list/1/note"),
    ] {
        let error = edit_at(&mut doc, None, &Edit::Put(value(text)), &types).unwrap_err();
        assert_eq!(refusal(&error), (EditErrorKind::TypeMismatch, pointer, None), "{text}");
    }
    assert_eq!(render(&doc), shown);
}

#[test]
fn types_of_other_programs_are_kept() {
    let mut doc = empty(1);
    let mut tx = doc.transaction();
    tx.put(ROOT, "time", ScalarValue::Timestamp(0)).unwrap();
    tx.put(ROOT, "raw", ScalarValue::Bytes(vec![1])).unwrap();
    tx.put(ROOT, "uint", ScalarValue::Uint(5)).unwrap();
    tx.put(ROOT, "nan", ScalarValue::F64(f64::NAN)).unwrap();
    tx.commit();
    let shown = render(&doc);
    assert_eq!(put(&mut doc, &shown), 0);
    put(&mut doc, r#"{"nan":1,"raw":"AgI=","time":"2026-11-22T10:20:30.000Z","uint":6}"#);
    assert_eq!(doc.get(ROOT, "time").unwrap().unwrap().0, automerge::Value::timestamp(1_795_342_830_000));
    assert_eq!(doc.get(ROOT, "raw").unwrap().unwrap().0, automerge::Value::bytes(vec![2, 2]));
    put(&mut doc, r#"{"nan":1,"raw":"no bytes","time":"2026-11-22","uint":6}"#);
    assert_eq!(render(&doc), r#"{"nan":1,"raw":"no bytes","time":"2026-11-22","uint":6}"#);
}

#[test]
fn a_text_of_wide_elements_still_becomes_what_is_given() {
    let mut doc = empty(1);
    let mut tx = doc.transaction();
    let text = tx.put_object(ROOT, "t", ObjType::Text).unwrap();
    tx.insert(&text, 0, "wide").unwrap();
    tx.splice_text(&text, 4, 0, "r text").unwrap();
    tx.commit();
    assert_eq!(render(&doc), r#"{"t":"wider text"}"#);
    put(&mut doc, r#"{"t":"wir test"}"#);
    assert_eq!(render(&doc), r#"{"t":"wir test"}"#);
}

#[test]
fn refusals() {
    let mut doc = document(r#"{"a":1}"#);
    let refused = |doc: &mut Automerge, base: Option<&[ChangeHash]>, edit: &Edit| {
        let error = edit_at(doc, base, edit, &FieldTypes::none()).unwrap_err();
        (error.kind, error.pointer, error.operation)
    };
    assert_eq!(refused(&mut doc, None, &Edit::Put(Value::Int(1))), (EditErrorKind::Invalid, String::new(), None));
    assert_eq!(refused(&mut empty(1), None, &Edit::Put(Value::Null)), (EditErrorKind::Invalid, String::new(), None));
    let unknown = [ChangeHash([7; 32])];
    let edit = Edit::Put(value("{}"));
    assert_eq!(refused(&mut doc, Some(&unknown), &edit), (EditErrorKind::UnknownBase, String::new(), None));
    let long = Value::List(vec![Value::Int(0); 50_001]);
    let edit = Edit::Put(Value::Map([("a".to_owned(), Value::Int(1)), ("l".to_owned(), long)].into()));
    let (kind, pointer, _) = refused(&mut doc, None, &edit);
    assert_eq!((kind, pointer.as_str()), (EditErrorKind::TooLarge, "/l/49999"));
    let large = Value::Map([("s".to_owned(), Value::String("x".repeat(1 << 20)))].into());
    assert_eq!(refused(&mut doc, None, &Edit::Put(large)), (EditErrorKind::TooLarge, "/s".to_owned(), None));
    assert_eq!(render(&doc), r#"{"a":1}"#);
}

#[test]
fn documents_do_not_get_deeper_than_their_bound() {
    let mut doc = document("{}");
    let mut pointer = Pointer::ROOT;
    let mut nest = |depth: usize| {
        let mut nested = Value::Null;
        for _ in 0..depth {
            nested = Value::Map([("k".to_owned(), nested)].into());
        }
        let edit = Edit::Ops(vec![EditOp { path: pointer.clone(), action: Action::Set(nested) }]);
        (0..depth).for_each(|_| pointer.push("k"));
        edit_at(&mut doc, None, &edit, &FieldTypes::none())
    };
    nest(60).unwrap();
    nest(40).unwrap();
    let error = nest(1).unwrap_err();
    assert_eq!(refusal(&error), (EditErrorKind::TooLarge, "/k".repeat(100).as_str(), Some(0)));
}

#[test]
fn several_edits_share_a_transaction() {
    let mut doc = document(r#"{"a":1}"#);
    let base = doc.get_heads();
    let mut tx = doc.transaction();
    for text in [r#"{"a":1,"b":1}"#, r#"{"a":1,"c":1}"#] {
        apply(&mut tx, Some(&base), &Edit::Put(value(text)), &FieldTypes::none()).unwrap();
    }
    tx.commit();
    assert_eq!(render(&doc), r#"{"a":1,"b":1,"c":1}"#);
}

/// Everything that a document goes through between nodes must leave it readable and equal.
fn check_survives(doc: &Automerge) {
    let loaded = Automerge::load(&doc.save()).unwrap();
    assert_eq!(render(&loaded), render(doc));
    let mut replayed = Automerge::new();
    replayed.apply_changes(doc.get_changes(&[])).unwrap();
    assert_eq!(render(&replayed), render(doc));
}

/// Makes the strings of some keys texts and the integers counters.
fn some_types() -> FieldTypes {
    types(&[("/a", FieldKind::Text), ("/*/b", FieldKind::Text), ("/b/*", FieldKind::Text), ("/*/*/a", FieldKind::Text)])
}

/// Turns what does not fit [`some_types`] into a string.
fn fitting(given: &Value, place: &Place<'_>) -> Value {
    match given {
        Value::Null => Value::Null,
        other if place.kind().is_some() => match other {
            Value::String(_) => other.clone(),
            other => Value::String(other.to_string()),
        },
        Value::Map(map) => {
            Value::Map(map.iter().map(|(key, value)| (key.clone(), fitting(value, &place.key(key)))).collect())
        }
        Value::List(list) => {
            Value::List(list.iter().enumerate().map(|(at, value)| fitting(value, &place.index(at))).collect())
        }
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_document_reads_as_what_was_put((before, after) in strategies::versions()) {
        for types in [FieldTypes::none(), some_types()] {
            let (before, after) = (fitting(&before, &types.root()), fitting(&after, &types.root()));
            let mut doc = empty(1);
            edit_at(&mut doc, None, &Edit::Put(before.clone()), &types).unwrap();
            prop_assert_eq!(render(&doc), before.to_string());
            let heads = doc.get_heads();
            edit_at(&mut doc, Some(&heads), &Edit::Put(after.clone()), &types).unwrap();
            prop_assert_eq!(render(&doc), after.to_string());
            prop_assert_eq!(to_value(&doc), after.clone());
            // Again is no change.
            let again = edit_at(&mut doc, None, &Edit::Put(after.clone()), &types).unwrap();
            prop_assert_eq!(again.operations, 0);
            check_survives(&doc);
        }
    }

    #[test]
    fn an_old_base_without_later_changes_elsewhere_is_like_a_new_one((before, after) in strategies::versions()) {
        // The other writer only touches a key that neither version has.
        for types in [FieldTypes::none(), some_types()] {
            let (before, after) = (fitting(&before, &types.root()), fitting(&after, &types.root()));
            let mut doc = empty(1);
            edit_at(&mut doc, None, &Edit::Put(before), &types).unwrap();
            let base = doc.get_heads();
            let mut tx = doc.transaction();
            tx.put(ROOT, "other", 1).unwrap();
            tx.commit();
            edit_at(&mut doc, Some(&base), &Edit::Put(after.clone()), &types).unwrap();
            let mut tx = doc.transaction();
            tx.delete(ROOT, "other").unwrap();
            tx.commit();
            prop_assert_eq!(render(&doc), after.to_string());
        }
    }

    #[test]
    fn any_two_writers_leave_a_sound_document(
        (base, one) in strategies::versions(),
        two in strategies::document(),
    ) {
        for types in [FieldTypes::none(), some_types()] {
            let fit = |value: &Value| fitting(value, &types.root());
            let mut doc = empty(1);
            edit_at(&mut doc, None, &Edit::Put(fit(&base)), &types).unwrap();
            let heads = doc.get_heads();
            let mut other = doc.fork().with_actor(ActorId::from([2; 16]));
            edit_at(&mut doc, Some(&heads), &Edit::Put(fit(&one)), &types).unwrap();
            edit_at(&mut other, Some(&heads), &Edit::Put(fit(&two)), &types).unwrap();
            edit_at(&mut doc, Some(&heads), &Edit::Put(fit(&two)), &types).unwrap();
            check_survives(&doc);
            doc.merge(&mut other).unwrap();
            check_survives(&doc);
            // A base with several heads.
            let heads = doc.get_heads();
            edit_at(&mut doc, Some(&heads), &Edit::Put(fit(&one)), &types).unwrap();
            prop_assert_eq!(render(&doc), fit(&one).to_string());
            check_survives(&doc);
        }
    }

    #[test]
    fn different_fields_never_disturb_each_other(
        base in strategies::document(), one in strategies::value(), two in strategies::value(),
    ) {
        let Value::Map(base) = base else { unreachable!() };
        let with = |key: &str, value: &Value| {
            let mut map = base.clone();
            map.insert(key.to_owned(), value.clone());
            map
        };
        let mut doc = empty(1);
        let none = FieldTypes::none();
        edit_at(&mut doc, None, &Edit::Put(Value::Map(base.clone())), &none).unwrap();
        let heads = doc.get_heads();
        edit_at(&mut doc, Some(&heads), &Edit::Put(Value::Map(with("a", &one))), &none).unwrap();
        edit_at(&mut doc, Some(&heads), &Edit::Put(Value::Map(with("b", &two))), &none).unwrap();
        let mut both = with("a", &one);
        both.insert("b".to_owned(), two);
        prop_assert_eq!(to_value(&doc), Value::Map(both));
    }
}

#[test]
fn objects_keep_their_identity() {
    let mut doc = document(r#"{"o":{"x":1},"l":[{"id":1}]}"#);
    let id = |doc: &Automerge| -> Vec<ObjId> {
        let (_, list) = doc.get(ROOT, "l").unwrap().unwrap();
        vec![doc.get(ROOT, "o").unwrap().unwrap().1, doc.get(&list, 0).unwrap().unwrap().1, list]
    };
    let before = id(&doc);
    put(&mut doc, r#"{"o":{"y":1},"l":[{"id":1,"x":[]},{"id":2}]}"#);
    assert_eq!(id(&doc), before);
}
