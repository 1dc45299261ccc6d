//! Witnesses: what they say of forks, and that nobody else is needed then.

use super::forks::{run_twice, states};
use super::*;
use crate::hlc::Hlc;
use crate::op::{Act, Evidence, Pin, Revoke, RevokeTarget};

const HONEST: [usize; 3] = [0, 2, 3];

/// A founder and three editors; all but node 1 are witnesses.
fn watched() -> Lab {
    let mut lab = Lab::new(&[BuiltInRole::Editor; 3]);
    appoint(&mut lab, &HONEST, None).unwrap();
    lab.run(20);
    lab
}

fn keys(lab: &Lab, nodes: &[usize]) -> Vec<AuthorKey> {
    nodes.iter().map(|node| lab.nodes[*node].replica.identity().node.author()).collect()
}

fn appoint(lab: &mut Lab, nodes: &[usize], quorum: Option<u8>) -> Result<Admitted, ActError> {
    let appointment = Appointment { nodes: keys(lab, nodes), quorum, for_whom: None };
    lab.act(0, Signer::Owner, ActRequest::Appoint(appointment))
}

fn connect_honest(lab: &mut Lab) {
    for (a, b) in [(0, 2), (0, 3), (2, 3)] {
        lab.connect(a, b);
    }
}

/// What was said by whom, of all streams.
fn evidence(lab: &Lab, node: usize) -> Vec<(AuthorKey, Pin)> {
    let ops = lab.control_ops(node);
    let said = ops.iter().map(|op| (op.header().author, op.header().control().unwrap().act.evidence()));
    said.flat_map(|(author, pins)| pins.iter().map(move |pin| (author, *pin))).collect()
}

fn assert_agreement(lab: &Lab, nodes: &[usize]) {
    let documents = |node: usize| {
        let shards = Reader::new(lab.nodes[node].store.clone()).shards().unwrap();
        let data = shards.into_iter().filter(|info| !info.shard.is_control());
        data.map(|info| (info.shard, info.digest, info.documents, info.bytes, info.unapplied)).collect::<Vec<_>>()
    };
    for node in nodes {
        assert_eq!(documents(*node), documents(nodes[0]), "{node}");
        assert_eq!(states(lab, *node), states(lab, nodes[0]), "{node}");
        let store: Arc<dyn Store> = lab.nodes[*node].store.clone();
        assert_eq!(verify(&store, lab.nodes[*node].replica.identity().cluster, |_| {}).damage, Vec::new());
    }
}

#[test]
fn a_fork_is_settled_by_witnesses_alone() {
    for (seen_by, expected) in [
        ([&[0, 3][..], &[2][..]], r#"{"by":"one","seen":true}"#),
        ([&[0][..], &[2, 3][..]], r#"{"by":"two","n":2,"seen":true}"#),
    ] {
        let mut lab = watched();
        let stream = run_twice(&mut lab, seen_by);
        connect_honest(&mut lab);
        lab.run(200);
        for node in HONEST {
            assert_eq!(lab.json(node, "d").unwrap(), expected, "{node}");
            assert_eq!(lab.json(node, "shared").unwrap(), r#"{"a":1}"#);
            assert_eq!(lab.nodes[node].replica.forks_undecided(), 0);
            assert_eq!(lab.nodes[node].replica.own_head(&stream), lab.nodes[0].replica.own_head(&stream));
        }
        assert_agreement(&lab, &HONEST);
        assert!(evidence(&lab, 0).len() >= 2);
        // And again, when nothing is new.
        let said = evidence(&lab, 0);
        lab.run(200);
        assert_eq!(evidence(&lab, 0), said);
        // What somebody has said stands when it is a witness no longer.
        let dismissal = Dismissal { nodes: keys(&lab, &[3]), why: String::new(), for_whom: None };
        lab.act(0, Signer::Owner, ActRequest::Dismiss(dismissal)).unwrap();
        lab.run(50);
        for node in HONEST {
            assert_eq!(lab.json(node, "d").unwrap(), expected, "{node}");
        }
    }
}

#[test]
fn a_witness_says_what_it_saw_first() {
    let mut lab = Lab::new(&[BuiltInRole::Editor; 3]);
    appoint(&mut lab, &[0, 3], Some(2)).unwrap();
    lab.run(20);
    let stream = run_twice(&mut lab, [&[0, 3], &[2]]);
    let saw = lab.nodes[2].replica.own_head(&stream).unwrap();
    connect_honest(&mut lab);
    lab.run(200);
    assert_ne!(lab.nodes[2].replica.own_head(&stream), Some(saw), "it follows the others");
    // One of them is cut off with all that it has said: nothing decides any more.
    let time = Hlc::new(lab.now.wall_ms, 0);
    let third = keys(&lab, &[3])[0];
    let witnesses = lab.nodes[0].replica.authority().witnesses(time);
    let witness = witnesses.into_iter().find(|witness| witness.signs.is_some_and(|(key, _)| key == third)).unwrap();
    let target = RevokeTarget::Principal(witness.principal);
    let cut = Act::Revoke(Revoke { target, pins: Vec::new(), cascade: false, why: String::new() });
    lab.act(0, Signer::Owner, ActRequest::One(cut)).unwrap();
    lab.run(50);
    assert_eq!(lab.nodes[2].replica.forks_undecided(), 1);
    appoint(&mut lab, &[2], Some(1)).unwrap();
    lab.run(200);
    let key = keys(&lab, &[2])[0];
    let said: Vec<Pin> =
        evidence(&lab, 0).into_iter().filter(|(author, _)| *author == key).map(|(_, pin)| pin).collect();
    assert_eq!(said, vec![Pin { stream, seq: saw.0, head: saw.1 }]);
    assert_agreement(&lab, &HONEST);
}

#[test]
fn too_few_witnesses_leave_a_fork_as_it_is() {
    let mut lab = Lab::new(&[BuiltInRole::Editor; 3]);
    appoint(&mut lab, &[0, 2], Some(2)).unwrap();
    lab.run(20);
    run_twice(&mut lab, [&[0, 3], &[2]]);
    connect_honest(&mut lab);
    lab.run(200);
    assert_eq!(evidence(&lab, 3).len(), 2, "each has said what it saw");
    for node in HONEST {
        assert_eq!(lab.json(node, "d"), None);
        assert_eq!(lab.nodes[node].replica.forks_undecided(), 1);
    }
    assert_agreement(&lab, &HONEST);
    // The third knows of the fork since before it was asked, and says what it had seen.
    appoint(&mut lab, &[3], None).unwrap();
    lab.run(200);
    for node in HONEST {
        assert_eq!(lab.json(node, "d").unwrap(), r#"{"by":"one","seen":true}"#);
    }
    assert_agreement(&lab, &HONEST);
}

#[test]
fn a_witness_that_crashes_says_the_same() {
    for crashing in [2, 3] {
        let mut lab = watched();
        let stream = run_twice(&mut lab, [&[0, 3], &[2]]);
        let saw = lab.nodes[crashing].replica.own_head(&stream).unwrap();
        lab.nodes[crashing].disks = Some(Vec::new());
        connect_honest(&mut lab);
        lab.run(200);
        let disks = lab.nodes[crashing].disks.take().unwrap();
        assert!(disks.len() > 3, "{}", disks.len());
        let identity = lab.nodes[crashing].replica.identity().clone();
        let key = identity.node.author();
        for (crash, disk) in disks.into_iter().enumerate() {
            HONEST.into_iter().filter(|node| *node != crashing).for_each(|node| lab.cut(node, crashing));
            lab.ticket += 1;
            lab.open(identity.clone(), Arc::new(disk), crashing, Vec::new());
            connect_honest(&mut lab);
            lab.run(100);
            assert_agreement(&lab, &HONEST);
            assert_eq!(lab.json(crashing, "d").unwrap(), r#"{"by":"one","seen":true}"#, "crash {crash}");
            let said = evidence(&lab, 0);
            let own = said.iter().filter(|(author, _)| *author == key);
            let expected = Pin { stream, seq: saw.0, head: saw.1 };
            assert!(own.clone().all(|(_, pin)| *pin == expected), "crash {crash}: {said:?}");
        }
        for node in HONEST {
            assert!(lab.nodes[node].alarms.iter().all(|alarm| !alarm.contains("_control")), "nobody forks by itself");
        }
    }
}

#[test]
fn a_witness_goes_on_as_a_node() {
    let mut lab = watched();
    run_twice(&mut lab, [&[0, 3], &[2]]);
    connect_honest(&mut lab);
    lab.run(200);
    let node = lab.nodes[0].replica.identity().clone();
    let time = Hlc::new(lab.now.wall_ms, 0);
    let (_, own) = lab.nodes[0].replica.authority().witness_certificates(node.node.author(), time)[0];
    assert_ne!(own, node.certificate);
    for round in 0..3_u8 {
        // By turns as a node and as a witness, in streams of their own.
        let config = Act::Collection(crate::op::Collection {
            name: format!("c{round}").parse().unwrap(),
            shards: 1,
            types: Vec::new(),
            dropped: false,
            audit_reads: false,
            indexes: vec![],
            schema: None,
            expires: None,
            unique: vec![],
        });
        lab.act(0, Signer::Node, ActRequest::One(config)).unwrap();
        let pin = Pin { stream: StreamId::new([round; 32]), seq: 1, head: OpId::new([round + 1; 32]) };
        let act = Act::Evidence(Evidence { pins: vec![pin] });
        let now = lab.now;
        lab.nodes[0].replica.sign_act(now, &node.node, own, act, None).unwrap();
        lab.settle(0);
        lab.write(0, "later", put(&format!(r#"{{"round":{round}}}"#)));
        lab.run(20);
    }
    let of_witness = |lab: &Lab, node: usize| {
        let acts = lab.control_ops(node);
        let mine = acts.iter().filter(|op| op.header().certificate == own).map(|op| (op.stream(), op.header().seq));
        mine.collect::<Vec<_>>()
    };
    let acts = of_witness(&lab, 2);
    assert_eq!(acts.len(), 4);
    assert!(acts.iter().all(|(stream, _)| *stream == acts[0].0), "one stream: {acts:?}");
    assert_eq!(acts.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for n in HONEST {
        assert_eq!(lab.json(n, "later").unwrap(), r#"{"round":2}"#);
        let authority = lab.nodes[n].replica.authority();
        assert!(acts.iter().all(|(stream, _)| authority.fork_of(*stream).is_none()));
        assert!(authority.collection(&"c2".parse().unwrap()).is_some());
    }
    // Its key is good for nothing else under that certificate, and the usual one for no evidence.
    let now = lab.now;
    let config = Act::Rules(crate::op::Rules { version: 1 });
    assert!(matches!(lab.nodes[0].replica.sign_act(now, &node.node, own, config, None), Err(ActError::NotAllowed(_))));
    let pin = Pin { stream: StreamId::new([9; 32]), seq: 1, head: OpId::new([9; 32]) };
    let act = ActRequest::One(Act::Evidence(Evidence { pins: vec![pin] }));
    assert!(matches!(lab.act(0, Signer::Node, act), Err(ActError::NotAllowed(_))));
}

#[test]
fn owners_say_who_is_a_witness() {
    let mut lab = Lab::new(&[BuiltInRole::Admin, BuiltInRole::Editor]);
    let quorums = |lab: &Lab| {
        let time = Hlc::new(lab.now.wall_ms, 0);
        let all = lab.nodes[1].replica.authority().witnesses(time);
        let mut quorums: Vec<_> = all.into_iter().map(|witness| (witness.signs.unwrap().0, witness.quorum)).collect();
        quorums.sort();
        quorums.into_iter().map(|(_, quorum)| quorum).collect::<Vec<_>>()
    };
    let admin = Appointment { nodes: keys(&lab, &[1]), quorum: None, for_whom: None };
    let refused = lab.act(1, Signer::Node, ActRequest::Appoint(admin)).unwrap_err();
    assert!(matches!(refused, ActError::NotAllowed(_)), "{refused}");
    let stranger = Appointment { nodes: vec![AuthorKey::new([7; 32])], quorum: None, for_whom: None };
    let refused = lab.act(0, Signer::Owner, ActRequest::Appoint(stranger)).unwrap_err();
    assert!(matches!(refused, ActError::NothingToDo(_)), "{refused}");
    // The majority grows with them.
    appoint(&mut lab, &[0], None).unwrap();
    lab.run(20);
    assert_eq!(quorums(&lab), [1]);
    appoint(&mut lab, &[1, 2], None).unwrap();
    lab.run(20);
    assert_eq!(quorums(&lab), [2, 2, 2]);
    assert!(matches!(appoint(&mut lab, &[1], None), Err(ActError::NothingToDo(_))));
    appoint(&mut lab, &[0, 1, 2], Some(3)).unwrap();
    lab.run(20);
    assert_eq!(quorums(&lab), [3, 3, 3]);
    let dismissal = Dismissal { nodes: keys(&lab, &[1]), why: "moved".to_owned(), for_whom: None };
    let refused = lab.act(1, Signer::Node, ActRequest::Dismiss(dismissal.clone())).unwrap_err();
    assert!(matches!(refused, ActError::NotAllowed(_)), "{refused}");
    lab.act(0, Signer::Owner, ActRequest::Dismiss(dismissal.clone())).unwrap();
    lab.run(20);
    assert_eq!(quorums(&lab), [3, 3]);
    let refused = lab.act(0, Signer::Owner, ActRequest::Dismiss(dismissal)).unwrap_err();
    assert!(matches!(refused, ActError::NothingToDo(_)), "{refused}");
    // It is a node as before.
    lab.write(1, "d", put(r#"{"a":1}"#));
    lab.run(20);
    assert_eq!(lab.json(2, "d").unwrap(), r#"{"a":1}"#);
}
