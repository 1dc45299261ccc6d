//! Secondary indexes over processes: declared once, made by every node, of the same answers as without.

use folkmoot::api::{FindQuery, IndexSettings, IndexState};
use folkmoot::{Database as _, ErrorCode, Queries as _};
use folkmoot_tests::processes::{Node, converged, name, printed, until};
use serde_json::{Value, json};

use super::access::user;

/// Documents of the test: more than one step of a new index takes.
const DOCUMENTS: usize = 40_000;

async fn import(node: &Node) {
    let lines = |from: usize| {
        let line = |n: usize| {
            let doc = json!({"n": n, "city": format!("city {}", n % 500), "secret": format!("s{n}"), "tags": ["all", format!("t{}", n % 7)]});
            json!({"op": "put", "id": format!("d{n:06}"), "doc": doc}).to_string() + "\n"
        };
        (from..from + 5_000).map(line).collect::<String>()
    };
    for from in (0..DOCUMENTS).step_by(5_000) {
        let answer = node
            .http(
                "POST",
                "/v1/collections/places/bulk",
                &[("content-type", "application/x-ndjson")],
                lines(from).as_bytes(),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.json);
    }
}

async fn ready(node: &Node, index: &str) {
    until("the index is made", async || {
        let indexes = node.client().indexes(&name("places")).await.map_err(|error| error.to_string())?;
        match indexes.iter().find(|info| info.name == index) {
            Some(info) if info.state == IndexState::Ready => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Asks for the documents of a city in the order of a number, the greatest first.
fn asked() -> FindQuery {
    FindQuery::new(json!({"city": "city 42"})).sort(["-n"]).fields(["n"]).limit(3)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_makes_what_one_declares_and_goes_on_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    import(&a).await;
    let b = Node::join(folder.path(), "b", &a).await;
    converged(&[&a, &b]).await;
    let before = a.client().find(&name("places"), &asked()).await.unwrap();
    assert_eq!((before.plan.kind.as_str(), before.plan.index.as_deref()), ("collection", None));
    let hint = before.plan.hint.unwrap();
    assert!(hint.ends_with("folkmoot index create places -- 'city' '-n'"), "{hint}");

    // As the hint says; and the node dies in the middle of it.
    let output = a.cli(&["index", "create", "places", "--", "city", "-n"], "").await;
    assert!(output.status.success(), "{}", printed(&output));
    a.kill();
    a.start().await;
    ready(&a, "city-n").await;
    converged(&[&a, &b]).await;
    ready(&b, "city-n").await;
    for node in [&a, &b] {
        let found = node.client().find(&name("places"), &asked()).await.unwrap();
        assert_eq!((found.plan.index.as_deref(), found.plan.in_order), (Some("city-n"), true), "{:?}", found.plan);
        assert_eq!((found.plan.looked_at, found.plan.hint), (4, None));
        assert_eq!(
            found.items.iter().map(|item| &item.id).collect::<Vec<_>>(),
            before.items.iter().map(|item| &item.id).collect::<Vec<_>>()
        );
    }

    // What is written is found at once, by whichever index, on the node that took it.
    a.put("places", "new", json!({"n": 1_000_000, "city": "city 42"})).await;
    a.put("places", "d039542", json!({"n": 5, "city": "elsewhere"})).await;
    let found = a.client().find(&name("places"), &asked()).await.unwrap();
    let ids: Vec<_> = found.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!((ids, found.plan.index.as_deref()), (vec!["new", "d039042", "d038542"], Some("city-n")));
    let output = a.cli(&["index", "create", "places", "--name", "tags", "--sparse", "--wait", "tags"], "").await;
    assert!(output.status.success() && printed(&output).contains("ready"), "{}", printed(&output));
    let tagged = json!({"selector": {"tags": "t3", "n": {"$lt": 100}}, "limit": 2});
    let json_type = [("content-type", "application/json")];
    let plan = a.http("POST", "/v1/collections/places/explain", &json_type, tagged.to_string().as_bytes()).await;
    assert_eq!(
        (plan.status, &plan.json["kind"], &plan.json["index"]),
        (200, &json!("index"), &json!("tags")),
        "{}",
        plan.json
    );
    let output =
        a.cli(&["query", "places", r#"{"city": "city 42"}"#, "--sort", "-n", "--limit", "2", "--explain"], "").await;
    assert!(printed(&output).contains("(index city-n, in order)"), "{}", printed(&output));
    let listed = a.http("GET", "/v1/collections/places/indexes", &[], b"").await;
    assert_eq!(listed.json["items"][1]["several_per_document"], true, "{}", listed.json);

    // Who may not see a field is not told by an index what is in it, and gets the same answers.
    let limits: &[&str] = &["reader", "--on", "places", "--without-fields", "/secret"];
    let limited = user(&a, &a, "ann", &[limits]).await;
    let found = limited.find(&name("places"), &asked()).await.unwrap();
    assert_eq!((found.plan.kind.as_str(), found.items[0].id.as_str()), ("collection", "new"));

    // Bad declarations change nothing.
    for (indexes, pointer) in [
        (json!({"x": {"fields": []}}), "/indexes/x"),
        (json!({"x": {"fields": ["a..b"]}}), "/indexes/x"),
        (json!({"x": {"fields": ["_id"]}}), "/indexes/x"),
        (json!({"a b": {"fields": ["a"]}}), "/indexes/a b"),
        (json!({"x": {"fields": ["a", "a"]}}), "/indexes/x"),
    ] {
        let body = json!({"indexes": indexes}).to_string();
        let headers = [("content-type", "application/merge-patch+json")];
        let answer = a.http("PATCH", "/v1/collections/places", &headers, body.as_bytes()).await;
        let told = (answer.status, answer.json["code"].as_str(), answer.json["pointer"].as_str());
        assert_eq!(told, (422, Some("invalid_settings"), Some(pointer)), "{body}: {}", answer.json);
    }
    let mut settings = a.client().collection(&name("places")).await.unwrap().settings;
    assert_eq!(settings.indexes.keys().collect::<Vec<_>>(), ["city-n", "tags"]);
    settings.indexes.insert("city-n".to_owned(), IndexSettings::on(["a", "-b"]));
    settings.indexes.insert("x".to_owned(), IndexSettings::on(["a", "b", "c", "d", "e"]));
    let error = a.client().configure(&name("places"), settings).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidSettings);
    let output = a.cli(&["index", "drop", "places", "nothing"], "").await;
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let output = a.cli(&["index", "create", "places", "--name", "tags", "n"], "").await;
    assert_eq!(output.status.code(), Some(5), "{}", printed(&output));

    // Dropped, it is gone on the other node too.
    let output = a.cli(&["index", "drop", "places", "city-n"], "").await;
    assert!(output.status.success(), "{}", printed(&output));
    until("the index is gone", async || {
        let answer = b.http("GET", "/v1/collections/places/indexes", &[], b"").await;
        let names: Vec<_> = answer.json["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
        if names == [&Value::from("tags")] { Ok(()) } else { Err(answer.json.to_string()) }
    })
    .await;
}
