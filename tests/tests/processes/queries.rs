//! Queries over processes: by the command line, REST and the SDK.

use folkmoot::api::{AggregateQuery, FindQuery, find_all};
use folkmoot::{Client, ErrorCode, Queries as _};
use folkmoot_tests::processes::{Node, converged, name, printed};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use super::access::user;

/// Runs a command that must succeed and returns what it prints.
async fn printed_by(node: &Node, arguments: &[&str]) -> String {
    let output = node.cli(arguments, "").await;
    assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The ids that a query finds.
async fn found(client: &Client, query: &FindQuery) -> String {
    let page = client.find(&name("people"), query).await.unwrap();
    page.items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>().join(" ")
}

async fn people(node: &Node) {
    for (doc, person) in [
        ("ann", json!({"name": "Ann", "age": 36, "salary": 5, "address": {"city": "Oslo"}, "tags": ["a", "b"]})),
        ("bob", json!({"name": "Bob", "age": 17, "salary": 7, "address": {"city": "Bergen"}, "tags": ["b"]})),
        ("cy", json!({"name": "Cy", "age": 52, "salary": 9, "address": {"city": "Oslo"}})),
    ] {
        node.put("people", doc, person).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_found_by_what_is_in_them_everywhere_alike() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    people(&a).await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    converged(&[&a, &b]).await;
    b.kill();
    b.start().await;
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        // SDK.
        let adults = FindQuery::new(json!({"age": {"$gte": 18}})).sort(["-age"]);
        assert_eq!(found(node.client(), &adults).await, "cy ann");
        assert_eq!(found(node.client(), &FindQuery::new(json!({"address.city": "Oslo", "tags": "b"}))).await, "ann");
        assert_eq!(found(node.client(), &FindQuery::default()).await, "ann bob cy");
        let one = FindQuery { limit: Some(1), ..adults.clone() };
        let all: Vec<_> = find_all(std::sync::Arc::new(node.client().clone()), name("people"), one)
            .map_ok(|document| document.id.as_str().to_owned())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(all, ["cy", "ann"]);
        let count =
            node.client().aggregate(&name("people"), &AggregateQuery::count(json!({"tags": "b"}))).await.unwrap();
        assert_eq!(count.groups, [json!({"count": 2})]);

        // REST.
        let json_type = [("content-type", "application/json")];
        let asked = json!({"selector": {"name": {"$regex": "^[AB]"}}, "sort": [{"age": "asc"}], "fields": ["name", "address.city"]});
        let answer = node.http("POST", "/v1/collections/people/query", &json_type, asked.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        let shown: Vec<_> = answer.json["items"].as_array().unwrap().iter().map(|item| item["doc"].clone()).collect();
        assert_eq!(
            shown,
            [
                json!({"name": "Bob", "address": {"city": "Bergen"}}),
                json!({"name": "Ann", "address": {"city": "Oslo"}})
            ]
        );
        assert_eq!(
            (&answer.json["plan"]["kind"], &answer.json["plan"]["looked_at"]),
            (&json!("collection"), &json!(3))
        );
        assert_eq!(answer.json["next"], Value::Null);
        let asked = json!({"group": ["address.city"], "values": {"n": {"$count": true}, "most": {"$max": "age"}}});
        let answer =
            node.http("POST", "/v1/collections/people/aggregate", &json_type, asked.to_string().as_bytes()).await;
        assert_eq!(
            answer.json["groups"],
            json!([{"group": {"address.city": "Bergen"}, "n": 1, "most": 17}, {"group": {"address.city": "Oslo"}, "n": 2, "most": 52}])
        );

        // The command line.
        let table = printed_by(
            node,
            &["query", "people", r#"{"age": {"$lt": 40}}"#, "--sort", "-age", "--fields", "name,address.city"],
        )
        .await;
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().filter(|cell| *cell != "|").collect()).collect();
        assert!(lines.contains(&vec!["ann", "Ann", "Oslo"]) && !table.contains("Cy"), "{table}");
        let line = printed_by(node, &["query", "people", r#"{"_id": "bob"}"#, "--json"]).await;
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["doc"]["age"], 17);
        assert_eq!(printed_by(node, &["count", "people", r#"{"age": {"$gt": 20}}"#]).await.trim(), "2");
        let table = printed_by(node, &["aggregate", "people", "--group", "address.city", "--sum", "salary"]).await;
        assert!(table.contains("sum(salary)") && table.contains("14"), "{table}");
    }

    // What is wrong is told with its place.
    for (path, body, status, code, pointer) in [
        ("query", r#"{"selector":{"age":{"$foo":1}}}"#, 400, "invalid_query", Some("/selector/age/$foo")),
        ("query", r#"{"selector":{"age":1},"x":1}"#, 400, "invalid_query", Some("/x")),
        ("query", r#"{"selector":{"a":1,"a":2}}"#, 400, "invalid_query", Some("/selector/a")),
        ("query", "{", 400, "invalid_query", None),
        ("query", r#"{"after":"rubbish"}"#, 400, "invalid_cursor", Some("/after")),
        ("aggregate", r#"{"values":{"a":{"$sum":1}}}"#, 400, "invalid_query", Some("/values/a/$sum")),
    ] {
        let path = format!("/v1/collections/people/{path}");
        let answer = a.http("POST", &path, &[("content-type", "application/json")], body.as_bytes()).await;
        assert_eq!((answer.status, answer.json["code"].as_str()), (status, Some(code)), "{body}: {}", answer.json);
        if pointer.is_some() {
            assert_eq!(answer.json["pointer"].as_str(), pointer, "{body}: {}", answer.json);
        }
    }
    let nowhere = a.client().find(&name("nowhere"), &FindQuery::default()).await.unwrap_err();
    assert_eq!(nowhere.code(), ErrorCode::CollectionNotFound);
    let output = a.cli(&["query", "people", "{age"], "").await;
    assert!(!output.status.success() && printed(&output).contains("not valid JSON"), "{}", printed(&output));
    let metrics = a.metrics().await;
    assert!(metrics.keys().any(|name| name.starts_with("folkmoot_query_seconds")), "{metrics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_sees_what_its_caller_may_see() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    people(&a).await;
    let b = Node::join(folder.path(), "b", &a).await;
    converged(&[&a, &b]).await;
    let limits: &[&str] = &["reader", "--on", "people", "--without-fields", "/salary"];
    let ann = user(&a, &b, "ann", &[limits]).await;
    let some: &[&str] = &["reader", "--on", "people", "--prefix", "c"];
    let cy = user(&a, &b, "cy", &[some]).await;

    // By what is withheld nothing is found, sorted, added up or listed.
    let rich = json!({"salary": {"$gte": 7}});
    assert_eq!(found(&ann, &FindQuery::new(rich.clone())).await, "");
    assert_eq!(found(a.client(), &FindQuery::new(rich)).await, "bob cy");
    assert_eq!(found(&ann, &FindQuery::new(json!({"salary": {"$exists": false}}))).await, "ann bob cy");
    assert_eq!(found(&ann, &FindQuery::default().sort(["-salary"])).await, "ann bob cy");
    let all = ann.find(&name("people"), &FindQuery::default()).await.unwrap();
    assert!(all.items.iter().all(|item| !String::from_utf8_lossy(&item.json).contains("salary")));
    let sum = AggregateQuery {
        values: json!({"sum": {"$sum": "salary"}, "all": {"$distinct": "salary"}}),
        ..AggregateQuery::default()
    };
    assert_eq!(ann.aggregate(&name("people"), &sum).await.unwrap().groups, [json!({"sum": 0, "all": []})]);
    assert_eq!(
        a.client().aggregate(&name("people"), &sum).await.unwrap().groups,
        [json!({"sum": 21, "all": [5, 7, 9]})]
    );

    // Documents that may not be seen are not counted, nor among those that were looked at.
    let page = cy.find(&name("people"), &FindQuery::default()).await.unwrap();
    assert_eq!((page.items.len(), page.plan.looked_at), (1, 1));
    let count = cy.aggregate(&name("people"), &AggregateQuery::default()).await.unwrap();
    assert_eq!((count.groups, count.plan.looked_at), (vec![json!({"count": 1})], 1));
    let elsewhere = cy.find(&name("secrets"), &FindQuery::default()).await.unwrap_err();
    assert_eq!(elsewhere.code(), ErrorCode::NotAllowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_long_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path(), "a");
    node.set_environment(&[("FOLKMOOT_LIMITS_QUERY_TIME", "1ms")]);
    node.start().await;
    let lines: Vec<String> = (0..20_000).map(|n| json!({"id": format!("d{n:05}"), "n": n}).to_string()).collect();
    let output = node.cli(&["import", "many", "-"], &lines.join("\n")).await;
    assert!(output.status.success(), "{}", printed(&output));
    let many = name("many");
    let sorted = node.impatient_client().find(&many, &FindQuery::default().sort(["n"])).await.unwrap_err();
    assert_eq!(sorted.code(), ErrorCode::QueryTooLong, "{sorted}");
    // One by id goes on where it ended, page after page.
    let last: Vec<_> = find_all(
        std::sync::Arc::new(node.client().clone()),
        many,
        FindQuery::new(json!({"n": {"$mod": [9_999, 9_998]}})),
    )
    .map_ok(|document| document.id.as_str().to_owned())
    .try_collect()
    .await
    .unwrap();
    assert_eq!(last, ["d09998", "d19997"]);
    let metrics = node.metrics().await;
    assert!(metrics.get("folkmoot_queries_too_long_total").is_some_and(|count| *count >= 1.0), "{metrics:?}");
}
