//! What seals one value: XChaCha20-Poly1305 with a random nonce of 24 bytes, over the value compressed if that makes it shorter.
//! Layout: `docs/format.md`, "Sealed values".

use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{KeyInit as _, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::StoreId;
use crate::store::{Keyspace, VALUE_BYTES_MAX};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce: random ones of this length do not repeat.
pub(super) const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Shorter values are not compressed: the gain is less than its price. Sealed bytes themselves cannot be compressed by the
/// engine below.
const COMPRESSED_BYTES_MIN: usize = 512;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// A key that seals values. Overwritten when it is dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

/// What a sealed value is bound to: taken elsewhere it does not open.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) store: &'a StoreId,
    /// What the value is: one of the constants below.
    pub(super) role: u8,
    pub(super) keyspace: &'a str,
    /// Which part of the entry: number of a body, epoch of the wrapping key; else 0.
    pub(super) part: u32,
    /// The entry's key, or the file's name.
    pub(super) key: &'a [u8],
}

/// The value of an entry.
pub(super) const VALUE: u8 = 0;
/// Header and signature of an op.
pub(super) const OP_HEAD: u8 = 1;
/// A body of an op.
pub(super) const OP_BODY: u8 = 2;
/// A document's key under its collection's.
pub(super) const DOCUMENT_KEY: u8 = 3;
/// A file beside the store.
pub(super) const FILE: u8 = 4;
/// The keyring under the master key.
pub(super) const KEYRING: u8 = 5;

impl<'a> Place<'a> {
    pub(super) const fn entry(store: &'a StoreId, role: u8, keyspace: Keyspace, part: u32, key: &'a [u8]) -> Self {
        Self { store, role, keyspace: keyspace.name(), part, key }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 1 + 4 + self.keyspace.len() + 1 + self.key.len());
        out.extend_from_slice(self.store);
        out.push(self.role);
        out.extend_from_slice(&self.part.to_be_bytes());
        out.extend_from_slice(self.keyspace.as_bytes());
        // No name of a keyspace holds a zero byte.
        out.push(0);
        out.extend_from_slice(self.key);
        out
    }
}

impl SealKey {
    /// Takes a key's bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the key's bytes, to be wrapped or shown to its owner.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Seals a value: nonce, ciphertext, tag.
    pub(super) fn seal(&self, nonce: [u8; NONCE_BYTES], place: &Place<'_>, value: &[u8]) -> Vec<u8> {
        let compressed = (value.len() >= COMPRESSED_BYTES_MIN)
            .then(|| lz4_flex::block::compress_prepend_size(value))
            .filter(|compressed| compressed.len() < value.len());
        let (form, content) = compressed.as_deref().map_or((PLAIN, value), |compressed| (LZ4, compressed));
        let mut out = Vec::with_capacity(NONCE_BYTES + 1 + content.len() + TAG_BYTES);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(content);
        // Last, so that it is taken off without moving the others.
        out.push(form);
        let (_, text) = out.split_at_mut(NONCE_BYTES);
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        #[expect(clippy::expect_used, reason = "refuses only what is longer than 256 GiB")]
        let tag = cipher
            .encrypt_in_place_detached(XNonce::from_slice(&nonce), &place.bytes(), text)
            .expect("a value is short enough");
        out.extend_from_slice(&tag);
        out
    }

    /// Opens what [`Self::seal`] made for the same place; none if it is anything else.
    pub(super) fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_BYTES)?;
        let (text, tag) = rest.split_at_checked(rest.len().checked_sub(TAG_BYTES)?)?;
        let mut content = text.to_vec();
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let nonce = XNonce::from_slice(nonce);
        cipher.decrypt_in_place_detached(nonce, &place.bytes(), &mut content, Tag::from_slice(tag)).ok()?;
        match content.pop()? {
            PLAIN => Some(content),
            LZ4 => {
                let (size, compressed) = lz4_flex::block::uncompressed_size(&content).ok()?;
                if size > VALUE_BYTES_MAX {
                    return None;
                }
                lz4_flex::block::decompress(compressed, size).ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = [7; 16];

    #[test]
    fn opens_only_at_its_place_and_with_its_key() {
        let key = SealKey::new([1; 32]);
        for value in [
            Vec::new(),
            b"short".to_vec(),
            b"long and the same again ".repeat(100),
            (0..=255).cycle().take(600).collect(),
        ] {
            let place = Place::entry(&STORE, VALUE, Keyspace::Views, 0, b"key");
            let sealed = key.seal([2; NONCE_BYTES], &place, &value);
            assert_eq!(key.open(&place, &sealed).as_ref(), Some(&value));
            let others = [
                Place { store: &[8; 16], ..place },
                Place { role: OP_BODY, ..place },
                Place { keyspace: Keyspace::Tail.name(), ..place },
                Place { part: 1, ..place },
                Place { key: b"kez", ..place },
            ];
            for other in others {
                assert_eq!(key.open(&other, &sealed), None);
            }
            assert_eq!(SealKey::new([3; 32]).open(&place, &sealed), None);
            for bit in 0..sealed.len() * 8 {
                let mut damaged = sealed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key.open(&place, &damaged), None);
            }
            for len in 0..sealed.len() {
                assert_eq!(key.open(&place, &sealed[..len]), None);
            }
        }
    }

    #[test]
    fn what_repeats_itself_becomes_shorter() {
        let key = SealKey::new([1; 32]);
        let place = Place::entry(&STORE, VALUE, Keyspace::Views, 0, b"key");
        let text = b"{\"name\":\"Ann\",\"town\":\"Ghent\"}".repeat(50);
        assert!(key.seal([2; NONCE_BYTES], &place, &text).len() < text.len() / 4);
    }
}
