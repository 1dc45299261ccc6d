//! Erasing documents, and which members have carried it out.

use folkmoot::api::{Erasure, ErasuresPage, ErasuresQuery, NewErasure};
use folkmoot::wire;
use folkmoot::{Error, ErrorCode, OpId, Result};
use http::Method;
use warp::reply::Response;

use super::problem::method_not_allowed;
use super::reply::{created, json_answer};
use super::request::{Request, collection_name, json};

/// A hundred ids and a reason.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// Erases documents for good, on every node. What they said is removed from the disks; their ids are dead from then on.
#[utoipa::path(post, path = "/v1/collections/{collection}/erase", tag = "erasures",
    params(("collection" = String, Path, description = "Name of the collection")),
    request_body = NewErasure,
    responses(
        (status = 201, description = "The erasure, and which members have carried it out", body = Erasure),
        (status = 400, description = "invalid_request", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 403, description = "not_allowed, whether or not there are such documents", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn erase(request: Request, collection: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let name = collection_name(&collection)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewErasure = json(&body.whole(REQUEST_BYTES_MAX).await?)?;
    created(&database.erase(&name, &new).await?)
}

/// Lists erasures, the latest first: all to who reads the audit, to others those of documents that they may erase.
#[utoipa::path(get, path = "/v1/erasures", tag = "erasures",
    params(
        ("limit" = Option<u32>, Query, description = "Erasures of the page, up to 1000; 100 if not given"),
        ("after" = Option<String>, Query, description = "Those that are older than this one"),
    ),
    responses(
        (status = 200, description = "The erasures", body = ErasuresPage),
        (status = 404, description = "statement_not_found: `after` is no erasure", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn all(mut request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let query = ErasuresQuery {
        after: request.query.parsed("after", "an erasure")?,
        limit: request.query.limit(ErasuresQuery::LIMIT_MAX)?,
    };
    request.query.finish("limit, after")?;
    json_answer(&request.database.erasures(&query).await?)
}

/// Tells of one erasure which members have carried it out.
#[utoipa::path(get, path = "/v1/erasures/{act}", tag = "erasures",
    params(("act" = String, Path, description = "The act")),
    responses(
        (status = 200, description = "The erasure", body = Erasure),
        (status = 400, description = "invalid_id", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "statement_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn one(request: Request, act: String) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let act: OpId =
        act.parse().map_err(|error| Error::new(ErrorCode::InvalidId, format!("the act in the path: {error}")))?;
    request.query.finish("")?;
    json_answer(&request.database.erasure(&act).await?)
}
