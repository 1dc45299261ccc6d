//! Writing documents.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use folkmoot_core::id::DocId;
use serde::{Deserialize, Serialize};

use super::error::{Error, ErrorCode, Result};
use super::heads::Heads;
use super::session::SessionToken;
use super::time::Timestamp;

/// One edit of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Makes a document that must not exist.
    Create {
        /// Its id; none lets the node make a time-ordered one.
        id: Option<DocId>,
        /// The text of a JSON object.
        json: Bytes,
    },
    /// Makes a document have this content, whether it exists or not.
    Put {
        /// Its id.
        id: DocId,
        /// The text of a JSON object.
        json: Bytes,
    },
    /// Changes parts of a document that exists.
    Patch {
        /// Its id.
        id: DocId,
        /// The change.
        patch: Patch,
    },
    /// Deletes a document that exists.
    Delete {
        /// Its id.
        id: DocId,
    },
}

impl Edit {
    /// Returns the id, unless it is still to be made.
    #[must_use]
    pub fn id(&self) -> Option<&DocId> {
        match self {
            Self::Create { id, .. } => id.as_ref(),
            Self::Put { id, .. } | Self::Patch { id, .. } | Self::Delete { id } => Some(id),
        }
    }
}

/// A change to parts of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// In which notation.
    pub kind: PatchKind,
    /// JSON text in that notation.
    pub body: Bytes,
}

/// The notations of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7396 JSON merge patch.
    Merge,
    /// RFC 6902 JSON patch.
    JsonPatch,
    /// Folkmoot's edit operations: increments, text splices, list inserts and removes.
    Edits,
}

impl PatchKind {
    /// Every notation.
    pub const ALL: [Self; 3] = [Self::Merge, Self::JsonPatch, Self::Edits];

    /// Returns the media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::JsonPatch => "application/json-patch+json",
            Self::Edits => "application/vnd.folkmoot.edit+json",
        }
    }

    /// Returns the notation of a media type, given without parameters.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| media_type.eq_ignore_ascii_case(kind.media_type()))
    }

    /// Returns the name used in bulk lines and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::JsonPatch => "json-patch",
            Self::Edits => "edit",
        }
    }

    /// Returns the notation of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What must hold of the document's version for the edit to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The document exists.
    Exists,
    /// The document does not exist.
    Absent,
    /// The document exists at one of these versions.
    HeadsAre(Vec<Heads>),
    /// The document does not exist at any of these versions.
    HeadsAreNot(Vec<Heads>),
}

impl Precondition {
    /// Checks the version a document has (`None`: it does not exist).
    ///
    /// # Errors
    /// [`ErrorCode::PreconditionFailed`], with the version that the document has.
    pub fn check(&self, current: Option<&Heads>) -> Result<()> {
        let holds = match self {
            Self::None => true,
            Self::Exists => current.is_some(),
            Self::Absent => current.is_none(),
            Self::HeadsAre(wanted) => current.is_some_and(|heads| wanted.contains(heads)),
            Self::HeadsAreNot(unwanted) => current.is_none_or(|heads| !unwanted.contains(heads)),
        };
        if holds {
            return Ok(());
        }
        let detail = match current {
            Some(_) => "the document has another version than the precondition asks for",
            None => "the document does not exist",
        };
        Err(Error::new(ErrorCode::PreconditionFailed, detail)
            .hint("read the document again, or send the version you edited as Folkmoot-Base to merge")
            .heads(current.cloned()))
    }
}

/// A key that makes a write safe to retry on any node: the second write with the same key answers as the first did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

/// A UUID has 36 characters; room for a line number behind a prefix of the client's choice.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

impl IdempotencyKey {
    /// Wraps a key.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidIdempotencyKey`] if it is empty, longer than 128 bytes, or holds other than visible ASCII characters.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() || text.len() > IDEMPOTENCY_KEY_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::new(
                ErrorCode::InvalidIdempotencyKey,
                format!("an idempotency key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"),
            ));
        }
        Ok(Self(text))
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key of one line of a bulk request that has this key.
    ///
    /// # Errors
    /// As [`Self::new`], when the key leaves no room for the number.
    pub fn line(&self, number: u64) -> Result<Self> {
        Self::new(format!("{}:{number}", self.0))
    }
}

/// On how many replicas a write must be durable before it is acknowledged. It is always durable on the node that took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On the node that took it.
    #[default]
    Local,
    /// On so many replicas, that node included.
    Peers(u16),
    /// On more than half of the replicas.
    Majority,
    /// On all replicas.
    All,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Peers(n) => write!(f, "{n}"),
            Self::Majority => f.write_str("majority"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "local" => Ok(Self::Local),
            "majority" => Ok(Self::Majority),
            "all" => Ok(Self::All),
            number => match number.parse::<u16>() {
                Ok(n) if n >= 1 => Ok(Self::Peers(n)),
                Ok(_) | Err(_) => Err(Error::new(
                    ErrorCode::InvalidDurability,
                    "durability must be local, majority, all, or a number of replicas from 1",
                )),
            },
        }
    }
}

/// How to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// What must hold of the document now.
    pub precondition: Precondition,
    /// The version that the edit was made against: it is applied on top of that version and merges with what came since.
    pub merge_onto: Option<Heads>,
    /// Makes the write safe to retry.
    pub idempotency_key: Option<IdempotencyKey>,
    /// When to acknowledge.
    pub durability: Durability,
    /// How long to wait for the durability; none takes the node's default.
    pub timeout: Option<Duration>,
    /// Write onto a state at least as new as this.
    pub session: Option<SessionToken>,
}

/// One edit among many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkOp {
    /// The edit.
    pub edit: Edit,
    /// What must hold of the document then.
    pub precondition: Precondition,
    /// The version that the edit was made against.
    pub merge_onto: Option<Heads>,
    /// Makes the edit safe to retry.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl From<Edit> for BulkOp {
    fn from(edit: Edit) -> Self {
        Self { edit, precondition: Precondition::None, merge_onto: None, idempotency_key: None }
    }
}

/// Whether many edits stand or fall together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Atomicity {
    /// Each for itself.
    #[default]
    Each,
    /// All or none, on every replica; at most [`BulkOptions::ATOMIC_EDITS_MAX`] edits, in one shard.
    AllOrNothing,
}

/// How to write many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BulkOptions {
    /// Whether the edits stand or fall together.
    pub atomicity: Atomicity,
    /// When to acknowledge.
    pub durability: Durability,
    /// How long to wait for the durability; none takes the node's default.
    pub timeout: Option<Duration>,
    /// Write onto a state at least as new as this.
    pub session: Option<SessionToken>,
}

impl BulkOptions {
    /// Edits of one call at most.
    pub const EDITS_MAX: usize = 1_024;
    /// Bytes of the edits of one call at most; one document of the largest size always fits.
    pub const BYTES_MAX: usize = 8 << 20;
    /// Edits that can stand or fall together: they are one transaction of one op.
    pub const ATOMIC_EDITS_MAX: usize = folkmoot_core::limits::OP_CHANGES_MAX;
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum WriteStatus {
    /// The document is new.
    Created,
    /// The document changed.
    Updated,
    /// The document was like this already; nothing was written.
    Unchanged,
    /// The document is deleted.
    Deleted,
}

impl WriteStatus {
    /// Returns the name used in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

/// On how many replicas a write is known to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DurabilityReached {
    /// What was asked for.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "majority"))]
    pub requested: Durability,
    /// Replicas that hold it durably, this node included.
    pub replicas: u16,
    /// How many that needed.
    pub needed: u16,
}

impl DurabilityReached {
    /// Durable on the node that took it, as asked.
    pub const LOCAL: Self = Self { requested: Durability::Local, replicas: 1, needed: 1 };

    /// Returns whether it is what was asked for. If not, the write stands and replicates further all the same.
    #[must_use]
    pub const fn is_satisfied(&self) -> bool {
        self.replicas >= self.needed
    }
}

/// The answer to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The document's id.
    pub id: DocId,
    /// Its version after the write; of a deleted document, the version that was deleted.
    pub heads: Heads,
    /// What the write did.
    pub status: WriteStatus,
    /// When it was made, by this node's clock.
    pub modified: Timestamp,
    /// Where it is durable.
    pub durability: DurabilityReached,
    /// What to send back for a state at least as new.
    pub session: Option<SessionToken>,
}

#[cfg(test)]
mod tests {
    use folkmoot_core::id::ChangeHash;

    use super::*;

    #[test]
    fn durability_reads_what_it_writes() {
        for text in ["local", "2", "65535", "majority", "all"] {
            assert_eq!(text.parse::<Durability>().unwrap().to_string(), text);
        }
        for bad in ["", "0", "-1", "65536", "Local", "region:2", "two"] {
            assert_eq!(bad.parse::<Durability>().map_err(|e| e.code()), Err(ErrorCode::InvalidDurability), "{bad}");
        }
    }

    #[test]
    fn preconditions_hold_for_what_they_say() {
        let heads = |byte| Heads::new(vec![ChangeHash::new([byte; 32])]);
        let (one, two) = (heads(1), heads(2));
        let cases: [(Precondition, [bool; 3]); 5] = [
            (Precondition::None, [true, true, true]),
            (Precondition::Exists, [false, true, true]),
            (Precondition::Absent, [true, false, false]),
            (Precondition::HeadsAre(vec![one.clone()]), [false, true, false]),
            (Precondition::HeadsAreNot(vec![one.clone()]), [true, false, true]),
        ];
        for (precondition, expected) in cases {
            let got = [None, Some(&one), Some(&two)].map(|current| precondition.check(current).is_ok());
            assert_eq!(got, expected, "{precondition:?}");
        }
        let error = Precondition::Absent.check(Some(&two)).unwrap_err();
        assert_eq!((error.code(), error.current_heads()), (ErrorCode::PreconditionFailed, Some(&two)));
    }

    #[test]
    fn keys_are_bounded() {
        assert!(IdempotencyKey::new("a".repeat(128)).is_ok());
        for bad in ["", "a b", "ä", &"a".repeat(129)] {
            assert!(IdempotencyKey::new(bad).is_err(), "{bad}");
        }
        assert_eq!(IdempotencyKey::new("k").unwrap().line(7).unwrap().as_str(), "k:7");
    }
}
