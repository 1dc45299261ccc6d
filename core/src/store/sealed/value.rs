//! How each entry is sealed: under which key, whole or in parts. Layout: `docs/format.md`, "Sealed values".

use bytes::Bytes;
use zeroize::Zeroizing;

use super::StoreId;
use super::cipher::{DOCUMENT_KEY, KEY_BYTES, NONCE_BYTES, OP_BODY, OP_HEAD, Place, SealKey, VALUE, sealed_len_max};
use super::keyring::Keyring;
use crate::op::{Apart, Header};
use crate::store::envelope::{self, SEALED};
use crate::store::keys::{DocKey, Key as _, doc_key_len, is_of_change_index, meta};
use crate::store::{Keyspace, StoreError};

/// Sealed whole under the node's data key.
const UNDER_DATA: u8 = 0;
/// Sealed whole under the key of the document that the entry's key begins with.
const UNDER_DOCUMENT: u8 = 1;
/// An op: its header under the data key, each body under the key of its document.
const OP: u8 = 2;
/// First bytes of keys in `pending`: ops that wait for an op or a change, previews of documents.
const PENDING_OPS: [u8; 2] = [0, 1];
const PENDING_PREVIEW: u8 = 2;

/// How the values of an entry are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind<'a> {
    /// As they are: they hold nothing but hashes and numbers, or keys that are wrapped already.
    Bare,
    /// Under the data key.
    Data,
    /// Under the key of a document, named by its key in the store.
    Document(&'a [u8]),
    /// In parts.
    Op,
}

impl<'a> Kind<'a> {
    /// Returns how the entry with this key is kept.
    pub(super) fn of(keyspace: Keyspace, key: &'a [u8]) -> Self {
        let document =
            |key: &'a [u8]| doc_key_len(key).and_then(|len| key.get(..len)).map_or(Self::Data, Self::Document);
        match keyspace {
            Keyspace::Keys | Keyspace::Arrivals => Self::Bare,
            Keyspace::Index if is_of_change_index(key) => Self::Bare,
            Keyspace::Meta if key == meta::SCHEMA.as_bytes() => Self::Bare,
            // Random bytes, which are here while the disk is scrubbed: not damage, for whoever checks the store meanwhile.
            Keyspace::Meta if key.starts_with(crate::store::scrub::FILLER) => Self::Bare,
            Keyspace::Ops => Self::Op,
            Keyspace::Tail | Keyspace::Snapshots | Keyspace::Views => document(key),
            Keyspace::Pending => match key.split_first() {
                Some((first, _)) if PENDING_OPS.contains(first) => Self::Op,
                Some((&PENDING_PREVIEW, rest)) => document(rest),
                _ => Self::Data,
            },
            Keyspace::Index
            | Keyspace::Heads
            | Keyspace::Control
            | Keyspace::Quarantine
            | Keyspace::Requests
            | Keyspace::Audit
            | Keyspace::Meta => Self::Data,
        }
    }
}

/// An entry whose value is sealed or opened.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) keyspace: Keyspace,
    pub(super) key: &'a [u8],
}

/// What opens most values.
#[derive(Clone, Debug)]
pub(super) struct DataKey {
    pub(super) store: StoreId,
    pub(super) key: SealKey,
}

/// Looks a document's key up, by its key in the store.
pub(super) type KeyOf<'a> = dyn FnMut(&[u8]) -> Result<Option<SealKey>, StoreError> + 'a;

impl<'a> Entry<'a> {
    const fn place(&self, store: &'a StoreId, role: u8, part: u32) -> Place<'a> {
        Place::entry(store, role, self.keyspace, part, self.key)
    }

    fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { keyspace: self.keyspace, source: what.into() }
    }

    /// Seals a value. `key_of` makes the key of a document that has none.
    ///
    /// # Errors
    /// That of `key_of`.
    pub(super) fn seal(
        &self,
        data: &'a DataKey,
        value: &Bytes,
        nonce: &mut dyn FnMut() -> [u8; NONCE_BYTES],
        key_of: &mut dyn FnMut(&[u8]) -> Result<SealKey, StoreError>,
    ) -> Result<Bytes, StoreError> {
        let place = |role, part| self.place(&data.store, role, part);
        let whole = |kind: u8, key: &SealKey, nonce| {
            let mut out = Vec::with_capacity(2 + sealed_len_max(value));
            out.extend_from_slice(&[SEALED, kind]);
            key.seal_into(&mut out, nonce, &place(VALUE, 0), value);
            out.into()
        };
        Ok(match Kind::of(self.keyspace, self.key) {
            Kind::Bare => value.clone(),
            Kind::Document(document) => whole(UNDER_DOCUMENT, &key_of(document)?, nonce()),
            Kind::Op if let Some(apart) = envelope::open(value.clone()).ok().and_then(|op| Apart::take(&op)) => {
                let bodies = apart.bodies().map(|body| PART_LEN + body.map_or(0, sealed_len_max));
                let len_max = 2 + PART_LEN + sealed_len_max(apart.head()) + bodies.sum::<usize>();
                let mut out = Vec::with_capacity(len_max);
                out.extend_from_slice(&[SEALED, OP]);
                push_part(&mut out, |out| data.key.seal_into(out, nonce(), &place(OP_HEAD, 0), apart.head()));
                for ((index, body), document) in (0u32..).zip(apart.bodies()).zip(documents(apart.header())) {
                    let key = body.map(|_| key_of(&document)).transpose()?;
                    push_part(&mut out, |out| {
                        if let (Some(body), Some(key)) = (body, key) {
                            key.seal_into(out, nonce(), &place(OP_BODY, index), body);
                        }
                    });
                }
                out.into()
            }
            Kind::Op | Kind::Data => whole(UNDER_DATA, &data.key, nonce()),
        })
    }

    /// Opens a value. The bodies of documents whose keys are gone are left out of their ops.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was sealed for this entry, or its document's key is gone.
    pub(super) fn open(&self, data: &'a DataKey, value: Bytes, key_of: &mut KeyOf<'_>) -> Result<Bytes, StoreError> {
        let kind = Kind::of(self.keyspace, self.key);
        if kind == Kind::Bare {
            return Ok(value);
        }
        let place = |role, part| self.place(&data.store, role, part);
        let failed = || self.damaged("a sealed value does not open with its key");
        let opened = match (kind, &value[..]) {
            (Kind::Data | Kind::Op, [SEALED, UNDER_DATA, sealed @ ..])
            | (Kind::Document(_), [SEALED, UNDER_DATA, sealed @ ..]) => {
                data.key.open(&place(VALUE, 0), sealed).ok_or_else(failed)?
            }
            (Kind::Document(document), [SEALED, UNDER_DOCUMENT, sealed @ ..]) => {
                let key = key_of(document)?.ok_or_else(|| self.damaged("the document's key is missing"))?;
                key.open(&place(VALUE, 0), sealed).ok_or_else(failed)?
            }
            (Kind::Op, [SEALED, OP, parts @ ..]) => {
                let mut parts = Some(parts);
                let head = next_part(&mut parts).ok_or_else(failed)?;
                let head = data.key.open(&place(OP_HEAD, 0), head).ok_or_else(failed)?;
                let mut apart = Apart::of_head(&head).ok_or_else(failed)?;
                let documents: Vec<_> = documents(apart.header()).collect();
                for (index, document) in (0u32..).zip(documents) {
                    let sealed = next_part(&mut parts).ok_or_else(failed)?;
                    let key = if sealed.is_empty() { None } else { key_of(&document)? };
                    let body = match key {
                        None => None,
                        Some(key) => Some(key.open(&place(OP_BODY, index), sealed).ok_or_else(failed)?),
                    };
                    apart.push_body(body.as_deref());
                }
                return apart.put_together().map(|op| envelope::enclose(&op)).ok_or_else(failed);
            }
            _ => return Err(self.damaged("a value is not sealed that should be")),
        };
        Ok(opened.into())
    }
}

/// Returns the documents of an op's changes, by their keys in the store.
fn documents(header: &Header) -> impl Iterator<Item = Vec<u8>> + '_ {
    let collection = header.collection();
    header.changes().map(|change| DocKey { collection: collection.clone(), doc: change.doc.clone() }.encode())
}

/// Bytes of the length of a part.
const PART_LEN: usize = 4;

/// Appends what `write` appends, with its length before it.
fn push_part(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; PART_LEN]);
    write(out);
    // An op is far shorter than 4 GiB.
    let len = u32::try_from(out.len() - at - PART_LEN).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + PART_LEN) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

fn next_part<'a>(rest: &mut Option<&'a [u8]>) -> Option<&'a [u8]> {
    let (len, after) = rest.take()?.split_first_chunk()?;
    let (part, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    *rest = Some(after);
    Some(part)
}

/// Wraps a document's key under its collection's newest one: version, epoch, sealed key. None if the collection has none.
pub(super) fn wrap(
    keyring: &Keyring,
    document: &[u8],
    key: &SealKey,
    nonce: [u8; NONCE_BYTES],
) -> Option<(u32, Bytes)> {
    let (epoch, wrapping) = keyring.newest(collection_of(document)?)?;
    let place = Place::entry(keyring.store(), DOCUMENT_KEY, Keyspace::Keys, epoch, document);
    let mut out = vec![SEALED];
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&wrapping.seal(nonce, &place, key.expose()));
    Some((epoch, out.into()))
}

/// Returns under which epoch a document's key is wrapped.
pub(super) fn epoch_of(wrapped: &[u8]) -> Option<u32> {
    let (&SEALED, rest) = wrapped.split_first()? else { return None };
    rest.first_chunk().map(|epoch| u32::from_be_bytes(*epoch))
}

/// Unwraps a document's key; none if it is not one of this store.
pub(super) fn unwrap(keyring: &Keyring, document: &[u8], wrapped: &[u8]) -> Option<SealKey> {
    let epoch = epoch_of(wrapped)?;
    let wrapping = keyring.of_epoch(collection_of(document)?, epoch)?;
    let place = Place::entry(keyring.store(), DOCUMENT_KEY, Keyspace::Keys, epoch, document);
    let key = Zeroizing::new(wrapping.open(&place, wrapped.get(1 + 4..)?)?);
    Some(SealKey::new(<[u8; KEY_BYTES]>::try_from(&key[..]).ok()?))
}

/// Returns the name of a document's collection.
pub(super) fn collection_of(document: &[u8]) -> Option<&str> {
    let end = document.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(document.get(..end)?).ok()
}
