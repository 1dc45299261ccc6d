//! The API over TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use folkmoot::api::Database as _;
use folkmoot::{Client, ErrorCode};
use folkmoot_tests::processes::{Node, printed, run};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Writes a certificate for `localhost` and its key, which only the owner may read.
fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    readable_by(&key, 0o600);
    (cert, key)
}

fn readable_by(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_trusts_the_certificate_is_served_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path());
    let files = [cert.to_str().unwrap(), key.to_str().unwrap()];
    let node = Node::found_with(folder.path(), "a", &["--tls-cert", files[0], "--tls-key", files[1]]).await;
    assert!(node.url().starts_with("https://127.0.0.1:"), "{}", node.url());
    node.put("notes", "one", json!({"n": 1})).await;
    // The certificate is for another name than the address: on this machine the data directory tells which it is.
    let here = node.cli(&["get", "notes", "one"], "").await;
    assert!(here.status.success(), "{}", printed(&here));

    let token = node.data().join("owner.token");
    let port = node.url().rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}");
    let get = async |more: &[&str]| {
        let all = [&["--url", &url, "--token-file", token.to_str().unwrap()], more, &["get", "notes", "one"]].concat();
        run(all, "").await
    };
    let trusting = get(&["--ca", files[0]]).await;
    assert!(trusting.status.success(), "{}", printed(&trusting));
    let stranger = get(&[]).await;
    assert_eq!(stranger.status.code(), Some(3), "{}", printed(&stranger));
    assert!(printed(&stranger).contains("--ca"), "{}", printed(&stranger));
    let elsewhere = tempfile::tempdir().unwrap();
    let (other, _) = certificate(elsewhere.path());
    let misled = get(&["--ca", other.to_str().unwrap()]).await;
    assert_eq!(misled.status.code(), Some(3), "{}", printed(&misled));
    let nothing = Client::builder(&url).trust("no certificate").build().map(drop).unwrap_err();
    assert_eq!(nothing.code(), ErrorCode::InvalidParameter);

    // Who speaks in the clear is told nothing, and held no longer than a client that says nothing.
    let mut clear = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    clear.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), clear.read_to_end(&mut answer)).await;
    assert!(ended.is_ok() && !answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(node.client().status().await.unwrap().documents, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_in_the_clear_or_with_a_key_that_others_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path());
    let data = folder.path().join("a");
    let refused = async |arguments: &[&str], why: &str| {
        let all = [&["serve", "--data", data.to_str().unwrap()], arguments].concat();
        let output = run(all, "").await;
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        assert!(printed(&output).contains(why), "{why}: {}", printed(&output));
        assert!(!data.exists(), "nothing was made");
    };
    refused(&["--listen", "0.0.0.0:0"], "--tls-cert").await;
    let files = [cert.to_str().unwrap(), key.to_str().unwrap()];
    refused(&["--tls-cert", files[0]], "both").await;
    refused(&["--tls-cert", files[1], "--tls-key", files[1]], "no certificate").await;
    refused(&["--tls-cert", "/nowhere.pem", "--tls-key", files[1]], "/nowhere.pem").await;
    readable_by(&key, 0o640);
    refused(&["--listen", "0.0.0.0:0", "--tls-cert", files[0], "--tls-key", files[1]], "chmod 600").await;
}
