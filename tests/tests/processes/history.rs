//! What documents were, over processes: by the command line, REST and the SDK.

use folkmoot::api::{
    AggregateQuery, At, Database as _, Document, FindQuery, HistoryQuery, LinkRule, ListQuery, ReadOptions, Timestamp,
    WriteOptions,
};
use folkmoot::{Access as _, Client, ErrorCode, Histories as _, Queries as _};
use folkmoot_tests::processes::{Node, converged, id, name, printed, until};
use serde_json::{Value, json};

use super::access::{told, user, with_token, write};

async fn at(client: &Client, doc: &str, at: At) -> Result<Value, ErrorCode> {
    let options = ReadOptions { at: Some(at), ..ReadOptions::default() };
    let document = client.get(&name("notes"), &id(doc), &options).await.map_err(|error| error.code())?;
    Ok(serde_json::from_slice(&document.json).unwrap())
}

/// A moment between two writes, by the clock of this machine, which all nodes share.
async fn moment() -> Timestamp {
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let now = Timestamp::now();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    now
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changed_what_is_told_and_every_version_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    let editor: &[&str] = &["editor", "--on", "notes"];
    let ann = user(&a, &b, "ann", &[editor]).await;
    let before = moment().await;
    a.put("notes", "n", json!({"title": "one", "list": [1]})).await;
    converged(&[&a, &b]).await;
    let first = moment().await;
    write(&ann, "notes", "n", json!({"title": "two", "list": [1, 2]})).await.unwrap();
    converged(&[&a, &b]).await;
    let second = moment().await;

    // Two at once, on both sides of a cut.
    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    a.put("notes", "n", json!({"title": "two", "list": [1, 2], "a": true})).await;
    write(&ann, "notes", "n", json!({"title": "three", "list": [1, 2]})).await.unwrap();
    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    converged(&[&a, &b]).await;
    let third = moment().await;
    a.client().delete(&name("notes"), id("n"), &WriteOptions::default()).await.unwrap();
    converged(&[&a, &b]).await;
    b.kill();
    b.start().await;
    converged(&[&a, &b]).await;

    let mut histories = Vec::new();
    for node in [&a, &b] {
        let page = node.client().history(&name("notes"), &id("n"), &HistoryQuery::default()).await.unwrap();
        assert_eq!(page.next, None);
        let actions: Vec<_> = page.items.iter().map(|item| item.action.as_str()).collect();
        assert_eq!(actions, ["delete", "update", "update", "update", "create"], "{page:#?}");
        assert_eq!(
            page.items[4].patch,
            [
                json!({"op": "add", "path": "/list", "value": [1]}),
                json!({"op": "add", "path": "/title", "value": "one"})
            ]
        );
        let of_ann: Vec<_> = page.items.iter().filter(|item| item.name == "ann").collect();
        assert_eq!(of_ann.len(), 2);
        assert!(of_ann.iter().all(|item| item.through == "b" && item.author == b.key()), "{of_ann:#?}");
        assert_eq!(
            of_ann[1].patch,
            [
                json!({"op": "add", "path": "/list/1", "value": 2}),
                json!({"op": "replace", "path": "/title", "value": "two"})
            ]
        );
        assert_eq!(of_ann[0].patch, [json!({"op": "replace", "path": "/title", "value": "three"})]);
        // By pages of two.
        let (mut query, mut items) = (HistoryQuery { limit: Some(2), after: None }, Vec::new());
        loop {
            let page = node.client().history(&name("notes"), &id("n"), &query).await.unwrap();
            items.extend(page.items);
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert_eq!(items, page.items);
        histories.push(page.items);

        // Versions by time and by heads.
        assert_eq!(at(node.client(), "n", At::Time(before)).await, Err(ErrorCode::DocumentNotFound));
        assert_eq!(at(node.client(), "n", At::Time(first)).await, Ok(json!({"title": "one", "list": [1]})));
        assert_eq!(at(node.client(), "n", At::Time(second)).await, Ok(json!({"title": "two", "list": [1, 2]})));
        let merged = json!({"title": "three", "list": [1, 2], "a": true});
        assert_eq!(at(node.client(), "n", At::Time(third)).await, Ok(merged));
        assert_eq!(at(node.client(), "n", At::Time(moment().await)).await, Err(ErrorCode::DocumentNotFound));
        let heads = At::Heads(folkmoot::api::Heads::new(vec![items[4].change.unwrap()]));
        assert_eq!(at(node.client(), "n", heads).await, Ok(json!({"title": "one", "list": [1]})));
        let unknown = At::Heads(folkmoot::api::Heads::new(vec![folkmoot::ChangeHash::new([9; 32])]));
        assert_eq!(at(node.client(), "n", unknown).await, Err(ErrorCode::UnknownHeads));
        let diff =
            node.client().diff(&name("notes"), &id("n"), &At::Time(first), Some(&At::Time(third))).await.unwrap();
        assert_eq!(
            diff.patch,
            [
                json!({"op": "add", "path": "/a", "value": true}),
                json!({"op": "add", "path": "/list/1", "value": 2}),
                json!({"op": "replace", "path": "/title", "value": "three"})
            ]
        );
    }
    assert_eq!(histories[0], histories[1]);

    let token = told(&a, &["token", "issue", "ann"]).await;
    let ann = with_token(&b, token["token"].as_str().unwrap());
    until("the token is known", async || ann.caller().await.map(|_| ()).map_err(|error| error.to_string())).await;
    // What was deleted comes back as it was, and then an earlier version; both are writes of who asked.
    let nothing =
        ann.restore(&name("notes"), &id("n"), Some(&At::Time(before)), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(nothing.code(), ErrorCode::NothingToRestore, "{nothing}");
    ann.restore(&name("notes"), &id("n"), None, &WriteOptions::default()).await.unwrap();
    converged(&[&a, &b]).await;
    assert_eq!(a.get("notes", "n").await.unwrap(), json!({"title": "three", "list": [1, 2], "a": true}));
    let again = ann.restore(&name("notes"), &id("n"), None, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::NothingToRestore, "{again}");
    let output = b.cli(&["restore", "notes", "n", "--at", &first.to_string()], "").await;
    assert!(output.status.success(), "{}", printed(&output));
    converged(&[&a, &b]).await;
    assert_eq!(a.get("notes", "n").await.unwrap(), json!({"title": "one", "list": [1]}));
    let page = a.client().history(&name("notes"), &id("n"), &HistoryQuery::default()).await.unwrap();
    assert_eq!((page.items.len(), page.items[1].name.as_str()), (7, "ann"));

    // The command line and REST.
    let output = a.cli(&["history", "notes", "n", "--limit", "3", "--patches"], "").await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("ann") && text.contains("/title"), "{}", printed(&output));
    let output = a.cli(&["diff", "notes", "n", &second.to_string()], "").await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"/list/1\""), "{}", printed(&output));
    let output = a.cli(&["get", "notes", "n", "--at", &second.to_string(), "--json"], "").await;
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["title"], "two");
    for (path, status, code) in [
        ("/v1/collections/notes/docs/n?at=yesterday", 400, "invalid_parameter"),
        ("/v1/collections/notes/docs/n/diff", 400, "invalid_parameter"),
        ("/v1/collections/notes/docs/n/history?after=x", 400, "invalid_cursor"),
        ("/v1/collections/notes/docs/none/history", 404, "document_not_found"),
    ] {
        let answer = a.http("GET", path, &[], b"").await;
        assert_eq!((answer.status, answer.json["code"].as_str()), (status, Some(code)), "{path}: {}", answer.json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_shows_no_more_than_the_present() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    a.put("notes", "n", json!({"title": "one", "salary": 1})).await;
    a.put("notes", "n", json!({"title": "two", "salary": 2})).await;
    a.put("other", "o", json!({})).await;
    let limits: &[&str] = &["editor", "--on", "notes", "--without-fields", "/salary"];
    let ann = user(&a, &a, "ann", &[limits]).await;
    let output = a.cli(&["role", "add", "looker", "--allow", "read"], "").await;
    assert!(output.status.success(), "{}", printed(&output));
    let bob = user(&a, &a, "bob", &[&["looker", "--on", "notes"]]).await;
    let page = ann.history(&name("notes"), &id("n"), &HistoryQuery::default()).await.unwrap();
    assert!(!format!("{page:?}").contains("salary"), "{page:#?}");
    let first = At::Heads(folkmoot::api::Heads::new(vec![page.items[1].change.unwrap()]));
    assert_eq!(at(&ann, "n", first.clone()).await, Ok(json!({"title": "one"})));
    let diff = ann.diff(&name("notes"), &id("n"), &first, None).await.unwrap();
    assert_eq!(diff.patch, [json!({"op": "replace", "path": "/title", "value": "two"})]);
    // What she brings back leaves alone what she does not see.
    ann.restore(&name("notes"), &id("n"), Some(&first), &WriteOptions::default()).await.unwrap();
    assert_eq!(a.get("notes", "n").await.unwrap(), json!({"title": "one", "salary": 2}));
    // To read is not to look back.
    let denied = bob.history(&name("notes"), &id("n"), &HistoryQuery::default()).await.unwrap_err();
    assert_eq!(denied.code(), ErrorCode::NotAllowed, "{denied}");
    assert_eq!(at(&bob, "n", first).await, Err(ErrorCode::NotAllowed));
    let elsewhere = ann.history(&name("other"), &id("o"), &HistoryQuery::default()).await.unwrap_err();
    assert_eq!(elsewhere.code(), ErrorCode::NotAllowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_listed_asked_and_counted_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    let before = moment().await;
    for (doc, age) in [("ann", 36), ("bob", 17), ("cy", 52)] {
        a.put("people", doc, json!({"age": age, "pay": age * 10})).await;
    }
    let first = moment().await;
    a.client().delete(&name("people"), id("cy"), &WriteOptions::default()).await.unwrap();
    a.put("people", "bob", json!({"age": 18, "pay": 1})).await;
    a.put("people", "dot", json!({"age": 3, "pay": 2})).await;
    converged(&[&a, &b]).await;
    let adults = FindQuery::new(json!({"age": {"$gte": 18}})).sort(["-age"]);
    let ids = |items: &[Document]| items.iter().map(|document| document.id.to_string()).collect::<Vec<_>>().join(" ");
    for node in [&a, &b] {
        let client = node.client();
        let list = |at| ListQuery { at: Some(at), limit: Some(2), ..ListQuery::default() };
        let page = client.list(&name("people"), &list(first)).await.unwrap();
        assert_eq!(ids(&page.items), "ann bob");
        let rest = client.list(&name("people"), &ListQuery { after: page.next, ..list(first) }).await.unwrap();
        assert_eq!((ids(&rest.items).as_str(), rest.next), ("cy", None));
        assert_eq!(client.list(&name("people"), &list(before)).await.unwrap().items, []);
        let prefix = ListQuery { prefix: Some("b".to_owned()), ..list(first) };
        let found = client.list(&name("people"), &prefix).await.unwrap();
        let bob: Value = serde_json::from_slice(&found.items[0].json).unwrap();
        assert_eq!((ids(&found.items).as_str(), bob["age"].clone()), ("bob", json!(17)));

        let now = client.find(&name("people"), &adults).await.unwrap();
        assert_eq!(ids(&now.items), "ann bob");
        let then = client.find(&name("people"), &adults.clone().at(first)).await.unwrap();
        assert_eq!((ids(&then.items).as_str(), then.plan.kind.as_str()), ("cy ann", "collection"));
        let sum = AggregateQuery {
            values: json!({"n": {"$count": true}, "pay": {"$sum": "pay"}}),
            at: Some(first),
            ..AggregateQuery::default()
        };
        let sum = client.aggregate(&name("people"), &sum).await.unwrap();
        assert_eq!(sum.groups, [json!({"n": 3, "pay": 1050})]);
        // On the command line, and over REST.
        let at = first.to_string();
        let counted = told(node, &["count", "people", "--at", &at]).await;
        assert_eq!(counted, json!({"count": 3}));
        let listed = printed(&node.cli(&["list", "people", "--at", &at], "").await);
        assert!(listed.contains("cy") && !listed.contains("dot"), "{listed}");
        let asked = printed(&node.cli(&["query", "people", r#"{"age":52}"#, "--at", &at], "").await);
        assert!(asked.contains("cy"), "{asked}");
        let answer = node.http("GET", &format!("/v1/collections/people/docs?at={at}"), &[], b"").await;
        assert_eq!(answer.json["items"].as_array().map(Vec::len), Some(3), "{answer:?}");
        for (path, body, code, pointer) in [
            ("docs?at=yesterday", "", "invalid_parameter", Value::Null),
            ("query", r#"{"at":"yesterday"}"#, "invalid_query", json!("/at")),
            ("query", r#"{"at":7}"#, "invalid_query", json!("/at")),
            ("aggregate", r#"{"at":"1960-01-01T00:00:00Z"}"#, "invalid_query", json!("/at")),
        ] {
            let (method, json) =
                if body.is_empty() { ("GET", vec![]) } else { ("POST", vec![("content-type", "application/json")]) };
            let bad = node.http(method, &format!("/v1/collections/people/{path}"), &json, body.as_bytes()).await;
            assert_eq!((bad.status, &bad.json["code"]), (400, &json!(code)), "{path} {body}: {bad:?}");
            assert_eq!(bad.json["pointer"], pointer, "{path} {body}");
        }
    }
    // Rights on what is are asked of what was too, and on what was besides.
    told(&a, &["role", "add", "sees", "--allow", "read"]).await;
    let sees: &[&str] = &["sees", "--on", "people"];
    let some: &[&str] = &["reader", "--on", "people", "--prefix", "b", "--without-fields", "/pay"];
    let (eve, bo) = (user(&a, &b, "eve", &[sees]).await, user(&a, &b, "bo", &[some]).await);
    let denied = eve.find(&name("people"), &adults.clone().at(first)).await.unwrap_err();
    assert_eq!(denied.code(), ErrorCode::NotAllowed, "{denied}");
    let query = ListQuery { at: Some(first), ..ListQuery::default() };
    assert_eq!(eve.list(&name("people"), &query).await.unwrap_err().code(), ErrorCode::NotAllowed);
    let listed = bo.list(&name("people"), &query).await.unwrap();
    let bob: Value = serde_json::from_slice(&listed.items[0].json).unwrap();
    assert_eq!((ids(&listed.items).as_str(), bob), ("bob", json!({"age": 17})));
    let asked = bo.find(&name("people"), &FindQuery::new(json!({"pay": {"$gt": 0}})).at(first)).await.unwrap();
    assert_eq!(asked.items, [], "what is withheld finds nothing");
    let asked = bo.find(&name("people"), &FindQuery::new(json!({"age": 17})).at(first)).await.unwrap();
    assert_eq!(ids(&asked.items), "bob");
}
