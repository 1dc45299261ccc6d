//! Erasures: who may erase, who tells of it, and what is erased.

use std::collections::BTreeSet;

use super::{World, bug};
use crate::authority::mutant::Mutant;
use crate::id::{CollectionName, DocId, OpId};
use crate::op::{Act, Action, Erase, Erased, Header};

impl World<'_> {
    /// Whether the proof gives the right to erase each document, with all its fields.
    pub(super) fn may_erase(&self, id: OpId, erase: &Erase) -> bool {
        let mut documents = erase.documents.clone();
        if bug(Mutant::FirstErasureSuffices) {
            documents.truncate(1);
        }
        let gives = |doc: &DocId| {
            self.held(id).any(|(target, actions)| {
                let whole = target.fields.is_all() || bug(Mutant::ErasesByFields);
                actions.has(Action::Erase) && whole && target.reaches(&erase.collection, Some(doc))
            })
        };
        documents.iter().all(gives) || bug(Mutant::ErasesWithoutRight) && self.held(id).next().is_some()
    }

    /// Whether the proof shows that the signing key is a member's, and all that is told of are erasures that it knew.
    pub(super) fn may_tell_of(&self, id: OpId, header: &Header, erased: &Erased) -> bool {
        let is_membership =
            |part: &OpId| matches!(self.act(*part), Some(Act::Member(member)) if member.key == header.author);
        let is_erasure = |act: &OpId| {
            let known = self.act(*act).filter(|_| self.knows(id, *act));
            matches!(known, Some(Act::Erase(_))) || bug(Mutant::TellsOfAnything)
        };
        (self.proof(id).iter().any(is_membership) || bug(Mutant::AnybodyTells)) && erased.acts.iter().all(is_erasure)
    }

    /// A document is erased if an act that counts erases it.
    pub(super) fn erased(&self) -> BTreeSet<(CollectionName, DocId)> {
        let mut erased = BTreeSet::new();
        for id in self.standing.keys() {
            let counts = self.is_effective(*id) || bug(Mutant::ErasedByWhatIsCut) && self.is_potential(*id);
            if let Some(Act::Erase(erase)) = self.act(*id).filter(|_| counts) {
                erased.extend(erase.documents.iter().map(|doc| (erase.collection.clone(), doc.clone())));
            }
        }
        erased
    }
}
