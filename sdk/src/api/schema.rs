//! The form that documents are to have, and those that have it not.

use folkmoot_core::id::DocId;
use serde::{Deserialize, Serialize};

use super::cursor::{Cursor, PageQuery};
use super::heads::Heads;

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Violation {
    /// Where in the document: a JSON pointer. What is missing is told at the place where it would be.
    pub pointer: String,
    /// The keyword of the schema that is not met; empty if it is none.
    pub keyword: String,
    /// Where that keyword is in the schema: a JSON pointer.
    pub schema: String,
    /// What is wrong, without values of the document.
    pub detail: String,
    /// What the keyword asks; none if that is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub allowed: Option<serde_json::Value>,
}

/// What is wrong with a document that was to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations {
    /// As far as the writer may read what it is about.
    pub items: Vec<Violation>,
    /// How much else is, at places that the writer may not read.
    pub withheld: usize,
    /// Whether there is more than is told.
    pub more: bool,
}

/// Which part of the documents that have not the form.
pub type InvalidQuery = PageQuery;

/// A document that has not the form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InvalidDocument {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DocId,
    /// Its version.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub heads: Heads,
    /// What is wrong, as far as the caller may read what it is about.
    pub violations: Vec<Violation>,
    /// Whether there is more of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A page of documents that have not the form, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InvalidPage {
    /// The documents.
    pub items: Vec<InvalidDocument>,
    /// Whether all documents of the collection have been held against the schema it has now.
    pub complete: bool,
    /// Where the list goes on, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub next: Option<Cursor>,
}

/// How far a collection's documents are held against its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SchemaProgress {
    /// How many documents were looked at, deleted ones included.
    pub seen: u64,
    /// How many have not the form, of those that were.
    pub invalid: u64,
    /// Whether all were.
    pub complete: bool,
}
