//! Edits on both sides of a cut, and what they become when it heals.

use folkmoot::api::{
    CollectionSettings, Database as _, FieldType, LinkRule, Patch, PatchKind, PeerState, QuarantineQuery, WriteOptions,
};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text, until};
use serde_json::{Value, json};

/// Applies edit operations to a document of the collection `notes`.
async fn edit(node: &Node, doc: &str, ops: Value) {
    let patch = Patch { kind: PatchKind::Edits, body: text(&json!({ "ops": ops })) };
    node.client().patch(&name("notes"), id(doc), patch, &WriteOptions::default()).await.unwrap();
}

async fn delete(node: &Node, doc: &str) {
    node.client().delete(&name("notes"), id(doc), &WriteOptions::default()).await.unwrap();
}

async fn three(folder: &std::path::Path) -> [Node; 3] {
    let a = Node::found(folder, "a").await;
    let settings = CollectionSettings {
        types: [("/body".to_owned(), FieldType::Text), ("/votes".to_owned(), FieldType::Counter)].into(),
        ..CollectionSettings::default()
    };
    a.client().configure(&name("notes"), settings).await.unwrap();
    let document = json!({"title": "t", "body": "middle", "votes": 10, "tags": ["m"]});
    for doc in ["fields", "same", "text", "counter", "list", "delete-edit", "delete-only", "delete-both"] {
        a.put("notes", doc, document.clone()).await;
    }
    let ticket = a.ticket(&["--uses", "2"]).await;
    let b = Node::join_with(folder, "b", &ticket).await;
    let c = Node::join_with(folder, "c", &ticket).await;
    converged(&[&a, &b, &c]).await;
    [a, b, c]
}

/// What is edited on the one side.
async fn edit_here(node: &Node) {
    edit(node, "fields", json!([{"op": "set", "path": "/here", "value": 1}])).await;
    edit(node, "same", json!([{"op": "set", "path": "/title", "value": "here"}])).await;
    edit(node, "text", json!([{"op": "splice", "path": "/body", "index": 0, "insert": "here "}])).await;
    for _ in 0..3 {
        edit(node, "counter", json!([{"op": "increment", "path": "/votes"}])).await;
    }
    edit(node, "list", json!([{"op": "insert", "path": "/tags", "index": 0, "values": ["here"]}])).await;
    delete(node, "delete-edit").await;
    delete(node, "delete-only").await;
    delete(node, "delete-both").await;
    node.put("notes", "new-here", json!({"n": 1})).await;
    node.put("notes", "new-both", json!({"side": "here", "here": 1})).await;
}

/// What is edited on the other, meanwhile.
async fn edit_there(node: &Node) {
    edit(node, "fields", json!([{"op": "set", "path": "/there", "value": 2}])).await;
    edit(node, "same", json!([{"op": "set", "path": "/title", "value": "there"}])).await;
    edit(node, "text", json!([{"op": "splice", "path": "/body", "index": 6, "insert": " there"}])).await;
    edit(node, "counter", json!([{"op": "increment", "path": "/votes", "by": 20}])).await;
    edit(node, "list", json!([{"op": "insert", "path": "/tags", "values": ["there"]}])).await;
    edit(node, "delete-edit", json!([{"op": "set", "path": "/title", "value": "kept"}])).await;
    delete(node, "delete-both").await;
    node.put("notes", "new-there", json!({"n": 2})).await;
    node.put("notes", "new-both", json!({"side": "there", "there": 2})).await;
}

/// What must have become of it, on every node alike.
async fn assert_merged(nodes: &[&Node]) {
    let first = nodes[0];
    let get = async |doc: &str| first.get("notes", doc).await.unwrap();
    let fields = get("fields").await;
    assert_eq!((&fields["here"], &fields["there"]), (&json!(1), &json!(2)));
    assert_eq!(get("text").await["body"], "here middle there");
    assert_eq!(get("counter").await["votes"], 33);
    assert_eq!(get("list").await["tags"], json!(["here", "m", "there"]));
    assert_eq!(get("delete-edit").await["title"], "kept", "an edit concurrent with a delete brings the document back");
    for gone in ["delete-only", "delete-both"] {
        assert!(first.get("notes", gone).await.is_err(), "{gone} is deleted");
    }
    assert_eq!(get("new-here").await, json!({"n": 1}));
    assert_eq!(get("new-there").await, json!({"n": 2}));
    let both = get("new-both").await;
    assert_eq!((&both["here"], &both["there"]), (&json!(1), &json!(2)), "documents made twice are one");

    let all = first.all("notes").await.unwrap();
    for node in nodes {
        assert_eq!(node.all("notes").await.unwrap(), all);
        node.assert_sound().await;
        let refused = node.client().quarantine(&QuarantineQuery::default()).await.unwrap().items;
        assert_eq!(refused, [], "nothing is refused");
        for (doc, pointer) in [("same", "/title"), ("new-both", "/side")] {
            let conflicts = node.client().conflicts(&name("notes"), &id(doc)).await.unwrap();
            let [conflict] = conflicts.as_slice() else { panic!("{doc}: {conflicts:?}") };
            assert_eq!(conflict.pointer, pointer);
            let mut values: Vec<&Value> = conflict.values.iter().map(|value| &value.value).collect();
            assert_eq!(*values[0], node.get("notes", doc).await.unwrap()[&pointer[1..]], "the one shown is first");
            values.sort_by_key(|value| value.to_string());
            assert_eq!(values, [&json!("here"), &json!("there")]);
        }
        for doc in ["fields", "text", "counter", "list"] {
            assert_eq!(node.client().conflicts(&name("notes"), &id(doc)).await.unwrap(), [], "{doc}");
        }
    }
    // Writing decides a conflict, for all.
    edit(first, "same", json!([{"op": "set", "path": "/title", "value": "decided"}])).await;
    converged(nodes).await;
    for node in nodes {
        assert_eq!(node.get("notes", "same").await.unwrap()["title"], "decided");
        assert_eq!(node.client().conflicts(&name("notes"), &id("same")).await.unwrap(), []);
    }
}

/// Waits until a node says so of its link to another.
async fn link_is(node: &Node, other: &Node, wanted: PeerState) {
    until(&format!("the link is {}", wanted.name()), async || {
        let peers = node.client().peers().await.map_err(|error| error.to_string())?;
        let state = peers.iter().find(|peer| peer.node == other.key()).map(|peer| peer.state);
        if state == Some(wanted) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_links_split_a_cluster_that_merges_when_they_open() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = three(folder.path()).await;
    // One by the command line, one by the API; the blocked side need do nothing.
    let blocked = a.cli(&["peers", "block", &b.key().to_string()], "").await;
    assert!(blocked.status.success(), "{}", printed(&blocked));
    a.client().set_link(&c.key(), LinkRule::Blocked).await.unwrap();
    for other in [&b, &c] {
        link_is(&a, other, PeerState::Blocked).await;
        link_is(other, &a, PeerState::Disconnected).await;
    }
    edit_here(&a).await;
    edit_there(&b).await;
    converged(&[&b, &c]).await;
    assert_eq!(c.get("notes", "same").await.unwrap()["title"], "there");
    assert_eq!(a.get("notes", "same").await.unwrap()["title"], "here");
    assert!(a.get("notes", "new-there").await.is_err(), "nothing comes through");

    let opened = a.cli(&["peers", "unblock", &b.key().to_string()], "").await;
    assert!(opened.status.success(), "{}", printed(&opened));
    a.client().set_link(&c.key(), LinkRule::Open).await.unwrap();
    println!("equal {:?} after the links were opened", converged(&[&a, &b, &c]).await);
    assert_merged(&[&a, &b, &c]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_processes_catch_up_when_they_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = three(folder.path()).await;
    // While one side is edited the other is held, so neither has seen the other's edits when it makes its own, but for
    // what the system's buffers carry over: the link is blocked for that until the second side has edited.
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    a.client().set_link(&c.key(), LinkRule::Blocked).await.unwrap();
    link_is(&b, &a, PeerState::Disconnected).await;
    b.freeze();
    c.freeze();
    edit_here(&a).await;
    a.freeze();
    b.thaw();
    edit_there(&b).await;
    b.freeze();
    c.thaw();
    assert_eq!(c.client().status().await.unwrap().members, 3, "a node whose peers are silent answers");
    b.thaw();
    converged(&[&b, &c]).await;
    a.thaw();
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    a.client().set_link(&c.key(), LinkRule::Open).await.unwrap();
    println!("equal {:?} after the last process went on", converged(&[&a, &b, &c]).await);
    assert_merged(&[&a, &b, &c]).await;

    // Held with its connections open, in the middle of a stream of writes.
    c.freeze();
    for n in 0..300 {
        let node = if n % 2 == 0 { &a } else { &b };
        node.put("stream", &format!("doc-{n:03}"), json!({ "n": n })).await;
    }
    c.thaw();
    println!("300 writes later: equal {:?} after the process went on", converged(&[&a, &b, &c]).await);
    assert_eq!(c.all("stream").await.unwrap().len(), 300);
    c.assert_sound().await;
}
