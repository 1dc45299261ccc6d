//! The audit: what was done and denied, the node's log, and proofs of it.

use std::time::Duration;

use folkmoot::api::{
    AuditAction, AuditClass, AuditCursor, AuditDecision, AuditEntry, AuditFormat, AuditLayer, AuditPage, AuditQuery,
    AuditStatus, AuditSubject, AuditVerifyReport, Explanation, PrincipalName, Timestamp,
};
use folkmoot::wire;
use folkmoot::{CollectionName, Error, ErrorCode, OpId, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use percent_encoding::percent_decode_str;
use warp::reply::Response;

use super::events::{self, Event};
use super::problem::method_not_allowed;
use super::reply::{json_answer, json_text};
use super::request::{Query, Request};

/// What the query string of a list of entries may have.
const PARAMETERS: &str =
    "principal, collection, action, class, decision, since, until, layer, limit, after, wait, format";

/// And that of its tail.
const TAIL_PARAMETERS: &str = "principal, collection, action, class, decision, since, until, layer, after";

/// Takes a parameter that is one of a few names.
fn one_of<T>(query: &mut Query, name: &'static str, named: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    query
        .take(name)
        .map(|text| {
            named(&text).ok_or_else(|| {
                Error::new(
                    ErrorCode::InvalidParameter,
                    format!("the query parameter {name} is none of those there are"),
                )
                .hint("docs/audit.md lists them")
            })
        })
        .transpose()
}

fn parsed(query: &mut Query) -> Result<AuditQuery> {
    let time = "a time as in 2026-01-31T12:00:00Z";
    Ok(AuditQuery {
        principal: query.take("principal").map(|name| name.parse::<PrincipalName>()).transpose()?,
        collection: query.take("collection").map(|name| name.parse::<CollectionName>()).transpose()?,
        action: one_of(query, "action", AuditAction::named)?,
        class: one_of(query, "class", AuditClass::named)?,
        decision: one_of(query, "decision", AuditDecision::named)?,
        since: query.parsed::<Timestamp>("since", time)?,
        until: query.parsed::<Timestamp>("until", time)?,
        layer: query.parsed::<AuditLayer>("layer", "log or ops")?,
        limit: query.limit(AuditQuery::LIMIT_MAX)?,
        after: query.take("after").map(AuditCursor::new).transpose()?,
        wait: query.duration("wait")?.unwrap_or(Duration::ZERO).min(AuditQuery::WAIT_MAX),
    })
}

/// Tells what was done, tried or denied: the entries of the node's log and the signed ops, oldest first.
#[utoipa::path(get, path = "/v1/audit", tag = "audit",
    params(
        ("principal" = Option<String>, Query, description = "By whom: id or name"),
        ("collection" = Option<String>, Query, description = "In which collection"),
        ("action" = Option<String>, Query, description = "What, as in grant or read"),
        ("class" = Option<String>, Query, description = "auth, admin, write, read or system"),
        ("decision" = Option<String>, Query, description = "allowed, denied or failed"),
        ("since" = Option<String>, Query, description = "At or after this time"),
        ("until" = Option<String>, Query, description = "Before this time"),
        ("layer" = Option<String>, Query, description = "log (of this node) or ops; both if not given"),
        ("limit" = Option<u32>, Query, description = "Entries of the page, up to 1000; 100 if not given"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
        ("wait" = Option<String>, Query, description = "How long to wait for the first entry, up to 60s"),
        ("format" = Option<String>, Query, description = "jsonl, ocsf, cef or syslog: text, an entry a line; the header `Folkmoot-Next` tells where to go on"),
    ),
    responses(
        (status = 200, description = "The entries", content((AuditPage = "application/json"), (String = "text/plain"))),
        (status = 400, description = "invalid_cursor, invalid_name, invalid_collection", body = wire::Problem, content_type = "application/problem+json"),
        (status = 403, description = "not_allowed", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn entries(mut request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let query = parsed(&mut request.query)?;
    let format = request.query.parsed::<AuditFormat>("format", "jsonl, ocsf, cef or syslog")?;
    let Request { context, database, principal, query: rest, .. } = request;
    rest.finish(PARAMETERS)?;
    // Held as long as the answer lasts.
    let _stream = if query.wait > Duration::ZERO { Some(context.rates.stream(principal)?) } else { None };
    let page = tokio::select! {
        page = database.audit(&query) => page?,
        // Nothing came in time: an empty page, at once.
        () = context.shut_down() => database.audit(&AuditQuery { wait: Duration::ZERO, ..query.clone() }).await?,
    };
    let Some(format) = format else { return json_answer(&page) };
    let mut text = String::new();
    for entry in &page.items {
        text.push_str(&format.line(entry));
        text.push('\n');
    }
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Ok(next) = HeaderValue::from_str(page.next.as_str()) {
        response.headers_mut().insert(wire::NEXT, next);
    }
    Ok(response)
}

/// Tells what is recorded from now on, or behind an event that was seen, as it happens. Of the node's log, if no layer is given.
#[utoipa::path(get, path = "/v1/audit/tail", tag = "audit",
    params(
        ("principal" = Option<String>, Query, description = "By whom: id or name"),
        ("collection" = Option<String>, Query, description = "In which collection"),
        ("action" = Option<String>, Query, description = "What, as in grant or read"),
        ("class" = Option<String>, Query, description = "auth, admin, write, read or system"),
        ("decision" = Option<String>, Query, description = "allowed, denied or failed"),
        ("since" = Option<String>, Query, description = "At or after this time; now if not given"),
        ("layer" = Option<String>, Query, description = "log or ops"),
        ("after" = Option<String>, Query, description = "The id of an event, or the `next` of a page"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the event that was seen last"),
    ),
    responses(
        (status = 200, description = "Events `entry`, whose id says where to go on", body = AuditEntry, content_type = "text/event-stream"),
        (status = 400, description = "invalid_cursor, invalid_name, invalid_collection", body = wire::Problem, content_type = "application/problem+json"),
        (status = 403, description = "not_allowed", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn tail(mut request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let mut query = parsed(&mut request.query)?;
    // Who connects again repeats the address and adds what it saw last.
    if let Some(last) = request.header("last-event-id")?.filter(|last| !last.is_empty()) {
        query.after = Some(AuditCursor::new(last)?);
    }
    if query.after.is_none() && query.since.is_none() {
        query.since = Some(Timestamp::now());
    }
    query.layer = query.layer.or(Some(AuditLayer::Log));
    let Request { context, database, principal, query: rest, .. } = request;
    rest.finish(TAIL_PARAMETERS)?;
    let stream = context.rates.stream(principal)?;
    // What is wrong is answered with its status.
    let probe = AuditQuery { limit: Some(1), wait: Duration::ZERO, ..query.clone() };
    database.audit(&probe).await?;
    query.wait = AuditQuery::WAIT_MAX;
    let pages = futures_util::stream::try_unfold(query, move |query| {
        let database = database.clone();
        async move {
            let page = database.audit(&query).await?;
            let next = AuditQuery { after: Some(page.next.clone()), ..query };
            Ok::<_, Error>(Some((page, next)))
        }
    });
    let events = pages.map_ok(|page| {
        let entries = page.items.into_iter().zip(page.behind).map(|(entry, behind)| {
            let data = serde_json::to_vec(&entry)
                .map_err(|error| Error::new(ErrorCode::Internal, "write an entry").with_source(error))?;
            Ok(Event { name: "entry", id: behind.as_str().to_owned(), data })
        });
        futures_util::stream::iter(entries.collect::<Vec<_>>())
    });
    Ok(events::answer(&context, "folkmoot audit", events.try_flatten().boxed(), stream))
}

/// Tells how the node's audit log stands, and what it has seen of those of others.
#[utoipa::path(get, path = "/v1/audit/status", tag = "audit",
    responses((status = 200, description = "The log", body = AuditStatus)))]
pub(super) async fn status(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    json_answer(&request.database.audit_status().await?)
}

/// Checks the node's audit log. Takes as long as reading all of it.
#[utoipa::path(post, path = "/v1/audit/verify", tag = "audit",
    responses((status = 200, description = "What was checked and what is wrong", body = AuditVerifyReport)))]
pub(super) async fn verify(request: Request) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    request.query.finish("")?;
    json_answer(&request.database.audit_verify().await?)
}

/// Tells a proof that stands alone, for `folkmoot audit check`.
#[utoipa::path(get, path = "/v1/audit/proofs/{id}", tag = "audit",
    params(("id" = String, Path, description = "The `id` of an entry")),
    responses(
        (status = 200, description = "The proof", body = serde_json::Value),
        (status = 404, description = "record_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn proof(request: Request, id: String) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    let id = percent_decode_str(&id)
        .decode_utf8()
        .map_err(|_| Error::new(ErrorCode::InvalidParameter, "the id in the path is not UTF-8"))?;
    let subject: AuditSubject = id.parse()?;
    Ok(json_text(request.database.audit_proof(&subject).await?))
}

/// Tells what was decided about an op, and by which statements and revocations. Takes as long as reading all ops, unless it is an
/// act or something of it is quarantined.
#[utoipa::path(get, path = "/v1/audit/why/{op}", tag = "audit",
    params(("op" = String, Path, description = "The id of the op")),
    responses(
        (status = 200, description = "The decision, with what it rests on", body = Explanation),
        (status = 404, description = "record_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn why(request: Request, op: String) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    let op: OpId = op.parse().map_err(|_| {
        Error::new(ErrorCode::InvalidParameter, "the id of an op has 64 hexadecimal digits")
            .hint("without the number of the transaction behind it")
    })?;
    json_answer(&request.database.why(&op).await?)
}
