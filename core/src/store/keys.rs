//! Typed keys of the keyspaces. Layout: `docs/format.md`.
//!
//! Every encoding is injective and keeps the order of the type: numbers are big-endian, ids have a fixed length, and a
//! name ends with a zero byte, which sorts before everything that may stand in a name (names hold no control
//! characters). So no name's key is the beginning of another's, and a scan by prefix finds whole names only.

use super::Span;
use crate::id::{ChangeHash, CollectionName, DocId, OpId, PrincipalId, RequestName, ShardId, StreamId};

/// Names in the keyspace `meta`.
pub mod meta {
    /// Version of the layout of keys and values: u32 big-endian, without an envelope.
    pub const SCHEMA: &str = "schema";
    /// The store's epoch.
    pub const EPOCH: &str = "epoch";
    /// The cluster that the data belongs to.
    pub const CLUSTER: &str = "cluster";
    /// The session in which this node writes.
    pub const SESSION: &str = "session";
    /// The latest hybrid logical time that this node gave out or saw.
    pub const CLOCK: &str = "clock";
}

/// First byte of the keys of the change index; other indexes in the keyspace `index` begin otherwise.
const INDEX_OF_CHANGES: u8 = 0;

/// First byte of the keys that say in which streams others write for a principal.
const INDEX_OF_WRITTEN_FOR: u8 = 2;

/// First byte of the keys of documents that have not the form their collection's schema asks.
const INDEX_OF_INVALID: u8 = 3;

/// First bytes of the keys of what documents show that no other is to show: by what is shown, by document, and of the documents that
/// show what another one has.
const INDEX_OF_CLAIMS: u8 = 5;
const INDEX_OF_CLAIMS_BY_DOCUMENT: u8 = 6;
const INDEX_OF_DUPLICATES: u8 = 7;

/// What is found in the store is not a key of the type that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} key")]
pub struct KeyError {
    /// What the key should have been.
    pub kind: &'static str,
}

/// A key of one keyspace.
pub trait Key: Sized {
    /// What errors call it.
    const KIND: &'static str;

    /// Appends the encoded key.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a key and what belongs to it from the front of `parts`.
    fn read(parts: &mut Parts<'_>) -> Option<Self>;

    /// Returns the encoded key.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.write(&mut out);
        out
    }

    /// Decodes exactly one key.
    ///
    /// # Errors
    /// [`KeyError`] if `bytes` is anything else.
    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut parts = Parts(bytes);
        Self::read(&mut parts).filter(|_| parts.is_empty()).ok_or(KeyError { kind: Self::KIND })
    }
}

/// The rest of a key that is being decoded.
#[derive(Debug)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*part)
    }

    /// Takes bytes that have to stand there.
    pub(crate) fn literal(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
    }

    fn name(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (name, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.split_first()?.1;
        std::str::from_utf8(name).ok()
    }
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(0);
}

macro_rules! fixed_key {
    ($type:ident, $len:literal, $kind:literal, $to:expr, $from:expr) => {
        impl Key for $type {
            const KIND: &'static str = $kind;

            fn write(&self, out: &mut Vec<u8>) {
                let to: fn(&Self) -> [u8; $len] = $to;
                out.extend_from_slice(&to(self));
            }

            fn read(parts: &mut Parts<'_>) -> Option<Self> {
                let from: fn([u8; $len]) -> Self = $from;
                parts.fixed().map(from)
            }
        }
    };
}

fixed_key!(u16, 2, "u16", |n| n.to_be_bytes(), u16::from_be_bytes);
fixed_key!(u64, 8, "u64", |n| n.to_be_bytes(), u64::from_be_bytes);
// The keyspace `heads`.
fixed_key!(StreamId, 32, "stream", |id| *id.as_bytes(), StreamId::new);
fixed_key!(OpId, 32, "op", |id| *id.as_bytes(), OpId::new);
fixed_key!(ChangeHash, 32, "change", |id| *id.as_bytes(), ChangeHash::new);
fixed_key!(PrincipalId, 32, "principal", |id| *id.as_bytes(), PrincipalId::new);
fixed_key!(RequestName, 16, "request", |id| *id.as_bytes(), RequestName::new);

/// Returns how many bytes of a key are that of the document it begins with; none if it begins with none.
pub(super) fn doc_key_len(key: &[u8]) -> Option<usize> {
    let collection = key.iter().position(|byte| *byte == 0)?;
    let doc = key.get(collection + 1..)?.iter().position(|byte| *byte == 0)?;
    (collection > 0 && doc > 0).then_some(collection + 1 + doc + 1)
}

/// Whether a key in `index` is of an index whose values are places in streams, which say nothing of documents.
pub(super) fn is_of_change_index(key: &[u8]) -> bool {
    matches!(key.first(), Some(&INDEX_OF_CHANGES | &INDEX_OF_WRITTEN_FOR))
}

impl Key for CollectionName {
    const KIND: &'static str = "collection";

    fn write(&self, out: &mut Vec<u8>) {
        write_name(out, self.as_str());
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        parts.name()?.parse().ok()
    }
}

impl Key for DocId {
    const KIND: &'static str = "document id";

    fn write(&self, out: &mut Vec<u8>) {
        write_name(out, self.as_str());
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        parts.name()?.parse().ok()
    }
}

impl Key for ShardId {
    const KIND: &'static str = "shard";

    fn write(&self, out: &mut Vec<u8>) {
        self.collection.write(out);
        self.index.write(out);
        self.of.write(out);
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        let shard = Self { collection: Key::read(parts)?, index: Key::read(parts)?, of: Key::read(parts)? };
        shard.is_valid().then_some(shard)
    }
}

macro_rules! composed_key {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type),*
        }

        impl Key for $name {
            const KIND: &'static str = $kind;

            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)*
            }

            fn read(parts: &mut Parts<'_>) -> Option<Self> {
                Some(Self { $($field: Key::read(parts)?),* })
            }
        }
    };
}

/// Key in `ops`; also the value in `arrivals`.
///
/// The op that this replica follows lies under (stream, seq); ops of other branches of a forked stream lie right behind
/// it, with their op id added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpKey {
    /// The stream.
    pub stream: StreamId,
    /// Position in the stream.
    pub seq: u64,
    /// The op, if it is of another branch than the one this replica follows.
    pub branch: Option<OpId>,
}

impl Key for OpKey {
    const KIND: &'static str = "op";

    fn write(&self, out: &mut Vec<u8>) {
        self.stream.write(out);
        self.seq.write(out);
        if let Some(op) = &self.branch {
            op.write(out);
        }
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        let (stream, seq) = (Key::read(parts)?, Key::read(parts)?);
        let branch = if parts.is_empty() { None } else { Some(Key::read(parts)?) };
        Some(Self { stream, seq, branch })
    }
}

impl OpKey {
    /// Returns the key of the op that this replica follows.
    #[must_use]
    pub const fn new(stream: StreamId, seq: u64) -> Self {
        Self { stream, seq, branch: None }
    }

    /// All ops of a stream, from the first, other branches included.
    #[must_use]
    pub fn stream(stream: StreamId) -> Span {
        Span::prefix(stream.encode())
    }

    /// All ops at one place of a stream: more than one if it forked there.
    #[must_use]
    pub fn place(stream: StreamId, seq: u64) -> Span {
        Span::prefix(Self::new(stream, seq).encode())
    }
}

composed_key!(
    /// Key in `arrivals`.
    ArrivalKey, "arrival" {
        /// The shard.
        shard: ShardId,
        /// This replica's count of what it committed there.
        arrival: u64,
    }
);

impl ArrivalKey {
    /// All arrivals of a shard, oldest first.
    #[must_use]
    pub fn shard(shard: &ShardId) -> Span {
        Span::prefix(shard.encode())
    }
}

composed_key!(
    /// Key in `snapshots` and in `views`.
    DocKey, "document" {
        /// The collection.
        collection: CollectionName,
        /// The document.
        doc: DocId,
    }
);

impl DocKey {
    /// All documents of a collection, by id.
    #[must_use]
    pub fn collection(collection: &CollectionName) -> Span {
        Span::prefix(collection.encode())
    }

    /// The documents of a collection whose ids begin with `prefix`.
    #[must_use]
    pub fn id_prefix(collection: &CollectionName, prefix: &str) -> Span {
        let mut key = collection.encode();
        key.extend_from_slice(prefix.as_bytes());
        Span::prefix(key)
    }
}

/// First byte of the keys in `control` of erased documents.
const CONTROL_OF_ERASED: u8 = 1;

/// Key in `control`: a document that is erased.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ErasureKey(pub DocKey);

impl Key for ErasureKey {
    const KIND: &'static str = "erased document";

    fn write(&self, out: &mut Vec<u8>) {
        out.push(CONTROL_OF_ERASED);
        self.0.write(out);
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        match parts.fixed()? {
            [CONTROL_OF_ERASED] => Key::read(parts).map(Self),
            _ => None,
        }
    }
}

impl ErasureKey {
    /// All of them.
    #[must_use]
    pub fn all() -> Span {
        Span::prefix([CONTROL_OF_ERASED])
    }
}

composed_key!(
    /// Key in `tail`.
    TailKey, "tail" {
        /// The document.
        doc: DocKey,
        /// The change.
        change: ChangeHash,
    }
);

impl TailKey {
    /// All changes in the tail of a document.
    #[must_use]
    pub fn document(doc: &DocKey) -> Span {
        Span::prefix(doc.encode())
    }
}

composed_key!(
    /// Key in `snapshots` of a part of a long history.
    SegmentKey, "segment" {
        /// The document.
        doc: DocKey,
        /// Which part; the first is 0.
        index: u64,
    }
);

impl SegmentKey {
    /// All parts of a document's history.
    #[must_use]
    pub fn document(doc: &DocKey) -> Span {
        // The document's own record has the key without a number; no number is so high that it begins otherwise.
        Span::prefix([doc.encode(), vec![0]].concat())
    }
}

composed_key!(
    /// Key in `requests`.
    RequestKey, "request" {
        /// Where it was made.
        collection: CollectionName,
        /// What the client called it.
        request: RequestName,
    }
);

/// What an op waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Missing {
    /// An op: the one before, a control head, a statement.
    Op(OpId),
    /// A change that another depends on.
    Change(ChangeHash),
}

impl Key for Missing {
    const KIND: &'static str = "missing";

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Op(op) => {
                out.push(0);
                op.write(out);
            }
            Self::Change(change) => {
                out.push(1);
                change.write(out);
            }
        }
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        match parts.fixed()? {
            [0] => Key::read(parts).map(Self::Op),
            [1] => Key::read(parts).map(Self::Change),
            _ => None,
        }
    }
}

composed_key!(
    /// Key in `pending`.
    PendingKey, "pending" {
        /// What is missing.
        missing: Missing,
        /// The op that waits for it.
        waiting: OpId,
    }
);

impl PendingKey {
    /// Everything that waits for `missing`.
    #[must_use]
    pub fn missing(missing: Missing) -> Span {
        Span::prefix(missing.encode())
    }
}

composed_key!(
    /// Key in `quarantine`.
    QuarantineKey, "quarantine" {
        /// The op.
        op: OpId,
        /// Which of its transactions.
        transaction: u16,
    }
);

impl QuarantineKey {
    /// All quarantined transactions of an op.
    #[must_use]
    pub fn op(op: OpId) -> Span {
        Span::prefix(op.encode())
    }
}

/// Key in `index`: where a change came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChangeKey(pub ChangeHash);

impl Key for ChangeKey {
    const KIND: &'static str = "change index";

    fn write(&self, out: &mut Vec<u8>) {
        out.push(INDEX_OF_CHANGES);
        self.0.write(out);
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        match parts.fixed()? {
            [INDEX_OF_CHANGES] => Key::read(parts).map(Self),
            _ => None,
        }
    }
}

/// Key in `index`: others write for the principal in the stream. Its value is the number of the first op in which they do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WrittenForKey {
    /// For whom.
    pub principal: PrincipalId,
    /// Where.
    pub stream: StreamId,
}

impl Key for WrittenForKey {
    const KIND: &'static str = "principal and stream";

    fn write(&self, out: &mut Vec<u8>) {
        out.push(INDEX_OF_WRITTEN_FOR);
        self.principal.write(out);
        self.stream.write(out);
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        match parts.fixed()? {
            [INDEX_OF_WRITTEN_FOR] => Some(Self { principal: Key::read(parts)?, stream: Key::read(parts)? }),
            _ => None,
        }
    }
}

impl WrittenForKey {
    /// Those of one principal.
    #[must_use]
    pub fn of(principal: PrincipalId) -> Span {
        Span::prefix([&[INDEX_OF_WRITTEN_FOR][..], principal.as_bytes()].concat())
    }

    /// All of them.
    #[must_use]
    pub fn all() -> Span {
        Span::prefix([INDEX_OF_WRITTEN_FOR])
    }
}

/// Under a secret of the node, the hash of a unique constraint and of the values that a document shows at its fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim(pub [u8; 16]);

fixed_key!(Claim, 16, "claim", |claim| claim.0, Claim);

/// Key in `index`: a document makes a claim. Its value is empty. Of one claim, the documents lie in the order of their ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClaimKey {
    /// The collection.
    pub collection: CollectionName,
    /// The claim.
    pub claim: Claim,
    /// The document.
    pub doc: DocId,
}

impl Key for ClaimKey {
    const KIND: &'static str = "claim of a document";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(Self::of(&self.collection, self.claim));
        self.doc.write(out);
    }

    fn read(parts: &mut Parts<'_>) -> Option<Self> {
        match parts.fixed()? {
            [INDEX_OF_CLAIMS] => {
                Some(Self { collection: Key::read(parts)?, claim: Key::read(parts)?, doc: Key::read(parts)? })
            }
            _ => None,
        }
    }
}

impl ClaimKey {
    /// What the keys of those that make a claim begin with.
    #[must_use]
    pub fn of(collection: &CollectionName, claim: Claim) -> Vec<u8> {
        let mut key = vec![INDEX_OF_CLAIMS];
        collection.write(&mut key);
        claim.write(&mut key);
        key
    }

    /// All of them.
    #[must_use]
    pub fn all() -> Span {
        Span::prefix([INDEX_OF_CLAIMS])
    }
}

macro_rules! index_of_documents {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $first:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub DocKey);

        impl Key for $name {
            const KIND: &'static str = $kind;

            fn write(&self, out: &mut Vec<u8>) {
                out.push($first);
                self.0.write(out);
            }

            fn read(parts: &mut Parts<'_>) -> Option<Self> {
                match parts.fixed()? {
                    [$first] => Key::read(parts).map(Self),
                    _ => None,
                }
            }
        }

        impl $name {
            /// What the keys of a collection's documents begin with.
            #[must_use]
            pub fn collection(collection: &CollectionName) -> Vec<u8> {
                let mut key = vec![$first];
                collection.write(&mut key);
                key
            }
        }
    };
}

index_of_documents!(
    /// Key in `index`: a document that has not the form which the schema of its collection asks. Its value is empty.
    InvalidKey, "invalid document", INDEX_OF_INVALID
);

index_of_documents!(
    /// Key in `index`: the claims of a document, and which of them a document before it makes too.
    ClaimsKey, "claims of a document", INDEX_OF_CLAIMS_BY_DOCUMENT
);

index_of_documents!(
    /// Key in `index`: a document shows what one before it shows, and what no two are to show. Its value is empty.
    DuplicateKey, "duplicate", INDEX_OF_DUPLICATES
);

composed_key!(
    /// Value of the change index: the place of a change in a stream.
    ChangePlace, "place of a change" {
        /// The stream.
        stream: StreamId,
        /// The op's position in it.
        seq: u64,
        /// Which transaction of the op.
        transaction: u16,
        /// Which change of the transaction.
        change: u16,
    }
);

#[cfg(test)]
mod tests;
