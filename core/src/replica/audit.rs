//! The audit: now and then all heads and views are read again in small steps and compared with what is counted of them.
//!
//! What is wrong is told as damage, with its place; nothing is mended here. A pass reads one snapshot, in which heads, ops,
//! views and the counts of shards belong together whatever is written meanwhile.

use std::collections::BTreeMap;

use super::flush::{doc_entry, shard_record_key};
use super::load::Published;
use super::records::{HeadRecord, ShardRecord, ViewRecord};
use super::types::Effect;
use super::{Now, Replica};
use crate::id::{OpId, ShardId, StreamId};
use crate::op::{Op, codec};
use crate::replication::ShardDigest;
use crate::store::keys::{DocKey, Key as _, OpKey};
use crate::store::{Keyspace, Order, Read, Span, envelope};

/// Time from the start to the first pass: a node that has just started has other work.
pub(super) const FIRST_AFTER_MS: u64 = 10 * 60 * 1_000;
/// Time between two passes.
pub(super) const INTERVAL_MS: u64 = 24 * 60 * 60 * 1_000;
/// Heads or views of one step, a millisecond or two. Steps come several times a second.
pub(super) const STEP_ENTRIES: usize = 512;
/// Damage of one pass that is told one by one.
const TOLD_MAX: u64 = 16;

/// When the store is audited, and how far that is.
pub(super) struct Audit {
    due_ms: u64,
    pass: Option<Pass>,
    /// Damage met outside of passes and not told yet, at most [`TOLD_MAX`].
    met: Vec<String>,
}

/// What is read now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Heads,
    Views,
}

/// What the views of a shard make.
#[derive(Default)]
struct Sum {
    digest: ShardDigest,
    documents: u64,
    bytes: u64,
}

struct Pass {
    snapshot: Box<dyn Read>,
    stage: Stage,
    /// The last key read.
    after: Option<Vec<u8>>,
    sums: BTreeMap<ShardId, Sum>,
    found: Vec<String>,
}

impl Audit {
    /// Returns whether a pass is under way.
    #[cfg(test)]
    pub(super) const fn is_running(&self) -> bool {
        self.pass.is_some()
    }

    pub(super) const fn new(now: Now) -> Self {
        Self { due_ms: now.monotonic_ms.saturating_add(FIRST_AFTER_MS), pass: None, met: Vec::new() }
    }
}

impl Replica {
    /// Does a step of the audit, if it is time for one.
    pub(super) fn audit_step(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.halted.is_some() || now.monotonic_ms < self.audit.due_ms {
            return;
        }
        let mut pass = self.audit.pass.take().unwrap_or_else(|| Pass {
            snapshot: self.store.snapshot(),
            stage: Stage::Heads,
            after: None,
            sums: BTreeMap::new(),
            found: Vec::new(),
        });
        let told = pass.found.len();
        let is_done = self.read_on(&mut pass);
        for detail in pass.found.iter().skip(told) {
            self.counters.damage_found += 1;
            if self.counters.damage_found <= TOLD_MAX {
                effects.push(Effect::Alarm { kind: "damage", detail: detail.clone() });
            }
        }
        if is_done {
            self.counters.audits += 1;
            self.audit.due_ms = now.monotonic_ms.saturating_add(INTERVAL_MS);
        } else {
            self.audit.pass = Some(pass);
        }
    }

    /// Remembers damage that was met on the way; the next flush tells of it.
    pub(super) fn note_damage(&mut self, detail: String) {
        self.counters.damage_found += 1;
        if self.counters.damage_found <= TOLD_MAX {
            self.audit.met.push(detail);
        }
    }

    /// Tells of damage that was met.
    pub(super) fn tell_damage(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.audit.met.drain(..).map(|detail| Effect::Alarm { kind: "damage", detail }));
    }

    /// Reads the next entries; returns whether the pass is over.
    fn read_on(&self, pass: &mut Pass) -> bool {
        let keyspace = match pass.stage {
            Stage::Heads => Keyspace::Heads,
            Stage::Views => Keyspace::Views,
        };
        let span = match &pass.after {
            Some(key) => Span::all().after(key),
            None => Span::all(),
        };
        let mut count = 0;
        for entry in pass.snapshot.scan(keyspace, &span, Order::Ascending).take(STEP_ENTRIES) {
            let (key, value) = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    pass.found.push(format!("read keyspace {keyspace}: {error}"));
                    return true;
                }
            };
            count += 1;
            let checked = match pass.stage {
                Stage::Heads => self.audit_head(&*pass.snapshot, &key, value),
                Stage::Views => self.audit_view(&mut pass.sums, &key, value),
            };
            pass.found.extend(checked.err());
            pass.after = Some(key.to_vec());
        }
        if count == STEP_ENTRIES {
            return false;
        }
        pass.after = None;
        match pass.stage {
            Stage::Heads => {
                pass.stage = Stage::Views;
                false
            }
            Stage::Views => {
                self.audit_shards(pass);
                true
            }
        }
    }

    /// A head is the last op of its chain, and what the replication engine goes by.
    fn audit_head(&self, store: &dyn Read, key: &[u8], value: bytes::Bytes) -> Result<(), String> {
        let stream = StreamId::decode(key).map_err(|error| format!("key of a head: {error}"))?;
        let damaged = |what: &dyn std::fmt::Display| format!("head of the stream {stream}: {what}");
        let value = envelope::open(value).map_err(|error| damaged(&error))?;
        let head = HeadRecord::decode(&value).map_err(|error| damaged(&error))?;
        let op_at = |seq| -> Result<Option<OpId>, String> {
            let Some(value) =
                store.get(Keyspace::Ops, &OpKey::new(stream, seq).encode()).map_err(|error| damaged(&error))?
            else {
                return Ok(None);
            };
            let value = envelope::open(value).map_err(|error| damaged(&error))?;
            Op::decode(&value, self.identity.cluster).map(|op| Some(op.id())).map_err(|error| damaged(&error))
        };
        if op_at(head.seq)? != Some(head.head) {
            return Err(damaged(&format_args!("the op {} is not at {}", head.head, head.seq)));
        }
        if op_at(head.seq.saturating_add(1))?.is_some() {
            return Err(damaged(&format_args!("the chain goes on after {}", head.seq)));
        }
        match self.engine.durable_tip(&head.key.shard, stream) {
            Some(tip) if tip.seq == head.seq && tip.id != head.head => {
                Err(damaged(&format_args!("{} in memory, {} on the disk", tip.id, head.head)))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn audit_view(&self, sums: &mut BTreeMap<ShardId, Sum>, key: &[u8], value: bytes::Bytes) -> Result<(), String> {
        let key = DocKey::decode(key).map_err(|error| format!("key of a view: {error}"))?;
        let damaged = |what: &dyn std::fmt::Display| format!("view of {}/{}: {what}", key.collection, key.doc);
        let value = envelope::open(value).map_err(|error| damaged(&error))?;
        let view = ViewRecord::decode(&value).map_err(|error| damaged(&error))?;
        let shard = ShardId::of_document(&key.collection, &key.doc, self.shards_of(&key.collection));
        let sum = sums.entry(shard).or_default();
        if !view.deleted {
            sum.documents += 1;
            sum.bytes += view.json.len() as u64;
        }
        if !view.heads.is_empty() {
            let published = Published { heads: view.heads, deleted: view.deleted, json_bytes: 0, feed: view.feed };
            sum.digest.add(&doc_entry(&key, &published));
        }
        Ok(())
    }

    /// What is counted of a shard is what its views make.
    fn audit_shards(&self, pass: &mut Pass) {
        let shards: Vec<ShardId> =
            self.shards.keys().chain(pass.sums.keys()).filter(|shard| !shard.is_control()).cloned().collect();
        let sums = std::mem::take(&mut pass.sums);
        for shard in shards.into_iter().collect::<std::collections::BTreeSet<_>>() {
            let empty = Sum::default();
            let sum = sums.get(&shard).unwrap_or(&empty);
            let record =
                pass.snapshot.get(Keyspace::Meta, &shard_record_key(&shard)).map_err(|error| error.to_string());
            let record = record.and_then(|value| match value {
                None => Ok(ShardRecord::default()),
                Some(value) => {
                    let value = envelope::open(value).map_err(|error| error.to_string())?;
                    ShardRecord::decode(&value).map_err(|error| error.to_string())
                }
            });
            let counted = record.and_then(|record| {
                let digest = match record.digest.as_slice() {
                    [] => ShardDigest::default(),
                    bytes => codec::decode(bytes, 64).map_err(|error| error.to_string())?,
                };
                Ok((digest, record.documents, record.bytes))
            });
            match counted {
                Ok(counted) if counted == (sum.digest, sum.documents, sum.bytes) => {}
                Ok((_, documents, bytes)) => pass.found.push(format!(
                    "shard {shard}: the views make {} documents of {} bytes with another digest than the {documents} of \
                     {bytes} that are counted",
                    sum.documents, sum.bytes
                )),
                Err(error) => pass.found.push(format!("record of the shard {shard}: {error}")),
            }
        }
    }
}
