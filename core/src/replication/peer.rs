//! What the engine knows of one connected peer. All of it is forgotten when the connection ends, except cursors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::api::{Lane, Subscription, Ticket, Timestamp};
use super::credit::LaneCredit;
use super::frame::{BranchAsk, ChainAsk, DocumentsAsk, EarlierAsk, HeadsAsk, Pull, RangesAsk, Want};
use super::heads::{Place, StreamAt};
use super::limits as bounds;
use super::sync::Sync;
use crate::id::{ShardId, StoreEpoch};

/// Whether ops are pushed to a peer or announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    Eager,
    Lazy,
}

/// Whether a peer keeps up with the live lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    KeepsUp,
    /// Gets digests only, and pulls.
    Lagging,
}

/// What a peer said of itself.
#[derive(Clone, Debug)]
pub(super) struct Introduction {
    pub(super) epoch: StoreEpoch,
    pub(super) subscription: Subscription,
}

/// A request that waits for credit or for the store.
#[derive(Clone, Debug)]
pub(super) enum Serve {
    Heads(HeadsAsk),
    Ranges(RangesAsk),
    Pull(Pull),
    BarePull(Pull),
    Documents(DocumentsAsk),
    Want(Want),
    Earlier(EarlierAsk),
    Chain(ChainAsk),
    Branches(BranchAsk),
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct PeerState {
    control: LaneCredit,
    live: LaneCredit,
    repair: LaneCredit,
    snapshot: LaneCredit,
    pub(super) introduction: Option<Introduction>,
    pub(super) link: Link,
    pub(super) pace: Pace,
    /// Credit that is not given back until the peer's allowance for idle traffic has grown again.
    pub(super) withheld: BTreeMap<Lane, usize>,
    /// Lists of digests that it may send because digests were sent to it.
    pub(super) lists_due: usize,
    /// Questions that it asked.
    pub(super) questions: u64,
    /// When it last said anything, and since when without a long silence.
    pub(super) heard_at: Timestamp,
    pub(super) speaks_since: Timestamp,
    /// When it last told its digest.
    pub(super) told_at: Timestamp,
    /// Since when it was asked and has answered nothing.
    pub(super) asked_since: Option<Timestamp>,
    /// Gathered until the next flush.
    pub(super) announce: BTreeMap<StreamAt, u64>,
    pub(super) acks: BTreeMap<StreamAt, u64>,
    pub(super) digest_at: Timestamp,
    pub(super) digest_sent: Timestamp,
    /// Where the list of shard digests goes on if credit ended in the middle.
    pub(super) digest_resume: Option<ShardId>,
    /// Whether the last roll-up that came was equal to ours.
    pub(super) is_equal: bool,
    /// How often they were equal, and when last.
    pub(super) equals: u64,
    pub(super) equal_at: Timestamp,
    /// When a shard was last compared although digests are equal, and which.
    pub(super) checked_at: Timestamp,
    pub(super) checked: Option<ShardId>,
    /// Ranges under way.
    pub(super) pulls: usize,
    /// Ranges in a row that it did not give in time.
    pub(super) late: u32,
    /// When it last gave one.
    pub(super) gave_at: Timestamp,
    /// Streams of which it has more than we.
    pub(super) offers: usize,
    /// Streams that it alleged to differ where they do not, until when that is not looked into again.
    pub(super) doubted: BTreeMap<StreamAt, Timestamp>,
    /// Streams that can be pulled from here and are not being pulled.
    pub(super) ready: BTreeSet<StreamAt>,
    pub(super) serving: VecDeque<Serve>,
    pub(super) reading: Option<Ticket>,
    /// Heads hashed for it lately, and when that was reckoned.
    hashed: u64,
    hashed_at: Timestamp,
    pub(super) sync_queue: BTreeSet<Place>,
    pub(super) syncs: BTreeMap<Place, Sync>,
}

impl PeerState {
    pub(super) fn new(link: Link, digest_at: Timestamp) -> Self {
        Self {
            control: LaneCredit::new(Lane::Control),
            live: LaneCredit::new(Lane::Live),
            repair: LaneCredit::new(Lane::Repair),
            snapshot: LaneCredit::new(Lane::Snapshot),
            introduction: None,
            link,
            pace: Pace::KeepsUp,
            withheld: BTreeMap::new(),
            lists_due: 0,
            questions: 0,
            heard_at: digest_at,
            speaks_since: digest_at,
            told_at: digest_at,
            asked_since: None,
            announce: BTreeMap::new(),
            acks: BTreeMap::new(),
            digest_at,
            digest_sent: Timestamp::default(),
            digest_resume: None,
            is_equal: false,
            equals: 0,
            equal_at: Timestamp::default(),
            checked_at: digest_at,
            checked: None,
            pulls: 0,
            late: 0,
            gave_at: Timestamp::default(),
            offers: 0,
            doubted: BTreeMap::new(),
            ready: BTreeSet::new(),
            serving: VecDeque::new(),
            reading: None,
            hashed: 0,
            hashed_at: Timestamp::default(),
            sync_queue: BTreeSet::new(),
            syncs: BTreeMap::new(),
        }
    }

    /// Returns whether one more range may be asked of it: of one that did not answer, one alone.
    pub(super) const fn has_place(&self) -> bool {
        self.pulls < if self.late == 0 { bounds::PULLS_PER_PEER_MAX } else { 1 }
    }

    /// Returns how many heads were hashed for it lately: what was hashed is forgotten at a constant rate.
    pub(super) fn hashed(&mut self, now: Timestamp) -> u64 {
        let passed = now.micros().saturating_sub(self.hashed_at.micros());
        self.hashed = self.hashed.saturating_sub(passed.saturating_mul(bounds::RANGE_HASHES_PER_SECOND) / 1_000_000);
        self.hashed_at = now;
        self.hashed
    }

    /// Notes that heads were hashed for it.
    pub(super) const fn note_hashed(&mut self, heads: u64) {
        self.hashed = self.hashed.saturating_add(heads);
    }

    pub(super) const fn lane(&self, lane: Lane) -> &LaneCredit {
        match lane {
            Lane::Control => &self.control,
            Lane::Live => &self.live,
            Lane::Repair => &self.repair,
            Lane::Snapshot => &self.snapshot,
        }
    }

    /// Notes that it said something.
    pub(super) fn heard(&mut self, now: Timestamp) {
        if self.heard_at.after(bounds::SILENCE) <= now {
            self.speaks_since = now;
        }
        self.heard_at = now;
    }

    /// Returns whether it owes an answer or a digest, spoke of other things all the time, and had the credit for it. Then it is
    /// reckoned to owe it from now on.
    pub(super) fn breaks_promise(&mut self, now: Timestamp) -> bool {
        let is_over = |since: Timestamp| since.after(bounds::ANSWER_WITHIN) <= now;
        let is_late = self.asked_since.is_some_and(is_over) || is_over(self.told_at);
        let speaks = is_over(self.speaks_since) && self.heard_at.after(bounds::SILENCE) > now;
        let has_credit = [Lane::Control, Lane::Repair, Lane::Snapshot]
            .into_iter()
            .all(|lane| self.lane(lane).unreleased() < super::credit::window(lane) / 8);
        let breaks = self.introduction.is_some() && is_late && speaks && has_credit;
        if breaks {
            self.told_at = now;
            self.asked_since = self.asked_since.map(|_| now);
        }
        breaks
    }

    pub(super) const fn lane_mut(&mut self, lane: Lane) -> &mut LaneCredit {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Live => &mut self.live,
            Lane::Repair => &mut self.repair,
            Lane::Snapshot => &mut self.snapshot,
        }
    }
}
