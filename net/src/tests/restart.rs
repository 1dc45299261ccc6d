//! A panic costs a restart of the swarm, not more.

use super::*;
use crate::{DownReason, Lane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_network_task_restarts_it_on_the_same_address() {
    let (mut a, mut b) = pair().await;
    // The one that listens and is dialled panics: the other finds it again only if it listens where it did.
    b.net.panic_network_task();
    assert_eq!(b.down(a.key).await, DownReason::Restart);
    b.wait("Restarted", |event| match event {
        NetEvent::Restarted => Some(()),
        other => panic!("{other:?} before Restarted"),
    })
    .await;
    a.down(b.key).await;
    a.up(b.key).await;
    b.up(a.key).await;
    assert_eq!(b.net.listen_addrs(), std::slice::from_ref(&b.address));
    a.net.send(&b.key, Lane::Live, "after".into()).unwrap();
    assert_eq!(b.frame().await.2, "after");
}
