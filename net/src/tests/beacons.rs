//! The beacon topic.

use bytes::Bytes;

use super::*;
use crate::CommandError;
use crate::limits::BEACON_BYTES_MAX;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beacons_reach_the_cluster_and_are_bounded() {
    let (a, mut b) = pair().await;
    let largest = vec![7; BEACON_BYTES_MAX];
    assert_eq!(a.net.publish_beacon(vec![7; BEACON_BYTES_MAX + 1].into()), Err(CommandError::BeaconTooLarge));
    // Subscriptions are told after the lanes are up, so the first ones may reach nobody.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut number = 0u32;
    let reached = loop {
        tokio::select! {
            _ = ticks.tick() => {
                number += 1;
                a.net.publish_beacon(Bytes::from(format!("beacon {number}"))).unwrap();
            }
            event = b.events.recv() => if let Some(NetEvent::Beacon { from, bytes }) = event {
                assert_eq!(from, a.key);
                break bytes;
            }
        }
        assert!(number < 1_000, "no beacon arrives");
    };
    assert!(reached.starts_with(b"beacon "));
    // Different ones are not taken for duplicates of each other; the largest passes.
    a.net.publish_beacon(Bytes::from_static(b"last but one")).unwrap();
    a.net.publish_beacon(largest.clone().into()).unwrap();
    for expected in [b"last but one".to_vec(), largest] {
        b.wait("Beacon", |event| matches!(event, NetEvent::Beacon { bytes, .. } if bytes == expected).then_some(()))
            .await;
    }
}
