//! Unique constraints of collections: checked before they are set, and the documents that share values all the same.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_core::audit::AuditAction;
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::limits::{UNIQUE_FIELDS_MAX, UNIQUE_MAX};
use folkmoot_core::op::{ANY, FieldPath, Unique};
use folkmoot_core::replica::{Duplicates, ReadError, Replica, UniqueCheck, View};

use super::Inner;
use super::audit::Who;
use super::convert::read_error;
use super::query::Sight;
use super::state::to_f64;
use crate::api::{
    CollectionSettings, Cursor, DuplicateDocument, DuplicatesPage, DuplicatesQuery, Error, ErrorCode, Heads, Result,
    SharedValues, Taken, UniqueProgress,
};

/// Duplicates that one call looks at, whether or not the caller may see them, and bytes of their text.
const LOOKED_AT_MAX: usize = 10_000;
const BYTES_MAX: usize = 16 << 20;

/// Returns the unique constraints of settings as they go into the control log.
///
/// # Errors
/// [`ErrorCode::InvalidSettings`], with the place.
pub(super) fn constraints(settings: &CollectionSettings) -> Result<Vec<Unique>> {
    let wrong = |what: String, pointer: String| Error::new(ErrorCode::InvalidSettings, what).pointer(pointer);
    if settings.unique.len() > UNIQUE_MAX {
        let what = format!("a collection has at most {UNIQUE_MAX} unique constraints, not {}", settings.unique.len());
        return Err(wrong(what, "/unique".to_owned()));
    }
    let mut all = BTreeSet::new();
    for (index, given) in settings.unique.iter().enumerate() {
        let place = format!("/unique/{index}");
        if !(1..=UNIQUE_FIELDS_MAX).contains(&given.len()) {
            let what = format!("a unique constraint has 1 to {UNIQUE_FIELDS_MAX} fields, not {}", given.len());
            return Err(wrong(what, place));
        }
        let mut fields = BTreeSet::new();
        for (at, text) in given.iter().enumerate() {
            let at = format!("{place}/{at}");
            let field = text.parse::<FieldPath>().map_err(|error| wrong(format!("{text:?}: {error}"), at.clone()))?;
            if field.steps().iter().any(|step| step == ANY) {
                return Err(wrong(format!("{field} is not one field"), at));
            }
            if !fields.insert(field) {
                return Err(wrong(format!("{text} comes twice in one unique constraint"), at));
            }
        }
        if !all.insert(Unique(fields.into_iter().collect())) {
            return Err(wrong("the same unique constraint comes twice".to_owned(), place));
        }
    }
    Ok(all.into_iter().collect())
}

/// Returns the error of a document that would show what another one shows.
pub(super) fn taken(doc: &DocId, fields: Vec<FieldPath>, by: Option<DocId>) -> Error {
    metrics::counter!("folkmoot_unique_refused_total").increment(1);
    let names: Vec<String> = fields.iter().map(ToString::to_string).collect();
    let whose = by.as_ref().map_or_else(|| "another document".to_owned(), |by| format!("document {by}"));
    let detail = format!("document {doc} would have the same {} as {whose}", names.join(" and "));
    let pointer = names.into_iter().next().unwrap_or_default();
    Error::new(ErrorCode::UniqueViolation, detail)
        .hint("the collection's settings say which values no two documents share")
        .pointer(pointer)
        .taken(Taken { fields, by })
}

/// Collections that metrics name; the others are counted together.
const NAMED_MAX: usize = 100;

/// Returns how many duplicates there are, by collection, and how many collections are being looked through.
pub(super) fn figures(replica: &Replica) -> (BTreeMap<String, u64>, u64) {
    let (mut duplicates, mut running) = (BTreeMap::new(), 0);
    for (index, (name, check)) in replica.unique_checks().enumerate() {
        let name = if index < NAMED_MAX { name.to_string() } else { "*".to_owned() };
        *duplicates.entry(name).or_default() += check.duplicates;
        running += u64::from(!check.done);
    }
    (duplicates, running)
}

/// Sets the metrics of these figures.
pub(super) fn tell((duplicates, running): &(BTreeMap<String, u64>, u64)) {
    for (name, count) in duplicates {
        metrics::gauge!("folkmoot_documents_duplicate", "collection" => name.clone()).set(to_f64(*count));
    }
    metrics::gauge!("folkmoot_unique_checks_running").set(to_f64(*running));
}

/// Returns how far a collection is.
pub(super) fn progress(check: &UniqueCheck) -> UniqueProgress {
    let UniqueCheck { seen, duplicates, contested, done, .. } = check;
    UniqueProgress { seen: *seen, duplicates: *duplicates, contested: *contested, complete: *done }
}

/// Returns what a duplicate shares, as far as somebody may see it: in it, and in the document that wins.
fn duplicate_now(
    duplicates: &Duplicates,
    view: View,
    sight: &Sight,
) -> std::result::Result<Option<DuplicateDocument>, ReadError> {
    let sees = |doc: &DocId, fields: &[FieldPath]| {
        let rights = (sight.of)(doc);
        fields.iter().all(|field| rights.show_scalar(field.steps()))
    };
    let shared = duplicates.shared(&view)?.into_iter();
    let seen = shared.filter(|(Unique(fields), winner)| sees(&view.doc, fields) && sees(winner, fields));
    let shares: Vec<_> = seen.map(|(Unique(fields), winner)| SharedValues { fields, winner }).collect();
    let item = DuplicateDocument { id: view.doc, heads: Heads::new(view.heads), shares };
    Ok(Some(item).filter(|item| !item.shares.is_empty()))
}

fn page(
    duplicates: &Duplicates,
    sight: &Sight,
    (mut after, limit): (Option<DocId>, usize),
) -> std::result::Result<(Vec<DuplicateDocument>, Option<DocId>), ReadError> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    let mut left = LOOKED_AT_MAX;
    while left > 0 {
        let ids = duplicates.ids(after.as_ref(), left.min(DuplicatesQuery::LIMIT_MAX))?;
        if ids.is_empty() {
            return Ok((items, None));
        }
        for doc in ids {
            if items.len() >= limit || bytes >= BYTES_MAX {
                return Ok((items, after));
            }
            left -= 1;
            if let Some(view) = duplicates.get(&doc)? {
                bytes += view.json.len();
                items.extend(duplicate_now(duplicates, view, sight)?);
            }
            after = Some(doc);
        }
    }
    Ok((items, after))
}

impl Inner {
    /// Returns how far the collections that have or had unique constraints are held against them.
    pub(super) fn unique_checks(&self) -> Result<BTreeMap<CollectionName, UniqueCheck>> {
        self.reader.unique_checks().map_err(read_error)
    }

    pub(super) async fn duplicate_documents(
        &self,
        who: Option<Who>,
        sight: Sight,
        collection: &CollectionName,
        query: &DuplicatesQuery,
    ) -> Result<DuplicatesPage> {
        self.collection(collection).await?;
        let after = query.after.as_ref().map(Cursor::document).transpose()?;
        let name = collection.clone();
        let known = self.authority(move |authority| authority.collection(&name).map(|known| known.config.unique));
        let unique = known.await?.unwrap_or_default();
        if unique.is_empty() {
            return Ok(DuplicatesPage { items: Vec::new(), complete: true, next: None });
        }
        let (name, limit) = (collection.clone(), query.limit());
        let read = self.read_on_thread(move |reader| {
            let duplicates = reader.duplicates(&name, unique)?;
            page(&duplicates, &sight, (after, limit))
        });
        let (items, next) = read.await?.map_err(read_error)?;
        let complete = self.unique_checks()?.get(collection).is_some_and(|check| check.done);
        let ids = items.iter().map(|item| &item.id);
        self.note_read(who, AuditAction::Query, collection, ids, || "duplicates".to_owned());
        Ok(DuplicatesPage { items, complete, next: next.map(|doc| Cursor::after_document(&doc)) })
    }
}
