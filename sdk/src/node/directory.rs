//! The data directory: keys, the owner's token, and what cluster the data belongs to.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use folkmoot_core::id::{AuthorKey, ClusterId, OpId, PrincipalId};
use folkmoot_core::keys::SecretKey;
use serde::{Deserialize, Serialize};

use super::invites::InviteRecord;

const CLUSTER_FILE: &str = "cluster.json";
const NODE_KEY_FILE: &str = "node.key";
const OWNER_KEY_FILE: &str = "owner.key";
const TOKEN_FILE: &str = "owner.token";
const INVITES_FILE: &str = "invites.json";
const PEERS_FILE: &str = "peers.json";
const STORE_FOLDER: &str = "store";
const WATERMARK_FILE: &str = "watermark";
/// Largest file that is read whole: the invites and the addresses of peers, some hundred kilobytes at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

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
    /// Where to find other members first.
    pub(super) peers: Vec<KnownPeer>,
}

/// The files of a data directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.root.join(STORE_FOLDER)
    }

    pub(super) fn watermark(&self) -> PathBuf {
        self.root.join(WATERMARK_FILE)
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

    /// Writes a file that only its owner may read; a reader sees all of it or the one before, also after a crash.
    fn write_secret(&self, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
        let path = self.root.join(name);
        let new = self.root.join(format!("{name}.new"));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let mut file = options.open(&new).map_err(self.io("create", &new))?;
        file.write_all(bytes).map_err(self.io("write", &new))?;
        file.sync_all().map_err(self.io("sync", &new))?;
        std::fs::rename(&new, &path).map_err(self.io("rename", &new))?;
        // The name must be on the disk too; not every file system lets a folder be opened.
        if let Ok(folder) = std::fs::File::open(&self.root) {
            folder.sync_all().map_err(self.io("sync", &self.root))?;
        }
        Ok(())
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, DirectoryError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| DirectoryError::Damaged { path: self.root.join(name), what: error.to_string() })
    }

    fn key(&self, name: &str) -> Result<Option<SecretKey>, DirectoryError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let damaged = || DirectoryError::Damaged { path: self.root.join(name), what: "not a key".to_owned() };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let seed: OpId = text.trim().parse().map_err(|_| damaged())?;
        Ok(Some(SecretKey::from_seed(seed.as_bytes())))
    }

    fn write_key(&self, name: &str, key: &SecretKey) -> Result<(), DirectoryError> {
        // Hexadecimal, which the id types write.
        self.write_secret(name, format!("{}\n", OpId::new(key.to_seed())).as_bytes())
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

    pub(super) fn write_node_key(&self, key: &SecretKey) -> Result<(), DirectoryError> {
        self.write_key(NODE_KEY_FILE, key)
    }

    pub(super) fn write_owner_key(&self, key: &SecretKey) -> Result<(), DirectoryError> {
        self.write_key(OWNER_KEY_FILE, key)
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
