//! Golden files: `testdata/format/NAME.hex` holds the bytes, `NAME.json` says in words what they mean.
//!
//! They are never edited. A new case gets its files by `FOLKMOOT_WRITE_NEW_GOLDEN=1 cargo test -p folkmoot-core golden`,
//! which does not touch a file that exists. A format that changes gets a new version and new files; the old ones must
//! still be read, or refused by name.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::hlc::Hlc;
use crate::id::{
    AuthorKey, ChangeHash, CollectionName, DocId, ExchangeKey, PepperId, Salt, SealedPepper, StreamId, TokenVerifier,
};
use crate::keys::SecretKey;
use crate::schema::SchemaText;

fn owner() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn node() -> SecretKey {
    SecretKey::from_seed(&[2; 32])
}

fn user() -> SecretKey {
    SecretKey::from_seed(&[3; 32])
}

fn op_id(n: u8) -> OpId {
    OpId::new([n; 32])
}

/// 2026-01-02T03:04:05.678Z with counter 9.
const TIME: Hlc = Hlc::new(1_767_323_045_678, 9);

fn genesis() -> Op {
    let mut owners = vec![owner().author(), user().author()];
    owners.sort();
    let act = Act::Genesis(Genesis {
        name: "golden".to_owned(),
        owners,
        threshold: 2,
        recovery: vec![[0x11; 32], [0x22; 32]],
        recovery_threshold: 1,
        rules: limits::RULES_VERSION,
        nonce: Salt::new([0x5a; 16]),
    });
    let header = Header {
        version: limits::OP_VERSION,
        cluster: ClusterId::ZERO,
        shard: ShardId::control(),
        author: owner().author(),
        certificate: OpId::ZERO,
        session: SessionId::new(*b"session0"),
        seq: 1,
        prev: OpId::ZERO,
        earlier: Vec::new(),
        hlc: TIME,
        control_heads: Vec::new(),
        payload: Payload::from(Control { proof: Vec::new(), act, for_whom: None }),
    };
    Op::sign(header, Vec::new(), &owner()).unwrap()
}

fn control(act: Act) -> Op {
    let header = Header {
        version: limits::OP_VERSION,
        cluster: ClusterId::from(genesis().id()),
        shard: ShardId::control(),
        author: owner().author(),
        certificate: genesis().id(),
        session: SessionId::new(*b"session1"),
        seq: 300,
        prev: op_id(0x44),
        earlier: Vec::new(),
        hlc: TIME,
        control_heads: vec![op_id(0x33), op_id(0x44)],
        payload: Payload::from(Control { proof: vec![genesis().id()], act, for_whom: None }),
    };
    Op::sign(header, Vec::new(), &owner()).unwrap()
}

/// An act that a node makes on somebody's request.
fn control_for(act: Act, whom: PrincipalId) -> Op {
    let control = control(act).header().control().unwrap().clone();
    let payload = Payload::from(Control { for_whom: Some(whom), ..control });
    let header = Header { payload, ..genesis_child() };
    Op::sign(header, Vec::new(), &owner()).unwrap()
}

fn genesis_child() -> Header {
    control(Act::Rules(Rules { version: 1 })).header().clone()
}

fn data() -> Op {
    let body = |n: u8, bytes: &[u8]| Body { salt: Salt::new([n; 16]), bytes: Bytes::copy_from_slice(bytes) };
    let delete = Delete { heads: vec![ChangeHash::new([0x66; 32]), ChangeHash::new([0x77; 32])] };
    let bodies = vec![body(1, b"a change"), body(2, &[0xff; 300]), body(3, &delete.encode())];
    let collection: CollectionName = "cities".parse().unwrap();
    let docs: [DocId; 3] = ["a", "Z\u{fc}rich/1", "c"].map(|id| id.parse().unwrap());
    let [create, update, delete] = [WriteAction::Create, WriteAction::Update, WriteAction::Delete];
    let change = |at: usize, action| ChangeRef::new(docs[at].clone(), action, &bodies[at]);
    let (ann, bob) = (PrincipalId::new([0xa0; 32]), PrincipalId::new([0xb0; 32]));
    let header = Header {
        version: limits::OP_VERSION,
        cluster: ClusterId::from(genesis().id()),
        shard: ShardId { collection, index: 0, of: 1 },
        author: node().author(),
        certificate: op_id(0x55),
        session: SessionId::new(*b"session2"),
        seq: 1,
        prev: OpId::ZERO,
        earlier: vec![
            SessionEnd { session: SessionId::new(*b"session0"), seq: 1, head: op_id(0x88) },
            SessionEnd { session: SessionId::new(*b"session1"), seq: 70_000, head: op_id(0x99) },
        ],
        hlc: TIME,
        control_heads: vec![op_id(0x33)],
        payload: Payload::Data(vec![
            Transaction {
                principal: ann,
                request: Some(request_id(&"orders".parse().unwrap(), "order-17", &[b"put", b"{}"])),
                changes: vec![change(0, create), change(1, update)],
            },
            Transaction { principal: bob, request: None, changes: vec![change(2, delete)] },
        ]),
    };
    Op::sign(header, bodies, &node()).unwrap()
}

fn fields(texts: &[&str]) -> FieldPaths {
    FieldPaths::of(texts.iter().map(|text| text.parse().unwrap()))
}

/// An op whose changes say which fields they touch.
fn declared() -> Op {
    let all = data();
    let mut header = all.header().clone();
    let Payload::Data(transactions) = &mut header.payload else { unreachable!() };
    transactions[0].changes[0].fields = Some(fields(&["/name", "/tags/*"]));
    transactions[0].changes[1].fields = Some(FieldPaths::default());
    Op::sign(header, all.bodies().iter().flatten().cloned().collect(), &node()).unwrap()
}

/// One op in the last of many shards, without signature and with one body gone.
fn partial() -> Op {
    let (collection, body): (CollectionName, _) =
        ("c".parse().unwrap(), Body { salt: Salt::new([4; 16]), bytes: Bytes::new() });
    let place = |n: u32| {
        let doc: DocId = format!("doc{n}").parse().unwrap();
        (ShardId::of_document(&collection, &doc, limits::SHARDS_MAX), doc)
    };
    let (shard, doc) = (0..).map(place).find(|(shard, _)| shard.index == limits::SHARDS_MAX - 1).unwrap();
    let change = ChangeRef::new(doc, WriteAction::Create, &body);
    let one =
        |n: u8| Transaction { principal: PrincipalId::new([n; 32]), request: None, changes: vec![change.clone()] };
    let header = Header {
        version: limits::OP_VERSION,
        cluster: ClusterId::from(genesis().id()),
        shard,
        author: node().author(),
        certificate: op_id(0x55),
        session: SessionId::new(*b"session3"),
        seq: u64::MAX,
        prev: op_id(0x99),
        earlier: Vec::new(),
        hlc: Hlc::from_raw(u64::MAX),
        control_heads: Vec::new(),
        payload: Payload::Data(vec![one(0xa0), one(0xb0)]),
    };
    let op = Op::sign(header, vec![body.clone(), body.clone()], &node()).unwrap();
    Op { bodies: vec![None, Some(body)], ..op.without_signature() }
}

/// Every kind of payload and act.
fn cases() -> Vec<(&'static str, Op)> {
    let to = PrincipalId::new([0xa0; 32]);
    let pins = vec![
        Pin { stream: StreamId::new([0x10; 32]), seq: 1, head: op_id(0x11) },
        Pin { stream: StreamId::new([0x20; 32]), seq: 70_000, head: op_id(0x22) },
        Pin { stream: StreamId::new([0x30; 32]), seq: 0, head: OpId::ZERO },
    ];
    let grant = |role, target: &str, not_after| {
        let target = Target::collections(target);
        control(Act::Grant(Grant { principal: to, role: Role::BuiltIn(role), target, rank: Rank::USER, not_after }))
    };
    let part = Target { documents: Documents::Prefix("2026/".to_owned()), ..Target::collections("logs-*") };
    let duty = |duty, not_after| control(Act::Duty(DutyGrant { principal: to, duty, rank: Rank::NODE, not_after }));
    let token = |secret| {
        control(Act::Token(Token {
            principal: to,
            verifier: TokenVerifier::new([0x77; 32]),
            name: "ci".to_owned(),
            actions: Action::Read.into(),
            target: Target::collections("notes*"),
            rank: Rank::DEVICE,
            not_after: Some(TIME),
            secret,
        }))
    };
    let introduce =
        |kind, attest| control(Act::Principal(Principal { name: "Ann".to_owned(), kind, attest, rank: Rank::USER }));
    let kinds = [FieldKind::Counter, FieldKind::Text, FieldKind::Timestamp, FieldKind::Bytes];
    let types = ["/hits", "/notes", "/seen", "/tags/*/raw"].into_iter().zip(kinds);
    vec![
        ("op-1-data", data()),
        ("op-1-data-partial", partial()),
        ("op-1-genesis", genesis()),
        (
            "op-1-certify-new",
            control(Act::Certify(Certify {
                principal: None,
                key: user().author(),
                rank: Rank(limits::RANK_MAX),
                not_after: None,
                name: "Ann".to_owned(),
            })),
        ),
        (
            "op-1-certify-known",
            control(Act::Certify(Certify {
                principal: Some(to),
                key: user().author(),
                rank: Rank::DEVICE,
                not_after: Some(TIME),
                name: String::new(),
            })),
        ),
        (
            "op-1-member",
            control(Act::Member(Member {
                principal: to,
                key: node().author(),
                rank: Rank::NODE,
                not_after: None,
                labels: vec![("region".to_owned(), "eu".to_owned()), ("zone".to_owned(), "a".to_owned())],
            })),
        ),
        ("op-1-grant-admin", grant(BuiltInRole::Admin, "*", None)),
        ("op-1-grant-editor", grant(BuiltInRole::Editor, "cities", Some(TIME))),
        ("op-1-grant-reader", grant(BuiltInRole::Reader, "logs-*", None)),
        (
            "op-1-revoke-statement",
            control(Act::Revoke(Revoke {
                target: RevokeTarget::Statement(op_id(0x55)),
                pins: Vec::new(),
                cascade: false,
                why: "device lost".to_owned(),
            })),
        ),
        (
            "op-1-revoke-principal",
            control(Act::Revoke(Revoke {
                target: RevokeTarget::Principal(to),
                pins: pins.clone(),
                cascade: true,
                why: String::new(),
            })),
        ),
        (
            "op-1-succeed",
            Succeed {
                after: genesis().id(),
                principal: genesis().id().into(),
                owners: vec![user().author()],
                threshold: 1,
                recovery: vec![[0x33; 32], [0x44; 32]],
                recovery_threshold: 2,
                pins: pins.clone(),
                signatures: Vec::new(),
            }
            .sign(
                crate::op::succession::Place {
                    cluster: genesis().id().into(),
                    session: SessionId::new(*b"session3"),
                    hlc: TIME,
                    control_heads: vec![op_id(0x33)],
                },
                &[SecretKey::from_seed(&[4; 32]), SecretKey::from_seed(&[5; 32])],
            )
            .unwrap(),
        ),
        ("op-1-readmit", control(Act::Readmit(Readmit { revocation: op_id(0x12), pins }))),
        (
            "op-1-collection",
            control(Act::Collection(Collection {
                name: "cities".parse().unwrap(),
                shards: 16,
                types: types.map(|(pointer, kind)| FieldDeclaration { pointer: pointer.to_owned(), kind }).collect(),
                dropped: false,
                audit_reads: false,
                indexes: vec![IndexDeclaration {
                    name: "by_land".to_owned(),
                    fields: vec!["land".to_owned(), "-people.count".to_owned()],
                    sparse: true,
                }],
                schema: None,
                expires: None,
                unique: vec![],
            })),
        ),
        (
            "op-1-collection-schema",
            control(Act::Collection(Collection {
                name: "cities".parse().unwrap(),
                shards: 1,
                types: Vec::new(),
                dropped: false,
                audit_reads: false,
                indexes: vec![],
                schema: Some(SchemaText::from_json(br#"{"required": ["name"], "type": "object"}"#).unwrap()),
                expires: None,
                unique: vec![],
            })),
        ),
        (
            "op-1-collection-expires",
            control(Act::Collection(Collection {
                name: "sessions".parse().unwrap(),
                shards: 1,
                types: Vec::new(),
                dropped: false,
                audit_reads: false,
                indexes: vec![],
                schema: None,
                expires: Some(Expires { field: "/seen".parse().unwrap(), after_s: 3_600 }),
                unique: vec![],
            })),
        ),
        (
            "op-1-collection-unique",
            control(Act::Collection(Collection {
                name: "people".parse().unwrap(),
                shards: 1,
                types: Vec::new(),
                dropped: false,
                audit_reads: false,
                indexes: vec![],
                schema: None,
                expires: None,
                unique: vec![
                    Unique(vec!["/email".parse().unwrap()]),
                    Unique(vec!["/login".parse().unwrap(), "/tenant".parse().unwrap()]),
                ],
            })),
        ),
        ("op-1-rules", control(Act::Rules(Rules { version: 2 }))),
        ("op-1-approve", control(Act::Approve(Approve { act: op_id(0x12) }))),
        ("op-1-grant-contributor", grant(BuiltInRole::Contributor, "*", None)),
        ("op-1-grant-auditor", grant(BuiltInRole::Auditor, "*", None)),
        ("op-1-grant-operator", grant(BuiltInRole::Operator, "*", None)),
        (
            "op-1-grant-custom",
            control(Act::Grant(Grant {
                principal: to,
                role: Role::Custom(op_id(0x12)),
                target: part.clone(),
                rank: Rank::USER,
                not_after: None,
            })),
        ),
        (
            "op-1-grant-fields",
            control(Act::Grant(Grant {
                principal: to,
                role: Role::BuiltIn(BuiltInRole::Editor),
                target: Target { fields: Fields::Except(fields(&["/a~1b/~0", "/salary"])), ..Target::everything() },
                rank: Rank::USER,
                not_after: None,
            })),
        ),
        (
            "op-1-token-fields",
            control(Act::Token(Token {
                principal: to,
                verifier: TokenVerifier::new([0x77; 32]),
                name: "ci".to_owned(),
                actions: Action::Read.into(),
                target: Target { fields: Fields::Only(fields(&["/items/*/price"])), ..part.clone() },
                rank: Rank::DEVICE,
                not_after: None,
                secret: Secret::default(),
            })),
        ),
        ("op-1-data-fields", declared()),
        (
            "op-1-role",
            control_for(
                Act::Role(RoleRevision {
                    name: "clerk".to_owned(),
                    actions: [Action::Read, Action::Erase].into_iter().collect(),
                    own_actions: Actions::OF_DOCUMENTS,
                    rank: Rank::ADMIN,
                }),
                to,
            ),
        ),
        ("op-1-duty-act-for", duty(Duty::ActFor(part.clone()), None)),
        ("op-1-duty-warden", duty(Duty::Warden(()), None)),
        ("op-1-duty-witness", duty(Duty::Witness(2), None)),
        ("op-1-duty-registrar", duty(Duty::Registrar(part), Some(TIME))),
        ("op-1-principal-user", introduce(PrincipalKind::User, true)),
        ("op-1-principal-service", introduce(PrincipalKind::Service, false)),
        ("op-1-principal-group", introduce(PrincipalKind::Group, false)),
        ("op-1-token", token(Secret::Random)),
        ("op-1-token-certificate", token(Secret::Certificate)),
        ("op-1-token-subject", token(Secret::Subject)),
        (
            "op-1-token-password",
            token(Secret::Password(PasswordHash {
                salt: Salt::new([0x5a; 16]),
                memory_kib: 65_536,
                passes: 3,
                pepper: PepperId::new([0x9e; 32]),
            })),
        ),
        (
            "op-1-erase",
            control_for(
                Act::Erase(Erase {
                    collection: "cities".parse().unwrap(),
                    documents: ["berlin", "bern"].map(|doc| doc.parse().unwrap()).to_vec(),
                    why: "asked for".to_owned(),
                }),
                to,
            ),
        ),
        (
            "op-1-pepper",
            control(Act::Pepper(PepperShares {
                pepper: PepperId::new([0x9e; 32]),
                sealed_with: ExchangeKey::new([0xe0; 32]),
                shares: [0x11, 0x22]
                    .map(|n| PepperShare { node: AuthorKey::new([n; 32]), sealed: SealedPepper::new([n; 48]) })
                    .to_vec(),
            })),
        ),
        ("op-1-withdraw", control(Act::Withdraw(Withdraw { acts: vec![op_id(0x12), op_id(0x55)] }))),
        ("op-1-erased", control(Act::Erased(Erased { acts: vec![op_id(0x12), op_id(0x55)] }))),
        (
            "op-1-evidence",
            control(Act::Evidence(Evidence {
                pins: vec![
                    Pin { stream: StreamId::new([0x31; 32]), seq: 1, head: op_id(0x41) },
                    Pin { stream: StreamId::new([0x32; 32]), seq: 300, head: op_id(0x42) },
                ],
            })),
        ),
        (
            "op-1-join",
            control(Act::Join(Join {
                principal: to,
                group: PrincipalId::new([0xc0; 32]),
                rank: Rank::USER,
                not_after: Some(TIME),
            })),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn describe(op: &Op) -> Value {
    let key = op.header().stream_key();
    let actors: Vec<_> = op
        .header()
        .transactions()
        .iter()
        .flat_map(|t| t.changes.iter().map(|change| key.actor(&t.principal, &change.doc).to_string()))
        .collect();
    let body = |body: &Option<Body>| body.as_ref().map(|body| json!({ "salt": body.salt, "bytes": hex(&body.bytes) }));
    json!({
        "id": op.id(),
        "stream": op.stream(),
        "header": op.header(),
        "bodies": op.bodies().iter().map(body).collect::<Vec<_>>(),
        "signature": op.signature().map(|signature| hex(signature.as_bytes())),
        "actors": actors,
    })
}

/// Returns what the golden file holds, after writing it if it is new and that was asked for.
fn golden(name: &str, extension: &str, fresh: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "testdata", "format", name].iter().collect();
    let path = path.with_extension(extension);
    if std::env::var_os("FOLKMOOT_WRITE_NEW_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, fresh).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_kind_of_op_has_the_bytes_of_its_golden_file() {
    for (name, op) in cases() {
        let bytes = golden(name, "hex", &format!("{}\n", hex(&op.encode())));
        assert_eq!(hex(&op.encode()), bytes.trim_end(), "{name}: encoding has changed");
        let meaning = golden(name, "json", &format!("{:#}\n", describe(&op)));
        assert_eq!(describe(&op), serde_json::from_str::<Value>(&meaning).unwrap(), "{name}: meaning has changed");
    }
}

#[test]
fn golden_files_decode_to_what_they_say() {
    let names: Vec<_> = cases().into_iter().map(|(name, _)| name.to_owned()).collect();
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/format")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(names.contains(&name), "{name} is a golden file without a case");
        let text = std::fs::read_to_string(&path).unwrap();
        let digits = text.trim_end().as_bytes().chunks_exact(2);
        let bytes: Vec<u8> =
            digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let op =
            Op::decode(&bytes, ClusterId::from(genesis().id())).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(op.encode(), bytes, "{name}");
        let meaning = std::fs::read_to_string(path.with_extension("json")).unwrap();
        assert_eq!(describe(&op), serde_json::from_str::<Value>(&meaning).unwrap(), "{name}");
        if op.signature().is_some() {
            assert!(op.is_signed_by(&author_key(&op)), "{name}");
        }
        seen += 1;
    }
    assert_eq!(seen, names.len());
}

/// The hashes whose inputs are not visible in an encoded op.
#[test]
fn hashes_have_their_golden_values() {
    let ann = PrincipalId::new([0xa0; 32]);
    let (collection, doc): (CollectionName, DocId) = ("cities".parse().unwrap(), "Z\u{fc}rich/1".parse().unwrap());
    let key = StreamKey {
        shard: ShardId::of_document(&collection, &doc, 1_024),
        author: node().author(),
        certificate: op_id(0x55),
        session: SessionId::new(*b"session2"),
    };
    let body = Body { salt: Salt::new([7; 16]), bytes: Bytes::from_static(b"a change") };
    let fresh = json!({
        "placement": key.shard.to_string(),
        "stream": key.id(),
        "actor": key.actor(&ann, &doc),
        "commitment": body.commitment(),
        "request": request_id(&"orders".parse().unwrap(), "order-17", &[b"put", b"{}"]),
        "delete": hex(&Delete { heads: vec![ChangeHash::new([0x66; 32])] }.encode()),
        "signature": hex(node().sign_op(&op_id(0x12)).as_bytes()),
    });
    let kept: Value = serde_json::from_str(&golden("hashes-1", "json", &format!("{fresh:#}\n"))).unwrap();
    assert_eq!(fresh, kept);
}
