//! Stores made again of what is left of their ops.

use super::*;
use crate::store::keys::OpKey;
use crate::store::salvage::Salvage;
use crate::store::{Batch, FjallOptions, FjallStore, Keyspace, Order, Span};

/// A node's store on a disk, without the entries that are named.
fn on_disk(store: &MemoryStore, without: &[OpKey]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let disk = FjallStore::open(folder.path(), FjallOptions::default()).unwrap();
    let mut batch = Batch::new();
    for keyspace in Keyspace::ALL {
        for (key, value) in store.scan(keyspace, &Span::all(), Order::Ascending).map(Result::unwrap) {
            batch.put(keyspace, key.to_vec(), value);
        }
    }
    for key in without {
        batch.delete(Keyspace::Ops, crate::store::keys::Key::encode(key));
    }
    disk.commit(&batch, Durability::Synced).unwrap();
    folder
}

/// Makes a store of what is on a disk.
fn made_again(lab: &Lab, node: usize, disk: &std::path::Path, selection: Selection) -> (Arc<MemoryStore>, Rebuilt) {
    let mut old = Salvage::open(disk, None).unwrap();
    assert_eq!(old.problems(), Vec::<String>::new());
    let store = Arc::new(MemoryStore::new());
    let target: Arc<dyn Store> = store.clone();
    let rebuilding = Rebuilding {
        old: Some(&mut old),
        selection,
        control: Vec::new(),
        marks: Vec::new(),
        earlier_keys: Vec::new(),
        identity: lab.nodes[node].replica.identity().clone(),
        seed: [77; 32],
        now: lab.now,
    };
    let rebuilt = rebuild(rebuilding, &target, |_| {}).unwrap();
    (store, rebuilt)
}

fn digests(store: &Arc<MemoryStore>) -> Vec<(ShardId, replication::ShardDigest, u64)> {
    let shards = Reader::new(store.clone()).shards().unwrap();
    shards.into_iter().map(|info| (info.shard, info.digest, info.documents)).collect()
}

/// Two nodes that have edited the same documents; then node 0 wrote on alone. Returns its stream and where that ended
/// before.
fn lab() -> (Lab, StreamId, u64) {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    for n in 0..12 {
        lab.write(n % 2, &format!("d{}", n % 5), put(&format!("{{\"n\":{n}}}")));
        lab.run(3);
    }
    lab.run(20);
    lab.cut(0, 1);
    let shared = lab.write(0, "alone", put("{\"n\":1}")).tx.unwrap();
    for n in 0..4 {
        lab.write(0, "d1", ops(&format!("{{\"ops\":[{{\"op\":\"set\",\"path\":\"/alone{n}\",\"value\":1}}]}}")));
    }
    (lab, shared.stream, shared.seq - 1)
}

#[test]
fn a_store_made_again_is_what_it_was() {
    let (lab, _, _) = lab();
    let disk = on_disk(&lab.nodes[0].store, &[]);
    let (store, rebuilt) = made_again(&lab, 0, disk.path(), Selection::All);
    assert_eq!((rebuilt.missing, rebuilt.loose, rebuilt.damaged), (0, 0, 0), "{rebuilt:?}");
    assert_eq!(digests(&store), digests(&lab.nodes[0].store));
    let store: Arc<dyn Store> = store;
    assert_eq!(verify(&store, lab.nodes[0].replica.identity().cluster, |_| {}).damage, Vec::new());
}

#[test]
fn what_lies_behind_a_lost_op_waits_until_a_peer_gives_it_back() {
    let (mut lab, stream, shared) = lab();
    assert!(shared > 2);
    let disk = on_disk(&lab.nodes[0].store, &[OpKey::new(stream, shared - 1)]);
    let whole = digests(&lab.nodes[0].store);
    let (store, rebuilt) = made_again(&lab, 0, disk.path(), Selection::All);
    let gap = rebuilt.gaps.first().unwrap();
    assert_eq!((gap.stream, gap.from, gap.to, rebuilt.missing), (stream, shared - 1, shared - 1, 1));
    // The one that node 1 has too, and the five that nobody else has.
    assert_eq!(rebuilt.loose, 6);
    let found = verify(&(store.clone() as Arc<dyn Store>), lab.nodes[0].replica.identity().cluster, |_| {});
    assert!(found.damage.iter().any(|damage| damage.what == "gap"), "{found:?}");

    let identity = lab.nodes[0].replica.identity().clone();
    lab.open(identity, store, 0, Vec::new());
    assert_eq!(lab.nodes[0].replica.loose_ops(), 6);
    lab.connect(0, 1);
    lab.run(40);
    assert_eq!(lab.nodes[0].replica.loose_ops(), 0);
    assert_eq!(digests(&lab.nodes[0].store), whole);
    lab.assert_converged();
    assert!(lab.json(1, "d1").unwrap().contains("alone3"), "the peer has what only the damaged disk had");
}

#[test]
fn what_is_erased_is_no_damage_and_stays_erased() {
    let (mut lab, _, _) = lab();
    lab.connect(0, 1);
    lab.run(20);
    let documents = ["d1", "alone"].map(|id| id.parse().unwrap()).to_vec();
    let act = crate::op::Act::Erase(crate::op::Erase {
        collection: collection(),
        documents: documents.into_iter().collect::<BTreeSet<DocId>>().into_iter().collect(),
        why: String::new(),
    });
    lab.act(0, Signer::Node, ActRequest::One(act)).unwrap();
    lab.run(60);
    let disk = on_disk(&lab.nodes[0].store, &[]);
    let (store, rebuilt) = made_again(&lab, 0, disk.path(), Selection::All);
    assert_eq!((rebuilt.missing, rebuilt.loose, rebuilt.damaged), (0, 0, 0), "{rebuilt:?}");
    assert_eq!(digests(&store), digests(&lab.nodes[0].store));
    let reader = Reader::new(store.clone());
    assert!(reader.get(&DocKey { collection: collection(), doc: doc("d1") }).unwrap().unwrap().erased);
    let store: Arc<dyn Store> = store;
    assert_eq!(verify(&store, lab.nodes[0].replica.identity().cluster, |_| {}).damage, Vec::new());
}

#[test]
fn who_rejoins_keeps_its_own_writes_and_takes_the_rest() {
    let (mut lab, _, _) = lab();
    let disk = on_disk(&lab.nodes[0].store, &[]);
    let (store, rebuilt) = made_again(&lab, 0, disk.path(), Selection::Own);
    assert_eq!(rebuilt.missing, 0, "{rebuilt:?}");
    let ops = |store: &MemoryStore| store.scan(Keyspace::Ops, &Span::all(), Order::Ascending).count();
    assert!(ops(&store) < ops(&lab.nodes[0].store), "those of the other are not taken");
    let identity = lab.nodes[0].replica.identity().clone();
    lab.open(identity, store, 0, Vec::new());
    lab.connect(0, 1);
    lab.run(40);
    lab.assert_converged();
    assert!(lab.json(1, "d1").unwrap().contains("alone3"));
}
