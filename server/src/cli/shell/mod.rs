//! The shell: commands line by line, over one connection.
//!
//! Lines are taken apart as a shell does it and read by the same definition as the command line, so every command of a client is
//! there as it is. A failure ends the command, never the shell; where the lines come from a file or a pipe it ends both, because
//! what follows may rest on it.

mod complete;
mod history;
mod line;

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use folkmoot::api::{Access as _, ExitCode};
use folkmoot::{Client, CollectionName, Error, ErrorCode};
use folkmoot_core::limits::JSON_BYTES_MAX;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Editor};
use tokio::runtime::Runtime;

use self::complete::{Completion, Names};
use self::history::Kept;
use self::line::{Line, Parts, Quoting, Unreadable};
use super::args::{Find, Shell as ShellArgs};
use super::failure::Failure;
use super::output::{Format, Output};
use super::{connect, input, remote, usage};

/// A line with a document of the largest size.
const LINE_BYTES_MAX: usize = JSON_BYTES_MAX + (64 << 10);

pub(super) fn run(find: &Find, args: &ShellArgs, output: &Output) -> Result<ExitCode, Failure> {
    // One worker: connections are looked after while a person thinks, so that the next command finds them alive.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(ErrorCode::Internal, "start the runtime").with_source(e))?;
    // Nor is the password by which the shell comes in among them.
    input::has_commands();
    let client = connect(find)?;
    let shell = Shell { find, runtime, client, parts: Parts::new(), used: None };
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        shell.converse(args, output)
    } else {
        shell.follow(args, output)
    }
}

/// What a line did.
enum Step {
    Went(ExitCode),
    End,
}

/// What ends a command early.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Ctrl-C, which the shell itself outlives.
    OnInterrupt,
    /// Nothing; Ctrl-C ends the process.
    Never,
}

struct Shell<'a> {
    find: &'a Find,
    runtime: Runtime,
    client: Client,
    parts: Parts,
    /// The collection that commands are about which name none.
    used: Option<CollectionName>,
}

impl Shell<'_> {
    /// Takes lines from a terminal, until its end.
    fn converse(mut self, args: &ShellArgs, output: &Output) -> Result<ExitCode, Failure> {
        let caller = self.runtime.block_on(self.client.caller())?;
        output.note(&format!(
            "{} as {}; `help` lists the commands, Tab completes, Ctrl-C stops a command, Ctrl-D ends",
            self.client.urls().join(", "),
            caller.name
        ));
        let failed = |error: ReadlineError| Error::new(ErrorCode::Internal, format!("use the terminal: {error}"));
        let config = rustyline::Config::builder().completion_type(CompletionType::List);
        let config = config.max_history_size(history::LINES_MAX).map_err(failed)?.build();
        let mut editor: Editor<Completion, FileHistory> = Editor::with_config(config).map_err(failed)?;
        let kept = if args.no_history { None } else { Kept::open(&mut editor, output) };
        editor.set_helper(Some(Completion::new(Names::new(self.client.clone(), self.runtime.handle().clone()))));
        loop {
            if let Some(helper) = editor.helper_mut() {
                helper.use_collection(self.used.clone());
            }
            let prompt = format!("{}> ", self.used.as_ref().map_or("folkmoot", CollectionName::as_str));
            let line = match editor.readline(&prompt) {
                Ok(line) => line,
                // What was typed is thrown away.
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => continue,
                Err(ReadlineError::Eof) => return Ok(ExitCode::Done),
                Err(error) => return Err(failed(error).into()),
            };
            history::keep(&mut editor, kept.as_ref(), &line);
            match self.execute(&line, Stop::OnInterrupt, output) {
                Ok(Step::Went(_)) => {}
                Ok(Step::End) => return Ok(ExitCode::Done),
                Err(failure @ Failure::OutputClosed) => return Err(failure),
                Err(failure) => output.failure(&failure),
            }
        }
    }

    /// Takes lines from a pipe or a file, until its end or the first that fails.
    fn follow(mut self, args: &ShellArgs, output: &Output) -> Result<ExitCode, Failure> {
        let mut input = std::io::stdin().lock();
        let (mut number, mut ended, mut first_failure) = (0_u64, false, ExitCode::Done);
        while !ended {
            // A quote that is open goes on in the next line.
            let (mut text, mut quoting, begun) = (String::new(), Quoting::default(), number + 1);
            loop {
                let mut bytes = Vec::new();
                let room = (LINE_BYTES_MAX + 1).saturating_sub(text.len()) as u64;
                let read = (&mut input).take(room).read_until(b'\n', &mut bytes);
                let read =
                    read.map_err(|e| Error::new(ErrorCode::InvalidRequest, format!("read standard input: {e}")))?;
                ended = read == 0;
                number += u64::from(!ended);
                if text.len() + bytes.len() > LINE_BYTES_MAX {
                    return Err(Failure::usage(format!("line {begun} is longer than {LINE_BYTES_MAX} bytes")));
                }
                let more =
                    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("line {number} is not UTF-8")))?;
                quoting.feed(&more);
                text.push_str(&more);
                if ended || !quoting.is_open() {
                    break;
                }
            }
            let code = match self.execute(&text, Stop::Never, output) {
                Ok(Step::End) => return Ok(first_failure),
                Ok(Step::Went(code)) => code,
                Err(failure @ Failure::OutputClosed) => return Err(failure),
                Err(failure) => {
                    output.failure(&failure);
                    failure.exit_code()
                }
            };
            if code == ExitCode::Done {
                continue;
            }
            if first_failure == ExitCode::Done {
                first_failure = code;
            }
            if !args.keep_going {
                output.note(&format!("line {begun} failed, and nothing behind it was done; --keep-going goes on"));
                return Ok(first_failure);
            }
        }
        Ok(first_failure)
    }

    /// Carries a line out.
    fn execute(&mut self, line: &str, stop: Stop, output: &Output) -> Result<Step, Failure> {
        let json = output.format() == Format::Json;
        let (args, named) = match self.parts.read(line, self.used.as_ref()) {
            Ok(Line::Nothing) => return Ok(Step::Went(ExitCode::Done)),
            Ok(Line::End) => return Ok(Step::End),
            Ok(Line::Use(collection)) => {
                self.used = collection;
                return Ok(Step::Went(ExitCode::Done));
            }
            Ok(Line::Command(args, named)) => (args, named),
            Err(Unreadable::Line(failure)) => return Err(failure),
            Err(Unreadable::Arguments(error)) if error.use_stderr() => {
                let json = json || line.split_whitespace().any(|word| word == "--json");
                return Ok(Step::Went(usage(&error, if json { Format::Json } else { Format::People })));
            }
            Err(Unreadable::Arguments(error)) => {
                // Help comes this way too.
                error.print()?;
                return Ok(Step::Went(ExitCode::Done));
            }
        };
        let own = Output::new(if json { Format::Json } else { args.find.format() });
        let command = remote(&self.client, self.find, args.command, named, &own);
        let ended = self.runtime.block_on(async {
            match stop {
                Stop::Never => command.await,
                Stop::OnInterrupt => tokio::select! {
                    ended = command => ended,
                    _ = tokio::signal::ctrl_c() => {
                        output.note("stopped; what it wrote until then stands");
                        Ok(ExitCode::Failed)
                    }
                },
            }
        });
        match ended {
            Ok(code) => Ok(Step::Went(code)),
            Err(failure @ Failure::OutputClosed) => Err(failure),
            Err(failure) => {
                own.failure(&failure);
                Ok(Step::Went(failure.exit_code()))
            }
        }
    }
}
