//! The documents that tell what to type: each command in their blocks is run as it stands there, and prints what stands below it.
//!
//! A block is fenced as `console`. A line that begins with `$ ` is a command, which lines that begin with `> ` go on; what follows is what it
//! prints. In that, `…` stands for what differs each time: within a line for some characters, alone in a line for any lines.
//! `FOLKMOOT_TUTORIAL=write` puts what is printed into the documents.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use folkmoot_tests::processes::{DEADLINE, free_port, program, without_settings};
use folkmoot_tests::{read, repository};

/// A command and what it prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    command: String,
    prints: Vec<String>,
    /// The lines of the document that `prints` is.
    lines: std::ops::Range<usize>,
}

/// The commands of a document.
fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (at, line) in document.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            steps.push(Step { command: command.to_owned(), prints: Vec::new(), lines: at + 1..at + 1 });
        } else if let (true, Some(step)) = (inside, steps.last_mut()) {
            match line.strip_prefix("> ").or((line == ">").then_some("")) {
                Some(more) if step.prints.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                    step.lines = at + 1..at + 1;
                }
                _ => {
                    step.prints.push(line.to_owned());
                    step.lines.end = at + 1;
                }
            }
        }
    }
    steps
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.' | '+' | '=')
}

/// Cuts what differs each time: ids, versions, times, secrets.
fn cut(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_of_word) {
        let (before, word) = rest.split_at(start);
        let end = word.find(|c| !is_of_word(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let is_time = word.len() >= 19 && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T';
        let keep = match word.len() {
            _ if is_time => 5,
            length if length >= 32 && digits >= 4 => 8,
            length => length,
        };
        out.push_str(before);
        out.push_str(&word[..keep]);
        out.push_str(if keep < word.len() { "…" } else { "" });
        rest = after;
    }
    out + rest
}

/// Whether a line is one of the document.
fn is_line(told: &str, printed: &str) -> bool {
    // What stands before the sign in a word is only an example of it.
    let mut parts = Vec::new();
    for (at, part) in told.split('…').enumerate() {
        let from = if at == 0 { 0 } else { part.find(|c| !is_of_word(c)).unwrap_or(part.len()) };
        parts.push(if at == 0 { part } else { &part[from..] });
    }
    let last = parts.len() - 1;
    let mut rest = printed;
    for (at, part) in parts.iter().enumerate() {
        let part = if at < last { part.trim_end_matches(is_of_word) } else { part };
        let found = match (at, at == last) {
            (0, true) => return rest == part,
            (0, false) => rest.starts_with(part).then_some(0),
            (_, true) => return rest.len() >= part.len() && rest.ends_with(part),
            (_, false) => rest.find(part),
        };
        let Some(found) = found else { return false };
        rest = &rest[found + part.len()..];
    }
    true
}

/// Whether lines are those of the document.
fn are_lines(told: &[String], printed: &[String]) -> bool {
    match told.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=printed.len()).any(|skip| are_lines(rest, &printed[skip..]))
        }
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, more)| is_line(first, line) && are_lines(rest, more))
        }
    }
}

/// A shell that keeps its variables and what it has started.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

/// What stands behind the output of a command.
const END: &str = "---- ended with";

impl Shell {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = program().parent().unwrap().to_owned();
        without_settings(&mut command).args(["--noprofile", "--norc"]).current_dir(folder);
        command.env("PATH", format!("{}:{path}", programs.display())).env("HOME", folder).env("NO_COLOR", "1");
        command.env("LC_ALL", "C.UTF-8").env("COLUMNS", "120");
        // A group of its own, so that what it has started ends with it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("there is a bash");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        let mut shell = Self { child, input, lines };
        shell.run("exec 2>&1");
        shell
    }

    /// Runs a command; returns what it printed, and how it ended.
    fn run(&mut self, command: &str) -> (Vec<String>, i32) {
        let quoted = command.replace('\'', r"'\''");
        // Its input is empty: the shell's own is the next command.
        let line = format!("eval '{quoted}' </dev/null; __s=$?; printf '\\n%s %s\\n' '{END}' $__s; (exit $__s)\n");
        self.input.write_all(line.as_bytes()).unwrap();
        let mut printed: Vec<String> = Vec::new();
        loop {
            let line = self.lines.recv_timeout(DEADLINE * 2);
            let line = line.unwrap_or_else(|_| panic!("{command}: does not end; so far {printed:#?}"));
            if let Some(status) = line.strip_prefix(END) {
                // Behind output without a line break stands none, behind other output an empty line.
                if printed.last().is_some_and(String::is_empty) {
                    printed.pop();
                }
                return (printed, status.trim().parse().unwrap());
            }
            printed.push(line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let group = format!("kill -KILL -{}", self.child.id());
        let _ = Command::new("sh").args(["-c", &group]).status();
        let _ = self.child.wait();
    }
}

/// Runs the commands of a document.
fn hold(document: &str) {
    let text = read(document);
    let folder = tempfile::tempdir().unwrap();
    let writes = std::env::var("FOLKMOOT_TUTORIAL").is_ok_and(|what| what == "write");
    // Those that the documents name may be in use here.
    let ports: Vec<(String, String)> =
        (7070..7080).map(|port| (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", free_port()))).collect();
    let with_ports = |text: &str, back: bool| {
        ports.iter().fold(text.to_owned(), |text, (named, used)| {
            if back { text.replace(used.as_str(), named) } else { text.replace(named.as_str(), used) }
        })
    };
    let mut shell = Shell::start(folder.path());
    let steps = steps(&text);
    assert!(steps.len() > 8, "{document}: {} commands", steps.len());
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut moved = 0isize;
    for step in steps {
        let (printed, status) = shell.run(&with_ports(&step.command, false));
        let home = folder.path().display().to_string();
        let printed: Vec<String> =
            printed.iter().map(|line| with_ports(line, true).replace(&home, "~").trim_end().to_owned()).collect();
        let is_error = |line: &String| line.starts_with("error: ") || line.contains("\"urn:folkmoot:error:");
        let fails = step.prints.iter().chain(&printed).any(is_error);
        assert!(status == 0 || fails, "{document}: {} ended with {status}: {printed:#?}", step.command);
        if are_lines(&step.prints, &printed) {
            continue;
        }
        assert!(writes, "{document}: {}\nprinted {printed:#?}\nnot {:#?}", step.command, step.prints);
        let shown: Vec<String> = printed.iter().map(|line| cut(line)).collect();
        let range = step.lines.start.wrapping_add_signed(moved)..step.lines.end.wrapping_add_signed(moved);
        moved += isize::try_from(shown.len()).unwrap() - isize::try_from(range.len()).unwrap();
        lines.splice(range, shown);
    }
    if writes {
        std::fs::write(repository().join(document), lines.join("\n") + "\n").unwrap();
    }
}

#[test]
fn the_tutorial_is_what_happens() {
    hold("docs/tutorial.md");
}

#[test]
fn the_howtos_are_what_happens() {
    hold("docs/howto.md");
}

/// The commands with which the README begins. Those that build the program, and the demonstration, have their own tests.
#[test]
fn the_readme_begins_with_what_works() {
    let readme = read("README.md");
    let start = readme.split_once("## Start").unwrap().1.split_once("\n## ").unwrap().0;
    let commands: Vec<&str> = start.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(repository().join("examples"), folder.path().join("examples")).unwrap();
    let mut shell = Shell::start(folder.path());
    shell.run("export FOLKMOOT_PASSWORD='correct horse battery' FOLKMOOT_NEW_PASSWORD='correct horse battery'");
    let mut run = 0;
    for command in commands {
        let command = match command.strip_prefix("cargo run --release -- serve") {
            Some(_) => {
                "folkmoot serve --listen 127.0.0.1:0 --p2p-listen 127.0.0.1:0 >log 2>&1 & \
                        until [ -e folkmoot-data/endpoints.json ]; do sleep 0.1; done"
            }
            None if command.starts_with("cargo ") || command == "folkmoot demo" => continue,
            None => command,
        };
        let (printed, status) = shell.run(command);
        assert_eq!(status, 0, "{command}: {printed:#?}");
        run += 1;
    }
    assert!(run >= 10, "{run} commands");
}

#[test]
fn commands_and_what_they_print_are_told_apart() {
    let text =
        "# Title\n\n```console\n$ cat > a <<END\n> one\n>\n> END\n$ cat a\none\n\n```\n\n```sh\n$ not this\n```\n";
    let found = steps(text);
    let commands: Vec<(&str, usize)> = found.iter().map(|step| (step.command.as_str(), step.prints.len())).collect();
    assert_eq!(commands, [("cat > a <<END\none\n\nEND", 0), ("cat a", 2)]);
    let hash = "0123456789abcdef".repeat(4);
    assert_eq!(cut(&format!("drill {hash} at 2026-01-31T12:00:00Z")), "drill 01234567… at 2026-…");
    assert!(is_line("drill 01234567… at 2026-…", &format!("drill {} at 2027-02-01T08:00:00Z", "f".repeat(64))));
    for other in ["saw 7 at 8", "drill 7 on 8", "drill"] {
        assert!(!is_line("drill 01234567… at 2026-…", other), "{other}");
    }
    let lines = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
    assert!(are_lines(&lines("a|…|d"), &lines("a|b|c|d")) && are_lines(&lines("a|…"), &lines("a")));
    assert!(!are_lines(&lines("a|…|d"), &lines("a|b|c")) && !are_lines(&lines("a"), &lines("a|b")));
}

#[test]
fn a_shell_tells_how_a_command_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(folder.path());
    assert_eq!(shell.run("x=it\\'s; false"), (vec![], 1));
    assert_eq!(shell.run("echo $? \"$x\"; cat"), (vec!["1 it's".to_owned()], 0));
}
