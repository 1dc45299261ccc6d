//! How much a node takes.

use folkmoot::api::{Database as _, WriteOptions};
use folkmoot::{Client, ErrorCode};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text};
use serde_json::{Value, json};

async fn put(node: &Node, collection: &str, doc: &str, bytes: usize) -> Result<(), ErrorCode> {
    let json = text(&json!({ "x": "y".repeat(bytes) }));
    let client: Client = node.impatient_client();
    client.put(&name(collection), id(doc), json, &WriteOptions::default()).await.map(drop).map_err(|error| error.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_no_more_than_its_quotas_and_merges_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::new(folder.path(), "a");
    a.set_environment(&[
        ("FOLKMOOT_LIMITS_DOCUMENTS_PER_COLLECTION", "5"),
        ("FOLKMOOT_LIMITS_BYTES_PER_COLLECTION", "10KiB"),
        ("FOLKMOOT_LIMITS_DOCUMENTS", "8"),
    ]);
    a.start().await;
    for n in 0..5 {
        put(&a, "notes", &format!("n-{n}"), 10).await.unwrap();
    }
    // No sixth, however it is asked for; what is there may be changed.
    assert_eq!(put(&a, "notes", "n-5", 10).await, Err(ErrorCode::QuotaExceeded));
    let answer = a.http("POST", "/v1/collections/notes/docs", &[("content-type", "application/json")], b"{}").await;
    assert_eq!((answer.status, answer.json["code"].as_str()), (507, Some("quota_exceeded")), "{}", answer.json);
    let told = answer.json["detail"].as_str().unwrap();
    assert!(told.contains("collection notes holds 5 documents of 5"), "{told}");
    put(&a, "notes", "n-4", 20).await.unwrap();
    // Others have room, until the node has none.
    for n in 0..3 {
        put(&a, "other", &format!("o-{n}"), 10).await.unwrap();
    }
    assert_eq!(put(&a, "third", "t", 10).await, Err(ErrorCode::QuotaExceeded));
    // Counts are kept over a crash, and what is deleted gives room.
    a.kill();
    a.start().await;
    assert_eq!(put(&a, "notes", "n-5", 10).await, Err(ErrorCode::QuotaExceeded));
    for doc in ["n-0", "n-1", "n-2"] {
        let deleted = a.cli(&["delete", "notes", doc], "").await;
        assert!(deleted.status.success(), "{}", printed(&deleted));
    }
    assert_eq!(put(&a, "notes", "large", 20_000).await, Err(ErrorCode::QuotaExceeded));
    put(&a, "notes", "n-5", 8_000).await.unwrap();
    assert_eq!(put(&a, "notes", "n-6", 8_000).await, Err(ErrorCode::QuotaExceeded));

    // What another node has taken, which has no such limits, is merged.
    let b = Node::join(folder.path(), "b", &a).await;
    for n in 0..20 {
        put(&b, "notes", &format!("b-{n}"), 10).await.unwrap();
    }
    converged(&[&a, &b]).await;
    assert_eq!(a.all("notes").await.unwrap().len(), 23);
    assert_eq!(put(&a, "notes", "n-7", 10).await, Err(ErrorCode::QuotaExceeded));
    let metrics = a.metrics().await;
    assert!(
        metrics.get("folkmoot_quota_refused_total{what=\"documents\"}").is_some_and(|count| *count >= 2.0),
        "{metrics:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_makes_no_more_documents_in_a_day_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path(), "a");
    node.set_environment(&[("FOLKMOOT_LIMITS_DOCUMENTS_PER_PRINCIPAL_DAY", "4")]);
    node.start().await;
    let mut clients = Vec::new();
    for user in ["ann", "bob"] {
        for arguments in [&["user", "add", user][..], &["grant", user, "editor"]] {
            let output = node.cli(arguments, "").await;
            assert!(output.status.success(), "{}", printed(&output));
        }
        let output = node.cli(&["token", "issue", user, "--json"], "").await;
        let token: Value = serde_json::from_slice(&output.stdout).unwrap();
        let client = Client::builder(node.url()).token(token["token"].as_str().unwrap()).attempts(1);
        clients.push(client.build().unwrap());
    }
    let [ann, bob] = clients.as_slice() else { panic!("two") };
    let options = WriteOptions::default();
    let write = |client: &Client, doc: String| {
        let client = client.clone();
        let options = options.clone();
        async move { client.put(&name("notes"), id(&doc), text(&json!({ "n": 1 })), &options).await }
    };
    for n in 0..4 {
        write(ann, format!("a-{n}")).await.unwrap();
    }
    let refused = write(ann, "a-4".to_owned()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TooManyRequests, "{refused}");
    // One in six hours.
    let wait = refused.retry_delay().unwrap().as_secs();
    assert!((20_000..=21_600).contains(&wait), "{wait}");
    // What there is may be changed, and others have their own day; the owner's has no end.
    write(ann, "a-0".to_owned()).await.unwrap();
    write(bob, "b-0".to_owned()).await.unwrap();
    for n in 0..6 {
        put(&node, "notes", &format!("o-{n}"), 1).await.unwrap();
    }
}
