//! The page that shows the description of the API to people: one answer, nothing fetched from elsewhere.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use warp::reply::Response;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Returns the answer that leads to the page.
pub(super) fn way() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/docs"));
    response
}

/// Returns the page, with the description of the API in it.
pub(super) fn page() -> Response {
    let mut response = Response::new(text(&super::openapi::document().to_string()).into());
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

fn text(description: &str) -> String {
    // Within a script element only `<` could end it.
    let description = description.replace('<', "\\u003c");
    PAGE.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT).replace("/*DESCRIPTION*/", &description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_description_ends_its_element() {
        let page = text(r#"{"a":"</script><script>alert(1)</script>"}"#);
        assert_eq!(page.matches("</script").count(), text("{}").matches("</script").count());
        assert!(page.contains(r#"{"a":"\u003c/script>\u003cscript>alert(1)\u003c/script>"}"#));
    }
}
