//! Queries.

use std::sync::Arc;

use folkmoot::api::{AggregatePage, AggregateQuery, FindQuery, IndexInfo, QueryPlan};
use folkmoot::wire::{self, DocumentMeta, Items};
use folkmoot::{CollectionName, Database, Result};
use http::Method;
use warp::reply::Response;

use super::problem::method_not_allowed;
use super::reply::{json_answer, spliced};
use super::request::{Request, collection_name};

/// A thousand conditions with long values.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Reads what is asked of a collection.
async fn asked<Q>(
    request: Request,
    collection: &str,
    read: fn(&[u8]) -> Result<Q>,
) -> Result<(Arc<dyn Database>, CollectionName, Q)> {
    let name = collection_name(collection)?;
    let Request { database, query, body, .. } = request;
    query.finish("")?;
    let asked = read(&body.whole(REQUEST_BYTES_MAX).await?)?;
    Ok((database, name, asked))
}

/// Finds documents by what is in them.
#[utoipa::path(post, path = "/v1/collections/{collection}/query", tag = "queries",
    params(("collection" = String, Path, description = "Name of the collection")),
    request_body = FindQuery,
    responses(
        (status = 200, description = "`{\"items\":[{\"id\",\"heads\",\"modified\",\"doc\"}],\"next\",\"plan\"}`; a page by id may be empty and go on", body = wire::FoundDocuments),
        (status = 400, description = "invalid_query with a pointer to what is wrong, invalid_cursor", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "query_too_long: to be sorted, and too many documents for the node's time", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn find(request: Request, collection: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let (database, name, query) = asked(request, &collection, FindQuery::from_json).await?;
    let page = database.find(&name, &query).await?;
    let items = page.items.iter().map(|document| spliced(&DocumentMeta::from(document), Some(&document.json)));
    super::reply::page(items, &serde_json::json!({ "next": page.next, "plan": page.plan }))
}

/// Runs a query and tells only how it was carried out.
#[utoipa::path(post, path = "/v1/collections/{collection}/explain", tag = "queries",
    params(("collection" = String, Path, description = "Name of the collection")),
    request_body = FindQuery,
    responses(
        (status = 200, description = "By which index, how many documents were looked at, and what would be quicker", body = QueryPlan),
        (status = 400, description = "invalid_query with a pointer to what is wrong, invalid_cursor", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "query_too_long: to be sorted, and too many documents for the node's time", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn explain(request: Request, collection: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let (database, name, query) = asked(request, &collection, FindQuery::from_json).await?;
    json_answer(&database.explain(&name, &query).await?)
}

/// Tells the indexes of a collection as they are on this node.
#[utoipa::path(get, path = "/v1/collections/{collection}/indexes", tag = "queries",
    params(("collection" = String, Path, description = "Name of the collection")),
    responses(
        (status = 200, description = "The indexes by name, and how far those are that are being made", body = Items<IndexInfo>),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn indexes(request: Request, collection: String) -> Result<Response> {
    if let Some(refused) = request.only_get() {
        return Ok(refused);
    }
    let name = collection_name(&collection)?;
    request.query.finish("")?;
    let items = request.database.indexes(&name).await?;
    json_answer(&Items { items })
}

/// Counts, adds up and lists values over the documents that a selector means, by groups.
#[utoipa::path(post, path = "/v1/collections/{collection}/aggregate", tag = "queries",
    params(("collection" = String, Path, description = "Name of the collection")),
    request_body = AggregateQuery,
    responses(
        (status = 200, description = "The groups, sorted by what they are of", body = AggregatePage),
        (status = 400, description = "invalid_query with a pointer to what is wrong", body = wire::Problem, content_type = "application/problem+json"),
        (status = 404, description = "collection_not_found", body = wire::Problem, content_type = "application/problem+json"),
        (status = 422, description = "query_too_long: too many documents for the node's time, or too many groups", body = wire::Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn aggregate(request: Request, collection: String) -> Result<Response> {
    if request.method != Method::POST {
        return Ok(method_not_allowed("POST"));
    }
    let (database, name, query) = asked(request, &collection, AggregateQuery::from_json).await?;
    json_answer(&database.aggregate(&name, &query).await?)
}
