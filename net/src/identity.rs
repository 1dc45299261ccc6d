//! Folkmoot's keys as libp2p's identities and back. Both are ed25519: a `PeerId` of such a key contains the whole
//! public key, so the conversion loses nothing.

use folkmoot_core::id::AuthorKey;
use folkmoot_core::keys::SecretKey;
use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};

/// Multihash code of "identity": the digest is the encoded key itself.
const MULTIHASH_IDENTITY: u64 = 0;

/// Returns the libp2p identity of an author, or `None` if the bytes are no point of the curve.
#[must_use]
pub fn peer_id(author: &AuthorKey) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(author.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// Returns the author whose libp2p identity this is, or `None` if it is not that of an ed25519 key.
#[must_use]
pub fn author_key(peer: &PeerId) -> Option<AuthorKey> {
    let multihash = peer.as_ref();
    if multihash.code() != MULTIHASH_IDENTITY {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(multihash.digest()).ok()?.try_into_ed25519().ok()?;
    Some(AuthorKey::new(key.to_bytes()))
}

/// Returns the libp2p key pair of a secret key.
pub(crate) fn keypair(secret: &SecretKey) -> Keypair {
    // The library wipes the copy it is given.
    Keypair::ed25519_from_bytes(secret.to_seed()).expect("every 32 bytes are an ed25519 seed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_and_its_peer_id_name_each_other() {
        for seed in 0..32 {
            let secret = SecretKey::from_seed(&[seed; 32]);
            let peer = peer_id(&secret.author()).unwrap();
            assert_eq!(peer, keypair(&secret).public().to_peer_id());
            assert_eq!(author_key(&peer), Some(secret.author()));
        }
    }

    #[test]
    fn other_identities_have_no_author() {
        assert_eq!(author_key(&PeerId::random()), None, "a random id is a hash, not a key");
        let not_a_point = (0..=u8::MAX).map(|b| AuthorKey::new([b; 32])).find(|key| peer_id(key).is_none());
        assert!(not_a_point.is_some(), "about half of all byte strings are no point");
    }
}
