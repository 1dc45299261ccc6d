//! Erasing documents: for good, on every node, and so that it can be shown.

use async_trait::async_trait;
use folkmoot_core::id::{AuthorKey, CollectionName, DocId, OpId, PrincipalId};
use folkmoot_core::limits::{ACT_TEXT_BYTES_MAX, ERASE_DOCUMENTS_MAX};
use serde::{Deserialize, Serialize};

use super::{Error, ErrorCode, Result, Timestamp};

/// Documents to erase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewErasure {
    /// Their ids, 1 to 100, whether or not there are such documents: they never come back.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ids: Vec<DocId>,
    /// Reason for people. It is kept for good.
    #[serde(default)]
    pub why: String,
}

impl NewErasure {
    /// Documents in one call.
    pub const IDS_MAX: usize = ERASE_DOCUMENTS_MAX;

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.ids.is_empty() || self.ids.len() > Self::IDS_MAX {
            let detail =
                format!("{} documents to erase; 1 to {} are allowed in one call", self.ids.len(), Self::IDS_MAX);
            return Err(Error::new(ErrorCode::InvalidRequest, detail).pointer("/ids"));
        }
        if self.why.len() > ACT_TEXT_BYTES_MAX {
            let detail = format!("the reason has {} bytes, at most {ACT_TEXT_BYTES_MAX} are allowed", self.why.len());
            return Err(Error::new(ErrorCode::InvalidRequest, detail).pointer("/why"));
        }
        Ok(())
    }
}

/// An erasure, and which members have carried it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Erasure {
    /// The act.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub act: OpId,
    /// When it was made, by its signer's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub time: Timestamp,
    /// Who asked for it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub principal: Option<PrincipalId>,
    /// That one's name for people.
    pub name: String,
    /// The node that signed it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub signed_by: AuthorKey,
    /// The collection.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub collection: CollectionName,
    /// The documents.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ids: Vec<DocId>,
    /// The reason.
    pub why: String,
    /// Whether it counts: `allowed`, or why not.
    pub verdict: String,
    /// Whether it counts and every member has carried it out.
    pub complete: bool,
    /// The members of now, and when each said that nothing is left of the documents on its disk.
    pub members: Vec<ErasureReceipt>,
}

impl Erasure {
    /// Returns how many members have carried it out.
    #[must_use]
    pub fn done(&self) -> usize {
        self.members.iter().filter(|member| member.done.is_some()).count()
    }
}

/// Whether a member has carried out an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErasureReceipt {
    /// The member's key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: AuthorKey,
    /// Its name.
    pub name: String,
    /// When it said so; not yet if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub done: Option<Timestamp>,
}

/// Which erasures to return.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErasuresQuery {
    /// Those that are older than this one; the latest if none is given.
    pub after: Option<OpId>,
    /// At most so many; none takes [`ErasuresQuery::LIMIT_DEFAULT`].
    pub limit: Option<usize>,
}

impl ErasuresQuery {
    /// Erasures of a page when the caller does not say.
    pub const LIMIT_DEFAULT: usize = 100;
    /// Erasures of a page at most.
    pub const LIMIT_MAX: usize = 1_000;

    /// Returns how many erasures the page may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX)
    }
}

/// A page of erasures, the latest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErasuresPage {
    /// The erasures.
    pub items: Vec<Erasure>,
    /// Whether there are older ones.
    pub more: bool,
}

/// The part of a [`super::Database`] that erases.
#[async_trait]
pub trait Erasures: Send + Sync + 'static {
    /// Erases documents: their ids are dead for good, and every member removes all that they said from its disk, those that are
    /// not connected when they come back. It cannot be taken back.
    ///
    /// # Errors
    /// [`ErrorCode::NotAllowed`], whether or not there are such documents.
    async fn erase(&self, collection: &CollectionName, new: &NewErasure) -> Result<Erasure>;

    /// Returns erasures, the latest first: all to who reads the audit, to others those of documents that they may erase.
    async fn erasures(&self, query: &ErasuresQuery) -> Result<ErasuresPage>;

    /// Returns one erasure.
    ///
    /// # Errors
    /// [`ErrorCode::StatementNotFound`].
    async fn erasure(&self, act: &OpId) -> Result<Erasure>;
}
