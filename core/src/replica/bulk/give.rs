//! Documents given to a peer.

use serde_bytes::ByteBuf;

use super::super::records::ViewRecord;
use super::super::{Replica, load};
use super::is_given;
use crate::document::gate;
use crate::hlc::Hlc;
use crate::id::{DocId, ShardId};
use crate::replication::limits::{DOCUMENT_CHANGES_MAX, DOCUMENTS_BYTES_MAX};
use crate::replication::{BulkDocument, Part};
use crate::store::keys::{DocKey, Key as _, TailKey};
use crate::store::{Keyspace, Order, envelope};

/// Documents looked at for one page: most may be of other shards or parts, unchanged, or not fit for bulk.
const LOOKED_AT_MAX: usize = 4_096;

impl Replica {
    /// Reads documents for a peer. Those with deletes, void changes or a long history are left out.
    pub(in super::super) fn read_documents(
        &self,
        shard: &ShardId,
        after: Option<&DocId>,
        part: Part,
        since: Option<Hlc>,
    ) -> (Vec<BulkDocument>, Option<DocId>) {
        let mut span = DocKey::collection(&shard.collection);
        if let Some(after) = after {
            span = span.after(&DocKey { collection: shard.collection.clone(), doc: after.clone() }.encode());
        }
        let mut documents = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        for (count, entry) in self.store.scan(Keyspace::Views, &span, Order::Ascending).enumerate() {
            if count >= LOOKED_AT_MAX || documents.len() >= self.bulks.page_documents {
                return (documents, last);
            }
            let Some((key, value)) = entry.ok() else { return (documents, None) };
            let Ok(key) = DocKey::decode(&key) else { continue };
            if part.holds(&key.doc)
                && !self.is_erased(&key)
                && ShardId::of_document(&key.collection, &key.doc, shard.of) == *shard
                && let Some(document) = self.bulk_document(&key, value, since)
            {
                let size: usize = document.changes.iter().map(|change| change.len()).sum();
                if bytes + size > DOCUMENTS_BYTES_MAX && !documents.is_empty() {
                    return (documents, last);
                }
                bytes += size;
                documents.push(document);
            }
            last = Some(key.doc);
        }
        (documents, None)
    }

    fn bulk_document(&self, key: &DocKey, view: bytes::Bytes, since: Option<Hlc>) -> Option<BulkDocument> {
        let view = ViewRecord::decode(&envelope::open(view).ok()?).ok()?;
        if !is_given(&view) || since.is_some_and(|since| view.modified <= since) {
            return None;
        }
        let changes = match self.only_change(key, &view).or_else(|| self.tail_changes(key, &view)) {
            Some(changes) => changes,
            None => {
                let loaded = load::load(&*self.store, key).ok()?;
                loaded.document.changes_with_deps().map(|(_, _, bytes)| ByteBuf::from(bytes.to_vec())).collect()
            }
        };
        let size: usize = changes.iter().map(|change| change.len()).sum();
        let fits = !changes.is_empty() && changes.len() <= DOCUMENT_CHANGES_MAX && size <= DOCUMENTS_BYTES_MAX;
        fits.then(|| BulkDocument { doc: key.doc.clone(), modified: view.modified, changes })
    }

    /// Returns the change of a document that has one: it need not be loaded for that.
    fn only_change(&self, key: &DocKey, view: &ViewRecord) -> Option<Vec<ByteBuf>> {
        let [head] = view.heads[..] else { return None };
        if view.changes != 1 {
            return None;
        }
        let key = TailKey { doc: key.clone(), change: head };
        let value = self.store.get(Keyspace::Tail, &key.encode()).ok()??;
        Some(vec![ByteBuf::from(envelope::open(value).ok()?)])
    }

    /// Returns the changes of a document that has no snapshot, each behind those that it depends on.
    fn tail_changes(&self, key: &DocKey, view: &ViewRecord) -> Option<Vec<ByteBuf>> {
        let mut rest = Vec::new();
        for entry in self.store.scan(Keyspace::Tail, &TailKey::document(key), Order::Ascending) {
            let bytes = envelope::open(entry.ok()?.1).ok()?;
            let scan = gate::prescan(&bytes).ok()?;
            rest.push((scan.hash, scan.deps, bytes));
        }
        if rest.len() as u64 != view.changes {
            return None;
        }
        let mut ordered = Vec::with_capacity(rest.len());
        while !rest.is_empty() {
            let is_behind = |deps: &[_]| deps.iter().all(|dep| !rest.iter().any(|(hash, ..)| hash == dep));
            let next = rest.iter().position(|(_, deps, _)| is_behind(deps))?;
            ordered.push(ByteBuf::from(rest.remove(next).2));
        }
        Some(ordered)
    }
}
