//! Opening a replica over its store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cache::Cache;
use super::flush::{SHARD_RECORDS, Shard, Staged};
use super::ingest::AuthorityPolicy;
use super::records::{HeadRecord, OwedRecord, ShardRecord, TxRecord};
use super::rejudge::closed_streams;
use super::types::BatchId;
use super::waits::{WAITING_OF_AUTHOR_MAX, Waits};
use super::{Counters, Identity, Now, Replica, chains, materialise};
use crate::authority::{Authority, Position, Rejudge, WrittenFor};
use crate::entropy::Entropy;
use crate::hlc::{Hlc, HlcClock};
use crate::id::{ClusterId, OpId, ShardId, StoreEpoch, StreamId};
use crate::op::Op;
use crate::op::codec;
use crate::replication::{Config as EngineConfig, Engine, ShardDigest, StoredHead, Subscription, Tip, limits};
use crate::store::keys::{Key as _, OpKey, WrittenForKey, meta};
use crate::store::{Keyspace, Order, Span, Store, StoreError, envelope};

/// What can be set of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Bytes of loaded documents kept in memory.
    pub document_cache_bytes: usize,
    /// What it holds.
    pub subscription: Subscription,
    /// Documents in one page that is given in bulk, at most [`limits::DOCUMENTS_PAGE_MAX`].
    pub bulk_page_documents: usize,
    /// A shard of which so many ops are missing is taken in bulk although something of it is here.
    pub bulk_gap_ops: u64,
    /// Changes beyond which a document is rolled over and its history is stored in parts.
    pub long_history: usize,
    /// Names that the waiting transactions of one author may have in memory: changes, acts and numbers. Ten times that in all.
    pub waiting_of_author_max: usize,
}

/// Beyond this a document's history is not loaded if it can be helped: 10 ms, a megabyte of memory, and 16 ms to write it again.
const LONG_HISTORY: usize = 4_096;

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            document_cache_bytes: 256 << 20,
            subscription: Subscription::All,
            bulk_page_documents: limits::DOCUMENTS_PAGE_MAX,
            bulk_gap_ops: limits::BULK_GAP_OPS,
            long_history: LONG_HISTORY,
            waiting_of_author_max: WAITING_OF_AUTHOR_MAX,
        }
    }
}

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store cannot be read.
    #[error("read the store")]
    Store(#[from] StoreError),
    /// A record in the store is damaged.
    #[error("a record in keyspace {keyspace} is damaged: {what}; run `folkmoot repair` or `folkmoot rejoin`")]
    Damaged {
        /// Where.
        keyspace: Keyspace,
        /// What.
        what: String,
    },
    /// The store belongs to another cluster.
    #[error("the store belongs to cluster {found}, not to {expected}")]
    OtherCluster {
        /// As the store says.
        found: ClusterId,
        /// As the identity says.
        expected: ClusterId,
    },
}

pub(super) fn damaged(keyspace: Keyspace, what: impl std::fmt::Display) -> OpenError {
    OpenError::Damaged { keyspace, what: what.to_string() }
}

impl Replica {
    /// Opens the replica that a store holds, or begins one in an empty store. `seed` is 32 fresh random bytes: a session
    /// begins with it that no earlier one shares.
    ///
    /// # Errors
    /// [`OpenError`] if the store cannot be read, is damaged, or belongs to another cluster.
    pub fn open(
        config: ReplicaConfig,
        identity: Identity,
        store: Arc<dyn Store>,
        seed: &[u8; 32],
        now: Now,
    ) -> Result<Self, OpenError> {
        let mut entropy = Entropy::new(seed);
        let session = entropy.session();
        let mut staged = Staged::default();
        let epoch = match read(&*store, Keyspace::Meta, meta::EPOCH.as_bytes())? {
            Some(bytes) => StoreEpoch::from_slice(&bytes).ok_or_else(|| damaged(Keyspace::Meta, "epoch"))?,
            None => {
                let epoch = StoreEpoch::new(entropy.bytes());
                staged.batch.put(Keyspace::Meta, meta::EPOCH, envelope::enclose(epoch.as_bytes()));
                staged.batch.put(Keyspace::Meta, meta::CLUSTER, envelope::enclose(identity.cluster.as_bytes()));
                epoch
            }
        };
        if let Some(bytes) = read(&*store, Keyspace::Meta, meta::CLUSTER.as_bytes())? {
            let found = ClusterId::from_slice(&bytes).ok_or_else(|| damaged(Keyspace::Meta, "cluster"))?;
            if found != identity.cluster {
                return Err(OpenError::OtherCluster { found, expected: identity.cluster });
            }
        }
        let heads = read_heads(&*store)?;
        let mut authority = read_authority(&*store, identity.cluster, &heads)?;
        // How far pins reach into earlier sessions is asked of the store.
        let chains = chains::StoredChains {
            store: &*store,
            undurable: &chains::Undurable::default(),
            cluster: identity.cluster,
        };
        let rejudge = authority.take_rejudge(&chains);
        let shards = read_shards(&*store)?;
        let stored = heads
            .iter()
            .map(|(stream, head)| StoredHead {
                shard: head.key.shard.clone(),
                stream: *stream,
                tip: Tip { seq: head.seq, id: head.head },
                hlc: head.hlc,
                arrival: head.arrival,
                fork: head.fork,
                earlier: head.earlier_ends().map(|(key, tip)| (key.id(), tip)).collect(),
            })
            .collect();
        let named = heads.values().flat_map(HeadRecord::earlier_ends).map(|(key, _)| (key.id(), key));
        let named = named.filter(|(stream, _)| !heads.contains_key(stream)).collect();
        let closed = closed_streams(&authority, &heads, &named);
        let engine_config = EngineConfig {
            me: identity.node.author(),
            cluster: identity.cluster,
            epoch,
            subscription: config.subscription.clone(),
            bulk_gap_ops: config.bulk_gap_ops,
            seed: u64::from_le_bytes(entropy.bytes()),
            now: now.timestamp(),
            held_bytes: store.usage().map(|usage| usage.disk_bytes).unwrap_or_default(),
        };
        let latest = heads.values().map(|head| head.hlc).max().unwrap_or(Hlc::ZERO);
        let feed = last_feed(&*store)?;
        let policy = AuthorityPolicy { authority: &authority, closed: &closed, now: Hlc::new(now.wall_ms, 0) };
        let stored: Vec<StoredHead> = stored;
        let engine = Engine::new(engine_config, stored, Vec::new(), &policy);
        let mut replica = Self {
            cache: Cache::new(config.document_cache_bytes, config.long_history),
            identity,
            epoch,
            authority,
            engine,
            clock: HlcClock::after(latest),
            entropy,
            session,
            heads,
            shards,
            undurable: chains::Undurable::default(),
            queue: materialise::Queue::default(),
            own: BTreeMap::new(),
            staged,
            in_flight: std::collections::VecDeque::new(),
            committed: BatchId(0),
            next_batch: BatchId(1),
            feed,
            ready: BTreeSet::new(),
            waits: Waits::new(config.waiting_of_author_max),
            spilled: super::spill::Spilled::default(),
            owed: BTreeSet::new(),
            rejudging: BTreeMap::new(),
            owed_stored: OwedRecord::default(),
            signed: BTreeSet::new(),
            needed_pins: BTreeMap::new(),
            asked_pins: Vec::new(),
            branches_due: true,
            swapping: BTreeSet::new(),
            now,
            wanted: BTreeMap::new(),
            asked: Vec::new(),
            settled: Vec::new(),
            closed,
            named,
            policy_changed: true,
            tx_states: BTreeMap::new(),
            halted: None,
            audit: super::audit::Audit::new(now),
            answers: super::answers::Answers::new(now),
            erasures: super::erase::Erasures::default(),
            marks: super::marks::Marks::default(),
            schemas: super::schemas::Schemas::default(),
            uniques: super::unique::Uniques::default(),
            expiries: super::expiry::Expiries::default(),
            sweep: super::expiry::Sweep::default(),
            testimony: super::witness::Testimony::default(),
            bulks: super::bulk::Bulks::new(config.bulk_page_documents),
            loose: super::import::Loose::default(),
            accused: Vec::new(),
            lacks: super::conduct::Lacks::default(),
            bans_changed: false,
            rests: 0,
            counters: Counters::default(),
            store,
        };
        replica.resume_stalled();
        for Rejudge { stream, from_seq } in rejudge {
            replica.owe_stream(stream, from_seq);
        }
        replica.resume_spilled()?;
        replica.resume_transactions()?;
        replica.resume_owed()?;
        replica.resume_bulks()?;
        replica.resume_loose()?;
        replica.resume_bans()?;
        replica.resume_erasures()?;
        replica.resume_schemas()?;
        replica.resume_marks(now)?;
        replica.resume_uniques()?;
        replica.expiries.set_now(now);
        replica.follow_expiries();
        replica.evidence_is_due();
        Ok(replica)
    }

    /// Has streams noted further whose next op named acts that were not complete: the verdict engine learns again what they
    /// wait for, or that the acts are here by now.
    fn resume_stalled(&mut self) {
        let stalled = self.heads.iter().filter(|(_, head)| !head.key.shard.is_control() && head.noted < head.seq);
        self.rejudging.extend(stalled.map(|(stream, head)| (*stream, head.noted + 1)));
    }

    /// Takes up what waited when the replica was last open.
    fn resume_transactions(&mut self) -> Result<(), OpenError> {
        let store = self.store.clone();
        for entry in store.scan(Keyspace::Quarantine, &Span::all(), Order::Ascending) {
            let (_, value) = entry?;
            let value = envelope::open(value).map_err(|error| damaged(Keyspace::Quarantine, error))?;
            let record = TxRecord::decode(&value).map_err(|error| damaged(Keyspace::Quarantine, error))?;
            self.count_state(record.state, true);
            // What waits on the disk is called from there.
            if record.waits && !self.is_spilled(&record.tx) {
                self.make_ready(record.tx);
            }
        }
        Ok(())
    }

    /// Puts the first ops of a cluster, or the control log that an inviting node handed over, into a new store.
    pub fn seed_control(&mut self, ops: Vec<Op>) {
        for op in ops {
            let op = Arc::new(op);
            let next = self.heads.get(&op.stream()).map_or(1, |head| head.seq + 1);
            if op.header().seq == next {
                // What is signed here from now on must not be older than what it names.
                self.clock = HlcClock::after(self.clock.last().max(op.header().hlc));
                self.stage_op(op.clone(), None);
                self.note_op(&op);
            }
        }
    }
}

pub(super) fn read(store: &dyn Store, keyspace: Keyspace, key: &[u8]) -> Result<Option<bytes::Bytes>, OpenError> {
    match store.get(keyspace, key)? {
        None => Ok(None),
        Some(value) => Ok(Some(envelope::open(value).map_err(|error| damaged(keyspace, error))?)),
    }
}

fn read_heads(store: &dyn Store) -> Result<BTreeMap<StreamId, HeadRecord>, OpenError> {
    let mut heads = BTreeMap::new();
    for entry in store.scan(Keyspace::Heads, &Span::all(), Order::Ascending) {
        let (key, value) = entry?;
        let stream = StreamId::decode(&key).map_err(|error| damaged(Keyspace::Heads, error))?;
        let value = envelope::open(value).map_err(|error| damaged(Keyspace::Heads, error))?;
        heads.insert(stream, HeadRecord::decode(&value).map_err(|error| damaged(Keyspace::Heads, error))?);
    }
    Ok(heads)
}

fn read_authority(
    store: &dyn Store,
    cluster: ClusterId,
    heads: &BTreeMap<StreamId, HeadRecord>,
) -> Result<Authority, OpenError> {
    let mut authority = Authority::new(cluster);
    let decode = |value: bytes::Bytes| -> Result<Op, OpenError> {
        let value = envelope::open(value).map_err(|error| damaged(Keyspace::Ops, error))?;
        Op::decode(&value, cluster).map_err(|error| damaged(Keyspace::Ops, error))
    };
    let mut acts = Vec::new();
    for (stream, head) in heads {
        if head.key.shard.is_control() {
            for entry in store.scan(Keyspace::Ops, &OpKey::stream(*stream), Order::Ascending) {
                let op = decode(entry?.1)?;
                acts.push((op.id(), op.header_arc()));
            }
        }
    }
    authority.add_controls(acts).map_err(|error| damaged(Keyspace::Ops, error))?;
    for entry in store.scan(Keyspace::Index, &WrittenForKey::all(), Order::Ascending) {
        let (key, value) = entry?;
        let WrittenForKey { principal, stream } =
            WrittenForKey::decode(&key).map_err(|error| damaged(Keyspace::Index, error))?;
        let value = envelope::open(value).map_err(|error| damaged(Keyspace::Index, error))?;
        let from_seq = u64::decode(&value).map_err(|error| damaged(Keyspace::Index, error))?;
        authority.resume_written_for(WrittenFor { principal, stream, from_seq });
    }
    for (stream, head) in heads {
        if head.key.shard.is_control() {
            continue;
        }
        let mut known: Vec<(OpId, u64, Op)> = Vec::new();
        for seq in &head.policies {
            if let Some(value) = store.get(Keyspace::Ops, &OpKey::new(*stream, *seq).encode())? {
                let op = decode(value)?;
                known.push((op.id(), *seq, op));
            }
        }
        let ops = known.iter().map(|(id, seq, op)| (Position { stream: *stream, seq: *seq, op: *id }, op.header()));
        authority.resume_data(ops, head.noted);
        if let Some(seq) = head.fork {
            authority.note_fork(*stream, seq);
        }
    }
    Ok(authority)
}

fn read_shards(store: &dyn Store) -> Result<BTreeMap<ShardId, Shard>, OpenError> {
    let mut shards = BTreeMap::new();
    for entry in store.scan(Keyspace::Meta, &Span::prefix(SHARD_RECORDS), Order::Ascending) {
        let (key, value) = entry?;
        let id = key.get(SHARD_RECORDS.len()..).unwrap_or_default();
        let id = ShardId::decode(id).map_err(|error| damaged(Keyspace::Meta, error))?;
        let value = envelope::open(value).map_err(|error| damaged(Keyspace::Meta, error))?;
        let record = ShardRecord::decode(&value).map_err(|error| damaged(Keyspace::Meta, error))?;
        let digest: ShardDigest = codec::decode(&record.digest, 64).map_err(|error| damaged(Keyspace::Meta, error))?;
        shards.insert(
            id,
            Shard {
                arrivals: record.arrivals,
                durable: record.arrivals,
                applied: record.applied,
                digest,
                documents: record.documents,
                bytes: record.bytes,
                dirty: false,
            },
        );
    }
    Ok(shards)
}

/// Returns the last number given out in the feed.
fn last_feed(store: &dyn Store) -> Result<u64, OpenError> {
    let Some((key, _)) = store.last(Keyspace::Index, &super::flush::feed_span(0))? else { return Ok(0) };
    super::flush::feed_of_key(&key).ok_or_else(|| damaged(Keyspace::Index, "key of the feed"))
}
