//! What one node does for its clients, by the SDK's client and by the command line.

use folkmoot::api::{
    Atomicity, BulkOp, BulkOptions, ChangeContent, ChangeKind, ChangesQuery, CollectionSettings, Database as _, Edit,
    FieldType, ListQuery, Patch, PatchKind, Precondition, Since, StoreState, WriteOptions, WriteStatus, export,
};
use folkmoot::{Client, ErrorCode};
use folkmoot_tests::processes::{Node, id, name, printed, text};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

fn patch(kind: PatchKind, body: &Value) -> Patch {
    Patch { kind, body: text(body) }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_live_through_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::found(folder.path(), "a").await;
    let notes = name("notes");
    let plain = WriteOptions::default();

    let settings = CollectionSettings {
        types: [("/body".to_owned(), FieldType::Text), ("/votes".to_owned(), FieldType::Counter)].into(),
        ..CollectionSettings::default()
    };
    let info = node.client().configure(&notes, settings.clone()).await.unwrap();
    assert_eq!(info.settings, settings);

    let created = node.put("notes", "one", json!({"title": "One", "body": "abc", "votes": 1, "tags": ["x"]})).await;
    assert_eq!(created.status, WriteStatus::Created);
    let again = node.put("notes", "one", json!({"title": "One", "body": "abc", "votes": 1, "tags": ["x"]})).await;
    assert_eq!((again.status, &again.heads), (WriteStatus::Unchanged, &created.heads));

    let client = node.client();
    let merge = patch(PatchKind::Merge, &json!({"title": null, "name": "Uno"}));
    client.patch(&notes, id("one"), merge, &plain).await.unwrap();
    let steps =
        json!([{"op": "test", "path": "/name", "value": "Uno"}, {"op": "add", "path": "/tags/-", "value": "y"}]);
    client.patch(&notes, id("one"), patch(PatchKind::JsonPatch, &steps), &plain).await.unwrap();
    let edits = json!({"ops": [
        {"op": "increment", "path": "/votes", "by": 4},
        {"op": "splice", "path": "/body", "index": 3, "delete": 0, "insert": "def"},
    ]});
    let edited = client.patch(&notes, id("one"), patch(PatchKind::Edits, &edits), &plain).await.unwrap();
    let expected = json!({"name": "Uno", "body": "abcdef", "votes": 5, "tags": ["x", "y"]});
    assert_eq!(node.get("notes", "one").await.unwrap(), expected);

    // The version that was read decides, and the answer tells the one that is.
    let stale = WriteOptions { precondition: Precondition::HeadsAre(vec![created.heads]), ..WriteOptions::default() };
    let refused = client.put(&notes, id("one"), text(&json!({})), &stale).await.unwrap_err();
    assert_eq!((refused.code(), refused.current_heads()), (ErrorCode::PreconditionFailed, Some(&edited.heads)));

    let made = client.create(&notes, None, text(&json!({"n": 0})), &plain).await.unwrap();
    let taken = client.create(&notes, Some(made.id.clone()), text(&json!({})), &plain).await.unwrap_err();
    assert_eq!(taken.code(), ErrorCode::AlreadyExists);
    let deleted = client.delete(&notes, made.id.clone(), &plain).await.unwrap();
    assert_eq!(deleted.status, WriteStatus::Deleted);
    assert_eq!(node.get("notes", made.id.as_str()).await.unwrap_err().code(), ErrorCode::DocumentNotFound);
    assert_eq!(client.delete(&notes, made.id, &plain).await.unwrap_err().code(), ErrorCode::DocumentNotFound);

    many_at_once(client).await;

    let feed = ChangesQuery { content: ChangeContent::Documents, limit: Some(1_000), ..ChangesQuery::default() };
    let page = client.changes(&feed).await.unwrap();
    assert!(!page.more);
    let one = page.items.iter().rfind(|change| change.id == id("one")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(one.json.as_ref().unwrap()).unwrap(), expected);
    assert_eq!(page.items.iter().filter(|change| change.kind == ChangeKind::Deleted).count(), 1);
    let since = ChangesQuery { since: Since::After(page.next.clone()), ..feed.clone() };
    assert_eq!(client.changes(&since).await.unwrap().items, []);
    // Who waits for a change gets it.
    let waiting = ChangesQuery { wait: ChangesQuery::WAIT_MAX, ..since.clone() };
    let (waited, _) = tokio::join!(client.changes(&waiting), node.put("notes", "late", json!({})));
    assert_eq!(waited.unwrap().items.iter().map(|change| change.id.as_str()).collect::<Vec<_>>(), ["late"]);

    assert_eq!(client.conflicts(&notes, &id("one")).await.unwrap(), []);
    let status = client.status().await.unwrap();
    assert!(status.readiness.ready, "{status:?}");
    assert_eq!((status.store, status.members, status.documents), (StoreState::Healthy, 1, 22));
    node.assert_sound().await;

    let (before, digests) = (node.all("notes").await.unwrap(), client.digests().await.unwrap());
    let (collections, ops) = (client.collections().await.unwrap(), status.ops);
    assert!(node.stop().await.success());
    node.start().await;
    assert_eq!(node.all("notes").await.unwrap(), before);
    assert_eq!(node.client().digests().await.unwrap(), digests);
    assert_eq!(node.client().collections().await.unwrap(), collections);
    assert_eq!(node.client().status().await.unwrap().ops, ops);
    let since = ChangesQuery { since: Since::After(page.next), ..feed };
    assert_eq!(node.client().changes(&since).await.unwrap().items.len(), 1, "a token is good after a restart");
    node.assert_sound().await;
}

/// Twenty documents by bulk, an atomic batch that fails whole, lists by page and the export.
async fn many_at_once(client: &Client) {
    let notes = name("notes");
    let op = |edit| BulkOp { edit, precondition: Precondition::None, merge_onto: None, idempotency_key: None };
    let put = |doc: &str, n: u32| op(Edit::Put { id: id(doc), json: text(&json!({ "n": n })) });
    let mut edits: Vec<_> = (0..20).map(|n| put(&format!("bulk-{n:02}"), n)).collect();
    edits.push(op(Edit::Delete { id: id("absent") }));
    let results = client.bulk(&notes, edits, &BulkOptions::default()).await.unwrap();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
    assert_eq!(results.last().unwrap().as_ref().unwrap_err().code(), ErrorCode::DocumentNotFound);

    let atomic = BulkOptions { atomicity: Atomicity::AllOrNothing, ..BulkOptions::default() };
    let batch = vec![put("atomic", 1), op(Edit::Delete { id: id("absent") })];
    assert_eq!(client.bulk(&notes, batch, &atomic).await.unwrap_err().code(), ErrorCode::AtomicFailed);

    let mut query = ListQuery { prefix: Some("bulk-".to_owned()), limit: Some(7), ..ListQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = client.list(&notes, &query).await.unwrap();
        seen.extend(page.items.into_iter().map(|document| document.id.to_string()));
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    assert_eq!(seen, (0..20).map(|n| format!("bulk-{n:02}")).collect::<Vec<_>>());
    let exported: Vec<_> = export(std::sync::Arc::new(client.clone()), notes, None).try_collect().await.unwrap();
    assert_eq!(exported.len(), 21, "one and twenty; nothing of the atomic batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_live_through_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::found(folder.path(), "a").await;
    let expect = async |node: &Node, code: i32, arguments: &[&str], input: &str| {
        let output = node.cli(arguments, input).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", printed(&output));
        output
    };

    expect(&node, 0, &["put", "notes", "one", r#"{"n":1}"#], "").await;
    expect(&node, 0, &["put", "notes", "two", "-"], r#"{"n":2}"#).await;
    expect(&node, 0, &["patch", "notes", "one", r#"{"m":2}"#], "").await;
    let got = expect(&node, 0, &["--json", "get", "notes", "one"], "").await;
    assert_eq!(serde_json::from_slice::<Value>(&got.stdout).unwrap(), json!({"n": 1, "m": 2}));
    expect(&node, 0, &["list", "notes"], "").await;
    expect(&node, 0, &["conflicts", "notes", "one"], "").await;
    expect(&node, 0, &["changes", "notes"], "").await;
    expect(&node, 0, &["status"], "").await;
    expect(&node, 0, &["peers"], "").await;
    expect(&node, 0, &["verify"], "").await;
    expect(&node, 0, &["digests"], "").await;

    let exported = expect(&node, 0, &["export", "notes"], "").await;
    let lines = String::from_utf8(exported.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2);
    expect(&node, 0, &["import", "copies", "-"], &lines).await;
    assert_eq!(node.get("copies", "one").await.unwrap(), json!({"n": 1, "m": 2}));
    expect(&node, 0, &["delete", "notes", "two"], "").await;

    expect(&node, 1, &["get", "notes", "two"], "").await;
    expect(&node, 2, &["get", "notes"], "").await;
    expect(&node, 5, &["create", "notes", r#"{"n":1}"#, "--id", "one"], "").await;
    let stale = "00".repeat(32);
    expect(&node, 5, &["put", "notes", "one", "{}", "--if-match", &stale], "").await;
    let wrong = folder.path().join("wrong.token");
    std::fs::write(&wrong, "fm_wrong\n").unwrap();
    let denied = expect(&node, 4, &["get", "notes", "one", "--token-file", wrong.to_str().unwrap()], "").await;
    assert!(printed(&denied).contains("token"), "{}", printed(&denied));

    // Another process on the same directory, while the node runs, does no harm.
    let second = ["serve", "--listen", "127.0.0.1:0", "--p2p-listen", "127.0.0.1:0"];
    let second = expect(&node, 1, &second, "").await;
    println!("a second process on the directory: {}", printed(&second));
    expect(&node, 0, &["get", "notes", "one"], "").await;

    let url = node.url().to_owned();
    assert!(node.stop().await.success());
    let gone = expect(&node, 3, &["--url", &url, "get", "notes", "one"], "").await;
    assert!(printed(&gone).contains("reach"), "{}", printed(&gone));
    expect(&node, 3, &["get", "notes", "one"], "").await;
}
