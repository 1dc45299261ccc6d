//! Transactions that wait in greater number than there is room for.

use super::*;
use crate::store::{Keyspace, Order, Span, envelope};

/// Room for two of each author's transactions that wait.
const ROOM: usize = 7;

/// Returns an author's ops in the shards of documents, each stream as one run.
fn streams_of(lab: &Lab, author: AuthorKey) -> Vec<Vec<Arc<Op>>> {
    let cluster = lab.nodes[0].replica.identity().cluster;
    let mut streams: BTreeMap<StreamId, Vec<Arc<Op>>> = BTreeMap::new();
    for entry in lab.nodes[0].store.scan(Keyspace::Ops, &Span::all(), Order::Ascending) {
        let op = Op::decode(&envelope::open(entry.unwrap().1).unwrap(), cluster).unwrap();
        if !op.header().shard.is_control() && op.header().author == author {
            streams.entry(op.stream()).or_default().push(Arc::new(op));
        }
    }
    streams.into_values().collect()
}

/// Has a node, which is cut off, take ops in an order of ours.
fn import(lab: &mut Lab, node: usize, runs: &[Vec<Arc<Op>>]) {
    for run in runs {
        assert_eq!(lab.nodes[node].replica.import(lab.now, run), Imported::Taken);
        lab.settle(node);
    }
}

fn reopen(lab: &mut Lab, node: usize) {
    let (identity, store) = (lab.nodes[node].replica.identity().clone(), lab.nodes[node].store.clone());
    lab.open(identity, store, node, Vec::new());
}

fn held(lab: &Lab, node: usize, name: &str) -> usize {
    let figures = lab.nodes[node].replica.figures();
    assert!(figures.iter().all(crate::figure::Figure::is_within), "{figures:?}");
    figures.iter().find(|figure| figure.name == name).unwrap().held
}

fn spilled(lab: &Lab, node: usize) -> (u64, usize) {
    let keys = lab.nodes[node].store.scan(Keyspace::Pending, &Span::prefix([6]), Order::Ascending).count();
    (lab.nodes[node].replica.transactions_spilled(), keys)
}

/// Node 2 gets what node 1 wrote before what that builds on: it keeps a few names of it in memory and the others on its disk, also
/// over a restart, and applies all when the time has come.
#[test]
fn what_finds_no_room_in_memory_waits_on_the_disk() {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    lab.waiting_of_author_max = ROOM;
    reopen(&mut lab, 2);
    lab.write(0, "first", put("{}"));
    lab.run(20);
    lab.cut(0, 2);
    lab.cut(1, 2);
    for n in 0..40 {
        lab.write(0, &format!("d{}", n % 8), put(&format!("{{\"n\":{n}}}")));
        lab.run(2);
        let edit = format!("{{\"ops\":[{{\"op\":\"set\",\"path\":\"/by\",\"value\":{n}}}]}}");
        lab.write(1, &format!("d{}", n % 8), ops(&edit));
        lab.run(2);
    }
    lab.run(20);
    let [a, b] = [0, 1].map(|node| lab.nodes[node].replica.identity().node.author());
    let later = streams_of(&lab, b);
    import(&mut lab, 2, &later);
    assert!((1..=ROOM).contains(&held(&lab, 2, "waiting_names_of_one_author")));
    let waiting = lab.nodes[2].replica.tx_states()[&TxState::Waiting];
    assert_eq!(waiting, 40);
    let before = spilled(&lab, 2);
    assert!(before.0 >= 36 && before.1 as u64 >= 3 * before.0, "{before:?}");
    // Looked at again, they wait on; and nothing is written for that.
    reopen(&mut lab, 2);
    lab.run(5);
    lab.nodes[2].disks = Some(Vec::new());
    lab.run(20);
    assert_eq!(spilled(&lab, 2), before);
    assert_eq!(lab.nodes[2].replica.tx_states()[&TxState::Waiting], 40);
    assert_eq!(lab.nodes[2].disks.as_ref().map(Vec::len), Some(0));
    let earlier = streams_of(&lab, a);
    import(&mut lab, 2, &earlier);
    lab.run(20);
    assert_eq!(spilled(&lab, 2), (0, 0));
    assert_eq!(held(&lab, 2, "waiting_names"), 0);
    assert_eq!(lab.json(2, "d7"), lab.json(0, "d7"));
    lab.connect(0, 2);
    lab.run(20);
    lab.assert_converged();
}
