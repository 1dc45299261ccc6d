//! The byte streams of a connection.

use serde::{Deserialize, Serialize};

/// One of the four ordered byte streams of a connection. Codes are the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// Requests, digests, acknowledgements, credit.
    Control,
    /// Pushed ops and announcements.
    Live,
    /// Answers to requests.
    Repair,
    /// Document snapshots and other bulk.
    Snapshot,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 4] = [Self::Control, Self::Live, Self::Repair, Self::Snapshot];
}

impl Serialize for Lane {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Control => 0,
            Self::Live => 1,
            Self::Repair => 2,
            Self::Snapshot => 3,
        })
    }
}

impl<'de> Deserialize<'de> for Lane {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Control),
            1 => Ok(Self::Live),
            2 => Ok(Self::Repair),
            3 => Ok(Self::Snapshot),
            other => Err(serde::de::Error::custom(format!("unknown lane {other}"))),
        }
    }
}
