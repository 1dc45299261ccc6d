//! Pages of documents: who is asked for which part, and what becomes of the answers.

use super::super::api::{BulkDocument, Effect, Lane, Peer, Taken, Ticket, Timestamp};
use super::super::engine::{Cx, Engine};
use super::super::frame::{Documents, DocumentsAsk, Frame};
use super::super::limits as bounds;
use super::super::misdeed::Misbehaviour;
use super::super::serve::Question;
use super::{Bulk, BulkStage, Page, PartState};
use crate::id::{DocId, ShardId};

impl Engine {
    // ---- asking ----

    /// Asks for pages wherever there is a part to ask for and a peer with a free place.
    pub(in super::super) fn schedule_documents(&mut self, cx: &mut Cx<'_>) {
        let shards: Vec<ShardId> = self
            .bulks
            .iter()
            .filter(|(_, bulk)| bulk.stage == BulkStage::Documents)
            .map(|(shard, _)| shard.clone())
            .collect();
        for shard in shards {
            self.schedule_parts(cx, &shard);
        }
    }

    fn schedule_parts(&mut self, cx: &mut Cx<'_>, shard: &ShardId) {
        loop {
            let free = self.free_givers(cx, shard);
            let Some(bulk) = self.bulks.get_mut(shard) else { return };
            // No more parts than are asked for: each is a look at all documents for whoever gives it.
            let places: usize = free.iter().map(|(_, places)| places).sum();
            while bulk.open_parts() < places && bulk.halve() {}
            let Some(part) = bulk.parts.iter().position(|part| part.page == Page::None) else { return };
            let last = bulk.parts.get(part).and_then(|part| part.last);
            // In turns, where there is a choice: nobody keeps a part back by giving little of it.
            let best =
                free.iter().max_by_key(|(peer, places)| (*places, Some(*peer) != last, std::cmp::Reverse(*peer)));
            let Some((peer, _)) = best.copied() else { return };
            self.ask_for_page(cx, shard, part, peer);
        }
    }

    /// Returns who may be asked for another page, and for how many: those that failed lately only if there is nobody else.
    fn free_givers(&self, cx: &Cx<'_>, shard: &ShardId) -> Vec<(Peer, usize)> {
        let Some(bulk) = self.bulks.get(shard) else { return Vec::new() };
        let may = |peer: &&Peer| self.shares(cx, peer, &shard.collection);
        let is_sound = |peer: &&Peer| !bulk.failures.contains_key(*peer);
        let mut peers: Vec<Peer> = bulk.candidates.iter().filter(may).filter(is_sound).copied().collect();
        if peers.is_empty() {
            peers = bulk.candidates.iter().filter(may).copied().collect();
        }
        let places = |peer| bounds::BULK_PAGES_PER_PEER_MAX.saturating_sub(self.pages_under_way(&peer));
        peers.into_iter().map(|peer| (peer, places(peer))).filter(|(_, places)| *places > 0).collect()
    }

    fn pages_under_way(&self, peer: &Peer) -> usize {
        self.bulks.values().map(|bulk| bulk.under_way(peer)).sum()
    }

    fn ask_for_page(&mut self, cx: &mut Cx<'_>, shard: &ShardId, part: usize, peer: Peer) {
        let request = self.request();
        let Some(bulk) = self.bulks.get_mut(shard) else { return };
        let Some(state) = bulk.parts.get_mut(part) else { return };
        state.page = Page::Asked { peer, request, at: cx.now };
        let (part, after, since) = (state.part, state.after.clone(), bulk.since);
        let ask = DocumentsAsk { request, shard: shard.clone(), after, part, since };
        if !self.send(cx, peer, &Frame::DocumentsAsk(ask)) {
            self.page_failed(shard, request);
        }
    }

    /// A page does not come: its part is open again, and the peer left alone until it is heard of.
    fn page_failed(&mut self, shard: &ShardId, request: u32) {
        let Some(bulk) = self.bulks.get_mut(shard) else { return };
        let Some(part) = bulk.part_of(request) else { return };
        let peer = part.page.peer();
        part.page = Page::None;
        if let Some(peer) = peer {
            bulk.failed(peer, 1);
        }
    }

    /// Gives pages that do not come to others, and shards up of which nobody gives documents.
    pub(in super::super) fn sweep_bulks(&mut self, cx: &mut Cx<'_>) {
        let sharing: Vec<ShardId> = {
            let introduced = self.introduced();
            let is_shared = |shard: &&ShardId| introduced.iter().any(|peer| self.shares(cx, peer, &shard.collection));
            self.bulks.keys().filter(is_shared).cloned().collect()
        };
        // Where nobody is there to ask, time does not count.
        for (_, bulk) in self.bulks.iter_mut().filter(|(shard, _)| !sharing.contains(shard)) {
            bulk.progress_at = cx.now;
        }
        let mut late = Vec::new();
        let mut hopeless = Vec::new();
        for (shard, bulk) in self.bulks.iter().filter(|(_, bulk)| bulk.stage == BulkStage::Documents) {
            for part in &bulk.parts {
                if let Page::Asked { peer, request, at } = part.page
                    && self.is_page_late(cx.now, bulk, peer, at)
                {
                    late.push((shard.clone(), request));
                }
            }
            let is_under_way = bulk.parts.iter().any(|part| part.page != Page::None);
            let may_come_back = |peer: &Peer| bulk.failures.get(peer).is_some_and(|n| *n < bounds::BULK_FAILURES_MAX);
            let is_over = bulk.failures.values().any(|failures| *failures >= bounds::BULK_FAILURES_MAX)
                && bulk.candidates.is_empty()
                && !self.introduced().iter().any(may_come_back);
            let is_stuck = bulk.progress_at.after(bounds::BULK_PATIENCE) <= cx.now;
            if !is_under_way && (is_over || is_stuck) {
                hopeless.push(shard.clone());
            }
        }
        for (shard, request) in late {
            self.counters.bulk_pages_late += 1;
            self.page_failed(&shard, request);
        }
        for shard in hopeless {
            self.documents_done(cx, &shard);
        }
    }

    /// Returns whether a page is no longer waited for: its time is over, or somebody who has nothing to do could give it.
    fn is_page_late(&self, now: Timestamp, bulk: &Bulk, peer: Peer, asked_at: Timestamp) -> bool {
        let is_idle =
            |other: &&Peer| **other != peer && !bulk.failures.contains_key(*other) && self.pages_under_way(other) == 0;
        asked_at.after(bounds::REQUEST_TIMEOUT) <= now
            || (asked_at.after(bounds::PULL_PATIENCE) <= now && bulk.candidates.iter().any(|other| is_idle(&other)))
    }

    /// The peer cannot answer now.
    pub(in super::super) fn bulk_refused(&mut self, peer: &Peer, request: u32) {
        if let Some(shard) = self.shard_asked(*peer, request) {
            self.page_failed(&shard, request);
        }
    }

    fn shard_asked(&self, peer: Peer, request: u32) -> Option<ShardId> {
        let is_asked = |part: &PartState| matches!(part.page, Page::Asked { peer: of, request: asked, .. } if of == peer && asked == request);
        self.bulks.iter().find(|(_, bulk)| bulk.parts.iter().any(is_asked)).map(|(shard, _)| shard.clone())
    }

    /// Forgets a peer that is gone: others are asked for what it owes.
    pub(in super::super) fn forget_bulk_source(&mut self, peer: &Peer) {
        for bulk in self.bulks.values_mut() {
            bulk.candidates.remove(peer);
            for part in &mut bulk.parts {
                if matches!(part.page, Page::Asked { peer: asked, .. } if asked == *peer) {
                    part.page = Page::None;
                }
            }
        }
    }

    // ---- taking ----

    pub(in super::super) fn documents(&mut self, cx: &mut Cx<'_>, peer: Peer, bytes: usize, page: Documents) {
        let asked = self.shard_asked(peer, page.request);
        let bulk = asked.as_ref().and_then(|shard| self.bulks.get_mut(shard));
        let (Some(shard), Some(bulk)) = (asked.clone(), bulk) else {
            // Late: somebody else was asked meanwhile.
            return self.idle(cx, peer, Lane::Snapshot, bytes, 0);
        };
        let Some(state) = bulk.part_of(page.request) else { return };
        let (part, after) = (state.part, state.after.clone());
        let is_forward = |id: Option<&DocId>| id.is_none_or(|id| after.as_ref().is_none_or(|after| id > after));
        let belongs = |document: &BulkDocument| {
            part.holds(&document.doc) && ShardId::of_document(&shard.collection, &document.doc, shard.of) == shard
        };
        let fits = is_forward(page.next.as_ref())
            && is_forward(page.documents.first().map(|document| &document.doc))
            && page.documents.iter().all(belongs);
        if !fits {
            self.release(cx, peer, Lane::Snapshot, bytes);
            self.page_failed(&shard, page.request);
            return self.wrong_answer(cx, peer);
        }
        let is_last = page.next.is_none();
        state.page = Page::Storing { peer, request: page.request, bytes, before: state.after.take(), is_last };
        // Of a part that ends here nothing comes after this in the store either.
        state.after = page.next.or_else(|| page.documents.last().map(|last| last.doc.clone())).or(after);
        state.last = Some(peer);
        bulk.failures.remove(&peer);
        bulk.progress_at = cx.now;
        bulk.pages += 1;
        bulk.documents += page.documents.len() as u64;
        bulk.bytes += bytes as u64;
        bulk.total = bulk.total.max(page.total);
        if !page.documents.is_empty() && bulk.givers.len() < bounds::BULK_GIVERS_MAX {
            bulk.givers.insert(peer);
        }
        self.counters.bulk_documents += page.documents.len() as u64;
        self.counters.bulk_bytes += bytes as u64;
        let (request, documents) = (page.request, page.documents);
        cx.effects.push(Effect::TakeDocuments { request, from: peer, shard, documents });
    }

    pub(in super::super) fn documents_taken(&mut self, cx: &mut Cx<'_>, shard: &ShardId, request: u32, outcome: Taken) {
        let Some(bulk) = self.bulks.get_mut(shard) else { return };
        let Some(state) = bulk.part_of(request) else { return };
        let Page::Storing { peer, bytes, before, is_last, .. } = std::mem::replace(&mut state.page, Page::None) else {
            return;
        };
        match outcome {
            Taken::Stored if is_last => {
                let done = state.part;
                bulk.parts.retain(|part| part.part != done);
            }
            Taken::Stored => {}
            Taken::Refused => {
                state.after = before;
                bulk.failed(peer, bounds::BULK_FAILURES_MAX);
            }
        }
        let is_done = bulk.parts.is_empty();
        self.release(cx, peer, Lane::Snapshot, bytes);
        if outcome == Taken::Refused {
            self.misbehaved(cx, peer, Misbehaviour::FalseDocuments);
        }
        if is_done {
            self.documents_done(cx, shard);
        }
    }

    // ---- giving ----

    pub(in super::super) fn documents_read(
        &mut self,
        cx: &mut Cx<'_>,
        ticket: Ticket,
        documents: Vec<BulkDocument>,
        next: Option<DocId>,
        total: u64,
    ) {
        let Some(Question::Documents { asker, request }) = self.answered(ticket) else { return };
        self.send(cx, asker, &Frame::Documents(Documents { request, documents, next, total }));
        self.pump(cx, asker);
    }
}

impl Bulk {
    fn open_parts(&self) -> usize {
        self.parts.iter().filter(|part| part.page == Page::None).count()
    }

    fn part_of(&mut self, request: u32) -> Option<&mut PartState> {
        self.parts.iter_mut().find(|part| part.page != Page::None && part.page.request() == request)
    }

    /// Cuts the largest open part in two; not before a first page has shown that there is more than one.
    fn halve(&mut self) -> bool {
        if self.pages == 0 {
            return false;
        }
        let open = self.parts.iter_mut().filter(|part| part.page == Page::None);
        let Some(state) = open.min_by_key(|state| state.part.of()) else { return false };
        let Some([one, other]) = state.part.halves() else { return false };
        state.part = one;
        let (after, last) = (state.after.clone(), state.last);
        self.parts.push(PartState { part: other, after, last, page: Page::None });
        true
    }

    fn failed(&mut self, peer: Peer, times: u8) {
        self.candidates.remove(&peer);
        // Who is not noted is forgotten at worst: it was heard of once more than the table holds.
        if self.failures.contains_key(&peer) || self.failures.len() < bounds::BULK_GIVERS_MAX {
            let failures = self.failures.entry(peer).or_default();
            *failures = failures.saturating_add(times);
        }
    }
}
