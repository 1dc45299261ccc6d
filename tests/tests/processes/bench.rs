//! `folkmoot bench` from the outside: every workload runs, every figure is there, nothing stays behind.

use std::process::{Command, Output};

use folkmoot_tests::processes::{program, without_settings};
use serde_json::Value;

fn bench(arguments: &[&str], temporary: &std::path::Path) -> Output {
    let mut command = Command::new(program());
    without_settings(&mut command).env("TMPDIR", temporary).arg("bench").args(arguments).output().unwrap()
}

/// Every figure that a run has.
const FIGURES: [&str; 19] = [
    "workload",
    "nodes",
    "connections",
    "rate_asked",
    "seconds",
    "operations",
    "errors",
    "first_error",
    "late",
    "per_second",
    "latency_us",
    "visible_us",
    "cpu_us_per_operation",
    "client_cpu_us_per_operation",
    "resident_bytes_max",
    "disk",
    "disk_bytes_per_document",
    "disk_per_json",
    "moved",
];

#[test]
fn every_workload_gives_every_figure() {
    let temporary = tempfile::tempdir().unwrap();
    let tiny = ["--json", "--duration", "400ms", "--warm-up", "50ms", "--documents", "60", "--connections", "3"];
    let output = bench(&[&tiny[..], &["--rate", "50", "--subscribers", "12"]].concat(), temporary.path());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}\n{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = report["results"].as_array().unwrap().iter().map(|run| run["workload"].clone()).collect();
    let wanted = [
        "create",
        "read",
        "update",
        "mixed",
        "bare",
        "replicate",
        "catch-up",
        "bootstrap",
        "heal",
        "feed",
        "subscribers",
    ];
    assert_eq!(names, wanted);

    for run in report["results"].as_array().unwrap() {
        let name = run["workload"].as_str().unwrap();
        for figure in FIGURES {
            assert!(run.get(figure).is_some(), "{name} has no {figure}");
        }
        assert!(run["operations"].as_u64().unwrap() > 0 && run["errors"] == 0, "{run}");
        assert!(run["per_second"].as_f64().unwrap() > 0.0 && run["resident_bytes_max"].as_u64().unwrap() > 0, "{run}");
        let between = matches!(name, "replicate" | "catch-up" | "bootstrap" | "heal");
        assert_eq!(run["latency_us"].is_null(), between, "{run}");
        assert_eq!(run["visible_us"].is_null(), !["feed", "subscribers"].contains(&name), "{run}");
        assert_eq!(run["moved"].is_null(), !between, "{run}");
        assert_eq!(run["disk"].is_null(), name == "bare", "{run}");
        if between {
            assert_eq!(run["moved"]["lost"], 0, "{run}");
            assert_eq!(run["moved"]["documents"], if name == "heal" { 120 } else { 60 }, "{run}");
            assert_eq!(run["moved"]["reconnect_ms"].is_null(), name == "replicate", "{run}");
        } else {
            assert_eq!(run["rate_asked"], 50, "{run}");
            let latency = &run["latency_us"];
            let at = |name: &str| latency[name].as_u64().unwrap();
            assert!(at("p50") <= at("p90") && at("p90") <= at("p99") && at("p999") <= at("max"), "{run}");
        }
    }
    for figure in ["append_fdatasync_per_second", "ed25519_verify_per_second"] {
        for when in ["calibration_before", "calibration_after"] {
            assert!(report[when][figure].as_f64().unwrap() > 0.0, "{when} {figure}");
        }
    }
    assert!(report["ratios"]["read_rate_to_bare"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["failed"], false);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "folders stayed behind");
}

#[test]
fn people_get_a_table_and_the_median_of_rounds() {
    let temporary = tempfile::tempdir().unwrap();
    let output = bench(
        &["create", "--rounds", "3", "--duration", "100ms", "--warm-up", "10ms", "--connections", "2"],
        temporary.path(),
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().filter(|line| line.trim_start().starts_with("create")).count(), 1, "{text}");
    assert!(text.contains("fdatasync") && text.contains("CPU/OP") && text.contains(" µs"), "{text}");
}

#[test]
fn a_node_that_is_not_there_is_no_figure() {
    let temporary = tempfile::tempdir().unwrap();
    let output = bench(&["read", "--url", "http://127.0.0.1:9", "--json"], temporary.path());
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let output = bench(&["heal", "--url", "http://127.0.0.1:9"], temporary.path());
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
