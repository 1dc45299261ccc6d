//! What ops cost: `cargo bench -p folkmoot-core --bench op`. An op here is what one request makes, or a full group of them.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use folkmoot_core::authority::{Authority, Chains, Position, Verdict};
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{AuthorKey, ClusterId, CollectionName, DocId, OpId, Salt, SessionId, ShardId};
use folkmoot_core::keys::{PublicKey, SecretKey};
use folkmoot_core::limits;
use folkmoot_core::op::{Act, Body, ChangeRef, Control, Genesis, Header, Op, Payload, Pin, Transaction, WriteAction};

/// Transactions of an op: of one client alone, and of 64 that wrote at the same time.
const TRANSACTIONS: [u64; 2] = [1, 64];
/// About what the Automerge change of a new document with 200 bytes of JSON takes.
const CHANGE_BYTES: usize = 320;

/// A cluster of one owner.
struct Cluster {
    owner: SecretKey,
    author: AuthorKey,
    genesis: Op,
}

/// All ops are here.
struct Whole;

impl Chains for Whole {
    fn at(&self, _: u64, end: &Pin) -> Option<OpId> {
        Some(end.head)
    }

    fn lies_on(&self, _: &Position, _: &Pin) -> Option<bool> {
        Some(true)
    }

    fn earlier_ends(&self, _: &Pin) -> Option<Vec<Pin>> {
        Some(Vec::new())
    }
}

impl Cluster {
    fn new() -> Self {
        let owner = SecretKey::from_seed(&[7; 32]);
        let author = owner.author();
        let genesis = Genesis {
            name: "bench".to_owned(),
            owners: vec![author],
            threshold: 1,
            recovery: vec![],
            recovery_threshold: 0,
            rules: 1,
            nonce: Salt::ZERO,
        };
        let header = Header {
            version: limits::OP_VERSION,
            cluster: ClusterId::ZERO,
            shard: ShardId::control(),
            author,
            certificate: OpId::ZERO,
            session: SessionId::ZERO,
            seq: 1,
            prev: OpId::ZERO,
            earlier: Vec::new(),
            hlc: Hlc::new(1, 0),
            control_heads: vec![],
            payload: Payload::from(Control { proof: vec![], act: Act::Genesis(genesis), for_whom: None }),
        };
        let genesis = Op::sign(header, vec![], &owner).expect("a genesis");
        Self { owner, author, genesis }
    }

    fn id(&self) -> ClusterId {
        self.genesis.id().into()
    }

    /// A data op of so many creates, and its parts.
    fn parts(&self, transactions: u64) -> (Header, Vec<Body>) {
        let collection: CollectionName = "bench".parse().expect("a name");
        let mut bodies = Vec::new();
        let transactions = (0..transactions).map(|number| {
            let body = Body { salt: Salt::new([number as u8; 16]), bytes: vec![number as u8; CHANGE_BYTES].into() };
            let doc: DocId = format!("document-{number:06}").parse().expect("an id");
            let changes = vec![ChangeRef::new(doc, WriteAction::Create, &body)];
            bodies.push(body);
            Transaction { principal: self.genesis.id().into(), request: None, changes }
        });
        let payload = Payload::Data(transactions.collect());
        let header = Header {
            version: limits::OP_VERSION,
            cluster: self.id(),
            shard: ShardId { collection, index: 0, of: 1 },
            author: self.author,
            certificate: self.genesis.id(),
            session: SessionId::ZERO,
            seq: 1,
            prev: OpId::ZERO,
            earlier: Vec::new(),
            hlc: Hlc::new(2, 0),
            control_heads: vec![self.genesis.id()],
            payload,
        };
        (header, bodies)
    }

    fn op(&self, transactions: u64) -> Op {
        let (header, bodies) = self.parts(transactions);
        Op::sign(header, bodies, &self.owner).expect("a valid op")
    }
}

fn ops(c: &mut Criterion) {
    let cluster = Cluster::new();
    let key = PublicKey::new(&cluster.author).expect("a key");
    for count in TRANSACTIONS {
        let mut group = c.benchmark_group("op");
        group.throughput(Throughput::Elements(count)).sample_size(30);
        let op = cluster.op(count);
        let bytes = op.encode();
        group.bench_function(BenchmarkId::new("sign", count), |b| {
            b.iter_batched(
                || cluster.parts(count),
                |(header, bodies)| Op::sign(header, bodies, &cluster.owner),
                criterion::BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("encode", count), |b| b.iter(|| black_box(op.encode())));
        group.bench_function(BenchmarkId::new("decode", count), |b| {
            b.iter(|| Op::decode(black_box(&bytes), cluster.id()).expect("a valid op"));
        });
        group.bench_function(BenchmarkId::new("verify", count), |b| {
            b.iter(|| assert!(black_box(&op).is_signed_by(&key)));
        });
        group.finish();
    }
}

fn judge(c: &mut Criterion) {
    let cluster = Cluster::new();
    let mut authority = Authority::new(cluster.id());
    authority.add_control(cluster.genesis.id(), cluster.genesis.header_arc()).expect("an act");
    let op = cluster.op(1);
    let header: Arc<Header> = op.header_arc();
    let at = Position { stream: op.stream(), seq: 1, op: op.id() };
    authority.note_data(&at, &header);
    assert_eq!(authority.judge(&at, &header, 0, &Whole), Verdict::Allowed);
    c.bench_function("judge", |b| b.iter(|| black_box(authority.judge(&at, &header, 0, &Whole))));
}

criterion_group!(benches, ops, judge);
criterion_main!(benches);
