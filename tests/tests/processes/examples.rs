//! The examples of the API's description, told to real nodes: each call is made, and answered as the example says.
//!
//! `FOLKMOOT_EXAMPLES=write` puts what the nodes answer into the file. Ids, keys, tokens and times differ each time; everything else has to
//! be the same.

use std::collections::BTreeMap;

use folkmoot_tests::processes::{DEADLINE, HttpAnswer, Node, converged};
use folkmoot_tests::{read, repository};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

const FILE: &str = "server/src/http/openapi/examples.json";
/// Figures that come of the machine, of random bytes or of the time.
const FIGURES: &[&str] = &[
    "bodies",
    "bytes",
    "checkpoints",
    "cosignatures",
    "documents_per_second",
    "elapsed_ms",
    "entries",
    "evidence",
    "expired",
    "first",
    "hlc",
    "index",
    "keys",
    "last",
    "logical",
    "lost",
    "memory",
    "micros",
    "ops",
    "pins",
    "records",
    "rtt_ms",
    "score",
    "seconds",
    "seen",
    "seq",
    "signatures",
    "since_ms",
    "size",
    "store_bytes",
    "streams",
    "tree_size",
    "views",
    "documents",
    "ops_behind",
    "ops_ahead",
    "wall",
    "wall_ms",
];

/// What is there for a moment or not yet, as it happens.
const MOMENTARY: &[&str] = &["bootstraps", "in_sync", "index", "checkpoint"];

/// A text with what is made anew each time taken out.
fn kept_of(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let close = |word: &mut String, out: &mut String| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let is_time = word.len() >= 19 && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T';
        if is_time || word.len() >= 24 || (word.len() >= 16 && digits >= 2) {
            out.push('*');
        } else {
            // Ports, numbers of versions and of requests.
            out.extend(word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }));
        }
        word.clear();
    };
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '+' | '=' | '.' | '/') {
            word.push(c);
        } else {
            close(&mut word, &mut out);
            out.push(c);
        }
    }
    close(&mut word, &mut out);
    while out.contains("00") {
        out = out.replace("00", "0");
    }
    out
}

/// Elements by what they hold: many lists are sorted by ids or by hashes.
fn in_order(elements: &[Value]) -> Vec<&Value> {
    let mut elements: Vec<&Value> = elements.iter().collect();
    elements.sort_by_key(|element| kept_of(&element.to_string()));
    elements
}

/// Says where an answer is not what its example says.
fn differences(place: &str, example: &Value, answer: &Value, excerpt: bool, told: &mut Vec<String>) {
    match (example, answer) {
        (Value::Object(example), Value::Object(answer)) => {
            let lasts = |name: &&String| !MOMENTARY.contains(&name.as_str());
            for (name, member) in example.iter().filter(|(name, _)| lasts(name)) {
                let place = format!("{place}/{name}");
                match answer.get(name) {
                    // The number of a request, and when the node began.
                    Some(answered) if matches!(name.as_str(), "request_id" | "request") && answered.is_string() => {}
                    Some(answered) if FIGURES.contains(&name.as_str()) && member.is_number() => {
                        if !answered.is_number() {
                            told.push(format!("{place}: {answered} is no number"));
                        }
                    }
                    // The hashes of a proof are as many as there are records.
                    Some(answered) if name == "path" && answered.is_array() => {}
                    Some(answered) => differences(&place, member, answered, excerpt, told),
                    None => told.push(format!("{place} is missing")),
                }
            }
            if !excerpt {
                told.extend(
                    answer
                        .keys()
                        .filter(lasts)
                        .filter(|name| !example.contains_key(*name))
                        .map(|n| format!("{place}/{n} is new")),
                );
            }
        }
        (Value::Array(example), Value::Array(answer)) => {
            if example.len() != answer.len() {
                told.push(format!("{place} has {} elements, not {}", answer.len(), example.len()));
            }
            let (example, answer) = (in_order(example), in_order(answer));
            for (at, (example, answer)) in example.into_iter().zip(answer).enumerate() {
                differences(&format!("{place}/{at}"), example, answer, excerpt, told);
            }
        }
        (Value::String(example), Value::String(answer)) if kept_of(example) == kept_of(answer) => {}
        (example, answer) if example == answer => {}
        (example, answer) => told.push(format!("{place} is {answer}, not {example}")),
    }
}

/// The body of an answer as an example shows it.
fn shown(answer: &HttpAnswer, answer_type: &str) -> Value {
    if answer_type == "application/json" || answer_type.ends_with("+json") {
        return answer.json.clone();
    }
    let text = String::from_utf8(answer.body.clone()).unwrap();
    if answer.head.contains("transfer-encoding: chunked") { whole(&text).into() } else { text.into() }
}

/// Puts the chunks of an answer together (RFC 9112, 7.1).
fn whole(chunked: &str) -> String {
    let (mut text, mut rest) = (String::new(), chunked);
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        text.push_str(&behind[..size]);
        rest = &behind[size + 2..];
    }
    text
}

/// Text that is no JSON: lines of JSON are held against each other, others as texts.
fn lines(text: &str) -> Value {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line))).collect()
}

fn fill(value: &Value, kept: &BTreeMap<String, String>) -> Value {
    let mut text = value.to_string();
    for (name, value) in kept {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    serde_json::from_str(&text).unwrap()
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Makes the call of a step.
async fn call(
    node: &Node,
    step: &Value,
    places: &BTreeMap<String, String>,
    kept: &BTreeMap<String, String>,
) -> HttpAnswer {
    let (method, template) = step["call"].as_str().unwrap().split_once(' ').unwrap();
    let (mut path, mut query, mut headers) = (template.to_owned(), Vec::new(), Vec::new());
    let with = fill(&step["with"], kept);
    for (name, value) in with.as_object().into_iter().flatten() {
        let text = as_text(value);
        let encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
        match places[name].as_str() {
            "path" => path = path.replace(&format!("{{{name}}}"), &encoded),
            "query" => query.push(format!("{name}={encoded}")),
            _ => headers.push((name.clone(), text)),
        }
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let body = fill(&step["send"], kept);
    if let Some(sent_as) = step["type"].as_str() {
        headers.push(("content-type".to_owned(), sent_as.to_owned()));
    }
    let body = if body.is_null() { String::new() } else { as_text(&body) };
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    node.http(method, &path, &headers, body.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_description_are_what_nodes_answer() {
    let folder = tempfile::tempdir().unwrap();
    let first = Node::found(folder.path(), "first").await;
    let second = Node::join(folder.path(), "second", &first).await;
    converged(&[&first, &second]).await;
    let description = first.http("GET", "/v1/openapi.json", &[], b"").await.json;
    let writes = std::env::var("FOLKMOOT_EXAMPLES").is_ok_and(|what| what == "write");
    let mut story: Vec<Map<String, Value>> = serde_json::from_str(&read(FILE)).unwrap();
    let mut kept = BTreeMap::new();
    let mut wrong = Vec::new();
    for step in &mut story {
        let what = format!("{}: {}", step["call"].as_str().unwrap(), step["shows"].as_str().unwrap());
        if step.contains_key("untold") {
            continue;
        }
        let (method, template) = step["call"].as_str().unwrap().split_once(' ').unwrap();
        let parameters = &description["paths"][template][method.to_lowercase()]["parameters"];
        let places = parameters.as_array().into_iter().flatten().map(|parameter| {
            let parameter =
                parameter["$ref"].as_str().map_or(parameter, |place| description.pointer(&place[1..]).unwrap());
            (as_text(&parameter["name"]), as_text(&parameter["in"]))
        });
        let places: BTreeMap<String, String> = places.collect();
        let node = if step.get("at").is_some_and(|at| at == "second") { &second } else { &first };
        let value = Value::Object(step.clone());
        let excerpt = value["excerpt"] == true;
        // What is said on one node is known on the other a moment later, and an index is made in the background.
        let mut differs = Vec::new();
        let attempts = std::time::Instant::now();
        let answer = loop {
            let answer = call(node, &value, &places, &kept).await;
            differs.clear();
            let status = value["status"].as_u64().unwrap();
            if u64::from(answer.status) != status {
                differs.push(format!("{} {}, not {status}", answer.status, String::from_utf8_lossy(&answer.body)));
            } else if let Some(answer_type) = value["answer_type"].as_str() {
                if !answer.head.contains(&format!("content-type: {answer_type}")) {
                    differs.push(format!("is no {answer_type}: {}", answer.head));
                }
                let (example, got) = (&value["answer"], shown(&answer, answer_type));
                match (example, &got) {
                    _ if writes && !excerpt => {}
                    (Value::String(example), Value::String(got)) if excerpt => {
                        let missing = example.lines().filter(|line| !got.contains(line));
                        differs.extend(missing.map(|line| format!("{line} is missing")));
                    }
                    (Value::String(example), Value::String(got)) => {
                        differences("", &lines(example), &lines(got), excerpt, &mut differs);
                    }
                    _ => differences("", example, &got, excerpt, &mut differs),
                }
            }
            // Only what changes nothing is asked again.
            let again = method == "GET" && attempts.elapsed() < DEADLINE;
            if differs.is_empty() || !again {
                break answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        if !differs.is_empty() {
            wrong.push(format!("{what}: {differs:#?}"));
        }
        for (name, pointer) in value["keep"].as_object().into_iter().flatten() {
            let found = answer.json.pointer(pointer.as_str().unwrap()).and_then(Value::as_str);
            let found = found.unwrap_or_else(|| panic!("{what}: no {pointer} in {}", answer.json));
            kept.insert(name.clone(), found.to_owned());
        }
        if let (true, false, Some(answer_type)) = (writes, excerpt, value["answer_type"].as_str()) {
            step.insert("answer".to_owned(), shown(&answer, answer_type));
        }
    }
    if writes {
        std::fs::write(repository().join(FILE), serde_json::to_string_pretty(&story).unwrap() + "\n").unwrap();
    }
    assert!(
        wrong.is_empty(),
        "examples differ from what nodes answer; FOLKMOOT_EXAMPLES=write makes them anew:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn what_is_made_anew_is_no_difference_and_all_else_is() {
    let hash = |digit: &str| digit.repeat(64);
    let example = json!({ "id": hash("a1").as_str()[..64], "time": "2026-01-31T12:00:00.123Z", "n": 3, "bytes": 9, "on": ["127.0.0.1:80"] });
    let same = json!({ "id": hash("7f").as_str()[..64], "time": "2027-02-01T08:30:59.5Z", "n": 3, "bytes": 11, "on": ["127.0.0.1:7070"] });
    let told = |answer: &Value| {
        let mut told = Vec::new();
        differences("", &example, answer, false, &mut told);
        told
    };
    assert_eq!(told(&same), Vec::<String>::new());
    for (pointer, value) in [("/n", json!(4)), ("/id", json!("none")), ("/on", json!([])), ("/time", json!(null))] {
        let mut other = same.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert_eq!(told(&other).len(), 1, "{pointer}: {:?}", told(&other));
    }
}
