//! Waiting until this replica shows at least what another one had.
//!
//! Three steps, of which each holds for good once it was reached: the ops are durable here; they are applied to their documents, and
//! what waited for them was looked at again; the batch with the views is committed. So whoever waits is done after a while
//! however much comes in meanwhile.

use super::{BatchId, Replica};
use crate::id::ShardId;
use crate::replication::Reach;

/// What of a shard is waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardReach {
    /// The shard.
    pub shard: ShardId,
    /// Its streams, each up to an op.
    pub streams: Vec<Reach>,
}

/// Somebody who waits.
#[derive(Debug)]
pub struct CatchUp {
    wanted: Vec<ShardReach>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// For ops.
    Missing,
    /// Until ops up to these arrivals are applied, and what was ready then was looked at.
    Applying { arrivals: Vec<(ShardId, u64)>, rests: u64 },
    /// For this batch.
    Committing(BatchId),
    /// For nothing any more.
    Done,
}

/// What is still missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lag {
    /// Ops that are not here.
    pub ops: u64,
    /// Streams that lack some.
    pub streams: usize,
}

impl CatchUp {
    /// Begins to wait.
    #[must_use]
    pub const fn new(wanted: Vec<ShardReach>) -> Self {
        Self { wanted, stage: Stage::Missing }
    }

    /// Whether readers see all of it.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }
}

impl Replica {
    /// Takes note for somebody who waits of how far this replica is, and returns what is missing. With nothing missing it may be that it is
    /// not shown yet.
    pub fn catch_up(&self, waiting: &mut CatchUp) -> Lag {
        let mut lag = Lag { ops: 0, streams: 0 };
        if let Stage::Missing = waiting.stage {
            for ShardReach { shard, streams } in &waiting.wanted {
                for missing in streams.iter().map(|reach| self.engine.ops_lacked(shard, reach)) {
                    lag.ops = lag.ops.saturating_add(missing);
                    lag.streams += usize::from(missing > 0);
                }
            }
            if lag.ops > 0 {
                return lag;
            }
            let shards = waiting.wanted.iter().map(|wanted| wanted.shard.clone());
            let arrivals = shards.map(|shard| (shard.clone(), self.engine.last_arrival(&shard))).collect();
            waiting.stage = Stage::Applying { arrivals, rests: self.rests };
        }
        if let Stage::Applying { arrivals, rests } = &waiting.stage {
            let is_applied =
                |(shard, arrival): &(ShardId, u64)| self.shards.get(shard).map_or(0, |state| state.applied) >= *arrival;
            let is_settled = self.rests > *rests || !self.has_some_to_look_at_again();
            if is_settled && arrivals.iter().all(is_applied) {
                // What is applied and has not gone to the disk yet goes with the next batch.
                let last = self.in_flight.back().map_or(self.committed, |batch| batch.id());
                waiting.stage = Stage::Committing(if self.has_staged() { self.next_batch } else { last });
            }
        }
        if let Stage::Committing(batch) = &waiting.stage
            && *batch <= self.committed
        {
            waiting.stage = Stage::Done;
        }
        lag
    }
}
