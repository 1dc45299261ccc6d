//! Faults of the machine: power cuts, flipped bits, a disk that fails, lies or dawdles, clocks that jump, old and doubled
//! data directories; and how an operator gets a node out of each with `folkmoot verify`, `repair` and `rejoin`.
//!
//! A sample of each runs with all other tests. `tests/faults` runs the whole campaign and prints the figures of
//! docs/faults.md. Where the machine lacks the rights or the tools for a fault, the test says so and the rest runs.

mod bits;
mod clock;
mod copies;
mod fsync;
mod mend;
mod power;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use folkmoot::api::{Database as _, QuarantineQuery};
use folkmoot_tests::processes::{Node, printed, until};
use serde_json::{Value, json};

/// Whether the whole campaign is wanted.
pub fn is_full() -> bool {
    std::env::var("FOLKMOOT_FAULTS").is_ok_and(|value| value == "full")
}

/// So much of something in the campaign, or as a sample.
fn scaled(full: usize, sample: usize) -> usize {
    if is_full() { full } else { sample }
}

/// A figure of the campaign.
fn figure(what: &str, value: &Value) {
    println!("FIGURE {what}: {value}");
}

/// Says loudly that something cannot be tested here.
fn not_tested(what: &str, why: &str) {
    eprintln!("NOT TESTED: {what}: {why}");
}

/// Runs a command of the system.
fn sh(command: &str) -> Result<String, String> {
    let output = Command::new("sh").arg("-c").arg(command).output().map_err(|error| error.to_string())?;
    let text = printed(&output);
    if output.status.success() { Ok(text) } else { Err(format!("{command}: {}", text.trim())) }
}

/// Replaces a folder by a copy of another, holes in files included.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    sh(&format!("cp -a --sparse=always '{}' '{}'", from.display(), to.display())).unwrap();
}

/// The ids of the documents that a node holds.
async fn held(node: &Node) -> BTreeSet<String> {
    node.all("load").await.unwrap_or_default().into_iter().map(|(id, _, _)| id).collect()
}

/// Writes documents one after the other; each is acknowledged.
async fn fill(node: &Node, prefix: &str, count: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for n in 0..count {
        let doc = format!("{prefix}-{n:03}");
        node.put("load", &doc, json!({ "n": n, "text": format!("{doc} has some text ").repeat(12) })).await;
        ids.insert(doc);
    }
    ids
}

/// Waits until a node has written down where others are.
async fn knows_others(node: &Node) {
    let peers = node.data().join("peers.json");
    until("it is written down where peers are", async || {
        let text = std::fs::read_to_string(&peers).unwrap_or_default();
        if text.contains("address") { Ok(()) } else { Err(text) }
    })
    .await;
}

fn parsed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", printed(output)))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// No author used a number twice, and nothing was found wrong on the way.
async fn no_forks(node: &Node) {
    assert_eq!(node.client().quarantine(&QuarantineQuery::default()).await.unwrap().items, []);
    assert!(!node.log().contains("panicked"), "a fault of the machine is no reason to panic");
    assert!(!node.log().contains("forked its stream"));
}
