//! Whole networks on real sockets of 127.0.0.1. Nothing sleeps: every wait is for an event, with a time limit.

mod beacons;
mod gate;
mod join;
mod lanes;
mod mesh;
#[cfg(feature = "quic")]
mod quic;
mod restart;

use std::collections::BTreeSet;
use std::time::Duration;

use folkmoot_core::id::{AuthorKey, ClusterId};
use folkmoot_core::keys::SecretKey;
use libp2p::Multiaddr;
use tokio::time::timeout;

use crate::{NetEvent, NetEvents, NetHandle, Network, NetworkConfig};

/// Longest wait for one event. Far above what any takes, for slow machines.
const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER: ClusterId = ClusterId::new([0xc1; 32]);

pub(super) fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub(super) fn key(seed: u8) -> AuthorKey {
    secret(seed).author()
}

pub(super) fn keys(seeds: impl IntoIterator<Item = u8>) -> BTreeSet<AuthorKey> {
    seeds.into_iter().map(key).collect()
}

/// Two seeds of which the first has the smaller key, and so leads.
pub(super) fn leader_and_follower() -> (u8, u8) {
    if key(1) < key(2) { (1, 2) } else { (2, 1) }
}

pub(super) struct Node {
    pub(super) net: NetHandle,
    pub(super) events: NetEvents,
    pub(super) key: AuthorKey,
    pub(super) address: Multiaddr,
}

pub(super) fn config(seed: u8) -> NetworkConfig {
    NetworkConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..NetworkConfig::new(secret(seed), CLUSTER) }
}

impl Node {
    pub(super) async fn start(seed: u8) -> Self {
        Self::start_with(config(seed)).await
    }

    pub(super) async fn start_with(config: NetworkConfig) -> Self {
        let key = config.secret.author();
        let (net, mut events) = Network::start(config).unwrap();
        let first = timeout(PATIENCE, events.recv()).await.expect("listens in time");
        let Some(NetEvent::Listening(address)) = first else { panic!("{first:?} before listening") };
        Self { net, events, key, address }
    }

    /// Returns the first event for which `pick` finds something, dropping those before it.
    pub(super) async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(NetEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.unwrap_or_else(|| panic!("shut down before {what}"));
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {what} in time"))
    }

    pub(super) async fn up(&mut self, peer: AuthorKey) {
        self.wait("PeerUp", |event| matches!(event, NetEvent::PeerUp { peer: p, .. } if p == peer).then_some(())).await;
    }

    pub(super) async fn down(&mut self, peer: AuthorKey) -> crate::DownReason {
        self.wait("PeerDown", |event| match event {
            NetEvent::PeerDown { peer: p, reason } if p == peer => Some(reason),
            _ => None,
        })
        .await
    }

    pub(super) async fn frame(&mut self) -> (AuthorKey, crate::Lane, bytes::Bytes) {
        self.wait("Frame", |event| match event {
            NetEvent::Frame { peer, lane, bytes } => Some((peer, lane, bytes)),
            _ => None,
        })
        .await
    }
}

/// Two members of each other, connected.
pub(super) async fn pair() -> (Node, Node) {
    let (leader, follower) = leader_and_follower();
    let (mut a, mut b) = (Node::start(leader).await, Node::start(follower).await);
    for node in [&a, &b] {
        node.net.set_members(keys([1, 2]));
    }
    a.net.add_address(b.key, &b.address).unwrap();
    a.up(b.key).await;
    b.up(a.key).await;
    (a, b)
}
