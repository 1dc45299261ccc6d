//! The nodes of a demo: processes of this same program, each with a data directory of its own.
//!
//! Whatever way the demo ends, dropping a [`Cluster`] kills the processes and then removes the folder.

use std::path::{Path, PathBuf};

use folkmoot::{AuthorKey, Client, Error, ErrorCode};

use super::Half;
use crate::cli::process::{Process, StartedNode, start_node};

/// A node of the demo.
pub(super) struct DemoNode {
    pub(super) name: String,
    pub(super) half: Half,
    pub(super) key: AuthorKey,
    pub(super) url: String,
    pub(super) client: Client,
    process: Process,
}

/// The nodes, and where they keep their data.
pub(super) struct Cluster {
    // The order matters: processes end before their folders go.
    nodes: Vec<DemoNode>,
    folder: Folder,
}

/// Where the data of a demo is.
enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}

impl Cluster {
    /// Makes the folder in which nodes are to be started; `keep` names one that stays.
    pub(super) fn new(keep: Option<&Path>) -> Result<Self, Error> {
        let failed = |what: &str, source: std::io::Error| {
            Error::new(ErrorCode::Internal, format!("{what}: {source}")).with_source(source)
        };
        let folder = match keep {
            None => Folder::Temporary(
                tempfile::Builder::new()
                    .prefix("folkmoot-demo-")
                    .tempdir()
                    .map_err(|source| failed("make a temporary folder", source))?,
            ),
            Some(path) => {
                std::fs::create_dir_all(path).map_err(|source| failed("make the folder to keep", source))?;
                let path = path.canonicalize().map_err(|source| failed("find the folder to keep", source))?;
                let mut entries =
                    std::fs::read_dir(&path).map_err(|source| failed("read the folder to keep", source))?;
                if entries.next().is_some() {
                    return Err(Error::new(ErrorCode::InvalidParameter, format!("{} is not empty", path.display()))
                        .hint("the demo founds a new cluster: name a folder that does not exist yet"));
                }
                Folder::Kept(path)
            }
        };
        Ok(Self { nodes: Vec::new(), folder })
    }

    pub(super) fn nodes(&self) -> &[DemoNode] {
        &self.nodes
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the first node of a half: the one that its edits are made on.
    pub(super) fn first_of(&self, half: Half) -> Result<&DemoNode, Error> {
        self.nodes
            .iter()
            .find(|node| node.half == half)
            .ok_or_else(|| Error::new(ErrorCode::Internal, format!("the {} half has no nodes", half.name())))
    }

    /// Starts the next node; the first founds the cluster, the others join it.
    pub(super) async fn start(&mut self, half: Half) -> Result<(), Error> {
        let name = format!("node-{}", self.nodes.len() + 1);
        let others: Vec<&Client> = self.nodes.iter().map(|node| &node.client).collect();
        let started = start_node(self.folder.path(), &name, &others).await.map_err(with_hint)?;
        let StartedNode { key, url, token: _, client, process } = started;
        self.nodes.push(DemoNode { name, half, key, url, client, process });
        Ok(())
    }

    /// Returns an error with the end of its log if a process has ended that should run.
    pub(super) fn check_running(&mut self) -> Result<(), Error> {
        for node in &mut self.nodes {
            if let Some(status) = node.process.status()? {
                return Err(with_hint(node.process.ended_early(status)));
            }
        }
        Ok(())
    }
}

/// An error that has no advice yet gets one.
fn with_hint(error: Error) -> Error {
    if error.advice().is_some() { error } else { error.hint("--keep DIR keeps the logs and the data") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "").unwrap();
        let error = Cluster::new(Some(folder.path())).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidParameter);
        assert!(folder.path().join("mine").exists());
    }

    #[test]
    fn temporary_folders_go_with_the_cluster_and_kept_ones_stay() {
        let cluster = Cluster::new(None).unwrap();
        let path = cluster.folder().to_owned();
        assert!(path.is_dir());
        drop(cluster);
        assert!(!path.exists());
        let parent = tempfile::tempdir().unwrap();
        let kept = parent.path().join("kept");
        drop(Cluster::new(Some(&kept)).unwrap());
        assert!(kept.is_dir());
    }
}
