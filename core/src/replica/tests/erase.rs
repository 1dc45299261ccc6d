//! Erased documents are gone everywhere, whatever was under way.

use super::super::records::RequestRecord;
use super::*;
use crate::op::{Act, Erase, Revoke, RevokeTarget};
use crate::store::keys::{ChangeKey, Key as _};
use crate::store::{Keyspace, Order, Span, envelope};

const SECRET: &str = "planted-secret";

fn key(id: &str) -> DocKey {
    DocKey { collection: collection(), doc: doc(id) }
}

fn erasure(docs: &[&str]) -> ActRequest {
    let documents: BTreeSet<DocId> = docs.iter().map(|id| doc(id)).collect();
    let documents = documents.into_iter().collect();
    ActRequest::One(Act::Erase(Erase { collection: collection(), documents, why: "asked for".to_owned() }))
}

fn secret(n: u32) -> DocWrite {
    put(&format!(r#"{{"n":{n},"text":"{SECRET} {n}"}}"#))
}

impl Lab {
    /// Writes several documents in one transaction.
    fn write_all(&mut self, node: usize, items: &[(&str, DocWrite)]) -> WriteOutcome {
        self.ticket += 1;
        let ticket = self.ticket;
        let item = |(id, write): &(&str, DocWrite)| WriteItem {
            doc: doc(id),
            write: write.clone(),
            precondition: Precondition::None,
            base: None,
            bytes: 100,
        };
        let items = items.iter().map(item).collect();
        let limits = WriteLimits::none();
        let request = WriteRequest { collection: collection(), principal: None, request: None, limits, items };
        self.step(node, Input::Write { ticket, request });
        self.settle(node);
        self.nodes[node].done.remove(&ticket).unwrap().unwrap()
    }

    /// Returns where a store still says something.
    fn says(&self, node: usize, what: &str) -> Vec<Keyspace> {
        let store = &self.nodes[node].store;
        let holds = |keyspace: &Keyspace| {
            let mut entries = store.scan(*keyspace, &Span::all(), Order::Ascending).map(Result::unwrap);
            entries.any(|(_, value)| value.windows(what.len()).any(|part| part == what.as_bytes()))
        };
        Keyspace::ALL.into_iter().filter(holds).collect()
    }

    fn is_shown_erased(&self, node: usize, id: &str) -> bool {
        let view = Reader::new(self.nodes[node].store.clone()).get(&key(id)).unwrap();
        view.is_some_and(|view| view.erased && view.deleted && view.json.is_empty() && view.heads.is_empty())
    }

    fn assert_erased(&self, node: usize, id: &str) {
        assert!(self.is_shown_erased(node, id), "{id} on {node}");
        assert_eq!(self.says(node, SECRET), Vec::new(), "on {node}");
        assert_eq!(self.nodes[node].replica.erasure_stage(&key(id)), Some(ErasureStage::Gone), "on {node}");
        let left = self.nodes[node].store.scan(Keyspace::Keys, &Span::all(), Order::Ascending).count();
        assert_eq!(left, 0);
    }

    fn receipts(&self, node: usize, act: OpId) -> usize {
        self.nodes[node].replica.authority().erasure(act).unwrap().receipts.len()
    }

    /// Ends the process of a node and starts it again.
    fn restart(&mut self, node: usize, store: Arc<MemoryStore>) {
        let identity = self.nodes[node].replica.identity().clone();
        for other in 0..self.nodes.len() {
            if other != node {
                self.cut(node, other);
            }
        }
        self.ticket += 1;
        self.open(identity, store, node, Vec::new());
    }
}

#[test]
fn an_erased_document_is_gone_on_every_node() {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    let mut hashes = BTreeSet::new();
    for n in 0..80 {
        let outcome = lab.try_write(n as usize % 2, "a", secret(n), Some(n as u8)).unwrap();
        hashes.extend(outcome.items[0].heads.clone());
        lab.run(1);
    }
    lab.try_write(0, "a", secret(79), Some(200)).unwrap();
    lab.write(0, "gone", secret(1));
    lab.write(0, "gone", DocWrite::Delete);
    lab.write(0, "kept", put(r#"{"text":"kept"}"#));
    lab.run(20);
    assert!(lab.says(2, SECRET).len() > 1 && !hashes.is_empty());
    // One is away, and the others go on without it.
    lab.cut(0, 2);
    lab.cut(1, 2);
    let fed = Reader::new(lab.nodes[1].store.clone()).feed_end().unwrap();
    let act = lab.act(0, Signer::Node, erasure(&["a", "gone", "never"])).unwrap().op;
    // Here it is gone at once, before anything is carried out.
    assert!(lab.is_shown_erased(0, "a") && lab.is_shown_erased(0, "never"));
    lab.run(60);
    for node in [0, 1] {
        for id in ["a", "gone", "never"] {
            lab.assert_erased(node, id);
        }
        let store = &lab.nodes[node].store;
        for hash in &hashes {
            assert!(store.get(Keyspace::Index, &ChangeKey(*hash).encode()).unwrap().is_none(), "its name is a hash");
        }
        // So are the versions in answers to requests.
        let answers = store.scan(Keyspace::Requests, &Span::all(), Order::Ascending).map(Result::unwrap);
        let records: Vec<_> =
            answers.map(|(_, value)| RequestRecord::decode(&envelope::open(value).unwrap()).unwrap()).collect();
        assert!(records.len() > 10 && records.iter().all(|record| record.told.is_none()), "on {node}");
        assert_eq!(lab.json(node, "kept").unwrap(), r#"{"text":"kept"}"#);
    }
    assert_eq!(lab.receipts(1, act), 2);
    let feed = Reader::new(lab.nodes[1].store.clone()).feed(fed, None, "", 10, &|_, _| Ok(true)).unwrap().entries;
    let fed: BTreeSet<&str> =
        feed.iter().filter(|entry| entry.view.erased).map(|entry| entry.key.doc.as_str()).collect();
    assert_eq!(fed, BTreeSet::from(["a", "gone", "never"]));
    // The id is dead.
    for node in [0, 1] {
        for write in [secret(1), DocWrite::Delete] {
            let refused = lab.try_write(node, "a", write, None);
            assert!(matches!(&refused, Err(WriteError::Erased(id)) if *id == doc("a")), "{refused:?}");
        }
        // A retry of what was done is not answered with what it was.
        assert!(matches!(lab.try_write(node, "a", secret(7), Some(7)), Err(WriteError::Erased(_))));
    }
    // The one that was away wrote on. Of that nothing is kept, but of what it wrote elsewhere in the same transaction.
    lab.write_all(2, &[("a", secret(1_000)), ("b", put(r#"{"with":"a"}"#))]);
    lab.write(2, "a", secret(1_001));
    assert!(lab.json(2, "a").is_some());
    lab.connect(0, 2);
    lab.run(80);
    for node in 0..3 {
        lab.assert_erased(node, "a");
        assert_eq!(lab.json(node, "b").unwrap(), r#"{"with":"a"}"#, "on {node}");
        assert!(lab.nodes[node].replica.tx_states().values().all(|count| *count == 0));
    }
    assert_eq!(lab.receipts(0, act), 3);
    lab.assert_converged();
    // A start finds nothing to do, and hides it still.
    let store = lab.nodes[1].store.clone();
    lab.restart(1, store);
    lab.assert_erased(1, "a");
    assert!(matches!(lab.try_write(1, "a", secret(1), None), Err(WriteError::Erased(_))));
    assert_eq!(lab.nodes[1].replica.erasure_figures(), ErasureFigures { hidden: 0, swept: 0, gone: 3 });
    lab.run(5);
    assert_eq!(lab.receipts(1, act), 3);
}

#[test]
fn an_erasure_goes_on_after_a_crash_at_any_commit() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    // More than one slice of the pass.
    for n in 0..600 {
        lab.write(0, &format!("a{}", n % 3), secret(n));
    }
    lab.run(20);
    lab.cut(0, 1);
    lab.nodes[0].disks = Some(Vec::new());
    lab.act(0, Signer::Node, erasure(&["a0", "a1", "a2"])).unwrap();
    lab.run(60);
    lab.assert_erased(0, "a0");
    let disks = lab.nodes[0].disks.take().unwrap();
    assert!(disks.len() > 4, "{}", disks.len());
    for (crash, disk) in disks.into_iter().enumerate() {
        // The first commit is that of the act itself: from then on nobody sees the documents.
        lab.restart(0, Arc::new(disk));
        assert!(lab.is_shown_erased(0, "a1"), "crash {crash}");
        lab.run(60);
        for id in ["a0", "a1", "a2"] {
            lab.assert_erased(0, id);
        }
        let store: Arc<dyn Store> = lab.nodes[0].store.clone();
        assert_eq!(verify(&store, lab.nodes[0].replica.identity().cluster, |_| {}).damage, Vec::new());
    }
}

#[test]
fn an_old_copy_of_a_node_erases_again() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(1, "a", secret(1));
    lab.write(1, "kept", put("{}"));
    lab.run(10);
    let copy = Arc::new(lab.nodes[1].store.clone_synced());
    let act = lab.act(0, Signer::Node, erasure(&["a"])).unwrap().op;
    lab.run(60);
    lab.assert_erased(1, "a");
    lab.restart(1, copy);
    assert!(lab.json(1, "a").is_some(), "it has not heard of it");
    lab.connect(0, 1);
    lab.run(80);
    lab.assert_erased(1, "a");
    assert_eq!(lab.receipts(1, act), 2);
    lab.assert_converged();
}

#[test]
fn a_disk_that_is_still_read_is_scrubbed_later_and_told_of_only_then() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "a", secret(1));
    lab.run(10);
    lab.scrubs_in_vain = 2;
    let act = lab.act(0, Signer::Node, erasure(&["a"])).unwrap().op;
    lab.run(30);
    assert_eq!((lab.receipts(0, act), lab.scrubs), (0, 2), "both tried, and neither came to anything");
    let figures = lab.nodes[0].replica.erasure_figures();
    assert_eq!((figures.hidden, figures.swept, figures.gone), (0, 1, 0));
    lab.run(100);
    assert_eq!(lab.receipts(0, act), 2);
    lab.assert_erased(0, "a");
}

#[test]
fn what_an_erasure_that_counts_no_more_has_taken_stays_gone_where_it_was_carried_out() {
    let mut lab = Lab::new(&[BuiltInRole::Admin, BuiltInRole::Editor]);
    lab.write(0, "a", secret(1));
    lab.run(20);
    let view = lab.json(0, "a");
    // An admin's key is stolen, and what it does reaches one other node.
    lab.cut(0, 1);
    lab.cut(0, 2);
    lab.connect(1, 2);
    lab.act(1, Signer::Node, erasure(&["a"])).unwrap();
    lab.run(60);
    lab.assert_erased(2, "a");
    lab.cut(1, 2);
    let target = RevokeTarget::Principal(lab.nodes[1].replica.identity().principal);
    let act = Act::Revoke(Revoke { target, pins: Vec::new(), cascade: false, why: "stolen".to_owned() });
    lab.act(0, Signer::Owner, ActRequest::One(act)).unwrap();
    lab.connect(0, 2);
    lab.run(60);
    // Who had not carried it out has it still; who had does not, and the id is no longer dead.
    assert_eq!(lab.json(0, "a"), view);
    assert!(!lab.is_shown_erased(2, "a") && lab.says(2, SECRET).is_empty());
    assert_eq!(lab.nodes[2].replica.erasure_figures(), ErasureFigures::default());
    lab.write(2, "a", put(r#"{"again":1}"#));
    assert_eq!(lab.json(2, "a").unwrap(), r#"{"again":1}"#);
    for node in [0, 2] {
        let store: Arc<dyn Store> = lab.nodes[node].store.clone();
        assert_eq!(verify(&store, lab.nodes[node].replica.identity().cluster, |_| {}).damage, Vec::new());
    }
}

#[test]
fn what_was_hidden_only_is_shown_again_if_the_erasure_counts_no_more() {
    let mut lab = Lab::new(&[BuiltInRole::Admin]);
    lab.write(0, "a", secret(1));
    lab.write(0, "a", secret(2));
    lab.run(20);
    let view = lab.json(0, "a");
    lab.act(1, Signer::Node, erasure(&["a"])).unwrap();
    // It comes, and the revocation right behind it, before any op was gone through.
    while !lab.is_shown_erased(0, "a") {
        let (to, from, lane, bytes) = lab.wire.pop_front().unwrap();
        lab.step(to, Input::Net(NetInput::Frame { peer: from, lane, bytes }));
        let mut effects = Vec::new();
        lab.nodes[to].replica.flush(lab.now, &mut effects);
        lab.carry_out(to, effects);
    }
    assert!(lab.json(0, "a").is_none() && !lab.says(0, SECRET).is_empty());
    let target = RevokeTarget::Principal(lab.nodes[1].replica.identity().principal);
    let act = Act::Revoke(Revoke { target, pins: Vec::new(), cascade: false, why: "stolen".to_owned() });
    lab.act(0, Signer::Owner, ActRequest::One(act)).unwrap();
    lab.run(20);
    assert_eq!(lab.json(0, "a"), view);
    assert_eq!(lab.nodes[0].replica.erasure_figures(), ErasureFigures::default());
    lab.write(0, "a", put(r#"{"again":1}"#));
    let store: Arc<dyn Store> = lab.nodes[0].store.clone();
    assert_eq!(verify(&store, lab.nodes[0].replica.identity().cluster, |_| {}).damage, Vec::new());
}

#[test]
fn a_transaction_that_waits_for_an_erased_document_waits_no_longer() {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    lab.write(0, "a", secret(1));
    lab.write(0, "b", put(r#"{"n":0}"#));
    lab.run(20);
    lab.cut(0, 2);
    lab.cut(1, 2);
    // What builds on it reaches the third node before it does.
    lab.write(1, "a", secret(2));
    lab.run(10);
    lab.write_all(0, &[("a", secret(3)), ("b", put(r#"{"n":1}"#))]);
    let one = lab.nodes[1].replica.identity().node.author();
    let cluster = lab.nodes[0].replica.identity().cluster;
    lab.connect(0, 2);
    let is_by_one = |op: &Vec<u8>| Op::decode(op, cluster).is_ok_and(|op| op.header().author == one);
    for _ in 0..200 {
        for node in 0..3 {
            lab.settle(node);
        }
        let Some((to, from, lane, bytes)) = lab.wire.pop_front() else {
            lab.now.monotonic_ms += 100;
            for node in 0..3 {
                lab.step(node, Input::Net(NetInput::Tick));
            }
            continue;
        };
        let holds = replication::forge_run(&bytes, |ops| ops.iter().any(is_by_one).then_some(ops)).is_some();
        if !(to == 2 && holds) {
            lab.step(to, Input::Net(NetInput::Frame { peer: from, lane, bytes }));
        }
    }
    assert_eq!(lab.nodes[2].replica.tx_states().get(&TxState::Waiting), Some(&1));
    assert_eq!(lab.json(2, "b").unwrap(), r#"{"n":0}"#);
    lab.act(0, Signer::Node, erasure(&["a"])).unwrap();
    lab.run(80);
    assert_eq!(lab.json(2, "b").unwrap(), r#"{"n":1}"#);
    for node in 0..3 {
        lab.assert_erased(node, "a");
    }
    lab.assert_converged();
}
