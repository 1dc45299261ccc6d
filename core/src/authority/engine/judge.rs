//! How a transaction is judged.

use super::Subject;
use super::log::{ActIx, Log};
use super::rights::{Need, Right, needs};
use crate::authority::mutant::{Mutant, Site, planted};
use crate::authority::verdict::Verdict;
use crate::hlc::Hlc;
use crate::id::CollectionName;
use crate::op::{Act, ChangeRef, Header, Transaction};

/// Returns whether a statement has not ended when the op was made.
pub(super) fn lasts(end: Option<Hlc>, header: &Header) -> bool {
    end.is_none_or(|end| header.hlc <= end) || planted(Site::Engine, Mutant::ExpiryIgnored)
}

pub(super) fn judge_transaction(
    log: &Log,
    subject: &Subject<'_>,
    header: &Header,
    transaction: &Transaction,
) -> Verdict {
    let knows = |ix: ActIx| subject.past.contains(log.act(ix).place);
    let certificate = log.find(header.certificate).filter(|ix| {
        knows(*ix) && log.act(*ix).statement().is_some_and(|statement| lasts(statement.not_after, header))
    });
    let speaks = certificate.and_then(|ix| Some((ix, log.certified(ix, header.author)?)));
    let Some((certificate, signer)) = speaks else { return Verdict::NotAllowed };
    let (principal, changes) = (transaction.principal, &transaction.changes);
    let counts = |right: &Right<'_>| {
        let known = |ix| knows(ix) || planted(Site::Engine, Mutant::GrantNeedNotBeKnown);
        let in_time = |ix| log.act(ix).statement().is_some_and(|statement| lasts(statement.not_after, header));
        right.parts().all(|part| known(part) && in_time(part))
    };
    let mut introduction = None;
    let mut claims: Vec<Vec<Right<'_>>> = Vec::new();
    if principal != signer && !planted(Site::Engine, Mutant::DutyIgnored) {
        // Somebody else's, who has agreed to that.
        let attested = log.introduction(principal).filter(|(ix, introduced)| {
            knows(*ix) && (introduced.attest || planted(Site::Engine, Mutant::AttestIgnored))
        });
        let Some((ix, _)) = attested else { return Verdict::NotAllowed };
        introduction = Some(ix).filter(|_| !planted(Site::Engine, Mutant::IntroductionIgnored));
        claims.push(log.duties_to_act(signer).filter(counts).collect());
    }
    claims.push(log.rights_of(principal).filter(counts).collect());
    let collection = header.collection();
    let gives = |rights: &[Right<'_>], need| rights.iter().any(|right| right.gives(collection, need));
    if claims.iter().any(|rights| needs(changes).any(|need| !gives(rights, need))) {
        return Verdict::NotAllowed;
    }
    if let Some(blame) = std::iter::once(certificate).chain(introduction).find_map(|ix| log.blame(ix, subject)) {
        return blame;
    }
    let cut = claims.iter().find_map(|rights| what_is_cut(log, subject, rights, collection, changes));
    cut.or_else(|| log.fork_blame(certificate, subject)).unwrap_or(Verdict::Allowed)
}

/// Returns the verdict if revocations leave too little of rights that together gave all that is needed.
fn what_is_cut(
    log: &Log,
    subject: &Subject<'_>,
    rights: &[Right<'_>],
    collection: &CollectionName,
    changes: &[ChangeRef],
) -> Option<Verdict> {
    let blame = |right: &Right<'_>| {
        right.parts().find_map(|part| log.blame(part, subject).filter(|_| !is_overlooked(log, part)))
    };
    let blames: Vec<Option<Verdict>> = rights.iter().map(blame).collect();
    let left = || rights.iter().zip(&blames).filter(|(_, blame)| blame.is_none()).map(|(right, _)| right);
    let lacking: Vec<Need<'_>> =
        needs(changes).filter(|need| !left().any(|right| right.gives(collection, *need))).collect();
    if lacking.is_empty() {
        return None;
    }
    // What waits may still be allowed without a further act, so it goes before what is cut.
    let guilty = || {
        let gave =
            rights.iter().zip(&blames).filter(|(right, _)| lacking.iter().any(|need| right.gives(collection, *need)));
        gave.filter_map(|(_, blame)| *blame)
    };
    let waits = guilty().find(|blame| matches!(blame, Verdict::Deferred(_)));
    Some(waits.or_else(|| guilty().next()).unwrap_or(Verdict::NotAllowed))
}

/// Planted bugs.
fn is_overlooked(log: &Log, part: ActIx) -> bool {
    match log.act(part).act() {
        Some(Act::Role(_)) => planted(Site::Engine, Mutant::RoleIgnored),
        Some(Act::Join(_)) => planted(Site::Engine, Mutant::JoinIgnored),
        _ => false,
    }
}
