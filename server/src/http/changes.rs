//! The change feed: pages, long poll and server-sent events.

use std::time::Duration;

use folkmoot::api::{Change, ChangeContent, ChangeToken, ChangesPage, ChangesQuery, Since};
use folkmoot::wire::{self, ChangeMeta, Items};
use folkmoot::{CollectionName, Database, PrincipalId, Result};
use futures_util::StreamExt as _;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use warp::reply::Response;

use super::body::streamed;
use super::rates::InUse;
use super::reply::spliced;
use super::request::{Request, collection_name};

/// How long a long poll waits when the caller does not say: below the usual 30 s of proxies.
const WAIT_DEFAULT: Duration = Duration::from_secs(25);
/// Between two signs of life on a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

enum Feed {
    Normal,
    LongPoll,
    Events,
}

impl std::str::FromStr for Feed {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "normal" => Ok(Self::Normal),
            "longpoll" => Ok(Self::LongPoll),
            "sse" => Ok(Self::Events),
            _ => Err(()),
        }
    }
}

/// Tells what was committed here in all collections, in commit order.
#[utoipa::path(get, path = "/v1/changes", tag = "changes",
    params(
        ("since" = Option<String>, Query, description = "A token of an earlier answer, or `now`; the beginning if not given"),
        ("limit" = Option<u32>, Query, description = "Changes of the page, up to 1000; 100 if not given"),
        ("feed" = Option<String>, Query, description = "normal, longpoll or sse"),
        ("wait" = Option<String>, Query, description = "How long a long poll waits, up to 60s; 25s if not given"),
        ("prefix" = Option<String>, Query, description = "Only ids that begin with this"),
        ("docs" = Option<bool>, Query, description = "Put each document as it is now beside its change, as `doc`"),
        ("Last-Event-ID" = Option<String>, Header, description = "With sse: the token to go on behind"),
    ),
    responses(
        (status = 200, description = "`{\"items\":[…],\"next\",\"more\"}`, or events `change` whose id is the token", body = Items<ChangeMeta>),
        (status = 400, description = "invalid_cursor, invalid_parameter", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn all(request: Request) -> Result<Response> {
    feed(request, None).await
}

/// Tells what was committed here in one collection, in commit order.
#[utoipa::path(get, path = "/v1/collections/{collection}/changes", tag = "changes",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("since" = Option<String>, Query, description = "A token of an earlier answer, or `now`; the beginning if not given"),
        ("limit" = Option<u32>, Query, description = "Changes of the page, up to 1000; 100 if not given"),
        ("feed" = Option<String>, Query, description = "normal, longpoll or sse"),
        ("wait" = Option<String>, Query, description = "How long a long poll waits, up to 60s; 25s if not given"),
        ("prefix" = Option<String>, Query, description = "Only ids that begin with this"),
        ("docs" = Option<bool>, Query, description = "Put each document as it is now beside its change, as `doc`"),
        ("Last-Event-ID" = Option<String>, Header, description = "With sse: the token to go on behind"),
    ),
    responses(
        (status = 200, description = "`{\"items\":[…],\"next\",\"more\"}`, or events `change` whose id is the token", body = Items<ChangeMeta>),
        (status = 400, description = "invalid_cursor, invalid_parameter", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn of_collection(request: Request, collection: String) -> Result<Response> {
    let collection = collection_name(&collection)?;
    feed(request, Some(collection)).await
}

async fn feed(mut request: Request, collection: Option<CollectionName>) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let feed = request.query.parsed::<Feed>("feed", "normal, longpoll or sse")?.unwrap_or(Feed::Normal);
    let wait = request.query.duration("wait")?;
    let since = request.query.take("since");
    // A browser that connects again repeats the address and adds what it saw last.
    let last = request.header("last-event-id")?.map(str::to_owned);
    let token = match feed {
        Feed::Events => last.or(since),
        Feed::Normal | Feed::LongPoll => since,
    };
    let since = match token.as_deref() {
        None | Some("") => Since::Beginning,
        Some("now") => Since::Now,
        Some(token) => Since::After(ChangeToken::new(token)?),
    };
    let content = if request.query.switch("docs")? { ChangeContent::Documents } else { ChangeContent::Names };
    let wait = match feed {
        Feed::LongPoll => wait.unwrap_or(WAIT_DEFAULT).min(ChangesQuery::WAIT_MAX),
        Feed::Normal | Feed::Events => Duration::ZERO,
    };
    let prefix = request.query.take("prefix");
    let limit = request.query.limit(ChangesQuery::LIMIT_MAX)?;
    let query = ChangesQuery { collection, prefix, since, limit, wait, content };
    let Request { context, database, principal, query: rest, .. } = request;
    rest.finish("since, limit, feed, wait, prefix, docs")?;
    // Held as long as the answer lasts.
    let stream = match feed {
        Feed::Normal => None,
        Feed::LongPoll | Feed::Events => context.rates.stream(principal)?,
    };
    match feed {
        Feed::Normal => page(&database.changes(&query).await?),
        Feed::LongPoll => {
            let found = tokio::select! {
                found = database.changes(&query) => found?,
                // Nothing came in time: an empty page, at once.
                () = context.shut_down() => {
                    database.changes(&ChangesQuery { wait: Duration::ZERO, ..query.clone() }).await?
                }
            };
            page(&found)
        }
        Feed::Events => {
            // What is wrong with the token is answered with its status.
            let probe = ChangesQuery { limit: Some(1), ..query.clone() };
            let begin = database.changes(&probe).await?;
            let since = match query.since {
                // Nothing between this answer and the stream is missed.
                Since::Now => Since::After(begin.next),
                since @ (Since::Beginning | Since::After(_)) => since,
            };
            Ok(events(&context, &*database, ChangesQuery { since, ..query }, stream))
        }
    }
}

fn page(found: &ChangesPage) -> Result<Response> {
    super::reply::page(found.items.iter().map(line), &serde_json::json!({ "next": found.next, "more": found.more }))
}

fn line(change: &Change) -> Result<Vec<u8>> {
    spliced(&ChangeMeta::from(change), change.json.as_ref())
}

/// A slow reader holds up its own stream only: the feed is pulled, never buffered beyond a few chunks.
fn events(
    context: &std::sync::Arc<super::Context>,
    database: &dyn Database,
    query: ChangesQuery,
    stream: Option<InUse<PrincipalId>>,
) -> Response {
    let (writer, mut response) = streamed();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let context = context.clone();
    let mut changes = database.subscribe(query);
    tokio::spawn(async move {
        let _stream = stream;
        // Tells the client and every proxy between that the stream has begun.
        if writer.send(": folkmoot change feed\n\n").await.is_err() {
            return;
        }
        loop {
            let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
            let item = loop {
                tokio::select! {
                    item = changes.next() => break item,
                    () = context.shut_down() => return,
                    _ = alive.tick() => {
                        if writer.send(": alive\n\n").await.is_err() {
                            return;
                        }
                    }
                }
            };
            let Some(item) = item else { return };
            let (event, last) = match item.and_then(|change| Ok((line(&change)?, change.token))) {
                Ok((line, token)) => (event("change", Some(token.as_str()), &line), false),
                Err(error) => {
                    let problem = serde_json::to_vec(&wire::Problem::from(&error)).unwrap_or_default();
                    (event("problem", None, &problem), true)
                }
            };
            if writer.send(event).await.is_err() || last {
                return;
            }
        }
    });
    response
}

fn event(name: &str, id: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(data.len() + 64);
    if let Some(id) = id {
        text.extend_from_slice(b"id: ");
        text.extend_from_slice(id.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"event: ");
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\ndata: ");
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
    text
}
