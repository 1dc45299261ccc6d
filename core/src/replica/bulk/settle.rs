//! The end of bulk: what the ops make stands, what is left of the previews goes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Replica;
use super::super::types::Effect;
use super::{LastBulk, PREVIEW_DOCUMENT, change_key, decode_preview, last_key, progress_key};
use crate::id::{AuthorKey, ChangeHash, ShardId};
use crate::replication::BulkProgress;
use crate::store::keys::{ChangeKey, ChangePlace, DocKey, Key as _, TailKey};
use crate::store::{Keyspace, Order, Span, StoreError};

/// Previews settled in one step: some ms of work.
const SETTLED_MAX: usize = 1_024;

/// A shard whose previews are being settled.
pub(in super::super) struct Ending {
    /// Whose ops are ours.
    equal: BTreeSet<AuthorKey>,
    /// The previews are judged when what has arrived until now is applied.
    arrivals: u64,
    /// The last key that was settled.
    after: Option<Vec<u8>>,
    /// Documents that no op made, by who gave them.
    refuted: BTreeMap<AuthorKey, u64>,
    last: LastBulk,
}

impl Replica {
    pub(in super::super) fn bulk_ended(&mut self, shard: ShardId, progress: &BulkProgress, equal: BTreeSet<AuthorKey>) {
        let last = LastBulk {
            shard: shard.clone(),
            documents: progress.documents,
            bytes: progress.bytes,
            givers: progress.givers.clone(),
            began_ms: self.bulks.began.remove(&shard).unwrap_or(self.now.wall_ms),
            ended_ms: self.now.wall_ms,
            refuted: 0,
        };
        let arrivals = self.shards.get(&shard).map_or(0, |state| state.arrivals);
        self.bulks.ending.insert(shard, Ending { equal, arrivals, after: None, refuted: BTreeMap::new(), last });
    }

    /// Settles some previews of a shard whose ops are here and applied.
    pub(in super::super) fn settle_previews(&mut self, effects: &mut Vec<Effect>) {
        if self.halted.is_some() || !self.ready.is_empty() || !self.rejudging.is_empty() {
            return;
        }
        let is_applied =
            |shard: &ShardId, arrivals: u64| self.shards.get(shard).is_none_or(|state| state.applied >= arrivals);
        let due = self.bulks.ending.iter().find(|(shard, ending)| is_applied(shard, ending.arrivals));
        let Some(shard) = due.map(|(shard, _)| shard.clone()) else { return };
        let Some(mut ending) = self.bulks.ending.remove(&shard) else { return };
        match self.settle(&shard, &mut ending) {
            Ok(true) => self.bulk_settled(&shard, ending, effects),
            Ok(false) => {
                self.bulks.ending.insert(shard, ending);
            }
            Err(error) => self.halt(format!("read the store: {error}")),
        }
    }

    /// Settles some previews; returns whether they were the last.
    fn settle(&mut self, shard: &ShardId, ending: &mut Ending) -> Result<bool, StoreError> {
        let mut prefix = vec![PREVIEW_DOCUMENT];
        shard.collection.write(&mut prefix);
        let mut span = Span::prefix(prefix);
        if let Some(after) = &ending.after {
            span = span.after(after);
        }
        // What waits may still bring what was previewed.
        let may_judge = self.waits.is_nothing_awaited() && self.spilled.count() == 0;
        let store = self.store.clone();
        for (count, entry) in store.scan(Keyspace::Pending, &span, Order::Ascending).enumerate() {
            if count >= SETTLED_MAX {
                return Ok(false);
            }
            let (place, value) = entry?;
            ending.after = Some(place.to_vec());
            let Some(key) = place.get(1..).and_then(|key| DocKey::decode(key).ok()) else { continue };
            if ShardId::of_document(&key.collection, &key.doc, shard.of) != *shard {
                continue;
            }
            if let Some(preview) = decode_preview(value) {
                let is_true = preview.changes.iter().all(|hash| self.is_brought(&key, hash));
                // No proof against the giver: what counted there when it gave may have been revoked since.
                if !is_true && may_judge && ending.equal.contains(&preview.source) {
                    *ending.refuted.entry(preview.source).or_default() += 1;
                }
                for hash in &preview.changes {
                    self.delete(Keyspace::Pending, change_key(hash));
                }
            }
            self.delete(Keyspace::Pending, place.to_vec());
        }
        Ok(true)
    }

    fn bulk_settled(&mut self, shard: &ShardId, ending: Ending, effects: &mut Vec<Effect>) {
        let mut last = ending.last;
        for (giver, documents) in ending.refuted {
            last.refuted += documents;
            self.counters.false_documents += documents;
            effects.push(Effect::Alarm {
                kind: "false_documents",
                detail: format!(
                    "{documents} documents of {shard} that came in bulk from {giver} are not what the signed ops make; \
                     they are no longer shown"
                ),
            });
        }
        self.counters.bulks += 1;
        self.delete(Keyspace::Pending, progress_key(shard));
        self.put(Keyspace::Pending, last_key(), &last.encode());
        self.bulks.last = Some(last);
        self.bulks.unseen_after = self.next_batch;
    }

    /// Returns whether an op brought this change of the document.
    fn is_brought(&mut self, key: &DocKey, change: &ChangeHash) -> bool {
        // Most lie beside their document still. What does not is looked for by the index, without a look at the document: it
        // would be loaded for this alone.
        let tail = TailKey { doc: key.clone(), change: *change };
        if self.store.get(Keyspace::Tail, &tail.encode()).is_ok_and(|found| found.is_some()) {
            return true;
        }
        let place = self.read_back(Keyspace::Index, &ChangeKey(*change).encode());
        let Some(place) = place.and_then(|value| ChangePlace::decode(&value).ok()) else { return false };
        let op = self.chains().main_op(&place.stream, place.seq);
        op.is_some_and(|op| {
            let transaction = op.header().transactions().get(usize::from(place.transaction));
            let change = transaction.and_then(|transaction| transaction.changes.get(usize::from(place.change)));
            op.header().collection() == &key.collection && change.is_some_and(|change| change.doc == key.doc)
        })
    }
}
