use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use folkmoot_core::op::Actions;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::issuer::{ClaimGrant, OidcIssuer};
use super::jwt::{self, Refusal};
use super::keys::{Issuer, KeySet, NoKey, Pace};
use super::{KNOWN_FOR_MS, KNOWN_MAX, Oidc, Shown, Verified};
use crate::api::Timestamp;

const ISSUER: &str = "https://id.example.org";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The keys of an issuer that signs in all ways that count.
struct Keys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Keys {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            rsa: RsaKeyPair::from_der(include_bytes!("test-rsa.der")).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        }
    }

    fn rsa_jwk(&self) -> Value {
        let key: RsaPublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        json!({"kty": "RSA", "kid": "rsa", "use": "sig", "n": b64(key.n), "e": b64(key.e)})
    }

    fn ec_jwk(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": b64(&point[1..33]), "y": b64(&point[33..])})
    }

    fn ed_jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(self.ed.public_key().as_ref())})
    }

    fn set(&self) -> KeySet {
        parse(&json!({"keys": [self.rsa_jwk(), self.ec_jwk(), self.ed_jwk()]})).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let random = SystemRandom::new();
        let bytes = message.as_bytes();
        let rsa = |padding: &'static dyn ring::signature::RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &random, bytes, &mut signature).unwrap();
            signature
        };
        let signature = match header["alg"].as_str().unwrap() {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => self.ec.sign(&random, bytes).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(bytes).as_ref().to_vec(),
            _ => Vec::new(),
        };
        format!("{message}.{}", b64(signature))
    }
}

fn parse(set: &Value) -> Result<KeySet, String> {
    KeySet::parse(Bytes::from(set.to_string()))
}

fn config() -> OidcIssuer {
    OidcIssuer::new(ISSUER, "folkmoot")
}

fn seconds() -> u64 {
    Timestamp::now().millis() / 1_000
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "1", "aud": "folkmoot", "exp": seconds() + 300, "iat": seconds()})
}

fn with(change: Value) -> Value {
    let mut all = claims();
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            all.as_object_mut().unwrap().remove(name);
        } else {
            all[name] = value.clone();
        }
    }
    all
}

/// Checks a token as the node does, with the keys at hand.
fn check(set: &KeySet, token: &str) -> Result<jwt::Claims, Refusal> {
    super::crypto::install();
    let head = jwt::head(token)?;
    if jwt::issuer(token)? != ISSUER {
        return Err(Refusal::Issuer);
    }
    let key = set.find(&head)?;
    jwt::verify(token, head.algorithm, &key, &config())
}

#[test]
fn tokens_signed_in_each_way_that_counts_are_right_and_no_byte_may_differ() {
    let keys = Keys::new();
    let set = keys.set();
    for (algorithm, kid) in [("RS256", "rsa"), ("PS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        for header in [
            json!({"alg": algorithm, "kid": kid}),
            json!({"alg": algorithm, "kid": kid, "typ": "JWT"}),
            json!({"alg": algorithm, "kid": kid, "typ": "application/AT+JWT"}),
        ] {
            let right = check(&set, &keys.sign(&header, &claims())).unwrap();
            assert_eq!(right.subject, "1");
        }
        let token = keys.sign(&json!({"alg": algorithm, "kid": kid}), &claims());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        for place in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[place] ^= 1;
            let wrong = format!("{message}.{}", b64(&bytes));
            assert_eq!(check(&set, &wrong).unwrap_err(), Refusal::Signature, "{algorithm}, byte {place}");
            bytes[place] ^= 1;
        }
        // Other claims under the same signature, and another key of the issuer.
        let head = message.split('.').next().unwrap();
        let other = format!("{head}.{}.{signature}", b64(with(json!({"sub": "2"})).to_string()));
        assert_eq!(check(&set, &other).unwrap_err(), Refusal::Signature, "{algorithm}");
        let foreign = Keys::new();
        if kid != "rsa" {
            let theirs = foreign.sign(&json!({"alg": algorithm, "kid": kid}), &claims());
            assert_eq!(check(&set, &theirs).unwrap_err(), Refusal::Signature, "{algorithm}");
        }
    }
}

#[test]
fn an_algorithm_is_that_of_its_key_and_never_a_shared_secret_or_none() {
    let keys = Keys::new();
    let set = keys.set();
    // None at all, in all spellings.
    for none in ["none", "None", "NONE", ""] {
        let token = keys.sign(&json!({"alg": none, "kid": "rsa"}), &claims());
        let refusal = check(&set, &token).unwrap_err();
        assert!(matches!(refusal, Refusal::Algorithm | Refusal::Malformed), "{none}: {refusal}");
    }
    // The public key taken for a shared secret, in each form in which somebody could have it.
    let point = keys.ec.public_key().as_ref().to_vec();
    let texts = [keys.rsa_jwk().to_string().into_bytes(), keys.rsa.public().as_ref().to_vec(), point];
    for secret in texts {
        for (kid, algorithm) in [("rsa", "HS256"), ("ec", "HS256"), ("ed", "HS512")] {
            let message =
                format!("{}.{}", b64(json!({"alg": algorithm, "kid": kid}).to_string()), b64(claims().to_string()));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
            let token = format!("{message}.{}", b64(ring::hmac::sign(&key, message.as_bytes())));
            assert_eq!(check(&set, &token).unwrap_err(), Refusal::Algorithm);
        }
    }
    // Another algorithm than that of the key which is named, and stronger ones that are not of the four.
    for (algorithm, kid) in [("RS256", "ec"), ("ES256", "rsa"), ("EdDSA", "ec"), ("ES256", "ed")] {
        let token = keys.sign(&json!({"alg": algorithm, "kid": kid}), &claims());
        assert_eq!(check(&set, &token).unwrap_err(), Refusal::Algorithm, "{algorithm} with {kid}");
    }
    for other in ["RS512", "ES384", "PS384", "HS256", "dir"] {
        let token = keys.sign(&json!({"alg": other, "kid": "rsa"}), &claims());
        assert_eq!(check(&set, &token).unwrap_err(), Refusal::Algorithm, "{other}");
    }
    // A key that says for what it is is for nothing else.
    let mut jwk = keys.rsa_jwk();
    jwk["alg"] = json!("PS256");
    let set = parse(&json!({"keys": [jwk]})).unwrap();
    assert!(check(&set, &keys.sign(&json!({"alg": "PS256", "kid": "rsa"}), &claims())).is_ok());
    let token = keys.sign(&json!({"alg": "RS256", "kid": "rsa"}), &claims());
    assert_eq!(check(&set, &token).unwrap_err(), Refusal::Algorithm);
}

#[test]
fn what_a_token_must_say() {
    let keys = Keys::new();
    let set = keys.set();
    let (now, long) = (seconds(), "x".repeat(jwt::SUBJECT_BYTES_MAX + 1));
    let try_with = |change: Value| check(&set, &keys.sign(&json!({"alg": "ES256", "kid": "ec"}), &with(change)));
    for good in [
        json!({}),
        json!({"aud": ["other", "folkmoot"]}),
        json!({"exp": now - 50}),
        json!({"nbf": now + 50, "iat": now + 50}),
        json!({"iat": null}),
        json!({"exp": now as f64 + 100.5}),
        json!({"sub": &long[1..]}),
    ] {
        assert!(try_with(good.clone()).is_ok(), "{good}: {:?}", try_with(good.clone()).unwrap_err());
    }
    for (bad, refusal) in [
        (json!({"aud": "other"}), Refusal::Audience),
        (json!({"aud": ["other", "folkmoot2"]}), Refusal::Audience),
        (json!({"aud": []}), Refusal::Audience),
        (json!({"aud": null}), Refusal::Claims),
        (json!({"aud": 1}), Refusal::Claims),
        (json!({"iss": "https://id.example.com"}), Refusal::Issuer),
        (json!({"iss": "https://id.example.org/"}), Refusal::Issuer),
        (json!({"iss": [ISSUER]}), Refusal::Claims),
        (json!({"iss": null}), Refusal::Claims),
        (json!({"exp": now - 70}), Refusal::Ended),
        (json!({"exp": null}), Refusal::Claims),
        (json!({"exp": "tomorrow"}), Refusal::Claims),
        (json!({"exp": -1}), Refusal::Claims),
        (json!({"nbf": now + 70}), Refusal::NotYet),
        (json!({"iat": now + 70}), Refusal::NotYet),
        (json!({"iat": "x"}), Refusal::Claims),
        (json!({"sub": null}), Refusal::Claims),
        (json!({"sub": ""}), Refusal::Claims),
        (json!({"sub": 1}), Refusal::Claims),
        (json!({"sub": long}), Refusal::Claims),
        (json!({"cnf": {"jkt": "x"}}), Refusal::Bound),
    ] {
        assert_eq!(try_with(bad.clone()).unwrap_err(), refusal, "{bad}");
    }
}

#[test]
fn what_a_head_must_say() {
    let keys = Keys::new();
    let set = keys.set();
    let try_with = |header: Value| check(&set, &keys.sign(&header, &claims()));
    for (bad, refusal) in [
        (json!({"alg": "ES256", "kid": "another"}), Refusal::Key),
        // Two keys of one issuer fit.
        (json!({"alg": "ES256", "kid": "ec", "typ": "logout+jwt"}), Refusal::Type),
        (json!({"alg": "ES256", "kid": "ec", "typ": "dpop+jwt"}), Refusal::Type),
        (json!({"alg": "ES256", "kid": "ec", "crit": ["exp"], "exp": 1}), Refusal::Malformed),
        (json!({"alg": "ES256", "kid": "ec", "crit": []}), Refusal::Malformed),
        (json!({"alg": "ES256", "kid": "ec", "b64": false}), Refusal::Malformed),
    ] {
        assert_eq!(try_with(bad.clone()).unwrap_err(), refusal, "{bad}");
    }
    // A key that a token brings along is not believed.
    let stranger = Keys::new();
    let header = json!({"alg": "ES256", "kid": "ec", "jwk": stranger.ec_jwk(), "jku": "https://evil.example/keys"});
    assert_eq!(check(&set, &stranger.sign(&header, &claims())).unwrap_err(), Refusal::Signature);
    // Without a name the key must be the only one that fits.
    assert!(try_with(json!({"alg": "ES256"})).is_ok());
    let mut second = stranger.ec_jwk();
    second["kid"] = json!("second");
    let two = parse(&json!({"keys": [keys.ec_jwk(), second]})).unwrap();
    let token = keys.sign(&json!({"alg": "ES256"}), &claims());
    assert_eq!(check(&two, &token).unwrap_err(), Refusal::NoKeyId);
    // What is no token.
    let large = keys.sign(&json!({"alg": "ES256", "kid": "ec"}), &with(json!({"x": "y".repeat(jwt::TOKEN_BYTES_MAX)})));
    assert_eq!(check(&set, &large).unwrap_err(), Refusal::TooLarge);
    for bad in ["", "..", "a.b.c", "a.b", "a.b.c.d.e", "\u{e4}.\u{e4}.\u{e4}", "e30.e30.", &b64("{}")] {
        assert_eq!(check(&set, bad).unwrap_err(), Refusal::Malformed, "{bad}");
    }
}

#[test]
fn sets_of_keys_are_bounded_and_what_is_for_something_else_is_passed_over() {
    let keys = Keys::new();
    let (rsa, ec) = (keys.rsa_jwk(), keys.ec_jwk());
    let changed = |jwk: &Value, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    };
    let small = json!({"kty": "RSA", "n": b64([0x80; 128]), "e": "AQAB"});
    let huge = json!({"kty": "RSA", "n": b64([0x80; 2_048]), "e": "AQAB"});
    let useless = [
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "ec"}),
        json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
        json!({"kty": "quantum"}),
        json!({"kty": "RSA"}),
        json!({"kty": "RSA", "n": "!!!", "e": "AQAB"}),
        json!(7),
        small,
        huge,
        changed(&rsa, "use", json!("enc")),
        changed(&rsa, "alg", json!("RSA-OAEP")),
        changed(&rsa, "alg", json!("RS512")),
        changed(&ec, "key_ops", json!(["sign"])),
    ];
    for one in &useless {
        assert!(parse(&json!({"keys": [one]})).is_err(), "{one}");
    }
    let mut all = useless.to_vec();
    all.push(changed(&ec, "key_ops", json!(["verify"])));
    let set = parse(&json!({"keys": all})).unwrap();
    assert!(check(&set, &keys.sign(&json!({"alg": "ES256", "kid": "ec"}), &claims())).is_ok());
    for bad in ["", "[]", "{}", "{\"keys\": []}", "{\"keys\": 1}", "<html>"] {
        assert!(KeySet::parse(Bytes::from_static(bad.as_bytes())).is_err(), "{bad}");
    }
    assert!(parse(&json!({"keys": vec![ec.clone(); 64]})).is_ok());
    assert!(parse(&json!({"keys": vec![ec.clone(); 65]})).is_err());
    assert!(parse(&json!({"keys": [ec], "pad": "x".repeat(300_000)})).is_err());
}

#[test]
fn claims_name_and_limit_and_give_roles() {
    let keys = Keys::new();
    let set = keys.set();
    let of = |change: Value| check(&set, &keys.sign(&json!({"alg": "EdDSA", "kid": "ed"}), &with(change))).unwrap();
    let plain = config();
    assert_eq!(of(json!({"preferred_username": "ann", "email": "a@b"})).name(&plain), "ann");
    assert_eq!(of(json!({"preferred_username": " ", "email": "a@b"})).name(&plain), "a@b");
    assert_eq!(of(json!({})).name(&plain), "1");
    let other = OidcIssuer { name_claim: Some("/who/nick".to_owned()), ..config() };
    assert_eq!(of(json!({"who": {"nick": "annie"}, "email": "a@b"})).name(&other), "annie");

    let grant = |claim: &str, value: &str| ClaimGrant {
        claim: claim.into(),
        value: value.into(),
        role: "reader".into(),
        collections: "*".into(),
    };
    let said = of(
        json!({"groups": ["a", "b"], "role": "boss", "realm_access": {"roles": ["c"]}, "https://x/y": ["d"], "n": 1}),
    );
    for (claim, value) in
        [("groups", "b"), ("role", "boss"), ("/realm_access/roles", "c"), ("https://x/y", "d"), ("/role", "boss")]
    {
        assert!(said.has(&grant(claim, value)), "{claim}");
    }
    for (claim, value) in [
        ("groups", "c"),
        ("groups", "a b"),
        ("role", "bos"),
        ("none", "x"),
        ("/realm_access", "c"),
        ("/realm_access/roles/1", "c"),
        ("n", "1"),
        ("/", "x"),
    ] {
        assert!(!said.has(&grant(claim, value)), "{claim}");
    }

    let limited = OidcIssuer { scope_claim: Some("scope".to_owned()), ..config() };
    let read: Actions = ["read", "history"].iter().map(|name| name.parse().unwrap()).collect();
    assert_eq!(of(json!({})).actions(&plain), Actions::ALL);
    assert_eq!(of(json!({"scope": "openid folkmoot:read history"})).actions(&limited), read);
    assert_eq!(of(json!({"scope": ["read", "history"]})).actions(&limited), read);
    assert_eq!(of(json!({"scope": "openid"})).actions(&limited), Actions::NONE);
    assert_eq!(of(json!({})).actions(&limited), Actions::NONE);
}

#[test]
fn what_is_known_is_bounded_and_ends_with_the_token_and_the_keys() {
    let oidc = Oidc::new(&[config()]).unwrap();
    let keys = Keys::new();
    let claims = check(&keys.set(), &keys.sign(&json!({"alg": "EdDSA", "kid": "ed"}), &claims())).unwrap();
    let verifier = folkmoot_core::id::TokenVerifier::of_subject(ISSUER, "1");
    let at = Timestamp::now();
    let later = |ms: u64| Timestamp::from_millis(at.millis() + ms);
    let shown = Shown { verifier, until: later(1_000_000), actions: Actions::ALL };
    let verified = |shown: Shown, version: u64| Verified { claims: claims.clone(), shown, by: (0, version) };
    oidc.remember([1; 32], &verified(shown, 0), at);
    assert_eq!(oidc.known(&[1; 32], at), Some(shown));
    assert_eq!(oidc.known(&[2; 32], at), None);
    assert_eq!(oidc.known(&[1; 32], later(KNOWN_FOR_MS)), None);
    oidc.remember([3; 32], &verified(Shown { until: later(10), ..shown }, 0), at);
    assert_eq!(oidc.known(&[3; 32], later(10)), None, "the token has ended");
    oidc.remember([4; 32], &verified(shown, 7), at);
    assert_eq!(oidc.known(&[4; 32], at), None, "other keys");
    for n in 0..2 * KNOWN_MAX as u64 {
        oidc.remember(
            folkmoot_core::hash::hash(folkmoot_core::hash::Domain::Token, &[&n.to_le_bytes()]),
            &verified(shown, 0),
            at,
        );
    }
    assert!(super::lock(&oidc.known).len() <= KNOWN_MAX);
}

#[test]
fn a_verifier_tells_issuer_and_subject_apart() {
    let of = folkmoot_core::id::TokenVerifier::of_subject;
    assert_ne!(of("ab", "c"), of("a", "bc"));
    assert_ne!(of("a", "b"), of("b", "a"));
    assert_eq!(of("a", "b"), of("a", "b"));
}

/// Answers every request with what it is given, and counts them.
async fn serve(answer: Arc<std::sync::Mutex<Option<String>>>) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head).await;
            counted.fetch_add(1, Ordering::SeqCst);
            let text = match answer.lock().unwrap().clone() {
                Some(body) => {
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
                }
                None => "HTTP/1.1 503 Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    (url, count)
}

fn head(kid: &str) -> jwt::Head {
    jwt::Head { algorithm: jsonwebtoken::Algorithm::EdDSA, key: Some(kid.to_owned()) }
}

#[tokio::test]
async fn unknown_keys_make_the_node_ask_seldom_and_known_ones_outlive_the_issuer() {
    let keys = Keys::new();
    let answer = Arc::new(std::sync::Mutex::new(None));
    let (url, asked) = serve(answer.clone()).await;
    let config = OidcIssuer { jwks: Some(format!("{url}/keys")), ..OidcIssuer::new(&url, "folkmoot") };
    let pace =
        Pace { usual: Duration::from_secs(600), on_demand: Duration::from_secs(2), retry: Duration::from_millis(50) };
    let issuer = Arc::new(Issuer::new(config, pace));
    assert!(issuer.is_without_keys());
    let task = tokio::spawn(issuer.clone().keep_keys());
    // The issuer is down: that is told apart from a wrong token, and tried again.
    assert_eq!(issuer.key(&head("ed")).await.map(drop).unwrap_err(), NoKey::NotYet);
    *answer.lock().unwrap() = Some(json!({"keys": [keys.ed_jwk()]}).to_string());
    let begun = std::time::Instant::now();
    while issuer.key(&head("ed")).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the keys are fetched");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let version = issuer.version();
    // A flood of unknown keys costs nothing.
    let before = asked.load(Ordering::SeqCst);
    let begun = std::time::Instant::now();
    for n in 0..1_000 {
        assert_eq!(issuer.key(&head(&format!("no-{n}"))).await.map(drop).unwrap_err(), NoKey::Refused(Refusal::Key));
    }
    let fetches = asked.load(Ordering::SeqCst) - before;
    let allowed = 1 + (begun.elapsed().as_secs_f64() / 2.0) as usize;
    assert!(fetches <= allowed, "{fetches} fetches, {allowed} allowed");
    // The keys change: a token with the other one is right once the issuer may be asked again, and the first one's no more.
    let mut other = Keys::new().ed_jwk();
    other["kid"] = json!("other");
    *answer.lock().unwrap() = Some(json!({"keys": [other]}).to_string());
    let begun = std::time::Instant::now();
    while issuer.key(&head("other")).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the other key is fetched");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(issuer.key(&head("ed")).await.is_err());
    assert_eq!(issuer.version(), version + 1);
    // The issuer goes down, or answers nonsense: its keys stay.
    for nonsense in [None, Some("<html>".to_owned()), Some("{\"keys\": []}".to_owned())] {
        *answer.lock().unwrap() = nonsense;
        let before = asked.load(Ordering::SeqCst);
        let begun = std::time::Instant::now();
        while asked.load(Ordering::SeqCst) == before {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is asked");
            let _ = issuer.key(&head("unknown")).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(issuer.key(&head("other")).await.is_ok());
    }
    task.abort();
}

#[tokio::test]
async fn an_issuer_is_believed_only_about_itself() {
    let answer = Arc::new(std::sync::Mutex::new(None));
    let (url, _) = serve(answer.clone()).await;
    // One answer stands for both, the description and the keys: were the first believed, so would be the second. It describes
    // another issuer, or sends the node elsewhere in the clear, or sends too much.
    let body = |issuer: &str, keys: &str, pad: usize| {
        let all = json!({"issuer": issuer, "jwks_uri": keys, "keys": [Keys::new().ed_jwk()], "x": "x".repeat(pad)});
        all.to_string()
    };
    let keys = format!("{url}/keys");
    for (body, is_right) in [
        (body(&url, &keys, 0), true),
        (body("https://other.example", &keys, 0), false),
        (body(&format!("{url}/"), &keys, 0), false),
        (body(&url, "http://192.0.2.1/keys", 0), false),
        (body(&url, "file:///etc/passwd", 0), false),
        (body(&url, &keys, 300_000), false),
    ] {
        *answer.lock().unwrap() = Some(body.clone());
        let pace = Pace { retry: Duration::from_secs(60), ..Pace::USUAL };
        let issuer = Arc::new(Issuer::new(OidcIssuer::new(&url, "folkmoot"), pace));
        let task = tokio::spawn(issuer.clone().keep_keys());
        let found = issuer.key(&head("ed")).await.map(drop);
        assert_eq!(found, if is_right { Ok(()) } else { Err(NoKey::NotYet) }, "{body:.80}");
        task.abort();
    }
}
