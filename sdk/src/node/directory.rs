//! The data directory: keys, the owner's token, and what cluster the data belongs to.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, ClusterId, OpId, PrincipalId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{Op, codec};
use folkmoot_core::replica::Identity;
use folkmoot_core::store::sealed::{KEY_BYTES, Keyring, Opener, SealedStore};
use folkmoot_core::store::{FjallOptions, FjallStore, Store, owner_only};
use serde::{Deserialize, Serialize};

use super::config::{OpenError, random};
use super::invites::InviteRecord;
use super::unlock::{self, KEYRING_FILE, KeySettings, Unlocked};
use crate::recovery::RecoveryKey;

const CLUSTER_FILE: &str = "cluster.json";
const NODE_KEY_FILE: &str = "node.key";
/// The key that the node takes up when it is certified.
const NEXT_KEY_FILE: &str = "node.key.next";
const OWNER_KEY_FILE: &str = "owner.key";
const TOKEN_FILE: &str = "owner.token";
/// The recovery key of a cluster founded here, until it is put away.
const RECOVERY_FILE: &str = "recovery.key";
const INVITES_FILE: &str = "invites.json";
const PEERS_FILE: &str = "peers.json";
const STORE_FOLDER: &str = "store";
const WATERMARK_FILE: &str = "watermark";
/// A copy of the control log: without it nobody's ops can be judged, should the store be lost.
const CONTROL_FILE: &str = "control";
/// Locked by the process that uses the directory.
const LOCK_FILE: &str = "lock";
/// What takes the place of a file or folder, before it does, and while it is not whole.
const NEW: &str = "new";
const MAKING: &str = "making";
/// Where what was replaced is kept, in numbered folders.
const ASIDE_FOLDER: &str = "set-aside";
/// What sealed files begin with.
const SEALED: &[u8] = b"FMS1";
/// Times that a directory can be replaced before somebody must clear up.
const ASIDE_MAX: u32 = 1_000;
/// Largest file that is read whole: the invites and the addresses of peers, some hundred kilobytes at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The copy of the control log. A cluster whose log is longer takes in nobody either.
const CONTROL_BYTES_MAX: u64 = 2 * folkmoot_net::limits::JOIN_RESPONSE_BYTES_MAX as u64;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The operating system refuses.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has not the content that it should.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is a cluster in the directory already.
    #[error("{0} holds a cluster already; choose another data directory")]
    Taken(PathBuf),
    /// A node runs on it, or something else works on it.
    #[error("data in {0} is in use by another process; stop that one, or choose another data directory")]
    InUse(PathBuf),
    /// The store is not there.
    #[error(
        "{0} has no store in it: bring it back, or take everything from peers with `folkmoot rejoin`; what only this node had is lost then"
    )]
    NoStore(PathBuf),
    /// Too much was set aside.
    #[error("{0} is full of what was set aside; delete what is not needed any more")]
    AsideFull(PathBuf),
    /// It is not sealed.
    #[error("the data in {0} is not sealed: a directory is when it is made")]
    NotSealed(PathBuf),
    /// There is no cluster in the directory.
    #[error("{0} holds no cluster; run `folkmoot init` or `folkmoot join` first")]
    Empty(PathBuf),
}

/// Another node and where it was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownPeer {
    pub(super) key: AuthorKey,
    pub(super) address: String,
}

/// What cluster the data belongs to, and who the node is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterRecord {
    pub(super) cluster: ClusterId,
    pub(super) name: String,
    pub(super) node_name: String,
    pub(super) certificate: OpId,
    pub(super) principal: PrincipalId,
    /// Whether the store and the keys are sealed.
    pub(super) sealed: bool,
    /// Keys that the node had before, the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) earlier_keys: Vec<AuthorKey>,
    /// Where to find other members first.
    pub(super) peers: Vec<KnownPeer>,
}

impl ClusterRecord {
    /// Returns the keys that the node has had, the present one among them.
    pub(super) fn keys(&self, present: AuthorKey) -> Vec<AuthorKey> {
        self.earlier_keys.iter().copied().chain([present]).collect()
    }
}

/// The files of a data directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: PathBuf,
    /// What opens it, once it is unlocked, if it is sealed.
    unlocked: Option<Unlocked>,
}

/// A store of a data directory.
#[derive(Clone)]
pub(super) struct OpenStore {
    pub(super) store: Arc<dyn Store>,
    /// The same, if it is sealed.
    pub(super) sealed: Option<SealedStore>,
}

impl Directory {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), unlocked: None }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn keyring(&self) -> PathBuf {
        self.file(KEYRING_FILE)
    }

    /// Makes the keys of a new directory, or takes those that an attempt that was cut off has made.
    pub(super) fn seal(&mut self, settings: &KeySettings) -> Result<(), OpenError> {
        self.unlocked =
            if self.keyring().exists() { Some(unlock::unlock(self, settings)?) } else { unlock::make(self, settings)? };
        Ok(())
    }

    /// Unlocks the directory, if it is sealed: before that neither its keys nor its store can be read.
    pub(super) fn unlock(&mut self, record: &ClusterRecord, settings: &KeySettings) -> Result<(), OpenError> {
        self.unlocked = if record.sealed { Some(unlock::unlock(self, settings)?) } else { None };
        Ok(())
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.unlocked.is_some()
    }

    pub(super) const fn unlocked(&self) -> Option<&Unlocked> {
        self.unlocked.as_ref()
    }

    fn sealing(&self) -> Option<&Keyring> {
        self.unlocked.as_ref().map(|unlocked| &unlocked.keyring)
    }

    /// Returns what opens values that are read without the engine.
    pub(super) fn opener(&self) -> Option<Opener> {
        self.sealing().cloned().map(Opener::new)
    }

    /// Opens the store in a folder of this directory.
    pub(super) fn open_store(&self, path: &Path, options: FjallOptions) -> Result<OpenStore, OpenError> {
        let store: Arc<dyn Store> = Arc::new(FjallStore::open(path, options)?);
        let Some(Unlocked { keyring, home }) = self.unlocked.clone() else {
            return Ok(OpenStore { store, sealed: None });
        };
        let sealed = SealedStore::new(store, keyring, Box::new(home), &random::<KEY_BYTES>()?);
        Ok(OpenStore { store: Arc::new(sealed.clone()), sealed: Some(sealed) })
    }

    pub(super) fn store(&self) -> PathBuf {
        self.root.join(STORE_FOLDER)
    }

    pub(super) fn watermark(&self) -> PathBuf {
        self.root.join(WATERMARK_FILE)
    }

    /// Keeps other processes away from the directory until what is returned is dropped.
    pub(super) fn lock(&self) -> Result<std::fs::File, DirectoryError> {
        let path = self.root.join(LOCK_FILE);
        let mut options = owner_only();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(self.io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(DirectoryError::InUse(self.root.clone())),
            Err(std::fs::TryLockError::Error(error)) => Err(self.io("lock", &path)(error)),
        }
    }

    /// Where a store is made that will take the place of this one. What was left there by a crash is removed.
    pub(super) fn begin_store(&self) -> Result<PathBuf, DirectoryError> {
        let path = self.store().with_extension(MAKING);
        self.remove(&path)?;
        Ok(path)
    }

    /// The watermark that goes with the new store.
    pub(super) fn new_watermark(&self) -> PathBuf {
        self.watermark().with_extension(NEW)
    }

    /// Sets the store and its watermark aside and puts the new ones in their place, which are whole and on the disk.
    /// Returns where the old ones are.
    pub(super) fn replace_store(&self) -> Result<PathBuf, DirectoryError> {
        let aside = self.root.join(ASIDE_FOLDER);
        let folder = (1..=ASIDE_MAX).map(|number| aside.join(number.to_string())).find(|folder| !folder.exists());
        let folder = folder.ok_or_else(|| DirectoryError::AsideFull(aside.clone()))?;
        std::fs::create_dir_all(&folder).map_err(self.io("create", &folder))?;
        if self.watermark().exists() {
            std::fs::copy(self.watermark(), folder.join(WATERMARK_FILE)).map_err(self.io("copy", &self.watermark()))?;
        }
        let (made, new) = (self.store().with_extension(MAKING), self.store().with_extension(NEW));
        std::fs::rename(&made, &new).map_err(self.io("rename", &made))?;
        self.sync()?;
        // From here on the new one counts, see `settle_replacement`.
        if self.store().exists() {
            std::fs::rename(self.store(), folder.join(STORE_FOLDER)).map_err(self.io("rename", &self.store()))?;
        }
        for path in [&folder, &aside] {
            std::fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(self.io("sync", path))?;
        }
        self.settle_replacement()?;
        Ok(folder)
    }

    /// Ends a replacement that was cut off: with the old store gone the new one takes its place, else it goes.
    pub(super) fn settle_replacement(&self) -> Result<(), DirectoryError> {
        let (new_store, new_watermark) = (self.store().with_extension(NEW), self.new_watermark());
        if self.store().exists() {
            self.remove(&new_store)?;
            self.remove(&new_watermark)?;
        } else if new_store.exists() {
            if new_watermark.exists() {
                std::fs::rename(&new_watermark, self.watermark()).map_err(self.io("rename", &new_watermark))?;
            }
            // Last: until then it is to be seen that there is something to end.
            std::fs::rename(&new_store, self.store()).map_err(self.io("rename", &new_store))?;
        }
        self.sync()
    }

    fn remove(&self, path: &Path) -> Result<(), DirectoryError> {
        if path.is_dir() {
            return std::fs::remove_dir_all(path).map_err(self.io("remove", path));
        }
        if path.exists() {
            return std::fs::remove_file(path).map_err(self.io("remove", path));
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DirectoryError> {
        // Not every file system lets a folder be opened.
        match std::fs::File::open(&self.root) {
            Ok(folder) => folder.sync_all().map_err(self.io("sync", &self.root)),
            Err(_) => Ok(()),
        }
    }

    /// Returns the ops of the control log that were last kept beside the store; none if there are none or they cannot be
    /// read, which is no worse.
    pub(super) fn control(&self, cluster: ClusterId) -> Vec<Op> {
        use io::Read as _;
        let mut bytes = Vec::new();
        let read = std::fs::File::open(self.root.join(CONTROL_FILE))
            .and_then(|file| file.take(CONTROL_BYTES_MAX).read_to_end(&mut bytes));
        let Ok(bytes) = self.opened(CONTROL_FILE, bytes) else { return Vec::new() };
        let limit = usize::try_from(CONTROL_BYTES_MAX).unwrap_or(usize::MAX);
        let ops: Vec<serde_bytes::ByteBuf> = match read.map(|_| codec::decode(&bytes, limit)) {
            Ok(Ok(ops)) => ops,
            Ok(Err(_)) | Err(_) => return Vec::new(),
        };
        ops.into_iter().filter_map(|op| Op::decode(&Bytes::from(op.into_vec()), cluster).ok()).collect()
    }

    /// Keeps a copy of the control log.
    pub(super) fn write_control(&self, ops: &[Op]) -> Result<(), DirectoryError> {
        let ops: Vec<_> = ops.iter().map(|op| serde_bytes::ByteBuf::from(op.encode())).collect();
        self.write_sealed(CONTROL_FILE, &codec::encode(&ops))
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.root.join(CLUSTER_FILE).exists()
    }

    pub(super) fn create(&self) -> Result<(), DirectoryError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        // What is made here is for its owner alone; a directory that is there already is as its owner wants it.
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        builder.create(&self.root).map_err(self.io("create", &self.root))?;
        builder.create(self.store()).map_err(self.io("create", &self.store()))
    }

    fn io(&self, doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
        let path = path.to_owned();
        move |source| DirectoryError::Io { doing, path, source }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DirectoryError> {
        use io::Read as _;
        let path = self.root.join(name);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(self.io("read", &path))?;
        Ok(Some(bytes))
    }

    fn write_secret(&self, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
        let path = self.root.join(name);
        write_secret(&path, bytes).map_err(self.io("write", &path))
    }

    /// Writes a file that is sealed as the store is.
    fn write_sealed(&self, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
        let Some(keyring) = self.sealing() else { return self.write_secret(name, bytes) };
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(|error| self.io("seal", &self.root.join(name))(io::Error::other(error)))?;
        self.write_secret(name, &[SEALED, &keyring.seal_file(name, nonce, bytes)].concat())
    }

    /// Opens the content of a file that is sealed as the store is.
    fn opened(&self, name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, DirectoryError> {
        let damaged = |what: &str| DirectoryError::Damaged { path: self.root.join(name), what: what.to_owned() };
        match (self.sealing(), bytes.strip_prefix(SEALED)) {
            (None, None) => Ok(bytes),
            (None, Some(_)) => Err(damaged("it is sealed, and the directory has no keyring")),
            (Some(_), None) => Err(damaged("it is not sealed, and the directory is")),
            (Some(keyring), Some(sealed)) => {
                keyring.open_file(name, sealed).map(|bytes| bytes.to_vec()).ok_or_else(|| damaged("it does not open"))
            }
        }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, DirectoryError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| DirectoryError::Damaged { path: self.root.join(name), what: error.to_string() })
    }

    fn key(&self, name: &str) -> Result<Option<SecretKey>, DirectoryError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let bytes = zeroize::Zeroizing::new(self.opened(name, bytes)?);
        let damaged = || DirectoryError::Damaged { path: self.root.join(name), what: "not a key".to_owned() };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let seed: OpId = text.trim().parse().map_err(|_| damaged())?;
        Ok(Some(SecretKey::from_seed(seed.as_bytes())))
    }

    fn write_key(&self, name: &str, key: &SecretKey) -> Result<(), DirectoryError> {
        // Hexadecimal, which the id types write.
        let text = zeroize::Zeroizing::new(format!("{}\n", OpId::new(key.to_seed())));
        self.write_sealed(name, text.as_bytes())
    }

    pub(super) fn cluster(&self) -> Result<ClusterRecord, DirectoryError> {
        self.json(CLUSTER_FILE)?.ok_or_else(|| DirectoryError::Empty(self.root.clone()))
    }

    /// The cluster's file is written last when a directory is made: with it the directory is whole.
    pub(super) fn write_cluster(&self, record: &ClusterRecord) -> Result<(), DirectoryError> {
        let mut bytes = serde_json::to_vec_pretty(record)
            .map_err(|error| DirectoryError::Damaged { path: self.root.join(CLUSTER_FILE), what: error.to_string() })?;
        bytes.push(b'\n');
        self.write_secret(CLUSTER_FILE, &bytes)
    }

    pub(super) fn node_key(&self) -> Result<SecretKey, DirectoryError> {
        self.key(NODE_KEY_FILE)?.ok_or_else(|| DirectoryError::Empty(self.root.clone()))
    }

    pub(super) fn owner_key(&self) -> Result<Option<SecretKey>, DirectoryError> {
        self.key(OWNER_KEY_FILE)
    }

    /// Returns who the node is.
    pub(super) fn identity(&self, record: &ClusterRecord) -> Result<Identity, DirectoryError> {
        Ok(Identity {
            node: self.node_key()?,
            owner: self.owner_key()?,
            cluster: record.cluster,
            certificate: record.certificate,
            principal: record.principal,
        })
    }

    pub(super) fn write_node_key(&self, key: &SecretKey) -> Result<(), DirectoryError> {
        self.write_key(NODE_KEY_FILE, key)
    }

    pub(super) fn next_node_key(&self) -> Result<Option<SecretKey>, DirectoryError> {
        self.key(NEXT_KEY_FILE)
    }

    pub(super) fn write_next_node_key(&self, key: &SecretKey) -> Result<(), DirectoryError> {
        self.write_key(NEXT_KEY_FILE, key)
    }

    /// Ends a change of the node's key: with the key that is there among those before, the next one takes its place.
    pub(super) fn settle_rotation(&self, record: &ClusterRecord) -> Result<(), DirectoryError> {
        let Some(next) = self.next_node_key()? else { return Ok(()) };
        if record.earlier_keys.contains(&self.node_key()?.author()) {
            // Sealed files are bound to their names.
            self.write_node_key(&next)?;
            self.remove(&self.root.join(NEXT_KEY_FILE))?;
        } else if self.node_key()?.author() == next.author() {
            self.remove(&self.root.join(NEXT_KEY_FILE))?;
        }
        self.sync()
    }

    pub(super) fn write_owner_key(&self, key: &SecretKey) -> Result<(), DirectoryError> {
        self.write_key(OWNER_KEY_FILE, key)
    }

    /// Keeps the recovery key until somebody has put it away.
    pub(super) fn write_recovery_key(&self, key: &RecoveryKey) -> Result<(), DirectoryError> {
        let text = zeroize::Zeroizing::new(format!("{}\n", key.reveal()));
        self.write_sealed(RECOVERY_FILE, text.as_bytes())
    }

    pub(super) fn recovery_key(&self) -> Result<Option<RecoveryKey>, DirectoryError> {
        let Some(bytes) = self.read(RECOVERY_FILE)? else { return Ok(None) };
        let bytes = zeroize::Zeroizing::new(self.opened(RECOVERY_FILE, bytes)?);
        let key = std::str::from_utf8(&bytes).ok().and_then(|text| RecoveryKey::parse(text).ok());
        let damaged = || DirectoryError::Damaged { path: self.root.join(RECOVERY_FILE), what: "not a key".to_owned() };
        key.map(Some).ok_or_else(damaged)
    }

    pub(super) fn has_recovery_key(&self) -> bool {
        self.root.join(RECOVERY_FILE).exists()
    }

    pub(super) fn remove_recovery_key(&self) -> Result<(), DirectoryError> {
        self.remove(&self.root.join(RECOVERY_FILE))?;
        self.sync()
    }

    /// Returns whether a file lies outside of the directory.
    pub(super) fn is_outside(&self, file: &Path) -> Result<bool, DirectoryError> {
        let resolve = |path: &Path| std::fs::canonicalize(path).map_err(self.io("find", path));
        Ok(!resolve(file)?.starts_with(resolve(&self.root)?))
    }

    /// Makes the first bearer token of the node's API.
    pub(super) fn write_token(&self, random: &[u8; 32]) -> Result<(), DirectoryError> {
        self.write_secret(TOKEN_FILE, format!("fm_{}\n", OpId::new(*random)).as_bytes())
    }

    pub(super) fn invites(&self) -> Result<Vec<InviteRecord>, DirectoryError> {
        Ok(self.json(INVITES_FILE)?.unwrap_or_default())
    }

    pub(super) fn write_invites(&self, invites: &[InviteRecord]) -> Result<(), DirectoryError> {
        self.write_json(INVITES_FILE, invites)
    }

    /// Where other members were last known to be.
    pub(super) fn peers(&self) -> Result<Vec<KnownPeer>, DirectoryError> {
        Ok(self.json(PEERS_FILE)?.unwrap_or_default())
    }

    pub(super) fn write_peers(&self, peers: &[KnownPeer]) -> Result<(), DirectoryError> {
        self.write_json(PEERS_FILE, peers)
    }

    fn write_json<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), DirectoryError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| DirectoryError::Damaged { path: self.root.join(name), what: error.to_string() })?;
        self.write_secret(name, &bytes)
    }
}

/// Writes a file that only its owner may read; a reader sees all of it or the one before, also after a crash.
pub(super) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut options = owner_only();
    options.write(true).create(true).truncate(true);
    let mut file = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The name must be on the disk too.
    sync_folder_of(path)
}

/// Syncs the folder that a file is in; not every file system lets a folder be opened.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent().map(std::fs::File::open) {
        Some(Ok(folder)) => folder.sync_all(),
        Some(Err(_)) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_for_their_owner_alone_and_come_back() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("new");
        let directory = Directory::new(&folder);
        assert!(directory.is_empty());
        directory.create().unwrap();
        assert!(matches!(directory.node_key(), Err(DirectoryError::Empty(_))));
        let key = SecretKey::from_seed(&[7; 32]);
        directory.write_node_key(&key).unwrap();
        directory.write_token(&[8; 32]).unwrap();
        let peers = [KnownPeer { key: key.author(), address: "/ip4/192.0.2.1/tcp/1".to_owned() }];
        directory.write_peers(&peers).unwrap();
        assert_eq!(directory.peers().unwrap(), peers);
        assert_eq!(directory.node_key().unwrap().author(), key.author());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
        #[cfg(unix)]
        for name in [NODE_KEY_FILE, TOKEN_FILE, PEERS_FILE] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        std::fs::write(folder.join(NODE_KEY_FILE), "no key").unwrap();
        assert!(matches!(directory.node_key(), Err(DirectoryError::Damaged { .. })));
    }
}
