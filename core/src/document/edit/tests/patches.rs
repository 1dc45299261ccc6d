use proptest::prelude::*;

use super::*;
use crate::document::diff;
use crate::document::json::{strategies, to_value};

fn patch(doc: &mut Automerge, text: &str) -> Result<Applied, EditError> {
    edit_at(doc, None, &parsed(EditFormat::JsonPatch, text), &FieldTypes::none())
}

/// The examples of RFC 6902, appendix A, as far as their documents are objects, and more of the same kind.
#[test]
fn json_patch_examples() {
    for (before, text, after) in [
        (r#"{"foo":"bar"}"#, r#"[{"op":"add","path":"/baz","value":"qux"}]"#, r#"{"baz":"qux","foo":"bar"}"#),
        (
            r#"{"foo":["bar","baz"]}"#,
            r#"[{"op":"add","path":"/foo/1","value":"qux"}]"#,
            r#"{"foo":["bar","qux","baz"]}"#,
        ),
        (r#"{"baz":"qux","foo":"bar"}"#, r#"[{"op":"remove","path":"/baz"}]"#, r#"{"foo":"bar"}"#),
        (r#"{"foo":["bar","qux","baz"]}"#, r#"[{"op":"remove","path":"/foo/1"}]"#, r#"{"foo":["bar","baz"]}"#),
        (
            r#"{"baz":"qux","foo":"bar"}"#,
            r#"[{"op":"replace","path":"/baz","value":"boo"}]"#,
            r#"{"baz":"boo","foo":"bar"}"#,
        ),
        (
            r#"{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}"#,
            r#"[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]"#,
            r#"{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}"#,
        ),
        (
            r#"{"foo":["all","grass","cows","eat"]}"#,
            r#"[{"op":"move","from":"/foo/1","path":"/foo/3"}]"#,
            r#"{"foo":["all","cows","eat","grass"]}"#,
        ),
        (
            r#"{"baz":"qux","foo":["a",2,"c"]}"#,
            r#"[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]"#,
            r#"{"baz":"qux","foo":["a",2,"c"]}"#,
        ),
        (
            r#"{"foo":"bar"}"#,
            r#"[{"op":"add","path":"/child","value":{"grandchild":{}}}]"#,
            r#"{"child":{"grandchild":{}},"foo":"bar"}"#,
        ),
        (r#"{"foo":"bar"}"#, r#"[{"op":"add","path":"/baz","value":"qux","xyz":123}]"#, r#"{"baz":"qux","foo":"bar"}"#),
        (r#"{"/":9,"~1":10}"#, r#"[{"op":"test","path":"/~01","value":10}]"#, r#"{"/":9,"~1":10}"#),
        (
            r#"{"foo":["bar"]}"#,
            r#"[{"op":"add","path":"/foo/-","value":["abc","def"]}]"#,
            r#"{"foo":["bar",["abc","def"]]}"#,
        ),
        // Beyond the appendix.
        (r#"{"a":1}"#, r#"[{"op":"add","path":"","value":{"b":2}}]"#, r#"{"b":2}"#),
        (r#"{"a":{"b":{"c":1}},"z":1}"#, r#"[{"op":"move","from":"/a/b","path":""}]"#, r#"{"c":1}"#),
        (r#"{"a":{"b":{"c":1}}}"#, r#"[{"op":"move","from":"/a/b","path":"/a"}]"#, r#"{"a":{"c":1}}"#),
        (r#"{"a":1}"#, r#"[{"op":"copy","from":"","path":"/b"}]"#, r#"{"a":1,"b":{"a":1}}"#),
        (r#"{"a":1}"#, r#"[{"op":"move","from":"/a","path":"/a"}]"#, r#"{"a":1}"#),
        (
            r#"{"l":[1,2]}"#,
            r#"[{"op":"copy","from":"/l/0","path":"/l/-"},{"op":"replace","path":"/l/0","value":[]}]"#,
            r#"{"l":[[],2,1]}"#,
        ),
        (r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":1.0}]"#, r#"{"a":1}"#),
        (
            r#"{"l":[1]}"#,
            r#"[{"op":"add","path":"/l/1","value":2},{"op":"add","path":"/l/0","value":0}]"#,
            r#"{"l":[0,1,2]}"#,
        ),
    ] {
        let mut doc = document(before);
        patch(&mut doc, text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(render(&doc), after, "{text}");
        let Edit::JsonPatch(operations) = parsed(EditFormat::JsonPatch, text) else { panic!("a patch") };
        let mut plain = value(before);
        apply_to(&mut plain, &operations).unwrap();
        assert_eq!(plain.to_string(), after, "{text}");
    }
}

#[test]
fn json_patch_refusals() {
    use EditErrorKind::{Invalid, NotFound, TestFailed};
    for (before, text, kind, pointer, operation) in [
        (r#"{"baz":"qux"}"#, r#"[{"op":"test","path":"/baz","value":"bar"}]"#, TestFailed, "/baz", 0),
        (r#"{"foo":"bar"}"#, r#"[{"op":"add","path":"/baz/bat","value":"qux"}]"#, NotFound, "/baz", 0),
        (r#"{"/":9,"~1":10}"#, r#"[{"op":"test","path":"/~01","value":"10"}]"#, TestFailed, "/~01", 0),
        (r#"{"a":1}"#, r#"[{"op":"add","path":"/b","value":1},{"op":"remove","path":"/c"}]"#, NotFound, "/c", 1),
        (r#"{"a":1}"#, r#"[{"op":"replace","path":"/b","value":1}]"#, NotFound, "/b", 0),
        (r#"{"a":1}"#, r#"[{"op":"remove","path":""}]"#, Invalid, "", 0),
        (r#"{"a":1}"#, r#"[{"op":"replace","path":"","value":1}]"#, Invalid, "", 0),
        (r#"{"a":{"b":1}}"#, r#"[{"op":"move","from":"/a","path":"/a/b"}]"#, Invalid, "/a/b", 0),
        (r#"{"a":1}"#, r#"[{"op":"move","from":"/x","path":"/x"}]"#, NotFound, "/x", 0),
        (r#"{"l":[1]}"#, r#"[{"op":"add","path":"/l/2","value":1}]"#, NotFound, "/l/2", 0),
        (r#"{"l":[1]}"#, r#"[{"op":"add","path":"/l/00","value":1}]"#, NotFound, "/l/00", 0),
        (r#"{"l":[1]}"#, r#"[{"op":"add","path":"/l/x","value":1}]"#, NotFound, "/l/x", 0),
        (r#"{"l":[1]}"#, r#"[{"op":"remove","path":"/l/-"}]"#, NotFound, "/l/-", 0),
        (r#"{"l":[1]}"#, r#"[{"op":"replace","path":"/l/1","value":1}]"#, NotFound, "/l/1", 0),
        (
            r#"{"l":[1]}"#,
            r#"[{"op":"copy","from":"/l/99999999999999999999","path":"/x"}]"#,
            NotFound,
            "/l/99999999999999999999",
            0,
        ),
        (r#"{"a":1}"#, r#"[{"op":"add","path":"/a/b","value":1}]"#, NotFound, "/a", 0),
    ] {
        let mut doc = document(before);
        let error = patch(&mut doc, text).unwrap_err();
        assert_eq!(refusal(&error), (kind, pointer, Some(operation)), "{text}");
        assert_eq!(render(&doc), before);
    }
}

#[test]
fn the_forms_are_checked() {
    use EditErrorKind::{Invalid, TooLarge};
    for (format, text, kind, pointer) in [
        (EditFormat::JsonPatch, "{}", Invalid, ""),
        (EditFormat::JsonPatch, "[1]", Invalid, "/0"),
        (EditFormat::JsonPatch, r#"[{"path":"/a"}]"#, Invalid, "/0"),
        (EditFormat::JsonPatch, r#"[{"op":"remove","path":"/a"},{"op":"spam","path":"/a"}]"#, Invalid, "/1/op"),
        (EditFormat::JsonPatch, r#"[{"op":"add","path":"/a"}]"#, Invalid, "/0"),
        (EditFormat::JsonPatch, r#"[{"op":"add","path":"a","value":1}]"#, Invalid, "/0/path"),
        (EditFormat::JsonPatch, r#"[{"op":"add","path":5,"value":1}]"#, Invalid, "/0/path"),
        (EditFormat::JsonPatch, r#"[{"op":"move","from":"/~","path":"/a"}]"#, Invalid, "/0/from"),
        (EditFormat::JsonPatch, r#"[{"op":"add","op":"remove","path":"/a"}]"#, Invalid, "/0/op"),
        (EditFormat::MergePatch, "[]", Invalid, ""),
        (EditFormat::Document, "3", Invalid, ""),
        (EditFormat::Document, "{", Invalid, ""),
        (EditFormat::Ops, "[]", Invalid, ""),
        (EditFormat::Ops, "{}", Invalid, "/ops"),
        (EditFormat::Ops, r#"{"ops":[],"more/":1}"#, Invalid, "/more~1"),
        (EditFormat::Ops, r#"{"ops":[{"op":"set","path":"/a","value":1,"vaule":1}]}"#, Invalid, "/ops/0/vaule"),
        (EditFormat::Ops, r#"{"ops":[{"op":"splice","path":"/a","delete":1}]}"#, Invalid, "/ops/0"),
        (EditFormat::Ops, r#"{"ops":[{"op":"splice","path":"/a","index":-1}]}"#, Invalid, "/ops/0/index"),
        (EditFormat::Ops, r#"{"ops":[{"op":"increment","path":"/a","by":1.5}]}"#, Invalid, "/ops/0/by"),
        (EditFormat::Ops, r#"{"ops":[{"op":"insert","path":"/a","values":1}]}"#, Invalid, "/ops/0/values"),
        (EditFormat::Ops, r#"{"ops":[{"op":"timestamp","path":"/a","value":"now"}]}"#, Invalid, "/ops/0/value"),
        (EditFormat::Ops, r#"{"ops":[{"op":"bytes","path":"/a","value":"?"}]}"#, Invalid, "/ops/0/value"),
        (EditFormat::Ops, r#"{"ops":[{"op":"frob","path":"/a"}]}"#, Invalid, "/ops/0/op"),
    ] {
        let error = Edit::parse(format, text.as_bytes()).unwrap_err();
        assert_eq!((error.kind, error.pointer.as_str()), (kind, pointer), "{text}");
    }
    let many = format!("[{}]", vec![r#"{"op":"remove","path":"/a"}"#; 10_001].join(","));
    assert_eq!(Edit::parse(EditFormat::JsonPatch, many.as_bytes()).unwrap_err().kind, TooLarge);
}

#[test]
fn media_types() {
    for format in EditFormat::ALL {
        assert_eq!(EditFormat::from_media_type(format.media_type()), Some(format));
    }
    assert_eq!(EditFormat::from_media_type("Application/JSON; charset=utf-8"), Some(EditFormat::Document));
    assert_eq!(EditFormat::from_media_type("text/plain"), None);
}

/// RFC 7396, appendix A, as far as patch and target are objects; the others are put below a key.
#[test]
fn merge_patch_examples() {
    for (before, text, after) in [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"{"k":["a","b"]}"#, r#"{"k":["c","d"]}"#, r#"{"k":["c","d"]}"#),
        (r#"{"k":{"a":"b"}}"#, r#"{"k":["c"]}"#, r#"{"k":["c"]}"#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
        (r#"{"k":[1,2]}"#, r#"{"k":{"a":"b","c":null}}"#, r#"{"k":{"a":"b"}}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ("{}", r#"{"a":[null,{"b":null}]}"#, r#"{"a":[null,{"b":null}]}"#),
    ] {
        let mut doc = document(before);
        edit_at(&mut doc, None, &parsed(EditFormat::MergePatch, text), &FieldTypes::none()).unwrap();
        assert_eq!(render(&doc), after, "{text}");
    }
}

#[test]
fn patches_write_only_what_they_change() {
    let mut doc = document(r#"{"a":1,"l":["x","y","z"],"o":{"b":{"c":1}}}"#);
    for (text, operations) in [
        (r#"[{"op":"remove","path":"/l/0"}]"#, 1),
        (r#"[{"op":"add","path":"/l/0","value":"w"}]"#, 1),
        (r#"[{"op":"replace","path":"/o","value":{"b":{"c":2}}}]"#, 1),
        (r#"[{"op":"replace","path":"/a","value":1}]"#, 0),
        (r#"[{"op":"test","path":"/a","value":1}]"#, 0),
    ] {
        assert_eq!(patch(&mut doc, text).unwrap().operations, operations, "{text}");
    }
    let merge = parsed(EditFormat::MergePatch, r#"{"a":1,"l":["w","y"],"o":{"b":{"c":3}}}"#);
    assert_eq!(edit_at(&mut doc, None, &merge, &FieldTypes::none()).unwrap().operations, 2);
}

#[test]
fn an_old_base_is_what_a_patch_speaks_of() {
    let mut doc = document(r#"{"l":["a","b","c"],"n":1,"o":{"x":1}}"#);
    let base = doc.get_heads();
    put(&mut doc, r#"{"l":["new","a","b","c"],"n":1,"o":{"x":1,"y":2}}"#);
    let none = FieldTypes::none();
    let text = r#"[{"op":"test","path":"/l/0","value":"a"},{"op":"remove","path":"/l/1"},{"op":"add","path":"/l/-","value":"d"}]"#;
    edit_at(&mut doc, Some(&base), &parsed(EditFormat::JsonPatch, text), &none).unwrap();
    assert_eq!(render(&doc), r#"{"l":["new","a","c","d"],"n":1,"o":{"x":1,"y":2}}"#);
    let text = r#"{"l":["a","c"],"n":null,"o":{"z":3}}"#;
    edit_at(&mut doc, Some(&base), &parsed(EditFormat::MergePatch, text), &none).unwrap();
    assert_eq!(render(&doc), r#"{"l":["new","a","c","d"],"o":{"x":1,"y":2,"z":3}}"#);
}

#[test]
fn copies_keep_their_types() {
    let mut doc = document("{}");
    ops(&mut doc, r#"{"op":"counter","path":"/n","value":3},{"op":"text","path":"/t","value":"hi"},{"op":"set","path":"/l","value":[]}"#).unwrap();
    patch(&mut doc, r#"[{"op":"copy","from":"/n","path":"/m"},{"op":"move","from":"/t","path":"/l/0"}]"#).unwrap();
    ops(&mut doc, r#"{"op":"increment","path":"/m"},{"op":"splice","path":"/l/0","index":2,"insert":"!"}"#).unwrap();
    assert_eq!(render(&doc), r#"{"l":["hi!"],"m":4,"n":3}"#);
    // A declared place decides.
    let types = types(&[("/s", FieldKind::Text), ("/c/*", FieldKind::Counter)]);
    let text = r#"[{"op":"add","path":"/p","value":"plain"},{"op":"copy","from":"/p","path":"/s"},{"op":"add","path":"/q","value":{"k":1}},{"op":"move","from":"/q","path":"/c"}]"#;
    edit_at(&mut doc, None, &parsed(EditFormat::JsonPatch, text), &types).unwrap();
    ops(&mut doc, r#"{"op":"splice","path":"/s","index":0,"delete":5},{"op":"increment","path":"/c/k","by":-2}"#)
        .unwrap();
    assert_eq!(render(&doc), r#"{"c":{"k":-1},"l":["hi!"],"m":4,"n":3,"p":"plain","s":""}"#);
    let text = r#"[{"op":"copy","from":"/p","path":"/c/x"}]"#;
    let error = edit_at(&mut doc, None, &parsed(EditFormat::JsonPatch, text), &types).unwrap_err();
    assert_eq!(refusal(&error), (EditErrorKind::TypeMismatch, "/c/x", Some(0)));
}

/// RFC 7396, section 2, as written there.
fn merged(target: &Value, patch: &Value) -> Value {
    let Value::Map(patch) = patch else { return patch.clone() };
    let mut map = if let Value::Map(map) = target { map.clone() } else { Default::default() };
    for (key, value) in patch {
        if *value == Value::Null {
            map.remove(key);
        } else {
            let merged = merged(map.get(key).unwrap_or(&Value::Null), value);
            map.insert(key.clone(), merged);
        }
    }
    Value::Map(map)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_difference_turns_one_into_the_other((before, after) in strategies::versions()) {
        let operations = diff::of_values(&before, &after);
        let mut plain = before.clone();
        apply_to(&mut plain, &operations).unwrap();
        prop_assert_eq!(&plain, &after);
        // Read back from its text and applied to a document.
        let text = Value::List(operations.iter().map(Operation::to_value).collect()).to_string();
        let edit = parsed(EditFormat::JsonPatch, &text);
        prop_assert_eq!(&edit, &Edit::JsonPatch(operations.clone()));
        let mut doc = document(&before.to_string());
        let old = doc.get_heads();
        edit_at(&mut doc, None, &edit, &FieldTypes::none()).unwrap();
        prop_assert_eq!(to_value(&doc), after);
        // And between the versions of the document.
        let mut plain = before;
        apply_to(&mut plain, &diff::between(&doc, &old, &doc.get_heads())).unwrap();
        prop_assert_eq!(plain, to_value(&doc));
        prop_assert!(diff::between(&doc, &old, &old).is_empty());
    }

    #[test]
    fn merge_patches_do_what_the_rfc_says((target, patch) in strategies::versions()) {
        let mut doc = document(&target.to_string());
        edit_at(&mut doc, None, &Edit::MergePatch(patch.clone()), &FieldTypes::none()).unwrap();
        prop_assert_eq!(to_value(&doc), merged(&target, &patch));
    }
}
