//! Witnesses of forks: what this node says of forked streams if it is one, and who is one.
//!
//! Invariant: of a stream this node names one chain only, that which it had when it learned of the fork. It is kept with the
//! stream's head, so that neither a crash nor a change of branch makes another one of it.

use std::collections::BTreeSet;

use super::types::{ActError, Effect, Signer};
use super::{Now, Replica};
use crate::authority::{Reach, WitnessInfo};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, OpId, PrincipalId};
use crate::keys::SecretKey;
use crate::limits;
use crate::op::{Act, Certify, Duty, DutyGrant, Evidence, Pin, Rank, Revoke, RevokeTarget};

/// Forks are told together that are found within this time.
const TELL_AFTER_MS: u64 = 1_000;
/// When it is tried again after it could not be signed.
const TELL_AGAIN_MS: u64 = 60_000;

/// What this node has still to say.
#[derive(Debug, Default)]
pub(super) struct Testimony {
    /// Whether there may be something.
    due: bool,
    at_ms: Option<u64>,
}

/// Who becomes a witness.
#[derive(Clone, Debug)]
pub struct Appointment {
    /// Member nodes. Of one that is a witness the quorum is changed.
    pub nodes: Vec<AuthorKey>,
    /// How many witnesses must agree before one of these counts, itself among them; none makes it the majority of all witnesses,
    /// and raises that of the others to it.
    pub quorum: Option<u8>,
    /// At whose request.
    pub for_whom: Option<PrincipalId>,
}

/// Who is a witness no longer.
#[derive(Clone, Debug)]
pub struct Dismissal {
    /// The nodes.
    pub nodes: Vec<AuthorKey>,
    /// Reason for people.
    pub why: String,
    /// At whose request.
    pub for_whom: Option<PrincipalId>,
}

type SignedBy<'a> = (&'a SecretKey, OpId);

impl Replica {
    /// A fork was found, or who is a witness of it may have changed.
    pub(super) fn evidence_is_due(&mut self) {
        self.testimony.due = true;
    }

    /// Says what this node had of forked streams, if it is a witness of them and nothing decides them yet.
    pub(super) fn give_evidence(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.halted.is_some() || !self.authority.rules().can_judge() {
            return;
        }
        let Some(at) = self.testimony.at_ms else {
            if std::mem::take(&mut self.testimony.due) {
                self.testimony.at_ms = Some(now.monotonic_ms.saturating_add(TELL_AFTER_MS));
            }
            return;
        };
        if now.monotonic_ms < at {
            return;
        }
        self.testimony.at_ms = None;
        let Some((certificate, pins)) = self.unsaid(now) else { return };
        let count = pins.len();
        let signed = self
            .signer(Signer::Node)
            .and_then(|(secret, _)| self.sign_act(now, &secret, certificate, Act::Evidence(Evidence { pins }), None));
        match signed {
            Ok(act) => {
                // There may be more of them.
                self.testimony.due = true;
                self.counters.evidence_given += count as u64;
                effects.push(Effect::EvidenceGiven { act, streams: count });
                self.apply_policy_changes(now, effects);
            }
            Err(_) => self.testimony.at_ms = Some(now.monotonic_ms.saturating_add(TELL_AGAIN_MS)),
        }
    }

    /// Returns the certificate under which this node is a witness, and what it has not said yet of streams that nothing decides.
    fn unsaid(&self, now: Now) -> Option<(OpId, Vec<Pin>)> {
        let key = self.identity.node.author();
        let held = self.authority.witness_certificates(key, Hlc::new(now.wall_ms, 0));
        let (strength, certificate) = held.into_iter().next()?;
        let seen = self.heads.iter().filter_map(|(stream, head)| Some((*stream, head, head.seen?)));
        let pins: Vec<Pin> = seen
            .filter(|(stream, head, _)| {
                self.authority.wants_evidence((key, certificate, strength), *stream, head.key.certificate)
            })
            .map(|(stream, _, tip)| Pin { stream, seq: tip.seq, head: tip.id })
            .take(limits::PINS_MAX)
            .collect();
        (!pins.is_empty()).then_some((certificate, pins))
    }

    /// Returns how many streams fork of which nothing says which branch counts.
    #[must_use]
    pub fn forks_undecided(&self) -> usize {
        let forked = self.heads.iter().filter(|(_, head)| head.fork.is_some());
        forked.filter(|(stream, head)| self.authority.kept_branch(**stream, head.key.certificate).is_none()).count()
    }

    // ---- who is one ----

    /// Makes nodes witnesses: each under a certificate of its own for its key, of a principal that has nothing but this duty.
    pub(super) fn appoint(
        &mut self,
        now: Now,
        signer: SignedBy<'_>,
        appointment: Appointment,
    ) -> Result<OpId, ActError> {
        let Appointment { nodes, quorum, for_whom } = appointment;
        let time = Hlc::new(now.wall_ms, 0);
        let nodes: BTreeSet<AuthorKey> = nodes.into_iter().collect();
        let stranger = nodes.iter().find(|node| !self.authority.is_member(**node, time));
        if let Some(stranger) = stranger {
            return Err(ActError::NothingToDo(format!("{stranger} is no member node")));
        }
        let known: Vec<(AuthorKey, WitnessInfo)> = self.keyed_witnesses(time);
        let others = known.iter().filter(|(key, _)| !nodes.contains(key));
        let majority = u8::try_from((nodes.len() + others.clone().count()) / 2 + 1).unwrap_or(limits::WITNESSES_MAX);
        let asks = quorum.unwrap_or(majority).clamp(1, limits::WITNESSES_MAX);
        let mut changed: Vec<&WitnessInfo> = known
            .iter()
            .filter(|(key, witness)| nodes.contains(key) && witness.quorum != asks)
            .map(|(_, witness)| witness)
            .collect();
        if quorum.is_none() {
            changed.extend(others.map(|(_, witness)| witness).filter(|witness| witness.quorum < asks));
        }
        let new: Vec<AuthorKey> =
            nodes.iter().filter(|node| known.iter().all(|(key, _)| key != *node)).copied().collect();
        // A part alone must never be signed; the right does not depend on who is appointed.
        let parts = [named_witness(AuthorKey::ZERO, String::new()), duty_of(PrincipalId::ZERO, asks)];
        if parts.iter().any(|act| self.authority.proof_for(signer.0.author(), signer.1, act, time).is_none()) {
            return Err(only_owners());
        }
        let mut made = None;
        for key in new {
            let node = self.authority.member(key, time).map(|member| member.name).unwrap_or_default();
            let certify = named_witness(key, format!("witness {node}"));
            let certified = self.sign_act(now, signer.0, signer.1, certify, for_whom)?;
            let duty = duty_of(PrincipalId::from(certified), asks);
            self.sign_act(now, signer.0, signer.1, duty, for_whom)?;
            made = made.or(Some(certified));
        }
        for witness in changed {
            let duty = duty_of(witness.principal, asks);
            let given = self.sign_act(now, signer.0, signer.1, duty, for_whom)?;
            // What it has said under the other one stands.
            let why = "another quorum".to_owned();
            self.end(now, signer, RevokeTarget::Statement(witness.duty), why, for_whom)?;
            made = made.or(Some(given));
        }
        made.ok_or_else(|| ActError::NothingToDo("they are witnesses already, of this quorum".to_owned()))
    }

    /// Takes the duty from nodes, with the certificates that were for it. What they have said stands.
    pub(super) fn dismiss(&mut self, now: Now, signer: SignedBy<'_>, dismissal: Dismissal) -> Result<OpId, ActError> {
        let Dismissal { nodes, why, for_whom } = dismissal;
        let time = Hlc::new(now.wall_ms, 0);
        let principals: BTreeSet<PrincipalId> = self
            .keyed_witnesses(time)
            .into_iter()
            .filter(|(key, _)| nodes.contains(key))
            .map(|(_, witness)| witness.principal)
            .collect();
        let mut made = None;
        for principal in principals {
            let done = self.end(now, signer, RevokeTarget::Principal(principal), why.clone(), for_whom)?;
            made = made.or(Some(done));
        }
        made.ok_or_else(|| ActError::NothingToDo("none of these nodes is a witness".to_owned()))
    }

    /// Returns the witnesses that have a key.
    fn keyed_witnesses(&self, time: Hlc) -> Vec<(AuthorKey, WitnessInfo)> {
        let all = self.authority.witnesses(time).into_iter();
        all.filter_map(|witness| Some((witness.signs?.0, witness))).collect()
    }

    /// Ends something that a witness has. A revocation that is too weak would be signed and end nothing.
    fn end(
        &mut self,
        now: Now,
        signer: SignedBy<'_>,
        target: RevokeTarget,
        why: String,
        for_whom: Option<PrincipalId>,
    ) -> Result<OpId, ActError> {
        let time = Hlc::new(now.wall_ms, 0);
        let probe = duty_of(PrincipalId::ZERO, 1);
        if self.authority.proof_for(signer.0.author(), signer.1, &probe, time).is_none() {
            return Err(only_owners());
        }
        let pins = self.pins_for(&target, Reach::Target);
        let revoke = Act::Revoke(Revoke { target, pins, cascade: false, why });
        self.sign_act(now, signer.0, signer.1, revoke, for_whom)
    }
}

fn only_owners() -> ActError {
    ActError::NotAllowed("only an owner makes or dismisses witnesses: ask a node that has the key of one".to_owned())
}

fn named_witness(key: AuthorKey, name: String) -> Act {
    Act::Certify(Certify { principal: None, key, rank: Rank::WITNESS, not_after: None, name })
}

fn duty_of(principal: PrincipalId, quorum: u8) -> Act {
    Act::Duty(DutyGrant { principal, duty: Duty::Witness(quorum), rank: Rank::WITNESS, not_after: None })
}
