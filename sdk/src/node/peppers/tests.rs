//! What a member can find out that has no pepper, and what a node says that lacks one.

use std::net::IpAddr;
use std::path::Path;

use folkmoot_core::authority::Password;
use folkmoot_core::id::{PrincipalId, TokenVerifier};
use folkmoot_core::op::Secret;

use super::super::password::{Cost, hashed};
use super::*;
use crate::api::{Access as _, Database as _, InviteOptions, NewPassword, NewPrincipal, PrincipalKind, PrincipalName};
use crate::node::{InitOptions, JoinOptions, Node, NodeConfig};

const GOOD: &str = "correct horse battery";

async fn founded(folder: &Path) -> Node {
    let data = folder.join("a");
    Node::init(&data, &InitOptions::default()).unwrap();
    Node::open(NodeConfig::new(&data)).await.unwrap()
}

async fn joined(folder: &Path, name: &str, by: &Node, role: &str) -> Node {
    let data = folder.join(name);
    let invite = by.invite(&InviteOptions { role: role.to_owned(), ..InviteOptions::default() }).await.unwrap();
    Node::join(&data, &invite.ticket, JoinOptions { name: name.to_owned(), ..JoinOptions::default() }).await.unwrap();
    Node::open(NodeConfig::new(&data)).await.unwrap()
}

fn named(name: &str) -> PrincipalName {
    name.parse().unwrap()
}

async fn add(node: &Node, name: &str) -> PrincipalId {
    node.add_principal(&NewPrincipal { name: name.to_owned(), kind: PrincipalKind::User }).await.unwrap().id
}

/// Waits until a node knows somebody's password.
async fn known(node: &Node, principal: PrincipalId) -> Password {
    for _ in 0..500 {
        let policy = node.inner.core.policy.borrow().clone();
        if let [password] = policy.passwords(principal) {
            return *password;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no password came within ten seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_pepper_tests_no_guess_with_all_of_the_log_and_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let a = founded(folder.path()).await;
    let edge = joined(folder.path(), "edge", &a, "reader").await;
    let ann = add(&a, "ann").await;
    a.set_password(&named("ann"), &NewPassword::new(GOOD)).await.unwrap();
    let Password { verifier, hash, .. } = known(&edge, ann).await;
    assert_eq!(known(&a, ann).await.verifier, verifier);
    let made = hashed(GOOD, &Cost::of(&hash)).unwrap();

    // Every share that there is, with the one key that it has.
    let policy = edge.inner.core.policy.borrow().clone();
    let holders = policy.pepper(hash.pepper).unwrap().holders.clone();
    assert_eq!(holders, [a.key()].into());
    for holder in holders {
        let shares = edge.inner.authority(move |authority| authority.pepper_shares(hash.pepper, holder)).await.unwrap();
        assert_eq!(shares.len(), 1);
        for (with, sealed) in shares {
            let opened = |key| Pepper::open(edge.inner.record.cluster, hash.pepper, key, (&with, &sealed));
            assert!(opened(&edge.inner.node_key).is_none());
            assert!(opened(&a.inner.node_key).is_some(), "it is what the others open");
        }
    }
    assert!(edge.inner.pepper(hash.pepper).await.unwrap().is_none());

    // What it can reckon from the log and the right password tells nothing of it.
    let guesses: [[u8; 32]; 5] = [[0; 32], *made, *hash.pepper.as_bytes(), *a.key().as_bytes(), *edge.key().as_bytes()];
    let made_of = |pepper: [u8; 32]| Pepper::new(pepper).verifier(&made);
    assert!(guesses.into_iter().map(made_of).all(|guess| guess != verifier));
    assert!(TokenVerifier::of(&made) != verifier && made.as_slice() != verifier.as_bytes());
    // With the pepper it does: this is how the password is checked.
    let pepper = a.inner.pepper(hash.pepper).await.unwrap().unwrap();
    assert_eq!(pepper.verifier(&made), verifier);
    assert_ne!(pepper.verifier(&hashed("correct horse batterz", &Cost::of(&hash)).unwrap()), verifier);

    // And it says that it checks none.
    for password in [GOOD, "another password"] {
        let refused = edge.with_password(&named("ann"), password, None).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::PasswordsUnchecked);
        assert!(
            refused.detail().contains(&edge.key().to_string()) && refused.detail().contains("no duty"),
            "{refused}"
        );
    }
    let refused = edge.set_password(&named("ann"), &NewPassword::new(GOOD)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PasswordsUnchecked);
    assert!(a.with_password(&named("ann"), GOOD, None).await.is_ok());
    edge.shutdown().await;
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lacks_a_pepper_says_so_to_everybody_alike() {
    let folder = tempfile::tempdir().unwrap();
    let a = founded(folder.path()).await;
    add(&a, "ann").await;
    let bob = add(&a, "bob").await;
    a.set_password(&named("ann"), &NewPassword::new(GOOD)).await.unwrap();
    let refused = async |name: &str, password: &str, source: Option<IpAddr>| {
        a.with_password(&named(name), password, source).await.map(|_| ()).unwrap_err()
    };
    assert_eq!(refused("ann", "a wrong one", None).await.code(), ErrorCode::Unauthenticated);

    // Bob's is under one that is nowhere any more, as when all nodes that had it are lost.
    let secret = Secret::Password(Cost::usual([3; 16]).with(PepperId::new([9; 32])));
    let (name, verifier) = ("password".to_owned(), TokenVerifier::new([1; 32]));
    a.inner.believe(None, bob, name, verifier, secret, None).await.unwrap();
    let told = refused("bob", GOOD, None).await;
    assert_eq!(told.code(), ErrorCode::PasswordsUnchecked);
    assert!(told.detail().contains(&a.key().to_string()) && told.detail().contains("1 of the 2"), "{told}");
    assert!(told.advice().unwrap().contains("folkmoot user password"), "{told}");
    for (name, password) in [("nobody", GOOD), ("ann", "a wrong one"), ("bob", "a wrong one")] {
        let same = refused(name, password, None).await;
        assert_eq!((same.code(), same.detail()), (told.code(), told.detail()), "{name}");
    }
    assert!(a.with_password(&named("ann"), GOOD, None).await.is_ok(), "whose pepper is here comes in");
    // Such tries count as wrong ones.
    let from = Some("192.0.2.1".parse().unwrap());
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(refused("bob", GOOD, from).await.code());
    }
    assert_eq!(seen, [[ErrorCode::PasswordsUnchecked; 5].as_slice(), &[ErrorCode::TooManyRequests]].concat());

    // Set anew it is under a pepper that the node has.
    a.set_password(&named("bob"), &NewPassword::new(GOOD)).await.unwrap();
    assert!(a.with_password(&named("bob"), GOOD, None).await.is_ok());
    assert_eq!(refused("bob", "a wrong one", None).await.code(), ErrorCode::Unauthenticated);
    let policy = a.inner.core.policy.borrow().clone();
    assert_eq!(policy.peppers_in_use(now()).into_values().collect::<Vec<_>>(), [2], "both are under one");
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_set_at_once_are_under_one_pepper() {
    let folder = tempfile::tempdir().unwrap();
    let a = founded(folder.path()).await;
    for name in ["ann", "bob", "cy"] {
        add(&a, name).await;
    }
    let (ann, bob, cy) = (named("ann"), named("bob"), named("cy"));
    let new = NewPassword::new(GOOD);
    let (x, y, z) = tokio::join!(a.set_password(&ann, &new), a.set_password(&bob, &new), a.set_password(&cy, &new));
    for set in [x, y, z] {
        assert!(!set.unwrap().exposed);
    }
    let policy = a.inner.core.policy.borrow().clone();
    assert_eq!(policy.peppers_in_use(now()).into_values().collect::<Vec<_>>(), [3]);
    a.shutdown().await;
}
