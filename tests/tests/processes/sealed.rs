//! Encryption at rest: what lies on the disk says nothing without its key, and the key comes from where it should.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use folkmoot_tests::processes::{Node, converged, printed, run, until};
use serde_json::json;

use crate::access::{holds, told};

/// What no file may show: in the text of documents, in ids within them, in what was overwritten or deleted, in the names of
/// people.
const PLANTED: [&str; 6] =
    ["planted-first", "planted-second", "planted-reference", "planted-deleted", "planted-long", "planted-person"];
/// Exit code of a command that cannot unlock the data directory.
const LOCKED: i32 = 8;

/// Writes, edits and deletes documents with secrets in them, and ends in a kill. Returns a token that was issued.
async fn plant(node: &mut Node) -> String {
    node.put("notes", "a", json!({ "text": PLANTED[0], "of": { "ref": PLANTED[2] } })).await;
    node.put("notes", "a", json!({ "text": PLANTED[1], "of": { "ref": PLANTED[2] } })).await;
    node.put("notes", "gone", json!({ "text": PLANTED[3] })).await;
    told(node, &["delete", "notes", "gone"]).await;
    // So much that it is folded, compressed and written to tables.
    for n in 0..40 {
        node.put("notes", "long", json!({ "n": n, "text": format!("{} {n} ", PLANTED[4]).repeat(200) })).await;
    }
    told(node, &["index", "create", "notes", "--wait", "text", "of.ref"]).await;
    told(node, &["user", "add", PLANTED[5]]).await;
    let token = told(node, &["token", "issue", PLANTED[5]]).await["token"].as_str().unwrap().to_owned();
    node.kill();
    token
}

/// Returns every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

async fn code(arguments: &[&str], data: &Path) -> (Option<i32>, String) {
    let output = run(arguments.iter().copied().chain(["--data", data.to_str().unwrap()]), "").await;
    (output.status.code(), printed(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_on_the_disk_shows_what_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let mut plain = Node::found_with(folder.path(), "plain", &["--key-source", "none"]).await;
    plant(&mut plain).await;
    for secret in PLANTED {
        assert!(holds(plain.data(), secret.as_bytes()), "{secret} is not even found where nothing is sealed");
    }
    let mut a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    let token = plant(&mut a).await;
    a.start().await;
    converged(&[&a, &b]).await;
    assert_eq!(a.get("notes", "a").await.unwrap()["text"], PLANTED[1]);
    a.assert_sound().await;
    b.assert_sound().await;
    a.stop().await;
    b.kill();
    for node in [&a, &b] {
        let (code, said) = code(&["verify"], node.data()).await;
        assert_eq!(code, Some(0), "{said}");
        for secret in PLANTED.iter().copied().chain([token.as_str()]) {
            assert!(!holds(node.data(), secret.as_bytes()), "{secret} lies in {}", node.data().display());
        }
        let key = std::fs::read_to_string(node.data().join("master.key")).unwrap();
        for file in files(node.data()) {
            let is_key = file.0.ends_with("master.key");
            assert!(is_key || !file.1.windows(key.trim().len()).any(|part| part == key.trim().as_bytes()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_a_directory_gives_nothing_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    a.put("notes", "a", json!({ "n": 1 })).await;
    a.stop().await;
    let key = a.data().join("master.key");
    let elsewhere = folder.path().join("moved.key");
    std::fs::rename(&key, &elsewhere).unwrap();
    let before = files(a.data());
    let wrong = folder.path().join("wrong.key");
    std::fs::write(&wrong, "ab".repeat(32)).unwrap();
    let wrong = wrong.to_str().unwrap().to_owned();
    for more in [&[][..], &["--key-file", &wrong]] {
        for command in ["verify", "repair", "rejoin"] {
            let arguments: Vec<&str> = [command].into_iter().chain(more.iter().copied()).collect();
            let (code, said) = code(&arguments, a.data()).await;
            assert_eq!(code, Some(LOCKED), "{arguments:?}: {said}");
            assert!(said.contains("key"), "{said}");
        }
        let mut node = Node::new(folder.path(), "a");
        node.set_arguments(more);
        assert_eq!(node.try_start().await.unwrap_err().code(), Some(LOCKED), "{}", node.log());
    }
    assert!(files(a.data()) == before, "a command that was refused changed something");
    let elsewhere = elsewhere.to_str().unwrap();
    let mut node = Node::new(folder.path(), "a");
    node.set_arguments(&["--key-file", elsewhere]);
    node.start().await;
    assert_eq!(node.get("notes", "a").await.unwrap(), json!({ "n": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_the_environment_a_passphrase_or_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let key = "0123456789abcdef".repeat(4);
    let passphrase = folder.path().join("phrase");
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    let passphrase = passphrase.to_str().unwrap();
    let command = format!("printf {key}");
    let in_environment = ("FOLKMOOT_MASTER_KEY", key.as_str());
    let cases = [
        ("environment", vec![], vec![in_environment]),
        ("passphrase", vec!["--passphrase-file", passphrase], vec![]),
        ("command", vec!["--key-command", command.as_str()], vec![]),
    ];
    for (source, arguments, environment) in cases {
        let mut node = Node::new(folder.path(), source);
        let first: Vec<&str> = ["--key-source", source].into_iter().chain(arguments.iter().copied()).collect();
        node.set_arguments(&first);
        node.set_environment(&environment);
        node.start().await;
        node.put("notes", "a", json!({ "n": 1 })).await;
        node.kill();
        assert!(!node.data().join("master.key").exists());
        // Where the key comes from stands in the keyring.
        node.set_arguments(&arguments);
        node.start().await;
        assert_eq!(node.get("notes", "a").await.unwrap(), json!({ "n": 1 }));
        node.kill();
        node.set_arguments(&[]);
        node.set_environment(&[]);
        assert_eq!(node.try_start().await.unwrap_err().code(), Some(LOCKED));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_is_made_again_of_what_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    for n in 0..30 {
        a.put("notes", &format!("d{n}"), json!({ "n": n })).await;
    }
    a.kill();
    // Without its version file the engine opens nothing.
    std::fs::remove_file(a.data().join("store/version")).unwrap();
    let (damaged, said) = code(&["verify"], a.data()).await;
    assert_eq!(damaged, Some(6), "{said}");
    let (mended, said) = code(&["repair"], a.data()).await;
    assert_eq!(mended, Some(0), "{said}");
    assert!(!holds(&a.data().join("store"), b"\"n\":1"));
    a.start().await;
    until("every document is there", async || {
        let all = a.all("notes").await.map_err(|error| error.to_string())?;
        if all.len() == 30 { Ok(()) } else { Err(format!("{} documents", all.len())) }
    })
    .await;
    assert_eq!(a.get("notes", "d7").await.unwrap(), json!({ "n": 7 }));
    a.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_while_the_node_runs_and_while_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    for n in 0..600 {
        a.put("notes", &format!("d{n}"), json!({ "n": n })).await;
    }
    let keyring = || std::fs::read(folder.path().join("a/keyring.json")).unwrap();
    let master = folder.path().join("a/master.key");
    let (old_keyring, old_master) = (keyring(), std::fs::read(&master).unwrap());
    let rotated = told(&a, &["keys", "rotate"]).await;
    assert_eq!((&rotated["source"], &rotated["rotating"]), (&json!("file"), &json!(true)));
    // A kill in the middle loses nothing; the next start goes on.
    a.kill();
    a.start().await;
    until("every key is wrapped again", async || {
        let info = told(&a, &["keys"]).await;
        if info["rotating"] == json!(false) { Ok(()) } else { Err(info.to_string()) }
    })
    .await;
    let rotated = told(&a, &["keys", "rotate", "--master"]).await;
    assert_eq!(rotated["rotating"], json!(false));
    assert!(keyring() != old_keyring && std::fs::read(&master).unwrap() != old_master);
    // A new collection's key is saved under the new master key.
    a.put("others", "a", json!({ "n": 1 })).await;
    a.kill();
    a.start().await;
    for n in [0, 255, 256, 599] {
        assert_eq!(a.get("notes", &format!("d{n}")).await.unwrap(), json!({ "n": n }));
    }
    assert_eq!(a.get("others", "a").await.unwrap(), json!({ "n": 1 }));
    a.assert_sound().await;
    let metrics = a.http("GET", "/metrics", &[], b"").await;
    assert_eq!(metrics.status, 200);
    let answer = a.http("POST", "/v1/keys", &[], br#"{"rotate":"nothing"}"#).await;
    assert_eq!(answer.status, 400);
    a.stop().await;
    // What the old keyring opened is not opened by it any more: the documents' keys are under others.
    std::fs::write(&master, &old_master).unwrap();
    let (locked, said) = code(&["verify"], a.data()).await;
    assert_eq!(locked, Some(LOCKED), "{said}");
    let new_keyring = keyring();
    std::fs::write(folder.path().join("a/keyring.json"), &old_keyring).unwrap();
    let (damaged, said) = code(&["verify"], a.data()).await;
    assert_eq!(damaged, Some(6), "{said}");
    std::fs::write(folder.path().join("a/keyring.json"), &new_keyring).unwrap();

    let mut b = Node::found(folder.path(), "b").await;
    b.stop().await;
    let passphrase = folder.path().join("passphrase");
    std::fs::write(&passphrase, "correct horse battery staple").unwrap();
    let passphrase = passphrase.to_str().unwrap();
    let (done, said) =
        code(&["keys", "rekey", "--new-source", "passphrase", "--new-passphrase-file", passphrase], b.data()).await;
    assert_eq!(done, Some(0), "{said}");
    assert_eq!(code(&["verify"], b.data()).await.0, Some(LOCKED));
    assert_eq!(code(&["verify", "--passphrase-file", passphrase], b.data()).await.0, Some(0));
}
