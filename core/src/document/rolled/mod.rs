//! A document with a long history, without loading that history.
//!
//! Automerge keeps every change ever made in memory and reads all of them to load a document. A document is therefore
//! *rolled over* when its history has become long: the changes that every head knows, but for the latest, are *settled*,
//! and are [written again](compact) as few as they need be. Nobody has to agree on it. Operation ids stay, so each replica
//! rolls over when it likes and as far as it likes, under partition too, and all show the same; the signed changes remain
//! the document's history and are stored as before.
//!
//! The settled part and the changes since then form a document in a hash space of its own. A change whose operations are all
//! understood there, and which knows everything that is settled, has exactly the meaning that it has in the whole document;
//! any other one is left to the whole document, loaded for it: a straggler of a long partition, one that refers to a value
//! long overwritten, one that may be wrong. So what is decided about a change depends on its ancestors only, as ever.

mod compact;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::OpId;
use automerge::{ActorId, Automerge, Change, ChangeHash, ObjId, ReadDoc as _};

use self::compact::compact;
use super::direct::built_bytes;
use super::gate::{self, Admission, Candidate, Scan, guarded};
use super::native::{bare_change, native_hash, referred};
use super::view;
use crate::op::WriteAction;

/// Most settled changes that are no ancestors of each other: a bit each.
const ENDS_MAX: usize = 64;
/// Most heads of a document that is rolled over: a bit each.
const HEADS_MAX: usize = 64;

/// A document without its settled history.
#[derive(Clone)]
pub(super) struct Rolled {
    /// The settled part and the changes since, in a hash space of its own, with the operation ids of the signed one.
    doc: Automerge,
    /// What stands for the settled part there.
    tip: ChangeHash,
    /// The settled changes that are ancestors of no other settled one.
    ends: Vec<(ChangeHash, Place)>,
    /// The last settled change of each actor.
    last: BTreeMap<ActorId, (ChangeHash, Place)>,
    /// The changes since, by their signed hashes, each after those that it depends on.
    since: Vec<(ChangeHash, Since)>,
    index: BTreeMap<ChangeHash, usize>,
    /// The last change of each actor in the document's own hash space.
    own_last: BTreeMap<ActorId, (u64, ChangeHash)>,
    /// Changes of the signed history, settled ones included.
    count: usize,
    /// Bytes of the document when it was last encoded.
    bytes: usize,
}

/// Where a signed change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    seq: u64,
    /// The highest operation id of it and its ancestors.
    max_op: u64,
}

/// A change that is not settled.
#[derive(Clone, Debug)]
struct Since {
    actor: ActorId,
    place: Place,
    /// What stands for it.
    local: ChangeHash,
    /// Which of the ends are among its ancestors.
    knows: u64,
    /// Its dependencies that are not settled.
    deps: Vec<usize>,
}

/// A change that is to be put behind the settled part.
struct Translated {
    local: Change,
    since: Since,
}

/// The changes that are rolled over, each after those that it depends on.
struct Material {
    changes: Vec<Change>,
    /// Of each change what it is in the signed space; none for those that are settled already.
    signed: Vec<Option<Signed>>,
}

struct Signed {
    hash: ChangeHash,
    actor: ActorId,
    place: Place,
    deps: Vec<ChangeHash>,
}

impl Rolled {
    /// Rolls a whole document over; the last `unsettled` changes stay as they are. None if little would come of it: its
    /// heads have little in common.
    pub(super) fn of(full: &Automerge, unsettled: usize) -> Option<Self> {
        guarded(|| {
            let changes = full.get_changes(&[]);
            let signed = changes.iter().map(|change| {
                let max_op = full.get_change_meta_by_hash(&change.hash())?.max_op;
                let place = Place { seq: change.seq(), max_op };
                Some(Signed {
                    hash: change.hash(),
                    actor: change.actor_id().clone(),
                    place,
                    deps: change.deps().to_vec(),
                })
            });
            let signed = signed.collect();
            let count = changes.len();
            Self::roll(Material { changes, signed }, Vec::new(), BTreeMap::new(), &full.get_heads(), unsettled, count)
        })
        .unwrap_or_else(failed)
        .filter(|rolled| rolled.since.len() <= rolled.count / 2)
    }

    /// Rolls over once more, if there is something to be settled.
    pub(super) fn again(&self, heads: &[ChangeHash], unsettled: usize) -> Option<Self> {
        guarded(|| {
            let locals: BTreeMap<ChangeHash, usize> =
                self.since.iter().enumerate().map(|(at, (_, since))| (since.local, at)).collect();
            let changes = self.doc.get_changes(&[]);
            let of = |change: &Change| {
                let (hash, since) = self.since.get(*locals.get(&change.hash())?)?;
                let inner = since.deps.iter().filter_map(|at| self.since.get(*at)).map(|(hash, _)| *hash);
                let bits = self.ends.iter().enumerate().filter(|(bit, _)| since.knows & 1 << bit != 0);
                let deps = inner.chain(bits.map(|(_, (hash, _))| *hash)).collect();
                Some(Signed { hash: *hash, actor: since.actor.clone(), place: since.place, deps })
            };
            let signed = changes.iter().map(of).collect();
            let (ends, last) = (self.ends.clone(), self.last.clone());
            Self::roll(Material { changes, signed }, ends, last, heads, unsettled, self.count)
        })
        .unwrap_or_else(failed)
        .filter(|rolled| rolled.since.len() < self.since.len())
    }

    fn roll(
        material: Material,
        ends: Vec<(ChangeHash, Place)>,
        mut last: BTreeMap<ActorId, (ChangeHash, Place)>,
        heads: &[ChangeHash],
        unsettled: usize,
        count: usize,
    ) -> Option<Self> {
        let Material { changes, signed } = material;
        let common = known_to_all(&signed, heads)?;
        let signed_count = signed.iter().flatten().count();
        let mut left = signed_count.saturating_sub(unsettled);
        let mut settled = BTreeSet::new();
        let mut ends: BTreeMap<ChangeHash, Place> = ends.into_iter().collect();
        let mut rest = Vec::new();
        for (change, signed) in changes.iter().zip(&signed) {
            let Some(signed) = signed else {
                settled.insert(change.hash());
                continue;
            };
            let has_turn = left > 0;
            left = left.saturating_sub(1);
            if !has_turn || !common.contains(&signed.hash) {
                rest.push((change, signed));
                continue;
            }
            settled.insert(change.hash());
            for dep in &signed.deps {
                ends.remove(dep);
            }
            ends.insert(signed.hash, signed.place);
            last.insert(signed.actor.clone(), (signed.hash, signed.place));
        }
        if ends.is_empty() || ends.len() > ENDS_MAX {
            return None;
        }
        let top = ends.values().map(|place| place.max_op).max()?;
        let compacted = compact(&changes, &settled, top);
        let tip = compacted.changes.last()?.hash();
        let mut rolled = Self {
            doc: Automerge::new(),
            tip,
            ends: ends.into_iter().collect(),
            last,
            since: Vec::new(),
            index: BTreeMap::new(),
            own_last: compacted.last,
            count,
            bytes: 0,
        };
        let mut locals = Vec::with_capacity(rest.len());
        for (change, signed) in rest {
            let (deps, knows, inner) = rolled.known(&signed.deps);
            let local = rolled.local(change, deps);
            let since =
                Since { actor: signed.actor.clone(), place: signed.place, local: local.hash(), knows, deps: inner };
            rolled.note(signed.hash, since, &local);
            locals.push(local);
        }
        let given: Vec<Change> = compacted.changes.into_iter().chain(locals).collect();
        rolled.doc = view::from_changes(given.clone()).ok()?;
        let is_sound = has_taken(&rolled.doc, &given);
        debug_assert!(is_sound, "a document was rolled over into something else");
        if !is_sound {
            return None;
        }
        rolled.bytes = given.iter().map(|change| change.raw_bytes().len()).sum();
        Some(rolled)
    }

    /// Returns what stands here for those of some changes that are not settled, which ends they know, and which they are.
    fn known(&self, hashes: &[ChangeHash]) -> (BTreeSet<ChangeHash>, u64, Vec<usize>) {
        let (mut locals, mut knows, mut inner) = (BTreeSet::new(), 0, Vec::new());
        for hash in hashes {
            if let Some((at, (_, since))) = self.index.get(hash).and_then(|at| Some((*at, self.since.get(*at)?))) {
                locals.insert(since.local);
                knows |= since.knows;
                inner.push(at);
            } else if let Some(bit) = self.ends.iter().position(|(end, _)| end == hash) {
                knows |= 1 << bit;
            }
        }
        if locals.is_empty() {
            locals.insert(self.tip);
        }
        (locals, knows, inner)
    }

    /// Writes a change for this hash space.
    fn local(&self, change: &Change, mut deps: BTreeSet<ChangeHash>) -> Change {
        let own = self.own_last.get(change.actor_id());
        deps.extend(own.map(|(_, hash)| *hash));
        written(change, own.map_or(0, |(seq, _)| *seq), deps)
    }

    fn note(&mut self, hash: ChangeHash, since: Since, local: &Change) {
        self.own_last.insert(since.actor.clone(), (local.seq(), since.local));
        self.index.insert(hash, self.since.len());
        self.since.push((hash, since));
    }

    const fn knows_all(&self) -> u64 {
        u64::MAX >> (64 - self.ends.len())
    }

    /// Returns the last signed change of an actor.
    fn last_of(&self, actor: &ActorId) -> Option<(ChangeHash, Place)> {
        let since = self.since.iter().rev().find(|(_, since)| since.actor == *actor);
        since.map(|(hash, since)| (*hash, since.place)).or_else(|| self.last.get(actor).copied())
    }

    /// Returns where a change stands, if it is an end or not settled.
    fn place(&self, hash: &ChangeHash) -> Option<Place> {
        let since = self.index.get(hash).and_then(|at| self.since.get(*at)).map(|(_, since)| since.place);
        since.or_else(|| self.ends.iter().find(|(end, _)| end == hash).map(|(_, place)| *place))
    }

    /// Translates a signed change, if what it depends on is understood here and its numbers are right.
    fn translate(&self, change: &Change) -> Option<Translated> {
        let last = self.last_of(change.actor_id());
        let mut top = 0;
        for dep in change.deps() {
            let place = self.place(dep).or_else(|| last.filter(|(hash, _)| hash == dep).map(|(_, place)| place))?;
            top = top.max(place.max_op);
        }
        let follows_own = match last {
            None => change.seq() == 1,
            Some((hash, place)) => change.seq() == place.seq + 1 && change.deps().contains(&hash),
        };
        let (deps, knows, inner) = self.known(change.deps());
        if !follows_own || change.start_op().get() != top.saturating_add(1) || knows != self.knows_all() {
            return None;
        }
        let local = self.local(change, deps);
        let max_op = if change.is_empty() { top } else { change.max_op() };
        let place = Place { seq: change.seq(), max_op };
        let since = Since { actor: change.actor_id().clone(), place, local: local.hash(), knows, deps: inner };
        Some(Translated { local, since })
    }

    /// Takes changes that passed the gate before, each after those that it depends on. None if one of them is not
    /// understood here.
    pub(super) fn with_stored(mut self, changes: &[(Scan, &[u8])]) -> Option<Self> {
        guarded(|| {
            let mut locals: Vec<Change> = Vec::with_capacity(changes.len());
            for (scan, bytes) in changes {
                let translated = self.translate(&Change::try_from(*bytes).ok()?)?;
                if !self.has_all_of(&translated.local, &locals) {
                    return None;
                }
                self.note(native_hash(&scan.hash), translated.since, &translated.local);
                locals.push(translated.local);
            }
            self.count += changes.len();
            view::apply_all(&mut self.doc, locals).ok().map(|()| self)
        })
        .ok()?
    }

    /// Whether all that a change refers to is in the document, in `others` or in the change itself: one that the whole
    /// document took may refer to what has been dropped here.
    fn has_all_of(&self, change: &Change, others: &[Change]) -> bool {
        let has = |id: &OpId| {
            let made = others.iter().chain([change]).any(|made| {
                let start = made.start_op().get();
                made.actor_id() == id.actor() && (start..start + made.len() as u64).contains(&id.counter())
            });
            made || self.doc.hash_for_opid(&ObjId::Id(id.counter(), id.actor().clone(), 0)).is_some()
        };
        change.decode().operations.iter().flat_map(referred).all(has)
    }

    /// Offers changes, each after those that it depends on, and takes all of them if they are good. None, and nothing has
    /// changed, if the whole document has to be asked.
    pub(super) fn admit(&mut self, changes: &[(Scan, Candidate<'_>)]) -> Option<()> {
        let known = self.since.len();
        let own_last: Vec<_> = changes
            .iter()
            .map(|(scan, _)| ActorId::from(scan.actor.as_bytes().as_slice()))
            .map(|actor| (self.own_last.get(&actor).copied(), actor))
            .collect();
        let doc = guarded(|| {
            let mut locals = Vec::with_capacity(changes.len());
            for (scan, candidate) in changes {
                let change = gate::decode(scan, candidate.bytes).ok().filter(is_canonical)?;
                let translated = self.translate(&change)?;
                self.note(change.hash(), translated.since, &translated.local);
                locals.push((translated.local, candidate));
            }
            let offered: Vec<_> = locals
                .iter()
                .map(|(local, signed)| Candidate {
                    bytes: local.raw_bytes(),
                    actor: signed.actor,
                    action: WriteAction::Update,
                    fields: signed.fields,
                })
                .collect();
            let outcome = gate::admit(&self.doc, &offered);
            outcome.admissions.iter().all(|answer| matches!(answer, Admission::Admitted(_))).then_some(outcome.doc?)
        });
        if let Ok(Some(doc)) = doc {
            self.doc = doc;
            self.count += changes.len();
            return Some(());
        }
        for (hash, _) in self.since.drain(known..) {
            self.index.remove(&hash);
        }
        for (before, actor) in own_last {
            match before {
                Some(last) => drop(self.own_last.insert(actor, last)),
                None => drop(self.own_last.remove(&actor)),
            }
        }
        None
    }

    /// Makes the document ready to be edited by `actor`; returns whether a change made there can be signed: it knows all that is
    /// settled, and operation ids go on from the same number as in the whole document.
    pub(super) fn begin_edit(&mut self, actor: &ActorId, heads: &[ChangeHash]) -> bool {
        let own = self.last_of(actor).map(|(_, place)| place.max_op);
        let tops = heads.iter().map(|head| self.place(head).map(|place| place.max_op));
        let Some(tops) = tops.collect::<Option<Vec<_>>>() else { return false };
        let top = tops.into_iter().chain(own).max();
        let local_heads = self.doc.get_heads();
        let local_tops = local_heads.iter().filter_map(|head| self.doc.get_change_meta_by_hash(head));
        let knows = self.known(heads).1;
        if top.is_none() || local_tops.map(|meta| meta.max_op).max() != top || knows != self.knows_all() {
            return false;
        }
        self.doc.set_actor(actor.clone());
        true
    }

    pub(super) const fn doc_mut(&mut self) -> &mut Automerge {
        &mut self.doc
    }

    /// Turns a change that was made in the document just now into the one to sign.
    pub(super) fn signed(&self, local: &Change, heads: &[ChangeHash]) -> Change {
        let last = self.last_of(local.actor_id());
        let deps: BTreeSet<ChangeHash> = heads.iter().copied().chain(last.map(|(hash, _)| hash)).collect();
        written(local, last.map_or(0, |(_, place)| place.seq), deps)
    }

    /// Notes a change that was made in the document as `local`.
    pub(super) fn keep(&mut self, signed: &Change, local: &Change) {
        let (_, knows, inner) = self.known(signed.deps());
        let place = Place { seq: signed.seq(), max_op: signed.max_op() };
        let since = Since { actor: signed.actor_id().clone(), place, local: local.hash(), knows, deps: inner };
        self.note(signed.hash(), since, local);
        self.count += 1;
    }

    /// Returns the heads of the signed document.
    pub(super) fn heads(&self) -> Vec<ChangeHash> {
        let mut is_below = vec![false; self.since.len()];
        let mut knows = 0;
        for (_, since) in &self.since {
            knows |= since.knows;
            for dep in &since.deps {
                if let Some(is_below) = is_below.get_mut(*dep) {
                    *is_below = true;
                }
            }
        }
        let since = self.since.iter().zip(is_below).filter(|(_, is_below)| !is_below).map(|((hash, _), _)| *hash);
        let ends = self.ends.iter().enumerate().filter(|(bit, _)| knows & 1 << bit == 0).map(|(_, (hash, _))| *hash);
        let mut heads: Vec<_> = since.chain(ends).collect();
        heads.sort_unstable();
        heads
    }

    pub(super) const fn doc(&self) -> &Automerge {
        &self.doc
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn unsettled(&self) -> usize {
        self.since.len()
    }

    /// Returns whether a change is known to be in it; settled ones are not all known.
    pub(super) fn has(&self, hash: &ChangeHash) -> bool {
        self.place(hash).is_some()
    }

    /// Translates heads for reads of the past. None if the whole document has to be asked.
    pub(super) fn at(&self, heads: &[ChangeHash]) -> Option<Vec<ChangeHash>> {
        if heads.iter().any(|head| !self.has(head)) {
            return None;
        }
        let (locals, knows, _) = self.known(heads);
        (knows == self.knows_all()).then(|| locals.into_iter().collect())
    }

    /// Returns whether all `heads` are among `named` changes and their ancestors.
    pub(super) fn are_covered(&self, heads: &[ChangeHash], named: &BTreeSet<ChangeHash>) -> bool {
        let mut covered = vec![false; self.since.len()];
        let mut knows = 0;
        for (at, (hash, since)) in self.since.iter().enumerate().rev() {
            if named.contains(hash)
                && let Some(covered) = covered.get_mut(at)
            {
                *covered = true;
            }
            if covered.get(at) == Some(&true) {
                knows |= since.knows;
                for dep in &since.deps {
                    if let Some(covered) = covered.get_mut(*dep) {
                        *covered = true;
                    }
                }
            }
        }
        heads.iter().all(|head| {
            if let Some(at) = self.index.get(head) {
                return covered.get(*at) == Some(&true);
            }
            let end = self.ends.iter().position(|(end, _)| end == head);
            end.is_some_and(|bit| named.contains(head) || knows & 1 << bit != 0)
        })
    }

    /// Estimates the memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        built_bytes(self.doc.stats().num_changes as usize)
            + self.bytes
            + self.since.len() * (size_of::<Since>() + 128)
            + (self.last.len() + self.own_last.len()) * 160
    }
}

/// Writes a change again for another hash space, as its actor's next behind number `last`.
fn written(change: &Change, last: u64, deps: BTreeSet<ChangeHash>) -> Change {
    let (actor, top) = (change.actor_id().clone(), change.start_op().get() - 1);
    Change::from(bare_change(actor, last + 1, top, change.decode().operations, deps))
}

/// Whether a change has the one form that Automerge writes.
fn is_canonical(change: &Change) -> bool {
    let again = Change::from(change.decode());
    again.raw_bytes() == change.raw_bytes()
}

/// A document that cannot be rolled over stays as it is. That it cannot is a fault here.
fn failed<T>(panic: String) -> Option<T> {
    debug_assert!(false, "roll a document over: {panic}");
    None
}

/// Whether a document gives back just the changes that it was given: the check that the gate makes of changes from outside.
fn has_taken(doc: &Automerge, given: &[Change]) -> bool {
    let taken: BTreeMap<ChangeHash, Change> =
        doc.get_changes(&[]).into_iter().map(|change| (change.hash(), change)).collect();
    taken.len() == given.len()
        && given
            .iter()
            .all(|change| taken.get(&change.hash()).is_some_and(|taken| taken.raw_bytes() == change.raw_bytes()))
}

/// Returns the changes that all heads know, the heads themselves included where there is one only. None if there are too
/// many heads.
fn known_to_all(signed: &[Option<Signed>], heads: &[ChangeHash]) -> Option<BTreeSet<ChangeHash>> {
    if heads.is_empty() || heads.len() > HEADS_MAX {
        return None;
    }
    let all = u64::MAX >> (64 - heads.len());
    let mut known: BTreeMap<ChangeHash, u64> = heads.iter().enumerate().map(|(bit, head)| (*head, 1 << bit)).collect();
    let mut common = BTreeSet::new();
    for signed in signed.iter().rev().flatten() {
        let Some(by) = known.remove(&signed.hash) else { continue };
        if by == all {
            common.insert(signed.hash);
        }
        for dep in &signed.deps {
            *known.entry(*dep).or_insert(0) |= by;
        }
    }
    Some(common)
}
