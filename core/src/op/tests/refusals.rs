//! One refusal for each thing that can be wrong with an op.

use super::*;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ChangeHash, CollectionName, Commitment, DocId, ExchangeKey, PepperId, Salt, SealedPepper};
use crate::keys::SecretKey;

fn key() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn id(n: u8) -> OpId {
    OpId::new([n; 32])
}

fn cluster() -> ClusterId {
    ClusterId::new([0xcc; 32])
}

fn body(bytes: &[u8]) -> Body {
    Body { salt: Salt::new([3; 16]), bytes: Bytes::copy_from_slice(bytes) }
}

fn change(doc: &str, body: &Body) -> ChangeRef {
    ChangeRef::new(doc.parse().unwrap(), WriteAction::Create, body)
}

fn transaction(changes: Vec<ChangeRef>) -> Transaction {
    Transaction { principal: PrincipalId::new([0xa0; 32]), request: None, changes }
}

fn header(payload: Payload) -> Header {
    Header {
        version: limits::OP_VERSION,
        cluster: cluster(),
        shard: match payload {
            Payload::Data(_) => ShardId { collection: "c".parse().unwrap(), index: 0, of: 1 },
            Payload::Control(_) => ShardId::control(),
        },
        author: key().author(),
        certificate: id(1),
        session: SessionId::new([5; 8]),
        seq: 200,
        prev: id(9),
        earlier: Vec::new(),
        hlc: Hlc::new(1_000, 0),
        control_heads: vec![id(1), id(2)],
        payload,
    }
}

fn data_header() -> Header {
    header(Payload::Data(vec![transaction(vec![change("a", &body(b"x")), change("b", &body(b"y"))])]))
}

fn data_op() -> Op {
    Op::sign(data_header(), vec![body(b"x"), body(b"y")], &key()).unwrap()
}

fn control_header(act: Act) -> Header {
    header(Payload::from(Control { proof: vec![id(1), id(2)], act, for_whom: None }))
}

/// An op as somebody else's program might encode it.
fn envelope(header_bytes: &[u8], bodies: Vec<Option<Body>>) -> Vec<u8> {
    codec::encode(&WireOp(header_bytes.to_vec(), None, bodies))
}

fn decode_header_bytes(header_bytes: &[u8]) -> Result<Op, OpError> {
    Op::decode(&envelope(header_bytes, vec![Some(body(b"x")), Some(body(b"y"))]), cluster())
}

/// Replaces the only place where `from` occurs.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let places: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    let [at] = places[..] else { panic!("{} places", places.len()) };
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

/// Signing and decoding refuse the header alike, for the same reason.
#[track_caller]
fn check_header(header: &Header, bodies: &[Body], reason: &str) {
    let says = |result: Result<Op, OpError>| match result {
        Err(OpError::Invalid(text)) => text,
        other => panic!("{reason}: {other:?}"),
    };
    assert_eq!(says(Op::sign(header.clone(), bodies.to_vec(), &key())), reason);
    let sent = envelope(&codec::encode(header), bodies.iter().cloned().map(Some).collect());
    assert_eq!(says(Op::decode(&sent, cluster())), reason);
}

#[track_caller]
fn check_data(reason: &str, edit: impl FnOnce(&mut Header)) {
    let mut header = data_header();
    edit(&mut header);
    check_header(&header, &[body(b"x"), body(b"y")], reason);
}

#[track_caller]
fn check_transactions(reason: &str, edit: impl FnOnce(&mut Vec<Transaction>)) {
    check_data(reason, |header| match &mut header.payload {
        Payload::Data(transactions) => edit(transactions),
        Payload::Control(_) => unreachable!(),
    });
}

#[track_caller]
fn check_act(reason: &str, act: Act) {
    check_header(&control_header(act), &[], reason);
}

#[test]
fn the_base_of_these_tests_is_valid() {
    assert_eq!(Op::decode(&data_op().encode(), cluster()).unwrap(), data_op());
    let rules = control_header(Act::Rules(Rules { version: 1 }));
    Op::sign(rules, Vec::new(), &key()).unwrap();
}

#[test]
fn headers_out_of_bounds() {
    check_data("shard out of bounds", |h| h.shard.of = 0);
    check_data("shard out of bounds", |h| h.shard.index = 1);
    check_data("shard out of bounds", |h| h.shard.of = limits::SHARDS_MAX + 1);
    check_data("sequence and previous op disagree", |h| h.seq = 0);
    check_data("sequence and previous op disagree", |h| h.seq = 1);
    check_data("sequence and previous op disagree", |h| h.prev = OpId::ZERO);
    check_data("control heads out of order", |h| h.control_heads = vec![id(2), id(1)]);
    check_data("control heads out of order", |h| h.control_heads = vec![id(1), id(1)]);
    check_data("too many control heads", |h| h.control_heads = (1..=9).map(id).collect());
    check_data("data without certificate or cluster", |h| h.certificate = OpId::ZERO);
    check_data("first op of a stream names no control heads", |h| {
        (h.seq, h.prev, h.control_heads) = (1, OpId::ZERO, Vec::new());
    });
    check_data("data in a system collection", |h| h.shard.collection = "_audit".parse().unwrap());
    check_data("data in a system collection", |h| h.shard = ShardId::control());
}

#[test]
fn transactions_out_of_bounds() {
    let no_bodies = |payload, reason: &str| check_header(&header(payload), &[], reason);
    no_bodies(Payload::Data(Vec::new()), "number of transactions out of bounds");
    no_bodies(Payload::Data(vec![transaction(Vec::new())]), "empty transaction");
    check_transactions("number of transactions out of bounds", |t| {
        *t = vec![transaction(Vec::new()); limits::TRANSACTIONS_MAX + 1];
    });
    check_transactions("too many changes", |t| {
        *t = vec![transaction((0..=limits::OP_CHANGES_MAX).map(|n| change(&n.to_string(), &body(b""))).collect())];
    });
    check_transactions("two changes of one document in one transaction", |t| {
        t[0].changes[1].doc = t[0].changes[0].doc.clone();
    });
    check_transactions("body too large", |t| t[0].changes[0].body_bytes = limits::CHANGE_BYTES_MAX as u32 + 1);
    check_transactions("bodies too large", |t| {
        let mut large = change("a", &body(b""));
        large.body_bytes = limits::CHANGE_BYTES_MAX as u32;
        let mut rest = large.clone();
        rest.body_bytes = 1;
        *t = vec![transaction(vec![large]); 4];
        t.push(transaction(vec![rest]));
    });
    check_transactions("fewer bodies than changes", |t| t.push(transaction(vec![change("z", &body(b""))])));
    check_transactions("more bodies than changes", |t| t[0].changes.truncate(1));
    check_data("document lies in another shard", |h| {
        let place = |doc: &str| ShardId::of_document(&h.shard.collection, &doc.parse().unwrap(), 2).index;
        h.shard = ShardId { index: 1 - place("a"), of: 2, ..h.shard.clone() };
    });
}

#[test]
fn control_ops_out_of_place() {
    let rules = || Act::Rules(Rules { version: 1 });
    let check = |reason: &str, edit: &dyn Fn(&mut Header, &mut Vec<OpId>)| {
        let (mut header, mut proof) = (control_header(rules()), vec![id(1), id(2)]);
        edit(&mut header, &mut proof);
        header.payload = Payload::from(Control { proof, act: rules(), for_whom: None });
        check_header(&header, &[], reason);
    };
    check("control act outside the control shard", &|h, _| h.shard = data_header().shard);
    check("control act outside the control shard", &|h, _| h.shard.of = 2);
    check("proof lacks the certificate", &|_, proof| *proof = vec![id(2)]);
    check("proof lacks the certificate", &|_, proof| proof.clear());
    check("proof out of order", &|_, proof| *proof = vec![id(2), id(1)]);
    check("too many statements in the proof", &|_, proof| *proof = (1..=9).map(id).collect());
    check("act without certificate or cluster", &|h, _| h.certificate = OpId::ZERO);
    check("first op of a stream names no control heads", &|h, _| {
        (h.seq, h.prev, h.control_heads) = (1, OpId::ZERO, Vec::new());
    });
    check_header(&control_header(rules()), &[body(b"")], "more bodies than changes");
}

fn weak_key() -> AuthorKey {
    let mut identity = [0; 32];
    identity[0] = 1;
    AuthorKey::new(identity)
}

#[test]
fn acts_out_of_bounds() {
    let to = PrincipalId::new([7; 32]);
    let long = || "x".repeat(limits::ACT_TEXT_BYTES_MAX + 1);
    let certify =
        || Certify { principal: None, key: key().author(), rank: Rank::USER, not_after: None, name: String::new() };
    check_act("rank out of bounds", Act::Certify(Certify { rank: Rank::OWNER, ..certify() }));
    check_act("rank out of bounds", Act::Certify(Certify { rank: Rank::RECOVERY, ..certify() }));
    check_act("rank out of bounds", Act::Certify(Certify { rank: Rank(limits::RANK_MAX + 1), ..certify() }));
    check_act("text too long", Act::Certify(Certify { name: long(), ..certify() }));
    check_act("certified key is weak", Act::Certify(Certify { key: weak_key(), ..certify() }));

    let member =
        || Member { principal: to, key: key().author(), rank: Rank::NODE, not_after: None, labels: Vec::new() };
    let label = |name: &str| (name.to_owned(), String::new());
    check_act("rank out of bounds", Act::Member(Member { rank: Rank(0), ..member() }));
    check_act("member key is weak", Act::Member(Member { key: weak_key(), ..member() }));
    check_act("labels out of order", Act::Member(Member { labels: vec![label("b"), label("a")], ..member() }));
    check_act("text too long", Act::Member(Member { labels: vec![label(&long())], ..member() }));
    let many = (0..=limits::MEMBER_LABELS_MAX).map(|n| label(&format!("{n:03}"))).collect();
    check_act("too many labels", Act::Member(Member { labels: many, ..member() }));

    for bad in ["", "A", "a*b", "**", "_control", "_*", "*a"] {
        let target = Target::collections(bad);
        let role = Role::BuiltIn(BuiltInRole::Admin);
        let grant = Grant { principal: to, role, target, rank: Rank::USER, not_after: None };
        check_act("target is no collection name or prefix", Act::Grant(grant));
    }

    for bad in [String::new(), "a\nb".to_owned(), "a".repeat(limits::DOC_ID_BYTES_MAX + 1)] {
        let target = Target { documents: Documents::Prefix(bad), ..Target::everything() };
        let duty = |duty| Act::Duty(DutyGrant { principal: to, duty, rank: Rank::USER, not_after: None });
        check_act("target is no prefix of document ids", duty(Duty::ActFor(target.clone())));
        check_act("target is no prefix of document ids", duty(Duty::Registrar(target)));
    }
    let duty = DutyGrant { principal: to, duty: Duty::Warden(()), rank: Rank(0), not_after: None };
    check_act("rank out of bounds", Act::Duty(duty));

    let revision = || RoleRevision {
        name: "clerk".to_owned(),
        actions: Action::Read.into(),
        own_actions: Action::Update.into(),
        rank: Rank::USER,
    };
    check_act("rank out of bounds", Act::Role(RoleRevision { rank: Rank(0), ..revision() }));
    check_act("text too long", Act::Role(RoleRevision { name: long(), ..revision() }));
    let nothing = "role without a name or an action";
    check_act(nothing, Act::Role(RoleRevision { name: String::new(), ..revision() }));
    let none = RoleRevision { actions: Actions::NONE, own_actions: Actions::NONE, ..revision() };
    check_act(nothing, Act::Role(none));
    let own = RoleRevision { own_actions: Action::Administer.into(), ..revision() };
    check_act("role with actions on own documents that are not about documents", Act::Role(own));

    let user = |kind| Principal { name: String::new(), kind, attest: true, rank: Rank::USER };
    check_act("rank out of bounds", Act::Principal(Principal { rank: Rank(0), ..user(PrincipalKind::User) }));
    check_act("text too long", Act::Principal(Principal { name: long(), ..user(PrincipalKind::User) }));
    check_act("group for which others write", Act::Principal(user(PrincipalKind::Group)));
    let join = Join { principal: to, group: to, rank: Rank::USER, not_after: None };
    check_act("group joins itself", Act::Join(join.clone()));
    let rank = Rank(0);
    check_act("rank out of bounds", Act::Join(Join { group: PrincipalId::new([1; 32]), rank, ..join }));

    let erase = |docs: Vec<DocId>| Erase { collection: "c".parse().unwrap(), documents: docs, why: String::new() };
    let doc = |n: usize| -> DocId { format!("d{n:03}").parse().unwrap() };
    let number = "number of documents to erase out of bounds";
    check_act(number, Act::Erase(erase(vec![])));
    check_act(number, Act::Erase(erase((0..=limits::ERASE_DOCUMENTS_MAX).map(doc).collect())));
    check_act("documents to erase out of order", Act::Erase(erase(vec![doc(2), doc(1)])));
    check_act("documents to erase out of order", Act::Erase(erase(vec![doc(1), doc(1)])));
    check_act("text too long", Act::Erase(Erase { why: long(), ..erase(vec![doc(1)]) }));
    let system = CollectionName::control();
    check_act("erasure in a system collection", Act::Erase(Erase { collection: system, ..erase(vec![doc(1)]) }));
    let many = (0..=limits::ERASED_ACTS_MAX).map(|n| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        OpId::new(bytes)
    });
    check_act("number of erasures out of bounds", Act::Erased(Erased { acts: vec![] }));
    check_act("number of erasures out of bounds", Act::Erased(Erased { acts: many.collect() }));
    check_act("erasures out of order", Act::Erased(Erased { acts: vec![id(2), id(1)] }));

    let many = (0..=limits::WITHDRAWN_ACTS_MAX).map(|n| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        OpId::new(bytes)
    });
    check_act("number of acts to withdraw out of bounds", Act::Withdraw(Withdraw { acts: vec![] }));
    check_act("number of acts to withdraw out of bounds", Act::Withdraw(Withdraw { acts: many.collect() }));
    check_act("acts to withdraw out of order", Act::Withdraw(Withdraw { acts: vec![id(2), id(1)] }));

    let share = |n: usize| {
        let mut node = [0; 32];
        node[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PepperShare { node: AuthorKey::new(node), sealed: SealedPepper::new([0; 48]) }
    };
    let shares = |shares: Vec<PepperShare>| {
        Act::Pepper(PepperShares { pepper: PepperId::new([1; 32]), sealed_with: ExchangeKey::new([2; 32]), shares })
    };
    let number = "number of shares of a pepper out of bounds";
    check_act(number, shares(vec![]));
    check_act(number, shares((0..=limits::PEPPER_SHARES_MAX).map(share).collect()));
    check_act("shares of a pepper out of order", shares(vec![share(1), share(1)]));
    let most = control_header(shares((0..limits::PEPPER_SHARES_MAX).map(share).collect()));
    Op::sign(most, Vec::new(), &key()).unwrap();

    let pin = |stream: u8, seq| Pin { stream: StreamId::new([stream; 32]), seq, head: id(1) };
    let revoke = |pins, why| Act::Revoke(Revoke { target: RevokeTarget::Principal(to), pins, cascade: false, why });
    check_act("pins out of order", revoke(vec![pin(2, 1), pin(1, 1)], String::new()));
    check_act("pins out of order", revoke(vec![pin(1, 1), pin(1, 2)], String::new()));
    let disagree = "sequence and op of a pin disagree";
    check_act(disagree, revoke(vec![pin(1, 0)], String::new()));
    check_act(disagree, revoke(vec![Pin { head: OpId::ZERO, ..pin(1, 1) }], String::new()));
    check_act("text too long", revoke(Vec::new(), long()));
    let readmit = |pins| Act::Readmit(Readmit { revocation: id(1), pins });
    check_act("pins out of order", readmit(vec![pin(2, 1), pin(1, 1)]));
    check_act("too many pins", readmit(vec![pin(1, 1); limits::PINS_MAX + 1]));

    let evidence = |pins| Act::Evidence(Evidence { pins });
    check_act("evidence of nothing", evidence(vec![]));
    check_act("evidence of nothing", evidence(vec![Pin { head: OpId::ZERO, ..pin(1, 0) }]));
    check_act("pins out of order", evidence(vec![pin(2, 1), pin(1, 1)]));
    check_act("too many pins", evidence(vec![pin(1, 1); limits::PINS_MAX + 1]));
    for quorum in [0, limits::WITNESSES_MAX + 1] {
        let duty = DutyGrant { principal: to, duty: Duty::Witness(quorum), rank: Rank(5), not_after: None };
        check_act("quorum of a witness out of bounds", Act::Duty(duty));
    }

    let collection = || Collection {
        name: "c".parse().unwrap(),
        shards: 1,
        types: Vec::new(),
        dropped: false,
        audit_reads: false,
        indexes: vec![],
        schema: None,
        expires: None,
        unique: vec![],
    };
    let field = |pointer: &str| FieldDeclaration { pointer: pointer.to_owned(), kind: FieldKind::Text };
    let bounds = "collection settings out of bounds";
    check_act(bounds, Act::Collection(Collection { shards: 0, ..collection() }));
    check_act(bounds, Act::Collection(Collection { shards: limits::SHARDS_MAX + 1, ..collection() }));
    check_act(bounds, Act::Collection(Collection { name: "_x".parse().unwrap(), ..collection() }));
    let many = (0..=limits::FIELD_TYPES_MAX).map(|n| field(&format!("/{n:03}"))).collect();
    check_act(bounds, Act::Collection(Collection { types: many, ..collection() }));
    let unsorted = vec![field("/b"), field("/a")];
    check_act("field types out of order", Act::Collection(Collection { types: unsorted, ..collection() }));
    let twice = vec![field("/a"), FieldDeclaration { kind: FieldKind::Bytes, ..field("/a") }];
    check_act("field types out of order", Act::Collection(Collection { types: twice, ..collection() }));
    let bare = vec![field("a")];
    check_act("field type without JSON pointer", Act::Collection(Collection { types: bare, ..collection() }));
    let index = |name: &str, field: &str| IndexDeclaration {
        name: name.to_owned(),
        fields: vec![field.to_owned()],
        sparse: false,
    };
    let with = |indexes| Act::Collection(Collection { indexes, ..collection() });
    check_act(bounds, with((0..=limits::INDEXES_MAX).map(|n| index(&format!("{n:03}"), "a")).collect()));
    check_act("indexes out of order", with(vec![index("b", "a"), index("a", "a")]));
    for (name, field) in [("", "a"), ("a b", "a"), ("a", "_id"), ("a", "a..b"), ("a", "")] {
        check_act("an index that is none", with(vec![index(name, field)]));
    }
    check_act("an index that is none", with(vec![IndexDeclaration { fields: vec![], ..index("a", "a") }]));
    let alike = |fields: &[&str]| Unique(fields.iter().map(|field| field.parse().unwrap()).collect());
    let with = |unique| Act::Collection(Collection { unique, ..collection() });
    check_act(bounds, with((0..=limits::UNIQUE_MAX).map(|n| alike(&[&format!("/{n:03}")])).collect()));
    check_act("unique constraints out of order", with(vec![alike(&["/b"]), alike(&["/a"])]));
    check_act("unique constraints out of order", with(vec![alike(&["/a"]), alike(&["/a"])]));
    for fields in [&[][..], &["/b", "/a"], &["/a", "/a"], &["/a/*"], &["/a", "/b", "/c", "/d", "/e"]] {
        check_act("a unique constraint that is none", with(vec![alike(fields)]));
    }
    check_act("rules version 0", Act::Rules(Rules { version: 0 }));
}

#[test]
fn earlier_sessions_out_of_bounds() {
    let end = |n: u8| SessionEnd { session: SessionId::new([n; 8]), seq: 1, head: id(n) };
    let first = |earlier| Header { seq: 1, prev: OpId::ZERO, earlier, ..data_header() };
    let bodies = || vec![body(b"x"), body(b"y")];
    Op::sign(first(vec![end(1), end(6)]), bodies(), &key()).unwrap();
    let check = |reason: &str, header: Header| check_header(&header, &bodies(), reason);
    let elsewhere = "earlier sessions named elsewhere than in the first op of a data stream";
    check(elsewhere, Header { earlier: vec![end(1)], ..data_header() });
    let control = control_header(Act::Rules(Rules { version: 1 }));
    check_header(&Header { seq: 1, prev: OpId::ZERO, earlier: vec![end(1)], ..control }, &[], elsewhere);
    check("earlier sessions out of order", first(vec![end(2), end(1)]));
    check("earlier sessions out of order", first(vec![end(1), SessionEnd { seq: 2, ..end(1) }]));
    let many = (0..=limits::EARLIER_SESSIONS_MAX as u8).map(|n| end(n + 10)).collect();
    check("too many earlier sessions", first(many));
    let none = "earlier session without an end, or the op's own";
    check(none, first(vec![end(5)]));
    check(none, first(vec![SessionEnd { seq: 0, ..end(1) }]));
    check(none, first(vec![SessionEnd { head: OpId::ZERO, ..end(1) }]));
}

#[test]
fn geneses_out_of_bounds() {
    let genesis = || Genesis {
        name: String::new(),
        owners: vec![key().author()],
        threshold: 1,
        recovery: Vec::new(),
        recovery_threshold: 0,
        rules: 1,
        nonce: Salt::ZERO,
    };
    let alone = |genesis| {
        let payload = Payload::from(Control { proof: Vec::new(), act: Act::Genesis(genesis), for_whom: None });
        Header {
            cluster: ClusterId::ZERO,
            certificate: OpId::ZERO,
            seq: 1,
            prev: OpId::ZERO,
            control_heads: Vec::new(),
            ..header(payload)
        }
    };
    Op::sign(alone(genesis()), Vec::new(), &key()).unwrap();

    let two = || {
        let mut owners = vec![key().author(), SecretKey::from_seed(&[2; 32]).author()];
        owners.sort();
        owners
    };
    let reversed = two().into_iter().rev().collect();
    let check = |reason: &str, genesis| check_header(&alone(genesis), &[], reason);
    check("number of owner or recovery keys out of bounds", Genesis { owners: Vec::new(), ..genesis() });
    check("owner keys out of order", Genesis { owners: reversed, ..genesis() });
    check("threshold out of bounds", Genesis { threshold: 0, ..genesis() });
    check("threshold out of bounds", Genesis { threshold: 3, owners: two(), ..genesis() });
    check("threshold out of bounds", Genesis { recovery: vec![[1; 32]], ..genesis() });
    check("threshold out of bounds", Genesis { recovery_threshold: 1, ..genesis() });
    check("rules version 0", Genesis { rules: 0, ..genesis() });
    let stranger = vec![SecretKey::from_seed(&[2; 32]).author()];
    check("genesis not signed by an owner", Genesis { owners: stranger, ..genesis() });
    let mut weak = vec![key().author(), weak_key()];
    weak.sort();
    check("owner key is weak", Genesis { owners: weak, ..genesis() });

    let refers = "genesis refers to something";
    check_header(&Header { cluster: cluster(), ..alone(genesis()) }, &[], refers);
    check_header(&Header { control_heads: vec![id(1)], ..alone(genesis()) }, &[], refers);
    check_header(&Header { seq: 2, prev: id(1), ..alone(genesis()) }, &[], refers);
}

#[test]
fn foreign_clusters() {
    let other = ClusterId::new([0xdd; 32]);
    let refused = Op::decode(&data_op().encode(), other);
    assert!(matches!(refused, Err(OpError::ForeignCluster(own)) if own == cluster()), "{refused:?}");
}

#[test]
fn bodies_swapped_changed_and_missing() {
    let send = |bodies| Op::decode(&envelope(data_op().header_bytes(), bodies), cluster());
    let (x, y) = (|| Some(body(b"x")), || Some(body(b"y")));
    assert!(matches!(send(vec![y(), x()]), Err(OpError::Commitment { index: 0 })));
    assert!(matches!(send(vec![x(), x()]), Err(OpError::Commitment { index: 1 })));
    let other_salt = Some(Body { salt: Salt::new([4; 16]), ..body(b"y") });
    assert!(matches!(send(vec![x(), other_salt]), Err(OpError::Commitment { index: 1 })));
    assert!(matches!(send(vec![x()]), Err(OpError::Invalid("fewer bodies than changes"))));
    assert!(matches!(send(vec![x(), y(), None]), Err(OpError::Invalid("more bodies than changes"))));
    // That one is not here is no damage: the header stands without it.
    assert_eq!(send(vec![None, y()]).unwrap().id(), data_op().id());

    // A header that lies about a length is not believed because the hash is right.
    let mut header = data_header();
    let Payload::Data(transactions) = &mut header.payload else { unreachable!() };
    transactions[0].changes[1].body_bytes += 1;
    let refused = Op::sign(header, vec![body(b"x"), body(b"y")], &key());
    assert!(matches!(refused, Err(OpError::Commitment { index: 1 })));
}

#[test]
fn signatures_of_others() {
    let op = data_op();
    let stranger = SecretKey::from_seed(&[2; 32]);
    assert!(matches!(Op::sign(data_header(), vec![body(b"x"), body(b"y")], &stranger), Err(OpError::Signature)));
    assert!(op.is_signed_by(&PublicKey::new(&key().author()).unwrap()));
    assert!(!op.is_signed_by(&PublicKey::new(&stranger.author()).unwrap()));
    let forged = Op { signature: Some(stranger.sign_op(&op.id())), ..op.clone() };
    let back = Op::decode(&forged.encode(), cluster()).unwrap();
    assert!(!back.is_signed_by(&author_key(&op)));
    // The signature of another op of the same author.
    let moved = Op { signature: Some(key().sign_op(&id(1))), ..op.clone() };
    assert!(!moved.is_signed_by(&author_key(&op)));

    let short = codec::encode(&WireOp(op.header_bytes().to_vec(), Some(vec![0; 63]), op.bodies().to_vec()));
    assert!(matches!(Op::decode(&short, cluster()), Err(OpError::Invalid("signature length"))));
    // A weak author can sign what it likes: its key verifies nothing.
    assert!(PublicKey::new(&weak_key()).is_none());
}

#[test]
fn other_versions_by_their_number() {
    let mut bytes = data_op().header_bytes().to_vec();
    assert_eq!(bytes[1], limits::OP_VERSION);
    for version in [0, 2, 0x7f] {
        bytes[1] = version;
        assert!(matches!(decode_header_bytes(&bytes), Err(OpError::Version(found)) if found == version));
    }
    // However that version lays out the rest.
    assert!(matches!(decode_header_bytes(&[0x92, 2, 0xc0]), Err(OpError::Version(2))));
}

#[test]
fn second_encodings() {
    let bytes = data_op().header_bytes().to_vec();
    decode_header_bytes(&bytes).unwrap();
    let session = [&[0xc4, 8][..], &[5; 8]].concat();
    let seq = [&session[..], &[0xcc, 200]].concat();
    let prev = [&[0xc4, 32][..], &[9; 32]].concat();
    let hex = |n: u8, times: usize| format!("{n:02x}").repeat(times).into_bytes();
    let cases: [(&str, Vec<u8>, Vec<u8>); 9] = [
        ("long version", vec![0x9c, 1], vec![0x9c, 0xcc, 1]),
        ("array longer than need be", vec![0x9c, 1], vec![0xdc, 0, 12, 1]),
        ("seq as u16", seq.clone(), [&session[..], &[0xcd, 0, 200]].concat()),
        ("seq as u64", seq.clone(), [&session[..], &[0xcf, 0, 0, 0, 0, 0, 0, 0, 200]].concat()),
        ("seq as positive i16", seq, [&session[..], &[0xd1, 0, 200]].concat()),
        ("bytes with a long length", prev.clone(), [&[0xc5, 0, 32][..], &[9; 32]].concat()),
        ("id as text of hex", prev, [&[0xd9, 64][..], &hex(9, 32)].concat()),
        ("name as bytes", vec![0x93, 0xa1, b'c', 0, 1], vec![0x93, 0xc4, 1, b'c', 0, 1]),
        ("name with a long length", vec![0x93, 0xa1, b'c', 0, 1], vec![0x93, 0xd9, 1, b'c', 0, 1]),
    ];
    for (name, from, to) in cases {
        let result = decode_header_bytes(&replaced(&bytes, &from, &to));
        assert!(matches!(result, Err(OpError::Header(_))), "{name}: {result:?}");
    }
    let trailing = decode_header_bytes(&[&bytes[..], &[0xc0]].concat());
    assert!(matches!(trailing, Err(OpError::Header(CodecError::NotCanonical))), "{trailing:?}");
    let mut named = rmp_serde::to_vec_named(&data_header()).unwrap();
    assert!(matches!(decode_header_bytes(&named), Err(OpError::Header(CodecError::NotCanonical))));
    // With an unknown field, which serde skips over.
    assert_eq!(named[0], 0x8c);
    named[0] = 0x8d;
    named.extend([0xa1, b'z', 0xc0]);
    assert!(matches!(decode_header_bytes(&named), Err(OpError::Header(CodecError::NotCanonical))));

    let sent = data_op().encode();
    let result = Op::decode(&[&sent[..], &[0]].concat(), cluster());
    assert!(matches!(result, Err(OpError::Envelope(CodecError::NotCanonical))), "{result:?}");
    for (name, from, to) in [
        ("salt as text", [&[0xc4, 16][..], &[3; 16], &[0xc4, 1, b'x']].concat(), {
            [&[0xd9, 32][..], &hex(3, 16), &[0xc4, 1, b'x']].concat()
        }),
        ("body as text", vec![0xc4, 1, b'x'], vec![0xa1, b'x']),
        ("body as array of numbers", vec![0xc4, 1, b'x'], vec![0x91, b'x']),
    ] {
        let result = Op::decode(&replaced(&sent, &from, &to), cluster());
        assert!(matches!(result, Err(OpError::Envelope(_))), "{name}: {result:?}");
    }
}

#[test]
fn unknown_tags() {
    let control = codec::encode(&control_header(Act::Rules(Rules { version: 77 })));
    // (tag 1, [proof of two, (tag 7, [77])])
    let act = [0x92, 7, 0x91, 77];
    for tag in [9, 32, 47, 0x7f] {
        let bytes = replaced(&control, &act, &[0x92, tag, 0x91, 77]);
        let result = Op::decode(&envelope(&bytes, Vec::new()), cluster());
        assert!(matches!(result, Err(OpError::Header(CodecError::Malformed(_)))), "act {tag}: {result:?}");
    }
    let heads_and_tag = [&[0xc4, 32][..], &[2; 32], &[0x92, 0, 0x91, 0x93]].concat();
    let other = [&[0xc4, 32][..], &[2; 32], &[0x92, 2, 0x91, 0x93]].concat();
    let result = decode_header_bytes(&replaced(data_op().header_bytes(), &heads_and_tag, &other));
    assert!(matches!(result, Err(OpError::Header(CodecError::Malformed(_)))), "payload: {result:?}");
    // (document, action, commitment): action 3
    let result = decode_header_bytes(&replaced(data_op().header_bytes(), &[0xa1, b'a', 0], &[0xa1, b'a', 3]));
    assert!(matches!(result, Err(OpError::Header(CodecError::Malformed(_)))), "action: {result:?}");
}

#[test]
fn oversized() {
    let result = Op::decode(&vec![0; limits::OP_BYTES_MAX + 1], cluster());
    assert!(matches!(result, Err(OpError::Envelope(CodecError::TooLarge { .. }))), "{result:?}");
    let result = decode_header_bytes(&vec![0xc0; limits::HEADER_BYTES_MAX + 1]);
    assert!(matches!(result, Err(OpError::Header(CodecError::TooLarge { .. }))), "{result:?}");

    let long_ids: Vec<_> = (0..limits::OP_CHANGES_MAX).map(|n| change(&format!("{n:0>256}"), &body(b""))).collect();
    let bodies = vec![body(b""); long_ids.len()];
    let result = Op::sign(header(Payload::Data(vec![transaction(long_ids)])), bodies, &key());
    assert!(matches!(result, Err(OpError::Invalid("header too large"))), "{result:?}");
}

/// Everything at its bound at once can still be sent and received.
#[test]
fn the_largest_op_goes_through() {
    let bytes_each = limits::OP_BODIES_BYTES_MAX / limits::OP_CHANGES_MAX;
    let large = body(&vec![0xff; bytes_each]);
    let docs = (0..limits::OP_CHANGES_MAX).map(|n| vec![change(&format!("{n:0>170}"), &large)]);
    let payload = Payload::Data(docs.map(transaction).collect());
    let op = Op::sign(header(payload), vec![large; limits::OP_CHANGES_MAX], &key()).unwrap();
    assert_eq!(Op::decode(&op.encode(), cluster()).unwrap(), op);

    let pin = |n: u32| {
        let mut stream = [0xff; 32];
        stream[..4].copy_from_slice(&n.to_be_bytes());
        Pin { stream: StreamId::new(stream), seq: u64::MAX, head: id(1) }
    };
    let act = Act::Revoke(Revoke {
        target: RevokeTarget::Principal(PrincipalId::new([7; 32])),
        pins: (0..limits::PINS_MAX as u32).map(pin).collect(),
        cascade: true,
        why: "x".repeat(limits::ACT_TEXT_BYTES_MAX),
    });
    let mut header = control_header(act);
    header.control_heads = (1..=8).map(id).collect();
    header.seq = u64::MAX;
    Op::sign(header, Vec::new(), &key()).unwrap();
}

/// Bombs need no stack; what they may allocate is measured in `tests/tests/decode_memory.rs`.
#[test]
fn bombs() {
    let nested = |byte: u8, times: usize| [vec![byte; times], vec![0xc0]].concat();
    let in_unknown_field = |bomb: Vec<u8>| [&[0x81, 0xa1, b'z'][..], &bomb].concat();
    let headers = [
        nested(0x91, 60_000),
        nested(0x81, 60_000),
        in_unknown_field(nested(0x91, 60_000)),
        in_unknown_field(nested(0xdc, 1)),
        vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0xc6, 0xff, 0xff, 0xff, 0xff],
        // The control heads claim to be four billion.
        [&codec::encode(&data_header())[..180], &[0xdd, 0xff, 0xff, 0xff, 0xff]].concat(),
    ];
    // The stack of a small thread must do.
    std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || {
            for bytes in headers {
                assert!(matches!(decode_header_bytes(&bytes), Err(OpError::Header(_))));
                assert!(matches!(Op::decode(&bytes, cluster()), Err(OpError::Envelope(_))));
                assert!(Delete::decode(&bytes).is_err());
            }
        })
        .unwrap()
        .join()
        .unwrap();
    let nils = 4 << 20;
    let mut bodies = [&[0x93, 0xc4, 0, 0xc0, 0xdd][..], &u32::to_be_bytes(nils)].concat();
    bodies.resize(bodies.len() + nils as usize, 0xc0);
    assert!(matches!(Op::decode(&bodies, cluster()), Err(OpError::Envelope(CodecError::Malformed(_)))));
}

#[test]
fn deletes() {
    let delete = |heads: &[u8]| Delete { heads: heads.iter().map(|n| ChangeHash::new([*n; 32])).collect() };
    assert_eq!(Delete::decode(&delete(&[1, 2]).encode()).unwrap(), delete(&[1, 2]));
    for bad in [&[][..], &[2, 1], &[1, 1]] {
        assert!(Delete::decode(&delete(bad).encode()).is_err(), "{bad:?}");
    }
    let many = |count: u16| Delete {
        heads: (0..count)
            .map(|n| {
                let mut head = [0; 32];
                head[..2].copy_from_slice(&n.to_be_bytes());
                ChangeHash::new(head)
            })
            .collect(),
    };
    let max = limits::CHANGE_DEPS_MAX as u16;
    assert_eq!(Delete::decode(&many(max).encode()).unwrap(), many(max));
    assert!(Delete::decode(&many(max + 1).encode()).is_err());
    assert!(Delete::decode(&[&delete(&[1]).encode()[..], &[0]].concat()).is_err());
}

#[test]
fn names_that_are_none() {
    let bytes = data_op().header_bytes().to_vec();
    for bad in [b"\x93\xa1C\x00\x01".as_slice(), b"\x93\xa0\x00\x01", b"\x93\xa1/\x00\x01", b"\x93\xa1\xff\x00\x01"] {
        let result = decode_header_bytes(&replaced(&bytes, &[0x93, 0xa1, b'c', 0, 1], bad));
        assert!(matches!(result, Err(OpError::Header(CodecError::Malformed(_)))), "{bad:x?}: {result:?}");
    }
    let result = decode_header_bytes(&replaced(&bytes, &[0xa1, b'a', 0], &[0xa1, b'\n', 0]));
    assert!(matches!(result, Err(OpError::Header(CodecError::Malformed(_)))), "{result:?}");
    let commitment = Commitment::new(*body(b"x").commitment().as_bytes());
    let short = [&[0xc4, 31][..], &commitment.as_bytes()[..31]].concat();
    let whole = [&[0xc4, 32][..], commitment.as_bytes()].concat();
    assert!(decode_header_bytes(&replaced(&bytes, &whole, &short)).is_err());
    assert!("a".parse::<DocId>().is_ok());
}

/// A role's actions are a number; its bits are all known, and "nothing further" has one form.
#[test]
fn actions_and_what_is_left_out_have_one_form() {
    let act = |actions: u16| {
        let revision = RoleRevision {
            name: "clerk".to_owned(),
            actions: Action::Read.into(),
            own_actions: Actions::NONE,
            rank: Rank::USER,
        };
        let bytes = codec::encode(&control_header(Act::Role(revision)));
        let name = b"\xa5clerk";
        let at = bytes.windows(name.len()).position(|part| part == name).unwrap() + name.len();
        assert_eq!(bytes[at], 1);
        let number = codec::encode(&actions);
        [&bytes[..at], &number, &bytes[at + 1..]].concat()
    };
    let decode = |bytes: &[u8]| codec::decode::<Header>(bytes, limits::HEADER_BYTES_MAX);
    assert!(decode(&act(0x7ff)).is_ok());
    for unknown in [0x800, 0x8000, 0xffff] {
        assert!(matches!(decode(&act(unknown)), Err(CodecError::Malformed(_))), "{unknown:#x}");
    }
    // A target that says "all documents", and a control payload that says "on nobody's request", where nothing says it too.
    let all = codec::encode(&(String::from("*"), None::<String>));
    assert!(matches!(codec::decode::<Target>(&all, 64), Err(CodecError::NotCanonical)));
    let payload = |rest: &[u8]| {
        let control = codec::encode(&(Vec::<OpId>::new(), Act::Rules(Rules { version: 1 })));
        [&[0x90 | 3], &control[1..], rest].concat()
    };
    assert!(matches!(codec::decode::<Control>(&payload(&[0xc0]), 64), Err(CodecError::NotCanonical)));
    let whom = codec::encode(&PrincipalId::new([7; 32]));
    let control: Control = codec::decode(&payload(&whom), 64).unwrap();
    assert_eq!(control.for_whom, Some(PrincipalId::new([7; 32])));
}

/// Fields in whatever order.
fn raw_fields(texts: &[&str]) -> FieldPaths {
    serde_json::from_value(serde_json::json!(texts)).unwrap()
}

#[test]
fn fields_that_no_right_names() {
    let to = PrincipalId::new([7; 32]);
    let reason = "fields of a target are none, too many, out of order or below one another";
    let many: Vec<String> = (0..=limits::RIGHT_FIELDS_MAX).map(|n| format!("/{n:03}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for bad in [&[][..], &["/b", "/a"], &["/a", "/a"], &["/a", "/a/b"], &many] {
        for fields in [Fields::Only(raw_fields(bad)), Fields::Except(raw_fields(bad))] {
            let role = Role::BuiltIn(BuiltInRole::Editor);
            let target = Target { fields, ..Target::everything() };
            let grant = Grant { principal: to, role, target, rank: Rank::USER, not_after: None };
            check_act(reason, Act::Grant(grant));
        }
    }
    let target = Target { fields: Fields::Only(raw_fields(&["/a"])), ..Target::everything() };
    for duty in [Duty::ActFor(target.clone()), Duty::Registrar(target)] {
        let duty = DutyGrant { principal: to, duty, rank: Rank::USER, not_after: None };
        check_act("duty on some fields only", Act::Duty(duty));
    }
}

#[test]
fn fields_that_no_change_declares() {
    let declare = |reason, fields: &FieldPaths| {
        check_transactions(reason, |transactions| transactions[0].changes[0].fields = Some(fields.clone()));
    };
    for bad in [&["/b", "/a"][..], &["/a", "/a"], &["/a", "/a/b"]] {
        declare("declared fields out of order, or below one another", &raw_fields(bad));
    }
    check_transactions("delete that declares fields", |transactions| {
        let change = &mut transactions[0].changes[0];
        (change.action, change.fields) = (WriteAction::Delete, Some(FieldPaths::default()));
    });
    let mut header = data_header();
    let Payload::Data(transactions) = &mut header.payload else { unreachable!() };
    let many = (0..=limits::CHANGE_FIELDS_MAX).map(|n| format!("/{n}").parse().unwrap());
    transactions[0].changes[0].fields = Some(FieldPaths::of(many));
    let refused = Op::sign(header, vec![body(b"x"), body(b"y")], &key());
    assert!(matches!(refused, Err(OpError::Invalid("too many declared fields"))), "{refused:?}");
    let long = format!("/{}", "x".repeat(limits::FIELD_PATH_BYTES_MAX));
    for (bad, error) in [
        ("", FieldPathError::Root),
        ("a", FieldPathError::Pointer(crate::pointer::PointerError::NoSlash)),
        (&long, FieldPathError::TooLong),
    ] {
        assert_eq!(bad.parse::<FieldPath>(), Err(error));
    }
}
