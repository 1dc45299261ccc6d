//! The rule for changes of owners.

use super::{Standing, World, bug};
use crate::authority::mutant::Mutant;
use crate::authority::verdict::Verdict;
use crate::hash::{Domain, hash};
use crate::id::{AuthorKey, OpId};
use crate::op::{Act, Header, Rank, Succeed};

impl World<'_> {
    /// Whether a key is one of the recovery keys of what made owners.
    pub(super) fn recovers(&self, owners: OpId, key: AuthorKey) -> bool {
        let name = hash(Domain::RecoveryKey, &[key.as_bytes()]);
        self.act(owners).and_then(Act::owner_set).is_some_and(|set| set.recovery.contains(&name))
    }

    /// A change of owners needs as many recovery keys as the act before it says, its author among them.
    pub(super) fn judge_succession(&self, id: OpId, header: &Header, made: &Succeed) -> Standing {
        let before = made.after;
        let known = self.knows(id, before) && self.is_potential(before);
        let Some(set) = self.act(before).and_then(Act::owner_set).filter(|_| known) else {
            return Standing::NotAllowed;
        };
        let mut signers = vec![header.author];
        signers.extend(made.signatures.iter().map(|signature| signature.key));
        signers.retain(|key| self.recovers(before, *key) || bug(Mutant::AnyKeyRecovers));
        let enough = if bug(Mutant::OneRecoveryKeySuffices) { 1 } else { usize::from(set.recovery_threshold) };
        if !set.recovery.is_empty() && signers.contains(&header.author) && signers.len() >= enough {
            Standing::Potential(Rank::RECOVERY)
        } else {
            Standing::NotAllowed
        }
    }

    /// Of the changes after one act that of the smallest id counts, if the act does.
    pub(super) fn find_successions(&mut self) {
        for id in self.order.clone() {
            if !self.is_potential(id) {
                continue;
            }
            let effect = match self.act(id) {
                Some(Act::Genesis(_)) => Verdict::Allowed,
                Some(Act::Succeed(made)) => self.succession_effect(id, made.after),
                Some(_) | None => continue,
            };
            self.effects.insert(id, effect);
        }
    }

    fn succession_effect(&self, id: OpId, before: OpId) -> Verdict {
        let effect = self.effects.get(&before).copied().unwrap_or(Verdict::NotAllowed);
        if !effect.is_allowed() && !bug(Mutant::SuccessionOfVoid) {
            return effect;
        }
        if bug(Mutant::RecoveryForkCloses)
            && let Some(blame) = self.ops.get(&id).and_then(|header| self.fork_blame(id, header))
        {
            return blame;
        }
        let competes = |other: &OpId| {
            self.is_potential(*other) && matches!(self.act(*other), Some(Act::Succeed(made)) if made.after == before)
        };
        match self.order.iter().copied().filter(competes).min() {
            Some(first) if first != id && !bug(Mutant::AllSuccessionsCount) => Verdict::AfterRevocation { by: first },
            Some(_) | None => Verdict::Allowed,
        }
    }
}
