//! Power cuts, of one node and of all at once. The data lies on ext4 on a loop device whose file lies on XFS: a reflink copy
//! of that file is the disk as it is at that instant, without what the page cache of ext4 had not given to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use folkmoot::Client;
use folkmoot::api::{Database as _, WriteOptions};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text, until};
use serde_json::json;

use super::{code, figure, held, is_full, knows_others, no_forks, not_tested, scaled, sh};

/// Clients that write while the power goes.
const WRITERS: usize = 4;
/// Acknowledgements before it goes.
const ACKNOWLEDGED_BEFORE: usize = 30;

/// A disk from which the power can be taken.
struct Disk {
    root: PathBuf,
}

impl Disk {
    fn new(root: &Path) -> Result<Self, String> {
        let at = root.display();
        let disk = Self { root: root.to_owned() };
        sh(&format!(
            "set -e; mkdir -p '{at}/host' '{at}/disk'; truncate -s 4G '{at}/host.img'; \
             mkfs.xfs -q -m reflink=1 '{at}/host.img'; mount -o loop '{at}/host.img' '{at}/host'; \
             truncate -s 1G '{at}/host/disk.img'; mkfs.ext4 -q -F '{at}/host/disk.img'; \
             mount -o loop '{at}/host/disk.img' '{at}/disk'"
        ))?;
        Ok(disk)
    }

    fn folder(&self) -> PathBuf {
        self.root.join("disk")
    }

    /// Keeps what the disk holds at this instant.
    fn freeze(&self) {
        let at = self.root.display();
        sh(&format!("cp --reflink=always '{at}/host/disk.img' '{at}/host/crash.img'")).unwrap();
    }

    /// Goes on with what was kept, as after the power has come back. Nobody may use the disk.
    fn restart(&self) {
        let at = self.root.display();
        sh(&format!(
            "set -e; umount '{at}/disk'; mv '{at}/host/crash.img' '{at}/host/disk.img'; \
             mount -o loop '{at}/host/disk.img' '{at}/disk'"
        ))
        .unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = self.root.display();
        let _ = sh(&format!("umount -l '{at}/disk'; umount -l '{at}/host'"));
    }
}

fn disk(folder: &Path, what: &str) -> Option<Disk> {
    Disk::new(folder)
        .map_err(|why| not_tested(what, &format!("it needs root, loop devices and mkfs.xfs (xfsprogs): {why}")))
        .ok()
}

/// Writes new documents until it is told to stop or the node goes.
async fn write(client: Client, place: String, acknowledged: Arc<Mutex<BTreeSet<String>>>, stop: Arc<AtomicBool>) {
    for n in 0_u64.. {
        let doc = format!("{place}-{n}");
        let body = text(&json!({ "n": n, "text": "some text ".repeat(20) }));
        if stop.load(Ordering::Relaxed)
            || client.put(&name("load"), id(&doc), body, &WriteOptions::default()).await.is_err()
        {
            return;
        }
        acknowledged.lock().unwrap().insert(doc);
    }
}

/// Takes the power from some of the nodes while they take writes; returns what they had acknowledged by then. They are not
/// started again.
async fn cut(disk: &Disk, nodes: &mut [&mut Node], round: usize) -> BTreeSet<String> {
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        for writer in 0..WRITERS {
            let place = format!("r{round:02}-n{number}-w{writer}");
            writers.push(tokio::spawn(write(node.impatient_client(), place, acknowledged.clone(), stop.clone())));
        }
    }
    until("the load gets going", async || {
        let done = acknowledged.lock().unwrap().len();
        if done >= ACKNOWLEDGED_BEFORE * nodes.len() { Ok(()) } else { Err(format!("{done} writes")) }
    })
    .await;
    // Whatever is acknowledged before the disk is frozen must be there.
    let before = acknowledged.lock().unwrap().clone();
    disk.freeze();
    stop.store(true, Ordering::Relaxed);
    for node in nodes.iter_mut() {
        node.kill();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_lose_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = disk(folder.path(), "power cuts") else { return };
    let mut a = Node::found(&disk.folder(), "a").await;
    let mut b = Node::join(&disk.folder(), "b", &a).await;
    // One that keeps its power.
    let c = Node::join(folder.path(), "c", &a).await;
    converged(&[&a, &b, &c]).await;
    let mut expected = BTreeSet::new();
    let rounds = scaled(50, 4);
    for round in 0..rounds {
        // All nodes of the disk lose it together, or one of them while the other has been stopped in good order.
        let acknowledged = if round % 2 == 0 {
            cut(&disk, &mut [&mut a, &mut b], round).await
        } else {
            b.stop().await;
            cut(&disk, &mut [&mut a], round).await
        };
        expected.extend(acknowledged);
        disk.restart();
        for node in [&mut a, &mut b] {
            node.start().await;
            let verified = node.cli(&["--json", "verify"], "").await;
            assert_eq!(code(&verified), 0, "round {round}: {}", printed(&verified));
        }
        // Asked before peers can have helped much, and again when they have.
        let held_here: BTreeSet<String> = held(&a).await.union(&held(&b).await).cloned().collect();
        let lost: Vec<_> = expected.difference(&held_here).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    converged(&[&a, &b, &c]).await;
    for node in [&a, &b, &c] {
        let lost: Vec<_> = expected.difference(&held(node).await).cloned().collect();
        assert_eq!(lost, Vec::<String>::new());
        node.assert_sound().await;
        no_forks(node).await;
    }
    figure("power cuts", &json!({ "cuts": rounds, "acknowledged": expected.len(), "lost": 0 }));
}

/// The canary: with a library that does nothing for a sync the same cut must lose what was acknowledged, or the test above
/// proves nothing. Then the node is brought back by what an operator has.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_on_a_disk_that_lies_is_noticed_and_peers_give_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = disk(folder.path(), "a power cut on a disk that lies") else { return };
    let found =
        sh("ls /usr/lib/*/libeatmydata.so /usr/lib*/libeatmydata.so 2>/dev/null | head -n 1").unwrap_or_default();
    if found.trim().is_empty() {
        return not_tested("a power cut on a disk that lies", "libeatmydata is not installed (Debian: libeatmydata1)");
    }
    let mut a = Node::found(&disk.folder(), "a").await;
    let c = Node::join(folder.path(), "c", &a).await;
    converged(&[&a, &c]).await;
    knows_others(&a).await;
    a.stop().await;
    let (mut lost, mut refused) = (0, 0);
    let mut expected = BTreeSet::new();
    let rounds = scaled(10, 1);
    for round in 0..rounds {
        sh(&format!("sync -f '{}'", disk.folder().display())).unwrap();
        a.set_environment(&[("LD_PRELOAD", found.trim())]);
        a.start().await;
        // Only what reaches nobody else can be lost.
        c.freeze();
        let acknowledged = cut(&disk, &mut [&mut a], round).await;
        disk.restart();
        a.set_environment(&[]);
        let came_up = a.try_start().await.is_ok();
        let left = if came_up { held(&a).await } else { BTreeSet::new() };
        lost += acknowledged.difference(&left).count();
        c.thaw();
        if came_up {
            a.kill();
        } else {
            refused += 1;
        }
        let done = a.cli(&["--json", "rejoin"], "").await;
        assert_eq!(code(&done), 0, "{}", printed(&done));
        a.start().await;
        let doc = format!("after-{round}");
        a.put("load", &doc, json!({ "n": round })).await;
        expected.insert(doc);
        converged(&[&a, &c]).await;
        for node in [&a, &c] {
            assert!(held(node).await.is_superset(&expected), "what was written after the repair stays");
            no_forks(node).await;
        }
        a.stop().await;
    }
    assert!(lost > 0, "without a sync a power cut must lose something: the test of power cuts is blind");
    figure(
        "power cuts, disk lies",
        &json!({ "cuts": rounds, "acknowledged_lost": lost, "start_refused": refused, "full": is_full() }),
    );
}
