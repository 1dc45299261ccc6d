//! JSON values for property tests: small alphabets, so that lists and maps share elements and keys.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Value;

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[abc]", 1 => "[a~/\u{e9}]{0,3}", 1 => Just("id".to_owned())]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        3 => (0_i64..4).prop_map(Value::Int),
        1 => any::<i64>().prop_map(Value::Int),
        1 => any::<u64>().prop_map(Value::from_u64),
        1 => any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(|float| Value::Float(float + 0.0)),
        3 => "[ab]{0,2}".prop_map(Value::String),
        1 => any::<String>().prop_map(Value::String),
    ]
}

/// Any value, nested up to four deep.
pub(in crate::document) fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::btree_map(key(), inner, 0..5).prop_map(Value::Map),
        ]
    })
}

/// A document.
pub(in crate::document) fn document() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(key(), value(), 0..6).prop_map(Value::Map)
}

/// Two versions of a document: parts of the second come from the first.
pub(in crate::document) fn versions() -> impl Strategy<Value = (Value, Value)> {
    prop_oneof![
        (document(), document()),
        (document(), document(), any::<u64>()).prop_map(|(a, b, seed)| {
            let mixed = mix(&a, &b, &mut { seed });
            (a, mixed)
        }),
    ]
}

/// A number below 16 of a fixed sequence.
fn next(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 60) as usize
}

/// Takes some parts of one value and some of the other.
fn mix(a: &Value, b: &Value, seed: &mut u64) -> Value {
    match (a, b) {
        (Value::Map(a), Value::Map(b)) => {
            let mut map = BTreeMap::new();
            for (key, value) in a.iter().chain(b) {
                if next(seed) < 11 {
                    let both = a.get(key).zip(b.get(key));
                    let value =
                        if next(seed) < 8 { both.map(|(a, b)| mix(a, b, seed)) } else { None }.unwrap_or(value.clone());
                    map.insert(key.clone(), value);
                }
            }
            Value::Map(map)
        }
        (Value::List(a), _) => {
            let mut list = a.clone();
            for _ in 0..next(seed) % 4 {
                let at = if list.is_empty() { 0 } else { next(seed) % list.len() };
                match next(seed) % 3 {
                    0 if !list.is_empty() => drop(list.remove(at)),
                    1 if !list.is_empty() => list[at] = mix(&list[at], b, seed),
                    _ => list.insert(at, b.clone()),
                }
            }
            Value::List(list)
        }
        (a, b) => {
            if next(seed) < 8 {
                a.clone()
            } else {
                b.clone()
            }
        }
    }
}
