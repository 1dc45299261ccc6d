//! An entry for fuzzers and property tests.

use bytes::Bytes;

use super::api::{CertificateState, Config, Effect, Input, Lane, Peer, Policy, Subscription, Timestamp};
use super::digest::Tip;
use super::engine::Engine;
use super::frame::{Frame, Hello};
use super::limits as bounds;
use crate::id::{AuthorKey, ClusterId, CollectionName, OpId, StoreEpoch, StreamId};

struct Anything;

impl Policy for Anything {
    fn certificate(&self, certificate: &OpId, _author: &AuthorKey) -> CertificateState {
        match certificate.as_bytes() {
            [0..100, ..] => CertificateState::Unknown,
            [100..110, ..] => CertificateState::Mismatch,
            _ => CertificateState::Known,
        }
    }

    fn closed_at(&self, stream: &StreamId) -> Option<Tip> {
        let [first, ..] = stream.as_bytes();
        (*first < 50).then(|| Tip { seq: u64::from(*first), id: OpId::ZERO })
    }

    fn is_member(&self, _peer: &Peer) -> bool {
        true
    }

    fn may_sync(&self, _peer: &Peer, _collection: &CollectionName) -> bool {
        true
    }
}

/// Feeds an engine with frames cut from `data` (a lane byte, a little-endian length of two bytes, the frame), answering
/// every question to the store with nothing. A hello has been exchanged before.
pub fn fuzz_frames(data: &[u8]) {
    let peer = Peer::new([2; 32]);
    let cluster = ClusterId::new([7; 32]);
    let config = Config {
        me: Peer::new([1; 32]),
        cluster,
        epoch: StoreEpoch::new([1; 8]),
        subscription: Subscription::All,
        seed: 0,
        now: Timestamp::default(),
    };
    let mut engine = Engine::new(config, [], [], &Anything);
    let hello = Hello {
        version: bounds::PROTOCOL_VERSION,
        cluster,
        node: peer,
        epoch: StoreEpoch::new([2; 8]),
        collections: None,
    };
    let hello = Input::Frame { peer, lane: Lane::Control, bytes: Frame::Hello(hello).encode() };
    let mut inputs = vec![hello, Input::PeerUp { peer }];
    let mut rest = data;
    let mut now = Timestamp::default();
    loop {
        while let Some(input) = inputs.pop() {
            let mut effects = Vec::new();
            engine.step(now, input, &Anything, &mut effects);
            inputs.extend(effects.into_iter().filter_map(answer));
        }
        let [lane, low, high, after @ ..] = rest else { return };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (frame, after) = after.split_at_checked(length).unwrap_or((after, &[]));
        rest = after;
        let lane = match lane % 4 {
            0 => Lane::Control,
            1 => Lane::Live,
            2 => Lane::Repair,
            _ => Lane::Snapshot,
        };
        now = now.after(std::time::Duration::from_millis(100));
        inputs.push(Input::Frame { peer, lane, bytes: Bytes::copy_from_slice(frame) });
    }
}

/// Answers as a store that holds nothing.
fn answer(effect: Effect) -> Option<Input> {
    match effect {
        Effect::ReadOps { ticket, .. } => Some(Input::OpsRead { ticket, ops: Vec::new() }),
        Effect::ReadIds { ticket, seqs, .. } => Some(Input::IdsRead { ticket, ids: vec![None; seqs.len()] }),
        Effect::ReadBranches { ticket, .. } => Some(Input::BranchesRead { ticket, branches: Vec::new() }),
        Effect::LocateChanges { ticket, .. } => Some(Input::ChangesLocated { ticket, found: Vec::new() }),
        Effect::Ingest { shard, stream, .. } => Some(Input::Refused { shard, stream }),
        Effect::Send { .. } | Effect::ForkFound { .. } | Effect::Misbehaved { .. } | Effect::Disconnect { .. } => None,
    }
}
