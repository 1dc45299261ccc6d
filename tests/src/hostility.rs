//! What each attack costs an honest cluster, beside a run without one.

use std::fmt;
use std::ops::Range;

use crate::simulator::{Costs, Failure, Options, Trace, Trouble, run_measured};
use crate::villain::Attack;

/// Milliseconds between two writes of clients.
const WRITE_EVERY_MS: u64 = 40;
/// How much slower an attack may make a cluster: by what it takes of a core, and by how much later writes are everywhere.
const SLOWER_MAX: f64 = 0.2;
/// Later by so many milliseconds is no matter: a write waits for a disk and a few links.
const LATER_MS_FREE: u64 = 100;
/// How much more a replica may keep, in what it counts in bytes: what it may hold back of one peer, and its windows.
const MORE_KEPT_BYTES_MAX: usize = 24 << 20;

/// What one run was like.
pub struct Outcome {
    /// What was done; nothing in the run to compare with.
    pub attack: Option<Attack>,
    /// The longest that it took until every node had banned the attacker.
    banned_after_ms: u64,
    costs: Costs,
}

impl Outcome {
    /// Runs an attack, or none, with each of some seeds: what disks and links take by chance is spread over them.
    ///
    /// # Errors
    /// If an invariant was broken.
    pub fn of(attack: Option<Attack>, seeds: Range<u64>, minutes: u64) -> Result<Self, Failure> {
        let trouble = attack.map_or(Trouble::Nothing, Trouble::Attack);
        let mut outcome = Self { attack, banned_after_ms: 0, costs: Costs::default() };
        for seed in seeds {
            let trace = Trace::Silent;
            let (report, costs) =
                run_measured(Options { seed, minutes, trace, trouble, write_every_ms: Some(WRITE_EVERY_MS) })?;
            outcome.banned_after_ms = outcome.banned_after_ms.max(report.banned_after_ms);
            outcome.costs = outcome.costs.and(costs);
        }
        Ok(outcome)
    }

    /// Returns in what the attack did more harm than it may, if in anything.
    #[must_use]
    pub fn harm(&self, calm: &Self) -> Option<String> {
        let (with, without) = (&self.costs, &calm.costs);
        let more = with.core_share() - without.core_share();
        let spread_max = (without.spread_ms(99) as f64 * (1.0 + SLOWER_MAX)) as u64 + LATER_MS_FREE;
        if more > SLOWER_MAX {
            Some(format!("it takes {:.0} % of a core", more * 100.0))
        } else if with.spread_ms(99) > spread_max {
            Some(format!("writes are everywhere after {} ms", with.spread_ms(99)))
        } else if with.kept_bytes_max > without.kept_bytes_max + MORE_KEPT_BYTES_MAX {
            Some(format!("{} bytes are kept", with.kept_bytes_max))
        } else {
            None
        }
    }

    /// The columns of [`fmt::Display`].
    pub const HEADING: &str = "| attack | banned after | core of a node | writes acknowledged | everywhere p50, p99 | kept | waiting | disk |\n\
                               |---|---:|---:|---:|---:|---:|---:|---:|";
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Costs { asked, acknowledged, waiting_max, .. } = self.costs;
        let (half, most) = (self.costs.spread_ms(50), self.costs.spread_ms(99));
        let name = self.attack.map_or_else(|| "none".to_owned(), Attack::name);
        let banned = match self.attack {
            Some(_) => format!("{:.1} s", self.banned_after_ms as f64 / 1e3),
            None => String::new(),
        };
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "| {name} | {banned} | {:.1} % | {acknowledged} of {asked} | {half}, {most} ms | {:.1} MiB | {waiting_max} | {:.1} MiB |",
            self.costs.core_share() * 100.0,
            mebibytes(self.costs.kept_bytes_max as u64),
            mebibytes(self.costs.disk_bytes_max),
        )
    }
}
