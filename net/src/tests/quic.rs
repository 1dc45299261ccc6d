//! The same over QUIC, alone and beside TCP.

use super::*;
use crate::{Direction, DownReason, JoinDoor, Lane, join};

fn over_quic(seed: u8) -> NetworkConfig {
    NetworkConfig { listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()], ..config(seed) }
}

fn is_quic(address: &Multiaddr) -> bool {
    address.to_string().ends_with("/quic-v1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_exchange_frames_and_find_each_other_again() {
    let (leader, follower) = leader_and_follower();
    let (mut a, mut b) = (Node::start_with(over_quic(leader)).await, Node::start_with(over_quic(follower)).await);
    assert!(is_quic(&a.address) && is_quic(&b.address), "{} {}", a.address, b.address);
    for node in [&a, &b] {
        node.net.set_members(keys([1, 2]));
    }
    a.net.add_address(b.key, &b.address).unwrap();
    a.up(b.key).await;
    b.up(a.key).await;
    assert!(a.net.peers().iter().all(|peer| is_quic(&peer.address) && peer.direction == Direction::Outbound));
    // Lanes are streams of their own here: each keeps its order.
    for number in 0..100_u32 {
        for lane in Lane::ALL {
            a.net.send(&b.key, lane, number.to_be_bytes().to_vec().into()).unwrap();
        }
    }
    let mut next = [0_u32; Lane::ALL.len()];
    for _ in 0..100 * Lane::ALL.len() {
        let (_, lane, bytes) = b.frame().await;
        let place = Lane::ALL.iter().position(|known| *known == lane).unwrap();
        assert_eq!(bytes, next[place].to_be_bytes()[..], "{lane:?}");
        next[place] += 1;
    }
    let largest = vec![7; crate::limits::FRAME_BYTES_MAX];
    b.net.send(&a.key, Lane::Snapshot, largest.clone().into()).unwrap();
    assert!(a.frame().await.2 == largest, "the largest frame arrives whole");
    // On the same port after a restart.
    let listen = b.address.clone();
    b.net.shutdown().await;
    assert_eq!(a.down(b.key).await, DownReason::ConnectionLost);
    let again = async {
        loop {
            let config = NetworkConfig { listen: vec![listen.clone()], ..config(follower) };
            match Network::start(config.clone()) {
                Ok((net, events)) => return Node { net, events, key: config.secret.author(), address: listen.clone() },
                // The socket is closed when the last of its connections has said farewell.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut b = timeout(PATIENCE, again).await.expect("the port is free again");
    b.net.set_members(keys([1, 2]));
    a.up(b.key).await;
    b.up(a.key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_guests_join() {
    let mut member = Node::start_with(over_quic(1)).await;
    let stranger = Node::start_with(over_quic(9)).await;
    member.net.set_members(keys([1]));
    stranger.net.set_members(keys([1, 9]));
    stranger.net.add_address(member.key, &member.address).unwrap();
    member.net.set_join_door(JoinDoor::Open);
    let request = "please".into();
    let (newcomer, inviter) = (secret(5), member.key);
    let addresses = [member.address.clone()];
    let asked = join(&newcomer, inviter, &addresses, request, PATIENCE);
    let answered = async {
        let request = member
            .wait("Join", |event| match event {
                NetEvent::Join(request) => Some(request),
                NetEvent::PeerUp { peer, .. } => panic!("{peer:?} is no member"),
                _ => None,
            })
            .await;
        assert_eq!((request.from, &request.bytes[..]), (key(5), &b"please"[..]));
        request.reply("welcome".into()).unwrap();
    };
    let (answer, ()) = tokio::join!(asked, answered);
    assert_eq!(answer.unwrap(), "welcome");
    assert!(member.net.peers().is_empty() && stranger.net.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_by_tcp_only_dials_who_listens_by_quic_only() {
    let (mut a, mut b) = (Node::start(1).await, Node::start_with(over_quic(2)).await);
    for node in [&a, &b] {
        node.net.set_members(keys([1, 2]));
    }
    // What it told last is gone; the other one answers.
    a.net.add_address(b.key, &"/ip4/127.0.0.1/tcp/1".parse().unwrap()).unwrap();
    a.net.add_address(b.key, &b.address).unwrap();
    a.up(b.key).await;
    b.up(a.key).await;
    b.net.send(&a.key, Lane::Live, "hello".into()).unwrap();
    assert_eq!(a.frame().await.2, "hello");
}
