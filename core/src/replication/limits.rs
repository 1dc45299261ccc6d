//! The engine's own bounds, each with its reason. Windows, frame and page sizes are part of the protocol
//! (`docs/protocol.md`); the others may differ between nodes.

use std::time::Duration;

use crate::limits::OP_BYTES_MAX;

/// Version of the protocol, compared in the hello.
pub const PROTOCOL_VERSION: u16 = 1;

// ---- protocol ----

/// Ops of one run. A run is what one signature covers, so a larger one could not be served in one answer.
pub const RUN_OPS_MAX: usize = 4_096;
/// Encoded ops of one run together, unless it is a single op. Large enough to spread the cost of a request and of a
/// signature, small enough to be repeated from another peer after a time-out.
pub const RUN_BYTES_MAX: usize = 1 << 20;
/// A frame: one run of ops, at the worst one largest op, and what surrounds it.
pub const FRAME_BYTES_MAX: usize = OP_BYTES_MAX + 32 * 1024;
/// Credit on the control lane: requests, digests and acknowledgements are small.
pub const CONTROL_WINDOW: u64 = 256 << 10;
/// Credit on the live lane: about a thousand ordinary ops; who is further behind is better served by pulls.
pub const LIVE_WINDOW: u64 = 256 << 10;
/// Credit on the repair lane: a server starts to read only when a largest frame fits, so four ordinary ranges are under way.
pub const REPAIR_WINDOW: u64 = 8 << 20;
/// Credit on the snapshot lane.
pub const SNAPSHOT_WINDOW: u64 = 8 << 20;
/// Heads in one page: about 80 KiB.
pub const HEADS_PAGE_MAX: usize = 1_024;
/// Ranges in one question: enough to find a few differences among ten thousand streams in two questions.
pub const RANGES_ASK_MAX: usize = 64;
/// Heads of a range that are named one by one, at 9 bytes each, rather than summed up and cut further at 20 bytes a part.
pub const RANGE_ITEMS_MAX: usize = 32;
/// Heads of a differing range that are listed at once, at about 80 bytes each, rather than summed up.
pub const RANGE_LINES: u64 = 4;
/// Parts into which a differing range is cut.
pub const RANGE_SPLIT: usize = 16;
/// Parts in one answer: every range of a question cut.
pub const RANGE_PARTS_MAX: usize = RANGES_ASK_MAX * RANGE_SPLIT;
/// Lines in one answer: a page, and the short lists.
pub const RANGE_LINES_MAX: usize = HEADS_PAGE_MAX + RANGES_ASK_MAX * RANGE_LINES as usize;
/// Documents in one page: each is loaded for it, at some 30 µs.
pub const DOCUMENTS_PAGE_MAX: usize = 256;
/// Changes of a document that is handed over in bulk. One with a longer history comes by its ops.
pub const DOCUMENT_CHANGES_MAX: usize = 4_096;
/// Bytes of the changes in one page.
pub const DOCUMENTS_BYTES_MAX: usize = 1 << 20;
/// Parts into which the documents of a shard fall at most: each part is a look at all their views for whoever gives it.
pub const BULK_PARTS_MAX: u8 = 16;
/// Shard digests in one frame: about 50 KiB with the longest names.
pub const SHARD_DIGESTS_MAX: usize = 256;
/// Collections that one subscription names.
pub const SUBSCRIPTION_MAX: usize = 1_024;
/// Heads announced or acknowledged in one frame.
pub const ANNOUNCE_MAX: usize = 256;
/// Sessions before another one in one answer: each is a read of the store, and a new node needs one such question for so many
/// restarts of an author instead of one for each.
pub const EARLIER_MAX: usize = 256;
/// Change hashes in one search.
pub const WANT_MAX: usize = 64;
/// Sequence numbers in one question for op ids; a search over a million ops takes four questions of this size.
pub const CHAIN_SEQS_MAX: usize = 32;
/// Branches of a forked stream that are handed over at once. Two prove the fork; pins name any other.
pub const BRANCHES_MAX: usize = 4;

// ---- local ----

/// Connected peers that the engine serves; beyond, new ones are turned away.
pub const PEERS_MAX: usize = 256;
/// Streams known in all. Their heads live in memory (about 200 bytes each).
pub const STREAMS_MAX: usize = 1 << 20;
/// Ranges under way from one peer.
pub const PULLS_PER_PEER_MAX: usize = 4;
/// How long a range, page or search may take before it is asked of the next peer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may give no range at all before one asked of it goes to a peer that has it too and a free place.
pub const PULL_PATIENCE: Duration = Duration::from_secs(1);
/// Streams that one peer may be known to have more of, whatever the others have: what one comparison lists.
pub const WANTS_PER_PEER_MIN: usize = HEADS_PAGE_MAX;
/// Streams that later sessions name and that are not here, for which a peer with other digests is asked at once.
pub const LACKING_ASKED_MAX: usize = 64;
/// Streams of one peer whose alleged fork was not found, and which it is not asked about again for a while.
pub const DOUBTED_MAX: usize = 256;
/// Streams known to be behind. More are found again by the next digest.
pub const WANTS_MAX: usize = 16_384;
/// Peers remembered that can give what one stream lacks: those that have the most. One is asked, the others are in reserve.
pub const WANT_SOURCES_MAX: usize = 8;
/// Bytes of runs handed to the store and not committed. Beyond twice this, pushes are dropped; beyond it, nothing is pulled:
/// what the store does not keep up with stays with the peers.
pub const INGESTING_BYTES_MAX: usize = 32 << 20;
/// Streams written here whose acknowledgements are remembered. The one that was not acknowledged for longest goes first; what
/// is said of it next brings it back.
pub const ACKED_STREAMS_MAX: usize = 2_048;
/// Shards that are compared head by head with one peer at once.
pub const SYNCS_PER_PEER_MAX: usize = 4;
/// Shards of one peer known to differ and waiting for their turn.
pub const SYNC_QUEUE_MAX: usize = 4_096;
/// A comparison that makes no progress for this long is given up; the next digest begins it again.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Cursor rounds that may bring nothing while digests differ before ranges of heads are compared.
pub const FRUITLESS_ROUNDS_MAX: u8 = 2;
/// The least time between two comparisons of all ranges of one shard with one peer.
pub const RANGES_INTERVAL: Duration = Duration::from_secs(10);
/// How often one shard after the other is compared by salted ranges with a peer whose digests are equal: what a member crafted to
/// hide in the plain sums comes to light. About 2 KiB each.
pub const SALTED_CHECK_INTERVAL: Duration = Duration::from_mins(10);
/// How often a range may be cut in one comparison: a correct peer with as many streams as there may be needs five cuts.
pub const RANGE_DEPTH_MAX: u8 = 12;
/// Questions of one comparison: a million streams of which all differ need about three thousand.
pub const RANGE_QUESTIONS_MAX: u32 = 8_192;
/// Heads that are hashed for one peer each second: about a fifteenth of a core. A shard may be gone through twice at once
/// beyond that, which is what an honest comparison needs.
pub const RANGE_HASHES_PER_SECOND: u64 = 1 << 18;
/// Shards that are taken in bulk at once: each has a page or more under way.
pub const BULKS_MAX: usize = 4;
/// Pages under way from one peer: while one is read there, another is built here.
pub const BULK_PAGES_PER_PEER_MAX: usize = 2;
/// How often a peer may fail to give a page in a row before it is asked for no more of this shard. When all have, it is taken
/// by its ops alone.
pub const BULK_FAILURES_MAX: u8 = 4;
/// Peers that are remembered as givers of one shard.
pub const BULK_GIVERS_MAX: usize = PEERS_MAX;
/// How long a shard waits for a page while there are peers that share it; then it is taken by its ops alone.
pub const BULK_PATIENCE: Duration = Duration::from_secs(30);
/// How long a shard whose ops are here as one peer has them waits for the others that gave documents, so that it can be said
/// of theirs, too, whether they were true.
pub const BULK_END_PATIENCE: Duration = Duration::from_secs(30);
/// Ops of a shard that may be missing before it is taken in bulk although something of it is here. Alone, each with one change,
/// so many are pulled in a fraction of a second, and readers gain nothing by documents that come a moment earlier; full ones
/// hold a million changes, which take half a minute.
pub const BULK_GAP_OPS: u64 = 5_000;
/// By how much documents may be older than what is here that are taken because of a gap: twice of what clocks may differ.
pub const BULK_SINCE_MARGIN: Duration = Duration::from_mins(10);
/// Streams whose next range is pulled with its changes because these were not here as named.
pub const WHOLE_MAX: usize = 4_096;
/// Requests of one peer that wait to be served; honest ones have at most about a dozen.
pub const SERVE_QUEUE_MAX: usize = 32;
/// Held ops of one stream (a gap, a missing certificate, a time too far ahead).
pub const HELD_OPS_PER_STREAM_MAX: usize = 1_000;
/// Held bytes of one stream.
pub const HELD_BYTES_PER_STREAM_MAX: usize = 1 << 20;
/// Held bytes of all streams.
pub const HELD_BYTES_MAX: usize = 32 << 20;
/// What a held run counts at least.
pub const HELD_RUN_BYTES_MIN: usize = 1 << 10;
/// Streams with held runs that are tried again at a time.
pub const HELD_RETRIES: usize = 256;
/// Held bytes that came from one peer: no liar takes all the room.
pub const HELD_BYTES_PER_PEER_MAX: usize = 8 << 20;
/// How long a stream that could not be taken (unknown certificate, refused by the store) is left alone.
pub const BLOCKED_FOR: Duration = Duration::from_secs(10);
/// Streams left alone at once.
pub const BLOCKED_MAX: usize = 4_096;
/// Time between two digests of a connection, before jitter.
pub const DIGEST_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between digests that are sent ahead of time after a pull.
pub const DIGEST_HASTE: Duration = Duration::from_millis(100);
/// How long acknowledgements and announcements are gathered.
pub const FLUSH_DELAY: Duration = Duration::from_millis(10);
/// Streams whose acknowledgements or announcements to one peer are gathered; beyond, digests tell.
pub const GATHERED_MAX: usize = 4_096;
/// How often time-outs are looked for.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// Eager peers where there is a choice. With this many peers or fewer all are eager and nobody is pruned.
pub const EAGER_MAX: usize = 6;
/// Eager peers that a node keeps whatever it is asked.
pub const EAGER_MIN: usize = 3;
/// How long an announced op may take on the eager path before it is pulled and the announcer grafted.
pub const GRAFT_DELAY: Duration = Duration::from_millis(200);
/// Announced heads that are waited for.
pub const EXPECTED_MAX: usize = 4_096;
/// Changes and ops that are searched for.
pub const NEEDS_MAX: usize = 4_096;
/// Of so many that are searched for one is given up for a new one.
pub const NEEDS_COMPARED: usize = 16;
/// Time before a search is repeated; doubles up to [`NEED_RETRY_MAX`].
pub const NEED_RETRY: Duration = Duration::from_secs(2);
/// Longest time before a search is repeated.
pub const NEED_RETRY_MAX: Duration = Duration::from_secs(60);
/// Forks being searched, and branches being fetched, at once. Each may hold a few runs in memory.
pub const FORK_WORK_MAX: usize = 16;
/// Forks heard of whose prefix is still missing.
pub const FORK_NEWS_MAX: usize = 1_024;
/// Public keys kept ready, in each of two generations.
pub const KEY_CACHE_MAX: usize = 512;
/// Score at which a peer is banned; see [`super::Misbehaviour::weight`].
pub const SCORE_MAX: u32 = 100;
/// What is forgotten of a score in a minute: a peer may be at fault now and then for ever, and not all the time.
pub const SCORE_FORGOTTEN_PER_MINUTE: u32 = 10;
/// The first ban. Doubles with each that is not forgotten, up to [`BAN_MAX`].
pub const BAN_FIRST: Duration = Duration::from_mins(1);
/// The longest ban: a day gives people time to look, and a node that was mended its place back.
pub const BAN_MAX: Duration = Duration::from_hours(24);
/// How long a peer must go without a ban until one is forgotten.
pub const BAN_FORGOTTEN: Duration = Duration::from_hours(6);
/// Peers whose conduct is remembered, connected or not: about 300 bytes each.
pub const CONDUCT_MAX: usize = 1_024;
/// Bytes that a peer may send at once without bringing anything: several windows of the live lane, which it may fill before it
/// knows what is here.
pub const IDLE_BYTES_MAX: u64 = 2 << 20;
/// Bytes that a peer may send in a second, for ever, without bringing anything; to which comes as much as is new here. About
/// a hundredth of a core.
pub const IDLE_BYTES_PER_SECOND: u64 = 256 << 10;
/// Bytes of what was new that a peer may bring again later.
pub const IDLE_SAVED_MAX: u64 = 32 << 20;
/// What a frame counts at least: its way through the program costs as much as this many bytes of ops.
pub const IDLE_FRAME_MIN: u64 = 512;
/// What a digest counts, or a list of them: each makes this node compare. A peer tells at most ten a second.
pub const IDLE_DIGEST: usize = 8 << 10;
/// How long a peer may speak of other things while it owes an answer, or its digest, which it tells every second.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// After so long without a word a peer is taken to have been cut off meanwhile.
pub const SILENCE: Duration = Duration::from_secs(3);
/// Names that the waiting transactions of one author may have before what it sends counts as if it brought nothing. It is not
/// charged for that: whoever catches up gets some authors' ops before those that they build on.
pub const WAITING_MAX: usize = 5_000;
/// How long a digest may differ from what a peer shows before it is called false: longer than a comparison that hangs keeps a
/// correct peer from asking.
pub const FALSE_DIGEST_AFTER: Duration = Duration::from_mins(1);
/// Lists of digests that a digest entitles a peer to, beside those for the shards that are known here; and how many such
/// entitlements it may gather.
pub const LISTS_MIN: usize = 16;
/// What a frame counts whose signature was checked for nothing.
pub const IDLE_SIGNATURE: usize = 4 << 10;
/// How often over a peer may have what is here read for it: once to fetch it, and again for what got lost or is asked of
/// several.
pub const SERVED_TIMES: u64 = 4;
/// What a peer may have read for it in any case.
pub const SERVED_BYTES_MIN: u64 = 256 << 20;
/// What a peer may have read for it in a second, for ever; to which comes twice what is new here. About a fiftieth of a core.
pub const SERVED_BYTES_PER_SECOND: u64 = 1 << 20;
/// What a page of documents counts beside its bytes: each of them is loaded.
pub const SERVED_DOCUMENTS: usize = 128 << 10;
/// What a question counts at least.
pub const SERVED_MIN: u64 = 4 << 10;
/// Cursors remembered of peers' shards, connected or not.
pub const CURSORS_MAX: usize = 65_536;
