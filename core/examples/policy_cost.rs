//! Measures what many grants and revocations cost: an act taken in, the policy made again, a question answered by the policy and
//! by the engine, and the verdict on a transaction. CPU time of one thread.
//!
//! `cargo run --release -p folkmoot-core --example policy_cost [GRANTS] [REVOCATIONS]`

use std::collections::BTreeMap;
use std::sync::Arc;

use folkmoot_core::authority::{Action, Authority, Chains, Position};
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{CollectionName, Commitment, DocId, OpId, PrincipalId, SessionId, ShardId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::limits;
use folkmoot_core::op::{
    Act, BuiltInRole, ChangeRef, Control, Grant, Header, Op, Payload, Pin, Principal, PrincipalKind, Rank, Revoke,
    RevokeTarget, Role, Target, Transaction, WriteAction,
};
use folkmoot_core::replica::{Founding, found_cluster};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PRINCIPALS: usize = 1_000;
const ASKED: usize = 200_000;

/// CPU time of this thread in nanoseconds: wall clocks say little on a busy machine.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// Runs something and prints what one of `count` took.
fn timed<T>(what: &str, count: usize, work: impl FnOnce() -> T) -> T {
    let began = cpu_nanos();
    let made = work();
    let took = (cpu_nanos() - began) as f64 / 1_000.0;
    println!("{what}: {:.2} us ({:.1} ms for {count})", took / count as f64, took / 1_000.0);
    made
}

/// No stream is cut within its chain here.
struct NoChains;

impl Chains for NoChains {
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

/// The owner's stream, which goes on.
struct Owner {
    key: SecretKey,
    last: Header,
    id: OpId,
    time: u64,
}

impl Owner {
    fn sign(&mut self, act: Act) -> Result<(OpId, Arc<Header>), Failure> {
        self.time += 1;
        let header = Header {
            seq: self.last.seq + 1,
            prev: self.id,
            hlc: Hlc::new(self.time, 0),
            control_heads: vec![self.id],
            payload: Payload::from(Control { proof: vec![self.last.certificate], act, for_whom: None }),
            ..self.last.clone()
        };
        let op = Op::sign(header.clone(), Vec::new(), &self.key)?;
        (self.id, self.last) = (op.id(), header.clone());
        Ok((op.id(), Arc::new(header)))
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: usize| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (grants, revocations) = (number(10_000)?, number(1_000)?);
    let (owner, node) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
    let founding = Founding {
        name: "cost",
        node_name: "node",
        labels: Vec::new(),
        owner: &owner,
        node: &node,
        recovery: Vec::new(),
    };
    let founded = found_cluster(founding, 1_000, &[3; 32])?;
    let mut authority = Authority::new(founded.cluster);
    authority.add_controls(founded.ops.iter().map(|op| (op.id(), Arc::new(op.header().clone()))))?;
    let last = founded.ops.last().ok_or("a cluster begins with ops")?;
    let mut owner = Owner { key: owner, last: last.header().clone(), id: last.id(), time: 2_000 };

    let mut acts = Vec::new();
    let mut principals = Vec::new();
    for n in 0..PRINCIPALS {
        let name = format!("user {n}");
        let act = Act::Principal(Principal { name, kind: PrincipalKind::User, attest: true, rank: Rank::USER });
        acts.push(owner.sign(act)?);
        principals.extend(acts.last().map(|(id, _)| PrincipalId::from(*id)));
    }
    let mut given = Vec::new();
    for n in 0..grants {
        let target = Target::collections(format!("c{}", n / PRINCIPALS % 50));
        let role = Role::BuiltIn(BuiltInRole::Editor);
        let principal = principals[n % PRINCIPALS];
        acts.push(owner.sign(Act::Grant(Grant { principal, role, target, rank: Rank::USER, not_after: None }))?);
        given.extend(acts.last().map(|(id, _)| *id));
    }
    for statement in given.iter().rev().take(revocations) {
        let target = RevokeTarget::Statement(*statement);
        acts.push(owner.sign(Act::Revoke(Revoke { target, pins: Vec::new(), cascade: false, why: String::new() }))?);
    }
    let count = acts.len();
    timed("an act taken in", count, || {
        acts.into_iter().try_for_each(|(id, header)| authority.add_control(id, header).map(|_| ()))
    })?;
    let policy = timed("the policy made again", 1, || authority.policy());

    let collection: CollectionName = "c0".parse()?;
    let doc: DocId = "d".parse()?;
    let now = Hlc::new(owner.time, 0);
    let asked = |n: usize| principals[n % PRINCIPALS];
    let by_policy = timed("a question to the policy", ASKED, || {
        (0..ASKED).filter(|n| policy.may(asked(*n), Action::Update, &collection, Some(&doc), now)).count()
    });
    let engine = |n: usize| authority.may(asked(n), Action::Update, &collection, Some(&doc), now);
    let by_engine = timed("a question to the engine", ASKED, || {
        (0..ASKED).filter(|n| matches!(engine(*n), folkmoot_core::authority::Decision::Allowed { .. })).count()
    });
    assert_eq!(by_policy, by_engine);

    // A stream of the node, which writes for each principal in turn.
    let change = |n: usize| ChangeRef {
        doc: doc.clone(),
        action: WriteAction::Update,
        commitment: Commitment::new([u8::try_from(n % 251).unwrap_or(0); 32]),
        body_bytes: 100,
        fields: None,
    };
    let transactions: Vec<Transaction> = (0..limits::TRANSACTIONS_MAX)
        .map(|n| Transaction { principal: asked(n), request: None, changes: vec![change(n)] })
        .collect();
    let per_op = transactions.len();
    let header = Header {
        version: limits::OP_VERSION,
        cluster: founded.cluster,
        shard: ShardId { collection, index: 0, of: 1 },
        author: node.author(),
        certificate: founded.certificate,
        session: SessionId::new(*b"session1"),
        seq: 1,
        prev: OpId::ZERO,
        earlier: Vec::new(),
        hlc: Hlc::new(owner.time + 1, 0),
        control_heads: vec![owner.id],
        payload: Payload::Data(transactions),
    };
    let at = Position { stream: header.stream_key().id(), seq: 1, op: OpId::new([9; 32]) };
    authority.note_data(&at, &header);
    let rounds = 100;
    let mut verdicts: BTreeMap<&str, usize> = BTreeMap::new();
    timed("the verdict on a transaction for somebody", rounds * per_op, || {
        for n in 0..rounds * per_op {
            *verdicts.entry(authority.judge(&at, &header, n % per_op, &NoChains).kind()).or_default() += 1;
        }
    });
    println!("verdicts: {verdicts:?}");
    Ok(())
}
