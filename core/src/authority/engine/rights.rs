//! What statements give to a principal: the grants to it and to its groups, each with all that it hangs on.

use super::log::{ActIx, Log};
use crate::authority::mutant::{Mutant, Site, planted};
use crate::id::{CollectionName, DocId, OpId, PrincipalId};
use crate::op::{Act, Action, Actions, ChangeRef, Duty, Fields, Introduced, Rights, Role, Target, Touched};

/// What one grant, or one duty, gives to a principal.
pub(super) struct Right<'a> {
    /// Whom: the member, where the grant is to its group.
    principal: PrincipalId,
    /// The join, the grant or duty, and the role.
    parts: [Option<ActIx>; 3],
    is_duty: bool,
    pub(super) target: &'a Target,
    pub(super) rights: Rights,
}

/// A change, and a place that it declares to touch.
pub(super) type Need<'a> = (&'a ChangeRef, Touched<'a>);

/// Returns what rights are needed for: each place that each change touches.
pub(super) fn needs(changes: &[ChangeRef]) -> impl Iterator<Item = Need<'_>> {
    let first = if planted(Site::Engine, Mutant::FirstFieldSuffices) { 1 } else { usize::MAX };
    changes.iter().flat_map(move |change| change.touched().take(first).map(move |touched| (change, touched)))
}

/// Planted bugs.
fn has_bug(fields: &Fields, touched: Touched<'_>) -> bool {
    let shadows = match (fields, touched) {
        (Fields::Except(withheld), Touched::Field(field)) => !withheld.lead_to(field.steps()),
        (Fields::All | Fields::Only(_) | Fields::Except(_), _) => false,
    };
    planted(Site::Engine, Mutant::FieldsIgnored)
        || touched == Touched::Document && planted(Site::Engine, Mutant::UndeclaredTouchesNothing)
        || shadows && planted(Site::Engine, Mutant::WithheldMayBeShadowed)
}

impl Right<'_> {
    /// Returns the statements that the right hangs on: the join if it comes through a group, the grant or duty, the role if
    /// the cluster has made that.
    pub(super) fn parts(&self) -> impl Iterator<Item = ActIx> + '_ {
        self.parts.iter().flatten().copied()
    }

    /// Returns the grant or duty.
    pub(super) fn given(&self) -> Option<ActIx> {
        let [_, given, _] = self.parts;
        given
    }

    /// Returns whether the right allows this on some fields of a document, or without one of each document of the collection.
    pub(super) fn reaches(&self, action: Action, collection: &CollectionName, doc: Option<&DocId>) -> bool {
        let covers = self.target.reaches(collection, doc)
            || self.is_duty && planted(Site::Engine, Mutant::DutyTargetIgnored)
            || planted(Site::Engine, Mutant::DocumentsIgnored) && self.target.touches(collection);
        let owns = |doc: &DocId| self.principal.owns(doc) || planted(Site::Engine, Mutant::OwnIsAll);
        covers && self.rights.allow(action, self.target.is_everything(), || doc.is_some_and(owns))
    }

    /// Returns whether the right allows this on a whole document, or without one on the whole collection.
    pub(super) fn allows(&self, action: Action, collection: &CollectionName, doc: Option<&DocId>) -> bool {
        self.target.fields.is_all() && self.reaches(action, collection, doc)
    }

    /// Returns whether the right allows what a change declares in one place.
    pub(super) fn gives(&self, collection: &CollectionName, (change, touched): Need<'_>) -> bool {
        self.reaches(Action::from(change.action), collection, Some(&change.doc))
            && (self.target.fields.allow(touched) || has_bug(&self.target.fields, touched))
    }
}

impl Log {
    /// Returns what a role allows, and the act that made it, if it is not part of the rules.
    pub(super) fn role(&self, role: &Role) -> Option<(Option<ActIx>, Rights)> {
        match role {
            Role::BuiltIn(role) => Some((None, role.rights())),
            Role::Custom(id) => {
                let ix = self.find(*id).filter(|ix| self.act(*ix).is_potential())?;
                let Some(Act::Role(role)) = self.act(ix).act() else { return None };
                Some((Some(ix), role.rights()))
            }
        }
    }

    /// Returns all potential statements given to a principal, by id.
    pub(super) fn given_to(&self, principal: PrincipalId) -> impl Iterator<Item = ActIx> + '_ {
        self.given.get(&principal).into_iter().flatten().copied()
    }

    /// Returns the rights of a principal, whether or not their statements count: by grants to itself, by id, then by those to
    /// its groups, by join and grant.
    pub(super) fn rights_of(&self, principal: PrincipalId) -> impl Iterator<Item = Right<'_>> + '_ {
        let joined = self.given_to(principal).filter_map(|join| {
            let Some(Act::Join(act)) = self.act(join).act() else { return None };
            Some((Some(join), act.group))
        });
        std::iter::once((None, principal)).chain(joined).flat_map(move |(join, holder)| {
            self.given_to(holder).filter_map(move |ix| {
                let Some(Act::Grant(grant)) = self.act(ix).act() else { return None };
                let (role, rights) = self.role(&grant.role)?;
                let parts = [join, Some(ix), role];
                Some(Right { principal, parts, is_duty: false, target: &grant.target, rights })
            })
        })
    }

    /// Returns a principal's duties to act for others, whether or not they count, each as the right to do there whatever those
    /// others may.
    pub(super) fn duties_to_act(&self, principal: PrincipalId) -> impl Iterator<Item = Right<'_>> + '_ {
        let rights = Rights { actions: Actions::ALL, own_actions: Actions::NONE };
        self.given_to(principal).filter_map(move |ix| {
            let Some(Act::Duty(given)) = self.act(ix).act() else { return None };
            match &given.duty {
                Duty::ActFor(target) => {
                    Some(Right { principal, parts: [None, Some(ix), None], is_duty: true, target, rights })
                }
                Duty::Warden(()) | Duty::Witness(_) | Duty::Registrar(_) => None,
            }
        })
    }

    /// Returns the act that introduces a principal, and what it says.
    pub(super) fn introduction(&self, principal: PrincipalId) -> Option<(ActIx, Introduced<'_>)> {
        let id: OpId = principal.introduced_by();
        let ix = self.find(id).filter(|ix| self.act(*ix).is_potential())?;
        Some((ix, self.act(ix).act()?.introduces(id)?))
    }

    /// Returns the principals whose own writes and acts may hang on a statement: not on a certificate, which has streams.
    pub(super) fn beneficiaries(&self, statement: ActIx) -> Vec<PrincipalId> {
        let record = self.act(statement);
        match record.act() {
            Some(Act::Grant(grant)) => {
                let joins = self.joins.get(&grant.principal).into_iter().flatten();
                let members = joins.filter_map(|ix| self.act(*ix).statement()).map(|statement| statement.to);
                std::iter::once(grant.principal).chain(members).collect()
            }
            Some(Act::Role(_)) => {
                let grants = self.grants_of_role.get(&record.id).into_iter().flatten();
                grants.flat_map(|grant| self.beneficiaries(*grant)).collect()
            }
            Some(Act::Join(join)) => vec![join.principal],
            Some(Act::Duty(duty)) => vec![duty.principal],
            Some(Act::Principal(_)) => vec![PrincipalId::from(record.id)],
            Some(
                Act::Genesis(_)
                | Act::Succeed(_)
                | Act::Certify(_)
                | Act::Member(_)
                | Act::Revoke(_)
                | Act::Readmit(_)
                | Act::Collection(_)
                | Act::Rules(_)
                | Act::Approve(_)
                | Act::Token(_)
                | Act::Evidence(_)
                | Act::Erase(_)
                | Act::Erased(_)
                | Act::Pepper(_)
                | Act::Withdraw(_),
            )
            | None => Vec::new(),
        }
    }
}
