//! Clocks that are set while a node runs, by libfaketime. Only the wall clock: with the monotonic one faked, timers of
//! every program stand still.

use std::path::{Path, PathBuf};
use std::time::Duration;

use folkmoot_tests::processes::{Node, converged, until};

use super::{fill, held, no_forks, not_tested, sh};

/// A clock that can be set.
struct Clock(PathBuf);

impl Clock {
    fn set(&self, offset: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

fn with_clock(node: &mut Node, folder: &Path, name: &str, library: &str) -> Clock {
    let clock = Clock(folder.join(format!("{name}.clock")));
    clock.set("+0");
    node.set_environment(&[
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.0.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    clock
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_lose_nothing_and_are_told() {
    let found =
        sh("ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1 2>/dev/null | head -n 1");
    let library = found.unwrap_or_default().trim().to_owned();
    if library.is_empty() {
        return not_tested("clocks that jump", "libfaketime is not installed (Debian: libfaketime)");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    a.stop().await;
    b.stop().await;
    let clocks = [with_clock(&mut a, folder.path(), "a", &library), with_clock(&mut b, folder.path(), "b", &library)];
    a.start().await;
    b.start().await;
    let mut expected = fill(&a, "before", 3).await;
    // Within what peers take: forward, back, and one that runs at twice the speed.
    for (step, offset) in ["+200s", "-30s", "+0 x2.0", "+0"].into_iter().enumerate() {
        clocks[0].set(offset);
        tokio::time::sleep(Duration::from_millis(300)).await;
        expected.extend(fill(&a, &format!("a{step}"), 3).await);
        expected.extend(fill(&b, &format!("b{step}"), 3).await);
        converged(&[&a, &b]).await;
    }
    // An hour ahead: what is written then is acknowledged and kept, and held back by others.
    clocks[0].set("+3600s");
    until("the node tells that its clock was set", async || {
        let metrics = a.http("GET", "/metrics", &[], b"").await;
        let log = a.log();
        if log.contains("the clock has been set by") { Ok(()) } else { Err(format!("{}", metrics.status)) }
    })
    .await;
    let ahead = fill(&a, "ahead", 3).await;
    expected.extend(ahead.iter().cloned());
    until("the other holds them back", async || {
        let digests = b.http("GET", "/v1/peers", &[], b"").await;
        if digests.status == 200 && held(&b).await.is_disjoint(&ahead) { Ok(()) } else { Err(digests.json.to_string()) }
    })
    .await;
    assert_eq!(held(&a).await, expected);
    // A restart with the right time loses none of it.
    clocks[0].set("+0");
    a.kill();
    a.start().await;
    assert_eq!(held(&a).await, expected);
    // When its time has come, the other takes it.
    clocks[1].set("+3600s");
    converged(&[&a, &b]).await;
    assert_eq!(held(&b).await, expected);
    for node in [&a, &b] {
        node.assert_sound().await;
        no_forks(node).await;
    }
}
