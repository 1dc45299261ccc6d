//! The acts of the control log: what defines the cluster, its members and their rights.
//!
//! An act is carried by one op of the shard `_control`. *Statements* (certify, member, grant, and later role and duty)
//! give something `to` somebody at an explicit rank; the id of the carrying op is the id of the statement.

use serde::{Deserialize, Serialize};

use super::codec::tagged_enum;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, CollectionName, OpId, PrincipalId, Salt, StreamId};
use crate::limits;

/// How strong a statement or act is: −1 recovery, 0 owners, greater is weaker. Says who may cut whom, never what one may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub i16);

impl Rank {
    /// Rank of the recovery set.
    pub const RECOVERY: Self = Self(-1);
    /// Rank of the owner set.
    pub const OWNER: Self = Self(0);
    /// Usual rank of admins.
    pub const ADMIN: Self = Self(10);
    /// Usual rank of member nodes.
    pub const NODE: Self = Self(20);
    /// Usual rank of users and service accounts.
    pub const USER: Self = Self(30);
    /// Usual rank of devices and app installs.
    pub const DEVICE: Self = Self(40);
}

/// A control act with what it is done under.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Control {
    /// Ids of the statements that the act is done under, the certificate of the signing key among them;
    /// ascending, at most [`limits::PROOF_MAX`]. Empty for the genesis only.
    pub proof: Vec<OpId>,
    /// What is done.
    pub act: Act,
}

tagged_enum! {
    /// What a control op does. Tags 32 to 47 are kept for role, duty, evidence, rotate_owner, recover and erase.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Act {
        /// Begins the cluster. Its op id is the cluster id.
        0 => Genesis(Genesis),
        /// Gives a key to a principal.
        1 => Certify(Certify),
        /// Makes a principal's key a member node.
        2 => Member(Member),
        /// Gives a role to a principal.
        3 => Grant(Grant),
        /// Cuts a statement or all of a principal's, with pins.
        4 => Revoke(Revoke),
        /// Moves the pins of a revocation forward.
        5 => Readmit(Readmit),
        /// Configures a collection.
        6 => Collection(Collection),
        /// Sets the version of the verdict rules.
        7 => Rules(Rules),
        /// An owner's consent to another owner's act, where the threshold is above one.
        8 => Approve(Approve),
    }
}

/// The root of trust.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Genesis {
    /// Name for people.
    pub name: String,
    /// Owner keys, ascending.
    pub owners: Vec<AuthorKey>,
    /// How many owners an act of strength 0 needs.
    pub threshold: u8,
    /// Hashes of the recovery keys, ascending (pre-rotation: the keys show themselves only when used).
    #[serde(with = "hash_list")]
    pub recovery: Vec<[u8; 32]>,
    /// How many recovery keys a recovery needs.
    pub recovery_threshold: u8,
    /// Rules that the cluster begins with.
    pub rules: u32,
    /// Makes two clusters of the same owner differ.
    pub nonce: Salt,
}

/// "This key speaks for this principal."
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Certify {
    /// The principal; none makes a new one, named by this op's id.
    pub principal: Option<PrincipalId>,
    /// The key.
    pub key: AuthorKey,
    /// Rank of the statement.
    pub rank: Rank,
    /// Ops with a later time do not count.
    pub not_after: Option<Hlc>,
    /// Name for people.
    pub name: String,
}

/// "This key is a member node."
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The node's principal.
    pub principal: PrincipalId,
    /// The node's key, which is also its libp2p identity.
    pub key: AuthorKey,
    /// Rank of the statement.
    pub rank: Rank,
    /// When the membership ends.
    pub not_after: Option<Hlc>,
    /// Labels for people and for placement (region, zone, kind …), by name, ascending.
    pub labels: Vec<(String, String)>,
}

/// "This principal has this role on this target."
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Who gets it.
    pub principal: PrincipalId,
    /// The role.
    pub role: Role,
    /// On what.
    pub target: Target,
    /// Rank of the statement.
    pub rank: Rank,
    /// Ops with a later time do not count.
    pub not_after: Option<Hlc>,
}

tagged_enum! {
    /// A role: a named set of actions.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Role {
        /// One that is part of the rules.
        0 => BuiltIn(BuiltInRole),
    }
}

/// The roles that are part of the rules. Codes are the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BuiltInRole {
    /// Everything, collections and statements included.
    Admin,
    /// Reads, creates, updates and deletes documents.
    Editor,
    /// Reads documents.
    Reader,
}

impl Serialize for BuiltInRole {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Admin => 1,
            Self::Editor => 2,
            Self::Reader => 3,
        })
    }
}

impl<'de> Deserialize<'de> for BuiltInRole {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Ok(Self::Admin),
            2 => Ok(Self::Editor),
            3 => Ok(Self::Reader),
            other => Err(serde::de::Error::custom(format!("unknown role {other}"))),
        }
    }
}

/// What a right is about. Later versions add documents and field paths.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Target {
    /// A collection name, a prefix followed by `*`, or `*` alone. System collections are never matched.
    pub collections: String,
}

impl Target {
    /// Every collection.
    #[must_use]
    pub fn everything() -> Self {
        Self { collections: "*".to_owned() }
    }

    /// Returns whether the collection lies within the target.
    #[must_use]
    pub fn matches(&self, collection: &CollectionName) -> bool {
        !collection.is_system()
            && match self.collections.strip_suffix('*') {
                Some(prefix) => collection.as_str().starts_with(prefix),
                None => collection.as_str() == self.collections,
            }
    }

    /// Returns whether everything within `other` lies within this target too.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match self.collections.strip_suffix('*') {
            Some(prefix) => other.collections.starts_with(prefix),
            None => other.collections == self.collections,
        }
    }

    fn is_valid(&self) -> bool {
        let name = self.collections.strip_suffix('*').unwrap_or(&self.collections);
        (name.is_empty() && self.collections == "*")
            || name.parse::<CollectionName>().is_ok_and(|name| !name.is_system())
    }
}

/// The last op of a stream that a revoker or readmitter lets stand, and with it the ends of earlier sessions that the first op
/// of the stream names, and so on; except in streams that have a pin of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Pin {
    /// The stream.
    pub stream: StreamId,
    /// Sequence number of that op; 0 if nothing of the stream stands, whatever a later session names.
    pub seq: u64,
    /// Its id: only the chain that ends here stands. Zero at 0.
    pub head: OpId,
}

tagged_enum! {
    /// What a revocation cuts.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum RevokeTarget {
        /// One statement.
        0 => Statement(OpId),
        /// Every statement given to a principal that the revoker had not seen to know of this revocation.
        1 => Principal(PrincipalId),
    }
}

/// A revocation. What lies within its pins stands. Streams that are neither listed nor named by the chain of one that is are
/// cut as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revoke {
    /// What it cuts.
    pub target: RevokeTarget,
    /// What stands, ascending by stream.
    pub pins: Vec<Pin>,
    /// Also cut what was given under the cut statements.
    pub cascade: bool,
    /// Reason for people.
    pub why: String,
}

/// Lets more of the revoked streams stand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Readmit {
    /// The revocation.
    pub revocation: OpId,
    /// What stands besides, ascending by stream.
    pub pins: Vec<Pin>,
}

/// Configuration of a collection. Of several effective ones, that with the greatest (time, op id) counts, except that
/// the number of shards is that of the smallest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Collection {
    /// Its name.
    pub name: CollectionName,
    /// Number of shards, fixed at creation.
    pub shards: u16,
    /// Declared field types, by JSON pointer, ascending.
    pub types: Vec<FieldDeclaration>,
    /// Whether the collection is dropped: its documents are hidden and new ones refused at the edge.
    pub dropped: bool,
}

/// How the field at a JSON pointer merges. `*` stands for any list element or key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct FieldDeclaration {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// Its type.
    pub kind: FieldKind,
}

/// Types beyond plain JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FieldKind {
    /// A string that merges character by character.
    Text,
    /// A number to which concurrent increments add up.
    Counter,
    /// Milliseconds since 1970, shown as RFC 3339.
    Timestamp,
    /// Bytes, shown as base64.
    Bytes,
}

impl Serialize for FieldKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Text => 1,
            Self::Counter => 2,
            Self::Timestamp => 3,
            Self::Bytes => 4,
        })
    }
}

impl<'de> Deserialize<'de> for FieldKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Ok(Self::Text),
            2 => Ok(Self::Counter),
            3 => Ok(Self::Timestamp),
            4 => Ok(Self::Bytes),
            other => Err(serde::de::Error::custom(format!("unknown field type {other}"))),
        }
    }
}

/// Sets the version of the verdict rules.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rules {
    /// The version from which on is judged.
    pub version: u32,
}

/// An owner's consent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approve {
    /// The act consented to.
    pub act: OpId,
}

/// A statement as the rule sees it: something given to a principal at a rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statement<'a> {
    /// Whom it is given to.
    pub to: PrincipalId,
    /// Its rank.
    pub rank: Rank,
    /// When it ends.
    pub not_after: Option<Hlc>,
    /// The act that makes it.
    pub act: &'a Act,
}

impl Act {
    /// Returns the statement that the act makes, if it makes one; `id` is the op that carries it.
    /// The genesis counts as a certificate of rank 0 of the owner keys for the owner principal.
    #[must_use]
    pub fn statement(&self, id: OpId) -> Option<Statement<'_>> {
        let (to, rank, not_after) = match self {
            Self::Genesis(_) => (PrincipalId::from(id), Rank::OWNER, None),
            Self::Certify(c) => (c.principal.unwrap_or_else(|| PrincipalId::from(id)), c.rank, c.not_after),
            Self::Member(m) => (m.principal, m.rank, m.not_after),
            Self::Grant(g) => (g.principal, g.rank, g.not_after),
            Self::Revoke(_) | Self::Readmit(_) | Self::Collection(_) | Self::Rules(_) | Self::Approve(_) => {
                return None;
            }
        };
        Some(Statement { to, rank, not_after, act: self })
    }

    /// Returns whether the act gives this key to somebody.
    #[must_use]
    pub fn certifies(&self, key: AuthorKey) -> bool {
        match self {
            Self::Genesis(genesis) => genesis.owners.contains(&key),
            Self::Certify(certify) => certify.key == key,
            Self::Member(_)
            | Self::Grant(_)
            | Self::Revoke(_)
            | Self::Readmit(_)
            | Self::Collection(_)
            | Self::Rules(_)
            | Self::Approve(_) => false,
        }
    }

    /// Returns the pins that a revocation or readmission sets.
    #[must_use]
    pub fn pins(&self) -> &[Pin] {
        match self {
            Self::Revoke(revoke) => &revoke.pins,
            Self::Readmit(readmit) => &readmit.pins,
            Self::Genesis(_)
            | Self::Certify(_)
            | Self::Member(_)
            | Self::Grant(_)
            | Self::Collection(_)
            | Self::Rules(_)
            | Self::Approve(_) => &[],
        }
    }

    /// Checks what can be checked from the act alone; says what is wrong.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let rank = |rank: Rank| (rank.0 >= 1 && rank.0 <= limits::RANK_MAX).then_some(()).ok_or("rank out of bounds");
        let text = |text: &str| (text.len() <= limits::ACT_TEXT_BYTES_MAX).then_some(()).ok_or("text too long");
        let pins = |pins: &[Pin]| {
            if pins.len() > limits::PINS_MAX {
                return Err("too many pins");
            }
            if pins.iter().any(|pin| (pin.seq == 0) != (pin.head == OpId::ZERO)) {
                return Err("sequence and op of a pin disagree");
            }
            ascending(pins.iter().map(|pin| pin.stream)).ok_or("pins out of order")
        };
        match self {
            Self::Genesis(g) => {
                text(&g.name)?;
                if g.owners.is_empty() || g.owners.len() > limits::OWNERS_MAX || g.recovery.len() > limits::OWNERS_MAX {
                    return Err("number of owner or recovery keys out of bounds");
                }
                ascending(g.owners.iter()).ok_or("owner keys out of order")?;
                if g.owners.iter().any(|owner| crate::keys::PublicKey::new(owner).is_none()) {
                    return Err("owner key is weak");
                }
                ascending(g.recovery.iter()).ok_or("recovery hashes out of order")?;
                let fits = |n: u8, of: usize| n >= 1 && usize::from(n) <= of;
                if !fits(g.threshold, g.owners.len())
                    || !(g.recovery.is_empty() && g.recovery_threshold == 0
                        || fits(g.recovery_threshold, g.recovery.len()))
                {
                    return Err("threshold out of bounds");
                }
                if g.rules == 0 { Err("rules version 0") } else { Ok(()) }
            }
            Self::Certify(c) => {
                rank(c.rank)?;
                text(&c.name)?;
                crate::keys::PublicKey::new(&c.key).map(|_| ()).ok_or("certified key is weak")
            }
            Self::Member(m) => {
                rank(m.rank)?;
                if m.labels.len() > limits::MEMBER_LABELS_MAX {
                    return Err("too many labels");
                }
                for (name, value) in &m.labels {
                    text(name)?;
                    text(value)?;
                }
                ascending(m.labels.iter().map(|(name, _)| name)).ok_or("labels out of order")?;
                crate::keys::PublicKey::new(&m.key).map(|_| ()).ok_or("member key is weak")
            }
            Self::Grant(g) => {
                rank(g.rank)?;
                g.target.is_valid().then_some(()).ok_or("target is no collection name or prefix")
            }
            Self::Revoke(r) => {
                text(&r.why)?;
                pins(&r.pins)
            }
            Self::Readmit(r) => pins(&r.pins),
            Self::Collection(c) => {
                if c.name.is_system()
                    || c.shards == 0
                    || c.shards > limits::SHARDS_MAX
                    || c.types.len() > limits::FIELD_TYPES_MAX
                {
                    return Err("collection settings out of bounds");
                }
                for field in &c.types {
                    text(&field.pointer)?;
                    field.pointer.starts_with('/').then_some(()).ok_or("field type without JSON pointer")?;
                }
                ascending(c.types.iter().map(|field| &field.pointer)).ok_or("field types out of order")
            }
            Self::Rules(r) => {
                if r.version == 0 {
                    Err("rules version 0")
                } else {
                    Ok(())
                }
            }
            Self::Approve(_) => Ok(()),
        }
    }
}

/// Returns `Some(())` if the items strictly ascend.
pub(super) fn ascending<T: PartialOrd>(items: impl Iterator<Item = T> + Clone) -> Option<()> {
    items.clone().zip(items.skip(1)).all(|(a, b)| a < b).then_some(())
}

mod hash_list {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::id::OpId;

    // The id types already know how to be 32 bytes on the wire.
    pub(super) fn serialize<S: Serializer>(list: &[[u8; 32]], serializer: S) -> Result<S::Ok, S::Error> {
        list.iter().map(|h| OpId::new(*h)).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<[u8; 32]>, D::Error> {
        Ok(Vec::<OpId>::deserialize(deserializer)?.into_iter().map(|id| *id.as_bytes()).collect())
    }
}
