//! The bodies of answers.

use bytes::Bytes;
use folkmoot::{Error, ErrorCode, Result};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use warp::reply::Response;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn text_of<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::new(ErrorCode::Internal, "the answer cannot be written as JSON").with_source(e))
}

/// Returns an answer with this JSON text.
pub(super) fn json_text(text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(text.into().into());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Returns an answer with a JSON body.
///
/// # Errors
/// [`ErrorCode::Internal`] if the value has no JSON form.
pub(super) fn json_answer<T: Serialize>(value: &T) -> Result<Response> {
    Ok(json_text(text_of(value)?))
}

/// Returns an answer with a JSON body that says that this was made.
///
/// # Errors
/// As [`json_answer`].
pub(super) fn created<T: Serialize>(value: &T) -> Result<Response> {
    let mut response = json_answer(value)?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Writes metadata as a JSON object with the document's own text as its last member: the document is not parsed.
///
/// # Errors
/// [`ErrorCode::Internal`] if the metadata has no JSON form.
pub(super) fn spliced<T: Serialize>(meta: &T, doc: Option<&Bytes>) -> Result<Vec<u8>> {
    let mut text = text_of(meta)?;
    if let (Some(doc), Some(b'}')) = (doc, text.last()) {
        text.pop();
        text.extend_from_slice(b",\"doc\":");
        let start = text.len();
        text.extend_from_slice(doc);
        // Outside strings a line break is only space, and inside strings JSON has none: so every item is one line.
        text.iter_mut().skip(start).filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
        text.push(b'}');
    }
    Ok(text)
}

/// Returns the answer for a page: its items, each a JSON text, and what else there is to say of it.
///
/// # Errors
/// Those of the items; [`ErrorCode::Internal`] if the rest has no JSON form.
pub(super) fn page<T: Serialize>(items: impl Iterator<Item = Result<Vec<u8>>>, rest: &T) -> Result<Response> {
    let mut text = b"{\"items\":[".to_vec();
    for (i, item) in items.enumerate() {
        if i > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&item?);
    }
    text.extend_from_slice(b"],");
    // An object, whose members follow the items.
    text.extend(text_of(rest)?.into_iter().skip(1));
    Ok(json_text(text))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn pages_are_json_and_items_one_line() {
        let item = spliced(&serde_json::json!({ "id": 1 }), Some(&Bytes::from_static(b"{\"a\":\r\n1}"))).unwrap();
        let items = vec![Ok(item.clone()), Ok(item)];
        let response = page(items.into_iter(), &serde_json::json!({ "next": null })).unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!body.contains(&b'\n'));
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let item = serde_json::json!({ "id": 1, "doc": { "a": 1 } });
        assert_eq!(value, serde_json::json!({ "items": [item, item], "next": null }));
    }
}
