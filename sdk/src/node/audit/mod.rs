//! The node's audit log: what happens here is recorded, folded, signed, shown to peers, and found again.
//!
//! Whoever records something leaves it in a bounded place and goes on ([`Recorder`]). A thread of its own ([`keeper`]) takes it from
//! there some times a second, appends it to the log and has it committed by the committer, as everything else.

mod keeper;
mod origin;
mod search;
mod why;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::audit::fold::Folding;
use folkmoot_core::audit::{AuditAction, AuditDecision, AuditMethod, Checked, Event, Log, LogError, Rights};
use folkmoot_core::id::{AuthorKey, CollectionName, DocId, OpId, PrincipalId};
use folkmoot_core::limits::AUDIT_DOCUMENTS_MAX;
use tokio::sync::{oneshot, watch};

pub use origin::Origin;

use super::convert::read_error;
use super::core_thread::Clock;
use super::{Inner, KeySettings, Node, OpenError, lock};
use crate::api::{
    Audit, AuditPage, AuditQuery, AuditStatus, AuditSubject, AuditVerifyReport, ChangeContent, ChangesPage,
    ChangesQuery, Error, ErrorCode, Explanation, Invite, InviteOptions, LinkRule, Result, Since, Timestamp,
};

pub(super) use keeper::Keeper;
pub(super) use search::act_event;
pub(super) use why::says;

/// Messages that may wait for the keeper.
const MESSAGES_MAX: usize = 256;
/// How long a node that stops waits for its last records: a disk may never answer.
const STOP_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// Tokens and addresses that are known to have been seen together.
const SEEN_MAX: usize = 8_192;

/// What the keeper is asked.
pub(super) enum Message {
    /// A peer says something about logs.
    Frame(AuthorKey, Bytes),
    /// Write what has happened, and tell when it is on the disk.
    Flush(oneshot::Sender<()>),
    /// The same, and sign it.
    Sign(oneshot::Sender<()>),
    /// The same, with what is still being folded, and end.
    Stop(oneshot::Sender<()>),
}

/// How the log stands, as the keeper last told.
#[derive(Clone, Default)]
pub(super) struct Standing {
    pub(super) log: Option<Log>,
    pub(super) checkpoint: Option<folkmoot_core::audit::note::Note>,
}

/// Where events are left.
pub(super) struct Recorder {
    folding: Mutex<Folding>,
    clock: Clock,
    /// Collections whose reads are recorded.
    marked: watch::Sender<Arc<BTreeSet<CollectionName>>>,
    seen: Mutex<BTreeSet<(OpId, IpAddr)>>,
    messages: SyncSender<Message>,
    pub(super) standing: Mutex<Standing>,
    /// Counts commits of records, for whoever waits for more.
    written: watch::Sender<u64>,
}

impl Recorder {
    /// Returns a recorder and what its keeper takes messages from.
    pub(super) fn new(clock: Clock) -> (Self, std::sync::mpsc::Receiver<Message>) {
        let (messages, taken) = std::sync::mpsc::sync_channel(MESSAGES_MAX);
        let recorder = Self {
            folding: Mutex::default(),
            clock,
            marked: watch::Sender::new(Arc::default()),
            seen: Mutex::default(),
            messages,
            standing: Mutex::default(),
            written: watch::Sender::new(0),
        };
        (recorder, taken)
    }

    /// Records an event. Where the request came from is added, if it is known and not said. Never blocks.
    pub(super) fn record(&self, mut event: Event) {
        Origin::complete(&mut event);
        let action = event.action.name();
        metrics::counter!("folkmoot_audit_events_total", "action" => action, "decision" => event.decision.name())
            .increment(1);
        let now = self.clock.now();
        lock(&self.folding).push(event, now.monotonic_ms, now.wall_ms);
    }

    /// Records that a token came from an address, the first time since the start.
    pub(super) fn token_used(&self, principal: PrincipalId, token: OpId, method: AuditMethod) {
        let Some(source) = Origin::source() else { return };
        {
            let mut seen = lock(&self.seen);
            if seen.contains(&(token, source)) {
                return;
            }
            if seen.len() >= SEEN_MAX {
                // The price is records of what was seen before.
                seen.clear();
            }
            seen.insert((token, source));
        }
        self.record(Event::new(AuditAction::TokenUsed, AuditDecision::Allowed).by(
            Some(principal),
            method,
            Some(token),
        ));
    }

    /// Returns whether reads of a collection are to be recorded.
    pub(super) fn is_marked(&self, collection: &CollectionName) -> bool {
        self.marked.borrow().contains(collection)
    }

    /// Says whose reads are to be recorded.
    pub(super) fn mark(&self, marked: BTreeSet<CollectionName>) {
        self.marked.send_if_modified(|now| {
            let moved = **now != marked;
            *now = Arc::new(marked);
            moved
        });
    }

    /// Hands a message of a peer to the keeper; drops it if there are too many.
    pub(super) fn frame(&self, peer: AuthorKey, bytes: Bytes) {
        if self.messages.try_send(Message::Frame(peer, bytes)).is_err() {
            metrics::counter!("folkmoot_audit_messages_dropped_total").increment(1);
        }
    }

    /// Writes what has happened; returns when it is on the disk.
    pub(super) async fn flush(&self) -> Result<()> {
        self.ask(Message::Flush).await
    }

    /// Writes what has happened and signs it, if this node may sign by now.
    async fn sign(&self) -> Result<()> {
        self.ask(Message::Sign).await
    }

    async fn ask(&self, message: impl FnOnce(oneshot::Sender<()>) -> Message) -> Result<()> {
        let (reply, done) = oneshot::channel();
        self.messages.try_send(message(reply)).map_err(|error| match error {
            TrySendError::Full(_) => Error::new(ErrorCode::Busy, "too many wait for the audit log"),
            TrySendError::Disconnected(_) => Error::new(ErrorCode::ShuttingDown, "the node is shutting down"),
        })?;
        done.await.map_err(|_| Error::new(ErrorCode::ShuttingDown, "the node is shutting down"))
    }

    /// Writes all there is and ends the keeper.
    pub(super) async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        let mut message = Message::Stop(reply);
        let stopped = async {
            // The keeper takes messages several times a second.
            while let Err(TrySendError::Full(back)) = self.messages.try_send(message) {
                message = back;
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            // An error means that it has ended already.
            let _ = done.await;
        };
        if tokio::time::timeout(STOP_TIME_MAX, stopped).await.is_err() {
            tracing::warn!("the last audit records could not be written in time");
        }
    }

    pub(super) fn take(&self, all: bool) -> Vec<folkmoot_core::audit::Record> {
        lock(&self.folding).take(self.clock.now().monotonic_ms, all)
    }

    pub(super) fn figures(&self) -> (u64, [folkmoot_core::figure::Figure; 2]) {
        let folding = lock(&self.folding);
        (folding.lost(), folding.figures())
    }

    pub(super) fn tell_written(&self) {
        self.written.send_modify(|count| *count += 1);
    }

    pub(super) fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }
}

/// Who reads or tries something, and how that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) principal: PrincipalId,
    pub(super) method: AuditMethod,
    pub(super) credential: Option<OpId>,
}

impl Inner {
    /// Records an event of the node's own.
    pub(super) fn note(&self, event: Event) {
        self.audit.record(event);
    }

    /// Records something done at the request of somebody, or with the owner's token, and how it ended.
    pub(super) fn note_done<T>(&self, asker: Option<PrincipalId>, event: Event, result: &Result<T>) {
        let mut event = event;
        match asker {
            Some(asker) => event.principal = Some(asker),
            None => event.principal = Some(self.record.principal),
        }
        event.method = match (asker, Origin::source()) {
            (Some(_), _) => AuditMethod::Token,
            (None, Some(_)) => AuditMethod::OwnerToken,
            (None, None) => AuditMethod::Node,
        };
        if let Err(error) = result {
            if let Some(awaited) = error.awaited() {
                // It was signed: whether it will count is for others to say.
                event.statements.push(awaited.op);
                event.reason = error.detail().to_owned();
                return self.note(event);
            }
            event.decision =
                if error.code() == ErrorCode::NotAllowed { AuditDecision::Denied } else { AuditDecision::Failed };
            event.reason = error.detail().to_owned();
        }
        self.note(event);
    }

    /// Records that a ticket was made.
    pub(super) fn note_invite(&self, asker: Option<PrincipalId>, options: &InviteOptions, made: &Result<Invite>) {
        let what = format!("role {}, {} uses, {} s", options.role, options.uses, options.expires.as_secs());
        self.note_done(asker, Event::new(AuditAction::Invite, AuditDecision::Allowed).about(what), made);
    }

    /// Records that a link was blocked or opened.
    pub(super) fn note_link(&self, asker: Option<PrincipalId>, peer: &AuthorKey, rule: LinkRule, set: &Result<()>) {
        let what = if rule == LinkRule::Blocked { format!("block {peer}") } else { format!("open {peer}") };
        self.note_done(asker, Event::new(AuditAction::SetLink, AuditDecision::Allowed).about(what), set);
    }

    /// Returns the owner of the directory, or the app that embeds the node.
    fn owner(&self) -> Who {
        let method = if Origin::source().is_some() { AuditMethod::OwnerToken } else { AuditMethod::Node };
        Who { principal: self.record.principal, method, credential: None }
    }

    /// Records a read where reads are to be known: which documents, or the shape of what was asked; never what is in them.
    pub(super) fn note_read<'a>(
        &self,
        who: Option<Who>,
        action: AuditAction,
        collection: &CollectionName,
        documents: impl IntoIterator<Item = &'a DocId>,
        shape: impl FnOnce() -> String,
    ) {
        if !self.audit.is_marked(collection) {
            return;
        }
        let Who { principal, method, credential } = who.unwrap_or_else(|| self.owner());
        let mut event = Event::new(action, AuditDecision::Allowed)
            .by(Some(principal), method, credential)
            .on(Some(collection.clone()), None)
            .about(shape());
        event.documents = documents.into_iter().take(AUDIT_DOCUMENTS_MAX).cloned().collect();
        self.note(event);
    }

    /// Records that somebody takes all documents that there are of a collection, or of all. Always, since it is all of them; page by
    /// page, which is folded into a number.
    pub(super) fn note_export(&self, who: Option<Who>, collection: Option<&CollectionName>, shape: String) {
        let Who { principal, method, credential } = who.unwrap_or_else(|| self.owner());
        let event = Event::new(AuditAction::Export, AuditDecision::Allowed).by(Some(principal), method, credential);
        self.note(event.on(collection.cloned(), None).about(shape));
    }

    /// Records the documents of a page of changes. Whoever begins at the beginning and takes the documents along exports them.
    pub(super) fn note_changes(&self, who: Option<Who>, query: &ChangesQuery, page: &ChangesPage) {
        if query.since == Since::Beginning && query.content == ChangeContent::Documents {
            let prefix = query.prefix.as_ref().map(|prefix| format!(", prefix {prefix}")).unwrap_or_default();
            self.note_export(who, query.collection.as_ref(), format!("changes with documents{prefix}"));
        }
        let names: BTreeSet<&CollectionName> = page.items.iter().map(|change| &change.collection).collect();
        for name in names {
            let of_it = page.items.iter().filter(|change| change.collection == *name);
            self.note_read(who, AuditAction::Changes, name, of_it.map(|change| &change.id), String::new);
        }
    }

    /// Finds out in which collections reads are to be recorded.
    pub(super) async fn mark_collections(&self) -> Result<()> {
        let marked = self.core.look(|replica, _| {
            let all = replica.authority().collections().into_iter();
            all.filter(|known| known.config.audit_reads).map(|known| known.config.name).collect()
        });
        self.audit.mark(marked.await.map_err(|_| Error::new(ErrorCode::ShuttingDown, "the node is shutting down"))?);
        Ok(())
    }

    /// Finds out the same whenever an act has come.
    pub(super) async fn watch_marks(self: Arc<Self>) {
        let mut policy = self.core.policy.clone();
        loop {
            if self.mark_collections().await.is_err() || policy.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn audit_status(&self) -> Result<AuditStatus> {
        let standing = lock(&self.audit.standing).clone();
        let members: Vec<AuthorKey> = self.members().into_iter().collect();
        let (logs, peers) = self
            .read_on_thread(move |reader| {
                let store = &**reader.store();
                let logs = folkmoot_core::audit::logs(store).map_err(search::log_error)?;
                let peers = search::witnesses(store, &members)?;
                Ok::<_, Error>((logs, peers))
            })
            .await??;
        let log = standing.log.ok_or_else(|| Error::new(ErrorCode::NotReady, "the audit log is not open"))?;
        let note = standing.checkpoint;
        Ok(AuditStatus {
            log: log.id().to_string(),
            logs: logs.len() as u64,
            records: log.state().size,
            first: log.state().first,
            bytes: logs.iter().map(|(_, state)| state.bytes).sum(),
            lost: self.audit.figures().0,
            checkpoint: note.as_ref().map(folkmoot_core::audit::note::Note::text).unwrap_or_default(),
            cosigned: note.map(|note| note.cosignatures.iter().map(|word| word.peer).collect()).unwrap_or_default(),
            peers,
        })
    }

    async fn audit_proof(&self, subject: AuditSubject) -> Result<Bytes> {
        // What was recorded just now is to be signed, too.
        self.audit.sign().await?;
        let (cluster, core) = (self.record.cluster, self.core.clone());
        let proof = self.read_on_thread(move |reader| {
            let store = reader.store().snapshot();
            let proof = match subject {
                AuditSubject::Record(record) => folkmoot_core::audit::prove_record(&*store, record),
                AuditSubject::Op(op) => {
                    let found = reader.find_op(op, cluster).map_err(read_error)?;
                    let found = found.ok_or_else(|| search::log_error(LogError::OpNotFound(op)))?;
                    let stream = found.stream();
                    let knew = core.look_blocking(move |replica, _| replica.knowledge_of(&stream));
                    let knew = knew.map_err(|_| Error::new(ErrorCode::ShuttingDown, "the node is shutting down"))?;
                    let control = super::join::control_log(reader, cluster)
                        .map_err(|what| Error::new(ErrorCode::Damaged, what))?;
                    folkmoot_core::audit::prove_op(&*store, cluster, found, &control, &knew)
                }
            };
            proof.map_err(search::log_error)
        });
        let text = serde_json::to_vec_pretty(&proof.await??)
            .map_err(|error| Error::new(ErrorCode::Internal, "write a proof").with_source(error))?;
        Ok(text.into())
    }

    pub(super) async fn audit_verify(&self) -> Result<AuditVerifyReport> {
        self.audit.flush().await?;
        let (cluster, keys) = (self.record.cluster, self.record.keys(self.node_key.author()));
        // One moment of the store: the log grows meanwhile.
        let report = self
            .read_on_thread(move |reader| folkmoot_core::audit::check_log(&*reader.store().snapshot(), cluster, &keys))
            .await?;
        Ok(report.into())
    }
}

/// What a proof shows that holds.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AuditChecked {
    /// What it proves, in words.
    pub what: String,
    /// Whose key signed it.
    pub signed_by: AuthorKey,
    /// The cluster.
    pub cluster: folkmoot_core::id::ClusterId,
    /// The log that a record is in.
    pub log: Option<String>,
    /// Records of the log when it was signed.
    pub size: Option<u64>,
    /// Whose keys countersigned that.
    pub cosigned: Vec<AuthorKey>,
    /// What the record or the op says.
    pub entry: serde_json::Value,
    /// By which right the op was made, as far as its author knew when it was; if the proof shows that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<Explanation>,
    /// Of how many acts that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acts: Option<usize>,
}

impl AuditChecked {
    /// Returns whether the right to all of it is shown; `None` if no rights are.
    #[must_use]
    pub fn is_allowed(&self) -> Option<bool> {
        let allowed =
            |part: &crate::api::ExplainedPart| part.verdict == folkmoot_core::authority::Verdict::Allowed.kind();
        self.right.as_ref().map(|right| !right.parts.is_empty() && right.parts.iter().all(allowed))
    }
}

impl Node {
    /// Checks the audit log of a data directory on which no node runs.
    ///
    /// # Errors
    /// [`OpenError`] if it cannot be checked, as when a node runs on it. What is wrong with the log is no error but in the report.
    pub fn audit_verify_directory(data_dir: &Path, keys: &KeySettings) -> Result<AuditVerifyReport, OpenError> {
        super::maintenance::audit_verify(data_dir, keys)
    }

    /// Checks a proof. Needs nothing but the file.
    ///
    /// # Errors
    /// In words, why it proves nothing.
    pub fn audit_check(file: &[u8]) -> Result<AuditChecked, String> {
        let checked = folkmoot_core::audit::check_proof(file).map_err(|error| crate::api::error_chain(&error))?;
        Ok(match checked {
            Checked::Record { record, index, note } => {
                let log = note.checkpoint.log;
                AuditChecked {
                    what: format!("record {} of the log", folkmoot_core::audit::record_text(log.incarnation, index)),
                    signed_by: log.node,
                    cluster: log.cluster,
                    log: Some(log.to_string()),
                    size: Some(note.checkpoint.size),
                    cosigned: note.cosignatures.iter().map(|word| word.peer).collect(),
                    entry: serde_json::to_value(&*record).unwrap_or_default(),
                    right: None,
                    acts: None,
                }
            }
            Checked::Op { op, signed_after, rights } => {
                let header = op.header();
                AuditChecked {
                    right: rights.as_ref().map(|rights| why::shown(rights, &op)),
                    acts: rights.as_ref().map(Rights::len),
                    what: format!("op {}, signed with {signed_after} behind it", op.id()),
                    signed_by: header.author,
                    cluster: header.cluster,
                    log: None,
                    size: None,
                    cosigned: Vec::new(),
                    entry: serde_json::json!({
                        "time": Timestamp::from_millis(header.hlc.millis()),
                        "collection": header.collection(),
                        "stream": op.stream(),
                        "seq": header.seq,
                        "transactions": header.transactions().iter().map(|transaction| serde_json::json!({
                            "principal": transaction.principal,
                            "documents": transaction.changes.iter().map(|change| &change.doc).collect::<Vec<_>>(),
                        })).collect::<Vec<_>>(),
                        "act": header.control().map(|control| act_event(&control.act).action),
                    }),
                }
            }
        })
    }

    /// Records an event in the node's audit log: for servers and apps that do something of their own which is to be known, as
    /// letting people in. Where the request came from is taken from [`Origin`]. Never blocks; durable within a second.
    pub fn audit_event(&self, event: Event) {
        self.inner.note(event);
    }
}

#[async_trait]
impl Audit for Node {
    async fn audit(&self, query: &AuditQuery) -> Result<AuditPage> {
        self.inner.audit_page(query).await
    }

    async fn audit_status(&self) -> Result<AuditStatus> {
        self.inner.audit_status().await
    }

    async fn audit_proof(&self, subject: &AuditSubject) -> Result<Bytes> {
        self.inner.audit_proof(*subject).await
    }

    async fn why(&self, op: &OpId) -> Result<Explanation> {
        self.inner.why(*op).await
    }

    async fn audit_verify(&self) -> Result<AuditVerifyReport> {
        self.inner.audit_verify().await
    }
}
