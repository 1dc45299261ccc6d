//! Between the API's types and core's.

use folkmoot_core::document::edit::{Edit as CoreEdit, EditError, EditErrorKind, EditFormat};
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::limits;
use folkmoot_core::op::{self, FieldDeclaration, FieldKind};
use folkmoot_core::replica::{
    ActError, DocWrite, ItemStatus, Precondition as CorePrecondition, ReadError, WriteError, WriteItem,
};
use folkmoot_core::schema::SchemaText;

use crate::api::{
    CollectionSettings, Edit, Error, ErrorCode, Expires, FieldType, Heads, IndexInfo, IndexProgress, IndexSettings,
    IndexState, PatchKind, Precondition, Result, WriteStatus,
};

/// Turns an edit of the API into the write of one document. `new_id` makes an id where the client gave none.
pub(super) fn write_item(
    edit: Edit,
    precondition: Precondition,
    merge_onto: Option<Heads>,
    new_id: impl FnOnce() -> Result<DocId>,
) -> Result<WriteItem> {
    let (doc, write, bytes, creates) = match edit {
        Edit::Create { id, json } => {
            let doc = id.map_or_else(new_id, Ok)?;
            (doc, parse(EditFormat::Document, &json)?, json.len(), true)
        }
        Edit::Put { id, json } => (id, parse(EditFormat::Document, &json)?, json.len(), false),
        Edit::Patch { id, patch } => {
            let format = match patch.kind {
                PatchKind::Merge => EditFormat::MergePatch,
                PatchKind::JsonPatch => EditFormat::JsonPatch,
                PatchKind::Edits => EditFormat::Ops,
            };
            (id, parse(format, &patch.body)?, patch.body.len(), false)
        }
        Edit::Delete { id } => (id, DocWrite::Delete, 0, false),
    };
    let precondition = if creates { CorePrecondition::Absent } else { core_precondition(precondition) };
    let base = merge_onto.map(|heads| heads.as_slice().to_vec());
    Ok(WriteItem { doc, write, precondition, base, bytes })
}

fn parse(format: EditFormat, text: &[u8]) -> Result<DocWrite> {
    if text.len() > limits::JSON_BYTES_MAX {
        return Err(Error::new(
            ErrorCode::DocumentTooLarge,
            format!("{} bytes of JSON, at most {} are allowed", text.len(), limits::JSON_BYTES_MAX),
        ));
    }
    CoreEdit::parse(format, text).map(DocWrite::Edit).map_err(|error| {
        let code = match format {
            EditFormat::Document if error.kind == EditErrorKind::TooLarge => ErrorCode::InvalidDocument,
            EditFormat::Document => ErrorCode::InvalidJson,
            EditFormat::MergePatch | EditFormat::JsonPatch | EditFormat::Ops => ErrorCode::InvalidPatch,
        };
        edit_error(code, error)
    })
}

fn edit_error(code: ErrorCode, error: EditError) -> Error {
    let mut out = Error::new(code, error.reason.clone()).pointer(error.pointer.clone());
    if let Some(hint) = error.hint {
        out = out.hint(hint);
    }
    out
}

fn core_precondition(precondition: Precondition) -> CorePrecondition {
    let lists = |heads: Vec<Heads>| heads.into_iter().map(|heads| heads.as_slice().to_vec()).collect();
    match precondition {
        Precondition::None => CorePrecondition::None,
        Precondition::Exists => CorePrecondition::Exists,
        Precondition::Absent => CorePrecondition::Absent,
        Precondition::HeadsAre(heads) => CorePrecondition::HeadsAre(lists(heads)),
        Precondition::HeadsAreNot(heads) => CorePrecondition::HeadsAreNot(lists(heads)),
    }
}

/// What was sent of a document, by which its errors are named.
#[derive(Clone, Copy, Default)]
pub(super) struct Sent {
    /// The document is to be new.
    pub(super) creates: bool,
    /// All of it, not a patch.
    pub(super) whole: bool,
}

impl Sent {
    pub(super) const fn of(edit: &Edit) -> Self {
        let creates = matches!(edit, Edit::Create { .. });
        Self { creates, whole: creates || matches!(edit, Edit::Put { .. }) }
    }
}

/// Turns the failure of a write into the API's error.
pub(super) fn write_error(error: WriteError, sent: Sent) -> Error {
    match error {
        WriteError::NotAllowed(reason) => Error::new(ErrorCode::NotAllowed, reason),
        WriteError::NotFound(doc) => not_found(&doc),
        WriteError::Erased(doc) => erased(&doc),
        WriteError::Precondition { doc, heads } => {
            let heads = heads.map(Heads::new);
            if sent.creates {
                return Error::new(ErrorCode::AlreadyExists, format!("document {doc} exists already"))
                    .hint("put replaces a document, patch changes it")
                    .heads(heads);
            }
            let detail = match heads {
                Some(_) => format!("document {doc} has another version than the precondition asks for"),
                None => format!("document {doc} does not exist"),
            };
            Error::new(ErrorCode::PreconditionFailed, detail)
                .hint("read the document again, or send the version you edited as Folkmoot-Base to merge")
                .heads(heads)
        }
        WriteError::UnknownBase { doc, missing } => {
            Error::new(ErrorCode::UnknownHeads, format!("document {doc} has no version with the change {missing}"))
                .hint("read the document here and edit that version")
        }
        WriteError::Edit { doc, source } => {
            let code = match source.kind {
                EditErrorKind::TooLarge => ErrorCode::DocumentTooLarge,
                EditErrorKind::UnknownBase => ErrorCode::UnknownHeads,
                EditErrorKind::Engine => ErrorCode::Internal,
                EditErrorKind::Withheld => ErrorCode::NotAllowed,
                EditErrorKind::TypeMismatch if sent.whole => ErrorCode::InvalidDocument,
                _ => ErrorCode::PatchFailed,
            };
            let mut error = edit_error(code, source);
            if code == ErrorCode::NotAllowed {
                error = error.hint("`folkmoot can --field` tells which fields may be written");
            }
            if code == ErrorCode::Internal {
                error = error.hint(format!("document {doc}"));
            }
            error
        }
        WriteError::TooLarge { doc, bytes, max } => Error::new(
            ErrorCode::DocumentTooLarge,
            format!("document {doc} would have about {bytes} bytes, at most {max} are allowed"),
        )
        .hint("keep many small documents instead of one large one"),
        WriteError::Schema { doc, findings, withheld } => super::schema::violated(&doc, findings, withheld),
        WriteError::SchemaUnusable(reason) => {
            let what = format!("the schema of the collection cannot be used by this node: {reason}");
            Error::new(ErrorCode::InvalidSettings, what).hint("set another one, or upgrade the node")
        }
        WriteError::Unique { doc, fields, other } => super::unique::taken(&doc, fields, other),
        WriteError::Invalid(what) if what.contains("dropped") => Error::new(ErrorCode::CollectionDropped, what),
        WriteError::Invalid(what) => Error::new(ErrorCode::InvalidRequest, what),
        WriteError::RequestReused => {
            Error::new(ErrorCode::IdempotencyMismatch, "the idempotency key has been used for another request").hint(
                "use a new key for each request, and the same one only to repeat it with the same method, path, \
                 preconditions and body",
            )
        }
        WriteError::Busy => Error::new(ErrorCode::Busy, "too many writes are waiting")
            .retry_after(std::time::Duration::from_millis(200)),
        WriteError::NotReady(reason) => {
            tracing::debug!(reason, "refused a write");
            Error::new(ErrorCode::StoreFailed, "this node cannot persist and takes no writes")
                .hint("write to another node; this one must be restarted")
        }
        WriteError::Unknown(reason) => {
            tracing::debug!(reason, "a write has an unknown outcome");
            Error::new(
                ErrorCode::UnknownOutcome,
                "the commit failed; whether the write is there is known after a restart",
            )
            .hint("retry with the same idempotency key, on any node")
        }
        WriteError::Damaged { doc, reason } => {
            tracing::error!(%doc, reason, "a document cannot be loaded");
            Error::new(ErrorCode::Damaged, format!("document {doc} cannot be loaded")).hint("run `folkmoot verify`")
        }
        other => Error::new(ErrorCode::Internal, "the write failed").with_source(other),
    }
}

pub(super) fn not_found(doc: &DocId) -> Error {
    Error::new(ErrorCode::DocumentNotFound, format!("document {doc} does not exist"))
}

pub(super) fn erased(doc: &DocId) -> Error {
    Error::new(ErrorCode::Erased, format!("document {doc} was erased; there never will be one of that id again"))
        .hint("use another id")
}

pub(super) fn act_error(error: ActError) -> Error {
    match error {
        ActError::NotAllowed(reason) => Error::new(ErrorCode::NotAllowed, reason).hint(
            "the node signs such an act with its own rights: ask one that is an admin of everything, as the first is",
        ),
        ActError::NothingToDo(what) => Error::new(ErrorCode::StatementNotFound, what),
        ActError::NotWaiting(what) => Error::new(ErrorCode::NotWaiting, what)
            .hint("`folkmoot approvals` lists what waits, and who consents already"),
        ActError::NoOwnerKey => Error::new(ErrorCode::NotAllowed, "the owner key is not on this node"),
        ActError::Invalid(source) => Error::new(ErrorCode::InvalidSettings, format!("the act breaks a rule: {source}")),
        ActError::NotReady(_) => Error::new(ErrorCode::NotReady, "this node takes no writes"),
        ActError::Unknown(_) => Error::new(ErrorCode::UnknownOutcome, "the commit failed"),
        other => Error::new(ErrorCode::Internal, "the act failed").with_source(other),
    }
}

pub(super) fn read_error(error: ReadError) -> Error {
    let code = match &error {
        ReadError::Store(_) => ErrorCode::StoreFailed,
        _ => ErrorCode::Damaged,
    };
    Error::new(code, "the store cannot be read").hint("run `folkmoot verify`").with_source(error)
}

pub(super) const fn status(status: ItemStatus) -> WriteStatus {
    match status {
        ItemStatus::Created => WriteStatus::Created,
        ItemStatus::Updated => WriteStatus::Updated,
        ItemStatus::Unchanged => WriteStatus::Unchanged,
        ItemStatus::Deleted => WriteStatus::Deleted,
    }
}

/// Turns settings into the act that sets them.
pub(super) fn collection_act(
    name: &CollectionName,
    settings: &CollectionSettings,
    (schema, unique): (Option<SchemaText>, Vec<op::Unique>),
    dropped: bool,
) -> op::Collection {
    let kind = |field: FieldType| match field {
        FieldType::Text => FieldKind::Text,
        FieldType::Counter => FieldKind::Counter,
        FieldType::Timestamp => FieldKind::Timestamp,
        FieldType::Bytes => FieldKind::Bytes,
    };
    op::Collection {
        name: name.clone(),
        shards: settings.shards,
        types: settings
            .types
            .iter()
            .map(|(pointer, field)| FieldDeclaration { pointer: pointer.clone(), kind: kind(*field) })
            .collect(),
        dropped,
        audit_reads: settings.audit_reads,
        indexes: settings.indexes.iter().map(|(name, index)| index.declared(name)).collect(),
        schema,
        expires: settings
            .expires
            .as_ref()
            .map(|expires| op::Expires { field: expires.field.clone(), after_s: expires.after }),
        unique,
    }
}

/// Turns what is known of an index into what is told of it.
pub(super) fn index_info(info: folkmoot_core::query::index::IndexInfo, documents: Option<u64>) -> IndexInfo {
    let folkmoot_core::query::index::IndexInfo {
        declaration,
        building,
        entries,
        bytes,
        memory,
        is_multiple,
        failed,
        ..
    } = info;
    let state = match (&failed, building) {
        (Some(_), _) => IndexState::Failed,
        (None, Some(_)) => IndexState::Building,
        (None, None) => IndexState::Ready,
    };
    let progress = building.map(|looked_at| IndexProgress { looked_at, documents });
    IndexInfo {
        name: declaration.name,
        settings: IndexSettings { fields: declaration.fields, sparse: declaration.sparse },
        state,
        progress,
        entries,
        bytes,
        memory,
        several_per_document: is_multiple,
        reason: failed,
    }
}

/// Turns a collection's act into its settings.
pub(super) fn settings(config: &op::Collection) -> CollectionSettings {
    let field = |kind: FieldKind| match kind {
        FieldKind::Text => FieldType::Text,
        FieldKind::Counter => FieldType::Counter,
        FieldKind::Timestamp => FieldType::Timestamp,
        FieldKind::Bytes => FieldType::Bytes,
    };
    CollectionSettings {
        shards: config.shards,
        types: config.types.iter().map(|declared| (declared.pointer.clone(), field(declared.kind))).collect(),
        audit_reads: config.audit_reads,
        indexes: config
            .indexes
            .iter()
            .map(|index| (index.name.clone(), IndexSettings { fields: index.fields.clone(), sparse: index.sparse }))
            .collect(),
        schema: config.schema.as_ref().and_then(|schema| serde_json::from_str(schema.as_str()).ok()),
        expires: config
            .expires
            .as_ref()
            .map(|expires| Expires { field: expires.field.clone(), after: expires.after_s }),
        unique: config.unique.iter().map(|unique| unique.0.iter().map(ToString::to_string).collect()).collect(),
    }
}
