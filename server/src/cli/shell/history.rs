//! What was typed: kept in a file for its owner alone, without what looks like a secret.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustyline::Editor;
use rustyline::history::FileHistory;

use super::super::output::Output;
use super::complete::Completion;

/// Lines that are kept.
pub(super) const LINES_MAX: usize = 1_000;
/// Longer lines are documents pasted, which nobody looks for there.
const LINE_BYTES_MAX: usize = 4 << 10;
/// A line with one of these is about a secret, or may hold one. `fm_` is how tokens begin, `eyj` how JSON Web Tokens do.
const SECRET: [&str; 11] = [
    "password",
    "passphrase",
    "passwd",
    "secret",
    "token",
    "ticket",
    "bearer",
    "authorization",
    "private",
    "fm_",
    "eyj",
];

/// The file.
pub(super) struct Kept(PathBuf);

impl Kept {
    /// Opens the file and reads what is in it. Without one the shell works all the same.
    pub(super) fn open(editor: &mut Editor<Completion, FileHistory>, output: &Output) -> Option<Self> {
        let Some(path) = path(&|name| std::env::var_os(name)) else {
            output.note("there is no home directory: what is typed is not kept");
            return None;
        };
        let opened = path.parent().map_or(Ok(()), make_folder).and_then(|()| make_file(&path));
        if let Err(error) = opened {
            output.note(&format!("what is typed is not kept: {}: {error}", path.display()));
            return None;
        }
        if let Err(error) = editor.load_history(&path) {
            output.note(&format!("what was typed earlier cannot be read: {}: {error}", path.display()));
        }
        Some(Self(path))
    }
}

/// Returns where it lies: in the directory for state, by the XDG base directories.
fn path(variable: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .or_else(|| folder("LOCALAPPDATA"))?;
    Some(state.join("folkmoot").join("shell_history"))
}

fn make_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes the file if it is not there, and takes it from others if they may read it.
fn make_file(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    // How rustyline knows in which form the lines behind it are: lines of more than one line are possible in this one.
    if file.metadata()?.len() == 0 { file.write_all(b"#V2\n") } else { Ok(()) }
}

/// Returns whether a line may be kept. One that begins with a blank is not, as in other shells.
fn may_be_kept(line: &str) -> bool {
    let lower = line.to_lowercase();
    !line.starts_with([' ', '\t']) && line.len() <= LINE_BYTES_MAX && !SECRET.iter().any(|word| lower.contains(word))
}

/// Keeps a line at once, so that a shell that is killed loses none.
pub(super) fn keep(editor: &mut Editor<Completion, FileHistory>, kept: Option<&Kept>, line: &str) {
    if line.trim().is_empty() || !may_be_kept(line) {
        return;
    }
    // Nothing is lost but a line of the history.
    let _ = editor.add_history_entry(line);
    if let Some(Kept(path)) = kept {
        let _ = editor.append_history(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_kept() {
        for line in ["get cities 1", "query cities '{\"name\": \"Oslo\"}'"] {
            assert!(may_be_kept(line), "{line}");
        }
        for line in [
            " get cities 1",
            "user password ann",
            "put notes a '{\"Password\": \"x\"}'",
            "put notes a '{\"x\": \"fm_abc\"}'",
            "put notes a '{\"x\": \"eyJhbGciOi\"}'",
            "token make ann",
        ] {
            assert!(!may_be_kept(line), "{line}");
        }
        assert!(!may_be_kept(&"x".repeat(LINE_BYTES_MAX + 1)));
    }

    #[test]
    fn it_lies_where_state_does() {
        let of = |given: &'static [(&str, &str)]| {
            path(&move |name| given.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into()))
        };
        assert_eq!(of(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), Some("/s/folkmoot/shell_history".into()));
        assert_eq!(
            of(&[("XDG_STATE_HOME", "s"), ("HOME", "/h")]),
            Some("/h/.local/state/folkmoot/shell_history".into())
        );
        assert_eq!(of(&[]), None);
    }
}
