//! The canonical JSON text: keys sorted by bytes, no spaces, shortest floats, only the necessary escapes.

use std::fmt::Write as _;

use automerge::{Automerge, ChangeHash, ObjId, ObjType, ROOT, ScalarValueRef};

use super::walk::{Sink, walk};
use super::{Value, bytes, timestamp};

/// Returns the canonical JSON text of a document.
#[must_use]
pub fn render(doc: &Automerge) -> String {
    rendered(|writer| walk(doc, &ROOT, ObjType::Map, None, writer))
}

/// Returns the canonical JSON text of a document as it was at `heads`. Heads that are not in it count as nothing.
#[must_use]
pub fn render_at(doc: &Automerge, heads: &[ChangeHash]) -> String {
    rendered(|writer| walk(doc, &ROOT, ObjType::Map, Some(heads), writer))
}

/// Returns the canonical JSON text of an object of a document.
pub(in crate::document) fn render_object(doc: &Automerge, object: &ObjId, kind: ObjType) -> String {
    rendered(|writer| walk(doc, object, kind, None, writer))
}

/// Returns the canonical JSON text of a value.
#[must_use]
pub fn render_value(value: &Value) -> String {
    rendered(|writer| writer.value(value))
}

/// Returns the canonical JSON text of what `show` hands over.
pub(in crate::document) fn rendered(show: impl FnOnce(&mut Writer)) -> String {
    let mut writer = Writer { out: String::with_capacity(TEXT_BYTES), comma: false };
    show(&mut writer);
    writer.out
}

/// Room for a text at first: that of a usual document.
const TEXT_BYTES: usize = 256;

/// Writes the canonical JSON text.
pub(in crate::document) struct Writer {
    out: String,
    /// Whether a value was written at this level already.
    comma: bool,
}

impl Writer {
    fn begin(&mut self) {
        if self.comma {
            self.out.push(',');
        }
        self.comma = true;
    }

    fn open(&mut self, bracket: char) {
        self.begin();
        self.out.push(bracket);
        self.comma = false;
    }

    fn close(&mut self, bracket: char) {
        self.out.push(bracket);
        self.comma = true;
    }

    fn string(&mut self, text: &str) {
        self.begin();
        quote(&mut self.out, text);
    }

    fn word(&mut self, word: &str) {
        self.begin();
        self.out.push_str(word);
    }

    fn number(&mut self, number: impl std::fmt::Display) {
        self.begin();
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{number}");
    }

    fn float(&mut self, float: f64) {
        self.begin();
        if float.is_finite() {
            // `Debug` writes the shortest digits that read back as the same float, always with a fraction or exponent.
            let _ = write!(self.out, "{float:?}");
        } else {
            self.out.push_str("null");
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.word("null"),
            Value::Bool(true) => self.word("true"),
            Value::Bool(false) => self.word("false"),
            Value::Int(int) => self.number(int),
            Value::Uint(uint) => self.number(uint),
            Value::Float(float) => self.float(*float),
            Value::String(text) => self.string(text),
            Value::List(list) => {
                self.open('[');
                list.iter().for_each(|value| self.value(value));
                self.close(']');
            }
            Value::Map(map) => {
                self.open('{');
                for (key, value) in map {
                    self.key(key);
                    self.value(value);
                }
                self.close('}');
            }
        }
    }
}

impl Sink for Writer {
    fn open_map(&mut self) {
        self.open('{');
    }

    fn close_map(&mut self) {
        self.close('}');
    }

    fn open_list(&mut self) {
        self.open('[');
    }

    fn close_list(&mut self) {
        self.close(']');
    }

    fn key(&mut self, key: &str) {
        self.string(key);
        self.out.push(':');
        self.comma = false;
    }

    fn scalar(&mut self, value: &ScalarValueRef<'_>) {
        match value {
            ScalarValueRef::Null => self.word("null"),
            ScalarValueRef::Boolean(true) => self.word("true"),
            ScalarValueRef::Boolean(false) => self.word("false"),
            ScalarValueRef::Int(int) | ScalarValueRef::Counter(int) => self.number(int),
            ScalarValueRef::Uint(uint) => self.number(uint),
            ScalarValueRef::F64(float) => self.float(*float),
            ScalarValueRef::Str(text) => self.string(text),
            ScalarValueRef::Timestamp(ms) => match timestamp::render(*ms) {
                Some(text) => self.string(&text),
                None => self.number(ms),
            },
            ScalarValueRef::Bytes(raw) | ScalarValueRef::Unknown { bytes: raw, .. } => {
                self.string(&bytes::encode(raw));
            }
        }
    }

    fn text(&mut self, text: String) {
        self.string(&text);
    }

    fn json(&mut self, json: &str) {
        self.word(json);
    }

    fn null(&mut self) {
        self.word("null");
    }
}

/// Writes a string in quotes. Runs without escapes are copied as they are.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0..=0x1f => "",
            _ => continue,
        };
        // What is escaped is ASCII, so both ends lie between characters.
        out.push_str(text.get(copied..at).unwrap_or_default());
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        copied = at + 1;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out.push('"');
}
