//! What is wrong with a request is told by a status and a stable code, and the node goes on.

use folkmoot::api::Database as _;
use folkmoot_tests::processes::Node;
use serde_json::{Value, json};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const MERGE: &[(&str, &str)] = &[("content-type", "application/merge-patch+json")];
const STEPS: &[(&str, &str)] = &[("content-type", "application/json-patch+json")];
const EDITS: &[(&str, &str)] = &[("content-type", "application/vnd.folkmoot.edit+json")];

/// A request and the answer that it must get.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

/// Whether the description of the API has the code among the answers of that status to such a request.
fn is_described(description: &Value, method: &str, path: &str, status: u16, code: &str) -> bool {
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let (named, given): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
        named.len() == given.len()
            && named.iter().zip(given).all(|(named, given)| named.starts_with('{') || *named == given)
    };
    let paths = description["paths"].as_object().unwrap().iter();
    // A path that is written out comes before one with a name in it.
    let (_, methods) =
        paths.filter(|(template, _)| fits(template)).min_by_key(|(template, _)| template.matches('{').count()).unwrap();
    let answer = &methods[method.to_lowercase()]["responses"][status.to_string()];
    let codes = &answer["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"];
    codes.as_array().is_some_and(|codes| codes.iter().any(|known| known == code))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_request_gets_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    node.put("notes", "one", json!({"n": 1, "list": [1]})).await;
    let one = "/v1/collections/notes/docs/one";
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    let deep = nested(64);
    let very_deep = nested(100_000);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20)).into_bytes();
    let too_large = format!("{{\"a\":\"{}\"}}", "x".repeat(6 << 20)).into_bytes();
    let long_id = format!("/v1/collections/notes/docs/{}", "x".repeat(257));
    let long_name = format!("/v1/collections/{}/docs/one", "x".repeat(65));
    let long_key = "k".repeat(129);
    let cases: &[Case] = &[
        // Documents.
        ("PUT", one, JSON, b"", 400, "invalid_json"),
        ("PUT", one, JSON, b"{\"a\":", 400, "invalid_json"),
        ("PUT", one, JSON, b"{\"a\":1}{}", 400, "invalid_json"),
        ("PUT", one, JSON, b"{\"a\":1,\"a\":2}", 400, "invalid_json"),
        ("PUT", one, JSON, b"{\"a\":\"\xff\"}", 400, "invalid_json"),
        ("PUT", one, JSON, b"{\"a\":\"\\ud800\"}", 400, "invalid_json"),
        ("PUT", one, JSON, b"{\"a\":NaN}", 400, "invalid_json"),
        ("PUT", one, JSON, b"{\"a\":1e999}", 400, "invalid_json"),
        ("PUT", one, JSON, b"[1]", 400, "invalid_json"),
        ("PUT", one, JSON, b"null", 400, "invalid_json"),
        ("PUT", one, JSON, &deep, 422, "invalid_document"),
        ("PUT", one, JSON, &very_deep, 422, "invalid_document"),
        ("PUT", one, JSON, &large, 413, "document_too_large"),
        ("PUT", one, JSON, &too_large, 413, "body_too_large"),
        ("PUT", one, &[("content-type", "text/plain")], b"{}", 415, "unsupported_media_type"),
        // Names.
        ("PUT", "/v1/collections/notes/docs/a%00b", JSON, b"{}", 400, "invalid_id"),
        ("PUT", "/v1/collections/notes/docs/%ff", JSON, b"{}", 400, "invalid_id"),
        ("PUT", &long_id, JSON, b"{}", 400, "invalid_id"),
        ("PUT", "/v1/collections/No%20tes/docs/one", JSON, b"{}", 400, "invalid_collection"),
        ("PUT", "/v1/collections/..%2f..%2fetc/docs/one", JSON, b"{}", 400, "invalid_collection"),
        ("PUT", &long_name, JSON, b"{}", 400, "invalid_collection"),
        ("GET", "/v1/collections/absent/docs/one", &[], b"", 404, "document_not_found"),
        ("GET", "/v1/collections/notes/docs/absent", &[], b"", 404, "document_not_found"),
        ("GET", "/v1/collections/absent", &[], b"", 404, "collection_not_found"),
        ("DELETE", "/v1/collections/notes/docs/absent", &[], b"", 404, "document_not_found"),
        ("GET", "/v2/nothing", &[], b"", 404, "route_not_found"),
        ("POST", one, JSON, b"{}", 405, "method_not_allowed"),
        // Patches.
        ("PATCH", one, JSON, b"{}", 415, "unsupported_media_type"),
        ("PATCH", one, MERGE, b"[1]", 400, "invalid_patch"),
        ("PATCH", one, MERGE, b"{", 400, "invalid_patch"),
        ("PATCH", "/v1/collections/notes/docs/absent", MERGE, b"{\"a\":1}", 404, "document_not_found"),
        ("PATCH", one, STEPS, b"{}", 400, "invalid_patch"),
        ("PATCH", one, STEPS, br#"[{"op":"fly","path":"/n"}]"#, 400, "invalid_patch"),
        ("PATCH", one, STEPS, br#"[{"op":"add","path":"n","value":1}]"#, 400, "invalid_patch"),
        ("PATCH", one, STEPS, br#"[{"op":"test","path":"/n","value":2}]"#, 422, "patch_failed"),
        ("PATCH", one, STEPS, br#"[{"op":"remove","path":"/absent"}]"#, 422, "patch_failed"),
        ("PATCH", one, STEPS, br#"[{"op":"add","path":"/list/9","value":2}]"#, 422, "patch_failed"),
        ("PATCH", one, EDITS, br#"{"ops":[{"op":"fly","path":"/n"}]}"#, 400, "invalid_patch"),
        ("PATCH", one, EDITS, br#"{"ops":[{"op":"increment","path":"/list"}]}"#, 422, "patch_failed"),
        ("PATCH", one, EDITS, br#"{"ops":[{"op":"splice","path":"/n","index":0}]}"#, 422, "patch_failed"),
        // Headers and parameters.
        ("PUT", one, &[("if-match", "\"zz\"")], b"{}", 400, "invalid_heads"),
        ("PUT", one, &[("folkmoot-base", "zz")], b"{}", 400, "invalid_heads"),
        ("PUT", one, &[("if-none-match", "*")], b"{}", 412, "precondition_failed"),
        ("PUT", one, &[("idempotency-key", "a b")], b"{}", 400, "invalid_idempotency_key"),
        ("PUT", one, &[("idempotency-key", &long_key)], b"{}", 400, "invalid_idempotency_key"),
        ("PUT", one, &[("folkmoot-durability", "everywhere")], b"{}", 400, "invalid_durability"),
        ("PUT", one, &[("folkmoot-timeout", "soon")], b"{}", 400, "invalid_header"),
        ("GET", one, &[("folkmoot-session", "never made")], b"", 400, "invalid_session"),
        ("GET", one, &[("folkmoot-session", "s1.AAAA")], b"", 400, "invalid_session"),
        ("PUT", one, &[("folkmoot-session", "s9.")], b"{}", 400, "invalid_session"),
        ("GET", "/v1/session?collection=A", &[], b"", 400, "invalid_collection"),
        ("GET", "/v1/session?since=now", &[], b"", 400, "invalid_parameter"),
        ("GET", "/v1/collections/notes/docs?limit=many", &[], b"", 400, "invalid_parameter"),
        ("GET", "/v1/collections/notes/docs?colour=red", &[], b"", 400, "invalid_parameter"),
        ("GET", "/v1/collections/notes/docs?after=%21", &[], b"", 400, "invalid_cursor"),
        ("GET", "/v1/changes?since=yesterday", &[], b"", 400, "invalid_cursor"),
        ("PATCH", "/v1/peers/nobody", JSON, br#"{"link":"blocked"}"#, 400, "invalid_parameter"),
        ("POST", "/v1/invites", JSON, br#"{"uses":0}"#, 400, "invalid_request"),
        ("PUT", "/v1/collections/other", JSON, br#"{"shards":0}"#, 422, "invalid_settings"),
        ("PUT", "/v1/collections/other", JSON, br#"{"types":{"body":"text"}}"#, 422, "invalid_settings"),
        ("PUT", "/v1/collections/_control", JSON, b"{}", 403, "not_allowed"),
        ("PUT", "/v1/collections/_control/docs/one", JSON, b"{}", 403, "not_allowed"),
    ];
    let before = node.client().status().await.unwrap().ops;
    let description = node.http("GET", "/v1/openapi.json", &[], b"").await.json;
    let mut wrong = Vec::new();
    for (method, path, headers, body, status, code) in cases {
        let answer = node.http(method, path, headers, body).await;
        let elsewhere = ["route_not_found", "method_not_allowed"];
        if !elsewhere.contains(code) && !is_described(&description, method, path, *status, code) {
            wrong.push(format!("{method} {}: {status} {code} is not described", &path[..path.len().min(60)]));
        }
        let short = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let path = &path[..path.len().min(60)];
        if (answer.status, answer.json["code"].as_str()) != (*status, Some(*code)) {
            wrong.push(format!("{method} {path} {short}: {} {}, not {status} {code}", answer.status, answer.json));
        } else if !answer.head.contains("application/problem+json")
            || answer.json["status"] != *status
            || ["type", "title", "detail"].iter().any(|member| !answer.json[member].is_string())
        {
            wrong.push(format!("{method} {path} {short}: no problem document: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    for headers in [&[][..], &[("authorization", "Bearer fm_wrong")], &[("authorization", "Basic eDp5")]] {
        let answer = node.http_as_stranger("GET", one, headers, b"").await;
        assert_eq!((answer.status, answer.json["code"].as_str()), (401, Some("unauthenticated")), "{answer:?}");
    }

    assert_eq!(node.client().status().await.unwrap().ops, before, "nothing of all that was written");
    assert_eq!(node.get("notes", "one").await.unwrap(), json!({"n": 1, "list": [1]}));
    assert_eq!(node.http("PUT", one, JSON, b"{}").await.status, 200);
    assert!(!node.log().contains("panicked"));
    node.assert_sound().await;
}
