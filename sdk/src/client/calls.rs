//! [`Database`] in terms of HTTP calls.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, CollectionName, DocId};
use futures_util::stream::BoxStream;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::transport::{Answer, Call};
use super::{Client, events};
use crate::api::{
    Atomicity, BulkOp, BulkOptions, Change, ChangeContent, ChangesPage, ChangesQuery, CollectionInfo,
    CollectionSettings, Conflict, Database, Document, DuplicatesPage, DuplicatesQuery, Durability, Edit, Error,
    ErrorCode, Heads, IdempotencyKey, InvalidPage, InvalidQuery, Invite, InviteOptions, KeyRotation, KeysInfo,
    LinkRule, ListPage, ListPurpose, ListQuery, PeerInfo, Precondition, QuarantinePage, QuarantineQuery, ReadOptions,
    Readiness, Result, SessionToken, ShardDigest, Since, Status, VerifyReport, WriteOptions, WriteOutcome,
};
use crate::wire;

/// What may stand in a path segment or query value as it is (RFC 3986 unreserved).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// A full check reads everything that the node holds.
pub(super) const VERIFY_WAIT: Duration = Duration::from_secs(24 * 3_600);
/// A node waits this long for durability when the caller does not say; the answer comes a little later.
const DURABILITY_WAIT: Duration = Duration::from_secs(30);

pub(super) fn quoted(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

pub(super) fn collection_path(name: &CollectionName) -> String {
    format!("/v1/collections/{}", quoted(name.as_str()))
}

pub(super) fn document_path(collection: &CollectionName, id: &DocId) -> String {
    format!("{}/docs/{}", collection_path(collection), quoted(id.as_str()))
}

/// Builds a query string.
pub(super) struct Query(pub(super) String);

impl Query {
    pub(super) fn new(path: String) -> Self {
        Self(path)
    }

    pub(super) fn add(mut self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&quoted(&value.to_string()));
        }
        self
    }
}

fn session_of(answer: &Answer) -> Option<SessionToken> {
    SessionToken::new(answer.header(wire::SESSION)?).ok()
}

/// A key that no other write has.
fn fresh_key() -> Result<IdempotencyKey> {
    let (a, b) = getrandom::u64()
        .and_then(|a| Ok((a, getrandom::u64()?)))
        .map_err(|e| Error::new(ErrorCode::Internal, format!("the system gives no randomness: {e}")))?;
    IdempotencyKey::new(format!("{a:016x}{b:016x}"))
}

pub(super) fn with_common(
    mut call: Call,
    session: Option<&SessionToken>,
    durability: Durability,
    timeout: Option<Duration>,
) -> Result<Call> {
    if let Some(session) = session {
        call = call.header(wire::SESSION, session.as_str())?;
    }
    if durability != Durability::Local {
        call = call.header(wire::DURABILITY, durability.to_string())?;
        call.wait = timeout.unwrap_or(DURABILITY_WAIT);
    }
    if let Some(timeout) = timeout {
        call.wait = timeout;
        call = call.header(wire::TIMEOUT, format!("{}ms", timeout.as_millis()))?;
    }
    Ok(call)
}

fn etags(heads: &[Heads]) -> String {
    heads.iter().map(Heads::etag).collect::<Vec<_>>().join(", ")
}

fn bulk_line(op: BulkOp) -> Result<wire::BulkLine> {
    let raw = |json: Bytes| {
        let text = std::str::from_utf8(&json).map_err(|e| Error::new(ErrorCode::InvalidJson, e.to_string()))?;
        serde_json::from_str::<Box<serde_json::value::RawValue>>(text)
            .map_err(|e| Error::new(ErrorCode::InvalidJson, e.to_string()))
    };
    let mut line = wire::BulkLine {
        op: wire::BulkVerb::Delete,
        id: None,
        doc: None,
        patch: None,
        kind: None,
        if_match: None,
        if_none_match: None,
        base: op.merge_onto,
        key: Some(match op.idempotency_key {
            Some(key) => key.as_str().to_owned(),
            None => fresh_key()?.as_str().to_owned(),
        }),
    };
    match op.edit {
        Edit::Create { id, json } => {
            line.op = wire::BulkVerb::Create;
            line.id = id;
            line.doc = Some(raw(json)?);
        }
        Edit::Put { id, json } => {
            line.op = wire::BulkVerb::Put;
            line.id = Some(id);
            line.doc = Some(raw(json)?);
        }
        Edit::Patch { id, patch } => {
            line.op = wire::BulkVerb::Patch;
            line.id = Some(id);
            line.kind = Some(patch.kind.name().to_owned());
            line.patch = Some(raw(patch.body)?);
        }
        Edit::Delete { id } => line.id = Some(id),
    }
    let one = |heads: Vec<Heads>| match <[Heads; 1]>::try_from(heads) {
        Ok([heads]) => Ok(heads.to_string()),
        Err(_) => Err(Error::new(ErrorCode::NotSupported, "a bulk edit's precondition can name one version only")),
    };
    match op.precondition {
        Precondition::None => {}
        Precondition::Exists => line.if_match = Some("*".to_owned()),
        Precondition::Absent => line.if_none_match = Some("*".to_owned()),
        Precondition::HeadsAre(heads) => line.if_match = Some(one(heads)?),
        Precondition::HeadsAreNot(heads) => line.if_none_match = Some(one(heads)?),
    }
    Ok(line)
}

/// How a feed is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    /// A page, at once or when there is something.
    Page,
    /// Server-sent events.
    Events,
}

pub(super) fn feed_path(query: &ChangesQuery, feed: Feed) -> String {
    let path = match &query.collection {
        Some(collection) => format!("{}/changes", collection_path(collection)),
        None => "/v1/changes".to_owned(),
    };
    let since = match &query.since {
        Since::Beginning => None,
        Since::Now => Some("now"),
        Since::After(token) => Some(token.as_str()),
    };
    let docs = match query.content {
        ChangeContent::Names => None,
        ChangeContent::Documents => Some("true"),
    };
    let (feed, wait) = match feed {
        Feed::Events => (Some("sse"), None),
        Feed::Page if query.wait.is_zero() => (None, None),
        Feed::Page => (Some("longpoll"), Some(format!("{}ms", query.wait.as_millis()))),
    };
    Query::new(path)
        .add("since", since)
        .add("prefix", query.prefix.as_deref())
        .add("selector", (!query.selector.is_null()).then_some(&query.selector))
        .add("limit", query.limit)
        .add("docs", docs)
        .add("feed", feed)
        .add("wait", wait)
        .0
}

impl Client {
    /// Sends a write with its options.
    pub(super) async fn send_write(&self, call: Call, options: &WriteOptions) -> Result<WriteOutcome> {
        let mut call = with_common(call, options.session.as_ref(), options.durability, options.timeout)?;
        call = match &options.precondition {
            Precondition::None => call,
            Precondition::Exists => call.header("if-match", "*")?,
            Precondition::Absent => call.header("if-none-match", "*")?,
            Precondition::HeadsAre(heads) => call.header("if-match", etags(heads))?,
            Precondition::HeadsAreNot(heads) => call.header("if-none-match", etags(heads))?,
        };
        if let Some(base) = &options.merge_onto {
            call = call.header(wire::BASE, base.etag())?;
        }
        let key = match &options.idempotency_key {
            Some(key) => key.clone(),
            None => fresh_key()?,
        };
        call = call.header(wire::IDEMPOTENCY_KEY, key.as_str())?;
        let answer = self.transport.send(&call).await?;
        let written: wire::Written = answer.json()?;
        Ok(WriteOutcome { session: session_of(&answer), ..written.into() })
    }
}

#[async_trait]
impl Database for Client {
    async fn get(&self, collection: &CollectionName, id: &DocId, options: &ReadOptions) -> Result<Document> {
        let path = Query::new(format!("{}?meta=true", document_path(collection, id))).add("at", options.at.as_ref()).0;
        let call =
            with_common(Call::new(Method::GET, path), options.session.as_ref(), Durability::Local, options.timeout)?;
        let answer = self.transport.send(&call).await?;
        let listed: wire::ListedDocument = answer.json()?;
        Ok(Document { session: session_of(&answer), ..listed.into_document(collection.clone()) })
    }

    async fn write(&self, collection: &CollectionName, edit: Edit, options: &WriteOptions) -> Result<WriteOutcome> {
        let (method, path, body, content_type) = match edit {
            // A create with an id is a put of what must not exist.
            Edit::Create { id: Some(id), json } if options.precondition == Precondition::None => {
                let path = format!("{}?create=true", document_path(collection, &id));
                (Method::PUT, path, json, "application/json")
            }
            Edit::Create { id: Some(_), .. } => {
                return Err(Error::new(ErrorCode::NotSupported, "a create has no precondition but its own"));
            }
            Edit::Create { id: None, json } => {
                (Method::POST, format!("{}/docs", collection_path(collection)), json, "application/json")
            }
            Edit::Put { id, json } => (Method::PUT, document_path(collection, &id), json, "application/json"),
            Edit::Patch { id, patch } => {
                (Method::PATCH, document_path(collection, &id), patch.body, patch.kind.media_type())
            }
            Edit::Delete { id } => (Method::DELETE, document_path(collection, &id), Bytes::new(), ""),
        };
        let mut call = Call::new(method, path);
        call.body = body;
        if !content_type.is_empty() {
            call = call.header("content-type", content_type)?;
        }
        self.send_write(call, options).await
    }

    async fn bulk(
        &self,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>> {
        let count = edits.len();
        let mut body = Vec::new();
        for edit in edits {
            let line = bulk_line(edit)?;
            let start = body.len();
            serde_json::to_writer(&mut body, &line)
                .map_err(|e| Error::new(ErrorCode::InvalidJson, format!("an edit cannot be written as JSON: {e}")))?;
            // A document's own text may be spread over lines; outside strings JSON has no line breaks that matter.
            body.iter_mut().skip(start).filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
            body.push(b'\n');
        }
        let atomic = match options.atomicity {
            Atomicity::Each => None,
            Atomicity::AllOrNothing => Some("true"),
        };
        let path = Query::new(format!("{}/bulk", collection_path(collection))).add("atomic", atomic).0;
        let call = Call::new(Method::POST, path).header("content-type", wire::NDJSON)?;
        let mut call = with_common(call, options.session.as_ref(), options.durability, options.timeout)?;
        call.body = body.into();
        let answer = self.transport.send(&call).await?;
        let session = session_of(&answer);
        let mut results = Vec::with_capacity(count);
        for line in answer.body.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let result: wire::BulkResult = serde_json::from_slice(line)
                .map_err(|e| Error::new(ErrorCode::InvalidAnswer, format!("a line of the answer is malformed: {e}")))?;
            results.push(match (result.ok, result.error) {
                (Some(written), _) => Ok(WriteOutcome { session: session.clone(), ..written.into() }),
                (None, Some(problem)) => Err(problem.into()),
                (None, None) => Err(Error::new(ErrorCode::InvalidAnswer, "a line of the answer says nothing")),
            });
        }
        if results.len() == count {
            return Ok(results);
        }
        match results.pop() {
            // The last line tells why the node stopped.
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Err(Error::new(
                ErrorCode::UnknownOutcome,
                format!("the answer has {} lines for {count} edits", results.len()),
            )),
        }
    }

    async fn list(&self, collection: &CollectionName, query: &ListQuery) -> Result<ListPage> {
        let path = Query::new(format!("{}/docs", collection_path(collection)))
            .add("prefix", query.prefix.as_deref())
            .add("after", query.after.as_ref())
            .add("limit", query.limit)
            .add("at", query.at)
            .add("purpose", (query.purpose == ListPurpose::Export).then_some("export"))
            .0;
        let call = with_common(Call::new(Method::GET, path), query.session.as_ref(), Durability::Local, None)?;
        let listed: wire::Listed = self.transport.send(&call).await?.json()?;
        let items = listed.items.into_iter().map(|item| item.into_document(collection.clone())).collect();
        Ok(ListPage { items, next: listed.next })
    }

    async fn conflicts(&self, collection: &CollectionName, id: &DocId) -> Result<Vec<Conflict>> {
        self.items(format!("{}/conflicts", document_path(collection, id))).await
    }

    async fn invalid(&self, collection: &CollectionName, query: &InvalidQuery) -> Result<InvalidPage> {
        let path = Query::new(format!("{}/invalid", collection_path(collection)))
            .add("after", query.after.as_ref())
            .add("limit", query.limit);
        self.fetch(path.0).await
    }

    async fn duplicates(&self, collection: &CollectionName, query: &DuplicatesQuery) -> Result<DuplicatesPage> {
        let path = Query::new(format!("{}/duplicates", collection_path(collection)))
            .add("after", query.after.as_ref())
            .add("limit", query.limit);
        self.fetch(path.0).await
    }

    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        self.items("/v1/collections".to_owned()).await
    }

    async fn collection(&self, name: &CollectionName) -> Result<CollectionInfo> {
        self.fetch(collection_path(name)).await
    }

    async fn configure(&self, name: &CollectionName, settings: CollectionSettings) -> Result<CollectionInfo> {
        let call = Call::new(Method::PUT, collection_path(name)).json(&settings)?;
        self.transport.send(&call).await?.json()
    }

    async fn drop_collection(&self, name: &CollectionName) -> Result<()> {
        self.transport.send(&Call::new(Method::DELETE, collection_path(name))).await?;
        Ok(())
    }

    async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage> {
        let mut call = Call::new(Method::GET, feed_path(query, Feed::Page));
        call.wait = query.wait;
        let listed: wire::ListedChanges = self.transport.send(&call).await?.json()?;
        let items = listed.items.into_iter().map(Change::from).collect();
        Ok(ChangesPage { items, next: listed.next, more: listed.more })
    }

    fn subscribe(&self, query: ChangesQuery) -> BoxStream<'static, Result<Change>> {
        events::subscribe(self.clone(), query)
    }

    async fn status(&self) -> Result<Status> {
        self.fetch("/v1/status".to_owned()).await
    }

    async fn readiness(&self) -> Result<Readiness> {
        Ok(self.status().await?.readiness)
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>> {
        self.items("/v1/peers".to_owned()).await
    }

    async fn set_link(&self, peer: &AuthorKey, rule: LinkRule) -> Result<()> {
        let call = Call::new(Method::PATCH, format!("/v1/peers/{peer}")).json(&wire::LinkRequest { link: rule })?;
        self.transport.send(&call).await?;
        Ok(())
    }

    async fn digests(&self) -> Result<Vec<ShardDigest>> {
        self.items("/v1/digests".to_owned()).await
    }

    async fn quarantine(&self, query: &QuarantineQuery) -> Result<QuarantinePage> {
        let path =
            Query::new("/v1/quarantine".to_owned()).add("after", query.after.as_ref()).add("limit", query.limit).0;
        self.fetch(path).await
    }

    async fn verify(&self) -> Result<VerifyReport> {
        let mut call = Call::new(Method::POST, "/v1/verify".to_owned());
        call.wait = VERIFY_WAIT;
        self.transport.send(&call).await?.json()
    }

    async fn keys(&self) -> Result<KeysInfo> {
        self.transport.send(&Call::new(Method::GET, "/v1/keys".to_owned())).await?.json()
    }

    async fn rotate_keys(&self, which: KeyRotation) -> Result<KeysInfo> {
        let call = Call::new(Method::POST, "/v1/keys".to_owned()).json(&wire::RotateKeys { rotate: which })?;
        self.transport.send(&call).await?.json()
    }

    async fn invite(&self, options: &InviteOptions) -> Result<Invite> {
        let request = wire::InviteRequest {
            expires: Some(humantime::format_duration(options.expires).to_string()),
            uses: Some(options.uses),
            role: Some(options.role.clone()),
            device_of: options.device_of.as_ref().map(ToString::to_string),
        };
        let call = Call::new(Method::POST, "/v1/invites".to_owned()).json(&request)?;
        self.transport.send(&call).await?.json()
    }
}

impl Client {
    pub(super) async fn fetch<T: serde::de::DeserializeOwned>(&self, path: String) -> Result<T> {
        self.transport.send(&Call::new(Method::GET, path)).await?.json()
    }

    pub(super) async fn items<T: serde::de::DeserializeOwned>(&self, path: String) -> Result<Vec<T>> {
        Ok(self.fetch::<wire::Items<T>>(path).await?.items)
    }
}
