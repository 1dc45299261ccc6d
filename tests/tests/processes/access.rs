//! Who may do what: users, roles, groups and tokens over processes, by the command line, REST and the SDK.

use std::time::Duration;

use folkmoot::api::{
    AccessQuestion, Atomicity, BulkOp, BulkOptions, ChangesQuery, Database as _, Edit, LinkRule, ListQuery, NewGrant,
    NewPrincipal, NewRole, NewToken, PrincipalKind, PrincipalName, QuarantineQuery, ReadOptions, RevokeOptions, Since,
    WriteOptions, WriteStatus,
};
use folkmoot::{Access as _, Action, Audit as _, Client, Error, ErrorCode, OpId};
use folkmoot_tests::processes::{Node, converged, id, name, printed, text, until};
use serde_json::{Value, json};

pub(crate) fn named(text: &str) -> PrincipalName {
    text.parse().unwrap()
}

pub(crate) fn with_token(node: &Node, token: &str) -> Client {
    Client::builder(node.url()).token(token.trim()).build().unwrap()
}

/// Runs a command of the program and returns what it printed as JSON.
pub(crate) async fn told(node: &Node, arguments: &[&str]) -> Value {
    let output = node.cli(&[arguments, &["--json"]].concat(), "").await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_str(&printed(&output)).unwrap()
}

/// Adds a user with a role and returns a client that is known by a token of it.
pub(crate) async fn user(on: &Node, at: &Node, user: &str, grants: &[&[&str]]) -> Client {
    told(on, &["user", "add", user]).await;
    for grant in grants {
        told(on, &[&["grant", user], *grant].concat()).await;
    }
    let token = told(on, &["token", "issue", user]).await;
    let client = with_token(at, token["token"].as_str().unwrap());
    until("the token is known", async || client.caller().await.map(|_| ()).map_err(|error| error.to_string())).await;
    client
}

pub(crate) async fn write(client: &Client, collection: &str, doc: &str, json: Value) -> Result<(), Error> {
    client.put(&name(collection), id(doc), text(&json), &WriteOptions::default()).await.map(|_| ())
}

pub(crate) async fn read(client: &Client, collection: &str, doc: &str) -> Result<Value, Error> {
    let document = client.get(&name(collection), &id(doc), &ReadOptions::default()).await?;
    Ok(serde_json::from_slice(&document.json).unwrap())
}

async fn ids(client: &Client, collection: &str) -> Result<Vec<String>, Error> {
    let page = client.list(&name(collection), &ListQuery::default()).await?;
    Ok(page.items.into_iter().map(|document| document.id.to_string()).collect())
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    let error = result.expect_err("it is refused");
    assert_eq!(error.code(), code, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_has_ended_is_closed_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::new(folder.path(), "a");
    a.set_environment(&[("FOLKMOOT_LIMITS_ENDED_GRACE", "2s")]);
    a.start().await;
    let b = Node::join(folder.path(), "b", &a).await;
    told(&a, &["user", "add", "ann"]).await;
    told(&a, &["grant", "ann", "editor", "--for", "1s"]).await;
    told(&a, &["grant", "ann", "reader", "--for", "1h"]).await;
    let question = AccessQuestion {
        principal: Some(named("ann")),
        action: Action::Update,
        collection: None,
        id: None,
        field: None,
    };
    let question = AccessQuestion { collection: Some(name("notes")), ..question };
    until("the other node knows that it was closed", async || {
        let answer = b.client().can(&question).await.map_err(|error| error.to_string())?;
        let reason = answer.reason.unwrap_or_default();
        if reason.contains("revoked by") { Ok(()) } else { Err(reason) }
    })
    .await;
    let read = AccessQuestion { action: Action::Read, ..question };
    assert!(b.client().can(&read).await.unwrap().allowed, "what has not ended stays");
    assert_eq!(a.metrics().await["folkmoot_access_ended_closed_total"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_may_not_see_or_do_is_refused_at_every_edge() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    for (collection, doc) in [("notes", "pub-1"), ("notes", "pub-2"), ("notes", "priv-1"), ("secret", "s1")] {
        a.put(collection, doc, json!({"of": "owner"})).await;
    }
    converged(&[&a, &b]).await;

    // An editor of some collections, at the other node.
    let ann = user(&a, &b, "ann", &[&["editor", "--on", "notes*"]]).await;
    assert_eq!(ann.caller().await.unwrap().name, "ann");
    write(&ann, "notes", "ann-1", json!({"by": "ann"})).await.unwrap();
    write(&ann, "notes", "pub-1", json!({"of": "ann"})).await.unwrap();
    write(&ann, "notes-2", "x", json!({})).await.unwrap();
    refused(write(&ann, "secret", "s1", json!({})).await, ErrorCode::NotAllowed);
    refused(read(&ann, "secret", "s1").await, ErrorCode::NotAllowed);
    // Nothing tells whether something is there.
    refused(read(&ann, "nowhere", "s1").await, ErrorCode::NotAllowed);
    refused(ids(&ann, "secret").await, ErrorCode::NotAllowed);
    refused(ann.collection(&name("secret")).await, ErrorCode::NotAllowed);
    refused(ann.conflicts(&name("secret"), &id("s1")).await, ErrorCode::NotAllowed);
    refused(ann.drop_collection(&name("notes")).await, ErrorCode::NotAllowed);
    let seen: Vec<String> = ann.collections().await.unwrap().iter().map(|info| info.name.to_string()).collect();
    assert_eq!(seen, ["notes", "notes-2"]);
    let feed = ann.changes(&ChangesQuery { since: Since::Beginning, ..ChangesQuery::default() }).await.unwrap();
    assert!(!feed.items.is_empty() && feed.items.iter().all(|change| change.collection != name("secret")), "{feed:?}");
    for refusal in [
        ann.status().await.map(|_| ()),
        ann.peers().await.map(|_| ()),
        ann.digests().await.map(|_| ()),
        ann.quarantine(&QuarantineQuery::default()).await.map(|_| ()),
        ann.verify().await.map(|_| ()),
        ann.invite(&folkmoot::api::InviteOptions::default()).await.map(|_| ()),
        ann.set_link(&a.key(), LinkRule::Blocked).await,
        ann.add_principal(&NewPrincipal { name: "eve".to_owned(), kind: PrincipalKind::User }).await.map(|_| ()),
        ann.grant(&named("ann"), &grant("admin")).await.map(|_| ()),
        ann.issue_token(&named("a"), &NewToken::named("mine")).await.map(|_| ()),
        ann.remove_principal(&named("a"), &RevokeOptions::default()).await.map(|_| ()),
        ann.add_role(&NewRole { name: "all".to_owned(), actions: vec!["read".to_owned()], own_actions: Vec::new() })
            .await
            .map(|_| ()),
    ] {
        refused(refusal, ErrorCode::NotAllowed);
    }
    // It sees itself only.
    let known: Vec<String> = ann.principals().await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(known, ["ann"]);

    // A part of a collection.
    let carl = user(&a, &b, "carl", &[&["reader", "--on", "notes", "--prefix", "pub"]]).await;
    assert_eq!(ids(&carl, "notes").await.unwrap(), ["pub-1", "pub-2"]);
    assert_eq!(read(&carl, "notes", "pub-1").await.unwrap(), json!({"of": "ann"}));
    refused(read(&carl, "notes", "priv-1").await, ErrorCode::DocumentNotFound);
    refused(carl.conflicts(&name("notes"), &id("priv-1")).await, ErrorCode::DocumentNotFound);
    let hidden = carl.collection(&name("notes")).await.unwrap();
    assert_eq!((hidden.documents, hidden.bytes), (None, None), "how many there are is not told");
    let feed = carl.changes(&ChangesQuery { since: Since::Beginning, ..ChangesQuery::default() }).await.unwrap();
    assert!(!feed.items.is_empty() && feed.items.iter().all(|change| change.id.as_str().starts_with("pub")));
    refused(write(&carl, "notes", "pub-1", json!({})).await, ErrorCode::NotAllowed);
    // Pages go on where they ended, over what is hidden too.
    let one = ListQuery { limit: Some(1), ..ListQuery::default() };
    let page = carl.list(&name("notes"), &one).await.unwrap();
    let next = carl.list(&name("notes"), &ListQuery { after: page.next, ..one }).await.unwrap();
    assert_eq!((page.items[0].id.as_str(), next.items[0].id.as_str()), ("pub-1", "pub-2"));

    // Nobody takes back what others have, or learns what there is; one's own anybody gives back.
    let of_carl = a.client().principal(&named("carl")).await.unwrap();
    let unknown = OpId::new([7; 32]);
    for statement in [of_carl.grants[0].statement, of_carl.tokens[0].statement, unknown] {
        refused(ann.revoke(&statement, &RevokeOptions::default()).await, ErrorCode::NotAllowed);
    }
    refused(a.client().revoke(&unknown, &RevokeOptions::default()).await, ErrorCode::StatementNotFound);
    assert_eq!(a.client().principal(&named("carl")).await.unwrap(), of_carl);

    // Own documents: by the id, which nobody else can have.
    let dora = user(&a, &b, "dora", &[&["contributor", "--on", "notes"]]).await;
    let own = dora.principal(&named("dora")).await.unwrap().own_prefix;
    write(&dora, "notes", &format!("{own}1"), json!({"by": "dora"})).await.unwrap();
    write(&dora, "notes", &format!("{own}1"), json!({"by": "dora", "n": 2})).await.unwrap();
    refused(write(&dora, "notes", "pub-1", json!({"by": "dora"})).await, ErrorCode::NotAllowed);
    refused(write(&dora, "notes", "new", json!({})).await, ErrorCode::NotAllowed);
    assert_eq!(read(&dora, "notes", "pub-1").await.unwrap(), json!({"of": "ann"}));
    // Of a batch each edit is held against the rights; an atomic one as a whole.
    let put = |doc: &str| BulkOp::from(Edit::Put { id: id(doc), json: text(&json!({})) });
    let edits = || vec![put(&format!("{own}2")), put("pub-2")];
    let each = BulkOptions::default();
    let mut results = dora.bulk(&name("notes"), edits(), &each).await.unwrap().into_iter();
    assert_eq!(results.next().unwrap().unwrap().status, WriteStatus::Created);
    refused(results.next().unwrap(), ErrorCode::NotAllowed);
    let atomic = BulkOptions { atomicity: Atomicity::AllOrNothing, ..BulkOptions::default() };
    refused(dora.bulk(&name("notes"), edits(), &atomic).await, ErrorCode::NotAllowed);

    // What was granted lets every replica take what was written; nothing is set aside.
    converged(&[&a, &b]).await;
    assert_eq!(a.get("notes", "ann-1").await.unwrap(), json!({"by": "ann"}));
    assert_eq!(a.get("notes", &format!("{own}1")).await.unwrap(), json!({"by": "dora", "n": 2}));
    for node in [&a, &b] {
        assert!(node.client().quarantine(&QuarantineQuery::default()).await.unwrap().items.is_empty());
        node.assert_sound().await;
    }
}

fn grant(role: &str) -> NewGrant {
    NewGrant {
        role: role.to_owned(),
        collections: "*".to_owned(),
        prefix: None,
        fields: Vec::new(),
        without_fields: Vec::new(),
        until: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_give_no_more_than_they_say_and_end_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    a.put("notes", "1", json!({"n": 1})).await;
    let whole = user(&a, &b, "ann", &[&["admin"]]).await;
    // Made at the other node, by the user itself, who is an admin of everything; for reading one collection only. It is no
    // admin node, so it cannot sign that.
    refused(whole.issue_token(&named("ann"), &NewToken::named("ci")).await, ErrorCode::NotAllowed);
    let ann = with_token(&a, told(&a, &["token", "issue", "ann"]).await["token"].as_str().unwrap());
    let new =
        NewToken { actions: Some(vec!["read".to_owned()]), collections: "notes".to_owned(), ..NewToken::named("ci") };
    let issued = ann.issue_token(&named("ann"), &new).await.unwrap();
    let limited = with_token(&a, &issued.token);
    assert_eq!(read(&limited, "notes", "1").await.unwrap(), json!({"n": 1}));
    assert_eq!(limited.caller().await.unwrap().token, Some(issued.info.statement));
    refused(write(&limited, "notes", "1", json!({})).await, ErrorCode::NotAllowed);
    refused(read(&limited, "other", "1").await, ErrorCode::NotAllowed);
    refused(limited.status().await, ErrorCode::NotAllowed);
    assert_eq!(limited.principals().await.unwrap().len(), 1, "itself only, though its principal would see all");
    refused(limited.issue_token(&named("ann"), &NewToken::named("more")).await, ErrorCode::NotAllowed);
    let question = AccessQuestion {
        principal: None,
        action: Action::Update,
        collection: Some(name("notes")),
        id: None,
        field: None,
    };
    let answer = limited.can(&question).await.unwrap();
    assert!(!answer.allowed && answer.reason.unwrap().contains("token"));
    assert!(ann.can(&question).await.unwrap().allowed);
    // Whom it was asked for is in the act; the secret is nowhere: not on any disk, not in the list.
    let listed = told(&a, &["token", "list", "ann"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert!(!listed.to_string().contains(&issued.token));
    for node in [&a, &b] {
        assert!(!holds(node.data(), issued.token.as_bytes()), "the token lies in the data directory");
        assert!(!node.log().contains(&issued.token));
    }

    // Kills forget nothing.
    a.kill();
    b.kill();
    b.spawn();
    a.start().await;
    b.wait_until_up().await;
    let (limited_a, limited_b) = (with_token(&a, &issued.token), with_token(&b, &issued.token));
    assert_eq!(read(&limited_a, "notes", "1").await.unwrap(), json!({"n": 1}));
    until("the token is known at the other node", async || {
        read(&limited_b, "notes", "1").await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;

    // One act ends it on every node.
    told(&a, &["revoke", &issued.info.statement.to_string(), "--why", "left on a train"]).await;
    refused(read(&limited_a, "notes", "1").await, ErrorCode::Unauthenticated);
    until("the token has ended at the other node", async || match read(&limited_b, "notes", "1").await {
        Err(error) if error.code() == ErrorCode::Unauthenticated => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Its time ends it too.
    let short = told(&a, &["token", "issue", "ann", "--for", "2s"]).await;
    let short = with_token(&a, short["token"].as_str().unwrap());
    read(&short, "notes", "1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    refused(read(&short, "notes", "1").await, ErrorCode::Unauthenticated);
    // What is no token is none.
    for wrong in ["", "fm_", "fm_AAAA", &issued.token[1..], "owner"] {
        let answer =
            a.http_as_stranger("GET", "/v1/caller", &[("authorization", &format!("Bearer {wrong}"))], b"").await;
        assert_eq!(answer.status, 401, "{wrong:?}");
    }
}

/// Whether some file under a folder holds these bytes.
pub(crate) fn holds(folder: &std::path::Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { holds(&path, wanted) } else { contains(&std::fs::read(&path).unwrap_or_default(), wanted) }
    })
}

/// Whether these bytes are somewhere in a text, which may be that of a large file (Horspool).
fn contains(text: &[u8], wanted: &[u8]) -> bool {
    let last = wanted.len() - 1;
    let mut skip = [wanted.len(); 256];
    for (at, byte) in wanted[..last].iter().enumerate() {
        skip[usize::from(*byte)] = last - at;
    }
    let mut at = 0;
    while let Some(window) = text.get(at..at + wanted.len()) {
        if window == wanted {
            return true;
        }
        at += skip[usize::from(window[last])];
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_while_nodes_are_apart_writes_nothing_more_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    told(&a, &["group", "add", "writers"]).await;
    told(&a, &["grant", "writers", "editor", "--on", "notes"]).await;
    let ann = user(&a, &b, "ann", &[]).await;
    let bob = user(&a, &b, "bob", &[]).await;
    refused(write(&ann, "notes", "early", json!({})).await, ErrorCode::NotAllowed);
    for who in ["ann", "bob"] {
        told(&a, &["group", "join", "writers", who]).await;
    }
    until("the membership is known", async || {
        write(&ann, "notes", "early", json!({"by": "ann"})).await.map_err(|error| error.to_string())
    })
    .await;
    until("so is the other", async || {
        write(&bob, "notes", "bob-1", json!({"by": "bob"})).await.map_err(|error| error.to_string())
    })
    .await;
    converged(&[&a, &b]).await;

    a.client().set_link(&b.key(), LinkRule::Blocked).await.unwrap();
    // What she writes where nobody knows yet that she was removed, and what others write meanwhile.
    let answer = a.cli(&["can", "ann", "update", "notes"], "").await;
    assert!(answer.status.success() && printed(&answer).starts_with("yes"), "{answer:?}");
    told(&a, &["user", "remove", "ann", "--why", "left"]).await;
    write(&ann, "notes", "late", json!({"by": "ann"})).await.unwrap();
    write(&ann, "notes", "early", json!({"by": "ann", "late": true})).await.unwrap();
    write(&bob, "notes", "bob-2", json!({"by": "bob"})).await.unwrap();
    assert_eq!(b.get("notes", "late").await.unwrap(), json!({"by": "ann"}));

    a.client().set_link(&b.key(), LinkRule::Open).await.unwrap();
    until("she is refused everywhere", async || match ann.caller().await {
        Err(error) if error.code() == ErrorCode::Unauthenticated => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        assert_eq!(node.get("notes", "early").await.unwrap(), json!({"by": "ann"}), "as it was when she was removed");
        refused(node.get("notes", "late").await, ErrorCode::DocumentNotFound);
        assert_eq!(node.get("notes", "bob-1").await.unwrap(), json!({"by": "bob"}));
        assert_eq!(
            node.get("notes", "bob-2").await.unwrap(),
            json!({"by": "bob"}),
            "who shares her node loses nothing"
        );
        let held = node.client().quarantine(&QuarantineQuery::default()).await.unwrap().items;
        assert_eq!(held.len(), 2, "{held:?}");
        node.assert_sound().await;
    }
    let answer = a.cli(&["can", "bob", "update", "notes"], "").await;
    assert!(answer.status.success());

    // An admin lets stand what was honest; by a node that is none it is not to be had, and what was not cut neither.
    let held = a.client().quarantine(&QuarantineQuery::default()).await.unwrap().items;
    let late = held.iter().find(|item| item.documents == [id("late")]).unwrap();
    refused(b.client().readmit(&late.op, 0).await, ErrorCode::NotAllowed);
    refused(a.client().readmit(&late.op, 7).await, ErrorCode::StatementNotFound);
    let removal = told(&b, &["why", &late.op.to_string()]).await;
    let part = &removal["parts"][0];
    assert_eq!((&part["verdict"], &part["name"]), (&json!("after_revocation"), &json!("ann")), "{removal}");
    let grounds = part["grounds"].as_array().unwrap();
    let by = grounds.iter().find_map(|ground| ground["by"].as_str()).unwrap().to_owned();
    assert!(grounds.iter().any(|ground| ground["says"].as_str().unwrap().contains("is editor on notes")), "{removal}");
    let act = told(&b, &["why", &by]).await;
    assert_eq!(
        (&act["parts"][0]["action"], &act["parts"][0]["verdict"]),
        (&json!("remove_principal"), &json!("allowed"))
    );
    refused(bob.why(&late.op).await, ErrorCode::NotAllowed);
    refused(a.client().why(&OpId::new([7; 32])).await, ErrorCode::RecordNotFound);
    let answer = a.cli(&["quarantine", "release", &format!("{}#{}", late.op, late.transaction)], "").await;
    assert!(answer.status.success(), "{answer:?}");
    until("what was readmitted is there", async || {
        b.get("notes", "late").await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    converged(&[&a, &b]).await;
    assert_eq!(a.get("notes", "late").await.unwrap(), json!({"by": "ann"}));
    // Now it stands, though what it rests on is revoked; by an op that nothing is quarantined of.
    let standing = told(&a, &["why", &late.op.to_string()]).await;
    assert_eq!(standing["parts"][0]["verdict"], "allowed", "{standing}");
    assert!(standing["parts"][0]["grounds"].as_array().unwrap().iter().any(|ground| ground["by"] == json!(by)));
    refused(a.client().readmit(&late.op, 0).await, ErrorCode::StatementNotFound);
    refused(ann.caller().await, ErrorCode::Unauthenticated);
    let answer = a.cli(&["can", "ann", "update", "notes"], "").await;
    assert_eq!(answer.status.code(), Some(4), "she has nothing left: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_told_what_is_wrong_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    told(&a, &["user", "add", "ann"]).await;
    told(&a, &["role", "add", "scribe", "--allow", "read,create", "--allow-own", "update"]).await;
    let before = told(&a, &["user", "list"]).await;
    let post = async |path: &str, body: Value| {
        let answer = a.http("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes()).await;
        (answer.status, answer.json["code"].as_str().unwrap_or_default().to_owned())
    };
    for (path, body, status, code) in [
        ("/v1/principals", json!({"name": "ann"}), 409, "name_taken"),
        ("/v1/principals", json!({"name": ""}), 400, "invalid_name"),
        ("/v1/principals", json!({"name": "a/b"}), 400, "invalid_name"),
        ("/v1/principals", json!({"name": "x".repeat(129)}), 400, "invalid_name"),
        ("/v1/principals", json!({"name": "x", "kind": "god"}), 400, "invalid_json"),
        ("/v1/principals", json!({"name": "x", "extra": 1}), 400, "invalid_json"),
        ("/v1/principals/nobody/grants", json!({"role": "editor"}), 404, "principal_not_found"),
        ("/v1/principals/ann/grants", json!({"role": "emperor"}), 404, "role_not_found"),
        ("/v1/principals/ann/grants", json!({"role": "editor", "collections": "a*b"}), 400, "invalid_target"),
        ("/v1/principals/ann/grants", json!({"role": "editor", "collections": "_control"}), 400, "invalid_target"),
        ("/v1/principals/ann/grants", json!({"role": "editor", "prefix": ""}), 400, "invalid_target"),
        ("/v1/principals/ann/tokens", json!({"name": "t", "actions": ["fly"]}), 400, "invalid_action"),
        ("/v1/principals/ann/tokens", json!({"name": "t", "actions": []}), 400, "invalid_action"),
        ("/v1/principals/ann/tokens", json!({"name": "t", "until": "2001-01-01T00:00:00Z"}), 400, "invalid_request"),
        ("/v1/principals/ann/members", json!({"principal": "ann"}), 400, "invalid_request"),
        ("/v1/roles", json!({"name": "editor", "actions": ["read"]}), 409, "name_taken"),
        ("/v1/roles", json!({"name": "none"}), 400, "invalid_action"),
        ("/v1/roles", json!({"name": "odd", "own_actions": ["administer"]}), 400, "invalid_action"),
    ] {
        assert_eq!(post(path, body.clone()).await, (status, code.to_owned()), "{path} {body}");
    }
    let gone = format!("/v1/statements/{}", "ab".repeat(32));
    for (method, path, status) in [
        ("DELETE", gone.as_str(), 404),
        ("DELETE", "/v1/statements/xyz", 400),
        ("GET", gone.as_str(), 405),
        ("GET", "/v1/can", 400),
        ("GET", "/v1/can?action=fly", 400),
        ("GET", "/v1/can?action=read&id=1", 400),
        ("GET", "/v1/principals/nobody", 404),
        ("DELETE", "/v1/principals/nobody", 404),
    ] {
        assert_eq!(a.http(method, path, &[], b"").await.status, status, "{method} {path}");
    }
    assert_eq!(told(&a, &["user", "list"]).await, before);
    let answer = a.cli(&["can", "ann", "read", "notes"], "").await;
    assert_eq!((answer.status.code(), printed(&answer).starts_with("no: ")), (Some(4), true), "{answer:?}");
}
