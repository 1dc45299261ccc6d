//! What seals one value: XChaCha20-Poly1305 with a random nonce of 24 bytes, over the value compressed if that makes it shorter.
//! Layout: `docs/format.md`, "Sealed values".

use chacha20::{R20, hchacha};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
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

/// Returns how long a sealed value may become.
pub(super) const fn sealed_len_max(value: &[u8]) -> usize {
    NONCE_BYTES + value.len() + 1 + TAG_BYTES
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

    /// Returns what seals with this nonce: XChaCha20-Poly1305 is ChaCha20-Poly1305 (RFC 8439) under a key made of this one and the
    /// first 16 bytes of the nonce, with the last eight as its nonce (draft-irtf-cfrg-xchacha-03, section 2.3).
    fn bound(&self, nonce: &[u8; NONCE_BYTES]) -> (LessSafeKey, Nonce) {
        let mut first = [0; 16];
        let mut last = [0; 12];
        first.copy_from_slice(&nonce[..16]);
        last[4..].copy_from_slice(&nonce[16..]);
        let key = Zeroizing::new(<[u8; KEY_BYTES]>::from(hchacha::<R20>((&*self.0).into(), &first.into())));
        #[expect(clippy::expect_used, reason = "refuses only another length")]
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("a key has 32 bytes");
        (LessSafeKey::new(key), Nonce::assume_unique_for_key(last))
    }

    /// Seals a value: nonce, ciphertext, tag.
    pub(super) fn seal(&self, nonce: [u8; NONCE_BYTES], place: &Place<'_>, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(sealed_len_max(value));
        self.seal_into(&mut out, nonce, place, value);
        out
    }

    /// Appends what [`Self::seal`] returns.
    pub(super) fn seal_into(&self, out: &mut Vec<u8>, nonce: [u8; NONCE_BYTES], place: &Place<'_>, value: &[u8]) {
        let compressed = (value.len() >= COMPRESSED_BYTES_MIN)
            .then(|| lz4_flex::block::compress_prepend_size(value))
            .filter(|compressed| compressed.len() < value.len());
        let (form, content) = compressed.as_deref().map_or((PLAIN, value), |compressed| (LZ4, compressed));
        out.extend_from_slice(&nonce);
        let begin = out.len();
        out.extend_from_slice(content);
        // Last, so that it is taken off without moving the others.
        out.push(form);
        let (_, text) = out.split_at_mut(begin);
        let (key, nonce) = self.bound(&nonce);
        #[expect(clippy::expect_used, reason = "refuses only what is longer than 256 GiB")]
        let tag =
            key.seal_in_place_separate_tag(nonce, Aad::from(place.bytes()), text).expect("a value is short enough");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens what [`Self::seal`] made for the same place; none if it is anything else.
    pub(super) fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk()?;
        let (key, nonce) = self.bound(nonce);
        let mut content = rest.to_vec();
        let len = key.open_in_place(nonce, Aad::from(place.bytes()), &mut content).ok()?.len();
        content.truncate(len);
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

    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn is_the_cipher_of_the_draft() {
        let key: [u8; KEY_BYTES] = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce: [u8; NONCE_BYTES] = std::array::from_fn(|at| 0x40 + at as u8);
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it."
            .to_vec();
        let (key, nonce) = SealKey::new(key).bound(&nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut text).unwrap();
        assert_eq!(text[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
        let expected = [0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79, 0x47, 0xde, 0xaf, 0xd8, 0x78, 0x0a, 0xcf, 0x49];
        assert_eq!(tag.as_ref(), expected);
    }

    #[test]
    fn what_repeats_itself_becomes_shorter() {
        let key = SealKey::new([1; 32]);
        let place = Place::entry(&STORE, VALUE, Keyspace::Views, 0, b"key");
        let text = b"{\"name\":\"Ann\",\"town\":\"Ghent\"}".repeat(50);
        assert!(key.seal([2; NONCE_BYTES], &place, &text).len() < text.len() / 4);
    }
}
