//! Principals with rights on some fields only, and members that lie for them.

use super::others::{introduce, try_write_for};
use super::*;
use crate::document::edit::{EditErrorKind, FieldTypes};
use crate::id::{Salt, SessionId, ShardId};
use crate::op::{
    Act, Body, ChangeRef, FieldPaths, Fields, Grant, Header, Payload, PrincipalKind, Rank, Role, StreamKey, Target,
    Transaction, WriteAction,
};

fn paths(texts: &[&str]) -> FieldPaths {
    FieldPaths::of(texts.iter().map(|text| text.parse().unwrap()))
}

fn merge(json: &str) -> DocWrite {
    DocWrite::Edit(Edit::parse(EditFormat::MergePatch, json.as_bytes()).unwrap())
}

/// Two nodes, and Ann, for whom they write: everything but /salary.
fn limited() -> (Lab, PrincipalId) {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    let ann = introduce(&mut lab, PrincipalKind::User, true);
    let target = Target { fields: Fields::Except(paths(&["/salary"])), ..Target::everything() };
    let role = Role::BuiltIn(BuiltInRole::Editor);
    let grant = Grant { principal: ann, role, target, rank: Rank::USER, not_after: None };
    lab.act(0, Signer::Node, ActRequest::One(Act::Grant(grant))).unwrap();
    lab.write(0, "d", put(r#"{"name":"a","salary":5}"#));
    lab.run(10);
    (lab, ann)
}

fn pointer(result: Result<WriteOutcome, WriteError>) -> String {
    match result {
        Err(WriteError::Edit { source, .. }) if source.kind == EditErrorKind::Withheld => source.pointer,
        other => panic!("{other:?}"),
    }
}

/// What the header of the change says that a write made.
fn declared(lab: &Lab, outcome: &WriteOutcome) -> Option<FieldPaths> {
    let tx = outcome.tx.unwrap();
    let op = lab.nodes[1].replica.chains().main_op(&tx.stream, tx.seq).unwrap();
    op.header().transactions()[usize::from(tx.tx)].changes[0].fields.clone()
}

#[test]
fn who_may_not_see_a_field_writes_around_it() {
    let (mut lab, ann) = limited();
    let outcome = try_write_for(&mut lab, 1, ann, "d", put(r#"{"name":"b","new":1}"#)).unwrap();
    assert_eq!(declared(&lab, &outcome), Some(paths(&["/name", "/new"])));
    lab.run(10);
    for node in 0..3 {
        assert_eq!(lab.json(node, "d").unwrap(), r#"{"name":"b","new":1,"salary":5}"#);
    }
    for (write, at) in [
        (put(r#"{"name":"b","salary":6}"#), "/salary"),
        (put(r#"{"name":"b","salary":5}"#), "/salary"),
        (merge(r#"{"salary":null}"#), "/salary"),
        (ops(r#"{"ops":[{"op":"set","path":"/salary/net","value":1}]}"#), "/salary/net"),
    ] {
        assert_eq!(pointer(try_write_for(&mut lab, 1, ann, "d", write)), at);
    }
    // A document of its own; nothing is left of one that is refused.
    assert_eq!(pointer(try_write_for(&mut lab, 1, ann, "e", put(r#"{"a":1,"salary":1}"#))), "/salary");
    let outcome = try_write_for(&mut lab, 1, ann, "e", put(r#"{"a":{"b":[1]},"c":2}"#)).unwrap();
    assert_eq!(declared(&lab, &outcome), Some(paths(&["/a", "/c"])));
    let outcome = try_write_for(&mut lab, 1, ann, "e", merge(r#"{"a":{"b":null,"x":1}}"#)).unwrap();
    assert_eq!(declared(&lab, &outcome), Some(paths(&["/a/b", "/a/x"])));
    // An empty document touches no field; to delete one is to touch all.
    let outcome = try_write_for(&mut lab, 1, ann, "empty", put("{}")).unwrap();
    assert_eq!(declared(&lab, &outcome), Some(FieldPaths::default()));
    let denied = try_write_for(&mut lab, 1, ann, "e", DocWrite::Delete).unwrap_err();
    assert!(matches!(denied, WriteError::NotAllowed(_)), "{denied}");
    // Whose rights are on whole documents declares nothing.
    let outcome = lab.write(1, "d", merge(r#"{"salary":7}"#));
    assert_eq!(declared(&lab, &outcome), None);
    lab.run(20);
    for node in 0..3 {
        assert_eq!(lab.json(node, "d").unwrap(), r#"{"name":"b","new":1,"salary":7}"#);
        assert_eq!(lab.json(node, "e").unwrap(), r#"{"a":{"x":1},"c":2}"#);
        assert!(lab.nodes[node].replica.tx_states().values().all(|count| *count == 0));
    }
    lab.assert_converged();
}

#[test]
fn the_limits_of_a_token_count_beside_the_rights_of_its_principal() {
    let (mut lab, _) = limited();
    let only = |fields| Fields::Only(paths(fields));
    let limits = WriteLimits { read: Some(only(&["/name"])), write: only(&["/name", "/note"]) };
    let own = lab.nodes[1].replica.identity().principal;
    let mut write = |write| {
        let outcome = others::send_for(&mut lab, 1, own, "d", write, limits.clone());
        outcome.map(|outcome| declared(&lab, &outcome))
    };
    assert_eq!(pointer(write(merge(r#"{"salary":1}"#)).map(|_| unreachable!())), "/salary");
    // The rule knows nothing of tokens: nothing need be declared.
    assert_eq!(write(put(r#"{"name":"c","note":"n"}"#)).unwrap(), None);
    lab.run(10);
    assert_eq!(lab.json(2, "d").unwrap(), r#"{"name":"c","note":"n","salary":5}"#);
}

/// An edit that node 1 makes and signs for Ann as it likes, in a session of its own.
struct Liar {
    key: StreamKey,
    seq: u64,
    prev: OpId,
}

impl Liar {
    fn new(lab: &Lab) -> Self {
        let identity = lab.nodes[1].replica.identity();
        let shard = ShardId::of_document(&collection(), &doc("d"), 1);
        let session = SessionId::new([66; 8]);
        let key = StreamKey { shard, author: identity.node.author(), certificate: identity.certificate, session };
        Self { key, seq: 1, prev: OpId::ZERO }
    }

    /// Has node 2 take the op, which passes it on.
    fn send(&mut self, lab: &mut Lab, ann: PrincipalId, patch: &str, fields: Option<FieldPaths>) -> (OpId, u16) {
        let replica = &mut lab.nodes[1].replica;
        let place = DocKey { collection: collection(), doc: doc("d") };
        replica.ensure_loaded(&place).unwrap();
        let mut document = replica.cache.get(&place).unwrap().document.clone();
        let actor = self.key.actor(&ann, &place.doc);
        let edit = Edit::parse(EditFormat::MergePatch, patch.as_bytes()).unwrap();
        let change = document.edit(&actor, None, &edit, &FieldTypes::none()).unwrap().unwrap();
        let body = Body { salt: Salt::new([7; 16]), bytes: change.bytes };
        let change = ChangeRef { fields, ..ChangeRef::new(place.doc, WriteAction::Update, &body) };
        let identity = replica.identity().clone();
        let header = Header {
            version: crate::limits::OP_VERSION,
            cluster: identity.cluster,
            shard: self.key.shard.clone(),
            author: self.key.author,
            certificate: self.key.certificate,
            session: self.key.session,
            seq: self.seq,
            prev: self.prev,
            earlier: Vec::new(),
            hlc: crate::hlc::Hlc::new(lab.now.wall_ms, 0),
            control_heads: replica.authority.control_heads(),
            payload: Payload::Data(vec![Transaction { principal: ann, request: None, changes: vec![change] }]),
        };
        let op = Op::sign(header, vec![body], &identity.node).unwrap();
        (self.seq, self.prev) = (self.seq + 1, op.id());
        assert_eq!(lab.nodes[2].replica.import(lab.now, &[Arc::new(op.clone())]), Imported::Taken);
        lab.run(20);
        (op.id(), 0)
    }
}

#[test]
fn a_lie_about_fields_is_found_by_everybody() {
    let (mut lab, ann) = limited();
    let mut liar = Liar::new(&lab);
    lab.liar = Some(liar.key.author);
    let honest = liar.send(&mut lab, ann, r#"{"name":"x"}"#, Some(paths(&["/name"])));
    let lie = liar.send(&mut lab, ann, r#"{"salary":1}"#, Some(paths(&["/name"])));
    let honest_again = liar.send(&mut lab, ann, r#"{"name":"y"}"#, Some(paths(&["/name"])));
    let confessed = liar.send(&mut lab, ann, r#"{"salary":2}"#, Some(paths(&["/salary"])));
    let silent = liar.send(&mut lab, ann, r#"{"name":"z"}"#, None);
    for node in 0..3 {
        let states = forks::states(&lab, node);
        let found = [honest, lie, honest_again, confessed, silent].map(|tx| states.get(&tx).copied());
        assert_eq!(found[..2], [None, Some(TxState::BadChange)], "node {node}");
        assert_eq!(found[3..], [Some(TxState::NotAllowed), Some(TxState::NotAllowed)], "node {node}");
        assert!(lab.json(node, "d").unwrap().contains(r#""salary":5"#));
    }
    lab.assert_converged();
}
