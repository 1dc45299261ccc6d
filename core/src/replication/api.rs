//! What goes into the engine and what comes out.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::bulk::{BulkProgress, Part};
use super::digest::Tip;
pub use super::frame::BulkDocument;
pub use super::lane::Lane;
use super::misdeed::Misbehaviour;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ChangeHash, ClusterId, CollectionName, DocId, OpId, ShardId, StoreEpoch, StreamId};
use crate::op::Op;

/// A member node, named by its key, which is also its libp2p identity.
pub type Peer = AuthorKey;

/// Microseconds by a clock that never goes back within one life of the engine. When it began to count is of no account: what
/// has to do with the time of ops is asked of the [`Policy`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Wraps microseconds.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns microseconds.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Returns milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Returns how long it is since `earlier`; nothing if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time after `delay`.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Which collections a node holds. The control log belongs to all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subscription {
    /// Everything.
    All,
    /// These only; at most [`super::limits::SUBSCRIPTION_MAX`] count.
    Collections(BTreeSet<CollectionName>),
}

impl Subscription {
    /// Returns whether the collection belongs to it.
    #[must_use]
    pub fn covers(&self, collection: &CollectionName) -> bool {
        match self {
            Self::All => true,
            Self::Collections(names) => collection.as_str() == CollectionName::CONTROL || names.contains(collection),
        }
    }
}

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: Peer,
    /// The cluster.
    pub cluster: ClusterId,
    /// Epoch of the store: what arrivals count from.
    pub epoch: StoreEpoch,
    /// What the node holds.
    pub subscription: Subscription,
    /// A shard of which so many ops are missing is taken in bulk although something of it is here.
    pub bulk_gap_ops: u64,
    /// Seed of the engine's own choices (jitter, eager peers).
    pub seed: u64,
    /// Time at the start.
    pub now: Timestamp,
    /// About how many bytes of ops are in the store.
    pub held_bytes: u64,
}

/// A stream's durable head, as loaded from the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredHead {
    /// The shard.
    pub shard: ShardId,
    /// The stream.
    pub stream: StreamId,
    /// The last op.
    pub tip: Tip,
    /// Its time.
    pub hlc: Hlc,
    /// Arrival of the last change of the head (op committed or fork proved), unique in the shard.
    pub arrival: u64,
    /// Smallest sequence number at which two ops are stored.
    pub fork: Option<u64>,
    /// Where the earlier sessions end that its first op names.
    pub earlier: Vec<(StreamId, Tip)>,
}

/// How far the heads of a peer's shard were absorbed: what `arrival` and all before it brought is durable here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AbsorbedCursor {
    /// The peer.
    pub peer: Peer,
    /// The shard.
    pub shard: ShardId,
    /// The epoch of the peer's store.
    pub epoch: StoreEpoch,
    /// The arrival.
    pub arrival: u64,
}

/// An op that became durable here.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The op.
    pub op: Arc<Op>,
    /// Its arrival in its shard.
    pub arrival: u64,
}

/// An encoded op from the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredOp {
    /// [`Op::encode`].
    pub bytes: Bytes,
    /// Id of the op.
    pub id: OpId,
    /// Whether it carries its signature.
    pub signed: bool,
}

/// Names a question of the engine to the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub(super) u64);

/// What happens to the engine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection to a member stands; all lanes are new.
    PeerUp {
        /// The member.
        peer: Peer,
    },
    /// The connection is gone.
    PeerDown {
        /// The member.
        peer: Peer,
    },
    /// A frame arrived.
    Frame {
        /// From whom.
        peer: Peer,
        /// On which lane.
        lane: Lane,
        /// The frame.
        bytes: Bytes,
    },
    /// Answers [`Effect::ReadOps`]: consecutive ops, fewer or none if they are not there.
    OpsRead {
        /// Of the question.
        ticket: Ticket,
        /// The ops.
        ops: Vec<StoredOp>,
    },
    /// Answers [`Effect::ReadIds`], in the order of the question; `None` where there is no op.
    IdsRead {
        /// Of the question.
        ticket: Ticket,
        /// The ids.
        ids: Vec<Option<OpId>>,
    },
    /// Answers [`Effect::ReadBranches`].
    BranchesRead {
        /// Of the question.
        ticket: Ticket,
        /// Each branch from the wanted sequence number.
        branches: Vec<Vec<StoredOp>>,
    },
    /// Answers [`Effect::LocateChanges`]: those that are here.
    ChangesLocated {
        /// Of the question.
        ticket: Ticket,
        /// Change, stream and sequence number.
        found: Vec<(ChangeHash, StreamId, u64)>,
    },
    /// Answers [`Effect::ReadEarlier`].
    EarlierRead {
        /// Of the question.
        ticket: Ticket,
        /// Streams, and where they are said to end.
        ends: Vec<(StreamId, u64)>,
    },
    /// A document depends on a change that is not here.
    NeedChange {
        /// Shard of the document.
        shard: ShardId,
        /// The change.
        change: ChangeHash,
        /// Who probably has it.
        hint: Option<Peer>,
    },
    /// The change is here, or no longer needed.
    ChangeSettled {
        /// Shard of the document.
        shard: ShardId,
        /// The change.
        change: ChangeHash,
    },
    /// The chain that leads to this op is needed: a pin names it.
    NeedOp {
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// Position and id.
        tip: Tip,
        /// Who probably has it.
        hint: Option<Peer>,
    },
    /// The op is here, or no longer needed.
    OpSettled {
        /// The stream.
        stream: StreamId,
        /// Its id.
        id: OpId,
    },
    /// Answers [`Effect::ReadDocuments`].
    DocumentsRead {
        /// Of the question.
        ticket: Ticket,
        /// The documents, in the order of their ids.
        documents: Vec<BulkDocument>,
        /// The id up to which these are all that are given; none at the end.
        next: Option<DocId>,
        /// Documents that the shard has in all.
        total: u64,
    },
    /// What became of [`Effect::TakeDocuments`]. The next page is asked for now, so that no more gathers than the disk takes.
    DocumentsTaken {
        /// The shard.
        shard: ShardId,
        /// Of the page.
        request: u32,
        /// Whether all of them were documents.
        outcome: Taken,
    },
    /// Answers [`Effect::CompleteOps`]: encoded ops, all of them, or none if a change is not here.
    OpsCompleted {
        /// Of the question.
        ticket: Ticket,
        /// The ops.
        ops: Vec<Bytes>,
    },
    /// The store or the verdict engine did not take what [`Effect::Ingest`] offered; nothing beyond the durable head of
    /// the stream is under way any more.
    Refused {
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
    },
    /// The branch ops of [`Effect::ForkFound`] are durable.
    ForkStored {
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// Smallest sequence number with two ops.
        seq: u64,
        /// The arrival given to it.
        arrival: u64,
    },
    /// The main chain of a forked stream is another branch now: the one that a pin keeps.
    BranchChanged {
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// The last op of the chain.
        tip: Tip,
        /// Its time.
        hlc: Hlc,
        /// The arrival given to the change.
        arrival: u64,
    },
    /// The policy changed (control ops were committed). What was held for it is tried again.
    PolicyChanged {
        /// Streams whose [`Policy::closed_at`] may answer differently now.
        streams: Vec<(ShardId, StreamId)>,
    },
    /// Somebody did what the engine does not see by itself: a transaction of `peer`'s own, or what came before its frames. Nothing is
    /// made of who is no member.
    Accused {
        /// Who.
        peer: Peer,
        /// What.
        what: Misbehaviour,
    },
    /// Transactions of `author` wait here for something, of so many names; told when [`super::limits::WAITING_MAX`] is passed, either
    /// way.
    Waiting {
        /// Who wrote them.
        author: Peer,
        /// How many names are kept of them.
        names: usize,
    },
    /// A person lets a peer's misdeeds be forgotten.
    Pardoned {
        /// Whose.
        peer: Peer,
    },
    /// Time passed; due when [`super::Engine::next_wakeup`] is reached.
    Tick,
}

/// What the caller must now do, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a frame. Credit for it is taken already.
    Send {
        /// To whom.
        peer: Peer,
        /// On which lane.
        lane: Lane,
        /// The frame.
        bytes: Bytes,
    },
    /// Store these ops and call [`super::Engine::committed`], or tell [`Input::Refused`]. They continue the stream; chain
    /// and signature are checked. Mid-run ops come without signature.
    Ingest {
        /// Who sent them.
        from: Peer,
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// Consecutive ops.
        ops: Vec<Arc<Op>>,
    },
    /// Read ops of a stream's main chain.
    ReadOps {
        /// To be given back.
        ticket: Ticket,
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// First sequence number.
        from_seq: u64,
        /// At most so many.
        ops_max: usize,
        /// At most so many encoded bytes, but the first op in any case.
        bytes_max: usize,
        /// With their changes or without.
        form: OpForm,
    },
    /// Read documents of a shard in the order of their ids, at most [`super::limits::DOCUMENTS_PAGE_MAX`] and
    /// [`super::limits::DOCUMENTS_BYTES_MAX`] together. Some may be left out: they come by their ops.
    ReadDocuments {
        /// To be given back.
        ticket: Ticket,
        /// The shard.
        shard: ShardId,
        /// After this one.
        after: Option<DocId>,
        /// Those of this part.
        part: Part,
        /// Those that changed after this.
        since: Option<Hlc>,
    },
    /// Show these documents to readers until their ops are here, and keep their changes; answer
    /// [`Input::DocumentsTaken`]. Nothing of them is vouched for. With them goes to the disk what
    /// [`super::Engine::bulk_progress`] says of the shard now.
    TakeDocuments {
        /// To be given back.
        request: u32,
        /// Who sent them.
        from: Peer,
        /// The shard.
        shard: ShardId,
        /// The documents.
        documents: Vec<BulkDocument>,
    },
    /// [`super::Engine::bulk_progress`] of the shard has changed without a page.
    BulkMoved {
        /// The shard.
        shard: ShardId,
    },
    /// The ops of the shard are here as these peers have them: what is left of documents taken in bulk from them is refuted.
    BulkEnded {
        /// The shard.
        shard: ShardId,
        /// What was taken.
        progress: BulkProgress,
        /// The peers.
        equal: BTreeSet<Peer>,
    },
    /// Put the named changes into these bare ops.
    CompleteOps {
        /// To be given back.
        ticket: Ticket,
        /// The ops.
        ops: Vec<Bytes>,
    },
    /// Read op ids of a stream's main chain.
    ReadIds {
        /// To be given back.
        ticket: Ticket,
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// Sequence numbers, at most [`super::limits::RUN_OPS_MAX`] + 1.
        seqs: Vec<u64>,
    },
    /// Read branches: the chain that holds `through`, or, without it, every one held, the main chain first, at most
    /// [`super::limits::BRANCHES_MAX`]. Bounds hold for each.
    ReadBranches {
        /// To be given back.
        ticket: Ticket,
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// First sequence number.
        from_seq: u64,
        /// The op to which the branch must lead.
        through: Option<Tip>,
        /// At most so many ops of each.
        ops_max: usize,
        /// At most so many encoded bytes of each, but the first op in any case.
        bytes_max: usize,
    },
    /// Find the ops that carry changes.
    LocateChanges {
        /// To be given back.
        ticket: Ticket,
        /// The shard.
        shard: ShardId,
        /// The changes.
        changes: Vec<ChangeHash>,
    },
    /// Find the sessions that came before a stream: what its first op names, what their first ops name, and so on, the latest
    /// first.
    ReadEarlier {
        /// To be given back.
        ticket: Ticket,
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// At most so many.
        ends_max: usize,
    },
    /// Another branch of a stream, verified by chain and signature. Store the ops under their own keys, tell the authority and
    /// answer [`Input::ForkStored`]. May be repeated, and may continue a branch given before (its first op then lies beyond `seq`).
    ForkFound {
        /// Who sent them.
        from: Peer,
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: StreamId,
        /// Where this branch leaves the main chain.
        seq: u64,
        /// Ops of the branch.
        ops: Vec<Arc<Op>>,
    },
    /// A peer did what no correct peer does.
    Misbehaved {
        /// Who.
        peer: Peer,
        /// What.
        what: Misbehaviour,
    },
    /// Close the connection, if there is one. The engine has forgotten the peer, but for its conduct. A banned one need not be let in
    /// before its time is over: it is turned away again.
    Disconnect {
        /// Who.
        peer: Peer,
        /// Why.
        reason: DisconnectReason,
    },
}

/// How ops are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpForm {
    /// As they are.
    Whole,
    /// With the salts and names of their changes instead of the changes.
    Bare,
}

/// What became of documents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// They are on the disk.
    Stored,
    /// Something among them is no document.
    Refused,
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisconnectReason {
    /// It is banned for its misdeeds, this being the last, for so long from now.
    Banned(Misbehaviour, Duration),
    /// It speaks another version of the protocol, which is nobody's fault.
    ForeignVersion,
    /// It is no member (any more).
    NotMember,
    /// As many peers as the engine serves are connected.
    TooManyPeers,
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Banned(what, time) => write!(f, "it is banned for {} s, last for {what}", time.as_secs()),
            Self::ForeignVersion => f.write_str("it speaks another version of the protocol"),
            Self::NotMember => f.write_str("it is no member"),
            Self::TooManyPeers => f.write_str("too many peers are connected"),
        }
    }
}

/// Whether a key may sign under a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CertificateState {
    /// The certificate is here and was given to the key.
    Known,
    /// The certificate is not here.
    Unknown,
    /// The certificate was given to another key.
    Mismatch,
}

/// What the engine asks of the verdict engine, and of the wall clock. Verdicts may change only together with
/// [`Input::PolicyChanged`].
pub trait Policy {
    /// Returns whether `author` may sign under the certificate. The genesis is its own owners' certificate.
    fn certificate(&self, certificate: &OpId, author: &AuthorKey) -> CertificateState;

    /// Returns the pin at which a stream is closed because its certificate is voided; [`Tip::START`] cuts all of it.
    fn closed_at(&self, stream: &StreamId) -> Option<Tip>;

    /// Returns whether an op of this time may be taken now, by the wall clock. One further ahead is held, and tried again
    /// after a while, whatever changed.
    fn accepts_time(&self, hlc: Hlc) -> bool;

    /// Returns whether the peer is a member.
    fn is_member(&self, peer: &Peer) -> bool;

    /// Returns whether the member may hold the collection.
    fn may_sync(&self, peer: &Peer, collection: &CollectionName) -> bool;
}
