//! The change feed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::query::Filter;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Database;
use super::error::{Error, ErrorCode, Result};
use super::heads::Heads;
use super::query::selector;
use super::time::Timestamp;

/// A point in the commit order of a node, with what had been seen at it: the feed goes on behind it, at other nodes too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeToken(String);

/// Room for what a session has seen, and a place.
const CHANGE_TOKEN_BYTES_MAX: usize = 5 << 10;

impl ChangeToken {
    /// Wraps a token; the node that made it checks the rest.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCursor`] if it is empty, longer than any token or holds other than visible ASCII characters.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() || text.len() > CHANGE_TOKEN_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::new(ErrorCode::InvalidCursor, "`since` is not a token of a change feed")
                .hint("pass the `next` of an answer as it is, `now`, or nothing for the beginning"));
        }
        Ok(Self(text))
    }

    /// Returns the token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChangeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a feed begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Since {
    /// At the beginning of what the node holds.
    #[default]
    Beginning,
    /// Now: only what is committed from here on.
    Now,
    /// Behind a point.
    After(ChangeToken),
}

/// Which changes to return.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangesQuery {
    /// Of one collection; none for all of them.
    pub collection: Option<CollectionName>,
    /// Only of documents whose ids begin with this.
    pub prefix: Option<String>,
    /// Only of documents that this selector means as they are now, and of those that are gone; null for all. The notation is in
    /// `docs/query.md`. Who has to know that a document is no longer meant follows a query: [`Live`](super::Live).
    pub selector: Value,
    /// Where to begin.
    pub since: Since,
    /// At most so many; none takes [`ChangesQuery::LIMIT_DEFAULT`].
    pub limit: Option<usize>,
    /// How long to wait for the first change when there is none yet.
    pub wait: Duration,
    /// Whether each change carries the document as it is now.
    pub content: ChangeContent,
}

/// What a change carries beside the document's name and version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChangeContent {
    /// Nothing.
    #[default]
    Names,
    /// The document as it is when the feed is read.
    Documents,
}

impl ChangesQuery {
    /// Changes of a page when the caller does not say.
    pub const LIMIT_DEFAULT: usize = 100;
    /// Changes of a page at most.
    pub const LIMIT_MAX: usize = 1_000;
    /// The longest wait: below the idle time-outs of usual proxies.
    pub const WAIT_MAX: Duration = Duration::from_secs(60);

    /// Returns the filter that the selector makes; none for all documents.
    pub(crate) fn filter(&self) -> Result<Option<Filter>> {
        if self.selector.is_null() {
            return Ok(None);
        }
        Ok(Some(Filter::new(selector(&self.selector)?)).filter(|filter| !filter.is_all()))
    }

    /// Returns how many changes the page may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX)
    }
}

/// What happened to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChangeKind {
    /// It is new or changed.
    Changed,
    /// It is deleted.
    Deleted,
    /// It is erased, and gone for good.
    Erased,
    /// It was rebuilt because the verdict on one of its changes changed.
    Revised,
}

/// A change that was committed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The point behind this change.
    pub token: ChangeToken,
    /// The collection.
    pub collection: CollectionName,
    /// The document.
    pub id: DocId,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its version now.
    pub heads: Heads,
    /// When the change was made, by its author's clock.
    pub modified: Timestamp,
    /// The document as it is now, if it was asked for and exists.
    pub json: Option<Bytes>,
}

/// A page of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesPage {
    /// The changes in commit order.
    pub items: Vec<Change>,
    /// The point behind the page, also when it is empty.
    pub next: ChangeToken,
    /// Whether more changes are there already.
    pub more: bool,
}

/// Returns the endless stream of changes that repeated [`Database::changes`] calls with a wait give.
pub fn poll_changes<D: Database + Clone>(database: D, mut query: ChangesQuery) -> BoxStream<'static, Result<Change>> {
    query.wait = ChangesQuery::WAIT_MAX;
    query.limit.get_or_insert(ChangesQuery::LIMIT_MAX);
    futures_util::stream::try_unfold((database, query), |(database, query)| async move {
        let page = database.changes(&query).await?;
        let query = ChangesQuery { since: Since::After(page.next), ..query };
        Ok::<_, Error>(Some((futures_util::stream::iter(page.items.into_iter().map(Ok)), (database, query))))
    })
    .try_flatten()
    .boxed()
}
