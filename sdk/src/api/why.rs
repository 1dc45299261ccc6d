//! Why an op counts or not.

use folkmoot_core::audit::AuditAction;
use folkmoot_core::id::{AuthorKey, CollectionName, DocId, OpId, PrincipalId};
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What was decided about an op, and what that rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The op.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub op: OpId,
    /// Its number in its stream.
    pub seq: u64,
    /// Whose key signed it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub author: AuthorKey,
    /// For whom that key speaks, if its certificate is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub signer: Option<PrincipalId>,
    /// Its name for people.
    pub signer_name: String,
    /// When it was made, as the author says.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub made: Timestamp,
    /// Each of its transactions, or the one act that it is.
    pub parts: Vec<ExplainedPart>,
}

/// What was decided about a transaction or an act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedPart {
    /// Which transaction of the op; 0 for an act.
    pub transaction: u32,
    /// For whom it was made, if the op says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub principal: Option<PrincipalId>,
    /// Its name for people.
    pub name: String,
    /// What it does.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub action: AuditAction,
    /// In which collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub collection: Option<CollectionName>,
    /// To which documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub documents: Vec<DocId>,
    /// What else it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What the rule says (docs/authority.md): allowed, not_allowed, after_revocation, forked, deferred or refused.
    pub verdict: String,
    /// Why it is not in its documents although it is allowed, or what it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The statements that were looked at, at most 100.
    pub grounds: Vec<ExplainedStatement>,
    /// Which branch of the op's stream counts, if that forks at the op or before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<ExplainedFork>,
}

/// Which branch of a forked stream counts, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedFork {
    /// The number at which two ops are known.
    pub at: u64,
    /// The last op that counts; none if nothing from the fork on does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub kept: Option<OpId>,
    /// Its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_seq: Option<u64>,
    /// The revocation, readmission or change of owners whose pin says so; none if witnesses do, or nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub by: Option<OpId>,
    /// What witnesses say of the stream, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<ExplainedTestimony>,
}

/// What a witness says of a forked stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedTestimony {
    /// The act of evidence.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub act: OpId,
    /// The witness.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub witness: PrincipalId,
    /// Its name for people.
    pub name: String,
    /// How many witnesses must agree before it counts, itself among them.
    pub quorum: u8,
    /// The last op of the branch that it saw.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub saw: OpId,
    /// Its number.
    pub saw_seq: u64,
    /// Whether the act counts: allowed, or why not.
    pub verdict: String,
}

/// A statement that a verdict looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedStatement {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub statement: OpId,
    /// What it is to the op: certificate, introduction, duty, join, grant, role or proof.
    pub part: String,
    /// What it says.
    pub says: String,
    /// Whether the op can rest on it.
    pub counts: bool,
    /// What it is worth for the op, in words.
    pub stance: String,
    /// The revocation that is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub by: Option<OpId>,
}
