//! What was done, by whom, and what was denied: the signed ops, and each node's own log of what leaves no op.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::audit::RecordId;
pub use folkmoot_core::audit::{AuditAction, AuditClass, AuditDecision, AuditMethod};
use folkmoot_core::id::{AuthorKey, CollectionName, DocId, OpId, PrincipalId};
use serde::{Deserialize, Serialize};

use super::{Error, ErrorCode, Explanation, PrincipalName, Result, Timestamp};

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AuditLayer {
    /// The log of the node that answers.
    Log,
    /// The signed ops, which all nodes have.
    Ops,
}

impl FromStr for AuditLayer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "log" => Ok(Self::Log),
            "ops" => Ok(Self::Ops),
            _ => Err(Error::new(ErrorCode::InvalidParameter, "the layers of the audit are log and ops")),
        }
    }
}

impl fmt::Display for AuditLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Ops => "ops",
        })
    }
}

/// Which entries are wanted; all that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// By whom. A name that is no principal's finds tries under that name.
    pub principal: Option<PrincipalName>,
    /// In which collection.
    pub collection: Option<CollectionName>,
    /// What was done or tried.
    pub action: Option<AuditAction>,
    /// What kind of thing.
    pub class: Option<AuditClass>,
    /// How it ended.
    pub decision: Option<AuditDecision>,
    /// At or after this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// From where; both if not given.
    pub layer: Option<AuditLayer>,
    /// The most entries to return.
    pub limit: Option<usize>,
    /// Behind this place: the `next` of the page before.
    pub after: Option<AuditCursor>,
    /// How long to wait for the first entry if there is none.
    pub wait: Duration,
}

impl AuditQuery {
    /// Most entries of a page.
    pub const LIMIT_MAX: usize = 1_000;
    /// Entries of a page if nobody says.
    pub const LIMIT: usize = 100;
    /// Longest wait.
    pub const WAIT_MAX: Duration = Duration::from_secs(60);

    /// Returns how many entries the page has at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::LIMIT).clamp(1, Self::LIMIT_MAX)
    }
}

/// A place among the entries; opaque.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuditCursor(String);

impl AuditCursor {
    /// Longest text of one.
    const CHARS_MAX: usize = 256;

    /// Wraps the text of a cursor; whoever gave it out checks it.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCursor`] if it is too long to be one.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.len() > Self::CHARS_MAX {
            return Err(Error::new(ErrorCode::InvalidCursor, "`after` is no cursor of the audit"));
        }
        Ok(Self(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Something that was done, tried, or happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Its name: of a record, or of a transaction or act (op id and, after a colon, its place in the op).
    pub id: String,
    /// Where it comes from.
    pub layer: AuditLayer,
    /// When: recorded, or signed as the author says.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub time: Timestamp,
    /// The node that recorded it, or whose or whose user's key signed it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: AuthorKey,
    /// What kind of thing.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub class: AuditClass,
    /// What.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub action: AuditAction,
    /// How it ended.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub decision: AuditDecision,
    /// How often, if it stands for several that are alike.
    pub count: u64,
    /// When it happened first.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub first: Timestamp,
    /// When it happened last.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub last: Timestamp,
    /// Who, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub principal: Option<PrincipalId>,
    /// The principal's name for people, or the one under which somebody tried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How it was known who it was.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub method: AuditMethod,
    /// The statement of the token or password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub credential: Option<OpId>,
    /// From which address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// In which collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub collection: Option<CollectionName>,
    /// Which documents, up to a hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub documents: Vec<DocId>,
    /// What else it was about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The statements that it was done under, or that it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub statements: Vec<OpId>,
    /// Why it ended so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Id of the request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
}

/// What is to be proved, by the `id` of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditSubject {
    /// A record of the node's log.
    Record(RecordId),
    /// An op.
    Op(OpId),
}

impl FromStr for AuditSubject {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let op = text.split_once(':').map_or(text, |(op, _)| op);
        match (op.parse(), text.parse()) {
            (Ok(op), _) => Ok(Self::Op(op)),
            (Err(_), Ok(record)) => Ok(Self::Record(record)),
            (Err(_), Err(_)) => {
                let what = "what is proved is named by the id of an entry of the audit";
                Err(Error::new(ErrorCode::InvalidParameter, what))
            }
        }
    }
}

impl fmt::Display for AuditSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(record) => record.fmt(f),
            Self::Op(op) => op.fmt(f),
        }
    }
}

/// A page of entries, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditPage {
    /// The entries.
    pub items: Vec<AuditEntry>,
    /// Where to go on; also behind the last one, for whoever waits for more.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub next: AuditCursor,
    /// Whether there may be more already. A page may be empty and there be more, where little matches.
    pub more: bool,
    /// Where to go on behind each entry. Only of a node in this process: it does not go over HTTP.
    #[serde(skip)]
    pub behind: Vec<AuditCursor>,
}

/// What this node has seen of the audit log of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditWitness {
    /// The peer.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer: AuthorKey,
    /// Its log.
    pub log: String,
    /// How many records of it were seen.
    pub seen: u64,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub seen_at: Timestamp,
    /// What was wrong with it: cut, forked, replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub trouble_at: Option<Timestamp>,
}

/// How the audit log of a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditStatus {
    /// The log that is written: the origin of its checkpoints.
    pub log: String,
    /// Logs that the node has begun.
    pub logs: u64,
    /// Records in the one that is written.
    pub records: u64,
    /// The first of them that is still here.
    pub first: u64,
    /// Bytes of all records.
    pub bytes: u64,
    /// Events of which only the number is known, since the node started.
    pub lost: u64,
    /// The last checkpoint, a signed note.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub checkpoint: String,
    /// Peers that countersigned it.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub cosigned: Vec<AuthorKey>,
    /// What this node has seen of the logs of others.
    pub peers: Vec<AuditWitness>,
}

/// Something of an audit log that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditDamage {
    /// Where.
    pub place: String,
    /// What.
    pub detail: String,
}

/// What was checked of an audit log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditVerifyReport {
    /// Logs.
    pub logs: u64,
    /// Records.
    pub records: u64,
    /// Records that are gone because of their age.
    pub expired: u64,
    /// Checkpoints whose signatures hold.
    pub checkpoints: u64,
    /// Countersignatures of peers.
    pub cosignatures: u64,
    /// What is wrong, the first thousand things.
    pub damage: Vec<AuditDamage>,
    /// How many things are wrong.
    pub damage_total: u64,
}

impl From<folkmoot_core::audit::AuditReport> for AuditVerifyReport {
    fn from(report: folkmoot_core::audit::AuditReport) -> Self {
        let damage = report.damage.into_iter().map(|damage| AuditDamage { place: damage.place, detail: damage.detail });
        Self {
            logs: report.logs,
            records: report.records,
            expired: report.expired,
            checkpoints: report.checkpoints,
            cosignatures: report.cosignatures,
            damage: damage.collect(),
            damage_total: report.damage_total,
        }
    }
}

/// The audit of a database. Who may read it has the action `audit` on everything.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Returns entries of the node's log and of the ops, oldest first.
    async fn audit(&self, query: &AuditQuery) -> Result<AuditPage>;

    /// Returns how the node's log stands, and what it has seen of those of others.
    async fn audit_status(&self) -> Result<AuditStatus>;

    /// Returns a proof of a record, or of a transaction or act, that stands alone: a JSON file for `folkmoot audit check`.
    ///
    /// # Errors
    /// [`ErrorCode::RecordNotFound`].
    async fn audit_proof(&self, subject: &AuditSubject) -> Result<Bytes>;

    /// Returns what was decided about an op, and the statements and revocations behind that. Reads ops one by one until it is
    /// found, unless it is an act or something of it is quarantined.
    ///
    /// # Errors
    /// [`ErrorCode::RecordNotFound`].
    async fn why(&self, op: &OpId) -> Result<Explanation>;

    /// Checks the node's log: records, tree, checkpoints, countersignatures. Reads all of it.
    async fn audit_verify(&self) -> Result<AuditVerifyReport>;
}
