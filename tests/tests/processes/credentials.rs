//! How somebody is known to nodes: passwords, certificates; and how much may be asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use folkmoot::api::{ChangesQuery, Database as _, NewPassword, PrincipalName, Since, WriteOptions};
use folkmoot::{Access as _, Client, Error, ErrorCode};
use folkmoot_tests::processes::{Node, id, name, printed, run, text, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SignatureScheme, crypto};

pub(crate) const GOOD: &str = "correct horse battery";
pub(crate) const BETTER: &str = "staple of a better one";

pub(crate) fn named(text: &str) -> PrincipalName {
    text.parse().unwrap()
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn with_password(node: &Node, user: &str, password: &str) -> Client {
    Client::builder(node.url()).password(user, password).attempts(1).build().unwrap()
}

/// Asks who somebody is by a password and returns the status.
pub(crate) async fn status(node: &Node, user: &str, password: &str) -> u16 {
    let header = basic(user, password);
    node.http_as_stranger("GET", "/v1/caller", &[("authorization", &header)], b"").await.status
}

pub(crate) async fn done(node: &Node, arguments: &[&str], input: &str) -> Value {
    let output = node.cli(&[arguments, &["--json"]].concat(), input).await;
    assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
    serde_json::from_str(&printed(&output)).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.expect_err("it is refused").code()
}

/// All files below a folder, with what they hold.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_known_everywhere_and_ends_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    done(&a, &["user", "add", "ann"], "").await;
    done(&a, &["grant", "ann", "editor", "--on", "notes"], "").await;
    let set = done(&a, &["user", "password", "ann"], &format!("{GOOD}\n")).await;
    assert_eq!(set["kind"], "password");

    // Known at the other node, by REST, SDK and command line, and there within ann's rights.
    until("the password is known", async || {
        let found = status(&b, "ann", GOOD).await;
        if found == 200 { Ok(()) } else { Err(format!("{found}")) }
    })
    .await;
    let ann = with_password(&b, "ann", GOOD);
    assert_eq!(ann.caller().await.unwrap().name, "ann");
    ann.put(&name("notes"), id("x"), text(&json!({"by": "ann"})), &WriteOptions::default()).await.unwrap();
    assert_eq!(
        code(ann.put(&name("other"), id("x"), text(&json!({})), &WriteOptions::default()).await),
        ErrorCode::NotAllowed
    );
    let file = folder.path().join("password");
    std::fs::write(&file, GOOD).unwrap();
    let by_cli = b.cli(&["whoami", "--user", "ann", "--password-file", file.to_str().unwrap()], "").await;
    assert!(by_cli.status.success() && printed(&by_cli).contains("ann"), "{}", printed(&by_cli));

    // Another's cannot be set, one's own only by who knows it.
    let new = |password: &str, current: Option<&str>| NewPassword {
        current: current.map(str::to_owned),
        ..NewPassword::new(password)
    };
    done(&a, &["user", "add", "bob"], "").await;
    let ann_at_a = with_password(&a, "ann", GOOD);
    assert_eq!(code(ann_at_a.set_password(&named("bob"), &new(BETTER, Some(GOOD))).await), ErrorCode::NotAllowed);
    assert_eq!(code(ann_at_a.set_password(&named("ann"), &new(BETTER, None)).await), ErrorCode::Unauthenticated);
    assert_eq!(
        code(ann_at_a.set_password(&named("ann"), &new(BETTER, Some("wrong one"))).await),
        ErrorCode::Unauthenticated
    );
    assert_eq!(code(ann_at_a.set_password(&named("ann"), &new("short", Some(GOOD))).await), ErrorCode::InvalidPassword);
    assert_eq!(code(a.client().set_password(&named("nobody"), &new(BETTER, None)).await), ErrorCode::PrincipalNotFound);
    // This node is no admin, and signs nothing that it may not.
    let refused = ann.set_password(&named("ann"), &new(BETTER, Some(GOOD))).await.unwrap_err();
    assert!(refused.advice().unwrap().contains("admin of everything"), "{refused}");
    ann_at_a.set_password(&named("ann"), &new(BETTER, Some(GOOD))).await.unwrap();
    assert_eq!(status(&a, "ann", BETTER).await, 200);
    // The same again is another statement: what was known of the one before does not get in the way.
    with_password(&a, "ann", BETTER).set_password(&named("ann"), &new(BETTER, Some(BETTER))).await.unwrap();
    assert_eq!((status(&a, "ann", GOOD).await, status(&a, "ann", BETTER).await), (401, 200));
    until("the other password is known", async || {
        let found = (status(&b, "ann", GOOD).await, status(&b, "ann", BETTER).await);
        if found == (401, 200) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;

    // It outlives a crash and ends by a revocation, and what it was is nowhere.
    b.kill();
    b.start().await;
    assert_eq!(status(&b, "ann", BETTER).await, 200);
    let shown = a.client().principal(&named("ann")).await.unwrap().tokens;
    let [only] = shown.as_slice() else { panic!("the earlier password is gone: {shown:?}") };
    let statement = only.statement.to_string();
    done(&a, &["revoke", &statement], "").await;
    until("the password has ended", async || {
        let found = (status(&a, "ann", BETTER).await, status(&b, "ann", BETTER).await);
        if found == (401, 401) || found.0 == 429 || found.1 == 429 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    std::fs::remove_file(file).unwrap();
    for (path, held) in files(folder.path()) {
        for secret in [GOOD, BETTER] {
            assert!(!held.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_has_to_wait_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::found(folder.path(), "a").await;
    for user in ["ann", "bob"] {
        done(&node, &["user", "add", user], "").await;
        done(&node, &["user", "password", user], &format!("{GOOD}\n")).await;
    }
    assert_eq!(status(&node, "ann", GOOD).await, 200);
    let mut seen = Vec::new();
    for n in 0..8 {
        let header = basic("ann", &format!("wrong password {n}"));
        let answer = node.http_as_stranger("GET", "/v1/caller", &[("authorization", &header)], b"").await;
        if answer.status == 429 {
            assert!(answer.head.contains("retry-after: "), "{}", answer.head);
            assert_eq!(answer.json["code"], "too_many_requests");
        }
        seen.push(answer.status);
    }
    assert_eq!(seen, [401, 401, 401, 401, 401, 429, 429, 429]);
    // A user who is known already, another user, and the owner are not locked out. Who does not exist looks the same.
    assert_eq!(status(&node, "ann", GOOD).await, 200);
    assert_eq!(status(&node, "bob", GOOD).await, 200);
    assert_eq!(node.http("GET", "/v1/caller", &[], b"").await.status, 200);
    let nobody: Vec<u16> = {
        let mut seen = Vec::new();
        for _ in 0..7 {
            seen.push(status(&node, "nobody", "wrong password").await);
        }
        seen
    };
    assert_eq!(nobody, [401, 401, 401, 401, 401, 429, 429]);
    for broken in ["Basic", "Basic !!!", &format!("Basic {}", STANDARD.encode("no colon")), "Digest x"] {
        let answer = node.http_as_stranger("GET", "/v1/caller", &[("authorization", broken)], b"").await;
        assert_eq!(answer.status, 401, "{broken}");
    }
    let metrics = node.http_as_stranger("GET", "/metrics", &[("authorization", &basic("ann", GOOD))], b"").await;
    assert_eq!(metrics.status, 403, "ann may not monitor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_takes_no_more_than_its_share() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(folder.path(), "a");
    node.set_environment(&[
        ("FOLKMOOT_LIMITS_REQUESTS_PER_SECOND", "5"),
        ("FOLKMOOT_LIMITS_BYTES_PER_SECOND", "1MiB"),
        ("FOLKMOOT_LIMITS_STREAMS", "2"),
        ("FOLKMOOT_LIMITS_CONNECTIONS_PER_ADDRESS", "20"),
    ]);
    node.start().await;
    for user in ["ann", "bob", "cy"] {
        done(&node, &["user", "add", user], "").await;
        done(&node, &["grant", user, "editor"], "").await;
    }
    let mut clients = Vec::new();
    for user in ["ann", "bob", "cy"] {
        let token = done(&node, &["token", "issue", user], "").await;
        let client = Client::builder(node.url()).token(token["token"].as_str().unwrap()).attempts(1);
        clients.push(client.build().unwrap());
    }
    let [ann, bob, cy] = clients.as_slice() else { panic!("three") };

    // Requests: twice what a second may have, then it waits; others and the owner do not.
    let mut refused = None;
    for n in 0..40 {
        if let Err(error) = ann.caller().await {
            refused = Some((n, error));
            break;
        }
    }
    let (n, error) = refused.expect("the limit is met");
    assert!(n >= 10, "{n}");
    assert_eq!(error.code(), ErrorCode::TooManyRequests);
    assert!(error.retry_delay().is_some());
    bob.caller().await.unwrap();
    for _ in 0..40 {
        node.client().caller().await.unwrap();
    }
    // Who waits as told is served: the client does so by itself.
    let patient = Client::builder(node.url());
    let token = done(&node, &["token", "issue", "ann"], "").await;
    let patient = patient.token(token["token"].as_str().unwrap()).build().unwrap();
    for _ in 0..3 {
        patient.caller().await.unwrap();
    }

    // Bytes: who has sent too much waits with the next.
    let mut taken = 0;
    let refused = loop {
        let large = text(&json!({"text": "x".repeat(900_000)}));
        match bob.put(&name("notes"), id(&format!("large-{taken}")), large, &WriteOptions::default()).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!((2..10).contains(&taken), "{taken}");
    assert_eq!(refused.code(), ErrorCode::TooManyRequests);

    // Streams: two at once.
    let feed = |client: &Client| {
        let client = client.clone();
        tokio::spawn(async move {
            let query = ChangesQuery { since: Since::Now, wait: Duration::from_secs(20), ..ChangesQuery::default() };
            client.changes(&query).await
        })
    };
    let feeds = [feed(cy), feed(cy)];
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(code(feed(cy).await.unwrap()), ErrorCode::TooManyRequests);
    for feed in feeds {
        feed.abort();
    }

    // Connections of one address.
    let host = node.url().trim_start_matches("http://").to_owned();
    let mut open = Vec::new();
    for _ in 0..30 {
        open.push(tokio::net::TcpStream::connect(&host).await.unwrap());
    }
    let mut closed = 0;
    for stream in &mut open {
        let mut byte = [0; 1];
        let read = tokio::io::AsyncReadExt::read(stream, &mut byte);
        // Before the time-out of a connection that says nothing.
        if tokio::time::timeout(Duration::from_millis(200), read).await.is_ok() {
            closed += 1;
        }
    }
    assert!(closed >= 10, "{closed}");
    drop(open);
    until("there is room again", async || node.client().caller().await.map(drop).map_err(|error| error.to_string()))
        .await;
    let metrics = node.metrics().await;
    for what in ["requests", "bytes", "streams", "connections"] {
        let limited = format!("folkmoot_http_limited_total{{what=\"{what}\"}}");
        assert!(metrics.get(&limited).is_some_and(|count| *count >= 1.0), "{what}: {metrics:?}");
    }
    let status = node.cli(&["status"], "").await;
    assert!(status.status.success(), "{}", printed(&status));
}

struct Identity {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self { certificate: made.cert, key: made.key_pair }
    }

    fn write(&self, folder: &Path, name: &str) -> (String, String) {
        use std::os::unix::fs::PermissionsExt as _;
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, self.certificate.pem()).unwrap();
        std::fs::write(&key, self.key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        (certificate.to_str().unwrap().to_owned(), key.to_str().unwrap().to_owned())
    }
}

/// Believes every node, and shows a certificate whether or not the key is its own.
#[derive(Debug)]
struct Brazen(Arc<CertifiedKey>);

impl ResolvesClientCert for Brazen {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Asks a node who one is, with a certificate and a key; returns the status if there is an answer.
async fn asks_with(node: &Node, certificate: &str, key: &str) -> Option<u16> {
    let provider = Arc::new(crypto::ring::default_provider());
    let shown = CertificateDer::from_pem_file(certificate).unwrap();
    let key = provider.key_provider.load_private_key(PrivateKeyDer::from_pem_file(key).unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    let own = node.data().parent().unwrap().join("node.pem");
    roots.add(CertificateDer::from_pem_file(own).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Brazen(Arc::new(CertifiedKey::new(vec![shown], key)))));
    let stream = tokio::net::TcpStream::connect(node.url().trim_start_matches("https://")).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let request = b"GET /v1/caller HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    // What was read before the end counts, however the connection ends.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_key_of_a_certificate_is_known_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Identity::new().write(folder.path(), "node");
    let (ann_cert, ann_key) = Identity::new().write(folder.path(), "ann");
    let (eve_cert, eve_key) = Identity::new().write(folder.path(), "eve");
    let mut node = Node::new(folder.path(), "a");
    node.set_environment(&[
        ("FOLKMOOT_TLS_CERT", &cert),
        ("FOLKMOOT_TLS_KEY", &key),
        ("FOLKMOOT_TLS_CLIENT_CERTIFICATES", "true"),
    ]);
    node.start().await;
    done(&node, &["user", "add", "ann"], "").await;
    done(&node, &["grant", "ann", "reader", "--on", "notes"], "").await;
    let trusted = done(&node, &["user", "certificate", "ann", &ann_cert], "").await;
    assert_eq!(trusted["kind"], "certificate");
    node.put("notes", "x", json!({"n": 1})).await;

    let url = node.url().to_owned();
    let shows = async |certificate: &str, key: &str, rest: &[&str]| {
        let who = ["--url", &url, "--ca", &cert, "--cert", certificate, "--key", key];
        run([&who, rest].concat(), "").await
    };
    let read = shows(&ann_cert, &ann_key, &["get", "notes", "x"]).await;
    assert!(read.status.success(), "{}", printed(&read));
    let written = shows(&ann_cert, &ann_key, &["put", "notes", "x", "{}"]).await;
    assert_eq!(written.status.code(), Some(4), "{}", printed(&written));
    let stranger = shows(&eve_cert, &eve_key, &["get", "notes", "x"]).await;
    assert_eq!(stranger.status.code(), Some(4), "{}", printed(&stranger));
    // The certificate without its key is nothing, and neither is its key as a token.
    let thief = shows(&ann_cert, &eve_key, &["get", "notes", "x"]).await;
    assert!(!thief.status.success(), "{}", printed(&thief));
    assert_eq!(asks_with(&node, &ann_cert, &ann_key).await, Some(200));
    assert_eq!(asks_with(&node, &ann_cert, &eve_key).await, None);
    let taken = node.cli(&["user", "certificate", "ann", &ann_cert], "").await;
    assert_eq!(taken.status.code(), Some(5), "{}", printed(&taken));
    let no_pem = node.cli(&["user", "certificate", "ann", &ann_key], "").await;
    assert!(!no_pem.status.success() && printed(&no_pem).contains("BEGIN CERTIFICATE"), "{}", printed(&no_pem));

    done(&node, &["revoke", trusted["statement"].as_str().unwrap()], "").await;
    let ended = shows(&ann_cert, &ann_key, &["get", "notes", "x"]).await;
    assert_eq!(ended.status.code(), Some(4), "{}", printed(&ended));

    let data = folder.path().join("without");
    let half = ["serve", "--data", data.to_str().unwrap()];
    let mut command = tokio::process::Command::new(folkmoot_tests::processes::program());
    let output = command.args(half).env("FOLKMOOT_TLS_CLIENT_CERTIFICATES", "true").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_is_read_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = Identity::new();
    let (cert, key) = first.write(folder.path(), "node");
    let node = Node::found_with(folder.path(), "a", &["--tls-cert", &cert, "--tls-key", &key]).await;
    let trusting = |pem: String| {
        let token = std::fs::read_to_string(node.data().join("owner.token")).unwrap();
        Client::builder(node.url()).token(token.trim()).trust(pem).attempts(1).build().unwrap()
    };
    trusting(first.certificate.pem()).status().await.unwrap();

    // Half a file is no certificate: the one before stays.
    std::fs::write(&cert, "-----BEGIN CERTIFICATE-----\nbroken").unwrap();
    until("it is noticed", async || {
        if node.log().contains("the one before stays") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    trusting(first.certificate.pem()).status().await.unwrap();

    let second = Identity::new();
    second.write(folder.path(), "node");
    let renewed = trusting(second.certificate.pem());
    until("the other certificate is shown", async || {
        renewed.status().await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(code(trusting(first.certificate.pem()).status().await), ErrorCode::Unreachable);
}
