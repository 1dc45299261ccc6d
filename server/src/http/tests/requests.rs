//! Requests and their answers.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use folkmoot::api::{Durability, Precondition};
use folkmoot::{Error, ErrorCode};
use serde_json::json;
use tower_service::Service as _;

use super::super::front::Door;
use super::super::openapi;
use super::*;

#[tokio::test]
async fn only_the_token_opens_the_door_and_health_has_none() {
    let world = world();
    for line in
        ["GET /v1/status", "GET /metrics", "GET /nowhere", "PUT /v1/collections/c/docs/a", "GET /v1/openapi.json"]
    {
        let answer = world.send_bare(line, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{line}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert!(!answer.header("x-request-id").is_empty());
        assert_eq!(answer.json()["request_id"], answer.header("x-request-id"));
    }
    assert_eq!(world.send_bare("GET /v1/status", &["authorization: Bearer other"], "").await.status, 401);
    assert_eq!(world.send_bare("GET /health/live", &[], "").await.status, 200);
    assert_eq!(world.send_bare("GET /health/ready", &[], "").await.status, 200);
    *world.database.0.broken.lock().unwrap() = Some(Error::new(ErrorCode::StoreFailed, "x"));
    let answer = world.send_bare("GET /health/ready", &[], "").await;
    assert_eq!(answer.status, 503);
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "reasons are for those with a token");
}

#[tokio::test]
async fn a_document_goes_round() {
    let world = world();
    let put = world.send("PUT /v1/collections/c/docs/Z%C3%BCrich%2F1", &[], r#"{"x":1}"#).await;
    assert_eq!((put.status, put.header("etag").is_empty()), (StatusCode::CREATED, false));
    assert_eq!(put.json()["status"], "created");
    assert_eq!(put.json()["id"], "Zürich/1");
    let location = put.header("location").to_owned();
    let got = world.send(&format!("GET {location}"), &[], "").await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &br#"{"x":1}"#[..]));
    assert_eq!(got.header("etag"), put.header("etag"));
    assert_eq!(got.header("last-modified"), "Thu, 01 Jan 1970 00:00:01 GMT");
    assert_eq!(got.header("folkmoot-session"), "s1.");
    let meta = world.send(&format!("GET {location}?meta=true"), &[], "").await;
    assert_eq!(meta.json()["doc"], json!({"x": 1}));
    assert_eq!(format!("\"{}\"", meta.json()["heads"].as_str().unwrap()), got.header("etag"));
    let patched = world
        .send(
            &format!("PATCH {location}"),
            &["content-type: application/merge-patch+json; charset=utf-8"],
            r#"{"y":2}"#,
        )
        .await;
    assert_eq!((patched.status, patched.json()["status"].as_str()), (StatusCode::OK, Some("updated")));
    let minimal = world.send(&format!("DELETE {location}"), &["prefer: return=minimal"], "").await;
    assert_eq!((minimal.status, minimal.body.len()), (StatusCode::NO_CONTENT, 0));
    let gone = world.send(&format!("GET {location}"), &[], "").await;
    assert_eq!((gone.status, gone.code().as_str()), (StatusCode::NOT_FOUND, "document_not_found"));
    let made = world.send("POST /v1/collections/c/docs", &["content-type: application/json"], "{}").await;
    assert_eq!(made.status, 201);
}

#[tokio::test]
async fn conditions_hold_or_the_write_does_not_happen() {
    let world = world();
    let first = world.send("PUT /v1/collections/c/docs/a", &[], "{}").await.header("etag").to_owned();
    let second = world.send("PUT /v1/collections/c/docs/a", &[&format!("if-match: {first}")], "{}").await;
    assert_eq!(second.status, 200);
    let stale = world.send("PUT /v1/collections/c/docs/a", &[&format!("if-match: {first}")], "{}").await;
    assert_eq!((stale.status, stale.code().as_str()), (StatusCode::PRECONDITION_FAILED, "precondition_failed"));
    assert_eq!(stale.header("etag"), second.header("etag"), "the answer tells the version that is there");
    assert_eq!(world.send("PUT /v1/collections/c/docs/a", &["if-none-match: *"], "{}").await.status, 412);
    assert_eq!(world.send("PUT /v1/collections/c/docs/b", &["if-match: *"], "{}").await.status, 412);
    assert_eq!(world.send("PUT /v1/collections/c/docs/a?create=true", &[], "{}").await.code(), "already_exists");
    let same = format!("if-none-match: W/{}", second.header("etag"));
    let unchanged = world.send("GET /v1/collections/c/docs/a", &[&same], "").await;
    assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let base = format!("folkmoot-base: {first}");
    world.send("PUT /v1/collections/c/docs/a", &[&base, "idempotency-key: \"k1\"", "folkmoot-timeout: 5s"], "{}").await;
    let options = world.database.0.last_write.lock().unwrap().clone().unwrap();
    assert_eq!(options.merge_onto.unwrap().etag(), first);
    assert_eq!(options.idempotency_key.unwrap().as_str(), "k1");
    assert_eq!((options.precondition, options.durability), (Precondition::None, Durability::Local));
    assert_eq!(options.timeout, Some(Duration::from_secs(5)));
}

#[tokio::test]
async fn the_answer_to_a_write_has_the_body_that_is_preferred() {
    let world = world();
    let shown = "prefer: respond-async, return=representation";
    let put = world.send("PUT /v1/collections/c/docs/a", &[shown], r#"{"x":1}"#).await;
    assert_eq!((put.status, &put.body[..]), (StatusCode::CREATED, &br#"{"x":1}"#[..]));
    assert_eq!(put.header("preference-applied"), "return=representation");
    assert_eq!(put.header("etag"), world.send("GET /v1/collections/c/docs/a", &[], "").await.header("etag"));
    assert!(put.header("location").ends_with("/docs/a") && !put.header("folkmoot-durability").is_empty());
    let both = "prefer: return=minimal, return=representation";
    let minimal = world.send("PUT /v1/collections/c/docs/a", &[both], r#"{"x":2}"#).await;
    assert_eq!((minimal.status, minimal.body.len()), (StatusCode::NO_CONTENT, 0), "the first counts");
    let gone = world.send("DELETE /v1/collections/c/docs/a", &[shown], "").await;
    assert_eq!((gone.status, gone.json()["status"].as_str()), (StatusCode::OK, Some("deleted")));
    assert_eq!(gone.header("preference-applied"), "");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_cut_off() {
    let world = world_with(Limits { answer_timeout: Duration::from_millis(50), ..limits() });
    let answer = world.send("GET /v1/changes?feed=longpoll&wait=20s&since=now", &[], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::GATEWAY_TIMEOUT, "too_slow"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("50ms"));
    assert_eq!(world.send("GET /v1/status", &[], "").await.status, 200);
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_only_if_they_are_named() {
    let ask = ["origin: https://app.example", "access-control-request-method: PUT"];
    let closed = world();
    let refused = closed.send_bare("OPTIONS /v1/collections/c/docs/a", &ask, "").await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (StatusCode::UNAUTHORIZED, ""));
    let got = closed.send("GET /v1/status", &ask[..1], "").await;
    assert_eq!((got.status, got.header("access-control-allow-origin")), (StatusCode::OK, ""));

    let open = world_for(limits(), &["https://App.example"]);
    let allowed = open.send_bare("OPTIONS /v1/collections/c/docs/a", &ask, "").await;
    assert_eq!(allowed.status, StatusCode::NO_CONTENT);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example");
    assert!(allowed.header("access-control-allow-headers").contains("idempotency-key"));
    assert!(allowed.header("access-control-allow-methods").contains("PATCH"));
    let got = open.send("GET /v1/status", &ask[..1], "").await;
    assert_eq!(got.header("access-control-allow-origin"), "https://app.example");
    assert!(got.header("access-control-expose-headers").contains("etag"));
    assert_eq!(got.header("vary"), "origin");
    // Also a refusal can be read by the page.
    let denied = open.send_bare("GET /v1/status", &ask[..1], "").await;
    assert_eq!(
        (denied.status, denied.header("access-control-allow-origin")),
        (StatusCode::UNAUTHORIZED, ask[0].split_at(8).1)
    );
    let other = open.send_bare("OPTIONS /v1/status", &["origin: https://evil.example", ask[1]], "").await;
    assert_eq!((other.status, other.header("access-control-allow-origin")), (StatusCode::UNAUTHORIZED, ""));
}

#[tokio::test]
async fn the_description_is_shown_without_a_token_and_without_other_servers() {
    let world = world();
    let root = world.send_bare("GET /", &[], "").await;
    assert_eq!((root.status, root.header("location")), (StatusCode::TEMPORARY_REDIRECT, "/docs"));
    let page = world.send_bare("GET /docs", &[], "").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    for path in openapi::document()["paths"].as_object().unwrap().keys() {
        assert!(text.contains(path.as_str()), "{path}");
    }
    assert_eq!(text.matches("</script").count(), 2, "nothing in the description ends its element");
    assert!(
        !text.contains("src=\"") && !text.contains("@import") && !text.contains("url("),
        "all of it is in the page"
    );
}

#[tokio::test]
async fn durability_that_was_not_reached_is_no_failure() {
    let world = world();
    let answer = world.send("PUT /v1/collections/c/docs/a", &["folkmoot-durability: 3"], "{}").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.header("folkmoot-durability"), "3; replicas=1; needed=3");
    assert_eq!(answer.json()["durability"], json!({"requested": "3", "replicas": 1, "needed": 3}));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let world = world();
    world.send("PUT /v1/collections/c/docs/a", &[], "{}").await;
    let doc = "/v1/collections/c/docs/a";
    let large = vec![b' '; folkmoot_core::limits::JSON_BYTES_MAX + 1];
    let cases: Vec<(String, Vec<&str>, Bytes, u16, &str)> = vec![
        ("GET /nowhere".into(), vec![], "".into(), 404, "route_not_found"),
        ("GET /v1/collections/c/docs/a/more/x".into(), vec![], "".into(), 404, "route_not_found"),
        ("OPTIONS /v1/status".into(), vec![], "".into(), 405, "method_not_allowed"),
        ("GET /v1/collections/C/docs/a".into(), vec![], "".into(), 400, "invalid_collection"),
        ("GET /v1/collections/%FF/docs/a".into(), vec![], "".into(), 400, "invalid_collection"),
        ("GET /v1/collections/c/docs/%00".into(), vec![], "".into(), 400, "invalid_id"),
        ("GET /v1/collections/c/docs/%FF".into(), vec![], "".into(), 400, "invalid_id"),
        ("GET /v1/collections/none/docs".into(), vec![], "".into(), 404, "collection_not_found"),
        ("GET /v1/collections/none/export".into(), vec![], "".into(), 404, "collection_not_found"),
        (format!("GET {doc}?x=1"), vec![], "".into(), 400, "invalid_parameter"),
        (format!("GET {doc}?meta=perhaps"), vec![], "".into(), 400, "invalid_parameter"),
        ("GET /v1/collections/c/docs?limit=0".into(), vec![], "".into(), 400, "invalid_parameter"),
        ("GET /v1/collections/c/docs?after=zzz".into(), vec![], "".into(), 400, "invalid_cursor"),
        ("GET /v1/changes?since=zzz".into(), vec![], "".into(), 400, "invalid_cursor"),
        ("GET /v1/changes?feed=sse&since=zzz".into(), vec![], "".into(), 400, "invalid_cursor"),
        ("GET /v1/changes?feed=fast".into(), vec![], "".into(), 400, "invalid_parameter"),
        (format!("GET {doc}"), vec!["folkmoot-session: a b"], "".into(), 400, "invalid_session"),
        (format!("GET {doc}"), vec!["folkmoot-timeout: 5"], "".into(), 400, "invalid_header"),
        (format!("PUT {doc}"), vec!["folkmoot-timeout: 1h"], "{}".into(), 400, "invalid_header"),
        (format!("PUT {doc}"), vec!["folkmoot-durability: region:2"], "{}".into(), 400, "invalid_durability"),
        (format!("PUT {doc}"), vec!["idempotency-key: "], "{}".into(), 400, "invalid_idempotency_key"),
        (format!("PUT {doc}"), vec!["if-match: abc"], "{}".into(), 400, "invalid_heads"),
        (format!("PUT {doc}"), vec!["if-match: \"abc\""], "{}".into(), 400, "invalid_heads"),
        (format!("PUT {doc}"), vec!["if-match: *", "if-none-match: *"], "{}".into(), 400, "invalid_header"),
        (format!("PUT {doc}"), vec!["if-match: *", "if-match: *"], "{}".into(), 400, "invalid_header"),
        (format!("PUT {doc}"), vec!["content-type: text/plain"], "{}".into(), 415, "unsupported_media_type"),
        (format!("PATCH {doc}"), vec!["content-type: application/json"], "{}".into(), 415, "unsupported_media_type"),
        (format!("PUT {doc}"), vec![], "{".into(), 400, "invalid_json"),
        (format!("PUT {doc}"), vec![], large.into(), 413, "body_too_large"),
        ("PUT /v1/collections/c".into(), vec![], r#"{"shard":1}"#.into(), 400, "invalid_json"),
        ("PATCH /v1/peers/x".into(), vec![], r#"{"link":"blocked"}"#.into(), 400, "invalid_parameter"),
        ("POST /v1/invites".into(), vec![], r#"{"expires":"soon"}"#.into(), 400, "invalid_request"),
        ("POST /v1/invites".into(), vec![], r#"{"uses":0}"#.into(), 400, "invalid_request"),
        ("POST /v1/collections/c/bulk".into(), vec!["if-match: *"], "".into(), 400, "invalid_header"),
        ("POST /v1/collections/c/bulk?atomic=true".into(), vec![], "x\n".into(), 400, "invalid_json"),
    ];
    for (line, headers, body, status, code) in cases {
        let answer = world.send(&line, &headers, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{line} {headers:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{line}");
        assert!(answer.json()["type"].as_str().unwrap().ends_with(code));
    }
}

#[tokio::test]
async fn every_error_of_the_database_is_answered_with_its_code() {
    let world = world();
    for code in ErrorCode::ALL {
        *world.database.0.broken.lock().unwrap() = Some(Error::new(*code, "told").hint("do").pointer("/p"));
        let answer = world.send("GET /v1/collections/c/docs/a", &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (code.http_status(), code.as_str()));
        assert_eq!(answer.json()["hint"], "do");
        assert_eq!(answer.json()["pointer"], "/p");
    }
}

#[tokio::test]
async fn bulk_answers_line_for_line() {
    let world = world();
    let body = "{\"op\":\"put\",\"id\":\"a\",\"doc\":{\"x\":1}}\r\n\n{\"op\":\"create\",\"id\":\"a\",\"doc\":{}}\nrubbish\n\
        {\"op\":\"delete\",\"id\":\"zz\"}\n{\"op\":\"patch\",\"id\":\"a\",\"patch\":{\"y\":2}}";
    let answer = world.send("POST /v1/collections/c/bulk", &["content-type: application/x-ndjson"], body).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/x-ndjson"));
    let lines: Vec<serde_json::Value> = answer
        .body
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let told: Vec<(u64, String)> = lines
        .iter()
        .map(|line| {
            let what = line["ok"]["status"].as_str().or(line["error"]["code"].as_str()).unwrap();
            (line["line"].as_u64().unwrap(), what.to_owned())
        })
        .collect();
    let expected =
        [(1, "created"), (3, "already_exists"), (4, "invalid_json"), (5, "document_not_found"), (6, "updated")];
    assert_eq!(told, expected.map(|(n, s)| (n, s.to_owned())));
    let atomic =
        world.send("POST /v1/collections/c/bulk?atomic=true", &[], "{\"op\":\"delete\",\"id\":\"zz\"}\n").await;
    assert_eq!((atomic.status.as_u16(), atomic.code().as_str()), (422, "atomic_failed"));
    let many = "{\"op\":\"put\",\"id\":\"a\",\"doc\":{}}\n".repeat(257);
    assert_eq!(world.send("POST /v1/collections/c/bulk?atomic=true", &[], many.clone()).await.code(), "body_too_large");
    let answer = world.send("POST /v1/collections/c/bulk", &[], many.repeat(3)).await;
    assert_eq!(answer.body.iter().filter(|b| **b == b'\n').count(), 257 * 3);
}

#[tokio::test]
async fn lists_pages_and_exports_hold_the_same_documents() {
    let world = world();
    for id in ["a", "b", "b2", "c"] {
        world.send(&format!("PUT /v1/collections/c/docs/{id}"), &[], "{\n\"x\":\n1}").await;
    }
    let page = world.send("GET /v1/collections/c/docs?limit=3", &[], "").await.json();
    let next = page["next"].as_str().unwrap();
    let rest = world.send(&format!("GET /v1/collections/c/docs?after={next}"), &[], "").await.json();
    assert_eq!((page["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len()), (3, 1));
    assert_eq!((&rest["next"], &rest["items"][0]["doc"]), (&json!(null), &json!({"x": 1})));
    let prefixed = world.send("GET /v1/collections/c/docs?prefix=b", &[], "").await.json();
    assert_eq!(prefixed["items"].as_array().unwrap().len(), 2);
    let export = world.send("GET /v1/collections/c/export", &[], "").await;
    let lines: Vec<serde_json::Value> = export
        .body
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(lines.iter().map(|l| l["id"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "b2", "c"]);
}

#[tokio::test(start_paused = true)]
async fn the_feed_waits_and_goes_on_where_it_was() {
    let world = world();
    world.send("PUT /v1/collections/c/docs/a", &[], "{}").await;
    let page = world.send("GET /v1/changes", &[], "").await.json();
    assert_eq!((page["items"][0]["id"].as_str(), page["next"].as_str()), (Some("a"), Some("1")));
    let (waited, _) = tokio::join!(
        world.send("GET /v1/collections/c/changes?feed=longpoll&since=1&wait=10s", &[], ""),
        world.send("PUT /v1/collections/c/docs/b", &[], "{}")
    );
    assert_eq!(waited.json()["items"][0]["id"], "b");
    let empty = world.send("GET /v1/changes?feed=longpoll&since=now&wait=10s", &[], "").await.json();
    assert_eq!((&empty["items"], &empty["next"], &empty["more"]), (&json!([]), &json!("2"), &json!(false)));
    let (stream, ()) = tokio::join!(world.send("GET /v1/changes?feed=sse&since=0", &["last-event-id: 1"], ""), async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.send("PUT /v1/collections/c/docs/c", &[], "{}").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.down.send(true).unwrap();
    });
    let text = String::from_utf8(stream.body.to_vec()).unwrap();
    assert_eq!(stream.header("content-type"), "text/event-stream");
    assert!(
        text.contains("id: 2\nevent: change\ndata: {") && text.contains("id: 3\n") && !text.contains("id: 1\n"),
        "{text}"
    );
    assert!(text.contains(": alive\n\n"), "{text}");
}

#[tokio::test]
async fn collections_are_configured() {
    let world = world();
    let put = world.send("PUT /v1/collections/c", &[], r#"{"shards":4,"types":{"/t":"text"}}"#).await.json();
    assert_eq!((&put["shards"], &put["types"]), (&json!(4), &json!({"/t": "text"})));
    let patch = r#"{"types":{"/n":"counter","/t":null}}"#;
    let patched =
        world.send("PATCH /v1/collections/c", &["content-type: application/merge-patch+json"], patch).await.json();
    assert_eq!((&patched["shards"], &patched["types"]), (&json!(4), &json!({"/n": "counter"})));
    let bad = world.send("PATCH /v1/collections/c", &["content-type: application/json"], r#"{"types":3}"#).await;
    assert_eq!(bad.code(), "invalid_settings");
    assert_eq!(world.send("GET /v1/collections", &[], "").await.json()["items"][0]["name"], "c");
    assert_eq!(world.send("DELETE /v1/collections/c", &[], "").await.status, 204);
    assert_eq!(world.send("GET /v1/collections/c", &[], "").await.code(), "collection_not_found");
}

/// Every described operation answers, and every operation that answers is described.
#[tokio::test]
async fn the_description_and_the_routes_are_the_same() {
    let world = world();
    let description = openapi::document();
    assert_eq!(description["openapi"], "3.1.0");
    let key = "1".repeat(64);
    let paths = description["paths"].as_object().unwrap();
    for (template, operations) in paths {
        let path = template.replace("{collection}", "c").replace("{id}", "a").replace("{node}", &key);
        let asked = world.send(&format!("OPTIONS {path}"), &[], "").await;
        assert_eq!(asked.code(), "method_not_allowed", "{template}");
        let allowed: BTreeSet<String> =
            asked.header("allow").split(", ").map(str::to_lowercase).filter(|m| m != "head").collect();
        let described: BTreeSet<String> = operations.as_object().unwrap().keys().cloned().collect();
        assert_eq!(allowed, described, "{template}");
    }
    // The router's own templates, read from its source: a route that nobody described is found here.
    let source = include_str!("../routes.rs");
    let routed: BTreeSet<&str> =
        source.split('"').filter(|text| text.starts_with('/') && !text.contains('\n')).collect();
    assert_eq!(routed, paths.keys().map(String::as_str).collect());
}

#[tokio::test]
async fn the_short_way_to_a_document_answers_as_the_route_does() {
    let world = world();
    for id in ["a", "a%2Fb", "%C3%A9", "docs"] {
        let line = format!("PUT /v1/collections/c/docs/{id}");
        assert_eq!(world.send(&line, &["content-type: application/json"], "{}").await.status, StatusCode::CREATED);
    }
    let context = world.front.context();
    let routes = super::super::routes::all(context);
    let mut short_ways = 0;
    for path in [
        "/v1/collections/c/docs/a",
        "/v1/collections/c/docs/a?meta=true",
        "/v1/collections/c/docs/a?meta=perhaps",
        "/v1/collections/c/docs/a?",
        "/v1/collections/c/docs/a?what=1",
        "/v1/collections/c/docs/a%2Fb",
        "/v1/collections/c/docs/%C3%A9",
        "/v1/collections/c/docs/%FF",
        "/v1/collections/c/docs/docs",
        "/v1/collections/c/docs/none",
        "/v1/collections/none/docs/a",
        "/v1/collections/_c/docs/a",
        "/v1/collections/c/docs/a/",
        "/v1/collections/c/docs/a/conflicts",
        "/v1/collections/c/docs/",
        "/v1/collections/c/docs",
        "/v1/collections//docs/a",
        "/v1/collections/c",
        "/v1/collections/c/export",
        "/V1/collections/c/docs/a",
    ] {
        let other = format!("\"{}\"", "0".repeat(64));
        let door = || Door(Entered { database: context.database.clone(), principal: None });
        let request = || Request::builder().uri(path).header("if-none-match", &other).extension(door());
        let request = || request().body(Full::<Bytes>::default());
        let taken = super::super::routes::read_of_document(context, request().unwrap());
        let ControlFlow::Break(short) = taken else { continue };
        short_ways += 1;
        let short = short.await;
        let long = warp::service(routes.clone()).call(request().unwrap()).await.unwrap();
        assert_eq!((short.status(), short.headers()), (long.status(), long.headers()), "{path}");
        let body = async |response: warp::reply::Response| response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body(short).await, body(long).await, "{path}");
    }
    assert_eq!(short_ways, 12, "each path of a document and no other");
}
