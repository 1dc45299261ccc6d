//! A disk without room: an error that says so, an end and no hanging, and everything acknowledged after a new start.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use folkmoot::ErrorCode;
use folkmoot::api::{Database as _, WriteOptions};
use folkmoot_tests::processes::{Node, id, name, text};
use serde_json::json;

/// Room for an empty store and some documents.
const DISK: &str = "192m";
/// A document's text: a few hundred of them fill what room is left.
const TEXT_BYTES: usize = 64 << 10;
/// What is left of the disk for the documents.
const ROOM_BYTES: u64 = 4 << 20;

/// A small file system in memory.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "tmpfs"])
            .arg(at)
            .output()
            .map_err(|error| format!("run mount: {error}"))?;
        if output.status.success() {
            return Ok(Self(at.to_owned()));
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Fills the disk but for so many bytes.
    fn fill(&self, room: u64) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        let chunk = vec![7; 64 << 10];
        while file.write_all(&chunk).is_ok() {}
        let full = file.metadata().unwrap().len();
        file.set_len(full.saturating_sub(room)).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The folder goes with the test anyway; lazily, should a process still be in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_node_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = match Disk::mount(&folder.path().join("disk")) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("NOT TESTED: a full disk. A small file system cannot be mounted here ({why}); run this as root.");
            return;
        }
    };
    let mut node = Node::found(&disk.0, "a").await;
    let filler = disk.fill(ROOM_BYTES);
    let client = node.impatient_client();
    let mut acknowledged = 0;
    // Not compressible: the store compresses.
    let noise = |n: u64| {
        let mut state = n + 1;
        let next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
        };
        std::iter::repeat_with(next).take(TEXT_BYTES).collect::<String>()
    };
    let failure = loop {
        let json = text(&json!({ "n": acknowledged, "text": noise(acknowledged) }));
        let doc = id(&format!("doc-{acknowledged:04}"));
        match client.put(&name("load"), doc, json, &WriteOptions::default()).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 4_000, "the disk does not fill");
    };
    println!("{acknowledged} writes were acknowledged, then: {failure:?}");
    let expected = [ErrorCode::UnknownOutcome, ErrorCode::StoreFailed, ErrorCode::LowSpace, ErrorCode::Unreachable];
    assert!(expected.contains(&failure.code()), "{failure:?}");
    let status = node.ended().await;
    let log = node.log();
    assert!(!status.success(), "{status}");
    assert!(log.contains("No space left") || log.contains("space"), "the log does not say why");
    assert!(!log.contains("panicked"), "a full disk is no reason to panic");

    // It does not come up while there is no room, or it comes up and takes no harm.
    std::fs::remove_file(&filler).unwrap();
    node.start().await;
    for n in 0..acknowledged {
        let document = node.get("load", &format!("doc-{n:04}")).await.unwrap();
        assert_eq!(document["n"], n);
        assert_eq!(document["text"].as_str().unwrap(), noise(n));
    }
    node.put("load", "after", json!({"n": 1})).await;
    node.assert_sound().await;
}
