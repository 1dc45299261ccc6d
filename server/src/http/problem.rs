//! The one place where errors become HTTP answers: RFC 9457 problem documents.

use folkmoot::api::error_chain;
use folkmoot::wire::{PROBLEM_JSON, Problem};
use folkmoot::{Error, ErrorCode};
use http::header::{ALLOW, CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use warp::reply::Response;

/// Returns the answer for an error.
pub(crate) fn answer(error: &Error) -> Response {
    let code = error.code();
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&Problem::from(error)).unwrap_or_default();
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if code == ErrorCode::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = error.retry_delay() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    } else if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(etag) = error.current_heads().and_then(|heads| HeaderValue::from_str(&heads.etag()).ok()) {
        headers.insert(ETAG, etag);
    }
    response.extensions_mut().insert(Failed(error.clone()));
    response
}

/// Returns the answer for an error that met somebody who shows a token. If it is the token that does not count, the challenge says so
/// and why (RFC 6750, section 3.1).
pub(crate) fn invalid_token(error: &Error) -> Response {
    let mut response = answer(error);
    if error.code() == ErrorCode::Unauthenticated {
        let can_stand = |c: &char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
        let detail: String = error.detail().chars().filter(can_stand).collect();
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{detail}\"");
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
    }
    response
}

/// The error that an answer tells of.
#[derive(Clone)]
struct Failed(Error);

/// Logs the error of an answer that tells of one, as an error if a person must look, and adds the id of the request to its
/// problem document.
pub(crate) fn finish(response: Response, method: &Method, path: &str, id: &str) -> Response {
    let Some(Failed(error)) = response.extensions().get::<Failed>().cloned() else { return response };
    let (code, chain) = (error.code(), error_chain(&error));
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(%code, error = %chain, %method, path, id, "request failed");
    } else {
        tracing::debug!(%code, error = %chain, %method, path, id, "request refused");
    }
    let body = serde_json::to_vec(&Problem::from(&error.request_id(id))).unwrap_or_default();
    response.map(|_| body.into())
}

/// Returns the answer for a method that a path does not have.
pub(crate) fn method_not_allowed(allow: &'static str) -> Response {
    let error = Error::new(ErrorCode::MethodNotAllowed, format!("this path has the methods {allow}"));
    let mut response = answer(&error);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_and_type() {
        for code in ErrorCode::ALL {
            let response = answer(&Error::new(*code, "what"));
            assert_eq!(response.status().as_u16(), code.http_status(), "{code}");
            assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), PROBLEM_JSON);
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), *code == ErrorCode::Unauthenticated);
        }
    }

    #[test]
    fn a_token_that_does_not_count_is_told_why() {
        let challenge = |error: &Error| invalid_token(error).headers().get(WWW_AUTHENTICATE).cloned();
        let told = challenge(&Error::new(ErrorCode::Unauthenticated, "the \"token\"\r\n has ended\\ ä")).unwrap();
        assert_eq!(told, "Bearer error=\"invalid_token\", error_description=\"the token has ended \"");
        assert_eq!(challenge(&Error::new(ErrorCode::TooManyRequests, "wait")), None);
    }
}
