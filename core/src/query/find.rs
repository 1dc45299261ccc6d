//! Running a query for documents.

use std::collections::BinaryHeap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::index::{Entry, IndexView, Indexed, Interval, behind_prefix};
use super::order;
use super::plan::{self, Asked, IndexWay, Served, Way};
use super::request::Find;
use super::selector::{Selector, Subject};
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
    /// Whether each document is seen wholly or not at all. Otherwise no index is used, which would tell of what is not seen.
    pub sees_whole: bool,
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
    /// By an index.
    Index,
}

impl Plan {
    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Ids => "ids",
            Self::Collection => "collection",
            Self::Index => "index",
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
    pub explain: Explain,
}

/// How documents were looked for, and why so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explain {
    /// By what.
    pub plan: Plan,
    /// The index.
    pub index: Option<String>,
    /// Whether they came in the order that was asked for, so that it was over when there were enough.
    pub in_order: bool,
    /// The places of an index that would serve, where there is none that does.
    pub hint: Option<Vec<String>>,
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

/// Why looking at documents ended, or that it has not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    On,
    /// Enough was found.
    Enough,
    /// The time is over.
    Late,
}

/// Looks at one document after the other.
struct Looker<'a> {
    run: &'a Run<'a>,
    wanted: Wanted,
    per_look: u64,
    looked_at: u64,
    passed: u64,
}

impl<'a> Looker<'a> {
    fn new(run: &'a Run<'a>, views: &Views, wanted: Wanted) -> Self {
        // What has to be made from a history takes its time.
        let per_look = if views.are_past() { 1 } else { PER_LOOK };
        Self { run, wanted, per_look, looked_at: 0, passed: 0 }
    }

    /// Looks at a document, if it is to be counted.
    fn look(
        &mut self,
        view: View,
        counts: impl FnOnce(&Subject<'_>) -> bool,
        take: &mut impl FnMut(View, Candidate, FieldRights) -> Result<bool, QueryRunError>,
    ) -> Result<Look, QueryRunError> {
        self.passed += 1;
        if self.passed.is_multiple_of(self.per_look) && !(self.run.goes_on)() {
            return Ok(Look::Late);
        }
        let rights = (self.run.sight)(&view.doc);
        if rights.are_none() {
            return Ok(Look::On);
        }
        let candidate = Candidate::read(&view, &self.wanted, &rights)?;
        if !counts(&candidate.subject()) {
            return Ok(Look::On);
        }
        self.looked_at += 1;
        Ok(if take(view, candidate, rights)? { Look::On } else { Look::Enough })
    }

    /// Looks at the document of an entry, if it has that entry still.
    fn look_up(
        &mut self,
        views: &Views,
        entry: &Entry,
        counts: impl FnOnce(&Subject<'_>) -> bool,
        take: &mut impl FnMut(View, Candidate, FieldRights) -> Result<bool, QueryRunError>,
    ) -> Result<Look, QueryRunError> {
        let doc = entry.doc().and_then(|doc| doc.parse::<DocId>().ok());
        let view = doc.map(|doc| views.get(&doc)).transpose()?.flatten();
        match view.filter(|view| view.feed == entry.feed) {
            Some(view) => self.look(view, counts, take),
            None => Ok(Look::On),
        }
    }
}

/// Looks at the documents that a selector may mean and hands on those that may be seen, with what was wanted of them, until told to stop.
/// Returns how many were looked at, and whether there was time for that.
pub(super) fn each(
    views: &Views,
    way: &Way<'_>,
    run: &Run<'_>,
    wanted: Wanted,
    mut take: impl FnMut(View, Candidate, FieldRights) -> Result<bool, QueryRunError>,
) -> Result<(u64, bool), QueryRunError> {
    let mut looker = Looker::new(run, views, wanted);
    let mut look = Look::On;
    match way {
        Way::Ids(range) => {
            let mut scan = views.scan(range);
            while look == Look::On {
                let Some(view) = scan.next() else { break };
                look = looker.look(view?, |_| true, &mut take)?;
            }
        }
        Way::Index(way) => {
            way.view.definition.add_wanted(&mut looker.wanted);
            // A document with several entries is looked at at the first of those that are read.
            let is_first = |subject: &Subject<'_>, entry: &Entry| {
                let keys = way.view.definition.keys(subject).keys;
                let mut read = keys.iter().filter(|key| way.intervals.iter().any(|interval| interval.contains(key)));
                read.next().is_some_and(|key| *key == entry.key())
            };
            'all: for interval in &way.intervals {
                for entry in way.view.entries(views.read(), interval) {
                    let entry = entry?;
                    let counts = |subject: &Subject<'_>| !way.view.is_multiple || is_first(subject, &entry);
                    look = looker.look_up(views, &entry, counts, &mut take)?;
                    if look != Look::On {
                        break 'all;
                    }
                }
            }
        }
    }
    Ok((looker.looked_at, look != Look::Late))
}

/// Finds documents.
///
/// Where documents come in the order that is asked for, by id or by an index, a page ends also when the time is over: it may be empty then,
/// and goes on behind its `next`.
///
/// # Errors
/// [`QueryRunError`].
pub fn find(indexed: &Indexed, query: &Find, run: &Run<'_>) -> Result<Found, QueryRunError> {
    let after = match &query.after {
        None => None,
        Some(text) => Some(Place::from_text(text).ok_or(QueryRunError::Place)?),
    };
    if query.is_by_id() && after.as_ref().is_some_and(|place| !place.key.is_empty()) {
        return Err(QueryRunError::Place);
    }
    let sort = if query.is_by_id() { &[][..] } else { &query.sort };
    let expr = query.selector.expr();
    let (way, explain) =
        plan::choose(indexed, &Asked { expr, sort, limit: Some(query.limit), sees_whole: run.sees_whole })?;
    let page = Page { views: &indexed.views, query, run, after };
    let (rows, next, looked_at) = match way {
        Way::Ids(range) if query.is_by_id() => page.by_id(range)?,
        Way::Index(IndexWay { view, intervals, served: Some(served) }) => page.in_order(view, &intervals, &served)?,
        way => page.sorted(&way)?,
    };
    Ok(Found { rows, next, looked_at, explain })
}

/// One page of what is found.
struct Page<'a> {
    views: &'a Views,
    query: &'a Find,
    run: &'a Run<'a>,
    after: Option<Place>,
}

type Rows = (Vec<Row>, Option<Place>, u64);

impl Page<'_> {
    fn place(&self, subject: &Subject<'_>, doc: &DocId) -> Place {
        let key = if self.query.is_by_id() { Vec::new() } else { self.query.sort_key(subject) };
        Place { key, doc: doc.as_str().to_owned() }
    }

    /// Documents as they lie.
    fn by_id(self, mut range: IdRange) -> Result<Rows, QueryRunError> {
        if let Some(place) = self.after.clone() {
            range.after = Some(range.after.map_or(place.doc.clone(), |after| after.max(place.doc)));
        }
        let mut rows = Ordered::new(&self);
        let (looked_at, in_time) =
            each(self.views, &Way::Ids(range), self.run, self.query.looked_at(), |view, candidate, rights| {
                rows.take(view, &candidate, &rights)
            })?;
        rows.finish(looked_at, in_time)
    }

    /// Documents as an index has them.
    fn in_order(self, view: &IndexView, intervals: &[Interval], served: &Served) -> Result<Rows, QueryRunError> {
        let Some(whole) = intervals.first() else { return Ok((Vec::new(), None, 0)) };
        let (mut whole, mut first) = (whole.clone(), None);
        if let Some(place) = &self.after {
            let mut key = place.key.clone();
            if served.is_reverse {
                order::invert(&mut key);
            }
            let key = [&served.prefix[..], &key].concat();
            // Nothing lies between an entry and the same with a zero byte added.
            let behind = [&key[..], place.doc.as_bytes(), &[0]].concat();
            if served.is_reverse {
                first = Some(Interval { from: behind, before: behind_prefix(&key) });
                whole.before = Some(whole.before.map_or(key.clone(), |before| before.min(key)));
            } else {
                whole.from = whole.from.max(behind);
            }
        }
        let mut looker = Looker::new(self.run, self.views, self.query.looked_at());
        let mut rows = Ordered::new(&self);
        let mut look = Look::On;
        let mut read = |interval: &Interval, looker: &mut Looker<'_>| {
            for entry in view.entries(self.views.read(), interval) {
                let mut take =
                    |view: View, candidate: Candidate, rights: FieldRights| rows.take(view, &candidate, &rights);
                let look = looker.look_up(self.views, &entry?, |_| true, &mut take)?;
                if look != Look::On {
                    return Ok(look);
                }
            }
            Ok::<_, QueryRunError>(Look::On)
        };
        if served.is_reverse {
            if let Some(rest) = first {
                look = read(&rest, &mut looker)?;
            }
            // Key by key from the last, and of each the documents by id.
            while look == Look::On {
                let Some(last) = view.last(self.views.read(), &whole)? else { break };
                look = read(&Interval::prefix(last.key().to_vec()), &mut looker)?;
                whole.before = Some(last.key().to_vec());
            }
        } else {
            look = read(&whole, &mut looker)?;
        }
        rows.finish(looker.looked_at, look != Look::Late)
    }

    /// Documents in whatever order they come, of which the first are kept.
    fn sorted(self, way: &Way<'_>) -> Result<Rows, QueryRunError> {
        let query = self.query;
        // The greatest on top, so that it goes when a smaller one comes. One more than asked for tells whether there is a next page.
        let mut best: BinaryHeap<Place> = BinaryHeap::with_capacity(query.limit + 2);
        let (looked_at, in_time) = each(self.views, way, self.run, query.looked_at(), |view, candidate, _| {
            let subject = candidate.subject();
            if query.selector.selects(&subject) {
                let place = self.place(&subject, &view.doc);
                if self.after.as_ref().is_none_or(|after| place > *after) {
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
        if !in_time {
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
            if let Some(view) = self.views.get(&doc)? {
                let rights = (self.run.sight)(&doc);
                let row = shown(view, query, &rights)?;
                bytes += row.json.len();
                rows.push(row);
            }
        }
        Ok((rows, next, looked_at))
    }
}

/// Gathers a page of documents that come in their order.
struct Ordered<'a> {
    page: &'a Page<'a>,
    rows: Vec<Row>,
    bytes: usize,
    is_full: bool,
    /// The last one that was looked at.
    last: Option<Place>,
}

impl<'a> Ordered<'a> {
    fn new(page: &'a Page<'a>) -> Self {
        Self { page, rows: Vec::new(), bytes: 0, is_full: false, last: None }
    }

    /// Takes a document, if it is meant. Returns whether there is room for more.
    fn take(&mut self, view: View, candidate: &Candidate, rights: &FieldRights) -> Result<bool, QueryRunError> {
        let query = self.page.query;
        let subject = candidate.subject();
        let place = self.page.place(&subject, &view.doc);
        if query.selector.selects(&subject) {
            if self.rows.len() == query.limit || self.bytes >= PAGE_BYTES_MAX {
                self.is_full = true;
                return Ok(false);
            }
            let row = shown(view, query, rights)?;
            self.bytes += row.json.len();
            self.rows.push(row);
        }
        self.last = Some(place);
        Ok(true)
    }

    fn finish(self, looked_at: u64, in_time: bool) -> Result<Rows, QueryRunError> {
        let next = self.last.filter(|_| self.is_full || !in_time);
        if next.is_none() && !in_time {
            // Not one document may be seen of what there was time for: there is no place to go on from.
            return Err(QueryRunError::TooLong { looked_at });
        }
        Ok((self.rows, next, looked_at))
    }
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
