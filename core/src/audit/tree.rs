//! The Merkle tree of RFC 6962, section 2.1, with SHA-256: roots, and proofs that a leaf is in a tree and that a tree extends another.
//!
//! Proofs are made of the hashes of complete subtrees, which whoever keeps the tree gives by level and position ([`Nodes`]). They are
//! checked as in RFC 9162, sections 2.1.3.2 and 2.1.4.2.

use sha2::{Digest as _, Sha256};

/// A hash in the tree.
pub type Hash = [u8; 32];

/// Hashes in a proof: a path through the largest tree, and as many again beside it.
pub const PROOF_HASHES_MAX: usize = 128;

/// Returns the hash of a leaf.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// Returns the hash of a node above two others.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Returns the root of the tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Gives the hashes of complete subtrees.
pub trait Nodes {
    /// Why it cannot.
    type Error;

    /// Returns the hash over the 2^`level` leaves that begin at `index` · 2^`level`. All of them are in the tree.
    ///
    /// # Errors
    /// Where the hash cannot be had.
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// A tree that only grows: its size, and the hashes of the complete subtrees of which it is made, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    subtrees: Vec<Hash>,
}

/// A complete subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Its height: it has 2^level leaves.
    pub level: u8,
    /// How many of its size are before it.
    pub index: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Frontier {
    /// Returns the number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its hash; `completed` is told of each subtree that is complete by it, the leaf itself left out.
    pub fn append(&mut self, leaf: Hash, completed: impl FnMut(Subtree)) {
        self.append_subtree(0, leaf, completed);
    }

    /// Adds a complete subtree of which the size is a multiple; `completed` is told as by [`Self::append`].
    ///
    /// # Panics
    /// Never: a subtree that does not fit is a mistake of the caller's and makes a root that no checkpoint has.
    pub fn append_subtree(&mut self, level: u8, hash: Hash, mut completed: impl FnMut(Subtree)) {
        let mut hash = hash;
        let mut height = level;
        let mut index = self.size >> level;
        while index & 1 == 1 {
            let Some(left) = self.subtrees.pop() else { break };
            hash = node_hash(&left, &hash);
            height += 1;
            index >>= 1;
            completed(Subtree { level: height, index, hash });
        }
        self.subtrees.push(hash);
        self.size += 1 << level;
    }

    /// Returns the root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(last) = subtrees.next() else { return empty_root() };
        subtrees.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Returns the largest power of two that is less than `len`, which is at least 2.
const fn split(len: u64) -> u64 {
    1 << (u64::BITS - 1 - (len - 1).leading_zeros())
}

/// Returns the root over `len` leaves from `start`, which begins a subtree of the tree.
fn range<N: Nodes>(nodes: &N, start: u64, len: u64) -> Result<Hash, N::Error> {
    if len == 0 {
        return Ok(empty_root());
    }
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return nodes.subtree(level as u8, start >> level);
    }
    let left = split(len);
    Ok(node_hash(&range(nodes, start, left)?, &range(nodes, start + left, len - left)?))
}

/// Returns the root of the first `size` leaves.
///
/// # Errors
/// As [`Nodes::subtree`].
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    range(nodes, 0, size)
}

/// Returns the hashes that prove that leaf `index` is in the tree of `size` leaves; `index` is less than `size`.
///
/// # Errors
/// As [`Nodes::subtree`].
pub fn inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    let (mut start, mut len) = (0, size);
    while len > 1 {
        let left = split(len);
        if index < start + left {
            path.push(range(nodes, start + left, len - left)?);
            len = left;
        } else {
            path.push(range(nodes, start, left)?);
            start += left;
            len -= left;
        }
    }
    path.reverse();
    Ok(path)
}

/// Returns the hashes that prove that the tree of `second` leaves begins with that of `first`, which is not greater.
///
/// # Errors
/// As [`Nodes::subtree`].
pub fn consistency<N: Nodes>(nodes: &N, first: u64, second: u64) -> Result<Vec<Hash>, N::Error> {
    if first == 0 || first >= second {
        return Ok(Vec::new());
    }
    let mut path = Vec::new();
    let (mut start, mut len, mut whole) = (0, second, true);
    // `first` counts from `start` here.
    let mut first = first;
    while first != len {
        let left = split(len);
        if first <= left {
            path.push(range(nodes, start + left, len - left)?);
            len = left;
        } else {
            path.push(range(nodes, start, left)?);
            start += left;
            len -= left;
            first -= left;
            whole = false;
        }
    }
    if !whole {
        path.push(range(nodes, start, len)?);
    }
    path.reverse();
    Ok(path)
}

/// Returns whether `path` proves that the leaf with this hash is the one at `index` of the tree.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size || path.len() > PROOF_HASHES_MAX {
        return false;
    }
    let mut hash = *leaf;
    let reaches_top = climb(index, size - 1, path, |side, other| {
        hash = match side {
            Side::Left => node_hash(other, &hash),
            Side::Right => node_hash(&hash, other),
        };
    });
    reaches_top && hash == *root
}

/// Returns whether `path` proves that the tree of `second` leaves and root `second_root` begins with that of `first` leaves.
#[must_use]
pub fn verify_consistency(first: u64, first_root: &Hash, second: u64, second_root: &Hash, path: &[Hash]) -> bool {
    if first > second || path.len() > PROOF_HASHES_MAX {
        return false;
    }
    if first == 0 {
        return path.is_empty() && *first_root == empty_root();
    }
    if first == second {
        return path.is_empty() && first_root == second_root;
    }
    // A tree that is one subtree is not in the proof: it is known.
    let mut hashes = first.is_power_of_two().then_some(first_root).into_iter().chain(path);
    let Some(start) = hashes.next() else { return false };
    let (mut at, mut last) = (first - 1, second - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (*start, *start);
    let reaches_top = climb(at, last, hashes, |side, other| match side {
        // What is to the left is in the smaller tree too.
        Side::Left => {
            old = node_hash(other, &old);
            new = node_hash(other, &new);
        }
        Side::Right => new = node_hash(&new, other),
    });
    reaches_top && old == *first_root && new == *second_root
}

/// On which side of the path a hash of a proof lies.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// Climbs from node `at` of a level, of which `last` is the last, by one hash of the proof after the other, and tells on which side
/// each lies. Returns whether the root is reached with the last of them.
fn climb<'a>(
    mut at: u64,
    mut last: u64,
    hashes: impl IntoIterator<Item = &'a Hash>,
    mut step: impl FnMut(Side, &Hash),
) -> bool {
    for other in hashes {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            step(Side::Left, other);
            // Nothing is beside the last node of a level: it goes up as it is.
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            step(Side::Right, other);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    struct Leaves(Vec<Hash>);

    impl Nodes for Leaves {
        type Error = Infallible;

        fn subtree(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
            if level == 0 {
                return Ok(self.0[usize::try_from(index).unwrap()]);
            }
            Ok(node_hash(&self.subtree(level - 1, 2 * index)?, &self.subtree(level - 1, 2 * index + 1)?))
        }
    }

    fn hash(text: &str) -> Hash {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    }

    /// The leaves that certificate transparency's own tests use.
    fn known() -> Vec<Vec<u8>> {
        let ranges = [0..0, 0..1, 0x10..0x11, 0x20..0x22, 0x30..0x32, 0x40..0x44, 0x50..0x58, 0x60..0x70];
        ranges.into_iter().map(Iterator::collect).collect()
    }

    fn leaves(of: &[Vec<u8>]) -> Leaves {
        Leaves(of.iter().map(|leaf| leaf_hash(leaf)).collect())
    }

    const A: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    const B: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
    const C: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
    const D: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
    const E: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
    const F: &str = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7";
    const G: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            F,
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let nodes = leaves(&known());
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
        for (size, expected) in (1..).zip(roots) {
            frontier.append(leaf_hash(&known()[size - 1]), |_| {});
            assert_eq!(frontier.root(), hash(expected), "size {size}");
            assert_eq!(root(&nodes, size as u64), Ok(hash(expected)), "size {size}");
        }
    }

    #[test]
    fn proofs_are_those_of_certificate_transparency() {
        let nodes = leaves(&known());
        assert_eq!(inclusion(&nodes, 0, 8), Ok(vec![hash(A), hash(B), hash(C)]));
        assert_eq!(inclusion(&nodes, 5, 8), Ok(vec![hash(D), hash(E), hash(F)]));
        assert_eq!(consistency(&nodes, 1, 8), Ok(vec![hash(A), hash(B), hash(C)]));
        assert_eq!(consistency(&nodes, 6, 8), Ok(vec![hash(G), hash(E), hash(F)]));
    }

    proptest! {
        #[test]
        fn proofs_hold_and_tampered_ones_do_not(
            size in 1_u64..200, pick in any::<prop::sample::Index>(), shorter in any::<prop::sample::Index>(),
            bit in 0_usize..256, at in any::<prop::sample::Index>(),
        ) {
            let leaves = Leaves((0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect());
            let mut frontier = Frontier::default();
            let mut built = Vec::new();
            for leaf in &leaves.0 {
                frontier.append(*leaf, |subtree| built.push(subtree));
            }
            for Subtree { level, index, hash } in built {
                prop_assert_eq!(leaves.subtree(level, index), Ok(hash));
            }
            let whole = frontier.root();
            prop_assert_eq!(root(&leaves, size), Ok(whole));
            let index = pick.index(leaves.0.len()) as u64;
            let leaf = leaves.0[usize::try_from(index).unwrap()];
            let path = inclusion(&leaves, index, size).unwrap();
            prop_assert!(verify_inclusion(&leaf, index, size, &path, &whole));
            prop_assert!(!verify_inclusion(&leaf, index + 1, size, &path, &whole));
            let flipped = |hash: &Hash| { let mut hash = *hash; hash[bit / 8] ^= 1 << (bit % 8); hash };
            prop_assert!(!verify_inclusion(&flipped(&leaf), index, size, &path, &whole));
            prop_assert!(!verify_inclusion(&leaf, index, size, &path, &flipped(&whole)));
            let spoiled = |path: &[Hash]| {
                let mut path = path.to_vec();
                let at = at.index(path.len());
                path[at] = flipped(&path[at]);
                path
            };
            if !path.is_empty() {
                prop_assert!(!verify_inclusion(&leaf, index, size, &spoiled(&path), &whole));
                prop_assert!(!verify_inclusion(&leaf, index, size, &path[1..], &whole));
            }
            let first = 1 + shorter.index(leaves.0.len()) as u64;
            let first_root = root(&leaves, first).unwrap();
            let path = consistency(&leaves, first, size).unwrap();
            prop_assert!(verify_consistency(first, &first_root, size, &whole, &path));
            prop_assert!(!verify_consistency(first, &flipped(&first_root), size, &whole, &path));
            prop_assert!(!verify_consistency(first, &first_root, size, &flipped(&whole), &path));
            prop_assert!(!verify_consistency(first, &first_root, first - 1, &whole, &path));
            if !path.is_empty() {
                prop_assert!(!verify_consistency(first, &first_root, size, &whole, &spoiled(&path)));
                prop_assert!(!verify_consistency(first, &first_root, size, &whole, &path[1..]));
            }
            prop_assert!(verify_consistency(0, &empty_root(), size, &whole, &[]));
        }
    }
}
