//! What documents were: who changed one, when, through which node and how; earlier versions, and the way back to one.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, ChangeHash, CollectionName, DocId, OpId, PrincipalId};
use serde::{Deserialize, Serialize};

use super::cursor::Cursor;
use super::error::{Error, ErrorCode, Result};
use super::heads::Heads;
use super::time::Timestamp;
use super::write::{WriteOptions, WriteOutcome};

/// Names a version of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// By its heads: the `ETag` of an answer.
    Heads(Heads),
    /// That of a time, by the clocks of those who wrote.
    Time(Timestamp),
}

impl FromStr for At {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        match text.trim_matches('"').parse::<Heads>() {
            Ok(heads) if !heads.is_empty() => Ok(Self::Heads(heads)),
            _ => Err(Error::new(ErrorCode::InvalidParameter, format!("{text:?} names no version"))
                .hint("heads, as an answer has them in ETag, or a time like 2026-03-01T08:00:00Z")),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heads(heads) => heads.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

/// Which part of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// At most so many entries, up to [`HistoryQuery::LIMIT_MAX`]; none takes [`HistoryQuery::LIMIT_DEFAULT`].
    pub limit: Option<usize>,
    /// Go on behind this, to what is older.
    pub after: Option<Cursor>,
}

impl HistoryQuery {
    /// Entries of a page when the caller does not say.
    pub const LIMIT_DEFAULT: usize = 20;
    /// Entries of a page at most.
    pub const LIMIT_MAX: usize = 100;

    /// Returns how many entries the page may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX)
    }
}

/// One change of a document, or a delete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryItem {
    /// The version that it made, with all that it builds on; none for a delete.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub change: Option<ChangeHash>,
    /// `create`, `update` or `delete`.
    pub action: String,
    /// When, by its author's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub time: Timestamp,
    /// Who.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub principal: PrincipalId,
    /// That one's name for people.
    pub name: String,
    /// The key that signed it: that of the node, or of the principal's own device.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub author: AuthorKey,
    /// The name of whose key that is.
    pub through: String,
    /// The op that brought it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub op: OpId,
    /// Which of the op's transactions.
    pub transaction: u16,
    /// What it changed, against what it builds on: an RFC 6902 patch. Empty for a delete.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub patch: Vec<serde_json::Value>,
}

/// A page of a history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryPage {
    /// The entries, the latest first.
    pub items: Vec<HistoryItem>,
    /// Where the next page begins; none at the end.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub next: Option<Cursor>,
}

/// The difference of two versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Diff {
    /// The version that the patch is against.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub from: Heads,
    /// The version that it makes.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub to: Heads,
    /// An RFC 6902 patch; empty if the two read the same.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub patch: Vec<serde_json::Value>,
}

/// The part of a database that knows what documents were. All of it takes the right to their history.
#[async_trait]
pub trait Histories: Send + Sync {
    /// Returns who changed a document, when and how, the latest first, also of one that is deleted.
    ///
    /// # Errors
    /// [`ErrorCode::DocumentNotFound`] if there never was one, [`ErrorCode::Erased`], [`ErrorCode::InvalidCursor`].
    async fn history(&self, collection: &CollectionName, id: &DocId, query: &HistoryQuery) -> Result<HistoryPage>;

    /// Returns what is different in a version against another one; without `to` against what the document is now.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownHeads`]; otherwise as [`Self::history`].
    async fn diff(&self, collection: &CollectionName, id: &DocId, from: &At, to: Option<&At>) -> Result<Diff>;

    /// Makes a document have the content again that it had in a version, by a new write; without `at`, the content that it had before it
    /// was deleted.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownHeads`]; [`ErrorCode::NothingToRestore`]; otherwise as [`Database::write`](super::Database::write).
    async fn restore(
        &self,
        collection: &CollectionName,
        id: &DocId,
        at: Option<&At>,
        options: &WriteOptions,
    ) -> Result<WriteOutcome>;

    /// Returns a document with its history as a file of Automerge, which Automerge's own libraries load. It holds everything that the
    /// document ever said, so it takes the right to read all of it and all of its history. What does not count is not in it.
    /// [`Database::create_from_automerge`](super::Database::create_from_automerge) is the way back, for the content.
    ///
    /// # Errors
    /// [`ErrorCode::DocumentNotFound`], also for one that is deleted; [`ErrorCode::NotAllowed`] where the caller may see only some fields;
    /// [`ErrorCode::DocumentTooLarge`] for a file of more than 16 MiB.
    async fn automerge(&self, collection: &CollectionName, id: &DocId) -> Result<Bytes>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_by_heads_or_time() {
        let heads = "07".repeat(32);
        for text in [heads.as_str(), "2026-03-01T08:00:00.000Z"] {
            assert_eq!(text.parse::<At>().unwrap().to_string(), text);
        }
        assert_eq!(format!("\"{heads}\"").parse::<At>().unwrap().to_string(), heads);
        for text in ["", "\"\"", "yesterday", "07", "2026-03-01"] {
            assert_eq!(text.parse::<At>().map_err(|error| error.code()), Err(ErrorCode::InvalidParameter), "{text}");
        }
    }
}
