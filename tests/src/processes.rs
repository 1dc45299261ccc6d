//! Nodes as processes of their own: starts, stops, kills and asks them.
//!
//! Every node listens on loopback, on ports that the system picks. A node that is started again keeps the port for other
//! nodes, as it would in earnest, and gets a new one for its API.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use folkmoot::api::{Database as _, ListQuery, ReadOptions, ShardDigest, WriteOptions, WriteOutcome};
use folkmoot::{AuthorKey, Bytes, Client, CollectionName, DocId, Error};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long a thing that must happen may take: ten times what it takes in a debug build on a machine with other work.
pub const DEADLINE: Duration = Duration::from_secs(25);
/// How often it is looked whether it has happened.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a node's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// Returns the path of the program under test.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn program() -> PathBuf {
    let path = std::env::var_os("FOLKMOOT_BIN").map_or_else(beside_the_test, PathBuf::from);
    assert!(
        path.is_file(),
        "the program under test is not at {}: build it first (`cargo build --workspace --bins` in the profile of the \
         tests; `tests/run` does) or name it in FOLKMOOT_BIN",
        path.display()
    );
    path
}

/// Tests are in `target/<profile>/deps`, programs in `target/<profile>`.
fn beside_the_test() -> PathBuf {
    profile_folder().join(format!("folkmoot{}", std::env::consts::EXE_SUFFIX))
}

fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    test.ancestors().nth(2).expect("a test is in a folder of its profile").to_owned()
}

/// Returns the path of an example.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let path = profile_folder().join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "the example is not at {}: `tests/run unit` builds it", path.display());
    path
}

/// Repeats `attempt` until it returns `Ok`.
///
/// # Panics
/// If it does not within [`DEADLINE`], with what it said last.
pub async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(why) => assert!(begun.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}: {why}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Sends a signal to a process by its name in the shell, as in `STOP`.
fn signal(child: &Child, name: &str) {
    // The shell has `kill` in it; the program is not on every machine.
    let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status();
    assert!(status.is_ok_and(|status| status.success()), "send {name} to process {}", child.id());
}

fn command(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(program());
    without_settings(&mut command).args(arguments);
    command
}

/// Keeps settings of the caller's environment, such as that of the simulator's seeds, from a command that runs the program.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOLKMOOT_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command of the program to its end.
///
/// # Panics
/// If it cannot be run or hangs.
pub async fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, input: &str) -> Output {
    let mut command = tokio::process::Command::from(command(arguments));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the program runs");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    // A command that does not read its input may have closed it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    tokio::time::timeout(DEADLINE * 2, child.wait_with_output()).await.expect("the command ends").expect("it ran")
}

/// What a command printed, both ways.
#[must_use]
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A node's process and its data directory.
pub struct Node {
    name: String,
    data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    p2p_port: u16,
    /// What `serve` gets besides.
    arguments: Vec<String>,
    /// What is in its environment besides.
    environment: Vec<(String, String)>,
    running: Option<Running>,
}

/// Returns a port that is free now and lies below those that the system gives to outgoing connections: a node that is
/// killed and started again finds it free again, whatever other tests do meanwhile.
///
/// # Panics
/// Never: there are fewer processes than that.
#[must_use]
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..30_000;
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    // Tests that run as processes of their own begin at different places.
    let spread = u16::try_from(std::process::id() % 1_000).expect("below a thousand") * 20;
    loop {
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = PORTS.start + spread.wrapping_add(next) % (PORTS.end - PORTS.start);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

struct Running {
    url: String,
    token: String,
    client: Client,
    key: AuthorKey,
}

/// An answer to a plain HTTP request.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The head as it came.
    pub raw_head: String,
    /// The body, if it is JSON; else null.
    pub json: Value,
    /// The body.
    pub body: Vec<u8>,
}

impl Node {
    /// A node that is not started yet, in `folder/name`, whether there is a data directory already or not.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
            child: None,
            p2p_port: free_port(),
            arguments: Vec::new(),
            environment: Vec::new(),
            running: None,
        }
    }

    /// Starts the first node of a cluster, in a new folder within `folder`.
    pub async fn found(folder: &Path, name: &str) -> Self {
        let mut node = Self::new(folder, name);
        node.start().await;
        node
    }

    /// Starts the first node of a cluster with further arguments of `serve`, now and whenever it is started again.
    pub async fn found_with(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let mut node = Self::new(folder, name);
        node.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        node.start().await;
        node
    }

    /// Joins the cluster of `inviter`, with a ticket for one, and starts.
    pub async fn join(folder: &Path, name: &str, inviter: &Self) -> Self {
        let ticket = inviter.ticket(&[]).await;
        Self::join_with(folder, name, &ticket).await
    }

    /// Joins with a ticket, and starts.
    ///
    /// # Panics
    /// If the ticket is not taken.
    pub async fn join_with(folder: &Path, name: &str, ticket: &str) -> Self {
        let mut node = Self::new(folder, name);
        let output = run_join(&node.data, name, ticket).await;
        assert!(output.status.success(), "{name} joins: {}", printed(&output));
        node.start().await;
        node
    }

    /// Makes a ticket by the command line.
    ///
    /// # Panics
    /// If there is none in the answer.
    pub async fn ticket(&self, arguments: &[&str]) -> String {
        let output = self.cli(&[&["--json", "invite"], arguments].concat(), "").await;
        assert!(output.status.success(), "make a ticket: {}", printed(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("the answer is JSON");
        answer["ticket"].as_str().expect("a ticket").to_owned()
    }

    /// Sets what `serve` gets besides, from the next start on.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Sets what the process finds in its environment, from the next start on.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Starts the process; returns how it ended if it does not come up.
    pub async fn try_start(&mut self) -> Result<(), ExitStatus> {
        self.spawn();
        self.up_or_ended().await
    }

    /// Starts the process and waits until it answers.
    ///
    /// # Panics
    /// If it runs, or ends, or does not come up.
    pub async fn start(&mut self) {
        self.spawn();
        self.wait_until_up().await;
    }

    /// Starts the process.
    ///
    /// # Panics
    /// If it runs or cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        // A node that was killed could not take it away.
        let _ = std::fs::remove_file(self.endpoints());
        let log = File::options().create(true).append(true).open(&self.log).expect("the log can be written");
        let mut command = command(["serve", "--listen", "127.0.0.1:0", "--p2p-listen"]);
        command.arg(format!("127.0.0.1:{}", self.p2p_port)).arg("--data").arg(&self.data);
        command.args(&self.arguments);
        command.env("FOLKMOOT_LOG_LEVEL", "info").env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("the program runs"));
    }

    fn endpoints(&self) -> PathBuf {
        self.data.join("endpoints.json")
    }

    /// Waits until the process that was started answers.
    ///
    /// # Panics
    /// If it ends instead, or takes too long.
    pub async fn wait_until_up(&mut self) {
        if let Err(status) = self.up_or_ended().await {
            panic!("{} ended instead of coming up: {status}", self.name);
        }
    }

    async fn up_or_ended(&mut self) -> Result<(), ExitStatus> {
        let path = self.endpoints();
        let name = self.name.clone();
        let child = self.child.as_mut().expect("the process was started");
        let text = until(&format!("{name} comes up"), async || {
            if let Ok(Some(status)) = child.try_wait() {
                return Ok(Err(status));
            }
            std::fs::read_to_string(&path).map(Ok).map_err(|error| error.to_string())
        })
        .await;
        let text = match text {
            Ok(text) => text,
            Err(status) => {
                self.child = None;
                return Err(status);
            }
        };
        let endpoints: Value = serde_json::from_str(&text).expect("endpoints.json is JSON");
        let url = endpoints["http"].as_str().expect("an address of the API").to_owned();
        let address = endpoints["p2p"][0].as_str().expect("an address for other nodes");
        self.p2p_port = address.split('/').nth(4).and_then(|port| port.parse().ok()).expect("a port in the address");
        let token = std::fs::read_to_string(self.data.join("owner.token")).expect("a token");
        let mut builder = Client::builder(&url).token(&token);
        if let Some(certificate) = endpoints["certificate"].as_str() {
            builder = builder.trust(std::fs::read(certificate).expect("the certificate can be read"));
        }
        let client = builder.build().expect("a client");
        let key = client.status().await.expect("a status").node;
        self.running = Some(Running { url, token: token.trim().to_owned(), client, key });
        Ok(())
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the node has been up")
    }

    /// Returns a client that tries again, as apps do.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.running().client
    }

    /// Returns a client that tells the first failure.
    ///
    /// # Panics
    /// Never: the address has been used.
    #[must_use]
    pub fn impatient_client(&self) -> Client {
        let running = self.running();
        Client::builder(&running.url).token(&running.token).attempts(1).build().expect("a client")
    }

    /// Returns the address of the API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.running().url
    }

    /// Returns the node's key.
    #[must_use]
    pub fn key(&self) -> AuthorKey {
        self.running().key
    }

    /// Returns the data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns what the process has written to its log, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Ends the process as a crash would.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Asks the process to end and waits until it has.
    ///
    /// # Panics
    /// If it does not run or does not end.
    pub async fn stop(&mut self) -> ExitStatus {
        signal(self.child.as_ref().expect("the node runs"), "TERM");
        self.ended().await
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// If it does not.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the node was started");
        let what = format!("{} ends", self.name);
        let status =
            until(&what, async || child.try_wait().expect("it can be asked").ok_or_else(|| "it runs on".to_owned()));
        let status = status.await;
        self.child = None;
        status
    }

    /// Holds the process: it keeps its connections and says nothing.
    ///
    /// # Panics
    /// If it does not run.
    pub fn freeze(&self) {
        signal(self.child.as_ref().expect("the node runs"), "STOP");
    }

    /// Lets a process that is held go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn thaw(&self) {
        signal(self.child.as_ref().expect("the node runs"), "CONT");
    }

    /// Runs a command of the program against this node.
    pub async fn cli(&self, arguments: &[&str], input: &str) -> Output {
        let mut all: Vec<&OsStr> = vec![OsStr::new("--data"), self.data.as_os_str()];
        all.extend(arguments.iter().map(OsStr::new));
        run(all, input).await
    }

    /// Sends a plain HTTP request with the node's token.
    pub async fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
        let bearer = format!("Bearer {}", self.running().token);
        self.http_as_stranger(method, path, &[&[("authorization", bearer.as_str())], headers].concat(), body).await
    }

    /// Sends a plain HTTP request with no headers but those given.
    ///
    /// # Panics
    /// If no whole answer comes.
    pub async fn http_as_stranger(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpAnswer {
        let host = self.url().trim_start_matches("http://");
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut stream = tokio::net::TcpStream::connect(host).await.expect("the node takes connections");
        let (mut from, mut to) = stream.split();
        let mut answer = Vec::new();
        let exchange = async {
            let send = async {
                // A node that has refused the request need not read all of it.
                let _ = to.write_all(request.as_bytes()).await;
                let _ = to.write_all(body).await;
            };
            // A node that closes before it has read everything may reset the connection behind its answer.
            let receive = async { drop(from.read_to_end(&mut answer).await) };
            tokio::join!(send, receive);
        };
        tokio::time::timeout(DEADLINE, exchange).await.unwrap_or_else(|_| panic!("{method} {path}: no answer"));
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
        let raw_head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let head = raw_head.to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status");
        let body = answer.split_off(end + 4);
        let json = serde_json::from_slice(&body).unwrap_or_default();
        HttpAnswer { status, head, raw_head, json, body }
    }

    /// Returns the value of each metric, by name and labels.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.http("GET", "/metrics", &[], b"").await;
        let text = String::from_utf8_lossy(&answer.body);
        let metric =
            |line: &str| line.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        text.lines().filter(|line| !line.starts_with('#')).filter_map(metric).collect()
    }

    /// Writes a document.
    ///
    /// # Panics
    /// If that fails.
    pub async fn put(&self, collection: &str, doc: &str, json: Value) -> WriteOutcome {
        let done = self.client().put(&name(collection), id(doc), text(&json), &WriteOptions::default()).await;
        done.unwrap_or_else(|error| panic!("put {doc} at {}: {error:?}", self.name))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// As the node answers.
    pub async fn get(&self, collection: &str, doc: &str) -> Result<Value, Error> {
        let document = self.client().get(&name(collection), &id(doc), &ReadOptions::default()).await?;
        Ok(serde_json::from_slice(&document.json).expect("a document is JSON"))
    }

    /// Reads all documents of a collection: ids, versions and contents.
    ///
    /// # Errors
    /// As the node answers.
    pub async fn all(&self, collection: &str) -> Result<Vec<(String, String, Bytes)>, Error> {
        let mut query = ListQuery { limit: Some(ListQuery::LIMIT_MAX), ..ListQuery::default() };
        let mut all = Vec::new();
        loop {
            let page = self.client().list(&name(collection), &query).await?;
            all.extend(page.items.into_iter().map(|d| (d.id.to_string(), d.heads.to_string(), d.json)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Checks everything that the node holds.
    ///
    /// # Panics
    /// If there is damage.
    pub async fn assert_sound(&self) {
        let report = self.client().verify().await.expect("a report");
        assert_eq!(report.damage_total, 0, "{}: {:#?}", self.name, report.damage);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- the end of the log of {}:", self.name);
            for line in lines.get(from..).unwrap_or_default() {
                eprintln!("    {line}");
            }
        }
    }
}

/// Runs `folkmoot join`.
pub async fn run_join(data: &Path, name: &str, ticket: &str) -> Output {
    let data = data.to_str().expect("a path of letters");
    run(["join", ticket, "--name", name, "--data", data], "").await
}

/// Runs `folkmoot join` and leaves the data directory unsealed, for those who look into it.
pub async fn run_join_unsealed(data: &Path, name: &str, ticket: &str) -> Output {
    let data = data.to_str().expect("a path of letters");
    run(["join", ticket, "--name", name, "--data", data, "--key-source", "none"], "").await
}

/// Waits until all nodes hold the same ops and the same documents; returns how long it took.
pub async fn converged(nodes: &[&Node]) -> Duration {
    let begun = Instant::now();
    until("the nodes converge", async || {
        let mut first: Option<Vec<ShardDigest>> = None;
        for node in nodes {
            let mut digests = node.client().digests().await.map_err(|error| format!("{}: {error:?}", node.name))?;
            digests.sort();
            if let Some(waiting) = digests.iter().find(|digest| digest.ops_unapplied > 0) {
                return Err(format!("{} has not applied everything: {waiting:?}", node.name));
            }
            match &first {
                None => first = Some(digests),
                Some(other) if *other == digests => {}
                Some(other) => return Err(format!("{} has {digests:#?}, the first has {other:#?}", node.name)),
            }
        }
        Ok(())
    })
    .await;
    begun.elapsed()
}

/// A collection's name.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn name(text: &str) -> CollectionName {
    text.parse().expect("a collection's name")
}

/// A document's id.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn id(text: &str) -> DocId {
    text.parse().expect("a document's id")
}

/// JSON text.
#[must_use]
pub fn text(json: &Value) -> Bytes {
    json.to_string().into()
}
