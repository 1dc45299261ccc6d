//! Ed25519 signing and strict verification.
//!
//! Only `verify_strict` is used, never batch verification: with crafted signatures a batch accepts what a single
//! check refuses, depending on its neighbours, and replicas would disagree.

use std::fmt;

use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use crate::id::{AuthorKey, ExchangeKey, OpId};

/// What precedes the op id in the signed message.
const SIGN_CONTEXT: &[u8] = b"folkmoot/1/sign-op";

/// The context's length comes first, so no context can be the beginning of another one and its message.
fn signed_message(context: &[u8], message: &[u8]) -> Vec<u8> {
    // Contexts are constants of the program; one too long for its length byte stops at the first use in any test.
    assert!(context.len() < 256, "a signing context has less than 256 bytes");
    [&[context.len() as u8], context, message].concat()
}

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps raw bytes, unverified.
    #[must_use]
    pub const fn new(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// Returns the raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(…)")
    }
}

/// A private key. It is wiped when dropped and never printed.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// Makes the key from 32 bytes of randomness (or of a key file).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Returns the 32 bytes to keep in a key file of mode 0600.
    #[must_use]
    pub fn to_seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Returns the public key.
    #[must_use]
    pub fn author(&self) -> AuthorKey {
        AuthorKey::new(self.0.verifying_key().to_bytes())
    }

    /// Signs an op by its id.
    #[must_use]
    pub fn sign_op(&self, op: &OpId) -> Signature {
        self.sign(SIGN_CONTEXT, op.as_bytes())
    }

    /// Signs a text as it is, for signed notes, whose form other programs know. The text begins with a letter that is no length of
    /// a context here, so what is signed so stands for nothing else; see [`crate::audit::note`]. Deterministic (RFC 8032).
    #[must_use]
    pub fn sign_text(&self, text: &str) -> Signature {
        Signature(self.0.sign(text.as_bytes()).to_bytes())
    }

    /// Signs `message` for a use named by `context`, a text of less than 256 bytes. Deterministic (RFC 8032).
    #[must_use]
    pub fn sign(&self, context: &[u8], message: &[u8]) -> Signature {
        Signature(self.0.sign(&signed_message(context, message)).to_bytes())
    }
}

impl SecretKey {
    /// Returns the secret that this key, as one of X25519 (RFC 7748), and another have in common; none if the other is a point of
    /// small order, with which everybody has the same.
    pub(crate) fn agree(&self, other: &ExchangeKey) -> Option<Zeroizing<[u8; 32]>> {
        let scalar = Zeroizing::new(self.0.to_scalar_bytes());
        let agreed = Zeroizing::new(x25519_dalek::x25519(*scalar, *other.as_bytes()));
        (*agreed != [0; 32]).then_some(agreed)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.author())
    }
}

/// A public key ready to verify with. Making one costs 4 µs, so keep it.
#[derive(Clone, Debug)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// Returns the key, or `None` if the bytes are no point of the curve or one of small order.
    #[must_use]
    pub fn new(author: &AuthorKey) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(author.as_bytes()).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// Returns the key as one of X25519: the same point in Montgomery's form.
    pub(crate) fn exchange(&self) -> [u8; 32] {
        self.0.to_montgomery().to_bytes()
    }

    /// Returns whether this key signed this op.
    #[must_use]
    pub fn verify_op(&self, op: &OpId, signature: &Signature) -> bool {
        self.verify(SIGN_CONTEXT, op.as_bytes(), signature)
    }

    /// Returns whether this key signed a text as it is; see [`SecretKey::sign_text`].
    #[must_use]
    pub fn verify_text(&self, text: &str, signature: &Signature) -> bool {
        self.0.verify_strict(text.as_bytes(), &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }

    /// Returns whether this key signed `message` for the use named by `context`.
    #[must_use]
    pub fn verify(&self, context: &[u8], message: &[u8], signature: &Signature) -> bool {
        let message = signed_message(context, message);
        #[cfg(feature = "testing")]
        if let Some(known) = verified::is_known(self, &message, signature) {
            return known;
        }
        self.0.verify_strict(&message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

/// Signatures that hold, remembered for simulators: there each op is verified by every replica of one process, and most of
/// the time would go into that. A signature that does not hold is never remembered, so what is forged is refused.
#[cfg(feature = "testing")]
mod verified {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::{PublicKey, Signature};

    /// Signatures remembered by a thread, of 32 bytes each; beyond, it forgets all of them.
    const REMEMBERED_MAX: usize = 1 << 20;

    thread_local! {
        static REMEMBERED: RefCell<Option<BTreeSet<[u8; 32]>>> = const { RefCell::new(None) };
    }

    /// Makes this thread remember the signatures that hold, beginning with none.
    pub fn remember_signatures() {
        REMEMBERED.set(Some(BTreeSet::new()));
    }

    /// Returns whether a signature holds, if this thread remembers signatures.
    pub(super) fn is_known(key: &PublicKey, message: &[u8], signature: &Signature) -> Option<bool> {
        REMEMBERED.with_borrow_mut(|remembered| {
            let remembered = remembered.as_mut()?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(key.0.as_bytes()).update(&signature.0).update(message);
            let triple = *hasher.finalize().as_bytes();
            if remembered.contains(&triple) {
                return Some(true);
            }
            let holds = key.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok();
            if holds {
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.clear();
                }
                remembered.insert(triple);
            }
            Some(holds)
        })
    }
}

#[cfg(feature = "testing")]
pub use verified::remember_signatures;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_hold_for_their_op_and_context_only() {
        let secret = SecretKey::from_seed(&[7; 32]);
        let public = PublicKey::new(&secret.author()).unwrap();
        let signature = secret.sign_op(&OpId::new([1; 32]));
        assert!(public.verify_op(&OpId::new([1; 32]), &signature));
        assert!(!public.verify_op(&OpId::new([2; 32]), &signature));
        assert!(!public.verify(b"other", OpId::new([1; 32]).as_bytes(), &signature));
        let signature = secret.sign(b"ab", b"c");
        assert!(public.verify(b"ab", b"c", &signature) && !public.verify(b"a", b"bc", &signature));
        let other = PublicKey::new(&SecretKey::from_seed(&[8; 32]).author()).unwrap();
        assert!(!other.verify_op(&OpId::new([1; 32]), &signature));
    }

    #[cfg(feature = "testing")]
    #[test]
    fn remembered_signatures_hold_for_their_key_and_message_only() {
        remember_signatures();
        let secret = SecretKey::from_seed(&[7; 32]);
        let (public, other) = (
            PublicKey::new(&secret.author()).unwrap(),
            PublicKey::new(&SecretKey::from_seed(&[8; 32]).author()).unwrap(),
        );
        let signature = secret.sign_op(&OpId::new([1; 32]));
        for _ in 0..2 {
            assert!(public.verify_op(&OpId::new([1; 32]), &signature));
            assert!(!public.verify_op(&OpId::new([2; 32]), &signature));
            assert!(!other.verify_op(&OpId::new([1; 32]), &signature));
            for byte in [0, 31, 32, 63] {
                let mut forged = *signature.as_bytes();
                forged[byte] ^= 1;
                assert!(!public.verify_op(&OpId::new([1; 32]), &Signature::new(forged)));
            }
        }
    }

    #[test]
    fn weak_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(PublicKey::new(&AuthorKey::new(identity)).is_none());
        assert!(PublicKey::new(&AuthorKey::ZERO).is_none());
    }
}
