//! The node as a [`Database`].

use async_trait::async_trait;
use folkmoot_core::audit::AuditAction;
use folkmoot_core::id::{AuthorKey, CollectionName, DocId, PrincipalId};
use folkmoot_core::op::request_name;
use folkmoot_core::replica::{Replica, TxRef, WriteItem, WriteLimits, WriteOutcome as CoreOutcome, WriteRequest};
use futures_util::stream::BoxStream;
use tokio::sync::oneshot;

use super::asked::{Asked, request_id};
use super::audit::Who;
use super::convert::{Sent, status, write_error, write_item};
use super::core_thread::{Command, wall_ms};
use super::feed::all_fed;
use super::history::Rights;
use super::query::Sight;
use super::quota::Room;
use super::session::Pace;
use super::{Inner, Node, random};
use crate::api::{
    At, Atomicity, BulkOp, BulkOptions, Change, ChangesPage, ChangesQuery, CollectionInfo, CollectionSettings,
    Conflict, Database, Document, DuplicatesPage, DuplicatesQuery, Durability, DurabilityReached, Edit, Error,
    ErrorCode, Heads, IdempotencyKey, InvalidPage, InvalidQuery, Invite, InviteOptions, KeyRotation, KeysInfo,
    LinkRule, ListPage, ListPurpose, ListQuery, PeerInfo, QuarantinePage, QuarantineQuery, ReadOptions, Readiness,
    Result, ShardDigest, Status, Timestamp, Touched, VerifyReport, WriteOptions, WriteOutcome, poll_changes,
};

/// Whoever writes through the node, and how far at most beside what it may.
pub(super) type Writer = (PrincipalId, WriteLimits);

/// A write ready for the replica.
struct Prepared {
    item: WriteItem,
    sent: Sent,
    key: Option<IdempotencyKey>,
    /// What is asked for; of a write with a key only.
    asked: Option<Asked>,
}

pub(super) fn gone() -> Error {
    Error::new(ErrorCode::ShuttingDown, "the node is shutting down")
}

impl Inner {
    /// Makes a time-ordered id; with an idempotency key the same one at every try, on every node.
    fn new_id(&self, collection: &CollectionName, key: Option<&IdempotencyKey>) -> Result<DocId> {
        let bytes: [u8; 16] = match key {
            Some(key) => *request_name(collection, key.as_str()).as_bytes(),
            None => {
                let mut bytes: [u8; 16] =
                    random().map_err(|error| Error::new(ErrorCode::Internal, format!("make an id: {error}")))?;
                let time = wall_ms().to_be_bytes();
                for (to, from) in bytes.iter_mut().zip(time.iter().skip(2)) {
                    *to = *from;
                }
                bytes
            }
        };
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text.parse().map_err(|_| Error::new(ErrorCode::Internal, "make an id"))
    }

    async fn prepare(&self, collection: &CollectionName, op: BulkOp, room: &mut Room) -> Result<Prepared> {
        /// JSON beyond this is parsed on a thread for blocking calls.
        const INLINE_BYTES_MAX: usize = 64 << 10;
        let sent = Sent::of(&op.edit);
        let size = match &op.edit {
            Edit::Create { json, .. } | Edit::Put { json, .. } => json.len(),
            Edit::Patch { patch, .. } => patch.body.len(),
            Edit::Delete { .. } => 0,
        };
        let asked = op.idempotency_key.is_some().then(|| Asked::of(&op));
        let BulkOp { mut edit, precondition, merge_onto, idempotency_key: key } = op;
        if let Edit::Create { id: id @ None, .. } = &mut edit {
            *id = Some(self.new_id(collection, key.as_ref())?);
        }
        self.demand_room(collection, &edit, room)?;
        let missing = || Err(Error::new(ErrorCode::Internal, "an edit without an id"));
        let item = if size > INLINE_BYTES_MAX {
            tokio::task::spawn_blocking(move || write_item(edit, precondition, merge_onto, missing))
                .await
                .map_err(|error| Error::new(ErrorCode::Internal, "parse the edit").with_source(error))??
        } else {
            write_item(edit, precondition, merge_onto, missing)?
        };
        Ok(Prepared { item, sent, key, asked })
    }

    fn request(
        &self,
        writer: Option<Writer>,
        collection: &CollectionName,
        items: Vec<WriteItem>,
        key: Option<&IdempotencyKey>,
        asked: &[Asked],
    ) -> WriteRequest {
        let request = key.map(|key| request_id(collection, key, asked));
        let (principal, limits) = writer.map_or((None, WriteLimits::none()), |(id, limits)| (Some(id), limits));
        WriteRequest { collection: collection.clone(), principal, request, limits, items }
    }

    async fn outcome(
        &self,
        collection: &CollectionName,
        outcome: CoreOutcome,
        durability: Durability,
        pace: &mut Pace,
    ) -> Result<Vec<WriteOutcome>> {
        let reached = self.await_durability(collection, outcome.tx, durability, pace).await?;
        let modified = Timestamp::from_millis(outcome.hlc.millis());
        let items = outcome.items.into_iter().map(|item| WriteOutcome {
            id: item.doc,
            heads: Heads::new(item.heads),
            status: status(item.status),
            modified,
            durability: reached,
            session: None,
        });
        Ok(items.collect())
    }

    /// Waits until so many replicas hold a transaction durably, or the time is over.
    async fn await_durability(
        &self,
        collection: &CollectionName,
        tx: Option<TxRef>,
        durability: Durability,
        pace: &mut Pace,
    ) -> Result<DurabilityReached> {
        if durability == Durability::Local {
            return Ok(DurabilityReached::LOCAL);
        }
        let begun = tokio::time::Instant::now();
        pace.again();
        loop {
            let of = collection.clone();
            let look = move |replica: &Replica, _: &_| {
                let needed = match durability {
                    Durability::Local => 1,
                    Durability::Peers(n) => usize::from(n),
                    Durability::Majority => replica.replicas_of(&of) / 2 + 1,
                    Durability::All => replica.replicas_of(&of),
                };
                (tx.map_or(0, |tx| replica.acknowledged_by(&tx)) + 1, needed.max(1))
            };
            let (replicas, needed) = self.core.look(look).await.map_err(|_| gone())?;
            let is_reached = replicas >= needed;
            // What was there already is at least here; who else has it is not tracked any more.
            if is_reached || tx.is_none() || !pace.wait().await {
                metrics::histogram!("folkmoot_durability_wait_seconds").record(begun.elapsed().as_secs_f64());
                if !is_reached {
                    metrics::counter!("folkmoot_durability_not_reached_total").increment(1);
                }
                let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
                return Ok(DurabilityReached {
                    requested: durability,
                    replicas: count(replicas),
                    needed: count(needed),
                });
            }
        }
    }
}

#[async_trait]
impl Database for Node {
    async fn get(&self, collection: &CollectionName, id: &DocId, options: &ReadOptions) -> Result<Document> {
        match &options.at {
            None => self.get_for(None, collection, id, options).await,
            Some(at) => self.get_at_for(None, Rights::new(), (collection, id), (at, options)).await,
        }
    }

    async fn write(&self, collection: &CollectionName, edit: Edit, options: &WriteOptions) -> Result<WriteOutcome> {
        self.write_for(None, collection, edit, options).await
    }

    async fn bulk(
        &self,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>> {
        self.bulk_for(None, collection, edits, options).await
    }

    async fn list(&self, collection: &CollectionName, query: &ListQuery) -> Result<ListPage> {
        self.list_for(None, Sight::everything(), collection, query).await
    }

    async fn conflicts(&self, collection: &CollectionName, id: &DocId) -> Result<Vec<Conflict>> {
        self.conflicts_for(None, collection, id).await
    }

    async fn invalid(&self, collection: &CollectionName, query: &InvalidQuery) -> Result<InvalidPage> {
        self.inner.invalid_documents(None, Sight::everything(), collection, query).await
    }

    async fn duplicates(&self, collection: &CollectionName, query: &DuplicatesQuery) -> Result<DuplicatesPage> {
        self.inner.duplicate_documents(None, Sight::everything(), collection, query).await
    }

    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        self.inner.collections().await
    }

    async fn collection(&self, name: &CollectionName) -> Result<CollectionInfo> {
        self.inner.collection(name).await
    }

    async fn configure(&self, name: &CollectionName, settings: CollectionSettings) -> Result<CollectionInfo> {
        self.inner.configure(None, name, &settings, false).await?;
        self.inner.collection(name).await
    }

    async fn drop_collection(&self, name: &CollectionName) -> Result<()> {
        let info = self.inner.collection(name).await?;
        self.inner.configure(None, name, &info.settings, true).await
    }

    async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage> {
        let page = self.changes_page(query, &all_fed()).await?;
        self.inner.note_changes(None, query, &page);
        Ok(page)
    }

    fn subscribe(&self, query: ChangesQuery) -> BoxStream<'static, Result<Change>> {
        poll_changes(self.clone(), query)
    }

    async fn status(&self) -> Result<Status> {
        self.inner.status().await
    }

    async fn readiness(&self) -> Result<Readiness> {
        self.inner.readiness().await
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>> {
        self.inner.peers().await
    }

    async fn set_link(&self, peer: &AuthorKey, rule: LinkRule) -> Result<()> {
        let set = self.inner.set_link(peer, rule).await;
        self.inner.note_link(None, peer, rule, &set);
        set
    }

    async fn digests(&self) -> Result<Vec<ShardDigest>> {
        self.inner.digests().await
    }

    async fn quarantine(&self, query: &QuarantineQuery) -> Result<QuarantinePage> {
        self.inner.quarantine(query).await
    }

    async fn verify(&self) -> Result<VerifyReport> {
        self.inner.verify(None).await
    }

    async fn keys(&self) -> Result<KeysInfo> {
        self.inner.keys().await
    }

    async fn rotate_keys(&self, which: KeyRotation) -> Result<KeysInfo> {
        self.inner.rotate_keys(which).await
    }

    async fn invite(&self, options: &InviteOptions) -> Result<Invite> {
        let made = self.inner.invite(options).await;
        self.inner.note_invite(None, options, &made);
        made
    }
}

impl Node {
    /// Reads a document for somebody; for the owner if nobody is named.
    pub(super) async fn get_for(
        &self,
        who: Option<Who>,
        collection: &CollectionName,
        id: &DocId,
        options: &ReadOptions,
    ) -> Result<Document> {
        let inner = &self.inner;
        let (touched, session) = (Touched::document(collection, id), options.session.as_ref());
        inner.catch_up(&touched, session, options.timeout).await?;
        let view = inner.view(collection, id)?;
        let feed = view.feed;
        let document = Inner::document(collection, view);
        inner.note_read(who, AuditAction::Read, collection, [id], String::new);
        let session = inner.session_after(&touched, session, feed).await?;
        Ok(Document { session: Some(session), ..document })
    }

    /// Reads a document as it was, for somebody with these rights; for the owner if nobody is named.
    pub(super) async fn get_at_for(
        &self,
        who: Option<Who>,
        rights: Rights,
        (collection, id): (&CollectionName, &DocId),
        (at, options): (&At, &ReadOptions),
    ) -> Result<Document> {
        let inner = &self.inner;
        let (touched, session) = (Touched::document(collection, id), options.session.as_ref());
        inner.catch_up(&touched, session, options.timeout).await?;
        let document = inner.get_at(who, rights, (collection, id), at).await?;
        let session = inner.session_now(&touched, session).await?;
        Ok(Document { session: Some(session), ..document })
    }

    /// Lists documents for somebody; for the owner if nobody is named.
    pub(super) async fn list_for(
        &self,
        who: Option<Who>,
        sight: Sight,
        collection: &CollectionName,
        query: &ListQuery,
    ) -> Result<ListPage> {
        self.inner.catch_up(&Touched::collection(collection), query.session.as_ref(), None).await?;
        let page = match query.at {
            None => self.inner.list(collection, query).await?,
            Some(at) => self.inner.list_at(sight, collection, query, at).await?,
        };
        let shape = || query.prefix.as_ref().map(|prefix| format!("prefix {prefix}")).unwrap_or_default();
        if query.purpose == ListPurpose::Export {
            self.inner.note_export(who, Some(collection), shape());
            return Ok(page);
        }
        self.inner.note_read(who, AuditAction::List, collection, page.items.iter().map(|item| &item.id), shape);
        Ok(page)
    }

    /// Tells the conflicts of a document to somebody; to the owner if nobody is named.
    pub(super) async fn conflicts_for(
        &self,
        who: Option<Who>,
        collection: &CollectionName,
        id: &DocId,
    ) -> Result<Vec<Conflict>> {
        let conflicts = self.inner.conflicts(collection, id).await?;
        self.inner.note_read(who, AuditAction::History, collection, [id], String::new);
        Ok(conflicts)
    }

    /// Makes an edit for a principal; for the node's own if none is given.
    pub(super) async fn write_for(
        &self,
        writer: Option<Writer>,
        collection: &CollectionName,
        edit: Edit,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        let inner = &self.inner;
        // What is written follows what the session has seen: of this document, or of all where the id is still to be made.
        let touched = edit.id().map_or_else(|| Touched::collection(collection), |id| Touched::document(collection, id));
        inner.catch_up(&touched, options.session.as_ref(), options.timeout).await?;
        let op = BulkOp {
            edit,
            precondition: options.precondition.clone(),
            merge_onto: options.merge_onto.clone(),
            idempotency_key: options.idempotency_key.clone(),
        };
        let mut room = Room::of(writer.as_ref().map(|(principal, _)| *principal));
        let Prepared { item, sent, key, asked } = inner.prepare(collection, op, &mut room).await?;
        let request = inner.request(writer.clone(), collection, vec![item], key.as_ref(), asked.as_slice());
        let (reply, answer) = oneshot::channel();
        inner.core.send(Command::Write(request, reply)).await.map_err(|_| gone())?;
        let outcome = answer.await.map_err(|_| gone())?.map_err(|error| write_error(error, sent))?;
        let mut pace = Pace::new(options.timeout);
        let outcomes = inner.outcome(collection, outcome, options.durability, &mut pace).await?;
        let missing = || Error::new(ErrorCode::Internal, "a write without an outcome");
        let outcome = outcomes.into_iter().next().ok_or_else(missing)?;
        let touched = Touched::document(collection, &outcome.id);
        let session = inner.session_after(&touched, options.session.as_ref(), 0).await?;
        Ok(WriteOutcome { session: Some(session), ..outcome })
    }

    /// Makes edits for a principal; for the node's own if none is given.
    pub(super) async fn bulk_for(
        &self,
        writer: Option<Writer>,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>> {
        if edits.len() > BulkOptions::EDITS_MAX {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                format!("{} edits in one call, at most {} are allowed", edits.len(), BulkOptions::EDITS_MAX),
            ));
        }
        let (touched, session) = (Touched::collection(collection), options.session.as_ref());
        self.inner.catch_up(&touched, session, options.timeout).await?;
        let mut outcomes = match options.atomicity {
            Atomicity::Each => self.bulk_each(writer, collection, edits, options).await?,
            Atomicity::AllOrNothing => self.bulk_atomic(writer, collection, edits, options).await?,
        };
        let session = self.inner.session_after(&touched, session, 0).await?;
        for outcome in outcomes.iter_mut().flatten() {
            outcome.session = Some(session.clone());
        }
        Ok(outcomes)
    }

    async fn bulk_each(
        &self,
        writer: Option<Writer>,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>> {
        let inner = &self.inner;
        let mut results: Vec<Option<Result<WriteOutcome>>> = Vec::with_capacity(edits.len());
        let mut requests = Vec::new();
        let mut places = Vec::new();
        let mut room = Room::of(writer.as_ref().map(|(principal, _)| *principal));
        for (index, op) in edits.into_iter().enumerate() {
            match inner.prepare(collection, op, &mut room).await {
                Ok(Prepared { item, sent, key, asked }) => {
                    requests.push(inner.request(
                        writer.clone(),
                        collection,
                        vec![item],
                        key.as_ref(),
                        asked.as_slice(),
                    ));
                    places.push((index, sent));
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        let (reply, answer) = oneshot::channel();
        inner.core.send(Command::WriteMany(requests, reply)).await.map_err(|_| gone())?;
        let answers = answer.await.map_err(|_| gone())?;
        // Within the time of one: what is waited for longest for the first has come for the others.
        let mut pace = Pace::new(options.timeout);
        for ((index, sent), answer) in places.into_iter().zip(answers) {
            let result = match answer {
                Ok(outcome) => inner
                    .outcome(collection, outcome, options.durability, &mut pace)
                    .await
                    .and_then(|list| list.into_iter().next().ok_or_else(gone)),
                Err(error) => Err(write_error(error, sent)),
            };
            if let Some(slot) = results.get_mut(index) {
                *slot = Some(result);
            }
        }
        Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(gone()))).collect())
    }

    async fn bulk_atomic(
        &self,
        writer: Option<Writer>,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>> {
        let inner = &self.inner;
        if edits.len() > BulkOptions::ATOMIC_EDITS_MAX {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                format!(
                    "{} edits in one atomic batch, at most {} are allowed",
                    edits.len(),
                    BulkOptions::ATOMIC_EDITS_MAX
                ),
            ));
        }
        if edits.is_empty() {
            return Ok(Vec::new());
        }
        let mut items = Vec::with_capacity(edits.len());
        // One transaction is one request: the first key stands for all, and the ids made for the others follow from it.
        let request_key = edits.iter().find_map(|edit| edit.idempotency_key.clone());
        let mut all_asked = Vec::new();
        let mut sent = Sent::default();
        let mut room = Room::of(writer.as_ref().map(|(principal, _)| *principal));
        for (index, mut op) in edits.into_iter().enumerate() {
            if let (None, Some(key)) = (&op.idempotency_key, &request_key) {
                op.idempotency_key = Some(key.line(index as u64 + 1)?);
            }
            let prepared = inner.prepare(collection, op, &mut room).await.map_err(|error| {
                // What does not fit is no fault of the batch's.
                if matches!(error.code(), ErrorCode::QuotaExceeded | ErrorCode::TooManyRequests) {
                    return error;
                }
                Error::new(ErrorCode::AtomicFailed, format!("edit {index}: {}", error.detail()))
                    .pointer(error.json_pointer().unwrap_or_default().to_owned())
            })?;
            sent.creates |= prepared.sent.creates;
            sent.whole |= prepared.sent.whole;
            all_asked.extend(prepared.asked);
            items.push(prepared.item);
        }
        let request = inner.request(writer, collection, items, request_key.as_ref(), &all_asked);
        let (reply, answer) = oneshot::channel();
        inner.core.send(Command::Write(request, reply)).await.map_err(|_| gone())?;
        let outcome = answer.await.map_err(|_| gone())?.map_err(|error| {
            let error = write_error(error, sent);
            let failed = Error::new(ErrorCode::AtomicFailed, error.detail().to_owned())
                .hint("nothing of the batch was written")
                .heads(error.current_heads().cloned());
            let failed = match error.found_violations() {
                Some(found) => failed.violations(found.clone()),
                None => failed,
            };
            match error.already_taken() {
                Some(taken) => failed.taken(taken.clone()),
                None => failed,
            }
        })?;
        let mut pace = Pace::new(options.timeout);
        let outcomes = inner.outcome(collection, outcome, options.durability, &mut pace).await?;
        Ok(outcomes.into_iter().map(Ok).collect())
    }
}
