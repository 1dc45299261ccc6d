//! How peers behave: what each did that no correct peer does, how much of its traffic brings nothing, whether it is banned.
//!
//! Every misdeed has a weight. Weights add up to a score, which is forgotten at a constant rate; at [`bounds::SCORE_MAX`] the peer is
//! banned for a while, each time for twice as long. All this outlives connections, and bans outlive the process: a liar gains
//! nothing by coming back. It is the judgement of one node about its neighbours and no verdict: what a banned member has written
//! rightly is taken from others.
//!
//! Traffic that brings nothing is no misdeed in itself: every op arrives from several peers. So each has an *allowance* for
//! it, which grows with time and with what is new here, from whomever it came. Who has used it up gets no more credit until it
//! has grown again, and is charged for each second of that.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::{Peer, Timestamp};
use super::limits as bounds;
use super::misdeed::Misbehaviour;
use crate::id::SessionId;

/// A ban, as it is kept over a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ban {
    /// Who.
    pub peer: Peer,
    /// For what, last.
    pub what: Misbehaviour,
    /// How often it was banned, as far as that is not forgotten.
    pub count: u32,
    /// How much longer; zero if it is over.
    pub left: Duration,
}

/// What is known of a peer's conduct.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConductStatus {
    /// The peer.
    pub peer: Peer,
    /// The score now.
    pub score: u32,
    /// The last misdeed, if there was any.
    pub last: Option<Misbehaviour>,
    /// How often it did what since this node started.
    pub counts: Vec<(Misbehaviour, u64)>,
    /// How often it was banned, as far as that is not forgotten.
    pub bans: u32,
    /// How much longer it is banned; none if it is not.
    pub banned_for: Option<Duration>,
}

/// What a misdeed led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sentence {
    /// It is remembered.
    Noted,
    /// The peer is banned.
    Banned(Duration),
}

/// Score in millionths, so that a microsecond forgets something.
const MICRO: u64 = 1_000_000;

#[derive(Clone, Debug, Default)]
struct Record {
    score: u64,
    scored_at: Timestamp,
    last: Option<Misbehaviour>,
    counts: BTreeMap<Misbehaviour, u64>,
    bans: u32,
    banned_until: Timestamp,
    allowance: Bucket,
    service: Bucket,
    /// When it was last charged for being without allowance.
    charged_at: Timestamp,
    /// The session for whose fork it was last charged.
    forked: Option<SessionId>,
}

impl Record {
    fn settle(&mut self, now: Timestamp) {
        let passed = now.micros().saturating_sub(self.scored_at.micros());
        let forgotten = passed.saturating_mul(u64::from(bounds::SCORE_FORGOTTEN_PER_MINUTE)) / 60;
        self.score = self.score.saturating_sub(forgotten);
        self.scored_at = now;
        // One ban is forgotten after each time of good conduct that is long enough.
        while self.bans > 0 && self.banned_until.after(bounds::BAN_FORGOTTEN) <= now {
            self.bans -= 1;
            self.banned_until = self.banned_until.after(bounds::BAN_FORGOTTEN);
        }
    }

    fn is_clean(&self) -> bool {
        self.score == 0 && self.bans == 0
    }
}

/// A store of tokens that fills with time and with progress. It may go below zero, by one frame.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    used: u64,
    /// Progress that is not used up: what is new from one peer comes from the others a moment later.
    saved: u64,
    at: Timestamp,
    progress: u64,
}

impl Bucket {
    /// Forgets what was used, at `per_second` and by the progress made since it was last asked.
    fn refill(&mut self, now: Timestamp, per_second: u64, progress: u64) {
        let passed = now.micros().saturating_sub(self.at.micros());
        let (by_time, made) = (passed.saturating_mul(per_second) / MICRO, progress.saturating_sub(self.progress));
        if by_time > 0 {
            self.used = self.used.saturating_sub(by_time);
            self.at = now;
        }
        self.saved = self.saved.saturating_add(made.saturating_sub(self.used)).min(bounds::IDLE_SAVED_MAX);
        self.used = self.used.saturating_sub(made);
        self.progress = progress;
    }

    /// Uses bytes, of which no more than `most` are remembered.
    fn spend(&mut self, bytes: u64, most: u64) {
        let saved = self.saved.min(bytes);
        self.saved -= saved;
        self.used = self.used.saturating_add(bytes - saved).min(most);
    }
}

/// The conduct of all peers, connected or not.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    records: BTreeMap<Peer, Record>,
    /// Bytes of ops that came to be here since the start.
    progress: u64,
}

impl Conduct {
    fn record(&mut self, peer: Peer) -> &mut Record {
        if self.records.len() >= bounds::CONDUCT_MAX && !self.records.contains_key(&peer) {
            // The least remarkable makes room.
            let least =
                self.records.iter().min_by_key(|(_, record)| (record.bans, record.score)).map(|(peer, _)| *peer);
            self.records.remove(&least.unwrap_or(peer));
        }
        let progress = self.progress;
        self.records.entry(peer).or_insert_with(|| Record {
            allowance: Bucket { progress, ..Bucket::default() },
            service: Bucket { progress: progress.saturating_mul(2), ..Bucket::default() },
            ..Record::default()
        })
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Notes a misdeed. Of a banned peer nothing more is expected.
    pub(super) fn accuse(&mut self, peer: Peer, what: Misbehaviour, now: Timestamp) -> Sentence {
        let record = self.record(peer);
        record.settle(now);
        record.score = record.score.saturating_add(u64::from(what.weight()) * MICRO);
        record.last = Some(what);
        *record.counts.entry(what).or_default() += 1;
        if record.score < u64::from(bounds::SCORE_MAX) * MICRO || record.banned_until > now {
            return Sentence::Noted;
        }
        let time = bounds::BAN_FIRST.saturating_mul(1 << record.bans.min(16)).min(bounds::BAN_MAX);
        record.score = 0;
        record.bans = record.bans.saturating_add(1);
        record.banned_until = now.after(time);
        Sentence::Banned(time)
    }

    /// Returns whether an author has not been charged for forks of this session: a data directory that was copied forks all
    /// streams of one, and no other.
    pub(super) fn is_new_fork(&mut self, author: Peer, session: SessionId) -> bool {
        self.record(author).forked.replace(session) != Some(session)
    }

    /// Returns how much longer a peer is banned.
    pub(super) fn banned_for(&self, peer: &Peer, now: Timestamp) -> Option<Duration> {
        let until = self.records.get(peer)?.banned_until;
        let left = until.micros().checked_sub(now.micros()).filter(|left| *left > 0)?;
        Some(Duration::from_micros(left))
    }

    /// Returns a peer's last misdeed.
    pub(super) fn last(&self, peer: &Peer) -> Option<Misbehaviour> {
        self.records.get(peer)?.last
    }

    /// Forgets everything about a peer.
    pub(super) fn pardon(&mut self, peer: &Peer) {
        self.records.remove(peer);
    }

    /// Takes up a ban of an earlier life. Of its time no more counts than any ban may last, whatever the clocks say.
    pub(super) fn restore(&mut self, ban: &Ban, now: Timestamp) {
        let record = self.record(ban.peer);
        record.scored_at = now;
        record.last = Some(ban.what);
        record.bans = ban.count;
        record.banned_until = now.after(ban.left.min(bounds::BAN_MAX));
    }

    pub(super) fn bans(&self, now: Timestamp) -> impl Iterator<Item = Ban> + '_ {
        let ban = move |(peer, record): (&Peer, &Record)| {
            let what = record.last.filter(|_| record.bans > 0)?;
            let left = self.banned_for(peer, now).unwrap_or_default();
            Some(Ban { peer: *peer, what, count: record.bans, left })
        };
        self.records.iter().filter_map(ban)
    }

    pub(super) fn status(&self, now: Timestamp) -> Vec<ConductStatus> {
        let status = |(peer, record): (&Peer, &Record)| {
            let mut record = record.clone();
            record.settle(now);
            ConductStatus {
                peer: *peer,
                score: u32::try_from(record.score.div_ceil(MICRO)).unwrap_or(u32::MAX),
                last: record.last,
                counts: record.counts.into_iter().collect(),
                bans: record.bans,
                banned_for: self.banned_for(peer, now),
            }
        };
        self.records.iter().map(status).collect()
    }

    // ---- traffic ----

    /// Notes bytes of ops that were new here.
    pub(super) const fn progressed(&mut self, bytes: usize) {
        self.progress = self.progress.saturating_add(bytes as u64);
    }

    /// Returns the bytes of ops that came to be here since the start.
    pub(super) const fn progress(&self) -> u64 {
        self.progress
    }

    /// Charges a peer's allowance for traffic that brought nothing.
    pub(super) fn idle(&mut self, peer: Peer, bytes: usize, now: Timestamp) {
        let progress = self.progress;
        let record = self.record(peer);
        record.allowance.refill(now, bounds::IDLE_BYTES_PER_SECOND, progress);
        let bytes = (bytes as u64).max(bounds::IDLE_FRAME_MIN);
        // What is beyond is not counted without end: it ends in a ban, or the peer has learnt.
        let most = bounds::IDLE_BYTES_MAX + 2 * bounds::IDLE_BYTES_PER_SECOND;
        record.allowance.spend(bytes, most);
    }

    /// Returns whether a peer has used up its allowance.
    pub(super) fn is_idle(&mut self, peer: &Peer, now: Timestamp) -> bool {
        let progress = self.progress;
        let Some(record) = self.records.get_mut(peer) else { return false };
        record.allowance.refill(now, bounds::IDLE_BYTES_PER_SECOND, progress);
        record.allowance.used > bounds::IDLE_BYTES_MAX
    }

    /// Returns whether a peer without allowance is to be charged for that: once a second.
    pub(super) fn is_flooding(&mut self, peer: &Peer, now: Timestamp) -> bool {
        if !self.is_idle(peer, now) {
            return false;
        }
        let Some(record) = self.records.get_mut(peer) else { return false };
        let is_due = record.charged_at.after(Duration::from_secs(1)) <= now;
        if is_due {
            record.charged_at = now;
        }
        is_due
    }

    /// Notes bytes that were read and sent because a peer asked.
    pub(super) fn served(&mut self, peer: Peer, bytes: usize, now: Timestamp) {
        let progress = self.progress.saturating_mul(2);
        let record = self.record(peer);
        record.service.refill(now, bounds::SERVED_BYTES_PER_SECOND, progress);
        record.service.spend((bytes as u64).max(bounds::SERVED_MIN), u64::MAX);
    }

    /// Returns whether a peer may have more read for it. `held` bytes are here: nobody needs them again and again.
    pub(super) fn may_be_served(&mut self, peer: &Peer, held: u64, now: Timestamp) -> bool {
        let progress = self.progress.saturating_mul(2);
        let Some(record) = self.records.get_mut(peer) else { return true };
        record.service.refill(now, bounds::SERVED_BYTES_PER_SECOND, progress);
        record.service.used <= bounds::SERVED_BYTES_MIN.saturating_add(held.saturating_mul(bounds::SERVED_TIMES))
    }

    /// Forgets who is clean and not there any more.
    pub(super) fn sweep(&mut self, now: Timestamp, is_here: impl Fn(&Peer) -> bool) {
        for record in self.records.values_mut() {
            record.settle(now);
        }
        self.records.retain(|peer, record| {
            let is_rested = |bucket: &Bucket| bucket.used == 0 || bucket.at.after(bounds::BAN_FIRST) <= now;
            is_here(peer) || !record.is_clean() || !is_rested(&record.allowance) || !is_rested(&record.service)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * MICRO)
    }

    fn peer(n: u8) -> Peer {
        Peer::new([n; 32])
    }

    #[test]
    fn scores_add_up_and_are_forgotten() {
        let mut conduct = Conduct::default();
        let score = |conduct: &Conduct, now| conduct.status(now).first().map(|status| status.score);
        for n in 0..9 {
            assert_eq!(conduct.accuse(peer(1), Misbehaviour::WrongAnswer, at(n)), Sentence::Noted);
        }
        assert_eq!(score(&conduct, at(9)), Some(89));
        assert_eq!(score(&conduct, at(9 + 300)), Some(39));
        assert_eq!(score(&conduct, at(9 + 600)), Some(0));
        // One in a minute is forgotten as fast as it comes.
        for minute in 20..200 {
            assert_eq!(conduct.accuse(peer(1), Misbehaviour::WrongAnswer, at(minute * 60)), Sentence::Noted);
        }
        assert_eq!(conduct.status(at(12_000))[0].counts, [(Misbehaviour::WrongAnswer, 189)]);
    }

    #[test]
    fn bans_grow_and_are_forgotten_one_by_one() {
        let mut conduct = Conduct::default();
        let mut now = at(10);
        let mut times = Vec::new();
        for _ in 0..14 {
            let Sentence::Banned(time) = conduct.accuse(peer(1), Misbehaviour::FalseHello, now) else { panic!() };
            assert_eq!(conduct.banned_for(&peer(1), now), Some(time));
            assert_eq!(conduct.accuse(peer(1), Misbehaviour::FalseHello, now), Sentence::Noted, "it is banned already");
            times.push(time);
            now = now.after(time);
            assert_eq!(conduct.banned_for(&peer(1), now), None);
        }
        assert_eq!(times[..3], [bounds::BAN_FIRST, 2 * bounds::BAN_FIRST, 4 * bounds::BAN_FIRST]);
        assert_eq!(*times.last().unwrap(), bounds::BAN_MAX);
        let later = now.after(bounds::BAN_FORGOTTEN * 13);
        assert_eq!(conduct.status(later)[0].bans, 1);
        let Sentence::Banned(time) = conduct.accuse(peer(1), Misbehaviour::FalseHello, later) else { panic!() };
        assert_eq!(time, 2 * bounds::BAN_FIRST);
    }

    #[test]
    fn bans_outlive_the_process() {
        let mut before = Conduct::default();
        before.accuse(peer(1), Misbehaviour::CreditOverrun, at(10));
        before.accuse(peer(2), Misbehaviour::WrongAnswer, at(10));
        let bans: Vec<Ban> = before.bans(at(30)).collect();
        let ban = Ban { peer: peer(1), what: Misbehaviour::CreditOverrun, count: 1, left: Duration::from_secs(40) };
        assert_eq!(bans, [ban]);
        let mut after = Conduct::default();
        after.restore(&ban, at(1_000));
        assert_eq!(after.banned_for(&peer(1), at(1_039)), Some(Duration::from_secs(1)));
        assert_eq!(after.banned_for(&peer(1), at(1_040)), None);
        let Sentence::Banned(time) = after.accuse(peer(1), Misbehaviour::CreditOverrun, at(1_041)) else { panic!() };
        assert_eq!(time, 2 * bounds::BAN_FIRST);
        after.restore(&Ban { left: Duration::from_secs(1 << 40), ..ban }, at(2_000));
        assert_eq!(after.banned_for(&peer(1), at(2_000)), Some(bounds::BAN_MAX));
        after.pardon(&peer(1));
        assert_eq!(after.len(), 0);
    }

    #[test]
    fn idle_traffic_is_measured_by_what_is_new() {
        let mut conduct = Conduct::default();
        let megabyte = 1 << 20;
        // As much that is new as that is not: no end to it.
        conduct.idle(peer(1), 1, at(0));
        for second in 1..200 {
            conduct.progressed(20 * megabyte);
            conduct.idle(peer(1), 20 * megabyte, at(second));
            assert!(!conduct.is_idle(&peer(1), at(second)), "{second}");
        }
        let mut used = 0;
        while !conduct.is_idle(&peer(2), at(200)) {
            conduct.idle(peer(2), 100_000, at(200));
            used += 100_000;
        }
        assert!((bounds::IDLE_BYTES_MAX..bounds::IDLE_BYTES_MAX + 200_000).contains(&used), "{used}");
        // However much more it sends, two seconds' worth of it are remembered.
        conduct.idle(peer(2), 10 * megabyte, at(200));
        assert!(conduct.is_flooding(&peer(2), at(201)));
        assert!(!conduct.is_flooding(&peer(2), at(201)), "once a second");
        assert!(!conduct.is_idle(&peer(2), at(202)));
        // Small frames cost more than their bytes.
        let frames = (0..).take_while(|_| {
            conduct.idle(peer(3), 1, at(300));
            !conduct.is_idle(&peer(3), at(300))
        });
        assert_eq!(frames.count() as u64, bounds::IDLE_BYTES_MAX / bounds::IDLE_FRAME_MIN);
    }

    #[test]
    fn nobody_is_served_everything_again_and_again() {
        let mut conduct = Conduct::default();
        let held = 1 << 30;
        let mut served = 0;
        while conduct.may_be_served(&peer(1), held, at(1)) {
            conduct.served(peer(1), 1 << 20, at(1));
            served += 1 << 20;
        }
        assert!(served > held * bounds::SERVED_TIMES && served < held * (bounds::SERVED_TIMES + 1), "{served}");
        assert!(conduct.may_be_served(&peer(1), held, at(3)), "a little all the time");
    }

    #[test]
    fn the_least_remarkable_are_forgotten_first() {
        let mut conduct = Conduct::default();
        let number = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            Peer::new(bytes)
        };
        conduct.accuse(number(usize::MAX), Misbehaviour::FalseHello, at(1));
        for n in 0..2 * bounds::CONDUCT_MAX {
            conduct.accuse(number(n), Misbehaviour::BrokenPromise, at(1));
        }
        assert_eq!(conduct.len(), bounds::CONDUCT_MAX);
        assert!(conduct.banned_for(&number(usize::MAX), at(2)).is_some());
        conduct.sweep(at(1_000), |_| false);
        assert_eq!(conduct.len(), 1, "only the ban is remembered");
    }
}
