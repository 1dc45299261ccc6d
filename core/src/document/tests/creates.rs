//! Documents of one change, made and read without Automerge: the same as with it, byte for byte.

use std::collections::BTreeMap;

use automerge::legacy::OpId;
use automerge::{Automerge, Change, ROOT, transaction::Transactable as _};
use proptest::prelude::*;

use super::making::{Random, actor, assert_same};
use super::mutations::{mutate_bytes, mutate_operations};
use crate::document::edit::{self, Edit, FieldTypes};
use crate::document::fuzzing::{body, chunk};
use crate::document::gate::{self, prescan};
use crate::document::json::{self, Value, strategies};
use crate::document::{Admission, Candidate, Document, LocalChange};
use crate::op::{FieldDeclaration, FieldKind, WriteAction};

const BY: u8 = 3;

pub(super) fn types() -> FieldTypes {
    let declared = [
        ("/text", FieldKind::Text),
        ("/texts/*", FieldKind::Text),
        ("/counter", FieldKind::Counter),
        ("/time", FieldKind::Timestamp),
        ("/bytes", FieldKind::Bytes),
    ];
    let declaration = |(pointer, kind): (&str, _)| FieldDeclaration { pointer: pointer.to_owned(), kind };
    FieldTypes::new(&declared.map(declaration))
}

/// Documents with and without declared fields, small and large.
pub(super) fn content() -> impl Strategy<Value = Value> {
    let field = |name: &'static str, value: BoxedStrategy<Value>| {
        prop::option::of(value).prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    };
    let declared = (
        field("text", any::<String>().prop_map(Value::String).boxed()),
        field(
            "texts",
            prop::collection::vec("[a-c\u{e9}]{0,4}".prop_map(Value::String), 0..4).prop_map(Value::List).boxed(),
        ),
        field("counter", any::<i64>().prop_map(Value::Int).boxed()),
        field(
            "time",
            (0_i64..4_000_000_000_000).prop_map(|ms| Value::String(json::timestamp_to_text(ms).unwrap())).boxed(),
        ),
        field("bytes", any::<Vec<u8>>().prop_map(|bytes| Value::String(json::bytes_to_text(&bytes))).boxed()),
        field("long", prop::collection::vec(strategies::value(), 0..60).prop_map(Value::List).boxed()),
    );
    (strategies::document(), declared).prop_map(|(document, (a, b, c, d, e, f))| {
        let Value::Map(mut map) = document else { unreachable!("a document is a map") };
        map.extend([a, b, c, d, e, f].into_iter().flatten());
        Value::Map(map)
    })
}

/// Makes the document as any other edit is made.
fn made_by_automerge(value: &Value) -> (Document, Option<LocalChange>) {
    let mut document = Document::new();
    let edit = Edit::Put(value.clone());
    let (change, _) = document.local_edit(&actor(BY), |tx| edit::apply(tx, None, &edit, &types())).unwrap();
    (document, change)
}

fn admitted(bytes: &[u8]) -> Document {
    let mut document = Document::new();
    let candidate = Candidate { bytes, actor: actor(BY), action: WriteAction::Create, fields: None };
    let answer = document.admit(&[candidate]);
    assert!(matches!(answer.as_slice(), [Admission::Admitted(_)]), "{answer:?}");
    document
}

/// All that two documents show, before and after another edit.
fn assert_alike(mut a: Document, mut b: Document) {
    assert_eq!(a.heads(), b.heads());
    assert_eq!(a.change_count(), b.change_count());
    assert_eq!(a.json(), b.json());
    for document in [&mut a, &mut b] {
        document.local_edit(&actor(BY), |tx| tx.put(ROOT, "more", 1)).unwrap();
    }
    assert_same(&a, &b);
    assert_eq!(a.json(), b.json());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_filled_document_is_as_automerge_makes_it(value in content()) {
        let (general, expected) = made_by_automerge(&value);
        let mut document = Document::new();
        let change = document.fill(&actor(BY), &value, &types()).unwrap();
        prop_assert_eq!(&change, &expected);
        prop_assert_eq!(document.json(), json::render(general.view()));
        prop_assert!(change.is_none() || !document.full.is_built());
        assert_alike(document, general);
    }

    #[test]
    fn a_plain_create_is_read_as_the_gate_admits_it(value in content()) {
        let Some(change) = made_by_automerge(&value).1 else { return Ok(()) };
        let document = admitted(&change.bytes);
        prop_assert!(!document.full.is_built(), "it went the long way");
        let candidate = Candidate { bytes: &change.bytes, actor: actor(BY), action: WriteAction::Create, fields: None };
        let outcome = gate::admit(&Automerge::new(), &[candidate]);
        prop_assert_eq!(outcome.admissions, [Admission::Admitted(change.hash)]);
        prop_assert_eq!(document.json(), json::render(&outcome.doc.unwrap()));
        assert_alike(document, made_by_automerge(&value).0);
    }
}

#[test]
fn an_edit_that_is_refused_is_refused_alike() {
    let deep = (0..90).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    let deeper = (0..200).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    let long_key = BTreeMap::from([("k".repeat(2_000), Value::Null)]);
    let fields = [("counter", Value::Bool(true)), ("time", Value::String("now".into())), ("x", deep), ("y", deeper)];
    let documents = fields.into_iter().map(|(key, value)| BTreeMap::from([(key.to_owned(), value)])).chain([long_key]);
    for value in documents.map(Value::Map).chain([Value::Null]) {
        let edit = Edit::Put(value.clone());
        let general = Document::new()
            .local_edit(&actor(BY), |tx| edit::apply(tx, None, &edit, &types()))
            .map(|(change, _)| change);
        let mut document = Document::new();
        assert_eq!(document.fill(&actor(BY), &value, &types()), general);
        assert_eq!(document.is_pristine(), general.is_err());
    }
}

/// Whatever is read without Automerge must be what the gate would have admitted, and show the same.
fn check_mutated(bytes: &[u8]) -> bool {
    let Ok(scan) = prescan(bytes) else { return false };
    let mut document = Document::new();
    let candidate = Candidate { bytes, actor: scan.actor, action: WriteAction::Create, fields: None };
    let answer = document.admit(std::slice::from_ref(&candidate));
    let general = gate::admit(&Automerge::new(), &[candidate]);
    assert_eq!(answer, general.admissions);
    if let [Admission::Admitted(hash)] = answer.as_slice() {
        assert_eq!(document.change_bytes(hash).as_deref(), Some(bytes));
        assert_eq!(document.json(), json::render(&general.doc.unwrap()));
        return true;
    }
    false
}

fn sample() -> Vec<u8> {
    let text = br#"{"a":[1,2,{"b":"x"},[true,null]],"c":{"d":1.5,"e":{}},"bytes":"AQID","counter":3,"n":7,"text":"hello","time":"2026-11-22T10:20:30Z"}"#;
    made_by_automerge(&json::parse(text).unwrap()).1.unwrap().bytes.to_vec()
}

#[test]
fn mutated_creates_get_the_gates_answer() {
    let (sample, mut random) = (sample(), Random::new(21));
    let mut passed = 0;
    for _ in 0..3_000 {
        let mut bytes = body(&sample);
        mutate_bytes(&mut random, &mut bytes);
        passed += u32::from(check_mutated(&chunk(&bytes)));
    }
    assert!(passed > 20, "only {passed} passed: the mutations miss");
    let original = Change::try_from(sample.as_slice()).unwrap();
    let ids: Vec<_> = (1..=original.max_op()).map(|counter| OpId::new(counter, original.actor_id())).collect();
    let mut passed = 0;
    for _ in 0..1_500 {
        let mut change = original.decode();
        mutate_operations(&mut random, &mut change, &ids, &[]);
        let encoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Change::from(change)));
        let Ok(change) = encoded else { continue };
        passed += u32::from(check_mutated(change.raw_bytes()));
    }
    assert!(passed > 50, "only {passed} passed: the mutations miss");
}
