//! What goes into a replica and what comes out.

use std::sync::Arc;

use bytes::Bytes;

use super::records::TxRef;
use super::witness::{Appointment, Dismissal};
use crate::authority::Reach;
use crate::document::edit::{Edit, EditError};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ChangeHash, CollectionName, DocId, OpId, PrincipalId, RequestId, ShardId, StreamId};
use crate::op::{Act, BuiltInRole, FieldPath, Fields, Op, RevokeTarget};
use crate::replication::{self, DisconnectReason, Lane, Misbehaviour};
use crate::schema::Findings;
use crate::store::Batch;

/// Names a batch on its way to the disk; they are committed in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BatchId(pub u64);

/// Chosen by the caller to recognise the answer to a request.
pub type RequestTicket = u64;

/// What a replica is told.
#[derive(Debug)]
pub enum Input {
    /// Something from or about a peer.
    Net(replication::Input),
    /// Write documents.
    Write {
        /// Recognises the answer.
        ticket: RequestTicket,
        /// What to write.
        request: WriteRequest,
    },
    /// Sign a control act.
    Act {
        /// Recognises the answer.
        ticket: RequestTicket,
        /// With which key.
        signer: Signer,
        /// What to do.
        request: ActRequest,
    },
    /// A batch is durable.
    Committed(BatchId),
    /// The disk was scrubbed, as [`Effect::Scrub`] had asked.
    Scrubbed {
        /// Whether nothing is left of what was removed; else it is to be tried again.
        is_clean: bool,
        /// How long it took.
        took_ms: u64,
    },
    /// A batch failed: its outcome is unknown and nothing more can be written.
    CommitFailed(BatchId, String),
}

/// Which of the replica's keys signs an act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signer {
    /// The node's own.
    Node,
    /// The owner's, if this replica holds it.
    Owner,
}

/// A control act, or several that belong together.
#[derive(Clone, Debug)]
pub enum ActRequest {
    /// One act.
    One(Act),
    /// One act, at the request of a principal: this is noted, and gives no right.
    For(PrincipalId, Act),
    /// Take back statements, or all that principals have: all that was written under them and is here stands. All are signed
    /// together, or none.
    Revoke {
        /// What.
        targets: Vec<RevokeTarget>,
        /// Whether what was given under it goes too.
        reach: Reach,
        /// Reason for people.
        why: String,
        /// At whose request.
        for_whom: Option<PrincipalId>,
    },
    /// Let a transaction stand that a revocation cut, and with it all that came before it in its stream.
    Readmit {
        /// The op.
        op: OpId,
        /// Which transaction of it.
        transaction: u16,
        /// At whose request.
        for_whom: Option<PrincipalId>,
    },
    /// Certify another key for the principal of a key, and make it a member if that is one. Done again it changes nothing.
    Replace {
        /// The key that there is.
        old: AuthorKey,
        /// The other one.
        new: AuthorKey,
        /// At whose request.
        for_whom: Option<PrincipalId>,
    },
    /// Consent to an act of another owner that waits for it, and to what was asked for with it before: see
    /// [`crate::authority::WaitingRequest`]. Signed by an owner's key.
    Approve(OpId),
    /// Take back what this owner asked for at once with an act, while it waits for others. Signed by the same owner's key.
    Withdraw(OpId),
    /// Make nodes witnesses of forks.
    Appoint(Appointment),
    /// Take that from nodes.
    Dismiss(Dismissal),
    /// A change of owners, signed by recovery keys elsewhere.
    Succeed(Arc<Op>),
    /// Take a node into the cluster: certify its key for a new principal, make it a member and give it a role.
    Admit {
        /// The node's key.
        key: AuthorKey,
        /// Name for people.
        name: String,
        /// Labels.
        labels: Vec<(String, String)>,
        /// What it may do, everywhere.
        role: BuiltInRole,
    },
    /// Take a device of a principal into the cluster: certify its key for that principal, and make it a member.
    AdmitDevice {
        /// The device's key.
        key: AuthorKey,
        /// Whose it is.
        principal: PrincipalId,
        /// Name for people.
        name: String,
        /// Labels.
        labels: Vec<(String, String)>,
    },
}

/// What an act made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// The op of the (first) act; for an admitted node its certificate.
    pub op: OpId,
    /// What it does not count without; none if it counts.
    pub waits: Option<Waits>,
}

/// That an owner's act is signed, and counts for nothing before others consent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waits {
    /// The act by whose name all that was asked for is approved.
    pub op: OpId,
    /// How many further owners are needed.
    pub missing: u8,
}

/// The writes of one request: one transaction, applied all or none.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// The collection.
    pub collection: CollectionName,
    /// On whose behalf; none for the node itself.
    pub principal: Option<PrincipalId>,
    /// Makes the write safe to retry on any node.
    pub request: Option<RequestId>,
    /// What of the documents whoever asks may read and write at most, beside what the principal may: the limits of a token.
    pub limits: WriteLimits,
    /// The documents, each once, all of one shard.
    pub items: Vec<WriteItem>,
}

/// Limits within what a principal may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// The fields that may be read; none if nothing may.
    pub read: Option<Fields>,
    /// The fields that may be written.
    pub write: Fields,
}

impl WriteLimits {
    /// Nothing beside what the principal may.
    #[must_use]
    pub const fn none() -> Self {
        Self { read: Some(Fields::All), write: Fields::All }
    }
}

/// The write of one document.
#[derive(Clone, Debug)]
pub struct WriteItem {
    /// The document.
    pub doc: DocId,
    /// What to do to it.
    pub write: DocWrite,
    /// What must hold of it first.
    pub precondition: Precondition,
    /// The version that the writer edited; none for the current one.
    pub base: Option<Vec<ChangeHash>>,
    /// Bytes of the JSON that the writer sent, for the bound on documents.
    pub bytes: usize,
}

/// What to do to a document.
#[derive(Clone, Debug)]
pub enum DocWrite {
    /// Make or replace it (`Edit::Put`), or edit one that exists (the others).
    Edit(Edit),
    /// Delete what this replica has seen of it.
    Delete,
    /// The same, if its time is over.
    Expire,
}

/// What must hold of a document for it to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// It exists.
    Exists,
    /// It does not exist.
    Absent,
    /// It exists with one of these heads.
    HeadsAre(Vec<Vec<ChangeHash>>),
    /// It does not exist with one of these heads.
    HeadsAreNot(Vec<Vec<ChangeHash>>),
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The transaction; none if nothing changed.
    pub tx: Option<TxRef>,
    /// For each item, in order.
    pub items: Vec<ItemOutcome>,
    /// The time given to the write.
    pub hlc: Hlc,
    /// Whether an earlier write with the same request id is answered again.
    pub replayed: bool,
}

/// The answer for one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemOutcome {
    /// The document.
    pub doc: DocId,
    /// What happened.
    pub status: ItemStatus,
    /// Its heads now.
    pub heads: Vec<ChangeHash>,
}

/// What happened to a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ItemStatus {
    /// It did not exist before.
    Created,
    /// It was changed.
    Updated,
    /// It was as it should be already.
    Unchanged,
    /// It is deleted.
    Deleted,
}

/// Why a write was not made. Nothing of it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The verdict would be against it.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The document does not exist.
    #[error("document {0} does not exist")]
    NotFound(DocId),
    /// The document is erased: there never will be one of that name again.
    #[error("document {0} was erased")]
    Erased(DocId),
    /// The precondition does not hold.
    #[error("document {doc} has another version than the precondition asks for")]
    Precondition {
        /// The document.
        doc: DocId,
        /// Its heads; none if it does not exist.
        heads: Option<Vec<ChangeHash>>,
    },
    /// The base names a change that is not here.
    #[error("document {doc} has no version with change {missing}")]
    UnknownBase {
        /// The document.
        doc: DocId,
        /// The change.
        missing: ChangeHash,
    },
    /// The edit does not fit the document.
    #[error("edit document {doc}")]
    Edit {
        /// The document.
        doc: DocId,
        /// Why.
        #[source]
        source: EditError,
    },
    /// The document would grow beyond the bound.
    #[error("document {doc} would have {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// The document.
        doc: DocId,
        /// About how large it would be.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The document would not have the form that the schema of its collection asks, and has it, or more of it, now.
    #[error("document {doc} would not have the form that its collection's schema asks")]
    Schema {
        /// The document.
        doc: DocId,
        /// What would be wrong, as far as the writer may be told.
        findings: Findings,
        /// How much else would be.
        withheld: usize,
    },
    /// The schema of the collection cannot be used by this node.
    #[error("the schema of the collection cannot be used by this node: {0}")]
    SchemaUnusable(String),
    /// The document would show what no two documents of the collection are to show, and another one shows it here.
    #[error("document {doc} would show what another document shows already")]
    Unique {
        /// The document.
        doc: DocId,
        /// At which fields.
        fields: Vec<FieldPath>,
        /// The other one, if the writer may know of it.
        other: Option<DocId>,
    },
    /// The request itself makes no sense.
    #[error("invalid write: {0}")]
    Invalid(&'static str),
    /// The idempotency key has been used for something else.
    #[error("the idempotency key has been used for another request")]
    RequestReused,
    /// Too much is waiting to be written.
    #[error("too many writes are waiting; retry in a moment")]
    Busy,
    /// The replica cannot persist any more.
    #[error("this node takes no writes: {0}")]
    NotReady(String),
    /// The commit failed: the write may be there after a restart, or not.
    #[error("the outcome of the write is unknown: {0}; retry with the same idempotency key")]
    Unknown(String),
    /// The document could not be read or written by the CRDT engine.
    #[error("document {doc} cannot be loaded: {reason}")]
    Damaged {
        /// The document.
        doc: DocId,
        /// Why.
        reason: String,
    },
}

/// Why an act was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// No right to it.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The owner key is not held here, or not an owner's any more.
    #[error("no key of the owners that count now is on this node")]
    NoOwnerKey,
    /// It is about a transaction that is not there, or not in question.
    #[error("{0}")]
    NothingToDo(String),
    /// An approval of an act that waits for none, or not for that of this owner.
    #[error("{0}")]
    NotWaiting(String),
    /// The act breaks a rule of the format.
    #[error("invalid act")]
    Invalid(#[source] crate::op::OpError),
    /// The replica cannot persist any more.
    #[error("this node takes no writes: {0}")]
    NotReady(String),
    /// The commit failed.
    #[error("the outcome of the act is unknown: {0}")]
    Unknown(String),
}

/// What the caller must now do, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Commit this batch durably, then report [`Input::Committed`]; batches in the order of their ids.
    Commit {
        /// Its name.
        id: BatchId,
        /// The writes.
        batch: Batch,
        /// How far our own streams reach with it.
        own_heads: Vec<(StreamId, u64, OpId)>,
    },
    /// Send a frame to a peer.
    Send {
        /// To whom.
        peer: AuthorKey,
        /// On which lane.
        lane: Lane,
        /// The frame.
        bytes: Bytes,
    },
    /// Cut the connection.
    Disconnect {
        /// To whom.
        peer: AuthorKey,
        /// Why; a ban is to be carried out beyond the connection.
        reason: DisconnectReason,
    },
    /// A peer broke the protocol.
    Misbehaved {
        /// Who.
        peer: AuthorKey,
        /// How.
        what: Misbehaviour,
    },
    /// The answer to a write.
    WriteDone {
        /// Which request.
        ticket: RequestTicket,
        /// The answer.
        result: Result<WriteOutcome, WriteError>,
    },
    /// The answer to an act.
    ActDone {
        /// Which request.
        ticket: RequestTicket,
        /// What it made.
        result: Result<Admitted, ActError>,
    },
    /// A batch is durable.
    Advanced {
        /// The feed of changes has grown to this point.
        feed: u64,
        /// Shards of which it holds something.
        shards: Vec<ShardId>,
    },
    /// The members may have changed.
    MembersChanged,
    /// Call [`crate::store::Store::scrub`] on a thread that serves nobody, then report [`Input::Scrubbed`].
    Scrub,
    /// A receipt was signed: nothing is left here of what these acts erase.
    ErasuresCarriedOut(Vec<OpId>),
    /// Evidence was signed here.
    EvidenceGiven {
        /// The act.
        act: OpId,
        /// Of how many forked streams.
        streams: usize,
    },
    /// Something that a person should know.
    Alarm {
        /// What kind (stable, snake_case).
        kind: &'static str,
        /// In words.
        detail: String,
    },
    /// The store failed: stop, and let a supervisor restart the node.
    Halt(String),
}
