//! Erasures: which documents are gone for good, and which members say to have carried that out.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{ActIx, Log};
use super::standing::Authority as Held;
use super::{Authority, Verdict};
use crate::authority::mutant::{Mutant, Site, planted};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, CollectionName, DocId, OpId, PrincipalId};
use crate::op::{Act, Action, Erase, Erased};

/// The potential acts that erase, and those that tell of it.
#[derive(Default)]
pub(super) struct Erasures {
    documents: BTreeMap<CollectionName, BTreeMap<DocId, Vec<ActIx>>>,
    acts: BTreeSet<ActIx>,
    /// Receipts by the act that they tell of.
    receipts: BTreeMap<OpId, Vec<ActIx>>,
    /// Acts that may count, or no longer, since that was last asked.
    news: BTreeSet<ActIx>,
}

impl Erasures {
    pub(super) fn index(&mut self, ix: ActIx, act: &Act) {
        match act {
            Act::Erase(erase) => {
                let documents = self.documents.entry(erase.collection.clone()).or_default();
                for doc in &erase.documents {
                    documents.entry(doc.clone()).or_default().push(ix);
                }
                self.acts.insert(ix);
                self.news.insert(ix);
            }
            Act::Erased(erased) => {
                for act in &erased.acts {
                    self.receipts.entry(*act).or_default().push(ix);
                }
            }
            _ => {}
        }
    }

    /// The effect of an act has changed.
    pub(super) fn act_changed(&mut self, ix: ActIx) {
        if self.acts.contains(&ix) {
            self.news.insert(ix);
        }
    }
}

/// An erasure, and how far it is carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErasureInfo {
    /// The act.
    pub act: OpId,
    /// When it was made, as its author says.
    pub hlc: Hlc,
    /// Who signed it.
    pub signer: AuthorKey,
    /// For whom the signer made it, else for whom the signer speaks.
    pub principal: Option<PrincipalId>,
    /// The collection.
    pub collection: CollectionName,
    /// The documents, ascending.
    pub documents: Vec<DocId>,
    /// Reason for people.
    pub why: String,
    /// Whether it counts.
    pub verdict: Verdict,
    /// The members that have carried it out, with the time at which they said so first.
    pub receipts: BTreeMap<AuthorKey, Hlc>,
}

impl Held<'_> {
    /// To erase a document takes the right to all of it.
    pub(super) fn may_erase(&self, erase: &Erase) -> bool {
        let gives = |doc: &DocId| {
            self.grants.iter().any(|held| {
                let covers = held.target.covers(&erase.collection, Some(doc))
                    || planted(Site::Engine, Mutant::ErasesByFields)
                        && held.target.reaches(&erase.collection, Some(doc));
                held.rights.actions.has(Action::Erase) && covers
            })
        };
        let asked = if planted(Site::Engine, Mutant::FirstErasureSuffices) { 1 } else { usize::MAX };
        self.is_owner
            || erase.documents.iter().take(asked).all(gives)
            || planted(Site::Engine, Mutant::ErasesWithoutRight) && !self.grants.is_empty()
    }

    /// Members tell of what they have carried out, and of nothing else; `knows` finds the acts that the author knew.
    pub(super) fn may_tell_of(&self, erased: &Erased, log: &Log, knows: &dyn Fn(OpId) -> Option<ActIx>) -> bool {
        let is_erasure = |id: &OpId| {
            let act = knows(*id).and_then(|ix| log.act(ix).act());
            matches!(act, Some(Act::Erase(_))) || planted(Site::Engine, Mutant::TellsOfAnything)
        };
        (self.is_member || planted(Site::Engine, Mutant::AnybodyTells)) && erased.acts.iter().all(is_erasure)
    }
}

impl Authority {
    /// Returns whether a document is erased.
    #[must_use]
    pub fn is_erased(&self, collection: &CollectionName, doc: &DocId) -> bool {
        // Most clusters erase little: this is asked of every change.
        let Some(documents) = self.log.erasures.documents.get(collection) else { return false };
        documents.get(doc).is_some_and(|acts| acts.iter().any(|ix| self.erases(*ix)))
    }

    /// Returns whether anything was ever erased, rightly or not.
    #[must_use]
    pub fn has_erasures(&self) -> bool {
        !self.log.erasures.acts.is_empty()
    }

    fn erases(&self, act: ActIx) -> bool {
        self.log.act(act).is_effective() || planted(Site::Engine, Mutant::ErasedByWhatIsCut)
    }

    /// Returns the documents that may have become erased, or be so no longer, since the last call.
    pub fn take_erasure_news(&mut self) -> BTreeSet<(CollectionName, DocId)> {
        let news = std::mem::take(&mut self.log.erasures.news);
        news.into_iter().filter_map(|ix| self.erase_act(ix)).flat_map(documents_of).collect()
    }

    /// Returns all documents that are erased.
    #[must_use]
    pub fn erased_documents(&self) -> BTreeSet<(CollectionName, DocId)> {
        let acts = self.log.erasures.acts.iter().copied().filter(|ix| self.erases(*ix));
        acts.filter_map(|ix| self.erase_act(ix)).flat_map(documents_of).collect()
    }

    /// Returns the erasures of one document.
    pub fn erasures_of(&self, collection: &CollectionName, doc: &DocId) -> impl Iterator<Item = ErasureInfo> + '_ {
        let acts = self.log.erasures.documents.get(collection).and_then(|documents| documents.get(doc));
        acts.into_iter().flatten().filter_map(|ix| self.erasure_info(*ix))
    }

    fn erase_act(&self, ix: ActIx) -> Option<&Erase> {
        match self.log.act(ix).act() {
            Some(Act::Erase(erase)) => Some(erase),
            Some(_) | None => None,
        }
    }

    /// Returns the erasures that count or may yet, in the order in which they came here.
    pub fn erasures(&self) -> impl Iterator<Item = ErasureInfo> + '_ {
        self.log.erasures.acts.iter().filter_map(|ix| self.erasure_info(*ix))
    }

    /// Returns one erasure; none if there is no such act, or it has no right to be.
    #[must_use]
    pub fn erasure(&self, act: OpId) -> Option<ErasureInfo> {
        self.log.find(act).filter(|ix| self.log.erasures.acts.contains(ix)).and_then(|ix| self.erasure_info(ix))
    }

    fn erasure_info(&self, ix: ActIx) -> Option<ErasureInfo> {
        let (record, erase) = (self.log.act(ix), self.erase_act(ix)?);
        let for_whom = record.control().and_then(|control| control.for_whom);
        let mut receipts: BTreeMap<AuthorKey, Hlc> = BTreeMap::new();
        for receipt in self.receipts_of(record.id) {
            let time = receipts.entry(receipt.header.author).or_insert(receipt.header.hlc);
            *time = receipt.header.hlc.min(*time);
        }
        Some(ErasureInfo {
            act: record.id,
            hlc: record.header.hlc,
            signer: record.header.author,
            principal: for_whom.or_else(|| self.principal_of(record.header.certificate)),
            collection: erase.collection.clone(),
            documents: erase.documents.clone(),
            why: erase.why.clone(),
            verdict: record.effect,
            receipts,
        })
    }

    fn receipts_of(&self, act: OpId) -> impl Iterator<Item = &super::log::ActRecord> + '_ {
        let receipts = self.log.erasures.receipts.get(&act).into_iter().flatten();
        receipts.map(|ix| self.log.act(*ix)).filter(|record| record.is_effective())
    }

    /// Returns the erasures that count and of which no receipt of this key counts, with their documents.
    pub fn untold_erasures(&self, key: AuthorKey) -> impl Iterator<Item = (OpId, &Erase)> + '_ {
        let counting = self.log.erasures.acts.iter().copied().filter(|ix| self.erases(*ix));
        counting.filter_map(move |ix| {
            let id = self.log.act(ix).id;
            let is_told = self.receipts_of(id).any(|receipt| receipt.header.author == key);
            (!is_told).then_some((id, self.erase_act(ix)?))
        })
    }
}

fn documents_of(erase: &Erase) -> impl Iterator<Item = (CollectionName, DocId)> + '_ {
    erase.documents.iter().map(|doc| (erase.collection.clone(), doc.clone()))
}
