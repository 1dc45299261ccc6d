//! Which documents have not the form that their collection's schema asks.
//!
//! A document is flagged in the batch that writes its view. When a schema is set, changed or removed, all documents of the
//! collection are looked at again, in small steps beside other work. How far that is is written in the batches that hold the
//! flags, so a crash loses none of it and nothing is looked at for nothing.
//!
//! Flags follow from documents and schema alone: replicas that have the same documents and acts flag the same ones, once each has
//! looked at all of them.
//!
//! Invariant: no batch holds a view of a collection that is looked through, or was, without its flag.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::flush::BATCHES_IN_FLIGHT_MAX;
use super::open::{OpenError, damaged};
use super::read::{ReadError, Reader};
use super::records::ViewRecord;
use super::types::WriteError;
use super::{Replica, read};
use crate::authority::Authority;
use crate::document::Document;
use crate::id::{CollectionName, DocId};
use crate::op::codec::{self, CodecError};
use crate::op::{Collection, FieldRights};
use crate::schema::{Compiled, Findings, SchemaCache, SchemaText};
use crate::store::keys::{DocKey, InvalidKey, Key as _};
use crate::store::{Keyspace, Order, Read, Span, StoreError, envelope};

/// Documents looked at in one step, and about how many bytes of them.
const STEP_DOCUMENTS_MAX: usize = 256;
const STEP_BYTES_MAX: usize = 256 << 10;
/// What the keys of the records begin with in the keyspace `meta`.
const CHECK_RECORDS: &[u8] = b"schema-check/";
/// Bytes of a record: a hash, an id, two numbers.
const RECORD_BYTES_MAX: usize = 512;

/// How far a collection's documents are held against its schema here.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct SchemaCheck {
    /// The schema's hash; none if there is none.
    schema: Option<serde_bytes::ByteArray<32>>,
    /// The last document that was looked at.
    pub reached: Option<DocId>,
    /// Whether all were.
    pub done: bool,
    /// How many were.
    pub seen: u64,
    /// How many are flagged.
    pub invalid: u64,
}

impl SchemaCheck {
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
    text: Option<SchemaText>,
    check: SchemaCheck,
    is_changed: bool,
}

impl State {
    /// Whether no document is flagged nor may be.
    fn is_over(&self) -> bool {
        self.text.is_none() && self.check.done
    }
}

/// The schemas of collections, and how far their documents are held against them. There is one entry for each collection that has
/// or had a schema: as many as the control log has, which is in memory too.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    states: BTreeMap<CollectionName, State>,
    ready: SchemaCache,
}

impl Schemas {
    pub(super) fn is_changed(&self) -> bool {
        self.states.values().any(|state| state.is_changed)
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Returns the schema of a collection, ready for use.
    pub(super) fn of(&mut self, settings: Option<&Collection>) -> Option<Compiled> {
        settings.and_then(|settings| settings.schema.as_ref()).map(|text| self.ready.get(text))
    }
}

/// Returns the key of a collection's record in the keyspace `meta`.
fn check_key(collection: &CollectionName) -> Vec<u8> {
    let mut key = CHECK_RECORDS.to_vec();
    collection.write(&mut key);
    key
}

fn read_checks(store: &dyn Read) -> Result<BTreeMap<CollectionName, SchemaCheck>, ReadError> {
    let mut checks = BTreeMap::new();
    for entry in store.scan(Keyspace::Meta, &Span::prefix(CHECK_RECORDS), Order::Ascending) {
        let (key, value) = entry?;
        let name = key.get(CHECK_RECORDS.len()..).unwrap_or_default();
        let name = CollectionName::decode(name).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        let value = envelope::open(value).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        let check = SchemaCheck::decode(&value).map_err(|error| read::damaged(Keyspace::Meta, error))?;
        checks.insert(name, check);
    }
    Ok(checks)
}

/// Returns whether a document has not the form that is asked; a schema that cannot be used here asks nothing.
fn is_invalid(schema: &Compiled, json: &[u8]) -> bool {
    (**schema).as_ref().is_ok_and(|schema| !schema.check(json).are_none())
}

impl Replica {
    /// Returns how far the collections that have or had a schema are held against it.
    pub fn schema_checks(&self) -> impl Iterator<Item = (&CollectionName, &SchemaCheck)> {
        self.schemas.states.iter().map(|(name, state)| (name, &state.check))
    }

    /// Takes up what was under way when the replica was last open.
    pub(super) fn resume_schemas(&mut self) -> Result<(), OpenError> {
        let checks = read_checks(&*self.store).map_err(|error| damaged(Keyspace::Meta, error))?;
        for (name, check) in checks {
            self.schemas.states.insert(name, State { check, ..State::default() });
        }
        self.follow_schemas();
        Ok(())
    }

    /// Notices schemas that were set, changed or removed.
    pub(super) fn follow_schemas(&mut self) {
        for known in self.authority.collections() {
            let Collection { name, schema, dropped, .. } = known.config;
            let text = schema.filter(|_| !dropped);
            if text.is_none() && !self.schemas.states.contains_key(&name) {
                continue;
            }
            let id = text.as_ref().map(|text| serde_bytes::ByteArray::new(text.id()));
            let state = self.schemas.states.entry(name.clone()).or_default();
            state.text = text;
            if state.check.schema == id {
                continue;
            }
            state.check = SchemaCheck { schema: id, invalid: state.check.invalid, ..SchemaCheck::default() };
            state.is_changed = true;
            // Batches on their way were made before, and what follows in the store is only what they hold.
            for key in self.cache.unstored_of(&name, self.committed) {
                let json = self.cache.get(&key).filter(|loaded| loaded.exists()).map(|loaded| loaded.document.json());
                self.flag(&key, json.as_deref());
            }
        }
    }

    /// Flags a document, or does so no longer: call with each view that is written. `json` is none if it does not exist.
    pub(super) fn flag(&mut self, key: &DocKey, json: Option<&[u8]>) {
        let Some(state) = self.schemas.states.get(&key.collection).filter(|state| !state.is_over()) else { return };
        let schema = state.text.clone().map(|text| self.schemas.ready.get(&text));
        let invalid = schema.zip(json).is_some_and(|(schema, json)| is_invalid(&schema, json));
        self.set_flag(key, invalid);
    }

    /// A document is gone.
    pub(super) fn set_flag(&mut self, key: &DocKey, invalid: bool) {
        if !self.schemas.states.contains_key(&key.collection) {
            return;
        }
        let place = InvalidKey(key.clone()).encode();
        let was = self.read_back(Keyspace::Index, &place).is_some();
        if was == invalid {
            return;
        }
        if invalid {
            self.put(Keyspace::Index, place, &[]);
        } else {
            self.delete(Keyspace::Index, place);
        }
        if let Some(state) = self.schemas.states.get_mut(&key.collection) {
            let count = &mut state.check.invalid;
            *count = if invalid { count.saturating_add(1) } else { count.saturating_sub(1) };
            state.is_changed = true;
        }
    }

    /// Stages what the batch changes of how far the collections are.
    pub(super) fn stage_checks(&mut self) {
        let changed = self.schemas.states.iter_mut().filter(|(_, state)| state.is_changed);
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
    pub(super) fn has_documents_to_check(&self) -> bool {
        self.in_flight.len() < BATCHES_IN_FLIGHT_MAX && self.schemas.states.values().any(|state| !state.check.done)
    }

    /// Looks at the next documents.
    pub(super) fn check_documents(&mut self) {
        if self.halted.is_some() || !self.has_documents_to_check() {
            return;
        }
        let next = self.schemas.states.iter().find(|(_, state)| !state.check.done);
        let Some((name, state)) = next.map(|(name, state)| (name.clone(), state)) else { return };
        match state.text.clone() {
            Some(_) => self.check_collection(&name),
            None => self.unflag_collection(&name),
        }
    }

    fn check_collection(&mut self, name: &CollectionName) {
        let mut span = DocKey::collection(name);
        let reached = self.schemas.states.get(name).and_then(|state| state.check.reached.clone());
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
                Err(error) => return self.halt(format!("hold {name} against its schema: {error}")),
            };
            looked_at += 1;
            bytes += view.json.len();
            last = Some(key.doc.clone());
            // What the store does not have yet was looked at when the schema came, or is when its view is written.
            if !self.cache.is_unstored(&key, self.committed) {
                let json = Some(&view.json).filter(|_| view.exists()).cloned();
                self.flag(&key, json.as_deref());
            }
            if looked_at >= STEP_DOCUMENTS_MAX || bytes >= STEP_BYTES_MAX {
                break;
            }
        }
        let is_end = looked_at < STEP_DOCUMENTS_MAX && bytes < STEP_BYTES_MAX;
        if let Some(state) = self.schemas.states.get_mut(name) {
            state.check.seen += looked_at as u64;
            state.check.reached = last.filter(|_| !is_end);
            state.check.done = is_end;
            state.is_changed = true;
        }
    }

    fn unflag_collection(&mut self, name: &CollectionName) {
        let keys = self.keys_back(Keyspace::Index, &InvalidKey::collection(name), None, STEP_DOCUMENTS_MAX);
        let is_end = keys.len() < STEP_DOCUMENTS_MAX;
        for key in keys {
            self.delete(Keyspace::Index, key);
        }
        if let Some(state) = self.schemas.states.get_mut(name).filter(|_| is_end) {
            state.check = SchemaCheck { done: true, ..SchemaCheck::default() };
            state.is_changed = true;
        }
    }
}

/// Holds a document that was edited against its schema. What was wrong with it before may stay so.
///
/// # Errors
/// What is wrong with it now, as far as somebody with these rights may be told, and how much else.
pub(super) fn admit(
    schema: &Compiled,
    before: Option<&Document>,
    after: &Document,
    sight: &FieldRights,
) -> Result<(), Refused> {
    let schema = match &**schema {
        Ok(schema) => schema,
        Err(error) => return Err(Refused::Unusable(error.to_string())),
    };
    let found = schema.check(&after.json());
    if found.are_none() {
        return Ok(());
    }
    let known = before.map(|before| schema.check(&before.json())).unwrap_or_default();
    let new = found.beyond(&known);
    if new.are_none() {
        return Ok(());
    }
    let (findings, withheld) = new.seen_by(sight);
    Err(Refused::Violated(findings, withheld))
}

/// Why an edit is not made.
pub(super) enum Refused {
    /// The schema cannot be used here.
    Unusable(String),
    /// The document would be worse than before.
    Violated(Findings, usize),
}

impl Refused {
    /// Returns the error of the write of a document.
    pub(super) fn of(self, doc: DocId) -> WriteError {
        match self {
            Self::Unusable(reason) => WriteError::SchemaUnusable(reason),
            Self::Violated(findings, withheld) => WriteError::Schema { doc, findings, withheld },
        }
    }
}

impl Reader {
    /// Returns how far the collections that have or had a schema are held against it.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn schema_checks(&self) -> Result<BTreeMap<CollectionName, SchemaCheck>, ReadError> {
        read_checks(&**self.store())
    }

    /// Returns documents that are flagged, by id, after `after`, at most `limit` of them.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read.
    pub fn invalid(
        &self,
        collection: &CollectionName,
        after: Option<&DocId>,
        limit: usize,
    ) -> Result<Vec<DocId>, ReadError> {
        let mut span = Span::prefix(InvalidKey::collection(collection));
        if let Some(doc) = after {
            let key = DocKey { collection: collection.clone(), doc: doc.clone() };
            span = span.after(&InvalidKey(key).encode());
        }
        let flagged = self.store().scan(Keyspace::Index, &span, Order::Ascending).take(limit);
        let id = |entry: Result<(Bytes, Bytes), StoreError>| -> Result<DocId, ReadError> {
            let (key, _) = entry?;
            let InvalidKey(key) = InvalidKey::decode(&key).map_err(|error| read::damaged(Keyspace::Index, error))?;
            Ok(key.doc)
        };
        flagged.map(id).collect()
    }
}

/// Returns the collections whose documents are all held against a schema that can be used, with it.
pub(super) fn checked(
    store: &dyn Read,
    authority: &Authority,
) -> Result<BTreeMap<CollectionName, Compiled>, ReadError> {
    let mut ready = SchemaCache::default();
    let mut checked = BTreeMap::new();
    for (name, check) in read_checks(store)?.into_iter().filter(|(_, check)| check.done) {
        let schema = authority.collection(&name).and_then(|known| known.config.schema);
        let is_same = |text: &SchemaText| check.schema.is_some_and(|id| id.into_array() == text.id());
        checked.extend(schema.filter(is_same).map(|text| (name, ready.get(&text))));
    }
    Ok(checked)
}

/// Returns whether a document is flagged as its view and its schema say.
pub(super) fn is_flagged_rightly(store: &dyn Read, key: &DocKey, view: &ViewRecord, schema: &Compiled) -> bool {
    let should = view.exists() && is_invalid(schema, &view.json);
    store.get(Keyspace::Index, &InvalidKey(key.clone()).encode()).is_ok_and(|flag| flag.is_some() == should)
}
