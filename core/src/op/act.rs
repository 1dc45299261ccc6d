//! The acts of the control log: what defines the cluster, its members and their rights.
//!
//! An act is carried by one op of the shard `_control`. *Statements* (certify, member, grant, role, duty, principal,
//! join and token) give something `to` somebody at an explicit rank; the id of the carrying op is the id of the statement.

use serde::{Deserialize, Serialize};

use super::codec::tagged_enum;
use super::fields::{ANY, FieldPath};
use super::role::{Actions, Rights, Role};
use super::succession::Succeed;
use super::target::Target;
use crate::hlc::Hlc;
use crate::id::{
    AuthorKey, CollectionName, DocId, ExchangeKey, OpId, PepperId, PrincipalId, Salt, SealedPepper, StreamId,
    TokenVerifier,
};
use crate::limits;
use crate::schema::SchemaText;

/// How strong a statement or act is: −1 recovery, 0 owners, greater is weaker. Says who may cut whom, never what one may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub i16);

impl Rank {
    /// Rank of the recovery set.
    pub const RECOVERY: Self = Self(-1);
    /// Rank of the owner set.
    pub const OWNER: Self = Self(0);
    /// Usual rank of witnesses of forks.
    pub const WITNESS: Self = Self(5);
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
    /// ascending, at most [`crate::limits::PROOF_MAX`]. Empty for the genesis only.
    pub proof: Vec<OpId>,
    /// What is done.
    pub act: Act,
    /// On whose request a node made the act. It tells an auditor, and gives no right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_whom: Option<PrincipalId>,
}

tagged_enum! {
    /// What a control op does. Tags 39 and 44 to 47 are kept for what may come.
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
        /// Makes a role, or a revision of one.
        32 => Role(RoleRevision),
        /// Gives a principal a task for others.
        33 => Duty(DutyGrant),
        /// Introduces a principal that has no key (yet).
        34 => Principal(Principal),
        /// Makes a principal a member of a group.
        35 => Join(Join),
        /// Lets whoever knows a secret speak for a principal, to nodes that act for it.
        36 => Token(Token),
        /// Says which branches of forked streams a witness saw first.
        37 => Evidence(Evidence),
        /// Makes other keys the owners.
        38 => Succeed(Succeed),
        /// Makes documents be gone for good, everywhere.
        40 => Erase(Erase),
        /// Says that a member has carried out erasures.
        41 => Erased(Erased),
        /// Gives nodes that act for others what it takes to check passwords.
        42 => Pepper(PepperShares),
        /// An owner wants no longer what it asked for.
        43 => Withdraw(Withdraw),
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
    /// Whether nodes record who reads its documents.
    pub audit_reads: bool,
    /// Secondary indexes, by name, ascending.
    pub indexes: Vec<IndexDeclaration>,
    /// The form that its documents are to have, if any is set.
    pub schema: Option<SchemaText>,
    /// When its documents are over, if they ever are.
    pub expires: Option<Expires>,
    /// What no two of its documents are to share, ascending, at most [`limits::UNIQUE_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<Unique>,
}

/// Fields whose values, taken together, no two documents of a collection are to share: 1 to [`limits::UNIQUE_FIELDS_MAX`] of them,
/// ascending, each of them one field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unique(pub Vec<FieldPath>);

impl Unique {
    /// Returns whether it is a constraint as an act may have it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let names_one = |field: &FieldPath| !field.steps().iter().any(|step| step == ANY);
        (1..=limits::UNIQUE_FIELDS_MAX).contains(&self.0.len())
            && self.0.iter().zip(self.0.iter().skip(1)).all(|(field, next)| field < next)
            && self.0.iter().all(names_one)
    }
}

/// When documents are over: some time after that which a field of theirs holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Expires {
    /// The field.
    pub field: FieldPath,
    /// Seconds after it.
    pub after_s: u32,
}

/// A secondary index of a collection. What it says is read by [`IndexDeclaration::parse`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct IndexDeclaration {
    /// Its name: 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What it is sorted by: 1 to 4 places, each with `-` before it if the greatest comes first.
    pub fields: Vec<String>,
    /// Whether documents that have none of the places are left out.
    pub sparse: bool,
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

/// A role, named by the id of its op; it never changes. Who narrows one makes another, grants that, and revokes this with pins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoleRevision {
    /// Name for people. Revisions of one role share it.
    pub name: String,
    /// What the role allows on all of a grant's target.
    pub actions: Actions,
    /// What it allows on the own documents of whoever has it.
    pub own_actions: Actions,
    /// Rank of the statement.
    pub rank: Rank,
}

impl RoleRevision {
    /// Returns what the role allows.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        Rights { actions: self.actions, own_actions: self.own_actions }
    }
}

/// "This principal has this duty."
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DutyGrant {
    /// Who gets it.
    pub principal: PrincipalId,
    /// What it has to do.
    pub duty: Duty,
    /// Rank of the statement.
    pub rank: Rank,
    /// Ops with a later time do not count.
    pub not_after: Option<Hlc>,
}

tagged_enum! {
    /// A task for others.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Duty {
        /// May write data of attested principals, each within that principal's own rights.
        0 => ActFor(Target),
        /// May revoke statements that have ended.
        1 => Warden(()),
        /// May give evidence of what it saw of forked streams: what it says counts where this many witnesses agree, itself
        /// among them; 1 to [`limits::WITNESSES_MAX`].
        2 => Witness(u8),
        /// May introduce principals, and give them built-in roles other than admin for a time.
        3 => Registrar(Target),
    }
}

/// "There is this principal", without a key: others write for it, or keys follow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Principal {
    /// Name for people.
    pub name: String,
    /// What it is.
    pub kind: PrincipalKind,
    /// Whether those with the duty to act for others may write for it.
    pub attest: bool,
    /// Rank of the statement.
    pub rank: Rank,
}

/// What a principal is. Codes are the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program.
    Service,
    /// A set of others: it never writes, and has no keys.
    Group,
}

impl PrincipalKind {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::User, Self::Service, Self::Group];

    const fn code(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Service => 2,
            Self::Group => 3,
        }
    }

    /// Returns its name, as people and programs write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Group => "group",
        }
    }
}

impl Serialize for PrincipalKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.code())
    }
}

impl<'de> Deserialize<'de> for PrincipalKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = u8::deserialize(deserializer)?;
        let kind = Self::ALL.into_iter().find(|kind| kind.code() == code);
        kind.ok_or_else(|| serde::de::Error::custom(format!("unknown kind of principal {code}")))
    }
}

/// "Who shows the secret behind this speaks for this principal", with nodes that have the duty to act for others: it gives no
/// right that the principal has not, and no right at all to sign.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Whose it is.
    pub principal: PrincipalId,
    /// What tells the secret.
    pub verifier: TokenVerifier,
    /// Name for people.
    pub name: String,
    /// Only these of the principal's actions …
    pub actions: Actions,
    /// … on these documents.
    pub target: Target,
    /// Rank of the statement.
    pub rank: Rank,
    /// When it ends.
    pub not_after: Option<Hlc>,
    /// What has to be shown.
    #[serde(default, skip_serializing_if = "Secret::is_random")]
    pub secret: Secret,
}

/// What the holder of a [`Token`] shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Secret {
    /// 256 random bits: nothing is to be guessed from the verifier.
    #[default]
    Random,
    /// A password of a person, of which the verifier tells what Argon2id and a pepper made: who has not the pepper cannot try
    /// out guesses.
    Password(PasswordHash),
    /// That it has the key of a certificate, of which the verifier tells the public half.
    Certificate,
    /// That an issuer of JSON Web Tokens knows it, under a subject that never changes; the verifier tells both. Which issuers are
    /// believed is each node's own affair.
    Subject,
}

/// How Argon2id (RFC 9106, version 0x13, one lane, 32 bytes), and then a pepper, make of a password what its verifier tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PasswordHash {
    /// Random bytes, other ones for each password.
    pub salt: Salt,
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Which pepper.
    pub pepper: PepperId,
}

impl PasswordHash {
    /// Returns whether hashing takes a node no more than it can give.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.memory_kib >= 8
            && self.memory_kib <= limits::PASSWORD_MEMORY_KIB_MAX
            && self.passes >= 1
            && self.passes <= limits::PASSWORD_PASSES_MAX
    }
}

impl Secret {
    /// Returns whether it is random bits.
    #[must_use]
    pub const fn is_random(&self) -> bool {
        matches!(self, Self::Random)
    }
}

// Random bits, where they are said at all, are nil; a password is how it is hashed; a certificate is true; a subject is 1.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SecretOnWire {
    Random(()),
    Certificate(bool),
    Subject(u8),
    Password(PasswordHash),
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Random => SecretOnWire::Random(()),
            Self::Certificate => SecretOnWire::Certificate(true),
            Self::Subject => SecretOnWire::Subject(1),
            Self::Password(hash) => SecretOnWire::Password(*hash),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SecretOnWire::deserialize(deserializer)? {
            SecretOnWire::Random(()) => Ok(Self::Random),
            SecretOnWire::Certificate(true) => Ok(Self::Certificate),
            SecretOnWire::Subject(1) => Ok(Self::Subject),
            SecretOnWire::Certificate(false) | SecretOnWire::Subject(_) => {
                Err(serde::de::Error::custom("unknown kind of secret"))
            }
            SecretOnWire::Password(hash) => Ok(Self::Password(hash)),
        }
    }
}

/// "This principal is a member of this group": what is granted to the group counts for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Join {
    /// The member.
    pub principal: PrincipalId,
    /// The group.
    pub group: PrincipalId,
    /// Rank of the statement.
    pub rank: Rank,
    /// Ops with a later time do not count.
    pub not_after: Option<Hlc>,
}

/// Documents are gone for good: nothing that was or will be written to them counts, and nobody keeps what they said.
///
/// What is erased is the id: no document of that name comes back, whoever writes to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erase {
    /// Their collection.
    pub collection: CollectionName,
    /// Which ones, ascending, 1 to [`limits::ERASE_DOCUMENTS_MAX`].
    pub documents: Vec<DocId>,
    /// Reason for people. It is kept for good, so nothing that was to be erased belongs here.
    pub why: String,
}

/// A member node says that nothing is left on its disk of what these acts erase. It is a receipt, and gives no right.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erased {
    /// The acts, ascending, 1 to [`limits::ERASED_ACTS_MAX`].
    pub acts: Vec<OpId>,
}

/// A pepper ([`crate::pepper`]), sealed for nodes that act for others. It gives no right: what is sealed is worth what it opens to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PepperShares {
    /// The pepper.
    pub pepper: PepperId,
    /// What all of these shares are sealed with.
    pub sealed_with: ExchangeKey,
    /// One for each node, ascending by node, 1 to [`limits::PEPPER_SHARES_MAX`].
    pub shares: Vec<PepperShare>,
}

/// A pepper as one node opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PepperShare {
    /// The node.
    pub node: AuthorKey,
    /// The pepper, sealed.
    pub sealed: SealedPepper,
}

/// An owner takes back what it asked for and others have not approved: nobody is asked about it any more. It cuts nothing, so what
/// others had consented to counts all the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Withdraw {
    /// The acts, all by the same key, ascending, 1 to [`limits::WITHDRAWN_ACTS_MAX`].
    pub acts: Vec<OpId>,
}

/// What a witness had of forked streams before it knew of the forks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// Where its chain of each of these streams ended then, ascending by stream, 1 to [`limits::PINS_MAX`]. None is at 0.
    pub pins: Vec<Pin>,
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

impl Statement<'_> {
    /// Returns whether the statement is something that the principal was given, and that goes when all that it was given
    /// goes. A role, and what introduces a principal without a key, are given to nobody: who is taken back later is still who
    /// it was.
    #[must_use]
    pub fn is_given_to(&self, principal: PrincipalId) -> bool {
        self.to == principal
            && match self.act {
                Act::Role(_) | Act::Principal(_) => false,
                Act::Genesis(_)
                | Act::Succeed(_)
                | Act::Certify(_)
                | Act::Member(_)
                | Act::Grant(_)
                | Act::Revoke(_)
                | Act::Readmit(_)
                | Act::Collection(_)
                | Act::Rules(_)
                | Act::Approve(_)
                | Act::Duty(_)
                | Act::Join(_)
                | Act::Token(_)
                | Act::Evidence(_)
                | Act::Erase(_)
                | Act::Erased(_)
                | Act::Pepper(_)
                | Act::Withdraw(_) => true,
            }
    }
}

impl Act {
    /// Returns the statement that the act makes, if it makes one; `id` is the op that carries it.
    /// The genesis, and each change of owners, counts as a certificate of rank 0 of the owner keys for the owner principal.
    #[must_use]
    pub fn statement(&self, id: OpId) -> Option<Statement<'_>> {
        let (to, rank, not_after) = match self {
            Self::Genesis(_) => (PrincipalId::from(id), Rank::OWNER, None),
            Self::Succeed(s) => (s.principal, Rank::OWNER, None),
            Self::Certify(c) => (c.principal.unwrap_or_else(|| PrincipalId::from(id)), c.rank, c.not_after),
            Self::Member(m) => (m.principal, m.rank, m.not_after),
            Self::Grant(g) => (g.principal, g.rank, g.not_after),
            Self::Duty(d) => (d.principal, d.rank, d.not_after),
            Self::Join(j) => (j.principal, j.rank, j.not_after),
            Self::Token(t) => (t.principal, t.rank, t.not_after),
            Self::Role(RoleRevision { rank, .. }) | Self::Principal(Principal { rank, .. }) => {
                (PrincipalId::from(id), *rank, None)
            }
            Self::Revoke(_)
            | Self::Readmit(_)
            | Self::Collection(_)
            | Self::Rules(_)
            | Self::Approve(_)
            | Self::Evidence(_)
            | Self::Erase(_)
            | Self::Erased(_)
            | Self::Pepper(_)
            | Self::Withdraw(_) => return None,
        };
        Some(Statement { to, rank, not_after, act: self })
    }

    /// Returns whether the act gives this key to somebody.
    #[must_use]
    pub fn certifies(&self, key: AuthorKey) -> bool {
        match self {
            Self::Genesis(genesis) => genesis.owners.contains(&key),
            Self::Succeed(succeed) => succeed.owners.contains(&key),
            Self::Certify(certify) => certify.key == key,
            Self::Member(_)
            | Self::Grant(_)
            | Self::Revoke(_)
            | Self::Readmit(_)
            | Self::Collection(_)
            | Self::Rules(_)
            | Self::Approve(_)
            | Self::Role(_)
            | Self::Duty(_)
            | Self::Principal(_)
            | Self::Join(_)
            | Self::Token(_)
            | Self::Evidence(_)
            | Self::Erase(_)
            | Self::Erased(_)
            | Self::Pepper(_)
            | Self::Withdraw(_) => false,
        }
    }

    /// Returns the pins that a revocation, a readmission or a change of owners sets.
    #[must_use]
    pub fn pins(&self) -> &[Pin] {
        match self {
            Self::Revoke(revoke) => &revoke.pins,
            Self::Readmit(readmit) => &readmit.pins,
            Self::Succeed(succeed) => &succeed.pins,
            Self::Genesis(_)
            | Self::Certify(_)
            | Self::Member(_)
            | Self::Grant(_)
            | Self::Collection(_)
            | Self::Rules(_)
            | Self::Approve(_)
            | Self::Role(_)
            | Self::Duty(_)
            | Self::Principal(_)
            | Self::Join(_)
            | Self::Token(_)
            | Self::Evidence(_)
            | Self::Erase(_)
            | Self::Erased(_)
            | Self::Pepper(_)
            | Self::Withdraw(_) => &[],
        }
    }

    /// Returns the pins that evidence gives.
    #[must_use]
    pub fn evidence(&self) -> &[Pin] {
        let Self::Evidence(evidence) = self else { return &[] };
        &evidence.pins
    }

    /// Returns the principal that the act introduces, named by the op that carries it, with what is said of it; `None` if
    /// it introduces none. Whoever has a key from the start is not attested: nobody writes for it.
    #[must_use]
    pub fn introduces(&self, id: OpId) -> Option<Introduced<'_>> {
        let principal = PrincipalId::from(id);
        match self {
            Self::Genesis(g) => Some(Introduced { principal, name: &g.name, kind: PrincipalKind::User, attest: false }),
            Self::Certify(Certify { principal: None, name, .. }) => {
                Some(Introduced { principal, name, kind: PrincipalKind::User, attest: false })
            }
            Self::Principal(p) => Some(Introduced { principal, name: &p.name, kind: p.kind, attest: p.attest }),
            Self::Certify(Certify { principal: Some(_), .. })
            | Self::Succeed(_)
            | Self::Member(_)
            | Self::Grant(_)
            | Self::Revoke(_)
            | Self::Readmit(_)
            | Self::Collection(_)
            | Self::Rules(_)
            | Self::Approve(_)
            | Self::Role(_)
            | Self::Duty(_)
            | Self::Join(_)
            | Self::Token(_)
            | Self::Evidence(_)
            | Self::Erase(_)
            | Self::Erased(_)
            | Self::Pepper(_)
            | Self::Withdraw(_) => None,
        }
    }
}

/// What is said of a principal by the act that introduces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Introduced<'a> {
    /// The principal.
    pub principal: PrincipalId,
    /// Name for people.
    pub name: &'a str,
    /// What it is; who has a key from the start counts as a user.
    pub kind: PrincipalKind,
    /// Whether those with the duty to act for others may write for it.
    pub attest: bool,
}

pub(super) mod hash_list {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::id::OpId;

    // The id types already know how to be 32 bytes on the wire.
    pub(in crate::op) fn serialize<S: Serializer>(list: &[[u8; 32]], serializer: S) -> Result<S::Ok, S::Error> {
        list.iter().map(|h| OpId::new(*h)).collect::<Vec<_>>().serialize(serializer)
    }

    pub(in crate::op) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<[u8; 32]>, D::Error> {
        Ok(Vec::<OpId>::deserialize(deserializer)?.into_iter().map(|id| *id.as_bytes()).collect())
    }
}
