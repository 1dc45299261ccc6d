//! [`Live`] over a WebSocket, resumed at the next node where it broke off.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use folkmoot_core::id::{CollectionName, DocId};
use futures_util::stream::BoxStream;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Method;
use http::header::SEC_WEBSOCKET_ACCEPT;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::transport::Call;
use super::{Client, backoff};
use crate::api::{Document, Error, ErrorCode, FindQuery, Live, LiveEvent, Result, Window};
use crate::wire;
use crate::wire::live::{ANSWER_BYTES_MAX, LiveAnswer, LiveKind, LiveRequest, REQUEST_BYTES_MAX, SUBPROTOCOL};

/// A node says at least every 20 s that it lives; after so long without anything the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Failures in a row, each after all attempts of a call, before the stream ends with the error.
const FAILURES_MAX: u32 = 5;
/// What is read at once.
const READ_BYTES: usize = 16 << 10;
/// What the client calls its one subscription.
const NAME: &str = "live";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

struct Follower {
    client: Client,
    collection: CollectionName,
    query: FindQuery,
    socket: Option<Socket>,
    window: Window,
    /// What a new connection has told of the query until it is all: only then is it known what is gone.
    begun: Option<Vec<Document>>,
    failures: u32,
}

impl Live for Client {
    fn live(&self, collection: &CollectionName, query: FindQuery) -> BoxStream<'static, Result<LiveEvent>> {
        let follower = Follower {
            client: self.clone(),
            collection: collection.clone(),
            query,
            socket: None,
            window: Window::default(),
            begun: None,
            failures: 0,
        };
        futures_util::stream::try_unfold(follower, |mut follower| async move {
            let event = follower.next().await?;
            Ok(Some((event, follower)))
        })
        .boxed()
    }
}

fn broken(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Unreachable, format!("the live connection broke off: {why}"))
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidAnswer, format!("a message of the live connection is malformed: {error}"))
}

impl Follower {
    async fn next(&mut self) -> Result<LiveEvent> {
        loop {
            if let Some(event) = self.window.next() {
                return Ok(event);
            }
            match self.advance().await {
                Ok(()) => {}
                Err(error) => {
                    self.socket = None;
                    self.failures += 1;
                    if !error.code().is_transient() || self.failures >= FAILURES_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff::pause(self.failures, error.retry_delay())).await;
                }
            }
        }
    }

    /// Takes one message, or connects.
    async fn advance(&mut self) -> Result<()> {
        let Some(socket) = &mut self.socket else {
            let connecting = connect(self.client.clone(), self.collection.clone(), self.query.clone());
            self.socket = Some(connecting.await?);
            self.begun = Some(Vec::new());
            return Ok(());
        };
        let message = match tokio::time::timeout(SILENCE_MAX, socket.next()).await {
            Err(_) => return Err(broken("nothing came for too long")),
            Ok(None) => return Err(broken("the node closed it")),
            Ok(Some(Err(SocketError::Capacity(error)))) => return Err(malformed(error)),
            Ok(Some(Err(error))) => return Err(broken(&error).with_source(error)),
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Ok(_))) => return Ok(()),
        };
        let LiveAnswer { kind, document, problem, .. } = serde_json::from_str(&message).map_err(malformed)?;
        self.failures = 0;
        match kind {
            LiveKind::Added | LiveKind::Changed => {
                let document = self.document(document)?;
                match &mut self.begun {
                    Some(begun) => begun.push(document),
                    None => self.window.put(document),
                }
            }
            LiveKind::Removed => {
                let id: DocId = serde_json::from_str(text_of(document.as_deref())?).map_err(malformed)?;
                match &mut self.begun {
                    Some(begun) => begun.retain(|document| document.id != id),
                    None => self.window.remove(&id),
                }
            }
            LiveKind::Synced => match self.begun.take() {
                Some(begun) => {
                    self.window.replace(begun);
                    self.window.sync();
                }
                None => self.window.say_synced(),
            },
            LiveKind::Ended | LiveKind::Problem => {
                return Err(problem.map_or_else(|| broken("the node ended it"), Error::from));
            }
            LiveKind::Welcome | LiveKind::Change | LiveKind::Other => {}
        }
        Ok(())
    }

    fn document(&self, raw: Option<Box<RawValue>>) -> Result<Document> {
        let listed: wire::ListedDocument = serde_json::from_str(text_of(raw.as_deref())?).map_err(malformed)?;
        Ok(listed.into_document(self.collection.clone()))
    }
}

async fn connect(client: Client, collection: CollectionName, query: FindQuery) -> Result<Socket> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("the system gives no randomness: {error}")))?;
    let key = STANDARD.encode(key);
    let call = Call::new(Method::GET, "/v1/live".to_owned())
        .header("connection", "Upgrade")?
        .header("upgrade", "websocket")?
        .header("sec-websocket-version", "13")?
        .header("sec-websocket-protocol", SUBPROTOCOL)?
        .header("sec-websocket-key", &key)?;
    let response = client.transport.open(&call).await?;
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    if accept.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(Error::new(ErrorCode::InvalidAnswer, "the node did not open a WebSocket"));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| broken(&error).with_source(error))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(REQUEST_BYTES_MAX * 2)
        .max_message_size(Some(ANSWER_BYTES_MAX))
        .max_frame_size(Some(ANSWER_BYTES_MAX));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
    let FindQuery { selector, sort, fields, limit, after: _, at: _ } = query;
    let request = LiveRequest::Query { id: NAME.to_owned(), collection, selector, sort, fields, limit };
    let text = serde_json::to_string(&request).map_err(malformed)?;
    if text.len() > REQUEST_BYTES_MAX {
        let detail = format!("the query has more than {REQUEST_BYTES_MAX} bytes");
        return Err(Error::new(ErrorCode::InvalidQuery, detail));
    }
    socket.send(Message::text(text)).await.map_err(|error| broken(&error).with_source(error))?;
    Ok(socket)
}

fn text_of(raw: Option<&RawValue>) -> Result<&str> {
    raw.map(RawValue::get).ok_or_else(|| malformed("a member is missing"))
}
