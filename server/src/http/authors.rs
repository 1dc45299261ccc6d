//! Keys that sign, and changes of owners.

use folkmoot::api::{
    Approval, Approved, AuthorInfo, NodeRotation, Replacement, Revocation, Succession, SuccessionBasis, Timestamp,
    Withdrawn,
};
use folkmoot::wire::{self, Items, ReplaceAuthor};
use folkmoot::{AuthorKey, Error, ErrorCode, OpId, Result};
use http::Method;
use warp::reply::Response;

use super::access::{parsed, taking_back};
use super::problem::method_not_allowed;
use super::reply::{created, json_answer};
use super::request::Request;

/// A change of owners is one op without bodies.
const SUCCESSION_BYTES_MAX: usize = 80 << 10;

pub(super) async fn authors(request: Request) -> Result<Response> {
    match request.method {
        Method::GET | Method::HEAD => list(request).await,
        Method::POST => rotate(request).await,
        _ => Ok(method_not_allowed("GET, HEAD, POST")),
    }
}

/// Makes the next key of this node, which it takes up when it starts again after the key is certified.
#[utoipa::path(post, path = "/v1/authors", tag = "access",
    responses((status = 200, description = "The key, and whether it is certified", body = NodeRotation)))]
pub(super) async fn rotate(request: Request) -> Result<Response> {
    request.query.finish("")?;
    json_answer(&request.database.rotate_node().await?)
}

/// Certifies a key in the place of another one: for the same principal, and as strong.
#[utoipa::path(post, path = "/v1/authors/{key}/replacement", tag = "access", request_body = ReplaceAuthor,
    params(("key" = String, Path, description = "The key that there is")),
    responses(
        (status = 201, description = "The certificate", body = Replacement),
        (status = 403, description = "not_allowed: this node is not stronger than the key", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "statement_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn replacement(request: Request, key: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let key: AuthorKey = key.parse()?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let wanted: ReplaceAuthor = parsed(body).await?;
    created(&database.replace_author(&key, &wanted.new).await?)
}

/// Lists the keys that count: owners', nodes', devices', and the hashes of recovery keys.
#[utoipa::path(get, path = "/v1/authors", tag = "access",
    responses((status = 200, description = "The keys by kind and name", body = Items<AuthorInfo>)))]
pub(super) async fn list(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    let items = request.database.authors().await?;
    json_answer(&Items { items })
}

/// Takes all back that a key was certified for, as when a device was stolen. What it signed until now stands.
#[utoipa::path(delete, path = "/v1/authors/{key}", tag = "access",
    params(
        ("key" = String, Path, description = "The key"),
        ("why" = Option<String>, Query, description = "Reason for people"),
        ("cascade" = Option<bool>, Query, description = "Also what was given under it"),
    ),
    responses(
        (status = 200, description = "What was taken back", body = Revocation),
        (status = 403, description = "not_allowed: it is an owner's key", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "statement_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn author(request: Request, key: String) -> Result<Response> {
    if request.method != Method::DELETE {
        return Ok(method_not_allowed("DELETE"));
    }
    let key: AuthorKey = key.parse()?;
    let options = taking_back(request.query)?;
    json_answer(&request.database.revoke_author(&key, &options).await?)
}

pub(super) async fn owners(request: Request) -> Result<Response> {
    match request.method {
        Method::GET | Method::HEAD => basis(request).await,
        Method::POST => succeed(request).await,
        _ => Ok(method_not_allowed("GET, HEAD, POST")),
    }
}

/// Tells who the owners are, and what a change of them is made of.
#[utoipa::path(get, path = "/v1/owners", tag = "access",
    params(("until" = Option<String>, Query, description = "What they signed later will not stand")),
    responses((status = 200, description = "The owners", body = SuccessionBasis)))]
pub(super) async fn basis(mut request: Request) -> Result<Response> {
    let until = request.query.take("until").map(|text| {
        text.parse::<Timestamp>().map_err(|_| {
            Error::new(ErrorCode::InvalidParameter, format!("until={text:?} is no time"))
                .hint("a time is written as 2026-01-31T12:00:00Z")
        })
    });
    request.query.finish("until")?;
    json_answer(&request.database.succession_basis(until.transpose()?).await?)
}

/// Makes other keys the owners: the body is the op that recovery keys have signed.
#[utoipa::path(post, path = "/v1/owners", tag = "access",
    request_body(content = String, description = "The op", content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "The act", body = Succession),
        (status = 400, description = "invalid_request", body = wire::Problem, content_type = "application/problem+json"),
        (status = 403, description = "not_allowed: it would not count", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn succeed(request: Request) -> Result<Response> {
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let op = body.whole(SUCCESSION_BYTES_MAX).await?;
    created(&database.succeed(op).await?)
}

/// Lists what owners asked for and others have to approve, the oldest first.
#[utoipa::path(get, path = "/v1/approvals", tag = "access",
    responses((status = 200, description = "What waits", body = Items<Approval>)))]
pub(super) async fn approvals(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    let items = request.database.approvals().await?;
    json_answer(&Items { items })
}

/// Consents to what another owner asked for, by the owner's key of this node. Takes the token of the node's owner.
#[utoipa::path(post, path = "/v1/approvals/{op}", tag = "access",
    params(("op" = String, Path, description = "The act, as the list names it")),
    responses(
        (status = 201, description = "The consent, and how many are missing still", body = Approved),
        (status = 403, description = "not_allowed: no owner's key is here, or its owner does not ask", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "statement_not_found: there is no such act", body = wire::Problem, content_type = "application/problem+json"),
        (status = 409, description = "not_waiting: it does not wait, or this owner consents already", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn approve(request: Request, op: String) -> Result<Response> {
    let op: OpId = op.parse()?;
    request.query.finish("")?;
    created(&request.database.approve(&op).await?)
}

/// Takes back what the owner asked for whose key is on this node, while it waits for others. Takes the token of the node's owner.
#[utoipa::path(delete, path = "/v1/approvals/{op}", tag = "access",
    params(("op" = String, Path, description = "The act, as the list names it")),
    responses(
        (status = 200, description = "The act that takes it back", body = Withdrawn),
        (status = 403, description = "not_allowed: another owner asked for it, no owner's key is here, or its owner does not ask", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "statement_not_found: there is no such act", body = wire::Problem, content_type = "application/problem+json"),
        (status = 409, description = "not_waiting: it does not wait", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn withdraw(request: Request, op: String) -> Result<Response> {
    let op: OpId = op.parse()?;
    request.query.finish("")?;
    json_answer(&request.database.withdraw(&op).await?)
}

pub(super) async fn approval(request: Request, op: String) -> Result<Response> {
    match request.method {
        Method::POST => approve(request, op).await,
        Method::DELETE => withdraw(request, op).await,
        _ => Ok(method_not_allowed("DELETE, POST")),
    }
}
