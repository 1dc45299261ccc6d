//! Values that no two documents of a collection are to share, and documents that share them all the same.

use folkmoot_core::id::DocId;
use folkmoot_core::op::FieldPath;
use serde::{Deserialize, Serialize};

use super::cursor::{Cursor, PageQuery};
use super::heads::Heads;

/// What another document shows already that one was to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// At which fields: those of the unique constraint.
    pub fields: Vec<FieldPath>,
    /// The other document, if who asks may read there what it shows.
    pub by: Option<DocId>,
}

/// Which part of the duplicates of a collection.
pub type DuplicatesQuery = PageQuery;

/// What a document shares with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SharedValues {
    /// The fields of the unique constraint: JSON pointers.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub fields: Vec<FieldPath>,
    /// The document that wins: of all that show these values, the one with the least id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub winner: DocId,
}

/// A document that shows what another one shows that wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DuplicateDocument {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DocId,
    /// Its version.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub heads: Heads,
    /// What it shares, for each unique constraint by which it does.
    pub shares: Vec<SharedValues>,
}

/// A page of duplicates, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DuplicatesPage {
    /// The documents.
    pub items: Vec<DuplicateDocument>,
    /// Whether all documents of the collection have been held against the constraints it has now.
    pub complete: bool,
    /// Where the list goes on, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub next: Option<Cursor>,
}

/// How far a collection's documents are held against its unique constraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UniqueProgress {
    /// How many documents were looked at, deleted ones included.
    pub seen: u64,
    /// How many show what another one shows that wins, of those that were.
    pub duplicates: u64,
    /// How many values, or combinations of values, are shown by more than one.
    pub contested: u64,
    /// Whether all were.
    pub complete: bool,
}
