//! What schemas ask, what is refused of them, and what is told of a document.

use super::*;
use crate::op::{FieldPath, FieldPaths, FieldRights, Fields};

fn schema(text: &str) -> Schema {
    Schema::compile(&SchemaText::from_json(text.as_bytes()).unwrap()).unwrap()
}

/// Returns place, keyword and what is allowed of all that is wrong.
fn wrong(schema: &Schema, json: &str) -> Vec<(String, String, Option<String>)> {
    let found = schema.check(json.as_bytes());
    found.violations.into_iter().map(|found| (found.pointer, found.keyword, found.allowed)).collect()
}

fn one(pointer: &str, keyword: &str, allowed: Option<&str>) -> Vec<(String, String, Option<String>)> {
    vec![(pointer.to_owned(), keyword.to_owned(), allowed.map(str::to_owned))]
}

const PERSON: &str = r##"{
    "type": "object",
    "required": ["name"],
    "additionalProperties": false,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
        "mail": {"format": "email"},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "maxItems": 2, "uniqueItems": true, "items": {"$ref": "#/$defs/tag"}},
        "a/b~": {"const": null}
    },
    "$defs": {"tag": {"type": "string"}}
}"##;

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_is_allowed() {
    let person = schema(PERSON);
    let cases = [
        (r#"{"name":"Ann"}"#, vec![]),
        (r#"{"name":"Ann","age":149,"mail":"a@b.ch","kind":"a","tags":["x","y"],"a/b~":null}"#, vec![]),
        ("{}", one("/name", "required", None)),
        (r#"{"name":""}"#, {
            let mut both = one("/name", "minLength", Some("1"));
            both.extend(one("/name", "pattern", Some("\"^[A-Z]\"")));
            both
        }),
        (r#"{"name":"Annabel"}"#, one("/name", "maxLength", Some("5"))),
        (r#"{"name":"Ann","age":-1}"#, one("/age", "minimum", Some("0"))),
        (r#"{"name":"Ann","age":150}"#, one("/age", "exclusiveMaximum", Some("150"))),
        (r#"{"name":"Ann","age":1.5}"#, one("/age", "type", Some("\"integer\""))),
        (r#"{"name":"Ann","age":1.0}"#, vec![]),
        (r#"{"name":"Ann","age":18446744073709551615}"#, one("/age", "exclusiveMaximum", Some("150"))),
        (r#"{"name":"Ann","mail":"nobody"}"#, one("/mail", "format", Some("\"email\""))),
        (r#"{"name":"Ann","kind":"c"}"#, one("/kind", "enum", Some(r#"["a","b"]"#))),
        (r#"{"name":"Ann","tags":["x",1]}"#, one("/tags/1", "type", Some("\"string\""))),
        (r#"{"name":"Ann","tags":["x","x"]}"#, one("/tags", "uniqueItems", Some("true"))),
        (r#"{"name":"Ann","tags":["x","y","z"]}"#, one("/tags", "maxItems", Some("2"))),
        (r#"{"name":"Ann","a/b~":1}"#, one("/a~1b~0", "const", Some("null"))),
        (r#"{"name":"Ann","more":1}"#, one("/more", "additionalProperties", None)),
    ];
    for (json, expected) in cases {
        assert_eq!(wrong(&person, json), expected, "{json}");
    }
    let found = person.check(br#"{"name":"Ann","tags":["x",1]}"#);
    assert_eq!(found.violations[0].schema, "/$defs/tag/type");
    assert_eq!(found.violations[0].reason, "the value is a number, not \"string\"");
}

#[test]
fn words_hold_no_values_of_the_document() {
    let strict = schema(
        r#"{"properties":{"a":{"type":"integer"},"b":{"enum":[1]},"c":{"const":2},"d":{"pattern":"^x"},
            "e":{"format":"date"},"f":{"anyOf":[{"type":"null"}]},"g":{"not":{"type":"string"}},
            "h":{"maxLength":1},"i":{"propertyNames":{"maxLength":2}},"j":{"contains":{"type":"null"}}}}"#,
    );
    let json = r#"{"a":"secret","b":"secret","c":"secret","d":"secret","e":"secret","f":"secret","g":"secret",
        "h":"secret","i":{"secret":1},"j":["secret"]}"#;
    let found = strict.check(json.as_bytes());
    assert_eq!(found.violations.len(), 10, "{found:?}");
    assert!(!format!("{found:?}").contains("secret"), "{found:?}");
}

#[test]
fn what_may_not_be_read_is_counted_and_not_told() {
    let person = schema(
        r#"{"required":["secret"],"maxProperties":2,"properties":{"open":{"type":"string"},"list":{"items":{
        "properties":{"secret":{"type":"string"},"open":{"type":"string"}}}}}}"#,
    );
    let hidden = |path: &str| FieldPath::at(path.parse().unwrap()).unwrap();
    let rights = FieldRights::any_of([Fields::Except(FieldPaths::of([hidden("/secret"), hidden("/list/*/secret")]))]);
    let found = person.check(br#"{"open":1,"list":[{"secret":1,"open":1}],"x":1}"#);
    let all: Vec<&str> = found.violations.iter().map(|found| found.pointer.as_str()).collect();
    assert_eq!(all, ["", "/list/0/open", "/list/0/secret", "/open", "/secret"]);
    let (seen, withheld) = found.clone().seen_by(&rights);
    let told: Vec<&str> = seen.violations.iter().map(|found| found.pointer.as_str()).collect();
    // How many members there are tells of those that are withheld.
    assert_eq!((told, withheld), (vec!["/list/0/open", "/open"], 3));
    assert_eq!(found.clone().seen_by(&FieldRights::all()), (found.clone(), 0));
    assert_eq!(found.seen_by(&FieldRights::any_of([])).1, 5);
}

#[test]
fn what_was_wrong_before_is_left_out() {
    let both = schema(r#"{"properties":{"a":{"type":"string"},"b":{"type":"string"}}}"#);
    let before = both.check(br#"{"a":1,"b":"x"}"#);
    assert!(both.check(br#"{"a":2,"b":"y"}"#).beyond(&before).are_none());
    let worse = both.check(br#"{"a":2,"b":2}"#).beyond(&before);
    assert_eq!(worse.violations.len(), 1);
    assert_eq!(worse.violations[0].pointer, "/b");
}

#[test]
fn lists_of_what_is_wrong_end() {
    let numbers = schema(r#"{"properties":{"n":{"items":{"type":"number"}}}}"#);
    let json = |wrong: usize| format!("{{\"n\":[{}]}}", vec!["\"x\""; wrong].join(","));
    let max = limits::SCHEMA_VIOLATIONS_MAX;
    let found = numbers.check(json(max).as_bytes());
    assert_eq!((found.violations.len(), found.more), (max, false));
    let found = numbers.check(json(max + 1).as_bytes());
    assert_eq!((found.violations.len(), found.more), (max, true));
    // What cannot be told apart counts as new.
    let few = numbers.check(json(max).as_bytes());
    assert!(!found.clone().beyond(&few).are_none());
    let closed = schema(r#"{"properties":{"a":true},"additionalProperties":false}"#);
    let many: Vec<String> = (0..max * 3).map(|n| format!("\"k{n}\":1")).collect();
    let found = closed.check(format!("{{{}}}", many.join(",")).as_bytes());
    assert_eq!((found.violations.len(), found.more), (max, true));
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    let deep = format!("{}{{}}{}", "{\"not\":".repeat(40), "}".repeat(40));
    let chain: Vec<String> = (0..70).map(|n| format!("\"d{n}\":{{\"$ref\":\"#/$defs/d{}\"}}", n + 1)).collect();
    let chain = format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d70":{{}}}}}}"##, chain.join(","));
    let doubling: Vec<String> = (0..20)
        .map(|n| format!("\"d{n}\":{{\"allOf\":[{{\"$ref\":\"#/$defs/d{0}\"}},{{\"$ref\":\"#/$defs/d{0}\"}}]}}", n + 1))
        .collect();
    let doubling = format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d20":{{}}}}}}"##, doubling.join(","));
    let patterns: Vec<String> =
        (0..=limits::SCHEMA_PATTERNS_MAX).map(|n| format!("\"p{n}\":{{\"pattern\":\"x\"}}")).collect();
    let patterns = format!("{{\"properties\":{{{}}}}}", patterns.join(","));
    let long = format!("{{\"pattern\":\"{}\"}}", "x".repeat(limits::SCHEMA_PATTERN_BYTES_MAX + 1));
    let large = format!("{{\"$comment\":\"{}\"}}", "x".repeat(limits::SCHEMA_BYTES_MAX));
    let many = format!("{{\"allOf\":[{}]}}", vec!["{}"; limits::SCHEMA_NODES_MAX].join(","));
    let cases: Vec<(&str, &str, &str)> = vec![
        ("[]", "", "a schema is an object, not an array"),
        ("true", "", "a schema is an object, not a boolean"),
        ("{", "", "not well formed"),
        (&large, "", "larger than 32768 bytes"),
        (r#"{"type":"text"}"#, "/type", "no valid schema"),
        (r#"{"type":1}"#, "/type", "no valid schema"),
        (r#"{"minimum":"1"}"#, "/minimum", "no valid schema"),
        (r#"{"properties":[]}"#, "/properties", "an object of schemas"),
        (r#"{"allOf":{}}"#, "/allOf", "an array of schemas"),
        (r#"{"allOf":[]}"#, "/allOf", "no valid schema"),
        (r#"{"items":1}"#, "/items", "an object or a boolean, not a number"),
        (r#"{"propertys":{}}"#, "/propertys", "no keyword"),
        (r#"{"properties":{"a":{"requird":["b"]}}}"#, "/properties/a/requird", "no keyword"),
        (r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#, "/$schema", "dialect"),
        (r#"{"format":"regex"}"#, "/format", "format is not known"),
        (r#"{"$id":"http://x"}"#, "/$id", "not supported"),
        (r#"{"$dynamicRef":"x"}"#, "/$dynamicRef", "not supported"),
        (r#"{"$ref":"http://example.org/x.json"}"#, "/$ref", "leads to no schema"),
        (r##"{"$ref":"#/$defs/none"}"##, "/$ref", "leads to no schema"),
        (r##"{"properties":{"a":{"$ref":"#/properties"}}}"##, "/properties/a/$ref", "leads to no schema"),
        (r##"{"$ref":"#"}"##, "", "refers to itself"),
        (r##"{"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"}]}}}"##, "/$defs/a", "refers to itself"),
        (
            r##"{"$defs":{"a":{"anyOf":[{"properties":{"x":{"$ref":"#/$defs/a"}}},{"properties":{"x":{"$ref":"#/$defs/a"}}}]}}}"##,
            "/$defs/a",
            "by several ways",
        ),
        (r##"{"properties":{"x":{"$ref":"#"}},"patternProperties":{"x":{"$ref":"#"}}}"##, "", "by several ways"),
        (r#"{"pattern":"("}"#, "/pattern", "no valid schema"),
        (r#"{"pattern":"(?=x)x"}"#, "/pattern", "no valid schema"),
        (r#"{"pattern":"(x{100}){100}{100}"}"#, "/pattern", "no valid schema"),
        (&long, "/pattern", "at most 1000 bytes"),
        (&patterns, "/properties/p9/pattern", "at most 64 regular expressions"),
        (&deep, "/not/not", ""),
        (&chain, "", "more than 64 steps"),
        (&doubling, "", "10000 are allowed"),
        (&many, "/allOf/999", "at most 1000 schemas"),
        (r#"{"a":1,"a":2}"#, "/a", "twice"),
    ];
    for (text, pointer, reason) in cases {
        let shown = &text[..text.len().min(200)];
        let error = match SchemaText::from_json(text.as_bytes()) {
            Err(error) => error,
            Ok(_) if reason.is_empty() => continue,
            Ok(_) => panic!("taken: {shown}"),
        };
        assert!(error.reason.contains(reason), "{shown}: {error:?}");
        if !reason.contains("steps") {
            assert_eq!(error.pointer, pointer, "{shown}: {error:?}");
        }
    }
    let hint = |text: &str| SchemaText::from_json(text.as_bytes()).unwrap_err().hint.unwrap_or_default();
    assert!(hint(r#"{"requird":[]}"#).contains("\"required\""));
    assert!(hint(r#"{"minlength":1}"#).contains("\"minLength\""));
    assert!(hint(r#"{"definitions":{}}"#).contains("\"$defs\""));
    assert!(hint(r#"{"format":"x"}"#).contains("date-time"));
}

#[test]
fn what_refers_to_itself_below_is_taken() {
    let tree = schema(
        r##"{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"value":{"type":"integer"},
            "children":{"type":"array","items":{"$ref":"#/$defs/node"}},
            "next":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/node"}]}}}}}"##,
    );
    assert!(wrong(&tree, r#"{"children":[{"value":1,"next":{"value":2}},{"next":null}]}"#).is_empty());
    assert_eq!(
        wrong(&tree, r#"{"children":[{"value":1},{"children":[{"value":"x"}]}]}"#),
        one("/children/1/children/0/value", "type", Some("\"integer\""))
    );
}

#[test]
fn a_document_that_would_take_too_long_has_not_the_form() {
    let items: Vec<String> = (0..900).map(|n| format!("{{\"maxLength\":{}}}", n + 10)).collect();
    let wide = schema(&format!("{{\"properties\":{{\"a\":{{\"items\":{{\"allOf\":[{}]}}}}}}}}", items.join(",")));
    let json = |count: usize| format!("{{\"a\":[{}]}}", vec!["\"x\""; count].join(","));
    assert!(wide.check(json(100).as_bytes()).are_none());
    let found = wide.check(json(200_000).as_bytes());
    assert!(found.violations[0].reason.contains("too many"), "{found:?}");
}

#[test]
fn texts_are_canonical_and_schemas_are_made_once() {
    let a = SchemaText::from_json(br#"{ "type" : "object", "required": ["b"] }"#).unwrap();
    let b = SchemaText::from_json(br#"{"required":["b"],"type":"object"}"#).unwrap();
    assert_eq!((a.as_str(), a.id()), (r#"{"required":["b"],"type":"object"}"#, b.id()));
    let mut cache = SchemaCache::default();
    assert!(Arc::ptr_eq(&cache.get(&a), &cache.get(&b)));
    for n in 0..limits::SCHEMAS_COMPILED_MAX * 2 {
        let text = SchemaText::from_json(format!("{{\"maximum\":{n}}}").as_bytes()).unwrap();
        assert!(cache.get(&text).is_ok() && cache.get(&a).is_ok());
    }
    assert_eq!(cache.len(), limits::SCHEMAS_COMPILED_MAX);
}
