//! Workloads between nodes: replication, catching up, joining, healing.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use folkmoot::api::{Database as _, LinkRule, PeerState, ShardDigest};
use folkmoot::{Error, ErrorCode};
use futures_util::future::{try_join, try_join_all};

use super::args::Workload;
use super::meter::{Meter, Used};
use super::nodes::Nodes;
use crate::cli::agreement::{Agreement, Judge};

/// How often nodes are asked what they hold. Asking costs them little beside what is measured.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long nodes may take to hold the same, and links to go or come back.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(600);

/// What came of documents that went from node to node.
pub(super) struct Moved {
    pub(super) documents: u64,
    /// From the first write, or from when the nodes were connected, until all hold the same.
    pub(super) time: Duration,
    /// From opening the link until the nodes were connected.
    pub(super) reconnect: Option<Duration>,
    /// Documents that were acknowledged and are not everywhere.
    pub(super) lost: u64,
    pub(super) agreement: Agreement,
    pub(super) used: Used,
}

/// Runs one of these workloads; `tag` makes its documents new ones.
pub(super) async fn run(
    workload: Workload,
    nodes: &mut Nodes,
    folder: &Path,
    tag: &str,
    count: u64,
) -> Result<Moved, Error> {
    match workload {
        Workload::Replicate => replicate(nodes, tag, count).await,
        Workload::CatchUp => away(nodes, tag, [count, 0]).await,
        Workload::Bootstrap => bootstrap(nodes, folder, tag, count).await,
        Workload::Heal => away(nodes, tag, [count, count]).await,
        Workload::Create
        | Workload::Read
        | Workload::Update
        | Workload::Mixed
        | Workload::Bare
        | Workload::Feed
        | Workload::Subscribers => Err(Error::new(ErrorCode::Internal, "this workload is not one between nodes")),
    }
}

/// A measurement between nodes that has begun.
struct Run {
    held_before: u64,
    meter: Meter,
    before: super::meter::Reading,
    begun: Instant,
}

impl Run {
    async fn begin(nodes: &Nodes) -> Result<Self, Error> {
        let held_before = documents(nodes).await?.into_iter().min().unwrap_or_default();
        let mut meter = nodes.meter().await?;
        let before = meter.read().await?;
        Ok(Self { held_before, meter, before, begun: Instant::now() })
    }

    async fn end(mut self, nodes: &Nodes, documents_new: u64, reconnect: Option<Duration>) -> Result<Moved, Error> {
        let agreement = settle(nodes).await?;
        let time = self.begun.elapsed().saturating_sub(reconnect.unwrap_or_default());
        let used = self.meter.read().await?.since(&self.before, 0);
        let held = documents(nodes).await?.into_iter().min().unwrap_or_default();
        let lost = (self.held_before + documents_new).saturating_sub(held);
        Ok(Moved { documents: documents_new, time, reconnect, lost, agreement, used })
    }
}

async fn replicate(nodes: &Nodes, tag: &str, count: u64) -> Result<Moved, Error> {
    settle(nodes).await?;
    let run = Run::begin(nodes).await?;
    nodes.first()?.fill(nodes.collection(), tag, count).await?;
    run.end(nodes, count, None).await
}

/// Cuts the last node off, writes to the first and to the last, and lets them find each other again.
async fn away(nodes: &Nodes, tag: &str, counts: [u64; 2]) -> Result<Moved, Error> {
    let (first, last) = (nodes.first()?, nodes.last()?);
    // The collection is known everywhere before.
    first.fill(nodes.collection(), &format!("{tag}-before"), 1).await?;
    settle(nodes).await?;
    let held_before = documents(nodes).await?.into_iter().min().unwrap_or_default();
    set_links(nodes, LinkRule::Blocked).await?;
    connected(nodes, Links::Cut).await?;
    let [near, far] = counts;
    let (here, there) = (format!("{tag}-here"), format!("{tag}-there"));
    let (here, there) = (first.fill(nodes.collection(), &here, near), last.fill(nodes.collection(), &there, far));
    try_join(here, there).await?;
    let mut run = Run::begin(nodes).await?;
    run.held_before = held_before;
    set_links(nodes, LinkRule::Open).await?;
    connected(nodes, Links::Whole).await?;
    let reconnect = run.begun.elapsed();
    run.end(nodes, near + far, Some(reconnect)).await
}

async fn bootstrap(nodes: &mut Nodes, folder: &Path, tag: &str, count: u64) -> Result<Moved, Error> {
    nodes.first()?.fill(nodes.collection(), tag, count).await?;
    let joining = Instant::now();
    // The first figures are those of a node that has just begun.
    nodes.add(folder).await?;
    let mut run = Run::begin(nodes).await?;
    run.begun = joining;
    run.held_before = 0;
    connected(nodes, Links::Whole).await?;
    let reconnect = joining.elapsed();
    run.end(nodes, count, Some(reconnect)).await
}

/// Sets the rule of the links between the last node and all others, at both ends.
async fn set_links(nodes: &Nodes, rule: LinkRule) -> Result<(), Error> {
    let last = nodes.last()?;
    for node in nodes.all.iter().filter(|node| node.key != last.key) {
        try_join(node.client.set_link(&last.key, rule), last.client.set_link(&node.key, rule)).await?;
    }
    Ok(())
}

/// How the last node is linked with the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Whole,
    Cut,
}

async fn connected(nodes: &Nodes, wanted: Links) -> Result<(), Error> {
    let last = nodes.last()?;
    let others: BTreeSet<_> = nodes.all.iter().map(|node| node.key).filter(|key| *key != last.key).collect();
    let started = Instant::now();
    loop {
        let here = last.client.peers().await?;
        let linked =
            here.iter().filter(|peer| others.contains(&peer.node) && peer.state == PeerState::Connected).count();
        let there = nodes.first()?.client.peers().await?;
        let back = there.iter().any(|peer| peer.node == last.key && peer.state == PeerState::Connected);
        let done = match wanted {
            Links::Whole => linked == others.len() && back,
            Links::Cut => linked == 0 && !back,
        };
        if done {
            return Ok(());
        }
        if started.elapsed() > SETTLE_TIME_MAX {
            return Err(Error::new(
                ErrorCode::RequestTimeout,
                "the links between the nodes did not come to be as asked",
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until all nodes hold the same of the collection.
pub(super) async fn settle(nodes: &Nodes) -> Result<Agreement, Error> {
    let started = Instant::now();
    let mut judge = Judge::default();
    loop {
        let digests = try_join_all(nodes.all.iter().map(|node| digests(nodes, node))).await?;
        match judge.judge(&digests) {
            Agreement::NotYet => {}
            last @ (Agreement::Equal | Agreement::Diverged) => return Ok(last),
        }
        if started.elapsed() > SETTLE_TIME_MAX {
            let limit = SETTLE_TIME_MAX.as_secs();
            return Err(Error::new(
                ErrorCode::RequestTimeout,
                format!("the nodes do not hold the same after {limit} s"),
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn digests(nodes: &Nodes, node: &super::nodes::BenchNode) -> Result<Vec<ShardDigest>, Error> {
    let mut digests = node.client.digests().await?;
    digests.retain(|digest| digest.collection == *nodes.collection());
    digests.sort();
    Ok(digests)
}

/// Returns how many documents each node holds.
async fn documents(nodes: &Nodes) -> Result<Vec<u64>, Error> {
    let digests = try_join_all(nodes.all.iter().map(|node| digests(nodes, node))).await?;
    Ok(digests.iter().map(|digests| digests.iter().map(|digest| digest.documents).sum()).collect())
}
