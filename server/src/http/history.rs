//! What documents were.

use folkmoot::api::{Diff, HistoryPage, HistoryQuery};
use folkmoot::wire::{self, Written};
use folkmoot::{Error, ErrorCode, Result};
use http::Method;
use warp::reply::Response;

use super::documents::{answer, version};
use super::problem::method_not_allowed;
use super::reply::json_answer;
use super::request::{Request, collection_name, document_id};

/// Lists who changed a document, when, through which node and how, the latest first.
#[utoipa::path(get, path = "/v1/collections/{collection}/docs/{id}/history", tag = "history",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
        ("limit" = Option<u32>, Query, description = "Changes of the page, up to 100; 20 if not given"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, description = "The changes, each with an RFC 6902 patch of what it did", body = HistoryPage),
        (status = 400, description = "invalid_parameter, invalid_cursor", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "document_not_found: there never was one", body = wire::Problem, content_type = "application/problem+json"),
        (status = 410, description = "erased", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn history(mut request: Request, collection: String, id: String) -> Result<Response> {
    let (collection, id) = (collection_name(&collection)?, document_id(&id)?);
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let query = HistoryQuery {
        limit: request.query.limit(HistoryQuery::LIMIT_MAX)?,
        after: request.query.take("after").map(|text| folkmoot::api::Cursor::from_text(&text)),
    };
    request.query.finish("limit, after")?;
    json_answer(&request.database.history(&collection, &id, &query).await?)
}

/// Tells what is different between two versions of a document.
#[utoipa::path(get, path = "/v1/collections/{collection}/docs/{id}/diff", tag = "history",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
        ("from" = String, Query, description = "A version: heads, as in ETag, or a time like 2026-03-01T08:00:00Z"),
        ("to" = Option<String>, Query, description = "Another one; the present one if not given"),
    ),
    responses(
        (status = 200, description = "The RFC 6902 patch from the one to the other", body = Diff),
        (status = 400, description = "invalid_parameter", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "document_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 410, description = "erased", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "unknown_heads", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn diff(mut request: Request, collection: String, id: String) -> Result<Response> {
    let (collection, id) = (collection_name(&collection)?, document_id(&id)?);
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let (from, to) = (version(&mut request, "from")?, version(&mut request, "to")?);
    request.query.finish("from, to")?;
    let from =
        from.ok_or_else(|| Error::new(ErrorCode::InvalidParameter, "`from` is missing: a version of the document"))?;
    json_answer(&request.database.diff(&collection, &id, &from, to.as_ref()).await?)
}

/// Makes a document have the content again that it had in a version, or before it was deleted, by a new write.
#[utoipa::path(post, path = "/v1/collections/{collection}/docs/{id}/restore", tag = "history",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
        ("at" = Option<String>, Query, description = "A version: heads, as in ETag, or a time like 2026-03-01T08:00:00Z. If not given, what the document was before it was deleted"),
        ("If-Match" = Option<String>, Header, description = "Only if the document has this version (412 if not)"),
        ("Prefer" = Option<String>, Header, description = "return=minimal leaves the body of the answer out, return=representation puts the document there"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to retry on any node, for a week at least"),
        ("Folkmoot-Durability" = Option<String>, Header, description = "local, majority, all or a number of replicas"),
    ),
    responses(
        (status = 200, description = "Restored, or unchanged", body = Written),
        (status = 201, description = "Restored, of a document that was deleted", body = Written),
        (status = 202, description = "Restored here, but the durability asked for was not reached in time", body = Written),
        (status = 204, description = "As 200, if `Prefer` says return=minimal"),
        (status = 404, description = "document_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 409, description = "nothing_to_restore: not deleted, or there was no document then; unique_violation", body = wire::Problem, content_type = "application/problem+json"),
        (status = 410, description = "erased", body = wire::Problem, content_type = "application/problem+json"),
        (status = 412, description = "precondition_failed", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "unknown_heads, schema_violation, idempotency_mismatch", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn restore(mut request: Request, collection: String, id: String) -> Result<Response> {
    let (collection, id) = (collection_name(&collection)?, document_id(&id)?);
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let at = version(&mut request, "at")?;
    let (options, preferred) = (request.write_options()?, request.preferred_body());
    let Request { database, query, .. } = request;
    query.finish("at")?;
    let outcome = database.restore(&collection, &id, at.as_ref(), &options).await?;
    answer(&*database, &collection, outcome, &options, preferred).await
}
