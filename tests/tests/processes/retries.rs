//! One request, one effect: on whatever node and however often it is made.

use folkmoot::api::{
    CollectionSettings, Database as _, FieldType, IdempotencyKey, LinkRule, Patch, PatchKind, WriteOptions,
    WriteOutcome,
};
use folkmoot::{Client, Error, ErrorCode};
use folkmoot_tests::processes::{Node, converged, id, name, text};
use serde_json::json;

fn with_key(key: &str) -> WriteOptions {
    WriteOptions { idempotency_key: Some(IdempotencyKey::new(key).unwrap()), ..WriteOptions::default() }
}

async fn add(client: &Client, key: &str) -> Result<WriteOutcome, Error> {
    let body = text(&json!({"ops": [{"op": "increment", "path": "/total", "by": 1}]}));
    client.patch(&name("sums"), id("one"), Patch { kind: PatchKind::Edits, body }, &with_key(key)).await
}

async fn total(node: &Node) -> i64 {
    node.get("sums", "one").await.unwrap()["total"].as_i64().unwrap()
}

async fn two(folder: &std::path::Path) -> [Node; 2] {
    let a = Node::found(folder, "a").await;
    let settings = CollectionSettings {
        types: [("/total".to_owned(), FieldType::Counter)].into(),
        ..CollectionSettings::default()
    };
    a.client().configure(&name("sums"), settings).await.unwrap();
    a.put("sums", "one", json!({"total": 0})).await;
    let b = Node::join(folder, "b", &a).await;
    converged(&[&a, &b]).await;
    [a, b]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_has_no_second_effect_here_or_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, b] = two(folder.path()).await;
    let first = add(a.client(), "k1").await.unwrap();
    let here = add(a.client(), "k1").await.unwrap();
    assert_eq!((&here.heads, here.status), (&first.heads, first.status), "a retry answers as the first did");
    converged(&[&a, &b]).await;
    let there = add(b.client(), "k1").await.unwrap();
    assert_eq!((there.id, there.heads), (first.id, first.heads));
    let made = a.client().create(&name("sums"), None, text(&json!({})), &with_key("k2")).await.unwrap();
    converged(&[&a, &b]).await;
    let again = b.client().create(&name("sums"), None, text(&json!({})), &with_key("k2")).await.unwrap();
    assert_eq!((again.id, again.status), (made.id, made.status), "a retried create makes no second document");
    // A key is for one request: for another it is refused, not answered as if that had been done.
    for node in [&a, &b] {
        let put = node.client().put(&name("sums"), id("other"), text(&json!({})), &with_key("k1")).await;
        assert_eq!(put.unwrap_err().code(), ErrorCode::IdempotencyMismatch);
        // The same document, but another body or another method.
        let more = text(&json!({"ops": [{"op": "increment", "path": "/total", "by": 2}]}));
        let more = Patch { kind: PatchKind::Edits, body: more };
        let more = node.client().patch(&name("sums"), id("one"), more, &with_key("k1")).await;
        assert_eq!(more.unwrap_err().code(), ErrorCode::IdempotencyMismatch);
        let delete = node.client().delete(&name("sums"), id("one"), &with_key("k1")).await.unwrap_err();
        assert_eq!(delete.code(), ErrorCode::IdempotencyMismatch);
        assert!(delete.advice().is_some_and(|hint| hint.contains("new key")), "{delete:?}");
    }
    a.kill();
    a.start().await;
    add(a.client(), "k1").await.unwrap();
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        assert_eq!(total(node).await, 1);
        assert_eq!(node.all("sums").await.unwrap().len(), 2);
        node.assert_sound().await;
    }
    // Another key is another request.
    add(b.client(), "k3").await.unwrap();
    converged(&[&a, &b]).await;
    assert_eq!(total(&a).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_made_on_both_sides_of_a_cut_has_one_effect() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = two(folder.path()).await;
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    let both = async |key: &'static str| {
        let (here, there) = tokio::join!(add(a.client(), key), add(b.client(), key));
        here.unwrap();
        there.unwrap();
    };
    for key in ["p1", "p2", "p3"] {
        both(key).await;
    }
    let create = |node: &Node| {
        let client = node.client().clone();
        async move { client.create(&name("sums"), None, text(&json!({"made": 1})), &with_key("p4")).await.unwrap() }
    };
    let (here, there) = tokio::join!(create(&a), create(&b));
    assert_eq!(here.id, there.id, "the id follows from the key");
    // What builds on a request that will not count must count all the same.
    add(a.client(), "only-a").await.unwrap();
    add(b.client(), "only-b").await.unwrap();
    assert_eq!((total(&a).await, total(&b).await), (4, 4));
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    println!("equal {:?} after the link was opened", converged(&[&a, &b]).await);
    for node in [&a, &b] {
        assert_eq!(total(node).await, 5, "three requests made twice and two made once");
        assert_eq!(node.all("sums").await.unwrap().len(), 2);
        node.assert_sound().await;
    }
    assert_eq!(a.all("sums").await.unwrap(), b.all("sums").await.unwrap());
    // And a retry after all that still has none.
    add(a.client(), "p1").await.unwrap();
    add(b.client(), "p2").await.unwrap();
    converged(&[&a, &b]).await;
    assert_eq!((total(&a).await, total(&b).await), (5, 5));
}
