//! What an act and its ancestors alone decide: is the proof sound, and does it give the right to this act?

use super::log::{ActIx, Log, Standing};
use super::past::Past;
use crate::authority::mutant::{Mutant, Site, planted};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, CollectionName, OpId, PrincipalId};
use crate::op::{Act, BuiltInRole, Certify, Grant, Header, Rank, RevokeTarget, Role, Target};

/// What an act is done under.
pub(super) struct Authority<'a> {
    pub(super) principal: PrincipalId,
    /// Whether the signing key is an owner key, bound to the genesis.
    pub(super) is_owner: bool,
    pub(super) strength: Rank,
    pub(super) grants: Vec<&'a Grant>,
}

impl Authority<'_> {
    fn administers(&self, covers: impl Fn(&Target) -> bool) -> bool {
        self.grants.iter().any(|grant| match grant.role {
            Role::BuiltIn(BuiltInRole::Admin) => covers(&grant.target),
            Role::BuiltIn(BuiltInRole::Editor | BuiltInRole::Reader) => false,
        })
    }

    fn administers_everything(&self) -> bool {
        self.administers(|target| target.contains(&Target::everything()))
    }

    fn administers_target(&self, wanted: &Target) -> bool {
        self.administers(|target| target.contains(wanted))
    }

    fn administers_collection(&self, collection: &CollectionName) -> bool {
        self.administers(|target| target.matches(collection))
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
        let mut grants = Vec::new();
        let mut ranks = Vec::new();
        for ix in proof {
            let record = self.act(*ix);
            let statement = record.statement().filter(|_| record.is_potential())?;
            let ended = statement.not_after.is_some_and(|end| time > end);
            if statement.to != principal || (ended && !planted(Site::Engine, Mutant::ExpiryIgnored)) {
                return None;
            }
            ranks.push(statement.rank);
            if let Act::Grant(grant) = statement.act {
                grants.push(grant);
            }
        }
        let strength = if planted(Site::Engine, Mutant::StrengthIsStrongest) {
            ranks.into_iter().min()?
        } else {
            ranks.into_iter().max()?
        };
        let is_owner = matches!(self.act(certificate).act(), Some(Act::Genesis(_)));
        Some(Authority { principal, is_owner, strength, grants })
    }

    /// Returns for whom a potential certificate lets a key speak.
    pub(super) fn certified(&self, certificate: ActIx, key: AuthorKey) -> Option<PrincipalId> {
        let record = self.act(certificate);
        let holds = record.is_potential() && record.act()?.certifies(key);
        holds.then(|| record.statement().map(|statement| statement.to)).flatten()
    }

    /// Returns whether the authority gives the right to this act; `knows` finds the acts that its author knew.
    pub(super) fn permits(&self, authority: &Authority<'_>, act: &Act, knows: &dyn Fn(OpId) -> Option<ActIx>) -> bool {
        match act {
            Act::Genesis(_) => false,
            Act::Rules(_) | Act::Approve(_) => authority.is_owner,
            Act::Certify(certify) => self.permits_certify(authority, certify, knows),
            Act::Member(_) => authority.is_owner || authority.administers_everything(),
            Act::Grant(grant) => {
                authority.is_owner
                    || authority.administers_target(&grant.target)
                    || planted(Site::Engine, Mutant::NoAttenuation) && !authority.grants.is_empty()
            }
            Act::Collection(collection) => authority.is_owner || authority.administers_collection(&collection.name),
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
                            || self.administers_statement(authority, statement.act))
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
                            .is_some_and(|statement| self.administers_statement(authority, statement)),
                    }
            }
        }
    }

    /// Keys for somebody else: an admin of everything, and stronger than the certificate that introduced the principal.
    /// Without the second condition an admin of one collection could sign as an admin of all of them.
    fn permits_certify(
        &self,
        authority: &Authority<'_>,
        certify: &Certify,
        knows: &dyn Fn(OpId) -> Option<ActIx>,
    ) -> bool {
        let Some(principal) = certify.principal else {
            return authority.is_owner || authority.administers(|_| true);
        };
        if principal == authority.principal {
            return true;
        }
        let Some(introduction) = knows(principal.introduced_by()).map(|ix| self.act(ix)) else { return false };
        let introduces = introduction.is_potential()
            && introduction.statement().is_some_and(|s| s.to == principal && authority.strength < s.rank);
        if planted(Site::Engine, Mutant::CertifyAnybody) && introduction.is_potential() {
            return authority.is_owner || authority.administers(|_| true);
        }
        introduces && (authority.is_owner || authority.administers_everything())
    }

    #[expect(clippy::unused_self, reason = "a rule of the log, beside its siblings")]
    fn administers_statement(&self, authority: &Authority<'_>, statement: &Act) -> bool {
        authority.administers_everything()
            || matches!(statement, Act::Grant(grant) if authority.administers_target(&grant.target))
    }
}
