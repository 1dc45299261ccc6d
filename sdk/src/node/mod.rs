//! The embedded node: a replica, its store and its network in this process.

mod access;
mod approvals;
mod asked;
mod audit;
mod authors;
mod bootstraps;
mod config;
mod convert;
mod core_thread;
mod database;
mod directory;
mod erasure;
mod feed;
mod history;
mod indexer;
mod invites;
mod join;
mod key_file;
mod keys;
mod maintenance;
mod network;
mod oidc;
mod outbox;
mod owner_keys;
mod password;
mod peppers;
mod query;
mod quota;
mod read;
mod rotation;
mod schema;
mod scoped;
mod scrubber;
mod session;
mod state;
mod tail;
mod token;
mod unique;
mod unlock;
mod warden;
mod whereabouts;
mod withhold;
mod witness;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use folkmoot_core::audit::{AuditAction, AuditDecision, Event};
use folkmoot_core::id::AuthorKey;
use folkmoot_core::keys::SecretKey;
use folkmoot_core::replica::{Founding, Identity, Reader, Replica, ReplicaConfig, found_cluster};
use folkmoot_core::schema::SchemaCache;
use folkmoot_core::store::sealed::SealedStore;
use folkmoot_core::store::watermark::{Lost, Mark, Recorded, Standing, WatermarkFile};
use folkmoot_core::store::{Durability, FjallOptions, Store};
use folkmoot_net::{NetHandle, Network, NetworkConfig};

pub use audit::{AuditChecked, Origin};
use config::random;
pub use folkmoot_core::audit::Retention;
pub use folkmoot_core::store::OpenError as StoreOpenError;
pub use folkmoot_net::{Discovery, HAS_QUIC, Multiaddr, Protocol};

pub use maintenance::{MendReport, MissingOps, RejoinOptions, RepairOptions};

pub use crate::recovery::RecoveryKey;
pub use config::{
    ClaimGrant, DirectoryError, InitOptions, JoinOptions, KeySettings, KeySource, NodeConfig, OidcIssuer, OpenError,
    Secret, UnlockError,
};
use core_thread::{Clock, Command, CoreHandle};
use directory::{ClusterRecord, Directory, OpenStore};
use invites::Invites;
pub use join::Joined;
pub use key_file::{KeyFile, KeyFileError};
pub use oidc::is_web_token;
use outbox::Outbox;
pub use owner_keys::NewKey;
pub use quota::Quotas;
pub use scoped::Scoped;
use unlock::MASTER_KEY_FILE;
use whereabouts::Whereabouts;

/// How long a bound socket may take to tell its address; usually it is some milliseconds.
const LISTEN_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// How often it is asked meanwhile.
const LISTEN_POLL: std::time::Duration = std::time::Duration::from_millis(2);

/// An embedded node. Clones are handles to the same node, which runs until [`Node::shutdown`] or the end of its runtime.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: NodeConfig,
    directory: Directory,
    record: ClusterRecord,
    node_key: SecretKey,
    core: CoreHandle,
    reader: Reader,
    /// How far the shards are, for tokens of sessions.
    published: Arc<session::Published>,
    /// The end of the feed, for those who wait there.
    tail: tail::Tail,
    store: Arc<dyn Store>,
    /// The same, if it is sealed.
    sealed: Option<SealedStore>,
    outbox: Arc<Outbox>,
    net: OnceLock<NetHandle>,
    member_keys: Mutex<BTreeSet<AuthorKey>>,
    blocked: Mutex<BTreeSet<AuthorKey>>,
    invites: Mutex<Invites>,
    passwords: password::Passwords,
    peppers: peppers::Peppers,
    oidc: oidc::Oidc,
    made: quota::Made,
    /// Turns of queries.
    queries: Arc<tokio::sync::Semaphore>,
    indexes: Arc<folkmoot_core::query::Indexes>,
    /// Schemas ready for use, for what is listed; the replica has its own.
    schemas: Arc<Mutex<SchemaCache>>,
    audit: audit::Recorder,
    whereabouts: Mutex<Whereabouts>,
    /// Requests to join that are being answered.
    joins: std::sync::atomic::AtomicUsize,
    started: crate::api::Timestamp,
    /// What the watermark said was missing at the start.
    loss: Loss,
    /// Whether the control log has changed since it was last copied.
    control_changed: std::sync::atomic::AtomicBool,
    /// Keeps other processes away from the directory.
    _held: std::fs::File,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("data_dir", &self.inner.config.data_dir).finish_non_exhaustive()
    }
}

impl Node {
    /// Returns whether the directory holds no cluster yet.
    #[must_use]
    pub fn is_new(data_dir: &Path) -> bool {
        Directory::new(data_dir).is_empty()
    }

    /// Founds a cluster in a new data directory: owner key, node key, first bearer token, first ops. Returns the recovery
    /// key, which lies in the directory until [`Self::confirm_recovery`] says that it is put away elsewhere.
    ///
    /// # Errors
    /// [`OpenError`], among others if there is a cluster in the directory already.
    pub fn init(data_dir: &Path, options: &InitOptions) -> Result<RecoveryKey, OpenError> {
        let mut directory = Directory::new(data_dir);
        if !directory.is_empty() {
            return Err(DirectoryError::Taken(data_dir.to_owned()).into());
        }
        directory.create()?;
        directory.seal(&options.keys)?;
        let owner = SecretKey::from_seed(&random()?);
        let node = SecretKey::from_seed(&random()?);
        let recovery = RecoveryKey::from_seed(&random()?);
        let founded = found_cluster(
            Founding {
                name: &options.cluster_name,
                node_name: &options.node_name,
                labels: options.labels.clone(),
                owner: &owner,
                node: &node,
                recovery: vec![*recovery.hash().as_bytes()],
            },
            core_thread::wall_ms(),
            &random()?,
        )
        .map_err(OpenError::Found)?;
        directory.write_owner_key(&owner)?;
        directory.write_node_key(&node)?;
        directory.write_recovery_key(&recovery)?;
        directory.write_token(&random()?)?;
        let identity = Identity {
            node,
            owner: Some(owner),
            cluster: founded.cluster,
            certificate: founded.certificate,
            principal: founded.principal,
        };
        join::begin_store(&directory, identity, founded.ops)?;
        directory.write_cluster(&ClusterRecord {
            cluster: founded.cluster,
            name: options.cluster_name.clone(),
            node_name: options.node_name.clone(),
            certificate: founded.certificate,
            principal: founded.principal,
            sealed: directory.is_sealed(),
            earlier_keys: Vec::new(),
            peers: Vec::new(),
        })?;
        Ok(recovery)
    }

    /// Joins a cluster with a ticket from `folkmoot invite`: makes a data directory with which a node can be opened. Where several
    /// owners have to agree on it, the others let the node in when they have ([`Joined::awaits`]); it may run before.
    ///
    /// # Errors
    /// [`OpenError`], among others if the inviter cannot be reached or refuses.
    pub async fn join(data_dir: &Path, ticket: &str, options: JoinOptions) -> Result<Joined, OpenError> {
        join::join(data_dir, ticket, options).await
    }

    /// Checks a data directory on which no node runs: whether its store opens, everything that is in it, and whether it
    /// reaches as far as it did when the node last wrote. Of a running node [`crate::Database::verify`] checks as much.
    ///
    /// # Errors
    /// [`OpenError`] if it cannot be checked, as when a node runs on it. Damage is no error but in the report.
    pub fn verify_directory(data_dir: &Path, keys: &KeySettings) -> Result<crate::api::VerifyReport, OpenError> {
        maintenance::verify(data_dir, keys)
    }

    /// Seals the keyring of a data directory on which no node runs under another master key. `keys` is how it is unlocked now,
    /// `to` how it will be; a master key in a file that is there already is taken as it is.
    ///
    /// # Errors
    /// [`OpenError`]; the directory is as it was.
    pub fn rekey(data_dir: &Path, keys: &KeySettings, to: &KeySettings) -> Result<(), OpenError> {
        keys::rekey(data_dir, keys, to)
    }

    /// Makes the store of a data directory again of every op that can be read of it, and of others that are named. What is
    /// missing comes from peers when the node runs; ops behind a gap are kept until then. The old store is set aside.
    /// `progress` is told how many ops there are so far.
    ///
    /// # Errors
    /// [`OpenError`], as when a node runs on the directory; then it is as it was.
    pub fn repair(
        data_dir: &Path,
        options: &RepairOptions,
        progress: impl FnMut(u64) + Send,
    ) -> Result<MendReport, OpenError> {
        maintenance::repair(data_dir, options, progress)
    }

    /// Sets the store aside and begins an empty one: the node keeps its identity and, as far as they can be read, the
    /// control log and what was signed here; it takes everything else from peers when it runs.
    ///
    /// # Errors
    /// [`OpenError`], as when a node runs on the directory or no peer is known; then it is as it was.
    pub async fn rejoin(
        data_dir: &Path,
        options: &RejoinOptions,
        progress: impl FnMut(u64) + Send,
    ) -> Result<MendReport, OpenError> {
        maintenance::rejoin(data_dir, options, progress).await
    }

    /// Opens the node of a data directory and starts it: from here on it replicates. Must be called within a tokio
    /// runtime, on which its tasks run.
    ///
    /// # Errors
    /// [`OpenError`], by what is wrong.
    pub async fn open(config: NodeConfig) -> Result<Self, OpenError> {
        let mut directory = Directory::new(&config.data_dir);
        let mut record = directory.cluster()?;
        let held = directory.lock()?;
        directory.settle_replacement()?;
        if !directory.store().exists() {
            // An empty one in its place would be a node that knows nothing, not even its cluster.
            return Err(DirectoryError::NoStore(config.data_dir.clone()).into());
        }
        let options = FjallOptions {
            cache_bytes: config.block_cache_bytes,
            journal_bytes: config.journal_bytes,
            ..FjallOptions::default()
        };
        let (keys, sealed) = (config.keys.clone(), record.clone());
        // Opening replays the journal, and a passphrase is slow to be tried: seconds at worst, not for a thread of the runtime.
        let opening = move || {
            directory.unlock(&sealed, &keys)?;
            let opened = directory.open_store(&directory.store(), options)?;
            Ok::<_, OpenError>((directory, opened))
        };
        let opened = tokio::task::spawn_blocking(opening).await;
        let (directory, OpenStore { store, sealed }) =
            opened.map_err(|error| OpenError::Thread(std::io::Error::other(error)))??;
        directory.settle_rotation(&record)?;
        let clock = Clock::start();
        let mut replica = open_replica(&config, &directory, &record, &store, clock)?;
        if rotation::take_up(&directory, &mut record, replica.authority())? {
            replica = open_replica(&config, &directory, &record, &store, clock)?;
        }
        let node_key = directory.node_key()?;
        if replica.authority().is_certified(record.certificate, node_key.author()) == Some(false) {
            return Err(OpenError::OtherKey);
        }
        let invites = Invites::open(&directory, |key| {
            let now = folkmoot_core::hlc::Hlc::new(core_thread::wall_ms(), 0);
            replica.authority().is_member(key, now) || replica.admission_that_waits(key).is_some()
        })?;
        let (watermark, loss) = open_watermark(&directory, &replica)?;
        let reader = Reader::of(&replica);
        let feed = reader.feed_end().unwrap_or(0);
        let published = session::Published::of(&mut replica, feed);
        let outbox = Arc::new(Outbox::default());
        let (indexer, wishes) = indexer::IndexerHandle::new();
        let start = core_thread::Start {
            replica,
            store: store.clone(),
            watermark,
            outbox: outbox.clone(),
            clock,
            seed: Vec::new(),
            feed,
            indexer,
            published: published.clone(),
        };
        let passwords = password::Passwords::new()?;
        let oidc = oidc::Oidc::new(&config.oidc)?;
        let made = quota::Made::new(&config.quotas);
        let (recorder, messages) = audit::Recorder::new(clock);
        let (core, notices, thread) = core_thread::spawn(start).map_err(OpenError::Thread)?;
        let mut net_config = NetworkConfig::new(node_key.clone(), record.cluster);
        net_config.listen = config.p2p_listen.clone();
        net_config.external = config.p2p_external.clone();
        net_config.discovery = config.discovery;
        net_config.bootstrap = config.bootstrap.iter().map(|address| (None, address.clone())).collect();
        for peer in &record.peers {
            if let Ok(address) = peer.address.parse() {
                net_config.bootstrap.push((Some(peer.key), address));
            }
        }
        if !record.earlier_keys.is_empty() {
            // Others look for the key before at this node's address, and may have another one themselves: whichever member is where
            // one was is to be found from here.
            let known = record.peers.iter().cloned().chain(directory.peers().unwrap_or_default());
            let addresses: BTreeSet<String> = known.map(|peer| peer.address).collect();
            net_config.bootstrap.extend(addresses.iter().filter_map(|address| Some((None, address.parse().ok()?))));
        }
        let (net, events) = Network::start(net_config)?;
        outbox.connect(net.clone());
        let inner = Arc::new(Inner {
            config,
            directory,
            record,
            node_key,
            core,
            reader,
            published,
            tail: tail::Tail::new(feed),
            store: store.clone(),
            sealed,
            outbox,
            net: OnceLock::from(net.clone()),
            member_keys: Mutex::default(),
            blocked: Mutex::default(),
            invites: Mutex::new(invites),
            passwords,
            peppers: peppers::Peppers::default(),
            oidc,
            made,
            queries: Arc::new(tokio::sync::Semaphore::new(query::AT_ONCE)),
            indexes: Arc::new(folkmoot_core::query::Indexes::new(store.clone())),
            schemas: Arc::default(),
            audit: recorder,
            whereabouts: Mutex::default(),
            joins: std::sync::atomic::AtomicUsize::new(0),
            started: crate::api::Timestamp::now(),
            loss,
            control_changed: std::sync::atomic::AtomicBool::new(true),
            _held: held,
            tasks: Mutex::default(),
            thread: Mutex::new(Some(thread)),
        });
        inner.note_start();
        let opened = inner.clone();
        let keeper = tokio::task::spawn_blocking(move || audit::Keeper::open(&opened))
            .await
            .map_err(|error| OpenError::Thread(std::io::Error::other(error)))?
            .map_err(OpenError::Audit)?;
        std::thread::Builder::new()
            .name("folkmoot-audit".into())
            .spawn(move || keeper.run(&messages))
            .map_err(OpenError::Thread)?;
        let mut tasks = vec![
            tokio::spawn(inner.clone().pump_events(net.clone(), events)),
            tokio::spawn(inner.clone().pump_notices(net, notices)),
            tokio::spawn(inner.clone().watch_door()),
            tokio::spawn(inner.clone().tell_metrics()),
            tokio::spawn(inner.clone().rewrap_keys()),
            tokio::spawn(inner.clone().close_ended()),
            tokio::spawn(inner.clone().keep_peppers_shared()),
            tokio::spawn(inner.clone().retire_keys()),
            tokio::spawn(inner.clone().watch_marks()),
            tokio::spawn(inner.clone().keep_indexes(wishes)),
            tokio::spawn(inner.clone().keep_tail()),
        ];
        tasks.extend(inner.oidc.begin());
        *lock(&inner.tasks) = tasks;
        inner.wait_for_addresses().await;
        Ok(Self { inner })
    }

    /// Ends the node: what was acknowledged is on the disk already, what waits is committed, peers are told.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        if let Some(net) = inner.net.get() {
            net.shutdown().await;
        }
        inner.note(Event::new(AuditAction::Stop, AuditDecision::Allowed));
        inner.audit.stop().await;
        // An error means that the thread has ended already.
        let _ = inner.core.send(Command::Stop).await;
        let thread = lock(&inner.thread).take();
        if let Some(thread) = thread {
            // The thread's own panic was reported by its hook.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        let tasks: Vec<_> = lock(&inner.tasks).drain(..).collect();
        for task in &tasks {
            task.abort();
        }
        // Each holds the node, and with it the directory.
        for task in tasks {
            let _ = task.await;
        }
    }

    /// Returns once the node cannot persist any more, with the reason: the process should end and be started again.
    pub async fn halted(&self) -> String {
        let mut halted = self.inner.core.halted.clone();
        match halted.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the node's thread has ended".to_owned(),
        }
    }

    /// Returns the node's key.
    #[must_use]
    pub fn key(&self) -> AuthorKey {
        self.inner.node_key.author()
    }

    /// Returns the addresses at which other nodes reach this one, each with the node's peer id at its end.
    #[must_use]
    pub fn p2p_addresses(&self) -> Vec<String> {
        self.inner.p2p_addresses()
    }

    /// Looks for another member at an address, now and whenever none is known to be there.
    ///
    /// # Errors
    /// The address in words, if there are too many already.
    pub fn dial(&self, address: &Multiaddr) -> Result<(), String> {
        let Some(net) = self.inner.net.get() else { return Err("the network is not up".to_owned()) };
        net.dial(address).map_err(|error| error.to_string())
    }
}

impl Inner {
    /// Records what the node is started with, and what was wrong with its store.
    fn note_start(&self) {
        let program = format!("folkmoot {}", env!("CARGO_PKG_VERSION"));
        self.note(Event::new(AuditAction::Start, AuditDecision::Allowed).about(program));
        let keys =
            if self.directory.owner_key().is_ok_and(|key| key.is_some()) { "owner.key, node.key" } else { "node.key" };
        self.note(Event::new(AuditAction::LoadKeys, AuditDecision::Allowed).about(keys));
        for lost in self.loss.streams.iter().map(lost_text).chain(self.loss.notes.iter().cloned()) {
            self.note(Event::new(AuditAction::Damage, AuditDecision::Failed).because(lost));
        }
    }

    /// Waits until the sockets for other nodes, which are bound, are known by their addresses: who asks an open node for
    /// them must not be told that there are none.
    async fn wait_for_addresses(&self) {
        let Some(net) = self.net.get() else { return };
        let known = async {
            while net.listen_addrs().len() < self.config.p2p_listen.len() {
                tokio::time::sleep(LISTEN_POLL).await;
            }
        };
        if tokio::time::timeout(LISTEN_TIME_MAX, known).await.is_err() {
            tracing::warn!("the addresses for other nodes are not known yet");
        }
    }

    fn p2p_addresses(&self) -> Vec<String> {
        let Some(net) = self.net.get() else { return Vec::new() };
        let peer = folkmoot_net::identity::peer_id(&self.node_key.author());
        let addresses = self.config.p2p_external.iter().cloned().chain(net.listen_addrs());
        addresses
            .map(|address| match &peer {
                Some(peer) => format!("{address}/p2p/{peer}"),
                None => address.to_string(),
            })
            .collect()
    }
}

/// What these mutexes guard is whole between any two statements, so a panic elsewhere does not damage it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the replica of a data directory over its store.
fn open_replica(
    config: &NodeConfig,
    directory: &Directory,
    record: &ClusterRecord,
    store: &Arc<dyn Store>,
    clock: Clock,
) -> Result<Replica, OpenError> {
    let identity = directory.identity(record)?;
    let settings = ReplicaConfig { document_cache_bytes: config.document_cache_bytes, ..ReplicaConfig::default() };
    Ok(Replica::open(settings, identity, store.clone(), &random()?, clock.now())?)
}

/// What the watermark said at the start.
#[derive(Debug, Default)]
struct Loss {
    /// Streams that do not reach their marks.
    streams: Vec<Lost>,
    /// What else is wrong.
    notes: Vec<String>,
}

/// Opens the watermark and compares it with the store: what it has seen and the store lacks was acknowledged and is lost
/// here. Peers give it back, and the new session of this start keeps the sequence numbers from being used twice.
fn open_watermark(directory: &Directory, replica: &Replica) -> Result<(WatermarkFile, Loss), OpenError> {
    let (file, recorded) = WatermarkFile::open(&directory.watermark(), replica.epoch(), Durability::Buffered)?;
    let mut loss = Loss::default();
    match recorded {
        Recorded::Nothing => {}
        Recorded::Damaged => loss.notes.push("the watermark file is damaged".to_owned()),
        Recorded::Marks { watermark, .. } => {
            let head = |stream: &folkmoot_core::id::StreamId| {
                Ok::<_, std::convert::Infallible>(replica.own_head(stream).map(|(seq, op)| Mark { seq, op }))
            };
            match watermark.compare(replica.epoch(), head) {
                Ok(Standing::Whole { .. }) => {}
                Ok(Standing::Lost(lost)) => loss.streams = lost,
                Ok(Standing::OtherEpoch { recorded }) => {
                    loss.notes.push(format!("the watermark belongs to another store ({recorded})"));
                }
                Err(never) => match never {},
            }
        }
    }
    if !loss.streams.is_empty() || !loss.notes.is_empty() {
        let missing: Vec<String> = loss.streams.iter().map(lost_text).chain(loss.notes.iter().cloned()).collect();
        tracing::error!(
            ?missing,
            "acknowledged writes are missing from the store; peers that have them give them back, and what no peer has may \
             still be read by `folkmoot repair`"
        );
        metrics::counter!("folkmoot_store_log_truncations_total").increment(1);
        metrics::counter!("folkmoot_alarms_total", "kind" => "log_truncated").increment(1);
    }
    Ok((file, loss))
}

/// Says what is missing of a stream.
fn lost_text(lost: &Lost) -> String {
    let found = lost.found.map_or(0, |mark| mark.seq);
    format!("stream {} ends at {found}, {} was acknowledged", lost.stream, lost.expected.seq)
}
