//! How documents are looked for.
//!
//! The choice is by estimates: how many documents a way looks at, where one that an index names costs twice one that comes in order.
//! Whatever the way, the same documents are found in the same order.

use std::cmp::Ordering;

use super::find::{Explain, Plan};
use super::index::{ALWAYS, IndexField, IndexView, Indexed, Interval, behind_prefix};
use super::order;
use super::path::Path;
use super::request::SortKey;
use super::selector::{Expr, Test};
use crate::document::json::Value;
use crate::limits;
use crate::replica::{IdRange, ReadError};

/// Parts of an index that one query looks at; conditions that would make more are left to the selector.
const INTERVALS_MAX: usize = 256;
/// What a document that is looked up costs, of one that is read in order.
const LOOKED_UP_COSTS: u64 = 2;

/// Where documents are looked for.
pub(super) enum Way<'a> {
    /// By id.
    Ids(IdRange),
    /// By an index.
    Index(IndexWay<'a>),
}

/// What of an index is read.
pub(super) struct IndexWay<'a> {
    pub(super) view: &'a IndexView,
    /// Apart from each other, in order.
    pub(super) intervals: Vec<Interval>,
    /// How the entries give the order that is asked for, if they do: then there is one interval.
    pub(super) served: Option<Served>,
}

/// An order that an index gives.
pub(super) struct Served {
    /// What stands in keys before what is sorted by.
    pub(super) prefix: Vec<u8>,
    /// Whether keys are read from the last to the first.
    pub(super) is_reverse: bool,
}

/// What is asked for, as far as it decides the way.
pub(super) struct Asked<'a> {
    pub(super) expr: &'a Expr,
    /// In which order; none by id.
    pub(super) sort: &'a [SortKey],
    /// After how many it ends; none where all are wanted.
    pub(super) limit: Option<usize>,
    /// Whether each document is seen wholly or not at all.
    pub(super) sees_whole: bool,
}

/// Chooses.
///
/// # Errors
/// [`ReadError`] if an index cannot be read.
pub(super) fn choose<'a>(indexed: &'a Indexed, asked: &Asked<'_>) -> Result<(Way<'a>, Explain), ReadError> {
    let (plan, range) = by_ids(asked.expr);
    let by_id = Explain { plan, index: None, in_order: asked.sort.is_empty(), hint: None };
    // What was is in no index.
    if plan == Plan::Id || !asked.sees_whole || indexed.views.are_past() {
        return Ok((Way::Ids(range), by_id));
    }
    let store = indexed.views.read();
    let limit = asked.limit.map_or(u64::MAX, |limit| limit as u64 + 1);
    let mut total = None;
    let mut best: Option<((u64, u64), IndexWay<'_>)> = None;
    for view in &indexed.indexes {
        if !view.definition.declaration().sparse {
            // About the documents of the collection, at least; it need not be known better.
            let whole = view.estimate(store, &[Interval { from: Vec::new(), before: None }])?;
            total = total.max(Some(whole));
        }
        let Some(way) = way(view, asked) else { continue };
        let entries = view.estimate(store, &way.intervals)?.saturating_add(1);
        let looked_at = if way.served.is_some() { entries.min(limit.saturating_mul(LOOKED_UP_COSTS)) } else { entries };
        let costs = (looked_at.saturating_mul(LOOKED_UP_COSTS), entries);
        if best.as_ref().is_none_or(|(least, _)| costs < *least) {
            best = Some((costs, way));
        }
    }
    let Some(((costs, entries), way)) = best else {
        return Ok((Way::Ids(range), Explain { hint: hint(asked), ..by_id }));
    };
    let total = total.unwrap_or(u64::MAX);
    // By id it is over when there are enough, the sooner the more documents are meant.
    let scanned = if asked.sort.is_empty() { limit.saturating_mul(total / entries.max(1)).min(total) } else { total };
    if scanned < costs {
        return Ok((Way::Ids(range), by_id));
    }
    let explain = Explain {
        plan: Plan::Index,
        index: Some(way.view.definition.name().to_owned()),
        in_order: way.served.is_some(),
        hint: None,
    };
    Ok((Way::Index(way), explain))
}

/// Returns how the documents are looked for that a selector may mean, and which ids they have.
fn by_ids(expr: &Expr) -> (Plan, IdRange) {
    let mut range = IdRange::default();
    let mut exact = false;
    narrow(expr, &mut range, &mut exact);
    let plan = match (exact, range.is_all()) {
        (true, _) => Plan::Id,
        (false, true) => Plan::Collection,
        (false, false) => Plan::Ids,
    };
    (plan, range)
}

/// Narrows the range by the conditions on ids that all must meet.
fn narrow(expr: &Expr, range: &mut IdRange, exact: &mut bool) {
    match expr {
        Expr::And(parts) => parts.iter().for_each(|part| narrow(part, range, exact)),
        Expr::Field(Path::Id, tests) => {
            for test in tests {
                match test {
                    Test::Equal(Value::String(id)) => {
                        (range.from, range.to) = (Some(id.clone()), Some(id.clone()));
                        *exact = true;
                    }
                    Test::Compare(orders, Value::String(id)) => {
                        let or_equal = orders.contains(&Ordering::Equal);
                        let slot = match (orders.contains(&Ordering::Less), or_equal) {
                            (true, true) => &mut range.to,
                            (true, false) => &mut range.before,
                            (false, true) => &mut range.from,
                            (false, false) => &mut range.after,
                        };
                        // Of two bounds any one may stay: the selector is asked too.
                        *slot = Some(id.clone());
                    }
                    _ => {}
                }
            }
        }
        Expr::Field(..) | Expr::Or(_) | Expr::Nor(_) => {}
    }
}

/// Which keys a place has in all documents that a selector means.
#[derive(Clone, Debug)]
enum Keys {
    /// One of these.
    Points(Vec<Vec<u8>>),
    /// From the first on, up to those that begin with the second.
    Range(Vec<u8>, Vec<u8>),
}

impl Keys {
    fn of(test: &Test) -> Option<Self> {
        match test {
            Test::Equal(value) => Some(Self::Points(equal_to(value))),
            Test::OneOf(values) => Some(Self::Points(values.iter().flat_map(equal_to).collect())),
            // Each of them is there.
            Test::AllOf(values) => values.first().map(|value| Self::Points(equal_to(value))),
            Test::Exists(true) => Some(Self::Range(order::key(Some(&Value::Null)), vec![order::LAST])),
            Test::Exists(false) => Some(Self::Points(vec![order::key(None)])),
            Test::Compare(orders, value) => {
                let (first, last) = order::kind_range(value)?;
                let key = order::key(Some(value));
                // With what is equal: texts that are cut compare as equal.
                Some(if orders.contains(&Ordering::Less) {
                    Self::Range(vec![first], key)
                } else {
                    Self::Range(key, vec![last])
                })
            }
            Test::Type(_)
            | Test::Regex(_)
            | Test::Contains(_)
            | Test::Size(_)
            | Test::Mod(..)
            | Test::Element(_)
            | Test::Object(_)
            | Test::Not(_) => None,
        }
    }

    /// Returns whether documents that have nothing at the place are left out.
    fn leaves_out_missing(&self) -> bool {
        match self {
            Self::Points(points) => !points.contains(&order::key(None)),
            Self::Range(..) => true,
        }
    }
}

fn equal_to(value: &Value) -> Vec<Vec<u8>> {
    match value {
        // Null is equal to what is missing.
        Value::Null => vec![order::key(None), order::key(Some(value))],
        value => vec![order::key(Some(value))],
    }
}

/// Collects what all documents meet that are meant.
fn collect(expr: &Expr, path: &Path, keys: &mut Vec<Keys>) {
    match expr {
        Expr::And(parts) => parts.iter().for_each(|part| collect(part, path, keys)),
        Expr::Field(of, tests) if of == path => keys.extend(tests.iter().filter_map(Keys::of)),
        Expr::Field(..) | Expr::Or(_) | Expr::Nor(_) => {}
    }
}

/// Returns the narrowest of what is known of a place. Where documents have several values there, each condition may be met by another.
fn keys_at(expr: &Expr, path: &Path, is_multiple: bool) -> Option<Keys> {
    let mut known = Vec::new();
    collect(expr, path, &mut known);
    let points = known.iter().filter_map(|keys| if let Keys::Points(points) = keys { Some(points) } else { None });
    if let Some(points) = points.min_by_key(|points| points.len()) {
        let mut points = points.clone();
        points.sort_unstable();
        points.dedup();
        return Some(Keys::Points(points));
    }
    let end = |last: &[u8]| behind_prefix(last).unwrap_or_else(|| vec![u8::MAX]);
    known.into_iter().reduce(|a, b| match (a, b) {
        (Keys::Range(from, last), Keys::Range(other_from, other_last)) if !is_multiple => {
            let last = if end(&other_last) < end(&last) { other_last } else { last };
            Keys::Range(from.max(other_from), last)
        }
        (first, _) => first,
    })
}

/// Returns how an index could be used; none if it is of no use.
fn way<'a>(view: &'a IndexView, asked: &Asked<'_>) -> Option<IndexWay<'a>> {
    let definition = &view.definition;
    let mut prefixes: Vec<Vec<u8>> = vec![Vec::new()];
    // What stands before each place, as long as there is one way only.
    let mut single: Vec<Vec<u8>> = vec![Vec::new()];
    let mut intervals = None;
    let mut is_bounded = false;
    let mut leaves_out_missing = false;
    for field in &definition.fields {
        let Some(keys) = keys_at(asked.expr, &field.path, view.is_multiple) else { break };
        match &keys {
            Keys::Points(points) => {
                if prefixes.len() * points.len() > INTERVALS_MAX {
                    break;
                }
                prefixes = prefixes
                    .iter()
                    .flat_map(|prefix| points.iter().map(|point| joined(prefix, point, field)))
                    .collect();
                if let [prefix] = &*prefixes {
                    single.push(prefix.clone());
                }
            }
            Keys::Range(from, last) => {
                let (from, last) = if field.descending { (last, from) } else { (from, last) };
                let of = |prefix: &Vec<u8>| Interval {
                    from: joined(prefix, from, field),
                    before: behind_prefix(&joined(prefix, last, field)),
                };
                intervals = Some(prefixes.iter().map(of).collect::<Vec<_>>());
            }
        }
        is_bounded = true;
        leaves_out_missing |= keys.leaves_out_missing();
        if intervals.is_some() {
            break;
        }
    }
    if definition.declaration().sparse && !leaves_out_missing {
        return None;
    }
    let mut intervals = intervals.unwrap_or_else(|| prefixes.into_iter().map(Interval::prefix).collect());
    intervals.retain(|interval| interval.before.as_ref().is_none_or(|before| interval.from < *before));
    intervals.sort_unstable();
    let served = if intervals.len() == 1 && !view.has_always { served(view, asked, &single) } else { None };
    if view.has_always {
        intervals.insert(0, Interval::prefix(vec![ALWAYS]));
    }
    (is_bounded || served.is_some()).then_some(IndexWay { view, intervals, served })
}

fn joined(prefix: &[u8], key: &[u8], field: &IndexField) -> Vec<u8> {
    let mut joined = [prefix, key].concat();
    if field.descending {
        order::invert(joined.get_mut(prefix.len()..).unwrap_or_default());
    }
    joined
}

/// Returns how an index gives the order that is asked for. `single` is what stands before each place of the index for which all documents
/// that are meant have one key, and behind the last of these.
fn served(view: &IndexView, asked: &Asked<'_>, single: &[Vec<u8>]) -> Option<Served> {
    let fields = &*view.definition.fields;
    if asked.sort.is_empty() {
        // All that is left to sort by is the id.
        let prefix = single.get(fields.len())?;
        return Some(Served { prefix: prefix.clone(), is_reverse: false });
    }
    if view.is_multiple {
        return None;
    }
    let at = fields.len().checked_sub(asked.sort.len())?;
    let (prefix, sorted) = (single.get(at)?, fields.get(at..)?);
    let is_same = |(field, key): (&IndexField, &SortKey)| field.path == key.path;
    if !sorted.iter().zip(asked.sort).all(is_same) {
        return None;
    }
    let mut turned = sorted.iter().zip(asked.sort).map(|(field, key)| field.descending != key.descending);
    let is_reverse = turned.next()?;
    turned.all(|other| other == is_reverse).then(|| Served { prefix: prefix.clone(), is_reverse })
}

/// Returns the index that would serve: first what is equal, then what is sorted by, then a range.
fn hint(asked: &Asked<'_>) -> Option<Vec<String>> {
    fn add(hinted: &mut Vec<String>, path: &Path, descending: bool) {
        let text = path.to_string();
        let is_new = !hinted.iter().any(|field| field.trim_start_matches('-') == text);
        if *path != Path::Id && is_new && hinted.len() < limits::INDEX_FIELDS_MAX {
            hinted.push(if descending { format!("-{text}") } else { text });
        }
    }
    fn fields(expr: &Expr, points: bool, hinted: &mut Vec<String>) {
        match expr {
            Expr::And(parts) => parts.iter().for_each(|part| fields(part, points, hinted)),
            Expr::Field(path, tests) => {
                if tests.iter().filter_map(Keys::of).any(|keys| matches!(keys, Keys::Points(_)) == points) {
                    add(hinted, path, false);
                }
            }
            Expr::Or(_) | Expr::Nor(_) => {}
        }
    }
    let mut hinted = Vec::new();
    fields(asked.expr, true, &mut hinted);
    for key in asked.sort {
        add(&mut hinted, &key.path, key.descending);
    }
    if asked.sort.is_empty() {
        fields(asked.expr, false, &mut hinted);
    }
    (!hinted.is_empty()).then_some(hinted)
}
