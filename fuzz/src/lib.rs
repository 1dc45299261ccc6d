//! What the fuzz targets do with their bytes. Plain functions: tests/tests/fuzz_corpus.rs includes this file and runs
//! them over the corpus without libFuzzer.
//!
//! A new target is a function here, its line in [`TARGETS`], a binary in `fuzz_targets/` and some seeds in `corpus/`.

use folkmoot_core::id::ClusterId;
use folkmoot_core::op::{Delete, Op};

/// A target: the name of its binary and corpus, and its function, which panics where a promise is broken.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[("op", op), ("delete", delete)];

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
