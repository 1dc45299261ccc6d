//! Commands about documents.

use std::io::Read as _;

use bytes::Bytes;
use folkmoot::api::{
    Database as _, ExitCode, ListQuery, PatchKind, Precondition, ReadOptions, WriteOptions, WriteOutcome,
};
use folkmoot::wire::{DocumentMeta, Written};
use folkmoot::{Client, Error, ErrorCode};
use folkmoot_core::limits::JSON_BYTES_MAX;
use serde_json::value::RawValue;

use super::args::{Create, Delete, Get, List, One, Patch, PatchNotation, Put, Writing};
use super::failure::Failure;
use super::input;
use super::output::{Format, Output, table};

/// A document beside its version, as programs get it.
#[derive(serde::Serialize)]
pub(super) struct Shown<'a> {
    #[serde(flatten)]
    pub(super) meta: DocumentMeta,
    pub(super) doc: &'a RawValue,
}

/// Returns the text of a document as JSON that can stand within other JSON.
pub(super) fn raw(json: &[u8]) -> Result<&RawValue, Failure> {
    serde_json::from_slice(json)
        .map_err(|e| Error::new(ErrorCode::InvalidAnswer, format!("the document is not valid JSON: {e}")).into())
}

fn pretty(json: &[u8]) -> Result<String, Failure> {
    let value: serde_json::Value = serde_json::from_str(raw(json)?.get())
        .map_err(|e| Error::new(ErrorCode::InvalidAnswer, format!("the document is not valid JSON: {e}")))?;
    Ok(format!("{value:#}"))
}

/// Returns the JSON given as an argument, else what stands on standard input.
fn given(json: Option<String>) -> Result<Bytes, Failure> {
    match json {
        Some(json) if json != "-" => Ok(json.into()),
        Some(_) | None => {
            let mut text = Vec::new();
            // One byte more than is allowed, so that the node says that it is too large.
            input::standard_input("write the JSON behind the command, in single quotes")?
                .lock()
                .take(JSON_BYTES_MAX as u64 + 1)
                .read_to_end(&mut text)
                .map_err(|e| Error::new(ErrorCode::InvalidRequest, format!("read standard input: {e}")))?;
            Ok(text.into())
        }
    }
}

pub(super) fn options(writing: Writing) -> WriteOptions {
    let Writing { if_match, base, durability, timeout } = writing;
    WriteOptions {
        precondition: if_match.map_or(Precondition::None, |heads| Precondition::HeadsAre(vec![heads])),
        merge_onto: base,
        durability,
        timeout,
        ..WriteOptions::default()
    }
}

pub(super) fn written(outcome: WriteOutcome, output: &Output) -> Result<ExitCode, Failure> {
    let reached = outcome.durability;
    let written = Written::from(outcome);
    output.show(&written, || format!("{} {}", written.status.name(), written.id))?;
    if !reached.is_satisfied() {
        output.note(&format!(
            "durable on {} of {} replicas so far; it replicates further by itself",
            reached.replicas, reached.needed
        ));
    }
    Ok(ExitCode::Done)
}

pub(super) async fn get(client: &Client, args: Get, output: &Output) -> Result<ExitCode, Failure> {
    let One { collection, id } = args.document;
    let options = ReadOptions { at: args.at, ..ReadOptions::default() };
    let document = client.get(&collection, &id, &options).await?;
    if args.meta {
        let shown = Shown { meta: DocumentMeta::from(&document), doc: raw(&document.json)? };
        let text = pretty(&document.json)?;
        output.show(&shown, || format!("heads     {}\nmodified  {}\n{text}", document.heads, document.modified))?;
    } else {
        let text = match output.format() {
            Format::Json => String::from_utf8_lossy(&document.json).into_owned(),
            Format::People => pretty(&document.json)?,
        };
        output.line(&text)?;
    }
    Ok(ExitCode::Done)
}

pub(super) async fn put(client: &Client, args: Put, output: &Output) -> Result<ExitCode, Failure> {
    let One { collection, id } = args.document;
    let outcome = client.put(&collection, id, given(args.body)?, &options(args.writing)).await?;
    written(outcome, output)
}

pub(super) async fn create(client: &Client, args: Create, output: &Output) -> Result<ExitCode, Failure> {
    let outcome = client.create(&args.collection, args.id, given(args.body)?, &WriteOptions::default()).await?;
    written(outcome, output)
}

pub(super) async fn patch(client: &Client, args: Patch, output: &Output) -> Result<ExitCode, Failure> {
    let One { collection, id } = args.document;
    let kind = match args.kind {
        PatchNotation::Merge => PatchKind::Merge,
        PatchNotation::JsonPatch => PatchKind::JsonPatch,
        PatchNotation::Edit => PatchKind::Edits,
    };
    let patch = folkmoot::api::Patch { kind, body: given(args.body)? };
    let outcome = client.patch(&collection, id, patch, &options(args.writing)).await?;
    written(outcome, output)
}

pub(super) async fn delete(client: &Client, args: Delete, output: &Output) -> Result<ExitCode, Failure> {
    let One { collection, id } = args.document;
    let outcome = client.delete(&collection, id, &options(args.writing)).await?;
    written(outcome, output)
}

/// Characters of a document shown in a list.
const PREVIEW_CHARS: usize = 100;

/// Returns the beginning of a text.
pub(super) fn preview(text: &str) -> String {
    let mut preview: String = text.chars().take(PREVIEW_CHARS).collect();
    if preview.len() < text.len() {
        preview.push('…');
    }
    preview
}

pub(super) async fn list(client: &Client, args: List, output: &Output) -> Result<ExitCode, Failure> {
    let mut query = ListQuery { prefix: args.prefix, at: args.as_of.at, ..ListQuery::default() };
    let mut rows = Vec::new();
    let mut left = args.limit;
    let mut more = false;
    while left > 0 {
        query.limit = Some(left.min(ListQuery::LIMIT_MAX));
        let page = client.list(&args.collection, &query).await?;
        for document in &page.items {
            match output.format() {
                Format::Json => {
                    let shown = Shown { meta: DocumentMeta::from(document), doc: raw(&document.json)? };
                    output.show(&shown, String::new)?;
                }
                Format::People => {
                    let text = String::from_utf8_lossy(&document.json);
                    rows.push([document.id.to_string(), document.modified.to_string(), preview(&text)]);
                }
            }
        }
        left = left.saturating_sub(page.items.len());
        more = page.next.is_some();
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    if output.format() == Format::People {
        output.line(&table(["id", "modified", "document"], rows))?;
    }
    if more {
        output.note("there are more; --limit shows them");
    }
    Ok(ExitCode::Done)
}

pub(super) async fn conflicts(client: &Client, args: One, output: &Output) -> Result<ExitCode, Failure> {
    let conflicts = client.conflicts(&args.collection, &args.id).await?;
    output.show(&conflicts, || {
        if conflicts.is_empty() {
            return "no conflicts".to_owned();
        }
        let rows = conflicts.iter().flat_map(|conflict| {
            conflict.values.iter().enumerate().map(|(i, value)| {
                let author = value.author.map(|author| author.to_string()).unwrap_or_default();
                let shown = if i == 0 { "shown" } else { "" };
                [conflict.pointer.clone(), value.value.to_string(), shown.to_owned(), author]
            })
        });
        table(["place", "value", "", "author"], rows)
    })?;
    Ok(ExitCode::Done)
}
