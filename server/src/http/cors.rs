//! Cross-origin requests (the Fetch standard): which pages' scripts may use the API from a browser. None unless configured.
//!
//! There are no cookies, so credentials are never allowed: a script has to have the token.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use warp::reply::Response;

/// How long a browser may remember what it was told: as long as most of them do at most.
const MAX_AGE_SECONDS: &str = "7200";

/// The origins whose pages may use the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origins(Vec<String>);

impl Origins {
    /// Reads a list of origins as in `https://app.example:8443`; `*` stands for all.
    ///
    /// # Errors
    /// The text that is no origin.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        let is_origin = |text: &str| {
            let uri: Option<http::Uri> = text.parse().ok();
            text == "*"
                || uri.is_some_and(|uri| {
                    matches!(uri.scheme_str(), Some("http" | "https"))
                        && uri.path_and_query().is_none_or(|rest| rest.as_str() == "/")
                        && !text.ends_with('/')
                })
        };
        match texts.iter().find(|text| !is_origin(text)) {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(Self(texts.iter().map(|text| text.to_ascii_lowercase()).collect())),
        }
    }

    /// Returns the value with which this origin is allowed; none if it is not.
    pub(super) fn allows(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let origin = origin?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.0.iter().any(|allowed| *allowed == "*" || *allowed == text).then(|| origin.clone())
    }

    /// Returns the answer to a browser's question whether it may send a request, if that is what this is.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let origin = self.allows(headers.get(ORIGIN))?;
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let fixed = [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE"),
            (
                ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, content-type, if-match, if-none-match, prefer, idempotency-key, last-event-id, \
                 folkmoot-base, folkmoot-durability, folkmoot-session, folkmoot-timeout",
            ),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS),
            (VARY, "origin"),
        ];
        answer.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
        Some(response)
    }

    /// Lets the page read the answer, if its origin is allowed.
    pub(crate) fn expose(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        answer.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.allows(origin) {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let exposed = "etag, location, last-modified, retry-after, preference-applied, x-request-id, \
                           folkmoot-durability, folkmoot-session, folkmoot-stale";
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_are_taken() {
        let parse = |text: &str| Origins::parse(&[text.to_owned()]);
        for good in ["*", "https://app.example", "http://localhost:3000"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["app.example", "https://app.example/", "https://app.example/x", "ftp://a", "", "null"] {
            assert_eq!(parse(bad), Err(bad.to_owned()));
        }
    }
}
