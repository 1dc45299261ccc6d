//! Collections: list, read, configure, drop.

use folkmoot::api::{
    CollectionInfo, CollectionSettings, Cursor, DuplicatesPage, DuplicatesQuery, InvalidPage, InvalidQuery,
};
use folkmoot::wire::{self, Items};
use folkmoot::{Error, ErrorCode, Result};
use http::{Method, StatusCode};
use warp::reply::Response;

use super::problem::method_not_allowed;
use super::reply::json_answer;
use super::request::{Request, collection_name, json};

/// Settings of a collection: some hundreds of field types, and a schema.
const SETTINGS_BYTES_MAX: usize = 256 << 10;

/// Lists the collections.
#[utoipa::path(get, path = "/v1/collections", tag = "collections",
    responses((status = 200, description = "The collections by name", body = Items<CollectionInfo>)))]
pub(super) async fn all(request: Request) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    request.query.finish("")?;
    let items = request.database.collections().await?;
    json_answer(&Items { items })
}

pub(super) async fn one(request: Request, collection: String) -> Result<Response> {
    match request.method {
        Method::GET | Method::HEAD => get(request, collection).await,
        Method::PUT => put(request, collection).await,
        Method::PATCH => patch(request, collection).await,
        Method::DELETE => drop_one(request, collection).await,
        _ => Ok(method_not_allowed("GET, HEAD, PUT, PATCH, DELETE")),
    }
}

/// Tells the settings of a collection and what it holds here.
#[utoipa::path(get, path = "/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path, description = "Name of the collection")),
    responses(
        (status = 200, description = "Settings and counts", body = CollectionInfo),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn get(request: Request, collection: String) -> Result<Response> {
    let name = collection_name(&collection)?;
    request.query.finish("")?;
    json_answer(&request.database.collection(&name).await?)
}

/// Creates a collection or replaces its settings; the number of shards is fixed at creation.
#[utoipa::path(put, path = "/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path, description = "Name of the collection")),
    request_body = CollectionSettings,
    responses(
        (status = 200, description = "The settings as they are now", body = CollectionInfo),
        (status = 422, description = "invalid_settings", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn put(request: Request, collection: String) -> Result<Response> {
    let name = collection_name(&collection)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let body = body.whole(SETTINGS_BYTES_MAX).await?;
    let settings = if body.is_empty() { CollectionSettings::default() } else { json(&body)? };
    json_answer(&database.configure(&name, settings).await?)
}

/// Changes some settings of a collection: a JSON merge patch.
#[utoipa::path(patch, path = "/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path, description = "Name of the collection")),
    request_body(content = CollectionSettings, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, description = "The settings as they are now", body = CollectionInfo),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 415, description = "unsupported_media_type", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "invalid_settings", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn patch(request: Request, collection: String) -> Result<Response> {
    let name = collection_name(&collection)?;
    match request.media_type()? {
        Some("application/merge-patch+json" | "application/json") => {}
        Some(_) | None => {
            let error = Error::new(ErrorCode::UnsupportedMediaType, "settings are patched by a JSON merge patch");
            return Err(error.hint("use application/merge-patch+json"));
        }
    }
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let patch: serde_json::Value = json(&body.whole(SETTINGS_BYTES_MAX).await?)?;
    let current = database.collection(&name).await?.settings;
    let mut merged = serde_json::to_value(current)
        .map_err(|e| Error::new(ErrorCode::Internal, "the settings cannot be written as JSON").with_source(e))?;
    merge(&mut merged, patch);
    let settings: CollectionSettings = serde_json::from_value(merged)
        .map_err(|e| Error::new(ErrorCode::InvalidSettings, format!("the patched settings are not valid: {e}")))?;
    json_answer(&database.configure(&name, settings).await?)
}

/// RFC 7396. Its depth is bounded by that of the JSON parser.
fn merge(target: &mut serde_json::Value, patch: serde_json::Value) {
    let serde_json::Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = serde_json::Value::Object(serde_json::Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(serde_json::Value::Null), value);
        }
    }
}

/// Drops a collection: its documents are hidden everywhere, and new ones refused.
#[utoipa::path(delete, path = "/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path, description = "Name of the collection")),
    responses(
        (status = 204, description = "Dropped"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
async fn drop_one(request: Request, collection: String) -> Result<Response> {
    let name = collection_name(&collection)?;
    request.query.finish("")?;
    request.database.drop_collection(&name).await?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Lists documents that have not the form which the collection's schema asks, by id, with what is wrong: they became so by a merge,
/// or were there before the schema.
#[utoipa::path(get, path = "/v1/collections/{collection}/invalid", tag = "collections",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("limit" = Option<u32>, Query, description = "Documents of the page, up to 1000; 100 if not given"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "The documents; `complete` tells whether all have been looked at", body = InvalidPage),
        (status = 400, description = "invalid_cursor, invalid_parameter", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn invalid(mut request: Request, collection: String) -> Result<Response> {
    let name = collection_name(&collection)?;
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let query = InvalidQuery {
        limit: request.query.limit(InvalidQuery::LIMIT_MAX)?,
        after: request.query.take("after").map(|text| Cursor::from_text(&text)),
    };
    request.query.finish("limit, after")?;
    json_answer(&request.database.invalid(&name, &query).await?)
}

/// Lists documents that show what another one shows that wins, and what no two of the collection are to show, by id: they were written
/// apart, or were there before the unique constraints.
#[utoipa::path(get, path = "/v1/collections/{collection}/duplicates", tag = "collections",
    params(
        ("collection" = String, Path, description = "Name of the collection"),
        ("limit" = Option<u32>, Query, description = "Documents of the page, up to 1000; 100 if not given"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "The documents; `complete` tells whether all have been looked at", body = DuplicatesPage),
        (status = 400, description = "invalid_cursor, invalid_parameter", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn duplicates(mut request: Request, collection: String) -> Result<Response> {
    let name = collection_name(&collection)?;
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let query = DuplicatesQuery {
        limit: request.query.limit(DuplicatesQuery::LIMIT_MAX)?,
        after: request.query.take("after").map(|text| Cursor::from_text(&text)),
    };
    request.query.finish("limit, after")?;
    json_answer(&request.database.duplicates(&name, &query).await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::merge;

    #[test]
    fn merge_patches_as_the_standard_says() {
        let cases = [
            (json!({"a": 1}), json!({"a": null, "b": {"c": null, "d": 2}}), json!({"b": {"d": 2}})),
            (json!({"a": [1]}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
            (json!({"a": 1}), json!([1]), json!([1])),
        ];
        for (mut target, patch, expected) in cases {
            merge(&mut target, patch);
            assert_eq!(target, expected);
        }
    }
}
