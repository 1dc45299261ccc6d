//! The log in the store: records, the hashes of complete subtrees, what the node signed, and indexes.
//!
//! Every record has its leaf's hash beside it, and of every 256 leaves, and every 256 of those hashes, and so on, the hash is kept. So
//! what was appended costs one hash more to keep in 256, and a proof reads a few hundred entries, however long the log is.
//!
//! A node may have several logs, one after the other: it begins another where it cannot prove that it knows the end of the one before.
//! They are numbered in the store by *ordinals*; outside they are known by the eight random bytes of their [`LogId`].

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::note::{Checkpoint, Note};
use super::record::{AuditDecision, Record};
use super::tree::{self, Frontier, Hash, Nodes, node_hash};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ClusterId, CollectionName, OpId, ParseIdError, PrincipalId, SessionId};
use crate::limits::AUDIT_NOTE_BYTES_MAX;
use crate::op::codec;
use crate::store::{Batch, Keyspace, Order, Read, Span, StoreError, envelope};

/// Leaves of a block, and hashes of a tier that make one of the next: 2^8.
pub(super) const TIER_LEVELS: u8 = 8;
/// See [`TIER_LEVELS`].
pub(super) const BLOCK: u64 = 1 << TIER_LEVELS;
/// Logs that one node may have begun.
pub const LOGS_MAX: usize = 4_096;
/// Bytes of what is kept of a log.
const STATE_BYTES_MAX: usize = 256;

/// Which log: of which node, in which cluster. As text it is the origin of checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LogId {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node, whose key signs.
    pub node: AuthorKey,
    /// Drawn when the log was begun.
    pub incarnation: SessionId,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folkmoot/{}/{}/{}", self.cluster, self.node, self.incarnation)
    }
}

impl FromStr for LogId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let other = ParseIdError::Hex { kind: "log id", chars: 16 };
        let mut parts = text.strip_prefix("folkmoot/").ok_or(other.clone())?.split('/');
        let mut next = || parts.next().ok_or(other.clone());
        let id = Self { cluster: next()?.parse()?, node: next()?.parse()?, incarnation: next()?.parse()? };
        if id.to_string() == text { Ok(id) } else { Err(other) }
    }
}

/// Names a record of a node's logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecordId {
    /// Of which log; the one that is written if not said.
    pub incarnation: Option<SessionId>,
    /// Which record of it; the first is 0.
    pub index: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.incarnation {
            Some(incarnation) => write!(f, "{incarnation}-{}", self.index),
            None => self.index.fmt(f),
        }
    }
}

impl FromStr for RecordId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let index = |text: &str| text.parse().map_err(|_| ParseIdError::Hex { kind: "record id", chars: 16 });
        match text.split_once('-') {
            Some((incarnation, number)) => Ok(Self { incarnation: Some(incarnation.parse()?), index: index(number)? }),
            None => Ok(Self { incarnation: None, index: index(text)? }),
        }
    }
}

/// Why the log cannot be read or gone on with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The store cannot be read.
    #[error("read the audit log")]
    Store(#[from] StoreError),
    /// Something is missing or not what it should be.
    #[error("the audit log is damaged: {0}; run `folkmoot audit verify`")]
    Damaged(String),
    /// There is no such record, or it was dropped because of its age.
    #[error(
        "there is no record {0} in the audit log, or it was dropped because of its age, or is younger than the last checkpoint"
    )]
    NotFound(RecordId),
    /// There is no such op.
    #[error("there is no op {0} here")]
    OpNotFound(OpId),
}

/// What is kept of a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogState {
    /// Drawn when it was begun.
    pub incarnation: SessionId,
    /// When, in milliseconds since 1970.
    pub begun_ms: u64,
    /// Records appended.
    pub size: u64,
    /// The first record that is still here.
    pub first: u64,
    /// Bytes of the records that are here.
    pub bytes: u64,
    /// Time of the last record.
    pub last: Hlc,
}

/// For how long records are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// At least so long, in milliseconds.
    pub age_ms: u64,
    /// Unless there are more bytes of them.
    pub bytes: u64,
}

impl Default for Retention {
    /// 400 days: a year, and time to look at it. A gigabyte.
    fn default() -> Self {
        Self { age_ms: 400 * 24 * 3_600_000, bytes: 1 << 30 }
    }
}

// Layout of keys: docs/format.md, "Store". Numbers are big-endian.
const LOG: u8 = 0;
const RECORD: u8 = 1;
const NODE: u8 = 2;
const NOTE: u8 = 3;
const PEER_NOTE: u8 = 4;
/// What this node knows of the logs of others.
pub(super) const WITNESS: u8 = 5;
const BY_PRINCIPAL: u8 = 6;
const BY_COLLECTION: u8 = 7;
const BY_DECISION: u8 = 8;

pub(super) fn key(kind: u8, ordinal: u32, parts: &[&[u8]]) -> Vec<u8> {
    [&[kind][..], &ordinal.to_be_bytes(), &parts.concat()].concat()
}

fn record_key(ordinal: u32, index: u64) -> Vec<u8> {
    key(RECORD, ordinal, &[&index.to_be_bytes()])
}

/// All records of a log from one on.
pub(super) fn records_from(ordinal: u32, index: u64) -> Span {
    Span::prefix(key(RECORD, ordinal, &[])).starting_at(&record_key(ordinal, index))
}

pub(super) fn node_key(ordinal: u32, level: u8, index: u64) -> Vec<u8> {
    key(NODE, ordinal, &[&[level / TIER_LEVELS], &index.to_be_bytes()])
}

/// An index of records, in the order of their times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Index {
    Principal(PrincipalId),
    Collection(CollectionName),
    /// Of what was not allowed or failed.
    Decision(AuditDecision),
}

impl Index {
    pub(super) fn prefix(&self) -> Vec<u8> {
        match self {
            Self::Principal(id) => [&[BY_PRINCIPAL][..], id.as_bytes()].concat(),
            Self::Collection(name) => [&[BY_COLLECTION][..], name.as_str().as_bytes(), &[0]].concat(),
            Self::Decision(decision) => vec![BY_DECISION, decision.code()],
        }
    }

    pub(super) fn key(&self, hlc: Hlc, ordinal: u32, index: u64) -> Vec<u8> {
        [&self.prefix()[..], &hlc.raw().to_be_bytes(), &ordinal.to_be_bytes(), &index.to_be_bytes()].concat()
    }

    /// Reads what stands behind the prefix of a key.
    pub(super) fn place(&self, key: &[u8]) -> Option<(Hlc, u32, u64)> {
        let (hlc, rest) = key.get(self.prefix().len()..)?.split_first_chunk()?;
        let (ordinal, rest) = rest.split_first_chunk()?;
        let index = rest.try_into().ok()?;
        Some((Hlc::from_raw(u64::from_be_bytes(*hlc)), u32::from_be_bytes(*ordinal), u64::from_be_bytes(index)))
    }

    /// The indexes that a record is in.
    fn of(record: &Record) -> impl Iterator<Item = Self> {
        let event = &record.event;
        let decision = (event.decision != AuditDecision::Allowed).then_some(Self::Decision(event.decision));
        let principal = event.principal.map(Self::Principal);
        [principal, event.collection.clone().map(Self::Collection), decision].into_iter().flatten()
    }
}

pub(super) fn damaged(what: impl fmt::Display) -> LogError {
    LogError::Damaged(what.to_string())
}

fn value(read: &dyn Read, key: &[u8]) -> Result<Option<Bytes>, LogError> {
    let value = read.get(Keyspace::Audit, key)?;
    value.map(|value| envelope::open(value).map_err(damaged)).transpose()
}

/// Takes a stored record apart: the hash of its leaf, and its bytes.
pub(super) fn stored(value: &Bytes) -> Option<(Hash, Bytes)> {
    let hash = *value.first_chunk::<32>()?;
    Some((hash, value.slice(32..)))
}

/// Returns the record at a place, with the hash kept beside it.
pub(super) fn stored_record(read: &dyn Read, ordinal: u32, index: u64) -> Result<Option<(Hash, Bytes)>, LogError> {
    let Some(value) = value(read, &record_key(ordinal, index))? else { return Ok(None) };
    stored(&value).map(Some).ok_or_else(|| damaged(format!("record {index} is too short")))
}

pub(super) fn stored_node(read: &dyn Read, ordinal: u32, level: u8, index: u64) -> Result<Option<Hash>, LogError> {
    let Some(value) = value(read, &node_key(ordinal, level, index))? else { return Ok(None) };
    let hash =
        value[..].try_into().map_err(|_| damaged(format!("hash {index} of level {level} has a wrong length")))?;
    Ok(Some(hash))
}

fn note_at(read: &dyn Read, key: &[u8]) -> Result<Option<Note>, LogError> {
    let Some(value) = value(read, key)? else { return Ok(None) };
    let text = std::str::from_utf8(&value).map_err(damaged)?;
    Note::parse(text).map(Some).map_err(damaged)
}

/// Returns the logs that a node has begun, by ordinal.
///
/// # Errors
/// [`LogError`] if the store cannot be read.
pub fn logs(read: &dyn Read) -> Result<Vec<(u32, LogState)>, LogError> {
    let entries = read.scan(Keyspace::Audit, &Span::prefix([LOG]), Order::Ascending).take(LOGS_MAX);
    entries
        .map(|entry| {
            let (key, value) = entry?;
            let ordinal = key.get(1..).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
            let value = envelope::open(value).map_err(damaged)?;
            let state: LogState = codec::decode(&value, STATE_BYTES_MAX).map_err(damaged)?;
            if state.first > state.size {
                return Err(damaged("it would begin behind its end"));
            }
            Ok((ordinal.ok_or_else(|| damaged("key of a log"))?, state))
        })
        .collect()
}

/// Returns the last checkpoint of a log that was signed, with all that peers have said of it.
///
/// # Errors
/// [`LogError`] if the store cannot be read or it is none.
pub fn last_note(read: &dyn Read, ordinal: u32) -> Result<Option<Note>, LogError> {
    note_at(read, &key(NOTE, ordinal, &[]))
}

/// Returns the last checkpoint of a log that each peer signed.
///
/// # Errors
/// [`LogError`] if the store cannot be read.
pub fn peers_notes(read: &dyn Read, ordinal: u32) -> Result<Vec<Note>, LogError> {
    let entries = read.scan(Keyspace::Audit, &Span::prefix(key(PEER_NOTE, ordinal, &[])), Order::Ascending);
    let keys = entries.map(|entry| Ok(entry?.0)).collect::<Result<Vec<_>, StoreError>>()?;
    keys.iter().filter_map(|key| note_at(read, key).transpose()).collect()
}

/// Returns a record, by the log's place among the logs and its own.
///
/// # Errors
/// [`LogError::NotFound`], or what is wrong with it.
pub fn read_record(read: &dyn Read, id: RecordId) -> Result<(u32, Record), LogError> {
    let logs = logs(read)?;
    let found = match id.incarnation {
        None => logs.last(),
        Some(incarnation) => logs.iter().find(|(_, state)| state.incarnation == incarnation),
    };
    let (ordinal, _) = found.ok_or(LogError::NotFound(id))?;
    let (_, bytes) = stored_record(read, *ordinal, id.index)?.ok_or(LogError::NotFound(id))?;
    Ok((*ordinal, Record::decode(&bytes).map_err(|error| damaged(format!("record {id}: {error}")))?))
}

/// Returns a record's name, for people and programs.
#[must_use]
pub fn record_text(incarnation: SessionId, index: u64) -> String {
    RecordId { incarnation: Some(incarnation), index }.to_string()
}

/// The tree of a log in a store.
pub(super) struct Stored<'a> {
    pub(super) read: &'a dyn Read,
    pub(super) ordinal: u32,
}

impl Nodes for Stored<'_> {
    type Error = LogError;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, LogError> {
        let found = match level {
            0 => stored_record(self.read, self.ordinal, index)?.map(|(hash, _)| hash),
            _ if level.is_multiple_of(TIER_LEVELS) => stored_node(self.read, self.ordinal, level, index)?,
            _ => Some(node_hash(&self.subtree(level - 1, 2 * index)?, &self.subtree(level - 1, 2 * index + 1)?)),
        };
        found.ok_or_else(|| damaged(format!("the hash of subtree {index} of level {level} is missing")))
    }
}

/// The log that a node writes. It is no store of its own: it says what is to be written in a batch.
#[derive(Clone, Debug)]
pub struct Log {
    id: LogId,
    ordinal: u32,
    state: LogState,
    frontier: Frontier,
    /// Bytes of the records of all logs.
    bytes_total: u64,
}

impl Log {
    /// Opens the log that was written last; none if there is none.
    ///
    /// # Errors
    /// [`LogError`] if it cannot be gone on with: then a new one must be begun.
    pub fn open(read: &dyn Read, cluster: ClusterId, node: AuthorKey) -> Result<Option<Self>, LogError> {
        let logs = logs(read)?;
        let bytes_total = logs.iter().map(|(_, state)| state.bytes).sum();
        let Some((ordinal, state)) = logs.into_iter().next_back() else { return Ok(None) };
        let tree = Stored { read, ordinal };
        let mut frontier = Frontier::default();
        for level in (0..u64::BITS as u8).step_by(usize::from(TIER_LEVELS)).rev() {
            while state.size - frontier.size() >= 1 << level {
                frontier.append_subtree(level, tree.subtree(level, frontier.size() >> level)?, |_| {});
            }
        }
        let id = LogId { cluster, node, incarnation: state.incarnation };
        if let Some(note) = last_note(read, ordinal)?
            && (note.checkpoint.log != id
                || note.checkpoint.size > state.size
                || tree::root(&tree, note.checkpoint.size)? != note.checkpoint.root)
        {
            return Err(damaged("it is not the one of which the last checkpoint was signed"));
        }
        Ok(Some(Self { id, ordinal, state, frontier, bytes_total }))
    }

    /// Begins a new log behind all others.
    ///
    /// # Errors
    /// [`LogError`] if the store cannot be read, or there are too many already.
    pub fn begin(
        read: &dyn Read,
        cluster: ClusterId,
        node: AuthorKey,
        incarnation: SessionId,
        now_ms: u64,
    ) -> Result<Self, LogError> {
        let logs = logs(read).unwrap_or_default();
        // The keys alone count: what is damaged keeps its place.
        let last = read.last(Keyspace::Audit, &Span::prefix([LOG]))?;
        let last = last.and_then(|(key, _)| key.get(1..).and_then(|bytes| bytes.try_into().ok()));
        let ordinal = last.map_or(0, |last| u32::from_be_bytes(last).saturating_add(1));
        if ordinal as usize >= LOGS_MAX {
            return Err(damaged("there are too many logs already"));
        }
        let after = logs.last().map_or(Hlc::ZERO, |(_, state)| state.last);
        let state = LogState { incarnation, begun_ms: now_ms, size: 0, first: 0, bytes: 0, last: after };
        let bytes_total = logs.iter().map(|(_, state)| state.bytes).sum();
        let id = LogId { cluster, node, incarnation };
        Ok(Self { id, ordinal, state, frontier: Frontier::default(), bytes_total })
    }

    /// Returns which log this is.
    #[must_use]
    pub const fn id(&self) -> LogId {
        self.id
    }

    /// Returns its place among the node's logs.
    #[must_use]
    pub const fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Returns what there is of it.
    #[must_use]
    pub const fn state(&self) -> &LogState {
        &self.state
    }

    /// Appends a record, whose time is set; returns its place. Costs O(log n).
    pub fn append(&mut self, batch: &mut Batch, mut record: Record, now_ms: u64) -> u64 {
        let ordinal = self.ordinal;
        record.hlc = Hlc::new(now_ms, 0).max(self.state.last.next());
        let bytes = record.encode();
        let leaf = tree::leaf_hash(&bytes);
        let index = self.frontier.size();
        let mut put = |key: Vec<u8>, value: &[u8]| batch.put(Keyspace::Audit, key, envelope::enclose(value));
        put(record_key(ordinal, index), &[&leaf[..], &bytes].concat());
        for of in Index::of(&record) {
            put(of.key(record.hlc, ordinal, index), &[]);
        }
        self.frontier.append(leaf, |subtree| {
            if subtree.level.is_multiple_of(TIER_LEVELS) {
                put(node_key(ordinal, subtree.level, subtree.index), &subtree.hash);
            }
        });
        self.state.size = self.frontier.size();
        self.state.bytes += bytes.len() as u64;
        self.bytes_total += bytes.len() as u64;
        self.state.last = record.hlc;
        self.write_state(batch);
        index
    }

    fn write_state(&self, batch: &mut Batch) {
        batch.put(Keyspace::Audit, key_of_log(self.ordinal), envelope::enclose(&codec::encode(&self.state)));
    }

    /// Returns what there is to sign now.
    #[must_use]
    pub fn checkpoint(&self, extensions: Vec<String>) -> Checkpoint {
        Checkpoint { log: self.id, size: self.frontier.size(), root: self.frontier.root(), extensions }
    }

    /// Keeps a checkpoint that was signed.
    pub fn keep_note(&self, batch: &mut Batch, note: &Note) {
        let mut text = note.text();
        if text.len() > AUDIT_NOTE_BYTES_MAX {
            text = note.alone().text();
        }
        batch.put(Keyspace::Audit, key(NOTE, self.ordinal, &[]), envelope::enclose(text.as_bytes()));
    }

    /// Keeps a checkpoint that a peer countersigned.
    pub fn keep_peers_note(&self, batch: &mut Batch, peer: &AuthorKey, note: &Note) {
        let key = key(PEER_NOTE, self.ordinal, &[peer.as_bytes()]);
        batch.put(Keyspace::Audit, key, envelope::enclose(note.text().as_bytes()));
    }

    /// Returns the hashes that prove that the log now begins with what it was at `first`.
    ///
    /// # Errors
    /// [`LogError`] if the store cannot be read.
    pub fn consistency(&self, read: &dyn Read, first: u64) -> Result<Vec<Hash>, LogError> {
        self.consistency_between(read, first, self.state.size)
    }

    /// Returns the hashes that prove that what the log was at `second` begins with what it was at `first`.
    ///
    /// # Errors
    /// [`LogError`] if the store cannot be read.
    pub fn consistency_between(&self, read: &dyn Read, first: u64, second: u64) -> Result<Vec<Hash>, LogError> {
        tree::consistency(&Stored { read, ordinal: self.ordinal }, first, second)
    }

    /// Returns the root that the log had at a size.
    ///
    /// # Errors
    /// [`LogError`] if the store cannot be read.
    pub fn root_at(&self, read: &dyn Read, size: u64) -> Result<Hash, LogError> {
        tree::root(&Stored { read, ordinal: self.ordinal }, size)
    }

    /// Drops a block of the oldest records if it is to go; returns how many records that are. Their hashes stay in the block's.
    ///
    /// # Errors
    /// [`LogError`] if the store cannot be read.
    pub fn expire(
        &mut self,
        read: &dyn Read,
        batch: &mut Batch,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<u64, LogError> {
        let logs = logs(read)?;
        let oldest = logs.into_iter().find(|(_, state)| state.size - state.first >= BLOCK);
        let Some((ordinal, mut state)) = oldest else { return Ok(0) };
        let span = records_from(ordinal, state.first);
        let mut records = Vec::new();
        for entry in read.scan(Keyspace::Audit, &span, Order::Ascending).take(BLOCK as usize) {
            let (key, value) = entry?;
            let (_, bytes) = stored(&envelope::open(value).map_err(damaged)?).ok_or_else(|| damaged("a record"))?;
            records.push((key, bytes));
        }
        let parsed: Vec<Option<Record>> = records.iter().map(|(_, bytes)| Record::decode(bytes).ok()).collect();
        let newest = parsed.iter().flatten().map(|record| record.hlc.millis()).max().unwrap_or(0);
        let is_old = newest.saturating_add(retention.age_ms) < now_ms;
        if !is_old && self.bytes_total <= retention.bytes {
            return Ok(0);
        }
        let mut bytes_gone = 0;
        for (at, ((key, bytes), record)) in (state.first..).zip(records.into_iter().zip(parsed)) {
            bytes_gone += bytes.len() as u64;
            batch.delete(Keyspace::Audit, key);
            for of in record.iter().flat_map(Index::of) {
                let hlc = record.as_ref().map_or(Hlc::ZERO, |record| record.hlc);
                batch.delete(Keyspace::Audit, of.key(hlc, ordinal, at));
            }
        }
        state.first += BLOCK;
        state.bytes = state.bytes.saturating_sub(bytes_gone);
        self.bytes_total = self.bytes_total.saturating_sub(bytes_gone);
        if ordinal == self.ordinal {
            (self.state.first, self.state.bytes) = (state.first, self.state.bytes.saturating_sub(bytes_gone));
            self.write_state(batch);
        } else {
            batch.put(Keyspace::Audit, key_of_log(ordinal), envelope::enclose(&codec::encode(&state)));
        }
        Ok(BLOCK)
    }
}

fn key_of_log(ordinal: u32) -> Vec<u8> {
    key(LOG, ordinal, &[])
}
