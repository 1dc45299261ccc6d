//! A peer of the network, and the ops that writers make.

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{
    AuthorKey, ClusterId, CollectionName, DocId, OpId, PrincipalId, Salt, SessionId, ShardId, StreamId,
};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::limits;
use folkmoot_core::op::{Body, ChangeRef, Header, Op, Payload, Transaction, WriteAction};
use folkmoot_core::replication::{CertificateState, Engine, Policy, Tip};

use crate::simulator::Random;

/// The cluster.
pub(super) const CLUSTER: ClusterId = ClusterId::new([7; 32]);
/// Bytes of the body of an op: a small edit of a document.
const BODY_BYTES: usize = 150;

/// Everybody is a member and may do everything.
pub(super) struct Members;

impl Policy for Members {
    fn certificate(&self, _: &OpId, _: &AuthorKey) -> CertificateState {
        CertificateState::Known
    }

    fn closed_at(&self, _: &StreamId) -> Option<Tip> {
        None
    }

    fn accepts_time(&self, _: Hlc) -> bool {
        true
    }

    fn is_member(&self, _: &AuthorKey) -> bool {
        true
    }

    fn may_sync(&self, _: &AuthorKey, _: &CollectionName) -> bool {
        true
    }
}

/// A peer.
pub(super) struct Peer {
    pub(super) engine: Engine,
    /// How many ops of each stream are on its disk: streams do not fork here, so the ops themselves are kept once for all.
    pub(super) stored: BTreeMap<StreamId, u64>,
    pub(super) arrivals: u64,
    /// When the last commit that was begun ends.
    pub(super) disk_free: u64,
    pub(super) tick_at: u64,
    /// Connected peers, with the session of the connection.
    pub(super) links: BTreeMap<usize, u64>,
}

/// Returns the key by which a peer is known; its index stands at the end.
pub(super) fn key_of(index: usize) -> AuthorKey {
    let mut key = [0x5a; 32];
    // In no order that has to do with the overlay.
    key[..8].copy_from_slice(&Random::new(index as u64).bits().to_be_bytes());
    key[24..].copy_from_slice(&(index as u64).to_be_bytes());
    AuthorKey::new(key)
}

/// Returns the index of a peer.
pub(super) fn index_of(key: &AuthorKey) -> usize {
    let mut index = [0; 8];
    index.copy_from_slice(&key.as_bytes()[24..]);
    usize::try_from(u64::from_be_bytes(index)).expect("an index")
}

/// The stream of a peer that writes.
pub(super) struct Writer {
    pub(super) node: usize,
    key: SecretKey,
    shard: ShardId,
    doc: DocId,
    tip: Tip,
}

impl Writer {
    pub(super) fn new(node: usize, random: &mut Random) -> Self {
        let collection: CollectionName = "notes".parse().expect("a good name");
        let shard = ShardId { collection, index: 0, of: 1 };
        let doc = format!("of-{node}").parse().expect("a good id");
        Self { node, key: SecretKey::from_seed(&random.seed()), shard, doc, tip: Tip::START }
    }

    /// Signs the next op.
    pub(super) fn write(&mut self, millis: u64, random: &mut Random) -> Op {
        let bytes: Vec<u8> = (0..BODY_BYTES).map(|_| random.bits().to_le_bytes()[0]).collect();
        let body = Body { salt: Salt::new([3; 16]), bytes: Bytes::from(bytes) };
        let change = ChangeRef {
            doc: self.doc.clone(),
            action: WriteAction::Update,
            commitment: body.commitment(),
            body_bytes: u32::try_from(body.bytes.len()).expect("small"),
            fields: None,
        };
        let header = Header {
            version: limits::OP_VERSION,
            cluster: CLUSTER,
            shard: self.shard.clone(),
            author: self.key.author(),
            certificate: OpId::new([9; 32]),
            session: SessionId::new([1; 8]),
            seq: self.tip.seq + 1,
            prev: self.tip.id,
            earlier: Vec::new(),
            hlc: Hlc::new(millis, 0),
            control_heads: vec![CLUSTER.genesis()],
            payload: Payload::Data(vec![Transaction {
                principal: PrincipalId::ZERO,
                request: None,
                changes: vec![change],
            }]),
        };
        let op = Op::sign(header, vec![body], &self.key).expect("a valid op");
        self.tip = Tip { seq: self.tip.seq + 1, id: op.id() };
        op
    }
}
