//! What durable commits cost: `cargo bench -p folkmoot-core --bench commit`. Batches of one record, each acknowledged after
//! its sync, from so many writers at once. `TMPDIR` says on which file system.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use folkmoot_core::id::{OpId, StoreEpoch, StreamId};
use folkmoot_core::store::watermark::{Mark, WatermarkFile};
use folkmoot_core::store::{
    Batch, BatchId, Committer, Durability, FjallOptions, FjallStore, Keyspace, Outcome, Submission,
};

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).throughput(Throughput::Elements(1));
    for writers in [1, 64] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(FjallStore::open(&folder.path().join("store"), FjallOptions::default()).expect("a store"));
        let watermark = WatermarkFile::open(&folder.path().join("watermark"), StoreEpoch::ZERO, Durability::Buffered);
        let (sender, done) = channel();
        let start = now();
        let committer = Committer::spawn(
            store,
            Some(watermark.expect("a watermark").0),
            move || now() - start,
            move |completion| {
                // Nobody listens any more once it is measured.
                let _ = sender.send(completion);
            },
        )
        .expect("a committer");
        let mut seq = 0;
        let mut submit = || {
            seq += 1;
            committer.try_submit(submission(seq)).expect("room in the queue");
        };
        group.bench_function(BenchmarkId::from_parameter(writers), |b| {
            b.iter_custom(|count| {
                let begun = now();
                let first = writers.min(count);
                (0..first).for_each(|_| submit());
                for answered in 0..count {
                    let completion = done.recv().expect("a completion");
                    assert!(matches!(completion.outcome, Outcome::Durable));
                    if answered + first < count {
                        submit();
                    }
                }
                begun.elapsed()
            });
        });
        committer.finish();
    }
    group.finish();
}

/// A key of 16 bytes in no order and a value of 200.
fn submission(seq: u64) -> Submission {
    let spread = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut batch = Batch::new();
    batch.put(Keyspace::Ops, [spread.to_be_bytes(), seq.to_be_bytes()].concat(), vec![seq as u8; 200]);
    Submission { id: BatchId(seq), batch, marks: vec![(StreamId::ZERO, Mark { seq, op: OpId::ZERO })] }
}

criterion_group!(benches, commits);
criterion_main!(benches);
