//! Measures group commit on this disk: closed-loop clients, small batches, each acknowledged after its sync.
//!
//! `cargo run --release -p folkmoot-core --example commit_rate [DIRECTORY] [SECONDS]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use folkmoot_core::id::{OpId, StoreEpoch, StreamId};
use folkmoot_core::store::watermark::{Mark, WatermarkFile};
use folkmoot_core::store::{
    Batch, BatchId, Committer, Durability, FjallOptions, FjallStore, Keyspace, Outcome, Submission,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from).join("folkmoot-commit-rate");
    let seconds = args.next().map_or(Ok(2), |text| text.parse())?;
    println!("clients  batches/s  batches/commit  µs/commit");
    for clients in [1, 8, 64, 256] {
        measure(&dir, clients, Duration::from_secs(seconds))?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

fn measure(dir: &Path, clients: u64, duration: Duration) -> Result<(), Failure> {
    let store = Arc::new(FjallStore::open(&dir.join("store"), FjallOptions::default())?);
    let watermark = WatermarkFile::open(&dir.join("watermark"), StoreEpoch::ZERO, Durability::Buffered)?.0;
    let (sender, done) = channel();
    let on_done = move |completion| {
        // Nobody listens any more once the time is up.
        let _ = sender.send(completion);
    };
    let start = now();
    let committer = Committer::spawn(store, Some(watermark), move || now() - start, on_done)?;
    let mut seq = 0;
    let mut submit = || {
        seq += 1;
        committer.try_submit(submission(seq))
    };
    (0..clients).try_for_each(|_| submit())?;
    let mut acknowledged = 0u64;
    while start.elapsed() < duration {
        match done.recv()?.outcome {
            Outcome::Durable => acknowledged += 1,
            Outcome::Unknown(error) => return Err(error.into()),
        }
        submit()?;
    }
    let rate = acknowledged as f64 / start.elapsed().as_secs_f64();
    let figures = committer.figures();
    committer.finish();
    let commits = figures.group_batches.count().max(1);
    let (group, micros) = (figures.group_batches.sum / commits, figures.commit_micros.sum / commits);
    println!("{clients:>7}  {rate:>9.0}  {group:>14}  {micros:>9}");
    Ok(())
}

/// A key of 16 bytes in no order and a value of 200.
fn submission(seq: u64) -> Submission {
    let spread = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut batch = Batch::new();
    let key = [spread.to_be_bytes(), seq.to_be_bytes()].concat();
    batch.put(Keyspace::Ops, key, vec![seq as u8; 200]);
    Submission { id: BatchId(seq), batch, marks: vec![(StreamId::ZERO, Mark { seq, op: OpId::ZERO })] }
}
