//! Log-in by JSON Web Tokens of an issuer that speaks discovery and hands out its keys, on this machine.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use folkmoot::api::{ChangesQuery, Database as _, NewIdentity, Since, WriteOptions};
use folkmoot::{Access as _, Client, ErrorCode};
use folkmoot_tests::processes::{HttpAnswer, Node, id, name, printed, text, until};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Key {
    kid: String,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(kid: &str) -> Self {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap();
        Self { kid: kid.to_owned(), pair }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
            "x": b64(&point[1..33]), "y": b64(&point[33..])})
    }

    /// A token with these claims besides the usual ones.
    fn token(&self, issuer: &str, subject: &str, besides: Value) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": issuer, "sub": subject, "aud": "folkmoot", "iat": now, "exp": now + 3_600});
        for (name, value) in besides.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.kid});
        let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", b64(signature))
    }
}

/// An issuer that speaks HTTP.
struct Issuer {
    url: String,
    jwks: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Issuer {
    async fn begin(keys: &[&Key]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let jwks = Arc::new(Mutex::new(Value::Null));
        let asked = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(Self::serve(listener, url.clone(), jwks.clone(), asked.clone()));
        let issuer = Self { url, jwks, asked, serving };
        issuer.set_keys(keys);
        issuer
    }

    fn set_keys(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        *self.jwks.lock().unwrap() = json!({ "keys": keys });
    }

    async fn serve(listener: tokio::net::TcpListener, url: String, jwks: Arc<Mutex<Value>>, asked: Arc<AtomicUsize>) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 8_192];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            asked.fetch_add(1, Ordering::SeqCst);
            let body = match head.split(' ').nth(1) {
                Some("/.well-known/openid-configuration") => Some(
                    json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "response_types_supported": ["code"]}),
                ),
                Some("/keys") => Some(jwks.lock().unwrap().clone()),
                _ => None,
            };
            let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
            let body = body.unwrap_or_default().to_string();
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }

    async fn go_down(self) -> usize {
        self.serving.abort();
        let _ = self.serving.await;
        self.asked.load(Ordering::SeqCst)
    }
}

fn configure(node: &mut Node, folder: &Path, name: &str, toml: &str) {
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, toml).unwrap();
    node.set_arguments(&["--config", path.to_str().unwrap()]);
}

async fn asks(node: &Node, token: &str) -> HttpAnswer {
    let header = format!("Bearer {token}");
    node.http_as_stranger("GET", "/v1/caller", &[("authorization", &header)], b"").await
}

async fn done(node: &Node, arguments: &[&str]) -> Value {
    let output = node.cli(&[arguments, &["--json"]].concat(), "").await;
    assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
    serde_json::from_str(&printed(&output)).unwrap()
}

fn client(node: &Node, token: &str) -> Client {
    Client::builder(node.url()).token(token).attempts(1).build().unwrap()
}

async fn comes_in(node: &Node, token: &str) -> HttpAnswer {
    until("the token is right", async || {
        let answer = asks(node, token).await;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.json)) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_is_linked_is_known_at_every_node_until_the_link_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::new("first");
    let issuer = Issuer::begin(&[&key]).await;
    let url = issuer.url.clone();
    let toml = format!("[[oidc]]\nissuer = \"{url}\"\naudience = \"folkmoot\"\nscope_claim = \"scope\"\n");
    let mut a = Node::found(folder.path(), "a").await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    for (node, name) in [(&mut a, "a"), (&mut b, "b")] {
        assert!(node.stop().await.success());
        configure(node, folder.path(), name, &toml);
        node.start().await;
    }
    let all = json!({"scope": "openid read create update history"});
    let token = key.token(&url, "4711", all.clone());

    // Right, but nobody's: nobody is introduced here.
    let nobody = until("the keys are fetched", async || {
        let answer = asks(&a, &token).await;
        if answer.status == 503 { Err(answer.json.to_string()) } else { Ok(answer) }
    })
    .await;
    assert_eq!(nobody.status, 401);
    assert!(
        nobody.head.contains("www-authenticate: bearer error=\"invalid_token\", error_description=\"nobody"),
        "{}",
        nobody.head
    );

    done(&a, &["user", "add", "ann"]).await;
    done(&a, &["grant", "ann", "editor", "--on", "notes"]).await;
    let link = done(&a, &["user", "identity", "ann", "--issuer", &url, "--subject", "4711"]).await;
    assert_eq!(link["kind"], "identity");
    let again = a
        .client()
        .link_identity(
            &"ann".parse().unwrap(),
            &NewIdentity { issuer: url.clone(), subject: "4711".into(), until: None },
        )
        .await;
    assert_eq!(again.unwrap_err().code(), ErrorCode::NameTaken);

    // By REST, SDK and command line, at both nodes, and within what ann may.
    assert_eq!(comes_in(&a, &token).await.json["name"], "ann");
    assert_eq!(comes_in(&b, &token).await.json["name"], "ann");
    let ann = client(&b, &token);
    ann.put(&name("notes"), id("x"), text(&json!({"by": "ann"})), &WriteOptions::default()).await.unwrap();
    let refused = ann.put(&name("other"), id("x"), text(&json!({})), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotAllowed);
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let by_cli = b.cli(&["--token-file", file.to_str().unwrap(), "whoami"], "").await;
    assert!(by_cli.status.success() && printed(&by_cli).contains("ann"), "{}", printed(&by_cli));
    std::fs::remove_file(&file).unwrap();
    // A token gives no more than its scope.
    let reading = client(&a, &key.token(&url, "4711", json!({"scope": "read"})));
    reading
        .get(&name("notes"), &id("x"), &Default::default())
        .await
        .map(drop)
        .or_else(|error| {
            // Written at b, it may not have arrived.
            if error.code() == ErrorCode::DocumentNotFound || error.code() == ErrorCode::CollectionNotFound {
                Ok(())
            } else {
                Err(error)
            }
        })
        .unwrap();
    let refused = reading.put(&name("notes"), id("y"), text(&json!({})), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotAllowed);

    // What does not count, and why.
    let stranger = Key::new("first");
    for (bad, why) in [
        (stranger.token(&url, "4711", all.clone()), "the signature"),
        (key.token(&url, "4711", json!({"aud": "other"})), "another audience"),
        (key.token("https://other.example", "4711", json!({})), "the issuer"),
        (key.token(&url, "4711", json!({"exp": 1_000})), "has ended"),
        (key.token(&url, "4712", all.clone()), "nobody is linked"),
        (Key::new("unknown").token(&url, "4711", all.clone()), "names a key"),
        ("a.b.c".to_owned(), "no json web token"),
    ] {
        let answer = asks(&a, &bad).await;
        assert_eq!(answer.status, 401, "{why}");
        assert!(answer.head.contains("error=\"invalid_token\"") && answer.head.contains(why), "{why}: {}", answer.head);
    }
    // A flood of tokens with keys that nobody knows does not make the node ask.
    let before = issuer.asked.load(Ordering::SeqCst);
    for n in 0..50 {
        assert_eq!(asks(&a, &Key::new(&format!("no-{n}")).token(&url, "4711", all.clone())).await.status, 401);
    }
    assert!(issuer.asked.load(Ordering::SeqCst) - before <= 4, "asked once at most, by two requests, by each node");
    let metrics = a.metrics().await;
    let logins = |outcome: &str| {
        metrics.get(&format!("folkmoot_access_logins_total{{kind=\"oidc\",outcome=\"{outcome}\"}}")).copied()
    };
    assert!(logins("right").unwrap() >= 1.0 && logins("wrong").unwrap() >= 57.0, "{metrics:?}");

    // Who waits for changes waits no longer than its token lasts (with the leeway of a minute).
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let ending = client(&a, &key.token(&url, "4711", json!({"scope": "read", "exp": now - 55})));
    ending.caller().await.unwrap();
    let query = ChangesQuery { since: Since::Now, wait: Duration::from_secs(8), ..ChangesQuery::default() };
    assert_eq!(ending.changes(&query).await.unwrap_err().code(), ErrorCode::Unauthenticated);

    // The issuer changes its key while the nodes run.
    let second = Key::new("second");
    issuer.set_keys(&[&second]);
    let token = second.token(&url, "4711", all.clone());
    assert_eq!(comes_in(&a, &token).await.json["name"], "ann");
    comes_in(&b, &token).await;
    // It goes down: its keys still count, and links outlive a crash.
    issuer.go_down().await;
    let another = second.token(&url, "4711", json!({"scope": "read"}));
    assert_eq!(asks(&b, &another).await.status, 200);

    // A feed that is open ends with the link, and so does everything, at the other node too.
    let statement = link["statement"].as_str().unwrap();
    done(&a, &["revoke", statement]).await;
    assert_eq!(asks(&a, &token).await.status, 401);
    until("the link has ended at the other node", async || {
        let answer = asks(&b, &token).await;
        if answer.status == 401 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    let query = ChangesQuery { since: Since::Now, ..ChangesQuery::default() };
    assert_eq!(ann.changes(&query).await.unwrap_err().code(), ErrorCode::Unauthenticated);

    // The audit tells kind and issuer, and neither log nor audit the token.
    let told = printed(&a.cli(&["--json", "audit", "query", "--action", "login"], "").await);
    assert!(told.contains("\"oidc\"") && told.contains(&url), "{told}");
    let wrong = stranger.token(&url, "4711", all.clone());
    assert_eq!(asks(&a, &wrong).await.status, 401);
    for secret in [token.as_str(), another.as_str(), wrong.as_str()] {
        assert!(!told.contains(secret) && !a.log().contains(secret) && !b.log().contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_first_is_introduced_and_has_what_the_claims_say_for_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::new("first");
    let issuer = Issuer::begin(&[&key]).await;
    let url = issuer.url.clone();
    let toml = format!(
        "[[oidc]]\nissuer = \"{url}\"\naudience = \"folkmoot\"\nregister = true\ngrant_for = \"8s\"\n\
         [[oidc.grants]]\nclaim = \"groups\"\nvalue = \"writers\"\nrole = \"editor\"\ncollections = \"notes*\"\n\
         [[oidc.grants]]\nclaim = \"/realm/roles\"\nvalue = \"all\"\nrole = \"reader\"\n"
    );
    let mut a = Node::new(folder.path(), "a");
    configure(&mut a, folder.path(), "a", &toml);
    a.start().await;
    let mut b = Node::join(folder.path(), "b", &a).await;
    assert!(b.stop().await.success());
    configure(&mut b, folder.path(), "b", &toml);
    b.start().await;
    done(&a, &["user", "add", "ann"]).await;

    // Many at once are one. A name that somebody has is not given again.
    let claims = json!({"preferred_username": "ann", "groups": ["writers"]});
    let tokens: Vec<String> = (0..8)
        .map(|n| key.token(&url, "s-1", json!({"preferred_username": "ann", "groups": ["writers"], "n": n})))
        .collect();
    comes_in(&a, &key.token(&url, "warm-up", json!({}))).await;
    let mut seen = Vec::new();
    for answer in futures_util::future::join_all(tokens.iter().map(|token| asks(&a, token))).await {
        assert_eq!(answer.status, 200, "{}", answer.json);
        seen.push(answer.json["principal"].clone());
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    let found = done(&a, &["user", "list"]).await;
    let names: Vec<&str> = found.as_array().unwrap().iter().map(|info| info["name"].as_str().unwrap()).collect();
    let alike: Vec<&&str> = names.iter().filter(|name| name.starts_with("ann")).collect();
    let [_, hers] = alike.as_slice() else { panic!("one more than before: {names:?}") };
    assert!(hers.starts_with("ann~"), "{names:?}");

    // What the claims say, here and at the other node, which may introduce nobody and does not need to.
    let token = key.token(&url, "s-1", claims.clone());
    let ann = client(&a, &token);
    ann.put(&name("notes-1"), id("x"), text(&json!({"n": 1})), &WriteOptions::default()).await.unwrap();
    let refused = ann.put(&name("other"), id("x"), text(&json!({})), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotAllowed);
    assert_eq!(comes_in(&b, &token).await.json["principal"], seen[0]);
    let newcomer = key.token(&url, "s-2", json!({}));
    let refused = asks(&b, &newcomer).await;
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("may introduce nobody"), "{}", refused.head);
    let shown = done(&a, &["user", "show", hers]).await;
    let grants = shown["grants"].as_array().unwrap();
    assert!(grants.len() == 1 && grants[0]["role"] == "editor" && grants[0]["until"].is_string(), "{shown}");

    // Renewed while the claim is there: longer than one grant lasts.
    let begun = std::time::Instant::now();
    let mut n = 0;
    while begun.elapsed() < Duration::from_secs(12) {
        n += 1;
        let fresh = client(&a, &key.token(&url, "s-1", json!({"groups": ["writers"], "n": 100 + n})));
        fresh.put(&name("notes-1"), id("x"), text(&json!({"n": n})), &WriteOptions::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let renewed = done(&a, &["user", "show", hers]).await["grants"].as_array().unwrap().len();
    assert!(renewed <= 2, "renewed in the second half of its time only: {renewed}");
    // The claim is gone: the role ends by itself.
    let without = key.token(&url, "s-1", json!({"groups": ["readers"]}));
    comes_in(&a, &without).await;
    until("the role has ended", async || {
        let put = client(&a, &without).put(&name("notes-1"), id("y"), text(&json!({})), &WriteOptions::default()).await;
        match put {
            Err(error) if error.code() == ErrorCode::NotAllowed => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // A pointer into the claims, and a role on everything.
    let reader = client(&a, &key.token(&url, "s-1", json!({"realm": {"roles": ["all"]}})));
    reader.get(&name("notes-1"), &id("x"), &Default::default()).await.unwrap();

    // Who is removed does not come back by itself, and is known after a crash.
    a.kill();
    a.start().await;
    assert_eq!(comes_in(&a, &token).await.json["principal"], seen[0]);
    done(&a, &["user", "remove", hers]).await;
    for n in 0..2 {
        let fresh = key.token(&url, "s-1", json!({"groups": ["writers"], "n": 200 + n}));
        let answer = asks(&a, &fresh).await;
        assert_eq!(answer.status, 401, "{}", answer.json);
    }
    until("the metrics tell that the issuer has keys", async || {
        let without = a.metrics().await.get("folkmoot_oidc_issuers_without_keys").copied();
        if without == Some(0.0) { Ok(()) } else { Err(format!("{without:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_introduce_somebody_at_once_agree_on_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::new("first");
    let issuer = Issuer::begin(&[&key]).await;
    let url = issuer.url.clone();
    let toml = format!("[[oidc]]\nissuer = \"{url}\"\naudience = \"folkmoot\"\nregister = true\n");
    let mut a = Node::new(folder.path(), "a");
    configure(&mut a, folder.path(), "a", &toml);
    a.start().await;
    let ticket = a.ticket(&["--role", "admin"]).await;
    let mut b = Node::join_with(folder.path(), "b", &ticket).await;
    assert!(b.stop().await.success());
    configure(&mut b, folder.path(), "b", &toml);
    b.start().await;
    comes_in(&a, &key.token(&url, "warm-up", json!({}))).await;
    comes_in(&b, &key.token(&url, "warm-up", json!({}))).await;

    // Apart, each makes somebody of the same subject.
    let other = b.key().to_string();
    done(&a, &["peers", "block", &other]).await;
    let token = key.token(&url, "s-1", json!({"preferred_username": "ann"}));
    let at_a = comes_in(&a, &token).await.json["principal"].clone();
    let at_b = comes_in(&b, &token).await.json["principal"].clone();
    assert_ne!(at_a, at_b, "each made its own");
    done(&a, &["peers", "unblock", &other]).await;
    let agreed = until("both say the same", async || {
        let (a, b) = (asks(&a, &token).await, asks(&b, &token).await);
        let both = done_principals(&a, &b);
        both.ok_or_else(|| format!("{} and {}", a.json, b.json))
    })
    .await;
    assert!(agreed == at_a || agreed == at_b);
    let all = until("both have both", async || {
        let all = a.client().principals().await.unwrap();
        let alike: Vec<_> = all.into_iter().filter(|info| info.name == "ann").collect();
        if alike.len() == 2 { Ok(alike) } else { Err(format!("{alike:?}")) }
    })
    .await;
    let smaller = all.iter().min_by_key(|info| info.tokens[0].statement).unwrap();
    until("that with the smaller statement counts", async || {
        let now = asks(&b, &token).await.json["principal"].clone();
        if now == smaller.id.to_string() { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

fn done_principals(a: &HttpAnswer, b: &HttpAnswer) -> Option<Value> {
    (a.status == 200 && a.json["principal"] == b.json["principal"]).then(|| a.json["principal"].clone())
}

#[tokio::test]
async fn what_cannot_be_believed_is_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    for (toml, why) in [
        ("[[oidc]]\nissuer = \"http://id.example.org\"\naudience = \"x\"\n", "in the clear"),
        ("[[oidc]]\nissuer = \"https://a.example\"\n", "audience"),
        ("[[oidc]]\nissuer = \"https://a.example\"\naudience = \"\"\n", "empty"),
        ("[[oidc]]\nissuer = \"https://a.example\"\naudience = \"x\"\nalgorithm = \"none\"\n", "algorithm"),
    ] {
        let path = folder.path().join("folkmoot.toml");
        std::fs::write(&path, toml).unwrap();
        let data = folder.path().join("data");
        let arguments = ["serve", "--data", data.to_str().unwrap(), "--config", path.to_str().unwrap()];
        let output = folkmoot_tests::processes::run(arguments, "").await;
        assert_eq!(output.status.code(), Some(2), "{toml}: {}", printed(&output));
        assert!(printed(&output).contains(why), "{why}: {}", printed(&output));
        assert!(!data.exists(), "nothing was begun");
    }
}
