//! Verified runs that cannot be taken yet: a gap before them, a certificate that is not here, a time too far ahead.
//! Bounded per stream and in all; what does not fit is dropped, and found again by the digests.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::api::Peer;
use super::heads::StreamAt;
use super::limits as bounds;
use super::run::Run;

/// A run that waits.
#[derive(Debug)]
pub(super) struct HeldRun {
    pub(super) from: Peer,
    pub(super) run: Run,
    bytes: usize,
}

#[derive(Debug, Default)]
struct HeldStream {
    runs: BTreeMap<u64, HeldRun>,
    ops: usize,
    bytes: usize,
}

/// All that waits.
#[derive(Debug, Default)]
pub(super) struct Held {
    streams: BTreeMap<StreamAt, HeldStream>,
    bytes: usize,
    by_peer: BTreeMap<Peer, usize>,
    /// Up to where streams were looked at last.
    looked_at: Option<StreamAt>,
}

impl Held {
    /// Keeps a run; returns whether there was room. Of two that begin at one place the longer stays.
    pub(super) fn keep(&mut self, at: &StreamAt, from: Peer, run: Run) -> bool {
        let bytes = run.size().max(bounds::HELD_RUN_BYTES_MIN);
        let ops = run.ops.len();
        if self.streams.get(at).and_then(|held| held.runs.get(&run.first)).is_some_and(|old| old.run.ops.len() >= ops) {
            return true;
        }
        self.remove(at, run.first);
        let (stream_ops, stream_bytes) = self.streams.get(at).map_or((0, 0), |held| (held.ops, held.bytes));
        if stream_ops + ops > bounds::HELD_OPS_PER_STREAM_MAX
            || stream_bytes + bytes > bounds::HELD_BYTES_PER_STREAM_MAX
            || self.bytes + bytes > bounds::HELD_BYTES_MAX
            || self.by_peer.get(&from).copied().unwrap_or(0) + bytes > bounds::HELD_BYTES_PER_PEER_MAX
        {
            return false;
        }
        let held = self.streams.entry(at.clone()).or_default();
        held.ops += ops;
        held.bytes += bytes;
        self.bytes += bytes;
        *self.by_peer.entry(from).or_default() += bytes;
        held.runs.insert(run.first, HeldRun { from, run, bytes });
        true
    }

    fn remove(&mut self, at: &StreamAt, first: u64) -> Option<HeldRun> {
        let held = self.streams.get_mut(at)?;
        let removed = held.runs.remove(&first)?;
        held.ops -= removed.run.ops.len();
        held.bytes -= removed.bytes;
        self.bytes -= removed.bytes;
        if held.runs.is_empty() {
            self.streams.remove(at);
        }
        self.forget(removed.from, removed.bytes);
        Some(removed)
    }

    fn forget(&mut self, from: Peer, bytes: usize) {
        if let Some(of_peer) = self.by_peer.get_mut(&from) {
            *of_peer = of_peer.saturating_sub(bytes);
            if *of_peer == 0 {
                self.by_peer.remove(&from);
            }
        }
    }

    /// Takes the first run that begins at or before `seq`.
    pub(super) fn take_at(&mut self, at: &StreamAt, seq: u64) -> Option<HeldRun> {
        let first = *self.streams.get(at)?.runs.first_key_value()?.0;
        if first > seq { None } else { self.remove(at, first) }
    }

    /// Returns where the first held run begins.
    pub(super) fn first(&self, at: &StreamAt) -> Option<u64> {
        self.streams.get(at)?.runs.first_key_value().map(|(first, _)| *first)
    }

    /// Returns the next streams to be looked at, at most `count`, each in turn.
    pub(super) fn next_streams(&mut self, count: usize) -> Vec<StreamAt> {
        let from = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<StreamAt> =
            self.streams.range((from, Bound::Unbounded)).take(count).map(|(at, _)| at.clone()).collect();
        // At the end it begins again.
        self.looked_at = next.last().cloned().filter(|_| next.len() == count);
        next
    }

    /// Forgets what came from a peer.
    pub(super) fn forget_peer(&mut self, peer: &Peer) {
        let of_peer = |held: &HeldStream| {
            held.runs.iter().filter(|(_, run)| run.from == *peer).map(|(first, _)| *first).collect()
        };
        let runs: Vec<(StreamAt, Vec<u64>)> =
            self.streams.iter().map(|(at, held)| (at.clone(), of_peer(held))).collect();
        for (at, first) in
            runs.into_iter().flat_map(|(at, firsts)| firsts.into_iter().map(move |first| (at.clone(), first)))
        {
            self.remove(&at, first);
        }
    }

    /// Forgets what is held of a stream.
    pub(super) fn clear(&mut self, at: &StreamAt) {
        if let Some(held) = self.streams.remove(at) {
            self.bytes -= held.bytes;
            for run in held.runs.into_values() {
                self.forget(run.from, run.bytes);
            }
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the most that came from one peer.
    pub(super) fn bytes_of_one_peer(&self) -> usize {
        self.by_peer.values().copied().max().unwrap_or(0)
    }
}
