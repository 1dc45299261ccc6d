//! Examples of requests and answers. They are a story, in `examples.json`: calls to nodes of one cluster, in order, each with the answer that
//! came. `tests/tests/processes/examples.rs` tells it to real nodes and holds the answers against it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Operation;

/// A call and what came of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Example {
    /// `METHOD TEMPLATE`.
    pub(super) call: String,
    /// What it shows.
    pub(super) shows: String,
    /// Parameters by name.
    #[serde(default)]
    pub(super) with: BTreeMap<String, Value>,
    /// The content type of what is sent.
    #[serde(default, rename = "type")]
    pub(super) sent_as: Option<String>,
    /// What is sent.
    #[serde(default)]
    pub(super) send: Option<Value>,
    /// The status of the answer.
    pub(super) status: u16,
    /// Its content type.
    #[serde(default)]
    pub(super) answer_type: Option<String>,
    /// What it holds.
    #[serde(default)]
    pub(super) answer: Option<Value>,
    /// What later calls name of the answer: pointers by names, which stand there as `${name}`.
    #[serde(default)]
    pub(super) keep: BTreeMap<String, String>,
    /// Which node is asked, if not the first.
    #[serde(default, rename = "at")]
    _at: Option<String>,
    /// Whether the answer holds more than is shown.
    #[serde(default, rename = "excerpt")]
    _excerpt: bool,
    /// Why no node is asked.
    #[serde(default, rename = "untold")]
    _untold: Option<String>,
}

/// The story, with what calls name of the answers before them.
pub(super) static STORY: LazyLock<Vec<Example>> = LazyLock::new(|| {
    // A file of the program itself, which a test reads.
    let mut story: Vec<Example> = serde_json::from_str(include_str!("examples.json")).unwrap_or_default();
    let mut kept: Vec<(String, String)> = Vec::new();
    for example in &mut story {
        example.with.values_mut().chain(&mut example.send).for_each(|value| fill(value, &kept));
        for (name, pointer) in &example.keep {
            let value = example.answer.as_ref().and_then(|answer| answer.pointer(pointer)?.as_str());
            kept.extend(value.map(|value| (format!("${{{name}}}"), value.to_owned())));
        }
    }
    story
});

/// Puts what was kept in the place of its name.
fn fill(value: &mut Value, kept: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (name, value) in kept {
                if text.contains(name.as_str()) {
                    *text = text.replace(name.as_str(), value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, kept)),
        Value::Object(members) => members.values_mut().for_each(|member| fill(member, kept)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Adds to an operation the examples that the story has of it.
pub(super) fn complete(operation: &mut Operation<'_>) {
    let call = format!("{} {}", operation.method.to_uppercase(), operation.path);
    let value = &mut *operation.value;
    for example in STORY.iter().filter(|example| example.call == call) {
        for parameter in value.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            let given = parameter["name"].as_str().and_then(|name| example.with.get(name));
            if let (Some(given), None) = (given, parameter.get("example")) {
                parameter["example"] = given.clone();
            }
        }
        let name = name(&example.shows);
        if let (Some(sent_as), Some(send)) = (&example.sent_as, &example.send) {
            value["requestBody"]["content"][sent_as]["examples"][&name] =
                json!({ "summary": example.shows, "value": send });
        }
        if let (Some(answer_type), Some(answer)) = (&example.answer_type, &example.answer) {
            value["responses"][example.status.to_string()]["content"][answer_type]["examples"][&name] =
                json!({ "summary": example.shows, "value": answer });
        }
    }
}

/// A name for an example, of the letters that names may have.
fn name(shows: &str) -> String {
    let letters = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    shows.chars().map(letters).collect()
}
