//! `/v1/live`: documents, queries and feeds over one WebSocket ([docs/changes.md]).
//!
//! The upgrade is our own, because warp's takes 128 KiB for each connection: this one takes a few. What is sent is pulled, never gathered:
//! while a client takes nothing, nothing is read for it, and one that takes nothing for long is cut. So is one that says what cannot be
//! understood. Each subscription asks the database as its caller, again for each page, so that what is taken back ends it.
//!
//! [docs/changes.md]: https://github.com/folkmoot/folkmoot/blob/main/docs/changes.md

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use folkmoot::api::{Change, ChangeContent, ChangeToken, ChangesQuery, FindQuery, LiveEvent, Since};
use folkmoot::node::Origin;
use folkmoot::wire::live::{
    ANSWER_BYTES_MAX, LiveHead, LiveKind, LiveRequest, NAME_BYTES_MAX, REQUEST_BYTES_MAX, SUBPROTOCOL,
};
use folkmoot::wire::{ChangeMeta, DocumentMeta, Problem};
use folkmoot::{Error, ErrorCode, PrincipalId, Result};
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use warp::reply::Response;

use super::entrance::{Arrival, Entered};
use super::front::Front;
use super::metrics::Counted;
use super::problem::method_not_allowed;
use super::rates::InUse;
use super::reply::spliced;

/// Connections at once, beside the bounds on each address.
pub(super) const CONNECTIONS_MAX: usize = 10_000;
/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 64;
/// How long a client may take to say who it is.
const AUTH_TIME: Duration = Duration::from_secs(10);
/// Between two signs of life on a quiet connection.
const PING: Duration = Duration::from_secs(20);
/// A client that says nothing for so long, not even that it lives, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// For so long a client may take nothing while there is something for it.
const STALLED_MAX: Duration = Duration::from_secs(30);
/// What is read at once.
const READ_BYTES: usize = 4 << 10;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Follows feeds, queries and documents over a WebSocket (RFC 6455). Messages are JSON; `docs/changes.md` describes them.
#[utoipa::path(get, path = "/v1/live", tag = "changes",
    params(
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "folkmoot.live.v1, or nothing"),
    ),
    responses(
        (status = 101, description = "The connection goes on as a WebSocket; without the header Authorization its first message says who the client is"),
        (status = 400, description = "invalid_request: no upgrade to a WebSocket, or not by HTTP/1.1", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not_allowed: a page of an origin that is not configured", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "busy: too many connections", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) fn upgrade<B>(
    front: &Front,
    mut request: http::Request<B>,
    entered: Option<Entered>,
    id: &str,
) -> Result<Response> {
    if request.method() != Method::GET {
        return Ok(method_not_allowed("GET"));
    }
    let headers = request.headers();
    let says = |name: http::HeaderName, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let wrong = |what: &'static str| {
        Error::new(ErrorCode::InvalidRequest, what).hint("connect with a WebSocket client (RFC 6455) by HTTP/1.1")
    };
    if !says(UPGRADE, "websocket") || !says(CONNECTION, "upgrade") {
        return Err(wrong("this path takes WebSockets only"));
    }
    if !says(http::header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(wrong("the WebSocket version is not 13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let accept =
        derive_accept_key(key.ok_or_else(|| wrong("the header Sec-WebSocket-Key is missing or malformed"))?.as_bytes());
    if !is_welcome(front, headers) {
        return Err(Error::new(ErrorCode::NotAllowed, "pages of this origin may not use the API")
            .hint("`http.cors_origins` names those that may"));
    }
    let named = says(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    let arrival = request.extensions().get::<Arrival>().cloned();
    let context = front.context().clone();
    let busy = || Error::new(ErrorCode::Busy, "too many connections are open").retry_after(Duration::from_secs(5));
    let slot = context.live.clone().try_acquire_owned().map_err(|_| busy())?;
    let in_use = match &arrival {
        Some(arrival) => Some(context.rates.connection(arrival.source).ok_or_else(busy)?),
        None => None,
    };
    let upgraded = request.extensions_mut().remove::<OnUpgrade>();
    let upgraded = upgraded.ok_or_else(|| wrong("this connection cannot be upgraded"))?;
    let session = Session { front: front.clone(), entered, arrival, name: id.to_owned() };
    tokio::spawn(async move {
        let _counted = Counted::live_connection();
        match upgraded.await {
            Ok(upgraded) => session.run(upgraded).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
        drop((slot, in_use));
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if named {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

/// Whether the page that connects, if it is one, may use the API: of this node, or of an origin that is configured. Browsers ask nobody else
/// before they connect.
fn is_welcome(front: &Front, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    (own.is_some() && own == host) || front.context().origins.allows(Some(origin)).is_some()
}

/// Why a connection ends.
enum End {
    /// The client is gone, or takes nothing.
    Gone,
    /// It is told why.
    Because(CloseCode, Error),
    /// It asked for it, or the node shuts down.
    Closed(CloseCode),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        // As by the codes of RFC 6455, 7.4.1: it broke a rule, or the node cannot.
        let code = match error.code() {
            ErrorCode::ShuttingDown => CloseCode::Away,
            ErrorCode::Internal | ErrorCode::Busy | ErrorCode::TooManyRequests => CloseCode::Again,
            _ => CloseCode::Policy,
        };
        Self::Because(code, error)
    }
}

/// A message of a subscription, or how it ended.
enum Item {
    Text(String),
    Ended(Option<Error>),
}

/// What a subscription tells, by its name.
type Told = BoxStream<'static, (Arc<str>, Item)>;

/// One connection.
struct Session {
    front: Front,
    entered: Option<Entered>,
    arrival: Option<Arrival>,
    /// Of the request that was upgraded.
    name: String,
}

/// What ends a subscription, what it takes of its caller's streams, and of the count of all.
type Ends = (oneshot::Sender<()>, Option<InUse<PrincipalId>>, Counted);

/// The subscriptions of a connection.
#[derive(Default)]
struct Subscriptions {
    told: SelectAll<Told>,
    /// Ends each.
    ends: BTreeMap<Arc<str>, Ends>,
}

impl Session {
    async fn run(self, upgraded: Upgraded) {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(ANSWER_BYTES_MAX * 2)
            .max_message_size(Some(REQUEST_BYTES_MAX))
            .max_frame_size(Some(REQUEST_BYTES_MAX));
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let origin = self.arrival.as_ref().map(|arrival| Origin { source: arrival.source, request: self.name.clone() });
        let serving = Box::pin(self.serve(&mut socket));
        let end = match origin {
            Some(origin) => origin.scope(serving).await,
            None => serving.await,
        };
        let (code, reason) = match end {
            End::Gone => return,
            End::Closed(code) => (code, Utf8Bytes::default()),
            End::Because(code, error) => {
                metrics::counter!("folkmoot_live_refused_total", "code" => error.code().as_str()).increment(1);
                let head = LiveHead { kind: LiveKind::Problem, id: None, problem: Some(Problem::from(&error)) };
                // It is cut all the same.
                let _ = send(&mut socket, text(&head, None)).await;
                (code, error.code().as_str().into())
            }
        };
        let _ = tokio::time::timeout(STALLED_MAX, socket.close(Some(CloseFrame { code, reason }))).await;
    }

    async fn serve(self, socket: &mut Socket) -> End {
        let Self { front, entered, arrival, .. } = self;
        let context = front.context().clone();
        let entered = match entered {
            Some(entered) => entered,
            None => {
                let heard = tokio::select! {
                    heard = tokio::time::timeout(AUTH_TIME, request(socket)) => heard,
                    () = context.shut_down() => return End::Closed(CloseCode::Away),
                };
                let late = || Error::new(ErrorCode::Unauthenticated, "the client did not say in time who it is");
                let token = match heard {
                    Ok(Ok(Some(LiveRequest::Auth { token }))) => token,
                    Ok(Ok(Some(_))) => return not_yet().into(),
                    Ok(Ok(None)) => return End::Gone,
                    Ok(Err(end)) => return end,
                    Err(_) => return late().into(),
                };
                match front.enter_by_token(&token, arrival.as_ref()).await {
                    Ok(entered) => entered,
                    Err(error) => return error.into(),
                }
            }
        };
        let welcome = LiveHead { kind: LiveKind::Welcome, id: None, problem: None };
        if send(socket, text(&welcome, None)).await.is_err() {
            return End::Gone;
        }
        let mut subscriptions = Subscriptions::default();
        let mut ping = tokio::time::interval(PING);
        let mut heard = tokio::time::Instant::now();
        loop {
            let sent = tokio::select! {
                // What a client says comes before what it is told: it may end what there is too much of.
                biased;
                () = context.shut_down() => return End::Closed(CloseCode::Away),
                message = socket.next() => {
                    heard = tokio::time::Instant::now();
                    match understood(message) {
                        Ok(Heard::Request(request)) => {
                            if let Err(error) = context.rates.admit(entered.principal) {
                                return error.into();
                            }
                            match subscriptions.take(&front, &entered, request) {
                                Ok(None) => Ok(()),
                                Ok(Some(answer)) => send(socket, answer).await,
                                Err(error) => return error.into(),
                            }
                        }
                        Ok(Heard::Sign) => Ok(()),
                        Err(end) => return end,
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return End::Gone;
                    }
                    send(socket, Message::Ping(bytes::Bytes::new())).await
                }
                Some((name, item)) = subscriptions.told.next(), if !subscriptions.told.is_empty() => {
                    match item {
                        Item::Text(text) => send(socket, Message::text(text)).await,
                        Item::Ended(error) => {
                            subscriptions.ends.remove(&name);
                            if let Some(error) = error.as_ref().filter(|error| error.code() == ErrorCode::Unauthenticated) {
                                return error.clone().into();
                            }
                            let problem = error.as_ref().map(Problem::from);
                            let head = LiveHead { kind: LiveKind::Ended, id: Some(&name), problem };
                            send(socket, text(&head, None)).await
                        }
                    }
                }
            };
            if sent.is_err() {
                return End::Gone;
            }
        }
    }
}

fn not_yet() -> Error {
    Error::new(ErrorCode::Unauthenticated, "the first message has to say who the client is")
        .hint(r#"send {"type":"auth","token":"TOKEN"}, or the header Authorization with the request"#)
}

/// What came from a client.
enum Heard {
    Request(LiveRequest),
    /// Nothing but that it lives.
    Sign,
}

fn understood(message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>) -> Result<Heard, End> {
    let wrong =
        |detail: Cow<'static, str>| End::Because(CloseCode::Invalid, Error::new(ErrorCode::InvalidRequest, detail));
    match message {
        None | Some(Ok(Message::Close(_))) => Err(End::Gone),
        Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
            Ok(request) => Ok(Heard::Request(request)),
            Err(error) => Err(wrong(format!("the message is not as expected: {error}").into())),
        },
        Some(Ok(Message::Binary(_))) => Err(wrong("messages are text".into())),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(Heard::Sign),
        Some(Err(tokio_tungstenite::tungstenite::Error::Capacity(error))) => {
            let error = Error::new(ErrorCode::BodyTooLarge, format!("the message is too large: {error}"));
            Err(End::Because(CloseCode::Size, error))
        }
        Some(Err(tokio_tungstenite::tungstenite::Error::Utf8(_))) => Err(wrong("the message is not UTF-8".into())),
        Some(Err(error)) => {
            tracing::debug!(%error, "a live connection broke");
            Err(End::Gone)
        }
    }
}

/// Returns the first request; none if the client is gone.
async fn request(socket: &mut Socket) -> Result<Option<LiveRequest>, End> {
    loop {
        match understood(socket.next().await) {
            Ok(Heard::Request(request)) => return Ok(Some(request)),
            Ok(Heard::Sign) => {}
            Err(End::Gone) => return Ok(None),
            Err(end) => return Err(end),
        }
    }
}

/// Sends a message; an error if the client is gone or takes nothing.
async fn send(socket: &mut Socket, message: Message) -> Result<(), ()> {
    match tokio::time::timeout(STALLED_MAX, socket.send(message)).await {
        Ok(sent) => sent.map_err(drop),
        Err(_) => {
            metrics::counter!("folkmoot_http_stalled_total").increment(1);
            Err(())
        }
    }
}

/// Returns a message with a member that is JSON text already.
fn text(head: &LiveHead<'_>, member: Option<(&str, &[u8])>) -> Message {
    Message::text(line(head, member))
}

fn line(head: &LiveHead<'_>, member: Option<(&str, &[u8])>) -> String {
    let mut text = serde_json::to_string(head).unwrap_or_default();
    if let (Some((name, json)), Some('}')) = (member, text.chars().next_back()) {
        text.pop();
        text.push_str(",\"");
        text.push_str(name);
        text.push_str("\":");
        // What is in the store, and what was written here, is text.
        text.push_str(&String::from_utf8_lossy(json));
        text.push('}');
    }
    text
}

impl Subscriptions {
    /// Carries out what a client asks for; returns what is to be answered at once.
    fn take(&mut self, front: &Front, entered: &Entered, request: LiveRequest) -> Result<Option<Message>> {
        let database = &entered.database;
        let (name, told) = match request {
            LiveRequest::Auth { .. } => {
                return Err(Error::new(ErrorCode::InvalidRequest, "the client is known already"));
            }
            LiveRequest::End { id } => {
                // What was ended meanwhile is over all the same.
                self.ends.remove(id.as_str());
                return Ok(Some(text(&LiveHead { kind: LiveKind::Ended, id: Some(&id), problem: None }, None)));
            }
            LiveRequest::Changes { id, collection, prefix, selector, since, docs } => {
                let since = match since.as_deref() {
                    None => Since::Beginning,
                    Some("now") => Since::Now,
                    Some(token) => Since::After(ChangeToken::new(token)?),
                };
                let content = if docs { ChangeContent::Documents } else { ChangeContent::Names };
                let query = ChangesQuery { collection, prefix, selector, since, content, ..ChangesQuery::default() };
                (id, database.subscribe(query).map(changed).boxed())
            }
            LiveRequest::Query { id, collection, selector, sort, fields, limit } => {
                let query = FindQuery { selector, sort, fields, limit, ..FindQuery::default() };
                (id, database.live(&collection, query).map(found).boxed())
            }
            LiveRequest::Document { id, collection, document } => {
                (id, database.live_document(&collection, &document).map(found).boxed())
            }
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let detail = format!("the id of a subscription has 1 to {NAME_BYTES_MAX} bytes");
            return Err(Error::new(ErrorCode::InvalidRequest, detail).pointer("/id"));
        }
        if self.ends.contains_key(name.as_str()) {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("there is a subscription {name:?} already"))
                .pointer("/id"));
        }
        if self.ends.len() >= SUBSCRIPTIONS_MAX {
            let detail = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(Error::new(ErrorCode::TooManyRequests, detail).hint("open another connection"));
        }
        let stream = front.context().rates.stream(entered.principal)?;
        let name: Arc<str> = name.into();
        let (end, ended) = oneshot::channel();
        self.ends.insert(name.clone(), (end, stream, Counted::subscription()));
        self.told.push(tagged(name, told).take_until(ended).boxed());
        Ok(None)
    }
}

/// Says of which subscription something is, and that it ended.
fn tagged(
    name: Arc<str>,
    told: BoxStream<'static, Result<Piece>>,
) -> impl futures_util::Stream<Item = (Arc<str>, Item)> + Send + 'static {
    let last = name.clone();
    let told = told.map(move |piece| {
        let item = match piece {
            Ok(Piece { kind, member }) => {
                let head = LiveHead { kind, id: Some(&name), problem: None };
                Item::Text(line(&head, member.as_ref().map(|(member, json)| (*member, json.as_slice()))))
            }
            Err(error) => Item::Ended(Some(error)),
        };
        (name.clone(), item)
    });
    // A stream ends after its error, which says so already.
    let mut failed = false;
    told.chain(futures_util::stream::once(async move { (last, Item::Ended(None)) })).filter(move |(_, item)| {
        let is_last = matches!(item, Item::Ended(None));
        let is_told = !(is_last && failed);
        failed |= matches!(item, Item::Ended(Some(_)));
        std::future::ready(is_told)
    })
}

/// What a message says besides its subscription.
struct Piece {
    kind: LiveKind,
    member: Option<(&'static str, Vec<u8>)>,
}

fn changed(change: Result<Change>) -> Result<Piece> {
    let change = change?;
    Ok(Piece {
        kind: LiveKind::Change,
        member: Some(("change", spliced(&ChangeMeta::from(&change), change.json.as_ref())?)),
    })
}

fn found(event: Result<LiveEvent>) -> Result<Piece> {
    let (kind, document) = match event? {
        LiveEvent::Added(document) => (LiveKind::Added, document),
        LiveEvent::Changed(document) => (LiveKind::Changed, document),
        LiveEvent::Removed(id) => {
            let id = serde_json::to_vec(&id)
                .map_err(|error| Error::new(ErrorCode::Internal, "write an id").with_source(error))?;
            return Ok(Piece { kind: LiveKind::Removed, member: Some(("document", id)) });
        }
        LiveEvent::Synced => return Ok(Piece { kind: LiveKind::Synced, member: None }),
    };
    Ok(Piece { kind, member: Some(("document", spliced(&DocumentMeta::from(&document), Some(&document.json))?)) })
}
