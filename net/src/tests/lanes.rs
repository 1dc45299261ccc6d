//! Flow control.

use bytes::Bytes;

use super::*;
use crate::limits::{FRAME_BYTES_MAX, INBOUND_LANE_BYTES_MAX};
use crate::session::send_bytes_max;
use crate::{Lane, SendError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_frame_passes_and_a_larger_one_is_refused() {
    let (a, mut b) = pair().await;
    for lane in Lane::ALL {
        let largest = Bytes::from(vec![7; FRAME_BYTES_MAX]);
        a.net.send(&b.key, lane, largest.clone()).unwrap();
        assert_eq!(b.frame().await, (a.key, lane, largest));
        let too_large = Bytes::from(vec![7; FRAME_BYTES_MAX + 1]);
        assert_eq!(a.net.send(&b.key, lane, too_large), Err(SendError::TooLarge));
    }
    a.net.send(&b.key, Lane::Live, Bytes::new()).unwrap();
    assert_eq!(b.frame().await.2.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_fills_bounded_queues_and_harms_no_other_lane() {
    let (mut a, mut b) = pair().await;
    let frame = Bytes::from(vec![1; 64 << 10]);
    // b takes no events. What a gets rid of is what the queues between them hold.
    let mut sent = 0;
    let full = async {
        loop {
            match a.net.send(&b.key, Lane::Snapshot, frame.clone()) {
                Ok(()) => sent += frame.len(),
                Err(SendError::Full) => {
                    // Either there is room again soon, or nothing moves any more.
                    let writable = a.wait("Writable", |event| matches!(event, NetEvent::Writable { .. }).then_some(()));
                    if timeout(Duration::from_secs(2), writable).await.is_err() {
                        break;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, full).await.expect("the queues fill up");
    // Inbound budget, send queue, and the windows of the multiplexer and the socket between them.
    let between = 24 << 20;
    let bound = INBOUND_LANE_BYTES_MAX + send_bytes_max(Lane::Snapshot) + between;
    assert!(sent <= bound, "{sent} bytes are on their way");
    eprintln!("{} MiB on their way to a stalled reader, of at most {} MiB", sent >> 20, bound >> 20);
    assert_eq!(a.net.peers().len(), 1, "a stalled application costs no connection");
    // Another lane passes, though its frame waits behind the others in the queue of events.
    a.net.send(&b.key, Lane::Control, Bytes::from_static(b"urgent")).unwrap();
    let mut received = 0;
    let mut urgent = 0;
    while received < sent || urgent == 0 {
        let (_, lane, bytes) = b.frame().await;
        if lane == Lane::Control {
            urgent = received;
            assert_eq!(bytes, &b"urgent"[..]);
        } else {
            received += bytes.len();
        }
    }
    assert!(urgent < sent, "overtook what waited on the other lane");
    // And the stalled lane flows again.
    a.wait("Writable", |event| matches!(event, NetEvent::Writable { lane: Lane::Snapshot, .. }).then_some(())).await;
    a.net.send(&b.key, Lane::Snapshot, Bytes::from_static(b"again")).unwrap();
    assert_eq!(b.frame().await.2, &b"again"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_may_write_without_reading() {
    let (mut a, mut b) = pair().await;
    let frame = Bytes::from(vec![2; FRAME_BYTES_MAX]);
    let mut counts = [0, 0];
    for _ in 0..8 {
        for (node, peer, count) in [(&a, b.key, 0), (&b, a.key, 1)] {
            for lane in Lane::ALL {
                if node.net.send(&peer, lane, frame.clone()).is_ok() {
                    counts[count] += 1;
                }
            }
        }
    }
    for _ in 0..counts[0] {
        b.frame().await;
    }
    for _ in 0..counts[1] {
        a.frame().await;
    }
}
