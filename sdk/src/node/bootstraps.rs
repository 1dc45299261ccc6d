//! What the node tells about shards that it takes in bulk.

use std::time::Duration;

use folkmoot_core::replica::{Counters, LastBulk};
use folkmoot_core::replication::{BulkStage, BulkStatus, Counters as EngineCounters};

use super::state::{gauge, to_f64};
use crate::api::{Bootstrap, BootstrapStage, LastBootstrap, Timestamp};

/// Brings the metrics of shards that are taken in bulk up to date.
pub(super) fn tell_bootstraps(
    counters: &Counters,
    engine: &EngineCounters,
    bulks: &[BulkStatus],
    ended_ms: Option<u64>,
) {
    metrics::counter!("folkmoot_bootstraps_total").absolute(counters.bulks);
    metrics::counter!("folkmoot_bootstrap_documents_total").absolute(engine.bulk_documents);
    metrics::counter!("folkmoot_bootstrap_bytes_total").absolute(engine.bulk_bytes);
    metrics::counter!("folkmoot_bootstrap_pages_late_total").absolute(engine.bulk_pages_late);
    gauge("folkmoot_bootstrap_shards", bulks.len() as u64);
    let missing = bulks.iter().map(|bulk| &bulk.progress).filter(|progress| progress.stage == BulkStage::Documents);
    gauge("folkmoot_bootstrap_documents_missing", missing.map(|progress| progress.total - progress.documents).sum());
    if let Some(ended_ms) = ended_ms {
        let ended = Duration::from_millis(ended_ms).as_secs_f64();
        metrics::gauge!("folkmoot_bootstrap_finished_timestamp_seconds").set(ended);
    }
}

/// Says how far a shard is, for people and programs.
pub(super) fn bootstrap(began_ms: Option<u64>, bulk: BulkStatus) -> Bootstrap {
    let BulkStatus { shard, progress, asked, lately: (documents, time), ops_missing } = bulk;
    let (taken, total) = (to_f64(progress.documents), to_f64(progress.total));
    let (stage, percent) = match progress.stage {
        BulkStage::Documents if total > 0.0 => (BootstrapStage::Documents, 100.0 * taken / total),
        BulkStage::Documents => (BootstrapStage::Documents, 0.0),
        BulkStage::Ops => (BootstrapStage::Ops, 100.0),
    };
    Bootstrap {
        collection: shard.collection,
        shard: shard.index,
        of: shard.of,
        stage,
        givers: progress.givers,
        asked,
        documents: progress.documents,
        documents_total: progress.total,
        bytes: progress.bytes,
        documents_per_second: if time.is_zero() { 0.0 } else { to_f64(documents) / time.as_secs_f64() },
        percent,
        ops_missing,
        started: began_ms.map_or_else(Timestamp::now, Timestamp::from_millis),
    }
}

/// Says what was taken in bulk last.
pub(super) fn last_bootstrap(last: LastBulk) -> LastBootstrap {
    LastBootstrap {
        collection: last.shard.collection,
        shard: last.shard.index,
        of: last.shard.of,
        givers: last.givers,
        documents: last.documents,
        bytes: last.bytes,
        started: Timestamp::from_millis(last.began_ms),
        finished: Timestamp::from_millis(last.ended_ms),
        documents_false: last.refuted,
    }
}
