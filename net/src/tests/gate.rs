//! Who is not a member, or not any more, reaches nothing.

use std::sync::Arc;

use futures_util::StreamExt as _;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, gossipsub, identify, ping};
use tokio::sync::Notify;

use super::*;
use crate::swarm::streams::{self, HandlerEvent, Offer, Protocol};
use crate::swarm::{beacon_topic, build};
use crate::{DisconnectReason, DownReason, JoinDoor, Lane, identity};

/// A stranger that speaks everything a member does, and asks for all of it.
#[derive(NetworkBehaviour)]
struct Intruder {
    streams: streams::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    gossip: gossipsub::Behaviour,
}

fn intruder(seed: u8) -> Swarm<Intruder> {
    let keypair = identity::keypair(&secret(seed));
    let config =
        gossipsub::ConfigBuilder::default().validation_mode(gossipsub::ValidationMode::Anonymous).build().unwrap();
    let mut gossip = gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config).unwrap();
    gossip.subscribe(&beacon_topic(&CLUSTER)).unwrap();
    let behaviour = Intruder {
        streams: streams::Behaviour::new(Offer::Nothing),
        identify: identify::Behaviour::new(identify::Config::new("/folkmoot/1".into(), keypair.public())),
        ping: ping::Behaviour::default(),
        gossip,
    };
    build(keypair, behaviour, Arc::new(Notify::new())).unwrap()
}

/// What an intruder got.
#[derive(Debug, Default, PartialEq)]
struct Loot {
    opened: Vec<Protocol>,
    refused: usize,
    told: usize,
    closed: bool,
}

/// Dials `node` and asks for everything. Ends when the connection is closed, or when every stream was answered and
/// identify, ping and gossipsub had their chance (each of them fails visibly or never).
async fn intrude(seed: u8, node: &Node) -> Loot {
    let mut swarm = intruder(seed);
    let peer = identity::peer_id(&node.key).unwrap();
    swarm.dial(DialOpts::peer_id(peer).addresses(vec![node.address.clone()]).build()).unwrap();
    let mut loot = Loot::default();
    let mut kept = Vec::new();
    let visit = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                    let protocols = Lane::ALL.map(Protocol::Lane).into_iter().chain([Protocol::Join]);
                    for protocol in protocols {
                        swarm.behaviour_mut().streams.open(peer, connection_id, protocol);
                    }
                }
                SwarmEvent::Behaviour(IntruderEvent::Streams(streams::Event { event, .. })) => match event {
                    HandlerEvent::Opened(protocol, _, stream) => {
                        loot.opened.push(protocol);
                        kept.push(stream);
                    }
                    HandlerEvent::Failed(_) => loot.refused += 1,
                },
                SwarmEvent::Behaviour(IntruderEvent::Identify(identify::Event::Received { .. })) => loot.told += 1,
                SwarmEvent::Behaviour(IntruderEvent::Ping(event)) if event.result.is_ok() => loot.told += 1,
                SwarmEvent::Behaviour(IntruderEvent::Gossip(
                    gossipsub::Event::Subscribed { .. } | gossipsub::Event::Message { .. },
                )) => loot.told += 1,
                SwarmEvent::Behaviour(IntruderEvent::Gossip(gossipsub::Event::GossipsubNotSupported { .. })) => {
                    loot.refused += 1;
                }
                SwarmEvent::Behaviour(IntruderEvent::Identify(identify::Event::Error { .. })) => loot.refused += 1,
                SwarmEvent::ConnectionClosed { .. } => {
                    loot.closed = true;
                    return;
                }
                _ => {}
            }
            // Four lanes, gossipsub, identify; join is opened.
            if loot.refused >= 6 && loot.opened.len() == 1 {
                return;
            }
        }
    };
    timeout(PATIENCE, visit).await.expect("the visit ends");
    loot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_reaches_nothing() {
    let (a, _b) = pair().await;
    let loot = intrude(7, &a).await;
    assert!(loot.opened.is_empty() && loot.told == 0 && loot.closed, "{loot:?}");
    // The same as a member gets in: the intruder above can tell the difference.
    a.net.set_members(keys([1, 2, 7, 8, 9]));
    let follower = [7, 8, 9].into_iter().find(|seed| key(*seed) < a.key).expect("one of them leads");
    let loot = intrude(follower, &a).await;
    assert!(loot.opened.len() >= 4 && loot.told > 0, "{loot:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_reaches_the_join_protocol_alone() {
    let (mut a, b) = pair().await;
    a.net.set_join_door(JoinDoor::Open);
    let loot = intrude(7, &a).await;
    assert_eq!(loot, Loot { opened: vec![Protocol::Join], refused: 6, told: 0, closed: false });
    assert_eq!(a.net.peers().len(), 1);
    // Its presence harms no member.
    b.net.send(&a.key, Lane::Control, "still here".into()).unwrap();
    assert_eq!(a.frame().await.2, "still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_cut_off() {
    let (mut a, mut b) = pair().await;
    a.net.set_members(keys([]));
    assert_eq!(a.down(b.key).await, DownReason::Removed);
    assert_eq!(b.down(a.key).await, DownReason::ConnectionLost);
    assert_eq!(a.net.send(&b.key, Lane::Live, "x".into()), Err(crate::SendError::NotConnected));
    // b knows nothing of it and dials again, in vain.
    let loot = intrude(leader_and_follower().1, &a).await;
    assert!(loot.opened.is_empty() && loot.told == 0 && loot.closed, "{loot:?}");
    assert!(a.net.peers().is_empty() && b.net.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_link_stays_cut_until_it_is_unblocked() {
    let (mut a, mut b) = pair().await;
    for _ in 0..2 {
        a.net.set_blocked([b.key].into());
        assert_eq!(a.down(b.key).await, DownReason::Blocked);
        b.down(a.key).await;
        let loot = intrude(leader_and_follower().1, &a).await;
        assert!(loot.opened.is_empty() && loot.told == 0 && loot.closed, "{loot:?}");
        // Its own dials and those of the other side led to nothing.
        assert!(a.events.try_recv().is_none(), "nothing came up meanwhile");
        a.net.set_blocked(BTreeSet::new());
        a.up(b.key).await;
        b.up(a.key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_peer_comes_back_and_a_banned_one_after_its_time() {
    let (mut a, mut b) = pair().await;
    a.net.disconnect(b.key, DisconnectReason::Requested).unwrap();
    assert_eq!(a.down(b.key).await, DownReason::Disconnected(DisconnectReason::Requested));
    a.up(b.key).await;
    b.down(a.key).await;
    b.up(a.key).await;
    let begun = std::time::Instant::now();
    let ban = Duration::from_millis(700);
    a.net.ban(b.key, ban);
    assert_eq!(a.down(b.key).await, DownReason::Banned);
    a.up(b.key).await;
    assert!(begun.elapsed() >= ban, "back after {:?}", begun.elapsed());
}
