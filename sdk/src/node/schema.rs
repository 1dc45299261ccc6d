//! Schemas of collections: checked before they are set, and the documents that have not the form.

use std::collections::BTreeMap;

use folkmoot_core::audit::AuditAction;
use folkmoot_core::document::json::Pointer;
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::limits;
use folkmoot_core::op::{ANY, FieldPath};
use folkmoot_core::replica::{DocKey, ReadError, Reader, Replica, SchemaCheck, View};
use folkmoot_core::schema::{self, Compiled, Findings, SchemaError, SchemaText};

use super::audit::Who;
use super::convert::read_error;
use super::query::Sight;
use super::state::to_f64;
use super::{Inner, lock};
use crate::api::{
    CollectionSettings, Cursor, Error, ErrorCode, Heads, InvalidDocument, InvalidPage, InvalidQuery, Result,
    SchemaProgress, Violation, Violations,
};

/// Flagged documents that one call looks at, whether or not the caller may see them, and bytes of their text.
const LOOKED_AT_MAX: usize = 10_000;
const BYTES_MAX: usize = 16 << 20;
/// What is wrong is told in words up to so many times; the rest is in the list.
const IN_WORDS_MAX: usize = 3;

fn unusable(error: SchemaError) -> Error {
    let refused = Error::new(ErrorCode::InvalidSettings, format!("the schema cannot be used: {}", error.reason))
        .pointer(format!("/schema{}", error.pointer));
    match error.hint {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}

/// Checks what settings say of shards, types and the end of documents.
///
/// # Errors
/// [`ErrorCode::InvalidSettings`], with the place.
pub(super) fn check_settings(settings: &CollectionSettings) -> Result<()> {
    let wrong = |what: String, place: &[&str]| {
        let mut pointer = Pointer::ROOT;
        place.iter().for_each(|step| pointer.push(*step));
        Err(Error::new(ErrorCode::InvalidSettings, what).pointer(pointer.to_string()))
    };
    if settings.shards == 0 || settings.shards > limits::SHARDS_MAX {
        return wrong(format!("a collection has 1 to {} shards", limits::SHARDS_MAX), &["shards"]);
    }
    if settings.types.len() > limits::FIELD_TYPES_MAX {
        return wrong(format!("at most {} fields have declared types", limits::FIELD_TYPES_MAX), &["types"]);
    }
    for pointer in settings.types.keys() {
        if let Err(error) = pointer.parse::<FieldPath>() {
            return wrong(format!("{pointer:?}: {error}"), &["types", pointer]);
        }
        if pointer.len() > limits::ACT_TEXT_BYTES_MAX {
            let what = format!("the pointer of a declared type has at most {} bytes", limits::ACT_TEXT_BYTES_MAX);
            return wrong(what, &["types", pointer]);
        }
    }
    if let Some(expires) =
        settings.expires.as_ref().filter(|expires| expires.field.steps().iter().any(|step| step == ANY))
    {
        return wrong(format!("{} is not one field: a document has one end", expires.field), &["expires", "field"]);
    }
    Ok(())
}

fn violation(found: schema::Violation) -> Violation {
    Violation {
        pointer: found.pointer,
        keyword: found.keyword,
        schema: found.schema,
        detail: found.reason,
        allowed: found.allowed.and_then(|text| serde_json::from_str(&text).ok()),
    }
}

/// Returns the error of a document that would not have the form.
pub(super) fn violated(doc: &DocId, findings: Findings, withheld: usize) -> Error {
    let Findings { violations, more } = findings;
    let items: Vec<Violation> = violations.into_iter().map(violation).collect();
    let place = |found: &Violation| match found.pointer.as_str() {
        "" => found.detail.clone(),
        pointer => format!("{pointer}: {}", found.detail),
    };
    let mut words: Vec<String> = items.iter().take(IN_WORDS_MAX).map(place).collect();
    if items.len() > IN_WORDS_MAX {
        words.push(format!("{} more", items.len() - IN_WORDS_MAX));
    }
    if withheld > 0 {
        words.push(format!("{withheld} at places that you may not read"));
    }
    let detail = format!("document {doc} would not have the form that the schema asks: {}", words.join("; "));
    metrics::counter!("folkmoot_schema_refused_total").increment(1);
    let pointer = items.first().map(|first| first.pointer.clone());
    let error = Error::new(ErrorCode::SchemaViolation, detail)
        .hint("the collection's settings have the schema")
        .violations(Violations { items, withheld, more });
    match pointer {
        Some(pointer) => error.pointer(pointer),
        None => error,
    }
}

/// Collections that metrics name; the others are counted together.
const NAMED_MAX: usize = 100;

/// Returns how many documents have not the form, by collection, and how many collections are being looked through.
pub(super) fn figures(replica: &Replica) -> (BTreeMap<String, u64>, u64) {
    let (mut invalid, mut running) = (BTreeMap::new(), 0);
    for (index, (name, check)) in replica.schema_checks().enumerate() {
        let name = if index < NAMED_MAX { name.to_string() } else { "*".to_owned() };
        *invalid.entry(name).or_default() += check.invalid;
        running += u64::from(!check.done);
    }
    (invalid, running)
}

/// Sets the metrics of these figures.
pub(super) fn tell((invalid, running): &(BTreeMap<String, u64>, u64)) {
    for (name, count) in invalid {
        metrics::gauge!("folkmoot_documents_invalid", "collection" => name.clone()).set(to_f64(*count));
    }
    metrics::gauge!("folkmoot_schema_checks_running").set(to_f64(*running));
}

/// Returns how far a collection is.
pub(super) fn progress(check: &SchemaCheck) -> SchemaProgress {
    SchemaProgress { seen: check.seen, invalid: check.invalid, complete: check.done }
}

/// Holds a document that is flagged against the schema, as far as somebody may see it.
fn invalid_now(schema: &Compiled, view: View, sight: &Sight) -> Option<InvalidDocument> {
    let schema = (**schema).as_ref().ok()?;
    let rights = (sight.of)(&view.doc);
    if rights.are_none() {
        return None;
    }
    let (found, _) = schema.check(&view.json).seen_by(&rights);
    if found.are_none() {
        return None;
    }
    let violations = found.violations.into_iter().map(violation).collect();
    Some(InvalidDocument { id: view.doc, heads: Heads::new(view.heads), violations, more: found.more })
}

fn page(
    reader: &Reader,
    collection: &CollectionName,
    schema: &Compiled,
    sight: &Sight,
    query: (Option<DocId>, usize),
) -> Result<(Vec<InvalidDocument>, Option<DocId>), ReadError> {
    let (mut after, limit) = query;
    let (mut items, mut bytes) = (Vec::new(), 0);
    let mut left = LOOKED_AT_MAX;
    loop {
        let ids = reader.invalid(collection, after.as_ref(), left.min(InvalidQuery::LIMIT_MAX))?;
        if ids.is_empty() {
            return Ok((items, None));
        }
        for doc in ids {
            if items.len() >= limit || bytes >= BYTES_MAX || left == 0 {
                return Ok((items, after));
            }
            left -= 1;
            let key = DocKey { collection: collection.clone(), doc };
            if let Some(view) = reader.get(&key)?.filter(|view| !view.deleted) {
                bytes += view.json.len();
                items.extend(invalid_now(schema, view, sight));
            }
            after = Some(key.doc);
        }
        if left == 0 {
            return Ok((items, after));
        }
    }
}

impl Inner {
    /// Returns the schema of settings as it goes into the control log.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidSettings`], with the place in the settings.
    pub(super) async fn schema_text(&self, settings: &CollectionSettings) -> Result<Option<SchemaText>> {
        let Some(given) = settings.schema.clone() else { return Ok(None) };
        let checked = self.on_large_stack(move |_| SchemaText::from_json(given.to_string().as_bytes()));
        checked.await?.map(Some).map_err(unusable)
    }

    /// Returns how far the collections that have or had a schema are held against it.
    pub(super) fn schema_checks(&self) -> Result<BTreeMap<CollectionName, SchemaCheck>> {
        self.reader.schema_checks().map_err(read_error)
    }

    pub(super) async fn invalid_documents(
        &self,
        who: Option<Who>,
        sight: Sight,
        collection: &CollectionName,
        query: &InvalidQuery,
    ) -> Result<InvalidPage> {
        self.collection(collection).await?;
        let after = query.after.as_ref().map(Cursor::document).transpose()?;
        let name = collection.clone();
        let text = self.authority(move |authority| authority.collection(&name).and_then(|known| known.config.schema));
        let Some(text) = text.await? else { return Ok(InvalidPage { items: Vec::new(), complete: true, next: None }) };
        let (name, schemas, limit) = (collection.clone(), self.schemas.clone(), query.limit());
        let read = self.on_large_stack(move |reader| {
            let schema = lock(&schemas).get(&text);
            if let Err(error) = &*schema {
                return Err(unusable(error.clone()));
            }
            page(reader, &name, &schema, &sight, (after, limit)).map_err(read_error)
        });
        let (items, next) = read.await??;
        let complete = self.schema_checks()?.get(collection).is_some_and(|check| check.done);
        self.note_read(who, AuditAction::Query, collection, items.iter().map(|item| &item.id), || "invalid".to_owned());
        Ok(InvalidPage { items, complete, next: next.map(|doc| Cursor::after_document(&doc)) })
    }
}
