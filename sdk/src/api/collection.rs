//! Collections and their settings.

use std::collections::BTreeMap;

use folkmoot_core::id::CollectionName;
use folkmoot_core::op::{FieldPath, IndexDeclaration};
use serde::{Deserialize, Serialize};

use super::schema::SchemaProgress;
use super::unique::UniqueProgress;

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
    /// Secondary indexes by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub indexes: BTreeMap<String, IndexSettings>,
    /// The form that documents are to have: a JSON Schema, draft 2020-12. Local writes are held against it; what has not the form
    /// after a merge is kept and listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub schema: Option<serde_json::Value>,
    /// When documents are over: then they are found no more, and deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Expires>,
    /// What no two documents are to share: up to 8 lists of 1 to 4 fields (JSON pointers) whose values, taken together, are held apart. Local
    /// writes are held against it; what is shared all the same, because it was written apart, is kept and listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<Vec<String>>,
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

/// A secondary index: by what documents are found without looking at all of them (`docs/query.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IndexSettings {
    /// What it is sorted by: 1 to 4 places, each with `-` before it if the greatest comes first.
    pub fields: Vec<String>,
    /// Whether documents that have none of the places are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sparse: bool,
}

impl IndexSettings {
    /// An index on these places.
    #[must_use]
    pub fn on<T: Into<String>>(fields: impl IntoIterator<Item = T>) -> Self {
        Self { fields: fields.into_iter().map(Into::into).collect(), sparse: false }
    }

    pub(crate) fn declared(&self, name: &str) -> IndexDeclaration {
        IndexDeclaration { name: name.to_owned(), fields: self.fields.clone(), sparse: self.sparse }
    }
}

/// What is told of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IndexInfo {
    /// Its name.
    pub name: String,
    /// As it is declared.
    #[serde(flatten)]
    pub settings: IndexSettings,
    /// Whether queries use it.
    pub state: IndexState,
    /// How far it is, while it is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<IndexProgress>,
    /// Its entries, among them some that are not good any more and go by and by.
    pub entries: u64,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// Bytes that it takes in memory.
    pub memory: u64,
    /// Whether some document has several entries, since there is an array at a place: then it gives no order.
    pub several_per_document: bool,
    /// What is wrong with it, if something is; it is made anew then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether an index is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IndexState {
    /// It is being made.
    Building,
    /// Queries use it.
    Ready,
    /// It cannot be read, and is made anew.
    Failed,
}

/// How far an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IndexProgress {
    /// Documents that were looked at.
    pub looked_at: u64,
    /// Documents of the collection.
    pub documents: Option<u64>,
}

impl Default for CollectionSettings {
    fn default() -> Self {
        Self {
            shards: 1,
            types: BTreeMap::new(),
            audit_reads: false,
            indexes: BTreeMap::new(),
            schema: None,
            expires: None,
            unique: Vec::new(),
        }
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
    /// How far they are held against the unique constraints, if there are any; told to the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_check: Option<UniqueProgress>,
}
