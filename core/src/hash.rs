//! The one hash of the project: BLAKE3-256 over a domain and length-prefixed parts.
//!
//! Every use names its domain, so bytes signed or hashed for one purpose can never stand for another.
//! (Automerge's own change hashes are SHA-256; they appear only as [`crate::id::ChangeHash`].)

/// What a hash or signature is for. The text is part of the format: see `docs/format.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Domain {
    /// An op header; the result is the op id and is what the author signs.
    OpHeader,
    /// The identity of a stream.
    Stream,
    /// The salted commitment to a body.
    Commitment,
    /// The Automerge actor of an author session in one document.
    Actor,
    /// Which shard of a collection a document belongs to.
    Placement,
    /// One entry of a shard's head digest.
    HeadDigest,
    /// One entry of a shard's document digest.
    DocDigest,
    /// The hash of a recovery key.
    RecoveryKey,
    /// A change of owners, as the recovery keys sign it that do not sign the op.
    Succession,
    /// A client's idempotency key.
    Request,
    /// What a client asked for under an idempotency key.
    RequestContent,
    /// The checksum of a slot of the watermark file.
    Watermark,
    /// The secret of an API token.
    Token,
    /// The text of a JSON Schema.
    Schema,
    /// The name of a pepper.
    Pepper,
    /// What seals a pepper for a node.
    PepperShare,
    /// Values that no two documents are to share, under a secret of the node; and the constraints that are held.
    Unique,
    /// Signatures and hashes of the network layer (tickets, beacons).
    Network,
}

impl Domain {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::OpHeader => b"folkmoot/1/op",
            Self::Stream => b"folkmoot/1/stream",
            Self::Commitment => b"folkmoot/1/commitment",
            Self::Actor => b"folkmoot/1/actor",
            Self::Placement => b"folkmoot/1/placement",
            Self::HeadDigest => b"folkmoot/1/head-digest",
            Self::DocDigest => b"folkmoot/1/doc-digest",
            Self::RecoveryKey => b"folkmoot/1/recovery-key",
            Self::Succession => b"folkmoot/1/succession",
            Self::Request => b"folkmoot/1/request",
            Self::RequestContent => b"folkmoot/1/request-content",
            Self::Watermark => b"folkmoot/1/watermark",
            Self::Token => b"folkmoot/1/token",
            Self::Schema => b"folkmoot/1/schema",
            Self::Pepper => b"folkmoot/1/pepper",
            Self::PepperShare => b"folkmoot/1/pepper-share",
            Self::Unique => b"folkmoot/1/unique",
            Self::Network => b"folkmoot/1/network",
        }
    }
}

/// Returns BLAKE3-256 of the domain and the parts, each preceded by its length as a little-endian u32.
#[must_use]
pub fn hash(domain: Domain, parts: &[&[u8]]) -> [u8; 32] {
    finish(blake3::Hasher::new(), domain, parts)
}

/// Returns the first 16 bytes of [`hash`], for names that need not withstand collisions found on purpose.
#[must_use]
pub fn hash_short(domain: Domain, parts: &[&[u8]]) -> [u8; 16] {
    first_half(hash(domain, parts))
}

/// Returns the same under a key: who has not the key cannot try out what was hashed.
#[must_use]
pub fn keyed_hash_short(key: &[u8; 32], domain: Domain, parts: &[&[u8]]) -> [u8; 16] {
    first_half(finish(blake3::Hasher::new_keyed(key), domain, parts))
}

fn first_half(digest: [u8; 32]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    first
}

fn finish(mut hasher: blake3::Hasher, domain: Domain, parts: &[&[u8]]) -> [u8; 32] {
    for part in std::iter::once(&domain.tag()).chain(parts) {
        // Parts are bounded far below 4 GiB by `limits`; saturating keeps the function total.
        hasher.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_part_borders_matter() {
        assert_ne!(hash(Domain::Stream, &[b"ab", b"c"]), hash(Domain::Stream, &[b"a", b"bc"]));
        assert_ne!(hash(Domain::Stream, &[b"ab"]), hash(Domain::OpHeader, &[b"ab"]));
        let keyed = |key| keyed_hash_short(&[key; 32], Domain::Unique, &[b"ab"]);
        assert!(keyed(1) != keyed(2) && keyed(1) != hash_short(Domain::Unique, &[b"ab"]));
    }
}
