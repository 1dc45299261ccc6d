//! Waiting until nodes hold the same, and until links are as they should be.

use std::time::{Duration, Instant};

use folkmoot::api::{Database as _, ShardDigest};
use folkmoot::{Error, ErrorCode};
use futures_util::future::try_join_all;

use super::cluster::{Cluster, DemoNode};
use crate::cli::agreement::{Agreement, Judge};
use crate::cli::process::POLL_INTERVAL;

/// How long nodes may take to hold the same.
const AGREE_TIME_MAX: Duration = Duration::from_secs(300);
/// How long links may take to be cut, or to come back: the network dials again after a while.
const LINK_TIME_MAX: Duration = Duration::from_secs(90);
/// Returns the digests of nodes, shards in one order.
pub(super) async fn digests(nodes: &[&DemoNode]) -> Result<Vec<Vec<ShardDigest>>, Error> {
    try_join_all(nodes.iter().map(|node| async {
        let mut digests = node.client.digests().await?;
        digests.sort();
        Ok(digests)
    }))
    .await
}

/// Waits until these nodes hold the same, and returns how it ended: equal or diverged. `seen` gets what they hold.
pub(super) async fn settle(
    cluster: &Cluster,
    which: impl Fn(&DemoNode) -> bool,
    mut seen: impl FnMut(&[Vec<ShardDigest>]),
) -> Result<(Agreement, Vec<Vec<ShardDigest>>), Error> {
    let nodes: Vec<&DemoNode> = cluster.nodes().iter().filter(|node| which(node)).collect();
    let started = Instant::now();
    let mut judge = Judge::default();
    loop {
        let digests = digests(&nodes).await?;
        seen(&digests);
        match judge.judge(&digests) {
            Agreement::NotYet => {}
            last @ (Agreement::Equal | Agreement::Diverged) => return Ok((last, digests)),
        }
        if started.elapsed() > AGREE_TIME_MAX {
            let held: Vec<_> =
                nodes.iter().zip(&digests).map(|(node, digests)| format!("{} {}", node.name, ops(digests))).collect();
            return Err(Error::new(
                ErrorCode::RequestTimeout,
                format!(
                    "the nodes did not come to hold the same ops within {} s; ops held: {}",
                    AGREE_TIME_MAX.as_secs(),
                    held.join(", ")
                ),
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until every node has as many peers connected as it should.
pub(super) async fn connected(cluster: &Cluster, wanted: impl Fn(&DemoNode) -> usize) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let mut missing = Vec::new();
        for node in cluster.nodes() {
            let status = node.client.status().await?;
            let wanted = wanted(node);
            if status.peers_connected as usize != wanted || status.members as usize != cluster.nodes().len() {
                missing.push(format!(
                    "{} has {} of {wanted} peers and knows {} members",
                    node.name, status.peers_connected, status.members
                ));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if started.elapsed() > LINK_TIME_MAX {
            return Err(Error::new(
                ErrorCode::RequestTimeout,
                format!(
                    "the links were not as they should be after {} s: {}",
                    LINK_TIME_MAX.as_secs(),
                    missing.join("; ")
                ),
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns the ops of a node.
pub(super) fn ops(digests: &[ShardDigest]) -> u64 {
    digests.iter().map(|digest| digest.ops).sum()
}

/// Returns the documents of a node.
pub(super) fn documents(digests: &[ShardDigest]) -> u64 {
    digests.iter().map(|digest| digest.documents).sum()
}
