//! Running a query for documents.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::path::Path;
use super::request::Find;
use super::selector::{Expr, Selector, Subject, Test};
use crate::document::json::{self, Bounds, Value, Wanted};
use crate::document::redact::redact;
use crate::hlc::Hlc;
use crate::id::{ChangeHash, DocId};
use crate::op::FieldRights;
use crate::replica::{IdRange, ReadError, View, Views};

/// Bytes of the documents of one page, beyond which it ends.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Documents between two looks at whether the query has taken long enough.
const PER_LOOK: u64 = 64;

/// What a run is told from outside.
pub struct Run<'a> {
    /// Returns which fields of a document may be seen by whoever asks.
    pub sight: &'a dyn Fn(&DocId) -> FieldRights,
    /// Returns whether there is time left.
    pub goes_on: &'a dyn Fn() -> bool,
}

/// Why a query came to no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryRunError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// `after` is none of this query.
    #[error("`after` is not from an answer to this query")]
    Place,
    /// The time is over before all documents were looked at.
    #[error("the query has taken too long: {looked_at} documents were looked at, and there are more")]
    TooLong {
        /// Documents looked at.
        looked_at: u64,
    },
    /// More groups, or larger ones, than are kept.
    #[error("{0}")]
    TooMuch(String),
}

/// A document that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its id.
    pub doc: DocId,
    /// Its version.
    pub heads: Vec<ChangeHash>,
    /// When it was changed.
    pub modified: Hlc,
    /// What is shown of it, as canonical JSON text.
    pub json: Bytes,
}

/// How documents were found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// By the id that the selector names.
    Id,
    /// All documents were looked at whose ids the selector allows.
    Ids,
    /// All documents of the collection were looked at.
    Collection,
}

impl Plan {
    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Ids => "ids",
            Self::Collection => "collection",
        }
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The documents, in their order.
    pub rows: Vec<Row>,
    /// Where the next page begins; none at the end.
    pub next: Option<Place>,
    /// Documents that were looked at, of those that may be seen.
    pub looked_at: u64,
    /// How.
    pub plan: Plan,
}

/// Where a page begins: behind this sort key and id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    key: Vec<u8>,
    doc: String,
}

impl Place {
    /// Returns it as text for clients.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = u16::try_from(self.key.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        bytes.extend(&self.key);
        bytes.extend(self.doc.as_bytes());
        format!("q{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a place.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        /// More than the keys and the id of any query take.
        const TEXT_BYTES_MAX: usize = 8 << 10;
        let text = text.strip_prefix('q').filter(|text| text.len() <= TEXT_BYTES_MAX)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (len, rest) = bytes.split_first_chunk()?;
        let (key, doc) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        Some(Self { key: key.to_vec(), doc: String::from_utf8(doc.to_vec()).ok()? })
    }
}

/// Says of documents one by one whether they are meant, as far as somebody may see them.
#[derive(Clone, Debug)]
pub struct Filter {
    selector: Selector,
    wanted: Wanted,
}

impl Filter {
    /// Those that a selector means.
    #[must_use]
    pub fn new(selector: Selector) -> Self {
        let mut wanted = Wanted::default();
        selector.add_wanted(&mut wanted);
        Self { selector, wanted }
    }

    /// Whether all documents pass.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.selector.is_all()
    }

    /// Returns whether a document is meant. One that is deleted has nothing by which to tell, and may have been.
    ///
    /// # Errors
    /// [`ReadError`] if it is damaged.
    pub fn passes(&self, view: &View, rights: &FieldRights) -> Result<bool, ReadError> {
        if view.deleted || self.selector.is_all() {
            return Ok(true);
        }
        Ok(self.selector.selects(&Candidate::read(view, &self.wanted, rights)?.subject()))
    }
}

/// A document that is being looked at.
pub(super) struct Candidate {
    id: Value,
    modified: Value,
    content: Value,
}

impl Candidate {
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject { id: &self.id, modified: &self.modified, content: &self.content }
    }

    /// Reads what is wanted of a document, as far as it may be seen.
    pub(super) fn read(view: &View, wanted: &Wanted, rights: &FieldRights) -> Result<Self, ReadError> {
        let content = if !rights.are_all() {
            redact(whole(view)?, rights)
        } else if wanted.is_nothing() {
            Value::Null
        } else {
            json::extract(&view.json, wanted).map_err(|error| damaged(view, &error))?
        };
        // 48 bits of milliseconds are a time that can be written.
        let modified = i64::try_from(view.modified.millis()).ok().and_then(json::timestamp_to_text).unwrap_or_default();
        Ok(Self { id: Value::String(view.doc.as_str().to_owned()), modified: Value::String(modified), content })
    }
}

fn whole(view: &View) -> Result<Value, ReadError> {
    json::parse_within(&view.json, Bounds::STORED).map_err(|error| damaged(view, &error))
}

fn damaged(view: &View, error: &json::ParseError) -> ReadError {
    let what = format!("document {}: {error}", view.doc);
    ReadError::Damaged { keyspace: crate::store::Keyspace::Views, what }
}

/// Returns how the documents are looked for that a selector may mean, and which ids they have.
pub(super) fn plan(expr: &Expr) -> (Plan, IdRange) {
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

/// Looks at the documents that a selector may mean and hands on those that it does, with what was wanted of them, until told to stop.
/// Returns how many were looked at, and whether that was all.
pub(super) fn each(
    views: &Views,
    range: &IdRange,
    run: &Run<'_>,
    wanted: &Wanted,
    mut take: impl FnMut(View, Candidate, FieldRights) -> Result<bool, QueryRunError>,
) -> Result<(u64, bool), QueryRunError> {
    let (mut looked_at, mut passed) = (0, 0_u64);
    for view in views.scan(range) {
        let view = view?;
        passed += 1;
        if passed.is_multiple_of(PER_LOOK) && !(run.goes_on)() {
            return Ok((looked_at, false));
        }
        let rights = (run.sight)(&view.doc);
        if rights.are_none() {
            continue;
        }
        looked_at += 1;
        let candidate = Candidate::read(&view, wanted, &rights)?;
        if !take(view, candidate, rights)? {
            break;
        }
    }
    Ok((looked_at, true))
}

/// Finds documents.
///
/// Where documents come by id, a page ends also when the time is over: it may be empty then, and goes on behind its `next`.
///
/// # Errors
/// [`QueryRunError`].
pub fn find(views: &Views, query: &Find, run: &Run<'_>) -> Result<Found, QueryRunError> {
    let after = match &query.after {
        None => None,
        Some(text) => Some(Place::from_text(text).ok_or(QueryRunError::Place)?),
    };
    let planned = plan(query.selector.expr());
    if query.is_by_id() { by_id(views, query, run, planned, after) } else { sorted(views, query, run, planned, after) }
}

fn by_id(
    views: &Views,
    query: &Find,
    run: &Run<'_>,
    (plan, mut range): (Plan, IdRange),
    after: Option<Place>,
) -> Result<Found, QueryRunError> {
    if let Some(place) = after {
        if !place.key.is_empty() {
            return Err(QueryRunError::Place);
        }
        range.after = Some(range.after.map_or(place.doc.clone(), |after| after.max(place.doc)));
    }
    let wanted = query.looked_at();
    let (mut rows, mut bytes, mut full, mut last) = (Vec::new(), 0, false, None);
    let (looked_at, whole) = each(views, &range, run, &wanted, |view, candidate, rights| {
        let doc = view.doc.clone();
        if query.selector.selects(&candidate.subject()) {
            if rows.len() == query.limit || bytes >= PAGE_BYTES_MAX {
                full = true;
                return Ok(false);
            }
            let row = shown(view, query, &rights)?;
            bytes += row.json.len();
            rows.push(row);
        }
        last = Some(doc);
        Ok(true)
    })?;
    let next = last.filter(|_| full || !whole).map(|doc| Place { key: Vec::new(), doc: doc.as_str().to_owned() });
    if next.is_none() && !whole {
        // Not one document may be seen of what there was time for: there is no place to go on from.
        return Err(QueryRunError::TooLong { looked_at });
    }
    Ok(Found { rows, next, looked_at, plan })
}

fn sorted(
    views: &Views,
    query: &Find,
    run: &Run<'_>,
    (plan, range): (Plan, IdRange),
    after: Option<Place>,
) -> Result<Found, QueryRunError> {
    // The greatest on top, so that it goes when a smaller one comes. One more than asked for tells whether there is a next page.
    let mut best: BinaryHeap<Place> = BinaryHeap::with_capacity(query.limit + 2);
    let (looked_at, whole) = each(views, &range, run, &query.looked_at(), |view, candidate, _| {
        let subject = candidate.subject();
        if query.selector.selects(&subject) {
            let place = Place { key: query.sort_key(&subject), doc: view.doc.as_str().to_owned() };
            if after.as_ref().is_none_or(|after| place > *after) {
                let is_better = best.len() <= query.limit || best.peek().is_some_and(|worst| place < *worst);
                if is_better {
                    best.push(place);
                    if best.len() > query.limit + 1 {
                        best.pop();
                    }
                }
            }
        }
        Ok(true)
    })?;
    if !whole {
        return Err(QueryRunError::TooLong { looked_at });
    }
    let places = best.into_sorted_vec();
    let (mut rows, mut bytes, mut next) = (Vec::new(), 0, None);
    for (n, place) in places.iter().enumerate() {
        if n == query.limit || bytes >= PAGE_BYTES_MAX {
            next = n.checked_sub(1).and_then(|before| places.get(before)).cloned();
            break;
        }
        // It was there a moment ago, in the same snapshot.
        let Some(doc) = place.doc.parse().ok() else { continue };
        if let Some(view) = views.get(&doc)? {
            let rights = (run.sight)(&doc);
            let row = shown(view, query, &rights)?;
            bytes += row.json.len();
            rows.push(row);
        }
    }
    Ok(Found { rows, next, looked_at, plan })
}

/// Returns a document as it is shown.
fn shown(view: View, query: &Find, rights: &FieldRights) -> Result<Row, ReadError> {
    let json = if rights.are_all() && query.fields.is_whole() {
        view.json.clone()
    } else {
        let value = if rights.are_all() {
            json::extract(&view.json, &query.fields).map_err(|error| damaged(&view, &error))?
        } else {
            redact(whole(&view)?, rights)
        };
        let value = query.fields.project(value).unwrap_or_else(|| Value::Map(std::collections::BTreeMap::new()));
        Bytes::from(json::render_value(&value))
    };
    Ok(Row { doc: view.doc, heads: view.heads, modified: view.modified, json })
}
