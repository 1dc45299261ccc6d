//! Bulk: a shard of which nothing is here is taken by its documents first, so that they can be read at once.
//!
//! Documents are claims until their ops are here: nothing else rests on them. When the pages are through, the shard is
//! compared and pulled as ever, but bare: an op says which changes it brings and the salts of their commitments, the changes
//! are here already. What does not match a commitment is pulled whole. A page that does not come is asked of the next peer,
//! from where the last one ended.

use super::api::{BulkDocument, Effect, Lane, Peer, Taken, Ticket, Timestamp};
use super::conduct::Misbehaviour;
use super::engine::{Cx, Engine};
use super::frame::{Answer, Documents, DocumentsAsk, Frame};
use super::heads::Place;
use super::limits as bounds;
use super::serve::Question;
use crate::id::{DocId, ShardId};

/// A shard that is taken in bulk.
#[derive(Debug)]
pub(super) struct Bulk {
    source: Peer,
    /// Up to where its documents are here.
    after: Option<DocId>,
    stage: Stage,
    failures: u8,
    documents: u64,
    bytes: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// A page is to be asked for.
    Due,
    /// A page was asked for.
    Asked { request: u32, at: Timestamp },
    /// A page is on its way to the disk; its credit is given back when it is there.
    Storing { bytes: usize, next: Option<DocId> },
    /// All documents are here, or nobody gives them; the ops come now.
    Ops,
}

/// How far a shard is that is taken in bulk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BulkStatus {
    /// The shard.
    pub shard: ShardId,
    /// Who gives the documents, or gave the last.
    pub source: Peer,
    /// Documents received.
    pub documents: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether they are all here, and their ops are pulled.
    pub is_at_ops: bool,
}

impl Engine {
    /// Begins to take a shard in bulk if nothing of it is here; returns whether its documents are still being taken, so that
    /// its ops have to wait.
    pub(super) fn bulk_first(&mut self, cx: &mut Cx<'_>, peer: Peer, shard: &ShardId) -> bool {
        if let Some(bulk) = self.bulks.get(shard) {
            return bulk.stage != Stage::Ops;
        }
        let is_empty = self.heads.shard(shard).is_none_or(|held| held.digest.is_empty());
        if shard.is_control() || !is_empty || self.bulks.len() >= bounds::BULKS_MAX {
            return false;
        }
        let bulk = Bulk { source: peer, after: None, stage: Stage::Due, failures: 0, documents: 0, bytes: 0 };
        self.bulks.insert(shard.clone(), bulk);
        self.ask_for_documents(cx, shard);
        true
    }

    /// Returns whether the changes of a shard's ops are probably here already.
    pub(super) fn pulls_bare(&self, shard: &ShardId) -> bool {
        self.bulks.get(shard).is_some_and(|bulk| bulk.stage == Stage::Ops && bulk.documents > 0)
    }

    /// Returns whether documents of the shard are still being taken.
    pub(super) fn takes_documents(&self, shard: &ShardId) -> bool {
        self.bulks.get(shard).is_some_and(|bulk| bulk.stage != Stage::Ops)
    }

    fn ask_for_documents(&mut self, cx: &mut Cx<'_>, shard: &ShardId) {
        let request = self.request();
        let Some(bulk) = self.bulks.get_mut(shard) else { return };
        let ask = DocumentsAsk { request, shard: shard.clone(), after: bulk.after.clone() };
        bulk.stage = Stage::Asked { request, at: cx.now };
        let source = bulk.source;
        if !self.send(cx, source, &Frame::DocumentsAsk(ask)) {
            self.next_source(cx, shard);
        }
    }

    /// Goes on with the next peer that shares the shard, or without documents if too many failed.
    fn next_source(&mut self, cx: &mut Cx<'_>, shard: &ShardId) {
        let mut peers: Vec<Peer> =
            self.introduced().into_iter().filter(|peer| self.shares(cx, peer, &shard.collection)).collect();
        let Some(bulk) = self.bulks.get_mut(shard) else { return };
        bulk.failures += 1;
        let later = peers.partition_point(|peer| *peer <= bulk.source);
        peers.rotate_left(later);
        match peers.first() {
            Some(next) if bulk.failures < bounds::BULK_FAILURES_MAX => {
                bulk.source = *next;
                // Asked by the next sweep: no peer is asked twice in a moment.
                bulk.stage = Stage::Due;
            }
            Some(_) | None => self.documents_done(cx, shard),
        }
    }

    /// All documents are here that will come: now the ops.
    fn documents_done(&mut self, cx: &mut Cx<'_>, shard: &ShardId) {
        if let Some(bulk) = self.bulks.get_mut(shard) {
            bulk.stage = Stage::Ops;
        }
        for peer in self.introduced() {
            if self.shares(cx, &peer, &shard.collection)
                && let Some(state) = self.peers.get_mut(&peer)
            {
                state.sync_queue.insert(Place::new(shard));
                self.advance_syncs(cx, peer);
            }
        }
    }

    pub(super) fn sweep_bulks(&mut self, cx: &mut Cx<'_>) {
        let due = |bulk: &Bulk| match bulk.stage {
            Stage::Due => true,
            Stage::Asked { at, .. } => at.after(bounds::REQUEST_TIMEOUT) <= cx.now,
            Stage::Storing { .. } | Stage::Ops => false,
        };
        let shards: Vec<ShardId> =
            self.bulks.iter().filter(|(_, bulk)| due(bulk)).map(|(shard, _)| shard.clone()).collect();
        for shard in shards {
            let Some(bulk) = self.bulks.get(&shard) else { continue };
            if bulk.stage == Stage::Due
                && self.peers.get(&bulk.source).is_some_and(|state| state.introduction.is_some())
            {
                self.ask_for_documents(cx, &shard);
            } else {
                self.next_source(cx, &shard);
            }
        }
    }

    /// The source cannot answer now, or is gone.
    pub(super) fn bulk_refused(&mut self, cx: &mut Cx<'_>, peer: &Peer, request: u32) {
        let found = self.bulks.iter().find(|(_, bulk)| {
            bulk.source == *peer && matches!(bulk.stage, Stage::Asked { request: asked, .. } if asked == request)
        });
        if let Some(shard) = found.map(|(shard, _)| shard.clone()) {
            self.next_source(cx, &shard);
        }
    }

    pub(super) fn documents(&mut self, cx: &mut Cx<'_>, peer: Peer, bytes: usize, page: Documents) {
        let found = self.bulks.iter_mut().find(|(_, bulk)| {
            bulk.source == peer && matches!(bulk.stage, Stage::Asked { request, .. } if request == page.request)
        });
        let Some((shard, bulk)) = found else { return self.idle(cx, peer, Lane::Snapshot, bytes, 0) };
        let shard = shard.clone();
        let is_forward = |id: Option<&DocId>| id.is_none_or(|id| bulk.after.as_ref().is_none_or(|after| id > after));
        let fits = is_forward(page.next.as_ref())
            && is_forward(page.documents.first().map(|document| &document.doc))
            && page
                .documents
                .iter()
                .all(|document| ShardId::of_document(&shard.collection, &document.doc, shard.of) == shard);
        if !fits {
            self.release(cx, peer, Lane::Snapshot, bytes);
            self.wrong_answer(cx, peer);
            return self.next_source(cx, &shard);
        }
        bulk.documents += page.documents.len() as u64;
        bulk.bytes += bytes as u64;
        bulk.stage = Stage::Storing { bytes, next: page.next };
        cx.effects.push(Effect::TakeDocuments { from: peer, shard, documents: page.documents });
    }

    pub(super) fn documents_taken(&mut self, cx: &mut Cx<'_>, shard: &ShardId, outcome: Taken) {
        let Some(bulk) = self.bulks.get_mut(shard) else { return };
        let Stage::Storing { bytes, next } = bulk.stage.clone() else { return };
        let source = bulk.source;
        let is_last = next.is_none();
        if outcome == Taken::Stored && !is_last {
            bulk.after = next;
        }
        self.release(cx, source, Lane::Snapshot, bytes);
        match outcome {
            Taken::Refused => {
                self.misbehaved(cx, source, Misbehaviour::FalseDocuments);
                self.next_source(cx, shard);
            }
            Taken::Stored if is_last => self.documents_done(cx, shard),
            Taken::Stored => self.ask_for_documents(cx, shard),
        }
    }

    /// A peer's digest of a shard is ours: nothing is left to be taken, if all came from it.
    pub(super) fn bulk_equal(&mut self, cx: &mut Cx<'_>, peer: Peer) {
        let ended: Vec<ShardId> = self
            .bulks
            .iter()
            .filter(|(shard, bulk)| {
                // If the source is gone, whoever else has the same does as well.
                let may_end = bulk.source == peer || !self.peers.contains_key(&bulk.source);
                bulk.stage == Stage::Ops && may_end && self.shares(cx, &peer, &shard.collection)
            })
            .map(|(shard, _)| shard.clone())
            .collect();
        for shard in ended {
            self.bulks.remove(&shard);
            self.whole.retain(|at| *at.shard() != shard);
            cx.effects.push(Effect::BulkEnded { equal: peer, shard });
        }
    }

    /// Forgets a source that is gone; the next sweep finds another one.
    pub(super) fn forget_bulk_source(&mut self, peer: &Peer) {
        for bulk in self.bulks.values_mut().filter(|bulk| bulk.source == *peer && bulk.stage != Stage::Ops) {
            bulk.stage = Stage::Due;
        }
    }

    /// Returns how far the shards are that are taken in bulk.
    #[must_use]
    pub fn bulks(&self) -> Vec<BulkStatus> {
        let status = |(shard, bulk): (&ShardId, &Bulk)| BulkStatus {
            shard: shard.clone(),
            source: bulk.source,
            documents: bulk.documents,
            bytes: bulk.bytes,
            is_at_ops: bulk.stage == Stage::Ops,
        };
        self.bulks.iter().map(status).collect()
    }

    // ---- bare ops ----

    pub(super) fn bare_range(
        &mut self,
        cx: &mut Cx<'_>,
        peer: Peer,
        bytes: usize,
        request: u32,
        ops: Vec<bytes::Bytes>,
    ) {
        if self.pulls.get(&request).is_none_or(|pull| pull.peer != peer) {
            return self.idle(cx, peer, Lane::Repair, bytes, 0);
        }
        let ticket = self.ticket();
        self.questions.insert(ticket, Question::Complete { peer, request, bytes });
        cx.effects.push(Effect::CompleteOps { ticket, ops });
    }

    /// Goes on with a bare range as with a whole one. If a change is not here as named, the stream is pulled whole.
    pub(super) fn ops_completed(&mut self, cx: &mut Cx<'_>, ticket: Ticket, ops: Vec<bytes::Bytes>) {
        let Some(Question::Complete { peer, request, bytes }) = self.answered(ticket) else { return };
        if ops.is_empty() {
            self.counters.bare_incomplete += 1;
            self.release(cx, peer, Lane::Repair, bytes);
            if let Some(pull) = self.end_pull(request)
                && self.whole.len() < bounds::WHOLE_MAX
            {
                self.whole.insert(pull.at);
            }
            return;
        }
        let ops = ops.into_iter().map(|op| serde_bytes::ByteBuf::from(op.to_vec())).collect();
        self.range(cx, peer, bytes, &Answer { request, ops });
    }

    pub(super) fn documents_read(
        &mut self,
        cx: &mut Cx<'_>,
        ticket: Ticket,
        documents: Vec<BulkDocument>,
        next: Option<DocId>,
    ) {
        let Some(Question::Documents { asker, request }) = self.answered(ticket) else { return };
        self.send(cx, asker, &Frame::Documents(Documents { request, documents, next }));
        self.pump(cx, asker);
    }

    /// Goes on with a shard that was being taken when the node stopped; call before anything else.
    pub fn resume_bulk(&mut self, shard: ShardId, source: Peer, after: DocId) {
        let has_ops = self.heads.shard(&shard).is_some_and(|held| !held.digest.is_empty());
        let stage = if has_ops { Stage::Ops } else { Stage::Due };
        let bulk = Bulk { source, after: Some(after), stage, failures: 0, documents: 1, bytes: 0 };
        self.bulks.insert(shard, bulk);
    }
}
