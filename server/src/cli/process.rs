//! Nodes as processes of this same program, for commands that start some: each with a data directory of its own.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use folkmoot::api::{Database as _, InviteOptions};
use folkmoot::{AuthorKey, Client, Error, ErrorCode};

use crate::serve::{ENDPOINTS_FILE, Endpoints, TOKEN_FILE};

/// How long a process may take to be up, or to have joined: seconds on an idle machine, much more on a busy one.
const START_TIME_MAX: Duration = Duration::from_secs(90);
/// How long one call may take: a check of all the data is one call.
const CALL_TIME_MAX: Duration = Duration::from_secs(120);
/// How often a process or a file is looked at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// What is shown of the log of a process that ended early.
const LOG_TAIL_BYTES: u64 = 8 << 10;
const LOG_TAIL_LINES: usize = 20;

/// A node that is up.
pub(super) struct StartedNode {
    pub(super) key: AuthorKey,
    pub(super) url: String,
    /// What opens its API. Never printed.
    pub(super) token: String,
    pub(super) client: Client,
    pub(super) process: Process,
}

/// Starts a node in a new folder within `folder`. Without others it founds a cluster, else it joins theirs.
pub(super) async fn start_node(folder: &Path, name: &str, others: &[&Client]) -> Result<StartedNode, Error> {
    let data = folder.join(name);
    let mut serve = vec!["serve", "--listen", "127.0.0.1:0", "--p2p-listen", "127.0.0.1:0"];
    let mut bootstrap = Vec::new();
    if let Some(first) = others.first() {
        let ticket = first.invite(&InviteOptions::default()).await?.ticket;
        let mut join = Process::start(name, folder, &data, &["join", &ticket, "--name", name])?;
        let status = join.end(START_TIME_MAX).await?;
        if !status.success() {
            return Err(join.ended_early(status));
        }
        for other in others {
            bootstrap.extend(other.status().await?.p2p);
        }
    }
    for address in &bootstrap {
        serve.extend(["--bootstrap", address]);
    }
    let mut process = Process::start(name, folder, &data, &serve)?;
    let endpoints = process.endpoints(&data).await?;
    let token = std::fs::read_to_string(data.join(TOKEN_FILE)).map_err(|source| {
        Error::new(ErrorCode::Internal, format!("read the token of {name}: {source}")).with_source(source)
    })?;
    let client = Client::builder(&*endpoints.http).token(&*token).timeout(CALL_TIME_MAX).build()?;
    let key = client.status().await?.node;
    Ok(StartedNode { key, url: endpoints.http, token, client, process })
}

/// A child that does not outlive its handle.
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever is acknowledged is durable, so a node may be killed at any time. An error means that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts this program with its output in `NAME.log`. It runs within `folder` and without what the environment says
    /// about nodes, so that neither that nor a configuration file nearby changes what it does.
    pub(super) fn start(name: &str, folder: &Path, data: &Path, args: &[&str]) -> Result<Self, Error> {
        let failed = |source: std::io::Error| {
            Error::new(ErrorCode::Internal, format!("start {name}: {source}")).with_source(source)
        };
        let program = std::env::current_exe().map_err(failed)?;
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(program);
        command.args(args).arg("--data").arg(data).current_dir(folder).stdin(Stdio::null());
        command.stdout(file.try_clone().map_err(failed)?).stderr(file);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("FOLKMOOT_") {
                command.env_remove(variable);
            }
        }
        let child = command.spawn().map_err(failed)?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(super) fn status(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(|source| {
            Error::new(ErrorCode::Internal, format!("look after {}: {source}", self.name)).with_source(source)
        })
    }

    pub(super) fn ended_early(&self, status: ExitStatus) -> Error {
        let tail = tail(&self.log).unwrap_or_default();
        let lines: Vec<&str> = tail.lines().collect();
        let shown = lines.iter().skip(lines.len().saturating_sub(LOG_TAIL_LINES));
        let log: String = shown.map(|line| format!("\n  | {line}")).collect();
        Error::new(ErrorCode::Internal, format!("{} ended early ({status}); the end of its log:{log}", self.name))
    }

    async fn end(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            self.wait_on(started, within, "to join").await?;
        }
    }

    pub(super) async fn endpoints(&mut self, data: &Path) -> Result<Endpoints, Error> {
        let started = Instant::now();
        loop {
            // Not there yet, most likely; a file that stays malformed ends in the time-out.
            if let Some(endpoints) =
                std::fs::read(data.join(ENDPOINTS_FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok())
            {
                return Ok(endpoints);
            }
            if let Some(status) = self.status()? {
                return Err(self.ended_early(status));
            }
            self.wait_on(started, START_TIME_MAX, "to start").await?;
        }
    }

    async fn wait_on(&self, started: Instant, within: Duration, what: &str) -> Result<(), Error> {
        if started.elapsed() > within {
            let tail = tail(&self.log).unwrap_or_default();
            return Err(Error::new(
                ErrorCode::RequestTimeout,
                format!("{} took more than {} s {what}; its log:\n{tail}", self.name, within.as_secs()),
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        Ok(())
    }
}

/// Returns the end of a log.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_the_end_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let tail = tail(&path).unwrap();
        assert!(tail.len() as u64 <= LOG_TAIL_BYTES && tail.ends_with("line 9999\n"), "{}", tail.len());
    }
}
