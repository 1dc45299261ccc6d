//! Ed25519 signing and strict verification.
//!
//! Only `verify_strict` is used, never batch verification: with crafted signatures a batch accepts what a single
//! check refuses, depending on its neighbours, and replicas would disagree.

use std::fmt;

use ed25519_dalek::Signer as _;

use crate::id::{AuthorKey, OpId};

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

    /// Signs `message` for a use named by `context`, a text of less than 256 bytes. Deterministic (RFC 8032).
    #[must_use]
    pub fn sign(&self, context: &[u8], message: &[u8]) -> Signature {
        Signature(self.0.sign(&signed_message(context, message)).to_bytes())
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

    /// Returns whether this key signed this op.
    #[must_use]
    pub fn verify_op(&self, op: &OpId, signature: &Signature) -> bool {
        self.verify(SIGN_CONTEXT, op.as_bytes(), signature)
    }

    /// Returns whether this key signed `message` for the use named by `context`.
    #[must_use]
    pub fn verify(&self, context: &[u8], message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify_strict(&signed_message(context, message), &signature).is_ok()
    }
}

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

    #[test]
    fn weak_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(PublicKey::new(&AuthorKey::new(identity)).is_none());
        assert!(PublicKey::new(&AuthorKey::ZERO).is_none());
    }
}
