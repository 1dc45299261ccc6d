//! Witnesses of forks: nodes that say which branch of a forked stream they saw first, so that nobody else has to decide.

use async_trait::async_trait;
use folkmoot_core::id::{AuthorKey, OpId, PrincipalId};
use folkmoot_core::limits::WITNESSES_MAX;
use serde::{Deserialize, Serialize};

use super::{Error, ErrorCode, Result, Revocation, RevokeOptions};

/// Nodes that become witnesses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewWitnesses {
    /// Member nodes by name or key, 1 to 100. Of one that is a witness the quorum is changed.
    pub nodes: Vec<String>,
    /// How many witnesses must agree before what one of these says counts, itself among them: 1 to 100. If it is not given it is the
    /// majority of all witnesses, and that of the others is raised to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<u8>,
}

impl NewWitnesses {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`].
    pub(crate) fn check(&self) -> Result<()> {
        let most = usize::from(WITNESSES_MAX);
        if self.nodes.is_empty() || self.nodes.len() > most {
            let detail = format!("{} nodes; 1 to {most} are allowed in one call", self.nodes.len());
            return Err(Error::new(ErrorCode::InvalidRequest, detail).pointer("/nodes"));
        }
        if let Some(quorum) = self.quorum.filter(|quorum| !(1..=WITNESSES_MAX).contains(quorum)) {
            let detail = format!("a quorum of {quorum}; 1 to {WITNESSES_MAX} are allowed");
            return Err(Error::new(ErrorCode::InvalidRequest, detail).pointer("/quorum"));
        }
        Ok(())
    }
}

/// A witness of forks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Witness {
    /// The node's key; none if it has none for this any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub node: Option<AuthorKey>,
    /// The node's name; empty if it is no member.
    pub name: String,
    /// How many witnesses must agree before what it says counts, itself among them.
    pub quorum: u8,
    /// How strong it is: it decides about streams whose certificate has a greater rank.
    pub rank: i16,
    /// The principal that it is as a witness, which has nothing but this duty.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub principal: PrincipalId,
    /// The statement that gives it the duty.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub statement: OpId,
    /// How many times it has given evidence that counts.
    pub evidence: u64,
}

/// The part of a [`super::Database`] that is about who settles forks.
#[async_trait]
pub trait Witnesses: Send + Sync + 'static {
    /// Returns the witnesses, by name.
    async fn witnesses(&self) -> Result<Vec<Witness>>;

    /// Makes nodes witnesses, signed with the key of an owner on this node. Returns all witnesses.
    ///
    /// # Errors
    /// [`ErrorCode::NotAllowed`] if no such key is here; [`ErrorCode::PeerNotFound`] if one is no member;
    /// [`ErrorCode::StatementNotFound`] if nothing would change.
    async fn appoint_witnesses(&self, new: &NewWitnesses) -> Result<Vec<Witness>>;

    /// Takes that from a node, by its name or key. What it has said stands.
    ///
    /// # Errors
    /// As above; [`ErrorCode::StatementNotFound`] if it is none.
    async fn dismiss_witness(&self, node: &str, options: &RevokeOptions) -> Result<Revocation>;
}
