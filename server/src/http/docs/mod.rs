//! The page that shows the description of the API to people: one answer, nothing fetched from elsewhere.

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use warp::reply::Response;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Returns the page, with the description of the API in it.
pub(super) fn page() -> Response {
    // Within a script element only `<` could end it.
    let description = super::openapi::document().to_json().unwrap_or_default().replace('<', "\\u003c");
    let text = PAGE.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT).replace("/*DESCRIPTION*/", &description);
    let mut response = Response::new(text.into());
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        // The page has its style and script in it, and talks to this node only.
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
