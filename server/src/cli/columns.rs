//! Documents as tables: CSV by RFC 4180, with a first row that names fields or says where they are.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::rc::Rc;

use bytes::Bytes;
use folkmoot::DocId;
use folkmoot::api::Edit;
use folkmoot_core::document::json::Pointer;
use folkmoot_core::limits::JSON_DEPTH_MAX;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::args::CellType;
use super::transfer::LINE_BYTES_MAX;

/// Columns of a table.
const COLUMNS_MAX: usize = 1_000;
/// Digits of a number that a float keeps, whatever they are.
const FLOAT_DIGITS: usize = 15;
/// What the reader may have read ahead of a row.
const READ_AHEAD_BYTES: u64 = 64 << 10;

/// How a table is read.
#[derive(Debug, Default)]
pub(super) struct TableOptions {
    pub(super) delimiter: u8,
    /// The column that holds ids; if not given, one that is called `id`, else ids are made.
    pub(super) id: Option<String>,
    /// That column is a field too.
    pub(super) keep_id: bool,
    /// What cells of columns are that `types` does not name.
    pub(super) others: CellType,
    pub(super) types: Vec<(String, CellType)>,
}

/// Fails when a row has no end: an open quote makes one of all the rest.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| io::Error::other(format!("a row is longer than {LINE_BYTES_MAX} bytes")))?);
        Ok(read)
    }
}

struct Column {
    name: String,
    /// Members from the outermost to the field.
    steps: Vec<String>,
    kind: CellType,
    is_field: bool,
}

/// A part of a document that is being put together.
#[derive(Serialize)]
#[serde(untagged)]
enum Part {
    Value(Box<RawValue>),
    Members(BTreeMap<String, Part>),
}

/// The rows of a table.
pub(super) struct Rows<R> {
    reader: csv::Reader<Bounded<R>>,
    left: Rc<Cell<u64>>,
    columns: Vec<Column>,
    id: Option<usize>,
    row: csv::ByteRecord,
}

/// Returns where a column's values are, by its heading: a JSON pointer, or the name of a member.
fn steps(heading: &str) -> Result<Vec<String>, String> {
    if heading.is_empty() {
        return Err("a column has no name".to_owned());
    }
    if !heading.starts_with('/') {
        return Ok(vec![heading.to_owned()]);
    }
    let pointer = heading.parse::<Pointer>().map_err(|error| format!("the column {heading:?}: {error}"))?;
    let steps = pointer.steps().to_vec();
    if steps.len() > JSON_DEPTH_MAX {
        return Err(format!("the column {heading:?} is nested deeper than {JSON_DEPTH_MAX}"));
    }
    Ok(steps)
}

/// Reads the headings.
fn columns(headings: &csv::ByteRecord, options: &TableOptions) -> Result<(Vec<Column>, Option<usize>), String> {
    if headings.len() > COLUMNS_MAX {
        return Err(format!("it has {} columns; at most {COLUMNS_MAX} are taken", headings.len()));
    }
    let mut columns = Vec::with_capacity(headings.len());
    for heading in headings {
        let name = std::str::from_utf8(heading).map_err(|_| "the headings are not UTF-8".to_owned())?;
        // Spreadsheets begin a file with a byte order mark.
        let name = if columns.is_empty() { name.trim_start_matches('\u{feff}') } else { name };
        let kind =
            options.types.iter().rev().find(|(other, _)| other == name).map_or(options.others, |(_, kind)| *kind);
        columns.push(Column { name: name.to_owned(), steps: steps(name)?, kind, is_field: true });
    }
    let position = |name: &str| columns.iter().position(|column| column.name == name);
    let missing = |name: &str| {
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        format!("there is no column {name:?}; there are {}", names.join(", "))
    };
    for (name, _) in &options.types {
        position(name).ok_or_else(|| missing(name))?;
    }
    let id = match &options.id {
        Some(name) => Some(position(name).ok_or_else(|| missing(name))?),
        None => position("id"),
    };
    if let Some(column) = id.and_then(|id| columns.get_mut(id)) {
        column.is_field = options.keep_id;
    }
    // What begins as another column's place does lies right behind it in this order.
    let mut places: Vec<_> = columns.iter().filter(|column| column.is_field).collect();
    places.sort_by(|a, b| a.steps.cmp(&b.steps));
    for (a, b) in places.iter().zip(places.iter().skip(1)) {
        if b.steps.starts_with(&a.steps) {
            return Err(format!(
                "the columns {:?} and {:?} stand for the same place, or one within the other",
                a.name, b.name
            ));
        }
    }
    Ok((columns, id))
}

/// A row: the line that it begins in, how large it is, and what it says.
pub(super) type Row = (u64, usize, Result<Edit, String>);

impl<R: Read> Rows<R> {
    /// Reads the headings of a table.
    pub(super) fn new(input: R, options: &TableOptions) -> Result<Self, String> {
        let left = Rc::new(Cell::new(LINE_BYTES_MAX + READ_AHEAD_BYTES));
        let mut builder = csv::ReaderBuilder::new();
        // How many cells a row has is looked at below, so that --keep-going can pass over it.
        builder.has_headers(false).flexible(true).delimiter(options.delimiter);
        let mut reader = builder.from_reader(Bounded { inner: input, left: left.clone() });
        let mut row = csv::ByteRecord::new();
        if !reader.read_byte_record(&mut row).map_err(|error| error.to_string())? {
            return Err("it is empty: the first row must name the columns".to_owned());
        }
        let (columns, id) = columns(&row, options)?;
        Ok(Self { reader, left, columns, id, row })
    }

    /// Reads the next row.
    pub(super) fn next(&mut self) -> Result<Option<Row>, (u64, String)> {
        self.left.set(LINE_BYTES_MAX + READ_AHEAD_BYTES);
        let begun = self.reader.position().line();
        let read = self.reader.read_byte_record(&mut self.row).map_err(|error| (begun, error.to_string()))?;
        let line = self.row.position().map_or(begun, csv::Position::line);
        Ok(read.then(|| (line, self.row.as_slice().len(), self.edit())))
    }

    fn edit(&self) -> Result<Edit, String> {
        let (got, expected) = (self.row.len(), self.columns.len());
        if got != expected {
            return Err(format!("it has {got} cells and the first row {expected}"));
        }
        let (mut members, mut id) = (BTreeMap::new(), None);
        for (position, (column, cell)) in self.columns.iter().zip(&self.row).enumerate() {
            let text = std::str::from_utf8(cell).map_err(|_| format!("the column {:?} is not UTF-8", column.name))?;
            if self.id == Some(position) {
                let parsed = text.parse::<DocId>();
                id = Some(parsed.map_err(|error| format!("the column {:?} holds no id: {error}", column.name))?);
            }
            // What is empty is not there.
            if column.is_field && !text.is_empty() {
                let value = value(text, column.kind).map_err(|why| format!("the column {:?}: {why}", column.name))?;
                insert(&mut members, &column.steps, value);
            }
        }
        let json = serde_json::to_vec(&members).map(Bytes::from).map_err(|error| error.to_string())?;
        Ok(match id {
            Some(id) => Edit::Put { id, json },
            None => Edit::Create { id: None, json },
        })
    }
}

/// Puts a value into its place. No place lies within that of another column.
fn insert(members: &mut BTreeMap<String, Part>, steps: &[String], value: Box<RawValue>) {
    match steps {
        [] => {}
        [last] => {
            members.insert(last.clone(), Part::Value(value));
        }
        [first, rest @ ..] => {
            let inner = members.entry(first.clone()).or_insert_with(|| Part::Members(BTreeMap::new()));
            if let Part::Members(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// Returns whether a text is a number that says nothing but its value: no leading zero, which identifiers have, no exponent,
/// and no more digits than are kept.
fn is_plain_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
        return false;
    }
    match fraction {
        None => text != "-0" && (text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()),
        Some(fraction) => are_digits(fraction) && whole.len() + fraction.len() <= FLOAT_DIGITS,
    }
}

/// Reads a cell.
fn value(text: &str, kind: CellType) -> Result<Box<RawValue>, String> {
    let json = match kind {
        CellType::Infer if is_plain_number(text) || matches!(text, "true" | "false") => text.to_owned(),
        CellType::Infer | CellType::Text => serde_json::to_string(text).map_err(|error| error.to_string())?,
        CellType::Number => match serde_json::from_str::<serde_json::Number>(text.trim()) {
            Ok(_) => text.trim().to_owned(),
            Err(_) => return Err(format!("{text:?} is no number, as in 3, -1.5 or 2e9")),
        },
        CellType::Boolean => match text.trim().to_ascii_lowercase() {
            word if word == "true" || word == "false" => word,
            _ => return Err(format!("{text:?} is neither true nor false")),
        },
        CellType::Json => text.to_owned(),
    };
    RawValue::from_string(json).map_err(|error| format!("it is no JSON: {error}"))
}

/// Parses a delimiter.
pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'"' | b'\r' | b'\n') => {
            Ok(*byte)
        }
        _ => Err("one character that is no letter, digit or quote, or `tab`".to_owned()),
    }
}

/// What is written of each document.
pub(super) struct Fields {
    fields: Vec<(String, Vec<String>)>,
    with_id: bool,
    /// Text that a spreadsheet would take for a formula is written so that it is none.
    no_formulas: bool,
}

impl Fields {
    pub(super) fn new(names: Vec<String>, with_id: bool, no_formulas: bool) -> Result<Self, String> {
        if names.len() > COLUMNS_MAX {
            return Err(format!("at most {COLUMNS_MAX} columns are written"));
        }
        let fields = names.into_iter().map(|name| steps(&name).map(|steps| (name, steps)));
        Ok(Self { fields: fields.collect::<Result<_, _>>()?, with_id, no_formulas })
    }

    pub(super) fn headings(&self) -> Vec<String> {
        let id = self.with_id.then(|| "id".to_owned());
        id.into_iter().chain(self.fields.iter().map(|(name, _)| name.clone())).collect()
    }

    pub(super) fn row(&self, id: &DocId, document: &Value) -> Vec<String> {
        let id = self.with_id.then(|| self.text(id.as_str()));
        let cells = self.fields.iter().map(|(_, steps)| match at(document, steps) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => self.text(text),
            Some(value) => value.to_string(),
        });
        id.into_iter().chain(cells).collect()
    }

    fn text(&self, text: &str) -> String {
        if self.no_formulas && text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            return format!("'{text}");
        }
        text.to_owned()
    }
}

fn at<'a>(value: &'a Value, steps: &[String]) -> Option<&'a Value> {
    steps.iter().try_fold(value, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => value.get(step),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, options: TableOptions) -> Result<Vec<String>, String> {
        let options =
            TableOptions { delimiter: if options.delimiter == 0 { b',' } else { options.delimiter }, ..options };
        let mut rows = Rows::new(text.as_bytes(), &options)?;
        let mut edits = Vec::new();
        while let Some((line, _, edit)) = rows.next().map_err(|(line, why)| format!("{line}: {why}"))? {
            edits.push(match edit.map_err(|why| format!("{line}: {why}"))? {
                Edit::Put { id, json } => format!("{id} {}", String::from_utf8_lossy(&json)),
                Edit::Create { id: None, json } => String::from_utf8_lossy(&json).into_owned(),
                other => panic!("{other:?}"),
            });
        }
        Ok(edits)
    }

    #[test]
    fn rows_become_documents() {
        let text = "\u{feff}id,name,/address/city,/address/zip,n\r\n1,\"Ann \"\"A\"\"\",\"O\nslo\",0150,7\r\n2,,,,\r\n";
        assert_eq!(
            read(text, TableOptions::default()).unwrap(),
            [r#"1 {"address":{"city":"O\nslo","zip":"0150"},"n":7,"name":"Ann \"A\""}"#, "2 {}"]
        );
        let options =
            || TableOptions { id: Some("n".into()), keep_id: true, delimiter: b';', ..TableOptions::default() };
        assert_eq!(read("n;b\n5;true\n", options()).unwrap(), [r#"5 {"b":true,"n":5}"#]);
        assert_eq!(read("a\n1\n", TableOptions::default()).unwrap(), [r#"{"a":1}"#]);
    }

    #[test]
    fn cells_are_what_they_say() {
        let infer = |text| value(text, CellType::Infer).unwrap().get().to_owned();
        for number in ["0", "-1", "18446744073709551615", "1.50", "-0.5", "123456789012.345", "true", "false"] {
            assert_eq!(infer(number), number);
        }
        for text in [
            "007",
            "+1",
            "1e5",
            "-0",
            "-",
            ".5",
            "1.",
            "18446744073709551616",
            "1234567890123.456",
            "TRUE",
            "null",
            "1,5",
        ] {
            assert_eq!(infer(text), format!("{text:?}"));
        }
        assert_eq!(value("7", CellType::Text).unwrap().get(), "\"7\"");
        assert_eq!(value("1e5", CellType::Number).unwrap().get(), "1e5");
        assert_eq!(value("TRUE", CellType::Boolean).unwrap().get(), "true");
        assert_eq!(value("[1]", CellType::Json).unwrap().get(), "[1]");
        for (text, kind) in [("x", CellType::Number), ("1", CellType::Boolean), ("[1", CellType::Json)] {
            assert!(value(text, kind).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_line() {
        let of = |text: &str| read(text, TableOptions::default()).unwrap_err();
        assert!(of("a,b\n1,2\n1\n").starts_with("3: it has 1 cells"));
        assert!(of("id\n\"\"\n").contains("no id"));
        assert!(of("").contains("empty"));
        assert!(of("a,/a\n").contains("same place"));
        assert!(of("/a/b,/a\n").contains("same place"));
        assert!(of("a,\n").contains("no name"));
        let endless = format!("a\n\"{}", "x".repeat(LINE_BYTES_MAX as usize + (128 << 10)));
        assert!(of(&endless).contains("longer than"));
        let missing = TableOptions { id: Some("key".into()), ..TableOptions::default() };
        assert!(read("a\n", missing).unwrap_err().contains("no column \"key\""));
    }

    #[test]
    fn documents_become_rows() {
        let document = serde_json::json!({"a": "=1+1", "b": {"c": [1, {"d": "x"}]}, "n": -5, "z": null});
        let id = "-7".parse().unwrap();
        let names = || ["a", "/b/c", "/b/c/1/d", "n", "z", "none"].map(str::to_owned).to_vec();
        let plain = Fields::new(names(), true, false).unwrap();
        assert_eq!(plain.headings().first().map(String::as_str), Some("id"));
        assert_eq!(plain.row(&id, &document), ["-7", "=1+1", "[1,{\"d\":\"x\"}]", "x", "-5", "", ""]);
        let safe = Fields::new(names(), true, true).unwrap();
        assert_eq!(safe.row(&id, &document), ["'-7", "'=1+1", "[1,{\"d\":\"x\"}]", "x", "-5", "", ""]);
    }
}
