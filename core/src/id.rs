//! Ids and hashes as newtypes over fixed bytes, and the checked names of collections and documents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::{Domain, hash};
use crate::limits;

/// Why a text is not the id or name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text is not hexadecimal of the right length.
    #[error("{kind} must be {chars} hexadecimal characters")]
    Hex {
        /// Which id was expected.
        kind: &'static str,
        /// How many characters it has.
        chars: usize,
    },
    /// The name of a collection breaks its rule.
    #[error(
        "collection name must be 1 to {max} characters of a-z, 0-9, '_', '-' and '.', beginning with a letter, a digit or '_'",
        max = limits::COLLECTION_NAME_BYTES_MAX
    )]
    Collection,
    /// A document id breaks its rule.
    #[error(
        "document id must be 1 to {max} bytes of text without control characters, and neither '.' nor '..'",
        max = limits::DOC_ID_BYTES_MAX
    )]
    Doc,
}

fn hex_decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(out)
}

/// Writes bytes as hexadecimal digits, in one piece: every answer has ids in it, and a formatted write for each byte costs
/// ten times as much.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const PIECE: usize = 32;
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; PIECE * 2];
    for piece in bytes.chunks(PIECE) {
        for (pair, byte) in digits.chunks_exact_mut(2).zip(piece) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        let written = digits.get(..piece.len() * 2).and_then(|digits| std::str::from_utf8(digits).ok());
        f.write_str(written.unwrap_or_default())?;
    }
    Ok(())
}

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// All bytes zero: "none" where the format has a fixed field.
            pub const ZERO: Self = Self([0; $len]);
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps raw bytes; every value of this length is a valid one.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Returns the raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Returns the id if `bytes` has exactly the right length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(bytes.try_into().ok()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            /// The first four bytes: enough to tell ids apart in a trace.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, self.0.get(..4).unwrap_or(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                hex_decode(text).map(Self).ok_or(ParseIdError::Hex { kind: $kind, chars: $len * 2 })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} bytes of a {}", $len, $kind)
                    }

                    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        $name::from_slice(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)
                } else {
                    deserializer.deserialize_bytes(Visitor)
                }
            }
        }
    };
}

fixed_bytes!(
    /// The cluster: the op id of its genesis. Part of every signed header, so ops of one cluster mean nothing in another.
    ClusterId, 32, "cluster id"
);
fixed_bytes!(
    /// An ed25519 public key that appends to streams: a node's, or an app user's or device's own.
    AuthorKey, 32, "author key"
);
fixed_bytes!(
    /// Eight random bytes that an author draws whenever it cannot prove that its last op is on its disk.
    SessionId, 8, "session id"
);
fixed_bytes!(
    /// Hash of an op header. A control act is named by the id of the op that carries it, and so is the statement it makes.
    OpId, 32, "op id"
);
fixed_bytes!(
    /// Identity of a stream: hash of (collection, shard, author, certificate, session). See [`crate::op::StreamKey`].
    StreamId, 32, "stream id"
);
fixed_bytes!(
    /// On whose behalf a write is made: the op id of the principal's first certificate (the genesis for the owner).
    PrincipalId, 32, "principal id"
);
fixed_bytes!(
    /// Automerge's hash of a change (SHA-256 of its chunk).
    ChangeHash, 32, "change hash"
);
fixed_bytes!(
    /// Salted hash of a body, signed in the header: after an erase nobody can test guesses against it.
    Commitment, 32, "commitment"
);
fixed_bytes!(
    /// What tells the secret of an API token: its hash.
    TokenVerifier, 32, "token verifier"
);
fixed_bytes!(
    /// Names a pepper: its hash.
    PepperId, 32, "pepper id"
);
fixed_bytes!(
    /// The public half of an X25519 key that seals a pepper once.
    ExchangeKey, 32, "exchange key"
);
fixed_bytes!(
    /// A pepper sealed for one node: ciphertext and tag.
    SealedPepper, 48, "sealed pepper"
);
fixed_bytes!(
    /// The random salt that lies and goes with a body.
    Salt, 16, "salt"
);
fixed_bytes!(
    /// What a client calls a request, hashed with the collection: first half of a [`RequestId`].
    RequestName, 16, "request name"
);
fixed_bytes!(
    /// What makes a request safe to retry: the hash of its name and the hash of what was asked, 16 bytes each.
    RequestId, 32, "request id"
);
fixed_bytes!(
    /// Automerge actor id: the first 16 bytes of a hash of author, certificate, principal, document and session.
    ActorId, 16, "actor id"
);
fixed_bytes!(
    /// Names one life of a store: drawn when the store is made, part of every cursor into its arrivals.
    StoreEpoch, 8, "store epoch"
);

impl RequestId {
    /// Returns what the client called the request: the same for two requests exactly if they use the same key.
    #[must_use]
    pub fn name(&self) -> RequestName {
        let mut name = [0; RequestName::LEN];
        for (to, from) in name.iter_mut().zip(self.0) {
            *to = from;
        }
        RequestName(name)
    }
}

impl From<OpId> for PrincipalId {
    fn from(id: OpId) -> Self {
        Self(id.0)
    }
}

impl PrincipalId {
    /// Returns the op whose act introduced this principal.
    #[must_use]
    pub const fn introduced_by(self) -> OpId {
        OpId(self.0)
    }

    /// Returns what the ids of the principal's own documents begin with: the first 16 bytes of the principal id in base32
    /// (RFC 4648, lower case, without padding) and a dot, 27 characters.
    ///
    /// It follows from the id alone, so nobody else can come to have it, and whose a document is never changes. Half of the
    /// hash is enough: to find another principal with the same 16 bytes takes about 2^128 tries.
    #[must_use]
    pub fn own_prefix(&self) -> String {
        const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut text = String::with_capacity(27);
        let (mut bits, mut count) = (0_u16, 0);
        let mut push = |bits: u16| text.extend(DIGITS.get(usize::from(bits & 31)).map(|digit| char::from(*digit)));
        for byte in self.0.iter().take(16) {
            bits = bits << 8 | u16::from(*byte);
            count += 8;
            while count >= 5 {
                count -= 5;
                push(bits >> count);
            }
        }
        // Three bits are left of 128.
        push(bits << 2);
        text.push('.');
        text
    }

    /// Returns whether a document is the principal's own.
    #[must_use]
    pub fn owns(&self, doc: &DocId) -> bool {
        doc.as_str().starts_with(&self.own_prefix())
    }
}

impl TokenVerifier {
    /// Returns the verifier of a password, of what Argon2id made of it and a pepper; see [`crate::pepper`].
    pub(crate) fn of_password(pepper: &[u8; 32], hashed: &[u8; 32]) -> Self {
        Self(hash(Domain::Token, &[b"password", pepper, hashed]))
    }

    /// Returns the verifier of a secret.
    #[must_use]
    pub fn of(secret: &[u8; 32]) -> Self {
        Self(hash(Domain::Token, &[secret]))
    }

    /// Returns the verifier of a certificate by its public key (`SubjectPublicKeyInfo`, DER).
    #[must_use]
    pub fn of_certificate(public_key: &[u8]) -> Self {
        Self(hash(Domain::Token, &[b"certificate", public_key]))
    }

    /// Returns the verifier of a subject of an issuer of JSON Web Tokens (the claims `iss` and `sub`, RFC 7519).
    #[must_use]
    pub fn of_subject(issuer: &str, subject: &str) -> Self {
        Self(hash(Domain::Token, &[b"subject", issuer.as_bytes(), subject.as_bytes()]))
    }
}

impl From<OpId> for ClusterId {
    fn from(id: OpId) -> Self {
        Self(id.0)
    }
}

impl ClusterId {
    /// Returns the id of the genesis op.
    #[must_use]
    pub const fn genesis(self) -> OpId {
        OpId(self.0)
    }
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $valid:path, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $valid(text) { Ok(Self(text.into())) } else { Err($error) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn collection_name_is_valid(text: &str) -> bool {
    let bytes = text.as_bytes();
    let first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
    bytes.first().is_some_and(first)
        && bytes.len() <= limits::COLLECTION_NAME_BYTES_MAX
        && bytes.iter().all(|b| first(b) || *b == b'-' || *b == b'.')
}

fn doc_id_is_valid(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= limits::DOC_ID_BYTES_MAX
        && !text.chars().any(char::is_control)
        && text != "."
        && text != ".."
}

checked_name!(
    /// Name of a collection; those that begin with `_` belong to the system.
    CollectionName, collection_name_is_valid, ParseIdError::Collection
);
checked_name!(
    /// Id of a document within its collection, chosen by the client or generated.
    DocId, doc_id_is_valid, ParseIdError::Doc
);

impl CollectionName {
    /// The name of the system collection that holds the control log.
    pub const CONTROL: &'static str = "_control";

    /// Returns the collection of the control log.
    #[must_use]
    pub fn control() -> Self {
        Self(Self::CONTROL.into())
    }

    /// Returns whether the collection belongs to the system and no client may write to it.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with('_')
    }
}

/// A fixed fraction of a collection: documents whose id hashes to `index` modulo `of`.
///
/// The count is part of the id, so that whether an op lies in the right shard can be checked from the op alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ShardId {
    /// The collection.
    pub collection: CollectionName,
    /// Which fraction, below `of`.
    pub index: u16,
    /// How many fractions the collection has, 1 to [`limits::SHARDS_MAX`].
    pub of: u16,
}

impl ShardId {
    /// Returns the shard of the control log.
    #[must_use]
    pub fn control() -> Self {
        Self { collection: CollectionName::control(), index: 0, of: 1 }
    }

    /// Returns whether this is the control log's shard.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.collection.as_str() == CollectionName::CONTROL
    }

    /// Returns the shard in which a document lies when its collection has `of` shards; `of` = 0 counts as 1.
    #[must_use]
    pub fn of_document(collection: &CollectionName, doc: &DocId, of: u16) -> Self {
        let of = of.max(1);
        if of == 1 {
            return Self { collection: collection.clone(), index: 0, of };
        }
        let digest = hash(Domain::Placement, &[collection.as_str().as_bytes(), doc.as_str().as_bytes()]);
        let [a, b, c, d, ..] = digest;
        let index = u32::from_le_bytes([a, b, c, d]) % u32::from(of);
        // Below `of`, so it fits.
        Self { collection: collection.clone(), index: index as u16, of }
    }

    /// Returns whether the numbers are in bounds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.of >= 1 && self.of <= limits::SHARDS_MAX && self.index < self.of
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}of{}", self.collection, self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_other_texts() {
        let id = OpId::new([0xa5; 32]);
        assert_eq!(id.to_string().parse::<OpId>(), Ok(id));
        for bad in ["", "a5", &"A5".repeat(32), &"zz".repeat(32), &"a5".repeat(33)] {
            assert!(bad.parse::<OpId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn own_prefixes_are_base32_of_half_the_id() {
        let mut bytes = [0xff; 32];
        bytes[..10].copy_from_slice(b"foobarfoob");
        // RFC 4648, section 10, gives "MZXW6YTB" for "fooba".
        let prefix = PrincipalId::new(bytes).own_prefix();
        assert_eq!(prefix, "mzxw6ytbojtg633c7777777774.");
        assert_eq!(prefix.len(), 27);
        assert!(prefix.parse::<DocId>().is_ok());
        assert!(PrincipalId::new(bytes).owns(&format!("{prefix}x").parse().unwrap()));
        assert!(!PrincipalId::new([0; 32]).owns(&format!("{prefix}x").parse().unwrap()));
    }

    #[test]
    fn names_are_checked() {
        for good in ["cities", "a", "0", "_control", "a.b-c_d"] {
            assert!(good.parse::<CollectionName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", ".a", "a/b", "ä", &"a".repeat(65)] {
            assert!(bad.parse::<CollectionName>().is_err(), "{bad}");
        }
        for good in ["x", "Zürich/1", "a b", &"a".repeat(256)] {
            assert!(good.parse::<DocId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a\nb", "a\0", &"a".repeat(257)] {
            assert!(bad.parse::<DocId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn documents_spread_over_shards() {
        let collection: CollectionName = "c".parse().unwrap();
        let mut seen = [0u32; 8];
        for i in 0..8_000 {
            let shard = ShardId::of_document(&collection, &format!("d{i}").parse().unwrap(), 8);
            assert!(shard.is_valid());
            seen[usize::from(shard.index)] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
    }
}
