use automerge::transaction::Transactable as _;
use automerge::{ActorId, Automerge, ObjType, ROOT, ScalarValue};
use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Value {
    parse(text.as_bytes()).unwrap()
}

#[test]
fn numbers_are_exact_and_kept_apart() {
    for (text, value) in [
        ("0", Value::Int(0)),
        ("-0", Value::Int(0)),
        ("-9223372036854775808", Value::Int(i64::MIN)),
        ("9223372036854775807", Value::Int(i64::MAX)),
        ("9223372036854775808", Value::Uint(1 << 63)),
        ("18446744073709551615", Value::Uint(u64::MAX)),
        ("1.0", Value::Float(1.0)),
        ("1e3", Value::Float(1000.0)),
        ("-1.5E-2", Value::Float(-0.015)),
        ("9007199254740993.0", Value::Float(9_007_199_254_740_992.0)),
        ("1e-400", Value::Float(0.0)),
    ] {
        assert_eq!(parsed(text), value, "{text}");
    }
    assert_ne!(parsed("1"), parsed("1.0"));
    assert!(parsed("1").equals_numerically(&parsed("1.0")));
    assert!(
        parsed("[1,{\"a\":18446744073709551615}]").equals_numerically(&parsed("[1.0,{\"a\":18446744073709551615}]"))
    );
    assert!(!parsed("18446744073709551615").equals_numerically(&parsed("18446744073709551616.0")));
    assert!(!parsed("9007199254740993").equals_numerically(&parsed("9007199254740992.0")));
}

#[test]
fn refusals_say_what_and_where() {
    use ParseErrorKind as Kind;
    let syntax = |expected| Kind::Syntax { expected };
    for (text, kind, pointer, offset) in [
        ("", syntax("a value"), "", 0),
        ("{} x", syntax("the end of the text"), "", 3),
        ("{\"a\":1,\"a\":2}", Kind::DuplicateKey, "/a", 7),
        ("{\"a\":{\"b/~\":[1,{\"c\":1,\"\\u0063\":2}]}}", Kind::DuplicateKey, "/a/b~1~0/1/c", 22),
        ("{\"a\":[1,18446744073709551616]}", Kind::NumberTooLarge, "/a/1", 8),
        ("{\"a\":-9223372036854775809}", Kind::NumberTooLarge, "/a", 5),
        ("[1e400]", Kind::NumberTooLarge, "/0", 1),
        ("[NaN]", syntax("a value"), "/0", 1),
        ("[01]", syntax("',' or ']'"), "", 2),
        ("[1.]", syntax("a digit"), "/0", 3),
        ("[+1]", syntax("a value"), "/0", 1),
        ("[-]", syntax("a digit"), "/0", 2),
        ("[1,]", syntax("a value"), "/1", 3),
        ("[1 2]", syntax("',' or ']'"), "", 3),
        ("{\"a\" 1}", syntax("':'"), "", 5),
        ("{a:1}", syntax("a key"), "", 1),
        ("{\"a\":1,}", syntax("a key"), "", 7),
        ("{\"a\":tru}", syntax("true, false or null"), "/a", 5),
        ("[\"a\nb\"]", syntax("an escape in place of a control character"), "/0", 3),
        ("[\"\\x\"]", syntax("an escape"), "/0", 3),
        ("[\"\\ud800\"]", syntax("the second half of a surrogate pair"), "/0", 8),
        ("[\"\\udc00\"]", syntax("the first half of a surrogate pair"), "/0", 8),
        ("[\"\\u12g4\"]", syntax("four hexadecimal digits"), "/0", 4),
        ("[\"a", syntax("the closing quote"), "/0", 3),
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error, ParseError { kind, pointer: pointer.to_owned(), offset }, "{text}");
    }
    assert_eq!(parse(b"[\"\xff\"]").unwrap_err().kind, Kind::NotUtf8);
}

#[test]
fn bounds_hold() {
    let bounds = Bounds { bytes: 40, depth: 3, keys: 2, values: 5 };
    let kind = |text: &str| parse_within(text.as_bytes(), bounds).map_err(|error| (error.kind, error.pointer));
    let refused = |kind, pointer: &str| Err((kind, pointer.to_owned()));
    assert!(kind("[[[1]]]").is_ok());
    assert_eq!(kind("[[[[]]]]"), refused(ParseErrorKind::TooDeep { depth_max: 3 }, "/0/0/0"));
    assert_eq!(kind("[[],[],[[]],[]]"), refused(ParseErrorKind::TooManyValues { values_max: 5 }, "/3"));
    assert_eq!(kind("[1,2,3,4,5]"), refused(ParseErrorKind::TooManyValues { values_max: 5 }, "/4"));
    assert_eq!(kind("{\"a\":{\"b\":1,\"c\":2,\"d\":3}}"), refused(ParseErrorKind::TooManyKeys { keys_max: 2 }, "/a"));
    assert_eq!(kind(&" ".repeat(41)), refused(ParseErrorKind::TooLarge { bytes_max: 40 }, ""));
    let long = format!("{{\"{}\":1}}", "k".repeat(crate::limits::DOC_KEY_BYTES_MAX + 1));
    assert_eq!(parse(long.as_bytes()).unwrap_err().kind, ParseErrorKind::KeyTooLong);
    // As deep as allowed, and a hostile depth, on the small stack of a test thread.
    assert!(parse(("[".repeat(64) + &"]".repeat(64)).as_bytes()).is_ok());
    assert!(parse("[".repeat(1 << 20).as_bytes()).is_err());
}

#[test]
fn strings_and_escapes() {
    let text = r#""a\"\\\/\b\f\n\r\té😀\u00e9\ud83d\ude00\u0000""#;
    let value = Value::String("a\"\\/\u{8}\u{c}\n\r\té😀é😀\0".to_owned());
    assert_eq!(parsed(text), value);
    assert_eq!(value.to_string(), r#""a\"\\/\b\f\n\r\té😀é😀\u0000""#);
}

#[test]
fn pointers() {
    for text in ["", "/", "/a/b", "/a~1b/~0~01/0/-", "//"] {
        assert_eq!(text.parse::<Pointer>().unwrap().to_string(), text);
    }
    assert_eq!("/a~1b/~01".parse::<Pointer>().unwrap().steps(), ["a/b", "~1"]);
    assert_eq!("a".parse::<Pointer>(), Err(PointerError::NoSlash));
    assert_eq!("/~".parse::<Pointer>(), Err(PointerError::Escape));
    assert_eq!("/~2".parse::<Pointer>(), Err(PointerError::Escape));
    assert_eq!("/a".repeat(101).parse::<Pointer>(), Err(PointerError::TooDeep));
    assert_eq!(format!("/{}", "a".repeat(1025)).parse::<Pointer>(), Err(PointerError::StepTooLong));
    assert!("/a".parse::<Pointer>().unwrap().is_prefix_of(&"/a/b".parse().unwrap()));
    assert!(!"/a".parse::<Pointer>().unwrap().is_prefix_of(&"/ab".parse().unwrap()));
}

#[test]
fn timestamps() {
    for (text, ms, shown) in [
        ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00.000Z"),
        ("2026-11-22T10:20:30.4Z", 1_795_342_830_400, "2026-11-22T10:20:30.400Z"),
        ("2026-11-22t12:20:30.400999+02:00", 1_795_342_830_400, "2026-11-22T10:20:30.400Z"),
        ("2024-02-29 23:59:60z", 1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
        ("0000-01-01T00:00:00Z", -62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ("1969-12-31T23:59:59.999-00:00", -1, "1969-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(timestamp_from_text(text), Some(ms), "{text}");
        assert_eq!(timestamp_to_text(ms).as_deref(), Some(shown));
    }
    for text in [
        "",
        "2026",
        "2026-11-22",
        "2026-11-22T10:20:30",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T10:60:00Z",
        "2026-11-22T10:20:61Z",
        "2026-11-22T10:20:30.Z",
        "2026-11-22T10:20:30+0200",
        "2026-11-22T10:20:30+24:00",
        "2026-11-22T10:20:30Zx",
        "20a6-11-22T10:20:30Z",
        "0000-01-01T00:00:00+00:01",
        "é026-11-22T10:20:30Z",
        "2026-11-22T10:20:3é",
    ] {
        assert_eq!(timestamp_from_text(text), None, "{text}");
    }
    assert_eq!(timestamp_to_text(253_402_300_800_000), None);
    assert_eq!(timestamp_to_text(i64::MIN), None);
}

#[test]
fn every_kind_of_value_of_a_document_is_shown() {
    let mut doc = Automerge::new().with_actor(ActorId::from([1; 16]));
    let mut tx = doc.transaction();
    for (key, value) in [
        ("bool", ScalarValue::Boolean(true)),
        ("bytes", ScalarValue::Bytes(vec![0, 1, 255])),
        ("counter", ScalarValue::counter(-7)),
        ("float", ScalarValue::F64(1e300)),
        ("int", ScalarValue::Int(-3)),
        ("nan", ScalarValue::F64(f64::NAN)),
        ("null", ScalarValue::Null),
        ("string", ScalarValue::Str("é\n".into())),
        ("time", ScalarValue::Timestamp(1_795_342_830_400)),
        ("time_far", ScalarValue::Timestamp(i64::MAX)),
        ("uint", ScalarValue::Uint(5)),
        ("uint_big", ScalarValue::Uint(u64::MAX)),
    ] {
        tx.put(ROOT, key, value).unwrap();
    }
    tx.increment(ROOT, "counter", 2).unwrap();
    let list = tx.put_object(ROOT, "list", ObjType::List).unwrap();
    tx.insert(&list, 0, 1).unwrap();
    let map = tx.insert_object(&list, 1, ObjType::Map).unwrap();
    tx.put(&map, "", 2).unwrap();
    let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, "h\"i😀").unwrap();
    tx.put_object(ROOT, "empty", ObjType::Map).unwrap();
    let empty = tx.put_object(ROOT, "empty_list", ObjType::List).unwrap();
    tx.commit();
    let heads = doc.get_heads();
    let expected = concat!(
        r#"{"bool":true,"bytes":"AAH/","counter":-5,"empty":{},"empty_list":[],"float":1e300,"int":-3,"#,
        r#""list":[1,{"":2}],"nan":null,"null":null,"string":"é\n","text":"h\"i😀","#,
        r#""time":"2026-11-22T10:20:30.400Z","time_far":9223372036854775807,"uint":5,"uint_big":18446744073709551615}"#,
    );
    assert_eq!(render(&doc), expected);
    assert_eq!(to_value(&doc).to_string(), expected);
    let mut tx = doc.transaction();
    tx.insert(&empty, 0, 1).unwrap();
    tx.delete(ROOT, "text").unwrap();
    tx.increment(ROOT, "counter", 2).unwrap();
    tx.commit();
    assert!(render(&doc).contains(r#""empty_list":[1]"#));
    assert_eq!(render_at(&doc, &heads), expected);
    assert_eq!(to_value_at(&doc, &heads).to_string(), expected);
    assert_eq!(render_at(&doc, &[]), "{}");
}

#[test]
fn a_document_deeper_than_any_stack_is_rendered_to_the_bound() {
    let mut doc = Automerge::new();
    let mut tx = doc.transaction();
    let mut object = ROOT;
    for _ in 0..5_000 {
        object = tx.put_object(&object, "a", ObjType::Map).unwrap();
    }
    tx.commit();
    let text = render(&doc);
    assert_eq!(text.matches('{').count(), 256);
    assert!(text.contains("{\"a\":null}"));
    assert_eq!(to_value(&doc).depth(), 256);
}

proptest! {
    #[test]
    fn a_value_reads_back_from_its_text(value in strategies::value()) {
        let text = value.to_string();
        prop_assert_eq!(parse(text.as_bytes()).unwrap(), value.clone());
        // And it is JSON to others as well (who read floats less exactly).
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn what_is_accepted_is_what_serde_json_accepts(text in r#"[\[\]{}:,"a1e.\-\\u0 ]{0,12}"#) {
        let ours = parse(text.as_bytes());
        if let Ok(value) = &ours {
            let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert!(parse(theirs.to_string().as_bytes()).unwrap().equals_numerically(value));
        } else if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
            let kind = ours.unwrap_err().kind;
            prop_assert!(matches!(kind, ParseErrorKind::DuplicateKey | ParseErrorKind::NumberTooLarge));
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = timestamp_from_text(text);
            let _ = text.parse::<Pointer>();
            let _ = bytes_from_text(text);
        }
    }

    #[test]
    fn timestamps_read_back(ms in -62_167_219_200_000_i64..=253_402_300_799_999) {
        prop_assert_eq!(timestamp_from_text(&timestamp_to_text(ms).unwrap()), Some(ms));
    }
}
