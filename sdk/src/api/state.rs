//! What a node tells about itself.

use std::time::Duration;

use folkmoot_core::id::{AuthorKey, ClusterId, CollectionName, DocId, OpId, PrincipalId};
use serde::{Deserialize, Serialize};

use super::access::PrincipalName;
use super::bootstrap::{Bootstrap, LastBootstrap};
use super::cursor::{Cursor, PageQuery};
use super::time::Timestamp;

/// Whether the store can persist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StoreState {
    /// It can.
    Healthy,
    /// Space runs out: writes are refused before it does.
    LowSpace,
    /// A write or fsync failed: the node refuses writes and must be restarted.
    Failed,
}

/// What a node is and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The node's key, which is also its libp2p identity.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: AuthorKey,
    /// The node's libp2p peer id.
    pub peer_id: String,
    /// The cluster.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cluster: ClusterId,
    /// The cluster's name for people.
    pub cluster_name: String,
    /// Version of the program.
    pub version: String,
    /// When the node was started.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub started: Timestamp,
    /// Whether it is ready, and if not, why.
    pub readiness: Readiness,
    /// Whether it can persist.
    pub store: StoreState,
    /// Bytes of the data directory.
    pub store_bytes: u64,
    /// Collections.
    pub collections: u64,
    /// Documents that exist here.
    pub documents: u64,
    /// Ops held here, over all streams.
    pub ops: u64,
    /// Ops that are durable here and wait to be applied to their documents.
    pub ops_unapplied: u64,
    /// Ops that wait for something missing.
    pub ops_deferred: u64,
    /// Transactions refused and kept as evidence.
    pub quarantined: u64,
    /// Members of the cluster, this node included.
    pub members: u32,
    /// Members connected now.
    pub peers_connected: u32,
    /// Members that this node has banned for what they did.
    #[serde(default)]
    pub peers_banned: u32,
    /// Addresses at which other nodes reach this one.
    pub p2p: Vec<String>,
    /// Shards that are being taken in bulk: this node has just joined, or was away for long.
    #[serde(default)]
    pub bootstraps: Vec<Bootstrap>,
    /// The shard that was taken in bulk last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_bootstrap: Option<LastBootstrap>,
    /// Whether the recovery key lies in the data directory still: it is to be put away, see `folkmoot key confirm-recovery`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovery_unconfirmed: bool,
    /// Requests of owners that others have to approve: see `folkmoot approvals`.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub approvals_waiting: u32,
    /// Passwords at which somebody can try guesses who acts for users no longer: to be changed.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub passwords_exposed: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_none_of_them(number: &u32) -> bool {
    *number == 0
}

/// Whether a node can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// It has caught up and can persist.
    pub ready: bool,
    /// If not, why not, for people.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// Whether a peer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PeerState {
    /// It is.
    Connected,
    /// It is not.
    Disconnected,
    /// Its link is blocked here.
    Blocked,
    /// It is banned for a while, for what it did.
    Banned,
    /// Its membership was revoked.
    Removed,
}

impl PeerState {
    /// Returns the name used in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Blocked => "blocked",
            Self::Banned => "banned",
            Self::Removed => "removed",
        }
    }
}

/// Another member as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerInfo {
    /// Its key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: AuthorKey,
    /// Its libp2p peer id.
    pub peer_id: String,
    /// Labels (region, zone, …).
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Whether it is connected.
    pub state: PeerState,
    /// Addresses known.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Ops that we hold and it is not known to have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ops_behind: Option<u64>,
    /// Ops that it told of and we do not have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ops_ahead: Option<u64>,
    /// When its digest last equalled ours.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub in_sync: Option<Timestamp>,
    /// When it was last heard of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub last_seen: Option<Timestamp>,
    /// Round trip in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rtt_ms: Option<f64>,
    /// What is known against it.
    #[serde(default)]
    pub conduct: Conduct,
}

/// What a node knows against another member.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conduct {
    /// Weights of its misdeeds, as far as they are not forgotten; at 100 it is banned.
    pub score: u32,
    /// How often it did what since this node started (snake_case, stable): `bad_signature`, `flood`, …
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty", default)]
    pub misdeeds: std::collections::BTreeMap<String, u64>,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<String>,
    /// How often it was banned, as far as that is not forgotten; each ban lasts twice as long as the one before.
    #[serde(default)]
    pub bans: u32,
    /// Until when it is banned; none if it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub banned_until: Option<Timestamp>,
}

/// Whether traffic with a peer is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LinkRule {
    /// No traffic either way.
    Blocked,
    /// As usual. A ban ends, and what led to it is forgotten.
    Open,
}

/// The digest of one shard: equal digests mean equal contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShardDigest {
    /// The collection.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub collection: CollectionName,
    /// Which shard.
    pub shard: u16,
    /// Of how many.
    pub of: u16,
    /// Hexadecimal digest over the stream heads: which ops are held.
    pub ops_digest: String,
    /// Hexadecimal digest over document ids, heads and verdicts: what they amount to.
    pub state_digest: String,
    /// Ops held.
    pub ops: u64,
    /// Documents that exist.
    pub documents: u64,
    /// Ops not yet applied; the state digest says nothing about them.
    pub ops_unapplied: u64,
}

/// Which quarantined transactions to return.
pub type QuarantineQuery = PageQuery;

/// A transaction that was refused and kept as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quarantined {
    /// The op that carries it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub op: OpId,
    /// Which transaction of the op.
    pub transaction: u32,
    /// Whose stream.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub author: AuthorKey,
    /// For whom it was written.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub principal: PrincipalId,
    /// The collection.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub collection: CollectionName,
    /// The documents it would have changed.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub documents: Vec<DocId>,
    /// The verdict (snake_case, stable).
    pub verdict: String,
    /// Why, for people.
    pub reason: String,
    /// When it was made, by its author's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub made: Timestamp,
}

/// A page of quarantined transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuarantinePage {
    /// The transactions.
    pub items: Vec<Quarantined>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

/// Something found broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Damage {
    /// What kind of thing (snake_case, stable): `chain`, `signature`, `body`, `view`, `index`, `watermark`, …
    pub what: String,
    /// Which one.
    pub place: String,
    /// What is wrong with it.
    pub detail: String,
}

/// What a full check found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyReport {
    /// Streams whose chains were followed.
    pub streams: u64,
    /// Ops whose hashes, signatures and bodies were checked.
    pub ops: u64,
    /// Documents whose views were compared with their changes.
    pub documents: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// What is broken; the first [`VerifyReport::DAMAGE_MAX`].
    pub damage: Vec<Damage>,
    /// How many things are broken.
    pub damage_total: u64,
}

impl VerifyReport {
    /// Entries listed; beyond, the count says enough.
    pub const DAMAGE_MAX: usize = 1_000;

    /// Adds something broken.
    pub fn push(&mut self, damage: Damage) {
        self.damage_total = self.damage_total.saturating_add(1);
        if self.damage.len() < Self::DAMAGE_MAX {
            self.damage.push(damage);
        }
    }
}

/// For whom a ticket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteOptions {
    /// How long it is good.
    pub expires: Duration,
    /// How many nodes may join with it.
    pub uses: u32,
    /// The role that they get on everything: `admin`, `editor` or `reader`.
    pub role: String,
    /// Whose devices they are: they write in the name and within the rights of this principal and have no role of their own. It must
    /// be allowed to read everything, since a device is a member and holds what members hold.
    pub device_of: Option<PrincipalName>,
}

impl Default for InviteOptions {
    /// One node, within an hour, that reads and writes.
    fn default() -> Self {
        Self { expires: Duration::from_secs(3_600), uses: 1, role: "editor".to_owned(), device_of: None }
    }
}

/// A ticket with which a new node can join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Invite {
    /// The ticket: a secret.
    pub ticket: String,
    /// Until when it is good.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires: Timestamp,
    /// How many nodes may join with it.
    pub uses: u32,
}
