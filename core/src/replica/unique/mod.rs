//! Which documents show what no two of their collection are to show.
//!
//! A document *claims* the values that it has at the fields of each unique constraint. Of those that make the same claim, the one with
//! the least id wins; the others are *duplicates*. That is a function of the documents alone, so replicas that have the same documents
//! and acts tell the same ones. Nothing is done to a duplicate, and it has no say in any verdict.
//!
//! Claims are written in the batch that holds the view that makes them. When constraints are set, changed or removed, all documents of
//! the collection are looked at again, in small steps; how far that is lies in the batches that hold the claims.
//!
//! Local writes are held against the claims of what is here, before they are made. What is not in a view yet counts too: the documents
//! that changed since are looked at first.
//!
//! Invariant: no batch holds a view of a collection that has or had constraints without its claims.
//! Invariant: a claim is stored under a hash that nobody can try out without the node's secret, which lies in a sealed value.

mod admit;
mod claims;
mod find;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use self::claims::Rule;
use self::claims::{Claims, Secret, id_of};
pub use self::find::Duplicates;
pub(super) use self::find::{checked, is_claimed_rightly, verify_claims};
use super::Replica;
use super::flush::BATCHES_IN_FLIGHT_MAX;
use super::open::{OpenError, damaged};
use super::read::{self, ReadError};
use crate::id::{CollectionName, DocId};
use crate::op::codec::{self, CodecError};
use crate::op::{Collection, Unique};
use crate::store::keys::{Claim, ClaimKey, ClaimsKey, DocKey, DuplicateKey, Key as _};
use crate::store::{Keyspace, Order, Read, Span, envelope};

/// Documents looked at in one step, and about how many bytes of them.
const STEP_DOCUMENTS_MAX: usize = 256;
const STEP_BYTES_MAX: usize = 256 << 10;
/// What the keys of the records begin with in the keyspace `meta`.
const CHECK_RECORDS: &[u8] = b"unique-check/";
/// Key in the keyspace `meta` of what claims are hashed with.
const SECRET: &[u8] = b"unique-secret";
/// Bytes of a record: a hash, an id, three numbers.
const RECORD_BYTES_MAX: usize = 512;

/// How far the claims of a collection's documents are known here.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct UniqueCheck {
    /// Names the constraints; none if there are none.
    constraints: Option<serde_bytes::ByteArray<32>>,
    /// The last document that was looked at.
    pub reached: Option<DocId>,
    /// Whether all were.
    pub done: bool,
    /// How many were.
    pub seen: u64,
    /// How many show what one before them shows.
    pub duplicates: u64,
    /// How many claims are made by more than one.
    pub contested: u64,
}

impl UniqueCheck {
    /// Encodes the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// [`CodecError`] if the record is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, RECORD_BYTES_MAX)
    }
}

#[derive(Debug, Default)]
struct State {
    rule: Option<Arc<Rule>>,
    check: UniqueCheck,
    is_changed: bool,
}

impl State {
    /// Whether nothing is claimed nor may be.
    fn is_over(&self) -> bool {
        self.rule.is_none() && self.check.done
    }
}

/// The unique constraints of collections, and how far the claims of their documents are known. There is one entry for each collection
/// that has or had constraints: as many as the control log has, which is in memory too.
#[derive(Debug, Default)]
pub(super) struct Uniques {
    states: BTreeMap<CollectionName, State>,
    secret: Option<Secret>,
    /// Documents that changed since their claims were staged; all of them are among those whose views must be written.
    stale: BTreeMap<CollectionName, BTreeSet<DocId>>,
}

impl Uniques {
    pub(super) fn is_changed(&self) -> bool {
        self.states.values().any(|state| state.is_changed)
    }

    /// Returns the constraints of a collection, if there are any.
    pub(super) fn of(&self, collection: &CollectionName) -> Option<Arc<Rule>> {
        self.states.get(collection)?.rule.clone()
    }

    /// A document has changed.
    pub(super) fn note_change(&mut self, key: &DocKey) {
        if self.states.contains_key(&key.collection) {
            self.stale.entry(key.collection.clone()).or_default().insert(key.doc.clone());
        }
    }

    /// Whether the claims of a document are to be staged with its view.
    pub(super) fn is_stale(&self, key: &DocKey) -> bool {
        self.stale.get(&key.collection).is_some_and(|docs| docs.contains(&key.doc))
    }

    fn note_claimed(&mut self, key: &DocKey) {
        if let Some(docs) = self.stale.get_mut(&key.collection) {
            docs.remove(&key.doc);
        }
    }

    /// All views are written.
    pub(super) fn all_claimed(&mut self) {
        self.stale.clear();
    }
}

/// Returns the key of a collection's record in the keyspace `meta`.
fn check_key(collection: &CollectionName) -> Vec<u8> {
    let mut key = CHECK_RECORDS.to_vec();
    collection.write(&mut key);
    key
}

fn read_checks(store: &dyn Read) -> Result<BTreeMap<CollectionName, UniqueCheck>, ReadError> {
    let mut checks = BTreeMap::new();
    for entry in store.scan(Keyspace::Meta, &Span::prefix(CHECK_RECORDS), Order::Ascending) {
        let (key, value) = entry?;
        let name = key.get(CHECK_RECORDS.len()..).unwrap_or_default();
        let name = CollectionName::decode(name).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        let value = envelope::open(value).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        let check = UniqueCheck::decode(&value).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        checks.insert(name, check);
    }
    Ok(checks)
}

fn read_secret(store: &dyn Read) -> Result<Option<Secret>, ReadError> {
    let Some(value) = store.get(Keyspace::Meta, SECRET)? else { return Ok(None) };
    let value = envelope::open(value).map_err(|error| read::damaged(Keyspace::Meta, error))?;
    let secret = <[u8; 32]>::try_from(&value[..]).map_err(|error| read::damaged(Keyspace::Meta, error))?;
    Ok(Some(Secret(secret)))
}

impl Replica {
    /// Returns how far the claims are known of the collections that have or had unique constraints.
    pub fn unique_checks(&self) -> impl Iterator<Item = (&CollectionName, &UniqueCheck)> {
        self.uniques.states.iter().map(|(name, state)| (name, &state.check))
    }

    /// Takes up what was under way when the replica was last open.
    pub(super) fn resume_uniques(&mut self) -> Result<(), OpenError> {
        let store = self.store.clone();
        self.uniques.secret = read_secret(&*store).map_err(|error| damaged(Keyspace::Meta, error))?;
        for (name, check) in read_checks(&*store).map_err(|error| damaged(Keyspace::Meta, error))? {
            self.uniques.states.insert(name, State { check, ..State::default() });
        }
        self.follow_uniques();
        Ok(())
    }

    /// Returns what claims are hashed with. It is made when it is needed first, and staged before the first claim.
    fn unique_secret(&mut self) -> Secret {
        if let Some(secret) = &self.uniques.secret {
            return secret.clone();
        }
        let secret = Secret(self.entropy.bytes());
        self.put(Keyspace::Meta, SECRET.to_vec(), &secret.0);
        self.uniques.secret = Some(secret.clone());
        secret
    }

    /// Notices constraints that were set, changed or removed.
    pub(super) fn follow_uniques(&mut self) {
        for known in self.authority.collections() {
            let Collection { name, unique, dropped, .. } = known.config;
            let constraints: Option<Vec<Unique>> = Some(unique).filter(|unique| !dropped && !unique.is_empty());
            if constraints.is_none() && !self.uniques.states.contains_key(&name) {
                continue;
            }
            let id = constraints.as_ref().map(|constraints| serde_bytes::ByteArray::new(id_of(constraints)));
            let rule = constraints.map(|constraints| Arc::new(Rule::new(constraints, self.unique_secret())));
            let state = self.uniques.states.entry(name.clone()).or_default();
            state.rule = rule;
            if state.check.constraints == id {
                continue;
            }
            let UniqueCheck { duplicates, contested, .. } = state.check;
            state.check = UniqueCheck { constraints: id, duplicates, contested, ..UniqueCheck::default() };
            state.is_changed = true;
            // Batches on their way were made before, and what follows in the store is only what they hold.
            for key in self.cache.unstored_of(&name, self.committed) {
                self.claim_as_loaded(&key);
            }
        }
    }

    /// Brings the claims of the documents of a collection up to date that have changed and whose views are not written yet.
    fn settle_claims(&mut self, collection: &CollectionName) {
        for doc in self.uniques.stale.remove(collection).unwrap_or_default() {
            self.claim_as_loaded(&DocKey { collection: collection.clone(), doc });
        }
    }

    fn claim_as_loaded(&mut self, key: &DocKey) {
        if self.is_erased(key) {
            return;
        }
        let json = self.cache.get(key).filter(|loaded| loaded.exists()).map(|loaded| loaded.document.json());
        self.claim(key, json.as_deref());
    }

    /// Stages the claims of a document: call with each view that is written. `json` is none if it does not exist.
    pub(super) fn claim(&mut self, key: &DocKey, json: Option<&[u8]>) {
        self.uniques.note_claimed(key);
        let Some(state) = self.uniques.states.get(&key.collection).filter(|state| !state.is_over()) else { return };
        let claims = state.rule.as_ref().zip(json).map(|(rule, json)| rule.claimed(json));
        self.set_claims(key, &claims.unwrap_or_default());
    }

    /// A document is gone.
    pub(super) fn unclaim(&mut self, key: &DocKey) {
        self.uniques.note_claimed(key);
        if self.uniques.states.contains_key(&key.collection) {
            self.set_claims(key, &BTreeSet::new());
        }
    }

    fn set_claims(&mut self, key: &DocKey, claims: &BTreeSet<Claim>) {
        let before = self.claims_of(key);
        if before.0.keys().eq(claims) {
            return;
        }
        let mut after = Claims::default();
        for claim in before.0.keys().filter(|claim| !claims.contains(claim)) {
            self.leave(key, *claim);
        }
        for claim in claims {
            let is_lost = match before.0.get(claim) {
                Some(is_lost) => *is_lost,
                None => self.enter(key, *claim),
            };
            after.0.insert(*claim, is_lost);
        }
        self.note_claims(key, &before, &after);
    }

    /// Adds a document to those that make a claim. Returns whether one before it makes it.
    fn enter(&mut self, key: &DocKey, claim: Claim) -> bool {
        let others = self.claimants(&key.collection, claim, None, 2);
        self.put(Keyspace::Index, claim_key(key, claim), &[]);
        if others.len() == 1 {
            self.count(&key.collection, |check| &mut check.contested, true);
        }
        match others.first() {
            Some(first) if *first > key.doc => {
                self.set_lost(&key.collection, first.clone(), claim, true);
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Takes a document out of those that make a claim.
    fn leave(&mut self, key: &DocKey, claim: Claim) {
        self.delete(Keyspace::Index, claim_key(key, claim));
        let others = self.claimants(&key.collection, claim, None, 2);
        if others.len() == 1 {
            self.count(&key.collection, |check| &mut check.contested, false);
        }
        if let Some(first) = others.into_iter().next().filter(|first| *first > key.doc) {
            self.set_lost(&key.collection, first, claim, false);
        }
    }

    fn set_lost(&mut self, collection: &CollectionName, doc: DocId, claim: Claim, is_lost: bool) {
        let key = DocKey { collection: collection.clone(), doc };
        let before = self.claims_of(&key);
        let mut after = before.clone();
        after.0.insert(claim, is_lost);
        self.note_claims(&key, &before, &after);
    }

    fn note_claims(&mut self, key: &DocKey, before: &Claims, after: &Claims) {
        let place = ClaimsKey(key.clone()).encode();
        if after.are_none() {
            self.delete(Keyspace::Index, place);
        } else {
            self.put(Keyspace::Index, place, &after.encode());
        }
        if before.are_lost() == after.are_lost() {
            return;
        }
        let flag = DuplicateKey(key.clone()).encode();
        if after.are_lost() {
            self.put(Keyspace::Index, flag, &[]);
        } else {
            self.delete(Keyspace::Index, flag);
        }
        self.count(&key.collection, |check| &mut check.duplicates, after.are_lost());
    }

    /// Counts one more, or one less.
    fn count(&mut self, collection: &CollectionName, of: fn(&mut UniqueCheck) -> &mut u64, more: bool) {
        if let Some(state) = self.uniques.states.get_mut(collection) {
            let count = of(&mut state.check);
            *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
            state.is_changed = true;
        }
    }

    fn claims_of(&mut self, key: &DocKey) -> Claims {
        let value = self.read_back(Keyspace::Index, &ClaimsKey(key.clone()).encode());
        match value.map(|value| Claims::decode(&value)).transpose() {
            Ok(claims) => claims.unwrap_or_default(),
            Err(error) => {
                self.halt(format!("read the claims of {}/{}: {error}", key.collection, key.doc));
                Claims::default()
            }
        }
    }

    /// Returns documents that make a claim, by id, behind `after`.
    fn claimants(
        &mut self,
        collection: &CollectionName,
        claim: Claim,
        after: Option<&DocId>,
        count: usize,
    ) -> Vec<DocId> {
        let prefix = ClaimKey::of(collection, claim);
        let after = after.map(|doc| ClaimKey { collection: collection.clone(), claim, doc: doc.clone() }.encode());
        let keys = self.keys_back(Keyspace::Index, &prefix, after.as_deref(), count);
        let keys: Result<Vec<ClaimKey>, _> = keys.iter().map(|key| ClaimKey::decode(key)).collect();
        match keys {
            Ok(keys) => keys.into_iter().map(|key| key.doc).collect(),
            Err(error) => {
                self.halt(format!("read the claims of {collection}: {error}"));
                Vec::new()
            }
        }
    }

    /// Stages what the batch changes of how far the collections are.
    pub(super) fn stage_unique_checks(&mut self) {
        let changed = self.uniques.states.iter_mut().filter(|(_, state)| state.is_changed);
        let changed: Vec<_> = changed
            .map(|(name, state)| {
                state.is_changed = false;
                (check_key(name), state.check.encode())
            })
            .collect();
        for (key, record) in changed {
            self.put(Keyspace::Meta, key, &record);
        }
    }

    /// Whether documents are to be looked at. What is found waits for the batches before it, so that it does not pile up.
    pub(super) fn has_claims_to_find(&self) -> bool {
        self.in_flight.len() < BATCHES_IN_FLIGHT_MAX && self.uniques.states.values().any(|state| !state.check.done)
    }

    /// Looks at the next documents.
    pub(super) fn find_claims(&mut self) {
        if self.halted.is_some() || !self.has_claims_to_find() {
            return;
        }
        let next = self.uniques.states.iter().find(|(_, state)| !state.check.done);
        let Some((name, state)) = next.map(|(name, state)| (name.clone(), state)) else { return };
        if state.rule.is_some() {
            self.claim_collection(&name);
        } else {
            self.unclaim_collection(&name);
        }
    }

    fn claim_collection(&mut self, name: &CollectionName) {
        let mut span = DocKey::collection(name);
        let reached = self.uniques.states.get(name).and_then(|state| state.check.reached.clone());
        if let Some(doc) = reached {
            span = span.after(&DocKey { collection: name.clone(), doc }.encode());
        }
        let (mut looked_at, mut bytes, mut last) = (0, 0, None);
        let store = self.store.clone();
        for entry in store.scan(Keyspace::Views, &span, Order::Ascending) {
            let read = entry.map_err(ReadError::from).and_then(|(key, value)| {
                let key = DocKey::decode(&key).map_err(|error| read::damaged(Keyspace::Views, error))?;
                Ok((key, read::view_record(value)?))
            });
            let (key, view) = match read {
                Ok(read) => read,
                Err(error) => return self.halt(format!("look for what documents of {name} share: {error}")),
            };
            looked_at += 1;
            bytes += view.json.len();
            last = Some(key.doc.clone());
            // What the store does not have yet was looked at when the constraints came, or is when its view is written.
            if !self.cache.is_unstored(&key, self.committed) {
                self.claim(&key, Some(&*view.json).filter(|_| view.exists()));
            }
            if looked_at >= STEP_DOCUMENTS_MAX || bytes >= STEP_BYTES_MAX {
                break;
            }
        }
        let is_end = looked_at < STEP_DOCUMENTS_MAX && bytes < STEP_BYTES_MAX;
        if let Some(state) = self.uniques.states.get_mut(name) {
            state.check.seen += looked_at as u64;
            state.check.reached = last.filter(|_| !is_end);
            state.check.done = is_end;
            state.is_changed = true;
        }
    }

    fn unclaim_collection(&mut self, name: &CollectionName) {
        let places = self.keys_back(Keyspace::Index, &ClaimsKey::collection(name), None, STEP_DOCUMENTS_MAX);
        let is_end = places.len() < STEP_DOCUMENTS_MAX;
        for place in places {
            match ClaimsKey::decode(&place) {
                Ok(ClaimsKey(key)) => self.set_claims(&key, &BTreeSet::new()),
                Err(error) => return self.halt(format!("read the claims of {name}: {error}")),
            }
        }
        if let Some(state) = self.uniques.states.get_mut(name).filter(|_| is_end) {
            state.check = UniqueCheck { done: true, ..UniqueCheck::default() };
            state.is_changed = true;
        }
    }
}

fn claim_key(key: &DocKey, claim: Claim) -> Vec<u8> {
    ClaimKey { collection: key.collection.clone(), claim, doc: key.doc.clone() }.encode()
}
