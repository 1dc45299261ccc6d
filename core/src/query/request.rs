//! Queries as clients send them.

use super::path::Path;
use super::selector::{Selector, Subject, below, expected};
use super::{QueryError, order};
use crate::document::json::{self, Value, Wanted};
use crate::limits;

/// One key to sort by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SortKey {
    /// By what.
    pub path: Path,
    /// Whether the greatest comes first.
    pub descending: bool,
}

/// A query for documents.
#[derive(Clone, Debug)]
pub struct Find {
    /// Which.
    pub selector: Selector,
    /// In which order; by id where nothing else decides.
    pub sort: Vec<SortKey>,
    /// What is shown of them.
    pub fields: Wanted,
    /// How many at most.
    pub limit: usize,
    /// Behind which place, as an answer before said; opaque.
    pub after: Option<String>,
    /// As they were at this time, in milliseconds since 1970; none as they are.
    pub at: Option<u64>,
}

impl Find {
    /// Documents of a page if the query does not say.
    pub const LIMIT_DEFAULT: usize = 100;

    /// Every document, by id.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            selector: Selector::all(),
            sort: Vec::new(),
            fields: Wanted::everything(),
            limit: Self::LIMIT_DEFAULT,
            after: None,
            at: None,
        }
    }

    /// Reads a query.
    ///
    /// # Errors
    /// Of what is wrong, where, and what is allowed.
    pub fn parse(value: &Value) -> Result<Self, QueryError> {
        const MEMBERS: &str = "selector, sort, fields, limit, after, at";
        let Value::Map(map) = value else { return Err(expected("an object", value, "")) };
        let mut query = Self::all();
        for (key, value) in map {
            let at = &below("", key);
            match key.as_str() {
                "selector" => query.selector = Selector::parse(value, at)?,
                "sort" => query.sort = sort_keys(value, at)?,
                "fields" => query.fields = fields(value, at)?,
                "limit" => query.limit = limit(value, at)?,
                "at" => query.at = time(value, at)?,
                "after" => match value {
                    Value::Null => {}
                    Value::String(after) => query.after = Some(after.clone()),
                    other => return Err(expected("the `next` of an answer", other, at)),
                },
                _ => return Err(unknown_member(key, at, MEMBERS)),
            }
        }
        Ok(query)
    }

    /// Returns the places of documents that decide whether and where they are shown.
    #[must_use]
    pub(super) fn looked_at(&self) -> Wanted {
        let mut wanted = Wanted::default();
        self.selector.add_wanted(&mut wanted);
        for key in &self.sort {
            key.path.add_to(&mut wanted);
        }
        wanted
    }

    /// Whether documents come in the order of their ids, which is that of the store.
    #[must_use]
    pub fn is_by_id(&self) -> bool {
        match self.sort.first() {
            None => true,
            Some(first) => first.path == Path::Id && !first.descending,
        }
    }

    /// Returns bytes by which the document sorts.
    pub(super) fn sort_key(&self, subject: &Subject<'_>) -> Vec<u8> {
        let mut key = Vec::new();
        for SortKey { path, descending } in &self.sort {
            let start = key.len();
            write_least(&mut key, subject, path, *descending);
            if *descending {
                order::invert(key.get_mut(start..).unwrap_or_default());
            }
        }
        key
    }
}

/// Writes the key of the least of the values at a place, or of the greatest: an array sorts by its elements.
fn write_least(key: &mut Vec<u8>, subject: &Subject<'_>, path: &Path, greatest: bool) {
    let start = key.len();
    let mut best: Option<Vec<u8>> = None;
    let mut take = |value: Option<&Value>| {
        let mut this = Vec::new();
        order::write_key(&mut this, value);
        let better = best.as_ref().is_none_or(|best| if greatest { this > *best } else { this < *best });
        if better {
            best = Some(this);
        }
    };
    subject.reach(path, &mut |value| {
        match value {
            Value::List(list) if !list.is_empty() => list.iter().for_each(|value| take(Some(value))),
            value => take(Some(value)),
        }
        false
    });
    match best {
        Some(best) => key.extend(best),
        None => order::write_key(key, None),
    }
    debug_assert!(key.len() > start, "every key has bytes");
}

/// Reads a time at which documents are looked at.
pub(super) fn time(value: &Value, at: &str) -> Result<Option<u64>, QueryError> {
    let ms = match value {
        Value::Null => return Ok(None),
        Value::String(text) => json::timestamp_from_text(text).and_then(|ms| u64::try_from(ms).ok()),
        _ => None,
    };
    // More does not fit into the times of changes.
    let ms = ms.filter(|ms| *ms < 1 << 48);
    ms.map(Some).ok_or_else(|| expected("a time since 1970, like \"2026-03-01T08:00:00Z\"", value, at))
}

fn sort_keys(value: &Value, at: &str) -> Result<Vec<SortKey>, QueryError> {
    let single = std::slice::from_ref(value);
    let list = match value {
        Value::List(list) => list.as_slice(),
        Value::String(_) | Value::Map(_) => single,
        other => return Err(expected("an array of places", other, at)),
    };
    if list.len() > limits::QUERY_SORTS_MAX {
        return Err(QueryError::new(at, format!("a query sorts by at most {} places", limits::QUERY_SORTS_MAX)));
    }
    list.iter().enumerate().map(|(n, value)| sort_key(value, &below(at, &n.to_string()))).collect()
}

fn sort_key(value: &Value, at: &str) -> Result<SortKey, QueryError> {
    match value {
        Value::String(text) => {
            let (descending, text) = match text.strip_prefix('-') {
                Some(text) => (true, text),
                None => (false, text.as_str()),
            };
            Ok(SortKey { path: path(text, at)?, descending })
        }
        Value::Map(map) => match map.iter().next().filter(|_| map.len() == 1) {
            Some((text, direction)) => {
                let at = &below(at, text);
                let descending = match direction {
                    Value::String(direction) if direction == "asc" => false,
                    Value::String(direction) if direction == "desc" => true,
                    Value::Int(1) => false,
                    Value::Int(-1) => true,
                    _ => return Err(QueryError::new(at, "the direction is \"asc\" or \"desc\"")),
                };
                Ok(SortKey { path: path(text, at)?, descending })
            }
            None => Err(QueryError::new(at, "an object to sort by has one place, as in {\"age\": \"desc\"}")),
        },
        other => Err(expected("a place, as in \"age\", \"-age\" or {\"age\": \"desc\"},", other, at)),
    }
}

/// Reads a list of places to be shown.
fn fields(value: &Value, at: &str) -> Result<Wanted, QueryError> {
    let Value::List(list) = value else { return Err(expected("an array of places", value, at)) };
    if list.len() > limits::QUERY_FIELDS_MAX {
        return Err(QueryError::new(at, format!("a query shows at most {} places", limits::QUERY_FIELDS_MAX)));
    }
    let mut wanted = Wanted::default();
    for (n, value) in list.iter().enumerate() {
        let at = &below(at, &n.to_string());
        match value {
            Value::String(text) => path(text, at)?.add_to(&mut wanted),
            other => return Err(expected("a place", other, at)),
        }
    }
    Ok(wanted)
}

pub(super) fn path(text: &str, at: &str) -> Result<Path, QueryError> {
    text.parse::<Path>().map_err(|error| QueryError::new(at, error.to_string()))
}

pub(super) fn limit(value: &Value, at: &str) -> Result<usize, QueryError> {
    let limit = match value {
        Value::Int(limit) => usize::try_from(*limit).ok().filter(|limit| (1..=limits::QUERY_PAGE_MAX).contains(limit)),
        _ => None,
    };
    limit.ok_or_else(|| QueryError::new(at, format!("the limit is a number from 1 to {}", limits::QUERY_PAGE_MAX)))
}

pub(super) fn unknown_member(name: &str, at: &str, known: &str) -> QueryError {
    QueryError::new(at, format!("{name:?} is no part of a query")).hint(format!("parts are {known}"))
}
