//! A node of the simulated world: a real replica, a disk, a clock of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use folkmoot_core::id::{AuthorKey, ClusterId, OpId, PrincipalId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{
    Act, Action, BuiltInRole, Collection, FieldPaths, Fields, Grant, Join, Op, Principal, PrincipalKind, Rank, Role,
    RoleRevision, Target,
};
use folkmoot_core::replica::{
    ActRequest, BatchId, Effect, Founding, Identity, Input, Now, Replica, ReplicaConfig, Signer, TxRef,
    WAITING_OF_AUTHOR_MAX, found_cluster,
};
use folkmoot_core::replication::limits;
use folkmoot_core::store::keys::{Key as _, OpKey};
use folkmoot_core::store::{Batch, Durability, Keyspace, Order, Read, Span, Store as _, envelope};

use super::clock::{Clock, EPOCH_MS};
use super::disk::Disk;
use super::random::Random;
use super::witnessing;
use super::{COLLECTION, DOCUMENT_CACHE_LARGE, SHARDED_COLLECTION};
use crate::villain::Villain;

/// How documents are given in bulk in earnest.
const BULK: (usize, u64) = (limits::DOCUMENTS_PAGE_MAX, limits::BULK_GAP_OPS);

/// A node.
pub struct Node {
    pub(super) name: String,
    pub(super) identity: Identity,
    pub(super) store: Arc<Disk>,
    /// None while the process is down.
    pub(super) replica: Option<Replica>,
    /// Instead of a replica: one that speaks the protocol and means harm.
    pub(super) villain: Option<Villain>,
    /// Counts starts; what was scheduled for an earlier life is void.
    pub(super) life: u64,
    /// Batches given to the disk and not yet there, oldest first.
    pub(super) disk: VecDeque<(BatchId, Batch)>,
    /// The machine's clocks.
    pub(super) clock: Clock,
    /// Bytes of documents that it keeps loaded.
    pub(super) cache_bytes: usize,
    /// Documents in a page that it gives, and ops that it may lack before it takes documents.
    pub(super) bulk: (usize, u64),
    /// Names for which it has room in memory, of each author whose transactions wait.
    pub(super) waiting_max: usize,
    /// Peers by index, with the session of the connection, as this node sees it.
    pub(super) peers: BTreeMap<usize, u64>,
    pub(super) pump_due: bool,
    pub(super) tick_at: Option<u64>,
    /// An old copy of the data directory.
    pub(super) backup: Option<Disk>,
    /// The bytes that the current life was seeded with.
    pub(super) seed: [u8; 32],
    pub(super) fail_next_commit: bool,
    /// The batch whose commit failed: the next start may find it on the disk.
    pub(super) failed: Option<Batch>,
    /// Writes that it acknowledged and whose loss nothing excuses.
    pub(super) acknowledged: Vec<TxRef>,
}

impl Node {
    pub(super) fn new(name: String, identity: Identity, store: Arc<Disk>, clock: Clock) -> Self {
        Self {
            name,
            identity,
            store,
            replica: None,
            villain: None,
            life: 0,
            disk: VecDeque::new(),
            clock,
            cache_bytes: DOCUMENT_CACHE_LARGE,
            bulk: BULK,
            waiting_max: WAITING_OF_AUTHOR_MAX,
            peers: BTreeMap::new(),
            pump_due: false,
            tick_at: None,
            backup: None,
            seed: [0; 32],
            fail_next_commit: false,
            failed: None,
            acknowledged: Vec::new(),
        }
    }

    /// Returns the node's key.
    pub(super) fn author(&self) -> AuthorKey {
        self.identity.node.author()
    }

    /// Returns the time as this node measures it.
    pub(super) fn now(&self, elapsed_ms: u64) -> Now {
        self.clock.now(elapsed_ms)
    }
}

/// The stored ops of a world, each decoded once: every node has each of them.
pub(super) struct Ops {
    cluster: ClusterId,
    decoded: RefCell<HashMap<bytes::Bytes, Arc<Op>>>,
}

impl Ops {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self { cluster, decoded: RefCell::default() }
    }

    /// Decodes a stored op.
    pub(super) fn decode(&self, value: &bytes::Bytes) -> Option<Arc<Op>> {
        if let Some(op) = self.decoded.borrow().get(value) {
            return Some(op.clone());
        }
        let op = Arc::new(Op::decode(&envelope::open(value.clone()).ok()?, self.cluster).ok()?);
        self.decoded.borrow_mut().insert(value.clone(), op.clone());
        Some(op)
    }

    /// Returns every op of a store, branches included, with whether it lies on the main chain.
    pub(super) fn all(&self, store: &dyn Read) -> Vec<(bool, Arc<Op>)> {
        let entries = store.scan(Keyspace::Ops, &Span::all(), Order::Ascending).filter_map(Result::ok);
        entries
            .filter_map(|(key, value)| Some((OpKey::decode(&key).ok()?.branch.is_none(), self.decode(&value)?)))
            .collect()
    }

    /// Returns whether a store has an op, on whichever branch.
    pub(super) fn holds(&self, store: &dyn Read, tx: &TxRef) -> bool {
        let main = OpKey::new(tx.stream, tx.seq);
        let branch = OpKey { branch: Some(tx.op), ..main };
        [main, branch].iter().any(|key| {
            let value = store.get(Keyspace::Ops, &key.encode()).ok().flatten();
            value.and_then(|value| self.decode(&value)).is_some_and(|found| found.id() == tx.op)
        })
    }
}

/// Documents of the simulator do not become long; they roll over all the same.
const LONG_HISTORY: usize = 16;

pub(super) fn config(document_cache_bytes: usize, bulk: (usize, u64), waiting_of_author_max: usize) -> ReplicaConfig {
    let (bulk_page_documents, bulk_gap_ops) = bulk;
    ReplicaConfig {
        document_cache_bytes,
        bulk_page_documents,
        bulk_gap_ops,
        long_history: LONG_HISTORY,
        waiting_of_author_max,
        ..ReplicaConfig::default()
    }
}

/// Opens a replica and commits all that it wants to at once; returns what its acts made.
pub(super) fn settle(replica: &mut Replica, store: &Disk, now: Now, input: Option<Input>) -> Vec<OpId> {
    let mut effects = Vec::new();
    let mut made = Vec::new();
    if let Some(input) = input {
        replica.step(now, input, &mut effects);
    }
    loop {
        let more = replica.work(now, 64, &mut effects);
        replica.flush(now, &mut effects);
        if effects.is_empty() && !more {
            return made;
        }
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Commit { id, batch, .. } => {
                    store.commit(&batch, Durability::Synced).expect("memory");
                    replica.step(now, Input::Committed(id), &mut effects);
                }
                Effect::ActDone { result, .. } => made.push(result.expect("an admin may do this").op),
                _ => {}
            }
        }
    }
}

/// What a principal is given that may write everywhere.
fn editor(principal: PrincipalId, role: Role) -> Act {
    editor_of(principal, role, Fields::All)
}

fn editor_of(principal: PrincipalId, role: Role, fields: Fields) -> Act {
    let target = Target { fields, ..Target::everything() };
    Act::Grant(Grant { principal, role, target, rank: Rank::USER, not_after: None })
}

/// What the principal of this number is given again after it was removed.
pub(super) fn given_again(principal: PrincipalId, which: usize) -> Act {
    let fields = if which == LIMITED { limit() } else { Fields::All };
    editor_of(principal, Role::BuiltIn(BuiltInRole::Editor), fields)
}

/// The principal that may not touch all fields.
pub(super) const LIMITED: usize = 2;

/// The fields that it may touch: some that clients write it may not, and one below an object.
pub(super) fn limit() -> Fields {
    Fields::Except(FieldPaths::of(["/n", "/b", "/o/k1"].map(|path| path.parse().expect("a field"))))
}

/// Makes three principals for which every node writes: one has a grant, one has a role of the cluster's own through a group, and
/// one has a grant on some fields only.
fn serve(act: &mut dyn FnMut(Act) -> OpId) -> Vec<PrincipalId> {
    let mut introduce = |name: &str, kind, attest| {
        PrincipalId::from(act(Act::Principal(Principal { name: name.to_owned(), kind, attest, rank: Rank::USER })))
    };
    let ann = introduce("ann", PrincipalKind::User, true);
    let bob = introduce("bob", PrincipalKind::User, true);
    let cyd = introduce("cyd", PrincipalKind::User, true);
    let group = introduce("clerks", PrincipalKind::Group, false);
    act(editor(ann, Role::BuiltIn(BuiltInRole::Editor)));
    let actions = [Action::Read, Action::Create, Action::Update, Action::Delete].into_iter().collect();
    let own_actions = folkmoot_core::op::Actions::NONE;
    let role = act(Act::Role(RoleRevision { name: "clerk".to_owned(), actions, own_actions, rank: Rank::NODE }));
    act(editor(group, Role::Custom(role)));
    act(Act::Join(Join { principal: bob, group, rank: Rank::USER, not_after: None }));
    act(editor_of(cyd, Role::BuiltIn(BuiltInRole::Editor), limit()));
    vec![ann, bob, cyd]
}

/// Founds a cluster of `count` nodes, none of them running yet; the second one is an admin too. Returns also the principals
/// for which they write.
pub(super) fn found(
    count: usize,
    is_sealed: bool,
    has_witnesses: bool,
    random: &mut Random,
) -> (Vec<Node>, Vec<PrincipalId>) {
    let now = Now { monotonic_ms: EPOCH_MS, wall_ms: EPOCH_MS };
    let owner = SecretKey::from_seed(&random.seed());
    let key = SecretKey::from_seed(&random.seed());
    let founding =
        Founding { name: "sim", node_name: "n0", labels: Vec::new(), owner: &owner, node: &key, recovery: Vec::new() };
    let founded = found_cluster(founding, now.wall_ms, &random.seed()).expect("a small cluster");
    let identity = Identity {
        node: key,
        owner: Some(owner),
        cluster: founded.cluster,
        certificate: founded.certificate,
        principal: founded.principal,
    };
    let store = Arc::new(Disk::new(is_sealed, random));
    let mut first = Replica::open(
        config(DOCUMENT_CACHE_LARGE, BULK, WAITING_OF_AUTHOR_MAX),
        identity.clone(),
        store.clone(),
        &random.seed(),
        now,
    )
    .expect("an empty store");
    first.seed_control(founded.ops);
    settle(&mut first, &store, now, None);
    for (name, shards) in [(COLLECTION, 1), (SHARDED_COLLECTION, 4)] {
        let name = name.parse().expect("a good name");
        let act = Act::Collection(Collection {
            name,
            shards,
            types: Vec::new(),
            dropped: false,
            audit_reads: false,
            indexes: vec![],
            schema: None,
            expires: None,
            unique: vec![],
        });
        let input = Input::Act { ticket: 0, signer: Signer::Node, request: ActRequest::One(act) };
        settle(&mut first, &store, now, Some(input));
    }
    let served = serve(&mut |act| {
        let input = Input::Act { ticket: 0, signer: Signer::Node, request: ActRequest::One(act) };
        *settle(&mut first, &store, now, Some(input)).first().expect("one act")
    });
    let mut nodes = vec![Node::new("n0".to_owned(), identity.clone(), store.clone(), Clock::draw(random))];
    for index in 1..count {
        let key = SecretKey::from_seed(&random.seed());
        let role = if index == 1 { BuiltInRole::Admin } else { BuiltInRole::Editor };
        let name = format!("n{index}");
        let request = ActRequest::Admit { key: key.author(), name: name.clone(), labels: Vec::new(), role };
        let input = Input::Act { ticket: 0, signer: Signer::Owner, request };
        let certificate = *settle(&mut first, &store, now, Some(input)).first().expect("one act");
        let identity = Identity {
            node: key,
            owner: None,
            cluster: identity.cluster,
            certificate,
            principal: PrincipalId::from(certificate),
        };
        nodes.push(Node::new(name, identity, Arc::new(Disk::new(is_sealed, random)), Clock::draw(random)));
    }
    if has_witnesses {
        witnessing::appoint(&mut first, &store, now, &nodes);
    }
    let ops = Ops::new(identity.cluster).all(&*store);
    let mut control: Vec<Op> = ops.into_iter().map(|(_, op)| Op::clone(&op)).collect();
    control.sort_by_key(|op| (op.header().hlc, op.header().seq));
    for node in nodes.iter_mut().skip(1) {
        let mut replica = Replica::open(
            config(DOCUMENT_CACHE_LARGE, BULK, WAITING_OF_AUTHOR_MAX),
            node.identity.clone(),
            node.store.clone(),
            &random.seed(),
            now,
        )
        .expect("an empty store");
        replica.seed_control(control.clone());
        settle(&mut replica, &node.store, now, None);
    }
    (nodes, served)
}
