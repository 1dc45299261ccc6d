//! Documents that are erased while nodes are apart, down and restored from backups.

use std::collections::BTreeSet;

use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::op::{Act, Erase};
use folkmoot_core::replica::{ActRequest, DocKey, ErasureStage, Input, Reader, Replica, RequestTicket, Signer};
use folkmoot_core::store::keys::{Key as _, TailKey};
use folkmoot_core::store::{Keyspace, Order, Read as _, Span};

use super::node::Node;
use super::random::Random;
use super::world::{Event, World};
use super::{COLLECTION, SHARDED_COLLECTION, faults::Fault};

/// In every so-manieth world documents are erased; seeds that once failed are none of these, and so stay what they were.
const EVERY: u64 = 5;
const AT: u64 = 4;
const TICKET: RequestTicket = 3;
/// How long a scrub takes, and how many of a hundred come to nothing because somebody reads.
const SCRUB_MS_MAX: u64 = 3_000;
const PERCENT_IN_VAIN: u64 = 20;

/// Returns when documents are erased, and before which of these the nodes are parted.
pub(super) fn faults(seed: u64, minutes: u64, nodes: usize) -> Vec<(u64, Fault)> {
    if seed % EVERY != AT {
        return Vec::new();
    }
    let mut random = Random::new(seed ^ 0x0e2a_5e00);
    let end = minutes * 60_000;
    let mut faults = Vec::new();
    for _ in 0..1 + random.within(0, 5) {
        let at = random.within(end / 10, end);
        if random.chance(60) {
            let split = Fault::Partition(random.within(1, (1 << nodes) - 1));
            faults.push((at.saturating_sub(random.within(0, 10_000)), split));
        }
        faults.push((at, Fault::Erase(random.bits())));
    }
    faults
}

impl World {
    /// The first node erases some documents, hot ones as well as old ones.
    pub(super) fn erase(&mut self, draw: u64) {
        let mut random = Random::new(draw);
        let collection = if random.chance(70) { COLLECTION } else { SHARDED_COLLECTION };
        let now = self.elapsed / super::workload::HOT_MS;
        let documents: BTreeSet<DocId> = (0..1 + random.within(0, 3))
            .map(|_| format!("d{}-{}", random.within(0, now + 1), random.within(0, super::workload::DOCUMENTS)))
            .map(|id| id.parse().expect("a good id"))
            .collect();
        let collection: CollectionName = collection.parse().expect("a good name");
        let act = Act::Erase(Erase { collection, documents: documents.into_iter().collect(), why: String::new() });
        let signer = if random.chance(50) { Signer::Owner } else { Signer::Node };
        self.step(0, Input::Act { ticket: TICKET, signer, request: ActRequest::One(act) });
    }

    /// The disk of a node is scrubbed, in its own time.
    pub(super) fn scrub(&mut self, node: usize) {
        let (delay, life) = (self.random.within(1, SCRUB_MS_MAX), self.nodes[node].life);
        let is_clean = !self.random.chance(PERCENT_IN_VAIN);
        self.at(delay, Event::Scrubbed { node, life, is_clean });
    }

    /// Says what of erasures a node has still to do.
    pub(super) fn erasures_under_way(node: &Node, replica: &Replica) -> Option<String> {
        let figures = replica.erasure_figures();
        if figures.hidden + figures.swept > 0 {
            return Some(format!("{} has erasures under way: {figures:?}", node.name));
        }
        let untold = replica.authority().untold_erasures(node.author()).next();
        untold.map(|(act, _)| format!("{} has not told of the erasure {act}", node.name))
    }

    /// The members agree on what is erased, nobody shows or keeps anything of it, and each has said so.
    pub(super) fn check_erased(&mut self, members: &[usize]) -> Result<(), String> {
        let mut first: Option<BTreeSet<(CollectionName, DocId)>> = None;
        for index in members {
            let node = &self.nodes[*index];
            let Some(replica) = &node.replica else { continue };
            let erased = replica.authority().erased_documents();
            for (collection, doc) in &erased {
                let key = DocKey { collection: collection.clone(), doc: doc.clone() };
                check_gone(node, replica, &key)
                    .map_err(|what| format!("{collection}/{doc} on {}: {what}", node.name))?;
            }
            let bodies = self.ops.all(&*node.store).into_iter().find(|(_, op)| {
                let collection = op.header().collection();
                let is_erased = |doc: &DocId| erased.contains(&(collection.clone(), doc.clone()));
                op.without_bodies(|change| is_erased(&change.doc)).is_some()
            });
            if let Some((_, op)) = bodies {
                return Err(format!("{} keeps the body of an erased document in {}", node.name, op.id()));
            }
            match &first {
                None => first = Some(erased),
                Some(other) if *other == erased => {}
                Some(other) => return Err(format!("{} has erased {erased:?}, another {other:?}", node.name)),
            }
        }
        self.report.erased = first.map_or(0, |erased| erased.len() as u64);
        Ok(())
    }
}

fn check_gone(node: &Node, replica: &Replica, key: &DocKey) -> Result<(), String> {
    let view = Reader::new(node.store.clone()).get(key).map_err(|error| error.to_string())?;
    if !view.as_ref().is_some_and(|view| view.erased && view.json.is_empty() && view.heads.is_empty()) {
        return Err(format!("it is shown as {view:?}"));
    }
    if replica.erasure_stage(key) != Some(ErasureStage::Gone) {
        return Err(format!("it is at {:?}", replica.erasure_stage(key)));
    }
    let exact = |bytes: Vec<u8>| Span::range(bytes.clone(), [bytes, vec![0]].concat());
    let preview = [vec![2], key.encode()].concat();
    let spans = [
        (Keyspace::Views, exact(key.encode())),
        (Keyspace::Snapshots, Span::prefix(key.encode())),
        (Keyspace::Tail, TailKey::document(key)),
        (Keyspace::Keys, exact(key.encode())),
        (Keyspace::Pending, exact(preview)),
    ];
    for (keyspace, span) in spans {
        if node.store.scan(keyspace, &span, Order::Ascending).next().is_some() {
            return Err(format!("something of it is left in {keyspace}"));
        }
    }
    Ok(())
}
