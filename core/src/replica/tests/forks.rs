//! A node that runs twice: what becomes of its branches, and of what honest nodes built on them.

use super::*;
use crate::op::{Act, Pin, Revoke, RevokeTarget};

/// Node 1 ran twice in one session; node 0 saw one of the two, node 2 the other. Returns the forked stream.
pub(super) fn forked() -> (Lab, StreamId) {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    let stream = run_twice(&mut lab, [&[0], &[2]]);
    (lab, stream)
}

/// Node 1 runs twice in one session, each time seen by some, of whom the first builds on it. Nobody is connected then.
pub(super) fn run_twice(lab: &mut Lab, seen_by: [&[usize]; 2]) -> StreamId {
    for a in 0..lab.nodes.len() {
        (0..a).for_each(|b| lab.cut(a, b));
    }
    let identity = lab.nodes[1].replica.identity().clone();
    let store = lab.nodes[1].store.clone();
    let (began, mut stream) = (lab.now.wall_ms, None);
    for (witnesses, text) in seen_by.into_iter().zip([r#"{"by":"one"}"#, r#"{"by":"two","n":2}"#]) {
        // The same seed and the same time: the same session, and the same first op.
        lab.ticket = 1_000;
        lab.now.wall_ms = began;
        lab.open(identity.clone(), Arc::new(store.clone_synced()), 1, Vec::new());
        let tx = lab.write(1, "shared", put(r#"{"a":1}"#)).tx.unwrap();
        assert_eq!(*stream.get_or_insert(tx.stream), tx.stream);
        lab.write(1, "d", put(text));
        for witness in witnesses {
            lab.connect(*witness, 1);
            lab.run(10);
            lab.cut(*witness, 1);
            assert_eq!(lab.json(*witness, "d").unwrap().as_bytes(), text.as_bytes());
        }
        // An honest node builds on it.
        lab.write(witnesses[0], "d", ops(r#"{"ops":[{"op":"set","path":"/seen","value":true}]}"#));
    }
    stream.unwrap()
}

pub(super) fn states(lab: &Lab, node: usize) -> BTreeMap<(OpId, u16), TxState> {
    let records = Reader::new(lab.nodes[node].store.clone()).transactions(None, usize::MAX).unwrap();
    records.into_iter().map(|(_, record)| ((record.tx.op, record.tx.tx), record.state)).collect()
}

/// Requires that the honest nodes agree on everything and that their stores are sound.
fn assert_agreement(lab: &Lab) {
    let honest = [&lab.nodes[0], &lab.nodes[2]];
    let documents = |node: &Node| {
        let shards = Reader::new(node.store.clone()).shards().unwrap();
        let data = shards.into_iter().filter(|info| !info.shard.is_control());
        data.map(|info| (info.shard, info.digest, info.documents, info.bytes, info.unapplied)).collect::<Vec<_>>()
    };
    assert_eq!(documents(honest[0]), documents(honest[1]));
    for id in ["shared", "d"] {
        let key = DocKey { collection: collection(), doc: doc(id) };
        let view = |node: &Node| Reader::new(node.store.clone()).get(&key).unwrap();
        assert_eq!(view(honest[0]), view(honest[1]), "{id}");
    }
    assert_eq!(states(lab, 0), states(lab, 2));
    for node in honest {
        let store: Arc<dyn Store> = node.store.clone();
        assert_eq!(verify(&store, node.replica.identity().cluster, |_| {}).damage, Vec::new());
    }
}

/// Removes node 1 and lets its stream stand up to here.
fn pin(lab: &mut Lab, stream: StreamId, (seq, head): (u64, OpId)) {
    let target = RevokeTarget::Principal(lab.nodes[1].replica.identity().principal);
    let pins = vec![Pin { stream, seq, head }];
    let act = Act::Revoke(Revoke { target, pins, cascade: false, why: "it ran twice".to_owned() });
    lab.act(0, Signer::Owner, ActRequest::One(act)).unwrap();
}

#[test]
fn nothing_from_a_fork_on_counts_and_everybody_writes_on() {
    let (mut lab, _) = forked();
    lab.connect(0, 2);
    lab.run(100);
    assert_agreement(&lab);
    let waiting = states(&lab, 0).values().filter(|state| **state == TxState::Waiting).count();
    assert_eq!(waiting, 2, "what builds on either branch waits");
    for node in [0, 2] {
        assert_eq!(lab.json(node, "d"), None);
        assert_eq!(lab.json(node, "shared").unwrap(), r#"{"a":1}"#, "from before the fork");
    }
    // The numbers of the changes that wait are not given again: a change under one of them could not be held beside it.
    for (node, n) in [(0, 10), (2, 20), (0, 30)] {
        lab.write(node, "d", put(&format!(r#"{{"n":{n}}}"#)));
        lab.run(20);
        for node in [0, 2] {
            assert_eq!(lab.json(node, "d").unwrap(), format!(r#"{{"n":{n}}}"#));
        }
    }
    assert_agreement(&lab);
}

#[test]
fn a_pin_brings_its_branch_to_everybody() {
    for keeper in [0, 2] {
        let (mut lab, stream) = forked();
        lab.connect(0, 2);
        lab.run(100);
        let own = |lab: &Lab, node: usize| lab.nodes[node].replica.own_head(&stream).unwrap();
        assert_ne!(own(&lab, 0), own(&lab, 2), "each follows what it saw first");
        let kept = own(&lab, keeper);
        pin(&mut lab, stream, kept);
        lab.run(100);
        assert_agreement(&lab);
        for node in [0, 2] {
            assert_eq!(own(&lab, node), kept);
            let expected =
                if keeper == 0 { r#"{"by":"one","seen":true}"# } else { r#"{"by":"two","n":2,"seen":true}"# };
            assert_eq!(lab.json(node, "d").unwrap(), expected, "with what was built on it, and nothing else");
        }
    }
}

#[test]
fn a_change_of_branch_survives_a_crash_after_every_commit() {
    let (mut lab, stream) = forked();
    lab.connect(0, 2);
    lab.run(100);
    lab.nodes[2].disks = Some(Vec::new());
    let kept = lab.nodes[0].replica.own_head(&stream).unwrap();
    pin(&mut lab, stream, kept);
    lab.run(100);
    let expected = states(&lab, 0);
    let disks = lab.nodes[2].disks.take().unwrap();
    assert!(disks.len() > 2, "{}", disks.len());
    let identity = lab.nodes[2].replica.identity().clone();
    for (crash, disk) in disks.into_iter().enumerate() {
        lab.cut(0, 2);
        lab.ticket += 1;
        lab.open(identity.clone(), Arc::new(disk), 2, Vec::new());
        lab.connect(0, 2);
        lab.run(100);
        assert_agreement(&lab);
        assert_eq!(states(&lab, 2), expected, "crash {crash}");
        assert_eq!(lab.json(2, "d").unwrap(), r#"{"by":"one","seen":true}"#, "crash {crash}");
    }
}

#[test]
fn a_fork_beyond_the_pin_is_known_to_all() {
    let (mut lab, stream) = forked();
    // The pin lets the first op stand, and both of what followed it. Then node 0 has what node 2 built on without effect.
    lab.connect(0, 2);
    let first = lab.nodes[0].replica.chains().main(&stream, 1).unwrap();
    pin(&mut lab, stream, (1, first));
    lab.run(200);
    assert_agreement(&lab);
    for node in [0, 2] {
        assert_eq!(lab.json(node, "d"), None, "no document can hold what lies on two branches");
    }
}
