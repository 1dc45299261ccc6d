//! Every queue and table of the engine beside its bound.

use super::api::Lane;
use super::engine::Engine;
use super::limits as bounds;
use super::peer::PeerState;
use super::sync::Sync;
use crate::figure::Figure;

/// Questions to the store that may be open: one for each peer that is served, one for each search for a fork, and one for
/// each branch that is compared.
const QUESTIONS_MAX: usize = bounds::PEERS_MAX + bounds::FORK_WORK_MAX * (2 + bounds::BRANCHES_MAX);
/// Heads of one comparison that are waited for: the next question is asked while less than a page is.
const SYNC_WAITING_MAX: usize = bounds::HEADS_PAGE_MAX + bounds::RANGE_LINES_MAX;
/// Ranges that one comparison has still to ask for: what one answer splits, on each level.
const SYNC_RANGES_MAX: usize = (bounds::RANGE_DEPTH_MAX as usize + 1) * bounds::RANGE_PARTS_MAX;

impl Engine {
    /// Returns everything that the engine keeps, beside its bound. Costs a look at every peer and every stream that is behind.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let most = |of: fn(&PeerState) -> usize| self.peers.values().map(of).max().unwrap_or(0);
        let unreleased = |lane: Lane| {
            let bytes = self.peers.values().map(|peer| peer.lane(lane).unreleased()).max().unwrap_or(0);
            usize::try_from(bytes).unwrap_or(usize::MAX)
        };
        // Within the window by the check of credit; a frame that goes beyond it ends the connection.
        let window = |lane: Lane| usize::try_from(super::credit::window(lane)).unwrap_or(usize::MAX);
        let sources = self.wants.values().map(|want| want.sources.len()).max().unwrap_or(0);
        vec![
            Figure::new("peers", self.peers.len(), bounds::PEERS_MAX),
            Figure::new("streams", self.heads.stream_count(), bounds::STREAMS_MAX),
            Figure::new("cursors", self.memory.len(), bounds::CURSORS_MAX),
            Figure::new("keys", self.keys.len(), 2 * bounds::KEY_CACHE_MAX),
            Figure::new("held_bytes", self.held.bytes(), bounds::HELD_BYTES_MAX),
            Figure::new("held_bytes_of_one_peer", self.held.bytes_of_one_peer(), bounds::HELD_BYTES_PER_PEER_MAX),
            Figure::new("conducts", self.conduct.len(), bounds::CONDUCT_MAX),
            Figure::new("ingesting_bytes", self.ingesting_bytes, 2 * bounds::INGESTING_BYTES_MAX),
            Figure::new("blocked_streams", self.blocked.len(), bounds::BLOCKED_MAX),
            Figure::new("wanted_streams", self.wants.len(), bounds::WANTS_MAX),
            Figure::new("wanted_stream_sources", sources, bounds::WANT_SOURCES_MAX),
            Figure::new("pulls", self.pulls.len(), bounds::PULLS_PER_PEER_MAX * bounds::PEERS_MAX),
            Figure::new("expected_heads", self.expected.len(), bounds::EXPECTED_MAX),
            Figure::new("acknowledged_streams", self.acks.len(), bounds::ACKED_STREAMS_MAX),
            Figure::new("fork_searches", self.searches.len(), bounds::FORK_WORK_MAX),
            Figure::new("fork_branches", self.branches.len(), bounds::FORK_WORK_MAX),
            Figure::new("fork_news", self.fork_news.len(), bounds::FORK_NEWS_MAX),
            Figure::new("needed_changes", self.needed_changes.len(), bounds::NEEDS_MAX),
            Figure::new("needed_ops", self.needed_ops.len(), bounds::NEEDS_MAX),
            Figure::new("bulk_shards", self.bulks.len(), bounds::BULKS_MAX),
            Figure::new("whole_streams", self.whole.len(), bounds::WHOLE_MAX),
            Figure::new("questions", self.questions.len(), QUESTIONS_MAX),
            Figure::new("peer_pulls", most(|peer| peer.pulls), bounds::PULLS_PER_PEER_MAX),
            Figure::new("peer_ready_streams", most(|peer| peer.ready.len()), bounds::WANTS_MAX),
            Figure::new("peer_requests", most(|peer| peer.serving.len()), bounds::SERVE_QUEUE_MAX),
            Figure::new("peer_syncs", most(|peer| peer.syncs.len()), bounds::SYNCS_PER_PEER_MAX),
            Figure::new("peer_sync_queue", most(|peer| peer.sync_queue.len()), bounds::SYNC_QUEUE_MAX),
            Figure::new(
                "peer_sync_waiting",
                most(|peer| peer.syncs.values().map(Sync::waiting).max().unwrap_or(0)),
                SYNC_WAITING_MAX,
            ),
            Figure::new(
                "peer_sync_ranges",
                most(|peer| peer.syncs.values().map(Sync::open_ranges).max().unwrap_or(0)),
                SYNC_RANGES_MAX,
            ),
            Figure::new("peer_acknowledgements", most(|peer| peer.acks.len()), bounds::GATHERED_MAX),
            Figure::new("peer_announcements", most(|peer| peer.announce.len()), bounds::GATHERED_MAX),
            Figure::new("peer_control_bytes", unreleased(Lane::Control), window(Lane::Control)),
            Figure::new("peer_live_bytes", unreleased(Lane::Live), window(Lane::Live)),
            Figure::new("peer_repair_bytes", unreleased(Lane::Repair), window(Lane::Repair)),
            Figure::new("peer_snapshot_bytes", unreleased(Lane::Snapshot), window(Lane::Snapshot)),
        ]
    }
}
