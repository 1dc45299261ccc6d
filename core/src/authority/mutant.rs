//! Planted bugs: deliberate breaks of the rule, by which tests prove that they would notice.
//!
//! Compiled in for this crate's tests and under the feature `planted-bugs` only; otherwise [`planted`] is constant.

/// A way to break the rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A statement may be as strong as the act that makes it.
    RankNotChecked,
    /// A revocation counts only for ops whose author says to have known it.
    CausalRevocation,
    /// Pins do not decide forks.
    PinsIgnoreForks,
    /// An act is as strong as its strongest statement.
    StrengthIsStrongest,
    /// Equals may revoke equals.
    EqualsRevoke,
    /// A grant counts for ops that do not know it.
    GrantNeedNotBeKnown,
    /// A pin is a sequence number, whatever the chain.
    PinWithoutHash,
    /// Both branches of a fork count.
    ForkIgnored,
    /// A concurrent re-grant survives a revocation.
    ConcurrentRegrantWins,
    /// A grant may give more than its proof has.
    NoAttenuation,
    /// One owner is enough, whatever the threshold.
    ThresholdIgnored,
    /// What ends at a time goes on after it.
    ExpiryIgnored,
    /// A pinned chain that is not here counts as if it were.
    MissingPinTrusted,
    /// Cascades stop at the first statement.
    CascadeIgnored,
    /// Any admin may certify keys for any principal.
    CertifyAnybody,
    /// A revocation's pins are forgotten. Of the engine alone, for the simulator; not among [`Self::ALL`].
    PinForgotten,
    /// What others wrote for a principal is not judged again. Of the engine alone, as above.
    WrittenForForgotten,
    /// Anybody may readmit its own ops.
    ReadmitOneself,
    /// A pin says nothing of the sessions before its stream.
    PinEndsAtSession,
    /// What a later session names counts even where a revocation has a pin of its own.
    EarlierPinIgnored,
    /// Of the pins on a fork the strongest decides, whatever it is there for.
    AnyPinDecides,
    /// Nobody needs a duty to write for others.
    DutyIgnored,
    /// A duty reaches everywhere.
    DutyTargetIgnored,
    /// Others may write for whoever has not agreed to that.
    AttestIgnored,
    /// A revocation of the act that introduced a principal cuts nothing that others write for it.
    IntroductionIgnored,
    /// A revocation of a role cuts nothing.
    RoleIgnored,
    /// A revocation of a membership cuts nothing.
    JoinIgnored,
    /// Everything is one's own.
    OwnIsAll,
    /// A right on some documents is one on all of the collection.
    DocumentsIgnored,
    /// Who may administer may do what an admin of everything may.
    NarrowAdminIsAdmin,
    /// A role need not stand in the proof of an act.
    RoleOutsideProof,
    /// A membership need not stand in the proof of an act.
    JoinOutsideProof,
    /// Groups join groups.
    GroupsNest,
    /// Keys are certified for groups.
    GroupHasKeys,
    /// A warden may revoke what has not ended.
    WardenAnytime,
    /// A registrar's grants need not end.
    RegistrarForever,
    /// A registrar may give the role admin.
    RegistrarMakesAdmins,
    /// A registrar may give roles on what it is not registrar of.
    RegistrarAnywhere,
    /// A right on some fields is one on all of them.
    FieldsIgnored,
    /// Who declares nothing touches no field that is withheld.
    UndeclaredTouchesNothing,
    /// What is above a withheld field may be written.
    WithheldMayBeShadowed,
    /// The first declared field stands for all.
    FirstFieldSuffices,
    /// Who has some fields may give all of them.
    FieldsNotContained,
    /// Whoever has a grant somewhere erases documents everywhere.
    ErasesWithoutRight,
    /// The right to erase one of the documents is enough for all.
    FirstErasureSuffices,
    /// Who has the right on some fields of a document erases all of it.
    ErasesByFields,
    /// A document is erased by an act that does not count.
    ErasedByWhatIsCut,
    /// Whoever has a certificate says that erasures are carried out.
    AnybodyTells,
    /// A receipt is about any act.
    TellsOfAnything,
    /// A change of owners leaves the keys before as they were.
    SuccessionCutsNothing,
    /// One recovery key is enough, whatever the threshold.
    OneRecoveryKeySuffices,
    /// Any key is a recovery key.
    AnyKeyRecovers,
    /// Recovery keys may do what owners may.
    RecoveryKeysAct,
    /// All changes after one act count.
    AllSuccessionsCount,
    /// A change counts also after one that does not.
    SuccessionOfVoid,
    /// A fork of a recovery key's stream closes it.
    RecoveryForkCloses,
    /// New owners need as many as the first ones.
    FirstThresholdStays,
    /// Owners of another set consent.
    ForeignConsent,
    /// What an owner consents to counts though the owner is cut.
    CutConsent,
    /// What witnesses say decides nothing.
    EvidenceIgnored,
    /// What witnesses say goes before the pins of revocations.
    EvidenceBeforePins,
    /// Whoever has a certificate gives evidence.
    AnybodyIsWitness,
    /// Every witness counts alone.
    QuorumIgnored,
    /// Witnesses decide about streams as strong as they are.
    EvidenceOfEquals,
    /// Each evidence counts, and not each witness.
    WitnessCountsTwice,
    /// Who saw both branches counts for the longer one.
    EquivocatorCounts,
    /// Evidence of a chain that is not here is left out.
    MissingEvidenceIgnored,
    /// A key is a witness of its own forks.
    WitnessInOwnCause,
    /// Evidence counts that is cut.
    CutEvidenceCounts,
    /// The branch that is kept reaches as far as the furthest of its witnesses saw.
    FurthestWitnessSuffices,
    /// What goes on from the branch that is kept counts too.
    EvidenceHasNoEnd,
    /// An owner withdraws what another one asked for.
    WithdrawsForOthers,
    /// Whoever has a certificate shares peppers.
    AnybodySharesPeppers,
    /// Of branches with as many witnesses that with the greater hash is kept.
    GreaterHashWins,
}

#[cfg(any(test, feature = "planted-bugs"))]
impl Mutant {
    /// Those that the two implementations can both have.
    pub const ALL: [Self; 72] = [
        Self::RankNotChecked,
        Self::CausalRevocation,
        Self::PinsIgnoreForks,
        Self::StrengthIsStrongest,
        Self::EqualsRevoke,
        Self::GrantNeedNotBeKnown,
        Self::PinWithoutHash,
        Self::ForkIgnored,
        Self::ConcurrentRegrantWins,
        Self::NoAttenuation,
        Self::ThresholdIgnored,
        Self::ExpiryIgnored,
        Self::MissingPinTrusted,
        Self::CascadeIgnored,
        Self::CertifyAnybody,
        Self::ReadmitOneself,
        Self::PinEndsAtSession,
        Self::EarlierPinIgnored,
        Self::AnyPinDecides,
        Self::DutyIgnored,
        Self::DutyTargetIgnored,
        Self::AttestIgnored,
        Self::IntroductionIgnored,
        Self::RoleIgnored,
        Self::JoinIgnored,
        Self::OwnIsAll,
        Self::DocumentsIgnored,
        Self::NarrowAdminIsAdmin,
        Self::RoleOutsideProof,
        Self::JoinOutsideProof,
        Self::GroupsNest,
        Self::GroupHasKeys,
        Self::WardenAnytime,
        Self::RegistrarForever,
        Self::RegistrarMakesAdmins,
        Self::RegistrarAnywhere,
        Self::FieldsIgnored,
        Self::UndeclaredTouchesNothing,
        Self::WithheldMayBeShadowed,
        Self::FirstFieldSuffices,
        Self::FieldsNotContained,
        Self::AllSuccessionsCount,
        Self::AnyKeyRecovers,
        Self::AnybodyTells,
        Self::CutConsent,
        Self::ErasedByWhatIsCut,
        Self::ErasesByFields,
        Self::ErasesWithoutRight,
        Self::FirstErasureSuffices,
        Self::FirstThresholdStays,
        Self::ForeignConsent,
        Self::OneRecoveryKeySuffices,
        Self::RecoveryForkCloses,
        Self::RecoveryKeysAct,
        Self::SuccessionCutsNothing,
        Self::SuccessionOfVoid,
        Self::TellsOfAnything,
        Self::EvidenceIgnored,
        Self::EvidenceBeforePins,
        Self::AnybodyIsWitness,
        Self::QuorumIgnored,
        Self::EvidenceOfEquals,
        Self::WitnessCountsTwice,
        Self::EquivocatorCounts,
        Self::MissingEvidenceIgnored,
        Self::WitnessInOwnCause,
        Self::CutEvidenceCounts,
        Self::FurthestWitnessSuffices,
        Self::EvidenceHasNoEnd,
        Self::GreaterHashWins,
        Self::AnybodySharesPeppers,
        Self::WithdrawsForOthers,
    ];
}

/// Which of the two implementations is broken.
#[cfg_attr(not(any(test, feature = "planted-bugs")), expect(dead_code, reason = "nothing is ever planted"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Site {
    /// [`super::Authority`].
    Engine,
    /// [`super::reference`].
    Reference,
    /// Both, alike: the two agree, and only a test that knows better notices.
    Both,
}

#[cfg(any(test, feature = "planted-bugs"))]
mod switch {
    use std::cell::Cell;

    use super::{Mutant, Site};

    thread_local! {
        static PLANTED: Cell<Option<(Site, Mutant)>> = const { Cell::new(None) };
    }

    /// Breaks the rule on this thread, or mends it.
    pub fn plant(what: Option<(Site, Mutant)>) {
        PLANTED.set(what);
    }

    pub(in crate::authority) fn planted(site: Site, mutant: Mutant) -> bool {
        PLANTED.get().is_some_and(|(at, what)| what == mutant && (at == site || at == Site::Both))
    }
}

#[cfg(any(test, feature = "planted-bugs"))]
pub use switch::plant;
#[cfg(any(test, feature = "planted-bugs"))]
pub(super) use switch::planted;

#[cfg(not(any(test, feature = "planted-bugs")))]
pub(super) const fn planted(_: Site, _: Mutant) -> bool {
    false
}
