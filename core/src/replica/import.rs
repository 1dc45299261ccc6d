//! Ops that come from a disk and not from a peer: out of a damaged store, or one that was set aside.
//!
//! They are taken as far as their chain goes on here and ends in its author's signature. The others are kept *loose*, in the
//! keyspace `pending` under the op that they wait for, and are taken as soon as that is here: a peer may have what the
//! disk has lost, and nobody else what lies behind it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::open::{OpenError, damaged};
use super::{Now, Replica};
use crate::authority::check_against_previous;
use crate::id::{OpId, StreamId};
use crate::keys::PublicKey;
use crate::limits::CLOCK_AHEAD_MAX;
use crate::op::Op;
use crate::store::keys::{Key as _, Missing, PendingKey};
use crate::store::{Keyspace, Order, Span, envelope};

/// Ops for which loose ones are known to wait; more are found at the next start.
pub(super) const AWAITED_MAX: usize = 65_536;
/// Awaited ops that are looked after in one slice of work.
const REGAINED_PER_SLICE: usize = 16;
/// Loose ops that are taken together, at the most: runs that peers gave are not longer either.
pub(super) const RUN_OPS_MAX: usize = 1_024;
/// First byte of the keys of what waits for an op.
const WAITS_FOR_OP: u8 = 0;

/// Loose ops, by what they wait for.
#[derive(Debug, Default)]
pub(super) struct Loose {
    /// Ops that are not here and for which loose ones wait.
    awaited: BTreeSet<OpId>,
    /// Those that have come.
    come: BTreeSet<OpId>,
    /// How many are loose.
    count: u64,
}

impl Loose {
    pub(super) fn awaited(&self) -> usize {
        self.awaited.len().max(self.come.len())
    }

    /// Whether there is something to be taken.
    pub(super) fn is_due(&self) -> bool {
        !self.come.is_empty()
    }

    /// An op has been staged.
    pub(super) fn note(&mut self, op: OpId) {
        if !self.awaited.is_empty() && self.awaited.remove(&op) {
            self.come.insert(op);
        }
    }
}

/// What became of a run of ops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Imported {
    /// It was here already.
    Known,
    /// It goes on with its stream.
    Taken,
    /// It is kept until what lies before it is here, or what proves it.
    Loose,
}

impl Replica {
    /// Returns how many ops are kept until what lies before them is here.
    #[must_use]
    pub const fn loose_ops(&self) -> u64 {
        self.loose.count
    }

    /// Takes ops of one stream that follow each other, and the last of which is signed if that could be had. Whoever calls
    /// it flushes and commits as after any other input.
    pub fn import(&mut self, now: Now, run: &[Arc<Op>]) -> Imported {
        self.now = now;
        let Some(first) = run.first() else { return Imported::Known };
        let reached = self.heads.get(&first.stream()).map_or(0, |head| head.seq);
        let is_known = |op: &&Arc<Op>| {
            let seq = op.header().seq;
            seq <= reached && self.chains().main(&op.stream(), seq) == Some(op.id())
        };
        let known = run.iter().take_while(is_known).count();
        let run = run.get(known..).unwrap_or_default();
        let Some(first) = run.first() else { return Imported::Known };
        if self.continues(first) && self.proves(run) {
            self.take_run(run);
            return Imported::Taken;
        }
        let mut missing = self.waits_for(first);
        for op in run {
            self.keep_loose(missing, op);
            missing = op.id();
        }
        Imported::Loose
    }

    /// Takes one op, if it goes on with its stream, and is signed under a certificate that is known; keeps it in no other case.
    /// Returns whether it is here now.
    pub(super) fn import_whole(&mut self, now: Now, op: &Arc<Op>) -> bool {
        self.now = now;
        let run = std::slice::from_ref(op);
        let is_known = self.chains().main(&op.stream(), op.header().seq) == Some(op.id());
        let fits = is_known || self.continues(op) && self.proves(run);
        if fits && !is_known {
            self.take_run(run);
        }
        fits
    }

    /// Whether an op is the next of its stream.
    fn continues(&self, op: &Op) -> bool {
        let header = op.header();
        match self.heads.get(&op.stream()) {
            None => header.seq == 1 && header.prev == OpId::ZERO,
            Some(head) => {
                head.seq.checked_add(1) == Some(header.seq)
                    && self
                        .chains()
                        .main_op(&op.stream(), head.seq)
                        .is_some_and(|before| check_against_previous(header, before.header(), before.id()).is_ok())
            }
        }
    }

    /// Whether a run is a chain that its author has signed, under a certificate that is known.
    fn proves(&self, run: &[Arc<Op>]) -> bool {
        let is_chain = run.windows(2).all(|pair| match pair {
            [before, op] => check_against_previous(op.header(), before.header(), before.id()).is_ok(),
            _ => true,
        });
        let Some(last) = run.last().filter(|_| is_chain) else { return false };
        let header = last.header();
        // The genesis is what the cluster is named by; until it is here it certifies nobody, itself included.
        let begins = run.first().is_some_and(|first| first.id() == self.identity.cluster.genesis());
        let is_certified = self.authority.is_certified(self.certificate_of(last), header.author) == Some(true);
        (begins || is_certified) && PublicKey::new(&header.author).is_some_and(|key| last.is_signed_by(&key))
    }

    /// The genesis is bound to no certificate; it is its own.
    fn certificate_of(&self, op: &Op) -> OpId {
        match op.header().certificate {
            OpId::ZERO => self.identity.cluster.genesis(),
            certificate => certificate,
        }
    }

    /// What must be here before an op can be taken.
    fn waits_for(&self, op: &Op) -> OpId {
        let certificate = self.certificate_of(op);
        match self.authority.is_certified(certificate, op.header().author) {
            None => certificate,
            Some(_) => op.header().prev,
        }
    }

    fn take_run(&mut self, run: &[Arc<Op>]) {
        for op in run {
            self.clock.observe(op.header().hlc, self.now.wall_ms, CLOCK_AHEAD_MAX);
            self.stage_op(op.clone(), None);
            self.note_op(op);
        }
    }

    fn keep_loose(&mut self, missing: OpId, op: &Op) {
        let key = PendingKey { missing: Missing::Op(missing), waiting: op.id() };
        let bare = self.bare_of_erased(op);
        self.put(Keyspace::Pending, key.encode(), &bare.as_ref().unwrap_or(op).encode());
        self.loose.count += 1;
        if self.loose.awaited.len() < AWAITED_MAX {
            self.loose.awaited.insert(missing);
        }
    }

    /// Finds what was loose when the replica was last open.
    pub(super) fn resume_loose(&mut self) -> Result<(), OpenError> {
        let store = self.store.clone();
        let mut waiting = BTreeSet::new();
        for entry in store.scan(Keyspace::Pending, &Span::prefix([WAITS_FOR_OP]), Order::Ascending) {
            let (key, value) = entry?;
            let key = PendingKey::decode(&key).map_err(|error| damaged(Keyspace::Pending, error))?;
            let Missing::Op(missing) = key.missing else { continue };
            self.loose.count += 1;
            waiting.insert(key.waiting);
            let op = envelope::open(value).ok().and_then(|bytes| Op::decode(&bytes, self.identity.cluster).ok());
            let reached = |stream: StreamId| self.heads.get(&stream).map_or(0, |head| head.seq);
            // What came while it could not be noticed, or is of no use.
            if op.is_none_or(|op| op.header().seq <= reached(op.stream()).saturating_add(1)) {
                self.loose.come.insert(missing);
            } else if self.loose.awaited.len() < AWAITED_MAX {
                self.loose.awaited.insert(missing);
            }
        }
        // Only the first of those that follow each other waits for something that may come.
        self.loose.awaited.retain(|missing| !waiting.contains(missing));
        Ok(())
    }

    /// Takes loose ops for which what they waited for has come.
    pub(super) fn regain(&mut self) {
        for _ in 0..REGAINED_PER_SLICE {
            let Some(awaited) = self.loose.come.pop_first() else { return };
            for first in self.loose_behind(awaited) {
                self.regain_run(awaited, first);
            }
        }
    }

    /// Returns the loose ops that wait for an op, and drops what cannot be read.
    fn loose_behind(&mut self, awaited: OpId) -> Vec<Arc<Op>> {
        let mut found = Vec::new();
        let span = PendingKey::missing(Missing::Op(awaited));
        for entry in self.store.clone().scan(Keyspace::Pending, &span, Order::Ascending) {
            let Ok((key, value)) = entry else { break };
            let op = envelope::open(value).ok().and_then(|bytes| Op::decode(&bytes, self.identity.cluster).ok());
            match op {
                Some(op) => found.push(Arc::new(op)),
                None => {
                    self.delete(Keyspace::Pending, key.to_vec());
                    self.loose.count = self.loose.count.saturating_sub(1);
                }
            }
        }
        found
    }

    fn regain_run(&mut self, awaited: OpId, first: Arc<Op>) {
        let mut run = vec![first];
        while let Some(last) = run.last().filter(|last| last.signature().is_none() && run.len() < RUN_OPS_MAX) {
            let Some(next) = self.loose_behind(last.id()).into_iter().next() else { break };
            run.push(next);
        }
        let Some((first, last)) = run.first().zip(run.last()) else { return };
        let (stream, last_id) = (last.stream(), last.id());
        let reached = self.heads.get(&stream).map_or(0, |head| head.seq);
        let is_behind = last.header().seq <= reached;
        if !is_behind && self.continues(first) && self.proves(&run) {
            self.take_run(&run);
        } else if !is_behind {
            // Still something else is missing: the op before it, the certificate, or what proves it.
            if self.loose.awaited.len() < AWAITED_MAX {
                self.loose.awaited.insert(self.waits_for(first));
            }
            return;
        }
        let mut missing = awaited;
        for op in &run {
            let key = PendingKey { missing: Missing::Op(missing), waiting: op.id() };
            self.delete(Keyspace::Pending, key.encode());
            missing = op.id();
        }
        self.loose.count = self.loose.count.saturating_sub(run.len() as u64);
        // What waits for the last of them is next.
        self.loose.awaited.remove(&last_id);
        self.loose.come.insert(last_id);
    }
}
