//! A fresh node takes a shard in bulk: it can be read before any op is here, and believed when all are.

use super::super::bulk::{change_key, preview_key};
use super::*;
use crate::op::{Act, Erase};
use crate::store::keys::{Key as _, TailKey};
use crate::store::{Batch, Keyspace, Order, Span, envelope};

const DOCUMENTS: usize = 40;

/// A full node and a fresh one that has not met it.
fn lab() -> Lab {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.cut(0, 1);
    for number in 0..DOCUMENTS {
        lab.write(0, &format!("d{number}"), put(&format!(r#"{{"n":{number}}}"#)));
        lab.write(0, &format!("d{number}"), put(&format!(r#"{{"m":1,"n":{number}}}"#)));
    }
    lab.write(0, "gone", put("{}"));
    lab.write(0, "gone", DocWrite::Delete);
    lab
}

/// Delivers frame by frame until something holds.
fn run_until(lab: &mut Lab, done: impl Fn(&Lab) -> bool) {
    for _ in 0..10_000 {
        for node in 0..lab.nodes.len() {
            lab.settle(node);
        }
        if done(lab) {
            return;
        }
        match lab.wire.pop_front() {
            Some((to, from, lane, bytes)) => lab.step(to, Input::Net(NetInput::Frame { peer: from, lane, bytes })),
            None => {
                lab.now.monotonic_ms += 100;
                for node in 0..lab.nodes.len() {
                    lab.step(node, Input::Net(NetInput::Tick));
                }
            }
        }
    }
    panic!("it never holds");
}

fn has_all_documents(lab: &Lab) -> bool {
    (0..DOCUMENTS).all(|number| lab.json(1, &format!("d{number}")).is_some())
}

/// Counts what is kept of bulk, but for the record of the last one.
fn previews(lab: &Lab) -> usize {
    let store = &lab.nodes[1].store;
    (2..=4).map(|first: u8| store.scan(Keyspace::Pending, &Span::prefix([first]), Order::Ascending).count()).sum()
}

fn commit(lab: &Lab, node: usize, batch: &Batch) {
    lab.nodes[node].store.commit(batch, Durability::Synced).unwrap();
}

#[test]
fn a_fresh_node_is_read_before_it_has_an_op() {
    let mut lab = lab();
    lab.connect(0, 1);
    run_until(&mut lab, has_all_documents);
    assert_eq!(lab.nodes[1].replica.counters().ops_ingested, 0, "not one op is here");
    assert_eq!(lab.json(1, "d7").unwrap(), r#"{"m":1,"n":7}"#);
    assert!(lab.json(1, "gone").is_none() && previews(&lab) > 0);
    let status = lab.nodes[1].replica.engine().bulks().remove(0);
    assert_eq!(status.progress.documents, DOCUMENTS as u64);
    // The deleted one counts no more.
    assert_eq!(status.progress.total, DOCUMENTS as u64);
    lab.run(60);
    lab.assert_converged();
    let node = &lab.nodes[1];
    assert!(node.replica.counters().ops_ingested > DOCUMENTS as u64);
    assert_eq!(node.replica.engine().counters().bare_incomplete, 0, "every change matched its commitment");
    assert_eq!(
        (previews(&lab), node.replica.counters().false_documents),
        (0, 0),
        "nothing is left of what was previewed"
    );
    assert!(node.replica.engine().bulks().is_empty());
    let last = node.replica.last_bulk().unwrap();
    let giver = lab.nodes[0].replica.identity().node.author();
    assert_eq!((last.documents, last.refuted, &last.givers), (DOCUMENTS as u64, 0, &vec![giver]));
    assert!(!node.replica.previews().may_be(), "readers need not look any more");
}

#[test]
fn what_was_taken_in_bulk_of_an_erased_document_goes_at_once() {
    let mut lab = lab();
    lab.connect(0, 1);
    run_until(&mut lab, has_all_documents);
    let (key, kept) = (DocKey { collection: collection(), doc: doc("d7") }, previews(&lab));
    let erase = Erase { collection: collection(), documents: vec![key.doc.clone()], why: String::new() };
    lab.act(0, Signer::Owner, ActRequest::One(Act::Erase(erase))).unwrap();
    run_until(&mut lab, |lab| lab.nodes[1].replica.authority().is_erased(&key.collection, &key.doc));
    lab.settle(1);
    assert_eq!(lab.nodes[1].replica.counters().ops_ingested, 1, "only the act is here");
    assert!(lab.nodes[1].store.get(Keyspace::Pending, &preview_key(&key)).unwrap().is_none());
    // With it go its two changes, and nothing else.
    assert_eq!(previews(&lab), kept - 3);
    let shown = Reader::new(lab.nodes[1].store.clone()).get(&key).unwrap();
    assert!(shown.is_some_and(|view| view.erased));
    lab.run(80);
    lab.assert_converged();
    assert_eq!(lab.nodes[1].replica.erasure_stage(&key), Some(ErasureStage::Gone));
    assert_eq!(lab.json(1, "d8").unwrap(), r#"{"m":1,"n":8}"#);
}

#[test]
fn a_change_that_is_not_the_one_committed_to_is_pulled_again() {
    let mut lab = lab();
    lab.connect(0, 1);
    run_until(&mut lab, has_all_documents);
    // The bytes of one change stand for another.
    let prefix = Span::prefix([change_key(&ChangeHash::ZERO)[0]]);
    let changes: Vec<_> =
        lab.nodes[1].store.scan(Keyspace::Pending, &prefix, Order::Ascending).take(2).map(Result::unwrap).collect();
    let mut batch = Batch::default();
    batch.put(Keyspace::Pending, changes[0].0.to_vec(), changes[1].1.clone());
    commit(&lab, 1, &batch);
    lab.run(60);
    lab.assert_converged();
    assert!(lab.nodes[1].replica.engine().counters().bare_incomplete >= 1);
}

#[test]
fn a_document_that_no_op_makes_is_refuted() {
    let mut lab = lab();
    // The giver adds a change of another document to one: well-formed, and nobody's.
    let key = |id: &str| DocKey { collection: collection(), doc: doc(id) };
    let tail = lab.nodes[0].store.scan(Keyspace::Tail, &TailKey::document(&key("d3")), Order::Ascending);
    let mut batch = Batch::default();
    for entry in tail.map(Result::unwrap) {
        let change = TailKey::decode(&entry.0).unwrap().change;
        batch.put(Keyspace::Tail, TailKey { doc: key("d4"), change }.encode(), entry.1);
    }
    commit(&lab, 0, &batch);
    lab.connect(0, 1);
    run_until(&mut lab, has_all_documents);
    // Which of the two values of a field shows is decided by the hashes of their actors.
    let shown = Reader::new(lab.nodes[1].store.clone()).get(&key("d4")).unwrap().unwrap();
    assert_eq!(shown.heads.len(), 2, "the lie is shown");
    run_until(&mut lab, |lab| lab.nodes[1].replica.counters().false_documents > 0);
    lab.run(4);
    assert_eq!(lab.json(1, "d4").unwrap(), r#"{"m":1,"n":4}"#, "and no longer");
    let giver = lab.nodes[0].replica.identity().node.author().to_string();
    assert!(lab.nodes[1].alarms.iter().any(|alarm| alarm.contains(&giver)), "{:?}", lab.nodes[1].alarms);
    assert_eq!(lab.nodes[1].replica.last_bulk().unwrap().refuted, 1);
}

#[test]
fn a_stopped_node_goes_on_where_it_was() {
    let mut lab = lab();
    lab.connect(0, 1);
    run_until(&mut lab, |lab| lab.json(1, "d1").is_some());
    lab.cut(0, 1);
    lab.wire.clear();
    let (identity, store) = (lab.nodes[1].replica.identity().clone(), lab.nodes[1].store.clone());
    lab.open(identity, store, 1, Vec::new());
    assert_eq!(lab.nodes[1].replica.engine().bulks().len(), 1);
    assert!(lab.json(1, "d1").is_some());
    let preview =
        lab.nodes[1].store.get(Keyspace::Pending, &preview_key(&DocKey { collection: collection(), doc: doc("d1") }));
    assert!(envelope::open(preview.unwrap().unwrap()).is_ok());
    lab.connect(0, 1);
    lab.run(80);
    lab.assert_converged();
    assert_eq!(previews(&lab), 0);
}

#[test]
fn a_node_that_was_away_shows_what_changed_meanwhile_and_hides_nothing_of_its_own() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "far", put(r#"{"n":0}"#));
    lab.write(0, "both", put(r#"{"n":0}"#));
    lab.run(20);
    lab.cut(0, 1);
    lab.wire.clear();
    lab.bulk_gap_ops = 20;
    let (identity, store) = (lab.nodes[1].replica.identity().clone(), lab.nodes[1].store.clone());
    lab.open(identity, store, 1, Vec::new());
    for number in 1..=20 {
        lab.write(0, "far", put(&format!(r#"{{"n":{number}}}"#)));
    }
    lab.write(0, "both", put(r#"{"here":1,"n":0}"#));
    lab.write(1, "both", put(r#"{"n":0,"there":1}"#));
    lab.connect(0, 1);
    run_until(&mut lab, |lab| lab.json(1, "far").unwrap() == r#"{"n":20}"#);
    assert_eq!(lab.nodes[1].replica.counters().ops_ingested, 0, "not one op is here");
    assert_eq!(lab.json(1, "both").unwrap(), r#"{"n":0,"there":1}"#, "the preview lacks what was written here");
    lab.run(60);
    lab.assert_converged();
    assert_eq!(lab.json(1, "both").unwrap(), r#"{"here":1,"n":0,"there":1}"#);
    assert_eq!(lab.nodes[1].replica.engine().counters().bare_incomplete, 0);
    assert_eq!((previews(&lab), lab.nodes[1].replica.counters().false_documents), (0, 0));
}
