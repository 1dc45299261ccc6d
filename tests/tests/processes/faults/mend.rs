//! `verify`, `repair` and `rejoin` as such: when they refuse, what they keep, and that a crash in the middle harms nothing.

use std::process::{Command, Stdio};
use std::time::Duration;

use folkmoot_tests::processes::{Node, converged, printed, program, until};

use super::{code, fill, held, no_forks, parsed};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused_and_a_sound_one_survives_repair_and_its_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::found(folder.path(), "a").await;
    let ids = fill(&node, "doc", 40).await;
    for command in ["repair", "rejoin"] {
        let refused = node.cli(&[command], "").await;
        assert_eq!(code(&refused), 1, "{}", printed(&refused));
        assert!(printed(&refused).contains("in use by another process"), "{}", printed(&refused));
    }
    assert_eq!(code(&node.cli(&["verify"], "").await), 0, "verify asks the node that runs");
    node.kill();
    let report = node.cli(&["--json", "verify"], "").await;
    assert_eq!((code(&report), parsed(&report)["damage_total"].as_u64()), (0, Some(0)), "{}", printed(&report));
    assert_eq!(parsed(&report)["documents"].as_u64(), Some(40), "without a node verify reads the directory");

    // Nobody is known from whom anything could be taken.
    let refused = node.cli(&["rejoin"], "").await;
    assert_eq!(code(&refused), 2, "{}", printed(&refused));
    assert!(printed(&refused).contains("no other member"), "{}", printed(&refused));

    // A repair that is killed, early and late, leaves the old store or the new one.
    for pause_ms in [30, 150, 400, 900] {
        let mut repair = Command::new(program());
        repair.args(["repair", "--data"]).arg(node.data()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut repair = repair.spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let _ = repair.kill();
        repair.wait().unwrap();
        let report = node.cli(&["--json", "verify"], "").await;
        assert_eq!(code(&report), 0, "killed after {pause_ms} ms: {}", printed(&report));
        assert_eq!(parsed(&report)["documents"].as_u64(), Some(40));
    }
    let planned = node.cli(&["repair", "--dry-run"], "").await;
    assert_eq!(code(&planned), 0, "{}", printed(&planned));
    let repaired = node.cli(&["--json", "repair"], "").await;
    let report = parsed(&repaired);
    assert_eq!((code(&repaired), report["ops_missing"].as_u64()), (0, Some(0)), "{report}");
    assert!(report["set_aside"].as_str().is_some_and(|path| std::path::Path::new(path).join("store").is_dir()));
    node.start().await;
    assert_eq!(held(&node).await, ids);
    node.put("load", "after", serde_json::json!({"n": 1})).await;
    node.assert_sound().await;
    no_forks(&node).await;
    node.kill();

    // Without its store a node must not begin an empty one.
    std::fs::remove_dir_all(node.data().join("store")).unwrap();
    let status = node.try_start().await.unwrap_err();
    assert_eq!(status.code(), Some(6));
    assert_eq!(code(&node.cli(&["verify"], "").await), 6);
    // What was set aside has all but the last write.
    let aside = report["set_aside"].as_str().unwrap();
    let repaired = node.cli(&["--json", "repair", "--from", aside], "").await;
    assert_eq!(code(&repaired), 6, "the last write is missing: {}", printed(&repaired));
    assert_eq!(parsed(&repaired)["ops_missing"].as_u64(), Some(1));
    node.start().await;
    assert_eq!(held(&node).await, ids);
    assert_eq!(code(&node.cli(&["verify"], "").await), 6, "it is told until it is given up");
    node.kill();
    assert_eq!(code(&node.cli(&["repair", "--accept-loss"], "").await), 0);
    node.start().await;
    node.assert_sound().await;
    assert_eq!(held(&node).await, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_rejoins_keeps_what_only_it_had_and_takes_the_rest_from_peers() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    let ticket = a.ticket(&["--role", "admin"]).await;
    let mut b = Node::join_with(folder.path(), "b", &ticket).await;
    let mut ids = fill(&a, "a", 20).await;
    ids.extend(fill(&b, "b", 20).await);
    converged(&[&a, &b]).await;
    b.kill();
    ids.extend(fill(&a, "only-a", 20).await);
    a.kill();
    let key = a.key();
    let done = a.cli(&["--json", "rejoin"], "").await;
    assert_eq!(code(&done), 0, "{}", printed(&done));
    a.start().await;
    assert_eq!(a.key(), key, "it is who it was");
    let alone = held(&a).await;
    assert!(ids.iter().filter(|id| id.contains("a-")).all(|id| alone.contains(id)), "its own writes are there at once");
    b.start().await;
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        assert_eq!(held(node).await, ids);
        node.assert_sound().await;
        no_forks(node).await;
    }

    // With nothing but its keys left, a ticket brings it back.
    let copied = a.data().join("control");
    until("the control log is copied", async || if copied.exists() { Ok(()) } else { Err("not yet".to_owned()) }).await;
    a.kill();
    std::fs::remove_dir_all(a.data().join("store")).unwrap();
    std::fs::remove_file(copied).unwrap();
    let refused = a.cli(&["rejoin"], "").await;
    assert_eq!(code(&refused), 6, "{}", printed(&refused));
    ids.extend(fill(&b, "later", 5).await);
    let ticket = b.ticket(&[]).await;
    let done = a.cli(&["--json", "rejoin", "--ticket", &ticket], "").await;
    assert_eq!(code(&done), 0, "{}", printed(&done));
    a.start().await;
    converged(&[&a, &b]).await;
    assert_eq!(held(&a).await, ids);
    fill(&a, "again", 3).await;
    converged(&[&a, &b]).await;
}
