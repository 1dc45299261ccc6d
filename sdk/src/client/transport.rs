//! Sends requests: chooses the node, retries, and turns what comes back into answers or errors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;

use super::connections::{Connections, Wanted};
use super::{backoff, tls};
use crate::api::{Error, ErrorCode, Result, SessionToken};
use crate::wire;

/// The largest answer taken whole. Pages end at 4 MiB of documents, a single document at 5 MiB; metadata comes on top.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// The largest problem document.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// One call, without the node it goes to.
pub(super) struct Call {
    pub(super) method: Method,
    /// Path and query, beginning with `/`.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// How long the node may wait on purpose (long poll, durability), on top of the time-out.
    pub(super) wait: Duration,
    /// Whether it changes nothing, and so may be repeated whatever became of it.
    is_read: bool,
}

impl Call {
    pub(super) fn new(method: Method, path: String) -> Self {
        let is_read = method == Method::GET;
        Self { method, path, headers: HeaderMap::new(), body: Bytes::new(), wait: Duration::ZERO, is_read }
    }

    /// A read whose question is too long for a URL.
    pub(super) fn question(path: String) -> Self {
        Self { is_read: true, ..Self::new(Method::POST, path) }
    }

    /// Sets a header whose value was made here.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidHeader`] if the value cannot be a header.
    pub(super) fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Result<Self> {
        let value = HeaderValue::from_str(value.as_ref()).map_err(|_| {
            Error::new(ErrorCode::InvalidHeader, format!("the value of {name} cannot be sent as a header"))
        })?;
        self.headers.insert(name, value);
        Ok(self)
    }

    pub(super) fn json<T: serde::Serialize>(mut self, value: &T) -> Result<Self> {
        self.body = serde_json::to_vec(value)
            .map_err(|e| Error::new(ErrorCode::InvalidJson, format!("the request cannot be written as JSON: {e}")))?
            .into();
        self.header("content-type", "application/json")
    }
}

/// An answer with its whole body.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|e| {
            Error::new(ErrorCode::InvalidAnswer, format!("the node's answer is not what was asked for: {e}"))
        })
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why an attempt failed, and whether the node may have done what was asked.
struct Failure {
    error: Error,
    sent: bool,
}

/// What became of the attempts of one call so far.
#[derive(Default)]
struct Tries {
    failed: u32,
    sent: bool,
}

pub(super) struct Transport {
    nodes: Vec<Uri>,
    /// The node that answered last.
    current: AtomicUsize,
    token: Option<HeaderValue>,
    timeout: Duration,
    attempts: u32,
    http: Connections,
    session: Carried,
}

/// What the client has seen, on whichever node.
pub(super) enum Carried {
    /// Nothing is carried along.
    No,
    /// A token, once an answer had one.
    Yes(Mutex<Option<SessionToken>>),
}

impl Carried {
    fn get(&self) -> Option<SessionToken> {
        match self {
            Self::No => None,
            Self::Yes(token) => token.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Takes in the token of the answer to a call that was sent with `sent`.
    fn note(&self, sent: Option<&SessionToken>, headers: &HeaderMap) {
        let Self::Yes(token) = self else { return };
        let answered = headers.get(wire::SESSION).and_then(|value| SessionToken::new(value.to_str().ok()?).ok());
        let Some(answered) = answered else { return };
        let mut token = token.lock().unwrap_or_else(PoisonError::into_inner);
        // What was sent is in the answer. What other calls have seen meanwhile is not.
        *token = Some(match token.as_ref() {
            Some(other) if Some(other) != sent => answered.joined(other),
            Some(_) | None => answered,
        });
    }
}

impl Transport {
    pub(super) fn new(
        urls: &[String],
        token: Option<HeaderValue>,
        trust: tls::Trust<'_>,
        timeout: Duration,
        attempts: u32,
        session: Carried,
    ) -> Result<Self> {
        let nodes = urls.iter().map(|url| parse_url(url)).collect::<Result<Vec<_>>>()?;
        let http = Connections::new(Wanted::of(&nodes), &trust)?;
        Ok(Self { nodes, current: AtomicUsize::new(0), token, timeout, attempts, http, session })
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|uri| uri.to_string().trim_end_matches('/').to_owned()).collect()
    }

    /// Sends a call and returns the whole answer; retries while that may help.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer> {
        let deadline = self.timeout.saturating_add(call.wait);
        let mut tries = Tries::default();
        loop {
            let (at, node) = self.node()?;
            match tokio::time::timeout(deadline, self.attempt(node, call)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => self.pause(&mut tries, call, at, failure).await?,
                Err(_) => self.pause(&mut tries, call, at, too_late(node, deadline)).await?,
            }
        }
    }

    /// Sends a call and returns the answer as soon as it begins; its body may go on for ever.
    pub(super) async fn open(&self, call: &Call) -> Result<Response<Incoming>> {
        let mut tries = Tries::default();
        loop {
            let (at, node) = self.node()?;
            match tokio::time::timeout(self.timeout, self.begin(node, call)).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(failure)) => self.pause(&mut tries, call, at, failure).await?,
                Err(_) => self.pause(&mut tries, call, at, too_late(node, self.timeout)).await?,
            }
        }
    }

    /// Returns what the client has seen so far.
    pub(super) fn session(&self) -> Option<SessionToken> {
        self.session.get()
    }

    fn node(&self) -> Result<(usize, &Uri)> {
        let at = self.current.load(Ordering::Relaxed);
        let node = self.nodes.get(at % self.nodes.len().max(1));
        node.map(|node| (at, node)).ok_or_else(|| Error::new(ErrorCode::Unreachable, "the client knows no node"))
    }

    /// Moves on to the next node after a pause, or gives up with the error.
    async fn pause(&self, tries: &mut Tries, call: &Call, at: usize, failure: Failure) -> Result<()> {
        // A read that got lost has no outcome to be unsure of.
        tries.sent |= failure.sent && !call.is_read;
        tries.failed += 1;
        if !failure.error.code().is_transient() {
            return Err(failure.error);
        }
        if tries.failed >= self.attempts {
            return Err(match failure.error.code() {
                ErrorCode::Unreachable if tries.sent => Error::new(
                    ErrorCode::UnknownOutcome,
                    format!("{}; an earlier attempt may have been carried out", failure.error.detail()),
                )
                .hint("repeat the request with the same idempotency key"),
                _ => failure.error,
            });
        }
        // Another call may have moved on already.
        let _ = self.current.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        tokio::time::sleep(backoff::pause(tries.failed, failure.error.retry_delay())).await;
        Ok(())
    }

    async fn begin(&self, node: &Uri, call: &Call) -> Result<Response<Incoming>, Failure> {
        let session = self.session.get();
        let request = self.request(node, call, session.as_ref()).map_err(|error| Failure { error, sent: false })?;
        let response = self.http.request(request).await.map_err(|error| {
            let sent = !error.is_connect();
            let what = if sent { "lost the connection to" } else { "cannot reach" };
            let error =
                Error::new(ErrorCode::Unreachable, format!("{what} {}: {}", node_name(node), root_cause(&error)))
                    .hint(if tls::is_mistrusted(&error) {
                        "name the certificate or the authority to believe with --ca or FOLKMOOT_CA"
                    } else {
                        "is the node running, and is this its address?"
                    })
                    .with_source(error);
            Failure { error, sent }
        })?;
        // That there is nothing is something that was seen, too.
        self.session.note(session.as_ref(), response.headers());
        if (response.status().is_success() && !is_problem(response.headers()))
            || [StatusCode::NOT_MODIFIED, StatusCode::SWITCHING_PROTOCOLS].contains(&response.status())
        {
            return Ok(response);
        }
        Err(Failure { error: problem(response).await, sent: true })
    }

    async fn attempt(&self, node: &Uri, call: &Call) -> Result<Answer, Failure> {
        let (head, body) = self.begin(node, call).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|e| Failure {
            error: Error::new(ErrorCode::Unreachable, format!("the answer of {} broke off: {e}", node_name(node))),
            sent: true,
        })?;
        Ok(Answer { headers: head.headers, body: body.to_bytes() })
    }

    fn request(&self, node: &Uri, call: &Call, session: Option<&SessionToken>) -> Result<Request<Full<Bytes>>> {
        let uri = format!("{}{}", node.to_string().trim_end_matches('/'), call.path);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .body(Full::new(call.body.clone()))
            .map_err(|e| Error::new(ErrorCode::InvalidRequest, format!("the request cannot be sent: {e}")))?;
        *request.headers_mut() = call.headers.clone();
        if let (Some(session), false) = (session, call.headers.contains_key(wire::SESSION)) {
            let value = HeaderValue::from_str(session.as_str())
                .map_err(|_| Error::new(ErrorCode::InvalidSession, "the session token cannot be sent"))?;
            request.headers_mut().insert(wire::SESSION, value);
        }
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        Ok(request)
    }
}

fn too_late(node: &Uri, after: Duration) -> Failure {
    let after = humantime::format_duration(after);
    let error = Error::new(ErrorCode::Unreachable, format!("{} did not answer within {after}", node_name(node)));
    Failure { error, sent: true }
}

fn parse_url(url: &str) -> Result<Uri> {
    let wrong = |why: &str| {
        Error::new(ErrorCode::InvalidParameter, format!("{url:?} is not the address of a node: {why}"))
            .hint("an address looks like http://127.0.0.1:7070")
    };
    let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| wrong("it is no URL"))?;
    if uri.host().is_none() {
        return Err(wrong("it names no host"));
    }
    match uri.scheme_str() {
        Some("http" | "https") if uri.query().is_none() => Ok(uri),
        Some("http" | "https") => Err(wrong("it has a query")),
        Some(_) | None => Err(wrong("it does not begin with http:// or https://")),
    }
}

/// The address without anything that might be secret.
fn node_name(node: &Uri) -> String {
    let port = node.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", node.host().unwrap_or_default())
}

/// Whether an answer tells of an error, or of what is not so yet.
fn is_problem(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with(wire::PROBLEM_JSON))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

async fn problem(response: Response<Incoming>) -> Error {
    let (head, body) = response.into_parts();
    let retry_after =
        head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    let is_problem = is_problem(&head.headers);
    let parsed = match Limited::new(body, PROBLEM_BYTES_MAX).collect().await {
        Ok(body) if is_problem => serde_json::from_slice::<wire::Problem>(&body.to_bytes()).ok(),
        Ok(_) | Err(_) => None,
    };
    let error = match parsed {
        Some(problem) => Error::from(problem),
        // Something between us and the node answered.
        None => {
            let code = match head.status {
                StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
                StatusCode::FORBIDDEN => ErrorCode::NotAllowed,
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                    ErrorCode::Unreachable
                }
                _ => ErrorCode::InvalidAnswer,
            };
            Error::new(code, format!("answered {} without a problem document", head.status))
        }
    };
    match retry_after {
        Some(after) => error.retry_after(after),
        None => error,
    }
}
