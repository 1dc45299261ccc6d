//! Causal sessions at this node: what it shows is published with each batch, what a session has seen elsewhere is waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use folkmoot_core::id::{ShardId, StoreEpoch};
use folkmoot_core::replica::{CatchUp, Lag, Replica, ShardReach, Shown};
use folkmoot_core::replication::Reach;

use super::convert::read_error;
use super::database::gone;
use super::{Inner, Node};
use crate::api::{Error, ErrorCode, Result, Seen, SessionToken, Sessions, Touched};

/// How long a call waits for what its session has seen, or a write for its durability, when the client does not say.
pub(super) const WAIT: Duration = Duration::from_secs(5);
/// The longest that either may wait.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
/// Who waits looks at the replica after this long, and then after twice as long each time,
const LOOK_FIRST: Duration = Duration::from_millis(2);
/// but at least so often: waiting for something costs the replica's thread little, however many do.
const LOOK_LAST: Duration = Duration::from_millis(32);
/// How long a read waits until the batch that it has seen is published. It is on the disk already.
const PUBLISHED_WAIT: Duration = Duration::from_secs(5);

/// How far the shards are, as of the last batch.
#[derive(Debug)]
pub(super) struct Published {
    store: StoreEpoch,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    feed: u64,
    shards: BTreeMap<ShardId, Arc<[Reach]>>,
    /// What readers of the feed are shown of them.
    shown: BTreeMap<ShardId, Shown>,
}

impl Published {
    pub(super) fn of(replica: &mut Replica, feed: u64) -> Arc<Self> {
        let published = Self { store: replica.epoch(), state: RwLock::default() };
        let shards: Vec<ShardId> = replica.engine().digests().map(|(shard, _)| shard.clone()).collect();
        published.advance(replica, feed, &shards);
        published.show(replica);
        Arc::new(published)
    }

    /// Takes note that a batch with something of these shards is durable.
    pub(super) fn advance(&self, replica: &Replica, feed: u64, shards: &[ShardId]) {
        let latest = |shard| replica.engine().latest_streams(shard, SessionToken::STREAMS_MAX).into();
        let latest: Vec<Arc<[Reach]>> = shards.iter().map(latest).collect();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.feed = feed;
        state.shards.extend(shards.iter().cloned().zip(latest));
    }

    /// Takes note of what readers of the feed are shown by now.
    pub(super) fn show(&self, replica: &mut Replica) {
        let shown = replica.take_shown();
        if !shown.is_empty() {
            self.state.write().unwrap_or_else(PoisonError::into_inner).shown.extend(shown);
        }
    }

    pub(super) const fn store(&self) -> StoreEpoch {
        self.store
    }

    /// Returns what has been seen by who has read the feed up to a place; where that is not known, what it had seen before. Nothing
    /// if it is too much for a token: a part of it is of no use.
    pub(super) fn seen_at(
        &self,
        place: u64,
        is_followed: &dyn Fn(&ShardId) -> bool,
        before: &SessionToken,
    ) -> SessionToken {
        let state = self.read();
        let followed = state.shown.iter().filter(|(shard, _)| is_followed(shard));
        let seen: Vec<Seen> = followed
            .filter_map(|(shard, shown)| {
                if shown.feed > place {
                    return before.shards().iter().find(|seen| seen.shard == *shard).cloned();
                }
                Some(Seen { shard: shard.clone(), store: Some(self.store), streams: shown.streams.to_vec() })
            })
            .collect();
        let count = seen.len();
        let token = SessionToken::of(seen);
        if token.shards().len() < count { SessionToken::default() } else { token }
    }

    /// Returns how far is here what is touched: what holds documents first, then who may do what.
    fn of_touched(&self, touched: &Touched) -> Vec<Seen> {
        let state = self.read();
        let seen = |(shard, streams): (&ShardId, &Arc<[Reach]>)| Seen {
            shard: shard.clone(),
            store: Some(self.store),
            streams: streams.to_vec(),
        };
        let mut shards = Vec::new();
        if let Some(collection) = &touched.collection {
            let first = ShardId { collection: collection.clone(), index: 0, of: 0 };
            let mut all = state.shards.range(first..).take_while(|(shard, _)| shard.collection == *collection);
            match &touched.id {
                None => shards.extend(all.map(seen)),
                Some(id) => {
                    let one = all.next().map(|(shard, _)| ShardId::of_document(collection, id, shard.of));
                    shards.extend(one.and_then(|one| state.shards.get_key_value(&one)).map(seen));
                }
            }
        }
        shards.extend(state.shards.get_key_value(&ShardId::control()).map(seen));
        shards
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of this was published here: a token of this store's own is believed no further than that.
    fn has(&self, shard: &ShardId, streams: &[Reach]) -> bool {
        let state = self.read();
        let Some(here) = state.shards.get(shard) else { return false };
        streams.iter().all(|reach| here.iter().any(|known| known.stream == reach.stream && known.seq >= reach.seq))
    }
}

/// When to look at the replica again: ever more rarely, until a call has waited for long enough.
pub(super) struct Pace {
    deadline: tokio::time::Instant,
    pause: Duration,
}

impl Pace {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        let deadline = tokio::time::Instant::now() + timeout.unwrap_or(WAIT).min(WAIT_MAX);
        Self { deadline, pause: LOOK_FIRST }
    }

    /// Begins to look often again, for something else within the same time.
    pub(super) fn again(&mut self) {
        self.pause = LOOK_FIRST;
    }

    /// Waits; returns false if the time was over already.
    pub(super) async fn wait(&mut self) -> bool {
        let now = tokio::time::Instant::now();
        if now >= self.deadline {
            return false;
        }
        tokio::time::sleep_until(self.deadline.min(now + self.pause)).await;
        self.pause = (self.pause * 2).min(LOOK_LAST);
        true
    }
}

fn not_reached(lag: Lag, wanted: &[ShardReach]) -> Error {
    let of = wanted.iter().map(|wanted| wanted.shard.collection.as_str()).collect::<Vec<_>>().join(", ");
    let detail = match lag {
        Lag { ops: 0, .. } => format!("what the session has seen of {of} is here and not shown yet"),
        Lag { ops, streams } => {
            format!("this node lacks {ops} ops of {streams} streams of {of} that the session has seen")
        }
    };
    Error::new(ErrorCode::SessionNotReached, detail)
        .hint("ask another node, or wait longer (Folkmoot-Timeout); without Folkmoot-Session this node answers from what it has")
        .retry_after(Duration::from_secs(1))
}

impl Inner {
    /// Waits until what is touched shows at least what a session has seen of it.
    pub(super) async fn catch_up(
        &self,
        touched: &Touched,
        session: Option<&SessionToken>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let Some(session) = session else { return Ok(()) };
        let seen = session.shards().iter().filter(|seen| touched.includes(&seen.shard));
        let lacking = seen.filter(|seen| {
            let is_ours = seen.store == Some(self.published.store);
            !(is_ours && self.published.has(&seen.shard, &seen.streams))
        });
        let wanted: Vec<ShardReach> =
            lacking.map(|seen| ShardReach { shard: seen.shard.clone(), streams: seen.streams.clone() }).collect();
        self.catch_up_with(wanted, timeout).await
    }

    /// Waits until all of this is shown here.
    pub(super) async fn catch_up_with(&self, wanted: Vec<ShardReach>, timeout: Option<Duration>) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let begun = tokio::time::Instant::now();
        let mut pace = Pace::new(timeout);
        let mut waiting = CatchUp::new(wanted.clone());
        let waited = loop {
            let mut asked = waiting;
            let looked = self.core.look(move |replica, _| (replica.catch_up(&mut asked), asked)).await;
            let lag;
            (lag, waiting) = looked.map_err(|_| gone())?;
            if waiting.is_done() {
                break Ok(());
            }
            if !pace.wait().await {
                metrics::counter!("folkmoot_sessions_not_reached_total").increment(1);
                break Err(not_reached(lag, &wanted));
            }
        };
        metrics::histogram!("folkmoot_session_wait_seconds").record(begun.elapsed().as_secs_f64());
        waited
    }

    /// Returns the token of a session that has now seen what is touched, up to a place in the feed.
    pub(super) async fn session_after(
        &self,
        touched: &Touched,
        seen: Option<&SessionToken>,
        feed: u64,
    ) -> Result<SessionToken> {
        // A batch can be read a moment before it is published.
        if self.published.read().feed < feed {
            let mut advanced = self.core.feed.clone();
            let published = advanced.wait_for(|published| *published >= feed);
            match tokio::time::timeout(PUBLISHED_WAIT, published).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(gone()),
                Err(_) => return Err(Error::new(ErrorCode::Busy, "the node has too much to do")),
            }
        }
        let now = SessionToken::of(self.published.of_touched(touched));
        Ok(match seen {
            None => now,
            Some(seen) => now.after(seen),
        })
    }

    /// As [`Self::session_after`] for whoever has read what there is now.
    pub(super) async fn session_now(&self, touched: &Touched, seen: Option<&SessionToken>) -> Result<SessionToken> {
        let feed = self.reader.feed_end().map_err(read_error)?;
        self.session_after(touched, seen, feed).await
    }
}

#[async_trait]
impl Sessions for Node {
    async fn catch_up(&self, touched: &Touched, session: &SessionToken, timeout: Option<Duration>) -> Result<()> {
        self.inner.catch_up(touched, Some(session), timeout).await
    }

    async fn session(&self, touched: &Touched, seen: Option<&SessionToken>) -> Result<SessionToken> {
        self.inner.session_now(touched, seen).await
    }
}
