//! Another key in the place of one: the same principal, as strong as before.

use super::types::ActError;
use super::{Now, Replica};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, OpId, PrincipalId};
use crate::keys::SecretKey;
use crate::op::{Act, Certify, Member, Rank};

/// Why a node may not.
const STRONGER: &str =
    "who certifies a key in the place of another must be stronger than that: ask an owner or a stronger admin";

impl Replica {
    /// Certifies a key for the principal of another one, and makes it a member if that one is. What is done already is not done
    /// again, so whoever does not know how it ended repeats it. The other key stays what it is. Returns the certificate.
    pub(super) fn replace_key(
        &mut self,
        now: Now,
        (secret, certificate): (&SecretKey, OpId),
        (old, new): (AuthorKey, AuthorKey),
        for_whom: Option<PrincipalId>,
    ) -> Result<OpId, ActError> {
        let time = Hlc::new(now.wall_ms, 0);
        let member = self.authority.member(old, time);
        let held = self.authority.certificates_of(old, time).into_iter().filter(|held| held.rank > Rank::OWNER);
        let held = match &member {
            Some(member) => held.into_iter().find(|held| held.principal == member.principal),
            None => held.into_iter().next(),
        };
        let held =
            held.ok_or_else(|| ActError::NothingToDo(format!("nothing certifies the key {old}, or not any more")))?;
        let principal = held.principal;
        let known = self.authority.certificate_for(new, principal, time).map(|known| known.id);
        let mut acts = Vec::new();
        if known.is_none() {
            let name = self.authority.name_of(principal).unwrap_or_default().to_owned();
            let (rank, not_after) = (held.rank, held.not_after);
            acts.push(Act::Certify(Certify { principal: Some(principal), key: new, rank, not_after, name }));
        }
        if let Some(member) = member.filter(|_| !self.authority.is_member(new, time))
            && let Some(statement) = self.authority.statement(member.statement, time)
        {
            let (rank, not_after) = (statement.rank, statement.not_after);
            let labels = member.labels.into_iter().collect();
            acts.push(Act::Member(Member { principal, key: new, rank, not_after, labels }));
        }
        let made = self.sign_all(now, (secret, certificate), acts, for_whom).map_err(|error| match error {
            ActError::NotAllowed(_) => ActError::NotAllowed(STRONGER.to_owned()),
            other => other,
        })?;
        known.or(made).ok_or_else(|| ActError::NothingToDo(format!("the key {new} is certified already")))
    }
}
