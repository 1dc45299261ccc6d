//! A disk whose syncs fail, or take long. A small library, compiled here, stands between the node and the system's calls.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use folkmoot::ErrorCode;
use folkmoot::api::{Database as _, WriteOptions};
use folkmoot_tests::processes::{Node, id, name, text, until};
use serde_json::json;

use super::{fill, held, no_forks, not_tested, sh};

/// While the file `fail` lies in the folder that FAULTY_DISK names, every sync fails; while `stall` does, none ends.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static int is_there(const char *name) {
    const char *folder = getenv("FAULTY_DISK");
    char path[4096];
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}
static int faulty(int fd, const char *call) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    while (is_there("stall")) usleep(10000);
    if (is_there("fail")) { errno = EIO; return -1; }
    return real(fd);
}
int fsync(int fd) { return faulty(fd, "fsync"); }
int fdatasync(int fd) { return faulty(fd, "fdatasync"); }
"#;

fn library(folder: &Path) -> Result<PathBuf, String> {
    let (source, library) = (folder.join("faulty.c"), folder.join("faulty.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    sh(&format!("cc -shared -fPIC -O1 -o '{}' '{}' -ldl", library.display(), source.display()))?;
    Ok(library)
}

/// A node on a disk that can be made to fail; the disk's faults are files in the folder that is returned.
async fn node(folder: &Path) -> Option<(Node, PathBuf)> {
    let library = match library(folder) {
        Ok(library) => library,
        Err(why) => {
            not_tested("a disk that fails", &format!("the library cannot be compiled: {why}"));
            return None;
        }
    };
    let faults = folder.join("faults");
    std::fs::create_dir(&faults).unwrap();
    let mut node = Node::new(folder, "a");
    node.set_environment(&[("LD_PRELOAD", library.to_str().unwrap()), ("FAULTY_DISK", faults.to_str().unwrap())]);
    node.start().await;
    Some((node, faults))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_ends_the_node_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some((mut node, faults)) = node(folder.path()).await else { return };
    let mut expected = fill(&node, "doc", 10).await;
    std::fs::write(faults.join("fail"), "").unwrap();
    let body = text(&json!({"n": 1}));
    let failure = node.impatient_client().put(&name("load"), id("doubtful"), body, &WriteOptions::default()).await;
    let failure = failure.unwrap_err();
    // Another commit may have failed first: then the write was not taken at all.
    let expected_codes = [ErrorCode::UnknownOutcome, ErrorCode::StoreFailed, ErrorCode::Unreachable];
    assert!(expected_codes.contains(&failure.code()), "{failure:?}");
    let status = node.ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(node.log().contains("cannot persist"), "{}", node.log());

    // It does not come up on such a disk either, and says why.
    let status = node.try_start().await.unwrap_err();
    assert_eq!(status.code(), Some(1), "{}", node.log());
    assert!(node.log().contains("Input/output error"), "{}", node.log());

    std::fs::remove_file(faults.join("fail")).unwrap();
    node.start().await;
    let found = held(&node).await;
    assert!(found.is_superset(&expected));
    // The write in doubt is there or not; both are right.
    expected.extend(found.contains("doubtful").then(|| "doubtful".to_owned()));
    assert_eq!(found, expected);
    node.assert_sound().await;
    no_forks(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_is_told_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let Some((node, faults)) = node(folder.path()).await else { return };
    fill(&node, "doc", 3).await;
    assert_eq!(node.http("GET", "/health/ready", &[], b"").await.status, 200);
    std::fs::write(faults.join("stall"), "").unwrap();
    let client = node.client().clone();
    let write = tokio::spawn(async move {
        client.put(&name("load"), id("slow"), text(&json!({"n": 1})), &WriteOptions::default()).await
    });
    until("the node says that it is not ready", async || {
        let answer = node.http("GET", "/health/ready", &[], b"").await;
        if answer.status == 503 { Ok(()) } else { Err(answer.json.to_string()) }
    })
    .await;
    let asked = Instant::now();
    assert_eq!(node.get("load", "doc-001").await.unwrap()["n"], 1, "reads go on");
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!(node.http("GET", "/health/live", &[], b"").await.status, 200);
    until("somebody is told", async || {
        let log = node.log();
        if log.contains("disk_stalled") { Ok(()) } else { Err("no alarm in the log".to_owned()) }
    })
    .await;
    assert!(!write.is_finished(), "nothing is acknowledged meanwhile");
    std::fs::remove_file(faults.join("stall")).unwrap();
    write.await.unwrap().unwrap();
    until("the node is ready again", async || {
        let answer = node.http("GET", "/health/ready", &[], b"").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.json.to_string()) }
    })
    .await;
    assert_eq!(held(&node).await.len(), 4);
    node.assert_sound().await;
    no_forks(&node).await;
}
