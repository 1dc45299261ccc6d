//! The change feed: pages, long poll and server-sent events.

use std::time::Duration;

use folkmoot::api::{Change, ChangeContent, ChangeToken, ChangesPage, ChangesQuery, Since};
use folkmoot::wire::{self, ChangeMeta};
use folkmoot::{CollectionName, Error, ErrorCode, Result};
use futures_util::StreamExt as _;
use warp::reply::Response;

use super::events::{self, Event};
use super::reply::spliced;
use super::request::{Request, collection_name};

/// How long a long poll waits when the caller does not say: below the usual 30 s of proxies.
const WAIT_DEFAULT: Duration = Duration::from_secs(25);

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
        ("selector" = Option<String>, Query, description = "Only documents that this selector means now, as JSON, and those that are gone"),
        ("docs" = Option<bool>, Query, description = "Put each document as it is now beside its change, as `doc`"),
        ("Last-Event-ID" = Option<String>, Header, description = "With sse: the token to go on behind"),
    ),
    responses(
        (status = 200, description = "`{\"items\":[…],\"next\",\"more\"}`, or events `change` whose id is the token", content((wire::ListedChanges = "application/json"), (ChangeMeta = "text/event-stream"))),
        (status = 400, description = "invalid_cursor, invalid_parameter, invalid_query", body = wire::Problem, content_type = "application/problem+json"),
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
        ("selector" = Option<String>, Query, description = "Only documents that this selector means now, as JSON, and those that are gone"),
        ("docs" = Option<bool>, Query, description = "Put each document as it is now beside its change, as `doc`"),
        ("Last-Event-ID" = Option<String>, Header, description = "With sse: the token to go on behind"),
    ),
    responses(
        (status = 200, description = "`{\"items\":[…],\"next\",\"more\"}`, or events `change` whose id is the token", content((wire::ListedChanges = "application/json"), (ChangeMeta = "text/event-stream"))),
        (status = 400, description = "invalid_cursor, invalid_parameter, invalid_query", body = wire::Problem, content_type = "application/problem+json"),
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
    let selector = match request.query.take("selector") {
        None => serde_json::Value::Null,
        Some(text) => serde_json::from_str(&text).map_err(|error| {
            Error::new(ErrorCode::InvalidQuery, format!("the selector is not JSON: {error}")).pointer("/selector")
        })?,
    };
    let limit = request.query.limit(ChangesQuery::LIMIT_MAX)?;
    let query = ChangesQuery { collection, prefix, selector, since, limit, wait, content };
    let Request { context, database, principal, query: rest, .. } = request;
    rest.finish("since, limit, feed, wait, prefix, selector, docs")?;
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
            let changes = database.subscribe(ChangesQuery { since, ..query }).map(|change| {
                let change = change?;
                Ok(Event { name: "change", id: change.token.as_str().to_owned(), data: line(&change)? })
            });
            Ok(events::answer(&context, "folkmoot change feed", changes.boxed(), stream))
        }
    }
}

fn page(found: &ChangesPage) -> Result<Response> {
    super::reply::page(found.items.iter().map(line), &serde_json::json!({ "next": found.next, "more": found.more }))
}

fn line(change: &Change) -> Result<Vec<u8>> {
    spliced(&ChangeMeta::from(change), change.json.as_ref())
}
