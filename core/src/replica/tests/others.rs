//! What a node writes for others.

use super::*;
use crate::authority::Reach;
use crate::op::{Act, Grant, Principal, PrincipalKind, Rank, Revoke, RevokeTarget, Role, Target};

pub(super) fn introduce(lab: &mut Lab, kind: PrincipalKind, attest: bool) -> PrincipalId {
    let principal = Principal { name: "ann".to_owned(), kind, attest, rank: Rank::USER };
    lab.act(0, Signer::Node, ActRequest::One(Act::Principal(principal))).unwrap().op.into()
}

pub(super) fn give(lab: &mut Lab, principal: PrincipalId, role: BuiltInRole) {
    let target = Target::everything();
    let grant = Grant { principal, role: Role::BuiltIn(role), target, rank: Rank::USER, not_after: None };
    lab.act(0, Signer::Node, ActRequest::For(principal, Act::Grant(grant))).unwrap();
}

fn write_for(lab: &mut Lab, node: usize, principal: PrincipalId, id: &str) -> Result<WriteOutcome, WriteError> {
    try_write_for(lab, node, principal, id, put("{\"by\":\"ann\"}"))
}

pub(super) fn try_write_for(
    lab: &mut Lab,
    node: usize,
    principal: PrincipalId,
    id: &str,
    write: DocWrite,
) -> Result<WriteOutcome, WriteError> {
    send_for(lab, node, principal, id, write, WriteLimits::none())
}

pub(super) fn send_for(
    lab: &mut Lab,
    node: usize,
    principal: PrincipalId,
    id: &str,
    write: DocWrite,
    limits: WriteLimits,
) -> Result<WriteOutcome, WriteError> {
    lab.ticket += 1;
    let ticket = lab.ticket;
    let item = WriteItem { doc: doc(id), write, precondition: Precondition::None, base: None, bytes: 100 };
    let items = vec![item];
    let request = WriteRequest { collection: collection(), principal: Some(principal), request: None, limits, items };
    lab.step(node, Input::Write { ticket, request });
    lab.settle(node);
    lab.nodes[node].done.remove(&ticket).unwrap()
}

fn why(result: Result<WriteOutcome, WriteError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_node_writes_for_who_has_agreed_and_within_their_right() {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Reader]);
    let ann = introduce(&mut lab, PrincipalKind::User, true);
    let proud = introduce(&mut lab, PrincipalKind::User, false);
    assert!(why(write_for(&mut lab, 0, ann, "a")).contains("no grant gives this right"));
    give(&mut lab, ann, BuiltInRole::Contributor);
    give(&mut lab, proud, BuiltInRole::Editor);
    lab.run(10);
    let own = format!("{}1", ann.own_prefix());
    write_for(&mut lab, 1, ann, &own).unwrap();
    assert!(why(write_for(&mut lab, 1, ann, "a")).contains("no grant gives this right"));
    assert!(why(write_for(&mut lab, 1, proud, "a")).contains("nodes may not write for it"));
    assert!(why(write_for(&mut lab, 2, ann, &own)).contains("no duty to write for others"));
    let stranger = lab.nodes[2].replica.identity().principal;
    assert!(why(write_for(&mut lab, 1, stranger, "a")).contains("nodes may not write for it"));
    lab.run(20);
    assert_eq!(lab.json(0, &own).as_deref(), Some("{\"by\":\"ann\"}"));
    assert_eq!(lab.json(2, &own).as_deref(), Some("{\"by\":\"ann\"}"));
    lab.assert_converged();
}

#[test]
fn who_is_removed_is_cut_where_nodes_wrote_for_it_also_after_a_restart() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    let ann = introduce(&mut lab, PrincipalKind::User, true);
    give(&mut lab, ann, BuiltInRole::Editor);
    lab.run(10);
    // What the stream knows of the control log, it knows before it is written for anybody else: those ops are not read again
    // when a node starts.
    lab.write(1, "before", put("{}"));
    lab.run(10);
    let seen = write_for(&mut lab, 1, ann, "seen").unwrap().tx.unwrap();
    lab.run(10);
    // What the first node knows of it, it knows from its disk.
    let (identity, store) = (lab.nodes[0].replica.identity().clone(), lab.nodes[0].store.clone());
    lab.cut(0, 1);
    lab.ticket += 1;
    lab.open(identity, store, 0, Vec::new());
    let target = RevokeTarget::Principal(ann);
    let pins = lab.nodes[0].replica.pins_for(&target, Reach::Target);
    assert_eq!(pins.iter().map(|pin| (pin.stream, pin.seq)).collect::<Vec<_>>(), [(seen.stream, seen.seq)]);
    // Meanwhile the other one writes on, for itself and for her.
    write_for(&mut lab, 1, ann, "unseen").unwrap();
    lab.write(1, "own", put("{\"n\":1}"));
    let revoke = Revoke { target, pins, cascade: false, why: String::new() };
    lab.act(0, Signer::Node, ActRequest::One(Act::Revoke(revoke))).unwrap();
    lab.connect(0, 1);
    lab.run(40);
    for node in 0..2 {
        assert!(lab.json(node, "seen").is_some(), "within the pin, on {node}");
        assert_eq!(lab.json(node, "unseen"), None, "beyond the pin, on {node}");
        assert!(lab.json(node, "own").is_some(), "the node's own, on {node}");
        let states = Reader::new(lab.nodes[node].store.clone()).transactions(None, 10).unwrap();
        assert!(states.iter().all(|(_, record)| record.state == TxState::AfterRevocation) && states.len() == 1);
    }
    assert!(why(write_for(&mut lab, 1, ann, "late")).contains("revoked"));
    lab.write(1, "later", put("{\"n\":2}"));
    lab.run(20);
    assert!(lab.json(0, "later").is_some(), "the node's stream goes on");
    give(&mut lab, ann, BuiltInRole::Editor);
    lab.run(10);
    write_for(&mut lab, 1, ann, "again").unwrap();
    lab.run(20);
    assert!(lab.json(0, "again").is_some());
    lab.assert_converged();
}
