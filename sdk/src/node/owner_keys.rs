//! Owners' and recovery keys in a data directory, whether a node runs on it or not.

use std::path::Path;

use folkmoot_core::id::{AuthorKey, OpId};
use folkmoot_core::keys::SecretKey;

use super::config::{KeySettings, OpenError, random};
use super::directory::{Directory, DirectoryError};
use super::{KeyFile, Node, Secret};
use crate::recovery::RecoveryKey;

/// A new key of an author, as a key file holds it.
#[derive(Clone)]
pub struct NewKey(SecretKey);

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewKey(of {:?})", self.0.author())
    }
}

impl NewKey {
    /// Makes one.
    ///
    /// # Errors
    /// [`OpenError::Random`].
    pub fn generate() -> Result<Self, OpenError> {
        Ok(Self(SecretKey::from_seed(&random()?)))
    }

    /// Reads one from its text; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.trim().parse::<OpId>().ok().map(|seed| Self(SecretKey::from_seed(seed.as_bytes())))
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> AuthorKey {
        self.0.author()
    }

    /// Returns the key as text, for a [`KeyFile`].
    #[must_use]
    pub fn reveal(&self) -> Secret {
        Secret::new(OpId::new(self.0.to_seed()).to_string())
    }
}

impl Node {
    /// Puts an owner's key into a data directory on which no node runs, in the place of the one that is there: the node signs
    /// with it what only owners may. Whether it is an owner's shows when the node runs.
    ///
    /// # Errors
    /// [`OpenError`], as when a node runs on the directory.
    pub fn install_owner_key(data_dir: &Path, keys: &KeySettings, key: &NewKey) -> Result<(), OpenError> {
        let mut directory = Directory::new(data_dir);
        let record = directory.cluster()?;
        let _lock = directory.lock()?;
        directory.unlock(&record, keys)?;
        directory.write_owner_key(&key.0)?;
        Ok(())
    }

    /// Returns the recovery key that lies in a data directory since it was made; `None` if it has been put away.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn recovery_key(data_dir: &Path, keys: &KeySettings) -> Result<Option<RecoveryKey>, OpenError> {
        let mut directory = Directory::new(data_dir);
        let record = directory.cluster()?;
        directory.unlock(&record, keys)?;
        Ok(directory.recovery_key()?)
    }

    /// Deletes the recovery key from a data directory, when a copy of it is shown that lies elsewhere. A node may run on it.
    ///
    /// # Errors
    /// [`OpenError::OtherRecoveryKey`] if what is shown is another key: then the directory still has the only one.
    pub fn confirm_recovery(data_dir: &Path, keys: &KeySettings, shown: &RecoveryKey) -> Result<(), OpenError> {
        let mut directory = Directory::new(data_dir);
        let record = directory.cluster()?;
        directory.unlock(&record, keys)?;
        let Some(kept) = directory.recovery_key()? else { return Ok(()) };
        if kept.hash() != shown.hash() {
            return Err(OpenError::OtherRecoveryKey);
        }
        directory.remove_recovery_key()?;
        Ok(())
    }

    /// Returns whether a file lies outside of a data directory: a copy beside the original is none.
    ///
    /// # Errors
    /// [`DirectoryError`] if one of them is not there.
    pub fn is_elsewhere(data_dir: &Path, file: &KeyFile) -> Result<bool, DirectoryError> {
        Directory::new(data_dir).is_outside(file.path())
    }
}
