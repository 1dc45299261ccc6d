//! What a request shows of its sender: a token, or name and password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

use folkmoot::{Error, ErrorCode};

/// The token that may do everything. Never printed.
#[derive(Clone)]
pub(crate) struct OwnerToken(String);

impl OwnerToken {
    /// Wraps the text of the token file.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Returns whether this is the token, in time that tells nothing of where it differs.
    pub(crate) fn is(&self, given: &str) -> bool {
        // An empty token file would otherwise open the door to an empty token.
        !self.0.is_empty() && bool::from(given.as_bytes().ct_eq(self.0.as_bytes()))
    }
}

/// What a request shows of its sender.
pub(crate) enum Credential<'a> {
    Token(&'a str),
    Password { name: String, password: String },
}

/// The longest name with password, as it stands in the header.
const BASIC_BYTES_MAX: usize = 4 << 10;

/// Returns what a request shows; none if nothing.
///
/// # Errors
/// [`ErrorCode::Unauthenticated`] if it is of no kind that is known.
pub(crate) fn credential(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Error> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let other = || unauthenticated("the Authorization header is of neither the kind Bearer nor Basic");
    let (scheme, rest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(other)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Credential::Token(rest.trim())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(other());
    }
    let broken = || unauthenticated("the Authorization header of the kind Basic is not the base64 of NAME:PASSWORD");
    let rest = rest.trim();
    let decoded = if rest.len() <= BASIC_BYTES_MAX { STANDARD.decode(rest).ok() } else { None };
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(broken)?;
    let (name, password) = text.split_once(':').ok_or_else(broken)?;
    Ok(Some(Credential::Password { name: name.to_owned(), password: password.to_owned() }))
}

/// Returns whether a request shows a token, of whatever kind.
pub(crate) fn shows_token(headers: &HeaderMap) -> bool {
    matches!(credential(headers), Ok(Some(Credential::Token(_))))
}

/// The error for a request that shows nothing.
pub(crate) fn nothing_shown() -> Error {
    unauthenticated("the request shows neither a token nor a password")
}

fn unauthenticated(detail: &'static str) -> Error {
    Error::new(ErrorCode::Unauthenticated, detail)
        .hint(
        "send the header `Authorization: Bearer TOKEN`, or `Basic` with name and password; the first token is in owner.token in \
         the data directory",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_passes() {
        let token = OwnerToken::new("secret-token\n");
        let check = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, value.parse().unwrap());
            }
            matches!(credential(&headers), Ok(Some(Credential::Token(given))) if token.is(given))
        };
        assert!(check(Some("Bearer secret-token")));
        assert!(check(Some("bearer  secret-token ")));
        for bad in
            ["Bearer", "Bearer ", "Bearer secret-toke", "Bearer secret-token2", "Basic secret-token", "secret-token"]
        {
            assert!(!check(Some(bad)), "{bad}");
        }
        assert!(!check(None));
        assert!(!OwnerToken::new(" \n").is(""));
    }

    #[test]
    fn names_and_passwords_are_taken_apart() {
        let shown = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            match credential(&headers) {
                Ok(Some(Credential::Password { name, password })) => Some((name, password)),
                _ => None,
            }
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(shown(&basic("ann:pass:word")), Some(("ann".to_owned(), "pass:word".to_owned())));
        assert_eq!(shown(&basic("ärgus:pässwörd")), Some(("ärgus".to_owned(), "pässwörd".to_owned())));
        assert_eq!(shown("Basic"), None);
        for bad in ["Basic !!!", "Basic YW5u", "Digest a", &basic(&"x:".repeat(4_000))] {
            assert_eq!(shown(bad), None, "{bad:.40}");
        }
    }
}
