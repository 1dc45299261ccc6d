//! What can be seen from outside: digests, lag, acknowledgements, counters.

use super::api::{Peer, Timestamp};
use super::conduct::{Ban, ConductStatus};
use super::digest::{HeadState, ShardDigest, Tip};
use super::engine::Engine;
use super::heads::StreamAt;
use super::peer::{Link, Pace};
use crate::id::{ShardId, StreamId};

/// Counts since the engine was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames received.
    pub frames_received: u64,
    /// Ops handed to the caller.
    pub ops_ingested: u64,
    /// Ops that became durable, local ones included.
    pub ops_committed: u64,
    /// Runs pushed.
    pub pushes_sent: u64,
    /// Runs not pushed because a peer lags.
    pub pushes_dropped: u64,
    /// Pushed runs that brought nothing.
    pub duplicate_pushes: u64,
    /// Ranges asked for.
    pub pulls_sent: u64,
    /// Ranges that nobody answered in time.
    pub pulls_timed_out: u64,
    /// Ranges given.
    pub ranges_served: u64,
    /// Comparisons of a shard with a peer.
    pub syncs: u64,
    /// Comparisons by ranges of heads, where no cursor helped.
    pub ranges_compared: u64,
    /// Comparisons although digests are equal, to see what a sum may hide.
    pub salted_checks: u64,
    /// Questions of such comparisons.
    pub range_questions: u64,
    /// Bare ranges of which a change was not here, so that they were pulled whole.
    pub bare_incomplete: u64,
    /// Documents taken in bulk.
    pub bulk_documents: u64,
    /// Bytes of their pages.
    pub bulk_bytes: u64,
    /// Pages of documents that did not come in time.
    pub bulk_pages_late: u64,
    /// Runs that wait for their certificate.
    pub deferred: u64,
    /// Searches for the place of a fork.
    pub forks_suspected: u64,
    /// Branches proved.
    pub forks_found: u64,
    /// What peers did that no correct peer does.
    pub misbehaviours: u64,
    /// Peers banned for it.
    pub bans: u64,
    /// Questions not answered because the peer had too much read for it.
    pub service_refused: u64,
    /// Signatures checked.
    pub signatures_checked: u64,
}

/// One connected peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub peer: Peer,
    /// Whether its hello came.
    pub is_introduced: bool,
    /// Whether ops are pushed to it, rather than announced.
    pub is_eager: bool,
    /// Whether it gets digests only because it did not keep up.
    pub is_lagging: bool,
    /// When digests were last equal; zero if they never were.
    pub equal_at: Timestamp,
    /// Whether the last digests were equal.
    pub is_equal: bool,
    /// Ops that it has and this node lacks, as far as known.
    pub ops_behind: u64,
    /// Ops written here that it has not acknowledged.
    pub ops_ahead: u64,
    /// Received bytes that are not dealt with.
    pub bytes_unreleased: u64,
    /// Its requests that wait.
    pub requests_waiting: usize,
}

impl Engine {
    /// Returns the digest of a shard: equal on two replicas exactly if their heads are.
    #[must_use]
    pub fn digest(&self, shard: &ShardId) -> ShardDigest {
        self.heads.shard(shard).map_or_else(ShardDigest::default, |shard| shard.digest)
    }

    /// Returns the digests of all shards.
    pub fn digests(&self) -> impl Iterator<Item = (&ShardId, ShardDigest)> {
        self.heads.shards().map(|(id, shard)| (id, shard.digest))
    }

    /// Returns what this replica says of a stream.
    #[must_use]
    pub fn head(&self, shard: &ShardId, stream: StreamId) -> Option<HeadState> {
        self.heads.get(&StreamAt::new(shard, stream)).and_then(super::heads::Stream::state)
    }

    /// Returns how far a stream is durable here, whatever closes it.
    #[must_use]
    pub fn durable_tip(&self, shard: &ShardId, stream: StreamId) -> Option<Tip> {
        self.heads.get(&StreamAt::new(shard, stream)).map(|stream| stream.durable.tip)
    }

    /// Returns the heads of a shard, by stream.
    pub fn heads(&self, shard: &ShardId) -> impl Iterator<Item = (StreamId, HeadState)> {
        let streams = self.heads.shard(shard).into_iter().flat_map(|shard| &shard.streams);
        streams.filter_map(|(stream, held)| Some((*stream, held.state()?)))
    }

    /// Returns the peers that have a stream written here durably up to `seq`.
    pub fn peers_with(&self, shard: &ShardId, stream: StreamId, seq: u64) -> impl Iterator<Item = Peer> {
        let at = StreamAt::new(shard, stream);
        let acked: Vec<Peer> = self.acks.of(&at).filter(|(_, acked)| *acked >= seq).map(|(peer, _)| *peer).collect();
        acked.into_iter()
    }

    /// Returns how many peers have a stream written here durably up to `seq`; this node does not count.
    #[must_use]
    pub fn acked_by(&self, shard: &ShardId, stream: StreamId, seq: u64) -> usize {
        self.peers_with(shard, stream, seq).count()
    }

    /// Returns the counters.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        Counters { signatures_checked: self.keys.checks, ..self.counters }
    }

    /// Returns the connected peers.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.peers
            .iter()
            .map(|(peer, state)| PeerStatus {
                peer: *peer,
                is_introduced: state.introduction.is_some(),
                is_eager: state.link == Link::Eager,
                is_lagging: state.pace == Pace::Lagging,
                is_equal: state.is_equal,
                equal_at: state.equal_at,
                ops_behind: self.ops_behind(peer),
                ops_ahead: self.ops_ahead(peer),
                bytes_unreleased: super::api::Lane::ALL.iter().map(|lane| state.lane(*lane).unreleased()).sum(),
                requests_waiting: state.serving.len(),
            })
            .collect()
    }

    /// Returns what is known of the conduct of peers, connected or not.
    #[must_use]
    pub fn conduct(&self, now: Timestamp) -> Vec<ConductStatus> {
        self.conduct.status(now)
    }

    /// Returns who is or was banned: what [`Engine::restore_bans`] wants after a restart.
    #[must_use]
    pub fn bans(&self, now: Timestamp) -> Vec<Ban> {
        self.conduct.bans(now).collect()
    }

    fn ops_behind(&self, peer: &Peer) -> u64 {
        self.wants
            .iter()
            .filter_map(|(at, want)| {
                let have = self.heads.get(at).map_or(0, |stream| stream.durable.tip.seq);
                Some(want.sources.get(peer)?.saturating_sub(have))
            })
            .sum()
    }

    fn ops_ahead(&self, peer: &Peer) -> u64 {
        self.acks
            .by(peer)
            .filter_map(|(at, acked)| Some(self.heads.get(at)?.durable.tip.seq.saturating_sub(acked)))
            .sum()
    }
}
