//! The JSON shapes and header names of the HTTP API, shared by the remote client and the server.
//!
//! They are apart from the working types of [`crate::api`]: these are what other people's programs rely on.

pub mod live;

use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, CollectionName, DocId};
use folkmoot_core::op::FieldPath;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::{
    AwaitedApproval, BulkOp, Change, ChangeKind, ChangeToken, Cursor, Document, DurabilityReached, Edit, Error,
    ErrorCode, Heads, IdempotencyKey, KeyRotation, LinkRule, Patch, PatchKind, Precondition, QueryPlan, SessionToken,
    Taken, Timestamp, Violation, Violations, WriteOutcome, WriteStatus,
};

/// Request and answer header: the session token.
pub const SESSION: &str = "folkmoot-session";
/// Request header: where a write must be durable; answer header: where it is.
pub const DURABILITY: &str = "folkmoot-durability";
/// Request header: how long to wait for durability, or for the state of the session.
pub const TIMEOUT: &str = "folkmoot-timeout";
/// Request header: the version that the edit was made against, as an entity tag; the edit merges with what came since.
pub const BASE: &str = "folkmoot-base";
/// Request header: makes a write safe to retry.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Answer header: the id of the request in the node's log.
pub const REQUEST_ID: &str = "x-request-id";
/// Where a list in a notation of lines goes on.
pub const NEXT: &str = "Folkmoot-Next";
/// Media type of newline-delimited JSON.
pub const NDJSON: &str = "application/x-ndjson";
/// Documents with their history, as Automerge saves them.
pub const AUTOMERGE: &str = "application/vnd.automerge";
/// Media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// What the `type` of a problem document begins with; its code follows.
pub const PROBLEM_TYPE: &str = "urn:folkmoot:error:";

/// RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// URI of the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// What went wrong, the same for every problem of the kind.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What was being done, and to what.
    pub detail: String,
    /// Stable code for programs.
    pub code: String,
    /// JSON pointer into the body.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pointer: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// Id of the request in the node's log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// The version that the document has, with `precondition_failed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub heads: Option<Heads>,
    /// What was signed and waits for other owners, with `awaits_approval`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub awaits: Option<AwaitedApproval>,
    /// What is wrong with the document, with `schema_violation`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub violations: Vec<Violation>,
    /// How much else is wrong at places that the caller may not read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub withheld: Option<usize>,
    /// Whether more is wrong than is told.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub more: bool,
    /// Fields whose values another document has already, with `unique_violation`: JSON pointers.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub unique: Vec<FieldPath>,
    /// The other document, if the caller may read there what it shows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub taken_by: Option<DocId>,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let code = error.code();
        let found = error.found_violations();
        Self {
            kind: format!("{PROBLEM_TYPE}{code}"),
            title: code.title().to_owned(),
            status: code.http_status(),
            detail: error.detail().to_owned(),
            code: code.as_str().to_owned(),
            pointer: error.json_pointer().map(str::to_owned),
            hint: error.advice().map(str::to_owned),
            request_id: error.request().map(str::to_owned),
            heads: error.current_heads().cloned(),
            awaits: error.awaited(),
            violations: found.map(|found| found.items.clone()).unwrap_or_default(),
            withheld: found.map(|found| found.withheld).filter(|withheld| *withheld > 0),
            more: found.is_some_and(|found| found.more),
            unique: error.already_taken().map(|taken| taken.fields.clone()).unwrap_or_default(),
            taken_by: error.already_taken().and_then(|taken| taken.by.clone()),
        }
    }
}

impl From<Problem> for Error {
    /// A code that this version does not know counts as an internal error of the node.
    fn from(problem: Problem) -> Self {
        let mut error = match ErrorCode::from_code(&problem.code) {
            Some(code) => Self::new(code, problem.detail),
            None => Self::new(ErrorCode::Internal, format!("{}: {}", problem.code, problem.detail)),
        }
        .heads(problem.heads);
        if let Some(pointer) = problem.pointer {
            error = error.pointer(pointer);
        }
        if let Some(hint) = problem.hint {
            error = error.hint(hint);
        }
        if !problem.violations.is_empty() || problem.withheld.is_some() {
            let (items, withheld, more) = (problem.violations, problem.withheld.unwrap_or(0), problem.more);
            error = error.violations(Violations { items, withheld, more });
        }
        if !problem.unique.is_empty() {
            error = error.taken(Taken { fields: problem.unique, by: problem.taken_by });
        }
        if let Some(awaited) = problem.awaits {
            error = error.awaits(awaited);
        }
        match problem.request_id {
            Some(id) => error.request_id(id),
            None => error,
        }
    }
}

/// What a session has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionAnswer {
    /// The token.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub session: SessionToken,
}

/// Who becomes a member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewMember {
    /// The principal: its id, or its name if only one has that.
    pub principal: String,
    /// Until when; for good if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub until: Option<Timestamp>,
}

/// The answer to a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Written {
    /// The document's id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DocId,
    /// Its version after the write.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub heads: Heads,
    /// What the write did.
    pub status: WriteStatus,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub modified: Timestamp,
    /// Where it is durable.
    pub durability: DurabilityReached,
}

impl From<WriteOutcome> for Written {
    fn from(outcome: WriteOutcome) -> Self {
        let WriteOutcome { id, heads, status, modified, durability, session: _ } = outcome;
        Self { id, heads, status, modified, durability }
    }
}

impl From<Written> for WriteOutcome {
    fn from(written: Written) -> Self {
        let Written { id, heads, status, modified, durability } = written;
        Self { id, heads, status, modified, durability, session: None }
    }
}

/// A document's name and version; lists and `?meta=true` put the content beside it as `doc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DocumentMeta {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DocId,
    /// Its version.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub heads: Heads,
    /// When its latest change was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub modified: Timestamp,
    /// Whether stored changes wait to be applied to it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub stale: bool,
}

impl From<&Document> for DocumentMeta {
    fn from(document: &Document) -> Self {
        Self {
            id: document.id.clone(),
            heads: document.heads.clone(),
            modified: document.modified,
            stale: document.stale,
        }
    }
}

/// A document in a list, as the client reads it.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedDocument {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DocId,
    /// Its version.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub heads: Heads,
    /// When its latest change was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub modified: Timestamp,
    /// Whether stored changes wait to be applied to it.
    #[serde(default)]
    pub stale: bool,
    /// Its content.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub doc: Box<RawValue>,
}

impl ListedDocument {
    /// Returns the working type.
    #[must_use]
    pub fn into_document(self, collection: CollectionName) -> Document {
        Document {
            collection,
            id: self.id,
            json: Bytes::copy_from_slice(self.doc.get().as_bytes()),
            heads: self.heads,
            modified: self.modified,
            stale: self.stale,
            session: None,
        }
    }
}

/// A page of a list, as the client reads it.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Listed {
    /// The documents by id.
    pub items: Vec<ListedDocument>,
    /// Where the next page begins.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub next: Option<Cursor>,
}

/// Documents that were found, as the client reads them.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FoundDocuments {
    /// In their order.
    pub items: Vec<ListedDocument>,
    /// Where the next page begins.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub next: Option<Cursor>,
    /// How they were found.
    pub plan: QueryPlan,
}

/// A change; the feed puts the content beside it as `doc` if it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeMeta {
    /// The point behind the change.
    pub token: ChangeToken,
    /// The collection.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub collection: CollectionName,
    /// The document.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DocId,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its version now.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub heads: Heads,
    /// When the change was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub modified: Timestamp,
}

impl From<&Change> for ChangeMeta {
    fn from(change: &Change) -> Self {
        Self {
            token: change.token.clone(),
            collection: change.collection.clone(),
            id: change.id.clone(),
            kind: change.kind,
            heads: change.heads.clone(),
            modified: change.modified,
        }
    }
}

/// A change, as the client reads it.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedChange {
    /// The point behind the change.
    pub token: ChangeToken,
    /// The collection.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub collection: CollectionName,
    /// The document.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: DocId,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its version now.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub heads: Heads,
    /// When the change was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub modified: Timestamp,
    /// Its content, if it was asked for.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub doc: Option<Box<RawValue>>,
}

impl From<ListedChange> for Change {
    fn from(change: ListedChange) -> Self {
        Self {
            token: change.token,
            collection: change.collection,
            id: change.id,
            kind: change.kind,
            heads: change.heads,
            modified: change.modified,
            json: change.doc.map(|doc| Bytes::copy_from_slice(doc.get().as_bytes())),
        }
    }
}

/// A page of the change feed, as the client reads it.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedChanges {
    /// The changes in commit order.
    pub items: Vec<ListedChange>,
    /// The point behind the page.
    pub next: ChangeToken,
    /// Whether more changes are there already.
    pub more: bool,
}

/// Items that fit one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Items<T> {
    /// The items.
    pub items: Vec<T>,
}

/// For whom a ticket is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InviteRequest {
    /// How long it is good, as in `30m`; an hour if not given.
    pub expires: Option<String>,
    /// How many nodes may join with it; one if not given.
    pub uses: Option<u32>,
    /// What they may do: `admin`, `editor` or `reader`; `editor` if not given.
    pub role: Option<String>,
    /// Whose devices they are, by id or name: they write in that principal's name and have no role.
    pub device_of: Option<String>,
}

/// Which keys to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotateKeys {
    /// `master` or `collections`.
    pub rotate: KeyRotation,
}

/// The key that takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplaceAuthor {
    /// The key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub new: AuthorKey,
}

/// What to let through to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkRequest {
    /// The rule.
    pub link: LinkRule,
}

/// What a bulk line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BulkVerb {
    /// Makes a document that must not exist.
    Create,
    /// Makes a document have this content.
    Put,
    /// Changes parts of a document.
    Patch,
    /// Deletes a document.
    Delete,
}

/// One line of a bulk request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkLine {
    /// What to do.
    pub op: BulkVerb,
    /// To which document; a `create` may leave it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub id: Option<DocId>,
    /// The content, for `create` and `put`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub doc: Option<Box<RawValue>>,
    /// The patch, for `patch`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub patch: Option<Box<RawValue>>,
    /// Its notation: `merge` (if not given), `json-patch` or `edit`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// The document must exist at this version; `*`: at any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub if_match: Option<String>,
    /// The document must not exist at this version; `*`: at any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub if_none_match: Option<String>,
    /// The version that the edit was made against.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub base: Option<Heads>,
    /// Idempotency key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
}

impl BulkLine {
    /// Returns the edit that the line asks for.
    ///
    /// # Errors
    /// Says which member is missing, not wanted, or not valid.
    pub fn into_op(self) -> Result<BulkOp, Error> {
        let wrong = |pointer: &'static str, detail: &'static str| {
            Err(Error::new(ErrorCode::InvalidRequest, detail).pointer(pointer))
        };
        let text = |raw: Box<RawValue>| Bytes::from(String::from(Box::<str>::from(raw)));
        if self.op != BulkVerb::Patch && (self.patch.is_some() || self.kind.is_some()) {
            return wrong("/patch", "only a patch has the members `patch` and `kind`");
        }
        if matches!(self.op, BulkVerb::Patch | BulkVerb::Delete) && self.doc.is_some() {
            return wrong("/doc", "only create and put have the member `doc`");
        }
        let id = match (self.op, self.id) {
            (BulkVerb::Create, id) => id,
            (_, Some(id)) => Some(id),
            (_, None) => return wrong("/id", "the member `id` is missing"),
        };
        let edit = match (self.op, id, self.doc, self.patch) {
            (BulkVerb::Create, id, Some(doc), _) => Edit::Create { id, json: text(doc) },
            (BulkVerb::Put, Some(id), Some(doc), _) => Edit::Put { id, json: text(doc) },
            (BulkVerb::Create | BulkVerb::Put, ..) => return wrong("/doc", "the member `doc` is missing"),
            (BulkVerb::Patch, Some(id), _, Some(patch)) => {
                let Some(kind) = PatchKind::from_name(self.kind.as_deref().unwrap_or(PatchKind::Merge.name())) else {
                    return wrong("/kind", "the kind of a patch is merge, json-patch or edit");
                };
                Edit::Patch { id, patch: Patch { kind, body: text(patch) } }
            }
            (BulkVerb::Patch, ..) => return wrong("/patch", "the member `patch` is missing"),
            (BulkVerb::Delete, Some(id), ..) => Edit::Delete { id },
            (BulkVerb::Delete, None, ..) => return wrong("/id", "the member `id` is missing"),
        };
        let precondition = match (self.if_match, self.if_none_match) {
            (None, None) => Precondition::None,
            (Some(text), None) if text == "*" => Precondition::Exists,
            (None, Some(text)) if text == "*" => Precondition::Absent,
            (Some(text), None) => {
                Precondition::HeadsAre(vec![text.parse::<Heads>().map_err(|e| e.pointer("/if_match"))?])
            }
            (None, Some(text)) => {
                Precondition::HeadsAreNot(vec![text.parse::<Heads>().map_err(|e| e.pointer("/if_none_match"))?])
            }
            (Some(_), Some(_)) => return wrong("/if_none_match", "give `if_match` or `if_none_match`, not both"),
        };
        let idempotency_key = self.key.map(IdempotencyKey::new).transpose().map_err(|e| e.pointer("/key"))?;
        Ok(BulkOp { edit, precondition, merge_onto: self.base, idempotency_key })
    }
}

/// One line of the answer to a bulk request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkResult {
    /// Number of the request's line, from 1.
    pub line: u64,
    /// What was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ok: Option<Written>,
    /// Or why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(line: &str) -> Result<BulkOp, Error> {
        serde_json::from_str::<BulkLine>(line).map_err(|e| Error::new(ErrorCode::InvalidJson, e.to_string()))?.into_op()
    }

    #[test]
    fn bulk_lines_say_what_they_lack() {
        assert!(matches!(op(r#"{"op":"put","id":"a","doc":{"x":1}}"#).unwrap().edit, Edit::Put { .. }));
        assert!(matches!(op(r#"{"op":"create","doc":{}}"#).unwrap().edit, Edit::Create { id: None, .. }));
        assert!(matches!(op(r#"{"op":"delete","id":"a"}"#).unwrap().edit, Edit::Delete { .. }));
        let patched = op(r#"{"op":"patch","id":"a","patch":[],"kind":"json-patch","if_match":"*"}"#).unwrap();
        assert_eq!(patched.precondition, Precondition::Exists);
        let cases = [
            (r#"{"op":"put","doc":{}}"#, Some("/id")),
            (r#"{"op":"put","id":"a"}"#, Some("/doc")),
            (r#"{"op":"patch","id":"a"}"#, Some("/patch")),
            (r#"{"op":"patch","id":"a","patch":{},"kind":"x"}"#, Some("/kind")),
            (r#"{"op":"patch","id":"a","patch":{},"doc":{}}"#, Some("/doc")),
            (r#"{"op":"put","id":"a","doc":{},"patch":{}}"#, Some("/patch")),
            (r#"{"op":"delete","id":"a","if_match":"x"}"#, Some("/if_match")),
            (r#"{"op":"delete","id":"a","if_match":"*","if_none_match":"*"}"#, Some("/if_none_match")),
            (r#"{"op":"delete","id":"a","key":""}"#, Some("/key")),
            (r#"{"op":"delete","id":""}"#, None),
            (r#"{"op":"erase","id":"a"}"#, None),
            (r#"{"op":"delete","id":"a","more":1}"#, None),
        ];
        for (line, pointer) in cases {
            let error = op(line).unwrap_err();
            assert_eq!(error.json_pointer(), pointer, "{line}: {error}");
        }
    }

    #[test]
    fn errors_cross_as_problems() {
        for code in ErrorCode::ALL {
            let error = Error::new(*code, "what").pointer("/p").hint("h").request_id("r").heads(Some(Heads::default()));
            let problem = Problem::from(&error);
            let text = serde_json::to_string(&problem).unwrap();
            let back = Error::from(serde_json::from_str::<Problem>(&text).unwrap());
            assert_eq!(Problem::from(&back), problem);
        }
    }
}
