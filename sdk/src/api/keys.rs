//! Encryption at rest as callers see it.

use serde::{Deserialize, Serialize};

/// How a node's data is sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeysInfo {
    /// Where the master key comes from: `none` if the data is not sealed, `file`, `environment`, `passphrase` or `command`.
    pub source: String,
    /// Collections that have a key.
    pub collections: u64,
    /// Documents that have a key, roughly.
    pub documents: u64,
    /// Whether keys of documents are being wrapped again, under new keys of their collections.
    pub rotating: bool,
    /// How many have been looked at since that began.
    pub rewrapped: u64,
}

/// Which keys are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub enum KeyRotation {
    /// The master key, if it is in a file: a new one takes its place at once.
    Master,
    /// The keys of all collections: those of documents are wrapped under new ones, in the background.
    Collections,
}
