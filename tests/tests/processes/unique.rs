//! Unique values of collections, over processes: by the command line, REST and the SDK.

use folkmoot::api::{
    At, Atomicity, BulkOp, BulkOptions, CollectionSettings, Database, DuplicatesQuery, Edit, Histories as _, LinkRule,
    Patch, PatchKind, WriteOptions,
};
use folkmoot::{Client, Error, ErrorCode, InitOptions, NodeConfig};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text, until};
use serde_json::{Value, json};

use super::access::{user, write};

fn settings() -> CollectionSettings {
    let unique = [&["/email"][..], &["/tenant", "/login"]];
    let unique = unique.map(|fields| fields.iter().map(|field| (*field).to_owned()).collect()).to_vec();
    CollectionSettings { unique, ..CollectionSettings::default() }
}

/// At which fields a write was refused, and because of which document.
fn taken(error: &Error) -> String {
    assert_eq!(error.code(), ErrorCode::UniqueViolation, "{error}");
    told(error)
}

fn told(error: &Error) -> String {
    let taken = error.already_taken().expect("what is taken is told");
    let fields: Vec<_> = taken.fields.iter().map(ToString::to_string).collect();
    format!("{} {}", fields.join(","), taken.by.as_ref().map_or("?", |by| by.as_str()))
}

async fn duplicates(database: &impl Database) -> Result<Vec<String>, String> {
    let page = database.duplicates(&name("people"), &DuplicatesQuery::default()).await;
    let page = page.map_err(|error| error.to_string())?;
    let told = page.items.iter().flat_map(|item| {
        item.shares.iter().map(move |shared| {
            let fields: Vec<_> = shared.fields.iter().map(ToString::to_string).collect();
            format!("{} {} {}", item.id, fields.join(","), shared.winner)
        })
    });
    if page.complete { Ok(told.collect()) } else { Err("not complete".to_owned()) }
}

async fn duplicates_are(database: &impl Database, expected: &[&str]) {
    until("the list is complete", async || match duplicates(database).await? {
        told if told == expected => Ok(()),
        told => Err(format!("{told:?}, not {expected:?}")),
    })
    .await;
}

async fn counted(node: &Node, expected: f64) {
    until("the metric follows", async || {
        match node.metrics().await.get("folkmoot_documents_duplicate{collection=\"people\"}") {
            Some(count) if *count == expected => Ok(()),
            other => Err(format!("{other:?}, not {expected}")),
        }
    })
    .await;
}

async fn patch(client: &Client, doc: &str, kind: PatchKind, body: Value) -> Result<(), Error> {
    let patch = Patch { kind, body: text(&body) };
    client.patch(&name("people"), id(doc), patch, &WriteOptions::default()).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_writing_takes_what_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    let client = node.client();
    let people = name("people");
    let headers = [("content-type", "application/json")];
    for (unique, pointer) in [
        (json!([["email"]]), "/unique/0/0"),
        (json!([["/a"], ["/b", ""]]), "/unique/1/1"),
        (json!([["/tags/*"]]), "/unique/0/0"),
        (json!([["/a", "/a"]]), "/unique/0/1"),
        (json!([["/a", "/b"], ["/b", "/a"]]), "/unique/1"),
        (json!([[]]), "/unique/0"),
        (json!([["/a", "/b", "/c", "/d", "/e"]]), "/unique/0"),
        (json!([["/a"], ["/b"], ["/c"], ["/d"], ["/e"], ["/f"], ["/g"], ["/h"], ["/i"]]), "/unique"),
    ] {
        let body = json!({ "unique": unique }).to_string();
        let bad = node.http("PUT", "/v1/collections/people", &headers, body.as_bytes()).await;
        let told = (bad.status, &bad.json["code"], &bad.json["pointer"]);
        assert_eq!(told, (422, &json!("invalid_settings"), &json!(pointer)), "{}", bad.json);
    }
    let info = client.configure(&people, settings()).await.unwrap();
    assert_eq!(json!(info.settings.unique), json!([["/email"], ["/login", "/tenant"]]));

    // By REST, with all that is told.
    let first = node.put("people", "ann", json!({"email": "ann@x", "tenant": 1, "login": "a"})).await;
    let answer = node.http("PUT", "/v1/collections/people/docs/bob", &headers, br#"{"email":"ann@x"}"#).await;
    assert_eq!(
        (
            answer.status,
            &answer.json["code"],
            &answer.json["pointer"],
            &answer.json["unique"],
            &answer.json["taken_by"]
        ),
        (409, &json!("unique_violation"), &json!("/email"), &json!(["/email"]), &json!("ann")),
        "{}",
        answer.json
    );
    assert_eq!(node.http("GET", "/v1/collections/people/docs/bob", &[], b"").await.status, 404);
    let answer = node.http("POST", "/v1/collections/people/docs", &headers, br#"{"email":"ann@x"}"#).await;
    assert_eq!((answer.status, &answer.json["taken_by"]), (409, &json!("ann")));

    // By the SDK, whatever way.
    let create =
        client.create(&people, None, text(&json!({"login": "a", "tenant": 1})), &WriteOptions::default()).await;
    assert_eq!(taken(&create.unwrap_err()), "/login,/tenant ann");
    let bob = node.put("people", "bob", json!({"email": "bob@x", "tenant": 1, "login": "b"})).await;
    for (kind, body, expected) in [
        (PatchKind::Merge, json!({"email": "ann@x"}), "/email ann"),
        (PatchKind::JsonPatch, json!([{"op": "replace", "path": "/login", "value": "a"}]), "/login,/tenant ann"),
        (PatchKind::Edits, json!({"ops": [{"op": "set", "path": "/email", "value": "ann@x"}]}), "/email ann"),
    ] {
        assert_eq!(taken(&patch(client, "bob", kind, body).await.unwrap_err()), expected);
    }
    let put = |doc: &str, json: Value| BulkOp::from(Edit::Put { id: id(doc), json: text(&json) });
    let ops = || vec![put("dan", json!({"email": "dan@x"})), put("eve", json!({"email": "dan@x"}))];
    let atomic = BulkOptions { atomicity: Atomicity::AllOrNothing, ..BulkOptions::default() };
    let failed = client.bulk(&people, ops(), &atomic).await.unwrap_err();
    assert_eq!((failed.code(), told(&failed).as_str()), (ErrorCode::AtomicFailed, "/email eve"), "{failed}");
    assert_eq!(node.get("people", "dan").await.unwrap_err().code(), ErrorCode::DocumentNotFound);
    let each = client.bulk(&people, ops(), &BulkOptions::default()).await.unwrap();
    assert!(each[0].is_ok());
    assert_eq!(taken(each[1].as_ref().unwrap_err()), "/email dan");
    let exchanged = vec![
        put("ann", json!({"email": "bob@x", "tenant": 1, "login": "a"})),
        put("bob", json!({"email": "ann@x", "tenant": 1, "login": "b"})),
    ];
    client.bulk(&people, exchanged, &atomic).await.unwrap();
    // What is deleted is free, and does not come back to what is taken since.
    let restored = client.restore(&people, &id("bob"), Some(&At::Heads(bob.heads)), &WriteOptions::default()).await;
    assert_eq!(taken(&restored.unwrap_err()), "/email ann");
    client.delete(&people, id("ann"), &WriteOptions::default()).await.unwrap();
    node.put("people", "eve", json!({"tenant": 1, "login": "a"})).await;
    let undeleted = client.restore(&people, &id("ann"), Some(&At::Heads(first.heads)), &WriteOptions::default()).await;
    assert!(taken(&undeleted.unwrap_err()).ends_with(" bob"));
    let again = client.restore(&people, &id("ann"), None, &WriteOptions::default()).await;
    assert_eq!(taken(&again.unwrap_err()), "/login,/tenant eve");

    // By the command line: the constraints stay unless they are spoken of.
    let set = ["collections", "set", "people"];
    let output = node.cli(&[&set[..], &["--unique", "/email", "--unique", "/a,/b"]].concat(), "").await;
    assert!(output.status.success() && printed(&output).contains("/a, /b"), "{}", printed(&output));
    assert!(node.cli(&set, "").await.status.success());
    let output = node.cli(&["put", "people", "fay", r#"{"email": "dan@x"}"#], "").await;
    assert_eq!(output.status.code(), Some(5), "{}", printed(&output));
    let told = printed(&output);
    assert!(told.contains("document fay would have the same /email as document dan"), "{told}");
    let lines = "{\"id\":\"i1\",\"email\":\"i\"}\n{\"id\":\"i2\",\"email\":\"i\"}\n";
    let import = node.cli(&["--json", "import", "people", "-", "--keep-going"], lines).await;
    assert!(printed(&import).contains("\"failed\":1"), "{}", printed(&import));
    assert_eq!(duplicates(client).await.unwrap(), Vec::<String>::new());
    assert!(node.cli(&[&set[..], &["--no-unique"]].concat(), "").await.status.success());
    assert!(node.cli(&["put", "people", "fay", r#"{"email": "dan@x"}"#], "").await.status.success());
    assert!(node.metrics().await["folkmoot_unique_refused_total"] >= 12.0);
    node.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_at_once_one_gets_the_value() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    node.client().configure(&name("people"), settings()).await.unwrap();
    for round in 0..20 {
        let writes = (0..8).map(|writer| {
            let client = node.client().clone();
            tokio::spawn(async move {
                write(&client, "people", &format!("r{round}w{writer}"), json!({"email": round})).await.is_ok()
            })
        });
        let mut made = 0;
        for write in writes.collect::<Vec<_>>() {
            made += u32::from(write.await.unwrap());
        }
        assert_eq!(made, 1, "in round {round}");
    }
    duplicates_are(node.client(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_apart_is_listed_until_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    for n in 0..600 {
        a.put("people", &format!("d{n:03}"), json!({"n": n, "email": if n % 200 == 0 { 0 } else { n }})).await;
    }
    converged(&[&a, &b]).await;

    // What was there before is found, also by a node that is killed while it looks.
    a.client().configure(&name("people"), settings()).await.unwrap();
    b.kill();
    b.start().await;
    converged(&[&a, &b]).await;
    let before = ["d200 /email d000", "d400 /email d000"];
    duplicates_are(a.client(), &before).await;
    duplicates_are(b.client(), &before).await;

    // What is taken on both sides of a cut is kept, and the same one wins on both.
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    a.put("people", "bob", json!({"email": "x", "tenant": 1, "login": "l"})).await;
    b.put("people", "ann", json!({"email": "x", "tenant": 1, "login": "l"})).await;
    b.kill();
    b.start().await;
    let error = write(b.client(), "people", "cat", json!({"email": "x"})).await.unwrap_err();
    assert_eq!(taken(&error), "/email ann");
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    converged(&[&a, &b]).await;
    let all = ["bob /email ann", "bob /login,/tenant ann", "d200 /email d000", "d400 /email d000"];
    for node in [&a, &b] {
        duplicates_are(node.client(), &all).await;
        counted(node, 3.0).await;
        assert_eq!(node.get("people", "bob").await.unwrap()["email"], "x");
    }
    b.kill();
    b.start().await;
    duplicates_are(b.client(), &all).await;
    b.assert_sound().await;
    let check = b.client().collection(&name("people")).await.unwrap().unique_check.unwrap();
    assert_eq!((check.duplicates, check.contested, check.complete), (3, 3, true));

    // Page by page, and by the command line.
    let mut query = DuplicatesQuery { limit: Some(2), after: None };
    let page = b.client().duplicates(&name("people"), &query).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].shares.len(), page.items[1].id.as_str()), (2, 2, "d200"));
    query.after = page.next;
    let page = b.client().duplicates(&name("people"), &query).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].id.as_str(), page.next), (1, "d400", None));
    let answer = b.http("GET", "/v1/collections/people/duplicates?limit=1", &[], b"").await;
    let shares = json!([{"fields": ["/email"], "winner": "ann"}, {"fields": ["/login", "/tenant"], "winner": "ann"}]);
    assert_eq!((&answer.json["items"][0]["id"], &answer.json["items"][0]["shares"]), (&json!("bob"), &shares));
    let output = b.cli(&["collection", "duplicates", "people"], "").await;
    let table = printed(&output);
    assert!(output.status.success() && table.contains("/login, /tenant") && table.contains("d000"), "{table}");
    let rubbish = b.http("GET", "/v1/collections/people/duplicates?after=rubbish", &[], b"").await;
    assert_eq!((rubbish.status, &rubbish.json["code"]), (400, &json!("invalid_cursor")));
    let nowhere = b.http("GET", "/v1/collections/nowhere/duplicates", &[], b"").await;
    assert_eq!((nowhere.status, &nowhere.json["code"]), (404, &json!("collection_not_found")));

    // A duplicate is edited otherwise, and gives up what it shares; a winner goes.
    patch(b.client(), "bob", PatchKind::Merge, json!({"note": 1, "login": "m"})).await.unwrap();
    assert_eq!(
        taken(&patch(b.client(), "bob", PatchKind::Merge, json!({"login": "l"})).await.unwrap_err()),
        "/login,/tenant ann"
    );
    b.client().delete(&name("people"), id("d000"), &WriteOptions::default()).await.unwrap();
    let left = ["bob /email ann", "d400 /email d200"];
    assert_eq!(duplicates(b.client()).await.unwrap(), left);
    converged(&[&a, &b]).await;
    duplicates_are(a.client(), &left).await;
    let none = br#"{"unique":null}"#;
    let headers = [("content-type", "application/merge-patch+json")];
    assert_eq!(a.http("PATCH", "/v1/collections/people", &headers, none).await.status, 200);
    duplicates_are(a.client(), &[]).await;
    counted(&a, 0.0).await;
    a.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_a_document_is_not_told_that_it_shares() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    for (doc, email) in [("ann", "x"), ("bob", "x"), ("bof", "x"), ("cat", "y"), ("dan", "y")] {
        a.put("people", doc, json!({"email": email})).await;
    }
    a.client().configure(&name("people"), settings()).await.unwrap();
    duplicates_are(a.client(), &["bob /email ann", "bof /email ann", "dan /email cat"]).await;
    let b = Node::join(folder.path(), "b", &a).await;
    converged(&[&a, &b]).await;
    // She sees one of those that share, and no email of the others.
    let grants: &[&[&str]] = &[
        &["editor", "--on", "people", "--prefix", "bo"],
        &["editor", "--on", "people", "--prefix", "new"],
        &["reader", "--on", "people", "--prefix", "cat"],
        &["reader", "--on", "people", "--prefix", "dan", "--without-fields", "/email"],
    ];
    let eve = user(&a, &b, "eve", grants).await;
    duplicates_are(b.client(), &["bob /email ann", "bof /email ann", "dan /email cat"]).await;
    until("the rights are known", async || duplicates(&eve).await.map(|_| ())).await;
    assert_eq!(duplicates(&eve).await.unwrap(), Vec::<String>::new());
    assert_eq!(eve.collection(&name("people")).await.unwrap().unique_check, None);
    for (email, by) in [("x", "?"), ("y", "cat")] {
        let error = write(&eve, "people", "new", json!({ "email": email })).await.unwrap_err();
        let is_told = taken(&error);
        assert!(by != "?" || !format!("{error:?}").contains("ann"), "{error:?}");
        assert_eq!(is_told, format!("/email {by}"), "{error}");
    }
    let all = user(&a, &b, "all", &[&["reader", "--on", "people"]]).await;
    duplicates_are(&all, &["bob /email ann", "bof /email ann", "dan /email cat"]).await;
}

/// In a program of one's own.
#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_node_tells_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("app");
    folkmoot::Node::init(&data, &InitOptions::default()).unwrap();
    let node = folkmoot::Node::open(NodeConfig::new(&data)).await.unwrap();
    let people = name("people");
    let put = async |doc: &str| {
        let json = text(&json!({"email": "x"}));
        node.put(&people, id(doc), json, &WriteOptions::default()).await
    };
    put("b").await.unwrap();
    put("a").await.unwrap();
    node.configure(&people, settings()).await.unwrap();
    duplicates_are(&node, &["b /email a"]).await;
    assert_eq!(taken(&put("c").await.unwrap_err()), "/email a");
    node.delete(&people, id("a"), &WriteOptions::default()).await.unwrap();
    assert_eq!(duplicates(&node).await.unwrap(), Vec::<String>::new());
    node.shutdown().await;
}
