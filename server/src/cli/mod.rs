//! The command line.

mod access;
mod agreement;
mod approvals;
mod args;
mod audit;
mod automerge;
mod bench;
mod cluster;
mod columns;
mod credential;
mod demo;
mod device;
mod documents;
mod erasure;
mod failure;
mod history;
mod index;
mod input;
mod key;
mod keys;
mod mend;
mod near;
mod node;
mod output;
mod process;
mod query;
mod random;
mod settings;
mod shell;
mod transfer;
mod witness;

use clap::{CommandFactory as _, FromArgMatches as _};
use folkmoot::api::ExitCode;
use folkmoot::{Client, CollectionName, Error, ErrorCode};

use self::args::{Args, AuditCommand, Command, Find, KeysCommand, QuarantineCommand};
use self::failure::Failure;
use self::output::{Format, Output};
use crate::serve::{ENDPOINTS_FILE, Endpoints};

/// Runs the program; returns how it ends.
#[must_use]
pub fn main() -> ExitCode {
    let read = Args::command().try_get_matches().and_then(|matches| {
        let args = Args::from_arg_matches(&matches).map_err(|error| error.format(&mut Args::command()))?;
        Ok((args, named_collection(&matches)))
    });
    let (args, named) = match read {
        Ok(read) => read,
        Err(error) if error.use_stderr() => {
            // What was meant is not known, but that it was meant for a program is.
            let json = std::env::args_os().any(|argument| argument == "--json");
            return usage(&error, if json { Format::Json } else { Format::People });
        }
        Err(error) => {
            // Help and version come this way too; then it is no failure.
            let _ = error.print();
            return ExitCode::Done;
        }
    };
    let output = Output::new(args.find.format());
    match run(args, named, &output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

/// Tells what is wrong with the command line.
fn usage(error: &clap::Error, format: Format) -> ExitCode {
    match format {
        Format::People => {
            // Nothing to do when standard error is gone.
            let _ = error.print();
        }
        Format::Json => {
            let text = error.to_string();
            let text = text.trim().strip_prefix("error: ").unwrap_or(&text).trim().to_owned();
            Output::new(format).failure(&Failure::usage(text));
        }
    }
    ExitCode::Usage
}

/// Returns the collection that a command is about, if it names one.
fn named_collection(mut matches: &clap::ArgMatches) -> Option<CollectionName> {
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    // An error: it has no such argument.
    matches.try_get_one::<CollectionName>("collection").ok().flatten().cloned()
}

fn run(args: Args, named: Option<CollectionName>, output: &Output) -> Result<ExitCode, Failure> {
    let Args { find, command } = args;
    match command {
        Command::Config(command) => return settings::config(&find, command, output),
        Command::Completions { shell } => return settings::completions(shell, output),
        Command::Init(args) => return node::init(&find, &args, output),
        Command::Serve(args) => return runtime(Threads::Many)?.block_on(node::serve(&find, &args, output)),
        Command::Join(args) => return runtime(Threads::Many)?.block_on(node::join(&find, &args, output)),
        Command::Verify(ref unlock) if find.url.is_none() => {
            // Without a node the directory itself is checked.
            if let Some(code) = mend::verify(&find, unlock, output)? {
                return Ok(code);
            }
        }
        Command::Audit(AuditCommand::Check { file, cluster }) => return audit::check(&file, cluster, output),
        Command::Audit(AuditCommand::Verify(ref unlock)) if find.url.is_none() => {
            if let Some(code) = audit::verify_directory(&find, unlock, output)? {
                return Ok(code);
            }
        }
        Command::Keys { command: Some(KeysCommand::Rekey(args)) } => return keys::rekey(&find, args, output),
        Command::Key { ref command } => {
            if let Some(code) = key::local(&find, command, output)? {
                return Ok(code);
            }
        }
        Command::Repair(args) => return mend::repair(&find, args, output),
        Command::Rejoin(args) => return runtime(Threads::Many)?.block_on(mend::rejoin(&find, args, output)),
        Command::Shell(args) => return shell::run(&find, &args, output),
        Command::Demo(args) => return runtime(Threads::One)?.block_on(demo::run(&args, output)),
        Command::Bench(args) => return runtime(Threads::One)?.block_on(bench::run(&find, &args, output)),
        Command::BenchBare(args) => return runtime(Threads::Many)?.block_on(bench::bare(&find, &args)),
        _ => {}
    }
    runtime(Threads::One)?.block_on(async {
        let client = connect(&find)?;
        remote(&client, &find, command, named, output).await
    })
}

/// Carries out what a node is asked for. `named` is the collection that the command names.
async fn remote(
    client: &Client,
    find: &Find,
    command: Command,
    named: Option<CollectionName>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    // As large as the largest of all commands.
    match Box::pin(ask(client, find, command, output)).await {
        Err(Failure::Call(error)) => Err(Failure::Call(near::collection(client, error, named).await)),
        ended => ended,
    }
}

async fn ask(client: &Client, find: &Find, command: Command, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Get(args) => documents::get(client, args, output).await,
        Command::Put(args) => documents::put(client, args, output).await,
        Command::Create(args) => documents::create(client, args, output).await,
        Command::Patch(args) => documents::patch(client, args, output).await,
        Command::Delete(args) => documents::delete(client, args, output).await,
        Command::Erase(args) => erasure::erase(client, args, output).await,
        Command::Erasures(args) => erasure::erasures(client, args, output).await,
        Command::List(args) => documents::list(client, args, output).await,
        Command::History(args) => history::history(client, args, output).await,
        Command::Diff(args) => history::diff(client, args, output).await,
        Command::Restore(args) => history::restore(client, args, output).await,
        Command::Query(args) => query::find(client, args, output).await,
        Command::Count(args) => query::count(client, args, output).await,
        Command::Aggregate(args) => query::aggregate(client, args, output).await,
        Command::Conflicts(args) => documents::conflicts(client, args, output).await,
        Command::Import(args) => transfer::import(client, args, output).await,
        Command::Export(args) => transfer::export(client, args, output).await,
        Command::Automerge(command) => automerge::automerge(client, command, output).await,
        Command::Collections(command) => cluster::collections(client, command, output).await,
        Command::Changes(args) => cluster::changes(client, args, output).await,
        Command::Watch(args) => query::watch(client, args, output).await,
        Command::Session(args) => cluster::session(client, args, find.session.as_ref(), output).await,
        Command::Status => cluster::status(client, output).await,
        Command::Peers { command } => cluster::peers(client, command, output).await,
        Command::Digests { against, against_token_file } => {
            let other = against.map(|node| connect(&find.of_other(&node, against_token_file))).transpose()?;
            cluster::digests(client, other, output).await
        }
        Command::Quarantine { command: None | Some(QuarantineCommand::List) } => {
            cluster::quarantine(client, output).await
        }
        Command::Quarantine { command: Some(QuarantineCommand::Release { transaction }) } => {
            access::release(client, transaction, output).await
        }
        Command::Verify(_) => cluster::verify(client, output).await,
        Command::Index { command } => index::index(client, command, output).await,
        Command::Witness { command } => witness::witness(client, command, output).await,
        Command::Key { command } => key::key(client, find, command, output).await,
        Command::Device { command } => device::device(client, find, command, output).await,
        Command::Approvals { command } => approvals::approvals(client, command, output).await,
        Command::Approve { op } => approvals::approve(client, &op, output).await,
        Command::Keys { command } => keys::keys(client, command, output).await,
        Command::Invite(args) => cluster::invite(client, args, output).await,
        Command::User { command } => access::user(client, find, command, output).await,
        Command::Group(command) => access::group(client, command, output).await,
        Command::Role { command } => access::role(client, command, output).await,
        Command::Grant(args) => access::grant(client, args, output).await,
        Command::Revoke(args) => access::revoke(client, args, output).await,
        Command::Token(command) => access::token(client, command, output).await,
        Command::Can(args) => access::can(client, args, output).await,
        Command::Audit(command) => audit::run(client, command, output).await,
        Command::Why { op } => audit::why(client, &op, output).await,
        Command::Whoami => access::whoami(client, output).await,
        // Handled above, without a node.
        Command::Config(_)
        | Command::Completions { .. }
        | Command::Init(_)
        | Command::Serve(_)
        | Command::Join(_)
        | Command::Repair(_)
        | Command::Rejoin(_)
        | Command::Demo(_)
        | Command::Bench(_)
        | Command::BenchBare(_)
        | Command::Shell(_) => Ok(ExitCode::Done),
    }
}

/// On how many threads a command runs.
#[derive(Clone, Copy)]
enum Threads {
    /// A client needs no more.
    One,
    /// A node uses what the machine has.
    Many,
}

fn runtime(threads: Threads) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build().map_err(|e| Error::new(ErrorCode::Internal, "start the runtime").with_source(e).into())
}

/// Finds the node: by address and token, else by the data directory of a node on this machine.
fn connect(find: &Find) -> Result<Client, Failure> {
    let data = find.data_directory();
    let mut trusted = find.ca.clone();
    let urls: Vec<String> = match &find.url {
        Some(urls) => urls.split(',').map(|url| url.trim().to_owned()).collect(),
        None => {
            let path = data.join(ENDPOINTS_FILE);
            let text = std::fs::read(&path).map_err(|source| {
                Error::new(ErrorCode::Unreachable, format!("no node runs on the data directory {}", data.display()))
                    .hint("start one with `folkmoot serve`, or name one with --url or FOLKMOOT_URL")
                    .with_source(source)
            })?;
            let endpoints: Endpoints = serde_json::from_slice(&text).map_err(|source| {
                Error::new(ErrorCode::Unreachable, format!("{} is malformed", path.display())).with_source(source)
            })?;
            trusted = trusted.or(endpoints.certificate);
            vec![endpoints.http]
        }
    };
    let mut urls = urls.into_iter();
    let mut builder = Client::builder(urls.next().unwrap_or_default());
    for url in urls {
        builder = builder.url(url);
    }
    if let Some(path) = trusted {
        let pem = std::fs::read(&path).map_err(|source| {
            let what = format!("cannot read the certificate {}", path.display());
            Failure::Usage(Error::new(ErrorCode::InvalidParameter, what).with_source(source))
        })?;
        builder = builder.trust(pem);
    }
    if let Some(session) = &find.session {
        builder = builder.session(session.clone());
    }
    let builder = credential::show(builder, find, &data)?;
    builder.build().map_err(|error| match error.code() {
        ErrorCode::InvalidParameter => Failure::Usage(error),
        _ => error.into(),
    })
}

#[cfg(test)]
mod tests;
