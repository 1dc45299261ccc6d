//! Nodes that reach each other by QUIC, as the configuration says.

use folkmoot::api::Database as _;
use folkmoot_tests::processes::{Node, converged, printed, run};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_and_replicate_over_quic() {
    let folder = tempfile::tempdir().unwrap();
    // The first one listens by nothing else, so whatever arrives there came by QUIC.
    let mut a = Node::found_with(folder.path(), "a", &["--p2p-transport", "quic"]).await;
    let listening = a.client().status().await.unwrap().p2p;
    assert!(!listening.is_empty() && listening.iter().all(|address| address.contains("/quic-v1/")), "{listening:?}");
    a.put("notes", "one", json!({"from": "a"})).await;
    let b = Node::join(folder.path(), "b", &a).await;
    b.put("notes", "two", json!({"from": "b"})).await;
    converged(&[&a, &b]).await;
    let log = b.log();
    assert!(log.lines().any(|line| line.contains("connected") && line.contains("/quic-v1")), "{log}");
    // UDP tells nobody that the other end is gone.
    a.kill();
    b.put("notes", "three", json!({"from": "b"})).await;
    a.start().await;
    println!("equal {:?} after a killed node was up again", converged(&[&a, &b]).await);
    assert_eq!(a.all("notes").await.unwrap().len(), 3);
    a.assert_sound().await;
    b.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transports_and_addresses_are_checked_before_a_cluster_is_founded() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let cases: &[(&[&str], &str)] = &[
        (&["--p2p-transport", "udp"], "quic"),
        (&["--bootstrap", "nowhere"], "nowhere"),
        (&["--label", "colour"], "colour"),
        (&["--listen", "0.0.0.0:0"], "--tls-cert"),
    ];
    for (arguments, told) in cases {
        let all = [&["--data", data.to_str().unwrap(), "serve"], *arguments].concat();
        let output = run(all, "").await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", printed(&output));
        assert!(printed(&output).contains(told), "{arguments:?}: {}", printed(&output));
        assert!(!data.exists(), "{arguments:?} founded a cluster");
    }
    let file = folder.path().join("folkmoot.toml");
    for (text, told) in [
        ("bootstrap = [\"nowhere\"]", "nowhere"),
        ("p2p_transports = []", "p2p_transports"),
        ("listen = \"0.0.0.0:7070\"", "0.0.0.0:7070"),
        ("http.cors_origins = [\"app.example/x\"]", "app.example"),
        ("tls_cert = \"/nonexistent.pem\"", "tls_key"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = run(["config", "check", "--config", file.to_str().unwrap()], "").await;
        assert_eq!(output.status.code(), Some(2), "{text}: {}", printed(&output));
        assert!(printed(&output).contains(told), "{text}: {}", printed(&output));
    }
}
