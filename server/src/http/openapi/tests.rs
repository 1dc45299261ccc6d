//! The description is complete, and its examples are what it says.

use std::collections::BTreeSet;

use folkmoot::ErrorCode;
use folkmoot::wire::PROBLEM_JSON;
use serde_json::{Value, json};

use super::examples::STORY;
use super::*;

/// Every operation, by `METHOD TEMPLATE`.
fn operations() -> Vec<(String, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap();
        methods.iter().map(move |(method, value)| (format!("{} {path}", method.to_uppercase()), value))
    });
    all.collect()
}

/// Follows a reference.
fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(place) => document().pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("{place}")),
        None => value,
    }
}

/// What is no JSON is not held against a schema.
fn is_json(content_type: &str) -> bool {
    content_type == "application/json" || content_type.ends_with("+json")
}

/// Says what is wrong with a value.
fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut whole = schema.clone();
    whole["components"] = document()["components"].clone();
    let validator = jsonschema::draft202012::new(&whole).unwrap_or_else(|error| panic!("{schema}: {error}"));
    validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path())).collect()
}

#[test]
fn every_operation_is_described_and_shows_examples() {
    assert!(STORY.len() > 80, "{}", STORY.len());
    let mut lacking = Vec::new();
    let names: BTreeSet<&str> =
        operations().iter().map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations().len(), "each has a name of its own");
    let mut lacks = |call: &str, what: String| lacking.push(format!("{call}: {what}"));
    for (call, operation) in operations() {
        for what in ["summary", "tags", "operationId"] {
            if operation[what].as_str().is_some_and(str::is_empty) || operation[what].is_null() {
                lacks(&call, format!("no {what}"));
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = resolved(parameter);
            if parameter["description"].as_str().is_none_or(str::is_empty) || !parameter["schema"].is_object() {
                lacks(&call, format!("parameter {}", parameter["name"]));
            }
            if parameter["in"] == "path" && parameter["example"].is_null() {
                lacks(&call, format!("no example of {}", parameter["name"]));
            }
        }
        for (content_type, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            if content["examples"].as_object().is_none_or(|examples| examples.is_empty()) {
                lacks(&call, format!("no example of {content_type}"));
            }
        }
        let responses = operation["responses"].as_object().unwrap();
        if responses.values().any(|response| response["description"].as_str().is_none_or(str::is_empty)) {
            lacks(&call, "an answer without a description".to_owned());
        }
        let good = responses.iter().filter(|(status, _)| status.starts_with(['1', '2']));
        let shown = good.clone().any(|(_, response)| {
            let contents = response["content"].as_object().into_iter().flatten();
            contents.filter(|(name, _)| *name != PROBLEM_JSON).any(|(_, content)| content["examples"].is_object())
        });
        let without_body = good.clone().all(|(_, response)| {
            let mut contents = response["content"].as_object().into_iter().flatten();
            contents.all(|(name, _)| name == PROBLEM_JSON)
        });
        if !shown && !without_body {
            lacks(&call, "no example of an answer".to_owned());
        }
    }
    assert!(lacking.is_empty(), "{lacking:#?}");
}

/// Each code that an answer may have has its status, and every code is somewhere.
#[test]
fn the_codes_of_errors_stand_at_their_statuses() {
    let mut seen = BTreeSet::new();
    for (call, operation) in operations() {
        let open = operation["security"].is_array();
        let responses = operation["responses"].as_object().unwrap();
        assert_eq!(open, !responses.contains_key("401"), "{call}");
        for (status, response) in responses {
            let problem = &response["content"][PROBLEM_JSON];
            let bad = status.starts_with(['4', '5']);
            if problem.is_null() {
                assert!(!bad || status == "503" && call == "GET /health/ready", "{call}: {status}");
                continue;
            }
            let codes = problem["schema"]["properties"]["code"]["enum"].as_array().unwrap();
            assert!(!codes.is_empty(), "{call}: {status}");
            for code in codes {
                let code = ErrorCode::from_code(code.as_str().unwrap()).unwrap();
                assert_eq!(code.http_status().to_string(), *status, "{call}");
                assert!(
                    resolved(&problem["examples"][code.as_str()])["value"]["code"] == code.as_str(),
                    "{call}: {code}"
                );
                seen.insert(code);
            }
        }
    }
    // These come of the way to a node, of a path that there is not, or of commands on data directories.
    let elsewhere = [
        ErrorCode::RouteNotFound,
        ErrorCode::MethodNotAllowed,
        ErrorCode::Diverged,
        ErrorCode::Locked,
        ErrorCode::Unreachable,
        ErrorCode::InvalidAnswer,
    ];
    let all: BTreeSet<ErrorCode> = ErrorCode::ALL.iter().copied().filter(|code| !elsewhere.contains(code)).collect();
    assert_eq!(seen, all);
}

/// What an example sends and what it is answered have the form that the description says.
#[test]
fn examples_have_the_form_that_is_described() {
    let operations = operations();
    for example in STORY.iter() {
        let what = format!("{}: {}", example.call, example.shows);
        let Some((_, operation)) = operations.iter().find(|(call, _)| *call == example.call) else {
            panic!("{what}: there is no such operation");
        };
        let text = serde_json::to_string(&(&example.with, &example.send)).unwrap();
        assert!(!text.contains("${"), "{what}: {text} names what was not kept");
        let parameters: Vec<&Value> =
            operation["parameters"].as_array().into_iter().flatten().map(|parameter| resolved(parameter)).collect();
        for (name, value) in &example.with {
            let parameter = parameters.iter().find(|parameter| parameter["name"] == **name);
            let schema = &parameter.unwrap_or_else(|| panic!("{what}: no parameter {name}"))["schema"];
            assert_eq!(faults(schema, value), Vec::<String>::new(), "{what}: {name}");
        }
        if let (Some(sent_as), Some(send)) = (&example.sent_as, &example.send) {
            let content = &operation["requestBody"]["content"][sent_as];
            assert!(content.is_object(), "{what}: nothing is sent as {sent_as}");
            // The schema of lines is that of each.
            let wrong = match send.as_str().filter(|_| !is_json(sent_as)) {
                Some(lines) if sent_as == folkmoot::wire::NDJSON => lines
                    .lines()
                    .flat_map(|line| faults(&content["schema"], &serde_json::from_str(line).unwrap()))
                    .collect(),
                Some(_) => Vec::new(),
                None => faults(&content["schema"], send),
            };
            // An example may show what is refused.
            assert!(wrong.is_empty() || example.status == 400, "{what}: {wrong:?}");
        }
        let response = &operation["responses"][example.status.to_string()];
        assert!(response.is_object(), "{what}: {} is not described", example.status);
        if let Some(answer_type) = &example.answer_type {
            let content = &response["content"][answer_type];
            assert!(content.is_object(), "{what}: {answer_type} is not described");
            let answer = example.answer.as_ref().unwrap_or_else(|| panic!("{what}: no answer"));
            if is_json(answer_type) {
                assert_eq!(faults(&content["schema"], answer), Vec::<String>::new(), "{what}");
            }
        }
    }
}

/// A schema that admits anything would hold nothing.
#[test]
fn a_wrong_example_is_found() {
    let (_, put) =
        operations().into_iter().find(|(call, _)| call == "PUT /v1/collections/{collection}/docs/{id}").unwrap();
    let schema = &put["responses"]["201"]["content"]["application/json"]["schema"];
    let told = faults(schema, &json!({ "id": 7 }));
    assert!(told.iter().any(|fault| fault.contains("heads")), "{told:?}");
}
