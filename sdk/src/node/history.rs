//! What documents were.

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::audit::AuditAction;
use folkmoot_core::document::json;
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{ChangeHash, CollectionName, DocId, OpId};
use folkmoot_core::limits::AUTOMERGE_GIVEN_BYTES_MAX;
use folkmoot_core::op::{FieldRights, WriteAction};
use folkmoot_core::replica::{DocKey, HistoryEntry, Past, Version};

use super::audit::Who;
use super::convert::{erased, not_found, read_error};
use super::database::Writer;
use super::{Inner, Node};
use crate::api::{
    At, Cursor, Diff, Document, Edit, Error, ErrorCode, Heads, Histories, HistoryItem, HistoryPage, HistoryQuery,
    Result, Timestamp, WriteOptions, WriteOutcome,
};

/// Rights that all let see what is shown; none where everything may be seen.
pub(super) type Rights = Vec<FieldRights>;

/// A cursor of a history begins with this; then the number of the entry, counted from the earliest.
const CURSOR: char = 'h';

fn unknown(id: &DocId) -> Error {
    Error::new(ErrorCode::UnknownHeads, format!("document {id} never had this version, or it is not here yet"))
        .hint("`folkmoot history` shows its versions")
}

fn plain(value: &json::Value) -> Result<serde_json::Value> {
    serde_json::from_str(&json::render_value(value))
        .map_err(|error| Error::new(ErrorCode::Internal, "render a value").with_source(error))
}

const fn name_of(action: WriteAction) -> &'static str {
    match action {
        WriteAction::Create => "create",
        WriteAction::Update => "update",
        WriteAction::Delete => "delete",
    }
}

/// Returns the version that is meant.
fn version(past: &Past, id: &DocId, at: &At) -> Result<Version> {
    match at {
        // To the end of the millisecond.
        At::Time(time) => Ok(past.at(Hlc::new(time.millis(), u16::MAX))),
        At::Heads(heads) if past.knows(heads.as_slice()) => {
            let of = |entry: &&HistoryEntry| entry.change.is_some_and(|change| heads.as_slice().contains(&change));
            let modified = past.entries().iter().filter(of).map(|entry| entry.hlc).max().unwrap_or(Hlc::ZERO);
            Ok(Version { heads: heads.as_slice().to_vec(), deleted: false, modified })
        }
        At::Heads(_) => Err(unknown(id)),
    }
}

/// One entry, with its patch.
struct Told {
    entry: HistoryEntry,
    patch: Vec<serde_json::Value>,
}

fn page(past: &Past, query: &HistoryQuery, rights: &[FieldRights]) -> Result<(Vec<Told>, Option<Cursor>)> {
    let entries = past.entries();
    let end = match &query.after {
        None => entries.len(),
        Some(cursor) => cursor
            .as_str()
            .strip_prefix(CURSOR)
            .and_then(|number| number.parse().ok())
            .filter(|end| *end <= entries.len())
            .ok_or_else(|| {
                Error::new(ErrorCode::InvalidCursor, "`after` is not a cursor of this history")
                    .hint("pass the `next` of the page before, as it is")
            })?,
    };
    let start = end.saturating_sub(query.limit());
    let told = entries.get(start..end).unwrap_or_default().iter().rev().map(|entry| {
        let patch = past.patch_of(entry, rights).unwrap_or_default();
        Ok(Told { entry: entry.clone(), patch: patch.iter().map(plain).collect::<Result<_>>()? })
    });
    let next = (start > 0).then(|| Cursor::from_text(&format!("{CURSOR}{start}")));
    Ok((told.collect::<Result<_>>()?, next))
}

impl Inner {
    /// Loads a document with its past and returns what `look` makes of it.
    async fn look_back<T: Send + 'static>(
        &self,
        collection: &CollectionName,
        id: &DocId,
        look: impl FnOnce(&Past) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let key = DocKey { collection: collection.clone(), doc: id.clone() };
        match self.reader.get(&key).map_err(read_error)? {
            Some(view) if view.erased => return Err(erased(id)),
            Some(_) => {}
            None => return Err(not_found(id)),
        }
        let (cluster, id) = (self.record.cluster, id.clone());
        self.on_large_stack(move |reader| match reader.past(&key, cluster).map_err(read_error)? {
            Some(past) => look(&past),
            None => Err(not_found(&id)),
        })
        .await?
    }

    /// Returns the names of those to whom these certificates were given.
    async fn names_of_holders(&self, certificates: Vec<OpId>) -> Result<Vec<String>> {
        let look = self.core.look(move |replica, _| {
            let authority = replica.authority();
            let name = |of: &OpId| authority.principal_of(*of).and_then(|id| authority.name_of(id)).unwrap_or_default();
            certificates.iter().map(|of| name(of).to_owned()).collect()
        });
        look.await.map_err(|_| Error::new(ErrorCode::ShuttingDown, "the node is shutting down"))
    }

    pub(super) async fn history(
        &self,
        who: Option<Who>,
        rights: Rights,
        (collection, id): (&CollectionName, &DocId),
        query: &HistoryQuery,
    ) -> Result<HistoryPage> {
        let asked = query.clone();
        let (told, next) = self.look_back(collection, id, move |past| page(past, &asked, &rights)).await?;
        self.note_read(who, AuditAction::History, collection, [id], String::new);
        let through = self.names_of_holders(told.iter().map(|told| told.entry.certificate).collect()).await?;
        let item = |(Told { entry, patch }, through): (Told, String)| HistoryItem {
            change: entry.change,
            action: name_of(entry.action).to_owned(),
            time: Timestamp::from_millis(entry.hlc.millis()),
            principal: entry.principal,
            name: self.name_of_principal(entry.principal),
            author: entry.author,
            through,
            op: entry.op,
            transaction: entry.transaction,
            patch,
        };
        Ok(HistoryPage { items: told.into_iter().zip(through).map(item).collect(), next })
    }

    pub(super) async fn diff(
        &self,
        who: Option<Who>,
        rights: Rights,
        (collection, id): (&CollectionName, &DocId),
        from: &At,
        to: Option<&At>,
    ) -> Result<Diff> {
        let (of, from, to) = (id.clone(), from.clone(), to.cloned());
        let diff = self
            .look_back(collection, id, move |past| {
                let from = version(past, &of, &from)?;
                let to = to.map_or_else(|| Ok(past.now()), |to| version(past, &of, &to))?;
                let content = |version: &Version| if version.deleted { Vec::new() } else { version.heads.clone() };
                let patch = past.diff(&content(&from), &content(&to), &rights).ok_or_else(|| unknown(&of))?;
                let patch = patch.iter().map(plain).collect::<Result<_>>()?;
                Ok(Diff { from: Heads::new(from.heads), to: Heads::new(to.heads), patch })
            })
            .await?;
        self.note_read(who, AuditAction::History, collection, [id], String::new);
        Ok(diff)
    }

    /// Returns a document as it was.
    pub(super) async fn get_at(
        &self,
        who: Option<Who>,
        rights: Rights,
        (collection, id): (&CollectionName, &DocId),
        at: &At,
    ) -> Result<Document> {
        let (of, at) = (id.clone(), at.clone());
        let (version, json) = self
            .look_back(collection, id, move |past| {
                let version = version(past, &of, &at)?;
                if version.deleted || version.heads.is_empty() {
                    return Err(Error::new(ErrorCode::DocumentNotFound, format!("there was no document {of} then")));
                }
                let content = past.content(&version.heads, &rights).ok_or_else(|| unknown(&of))?;
                Ok((version, Bytes::from(json::render_value(&content))))
            })
            .await?;
        self.note_read(who, AuditAction::History, collection, [id], String::new);
        Ok(Document {
            collection: collection.clone(),
            id: id.clone(),
            json,
            heads: Heads::new(version.heads),
            modified: Timestamp::from_millis(version.modified.millis()),
            stale: false,
            session: None,
        })
    }

    /// Returns a document as a file of Automerge. That the caller may see all of it was checked.
    pub(super) async fn automerge(
        &self,
        who: Option<Who>,
        (collection, id): (&CollectionName, &DocId),
    ) -> Result<Bytes> {
        let of = id.clone();
        let file = self
            .look_back(collection, id, move |past| {
                if past.now().deleted {
                    return Err(not_found(&of));
                }
                past.file().map_err(|error| Error::new(ErrorCode::Internal, format!("save document {of}: {error}")))
            })
            .await?;
        if file.len() > AUTOMERGE_GIVEN_BYTES_MAX {
            let error = format!(
                "document {id} and its history take {} bytes as a file; at most {AUTOMERGE_GIVEN_BYTES_MAX} are given",
                file.len()
            );
            return Err(Error::new(ErrorCode::DocumentTooLarge, error));
        }
        self.note_read(who, AuditAction::History, collection, [id], String::new);
        Ok(file.into())
    }

    /// Returns what is to be written to bring a version back.
    async fn restoring(
        &self,
        rights: Rights,
        (collection, id): (&CollectionName, &DocId),
        at: Option<&At>,
    ) -> Result<Edit> {
        let (of, at) = (id.clone(), at.cloned());
        let json = self
            .look_back(collection, id, move |past| {
                let nothing = |what: &str| Error::new(ErrorCode::NothingToRestore, format!("document {of} {what}"));
                let heads: Vec<ChangeHash> = match &at {
                    None => {
                        let now = past.now();
                        if !now.deleted {
                            return Err(nothing("is not deleted").hint("say which version is to come back"));
                        }
                        now.heads
                    }
                    Some(at) => version(past, &of, at)?.heads,
                };
                if heads.is_empty() {
                    return Err(nothing("did not exist then"));
                }
                let content = past.content(&heads, &rights).ok_or_else(|| unknown(&of))?;
                Ok(Bytes::from(json::render_value(&content)))
            })
            .await?;
        Ok(Edit::Put { id: id.clone(), json })
    }
}

impl Node {
    pub(super) async fn restore_for(
        &self,
        writer: Option<Writer>,
        rights: Rights,
        (collection, id): (&CollectionName, &DocId),
        at: Option<&At>,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        let edit = self.inner.restoring(rights, (collection, id), at).await?;
        self.write_for(writer, collection, edit, options).await
    }
}

#[async_trait]
impl Histories for Node {
    async fn history(&self, collection: &CollectionName, id: &DocId, query: &HistoryQuery) -> Result<HistoryPage> {
        self.inner.history(None, Rights::new(), (collection, id), query).await
    }

    async fn diff(&self, collection: &CollectionName, id: &DocId, from: &At, to: Option<&At>) -> Result<Diff> {
        self.inner.diff(None, Rights::new(), (collection, id), from, to).await
    }

    async fn restore(
        &self,
        collection: &CollectionName,
        id: &DocId,
        at: Option<&At>,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        self.restore_for(None, Rights::new(), (collection, id), at, options).await
    }

    async fn automerge(&self, collection: &CollectionName, id: &DocId) -> Result<Bytes> {
        self.inner.automerge(None, (collection, id)).await
    }
}
