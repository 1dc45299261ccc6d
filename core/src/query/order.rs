//! The order of values, and keys of bytes that sort the same.
//!
//! What is missing comes first, then null, false, true, numbers, strings, arrays and objects. Numbers compare by value, exactly,
//! whether integers or floats; strings by their UTF-8 bytes; arrays and objects by their canonical JSON text.

use std::cmp::Ordering;

use crate::document::json::{Value, render_value};

/// Bytes of a string, or of the text of an array or object, by which it is sorted. What is equal so far is sorted by document id.
pub const SORTED_BYTES_MAX: usize = 256;

/// Compares two values that can be less or greater: both numbers, both strings or both booleans.
pub(super) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => compare_numbers(a, b),
    }
}

fn compare_numbers(a: &Value, b: &Value) -> Option<Ordering> {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => float(b).map(|b| compare_to_float(a, b)),
        (None, Some(b)) => float(a).map(|a| compare_to_float(b, a).reverse()),
        (None, None) => float(a)?.partial_cmp(&float(b)?),
    }
}

/// Returns an integer's value.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    if let Value::Float(number) = value { Some(*number) } else { None }
}

/// Compares an integer of 64 bits to a finite float without rounding either.
fn compare_to_float(integer: i128, float: f64) -> Ordering {
    // A cast of a float saturates, far beyond 64 bits.
    let whole = float.trunc() as i128;
    integer.cmp(&whole).then_with(|| float.trunc().partial_cmp(&float).unwrap_or(Ordering::Equal))
}

/// Whether two values are equal; 1 and 1.0 are.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((key, a), (other, b))| key == other && equal(a, b))
        }
        _ => compare(a, b) == Some(Ordering::Equal),
    }
}

const MISSING: u8 = 0x10;
const NULL: u8 = 0x20;
const FALSE: u8 = 0x30;
const TRUE: u8 = 0x31;
const NUMBER: u8 = 0x40;
const STRING: u8 = 0x50;
const LIST: u8 = 0x60;
const MAP: u8 = 0x70;

/// What the greatest keys begin with.
pub(super) const LAST: u8 = MAP;

/// Returns the key of a value.
pub(super) fn key(value: Option<&Value>) -> Vec<u8> {
    let mut key = Vec::new();
    write_key(&mut key, value);
    key
}

/// Returns what the keys of all values begin with that compare to this one: the first and the last.
pub(super) const fn kind_range(value: &Value) -> Option<(u8, u8)> {
    match value {
        Value::Bool(_) => Some((FALSE, TRUE)),
        Value::Int(_) | Value::Uint(_) | Value::Float(_) => Some((NUMBER, NUMBER)),
        Value::String(_) => Some((STRING, STRING)),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// Appends bytes that sort as the value does among others; of two, neither is the beginning of the other.
pub(super) fn write_key(out: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        None => out.push(MISSING),
        Some(Value::Null) => out.push(NULL),
        Some(Value::Bool(false)) => out.push(FALSE),
        Some(Value::Bool(true)) => out.push(TRUE),
        Some(number @ (Value::Int(_) | Value::Uint(_) | Value::Float(_))) => write_number(out, number),
        Some(Value::String(text)) => write_text(out, STRING, text),
        Some(list @ Value::List(_)) => write_text(out, LIST, &render_value(list)),
        Some(map @ Value::Map(_)) => write_text(out, MAP, &render_value(map)),
    }
}

/// Returns bytes that are the same for two values if and only if queries find them equal; none for null, arrays and objects.
pub(crate) fn equality_key(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) => Some(key(Some(value))),
        // All of it, however long it is.
        Value::String(text) => Some([&[STRING], text.as_bytes()].concat()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// The nearest float, and by how much the number is above it: of integers of 64 bits at most 1,024.
fn write_number(out: &mut Vec<u8>, number: &Value) {
    let (nearest, rest) = match integer(number) {
        Some(integer) => {
            let nearest = integer as f64;
            (nearest, integer - nearest as i128)
        }
        None => (float(number).unwrap_or_default(), 0),
    };
    // There is one zero.
    let bits = (nearest + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.push(NUMBER);
    out.extend(ordered.to_be_bytes());
    out.extend((i16::try_from(rest).unwrap_or(i16::MAX) as u16 ^ 0x8000).to_be_bytes());
}

/// The bytes, zero as two bytes, and an end that is less than any byte that goes on.
fn write_text(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    for byte in text.bytes().take(SORTED_BYTES_MAX) {
        out.push(byte);
        if byte == 0 {
            out.push(u8::MAX);
        }
    }
    out.extend([0, 0]);
}

/// Turns the order of a key around.
pub(super) fn invert(key: &mut [u8]) {
    for byte in key {
        *byte = !*byte;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(value: &Value) -> Vec<u8> {
        super::key(Some(value))
    }

    fn number() -> impl Strategy<Value = Value> {
        let near = prop_oneof![
            Just(0.0),
            Just(1.0),
            Just(9_007_199_254_740_992.0),
            Just(9_223_372_036_854_775_808.0),
            Just(-9_223_372_036_854_775_808.0),
            Just(18_446_744_073_709_551_616.0),
            Just(f64::MAX),
            any::<f64>()
        ];
        prop_oneof![
            any::<i64>().prop_map(Value::Int),
            (-3_i64..3).prop_map(Value::Int),
            (0_i64..2_000).prop_map(|n| Value::Int(i64::MAX - n)),
            (0_i64..4).prop_map(|n| Value::Int(9_007_199_254_740_990 + n)),
            any::<u64>().prop_map(Value::from_u64),
            (0_u64..3_000).prop_map(|n| Value::from_u64(u64::MAX - n)),
            (near, any::<bool>()).prop_map(|(number, less)| Value::from_f64(if less {
                number.next_down()
            } else {
                number
            })),
        ]
    }

    /// Exact, by way of big decimals: finite floats are multiples of 2^-1074, too many digits to be quick.
    fn exact(value: &Value) -> (i128, f64) {
        match value {
            Value::Float(number) if number.abs() < 1e30 => (number.floor() as i128, number - number.floor()),
            Value::Float(number) => (if *number > 0.0 { i128::MAX } else { i128::MIN }, *number),
            other => (integer(other).unwrap(), 0.0),
        }
    }

    proptest! {
        #[test]
        fn keys_of_numbers_sort_as_their_values(a in number(), b in number()) {
            prop_assume!(!matches!(a, Value::Null) && !matches!(b, Value::Null));
            let expected = exact(&a).partial_cmp(&exact(&b)).unwrap();
            prop_assert_eq!(compare(&a, &b), Some(expected));
            prop_assert_eq!(key(&a).cmp(&key(&b)), expected, "{:?} {:?}", a, b);
        }

        #[test]
        fn keys_of_strings_sort_as_their_bytes(a in "[\0-\u{2}a-c\u{e9}\u{10ffff}]{0,6}", b in "[\0-\u{2}a-c\u{e9}\u{10ffff}]{0,6}") {
            let (a, b) = (Value::String(a), Value::String(b));
            prop_assert_eq!(Some(key(&a).cmp(&key(&b))), compare(&a, &b));
            let (mut x, mut y) = (key(&a), key(&b));
            invert(&mut x);
            invert(&mut y);
            prop_assert_eq!(x.cmp(&y), key(&b).cmp(&key(&a)));
        }
    }

    #[test]
    fn what_is_equal_has_one_equality_key_and_nothing_else_has() {
        let long = |end: char| format!("\"{}{end}\"", "x".repeat(SORTED_BYTES_MAX));
        let texts = [
            "true",
            "false",
            "0",
            "-0.0",
            "1",
            "1.0",
            "1e0",
            "9007199254740993",
            "9007199254740992.0",
            "\"\"",
            "\"1\"",
        ];
        let texts: Vec<String> = texts.into_iter().map(str::to_owned).chain(['a', 'b'].map(long)).collect();
        let values: Vec<_> = texts.iter().map(|text| crate::document::json::parse(text.as_bytes()).unwrap()).collect();
        for a in &values {
            for b in &values {
                assert_eq!(equality_key(a).unwrap() == equality_key(b).unwrap(), equal(a, b), "{a:?} {b:?}");
            }
        }
        for none in ["null", "[]", "[1]", "{}"] {
            assert_eq!(equality_key(&crate::document::json::parse(none.as_bytes()).unwrap()), None);
        }
    }

    #[test]
    fn kinds_sort_as_the_page_says() {
        let values = [
            "null",
            "false",
            "true",
            "-1e300",
            "-1",
            "0.5",
            "1",
            "18446744073709551615",
            "\"\"",
            "\"a\"",
            "\"b\"",
            "[2]",
            "[]",
            "{\"a\":1}",
            "{}",
        ];
        let keys: Vec<_> = values.map(|text| key(&crate::document::json::parse(text.as_bytes()).unwrap())).to_vec();
        assert!(keys.is_sorted(), "{keys:?}");
        let mut missing = Vec::new();
        write_key(&mut missing, None);
        assert!(missing < keys[0]);
    }
}
