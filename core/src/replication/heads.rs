//! What this replica has: for each stream the durable head and the head under way, each shard's digest, and the index
//! of heads by arrival.
//!
//! Invariant: a shard's digest is the sum of the entries of its streams' states, at every moment.

use std::collections::{BTreeMap, BTreeSet};

use super::api::{Policy, StoredHead};
use super::digest::{HeadState, ShardDigest, Tip, roll_up_entry};
use super::limits as bounds;
use super::mutant::{Mutant, planted};
use crate::hlc::Hlc;
use crate::id::{CollectionName, ShardId, StreamId};

/// A stream with its shard; the control log sorts first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct StreamAt {
    place: Place,
    pub(super) stream: StreamId,
}

impl StreamAt {
    pub(super) fn new(shard: &ShardId, stream: StreamId) -> Self {
        Self { place: Place::new(shard), stream }
    }

    pub(super) fn shard(&self) -> &ShardId {
        &self.place.shard
    }
}

/// A shard; the control log sorts first, because everything else is judged by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    data: bool,
    pub(super) shard: ShardId,
}

impl Place {
    pub(super) fn new(shard: &ShardId) -> Self {
        Self { data: !shard.is_control(), shard: shard.clone() }
    }
}

/// A head with its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimedTip {
    pub(super) tip: Tip,
    pub(super) hlc: Hlc,
}

impl TimedTip {
    pub(super) const START: Self = Self { tip: Tip::START, hlc: Hlc::ZERO };
}

/// A stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// On disk.
    pub(super) durable: TimedTip,
    /// Handed to the caller; never behind `durable`.
    pub(super) ingested: TimedTip,
    pub(super) arrival: u64,
    pub(super) fork: Option<u64>,
    pub(super) pin: Option<Tip>,
    /// Whether ops of it were written here.
    pub(super) local: bool,
    /// Where the earlier sessions end that its first op names.
    earlier: Vec<(StreamId, Tip)>,
    /// Where later sessions say that it ends, by who says so; of those whose first op stands.
    ends: Vec<(StreamId, Tip)>,
}

impl Stream {
    fn new(pin: Option<Tip>) -> Self {
        Self {
            durable: TimedTip::START,
            ingested: TimedTip::START,
            arrival: 0,
            fork: None,
            pin,
            local: false,
            earlier: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Returns what digests and head lists say of the stream; `None` if nothing.
    pub(super) fn state(&self) -> Option<HeadState> {
        match (self.fork, self.pin) {
            // Beyond the pin too: what lies there may be held by documents without effect, as others build on it, and
            // of two branches no document can hold both. So who knows of a fork tells everybody.
            (Some(seq), pin) => Some(HeadState::Forked { seq, pin }),
            (None, Some(pin)) if pin.seq == 0 => None,
            (None, Some(pin)) if self.durable.tip.seq >= pin.seq => self.open_state(pin),
            (None, _) => self.open_state(self.durable.tip),
        }
    }

    /// A stream that ends where a later session says is told by that one. Of one that is named and not here, it is told that
    /// there is nothing of it: who has it sees a difference.
    fn open_state(&self, tip: Tip) -> Option<HeadState> {
        if tip.seq == 0 {
            return (!self.ends.is_empty()).then_some(HeadState::Open(Tip::START));
        }
        let is_told = self.ends.iter().any(|(_, end)| *end == tip) && !planted(Mutant::SessionsNotFolded);
        (!is_told).then_some(HeadState::Open(tip))
    }

    /// Whether what its first op names counts: not if it is cut off, nor if there are two of them.
    fn stands(&self) -> bool {
        self.durable.tip.seq > 0 && self.fork != Some(1) && self.pin.is_none_or(|pin| pin.seq > 0)
    }

    /// Returns the earlier sessions that its first op names, if what that says counts.
    pub(super) fn names(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.earlier.iter().filter(|_| self.stands()).map(|(stream, _)| *stream)
    }

    /// Returns up to where later sessions say that the stream goes, if that is not here.
    pub(super) fn lack(&self) -> Option<u64> {
        let end = self.ends.iter().map(|(_, end)| end.seq).max()?.min(self.live_end());
        (self.fork.is_none() && end > self.durable.tip.seq).then_some(end)
    }

    /// Returns the last sequence number that may be taken or given without a special reason.
    pub(super) fn live_end(&self) -> u64 {
        match (self.fork, self.pin) {
            // A fork closes the stream: nothing but the branches themselves is of interest.
            (Some(_), _) => self.durable.tip.seq,
            (None, Some(pin)) => pin.seq,
            (None, None) => u64::MAX,
        }
    }
}

/// A shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Shard {
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) by_arrival: BTreeMap<u64, StreamId>,
    pub(super) digest: ShardDigest,
    pub(super) arrival: u64,
    /// Streams of which less is here than later sessions name, with what they name.
    pub(super) lacking: BTreeMap<StreamId, u64>,
}

/// All shards of this replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads {
    shards: BTreeMap<ShardId, Shard>,
    /// Sum of the shards' roll-up entries, by collection.
    roll_ups: BTreeMap<CollectionName, ShardDigest>,
    streams: usize,
    /// Shards whose digest changed since somebody asked for them; as many as there are shards at most.
    pub(super) moved: BTreeSet<ShardId>,
}

impl Heads {
    /// Takes a head from disk. Of two for one stream the later counts.
    pub(super) fn load(&mut self, head: &StoredHead, policy: &dyn Policy) {
        let pin = policy.closed_at(&head.stream);
        let tip = TimedTip { tip: head.tip, hlc: head.hlc };
        self.change(&head.shard, head.stream, pin, |stream| {
            stream.durable = tip;
            stream.ingested = tip;
            stream.fork = head.fork;
        });
        self.arrived(&head.shard, head.stream, head.arrival);
        let named = head.earlier.iter().map(|(stream, tip)| (*stream, *tip, policy.closed_at(stream))).collect();
        self.name_earlier(&head.shard, head.stream, named);
    }

    /// Notes what the first op of a stream names: where other streams end, and where these are closed.
    pub(super) fn name_earlier(&mut self, shard: &ShardId, by: StreamId, named: Vec<(StreamId, Tip, Option<Tip>)>) {
        let fits = |heads: &Self, stream: StreamId| heads.has_room(&StreamAt::new(shard, stream));
        let mut earlier = Vec::new();
        for (stream, tip, pin) in named {
            if fits(self, stream) {
                self.change(shard, stream, pin, |_| ());
                earlier.push((stream, tip));
            }
        }
        let Some(entry) = self.shards.get_mut(shard).and_then(|held| held.streams.get_mut(&by)) else { return };
        let stands = entry.stands();
        entry.earlier.clone_from(&earlier);
        for (stream, tip) in earlier.into_iter().filter(|_| stands) {
            self.name(shard, stream, by, Some(tip));
        }
    }

    /// Says where a stream ends by the word of another one, or that this one says nothing any more.
    fn name(&mut self, shard: &ShardId, stream: StreamId, by: StreamId, end: Option<Tip>) {
        self.change(shard, stream, None, |named| {
            named.ends.retain(|(of, _)| *of != by);
            named.ends.extend(end.map(|end| (by, end)));
        });
    }

    pub(super) fn shard(&self, shard: &ShardId) -> Option<&Shard> {
        self.shards.get(shard)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = (&ShardId, &Shard)> {
        self.shards.iter()
    }

    pub(super) fn roll_ups(&self) -> &BTreeMap<CollectionName, ShardDigest> {
        &self.roll_ups
    }

    pub(super) const fn stream_count(&self) -> usize {
        self.streams
    }

    pub(super) fn get(&self, at: &StreamAt) -> Option<&Stream> {
        self.shards.get(at.shard())?.streams.get(&at.stream)
    }

    /// Returns whether the stream is known or may become so.
    pub(super) fn has_room(&self, at: &StreamAt) -> bool {
        self.streams < bounds::STREAMS_MAX || self.get(at).is_some()
    }

    /// Changes a stream, made if need be (closed at `pin`), and keeps the digests right.
    pub(super) fn change<R>(
        &mut self,
        shard: &ShardId,
        stream: StreamId,
        pin: Option<Tip>,
        edit: impl FnOnce(&mut Stream) -> R,
    ) -> R {
        let held = self.shards.entry(shard.clone()).or_default();
        let entry = held.streams.entry(stream).or_insert_with(|| {
            self.streams += 1;
            Stream::new(pin)
        });
        let before = entry.state();
        let stood = entry.stands();
        let result = edit(entry);
        let after = entry.state();
        let restood = (entry.stands() != stood).then(|| (entry.stands(), entry.earlier.clone()));
        match entry.lack() {
            Some(end) => held.lacking.insert(stream, end),
            None if held.lacking.is_empty() => None,
            None => held.lacking.remove(&stream),
        };
        if before != after {
            if !self.moved.contains(shard) {
                self.moved.insert(shard.clone());
            }
            let sum = self.roll_ups.entry(shard.collection.clone()).or_default();
            if !held.digest.is_empty() {
                sum.remove(&roll_up_entry(shard, &held.digest));
            }
            if let Some(before) = before {
                held.digest.remove(&before.entry(&stream));
            }
            if let Some(after) = after {
                held.digest.add(&after.entry(&stream));
            }
            if !held.digest.is_empty() {
                sum.add(&roll_up_entry(shard, &held.digest));
            }
        }
        if let Some((stands, earlier)) = restood {
            for (named, end) in earlier {
                self.name(shard, named, stream, stands.then_some(end));
            }
        }
        result
    }

    /// Moves a stream to a new place in the order of arrivals.
    pub(super) fn arrived(&mut self, shard: &ShardId, stream: StreamId, arrival: u64) {
        let Some(held) = self.shards.get_mut(shard) else { return };
        let Some(entry) = held.streams.get_mut(&stream) else { return };
        if held.by_arrival.get(&entry.arrival) == Some(&stream) {
            held.by_arrival.remove(&entry.arrival);
        }
        entry.arrival = arrival;
        held.by_arrival.insert(arrival, stream);
        held.arrival = held.arrival.max(arrival);
    }
}
