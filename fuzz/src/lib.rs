//! What the fuzz targets do with their bytes. Plain functions: tests/tests/fuzz_corpus.rs includes this file and runs
//! them over the corpus without libFuzzer.
//!
//! A new target is a function here, its line in [`TARGETS`], a binary in `fuzz_targets/` and some seeds in `corpus/`.

use bytes::Bytes;
use folkmoot_core::document::Document;
use folkmoot_core::document::gate::{self, Admission, Candidate, prescan};
use folkmoot_core::id::{AuthorKey, ClusterId, CollectionName, OpId, StoreEpoch, StreamId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{Delete, Op, WriteAction};
use folkmoot_core::replication::{
    CertificateState, Config, Effect, Engine, Input, Lane, Peer, Policy, Subscription, Timestamp, Tip,
};
use sha2::{Digest as _, Sha256};

/// A target: the name of its binary and corpus, and its function, which panics where a promise is broken.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[("op", op), ("delete", delete), ("gate", gate), ("engine", engine)];

/// The first 32 bytes are the cluster, the rest is an op as it comes from a peer.
pub fn op(bytes: &[u8]) {
    let Some((cluster, bytes)) = bytes.split_first_chunk() else { return };
    let Ok(op) = Op::decode(bytes, ClusterId::new(*cluster)) else { return };
    assert_eq!(op.encode(), bytes, "a second encoding");
    assert_eq!(op.stream(), op.header().stream_key().id());
    let in_transactions: usize = op.transactions().map(|(_, bodies)| bodies.len()).sum();
    assert_eq!(in_transactions, op.bodies().len());
    assert!(op.header().shard.is_valid());
}

/// A body that the header calls a delete.
pub fn delete(bytes: &[u8]) {
    let Ok(delete) = Delete::decode(bytes) else { return };
    assert_eq!(&delete.encode()[..], bytes, "a second encoding");
    assert!(delete.heads.is_sorted() && !delete.heads.is_empty());
}

/// Splits bytes into parts, each preceded by its length as a little-endian u16; the last takes what there is.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (part, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*len))));
        bytes = rest;
        Some(part)
    })
}

/// A few changes offered to a document, one batch each. Their checksums are put right first, or hardly one would come
/// past them.
pub fn gate(bytes: &[u8]) {
    let changes: Vec<_> = parts(bytes).take(16).map(with_checksum).collect();
    // Automerge recurses; the caller of the gate owes it this stack.
    let work = move || {
        let mut document = Document::new();
        for change in &changes {
            offer(&mut document, change);
        }
    };
    std::thread::Builder::new()
        .stack_size(gate::STACK_BYTES)
        .spawn(work)
        .expect("a thread starts")
        .join()
        .expect("the gate does not panic");
}

fn offer(document: &mut Document, bytes: &[u8]) {
    let Ok(scan) = prescan(bytes) else { return };
    let action = if scan.deps.is_empty() { WriteAction::Create } else { WriteAction::Update };
    let before = document.heads().to_vec();
    match document.admit(&[Candidate { bytes, actor: scan.actor, action }]).as_slice() {
        [Admission::Admitted(hash)] => {
            assert_eq!(*hash, scan.hash);
            assert_eq!(document.change_bytes(hash).as_deref(), Some(bytes), "read back otherwise");
            let snapshot = document.snapshot().expect("an admitted document can be saved and loaded");
            let again = Document::load(Some(&snapshot), [], Default::default(), Default::default())
                .expect("an admitted document loads");
            assert_eq!(again.heads(), document.heads());
        }
        [Admission::Known(_) | Admission::MissingDeps(_) | Admission::Bad(_) | Admission::Held(_)] => {
            assert_eq!(document.heads(), before, "refused, and yet something changed");
        }
        other => panic!("one candidate, {} answers", other.len()),
    }
}

/// Writes the checksum of an Automerge chunk: magic (4 bytes), checksum (4), then what it is over.
fn with_checksum(chunk: &[u8]) -> Vec<u8> {
    let mut chunk = chunk.to_vec();
    if let Some((head, rest)) = chunk.split_first_chunk_mut::<8>() {
        let digest = Sha256::digest(&*rest);
        head[4..].copy_from_slice(&digest[..4]);
    }
    chunk
}

/// The cluster of the golden files, so that their ops are of use as seeds.
const CLUSTER: &str = "4ff802d5c789ce2dcf24e480f1d815a1b9394bfa8a9b9c7dbd54b758d2984d9a";

/// Everything is allowed: what the engine takes from bytes alone is what is tried here.
struct Trusting;

impl Policy for Trusting {
    fn certificate(&self, _: &OpId, _: &AuthorKey) -> CertificateState {
        CertificateState::Known
    }

    fn closed_at(&self, _: &StreamId) -> Option<Tip> {
        None
    }

    fn is_member(&self, _: &Peer) -> bool {
        true
    }

    fn may_sync(&self, _: &Peer, _: &CollectionName) -> bool {
        true
    }
}

/// Frames from a member that has said hello, on the lane that the first byte of each names.
pub fn engine(bytes: &[u8]) {
    let (me, peer) = (SecretKey::from_seed(&[0x51; 32]).author(), SecretKey::from_seed(&[0x52; 32]).author());
    let cluster: ClusterId = CLUSTER.parse().expect("hexadecimal");
    let now = Timestamp::from_micros(1_767_323_045_678_000);
    let config = Config { me, cluster, epoch: StoreEpoch::new([1; 8]), subscription: Subscription::All, seed: 7, now };
    let mut engine = Engine::new(config, [], [], &Trusting);
    let mut effects = Vec::new();
    engine.step(now, Input::PeerUp { peer }, &Trusting, &mut effects);
    let nobody: Option<Vec<CollectionName>> = None;
    let hello = folkmoot_core::op::codec::encode(&(0_u8, (1_u16, cluster, peer, StoreEpoch::new([2; 8]), nobody)));
    engine.step(now, Input::Frame { peer, lane: Lane::Control, bytes: hello.into() }, &Trusting, &mut effects);
    for part in parts(bytes).take(64) {
        let Some((lane, frame)) = part.split_first() else { continue };
        let lane = Lane::ALL[usize::from(*lane) % Lane::ALL.len()];
        let frame = Bytes::copy_from_slice(frame);
        engine.step(now, Input::Frame { peer, lane, bytes: frame }, &Trusting, &mut effects);
        // The store of this replica is empty and takes nothing.
        let mut answers = 0;
        while let Some(effect) = effects.pop() {
            let input = match effect {
                Effect::Ingest { shard, stream, .. } => Input::Refused { shard, stream },
                Effect::ReadOps { ticket, .. } => Input::OpsRead { ticket, ops: Vec::new() },
                Effect::ReadIds { ticket, seqs, .. } => Input::IdsRead { ticket, ids: vec![None; seqs.len()] },
                Effect::ReadBranches { ticket, .. } => Input::BranchesRead { ticket, branches: Vec::new() },
                Effect::LocateChanges { ticket, .. } => Input::ChangesLocated { ticket, found: Vec::new() },
                _ => continue,
            };
            engine.step(now, input, &Trusting, &mut effects);
            answers += 1;
            assert!(answers < 10_000, "one frame keeps the engine busy for ever");
        }
    }
}
