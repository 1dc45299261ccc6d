mod answers;
mod approval;
mod audit;
mod bulk;
mod catch_up;
mod erase;
mod expiry;
mod fields;
mod forks;
mod long;
mod marks;
mod others;
mod owed;
mod past;
mod rebuild;
mod schemas;
mod serve;
mod succession;
mod unique;
mod waits;
mod witness;

use std::collections::VecDeque;

use super::*;
use crate::document::edit::{Edit, EditFormat};
use crate::id::{CollectionName, DocId, RequestId};
use crate::op::BuiltInRole;
use crate::replication::{Input as NetInput, Lane};
use crate::store::{Durability, MemoryStore, Read as _};
use bytes::Bytes;

/// A node with its store, and a clock and a network that the test drives.
struct Node {
    replica: Replica,
    store: Arc<MemoryStore>,
    done: BTreeMap<RequestTicket, Result<WriteOutcome, WriteError>>,
    acts: BTreeMap<RequestTicket, Result<Admitted, ActError>>,
    alarms: Vec<String>,
    /// The disk after each commit, where a test wants to go on from there.
    disks: Option<Vec<MemoryStore>>,
}

struct Lab {
    nodes: Vec<Node>,
    wire: VecDeque<(usize, AuthorKey, Lane, Bytes)>,
    links: BTreeSet<(usize, usize)>,
    now: Now,
    ticket: u64,
    /// Of nodes that are opened from now on.
    bulk_gap_ops: u64,
    waiting_of_author_max: usize,
    /// Who may be accused of what only a liar does.
    liar: Option<AuthorKey>,
    /// Scrubs of disks, and how many of those to come are in vain.
    scrubs: u32,
    scrubs_in_vain: u32,
}

fn collection() -> CollectionName {
    "c".parse().unwrap()
}

fn doc(id: &str) -> DocId {
    id.parse().unwrap()
}

fn put(json: &str) -> DocWrite {
    DocWrite::Edit(Edit::parse(EditFormat::Document, json.as_bytes()).unwrap())
}

fn ops(json: &str) -> DocWrite {
    DocWrite::Edit(Edit::parse(EditFormat::Ops, json.as_bytes()).unwrap())
}

impl Lab {
    /// Founds a cluster with one node and lets further ones join with a role each.
    fn new(roles: &[BuiltInRole]) -> Self {
        let now = Now { monotonic_ms: 1_700_000_000_000, wall_ms: 1_700_000_000_000 };
        let owner = SecretKey::from_seed(&[100; 32]);
        let node = SecretKey::from_seed(&[1; 32]);
        let founding = Founding {
            name: "test",
            node_name: "n0",
            labels: Vec::new(),
            owner: &owner,
            node: &node,
            recovery: vec![crate::op::recovery_hash(&SecretKey::from_seed(&[101; 32]).author())],
        };
        let founded = found_cluster(founding, now.wall_ms, &[9; 32]).unwrap();
        let identity = Identity {
            node,
            owner: Some(owner),
            cluster: founded.cluster,
            certificate: founded.certificate,
            principal: founded.principal,
        };
        let mut lab = Self {
            nodes: Vec::new(),
            wire: VecDeque::new(),
            links: BTreeSet::new(),
            now,
            ticket: 0,
            bulk_gap_ops: u64::MAX,
            waiting_of_author_max: WAITING_OF_AUTHOR_MAX,
            liar: None,
            scrubs: 0,
            scrubs_in_vain: 0,
        };
        lab.open(identity, Arc::new(MemoryStore::new()), 0, founded.ops);
        for (index, role) in roles.iter().enumerate() {
            let node = SecretKey::from_seed(&[2 + u8::try_from(index).unwrap(); 32]);
            let request = ActRequest::Admit {
                key: node.author(),
                name: format!("n{}", index + 1),
                labels: Vec::new(),
                role: *role,
            };
            let certificate = lab.act(0, Signer::Node, request).unwrap().op;
            let control = lab.control_ops(0);
            let identity = Identity {
                node,
                owner: None,
                cluster: lab.nodes[0].replica.identity().cluster,
                certificate,
                principal: PrincipalId::from(certificate),
            };
            lab.open(identity, Arc::new(MemoryStore::new()), 1 + index, control);
        }
        for a in 0..lab.nodes.len() {
            for b in 0..a {
                lab.connect(a, b);
            }
        }
        lab.run(20);
        lab
    }

    fn control_ops(&self, node: usize) -> Vec<Op> {
        let store = &self.nodes[node].store;
        let mut ops = Vec::new();
        for entry in store.scan(crate::store::Keyspace::Ops, &crate::store::Span::all(), crate::store::Order::Ascending)
        {
            let bytes = crate::store::envelope::open(entry.unwrap().1).unwrap();
            let op = Op::decode(&bytes, self.nodes[node].replica.identity().cluster).unwrap();
            if op.header().shard.is_control() {
                ops.push(op);
            }
        }
        ops.sort_by_key(|op| (op.header().hlc, op.header().seq));
        ops
    }

    fn open(&mut self, identity: Identity, store: Arc<MemoryStore>, seed: usize, ops: Vec<Op>) {
        let mut bytes = [0; 32];
        bytes[0] = u8::try_from(seed).unwrap();
        bytes[1] = u8::try_from(self.ticket % 251).unwrap();
        let config = ReplicaConfig {
            bulk_gap_ops: self.bulk_gap_ops,
            waiting_of_author_max: self.waiting_of_author_max,
            ..ReplicaConfig::default()
        };
        let mut replica = Replica::open(config, identity, store.clone(), &bytes, self.now).unwrap();
        replica.seed_control(ops);
        let node =
            Node { replica, store, done: BTreeMap::new(), acts: BTreeMap::new(), alarms: Vec::new(), disks: None };
        if seed < self.nodes.len() {
            self.nodes[seed] = node;
        } else {
            self.nodes.push(node);
        }
        self.settle(seed);
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.links.insert((a.min(b), a.max(b))) {
            for (x, y) in [(a, b), (b, a)] {
                let peer = self.nodes[y].replica.identity().node.author();
                self.step(x, Input::Net(NetInput::PeerUp { peer }));
            }
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            for (x, y) in [(a, b), (b, a)] {
                let peer = self.nodes[y].replica.identity().node.author();
                self.step(x, Input::Net(NetInput::PeerDown { peer }));
            }
        }
    }

    fn step(&mut self, node: usize, input: Input) {
        let mut effects = Vec::new();
        self.nodes[node].replica.step(self.now, input, &mut effects);
        self.carry_out(node, effects);
    }

    /// Flushes and commits until nothing is left to do on a node.
    fn settle(&mut self, node: usize) {
        loop {
            let mut effects = Vec::new();
            let more = self.nodes[node].replica.work(self.now, 64, &mut effects);
            self.nodes[node].replica.flush(self.now, &mut effects);
            if effects.is_empty() && !more {
                return;
            }
            self.carry_out(node, effects);
        }
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Commit { id, batch, .. } => {
                    self.nodes[node].store.commit(&batch, Durability::Synced).unwrap();
                    let Node { store, disks, .. } = &mut self.nodes[node];
                    disks.iter_mut().for_each(|disks| disks.push(store.clone_synced()));
                    self.step(node, Input::Committed(id));
                }
                Effect::Send { peer, lane, bytes } => {
                    let from = self.nodes[node].replica.identity().node.author();
                    let to = self.nodes.iter().position(|n| n.replica.identity().node.author() == peer);
                    if let Some(to) = to
                        && self.links.contains(&(node.min(to), node.max(to)))
                    {
                        self.wire.push_back((to, from, lane, bytes));
                    }
                }
                Effect::WriteDone { ticket, result } => {
                    self.nodes[node].done.insert(ticket, result);
                }
                Effect::ActDone { ticket, result } => {
                    self.nodes[node].acts.insert(ticket, result);
                }
                Effect::Alarm { kind, detail } => self.nodes[node].alarms.push(format!("{kind}: {detail}")),
                Effect::Misbehaved { peer, what } => {
                    assert!(!what.is_proof() || Some(peer) == self.liar, "{what}");
                }
                Effect::Disconnect { peer, .. } => {
                    let to = self.nodes.iter().position(|n| n.replica.identity().node.author() == peer).unwrap();
                    self.links.remove(&(node.min(to), node.max(to)));
                }
                Effect::Halt(reason) => panic!("{reason}"),
                Effect::Scrub => {
                    self.scrubs += 1;
                    let is_clean = self.scrubs_in_vain == 0;
                    self.scrubs_in_vain = self.scrubs_in_vain.saturating_sub(1);
                    self.step(node, Input::Scrubbed { is_clean, took_ms: 1 });
                }
                Effect::Advanced { .. }
                | Effect::MembersChanged
                | Effect::ErasuresCarriedOut(_)
                | Effect::EvidenceGiven { .. } => {}
            }
        }
    }

    /// Delivers everything and lets time pass in ticks of 100 ms.
    fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            loop {
                for node in 0..self.nodes.len() {
                    self.settle(node);
                }
                let Some((to, from, lane, bytes)) = self.wire.pop_front() else { break };
                self.step(to, Input::Net(NetInput::Frame { peer: from, lane, bytes }));
            }
            self.now.monotonic_ms += 100;
            self.now.wall_ms += 100;
            for node in 0..self.nodes.len() {
                self.step(node, Input::Net(NetInput::Tick));
            }
        }
    }

    fn try_write(
        &mut self,
        node: usize,
        id: &str,
        write: DocWrite,
        request: Option<u8>,
    ) -> Result<WriteOutcome, WriteError> {
        self.send(node, id, write, request.map(|byte| self::request(byte, byte)))
    }

    fn try_request(
        &mut self,
        node: usize,
        id: &str,
        write: DocWrite,
        request: RequestId,
    ) -> Result<WriteOutcome, WriteError> {
        self.send(node, id, write, Some(request))
    }

    fn send(
        &mut self,
        node: usize,
        id: &str,
        write: DocWrite,
        request: Option<RequestId>,
    ) -> Result<WriteOutcome, WriteError> {
        self.ticket += 1;
        let ticket = self.ticket;
        let item = WriteItem { doc: doc(id), write, precondition: Precondition::None, base: None, bytes: 100 };
        let (limits, items) = (WriteLimits::none(), vec![item]);
        let request = WriteRequest { collection: collection(), principal: None, request, limits, items };
        self.step(node, Input::Write { ticket, request });
        self.settle(node);
        self.nodes[node].done.remove(&ticket).unwrap()
    }

    fn write(&mut self, node: usize, id: &str, write: DocWrite) -> WriteOutcome {
        self.try_write(node, id, write, None).unwrap()
    }

    fn act(&mut self, node: usize, signer: Signer, request: ActRequest) -> Result<Admitted, ActError> {
        self.ticket += 1;
        let ticket = self.ticket;
        self.step(node, Input::Act { ticket, signer, request });
        self.settle(node);
        self.nodes[node].acts.remove(&ticket).unwrap()
    }

    fn json(&self, node: usize, id: &str) -> Option<String> {
        let reader = Reader::new(self.nodes[node].store.clone());
        let view = reader.get(&DocKey { collection: collection(), doc: doc(id) }).unwrap()?;
        (!view.deleted).then(|| String::from_utf8(view.json.to_vec()).unwrap())
    }

    fn assert_converged(&self) {
        let state = |node: &Node| {
            let shards = Reader::new(node.store.clone()).shards().unwrap();
            shards
                .into_iter()
                .filter(|info| !info.shard.is_control())
                .map(|info| (info.shard, info.digest, info.documents, info.bytes, info.unapplied))
                .collect::<Vec<_>>()
        };
        for node in &self.nodes[1..] {
            assert_eq!(state(node), state(&self.nodes[0]));
        }
        for node in &self.nodes {
            let store: Arc<dyn Store> = node.store.clone();
            let report = verify(&store, node.replica.identity().cluster, |_| {});
            assert_eq!(report.damage, Vec::new());
            assert!(report.documents > 0);
        }
    }
}

#[test]
fn writes_replicate_both_ways_and_partitions_heal() {
    let mut lab = Lab::new(&[BuiltInRole::Editor, BuiltInRole::Editor]);
    lab.write(0, "a", put(r#"{"name":"A","n":1}"#));
    lab.write(1, "b", put(r#"{"name":"B"}"#));
    lab.run(5);
    assert_eq!(lab.json(2, "a").unwrap(), r#"{"n":1,"name":"A"}"#);
    assert_eq!(lab.json(0, "b").unwrap(), r#"{"name":"B"}"#);
    lab.cut(0, 1);
    lab.cut(1, 2);
    lab.write(0, "a", put(r#"{"name":"A0","n":1}"#));
    lab.write(1, "a", put(r#"{"name":"A","n":2}"#));
    lab.write(1, "b", DocWrite::Delete);
    lab.write(0, "b", put(r#"{"name":"B","alive":true}"#));
    lab.run(5);
    assert_eq!(lab.json(2, "a").unwrap(), r#"{"n":1,"name":"A0"}"#);
    assert_eq!(lab.json(1, "b"), None);
    lab.connect(0, 1);
    lab.connect(1, 2);
    lab.run(50);
    for node in 0..3 {
        assert_eq!(lab.json(node, "a").unwrap(), r#"{"n":2,"name":"A0"}"#);
        assert_eq!(lab.json(node, "b").unwrap(), r#"{"alive":true,"name":"B"}"#);
    }
    lab.assert_converged();
}

#[test]
fn a_deleted_document_stays_deleted_and_can_be_made_again() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "a", put(r#"{"x":1}"#));
    lab.run(5);
    assert_eq!(lab.write(1, "a", DocWrite::Delete).items[0].status, ItemStatus::Deleted);
    assert!(matches!(lab.try_write(1, "a", DocWrite::Delete, None), Err(WriteError::NotFound(_))));
    lab.run(5);
    assert_eq!(lab.json(0, "a"), None);
    // The same content: no field changes, and yet the document must be there again.
    assert_eq!(lab.write(0, "a", put(r#"{"x":1}"#)).items[0].status, ItemStatus::Created);
    lab.run(5);
    assert_eq!(lab.json(1, "a").unwrap(), r#"{"x":1}"#);
    lab.assert_converged();
}

#[test]
fn a_retried_increment_counts_once_on_whichever_node() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "a", ops(r#"{"ops":[]}"#).clone_as_put());
    lab.write(0, "a", ops(r#"{"ops":[{"op":"counter","path":"/n","value":0}]}"#));
    lab.run(5);
    let add = || ops(r#"{"ops":[{"op":"increment","path":"/n","by":1}]}"#);
    let first = lab.try_write(0, "a", add(), Some(7)).unwrap();
    let again = lab.try_write(0, "a", add(), Some(7)).unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(again.items, first.items);
    lab.run(5);
    assert_eq!(lab.json(1, "a").unwrap(), r#"{"n":1}"#);
    assert!(lab.try_write(1, "a", add(), Some(7)).is_ok());
    lab.run(5);
    assert_eq!(lab.json(1, "a").unwrap(), r#"{"n":1}"#);
    lab.assert_converged();
}

#[test]
fn a_key_of_another_request_is_refused_here_and_elsewhere() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "a", put(r#"{"n":1}"#));
    lab.run(5);
    lab.try_request(0, "a", put(r#"{"n":2}"#), request(1, 1)).unwrap();
    let other = lab.try_request(0, "a", put(r#"{"n":3}"#), request(1, 2));
    assert!(matches!(other, Err(WriteError::RequestReused)), "{other:?}");
    lab.run(5);
    let other = lab.try_request(1, "a", put(r#"{"n":3}"#), request(1, 2));
    assert!(matches!(other, Err(WriteError::RequestReused)), "{other:?}");
    assert!(lab.try_request(1, "a", put(r#"{"n":2}"#), request(1, 1)).unwrap().replayed);
    assert_eq!(lab.json(1, "a").unwrap(), r#"{"n":2}"#);
    // Nodes that do not know of each other take both: then both count, for nothing that was acknowledged is lost.
    lab.cut(0, 1);
    lab.try_request(0, "x", put("{}"), request(9, 1)).unwrap();
    lab.try_request(1, "y", put("{}"), request(9, 2)).unwrap();
    lab.connect(0, 1);
    lab.run(20);
    for node in 0..2 {
        assert!(lab.json(node, "x").is_some() && lab.json(node, "y").is_some());
        assert!(lab.try_request(node, "x", put("{}"), request(9, 1)).unwrap().replayed);
        assert!(lab.try_request(node, "y", put("{}"), request(9, 2)).unwrap().replayed);
    }
    lab.assert_converged();
}

#[test]
fn a_request_that_changed_nothing_is_remembered() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    lab.write(0, "a", put(r#"{"n":1}"#));
    let first = lab.try_request(0, "a", put(r#"{"n":1}"#), request(1, 1)).unwrap();
    assert_eq!((first.items[0].status, first.replayed), (ItemStatus::Unchanged, false));
    lab.write(0, "a", put(r#"{"n":2}"#));
    let again = lab.try_request(0, "a", put(r#"{"n":1}"#), request(1, 1)).unwrap();
    assert_eq!((again.items, again.replayed), (first.items, true));
    assert_eq!(lab.json(0, "a").unwrap(), r#"{"n":2}"#, "the retry undoes nothing that came after the request");
    let other = lab.try_request(0, "a", put(r#"{"n":3}"#), request(1, 2));
    assert!(matches!(other, Err(WriteError::RequestReused)), "{other:?}");
    // A request that failed made nothing: its key is free.
    assert!(lab.try_request(0, "none", DocWrite::Delete, request(2, 1)).is_err());
    assert!(lab.try_request(0, "a", put(r#"{"n":3}"#), request(2, 2)).is_ok());
}

/// A request of this name that asks for this.
fn request(name: u8, asked: u8) -> RequestId {
    let mut id = [asked; 32];
    id[..16].fill(name);
    RequestId::new(id)
}

impl DocWrite {
    fn clone_as_put(self) -> Self {
        put("{}")
    }
}

#[test]
fn a_restart_loses_nothing_and_begins_a_new_session() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    for i in 0..200 {
        lab.write(0, &format!("d{}", i % 3), put(&format!(r#"{{"n":{i}}}"#)));
    }
    lab.run(5);
    let identity = lab.nodes[0].replica.identity().clone();
    let store = lab.nodes[0].store.clone();
    let session = lab.nodes[0].replica.session;
    lab.cut(0, 1);
    lab.ticket += 1;
    lab.open(identity, store, 0, Vec::new());
    assert_ne!(lab.nodes[0].replica.session, session);
    lab.connect(0, 1);
    lab.write(0, "d0", put(r#"{"n":1000}"#));
    lab.write(1, "d1", put(r#"{"n":2000}"#));
    lab.run(20);
    for node in 0..2 {
        assert_eq!(lab.json(node, "d0").unwrap(), r#"{"n":1000}"#);
        assert_eq!(lab.json(node, "d1").unwrap(), r#"{"n":2000}"#);
        assert_eq!(lab.json(node, "d2").unwrap(), r#"{"n":197}"#);
    }
    lab.assert_converged();
}

#[test]
fn a_stream_that_waits_for_an_act_goes_on_after_a_restart() {
    let mut lab = Lab::new(&[BuiltInRole::Editor]);
    let request = ActRequest::Admit {
        key: SecretKey::from_seed(&[77; 32]).author(),
        name: "late".to_owned(),
        labels: Vec::new(),
        role: BuiltInRole::Editor,
    };
    lab.write(0, "before", put(r#"{"n":0}"#));
    lab.run(5);
    lab.act(0, Signer::Node, request).unwrap();
    for n in 1..4 {
        lab.write(0, "d", put(&format!(r#"{{"n":{n}}}"#)));
    }
    // The writes arrive, the act that they name does not.
    let cluster = lab.nodes[0].replica.identity().cluster;
    let is_data = |ops: &[Vec<u8>]| ops.iter().all(|op| !Op::decode(op, cluster).unwrap().header().shard.is_control());
    for (to, from, lane, bytes) in std::mem::take(&mut lab.wire) {
        if replication::forge_run(&bytes, |ops| is_data(&ops).then_some(ops)).is_some() {
            lab.step(to, Input::Net(NetInput::Frame { peer: from, lane, bytes }));
            lab.settle(to);
        }
    }
    lab.wire.clear();
    lab.cut(0, 1);
    assert_eq!(lab.nodes[1].replica.tx_states().get(&TxState::Deferred), Some(&3));
    let identity = lab.nodes[1].replica.identity().clone();
    let store = lab.nodes[1].store.clone();
    lab.ticket += 1;
    lab.open(identity, store, 1, Vec::new());
    assert_eq!(lab.nodes[1].replica.tx_states().get(&TxState::Deferred), Some(&3), "nothing is judged by less");
    lab.connect(0, 1);
    lab.run(20);
    assert_eq!(lab.json(1, "d").unwrap(), r#"{"n":3}"#);
    lab.assert_converged();
}

#[test]
fn a_write_under_a_key_is_one_entry_of_the_feed() {
    // Its op is looked at again when it is durable, and has no further effect.
    let mut lab = Lab::new(&[]);
    lab.try_write(0, "d", put(r#"{"n":1}"#), Some(1)).unwrap();
    let reader = Reader::new(lab.nodes[0].store.clone());
    let places = |reader: &Reader| -> Vec<u64> {
        reader.feed(0, None, "", 10, &|_, _| Ok(true)).unwrap().entries.iter().map(|entry| entry.seq).collect()
    };
    assert_eq!(places(&reader), [1]);
    lab.run(5);
    assert_eq!(places(&reader), [1]);
    lab.write(0, "d", put(r#"{"n":2}"#));
    assert_eq!(places(&reader), [2]);
}
