//! Numbers of JSON texts.

use super::Value;

/// 2⁶⁴: floats at or above it are beyond every integer that is kept.
const BEYOND_INTEGERS: f64 = 18_446_744_073_709_551_616.0;

/// Reads a number in JSON's own grammar; `None` if it fits no type without loss of its magnitude.
pub(super) fn read(text: &str) -> Option<Value> {
    if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        let float: f64 = text.parse().ok()?;
        // Automerge takes a negative zero for zero when it looks for changes, so it could not be stored dependably.
        return float.is_finite().then_some(Value::Float(float + 0.0));
    }
    text.parse().map(Value::Int).or_else(|_| text.parse().map(Value::Uint)).ok()
}

/// Returns whether a finite float is exactly that integer (of the i64 or u64 range).
#[expect(clippy::cast_possible_truncation, reason = "the float is checked to be an integer within the range of i128")]
pub(super) fn equals(float: f64, integer: i128) -> bool {
    float.fract() == 0.0 && float.abs() < BEYOND_INTEGERS && float as i128 == integer
}
