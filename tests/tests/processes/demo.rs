//! `folkmoot demo` from the outside: its processes, its report, its exit code and what it leaves behind.

use std::process::{Command, Output};

use folkmoot_tests::processes::program;
use serde_json::{Value, json};

fn demo(arguments: &[&str], temporary: &std::path::Path) -> Output {
    let mut command = Command::new(program());
    // What stands in the environment of the user must not reach the nodes.
    command.env("FOLKMOOT_DATA", "/nowhere").env("TMPDIR", temporary);
    command.arg("demo").args(arguments).output().unwrap()
}

#[test]
fn a_cluster_that_was_cut_in_two_converges_and_loses_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&["--documents", "300", "--json"], temporary.path());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}\n{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["passed"], &report["digests_equal"]), (&json!(true), &json!(true)));
    assert_eq!((&report["imported"], &report["exit_code"]), (&json!(300), &json!(0)));

    let nodes = report["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 4);
    for node in nodes {
        assert_eq!(node["verify"]["damage_total"], 0);
        assert!(node["verify"]["ops"].as_u64().unwrap() > 0);
        assert_eq!(node["digests"], nodes[0]["digests"], "{}", node["name"]);
        assert!(node["digests"].as_array().unwrap().iter().any(|digest| digest["collection"] == "cities"));
    }

    let merged = |name: &str| {
        let cases = report["cases"].as_array().unwrap();
        let case = cases.iter().find(|case| case["case"] == name).unwrap_or_else(|| panic!("no case {name}"));
        assert_eq!(case["faults"], json!([]), "{name}");
        assert_ne!(case["left"], case["right"], "{name}");
        case["merged"].clone()
    };
    assert_eq!(merged("different_fields"), json!({ "mayor": "Emilie Lieberherr", "elevation": 408 }));
    assert_eq!(merged("text"), json!({ "note": "Kyoto is a quiet city in Japan, once its capital." }));
    assert_eq!(merged("counter"), json!({ "visits": 142 }));
    assert_eq!(merged("delete_and_edit"), json!({ "population": 1_082_575, "airport": "OSL" }));
    assert_eq!(merged("delete_alone"), Value::Null);
    let motto = merged("same_field")["motto"].clone();
    let mottos = [json!("Green city in the sun"), json!("Place of cool waters")];
    assert!(mottos.contains(&motto), "{motto}");

    let conflicts = &report["conflicts"];
    let nairobi = conflicts["listed"].as_array().unwrap().iter().find(|listed| listed["name"] == "Nairobi").unwrap();
    let values = nairobi["conflicts"][0]["values"].as_array().unwrap();
    assert_eq!((values.len(), &values[0]["value"]), (2, &motto));
    // The same documents were edited at random on both sides, so there are more.
    assert!(report["edited_on_both_sides"].as_u64().unwrap() > 0);
    assert!(conflicts["documents"].as_u64().unwrap() > 1, "{conflicts}");
    for name in ["import_ms", "replication_ms", "reconnect_ms", "convergence_ms"] {
        assert!(report["timings"][name].is_u64(), "{name}");
    }

    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "folders stayed behind");
}

#[test]
fn what_a_demo_keeps_is_kept_and_plain_when_piped() {
    let temporary = tempfile::tempdir().unwrap();
    let kept = temporary.path().join("kept");
    let arguments = ["--nodes", "2", "--documents", "20", "--edits", "30", "--seed", "1", "--keep"];
    let mut arguments = arguments.to_vec();
    arguments.push(kept.to_str().unwrap());
    let output = demo(&arguments, temporary.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains('\x1b') && !text.contains('✗'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    for name in ["node-1", "node-1.log", "node-2", "node-2.log"] {
        assert!(kept.join(name).exists(), "{name}");
    }
    // A folder that holds something is not used again.
    let again = demo(&arguments, temporary.path());
    assert_eq!(again.status.code(), Some(1), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(kept.join("node-1").exists());
}
