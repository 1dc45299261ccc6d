//! What readers and checks find of the claims in the store.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::{Claims, Rule};
use super::{UniqueCheck, claim_key, id_of, read_checks, read_secret};
use crate::authority::Authority;
use crate::id::{CollectionName, DocId};
use crate::op::Unique;
use crate::replica::read::{ReadError, Reader, View, Views, damaged};
use crate::replica::records::ViewRecord;
use crate::replica::verify::VerifyReport;
use crate::store::keys::{Claim, ClaimKey, ClaimsKey, DocKey, DuplicateKey, Key as _};
use crate::store::{Keyspace, Order, Read, Span, envelope};

/// Documents before a duplicate that are looked at if their time is over.
const OVER_LOOKED_AT_MAX: usize = 1_024;

/// The documents of a collection, at one moment, that show what one before them shows. Keep it only as long as one answer takes.
pub struct Duplicates {
    views: Views,
    collection: CollectionName,
    rule: Option<Rule>,
}

impl Reader {
    /// Returns how far the claims are known of the collections that have or had unique constraints.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn unique_checks(&self) -> Result<BTreeMap<CollectionName, UniqueCheck>, ReadError> {
        read_checks(&**self.store())
    }

    /// Returns the duplicates of a collection as they are now, by these constraints.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn duplicates(&self, collection: &CollectionName, constraints: Vec<Unique>) -> Result<Duplicates, ReadError> {
        let views = self.views(collection);
        let rule = read_secret(views.read())?.map(|secret| Rule::new(constraints, secret));
        Ok(Duplicates { views, collection: collection.clone(), rule })
    }
}

impl Duplicates {
    /// Returns some of them, by id, after `after`, at most `limit`. Among them are some for which [`Self::shared`] finds nothing: their
    /// time is over, or that of the documents before them, or they are of constraints of before.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn ids(&self, after: Option<&DocId>, limit: usize) -> Result<Vec<DocId>, ReadError> {
        let mut span = Span::prefix(DuplicateKey::collection(&self.collection));
        if let Some(doc) = after {
            let key = DocKey { collection: self.collection.clone(), doc: doc.clone() };
            span = span.after(&DuplicateKey(key).encode());
        }
        let mut ids = Vec::new();
        for entry in self.views.read().scan(Keyspace::Index, &span, Order::Ascending).take(limit) {
            let (key, _) = entry?;
            let DuplicateKey(key) = DuplicateKey::decode(&key).map_err(|error| damaged(Keyspace::Index, error))?;
            ids.push(key.doc);
        }
        Ok(ids)
    }

    /// Returns one of them, if it exists.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn get(&self, doc: &DocId) -> Result<Option<View>, ReadError> {
        self.views.get(doc)
    }

    /// Returns what a document shares with one before it, each with the first that shows it.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn shared(&self, view: &View) -> Result<Vec<(Unique, DocId)>, ReadError> {
        let Some(rule) = &self.rule else { return Ok(Vec::new()) };
        let mut shared = Vec::new();
        for (unique, claim) in rule.claims(&view.json) {
            if let Some(first) = self.first_before(claim, &view.doc)? {
                shared.push((unique.clone(), first));
            }
        }
        Ok(shared)
    }

    fn first_before(&self, claim: Claim, doc: &DocId) -> Result<Option<DocId>, ReadError> {
        for other in claimants(self.views.read(), &self.collection, claim).take(OVER_LOOKED_AT_MAX) {
            let other = other?;
            if other >= *doc {
                return Ok(None);
            }
            if self.views.get(&other)?.is_some() {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

/// Returns the documents that make a claim, by id, lazily.
fn claimants<'a>(
    store: &'a dyn Read,
    collection: &CollectionName,
    claim: Claim,
) -> impl Iterator<Item = Result<DocId, ReadError>> + use<'a> {
    let span = Span::prefix(ClaimKey::of(collection, claim));
    store.scan(Keyspace::Index, &span, Order::Ascending).map(|entry| {
        let (key, _) = entry?;
        Ok(ClaimKey::decode(&key).map_err(|error| damaged(Keyspace::Index, error))?.doc)
    })
}

/// Returns the collections of whose documents all claims are known, with their constraints.
pub(in crate::replica) fn checked(
    store: &dyn Read,
    authority: &Authority,
) -> Result<BTreeMap<CollectionName, Rule>, ReadError> {
    let mut checked = BTreeMap::new();
    let Some(secret) = read_secret(store)? else { return Ok(checked) };
    for (name, check) in read_checks(store)?.into_iter().filter(|(_, check)| check.done) {
        let constraints = authority.collection(&name).map(|known| known.config.unique).unwrap_or_default();
        if check.constraints.is_some_and(|id| id.into_array() == id_of(&constraints)) {
            checked.insert(name, Rule::new(constraints, secret.clone()));
        }
    }
    Ok(checked)
}

fn stored_claims(store: &dyn Read, key: &DocKey) -> Result<Claims, ReadError> {
    let Some(value) = store.get(Keyspace::Index, &ClaimsKey(key.clone()).encode())? else {
        return Ok(Claims::default());
    };
    let value = envelope::open(value).map_err(|error| damaged(Keyspace::Index, error))?;
    Claims::decode(&value).map_err(|error| damaged(Keyspace::Index, error))
}

/// Returns whether the store has the claims that a document makes, and says rightly which of them one before it makes too.
pub(in crate::replica) fn is_claimed_rightly(store: &dyn Read, key: &DocKey, view: &ViewRecord, rule: &Rule) -> bool {
    let claimed = if view.exists() { rule.claimed(&view.json) } else { BTreeSet::new() };
    let Ok(stored) = stored_claims(store, key) else { return false };
    let is_flagged = store.get(Keyspace::Index, &DuplicateKey(key.clone()).encode()).is_ok_and(|flag| flag.is_some());
    let is_right = |(claim, is_lost): (&Claim, &bool)| {
        let is_there = store.get(Keyspace::Index, &claim_key(key, *claim)).is_ok_and(|there| there.is_some());
        let first = claimants(store, &key.collection, *claim).next();
        is_there && first.is_some_and(|first| first.is_ok_and(|first| (first != key.doc) == *is_lost))
    };
    stored.0.keys().eq(&claimed) && stored.0.iter().all(is_right) && stored.are_lost() == is_flagged
}

/// Nothing is claimed by a document that does not exist.
pub(in crate::replica) fn verify_claims(store: &dyn Read, report: &mut VerifyReport) {
    for entry in store.scan(Keyspace::Index, &ClaimKey::all(), Order::Ascending) {
        let Ok((place, _)) = entry else { return };
        let Ok(ClaimKey { collection, claim, doc }) = ClaimKey::decode(&place) else {
            report.found("index", format!("{place:?}"), "a claim whose key is damaged");
            continue;
        };
        let key = DocKey { collection, doc };
        if !stored_claims(store, &key).is_ok_and(|claims| claims.0.contains_key(&claim)) {
            report.found("index", format!("{}/{}", key.collection, key.doc), "a claim that its document does not make");
        }
    }
}
