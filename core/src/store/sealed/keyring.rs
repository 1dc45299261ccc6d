//! The keys of a store: the node's data key, and a key of each collection by epochs. All of them together are sealed under the
//! master key, which is kept elsewhere.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::StoreId;
use super::cipher::{self, KEY_BYTES, NONCE_BYTES, Place, SealKey};
use crate::op::codec;
use crate::store::EngineError;

/// The longest sealed keyring: some hundred thousand collections.
pub const KEYRING_BYTES_MAX: usize = 16 << 20;

/// The keyring as it is sealed: store, data key, [(collection, [(epoch, key)])].
type Wire<'a> = (&'a serde_bytes::Bytes, &'a serde_bytes::Bytes, Vec<(&'a str, Vec<(u32, &'a serde_bytes::Bytes)>)>);

/// Why a keyring does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The key is another one, or the keyring was damaged: the two cannot be told apart.
    #[error("the master key does not open the keyring: it is another key, or the keyring is damaged")]
    WrongKey,
    /// It opens, and holds something else.
    #[error("the keyring is malformed")]
    Malformed,
}

/// The keys of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keyring {
    store: StoreId,
    data: SealKey,
    /// Ascending by epoch; the last one is used for what is new.
    collections: BTreeMap<String, Vec<(u32, SealKey)>>,
}

impl Keyring {
    /// Makes the keyring of a new store out of fresh random bytes: its name, and its data key.
    #[must_use]
    pub const fn new(store: StoreId, data: SealKey) -> Self {
        Self { store, data, collections: BTreeMap::new() }
    }

    /// Seals the keyring under a master key. `nonce` is fresh random bytes; `about` is what stands beside it in the clear and
    /// must not be changed.
    #[must_use]
    pub fn seal(&self, master: &SealKey, nonce: [u8; NONCE_BYTES], about: &[u8]) -> Vec<u8> {
        let collections = self.collections.iter().map(|(name, epochs)| {
            let epochs = epochs.iter().map(|(epoch, key)| (*epoch, serde_bytes::Bytes::new(key.expose())));
            (name.as_str(), epochs.collect())
        });
        let wire: Wire<'_> =
            (serde_bytes::Bytes::new(&self.store), serde_bytes::Bytes::new(self.data.expose()), collections.collect());
        master.seal(nonce, &Self::place(about), &Zeroizing::new(codec::encode(&wire)))
    }

    /// Opens a keyring.
    ///
    /// # Errors
    /// [`KeyringError`] if the key does not fit.
    pub fn open(sealed: &[u8], master: &SealKey, about: &[u8]) -> Result<Self, KeyringError> {
        if sealed.len() > KEYRING_BYTES_MAX {
            return Err(KeyringError::Malformed);
        }
        let bytes = master.open(&Self::place(about), sealed).map(Zeroizing::new).ok_or(KeyringError::WrongKey)?;
        let (store, data, collections): Wire<'_> =
            rmp_serde::from_slice(&bytes).map_err(|_| KeyringError::Malformed)?;
        let key = |bytes: &[u8]| <[u8; KEY_BYTES]>::try_from(bytes).map(SealKey::new);
        let mut keyring = Self::new(
            StoreId::try_from(&**store).map_err(|_| KeyringError::Malformed)?,
            key(data).map_err(|_| KeyringError::Malformed)?,
        );
        for (name, epochs) in collections {
            let epochs: Result<Vec<_>, _> = epochs.into_iter().map(|(epoch, bytes)| Ok((epoch, key(bytes)?))).collect();
            let epochs = epochs.map_err(|_: std::array::TryFromSliceError| KeyringError::Malformed)?;
            keyring.collections.insert(name.to_owned(), epochs);
        }
        Ok(keyring)
    }

    fn place(about: &[u8]) -> Place<'_> {
        Place { store: &[0; 16], role: cipher::KEYRING, keyspace: "", part: 0, key: about }
    }

    /// Seals a small file beside the store. `nonce` is fresh random bytes.
    #[must_use]
    pub fn seal_file(&self, name: &str, nonce: [u8; NONCE_BYTES], content: &[u8]) -> Vec<u8> {
        self.data.seal(nonce, &self.file(name), content)
    }

    /// Opens a file that [`Self::seal_file`] sealed under that name; none if it is anything else.
    #[must_use]
    pub fn open_file(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.data.open(&self.file(name), sealed).map(Zeroizing::new)
    }

    const fn file<'a>(&'a self, name: &'a str) -> Place<'a> {
        Place { store: &self.store, role: cipher::FILE, keyspace: "", part: 0, key: name.as_bytes() }
    }

    pub(super) const fn store(&self) -> &StoreId {
        &self.store
    }

    pub(super) const fn data(&self) -> &SealKey {
        &self.data
    }

    /// Returns a collection's newest key with its epoch.
    pub(super) fn newest(&self, collection: &str) -> Option<(u32, &SealKey)> {
        self.collections.get(collection)?.last().map(|(epoch, key)| (*epoch, key))
    }

    /// Returns a collection's key of an epoch.
    pub(super) fn of_epoch(&self, collection: &str, epoch: u32) -> Option<&SealKey> {
        self.collections.get(collection)?.iter().find(|(of, _)| *of == epoch).map(|(_, key)| key)
    }

    /// Begins a new epoch of a collection, its first one if it has none. Returns its number.
    pub(super) fn begin_epoch(&mut self, collection: &str, key: SealKey) -> u32 {
        let epochs = self.collections.entry(collection.to_owned()).or_default();
        let epoch = epochs.last().map_or(1, |(epoch, _)| epoch.saturating_add(1));
        epochs.push((epoch, key));
        epoch
    }

    /// Forgets all but the newest epoch of every collection: nothing is wrapped under the others any more.
    pub(super) fn retire(&mut self) {
        for epochs in self.collections.values_mut() {
            epochs.drain(..epochs.len().saturating_sub(1));
        }
    }

    /// Whether keys of an older epoch are still in use.
    pub(super) fn is_rotating(&self) -> bool {
        self.collections.values().any(|epochs| epochs.len() > 1)
    }

    /// Returns the collections that have keys, with their newest epochs.
    pub fn epochs(&self) -> impl Iterator<Item = (&str, u32)> {
        self.collections.iter().filter_map(|(name, epochs)| Some((name.as_str(), epochs.last()?.0)))
    }
}

/// Where the keyring of an open store is kept.
pub trait KeyringHome: Send + Sync {
    /// Writes the keyring down, sealed, in place of the one before. It is on the disk when this returns.
    ///
    /// # Errors
    /// That of the disk; the one before is still there.
    fn save(&self, keyring: &Keyring) -> Result<(), EngineError>;
}

/// A home in memory, for tests and the simulator; it seals nothing.
#[derive(Clone, Debug)]
pub struct MemoryHome(std::sync::Arc<std::sync::Mutex<Keyring>>);

impl MemoryHome {
    /// Returns a home with this keyring in it.
    #[must_use]
    pub fn new(keyring: Keyring) -> Self {
        Self(std::sync::Arc::new(std::sync::Mutex::new(keyring)))
    }

    /// Returns the keyring that was saved last.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl KeyringHome for MemoryHome {
    fn save(&self, keyring: &Keyring) -> Result<(), EngineError> {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = keyring.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_its_master_key_alone() {
        let mut keyring = Keyring::new([1; 16], SealKey::new([2; 32]));
        keyring.begin_epoch("notes", SealKey::new([3; 32]));
        keyring.begin_epoch("notes", SealKey::new([4; 32]));
        let master = SealKey::new([5; 32]);
        let sealed = keyring.seal(&master, [6; NONCE_BYTES], b"about");
        assert_eq!(Keyring::open(&sealed, &master, b"about"), Ok(keyring.clone()));
        assert_eq!(Keyring::open(&sealed, &SealKey::new([7; 32]), b"about"), Err(KeyringError::WrongKey));
        assert_eq!(Keyring::open(&sealed, &master, b"abaut"), Err(KeyringError::WrongKey));
        assert!(keyring.is_rotating());
        keyring.retire();
        assert_eq!(keyring.epochs().collect::<Vec<_>>(), [("notes", 2)]);
        assert!(!keyring.is_rotating());
    }

    #[test]
    fn a_file_opens_under_its_name() {
        let keyring = Keyring::new([1; 16], SealKey::new([2; 32]));
        let sealed = keyring.seal_file("node.key", [3; NONCE_BYTES], b"secret");
        assert_eq!(keyring.open_file("node.key", &sealed).as_deref().map(Vec::as_slice), Some(&b"secret"[..]));
        assert_eq!(keyring.open_file("owner.key", &sealed), None);
    }
}
