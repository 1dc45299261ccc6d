//! Three owners on three nodes, of whom two must agree: what one of them asks for does nothing anywhere until another approves.

use std::path::{Path, PathBuf};
use std::process::Output;

use folkmoot::api::{
    Access as _, Approval, Audit as _, AuditAction, AuditQuery, Authors as _, Database as _, LinkRule, NewPrincipal,
    PrincipalKind,
};
use folkmoot::{AuthorKey, ErrorCode, OpId};
use folkmoot_tests::processes::{Node, converged, printed, run_join, until};
use serde_json::{Value, json};

use crate::access::{refused, told, user, write};
use crate::keys::{install, new_key, path};

/// How a command ends when it has signed what waits.
const WAITS: i32 = 9;

struct Owned {
    /// The first is an admin, the others are editors.
    nodes: [Node; 3],
    /// The owners' key files, as installed on them.
    keys: [PathBuf; 3],
    recovery: PathBuf,
}

/// Runs three nodes, and makes the owners' keys on them the owners, of whom two are needed.
async fn three_owners(folder: &Path) -> Owned {
    let a = Node::found(folder, "a").await;
    let ticket = a.ticket(&["--uses", "2"]).await;
    let b = Node::join_with(folder, "b", &ticket).await;
    let c = Node::join_with(folder, "c", &ticket).await;
    let first = folder.join("recovery-0");
    told(&a, &["key", "save-recovery", path(&first)]).await;
    let mut made = Vec::new();
    for name in ["owner-a", "owner-b", "owner-c"] {
        made.push(new_key(folder, name).await);
    }
    let owners = made.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(",");
    let recovery = folder.join("recovery-1");
    let change = ["key", "recover", "--recovery-file", path(&first), "--owners", &owners, "--threshold", "2"];
    told(&a, &[&change[..], &["--new-recovery-out", path(&recovery)]].concat()).await;
    let keys: Vec<PathBuf> = made.into_iter().map(|(file, _)| file).collect();
    let keys: [PathBuf; 3] = keys.try_into().unwrap();
    let mut nodes = [a, b, c];
    for (node, file) in nodes.iter_mut().zip(&keys) {
        install(node, file).await;
    }
    for node in &nodes {
        until("the owners are known", async || {
            let keys = node.client().authors().await.map_err(|error| error.to_string())?;
            let here = keys.iter().filter(|key| key.rank == 0 && key.here).count();
            if here == 1 { Ok(()) } else { Err(format!("{keys:?}")) }
        })
        .await;
    }
    Owned { nodes, keys, recovery }
}

/// Returns what a command has signed that waits, and how many owners are missing.
fn waits(output: &Output) -> (String, u64) {
    assert_eq!(output.status.code(), Some(WAITS), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((told["code"].clone(), told["status"].clone()), (json!("awaits_approval"), json!(202)), "{told}");
    let op = told["awaits"]["op"].as_str().unwrap().to_owned();
    assert!(told["detail"].as_str().unwrap().contains(&format!("folkmoot approve {op}")), "{told}");
    (op, told["awaits"]["missing"].as_u64().unwrap())
}

/// Waits until a node knows of so many requests that wait, and of no other; returns them.
async fn waiting(node: &Node, count: usize) -> Vec<Approval> {
    until("it is known what waits", async || {
        let all = node.client().approvals().await.map_err(|error| error.to_string())?;
        if all.len() == count { Ok(all) } else { Err(format!("{all:?}")) }
    })
    .await
}

async fn has_user(node: &Node, name: &str) -> bool {
    node.client().principals().await.unwrap().iter().any(|principal| principal.name == name)
}

async fn until_user(nodes: &[&Node], name: &str) {
    for node in nodes {
        until(
            "the user is known",
            async || {
                if has_user(node, name).await { Ok(()) } else { Err("not yet".to_owned()) }
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_of_three_owners_asks_for_does_nothing_until_another_approves() {
    let folder = tempfile::tempdir().unwrap();
    let Owned { nodes: [mut a, mut b, mut c], keys, .. } = three_owners(folder.path()).await;

    // An editor's node makes no users by its own right: its owner's key has to.
    let asked = c.cli(&["user", "add", "ann", "--json"], "").await;
    let (op, missing) = waits(&asked);
    assert_eq!(missing, 1);
    let again = c.cli(&["user", "add", "ann", "--json"], "").await;
    assert_eq!(waits(&again).0, op, "asked twice, signed once");
    let body = br#"{"name": "bob", "kind": "user"}"#;
    let answer = c.http("POST", "/v1/principals", &[("content-type", "application/json")], body).await;
    assert_eq!((answer.status, answer.json["code"].as_str()), (202, Some("awaits_approval")), "{}", answer.json);
    let cora = NewPrincipal { name: "cora".to_owned(), kind: PrincipalKind::Service };
    let error = c.client().add_principal(&cora).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AwaitsApproval);
    assert_eq!(error.awaited().unwrap().missing, 1);

    for (node, asks) in [(&a, false), (&b, false), (&c, true)] {
        let listed = waiting(node, 3).await;
        assert_eq!(listed[0].op.to_string(), op);
        assert_eq!((listed[0].missing, listed[0].consenting.as_slice()), (1, [listed[0].owner].as_slice()));
        assert_eq!(listed[0].acts[0].does, "introduces the user \"ann\"");
        assert_eq!(listed[0].open_here, !asks);
        assert!(!has_user(node, "ann").await && !has_user(node, "bob").await);
        assert!(printed(&node.cli(&["approvals"], "").await).contains("introduces the user \"ann\""));
        assert!(printed(&node.cli(&["status"], "").await).contains("3 wait for further owners"));
        until("it is counted", async || {
            let counted = node.metrics().await["folkmoot_approvals_waiting"];
            if counted == 3.0 { Ok(()) } else { Err(counted.to_string()) }
        })
        .await;
    }

    // Who has asked cannot agree with itself, and neither can a thief with a copy of that key.
    let ann: OpId = op.parse().unwrap();
    refused(c.client().approve(&ann).await, ErrorCode::NotWaiting);
    b.stop().await;
    let stolen = b.cli(&["key", "install", path(&keys[2])], "").await;
    assert!(stolen.status.success(), "{stolen:?}");
    b.start().await;
    assert_eq!(b.cli(&["approve", &op], "").await.status.code(), Some(5));
    let evil = b.cli(&["user", "add", "evil", "--json"], "").await;
    waiting(&c, 4).await;
    refused(c.client().approve(&waits(&evil).0.parse().unwrap()).await, ErrorCode::NotWaiting);
    // Nor whoever is known by a token, nor without an owner's key; and what is not there is not approved.
    let root = user(&a, &a, "root", &[&["admin"]]).await;
    waiting(&a, 4).await;
    assert_eq!(root.approvals().await.unwrap().len(), 4);
    refused(root.approve(&ann).await, ErrorCode::NotAllowed);
    refused(a.client().approve(&OpId::new([7; 32])).await, ErrorCode::StatementNotFound);

    // Nothing has to be remembered beside the log.
    for node in [&mut a, &mut b, &mut c] {
        node.kill();
        node.start().await;
    }
    for node in [&a, &b, &c] {
        waiting(node, 4).await;
        assert!(!has_user(node, "ann").await && !has_user(node, "evil").await);
    }
    install(&mut b, &keys[1]).await;
    told(&b, &["approve", &op]).await;
    b.kill();
    b.start().await;
    until_user(&[&a, &b, &c], "ann").await;
    assert!(!has_user(&a, "bob").await && !has_user(&a, "evil").await, "each is approved for itself");
    refused(a.client().approve(&ann).await, ErrorCode::NotWaiting);
    converged(&[&a, &b, &c]).await;
    for node in [&a, &b, &c] {
        waiting(node, 3).await;
        node.assert_sound().await;
    }

    // Both sides are in the audit.
    let query = AuditQuery { action: Some(AuditAction::Approve), ..AuditQuery::default() };
    let told = b.client().audit(&query).await.unwrap().items;
    assert!(told.iter().any(|entry| entry.target == op), "{told:?}");
    let query = AuditQuery { action: Some(AuditAction::AddPrincipal), ..AuditQuery::default() };
    let told = c.client().audit(&query).await.unwrap().items;
    assert!(told.iter().any(|entry| entry.reason.contains("waits for 1 further owner")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_in_when_the_owners_agree() {
    let folder = tempfile::tempdir().unwrap();
    let Owned { nodes: [a, b, mut c], .. } = three_owners(folder.path()).await;
    let ticket = c.ticket(&["--role", "admin"]).await;
    let mut d = Node::new(folder.path(), "d");
    let joined = run_join(d.data(), "d", &ticket).await;
    assert_eq!(joined.status.code(), Some(WAITS), "{joined:?}");
    let text = printed(&joined);
    assert!(text.contains("waits for 1 further owner: `folkmoot approve "), "{text}");
    d.start().await;
    let listed = waiting(&b, 1).await.remove(0);
    assert!(text.contains(&listed.op.to_string()), "{text}");
    let does = listed.acts.iter().map(|act| act.does.as_str()).collect::<Vec<_>>().join("; ");
    for part in ["certifies the key", "makes the key", "is admin on *", "writes for others on *"] {
        assert!(does.contains(part), "{does}");
    }
    let ready = d.client().status().await.unwrap().readiness;
    assert!(ready.reasons.iter().any(|reason| reason.contains("admission")), "{ready:?}");
    refused(write(d.client(), "notes", "early", json!({"by": "d"})).await, ErrorCode::NotAllowed);
    let is_member = async |at: &Node, key: AuthorKey| {
        let peers = at.client().peers().await.unwrap();
        peers.iter().any(|peer| peer.node == key)
    };
    for node in [&a, &b, &c] {
        assert!(!is_member(node, d.key()).await);
    }
    c.kill();
    c.start().await;
    assert!(!is_member(&c, d.key()).await);
    told(&a, &["approve", &listed.op.to_string()]).await;
    until("the node may write", async || {
        write(d.client(), "notes", "first", json!({"by": "d"})).await.map_err(|error| error.to_string())
    })
    .await;
    converged(&[&a, &b, &c, &d]).await;
    for node in [&a, &b, &c] {
        assert!(is_member(node, d.key()).await);
        waiting(node, 0).await;
        assert_eq!(node.get("notes", "first").await.unwrap(), json!({"by": "d"}));
    }

    // The first node is as strong as an admin can be: to take it back is for the owners, all of it or nothing.
    let first = a.key();
    let cut = b.cli(&["key", "revoke", &first.to_string(), "--why", "stolen", "--json"], "").await;
    let (op, _) = waits(&cut);
    let listed = waiting(&c, 1).await.remove(0);
    assert_eq!((listed.op.to_string(), listed.acts.len()), (op.clone(), 2), "certificate and membership: {listed:?}");
    assert!(listed.acts[0].does.ends_with("because: \"stolen\""), "{listed:?}");
    assert!(is_member(&b, first).await && is_member(&c, first).await);
    told(&c, &["approve", &op]).await;
    for node in [&b, &c, &d] {
        until("the first node is out", async || {
            if is_member(node, first).await { Err("it is a member".to_owned()) } else { Ok(()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_changes_its_key_and_the_owners_themselves_when_they_agree() {
    let folder = tempfile::tempdir().unwrap();
    let Owned { nodes: [mut a, b, c], recovery, .. } = three_owners(folder.path()).await;
    let old = a.key();
    let (op, _) = waits(&a.cli(&["key", "rotate", "node", "--json"], "").await);
    waiting(&b, 1).await;
    a.kill();
    a.start().await;
    assert_eq!(a.key(), old, "not certified yet");
    told(&b, &["approve", &op]).await;
    waiting(&a, 0).await;
    // Not killed: what it has heard of just now may not be on its disk, and it would take the key up one start later.
    a.stop().await;
    a.start().await;
    assert_ne!(a.key(), old);
    // The key before is taken back by the node itself, which waits too, and once.
    let back = waiting(&c, 1).await.remove(0);
    assert_eq!(back.acts.len(), 2, "{back:?}");
    a.kill();
    a.start().await;
    converged(&[&a, &b, &c]).await;
    assert_eq!(waiting(&c, 1).await[0].op, back.op);
    assert_eq!(a.metrics().await.get("folkmoot_node_keys_retiring").copied(), Some(2.0));
    told(&c, &["approve", &back.op.to_string()]).await;
    for node in [&a, &b, &c] {
        until("the key before is taken back", async || {
            let keys = node.client().authors().await.map_err(|error| error.to_string())?;
            let found = keys.iter().find(|key| key.key == old.to_string());
            found.map_or(Ok(()), |found| Err(format!("{found:?}")))
        })
        .await;
    }

    // What the owners before left open is nobody's to approve.
    let (open, _) = waits(&b.cli(&["user", "add", "ann", "--json"], "").await);
    waiting(&c, 1).await;
    let next = folder.path().join("recovery-2");
    let one = new_key(folder.path(), "owner-next").await;
    let change = ["key", "recover", "--recovery-file", path(&recovery), "--owners", &one.1];
    told(&a, &[&change[..], &["--new-recovery-out", path(&next)]].concat()).await;
    for node in [&a, &b, &c] {
        waiting(node, 0).await;
        assert!(!has_user(node, "ann").await);
    }
    refused(c.client().approve(&open.parse().unwrap()).await, ErrorCode::NotAllowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_takes_it_back_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let Owned { nodes: [a, b, mut c], .. } = three_owners(folder.path()).await;
    let ask = async |name: &str| waits(&c.cli(&["user", "add", name, "--json"], "").await).0;
    let (ann, bob, cora) = (ask("ann").await, ask("bob").await, ask("cora").await);
    for node in [&a, &b] {
        waiting(node, 3).await;
    }
    // Another owner does not, nor whoever is known by a token; and only what waits.
    assert_eq!(b.cli(&["approvals", "withdraw", &ann], "").await.status.code(), Some(4));
    let root = user(&a, &a, "root", &[&["admin"]]).await;
    let op = |text: &str| -> OpId { text.parse().unwrap() };
    refused(root.withdraw(&op(&ann)).await, ErrorCode::NotAllowed);
    refused(c.client().withdraw(&OpId::new([7; 32])).await, ErrorCode::StatementNotFound);

    // By the command line, REST and SDK.
    let withdrawn = told(&c, &["approvals", "withdraw", &ann]).await;
    assert_eq!(withdrawn["op"], json!(ann));
    let answer = c.http("DELETE", &format!("/v1/approvals/{bob}"), &[], b"").await;
    assert_eq!((answer.status, answer.json["op"].clone()), (200, json!(bob)), "{}", answer.json);
    let answer = c.http("PUT", &format!("/v1/approvals/{bob}"), &[], b"").await;
    assert_eq!(answer.status, 405);
    refused(c.client().withdraw(&op(&bob)).await, ErrorCode::NotWaiting);
    c.kill();
    c.start().await;
    for node in [&a, &b, &c] {
        assert_eq!(waiting(node, 1).await[0].op.to_string(), cora);
        let error = node.client().approve(&op(&ann)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotWaiting);
        assert!(error.detail().contains("withdrawn"), "{error}");
    }
    assert_eq!(c.client().withdraw(&op(&cora)).await.unwrap().op.to_string(), cora);
    waiting(&b, 0).await;

    // What is approved on a node that has not heard of it counts.
    let dora = waits(&c.cli(&["user", "add", "dora", "--json"], "").await).0;
    waiting(&b, 1).await;
    for node in [&a, &c] {
        node.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    }
    told(&c, &["approvals", "withdraw", &dora]).await;
    waiting(&a, 0).await;
    told(&b, &["approve", &dora]).await;
    for node in [&a, &c] {
        assert!(!has_user(node, "dora").await);
        node.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    }
    until_user(&[&a, &b, &c], "dora").await;
    converged(&[&a, &b, &c]).await;
}
