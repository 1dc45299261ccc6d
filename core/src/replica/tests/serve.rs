//! What a question about branches costs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::forks::forked;
use super::*;
use crate::id::{ChangeHash, Salt};
use crate::op::{Body, ChangeRef, Delete, Header, Payload, Transaction, WriteAction};
use crate::replica::serve::LOOKED_AT_BYTES_MAX;
use crate::replication::Tip;
use crate::replication::limits::{BRANCHES_MAX, RUN_BYTES_MAX, RUN_OPS_MAX};
use crate::store::keys::{Key as _, OpKey};
use crate::store::{Batch, Entries, Health, Keyspace, Order, Read, Span, StoreError, Usage, envelope};

/// A store that counts the bytes that are read.
struct Counted {
    store: Arc<MemoryStore>,
    bytes: Arc<AtomicUsize>,
}

impl Read for Counted {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.store.get(keyspace, key)?;
        self.bytes.fetch_add(value.as_ref().map_or(0, Bytes::len), Ordering::Relaxed);
        Ok(value)
    }

    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        let bytes = self.bytes.clone();
        Box::new(self.store.scan(keyspace, span, order).inspect(move |entry| {
            bytes.fetch_add(entry.as_ref().map_or(0, |(_, value)| value.len()), Ordering::Relaxed);
        }))
    }
}

impl Store for Counted {
    fn snapshot(&self) -> Box<dyn Read> {
        self.store.snapshot()
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.store.commit(batch, durability)
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        self.store.usage()
    }

    fn scrub(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        self.store.scrub(stop)
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

/// A forked stream, as node 0 has it, with more on its branches.
struct Forked {
    lab: Lab,
    stream: StreamId,
    bytes: Arc<AtomicUsize>,
}

impl Forked {
    fn new() -> Self {
        let (mut lab, stream) = forked();
        lab.connect(0, 2);
        lab.run(50);
        let bytes = Arc::new(AtomicUsize::new(0));
        let node = &mut lab.nodes[0];
        assert!(node.replica.heads[&stream].fork.is_some());
        node.replica.store = Arc::new(Counted { store: node.store.clone(), bytes: bytes.clone() });
        Self { lab, stream, bytes }
    }

    /// Puts an op of about 60 kB on a branch.
    fn add(&self, seq: u64, prev: OpId) -> OpId {
        let node = &self.lab.nodes[0];
        let first = node.replica.chains().main_op(&self.stream, 1).unwrap();
        let heads = vec![ChangeHash::new([3; 32])];
        let body = Body { salt: Salt::new([7; 16]), bytes: Delete { heads }.encode() };
        let change = |n: u32| ChangeRef {
            doc: doc(&format!("{}{n:08}", "x".repeat(240))),
            action: WriteAction::Delete,
            commitment: body.commitment(),
            body_bytes: u32::try_from(body.bytes.len()).unwrap(),
            fields: None,
        };
        let principal = first.header().transactions()[0].principal;
        let number = u32::try_from(self.bytes.fetch_add(1, Ordering::Relaxed)).unwrap();
        let transaction =
            |n| Transaction { principal, request: None, changes: vec![change(if n == 0 { number } else { n })] };
        let payload = Payload::Data((0..200).map(transaction).collect());
        let header = Header { seq, prev, payload, earlier: Vec::new(), ..first.header().clone() };
        let key = self.lab.nodes[1].replica.identity().node.clone();
        let op = Op::sign(header, vec![body.clone(); 200], &key).unwrap();
        let mut batch = Batch::default();
        let place = OpKey { stream: self.stream, seq, branch: Some(op.id()) };
        batch.put(Keyspace::Ops, place.encode(), envelope::enclose(&op.encode()));
        node.store.commit(&batch, Durability::Synced).unwrap();
        op.id()
    }

    /// Returns what is answered, as places, and how many bytes were read for it.
    fn ask(&mut self, from: u64, through: Option<Tip>) -> (Vec<Vec<OpId>>, usize) {
        self.bytes.store(0, Ordering::Relaxed);
        let replica = &mut self.lab.nodes[0].replica;
        let branches = replica.read_branches(self.stream, from, through, RUN_OPS_MAX, RUN_BYTES_MAX);
        for branch in &branches {
            assert!(branch.iter().map(|op| op.bytes.len()).sum::<usize>() <= RUN_BYTES_MAX);
        }
        let ids = branches.into_iter().map(|ops| ops.into_iter().map(|op| op.id).collect()).collect();
        (ids, self.bytes.load(Ordering::Relaxed))
    }
}

#[test]
fn a_branch_is_read_from_where_it_is_asked_for() {
    let mut forked = Forked::new();
    let main: Vec<OpId> =
        (1..=2).map(|seq| forked.lab.nodes[0].replica.chains().main(&forked.stream, seq).unwrap()).collect();
    let second = forked.add(2, main[0]);
    let third = forked.add(3, second);
    let fourth = forked.add(4, third);
    let tip = |seq, id| Some(Tip { seq, id });
    assert_eq!(forked.ask(1, tip(4, fourth)).0, [vec![main[0], second, third, fourth]]);
    assert_eq!(forked.ask(2, tip(3, third)).0, [vec![second, third]]);
    assert_eq!(forked.ask(4, tip(4, fourth)).0, [vec![fourth]]);
    assert_eq!(forked.ask(1, tip(2, main[1])).0, std::slice::from_ref(&main));
    let all = forked.ask(1, None).0;
    assert_eq!(all.len(), 3, "the main chain, this branch, and the one that was there");
    assert_eq!(all[..2], [main.clone(), vec![main[0], second, third, fourth]]);
}

/// Nobody can have a whole stream read by one small question.
#[test]
fn the_cost_of_a_question_does_not_grow_with_the_branches() {
    let mut forked = Forked::new();
    let first = forked.lab.nodes[0].replica.chains().main(&forked.stream, 1).unwrap();
    let mut ids = vec![first];
    for seq in 2..600 {
        ids.push(forked.add(seq, *ids.last().unwrap()));
    }
    let held: usize = 600 * 60_000;
    let (answer, bytes) = forked.ask(2, Some(Tip { seq: 599, id: ids[598] }));
    assert!(answer.len() == 1 && answer[0].len() > 10 && ids[1..].starts_with(&answer[0]), "{answer:?}");
    let most = 3 * LOOKED_AT_BYTES_MAX + 3 * RUN_BYTES_MAX;
    assert!(bytes > RUN_BYTES_MAX && bytes < most && most < held, "{bytes}");
    // What is near is found whole.
    assert_eq!(forked.ask(590, Some(Tip { seq: 599, id: ids[598] })).0, [ids[589..].to_vec()]);
    // Many branches at one place: a few are given, and the main chain is not searched among them.
    for _ in 0..600 {
        forked.add(2, first);
    }
    let (answer, bytes) = forked.ask(1, None);
    assert_eq!(answer.len(), BRANCHES_MAX + 1);
    assert!(answer.iter().all(|branch| branch[0] == first), "{answer:?}");
    let most = (1 + BRANCHES_MAX) * (LOOKED_AT_BYTES_MAX + RUN_BYTES_MAX);
    assert!(bytes < most && most < 2 * held, "{bytes}");
    forked.bytes.store(0, Ordering::Relaxed);
    let main = forked.lab.nodes[0].replica.read_ops(forked.stream, 1, RUN_OPS_MAX, RUN_BYTES_MAX);
    assert_eq!(main.len(), 2);
    assert!(forked.bytes.load(Ordering::Relaxed) < RUN_BYTES_MAX);
}
