//! Records of the audit log. Layout: `docs/format.md`, "Audit log".

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
use crate::id::{CollectionName, DocId, OpId, PrincipalId};
use crate::limits::{AUDIT_DOCUMENTS_MAX, AUDIT_RECORD_BYTES_MAX, AUDIT_STATEMENTS_MAX, AUDIT_TEXT_BYTES_MAX};
use crate::op::Action;
use crate::op::codec::{self, CodecError};

/// Version of the layout of records.
const VERSION: u8 = 1;

/// An enum that is encoded as its code and has a name for people and programs.
macro_rules! coded_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $code:literal $text:literal $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($code),+].len()] = [$(Self::$variant),+];

            /// Returns the code that stands for it in the format.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// Returns its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Returns the one of that name.
            #[must_use]
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|one| one.name() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(self.name())
                } else {
                    serializer.serialize_u8(self.code())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error as _;
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                    return Self::named(&text).ok_or_else(|| D::Error::custom(concat!("unknown ", stringify!($name))));
                }
                match u8::deserialize(deserializer)? {
                    $($code => Ok(Self::$variant),)+
                    other => Err(D::Error::custom(format!("unknown {} {other}", stringify!($name)))),
                }
            }
        }
    };
}

coded_enum!(
    /// What kind of thing somebody did.
    AuditClass {
        /// Proving who one is.
        1 "auth" Auth,
        /// Giving and taking rights, and shaping the cluster.
        2 "admin" Admin,
        /// Changing documents.
        3 "write" Write,
        /// Reading documents.
        4 "read" Read,
        /// What befell the node.
        5 "system" System,
    }
);

coded_enum!(
    /// How it ended.
    AuditDecision {
        /// It was allowed and done.
        1 "allowed" Allowed,
        /// It was not allowed.
        2 "denied" Denied,
        /// It was allowed and did not succeed.
        3 "failed" Failed,
    }
);

coded_enum!(
    /// How the node knew who it was.
    AuditMethod {
        /// The node itself.
        1 "node" Node,
        /// The token of the owner of the data directory.
        2 "owner_token" OwnerToken,
        /// A token of a principal.
        3 "token" Token,
        /// A password.
        4 "password" Password,
        /// An identity provider.
        5 "oidc" Oidc,
        /// A client certificate.
        6 "mtls" Mtls,
        /// An app that embeds the node says so.
        7 "app" App,
        /// The principal's own key signed it.
        8 "signature" Signature,
        /// It did not.
        9 "none" None,
    }
);

coded_enum!(
    /// What was done or tried.
    AuditAction {
        /// Logging in.
        1 "login" Login,
        /// Logging out.
        2 "logout" Logout,
        /// Showing a token.
        3 "authenticate" Authenticate,
        /// A token that was shown from an address for the first time since the node started.
        4 "token_used" TokenUsed,
        /// An account or address that has to wait, after too many failures.
        5 "throttle" Throttle,
        /// Setting a password.
        6 "set_password" SetPassword,
        /// Ending a session.
        7 "end_session" EndSession,
        /// Making a principal.
        16 "add_principal" AddPrincipal,
        /// Removing a principal.
        17 "remove_principal" RemovePrincipal,
        /// Making a role.
        18 "add_role" AddRole,
        /// Granting a role.
        19 "grant" Grant,
        /// Adding to a group.
        20 "join_group" JoinGroup,
        /// Issuing a token.
        21 "issue_token" IssueToken,
        /// Taking back a statement.
        22 "revoke" Revoke,
        /// Letting quarantined transactions stand.
        23 "release" Release,
        /// Configuring a collection.
        24 "configure" Configure,
        /// Dropping a collection.
        25 "drop_collection" DropCollection,
        /// Making a ticket for a new node.
        26 "invite" Invite,
        /// Admitting a node.
        27 "admit" Admit,
        /// Blocking or opening a link to a peer.
        28 "set_link" SetLink,
        /// Changing or rotating keys.
        29 "rotate_key" RotateKey,
        /// Administering in another way.
        30 "administer" Administer,
        /// Erasing documents for good.
        31 "erase" Erase,
        /// Creating documents.
        32 "create" Create,
        /// Changing documents.
        33 "update" Update,
        /// Deleting documents.
        34 "delete" Delete,
        /// Reading documents by id.
        48 "read" Read,
        /// Listing documents.
        49 "list" List,
        /// Querying documents.
        50 "query" Query,
        /// Exporting documents.
        51 "export" Export,
        /// Reading what documents were, or their conflicts.
        52 "history" History,
        /// Following changes.
        53 "changes" Changes,
        /// Reading the node's state.
        54 "monitor" Monitor,
        /// Reading the audit log.
        55 "audit" Audit,
        /// Operating the node.
        64 "operate" Operate,
        /// Verifying the node's data.
        65 "verify" Verify,
        /// Repairing the node's store.
        66 "repair" Repair,
        /// Backing up.
        67 "backup" Backup,
        /// Restoring.
        68 "restore" Restore,
        /// The node started.
        80 "start" Start,
        /// The node stopped.
        81 "stop" Stop,
        /// A configuration was loaded.
        82 "load_config" LoadConfig,
        /// Keys were loaded.
        83 "load_keys" LoadKeys,
        /// Transactions came into quarantine.
        84 "quarantine" Quarantine,
        /// A peer was refused.
        85 "refuse_peer" RefusePeer,
        /// A peer was banned.
        86 "ban_peer" BanPeer,
        /// The clock was set.
        87 "clock" Clock,
        /// Events of which only the number is known: there were too many.
        88 "overflow" Overflow,
        /// This log begins.
        89 "begin_log" BeginLog,
        /// The audit log of a peer does not reach as far as it did, or is another one.
        90 "peer_log_cut" PeerLogCut,
        /// The audit log of a peer is not the one that was seen.
        91 "peer_log_forked" PeerLogForked,
        /// The node's own log is behind what a peer has seen of it.
        92 "log_cut" LogCut,
        /// Old records were dropped.
        93 "expire_log" ExpireLog,
        /// Damage was found.
        94 "damage" Damage,
        /// Something that the program lets somebody know.
        95 "alarm" Alarm,
        /// Consenting to an act of another owner.
        96 "approve" Approve,
    }
);

impl AuditAction {
    /// Returns its class.
    #[must_use]
    pub const fn class(self) -> AuditClass {
        match self.code() {
            ..16 => AuditClass::Auth,
            16..32 => AuditClass::Admin,
            32..48 => AuditClass::Write,
            48..64 => AuditClass::Read,
            96..112 => AuditClass::Admin,
            64.. => AuditClass::System,
        }
    }
}

impl From<Action> for AuditAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Read => Self::Read,
            Action::Create => Self::Create,
            Action::Update => Self::Update,
            Action::Delete => Self::Delete,
            Action::History => Self::History,
            Action::Administer => Self::Administer,
            Action::Audit => Self::Audit,
            Action::Monitor => Self::Monitor,
            Action::Operate => Self::Operate,
            Action::Backup => Self::Backup,
            Action::Erase => Self::Erase,
        }
    }
}

/// Something that happened. Texts come from anywhere: they are data, never layout, and cut to
/// [`AUDIT_TEXT_BYTES_MAX`] before they are kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Event {
    /// What was done or tried.
    pub action: AuditAction,
    /// How it ended.
    pub decision: AuditDecision,
    /// Who did it, if that is known.
    pub principal: Option<PrincipalId>,
    /// Under which name somebody tried, where there is no principal; else empty.
    pub name: String,
    /// How the node knew.
    pub method: AuditMethod,
    /// The statement of the token, or another credential's.
    pub credential: Option<OpId>,
    /// From where: an address; empty if from within the process.
    pub source: String,
    /// In which collection.
    pub collection: Option<CollectionName>,
    /// Which documents, up to [`AUDIT_DOCUMENTS_MAX`].
    pub documents: Vec<DocId>,
    /// What else it was about: a principal, a peer, the shape of a query.
    pub target: String,
    /// The statements used, or made.
    pub statements: Vec<OpId>,
    /// Why it ended so.
    pub reason: String,
    /// Id of the request.
    pub request: String,
}

impl Event {
    /// Returns an event of the node itself, of which nothing else is known.
    #[must_use]
    pub const fn new(action: AuditAction, decision: AuditDecision) -> Self {
        Self {
            action,
            decision,
            principal: None,
            name: String::new(),
            method: AuditMethod::Node,
            credential: None,
            source: String::new(),
            collection: None,
            documents: Vec::new(),
            target: String::new(),
            statements: Vec::new(),
            reason: String::new(),
            request: String::new(),
        }
    }

    /// Says who did it.
    #[must_use]
    pub fn by(mut self, principal: Option<PrincipalId>, method: AuditMethod, credential: Option<OpId>) -> Self {
        (self.principal, self.method, self.credential) = (principal, method, credential);
        self
    }

    /// Says where.
    #[must_use]
    pub fn on(mut self, collection: Option<CollectionName>, document: Option<DocId>) -> Self {
        self.collection = collection;
        self.documents.extend(document);
        self
    }

    /// Says what it was about.
    #[must_use]
    pub fn about(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }

    /// Says why it ended so.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Cuts everything to its bounds.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.name, &mut self.source, &mut self.target, &mut self.reason, &mut self.request] {
            if text.len() > AUDIT_TEXT_BYTES_MAX {
                text.truncate(text.floor_char_boundary(AUDIT_TEXT_BYTES_MAX));
            }
        }
        self.documents.truncate(AUDIT_DOCUMENTS_MAX);
        self.statements.truncate(AUDIT_STATEMENTS_MAX);
        self
    }

    fn is_within(&self) -> bool {
        let texts = [&self.name, &self.source, &self.target, &self.reason, &self.request];
        texts.into_iter().all(|text| text.len() <= AUDIT_TEXT_BYTES_MAX)
            && self.documents.len() <= AUDIT_DOCUMENTS_MAX
            && self.statements.len() <= AUDIT_STATEMENTS_MAX
    }

    /// Returns about how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [&self.name, &self.source, &self.target, &self.reason, &self.request];
        let documents: usize = self.documents.iter().map(|doc| doc.as_str().len() + 24).sum();
        200 + texts.into_iter().map(String::len).sum::<usize>() + documents + 32 * self.statements.len()
    }
}

/// A leaf of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    version: u8,
    /// When it was recorded; greater than of all records before it in the log.
    pub hlc: Hlc,
    /// By the wall clock, in milliseconds since 1970: when it happened for the first time that this record is about.
    pub first_ms: u64,
    /// When for the last time.
    pub last_ms: u64,
    /// How often; at least once.
    pub count: u64,
    /// What happened.
    pub event: Event,
}

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not a canonical record.
    #[error("decode a record of the audit log")]
    Encoding(#[from] CodecError),
    /// A later program wrote it.
    #[error("record of version {0}, this program knows only {VERSION}")]
    Version(u8),
    /// Longer than it may be, or a count of zero.
    #[error("record breaks its bounds")]
    Bounds,
}

impl Record {
    /// Returns a record of an event that happened once, or, with `count`, is one of many alike.
    #[must_use]
    pub fn new(event: Event, first_ms: u64, last_ms: u64, count: u64) -> Self {
        Self { version: VERSION, hlc: Hlc::ZERO, first_ms, last_ms, count: count.max(1), event: event.bounded() }
    }

    /// Encodes the record: what the leaf's hash is over.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// [`RecordError`], by what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = codec::decode(bytes, AUDIT_RECORD_BYTES_MAX)?;
        if record.version != VERSION {
            return Err(RecordError::Version(record.version));
        }
        if record.count == 0 || !record.event.is_within() {
            return Err(RecordError::Bounds);
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Event {
        let mut event = Event::new(AuditAction::Read, AuditDecision::Allowed);
        event.principal = Some(PrincipalId::new([1; 32]));
        event.credential = Some(OpId::new([2; 32]));
        event.collection = Some("c".repeat(64).parse().unwrap());
        event.documents = (0..AUDIT_DOCUMENTS_MAX + 1).map(|n| format!("{n:0256}").parse().unwrap()).collect();
        event.statements = vec![OpId::new([3; 32]); AUDIT_STATEMENTS_MAX + 1];
        for text in [&mut event.name, &mut event.source, &mut event.target, &mut event.reason, &mut event.request] {
            *text = "é".repeat(AUDIT_TEXT_BYTES_MAX);
        }
        event
    }

    #[test]
    fn the_largest_record_fits_its_bound_and_comes_back() {
        let mut record = Record::new(full(), u64::MAX, u64::MAX, u64::MAX);
        record.hlc = Hlc::from_raw(u64::MAX);
        let bytes = record.encode();
        assert!(bytes.len() <= AUDIT_RECORD_BYTES_MAX, "{}", bytes.len());
        assert_eq!(Record::decode(&bytes).unwrap(), record);
        assert_eq!(record.event.documents.len(), AUDIT_DOCUMENTS_MAX);
    }

    #[test]
    fn what_breaks_a_bound_is_refused() {
        let mut record = Record::new(Event::new(AuditAction::Start, AuditDecision::Allowed), 1, 1, 1);
        record.event = full();
        assert!(matches!(Record::decode(&record.encode()), Err(RecordError::Bounds)));
        let mut record = Record::new(Event::new(AuditAction::Start, AuditDecision::Allowed), 1, 1, 1);
        record.count = 0;
        assert!(matches!(Record::decode(&record.encode()), Err(RecordError::Bounds)));
        record.count = 1;
        record.version = 2;
        assert!(matches!(Record::decode(&record.encode()), Err(RecordError::Version(2))));
        let mut bytes = Record::new(Event::new(AuditAction::Start, AuditDecision::Allowed), 1, 1, 1).encode();
        bytes.push(0);
        assert!(matches!(Record::decode(&bytes), Err(RecordError::Encoding(_))));
    }

    #[test]
    fn codes_and_names_are_distinct() {
        let mut codes: Vec<_> = AuditAction::ALL.into_iter().map(AuditAction::code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), AuditAction::ALL.len());
        for action in AuditAction::ALL {
            assert_eq!(AuditAction::named(action.name()), Some(action));
        }
    }
}
