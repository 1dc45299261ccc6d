//! Inviting, joining, and going on after either side was killed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use folkmoot::ErrorCode;
use folkmoot::api::{Database as _, LinkRule, PeerState};
use folkmoot_tests::processes::{Node, converged, printed, run_join, until};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_replicate_both_ways_and_outlive_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    // What was there before the other came, and what comes after.
    a.put("notes", "early", json!({"from": "a"})).await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    let met = converged(&[&a, &b]).await;
    assert_eq!(b.get("notes", "early").await.unwrap(), json!({"from": "a"}));
    b.put("notes", "late", json!({"from": "b"})).await;
    let told = converged(&[&a, &b]).await;
    assert_eq!(a.get("notes", "late").await.unwrap(), json!({"from": "b"}));
    println!("joined and equal after {met:?}; a write was there after {told:?}");

    for round in 0..2 {
        a.kill();
        b.put("notes", &format!("b-{round}"), json!({ "round": round })).await;
        a.start().await;
        let took = converged(&[&a, &b]).await;
        println!("the inviter was killed: equal {took:?} after it was up");
        b.kill();
        a.put("notes", &format!("a-{round}"), json!({ "round": round })).await;
        b.start().await;
        let took = converged(&[&a, &b]).await;
        println!("the newcomer was killed: equal {took:?} after it was up");
    }
    assert_eq!(a.all("notes").await.unwrap().len(), 6);
    assert_eq!(a.all("notes").await.unwrap(), b.all("notes").await.unwrap());

    // Both at once.
    a.kill();
    b.kill();
    b.spawn();
    a.start().await;
    b.wait_until_up().await;
    a.put("notes", "last-a", json!({})).await;
    b.put("notes", "last-b", json!({})).await;
    converged(&[&a, &b]).await;
    assert_eq!(a.all("notes").await.unwrap().len(), 8);
    for node in [&a, &b] {
        node.assert_sound().await;
        assert_eq!(node.client().status().await.unwrap().members, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_join_at_once_with_one_ticket() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("notes", "one", json!({"n": 1})).await;
    let ticket = a.ticket(&["--uses", "2"]).await;
    let (b, c) =
        tokio::join!(Node::join_with(folder.path(), "b", &ticket), Node::join_with(folder.path(), "c", &ticket));
    b.put("notes", "two", json!({"n": 2})).await;
    c.put("notes", "three", json!({"n": 3})).await;
    println!("three nodes equal after {:?}", converged(&[&a, &b, &c]).await);
    for node in [&a, &b, &c] {
        assert_eq!(node.all("notes").await.unwrap().len(), 3);
        assert_eq!(node.client().status().await.unwrap().members, 3);
        node.assert_sound().await;
    }
    // The newcomers find each other, too: neither has the other's address from the ticket.
    until("the newcomers meet", async || {
        let peers = b.client().peers().await.map_err(|error| error.to_string())?;
        let met = peers.iter().any(|peer| peer.node == c.key() && peer.state == PeerState::Connected);
        if met { Ok(()) } else { Err(format!("{peers:?}")) }
    })
    .await;
    let third = run_join(&folder.path().join("d"), "d", &ticket).await;
    assert!(!third.status.success(), "the ticket was for two");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_met_through_a_third_one_find_each_other_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    let ticket = a.ticket(&["--uses", "2"]).await;
    let mut b = Node::join_with(folder.path(), "b", &ticket).await;
    let mut c = Node::join_with(folder.path(), "c", &ticket).await;
    for (node, other) in [(&b, &c), (&c, &b)] {
        let file = node.data().join("peers.json");
        until("the other's addresses are written down", async || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            if text.contains(&other.key().to_string()) { Ok(()) } else { Err(text) }
        })
        .await;
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    a.kill();
    b.kill();
    c.kill();
    b.start().await;
    c.start().await;
    b.put("notes", "one", json!({"from": "b"})).await;
    println!("two of three equal after {:?}", converged(&[&b, &c]).await);
    // Each node has a token of its own; on one machine the data directory tells it.
    let token = c.data().join("owner.token");
    for other in [&[c.data().to_str().unwrap()][..], &[c.url(), "--against-token-file", token.to_str().unwrap()]] {
        let compared = b.cli(&[&["--json", "digests", "--against"], other].concat(), "").await;
        assert!(compared.status.success(), "{}", printed(&compared));
        let said: serde_json::Value = serde_json::from_slice(&compared.stdout).unwrap();
        assert_eq!(said["result"], "equal");
    }
    assert_eq!(c.get("notes", "one").await.unwrap(), json!({"from": "b"}));

    // A link that was cut is up again as soon as it may be, not when the next attempt is due.
    b.client().set_link(&c.key(), LinkRule::Blocked).await.unwrap();
    let state = async |wanted: PeerState| {
        until("the state of the link", async || {
            let peers = b.client().peers().await.map_err(|error| error.to_string())?;
            let found = peers.iter().find(|peer| peer.node == c.key()).map(|peer| peer.state);
            if found == Some(wanted) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    state(PeerState::Blocked).await;
    c.put("notes", "two", json!({"from": "c"})).await;
    b.client().set_link(&c.key(), LinkRule::Open).await.unwrap();
    let begun = std::time::Instant::now();
    state(PeerState::Connected).await;
    println!("connected {:?} after the link was opened", begun.elapsed());
    converged(&[&b, &c]).await;
    // A damaged list of addresses is no reason not to start.
    b.kill();
    std::fs::write(b.data().join("peers.json"), "{").unwrap();
    b.start().await;
    converged(&[&b, &c]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tickets_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let refused = async |why: &str, ticket: &str, codes: &[i32]| {
        let data = folder.path().join(why);
        let output = run_join(&data, "late", ticket).await;
        let said = printed(&output);
        println!("{why}: {:?} {said}", output.status.code());
        assert!(codes.contains(&output.status.code().unwrap()), "{why}: {:?}: {said}", output.status);
        assert!(said.contains("ticket"), "{why}: {said}");
        assert!(!said.contains("panicked"), "{why}: {said}");
        // It can be tried again with a good one.
        assert!(!data.join("cluster.json").exists());
        said
    };
    refused("garbage", "hello", &[2]).await;
    let good = a.ticket(&[]).await;
    let flip = |c: char| if c == 'q' { 'p' } else { 'q' };
    let damaged: String = good.char_indices().map(|(at, c)| if at == good.len() / 2 { flip(c) } else { c }).collect();
    refused("damaged", &damaged, &[2]).await;
    refused("cut", &good[..good.len() - 4], &[2]).await;

    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let short = a.ticket(&["--expires", "1s"]).await;
    let end = now() + Duration::from_millis(1_100);
    until("the ticket expires", async || if now() > end { Ok(()) } else { Err("it is good".to_owned()) }).await;
    assert!(refused("expired", &short, &[2, 4]).await.contains("expired"));

    // A ticket in use, and the same one again: once with the door open for another ticket, once with it closed.
    let b = Node::join_with(folder.path(), "b", &good).await;
    refused("used-up", &good, &[3, 4]).await;
    let other = a.ticket(&[]).await;
    let said = refused("used-up-while-another-is-good", &good, &[4]).await;
    assert!(said.contains("used up"), "{said}");
    let c = Node::join_with(folder.path(), "used-up", &other).await;
    converged(&[&a, &b, &c]).await;

    // Whoever came in before and lost the answer asks again, with its key: that costs no use and makes no second member.
    let once = a.ticket(&[]).await;
    let data = folder.path().join("lost-answer");
    let first = run_join(&data, "lost", &once).await;
    assert!(first.status.success(), "{}", printed(&first));
    std::fs::remove_file(data.join("cluster.json")).unwrap();
    std::fs::remove_dir_all(data.join("store")).unwrap();
    let again = run_join(&data, "lost", &once).await;
    assert!(again.status.success(), "{}", printed(&again));
    assert_eq!(a.client().status().await.unwrap().members, 4);
    let said = refused("somebody-else", &once, &[4]).await;
    assert!(said.contains("folkmoot invite") && !said.contains("not valid"), "{said}");

    // A directory that has a cluster is left alone.
    let another = a.ticket(&[]).await;
    let taken = run_join(b.data(), "b", &another).await;
    assert_eq!(taken.status.code(), Some(2), "{}", printed(&taken));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_read_and_strangers_cannot_be_blocked() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("notes", "one", json!({"n": 1})).await;
    let ticket = a.ticket(&["--role", "reader"]).await;
    let reader = Node::join_with(folder.path(), "reader", &ticket).await;
    converged(&[&a, &reader]).await;
    assert_eq!(reader.get("notes", "one").await.unwrap(), json!({"n": 1}));
    let body = [("content-type", "application/json")];
    let refused = reader.http("PUT", "/v1/collections/notes/docs/two", &body, b"{}").await;
    assert_eq!((refused.status, refused.json["code"].as_str()), (403, Some("not_allowed")), "{refused:?}");
    let cli = reader.cli(&["put", "notes", "two", "{}"], "").await;
    assert_eq!(cli.status.code(), Some(4), "{}", printed(&cli));
    // Only who may admit others can invite them.
    let ticket = reader.cli(&["--json", "invite"], "").await;
    assert_eq!(ticket.status.code(), Some(4), "{}", printed(&ticket));
    let said: serde_json::Value = serde_json::from_slice(&ticket.stderr).unwrap();
    assert_eq!(said["code"], "not_allowed");
    assert!(said["hint"].as_str().unwrap().contains("admin"), "{said}");

    let unknown: folkmoot::AuthorKey = "11".repeat(32).parse().unwrap();
    for nobody in [unknown, a.key()] {
        let error = a.client().set_link(&nobody, LinkRule::Blocked).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::PeerNotFound);
    }
    a.put("notes", "two", json!({"n": 2})).await;
    converged(&[&a, &reader]).await;
    assert_eq!(a.all("notes").await.unwrap(), reader.all("notes").await.unwrap());
}
