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

    /// Checks what a client sent, in time that tells nothing of where it differs.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`] if there is no token or another one.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        let denied = |detail: &'static str| {
            Err(Error::new(ErrorCode::Unauthenticated, detail)
                .hint("send the header `Authorization: Bearer TOKEN`; the first token is in owner.token in the data directory"))
        };
        let Some(value) = headers.get(AUTHORIZATION) else { return denied("the request has no token") };
        let given = match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            Some(_) | None => return denied("the Authorization header is not of the kind Bearer"),
        };
        // An empty token file would otherwise open the door to an empty token.
        if !self.0.is_empty() && bool::from(given.ct_eq(self.0.as_bytes())) {
            return Ok(());
        }
        denied("the token is not valid")
    }
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
            token.check(&headers).is_ok()
        };
        assert!(check(Some("Bearer secret-token")));
        assert!(check(Some("bearer  secret-token ")));
        for bad in
            ["Bearer", "Bearer ", "Bearer secret-toke", "Bearer secret-token2", "Basic secret-token", "secret-token"]
        {
            assert!(!check(Some(bad)), "{bad}");
        }
        assert!(!check(None));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer ".parse().unwrap());
        assert!(OwnerToken::new(" \n").check(&headers).is_err());
    }
}
