//! The bearer token.

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

/// Returns the token that a request shows.
///
/// # Errors
/// [`ErrorCode::Unauthenticated`] if there is none.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Err(unauthenticated("the request has no token")) };
    let other = || unauthenticated("the Authorization header is not of the kind Bearer");
    let (scheme, token) = value.to_str().map_err(|_| other())?.split_at_checked(7).ok_or_else(other)?;
    if scheme.eq_ignore_ascii_case("bearer ") { Ok(token.trim()) } else { Err(other()) }
}

fn unauthenticated(detail: &'static str) -> Error {
    Error::new(ErrorCode::Unauthenticated, detail)
        .hint("send the header `Authorization: Bearer TOKEN`; the first token is in owner.token in the data directory")
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
            bearer(&headers).is_ok_and(|given| token.is(given))
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
}
