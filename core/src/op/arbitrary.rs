//! Strategies for valid ops: for the property tests of this crate and its users, and for seeds of the fuzz targets.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::succession::Place;
use super::{
    Act, Action, Actions, Approve, Body, BuiltInRole, Certify, ChangeRef, Collection, Control, Delete, Documents, Duty,
    DutyGrant, Erase, Erased, Evidence, Expires, FieldDeclaration, FieldKind, FieldPath, FieldPaths, Fields, Genesis,
    Grant, Header, IndexDeclaration, Join, Member, Op, PasswordHash, Payload, PepperShare, PepperShares, Pin,
    Principal, PrincipalKind, Rank, Readmit, Revoke, RevokeTarget, Role, RoleRevision, Rules, Secret, SessionEnd,
    Succeed, Target, Token, Transaction, Unique, Withdraw, WriteAction,
};
use crate::hlc::Hlc;
use crate::id::{
    AuthorKey, ChangeHash, ClusterId, CollectionName, DocId, ExchangeKey, OpId, PepperId, PrincipalId, RequestId, Salt,
    SealedPepper, SessionId, ShardId, StreamId, TokenVerifier,
};
use crate::keys::SecretKey;
use crate::limits;
use crate::schema::SchemaText;

/// Any key pair.
pub fn secret_key() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_map(|seed| SecretKey::from_seed(&seed))
}

fn author() -> impl Strategy<Value = AuthorKey> {
    secret_key().prop_map(|key| key.author())
}

/// Any op id but zero, which stands for "none".
pub fn op_id() -> impl Strategy<Value = OpId> {
    any::<[u8; 32]>().prop_map(OpId::new).prop_filter("zero means none", |id| *id != OpId::ZERO)
}

fn op_ids(max: usize) -> impl Strategy<Value = Vec<OpId>> {
    btree_set(op_id(), 1..=max).prop_map(|ids| ids.into_iter().collect())
}

fn principal() -> impl Strategy<Value = PrincipalId> {
    op_id().prop_map(PrincipalId::from)
}

/// Numbers of every encoded length.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..=0x7f_u64, 0x80..=0xff_u64, 0x100..=0xffff_u64, 0x1_0000..=0xffff_ffff_u64, any::<u64>()]
}

fn hlc() -> impl Strategy<Value = Hlc> {
    number().prop_map(Hlc::from_raw)
}

fn salt() -> impl Strategy<Value = Salt> {
    any::<[u8; 16]>().prop_map(Salt::new)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

fn rank() -> impl Strategy<Value = Rank> {
    (1..=limits::RANK_MAX).prop_map(Rank)
}

/// A name of a collection that clients may write to.
pub fn collection_name() -> impl Strategy<Value = CollectionName> {
    "[a-z0-9][a-z0-9_.-]{0,63}".prop_map(|name| name.parse().expect("the pattern is the rule for names"))
}

/// A document id.
pub fn doc_id() -> impl Strategy<Value = DocId> {
    "[a-z0-9éλ/ :_-]{1,30}".prop_map(|id| id.parse().expect("the pattern is within the rule for ids"))
}

/// A body that fits `action`: an encoded delete, or any bytes for the gate to judge.
pub fn body(action: WriteAction) -> impl Strategy<Value = Body> {
    let heads = btree_set(any::<[u8; 32]>().prop_map(ChangeHash::new), 1..4);
    (salt(), vec(any::<u8>(), 0..200), heads).prop_map(move |(salt, change, heads)| Body {
        salt,
        bytes: match action {
            WriteAction::Create | WriteAction::Update => change.into(),
            WriteAction::Delete => Delete { heads: heads.into_iter().collect() }.encode(),
        },
    })
}

fn action() -> impl Strategy<Value = WriteAction> {
    select(vec![WriteAction::Create, WriteAction::Update, WriteAction::Delete])
}

/// The documents of one transaction with what is done to each.
type Writes = Vec<(DocId, WriteAction, Body, Option<FieldPaths>)>;

fn writes() -> impl Strategy<Value = Writes> {
    btree_set(doc_id(), 1..5).prop_flat_map(|docs| {
        let write = |doc: DocId| {
            (Just(doc), action())
                .prop_flat_map(|(doc, action)| (Just(doc), Just(action), body(action), option::of(field_paths(0))))
        };
        docs.into_iter().map(write).collect::<Vec<_>>()
    })
}

/// Transactions of one shard, and their bodies.
fn data() -> impl Strategy<Value = (ShardId, Payload, Vec<Body>)> {
    let request = any::<[u8; 32]>().prop_map(RequestId::new);
    let transaction = (principal(), option::of(request), writes());
    (collection_name(), select(vec![1_u16, 2, 1_024]), vec(transaction, 1..5)).prop_map(|(collection, of, all)| {
        let place = |doc: &DocId| ShardId::of_document(&collection, doc, of);
        // The first document chooses the shard; those that lie elsewhere stay out.
        let shard = place(&all[0].2[0].0);
        let mut bodies = Vec::new();
        let mut transactions = Vec::new();
        for (principal, request, writes) in all {
            let mut changes = Vec::new();
            for (doc, action, body, fields) in writes.into_iter().filter(|(doc, ..)| place(doc) == shard) {
                let fields = fields.filter(|_| action != WriteAction::Delete);
                changes.push(ChangeRef { fields, ..ChangeRef::new(doc, action, &body) });
                bodies.push(body);
            }
            if !changes.is_empty() {
                transactions.push(Transaction { principal, request, changes });
            }
        }
        (shard, Payload::Data(transactions), bodies)
    })
}

fn pins() -> impl Strategy<Value = Vec<Pin>> {
    let pin = (any::<[u8; 32]>().prop_map(StreamId::new), number().prop_map(|n| n.max(1)), op_id())
        .prop_map(|(stream, seq, head)| Pin { stream, seq, head });
    vec((pin, any::<bool>()), 0..6).prop_map(|pins| {
        let nothing = |pin: Pin| Pin { seq: 0, head: OpId::ZERO, ..pin };
        let mut pins: Vec<Pin> =
            pins.into_iter().map(|(pin, stands)| if stands { pin } else { nothing(pin) }).collect();
        pins.sort();
        pins.dedup_by_key(|pin| pin.stream);
        pins
    })
}

fn target() -> impl Strategy<Value = Target> {
    (whole_target(), fields()).prop_map(|(target, fields)| Target { fields, ..target })
}

fn whole_target() -> impl Strategy<Value = Target> {
    (collections(), option::of("[a-z0-9/.]{1,12}"))
        .prop_map(|(target, prefix)| Target { documents: prefix.map_or(Documents::All, Documents::Prefix), ..target })
}

/// Some fields, at least `min`.
pub fn field_paths(min: usize) -> impl Strategy<Value = FieldPaths> {
    vec("(/([a-c]|\\*|~0|~1|é)){1,4}", min..5)
        .prop_map(|paths| FieldPaths::of(paths.iter().map(|path| path.parse().expect("a pointer"))))
}

fn fields() -> impl Strategy<Value = Fields> {
    prop_oneof![
        2 => Just(Fields::All),
        1 => field_paths(1).prop_map(Fields::Only),
        1 => field_paths(1).prop_map(Fields::Except),
    ]
}

fn collections() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::everything()),
        collection_name().prop_map(|name| Target::collections(name.to_string())),
        "[a-z0-9][a-z0-9_.-]{0,20}".prop_map(|prefix| Target::collections(format!("{prefix}*"))),
    ]
}

fn collection() -> impl Strategy<Value = Collection> {
    let kind = select(vec![FieldKind::Text, FieldKind::Counter, FieldKind::Timestamp, FieldKind::Bytes]);
    let types = vec(("(/[a-z*]{1,8}){1,3}", kind), 0..5);
    let schema = option::of(select(vec!["{}", r#"{"type":"object"}"#, r#"{"properties":{"n":{"minimum":0}}}"#]));
    let switches = (any::<bool>(), any::<bool>(), schema, option::of(any::<u32>()));
    let index = ("[a-z0-9_-]{1,12}", vec("-?[a-z]{1,6}", 1..=1), any::<bool>());
    let indexes = vec(index.prop_map(|(name, fields, sparse)| IndexDeclaration { name, fields, sparse }), 0..3);
    let unique = btree_set(btree_set("/[a-z]{1,3}", 1..=limits::UNIQUE_FIELDS_MAX), 0..3);
    let all = (collection_name(), 1..=limits::SHARDS_MAX, types, switches, indexes, unique);
    all.prop_map(|(name, shards, types, switches, mut indexes, unique)| {
        let mut types: Vec<_> = types.into_iter().map(|(pointer, kind)| FieldDeclaration { pointer, kind }).collect();
        types.sort();
        types.dedup_by(|a, b| a.pointer == b.pointer);
        let (dropped, audit_reads, schema, after) = switches;
        let expires = after.map(|after_s| Expires { field: "/at".parse().expect("a pointer"), after_s });
        let schema = schema.and_then(|text| SchemaText::from_json(text.as_bytes()).ok());
        indexes.sort();
        indexes.dedup_by(|a, b| a.name == b.name);
        let field = |text: String| -> FieldPath { text.parse().expect("a pointer") };
        let unique = unique.into_iter().map(|fields| Unique(fields.into_iter().map(field).collect())).collect();
        Collection { name, shards, types, dropped, audit_reads, indexes, schema, expires, unique }
    })
}

/// A genesis with `owner` among its owners.
fn genesis(owner: AuthorKey) -> impl Strategy<Value = Act> {
    let recovery = btree_set(any::<[u8; 32]>(), 0..3);
    (text(), btree_set(author(), 0..3), recovery, 1..=u32::MAX, salt()).prop_map(
        move |(name, mut owners, recovery, rules, nonce)| {
            owners.insert(owner);
            let owners: Vec<_> = owners.into_iter().collect();
            let recovery: Vec<_> = recovery.into_iter().collect();
            let all = |keys: usize| u8::try_from(keys).expect("a handful");
            Act::Genesis(Genesis {
                name,
                threshold: all(owners.len()),
                recovery_threshold: all(recovery.len()),
                owners,
                recovery,
                rules,
                nonce,
            })
        },
    )
}

/// Any act but a genesis.
fn act() -> impl Strategy<Value = Act> {
    let certify = (option::of(principal()), author(), rank(), option::of(hlc()), text()).prop_map(
        |(principal, key, rank, not_after, name)| Act::Certify(Certify { principal, key, rank, not_after, name }),
    );
    let labels = proptest::collection::btree_map("[a-z]{1,8}", text(), 0..4);
    let member = (principal(), author(), rank(), option::of(hlc()), labels).prop_map(
        |(principal, key, rank, not_after, labels)| {
            Act::Member(Member { principal, key, rank, not_after, labels: labels.into_iter().collect() })
        },
    );
    let built_in = select(BuiltInRole::ALL.to_vec()).prop_map(Role::BuiltIn);
    let role = prop_oneof![built_in, op_id().prop_map(Role::Custom)];
    let grant = (principal(), role, target(), rank(), option::of(hlc())).prop_map(
        |(principal, role, target, rank, not_after)| Act::Grant(Grant { principal, role, target, rank, not_after }),
    );
    let cut = prop_oneof![op_id().prop_map(RevokeTarget::Statement), principal().prop_map(RevokeTarget::Principal)];
    let revoke = (cut, pins(), any::<bool>(), text())
        .prop_map(|(target, pins, cascade, why)| Act::Revoke(Revoke { target, pins, cascade, why }));
    let readmit = (op_id(), pins()).prop_map(|(revocation, pins)| Act::Readmit(Readmit { revocation, pins }));
    let named = || "[A-Za-z ]{1,20}";
    let actions = |of: Actions| {
        let all: Vec<Action> = of.iter().collect();
        let count = all.len();
        proptest::sample::subsequence(all, 1..=count).prop_map(|some| some.into_iter().collect::<Actions>())
    };
    let revision = (named(), actions(Actions::ALL), actions(Actions::OF_DOCUMENTS), rank())
        .prop_map(|(name, actions, own_actions, rank)| Act::Role(RoleRevision { name, actions, own_actions, rank }));
    let what = prop_oneof![
        whole_target().prop_map(Duty::ActFor),
        Just(Duty::Warden(())),
        (1..=limits::WITNESSES_MAX).prop_map(Duty::Witness),
        whole_target().prop_map(Duty::Registrar)
    ];
    let duty = (principal(), what, rank(), option::of(hlc()))
        .prop_map(|(principal, duty, rank, not_after)| Act::Duty(DutyGrant { principal, duty, rank, not_after }));
    let introduce =
        (named(), select(PrincipalKind::ALL.to_vec()), any::<bool>(), rank()).prop_map(|(name, kind, attest, rank)| {
            Act::Principal(Principal { name, kind, attest: attest && kind != PrincipalKind::Group, rank })
        });
    let join = (btree_set(any::<[u8; 32]>(), 2), rank(), option::of(hlc())).prop_map(|(ids, rank, not_after)| {
        let ids: Vec<_> = ids.into_iter().map(PrincipalId::new).collect();
        Act::Join(Join { principal: ids[1], group: ids[0], rank, not_after })
    });
    let pepper = || any::<[u8; 32]>().prop_map(PepperId::new);
    let cost = (8..=limits::PASSWORD_MEMORY_KIB_MAX, 1..=limits::PASSWORD_PASSES_MAX);
    let hashed = (any::<[u8; 16]>(), cost, pepper()).prop_map(|(salt, (memory_kib, passes), pepper)| {
        Secret::Password(PasswordHash { salt: Salt::new(salt), memory_kib, passes, pepper })
    });
    let sealed = proptest::array::uniform32(any::<u8>()).prop_map(|bytes| {
        let mut sealed = [7; SealedPepper::LEN];
        sealed[..32].copy_from_slice(&bytes);
        SealedPepper::new(sealed)
    });
    let shares = proptest::collection::btree_map(any::<[u8; 32]>(), sealed, 1..4);
    let shares = (pepper(), any::<[u8; 32]>(), shares).prop_map(|(pepper, with, shares)| {
        let share = |(node, sealed)| PepperShare { node: AuthorKey::new(node), sealed };
        let shares = shares.into_iter().map(share).collect();
        Act::Pepper(PepperShares { pepper, sealed_with: ExchangeKey::new(with), shares })
    });
    let secret = prop_oneof![Just(Secret::Random), Just(Secret::Certificate), Just(Secret::Subject), hashed];
    let said = (principal(), any::<[u8; 32]>(), named(), actions(Actions::ALL), target(), rank(), option::of(hlc()));
    let token = (said, secret).prop_map(|((principal, verifier, name, actions, target, rank, not_after), secret)| {
        let verifier = TokenVerifier::new(verifier);
        Act::Token(Token { principal, verifier, name, actions, target, rank, not_after, secret })
    });
    let erase = (collection_name(), btree_set(doc_id(), 1..4), text()).prop_map(|(collection, documents, why)| Erase {
        collection,
        documents: documents.into_iter().collect(),
        why,
    });
    let erased =
        btree_set(any::<[u8; 32]>(), 1..4).prop_map(|acts| Erased { acts: acts.into_iter().map(OpId::new).collect() });
    let withdraw = btree_set(any::<[u8; 32]>(), 1..4)
        .prop_map(|acts| Act::Withdraw(Withdraw { acts: acts.into_iter().map(OpId::new).collect() }));
    let evidence = pins().prop_filter_map("evidence of nothing", |mut pins| {
        pins.retain(|pin| pin.seq > 0);
        (!pins.is_empty()).then_some(Act::Evidence(Evidence { pins }))
    });
    prop_oneof![
        evidence,
        erase.prop_map(Act::Erase),
        erased.prop_map(Act::Erased),
        certify,
        member,
        grant,
        revision,
        duty,
        introduce,
        join,
        token,
        shares,
        withdraw,
        revoke,
        readmit,
        collection().prop_map(Act::Collection),
        (1..=u32::MAX).prop_map(|version| Act::Rules(Rules { version })),
        op_id().prop_map(|act| Act::Approve(Approve { act })),
    ]
}

/// A control payload with the certificate in its proof.
fn control(certificate: OpId) -> impl Strategy<Value = Payload> {
    (act(), op_ids(limits::PROOF_MAX - 1), option::of(principal())).prop_map(move |(act, mut proof, for_whom)| {
        proof.push(certificate);
        proof.sort();
        proof.dedup();
        Payload::from(Control { proof, act, for_whom })
    })
}

/// A signed genesis.
pub fn genesis_op() -> impl Strategy<Value = Op> {
    let parts = secret_key().prop_flat_map(|key| {
        let act = genesis(key.author());
        (Just(key), act, any::<[u8; 8]>(), hlc())
    });
    parts.prop_map(|(key, act, session, hlc)| {
        let header = Header {
            version: limits::OP_VERSION,
            cluster: ClusterId::ZERO,
            shard: ShardId::control(),
            author: key.author(),
            certificate: OpId::ZERO,
            session: SessionId::new(session),
            seq: 1,
            prev: OpId::ZERO,
            earlier: Vec::new(),
            hlc,
            control_heads: Vec::new(),
            payload: Payload::from(Control { proof: Vec::new(), act, for_whom: None }),
        };
        Op::sign(header, Vec::new(), &key).expect("a valid genesis")
    })
}

/// Ends of earlier sessions.
fn earlier() -> impl Strategy<Value = Vec<SessionEnd>> {
    let end = (any::<[u8; 8]>().prop_map(SessionId::new), number().prop_map(|n| n.max(1)), op_id());
    vec(end, 0..=limits::EARLIER_SESSIONS_MAX).prop_map(|ends| {
        let ends: std::collections::BTreeMap<_, _> =
            ends.into_iter().map(|(session, seq, head)| (session, SessionEnd { session, seq, head })).collect();
        ends.into_values().collect()
    })
}

/// A signed change of owners.
pub fn succession_op() -> impl Strategy<Value = Op> {
    let seeds = || btree_set(any::<[u8; 32]>(), 1..4);
    let names = (op_id(), op_id(), any::<[u8; 8]>(), hlc(), op_ids(limits::CONTROL_HEADS_MAX));
    (names, seeds(), btree_set(author(), 1..4), btree_set(any::<[u8; 32]>(), 0..3), pins()).prop_map(
        |((cluster, after, session, hlc, control_heads), signers, owners, recovery, pins)| {
            let all = |keys: usize| u8::try_from(keys).expect("a handful");
            let succeed = Succeed {
                after,
                principal: PrincipalId::from(cluster),
                threshold: all(owners.len()),
                owners: owners.into_iter().collect(),
                recovery_threshold: all(recovery.len()),
                recovery: recovery.into_iter().collect(),
                pins,
                signatures: Vec::new(),
            };
            let place = Place { cluster: cluster.into(), session: SessionId::new(session), hlc, control_heads };
            let keys: Vec<SecretKey> = signers.iter().map(SecretKey::from_seed).collect();
            succeed.sign(place, &keys).expect("a valid change of owners")
        },
    )
}

/// A signed data or control op of some cluster, well-formed but out of any context.
pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![9 => usual_op(), 1 => succession_op()]
}

fn usual_op() -> impl Strategy<Value = Op> {
    let payload = |certificate| {
        prop_oneof![data(), control(certificate).prop_map(|payload| (ShardId::control(), payload, Vec::new())),]
    };
    let head = (op_id(), op_ids(limits::CONTROL_HEADS_MAX), any::<[u8; 8]>(), number(), op_id(), hlc(), earlier());
    let parts = (secret_key(), op_id(), head).prop_flat_map(move |(key, certificate, head)| {
        (Just(key), Just(certificate), Just(head), payload(certificate))
    });
    parts.prop_map(
        |(
            key,
            certificate,
            (cluster, control_heads, session, seq, prev, hlc, mut earlier),
            (shard, payload, bodies),
        )| {
            if seq > 1 || matches!(payload, Payload::Control(_)) {
                earlier.clear();
            }
            earlier.retain(|end| end.session != SessionId::new(session));
            let header = Header {
                version: limits::OP_VERSION,
                cluster: ClusterId::from(cluster),
                shard,
                author: key.author(),
                certificate,
                session: SessionId::new(session),
                seq: seq.max(1),
                prev: if seq <= 1 { OpId::ZERO } else { prev },
                earlier,
                hlc,
                control_heads,
                payload,
            };
            Op::sign(header, bodies, &key).expect("a valid op")
        },
    )
}
