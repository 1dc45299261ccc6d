//! Whether nodes hold the same, and waiting until they do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use folkmoot::api::{Database as _, ShardDigest};
use folkmoot::{Error, ErrorCode};
use futures_util::future::try_join_all;

use super::cluster::{Cluster, DemoNode};
use crate::cli::process::POLL_INTERVAL;

/// How long nodes may take to hold the same.
const AGREE_TIME_MAX: Duration = Duration::from_secs(300);
/// How long links may take to be cut, or to come back: the network dials again after a while.
const LINK_TIME_MAX: Duration = Duration::from_secs(90);
/// How long the contents may differ when the ops do not: digests of a node are not read at one instant.
const DIVERGED_AFTER: Duration = Duration::from_secs(5);

/// How the digests of nodes compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Agreement {
    /// All hold the same ops, have applied them, and they come to the same.
    Equal,
    /// Some node lacks ops or has not applied them yet.
    NotYet,
    /// All hold and have applied the same ops, which come to other contents.
    Diverged,
}

/// Compares what nodes tell of their shards.
pub(in crate::cli) fn compare(digests: &[Vec<ShardDigest>]) -> Agreement {
    let ops: BTreeSet<Vec<_>> = digests
        .iter()
        .map(|node| node.iter().map(|d| (&d.collection, d.shard, d.of, &d.ops_digest, d.ops)).collect())
        .collect();
    let states: BTreeSet<Vec<_>> =
        digests.iter().map(|node| node.iter().map(|d| (&d.state_digest, d.documents)).collect()).collect();
    if ops.len() > 1 || digests.iter().flatten().any(|digest| digest.ops_unapplied > 0) {
        return Agreement::NotYet;
    }
    if states.len() > 1 { Agreement::Diverged } else { Agreement::Equal }
}

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
    let mut diverged_since: Option<Instant> = None;
    loop {
        let digests = digests(&nodes).await?;
        seen(&digests);
        match compare(&digests) {
            Agreement::Equal => return Ok((Agreement::Equal, digests)),
            Agreement::Diverged => {
                if diverged_since.get_or_insert_with(Instant::now).elapsed() > DIVERGED_AFTER {
                    return Ok((Agreement::Diverged, digests));
                }
            }
            Agreement::NotYet => diverged_since = None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ops: &str, state: &str, unapplied: u64) -> Vec<ShardDigest> {
        vec![ShardDigest {
            collection: "cities".parse().unwrap(),
            shard: 0,
            of: 1,
            ops_digest: ops.to_owned(),
            state_digest: state.to_owned(),
            ops: 1,
            documents: 1,
            ops_unapplied: unapplied,
        }]
    }

    #[test]
    fn nodes_agree_only_when_all_is_applied_and_equal() {
        let a = || node("1", "x", 0);
        assert_eq!(compare(&[a(), a(), a()]), Agreement::Equal);
        assert_eq!(compare(&[a(), node("1", "y", 0), a()]), Agreement::Diverged);
        assert_eq!(compare(&[a(), node("2", "x", 0)]), Agreement::NotYet);
        assert_eq!(compare(&[a(), node("1", "y", 1)]), Agreement::NotYet);
        assert_eq!(compare(&[a(), Vec::new()]), Agreement::NotYet);
    }
}
