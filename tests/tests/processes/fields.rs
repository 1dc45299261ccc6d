//! Rights on fields of documents, over processes: by the command line, REST and the SDK.

use folkmoot::api::{
    AccessQuestion, AuditDecision, AuditQuery, BulkOp, BulkOptions, ChangeContent, ChangesQuery, Database as _, Edit,
    LinkRule, ListQuery, Patch, PatchKind, QuarantineQuery, Since, WriteOptions,
};
use folkmoot::{Access as _, Action, Audit as _, Client, Error, ErrorCode};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text};
use serde_json::{Value, json};

use super::access::{named, read, refused, told, user, with_token, write};

async fn patch(client: &Client, doc: &str, kind: PatchKind, body: Value) -> Result<(), Error> {
    let patch = Patch { kind, body: text(&body) };
    client.patch(&name("people"), id(doc), patch, &WriteOptions::default()).await.map(|_| ())
}

#[track_caller]
fn withheld(result: Result<(), Error>, pointer: &str) {
    let error = result.expect_err("it is refused");
    assert_eq!((error.code(), error.json_pointer()), (ErrorCode::NotAllowed, Some(pointer)), "{error}");
}

/// Everything that somebody gets to see of the collection, as text.
async fn seen(client: &Client) -> String {
    let people = name("people");
    let page = client.list(&people, &ListQuery::default()).await.unwrap();
    let mut all: Vec<String> = page.items.iter().map(|item| format!("{:?}", item.json)).collect();
    let feed = ChangesQuery {
        collection: Some(people.clone()),
        since: Since::Beginning,
        content: ChangeContent::Documents,
        ..ChangesQuery::default()
    };
    let page = client.changes(&feed).await.unwrap();
    assert!(page.items.iter().any(|change| change.json.is_some()));
    all.extend(page.items.iter().map(|change| format!("{:?}", change.json)));
    all.push(format!("{:?}", client.conflicts(&people, &id("p1")).await.unwrap()));
    all.push(read(client, "people", "p1").await.unwrap().to_string());
    all.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn withheld_fields_are_neither_seen_nor_changed_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    let person = json!({"name": "p", "reviews": [{"stars": 3, "note": "zebra-1"}], "salary": "zebra-2"});
    a.put("people", "p1", person.clone()).await;
    converged(&[&a, &b]).await;
    let limits: &[&str] = &["editor", "--on", "people", "--without-fields", "/salary,/reviews/*/note"];
    let ann = user(&a, &b, "ann", &[limits]).await;

    // A conflict at a field that she sees, and at one that she does not.
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    let merge = |by: &str| json!({"name": by, "salary": format!("zebra-{by}")});
    for (node, by) in [(&a, "a"), (&b, "b")] {
        patch(node.client(), "p1", PatchKind::Merge, merge(by)).await.unwrap();
    }
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    converged(&[&a, &b]).await;
    assert_eq!(b.client().conflicts(&name("people"), &id("p1")).await.unwrap().len(), 2);
    let conflicts = ann.conflicts(&name("people"), &id("p1")).await.unwrap();
    assert_eq!(conflicts.iter().map(|conflict| conflict.pointer.as_str()).collect::<Vec<_>>(), ["/name"]);
    let all = seen(&ann).await;
    assert!(all.contains("stars") && !all.contains("zebra"), "{all}");
    assert!(seen(a.client()).await.contains("zebra"));

    // By whatever way she writes.
    let hidden = a.get("people", "p1").await.unwrap();
    write(&ann, "people", "p1", json!({"name": "ann", "reviews": [{"stars": 5}]})).await.unwrap();
    patch(&ann, "p1", PatchKind::Merge, json!({"phone": 1})).await.unwrap();
    patch(&ann, "p1", PatchKind::JsonPatch, json!([{"op": "add", "path": "/tags", "value": ["x"]}])).await.unwrap();
    let edits = json!({"ops": [{"op": "insert", "path": "/tags", "values": ["y"]}]});
    patch(&ann, "p1", PatchKind::Edits, edits).await.unwrap();
    write(&ann, "people", "p2", json!({"name": "new"})).await.unwrap();
    for (kind, body, pointer) in [
        (PatchKind::Merge, json!({"salary": 1}), "/salary"),
        (PatchKind::Merge, json!({"reviews": null}), "/reviews"),
        (PatchKind::JsonPatch, json!([{"op": "copy", "from": "/salary", "path": "/mine"}]), "/salary"),
        (PatchKind::JsonPatch, json!([{"op": "test", "path": "/salary", "value": "zebra-a"}]), "/salary"),
        (PatchKind::JsonPatch, json!([{"op": "remove", "path": "/reviews/0"}]), "/reviews/0"),
        (PatchKind::Edits, json!({"ops": [{"op": "set", "path": "/salary", "value": 1}]}), "/salary"),
        (PatchKind::Edits, json!({"ops": [{"op": "remove", "path": "/reviews", "index": 0}]}), "/reviews"),
    ] {
        withheld(patch(&ann, "p1", kind, body).await, pointer);
    }
    withheld(write(&ann, "people", "p1", json!({"name": "x", "salary": hidden["salary"]})).await, "/salary");
    withheld(write(&ann, "people", "p3", json!({"salary": 1})).await, "/salary");
    let remove = ann.delete(&name("people"), id("p1"), &WriteOptions::default()).await;
    refused(remove.map(|_| ()), ErrorCode::NotAllowed);
    // What the replica refuses is recorded as what is refused before it.
    let denied = AuditQuery { decision: Some(AuditDecision::Denied), ..AuditQuery::default() };
    let denied = b.client().audit(&denied).await.unwrap().items;
    let of_field = denied.iter().find(|entry| entry.reason.contains("/salary"));
    assert!(of_field.is_some_and(|entry| entry.documents.iter().any(|doc| doc.as_str() == "p1")), "{denied:?}");
    let put = |doc: &str, json: Value| BulkOp::from(Edit::Put { id: id(doc), json: text(&json) });
    let ops = vec![put("p2", json!({"name": "newer"})), put("p2", json!({"salary": 1}))];
    let results = ann.bulk(&name("people"), ops, &BulkOptions::default()).await.unwrap();
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);

    // Both nodes agree, nothing is set aside, and it all holds after a kill.
    converged(&[&a, &b]).await;
    b.kill();
    b.start().await;
    converged(&[&a, &b]).await;
    let expected = json!({
        "name": "ann", "phone": 1, "reviews": [{"stars": 5, "note": "zebra-1"}], "salary": hidden["salary"], "tags": ["x", "y"],
    });
    for node in [&a, &b] {
        assert_eq!(node.get("people", "p1").await.unwrap(), expected);
        assert_eq!(node.get("people", "p2").await.unwrap(), json!({"name": "newer"}));
        assert!(node.client().quarantine(&QuarantineQuery::default()).await.unwrap().items.is_empty());
        node.assert_sound().await;
    }
    let token = told(&a, &["token", "issue", "ann"]).await;
    let ann = with_token(&b, token["token"].as_str().unwrap());
    folkmoot_tests::processes::until("the token is known", async || {
        ann.caller().await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(
        read(&ann, "people", "p1").await.unwrap(),
        json!({"name": "ann", "phone": 1, "reviews": [{"stars": 5}], "tags": ["x", "y"]})
    );
    // The answer to a write with what it made is what she may see of it.
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let headers = [
        ("authorization", bearer.as_str()),
        ("prefer", "return=representation"),
        ("content-type", "application/merge-patch+json"),
    ];
    let path = "/v1/collections/people/docs/p1";
    let answer = b.http_as_stranger("PATCH", path, &headers, br#"{"phone":2}"#).await;
    let body = String::from_utf8_lossy(&answer.body);
    assert!(body.contains("phone") && !body.contains("zebra"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_to_fields_are_told_and_narrow_tokens_too() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("people", "p1", json!({"name": "p", "phone": {"home": 1}, "salary": 5})).await;
    let bob = user(
        &a,
        &a,
        "bob",
        &[&["editor", "--on", "people", "--fields", "/phone"], &["reader", "--on", "people", "--fields", "/name"]],
    )
    .await;
    assert_eq!(read(&bob, "people", "p1").await.unwrap(), json!({"name": "p", "phone": {"home": 1}}));
    withheld(patch(&bob, "p1", PatchKind::Merge, json!({"name": "bob"})).await, "/name");
    patch(&bob, "p1", PatchKind::Merge, json!({"phone": {"home": 2}})).await.unwrap();
    let shown = a.client().principal(&named("bob")).await.unwrap();
    let fields: Vec<_> = shown.grants.iter().map(|grant| grant.target.fields.clone()).collect();
    assert!(fields.contains(&vec!["/phone".to_owned()]) && fields.contains(&vec!["/name".to_owned()]));
    for (arguments, code) in [
        (&["can", "bob", "update", "people", "p1", "--field", "/phone/home"][..], 0),
        (&["can", "bob", "update", "people", "p1", "--field", "/name"], 4),
        (&["can", "bob", "read", "people", "--field", "/name"], 0),
        (&["can", "bob", "read", "people"], 4),
        (&["can", "bob", "delete", "people", "p1"], 4),
        (&["can", "bob", "read", "--field", "/name"], 2),
        (&["grant", "bob", "editor", "--fields", "phone"], 1),
        (&["grant", "bob", "editor", "--fields", "/a", "--without-fields", "/b"], 2),
    ] {
        let output = a.cli(arguments, "").await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
    // A token gives less than its principal may.
    let whole = user(&a, &a, "eve", &[&["editor", "--on", "people"]]).await;
    let token = told(&a, &["token", "issue", "eve", "--without-fields", "/salary"]).await;
    let narrow = with_token(&a, token["token"].as_str().unwrap());
    assert_eq!(read(&narrow, "people", "p1").await.unwrap(), json!({"name": "p", "phone": {"home": 2}}));
    write(&narrow, "people", "p1", json!({"name": "q"})).await.unwrap();
    withheld(write(&narrow, "people", "p1", json!({"name": "q", "salary": 6})).await, "/salary");
    assert_eq!(read(&whole, "people", "p1").await.unwrap(), json!({"name": "q", "salary": 5}));
    let question = |field: Option<&str>| AccessQuestion {
        principal: None,
        action: Action::Update,
        collection: Some(name("people")),
        id: None,
        field: field.map(|field| field.parse().unwrap()),
    };
    let mut answers = Vec::new();
    for (client, field) in
        [(&narrow, None), (&narrow, Some("/name")), (&narrow, Some("/salary")), (&whole, Some("/salary"))]
    {
        answers.push(client.can(&question(field)).await.unwrap().allowed);
    }
    assert_eq!(answers, [false, true, false, true]);
    let file = folder.path().join("eve.token");
    std::fs::write(&file, token["token"].as_str().unwrap()).unwrap();
    let whoami = a.cli(&["--url", a.url(), "--token-file", file.to_str().unwrap(), "whoami"], "").await;
    assert!(printed(&whoami).contains("without /salary"), "{whoami:?}");
    // What is no field, or too much at once, is told with its place.
    let bad = br#"{"role":"editor","fields":["/a","b"]}"#;
    let answer = a.http("POST", "/v1/principals/bob/grants", &[("content-type", "application/json")], bad).await;
    assert_eq!((&answer.json["code"], &answer.json["pointer"]), (&json!("invalid_target"), &json!("/fields/1")));
}
