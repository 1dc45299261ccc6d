//! The one error of the API, and the one table of its codes.
//!
//! A single type, because it crosses HTTP: what matters of an error to a caller is its stable code, and that must be
//! the same whether the database is in this process or elsewhere.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::approvals::AwaitedApproval;
use super::heads::Heads;
use super::schema::Violations;
use super::unique::Taken;

/// What calls of the API return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a command of the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage.
    Usage,
    /// No node could be reached.
    Unreachable,
    /// Not allowed.
    Denied,
    /// Another version than expected.
    Conflict,
    /// Damage found.
    Damaged,
    /// Replicas diverged.
    Diverged,
    /// The data directory is sealed and was not unlocked.
    Locked,
    /// Signed, and does not count before other owners approve it.
    Waits,
}

impl ExitCode {
    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Denied => 4,
            Self::Conflict => 5,
            Self::Damaged => 6,
            Self::Diverged => 7,
            Self::Locked => 8,
            Self::Waits => 9,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

macro_rules! error_codes {
    ($($variant:ident = $code:literal, $status:literal, $exit:ident, $title:literal;)*) => {
        /// What went wrong. The text form is stable: programs rely on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(
                #[doc = $title]
                $variant,
            )*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the stable text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Returns the HTTP status it is answered with.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Returns how a command ends that met it.
            #[must_use]
            pub const fn exit_code(self) -> ExitCode {
                match self { $(Self::$variant => ExitCode::$exit,)* }
            }

            /// Returns the short text for people that is the same for every error of this code.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// Returns the code of that text.
            #[must_use]
            pub fn from_code(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }
        }
    };
}

error_codes! {
    // What the client sent.
    InvalidRequest = "invalid_request", 400, Failed, "The request is malformed";
    InvalidParameter = "invalid_parameter", 400, Failed, "A query parameter is not valid";
    InvalidHeader = "invalid_header", 400, Failed, "A header is not valid";
    InvalidCollection = "invalid_collection", 400, Failed, "The collection name is not valid";
    InvalidId = "invalid_id", 400, Failed, "The document id is not valid";
    InvalidJson = "invalid_json", 400, Failed, "The body is not valid JSON";
    InvalidPatch = "invalid_patch", 400, Failed, "The patch is not valid";
    InvalidHeads = "invalid_heads", 400, Failed, "The heads are not valid";
    InvalidCursor = "invalid_cursor", 400, Failed, "The cursor or token is not valid";
    InvalidQuery = "invalid_query", 400, Failed, "The query is not valid";
    InvalidSession = "invalid_session", 400, Failed, "The session token is not valid";
    InvalidDurability = "invalid_durability", 400, Failed, "The durability is not valid";
    InvalidIdempotencyKey = "invalid_idempotency_key", 400, Failed, "The idempotency key is not valid";
    InvalidName = "invalid_name", 400, Failed, "The name is not valid";
    InvalidAction = "invalid_action", 400, Failed, "There is no such action";
    InvalidTarget = "invalid_target", 400, Failed, "The target is not valid";
    InvalidDocument = "invalid_document", 422, Failed, "The document cannot be stored";
    InvalidSettings = "invalid_settings", 422, Failed, "The settings are not valid";
    SchemaViolation = "schema_violation", 422, Failed, "The document has not the form that the schema asks";
    PatchFailed = "patch_failed", 422, Failed, "The patch does not fit the document";
    AtomicFailed = "atomic_failed", 422, Failed, "An edit of the atomic batch cannot be made";
    UnknownHeads = "unknown_heads", 422, Conflict, "The document never had these heads";
    IdempotencyMismatch = "idempotency_mismatch", 422, Failed, "The idempotency key was used for another request";
    BodyTooLarge = "body_too_large", 413, Failed, "The body is too large";
    DocumentTooLarge = "document_too_large", 413, Failed, "The document is too large";
    UnsupportedMediaType = "unsupported_media_type", 415, Failed, "The content type is not supported";
    NotSupported = "not_supported", 501, Failed, "This is not supported";
    TooManyRequests = "too_many_requests", 429, Failed, "Too much was asked for in too short a time";
    InvalidPassword = "invalid_password", 400, Failed, "The password cannot be used";
    InvalidCertificate = "invalid_certificate", 400, Failed, "The certificate is not valid";
    // Who sent it.
    Unauthenticated = "unauthenticated", 401, Denied, "A valid token is needed";
    NotAllowed = "not_allowed", 403, Denied, "This is not allowed";
    AwaitsApproval = "awaits_approval", 202, Waits, "It is signed and waits for other owners";
    // What it is about.
    RouteNotFound = "route_not_found", 404, Failed, "There is nothing at this path";
    MethodNotAllowed = "method_not_allowed", 405, Failed, "The method is not allowed here";
    CollectionNotFound = "collection_not_found", 404, Failed, "The collection does not exist";
    DocumentNotFound = "document_not_found", 404, Failed, "The document does not exist";
    PrincipalNotFound = "principal_not_found", 404, Failed, "There is no such principal";
    RoleNotFound = "role_not_found", 404, Failed, "There is no such role";
    StatementNotFound = "statement_not_found", 404, Failed, "There is no such statement";
    RecordNotFound = "record_not_found", 404, Failed, "There is no such record of the audit";
    PeerNotFound = "peer_not_found", 404, Failed, "The peer is not a member";
    NameTaken = "name_taken", 409, Conflict, "The name is taken";
    NothingToRestore = "nothing_to_restore", 409, Conflict, "There is nothing to bring back";
    UniqueViolation = "unique_violation", 409, Conflict, "Another document has these values already";
    AlreadyExists = "already_exists", 409, Conflict, "The document exists already";
    Erased = "erased", 410, Failed, "The document was erased";
    CollectionDropped = "collection_dropped", 410, Failed, "The collection was dropped";
    NotWaiting = "not_waiting", 409, Conflict, "The act does not wait for this approval";
    PreconditionFailed = "precondition_failed", 412, Conflict, "The document has another version";
    QueryTooLong = "query_too_long", 422, Failed, "The query takes more than the node gives it";
    // The state of the node.
    RequestTimeout = "request_timeout", 408, Failed, "The request took too long";
    Busy = "busy", 503, Failed, "The node has too much to do";
    NotReady = "not_ready", 503, Failed, "The node is not ready";
    LowSpace = "low_space", 507, Failed, "The node has too little space left";
    QuotaExceeded = "quota_exceeded", 507, Failed, "The node takes no more of this";
    PasswordsUnchecked = "passwords_unchecked", 503, Failed, "The node cannot check this password";
    StoreFailed = "store_failed", 503, Failed, "The store cannot persist";
    ShuttingDown = "shutting_down", 503, Failed, "The node is shutting down";
    SessionNotReached = "session_not_reached", 503, Failed, "The node did not catch up with the session in time";
    TooSlow = "too_slow", 504, Failed, "The node took too long";
    UnknownOutcome = "unknown_outcome", 500, Failed, "It is unknown whether the write happened";
    Damaged = "damaged", 500, Damaged, "Stored data is damaged";
    Diverged = "diverged", 500, Diverged, "Replicas with the same ops differ";
    Locked = "locked", 500, Locked, "The data directory is sealed and was not unlocked";
    Internal = "internal", 500, Failed, "The node failed";
    // The way to the node.
    Unreachable = "unreachable", 502, Unreachable, "No node could be reached";
    InvalidAnswer = "invalid_answer", 502, Unreachable, "The answer is not one of a Folkmoot node";
}

impl ErrorCode {
    /// Returns whether the same request may well succeed soon, here or on another node.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::TooManyRequests
                | Self::NotReady
                | Self::PasswordsUnchecked
                | Self::ShuttingDown
                | Self::SessionNotReached
                | Self::RequestTimeout
                | Self::Unreachable
                | Self::TooSlow
                | Self::UnknownOutcome
                | Self::StoreFailed
                | Self::LowSpace
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call failed.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: ErrorCode,
    detail: Cow<'static, str>,
    pointer: Option<String>,
    hint: Option<Cow<'static, str>>,
    heads: Option<Heads>,
    awaits: Option<AwaitedApproval>,
    violations: Option<Violations>,
    taken: Option<Taken>,
    retry_after: Option<Duration>,
    request_id: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error. `detail` goes to the client: it says what was being done and to what, and holds no secret.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            detail: detail.into(),
            pointer: None,
            hint: None,
            heads: None,
            awaits: None,
            violations: None,
            taken: None,
            retry_after: None,
            request_id: None,
            source: None,
        }))
    }

    /// Adds where in the body it is: a JSON pointer.
    #[must_use]
    pub fn pointer(mut self, pointer: impl Into<String>) -> Self {
        self.0.pointer = Some(pointer.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the version that the document has.
    #[must_use]
    pub fn heads(mut self, heads: Option<Heads>) -> Self {
        self.0.heads = heads;
        self
    }

    /// Adds what the act waits for.
    #[must_use]
    pub fn awaits(mut self, awaited: AwaitedApproval) -> Self {
        self.0.awaits = Some(awaited);
        self
    }

    /// Adds what is wrong with the document.
    #[must_use]
    pub fn violations(mut self, violations: Violations) -> Self {
        self.0.violations = Some(violations);
        self
    }

    /// Adds what another document shows already.
    #[must_use]
    pub fn taken(mut self, taken: Taken) -> Self {
        self.0.taken = Some(taken);
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds the id under which the node's log tells more.
    #[must_use]
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    /// Adds the cause: it goes to the log, never to a client.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Returns the code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// Returns what was being done, and to what.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Returns where in the body it is.
    #[must_use]
    pub fn json_pointer(&self) -> Option<&str> {
        self.0.pointer.as_deref()
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the version that the document has.
    #[must_use]
    pub fn current_heads(&self) -> Option<&Heads> {
        self.0.heads.as_ref()
    }

    /// Returns what was signed and waits for other owners, with [`ErrorCode::AwaitsApproval`].
    #[must_use]
    pub fn awaited(&self) -> Option<AwaitedApproval> {
        self.0.awaits
    }

    /// Returns what is wrong with the document, with [`ErrorCode::SchemaViolation`].
    #[must_use]
    pub fn found_violations(&self) -> Option<&Violations> {
        self.0.violations.as_ref()
    }

    /// Returns what another document shows already, with [`ErrorCode::UniqueViolation`].
    #[must_use]
    pub fn already_taken(&self) -> Option<&Taken> {
        self.0.taken.as_ref()
    }

    /// Returns how long to wait before trying again.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the id under which the node's log tells more.
    #[must_use]
    pub fn request(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)?;
        match &self.0.pointer {
            // The empty pointer is the whole document: no place that helps anybody.
            Some(pointer) if !pointer.is_empty() => write!(f, " (at {pointer:?})"),
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.code)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Returns an error with its causes in one line: the last, as in "no space left on device", is what a person needs most.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // A wrapper that shows its cause says nothing new.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl From<folkmoot_core::id::ParseIdError> for Error {
    fn from(error: folkmoot_core::id::ParseIdError) -> Self {
        use folkmoot_core::id::ParseIdError;
        let code = match &error {
            ParseIdError::Collection => ErrorCode::InvalidCollection,
            ParseIdError::Doc => ErrorCode::InvalidId,
            _ => ErrorCode::InvalidParameter,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_snake_case_distinct_and_found_again() {
        for code in ErrorCode::ALL {
            let text = code.as_str();
            assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{text}");
            assert_eq!(ErrorCode::from_code(text), Some(*code));
            let is_error = (400..600).contains(&code.http_status());
            assert!(is_error || *code == ErrorCode::AwaitsApproval, "{text}");
            assert_ne!(code.exit_code(), ExitCode::Done);
        }
        assert_eq!(ErrorCode::from_code("nonsense"), None);
    }

    #[test]
    fn causes_are_told_once_each() {
        let disk = std::io::Error::other("no space left");
        let error = Error::new(ErrorCode::StoreFailed, "write the batch").with_source(disk);
        assert_eq!(error_chain(&error), "write the batch: no space left");
        let same = Error::new(ErrorCode::Internal, "start").with_source(std::io::Error::other("start"));
        assert_eq!(error_chain(&same), "start");
    }

    #[test]
    fn errors_are_small_enough_for_every_result() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
