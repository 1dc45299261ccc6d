//! Control acts signed here.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::flush::Waiter;
use super::records::TxRecord;
use super::types::{ActError, ActRequest, Admitted, Effect, RequestTicket, Signer};
use super::{Now, Replica};
use crate::authority::{Reach, Verdict};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, OpId, PrincipalId, ShardId};
use crate::keys::SecretKey;
use crate::limits;
use crate::op::{
    Act, BuiltInRole, Certify, Control, Duty, DutyGrant, Grant, Header, Member, Op, Payload, Pin, Rank, Readmit,
    Revoke, RevokeTarget, Role, StreamKey, Target,
};
use crate::store::Keyspace;
use crate::store::keys::{Key as _, QuarantineKey};

/// Revocations that one transaction is freed of at once.
const REVOCATIONS_MAX: usize = 16;

impl Replica {
    pub(super) fn act(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        signer: Signer,
        request: ActRequest,
        effects: &mut Vec<Effect>,
    ) {
        let approved = if let ActRequest::Approve(op) = &request { Some(*op) } else { None };
        match self.try_act(now, signer, request) {
            Ok(op) => {
                let done = Admitted { op, waits: self.consent_lacking(signer, approved, op) };
                self.staged.waiters.push(Waiter::Act(ticket, done));
                self.apply_policy_changes(now, effects);
            }
            Err(error) => effects.push(Effect::ActDone { ticket, result: Err(error) }),
        }
    }

    fn try_act(&mut self, now: Now, signer: Signer, request: ActRequest) -> Result<OpId, ActError> {
        if let Some(reason) = &self.halted {
            return Err(ActError::NotReady(reason.clone()));
        }
        let (secret, certificate) = self.signer(signer)?;
        match request {
            ActRequest::Succeed(op) => self.take_succession(now, op),
            ActRequest::Replace { old, new, for_whom } => {
                self.replace_key(now, (&secret, certificate), (old, new), for_whom)
            }
            ActRequest::Appoint(appointment) => self.appoint(now, (&secret, certificate), appointment),
            ActRequest::Dismiss(dismissal) => self.dismiss(now, (&secret, certificate), dismissal),
            ActRequest::One(act) => self.sign_act(now, &secret, certificate, act, None),
            ActRequest::For(principal, act) => self.sign_act(now, &secret, certificate, act, Some(principal)),
            ActRequest::Approve(op) => self.approve(now, (&secret, certificate), op),
            ActRequest::Withdraw(op) => self.withdraw(now, (&secret, certificate), op),
            ActRequest::Revoke { targets, reach, why, for_whom } => {
                // What waits to be signed is on the other side of the pins otherwise, though it was asked for before.
                self.sign_open_ops();
                let acts = targets.into_iter().map(|target| {
                    let pins = self.pins_for(&target, reach);
                    Act::Revoke(Revoke { target, pins, cascade: reach == Reach::Cascade, why: why.clone() })
                });
                let acts: Vec<Act> = acts.collect();
                let time = Hlc::new(now.wall_ms, 0);
                if acts.iter().any(|act| self.is_too_weak(secret.author(), certificate, act, time)) {
                    let why =
                        "all that it has is as strong as this node, or stronger: ask an owner or a stronger admin";
                    return Err(ActError::NotAllowed(why.to_owned()));
                }
                let nothing = || ActError::NothingToDo("nothing is named that could be taken back".to_owned());
                self.sign_all(now, (&secret, certificate), acts, for_whom)?.ok_or_else(nothing)
            }
            ActRequest::Readmit { op, transaction, for_whom } => {
                self.readmit(now, (&secret, certificate), (op, transaction), for_whom)
            }
            ActRequest::AdmitDevice { key, principal, name, labels } => {
                let time = Hlc::new(now.wall_ms, 0);
                let rank = self.device_rank(&secret, certificate, principal, time).ok_or_else(|| {
                    ActError::NotAllowed(
                        "this node may not certify keys of others; ask an admin or the owner".to_owned(),
                    )
                })?;
                let certify = Certify { principal: Some(principal), key, rank, not_after: None, name };
                let certified = self.sign_act(now, &secret, certificate, Act::Certify(certify), None)?;
                let member = Member { principal, key, rank, not_after: None, labels };
                self.sign_act(now, &secret, certificate, Act::Member(member), None)?;
                Ok(certified)
            }
            ActRequest::Admit { key, name, labels, role } => {
                let time = Hlc::new(now.wall_ms, 0);
                let rank = self.admission_rank(&secret, certificate, key, role, time).ok_or_else(|| {
                    ActError::NotAllowed("this node may not admit others; ask an admin or the owner".to_owned())
                })?;
                let certify = Certify { principal: None, key, rank, not_after: None, name };
                let certified = self.sign_act(now, &secret, certificate, Act::Certify(certify), None)?;
                let principal = PrincipalId::from(certified);
                for act in standing(principal, key, rank, role, labels) {
                    self.sign_act(now, &secret, certificate, act, None)?;
                }
                // Clients are served by nodes that write; who may not give this duty leaves it to somebody who may.
                let act = act_for_all(principal, rank);
                let may = self.authority.proof_for(secret.author(), certificate, &act, time).is_some();
                if may && matches!(role, BuiltInRole::Admin | BuiltInRole::Editor) {
                    self.sign_act(now, &secret, certificate, act, None)?;
                }
                Ok(certified)
            }
        }
    }

    /// Returns whether an act takes all back that a principal has, and would cut nothing of it.
    fn is_too_weak(&self, author: AuthorKey, certificate: OpId, act: &Act, time: Hlc) -> bool {
        let Act::Revoke(Revoke { target: RevokeTarget::Principal(principal), .. }) = act else { return false };
        let proof = self.authority.proof_for(author, certificate, act, time).unwrap_or_default();
        let strength = proof.iter().filter_map(|id| self.authority.statement(*id, time)).map(|under| under.rank).max();
        let held = self.authority.statements(time).filter(|held| held.to == *principal && held.denial.is_none());
        let ranks: Vec<Rank> = held.map(|held| held.rank).collect();
        !ranks.is_empty() && strength.is_some_and(|strength| ranks.iter().all(|rank| *rank <= strength))
    }

    /// Readmits what each revocation cuts that the transaction is hit by, one after the other.
    fn readmit(
        &mut self,
        now: Now,
        (secret, certificate): (&SecretKey, OpId),
        (op, transaction): (OpId, u16),
        for_whom: Option<PrincipalId>,
    ) -> Result<OpId, ActError> {
        let nothing = |what: &str| ActError::NothingToDo(format!("transaction {transaction} of op {op} {what}"));
        let key = QuarantineKey { op, transaction }.encode();
        let value = self.read_back(Keyspace::Quarantine, &key).ok_or_else(|| nothing("is not quarantined"))?;
        let tx = TxRecord::decode(&value).map_err(|_| nothing("has a damaged record: run `folkmoot verify`"))?.tx;
        let op = self.load_op(&tx).ok_or_else(|| nothing("is not here"))?;
        let pin = Pin { stream: tx.stream, seq: tx.seq, head: tx.op };
        let mut readmitted = BTreeSet::new();
        let mut first = None;
        loop {
            let verdict = self.verdict(&tx.position(), op.header(), usize::from(transaction));
            let Verdict::AfterRevocation { by } = verdict else {
                return first.ok_or_else(|| nothing(&format!("was not cut by a revocation: {}", verdict.kind())));
            };
            if !readmitted.insert(by) || readmitted.len() > REVOCATIONS_MAX {
                return Err(ActError::NotAllowed(format!(
                    "the revocation {by} is stronger than what this node may readmit"
                )));
            }
            let act = Act::Readmit(Readmit { revocation: by, pins: vec![pin] });
            let id = self.sign_act(now, secret, certificate, act, for_whom)?;
            let first = *first.get_or_insert(id);
            // What more there is to do shows when it counts.
            if self.authority.control_verdict(id).is_none_or(|verdict| !verdict.is_allowed()) {
                return Ok(first);
            }
        }
    }

    /// Returns whether this replica holds a key that may take others into the cluster in this role at this time.
    #[must_use]
    pub fn may_admit(&self, role: BuiltInRole, time: Hlc) -> bool {
        let may = |signer| {
            let (secret, certificate) = self.signer(signer).ok()?;
            self.admission_rank(&secret, certificate, AuthorKey::ZERO, role, time)
        };
        [Signer::Node, Signer::Owner].into_iter().any(|signer| may(signer).is_some())
    }

    /// Returns whether this replica holds a key that may take devices of a principal into the cluster at this time.
    #[must_use]
    pub fn may_admit_device(&self, principal: PrincipalId, time: Hlc) -> bool {
        let may = |signer| {
            let (secret, certificate) = self.signer(signer).ok()?;
            self.device_rank(&secret, certificate, principal, time)
        };
        [Signer::Node, Signer::Owner].into_iter().any(|signer| may(signer).is_some())
    }

    /// Returns the rank with which the signer may make both statements of a device's admission; none if it may not.
    fn device_rank(&self, secret: &SecretKey, certificate: OpId, principal: PrincipalId, time: Hlc) -> Option<Rank> {
        let may = |act: &Act| self.authority.proof_for(secret.author(), certificate, act, time).is_some();
        let key = AuthorKey::ZERO;
        [Rank::DEVICE, Rank(100), Rank(limits::RANK_MAX)].into_iter().find(|rank| {
            let name = String::new();
            let certify = Certify { principal: Some(principal), key, rank: *rank, not_after: None, name };
            let member = Member { principal, key, rank: *rank, not_after: None, labels: Vec::new() };
            may(&Act::Certify(certify)) && may(&Act::Member(member))
        })
    }

    pub(super) fn signer(&self, signer: Signer) -> Result<(SecretKey, OpId), ActError> {
        match signer {
            Signer::Node => Ok((self.identity.node.clone(), self.identity.certificate)),
            Signer::Owner => self.owner().ok_or(ActError::NoOwnerKey),
        }
    }

    /// Returns the rank with which the signer may make all three statements of an admission; none if it may not: a part of
    /// them alone must never be signed.
    fn admission_rank(
        &self,
        secret: &SecretKey,
        certificate: OpId,
        key: AuthorKey,
        role: BuiltInRole,
        time: Hlc,
    ) -> Option<Rank> {
        // As strong as usual for a node, but weaker than whoever admits it, so that it can be cut off again.
        let ranks = [Rank::NODE, Rank::USER, Rank::DEVICE, Rank(100), Rank(limits::RANK_MAX)];
        let may = |act: &Act| self.authority.proof_for(secret.author(), certificate, act, time).is_some();
        ranks.into_iter().find(|rank| {
            // The right to these acts does not depend on who the new principal is.
            let certify = Certify { principal: None, key, rank: *rank, not_after: None, name: String::new() };
            may(&Act::Certify(certify)) && standing(PrincipalId::ZERO, key, *rank, role, Vec::new()).iter().all(may)
        })
    }

    pub(super) fn sign_act(
        &mut self,
        now: Now,
        secret: &SecretKey,
        certificate: OpId,
        act: Act,
        for_whom: Option<PrincipalId>,
    ) -> Result<OpId, ActError> {
        let author = secret.author();
        if let Some(asked) = self.waits_already(author, certificate, &act) {
            return Ok(asked);
        }
        let proof = self
            .authority
            .proof_for(author, certificate, &act, Hlc::new(now.wall_ms, 0))
            .ok_or_else(|| ActError::NotAllowed("no statement gives the right to this act".to_owned()))?;
        let shard = ShardId::control();
        // Owners of a later change go on in streams of their own.
        if self.own.get(&(shard.clone(), author)).is_none_or(|own| own.key.certificate != certificate) {
            let key = StreamKey { shard: shard.clone(), author, certificate, session: self.session };
            self.begin_stream(key);
        }
        let Some(own) = self.own.get(&(shard.clone(), author)) else {
            return Err(ActError::NotReady("the control stream is not open".to_owned()));
        };
        let header = Header {
            version: limits::OP_VERSION,
            cluster: self.identity.cluster,
            shard: shard.clone(),
            author,
            certificate,
            session: own.key.session,
            seq: own.next_seq,
            prev: own.last,
            earlier: Vec::new(),
            hlc: self.clock.tick(now.wall_ms),
            control_heads: self.authority.control_heads_for(own.stream),
            payload: Payload::from(Control { proof, act, for_whom }),
        };
        let op = Arc::new(Op::sign(header, Vec::new(), secret).map_err(ActError::Invalid)?);
        if let Some(own) = self.own.get_mut(&(shard, author)) {
            own.next_seq += 1;
            own.last = op.id();
        }
        self.counters.ops_signed += 1;
        self.stage_op(op.clone(), None);
        self.note_op(&op);
        Ok(op.id())
    }
}

/// The duty to write for others, everywhere.
pub(super) fn act_for_all(principal: PrincipalId, rank: Rank) -> Act {
    Act::Duty(DutyGrant { principal, duty: Duty::ActFor(Target::everything()), rank, not_after: None })
}

/// What a certified node gets: its membership and its role.
fn standing(
    principal: PrincipalId,
    key: AuthorKey,
    rank: Rank,
    role: BuiltInRole,
    labels: Vec<(String, String)>,
) -> [Act; 2] {
    let (role, target) = (Role::BuiltIn(role), Target::everything());
    [
        Act::Member(Member { principal, key, rank, not_after: None, labels }),
        Act::Grant(Grant { principal, role, target, rank, not_after: None }),
    ]
}
