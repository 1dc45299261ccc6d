//! Declared types and the end of documents, over processes: by the command line, REST and the SDK.

use std::time::Duration;

use folkmoot::api::{
    ChangeContent, ChangeKind, ChangesQuery, CollectionSettings, Database as _, Expires, FieldType, FindQuery,
    LinkRule, ListQuery, Patch, PatchKind, Precondition, Queries as _, Since, Timestamp, WriteOptions, WriteStatus,
};
use folkmoot::{Client, Error, ErrorCode};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text, until};
use serde_json::{Value, json};

async fn patch(client: &Client, collection: &str, doc: &str, kind: PatchKind, body: Value) -> Result<(), Error> {
    let patch = Patch { kind, body: text(&body) };
    client.patch(&name(collection), id(doc), patch, &WriteOptions::default()).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_types_are_checked_shown_and_merged_alike_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let set = ["collections", "set", "notes", "--type", "/body=text", "--type", "/votes=counter"];
    let set = [&set[..], &["--type", "/*/at=timestamp", "--type", "/raw=bytes"]].concat();
    let output = a.cli(&set, "").await;
    assert!(output.status.success(), "{}", printed(&output));
    let b = Node::join(folder.path(), "b", &a).await;
    let info = b.client().collection(&name("notes")).await.unwrap();
    let types: Vec<(&str, FieldType)> =
        info.settings.types.iter().map(|(place, kind)| (place.as_str(), *kind)).collect();
    let (text_type, counter) = (FieldType::Text, FieldType::Counter);
    assert_eq!(
        types,
        [("/*/at", FieldType::Timestamp), ("/body", text_type), ("/raw", FieldType::Bytes), ("/votes", counter)]
    );

    // What cannot be declared.
    let headers = [("content-type", "application/json")];
    for (body, pointer) in [
        (r#"{"types":{"body":"text"}}"#, Some("/types/body")),
        (r#"{"types":{"":"text"}}"#, Some("/types/")),
        (r#"{"types":{"/a~2":"text"}}"#, Some("/types/~1a~02")),
        (r#"{"shards":0}"#, Some("/shards")),
        (r#"{"shards":1025}"#, Some("/shards")),
        (r#"{"expires":{"field":"/*/at"}}"#, Some("/expires/field")),
        (r#"{"expires":{"field":"at"}}"#, None),
        (r#"{"expires":{"field":"/at","after":-1}}"#, None),
        (r#"{"types":{"/body":"number"}}"#, None),
    ] {
        let answer = a.http("PUT", "/v1/collections/other", &headers, body.as_bytes()).await;
        assert!(answer.status == 422 || (answer.status == 400 && pointer.is_none()), "{body}: {}", answer.json);
        if let Some(pointer) = pointer {
            assert_eq!(
                (&answer.json["code"], &answer.json["pointer"]),
                (&json!("invalid_settings"), &json!(pointer)),
                "{body}"
            );
        }
    }
    assert_eq!(a.http("GET", "/v1/collections/other", &[], b"").await.status, 404);

    // What is of the type is shown in one form, by whatever way it came.
    let whole = json!({"body": "abc", "votes": 1, "seen": {"at": "2026-03-01T09:00:00.5+01:00"}, "raw": "AAEC"});
    let shown = json!({"body": "abc", "votes": 1, "seen": {"at": "2026-03-01T08:00:00.500Z"}, "raw": "AAEC"});
    let answer = a.http("PUT", "/v1/collections/notes/docs/rest", &headers, whole.to_string().as_bytes()).await;
    assert_eq!(answer.status, 201, "{}", answer.json);
    let output = a.cli(&["put", "notes", "cli", &whole.to_string()], "").await;
    assert!(output.status.success(), "{}", printed(&output));
    a.put("notes", "sdk", whole.clone()).await;
    a.put("notes", "none", json!({"body": null, "votes": null, "seen": {"at": null}, "raw": null})).await;
    converged(&[&a, &b]).await;
    for doc in ["rest", "cli", "sdk"] {
        assert_eq!(b.get("notes", doc).await.unwrap(), shown, "{doc}");
    }

    // What is not, is refused with its place, and changes nothing.
    for (body, pointer) in [
        (json!({"body": 1}), "/body"),
        (json!({"votes": "1"}), "/votes"),
        (json!({"votes": 1.5}), "/votes"),
        (json!({"seen": {"at": "yesterday"}}), "/seen/at"),
        (json!({"seen": {"at": 7}}), "/seen/at"),
        (json!({"raw": "not base64!"}), "/raw"),
        (json!({"raw": [0]}), "/raw"),
    ] {
        let answer = a.http("PUT", "/v1/collections/notes/docs/rest", &headers, body.to_string().as_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json["code"], &answer.json["pointer"]),
            (422, &json!("invalid_document"), &json!(pointer)),
            "{body}: {}",
            answer.json
        );
        let answer = a.http("POST", "/v1/collections/notes/docs", &headers, body.to_string().as_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json["code"], &answer.json["pointer"]),
            (422, &json!("invalid_document"), &json!(pointer)),
            "{body}: {}",
            answer.json
        );
        let error = patch(a.client(), "notes", "rest", PatchKind::Merge, body.clone()).await.unwrap_err();
        assert_eq!((error.code(), error.json_pointer()), (ErrorCode::PatchFailed, Some(pointer)), "{body}");
        let output = a.cli(&["put", "notes", "rest", &body.to_string()], "").await;
        assert!(output.status.code() == Some(1) && printed(&output).contains(pointer), "{}", printed(&output));
    }
    assert_eq!(a.get("notes", "rest").await.unwrap(), shown);

    // Each merges as it says, after a partition.
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    for (node, at, insert) in [(&a, 0, "A"), (&b, 3, "B")] {
        let edits = json!({"ops": [
            {"op": "splice", "path": "/body", "index": at, "delete": 0, "insert": insert},
            {"op": "increment", "path": "/votes", "by": 2},
        ]});
        patch(node.client(), "notes", "rest", PatchKind::Edits, edits).await.unwrap();
        patch(node.client(), "notes", "rest", PatchKind::Merge, json!({"raw": "AAEC".to_owned() + "Aw=="}))
            .await
            .unwrap();
    }
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    converged(&[&a, &b]).await;
    let merged = json!({"body": "AabcB", "votes": 5, "seen": {"at": "2026-03-01T08:00:00.500Z"}, "raw": "AAECAw=="});
    for node in [&a, &b] {
        assert_eq!(node.get("notes", "rest").await.unwrap(), merged);
        node.assert_sound().await;
    }
}

/// The time in so many milliseconds.
fn in_ms(ms: u64) -> String {
    Timestamp::from_millis(Timestamp::now().millis() + ms).to_string()
}

/// What reads of all kinds find.
async fn found(node: &Node) -> Result<Vec<String>, String> {
    let client = node.client();
    let sessions = name("sessions");
    let failed = |error: Error| error.to_string();
    let page = client.list(&sessions, &ListQuery::default()).await.map_err(failed)?;
    let listed: Vec<String> = page.items.iter().map(|item| item.id.to_string()).collect();
    let page = client.find(&sessions, &FindQuery::default()).await.map_err(failed)?;
    let queried: Vec<String> = page.items.iter().map(|item| item.id.to_string()).collect();
    // A document may end between the two.
    if listed == queried { Ok(listed) } else { Err(format!("{listed:?} and {queried:?}")) }
}

async fn finds(node: &Node, expected: &[&str]) {
    until("what is over is gone", async || match found(node).await? {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}, not {expected:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_end_are_hidden_deleted_and_stay_gone() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    let output = a.cli(&["collections", "set", "sessions", "--expires", "/ends", "--expires-after", "1s"], "").await;
    assert!(output.status.success() && printed(&output).contains("/ends + 1 s"), "{}", printed(&output));
    until("the settings are known", async || {
        let info = b.client().collection(&name("sessions")).await.map_err(|error| error.to_string())?;
        let expected = Some(Expires { field: "/ends".parse().unwrap(), after: 1 });
        if info.settings.expires == expected { Ok(()) } else { Err(format!("{info:?}")) }
    })
    .await;
    a.put("sessions", "keep", json!({"ends": in_ms(3_600_000)})).await;
    a.put("sessions", "never", json!({"ends": "some day"})).await;
    a.put("sessions", "soon", json!({"ends": in_ms(1_000), "x": 1})).await;
    a.put("sessions", "moved", json!({"ends": in_ms(5_000)})).await;
    a.put("sessions", "touched", json!({"ends": in_ms(5_000)})).await;
    converged(&[&a, &b]).await;

    // Cut off from each other, both hide what is over; edits in time are made on one.
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    patch(b.client(), "sessions", "moved", PatchKind::Merge, json!({"ends": in_ms(3_600_000)})).await.unwrap();
    patch(b.client(), "sessions", "touched", PatchKind::Merge, json!({"note": "x"})).await.unwrap();
    finds(&a, &["keep", "never"]).await;
    finds(&b, &["keep", "moved", "never"]).await;
    for node in [&a, &b] {
        let read = node.get("sessions", "soon").await.unwrap_err();
        assert_eq!(read.code(), ErrorCode::DocumentNotFound);
        let edit = patch(node.client(), "sessions", "soon", PatchKind::Merge, json!({"x": 2})).await.unwrap_err();
        assert_eq!(edit.code(), ErrorCode::DocumentNotFound);
        let output = node.cli(&["get", "sessions", "soon"], "").await;
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    }
    until("both delete", async || {
        let (a, b) = (a.metrics().await, b.metrics().await);
        let of = |metrics: &std::collections::BTreeMap<String, f64>| {
            metrics.get("folkmoot_documents_expired_total").copied()
        };
        match (of(&a), of(&b)) {
            (Some(3.0), Some(2.0)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let query = ChangesQuery {
        collection: Some(name("sessions")),
        since: Since::Beginning,
        content: ChangeContent::Names,
        ..ChangesQuery::default()
    };
    let page = a.client().changes(&query).await.unwrap();
    let soon = page.items.iter().find(|change| change.id.as_str() == "soon").unwrap();
    assert_eq!(soon.kind, ChangeKind::Deleted);

    // Together again, and after a kill: only what was moved has come back.
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    finds(&a, &["keep", "moved", "never"]).await;
    b.kill();
    b.start().await;
    tokio::time::timeout(Duration::from_secs(60), converged(&[&a, &b])).await.expect("they agree");
    finds(&b, &["keep", "moved", "never"]).await;
    finds(&a, &["keep", "moved", "never"]).await;
    a.assert_sound().await;
    b.assert_sound().await;

    // Who writes it makes it anew.
    let options = WriteOptions { precondition: Precondition::Absent, ..WriteOptions::default() };
    let made =
        b.client().put(&name("sessions"), id("soon"), text(&json!({"ends": in_ms(60_000)})), &options).await.unwrap();
    assert_eq!(made.status, WriteStatus::Created);
    converged(&[&a, &b]).await;
    finds(&a, &["keep", "moved", "never", "soon"]).await;
    let settings = CollectionSettings {
        expires: Some(Expires { field: "/ends".parse().unwrap(), after: 0 }),
        ..CollectionSettings::default()
    };
    a.client().configure(&name("sessions"), settings).await.unwrap();
    let output = a.cli(&["collections", "set", "sessions", "--no-expires"], "").await;
    assert!(output.status.success() && !printed(&output).contains("expires"), "{}", printed(&output));
}
