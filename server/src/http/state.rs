//! What the node tells about itself, and what an operator may ask of it.

use folkmoot::api::{
    AccessQuestion, Cursor, Invite, InviteOptions, KeysInfo, PeerInfo, QuarantinePage, QuarantineQuery, ShardDigest,
    Status, VerifyReport,
};
use folkmoot::wire::{self, InviteRequest, Items, LinkRequest, RotateKeys};
use folkmoot::{Action, AuthorKey, Error, ErrorCode, Result};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::problem::method_not_allowed;
use super::reply::{created, json_answer};
use super::request::{Request, json};

/// Requests of this part are a few members.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// Tells what the node is and how it fares.
#[utoipa::path(get, path = "/v1/status", tag = "state", responses((status = 200, description = "The status", body = Status)))]
pub(super) async fn status(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    json_answer(&request.database.status().await?)
}

/// Lists the other members.
#[utoipa::path(get, path = "/v1/peers", tag = "state",
    responses((status = 200, description = "The members, connected or not", body = Items<PeerInfo>)))]
pub(super) async fn peers(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    let items = request.database.peers().await?;
    json_answer(&Items { items })
}

/// Blocks or unblocks the link to a member, for drills and demonstrations.
#[utoipa::path(patch, path = "/v1/peers/{node}", tag = "state",
    params(("node" = String, Path, description = "The member's key")),
    request_body = LinkRequest,
    responses(
        (status = 204, description = "Done"),
        (status = 404, description = "peer_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn link(request: Request, node: String) -> Result<Response> {
    if request.method != Method::PATCH {
        return Ok(method_not_allowed("PATCH"));
    }
    let node: AuthorKey = node.parse()?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let wanted: LinkRequest = json(&body.whole(REQUEST_BYTES_MAX).await?)?;
    database.set_link(&node, wanted.link).await?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Tells one digest for each shard held here; equal digests mean equal contents.
#[utoipa::path(get, path = "/v1/digests", tag = "state",
    responses((status = 200, description = "The digests", body = Items<ShardDigest>)))]
pub(super) async fn digests(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    let items = request.database.digests().await?;
    json_answer(&Items { items })
}

/// Lists the transactions that were refused and kept as evidence.
#[utoipa::path(get, path = "/v1/quarantine", tag = "state",
    params(
        ("limit" = Option<u32>, Query, description = "Transactions of the page, up to 1000; 100 if not given"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses(
        (status = 200, description = "The transactions", body = QuarantinePage),
        (status = 400, description = "invalid_cursor", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn quarantine(mut request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let query = QuarantineQuery {
        after: request.query.take("after").map(|text| Cursor::from_text(&text)),
        limit: request.query.limit(QuarantineQuery::LIMIT_MAX)?,
    };
    request.query.finish("limit, after")?;
    json_answer(&request.database.quarantine(&query).await?)
}

/// Checks every chain, signature and view of the node. Takes as long as reading all of it.
#[utoipa::path(post, path = "/v1/verify", tag = "state",
    responses((status = 200, description = "What was checked and what is damaged", body = VerifyReport)))]
pub(super) async fn verify(request: Request) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    request.query.finish("")?;
    json_answer(&request.database.verify().await?)
}

/// Returns how the node's data is sealed, or changes keys.
#[utoipa::path(get, path = "/v1/keys", tag = "state",
    responses((status = 200, description = "How the data is sealed, and how far a rotation is", body = KeysInfo)))]
pub(super) async fn keys(request: Request) -> Result<Response> {
    match request.method {
        Method::GET => {
            request.query.finish("")?;
            json_answer(&request.database.keys().await?)
        }
        Method::POST => rotate_keys(request).await,
        _ => Ok(method_not_allowed("GET, POST")),
    }
}

/// Changes the master key, or the keys of all collections; data is not written again.
#[utoipa::path(post, path = "/v1/keys", tag = "state",
    request_body = RotateKeys,
    responses(
        (status = 200, description = "How the data is sealed now", body = KeysInfo),
        (status = 501, description = "not_supported: the data is not sealed, or its master key is in no file", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn rotate_keys(request: Request) -> Result<Response> {
    request.query.finish("")?;
    let RotateKeys { rotate } = json(&request.body.whole(REQUEST_BYTES_MAX).await?)?;
    json_answer(&request.database.rotate_keys(rotate).await?)
}

/// Makes a ticket with which a new node can join.
#[utoipa::path(post, path = "/v1/invites", tag = "state",
    request_body = InviteRequest,
    responses(
        (status = 201, description = "The ticket: a secret", body = Invite),
        (status = 400, description = "invalid_request, invalid_name", body = wire::Problem, content_type = "application/problem+json"),
        (status = 403, description = "not_allowed: this node may not admit others", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found: of `device_of`", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn invites(request: Request) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let body = body.whole(REQUEST_BYTES_MAX).await?;
    let wanted: InviteRequest = if body.is_empty() { InviteRequest::default() } else { json(&body)? };
    let mut options = InviteOptions::default();
    if let Some(expires) = &wanted.expires {
        options.expires = humantime::parse_duration(expires).map_err(|_| {
            Error::new(ErrorCode::InvalidRequest, "`expires` is no duration with a unit, as in 30m").pointer("/expires")
        })?;
    }
    if let Some(uses) = wanted.uses {
        if uses == 0 {
            return Err(Error::new(ErrorCode::InvalidRequest, "a ticket has at least one use").pointer("/uses"));
        }
        options.uses = uses;
    }
    if let Some(role) = wanted.role {
        if !["admin", "editor", "reader"].contains(&role.as_str()) {
            let detail = "`role` is admin, editor or reader";
            return Err(Error::new(ErrorCode::InvalidRequest, detail).pointer("/role"));
        }
        options.role = role;
    }
    if let Some(principal) = wanted.device_of {
        options.device_of = Some(principal.parse().map_err(|error: Error| error.pointer("/device_of"))?);
    }
    created(&database.invite(&options).await?)
}

/// That the process runs.
#[derive(serde::Serialize, utoipa::ToSchema)]
struct Lives {
    live: bool,
}

/// Whether the node has caught up and can persist.
#[derive(serde::Serialize, utoipa::ToSchema)]
struct Ready {
    ready: bool,
}

/// Tells that the process runs.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()),
    responses((status = 200, description = "It runs", body = Lives)))]
pub(super) async fn live(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    json_answer(&Lives { live: true })
}

/// Tells whether the node has caught up and can persist. Why not is told to those with a token, in the status.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()),
    responses(
        (status = 200, description = "It is ready", body = Ready),
        (status = 503, description = "It is not", body = Ready),
    ))]
pub(super) async fn ready(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let shutting_down = *request.context.shutdown.borrow();
    let ready = !shutting_down && request.database.readiness().await.is_ok_and(|readiness| readiness.ready);
    let mut response = json_answer(&Ready { ready })?;
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// Tells the node's metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "state",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let question = AccessQuestion { principal: None, action: Action::Monitor, collection: None, id: None, field: None };
    if !request.database.caller().await?.owner && !request.database.can(&question).await?.allowed {
        return Err(Error::new(ErrorCode::NotAllowed, "no grant gives the right to monitor"));
    }
    let mut response = Response::new(request.context.metrics.render().into());
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    Ok(response)
}

/// Tells this description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "state",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(super) async fn openapi(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    json_answer(super::openapi::document())
}

/// Shows the description of the API to people.
#[utoipa::path(get, path = "/docs", tag = "state", security(()),
    responses((status = 200, description = "A page", body = String, content_type = "text/html")))]
pub(super) async fn docs(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    Ok(super::docs::page())
}
