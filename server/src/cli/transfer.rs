//! Import and export of whole collections.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use folkmoot::api::{BulkOp, BulkOptions, Database as _, Edit, ExitCode, WriteStatus, export as export_all};
use folkmoot::wire::DocumentMeta;
use folkmoot::{Client, DocId, Error, ErrorCode};
use folkmoot_core::limits::JSON_BYTES_MAX;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::value::RawValue;

use super::args::{Export, Import};
use super::documents::{Shown, raw};
use super::failure::Failure;
use super::output::{Format, Output};

/// Edits sent at once.
const BATCH_EDITS: usize = 500;
/// Bytes sent at once, besides the edit that passes it.
const BATCH_BYTES: usize = 1 << 20;
/// A line: a document of the largest size with what stands around it.
const LINE_BYTES_MAX: u64 = (JSON_BYTES_MAX + (64 << 10)) as u64;

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
        return Ok((Box::new(BufReader::new(io::stdin())), progress(output, None)));
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

pub(super) async fn import(client: &Client, args: Import, output: &Output) -> Result<ExitCode, Failure> {
    let (mut reader, bar) = open(&args.file, output)?;
    bar.set_message(format!("import {}", args.collection));
    let options = BulkOptions { durability: args.durability, ..BulkOptions::default() };
    let mut imported = Imported::default();
    let mut line = Vec::new();
    let (mut number, mut ended) = (0_u64, false);
    while !ended {
        let (mut edits, mut numbers, mut bytes) = (Vec::new(), Vec::new(), 0);
        while edits.len() < BATCH_EDITS && bytes < BATCH_BYTES {
            line.clear();
            let read = (&mut reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
            if read.map_err(|e| cannot("read", &args.file, e))? == 0 {
                ended = true;
                break;
            }
            number += 1;
            if line.len() as u64 > LINE_BYTES_MAX {
                return Err(wrong_line(number, &format!("longer than {LINE_BYTES_MAX} bytes")));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let parsed = std::str::from_utf8(line.trim_ascii())
                .map_err(|_| "not UTF-8".to_owned())
                .and_then(|text| edit(text, args.id_field.as_deref()));
            match parsed {
                Ok(edit) => {
                    bytes += line.len();
                    edits.push(BulkOp::from(edit));
                    numbers.push(number);
                }
                Err(why) if args.keep_going => {
                    imported.failed += 1;
                    bar.suspend(|| output.note(&format!("line {number}: {why}")));
                }
                Err(why) => return Err(wrong_line(number, &why)),
            }
        }
        if edits.is_empty() {
            continue;
        }
        let outcomes = client.bulk(&args.collection, edits, &options).await?;
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => match outcome.status {
                    WriteStatus::Created => imported.created += 1,
                    WriteStatus::Updated => imported.updated += 1,
                    WriteStatus::Unchanged | WriteStatus::Deleted => imported.unchanged += 1,
                },
                Err(error) if args.keep_going => {
                    imported.failed += 1;
                    bar.suspend(|| output.note(&format!("line {number}: {error}")));
                }
                Err(error) => {
                    output.note(&format!("line {number} could not be written; --keep-going passes over such lines"));
                    return Err(error.into());
                }
            }
        }
    }
    bar.finish_and_clear();
    output.show(&imported, || {
        let Imported { created, updated, unchanged, failed } = &imported;
        format!("{created} created, {updated} updated, {unchanged} unchanged, {failed} failed")
    })?;
    Ok(if imported.failed > 0 { ExitCode::Failed } else { ExitCode::Done })
}

fn wrong_line(number: u64, why: &str) -> Failure {
    Error::new(ErrorCode::InvalidRequest, format!("line {number}: {why}"))
        .hint("lines before it are imported; --keep-going passes over such lines")
        .into()
}

pub(super) async fn export(client: &Client, args: Export, output: &Output) -> Result<ExitCode, Failure> {
    let info = client.collection(&args.collection).await?;
    let bar = progress(output, None);
    bar.set_message(format!("export {}", args.collection));
    let mut writer: Box<dyn Write> = match &args.file {
        Some(path) => Box::new(io::BufWriter::new(File::create(path).map_err(|e| cannot("create", path, e))?)),
        None => Box::new(io::BufWriter::new(io::stdout().lock())),
    };
    let mut documents = export_all(Arc::new(client.clone()), args.collection, args.prefix);
    let mut count = 0_u64;
    while let Some(document) = documents.next().await {
        let document = document?;
        if args.bare {
            writer.write_all(raw(&document.json)?.get().replace(['\n', '\r'], " ").as_bytes())?;
        } else {
            let shown = Shown { meta: DocumentMeta::from(&document), doc: raw(&document.json)? };
            let line = serde_json::to_string(&shown).map_err(io::Error::from)?;
            writer.write_all(line.replace(['\n', '\r'], " ").as_bytes())?;
        }
        writer.write_all(b"\n")?;
        count += 1;
        bar.set_message(format!("export {}: {count} of about {}", info.name, info.documents.unwrap_or_default()));
        bar.tick();
    }
    writer.flush()?;
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
