//! What lets the feed of one replica go on at another.
//!
//! A place in the feed means something to one store only. What two replicas can compare is how far the streams of a shard reach.
//! So it is known here of two kinds of moments:
//!
//! - *Shown*: ops so far along the streams are in the documents that stand in the feed up to a place. Who has read the feed up to there, at
//!   one time, has seen what all of these ops come to.
//! - *Marks*: up to a place, the documents in the feed hold nothing but ops so far along the streams. Who has seen what these come to elsewhere
//!   has missed nothing up to there. Marks are kept in the store, and the older they are the fewer.
//!
//! Of a shard that holds more streams than a token does, or one of which a fork is known, there are no marks: the feed begins anew.
//!
//! Invariant: what a reader saw elsewhere and is not told again here was made of a part of the ops that it saw there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::catch_up::{CatchUp, ShardReach};
use super::open::{OpenError, damaged};
use super::read::{self, ReadError, Reader};
use super::{Now, Replica};
use crate::id::ShardId;
use crate::op::codec::{self, CodecError};
use crate::replication::Reach;
use crate::store::keys::{Key, Parts};
use crate::store::{Keyspace, Order, Read, Span, envelope};

/// What the keys of marks begin with in the keyspace `meta`.
const MARKS: &[u8] = b"feed-mark/";
/// Streams of a mark: as many as a token of a session holds of a shard.
pub const MARKED_STREAMS_MAX: usize = 64;
/// Bytes of a mark.
const MARK_BYTES_MAX: usize = 4 << 10;
/// Marks of a shard. Each is about twice as old as the one after it.
const MARKS_OF_SHARD_MAX: usize = 64;
/// Between two looks at how far a shard is: so much is told again at most, for no reason but that.
const MARK_EVERY_MS: u64 = 1_000;

/// Where a mark stands.
#[derive(Clone, PartialEq, Eq, Debug)]
struct MarkKey {
    shard: ShardId,
    place: u64,
}

impl Key for MarkKey {
    const KIND: &'static str = "mark of the feed";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MARKS);
        self.shard.write(out);
        self.place.write(out);
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        parts.literal(MARKS)?;
        Some(Self { shard: ShardId::read(parts)?, place: u64::read(parts)? })
    }
}

/// What the store holds of a mark.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FeedMark {
    /// When it was made, by the wall clock.
    made_ms: u64,
    /// How far the streams were.
    streams: Vec<(ByteArray<8>, u64)>,
}

impl FeedMark {
    fn new(made_ms: u64, streams: &[Reach]) -> Self {
        Self { made_ms, streams: streams.iter().map(|reach| (ByteArray::new(reach.stream), reach.seq)).collect() }
    }

    /// Encodes the mark.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a mark.
    ///
    /// # Errors
    /// [`CodecError`] if it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, MARK_BYTES_MAX)
    }

    fn is_within(&self, seen: &[Reach]) -> bool {
        self.streams.iter().all(|(stream, seq)| has(seen, &stream.into_array(), *seq))
    }
}

fn has(seen: &[Reach], stream: &[u8; 8], seq: u64) -> bool {
    seen.iter().any(|reach| reach.stream == *stream && reach.seq >= seq)
}

/// What is known of a shard.
#[derive(Debug)]
struct ShardMarks {
    /// How far its streams are, if none has moved since this was looked at and numbers can tell it.
    standing: Option<Vec<Reach>>,
    looked_at_ms: u64,
    /// Places of the marks in the store, with when they were made; the oldest first.
    kept: Vec<(u64, u64)>,
}

/// What readers of the feed have been shown of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Up to this place.
    pub feed: u64,
    /// What ops up to these come to.
    pub streams: Arc<[Reach]>,
}

/// How far streams of shards are.
type Streams = BTreeMap<ShardId, Arc<[Reach]>>;

/// Marks, and what is shown.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The last place that is committed.
    feed: u64,
    shards: BTreeMap<ShardId, ShardMarks>,
    /// Shards that moved and were not looked at since.
    due: BTreeSet<ShardId>,
    /// What the next batch is to write: a mark, or that there is none any more.
    unwritten: BTreeMap<Vec<u8>, Option<FeedMark>>,
    /// Shards that moved since it was last looked at what is shown of them.
    moved: BTreeSet<ShardId>,
    /// What will be shown when this has come about.
    coming: Option<(CatchUp, Streams)>,
    /// What was found to be shown, until it is taken.
    shown: BTreeMap<ShardId, Shown>,
}

/// Takes those out of which there are enough of about the same age, and returns them.
fn thin_out(kept: &mut Vec<(u64, u64)>, now_ms: u64) -> Vec<u64> {
    let mut out = Vec::new();
    let mut at = 1;
    while let (Some(&(_, older)), Some(&(place, _)), Some(&(_, newer))) =
        (kept.get(at - 1), kept.get(at), kept.get(at + 1))
    {
        if newer.saturating_sub(older) <= now_ms.saturating_sub(newer) {
            out.push(place);
            kept.remove(at);
        } else {
            at += 1;
        }
    }
    // A clock that jumps makes them seem further apart than they are.
    let surplus = kept.len().saturating_sub(MARKS_OF_SHARD_MAX);
    out.extend(kept.drain(..surplus).map(|(place, _)| place));
    out
}

impl Replica {
    /// Takes up the marks of the store.
    pub(super) fn resume_marks(&mut self, now: Now) -> Result<(), OpenError> {
        self.marks.feed = self.feed;
        let store = self.store.clone();
        for entry in store.scan(Keyspace::Meta, &Span::prefix(MARKS), Order::Ascending) {
            let (key, value) = entry?;
            let MarkKey { shard, place } = MarkKey::decode(&key).map_err(|error| damaged(Keyspace::Meta, error))?;
            let value = envelope::open(value).map_err(|error| damaged(Keyspace::Meta, error))?;
            let mark = FeedMark::decode(&value).map_err(|error| damaged(Keyspace::Meta, error))?;
            self.marks_of(&shard).kept.push((place, mark.made_ms));
        }
        let shards = self.engine.take_moved();
        for shard in &shards {
            self.look_at(shard, now);
        }
        self.marks.moved = shards;
        self.follow_shown();
        Ok(())
    }

    fn marks_of(&mut self, shard: &ShardId) -> &mut ShardMarks {
        // What was never heard of has nothing.
        let unknown = || ShardMarks { standing: Some(Vec::new()), looked_at_ms: 0, kept: Vec::new() };
        self.marks.shards.entry(shard.clone()).or_insert_with(unknown)
    }

    fn look_at(&mut self, shard: &ShardId, now: Now) {
        let standing = self.engine.all_streams(shard, MARKED_STREAMS_MAX);
        let marks = self.marks_of(shard);
        marks.standing = standing;
        marks.looked_at_ms = now.monotonic_ms;
    }

    /// Takes note that a batch is committed, up to a place in the feed: before it, its shards stood as they were last seen.
    pub(super) fn mark_batch(&mut self, now: Now, feed: u64) {
        let before = std::mem::replace(&mut self.marks.feed, feed);
        for shard in self.engine.take_moved() {
            let marks = self.marks_of(&shard);
            let standing = marks.standing.take();
            let is_new_place = marks.kept.last().is_none_or(|(place, _)| *place < before);
            if let Some(streams) = standing.filter(|_| before > 0 && is_new_place) {
                marks.kept.push((before, now.wall_ms));
                let gone = thin_out(&mut marks.kept, now.wall_ms);
                let key = |place| MarkKey { shard: shard.clone(), place }.encode();
                self.marks.unwritten.insert(key(before), Some(FeedMark::new(now.wall_ms, &streams)));
                self.marks.unwritten.extend(gone.into_iter().map(|place| (key(place), None)));
            }
            self.marks.due.insert(shard.clone());
            self.marks.moved.insert(shard);
        }
        self.look_at_due(now);
        self.follow_shown();
    }

    /// Looks how far shards are that moved, each at most once a second.
    pub(super) fn look_at_due(&mut self, now: Now) {
        let is_due = |shard: &&ShardId| {
            let looked_at = self.marks.shards.get(*shard).map_or(0, |marks| marks.looked_at_ms);
            now.monotonic_ms.saturating_sub(looked_at) >= MARK_EVERY_MS
        };
        let due: Vec<ShardId> = self.marks.due.iter().filter(is_due).cloned().collect();
        for shard in due {
            self.look_at(&shard, now);
            self.marks.due.remove(&shard);
        }
    }

    /// Stages marks. They make no batch of their own: one that is lost is missed by nobody who does not come from elsewhere.
    pub(super) fn stage_marks(&mut self) {
        for (key, mark) in std::mem::take(&mut self.marks.unwritten) {
            match mark {
                Some(mark) => self.put(Keyspace::Meta, key, &mark.encode()),
                None => self.delete(Keyspace::Meta, key),
            }
        }
    }

    /// Finds out what is shown by now.
    pub(super) fn follow_shown(&mut self) {
        loop {
            let (mut waiting, coming) = match self.marks.coming.take() {
                Some(coming) => coming,
                None if self.marks.moved.is_empty() => return,
                None => {
                    let moved = std::mem::take(&mut self.marks.moved);
                    let streams = |shard: &ShardId| -> Arc<[Reach]> {
                        let latest = self.engine.latest_streams(shard, MARKED_STREAMS_MAX);
                        // Of a bare one it is not known that all before it is here.
                        latest.into_iter().filter(|reach| !reach.is_bare).collect()
                    };
                    let coming: Streams = moved.into_iter().map(|shard| (shard.clone(), streams(&shard))).collect();
                    let wanted = coming.keys().map(|shard| ShardReach { shard: shard.clone(), streams: Vec::new() });
                    (CatchUp::new(wanted.collect()), coming)
                }
            };
            self.catch_up(&mut waiting);
            if !waiting.is_done() {
                self.marks.coming = Some((waiting, coming));
                return;
            }
            let feed = self.marks.feed;
            self.marks.shown.extend(coming.into_iter().map(|(shard, streams)| (shard, Shown { feed, streams })));
        }
    }

    /// Returns what was found to be shown since this was last asked.
    pub fn take_shown(&mut self) -> BTreeMap<ShardId, Shown> {
        std::mem::take(&mut self.marks.shown)
    }

    /// Begins to look for the place in the feed up to which somebody has missed nothing who has seen this elsewhere, of the
    /// shards that are followed.
    #[must_use]
    pub fn feed_place(&self, is_followed: &dyn Fn(&ShardId) -> bool, seen: &[ShardReach]) -> FeedPlace {
        let mut place = FeedPlace { at_most: self.marks.feed, behind: Vec::new() };
        for shard in self.marks.shards.keys().filter(|shard| is_followed(shard)) {
            let seen = seen.iter().find(|seen| seen.shard == *shard).map_or(&[][..], |seen| &seen.streams);
            let here = self.engine.all_streams(shard, MARKED_STREAMS_MAX);
            let is_seen = here.is_some_and(|here| here.iter().all(|reach| has(seen, &reach.stream, reach.seq)));
            if is_seen {
                continue;
            }
            // The last ones may not be in the store yet.
            let key = |place| MarkKey { shard: shard.clone(), place }.encode();
            let unwritten = self.marks.unwritten.range(key(0)..=key(u64::MAX)).rev();
            let within = unwritten.filter(|(_, mark)| mark.as_ref().is_some_and(|mark| mark.is_within(seen)));
            match within.map(|(key, _)| MarkKey::decode(key)).next() {
                Some(Ok(mark)) => place.at_most = place.at_most.min(mark.place),
                Some(Err(_)) | None => place.behind.push((shard.clone(), seen.to_vec())),
            }
        }
        place
    }
}

/// Where a feed goes on; the rest is in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedPlace {
    at_most: u64,
    /// Shards of which there is more than was seen, and what was.
    behind: Vec<(ShardId, Vec<Reach>)>,
}

impl Reader {
    /// Finds the place: what stands in the feed up to it was seen. 0 if that is not known of anything.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn feed_place(&self, place: &FeedPlace) -> Result<u64, ReadError> {
        let mut least = place.at_most;
        for (shard, seen) in &place.behind {
            least = least.min(last_mark(&**self.store(), shard, seen)?);
        }
        Ok(least)
    }
}

/// Returns the last place up to which a shard held nothing but what was seen.
fn last_mark(store: &dyn Read, shard: &ShardId, seen: &[Reach]) -> Result<u64, ReadError> {
    let mut prefix = MARKS.to_vec();
    shard.write(&mut prefix);
    for entry in store.scan(Keyspace::Meta, &Span::prefix(prefix), Order::Descending) {
        let (key, value) = entry?;
        let MarkKey { place, .. } = MarkKey::decode(&key).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        let value = envelope::open(value).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        let mark = FeedMark::decode(&value).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        if mark.is_within(seen) {
            return Ok(place);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_marks_are_the_fewer_there_are() {
        let mut kept = Vec::new();
        for n in 1..=1_000_000_u64 {
            kept.push((n, n * 1_000));
            thin_out(&mut kept, n * 1_000);
        }
        assert!(kept.len() <= 50, "{}", kept.len());
        assert_eq!((kept.first(), kept.last()), (Some(&(1, 1_000)), Some(&(1_000_000, 1_000_000_000))));
        let now = 1_000_000_000_u64;
        for pair in kept.windows(2) {
            let (older, newer) = (now - pair[0].1, now - pair[1].1);
            assert!(older <= newer * 3 + 3_000, "between {newer} and {older} ms ago there is none");
        }
    }

    #[test]
    fn a_clock_that_goes_back_makes_them_no_more() {
        let mut kept = Vec::new();
        for n in 1..=1_000_u64 {
            kept.push((n, 1_000_000 - n));
            thin_out(&mut kept, 1_000_000 - n);
            kept.push((n, n << 40));
            thin_out(&mut kept, 0);
        }
        assert!(kept.len() <= MARKS_OF_SHARD_MAX, "{}", kept.len());
    }

    #[test]
    fn marks_are_read_as_they_were_written() {
        let reach = |number: u8, seq| Reach { stream: [number; 8], seq, is_bare: false };
        let mark = FeedMark::new(u64::MAX, &vec![reach(255, u64::MAX); MARKED_STREAMS_MAX]);
        assert_eq!(FeedMark::decode(&mark.encode()).unwrap(), mark);
        let key = MarkKey { shard: ShardId { collection: "notes".parse().unwrap(), index: 1, of: 3 }, place: 7 };
        assert_eq!(MarkKey::decode(&key.encode()).unwrap(), key);
        let mark = FeedMark::new(1, &[reach(1, 5), reach(2, 7)]);
        assert!(mark.is_within(&[reach(2, 7), reach(1, 6)]) && !mark.is_within(&[reach(2, 7)]));
        assert!(!mark.is_within(&[reach(2, 7), reach(1, 4)]) && FeedMark::new(1, &[]).is_within(&[]));
    }
}
