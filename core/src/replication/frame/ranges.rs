//! What frames say of ranges of heads, and of single heads.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::bounds;
use crate::id::{OpId, ShardId, StreamId};
use crate::op::codec::{self, tagged_enum};
use crate::replication::digest::{HeadState, Tip};

/// Where a range of stream ids begins or ends: the id without the zero bytes at its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Edge(pub StreamId);

impl Edge {
    /// Returns where a range ends that has this as its upper edge: nowhere if it is empty.
    #[must_use]
    pub fn end(self) -> Option<StreamId> {
        (self.0 != StreamId::ZERO).then_some(self.0)
    }
}

impl From<StreamId> for Edge {
    fn from(stream: StreamId) -> Self {
        Self(stream)
    }
}

impl From<Option<StreamId>> for Edge {
    fn from(end: Option<StreamId>) -> Self {
        Self(end.unwrap_or(StreamId::ZERO))
    }
}

impl Serialize for Edge {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_bytes();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        serializer.serialize_bytes(bytes.get(..end).unwrap_or(bytes))
    }
}

impl<'de> Deserialize<'de> for Edge {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteBuf::deserialize(deserializer)?;
        let mut id = [0; StreamId::LEN];
        let Some(head) = id.get_mut(..bytes.len()) else {
            return Err(serde::de::Error::invalid_length(bytes.len(), &"at most a stream id"));
        };
        head.copy_from_slice(&bytes);
        Ok(Self(StreamId::new(id)))
    }
}

/// Fingerprint of the heads in a range, under the session's salt, and their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sum {
    /// First 8 bytes of a hash of the sum.
    pub fingerprint: u64,
    /// Number of heads.
    pub count: u64,
}

/// Asks where ranges of heads differ.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RangesAsk {
    /// Names the answer.
    pub request: u32,
    /// The shard.
    pub shard: ShardId,
    /// Salt of the session.
    pub salt: crate::id::Salt,
    /// The ranges, in order of stream id.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::RANGES_ASK_MAX }, _, _>")]
    pub ranges: Vec<RangeWanted>,
}

/// A range of stream ids, and what the asker has in it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RangeWanted {
    /// The first id that may be in it.
    pub lower: Edge,
    /// The first id behind it; empty if there is none.
    pub upper: Edge,
    /// What the asker has.
    pub has: RangeHas,
}

/// First 8 bytes of the salted hashes of heads.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ItemHashes(
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::RANGE_ITEMS_MAX }, _, _>")] pub Vec<u64>,
);

tagged_enum! {
    /// What the asker has in a range.
    #[derive(Clone, PartialEq, Debug)]
    pub enum RangeHas {
        /// More than it names one by one.
        0 => Sum(Sum),
        /// These.
        1 => Items(ItemHashes),
    }
}

/// Says where ranges of heads differ.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ranges {
    /// The request.
    pub request: u32,
    /// The sender's last arrival in the shard.
    pub arrival: u64,
    /// Parts of the ranges, in their order, each beginning where the one before or the range began.
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::RANGE_PARTS_MAX }, _, _>")]
    pub parts: Vec<RangePart>,
}

/// A part of a range.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RangePart {
    /// The first id behind it; empty if there is none.
    pub upper: Edge,
    /// What is in it.
    pub says: RangeSays,
}

/// Lines of heads.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct HeadLines(
    #[serde(deserialize_with = "codec::bounded_list::<{ bounds::HEADS_PAGE_MAX }, _, _>")] pub Vec<HeadLine>,
);

tagged_enum! {
    /// What is in a part of a range.
    #[derive(Clone, PartialEq, Debug)]
    pub enum RangeSays {
        /// The same on both sides.
        0 => Equal(()),
        /// This.
        1 => Sum(Sum),
        /// All that the asker lacks is in these lines.
        2 => Lines(HeadLines),
    }
}

/// A line of a page of heads.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct HeadLine {
    /// The stream.
    pub stream: StreamId,
    /// Sequence number: of the head, or of the fork.
    pub seq: u64,
    /// Op id of the head, or of the pin of a forked stream; zero where there is none.
    pub id: OpId,
    /// Sequence number of the pin of a forked stream, or none.
    pub pin: u64,
    /// Whether the stream is forked.
    pub forked: bool,
}

impl RangeSays {
    pub(super) fn line_count(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.0.len(),
            Self::Equal(()) | Self::Sum(_) => 0,
        }
    }
}

impl HeadLine {
    /// Makes the line of a stream.
    #[must_use]
    pub fn new(stream: StreamId, state: &HeadState) -> Self {
        match state {
            HeadState::Open(tip) => Self { stream, seq: tip.seq, id: tip.id, pin: 0, forked: false },
            HeadState::Forked { seq, pin } => {
                let pin = pin.unwrap_or(Tip::START);
                Self { stream, seq: *seq, id: pin.id, pin: pin.seq, forked: true }
            }
        }
    }

    /// Returns what the line says.
    #[must_use]
    pub fn state(&self) -> HeadState {
        if self.forked {
            let pin = (self.pin > 0).then_some(Tip { seq: self.pin, id: self.id });
            HeadState::Forked { seq: self.seq, pin }
        } else {
            HeadState::Open(Tip { seq: self.seq, id: self.id })
        }
    }
}
