//! Shards that a node takes in bulk from others, when it has just joined or was away for long.

use folkmoot_core::id::{AuthorKey, CollectionName};
use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// What of a shard is being taken in bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BootstrapStage {
    /// Its documents: each can be read as soon as it is here.
    Documents,
    /// The documents are here; the signed ops that prove them come.
    Ops,
}

impl BootstrapStage {
    /// Returns the name used in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Ops => "ops",
        }
    }
}

/// A shard that is being taken in bulk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bootstrap {
    /// The collection.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub collection: CollectionName,
    /// Which shard.
    pub shard: u16,
    /// Of how many.
    pub of: u16,
    /// What is being taken.
    pub stage: BootstrapStage,
    /// Members that gave documents.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub givers: Vec<AuthorKey>,
    /// Members that are being asked for some now.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub asked: Vec<AuthorKey>,
    /// Documents taken.
    pub documents: u64,
    /// Documents that the shard has at the givers, those included that come with their ops only.
    pub documents_total: u64,
    /// Bytes of the documents taken.
    pub bytes: u64,
    /// Documents taken a second since this node was started.
    pub documents_per_second: f64,
    /// Documents taken of those that there are, in percent; 100 when the ops come.
    pub percent: f64,
    /// Ops that are known to be missing.
    pub ops_missing: u64,
    /// When the first documents came.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub started: Timestamp,
}

/// A shard that was taken in bulk to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastBootstrap {
    /// The collection.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub collection: CollectionName,
    /// Which shard.
    pub shard: u16,
    /// Of how many.
    pub of: u16,
    /// Members that gave documents.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub givers: Vec<AuthorKey>,
    /// Documents taken.
    pub documents: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When the first documents came.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub started: Timestamp,
    /// When the ops of all of them were here.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub finished: Timestamp,
    /// Documents that no signed op made: a giver lied, or what they showed was revoked meanwhile.
    pub documents_false: u64,
}
