//! A strict parser of client JSON (RFC 8259) with bounds. It recurses as deep as [`Bounds::depth`] at most.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Value, Wanted};
use crate::limits;
use crate::pointer::write_step;

/// What a JSON text may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Bytes of the text.
    pub bytes: usize,
    /// Nesting of arrays and objects.
    pub depth: usize,
    /// Keys of one object.
    pub keys: usize,
    /// Values in all. A value takes 32 bytes of memory for as few as two of text.
    pub values: usize,
}

impl Bounds {
    /// The bounds for what clients send.
    pub const CLIENT: Self = Self {
        bytes: limits::JSON_BYTES_MAX,
        depth: limits::JSON_DEPTH_MAX,
        keys: limits::JSON_KEYS_MAX,
        values: limits::JSON_VALUES_MAX,
    };

    /// The bounds for what documents read as: they have passed the gate, and how they nest is all that is left to bound.
    pub const STORED: Self =
        Self { bytes: usize::MAX, depth: limits::DOC_DEPTH_MAX + 1, keys: usize::MAX, values: usize::MAX };
}

/// Why a JSON text was refused, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{kind} (byte {offset}, pointer {pointer:?})")]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// JSON pointer to the value that it is about.
    pub pointer: String,
    /// Where in the text, in bytes from its beginning.
    pub offset: usize,
}

/// What can be wrong with a JSON text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// Too many bytes.
    #[error("JSON text is larger than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("JSON text is not UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("JSON text is not well formed: expected {expected}")]
    Syntax {
        /// What would have been right there.
        expected: &'static str,
    },
    /// Arrays and objects in each other.
    #[error("JSON text is nested deeper than {depth_max}")]
    TooDeep {
        /// The bound.
        depth_max: usize,
    },
    /// An object with too many keys.
    #[error("object has more than {keys_max} keys")]
    TooManyKeys {
        /// The bound.
        keys_max: usize,
    },
    /// Too many values in all.
    #[error("JSON text has more than {values_max} values")]
    TooManyValues {
        /// The bound.
        values_max: usize,
    },
    /// The same key twice in an object.
    #[error("key occurs twice in its object")]
    DuplicateKey,
    /// A key that documents cannot have.
    #[error("key is longer than {} bytes", limits::DOC_KEY_BYTES_MAX)]
    KeyTooLong,
    /// An integer beyond 64 bits or a float beyond a double.
    #[error("number does not fit 64 bits")]
    NumberTooLarge,
}

/// Parses JSON that a client sent.
///
/// # Errors
/// See [`ParseErrorKind`].
pub fn parse(text: &[u8]) -> Result<Value, ParseError> {
    parse_within(text, Bounds::CLIENT)
}

/// Parses JSON within other bounds.
///
/// # Errors
/// See [`ParseErrorKind`].
pub fn parse_within(text: &[u8], bounds: Bounds) -> Result<Value, ParseError> {
    read(text, bounds, Parser::value)
}

/// Reads what is wanted of a document's text, and passes over the rest, of which nothing is checked. An array on the way to
/// what is wanted is read whole.
///
/// # Errors
/// See [`ParseErrorKind`].
pub fn extract(text: &[u8], wanted: &Wanted) -> Result<Value, ParseError> {
    read(text, Bounds::STORED, |parser| parser.part(wanted))
}

fn read<'a>(
    text: &'a [u8],
    bounds: Bounds,
    parse: impl FnOnce(&mut Parser<'a>) -> Result<Value, Box<Fault>>,
) -> Result<Value, ParseError> {
    let error = |kind, offset| ParseError { kind, pointer: String::new(), offset };
    if text.len() > bounds.bytes {
        return Err(error(ParseErrorKind::TooLarge { bytes_max: bounds.bytes }, bounds.bytes));
    }
    let text = std::str::from_utf8(text).map_err(|e| error(ParseErrorKind::NotUtf8, e.valid_up_to()))?;
    let mut parser = Parser { text, at: 0, values: 0, depth: 0, bounds };
    let parsed = parse(&mut parser).and_then(|value| {
        parser.skip_space();
        if parser.at == text.len() { Ok(value) } else { Err(parser.expected("the end of the text")) }
    });
    parsed.map_err(|fault| {
        let mut pointer = String::new();
        for step in fault.steps.iter().rev() {
            // Writing to a string cannot fail.
            let _ = write_step(&mut pointer, step);
        }
        ParseError { kind: fault.kind, pointer, offset: fault.offset }
    })
}

/// An error on its way out: every level adds its step, the innermost first.
struct Fault {
    kind: ParseErrorKind,
    offset: usize,
    steps: Vec<String>,
}

impl Fault {
    fn within(mut self: Box<Self>, step: impl Into<String>) -> Box<Self> {
        self.steps.push(step.into());
        self
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    values: usize,
    depth: usize,
    bounds: Bounds,
}

impl Parser<'_> {
    fn fault(&self, kind: ParseErrorKind) -> Box<Fault> {
        Box::new(Fault { kind, offset: self.at, steps: Vec::new() })
    }

    fn expected(&self, expected: &'static str) -> Box<Fault> {
        self.fault(ParseErrorKind::Syntax { expected })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Passes over the byte if it is the next one that is no space.
    fn next_is(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn value(&mut self) -> Result<Value, Box<Fault>> {
        self.skip_space();
        self.values += 1;
        if self.values > self.bounds.values {
            return Err(self.fault(ParseErrorKind::TooManyValues { values_max: self.bounds.values }));
        }
        match self.peek() {
            Some(b'{') => self.nested(Self::map),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) | None => Err(self.expected("a value")),
        }
    }

    /// Reads what is wanted of the next value.
    fn part(&mut self, wanted: &Wanted) -> Result<Value, Box<Fault>> {
        self.skip_space();
        if wanted.is_whole() || self.peek() != Some(b'{') {
            return self.value();
        }
        // Wanted places are no deeper than documents.
        self.at += 1;
        let mut map = BTreeMap::new();
        if self.next_is(b'}') {
            return Ok(Value::Map(map));
        }
        loop {
            self.skip_space();
            let start = self.at;
            self.skip_string()?;
            // Between the quotes, which are ASCII.
            let raw = self.text.get(start + 1..self.at - 1).unwrap_or_default();
            let key = if raw.contains('\\') {
                let end = std::mem::replace(&mut self.at, start);
                let key = self.string()?;
                self.at = end;
                Cow::Owned(key)
            } else {
                Cow::Borrowed(raw)
            };
            if !self.next_is(b':') {
                return Err(self.expected("':'"));
            }
            self.skip_space();
            match wanted.member(&key) {
                Some(wanted) => {
                    let value = self.part(wanted)?;
                    map.insert(key.into_owned(), value);
                }
                None => self.skip()?,
            }
            if self.next_is(b'}') {
                return Ok(Value::Map(map));
            }
            if !self.next_is(b',') {
                return Err(self.expected("',' or '}'"));
            }
        }
    }

    /// Passes over a value; the next byte is its first.
    fn skip(&mut self) -> Result<(), Box<Fault>> {
        let mut open = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => self.skip_string()?,
                Some(b'{' | b'[') => {
                    open += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') => {
                    open = open.saturating_sub(1);
                    self.at += 1;
                }
                Some(b',' | b':' | b' ') if open > 0 => self.at += 1,
                Some(_) => {
                    while !matches!(self.peek(), None | Some(b',' | b':' | b'}' | b']' | b' ' | b'"' | b'{' | b'[')) {
                        self.at += 1;
                    }
                }
                None => return Err(self.expected("the rest of a value")),
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// Passes over a string; the next byte is its opening quote.
    fn skip_string(&mut self) -> Result<(), Box<Fault>> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a string"));
        }
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                // What is escaped is one byte, or more that are no quotes.
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.expected("the closing quote")),
            }
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Box<Fault>>) -> Result<Value, Box<Fault>> {
        if self.depth == self.bounds.depth {
            return Err(self.fault(ParseErrorKind::TooDeep { depth_max: self.bounds.depth }));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, Box<Fault>> {
        if !self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return Err(self.expected("true, false or null"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn list(&mut self) -> Result<Value, Box<Fault>> {
        let mut list = Vec::new();
        if self.next_is(b']') {
            return Ok(Value::List(list));
        }
        loop {
            let value = self.value().map_err(|fault| fault.within(list.len().to_string()))?;
            list.push(value);
            if self.next_is(b']') {
                return Ok(Value::List(list));
            }
            if !self.next_is(b',') {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    fn map(&mut self) -> Result<Value, Box<Fault>> {
        let mut map = BTreeMap::new();
        if self.next_is(b'}') {
            return Ok(Value::Map(map));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key"));
            }
            let at = self.at;
            let key = self.string()?;
            if !self.next_is(b':') {
                return Err(self.expected("':'"));
            }
            let refuse = |kind, key| Err(Box::new(Fault { kind, offset: at, steps: vec![key] }));
            if key.len() > limits::DOC_KEY_BYTES_MAX {
                return Err(Box::new(Fault { kind: ParseErrorKind::KeyTooLong, offset: at, steps: Vec::new() }));
            }
            let full = map.len() == self.bounds.keys;
            match map.entry(key) {
                Entry::Occupied(entry) => return refuse(ParseErrorKind::DuplicateKey, entry.key().clone()),
                Entry::Vacant(_) if full => {
                    return Err(self.fault(ParseErrorKind::TooManyKeys { keys_max: self.bounds.keys }));
                }
                Entry::Vacant(entry) => {
                    let value = self.value().map_err(|fault| fault.within(entry.key().as_str()))?;
                    entry.insert(value);
                }
            }
            if self.next_is(b'}') {
                return Ok(Value::Map(map));
            }
            if !self.next_is(b',') {
                return Err(self.expected("',' or '}'"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, Box<Fault>> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let number = self.text.get(start..self.at).and_then(super::number::read);
        number.ok_or_else(|| Box::new(Fault { kind: ParseErrorKind::NumberTooLarge, offset: start, steps: Vec::new() }))
    }

    fn digits(&mut self) -> Result<(), Box<Fault>> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.expected("a digit"));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    /// Reads a string; the next byte is its opening quote.
    fn string(&mut self) -> Result<String, Box<Fault>> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            // Quotes, backslashes and control characters are ASCII, so both ends lie between characters.
            string.push_str(self.text.get(start..self.at).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => {
                    self.at += 1;
                    string.push(self.escape()?);
                }
                Some(_) => return Err(self.expected("an escape in place of a control character")),
                None => return Err(self.expected("the closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Box<Fault>> {
        let char = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.escaped_unicode();
            }
            Some(_) | None => return Err(self.expected("an escape")),
        };
        self.at += 1;
        Ok(char)
    }

    fn escaped_unicode(&mut self) -> Result<char, Box<Fault>> {
        let first = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            let follows = self.text.as_bytes().get(self.at..self.at + 2) == Some(b"\\u");
            self.at += if follows { 2 } else { 0 };
            let second = if follows { self.hex()? } else { 0 };
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.expected("the second half of a surrogate pair"));
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.expected("the first half of a surrogate pair"))
    }

    fn hex(&mut self) -> Result<u32, Box<Fault>> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }
}
