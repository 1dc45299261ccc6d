//! The handshake and the frames against a peer that says anything.

use std::pin::Pin;
use std::task::Poll;

use futures_util::io::Cursor;

use super::*;

const CLUSTER: ClusterId = ClusterId::new([0xc1; 32]);
const NONCE: SessionNonce = [7; 8];

/// A peer that says what is in `says`, whatever it hears, and then hangs up.
struct Scripted {
    says: Cursor<Vec<u8>>,
    heard: Vec<u8>,
}

fn peer(says: &[&[u8]]) -> Scripted {
    Scripted { says: Cursor::new(says.concat()), heard: Vec::new() }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.says).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_follower_acknowledges_only_its_own_cluster() {
    let mut leader = peer(&[CLUSTER.as_bytes(), &NONCE, &CONFIRMATION]);
    assert_eq!(follow(&mut leader, CLUSTER).await.unwrap().0, NONCE);
    assert_eq!(leader.heard, NONCE);
    let mut other = peer(&[&[0xc2; 32], &NONCE, &CONFIRMATION]);
    assert!(matches!(follow(&mut other, CLUSTER).await, Err(HandshakeError::OtherCluster)));
    assert!(other.heard.is_empty(), "nothing is said to it");
    let mut confused = peer(&[CLUSTER.as_bytes(), &NONCE, &[2]]);
    assert!(matches!(follow(&mut confused, CLUSTER).await, Err(HandshakeError::WrongAnswer)));
    let mut gone = peer(&[CLUSTER.as_bytes(), &NONCE]);
    assert!(matches!(follow(&mut gone, CLUSTER).await, Err(HandshakeError::Io(_))));
}

#[tokio::test]
async fn a_leader_confirms_only_the_answer_to_its_own_hello() {
    let mut follower = peer(&[&NONCE]);
    lead(&mut follower, CLUSTER, NONCE).await.unwrap();
    assert_eq!(follower.heard, [CLUSTER.as_bytes().as_slice(), &NONCE, &CONFIRMATION].concat());
    let mut confused = peer(&[&[8; 8]]);
    assert!(matches!(lead(&mut confused, CLUSTER, NONCE).await, Err(HandshakeError::WrongAnswer)));
    assert_eq!(confused.heard.len(), HELLO_BYTES, "no confirmation");
    assert!(matches!(lead(&mut peer(&[&[7; 7]]), CLUSTER, NONCE).await, Err(HandshakeError::Io(_))));
}

#[tokio::test]
async fn frames_round_trip_and_lies_about_length_are_refused() {
    for len in [0, 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 5 * BUFFER_BYTES, FRAME_BYTES_MAX] {
        let frame = Bytes::from((0..len).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        let mut sent = peer(&[]);
        write_frame(&mut sent, &frame).await.unwrap();
        assert_eq!(read_frame(&mut peer(&[&sent.heard])).await, Ok(frame));
    }
    let header = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    let too_large = read_frame(&mut peer(&[&header(FRAME_BYTES_MAX + 1)])).await;
    assert_eq!(too_large, Err(ReadError::TooLarge));
    assert_eq!(read_frame(&mut peer(&[&[0xff; 4]])).await, Err(ReadError::TooLarge));
    assert_eq!(read_frame(&mut peer(&[&header(FRAME_BYTES_MAX), b"short"])).await, Err(ReadError::Lost));
    assert_eq!(read_frame(&mut peer(&[&[0, 0]])).await, Err(ReadError::Lost));
}
