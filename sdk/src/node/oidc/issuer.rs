//! Issuers of JSON Web Tokens as the configuration names them.

use std::path::PathBuf;
use std::time::Duration;

use folkmoot_core::id::OpId;
use http::Uri;

/// Issuers of one node.
pub(super) const ISSUERS_MAX: usize = 16;
/// Roles by claims of one issuer.
const GRANTS_MAX: usize = 64;
/// Bytes of an issuer's name and of other texts of its configuration.
pub(super) const TEXT_BYTES_MAX: usize = 512;
/// How long roles by claims last, at least: each costs an act of the control log.
const GRANT_FOR_MIN: Duration = Duration::from_secs(1);

/// An issuer of JSON Web Tokens that a node believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcIssuer {
    /// Its name, an https address: the claim `iss`, to the letter. In the clear on loopback only.
    pub issuer: String,
    /// Which tokens are for this cluster: one of the claim `aud`.
    pub audience: String,
    /// Where its keys are, an address or a file; if not given, the issuer is asked for the address (OpenID Connect Discovery 1.0).
    pub jwks: Option<String>,
    /// PEM file of the authorities to believe when it is asked; those of the machine if not given.
    pub ca: Option<PathBuf>,
    /// The claim that names who is introduced; if not given `preferred_username`, `email` or `sub`, whichever is there.
    pub name_claim: Option<String>,
    /// Whether who is no principal yet is made one.
    pub register: bool,
    /// The claim that limits a token to the actions that it lists; if not given, tokens give all that their principals may.
    pub scope_claim: Option<String>,
    /// How long a role by a claim lasts. It is given again at a log-in in the second half of that.
    pub grant_for: Duration,
    /// Roles by claims.
    pub grants: Vec<ClaimGrant>,
}

/// A role for those who have a value in a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimGrant {
    /// The claim, or a JSON pointer into the claims (`/realm_access/roles`).
    pub claim: String,
    /// What it is or, if it is a list, holds.
    pub value: String,
    /// The role.
    pub role: String,
    /// On which collections: a name, a beginning of names followed by `*`, or `*`.
    pub collections: String,
}

impl OidcIssuer {
    /// How long a role by a claim lasts, if nothing else is said.
    pub const GRANT_FOR: Duration = Duration::from_secs(24 * 3_600);

    /// An issuer whose keys are found by discovery, whose subjects are linked to principals by hand.
    #[must_use]
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            jwks: None,
            ca: None,
            name_claim: None,
            register: false,
            scope_claim: None,
            grant_for: Self::GRANT_FOR,
            grants: Vec::new(),
        }
    }

    /// Checks what a node is configured with, without asking anybody.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check_all(issuers: &[Self]) -> Result<(), String> {
        if issuers.len() > ISSUERS_MAX {
            return Err(format!("at most {ISSUERS_MAX} issuers are believed"));
        }
        for (index, issuer) in issuers.iter().enumerate() {
            issuer.check().map_err(|what| format!("issuer {:?}: {what}", issuer.issuer))?;
            if issuers.iter().take(index).any(|other| other.issuer == issuer.issuer) {
                return Err(format!("issuer {:?} is named twice", issuer.issuer));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let of_grants =
            self.grants.iter().flat_map(|grant| [&grant.claim, &grant.value, &grant.role, &grant.collections]);
        let texts = [&self.issuer, &self.audience].into_iter().chain(of_grants);
        let optional = [&self.jwks, &self.name_claim, &self.scope_claim].into_iter().flatten();
        if texts.chain(optional).any(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
            return Err(format!("a text is empty or has more than {TEXT_BYTES_MAX} bytes"));
        }
        if self.issuer.contains(['?', '#']) {
            return Err("an issuer has neither query nor fragment".to_owned());
        }
        url(&self.issuer, None)?;
        if let Some(KeySource::Url(text)) = self.key_source() {
            url(text, Some(self))?;
        }
        if self.grants.len() > GRANTS_MAX {
            return Err(format!("at most {GRANTS_MAX} roles by claims are given"));
        }
        // What a principal has is told by the role's name, and would be given again and again.
        if self.grants.iter().any(|grant| grant.role.parse::<OpId>().is_ok()) {
            return Err("a role by a claim is named by its name, not by its statement".to_owned());
        }
        if self.grant_for < GRANT_FOR_MIN {
            return Err("grant_for is less than a second".to_owned());
        }
        Ok(())
    }

    /// Returns where the keys are, if that is said.
    pub(super) fn key_source(&self) -> Option<KeySource<'_>> {
        let text = self.jwks.as_deref()?;
        Some(if text.starts_with("https://") || text.starts_with("http://") {
            KeySource::Url(text)
        } else {
            KeySource::File(text.as_ref())
        })
    }
}

/// Where keys are.
pub(super) enum KeySource<'a> {
    /// At an address.
    Url(&'a str),
    /// In a file.
    File(&'a std::path::Path),
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns an address that may be asked. In the clear only loopback is, and on behalf of an issuer only if that is itself there:
/// no issuer sends a node to a service of its own machine.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn url(text: &str, on_behalf_of: Option<&OidcIssuer>) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| format!("{text:?} is no address"))?;
    if url.host().is_none() {
        return Err(format!("{text:?} names no host"));
    }
    let clear = on_behalf_of.is_none_or(|issuer| issuer.issuer.starts_with("http://"));
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if clear && is_loopback(&url) => Ok(url),
        Some("http") => Err(format!("{text:?} is in the clear: it must begin with https://")),
        Some(_) | None => Err(format!("{text:?} does not begin with https://")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_encrypted_or_on_this_machine_is_asked() {
        let check = |issuer: &str| OidcIssuer::check_all(&[OidcIssuer::new(issuer, "folkmoot")]);
        for good in [
            "https://id.example.org",
            "https://id.example.org/realms/x",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "id.example.org",
            "http://id.example.org",
            "http://127.0.0.1.example.org",
            "ftp://a",
            "https://a/?b",
            "https://a/#b",
            "file:///x",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        // An issuer elsewhere does not send the node to itself.
        let far = OidcIssuer::new("https://id.example.org", "folkmoot");
        let near = OidcIssuer::new("http://127.0.0.1:1", "folkmoot");
        assert!(url("http://127.0.0.1:2/keys", Some(&far)).is_err());
        assert!(url("http://127.0.0.1:2/keys", Some(&near)).is_ok());
        assert!(url("http://id.example.org/keys", Some(&near)).is_err());
    }

    #[test]
    fn what_is_configured_is_bounded() {
        let issuer = |n: usize| OidcIssuer::new(format!("https://id-{n}.example"), "folkmoot");
        let many: Vec<_> = (0..=ISSUERS_MAX).map(issuer).collect();
        assert!(OidcIssuer::check_all(&many).is_err());
        assert!(OidcIssuer::check_all(&many[1..]).is_ok());
        assert!(OidcIssuer::check_all(&[issuer(1), issuer(1)]).unwrap_err().contains("twice"));
        let grant =
            ClaimGrant { claim: "groups".into(), value: "x".into(), role: "reader".into(), collections: "*".into() };
        let granting = |count: usize| OidcIssuer { grants: vec![grant.clone(); count], ..issuer(1) };
        assert!(OidcIssuer::check_all(&[granting(GRANTS_MAX)]).is_ok());
        assert!(OidcIssuer::check_all(&[granting(GRANTS_MAX + 1)]).is_err());
        let nameless = OidcIssuer { grants: vec![ClaimGrant { claim: String::new(), ..grant.clone() }], ..issuer(1) };
        assert!(OidcIssuer::check_all(&[nameless]).is_err());
        assert!(OidcIssuer::check_all(&[OidcIssuer { grant_for: Duration::ZERO, ..issuer(1) }]).is_err());
        assert!(
            OidcIssuer::check_all(&[OidcIssuer { jwks: Some("http://id.example/keys".into()), ..issuer(1) }]).is_err()
        );
        assert!(OidcIssuer::check_all(&[OidcIssuer { jwks: Some("/etc/keys.json".into()), ..issuer(1) }]).is_ok());
    }
}
