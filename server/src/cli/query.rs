//! Commands that ask for documents by what is in them.

use folkmoot::api::{AggregateQuery, Document, ExitCode, FindQuery, Live as _, LiveEvent, Queries as _, QueryPlan};
use folkmoot::wire::DocumentMeta;
use folkmoot::wire::live::LiveKind;
use folkmoot::{Client, DocId, Error, ErrorCode};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::args::{Aggregate, Count, Query, Selected, Watch};
use super::documents::{Shown, preview, raw};
use super::failure::Failure;
use super::output::{Format, Output, table_of};

/// Documents of one answer.
const PAGE: usize = 1_000;

/// Reads the selector of the command line.
fn selector(given: Option<&str>) -> Result<Value, Failure> {
    let Some(text) = given else { return Ok(Value::Null) };
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorCode::InvalidQuery, format!("the selector is not valid JSON: {error}"))
            .hint("for example '{\"age\": {\"$gte\": 18}}', in single quotes")
            .into()
    })
}

/// Returns a value as it stands in a table.
fn cell(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => preview(text),
        Some(value) => preview(&value.to_string()),
    }
}

/// Returns the value at a place that is written with dots or as a pointer.
fn at<'a>(document: &'a Value, place: &str) -> Option<&'a Value> {
    if place.starts_with('/') {
        return document.pointer(place);
    }
    place.split('.').try_fold(document, |value, step| value.get(step))
}

fn explain(plan: &QueryPlan, output: &Output) {
    let QueryPlan { kind, index, in_order, looked_at, micros, hint } = plan;
    let by = index.as_ref().map_or_else(|| kind.clone(), |index| format!("{kind} {index}"));
    let order = if *in_order { "in order" } else { "not in order" };
    output.note(&format!("looked at {looked_at} documents ({by}, {order}) in {:.1} ms", *micros as f64 / 1_000.0));
    if let Some(hint) = hint {
        output.note(hint);
    }
}

fn row(document: &Document, fields: &[String]) -> Result<Vec<String>, Failure> {
    let mut row = vec![document.id.to_string()];
    if fields.is_empty() {
        row.push(preview(&String::from_utf8_lossy(&document.json)));
        return Ok(row);
    }
    let value: Value = serde_json::from_str(raw(&document.json)?.get())
        .map_err(|error| Error::new(ErrorCode::InvalidAnswer, format!("the document is not valid JSON: {error}")))?;
    row.extend(fields.iter().map(|place| cell(at(&value, place))));
    Ok(row)
}

pub(super) async fn find(client: &Client, args: Query, output: &Output) -> Result<ExitCode, Failure> {
    let Query { selected, as_of, sort, fields, limit, explain: explains } = args;
    let Selected { collection, selector: given } = selected;
    let mut query = FindQuery { at: as_of.at, ..FindQuery::new(selector(given.as_deref())?).sort(sort) };
    if !fields.is_empty() {
        query = query.fields(fields.clone());
    }
    let (mut rows, mut left, mut more) = (Vec::new(), limit, false);
    while left > 0 {
        query.limit = Some(left.min(PAGE));
        let page = client.find(&collection, &query).await?;
        for document in &page.items {
            if output.format() == Format::Json {
                let shown = Shown { meta: DocumentMeta::from(document), doc: raw(&document.json)? };
                output.show(&shown, String::new)?;
            } else {
                rows.push(row(document, &fields)?);
            }
        }
        if explains {
            explain(&page.plan, output);
        }
        left = left.saturating_sub(page.items.len());
        more = page.next.is_some();
        if page.next.is_none() {
            break;
        }
        query.after = page.next;
    }
    if output.format() == Format::People {
        let shown = if fields.is_empty() { vec!["document".to_owned()] } else { fields };
        output.line(&table_of(std::iter::once("id".to_owned()).chain(shown), rows))?;
    }
    if more {
        output.note("there are more; --limit shows them");
    }
    Ok(ExitCode::Done)
}

pub(super) async fn count(client: &Client, args: Count, output: &Output) -> Result<ExitCode, Failure> {
    let Selected { collection, selector: given } = args.selected;
    let query = AggregateQuery { at: args.as_of.at, ..AggregateQuery::count(selector(given.as_deref())?) };
    let page = client.aggregate(&collection, &query).await?;
    let count = page.groups.first().and_then(|group| group.get("count")).cloned().unwrap_or(json!(0));
    output.show(&json!({ "count": count }), || count.to_string())?;
    Ok(ExitCode::Done)
}

pub(super) async fn aggregate(client: &Client, args: Aggregate, output: &Output) -> Result<ExitCode, Failure> {
    let Aggregate {
        selected: Selected { collection, selector: given },
        as_of,
        group,
        count,
        sum,
        avg,
        min,
        max,
        distinct,
        limit,
    } = args;
    let mut values = Map::new();
    let mut names = Vec::new();
    let kinds = [("sum", sum), ("avg", avg), ("min", min), ("max", max), ("distinct", distinct)];
    if count || kinds.iter().all(|(_, places)| places.is_empty()) {
        names.push("count".to_owned());
        values.insert("count".to_owned(), json!({ "$count": true }));
    }
    for (kind, place) in kinds.into_iter().flat_map(|(kind, places)| places.into_iter().map(move |place| (kind, place)))
    {
        let name = format!("{kind}({place})");
        values.insert(name.clone(), json!({ format!("${kind}"): place }));
        names.push(name);
    }
    let query = AggregateQuery {
        selector: selector(given.as_deref())?,
        group: group.clone(),
        values: Value::Object(values),
        limit: Some(limit.clamp(1, PAGE)),
        at: as_of.at,
    };
    let page = client.aggregate(&collection, &query).await?;
    output.show(&page.groups, || {
        let rows = page.groups.iter().map(|row| {
            let by = group.iter().map(|place| cell(row.get("group").and_then(|by| by.get(place))));
            by.chain(names.iter().map(|name| cell(row.get(name)))).collect()
        });
        table_of(group.iter().chain(&names).cloned(), rows)
    })?;
    if page.more {
        output.note("there are more groups; --limit shows them");
    }
    Ok(ExitCode::Done)
}

/// What a live query tells, as programs get it.
#[derive(serde::Serialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    kind: LiveKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a DocId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Shown<'a>>,
}

pub(super) async fn watch(client: &Client, args: Watch, output: &Output) -> Result<ExitCode, Failure> {
    let Watch { selected: Selected { collection, selector: given }, sort, fields, limit, lines } = args;
    let mut query = FindQuery::new(selector(given.as_deref())?).sort(sort).limit(limit);
    if !fields.is_empty() {
        query = query.fields(fields.clone());
    }
    let mut events = client.live(&collection, query);
    let mut left = lines.unwrap_or(usize::MAX);
    while left > 0 {
        let Some(event) = events.next().await else { break };
        let (kind, sign, document, id) = match event? {
            LiveEvent::Added(document) => (LiveKind::Added, '+', Some(document), None),
            LiveEvent::Changed(document) => (LiveKind::Changed, '~', Some(document), None),
            LiveEvent::Removed(id) => (LiveKind::Removed, '-', None, Some(id)),
            // People see that it is quiet; programs want to know when to act.
            LiveEvent::Synced if output.format() == Format::People => continue,
            LiveEvent::Synced => (LiveKind::Synced, '=', None, None),
        };
        let row = document.as_ref().map(|document| row(document, &fields)).transpose()?;
        let shown = document
            .as_ref()
            .map(|document| Ok::<_, Failure>(Shown { meta: DocumentMeta::from(document), doc: raw(&document.json)? }))
            .transpose()?;
        output.show(&Told { kind, id: id.as_ref(), document: shown }, || match (row, &id) {
            (Some(row), _) => format!("{sign} {}", row.join("  ")),
            (None, Some(id)) => format!("{sign} {id}"),
            (None, None) => String::new(),
        })?;
        left -= 1;
    }
    Ok(ExitCode::Done)
}
