//! The nodes that are measured: those of a running cluster, or processes started for it.

use std::path::Path;

use folkmoot::api::{BulkOp, BulkOptions, Database as _, Edit};
use folkmoot::{AuthorKey, Client, CollectionName, DocId, Error, ErrorCode};
use futures_util::future::try_join_all;

use super::meter::Meter;
use super::requests::{Site, document_bytes, document_id};
use crate::cli::process::{Process, StartedNode, start_node};

/// Documents sent in one call.
const BATCH: u64 = 500;
/// Calls at once: enough that a node never waits for the next.
const FILLERS: u64 = 4;

pub(super) struct BenchNode {
    pub(super) url: String,
    pub(super) key: AuthorKey,
    pub(super) client: Client,
    pub(super) site: Site,
    // Ends with the node.
    _process: Option<Process>,
}

/// Where nodes are.
pub(super) struct Nodes {
    pub(super) all: Vec<BenchNode>,
    collection: CollectionName,
}

impl Nodes {
    /// Starts a new cluster in a folder that holds no other.
    pub(super) async fn start(folder: &Path, count: usize, collection: &CollectionName) -> Result<Self, Error> {
        let mut nodes = Self { all: Vec::new(), collection: collection.clone() };
        for _ in 0..count {
            nodes.add(folder).await?;
        }
        Ok(nodes)
    }

    /// Starts one more node.
    pub(super) async fn add(&mut self, folder: &Path) -> Result<(), Error> {
        let name = format!("node-{}", self.all.len() + 1);
        let others: Vec<&Client> = self.all.iter().map(|node| &node.client).collect();
        let StartedNode { key, url, token, client, process } = start_node(folder, &name, &others).await?;
        let site = Site::new(&url, &token, &self.collection);
        self.all.push(BenchNode { url, key, client, site, _process: Some(process) });
        Ok(())
    }

    /// Finds running nodes by their addresses; tokens go with them, one each or one for all.
    pub(super) async fn find(urls: &[String], tokens: &[String], collection: &CollectionName) -> Result<Self, Error> {
        let mut all = Vec::new();
        for (index, url) in urls.iter().enumerate() {
            let token = tokens.get(index).or(tokens.last()).cloned().unwrap_or_default();
            let client = Client::builder(url).token(&*token).build()?;
            let key = client.status().await?.node;
            let site = Site::new(url, &token, collection);
            all.push(BenchNode { url: url.clone(), key, client, site, _process: None });
        }
        Ok(Self { all, collection: collection.clone() })
    }

    pub(super) fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// Returns the node that is written to.
    pub(super) fn first(&self) -> Result<&BenchNode, Error> {
        self.all.first().ok_or_else(|| Error::new(ErrorCode::InvalidParameter, "there is no node to measure"))
    }

    /// Returns the node that is farthest from the one that is written to.
    pub(super) fn last(&self) -> Result<&BenchNode, Error> {
        self.all.last().ok_or_else(|| Error::new(ErrorCode::InvalidParameter, "there is no node to measure"))
    }

    pub(super) async fn meter(&self) -> Result<Meter, Error> {
        Meter::open(self.all.iter().map(|node| node.site.clone())).await
    }
}

impl BenchNode {
    /// Writes documents, whose ids begin with `prefix`, several calls at once.
    pub(super) async fn fill(&self, collection: &CollectionName, prefix: &str, count: u64) -> Result<(), Error> {
        try_join_all((0..FILLERS).map(|filler| self.fill_part(collection, prefix, filler, count))).await?;
        Ok(())
    }

    async fn fill_part(&self, collection: &CollectionName, prefix: &str, part: u64, count: u64) -> Result<(), Error> {
        let mut start = part * BATCH;
        while start < count {
            let edits: Result<Vec<BulkOp>, Error> = (start..count.min(start + BATCH))
                .map(|number| {
                    let id: DocId = document_id(prefix, number).parse()?;
                    Ok(Edit::Put { id, json: document_bytes(number) }.into())
                })
                .collect();
            for outcome in self.client.bulk(collection, edits?, &BulkOptions::default()).await? {
                outcome?;
            }
            start += FILLERS * BATCH;
        }
        Ok(())
    }
}
