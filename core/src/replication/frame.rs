//! Frames: what peers say to each other. Layout and bounds: `docs/protocol.md`.
//!
//! A frame is the canonical encoding of (tag, content). An unknown tag from 128 up may be ignored: later versions use
//! those for what an older peer can do without.

mod ranges;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::api::Lane;
use super::bulk::Part;
use super::digest::Tip;
use super::limits as bounds;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ChangeHash, ClusterId, CollectionName, DocId, OpId, ShardId, StoreEpoch, StreamId};
use crate::op::codec::{self, tagged_enum};
pub use ranges::{
    Edge, HeadLine, HeadLines, ItemHashes, RangeHas, RangePart, RangeSays, RangeWanted, Ranges, RangesAsk, Sum,
};

tagged_enum! {
    /// A frame.
    #[derive(Clone, PartialEq, Debug)]
    pub enum Frame {
        /// Who speaks. First frame of the control lane.
        0 => Hello(Hello),
        /// More credit. Costs none itself.
        1 => Credit(Credit),
        /// A run that the receiver probably lacks.
        2 => Push(Run),
        /// Heads that the receiver may lack.
        3 => Announce(Vec<Position>),
        /// "Push to me again."
        4 => Graft(()),
        /// "Announce to me only."
        5 => Prune(()),
        /// Roll-up of the digests of all shared shards.
        6 => Digest(RollUp),
        /// Digests of shards.
        7 => ShardDigests(Vec<ShardSummary>),
        /// Asks for heads.
        8 => HeadsAsk(HeadsAsk),
        /// A page of heads.
        9 => Heads(Heads),
        /// Asks for a range of a stream.
        10 => Pull(Pull),
        /// Answers a pull.
        11 => Range(Answer),
        /// Ops that are durable at the sender.
        12 => Ack(Vec<Position>),
        /// Asks where changes lie.
        13 => Want(Want),
        /// Says where changes lie.
        14 => Found(Found),
        /// Asks for op ids at some sequence numbers.
        15 => ChainAsk(ChainAsk),
        /// Op ids.
        16 => Chain(Chain),
        /// Asks for branches of a forked stream.
        17 => BranchAsk(BranchAsk),
        /// One branch; the last answer to a question is an empty run.
        18 => Branch(Answer),
        /// The question cannot be served now.
        19 => Busy(u32),
        /// Asks where ranges of heads differ.
        20 => RangesAsk(RangesAsk),
        /// Says where ranges of heads differ.
        21 => Ranges(Ranges),
        /// Asks for documents of a shard.
        22 => DocumentsAsk(DocumentsAsk),
        /// Documents of a shard.
        23 => Documents(Documents),
        /// Asks for a range of a stream, of whose changes the asker has most.
        24 => BarePull(Pull),
        /// Answers that: ops whose changes are named instead of given.
        25 => BareRange(Answer),
        /// Asks which sessions came before one.
        26 => EarlierAsk(EarlierAsk),
        /// Says that.
        27 => Earlier(Earlier),
    }
}

/// Who speaks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`bounds::PROTOCOL_VERSION`].
    pub version: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// The sender's node key: the one that its connection proves.
    pub node: AuthorKey,
    /// Epoch of its store: what its arrivals count from.
    pub epoch: StoreEpoch,
    /// Collections that it holds, ascending; none means all.
    pub collections: Option<Vec<CollectionName>>,
}

/// How many bytes the receiver of this may have sent on a lane since the connection began. Cumulative, so that a
/// grant that crosses others on its way does no harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Credit {
    /// The lane.
    pub lane: Lane,
    /// The limit.
    pub bytes: u64,
}

/// Consecutive ops of one stream, encoded, the last one signed (or named by a pin).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The ops.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::RUN_OPS_MAX }, _, _>")]
    pub ops: Vec<ByteBuf>,
}

/// A position in a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The shard.
    pub shard: ShardId,
    /// The stream.
    pub stream: StreamId,
    /// Sequence number.
    pub seq: u64,
}

/// Roll-up over the shared shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RollUp {
    /// Short digest.
    pub digest: crate::id::Salt,
}

/// The digest of a shard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardSummary {
    /// The shard.
    pub shard: ShardId,
    /// Short digest.
    pub digest: crate::id::Salt,
    /// Streams in it.
    pub count: u64,
}

/// Asks for the heads of a shard that changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeadsAsk {
    /// Names the answer.
    pub request: u32,
    /// The shard.
    pub shard: ShardId,
    /// Epoch of the store that the arrival counts in.
    pub epoch: StoreEpoch,
    /// The arrival after which they changed.
    pub after: u64,
}

/// A page of heads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Heads {
    /// The request.
    pub request: u32,
    /// Arrival of the last entry; none if the cursor is not known here.
    pub next: Option<u64>,
    /// Whether this is the last page.
    pub last: bool,
    /// The heads.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::HEADS_PAGE_MAX }, _, _>")]
    pub heads: Vec<HeadLine>,
}

tagged_enum! {
    /// How far a pull may reach in a closed stream.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Reach {
        /// To the pin.
        0 => Pin(()),
        /// Beyond it: a document depends on what lies there.
        1 => Beyond(()),
    }
}

/// Asks for a range of a stream: from `from` to the first signed op at or after `to`, or as far as one run goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pull {
    /// Names the answer.
    pub request: u32,
    /// The shard.
    pub shard: ShardId,
    /// The stream.
    pub stream: StreamId,
    /// First sequence number.
    pub from: u64,
    /// Last sequence number that is wanted.
    pub to: u64,
    /// How far it may reach.
    pub reach: Reach,
}

/// An answer made of ops; empty if there are none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The request.
    pub request: u32,
    /// The ops.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::RUN_OPS_MAX }, _, _>")]
    pub ops: Vec<ByteBuf>,
}

/// Asks where changes lie.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Want {
    /// The shard.
    pub shard: ShardId,
    /// The changes.
    pub changes: Vec<ChangeHash>,
}

/// Says where changes lie.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The shard.
    pub shard: ShardId,
    /// Change, stream and sequence number.
    pub changes: Vec<(ChangeHash, StreamId, u64)>,
}

/// Asks which sessions came before that of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EarlierAsk {
    /// The shard.
    pub shard: ShardId,
    /// The stream.
    pub stream: StreamId,
}

/// Says which streams sessions name as those before them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Earlier {
    /// The shard.
    pub shard: ShardId,
    /// Stream and sequence number.
    pub ends: Vec<(StreamId, u64)>,
}

/// Asks for documents of a shard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DocumentsAsk {
    /// Names the answer.
    pub request: u32,
    /// The shard.
    pub shard: ShardId,
    /// After this one; none: from the first.
    pub after: Option<DocId>,
    /// Those of this part.
    pub part: Part,
    /// Those that changed after this.
    pub since: Option<Hlc>,
}

/// Documents of a shard, in the order of their ids.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Documents {
    /// The request.
    pub request: u32,
    /// The documents.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::DOCUMENTS_PAGE_MAX }, _, _>")]
    pub documents: Vec<BulkDocument>,
    /// The id up to which these are all that are given; none at the end.
    pub next: Option<DocId>,
    /// Documents that the shard has in all, whether they are given or not.
    pub total: u64,
}

/// A document as it is handed over in bulk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BulkDocument {
    /// Its id.
    pub doc: DocId,
    /// Latest time of its transactions, as the sender says.
    pub modified: Hlc,
    /// All its changes, each after those that it builds on.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::DOCUMENT_CHANGES_MAX }, _, _>")]
    pub changes: Vec<ByteBuf>,
}

/// Asks for op ids of the sender's chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainAsk {
    /// Names the answer.
    pub request: u32,
    /// The shard.
    pub shard: ShardId,
    /// The stream.
    pub stream: StreamId,
    /// Sequence numbers.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::CHAIN_SEQS_MAX }, _, _>")]
    pub seqs: Vec<u64>,
}

/// Op ids in the order of the question; `None` where there is no op.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Chain {
    /// The request.
    pub request: u32,
    /// The ids.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::CHAIN_SEQS_MAX }, _, _>")]
    pub ids: Vec<Option<OpId>>,
}

/// Asks for branches from `from`: the one that holds `through`, or all of them, each to a signed op.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BranchAsk {
    /// Names the answers.
    pub request: u32,
    /// The shard.
    pub shard: ShardId,
    /// The stream.
    pub stream: StreamId,
    /// First sequence number.
    pub from: u64,
    /// The op to which the branch must lead.
    pub through: Option<Tip>,
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not a canonical frame.
    #[error("decode frame")]
    Encoding(#[source] codec::CodecError),
    /// Longer than its kind may be.
    #[error("frame breaks the bounds of {0}")]
    Bounds(&'static str),
    /// Of a later version, and not to be ignored.
    #[error("unknown frame")]
    Unknown,
}

impl Frame {
    /// Encodes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    /// Decodes a frame and checks its bounds; `None` is one that may be ignored.
    ///
    /// # Errors
    /// [`FrameError`], by what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        match bytes {
            // A pair whose first element is a number from 128 to 255, then below: see the head of this file.
            [0x92, 0xcc, 128..=255, ..] => return Ok(None),
            [0x92, 28..=127, ..] => return Err(FrameError::Unknown),
            _ => {}
        }
        let frame: Self = codec::decode(bytes, bounds::FRAME_BYTES_MAX).map_err(FrameError::Encoding)?;
        frame.check()?;
        Ok(Some(frame))
    }

    fn check(&self) -> Result<(), FrameError> {
        let within = |ok: bool, what| if ok { Ok(()) } else { Err(FrameError::Bounds(what)) };
        let run = |ops: &[ByteBuf]| {
            let bytes: usize = ops.iter().map(|op| op.len()).sum();
            ops.len() <= 1 || (ops.len() <= bounds::RUN_OPS_MAX && bytes <= bounds::RUN_BYTES_MAX)
        };
        match self {
            Self::Hello(hello) => within(
                hello
                    .collections
                    .as_ref()
                    .is_none_or(|names| names.len() <= bounds::SUBSCRIPTION_MAX && names.is_sorted_by(|a, b| a < b)),
                "hello",
            ),
            Self::Push(run_of) => within(!run_of.ops.is_empty() && run(&run_of.ops), "push"),
            Self::Range(answer) | Self::Branch(answer) | Self::BareRange(answer) => within(run(&answer.ops), "range"),
            Self::Announce(positions) | Self::Ack(positions) => within(
                positions.len() <= bounds::ANNOUNCE_MAX && positions.iter().all(|p| p.shard.is_valid()),
                "positions",
            ),
            Self::ShardDigests(digests) => within(
                digests.len() <= bounds::SHARD_DIGESTS_MAX && digests.iter().all(|d| d.shard.is_valid()),
                "shard digests",
            ),
            Self::HeadsAsk(ask) => within(ask.shard.is_valid(), "heads question"),
            Self::RangesAsk(ask) => within(ask.shard.is_valid(), "ranges question"),
            Self::Ranges(ranges) => within(
                ranges.parts.iter().map(|part| part.says.line_count()).sum::<usize>() <= bounds::RANGE_LINES_MAX,
                "ranges",
            ),
            Self::Heads(_) => Ok(()),
            Self::DocumentsAsk(ask) => within(ask.shard.is_valid() && ask.part.is_valid(), "documents question"),
            Self::Documents(page) => within(
                page.documents.is_sorted_by(|a, b| a.doc < b.doc)
                    && page.documents.last().is_none_or(|last| page.next.as_ref().is_none_or(|next| last.doc <= *next))
                    && page.documents.iter().all(|document| !document.changes.is_empty()),
                "documents",
            ),
            Self::Pull(pull) | Self::BarePull(pull) => {
                within(pull.shard.is_valid() && pull.from >= 1 && pull.to >= pull.from, "pull")
            }
            Self::Want(want) => within(want.shard.is_valid() && want.changes.len() <= bounds::WANT_MAX, "want"),
            Self::Found(found) => within(found.shard.is_valid() && found.changes.len() <= bounds::WANT_MAX, "found"),
            Self::EarlierAsk(ask) => within(ask.shard.is_valid(), "earlier question"),
            Self::Earlier(told) => {
                within(told.shard.is_valid() && told.ends.len() <= bounds::EARLIER_MAX, "earlier sessions")
            }
            Self::ChainAsk(ask) => {
                within(ask.shard.is_valid() && ask.seqs.len() <= bounds::CHAIN_SEQS_MAX, "chain question")
            }
            Self::Chain(chain) => within(chain.ids.len() <= bounds::CHAIN_SEQS_MAX, "chain"),
            Self::BranchAsk(ask) => within(
                ask.shard.is_valid() && ask.from >= 1 && ask.through.is_none_or(|tip| tip.seq >= ask.from),
                "branch question",
            ),
            Self::Credit(_) | Self::Graft(()) | Self::Prune(()) | Self::Digest(_) | Self::Busy(_) => Ok(()),
        }
    }

    /// Returns whether every correct peer answers it.
    #[must_use]
    pub const fn is_question(&self) -> bool {
        matches!(
            self,
            Self::HeadsAsk(_)
                | Self::RangesAsk(_)
                | Self::DocumentsAsk(_)
                | Self::BarePull(_)
                | Self::Pull(_)
                | Self::ChainAsk(_)
                | Self::BranchAsk(_)
        )
    }

    /// Returns whether it answers a question.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(self.lane(), Lane::Repair | Lane::Snapshot) || matches!(self, Self::Busy(_))
    }

    /// Returns the lane that frames of this kind take.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Hello(_)
            | Self::Credit(_)
            | Self::Graft(())
            | Self::Prune(())
            | Self::Digest(_)
            | Self::ShardDigests(_)
            | Self::HeadsAsk(_)
            | Self::RangesAsk(_)
            | Self::DocumentsAsk(_)
            | Self::BarePull(_)
            | Self::Pull(_)
            | Self::Ack(_)
            | Self::Want(_)
            | Self::EarlierAsk(_)
            | Self::ChainAsk(_)
            | Self::BranchAsk(_)
            | Self::Busy(_) => Lane::Control,
            Self::Push(_) | Self::Announce(_) => Lane::Live,
            Self::Documents(_) => Lane::Snapshot,
            Self::Heads(_)
            | Self::Ranges(_)
            | Self::Range(_)
            | Self::BareRange(_)
            | Self::Found(_)
            | Self::Earlier(_)
            | Self::Chain(_)
            | Self::Branch(_) => Lane::Repair,
        }
    }
}
