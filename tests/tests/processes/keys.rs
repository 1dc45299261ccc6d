//! The life of keys that sign: owners replaced by recovery keys while a thief acts, keys in files, devices taken back.

use std::path::{Path, PathBuf};

use folkmoot::api::{Access as _, AuthorKind, Authors as _, Database as _, LinkRule, QuarantineQuery, RevokeOptions};
use folkmoot::{AuthorKey, Client, ErrorCode, OpId};
use folkmoot_tests::processes::{Node, converged, printed, run, until};
use serde_json::{Value, json};

use crate::access::{refused, told, write};

pub(crate) fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

/// Makes a key for an owner; returns its file and its public half.
pub(crate) async fn new_key(folder: &Path, name: &str) -> (PathBuf, String) {
    let file = folder.join(name);
    let output = run(["key", "new", path(&file), "--json"], "").await;
    assert!(output.status.success(), "{output:?}");
    let made: Value = serde_json::from_str(&printed(&output)).unwrap();
    (file, made["key"].as_str().unwrap().to_owned())
}

async fn owners(node: &Node) -> Vec<String> {
    let keys = node.client().authors().await.unwrap();
    keys.into_iter().filter(|key| key.kind == AuthorKind::Owner).map(|key| key.key).collect()
}

/// Waits until nodes agree on what counts; one of them may hold ops besides that are cut, and that the others do not fetch.
async fn agree(nodes: &[&Node]) {
    until("the nodes agree", async || {
        let mut told = Vec::new();
        for node in nodes {
            let digests = node.client().digests().await.map_err(|error| error.to_string())?;
            let parts =
                digests.into_iter().map(|shard| (shard.collection, shard.shard, shard.ops_digest, shard.state_digest));
            let mut parts: Vec<_> = parts.collect();
            parts.sort();
            told.push(parts);
        }
        if told.windows(2).all(|pair| pair[0] == pair[1]) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

/// Puts an owner's key into the data directory of a node, which is stopped for that.
pub(crate) async fn install(node: &mut Node, file: &Path) {
    node.stop().await;
    let output = node.cli(&["key", "install", path(file)], "").await;
    assert!(output.status.success(), "{output:?}");
    node.start().await;
}

/// Makes others the owners.
async fn recover(on: &Node, with: &Path, owner: &str, next: &Path) -> Value {
    let recovery = ["key", "recover", "--recovery-file", path(with), "--owners", owner];
    told(on, &[&recovery[..], &["--new-recovery-out", path(next)]].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_of_the_owners_key_is_shut_out_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut a = Node::found(folder, "a").await;
    let ticket = a.ticket(&["--uses", "2"]).await;
    let mut b = Node::join_with(folder, "b", &ticket).await;
    let mut c = Node::join_with(folder, "c", &ticket).await;

    // The recovery key is put away, and the node stops asking for that.
    assert_eq!(a.metrics().await["folkmoot_recovery_key_unconfirmed"], 1.0);
    assert!(printed(&a.cli(&["status"], "").await).contains("confirm-recovery"));
    let first = folder.join("recovery-0");
    told(&a, &["key", "save-recovery", path(&first)]).await;
    let beside = a.data().join("recovery-copy");
    std::fs::copy(&first, &beside).unwrap();
    let answer = a.cli(&["key", "confirm-recovery", "--recovery-file", path(&beside)], "").await;
    assert_eq!(answer.status.code(), Some(2), "a copy beside the original is none: {answer:?}");
    let (other, _) = new_key(folder, "no-recovery-key").await;
    assert!(!a.cli(&["key", "confirm-recovery", "--recovery-file", path(&other)], "").await.status.success());
    told(&a, &["key", "confirm-recovery", "--recovery-file", path(&first)]).await;
    assert!(!a.data().join("recovery.key").exists());
    until("it is not asked for any more", async || {
        let asked = a.metrics().await["folkmoot_recovery_key_unconfirmed"];
        if asked == 0.0 { Ok(()) } else { Err(asked.to_string()) }
    })
    .await;

    // The owner's key is changed in peace; the new one is used on the second node.
    let (stolen, stolen_key) = new_key(folder, "owner-1").await;
    let second = folder.join("recovery-1");
    recover(&a, &first, &stolen_key, &second).await;
    a.kill();
    a.start().await;
    for node in [&a, &b, &c] {
        until("the new owner is known", async || {
            let owners = owners(node).await;
            if owners == [stolen_key.clone()] { Ok(()) } else { Err(format!("{owners:?}")) }
        })
        .await;
    }
    assert!(b.cli(&["invite", "--role", "admin"], "").await.status.code() == Some(4), "an editor admits nobody");
    install(&mut b, &stolen).await;
    b.ticket(&["--role", "admin"]).await;
    // A recovery key is used once, and one of another cluster opens nothing.
    for used in [&first, &stolen] {
        let wrong = ["key", "recover", "--recovery-file", path(used), "--owners", &stolen_key];
        let out = folder.join("never");
        let answer = a.cli(&[&wrong[..], &["--new-recovery-out", path(&out)]].concat(), "").await;
        assert!(!answer.status.success() && !out.exists(), "{answer:?}");
    }

    // A thief has got it, and lets a node of its own in where nobody sees it.
    a.put("notes", "honest", json!({"by": "a"})).await;
    converged(&[&a, &b, &c]).await;
    for node in [&a, &b] {
        node.client().set_link(&c.key(), LinkRule::Blocked).await.unwrap();
    }
    c.stop().await;
    let output = c.cli(&["key", "install", path(&stolen)], "").await;
    assert!(output.status.success(), "{output:?}");
    c.start().await;
    let door = c.ticket(&["--role", "admin"]).await;
    let d = Node::join_with(folder, "d", &door).await;
    d.put("notes", "evil", json!({"by": "thief"})).await;
    until("the thief's node is believed where it is", async || {
        c.get("notes", "evil").await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;

    // Elsewhere the owners are replaced meanwhile.
    let (fresh, fresh_key) = new_key(folder, "owner-2").await;
    let third = folder.join("recovery-2");
    let done = recover(&b, &second, &fresh_key, &third).await;
    let act: OpId = done["act"].as_str().unwrap().parse().unwrap();
    for node in [&a, &b] {
        node.client().set_link(&c.key(), LinkRule::Open).await.unwrap();
    }
    for node in [&a, &b, &c] {
        until("the newest owner is known", async || {
            let owners = owners(node).await;
            if owners == [fresh_key.clone()] { Ok(()) } else { Err(format!("{owners:?}")) }
        })
        .await;
    }
    agree(&[&a, &b, &c]).await;
    for node in [&a, &b, &c] {
        until("what the thief's node wrote is gone", async || match node.get("notes", "evil").await {
            Err(error) if error.code() == ErrorCode::DocumentNotFound => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(node.get("notes", "honest").await.unwrap(), json!({"by": "a"}));
        let members = node.client().peers().await.unwrap();
        assert!(members.iter().all(|member| member.node != d.key()), "{members:?}");
        node.assert_sound().await;
    }
    // The key opens nothing any more, on whatever node it lies; the new one does.
    for node in [&b, &c] {
        assert_eq!(node.cli(&["invite", "--role", "admin"], "").await.status.code(), Some(4));
    }
    install(&mut b, &fresh).await;
    b.ticket(&["--role", "admin"]).await;
    // Nobody undoes it.
    for node in [&a, &b, &c] {
        assert!(node.client().revoke(&act, &RevokeOptions::default()).await.is_err());
    }
    let owner: AuthorKey = fresh_key.parse().unwrap();
    refused(a.client().revoke_author(&owner, &RevokeOptions::default()).await, ErrorCode::NotAllowed);
    assert_eq!(owners(&a).await, [fresh_key]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_shut_out_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    b.put("notes", "before", json!({"by": "b"})).await;
    converged(&[&a, &b]).await;
    let key = b.key().to_string();
    let listed = printed(&a.cli(&["key", "list"], "").await);
    assert!(listed.contains(&key) && listed.contains("recovery") && listed.contains("owner"), "{listed}");
    told(&a, &["key", "revoke", &key, "--why", "stolen"]).await;
    assert!(!printed(&a.cli(&["key", "list"], "").await).contains(&key));
    assert!(a.client().peers().await.unwrap().is_empty(), "it is no member any more");
    b.put("notes", "after", json!({"by": "thief"})).await;
    assert_eq!(a.get("notes", "before").await.unwrap(), json!({"by": "b"}));
    refused(a.get("notes", "after").await, ErrorCode::DocumentNotFound);
    refused(a.client().revoke_author(&b.key(), &RevokeOptions::default()).await, ErrorCode::StatementNotFound);
}

/// Writes one document after the other until the node is gone; returns those that were acknowledged.
async fn write_until_it_ends(client: Client, prefix: String) -> Vec<String> {
    let mut written = Vec::new();
    for n in 0.. {
        let doc = format!("{prefix}-{n}");
        if write(&client, "notes", &doc, json!({"n": n})).await.is_err() {
            break;
        }
        written.push(doc);
    }
    written
}

/// Kills a node while it is written to, and starts it again; returns what it had acknowledged.
async fn killed_under_load(node: &mut Node, prefix: &str) -> Vec<String> {
    let writer = tokio::spawn(write_until_it_ends(node.impatient_client(), prefix.to_owned()));
    let first = format!("{prefix}-20");
    until("some are written", async || node.get("notes", &first).await.map(|_| ()).map_err(|error| error.to_string()))
        .await;
    node.kill();
    let written = writer.await.unwrap();
    node.start().await;
    written
}

async fn is_member(at: &Node, key: AuthorKey) -> bool {
    at.client().peers().await.unwrap().iter().any(|peer| peer.node == key)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_change_their_keys_under_load_without_losing_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    let (old_a, old_b) = (a.key(), b.key());
    let mut written = Vec::new();

    // Not certified yet: whatever befalls the node, it keeps the key that it has.
    let next = told(&b, &["key", "rotate", "node"]).await;
    assert_eq!((next["certified"].clone(), next["old"].clone()), (json!(false), json!(old_b.to_string())));
    written.extend(killed_under_load(&mut b, "early").await);
    assert_eq!(b.key(), old_b);

    // Certified by a stronger node, the same key is taken up.
    let again = told(&b, &["key", "rotate", "node", "--by", path(a.data())]).await;
    assert_eq!((again["certified"].clone(), again["new"].clone()), (json!(true), next["new"].clone()));
    until("the certificate has come", async || {
        let keys = b.client().authors().await.map_err(|error| error.to_string())?;
        if keys.iter().any(|key| key.key == next["new"]) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    written.extend(killed_under_load(&mut b, "between").await);
    assert_eq!(json!(b.key().to_string()), next["new"]);
    written.extend(killed_under_load(&mut b, "late").await);
    assert_eq!(json!(b.key().to_string()), next["new"], "and kept");
    converged(&[&a, &b]).await;
    told(&a, &["key", "revoke", &old_b.to_string()]).await;
    assert!(is_member(&a, b.key()).await && !is_member(&a, old_b).await);

    // The first node may certify its own, and takes the one before back.
    let own = told(&a, &["key", "rotate", "node"]).await;
    assert_eq!(own["certified"], json!(true));
    written.extend(killed_under_load(&mut a, "first").await);
    assert_eq!(json!(a.key().to_string()), own["new"]);
    until("the key before is taken back", async || {
        if is_member(&b, old_a).await { Err("it is a member".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(is_member(&b, a.key()).await);
    a.put("notes", "after", json!({"by": "a"})).await;
    b.put("notes", "after-too", json!({"by": "b"})).await;
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        for doc in written.iter().map(String::as_str).chain(["after", "after-too"]) {
            node.get("notes", doc).await.unwrap_or_else(|error| panic!("{doc}: {error}"));
        }
        node.assert_sound().await;
        let verified = node.cli(&["audit", "verify"], "").await;
        assert!(verified.status.success(), "{verified:?}");
        assert!(node.client().quarantine(&QuarantineQuery::default()).await.unwrap().items.is_empty());
    }
    // The node is who it was: it admits others, and an old file of the key before is of no use.
    let c = Node::join(folder.path(), "c", &a).await;
    converged(&[&a, &b, &c]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_files_are_sealed_by_a_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (file, public) = new_key(folder, "key").await;
    let phrase = folder.join("phrase");
    std::fs::write(&phrase, "correct horse\n").unwrap();
    let clear = std::fs::read_to_string(&file).unwrap();
    let with = ["--key-passphrase-file", path(&phrase)];
    let output = run([&["key", "seal", path(&file)], &with[..]].concat(), "").await;
    assert!(output.status.success(), "{output:?}");
    assert!(!std::fs::read_to_string(&file).unwrap().contains(clear.trim()));
    let wrong = run(["key", "unseal", path(&file)], "battery staple\n").await;
    assert_eq!(wrong.status.code(), Some(8), "{wrong:?}");
    let output = run(["key", "unseal", path(&file)], "correct horse\n").await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), clear);
    assert_eq!(public.len(), 64);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = run(["key", "new", path(&file)], "").await;
    assert!(!again.status.success() && std::fs::read_to_string(&file).unwrap() == clear, "a key is never overwritten");
}
