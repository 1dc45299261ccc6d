//! Whether an act's proof is sound, and gives the right to the act.

use super::{Standing, World, bug};
use crate::authority::mutant::Mutant;
use crate::id::{AuthorKey, OpId, PrincipalId};
use crate::op::{
    Act, Action, Actions, BuiltInRole, Certify, Duty, Grant, Header, Introduced, Join, PrincipalKind, Rank, Readmit,
    Revoke, RevokeTarget, Rights, Role, Target, Token,
};

impl<'a> World<'a> {
    /// For whom the certificate lets the key speak.
    pub(super) fn certified(&self, certificate: OpId, key: AuthorKey) -> Option<PrincipalId> {
        let holds = match self.act(certificate)? {
            Act::Genesis(genesis) => genesis.owners.contains(&key),
            Act::Succeed(succeed) => succeed.owners.contains(&key),
            Act::Certify(certify) => certify.key == key,
            Act::Member(_)
            | Act::Grant(_)
            | Act::Revoke(_)
            | Act::Readmit(_)
            | Act::Collection(_)
            | Act::Rules(_)
            | Act::Approve(_)
            | Act::Role(_)
            | Act::Duty(_)
            | Act::Principal(_)
            | Act::Join(_)
            | Act::Token(_)
            | Act::Evidence(_)
            | Act::Erase(_)
            | Act::Erased(_)
            | Act::Pepper(_)
            | Act::Withdraw(_) => false,
        };
        let holds = holds || bug(Mutant::RecoveryKeysAct) && self.recovers(certificate, key);
        self.statement(certificate).filter(|_| holds && self.is_potential(certificate)).map(|statement| statement.to)
    }

    pub(super) fn is_owner(&self, header: &Header) -> bool {
        self.act(header.certificate).is_some_and(|act| act.owner_set().is_some())
    }

    pub(super) fn judge_standing(&self, id: OpId, header: &Header) -> Standing {
        let Some(control) = header.control() else { return Standing::Refused };
        if matches!(control.act, Act::Genesis(_)) {
            let own = id == self.cluster.genesis();
            return if own { Standing::Potential(Rank::RECOVERY) } else { Standing::Refused };
        }
        if header.cluster != self.cluster {
            return Standing::Refused;
        }
        if let Act::Succeed(made) = &control.act {
            return self.judge_succession(id, header, made);
        }
        let Some(strength) = self.judge_proof(id, header, &control.proof) else { return Standing::NotAllowed };
        // First of all, or the recursion below would not go down: what is made is weaker than what makes it.
        let weaker = self.statement(id).is_none_or(|made| made.rank > strength || bug(Mutant::RankNotChecked));
        if weaker && self.gives_right(id, header, &control.act, strength) {
            Standing::Potential(strength)
        } else {
            Standing::NotAllowed
        }
    }

    /// The strength of the proof, if every statement in it is known, potential, given to the signer, not ended, and one
    /// of them is the stream's certificate.
    fn judge_proof(&self, id: OpId, header: &Header, proof: &[OpId]) -> Option<Rank> {
        let signer =
            self.certified(header.certificate, header.author).filter(|_| proof.contains(&header.certificate))?;
        let mut ranks = Vec::new();
        for part in proof {
            let statement = self.statement(*part)?;
            let ended = statement.not_after.is_some_and(|end| header.hlc > end) && !bug(Mutant::ExpiryIgnored);
            let is_given = statement.to == signer
                || matches!(statement.act, Act::Role(_))
                || matches!(statement.act, Act::Grant(_)) && self.shows_join(id, signer, statement.to);
            if !self.knows(id, *part) || !self.is_potential(*part) || !is_given || ended {
                return None;
            }
            ranks.push(statement.rank);
        }
        if bug(Mutant::StrengthIsStrongest) { ranks.into_iter().min() } else { ranks.into_iter().max() }
    }

    /// Whether the proof of an act shows that its signer is a member of a group.
    fn shows_join(&self, id: OpId, signer: PrincipalId, group: PrincipalId) -> bool {
        let joins = |part: &OpId| matches!(self.act(*part), Some(Act::Join(join)) if join.principal == signer && join.group == group);
        self.proof(id).iter().any(joins)
            || bug(Mutant::JoinOutsideProof) && self.standing.keys().any(|join| self.is_potential(*join) && joins(join))
    }

    /// What a role allows; `None` if there is no such role.
    pub(super) fn rights_of_role(&self, role: &Role) -> Option<Rights> {
        match role {
            Role::BuiltIn(role) => Some(role.rights()),
            Role::Custom(id) => match self.act(*id).filter(|_| self.is_potential(*id)) {
                Some(Act::Role(role)) => Some(role.rights()),
                _ => None,
            },
        }
    }

    /// The act that introduces a principal, as an op knows it.
    pub(super) fn introduction(&self, op: OpId, principal: PrincipalId) -> Option<Introduced<'a>> {
        let first = principal.introduced_by();
        self.act(first)?.introduces(first).filter(|_| self.knows(op, first) && self.is_potential(first))
    }

    /// What the grants in the proof of an act give, on which targets.
    pub(super) fn held(&self, id: OpId) -> impl Iterator<Item = (&'a Target, Actions)> {
        let proof = self.proof(id);
        proof.iter().filter_map(move |part| {
            let Some(Act::Grant(Grant { role, target, .. })) = self.act(*part) else { return None };
            if let Role::Custom(made) = role
                && !proof.contains(made)
                && !bug(Mutant::RoleOutsideProof)
            {
                return None;
            }
            Some((target, self.rights_of_role(role)?.actions))
        })
    }

    pub(super) fn duties(&self, id: OpId) -> impl Iterator<Item = &'a Duty> {
        self.proof(id).iter().filter_map(|part| match self.act(*part) {
            Some(Act::Duty(given)) => Some(&given.duty),
            _ => None,
        })
    }

    /// Whether the proof of an act has a grant with the action administer whose target fits.
    fn administers(&self, id: OpId, fits: impl Fn(&Target) -> bool) -> bool {
        self.held(id).any(|(target, actions)| actions.has(Action::Administer) && fits(target))
    }

    /// Whether it has one with all actions.
    fn is_admin(&self, id: OpId, fits: impl Fn(&Target) -> bool) -> bool {
        let narrow = bug(Mutant::NarrowAdminIsAdmin);
        self.held(id).any(|(target, actions)| {
            (actions == Actions::ALL || narrow && actions.has(Action::Administer)) && fits(target)
        })
    }

    fn administers_all(&self, id: OpId) -> bool {
        self.administers(id, |target| target.contains(&Target::everything()))
    }

    fn is_admin_of_all(&self, id: OpId) -> bool {
        self.is_admin(id, |target| target.contains(&Target::everything()))
    }

    fn is_registrar(&self, id: OpId, fits: impl Fn(&Target) -> bool) -> bool {
        self.duties(id).any(|duty| matches!(duty, Duty::Registrar(target) if fits(target)))
    }

    fn may_introduce(&self, id: OpId) -> bool {
        self.administers(id, |_| true) || self.is_registrar(id, |_| true)
    }

    /// Whether the proof gives a right over what this statement gives.
    fn administers_statement(&self, id: OpId, statement: OpId) -> bool {
        let over = |target: &Target| self.administers(id, |held| held.contains(target));
        self.administers_all(id)
            || match self.act(statement) {
                Some(Act::Grant(grant)) => over(&grant.target),
                Some(Act::Duty(given)) => match &given.duty {
                    Duty::ActFor(target) | Duty::Registrar(target) => over(target),
                    Duty::Warden(()) | Duty::Witness(_) => false,
                },
                _ => false,
            }
    }

    /// Whether the proof has all that a grant gives, or is a registrar's and the grant is one that registrars give.
    fn may_give(&self, id: OpId, made: &Grant, gives: Rights) -> bool {
        let contains = |target: &Target| target.contains(&made.target);
        let contains_fields_too = |target: &Target| {
            let careless = Target { fields: target.fields.clone(), ..made.target.clone() };
            contains(target) || bug(Mutant::FieldsNotContained) && target.contains(&careless)
        };
        let has: Vec<Actions> = self
            .held(id)
            .filter(|(target, actions)| contains_fields_too(target) && actions.has(Action::Administer))
            .map(|(_, actions)| actions)
            .collect();
        let missing = [gives.actions, gives.own_actions]
            .into_iter()
            .flat_map(Actions::iter)
            .any(|action| !has.iter().any(|actions| actions.has(action)));
        let weak = match &made.role {
            Role::BuiltIn(role) => *role != BuiltInRole::Admin || bug(Mutant::RegistrarMakesAdmins),
            Role::Custom(_) => false,
        };
        !has.is_empty() && (!missing || bug(Mutant::NarrowAdminIsAdmin))
            || weak
                && (made.not_after.is_some() || bug(Mutant::RegistrarForever))
                && self.is_registrar(id, |target| contains(target) || bug(Mutant::RegistrarAnywhere))
    }

    fn gives_right(&self, id: OpId, header: &Header, act: &Act, strength: Rank) -> bool {
        let owner = self.is_owner(header);
        let signer = self.statement(header.certificate).map(|statement| statement.to);
        match act {
            Act::Genesis(_) | Act::Succeed(_) => false,
            Act::Rules(_) | Act::Approve(_) => owner,
            Act::Erase(erase) => owner || self.may_erase(id, erase),
            Act::Erased(erased) => self.may_tell_of(id, header, erased),
            Act::Evidence(_) => {
                self.duties(id).any(|duty| matches!(duty, Duty::Witness(_))) || bug(Mutant::AnybodyIsWitness)
            }
            Act::Withdraw(withdraw) => {
                let own = |act: &OpId| {
                    self.ops.get(act).is_some_and(|of| of.author == header.author || bug(Mutant::WithdrawsForOthers))
                };
                owner && withdraw.acts.iter().all(|act| self.knows(id, *act) && own(act))
            }
            Act::Pepper(_) => {
                self.duties(id).any(|duty| matches!(duty, Duty::ActFor(_))) || bug(Mutant::AnybodySharesPeppers)
            }
            Act::Member(_) => owner || self.is_admin_of_all(id),
            Act::Collection(made) => owner || self.administers(id, |target| target.covers(&made.name, None)),
            Act::Grant(made) => {
                let known = match &made.role {
                    Role::BuiltIn(_) => true,
                    Role::Custom(role) => self.knows(id, *role),
                };
                self.rights_of_role(&made.role).filter(|_| known).is_some_and(|gives| {
                    owner || self.may_give(id, made, gives) || bug(Mutant::NoAttenuation) && self.proof(id).len() > 1
                })
            }
            Act::Role(_) => owner || self.administers(id, |_| true),
            Act::Principal(_) | Act::Certify(Certify { principal: None, .. }) => owner || self.may_introduce(id),
            Act::Duty(made) => {
                owner
                    || match &made.duty {
                        Duty::ActFor(wanted) | Duty::Registrar(wanted) => {
                            self.is_admin(id, |target| target.contains(wanted))
                        }
                        Duty::Warden(()) | Duty::Witness(_) => self.is_admin_of_all(id),
                    }
            }
            Act::Join(Join { principal, group, .. }) => {
                let is_group =
                    |principal| self.introduction(id, principal).map(|said| said.kind == PrincipalKind::Group);
                is_group(*group) == Some(true)
                    && is_group(*principal).is_some_and(|nests| !nests || bug(Mutant::GroupsNest))
                    && (owner || self.is_admin_of_all(id))
            }
            Act::Token(Token { principal, .. }) => {
                let introduced = self.introduction(id, *principal);
                introduced.is_some_and(|said| said.kind != PrincipalKind::Group)
                    && (owner || signer == Some(*principal) || self.is_admin_of_all(id))
            }
            Act::Certify(Certify { principal: Some(principal), .. }) => {
                let introduced = self
                    .introduction(id, *principal)
                    .filter(|said| said.kind != PrincipalKind::Group || bug(Mutant::GroupHasKeys));
                let first = introduced.and_then(|_| self.statement(principal.introduced_by()));
                signer == Some(*principal)
                    || first.is_some_and(|first| strength < first.rank) && (owner || self.is_admin_of_all(id))
                    || bug(Mutant::CertifyAnybody) && first.is_some() && self.administers(id, |_| true)
            }
            Act::Revoke(Revoke { target: RevokeTarget::Principal(principal), .. }) => {
                owner || signer == Some(*principal) || self.administers_all(id)
            }
            Act::Revoke(Revoke { target: RevokeTarget::Statement(target), cascade, .. }) => {
                self.knows(id, *target)
                    && self.statement(*target).is_some_and(|statement| {
                        let over = statement.not_after.is_some_and(|end| header.hlc > end);
                        let warden = !cascade
                            && (over || bug(Mutant::WardenAnytime))
                            && self.duties(id).any(|duty| *duty == Duty::Warden(()));
                        (strength < statement.rank || bug(Mutant::EqualsRevoke) && strength == statement.rank)
                            && (owner
                                || signer == Some(statement.to)
                                || self.administers_statement(id, *target)
                                || warden)
                    })
            }
            Act::Readmit(Readmit { revocation, .. }) => {
                let Some(Act::Revoke(revoke)) = self.act(*revocation).filter(|_| self.knows(id, *revocation)) else {
                    return false;
                };
                let over = match revoke.target {
                    RevokeTarget::Principal(_) => self.administers_all(id),
                    RevokeTarget::Statement(target) => {
                        self.administers_all(id) || self.knows(id, target) && self.administers_statement(id, target)
                    }
                };
                owner || over || bug(Mutant::ReadmitOneself)
            }
        }
    }
}
