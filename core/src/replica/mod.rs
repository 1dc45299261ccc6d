//! A replica: streams, verdicts, documents and replication wired together, without I/O.
//!
//! [`Replica`] is one state machine. [`Replica::step`] takes an input, [`Replica::work`] does a bounded slice of
//! materialisation, [`Replica::flush`] turns what has gathered into one batch; each appends [`Effect`]s for the caller to
//! carry out in order. Time and randomness are arguments. Reads of the store are direct (they are deterministic), writes are
//! effects whose completion comes back as an input.
//!
//! Invariant: nothing is sent, acknowledged or counted in a digest before the batch that holds it is committed.
//! Invariant: a document's view is written in the batch that holds the ops it shows, or in a later one.
//! Invariant: an author session ends with the process, so an author whose disk lost its end never forks.

mod act;
mod answers;
mod approval;
mod audit;
mod bootstrap;
mod branch;
mod bulk;
mod cache;
mod catch_up;
mod chains;
mod conduct;
mod erase;
mod expiry;
mod figures;
mod flush;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod history;
mod import;
mod ingest;
mod load;
mod marks;
mod materialise;
mod mutant;
mod offer;
mod open;
mod outcome;
mod overlay;
mod owed;
mod read;
mod rebuild;
mod records;
mod rejudge;
mod replace;
mod schemas;
mod serve;
mod sessions;
mod spill;
mod succession;
#[cfg(test)]
mod tests;
mod types;
mod unique;
mod verify;
mod waits;
mod why;
mod witness;
mod write;
mod write_rights;
mod written;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use crate::store::keys::DocKey;
pub use bootstrap::{Founded, Founding, found_cluster};
pub use bulk::{LastBulk, Previews};
pub use catch_up::{CatchUp, Lag, ShardReach};
pub use erase::{ErasureFigures, ErasureRecord, ErasureStage, collections_with_erasures};
#[cfg(test)]
pub(crate) use flush::feed_key as feed_key_for_tests;
#[cfg(feature = "fuzzing")]
pub use fuzzing::fuzz_record;
pub use history::{HistoryEntry, Past, Version};
pub use import::Imported;
pub use load::LoadError;
pub use marks::{FeedMark, FeedPlace, MARKED_STREAMS_MAX, Shown};
#[cfg(feature = "planted-bugs")]
pub use mutant::{Mutant, plant};
pub use open::{OpenError, ReplicaConfig};
pub(crate) use read::feed_end_of;
pub use read::{FeedEntry, FeedPage, IdRange, ReadError, Reader, ShardInfo, View, Views};
pub use rebuild::{Gap, RebuildError, Rebuilding, Rebuilt, Selection, rebuild};
#[cfg(test)]
pub(crate) use records::ViewRecord;
pub use records::{TxRecord, TxRef, TxState};
pub use schemas::SchemaCheck;
pub use succession::SuccessionBasis;
pub use types::{
    ActError, ActRequest, Admitted, BatchId, DocWrite, Effect, Input, ItemOutcome, ItemStatus, Precondition,
    RequestTicket, Signer, Waits, WriteError, WriteItem, WriteLimits, WriteOutcome, WriteRequest,
};
pub use unique::{Duplicates, UniqueCheck};
pub use verify::{Damage, VerifyReport, stored_epoch, stored_head, verify};
pub use waits::WAITING_OF_AUTHOR_MAX;
pub use witness::{Appointment, Dismissal};
pub use written::{Written, WrittenAt, WrittenPage, WrittenQuery};

use crate::authority::Authority;
use crate::hlc::HlcClock;
use crate::id::{
    AuthorKey, ChangeHash, ClusterId, CollectionName, OpId, PrincipalId, SessionId, ShardId, StoreEpoch, StreamId,
};
use crate::keys::SecretKey;
use crate::op::{Op, StreamKey};
use crate::replication::{self, Engine, Policy as _, Tip};
use crate::store::{Batch, Store};

/// A point in time as the caller measures it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Now {
    /// Milliseconds since 1970 at the start, and from there on by a clock that never goes back nor jumps.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970 by the wall clock, which may jump.
    pub wall_ms: u64,
}

/// Who this replica is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The node's key.
    pub node: SecretKey,
    /// The owner's key, where it is kept on this node.
    pub owner: Option<SecretKey>,
    /// The cluster.
    pub cluster: ClusterId,
    /// The statement that certifies the node's key.
    pub certificate: OpId,
    /// The node's principal.
    pub principal: PrincipalId,
}

/// The replica.
pub struct Replica {
    identity: Identity,
    store: Arc<dyn Store>,
    epoch: StoreEpoch,
    authority: Authority,
    engine: Engine,
    cache: cache::Cache,
    clock: HlcClock,
    entropy: crate::entropy::Entropy,
    session: SessionId,
    /// Streams as far as they are ingested, which may be further than they are durable.
    heads: BTreeMap<StreamId, records::HeadRecord>,
    shards: BTreeMap<ShardId, flush::Shard>,
    /// Ids of ops that are ingested and not yet durable.
    undurable: chains::Undurable,
    /// Durable ops that wait to be applied.
    queue: materialise::Queue,
    /// Our own streams of this session.
    own: BTreeMap<(ShardId, AuthorKey), write::OwnStream>,
    staged: flush::Staged,
    in_flight: VecDeque<flush::InFlight>,
    committed: BatchId,
    next_batch: BatchId,
    feed: u64,
    /// Transactions to look at (again).
    ready: BTreeSet<TxRef>,
    /// Those of them that a start would not find by itself.
    owed: BTreeSet<TxRef>,
    /// Streams to judge again, from which number on.
    rejudging: BTreeMap<StreamId, u64>,
    /// What the store, with the batches on their way, says of these.
    owed_stored: records::OwedRecord,
    /// Ops signed here that are not applied yet: the documents have them already.
    signed: BTreeSet<OpId>,
    /// Transactions that wait for something.
    waits: waits::Waits,
    spilled: spill::Spilled,
    /// Changes that are waited for; those asked for and settled since the replication engine was last told.
    wanted: BTreeMap<ChangeHash, ShardId>,
    asked: Vec<(ShardId, ChangeHash)>,
    settled: Vec<(ShardId, ChangeHash)>,
    /// Ends of chains that pins name and that are not here whole; those not asked for yet.
    needed_pins: BTreeMap<(StreamId, OpId), (ShardId, Tip)>,
    asked_pins: Vec<(ShardId, StreamId, Tip)>,
    /// Whether a pin may keep another branch than the main chain of some stream.
    branches_due: bool,
    /// Streams whose main chain is being replaced.
    swapping: BTreeSet<StreamId>,
    /// Streams that the replication engine was told are closed.
    closed: BTreeMap<StreamId, Tip>,
    /// Streams that later sessions name and of which nothing is here.
    named: BTreeMap<StreamId, StreamKey>,
    /// Whether the control log changed since its consequences were last carried out.
    policy_changed: bool,
    /// How many transactions wait or are quarantined, by state.
    tx_states: BTreeMap<TxState, u64>,
    halted: Option<String>,
    audit: audit::Audit,
    answers: answers::Answers,
    erasures: erase::Erasures,
    marks: marks::Marks,
    schemas: schemas::Schemas,
    uniques: unique::Uniques,
    expiries: expiry::Expiries,
    sweep: expiry::Sweep,
    testimony: witness::Testimony,
    bulks: bulk::Bulks,
    loose: import::Loose,
    /// What authors did, until the replication engine is told.
    accused: Vec<(AuthorKey, replication::Misbehaviour)>,
    lacks: conduct::Lacks,
    /// Whether somebody was banned since the bans were last written.
    bans_changed: bool,
    /// How often nothing was left to look at again.
    rests: u64,
    counters: Counters,
    /// The time of the last call.
    now: Now,
}

/// What a replica has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Ops signed here.
    pub ops_signed: u64,
    /// Ops taken from peers.
    pub ops_ingested: u64,
    /// Transactions applied to documents, local ones included.
    pub transactions_applied: u64,
    /// Documents loaded from the store.
    pub documents_loaded: u64,
    /// Views written.
    pub views_written: u64,
    /// Times that a document with a long history was rolled over.
    pub documents_rolled_over: u64,
    /// Times that the history of such a document was loaded all the same.
    pub histories_loaded: u64,
    /// Documents rebuilt because a verdict changed.
    pub documents_rebuilt: u64,
    /// Documents of which nothing is left in the store, because they were erased.
    pub documents_erased: u64,
    /// Documents deleted here because their time was over.
    pub documents_expired: u64,
    /// Forks found.
    pub forks: u64,
    /// Forked streams of which this node has given evidence.
    pub evidence_given: u64,
    /// Requests answered again.
    pub requests_replayed: u64,
    /// Requests refused because their idempotency key was used for another one.
    pub requests_mismatched: u64,
    /// Answers under idempotency keys that became too old to be kept.
    pub answers_forgotten: u64,
    /// Times that the whole store was audited.
    pub audits: u64,
    /// Damage that audits found.
    pub damage_found: u64,
    /// Shards taken in bulk to the end.
    pub bulks: u64,
    /// Documents taken in bulk that the ops do not make: their giver lied, or what counted there was revoked since.
    pub false_documents: u64,
}

impl Replica {
    /// Takes one input and appends what the caller must now do.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.now = now;
        match input {
            Input::Net(replication::Input::Tick) => {
                self.step_engine(now, replication::Input::Tick, effects);
                self.audit_step(now, effects);
                self.forget_answers(now);
                self.settle_previews(effects);
                self.tell_erasures(now, effects);
                self.give_evidence(now, effects);
                self.sweep(now);
                self.look_at_due(now);
                self.follow_shown();
                self.scrub_if_due(now, effects);
            }
            Input::Net(input) => {
                self.bans_changed |= matches!(input, replication::Input::Pardoned { .. });
                self.step_engine(now, input, effects);
            }
            Input::Write { ticket, request } => self.write(ticket, request, effects),
            Input::Act { ticket, signer, request } => self.act(now, ticket, signer, request, effects),
            Input::Committed(id) => {
                self.on_committed(now, id, effects);
                self.documents_durable(now, effects);
                self.settle_previews(effects);
                self.scrub_if_due(now, effects);
            }
            Input::Scrubbed { is_clean, took_ms } => {
                self.scrubbed(now, is_clean, took_ms);
                self.tell_erasures(now, effects);
            }
            Input::CommitFailed(id, reason) => self.on_commit_failed(id, &reason, effects),
        }
    }

    /// Returns who this replica is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the epoch of the store.
    #[must_use]
    pub const fn epoch(&self) -> StoreEpoch {
        self.epoch
    }

    /// Returns the verdict engine, for questions.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the replication engine, for questions.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns what was done since the replica was opened.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns why the replica takes no more writes, if it does not.
    #[must_use]
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Returns how many transactions are in each state other than accepted.
    #[must_use]
    pub const fn tx_states(&self) -> &BTreeMap<TxState, u64> {
        &self.tx_states
    }

    /// Returns how many ops are not yet applied to their documents, transactions and streams to be looked at again among them.
    #[must_use]
    pub fn unapplied(&self) -> u64 {
        let unapplied = self.shards.values().map(flush::Shard::unapplied).sum::<u64>();
        unapplied
            + self.ready.len() as u64
            + self.rejudging.len() as u64
            + u64::from(self.spilled.is_due(self.now.monotonic_ms))
            + u64::from(self.has_erasures_to_carry_out())
    }

    /// Returns how many transactions wait on the disk, for want of room in memory.
    #[must_use]
    pub const fn transactions_spilled(&self) -> u64 {
        self.spilled.count()
    }

    /// Returns how far a stream reaches here; of one that is not, nothing.
    #[must_use]
    pub fn own_head(&self, stream: &StreamId) -> Option<(u64, OpId)> {
        self.heads.get(stream).map(|head| (head.seq, head.head))
    }

    /// Returns the streams that this replica appends to.
    pub fn own_streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.own.values().map(|own| own.stream)
    }

    /// Returns how many connected peers have acknowledged a transaction as durable.
    #[must_use]
    pub fn acknowledged_by(&self, tx: &TxRef) -> usize {
        self.heads.get(&tx.stream).map_or(0, |head| self.engine.acked_by(&head.key.shard, tx.stream, tx.seq))
    }

    /// Returns how many member nodes may hold a collection.
    #[must_use]
    pub fn replicas_of(&self, collection: &CollectionName) -> usize {
        let now = crate::hlc::Hlc::new(self.now.wall_ms, 0);
        let policy = ingest::AuthorityPolicy { authority: &self.authority, closed: &self.closed, now };
        let members = self.authority.members(now);
        members.iter().filter(|member| policy.may_sync(&member.key, collection)).count()
    }

    /// Returns the number of batches on their way to the disk.
    #[must_use]
    pub fn batches_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns how many documents are loaded, and their estimated bytes.
    #[must_use]
    pub fn loaded_documents(&self) -> (usize, usize) {
        (self.cache.len(), self.cache.bytes())
    }
}

/// An op with where it stands.
#[derive(Clone, Debug)]
struct Placed {
    op: Arc<Op>,
    arrival: u64,
}

fn commit_effect(id: BatchId, batch: Batch, own_heads: Vec<(StreamId, u64, OpId)>) -> Effect {
    Effect::Commit { id, batch, own_heads }
}
