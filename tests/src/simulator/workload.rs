//! What clients do: small edits of few hot documents, so that nearly everything is concurrent with something.

use std::collections::VecDeque;

use folkmoot_core::document::edit::{Edit, EditFormat};
use folkmoot_core::id::{ChangeHash, RequestId};
use folkmoot_core::replica::{
    DocKey, DocWrite, Input, Precondition, Reader, RequestTicket, TxRef, WriteError, WriteItem, WriteLimits,
    WriteOutcome, WriteRequest,
};

use super::random::Random;
use super::world::{Event, World};
use super::{COLLECTION, SHARDED_COLLECTION};

/// Documents of a collection that are hot at once.
pub(super) const DOCUMENTS: u64 = 6;
/// After this time clients turn to new documents: what a document costs grows with its history, what it finds does not.
pub(super) const HOT_MS: u64 = 60_000;
/// Out of a hundred requests that are about the documents of now; the others are about older ones.
const PERCENT_HOT: u64 = 85;
/// Requests remembered, to be sent again elsewhere.
const RECENT: usize = 8;
/// How many writes of a hundred a node makes for others.
const PERCENT_SERVED: u64 = 25;

/// What the clients know.
#[derive(Default)]
pub(super) struct Workload {
    ticket: RequestTicket,
    /// How often a client was asked to do something, where runs are compared.
    drawn: u64,
    recent: VecDeque<WriteRequest>,
    /// Who acknowledged what.
    pub(super) acknowledged: Vec<(usize, TxRef)>,
}

impl Workload {
    pub(super) const fn asked(&self) -> u64 {
        self.ticket
    }
}

impl World {
    /// One client does one thing.
    pub(super) fn client(&mut self) {
        if self.plan.healed {
            return;
        }
        if self.options.write_every_ms.is_some() {
            // Clients that ask for the same in runs that are compared.
            self.workload.drawn += 1;
            self.random = Random::of(self.options.seed, &[2, self.workload.drawn]);
        }
        let delay = match self.options.write_every_ms {
            _ if self.random.chance(10) => 0,
            Some(mean) => self.random.within(0, 2 * mean),
            None => self.random.within(50, 900),
        };
        self.at(delay, Event::Write);
        let node = self.random.index(self.plan.villain.unwrap_or(self.nodes.len()));
        if self.nodes[node].replica.is_none() {
            return;
        }
        let again = self.random.chance(8).then(|| self.workload.recent.front().cloned()).flatten();
        let request = again.unwrap_or_else(|| {
            let mut request = self.draw_request();
            self.draw_base(node, &mut request);
            request
        });
        if request.request.is_some() {
            self.workload.recent.push_back(request.clone());
            if self.workload.recent.len() > RECENT {
                self.workload.recent.pop_front();
            }
        }
        self.workload.ticket += 1;
        let ticket = self.workload.ticket;
        self.note(|| {
            let writes: Vec<String> =
                request.items.iter().map(|item| format!("{} {:?}", item.doc, item.write)).collect();
            format!("{} write {ticket}: {}", self.nodes[node].name, writes.join("; "))
        });
        self.step(node, Input::Write { ticket, request });
    }

    /// Draws a request.
    pub(super) fn draw_request(&mut self) -> WriteRequest {
        let sharded = self.random.chance(25);
        let collection = if sharded { SHARDED_COLLECTION } else { COLLECTION };
        let count = if !sharded && self.random.chance(20) { 2 + self.random.within(0, 2) } else { 1 };
        let first = self.random.within(0, DOCUMENTS);
        let now = self.elapsed / HOT_MS;
        let time = if self.random.chance(PERCENT_HOT) { now } else { self.random.within(0, now + 1) };
        let items = (0..count).map(|index| {
            let id = format!("d{time}-{}", (first + index) % DOCUMENTS);
            let (write, bytes) = self.draw_write();
            let precondition = match self.random.index(20) {
                0 => Precondition::Exists,
                1 => Precondition::Absent,
                _ => Precondition::None,
            };
            WriteItem { doc: id.parse().expect("a good id"), write, precondition, base: None, bytes }
        });
        let items = items.collect();
        let request = self.random.chance(15).then(|| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&self.random.bits().to_le_bytes());
            RequestId::new(id)
        });
        let collection = collection.parse().expect("a good name");
        let principal = self.random.chance(PERCENT_SERVED).then(|| self.served[self.random.index(self.served.len())]);
        WriteRequest { collection, principal, request, limits: WriteLimits::none(), items }
    }

    fn draw_write(&mut self) -> (DocWrite, usize) {
        let n = self.random.within(0, 1_000);
        let (format, text) = match self.random.index(16) {
            0..=2 => (EditFormat::Document, format!(r#"{{"a":{n},"b":"b{n}","list":[1,{n}]}}"#)),
            3 => (EditFormat::Document, "{}".to_owned()),
            4 | 5 => (EditFormat::MergePatch, format!(r#"{{"a":{n},"o":{{"k{}":{n}}}}}"#, n % 3)),
            6 => (EditFormat::MergePatch, r#"{"b":null,"o":null}"#.to_owned()),
            7 => (EditFormat::Ops, r#"{"ops":[{"op":"counter","path":"/n","value":0}]}"#.to_owned()),
            8..=10 => (EditFormat::Ops, r#"{"ops":[{"op":"increment","path":"/n","by":1}]}"#.to_owned()),
            11 => (EditFormat::Ops, r#"{"ops":[{"op":"text","path":"/t","value":"hello"}]}"#.to_owned()),
            12 | 13 => {
                let splice = format!(r#"{{"op":"splice","path":"/t","index":{},"delete":1,"insert":"x{n}"}}"#, n % 4);
                (EditFormat::Ops, format!(r#"{{"ops":[{splice}]}}"#))
            }
            14 => (EditFormat::JsonPatch, format!(r#"[{{"op":"add","path":"/p","value":{n}}}]"#)),
            _ => return (DocWrite::Delete, 0),
        };
        let edit = Edit::parse(format, text.as_bytes()).expect("a good edit");
        (DocWrite::Edit(edit), text.len())
    }

    /// Some clients edit what they read a moment ago, perhaps on another node.
    fn draw_base(&mut self, node: usize, request: &mut WriteRequest) {
        if !self.random.chance(10) {
            return;
        }
        let seen_on = if self.random.chance(70) { node } else { self.random.index(self.nodes.len()) };
        let reader = Reader::new(self.nodes[seen_on].store.clone());
        for item in &mut request.items {
            let key = DocKey { collection: request.collection.clone(), doc: item.doc.clone() };
            let view = reader.get(&key).ok().flatten();
            let heads: Vec<ChangeHash> = view.map(|view| view.heads).unwrap_or_default();
            item.base = (!heads.is_empty()).then_some(heads);
        }
    }

    pub(super) fn write_done(&mut self, node: usize, ticket: RequestTicket, result: Result<WriteOutcome, WriteError>) {
        self.note(|| match &result {
            Ok(outcome) => format!("{} wrote {ticket}: {:?}", self.nodes[node].name, outcome.tx),
            Err(error) => format!("{} refused {ticket}: {error}", self.nodes[node].name),
        });
        match result {
            Ok(outcome) => {
                self.report.acknowledged += 1;
                // One that was removed and does not know it promises nothing for those who have cut it off.
                let is_cut_off = self.plan.removal_done && self.plan.removed == Some(node);
                if let Some(tx) = outcome.tx
                    && !self.plan.is_equivocator(node)
                    && !is_cut_off
                {
                    self.nodes[node].acknowledged.push(tx);
                    self.workload.acknowledged.push((node, tx));
                }
            }
            Err(error @ WriteError::Damaged { .. }) => {
                self.fail(format!("{} refuses a write: {error}", self.nodes[node].name));
            }
            Err(_) => self.report.refused += 1,
        }
    }
}
