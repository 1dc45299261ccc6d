//! Queries: on threads for blocking calls, few at once and each within its time.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use folkmoot_core::audit::AuditAction;
use folkmoot_core::document::json::{self, Value};
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::op::FieldRights;
use folkmoot_core::query::{self, Explain, Indexed, QueryRunError, Run};
use folkmoot_core::replica::{IdRange, ReadError, Reader, View};
use folkmoot_core::store::Keyspace;
use futures_util::stream::BoxStream;

use super::audit::Who;
use super::convert::{index_info, read_error};
use super::{Inner, Node};
use crate::api::{
    AggregatePage, AggregateQuery, Cursor, Document, Error, ErrorCode, FindPage, FindQuery, IndexInfo, ListPage,
    ListQuery, Live, LiveEvent, Queries, QueryPlan, Result, Timestamp, error_chain, follow,
};

/// Queries that run at once; more wait.
pub(super) const AT_ONCE: usize = 4;
/// How long one waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// Bytes of what is recorded of a query.
const SHAPE_BYTES_MAX: usize = 512;

/// Documents that have to be looked at before an index is hinted at.
const HINT_FROM: u64 = 1_000;

/// Of what a query asks.
#[derive(Clone)]
pub(super) struct AskedOf {
    collection: CollectionName,
    /// As it was at this time.
    at: Option<u64>,
}

/// What somebody may see.
pub(super) struct Sight {
    /// Which fields of a document.
    pub(super) of: Box<dyn Fn(&DocId) -> FieldRights + Send>,
    /// Whether that is all of them or none, of each document.
    pub(super) is_whole: bool,
}

impl Sight {
    /// The owner sees everything.
    pub(super) fn everything() -> Self {
        Self { of: Box::new(|_| FieldRights::all()), is_whole: true }
    }
}

fn plan(collection: &CollectionName, explain: Explain, looked_at: u64, took: Duration) -> QueryPlan {
    let Explain { plan, index, in_order, hint } = explain;
    let hint = hint.filter(|_| looked_at >= HINT_FROM);
    let hint = hint.map(|fields| {
        // A place that begins with - is no option.
        let places: Vec<_> = fields.iter().map(|field| format!("'{field}'")).collect();
        format!("an index would serve: folkmoot index create {collection} -- {}", places.join(" "))
    });
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    QueryPlan { kind: plan.name().to_owned(), index, in_order, looked_at, micros, hint }
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

/// Returns the last moment of a millisecond.
fn to_the_end_of(ms: u64) -> Hlc {
    Hlc::new(ms, u16::MAX)
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
        of: AskedOf,
        sight: Sight,
        query: impl Fn(&Indexed, &Run<'_>) -> Result<(T, Explain, u64), QueryRunError> + Send + 'static,
    ) -> Result<(T, QueryPlan)> {
        let AskedOf { collection, at } = of;
        let busy =
            || Error::new(ErrorCode::Busy, format!("{AT_ONCE} queries are running, and this one has waited too long"));
        let turn = tokio::time::timeout(TURN_WAIT, self.queries.clone().acquire_owned());
        let turn = turn.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let (name, limit, indexes) = (collection.clone(), self.config.query_time, self.indexes.clone());
        let cluster = self.record.cluster;
        let run = move |reader: &Reader| {
            let _turn = turn;
            let began = Instant::now();
            let goes_on = || began.elapsed() < limit;
            let run = Run { sight: &*sight.of, sees_whole: sight.is_whole, goes_on: &goes_on };
            // Without use for indexes, none is brought up to this moment.
            let indexed = match at {
                Some(ms) => Ok(Indexed::without(reader.views_at(&name, to_the_end_of(ms), cluster))),
                None if sight.is_whole => indexes.views(reader, &name),
                None => Ok(Indexed::without(reader.views(&name))),
            };
            let mut ran = indexed.map_err(QueryRunError::from).and_then(|indexed| query(&indexed, &run));
            if let Err(QueryRunError::Read(error @ ReadError::Damaged { keyspace: Keyspace::Index, .. })) = &ran {
                tracing::error!(collection = %name, error = error_chain(error), "an index is damaged and is made anew");
                metrics::counter!("folkmoot_index_failures_total").increment(1);
                indexes.distrust(&name, &error.to_string());
                ran = query(&Indexed::without(reader.views(&name)), &run);
            }
            (ran, began.elapsed())
        };
        // What was is made from histories.
        let ran = if at.is_some() { self.on_large_stack(run).await } else { self.read_on_thread(run).await };
        let (ran, took) = ran?;
        let (found, explain, looked_at) = ran.map_err(run_error).inspect_err(|error| {
            if error.code() == ErrorCode::QueryTooLong {
                metrics::counter!("folkmoot_queries_too_long_total").increment(1);
            }
        })?;
        let name = explain.plan.name();
        metrics::histogram!("folkmoot_query_seconds", "plan" => name).record(took.as_secs_f64());
        metrics::counter!("folkmoot_query_documents_looked_at_total", "plan" => name).increment(looked_at);
        Ok((found, plan(&collection, explain, looked_at, took)))
    }

    pub(super) async fn find_documents(
        &self,
        who: Option<Who>,
        sight: Sight,
        collection: &CollectionName,
        query: &FindQuery,
    ) -> Result<FindPage> {
        let (find, given) = query.prepared()?;
        let of = AskedOf { collection: collection.clone(), at: find.at };
        let (rows, plan) = self
            .run_query(of, sight, move |indexed, run| {
                let found = query::find(indexed, &find, run)?;
                Ok(((found.rows, found.next), found.explain, found.looked_at))
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

    /// Lists documents as they were at a time.
    pub(super) async fn list_at(
        &self,
        sight: Sight,
        collection: &CollectionName,
        query: &ListQuery,
        at: Timestamp,
    ) -> Result<ListPage> {
        let after = query.after.as_ref().map(Cursor::document).transpose()?;
        let (name, prefix, limit) = (collection.clone(), query.prefix.clone().unwrap_or_default(), query.limit());
        let (cluster, time) = (self.record.cluster, self.config.query_time);
        let read = self.on_large_stack(move |reader| {
            let views = reader.views_at(&name, to_the_end_of(at.millis()), cluster);
            let after = after.map(|after| after.to_string());
            let range = IdRange { from: Some(prefix.clone()), after, ..IdRange::default() };
            let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
            let began = Instant::now();
            for view in views.scan(&range) {
                let view = view?;
                if !view.doc.as_str().starts_with(&prefix) {
                    break;
                }
                if items.len() >= limit || bytes >= ListQuery::PAGE_BYTES_MAX || began.elapsed() >= time {
                    return Ok((items, last));
                }
                last = Some(view.doc.clone());
                if !(sight.of)(&view.doc).are_none() {
                    bytes += view.json.len();
                    items.push(view);
                }
            }
            Ok::<_, ReadError>((items, None))
        });
        let (views, last) = read.await?.map_err(read_error)?;
        let items: Vec<Document> = views.into_iter().map(|view| Self::document(collection, view)).collect();
        if items.is_empty() && query.after.is_none() {
            self.collection(collection).await?;
        }
        Ok(ListPage { items, next: last.map(|last| Cursor::after_document(&last)) })
    }

    pub(super) async fn aggregate_documents(
        &self,
        who: Option<Who>,
        sight: Sight,
        collection: &CollectionName,
        query: &AggregateQuery,
    ) -> Result<AggregatePage> {
        let (aggregate, given) = query.prepared()?;
        let of = AskedOf { collection: collection.clone(), at: aggregate.at };
        let ((groups, more), plan) = self
            .run_query(of, sight, move |indexed, run| {
                let made = query::aggregate(indexed, &aggregate, run)?;
                Ok(((made.groups, made.more), made.explain, made.looked_at))
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
        self.inner.find_documents(None, Sight::everything(), collection, query).await
    }

    async fn aggregate(&self, collection: &CollectionName, query: &AggregateQuery) -> Result<AggregatePage> {
        self.inner.aggregate_documents(None, Sight::everything(), collection, query).await
    }

    async fn indexes(&self, collection: &CollectionName) -> Result<Vec<IndexInfo>> {
        let info = self.inner.collection(collection).await?;
        let indexes = self.inner.indexes.clone();
        let (name, documents) = (collection.clone(), info.documents);
        // It may wait for whoever reads an index up to the moment.
        let infos = self.inner.read_on_thread(move |_| indexes.infos(&name)).await?;
        Ok(infos.into_iter().map(|info| index_info(info, documents)).collect())
    }
}
