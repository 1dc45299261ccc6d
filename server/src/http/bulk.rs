//! Many edits as NDJSON, streamed both ways.

use std::sync::Arc;

use folkmoot::api::{Atomicity, BulkOp, BulkOptions, IdempotencyKey, SessionToken, WriteOutcome};
use folkmoot::wire::{self, BulkLine, BulkResult, Problem};
use folkmoot::{CollectionName, Database, Error, ErrorCode, Result};
use folkmoot_core::limits::JSON_BYTES_MAX;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use warp::reply::Response;

use super::Context;
use super::body::{Line, Lines, Writer, streamed};
use super::problem::method_not_allowed;
use super::request::{Request, collection_name};

/// A line: a document of the largest size with what stands around it.
const LINE_BYTES_MAX: usize = JSON_BYTES_MAX + (64 << 10);
/// Edits given to the database at once; enough to fill a group commit.
const BATCH_EDITS: usize = 256;
/// Bytes given to the database at once, so that a request's memory stays bounded.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of an atomic request: all of it is held until it is written.
const ATOMIC_BYTES_MAX: usize = 8 << 20;

/// Makes many edits. Without `atomic` each line stands for itself, the answer begins while the request still comes, and a
/// request may be of any length. With `atomic=true` all lines are made or none.
#[utoipa::path(post, path = "/v1/collections/{collection}/bulk", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("atomic" = Option<bool>, Query, description = "All or none; at most 256 lines, in one shard"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes each line without own key safe to retry"),
        ("Folkmoot-Durability" = Option<String>, Header, description = "local, majority, all or a number of replicas"),
        ("Folkmoot-Timeout" = Option<String>, Header, description = "How long to wait for the durability, as in 5s"),
    ),
    request_body(content = BulkLine, content_type = "application/x-ndjson"),
    responses(
        (status = 200, description = "A line for each line, in order", body = BulkResult, content_type = "application/x-ndjson"),
        (status = 400, description = "invalid_json, invalid_patch, invalid_id: a line of an atomic request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "already_exists: of an atomic request", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "unsupported_media_type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "atomic_failed, patch_failed", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn bulk(mut request: Request, collection: String) -> Result<Response> {
    let collection = collection_name(&collection)?;
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let atomicity = if request.query.switch("atomic")? { Atomicity::AllOrNothing } else { Atomicity::Each };
    match request.media_type()? {
        None | Some("application/x-ndjson" | "application/jsonl" | "application/json-lines") => {}
        Some(_) => {
            return Err(Error::new(ErrorCode::UnsupportedMediaType, "a bulk request is application/x-ndjson"));
        }
    }
    let write = request.write_options()?;
    if write.precondition != folkmoot::api::Precondition::None || write.merge_onto.is_some() {
        return Err(Error::new(ErrorCode::InvalidHeader, "preconditions of a bulk request stand in its lines"));
    }
    let Request { context, database, query, body, .. } = request;
    query.finish("atomic")?;
    let options =
        BulkOptions { atomicity, durability: write.durability, timeout: write.timeout, session: write.session };
    let job = Job { context, database, collection, options, key: write.idempotency_key };
    let lines = body.lines(LINE_BYTES_MAX);
    match atomicity {
        Atomicity::AllOrNothing => job.atomic(lines).await,
        Atomicity::Each => {
            let (writer, mut response) = streamed();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wire::NDJSON));
            tokio::spawn(job.each(lines, writer));
            Ok(response)
        }
    }
}

struct Job {
    context: Arc<Context>,
    database: Arc<dyn Database>,
    collection: CollectionName,
    options: BulkOptions,
    key: Option<IdempotencyKey>,
}

/// Lines that are written together, and those among them that could not be parsed.
#[derive(Default)]
struct Batch {
    edits: Vec<BulkOp>,
    /// For each line: its number, and why it is no edit, if it is none.
    lines: Vec<(u64, Option<Error>)>,
    bytes: usize,
}

impl Job {
    fn parse(&self, line: &Line) -> Result<BulkOp> {
        let parsed: BulkLine = serde_json::from_slice(&line.text).map_err(|e| {
            Error::new(ErrorCode::InvalidJson, format!("line {} is no bulk line: {e}", line.number))
                .hint(r#"a line looks like {"op":"put","id":"a","doc":{}}"#)
        })?;
        let mut edit = parsed.into_op()?;
        if let (None, Some(key)) = (&edit.idempotency_key, &self.key) {
            edit.idempotency_key = Some(key.line(line.number)?);
        }
        Ok(edit)
    }

    async fn atomic(self, mut lines: Lines) -> Result<Response> {
        let mut edits = Vec::new();
        let mut bytes = 0;
        while let Some(line) = lines.next().await? {
            bytes += line.text.len();
            if edits.len() == BulkOptions::ATOMIC_EDITS_MAX || bytes > ATOMIC_BYTES_MAX {
                return Err(Error::new(
                    ErrorCode::BodyTooLarge,
                    format!(
                        "an atomic request has at most {} lines and {ATOMIC_BYTES_MAX} bytes",
                        BulkOptions::ATOMIC_EDITS_MAX
                    ),
                ));
            }
            edits.push((line.number, self.parse(&line)?));
        }
        let (numbers, edits): (Vec<u64>, Vec<BulkOp>) = edits.into_iter().unzip();
        let outcomes = self.database.bulk(&self.collection, edits, &self.options).await?;
        let mut text = Vec::new();
        let mut session = None;
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            session = outcome.as_ref().ok().and_then(|outcome| outcome.session.clone()).or(session);
            append(&mut text, number, outcome);
        }
        let mut response = Response::new(text.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wire::NDJSON));
        if let Some(value) = session.as_ref().map(SessionToken::as_str).and_then(|s| HeaderValue::from_str(s).ok()) {
            response.headers_mut().insert(wire::SESSION, value);
        }
        Ok(response)
    }

    async fn each(self, mut lines: Lines, writer: Writer) {
        loop {
            let (batch, end) = self.fill(&mut lines).await;
            let mut text = self.write(batch).await;
            if let Some(Err(error)) = &end {
                // The last line tells why nothing follows.
                append(&mut text, lines.number() + 1, Err(error.clone()));
            }
            if !text.is_empty() && writer.send(text).await.is_err() {
                return;
            }
            if end.is_some() {
                return;
            }
            if *self.context.shutdown.borrow() {
                let error = Error::new(ErrorCode::ShuttingDown, "the node shuts down; send the rest to another node");
                let mut text = Vec::new();
                append(&mut text, lines.number() + 1, Err(error));
                let _ = writer.send(text).await;
                return;
            }
        }
    }

    /// Reads a batch; tells whether the request has ended with it, and how.
    async fn fill(&self, lines: &mut Lines) -> (Batch, Option<Result<()>>) {
        let mut batch = Batch::default();
        while batch.lines.len() < BATCH_EDITS && batch.bytes < BATCH_BYTES {
            match lines.next().await {
                Ok(Some(line)) => {
                    batch.bytes += line.text.len();
                    match self.parse(&line) {
                        Ok(edit) => {
                            batch.edits.push(edit);
                            batch.lines.push((line.number, None));
                        }
                        Err(error) => batch.lines.push((line.number, Some(error))),
                    }
                }
                Ok(None) => return (batch, Some(Ok(()))),
                Err(error) => return (batch, Some(Err(error))),
            }
        }
        (batch, None)
    }

    async fn write(&self, batch: Batch) -> Vec<u8> {
        let mut text = Vec::new();
        let wanted = batch.edits.len();
        let written = if wanted == 0 {
            Ok(Vec::new())
        } else {
            self.database.bulk(&self.collection, batch.edits, &self.options).await
        };
        let mut outcomes = match written {
            Ok(outcomes) => outcomes.into_iter(),
            Err(error) => vec![Err(error); wanted].into_iter(),
        };
        for (number, error) in batch.lines {
            let outcome = match error {
                Some(error) => Err(error),
                None => outcomes.next().unwrap_or_else(|| {
                    Err(Error::new(ErrorCode::UnknownOutcome, "the database did not answer for this line"))
                }),
            };
            append(&mut text, number, outcome);
        }
        text
    }
}

fn append(text: &mut Vec<u8>, line: u64, outcome: Result<WriteOutcome>) {
    let result = match outcome {
        Ok(outcome) => BulkResult { line, ok: Some(outcome.into()), error: None },
        Err(error) => BulkResult { line, ok: None, error: Some(Problem::from(&error)) },
    };
    // These types always have a JSON form.
    if serde_json::to_writer(&mut *text, &result).is_ok() {
        text.push(b'\n');
    }
}
