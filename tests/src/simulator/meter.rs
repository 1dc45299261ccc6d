//! What a run costs its replicas: processor time, time until writes are everywhere, what is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use folkmoot_core::figure::Figure;
use folkmoot_core::id::OpId;
use folkmoot_core::replica::{Replica, TxState};

use crate::gate::cpu_time;

/// What the replicas of a run took, all together where nothing else is said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Costs {
    /// Simulated time.
    pub simulated: Duration,
    /// Replicas.
    pub replicas: u32,
    /// Processor time of replicas, without what stands for disks and network.
    pub cpu: Duration,
    /// Writes that clients asked for, and those that were acknowledged.
    pub asked: u64,
    /// See above.
    pub acknowledged: u64,
    /// Simulated milliseconds from when an op was on its author's disk until it was on everybody's, for each op.
    pub spread_ms: Vec<u64>,
    /// The most that one replica kept in what it counts in bytes.
    pub kept_bytes_max: usize,
    /// The most transactions that waited on one replica.
    pub waiting_max: u64,
    /// The most bytes on one disk at the end.
    pub disk_bytes_max: u64,
}

impl Costs {
    /// Returns the part of a core that one replica took.
    #[must_use]
    pub fn core_share(&self) -> f64 {
        self.cpu.as_secs_f64() / f64::from(self.replicas.max(1)) / self.simulated.as_secs_f64().max(1e-9)
    }

    /// Returns in how many milliseconds so many percent of the ops were everywhere.
    #[must_use]
    pub fn spread_ms(&self, percent: usize) -> u64 {
        let mut sorted = self.spread_ms.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * percent / 100).copied().unwrap_or(0)
    }

    /// Adds another run of as many replicas.
    #[must_use]
    pub fn and(mut self, mut other: Self) -> Self {
        self.spread_ms.append(&mut other.spread_ms);
        Self {
            simulated: self.simulated + other.simulated,
            replicas: other.replicas,
            cpu: self.cpu + other.cpu,
            asked: self.asked + other.asked,
            acknowledged: self.acknowledged + other.acknowledged,
            spread_ms: self.spread_ms,
            kept_bytes_max: self.kept_bytes_max.max(other.kept_bytes_max),
            waiting_max: self.waiting_max.max(other.waiting_max),
            disk_bytes_max: self.disk_bytes_max.max(other.disk_bytes_max),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) costs: Costs,
    /// Ops that are not everywhere yet: since when they are durable, and on how many disks.
    spreading: BTreeMap<OpId, (u64, usize)>,
}

impl Meter {
    /// Does something of a replica's, and counts its processor time.
    pub(super) fn timed<T>(meter: &mut Option<Self>, work: impl FnOnce() -> T) -> T {
        let Some(meter) = meter else { return work() };
        let before = cpu_time();
        let result = work();
        meter.costs.cpu += cpu_time().saturating_sub(before);
        result
    }

    /// An op is on one more of the disks.
    pub(super) fn on_disk(&mut self, op: OpId, now_ms: u64, disks: usize) {
        let (since, count) = self.spreading.entry(op).or_insert((now_ms, 0));
        *count += 1;
        if *count == disks {
            self.costs.spread_ms.push(now_ms - *since);
            self.spreading.remove(&op);
        }
    }

    pub(super) fn look_at(&mut self, replica: &Replica, figures: &[Figure]) {
        let kept = figures.iter().filter(|figure| figure.name.ends_with("_bytes")).map(|figure| figure.held).sum();
        let states = replica.tx_states();
        let waiting = [TxState::Waiting, TxState::Deferred].iter().filter_map(|state| states.get(state)).sum();
        self.costs.kept_bytes_max = self.costs.kept_bytes_max.max(kept);
        self.costs.waiting_max = self.costs.waiting_max.max(waiting);
    }
}
