//! Schemas of collections, over processes: by the command line, REST and the SDK.

use folkmoot::api::{
    At, Atomicity, BulkOp, BulkOptions, CollectionSettings, Database as _, Edit, FieldType, Histories as _,
    InvalidQuery, LinkRule, Patch, PatchKind, WriteOptions,
};
use folkmoot::{Client, Error, ErrorCode};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text, until};
use serde_json::{Value, json};

use super::access::{user, write};

fn form() -> Value {
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "left": {"type": "integer", "minimum": 0},
            "salary": {"type": "integer", "maximum": 9},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2}
        }
    })
}

fn settings() -> CollectionSettings {
    CollectionSettings {
        types: [("/left".to_owned(), FieldType::Counter)].into(),
        schema: Some(form()),
        ..CollectionSettings::default()
    }
}

/// The places and keywords of what is wrong.
fn wrong(error: &Error) -> Vec<String> {
    assert_eq!(error.code(), ErrorCode::SchemaViolation, "{error}");
    let found = error.found_violations().expect("what is wrong is told");
    found.items.iter().map(|found| format!("{} {}", found.pointer, found.keyword)).collect()
}

async fn patch(client: &Client, doc: &str, kind: PatchKind, body: Value) -> Result<(), Error> {
    let patch = Patch { kind, body: text(&body) };
    client.patch(&name("people"), id(doc), patch, &WriteOptions::default()).await.map(|_| ())
}

async fn invalid(client: &Client) -> Result<Vec<String>, String> {
    let page = client.invalid(&name("people"), &InvalidQuery::default()).await.map_err(|error| error.to_string())?;
    let told = page.items.iter().map(|item| format!("{} {}", item.id, item.violations[0].pointer));
    if page.complete { Ok(told.collect()) } else { Err("not complete".to_owned()) }
}

async fn invalid_is(node: &Node, expected: &[&str]) {
    until("the list is complete", async || match invalid(node.client()).await? {
        told if told == expected => Ok(()),
        told => Err(format!("{told:?}, not {expected:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_writing_breaks_the_form() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    let client = node.client();
    let people = name("people");
    let bad = node
        .http(
            "PUT",
            "/v1/collections/people",
            &[("content-type", "application/json")],
            br#"{"schema":{"properties":{"a":{"typ":"string"}}}}"#,
        )
        .await;
    assert_eq!(
        (bad.status, &bad.json["code"], &bad.json["pointer"]),
        (422, &json!("invalid_settings"), &json!("/schema/properties/a/typ")),
        "{}",
        bad.json
    );
    assert!(bad.json["hint"].as_str().unwrap().contains("\"type\""), "{}", bad.json);
    let info = client.configure(&people, settings()).await.unwrap();
    assert_eq!(info.settings.schema, Some(form()));

    // By REST, with all that is told.
    let headers = [("content-type", "application/json")];
    let answer = node.http("PUT", "/v1/collections/people/docs/ann", &headers, br#"{"left":-1}"#).await;
    assert_eq!(
        (answer.status, &answer.json["code"], &answer.json["pointer"]),
        (422, &json!("schema_violation"), &json!("/left")),
        "{}",
        answer.json
    );
    assert_eq!(
        answer.json["violations"],
        json!([
            {"pointer": "/left", "keyword": "minimum", "schema": "/properties/left/minimum", "detail": "the number is less than 0", "allowed": 0},
            {"pointer": "/name", "keyword": "required", "schema": "/required", "detail": "the member is missing"}
        ])
    );
    assert_eq!(node.http("GET", "/v1/collections/people/docs/ann", &[], b"").await.status, 404);

    // By the SDK, whatever way.
    let create = client.create(&people, None, text(&json!({"name": ""})), &WriteOptions::default()).await;
    assert_eq!(wrong(&create.unwrap_err()), ["/name minLength"]);
    let first = node.put("people", "ann", json!({"name": "Ann", "left": 1, "tags": ["a"]})).await;
    for (kind, body, expected) in [
        (PatchKind::Merge, json!({"name": null}), "/name required"),
        (PatchKind::JsonPatch, json!([{"op": "replace", "path": "/name", "value": 1}]), "/name type"),
        (PatchKind::Edits, json!({"ops": [{"op": "increment", "path": "/left", "by": -2}]}), "/left minimum"),
        (PatchKind::Edits, json!({"ops": [{"op": "insert", "path": "/tags", "values": ["b", "c"]}]}), "/tags maxItems"),
    ] {
        assert_eq!(wrong(&patch(client, "ann", kind, body).await.unwrap_err()), [expected]);
    }
    let put = |doc: &str, json: Value| BulkOp::from(Edit::Put { id: id(doc), json: text(&json) });
    let ops = || vec![put("bob", json!({"name": "Bob"})), put("ann", json!({"name": "Ann", "tags": [1]}))];
    let atomic = BulkOptions { atomicity: Atomicity::AllOrNothing, ..BulkOptions::default() };
    let failed = client.bulk(&people, ops(), &atomic).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::AtomicFailed);
    assert_eq!(failed.found_violations().unwrap().items[0].pointer, "/tags/0");
    assert_eq!(node.get("people", "bob").await.unwrap_err().code(), ErrorCode::DocumentNotFound);
    let each = client.bulk(&people, ops(), &BulkOptions::default()).await.unwrap();
    assert!(each[0].is_ok());
    assert_eq!(wrong(each[1].as_ref().unwrap_err()), ["/tags/0 type"]);
    assert_eq!(node.get("people", "ann").await.unwrap(), json!({"name": "Ann", "left": 1, "tags": ["a"]}));
    node.put("people", "ann", json!({"name": "Anna"})).await;

    // A version of before a stricter schema does not come back.
    let stricter = json!({"required": ["name"], "not": {"required": ["tags"]}});
    client.configure(&people, CollectionSettings { schema: Some(stricter), ..settings() }).await.unwrap();
    let restored = client.restore(&people, &id("ann"), Some(&At::Heads(first.heads)), &WriteOptions::default()).await;
    assert_eq!(wrong(&restored.unwrap_err()), [" not"]);

    // By the command line: the schema stays unless it is spoken of.
    let file = folder.path().join("form.json");
    std::fs::write(&file, form().to_string()).unwrap();
    let set = ["collections", "set", "people", "--type", "/left=counter"];
    let output = node.cli(&[&set[..], &["--schema", file.to_str().unwrap()]].concat(), "").await;
    assert!(output.status.success(), "{}", printed(&output));
    assert!(node.cli(&set, "").await.status.success());
    let output = node.cli(&["put", "people", "ann", r#"{"left": -1}"#], "").await;
    assert_eq!(output.status.code(), Some(1));
    let told = printed(&output);
    assert!(told.contains("/left: the number is less than 0; /name: the member is missing"), "{told}");
    assert!(node.cli(&[&set[..], &["--no-schema"]].concat(), "").await.status.success());
    assert!(node.cli(&["put", "people", "ann", r#"{"left": -1}"#], "").await.status.success());
    assert!(node.metrics().await["folkmoot_schema_refused_total"] >= 8.0);
    node.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_merge_or_a_schema_breaks_is_listed_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    for n in 0..600 {
        let json = if n % 200 == 0 { json!({"n": n}) } else { json!({"n": n, "name": "x"}) };
        a.put("people", &format!("d{n:03}"), json).await;
    }
    a.put("people", "ann", json!({"name": "Ann", "left": 3})).await;
    a.client().configure(&name("people"), CollectionSettings { schema: None, ..settings() }).await.unwrap();
    a.put("people", "ann", json!({"name": "Ann", "left": 4})).await;
    converged(&[&a, &b]).await;

    // What was there before is found, also by a node that is killed while it looks.
    a.client().configure(&name("people"), settings()).await.unwrap();
    b.kill();
    b.start().await;
    converged(&[&a, &b]).await;
    let before = ["d000 /name", "d200 /name", "d400 /name"];
    invalid_is(&a, &before).await;
    invalid_is(&b, &before).await;

    // What merges to something else is kept.
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    for node in [&a, &b] {
        let less = json!({"ops": [{"op": "increment", "path": "/left", "by": -3}]});
        patch(node.client(), "ann", PatchKind::Edits, less).await.unwrap();
    }
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    converged(&[&a, &b]).await;
    let all = ["ann /left", "d000 /name", "d200 /name", "d400 /name"];
    for node in [&a, &b] {
        assert_eq!(node.get("people", "ann").await.unwrap(), json!({"name": "Ann", "left": -2}));
        invalid_is(node, &all).await;
        until("the metric follows", async || {
            match node.metrics().await.get("folkmoot_documents_invalid{collection=\"people\"}") {
                Some(4.0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    b.kill();
    b.start().await;
    invalid_is(&b, &all).await;
    b.assert_sound().await;
    let check = b.client().collection(&name("people")).await.unwrap().schema_check.unwrap();
    assert_eq!((check.invalid, check.complete), (4, true));

    // Page by page, and by the command line.
    let mut query = InvalidQuery { limit: Some(3), after: None };
    let page = b.client().invalid(&name("people"), &query).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].violations[0].keyword.as_str()), (3, "minimum"));
    query.after = page.next;
    let page = b.client().invalid(&name("people"), &query).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].id.as_str(), page.next), (1, "d400", None));
    let output = b.cli(&["collection", "invalid", "people"], "").await;
    let table = printed(&output);
    assert!(output.status.success() && table.contains("/left") && table.contains("the member is missing"), "{table}");
    let rubbish = b.http("GET", "/v1/collections/people/invalid?after=rubbish", &[], b"").await;
    assert_eq!((rubbish.status, &rubbish.json["code"]), (400, &json!("invalid_cursor")));
    let nowhere = b.http("GET", "/v1/collections/nowhere/invalid", &[], b"").await;
    assert_eq!((nowhere.status, &nowhere.json["code"]), (404, &json!("collection_not_found")));

    // It is mended step by step, and other fields are edited meanwhile.
    patch(b.client(), "ann", PatchKind::Merge, json!({"note": "x"})).await.unwrap();
    assert_eq!(
        wrong(&patch(b.client(), "ann", PatchKind::Merge, json!({"name": ""})).await.unwrap_err()),
        ["/name minLength"]
    );
    patch(b.client(), "ann", PatchKind::Edits, json!({"ops": [{"op": "increment", "path": "/left", "by": 2}]}))
        .await
        .unwrap();
    b.client().delete(&name("people"), id("d000"), &WriteOptions::default()).await.unwrap();
    patch(b.client(), "d200", PatchKind::Merge, json!({"name": "y"})).await.unwrap();
    assert_eq!(invalid(b.client()).await.unwrap(), ["d400 /name"]);
    converged(&[&a, &b]).await;
    invalid_is(&a, &["d400 /name"]).await;
    a.client().configure(&name("people"), CollectionSettings { schema: None, ..settings() }).await.unwrap();
    invalid_is(&a, &[]).await;
    a.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_is_not_told_by_errors_or_lists() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("people", "ann", json!({"name": "Ann", "salary": 77})).await;
    a.put("people", "bob", json!({"name": "", "salary": 77})).await;
    a.put("people", "other", json!({"name": ""})).await;
    let form = json!({"maxProperties": 2, "properties": form()["properties"]});
    a.client().configure(&name("people"), CollectionSettings { schema: Some(form), ..settings() }).await.unwrap();
    invalid_is(&a, &["ann /salary", "bob /name", "other /name"]).await;
    let b = Node::join(folder.path(), "b", &a).await;
    converged(&[&a, &b]).await;
    let limits: &[&[&str]] = &[
        &["editor", "--on", "people", "--prefix", "ann", "--without-fields", "/salary"],
        &["editor", "--on", "people", "--prefix", "bob", "--without-fields", "/salary"],
    ];
    let eve = user(&a, &b, "eve", limits).await;
    until("the list is complete", async || match invalid(&eve).await? {
        told if told == ["bob /name"] => Ok(()),
        told => Err(format!("{told:?}")),
    })
    .await;
    let page = eve.invalid(&name("people"), &InvalidQuery::default()).await.unwrap();
    assert_eq!(page.items[0].violations.len(), 1);
    assert_eq!(eve.collection(&name("people")).await.unwrap().schema_check, None);

    // That there are too many members tells of one that she does not see.
    let error = write(&eve, "people", "ann", json!({"name": 7, "note": 1})).await.unwrap_err();
    assert_eq!(wrong(&error), ["/name type"]);
    assert_eq!(error.found_violations().unwrap().withheld, 1);
    assert!(!format!("{error:?}").contains("77") && !format!("{error:?}").contains("salary"), "{error:?}");
    // What was wrong already, and she does not see, does not stop her.
    write(&eve, "people", "ann", json!({"name": "Anna"})).await.unwrap();
}
