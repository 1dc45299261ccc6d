//! Bodies: what a header commits to, and carries beside it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use crate::hash::{Domain, hash};
use crate::id::{ChangeHash, Commitment, Salt};
use crate::limits;

/// A salted body: the raw bytes of an Automerge change, or an encoded [`Delete`], as the header's action says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// 16 random bytes, drawn for this body alone.
    pub salt: Salt,
    /// The content.
    pub bytes: Bytes,
}

impl Body {
    /// Returns what the header signs for this body.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        Commitment::new(hash(Domain::Commitment, &[self.salt.as_bytes(), &self.bytes]))
    }
}

impl Serialize for Body {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.salt, serde_bytes::Bytes::new(&self.bytes)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (salt, bytes) = <(Salt, serde_bytes::ByteBuf)>::deserialize(deserializer)?;
        Ok(Self { salt, bytes: bytes.into_vec().into() })
    }
}

/// The body of a delete: it covers these heads and all their ancestors. A document is deleted when every accepted
/// change of it is covered, so a change concurrent with the delete brings it back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delete {
    /// The heads that the deleter had seen, ascending, at least one.
    pub heads: Vec<ChangeHash>,
}

impl Delete {
    /// Encodes the delete as a body's content.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    /// Decodes and checks a body's content.
    ///
    /// # Errors
    /// [`CodecError`] if it is not canonical, or the heads are none, too many or out of order.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let delete: Self = codec::decode(bytes, limits::CHANGE_DEPS_MAX * 34 + 8)?;
        let sorted = super::check::ascending(delete.heads.iter()).is_some();
        if delete.heads.is_empty() || delete.heads.len() > limits::CHANGE_DEPS_MAX || !sorted {
            return Err(CodecError::NotCanonical);
        }
        Ok(delete)
    }
}
