//! Writes that are acknowledged when several nodes have them.

use std::time::{Duration, Instant};

use folkmoot::api::{
    Atomicity, BulkOp, BulkOptions, Database as _, Durability, DurabilityReached, Edit, WriteOptions, WriteOutcome,
};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text, until};
use serde_json::json;

async fn three(folder: &std::path::Path) -> [Node; 3] {
    let a = Node::found(folder, "a").await;
    a.put("notes", "x", json!({"n": 0})).await;
    let ticket = a.ticket(&["--uses", "2"]).await;
    let b = Node::join_with(folder, "b", &ticket).await;
    let c = Node::join_with(folder, "c", &ticket).await;
    converged(&[&a, &b, &c]).await;
    [a, b, c]
}

async fn put(node: &Node, doc: &str, durability: Durability, timeout: Duration) -> WriteOutcome {
    let options = WriteOptions { durability, timeout: Some(timeout), ..WriteOptions::default() };
    node.client().put(&name("notes"), id(doc), text(&json!({"n": 1})), &options).await.unwrap()
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_acknowledged_when_so_many_nodes_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, mut b, mut c] = three(folder.path()).await;
    for (durability, needed) in
        [(Durability::Local, 1), (Durability::Peers(2), 2), (Durability::Majority, 2), (Durability::All, 3)]
    {
        let done = put(&a, &format!("{durability}"), durability, LONG).await.durability;
        assert!(done.is_satisfied() && done.needed == needed && done.requested == durability, "{done:?}");
    }
    // What two have survives the loss of either, however hard: the node that took it is gone for good here.
    let both = put(&a, "kept", Durability::All, LONG).await.durability;
    assert_eq!(both.replicas, 3);
    for node in [&mut a, &mut b, &mut c] {
        node.kill();
    }
    for node in [&mut b, &mut c] {
        node.start().await;
        assert_eq!(node.get("notes", "kept").await.unwrap()["n"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_reached_in_time_is_told_and_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, mut c] = three(folder.path()).await;
    c.kill();
    until("the node is missed", async || {
        let peers = a.client().peers().await.map_err(|error| error.to_string())?;
        let is_here = peers.iter().any(|peer| peer.node == c.key() && peer.state.name() == "connected");
        if is_here { Err("it is still here".to_owned()) } else { Ok(()) }
    })
    .await;
    let begun = Instant::now();
    let done = put(&a, "all", Durability::All, SHORT).await.durability;
    assert_eq!(done, DurabilityReached { requested: Durability::All, replicas: 2, needed: 3 });
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let done = put(&a, "more", Durability::Majority, LONG).await.durability;
    assert!(done.is_satisfied() && done.replicas == 2, "{done:?}");

    let path = "/v1/collections/notes/docs/rest";
    let headers = [("folkmoot-durability", "3"), ("folkmoot-timeout", "300ms")];
    let answer = a.http("PUT", path, &headers, br#"{"n":1}"#).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert!(answer.head.contains("folkmoot-durability: 3; replicas=2; needed=3"), "{answer:?}");
    assert_eq!(answer.json["durability"], json!({"requested": "3", "replicas": 2, "needed": 3}));

    let said = a.cli(&["put", "notes", "cli", "{}", "--durability", "all", "--timeout", "300ms"], "").await;
    assert!(said.status.success() && printed(&said).contains("2 of 3 replicas"), "{}", printed(&said));

    // Many wait no longer than one.
    let edit = |n: usize| BulkOp::from(Edit::Put { id: id(&format!("bulk-{n}")), json: text(&json!({"n": n})) });
    for atomicity in [Atomicity::Each, Atomicity::AllOrNothing] {
        let options =
            BulkOptions { durability: Durability::All, timeout: Some(SHORT), atomicity, ..BulkOptions::default() };
        let begun = Instant::now();
        let done = a.client().bulk(&name("notes"), (0..40).map(edit).collect(), &options).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert_eq!(done.len(), 40);
        for done in done {
            let done = done.unwrap();
            assert!(done.session.is_some());
            assert!(!done.durability.is_satisfied() || done.status.name() == "unchanged", "{done:?}");
        }
    }

    // It replicates further all the same.
    c.start().await;
    converged(&[&a, &b, &c]).await;
    for doc in ["all", "rest", "bulk-39"] {
        assert!(c.get("notes", doc).await.is_ok(), "{doc}");
    }
    let told = a.metrics().await;
    assert!(told["folkmoot_durability_not_reached_total"] >= 4.0);
    assert!(told["folkmoot_durability_wait_seconds_count"] >= 5.0);
}
