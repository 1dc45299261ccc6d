//! Members on one LAN find each other without addresses. The LAN is real: two network namespaces with a cable between
//! them, which root can make on Linux.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use folkmoot_tests::processes::{printed, program, until, without_settings};
use serde_json::Value;

/// How long two nodes that cannot find each other are given to do so all the same.
const APART: Duration = Duration::from_secs(3);

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("run ip: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", arguments.join(" "), printed(&output))) }
}

/// Two machines and the cable between them.
struct Lan([String; 2]);

impl Lan {
    fn new() -> Result<Self, String> {
        let lan = Self(["a", "b"].map(|side| format!("fm{}{side}", std::process::id())));
        let [a, b] = &lan.0;
        for machine in &lan.0 {
            ip(&["netns", "add", machine])?;
            ip(&["-n", machine, "link", "set", "lo", "up"])?;
        }
        ip(&["link", "add", a, "netns", a, "type", "veth", "peer", "name", b, "netns", b])?;
        Ok(lan)
    }

    /// Gives both machines new addresses; those they had are gone.
    fn renumber(&self, network: &str) {
        for (machine, host) in self.0.iter().zip(["1", "2"]) {
            ip(&["-n", machine, "address", "flush", "dev", machine]).unwrap();
            ip(&["-n", machine, "address", "add", &format!("{network}.{host}/24"), "dev", machine]).unwrap();
            ip(&["-n", machine, "link", "set", machine, "up"]).unwrap();
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for machine in &self.0 {
            // The cable goes with its ends.
            let _ = ip(&["netns", "delete", machine]);
        }
    }
}

/// A node on one of the machines. Only its command line is reached from here: its API is on that machine's loopback.
struct Node {
    machine: String,
    data: PathBuf,
    child: Option<Child>,
}

impl Node {
    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        without_settings(&mut command)
            .args(["netns", "exec", &self.machine])
            .arg(program())
            .arg("--data")
            .arg(&self.data);
        command
    }

    async fn start(&mut self, mdns: &str) {
        let log = std::fs::File::options().create(true).append(true).open(self.data.with_extension("log")).unwrap();
        let mut command = self.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--p2p-listen", "0.0.0.0:0"]).env("FOLKMOOT_MDNS", mdns);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        until("the node is up", async || self.try_cli(&["status"]).map(drop)).await;
    }

    async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        // `ip netns exec` becomes the program, so this is its process.
        let status = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", child.id())).status().unwrap();
        assert!(status.success());
        until("the node ends", async || child.try_wait().unwrap().ok_or_else(|| "it runs on".to_owned())).await;
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().arg("--json").args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn try_cli(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = self.run(arguments);
        if !output.status.success() {
            let log = std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
            return Err(format!("{arguments:?}: {}{log}", printed(&output)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {}", printed(&output)))
    }

    #[track_caller]
    fn cli(&self, arguments: &[&str]) -> Value {
        self.try_cli(arguments).unwrap()
    }

    fn connected(&self) -> Result<(), String> {
        let status = self.cli(&["status"]);
        if status["peers_connected"] == 1 { Ok(()) } else { Err(status.to_string()) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn arrives(node: &Node, id: &str) {
    until(&format!("{id} arrives"), async || node.try_cli(&["get", "notes", id]).map(drop)).await;
}

fn node(folder: &Path, machine: &str, name: &str) -> Node {
    Node { machine: machine.to_owned(), data: folder.join(name), child: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_on_a_lan_find_each_other_without_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let lan = match Lan::new() {
        Ok(lan) => lan,
        Err(why) => {
            eprintln!(
                "NOT TESTED: mDNS between two machines. No network namespaces can be made here ({why}); run this as root \
                 on Linux, with iproute2."
            );
            return;
        }
    };
    lan.renumber("10.118.1");
    let [mut a, mut b] = [("a", 0), ("b", 1)].map(|(name, at)| node(folder.path(), &lan.0[at], name));
    a.start("true").await;
    let ticket = a.cli(&["invite"])["ticket"].as_str().unwrap().to_owned();
    b.cli(&["join", &ticket]);
    b.start("true").await;
    a.cli(&["put", "notes", "one", "{}"]);
    arrives(&b, "one").await;

    // All that they know of each other is wrong now, ports too: nothing else than mDNS can help.
    a.stop().await;
    b.stop().await;
    lan.renumber("10.118.2");
    a.start("false").await;
    b.start("false").await;
    a.cli(&["put", "notes", "two", "{}"]);
    tokio::time::sleep(APART).await;
    for node in [&a, &b] {
        assert!(node.connected().is_err(), "they find each other without mDNS: this test shows nothing");
    }
    a.stop().await;
    b.stop().await;
    a.start("true").await;
    b.start("true").await;
    for node in [&a, &b] {
        until("the members find each other", async || node.connected()).await;
    }
    arrives(&b, "two").await;
    b.cli(&["put", "notes", "three", "{}"]);
    arrives(&a, "three").await;
}
