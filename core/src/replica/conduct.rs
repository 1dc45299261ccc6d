//! What the replica knows of the conduct of members beside what the replication engine sees: what they wrote. And bans, kept
//! over a restart.
//!
//! An honest node judges what it writes before it signs it, by the rules by which all others judge it: a transaction that
//! its author had no right to, or a change that the gate refuses, was meant to do harm or comes from a broken program. Each
//! replica finds that by itself, so all of them ban the author, whoever brought them its ops.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::records::TxState;
use super::{OpenError, Replica};
use crate::id::AuthorKey;
use crate::op::Op;
use crate::op::codec;
use crate::replication::{Ban, ConductStatus, Input as NetInput, Misbehaviour};
use crate::store::Keyspace;

/// Key of the bans in the keyspace `meta`.
const BANS: &[u8] = b"bans";
/// Bytes of the bans: far more than of [`crate::replication::limits::CONDUCT_MAX`].
const BANS_BYTES_MAX: usize = 1 << 20;
/// Accusations that wait to be told to the engine. More are of no account: the first dozen end in a ban.
const ACCUSED_MAX: usize = 1_024;

/// Transactions of one author that may come to wait before that is noted once: some do wherever members write apart for long.
const DEFERRALS_FREE: u64 = 100;

/// A ban as it is stored: who, for what, how often, until when by the wall clock.
#[derive(Serialize, Deserialize)]
struct BanRecord(AuthorKey, String, u32, u64);

impl Replica {
    /// Notes that a transaction of an author is what no honest node writes.
    pub(super) fn accuse_author(&mut self, op: &Arc<Op>, state: TxState) {
        let what = match state {
            TxState::NotAllowed => Misbehaviour::NotAllowed,
            TxState::BadChange => Misbehaviour::BadChange,
            TxState::Held => Misbehaviour::HeldChange,
            TxState::Waiting | TxState::Deferred => {
                let count = self.deferrals.entry(op.header().author).or_default();
                *count += 1;
                if !count.is_multiple_of(DEFERRALS_FREE) {
                    return;
                }
                Misbehaviour::Deferral
            }
            TxState::AfterRevocation | TxState::Duplicate | TxState::Forked => return,
        };
        if self.accused.len() < ACCUSED_MAX {
            self.accused.push((op.header().author, what));
        }
    }

    /// Tells the replication engine of what authors did.
    pub(super) fn tell_accused(&mut self, effects: &mut Vec<super::Effect>) {
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
