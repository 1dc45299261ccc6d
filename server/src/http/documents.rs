//! Documents: read, list, export, create, replace, patch, delete, conflicts.

use bytes::Bytes;
use folkmoot::api::{
    At, Cursor, Database, Document, Edit, ListPurpose, ListQuery, Patch, PatchKind, Precondition, ReadOptions,
    Timestamp, Touched, WriteOptions, WriteOutcome, WriteStatus, export,
};
use folkmoot::wire::{self, DocumentMeta, Items, Written};
use folkmoot::{CollectionName, DocId, Error, ErrorCode, Result};
use folkmoot_core::limits::JSON_BYTES_MAX;
use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::body::streamed;
use super::files;
use super::problem::method_not_allowed;
use super::reply::{JSON, json_answer, spliced};
use super::request::{PreferredBody, Request, collection_name, document_id};
use super::sessions;

/// RFC 7240: which preference the answer follows.
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Chunks of an export: large enough to cost little each, small enough for memory.
const EXPORT_CHUNK_BYTES: usize = 64 << 10;

pub(super) async fn all(request: Request, collection: String) -> Result<Response> {
    let collection = collection_name(&collection)?;
    match request.method {
        Method::GET | Method::HEAD => list(request, collection).await,
        Method::POST => create(request, collection).await,
        _ => Ok(method_not_allowed("GET, HEAD, POST")),
    }
}

pub(super) async fn one(request: Request, collection: String, id: String) -> Result<Response> {
    let (collection, id) = (collection_name(&collection)?, document_id(&id)?);
    let (database, seen) = (request.database.clone(), request.read_options()?.session);
    let touched = Touched::document(&collection, &id);
    let answer = match request.method {
        Method::GET | Method::HEAD => get(request, collection, id).await,
        Method::PUT => put(request, collection, id).await,
        Method::PATCH => patch(request, collection, id).await,
        Method::DELETE => delete(request, collection, id).await,
        _ => Ok(method_not_allowed("GET, HEAD, PUT, PATCH, DELETE")),
    };
    sessions::told(&*database, &touched, seen.as_ref(), answer).await
}

/// Reads a document. The body is the plain document; with `meta=true` it is wrapped with its version.
#[utoipa::path(get, path = "/v1/collections/{collection}/docs/{id}", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
        ("meta" = Option<bool>, Query, description = "Wrap the document with its id, heads and time"),
        ("at" = Option<String>, Query, description = "As it was: heads, as in ETag, or a time like 2026-03-01T08:00:00Z"),
        ("If-Match" = Option<String>, Header, description = "Only if the document has this version (412 if not)"),
        ("If-None-Match" = Option<String>, Header, description = "Answer 304 if the document has this version"),
        ("Folkmoot-Session" = Option<String>, Header, description = "Answer from a state at least as new"),
        ("Folkmoot-Timeout" = Option<String>, Header, description = "How long to wait for that state, as in 5s"),
    ),
    responses(
        (status = 200, description = "The document; its version is in ETag, its time in Last-Modified", body = Object),
        (status = 304, description = "The document has the version of If-None-Match"),
        (status = 400, description = "invalid_heads", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "document_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 410, description = "erased", body = wire::Problem, content_type = "application/problem+json"),
        (status = 412, description = "precondition_failed", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "unknown_heads: there never was the version of `at`", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn get(mut request: Request, collection: CollectionName, id: DocId) -> Result<Response> {
    let wrapped = request.query.switch("meta")?;
    let at = version(&mut request, "at")?;
    let (options, precondition) = (request.read_options()?, request.precondition()?);
    request.query.finish("meta, at")?;
    let options = ReadOptions { at, ..options };
    let document = request.database.get(&collection, &id, &options).await?;
    if let Err(error) = precondition.check(Some(&document.heads)) {
        return match precondition {
            Precondition::HeadsAreNot(_) | Precondition::Absent => {
                let mut response = with_version(Bytes::new(), &document);
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                Ok(response)
            }
            Precondition::None | Precondition::Exists | Precondition::HeadsAre(_) => Err(error),
        };
    }
    let body = if wrapped {
        Bytes::from(spliced(&DocumentMeta::from(&document), Some(&document.json))?)
    } else {
        document.json.clone()
    };
    let mut response = with_version(body, &document);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// Takes the version of a document that a parameter names.
pub(super) fn version(request: &mut Request, name: &str) -> Result<Option<At>> {
    request.query.parsed(name, "heads, as in ETag, or a time like 2026-03-01T08:00:00Z")
}

fn with_version(body: Bytes, document: &Document) -> Response {
    let mut response = Response::new(body.into());
    *response.headers_mut() = version_headers(document);
    response
}

fn version_headers(document: &Document) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(etag) = HeaderValue::try_from(document.heads.etag()) {
        headers.insert(ETAG, etag);
    }
    headers.insert(LAST_MODIFIED, http_date(document.modified));
    if document.stale {
        headers.insert("folkmoot-stale", HeaderValue::from_static("true"));
    }
    if let Some(session) = document.session.as_ref().and_then(|s| HeaderValue::from_str(s.as_str()).ok()) {
        headers.insert(wire::SESSION, session);
    }
    headers
}

fn http_date(time: Timestamp) -> HeaderValue {
    let text = httpdate::HttpDate::from(std::time::SystemTime::from(time)).to_string();
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// Lists documents in the order of their ids.
#[utoipa::path(get, path = "/v1/collections/{collection}/docs", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("limit" = Option<u32>, Query, description = "Documents of the page, up to 1000; 100 if not given"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
        ("prefix" = Option<String>, Query, description = "Only ids that begin with this"),
        ("at" = Option<String>, Query, description = "As they were at a time like 2026-03-01T08:00:00Z"),
        ("purpose" = Option<String>, Query, description = "look, or export: what the audit calls it"),
    ),
    responses(
        (status = 200, description = "`{\"items\":[{\"id\",\"heads\",\"modified\",\"doc\"}],\"next\"}`", body = wire::Listed),
        (status = 400, description = "invalid_parameter, invalid_cursor", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn list(mut request: Request, collection: CollectionName) -> Result<Response> {
    let query = ListQuery {
        prefix: request.query.take("prefix"),
        after: request.query.take("after").map(|text| Cursor::from_text(&text)),
        limit: request.query.limit(ListQuery::LIMIT_MAX)?,
        at: request.query.parsed("at", "a time like 2026-03-01T08:00:00Z")?,
        purpose: request.query.parsed::<ListPurpose>("purpose", "look or export")?.unwrap_or_default(),
        // Waited for already.
        session: None,
    };
    request.query.finish("limit, after, prefix, at, purpose")?;
    if let Some(after) = &query.after {
        after.document()?;
    }
    let page = request.database.list(&collection, &query).await?;
    let items = page.items.iter().map(|document| spliced(&DocumentMeta::from(document), Some(&document.json)));
    super::reply::page(items, &serde_json::json!({ "next": page.next }))
}

/// Creates a document with an id made by the node. With the content type application/vnd.automerge it is a file of Automerge, of which the content
/// is taken.
#[utoipa::path(post, path = "/v1/collections/{collection}/docs", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("Prefer" = Option<String>, Header, description = "return=minimal leaves the body of the answer out, return=representation puts the document there"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to retry on any node, for a week at least"),
        ("Folkmoot-Durability" = Option<String>, Header, description = "local, majority, all or a number of replicas"),
        ("Folkmoot-Timeout" = Option<String>, Header, description = "How long to wait for the durability, as in 5s"),
    ),
    request_body(content = Object, content_type = "application/json"),
    responses(
        (status = 201, description = "Created; its address is in Location", body = Written),
        (status = 202, description = "Created here, but the durability asked for was not reached in time", body = Written),
        (status = 409, description = "unique_violation", body = wire::Problem, content_type = "application/problem+json"),
        (status = 415, description = "unsupported_media_type", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn create(request: Request, collection: CollectionName) -> Result<Response> {
    if files::is_file(&request)? {
        return files::create(request, collection, None).await;
    }
    expect_json(&request)?;
    write(request, collection, "", |json| Edit::Create { id: None, json }).await
}

/// Makes a document have this content, as the smallest set of edits against the version named by `Folkmoot-Base`, else
/// against what it is now.
#[utoipa::path(put, path = "/v1/collections/{collection}/docs/{id}", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
        ("create" = Option<bool>, Query, description = "The document must not exist yet (409 if it does)"),
        ("If-Match" = Option<String>, Header, description = "Only if the document has this version (412 if not)"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it does not exist (412 if it does)"),
        ("Folkmoot-Base" = Option<String>, Header, description = "The version edited; merges with what came since"),
        ("Prefer" = Option<String>, Header, description = "return=minimal leaves the body of the answer out, return=representation puts the document there"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to retry on any node, for a week at least"),
        ("Folkmoot-Durability" = Option<String>, Header, description = "local, majority, all or a number of replicas"),
        ("Folkmoot-Timeout" = Option<String>, Header, description = "How long to wait for the durability, as in 5s"),
    ),
    request_body(content = Object, content_type = "application/json"),
    responses(
        (status = 200, description = "Updated, or unchanged", body = Written),
        (status = 201, description = "Created", body = Written),
        (status = 202, description = "Written here, but the durability asked for was not reached in time", body = Written),
        (status = 204, description = "As 200, if `Prefer` says return=minimal"),
        (status = 409, description = "already_exists: with `create`; unique_violation", body = wire::Problem, content_type = "application/problem+json"),
        (status = 415, description = "unsupported_media_type", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn put(mut request: Request, collection: CollectionName, id: DocId) -> Result<Response> {
    expect_json(&request)?;
    let create = request.query.switch("create")?;
    let edit = move |json| {
        if create { Edit::Create { id: Some(id), json } } else { Edit::Put { id, json } }
    };
    write(request, collection, "create", edit).await
}

/// Changes parts of a document; the content type says in which notation.
#[utoipa::path(patch, path = "/v1/collections/{collection}/docs/{id}", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
        ("If-Match" = Option<String>, Header, description = "Only if the document has this version (412 if not)"),
        ("Folkmoot-Base" = Option<String>, Header, description = "The version edited; merges with what came since"),
        ("Prefer" = Option<String>, Header, description = "return=minimal leaves the body of the answer out, return=representation puts the document there"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to retry on any node, for a week at least"),
        ("Folkmoot-Durability" = Option<String>, Header, description = "local, majority, all or a number of replicas"),
    ),
    request_body(description = "RFC 7396 merge patch (application/merge-patch+json), RFC 6902 JSON patch \
        (application/json-patch+json) or edit operations (application/vnd.folkmoot.edit+json)",
        content(
            (Object = "application/merge-patch+json"),
            (Vec<Object> = "application/json-patch+json"),
            (Object = "application/vnd.folkmoot.edit+json"),
        )),
    responses(
        (status = 200, description = "Updated, or unchanged", body = Written),
        (status = 202, description = "Written here, but the durability asked for was not reached in time", body = Written),
        (status = 204, description = "As 200, if `Prefer` says return=minimal"),
        (status = 400, description = "invalid_patch", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "document_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 409, description = "unique_violation", body = wire::Problem, content_type = "application/problem+json"),
        (status = 415, description = "unsupported_media_type", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "patch_failed", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn patch(request: Request, collection: CollectionName, id: DocId) -> Result<Response> {
    let kind = request.media_type()?.and_then(PatchKind::from_media_type).ok_or_else(|| {
        Error::new(ErrorCode::UnsupportedMediaType, "the content type of a PATCH says in which notation it is")
            .hint("use application/merge-patch+json, application/json-patch+json or application/vnd.folkmoot.edit+json")
    })?;
    write(request, collection, "", move |body| Edit::Patch { id, patch: Patch { kind, body } }).await
}

/// Deletes what this node has seen of a document: a change made elsewhere at the same time brings it back.
#[utoipa::path(delete, path = "/v1/collections/{collection}/docs/{id}", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
        ("If-Match" = Option<String>, Header, description = "Only if the document has this version (412 if not)"),
        ("Prefer" = Option<String>, Header, description = "return=minimal leaves the body of the answer out"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to retry on any node, for a week at least"),
        ("Folkmoot-Durability" = Option<String>, Header, description = "local, majority, all or a number of replicas"),
    ),
    responses(
        (status = 200, description = "Deleted", body = Written),
        (status = 202, description = "Deleted here, but the durability asked for was not reached in time", body = Written),
        (status = 204, description = "As 200, if `Prefer` says return=minimal"),
        (status = 404, description = "document_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn delete(request: Request, collection: CollectionName, id: DocId) -> Result<Response> {
    write(request, collection, "", move |_| Edit::Delete { id }).await
}

fn expect_json(request: &Request) -> Result<()> {
    match request.media_type()? {
        None => Ok(()),
        Some(media_type) if media_type.eq_ignore_ascii_case("application/json") => Ok(()),
        // curl sends another one unless it is told not to.
        Some(_) => Err(Error::new(ErrorCode::UnsupportedMediaType, "a document is application/json")
            .hint("send the header `Content-Type: application/json`, or none")),
    }
}

async fn write(
    request: Request,
    collection: CollectionName,
    parameters: &str,
    edit: impl FnOnce(Bytes) -> Edit,
) -> Result<Response> {
    let options = request.write_options()?;
    let preferred = request.preferred_body();
    let Request { database, query, body, .. } = request;
    query.finish(parameters)?;
    let edit = edit(body.whole(JSON_BYTES_MAX).await?);
    let outcome = database.write(&collection, edit, &options).await?;
    answer(&*database, &collection, outcome, &options, preferred).await
}

/// Answers a write that was made.
pub(super) async fn answer(
    database: &dyn Database,
    collection: &CollectionName,
    outcome: WriteOutcome,
    options: &WriteOptions,
    preferred: PreferredBody,
) -> Result<Response> {
    let mut response = written(collection, &outcome)?;
    match preferred {
        PreferredBody::Outcome => {}
        // How far it has come is not to be left out.
        PreferredBody::Minimal if response.status() == StatusCode::ACCEPTED => {}
        PreferredBody::Minimal => {
            if response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::NO_CONTENT;
            }
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
            return Ok(response);
        }
        PreferredBody::Representation if outcome.status == WriteStatus::Deleted => {}
        PreferredBody::Representation => {
            let read = ReadOptions { at: None, session: outcome.session.clone(), timeout: options.timeout };
            match database.get(collection, &outcome.id, &read).await {
                Ok(document) => {
                    // The version that the body has: another write may have come in between.
                    response.headers_mut().extend(version_headers(&document));
                    response.headers_mut().insert(CONTENT_TYPE, JSON);
                    let applied = HeaderValue::from_static("return=representation");
                    response.headers_mut().insert(PREFERENCE_APPLIED, applied);
                    return Ok(response.map(|_| document.json.into()));
                }
                // Deleted meanwhile. The write itself has happened, so the answer must not be a failure.
                Err(error) => tracing::debug!(%error, "the document that was written cannot be shown"),
            }
        }
    }
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    let body = spliced(&Written::from(outcome), None)?;
    Ok(response.map(|_| body.into()))
}

/// Returns the head of the answer to a write.
fn written(collection: &CollectionName, outcome: &WriteOutcome) -> Result<Response> {
    let status = match (outcome.durability.is_satisfied(), outcome.status) {
        (false, _) => StatusCode::ACCEPTED,
        (true, WriteStatus::Created) => StatusCode::CREATED,
        (true, WriteStatus::Updated | WriteStatus::Unchanged | WriteStatus::Deleted) => StatusCode::OK,
    };
    let header = |text: &str| {
        HeaderValue::from_str(text)
            .map_err(|e| Error::new(ErrorCode::Internal, "the answer's headers cannot be written").with_source(e))
    };
    let mut response = Response::new(Bytes::new().into());
    let headers = response.headers_mut();
    headers.insert(ETAG, header(&outcome.heads.etag())?);
    let reached = outcome.durability;
    let reached = format!("{}; replicas={}; needed={}", reached.requested, reached.replicas, reached.needed);
    headers.insert(wire::DURABILITY, header(&reached)?);
    if let Some(session) = &outcome.session {
        headers.insert(wire::SESSION, header(session.as_str())?);
    }
    if outcome.status == WriteStatus::Created {
        let id = percent_encoding::utf8_percent_encode(outcome.id.as_str(), percent_encoding::NON_ALPHANUMERIC);
        headers.insert(LOCATION, header(&format!("/v1/collections/{collection}/docs/{id}"))?);
    }
    *response.status_mut() = status;
    Ok(response)
}

/// Lists where concurrent writers left more than one value in a document.
#[utoipa::path(get, path = "/v1/collections/{collection}/docs/{id}/conflicts", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
    ),
    responses(
        (status = 200, description = "The places and their values; the first of each is the one shown", body = Items<folkmoot::api::Conflict>),
        (status = 404, description = "document_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 410, description = "erased", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn conflicts(request: Request, collection: String, id: String) -> Result<Response> {
    let (collection, id) = (collection_name(&collection)?, document_id(&id)?);
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    let items = request.database.conflicts(&collection, &id).await?;
    json_answer(&Items { items })
}

/// Streams all documents of a collection as NDJSON, in the order of their ids.
#[utoipa::path(get, path = "/v1/collections/{collection}/export", tag = "documents",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("prefix" = Option<String>, Query, description = "Only ids that begin with this"),
    ),
    responses(
        (status = 200, description = "Lines `{\"id\",\"heads\",\"modified\",\"doc\"}`; a last line `{\"error\"}` if it broke off", body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn export_all(mut request: Request, collection: String) -> Result<Response> {
    let collection = collection_name(&collection)?;
    if request.method != Method::GET {
        return Ok(method_not_allowed("GET"));
    }
    let prefix = request.query.take("prefix");
    request.query.finish("prefix")?;
    let database = request.database.clone();
    // What is wrong from the start is answered with its status.
    database.collection(&collection).await?;
    let (writer, mut response) = streamed();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wire::NDJSON));
    let context = request.context.clone();
    tokio::spawn(async move {
        let mut documents = export(database, collection, prefix).take_until(Box::pin(context.shut_down()));
        let mut chunk = Vec::new();
        while let Some(item) = documents.next().await {
            let line = item.and_then(|document| spliced(&DocumentMeta::from(&document), Some(&document.json)));
            let (line, last) = match line {
                Ok(line) => (line, false),
                Err(error) => (error_line(&error), true),
            };
            chunk.extend_from_slice(&line);
            chunk.push(b'\n');
            if last {
                break;
            }
            if chunk.len() >= EXPORT_CHUNK_BYTES && writer.send(std::mem::take(&mut chunk)).await.is_err() {
                return;
            }
        }
        if *context.shutdown.borrow() {
            chunk.extend_from_slice(&error_line(&Error::new(ErrorCode::ShuttingDown, "the export broke off")));
            chunk.push(b'\n');
        }
        // If the reader is gone, nobody misses the rest.
        let _ = writer.send(chunk).await;
    });
    Ok(response)
}

fn error_line(error: &Error) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "error": wire::Problem::from(error) })).unwrap_or_default()
}
