//! What documents were, over processes: by the command line, REST and the SDK.

use folkmoot::api::{At, Database as _, HistoryQuery, LinkRule, ReadOptions, Timestamp, WriteOptions};
use folkmoot::{Access as _, Client, ErrorCode, Histories as _};
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
