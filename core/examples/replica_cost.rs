//! Measures what a document costs a replica, in CPU time of the thread that owns it: local creates, edits of documents
//! that are loaded and of ones that are not, and the same taken from a peer, everything verified. Then what rights on fields
//! cost: creates and edits for a user who may write everything, and for one from whom a field is withheld.
//!
//! `cargo run --release -p folkmoot-core --example replica_cost [DOCUMENTS] [GROUP] [memory|fjall] [PHASE]`
//!
//! `GROUP` writes share a batch, as under load; the commit itself is measured apart. A phase named is repeated until
//! somebody stops the program, for a profiler to look at.

use std::collections::VecDeque;
use std::sync::Arc;

use folkmoot_core::document::edit::{Edit, EditFormat};
use folkmoot_core::document::gate::STACK_BYTES;
use folkmoot_core::id::{AuthorKey, PrincipalId, RequestId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{
    Act, BuiltInRole, FieldPaths, Fields, Grant, Op, Principal, PrincipalKind, Rank, Role, Target,
};
use folkmoot_core::replica::{
    ActRequest, DocWrite, Effect, Founding, Identity, Input, Now, Precondition, Replica, ReplicaConfig, Signer,
    WriteItem, WriteLimits, WriteRequest, found_cluster,
};
use folkmoot_core::replication::{Input as NetInput, Lane};
use folkmoot_core::store::{Durability, FjallOptions, FjallStore, Keyspace, MemoryStore, Order, Span, Store, envelope};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// CPU time of this thread in nanoseconds: wall clocks say little on a busy machine.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

struct Node {
    replica: Replica,
    store: Arc<dyn Store>,
    identity: Identity,
    /// Of steps, work and flushes; of commits.
    cpu: [u64; 2],
}

struct Lab {
    nodes: Vec<Node>,
    wire: VecDeque<(usize, AuthorKey, Lane, bytes::Bytes)>,
    now: Now,
    ticket: u64,
    done: usize,
    admitted: Option<folkmoot_core::id::OpId>,
}

impl Lab {
    fn step(&mut self, node: usize, input: Input) -> Result<(), Failure> {
        let mut effects = Vec::new();
        let began = cpu_nanos();
        self.nodes[node].replica.step(self.now, input, &mut effects);
        self.nodes[node].cpu[0] += cpu_nanos() - began;
        self.carry_out(node, effects)
    }

    /// What the core's thread does between two looks at its commands.
    fn round(&mut self, node: usize) -> Result<bool, Failure> {
        let mut effects = Vec::new();
        let began = cpu_nanos();
        let more = self.nodes[node].replica.work(self.now, 128, &mut effects);
        self.nodes[node].replica.flush(self.now, &mut effects);
        self.nodes[node].cpu[0] += cpu_nanos() - began;
        let quiet = effects.is_empty() && !more;
        self.carry_out(node, effects)?;
        Ok(!quiet)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        loop {
            let mut busy = false;
            for node in 0..self.nodes.len() {
                busy |= self.round(node)?;
            }
            while let Some((to, from, lane, bytes)) = self.wire.pop_front() {
                busy = true;
                self.step(to, Input::Net(NetInput::Frame { peer: from, lane, bytes }))?;
            }
            if !busy {
                return Ok(());
            }
        }
    }

    fn tick(&mut self) -> Result<(), Failure> {
        self.now.monotonic_ms += 10;
        self.now.wall_ms += 10;
        for node in 0..self.nodes.len() {
            self.step(node, Input::Net(NetInput::Tick))?;
        }
        self.settle()
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) -> Result<(), Failure> {
        for effect in effects {
            match effect {
                Effect::Commit { id, batch, .. } => {
                    let began = cpu_nanos();
                    self.nodes[node].store.commit(&batch, Durability::Buffered)?;
                    drop(batch);
                    self.nodes[node].cpu[1] += cpu_nanos() - began;
                    self.step(node, Input::Committed(id))?;
                }
                Effect::Send { peer, lane, bytes } => {
                    let from = self.nodes[node].identity.node.author();
                    if let Some(to) = self.nodes.iter().position(|node| node.identity.node.author() == peer) {
                        self.wire.push_back((to, from, lane, bytes));
                    }
                }
                Effect::WriteDone { result, .. } => {
                    result?;
                    self.done += 1;
                }
                Effect::ActDone { result, .. } => self.admitted = Some(result?.op),
                Effect::Halt(reason) => return Err(reason.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn open(&mut self, identity: Identity, store: Arc<dyn Store>, cache: usize, seed: Vec<Op>) -> Result<(), Failure> {
        let config = ReplicaConfig { document_cache_bytes: cache, ..ReplicaConfig::default() };
        self.ticket += 1;
        let mut session = [0; 32];
        session[..8].copy_from_slice(&self.ticket.to_le_bytes());
        let mut replica = Replica::open(config, identity.clone(), store.clone(), &session, self.now)?;
        replica.seed_control(seed);
        self.nodes.push(Node { replica, store, identity, cpu: [0; 2] });
        Ok(())
    }

    fn control_ops(&self) -> Result<Vec<Op>, Failure> {
        let mut ops = Vec::new();
        let Some(node) = self.nodes.first() else { return Ok(ops) };
        for entry in node.store.scan(Keyspace::Ops, &Span::all(), Order::Ascending) {
            let op = Op::decode(&envelope::open(entry?.1)?, node.identity.cluster)?;
            if op.header().shard.is_control() {
                ops.push(op);
            }
        }
        ops.sort_by_key(|op| (op.header().hlc, op.header().seq));
        Ok(ops)
    }

    fn act(&mut self, act: Act) -> Result<folkmoot_core::id::OpId, Failure> {
        self.ticket += 1;
        let request = ActRequest::One(act);
        self.step(0, Input::Act { ticket: self.ticket, signer: Signer::Node, request })?;
        self.settle()?;
        self.admitted.take().ok_or_else(|| "the act was not signed".into())
    }

    /// Introduces a user for whom nodes write, in these fields.
    fn user(&mut self, name: &str, fields: Fields) -> Result<PrincipalId, Failure> {
        let new = Principal { name: name.to_owned(), kind: PrincipalKind::User, attest: true, rank: Rank::USER };
        let principal = PrincipalId::from(self.act(Act::Principal(new))?);
        let target = Target { fields, ..Target::everything() };
        let role = Role::BuiltIn(BuiltInRole::Editor);
        self.act(Act::Grant(Grant { principal, role, target, rank: Rank::USER, not_after: None }))?;
        for _ in 0..200 {
            self.tick()?;
        }
        Ok(principal)
    }

    /// Runs `group` writes to a batch, and prints what each cost on every node.
    fn phase(
        &mut self,
        name: &str,
        count: usize,
        group: usize,
        mut request: impl FnMut(usize) -> Result<WriteRequest, Failure>,
    ) -> Result<(), Failure> {
        for node in &mut self.nodes {
            node.cpu = [0; 2];
        }
        self.done = 0;
        let signed = |lab: &Self| lab.nodes.first().map_or(0, |node| node.replica.counters().ops_signed);
        let before = signed(self);
        let mut index = 0;
        while index < count {
            // The server parses on its own threads.
            let end = count.min(index + group);
            let requests = (index..end).map(&mut request).collect::<Result<Vec<_>, _>>()?;
            index = end;
            let mut effects = Vec::new();
            let began = cpu_nanos();
            for request in requests {
                self.ticket += 1;
                // Clients name their requests, so that they can send them again.
                let name = blake3::hash(&self.ticket.to_le_bytes()).into();
                let request = WriteRequest { request: Some(RequestId::new(name)), ..request };
                let write = Input::Write { ticket: self.ticket, request };
                self.nodes[0].replica.step(self.now, write, &mut effects);
            }
            self.nodes[0].cpu[0] += cpu_nanos() - began;
            self.carry_out(0, effects)?;
            self.settle()?;
            self.now.monotonic_ms += 1;
            self.now.wall_ms += 1;
        }
        print!("{name:<48} {:>6} done {:>6} ops", self.done, signed(self) - before);
        for (index, node) in self.nodes.iter().enumerate() {
            let [core, commit] = node.cpu.map(|nanos| nanos as f64 / 1_000.0 / count as f64);
            print!("   n{index}: core {core:>6.1} µs, commit {commit:>5.1} µs");
        }
        println!();
        Ok(())
    }
}

fn request(id: usize, json: &str, format: EditFormat, precondition: Precondition) -> Result<WriteRequest, Failure> {
    let item = WriteItem {
        doc: format!("{:016x}-doc", id.wrapping_mul(0x9e37_79b9_7f4a_7c15)).parse()?,
        write: DocWrite::Edit(Edit::parse(format, json.as_bytes())?),
        precondition,
        base: None,
        bytes: json.len(),
    };
    let (limits, items) = (WriteLimits::none(), vec![item]);
    Ok(WriteRequest { collection: "bench".parse()?, principal: None, request: None, limits, items })
}

/// About 200 bytes.
fn document(id: usize) -> String {
    format!(
        r#"{{"name":"Grenoble {id}, capital of the Alps","country":"FR","population":{id},"lat":45.171546,"tags":["city","alps"],"note":"a string that makes the document about as long as a usual one is in such a database"}}"#
    )
}

fn store(kind: &str, dir: &std::path::Path, name: &str) -> Result<Arc<dyn Store>, Failure> {
    Ok(match kind {
        "fjall" => Arc::new(FjallStore::open(&dir.join(name), FjallOptions::default())?),
        _ => Arc::new(MemoryStore::new()),
    })
}

fn lab(kind: &str, dir: &std::path::Path, peers: u8) -> Result<Lab, Failure> {
    let now = Now { monotonic_ms: 1_700_000_000_000, wall_ms: 1_700_000_000_000 };
    let (owner, node) = (SecretKey::from_seed(&[100; 32]), SecretKey::from_seed(&[1; 32]));
    let founding = Founding {
        name: "bench",
        node_name: "n0",
        labels: Vec::new(),
        owner: &owner,
        node: &node,
        recovery: Vec::new(),
    };
    let founded = found_cluster(founding, now.wall_ms, &[9; 32])?;
    let cluster = founded.cluster;
    let identity =
        Identity { node, owner: Some(owner), cluster, certificate: founded.certificate, principal: founded.principal };
    let mut lab = Lab { nodes: Vec::new(), wire: VecDeque::new(), now, ticket: 0, done: 0, admitted: None };
    lab.open(identity, store(kind, dir, "n0")?, 256 << 20, founded.ops)?;
    lab.settle()?;
    for index in 1..=peers {
        let node = SecretKey::from_seed(&[1 + index; 32]);
        let request = ActRequest::Admit {
            key: node.author(),
            name: format!("n{index}"),
            labels: Vec::new(),
            role: BuiltInRole::Editor,
        };
        lab.ticket += 1;
        lab.step(0, Input::Act { ticket: lab.ticket, signer: Signer::Node, request })?;
        lab.settle()?;
        let certificate = lab.admitted.take().ok_or("the node was not admitted")?;
        let identity = Identity { node, owner: None, cluster, certificate, principal: PrincipalId::from(certificate) };
        let control = lab.control_ops()?;
        lab.open(identity, store(kind, dir, &format!("n{index}"))?, 256 << 20, control)?;
        lab.settle()?;
        for (a, b) in [(0, usize::from(index)), (usize::from(index), 0)] {
            let peer = lab.nodes[b].identity.node.author();
            lab.step(a, Input::Net(NetInput::PeerUp { peer }))?;
        }
        for _ in 0..200 {
            lab.tick()?;
        }
    }
    Ok(lab)
}

fn measure(count: usize, group: usize, kind: &str, only: Option<&str>) -> Result<(), Failure> {
    let dir = std::env::temp_dir().join(format!("folkmoot-replica-cost-{}", std::process::id()));
    for peers in [0, 1] {
        let dir = dir.join(peers.to_string());
        std::fs::create_dir_all(&dir)?;
        let mut lab = lab(kind, &dir, peers)?;
        let named = |phase: &str| {
            let place = if peers == 0 { "local" } else { "replicated" };
            format!("{place} {phase}")
        };
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        let create = |id: usize| request(id, &document(id), EditFormat::Document, Precondition::Absent);
        let patch = |id: usize, value: usize| {
            let json = format!(r#"{{"population":{value}}}"#);
            request(id, &json, EditFormat::MergePatch, Precondition::None)
        };
        let mut base = 0;
        loop {
            if wanted(&named("create")) || base == 0 {
                lab.phase(&named("create"), count, group, |index| create(base + index))?;
            }
            // The last ones written are loaded for sure; the first edit builds the documents.
            let hot = count.min(1_000);
            for (round, name) in ["first update", "update, loaded"].into_iter().enumerate() {
                if wanted(&named(name)) {
                    let times = if round == 0 { hot } else { count };
                    lab.phase(&named(name), times, group, |index| {
                        patch(base + count - hot + index % hot, (round + 2) * 1_000_000 + index)
                    })?;
                }
            }
            if wanted(&named("update, not loaded")) {
                // A cache too small for anything.
                for node in std::mem::take(&mut lab.nodes) {
                    drop(node.replica);
                    lab.open(node.identity, node.store, 1, Vec::new())?;
                }
                for (a, b) in [(0, 1), (1, 0)] {
                    if let Some(peer) = lab.nodes.get(b).map(|node| node.identity.node.author())
                        && peers > 0
                    {
                        lab.step(a, Input::Net(NetInput::PeerUp { peer }))?;
                    }
                }
                for _ in 0..200 {
                    lab.tick()?;
                }
                lab.phase(&named("update, not loaded"), count - hot, group, |index| patch(base + index, 1_000_000))?;
            }
            base += count;
            if !only.is_some_and(|only| only.starts_with(if peers == 0 { "local" } else { "replicated" })) {
                break;
            }
        }
        for (user, fields) in
            [("a user", Fields::All), ("a user without a field", Fields::Except(FieldPaths::of(["/salary".parse()?])))]
        {
            if only.is_some() {
                break;
            }
            let principal = Some(lab.user(user, fields)?);
            let hot = count.min(1_000);
            lab.phase(&named(&format!("create, {user}")), count, group, |index| {
                Ok(WriteRequest { principal, ..create(base + index)? })
            })?;
            for round in 0..2 {
                let what = if round == 0 { "first update" } else { "update" };
                let times = if round == 0 { hot } else { count };
                lab.phase(&named(&format!("{what}, {user}")), times, group, |index| {
                    let patch = patch(base + count - hot + index % hot, (round + 2) * 1_000_000 + index)?;
                    Ok(WriteRequest { principal, ..patch })
                })?;
            }
            base += count;
        }
        drop(lab);
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let count = args.next().map_or(Ok(20_000), |text| text.parse())?;
    let group = args.next().map_or(Ok(32), |text| text.parse())?;
    let kind = args.next().unwrap_or_else(|| "memory".to_owned());
    let only = args.next();
    let work = move || measure(count, group, &kind, only.as_deref());
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?;
    thread.join().map_err(|_| "the measuring thread panicked")?
}
