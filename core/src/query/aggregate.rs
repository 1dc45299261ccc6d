//! Counting, adding up and listing values, by groups.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::QueryError;
use super::find::{self, Explain, QueryRunError, Run};
use super::index::Indexed;
use super::order::{self, key};
use super::path::Path;
use super::plan::{self, Asked};
use super::request::{limit, path, time, unknown_member};
use super::selector::{Selector, Subject, below, expected};
use crate::document::json::{Value, Wanted};
use crate::limits;

/// What is computed of the documents of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compute {
    /// How many there are.
    Count,
    /// The sum of the numbers at a place; in an array, of each.
    Sum(Path),
    /// Their mean; null of none.
    Average(Path),
    /// The least value at a place, in the order of sorting; null of none.
    Min(Path),
    /// The greatest.
    Max(Path),
    /// The different values at a place, in the order of sorting.
    Distinct(Path),
}

/// A query for values over many documents.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Of which documents.
    pub selector: Selector,
    /// By which places they are grouped, under which names; one group of all if there are none.
    pub group: Vec<(String, Path)>,
    /// What is computed, under which names.
    pub values: Vec<(String, Compute)>,
    /// How many groups are answered at most.
    pub limit: usize,
    /// Of the documents as they were at this time, in milliseconds since 1970; none as they are.
    pub at: Option<u64>,
}

impl Aggregate {
    /// Reads a query.
    ///
    /// # Errors
    /// Of what is wrong, where, and what is allowed.
    pub fn parse(value: &Value) -> Result<Self, QueryError> {
        const MEMBERS: &str = "selector, group, values, limit, at";
        let Value::Map(map) = value else { return Err(expected("an object", value, "")) };
        let (mut selector, mut group, mut values) = (Selector::all(), Vec::new(), Vec::new());
        let (mut most, mut of_then) = (limits::QUERY_PAGE_MAX, None);
        for (key, value) in map {
            let at = &below("", key);
            match key.as_str() {
                "selector" => selector = Selector::parse(value, at)?,
                "group" => group = groups(value, at)?,
                "values" => values = computed(value, at)?,
                "limit" => most = limit(value, at)?,
                "at" => of_then = time(value, at)?,
                _ => return Err(unknown_member(key, at, MEMBERS)),
            }
        }
        if values.is_empty() {
            values.push(("count".to_owned(), Compute::Count));
        }
        Ok(Self { selector, group, values, limit: most, at: of_then })
    }

    fn looked_at(&self) -> Wanted {
        let mut wanted = Wanted::default();
        self.selector.add_wanted(&mut wanted);
        self.group.iter().for_each(|(_, path)| path.add_to(&mut wanted));
        for (_, compute) in &self.values {
            match compute {
                Compute::Count => {}
                Compute::Sum(path)
                | Compute::Average(path)
                | Compute::Min(path)
                | Compute::Max(path)
                | Compute::Distinct(path) => path.add_to(&mut wanted),
            }
        }
        wanted
    }
}

fn groups(value: &Value, at: &str) -> Result<Vec<(String, Path)>, QueryError> {
    let Value::List(list) = value else { return Err(expected("an array of places", value, at)) };
    if list.len() > limits::QUERY_SORTS_MAX {
        return Err(QueryError::new(at, format!("a query groups by at most {} places", limits::QUERY_SORTS_MAX)));
    }
    let numbered = list.iter().enumerate();
    numbered
        .map(|(n, value)| {
            let at = &below(at, &n.to_string());
            match value {
                Value::String(text) => Ok((text.clone(), path(text, at)?)),
                other => Err(expected("a place", other, at)),
            }
        })
        .collect()
}

fn computed(value: &Value, at: &str) -> Result<Vec<(String, Compute)>, QueryError> {
    const KINDS: &str =
        "{\"$count\": true} or one of $sum, $avg, $min, $max, $distinct with a place, as in {\"$sum\": \"price\"}";
    let Value::Map(map) = value else { return Err(expected("an object of names", value, at)) };
    if map.len() > limits::QUERY_FIELDS_MAX {
        return Err(QueryError::new(at, format!("a query computes at most {} values", limits::QUERY_FIELDS_MAX)));
    }
    let one = |(name, value): (&String, &Value)| {
        let at = &below(at, name);
        if name == "group" {
            return Err(QueryError::new(at, "what the group is of stands under this name"));
        }
        let wrong = || QueryError::new(at, "this says not what to compute").hint(KINDS);
        let Value::Map(kind) = value else { return Err(wrong()) };
        let (Some((kind, of)), 1) = (kind.iter().next(), kind.len()) else { return Err(wrong()) };
        let at = &below(at, kind);
        let place = || match of {
            Value::String(text) => path(text, at),
            other => Err(expected("a place", other, at)),
        };
        let compute = match (kind.as_str(), of) {
            ("$count", Value::Bool(true)) => Compute::Count,
            ("$sum", _) => Compute::Sum(place()?),
            ("$avg", _) => Compute::Average(place()?),
            ("$min", _) => Compute::Min(place()?),
            ("$max", _) => Compute::Max(place()?),
            ("$distinct", _) => Compute::Distinct(place()?),
            _ => return Err(wrong()),
        };
        Ok((name.clone(), compute))
    };
    map.iter().map(one).collect()
}

/// What has gathered of one value of a group.
enum Gathered {
    Count(u64),
    Sum { whole: i128, fraction: f64, count: u64 },
    Extreme(Option<(Vec<u8>, Value)>),
    Distinct(BTreeMap<Vec<u8>, Value>),
}

impl Gathered {
    fn new(compute: &Compute) -> Self {
        match compute {
            Compute::Count => Self::Count(0),
            Compute::Sum(_) | Compute::Average(_) => Self::Sum { whole: 0, fraction: 0.0, count: 0 },
            Compute::Min(_) | Compute::Max(_) => Self::Extreme(None),
            Compute::Distinct(_) => Self::Distinct(BTreeMap::new()),
        }
    }

    /// Takes a document in; returns how many bytes more are kept.
    fn take(&mut self, compute: &Compute, subject: &Subject<'_>) -> usize {
        let mut more = 0;
        match (self, compute) {
            (Self::Count(count), _) => *count += 1,
            (Self::Sum { whole, fraction, count }, Compute::Sum(path) | Compute::Average(path)) => {
                subject.reach_each(path, &mut |value| {
                    match (order::integer(value), value) {
                        // 2^63 documents of 2^64 would be needed to go beyond.
                        (Some(number), _) => *whole = whole.saturating_add(number),
                        (None, Value::Float(number)) => *fraction += number,
                        _ => return false,
                    }
                    *count += 1;
                    false
                });
            }
            (Self::Extreme(best), Compute::Min(path) | Compute::Max(path)) => {
                let greatest = matches!(compute, Compute::Max(_));
                elements(subject, path, |value| {
                    let this = key(Some(value));
                    let better = |best: &Vec<u8>| if greatest { this > *best } else { this < *best };
                    if best.as_ref().is_none_or(|(best, _)| better(best)) {
                        *best = Some((this, value.clone()));
                    }
                });
            }
            (Self::Distinct(values), Compute::Distinct(path)) => elements(subject, path, |value| {
                // Longer than what is sorted by: told apart by all of it.
                let key = exact_key(value);
                let size = key.len() + 64;
                if let Entry::Vacant(entry) = values.entry(key) {
                    entry.insert(value.clone());
                    more += 2 * size;
                }
            }),
            // Each was made for its compute.
            (Self::Sum { .. } | Self::Extreme(_) | Self::Distinct(_), _) => {}
        }
        more
    }

    fn into_value(self, compute: &Compute) -> Value {
        match self {
            Self::Count(count) => Value::from_u64(count),
            Self::Sum { whole, fraction, count } => match compute {
                Compute::Average(_) if count == 0 => Value::Null,
                Compute::Average(_) => Value::from_f64((whole as f64 + fraction) / count as f64),
                _ if fraction == 0.0 => match (i64::try_from(whole), u64::try_from(whole)) {
                    (Ok(sum), _) => Value::Int(sum),
                    (Err(_), Ok(sum)) => Value::Uint(sum),
                    (Err(_), Err(_)) => Value::from_f64(whole as f64),
                },
                _ => Value::from_f64(whole as f64 + fraction),
            },
            Self::Extreme(best) => best.map_or(Value::Null, |(_, value)| value),
            Self::Distinct(values) => Value::List(values.into_values().collect()),
        }
    }
}

/// Hands on each value at a place, in the place of an array its elements.
fn elements(subject: &Subject<'_>, path: &Path, mut take: impl FnMut(&Value)) {
    subject.reach(path, &mut |value| {
        match value {
            Value::List(list) => list.iter().for_each(&mut take),
            value => take(value),
        }
        false
    });
}

/// A key that tells values apart that sort alike.
fn exact_key(value: &Value) -> Vec<u8> {
    let mut exact = key(Some(value));
    match value {
        Value::String(text) if text.len() > order::SORTED_BYTES_MAX => exact.extend(text.as_bytes()),
        Value::List(_) | Value::Map(_) => exact.extend(crate::document::json::render_value(value).into_bytes()),
        _ => {}
    }
    exact
}

struct Group {
    values: Vec<Value>,
    gathered: Vec<Gathered>,
}

/// What was computed.
#[derive(Clone, Debug)]
pub struct Aggregated {
    /// An object for each group: what it is grouped by under `group`, and the values under their names. In the order of sorting.
    pub groups: Vec<Value>,
    /// Whether there are more groups than the limit.
    pub more: bool,
    /// Documents that were looked at, of those that may be seen.
    pub looked_at: u64,
    /// How.
    pub explain: Explain,
}

/// Computes values over all documents that a selector means. A group is of what is at its places first; of an array as a whole.
///
/// # Errors
/// [`QueryRunError`]; [`QueryRunError::TooMuch`] above [`limits::QUERY_GROUPS_MAX`] groups or [`limits::QUERY_GROUP_BYTES_MAX`] bytes.
pub fn aggregate(indexed: &Indexed, query: &Aggregate, run: &Run<'_>) -> Result<Aggregated, QueryRunError> {
    let expr = query.selector.expr();
    // All documents that are meant are wanted, in whatever order.
    let (way, explain) = plan::choose(indexed, &Asked { expr, sort: &[], limit: None, sees_whole: run.sees_whole })?;
    let mut groups: BTreeMap<Vec<u8>, Group> = BTreeMap::new();
    let mut bytes = 0;
    let (looked_at, whole) = find::each(&indexed.views, &way, run, query.looked_at(), |_, candidate, _| {
        let subject = candidate.subject();
        if !query.selector.selects(&subject) {
            return Ok(true);
        }
        let of = query.group.iter().map(|(_, path)| {
            let mut first = None;
            subject.reach(path, &mut |value| {
                first = Some(value);
                true
            });
            first
        });
        let of: Vec<Option<&Value>> = of.collect();
        let group_key: Vec<u8> = of.iter().flat_map(|value| value.map_or_else(|| key(None), exact_key)).collect();
        if !groups.contains_key(&group_key) {
            if groups.len() == limits::QUERY_GROUPS_MAX {
                let what = format!("the query makes more than {} groups", limits::QUERY_GROUPS_MAX);
                return Err(QueryRunError::TooMuch(what));
            }
            bytes += 2 * group_key.len() + 64 * (1 + query.values.len());
            let values = of.iter().map(|value| value.cloned().unwrap_or(Value::Null)).collect();
            let gathered = query.values.iter().map(|(_, compute)| Gathered::new(compute)).collect();
            groups.insert(group_key.clone(), Group { values, gathered });
        }
        let Some(group) = groups.get_mut(&group_key) else { return Ok(true) };
        for (gathered, (_, compute)) in group.gathered.iter_mut().zip(&query.values) {
            bytes += gathered.take(compute, &subject);
        }
        if bytes > limits::QUERY_GROUP_BYTES_MAX {
            let what = format!("the query would keep more than {} bytes", limits::QUERY_GROUP_BYTES_MAX);
            return Err(QueryRunError::TooMuch(what));
        }
        Ok(true)
    })?;
    if !whole {
        return Err(QueryRunError::TooLong { looked_at });
    }
    if query.group.is_empty() && groups.is_empty() {
        // Of nothing there are none: that is an answer.
        let gathered = query.values.iter().map(|(_, compute)| Gathered::new(compute)).collect();
        groups.insert(Vec::new(), Group { values: Vec::new(), gathered });
    }
    let more = groups.len() > query.limit;
    let groups = groups.into_values().take(query.limit).map(|group| {
        let names = query.group.iter().map(|(name, _)| name.clone());
        let by = Value::Map(names.zip(group.values).collect());
        let values = group.gathered.into_iter().zip(&query.values);
        let mut row: BTreeMap<_, _> =
            values.map(|(gathered, (name, compute))| (name.clone(), gathered.into_value(compute))).collect();
        if !query.group.is_empty() {
            row.insert("group".to_owned(), by);
        }
        Value::Map(row)
    });
    Ok(Aggregated { groups: groups.collect(), more, looked_at, explain })
}
