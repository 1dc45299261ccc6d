//! Values that no two documents of a collection are to share, and documents that share them all the same.

use folkmoot_core::id::DocId;
use folkmoot_core::op::FieldPath;
use serde::{Deserialize, Serialize};

use super::cursor::Cursor;
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DuplicatesQuery {
    /// At most so many, up to [`DuplicatesQuery::LIMIT_MAX`]; none takes [`DuplicatesQuery::LIMIT_DEFAULT`].
    pub limit: Option<usize>,
    /// Go on behind this.
    pub after: Option<Cursor>,
}

impl DuplicatesQuery {
    /// Documents of a page when the caller does not say.
    pub const LIMIT_DEFAULT: usize = 100;
    /// Documents of a page at most.
    pub const LIMIT_MAX: usize = 1_000;

    /// Returns how many documents the page has at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX)
    }
}

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
