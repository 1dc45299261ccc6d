//! Documents with long histories.

use super::*;
use crate::document::Document;
use crate::store::keys::{Key, SegmentKey};
use crate::store::{Keyspace, Order, Span};

/// Changes after which a history is long, and some.
const LONG: usize = 4_400;

fn segments(lab: &Lab, node: usize) -> Vec<usize> {
    let key = DocKey { collection: collection(), doc: doc("d") };
    let parts = lab.nodes[node].store.scan(Keyspace::Snapshots, &SegmentKey::document(&key), Order::Ascending);
    parts.map(|part| part.unwrap().1.len()).collect()
}

fn tails(lab: &Lab, node: usize) -> usize {
    lab.nodes[node].store.scan(Keyspace::Tail, &Span::all(), Order::Ascending).count()
}

fn document(lab: &Lab, node: usize) -> Document {
    let key = DocKey { collection: collection(), doc: doc("d") };
    Reader::new(lab.nodes[node].store.clone()).document(&key).unwrap()
}

/// Sets the first element of the document's list.
fn set(lab: &mut Lab, node: usize, n: usize) {
    lab.write(node, "d", ops(&format!(r#"{{"ops":[{{"op":"set","path":"/list/0","value":{n}}}]}}"#)));
}

fn reopen(lab: &mut Lab, node: usize) {
    let identity = lab.nodes[node].replica.identity().clone();
    let store = Arc::new(lab.nodes[node].store.clone_synced());
    let links: Vec<_> = lab.links.iter().copied().filter(|(a, b)| *a == node || *b == node).collect();
    links.iter().for_each(|(a, b)| lab.cut(*a, *b));
    lab.wire.clear();
    lab.ticket += 1;
    lab.open(identity, store, node, Vec::new());
    links.iter().for_each(|(a, b)| lab.connect(*a, *b));
    lab.run(5);
}

#[test]
fn a_long_history_rolls_over_on_each_node_and_loses_no_edit_of_a_long_partition() {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    lab.write(0, "d", put(r#"{"list":["first"],"m":{}}"#));
    lab.run(5);
    // The last node is away while the others write.
    lab.cut(0, 2);
    lab.cut(1, 2);
    for n in 0..200 {
        lab.write(2, "d", ops(&format!(r#"{{"ops":[{{"op":"set","path":"/m/away{n}","value":{n}}}]}}"#)));
    }
    for n in 0..LONG {
        set(&mut lab, n / 100 % 2, n);
        lab.run(1);
    }
    for node in 0..2 {
        assert!(!segments(&lab, node).is_empty() && tails(&lab, node) < 300, "{:?}", segments(&lab, node));
        assert!(lab.nodes[node].replica.counters().documents_rolled_over > 0);
        assert_eq!(lab.nodes[node].replica.counters().histories_loaded, 0);
    }
    // Started again, both go on, and put what is new behind what there is.
    for node in 0..2 {
        reopen(&mut lab, node);
    }
    let before = segments(&lab, 0);
    for n in 0..600 {
        set(&mut lab, n / 100 % 2, LONG + n);
        lab.run(1);
    }
    for node in 0..2 {
        assert_eq!(lab.nodes[node].replica.counters().histories_loaded, 0);
    }
    let after = segments(&lab, 0);
    assert!(after.starts_with(&before) && after.len() > before.len(), "{before:?} {after:?}");
    assert_eq!(document(&lab, 0).change_count(), 1 + LONG + 600);
    // What was written away comes in whole, into a history that is loaded for it once.
    lab.connect(0, 2);
    lab.connect(1, 2);
    lab.run(60);
    for node in 0..3 {
        let json = lab.json(node, "d").unwrap();
        assert!(json.contains("\"away0\":0") && json.contains("\"away199\":199"), "{json}");
        assert!(json.contains(&format!("\"list\":[{}]", LONG + 599)), "{json}");
    }
    lab.assert_converged();
    assert!(lab.nodes[0].replica.counters().histories_loaded <= 2);
    // It is known to all after the next write, and rolls over again.
    for n in 0..700 {
        set(&mut lab, n / 100 % 3, n);
        lab.run(1);
    }
    lab.run(20);
    lab.assert_converged();
    for node in 0..3 {
        reopen(&mut lab, node);
        set(&mut lab, node, 9_000_000 + node);
        lab.run(5);
        assert_eq!(lab.nodes[node].replica.counters().histories_loaded, 0, "node {node}");
    }
    lab.assert_converged();
}

#[test]
fn a_part_of_a_long_history_that_is_missing_is_told() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "d", put(r#"{"list":["first"]}"#));
    for n in 0..LONG + 300 {
        set(&mut lab, 0, n);
    }
    lab.run(5);
    let key = DocKey { collection: collection(), doc: doc("d") };
    assert!(segments(&lab, 0).len() >= 2, "{:?}", segments(&lab, 0));
    let mut batch = Batch::new();
    batch.delete(Keyspace::Snapshots, Key::encode(&SegmentKey { doc: key.clone(), index: 1 }));
    lab.nodes[0].store.commit(&batch, Durability::Synced).unwrap();
    let error = Reader::new(lab.nodes[0].store.clone()).document(&key).unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("parts of its history"), "{text}");
    let store: Arc<dyn Store> = lab.nodes[0].store.clone();
    let report = verify(&store, lab.nodes[0].replica.identity().cluster, |_| {});
    assert!(report.damage.iter().any(|damage| damage.detail.contains("parts of its history")), "{:?}", report.damage);
}
