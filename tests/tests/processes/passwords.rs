//! Which nodes check passwords: those that act for users, whatever befalls them, and no others.

use folkmoot::api::{Access as _, Database as _, NewPassword};
use folkmoot_tests::processes::{Node, converged, printed, until};
use serde_json::json;

use crate::access::told;
use crate::credentials::{BETTER, GOOD, basic, done, named, status};
use crate::keys::path;

/// Waits until somebody comes in by a password.
async fn comes_in(node: &Node, user: &str, password: &str) {
    until(&format!("{user} comes in"), async || match status(node, user, password).await {
        200 => Ok(()),
        // So many wrong ones are heard, and more when it takes long.
        other => {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            Err(other.to_string())
        }
    })
    .await;
}

async fn with_user(node: &Node, user: &str) {
    done(node, &["user", "add", user], "").await;
    done(node, &["user", "password", user], &format!("{GOOD}\n")).await;
}

async fn exposed(node: &Node, user: &str) -> bool {
    let tokens = node.client().principal(&named(user)).await.unwrap().tokens;
    let [password] = tokens.as_slice() else { panic!("one password: {tokens:?}") };
    password.exposed
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_act_for_users_check_passwords_and_others_say_that_they_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    let ticket = a.ticket(&["--role", "reader"]).await;
    let mut edge = Node::join_with(folder.path(), "edge", &ticket).await;
    with_user(&a, "ann").await;
    done(&a, &["grant", "ann", "reader"], "").await;
    comes_in(&b, "ann", GOOD).await;
    a.put("notes", "x", json!({})).await;
    converged(&[&a, &b, &edge]).await;

    // Who holds everything and does not act for users tells the right one from a wrong one no more than a stranger, and says why.
    for password in [GOOD, BETTER] {
        let header = basic("ann", password);
        let answer = edge.http_as_stranger("GET", "/v1/caller", &[("authorization", &header)], b"").await;
        assert_eq!((answer.status, &answer.json["code"]), (503, &json!("passwords_unchecked")));
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains(&edge.key().to_string()) && detail.contains("no duty to act for users"), "{detail}");
        assert!(answer.json["hint"].as_str().is_some_and(|hint| hint.contains("editor or admin")), "{:?}", answer.json);
    }
    let refused = edge.cli(&["user", "password", "ann"], &format!("{BETTER}\n")).await;
    assert!(!refused.status.success() && printed(&refused).contains("no duty"), "{}", printed(&refused));
    let token = done(&a, &["token", "issue", "ann"], "").await;
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    until("a token is good there", async || {
        let found = edge.http_as_stranger("GET", "/v1/caller", &[("authorization", &bearer)], b"").await.status;
        if found == 200 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;

    // Who comes later gets what it takes, from whoever has it, also when the node is gone on which the password was set.
    let c = Node::join(folder.path(), "c", &a).await;
    comes_in(&c, "ann", GOOD).await;
    assert_eq!(c.metrics().await["folkmoot_passwords_exposed"], 0.0);
    let late = a.ticket(&[]).await;
    let d = Node::join_with(folder.path(), "d", &late).await;
    comes_in(&d, "ann", GOOD).await;
    a.kill();
    comes_in(&d, "ann", GOOD).await;

    // A crash changes nothing.
    b.kill();
    edge.kill();
    for node in [&mut a, &mut b, &mut edge] {
        node.start().await;
    }
    assert_eq!((status(&a, "ann", GOOD).await, status(&b, "ann", GOOD).await), (200, 200));
    assert_eq!((status(&a, "ann", BETTER).await, status(&b, "ann", BETTER).await), (401, 401));
    assert_eq!(status(&edge, "ann", GOOD).await, 503);
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(status(&edge, "ann", GOOD).await);
    }
    assert_eq!(seen, [503, 503, 503, 503, 429, 429], "tries are counted there too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_removed_has_not_the_pepper_of_what_is_set_later() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    let c = Node::join(folder.path(), "c", &a).await;
    for user in ["ann", "bob"] {
        with_user(&a, user).await;
    }
    for node in [&b, &c] {
        comes_in(node, "ann", GOOD).await;
    }
    assert!(!exposed(&a, "ann").await && !exposed(&a, "bob").await);
    told(&a, &["key", "revoke", &b.key().to_string(), "--why", "stolen"]).await;

    // Until they are changed the passwords are such that the removed node can guess at them, and an admin is told whose they are.
    assert!(exposed(&a, "ann").await && exposed(&a, "bob").await);
    assert_eq!(a.client().status().await.unwrap().passwords_exposed, 2);
    let listed = printed(&a.cli(&["user", "list"], "").await);
    assert_eq!(listed.matches("password to change").count(), 2, "{listed}");
    assert!(printed(&a.cli(&["status"], "").await).contains("can be guessed at"));
    assert_eq!((status(&a, "ann", GOOD).await, status(&c, "ann", GOOD).await), (200, 200), "they are good still");
    a.client().set_password(&named("ann"), &NewPassword::new(BETTER)).await.unwrap();
    assert!(!exposed(&a, "ann").await && exposed(&a, "bob").await);
    assert_eq!(a.client().status().await.unwrap().passwords_exposed, 1);
    comes_in(&c, "ann", BETTER).await;
    until("the metric tells", async || {
        let found = a.metrics().await["folkmoot_passwords_exposed"];
        if found == 1.0 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    // One pepper serves until somebody is removed again.
    done(&a, &["user", "password", "bob"], &format!("{BETTER}\n")).await;
    comes_in(&c, "bob", BETTER).await;
    assert_eq!(a.client().status().await.unwrap().passwords_exposed, 0);
    assert!(a.log().matches("shared what it takes to check passwords").count() <= 4, "{}", a.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_key_checks_passwords_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    with_user(&a, "ann").await;
    comes_in(&b, "ann", GOOD).await;

    let own = told(&a, &["key", "rotate", "node"]).await;
    assert_eq!(own["certified"], json!(true));
    converged(&[&a, &b]).await;
    // The first one hands on what it has, alone.
    b.stop().await;
    a.kill();
    a.start().await;
    assert_eq!(json!(a.key().to_string()), own["new"]);
    assert_eq!((status(&a, "ann", GOOD).await, status(&a, "ann", BETTER).await), (200, 401));

    b.start().await;
    converged(&[&a, &b]).await;
    let next = told(&b, &["key", "rotate", "node", "--by", path(a.data())]).await;
    // The next key is taken up by a start at which it is certified and has a share.
    for _ in 0..3 {
        converged(&[&a, &b]).await;
        b.kill();
        b.start().await;
        if json!(b.key().to_string()) == next["new"] {
            break;
        }
    }
    assert_eq!(json!(b.key().to_string()), next["new"]);
    assert_eq!((status(&b, "ann", GOOD).await, status(&b, "ann", BETTER).await), (200, 401));
    a.kill();
    b.kill();
    a.start().await;
    b.start().await;
    assert_eq!((status(&a, "ann", GOOD).await, status(&b, "ann", GOOD).await), (200, 200));
    // Whoever has an old key file opens what was shared with it: the next password is under another pepper.
    until(
        "the keys before are taken back",
        async || {
            if exposed(&a, "ann").await { Ok(()) } else { Err("not yet".to_owned()) }
        },
    )
    .await;
    a.client().set_password(&named("ann"), &NewPassword::new(BETTER)).await.unwrap();
    assert!(!exposed(&a, "ann").await);
    comes_in(&b, "ann", BETTER).await;
}
