//! Keys that sign, and changes of owners, as callers see them.

use async_trait::async_trait;
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{AuthorKey, ClusterId, OpId, PrincipalId};
use folkmoot_core::op::Pin;
use serde::{Deserialize, Serialize};

use super::{Approval, Approved, Result, Revocation, RevokeOptions, Timestamp, Withdrawn};

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub enum AuthorKind {
    /// An owner's.
    Owner,
    /// One of those that replace the owners; until it is used only its hash is known.
    Recovery,
    /// A member node's.
    Node,
    /// A device's of a user or a program.
    Device,
}

/// A key that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorInfo {
    /// The key; the hash of a recovery key.
    pub key: String,
    /// Whose it is.
    pub kind: AuthorKind,
    /// For whom it speaks.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub principal: PrincipalId,
    /// The principal's name for people.
    pub name: String,
    /// The statement that says so.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub statement: OpId,
    /// How strong it is: smaller is stronger. The recovery keys have −1, owners 0.
    pub rank: i16,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
    /// Whether this node signs with it.
    pub here: bool,
}

/// Who the owners are now, and what a change of them is made of. Nothing in it is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SuccessionBasis {
    /// The cluster.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cluster: ClusterId,
    /// The act that made the present owners.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub after: OpId,
    /// Their principal.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub principal: PrincipalId,
    /// Their keys.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub owners: Vec<AuthorKey>,
    /// How many of them must agree.
    pub threshold: u8,
    /// Hashes of the recovery keys.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub recovery: Vec<OpId>,
    /// How many of those a change needs; 0 if there are none, and the owners can never be changed.
    pub recovery_threshold: u8,
    /// What stands of what the owners have signed.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub pins: Vec<Pin>,
    /// The acts to name.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub control_heads: Vec<OpId>,
    /// The time of the change.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub hlc: Hlc,
}

/// A change of owners that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Succession {
    /// The act.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub act: OpId,
}

/// A key that was certified in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replacement {
    /// The statement that certifies it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub certificate: OpId,
}

/// The next key of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeRotation {
    /// The key that the node has.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub old: AuthorKey,
    /// The one that it takes up when it starts the next time after that is certified.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub new: AuthorKey,
    /// Whether it is certified. If not, a stronger node must do it: [`Authors::replace_author`].
    pub certified: bool,
}

/// The part of a [`super::Database`] that is about keys that sign.
#[async_trait]
pub trait Authors: Send + Sync + 'static {
    /// Returns the keys that count, by kind and name.
    async fn authors(&self) -> Result<Vec<AuthorInfo>>;

    /// Takes all back that a key was certified for, as when a device or a node was stolen. What it signed until now, as far as
    /// this node knows it, stands; its principal keeps its rights, and gets another key.
    ///
    /// # Errors
    /// [`super::ErrorCode::StatementNotFound`] if nothing certifies the key; [`super::ErrorCode::NotAllowed`] for an owner's,
    /// which only the recovery keys replace.
    async fn revoke_author(&self, key: &AuthorKey, options: &RevokeOptions) -> Result<Revocation>;

    /// Certifies a key for the principal of another one, as strong as that, and makes it a member node if that one is: the
    /// principal keeps its rights. The other key stays, until it is taken back. Done again it changes nothing.
    ///
    /// # Errors
    /// [`super::ErrorCode::StatementNotFound`] if nothing certifies the old key; [`super::ErrorCode::NotAllowed`] if this node is not
    /// stronger than that.
    async fn replace_author(&self, old: &AuthorKey, new: &AuthorKey) -> Result<Replacement>;

    /// Makes the next key of this node, or returns the one that was made. When it is certified, the node takes it up when it starts the
    /// next time, and takes the one before back; its principal and all its rights stay.
    async fn rotate_node(&self) -> Result<NodeRotation>;

    /// Returns what a change of owners is made of; see [`crate::recovery`]. What they signed later than `until` will not stand.
    async fn succession_basis(&self, until: Option<Timestamp>) -> Result<SuccessionBasis>;

    /// Returns what owners asked for and others have to approve, the oldest first, where more than one owner is needed.
    async fn approvals(&self) -> Result<Vec<Approval>>;

    /// Consents, by the owner's key on the node that is asked, to what another owner asked for: to this act, and those that were asked
    /// for at once with it before. It counts as soon as enough owners consent.
    ///
    /// # Errors
    /// [`super::ErrorCode::NotAllowed`] if no owner's key is on the node, or its owner does not ask;
    /// [`super::ErrorCode::StatementNotFound`] if there is no such act; [`super::ErrorCode::NotWaiting`] if it does not wait,
    /// or this owner consents already.
    async fn approve(&self, op: &OpId) -> Result<Approved>;

    /// Takes back, by the owner's key on the node that is asked, what this owner asked for: all that was asked for at once with this
    /// act, as far as it waits. It is listed no more, and honest nodes approve it no more; what another owner has approved before it
    /// heard counts all the same.
    ///
    /// # Errors
    /// [`super::ErrorCode::NotAllowed`] if another owner asked for it, no owner's key is on the node, or its owner does not ask;
    /// [`super::ErrorCode::StatementNotFound`] if there is no such act; [`super::ErrorCode::NotWaiting`] if it does not wait.
    async fn withdraw(&self, op: &OpId) -> Result<Withdrawn>;

    /// Makes other keys the owners. `op` is signed by the recovery keys: whoever hands it over needs no right but to reach the node as who administers.
    ///
    /// # Errors
    /// [`super::ErrorCode::NotAllowed`] if it would not count, with the reason.
    async fn succeed(&self, op: bytes::Bytes) -> Result<Succession>;
}
