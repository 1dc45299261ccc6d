//! What parameters may be, as far as their types do not say it.

use serde_json::{Value, json};

use super::Operation;

const COLLECTION: &str = "^[a-z0-9_][a-z0-9_.-]{0,63}$";
const HASH: &str = "^[0-9a-f]{64}$";
const DURATION: &str = "^[0-9]{1,3}(ms|s|m)$";
const ENTITY_TAGS: &str = r#"^(\*|(W/)?"[0-9a-f]{64}(\.[0-9a-f]{64})*")$"#;
/// Documents of a page: the bound that a description names.
const UP_TO: &str = "up to ";

/// Returns what a parameter may be, if more is known than its type.
fn schema(path: &str, name: &str, description: &str) -> Option<Value> {
    let pattern = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let one_of = |names: &[&str]| json!({ "type": "string", "enum": names });
    Some(match name {
        "collection" => pattern(COLLECTION),
        "id" if path.contains("/docs/{id}") => {
            json!({ "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" })
        }
        "id" if path.contains("/statements/") => pattern(HASH),
        "op" | "act" | "key" => pattern(HASH),
        "node" if path.contains("/peers/") => pattern(HASH),
        "after" if path == "/v1/erasures" => pattern(HASH),
        "limit" => {
            let max = description
                .split_once(UP_TO)
                .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok());
            json!({ "type": "integer", "minimum": 1, "maximum": max? })
        }
        "transaction" => json!({ "type": "integer", "minimum": 0, "maximum": u16::MAX }),
        "wait" | "Folkmoot-Timeout" => pattern(DURATION),
        "Folkmoot-Durability" => pattern("^(local|majority|all|[1-9][0-9]{0,3})$"),
        "Idempotency-Key" => pattern("^[!-~]{1,100}$"),
        "If-Match" | "If-None-Match" | "Folkmoot-Base" => pattern(ENTITY_TAGS),
        "Prefer" => one_of(&["return=minimal", "return=representation"]),
        "feed" => one_of(&["normal", "longpoll", "sse"]),
        "purpose" => one_of(&["look", "export"]),
        "class" => one_of(&["auth", "admin", "write", "read", "system"]),
        "decision" => one_of(&["allowed", "denied", "failed"]),
        "layer" => one_of(&["log", "ops"]),
        "format" => one_of(&["jsonl", "ocsf", "cef", "syslog"]),
        "since" | "until" if !path.ends_with("/changes") => json!({ "type": "string", "format": "date-time" }),
        _ => return None,
    })
}

/// Says of each parameter what it may be. One that need not be given is left out, never null.
pub(super) fn complete(operation: &mut Operation<'_>) {
    let path = operation.path;
    for parameter in operation.value.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        one(path, parameter);
    }
}

/// Says of a parameter what it may be.
pub(super) fn one(path: &str, parameter: &mut Value) {
    let Some(name) = parameter["name"].as_str() else { return };
    let description = parameter["description"].as_str().unwrap_or_default();
    if let Some(schema) = schema(path, name, description) {
        parameter["schema"] = schema;
    } else if let Some([one]) = parameter["schema"]["type"]
        .as_array()
        .map(|types| types.iter().filter(|name| **name != "null").cloned().collect::<Vec<_>>())
        .as_deref()
    {
        parameter["schema"]["type"] = one.clone();
    }
}
