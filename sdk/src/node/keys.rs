//! Changing keys of a node that runs, and of a data directory on which none does.

use std::path::Path;
use std::time::Duration;

use folkmoot_core::store::Batch;
use tokio::sync::oneshot;

use super::config::{KeySettings, KeySource, OpenError};
use super::core_thread::Command;
use super::directory::{Directory, DirectoryError};
use super::{Inner, MASTER_KEY_FILE, unlock};
use crate::api::{Error, ErrorCode, KeyRotation, KeysInfo, Result, error_chain};

/// How often a commit is asked for while keys are wrapped again and nobody writes: some ten thousand keys a second.
const REWRAP_INTERVAL: Duration = Duration::from_millis(20);

impl Inner {
    pub(super) async fn keys(&self) -> Result<KeysInfo> {
        let source = self.directory.unlocked().map_or(KeySource::None, |unlocked| unlocked.home.source());
        let Some(sealed) = self.sealed.clone() else {
            return Ok(KeysInfo { source: source.name().to_owned(), ..KeysInfo::default() });
        };
        // It may have to wait for a commit.
        let figures = tokio::task::spawn_blocking(move || sealed.figures()).await;
        let figures = figures.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        Ok(KeysInfo {
            source: source.name().to_owned(),
            collections: figures.collections,
            documents: figures.documents,
            rotating: figures.rotating,
            rewrapped: figures.rewrapped,
        })
    }

    pub(super) async fn rotate_keys(&self, which: KeyRotation) -> Result<KeysInfo> {
        let (Some(sealed), Some(unlocked)) = (self.sealed.clone(), self.directory.unlocked().cloned()) else {
            return Err(Error::new(ErrorCode::NotSupported, "the data of this node is not sealed")
                .hint("a data directory is sealed when it is made; let a new node join and remove this one"));
        };
        let file = self.config.keys.file.clone().unwrap_or_else(|| self.directory.file(MASTER_KEY_FILE));
        if which == KeyRotation::Master && unlocked.home.source() != KeySource::File {
            return Err(Error::new(ErrorCode::NotSupported, "the master key of this node is not in a file")
                .hint("stop the node and run `folkmoot keys rekey`"));
        }
        let rotate = move || match which {
            KeyRotation::Master => sealed
                .with_keyring(|keyring| unlock::rotate_master(&unlocked.home, &file, keyring))
                .map_err(|e| error_chain(&e)),
            KeyRotation::Collections => sealed.rotate().map_err(|error| error.to_string()),
        };
        let rotated = tokio::task::spawn_blocking(rotate).await.map_err(|error| error.to_string()).flatten();
        rotated.map_err(|why| Error::new(ErrorCode::Internal, format!("change keys: {why}")))?;
        metrics::counter!("folkmoot_key_rotations_total").increment(1);
        self.keys().await
    }

    /// Asks for commits while keys are to be wrapped again, which is done with them.
    pub(super) async fn rewrap_keys(self: std::sync::Arc<Self>) {
        let Some(sealed) = self.sealed.clone() else { return };
        let mut interval = tokio::time::interval(REWRAP_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if !sealed.is_rotating() {
                continue;
            }
            // A commit of nothing else. One at a time is enough, and a slow disk gets no queue of them.
            let (reply, written) = oneshot::channel();
            if self.core.send(Command::Store(Batch::new(), reply)).await.is_err() || written.await.is_err() {
                return;
            }
        }
    }
}

/// Seals the keyring of a data directory under another master key, which comes from where `to` says.
pub(super) fn rekey(data_dir: &Path, keys: &KeySettings, to: &KeySettings) -> Result<(), OpenError> {
    let mut directory = Directory::new(data_dir);
    let record = directory.cluster()?;
    let _lock = directory.lock()?;
    directory.unlock(&record, keys)?;
    let unlocked = directory.unlocked().ok_or_else(|| DirectoryError::NotSealed(data_dir.to_owned()))?;
    unlock::reseal(&directory, unlocked, to)
}
