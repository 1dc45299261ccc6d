//! Feeds with filters, and what is followed over a WebSocket.

use std::time::{Duration, Instant};

use folkmoot::api::{ChangeKind, ChangesQuery, Database as _, FindQuery, LiveEvent, Since};
use folkmoot::{Client, Live as _};
use folkmoot_tests::processes::{DEADLINE, Node, converged, id, name, printed, until};
use futures_util::stream::BoxStream;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::access::{told, user};

type Socket = WebSocketStream<TcpStream>;

/// Connects to `/v1/live` with these headers.
async fn connect(node: &Node, headers: &[(&'static str, &str)]) -> Result<Socket, String> {
    let host = node.url().trim_start_matches("http://");
    let mut request = format!("ws://{host}/v1/live").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(host).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(|error| error.to_string())?;
    Ok(socket)
}

async fn say(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// The next message of the node; null when it has closed the connection.
async fn hear(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(DEADLINE, socket.next()).await.expect("the node says something");
        match message {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Value::Null,
            Some(Ok(_)) => {}
        }
    }
}

fn owner(node: &Node) -> String {
    format!("Bearer {}", std::fs::read_to_string(node.data().join("owner.token")).unwrap().trim())
}

/// A connection of the owner, who is known.
async fn known(node: &Node) -> Socket {
    let mut socket = connect(node, &[("authorization", &owner(node))]).await.unwrap();
    assert_eq!(hear(&mut socket).await["type"], "welcome");
    socket
}

/// What a follower is told, up to the next time that it is all.
async fn synced(events: &mut BoxStream<'static, folkmoot::Result<LiveEvent>>) -> String {
    let mut told = Vec::new();
    loop {
        let event = tokio::time::timeout(DEADLINE, events.next()).await.expect("something is told").unwrap().unwrap();
        told.push(match event {
            LiveEvent::Added(document) => format!("+{}", document.id),
            LiveEvent::Changed(document) => format!("~{}", document.id),
            LiveEvent::Removed(id) => format!("-{id}"),
            LiveEvent::Synced => return told.join(" "),
        });
    }
}

async fn two(folder: &std::path::Path) -> (Node, Node) {
    let a = Node::found(folder, "a").await;
    for (doc, age) in [("ann", 36), ("bob", 17), ("cy", 52)] {
        a.put("people", doc, json!({"age": age})).await;
    }
    let b = Node::join(folder, "b", &a).await;
    converged(&[&a, &b]).await;
    (a, b)
}

async fn delete(node: &Node, doc: &str) {
    node.client().delete(&name("people"), id(doc), &Default::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_followed_on_another_node() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = two(folder.path()).await;
    let adults = FindQuery::new(json!({"age": {"$gte": 18}}));
    let mut events = b.client().live(&name("people"), adults);
    assert_eq!(synced(&mut events).await, "+ann +cy");
    a.put("people", "dot", json!({"age": 20})).await;
    assert_eq!(synced(&mut events).await, "+dot");
    a.put("people", "ann", json!({"age": 37})).await;
    assert_eq!(synced(&mut events).await, "~ann");
    a.put("people", "dot", json!({"age": 2})).await;
    assert_eq!(synced(&mut events).await, "-dot", "it is not meant any more");
    a.put("people", "bob", json!({"age": 16})).await;
    delete(&a, "cy").await;
    assert_eq!(synced(&mut events).await, "-cy", "what never was meant is not told");

    // The two oldest: who comes in pushes somebody out, who leaves makes room.
    let oldest = FindQuery::new(Value::Null).sort(["-age"]).limit(2);
    let mut events = b.client().live(&name("people"), oldest);
    assert_eq!(synced(&mut events).await, "+ann +bob");
    a.put("people", "eve", json!({"age": 90})).await;
    assert_eq!(synced(&mut events).await, "-bob +eve");
    delete(&a, "eve").await;
    assert_eq!(synced(&mut events).await, "-eve +bob");

    let mut one = b.client().live_document(&name("people"), &id("fay"));
    assert_eq!(synced(&mut one).await, "");
    a.put("people", "fay", json!({"age": 1})).await;
    assert_eq!(synced(&mut one).await, "+fay");
    delete(&a, "fay").await;
    assert_eq!(synced(&mut one).await, "-fay");

    // The command line.
    let watching = b.cli(&["--json", "watch", "people", r#"{"age": {"$gt": 30}}"#, "--lines", "3"], "");
    let writing = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        a.put("people", "gus", json!({"age": 40})).await;
    };
    let (watched, ()) = tokio::join!(watching, writing);
    assert!(watched.status.success(), "{}", printed(&watched));
    let text = String::from_utf8(watched.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["added", "synced", "added"], "{lines:?}");
    assert_eq!(lines[2]["document"]["id"], "gus");
    let metrics = b.metrics().await;
    assert!(metrics["folkmoot_live_query_runs_total{of=\"document\"}"] >= 5.0);
    assert!(metrics["folkmoot_live_connections"] >= 1.0 && metrics["folkmoot_live_subscriptions"] >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_goes_on_at_another_node() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, b) = two(folder.path()).await;
    user(&a, &a, "ann", &[&["editor"]]).await;
    let token = told(&a, &["token", "issue", "ann"]).await["token"].as_str().unwrap().to_owned();
    converged(&[&a, &b]).await;
    let client = Client::builder(a.url()).url(b.url()).token(token).build().unwrap();
    let mut events = client.live(&name("people"), FindQuery::new(json!({"age": {"$gte": 18}})));
    assert_eq!(synced(&mut events).await, "+ann +cy");
    a.kill();
    b.put("people", "dot", json!({"age": 20})).await;
    delete(&b, "cy").await;
    let mut all = Vec::new();
    while all.join(" ").split(' ').filter(|told| !told.is_empty()).count() < 2 {
        all.push(synced(&mut events).await);
    }
    let mut all: Vec<_> = all.iter().flat_map(|told| told.split(' ')).filter(|told| !told.is_empty()).collect();
    all.sort_unstable();
    assert_eq!(all, ["+dot", "-cy"], "only what is different is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_are_filtered_by_what_is_in_documents() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = two(folder.path()).await;
    delete(&a, "bob").await;
    converged(&[&a, &b]).await;
    let query = ChangesQuery {
        collection: Some(name("people")),
        selector: json!({"age": {"$gt": 40}}),
        ..ChangesQuery::default()
    };
    for node in [&a, &b] {
        let page = node.client().changes(&query).await.unwrap();
        let mut told: Vec<_> = page.items.iter().map(|change| (change.id.as_str(), change.kind)).collect();
        told.sort_by_key(|(id, _)| *id);
        assert_eq!(told, [("bob", ChangeKind::Deleted), ("cy", ChangeKind::Changed)]);
    }
    // A long poll passes over what is not meant.
    let since = a.client().changes(&query).await.unwrap().next;
    let waits = ChangesQuery { since: Since::After(since.clone()), wait: Duration::from_secs(20), ..query.clone() };
    let client = a.impatient_client();
    let writes = async {
        a.put("people", "ann", json!({"age": 1})).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        a.put("people", "ann", json!({"age": 99})).await;
    };
    let (page, ()) = tokio::join!(client.changes(&waits), writes);
    let page = page.unwrap();
    assert_eq!(page.items.iter().map(|change| change.id.as_str()).collect::<Vec<_>>(), ["ann"]);
    // Server-sent events.
    let mut stream = a.client().subscribe(ChangesQuery { since: Since::Now, ..query.clone() });
    let heard = async { tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap() };
    let writes = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        a.put("people", "dot", json!({"age": 3})).await;
        a.put("people", "eve", json!({"age": 77})).await;
    };
    let (change, ()) = tokio::join!(heard, writes);
    assert_eq!(change.id.as_str(), "eve");
    // The command line.
    let printed_by = a.cli(&["changes", "people", "--selector", r#"{"age": 77}"#], "").await;
    let text = String::from_utf8(printed_by.stdout).unwrap();
    assert!(text.contains("people/eve") && !text.contains("people/dot"), "{text}");

    for (selector, pointer) in [(r#"{"a":{"$foo":1}}"#, "/selector/a/$foo"), ("{", "/selector")] {
        let selector: String = selector.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let bad = a.http("GET", &format!("/v1/changes?selector={selector}"), &[], b"").await;
        assert_eq!((bad.status, bad.json["code"].as_str()), (400, Some("invalid_query")), "{bad:?}");
        assert_eq!(bad.json["pointer"], pointer, "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_goes_on_at_another_node_when_the_one_that_told_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, mut b) = two(folder.path()).await;
    for n in 0..100 {
        let node = if n % 2 == 0 { &a } else { &b };
        node.put("people", &format!("p-{n:02}"), json!({"age": n})).await;
    }
    converged(&[&a, &b]).await;
    let query = ChangesQuery { collection: Some(name("people")), limit: Some(1_000), ..ChangesQuery::default() };
    let first = a.client().changes(&query).await.unwrap();
    assert_eq!(first.items.len(), 103);
    assert_eq!(
        first.items.last().map(|change| &change.token),
        Some(&first.next),
        "the last event says the same as the page"
    );
    // Over both nodes, by server-sent events, from where that page ended.
    told(&a, &["user", "add", "eve"]).await;
    told(&a, &["grant", "eve", "reader", "--on", "people"]).await;
    let issued = told(&a, &["token", "issue", "eve"]).await;
    converged(&[&a, &b]).await;
    let client = Client::builder(a.url()).url(b.url()).token(issued["token"].as_str().unwrap()).build().unwrap();
    let mut events = client.subscribe(ChangesQuery { since: Since::After(first.next.clone()), ..query.clone() });
    // How far a node is it notes once a second: what was written within one is told again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    b.put("people", "new-1", json!({"age": 1})).await;
    let heard = tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(heard.id.as_str(), "new-1");
    a.kill();
    b.put("people", "new-2", json!({"age": 2})).await;
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some("new-2") {
        let change = tokio::time::timeout(DEADLINE, events.next()).await.expect("the feed goes on").unwrap().unwrap();
        told.push(change.id.to_string());
    }
    assert!(told.len() < 50, "everything is told again: {told:?}");
    drop(events);
    // The same by a page, at a node that was killed and started anew meanwhile.
    b.kill();
    b.start().await;
    let rest = ChangesQuery { since: Since::After(first.next), ..query.clone() };
    let page = b.client().changes(&rest).await.unwrap();
    let ids: Vec<&str> = page.items.iter().map(|change| change.id.as_str()).collect();
    assert!(ids.ends_with(&["new-1", "new-2"]) && ids.len() < 50, "{ids:?}");
    let came = b.metrics().await;
    let from = |from: &str| {
        came.get(&format!("folkmoot_feeds_from_elsewhere_total{{from=\"{from}\"}}")).copied().unwrap_or(0.0)
    };
    assert!(from("mark") + from("end") >= 1.0 && from("beginning") < 1.0, "{came:?}");
    // And back, with a token that is good at both; on the command line too.
    a.start().await;
    converged(&[&a, &b]).await;
    let back =
        a.client().changes(&ChangesQuery { since: Since::After(page.next.clone()), ..query.clone() }).await.unwrap();
    assert!(back.items.len() < 50, "{}", back.items.len());
    b.put("people", "new-3", json!({"age": 3})).await;
    converged(&[&a, &b]).await;
    let printed_by = a.cli(&["changes", "people", "--since", page.next.as_str()], "").await;
    let text = String::from_utf8(printed_by.stdout).unwrap();
    assert!(text.contains("people/new-3") && text.lines().count() < 50, "{text}");
    // A token from before its reader was at the end is good too, for all there is.
    let begun = a.client().changes(&ChangesQuery { limit: Some(5), ..query.clone() }).await.unwrap();
    let all = b.client().changes(&ChangesQuery { since: Since::After(begun.next), ..query }).await.unwrap();
    assert_eq!(all.items.len(), 106);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_may_not_see_is_in_no_live_message_and_a_revocation_ends_them() {
    let folder = tempfile::tempdir().unwrap();
    let (a, _b) = two(folder.path()).await;
    a.put("secret", "x", json!({"age": 99})).await;
    a.put("people", "p-1", json!({"age": 50, "pay": 5})).await;
    told(&a, &["user", "add", "eve"]).await;
    told(&a, &["grant", "eve", "reader", "--on", "people", "--prefix", "p-", "--without-fields", "/pay"]).await;
    let issued = told(&a, &["token", "issue", "eve"]).await;
    let token = issued["token"].as_str().unwrap().to_owned();
    let mut socket = connect(&a, &[]).await.unwrap();
    say(&mut socket, json!({"type": "auth", "token": token})).await;
    assert_eq!(hear(&mut socket).await["type"], "welcome");
    say(&mut socket, json!({"type": "query", "id": "q", "collection": "people"})).await;
    let added = hear(&mut socket).await;
    assert_eq!((&added["type"], &added["document"]["id"]), (&json!("added"), &json!("p-1")), "{added}");
    assert_eq!(added["document"]["doc"], json!({"age": 50}));
    assert_eq!(hear(&mut socket).await, json!({"type": "synced", "id": "q"}));
    // A condition on what is withheld holds for nothing.
    say(&mut socket, json!({"type": "query", "id": "pay", "collection": "people", "selector": {"pay": 5}})).await;
    assert_eq!(hear(&mut socket).await, json!({"type": "synced", "id": "pay"}));
    say(&mut socket, json!({"type": "changes", "id": "f", "selector": {"pay": 5}, "since": "now"})).await;
    say(&mut socket, json!({"type": "query", "id": "s", "collection": "secret"})).await;
    let ended = hear(&mut socket).await;
    assert_eq!(
        (&ended["type"], &ended["id"], &ended["problem"]["code"]),
        (&json!("ended"), &json!("s"), &json!("not_allowed"))
    );
    say(&mut socket, json!({"type": "changes", "id": "all", "since": "now", "docs": true})).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    a.put("secret", "y", json!({"age": 1})).await;
    a.put("people", "ann", json!({"age": 60})).await;
    a.put("people", "p-2", json!({"age": 70, "pay": 5})).await;
    let (mut by_query, mut by_feed) = (Value::Null, Value::Null);
    while by_query.is_null() || by_feed.is_null() {
        let told = hear(&mut socket).await;
        assert!(!told.is_null() && !told.to_string().contains("pay\":5"), "{told}");
        match told["id"].as_str().unwrap() {
            "q" if told["type"] == "added" => by_query = told["document"].clone(),
            "all" => by_feed = told["change"].clone(),
            "q" => {}
            other => panic!("{other}: {told}"),
        }
    }
    assert_eq!((&by_query["id"], &by_feed["id"]), (&json!("p-2"), &json!("p-2")));
    assert_eq!((&by_query["doc"], &by_feed["doc"]), (&json!({"age": 70}), &json!({"age": 70})));

    let begun = Instant::now();
    told(&a, &["revoke", issued["id"].as_str().or(issued["statement"].as_str()).unwrap(), "--why", "test"]).await;
    let mut last = Value::Null;
    loop {
        let heard = hear(&mut socket).await;
        if heard.is_null() {
            break;
        }
        last = heard;
    }
    assert_eq!((&last["type"], &last["problem"]["code"]), (&json!("problem"), &json!("unauthenticated")), "{last}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_talks_rubbish_or_never_reads_hurts_only_himself() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("notes", "x", json!({"n": 1})).await;
    let mut good = known(&a).await;
    say(&mut good, json!({"type": "changes", "id": "f", "since": "now"})).await;

    // Before somebody is known.
    for (message, code) in [
        (json!({"type": "auth", "token": "fm_wrong"}).to_string(), "unauthenticated"),
        (json!({"type": "changes", "id": "f"}).to_string(), "unauthenticated"),
        ("{".to_owned(), "invalid_request"),
    ] {
        let mut socket = connect(&a, &[]).await.unwrap();
        socket.send(Message::text(message.clone())).await.unwrap();
        let told = hear(&mut socket).await;
        assert_eq!((&told["type"], &told["problem"]["code"]), (&json!("problem"), &json!(code)), "{message}: {told}");
        assert_eq!(hear(&mut socket).await, Value::Null);
    }
    assert!(connect(&a, &[("authorization", "Bearer fm_wrong")]).await.unwrap_err().contains("401"));
    assert!(connect(&a, &[("origin", "https://evil.example")]).await.unwrap_err().contains("403"));
    let plain = a.http("GET", "/v1/live", &[], b"").await;
    assert_eq!((plain.status, plain.json["code"].as_str()), (400, Some("invalid_request")), "{plain:?}");

    // Behind that.
    let long = "x".repeat(70 << 10);
    let cases = [
        (Message::text("rubbish"), "invalid_request"),
        (Message::text(r#"{"type":"fly","id":"a"}"#), "invalid_request"),
        (Message::text(r#"{"type":"query","id":"a","collection":"notes","colour":"red"}"#), "invalid_request"),
        (Message::text(r#"{"type":"query","id":"","collection":"notes"}"#), "invalid_request"),
        (Message::text(r#"{"type":"query","id":"a","collection":"No Such"}"#), "invalid_request"),
        (Message::text(r#"{"type":"changes","id":"a","since":"ä"}"#), "invalid_cursor"),
        (Message::text(r#"{"type":"auth","token":"x"}"#), "invalid_request"),
        (Message::binary(vec![1, 2, 3]), "invalid_request"),
        (Message::text(long), "body_too_large"),
    ];
    for (message, code) in cases {
        let mut socket = known(&a).await;
        socket.send(message.clone()).await.unwrap();
        let told = hear(&mut socket).await;
        assert_eq!(
            (&told["type"], &told["problem"]["code"]),
            (&json!("problem"), &json!(code)),
            "{message:.60}: {told}"
        );
        assert_eq!(hear(&mut socket).await, Value::Null, "{message:.60}");
    }
    // What is wrong with one subscription ends that one.
    let mut socket = known(&a).await;
    for (message, code) in [
        (json!({"type": "query", "id": "a", "collection": "notes", "selector": {"a": {"$foo": 1}}}), "invalid_query"),
        (json!({"type": "query", "id": "a", "collection": "nowhere"}), "collection_not_found"),
        (json!({"type": "changes", "id": "a", "since": "f1.0102030405060708.1.s1.x"}), "invalid_cursor"),
        (json!({"type": "changes", "id": "a", "since": "yesterday"}), "invalid_cursor"),
    ] {
        say(&mut socket, message.clone()).await;
        let told = hear(&mut socket).await;
        assert_eq!((&told["type"], &told["problem"]["code"]), (&json!("ended"), &json!(code)), "{message}: {told}");
    }
    say(&mut socket, json!({"type": "document", "id": "d", "collection": "notes", "document": "x"})).await;
    assert_eq!(hear(&mut socket).await["document"]["doc"], json!({"n": 1}));
    assert_eq!(hear(&mut socket).await["type"], "synced");
    say(&mut socket, json!({"type": "end", "id": "d"})).await;
    assert_eq!(hear(&mut socket).await, json!({"type": "ended", "id": "d"}));
    for n in 0..=64 {
        say(&mut socket, json!({"type": "changes", "id": format!("n{n}"), "since": "now"})).await;
    }
    let told = hear(&mut socket).await;
    assert_eq!(told["problem"]["code"], "too_many_requests", "{told}");
    drop(socket);

    // One that asks for much and takes nothing.
    let mut lazy = known(&a).await;
    let fat = "x".repeat(200_000);
    for n in 0..40 {
        a.put("notes", &format!("fat-{n}"), json!({"text": fat})).await;
    }
    say(&mut lazy, json!({"type": "changes", "id": "all", "docs": true})).await;
    let before = a.metrics().await["process_resident_memory_bytes"];
    for n in 0..20 {
        let begun = Instant::now();
        a.put("notes", "x", json!({"n": n})).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let after = a.metrics().await["process_resident_memory_bytes"];
    assert!(after - before < 64e6, "{before} {after}");
    let mut seen = 0;
    while seen < 20 {
        let told = hear(&mut good).await;
        assert_eq!(told["type"], "change", "{told}");
        if told["change"]["id"] == "x" {
            seen += 1;
            if told["change"]["heads"]
                == a.http("GET", "/v1/collections/notes/docs/x?meta=true", &[], b"").await.json["heads"]
            {
                break;
            }
        }
    }
    until("the connections are counted", async || {
        let open = a.metrics().await["folkmoot_live_connections"];
        if open <= 2.0 { Ok(()) } else { Err(format!("{open}")) }
    })
    .await;
    assert!(a.metrics().await["folkmoot_live_refused_total{code=\"invalid_request\"}"] >= 6.0);
}
