//! Which path goes to which handler. Grouped by the first segments, because warp tries alternatives one by one.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use folkmoot::{Error, ErrorCode, Result};
use http::Method;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::body::Body;
use super::entrance::Entered;
use super::front::Door;
use super::request::{Query, Request};
use super::{
    Context, access, audit, authors, bulk, changes, collections, documents, erasure, files, history, problem, queries,
    sessions, state, witness,
};

/// The template of the path that answered: a label of metrics, and what tests compare with the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route(pub(super) &'static str);

type Routes = BoxedFilter<(Response,)>;

fn request(context: &Arc<Context>) -> impl Filter<Extract = (Request,), Error = Rejection> + Clone + use<> {
    let context = context.clone();
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let head = warp::path::end().and(warp::method()).and(query).and(warp::header::headers_cloned());
    head.and(warp::ext::get::<Door>()).and(warp::body::stream()).map(
        move |method, query: String, headers, Door(entered): Door, chunks| Request {
            body: Body::new(chunks, &context.limits, context.rates.meter(entered.principal)),
            context: context.clone(),
            database: entered.database,
            principal: entered.principal,
            method,
            query: Query::parse(&query),
            headers,
        },
    )
}

/// Reads the whole store, however long that takes.
pub(super) const UNLIMITED: [&str; 4] =
    ["/v1/verify", "/v1/audit/verify", "/v1/audit/proofs/{id}", "/v1/audit/why/{op}"];

/// Runs a handler within its time.
async fn answer(
    route: &'static str,
    limit: Duration,
    method: Method,
    handler: impl Future<Output = Result<Response>> + Send,
) -> Response {
    let result = if UNLIMITED.contains(&route) {
        handler.await
    } else {
        tokio::time::timeout(limit, handler).await.unwrap_or_else(|_| Err(too_slow(limit, &method)))
    };
    let mut response = result.unwrap_or_else(|error| problem::answer(&error));
    response.extensions_mut().insert(Route(route));
    response
}

fn too_slow(limit: Duration, method: &Method) -> Error {
    let limit = humantime::format_duration(limit);
    let error = Error::new(ErrorCode::TooSlow, format!("the node did not begin its answer within {limit}"));
    if *method == Method::GET || *method == Method::HEAD {
        error.hint("try again, or another node")
    } else {
        error.hint("it may have been carried out all the same; repeat it with the same idempotency key")
    }
}

/// A path without names in it.
macro_rules! fixed {
    ($context:expr, $route:literal, $handler:path) => {
        request($context)
            .then(|request: Request| async move {
                let (limit, method) = request.bounds();
                let answering =
                    sessions::in_session(request, sessions::touched(None, None), |request| $handler(request));
                answer($route, limit, method, answering).await
            })
            .boxed()
    };
}

/// A path that has nothing to do with the state of the cluster.
macro_rules! stateless {
    ($context:expr, $route:literal, $handler:path) => {
        request($context)
            .then(|request: Request| async move {
                let (limit, method) = request.bounds();
                answer($route, limit, method, $handler(request)).await
            })
            .boxed()
    };
}

/// A path in a collection.
macro_rules! in_collection {
    ($context:expr, $rest:expr, $route:literal, $handler:path) => {{
        let path = warp::path::param::<String>().and($rest).and(request($context));
        let handle = |collection: String, request: Request| async move {
            let (limit, method) = request.bounds();
            let touched = sessions::touched(Some(&collection), None);
            let answering = sessions::in_session(request, touched, |request| $handler(request, collection));
            answer($route, limit, method, answering).await
        };
        path.then(handle).boxed()
    }};
}

/// A path of a document.
macro_rules! of_document {
    ($context:expr, $rest:expr, $route:expr, $handler:path) => {
        warp::path::param::<String>()
            .and(warp::path("docs"))
            .and(warp::path::param::<String>())
            .and($rest)
            .and(request($context))
            .then(|collection: String, id: String, request: Request| async move {
                let (limit, method) = request.bounds();
                let touched = sessions::touched(Some(&collection), Some(&id));
                let answering = sessions::in_session(request, touched, |request| $handler(request, collection, id));
                answer($route, limit, method, answering).await
            })
            .boxed()
    };
}

/// A path with one name in it.
macro_rules! named {
    ($context:expr, $rest:expr, $route:literal, $handler:path) => {
        warp::path::param::<String>()
            .and($rest)
            .and(request($context))
            .then(|name: String, request: Request| async move {
                let (limit, method) = request.bounds();
                let touched = sessions::touched(None, None);
                let answering = sessions::in_session(request, touched, |request| $handler(request, name));
                answer($route, limit, method, answering).await
            })
            .boxed()
    };
}

/// The path of the WebSocket, which the front answers: an upgrade takes the whole request.
pub(super) const LIVE: &str = "/v1/live";
/// The path of a document.
const DOCUMENT: &str = "/v1/collections/{collection}/docs/{id}";

/// Answers a read of a document as its route below does, without trying filters one by one: what is asked most has the
/// shortest way. Gives back what is no such read.
pub(super) fn read_of_document<B: http_body::Body>(
    context: &Arc<Context>,
    request: http::Request<B>,
) -> ControlFlow<impl Future<Output = Response> + Send + use<B>, http::Request<B>> {
    let names = document_names(request.uri().path());
    let (Some((collection, id)), &Method::GET, true) = (names, request.method(), request.body().is_end_stream()) else {
        return ControlFlow::Continue(request);
    };
    let Some(Door(Entered { database, principal })) = request.extensions().get::<Door>().cloned() else {
        return ControlFlow::Continue(request);
    };
    let (collection, id) = (collection.to_owned(), id.to_owned());
    let (head, _) = request.into_parts();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let (context, body) = (context.clone(), Body::empty());
    let request = Request { context, database, principal, method: head.method, query, headers: head.headers, body };
    let (limit, method) = request.bounds();
    ControlFlow::Break(answer(DOCUMENT, limit, method, documents::one(request, collection, id)))
}

/// Returns the segments that name collection and document in the path of one.
fn document_names(path: &str) -> Option<(&str, &str)> {
    let mut segments = path.split('/');
    let mut next = || segments.next();
    let (root, v1, collections, collection, docs, id, end) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next());
    let is_document = (root, v1, collections, docs, end) == ("", "v1", "collections", "docs", None);
    (is_document && !collection.is_empty() && !id.is_empty()).then_some((collection, id))
}

/// Returns every route. Only a path that no route has is a rejection.
pub(super) fn all(context: &Arc<Context>) -> Routes {
    let none = || warp::any().boxed();
    let collections = warp::path("collections").and(
        // The paths of documents come first: they are asked for most.
        of_document!(context, none(), DOCUMENT, documents::one)
            .or(in_collection!(context, warp::path("docs"), "/v1/collections/{collection}/docs", documents::all))
            .unify()
            .or(in_collection!(context, warp::path("bulk"), "/v1/collections/{collection}/bulk", bulk::bulk))
            .unify()
            .or(in_collection!(context, warp::path("query"), "/v1/collections/{collection}/query", queries::find))
            .unify()
            .or(in_collection!(
                context,
                warp::path("explain"),
                "/v1/collections/{collection}/explain",
                queries::explain
            ))
            .unify()
            .or(in_collection!(
                context,
                warp::path("indexes"),
                "/v1/collections/{collection}/indexes",
                queries::indexes
            ))
            .unify()
            .or(in_collection!(
                context,
                warp::path("aggregate"),
                "/v1/collections/{collection}/aggregate",
                queries::aggregate
            ))
            .unify()
            .or(in_collection!(
                context,
                warp::path("changes"),
                "/v1/collections/{collection}/changes",
                changes::of_collection
            ))
            .unify()
            .or(in_collection!(
                context,
                warp::path("invalid"),
                "/v1/collections/{collection}/invalid",
                collections::invalid
            ))
            .unify()
            .or(in_collection!(
                context,
                warp::path("duplicates"),
                "/v1/collections/{collection}/duplicates",
                collections::duplicates
            ))
            .unify()
            .or(in_collection!(context, warp::path("erase"), "/v1/collections/{collection}/erase", erasure::erase))
            .unify()
            .or(in_collection!(
                context,
                warp::path("export"),
                "/v1/collections/{collection}/export",
                documents::export_all
            ))
            .unify()
            .or(of_document!(
                context,
                warp::path("conflicts"),
                "/v1/collections/{collection}/docs/{id}/conflicts",
                documents::conflicts
            ))
            .unify()
            .or(of_document!(
                context,
                warp::path("history"),
                "/v1/collections/{collection}/docs/{id}/history",
                history::history
            ))
            .unify()
            .or(of_document!(
                context,
                warp::path("automerge"),
                "/v1/collections/{collection}/docs/{id}/automerge",
                files::automerge
            ))
            .unify()
            .or(of_document!(context, warp::path("diff"), "/v1/collections/{collection}/docs/{id}/diff", history::diff))
            .unify()
            .or(of_document!(
                context,
                warp::path("restore"),
                "/v1/collections/{collection}/docs/{id}/restore",
                history::restore
            ))
            .unify()
            .or(in_collection!(context, none(), "/v1/collections/{collection}", collections::one))
            .unify()
            .or(fixed!(context, "/v1/collections", collections::all))
            .unify()
            .boxed(),
    );
    let peers = warp::path("peers").and(
        fixed!(context, "/v1/peers", state::peers)
            .or(named!(context, none(), "/v1/peers/{node}", state::link))
            .unify()
            .boxed(),
    );
    let audits = warp::path("audit").and(
        fixed!(context, "/v1/audit", audit::entries)
            .or(warp::path("tail").and(fixed!(context, "/v1/audit/tail", audit::tail)))
            .unify()
            .or(warp::path("status").and(fixed!(context, "/v1/audit/status", audit::status)))
            .unify()
            .or(warp::path("verify").and(fixed!(context, "/v1/audit/verify", audit::verify)))
            .unify()
            .or(warp::path("proofs").and(named!(context, none(), "/v1/audit/proofs/{id}", audit::proof)))
            .unify()
            .or(warp::path("why").and(named!(context, none(), "/v1/audit/why/{op}", audit::why)))
            .unify()
            .boxed(),
    );
    let principals = warp::path("principals").and(
        fixed!(context, "/v1/principals", access::principals)
            .or(named!(context, none(), "/v1/principals/{name}", access::principal))
            .unify()
            .or(named!(context, warp::path("grants"), "/v1/principals/{name}/grants", access::grants))
            .unify()
            .or(named!(context, warp::path("members"), "/v1/principals/{name}/members", access::members))
            .unify()
            .or(named!(context, warp::path("tokens"), "/v1/principals/{name}/tokens", access::tokens))
            .unify()
            .or(named!(context, warp::path("password"), "/v1/principals/{name}/password", access::password))
            .unify()
            .or(named!(context, warp::path("certificates"), "/v1/principals/{name}/certificates", access::certificates))
            .unify()
            .or(named!(context, warp::path("identities"), "/v1/principals/{name}/identities", access::identities))
            .unify()
            .boxed(),
    );
    let v1 = warp::path("v1").and(
        collections
            .boxed()
            .or(warp::path("changes").and(fixed!(context, "/v1/changes", changes::all)))
            .unify()
            .or(warp::path("session").and(stateless!(context, "/v1/session", sessions::session)))
            .unify()
            .or(warp::path("status").and(fixed!(context, "/v1/status", state::status)))
            .unify()
            .or(peers)
            .unify()
            .or(audits)
            .unify()
            .or(principals)
            .unify()
            .or(warp::path("erasures").and(
                fixed!(context, "/v1/erasures", erasure::all)
                    .or(named!(context, none(), "/v1/erasures/{act}", erasure::one))
                    .unify()
                    .boxed(),
            ))
            .unify()
            .or(warp::path("caller").and(fixed!(context, "/v1/caller", access::caller)))
            .unify()
            .or(warp::path("roles").and(fixed!(context, "/v1/roles", access::roles)))
            .unify()
            .or(warp::path("can").and(fixed!(context, "/v1/can", access::can)))
            .unify()
            .or(warp::path("statements").and(named!(context, none(), "/v1/statements/{id}", access::statement)))
            .unify()
            .or(warp::path("authors").and(
                fixed!(context, "/v1/authors", authors::authors)
                    .or(named!(context, none(), "/v1/authors/{key}", authors::author))
                    .unify()
                    .or(named!(
                        context,
                        warp::path("replacement"),
                        "/v1/authors/{key}/replacement",
                        authors::replacement
                    ))
                    .unify()
                    .boxed(),
            ))
            .unify()
            .or(warp::path("approvals").and(
                fixed!(context, "/v1/approvals", authors::approvals)
                    .or(named!(context, none(), "/v1/approvals/{op}", authors::approval))
                    .unify()
                    .boxed(),
            ))
            .unify()
            .or(warp::path("witnesses").and(
                fixed!(context, "/v1/witnesses", witness::witnesses)
                    .or(named!(context, none(), "/v1/witnesses/{node}", witness::witness))
                    .unify()
                    .boxed(),
            ))
            .unify()
            .or(warp::path("owners").and(fixed!(context, "/v1/owners", authors::owners)))
            .unify()
            .or(warp::path("digests").and(fixed!(context, "/v1/digests", state::digests)))
            .unify()
            .or(warp::path("quarantine").and(fixed!(context, "/v1/quarantine", state::quarantine)))
            .unify()
            .or(warp::path("quarantine").and(named!(
                context,
                warp::path("release"),
                "/v1/quarantine/{op}/release",
                access::release
            )))
            .unify()
            .or(warp::path("verify").and(fixed!(context, "/v1/verify", state::verify)))
            .unify()
            .or(warp::path("keys").and(fixed!(context, "/v1/keys", state::keys)))
            .unify()
            .or(warp::path("invites").and(fixed!(context, "/v1/invites", state::invites)))
            .unify()
            .or(warp::path("openapi.json").and(stateless!(context, "/v1/openapi.json", state::openapi)))
            .unify()
            .boxed(),
    );
    let health = warp::path("health").and(
        warp::path("live")
            .and(stateless!(context, "/health/live", state::live))
            .or(warp::path("ready").and(stateless!(context, "/health/ready", state::ready)))
            .unify()
            .boxed(),
    );
    v1.boxed()
        .or(health)
        .unify()
        .or(warp::path("docs").and(stateless!(context, "/docs", state::docs)))
        .unify()
        .or(warp::path("metrics").and(stateless!(context, "/metrics", state::metrics)))
        .unify()
        .recover(|_: Rejection| async {
            let error = Error::new(ErrorCode::RouteNotFound, "no resource has this path")
                .hint("the paths are described at /v1/openapi.json");
            Ok::<_, std::convert::Infallible>(problem::answer(&error))
        })
        .unify()
        .boxed()
}
