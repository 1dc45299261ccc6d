//! The shell: at a terminal, and with lines from a pipe.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use folkmoot_tests::processes::{DEADLINE, Node, printed, program, until, without_settings};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};

use super::access::{told, user};

/// Ctrl-C, Ctrl-D, the arrow that goes up, and Enter, as a terminal sends them.
const INTERRUPT: &str = "\u{3}";
const END: &str = "\u{4}";
const UP: &str = "\u{1b}[A";
const ENTER: &str = "\r";

/// The program at a terminal of its own: `script` makes one.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<String>>,
    /// How much of that was looked at.
    at: usize,
}

impl Terminal {
    fn open(node: &Node, state: &Path, arguments: &str) -> Self {
        // The program takes the place of the shell that `script` starts, which Ctrl-C would end.
        let line = format!("exec {} --data {} shell {arguments}", program().display(), node.data().display());
        let mut command = std::process::Command::new("script");
        without_settings(&mut command).args(["-q", "-e", "-c", &line, "/dev/null"]);
        command.env("XDG_STATE_HOME", state).env("TERM", "xterm");
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().expect("`script` runs");
        let (keys, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let seen = Arc::new(Mutex::new(String::new()));
        let all = seen.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer).await {
                all.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { child, keys, seen, at: 0 }
    }

    async fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).await.unwrap();
        self.keys.flush().await.unwrap();
    }

    /// Waits until something is shown, behind what was waited for before.
    async fn shows(&mut self, wanted: &str) {
        let (seen, at) = (self.seen.clone(), self.at);
        let what = format!("{wanted:?} is shown");
        let end = until(&what, async || {
            let seen = seen.lock().unwrap();
            seen[at..].find(wanted).map(|place| at + place + wanted.len()).ok_or_else(|| format!("{:?}", &seen[at..]))
        });
        self.at = end.await;
    }

    /// Presses keys when the prompt is there.
    async fn enter(&mut self, prompt: &str, line: &str) {
        self.shows(prompt).await;
        self.press(line).await;
        self.press(ENTER).await;
    }

    async fn ends(mut self) -> Option<i32> {
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("the shell ends").unwrap().code()
    }
}

async fn with_cities(folder: &Path) -> Node {
    let node = Node::found(folder, "a").await;
    node.put("cities", "alpha", json!({"name": "Alpha", "people": 7})).await;
    node.put("cities", "beta one", json!({"name": "Beta"})).await;
    node
}

fn history(state: &Path) -> PathBuf {
    state.join("folkmoot").join("shell_history")
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_lines_are_completed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let node = with_cities(folder.path()).await;
    let state = folder.path().join("state");
    let mut terminal = Terminal::open(&node, &state, "");
    terminal.shows("Ctrl-D ends").await;

    // Commands, names of collections and ids of documents are completed; an id with a blank is quoted.
    terminal.shows("folkmoot> ").await;
    terminal.press("whoa\t").await;
    terminal.shows("whoami ").await;
    terminal.press(ENTER).await;
    terminal.shows("owner").await;
    terminal.shows("folkmoot> ").await;
    terminal.press("use ci\t").await;
    terminal.shows("cities ").await;
    terminal.press(ENTER).await;
    terminal.shows("cities> ").await;
    terminal.press("get al\t").await;
    terminal.shows("alpha ").await;
    terminal.press(ENTER).await;
    terminal.shows("\"people\": 7").await;
    terminal.shows("cities> ").await;
    terminal.press("get bet\t").await;
    terminal.shows("'beta one'").await;
    terminal.press(ENTER).await;
    terminal.shows("\"name\": \"Beta\"").await;

    // What is wrong ends the line only.
    terminal.enter("cities> ", "gett alpha").await;
    terminal.shows("similar subcommand").await;
    terminal.enter("cities> ", "get nobody").await;
    terminal.shows("error:").await;

    // A quote goes on in the next line.
    terminal.enter("cities> ", "put gamma '{\"name\":").await;
    terminal.press("\"Gamma\"}'").await;
    terminal.press(ENTER).await;
    terminal.shows("created gamma").await;

    // What may be a secret is not kept, and Ctrl-C throws away what was typed.
    terminal.enter("cities> ", "put delta '{\"password\": \"hunter2\"}'").await;
    terminal.shows("created delta").await;
    terminal.shows("cities> ").await;
    terminal.press("delete alpha").await;
    terminal.shows("alpha").await;
    terminal.press(INTERRUPT).await;

    // Ctrl-C stops a command that runs, not the shell.
    terminal.enter("cities> ", "watch '{\"people\": 7}'").await;
    terminal.shows("+ alpha").await;
    terminal.press(INTERRUPT).await;
    terminal.shows("stopped").await;
    terminal.enter("cities> ", "count").await;
    terminal.shows("4\r\n").await;
    terminal.shows("cities> ").await;
    terminal.press(END).await;
    assert_eq!(terminal.ends().await, Some(0));
    assert!(node.get("cities", "alpha").await.is_ok());

    let kept = std::fs::read_to_string(history(&state)).unwrap();
    assert!(kept.contains("get alpha") && kept.contains("count"), "{kept}");
    assert!(!kept.contains("hunter2") && !kept.contains("password"), "{kept}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&history(&state)), 0o600);
        assert_eq!(mode(history(&state).parent().unwrap()), 0o700);
    }

    // The next shell has what was typed.
    let mut terminal = Terminal::open(&node, &state, "");
    terminal.shows("folkmoot> ").await;
    terminal.press(UP).await;
    terminal.shows("count").await;
    terminal.press(" cities").await;
    terminal.press(ENTER).await;
    terminal.shows("4\r\n").await;
    terminal.enter("folkmoot> ", "exit").await;
    assert_eq!(terminal.ends().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_nothing_is_written_and_a_node_that_is_gone_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = with_cities(folder.path()).await;
    let state = folder.path().join("state");
    let mut terminal = Terminal::open(&node, &state, "--no-history");
    terminal.enter("folkmoot> ", "use cities").await;
    terminal.shows("cities> ").await;
    node.kill();
    // Completion gives up, and so does the command; the shell does not.
    terminal.press("get alph\t").await;
    terminal.press("a").await;
    terminal.press(ENTER).await;
    terminal.shows("error:").await;
    terminal.shows("cities> ").await;
    terminal.press(END).await;
    assert_eq!(terminal.ends().await, Some(0));
    assert!(!history(&state).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_ends_at_the_first_line_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let node = with_cities(folder.path()).await;
    let lines = "# it's a comment\n\nuse cities\nput c '{\"n\":\n 1}'\nget nobody\nput d {}\n";
    let output = node.cli(&["shell"], lines).await;
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let said = printed(&output);
    assert!(said.contains("created c") && said.contains("line 6 failed"), "{said}");
    assert_eq!(node.get("cities", "c").await.unwrap(), json!({"n": 1}));
    assert!(node.get("cities", "d").await.is_err());

    let output = node.cli(&["shell", "--keep-going"], &format!("{lines}gte x\n")).await;
    assert_eq!(output.status.code(), Some(1), "that of the first: {}", printed(&output));
    assert!(node.get("cities", "d").await.is_ok());

    // The last line needs no end, and its exit code is that of the command.
    let output = node.cli(&["shell"], "put cities c --if-match 00 {}").await;
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let output = node.cli(&["shell", "--json"], "get cities alpha\nexit\nget cities nobody\n").await;
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), r#"{"name":"Alpha","people":7}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_do_not_read_the_lines_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let node = with_cities(folder.path()).await;
    for line in ["put cities x", "import cities -", "collections set cities --schema -"] {
        let output = node.cli(&["shell"], &format!("{line}\n{{\"id\": \"y\"}}\n")).await;
        assert_eq!(output.status.code(), Some(2), "{line}: {}", printed(&output));
        assert!(printed(&output).contains("standard input is not read"), "{line}: {}", printed(&output));
    }
    for line in ["serve", "get cities alpha --url http://127.0.0.1:1", "shell"] {
        assert_eq!(node.cli(&["shell"], line).await.status.code(), Some(2), "{line}");
    }
    assert_eq!(node.all("cities").await.unwrap().len(), 2);
    let help = node.cli(&["shell"], "help\nhelp get\n").await;
    assert_eq!(help.status.code(), Some(0));
    let help = printed(&help);
    assert!(help.contains("use") && help.contains("watch") && help.contains("--meta"), "{help}");
    assert!(!help.contains("Found a cluster"), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collection_that_was_meant_is_named_to_those_who_may_see_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = with_cities(folder.path()).await;
    node.put("notes", "a", json!({})).await;
    for line in [&["get", "citeis", "alpha"][..], &["collections", "show", "citys"], &["count", "citis"]] {
        let output = node.cli(line, "").await;
        assert!(printed(&output).contains("did you mean cities?"), "{line:?}: {}", printed(&output));
    }
    // Where the collection is there, it was the document that is not; nor is anything meant by what is far away.
    for line in [["get", "cities", "nobody"], ["get", "towns", "alpha"]] {
        assert!(!printed(&node.cli(&line, "").await).contains("did you mean"), "{line:?}");
    }
    user(&node, &node, "ann", &[&["reader", "--on", "notes"]]).await;
    let token = told(&node, &["token", "issue", "ann"]).await["token"].as_str().unwrap().to_owned();
    let file = folder.path().join("token");
    std::fs::write(&file, token).unwrap();
    let as_ann = ["--token-file", file.to_str().unwrap()];
    let output = node.cli(&[&as_ann[..], &["get", "citeis", "alpha"]].concat(), "").await;
    assert!(!printed(&output).contains("cities"), "{}", printed(&output));
    let output = node.cli(&[&as_ann[..], &["get", "noets", "a"]].concat(), "").await;
    assert!(!output.status.success() && !printed(&output).contains("cities"), "{}", printed(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = folkmoot_tests::processes::run(["completions", shell], "").await;
        let script = printed(&output);
        assert!(output.status.success() && script.contains("automerge") && script.contains("keep-going"), "{shell}");
    }
    // Options and commands that nearly exist are named.
    for (line, meant) in [(["gett", "a", "b"], "'get'"), (["get", "--mete", "b"], "'--meta'")] {
        let output = folkmoot_tests::processes::run(line, "").await;
        assert!(printed(&output).contains(meant), "{}", printed(&output));
    }
}
