//! Changes of owners: who may make one, which of several counts, and who the owners are now.
//!
//! Invariant: whether a change counts depends on the act that made the owners before, and on the other changes after that
//! one; never on what owners or anybody else has signed. All of them have the strength of the recovery keys, and are settled
//! before every other act, each after the one that it comes after.

use super::Authority;
use super::effect::Subject;
use super::log::{ActIx, Log, Standing};
use super::past::Past;
use crate::authority::mutant::{Mutant, Site, planted};
use crate::authority::verdict::Verdict;
use crate::id::{AuthorKey, OpId, PrincipalId, StreamId};
use crate::op::{Act, Header, Rank, Succeed};

/// Who the owners are now, and who can replace them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CurrentOwners {
    /// The act that made them: their certificate, and what the next change comes after.
    pub certificate: OpId,
    /// Their principal.
    pub principal: PrincipalId,
    /// Their keys, ascending.
    pub owners: Vec<AuthorKey>,
    /// How many of them an act of strength 0 needs.
    pub threshold: u8,
    /// Hashes of the recovery keys, ascending.
    pub recovery: Vec<[u8; 32]>,
    /// How many recovery keys a change needs; 0 if the owners can never be changed.
    pub recovery_threshold: u8,
}

impl Log {
    /// Judges a change of owners from itself and its ancestors. Its signatures have been checked when it was decoded.
    pub(super) fn succession_standing(&self, header: &Header, succeed: &Succeed, past: &Past) -> Standing {
        let before = self.find(succeed.after).map(|ix| self.act(ix));
        let before = before.filter(|record| record.is_potential() && past.contains(record.place));
        let Some(set) = before.and_then(|record| record.act()?.owner_set()) else { return Standing::NotAllowed };
        let counts = |key: &AuthorKey| set.may_recover(key) || planted(Site::Engine, Mutant::AnyKeyRecovers);
        let others = succeed.signatures.iter().filter(|signature| counts(&signature.key)).count();
        let wanted = usize::from(set.recovery_threshold);
        let wanted = if planted(Site::Engine, Mutant::OneRecoveryKeySuffices) { wanted.min(1) } else { wanted };
        if wanted > 0 && counts(&header.author) && 1 + others >= wanted {
            Standing::Potential { strength: Rank::RECOVERY }
        } else {
            Standing::NotAllowed
        }
    }

    /// Returns the change after an act of owners that goes before all others after it: that with the smallest id.
    fn first_change_after(&self, before: OpId) -> Option<ActIx> {
        self.successions.get(&before)?.iter().copied().min_by_key(|ix| self.act(*ix).id)
    }

    /// Decides whether a change of owners counts. What it comes after, and all other changes after that, have their standing.
    pub(super) fn succession_effect(&self, ix: ActIx, succeed: &Succeed, subject: &Subject<'_>) -> Verdict {
        let Some(before) = self.find(succeed.after) else { return Verdict::NotAllowed };
        let effect = self.act(before).effect;
        if !effect.is_allowed() && !planted(Site::Engine, Mutant::SuccessionOfVoid) {
            return effect;
        }
        if planted(Site::Engine, Mutant::RecoveryForkCloses)
            && let Some(blame) = self.fork_blame(before, subject)
        {
            return blame;
        }
        match self.first_change_after(succeed.after) {
            Some(first) if first != ix && !planted(Site::Engine, Mutant::AllSuccessionsCount) => {
                Verdict::AfterRevocation { by: self.act(first).id }
            }
            Some(_) | None => Verdict::Allowed,
        }
    }

    /// Returns whether a control stream is that of a recovery key which changes the owners: it is bound to the certificate of the
    /// owners before, and no stream of theirs.
    pub(super) fn is_recovery_stream(&self, stream: StreamId) -> bool {
        let Some(header) = self.first_op(stream) else { return false };
        let Some(Act::Succeed(succeed)) = header.control().map(|control| &control.act) else { return false };
        let before = self.find(succeed.after).and_then(|ix| self.act(ix).act()?.owner_set());
        before.is_some_and(|set| set.may_recover(&header.author))
    }

    /// Returns the act that made the present owners; none before the genesis is here.
    pub(super) fn owners_certificate(&self) -> Option<ActIx> {
        let mut at = self.find(self.cluster.genesis())?;
        // Each comes after the one before it in the order of acts, so this ends.
        while let Some(next) = self.first_change_after(self.act(at).id).filter(|next| self.act(*next).is_effective()) {
            at = next;
        }
        Some(at)
    }

    /// Returns whether an owner's approval counts for an act of an owner, whose certificate is given: that it comes from an
    /// owner of the same set, is not cut, and is on the kept part of its stream. It needs no consent itself.
    pub(super) fn consents(&self, approval: ActIx, certificate: ActIx) -> bool {
        let record = self.act(approval);
        let own = self.find(record.header.certificate);
        if own != Some(certificate) && !planted(Site::Engine, Mutant::ForeignConsent) {
            return false;
        }
        let Some(own) = own else { return false };
        let subject = self.subject(approval);
        let is_cut = self.blame(own, &subject).is_some() && !planted(Site::Engine, Mutant::CutConsent);
        !is_cut && self.fork_blame(own, &subject).is_none()
    }
}

impl Authority {
    /// Returns the certificate under which a key is an owner's now; `None` if it is none.
    #[must_use]
    pub fn owner_certificate(&self, key: &AuthorKey) -> Option<OpId> {
        let record = self.log.act(self.log.owners_certificate()?);
        record.act()?.owner_set()?.owners.contains(key).then_some(record.id)
    }

    /// Returns why a change of owners would not count, were it added now; `None` if it would.
    #[must_use]
    pub fn succession_lacks(&self, header: &Header) -> Option<&'static str> {
        let Some(Act::Succeed(succeed)) = header.control().map(|control| &control.act) else {
            return Some("it is no change of owners");
        };
        let heads = header.control_heads.iter().map(|head| self.log.find(*head)).collect::<Option<Vec<_>>>();
        let Some(heads) = heads else { return Some("it names acts that are not here") };
        if self.owners().is_none_or(|owners| owners.certificate != succeed.after) {
            return Some("the owners have been changed since it was made");
        }
        let heads = heads.into_iter().map(|ix| self.log.act(ix));
        let past = Past::empty().with(heads.map(|record| (&record.past, record.place)));
        let counts = matches!(self.log.succession_standing(header, succeed, &past), Standing::Potential { .. });
        (!counts).then_some("too few of the recovery keys have signed it")
    }

    /// Returns who the owners are now; `None` before the genesis is here.
    #[must_use]
    pub fn owners(&self) -> Option<CurrentOwners> {
        let record = self.log.act(self.log.owners_certificate()?);
        let set = record.act()?.owner_set()?;
        Some(CurrentOwners {
            certificate: record.id,
            principal: self.log.cluster.genesis().into(),
            owners: set.owners.to_vec(),
            threshold: set.threshold,
            recovery: set.recovery.to_vec(),
            recovery_threshold: set.recovery_threshold,
        })
    }
}
