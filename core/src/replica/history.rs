//! What documents were: who changed one, when and how, and what it was before.
//!
//! The history of a document is that of its accepted changes and of the deletes that count. What is void was never shown for good, and is
//! told by the audit.

use std::collections::{BTreeMap, BTreeSet};

use super::load::{self, LoadError};
use super::read::{ReadError, Reader, View, damaged};
use super::records::DeleteRecord;
use crate::document::gate::guarded;
use crate::document::json::{self, Value};
use crate::document::{Document, diff, redact};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ChangeHash, ClusterId, OpId, PrincipalId, StreamId};
use crate::op::{FieldRights, Op, WriteAction};
use crate::store::keys::{ChangeKey, ChangePlace, DocKey, Key as _, OpKey};
use crate::store::{Keyspace, Read, envelope};

/// One change of a document, or a delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    /// The change; none for a delete.
    pub change: Option<ChangeHash>,
    /// The accepted changes that it builds on; of a delete, those that it covers with all before them.
    pub before: Vec<ChangeHash>,
    /// What was done.
    pub action: WriteAction,
    /// When, by its author's clock.
    pub hlc: Hlc,
    /// The op that brought it.
    pub op: OpId,
    /// Which of the op's transactions.
    pub transaction: u16,
    /// The key that signed it.
    pub author: AuthorKey,
    /// The certificate of that key.
    pub certificate: OpId,
    /// For whom it was made.
    pub principal: PrincipalId,
}

/// A version of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its heads; none if there was no document yet.
    pub heads: Vec<ChangeHash>,
    /// Whether it was deleted.
    pub deleted: bool,
    /// When its latest change or delete was made.
    pub modified: Hlc,
}

/// A document with its past. Needs a thread with [`crate::document::gate::STACK_BYTES`] of stack.
pub struct Past {
    document: Document,
    /// By time, the earliest first; what is of one time by op and transaction.
    entries: Vec<HistoryEntry>,
    /// The accepted changes on which each builds, void ones between them left out; each after those.
    builds_on: BTreeMap<ChangeHash, Vec<ChangeHash>>,
    order: Vec<ChangeHash>,
}

/// What is told of an op.
struct OpFacts {
    id: OpId,
    hlc: Hlc,
    author: AuthorKey,
    certificate: OpId,
    /// Of each transaction: for whom, and what is done to which document.
    transactions: Vec<(PrincipalId, Vec<WriteAction>)>,
}

impl OpFacts {
    fn of(op: &Op) -> Self {
        let header = op.header();
        let transactions = header.transactions().iter().map(|transaction| {
            (transaction.principal, transaction.changes.iter().map(|change| change.action).collect())
        });
        Self {
            id: op.id(),
            hlc: header.hlc,
            author: header.author,
            certificate: header.certificate,
            transactions: transactions.collect(),
        }
    }
}

/// Reads ops of one snapshot, each once.
struct Ops<'a> {
    snapshot: &'a dyn Read,
    cluster: ClusterId,
    known: BTreeMap<(StreamId, u64, Option<OpId>), Option<OpFacts>>,
}

impl Ops<'_> {
    fn get(&mut self, stream: StreamId, seq: u64, branch: Option<OpId>) -> Result<Option<&OpFacts>, ReadError> {
        let place = (stream, seq, branch);
        if !self.known.contains_key(&place) {
            let key = OpKey { branch, ..OpKey::new(stream, seq) };
            let facts = match self.snapshot.get(Keyspace::Ops, &key.encode())? {
                None => None,
                Some(value) => {
                    let value = envelope::open(value).map_err(|error| damaged(Keyspace::Ops, error))?;
                    let op = Op::decode(&value, self.cluster).map_err(|error| damaged(Keyspace::Ops, error))?;
                    Some(OpFacts::of(&op))
                }
            };
            self.known.insert(place, facts);
        }
        Ok(self.known.get(&place).and_then(Option::as_ref))
    }

    fn entry_of(&mut self, hash: ChangeHash, before: Vec<ChangeHash>) -> Result<Option<HistoryEntry>, ReadError> {
        let Some(value) = self.snapshot.get(Keyspace::Index, &ChangeKey(hash).encode())? else { return Ok(None) };
        let value = envelope::open(value).map_err(|error| damaged(Keyspace::Index, error))?;
        let place = ChangePlace::decode(&value).map_err(|error| damaged(Keyspace::Index, error))?;
        let Some(facts) = self.get(place.stream, place.seq, None)? else { return Ok(None) };
        let Some((principal, actions)) = facts.transactions.get(usize::from(place.transaction)) else {
            return Ok(None);
        };
        let Some(action) = actions.get(usize::from(place.change)) else { return Ok(None) };
        Ok(Some(HistoryEntry {
            change: Some(hash),
            before,
            action: *action,
            hlc: facts.hlc,
            op: facts.id,
            transaction: place.transaction,
            author: facts.author,
            certificate: facts.certificate,
            principal: *principal,
        }))
    }

    fn entry_of_delete(&mut self, delete: &DeleteRecord) -> Result<Option<HistoryEntry>, ReadError> {
        let tx = delete.tx;
        for branch in [None, Some(tx.op)] {
            let Some(facts) = self.get(tx.stream, tx.seq, branch)?.filter(|facts| facts.id == tx.op) else { continue };
            let Some((principal, _)) = facts.transactions.get(usize::from(tx.tx)) else { return Ok(None) };
            return Ok(Some(HistoryEntry {
                change: None,
                before: delete.heads.clone(),
                action: WriteAction::Delete,
                hlc: delete.hlc,
                op: tx.op,
                transaction: tx.tx,
                author: facts.author,
                certificate: facts.certificate,
                principal: *principal,
            }));
        }
        Ok(None)
    }
}

impl Reader {
    /// Loads a document with its past; none if it has no accepted change, or was erased.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read or the document is damaged.
    pub fn past(&self, key: &DocKey, cluster: ClusterId) -> Result<Option<Past>, ReadError> {
        past_of(&*self.store().snapshot(), key, cluster)
    }
}

/// Loads a document of a snapshot with its past.
pub(super) fn past_of(snapshot: &dyn Read, key: &DocKey, cluster: ClusterId) -> Result<Option<Past>, ReadError> {
    let loaded = load::load(snapshot, key)?;
    let mut document = loaded.document;
    if document.heads().is_empty() {
        return Ok(None);
    }
    document.load_history().map_err(|what| LoadError::Damaged { key: key.clone(), what })?;
    let mut ops = Ops { snapshot, cluster, known: BTreeMap::new() };
    let (mut entries, mut builds_on, mut order) = (Vec::new(), BTreeMap::new(), Vec::new());
    // What lies before void changes takes their place.
    let mut stands_for: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
    for (hash, deps, _) in document.changes_with_deps() {
        let accepted: BTreeSet<ChangeHash> =
            deps.iter().flat_map(|dep| stands_for.get(dep).cloned().unwrap_or_else(|| vec![*dep])).collect();
        let accepted: Vec<ChangeHash> = accepted.into_iter().collect();
        if document.void_changes().contains(&hash) {
            stands_for.insert(hash, accepted);
            continue;
        }
        entries.extend(ops.entry_of(hash, accepted.clone())?);
        builds_on.insert(hash, accepted);
        order.push(hash);
    }
    for delete in loaded.deletes.iter().filter(|delete| delete.counts) {
        entries.extend(ops.entry_of_delete(delete)?);
    }
    entries.sort_by_key(|entry| (entry.hlc, entry.op, entry.transaction, entry.change));
    Ok(Some(Past { document, entries, builds_on, order }))
}

impl Past {
    /// Returns its changes and deletes, the earliest first.
    #[must_use]
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// Returns the version that it has now.
    #[must_use]
    pub fn now(&self) -> Version {
        self.at(Hlc::MAX)
    }

    /// Returns the version that it had at a time, by the clocks of its authors.
    #[must_use]
    pub fn at(&self, time: Hlc) -> Version {
        let times: BTreeMap<ChangeHash, Hlc> =
            self.entries.iter().filter_map(|entry| Some((entry.change?, entry.hlc))).collect();
        let mut here = BTreeSet::new();
        for hash in &self.order {
            // Of a change whose op is not here nobody knows when it was made: it is as old as what builds on it.
            let in_time = times.get(hash).is_none_or(|hlc| *hlc <= time);
            let builds_on = self.builds_on.get(hash).map(Vec::as_slice).unwrap_or_default();
            if in_time && builds_on.iter().all(|before| here.contains(before)) {
                here.insert(*hash);
            }
        }
        let before: BTreeSet<ChangeHash> =
            here.iter().filter_map(|hash| self.builds_on.get(hash)).flatten().copied().collect();
        let deletes = self.entries.iter().filter(|entry| entry.change.is_none() && entry.hlc <= time);
        let covered = self.with_ancestors(deletes.clone().flat_map(|delete| delete.before.iter().copied()));
        let changed = here.iter().filter_map(|hash| times.get(hash)).copied();
        Version {
            deleted: !here.is_empty() && here.is_subset(&covered),
            modified: changed.chain(deletes.map(|delete| delete.hlc)).max().unwrap_or(Hlc::ZERO),
            heads: here.difference(&before).copied().collect(),
        }
    }

    fn with_ancestors(&self, heads: impl Iterator<Item = ChangeHash>) -> BTreeSet<ChangeHash> {
        let mut all = BTreeSet::new();
        let mut open: Vec<ChangeHash> = heads.collect();
        while let Some(hash) = open.pop() {
            if all.insert(hash) {
                open.extend(self.builds_on.get(&hash).into_iter().flatten());
            }
        }
        all
    }

    /// Returns whether all of these are changes of the document.
    #[must_use]
    pub fn knows(&self, heads: &[ChangeHash]) -> bool {
        heads.iter().all(|head| self.builds_on.contains_key(head))
    }

    /// Returns the content at some heads, as far as all of these rights let see it; none if one is no accepted change of it.
    #[must_use]
    pub fn content(&self, heads: &[ChangeHash], rights: &[FieldRights]) -> Option<Value> {
        if heads.is_empty() {
            return Some(Value::Map(BTreeMap::new()));
        }
        if !self.knows(heads) {
            return None;
        }
        let heads = self.document.view_heads(heads)?;
        let content = json::to_value_at(self.document.view(), &heads);
        Some(rights.iter().fold(content, redact::redact))
    }

    /// Returns the document as it was at a time, with what stays the same of how it is; none if it did not exist.
    pub(super) fn view_at(&self, now: View, time: Hlc) -> Option<View> {
        let Version { heads, deleted, modified } = self.at(time);
        let content = self.content(&heads, &[]).filter(|_| !deleted && !heads.is_empty())?;
        Some(View { heads, deleted, modified, json: json::render_value(&content).into(), ..now })
    }

    /// Returns the document with its history as Automerge saves it: all accepted changes, and no void one. Where others build on void
    /// changes they are written again without them, and their hashes in the file are not those of versions.
    ///
    /// # Errors
    /// What Automerge says, which would be a fault.
    pub fn file(&self) -> Result<Vec<u8>, String> {
        guarded(|| self.document.view_with_history().save())
    }

    /// Returns the JSON patch from one version to another, as far as they may be seen; none if a head is no accepted change of it.
    #[must_use]
    pub fn diff(&self, from: &[ChangeHash], to: &[ChangeHash], rights: &[FieldRights]) -> Option<Vec<Value>> {
        let patch = diff::of_values(&self.content(from, rights)?, &self.content(to, rights)?);
        Some(patch.iter().map(crate::document::edit::Operation::to_value).collect())
    }

    /// Returns what a change did, as a JSON patch, as far as it may be seen. A delete has none.
    #[must_use]
    pub fn patch_of(&self, entry: &HistoryEntry, rights: &[FieldRights]) -> Option<Vec<Value>> {
        self.diff(&entry.before, &[entry.change?], rights)
    }
}
