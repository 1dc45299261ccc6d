//! What a JSON Web Token must be to count (RFC 7519, RFC 8725, and RFC 9068 where it is an access token).

use std::time::Duration;

use folkmoot_core::op::Actions;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::issuer::{ClaimGrant, OidcIssuer};
use super::keys::Key;
use crate::api::Timestamp;

/// The longest token. Those with a few hundred groups have some 10 KiB.
pub(super) const TOKEN_BYTES_MAX: usize = 16 << 10;
/// By how much clocks may differ.
pub(super) const LEEWAY: Duration = Duration::from_secs(60);
/// Bytes of a subject. OpenID Connect Core 1.0 allows 255.
pub(super) const SUBJECT_BYTES_MAX: usize = 255;
/// Signatures that count. Never one with a shared secret, and never none.
pub(super) const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
/// What may stand as the type of a token that says who somebody is. A log-out or proof token, signed by the same keys, is none.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// Why a token does not count. It is told to whoever shows it, and is about nothing but the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the token has more than {TOKEN_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the token is no JSON Web Token")]
    Malformed,
    #[error("the token is not signed with RS256, PS256, ES256 or EdDSA")]
    Algorithm,
    #[error("the token is of a type that does not say who somebody is")]
    Type,
    #[error("the issuer of the token is not believed here")]
    Issuer,
    #[error("the token names a key that its issuer does not have")]
    Key,
    #[error("the token names no key, and its issuer has several")]
    NoKeyId,
    #[error("the signature of the token is not right")]
    Signature,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has ended")]
    Ended,
    #[error("the token does not count yet")]
    NotYet,
    #[error("the token lacks a claim, or has one that cannot be understood: iss, sub, aud and exp are needed")]
    Claims,
    #[error("the token is bound to a key of its holder, which is not checked here")]
    Bound,
    #[error("nobody is linked to the subject of the token, or no longer")]
    Nobody,
}

/// What a token says that counts.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    pub(super) subject: String,
    /// When it ends, the leeway included.
    pub(super) until: Timestamp,
    all: Map<String, Value>,
}

/// What the head of a token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) algorithm: Algorithm,
    pub(super) key: Option<String>,
}

/// Returns whether a text has the form of a token: three parts. No other secret here has a dot.
#[must_use]
pub fn is_web_token(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Reads what a token says of how it is signed. Nothing of it is believed yet: it only chooses which key is tried.
pub(super) fn head(token: &str) -> Result<Head, Refusal> {
    /// The same, where the library knows no such algorithm.
    #[derive(Deserialize)]
    struct Raw {
        alg: String,
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    if !is_web_token(token) {
        return Err(Refusal::Malformed);
    }
    let header = decode_header(token).map_err(|_| {
        use base64::Engine as _;
        let raw = token.split('.').next().unwrap_or_default();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(raw).unwrap_or_default();
        let named = serde_json::from_slice::<Raw>(&bytes).is_ok_and(|raw| !raw.alg.is_empty());
        if named { Refusal::Algorithm } else { Refusal::Malformed }
    })?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(Refusal::Algorithm);
    }
    if let Some(typ) = &header.typ {
        let typ = typ.to_ascii_lowercase();
        if !TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ)) {
            return Err(Refusal::Type);
        }
    }
    Ok(Head { algorithm: header.alg, key: header.kid })
}

/// Reads who a token says has issued it. Nothing of it is believed yet: it only chooses whose keys are tried.
pub(super) fn issuer(token: &str) -> Result<String, Refusal> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    insecure_decode_claims::<Issued>(token).map(|issued| issued.iss).map_err(|error| match error.kind() {
        ErrorKind::Json(_) => Refusal::Claims,
        _ => Refusal::Malformed,
    })
}

/// Checks a token whose key was found by its head.
pub(super) fn verify(token: &str, algorithm: Algorithm, key: &Key, config: &OidcIssuer) -> Result<Claims, Refusal> {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[&config.issuer]);
    validation.set_audience(&[&config.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
    validation.leeway = LEEWAY.as_secs();
    validation.validate_nbf = true;
    let all = decode::<Map<String, Value>>(token, key.decoding(), &validation).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Refusal::Algorithm,
        ErrorKind::ExpiredSignature => Refusal::Ended,
        ErrorKind::ImmatureSignature => Refusal::NotYet,
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::InvalidIssuer => Refusal::Issuer,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => Refusal::Claims,
        _ => Refusal::Malformed,
    })?;
    let all = all.claims;
    let subject = all.get("sub").and_then(Value::as_str).ok_or(Refusal::Claims)?;
    if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
        return Err(Refusal::Claims);
    }
    // A list of issuers would pass where one of them is the right one.
    if all.get("iss").and_then(Value::as_str) != Some(&config.issuer) {
        return Err(Refusal::Issuer);
    }
    let seconds = |name: &str| all.get(name).map(|value| value.as_f64().ok_or(Refusal::Claims)).transpose();
    let millis = |seconds: f64| (seconds * 1_000.0) as u64;
    let leeway = LEEWAY.as_secs_f64();
    let now = Timestamp::now();
    if let Some(issued) = seconds("iat")?
        && millis(issued - leeway) > now.millis()
    {
        return Err(Refusal::NotYet);
    }
    if all.contains_key("cnf") {
        return Err(Refusal::Bound);
    }
    let ends = seconds("exp")?.ok_or(Refusal::Claims)?;
    Ok(Claims { subject: subject.to_owned(), until: Timestamp::from_millis(millis(ends + leeway)), all })
}

impl Claims {
    /// Returns a claim by its name, or by a JSON pointer.
    fn claim(&self, name: &str) -> Option<&Value> {
        let Some(path) = name.strip_prefix('/') else { return self.all.get(name) };
        let (first, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        self.all.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.claim(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
    }

    /// Returns the name for people that it gives its subject.
    pub(super) fn name(&self, config: &OidcIssuer) -> &str {
        let usual = || ["preferred_username", "email"].into_iter().find_map(|name| self.text(name));
        let named = config.name_claim.as_deref().and_then(|name| self.text(name)).or_else(usual);
        named.unwrap_or(&self.subject)
    }

    /// Returns whether it says what a role asks for.
    pub(super) fn has(&self, grant: &ClaimGrant) -> bool {
        let is = |value: &Value| value.as_str() == Some(&grant.value);
        self.claim(&grant.claim)
            .is_some_and(|value| is(value) || value.as_array().is_some_and(|all| all.iter().any(is)))
    }

    /// Returns the actions to which it is limited: those of the words of its scope that name one. A token without the claim
    /// gives nothing.
    pub(super) fn actions(&self, config: &OidcIssuer) -> Actions {
        let Some(name) = &config.scope_claim else { return Actions::ALL };
        let words: Vec<&str> = match self.claim(name) {
            Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(_) | None => Vec::new(),
        };
        let actions = words.iter().map(|word| word.strip_prefix("folkmoot:").unwrap_or(word));
        actions.filter_map(|word| word.parse::<folkmoot_core::authority::Action>().ok()).collect()
    }
}
