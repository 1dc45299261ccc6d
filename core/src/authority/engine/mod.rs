//! The incremental engine.
//!
//! Acts are few and held in memory with their effects; an ordinary act is judged once, when it is complete. Only acts
//! that can change the effect of others (revoke, readmit, approve, and forks) have effects computed again, and only
//! those of acts weaker than themselves. Of a data stream only the points are kept at which its author's knowledge of
//! the control log grows: their number is bounded by the number of acts, not of ops.

mod ask;
mod consent;
mod effect;
mod erasure;
mod evidence;
mod judge;
mod log;
mod past;
mod peppers;
mod policy;
mod queries;
mod reach;
mod rights;
mod standing;
mod streams;
mod succession;
mod why;

pub use ask::{Decision, Denial, Readable, StatementInfo};
pub use consent::{Waiting, WaitingRequest};
pub use erasure::ErasureInfo;
pub use evidence::WitnessInfo;
pub use peppers::PepperInfo;
pub use policy::{CurrentToken, Password, Policy, TokenLimits};
pub use queries::{CertificateInfo, Closed, CollectionConfig, MemberInfo, Reach, RulesState};
pub use streams::{Noted, Rejudge, WrittenFor};
pub use succession::CurrentOwners;
pub use why::{Fork, Ground, Part, Stance, Testimony, Why};

use std::sync::Arc;

use super::verdict::{Missing, Verdict};
use super::{Chains, Position};
use crate::id::{ClusterId, OpId, StreamId};
use crate::op::{Act, Header, Pin};
use effect::{Change, Subject};
use log::{ActIx, Log};
use past::Past;
use streams::Streams;

/// Why an op cannot be taken into the control log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The op is no act.
    #[error("op {0} is no act of the control log")]
    NoAct(OpId),
}

/// What became of an act that was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// It was here already.
    Known,
    /// It waits for acts that it follows or names.
    Pending,
    /// It is judged, and so is whatever waited for it.
    Judged,
}

/// The rule, kept up to date as ops arrive. See the module's header for how to use it.
pub struct Authority {
    log: Log,
    streams: Streams,
    /// Whether pins reach further since that was last asked.
    reach_changed: bool,
    /// Counts changes of what counts.
    revision: u64,
}

impl Authority {
    /// Makes the engine of a cluster of which nothing is known yet.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        Self { log: Log::new(cluster), streams: Streams::default(), reach_changed: false, revision: 0 }
    }

    /// Returns a number that grows whenever what counts may have changed.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.log.cluster
    }

    /// Takes in an act, whose header has passed [`crate::op::Op::decode`].
    ///
    /// # Errors
    /// [`AddError::NoAct`] if the header is that of a data op.
    pub fn add_control(&mut self, id: OpId, header: Arc<Header>) -> Result<Added, AddError> {
        let first_new = self.log.acts.len();
        let added = self.receive(id, header)?;
        self.settle(first_new);
        Ok(added)
    }

    /// Takes in many acts. The same as adding them one by one, but effects are computed once, which matters when a node
    /// starts.
    ///
    /// # Errors
    /// [`AddError::NoAct`] at the first header of a data op; those before are taken in.
    pub fn add_controls(&mut self, acts: impl IntoIterator<Item = (OpId, Arc<Header>)>) -> Result<(), AddError> {
        let first_new = self.log.acts.len();
        let result = acts.into_iter().try_for_each(|(id, header)| self.receive(id, header).map(|_| ()));
        self.settle(first_new);
        result
    }

    fn receive(&mut self, id: OpId, header: Arc<Header>) -> Result<Added, AddError> {
        if header.control().is_none() {
            return Err(AddError::NoAct(id));
        }
        if self.log.holds(id) {
            return Ok(Added::Known);
        }
        let stream = header.stream_key();
        let fork_before = self.log.forks.get(&stream.id()).copied();
        let completed = self.log.receive(id, header);
        if self.log.forks.get(&stream.id()).copied() != fork_before {
            self.unsettle_stream(stream.certificate);
        }
        for act in &completed {
            if self.log.act(*act).is_potential() {
                let strength = self.log.act(*act).strength();
                // An act alone, with nothing else to compute again, is judged at once.
                let is_alone = completed.len() == 1 && !self.log.evidence.concerns(stream.id());
                if is_alone && self.log.unsettled.is_none_or(|from| strength < from) {
                    self.log.settle_one(*act);
                } else {
                    self.log.unsettle(strength);
                }
            }
            self.streams.wake(self.log.act(*act).id);
        }
        Ok(if completed.is_empty() { Added::Pending } else { Added::Judged })
    }

    /// A fork of a control stream: what its author did may count no more, and what rests on it.
    fn unsettle_stream(&mut self, certificate: OpId) {
        let rank = self.log.find(certificate).and_then(|ix| self.log.act(ix).statement()).map(|s| s.rank);
        if let Some(rank) = rank {
            self.log.unsettle(rank);
        }
    }

    /// Computes effects again where needed, notes what has to be judged again, and finds the maximal acts.
    fn settle(&mut self, first_new: usize) {
        self.revision += 1;
        let mut others_changed = false;
        for Change { act, was_effective } in self.log.settle() {
            others_changed |= act.0 < first_new;
            self.log.erasures.act_changed(act);
            self.log.evidence_changed(act);
            self.streams.act_changed(&self.log, act, was_effective);
        }
        if others_changed {
            self.log.rebuild_frontier();
        } else {
            let added: Vec<_> = (first_new..self.log.acts.len()).map(ActIx).collect();
            self.log.extend_frontier(&added);
        }
    }

    /// Returns what is decided about an act; `None` if it was never added.
    #[must_use]
    pub fn control_verdict(&self, id: OpId) -> Option<Verdict> {
        match self.log.find(id) {
            Some(ix) => Some(self.log.act(ix).effect),
            None => self.log.lack_of(id).map(|lack| Verdict::Deferred(Missing::Control(lack))),
        }
    }

    /// Notes a stored data op, in the order of its stream. What is already noted is ignored.
    pub fn note_data(&mut self, at: &Position, header: &Header) -> Noted {
        self.op_came(at);
        self.streams.note(&self.log, at, header)
    }

    /// Notes again, when a node starts, a stream of which only some ops are at hand: those for which `note_data` had
    /// answered [`Noted::Grown`] or [`Noted::Refused`], in order, and the number of the last op noted.
    pub fn resume_data<'a>(&mut self, ops: impl IntoIterator<Item = (Position, &'a Header)>, last: u64) {
        self.streams.resume(&self.log, ops, last);
    }

    /// Returns in which streams principals were written for by others, where that is news since the last call: to be kept,
    /// and given back by [`Self::resume_written_for`] when a node starts.
    pub fn take_written_for(&mut self) -> Vec<WrittenFor> {
        self.streams.take_written_for()
    }

    /// Takes up what [`Self::take_written_for`] had told.
    pub fn resume_written_for(&mut self, written: WrittenFor) {
        self.streams.resume_written_for(written);
    }

    /// Forgets what was noted of a data stream: for a store that changes to another branch of it, which notes it again
    /// from the start.
    pub fn forget_data(&mut self, stream: StreamId) {
        self.streams.forget(stream);
    }

    /// Notes that two ops share this position of a data stream. (Forks of control streams are seen by the engine.)
    pub fn note_fork(&mut self, stream: StreamId, seq: u64) {
        if self.log.fork(stream, seq) {
            self.log.evidence.weigh_again(stream);
            self.streams.rejudge_from(stream, seq);
        }
    }

    /// An op of a data stream is here that may complete a chain.
    fn op_came(&mut self, at: &Position) {
        self.log.reach.op_came(at.stream, at.seq);
        if self.log.evidence.reaching(at.stream, at.seq).next().is_some() {
            self.log.evidence.weigh_again(at.stream);
        }
    }

    /// Notes that an op of a data stream is here which is not on the noted branch: it may complete a chain that a pin
    /// names. Only for stores whose [`Chains`] answers for more than the noted branch.
    pub fn note_aside(&mut self, at: &Position) {
        self.op_came(at);
        if self.log.all_pins_in(at.stream).iter().any(|(_, pin)| pin.seq >= at.seq) {
            self.streams.rejudge_from(at.stream, 1);
        }
    }

    /// Returns the ranges of data streams whose verdicts may have changed since the last call, and forgets them.
    pub fn take_rejudge(&mut self, chains: &dyn Chains) -> Vec<Rejudge> {
        for stream in self.log.follow_chains(chains) {
            self.reach_changed = true;
            self.streams.rejudge_from(stream, 1);
        }
        self.weigh_evidence(chains);
        self.streams.take_rejudge(&self.log, chains)
    }

    /// Returns whether [`Self::closed_at`] may answer otherwise than when this was last asked, because a chain has come that
    /// leads from a pin to an earlier session.
    pub fn take_reach_changed(&mut self) -> bool {
        std::mem::take(&mut self.reach_changed)
    }

    /// Returns the pins whose chain was not here when [`Self::take_rejudge`] last looked.
    pub fn open_pins(&self) -> impl Iterator<Item = Pin> + '_ {
        self.log.reach.open_pins()
    }

    /// Judges one transaction of a data op, which has been noted.
    #[must_use]
    pub fn judge(&self, at: &Position, header: &Header, transaction: usize, chains: &dyn Chains) -> Verdict {
        self.streams.judge(&self.log, at, header, transaction, chains)
    }

    /// Returns what a fork alone makes of an op, whatever else is said of it: forked, or deferred while it is not known
    /// on which branch it lies. `None` before the fork and on the kept branch.
    #[must_use]
    pub fn fork_verdict(&self, at: &Position, certificate: OpId, chains: &dyn Chains) -> Option<Verdict> {
        let past = Past::empty();
        let subject = Subject { position: *at, past: &past, chains };
        match self.log.find(certificate) {
            Some(certificate) => self.log.fork_blame(certificate, &subject),
            None => {
                let fork = self.log.forks.get(&at.stream).copied().filter(|fork| *fork <= at.seq)?;
                Some(Verdict::Forked { stream: at.stream, at: fork })
            }
        }
    }

    /// Returns the acts whose act is of some kind and that are effective.
    fn effective<'a>(&'a self, acts: &'a [ActIx]) -> impl Iterator<Item = (ActIx, &'a Act)> + 'a {
        acts.iter()
            .copied()
            .filter(|ix| self.log.act(*ix).is_effective())
            .filter_map(|ix| self.log.act(ix).act().map(|act| (ix, act)))
    }
}
