//! Forks that witnesses settle.

use std::collections::BTreeMap;
use std::path::Path;

use folkmoot::api::Database as _;
use folkmoot_tests::processes::{Node, printed, run_join_unsealed, until};
use folkmoot_tests::villain::{Attack, LiveVillain};
use serde_json::{Value, json};

/// Streams that the villain is to fork.
const FORKS: f64 = 3.0;

/// Returns where a node is reached, as its peers write it down.
fn address(node: &Node) -> Value {
    let text = std::fs::read_to_string(node.data().join("endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_str(&text).unwrap();
    json!({ "key": node.key(), "address": endpoints["p2p"][0] })
}

/// Has a data directory that has joined look for these nodes and no others.
fn look_for(data: &Path, nodes: &[&Node]) {
    let path = data.join("cluster.json");
    let mut record: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    record["peers"] = nodes.iter().map(|node| address(node)).collect();
    std::fs::write(&path, record.to_string()).unwrap();
}

async fn figure(node: &Node, name: &str) -> f64 {
    node.metrics().await.get(name).copied().unwrap_or_default()
}

/// Waits until nodes hold the same heads and documents. How many ops they hold is another matter: nobody needs all branches.
async fn agree(nodes: &[&Node]) {
    until("the nodes agree", async || {
        let mut all = Vec::new();
        for node in nodes {
            let mut digests = node.client().digests().await.map_err(|error| format!("{error:?}"))?;
            digests.sort();
            if let Some(waiting) = digests.iter().find(|digest| digest.ops_unapplied > 0) {
                return Err(format!("not applied: {waiting:?}"));
            }
            let told =
                digests.into_iter().map(|told| (told.collection, told.shard, told.ops_digest, told.state_digest));
            all.push(told.collect::<Vec<_>>());
        }
        if all.iter().all(|digests| *digests == all[0]) { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
}

/// The documents that the villain wrote, as a node shows them.
async fn evil(node: &Node) -> BTreeMap<String, String> {
    let all = node.all("notes").await.unwrap();
    let evil = all.into_iter().filter(|(id, ..)| id.starts_with("evil-"));
    evil.map(|(id, _, json)| (id, String::from_utf8_lossy(&json).into_owned())).collect()
}

async fn witnesses(node: &Node) -> Vec<Value> {
    let answer = node.http("GET", "/v1/witnesses", &[], b"").await;
    assert_eq!(answer.status, 200);
    answer.json["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_are_settled_by_witnesses_and_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("notes", "first", json!({ "n": 0 })).await;
    let b = Node::join(folder.path(), "b", &a).await;
    let mut c = Node::join(folder.path(), "c", &a).await;
    let data = folder.path().join("villain");
    let output = run_join_unsealed(&data, "villain", &a.ticket(&[]).await).await;
    assert!(output.status.success(), "{}", printed(&output));
    agree(&[&a, &b, &c]).await;
    // Its key signs one history for one of them, and another for another.
    look_for(&data, &[&a, &b]);
    let villain = LiveVillain::begin(&data, "notes", Attack::Forks);
    for node in [&a, &b, &c] {
        until("it is found out", async || match figure(node, "folkmoot_forks_total").await {
            found if found >= FORKS => Ok(()),
            found => Err(format!("{found} forks")),
        })
        .await;
    }
    drop(villain);
    agree(&[&a, &b, &c]).await;
    let forks = until("they know of the same forks", async || {
        let undecided = [
            figure(&a, "folkmoot_forks_undecided").await,
            figure(&b, "folkmoot_forks_undecided").await,
            figure(&c, "folkmoot_forks_undecided").await,
        ];
        let same = undecided[0] >= FORKS && undecided.iter().all(|count| *count == undecided[0]);
        if same { Ok(undecided[0]) } else { Err(format!("{undecided:?}")) }
    })
    .await;
    // Nothing of a fork counts.
    let before = evil(&a).await;
    assert_eq!(before, evil(&c).await);

    // Who they are is said once, by the owner; nobody says anything about forks.
    let refused = b.cli(&["witness", "add", "b"], "").await;
    assert!(!refused.status.success() && printed(&refused).contains("owner"), "{}", printed(&refused));
    let unknown = a.cli(&["witness", "add", "nobody"], "").await;
    assert!(!unknown.status.success(), "{}", printed(&unknown));
    let keys = [&a, &b, &c].map(|node| node.key().to_string());
    let done = a.cli(&["witness", "add", &keys[0], &keys[1], &keys[2]], "").await;
    assert!(done.status.success(), "{}", printed(&done));
    c.kill();
    c.start().await;
    for node in [&a, &b, &c] {
        until("the forks are settled", async || match figure(node, "folkmoot_forks_undecided").await {
            0.0 => Ok(()),
            left => Err(format!("{left} of {forks}")),
        })
        .await;
    }
    agree(&[&a, &b, &c]).await;
    let after = evil(&a).await;
    assert!(after.len() as f64 >= before.len() as f64 + forks, "{before:?} {after:?}");
    for node in [&b, &c] {
        assert_eq!(evil(node).await, after);
    }
    for node in [&a, &b, &c] {
        node.assert_sound().await;
    }

    // It can be seen who said what.
    let listed = witnesses(&b).await;
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|witness| witness["quorum"] == 2), "{listed:?}");
    let spoke: u64 = listed.iter().map(|witness| witness["evidence"].as_u64().unwrap()).sum();
    assert!(spoke >= 2, "{listed:?}");
    let said = until("the audit tells", async || {
        let output = a.cli(&["--json", "audit", "query", "--limit", "1000"], "").await;
        let text = printed(&output);
        if text.contains("forked streams") { Ok(text) } else { Err(text) }
    });
    said.await;

    // Further witnesses raise the majority, and one that is dismissed is none.
    let removed = a.cli(&["witness", "remove", &keys[2], "--why", "moved"], "").await;
    assert!(removed.status.success(), "{}", printed(&removed));
    until("everybody hears", async || match witnesses(&b).await.len() {
        2 => Ok(()),
        count => Err(format!("{count} witnesses")),
    })
    .await;
    assert_eq!(evil(&c).await, after, "what was said stands");
}
