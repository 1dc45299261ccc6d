//! What `folkmoot bench` can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use folkmoot::CollectionName;
use serde::Serialize;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Workload {
    /// Documents of 200 bytes are created, each acknowledged when it is on disk
    Create,
    /// Documents are read, in no order
    Read,
    /// A field of a document is changed, by a merge patch
    Update,
    /// Four reads to one update
    Mixed,
    /// A bare warp handler that answers with the bytes of a read: what HTTP alone costs
    Bare,
    /// Documents are written to the first node in bulk, until every node holds them
    Replicate,
    /// A node that was cut off meanwhile gets documents
    CatchUp,
    /// A node that joins gets documents (only among nodes started for it)
    Bootstrap,
    /// Two nodes that were written to while cut off from each other come to hold the same
    Heal,
    /// From the acknowledgement of a write on the first node to its change in the feed of the last
    Feed,
    /// The same on one node, with many feeds, each of which is told of its share of the writes
    Subscribers,
}

impl Workload {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Mixed => "mixed",
            Self::Bare => "bare",
            Self::Replicate => "replicate",
            Self::CatchUp => "catch-up",
            Self::Bootstrap => "bootstrap",
            Self::Heal => "heal",
            Self::Feed => "feed",
            Self::Subscribers => "subscribers",
        }
    }

    /// How many nodes it needs at least.
    pub(super) const fn nodes_min(self) -> usize {
        match self {
            Self::Create | Self::Read | Self::Update | Self::Mixed | Self::Bare | Self::Subscribers => 1,
            Self::Replicate | Self::CatchUp | Self::Bootstrap | Self::Heal | Self::Feed => 2,
        }
    }
}

/// Writes per second of the workloads of feeds when no rate is given.
pub(super) const FEED_RATE: u32 = 1_000;

/// A load generator with more would measure itself.
const CONNECTIONS_MAX: i64 = 1_024;

#[derive(Debug, Args)]
#[command(
    after_help = "Figures of one run compare with each other; those of different machines or moments do not. CPU time per \
operation is that of the nodes' processes, by their own metrics. With --url, give as many token files as nodes (separated by \
commas) if they take different tokens. The documents stay in the collection."
)]
pub(in crate::cli) struct Bench {
    /// What to measure, in this order [default: all]
    #[arg(value_enum)]
    pub(super) workloads: Vec<Workload>,
    /// Connections at once, each with one request at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=CONNECTIONS_MAX))]
    pub(super) connections: u16,
    /// Begin so many operations a second whatever the answers take; latency then counts from when each should have begun
    /// [default: each connection sends when it has its answer; `feed`, `subscribers`: 1000]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) rate: Option<u32>,
    /// How long to measure each workload
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = duration)]
    pub(super) duration: Duration,
    /// How long to load before it
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = duration)]
    pub(super) warm_up: Duration,
    /// How many documents are there to read and update, and how many are replicated
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(super) documents: u32,
    /// How many feeds `subscribers` has; a node gives `limits.streams` to one principal, 1000 if not set otherwise
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) subscribers: u16,
    /// How many nodes to start; workloads between nodes take two at least
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(super) nodes: u8,
    /// Measure everything so often, and show the run with the median CPU time of each workload
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(super) rounds: u8,
    /// Leave what nodes that are started store unsealed
    #[arg(long)]
    pub(super) unsealed: bool,
    /// The collection to use
    #[arg(long, default_value = "bench", value_name = "NAME")]
    pub(super) collection: CollectionName,
    /// Where nodes that are started keep their data, in a folder that is removed in the end [default: the system's
    /// folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) folder: Option<PathBuf>,
}

impl Bench {
    pub(super) fn workloads(&self, nodes: Option<usize>) -> Vec<Workload> {
        if !self.workloads.is_empty() {
            return self.workloads.clone();
        }
        let possible = |workload: &Workload| match nodes {
            None => true,
            Some(nodes) => *workload != Workload::Bootstrap && workload.nodes_min() <= nodes,
        };
        Workload::value_variants().iter().copied().filter(possible).collect()
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchBare {
    /// File with the answer, head and body
    #[arg(long)]
    pub(super) answer: PathBuf,
}

/// Longer runs are several.
const DURATION_MAX: Duration = Duration::from_secs(3_600);

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > DURATION_MAX {
        return Err(format!("at most {}", humantime::format_duration(DURATION_MAX)));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_bounded() {
        assert_eq!(duration("50ms").unwrap(), Duration::from_millis(50));
        assert!(duration("2h").is_err());
        assert!(duration("5").is_err());
    }
}
