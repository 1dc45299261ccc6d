//! Admission of many changes at once: the static part for each, then one clone, one apply and one read-back for all.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, AutomergeError, Change, ReadDoc};

use super::check::{Checker, Member, Rejection, base_path, decode, located};
use super::{Admission, Candidate, GateError, Hold, Scan, all_places, guarded, prescan};
use crate::document::native::{change_hash, native_hash};
use crate::id::ChangeHash;
use crate::op::WriteAction;

/// Changes that share one clone and one apply: the cost of a clone is spread thinly enough, and the table of ancestors
/// inside the batch stays below 32 KiB.
const BATCH_MAX: usize = 512;

/// What a batch led to.
pub(in crate::document) struct Outcome {
    /// One answer for each candidate, in their order.
    pub(in crate::document) admissions: Vec<Admission>,
    /// The document with what was admitted, if anything was.
    pub(in crate::document) doc: Option<Automerge>,
    /// What was admitted, each after those that it depends on.
    pub(in crate::document) changes: Vec<Change>,
}

/// Offers changes to a document, which is not touched. The order of the candidates does not matter.
pub(in crate::document) fn admit(doc: &Automerge, candidates: &[Candidate<'_>]) -> Outcome {
    let mut run =
        Run { original: doc, current: None, answers: BTreeMap::new(), refused: BTreeSet::new(), changes: Vec::new() };
    let mut offered: BTreeMap<ChangeHash, Offer<'_>> = BTreeMap::new();
    // Which answer each candidate gets; a second offer of the same change waits for the first one's answer.
    let mut answers: Vec<Result<ChangeHash, Admission>> = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        answers.push(match scan(candidate) {
            Err(error) => Err(Admission::Bad(error)),
            Ok(scan) if doc.get_change_meta_by_hash(&native_hash(&scan.hash)).is_some() => {
                Err(known(doc, &scan, candidate))
            }
            Ok(scan) => {
                let hash = scan.hash;
                offered.entry(hash).or_insert(Offer { scan, candidate });
                Ok(hash)
            }
        });
    }
    for batch in in_dependency_order(&offered).chunks(BATCH_MAX) {
        run.batch(&offered, batch);
    }
    let mut told = BTreeSet::new();
    let admissions = answers
        .into_iter()
        .map(|answer| match answer {
            Err(answer) => answer,
            Ok(hash) => match run.answers.get(&hash) {
                None => Admission::Known(hash),
                Some(Admission::Admitted(_)) if !told.insert(hash) => Admission::Known(hash),
                Some(answer) => answer.clone(),
            },
        })
        .collect();
    Outcome { admissions, doc: run.current, changes: run.changes }
}

struct Offer<'a> {
    scan: Scan,
    candidate: &'a Candidate<'a>,
}

/// A change that is here: another header brought it, and this one may declare other fields.
fn known(doc: &Automerge, scan: &Scan, candidate: &Candidate<'_>) -> Admission {
    let Some(fields) = candidate.fields else { return Admission::Known(scan.hash) };
    let fits = guarded(|| {
        let change = decode(scan, candidate.bytes)?;
        let operations = change.decode().operations;
        let ids = located(&operations, change.start_op().get(), change.actor_id());
        Ok(all_places(ids, |object| base_path(doc, object), |place| fields.lead_to(place)))
    });
    match fits {
        Ok(Ok(true)) => Admission::Known(scan.hash),
        Ok(Ok(false)) => Admission::Bad(GateError::Fields),
        Ok(Err(error)) => Admission::Bad(error),
        Err(panic) => Admission::Held(Hold::Panicked(panic)),
    }
}

/// What the bytes and the header alone show.
pub(in crate::document) fn scan(candidate: &Candidate<'_>) -> Result<Scan, GateError> {
    let scan = prescan(candidate.bytes)?;
    if scan.actor != candidate.actor {
        return Err(GateError::Actor);
    }
    let fits = match candidate.action {
        WriteAction::Create => scan.deps.is_empty(),
        WriteAction::Update => !scan.deps.is_empty(),
        WriteAction::Delete => false,
    };
    if fits { Ok(scan) } else { Err(GateError::Action) }
}

/// Each after those that it depends on; ties by hash, so that the order of arrival shows nowhere.
fn in_dependency_order(offered: &BTreeMap<ChangeHash, Offer<'_>>) -> Vec<ChangeHash> {
    let mut waits: BTreeMap<ChangeHash, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
    let mut ready = BTreeSet::new();
    for (hash, offer) in offered {
        let inside: Vec<_> = offer.scan.deps.iter().filter(|dep| offered.contains_key(dep)).collect();
        if inside.is_empty() {
            ready.insert(*hash);
        } else {
            waits.insert(*hash, inside.len());
        }
        for dep in inside {
            dependents.entry(*dep).or_default().push(*hash);
        }
    }
    let mut order = Vec::with_capacity(offered.len());
    while let Some(hash) = ready.pop_first() {
        order.push(hash);
        for dependent in dependents.remove(&hash).unwrap_or_default() {
            if let Some(count) = waits.get_mut(&dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(dependent);
                }
            }
        }
    }
    order
}

struct Run<'a> {
    original: &'a Automerge,
    current: Option<Automerge>,
    answers: BTreeMap<ChangeHash, Admission>,
    /// Members that passed the static part and were not taken in the end.
    refused: BTreeSet<automerge::ChangeHash>,
    changes: Vec<Change>,
}

impl Run<'_> {
    fn doc(&self) -> &Automerge {
        self.current.as_ref().unwrap_or(self.original)
    }

    fn batch(&mut self, offered: &BTreeMap<ChangeHash, Offer<'_>>, batch: &[ChangeHash]) {
        let mut answers = Vec::new();
        let mut checker = Checker::new(self.doc());
        for hash in batch {
            let Some(offer) = offered.get(hash) else {
                continue;
            };
            let answer = match guarded(|| checker.check(&offer.scan, offer.candidate)) {
                Ok(Ok(())) => continue,
                Ok(Err(Rejection::Bad(error))) => Admission::Bad(error),
                Ok(Err(Rejection::MissingDeps(missing))) => Admission::MissingDeps(missing),
                Ok(Err(Rejection::SequenceTaken(by))) => Admission::Held(Hold::SequenceTaken(by)),
                Err(panic) => Admission::Held(Hold::Panicked(panic)),
            };
            answers.push((*hash, answer));
        }
        let members = checker.into_members();
        self.answers.extend(answers);
        self.apply(&members);
    }

    /// Applies members, halving them where they cannot be applied together.
    fn apply(&mut self, members: &[Member]) {
        let mut live: Vec<&Member> = Vec::with_capacity(members.len());
        for member in members {
            let missing: Vec<_> = member.change.deps().iter().filter(|dep| self.refused.contains(dep)).collect();
            if missing.is_empty() {
                live.push(member);
            } else {
                let answer = Admission::MissingDeps(missing.into_iter().map(change_hash).collect());
                self.refuse(member, answer);
            }
        }
        if live.is_empty() {
            return;
        }
        match guarded(|| applied(self.doc(), &live)).unwrap_or_else(|panic| Err(Hold::Panicked(panic))) {
            Ok(doc) => {
                self.current = Some(doc);
                for member in live {
                    let hash = change_hash(&member.change.hash());
                    self.answers.insert(hash, Admission::Admitted(hash));
                    self.changes.push(member.change.clone());
                }
            }
            Err(hold) => match live.as_slice() {
                [member] => {
                    let answer = self.explain(member, hold);
                    self.refuse(member, answer);
                }
                _ => {
                    let (first, second) = members.split_at(members.len() / 2);
                    self.apply(first);
                    self.apply(second);
                }
            },
        }
    }

    fn refuse(&mut self, member: &Member, answer: Admission) {
        let hash = member.change.hash();
        self.refused.insert(hash);
        self.answers.insert(change_hash(&hash), answer);
    }

    /// A sequence number that the change's own ancestors use is a fault of the change; one that a concurrent change
    /// uses says only that the actor forked. No version of Automerge can hold both.
    fn explain(&self, member: &Member, hold: Hold) -> Admission {
        let Hold::SequenceTaken(_) = hold else {
            return Admission::Held(hold);
        };
        let same = |meta: &automerge::ChangeMetadata<'_>| {
            *meta.actor == *member.change.actor_id() && meta.seq == member.change.seq()
        };
        let Some(other) = self.doc().get_changes_meta(&[]).into_iter().find(same).map(|meta| meta.hash) else {
            return Admission::Held(hold);
        };
        let deps = member.change.deps();
        let concurrent = deps.is_empty() || self.doc().get_changes_meta(deps).iter().any(|meta| meta.hash == other);
        if concurrent {
            Admission::Held(Hold::SequenceTaken(change_hash(&other)))
        } else {
            Admission::Bad(GateError::Sequence)
        }
    }
}

/// The applied part.
fn applied(doc: &Automerge, members: &[&Member]) -> Result<Automerge, Hold> {
    let mut next = doc.clone();
    let before = next.get_heads();
    next.apply_changes(members.iter().map(|member| member.change.clone())).map_err(|error| match error {
        AutomergeError::DuplicateSeqNumber(..) => Hold::SequenceTaken(ChangeHash::ZERO),
        error => Hold::Refused(error.to_string()),
    })?;
    match members {
        [member] => {
            let back = next.get_change_by_hash(&member.change.hash());
            if back.is_none_or(|back| back.raw_bytes() != member.change.raw_bytes()) {
                return Err(Hold::ReadBack);
            }
        }
        _ => {
            let back = next.get_changes(&before);
            let back: BTreeMap<_, _> = back.iter().map(|change| (change.hash(), change.raw_bytes())).collect();
            let same = |member: &&Member| back.get(&member.change.hash()) == Some(&member.change.raw_bytes());
            if !members.iter().all(same) {
                return Err(Hold::ReadBack);
            }
        }
    }
    if members.iter().any(|member| member.marks) {
        let again = Automerge::load(&next.save()).map_err(|_| Hold::Reload)?;
        if again.get_heads() != next.get_heads() {
            return Err(Hold::Reload);
        }
    }
    Ok(next)
}
