//! Newcomers.

use bytes::Bytes;

use super::*;
use crate::limits::{GUESTS_PER_ADDRESS_BURST, JOIN_REQUEST_BYTES_MAX, JOIN_RESPONSE_BYTES_MAX};
use crate::{JoinDoor, JoinError, JoinRequest, ReplyError, join};

/// Asks `node` to let `seed` in, and answers its requests with `answer`.
async fn visit(node: &mut Node, seed: u8, request: &[u8], answer: impl Fn(JoinRequest)) -> Result<Bytes, JoinError> {
    let (address, request) = (node.address.clone(), Bytes::copy_from_slice(request));
    let (secret, inviter) = (secret(seed), node.key);
    let mut asked = tokio::spawn(async move { join(&secret, inviter, &[address], request, PATIENCE).await });
    loop {
        tokio::select! {
            result = &mut asked => return result.unwrap(),
            event = node.events.recv() => if let Some(NetEvent::Join(request)) = event {
                answer(request);
            }
        }
    }
}

fn welcome(request: JoinRequest) {
    request.reply("welcome".into()).unwrap();
}

fn no_request(request: JoinRequest) {
    panic!("a request came through: {request:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_is_answered_while_the_door_is_open_and_then_connects() {
    let mut a = Node::start(1).await;
    let closed = visit(&mut a, 2, b"please", no_request).await;
    assert!(matches!(closed, Err(JoinError::Refused)), "{closed:?}");
    a.net.set_join_door(JoinDoor::Open);
    let longest = Bytes::from(vec![5; JOIN_RESPONSE_BYTES_MAX]);
    let net = a.net.clone();
    let answer = visit(&mut a, 2, b"please", |request| {
        assert_eq!((request.from, &request.bytes[..]), (key(2), &b"please"[..]));
        // It becomes a member before it is answered, as it must.
        net.set_members(keys([2]));
        request.reply(longest.clone()).unwrap();
    })
    .await;
    assert_eq!(answer.unwrap(), longest);
    // A member whose answer was lost may ask again.
    assert_eq!(visit(&mut a, 2, b"please", welcome).await.unwrap(), "welcome");
    // Also when the door has been closed behind it.
    a.net.set_join_door(JoinDoor::Closed);
    assert_eq!(visit(&mut a, 2, b"please", welcome).await.unwrap(), "welcome");
    a.net.set_join_door(JoinDoor::Open);
    let mut b = Node::start(2).await;
    b.net.set_members(keys([1]));
    b.net.add_address(a.key, &a.address).unwrap();
    b.up(a.key).await;
    a.up(b.key).await;
    a.net.set_join_door(JoinDoor::Closed);
    let closed = visit(&mut a, 3, b"please", no_request).await;
    assert!(matches!(closed, Err(JoinError::Refused)), "{closed:?}");
    assert_eq!(a.net.peers().len(), 1, "members stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_answers_are_bounded_and_refusals_told() {
    let mut a = Node::start(1).await;
    a.net.set_join_door(JoinDoor::Open);
    let longest = vec![9; JOIN_REQUEST_BYTES_MAX];
    assert_eq!(visit(&mut a, 2, &longest, welcome).await.unwrap(), "welcome");
    let too_long = visit(&mut a, 2, &vec![0; JOIN_REQUEST_BYTES_MAX + 1], no_request).await;
    assert!(matches!(too_long, Err(JoinError::TooLarge)), "{too_long:?}");
    let nobody = join(&secret(2), a.key, &[], Bytes::new(), PATIENCE).await;
    assert!(matches!(nobody, Err(JoinError::NoInviter)), "{nobody:?}");
    let address = [a.address.clone()];
    let other = join(&secret(2), key(9), &address, Bytes::new(), PATIENCE).await;
    assert!(matches!(other, Err(JoinError::Unreachable(_))), "another key answers there: {other:?}");
    let closed: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    match join(&secret(2), a.key, &[closed.clone(), closed], Bytes::new(), PATIENCE).await {
        Err(JoinError::Unreachable(why)) => {
            assert!(why.starts_with("/ip4/127.0.0.1/tcp/1: ") && !why.contains('\n') && why.len() < 200, "{why}");
        }
        other => panic!("{other:?}"),
    }
    let dropped = visit(&mut a, 2, b"x", drop).await;
    assert!(matches!(dropped, Err(JoinError::Refused)), "{dropped:?}");
    let unanswerable = |request: JoinRequest| {
        assert_eq!(request.reply(vec![0; JOIN_RESPONSE_BYTES_MAX + 1].into()), Err(ReplyError::TooLarge));
    };
    let unanswered = visit(&mut a, 2, b"x", unanswerable).await;
    assert!(matches!(unanswered, Err(JoinError::Refused)), "{unanswered:?}");
    let brief = Duration::from_millis(300);
    let late = join(&secret(2), a.key, &address, Bytes::new(), brief).await;
    assert!(matches!(late, Err(JoinError::TimedOut(time)) if time == brief), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visits_from_one_address_are_rated() {
    let mut a = Node::start(1).await;
    a.net.set_join_door(JoinDoor::Open);
    let mut answered = 0;
    // Whoever comes: a newcomer costs nothing.
    for seed in 10..40 {
        match visit(&mut a, seed, b"x", welcome).await {
            Ok(_) => answered += 1,
            Err(JoinError::Refused) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let burst = GUESTS_PER_ADDRESS_BURST as usize;
    assert!((burst..burst + 20).contains(&answered), "{answered} visits");
}
