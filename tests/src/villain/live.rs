//! A villain on real connections: a program's worth of network around it, and no node behind.

use std::path::Path;
use std::time::Duration;

use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{ClusterId, OpId, PrincipalId, ShardId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::Op;
use folkmoot_core::replica::Identity;
use folkmoot_core::store::{FjallOptions, FjallStore, Keyspace, Order, Read as _, Span, envelope};
use folkmoot_net::{Multiaddr, NetEvent, Network, NetworkConfig};
use tokio::task::JoinHandle;

use super::{Attack, Material, Villain};

/// How often it strikes.
const STRIKE_INTERVAL: Duration = Duration::from_millis(50);

/// A villain that is at work until it is dropped.
pub struct LiveVillain {
    /// Its key.
    pub key: folkmoot_core::id::AuthorKey,
    /// What it does.
    pub attack: Attack,
    task: JoinHandle<()>,
}

impl Drop for LiveVillain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LiveVillain {
    /// Begins an attack with the identity of a data directory that has joined a cluster, is not sealed and was never served.
    ///
    /// # Panics
    /// If there is none.
    pub fn begin(data: &Path, collection: &str, attack: Attack) -> Self {
        let text = std::fs::read_to_string(data.join("cluster.json")).expect("the data directory of a member");
        let record: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let of = |name: &str| record[name].as_str().expect("a field of text").to_owned();
        let seed: OpId = std::fs::read_to_string(data.join("node.key")).expect("a key").trim().parse().expect("hex");
        let cluster: ClusterId = of("cluster").parse().expect("an id");
        let certificate: OpId = of("certificate").parse().expect("an id");
        let identity = Identity {
            node: SecretKey::from_seed(seed.as_bytes()),
            owner: None,
            cluster,
            certificate,
            principal: PrincipalId::from(certificate),
        };
        let store = FjallStore::open(&data.join("store"), FjallOptions::default()).expect("a store");
        let mut control: Vec<Op> = store
            .scan(Keyspace::Ops, &Span::all(), Order::Ascending)
            .map(|entry| envelope::open(entry.expect("readable").1).expect("an envelope"))
            .map(|bytes| Op::decode(&bytes, cluster).expect("an op"))
            .collect();
        control.sort_by_key(|op| -> (Hlc, u64) { (op.header().hlc, op.header().seq) });
        let shard = ShardId { collection: collection.parse().expect("a name"), index: 0, of: 1 };
        let villain = Villain::new(attack, Material::new(&identity, &control, shard));
        let peers = record["peers"].as_array().expect("peers").iter().map(|peer| {
            let key = peer["key"].as_str().expect("a key").parse().expect("a key");
            let address: Multiaddr = peer["address"].as_str().expect("an address").parse().expect("an address");
            (Some(key), address)
        });
        let mut config = NetworkConfig::new(identity.node.clone(), cluster);
        config.bootstrap = peers.collect();
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
        Self { key: identity.node.author(), attack, task: tokio::spawn(work(villain, config)) }
    }
}

async fn work(mut villain: Villain, config: NetworkConfig) {
    let members = config.bootstrap.iter().filter_map(|(key, _)| *key).collect();
    let (net, mut events) = Network::start(config).expect("a network");
    net.set_members(members);
    let mut connected = std::collections::BTreeSet::new();
    let mut tick = tokio::time::interval(STRIKE_INTERVAL);
    loop {
        let (peer, frames) = tokio::select! {
            event = events.recv() => match event {
                None => return,
                Some(NetEvent::PeerUp { peer, .. }) => {
                    connected.insert(peer);
                    villain.connected(peer);
                    continue;
                }
                Some(NetEvent::PeerDown { peer, .. }) => {
                    connected.remove(&peer);
                    villain.disconnected(&peer);
                    continue;
                }
                Some(NetEvent::Frame { peer, lane, bytes }) => (peer, villain.received(peer, lane, &bytes)),
                Some(_) => continue,
            },
            _ = tick.tick() => {
                let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let now_ms = u64::try_from(wall.as_millis()).unwrap_or(0);
                for peer in &connected {
                    for (lane, bytes) in villain.strike(*peer, now_ms) {
                        // What the network does not take is lost: there is more.
                        let _ = net.send(peer, lane, bytes);
                    }
                }
                continue;
            }
        };
        for (lane, bytes) in frames {
            let _ = net.send(&peer, lane, bytes);
        }
    }
}
