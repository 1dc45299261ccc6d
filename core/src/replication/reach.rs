//! How far streams reach here, for whoever compares two replicas without asking the other: what somebody has seen on one is
//! looked for on another.

use std::collections::BTreeSet;

use super::digest::{HeadState, Tip};
use super::engine::Engine;
use super::heads::{Shard, Stream};
use crate::id::{ShardId, StreamId};

/// The first bytes of a stream's id: among the streams of a shard they name one, but for a chance of one in many billions; then
/// one is waited for in place of the other.
pub type StreamPrefix = [u8; 8];

/// Streams looked through for what is missing of the sessions before one.
const EARLIER_MAX: usize = 1_024;

/// A stream as far as it is durable here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The stream.
    pub stream: StreamPrefix,
    /// Its last op.
    pub seq: u64,
    /// Whether something is missing of the sessions before it: then they are not to be asked for elsewhere either.
    pub is_bare: bool,
}

impl Reach {
    /// A stream up to an op of it.
    #[must_use]
    pub fn new(stream: &StreamId, seq: u64) -> Self {
        Self { stream: prefix(stream), seq, is_bare: false }
    }
}

impl Engine {
    /// Returns the streams of a shard that changed last, the latest first, at most `streams_max` of them. Streams that a later
    /// session tells of, and forked ones, are left out.
    #[must_use]
    pub fn latest_streams(&self, shard: &ShardId, streams_max: usize) -> Vec<Reach> {
        let Some(held) = self.heads.shard(shard) else { return Vec::new() };
        let open = held.by_arrival.values().rev().filter_map(|id| {
            let stream = held.streams.get(id)?;
            let Some(HeadState::Open(Tip { seq, .. })) = stream.state() else { return None };
            let is_bare = !held.lacking.is_empty() && missing_before(held, stream) > 0;
            (seq > 0).then(|| Reach { is_bare, ..Reach::new(id, seq) })
        });
        open.take(streams_max).collect()
    }

    /// Returns how far all streams of a shard are that say something of it, at most `streams_max`; none if they are more, or one of
    /// them is forked: numbers do not tell branches apart.
    #[must_use]
    pub fn all_streams(&self, shard: &ShardId, streams_max: usize) -> Option<Vec<Reach>> {
        let Some(held) = self.heads.shard(shard) else { return Some(Vec::new()) };
        let mut all = Vec::new();
        for (id, stream) in &held.streams {
            match stream.state() {
                None | Some(HeadState::Open(Tip { seq: 0, .. })) => {}
                Some(HeadState::Open(_)) if all.len() >= streams_max => return None,
                Some(HeadState::Open(Tip { seq, .. })) => all.push(Reach::new(id, seq)),
                Some(HeadState::Forked { .. }) => return None,
            }
        }
        Some(all)
    }

    /// Returns the shards of which a stream says something else than when this was last asked.
    pub fn take_moved(&mut self) -> BTreeSet<ShardId> {
        std::mem::take(&mut self.heads.moved)
    }

    /// Returns how many ops that a replica had are not durable here: of the stream, and of the sessions before it. What lies beyond a
    /// pin, or on a branch, is not missing.
    #[must_use]
    pub fn ops_lacked(&self, shard: &ShardId, wanted: &Reach) -> u64 {
        let Some(held) = self.heads.shard(shard) else { return wanted.seq };
        let mut first = [0; 32];
        for (to, from) in first.iter_mut().zip(wanted.stream) {
            *to = from;
        }
        let found = held.streams.range(StreamId::new(first)..).next();
        let Some((_, stream)) = found.filter(|(id, _)| prefix(id) == wanted.stream) else { return wanted.seq };
        let missing = wanted.seq.min(stream.live_end()).saturating_sub(stream.durable.tip.seq);
        // Nearly always nothing is known to be missing of any stream.
        if wanted.is_bare || held.lacking.is_empty() {
            return missing;
        }
        missing.saturating_add(missing_before(held, stream))
    }

    /// Returns the last arrival in a shard that is durable here.
    #[must_use]
    pub fn last_arrival(&self, shard: &ShardId) -> u64 {
        self.heads.shard(shard).map_or(0, |held| held.arrival)
    }
}

fn prefix(id: &StreamId) -> StreamPrefix {
    let mut prefix = StreamPrefix::default();
    for (to, from) in prefix.iter_mut().zip(id.as_bytes()) {
        *to = *from;
    }
    prefix
}

/// Returns how many ops are missing of the sessions before a stream.
fn missing_before(held: &Shard, stream: &Stream) -> u64 {
    let mut missing = 0_u64;
    let mut seen = BTreeSet::new();
    let mut left: Vec<StreamId> = stream.names().collect();
    while let Some(id) = left.pop() {
        if seen.len() >= EARLIER_MAX || !seen.insert(id) {
            continue;
        }
        let Some(earlier) = held.streams.get(&id) else { continue };
        missing = missing.saturating_add(earlier.lack().map_or(0, |end| end.saturating_sub(earlier.durable.tip.seq)));
        left.extend(earlier.names());
    }
    missing
}
