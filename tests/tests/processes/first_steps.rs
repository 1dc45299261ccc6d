//! What a new user does, and what goes wrong for one.

use std::process::Stdio;

use folkmoot::api::Database as _;
use folkmoot_tests::processes::{DEADLINE, Node, converged, example, name, printed, program, run, until};
use serde_json::{Value, json};

fn cities() -> String {
    folkmoot_tests::repository().join("examples/data/cities.ndjson.gz").to_str().unwrap().to_owned()
}

/// The problem document that a command printed.
fn problem(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stderr).unwrap_or_else(|error| panic!("{error}: {}", printed(output)))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_their_codes_and_tell_programs_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::found(folder.path(), "a").await;
    let written = node.cli(&["--json", "put", "notes", "one", r#"{"n":1}"#], "").await;
    let written: Value = serde_json::from_slice(&written.stdout).unwrap();
    let old = written["heads"].as_str().unwrap();
    node.put("notes", "one", json!({"n": 2})).await;
    let url = node.url().to_owned();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["get", "notes", "absent"], 1, "document_not_found"),
        (&["put", "notes", "one", "{"], 1, "invalid_json"),
        (&["put", "notes", "one", "{}", "--if-match", old], 5, "precondition_failed"),
        (&["create", "notes", "{}", "--id", "one"], 5, "already_exists"),
        (&["--url", "http://127.0.0.1:1", "status"], 3, "unreachable"),
        (&["--url", "nonsense", "status"], 2, "invalid_parameter"),
        (&["--token-file", "/nowhere", "status"], 4, "unauthenticated"),
        (&["--ca", "/nowhere", "status"], 2, "invalid_parameter"),
        (&["get", "No Notes", "one"], 2, "invalid_parameter"),
        (&["frobnicate"], 2, "invalid_parameter"),
        (&["collections", "drop", "notes"], 2, "invalid_parameter"),
        (&["import", "notes", "/nowhere.ndjson"], 1, "invalid_request"),
        (&["export", "absent"], 1, "collection_not_found"),
        (&["list", "absent"], 1, "collection_not_found"),
        (&["join", "nonsense"], 2, "invalid_parameter"),
    ];
    for (arguments, code, expected) in cases {
        let output = node.cli(&[&["--json"], *arguments].concat(), "").await;
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {}", printed(&output));
        let problem = problem(&output);
        assert_eq!(problem["code"], *expected, "{arguments:?}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{arguments:?}");
        // The same for people: no JSON, and no panic.
        let output = node.cli(arguments, "").await;
        let said = printed(&output);
        assert!(said.starts_with("error: ") && !said.contains("panicked"), "{arguments:?}: {said}");
    }
    let wrong = folder.path().join("wrong.token");
    std::fs::write(&wrong, "fm_wrong").unwrap();
    let denied = run(["--json", "--url", &url, "--token-file", wrong.to_str().unwrap(), "status"], "").await;
    assert_eq!((denied.status.code(), problem(&denied)["code"].as_str()), (Some(4), Some("unauthenticated")));
    node.stop().await;
    let status = node.cli(&["--json", "status"], "").await;
    assert_eq!((status.status.code(), problem(&status)["code"].as_str()), (Some(3), Some("unreachable")));
    // Without a node the directory itself is checked.
    let verify = node.cli(&["--json", "verify"], "").await;
    assert_eq!(verify.status.code(), Some(0), "{}", printed(&verify));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_node_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    let data = node.data().to_str().unwrap().to_owned();
    let second = run(["serve", "--listen", "127.0.0.1:0", "--p2p-listen", "127.0.0.1:0", "--data", &data], "").await;
    assert_eq!(second.status.code(), Some(1), "{}", printed(&second));
    assert!(printed(&second).contains("in use by another process"), "{}", printed(&second));
    // The first one is found as before, and goes on.
    let status = node.cli(&["--json", "status"], "").await;
    assert!(status.status.success(), "{}", printed(&status));
    let again = run(["init", "--data", &data], "").await;
    assert_eq!(again.status.code(), Some(2), "{}", printed(&again));
    node.put("notes", "one", json!({})).await;
    node.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_interrupted_is_simply_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::found(folder.path(), "a").await;
    let mut command = tokio::process::Command::new(program());
    command.args(["import", "cities", &cities(), "--data"]).arg(node.data());
    let mut import = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    until("some cities are there", async || {
        let info = node.client().collection(&name("cities")).await.map_err(|error| error.to_string())?;
        if info.documents > Some(0) { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    let interrupt = format!("kill -INT {}", import.id().unwrap());
    std::process::Command::new("sh").args(["-c", &interrupt]).status().unwrap();
    import.wait().await.unwrap();
    // The documents have their ids in a member `id`: nothing needs to be said about that.
    let again = node.cli(&["--json", "import", "cities", &cities()], "").await;
    assert!(again.status.success(), "{}", printed(&again));
    let counts: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(counts["created"].as_u64().unwrap() + counts["unchanged"].as_u64().unwrap(), 6_204, "{counts}");
    assert!(counts["unchanged"].as_u64().unwrap() > 0 && counts["failed"] == 0, "{counts}");
    assert_eq!(node.get("cities", "2643743").await.unwrap()["name"], "London");

    // Who reads only the beginning has had enough; that is no failure.
    let list = format!("{} list cities --limit 6000 --data {}", program().display(), node.data().display());
    let mut shell = tokio::process::Command::new("bash");
    let piped = shell.args(["-c", &format!("{list} | head -1; exit ${{PIPESTATUS[0]}}")]).output().await.unwrap();
    assert!(piped.status.success() && piped.stderr.is_empty(), "{}", printed(&piped));

    // What was exported comes back the same.
    let file = folder.path().join("cities.ndjson");
    let exported = node.cli(&["export", "cities", file.to_str().unwrap()], "").await;
    assert!(exported.status.success(), "{}", printed(&exported));
    let back = node.cli(&["--json", "import", "copy", file.to_str().unwrap()], "").await;
    let counts: Value = serde_json::from_slice(&back.stdout).unwrap();
    assert_eq!(counts["created"], 6_204, "{counts}");
    assert_eq!(node.get("copy", "2643743").await.unwrap(), node.get("cities", "2643743").await.unwrap());
    let status = node.stop().await;
    assert_eq!(status.code(), Some(0), "a node that is told to stop has done nothing wrong");
    assert!(!node.data().join("endpoints.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_keeps_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    // Made by somebody before, for everybody to look into.
    let data = folder.path().join("a");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    a.put("notes", "one", json!({})).await;
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        for entry in std::fs::read_dir(node.data()).unwrap() {
            let entry = entry.unwrap();
            let open = entry.metadata().unwrap().permissions().mode() & 0o077 != 0;
            assert_eq!(open, entry.file_name() == "endpoints.json", "{entry:?}");
        }
    }
}

/// The example of the README of the examples: an app with a node of its own, which syncs with a server.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_embeds_a_node_and_syncs_with_a_server() {
    use tokio::io::AsyncBufReadExt as _;
    let folder = tempfile::tempdir().unwrap();
    let server = Node::found(folder.path(), "server").await;
    let mut command = tokio::process::Command::new(example("embedded"));
    command.arg(folder.path().join("app")).arg(server.ticket(&[]).await).stdout(Stdio::piped()).kill_on_drop(true);
    let mut app = command.spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(app.stdout.take().unwrap()).lines();
    until("what the app wrote is on the server", async || match server.get("tasks", "milk").await {
        Ok(task) if task == json!({"title": "Buy milk", "done": true}) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    server.put("tasks", "tea", json!({"title": "Make tea", "done": false})).await;
    server.put("tasks", "odd", json!({"form": "other"})).await;
    server.client().delete(&name("tasks"), "milk".parse().unwrap(), &Default::default()).await.unwrap();
    let mut seen = Vec::new();
    let wanted = ["tea is Task { title: \"Make tea\", done: false } (1 peers connected)", "odd: ", "milk is deleted"];
    while !wanted.iter().all(|wanted| seen.iter().any(|line: &String| line.contains(wanted))) {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("nothing new after {seen:#?}")).unwrap();
        seen.push(line.unwrap_or_else(|| panic!("the app ended after {seen:#?}")));
    }
    assert!(seen.iter().any(|line| line.starts_with("joined cluster")), "{seen:#?}");
}
