//! Queries: on threads for blocking calls, few at once and each within its time.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use folkmoot_core::audit::AuditAction;
use folkmoot_core::document::json::{self, Value};
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::op::FieldRights;
use folkmoot_core::query::{self, Plan, QueryRunError, Run};
use folkmoot_core::replica::{View, Views};
use futures_util::stream::BoxStream;

use super::audit::Who;
use super::convert::read_error;
use super::{Inner, Node};
use crate::api::{
    AggregatePage, AggregateQuery, Cursor, Error, ErrorCode, FindPage, FindQuery, Live, LiveEvent, Queries, QueryPlan,
    Result, error_chain, follow,
};

/// Queries that run at once; more wait.
pub(super) const AT_ONCE: usize = 4;
/// How long one waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// Bytes of what is recorded of a query.
const SHAPE_BYTES_MAX: usize = 512;

/// Says which fields of a document somebody may see.
pub(super) type Sight = Box<dyn Fn(&DocId) -> FieldRights + Send>;

/// The owner sees everything.
pub(super) fn all_seen() -> Sight {
    Box::new(|_| FieldRights::all())
}

/// Returns what was asked without the values that were asked for, which may be nobody else's business.
fn shape(query: &Value) -> String {
    fn without_values(value: &Value) -> Value {
        match value {
            Value::Map(map) => {
                Value::Map(map.iter().map(|(key, value)| (key.clone(), without_values(value))).collect())
            }
            Value::List(list) if list.iter().any(|value| matches!(value, Value::Map(_))) => {
                Value::List(list.iter().map(without_values).collect())
            }
            _ => Value::String("?".to_owned()),
        }
    }
    let mut shape =
        query.get("selector").map(|selector| json::render_value(&without_values(selector))).unwrap_or_default();
    shape.truncate(shape.floor_char_boundary(SHAPE_BYTES_MAX));
    shape
}

fn run_error(error: QueryRunError) -> Error {
    match error {
        QueryRunError::Read(error) => read_error(error),
        QueryRunError::Place => Error::new(ErrorCode::InvalidCursor, "`after` is not from an answer to this query")
            .pointer("/after")
            .hint("pass the `next` of the page before, as it is, with the same query"),
        too_long @ QueryRunError::TooLong { .. } => Error::new(ErrorCode::QueryTooLong, error_chain(&too_long))
            .hint("narrow the selector by _id, leave `sort` out, or allow more time (`limits.query_time` of the node)"),
        QueryRunError::TooMuch(what) => {
            Error::new(ErrorCode::QueryTooLong, what).hint("narrow the selector, or group by less")
        }
    }
}

impl Inner {
    /// Runs a query when it is its turn.
    async fn run_query<T: Send + 'static>(
        &self,
        collection: &CollectionName,
        sight: Sight,
        query: impl FnOnce(&Views, &Run<'_>) -> Result<(T, Plan, u64), QueryRunError> + Send + 'static,
    ) -> Result<(T, QueryPlan)> {
        let busy =
            || Error::new(ErrorCode::Busy, format!("{AT_ONCE} queries are running, and this one has waited too long"));
        let turn = tokio::time::timeout(TURN_WAIT, self.queries.clone().acquire_owned());
        let turn = turn.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let (name, limit) = (collection.clone(), self.config.query_time);
        let ran = self.read_on_thread(move |reader| {
            let _turn = turn;
            let began = Instant::now();
            let goes_on = || began.elapsed() < limit;
            let ran = query(&reader.views(&name), &Run { sight: &*sight, goes_on: &goes_on });
            (ran, began.elapsed())
        });
        let (ran, took) = ran.await?;
        let (found, plan, looked_at) = ran.map_err(run_error).inspect_err(|error| {
            if error.code() == ErrorCode::QueryTooLong {
                metrics::counter!("folkmoot_queries_too_long_total").increment(1);
            }
        })?;
        metrics::histogram!("folkmoot_query_seconds", "plan" => plan.name()).record(took.as_secs_f64());
        metrics::counter!("folkmoot_query_documents_looked_at_total", "plan" => plan.name()).increment(looked_at);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        Ok((found, QueryPlan { kind: plan.name().to_owned(), looked_at, micros }))
    }

    pub(super) async fn find_documents(
        &self,
        who: Option<Who>,
        sight: Sight,
        collection: &CollectionName,
        query: &FindQuery,
    ) -> Result<FindPage> {
        let (find, given) = query.prepared()?;
        let (rows, plan) = self
            .run_query(collection, sight, move |views, run| {
                let found = query::find(views, &find, run)?;
                Ok(((found.rows, found.next), found.plan, found.looked_at))
            })
            .await?;
        let (rows, next) = rows;
        if rows.is_empty() && query.after.is_none() {
            // Nothing in it, or no such collection: only the first is an answer.
            self.collection(collection).await?;
        }
        self.note_read(who, AuditAction::Query, collection, rows.iter().map(|row| &row.doc), || shape(&given));
        let document = |row: query::Row| {
            let query::Row { doc, heads, modified, json } = row;
            let view = View { doc, heads, deleted: false, erased: false, modified, changes: 0, feed: 0, json };
            Self::document(collection, view)
        };
        let next = next.map(|place| Cursor::from_text(&place.to_text()));
        Ok(FindPage { items: rows.into_iter().map(document).collect(), next, plan })
    }

    pub(super) async fn aggregate_documents(
        &self,
        who: Option<Who>,
        sight: Sight,
        collection: &CollectionName,
        query: &AggregateQuery,
    ) -> Result<AggregatePage> {
        let (aggregate, given) = query.prepared()?;
        let ((groups, more), plan) = self
            .run_query(collection, sight, move |views, run| {
                let made = query::aggregate(views, &aggregate, run)?;
                Ok(((made.groups, made.more), made.plan, made.looked_at))
            })
            .await?;
        self.collection(collection).await?;
        self.note_read(who, AuditAction::Query, collection, [], || shape(&given));
        let plain = |value: Value| {
            serde_json::from_str(&json::render_value(&value))
                .map_err(|error| Error::new(ErrorCode::Internal, "render a value").with_source(error))
        };
        Ok(AggregatePage { groups: groups.into_iter().map(plain).collect::<Result<_>>()?, more, plan })
    }
}

impl Live for Node {
    fn live(&self, collection: &CollectionName, query: FindQuery) -> BoxStream<'static, Result<LiveEvent>> {
        follow(self.clone(), collection.clone(), query)
    }
}

#[async_trait]
impl Queries for Node {
    async fn find(&self, collection: &CollectionName, query: &FindQuery) -> Result<FindPage> {
        self.inner.find_documents(None, all_seen(), collection, query).await
    }

    async fn aggregate(&self, collection: &CollectionName, query: &AggregateQuery) -> Result<AggregatePage> {
        self.inner.aggregate_documents(None, all_seen(), collection, query).await
    }
}
