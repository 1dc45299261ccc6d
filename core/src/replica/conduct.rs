//! What the replica knows of the conduct of members beside what the replication engine sees: what they wrote. And bans, kept
//! over a restart.
//!
//! An honest node judges what it writes before it signs it, by the rules by which all others judge it: a transaction that
//! its author had no right to, or a change that the gate refuses, was meant to do harm or comes from a broken program. Each
//! replica finds that by itself, so all of them ban the author, whoever brought them its ops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::records::{HeadRecord, TxRef, TxState};
use super::{OpenError, Replica};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ChangeHash, SessionId, ShardId, StreamId};
use crate::op::Op;
use crate::op::codec;
use crate::replication::limits::WAITING_MAX;
use crate::replication::{Ban, ConductStatus, Input as NetInput, Misbehaviour};
use crate::store::Keyspace;

/// Key of the bans in the keyspace `meta`.
const BANS: &[u8] = b"bans";
/// Bytes of the bans: far more than of [`crate::replication::limits::CONDUCT_MAX`].
const BANS_BYTES_MAX: usize = 1 << 20;
/// Accusations that wait to be told to the engine. More are of no account: the first dozen end in a ban.
const ACCUSED_MAX: usize = 1_024;

/// How often it is looked for what authors' transactions wait for.
const LACKS_INTERVAL_MS: u64 = 10_000;
/// How long something must be lacking before its author is blamed: longer than it takes to ask all for it by name.
const LACKS_FOR_MS: u64 = 90_000;
/// In how many sessions of one shard, but its newest, an author's transactions may wait without blame.
const LACKING_SESSIONS_MAX: usize = 4;
/// How many transactions that wait are looked at.
const LACKS_LOOKED_AT_MAX: usize = 1_024;

/// A ban as it is stored: who, for what, how often, until when by the wall clock.
#[derive(Serialize, Deserialize)]
struct BanRecord(AuthorKey, String, u32, u64);

/// What an author's transactions wait for, although its digest is ours, so that it has it no more than this node.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    looked_at_ms: u64,
    by_author: BTreeMap<AuthorKey, Lack>,
    /// Authors with very many transactions that wait, as the replication engine was told.
    heavy: BTreeSet<AuthorKey>,
}

#[derive(Clone, Debug)]
struct Lack {
    stream: StreamId,
    what: Lacking,
    since_ms: u64,
}

#[derive(Clone, Debug)]
enum Lacking {
    Change(ChangeHash),
    Act(TxRef),
}

impl Replica {
    /// Notes that a transaction of an author is what no honest node writes.
    pub(super) fn accuse_author(&mut self, op: &Arc<Op>, state: TxState) {
        let what = match state {
            TxState::NotAllowed => Misbehaviour::NotAllowed,
            TxState::BadChange => Misbehaviour::BadChange,
            TxState::Held => Misbehaviour::HeldChange,
            TxState::Waiting | TxState::Deferred | TxState::AfterRevocation | TxState::Duplicate | TxState::Forked => {
                return;
            }
        };
        self.accuse(op.header().author, what);
    }

    fn accuse(&mut self, author: AuthorKey, what: Misbehaviour) {
        if self.accused.len() < ACCUSED_MAX {
            self.accused.push((author, what));
        }
    }

    /// Looks for authors that have written what waits for something that they do not have themselves. An honest one has what its
    /// session builds on, and gives it to whoever lacks it, so with equal digests nothing of it can wait for long.
    ///
    /// Of earlier sessions it may have lost that: restored from a backup after it had built on what only somebody has who was
    /// removed meanwhile, or copied and the other copy deleted. That happens a few times in the life of a node, so more
    /// sessions than that are charged all the same.
    fn look_for_lacks(&mut self) {
        let now_ms = self.now.monotonic_ms;
        if now_ms < self.lacks.looked_at_ms.saturating_add(LACKS_INTERVAL_MS) {
            return;
        }
        self.lacks.looked_at_ms = now_ms;
        let peers = self.engine.peers();
        let equal_at_ms: BTreeMap<AuthorKey, u64> =
            peers.iter().map(|peer| (peer.peer, peer.equal_at.millis())).collect();
        // What lies on a branch that others have given up for lost is not to be had any more, in the control log neither.
        let forkers: BTreeSet<AuthorKey> =
            self.heads.values().filter(|head| head.fork.is_some()).map(|head| head.key.author).collect();
        let may_lack =
            |author: &AuthorKey| equal_at_ms.contains_key(author) && !forkers.iter().any(|forker| forker != author);
        let changes = self.wanted.keys().take(LACKS_LOOKED_AT_MAX);
        let waiting = changes.filter_map(|hash| Some((self.waits.for_change(hash).next()?, Lacking::Change(*hash))));
        let deferred = self.waits.deferred().iter().take(LACKS_LOOKED_AT_MAX).map(|tx| (*tx, Lacking::Act(*tx)));
        let lacking: Vec<(TxRef, Lacking)> = waiting.chain(deferred).collect();
        let blamed = self.blamed_streams(lacking.iter().map(|(tx, _)| tx.stream).collect());
        let mut found = std::mem::take(&mut self.lacks.by_author);
        found.retain(|author, lack| {
            may_lack(author)
                && blamed.contains(&lack.stream)
                && match &lack.what {
                    Lacking::Change(hash) => self.wanted.contains_key(hash),
                    Lacking::Act(tx) => self.waits.deferred().contains(tx),
                }
        });
        for (TxRef { stream, .. }, what) in lacking.into_iter().filter(|(tx, _)| blamed.contains(&tx.stream)) {
            let Some(author) = self.heads.get(&stream).map(|head| head.key.author) else { continue };
            if may_lack(&author) && !found.contains_key(&author) && self.names_nothing(&what) {
                found.insert(author, Lack { stream, what, since_ms: now_ms });
            }
        }
        for (author, lack) in &mut found {
            // It has told since that it has what is here and no more.
            let is_told = equal_at_ms.get(author).is_some_and(|equal_at| *equal_at > lack.since_ms);
            if is_told && now_ms >= lack.since_ms.saturating_add(LACKS_FOR_MS) {
                lack.since_ms = now_ms.saturating_sub(LACKS_FOR_MS - LACKS_INTERVAL_MS);
                self.accuse(*author, Misbehaviour::Deferral);
            }
        }
        self.lacks.by_author = found;
    }

    /// Returns, of streams in which something waits, those whose authors are to blame: of the author's newest session in any shard, and
    /// all of one with many in the shard.
    fn blamed_streams(&self, waiting: BTreeSet<StreamId>) -> BTreeSet<StreamId> {
        let heads = || waiting.iter().filter_map(|stream| self.heads.get(stream));
        let mut newest: BTreeMap<AuthorKey, (Hlc, SessionId)> = BTreeMap::new();
        let mut streams: BTreeMap<(AuthorKey, &ShardId), usize> = BTreeMap::new();
        for head in heads() {
            newest.insert(head.key.author, (Hlc::default(), SessionId::ZERO));
            *streams.entry((head.key.author, &head.key.shard)).or_default() += 1;
        }
        for head in self.heads.values() {
            if let Some(last) = newest.get_mut(&head.key.author) {
                *last = (*last).max((head.hlc, head.key.session));
            }
        }
        let is_blamed = |stream: &&StreamId| {
            self.heads.get(*stream).is_some_and(|HeadRecord { key, .. }| {
                newest.get(&key.author).is_some_and(|(_, session)| *session == key.session)
                    || streams.get(&(key.author, &key.shard)).is_some_and(|count| *count > LACKING_SESSIONS_MAX)
            })
        };
        waiting.iter().filter(is_blamed).copied().collect()
    }

    /// Whether what is lacking is named by the transaction that waits for it, and by nobody else.
    fn names_nothing(&mut self, what: &Lacking) -> bool {
        match what {
            Lacking::Change(_) => true,
            Lacking::Act(tx) => self.load_op(tx).is_some_and(|op| {
                op.header().control_heads.iter().any(|act| self.authority.control_verdict(*act).is_none())
            }),
        }
    }

    /// Tells the replication engine of whose transactions very much waits.
    fn tell_waiting(&mut self, effects: &mut Vec<super::Effect>) {
        let names = self.waits.names();
        let heavy: BTreeSet<AuthorKey> =
            names.iter().filter(|(_, names)| **names > WAITING_MAX).map(|(author, _)| *author).collect();
        let changed: Vec<AuthorKey> = heavy.symmetric_difference(&self.lacks.heavy).copied().collect();
        self.lacks.heavy = heavy;
        for author in changed {
            let names = self.waits.names_of(&author);
            self.step_engine(self.now, NetInput::Waiting { author, names }, effects);
        }
    }

    /// Tells the replication engine of what authors did.
    pub(super) fn tell_accused(&mut self, effects: &mut Vec<super::Effect>) {
        self.look_for_lacks();
        self.tell_waiting(effects);
        let now = self.now;
        for (peer, what) in std::mem::take(&mut self.accused) {
            self.step_engine(now, NetInput::Accused { peer, what }, effects);
        }
    }

    /// Puts the bans into the batch, if there is a new one.
    pub(super) fn stage_bans(&mut self) {
        if !std::mem::take(&mut self.bans_changed) {
            return;
        }
        let wall_ms = self.now.wall_ms;
        let left = |ban: &Ban| u64::try_from(ban.left.as_millis()).unwrap_or(u64::MAX);
        let bans = self.engine.bans(self.now.timestamp());
        let records: Vec<BanRecord> = bans
            .iter()
            .map(|ban| BanRecord(ban.peer, ban.what.name().to_owned(), ban.count, wall_ms.saturating_add(left(ban))))
            .collect();
        self.put(Keyspace::Meta, BANS.to_vec(), &codec::encode(&records));
    }

    /// Takes up the bans that hold when the replica is opened.
    pub(super) fn resume_bans(&mut self) -> Result<(), OpenError> {
        let store = self.store.clone();
        let Some(value) = super::open::read(&*store, Keyspace::Meta, BANS)? else { return Ok(()) };
        let records: Vec<BanRecord> =
            codec::decode(&value, BANS_BYTES_MAX).map_err(|error| super::open::damaged(Keyspace::Meta, error))?;
        let wall_ms = self.now.wall_ms;
        let bans = records.into_iter().filter_map(|BanRecord(peer, what, count, until_ms)| {
            let left = Duration::from_millis(until_ms.saturating_sub(wall_ms));
            Some(Ban { peer, what: Misbehaviour::by_name(&what)?, count, left })
        });
        self.engine.restore_bans(bans, self.now.timestamp());
        Ok(())
    }

    /// Returns what is known of the conduct of other members.
    #[must_use]
    pub fn conduct(&self) -> Vec<ConductStatus> {
        self.engine.conduct(self.now.timestamp())
    }
}
