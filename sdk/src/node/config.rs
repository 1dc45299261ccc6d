//! What a node is opened with, and why it may not open.

use std::path::PathBuf;
use std::time::Duration;

use folkmoot_core::audit::Retention;
use folkmoot_core::replica;
use folkmoot_core::store;
use folkmoot_net::{Discovery, JoinError, Multiaddr, ParseTicketError, StartError};

pub use super::directory::DirectoryError;
pub use super::oidc::{ClaimGrant, OidcIssuer};
use super::quota::Quotas;
pub use super::unlock::{KeySettings, KeySource, Secret, UnlockError};

/// A free port of the loopback address.
const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

/// What a node is opened with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where other nodes reach this one; empty for a node that only dials.
    pub p2p_listen: Vec<Multiaddr>,
    /// Addresses to tell others besides those that are listened on (behind a NAT or a proxy).
    pub p2p_external: Vec<Multiaddr>,
    /// Addresses of members to begin with, besides those that the directory knows.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether members on the local network are looked for.
    pub discovery: Discovery,
    /// Bytes of loaded documents kept in memory.
    pub document_cache_bytes: usize,
    /// Bytes of stored blocks kept in memory.
    pub block_cache_bytes: u64,
    /// Bytes on the disk that the store's journal may take.
    pub journal_bytes: u64,
    /// How long after a right has ended it is closed, so that nobody can use it by lying about the time. What was written in time
    /// and has not arrived by then does not count.
    pub ended_grace: Duration,
    /// For how long records of the audit log are kept.
    pub audit_retention: Retention,
    /// How the directory is unlocked.
    pub keys: KeySettings,
    /// Issuers of JSON Web Tokens that are believed.
    pub oidc: Vec<OidcIssuer>,
    /// How much is taken.
    pub quotas: Quotas,
    /// How long a query may take.
    pub query_time: Duration,
}

impl NodeConfig {
    /// A node in a directory, reachable on a free port of the loopback address, with the usual memory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            // This text is an address; the test below sees to it.
            p2p_listen: LOOPBACK.parse().into_iter().collect(),
            p2p_external: Vec::new(),
            bootstrap: Vec::new(),
            discovery: Discovery::Off,
            document_cache_bytes: 256 << 20,
            block_cache_bytes: 64 << 20,
            journal_bytes: 128 << 20,
            ended_grace: Duration::from_secs(24 * 3_600),
            audit_retention: Retention::default(),
            keys: KeySettings::default(),
            oidc: Vec::new(),
            quotas: Quotas::default(),
            query_time: Duration::from_secs(5),
        }
    }
}

/// What a new cluster is made with.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Name of the cluster, for people.
    pub cluster_name: String,
    /// Name of its first node.
    pub node_name: String,
    /// Labels of that node (region, zone, …).
    pub labels: Vec<(String, String)>,
    /// Whether the directory is sealed, and how it is unlocked.
    pub keys: KeySettings,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            cluster_name: "folkmoot".to_owned(),
            node_name: "first".to_owned(),
            labels: Vec::new(),
            keys: KeySettings::default(),
        }
    }
}

/// What a data directory is made with that joins a cluster.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Name of the node.
    pub name: String,
    /// Its labels (region, zone, …).
    pub labels: Vec<(String, String)>,
    /// Whether the directory is sealed, and how it is unlocked.
    pub keys: KeySettings,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self { name: "node".to_owned(), labels: Vec::new(), keys: KeySettings::default() }
    }
}

/// Why a node cannot be opened, made or joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The data directory is sealed and was not unlocked.
    #[error("unlock the data directory")]
    Unlock(#[from] UnlockError),
    /// The store cannot be opened.
    #[error("open the store")]
    Store(#[from] store::OpenError),
    /// The replica cannot be opened over its store.
    #[error("open the replica")]
    Replica(#[from] replica::OpenError),
    /// The watermark file cannot be used.
    #[error("open the watermark")]
    Watermark(#[from] store::watermark::WatermarkError),
    /// The first commit failed.
    #[error("write to the store")]
    Commit(#[from] store::StoreError),
    /// The network cannot start.
    #[error("start the network")]
    Network(#[from] StartError),
    /// A thread cannot start.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// The audit log can neither be gone on with nor begun.
    #[error("open the audit log: {0}")]
    Audit(String),
    /// What is shown is not the recovery key that lies in the directory.
    #[error(
        "this is not the recovery key that lies in the data directory; without that one the owners can never be changed"
    )]
    OtherRecoveryKey,
    /// What is configured of issuers of tokens cannot be.
    #[error("{0}")]
    Oidc(String),
    /// No randomness can be had.
    #[error("draw random bytes: {0}")]
    Random(String),
    /// A name is too long, or a label out of bounds.
    #[error("make the cluster's first ops")]
    Found(#[source] folkmoot_core::op::OpError),
    /// The ticket is none.
    #[error("read the ticket")]
    Ticket(#[from] ParseTicketError),
    /// The ticket is too old.
    #[error("the ticket has expired; ask for a new one with `folkmoot invite`")]
    TicketExpired,
    /// The inviter could not be asked, or refused.
    #[error("join through {inviter}")]
    Join {
        /// Whom the ticket names.
        inviter: folkmoot_core::id::AuthorKey,
        /// Why.
        #[source]
        source: Box<JoinError>,
    },
    /// The ticket is of another cluster than the directory.
    #[error("the ticket is of cluster {ticket}, the data of cluster {directory}")]
    OtherCluster {
        /// As the ticket says.
        ticket: folkmoot_core::id::ClusterId,
        /// As the directory says.
        directory: folkmoot_core::id::ClusterId,
    },
    /// Nobody is known from whom everything could be taken.
    #[error(
        "this node knows no other member, so what its store holds can be had from nobody; use `folkmoot repair`, or give a ticket of a member"
    )]
    NoPeers,
    /// A store made again would show less than the old one.
    #[error(
        "a store made again would show {new} documents, the one that is there shows {old}: ops that others build on cannot be read, and no peer is known that has them; nothing was changed. Go on with the old store, bring the ops with --from, or give them up with --accept-loss"
    )]
    Hides {
        /// Documents of the old store.
        old: u64,
        /// Documents of the new one.
        new: u64,
    },
    /// The key in the directory is not the one that the certificate names.
    #[error("node.key is not the key that this node was admitted with; bring the right one back")]
    OtherKey,
    /// What is left of a store cannot be read.
    #[error(transparent)]
    Salvage(#[from] store::salvage::SalvageError),
    /// The store cannot be made again.
    #[error("make the store again")]
    Rebuild(#[from] replica::RebuildError),
    /// The inviter does not let this node in.
    #[error("the inviter refused: {0}")]
    JoinRefused(String),
    /// The inviter answered with something else than a control log of the ticket's cluster.
    #[error("the answer to the join request is not valid: {0}")]
    JoinAnswer(String),
}

/// Draws random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::Random(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_listens_on_loopback_unless_told_otherwise() {
        let config = NodeConfig::new("folder");
        assert_eq!(config.p2p_listen.iter().map(ToString::to_string).collect::<Vec<_>>(), [LOOPBACK]);
    }
}
