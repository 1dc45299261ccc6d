//! Finding documents by what is in them, and values over many of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use folkmoot_core::document::json;
use folkmoot_core::id::CollectionName;
use folkmoot_core::query::{Aggregate, Find, QueryError, Selector};
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::collection::IndexInfo;
use super::cursor::Cursor;
use super::document::Document;
use super::error::{Error, ErrorCode, Result};
use super::time::Timestamp;

/// Which documents are looked for, in which order, and what is shown of them. The notation of selectors is in `docs/query.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FindQuery {
    /// Which documents: `{"age": {"$gte": 18}}`. All if not given.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub selector: Value,
    /// By what they are sorted, at most 4 places: `["country", "-age"]`. By id if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "sort_keys")]
    pub sort: Vec<String>,
    /// What is shown of them, at most 100 places: `["name", "address.city"]`. All if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// At most so many, up to 1000; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Go on behind this: the `next` of the answer before, to the same query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub after: Option<Cursor>,
    /// Of the documents as they were at this time, by the clocks of those who wrote; as they are if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub at: Option<Timestamp>,
}

fn invalid(error: QueryError) -> Error {
    let QueryError { pointer, reason, hint } = error;
    let error = Error::new(ErrorCode::InvalidQuery, reason).pointer(pointer);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn parsed(text: &[u8]) -> Result<json::Value> {
    json::parse(text).map_err(|error| Error::new(ErrorCode::InvalidQuery, error.to_string()).pointer(error.pointer))
}

/// Reads a selector that stands alone.
///
/// # Errors
/// [`ErrorCode::InvalidQuery`], with a pointer to what is wrong.
pub(crate) fn selector(value: &Value) -> Result<Selector> {
    Selector::parse(&parsed(&text_of(value)?)?, "/selector").map_err(invalid)
}

/// Returns the text of a query as it is sent.
fn text_of<T: Serialize>(query: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(query)
        .map_err(|error| Error::new(ErrorCode::InvalidQuery, format!("the query cannot be written as JSON: {error}")))
}

/// Reads a query that is valid.
fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| Error::new(ErrorCode::InvalidQuery, error.to_string()))
}

/// Places to sort by, also as objects: `{"age": "desc"}` is `"-age"`.
fn sort_keys<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Key {
        Text(String),
        Map(BTreeMap<String, Value>),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Keys {
        One(Key),
        Many(Vec<Key>),
    }
    let keys = match Keys::deserialize(deserializer)? {
        Keys::One(key) => vec![key],
        Keys::Many(keys) => keys,
    };
    let text = |key| match key {
        Key::Text(text) => vec![text],
        Key::Map(map) => map
            .into_iter()
            .map(|(place, direction)| {
                // A key that begins with - is told apart by the other notation.
                let place = if place.starts_with('-') { format!("/{}", place.replace('.', "/")) } else { place };
                let descending = direction == "desc" || direction == -1;
                if descending { format!("-{place}") } else { place }
            })
            .collect(),
    };
    Ok(keys.into_iter().flat_map(text).collect())
}

impl FindQuery {
    /// Reads a query as clients send it.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidQuery`], with a pointer to what is wrong.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        Find::parse(&parsed(text)?).map_err(invalid)?;
        read(text)
    }

    /// Returns what is to be carried out, and the query as a value.
    pub(crate) fn prepared(&self) -> Result<(Find, json::Value)> {
        let value = parsed(&text_of(self)?)?;
        Ok((Find::parse(&value).map_err(invalid)?, value))
    }

    /// Looks for the documents that a selector means.
    ///
    /// ```
    /// use folkmoot::api::FindQuery;
    /// use serde_json::json;
    ///
    /// let adults = FindQuery::new(json!({ "age": { "$gte": 18 } })).sort(["-age", "name"]).fields(["name"]).limit(20);
    /// assert_eq!(adults.sort, ["-age", "name"]);
    /// ```
    #[must_use]
    pub fn new(selector: Value) -> Self {
        Self { selector, ..Self::default() }
    }

    /// Sorts by these places; one with `-` before it has the greatest first.
    #[must_use]
    pub fn sort<T: Into<String>>(mut self, by: impl IntoIterator<Item = T>) -> Self {
        self.sort = by.into_iter().map(Into::into).collect();
        self
    }

    /// Shows these places only.
    #[must_use]
    pub fn fields<T: Into<String>>(mut self, fields: impl IntoIterator<Item = T>) -> Self {
        self.fields = Some(fields.into_iter().map(Into::into).collect());
        self
    }

    /// Looks at the documents as they were at a time.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.at = Some(time);
        self
    }

    /// Answers at most so many at once.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// How a query was carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryPlan {
    /// `id`: the one document that the selector names. `ids`: those in a range of ids. `index`: those that an index names.
    /// `collection`: all of them.
    pub kind: String,
    /// The index that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Whether documents came in the order that was asked for, so that it was over when there were enough.
    #[serde(default)]
    pub in_order: bool,
    /// Documents that were looked at.
    pub looked_at: u64,
    /// Microseconds that it took.
    pub micros: u64,
    /// What would be quicker, if many were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Documents that were found. What is not shown of them is not in their content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FindPage {
    /// In their order.
    pub items: Vec<Document>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
    /// How they were found.
    pub plan: QueryPlan,
}

/// Values over the documents that a selector means, by groups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AggregateQuery {
    /// Of which documents; of all if not given.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub selector: Value,
    /// By which places they are grouped, at most 4; one group of all if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<String>,
    /// What is computed, under which names: `{"total": {"$sum": "price"}}`. Their number as `count` if not given.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Value,
    /// At most so many groups, up to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Of the documents as they were at this time, by the clocks of those who wrote; as they are if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub at: Option<Timestamp>,
}

impl AggregateQuery {
    /// Reads a query as clients send it.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidQuery`], with a pointer to what is wrong.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        Aggregate::parse(&parsed(text)?).map_err(invalid)?;
        read(text)
    }

    /// Returns what is to be carried out, and the query as a value.
    pub(crate) fn prepared(&self) -> Result<(Aggregate, json::Value)> {
        let value = parsed(&text_of(self)?)?;
        Ok((Aggregate::parse(&value).map_err(invalid)?, value))
    }

    /// Counts the documents that a selector means.
    #[must_use]
    pub fn count(selector: Value) -> Self {
        Self { selector, ..Self::default() }
    }
}

/// What was computed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AggregatePage {
    /// An object for each group: the values under their names, and what it is the group of under `group`. Sorted by that.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub groups: Vec<Value>,
    /// Whether there are more groups than the limit.
    pub more: bool,
    /// How it was computed.
    pub plan: QueryPlan,
}

/// The part of a database that answers queries.
#[async_trait]
pub trait Queries: Send + Sync {
    /// Finds documents.
    ///
    /// A page of documents by id ends also when the node's time for a query is over (`limits.query_time`): it may be empty then and have a
    /// `next` all the same.
    ///
    /// # Errors
    /// [`InvalidQuery`] with a pointer to what is wrong; [`InvalidCursor`]; [`QueryTooLong`] if the documents had to be sorted and there
    /// are too many; [`CollectionNotFound`]; [`Busy`].
    ///
    /// [`InvalidQuery`]: super::ErrorCode::InvalidQuery
    /// [`InvalidCursor`]: super::ErrorCode::InvalidCursor
    /// [`QueryTooLong`]: super::ErrorCode::QueryTooLong
    /// [`CollectionNotFound`]: super::ErrorCode::CollectionNotFound
    /// [`Busy`]: super::ErrorCode::Busy
    async fn find(&self, collection: &CollectionName, query: &FindQuery) -> Result<FindPage>;

    /// Computes values.
    ///
    /// # Errors
    /// As [`Self::find`].
    async fn aggregate(&self, collection: &CollectionName, query: &AggregateQuery) -> Result<AggregatePage>;

    /// Runs a query and tells only how: by which index, how many documents were looked at, what would be quicker.
    ///
    /// # Errors
    /// As [`Self::find`].
    async fn explain(&self, collection: &CollectionName, query: &FindQuery) -> Result<QueryPlan> {
        Ok(self.find(collection, query).await?.plan)
    }

    /// Returns the indexes of a collection as they are on the node: nodes make them each for itself. They are declared by
    /// [`Database::configure`](super::Database::configure).
    ///
    /// # Errors
    /// [`CollectionNotFound`](super::ErrorCode::CollectionNotFound); [`NotAllowed`](super::ErrorCode::NotAllowed) for those who may not
    /// read all of it.
    async fn indexes(&self, collection: &CollectionName) -> Result<Vec<IndexInfo>>;
}

/// Returns all documents that a query means, page after page; it ends after an error.
pub fn find_all<Q: Queries + ?Sized + 'static>(
    database: Arc<Q>,
    collection: CollectionName,
    query: FindQuery,
) -> BoxStream<'static, Result<Document>> {
    futures_util::stream::try_unfold(Some(query), move |query| {
        let (database, collection) = (database.clone(), collection.clone());
        async move {
            let Some(query) = query else { return Ok::<_, Error>(None) };
            let page = database.find(&collection, &query).await?;
            let next = page.next.map(|after| FindQuery { after: Some(after), ..query });
            Ok(Some((futures_util::stream::iter(page.items.into_iter().map(Ok)), next)))
        }
    })
    .try_flatten()
    .boxed()
}
