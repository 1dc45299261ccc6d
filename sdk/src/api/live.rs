//! Live queries: what a query finds, and then how that changes.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use folkmoot_core::id::{CollectionName, DocId};
use futures_util::stream::{BoxStream, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::changes::{ChangeToken, ChangesQuery, Since};
use super::document::Document;
use super::error::{Error, ErrorCode, Result};
use super::query::FindQuery;
use super::{Database, ListQuery};

/// What is told of a live query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveEvent {
    /// The query finds a document that it did not find before.
    Added(Document),
    /// A document that it finds is different.
    Changed(Document),
    /// It does not find a document any more: it is gone, is not meant any more, has no place among so many, or may not be seen.
    Removed(DocId),
    /// What was told so far comes to what the query finds.
    Synced,
}

/// The part of a database that lets queries be followed.
pub trait Live: Send + Sync {
    /// Follows a query: tells what it finds, [`LiveEvent::Synced`], and then what changes of that, each time up to another `Synced`.
    ///
    /// A query is followed within one page: so many documents as it says, and 4 MiB of them. In which order they are is left to
    /// whoever follows. What happens while nobody takes events is told as what has become of it. It ends after an error.
    ///
    /// # Errors
    /// As [`Queries::find`](super::Queries::find); that the caller may not see it any more.
    fn live(&self, collection: &CollectionName, query: FindQuery) -> BoxStream<'static, Result<LiveEvent>>;

    /// Follows a document, whether it exists or not.
    fn live_document(&self, collection: &CollectionName, id: &DocId) -> BoxStream<'static, Result<LiveEvent>> {
        self.live(collection, FindQuery::new(json!({ "_id": id.as_str() })))
    }
}

/// Changed documents that are looked at one by one; of more the whole query is asked again.
const ONE_BY_ONE_MAX: usize = 64;
/// Between two runs of a whole query for the same follower.
const WHOLE_PAUSE: Duration = Duration::from_millis(100);

/// Follows a query by the feed of changes, of a database in this process.
pub(crate) fn follow<D: Database + Clone + 'static>(
    database: D,
    collection: CollectionName,
    query: FindQuery,
) -> BoxStream<'static, Result<LiveEvent>> {
    if query.at.is_some() {
        let error = Error::new(ErrorCode::InvalidQuery, "a live query shows documents as they are").pointer("/at");
        return futures_util::stream::once(std::future::ready(Err(error))).boxed();
    }
    let follower = Follower { database, collection, query, token: None, window: Window::default(), asked: None };
    futures_util::stream::try_unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Ok(Some((event, follower)))
    })
    .boxed()
}

struct Follower<D> {
    database: D,
    collection: CollectionName,
    query: FindQuery,
    /// Up to where changes were looked at.
    token: Option<ChangeToken>,
    window: Window,
    /// When the whole query was asked last, and how long that took.
    asked: Option<(Instant, Duration)>,
}

/// What was told, and what is to be told.
#[derive(Default)]
pub(crate) struct Window {
    /// What the query finds, as it was told: of each document a hash of its version and of what is shown of it.
    known: BTreeMap<DocId, u64>,
    /// Whether there may be more than is told.
    is_full: bool,
    is_synced: bool,
    events: VecDeque<LiveEvent>,
}

fn mark(document: &Document) -> u64 {
    let mut hasher = DefaultHasher::new();
    document.heads.to_string().hash(&mut hasher);
    // Rights may show another part of the same version.
    document.json.hash(&mut hasher);
    hasher.finish()
}

impl Window {
    pub(crate) fn next(&mut self) -> Option<LiveEvent> {
        self.events.pop_front()
    }

    /// Takes a document that the query finds now.
    pub(crate) fn put(&mut self, document: Document) {
        let mark = mark(&document);
        match self.known.insert(document.id.clone(), mark) {
            None => self.events.push_back(LiveEvent::Added(document)),
            Some(before) if before != mark => self.events.push_back(LiveEvent::Changed(document)),
            Some(_) => {}
        }
    }

    /// Takes a document that the query does not find.
    pub(crate) fn remove(&mut self, id: &DocId) {
        if self.known.remove(id).is_some() {
            self.events.push_back(LiveEvent::Removed(id.clone()));
        }
    }

    /// Takes all that the query finds.
    pub(crate) fn replace(&mut self, documents: Vec<Document>) {
        let found: std::collections::BTreeSet<&DocId> = documents.iter().map(|document| &document.id).collect();
        let gone: Vec<DocId> = self.known.keys().filter(|id| !found.contains(id)).cloned().collect();
        gone.iter().for_each(|id| self.remove(id));
        documents.into_iter().for_each(|document| self.put(document));
    }

    /// Says that this is all, if anything was told or it is the first time.
    pub(crate) fn sync(&mut self) {
        let is_first = !std::mem::replace(&mut self.is_synced, true);
        if is_first || !self.events.is_empty() {
            self.events.push_back(LiveEvent::Synced);
        }
    }

    /// Says that this is all: what there was to tell may have been taken already.
    pub(crate) fn say_synced(&mut self) {
        self.is_synced = true;
        self.events.push_back(LiveEvent::Synced);
    }
}

impl<D: Database + Clone + 'static> Follower<D> {
    async fn next(&mut self) -> Result<LiveEvent> {
        loop {
            if let Some(event) = self.window.next() {
                return Ok(event);
            }
            self.advance().await?;
        }
    }

    fn feed(&self, since: Since, wait: Duration) -> ChangesQuery {
        let limit = Some(ChangesQuery::LIMIT_MAX);
        ChangesQuery { collection: Some(self.collection.clone()), since, wait, limit, ..ChangesQuery::default() }
    }

    /// Waits for changes and finds out what they come to.
    async fn advance(&mut self) -> Result<()> {
        let Some(token) = self.token.clone() else {
            // Whatever comes while the query runs is looked at again behind it.
            self.token = Some(self.database.changes(&self.feed(Since::Now, Duration::ZERO)).await?.next);
            return self.ask_whole().await;
        };
        let begun = Instant::now();
        let page = self.database.changes(&self.feed(Since::After(token), ChangesQuery::WAIT_MAX)).await?;
        self.token = Some(page.next);
        if page.items.is_empty() {
            // Before its time: somebody's rights have changed, perhaps this one's.
            return if begun.elapsed() < ChangesQuery::WAIT_MAX && !page.more {
                self.ask_whole().await
            } else {
                Ok(())
            };
        }
        let mut ids: Vec<DocId> = page.items.into_iter().map(|change| change.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > ONE_BY_ONE_MAX || !self.ask_each(ids).await? {
            return self.ask_whole().await;
        }
        Ok(())
    }

    /// Looks at changed documents; returns false where only the whole query can tell what they come to.
    async fn ask_each(&mut self, ids: Vec<DocId>) -> Result<bool> {
        for id in ids {
            let one = json!({ "_id": id.as_str() });
            let selector = match &self.query.selector {
                Value::Null => one,
                selector => json!({ "$and": [one, selector] }),
            };
            let query = FindQuery {
                selector,
                sort: Vec::new(),
                limit: Some(1),
                after: None,
                fields: self.query.fields.clone(),
                at: None,
            };
            let found = match self.database.find(&self.collection, &query).await {
                Ok(page) => page.items.into_iter().next(),
                // As deep as may be already.
                Err(error) if error.code() == ErrorCode::InvalidQuery => return Ok(false),
                Err(error) => return Err(error),
            };
            metrics::counter!("folkmoot_live_query_runs_total", "of" => "document").increment(1);
            let is_known = self.window.known.contains_key(&id);
            // Where there is room for so many only, another one may take the place of this one, or the other way round.
            if self.window.is_full && (is_known || found.is_some()) {
                return Ok(false);
            }
            match found {
                Some(document) => self.window.put(document),
                None => self.window.remove(&id),
            }
            if self.window.known.len() > self.limit() {
                return Ok(false);
            }
        }
        self.window.sync();
        Ok(true)
    }

    fn limit(&self) -> usize {
        self.query.limit.unwrap_or(ListQuery::LIMIT_DEFAULT)
    }

    /// Asks the whole query, not too often: what comes meanwhile is looked at together.
    async fn ask_whole(&mut self) -> Result<()> {
        if let Some((when, took)) = self.asked {
            tokio::time::sleep_until(when + WHOLE_PAUSE.max(took * 4)).await;
        }
        let begun = Instant::now();
        let (mut documents, mut bytes, mut query) = (Vec::new(), 0, self.query.clone());
        let is_full = loop {
            query.limit = Some(self.limit().saturating_sub(documents.len()).max(1));
            let page = self.database.find(&self.collection, &query).await?;
            metrics::counter!("folkmoot_live_query_runs_total", "of" => "collection").increment(1);
            bytes += page.items.iter().map(|document| document.json.len()).sum::<usize>();
            documents.extend(page.items);
            // A page may end before its time is over, but for its size.
            let is_whole = documents.len() >= self.limit() || bytes >= ListQuery::PAGE_BYTES_MAX;
            match page.next {
                None => break false,
                Some(_) if is_whole => break true,
                next @ Some(_) => query.after = next,
            }
        };
        self.window.is_full = is_full;
        self.window.replace(documents);
        self.window.sync();
        self.asked = Some((Instant::now(), begun.elapsed()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::{Heads, Timestamp};

    fn document(id: &str, json: &'static str) -> Document {
        let (collection, id) = ("notes".parse().unwrap(), id.parse().unwrap());
        let (heads, modified) = (Heads::new(Vec::new()), Timestamp::from_millis(0));
        Document {
            collection,
            id,
            json: Bytes::from_static(json.as_bytes()),
            heads,
            modified,
            stale: false,
            session: None,
        }
    }

    #[test]
    fn a_window_tells_what_is_different() {
        let mut window = Window::default();
        let told = |window: &mut Window| {
            window.sync();
            let events = std::iter::from_fn(|| window.next()).map(|event| match event {
                LiveEvent::Added(document) => format!("+{}", document.id),
                LiveEvent::Changed(document) => format!("~{}", document.id),
                LiveEvent::Removed(id) => format!("-{id}"),
                LiveEvent::Synced => ".".to_owned(),
            });
            events.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&mut window), ".", "that there is nothing is told once");
        assert_eq!(told(&mut window), "");
        window.replace(vec![document("a", "{}"), document("b", "{}")]);
        assert_eq!(told(&mut window), "+a +b .");
        window.replace(vec![document("b", "{}"), document("c", "{}")]);
        assert_eq!(told(&mut window), "-a +c .");
        window.put(document("b", "{\"n\":1}"));
        window.put(document("c", "{}"));
        window.remove(&"a".parse().unwrap());
        assert_eq!(told(&mut window), "~b .");
    }
}
