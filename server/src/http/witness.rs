//! Witnesses of forks.

use folkmoot::Result;
use folkmoot::api::{NewWitnesses, Revocation, Witness};
use folkmoot::wire::{self, Items};
use http::Method;
use warp::reply::Response;

use super::access::{parsed, taking_back};
use super::problem::method_not_allowed;
use super::reply::{created, json_answer};
use super::request::Request;

pub(super) async fn witnesses(request: Request) -> Result<Response> {
    match request.method {
        Method::GET | Method::HEAD => list(request).await,
        Method::POST => appoint(request).await,
        _ => Ok(method_not_allowed("GET, HEAD, POST")),
    }
}

/// Lists the nodes whose word decides which branch of a forked stream counts.
#[utoipa::path(get, path = "/v1/witnesses", tag = "access",
    responses((status = 200, description = "The witnesses by name", body = Items<Witness>)))]
pub(super) async fn list(request: Request) -> Result<Response> {
    request.query.finish("")?;
    let items = request.database.witnesses().await?;
    json_answer(&Items { items })
}

/// Makes nodes witnesses, signed with the key of an owner on this node.
#[utoipa::path(post, path = "/v1/witnesses", tag = "access", request_body = NewWitnesses,
    responses(
        (status = 201, description = "All witnesses", body = Items<Witness>),
        (status = 400, description = "invalid_request", body = wire::Problem, content_type = "application/problem+json"),
        (status = 403, description = "not_allowed: the key of an owner is not on this node", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "peer_not_found, or statement_not_found if nothing would change", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn appoint(request: Request) -> Result<Response> {
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewWitnesses = parsed(body).await?;
    let items = database.appoint_witnesses(&new).await?;
    created(&Items { items })
}

/// Takes that from a node. What it has said stands.
#[utoipa::path(delete, path = "/v1/witnesses/{node}", tag = "access",
    params(
        ("node" = String, Path, description = "Name or key of the node"),
        ("why" = Option<String>, Query, description = "Reason for people"),
    ),
    responses(
        (status = 200, description = "What was taken back", body = Revocation),
        (status = 403, description = "not_allowed: the key of an owner is not on this node", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "peer_not_found, or statement_not_found if it is no witness", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn witness(request: Request, node: String) -> Result<Response> {
    if request.method != Method::DELETE {
        return Ok(method_not_allowed("DELETE"));
    }
    let options = taking_back(request.query)?;
    json_answer(&request.database.dismiss_witness(&node, &options).await?)
}
