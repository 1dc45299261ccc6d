//! Order-independent digests of sets: the sum modulo 2²⁵⁶ of the hashes of their entries, and their number.
//!
//! Adding and removing an entry costs one hash and four additions, so a digest is kept up to date with every commit. A sum
//! is not proof against a member who crafts colliding entries; reconciliation itself therefore compares entries.

use serde::{Deserialize, Serialize};

use crate::hash::{Domain, hash};
use crate::id::{OpId, ShardId, StreamId};

/// Digest of a set of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ShardDigest {
    /// The sum, least significant limb first.
    sum: [u64; 4],
    /// Number of entries.
    count: u64,
}

impl ShardDigest {
    /// Adds the hash of an entry.
    pub fn add(&mut self, entry: &[u8; 32]) {
        self.sum = add_limbs(self.sum, limbs(entry));
        self.count = self.count.wrapping_add(1);
    }

    /// Removes the hash of an entry that was added before.
    pub fn remove(&mut self, entry: &[u8; 32]) {
        self.sum = add_limbs(self.sum, negated(limbs(entry)));
        self.count = self.count.wrapping_sub(1);
    }

    /// Adds all entries of another digest.
    pub fn merge(&mut self, other: &Self) {
        self.sum = add_limbs(self.sum, other.sum);
        self.count = self.count.wrapping_add(other.count);
    }

    /// Returns the number of entries.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the sum as 32 little-endian bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut out = [0; 32];
        for (bytes, limb) in out.chunks_exact_mut(8).zip(self.sum) {
            bytes.copy_from_slice(&limb.to_le_bytes());
        }
        out
    }

    /// Returns a short hash of the digest for comparing two replicas.
    #[must_use]
    pub fn short(&self) -> [u8; 16] {
        let long = hash(Domain::HeadDigest, &[b"short", &self.to_bytes(), &self.count.to_le_bytes()]);
        let mut out = [0; 16];
        out.copy_from_slice(long.first_chunk::<16>().unwrap_or(&[0; 16]));
        out
    }
}

fn limbs(bytes: &[u8; 32]) -> [u64; 4] {
    let mut out = [0; 4];
    for (limb, chunk) in out.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut array = [0; 8];
        array.copy_from_slice(chunk);
        *limb = u64::from_le_bytes(array);
    }
    out
}

fn add_limbs(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    let mut out = [0; 4];
    let mut carry = false;
    for ((limb, a), b) in out.iter_mut().zip(a).zip(b) {
        let (sum, first) = a.overflowing_add(b);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        *limb = sum;
        carry = first || second;
    }
    out
}

fn negated(a: [u64; 4]) -> [u64; 4] {
    add_limbs(a.map(|limb| !limb), [1, 0, 0, 0])
}

/// What a replica says about one stream: the entry of the shard's digest and of head lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadState {
    /// The stream up to here: to its end, or to the pin that closes it.
    Open(Tip),
    /// Two ops at one sequence number are known, this being the smallest; with the pin that decides between branches.
    Forked {
        /// Smallest sequence number with two ops.
        seq: u64,
        /// The pin, if one at or beyond the fork is known.
        pin: Option<Tip>,
    },
}

/// A position in a stream and the op there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Tip {
    /// Sequence number.
    pub seq: u64,
    /// Id of the op there; zero at 0.
    pub id: OpId,
}

impl Tip {
    /// Before the first op.
    pub const START: Self = Self { seq: 0, id: OpId::ZERO };
}

impl HeadState {
    /// Returns what the entry adds to the shard's digest.
    #[must_use]
    pub fn entry(&self, stream: &StreamId) -> [u8; 32] {
        match self {
            Self::Open(tip) => {
                hash(Domain::HeadDigest, &[b"open", stream.as_bytes(), &tip.seq.to_le_bytes(), tip.id.as_bytes()])
            }
            Self::Forked { seq, pin } => {
                let pin = pin.unwrap_or(Tip::START);
                hash(
                    Domain::HeadDigest,
                    &[b"fork", stream.as_bytes(), &seq.to_le_bytes(), &pin.seq.to_le_bytes(), pin.id.as_bytes()],
                )
            }
        }
    }
}

/// Returns what a shard adds to the roll-up over many shards.
pub(super) fn roll_up_entry(shard: &ShardId, digest: &ShardDigest) -> [u8; 32] {
    hash(
        Domain::HeadDigest,
        &[
            b"shard",
            shard.collection.as_str().as_bytes(),
            &shard.index.to_le_bytes(),
            &shard.of.to_le_bytes(),
            &digest.to_bytes(),
            &digest.count().to_le_bytes(),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_carry_and_do_not_depend_on_order() {
        let entries: Vec<[u8; 32]> =
            (0..50u8).map(|i| hash(Domain::HeadDigest, &[&[i]])).chain([[0xff; 32]; 3]).collect();
        let mut forward = ShardDigest::default();
        let mut backward = ShardDigest::default();
        entries.iter().for_each(|entry| forward.add(entry));
        entries.iter().rev().for_each(|entry| backward.add(entry));
        assert_eq!(forward, backward);
        assert_eq!(forward.count(), 53);
        entries.iter().for_each(|entry| forward.remove(entry));
        assert!(forward.is_empty());
        let mut carried = ShardDigest::default();
        carried.add(&[0xff; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        carried.add(&one);
        assert_eq!(carried.to_bytes(), [0; 32], "2^256 − 1 + 1 = 0");
    }

    #[test]
    fn entries_tell_states_apart() {
        let stream = StreamId::new([1; 32]);
        let tip = Tip { seq: 3, id: OpId::new([2; 32]) };
        let states = [
            HeadState::Open(tip),
            HeadState::Open(Tip { seq: 4, ..tip }),
            HeadState::Forked { seq: 3, pin: None },
            HeadState::Forked { seq: 3, pin: Some(tip) },
        ];
        for (i, a) in states.iter().enumerate() {
            for b in states.iter().skip(i + 1) {
                assert_ne!(a.entry(&stream), b.entry(&stream));
            }
            assert_ne!(a.entry(&stream), a.entry(&StreamId::new([9; 32])));
        }
    }
}
