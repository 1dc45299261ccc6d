//! Reads: on a thread for blocking calls where they may be long, on the caller's own where they are one look-up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::document::conflicts;
use folkmoot_core::id::{CollectionName, DocId, StoreEpoch};
use folkmoot_core::op::FieldRights;
use folkmoot_core::replica::{DocKey, View};

use super::convert::{erased, not_found, read_error};
use super::{Inner, Node};
use crate::api::{
    Change, ChangeContent, ChangeKind, ChangeToken, ChangesPage, ChangesQuery, Conflict, ConflictValue, Cursor,
    Document, Error, ErrorCode, Heads, ListPage, ListQuery, Result, Since, Timestamp,
};

/// Tokens of the feed begin with this; then the store's epoch and the place.
const TOKEN_VERSION: &str = "f1";

/// Says which fields of documents somebody may see.
pub(super) type FeedSight = Arc<dyn Fn(&CollectionName, &DocId) -> FieldRights + Send + Sync>;

/// The owner sees everything.
pub(super) fn all_fed() -> FeedSight {
    Arc::new(|_, _| FieldRights::all())
}

impl Inner {
    /// Runs a read that may take long, or load a document, on a thread with a stack that is large enough.
    pub(super) async fn read_on_thread<T: Send + 'static>(
        &self,
        read: impl FnOnce(&folkmoot_core::replica::Reader) -> T + Send + 'static,
    ) -> Result<T> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || read(&reader))
            .await
            .map_err(|error| Error::new(ErrorCode::Internal, "the read failed").with_source(error))
    }

    pub(super) fn document(collection: &CollectionName, view: View) -> Document {
        Document {
            collection: collection.clone(),
            id: view.doc,
            json: view.json,
            heads: Heads::new(view.heads),
            modified: Timestamp::from_millis(view.modified.millis()),
            stale: false,
            session: None,
        }
    }

    /// Returns the view of a document that exists.
    pub(super) fn view(&self, collection: &CollectionName, id: &DocId) -> Result<View> {
        let key = DocKey { collection: collection.clone(), doc: id.clone() };
        match self.reader.get(&key).map_err(read_error)? {
            Some(view) if !view.deleted => Ok(view),
            Some(view) if view.erased => Err(erased(id)),
            Some(_) | None => Err(not_found(id)),
        }
    }

    pub(super) fn get(&self, collection: &CollectionName, id: &DocId) -> Result<Document> {
        Ok(Self::document(collection, self.view(collection, id)?))
    }

    pub(super) async fn list(&self, collection: &CollectionName, query: &ListQuery) -> Result<ListPage> {
        let after = query.after.as_ref().map(Cursor::document).transpose()?;
        let (name, prefix, limit) = (collection.clone(), query.prefix.clone().unwrap_or_default(), query.limit());
        let views = self
            .read_on_thread(move |reader| {
                reader.list(&name, &prefix, after.as_ref(), limit + 1, ListQuery::PAGE_BYTES_MAX)
            })
            .await?
            .map_err(read_error)?;
        let bytes: usize = views.iter().map(|view| view.json.len()).sum();
        let full = views.len() > limit || bytes >= ListQuery::PAGE_BYTES_MAX;
        let items: Vec<Document> = views.into_iter().take(limit).map(|view| Self::document(collection, view)).collect();
        if items.is_empty() && query.after.is_none() {
            // Nothing in it, or no such collection: only the first is an answer.
            self.collection(collection).await?;
        }
        let next = items.last().filter(|_| full).map(|last| Cursor::after_document(&last.id));
        Ok(ListPage { items, next })
    }

    pub(super) async fn conflicts(&self, collection: &CollectionName, id: &DocId) -> Result<Vec<Conflict>> {
        let key = DocKey { collection: collection.clone(), doc: id.clone() };
        self.get(collection, id)?;
        let found = self
            .on_large_stack(move |reader| {
                let document = reader.document(&key).map_err(read_error)?;
                conflicts::list(document.view_with_history())
                    .map_err(|error| Error::new(ErrorCode::Damaged, "the document cannot be read").with_source(error))
            })
            .await??;
        found
            .places
            .into_iter()
            .map(|place| {
                let values = place.alternatives.into_iter().map(|alternative| {
                    let text = folkmoot_core::document::json::render_value(&alternative.value);
                    let value = serde_json::from_str(&text)
                        .map_err(|error| Error::new(ErrorCode::Internal, "render a value").with_source(error))?;
                    Ok(ConflictValue {
                        value,
                        change: Some(folkmoot_core::document::change_hash(&alternative.change)),
                        author: None,
                    })
                });
                Ok(Conflict { pointer: place.pointer.to_string(), values: values.collect::<Result<_>>()? })
            })
            .collect()
    }

    /// Runs a read on a thread of its own with the stack that documents need.
    pub(super) async fn on_large_stack<T: Send + 'static>(
        &self,
        read: impl FnOnce(&folkmoot_core::replica::Reader) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let reader = self.reader.clone();
        let failed = |what: String| Error::new(ErrorCode::Internal, format!("read a document: {what}"));
        std::thread::Builder::new()
            .name("folkmoot-read".into())
            .stack_size(folkmoot_core::document::gate::STACK_BYTES)
            .spawn(move || drop(reply.send(read(&reader))))
            .map_err(|error| failed(error.to_string()))?;
        answer.await.map_err(|_| failed("the reading thread ended".to_owned()))
    }

    fn token(&self, epoch: &str, place: u64) -> Result<ChangeToken> {
        ChangeToken::new(format!("{TOKEN_VERSION}.{epoch}.{place}"))
    }

    fn place_of(token: &ChangeToken, epoch: &str) -> Result<u64> {
        let other = || {
            Error::new(ErrorCode::FeedGap, "`since` is a token of another node, or of an earlier store of this one")
                .hint("begin again without `since`: what you have seen comes again, nothing is left out")
        };
        let none = || {
            Error::new(ErrorCode::InvalidCursor, "`since` is not a token of a change feed")
                .hint("pass the `next` of an answer as it is, `now`, or nothing for the beginning")
        };
        let mut parts = token.as_str().split('.');
        match (parts.next(), parts.next(), parts.next().map(str::parse), parts.next()) {
            (Some(TOKEN_VERSION), Some(found), Some(Ok(place)), None) if found == epoch => Ok(place),
            (Some(TOKEN_VERSION), Some(found), Some(Ok(_)), None) if found.parse::<StoreEpoch>().is_ok() => {
                Err(other())
            }
            _ => Err(none()),
        }
    }

    async fn epoch(&self) -> Result<String> {
        self.core
            .look(|replica, _| replica.epoch().to_string())
            .await
            .map_err(|_| Error::new(ErrorCode::ShuttingDown, "the node is shutting down"))
    }
}

impl Node {
    /// Returns a page of the feed, of what passes the query's filter as far as somebody may see it.
    pub(super) async fn changes_page(&self, query: &ChangesQuery, sight: &FeedSight) -> Result<ChangesPage> {
        let inner = &self.inner;
        let filter = query.filter()?;
        let epoch = inner.epoch().await?;
        let mut feed = self.feed();
        let mut place = match &query.since {
            Since::Beginning => 0,
            Since::Now => inner.reader.feed_end().map_err(read_error)?,
            Since::After(token) => Inner::place_of(token, &epoch)?,
        };
        let begun = tokio::time::Instant::now();
        let deadline = begun + query.wait.min(ChangesQuery::WAIT_MAX);
        loop {
            // Seen before reading: what comes after the read wakes the wait below.
            feed.mark_unchanged();
            let (collection, prefix) = (query.collection.clone(), query.prefix.clone().unwrap_or_default());
            let (limit, filter, sight) = (query.limit(), filter.clone(), sight.clone());
            let passes = move |key: &DocKey, view: &View| match &filter {
                None => Ok(true),
                // What may not be seen does not pass, whatever would be asked of it.
                Some(filter) => {
                    let rights = sight(&key.collection, &key.doc);
                    Ok(!rights.are_none() && filter.passes(view, &rights)?)
                }
            };
            let (entries, reached) = inner
                .read_on_thread(move |reader| reader.feed(place, collection.as_ref(), &prefix, limit, &passes))
                .await?
                .map_err(read_error)?;
            let moved = reached > place;
            place = reached;
            if !entries.is_empty() {
                let more = entries.len() >= limit;
                let items = entries
                    .into_iter()
                    .map(|entry| {
                        let json = (query.content == ChangeContent::Documents && !entry.view.deleted)
                            .then(|| Bytes::clone(&entry.view.json));
                        Ok(Change {
                            token: inner.token(&epoch, entry.seq)?,
                            collection: entry.key.collection,
                            id: entry.key.doc,
                            kind: match (entry.view.erased, entry.view.deleted) {
                                (true, _) => ChangeKind::Erased,
                                (false, true) => ChangeKind::Deleted,
                                (false, false) => ChangeKind::Changed,
                            },
                            heads: Heads::new(entry.view.heads),
                            modified: Timestamp::from_millis(entry.view.modified.millis()),
                            json,
                        })
                    })
                    .collect::<Result<_>>()?;
                return Ok(ChangesPage { items, next: inner.token(&epoch, place)?, more });
            }
            if moved && begun.elapsed() < inner.config.query_time {
                continue;
            }
            if moved {
                // Much was looked at in vain: whoever asks goes on from here.
                return Ok(ChangesPage { items: Vec::new(), next: inner.token(&epoch, place)?, more: true });
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let waited = if left > Duration::ZERO {
                tokio::time::timeout(left, feed.changed()).await
            } else {
                return Ok(ChangesPage { items: Vec::new(), next: inner.token(&epoch, place)?, more: false });
            };
            match waited {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::new(ErrorCode::ShuttingDown, "the node is shutting down")),
                Err(_) => {
                    return Ok(ChangesPage { items: Vec::new(), next: inner.token(&epoch, place)?, more: false });
                }
            }
        }
    }
}
