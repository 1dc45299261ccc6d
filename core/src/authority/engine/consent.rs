//! Acts of owners that wait for the consent of others.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Authority;
use super::log::{ActIx, Log};
use crate::authority::verdict::{Missing, Verdict};
use crate::id::{AuthorKey, OpId};
use crate::op::Header;

/// An act of a present owner that counts as soon as enough others consent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// The act.
    pub act: OpId,
    /// Its header.
    pub header: Arc<Header>,
    /// The owners who consent to it, ascending: its author, and those who have approved it.
    pub consenting: Vec<AuthorKey>,
    /// How many are needed.
    pub threshold: u8,
}

impl Waiting {
    /// Returns how many further owners are needed.
    #[must_use]
    pub fn missing(&self) -> u8 {
        let here = u8::try_from(self.consenting.len()).unwrap_or(u8::MAX);
        self.threshold.saturating_sub(here)
    }
}

/// What an owner asked for at once, as far as it waits: at least one act, in the order of their stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitingRequest(Vec<Waiting>);

impl WaitingRequest {
    /// Returns its acts.
    #[must_use]
    pub fn acts(&self) -> &[Waiting] {
        &self.0
    }

    /// Returns the act by whose name all of it is approved: the last one, whose hash holds those before.
    #[must_use]
    pub fn name(&self) -> OpId {
        self.0.last().map_or(OpId::ZERO, |last| last.act)
    }

    /// Returns what is approved by the name of one of its acts: that one and those before; nothing if the act is none of it.
    #[must_use]
    pub fn until(&self, act: OpId) -> &[Waiting] {
        let end = self.0.iter().position(|waiting| waiting.act == act).map_or(0, |at| at + 1);
        self.0.get(..end).unwrap_or_default()
    }

    /// Whether an act goes on with the request: right behind it, signed in the same moment.
    fn goes_on_with(&self, next: &Header) -> bool {
        self.0.last().is_some_and(|last| {
            last.header.stream_key() == next.stream_key()
                && last.header.seq.checked_add(1) == Some(next.seq)
                && last.header.hlc.millis() == next.hlc.millis()
        })
    }
}

impl Log {
    /// Returns the owners who consent to an act of an owner, whose certificate is given.
    pub(super) fn consenting(&self, ix: ActIx, certificate: ActIx) -> BTreeSet<AuthorKey> {
        let record = self.act(ix);
        let approvals = self.approvals.get(&record.id).into_iter().flatten();
        approvals
            .filter(|approval| self.consents(**approval, certificate))
            .map(|approval| self.act(*approval).header.author)
            .chain([record.header.author])
            .collect()
    }
}

impl Authority {
    /// Returns whether the owner who asked for an act wants it no longer.
    #[must_use]
    pub fn is_withdrawn(&self, act: OpId) -> bool {
        let withdrawals = self.log.withdrawals.get(&act).into_iter().flatten();
        withdrawals.into_iter().any(|ix| self.log.act(*ix).is_effective())
    }

    /// Returns the acts of the present owners that wait for the consent of others. What owners before them left open waits for
    /// ever, and is not among them, nor is what was withdrawn.
    fn waiting(&self) -> Vec<Waiting> {
        let certificate = self.log.owners_certificate();
        let set = certificate.and_then(|ix| self.log.act(ix).act()?.owner_set());
        let (Some(certificate), Some(set)) = (certificate, set.filter(|set| set.threshold > 1)) else {
            return Vec::new();
        };
        let made_under = self.log.act(certificate).id;
        let open = self.log.acts.iter().enumerate().filter(|(_, record)| {
            record.header.certificate == made_under
                && record.effect == Verdict::Deferred(Missing::Consent(record.id))
                && !self.is_withdrawn(record.id)
        });
        let told = open.map(|(at, record)| Waiting {
            act: record.id,
            header: record.header.clone(),
            consenting: self.log.consenting(ActIx(at), certificate).into_iter().collect(),
            threshold: set.threshold,
        });
        told.collect()
    }

    /// Returns what present owners asked for and others have to approve, the oldest first.
    #[must_use]
    pub fn waiting_requests(&self) -> Vec<WaitingRequest> {
        let mut acts = self.waiting();
        acts.sort_by_cached_key(|waiting| (waiting.header.stream_key().id(), waiting.header.seq));
        let mut requests: Vec<WaitingRequest> = Vec::new();
        for waiting in acts {
            match requests.last_mut().filter(|request| request.goes_on_with(&waiting.header)) {
                Some(request) => request.0.push(waiting),
                None => requests.push(WaitingRequest(vec![waiting])),
            }
        }
        requests.sort_by_cached_key(|request| request.0.first().map(|first| (first.header.hlc, first.act)));
        requests
    }
}
