//! What an operation can answer beside what its handler names: it follows from where the operation lies and what it touches, so it is said
//! once here. Each answer that tells of an error lists the codes that it may have.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot::wire::{PROBLEM_JSON, Problem};
use folkmoot::{Error, ErrorCode};
use serde_json::{Map, Value, json};

use super::Operation;

/// Behind the door anything may be answered so.
const BEHIND_THE_DOOR: &[ErrorCode] = &[
    ErrorCode::Unauthenticated,
    ErrorCode::TooManyRequests,
    ErrorCode::PasswordsUnchecked,
    ErrorCode::Busy,
    ErrorCode::NotReady,
    ErrorCode::ShuttingDown,
    ErrorCode::Internal,
];
/// Whatever looks at the state of the cluster.
const OF_STATE: &[ErrorCode] = &[
    ErrorCode::InvalidHeader,
    ErrorCode::InvalidSession,
    ErrorCode::InvalidParameter,
    ErrorCode::NotAllowed,
    ErrorCode::SessionNotReached,
    ErrorCode::StoreFailed,
    ErrorCode::Damaged,
];
/// Whatever has a body.
const OF_BODIES: &[ErrorCode] = &[ErrorCode::InvalidRequest, ErrorCode::RequestTimeout, ErrorCode::BodyTooLarge];
/// Whatever is written to documents.
const OF_WRITES: &[ErrorCode] = &[
    ErrorCode::InvalidRequest,
    ErrorCode::InvalidDurability,
    ErrorCode::InvalidHeads,
    ErrorCode::InvalidIdempotencyKey,
    ErrorCode::DocumentNotFound,
    ErrorCode::CollectionDropped,
    ErrorCode::Erased,
    ErrorCode::PreconditionFailed,
    ErrorCode::DocumentTooLarge,
    ErrorCode::InvalidDocument,
    ErrorCode::InvalidSettings,
    ErrorCode::SchemaViolation,
    ErrorCode::UniqueViolation,
    ErrorCode::UnknownHeads,
    ErrorCode::IdempotencyMismatch,
    ErrorCode::LowSpace,
    ErrorCode::QuotaExceeded,
    ErrorCode::UnknownOutcome,
];
/// Whatever is said to the whole cluster by a signed act.
const OF_ACTS: &[ErrorCode] = &[
    ErrorCode::AwaitsApproval,
    ErrorCode::InvalidRequest,
    ErrorCode::StatementNotFound,
    ErrorCode::InvalidSettings,
    ErrorCode::LowSpace,
    ErrorCode::QuotaExceeded,
    ErrorCode::UnknownOutcome,
];
/// The paths of single documents write by these methods, and `…/restore` by its own.
const WRITES: &[(&str, &str)] = &[
    ("post", "/v1/collections/{collection}/docs"),
    ("put", "/v1/collections/{collection}/docs/{id}"),
    ("patch", "/v1/collections/{collection}/docs/{id}"),
    ("delete", "/v1/collections/{collection}/docs/{id}"),
    ("put", "/v1/collections/{collection}/docs/{id}/automerge"),
    ("post", "/v1/collections/{collection}/docs/{id}/restore"),
    ("post", "/v1/collections/{collection}/bulk"),
];
/// These sign nothing, though they are no reads.
const NO_ACTS: &[(&str, &str)] = &[
    ("post", "/v1/collections/{collection}/query"),
    ("post", "/v1/collections/{collection}/explain"),
    ("post", "/v1/collections/{collection}/aggregate"),
    ("post", "/v1/verify"),
    ("post", "/v1/audit/verify"),
    ("post", "/v1/keys"),
    ("patch", "/v1/peers/{node}"),
];

/// Nobody has to say who it is there.
fn is_open(operation: &Operation<'_>) -> bool {
    operation.value["security"].as_array().is_some_and(|all| all.iter().all(|one| *one == json!({})))
}

/// Whether it says in `Folkmoot-Session` what was seen, and waits for what a request shows there.
fn is_in_session(operation: &Operation<'_>) -> bool {
    let stateless = ["/v1/live", "/v1/openapi.json", "/metrics"];
    !is_open(operation) && !stateless.contains(&operation.path)
}

fn is_among(operation: &Operation<'_>, list: &[(&str, &str)]) -> bool {
    list.contains(&(operation.method, operation.path))
}

fn codes_in(text: &str) -> impl Iterator<Item = ErrorCode> + '_ {
    text.split(|c: char| !c.is_ascii_lowercase() && c != '_').filter_map(ErrorCode::from_code)
}

/// Returns what the handler names, by its status.
fn named(operation: &Operation<'_>) -> BTreeSet<ErrorCode> {
    let responses = operation.value["responses"].as_object().into_iter().flatten();
    let problems = responses.filter(|(_, response)| response["content"][PROBLEM_JSON].is_object());
    problems
        .flat_map(|(status, response)| {
            let codes = codes_in(response["description"].as_str().unwrap_or_default());
            codes.filter(|code| code.http_status().to_string() == *status).collect::<Vec<_>>()
        })
        .collect()
}

/// Returns all codes that the operation may answer with.
pub(super) fn codes(operation: &Operation<'_>) -> BTreeSet<ErrorCode> {
    let mut codes = named(operation);
    if is_open(operation) {
        return codes;
    }
    codes.extend(BEHIND_THE_DOOR);
    if operation.path == "/v1/live" || operation.path == "/v1/openapi.json" {
        return codes;
    }
    codes.extend(OF_STATE);
    if !crate::http::routes::UNLIMITED.contains(&operation.path) {
        codes.insert(ErrorCode::TooSlow);
    }
    let body = &operation.value["requestBody"];
    if body.is_object() {
        codes.extend(OF_BODIES);
        let types = body["content"].as_object().into_iter().flatten();
        if types.map(|(name, _)| name).any(|name| name.ends_with("json")) {
            codes.insert(ErrorCode::InvalidJson);
        }
    }
    if operation.path.contains("{collection}") {
        codes.insert(ErrorCode::InvalidCollection);
        if operation.path.contains("{id}") {
            codes.insert(ErrorCode::InvalidId);
        }
    }
    if is_among(operation, WRITES) {
        codes.extend(OF_WRITES);
        if !operation.path.contains("{id}") && !operation.path.ends_with("/bulk") {
            // There is no document yet that could not be found, or have been erased.
            for code in [ErrorCode::DocumentNotFound, ErrorCode::Erased, ErrorCode::UnknownHeads] {
                codes.remove(&code);
            }
        }
    } else if operation.method != "get" && !is_among(operation, NO_ACTS) {
        codes.extend(OF_ACTS);
    }
    codes
}

/// The example of an error of this code, as a node answers it.
fn example(code: ErrorCode) -> Value {
    let problem = Problem::from(&Error::new(code, code.title()).request_id("5f0c1a2b-17"));
    json!({ "summary": code.title(), "value": problem })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// What `codes` of one status look like.
fn problem(status: u16, codes: &BTreeSet<ErrorCode>) -> Value {
    let texts: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let examples: Map<String, Value> =
        texts.iter().map(|code| ((*code).to_owned(), reference("examples", code))).collect();
    json!({
        "schema": {
            "allOf": [reference("schemas", "Problem")],
            "properties": { "code": { "enum": texts }, "status": { "const": status } },
        },
        "examples": examples,
    })
}

/// Adds to an operation each error that it may answer, the headers of all answers, and the parameters that it shares with others.
pub(super) fn complete(operation: &mut Operation<'_>) {
    let codes = codes(operation);
    let mut by_status: BTreeMap<u16, BTreeSet<ErrorCode>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.http_status()).or_default().insert(code);
    }
    let responses = &mut operation.value["responses"];
    for (status, codes) in by_status {
        let response = &mut responses[status.to_string()];
        let told = response["description"].as_str().unwrap_or_default();
        let told_codes: BTreeSet<ErrorCode> = codes_in(told).collect();
        let more: Vec<&str> = codes.difference(&told_codes).map(|code| code.as_str()).collect();
        let more = more.join(", ");
        let description = match (told.is_empty(), more.is_empty()) {
            (true, _) => more,
            (false, true) => told.to_owned(),
            (false, false) => format!("{told}; also {more}"),
        };
        response["description"] = description.into();
        response["content"][PROBLEM_JSON] = problem(status, &codes);
    }
    headers(operation);
    parameters(operation);
}

/// The headers of answers, by which statuses have them.
fn headers(operation: &mut Operation<'_>) {
    let (session, writes) =
        (is_in_session(operation), is_among(operation, WRITES) && !operation.path.ends_with("/bulk"));
    let reads = (operation.method, operation.path) == ("get", "/v1/collections/{collection}/docs/{id}");
    let Some(responses) = operation.value["responses"].as_object_mut() else { return };
    for (status, response) in responses {
        let mut names = vec!["X-Request-Id"];
        let good = status.starts_with('2') || status == "304";
        if session && (good || ["404", "409", "410", "412"].contains(&status.as_str())) {
            names.push("Folkmoot-Session");
        }
        if good && (reads || writes) {
            names.extend(["ETag", "Last-Modified", "Folkmoot-Stale"]);
        }
        if good && writes {
            names.extend(["Folkmoot-Durability", "Preference-Applied", "Location"]);
        }
        if writes && (status == "409" || status == "412") {
            names.push("ETag");
        }
        let is_stream = response["content"]["text/event-stream"].is_object();
        if good && (is_stream || operation.path == "/docs" || operation.path.ends_with("/tokens")) {
            names.push("Cache-Control");
        }
        if operation.path == "/docs" {
            names.extend(["Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"]);
        }
        if good && operation.path == "/v1/audit" {
            names.push("Folkmoot-Next");
        }
        match status.as_str() {
            "401" => names.push("WWW-Authenticate"),
            "429" | "503" => names.push("Retry-After"),
            _ => {}
        }
        for name in names {
            response["headers"][name] = reference("headers", name);
        }
    }
}

/// The headers of requests that nearly all operations have.
fn parameters(operation: &mut Operation<'_>) {
    if !is_in_session(operation) {
        return;
    }
    if operation.value["parameters"].is_null() {
        operation.value["parameters"] = json!([]);
    }
    let Some(parameters) = operation.value.get_mut("parameters").and_then(Value::as_array_mut) else { return };
    for name in ["Folkmoot-Session", "Folkmoot-Timeout"] {
        if !parameters.iter().any(|parameter| parameter["name"] == name) {
            parameters.push(reference("parameters", name));
        }
    }
}

/// What is part of something larger admits the members of the whole: types that take no other members stand in for themselves only.
fn open_parts(schemas: &mut Value) {
    let closed: Map<String, Value> = schemas
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, schema)| schema["additionalProperties"] == false)
        .map(|(name, schema)| {
            let mut opened = schema.clone();
            opened.as_object_mut().map(|schema| schema.remove("additionalProperties"));
            (format!("#/components/schemas/{name}"), opened)
        })
        .collect();
    open_all(schemas, &closed);
}

fn open_all(value: &mut Value, closed: &Map<String, Value>) {
    match value {
        Value::Object(members) => {
            for part in members.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(opened) = part["$ref"].as_str().and_then(|place| closed.get(place)) {
                    *part = opened.clone();
                }
            }
            members.values_mut().for_each(|member| open_all(member, closed));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| open_all(item, closed)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What operations refer to.
pub(super) fn components(components: &mut Value) {
    open_parts(&mut components["schemas"]);
    for code in ErrorCode::ALL {
        components["examples"][code.as_str()] = example(*code);
    }
    let texts: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    components["schemas"]["Problem"]["properties"]["code"]["examples"] = texts.into();
    let headers = [
        ("X-Request-Id", "The id of the request in the node's log"),
        ("Folkmoot-Session", "What the answer has seen, to be shown to other nodes"),
        ("ETag", "The version of the document: its heads, in quotation marks"),
        ("Last-Modified", "When its latest change was made"),
        ("Folkmoot-Stale", "`true`: changes of the document are here and wait to be applied to it"),
        (
            "Folkmoot-Durability",
            "Where the write is durable: what was asked for, `replicas` that have it, and how many are `needed`",
        ),
        ("Preference-Applied", "What of `Prefer` was followed"),
        ("Location", "The address of the document that was made"),
        ("WWW-Authenticate", "How to say who one is, and why what was shown does not count"),
        ("Retry-After", "Seconds to wait before the same is asked again"),
        ("Cache-Control", "`no-store` of a secret, `no-cache` of what is other the next time"),
        ("Content-Security-Policy", "The page talks to this node only"),
        ("X-Content-Type-Options", "`nosniff`"),
        ("Referrer-Policy", "`no-referrer`"),
        ("Folkmoot-Next", "Where the list goes on: `after` of the next page"),
    ];
    for (name, description) in headers {
        components["headers"][name] = json!({ "description": description, "schema": { "type": "string" } });
    }
    let parameters = [
        ("Folkmoot-Session", "Answer from a state at least as new as what this token of an earlier answer has seen"),
        ("Folkmoot-Timeout", "How long to wait for that state, or for the durability of a write, up to 5m, as in 5s"),
    ];
    for (name, description) in parameters {
        let schema = json!({ "type": "string" });
        components["parameters"][name] =
            json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema });
    }
}
