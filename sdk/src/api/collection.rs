//! Collections and their settings.

use std::collections::BTreeMap;

use folkmoot_core::id::CollectionName;
use folkmoot_core::op::FieldPath;
use serde::{Deserialize, Serialize};

use super::schema::SchemaProgress;

/// How a field merges that is more than plain JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FieldType {
    /// A string that merges character by character.
    Text,
    /// A number to which concurrent increments add up.
    Counter,
    /// A point in time, RFC 3339.
    Timestamp,
    /// Bytes, base64.
    Bytes,
}

/// The settings of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CollectionSettings {
    /// Number of shards, fixed at creation.
    pub shards: u16,
    /// Field types by JSON pointer; `*` stands for any list element or key.
    pub types: BTreeMap<String, FieldType>,
    /// Whether nodes record in their audit logs who reads its documents.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub audit_reads: bool,
    /// The form that documents are to have: a JSON Schema, draft 2020-12. Local writes are held against it; what has not the form
    /// after a merge is kept and listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub schema: Option<serde_json::Value>,
    /// When documents are over: then they are found no more, and deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Expires>,
}

/// When a document is over: some time after that which a field of it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Expires {
    /// The field: a JSON pointer to a time, RFC 3339. A document without such a time is never over.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub field: FieldPath,
    /// Seconds after it.
    #[serde(default)]
    pub after: u32,
}

impl Default for CollectionSettings {
    fn default() -> Self {
        Self { shards: 1, types: BTreeMap::new(), audit_reads: false, schema: None, expires: None }
    }
}

/// A collection and what it holds here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CollectionInfo {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: CollectionName,
    /// Its settings.
    #[serde(flatten)]
    pub settings: CollectionSettings,
    /// Documents that exist; not told to those who may not read all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// Bytes of their JSON text; told to the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How far they are held against the schema, if there is one; told to the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_check: Option<SchemaProgress>,
}
