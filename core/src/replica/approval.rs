//! Acts of owners that wait for the consent of others: signing that consent, and telling who asks how far it is.
//!
//! An act that waits is on all replicas, signed, and counts on none. Nothing has to be remembered about it beside the log.

use std::collections::BTreeSet;

use super::types::{ActError, Signer, Waits};
use super::{Now, Replica};
use crate::authority::{Verdict, Waiting, WaitingRequest};
use crate::id::{AuthorKey, OpId, PrincipalId};
use crate::keys::SecretKey;
use crate::limits;
use crate::op::{Act, Approve, Control, Withdraw};

impl Replica {
    /// Consents to an act of another owner, and to what was asked for with it before; returns the last approval.
    pub(super) fn approve(
        &mut self,
        now: Now,
        (secret, certificate): (&SecretKey, OpId),
        op: OpId,
    ) -> Result<OpId, ActError> {
        let author = secret.author();
        let request = self.waiting_request(op)?;
        let wanted = request.until(op);
        let open = |waiting: &&Waiting| !waiting.consenting.contains(&author);
        let acts: Vec<Act> =
            wanted.iter().filter(open).map(|waiting| Act::Approve(Approve { act: waiting.act })).collect();
        let mut last = None;
        for act in acts {
            last = Some(self.sign_act(now, secret, certificate, act, None)?);
        }
        last.ok_or_else(|| {
            ActError::NotWaiting(format!("the owner {author} consents to act {op} already: it waits for another one"))
        })
    }

    /// Takes back what an owner asked for at once with this act, as far as it waits; returns the last withdrawal.
    pub(super) fn withdraw(
        &mut self,
        now: Now,
        (secret, certificate): (&SecretKey, OpId),
        op: OpId,
    ) -> Result<OpId, ActError> {
        let request = self.waiting_request(op)?;
        let asker = request.acts().first().map(|waiting| waiting.header.author);
        if let Some(asker) = asker.filter(|asker| *asker != secret.author()) {
            return Err(ActError::NotAllowed(format!(
                "the owner {asker} asked for it, and only that one takes it back"
            )));
        }
        let acts: BTreeSet<OpId> = request.acts().iter().map(|waiting| waiting.act).collect();
        let acts: Vec<OpId> = acts.into_iter().collect();
        let withdrawals =
            acts.chunks(limits::WITHDRAWN_ACTS_MAX).map(|acts| Act::Withdraw(Withdraw { acts: acts.to_vec() }));
        let mut last = op;
        for act in withdrawals {
            last = self.sign_act(now, secret, certificate, act, None)?;
        }
        Ok(last)
    }

    /// Returns the request that waits and that an act is part of.
    fn waiting_request(&self, op: OpId) -> Result<WaitingRequest, ActError> {
        let verdict = self
            .authority
            .control_verdict(op)
            .ok_or_else(|| ActError::NothingToDo(format!("there is no act {op} here")))?;
        let mut requests = self.authority.waiting_requests().into_iter();
        requests.find(|request| !request.until(op).is_empty()).ok_or_else(|| {
            let state = match verdict {
                Verdict::Allowed => "it counts",
                Verdict::Deferred(_) if self.authority.is_withdrawn(op) => "who asked for it has withdrawn it",
                Verdict::Deferred(_) => "it waits for something else, or was left open by owners who are none any more",
                Verdict::Refused | Verdict::NotAllowed | Verdict::AfterRevocation { .. } | Verdict::Forked { .. } => {
                    "it can never count"
                }
            };
            ActError::NotWaiting(format!("act {op} does not wait for approval: {state}"))
        })
    }

    /// Returns what an act that was just signed waits for, or the one that was just approved.
    pub(super) fn consent_lacking(&self, signer: Signer, approved: Option<OpId>, signed: OpId) -> Option<Waits> {
        if signer == Signer::Node {
            return None;
        }
        let missing = |acts: &[Waiting]| acts.iter().map(Waiting::missing).max();
        self.authority.waiting_requests().iter().find_map(|request| match approved {
            Some(op) => Some(Waits { op, missing: missing(request.until(op))? }),
            None if request.until(signed).is_empty() => None,
            None => Some(Waits { op: request.name(), missing: missing(request.acts())? }),
        })
    }

    /// Returns the act by which an owner has asked for the same before, if that waits: it is not signed twice, however often it
    /// is asked for.
    pub(super) fn waits_already(&self, author: AuthorKey, certificate: OpId, act: &Act) -> Option<OpId> {
        if self.authority.owner_certificate(&author) != Some(certificate) {
            return None;
        }
        let requests = self.authority.waiting_requests();
        let mut own =
            requests.iter().flat_map(|request| request.acts()).filter(|waiting| waiting.header.author == author);
        let same = |control: &Control| asks_the_same(&control.act, act);
        own.find(|waiting| waiting.header.control().is_some_and(same)).map(|waiting| waiting.act)
    }

    /// Returns by which act an owner asks to take a node in with this key, if that waits.
    #[must_use]
    pub fn admission_that_waits(&self, key: AuthorKey) -> Option<(OpId, Waits)> {
        let requests = self.authority.waiting_requests();
        let certifies = |waiting: &&Waiting| {
            let act = waiting.header.control().map(|control| &control.act);
            matches!(act, Some(Act::Certify(certify)) if certify.key == key)
        };
        requests.iter().find_map(|request| {
            let certificate = request.acts().iter().find(certifies)?.act;
            let missing = request.acts().iter().map(Waiting::missing).max()?;
            Some((certificate, Waits { op: request.name(), missing }))
        })
    }

    /// Signs acts that belong together, or none of them; returns the first.
    pub(super) fn sign_all(
        &mut self,
        now: Now,
        (secret, certificate): (&SecretKey, OpId),
        acts: Vec<Act>,
        for_whom: Option<PrincipalId>,
    ) -> Result<Option<OpId>, ActError> {
        let time = crate::hlc::Hlc::new(now.wall_ms, 0);
        if acts.iter().any(|act| self.authority.proof_for(secret.author(), certificate, act, time).is_none()) {
            return Err(ActError::NotAllowed("no statement gives the right to this act".to_owned()));
        }
        let mut first = None;
        for act in acts {
            let op = self.sign_act(now, secret, certificate, act, for_whom)?;
            first = first.or(Some(op));
        }
        Ok(first)
    }
}

/// Whether two acts ask for the same, though what was written until then may be more by now.
fn asks_the_same(asked: &Act, wanted: &Act) -> bool {
    match (asked, wanted) {
        (Act::Revoke(asked), Act::Revoke(wanted)) => (&asked.target, asked.cascade) == (&wanted.target, wanted.cascade),
        _ => asked == wanted,
    }
}
