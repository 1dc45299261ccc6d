//! Other owners, and other keys of nodes.

use super::*;
use crate::authority::{Reach, Verdict};
use crate::hlc::Hlc;
use crate::op::succession::Place;
use crate::op::{Act, Principal, PrincipalKind, Rank, RevokeTarget, Succeed, recovery_hash};

pub(super) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn hash_of(n: u8) -> [u8; 32] {
    recovery_hash(&key(n).author())
}

/// A change of owners as somebody makes it who asks a node: the new owner, the recovery key after that, the one that signs.
fn signed(lab: &Lab, node: usize, until: Option<Hlc>, [owner, next, by]: [u8; 3]) -> Arc<Op> {
    let replica = &lab.nodes[node].replica;
    let basis = replica.succession_basis(lab.now, until).unwrap();
    let succeed = Succeed {
        after: basis.owners.certificate,
        principal: basis.owners.principal,
        owners: vec![key(owner).author()],
        threshold: 1,
        recovery: vec![hash_of(next)],
        recovery_threshold: 1,
        pins: basis.pins,
        signatures: Vec::new(),
    };
    let place = Place {
        cluster: replica.identity().cluster,
        session: SessionId::new([owner; 8]),
        hlc: basis.hlc,
        control_heads: basis.control_heads,
    };
    Arc::new(succeed.sign(place, &[key(by)]).unwrap())
}

fn hand_over(lab: &mut Lab, node: usize, op: Arc<Op>) -> Result<OpId, ActError> {
    lab.act(node, Signer::Node, ActRequest::Succeed(op)).map(|done| done.op)
}

fn admit(lab: &mut Lab, node: usize, signer: Signer, n: u8) -> Result<OpId, ActError> {
    let (key, name, labels) = (key(n).author(), format!("k{n}"), Vec::new());
    lab.act(node, signer, ActRequest::Admit { key, name, labels, role: BuiltInRole::Admin }).map(|done| done.op)
}

pub(super) fn is_member(lab: &Lab, node: usize, n: u8) -> bool {
    let now = Hlc::new(lab.now.wall_ms, 0);
    lab.nodes[node].replica.authority().is_member(key(n).author(), now)
}

/// Opens a node again, with other keys or another certificate perhaps.
pub(super) fn again(lab: &mut Lab, node: usize, edit: impl FnOnce(&mut Identity)) {
    let mut identity = lab.nodes[node].replica.identity().clone();
    edit(&mut identity);
    for other in 0..lab.nodes.len() {
        lab.cut(node, other);
    }
    lab.ticket += 1;
    lab.open(identity, lab.nodes[node].store.clone(), node, Vec::new());
}

pub(super) fn connect_all(lab: &mut Lab) {
    for a in 0..lab.nodes.len() {
        for b in 0..a {
            lab.connect(a, b);
        }
    }
    lab.run(40);
}

#[test]
fn other_owners_take_over_while_a_thief_is_apart() {
    let mut lab = Lab::new(&[BuiltInRole::Admin, BuiltInRole::Editor]);
    lab.write(0, "a", put("{\"n\":1}"));
    admit(&mut lab, 0, Signer::Owner, 50).unwrap();
    lab.run(20);
    // A thief has the owner's key on a node of its own.
    let owner = lab.nodes[0].replica.identity().owner.clone();
    again(&mut lab, 2, |identity| identity.owner = owner);
    let door = admit(&mut lab, 2, Signer::Owner, 60).unwrap();
    assert!(is_member(&lab, 2, 60));
    lab.write(2, "c", put("{\"n\":1}"));

    let change = signed(&lab, 1, None, [110, 102, 101]);
    let elsewhere = signed(&lab, 1, None, [111, 102, 103]);
    assert!(matches!(hand_over(&mut lab, 1, elsewhere), Err(ActError::NotAllowed(_))), "no recovery key");
    let act = hand_over(&mut lab, 1, change.clone()).unwrap();
    assert_eq!(hand_over(&mut lab, 1, change.clone()).map_err(|error| error.to_string()).ok(), None, "once");
    connect_all(&mut lab);
    for node in 0..3 {
        let authority = lab.nodes[node].replica.authority();
        let owners = authority.owners().unwrap();
        assert_eq!((owners.certificate, owners.owners), (act, vec![key(110).author()]));
        assert_eq!(authority.control_verdict(door), Some(Verdict::AfterRevocation { by: act }));
        assert_eq!(lab.json(node, "c").unwrap(), "{\"n\":1}", "who has believed the thief loses nothing");
        assert!(!is_member(&lab, node, 60) && is_member(&lab, node, 50), "at {node}");
    }
    for node in [0, 2] {
        assert!(matches!(admit(&mut lab, node, Signer::Owner, 61), Err(ActError::NoOwnerKey)));
    }
    assert!(lab.nodes[1].replica.succession_basis(lab.now, None).unwrap().owners.recovery == [hash_of(102)]);
    let used = signed(&lab, 0, None, [112, 104, 101]);
    assert!(matches!(hand_over(&mut lab, 0, used), Err(ActError::NotAllowed(_))), "a key is used once");

    // The new owner's key comes to a node; also after a restart all is as it was.
    again(&mut lab, 0, |identity| identity.owner = Some(key(110)));
    admit(&mut lab, 0, Signer::Owner, 51).unwrap();
    again(&mut lab, 1, |_| {});
    connect_all(&mut lab);
    for node in 0..3 {
        assert!(is_member(&lab, node, 51) && !is_member(&lab, node, 60));
    }
    // And the next change lets stand what they did.
    let next = signed(&lab, 2, None, [113, 105, 102]);
    hand_over(&mut lab, 2, next).unwrap();
    lab.run(40);
    for node in 0..3 {
        assert!(is_member(&lab, node, 51));
    }
    lab.write(1, "b", put("{\"n\":2}"));
    lab.run(20);
    lab.assert_converged();
}

#[test]
fn what_owners_signed_too_late_does_not_stand() {
    let mut lab = Lab::new(&[BuiltInRole::Admin]);
    lab.write(0, "a", put("{\"n\":1}"));
    admit(&mut lab, 0, Signer::Owner, 50).unwrap();
    lab.run(20);
    let stolen = Hlc::new(lab.now.wall_ms, 0);
    lab.run(20);
    admit(&mut lab, 0, Signer::Owner, 60).unwrap();
    lab.run(20);
    assert!(is_member(&lab, 1, 50) && is_member(&lab, 1, 60));
    let basis = lab.nodes[1].replica.succession_basis(lab.now, Some(Hlc::ZERO)).unwrap();
    assert!(!basis.pins.is_empty() && basis.pins.iter().all(|pin| pin.seq == 0));
    let change = signed(&lab, 1, Some(stolen), [110, 102, 101]);
    hand_over(&mut lab, 1, change).unwrap();
    lab.run(40);
    for node in 0..2 {
        assert!(is_member(&lab, node, 50) && !is_member(&lab, node, 60), "at {node}");
    }
    lab.assert_converged();
}

#[test]
fn a_node_gets_another_key_and_loses_nothing() {
    let mut lab = Lab::new(&[BuiltInRole::Admin, BuiltInRole::Editor]);
    lab.write(2, "a", put("{\"n\":1}"));
    lab.run(20);
    let (old, new) = (lab.nodes[2].replica.identity().node.author(), key(70).author());
    let replace = |lab: &mut Lab, node, signer| {
        lab.act(node, signer, ActRequest::Replace { old, new, for_whom: None }).map(|done| done.op)
    };
    for equal in [1, 2] {
        assert!(matches!(replace(&mut lab, equal, Signer::Node), Err(ActError::NotAllowed(_))));
    }
    let ops = |lab: &Lab| lab.control_ops(0).len();
    let before = ops(&lab);
    let certificate = replace(&mut lab, 0, Signer::Owner).unwrap();
    assert_eq!(ops(&lab), before + 2);
    assert_eq!(replace(&mut lab, 0, Signer::Owner).unwrap(), certificate, "done again it changes nothing");
    assert_eq!(ops(&lab), before + 2);
    lab.run(20);
    lab.write(2, "a", ops_of_key(2));
    again(&mut lab, 2, |identity| {
        identity.node = key(70);
        identity.certificate = certificate;
    });
    lab.write(2, "a", ops_of_key(3));
    lab.write(2, "b", put("{\"n\":1}"));
    connect_all(&mut lab);
    let statements: Vec<OpId> = {
        let now = Hlc::new(lab.now.wall_ms, 0);
        let authority = lab.nodes[0].replica.authority();
        let certificates = authority.certificates_of(old, now).into_iter().map(|held| held.id);
        certificates.chain(authority.member(old, now).map(|member| member.statement)).collect()
    };
    assert_eq!(statements.len(), 2);
    let targets = statements.into_iter().map(RevokeTarget::Statement).collect();
    let revoke = ActRequest::Revoke { targets, reach: Reach::Target, why: String::new(), for_whom: None };
    lab.act(0, Signer::Owner, revoke).unwrap();
    connect_all(&mut lab);
    lab.write(2, "b", ops_of_key(4));
    lab.run(20);
    for node in 0..3 {
        let authority = lab.nodes[node].replica.authority();
        let now = Hlc::new(lab.now.wall_ms, 0);
        assert!(authority.is_member(new, now) && !authority.is_member(old, now));
        assert_eq!(lab.json(node, "a").unwrap(), "{\"n\":3}");
        assert_eq!(lab.json(node, "b").unwrap(), "{\"n\":4}");
    }
    let gone = lab.act(0, Signer::Owner, ActRequest::Replace { old, new: key(71).author(), for_whom: None });
    assert!(matches!(gone, Err(ActError::NothingToDo(_))));
    lab.assert_converged();
}

fn ops_of_key(n: u64) -> DocWrite {
    ops(&format!("{{\"ops\":[{{\"op\":\"set\",\"path\":\"/n\",\"value\":{n}}}]}}"))
}

#[test]
fn who_names_an_act_that_a_revocation_cuts_loses_nothing() {
    let mut lab = Lab::new(&[BuiltInRole::Admin, BuiltInRole::Editor]);
    // They had cut each other off before each knew the other as a member.
    lab.connect(1, 2);
    lab.run(20);
    lab.cut(0, 1);
    lab.cut(0, 2);
    let act = lab.act(1, Signer::Node, ActRequest::One(Act::Principal(unseen()))).unwrap().op;
    lab.run(60);
    lab.write(2, "c", put("{\"n\":1}"));
    let targets = vec![RevokeTarget::Principal(lab.nodes[1].replica.identity().principal)];
    let revoke = ActRequest::Revoke { targets, reach: Reach::Target, why: String::new(), for_whom: None };
    let by = lab.act(0, Signer::Owner, revoke).unwrap().op;
    assert_eq!(lab.nodes[2].replica.authority().control_verdict(act), Some(Verdict::Allowed));
    lab.cut(1, 2);
    lab.connect(0, 2);
    lab.run(200);
    assert_eq!(lab.nodes[2].replica.authority().control_verdict(by), Some(Verdict::Allowed));
    for node in [2, 0] {
        let verdict = lab.nodes[node].replica.authority().control_verdict(act);
        assert_eq!(verdict, Some(Verdict::AfterRevocation { by }), "at {node}");
        assert_eq!(lab.json(node, "c").as_deref(), Some("{\"n\":1}"), "at {node}");
    }
}

fn unseen() -> Principal {
    Principal { name: "unseen".to_owned(), kind: PrincipalKind::User, attest: true, rank: Rank::USER }
}
