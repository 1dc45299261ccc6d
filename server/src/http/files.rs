//! Documents as files of Automerge.

use folkmoot::wire::{self, Written};
use folkmoot::{CollectionName, DocId, Error, ErrorCode, Result};
use folkmoot_core::limits::AUTOMERGE_FILE_BYTES_MAX;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use warp::reply::Response;

use super::documents::answer;
use super::problem::method_not_allowed;
use super::request::{Request, collection_name, document_id};

pub(super) async fn automerge(request: Request, collection: String, id: String) -> Result<Response> {
    let (collection, id) = (collection_name(&collection)?, document_id(&id)?);
    match request.method {
        Method::GET | Method::HEAD => get(request, collection, id).await,
        Method::PUT => put(request, collection, id).await,
        _ => Ok(method_not_allowed("GET, HEAD, PUT")),
    }
}

/// Returns a document with its history, as Automerge saves it.
#[utoipa::path(get, path = "/v1/collections/{collection}/docs/{id}/automerge", tag = "history",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
    ),
    responses(
        (status = 200, description = "The file", body = String, content_type = "application/vnd.automerge"),
        (status = 403, description = "not_allowed: it takes the right to read all fields and their history", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "document_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 410, description = "erased", body = wire::Problem, content_type = "application/problem+json"),
        (status = 413, description = "document_too_large: more than 16 MiB with its history", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn get(request: Request, collection: CollectionName, id: DocId) -> Result<Response> {
    request.query.finish("")?;
    let file = request.database.automerge(&collection, &id).await?;
    let mut response = Response::new(file.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wire::AUTOMERGE));
    Ok(response)
}

/// Creates a document with the content that a file of Automerge shows. Its history is not taken over.
#[utoipa::path(put, path = "/v1/collections/{collection}/docs/{id}/automerge", tag = "history",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("id" = String, Path, description = "Id of the document, percent-encoded"),
        ("Prefer" = Option<String>, Header, description = "return=minimal leaves the body of the answer out, return=representation puts the document there"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to retry on any node, for a week at least"),
        ("Folkmoot-Durability" = Option<String>, Header, description = "local, majority, all or a number of replicas"),
    ),
    request_body(content = String, content_type = "application/vnd.automerge"),
    responses(
        (status = 201, description = "Created", body = Written),
        (status = 202, description = "Created here, but the durability asked for was not reached in time", body = Written),
        (status = 409, description = "already_exists", body = wire::Problem, content_type = "application/problem+json"),
        (status = 413, description = "body_too_large, document_too_large", body = wire::Problem, content_type = "application/problem+json"),
        (status = 415, description = "unsupported_media_type", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "invalid_document, schema_violation, idempotency_mismatch", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn put(request: Request, collection: CollectionName, id: DocId) -> Result<Response> {
    if !is_file(&request)? {
        return Err(Error::new(ErrorCode::UnsupportedMediaType, "an Automerge file is application/vnd.automerge")
            .hint("send the header `Content-Type: application/vnd.automerge`"));
    }
    create(request, collection, Some(id)).await
}

/// Returns whether the body says that it is a file of Automerge.
pub(super) fn is_file(request: &Request) -> Result<bool> {
    Ok(request.media_type()?.is_some_and(|media_type| media_type.eq_ignore_ascii_case(wire::AUTOMERGE)))
}

/// Creates a document of the body.
pub(super) async fn create(request: Request, collection: CollectionName, id: Option<DocId>) -> Result<Response> {
    let options = request.write_options()?;
    let preferred = request.preferred_body();
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let file = body.whole(AUTOMERGE_FILE_BYTES_MAX).await?;
    let outcome = database.create_from_automerge(&collection, id, file, &options).await?;
    answer(&*database, &collection, outcome, &options, preferred).await
}
