//! The rule for writes.

use super::{World, bug};
use crate::authority::mutant::Mutant;
use crate::authority::verdict::Verdict;
use crate::id::{OpId, PrincipalId};
use crate::op::{Act, Action, Actions, ChangeRef, Duty, FieldPath, Fields, Header, Rights, Role, Target, Transaction};

/// What one grant or duty gives, and the statements that this hangs on.
struct Claim<'a> {
    statements: Vec<OpId>,
    target: &'a Target,
    rights: Rights,
    is_duty: bool,
}

impl<'a> World<'a> {
    pub(super) fn judge(&self, id: OpId, header: &Header, transaction: &Transaction) -> Verdict {
        if !self.is_complete(id) {
            return Verdict::Deferred(self.missing(header));
        }
        if self.unsound.contains(&id) {
            return Verdict::Refused;
        }
        // The right, revocations left aside.
        let certificate = header.certificate;
        let writer = self
            .certified(certificate, header.author)
            .filter(|_| self.knows(id, certificate) && self.lasts(certificate, header));
        let Some(writer) = writer else { return Verdict::NotAllowed };
        let principal = transaction.principal;
        let mut statements = vec![certificate];
        let mut needed = Vec::new();
        if writer != principal && !bug(Mutant::DutyIgnored) {
            let introduced = self.introduction(id, principal);
            if !introduced.is_some_and(|said| said.attest || bug(Mutant::AttestIgnored)) {
                return Verdict::NotAllowed;
            }
            if !bug(Mutant::IntroductionIgnored) {
                statements.push(principal.introduced_by());
            }
            needed.push(self.duties_of(id, header, writer));
        }
        needed.push(self.grants_of(id, header, principal));
        let parts = parts_of(transaction);
        let gives = |claim: &Claim<'_>, part: &Part<'_>| covers(claim, header, principal, part);
        for claims in &needed {
            if !parts.iter().all(|part| claims.iter().any(|claim| gives(claim, part))) {
                return Verdict::NotAllowed;
            }
        }
        // What revocations leave of it.
        if let Some(blame) = statements.iter().find_map(|statement| self.blame(*statement, id)) {
            return blame;
        }
        for claims in needed {
            let blames = |claim: &Claim<'_>| {
                let mut parts = claim.statements.iter().filter(|part| !self.is_overlooked(**part));
                parts.find_map(|part| self.blame(*part, id))
            };
            let (void, left): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| blames(claim).is_some());
            let lacking: Vec<&Part<'_>> =
                parts.iter().filter(|part| !left.iter().any(|claim| gives(claim, part))).collect();
            if lacking.is_empty() {
                continue;
            }
            let guilty: Vec<Verdict> = void
                .into_iter()
                .filter(|claim| lacking.iter().any(|part| gives(claim, part)))
                .filter_map(blames)
                .collect();
            let waits = guilty.iter().find(|blame| matches!(blame, Verdict::Deferred(_)));
            return waits.or(guilty.first()).copied().unwrap_or(Verdict::NotAllowed);
        }
        self.fork_blame(id, header).unwrap_or(Verdict::Allowed)
    }

    /// Whether the statement has not ended when the op was made.
    fn lasts(&self, statement: OpId, header: &Header) -> bool {
        let end = self.statement(statement).and_then(|statement| statement.not_after);
        end.is_none_or(|end| header.hlc <= end) || bug(Mutant::ExpiryIgnored)
    }

    fn counts(&self, op: OpId, header: &Header, claim: &Claim<'_>) -> bool {
        let known = |part: &OpId| self.knows(op, *part) || bug(Mutant::GrantNeedNotBeKnown);
        claim.statements.iter().all(|part| known(part) && self.lasts(*part, header))
    }

    /// Grants to the principal, then grants to the groups that it is a member of.
    fn grants_of(&self, op: OpId, header: &Header, principal: PrincipalId) -> Vec<Claim<'a>> {
        let mut claims = self.grants_to(principal, None);
        for join in self.given.get(&principal).into_iter().flatten() {
            if let Some(Act::Join(act)) = self.act(*join) {
                claims.extend(self.grants_to(act.group, Some(*join)));
            }
        }
        claims.retain(|claim| self.counts(op, header, claim));
        claims
    }

    fn grants_to(&self, holder: PrincipalId, join: Option<OpId>) -> Vec<Claim<'a>> {
        let mut claims = Vec::new();
        for id in self.given.get(&holder).into_iter().flatten() {
            let Some(Act::Grant(grant)) = self.act(*id) else { continue };
            let Some(rights) = self.rights_of_role(&grant.role) else { continue };
            let mut statements: Vec<OpId> = join.into_iter().chain([*id]).collect();
            if let Role::Custom(role) = &grant.role {
                statements.push(*role);
            }
            claims.push(Claim { statements, target: &grant.target, rights, is_duty: false });
        }
        claims
    }

    fn duties_of(&self, op: OpId, header: &Header, writer: PrincipalId) -> Vec<Claim<'a>> {
        let rights = Rights { actions: Actions::ALL, own_actions: Actions::NONE };
        let mut claims = Vec::new();
        for id in self.given.get(&writer).into_iter().flatten() {
            if let Some(Act::Duty(given)) = self.act(*id)
                && let Duty::ActFor(target) = &given.duty
            {
                claims.push(Claim { statements: vec![*id], target, rights, is_duty: true });
            }
        }
        claims.retain(|claim| self.counts(op, header, claim));
        claims
    }

    fn is_overlooked(&self, statement: OpId) -> bool {
        match self.act(statement) {
            Some(Act::Role(_)) => bug(Mutant::RoleIgnored),
            Some(Act::Join(_)) => bug(Mutant::JoinIgnored),
            _ => false,
        }
    }
}

/// A part of a transaction for which one right must be enough.
enum Part<'a> {
    /// A change of a document that may touch anything in it.
    Whole(&'a ChangeRef),
    /// What a change does at or below a field.
    Field(&'a ChangeRef, &'a FieldPath),
    /// A change that touches no field.
    Bare(&'a ChangeRef),
}

fn parts_of(transaction: &Transaction) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for change in &transaction.changes {
        match &change.fields {
            None => parts.push(Part::Whole(change)),
            Some(fields) if fields.is_empty() => parts.push(Part::Bare(change)),
            Some(fields) if bug(Mutant::FirstFieldSuffices) => {
                parts.extend(fields.iter().take(1).map(|field| Part::Field(change, field)));
            }
            Some(fields) => parts.extend(fields.iter().map(|field| Part::Field(change, field))),
        }
    }
    parts
}

/// Whether one pattern leads to a place at or below which the other one stays.
fn is_above(pattern: &FieldPath, field: &FieldPath) -> bool {
    let (pattern, field) = (pattern.steps(), field.steps());
    pattern.len() <= field.len() && pattern.iter().zip(field).all(|(step, place)| step == place || step == "*")
}

/// Whether two patterns may lead to one place, or one to above the other's.
fn may_meet(one: &FieldPath, other: &FieldPath) -> bool {
    one.steps().iter().zip(other.steps()).all(|(a, b)| a == "*" || b == "*" || a == b)
}

/// Whether a right on these fields reaches a part.
fn reaches(fields: &Fields, part: &Part<'_>) -> bool {
    if bug(Mutant::FieldsIgnored) {
        return true;
    }
    match (fields, part) {
        (Fields::All, _) | (_, Part::Bare(_)) => true,
        (_, Part::Whole(_)) => bug(Mutant::UndeclaredTouchesNothing),
        (Fields::Only(allowed), Part::Field(_, field)) => allowed.iter().any(|path| is_above(path, field)),
        (Fields::Except(withheld), Part::Field(_, field)) => {
            let shadowed = |path: &FieldPath| may_meet(path, field) && !bug(Mutant::WithheldMayBeShadowed);
            !withheld.iter().any(|path| shadowed(path) || is_above(path, field))
        }
    }
}

fn covers(claim: &Claim<'_>, header: &Header, principal: PrincipalId, part: &Part<'_>) -> bool {
    let (Part::Whole(change) | Part::Field(change, _) | Part::Bare(change)) = part;
    let collection = header.collection();
    let within = claim.target.reaches(collection, Some(&change.doc))
        || bug(Mutant::DocumentsIgnored) && claim.target.touches(collection)
        || bug(Mutant::DutyTargetIgnored) && claim.is_duty;
    let action = Action::from(change.action);
    let own = change.doc.as_str().starts_with(&principal.own_prefix()) || bug(Mutant::OwnIsAll);
    within
        && reaches(&claim.target.fields, part)
        && (claim.rights.actions.has(action) || claim.rights.own_actions.has(action) && own)
}
