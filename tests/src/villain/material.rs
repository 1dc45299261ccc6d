//! What a villain has in hand: its key, its certificate, and ops that it signs with them.

use folkmoot_core::document::fuzzing::{first_change, hostile_changes, under_actor};
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{ChangeHash, ClusterId, DocId, OpId, PrincipalId, Salt, SessionId, ShardId, StreamId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{Body, ChangeRef, Header, Op, Payload, StreamKey, Transaction, WriteAction};
use folkmoot_core::replica::Identity;

/// Transactions of one op that wait.
const DEFERRED: u64 = 16;

/// See the module.
pub struct Material {
    pub(super) key: SecretKey,
    pub(super) cluster: ClusterId,
    certificate: OpId,
    principal: PrincipalId,
    /// The shard that it writes to.
    pub(super) shard: ShardId,
    /// A certificate that was given to somebody else, and who that is.
    other: (OpId, PrincipalId),
    /// The end of the control log.
    control_heads: Vec<OpId>,
    /// The stream of the control log that holds most.
    pub(super) control_stream: StreamId,
    sessions: u64,
    first_at_ms: Option<u64>,
    crafted: Vec<Vec<u8>>,
}

impl Material {
    /// Takes what a member has: its identity and the control log.
    ///
    /// # Panics
    /// If the control log certifies nobody else.
    #[must_use]
    pub fn new(identity: &Identity, control: &[Op], shard: ShardId) -> Self {
        let others: Vec<OpId> = control
            .iter()
            .filter(|op| matches!(op.header().control().map(|c| &c.act), Some(folkmoot_core::op::Act::Certify(_))))
            .map(Op::id)
            .filter(|id| *id != identity.certificate)
            .collect();
        let other = *others.first().expect("somebody else has a certificate");
        let named: Vec<OpId> = control.iter().flat_map(|op| op.header().control_heads.iter().copied()).collect();
        let prevs: Vec<OpId> = control.iter().map(|op| op.header().prev).collect();
        let mut control_heads: Vec<OpId> =
            control.iter().map(Op::id).filter(|id| !named.contains(id) && !prevs.contains(id)).collect();
        control_heads.sort_unstable();
        Self {
            key: identity.node.clone(),
            cluster: identity.cluster,
            certificate: identity.certificate,
            principal: identity.principal,
            shard,
            other: (other, PrincipalId::from(other)),
            control_heads,
            control_stream: control.first().map_or(StreamId::ZERO, Op::stream),
            sessions: 0,
            first_at_ms: None,
            crafted: hostile_changes(),
        }
    }

    fn session(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId::new((0xbad0_0000_0000_0000 | self.sessions).to_be_bytes())
    }

    fn header(&self, session: SessionId, now_ms: u64) -> Header {
        Header {
            version: folkmoot_core::limits::OP_VERSION,
            cluster: self.cluster,
            shard: self.shard.clone(),
            author: self.key.author(),
            certificate: self.certificate,
            session,
            seq: 1,
            prev: OpId::ZERO,
            earlier: Vec::new(),
            hlc: Hlc::new(now_ms, 0),
            control_heads: self.control_heads.clone(),
            payload: Payload::Data(Vec::new()),
        }
    }

    /// Finds a document of the shard, another one for each number.
    fn doc(&self, n: u64) -> DocId {
        let mut ids = (0..).map(|i| -> DocId { format!("evil-{n}-{i}").parse().expect("a good id") });
        ids.find(|id| ShardId::of_document(&self.shard.collection, id, self.shard.of) == self.shard)
            .expect("one of them")
    }

    /// Signs an op with one change of any bytes.
    fn sign(&self, mut header: Header, principal: PrincipalId, doc: DocId, action: WriteAction, bytes: Vec<u8>) -> Op {
        let body = Body { salt: Salt::new([7; 16]), bytes: bytes.into() };
        let change = ChangeRef {
            doc,
            action,
            commitment: body.commitment(),
            body_bytes: u32::try_from(body.bytes.len()).expect("small"),
            fields: None,
        };
        header.payload = Payload::Data(vec![Transaction { principal, request: None, changes: vec![change] }]);
        Op::sign(header, vec![body], &self.key).expect("a well-formed op")
    }

    /// Signs an op that makes a document as an honest node would.
    fn honest(&self, header: Header, n: u64, text: &str) -> Op {
        let doc = self.doc(n);
        let actor = key_of(&header).actor(&self.principal, &doc);
        self.sign(header, self.principal, doc, WriteAction::Create, first_change(&actor, text))
    }

    pub(super) fn chain(&mut self, len: u64, now_ms: u64) -> Vec<Vec<u8>> {
        let session = self.session();
        let mut header = self.header(session, now_ms);
        let mut ops = Vec::new();
        for n in 0..len {
            let op = self.honest(header.clone(), self.sessions * 16 + n, "chain");
            (header.seq, header.prev) = (header.seq + 1, op.id());
            ops.push(op.encode());
        }
        ops
    }

    /// Always the same one.
    pub(super) fn first_op(&mut self, now_ms: u64) -> Vec<u8> {
        let session = SessionId::new([0xf0; 8]);
        let at_ms = *self.first_at_ms.get_or_insert(now_ms);
        self.honest(self.header(session, at_ms), 0, "again").encode()
    }

    pub(super) fn large_op(&mut self, now_ms: u64) -> Vec<u8> {
        let session = self.session();
        self.honest(self.header(session, now_ms), self.sessions, &"x".repeat(60_000)).encode()
    }

    pub(super) fn spoilt_signature(&mut self, now_ms: u64) -> Vec<u8> {
        let session = self.session();
        let op = self.honest(self.header(session, now_ms), self.sessions, "forged");
        let signature = *op.signature().expect("it is signed").as_bytes();
        let mut bytes = op.encode();
        let at = bytes.windows(signature.len()).position(|window| window == signature).expect("the signature is in it");
        bytes[at + 3] ^= 1;
        bytes
    }

    pub(super) fn under_another_certificate(&mut self, now_ms: u64) -> Vec<u8> {
        let session = self.session();
        let header = Header { certificate: self.other.0, ..self.header(session, now_ms) };
        self.honest(header, self.sessions, "stolen").encode()
    }

    /// A short chain in a session that begins otherwise on each side.
    pub(super) fn fork(&self, number: u64, side: usize, now_ms: u64) -> Vec<Vec<u8>> {
        let session = SessionId::new((0xf04c_0000_0000_0000 | number).to_be_bytes());
        let header = self.header(session, now_ms);
        let first = self.honest(header.clone(), 1 << 40 | number, &format!("side {side}"));
        let header = Header { seq: 2, prev: first.id(), ..header };
        let second = self.honest(header, 1 << 41 | number, "goes on");
        vec![first.encode(), second.encode()]
    }

    pub(super) fn crafted(&mut self, now_ms: u64) -> Vec<Vec<u8>> {
        let session = self.session();
        let mut header = self.header(session, now_ms);
        let mut ops = Vec::new();
        for (n, bytes) in (0..).zip(self.crafted.clone()) {
            let doc = self.doc(self.sessions * 64 + n);
            let actor = key_of(&header).actor(&self.principal, &doc);
            let bytes = under_actor(&bytes, &actor);
            let op = self.sign(header.clone(), self.principal, doc, WriteAction::Create, bytes);
            (header.seq, header.prev) = (header.seq + 1, op.id());
            ops.push(op.encode());
        }
        ops
    }

    pub(super) fn for_somebody_else(&mut self, now_ms: u64) -> Vec<u8> {
        let session = self.session();
        let header = self.header(session, now_ms);
        let doc = self.doc(self.sessions);
        let actor = key_of(&header).actor(&self.other.1, &doc);
        let change = first_change(&actor, "in your name");
        self.sign(header, self.other.1, doc, WriteAction::Create, change).encode()
    }

    /// An op of many transactions, each of which waits for a change, or an act, that does not exist.
    pub(super) fn deferred(&mut self, now_ms: u64) -> Vec<u8> {
        let session = self.session();
        let mut header = self.header(session, now_ms);
        let n = self.sessions;
        if n.is_multiple_of(2) {
            header.control_heads = vec![OpId::new(filled(n))];
        }
        let mut bodies = Vec::new();
        let mut transactions = Vec::new();
        for i in 0..DEFERRED {
            let doc = self.doc(n * DEFERRED + i);
            let heads = vec![ChangeHash::new(filled(n * DEFERRED + i))];
            let body = Body { salt: Salt::new([9; 16]), bytes: folkmoot_core::op::Delete { heads }.encode() };
            let change = ChangeRef {
                doc,
                action: WriteAction::Delete,
                commitment: body.commitment(),
                body_bytes: u32::try_from(body.bytes.len()).expect("small"),
                fields: None,
            };
            bodies.push(body);
            transactions.push(Transaction { principal: self.principal, request: None, changes: vec![change] });
        }
        header.payload = Payload::Data(transactions);
        Op::sign(header, bodies, &self.key).expect("a well-formed op").encode()
    }
}

fn filled(n: u64) -> [u8; 32] {
    let mut bytes = [0xdd; 32];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    bytes
}

fn key_of(header: &Header) -> StreamKey {
    header.stream_key()
}
