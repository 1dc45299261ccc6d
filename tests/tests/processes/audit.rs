//! The audit over processes: what is recorded and found, what is cut or altered and noticed, what is proved.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use folkmoot::api::{
    AuditAction, AuditDecision, AuditEntry, AuditLayer, AuditMethod, AuditQuery, Database as _, NewToken,
    PrincipalName, ReadOptions, WriteOptions,
};
use folkmoot::{Access as _, Audit as _, Client, ErrorCode};
use folkmoot_core::store::{Batch, Durability, FjallOptions, FjallStore, Keyspace, Order, Read as _, Span, Store as _};
use folkmoot_tests::processes::{Node, converged, id, name, printed, run, text, until};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Runs a command of the program and returns what it printed as JSON, an element a line.
async fn lines(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let output = node.cli(&[arguments, &["--json"]].concat(), "").await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    printed(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn entries(node: &Node, query: AuditQuery) -> Vec<AuditEntry> {
    let query = AuditQuery { limit: Some(AuditQuery::LIMIT_MAX), ..query };
    node.client().audit(&query).await.unwrap().items
}

async fn user(on: &Node, at: &Node, user: &str) -> Client {
    let named: PrincipalName = user.parse().unwrap();
    lines(on, &["user", "add", user]).await;
    let token = on.client().issue_token(&named, &NewToken::named("test")).await.unwrap();
    let client = Client::builder(at.url()).token(token.token).build().unwrap();
    until("the token is known", async || client.caller().await.map(|_| ()).map_err(|error| error.to_string())).await;
    client
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Signs what a node has recorded, and waits until a peer has countersigned it. Returns how many records that are.
async fn cosigned(node: &Node, peer: &Node) -> u64 {
    node.client().audit_proof(&"0".parse().unwrap()).await.unwrap();
    let records = node.client().audit_status().await.unwrap().records;
    until("the peer countersigns", async || {
        let seen = peer.client().audit_status().await.map_err(|error| error.to_string())?;
        let of_node = seen.peers.iter().find(|seen| seen.peer == node.key()).map_or(0, |seen| seen.seen);
        let words = node.client().audit_status().await.map_err(|error| error.to_string())?.cosigned;
        if of_node >= records && words.contains(&peer.key()) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_and_denied_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let b = Node::join(folder.path(), "b", &a).await;
    a.put("secret", "s1", json!({"of": "owner"})).await;
    converged(&[&a, &b]).await;
    let ann = user(&a, &b, "ann").await;

    // Denied at b, again and again: one record, then one with the count.
    for _ in 0..50 {
        let denied = ann.put(&name("secret"), id("s1"), text(&json!({})), &WriteOptions::default()).await;
        assert_eq!(denied.unwrap_err().code(), ErrorCode::NotAllowed);
    }
    let by_ann = AuditQuery { principal: Some("ann".parse().unwrap()), ..AuditQuery::default() };
    let denied = AuditQuery { decision: Some(AuditDecision::Denied), ..by_ann.clone() };
    let found = entries(&b, denied.clone()).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let first = &found[0];
    assert_eq!((first.action, first.method, first.name.as_str()), (AuditAction::Create, AuditMethod::Token, "ann"));
    assert_eq!((first.collection.clone(), first.documents.clone()), (Some(name("secret")), vec![id("s1")]));
    assert!(first.source == "127.0.0.1" && !first.request.is_empty() && first.credential.is_some(), "{first:?}");
    assert!(entries(&a, denied.clone()).await.is_empty(), "it was not a that denied it");
    let counted = until("the rest is folded", async || {
        let found = entries(&b, denied.clone()).await;
        if found.len() == 2 { Ok(found[1].count) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(counted, 49);

    // Where the token came from was recorded once; one that is none, with nobody's name.
    let used = entries(&b, AuditQuery { action: Some(AuditAction::TokenUsed), ..by_ann.clone() }).await;
    assert_eq!(used.len(), 1, "{used:?}");
    let stranger = Client::builder(b.url()).token("fm_nothing").build().unwrap();
    assert_eq!(stranger.caller().await.unwrap_err().code(), ErrorCode::Unauthenticated);
    let tried = entries(&b, AuditQuery { action: Some(AuditAction::Authenticate), ..AuditQuery::default() }).await;
    // Ann's token, which was shown before it was known here, may be among them.
    assert!(!tried.is_empty(), "{tried:?}");
    assert!(
        tried.iter().all(|entry| entry.decision == AuditDecision::Denied && entry.principal.is_none()),
        "{tried:?}"
    );

    // Who may not read the audit may not; an auditor may.
    assert_eq!(ann.audit(&by_ann).await.unwrap_err().code(), ErrorCode::NotAllowed);
    assert_eq!(ann.audit_status().await.unwrap_err().code(), ErrorCode::NotAllowed);
    assert_eq!(ann.audit_verify().await.unwrap_err().code(), ErrorCode::NotAllowed);
    assert_eq!(ann.audit_proof(&"0".parse().unwrap()).await.unwrap_err().code(), ErrorCode::NotAllowed);
    lines(&a, &["grant", "ann", "auditor"]).await;
    lines(&a, &["grant", "ann", "editor", "--on", "notes"]).await;
    until("the grant counts", async || ann.audit(&by_ann).await.map(|_| ()).map_err(|error| error.to_string())).await;
    let grants = entries(&a, AuditQuery { action: Some(AuditAction::Grant), ..AuditQuery::default() }).await;
    let from_log: Vec<_> = grants.iter().filter(|entry| entry.layer == AuditLayer::Log).collect();
    assert_eq!(from_log.len(), 2, "{grants:?}");
    assert!(from_log.iter().all(|entry| entry.method == AuditMethod::OwnerToken && entry.source == "127.0.0.1"));

    // What she writes at b is found at a, in the ops, with what was denied at b in b's log.
    until("the grant has come", async || {
        let written = ann.put(&name("notes"), id("n1"), text(&json!({"by": "ann"})), &WriteOptions::default()).await;
        written.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    converged(&[&a, &b]).await;
    for node in [&a, &b] {
        let notes = AuditQuery { collection: Some(name("notes")), ..by_ann.clone() };
        let written: Vec<AuditEntry> =
            entries(node, notes).await.into_iter().filter(|entry| entry.layer == AuditLayer::Ops).collect();
        assert_eq!(written.len(), 1, "{written:?}");
        assert_eq!((written[0].action, &written[0].documents), (AuditAction::Create, &vec![id("n1")]));
        assert_eq!((written[0].node, written[0].decision), (b.key(), AuditDecision::Allowed));
    }
    let all = lines(&b, &["audit", "query", "--principal", "ann", "--since", "1h"]).await;
    let times: Vec<&str> = all.iter().map(|entry| entry["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && all.iter().any(|entry| entry["layer"] == "ops"), "{all:?}");
    // Page by page it is the same.
    let mut paged = Vec::new();
    // What is folded now is recorded later.
    let by_ann = AuditQuery { until: Some(folkmoot::api::Timestamp::now()), ..by_ann };
    let mut query = AuditQuery { limit: Some(2), ..by_ann.clone() };
    loop {
        let page = b.client().audit(&query).await.unwrap();
        paged.extend(page.items.into_iter().map(|entry| entry.id));
        query.after = Some(page.next);
        if !page.more {
            break;
        }
    }
    let whole: Vec<String> = entries(&b, by_ann.clone()).await.into_iter().map(|entry| entry.id).collect();
    assert_eq!(paged, whole);

    // Reads are recorded where that is asked for, and never what is in the documents.
    a.client().get(&name("secret"), &id("s1"), &ReadOptions::default()).await.unwrap();
    lines(&a, &["collections", "set", "secret", "--audit-reads"]).await;
    a.client().get(&name("secret"), &id("s1"), &ReadOptions::default()).await.unwrap();
    a.client().list(&name("secret"), &folkmoot::api::ListQuery::default()).await.unwrap();
    let reads = AuditQuery { collection: Some(name("secret")), ..AuditQuery::default() };
    let read: Vec<AuditEntry> = entries(&a, AuditQuery { class: Some(folkmoot::api::AuditClass::Read), ..reads }).await;
    let actions: Vec<_> = read.iter().map(|entry| (entry.action, entry.documents.clone())).collect();
    assert_eq!(actions, [(AuditAction::Read, vec![id("s1")]), (AuditAction::List, vec![id("s1")])]);

    // Every notation has every entry, a line each.
    for format in ["jsonl", "ocsf", "cef", "syslog"] {
        let until = by_ann.until.unwrap().to_string();
        let arguments = ["audit", "export", "--format", format, "--principal", "ann", "--until", &until];
        let output = b.cli(&arguments, "").await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(printed(&output).lines().count(), entries(&b, by_ann.clone()).await.len(), "{format}");
        let path = format!("/v1/audit?format={format}&decision=denied&principal=ann");
        let answer = b.http("GET", &path, &[], b"").await;
        let lines = answer.body.iter().filter(|byte| **byte == b'\n').count();
        assert!(answer.status == 200 && lines >= 2, "{format}: {lines}");
    }
    // Whoever waits for something is told when it comes.
    let since = Some(folkmoot::api::Timestamp::now());
    let wait = AuditQuery {
        since,
        action: Some(AuditAction::SetLink),
        wait: Duration::from_secs(20),
        ..AuditQuery::default()
    };
    let waiting = b.client().audit(&wait);
    let acting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        b.client().set_link(&a.key(), folkmoot::api::LinkRule::Open).await.unwrap();
    };
    let begun = Instant::now();
    let (page, ()) = tokio::join!(waiting, acting);
    assert_eq!(page.unwrap().items.len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(
        b.metrics()
            .await
            .iter()
            .any(|(metric, count)| metric.starts_with("folkmoot_audit_records_total") && *count > 5.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_record_is_named_and_a_cut_log_is_seen_by_a_peer() {
    let folder = tempfile::tempdir().unwrap();
    // Not sealed, so that somebody can alter what lies there.
    let mut a = Node::found_with(folder.path(), "a", &["--key-source", "none"]).await;
    let b = Node::join(folder.path(), "b", &a).await;
    for n in 0..5 {
        lines(&a, &["user", "add", &format!("user-{n}")]).await;
    }
    let early = cosigned(&a, &b).await;
    let log = a.client().audit_status().await.unwrap().log;
    a.stop().await;
    let data = a.data().display().to_string();
    let old: PathBuf = folder.path().join("old");
    copy(a.data(), &old);
    let sound = run(["--data", &data, "audit", "verify"], "").await;
    assert_eq!(sound.status.code(), Some(0), "{}", printed(&sound));

    // A bit of one record.
    let spoil = || {
        let store = FjallStore::open(&a.data().join("store"), FjallOptions::default()).unwrap();
        let (key, value) = store.scan(Keyspace::Audit, &Span::prefix([1]), Order::Ascending).nth(3).unwrap().unwrap();
        let mut value = value.to_vec();
        *value.last_mut().unwrap() ^= 1;
        let mut batch = Batch::new();
        batch.put(Keyspace::Audit, key, value);
        store.commit(&batch, Durability::Synced).unwrap();
    };
    spoil();
    let damaged = run(["--data", &data, "audit", "verify"], "").await;
    let incarnation = log.rsplit('/').next().unwrap();
    assert_eq!(damaged.status.code(), Some(6), "{}", printed(&damaged));
    assert!(printed(&damaged).contains(&format!("{incarnation}-3")), "{}", printed(&damaged));
    spoil();
    let mended = run(["--data", &data, "audit", "verify"], "").await;
    assert_eq!(mended.status.code(), Some(0), "{}", printed(&mended));

    // It goes on in the same log, and b sees more of it.
    a.start().await;
    lines(&a, &["user", "add", "later"]).await;
    until("the node signs again", async || {
        let status = a.client().audit_status().await.map_err(|error| error.to_string())?;
        if status.log == log && status.cosigned.contains(&b.key()) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let late = cosigned(&a, &b).await;
    assert!(late > early, "{late} {early}");

    // Then somebody brings an old copy back.
    a.stop().await;
    std::fs::remove_dir_all(a.data()).unwrap();
    copy(&old, a.data());
    a.start().await;
    until("b tells that the log was cut", async || {
        let status = b.client().audit_status().await.map_err(|error| error.to_string())?;
        let seen = status.peers.iter().find(|seen| seen.peer == a.key()).and_then(|seen| seen.trouble.clone());
        if seen.is_some() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let told = entries(&b, AuditQuery { action: Some(AuditAction::PeerLogCut), ..AuditQuery::default() }).await;
    assert!(told.iter().any(|entry| entry.target == a.key().to_string()), "{told:?}");
    until("a tells it too, and goes on in another log", async || {
        let status = a.client().audit_status().await.map_err(|error| error.to_string())?;
        if status.log != log && status.cosigned.contains(&b.key()) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let told = entries(&a, AuditQuery { action: Some(AuditAction::LogCut), ..AuditQuery::default() }).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        b.metrics().await.iter().any(|(name, n)| name.starts_with("folkmoot_audit_peer_troubles_total") && *n > 0.0)
    );
    let report = a.client().audit_verify().await.unwrap();
    assert_eq!((report.logs, report.damage_total), (2, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_checked_without_a_node_and_a_kill_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    a.put("notes", "n1", json!({"n": 1})).await;
    lines(&a, &["user", "add", "ann"]).await;
    let found = lines(&a, &["audit", "query", "--action", "add_principal", "--layer", "log"]).await;
    let record = found[0]["id"].as_str().unwrap().to_owned();
    let written = lines(&a, &["audit", "query", "--collection", "notes", "--layer", "ops"]).await;
    let op = written[0]["id"].as_str().unwrap().to_owned();
    for subject in [&record, &op] {
        let file = folder.path().join("proof.json");
        let path = file.display().to_string();
        let proved = a.cli(&["audit", "prove", subject, &path], "").await;
        assert!(proved.status.success(), "{}", printed(&proved));
        // From a folder where there is no node.
        let checked = run(["--data", "/nonexistent", "--json", "audit", "check", &path], "").await;
        assert_eq!(checked.status.code(), Some(0), "{}", printed(&checked));
        assert!(printed(&checked).contains(&a.key().to_string()), "{}", printed(&checked));
        let whole = std::fs::read_to_string(&file).unwrap();
        let at = whole.find(if *subject == record { "\"record\": \"" } else { "\"ops\": [" }).unwrap() + 40;
        let mut changed = whole.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        std::fs::write(&file, changed).unwrap();
        let checked = run(["audit", "check", &path], "").await;
        assert_eq!(checked.status.code(), Some(6), "{}", printed(&checked));
    }
    let unknown = a.cli(&["audit", "prove", "99999999"], "").await;
    assert!(!unknown.status.success() && printed(&unknown).contains("no record"), "{}", printed(&unknown));

    let log = a.client().audit_status().await.unwrap().log;
    for n in 0..20 {
        lines(&a, &["user", "add", &format!("user-{n}")]).await;
    }
    let before: Vec<String> = entries(&a, AuditQuery { layer: Some(AuditLayer::Log), ..AuditQuery::default() })
        .await
        .into_iter()
        .map(|entry| entry.id)
        .collect();
    a.kill();
    a.start().await;
    let after: Vec<AuditEntry> =
        entries(&a, AuditQuery { layer: Some(AuditLayer::Log), ..AuditQuery::default() }).await;
    let ids: Vec<String> = after.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(ids[..before.len()], before);
    assert_eq!(after.iter().filter(|entry| entry.action == AuditAction::Start).count(), 2);
    assert_eq!(a.client().audit_status().await.unwrap().log, log, "it goes on in the same log");
    let report = a.client().audit_verify().await.unwrap();
    assert_eq!(report.damage_total, 0, "{report:?}");
}

/// Reads events of a stream until there are so many entries; returns each with its id.
async fn tailed(node: &Node, query: &str, last: Option<&str>, count: usize) -> Vec<(String, Value)> {
    let token = std::fs::read_to_string(node.data().join("owner.token")).unwrap();
    let host = node.url().trim_start_matches("http://");
    let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /v1/audit/tail?{query} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n{last}\r\n",
        token.trim()
    );
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut chunk = [0; 4_096];
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "{count} entries do not come: {text}");
        let entries: Vec<(String, Value)> = text
            .split("id: ")
            .skip(1)
            .filter_map(|event| {
                let (id, rest) = event.split_once("\nevent: entry\ndata: ")?;
                Some((id.to_owned(), serde_json::from_str(rest.lines().next()?).ok()?))
            })
            .collect();
        if entries.len() >= count {
            return entries;
        }
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut chunk)).await.expect("an event");
        let read = read.unwrap();
        assert!(read > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_recorded_as_one_and_the_tail_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found(folder.path(), "a").await;
    for n in 0..3 {
        a.put("secret", &format!("s{n}"), json!({"n": n})).await;
    }
    let ann = user(&a, &a, "ann").await;
    lines(&a, &["grant", "ann", "reader", "--on", "secret"]).await;
    // Somebody who wants to write into the log of whoever reads this one.
    let evil = "s\r\nCEF:0|Evil|x|1|1|all is well|1|\u{2028}<13>1 - ] \"";
    // Behind all that is recorded so far.
    let last = entries(&a, AuditQuery::default()).await.last().map_or(0, |entry| entry.time.millis());
    let begun = folkmoot::api::Timestamp::from_millis(folkmoot::api::Timestamp::now().millis().max(last + 1));
    let since = AuditQuery { since: Some(begun), ..AuditQuery::default() };
    let all = folkmoot::api::export(Arc::new(ann.clone()), name("secret"), None);
    assert_eq!(all.collect::<Vec<_>>().await.len(), 3);
    let none = folkmoot::api::export(Arc::new(ann.clone()), name("secret"), Some(evil.to_owned()));
    assert_eq!(none.collect::<Vec<_>>().await.len(), 0);
    let exported = a.cli(&["export", "secret"], "").await;
    assert_eq!(printed(&exported).lines().filter(|line| line.contains("\"doc\"")).count(), 3, "{exported:?}");
    let feed = a.http("GET", "/v1/collections/secret/changes?docs=true&limit=2", &[], b"").await;
    assert_eq!(feed.status, 200);
    ann.list(&name("secret"), &folkmoot::api::ListQuery::default()).await.unwrap();
    ann.get(&name("secret"), &id("s0"), &ReadOptions::default()).await.unwrap();

    let read = entries(&a, AuditQuery { class: Some(folkmoot::api::AuditClass::Read), ..since.clone() }).await;
    let told: Vec<_> = read
        .iter()
        .map(|entry| (entry.name.as_str(), entry.action, entry.target.as_str(), entry.documents.len()))
        .collect();
    let owner = a.client().caller().await.unwrap().name;
    let export = AuditAction::Export;
    let shape = format!("prefix {evil}");
    assert_eq!(
        told,
        [
            ("ann", export, "", 0),
            ("ann", export, shape.as_str(), 0),
            (owner.as_str(), export, "", 0),
            (owner.as_str(), export, "changes with documents", 0)
        ],
        "the collection has no `audit_reads`: single reads are not recorded"
    );
    assert!(read.iter().all(|entry| entry.collection == Some(name("secret"))));
    let count = read.len();
    for format in ["jsonl", "ocsf", "cef", "syslog"] {
        let since = begun.to_string();
        let arguments = ["audit", "export", "--format", format, "--action", "export", "--since", &since];
        let text = printed(&a.cli(&arguments, "").await);
        assert_eq!(text.lines().count(), count, "{format}: {text}");
        assert!(!text.chars().any(|c| c == '\u{2028}' || c == '\r'), "{format}: {text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("CEF:0|Evil")).count(), 0, "{format}: {text}");
    }

    // What is recorded comes as it happens; whoever comes again goes on behind what it saw, also after a kill.
    let query = "action=add_principal";
    let (seen, ()) = tokio::join!(tailed(&a, query, None, 2), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for name in ["bob", "cora"] {
            lines(&a, &["user", "add", name]).await;
        }
    });
    let targets = |seen: &[(String, Value)]| {
        seen.iter().map(|(_, entry)| entry["target"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(targets(&seen), ["user bob", "user cora"]);
    let both = tailed(&a, &format!("{query}&since={begun}"), None, 2).await;
    assert_eq!(targets(&both), ["user bob", "user cora"], "also what was before, if a time is named");
    for name in ["dan", "eve"] {
        lines(&a, &["user", "add", name]).await;
    }
    assert_eq!(ann.audit(&since).await.unwrap_err().code(), ErrorCode::NotAllowed);
    // Whoever asks has what was recorded written down; a kill may lose what is younger.
    entries(&a, AuditQuery::default()).await;
    a.kill();
    a.start().await;
    let behind = tailed(&a, query, Some(&seen[0].0), 3).await;
    assert_eq!(targets(&behind), ["user cora", "user dan", "user eve"], "none twice, none left out");
    let wrong = a.http("GET", "/v1/audit/tail?after=nonsense", &[], b"").await;
    assert_eq!((wrong.status, wrong.json["code"].as_str()), (400, Some("invalid_cursor")));
}

/// What the store has in the keyspace of the audit.
fn audit_entries(data: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let store = FjallStore::open(&data.join("store"), FjallOptions::default()).unwrap();
    let all = store.scan(Keyspace::Audit, &Span::all(), Order::Ascending);
    all.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_in_place_is_noticed_by_a_live_peer() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::found_with(folder.path(), "a", &["--key-source", "none"]).await;
    let b = Node::join(folder.path(), "b", &a).await;
    lines(&a, &["user", "add", "early"]).await;
    cosigned(&a, &b).await;
    a.stop().await;
    let data = a.data().display().to_string();
    let early = audit_entries(a.data());
    a.start().await;
    for n in 0..4 {
        lines(&a, &["user", "add", &format!("late-{n}")]).await;
    }
    cosigned(&a, &b).await;
    let log = a.client().audit_status().await.unwrap().log;
    a.stop().await;

    // A record is taken out: the node itself tells, whether it runs or not.
    let late = audit_entries(a.data());
    let edit = |put: &[(Vec<u8>, Vec<u8>)], delete: &[(Vec<u8>, Vec<u8>)]| {
        let store = FjallStore::open(&a.data().join("store"), FjallOptions::default()).unwrap();
        let mut batch = Batch::new();
        for (key, _) in delete {
            batch.delete(Keyspace::Audit, key.clone());
        }
        for (key, value) in put {
            batch.put(Keyspace::Audit, key.clone(), value.clone());
        }
        store.commit(&batch, Durability::Synced).unwrap();
    };
    let records: Vec<_> = late.iter().filter(|(key, _)| key.first() == Some(&1)).cloned().collect();
    let last = records.last().unwrap().clone();
    edit(&[], std::slice::from_ref(&last));
    let verified = run(["--data", &data, "audit", "verify"], "").await;
    assert_eq!(verified.status.code(), Some(6), "{}", printed(&verified));
    edit(&[last], &[]);
    let verified = run(["--data", &data, "audit", "verify"], "").await;
    assert_eq!(verified.status.code(), Some(0), "{}", printed(&verified));

    // The log, its tree and all that was signed of it are put back to what they were, and nothing else: here nobody can tell.
    edit(&early, &late);
    let verified = run(["--data", &data, "audit", "verify"], "").await;
    assert_eq!(verified.status.code(), Some(0), "{}", printed(&verified));
    let before = b.metrics().await;
    a.start().await;
    until("the peer notices", async || {
        let status = b.client().audit_status().await.map_err(|error| error.to_string())?;
        let seen = status.peers.iter().find(|seen| seen.peer == a.key()).and_then(|seen| seen.trouble.clone());
        if seen.is_some() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let alarms = |metrics: &std::collections::BTreeMap<String, f64>| {
        let of_peers = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("folkmoot_alarms_total") && name.contains("audit_peer_log"));
        of_peers.map(|(_, count)| *count).sum::<f64>()
    };
    assert_eq!(alarms(&before), 0.0);
    assert!(alarms(&b.metrics().await) > 0.0);
    let cut = AuditQuery { action: Some(AuditAction::PeerLogCut), ..AuditQuery::default() };
    assert!(entries(&b, cut).await.iter().any(|entry| entry.target == a.key().to_string()));
    // Who was cut hears of it, says so, and goes on in another log, in which nothing is missing.
    until("the node goes on in another log", async || {
        let status = a.client().audit_status().await.map_err(|error| error.to_string())?;
        if status.log != log && status.cosigned.contains(&b.key()) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(entries(&a, AuditQuery { action: Some(AuditAction::LogCut), ..AuditQuery::default() }).await.len(), 1);
    let running = a.cli(&["audit", "verify"], "").await;
    assert_eq!(running.status.code(), Some(0), "{}", printed(&running));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_shows_who_knows_the_cluster_by_which_right_an_op_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    // Its streams begin anew, and the grants come while one is written.
    b.kill();
    b.start().await;
    b.put("notes", "n0", json!({"by": "b"})).await;
    let ann = user(&a, &b, "ann").await;
    let grant = lines(&a, &["grant", "ann", "editor", "--on", "notes"]).await.remove(0);
    until("the grant has come", async || {
        let written = ann.put(&name("notes"), id("n1"), text(&json!({"by": "ann"})), &WriteOptions::default()).await;
        written.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    b.put("notes", "n2", json!({"by": "b"})).await;
    converged(&[&a, &b]).await;
    let ops = lines(&a, &["audit", "query", "--principal", "ann", "--collection", "notes", "--layer", "ops"]).await;
    let op = ops[0]["id"].as_str().unwrap().to_owned();
    let file = folder.path().join("proof.json");
    let path = file.display().to_string();
    // The node that has only received it proves it.
    let proved = a.cli(&["audit", "prove", &op, &path], "").await;
    assert!(proved.status.success(), "{}", printed(&proved));
    let cluster = a.client().status().await.unwrap().cluster.to_string();
    let check = async |cluster: &str| {
        run(["--data", "/nonexistent", "--json", "audit", "check", &path, "--cluster", cluster], "").await
    };
    let checked = check(&cluster).await;
    assert_eq!(checked.status.code(), Some(0), "{}", printed(&checked));
    let told: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(told["signed_by"], json!(b.key().to_string()));
    let part = &told["right"]["parts"][0];
    assert_eq!(
        (&part["verdict"], &part["name"], &part["documents"]),
        (&json!("allowed"), &json!("ann"), &json!(["n1"]))
    );
    let grounds = part["grounds"].as_array().unwrap();
    for kind in ["certificate", "duty", "introduction", "grant"] {
        assert!(grounds.iter().any(|ground| ground["part"] == kind && ground["counts"] == true), "{kind}: {part}");
    }
    assert!(grounds.iter().any(|ground| ground["statement"] == grant["statement"]), "{part}");
    let people = run(["audit", "check", &path], "").await;
    assert!(printed(&people).contains("ann is editor on notes"), "{}", printed(&people));

    // Of another cluster, with something left out, or with something else put there, it shows no right.
    let other = check(&"0".repeat(64)).await;
    assert_eq!(other.status.code(), Some(6), "{}", printed(&other));
    let whole: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let chains = whole["op"]["rights"]["acts"].as_array().unwrap().len();
    assert!(chains >= 2, "the genesis, and what the owner and the first node signed: {chains}");
    for chain in 0..chains {
        let mut less = whole.clone();
        less["op"]["rights"]["acts"].as_array_mut().unwrap().remove(chain);
        std::fs::write(&file, less.to_string()).unwrap();
        let checked = check(&cluster).await;
        assert_eq!(checked.status.code(), Some(4), "without chain {chain}: {}", printed(&checked));
        let mut short = whole.clone();
        let acts = short["op"]["rights"]["acts"][chain].as_array_mut().unwrap();
        let last = acts.pop().unwrap();
        std::fs::write(&file, short.to_string()).unwrap();
        let code = check(&cluster).await.status.code();
        assert!(matches!(code, Some(4 | 6)), "chain {chain} without its end: {code:?}");
        // Something in the last act, and in its signature, which is the end of its bytes.
        let text = last.as_str().unwrap();
        for at in [text.len() / 2, text.len() - 24] {
            let mut forged = text.as_bytes().to_vec();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let mut wrong = whole.clone();
            let acts = wrong["op"]["rights"]["acts"][chain].as_array_mut().unwrap();
            *acts.last_mut().unwrap() = json!(String::from_utf8(forged).unwrap());
            std::fs::write(&file, wrong.to_string()).unwrap();
            let checked = check(&cluster).await;
            assert_eq!(checked.status.code(), Some(6), "chain {chain} altered at {at}: {}", printed(&checked));
        }
    }
    // An act shows its right alike.
    let granted = format!("{}:0", grant["statement"].as_str().unwrap());
    assert!(a.cli(&["audit", "prove", &granted, &path], "").await.status.success());
    let checked = check(&cluster).await;
    assert_eq!(checked.status.code(), Some(0), "{}", printed(&checked));
    let told: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(told["right"]["parts"][0]["action"], json!("grant"), "{told}");
}
