//! Taking a shard in bulk: what is shown meanwhile, and going on after those who give and who takes are killed.

use folkmoot::api::{BootstrapStage, Database as _};
use folkmoot_tests::processes::{Node, converged, printed, run_join, until};
use serde_json::Value;

/// So many that they come in a hundred pages.
const DOCUMENTS: u64 = 20_000;

/// Writes documents by `folkmoot import`.
async fn fill(node: &Node) {
    let line =
        |number| format!("{{\"id\":\"d{number:05}\",\"n\":{number},\"text\":\"{}\"}}\n", "lorem ipsum ".repeat(8));
    let lines: String = (0..DOCUMENTS).map(line).collect();
    let file = node.data().with_extension("ndjson");
    std::fs::write(&file, lines).unwrap();
    let output = node.cli(&["import", "notes", file.to_str().unwrap()], "").await;
    assert!(output.status.success(), "{}", printed(&output));
}

/// Documents that are told of and not yet on the disk: two batches of some pieces each.
const ON_THE_WAY_MAX: u64 = 4_096;

#[tokio::test(flavor = "multi_thread")]
async fn bulk_goes_on_after_giver_and_taker_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    fill(&a).await;
    let b = Node::join(folder.path(), "b", &a).await;
    converged(&[&a, &b]).await;
    let ticket = a.ticket(&[]).await;
    let mut c = Node::new(folder.path(), "c");
    let joined = run_join(c.data(), "c", &ticket).await;
    assert!(joined.status.success(), "{}", printed(&joined));
    // So that nothing is missed: only one gives, and not before it is looked.
    a.freeze();
    b.freeze();
    c.start().await;
    a.thaw();
    let before = until("documents come", async || {
        let status = c.client().status().await.map_err(|error| error.to_string())?;
        let found = status.bootstraps.iter().find(|one| one.stage == BootstrapStage::Documents && one.documents > 500);
        found.cloned().ok_or_else(|| format!("{:?}, {:?}", status.bootstraps, status.last_bootstrap))
    });
    let before = before.await;
    a.kill();
    c.kill();
    assert!(before.documents < DOCUMENTS && before.documents_total == DOCUMENTS, "{before:?}");
    assert_eq!(before.givers, [a.key()]);
    assert!(before.documents_per_second > 0.0 && before.percent < 100.0 && before.bytes > 0, "{before:?}");

    // Started again without anybody to ask, it has what it had, and is not ready.
    c.start().await;
    let status = c.client().status().await.unwrap();
    let resumed = status.bootstraps.first().cloned().expect("it goes on");
    // What was on its way to the disk is asked for again.
    assert!(
        resumed.documents > 0 && resumed.documents + ON_THE_WAY_MAX >= before.documents,
        "{resumed:?} after {before:?}"
    );
    assert_eq!(resumed.started, before.started);
    assert!(!status.readiness.ready && status.readiness.reasons.iter().any(|reason| reason.contains("in bulk")));
    let shown = printed(&c.cli(&["status"], "").await);
    assert!(shown.contains(&format!("of {DOCUMENTS} documents")), "{shown}");

    // The other gives the rest, and no more than the rest.
    b.thaw();
    converged(&[&b, &c]).await;
    let last = until("it is over", async || {
        let status = c.client().status().await.map_err(|error| error.to_string())?;
        status.last_bootstrap.filter(|_| status.bootstraps.is_empty()).ok_or_else(|| format!("{:?}", status.bootstraps))
    });
    let last = last.await;
    assert_eq!((last.documents, last.documents_false), (DOCUMENTS, 0), "each document was taken once");
    assert!(last.givers.contains(&a.key()) && last.givers.contains(&b.key()) && last.started == before.started);
    let json: Value = serde_json::from_slice(&c.cli(&["--json", "status"], "").await.stdout).unwrap();
    assert_eq!(json["last_bootstrap"]["documents"], DOCUMENTS);
    assert!(printed(&c.cli(&["status"], "").await).contains("last bootstrap"));

    a.start().await;
    converged(&[&a, &b, &c]).await;
    assert_eq!(c.all("notes").await.unwrap(), a.all("notes").await.unwrap());
    c.assert_sound().await;
    // What was said stays, over a restart too.
    c.kill();
    c.start().await;
    assert_eq!(c.client().status().await.unwrap().last_bootstrap, Some(last));
}
