//! Reading documents.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, ChangeHash, CollectionName, DocId};
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::Database;
use super::cursor::Cursor;
use super::error::{Error, Result};
use super::heads::Heads;
use super::history::At;
use super::session::SessionToken;
use super::time::Timestamp;

/// How to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// As it was at this version; takes the right to its history. None for what it is now.
    pub at: Option<At>,
    /// Answer from a state at least as new as this.
    pub session: Option<SessionToken>,
    /// How long to wait for that state; none takes the node's default.
    pub timeout: Option<Duration>,
}

/// A document as it is at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its collection.
    pub collection: CollectionName,
    /// Its id.
    pub id: DocId,
    /// Its content: the text of a JSON object.
    pub json: Bytes,
    /// Its version.
    pub heads: Heads,
    /// When its latest change was made, by its author's clock.
    pub modified: Timestamp,
    /// Whether changes that are stored already wait to be applied, so that the content is older than what is held.
    pub stale: bool,
    /// What to send back for a state at least as new.
    pub session: Option<SessionToken>,
}

/// Which documents of a collection to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only ids that begin with this.
    pub prefix: Option<String>,
    /// Go on behind this.
    pub after: Option<Cursor>,
    /// At most so many; none takes [`ListQuery::LIMIT_DEFAULT`].
    pub limit: Option<usize>,
    /// As they were at this time, by the clocks of those who wrote; none as they are. A page ends also when the node's time for a query is over.
    pub at: Option<Timestamp>,
    /// Answer from a state at least as new as this.
    pub session: Option<SessionToken>,
    /// What the audit calls it.
    pub purpose: ListPurpose,
}

/// What a list is for, which the audit tells apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListPurpose {
    /// To look at some documents: recorded where reads are.
    #[default]
    Look,
    /// To take all there are elsewhere: always recorded, without the documents' ids.
    Export,
}

impl std::str::FromStr for ListPurpose {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "look" => Ok(Self::Look),
            "export" => Ok(Self::Export),
            _ => Err(()),
        }
    }
}

impl ListQuery {
    /// Documents of a page when the caller does not say.
    pub const LIMIT_DEFAULT: usize = 100;
    /// Documents of a page at most.
    pub const LIMIT_MAX: usize = 1_000;
    /// A page ends when its documents have this many bytes together, so that one answer stays bounded in memory.
    pub const PAGE_BYTES_MAX: usize = 4 << 20;

    /// Returns how many documents the page may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX)
    }
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The documents by id.
    pub items: Vec<Document>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

/// A place in a document where concurrent writers left more than one value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conflict {
    /// JSON pointer of the place.
    pub pointer: String,
    /// The values; the first is the one that the document shows, on every replica.
    pub values: Vec<ConflictValue>,
}

/// One of the values that stand against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConflictValue {
    /// The value.
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub value: serde_json::Value,
    /// The change that wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub change: Option<ChangeHash>,
    /// Who wrote it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub author: Option<AuthorKey>,
}

/// Returns all documents of a collection by id, page after page; it ends after an error. The audit calls it an export.
pub fn export(
    database: Arc<dyn Database>,
    collection: CollectionName,
    prefix: Option<String>,
) -> BoxStream<'static, Result<Document>> {
    let limit = Some(ListQuery::LIMIT_MAX);
    let first = ListQuery { prefix, limit, purpose: ListPurpose::Export, ..ListQuery::default() };
    futures_util::stream::try_unfold(Some(first), move |query| {
        let (database, collection) = (database.clone(), collection.clone());
        async move {
            let Some(query) = query else { return Ok::<_, Error>(None) };
            let page = database.list(&collection, &query).await?;
            let next = page.next.map(|after| ListQuery { after: Some(after), ..query });
            Ok(Some((futures_util::stream::iter(page.items.into_iter().map(Ok)), next)))
        }
    })
    .try_flatten()
    .boxed()
}
