//! Checks the logs in a store: records against the tree, the tree against what was signed, what was signed against the ops.

use super::log::{
    BLOCK, LogError, LogState, Stored, TIER_LEVELS, last_note, logs, peers_notes, record_text, records_from, stored,
    stored_node,
};
use super::note::Note;
use super::record::Record;
use super::tree::{Frontier, Nodes as _, Subtree, leaf_hash};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ClusterId, OpId, StreamId};
use crate::op::Op;
use crate::store::keys::OpKey;
use crate::store::{Keyspace, Order, Read, envelope};

/// Damage that is told one by one; the rest is counted.
const DAMAGE_MAX: usize = 1_000;

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditDamage {
    /// Where: a record, a checkpoint, a log.
    pub place: String,
    /// What is wrong.
    pub detail: String,
}

/// What was checked, and what is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditReport {
    /// Logs.
    pub logs: u64,
    /// Records that are here.
    pub records: u64,
    /// Records that were dropped because of their age, whose hashes are here.
    pub expired: u64,
    /// Checkpoints, all signatures on which hold.
    pub checkpoints: u64,
    /// Words of peers on them.
    pub cosignatures: u64,
    /// What is wrong, the first thousand things.
    pub damage: Vec<AuditDamage>,
    /// How many things are wrong.
    pub damage_total: u64,
}

impl AuditReport {
    fn found(&mut self, place: impl Into<String>, detail: impl Into<String>) {
        self.damage_total += 1;
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(AuditDamage { place: place.into(), detail: detail.into() });
        }
    }
}

/// Checks all logs of a node, which has one of these keys or had it before. Reads every record once; keeps little.
#[must_use]
pub fn check_log(read: &dyn Read, cluster: ClusterId, keys: &[AuthorKey]) -> AuditReport {
    let mut report = AuditReport::default();
    match logs(read) {
        Err(error) => report.found("audit log", error.to_string()),
        Ok(logs) => {
            for (at, (ordinal, state)) in logs.iter().enumerate() {
                if usize::try_from(*ordinal).ok() != Some(at) {
                    report.found(format!("log {at}"), "it is missing, or some before it are");
                }
                report.logs += 1;
                if let Err(error) = check_one(read, cluster, keys, *ordinal, state, &mut report) {
                    report.found(format!("log {}", state.incarnation), error.to_string());
                }
            }
            // Records of no log: somebody removed what says that there is one.
            let known = u32::try_from(logs.len()).unwrap_or(u32::MAX);
            if logs.len() < super::log::LOGS_MAX
                && let Ok(Some(_)) = read.first(Keyspace::Audit, &records_from(known, 0))
            {
                report.found(format!("log {known}"), "there are records of a log of which nothing else is here");
            }
        }
    }
    report
}

fn check_one(
    read: &dyn Read,
    cluster: ClusterId,
    keys: &[AuthorKey],
    ordinal: u32,
    state: &LogState,
    report: &mut AuditReport,
) -> Result<(), LogError> {
    let name = |index: u64| record_text(state.incarnation, index);
    let mut notes = notes(read, ordinal, state, report);
    notes.retain(|(note, _)| {
        let log = &note.checkpoint.log;
        let is_ours = log.cluster == cluster && keys.contains(&log.node) && log.incarnation == state.incarnation;
        if !is_ours {
            report.found(format!("log {}", state.incarnation), format!("holds a checkpoint of {log}"));
        }
        is_ours
    });
    let mut checked = Walk { read, ordinal, frontier: Frontier::default(), notes, next: 0 };
    for block in 0..state.first / BLOCK {
        let hash = Stored { read, ordinal }.subtree(TIER_LEVELS, block)?;
        checked.append(TIER_LEVELS, hash, report)?;
    }
    report.expired += state.first;
    let mut last = Hlc::ZERO;
    let mut next = state.first;
    let mut entries = read.scan(Keyspace::Audit, &records_from(ordinal, state.first), Order::Ascending);
    loop {
        let Some(entry) = entries.next() else { break };
        let (key, value) = entry?;
        let index = key.last_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        if index != next {
            report.found(name(next), "the record is missing");
            return Ok(());
        }
        next += 1;
        let Some((kept, bytes)) = envelope::open(value).ok().as_ref().and_then(stored) else {
            report.found(name(index), "the record is too short to be one");
            return Ok(());
        };
        report.records += 1;
        if leaf_hash(&bytes) != kept {
            report.found(name(index), "the record was altered: its hash is another one");
        }
        match Record::decode(&bytes) {
            Ok(record) if record.hlc <= last => report.found(name(index), "the record is older than the one before"),
            Ok(record) => last = record.hlc,
            Err(error) => report.found(name(index), error.to_string()),
        }
        // Where the record alone was altered, the tree is still what was signed.
        checked.append(0, kept, report)?;
    }
    if next != state.size {
        let what = format!("the log ends here, and {} records were written", state.size);
        report.found(name(next), what);
    }
    for (note, whose) in checked.notes.iter().filter(|(note, _)| note.checkpoint.size > next) {
        let what = format!("the log ends here, and a checkpoint of {} records {whose}", note.checkpoint.size);
        report.found(name(next), what);
    }
    if let Some((note, _)) = checked.notes.last() {
        check_streams(read, cluster, note, report);
    }
    Ok(())
}

/// Reads the checkpoints of a log, the smallest first; with each, who signed it, in words.
fn notes(read: &dyn Read, ordinal: u32, state: &LogState, report: &mut AuditReport) -> Vec<(Note, String)> {
    let mut notes = Vec::new();
    match last_note(read, ordinal) {
        Ok(note) => notes.extend(note.map(|note| (note, "was signed by this node".to_owned()))),
        Err(error) => report.found(format!("log {}", state.incarnation), format!("last checkpoint: {error}")),
    }
    match peers_notes(read, ordinal) {
        Ok(of_peers) => notes.extend(of_peers.into_iter().map(|note| {
            let peers: Vec<String> = note.cosignatures.iter().map(|other| other.peer.to_string()).collect();
            let whose = format!("was countersigned by {}", peers.join(", "));
            (note, whose)
        })),
        Err(error) => report.found(format!("log {}", state.incarnation), format!("checkpoint of a peer: {error}")),
    }
    notes.sort_by_key(|(note, _)| note.checkpoint.size);
    report.checkpoints += notes.len() as u64;
    report.cosignatures += notes.iter().map(|(note, _)| note.cosignatures.len() as u64).sum::<u64>();
    notes
}

/// The tree as it grows, held against what is kept of it and what was signed.
struct Walk<'a> {
    read: &'a dyn Read,
    ordinal: u32,
    frontier: Frontier,
    notes: Vec<(Note, String)>,
    next: usize,
}

impl Walk<'_> {
    fn append(&mut self, level: u8, hash: super::tree::Hash, report: &mut AuditReport) -> Result<(), LogError> {
        let mut completed: Vec<Subtree> = Vec::new();
        self.frontier.append_subtree(level, hash, |subtree| completed.push(subtree));
        for Subtree { level, index, hash } in completed {
            if level.is_multiple_of(TIER_LEVELS) && stored_node(self.read, self.ordinal, level, index)? != Some(hash) {
                let (from, to) = (index << level, ((index + 1) << level) - 1);
                report.found(
                    format!("records {from} to {to}"),
                    "one of them was altered: their subtree has another hash",
                );
            }
        }
        while let Some((note, whose)) = self.notes.get(self.next)
            && note.checkpoint.size <= self.frontier.size()
        {
            // What lies within expired blocks cannot be checked any more.
            if note.checkpoint.size == self.frontier.size() && note.checkpoint.root != self.frontier.root() {
                let what = format!("they are not those of which the checkpoint {whose}");
                report.found(format!("records 0 to {}", note.checkpoint.size - 1), what);
            }
            self.next += 1;
        }
        Ok(())
    }
}

/// What a checkpoint says of a stream that the node wrote: the line of extension.
#[must_use]
pub fn stream_line(stream: &StreamId, seq: u64, op: &OpId) -> String {
    format!("stream {stream} {seq} {op}")
}

/// Checks that the node's own streams reach as far as when it signed the checkpoint.
fn check_streams(read: &dyn Read, cluster: ClusterId, note: &Note, report: &mut AuditReport) {
    for line in &note.checkpoint.extensions {
        let mut parts = line.split(' ');
        if parts.next() != Some("stream") {
            continue;
        }
        let stream: Option<StreamId> = parts.next().and_then(|text| text.parse().ok());
        let seq: Option<u64> = parts.next().and_then(|text| text.parse().ok());
        let op: Option<OpId> = parts.next().and_then(|text| text.parse().ok());
        let (Some(stream), Some(seq), Some(op)) = (stream, seq, op) else { continue };
        let has = read.scan(Keyspace::Ops, &OpKey::place(stream, seq), Order::Ascending).any(|entry| {
            let value = entry.ok().and_then(|(_, value)| envelope::open(value).ok());
            value.and_then(|value| Op::decode(&value, cluster).ok()).is_some_and(|found| found.id() == op)
        });
        if !has {
            let what = "the last checkpoint names this op of the node's own, and it is not here";
            report.found(format!("op {op}, number {seq} of stream {stream}"), what);
        }
    }
}
