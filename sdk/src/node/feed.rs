//! The feed of changes, and how that of another node goes on here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::id::{CollectionName, DocId, ShardId, StoreEpoch};
use folkmoot_core::op::FieldRights;
use folkmoot_core::query::Filter;
use folkmoot_core::replica::{DocKey, FeedEntry, FeedPage, ReadError, ShardReach, View};

use super::convert::read_error;
use super::database::gone;
use super::{Inner, Node};
use crate::api::{
    Change, ChangeContent, ChangeKind, ChangeToken, ChangesPage, ChangesQuery, Error, ErrorCode, Heads, Result,
    SessionToken, Since, Timestamp,
};

/// Tokens of the feed begin with this; then the store's epoch, the place, and what was seen up to there, as a session says it.
const TOKEN_VERSION: &str = "f1";
/// How long one that comes from another node waits for what it has seen there: without it, it may be told of an earlier version again.
const CATCH_UP_WAIT: Duration = Duration::from_secs(1);

/// Says which fields of documents somebody may see.
pub(super) type FeedSight = Arc<dyn Fn(&CollectionName, &DocId) -> FieldRights + Send + Sync>;

/// The owner sees everything.
pub(super) fn all_fed() -> FeedSight {
    Arc::new(|_, _| FieldRights::all())
}

/// How far a reader of the feed is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    store: StoreEpoch,
    place: u64,
    /// What the reader has seen of whatever it follows, when it was last at the end; nothing if it never was.
    seen: SessionToken,
}

impl Position {
    fn token(&self) -> Result<ChangeToken> {
        let Self { store, place, seen } = self;
        let text = format!("{TOKEN_VERSION}.{store}.{place}");
        ChangeToken::new(if seen.shards().is_empty() { text } else { format!("{text}.{seen}") })
    }

    fn read(token: &ChangeToken) -> Result<Self> {
        let mut parts = token.as_str().splitn(4, '.');
        let version = parts.next().filter(|version| *version == TOKEN_VERSION);
        let store = parts.next().and_then(|store| store.parse().ok());
        let place = parts.next().and_then(|place| place.parse().ok());
        let seen = parts.next().map_or_else(|| Some(SessionToken::default()), |seen| SessionToken::new(seen).ok());
        match (version, store, place, seen) {
            (Some(_), Some(store), Some(place), Some(seen)) => Ok(Self { store, place, seen }),
            _ => Err(Error::new(ErrorCode::InvalidCursor, "`since` is not a token of a change feed")
                .hint("pass the `next` of an answer as it is, `now`, or nothing for the beginning")),
        }
    }
}

/// Whether the feed of a collection, or of all, has anything of a shard. Who may do what bears on all of them.
fn is_followed(collection: Option<&CollectionName>, shard: &ShardId) -> bool {
    shard.is_control() || collection.is_none_or(|collection| *collection == shard.collection)
}

impl Inner {
    /// Finds out where a reader of the feed is here.
    async fn position(&self, query: &ChangesQuery) -> Result<Position> {
        let store = self.published.store();
        let place = match &query.since {
            Since::Beginning => 0,
            Since::Now => {
                let place = self.reader.feed_end().map_err(read_error)?;
                return Ok(self.at_end(query, Position { store, place, seen: SessionToken::default() }));
            }
            Since::After(token) => {
                let position = Position::read(token)?;
                if position.store == store {
                    return Ok(position);
                }
                let place = self.place_of_other(query, &position.seen).await?;
                return Ok(Position { store, place, seen: position.seen });
            }
        };
        Ok(Position { store, place, seen: SessionToken::default() })
    }

    /// Returns the place here up to which a reader has missed nothing that has seen this elsewhere.
    async fn place_of_other(&self, query: &ChangesQuery, seen: &SessionToken) -> Result<u64> {
        let collection = query.collection.clone();
        let followed = seen.shards().iter().filter(|seen| is_followed(collection.as_ref(), &seen.shard));
        let seen: Vec<ShardReach> =
            followed.map(|seen| ShardReach { shard: seen.shard.clone(), streams: seen.streams.clone() }).collect();
        match self.catch_up_with(seen.clone(), Some(CATCH_UP_WAIT)).await {
            Ok(()) => {}
            // The node that has it may be gone for good. What comes later comes later.
            Err(error) if error.code() == ErrorCode::SessionNotReached => {}
            Err(error) => return Err(error),
        }
        let looked = self.core.look(move |replica, _| {
            let end = replica.feed_place(&|_| false, &[]);
            let place = replica.feed_place(&|shard| is_followed(collection.as_ref(), shard), &seen);
            (place == end, place)
        });
        let (is_end, place) = looked.await.map_err(|_| gone())?;
        let place = self.read_on_thread(move |reader| reader.feed_place(&place)).await?.map_err(read_error)?;
        let from = match (is_end, place) {
            (true, _) => "end",
            (false, 0) => "beginning",
            (false, _) => "mark",
        };
        metrics::counter!("folkmoot_feeds_from_elsewhere_total", "from" => from).increment(1);
        Ok(place)
    }

    /// Returns how far a reader is that has read all there is.
    fn at_end(&self, query: &ChangesQuery, at: Position) -> Position {
        let Position { store, place, seen } = at;
        let is_followed = |shard: &ShardId| is_followed(query.collection.as_ref(), shard);
        Position { store, place, seen: self.published.seen_at(place, &is_followed, &seen) }
    }
}

/// What of the feed passes.
#[derive(Clone)]
struct Passes {
    collection: Option<CollectionName>,
    prefix: String,
    filter: Option<Filter>,
    sight: FeedSight,
}

impl Passes {
    fn is_meant(&self, key: &DocKey) -> bool {
        self.collection.as_ref().is_none_or(|collection| *collection == key.collection)
            && key.doc.as_str().starts_with(&self.prefix)
    }

    fn passes(&self, key: &DocKey, view: &View) -> Result<bool, ReadError> {
        let Some(filter) = &self.filter else { return Ok(true) };
        let rights = (self.sight)(&key.collection, &key.doc);
        // What may not be seen does not pass, whatever would be asked of it.
        Ok(!rights.are_none() && filter.passes(view, &rights)?)
    }
}

impl Inner {
    /// Reads a part of the feed: from memory, where it is there, and where nothing has to be looked at that takes long.
    async fn feed_after(
        &self,
        place: u64,
        query: &ChangesQuery,
        filter: Option<&Filter>,
        sight: &FeedSight,
    ) -> Result<FeedPage> {
        let limit = query.limit();
        let passes = Passes {
            collection: query.collection.clone(),
            prefix: query.prefix.clone().unwrap_or_default(),
            filter: filter.cloned(),
            sight: sight.clone(),
        };
        if filter.is_none() {
            // Whose time ends is hidden from one moment to the next, whatever is in the feed.
            let is_fit = |entry: &FeedEntry| !passes.is_meant(&entry.key) || !self.reader.ends(&entry.key.collection);
            let page = self.tail.page(place, limit, &is_fit, &|entry| Ok(passes.is_meant(&entry.key)));
            if let Some(page) = page {
                return page.map_err(read_error);
            }
        }
        self.read_on_thread(move |reader| {
            let all = |key: &DocKey, view: &View| passes.passes(key, view);
            reader.feed(place, passes.collection.as_ref(), &passes.prefix, limit, &all)
        })
        .await?
        .map_err(read_error)
    }
}

fn change(entry: FeedEntry, token: ChangeToken, content: ChangeContent) -> Change {
    let FeedEntry { seq: _, key, view } = entry;
    let json = (content == ChangeContent::Documents && !view.deleted).then(|| Bytes::clone(&view.json));
    Change {
        token,
        collection: key.collection,
        id: key.doc,
        kind: match (view.erased, view.deleted) {
            (true, _) => ChangeKind::Erased,
            (false, true) => ChangeKind::Deleted,
            (false, false) => ChangeKind::Changed,
        },
        heads: Heads::new(view.heads),
        modified: Timestamp::from_millis(view.modified.millis()),
        json,
    }
}

impl Node {
    /// Returns a page of the feed, of what passes the query's filter as far as somebody may see it.
    pub(super) async fn changes_page(&self, query: &ChangesQuery, sight: &FeedSight) -> Result<ChangesPage> {
        let inner = &self.inner;
        let filter = query.filter()?;
        // Seen before reading: what comes after the read wakes the wait below.
        let mut moved_on = inner.tail.moved();
        let _waits = (!query.wait.is_zero()).then(|| inner.tail.wait());
        let begun = tokio::time::Instant::now();
        let mut at = inner.position(query).await?;
        let deadline = begun + query.wait.min(ChangesQuery::WAIT_MAX);
        loop {
            moved_on.mark_unchanged();
            let page = inner.feed_after(at.place, query, filter.as_ref(), sight).await?;
            let before = std::mem::replace(&mut at.place, page.reached);
            let on_the_way = at.clone();
            if page.is_end {
                at = inner.at_end(query, at);
            }
            if !page.entries.is_empty() {
                let next = at.token()?;
                let more = page.entries.len() >= query.limit();
                let last = page.entries.len() - 1;
                let items = page.entries.into_iter().enumerate().map(|(number, entry)| {
                    // Behind the last of them is where the page ends.
                    let token = if number == last {
                        next.clone()
                    } else {
                        Position { place: entry.seq, ..on_the_way.clone() }.token()?
                    };
                    Ok(change(entry, token, query.content))
                });
                return Ok(ChangesPage { items: items.collect::<Result<_>>()?, next, more });
            }
            let moved = page.reached > before;
            if moved && begun.elapsed() < inner.config.query_time {
                continue;
            }
            if moved {
                // Much was looked at in vain: whoever asks goes on from here.
                return Ok(ChangesPage { items: Vec::new(), next: at.token()?, more: true });
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let waited = if left > Duration::ZERO {
                tokio::time::timeout(left, moved_on.changed()).await
            } else {
                return Ok(ChangesPage { items: Vec::new(), next: at.token()?, more: false });
            };
            match waited {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(gone()),
                Err(_) => return Ok(ChangesPage { items: Vec::new(), next: at.token()?, more: false }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_core::replication::Reach;

    use super::*;
    use crate::api::Seen;

    #[test]
    fn tokens_are_read_as_they_were_written_and_nothing_else_is() {
        let store = StoreEpoch::new([7; StoreEpoch::LEN]);
        let streams = vec![Reach { stream: [1; 8], seq: 9, is_bare: false }];
        let seen = SessionToken::of(vec![Seen { shard: ShardId::control(), store: Some(store), streams }]);
        for seen in [SessionToken::default(), seen] {
            let position = Position { store, place: u64::MAX, seen };
            assert_eq!(Position::read(&position.token().unwrap()).unwrap(), position);
        }
        let epoch = "07".repeat(StoreEpoch::LEN);
        for bad in ["x", "f1", "f1.07", "f2.E.1", "f1.E.", "f1.E.-1", "f1.E.1.", "f1.E.1.s1.!", "f1.E.1.x", "f1.EE.1"] {
            let token = ChangeToken::new(bad.replace('E', &epoch)).unwrap();
            assert_eq!(Position::read(&token).map_err(|error| error.code()), Err(ErrorCode::InvalidCursor), "{bad}");
        }
    }
}
