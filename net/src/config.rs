//! What a network is started with.

use folkmoot_core::id::{AuthorKey, ClusterId};
use folkmoot_core::keys::SecretKey;
use libp2p::Multiaddr;

use crate::limits::ESTABLISHED_MAX;

/// How members that have no known address are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discovery {
    /// Not at all.
    #[default]
    Off,
    /// By multicast DNS, among the machines of one LAN. It shows the node's key and addresses to all of them.
    Mdns,
}

/// Whether this build can listen and dial by QUIC: with the feature `quic`.
pub const HAS_QUIC: bool = cfg!(feature = "quic");

/// What a network is started with.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The node's key: its identity among members.
    pub secret: SecretKey,
    /// The cluster. Nodes of different clusters do not talk, even if they list each other as members.
    pub cluster: ClusterId,
    /// Where to listen, such as `/ip4/0.0.0.0/tcp/7071`, or `/ip4/0.0.0.0/udp/7071/quic-v1` if this build
    /// [has QUIC](HAS_QUIC); port 0 picks a free one. May be empty.
    pub listen: Vec<Multiaddr>,
    /// Under which other addresses the node can be reached (behind port forwarding, by name): told to peers.
    pub external: Vec<Multiaddr>,
    /// Where to find members: with the key of who must answer there, or whichever member answers.
    pub bootstrap: Vec<(Option<AuthorKey>, Multiaddr)>,
    /// How to find other members.
    pub discovery: Discovery,
    /// Established connections at once. Others are refused after their handshake.
    pub connections_max: u32,
}

impl NetworkConfig {
    /// Returns a configuration that listens nowhere and knows nobody.
    #[must_use]
    pub const fn new(secret: SecretKey, cluster: ClusterId) -> Self {
        Self {
            secret,
            cluster,
            listen: Vec::new(),
            external: Vec::new(),
            bootstrap: Vec::new(),
            discovery: Discovery::Off,
            connections_max: ESTABLISHED_MAX,
        }
    }
}
