//! Members find each other and exchange frames.

use bytes::Bytes;

use super::*;
use crate::{Direction, Discovery, DownReason, Lane, SendError};

/// Sends numbered frames on every lane from each node to each other, and checks order and content.
async fn exchange(nodes: &mut [Node], frames: u32) {
    let keys: Vec<_> = nodes.iter().map(|node| node.key).collect();
    let payload = |lane: Lane, number: u32| Bytes::from(format!("{lane:?} {number}"));
    for node in nodes.iter() {
        for peer in keys.iter().filter(|peer| **peer != node.key) {
            for lane in Lane::ALL {
                for number in 0..frames {
                    node.net.send(peer, lane, payload(lane, number)).unwrap();
                }
            }
        }
    }
    for node in nodes {
        let mut next = std::collections::BTreeMap::new();
        for _ in 0..(keys.len() - 1) * Lane::ALL.len() * frames as usize {
            let (peer, lane, bytes) = node.frame().await;
            let number: &mut u32 = next.entry((peer, lane)).or_default();
            assert_eq!(bytes, payload(lane, *number));
            *number += 1;
        }
        assert!(next.values().all(|number| *number == frames));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_exchange_frames_in_order_on_all_lanes() {
    let (a, b) = pair().await;
    let mut nodes = [a, b];
    exchange(&mut nodes, 100).await;
    let [a, b] = &nodes;
    let [peer] = &a.net.peers()[..] else { panic!("one peer") };
    assert_eq!((peer.peer, &peer.address, peer.direction), (b.key, &b.address, Direction::Outbound));
    assert!(peer.bytes_sent > 0 && peer.bytes_received == peer.bytes_sent && !peer.rtt.is_zero(), "{peer:?}");
    assert_eq!(b.net.peers()[0].direction, Direction::Inbound);
    assert_eq!(a.net.send(&key(9), Lane::Live, Bytes::new()), Err(SendError::NotConnected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_connect_fully_from_one_address() {
    let mut nodes = vec![Node::start(1).await];
    let entry = nodes[0].address.clone();
    for seed in 2..=5 {
        // The last two do not know who answers there.
        let peer = (seed <= 3).then(|| key(1));
        nodes.push(Node::start_with(NetworkConfig { bootstrap: vec![(peer, entry.clone())], ..config(seed) }).await);
    }
    for node in &nodes {
        node.net.set_members(keys(1..=5));
    }
    // The others' addresses are learnt only by being told: node 1 is dialled, the rest are added here.
    let addresses: Vec<_> = nodes.iter().map(|node| (node.key, node.address.clone())).collect();
    for node in &nodes {
        for (peer, address) in addresses.iter().filter(|(peer, _)| *peer != node.key && *peer != key(1)) {
            node.net.add_address(*peer, address).unwrap();
        }
    }
    for node in &mut nodes {
        let mut missing = keys(1..=5);
        missing.remove(&node.key);
        while !missing.is_empty() {
            let peer = node
                .wait("PeerUp of all", |event| match event {
                    NetEvent::PeerUp { peer, .. } => Some(peer),
                    NetEvent::PeerDown { peer, reason } => panic!("{peer:?} down: {reason:?}"),
                    _ => None,
                })
                .await;
            assert!(missing.remove(&peer), "one session per peer");
        }
    }
    exchange(&mut nodes, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dials_that_cross_end_in_one_session() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    a.net.add_address(b.key, &b.address).unwrap();
    b.net.add_address(a.key, &a.address).unwrap();
    for round in 0..20 {
        // Nobody knows the other as a member yet, so both begin to dial at this moment.
        a.net.set_members(keys([2]));
        b.net.set_members(keys([1]));
        a.up(b.key).await;
        b.up(a.key).await;
        // A frame each way on the session: it is the same one.
        a.net.send(&b.key, Lane::Live, Bytes::from_static(b"a")).unwrap();
        b.net.send(&a.key, Lane::Live, Bytes::from_static(b"b")).unwrap();
        for node in [&mut a, &mut b] {
            node.wait("Frame before anything else", |event| match event {
                NetEvent::Frame { .. } => Some(()),
                other => panic!("{other:?} in round {round}"),
            })
            .await;
        }
        a.net.set_members(keys([]));
        b.net.set_members(keys([]));
        a.down(b.key).await;
        b.down(a.key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_on_its_address_is_found_again() {
    let (mut a, mut b) = pair().await;
    for _ in 0..2 {
        let (listen, key) = (b.address.clone(), b.key);
        b.net.shutdown().await;
        assert_eq!(b.down(a.key).await, DownReason::Shutdown);
        assert!(b.events.recv().await.is_none(), "nothing after the end");
        assert_eq!(a.down(key).await, DownReason::ConnectionLost);
        let (_, follower) = leader_and_follower();
        b = Node::start_with(NetworkConfig { listen: vec![listen], ..config(follower) }).await;
        b.net.set_members(keys([1, 2]));
        a.up(key).await;
        b.up(a.key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_for_one_network_only() {
    let first = Node::start(1).await;
    let second = Network::start(NetworkConfig { listen: vec![first.address.clone()], ..config(2) });
    match second {
        Err(crate::StartError::Taken { address, source }) => {
            assert_eq!((address, source.kind()), (first.address.clone(), std::io::ErrorKind::AddrInUse));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_one_lan_find_each_other_by_multicast() {
    let any: Multiaddr = "/ip4/0.0.0.0/tcp/0".parse().unwrap();
    let with_mdns = |seed| NetworkConfig { listen: vec![any.clone()], discovery: Discovery::Mdns, ..config(seed) };
    let (a, b) = (Node::start_with(with_mdns(1)).await, Node::start_with(with_mdns(2)).await);
    let mut a = a;
    a.net.set_members(keys([2]));
    b.net.set_members(keys([1]));
    if let Err(why) = multicast_comes_back() {
        eprintln!("NOT TESTED: mDNS. This machine passes no multicast between its own sockets: {why}");
        return;
    }
    a.up(b.key).await;
}

/// Sends itself a datagram by the group of mDNS.
fn multicast_comes_back() -> std::io::Result<()> {
    let group = std::net::Ipv4Addr::new(224, 0, 0, 251);
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.join_multicast_v4(&group, &std::net::Ipv4Addr::UNSPECIFIED)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send_to(b"hello", (group, socket.local_addr()?.port()))?;
    let mut buffer = [0; 8];
    socket.recv(&mut buffer).map(drop)
}
