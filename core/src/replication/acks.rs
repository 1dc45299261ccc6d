//! Who acknowledged how much of the streams written here. Bounded in streams: of many, those acknowledged last are
//! remembered.

use std::collections::BTreeMap;

use super::api::Peer;
use super::heads::StreamAt;
use super::limits as bounds;

#[derive(Debug, Default)]
struct Acked {
    peers: BTreeMap<Peer, u64>,
    used: u64,
}

/// Acknowledgements by stream.
#[derive(Debug, Default)]
pub(super) struct Acks {
    streams: BTreeMap<StreamAt, Acked>,
    by_use: BTreeMap<u64, StreamAt>,
    clock: u64,
}

impl Acks {
    /// Notes that a peer has a stream up to `seq`.
    pub(super) fn note(&mut self, at: &StreamAt, peer: Peer, seq: u64) {
        if self.streams.len() >= bounds::ACKED_STREAMS_MAX
            && !self.streams.contains_key(at)
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.streams.remove(&oldest);
        }
        let acked = self.streams.entry(at.clone()).or_default();
        let known = acked.peers.entry(peer).or_default();
        *known = seq.max(*known);
        self.by_use.remove(&acked.used);
        self.clock += 1;
        acked.used = self.clock;
        self.by_use.insert(self.clock, at.clone());
    }

    pub(super) fn forget_peer(&mut self, peer: &Peer) {
        for acked in self.streams.values_mut() {
            acked.peers.remove(peer);
        }
    }

    /// Returns who has how much of a stream.
    pub(super) fn of(&self, at: &StreamAt) -> impl Iterator<Item = (&Peer, u64)> {
        self.streams.get(at).into_iter().flat_map(|acked| &acked.peers).map(|(peer, seq)| (peer, *seq))
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = &StreamAt> {
        self.streams.keys()
    }

    /// Returns how far a peer has each stream that it acknowledged.
    pub(super) fn by(&self, peer: &Peer) -> impl Iterator<Item = (&StreamAt, u64)> {
        self.streams.iter().filter_map(move |(at, acked)| Some((at, *acked.peers.get(peer)?)))
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ShardId, StreamId};

    #[test]
    fn the_stream_that_was_not_acknowledged_for_longest_is_forgotten() {
        let at = |number: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            StreamAt::new(&ShardId::control(), StreamId::new(id))
        };
        let peer = Peer::new([1; 32]);
        let mut acks = Acks::default();
        acks.note(&at(0), peer, 7);
        for number in 1..=bounds::ACKED_STREAMS_MAX {
            acks.note(&at(0), peer, 1);
            acks.note(&at(number), peer, 1);
        }
        assert_eq!(acks.len(), bounds::ACKED_STREAMS_MAX);
        assert_eq!(
            acks.of(&at(0)).collect::<Vec<_>>(),
            [(&peer, 7)],
            "the active one stays, and no ack takes back another"
        );
        assert_eq!(acks.of(&at(1)).count(), 0);
        acks.forget_peer(&peer);
        assert_eq!(acks.of(&at(0)).count(), 0);
    }
}
