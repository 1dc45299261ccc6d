//! Offering transactions to the documents that they touch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Replica;
use super::materialise::{Offered, Void, Work};
use super::records::{DeleteRecord, TxRef};
use super::waits::Number;
use crate::document::{Admission, Candidate, Document, Hold, gate};
use crate::id::{ActorId, ChangeHash};
use crate::op::{Body, Delete, FieldPaths, Op, WriteAction};
use crate::store::keys::DocKey;

/// What the gate says of one transaction.
pub(super) enum Gated {
    Passed,
    /// These changes are not in the document's history.
    Missing(Vec<ChangeHash>),
    /// An earlier transaction of its stream gave a change the same number.
    Behind(TxRef),
    /// A body is not here.
    Bodiless,
    Bad(String),
    Held(String),
}

/// The change of a transaction that touches one document.
struct Offer {
    tx: TxRef,
    op: Arc<Op>,
    action: WriteAction,
    actor: ActorId,
    body: Body,
    /// The change's name, if it rightly has one.
    hash: Option<ChangeHash>,
    void: Void,
}

impl Offer {
    /// Returns the fields that the header declares.
    fn fields(&self) -> Option<&FieldPaths> {
        let transaction = self.op.header().transactions().get(usize::from(self.tx.tx))?;
        transaction.changes.first()?.fields.as_ref()
    }
}

impl Replica {
    /// Offers single-document transactions of one document to its gate.
    pub(super) fn apply_to_document(&mut self, key: &DocKey, works: Offered) {
        if self.is_erased(key) {
            for (work, void) in works {
                self.conclude(&work.op, work.tx, void, Gated::Passed);
            }
            return;
        }
        if let Err(error) = self.ensure_loaded(key) {
            let reason = error.to_string();
            for (work, void) in works {
                self.conclude(&work.op, work.tx, void, Gated::Held(reason.clone()));
            }
            return;
        }
        // One change alone, where nothing waits and nothing is void, needs no name before the gate gives it one.
        let is_void = self.cache.get(key).is_some_and(|loaded| !loaded.document.named_void().is_empty());
        let is_named =
            is_void || works.len() > 1 || !self.is_nothing_claimed() || works.iter().any(|(_, void)| void.is_some());
        let mut offers: Vec<Offer> = Vec::with_capacity(works.len());
        let mut numbers: BTreeMap<(ActorId, u64), TxRef> = BTreeMap::new();
        for (work, void) in works {
            let Some((transaction, bodies)) = work.transaction() else { continue };
            let (Some(change), Some(body)) = (transaction.changes.first(), bodies.first()) else { continue };
            let Some(body) = body.clone() else {
                self.conclude(&work.op, work.tx, void, Gated::Bodiless);
                continue;
            };
            let action = change.action;
            let actor = work.op.header().stream_key().actor(&transaction.principal, &key.doc);
            let mut hash = None;
            if is_named
                && action != WriteAction::Delete
                && let Ok(scan) = gate::prescan(&body.bytes)
                && scan.actor == actor
            {
                let before = numbers.get(&(actor, scan.seq)).copied();
                let number = Number { doc: key.clone(), actor, seq: scan.seq };
                if let Some(earlier) = before.or_else(|| self.taken_by_earlier(&number, &scan.hash, work.tx)) {
                    self.conclude(&work.op, work.tx, void, Gated::Behind(earlier));
                    continue;
                }
                numbers.insert((actor, scan.seq), work.tx);
                hash = Some(scan.hash);
            }
            offers.push(Offer { tx: work.tx, op: work.op, action, actor, body, hash, void });
        }
        let changes = offers.iter().filter(|offer| offer.action != WriteAction::Delete);
        let candidates: Vec<Candidate<'_>> = changes
            .map(|offer| Candidate {
                bytes: &offer.body.bytes,
                actor: offer.actor,
                action: offer.action,
                fields: offer.fields(),
            })
            .collect();
        let Some(loaded) = self.cache.get(key) else { return };
        let mut void: BTreeSet<ChangeHash> = loaded.document.void_changes().clone();
        for (hash, is_void) in offers.iter().filter_map(|offer| Some((offer.hash?, offer.void.is_some()))) {
            if is_void {
                void.insert(hash);
            } else {
                void.remove(&hash);
            }
        }
        // One that was void and has left since must not be so when it comes again.
        let view = if void == *loaded.document.named_void() { Ok(false) } else { loaded.document.set_void(void) };
        let mut is_changed = matches!(view, Ok(true));
        let mut admissions = match view {
            Ok(_) => loaded.document.admit(&candidates).into_iter(),
            Err(error) => {
                let reason = error.to_string();
                for offer in offers {
                    self.conclude(&offer.op, offer.tx, offer.void, Gated::Held(reason.clone()));
                }
                return;
            }
        };
        for offer in offers {
            let gated = if offer.action == WriteAction::Delete {
                self.gate_delete(key, &offer.op, offer.tx, &offer.body, &offer.void)
            } else {
                match admissions.next() {
                    Some(admission) => self.take_admission(key, &offer, admission),
                    None => Gated::Held("the gate gave no answer".to_owned()),
                }
            };
            is_changed |= matches!(gated, Gated::Passed);
            self.conclude(&offer.op, offer.tx, offer.void, gated);
        }
        // What only waits is written nowhere else.
        if is_changed {
            self.dirty(key);
        }
    }

    /// Returns the transaction that has a number, if it goes before `tx`: one that waits, or one that brought the very
    /// same change.
    fn taken_by_earlier(&mut self, number: &Number, hash: &ChangeHash, tx: TxRef) -> Option<TxRef> {
        if let Some(earlier) = self.claimed_earlier(number, tx) {
            return Some(earlier);
        }
        // Where it lies is asked first: a document with a long history has to load that to tell.
        let place = self.place_of(hash).filter(|place| *place != tx)?;
        self.cache.get(&number.doc)?.document.contains(hash).then_some(place)
    }

    /// Notes what the gate said of a change that stands alone.
    fn take_admission(&mut self, key: &DocKey, offer: &Offer, admission: Admission) -> Gated {
        if let Admission::Admitted(hash) = admission {
            self.keep_change(key, hash, (offer.tx, 0), &offer.body.bytes);
            if let Some(loaded) = self.cache.get(key) {
                loaded.times.insert(hash, offer.op.header().hlc);
            }
        }
        self.gated(admission, offer.tx)
    }

    /// Says what an answer of the gate means for a transaction.
    fn gated(&mut self, admission: Admission, tx: TxRef) -> Gated {
        match admission {
            Admission::Admitted(_) => Gated::Passed,
            // The very change that another transaction brought is that one's.
            Admission::Known(hash) => match self.place_of(&hash) {
                Some(place) if place != tx => Gated::Behind(place),
                Some(_) | None => Gated::Passed,
            },
            Admission::MissingDeps(missing) => Gated::Missing(missing),
            Admission::Bad(error) => Gated::Bad(error.to_string()),
            Admission::Held(Hold::SequenceTaken(by)) => match self.place_of(&by) {
                Some(earlier) => Gated::Behind(earlier),
                None => Gated::Held(Hold::SequenceTaken(by).to_string()),
            },
            Admission::Held(hold) => Gated::Held(hold.to_string()),
        }
    }

    /// Adds a delete to a document, if what it covers is there.
    fn gate_delete(&mut self, key: &DocKey, op: &Arc<Op>, tx: TxRef, body: &Body, void: &Void) -> Gated {
        let delete = match Delete::decode(&body.bytes) {
            Ok(delete) => delete,
            Err(error) => return Gated::Bad(format!("delete: {error}")),
        };
        let Some(loaded) = self.cache.get(key) else {
            return Gated::Held("the document was not kept loaded".to_owned());
        };
        let missing: Vec<ChangeHash> =
            delete.heads.iter().filter(|head| !loaded.document.contains(head)).copied().collect();
        if !missing.is_empty() {
            return Gated::Missing(missing);
        }
        loaded.deletes.retain(|known| known.tx != tx);
        let record = DeleteRecord { tx, heads: delete.heads, counts: void.is_none(), hlc: op.header().hlc };
        loaded.deletes.push(record);
        loaded.deletes.sort();
        loaded.apply_deletes();
        Gated::Passed
    }

    /// Applies a transaction over several documents: all of it or nothing.
    pub(super) fn apply_transaction(&mut self, work: &Work, void: Void) {
        let Some((transaction, bodies)) = work.transaction() else { return };
        let header = work.op.header();
        let collection = header.collection().clone();
        let mut before: Vec<(DocKey, Document, Vec<DeleteRecord>)> = Vec::new();
        let mut kept = Vec::new();
        let mut result = Gated::Passed;
        for (index, (change, body)) in transaction.changes.iter().zip(bodies).enumerate() {
            let key = DocKey { collection: collection.clone(), doc: change.doc.clone() };
            if self.is_erased(&key) {
                continue;
            }
            let Some(body) = body else {
                result = Gated::Bodiless;
                break;
            };
            if let Err(error) = self.ensure_loaded(&key) {
                result = Gated::Held(error.to_string());
                break;
            }
            let Some(loaded) = self.cache.get(&key) else { continue };
            before.push((key.clone(), loaded.document.clone(), loaded.deletes.clone()));
            result = if change.action == WriteAction::Delete {
                self.gate_delete(&key, &work.op, work.tx, body, &void)
            } else {
                let actor = header.stream_key().actor(&transaction.principal, &change.doc);
                let fields = change.fields.as_ref();
                let candidate = Candidate { bytes: &body.bytes, actor, action: change.action, fields };
                match self.admit_one(&key, work.tx, &candidate, &void) {
                    Ok(Admission::Admitted(hash)) => {
                        kept.push((index, key, hash, body.bytes.to_vec()));
                        Gated::Passed
                    }
                    Ok(admission) => self.gated(admission, work.tx),
                    Err(gated) => gated,
                }
            };
            if !matches!(result, Gated::Passed) {
                break;
            }
        }
        let passed = matches!(result, Gated::Passed);
        for (key, document, deletes) in before {
            if passed {
                self.dirty(&key);
            } else if let Some(loaded) = self.cache.get(&key) {
                loaded.document = document;
                loaded.deletes = deletes;
            }
        }
        if passed {
            for (index, key, hash, bytes) in kept {
                self.keep_change(&key, hash, (work.tx, index), &bytes);
                if let Some(loaded) = self.cache.get(&key) {
                    loaded.times.insert(hash, header.hlc);
                }
            }
        }
        self.conclude(&work.op, work.tx, void, result);
    }

    /// Offers one of several changes of a transaction to the gate.
    fn admit_one(
        &mut self,
        key: &DocKey,
        tx: TxRef,
        candidate: &Candidate<'_>,
        void: &Void,
    ) -> Result<Admission, Gated> {
        let scan = gate::prescan(candidate.bytes).ok().filter(|scan| scan.actor == candidate.actor);
        if let Some(scan) = &scan {
            let number = Number { doc: key.clone(), actor: scan.actor, seq: scan.seq };
            if let Some(earlier) = self.taken_by_earlier(&number, &scan.hash, tx) {
                return Err(Gated::Behind(earlier));
            }
        }
        let Some(loaded) = self.cache.get(key) else {
            return Err(Gated::Held("the document was not kept loaded".to_owned()));
        };
        let hash = scan.map(|scan| scan.hash);
        let set = match void {
            Some(_) => loaded.document.add_void(hash),
            None => loaded.document.remove_void(hash),
        };
        if let Err(error) = set {
            return Err(Gated::Held(error.to_string()));
        }
        let admission = loaded.document.admit(std::slice::from_ref(candidate)).into_iter().next();
        admission.ok_or_else(|| Gated::Held("the gate gave no answer".to_owned()))
    }
}
