//! The header of an op. Field order is the format.

use serde::{Deserialize, Serialize};

use super::act::{Act, Control, Pin};
use super::body::Body;
use super::check::ascending;
use super::codec::tagged_enum;
use super::fields::{FieldPaths, Touched};
use crate::hash::{Domain, hash, hash_short};
use crate::hlc::Hlc;
use crate::id::{
    ActorId, AuthorKey, ClusterId, CollectionName, Commitment, DocId, OpId, PrincipalId, RequestId, RequestName,
    SessionId, ShardId, StreamId,
};
use crate::limits;

/// What an op signs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// [`limits::OP_VERSION`].
    pub version: u8,
    /// The cluster; zero in the genesis, whose id it is.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// The signing key.
    pub author: AuthorKey,
    /// The certificate that the stream is bound to; the genesis for owner keys, zero in the genesis itself.
    pub certificate: OpId,
    /// The author's session.
    pub session: SessionId,
    /// Position in the stream, from 1.
    pub seq: u64,
    /// Id of the op before, zero at 1.
    pub prev: OpId,
    /// In the first op of a data stream: where the author's earlier sessions end, as far as it knows and as no later session
    /// has said already. Ascending by session; elsewhere empty.
    pub earlier: Vec<SessionEnd>,
    /// When, in hybrid logical time; not before the op before.
    pub hlc: Hlc,
    /// The policy that the author had seen: maximal control ops, ascending. May be left empty where it is the same as
    /// in the op before.
    pub control_heads: Vec<OpId>,
    /// What is done.
    pub payload: Payload,
}

/// Where a session of the same author, under the same certificate, ends in the same shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SessionEnd {
    /// The session.
    pub session: SessionId,
    /// Sequence number of its last op, at least 1.
    pub seq: u64,
    /// Id of that op.
    pub head: OpId,
}

tagged_enum! {
    /// What an op does.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Payload {
        /// Changes documents.
        0 => Data(Vec<Transaction>),
        /// Changes the cluster.
        // Boxed: there are few of these among many of the others, which would all be as large.
        1 => Control(Box<Control>),
    }
}

impl From<Control> for Payload {
    fn from(control: Control) -> Self {
        Self::Control(Box::new(control))
    }
}

/// The changes of one request by one principal: applied all or none, the unit of a verdict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transaction {
    /// On whose behalf.
    pub principal: PrincipalId,
    /// The client's idempotency key and what it asked for, hashed. Of several accepted transactions of a collection
    /// with the same one, only the first by (time, op id, position) counts, everywhere.
    pub request: Option<RequestId>,
    /// At least one; at most one for each document.
    pub changes: Vec<ChangeRef>,
}

/// Returns what a request is called: the same on every node. It counts within the collection, whoever writes: a client
/// that retries on another node is another principal there.
#[must_use]
pub fn request_name(collection: &CollectionName, idempotency_key: &str) -> RequestName {
    RequestName::new(hash_short(Domain::Request, &[collection.as_str().as_bytes(), idempotency_key.as_bytes()]))
}

/// Returns what an op carries for a client's idempotency key and for what it asks, so that every node can tell a retry from
/// another request with the same key.
///
/// The hash of the content covers the key: without it nobody can test guesses of the content, so after an erase a key
/// that was drawn at random keeps the secret as a salt would.
#[must_use]
pub fn request_id(collection: &CollectionName, idempotency_key: &str, asked: &[&[u8]]) -> RequestId {
    let name = request_name(collection, idempotency_key);
    let parts = [collection.as_str().as_bytes(), idempotency_key.as_bytes()];
    let parts: Vec<&[u8]> = parts.into_iter().chain(asked.iter().copied()).collect();
    let content = hash_short(Domain::RequestContent, &parts);
    let mut id = [0; RequestId::LEN];
    for (to, from) in id.iter_mut().zip(name.as_bytes().iter().chain(&content)) {
        *to = *from;
    }
    RequestId::new(id)
}

/// One change, as the header names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeRef {
    /// The document.
    pub doc: DocId,
    /// What is done to it.
    pub action: WriteAction,
    /// Salted hash of the body.
    pub commitment: Commitment,
    /// Length of the body. Signed, so that the bound on an op's bodies holds even where only some of them are here, and
    /// so that a puller knows what it asks for.
    pub body_bytes: u32,
    /// The fields at or below which the change writes; none if it may write anywhere. The gate holds the body against it, so
    /// that rights on fields can be judged by the header alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<FieldPaths>,
}

impl ChangeRef {
    /// Returns the entry that commits to this body.
    #[must_use]
    pub fn new(doc: DocId, action: WriteAction, body: &Body) -> Self {
        // A longer body than u32 can say is far above the bound, and `Header::check` refuses it.
        let body_bytes = u32::try_from(body.bytes.len()).unwrap_or(u32::MAX);
        Self { doc, action, commitment: body.commitment(), body_bytes, fields: None }
    }

    /// Returns what the change declares to touch.
    pub fn touched(&self) -> impl Iterator<Item = Touched<'_>> {
        let alone = match &self.fields {
            None => Some(Touched::Document),
            Some(fields) if fields.is_empty() => Some(Touched::Nothing),
            Some(_) => None,
        };
        alone.into_iter().chain(self.fields.iter().flat_map(FieldPaths::iter).map(Touched::Field))
    }

    fn check_fields(&self) -> Result<usize, &'static str> {
        let Some(fields) = &self.fields else { return Ok(0) };
        if self.action == WriteAction::Delete {
            return Err("delete that declares fields");
        }
        if fields.len() > limits::CHANGE_FIELDS_MAX {
            return Err("too many declared fields");
        }
        fields.is_canonical().then_some(fields.len()).ok_or("declared fields out of order, or below one another")
    }
}

/// What a change does to its document. The gate checks that the body says the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WriteAction {
    /// A change without dependencies.
    Create,
    /// A change that builds on others.
    Update,
    /// A delete.
    Delete,
}

impl Serialize for WriteAction {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Create => 0,
            Self::Update => 1,
            Self::Delete => 2,
        })
    }
}

impl<'de> Deserialize<'de> for WriteAction {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Create),
            1 => Ok(Self::Update),
            2 => Ok(Self::Delete),
            other => Err(serde::de::Error::custom(format!("unknown write action {other}"))),
        }
    }
}

/// What identifies a stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StreamKey {
    /// The shard.
    pub shard: ShardId,
    /// The signing key.
    pub author: AuthorKey,
    /// The certificate that it is bound to.
    pub certificate: OpId,
    /// The author's session.
    pub session: SessionId,
}

impl StreamKey {
    /// Returns the short name of the stream.
    #[must_use]
    pub fn id(&self) -> StreamId {
        StreamId::new(hash(
            Domain::Stream,
            &[
                self.shard.collection.as_str().as_bytes(),
                &self.shard.index.to_le_bytes(),
                &self.shard.of.to_le_bytes(),
                self.author.as_bytes(),
                self.certificate.as_bytes(),
                self.session.as_bytes(),
            ],
        ))
    }

    /// Returns the Automerge actor under which this stream writes a document on behalf of a principal. Anyone can check
    /// it without state, nobody can write under another's, and a new session never meets an old one's.
    #[must_use]
    pub fn actor(&self, principal: &PrincipalId, doc: &DocId) -> ActorId {
        ActorId::new(hash_short(
            Domain::Actor,
            &[
                self.author.as_bytes(),
                self.certificate.as_bytes(),
                principal.as_bytes(),
                self.shard.collection.as_str().as_bytes(),
                doc.as_str().as_bytes(),
                self.session.as_bytes(),
            ],
        ))
    }
}

impl Header {
    /// Returns what identifies the op's stream.
    #[must_use]
    pub fn stream_key(&self) -> StreamKey {
        StreamKey {
            shard: self.shard.clone(),
            author: self.author,
            certificate: self.certificate,
            session: self.session,
        }
    }

    /// Returns the ends of earlier sessions that the op names. A stream's chain goes on with theirs before its first op, so a
    /// pin of this stream is one of them too.
    pub fn earlier_ends(&self) -> impl Iterator<Item = Pin> + '_ {
        self.earlier.iter().map(|end| {
            let key = StreamKey { session: end.session, ..self.stream_key() };
            Pin { stream: key.id(), seq: end.seq, head: end.head }
        })
    }

    /// Returns the collection.
    #[must_use]
    pub const fn collection(&self) -> &CollectionName {
        &self.shard.collection
    }

    /// Returns the transactions of a data op; none for a control op.
    #[must_use]
    pub fn transactions(&self) -> &[Transaction] {
        match &self.payload {
            Payload::Data(transactions) => transactions,
            Payload::Control(_) => &[],
        }
    }

    /// Returns all changes in order.
    pub fn changes(&self) -> impl Iterator<Item = &ChangeRef> {
        self.transactions().iter().flat_map(|transaction| &transaction.changes)
    }

    /// Returns the control act, if this is a control op.
    #[must_use]
    pub fn control(&self) -> Option<&Control> {
        match &self.payload {
            Payload::Data(_) => None,
            Payload::Control(control) => Some(control),
        }
    }

    /// Returns whether this is a cluster's first op.
    #[must_use]
    pub fn is_genesis(&self) -> bool {
        self.control().is_some_and(|control| matches!(control.act, Act::Genesis(_)))
    }

    /// Checks what the header alone shows; says what is wrong.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.version != limits::OP_VERSION {
            return Err("unknown op version");
        }
        if !self.shard.is_valid() {
            return Err("shard out of bounds");
        }
        if self.seq == 0 || (self.seq == 1) != (self.prev == OpId::ZERO) {
            return Err("sequence and previous op disagree");
        }
        if self.control_heads.len() > limits::CONTROL_HEADS_MAX {
            return Err("too many control heads");
        }
        ascending(self.control_heads.iter()).ok_or("control heads out of order")?;
        self.check_earlier()?;
        match &self.payload {
            Payload::Data(transactions) => self.check_data(transactions),
            Payload::Control(control) => self.check_control(control),
        }
    }

    fn check_earlier(&self) -> Result<(), &'static str> {
        if !self.earlier.is_empty() && (self.seq != 1 || self.control().is_some()) {
            return Err("earlier sessions named elsewhere than in the first op of a data stream");
        }
        if self.earlier.len() > limits::EARLIER_SESSIONS_MAX {
            return Err("too many earlier sessions");
        }
        ascending(self.earlier.iter().map(|end| end.session)).ok_or("earlier sessions out of order")?;
        let is_none = |end: &SessionEnd| end.session == self.session || end.seq == 0 || end.head == OpId::ZERO;
        if self.earlier.iter().any(is_none) {
            return Err("earlier session without an end, or the op's own");
        }
        Ok(())
    }

    fn check_data(&self, transactions: &[Transaction]) -> Result<(), &'static str> {
        if self.shard.collection.is_system() {
            return Err("data in a system collection");
        }
        if self.certificate == OpId::ZERO || self.cluster == ClusterId::ZERO {
            return Err("data without certificate or cluster");
        }
        if self.seq == 1 && self.control_heads.is_empty() {
            return Err("first op of a stream names no control heads");
        }
        if transactions.is_empty() || transactions.len() > limits::TRANSACTIONS_MAX {
            return Err("number of transactions out of bounds");
        }
        if self.changes().count() > limits::OP_CHANGES_MAX {
            return Err("too many changes");
        }
        let body_bytes = || self.changes().map(|change| change.body_bytes as usize);
        if body_bytes().any(|bytes| bytes > limits::CHANGE_BYTES_MAX) {
            return Err("body too large");
        }
        // At most `OP_CHANGES_MAX` summands, each within its bound.
        if body_bytes().sum::<usize>() > limits::OP_BODIES_BYTES_MAX {
            return Err("bodies too large");
        }
        let declared = self.changes().map(ChangeRef::check_fields).sum::<Result<usize, _>>()?;
        if declared > limits::OP_FIELDS_MAX {
            return Err("too many declared fields together");
        }
        for transaction in transactions {
            if transaction.changes.is_empty() {
                return Err("empty transaction");
            }
            let mut docs: Vec<_> = transaction.changes.iter().map(|change| &change.doc).collect();
            docs.sort();
            ascending(docs.iter()).ok_or("two changes of one document in one transaction")?;
            for doc in docs {
                if ShardId::of_document(&self.shard.collection, doc, self.shard.of) != self.shard {
                    return Err("document lies in another shard");
                }
            }
        }
        Ok(())
    }

    fn check_control(&self, control: &Control) -> Result<(), &'static str> {
        if self.shard != ShardId::control() {
            return Err("control act outside the control shard");
        }
        if control.proof.len() > limits::PROOF_MAX {
            return Err("too many statements in the proof");
        }
        ascending(control.proof.iter()).ok_or("proof out of order")?;
        if let Act::Genesis(genesis) = &control.act {
            let alone = self.cluster == ClusterId::ZERO
                && self.certificate == OpId::ZERO
                && self.seq == 1
                && self.control_heads.is_empty()
                && control.proof.is_empty();
            if !alone {
                return Err("genesis refers to something");
            }
            control.act.check()?;
            if !genesis.owners.contains(&self.author) {
                return Err("genesis not signed by an owner");
            }
        } else {
            if self.cluster == ClusterId::ZERO || self.certificate == OpId::ZERO {
                return Err("act without certificate or cluster");
            }
            if self.seq == 1 && self.control_heads.is_empty() {
                return Err("first op of a stream names no control heads");
            }
            if !control.proof.contains(&self.certificate) {
                return Err("proof lacks the certificate");
            }
            control.act.check()?;
            if let Act::Succeed(succeed) = &control.act {
                succeed.check_signed(self, control)?;
            }
        }
        Ok(())
    }
}
