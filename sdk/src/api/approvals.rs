//! Acts that several owners have to agree on, as callers see them.

use folkmoot_core::id::{AuthorKey, OpId, PrincipalId};
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What an owner asked for and others have to approve: until then it counts nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    /// The act to approve: the last of those that were asked for at once. It stands for all of them.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub op: OpId,
    /// What it does, act by act, in the order in which they were signed.
    pub acts: Vec<ApprovalAct>,
    /// The owner's key that asks.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub owner: AuthorKey,
    /// At whose request, if a node asked for somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub for_whom: Option<PrincipalId>,
    /// That principal's name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Since when it waits, as the asking owner says.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub since: Timestamp,
    /// The owners who consent to all of it, the asking one among them, ascending.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub consenting: Vec<AuthorKey>,
    /// How many further owners are needed.
    pub missing: u8,
    /// Whether the owner's key on this node can approve it: there is one, and it has not yet.
    pub open_here: bool,
}

/// One act of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApprovalAct {
    /// The act.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub op: OpId,
    /// What it does, in words. Names in it are what somebody chose.
    pub does: String,
    /// How strong what it gives is: smaller is stronger, owners have 0. None of what gives nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<i16>,
}

/// A consent that was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approved {
    /// The act of consent.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub act: OpId,
    /// What is consented to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub op: OpId,
    /// How many further owners are needed; 0 if it counts now.
    pub missing: u8,
}

/// A request that was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Withdrawn {
    /// The act that takes it back.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub act: OpId,
    /// What was asked for.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub op: OpId,
}

/// That something is signed by an owner and waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AwaitedApproval {
    /// The act to approve.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub op: OpId,
    /// How many further owners are needed.
    pub missing: u8,
}

impl std::fmt::Display for AwaitedApproval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owners = if self.missing == 1 { "owner" } else { "owners" };
        write!(f, "signed, and waits for {} further {owners}: `folkmoot approve {}`", self.missing, self.op)
    }
}
