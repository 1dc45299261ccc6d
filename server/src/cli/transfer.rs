//! Import and export of whole collections.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use folkmoot::api::{BulkOp, BulkOptions, Database as _, Document, Edit, ExitCode, WriteStatus, export as export_all};
use folkmoot::wire::DocumentMeta;
use folkmoot::{Client, DocId, Error, ErrorCode};
use folkmoot_core::limits::JSON_BYTES_MAX;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::value::RawValue;

use super::args::{Export, Import, TransferFormat};
use super::columns::{Fields, Rows, TableOptions};
use super::documents::{Shown, raw};
use super::failure::Failure;
use super::input;
use super::output::{Format, Output};

/// Edits sent at once.
const BATCH_EDITS: usize = 500;
/// Bytes sent at once, besides the edit that passes it.
const BATCH_BYTES: usize = 1 << 20;
/// A line: a document of the largest size with what stands around it.
pub(super) const LINE_BYTES_MAX: u64 = (JSON_BYTES_MAX + (64 << 10)) as u64;

/// What an import did.
#[derive(Debug, Default, Serialize)]
struct Imported {
    created: u64,
    updated: u64,
    unchanged: u64,
    failed: u64,
}

fn cannot(what: &str, path: &Path, source: io::Error) -> Failure {
    Error::new(ErrorCode::InvalidRequest, format!("{what} {}: {source}", path.display())).with_source(source).into()
}

fn progress(output: &Output, length: Option<u64>) -> ProgressBar {
    let template = match length {
        Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes}, {elapsed}, {eta} left",
        None => "{msg} {spinner} {elapsed}",
    };
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    // Without a terminal the default target draws nothing.
    if output.format() == Format::Json {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Opens the input; `.gz` and `.zst` are unpacked.
fn open(path: &Path, output: &Output) -> Result<(Box<dyn BufRead>, ProgressBar), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(input::standard_input("name a file")?)), progress(output, None)));
    }
    let file = File::open(path).map_err(|e| cannot("open", path, e))?;
    let length = file.metadata().map_err(|e| cannot("read the size of", path, e))?.len();
    let bar = progress(output, Some(length));
    let read = bar.wrap_read(file);
    let reader: Box<dyn BufRead> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(BufReader::new(read)))),
        Some("zst") => {
            Box::new(BufReader::new(zstd::stream::read::Decoder::new(read).map_err(|e| cannot("unpack", path, e))?))
        }
        Some(_) | None => Box::new(BufReader::new(read)),
    };
    Ok((reader, bar))
}

/// Turns a line into an edit. A put of what is there already changes nothing: so an import that broke off is repeated.
///
/// Without `id_field` the line is one of an export (`id` and `doc`, an object), else a document with its id in `id`.
fn edit(line: &str, id_field: Option<&str>) -> Result<Edit, String> {
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(line).map_err(|e| format!("no JSON object: {e}"))?;
    let name = id_field.unwrap_or("id");
    let value = members.get(name).ok_or_else(|| match id_field {
        Some(name) => format!("the document has no member {name:?}"),
        None => "the document has no member \"id\" (--id-field tells which member is its id)".to_owned(),
    })?;
    let id = match serde_json::from_str(value.get()) {
        Ok(serde_json::Value::String(id)) => id,
        Ok(serde_json::Value::Number(_)) => value.get().to_owned(),
        Ok(_) | Err(_) => return Err(format!("the member {name:?} is neither text nor a number")),
    };
    let id = id.parse::<DocId>().map_err(|e| e.to_string())?;
    let exported = members.get("doc").filter(|doc| id_field.is_none() && doc.get().starts_with('{'));
    let json = exported.map_or(line, |doc| doc.get());
    Ok(Edit::Put { id, json: Bytes::copy_from_slice(json.as_bytes()) })
}

/// Which form a file has: what was said, else by its name.
fn form(said: Option<TransferFormat>, file: Option<&Path>) -> TransferFormat {
    let by_name = || {
        let name = file?.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        name.ends_with(".csv").then_some(TransferFormat::Csv)
    };
    said.or_else(by_name).unwrap_or(TransferFormat::Ndjson)
}

/// What an input has next.
struct Entry {
    /// The line that it begins in.
    line: u64,
    bytes: usize,
    edit: Result<Edit, String>,
}

/// The documents of a file.
enum Entries {
    Lines { reader: Box<dyn BufRead>, line: Vec<u8>, number: u64, id_field: Option<String> },
    Rows(Rows<Box<dyn BufRead>>),
}

impl Entries {
    fn new(reader: Box<dyn BufRead>, args: &Import) -> Result<Self, Failure> {
        let Import { id_field, keep_id, delimiter, types, columns, .. } = args;
        match form(args.format, Some(&args.file)) {
            TransferFormat::Ndjson if *keep_id || !columns.is_empty() => {
                Err(Failure::usage("--keep-id and --as are for CSV: in NDJSON each value has its type"))
            }
            TransferFormat::Ndjson => {
                Ok(Self::Lines { reader, line: Vec::new(), number: 0, id_field: id_field.clone() })
            }
            TransferFormat::Csv => {
                let options = TableOptions {
                    delimiter: *delimiter,
                    id: id_field.clone(),
                    keep_id: *keep_id,
                    others: *types,
                    types: columns.clone(),
                };
                let rows = Rows::new(reader, &options);
                rows.map(Self::Rows).map_err(|why| wrong_file(&format!("{}: {why}", args.file.display())))
            }
        }
    }

    /// Returns the next one. What cannot be read at all ends the import whatever was said.
    fn next(&mut self, file: &Path) -> Result<Option<Entry>, Failure> {
        let (reader, line, number, id_field) = match self {
            Self::Rows(rows) => {
                let next = rows.next().map_err(|(line, why)| wrong_line(line, &why))?;
                return Ok(next.map(|(line, bytes, edit)| Entry { line, bytes, edit }));
            }
            Self::Lines { reader, line, number, id_field } => (reader, line, number, id_field),
        };
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', line);
            if read.map_err(|e| cannot("read", file, e))? == 0 {
                return Ok(None);
            }
            *number += 1;
            if line.len() as u64 > LINE_BYTES_MAX {
                return Err(wrong_line(*number, &format!("longer than {LINE_BYTES_MAX} bytes")));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let edit = std::str::from_utf8(line.trim_ascii())
                .map_err(|_| "not UTF-8".to_owned())
                .and_then(|text| edit(text, id_field.as_deref()));
            return Ok(Some(Entry { line: *number, bytes: line.len(), edit }));
        }
    }
}

pub(super) async fn import(client: &Client, args: Import, output: &Output) -> Result<ExitCode, Failure> {
    let (reader, bar) = open(&args.file, output)?;
    let mut entries = Entries::new(reader, &args)?;
    bar.set_message(format!("import {}", args.collection));
    let options = BulkOptions { durability: args.durability, ..BulkOptions::default() };
    let first = args.from_line.unwrap_or_default();
    let mut imported = Imported::default();
    let mut ended = false;
    while !ended {
        let (mut edits, mut numbers, mut bytes) = (Vec::new(), Vec::new(), 0);
        // What stands before a line that cannot be read is written first.
        let mut broken = None;
        while edits.len() < BATCH_EDITS && bytes < BATCH_BYTES {
            let entry = match entries.next(&args.file) {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    ended = true;
                    break;
                }
                Err(failure) => {
                    broken = Some(failure);
                    break;
                }
            };
            match entry.edit {
                _ if entry.line < first => {}
                Ok(edit) => {
                    bytes += entry.bytes;
                    edits.push(BulkOp::from(edit));
                    numbers.push(entry.line);
                }
                Err(why) if args.keep_going => {
                    imported.failed += 1;
                    bar.suspend(|| output.note(&format!("line {}: {why}", entry.line)));
                }
                Err(why) => {
                    broken = Some(wrong_line(entry.line, &why));
                    break;
                }
            }
        }
        if !edits.is_empty() {
            write(client, &args, (edits, numbers), &options, (&mut imported, &bar, output)).await?;
        }
        if let Some(failure) = broken {
            return Err(failure);
        }
    }
    bar.finish_and_clear();
    output.show(&imported, || {
        let Imported { created, updated, unchanged, failed } = &imported;
        format!("{created} created, {updated} updated, {unchanged} unchanged, {failed} failed")
    })?;
    Ok(if imported.failed > 0 { ExitCode::Failed } else { ExitCode::Done })
}

/// Writes edits, and counts what became of them.
async fn write(
    client: &Client,
    args: &Import,
    (edits, numbers): (Vec<BulkOp>, Vec<u64>),
    options: &BulkOptions,
    (imported, bar, output): (&mut Imported, &ProgressBar, &Output),
) -> Result<(), Failure> {
    let (first, last) = (numbers.first().copied().unwrap_or_default(), numbers.last().copied().unwrap_or_default());
    let outcomes = client.bulk(&args.collection, edits, options).await.inspect_err(|_| {
        output.note(&format!("the lines before {first} are imported; --from-line {first} goes on there"));
    })?;
    let mut failed = None;
    for (number, outcome) in numbers.into_iter().zip(outcomes) {
        match outcome {
            Ok(outcome) => match outcome.status {
                WriteStatus::Created => imported.created += 1,
                WriteStatus::Updated => imported.updated += 1,
                WriteStatus::Unchanged | WriteStatus::Deleted => imported.unchanged += 1,
            },
            Err(error) => {
                imported.failed += 1;
                let only_noted = args.keep_going || failed.is_some();
                let note = if only_noted {
                    format!("line {number}: {error}")
                } else {
                    format!("line {number} could not be written")
                };
                bar.suspend(|| output.note(&note));
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) if !args.keep_going => {
            let next = last + 1;
            output.note(&format!(
                "the other lines up to {last} are imported, and --from-line {next} goes on behind them; --keep-going \
                 passes over lines that cannot be written"
            ));
            Err(error.into())
        }
        Some(_) | None => Ok(()),
    }
}

fn wrong_line(number: u64, why: &str) -> Failure {
    Error::new(ErrorCode::InvalidRequest, format!("line {number}: {why}"))
        .hint(format!(
            "the lines before it are imported; --from-line {number} goes on there, --keep-going passes over such lines"
        ))
        .into()
}

fn wrong_file(what: &str) -> Failure {
    Failure::usage(what.to_owned())
}

/// Where documents are written to; packed if the name says so.
enum Sink {
    Plain(Box<dyn Write>),
    Gz(flate2::write::GzEncoder<io::BufWriter<File>>),
    Zst(zstd::stream::write::Encoder<'static, io::BufWriter<File>>),
}

impl Sink {
    fn create(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::Plain(Box::new(io::BufWriter::new(io::stdout().lock())))) };
        let file = io::BufWriter::new(File::create(path).map_err(|e| cannot("create", path, e))?);
        Ok(match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gz(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
            Some("zst") => Self::Zst(zstd::stream::write::Encoder::new(file, 0).map_err(|e| cannot("pack", path, e))?),
            Some(_) | None => Self::Plain(Box::new(file)),
        })
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut writer) => writer.flush(),
            Self::Gz(writer) => writer.finish()?.flush(),
            Self::Zst(writer) => writer.finish()?.flush(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.write(bytes),
            Self::Gz(writer) => writer.write(bytes),
            Self::Zst(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(writer) => writer.flush(),
            Self::Gz(writer) => writer.flush(),
            Self::Zst(writer) => writer.flush(),
        }
    }
}

/// How documents are written.
enum Writing {
    Lines { bare: bool, sink: Box<Sink> },
    Rows { fields: Fields, writer: Box<csv::Writer<Sink>> },
}

impl Writing {
    fn begin(args: &Export) -> Result<Self, Failure> {
        let Export { file, bare, fields, for_spreadsheets, delimiter, .. } = args;
        match form(args.format, file.as_deref()) {
            TransferFormat::Ndjson if !fields.is_empty() || *for_spreadsheets => {
                Err(Failure::usage("--fields and --for-spreadsheets are for CSV: give --format csv"))
            }
            TransferFormat::Ndjson => Ok(Self::Lines { bare: *bare, sink: Box::new(Sink::create(file.as_deref())?) }),
            TransferFormat::Csv if fields.is_empty() => {
                Err(Failure::usage("which columns a CSV file has must be said, as in --fields name,/address/city"))
            }
            TransferFormat::Csv => {
                let fields = Fields::new(fields.clone(), !*bare, *for_spreadsheets).map_err(Failure::usage)?;
                let mut builder = csv::WriterBuilder::new();
                builder.delimiter(*delimiter).terminator(csv::Terminator::CRLF);
                let mut writer = builder.from_writer(Sink::create(file.as_deref())?);
                writer.write_record(fields.headings()).map_err(unwritten)?;
                Ok(Self::Rows { fields, writer: Box::new(writer) })
            }
        }
    }

    fn document(&mut self, document: &Document) -> Result<(), Failure> {
        match self {
            Self::Rows { fields, writer } => {
                let value = serde_json::from_str(raw(&document.json)?.get()).map_err(io::Error::from)?;
                writer.write_record(fields.row(&document.id, &value)).map_err(unwritten)?;
            }
            Self::Lines { bare, sink } => {
                let doc = raw(&document.json)?;
                let line = if *bare {
                    doc.get().to_owned()
                } else {
                    let shown = Shown { meta: DocumentMeta::from(document), doc };
                    serde_json::to_string(&shown).map_err(io::Error::from)?
                };
                sink.write_all(line.replace(['\n', '\r'], " ").as_bytes())?;
                sink.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Lines { sink, .. } => sink.finish()?,
            Self::Rows { writer, .. } => {
                writer.into_inner().map_err(|error| io::Error::from(error.error().kind()))?.finish()?;
            }
        }
        Ok(())
    }
}

fn unwritten(error: csv::Error) -> Failure {
    io::Error::from(error).into()
}

pub(super) async fn export(client: &Client, args: Export, output: &Output) -> Result<ExitCode, Failure> {
    let info = client.collection(&args.collection).await?;
    let bar = progress(output, None);
    bar.set_message(format!("export {}", args.collection));
    let mut writing = Writing::begin(&args)?;
    let mut documents = export_all(Arc::new(client.clone()), args.collection, args.prefix);
    let mut count = 0_u64;
    while let Some(document) = documents.next().await {
        writing.document(&document?)?;
        count += 1;
        bar.set_message(format!("export {}: {count} of about {}", info.name, info.documents.unwrap_or_default()));
        bar.tick();
    }
    writing.finish()?;
    bar.finish_and_clear();
    if args.file.is_some() {
        output.show(&serde_json::json!({ "exported": count }), || format!("{count} documents exported"))?;
    }
    Ok(ExitCode::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_told_by_the_name_unless_it_is_said() {
        let of = |name: &str| form(None, Some(Path::new(name)));
        for name in ["a.csv", "a.CSV", "x/a.csv.gz", "a.csv.zst"] {
            assert_eq!(of(name), TransferFormat::Csv, "{name}");
        }
        for name in ["a.ndjson", "-", "csv", "a.csv.bz2", "a.gz"] {
            assert_eq!(of(name), TransferFormat::Ndjson, "{name}");
        }
        assert_eq!(form(Some(TransferFormat::Csv), Some(Path::new("a.json"))), TransferFormat::Csv);
    }

    #[test]
    fn ids_are_taken_from_the_line() {
        let put = |line: &str, field: Option<&str>| match edit(line, field).unwrap() {
            Edit::Put { id, json } => (id.to_string(), String::from_utf8(json.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        };
        let line = r#"{"geonameid": 2657896, "name": "Zürich"}"#;
        assert_eq!(put(line, Some("geonameid")), ("2657896".to_owned(), line.to_owned()));
        assert_eq!(put(line, Some("name")).0, "Zürich");
        let exported = r#"{"id":"a","heads":"","doc":{"x":1}}"#;
        assert_eq!(put(exported, None), ("a".to_owned(), r#"{"x":1}"#.to_owned()));
        // Told where the id is, a document may have a member of any name.
        assert_eq!(put(exported, Some("id")), ("a".to_owned(), exported.to_owned()));
        for plain in [r#"{"id":7,"name":"x"}"#, r#"{"id":"7","doc":"a text"}"#] {
            assert_eq!(put(plain, None), ("7".to_owned(), plain.to_owned()));
        }
        for (line, field) in [
            ("[]", Some("id")),
            ("{}", Some("id")),
            (r#"{"id":[]}"#, Some("id")),
            (r#"{"id":""}"#, Some("id")),
            ("{}", None),
            ("x", None),
        ] {
            assert!(edit(line, field).is_err(), "{line}");
        }
    }
}
