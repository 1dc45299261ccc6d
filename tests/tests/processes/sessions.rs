//! Clients that go from node to node and see no step back.

use std::time::{Duration, Instant};

use folkmoot::api::{FindQuery, LinkRule, PeerState, ReadOptions, SessionToken, Touched, WriteOptions};
use folkmoot::{Client, Database as _, ErrorCode, Queries as _, Sessions as _};
use folkmoot_tests::processes::{HttpAnswer, Node, converged, id, name, printed, text, until};
use serde_json::json;

use super::access::user;

const DOC: &str = "/v1/collections/notes/docs/x";

async fn two(folder: &std::path::Path) -> (Node, Node) {
    let a = Node::found(folder, "a").await;
    a.put("notes", "x", json!({"n": 0})).await;
    let b = Node::join(folder, "b", &a).await;
    converged(&[&a, &b]).await;
    (a, b)
}

/// The token of an answer.
fn session(answer: &HttpAnswer) -> String {
    let mut headers = answer.raw_head.lines().filter_map(|line| line.split_once(": "));
    let found = headers.find(|(name, _)| name.eq_ignore_ascii_case("folkmoot-session"));
    found.unwrap_or_else(|| panic!("no token: {answer:?}")).1.to_owned()
}

async fn cut(a: &Node, b: &Node) {
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    until("the link is cut", async || {
        let peers = b.client().peers().await.map_err(|error| error.to_string())?;
        let state = peers.iter().find(|peer| peer.node == a.key()).map(|peer| peer.state);
        if state == Some(PeerState::Disconnected) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
}

async fn mend(a: &Node, b: &Node) {
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_on_one_node_is_seen_on_every_other() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = two(folder.path()).await;
    // Nothing is waited for where nothing is missing.
    let read = b.http("GET", DOC, &[], b"").await;
    let begun = Instant::now();
    let again = a.http("GET", DOC, &[("folkmoot-session", &session(&read))], b"").await;
    assert!(again.status == 200 && begun.elapsed() < Duration::from_secs(2), "{again:?}");

    cut(&a, &b).await;
    let written = a.http("PUT", DOC, &[], br#"{"n":1}"#).await;
    let wrote = session(&written);
    let old = b.http("GET", DOC, &[], b"").await;
    assert_eq!((old.status, &old.json["n"]), (200, &json!(0)), "without a token a node answers from what it has");
    let short = [("folkmoot-session", wrote.as_str()), ("folkmoot-timeout", "300ms")];
    let query = json!({"selector": {"n": 1}}).to_string();
    let json_type = ("content-type", "application/json");
    for (method, path, body) in [
        ("GET", DOC, ""),
        ("PUT", DOC, r#"{"n":7}"#),
        ("GET", "/v1/collections/notes/docs", ""),
        ("POST", "/v1/collections/notes/query", &query),
        ("POST", "/v1/collections/notes/aggregate", "{}"),
        ("GET", "/v1/collections/notes/changes", ""),
        ("GET", "/v1/collections/notes/docs/x/history", ""),
        ("POST", "/v1/collections/notes/docs", "{}"),
        ("GET", "/v1/session?collection=notes", ""),
    ] {
        let late = b.http(method, path, &[&short[..], &[json_type]].concat(), body.as_bytes()).await;
        assert_eq!((late.status, late.json["code"].as_str()), (503, Some("session_not_reached")), "{path}: {late:?}");
        let detail = late.json["detail"].as_str().unwrap();
        assert!(detail.contains("1 ops of 1 streams of notes"), "it tells what is missing: {detail}");
        assert!(late.head.contains("retry-after: "), "{late:?}");
    }
    assert_eq!(b.get("notes", "x").await.unwrap()["n"], 0, "nothing was written");
    // What the session has not touched is answered at once.
    assert_eq!(b.http("GET", "/v1/collections", &short, b"").await.status, 200);
    assert_eq!(b.http("GET", "/v1/collections/other/docs/x", &short, b"").await.status, 404);

    // Who waits is answered as soon as it is here.
    let long = [("folkmoot-session", wrote.as_str()), ("folkmoot-timeout", "20s")];
    let waits = async {
        let begun = Instant::now();
        (b.http("GET", DOC, &long, b"").await, begun.elapsed())
    };
    let mends = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        mend(&a, &b).await;
    };
    let ((read, took), ()) = tokio::join!(waits, mends);
    assert_eq!((read.status, &read.json["n"]), (200, &json!(1)), "{read:?}");
    assert!(took > Duration::from_millis(300) && took < Duration::from_secs(19), "{took:?}");

    // A delete is seen too, and that nothing is there is something that was seen.
    cut(&a, &b).await;
    let deleted = b.http("DELETE", DOC, &[("folkmoot-session", &session(&read))], b"").await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let gone = b.http("GET", DOC, &[], b"").await;
    assert_eq!(gone.status, 404);
    for token in [session(&deleted), session(&gone)] {
        let late = a.http("GET", DOC, &[("folkmoot-session", &token), ("folkmoot-timeout", "200ms")], b"").await;
        assert_eq!(late.status, 503, "{late:?}");
    }
    mend(&a, &b).await;
    assert_eq!(a.http("GET", DOC, &[("folkmoot-session", &session(&gone))], b"").await.status, 404);

    let told = b.metrics().await;
    assert!(told["folkmoot_sessions_not_reached_total"] >= 9.0);
    assert!(told["folkmoot_session_wait_seconds_count"] >= 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_reads_that_hop_between_nodes_are_never_stale() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = two(folder.path()).await;
    let nodes = [&a, &b];
    let mut token: Option<SessionToken> = None;
    for n in 1..=60 {
        // Written on one, read on the other and by a query on the first again.
        let (here, there) = (nodes[n % 2], nodes[(n + 1) % 2]);
        let options = WriteOptions { session: token, ..WriteOptions::default() };
        let put = here.impatient_client().put(&name("notes"), id("x"), text(&json!({"n": n})), &options).await.unwrap();
        let options = ReadOptions { session: put.session, ..ReadOptions::default() };
        let read = there.impatient_client().get(&name("notes"), &id("x"), &options).await.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&read.json).unwrap();
        assert_eq!(json["n"], n, "what was written on one node is there on the other");
        token = read.session;
    }
    let length = token.unwrap().as_str().len();
    assert!(length < 400, "{length} bytes for two nodes");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_restarts_and_kills() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, mut b) = two(folder.path()).await;
    let before = a.put("notes", "x", json!({"n": 1})).await.session.unwrap();
    a.kill();
    a.start().await;
    // Another process, another stream: it tells of the one before.
    let after = a.put("notes", "y", json!({"n": 2})).await.session.unwrap();
    b.kill();
    b.start().await;
    for (token, doc, n) in [(&before, "x", 1), (&after, "y", 2), (&after, "x", 1)] {
        for node in [&a, &b] {
            let options = ReadOptions { session: Some(token.clone()), ..ReadOptions::default() };
            let read = node.impatient_client().get(&name("notes"), &id(doc), &options).await.unwrap();
            let json: serde_json::Value = serde_json::from_slice(&read.json).unwrap();
            assert_eq!(json["n"], n);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_several_nodes_carries_its_session_along() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, b) = two(folder.path()).await;
    // A token of the cluster, which both nodes know.
    let issued = token_of_user(&a, "ann").await;
    converged(&[&a, &b]).await;
    let both = || Client::builder(a.url()).url(b.url()).token(&issued).attempts(2);
    let (carries, forgets) = (both().build().unwrap(), both().without_session().build().unwrap());
    let read = ReadOptions { timeout: Some(Duration::from_millis(500)), ..ReadOptions::default() };
    cut(&a, &b).await;
    for client in [&carries, &forgets] {
        client.put(&name("notes"), id("new"), text(&json!({"n": 1})), &WriteOptions::default()).await.unwrap();
    }
    assert!(carries.seen().is_some() && forgets.seen().is_none());
    // The session of another client.
    let heir = Client::builder(b.url()).token(&issued).attempts(1).session(carries.seen().unwrap()).build().unwrap();
    a.kill();
    let late = carries.get(&name("notes"), &id("new"), &read).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::SessionNotReached, "{late:?}");
    let missed = forgets.get(&name("notes"), &id("new"), &read).await.unwrap_err();
    assert_eq!(missed.code(), ErrorCode::DocumentNotFound, "{missed:?}");
    let late = heir.get(&name("notes"), &id("new"), &read).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::SessionNotReached, "{late:?}");
    a.start().await;
    until("the write comes", async || {
        carries.get(&name("notes"), &id("new"), &read).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(heir.find(&name("notes"), &FindQuery::new(json!({"n": 1}))).await.unwrap().items.len(), 1);
}

/// The token of a new user that may do everything with documents.
async fn token_of_user(node: &Node, called: &str) -> String {
    user(node, node, called, &[&["editor"]]).await;
    let output = node.cli(&["--json", "token", "issue", called], "").await;
    let issued: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    issued["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_and_prints_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = two(folder.path()).await;
    cut(&a, &b).await;
    a.put("notes", "x", json!({"n": 5})).await;
    let token = a.cli(&["session", "notes"], "").await;
    assert!(token.status.success(), "{}", printed(&token));
    let token = String::from_utf8(token.stdout).unwrap().trim().to_owned();
    let late = b.cli(&["--session", &token, "session", "notes", "x", "--timeout", "200ms"], "").await;
    assert_eq!(late.status.code(), Some(1), "{}", printed(&late));
    assert!(printed(&late).contains("lacks 1 ops"), "{}", printed(&late));
    mend(&a, &b).await;
    let read = b.cli(&["--session", &token, "get", "notes", "x"], "").await;
    assert!(read.status.success() && printed(&read).contains('5'), "{}", printed(&read));
    let bad = b.cli(&["--session", "rubbish", "get", "notes", "x"], "").await;
    assert_eq!(bad.status.code(), Some(2), "{}", printed(&bad));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_forges_a_token_waits_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("notes", "x", json!({"n": 1})).await;
    a.put("secret", "x", json!({"n": 1})).await;
    // Seven ops of a stream that nobody has.
    let forged = "s1.BW5vdGVzAAEBAQEBAQEBAQEHBwcHBwcHBw4";
    let header = [("folkmoot-session", forged), ("folkmoot-timeout", "1s")];
    let begun = Instant::now();
    let waits = a.http("GET", DOC, &header, b"");
    let others = async {
        for _ in 0..50 {
            assert_eq!(a.http("GET", DOC, &[], b"").await.status, 200);
        }
        begun.elapsed()
    };
    let (waited, others) = tokio::join!(waits, others);
    assert_eq!((waited.status, waited.json["code"].as_str()), (503, Some("session_not_reached")), "{waited:?}");
    assert!(waited.json["detail"].as_str().unwrap().contains("7 ops of 1 streams"), "{waited:?}");
    assert!(begun.elapsed() < Duration::from_secs(5) && others < Duration::from_secs(5), "{others:?}");

    // Of a collection that somebody may know nothing of it is told nothing.
    let ann = user(&a, &a, "ann", &[&["reader", "--on", "notes"]]).await;
    let secret = ann.session(&Touched::collection(&name("secret")), None).await.unwrap();
    assert_eq!(secret, ann.session(&Touched::cluster(), None).await.unwrap());
    assert_ne!(secret, ann.session(&Touched::collection(&name("notes")), None).await.unwrap());
}
