//! What a replica keeps in its store beside the ops themselves. Layouts: `docs/format.md`, "Store".
//!
//! All of these can be rebuilt from the ops; none is part of the network format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::authority::Position;
use crate::hlc::Hlc;
use crate::id::{ChangeHash, DocId, OpId, RequestId, ShardId, StreamId};
use crate::op::codec::{self, CodecError};
use crate::op::{Op, SessionEnd, StreamKey};
use crate::replication::Tip;

/// Upper bound of a record that is decoded: a view holds a whole document.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// Names a transaction of the cluster: its op's place and its position in the op.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TxRef {
    /// The op's stream.
    pub stream: StreamId,
    /// The op's sequence number.
    pub seq: u64,
    /// The op: on a forked stream the place alone does not name it.
    pub op: OpId,
    /// Position of the transaction in the op.
    pub tx: u16,
}

/// What is kept of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The stream's identity.
    pub key: StreamKey,
    /// Sequence number of the last op.
    pub seq: u64,
    /// Its id.
    pub head: OpId,
    /// Its arrival in the shard.
    pub arrival: u64,
    /// Its time.
    pub hlc: Hlc,
    /// The last op that the verdict engine has noted. It is less than `seq` while the one after it names acts that are not
    /// complete here.
    pub noted: u64,
    /// Sequence numbers of the ops at which the author's knowledge of the control log grows.
    pub policies: Vec<u64>,
    /// The smallest sequence number at which two ops are known.
    pub fork: Option<u64>,
    /// Where the main chain ended when two ops became known to be at one place: what was seen first here.
    pub seen: Option<Tip>,
    /// What the first op names as the ends of earlier sessions.
    pub earlier: Vec<SessionEnd>,
}

impl TxRef {
    /// Returns where its op lies.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { stream: self.stream, seq: self.seq, op: self.op }
    }

    /// Before every other one.
    pub const FIRST: Self = Self { stream: StreamId::ZERO, seq: 0, op: OpId::ZERO, tx: 0 };

    /// Returns the transactions of an op.
    pub fn all_of(op: &Op) -> impl Iterator<Item = Self> + use<> {
        let (stream, seq, id) = (op.stream(), op.header().seq, op.id());
        let count = u16::try_from(op.header().transactions().len()).unwrap_or(u16::MAX);
        (0..count).map(move |tx| Self { stream, seq, op: id, tx })
    }
}

impl HeadRecord {
    /// Returns the ends of earlier sessions by their streams.
    pub fn earlier_ends(&self) -> impl Iterator<Item = (StreamKey, Tip)> + '_ {
        self.earlier.iter().map(|end| {
            let key = StreamKey { session: end.session, ..self.key.clone() };
            (key, Tip { seq: end.seq, id: end.head })
        })
    }
}

/// A delete of a document, as far as it is known.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DeleteRecord {
    /// The transaction that deletes.
    pub tx: TxRef,
    /// The heads that it covers.
    pub heads: Vec<ChangeHash>,
    /// Whether the transaction counts.
    pub counts: bool,
    /// The op's time.
    pub hlc: Hlc,
}

/// The materialised state of a document: what a read answers with, and what is needed to load the document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewRecord {
    /// Maximal accepted changes, ascending.
    pub heads: Vec<ChangeHash>,
    /// Whether every accepted change is covered by a delete (or there is none).
    pub deleted: bool,
    /// Latest time of the heads and of the deletes that count.
    pub modified: Hlc,
    /// Where the document stands in the feed of changes.
    pub feed: u64,
    /// Accepted changes.
    pub changes: u64,
    /// Changes that passed the gate but do not count.
    pub voids: Vec<ChangeHash>,
    /// The document's deletes.
    pub deletes: Vec<DeleteRecord>,
    /// The document as JSON text; empty when deleted.
    pub json: Bytes,
}

#[derive(Serialize, Deserialize)]
struct WireView<'a>(
    Vec<ChangeHash>,
    bool,
    Hlc,
    u64,
    u64,
    Vec<ChangeHash>,
    Vec<DeleteRecord>,
    #[serde(borrow, with = "serde_bytes")] &'a [u8],
);

impl ViewRecord {
    /// Whether readers find the document, unless its time is over.
    #[must_use]
    pub const fn exists(&self) -> bool {
        !self.deleted && !self.heads.is_empty()
    }

    /// Encodes the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&WireView(
            self.heads.clone(),
            self.deleted,
            self.modified,
            self.feed,
            self.changes,
            self.voids.clone(),
            self.deletes.clone(),
            &self.json,
        ))
    }

    /// Decodes a record; the JSON text shares the given bytes.
    ///
    /// # Errors
    /// [`CodecError`] if the record is damaged.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let WireView(heads, deleted, modified, feed, changes, voids, deletes, json) =
            rmp_serde::from_slice(bytes).map_err(CodecError::Malformed)?;
        let json = bytes.slice_ref(json);
        Ok(Self { heads, deleted, modified, feed, changes, voids, deletes, json })
    }
}

/// A document folded: what stands for all changes of which no bytes are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRecord {
    /// What is needed to edit the document without loading its history; empty where loading is what is needed.
    pub short: Bytes,
    /// Automerge's snapshot; empty if the history is stored in parts.
    pub automerge: Bytes,
    /// The parts.
    pub segments: u64,
}

#[derive(Serialize, Deserialize)]
struct WireSnapshot<'a>(
    #[serde(borrow, with = "serde_bytes")] &'a [u8],
    #[serde(borrow, with = "serde_bytes")] &'a [u8],
    u64,
);

impl SnapshotRecord {
    /// Encodes the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&WireSnapshot(&self.short, &self.automerge, self.segments))
    }

    /// Decodes a record; its parts share the given bytes.
    ///
    /// # Errors
    /// [`CodecError`] if the record is damaged.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let WireSnapshot(short, automerge, segments) = rmp_serde::from_slice(bytes).map_err(CodecError::Malformed)?;
        Ok(Self { short: bytes.slice_ref(short), automerge: bytes.slice_ref(automerge), segments })
    }
}

/// Why a transaction is not (or not wholly) accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TxRecord {
    /// Which one.
    pub tx: TxRef,
    /// What became of the transaction.
    pub state: TxState,
    /// The reason, for people.
    pub reason: String,
    /// The shard.
    pub shard: ShardId,
    /// The changes that it waits for.
    pub missing: Vec<ChangeHash>,
    /// The op's time.
    pub hlc: Hlc,
    /// Whether it is looked at again when something else comes: a change, an act, an earlier transaction.
    pub waits: bool,
}

/// What a replica has still to carry out of what it knows: lost with its memory, documents would not follow.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OwedRecord {
    /// Streams whose verdicts may have changed, with the first sequence number.
    pub streams: Vec<(StreamId, u64)>,
    /// Transactions that are to be looked at again.
    pub transactions: Vec<TxRef>,
}

/// What became of a transaction that is not simply accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum TxState {
    /// Has the right, and builds on a change that is not in the document's history (yet).
    Waiting,
    /// Waits for a control act or a pinned chain.
    Deferred,
    /// Nothing ever gave the right. Final.
    NotAllowed,
    /// Breaks a rule of the gate. Final, as long as its place in the stream is.
    BadChange,
    /// A revocation cuts it; a readmit can bring it back.
    AfterRevocation,
    /// The same request counts already, at another op.
    Duplicate,
    /// At or beyond a fork of its stream and not on the branch that a pin keeps, whatever else is wrong with it.
    Forked,
    /// This program's Automerge cannot apply it; an alarm, not a verdict.
    Held,
}

impl TxState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Deferred,
        Self::NotAllowed,
        Self::BadChange,
        Self::AfterRevocation,
        Self::Duplicate,
        Self::Forked,
        Self::Held,
    ];

    /// Whether its changes stay out of the documents whatever other changes arrive.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::NotAllowed | Self::BadChange)
    }

    /// The stable name used in the API and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Deferred => "deferred",
            Self::NotAllowed => "not_allowed",
            Self::BadChange => "bad_change",
            Self::AfterRevocation => "after_revocation",
            Self::Duplicate => "duplicate",
            Self::Forked => "forked",
            Self::Held => "held",
        }
    }
}

/// The transactions known for one idempotency key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RequestRecord {
    /// (time, op, position, place, request), ascending: of those of one request the first that is otherwise accepted
    /// counts. Other requests are here only if the key was used for them on nodes that did not know of each other.
    pub seen: Vec<(Hlc, OpId, u16, TxRef, RequestId)>,
    /// What the client was told, if it was told here.
    pub told: Option<Told>,
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// When, in milliseconds since 1970 by this node's wall clock.
    pub at_ms: u64,
    /// What was asked.
    pub request: RequestId,
    /// (document, status, heads).
    pub items: Vec<(DocId, u8, Vec<ChangeHash>)>,
}

impl RequestRecord {
    /// Returns the transactions of one request, in the order in which they count.
    pub fn of(&self, request: RequestId) -> impl Iterator<Item = TxRef> {
        self.seen.iter().filter(move |(.., of)| *of == request).map(|(_, _, _, tx, _)| *tx)
    }
}

/// What is kept of a shard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Ops that have arrived.
    pub arrivals: u64,
    /// Arrivals that have been applied to their documents.
    pub applied: u64,
    /// Order-independent digest over the documents, and their number, deleted ones included.
    #[serde(with = "serde_bytes")]
    pub digest: Vec<u8>,
    /// Documents that exist.
    pub documents: u64,
    /// Bytes of their JSON text.
    pub bytes: u64,
}

macro_rules! plain_record {
    ($($name:ident),+) => {$(
        impl $name {
            /// Encodes the record.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                codec::encode(self)
            }

            /// Decodes a record.
            ///
            /// # Errors
            /// [`CodecError`] if the record is damaged.
            pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                codec::decode(bytes, RECORD_BYTES_MAX)
            }
        }
    )+};
}

plain_record!(HeadRecord, TxRecord, RequestRecord, ShardRecord, OwedRecord);
