//! An entry for fuzzers and property tests.

use bytes::Bytes;

use super::api::{CertificateState, Config, Effect, Input, Lane, Peer, Policy, Subscription, Taken, Timestamp};
use super::digest::Tip;
use super::engine::Engine;
use super::frame::{Frame, Hello};
use super::limits as bounds;
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ClusterId, CollectionName, OpId, StoreEpoch, StreamId};
use crate::keys::SecretKey;

/// The cluster of the golden files, so that their ops are of use as seeds.
const CLUSTER: &str = "0ddfa725ab8d154648eb368aa528fa744284457d4d951a3d31a6e62998ced831";
/// More answers than any honest frame needs: one that needs more keeps the engine busy for ever.
const ANSWERS_MAX: usize = 10_000;

/// Everything is allowed.
struct Trusting;

impl Policy for Trusting {
    fn certificate(&self, _: &OpId, _: &AuthorKey) -> CertificateState {
        CertificateState::Known
    }

    fn closed_at(&self, _: &StreamId) -> Option<Tip> {
        None
    }

    fn accepts_time(&self, hlc: Hlc) -> bool {
        hlc.millis() < 1 << 41
    }

    fn is_member(&self, _: &Peer) -> bool {
        true
    }

    fn may_sync(&self, _: &Peer, _: &CollectionName) -> bool {
        true
    }
}

/// Says anything, by the bytes of the ids.
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

    fn accepts_time(&self, hlc: Hlc) -> bool {
        hlc.millis() < 1 << 40
    }

    fn is_member(&self, _peer: &Peer) -> bool {
        true
    }

    fn may_sync(&self, _peer: &Peer, _collection: &CollectionName) -> bool {
        true
    }
}

/// Feeds engines, one that trusts everybody and one that does not, with frames cut from `data`: a byte for the lane, a
/// little-endian length of two bytes, the frame; the last takes what there is. A hello has been exchanged before. The
/// store holds nothing and takes nothing.
///
/// # Panics
/// When a frame keeps the engine busy for ever.
pub fn fuzz_frames(data: &[u8]) {
    drive(data, &Trusting);
    drive(data, &Anything);
}

fn drive(data: &[u8], policy: &dyn Policy) {
    let (me, peer) = (SecretKey::from_seed(&[0x51; 32]).author(), SecretKey::from_seed(&[0x52; 32]).author());
    let cluster: ClusterId = CLUSTER.parse().expect("hexadecimal");
    // A moment of the golden files.
    let mut now = Timestamp::from_micros(1_767_323_045_678_000);
    let config = Config {
        me,
        cluster,
        epoch: StoreEpoch::new([1; 8]),
        subscription: Subscription::All,
        bulk_gap_ops: super::limits::BULK_GAP_OPS,
        seed: 7,
        now,
        held_bytes: 0,
    };
    let mut engine = Engine::new(config, [], [], policy);
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
    loop {
        let (mut effects, mut answers) = (Vec::new(), 0);
        while let Some(input) = inputs.pop() {
            engine.step(now, input, policy, &mut effects);
            inputs.extend(effects.drain(..).filter_map(answer));
            answers += 1;
            assert!(answers < ANSWERS_MAX, "one frame keeps the engine busy for ever");
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
        Effect::ReadEarlier { ticket, .. } => Some(Input::EarlierRead { ticket, ends: Vec::new() }),
        Effect::ReadDocuments { ticket, .. } => {
            Some(Input::DocumentsRead { ticket, documents: Vec::new(), next: None, total: 0 })
        }
        Effect::TakeDocuments { shard, request, .. } => {
            Some(Input::DocumentsTaken { shard, request, outcome: Taken::Stored })
        }
        Effect::CompleteOps { ticket, ops } => Some(Input::OpsCompleted { ticket, ops }),
        Effect::Ingest { shard, stream, .. } => Some(Input::Refused { shard, stream }),
        Effect::Send { .. }
        | Effect::BulkMoved { .. }
        | Effect::BulkEnded { .. }
        | Effect::ForkFound { .. }
        | Effect::Misbehaved { .. }
        | Effect::Disconnect { .. } => None,
    }
}
