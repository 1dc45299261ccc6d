//! Who may do what now: questions about the present, none of them a verdict.

use std::fmt;

use super::Authority;
use super::log::ActIx;
use super::rights::Right;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, CollectionName, DocId, OpId, PrincipalId};
use crate::op::{Act, Action, FieldPath, FieldRights, Rank, Statement};

/// Whether a principal may do something now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It may, under this statement.
    Allowed {
        /// The strongest grant that gives the right.
        grant: OpId,
    },
    /// It may not.
    Denied(Denial),
}

/// Why a principal may not do something now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// No statement gives it the right.
    NotGranted,
    /// It asks for others to write for it, and the act that introduced it does not say that they may.
    NotAttested,
    /// It has no duty to write for others there.
    NoDuty,
    /// It has the right on some fields only, and not on these.
    Withheld,
    /// It had the right, and this revocation took it.
    Revoked {
        /// The revocation.
        by: OpId,
    },
    /// It had the right until its time ended.
    Expired,
    /// A statement would give it the right, but does not count (yet).
    NotEffective {
        /// The statement.
        statement: OpId,
    },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGranted => f.write_str("no grant gives this right"),
            Self::Revoked { by } => write!(f, "the right was revoked by {by}"),
            Self::NotAttested => f.write_str("that principal signs its own writes; nodes may not write for it"),
            Self::NoDuty => f.write_str("this node has no duty to write for others there"),
            Self::Withheld => {
                f.write_str("the right is limited to some fields, and not all that is asked for is within them")
            }
            Self::Expired => f.write_str("the right has expired"),
            Self::NotEffective { statement } => write!(f, "the grant {statement} does not count (yet)"),
        }
    }
}

/// Which documents of a collection somebody may read, at least in part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readable {
    /// Each one.
    All,
    /// Those whose id begins with one of these, ascending, none the beginning of another.
    Prefixes(Vec<String>),
    /// None.
    Nothing,
}

impl Readable {
    /// Those whose ids begin with one of these.
    pub(super) fn of_prefixes(mut prefixes: Vec<String>) -> Self {
        prefixes.sort();
        // Whatever begins with another follows it.
        prefixes.dedup_by(|later, earlier| later.starts_with(earlier.as_str()));
        if prefixes.is_empty() { Self::Nothing } else { Self::Prefixes(prefixes) }
    }

    /// Returns those of them whose ids begin with this.
    #[must_use]
    pub fn within(self, wanted: &str) -> Self {
        match self {
            Self::All => Self::of_prefixes(vec![wanted.to_owned()]),
            Self::Prefixes(prefixes) => Self::of_prefixes(
                prefixes
                    .into_iter()
                    .filter_map(|prefix| match prefix.starts_with(wanted) {
                        true => Some(prefix),
                        false => wanted.starts_with(prefix.as_str()).then(|| wanted.to_owned()),
                    })
                    .collect(),
            ),
            Self::Nothing => Self::Nothing,
        }
    }

    /// Returns whether a document is among them.
    #[must_use]
    pub fn includes(&self, doc: &DocId) -> bool {
        match self {
            Self::All => true,
            Self::Prefixes(prefixes) => prefixes.iter().any(|prefix| doc.as_str().starts_with(prefix.as_str())),
            Self::Nothing => false,
        }
    }
}

/// A statement as it stands now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatementInfo<'a> {
    /// Its name.
    pub id: OpId,
    /// Whom it is given to.
    pub to: PrincipalId,
    /// Its rank.
    pub rank: Rank,
    /// When it ends.
    pub not_after: Option<Hlc>,
    /// The act that makes it.
    pub act: &'a Act,
    /// When it was made, as its author says.
    pub hlc: Hlc,
    /// Why it is not in force; none if it is.
    pub denial: Option<Denial>,
}

impl Authority {
    /// Returns why a statement is not in force at a time; `None` if it is.
    pub(super) fn denial(&self, statement: ActIx, now: Hlc) -> Option<Denial> {
        let record = self.log.act(statement);
        if !record.is_effective() {
            return Some(Denial::NotEffective { statement: record.id });
        }
        if let Some(revocation) = record.hitters.iter().find(|r| self.log.act(**r).is_effective()) {
            return Some(Denial::Revoked { by: self.log.act(*revocation).id });
        }
        let ended = record.statement().and_then(|s| s.not_after).is_some_and(|end| now > end);
        ended.then_some(Denial::Expired)
    }

    pub(super) fn in_force(&self, statement: ActIx, now: Hlc) -> bool {
        self.denial(statement, now).is_none()
    }

    /// Returns the statements that the log has, in the order in which they became complete here; those that never had a right
    /// to be made are left out.
    pub fn statements(&self, now: Hlc) -> impl Iterator<Item = StatementInfo<'_>> + '_ {
        (0..self.log.acts.len()).map(ActIx).filter_map(move |ix| self.statement_info(ix, now))
    }

    /// Returns a statement as it stands now; `None` if there is none of that name that had a right to be made.
    #[must_use]
    pub fn statement(&self, id: OpId, now: Hlc) -> Option<StatementInfo<'_>> {
        self.statement_info(self.log.find(id)?, now)
    }

    fn statement_info(&self, ix: ActIx, now: Hlc) -> Option<StatementInfo<'_>> {
        let record = self.log.act(ix);
        let Statement { to, rank, not_after, act } = record.statement().filter(|_| record.is_potential())?;
        Some(StatementInfo {
            id: record.id,
            to,
            rank,
            not_after,
            act,
            hlc: record.header.hlc,
            denial: self.denial(ix, now),
        })
    }

    /// Returns whether a principal may do something now: to a whole document, or without one to the collection as a whole. What is
    /// about the cluster, and not about some collection, is asked of [`Self::may_everywhere`].
    #[must_use]
    pub fn may(
        &self,
        principal: PrincipalId,
        action: Action,
        collection: &CollectionName,
        doc: Option<&DocId>,
        now: Hlc,
    ) -> Decision {
        let reaching = || self.log.rights_of(principal).filter(|right| right.reaches(action, collection, doc));
        self.decide_fields(reaching, |right| right.allows(action, collection, doc), now)
    }

    /// Returns whether a principal may do something now to a field of a document, or without one of each of the collection.
    #[must_use]
    pub fn may_field(
        &self,
        principal: PrincipalId,
        action: Action,
        collection: &CollectionName,
        doc: Option<&DocId>,
        field: &FieldPath,
        now: Hlc,
    ) -> Decision {
        let reaching = || self.log.rights_of(principal).filter(|right| right.reaches(action, collection, doc));
        self.decide_fields(reaching, |right| right.target.fields.include(field.steps()), now)
    }

    /// Decides by those of the rights that include the fields in question. Where only others would do, these fields are withheld.
    fn decide_fields<'a, R: Iterator<Item = Right<'a>>>(
        &self,
        reaching: impl Fn() -> R,
        include: impl Fn(&Right<'_>) -> bool,
        now: Hlc,
    ) -> Decision {
        let told = self.decide(reaching().filter(include), now);
        let Decision::Denied(Denial::NotGranted) = told else { return told };
        match self.decide(reaching(), now) {
            Decision::Allowed { .. } => Decision::Denied(Denial::Withheld),
            denied @ Decision::Denied(_) => denied,
        }
    }

    /// Returns to which fields of a document a principal may do something now, or without one of each of the collection.
    #[must_use]
    pub fn fields(
        &self,
        principal: PrincipalId,
        action: Action,
        collection: &CollectionName,
        doc: Option<&DocId>,
        now: Hlc,
    ) -> FieldRights {
        let rights = self.log.rights_of(principal).filter(|right| right.reaches(action, collection, doc));
        let in_force = rights.filter(|right| right.parts().all(|part| self.in_force(part, now)));
        FieldRights::any_of(in_force.map(|right| right.target.fields.clone()))
    }

    /// Returns whether a principal may do something to everything there is now.
    #[must_use]
    pub fn may_everywhere(&self, principal: PrincipalId, action: Action, now: Hlc) -> Decision {
        let fits = |right: &Right<'_>| right.rights.actions.has(action) && right.target.is_everything();
        self.decide(self.log.rights_of(principal).filter(fits), now)
    }

    /// Returns whether `writer` may write a document on behalf of another principal now, as far as its duty goes: what that
    /// principal may itself is asked of [`Self::may`].
    #[must_use]
    pub fn may_act_for(
        &self,
        writer: PrincipalId,
        principal: PrincipalId,
        collection: &CollectionName,
        doc: &DocId,
        now: Hlc,
    ) -> Decision {
        let Some((introduction, _)) = self.log.introduction(principal).filter(|(_, said)| said.attest) else {
            return Decision::Denied(Denial::NotAttested);
        };
        if let Some(denial) = self.denial(introduction, now) {
            return Decision::Denied(denial);
        }
        let duties = self.log.duties_to_act(writer).filter(|duty| duty.target.covers(collection, Some(doc)));
        match self.decide(duties, now) {
            Decision::Denied(Denial::NotGranted) => Decision::Denied(Denial::NoDuty),
            decision => decision,
        }
    }

    fn decide<'a>(&self, rights: impl Iterator<Item = Right<'a>>, now: Hlc) -> Decision {
        let mut best: Option<(Rank, OpId)> = None;
        let mut denial = Denial::NotGranted;
        for right in rights {
            let Some(given) = right.given().map(|ix| self.log.act(ix)) else { continue };
            match (right.parts().find_map(|part| self.denial(part, now)), given.statement()) {
                (None, Some(statement)) => {
                    let this = (statement.rank, given.id);
                    best = Some(best.map_or(this, |best| best.min(this)));
                }
                (Some(why), _) => denial = why,
                (None, None) => {}
            }
        }
        best.map_or(Decision::Denied(denial), |(_, grant)| Decision::Allowed { grant })
    }

    /// Returns how many streams a revocation or readmission lets stand up to a pin; 0 if there is no such act.
    #[must_use]
    pub fn pins_set_by(&self, act: OpId) -> usize {
        self.log.find(act).and_then(|ix| self.log.act(ix).act()).map_or(0, |act| act.pins().len())
    }

    /// Returns the statements under which the holder of a key should sign an act, the strongest that give the right;
    /// `None` if it has no right to the act. The right of owners is found too; whether further owners must consent is
    /// not asked here.
    #[must_use]
    pub fn proof_for(&self, key: AuthorKey, certificate: OpId, act: &Act, now: Hlc) -> Option<Vec<OpId>> {
        let certificate = self.log.find(certificate).filter(|ix| self.in_force(*ix, now))?;
        let principal = self.log.certified(certificate, key)?;
        let rights = self.log.rights_of(principal).map(|right| right.parts().collect::<Vec<_>>());
        let duties = self.log.given_to(principal).filter(|ix| matches!(self.log.act(*ix).act(), Some(Act::Duty(_))));
        let memberships = self.log.members.get(&key).into_iter().flatten().map(|ix| vec![*ix]);
        let held = rights
            .chain(duties.map(|ix| vec![ix]))
            .chain(memberships)
            .filter(|parts| parts.iter().all(|ix| self.in_force(*ix, now)));
        let proofs = std::iter::once(Vec::new()).chain(held).map(|parts| [vec![certificate], parts].concat());
        let knows = |id: OpId| self.log.find(id);
        let fitting = proofs.filter_map(|proof| {
            let authority = self.log.authority(key, certificate, now, &proof)?;
            // The id of the op to come is not known; only a new principal is named by it, and that asks nothing.
            let weaker = act.statement(OpId::ZERO).is_none_or(|statement| statement.rank > authority.strength);
            (weaker && self.log.permits(&authority, act, &knows)).then(|| {
                let mut ids: Vec<_> = proof.iter().map(|ix| self.log.act(*ix).id).collect();
                ids.sort();
                (authority.strength, ids.len(), ids)
            })
        });
        fitting.min().map(|(_, _, ids)| ids)
    }
}
