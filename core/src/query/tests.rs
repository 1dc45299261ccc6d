use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::document::json::{self, Value};
use crate::hlc::Hlc;
use crate::id::{CollectionName, DocId};
use crate::op::{FieldPaths, FieldRights, Fields};
use crate::replica::{Reader, ViewRecord};
use crate::store::keys::{DocKey, Key as _};
use crate::store::{Batch, Durability, Keyspace, MemoryStore, Store, envelope};

fn value(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn collection() -> CollectionName {
    "people".parse().unwrap()
}

/// A store with these documents, the last changed last.
fn store(documents: &[(&str, &str)]) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let mut batch = Batch::new();
    for (n, (id, text)) in documents.iter().enumerate() {
        let record = ViewRecord {
            heads: vec![crate::id::ChangeHash::new([(n % 255) as u8 + 1; 32])],
            deleted: text.is_empty(),
            modified: Hlc::new(1_700_000_000_000 + n as u64 * 1_000, 0),
            feed: n as u64,
            changes: 1,
            voids: Vec::new(),
            deletes: Vec::new(),
            json: if text.is_empty() { Vec::new() } else { json::render_value(&value(text)).into_bytes() }.into(),
        };
        let key = DocKey { collection: collection(), doc: id.parse().unwrap() };
        batch.put(Keyspace::Views, key.encode(), envelope::enclose(&record.encode()));
    }
    store.commit(&batch, Durability::Buffered).unwrap();
    store
}

fn views(documents: &[(&str, &str)]) -> Indexed {
    Indexed::without(Reader::new(store(documents)).views(&collection()))
}

const ALL: Run<'static> = Run { sight: &|_| FieldRights::all(), sees_whole: true, goes_on: &|| true };

fn ids(found: &Found) -> Vec<&str> {
    found.rows.iter().map(|row| row.doc.as_str()).collect()
}

fn query(text: &str) -> Find {
    Find::parse(&value(text)).unwrap_or_else(|error| panic!("{text}: {} {error}", error.pointer))
}

/// The ids that a selector means.
fn selected(views: &Indexed, selector: &str) -> String {
    let found = find(views, &query(&format!(r#"{{"selector":{selector}}}"#)), &ALL).unwrap();
    ids(&found).join(" ")
}

const PEOPLE: &[(&str, &str)] = &[
    (
        "ann",
        r#"{"name":"Ann","age":36,"tags":["a","b"],"address":{"city":"Oslo"},"pets":[{"kind":"cat","age":3},{"kind":"dog","age":9}]}"#,
    ),
    (
        "bob",
        r#"{"name":"Bob","age":17.5,"tags":[],"address":{"city":"Bergen","zip":null},"pets":[{"kind":"dog","age":3}]}"#,
    ),
    ("cy", r#"{"name":"cy","age":"old","tags":"a","address":null,"x.y":1}"#),
    ("dee", r#"{"name":"Dee","age":18446744073709551615,"tags":["b",["a"]],"pets":[]}"#),
    ("gone", ""),
];

#[test]
fn selectors_mean_what_the_page_says() {
    let views = views(PEOPLE);
    for (selector, expected) in [
        ("{}", "ann bob cy dee"),
        (r#"{"name":"Ann"}"#, "ann"),
        (r#"{"age":36.0}"#, "ann"),
        (r#"{"age":{"$gt":17}}"#, "ann bob dee"),
        (r#"{"age":{"$gte":17.5,"$lt":36}}"#, "bob"),
        (r#"{"age":{"$lte":"old"}}"#, "cy"),
        (r#"{"age":{"$ne":36}}"#, "bob cy dee"),
        (r#"{"age":{"$in":[36,"old"]}}"#, "ann cy"),
        (r#"{"age":{"$nin":[36,"old"]}}"#, "bob dee"),
        // An array, or one of its elements; none deeper.
        (r#"{"tags":"a"}"#, "ann cy"),
        (r#"{"tags":["a","b"]}"#, "ann"),
        (r#"{"tags":["a"]}"#, "dee"),
        (r#"{"tags":{"$all":["a","b"]}}"#, "ann"),
        (r#"{"tags":{"$size":0}}"#, "bob"),
        (r#"{"tags":{"$type":"array"}}"#, "ann bob dee"),
        (r#"{"age":{"$type":"number"}}"#, "ann bob dee"),
        (r#"{"age":{"$type":"integer"}}"#, "ann dee"),
        (r#"{"tags.0":"a"}"#, "ann"),
        // What is missing is null, and does not exist.
        (r#"{"address":null}"#, "cy dee"),
        (r#"{"address.zip":null}"#, "ann bob cy dee"),
        (r#"{"address.zip":{"$exists":true}}"#, "bob"),
        (r#"{"address":{"$exists":false}}"#, "dee"),
        (r#"{"address":{"$in":[null]}}"#, "cy dee"),
        (r#"{"address":{"city":"Oslo"}}"#, "ann"),
        (r#"{"address":{"city":"Bergen"}}"#, ""),
        // Through arrays; of one element with $elemMatch only.
        (r#"{"pets.kind":"dog"}"#, "ann bob"),
        (r#"{"pets.kind":"dog","pets.age":3}"#, "ann bob"),
        (r#"{"pets":{"$elemMatch":{"kind":"dog","age":3}}}"#, "bob"),
        (r#"{"pets":{"$elemMatch":{"$or":[{"age":9},{"kind":"bird"}]}}}"#, "ann"),
        (r#"{"tags":{"$elemMatch":{"$gt":"a","$lt":"c"}}}"#, "ann dee"),
        (r#"{"name":{"$regex":"^[A-C]"}}"#, "ann bob"),
        (r#"{"name":{"$regex":"^C","$options":"i"}}"#, "cy"),
        (r#"{"name":{"$contains":"o"}}"#, "bob"),
        (r#"{"age":{"$mod":[4,0]}}"#, "ann"),
        (r#"{"age":{"$not":{"$gt":17}}}"#, "cy"),
        (r#"{"$or":[{"name":"Ann"},{"age":"old"}]}"#, "ann cy"),
        (r#"{"$nor":[{"name":"Ann"},{"age":"old"}]}"#, "bob dee"),
        (r#"{"$and":[{"age":{"$gt":1}},{"tags":"b"}]}"#, "ann dee"),
        (r#"{"/x.y":1}"#, "cy"),
        (r#"{"_id":{"$gte":"bob","$lt":"dee"}}"#, "bob cy"),
        (r#"{"_id":"bob"}"#, "bob"),
        (r#"{"_id":"gone"}"#, ""),
        (r#"{"_modified":{"$gt":"2023-11-14T22:13:21.500Z"}}"#, "cy dee"),
    ] {
        assert_eq!(selected(&views, selector), expected, "{selector}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, pointer, reason) in [
        ("[]", "", "an object stands here"),
        (r#"{"selektor":{}}"#, "/selektor", "no part of a query"),
        (r#"{"selector":5}"#, "/selector", "a selector is an object"),
        (r#"{"selector":{"a":{"$gte":null}}}"#, "/selector/a/$gte", "a number, a string or a boolean"),
        (r#"{"selector":{"a":{"$foo":1}}}"#, "/selector/a/$foo", "no operator here"),
        (r#"{"selector":{"$eq":1}}"#, "/selector/$eq", "no operator here"),
        (r#"{"selector":{"$or":[]}}"#, "/selector/$or", "no selector"),
        (r#"{"selector":{"$or":[{"a":{"$in":5}}]}}"#, "/selector/$or/0/a/$in", "an array of values"),
        (r#"{"selector":{"a":{"$eq":1,"b":2}}}"#, "/selector/a/b", "mixed"),
        (r#"{"selector":{"a":{"$regex":"("}}}"#, "/selector/a/$regex", "unclosed group"),
        (r#"{"selector":{"a":{"$regex":"(a{1000}){1000}"}}}"#, "/selector/a/$regex", "too large"),
        (r#"{"selector":{"a":{"$regex":"a","$options":"q"}}}"#, "/selector/a/$regex", "no option"),
        (r#"{"selector":{"a":{"$options":"i"}}}"#, "/selector/a/$options", "no operator here"),
        (r#"{"selector":{"a":{"$mod":[0,1]}}}"#, "/selector/a/$mod", "divided by 0"),
        (r#"{"selector":{"a":{"$size":-1}}}"#, "/selector/a/$size", "a whole number from 0"),
        (r#"{"selector":{"a":{"$type":"float"}}}"#, "/selector/a/$type", "no type"),
        (r#"{"selector":{"a":{"$not":1}}}"#, "/selector/a/$not", "an object of operators"),
        (r#"{"selector":{"a":{"$elemMatch":{"_id":"x"}}}}"#, "/selector/a/$elemMatch/_id", "of the document"),
        (r#"{"selector":{"a..b":1}}"#, "/selector/a..b", "dots between"),
        (r#"{"selector":{"_rev":1}}"#, "/selector/_rev", "there are only _id and _modified"),
        (r#"{"sort":["a","b","c","d","e"]}"#, "/sort", "at most 4"),
        (r#"{"sort":[{"a":"up"}]}"#, "/sort/0/a", "\"asc\" or \"desc\""),
        (r#"{"fields":[1]}"#, "/fields/0", "a place"),
        (r#"{"limit":0}"#, "/limit", "from 1 to 1000"),
        (r#"{"limit":1001}"#, "/limit", "from 1 to 1000"),
        (r#"{"after":1}"#, "/after", "`next`"),
    ] {
        let error = Find::parse(&value(text)).unwrap_err();
        assert_eq!(error.pointer, pointer, "{text}: {error}");
        assert!(error.reason.contains(reason), "{text}: {error}");
    }
    let deep = (0..20).fold("1".to_owned(), |inner, _| format!(r#"{{"$not":{{"$eq":{inner}}}}}"#));
    // Values that are compared with may nest as they like; conditions not.
    assert!(Find::parse(&value(&format!(r#"{{"selector":{{"a":{deep}}}}}"#))).is_ok());
    let deep = (0..20).fold(r#"{"$eq":1}"#.to_owned(), |inner, _| format!(r#"{{"$not":{inner}}}"#));
    let error = Find::parse(&value(&format!(r#"{{"selector":{{"a":{deep}}}}}"#))).unwrap_err();
    assert!(error.reason.contains("deeper than 16"), "{error}");
    let many: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
    let error = Find::parse(&value(&format!(r#"{{"selector":{{"a":{{"$in":[{}]}}}}}}"#, many.join(",")))).unwrap_err();
    assert!(error.reason.contains("at most 1000"), "{error}");
}

#[test]
fn documents_are_sorted_and_paged_without_loss() {
    let views = views(PEOPLE);
    for (sort, expected) in [
        (r#"["age"]"#, "bob ann dee cy"),
        (r#"["-age"]"#, "cy dee ann bob"),
        (r#"[{"age":"desc"}]"#, "cy dee ann bob"),
        // What is missing first; then null; an array by its least element, or its greatest.
        (r#"["address"]"#, "dee cy bob ann"),
        (r#"["tags"]"#, "ann cy dee bob"),
        (r#"["-tags"]"#, "bob dee ann cy"),
        (r#"["pets.age","-name"]"#, "cy dee bob ann"),
        (r#"["_id"]"#, "ann bob cy dee"),
        (r#"["-_id"]"#, "dee cy bob ann"),
        (r#"["-_modified"]"#, "dee cy bob ann"),
    ] {
        let all = find(&views, &query(&format!(r#"{{"sort":{sort}}}"#)), &ALL).unwrap();
        assert_eq!(ids(&all).join(" "), expected, "{sort}");
        assert_eq!(all.next, None);
        for limit in 1..5 {
            let mut page = query(&format!(r#"{{"sort":{sort},"limit":{limit}}}"#));
            let mut seen = Vec::new();
            loop {
                let found = find(&views, &page, &ALL).unwrap();
                assert!(found.rows.len() <= limit);
                seen.extend(ids(&found).into_iter().map(str::to_owned));
                match found.next {
                    Some(next) => page.after = Some(next.to_text()),
                    None => break,
                }
            }
            assert_eq!(seen, ids(&all), "{sort} by {limit}");
        }
    }
    let mut foreign = query(r#"{"sort":["age"],"limit":1}"#);
    let next = find(&views, &foreign, &ALL).unwrap().next.unwrap().to_text();
    foreign.sort.clear();
    foreign.after = Some(next);
    assert!(matches!(find(&views, &foreign, &ALL), Err(QueryRunError::Place)));
    foreign.after = Some("rubbish".to_owned());
    assert!(matches!(find(&views, &foreign, &ALL), Err(QueryRunError::Place)));
}

#[test]
fn only_what_is_asked_for_is_shown() {
    let views = views(PEOPLE);
    let shown = |fields: &str, id: &str| {
        let found = find(&views, &query(&format!(r#"{{"selector":{{"_id":"{id}"}},"fields":{fields}}}"#)), &ALL);
        String::from_utf8(found.unwrap().rows[0].json.to_vec()).unwrap()
    };
    assert_eq!(shown(r#"["name","address.city"]"#, "ann"), r#"{"address":{"city":"Oslo"},"name":"Ann"}"#);
    assert_eq!(shown(r#"["pets.kind"]"#, "ann"), r#"{"pets":[{"kind":"cat"},{"kind":"dog"}]}"#);
    assert_eq!(shown(r#"["address.city","/x.y"]"#, "cy"), r#"{"x.y":1}"#);
    assert_eq!(shown("[]", "ann"), "{}");
}

#[test]
fn what_may_not_be_seen_is_in_no_answer() {
    let views = views(PEOPLE);
    let fields = |names: &[&str]| FieldPaths::of(names.iter().map(|name| name.parse().unwrap()));
    let sight = |doc: &DocId| match doc.as_str() {
        "ann" => FieldRights::any_of([Fields::Except(fields(&["/age", "/pets/*/age"]))]),
        "bob" => FieldRights::any_of([Fields::Only(fields(&["/name"]))]),
        "cy" => FieldRights::any_of([]),
        _ => FieldRights::all(),
    };
    let run = Run { sight: &sight, sees_whole: false, goes_on: &|| true };
    let found = |text: &str| find(&views, &query(text), &run).unwrap();
    let all = found("{}");
    assert_eq!((ids(&all), all.looked_at), (vec!["ann", "bob", "dee"], 3));
    assert!(!String::from_utf8_lossy(&all.rows[0].json).contains("age"), "{:?}", all.rows[0]);
    assert_eq!(all.rows[1].json, br#"{"name":"Bob"}"#.as_slice());
    // Neither can it be found by, nor does it sort.
    assert_eq!(ids(&found(r#"{"selector":{"age":36}}"#)), [""; 0]);
    assert_eq!(ids(&found(r#"{"selector":{"pets.age":9}}"#)), [""; 0]);
    assert_eq!(ids(&found(r#"{"selector":{"age":{"$exists":false}}}"#)), ["ann", "bob"]);
    assert_eq!(ids(&found(r#"{"sort":["-age"]}"#)), ["dee", "ann", "bob"]);
    assert_eq!(
        found(r#"{"selector":{"_id":"ann"},"fields":["age","name"]}"#).rows[0].json,
        br#"{"name":"Ann"}"#.as_slice()
    );
    let made = aggregate(
        &views,
        &Aggregate::parse(&value(r#"{"values":{"n":{"$count":true},"all":{"$distinct":"age"}}}"#)).unwrap(),
        &run,
    );
    assert_eq!(json::render_value(&made.unwrap().groups[0]), r#"{"all":[18446744073709551615],"n":3}"#);
}

#[test]
fn a_query_that_takes_too_long_says_so_or_goes_on_behind_what_it_saw() {
    let documents: Vec<_> = (0..1_000).map(|n| (format!("d{n:04}"), format!(r#"{{"n":{n}}}"#))).collect();
    let documents: Vec<_> = documents.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let views = views(&documents);
    let looks = Cell::new(0);
    // Time for two looks, some hundred documents.
    let goes_on = || {
        looks.set(looks.get() + 1);
        looks.get() % 3 != 0
    };
    let run = Run { sight: &|_| FieldRights::all(), sees_whole: true, goes_on: &goes_on };
    let mut page = query(r#"{"selector":{"n":{"$mod":[250,249]}}}"#);
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let found = find(&views, &page, &run).unwrap();
        seen.extend(ids(&found).into_iter().map(str::to_owned));
        pages += 1;
        match found.next {
            Some(next) => page.after = Some(next.to_text()),
            None => break,
        }
    }
    assert_eq!(seen, ["d0249", "d0499", "d0749", "d0999"]);
    assert!(pages > 4, "{pages}");
    let sorted = find(&views, &query(r#"{"sort":["n"]}"#), &run);
    assert!(matches!(sorted, Err(QueryRunError::TooLong { looked_at }) if looked_at < 300), "{sorted:?}");
    let counted = aggregate(&views, &Aggregate::parse(&value("{}")).unwrap(), &run);
    assert!(matches!(counted, Err(QueryRunError::TooLong { .. })), "{counted:?}");
}

#[test]
fn values_are_computed_by_groups() {
    let views = views(&[
        ("1", r#"{"country":"NO","n":1,"tags":["a","b"]}"#),
        ("2", r#"{"country":"NO","n":2.5,"tags":["b"]}"#),
        ("3", r#"{"country":"SE","n":"x"}"#),
        ("4", r#"{"n":18446744073709551615,"tags":[]}"#),
        ("5", r#"{"country":"SE","n":[1,9223372036854775807]}"#),
    ]);
    let made = |text: &str| {
        let made = aggregate(&views, &Aggregate::parse(&value(text)).unwrap(), &ALL).unwrap();
        let rows: Vec<_> = made.groups.iter().map(json::render_value).collect();
        (rows.join(" "), made.more)
    };
    assert_eq!(made("{}").0, r#"{"count":5}"#);
    assert_eq!(made(r#"{"selector":{"n":"nothing"}}"#).0, r#"{"count":0}"#);
    assert_eq!(made(r#"{"selector":{"n":"nothing"},"group":["country"]}"#).0, "");
    assert_eq!(
        made(r#"{"group":["country"],"values":{"sum":{"$sum":"n"},"avg":{"$avg":"n"},"most":{"$max":"n"},"least":{"$min":"n"},"tags":{"$distinct":"tags"}}}"#).0,
        concat!(
            r#"{"avg":1.8446744073709552e19,"group":{"country":null},"least":18446744073709551615,"most":18446744073709551615,"sum":18446744073709551615,"tags":[]} "#,
            r#"{"avg":1.75,"group":{"country":"NO"},"least":1,"most":2.5,"sum":3.5,"tags":["a","b"]} "#,
            r#"{"avg":4.611686018427388e18,"group":{"country":"SE"},"least":1,"most":"x","sum":9223372036854775808,"tags":[]}"#,
        )
    );
    assert_eq!(
        made(r#"{"group":["country"],"limit":1,"values":{"n":{"$count":true}}}"#),
        (r#"{"group":{"country":null},"n":1}"#.to_owned(), true)
    );
    for (text, pointer) in [
        (r#"{"values":{"a":{"$sum":1}}}"#, "/values/a/$sum"),
        (r#"{"values":{"a":{"$median":"x"}}}"#, "/values/a"),
        (r#"{"values":{"group":{"$count":true}}}"#, "/values/group"),
        (r#"{"values":{"a":{"$count":true,"$sum":"x"}}}"#, "/values/a"),
        (r#"{"group":"a"}"#, "/group"),
        (r#"{"sort":["a"]}"#, "/sort"),
    ] {
        assert_eq!(Aggregate::parse(&value(text)).unwrap_err().pointer, pointer, "{text}");
    }
    let many: Vec<_> = (0..10_001).map(|n| (format!("d{n}"), format!(r#"{{"n":{n}}}"#))).collect();
    let many: Vec<_> = many.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let refused = aggregate(&self::views(&many), &Aggregate::parse(&value(r#"{"group":["n"]}"#)).unwrap(), &ALL);
    assert!(matches!(&refused, Err(QueryRunError::TooMuch(what)) if what.contains("10000 groups")), "{refused:?}");
}

/// Documents of few keys and values, so that many are alike.
fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-2_i64..3).prop_map(Value::Int),
        Just(Value::Float(0.5)),
        Just(Value::Float(2.0)),
        "[ab\\\\\"{},\\[\\]é ]{0,3}".prop_map(Value::String),
    ];
    let key = || prop_oneof![Just("a"), Just("b"), Just("c"), Just("q\"\\"), Just("0")].prop_map(str::to_owned);
    let value = scalar.prop_recursive(3, 16, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::List),
            prop::collection::btree_map(key(), inner, 0..3).prop_map(Value::Map),
        ]
    });
    let key = prop_oneof![Just("a"), Just("b"), Just("c"), Just("q\"\\"), Just("0")].prop_map(str::to_owned);
    prop::collection::btree_map(key, value, 0..4).prop_map(Value::Map)
}

fn place() -> impl Strategy<Value = String> {
    let step = prop_oneof![Just("a"), Just("b"), Just("c"), Just("0")];
    prop::collection::vec(step, 1..4).prop_map(|steps| steps.join("."))
}

fn selector() -> impl Strategy<Value = Value> {
    let single = |operator: &'static str| move |value: Value| Value::Map([(operator.to_owned(), value)].into());
    let operand = || {
        prop_oneof![
            (-2_i64..3).prop_map(Value::Int),
            Just(Value::Float(0.5)),
            "[ab]{0,2}".prop_map(Value::String),
            any::<bool>().prop_map(Value::Bool),
        ]
    };
    let test = prop_oneof![
        operand(),
        document(),
        Just(Value::Null),
        operand().prop_map(single("$gt")),
        operand().prop_map(single("$lte")),
        operand().prop_map(single("$ne")),
        any::<bool>().prop_map(Value::Bool).prop_map(single("$exists")),
        prop::collection::vec(operand(), 0..3).prop_map(Value::List).prop_map(single("$in")),
        (0_i64..3).prop_map(Value::Int).prop_map(single("$size")),
        Just(Value::String("array".to_owned())).prop_map(single("$type")),
    ];
    let field = (place(), test).prop_map(|(place, test)| Value::Map([(place, test)].into()));
    field.prop_recursive(2, 6, 3, move |inner| {
        (prop_oneof![Just("$and"), Just("$or"), Just("$nor")], prop::collection::vec(inner, 1..3))
            .prop_map(|(kind, parts)| Value::Map([(kind.to_owned(), Value::List(parts))].into()))
    })
}

proptest! {
    /// What is read of a document decides as the whole of it would.
    #[test]
    fn only_what_is_looked_at_need_be_read(document in document(), selector in selector(), places in prop::collection::vec(place(), 0..3)) {
        let selector = Selector::parse(&selector, "").unwrap();
        let text = json::render_value(&document);
        let mut wanted = json::Wanted::default();
        selector.add_wanted(&mut wanted);
        for place in &places {
            place.parse::<Path>().unwrap().add_to(&mut wanted);
        }
        let part = json::extract(text.as_bytes(), &wanted).unwrap();
        let id = Value::Null;
        let selects = |content| selector.selects(&Subject { id: &id, modified: &id, content });
        prop_assert_eq!(selects(&part), selects(&document), "{} {:?}", text, part);
        for place in places {
            let Path::Field(steps) = place.parse().unwrap() else { unreachable!() };
            let reached = |content: &Value| {
                let mut values = Vec::new();
                path::reach(content, &steps, &mut |value| { values.push(json::render_value(value)); false });
                values
            };
            prop_assert_eq!(reached(&part), reached(&document), "{} {}", text, place);
        }
        prop_assert_eq!(json::render_value(&json::extract(text.as_bytes(), &json::Wanted::everything()).unwrap()), text);
    }

    #[test]
    fn sorting_is_by_keys_and_then_by_id(documents in prop::collection::vec(document(), 0..12), descending in any::<bool>(), limit in 1_usize..5) {
        let texts: Vec<_> = documents.iter().enumerate().map(|(n, value)| (format!("d{n:02}"), json::render_value(value))).collect();
        let pairs: Vec<_> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        let views = views(&pairs);
        let mut query = Find { sort: vec![SortKey { path: "a".parse().unwrap(), descending }], limit, ..Find::all() };
        let mut expected: Vec<(Vec<u8>, String)> = texts.iter().zip(&documents).map(|((id, _), content)| {
            (query.sort_key(&Subject { id: &Value::Null, modified: &Value::Null, content }), id.clone())
        }).collect();
        expected.sort();
        let mut seen = Vec::new();
        loop {
            let found = find(&views, &query, &ALL).unwrap();
            seen.extend(ids(&found).into_iter().map(str::to_owned));
            match found.next {
                Some(next) => query.after = Some(next.to_text()),
                None => break,
            }
        }
        prop_assert_eq!(seen, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
    }
}
