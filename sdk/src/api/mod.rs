//! What a Folkmoot database can do, whether it runs in this process or elsewhere.
//!
//! Documents are JSON text ([`Bytes`]) throughout: a read hands out the stored view without parsing it, and a write is
//! parsed once, with bounds, where it is turned into edits. [`typed`] has the same calls over serde types.

mod access;
mod approvals;
mod as_text;
mod audit;
mod audit_export;
mod authors;
mod automerge;
mod bootstrap;
mod changes;
mod collection;
mod cursor;
mod document;
mod erasure;
mod error;
mod heads;
mod history;
mod keys;
mod live;
mod query;
mod schema;
mod session;
mod state;
mod time;
pub mod typed;
mod unique;
mod why;
mod witness;
mod write;

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, CollectionName, DocId};
use futures_util::stream::BoxStream;

pub(crate) use access::check_name;
pub use access::{
    Access, AccessAnswer, AccessQuestion, AccessTarget, Caller, GrantInfo, IssuedToken, MembershipInfo, NewCertificate,
    NewGrant, NewIdentity, NewPassword, NewPrincipal, NewRole, NewToken, PrincipalInfo, PrincipalKind, PrincipalName,
    Revocation, RevokeOptions, RoleInfo, SecretKind, TokenInfo,
};
pub use approvals::{Approval, ApprovalAct, Approved, AwaitedApproval, Withdrawn};
pub use audit::{
    Audit, AuditAction, AuditClass, AuditCursor, AuditDamage, AuditDecision, AuditEntry, AuditLayer, AuditMethod,
    AuditPage, AuditQuery, AuditStatus, AuditSubject, AuditVerifyReport, AuditWitness,
};
pub use audit_export::AuditFormat;
pub use authors::{AuthorInfo, AuthorKind, Authors, NodeRotation, Replacement, Succession, SuccessionBasis};
pub(crate) use automerge::content as automerge_content;
pub use bootstrap::{Bootstrap, BootstrapStage, LastBootstrap};
pub use changes::{Change, ChangeContent, ChangeKind, ChangeToken, ChangesPage, ChangesQuery, Since, poll_changes};
pub use collection::{
    CollectionInfo, CollectionSettings, Expires, FieldType, IndexInfo, IndexProgress, IndexSettings, IndexState,
};
pub use cursor::{Cursor, PageQuery};
pub use document::{Conflict, ConflictValue, Document, ListPage, ListPurpose, ListQuery, ReadOptions, export};
pub use erasure::{Erasure, ErasureReceipt, Erasures, ErasuresPage, ErasuresQuery, NewErasure};
pub use error::{Error, ErrorCode, ExitCode, Result, error_chain};
pub use heads::Heads;
pub use history::{At, Diff, Histories, HistoryItem, HistoryPage, HistoryQuery};
pub use keys::{KeyRotation, KeysInfo};
pub use live::{Live, LiveEvent};
pub(crate) use live::{Window, follow};
pub use query::{AggregatePage, AggregateQuery, FindPage, FindQuery, Queries, QueryPlan, find_all};
pub use schema::{InvalidDocument, InvalidPage, InvalidQuery, SchemaProgress, Violation, Violations};
pub(crate) use session::Seen;
pub use session::{SessionToken, Sessions, Touched};
pub use state::{
    Conduct, Damage, Invite, InviteOptions, LinkRule, PeerInfo, PeerState, QuarantinePage, QuarantineQuery,
    Quarantined, Readiness, ShardDigest, Status, StoreState, VerifyReport,
};
pub use time::Timestamp;
pub use unique::{DuplicateDocument, DuplicatesPage, DuplicatesQuery, SharedValues, Taken, UniqueProgress};
pub use why::{ExplainedFork, ExplainedPart, ExplainedStatement, ExplainedTestimony, Explanation};
pub use witness::{NewWitnesses, Witness, Witnesses};
pub use write::{
    Atomicity, BulkOp, BulkOptions, Durability, DurabilityReached, Edit, IdempotencyKey, Patch, PatchKind,
    Precondition, WriteOptions, WriteOutcome, WriteStatus,
};

/// A replica of the database: the embedded node or a remote one.
///
/// Cancelling: dropping the future of a read has no effect; a write whose future is dropped may or may not have
/// happened, so retry it with the same idempotency key.
#[async_trait]
pub trait Database: Access + Audit + Authors + Erasures + Histories + Live + Queries + Sessions + Witnesses {
    /// Returns a document.
    ///
    /// # Errors
    /// [`ErrorCode::DocumentNotFound`] also when the collection does not exist; [`ErrorCode::Erased`].
    async fn get(&self, collection: &CollectionName, id: &DocId, options: &ReadOptions) -> Result<Document>;

    /// Makes one edit. It is durable here when this returns, and on as many peers as the outcome says.
    ///
    /// # Errors
    /// Nothing was written, except with [`ErrorCode::UnknownOutcome`] and [`ErrorCode::Unreachable`]: then retry with the same
    /// idempotency key. A durability that was not reached in time is no error: the outcome says so.
    async fn write(&self, collection: &CollectionName, edit: Edit, options: &WriteOptions) -> Result<WriteOutcome>;

    /// Makes many edits in one collection; the answers are in the order of the edits.
    ///
    /// # Errors
    /// An error of the whole call means that nothing was written (same exceptions as [`Self::write`]). With
    /// [`Atomicity::AllOrNothing`] an edit that cannot be made is such an error.
    async fn bulk(
        &self,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>>;

    /// Returns a page of documents in the byte order of their ids. It ends early when the page has grown large.
    async fn list(&self, collection: &CollectionName, query: &ListQuery) -> Result<ListPage>;

    /// Returns where concurrent writers left more than one value in a document; empty if nowhere.
    async fn conflicts(&self, collection: &CollectionName, id: &DocId) -> Result<Vec<Conflict>>;

    /// Returns documents that have not the form which the schema of their collection asks, by id: they became so by a merge, or
    /// were there before the schema.
    ///
    /// # Errors
    /// [`ErrorCode::CollectionNotFound`], [`ErrorCode::InvalidCursor`].
    async fn invalid(&self, collection: &CollectionName, query: &InvalidQuery) -> Result<InvalidPage>;

    /// Returns documents that show what another one shows that wins, and what no two are to show, by id: they were written apart, or were
    /// there before the unique constraints.
    ///
    /// # Errors
    /// [`ErrorCode::CollectionNotFound`], [`ErrorCode::InvalidCursor`].
    async fn duplicates(&self, collection: &CollectionName, query: &DuplicatesQuery) -> Result<DuplicatesPage>;

    /// Returns the collections by name.
    async fn collections(&self) -> Result<Vec<CollectionInfo>>;

    /// Returns one collection.
    async fn collection(&self, name: &CollectionName) -> Result<CollectionInfo>;

    /// Creates a collection or replaces its settings.
    async fn configure(&self, name: &CollectionName, settings: CollectionSettings) -> Result<CollectionInfo>;

    /// Drops a collection: its documents are hidden everywhere and new ones are refused.
    async fn drop_collection(&self, name: &CollectionName) -> Result<()>;

    /// Returns what was committed here after a point, in commit order; with [`ChangesQuery::wait`] it waits that long
    /// for the first change. A page that is empty before that time says that the caller's rights may have changed.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCursor`]; [`ErrorCode::InvalidQuery`].
    async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage>;

    /// Returns an endless stream of changes; it ends after an error.
    fn subscribe(&self, query: ChangesQuery) -> BoxStream<'static, Result<Change>>;

    /// Returns what the node is and how it fares.
    async fn status(&self) -> Result<Status>;

    /// Returns whether the node has caught up and can persist.
    async fn readiness(&self) -> Result<Readiness>;

    /// Returns the members that the node knows, connected or not.
    async fn peers(&self) -> Result<Vec<PeerInfo>>;

    /// Blocks or unblocks this node's link to a peer: no traffic either way while blocked. For drills and demonstrations;
    /// forgotten at restart.
    async fn set_link(&self, peer: &AuthorKey, rule: LinkRule) -> Result<()>;

    /// Returns one digest for each shard held here; equal digests mean equal contents.
    async fn digests(&self) -> Result<Vec<ShardDigest>>;

    /// Returns a page of the ops that were refused and kept as evidence.
    async fn quarantine(&self, query: &QuarantineQuery) -> Result<QuarantinePage>;

    /// Checks every chain, signature and view against each other. Takes long; reads and writes go on.
    async fn verify(&self) -> Result<VerifyReport>;

    /// Returns how the node's data is sealed.
    async fn keys(&self) -> Result<KeysInfo>;

    /// Changes keys of the node; its data is not written again.
    async fn rotate_keys(&self, which: KeyRotation) -> Result<KeysInfo>;

    /// Makes a ticket with which a new node can join.
    async fn invite(&self, options: &InviteOptions) -> Result<Invite>;

    /// Creates a document; without `id` the node makes a time-ordered one.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyExists`]; otherwise as [`Self::write`].
    async fn create(
        &self,
        collection: &CollectionName,
        id: Option<DocId>,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        self.write(collection, Edit::Create { id, json }, options).await
    }

    /// Creates a document with the content that a file of Automerge shows, by one write of the caller. Its history is not taken over: none
    /// of its changes was signed by anybody here. Nor are concurrent values beside those shown, and marks of rich text; text and counters
    /// become such where the collection's settings say that their fields are.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidDocument`] if it is no such file; [`ErrorCode::DocumentTooLarge`] if it or its history is too large; otherwise
    /// as [`Self::create`].
    async fn create_from_automerge(
        &self,
        collection: &CollectionName,
        id: Option<DocId>,
        file: Bytes,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        let json = automerge_content(file).await?;
        self.create(collection, id, json, options).await
    }

    /// Makes a document have this content, with the smallest set of edits against [`WriteOptions::merge_onto`], else
    /// against what it is now.
    ///
    /// # Errors
    /// As [`Self::write`].
    async fn put(
        &self,
        collection: &CollectionName,
        id: DocId,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        self.write(collection, Edit::Put { id, json }, options).await
    }

    /// Changes parts of a document.
    ///
    /// # Errors
    /// [`ErrorCode::DocumentNotFound`], [`ErrorCode::PatchFailed`]; otherwise as [`Self::write`].
    async fn patch(
        &self,
        collection: &CollectionName,
        id: DocId,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        self.write(collection, Edit::Patch { id, patch }, options).await
    }

    /// Deletes what this replica has seen of a document: a change concurrent with the delete brings it back.
    ///
    /// # Errors
    /// [`ErrorCode::DocumentNotFound`]; otherwise as [`Self::write`].
    async fn delete(&self, collection: &CollectionName, id: DocId, options: &WriteOptions) -> Result<WriteOutcome> {
        self.write(collection, Edit::Delete { id }, options).await
    }
}
