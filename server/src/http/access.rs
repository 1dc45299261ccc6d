//! Who may do what: principals, grants, roles, tokens.

use folkmoot::api::{
    AccessAnswer, AccessQuestion, Caller, GrantInfo, IssuedToken, MembershipInfo, NewCertificate, NewGrant,
    NewIdentity, NewPassword, NewPrincipal, NewRole, NewToken, PrincipalInfo, PrincipalName, Revocation, RevokeOptions,
    RoleInfo, TokenInfo,
};
use folkmoot::wire::{self, Items, NewMember};
use folkmoot::{CollectionName, DocId, Error, ErrorCode, FieldPath, OpId, Result};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Method};
use percent_encoding::percent_decode_str;
use warp::reply::Response;

use super::problem::method_not_allowed;
use super::reply::{created, json_answer};
use super::request::{Query, Request, json};

/// Requests of this part are a few members.
const REQUEST_BYTES_MAX: usize = 64 << 10;

fn principal_name(segment: &str) -> Result<PrincipalName> {
    let name = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Error::new(ErrorCode::InvalidName, "the name in the path is not UTF-8"))?;
    name.parse()
}

pub(super) async fn parsed<T: serde::de::DeserializeOwned>(body: super::body::Body) -> Result<T> {
    json(&body.whole(REQUEST_BYTES_MAX).await?)
}

pub(super) fn taking_back(mut query: Query) -> Result<RevokeOptions> {
    let options = RevokeOptions { why: query.take("why").unwrap_or_default(), cascade: query.switch("cascade")? };
    query.finish("why, cascade")?;
    Ok(options)
}

/// Tells who is asking.
#[utoipa::path(get, path = "/v1/caller", tag = "access",
    responses((status = 200, description = "Who the token stands for", body = Caller)))]
pub(super) async fn caller(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    json_answer(&request.database.caller().await?)
}

pub(super) async fn principals(request: Request) -> Result<Response> {
    match request.method {
        Method::GET | Method::HEAD => list(request).await,
        Method::POST => add(request).await,
        _ => Ok(method_not_allowed("GET, HEAD, POST")),
    }
}

/// Lists the principals with what they have; who does not administer everything sees itself only.
#[utoipa::path(get, path = "/v1/principals", tag = "access",
    responses((status = 200, description = "The principals by name", body = Items<PrincipalInfo>)))]
async fn list(request: Request) -> Result<Response> {
    request.query.finish("")?;
    let items = request.database.principals().await?;
    json_answer(&Items { items })
}

/// Makes a principal, which may nothing yet.
#[utoipa::path(post, path = "/v1/principals", tag = "access", request_body = NewPrincipal,
    responses(
        (status = 201, description = "The principal", body = PrincipalInfo),
        (status = 400, description = "invalid_name", body = wire::Problem, content_type = "application/problem+json"),
        (status = 409, description = "name_taken", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn add(request: Request) -> Result<Response> {
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewPrincipal = parsed(body).await?;
    created(&database.add_principal(&new).await?)
}

pub(super) async fn principal(request: Request, name: String) -> Result<Response> {
    match request.method {
        Method::GET | Method::HEAD => one(request, name).await,
        Method::DELETE => remove(request, name).await,
        _ => Ok(method_not_allowed("GET, HEAD, DELETE")),
    }
}

/// Tells what a principal has.
#[utoipa::path(get, path = "/v1/principals/{name}", tag = "access",
    params(("name" = String, Path, description = "Its id, or its name if only one has that")),
    responses(
        (status = 200, description = "The principal", body = PrincipalInfo),
        (status = 400, description = "invalid_name", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn one(request: Request, name: String) -> Result<Response> {
    let name = principal_name(&name)?;
    request.query.finish("")?;
    json_answer(&request.database.principal(&name).await?)
}

/// Takes all back that was given to a principal: grants, memberships, tokens. What it wrote until now stands.
#[utoipa::path(delete, path = "/v1/principals/{name}", tag = "access",
    params(
        ("name" = String, Path, description = "Its id, or its name if only one has that"),
        ("why" = Option<String>, Query, description = "Reason for people"),
        ("cascade" = Option<bool>, Query, description = "Also what was given under it"),
    ),
    responses(
        (status = 200, description = "What was taken back", body = Revocation),
        (status = 400, description = "invalid_name", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn remove(request: Request, name: String) -> Result<Response> {
    let name = principal_name(&name)?;
    let options = taking_back(request.query)?;
    json_answer(&request.database.remove_principal(&name, &options).await?)
}

/// Gives a role to a principal.
#[utoipa::path(post, path = "/v1/principals/{name}/grants", tag = "access",
    params(("name" = String, Path, description = "Its id, or its name if only one has that")),
    request_body = NewGrant,
    responses(
        (status = 201, description = "The grant", body = GrantInfo),
        (status = 400, description = "invalid_name, invalid_target", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found, role_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn grants(request: Request, name: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let name = principal_name(&name)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewGrant = parsed(body).await?;
    created(&database.grant(&name, &new).await?)
}

/// Makes a principal a member of a group.
#[utoipa::path(post, path = "/v1/principals/{name}/members", tag = "access",
    params(("name" = String, Path, description = "The group")),
    request_body = NewMember,
    responses(
        (status = 201, description = "The membership", body = MembershipInfo),
        (status = 400, description = "invalid_name", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn members(request: Request, name: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let group = principal_name(&name)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewMember = parsed(body).await?;
    created(&database.join_group(&group, &new.principal.parse()?, new.until).await?)
}

/// Makes a token, which is shown this once.
#[utoipa::path(post, path = "/v1/principals/{name}/tokens", tag = "access",
    params(("name" = String, Path, description = "Its id, or its name if only one has that")),
    request_body = NewToken,
    responses(
        (status = 201, description = "The token", body = IssuedToken),
        (status = 400, description = "invalid_name, invalid_action, invalid_target", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn tokens(request: Request, name: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let name = principal_name(&name)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewToken = parsed(body).await?;
    let mut response = created(&database.issue_token(&name, &new).await?)?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Sets the password with which a principal is known to every node, in place of the one before.
#[utoipa::path(put, path = "/v1/principals/{name}/password", tag = "access",
    params(("name" = String, Path, description = "Its id, or its name if only one has that")),
    request_body = NewPassword,
    responses(
        (status = 200, description = "The password's statement", body = TokenInfo),
        (status = 400, description = "invalid_name, invalid_password", body = wire::Problem, content_type = "application/problem+json"),
        (status = 401, description = "unauthenticated: the current password is missing or not right", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn password(request: Request, name: String) -> Result<Response> {
    if request.method != Method::PUT {
        return Ok(method_not_allowed("PUT"));
    }
    let name = principal_name(&name)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewPassword = parsed(body).await?;
    json_answer(&database.set_password(&name, &new).await?)
}

/// Believes a certificate: who shows it is the principal. Nodes ask for certificates with `tls_client_certificates`.
#[utoipa::path(post, path = "/v1/principals/{name}/certificates", tag = "access",
    params(("name" = String, Path, description = "Its id, or its name if only one has that")),
    request_body = NewCertificate,
    responses(
        (status = 201, description = "The certificate's statement", body = TokenInfo),
        (status = 400, description = "invalid_name, invalid_certificate", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 409, description = "name_taken: the key is somebody's already", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn certificates(request: Request, name: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let name = principal_name(&name)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewCertificate = parsed(body).await?;
    created(&database.trust_certificate(&name, &new).await?)
}

/// Links a subject of an issuer of JSON Web Tokens: who shows a token of it, to a node whose configuration names the issuer, is the
/// principal.
#[utoipa::path(post, path = "/v1/principals/{name}/identities", tag = "access",
    params(("name" = String, Path, description = "Its id, or its name if only one has that")),
    request_body = NewIdentity,
    responses(
        (status = 201, description = "The link's statement", body = TokenInfo),
        (status = 400, description = "invalid_name, invalid_request", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 409, description = "name_taken: the subject is linked already", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn identities(request: Request, name: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let name = principal_name(&name)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewIdentity = parsed(body).await?;
    created(&database.link_identity(&name, &new).await?)
}

pub(super) async fn roles(request: Request) -> Result<Response> {
    match request.method {
        Method::GET | Method::HEAD => list_roles(request).await,
        Method::POST => add_role(request).await,
        _ => Ok(method_not_allowed("GET, HEAD, POST")),
    }
}

/// Lists the roles.
#[utoipa::path(get, path = "/v1/roles", tag = "access",
    responses((status = 200, description = "The roles, those of the rules first", body = Items<RoleInfo>)))]
async fn list_roles(request: Request) -> Result<Response> {
    request.query.finish("")?;
    let items = request.database.roles().await?;
    json_answer(&Items { items })
}

/// Makes a role, which never changes.
#[utoipa::path(post, path = "/v1/roles", tag = "access", request_body = NewRole,
    responses(
        (status = 201, description = "The role", body = RoleInfo),
        (status = 400, description = "invalid_name, invalid_action", body = wire::Problem, content_type = "application/problem+json"),
        (status = 409, description = "name_taken", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn add_role(request: Request) -> Result<Response> {
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let new: NewRole = parsed(body).await?;
    created(&database.add_role(&new).await?)
}

/// Takes back a grant, a membership, a token or a role. What was written under it until now stands.
#[utoipa::path(delete, path = "/v1/statements/{id}", tag = "access",
    params(
        ("id" = String, Path, description = "The statement"),
        ("why" = Option<String>, Query, description = "Reason for people"),
        ("cascade" = Option<bool>, Query, description = "Also what was given under it"),
    ),
    responses(
        (status = 200, description = "What was taken back", body = Revocation),
        (status = 400, description = "invalid_id", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "statement_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn statement(request: Request, id: String) -> Result<Response> {
    if request.method != Method::DELETE {
        return Ok(method_not_allowed("DELETE"));
    }
    let id: OpId =
        id.parse().map_err(|error| Error::new(ErrorCode::InvalidId, format!("the statement in the path: {error}")))?;
    let options = taking_back(request.query)?;
    json_answer(&request.database.revoke(&id, &options).await?)
}

/// Lets a transaction stand that a revocation had cut, and with it all that its principal wrote before it in that stream.
#[utoipa::path(post, path = "/v1/quarantine/{op}/release", tag = "access",
    params(
        ("op" = String, Path, description = "The op"),
        ("transaction" = Option<u16>, Query, description = "Which transaction of the op; the first (0) if not given"),
    ),
    responses(
        (status = 200, description = "The readmission", body = Revocation),
        (status = 400, description = "invalid_id", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "statement_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn release(mut request: Request, op: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let op: OpId =
        op.parse().map_err(|error| Error::new(ErrorCode::InvalidId, format!("the op in the path: {error}")))?;
    let transaction = request.query.parsed("transaction", "a number from 0 to 65535")?.unwrap_or(0);
    request.query.finish("transaction")?;
    json_answer(&request.database.readmit(&op, transaction).await?)
}

/// Tells whether somebody may do something now, and why.
#[utoipa::path(get, path = "/v1/can", tag = "access",
    params(
        ("action" = String, Query, description = "read, create, update, delete, history, administer, audit, monitor, operate, backup or erase"),
        ("principal" = Option<String>, Query, description = "Who; the caller if not given"),
        ("collection" = Option<String>, Query, description = "Where; everywhere if not given"),
        ("id" = Option<String>, Query, description = "To which document; to all of the collection if not given"),
        ("field" = Option<String>, Query, description = "To which field, a JSON pointer; to whole documents if not given"),
    ),
    responses(
        (status = 200, description = "The answer", body = AccessAnswer),
        (status = 400, description = "invalid_name, invalid_collection, invalid_id", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "principal_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn can(mut request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let query = &mut request.query;
    let action = query.parsed("action", "an action, as read or update")?;
    let action = action.ok_or_else(|| Error::new(ErrorCode::InvalidParameter, "`action` is missing"))?;
    let principal = query.take("principal").map(|name| name.parse()).transpose()?;
    let collection: Option<CollectionName> = query.take("collection").map(|name| name.parse()).transpose()?;
    let id: Option<DocId> = query.take("id").map(|id| id.parse()).transpose()?;
    let field: Option<FieldPath> = query.parsed("field", "a JSON pointer to a field, as /address/city")?;
    if (id.is_some() || field.is_some()) && collection.is_none() {
        return Err(Error::new(ErrorCode::InvalidParameter, "`id` and `field` need `collection`"));
    }
    request.query.finish("action, principal, collection, id, field")?;
    let question = AccessQuestion { principal, action, collection, id, field };
    json_answer(&request.database.can(&question).await?)
}
