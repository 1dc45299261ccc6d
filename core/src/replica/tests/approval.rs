//! Owners who have to agree: what one of them signs waits, everywhere, until others approve it.

use super::succession::{again, connect_all, is_member, key};
use super::*;
use crate::authority::{Missing, Reach, Verdict};
use crate::op::succession::Place;
use crate::op::{Act, Principal, PrincipalKind, Rank, RevokeTarget, Succeed};

/// Owners 110 to 112, of whom two are needed; one on each node.
fn three_owners() -> Lab {
    let mut lab = Lab::new(&[BuiltInRole::Admin, BuiltInRole::Editor]);
    let replica = &lab.nodes[0].replica;
    let basis = replica.succession_basis(lab.now, None).unwrap();
    let mut owners = [110, 111, 112].map(|n| key(n).author());
    owners.sort();
    let succeed = Succeed {
        after: basis.owners.certificate,
        principal: basis.owners.principal,
        owners: owners.to_vec(),
        threshold: 2,
        recovery: vec![crate::op::recovery_hash(&key(102).author())],
        recovery_threshold: 1,
        pins: basis.pins,
        signatures: Vec::new(),
    };
    let place = Place {
        cluster: replica.identity().cluster,
        session: SessionId::new([7; 8]),
        hlc: basis.hlc,
        control_heads: basis.control_heads,
    };
    let change = Arc::new(succeed.sign(place, &[key(101)]).unwrap());
    lab.act(0, Signer::Node, ActRequest::Succeed(change)).unwrap();
    lab.run(20);
    for (node, owner) in [110, 111, 112].into_iter().enumerate() {
        again(&mut lab, node, |identity| identity.owner = Some(key(owner)));
    }
    connect_all(&mut lab);
    lab
}

fn admit(lab: &mut Lab, node: usize, n: u8) -> Admitted {
    let (key, name, labels) = (key(n).author(), format!("k{n}"), Vec::new());
    lab.act(node, Signer::Owner, ActRequest::Admit { key, name, labels, role: BuiltInRole::Admin }).unwrap()
}

fn approve(lab: &mut Lab, node: usize, op: OpId) -> Result<Admitted, ActError> {
    let done = lab.act(node, Signer::Owner, ActRequest::Approve(op));
    lab.run(20);
    done
}

fn waiting(lab: &Lab, node: usize) -> Vec<(OpId, usize, u8)> {
    let requests = lab.nodes[node].replica.authority().waiting_requests();
    let told = |request: &crate::authority::WaitingRequest| {
        let missing = request.acts().iter().map(|waiting| waiting.missing()).max().unwrap();
        (request.name(), request.acts().len(), missing)
    };
    requests.iter().map(told).collect()
}

fn ann() -> Act {
    let (name, kind) = ("ann".to_owned(), PrincipalKind::User);
    Act::Principal(Principal { name, kind, attest: true, rank: Rank::USER })
}

#[test]
fn an_admission_by_one_of_three_owners_waits_as_a_whole() {
    let mut lab = three_owners();
    let asked = admit(&mut lab, 2, 60);
    let waits = asked.waits.expect("one of two that are needed");
    assert_eq!(waits.missing, 1);
    assert_ne!(waits.op, asked.op, "the last act names them all");
    lab.run(20);
    for node in 0..3 {
        assert_eq!(waiting(&lab, node), [(waits.op, 4, 1)], "at {node}: certificate, membership, grant and duty");
        assert!(!is_member(&lab, node, 60), "at {node}");
        let verdict = lab.nodes[node].replica.authority().control_verdict(asked.op);
        assert_eq!(verdict, Some(Verdict::Deferred(Missing::Consent(asked.op))));
    }
    // Whoever asks again, as after a lost answer, asks for nothing new; also after a restart.
    assert_eq!(admit(&mut lab, 2, 60), asked);
    again(&mut lab, 2, |_| {});
    connect_all(&mut lab);
    assert_eq!(admit(&mut lab, 2, 60), asked);
    let found = lab.nodes[0].replica.admission_that_waits(key(60).author());
    assert_eq!(found, Some((asked.op, waits)));

    // Who asked cannot agree with itself, a stranger not at all.
    let twice = approve(&mut lab, 2, waits.op);
    assert!(matches!(twice, Err(ActError::NotWaiting(why)) if why.contains("already")));
    again(&mut lab, 1, |identity| identity.owner = Some(key(120)));
    connect_all(&mut lab);
    assert!(matches!(approve(&mut lab, 1, waits.op), Err(ActError::NoOwnerKey)));
    // Nor the same key in the hands of a thief, on another node.
    again(&mut lab, 1, |identity| identity.owner = Some(key(112)));
    connect_all(&mut lab);
    assert!(matches!(approve(&mut lab, 1, waits.op), Err(ActError::NotWaiting(_))));
    assert!((0..3).all(|node| !is_member(&lab, node, 60)));

    assert_eq!(approve(&mut lab, 0, waits.op).unwrap().waits, None);
    for node in 0..3 {
        assert!(is_member(&lab, node, 60), "at {node}");
        assert_eq!(waiting(&lab, node), []);
    }
    assert!(matches!(approve(&mut lab, 0, waits.op), Err(ActError::NotWaiting(why)) if why.ends_with("it counts")));
    assert!(matches!(approve(&mut lab, 0, OpId::new([9; 32])), Err(ActError::NothingToDo(_))));
    lab.write(0, "d", put(r#"{"n":1}"#));
    lab.run(20);
    lab.assert_converged();
}

#[test]
fn what_is_asked_for_apart_is_approved_apart() {
    let mut lab = three_owners();
    let first = lab.act(0, Signer::Owner, ActRequest::One(ann())).unwrap();
    lab.run(1);
    let second = admit(&mut lab, 0, 61);
    lab.run(20);
    let (first, second) = (first.waits.unwrap().op, second.waits.unwrap().op);
    assert_eq!(waiting(&lab, 1), [(first, 1, 1), (second, 4, 1)]);
    // The name of an act covers what was asked for with it before, and nothing behind it.
    let certificate = lab.nodes[1].replica.authority().waiting_requests()[1].acts()[0].act;
    approve(&mut lab, 1, certificate).unwrap();
    assert!(!is_member(&lab, 1, 61));
    assert_eq!(waiting(&lab, 2), [(first, 1, 1), (second, 3, 1)]);
    approve(&mut lab, 2, second).unwrap();
    assert!((0..3).all(|node| is_member(&lab, node, 61)));
    assert_eq!(waiting(&lab, 0), [(first, 1, 1)]);
}

#[test]
fn who_asked_takes_a_request_back_as_a_whole() {
    let mut lab = three_owners();
    let kept = lab.act(2, Signer::Owner, ActRequest::One(ann())).unwrap().waits.unwrap().op;
    lab.run(1);
    let asked = admit(&mut lab, 2, 62);
    lab.run(20);
    let op = asked.waits.unwrap().op;
    assert_eq!(waiting(&lab, 0), [(kept, 1, 1), (op, 4, 1)]);
    let withdraw = |lab: &mut Lab, node: usize, op: OpId| {
        let done = lab.act(node, Signer::Owner, ActRequest::Withdraw(op));
        lab.run(20);
        done
    };
    let other = withdraw(&mut lab, 0, op);
    assert!(matches!(other, Err(ActError::NotAllowed(why)) if why.contains("only that one")));
    assert!(matches!(lab.act(2, Signer::Node, ActRequest::Withdraw(op)), Err(ActError::NotAllowed(_))));
    assert!(matches!(withdraw(&mut lab, 2, OpId::new([9; 32])), Err(ActError::NothingToDo(_))));
    // By the name of any of its acts all of it goes, everywhere, and nothing else.
    let done = withdraw(&mut lab, 2, asked.op).unwrap();
    assert_eq!(done.waits, None);
    for node in 0..3 {
        assert_eq!(waiting(&lab, node), [(kept, 1, 1)], "at {node}");
        let refused = approve(&mut lab, node, op);
        assert!(matches!(refused, Err(ActError::NotWaiting(why)) if why.contains("withdrawn")), "at {node}");
        assert!(!is_member(&lab, node, 62), "at {node}");
    }
    assert!(matches!(withdraw(&mut lab, 2, op), Err(ActError::NotWaiting(_))));
    // After a restart too; and asked for again it is another request.
    again(&mut lab, 2, |_| {});
    connect_all(&mut lab);
    assert_eq!(waiting(&lab, 2), [(kept, 1, 1)]);
    let anew = admit(&mut lab, 2, 62);
    assert_ne!(anew.waits.unwrap().op, op);
    lab.run(20);
    approve(&mut lab, 0, anew.waits.unwrap().op).unwrap();
    assert!((0..3).all(|node| is_member(&lab, node, 62)));
}

#[test]
fn taking_back_waits_too_and_is_signed_once() {
    let mut lab = three_owners();
    let (member, cut) = (lab.nodes[1].replica.identity().clone(), |lab: &mut Lab| {
        let identity = lab.nodes[1].replica.identity().clone();
        let targets = vec![RevokeTarget::Principal(identity.principal)];
        let revoke = ActRequest::Revoke { targets, reach: Reach::Target, why: "test".to_owned(), for_whom: None };
        lab.act(0, Signer::Owner, revoke).unwrap()
    });
    let asked = cut(&mut lab);
    lab.write(1, "a", put("{\"n\":1}"));
    lab.run(20);
    assert_eq!(cut(&mut lab), asked, "its pins are those of the first time");
    let now = crate::hlc::Hlc::new(lab.now.wall_ms, 0);
    let counts = |lab: &Lab, node: usize| lab.nodes[node].replica.authority().is_member(member.node.author(), now);
    assert!((0..3).all(|node| counts(&lab, node)));
    approve(&mut lab, 2, asked.waits.unwrap().op).unwrap();
    lab.run(40);
    assert!([0, 2].into_iter().all(|node| !counts(&lab, node)));
}
