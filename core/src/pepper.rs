//! Peppers: secrets of the cluster without which no guess at a password can be tested.
//!
//! The control log goes to every member, and with it what is known of passwords. A node that checks passwords of others has a
//! pepper besides, 256 random bits, and the verifier of a password is a hash of pepper and password. A pepper lies in the control
//! log too, sealed for each of the nodes that are to have it, so that it needs no file and no connection between them.
//!
//! A share is sealed as in age's X25519 recipients: a key drawn for the act alone, and that of the node (its Ed25519 key as a
//! point of Curve25519), agree on a secret (RFC 7748); a hash of that and of all that the share is bound to is the key of
//! ChaCha20-Poly1305 (RFC 8439), used once, so the nonce is zero. Layout: `docs/format.md`, "Peppers".

use std::collections::BTreeSet;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::Zeroizing;

use crate::hash::{Domain, hash};
use crate::id::{AuthorKey, ClusterId, ExchangeKey, PepperId, SealedPepper, TokenVerifier};
use crate::keys::{PublicKey, SecretKey};
use crate::limits::PEPPER_SHARES_MAX;
use crate::op::{PepperShare, PepperShares};

/// A pepper. It is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Pepper(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pepper({:?})", self.id())
    }
}

/// What a share is bound to: taken elsewhere it does not open.
#[derive(Clone, Copy)]
struct Bound<'a> {
    cluster: ClusterId,
    pepper: PepperId,
    sealed_with: &'a ExchangeKey,
    node: AuthorKey,
}

impl Bound<'_> {
    fn key(&self, agreed: &[u8; 32]) -> Option<LessSafeKey> {
        let parts: [&[u8]; 5] = [
            self.cluster.as_bytes(),
            self.pepper.as_bytes(),
            self.sealed_with.as_bytes(),
            self.node.as_bytes(),
            agreed,
        ];
        let key = Zeroizing::new(hash(Domain::PepperShare, &parts));
        UnboundKey::new(&CHACHA20_POLY1305, &*key).ok().map(LessSafeKey::new)
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl Pepper {
    /// Makes a pepper of 32 bytes of randomness.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// Returns its name.
    #[must_use]
    pub fn id(&self) -> PepperId {
        PepperId::new(hash(Domain::Pepper, &[&*self.0]))
    }

    /// Returns the verifier of a password, of what Argon2id made of it.
    #[must_use]
    pub fn verifier(&self, hashed: &[u8; 32]) -> TokenVerifier {
        TokenVerifier::of_password(&self.0, hashed)
    }

    /// Seals it for nodes, of which the first [`PEPPER_SHARES_MAX`] get a share; one whose key is weak gets none. `random` is 32
    /// fresh random bytes.
    #[must_use]
    pub fn share(&self, cluster: ClusterId, nodes: &BTreeSet<AuthorKey>, random: [u8; 32]) -> PepperShares {
        let random = Zeroizing::new(random);
        let (pepper, sealed_with) = (self.id(), ExchangeKey::new(x25519(*random, X25519_BASEPOINT_BYTES)));
        let sealed = |node: &AuthorKey| {
            let bound = Bound { cluster, pepper, sealed_with: &sealed_with, node: *node };
            Some(PepperShare { node: *node, sealed: self.sealed(&bound, &random)? })
        };
        PepperShares { pepper, sealed_with, shares: nodes.iter().filter_map(sealed).take(PEPPER_SHARES_MAX).collect() }
    }

    fn sealed(&self, bound: &Bound<'_>, random: &[u8; 32]) -> Option<SealedPepper> {
        let agreed = Zeroizing::new(x25519(*random, PublicKey::new(&bound.node)?.exchange()));
        let mut text = Zeroizing::new(*self.0);
        let tag = bound.key(&agreed)?.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut text[..]).ok()?;
        let mut sealed = [0; SealedPepper::LEN];
        let (content, end) = sealed.split_at_mut(text.len());
        content.copy_from_slice(&text[..]);
        end.copy_from_slice(tag.as_ref());
        Some(SealedPepper::new(sealed))
    }

    /// Opens the share of the node that has this key; none if it is another's, or does not hold what it says.
    #[must_use]
    pub fn open(
        cluster: ClusterId,
        pepper: PepperId,
        key: &SecretKey,
        (sealed_with, sealed): (&ExchangeKey, &SealedPepper),
    ) -> Option<Self> {
        let bound = Bound { cluster, pepper, sealed_with, node: key.author() };
        let mut content = Zeroizing::new(*sealed.as_bytes());
        let agreed = key.agree(sealed_with)?;
        let opened = bound.key(&agreed)?.open_in_place(nonce(), Aad::empty(), &mut content[..]).ok()?;
        let pepper = Self::new(<[u8; 32]>::try_from(&*opened).ok()?);
        (pepper.id() == bound.pepper).then_some(pepper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::new([9; 32]);

    fn node(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn shared(pepper: &Pepper, nodes: &[u8]) -> PepperShares {
        pepper.share(CLUSTER, &nodes.iter().map(|n| node(*n).author()).collect(), [7; 32])
    }

    fn opened(shares: &PepperShares, by: &SecretKey) -> Option<Pepper> {
        let share = shares.shares.iter().find(|share| share.node == by.author())?;
        Pepper::open(CLUSTER, shares.pepper, by, (&shares.sealed_with, &share.sealed))
    }

    #[test]
    fn each_node_opens_its_own_share_and_no_other() {
        let pepper = Pepper::new([1; 32]);
        let shares = shared(&pepper, &[1, 2, 3]);
        assert_eq!((shares.shares.len(), shares.pepper), (3, pepper.id()));
        for n in [1, 2, 3] {
            assert_eq!(opened(&shares, &node(n)), Some(pepper.clone()), "{n}");
        }
        for share in &shares.shares {
            let with = (&shares.sealed_with, &share.sealed);
            assert_eq!(Pepper::open(CLUSTER, shares.pepper, &node(4), with), None);
            let own = (1..=3).map(node).find(|key| key.author() == share.node).unwrap();
            assert_eq!(Pepper::open(ClusterId::new([8; 32]), shares.pepper, &own, with), None, "another cluster's");
            assert_eq!(Pepper::open(CLUSTER, PepperId::new([8; 32]), &own, with), None, "another pepper's");
            let other = ExchangeKey::new(x25519([6; 32], X25519_BASEPOINT_BYTES));
            assert_eq!(Pepper::open(CLUSTER, shares.pepper, &own, (&other, &share.sealed)), None);
            for bit in 0..SealedPepper::LEN * 8 {
                let mut damaged = *share.sealed.as_bytes();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let damaged = SealedPepper::new(damaged);
                assert_eq!(Pepper::open(CLUSTER, shares.pepper, &own, (&shares.sealed_with, &damaged)), None);
            }
        }
    }

    #[test]
    fn a_share_that_holds_another_pepper_does_not_open() {
        let (said, held) = (Pepper::new([1; 32]), Pepper::new([2; 32]));
        let key = node(1);
        let bound = Bound {
            cluster: CLUSTER,
            pepper: said.id(),
            sealed_with: &ExchangeKey::new(x25519([7; 32], X25519_BASEPOINT_BYTES)),
            node: key.author(),
        };
        let sealed = held.sealed(&bound, &[7; 32]).unwrap();
        assert_eq!(Pepper::open(CLUSTER, said.id(), &key, (bound.sealed_with, &sealed)), None);
        let sealed = said.sealed(&bound, &[7; 32]).unwrap();
        assert_eq!(Pepper::open(CLUSTER, said.id(), &key, (bound.sealed_with, &sealed)), Some(said));
    }

    #[test]
    fn points_of_small_order_agree_on_nothing() {
        let shares = shared(&Pepper::new([1; 32]), &[1]);
        for weak in [[0; 32], std::array::from_fn(|at| u8::from(at == 0))] {
            let weak = ExchangeKey::new(weak);
            assert!(node(1).agree(&weak).is_none());
            let with = (&weak, &shares.shares[0].sealed);
            assert_eq!(Pepper::open(CLUSTER, shares.pepper, &node(1), with), None);
        }
        let none = Pepper::new([1; 32]).share(CLUSTER, &BTreeSet::from([AuthorKey::ZERO]), [7; 32]);
        assert!(none.shares.is_empty());
    }

    #[test]
    fn a_verifier_hangs_on_pepper_and_password() {
        let verifier = Pepper::new([1; 32]).verifier(&[2; 32]);
        assert_eq!(verifier, Pepper::new([1; 32]).verifier(&[2; 32]));
        assert_ne!(verifier, Pepper::new([2; 32]).verifier(&[2; 32]));
        assert_ne!(verifier, Pepper::new([1; 32]).verifier(&[1; 32]));
        assert_ne!(verifier, TokenVerifier::of(&[2; 32]));
        // Its name tells nothing of it.
        let pepper = Pepper::new([1; 32]);
        assert_ne!(pepper.id().as_bytes(), verifier.as_bytes());
        assert!(!format!("{pepper:?}").contains("0101"));
    }
}
