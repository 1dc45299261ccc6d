//! Erasing over processes: what was said is on no disk any more, also not on that of who was away or was put back.

use std::path::Path;

use folkmoot::api::{
    AuditAction, AuditQuery, ChangeKind, ChangesQuery, Database as _, Erasure, Erasures as _, ErasuresQuery,
    NewErasure, NewGrant, NewToken, PrincipalName, WriteOptions,
};
use folkmoot::{Access as _, Audit as _, Client, ErrorCode};
use folkmoot_core::store::keys::{DocKey, Key as _};
use folkmoot_core::store::{FjallOptions, FjallStore, Keyspace, Read as _};
use folkmoot_tests::processes::{Node, converged, id, name, printed, run_join_unsealed, text, until};
use serde_json::json;

use crate::access::{holds, told};
use crate::audit::copy;

/// What nobody's disk may hold afterwards: what the document said first, and last, in a field that was removed, and in one that is
/// long.
const PLANTED: [&str; 4] = ["planted-first", "planted-last", "planted-removed", "planted-long"];

async fn plant(node: &Node, doc: &str) {
    node.put("notes", doc, json!({ "text": PLANTED[0], "more": PLANTED[2] })).await;
    for n in 0..70 {
        node.put(
            "notes",
            doc,
            json!({ "n": n, "text": PLANTED[0], "long": format!("{} {n} ", PLANTED[3]).repeat(50) }),
        )
        .await;
    }
    node.put("notes", doc, json!({ "text": PLANTED[1] })).await;
}

fn what_lies_in(data: &Path) -> Vec<&'static str> {
    PLANTED.into_iter().filter(|secret| holds(data, secret.as_bytes())).collect()
}

/// Whether the store of a node that does not run has an entry for the key of a document.
fn has_key(data: &Path, doc: &str) -> bool {
    let store = FjallStore::open(&data.join("store"), FjallOptions::default()).unwrap();
    let key = DocKey { collection: name("notes"), doc: id(doc) };
    store.get(Keyspace::Keys, &key.encode()).unwrap().is_some()
}

async fn erasure(node: &Node, act: &str) -> Erasure {
    serde_json::from_value(told(node, &["erasures", act]).await).unwrap()
}

/// Waits until a node has said that it has carried an erasure out.
async fn carried_out(asked: &Node, act: &str, by: &Node) {
    let key = by.key();
    until("the erasure is carried out", async || {
        let found = erasure(asked, act).await;
        let done = found.members.iter().any(|member| member.node == key && member.done.is_some());
        if done { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn is_gone(node: &Node, doc: &str) {
    let answer = node.http("GET", &format!("/v1/collections/notes/docs/{doc}"), &[], b"").await;
    assert_eq!((answer.status, answer.json["code"].as_str()), (410, Some("erased")), "{:?}", answer.json);
}

/// Joins without sealing what it stores, so that a look at its files means something.
async fn join_plain(folder: &Path, inviter: &Node) -> Node {
    let mut node = Node::new(folder, "b");
    let output = run_join_unsealed(node.data(), "b", &inviter.ticket(&[]).await).await;
    assert!(output.status.success(), "{}", printed(&output));
    node.start().await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_on_no_disk_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found_with(folder.path(), "a", &["--key-source", "none"]).await;
    let mut b = join_plain(folder.path(), &a).await;
    plant(&a, "a").await;
    b.put("notes", "a", json!({ "text": PLANTED[1], "by": "b" })).await;
    a.put("notes", "kept", json!({ "text": "kept" })).await;
    converged(&[&a, &b]).await;
    // An index holds what documents say, too.
    told(&a, &["index", "create", "notes", "--wait", "text"]).await;
    b.stop().await;
    let old = folder.path().join("old");
    copy(b.data(), &old);
    for data in [a.data(), b.data()] {
        assert!(what_lies_in(data).len() >= 3, "{:?}", what_lies_in(data));
    }

    let made = told(&a, &["erase", "notes", "a", "never", "--why", "asked for"]).await;
    let act = made["act"].as_str().unwrap().to_owned();
    is_gone(&a, "a").await;
    // A kill in the middle: it is carried out by the next start.
    a.kill();
    a.start().await;
    is_gone(&a, "a").await;
    carried_out(&a, &act, &a).await;
    assert_eq!(what_lies_in(a.data()), Vec::<&str>::new());
    let found = erasure(&a, &act).await;
    assert!(!found.complete && found.done() == 1 && found.members.len() == 2, "{found:?}");
    assert_eq!((found.why.as_str(), found.ids.clone()), ("asked for", vec![id("a"), id("never")]));
    is_gone(&a, "never").await;
    let refused = a.client().put(&name("notes"), id("a"), text(&json!({})), &WriteOptions::default()).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::Erased);
    let changes = a.client().changes(&ChangesQuery::default()).await.unwrap().items;
    let kind = |doc: &str| changes.iter().find(|change| change.id == id(doc)).map(|change| change.kind);
    assert_eq!((kind("a"), kind("kept")), (Some(ChangeKind::Erased), Some(ChangeKind::Changed)));

    // Who was away carries it out when it comes back.
    b.start().await;
    carried_out(&a, &act, &b).await;
    assert_eq!(what_lies_in(b.data()), Vec::<&str>::new());
    is_gone(&b, "a").await;
    assert!(erasure(&b, &act).await.complete);
    assert_eq!(b.get("notes", "kept").await.unwrap(), json!({ "text": "kept" }));
    converged(&[&a, &b]).await;
    a.assert_sound().await;
    b.assert_sound().await;
    for node in [&a, &b] {
        let query = AuditQuery { action: Some(AuditAction::Erase), ..AuditQuery::default() };
        let records = node.client().audit(&query).await.unwrap().items;
        let here: Vec<_> = records.iter().filter(|record| record.target == "carried out here").collect();
        assert!(here.len() == 1 && here[0].documents == [id("a"), id("never")], "{records:?}");
        let gone = until("the metric says so", async || {
            let metrics = node.metrics().await;
            let gone = metrics.get("folkmoot_documents_erased{stage=\"gone\"}").copied().unwrap_or_default();
            if gone > 0.0 { Ok(gone) } else { Err(format!("{metrics:?}")) }
        });
        assert_eq!(gone.await as u64, 2);
    }

    // So does an old copy of its directory that is put in the place of the new one.
    b.stop().await;
    std::fs::remove_dir_all(b.data()).unwrap();
    copy(&old, b.data());
    assert!(what_lies_in(b.data()).len() >= 3);
    b.start().await;
    until("nothing is left", async || {
        let left = what_lies_in(b.data());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    is_gone(&b, "a").await;
    b.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_erase_learns_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    a.put("notes", "a", json!({ "text": PLANTED[0] })).await;
    a.put("notes", "kept", json!({})).await;
    a.put("notes", "b/1", json!({ "n": 1 })).await;
    let ann: PrincipalName = "ann".parse().unwrap();
    told(&a, &["user", "add", "ann"]).await;
    told(&a, &["role", "add", "eraser", "--allow", "erase"]).await;
    told(&a, &["grant", "ann", "editor", "--on", "notes"]).await;
    let token = a.client().issue_token(&ann, &NewToken::named("test")).await.unwrap();
    let client = Client::builder(a.url()).token(token.token).build().unwrap();
    let some = |ids: &[&str]| NewErasure { ids: ids.iter().map(|doc| id(doc)).collect(), why: String::new() };
    let mut said = Vec::new();
    for doc in ["a", "none"] {
        let error = client.erase(&name("notes"), &some(&[doc])).await.unwrap_err();
        said.push((error.code(), error.detail().replace(&format!("on {doc} "), "on _ ")));
    }
    assert_eq!(said[0], said[1]);
    assert_eq!(said[0].0, ErrorCode::NotAllowed);
    let by_owner = told(&a, &["erase", "notes", "a", "--wait", "--timeout", "60s"]).await;
    assert_eq!(by_owner["complete"], json!(true));
    let grant = NewGrant {
        role: "eraser".to_owned(),
        collections: "notes".to_owned(),
        prefix: Some("b/".to_owned()),
        fields: Vec::new(),
        without_fields: Vec::new(),
        until: None,
    };
    a.client().grant(&ann, &grant).await.unwrap();
    // The right to one of them is none to the other.
    assert_eq!(client.erase(&name("notes"), &some(&["a", "b/1"])).await.unwrap_err().code(), ErrorCode::NotAllowed);
    let erased = client.erase(&name("notes"), &some(&["b/1"])).await.unwrap();
    assert_eq!((erased.name.as_str(), erased.verdict.as_str()), ("ann", "allowed"));
    is_gone(&a, "b%2F1").await;
    // She sees her own erasures and no others.
    let seen = client.erasures(&ErasuresQuery::default()).await.unwrap().items;
    assert_eq!(seen.iter().map(|erasure| erasure.act).collect::<Vec<_>>(), [erased.act]);
    let other = by_owner["act"].as_str().unwrap().parse().unwrap();
    assert_eq!(client.erasure(&other).await.unwrap_err().code(), ErrorCode::StatementNotFound);
    assert_eq!(a.client().erasures(&ErasuresQuery::default()).await.unwrap().items.len(), 2);
    for (body, status) in [
        (&br#"{"ids":[]}"#[..], 400),
        (br#"{"ids":["a"],"why":1}"#, 400),
        (br#"{"ids":["a"],"other":1}"#, 400),
        (br#"{}"#, 400),
    ] {
        let answer = a.http("POST", "/v1/collections/notes/erase", &[], body).await;
        assert_eq!(answer.status, status, "{:?}", answer.json);
    }
    a.assert_sound().await;
    // This store is sealed: the keys are gone too.
    a.stop().await;
    assert_eq!(["a", "b/1", "kept"].map(|doc| has_key(a.data(), doc)), [false, false, true]);
}
