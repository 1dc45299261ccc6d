//! Local writes, held against what other documents show here.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::authority::Action;
use crate::document::Document;
use crate::id::{CollectionName, DocId};
use crate::op::{FieldRights, Unique};
use crate::replica::Replica;
use crate::replica::expiry::Over;
use crate::replica::read::read_view;
use crate::replica::types::{WriteError, WriteRequest};
use crate::replica::write::Earlier;
use crate::store::keys::{Claim, DocKey};

/// Documents that make a claim, looked at in one step, and at most if the time of all is over.
const STEP: usize = 16;
const LOOKED_AT_MAX: usize = 1_024;

impl Replica {
    /// Looks at what has changed and is not written yet, so that what is edited from now on is held against it too.
    pub(in crate::replica) fn prepare_unique(&mut self, collection: &CollectionName) {
        self.settle_claims(collection);
    }

    /// Holds documents that were edited against what others show, all of a request together. `before` has them as they were.
    ///
    /// # Errors
    /// [`WriteError::Unique`] for the first that would show what another one shows, and did not show it before.
    pub(in crate::replica) fn admit_unique(
        &mut self,
        rule: &Rule,
        over: &Over,
        request: &WriteRequest,
        before: &[Earlier],
    ) -> Result<(), WriteError> {
        let mut shown: BTreeMap<Claim, BTreeSet<DocId>> = BTreeMap::new();
        let mut new: Vec<(DocId, &Unique, Claim)> = Vec::new();
        for Earlier { key, document: earlier, .. } in before {
            let Some(loaded) = self.cache.get(key).filter(|loaded| loaded.exists()) else { continue };
            let known = text_of(earlier).filter(|json| !over.hides(json)).map(|json| rule.claimed(&json));
            let known = known.unwrap_or_default();
            for (unique, claim) in rule.claims(&loaded.document.json()) {
                shown.entry(claim).or_default().insert(key.doc.clone());
                if !known.contains(&claim) {
                    new.push((key.doc.clone(), unique, claim));
                }
            }
        }
        let together: BTreeSet<&DocId> = before.iter().map(|earlier| &earlier.key.doc).collect();
        for (doc, unique, claim) in new {
            let beside = shown.get(&claim).and_then(|docs| docs.iter().find(|other| **other != doc)).cloned();
            let other = beside.or_else(|| self.holder(&request.collection, claim, &together, over));
            if let Some(other) = other {
                let other = Some(other).filter(|other| self.may_see_shared(request, other, unique));
                return Err(WriteError::Unique { doc, fields: unique.0.clone(), other });
            }
        }
        Ok(())
    }

    /// Returns a document that makes a claim, is not one of these, and whose time is not over.
    fn holder(
        &mut self,
        collection: &CollectionName,
        claim: Claim,
        without: &BTreeSet<&DocId>,
        over: &Over,
    ) -> Option<DocId> {
        let (mut after, mut looked_at) = (None, 0);
        loop {
            let step = self.claimants(collection, claim, after.as_ref(), STEP);
            let is_end = step.len() < STEP;
            for doc in step {
                let key = DocKey { collection: collection.clone(), doc };
                let is_hidden = over.is_ever() && self.is_hidden(&key, over);
                if !is_hidden && !without.contains(&key.doc) {
                    return Some(key.doc);
                }
                after = Some(key.doc);
            }
            looked_at += STEP;
            if is_end {
                return None;
            }
            if looked_at >= LOOKED_AT_MAX {
                // Rather too much is refused than nodes are held up.
                return after;
            }
        }
    }

    /// Whether a document's time is over.
    fn is_hidden(&mut self, key: &DocKey, over: &Over) -> bool {
        if let Some(loaded) = self.cache.get(key) {
            return loaded.exists() && over.hides(&loaded.document.json());
        }
        match read_view(&*self.store, key) {
            Ok(view) => view.is_some_and(|view| view.exists() && over.hides(&view.json)),
            Err(error) => {
                self.halt(format!("read the view of {}/{}: {error}", key.collection, key.doc));
                false
            }
        }
    }

    /// Whether who writes may read of another document what it shares.
    fn may_see_shared(&self, request: &WriteRequest, other: &DocId, unique: &Unique) -> bool {
        let rights = match (request.principal, &request.limits.read) {
            (None, _) => FieldRights::all(),
            (Some(_), None) => return false,
            (Some(principal), Some(limit)) => {
                let now = self.clock.last();
                let fields = self.authority.fields(principal, Action::Read, &request.collection, Some(other), now);
                fields.within(limit.clone())
            }
        };
        unique.0.iter().all(|field| rights.show_scalar(field.steps()))
    }
}

fn text_of(document: &Document) -> Option<bytes::Bytes> {
    (!document.heads().is_empty() && !document.is_deleted()).then(|| document.json())
}
