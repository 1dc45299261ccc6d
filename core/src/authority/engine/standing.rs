//! What an act and its ancestors alone decide: is the proof sound, and does it give the right to this act?

use super::log::{ActIx, Log, Standing};
use super::past::Past;
use crate::authority::mutant::{Mutant, Site, planted};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, CollectionName, OpId, PrincipalId};
use crate::op::{
    Act, Action, Actions, BuiltInRole, Certify, Duty, Grant, Header, Join, PrincipalKind, Rank, RevokeTarget, Rights,
    Role, Target,
};

/// What an act is done under.
pub(super) struct Authority<'a> {
    /// The signing key.
    pub(super) key: AuthorKey,
    pub(super) principal: PrincipalId,
    /// Whether the signing key is an owner key, bound to the genesis.
    pub(super) is_owner: bool,
    pub(super) strength: Rank,
    /// The act's own time.
    pub(super) time: Hlc,
    pub(super) grants: Vec<Held<'a>>,
    pub(super) duties: Vec<&'a Duty>,
    /// Whether the signing key is shown to be that of a member node.
    pub(super) is_member: bool,
}

/// What a grant in a proof gives.
pub(super) struct Held<'a> {
    pub(super) target: &'a Target,
    pub(super) rights: Rights,
}

impl Authority<'_> {
    /// Who may administer configures, gives no more than it has, and cuts.
    fn administers(&self, covers: impl Fn(&Target) -> bool) -> bool {
        self.grants.iter().any(|held| held.rights.actions.has(Action::Administer) && covers(held.target))
    }

    /// An admin may do everything on its target. Who lends its own rights to others, by keys, groups or duties, must be one.
    fn is_admin(&self, covers: impl Fn(&Target) -> bool) -> bool {
        self.grants.iter().any(|held| held.rights.actions.contains(Actions::ALL) && covers(held.target))
            || planted(Site::Engine, Mutant::NarrowAdminIsAdmin) && self.administers(covers)
    }

    fn is_admin_of_everything(&self) -> bool {
        self.is_admin(Target::is_everything)
    }

    fn administers_everything(&self) -> bool {
        self.administers(Target::is_everything)
    }

    fn administers_target(&self, wanted: &Target) -> bool {
        self.administers(|target| target.contains(wanted))
    }

    fn administers_collection(&self, collection: &CollectionName) -> bool {
        self.administers(|target| target.covers(collection, None))
    }

    fn is_registrar(&self, covers: impl Fn(&Target) -> bool) -> bool {
        self.duties.iter().any(|duty| match duty {
            Duty::Registrar(target) => covers(target),
            Duty::ActFor(_) | Duty::Warden(()) | Duty::Witness(_) => false,
        })
    }

    fn is_warden(&self) -> bool {
        self.duties.iter().any(|duty| matches!(duty, Duty::Warden(())))
    }

    fn is_witness(&self) -> bool {
        self.duties.iter().any(|duty| matches!(duty, Duty::Witness(_)))
            || planted(Site::Engine, Mutant::AnybodyIsWitness)
    }

    /// Who checks passwords of others shares what that takes.
    fn acts_for_others(&self) -> bool {
        self.duties.iter().any(|duty| matches!(duty, Duty::ActFor(_)))
            || planted(Site::Engine, Mutant::AnybodySharesPeppers)
    }

    /// Nobody gives more than it has.
    fn may_give(&self, grant: &Grant, rights: Rights) -> bool {
        let held = self
            .grants
            .iter()
            .filter(|held| held.rights.actions.has(Action::Administer) && contains(held.target, &grant.target))
            .fold(Actions::NONE, |sum, held| sum.union(held.rights.actions));
        let enough = held.has(Action::Administer)
            && (held.contains(rights.actions.union(rights.own_actions))
                || planted(Site::Engine, Mutant::NarrowAdminIsAdmin));
        enough || self.may_register(grant)
    }

    fn may_register(&self, grant: &Grant) -> bool {
        let weak = match grant.role {
            Role::BuiltIn(BuiltInRole::Admin) => planted(Site::Engine, Mutant::RegistrarMakesAdmins),
            Role::BuiltIn(_) => true,
            Role::Custom(_) => false,
        };
        let ends = grant.not_after.is_some() || planted(Site::Engine, Mutant::RegistrarForever);
        let anywhere = planted(Site::Engine, Mutant::RegistrarAnywhere);
        weak && ends && self.is_registrar(|target| target.contains(&grant.target) || anywhere)
    }
}

impl Log {
    /// Judges an act from itself and its ancestors.
    pub(super) fn standing(&self, id: OpId, header: &Header, past: &Past) -> Standing {
        let Some(control) = header.control() else { return Standing::Refused };
        if let Act::Genesis(_) = control.act {
            return if id == self.cluster.genesis() {
                Standing::Potential { strength: Rank::RECOVERY }
            } else {
                Standing::Refused
            };
        }
        if header.cluster != self.cluster {
            return Standing::Refused;
        }
        if let Act::Succeed(succeed) = &control.act {
            return self.succession_standing(header, succeed, past);
        }
        let knows = |id: OpId| self.find(id).filter(|ix| past.contains(self.act(*ix).place));
        let Some(proof) = control.proof.iter().map(|id| knows(*id)).collect::<Option<Vec<_>>>() else {
            return Standing::NotAllowed;
        };
        let Some(authority) = self
            .find(header.certificate)
            .and_then(|certificate| self.authority(header.author, certificate, header.hlc, &proof))
        else {
            return Standing::NotAllowed;
        };
        let weaker = |rank: Rank| rank > authority.strength || planted(Site::Engine, Mutant::RankNotChecked);
        let sound = control.act.statement(id).is_none_or(|statement| weaker(statement.rank))
            && self.permits(&authority, &control.act, &knows);
        if sound { Standing::Potential { strength: authority.strength } } else { Standing::NotAllowed }
    }

    /// Returns what a sound proof amounts to; `None` if it is not sound.
    pub(super) fn authority(
        &self,
        key: AuthorKey,
        certificate: ActIx,
        time: Hlc,
        proof: &[ActIx],
    ) -> Option<Authority<'_>> {
        if !proof.contains(&certificate) {
            return None;
        }
        let principal = self.certified(certificate, key)?;
        let groups = |principal: PrincipalId| {
            let proof = if planted(Site::Engine, Mutant::JoinOutsideProof) {
                self.given.get(&principal).map_or(proof, |given| given)
            } else {
                proof
            };
            proof.iter().filter_map(move |ix| match self.act(*ix).act() {
                Some(Act::Join(join)) if join.principal == principal => Some(join.group),
                _ => None,
            })
        };
        let mut grants = Vec::new();
        let mut duties = Vec::new();
        let mut is_member = false;
        let mut ranks = Vec::new();
        for ix in proof {
            let record = self.act(*ix);
            let statement = record.statement().filter(|_| record.is_potential())?;
            let ended = statement.not_after.is_some_and(|end| time > end);
            if ended && !planted(Site::Engine, Mutant::ExpiryIgnored) {
                return None;
            }
            ranks.push(statement.rank);
            let own = statement.to == principal;
            let given = match statement.act {
                // Given to nobody: it says what a grant in the proof gives.
                Act::Role(_) => true,
                Act::Grant(grant) => {
                    let role = self.role(&grant.role);
                    let named = |(role, _): &(Option<ActIx>, Rights)| {
                        role.is_none_or(|role| proof.contains(&role)) || planted(Site::Engine, Mutant::RoleOutsideProof)
                    };
                    grants.extend(role.filter(named).map(|(_, rights)| Held { target: &grant.target, rights }));
                    own || groups(principal).any(|group| group == statement.to)
                }
                Act::Duty(duty) => {
                    duties.push(&duty.duty);
                    own
                }
                Act::Member(member) => {
                    is_member |= member.key == key;
                    own
                }
                Act::Genesis(_)
                | Act::Succeed(_)
                | Act::Certify(_)
                | Act::Revoke(_)
                | Act::Readmit(_)
                | Act::Collection(_)
                | Act::Rules(_)
                | Act::Approve(_)
                | Act::Principal(_)
                | Act::Join(_)
                | Act::Token(_)
                | Act::Evidence(_)
                | Act::Erase(_)
                | Act::Erased(_)
                | Act::Pepper(_)
                | Act::Withdraw(_) => own,
            };
            if !given {
                return None;
            }
        }
        let strength = if planted(Site::Engine, Mutant::StrengthIsStrongest) {
            ranks.into_iter().min()?
        } else {
            ranks.into_iter().max()?
        };
        let is_owner = self.act(certificate).act().is_some_and(|act| act.owner_set().is_some());
        Some(Authority { key, principal, is_owner, strength, time, grants, duties, is_member })
    }

    /// Returns for whom a potential certificate lets a key speak.
    pub(super) fn certified(&self, certificate: ActIx, key: AuthorKey) -> Option<PrincipalId> {
        let record = self.act(certificate);
        let act = record.act()?;
        let by_recovery = || {
            planted(Site::Engine, Mutant::RecoveryKeysAct) && act.owner_set().is_some_and(|set| set.may_recover(&key))
        };
        let holds = record.is_potential() && (act.certifies(key) || by_recovery());
        holds.then(|| record.statement().map(|statement| statement.to)).flatten()
    }

    /// Returns whether the authority gives the right to this act; `knows` finds the acts that its author knew.
    pub(super) fn permits(&self, authority: &Authority<'_>, act: &Act, knows: &dyn Fn(OpId) -> Option<ActIx>) -> bool {
        match act {
            Act::Genesis(_) | Act::Succeed(_) => false,
            Act::Rules(_) | Act::Approve(_) => authority.is_owner,
            Act::Certify(certify) => self.permits_certify(authority, certify, knows),
            Act::Member(_) => authority.is_owner || authority.is_admin_of_everything(),
            Act::Grant(grant) => {
                let role = match &grant.role {
                    Role::Custom(id) => knows(*id).and_then(|_| self.role(&grant.role)),
                    Role::BuiltIn(_) => self.role(&grant.role),
                };
                role.is_some_and(|(_, rights)| {
                    authority.is_owner
                        || authority.may_give(grant, rights)
                        || planted(Site::Engine, Mutant::NoAttenuation) && !authority.grants.is_empty()
                })
            }
            Act::Role(_) => authority.is_owner || authority.administers(|_| true),
            Act::Principal(_) => may_introduce(authority),
            Act::Duty(duty) => {
                authority.is_owner
                    || match &duty.duty {
                        Duty::ActFor(wanted) | Duty::Registrar(wanted) => {
                            authority.is_admin(|target| target.contains(wanted))
                        }
                        Duty::Warden(()) | Duty::Witness(_) => authority.is_admin_of_everything(),
                    }
            }
            Act::Join(join) => self.permits_join(authority, join, knows),
            Act::Token(token) => {
                let speaks = self.known_introduction(token.principal, knows);
                speaks.is_some_and(|(_, kind)| kind != PrincipalKind::Group)
                    && (authority.is_owner
                        || token.principal == authority.principal
                        || authority.is_admin_of_everything())
            }
            Act::Collection(collection) => authority.is_owner || authority.administers_collection(&collection.name),
            Act::Erase(erase) => authority.may_erase(erase),
            Act::Erased(erased) => authority.may_tell_of(erased, self, knows),
            Act::Evidence(_) => authority.is_witness(),
            Act::Pepper(_) => authority.acts_for_others(),
            Act::Withdraw(withdraw) => {
                let own = |ix: ActIx| {
                    self.act(ix).header.author == authority.key || planted(Site::Engine, Mutant::WithdrawsForOthers)
                };
                authority.is_owner && withdraw.acts.iter().all(|act| knows(*act).is_some_and(own))
            }
            Act::Revoke(revoke) => match revoke.target {
                RevokeTarget::Principal(principal) => {
                    authority.is_owner || principal == authority.principal || authority.administers_everything()
                }
                RevokeTarget::Statement(id) => {
                    let Some(statement) = knows(id).and_then(|ix| self.act(ix).statement()) else { return false };
                    let stronger = authority.strength < statement.rank
                        || (authority.strength == statement.rank && planted(Site::Engine, Mutant::EqualsRevoke));
                    stronger
                        && (authority.is_owner
                            || statement.to == authority.principal
                            || administers_statement(authority, statement.act)
                            || authority.is_warden()
                                && !revoke.cascade
                                && (statement.not_after.is_some_and(|end| authority.time > end)
                                    || planted(Site::Engine, Mutant::WardenAnytime)))
                }
            },
            Act::Readmit(readmit) => {
                let Some(Act::Revoke(revoke)) = knows(readmit.revocation).and_then(|ix| self.act(ix).act()) else {
                    return false;
                };
                authority.is_owner
                    || authority.administers_everything()
                    || planted(Site::Engine, Mutant::ReadmitOneself)
                    || match revoke.target {
                        RevokeTarget::Principal(_) => false,
                        RevokeTarget::Statement(id) => knows(id)
                            .and_then(|ix| self.act(ix).act())
                            .is_some_and(|statement| administers_statement(authority, statement)),
                    }
            }
        }
    }

    /// Keys for somebody else: an admin of everything, and stronger than the statement that introduced the principal.
    /// Without the second condition an admin of one collection could sign as an admin of all of them.
    fn permits_certify(
        &self,
        authority: &Authority<'_>,
        certify: &Certify,
        knows: &dyn Fn(OpId) -> Option<ActIx>,
    ) -> bool {
        let Some(principal) = certify.principal else { return may_introduce(authority) };
        if principal == authority.principal {
            return true;
        }
        let Some((introduction, introduced)) = self.known_introduction(principal, knows) else { return false };
        if introduced == PrincipalKind::Group && !planted(Site::Engine, Mutant::GroupHasKeys) {
            return false;
        }
        if planted(Site::Engine, Mutant::CertifyAnybody) {
            return authority.is_owner || authority.administers(|_| true);
        }
        let stronger = self.act(introduction).statement().is_some_and(|made| authority.strength < made.rank);
        stronger && (authority.is_owner || authority.is_admin_of_everything())
    }

    /// A member of a group has what the group has, so only who has everything makes one.
    fn permits_join(&self, authority: &Authority<'_>, join: &Join, knows: &dyn Fn(OpId) -> Option<ActIx>) -> bool {
        let kind = |principal| self.known_introduction(principal, knows).map(|(_, kind)| kind);
        let nests = planted(Site::Engine, Mutant::GroupsNest);
        kind(join.group) == Some(PrincipalKind::Group)
            && kind(join.principal).is_some_and(|kind| kind != PrincipalKind::Group || nests)
            && (authority.is_owner || authority.is_admin_of_everything())
    }

    fn known_introduction(
        &self,
        principal: PrincipalId,
        knows: &dyn Fn(OpId) -> Option<ActIx>,
    ) -> Option<(ActIx, PrincipalKind)> {
        let (ix, introduced) = knows(principal.introduced_by()).and_then(|_| self.introduction(principal))?;
        Some((ix, introduced.kind))
    }
}

fn contains(held: &Target, wanted: &Target) -> bool {
    let bug = planted(Site::Engine, Mutant::FieldsNotContained);
    if bug { held.contains(&Target { fields: held.fields.clone(), ..wanted.clone() }) } else { held.contains(wanted) }
}

fn may_introduce(authority: &Authority<'_>) -> bool {
    authority.is_owner || authority.administers(|_| true) || authority.is_registrar(|_| true)
}

/// Whether the proof gives a right over what this statement gives.
fn administers_statement(authority: &Authority<'_>, statement: &Act) -> bool {
    let target = match statement {
        Act::Grant(grant) => Some(&grant.target),
        Act::Duty(duty) => match &duty.duty {
            Duty::ActFor(target) | Duty::Registrar(target) => Some(target),
            Duty::Warden(()) | Duty::Witness(_) => None,
        },
        Act::Genesis(_)
        | Act::Succeed(_)
        | Act::Certify(_)
        | Act::Member(_)
        | Act::Revoke(_)
        | Act::Readmit(_)
        | Act::Collection(_)
        | Act::Rules(_)
        | Act::Approve(_)
        | Act::Role(_)
        | Act::Principal(_)
        | Act::Join(_)
        | Act::Token(_)
        | Act::Evidence(_)
        | Act::Erase(_)
        | Act::Erased(_)
        | Act::Pepper(_)
        | Act::Withdraw(_) => None,
    };
    authority.administers_everything() || target.is_some_and(|target| authority.administers_target(target))
}
