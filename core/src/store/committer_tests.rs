use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::{Entries, Health, Keyspace, MemoryStore, Order, Read, Span, Survivors, Usage};
use super::*;
use crate::id::{OpId, StoreEpoch};
use crate::store::Durability;
use crate::store::watermark::Recorded;

/// A memory store whose commits wait for a permit each, so that a test decides what queues up meanwhile.
struct Gated {
    inner: MemoryStore,
    entered: Sender<usize>,
    permits: std::sync::Mutex<Receiver<Permit>>,
}

enum Permit {
    Commit,
    Panic,
}

impl Read for Gated {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<bytes::Bytes>, StoreError> {
        self.inner.get(keyspace, key)
    }
    fn scan(&self, keyspace: Keyspace, span: &Span, order: Order) -> Entries {
        self.inner.scan(keyspace, span, order)
    }
}

impl Store for Gated {
    fn snapshot(&self) -> Box<dyn Read> {
        self.inner.snapshot()
    }
    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.entered.send(batch.len()).unwrap();
        match self.permits.lock().unwrap().recv().unwrap() {
            Permit::Commit => self.inner.commit(batch, durability),
            Permit::Panic => panic!("as the test asked"),
        }
    }
    fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage()
    }
    fn scrub(&self, stop: &AtomicBool) -> Result<bool, StoreError> {
        self.inner.scrub(stop)
    }
    fn health(&self) -> Health {
        self.inner.health()
    }
}

struct Bench {
    store: MemoryStore,
    committer: Committer,
    /// Sizes of batches as their commits begin.
    entered: Receiver<usize>,
    permits: Sender<Permit>,
    done: Receiver<Completion>,
}

fn bench(watermark: Option<WatermarkFile>) -> Bench {
    let ticks = AtomicU64::new(0);
    bench_with(watermark, move || Duration::from_millis(ticks.fetch_add(1, Ordering::Relaxed)))
}

fn bench_with(watermark: Option<WatermarkFile>, clock: impl Fn() -> Duration + Send + 'static) -> Bench {
    let store = MemoryStore::new();
    let (entering, entered) = channel();
    let (permits, permitted) = channel();
    let (completing, done) = channel();
    let gated = Gated { inner: store.clone(), entered: entering, permits: std::sync::Mutex::new(permitted) };
    let on_done = move |completion| completing.send(completion).unwrap();
    let committer = Committer::spawn(Arc::new(gated), watermark, clock, on_done).unwrap();
    Bench { store, committer, entered, permits, done }
}

fn submission(id: u64, value_bytes: usize) -> Submission {
    let mut batch = Batch::new();
    batch.put(Keyspace::Ops, id.to_be_bytes().to_vec(), vec![0; value_bytes]);
    batch.put(Keyspace::Heads, "head", id.to_be_bytes().to_vec());
    Submission { id: BatchId(id), batch, marks: vec![(StreamId::ZERO, mark(id))] }
}

fn mark(seq: u64) -> Mark {
    Mark { seq, op: OpId::ZERO }
}

impl Bench {
    fn submit(&self, ids: std::ops::RangeInclusive<u64>) {
        ids.for_each(|id| self.committer.try_submit(submission(id, 8)).unwrap());
    }

    /// Returns the ids of the next completions and whether all of them are durable.
    fn completions(&self, count: usize) -> (Vec<u64>, bool) {
        let done: Vec<_> = (0..count).map(|_| self.done.recv().unwrap()).collect();
        let durable = done.iter().all(|completion| matches!(completion.outcome, Outcome::Durable));
        (done.iter().map(|completion| completion.id.0).collect(), durable)
    }

    fn head(&self) -> Option<u64> {
        let head = self.store.get(Keyspace::Heads, b"head").unwrap()?;
        Some(u64::from_be_bytes((*head).try_into().unwrap()))
    }
}

#[test]
fn what_queues_up_is_one_commit_and_reported_in_order() {
    let bench = bench(None);
    bench.submit(1..=1);
    assert_eq!(bench.entered.recv(), Ok(2));
    bench.submit(2..=6);
    let figures = bench.committer.figures();
    assert_eq!((figures.queued, figures.busy_since), (6, Some(Duration::ZERO)));
    bench.permits.send(Permit::Commit).unwrap();
    assert_eq!(bench.completions(1), (vec![1], true));
    assert_eq!(bench.entered.recv(), Ok(6), "five ops and the one head they share");
    assert_eq!(bench.store.unsynced(), 0);
    assert_eq!(bench.head(), Some(1));
    bench.permits.send(Permit::Commit).unwrap();
    assert_eq!(bench.completions(5), (vec![2, 3, 4, 5, 6], true));
    assert_eq!(bench.head(), Some(6), "the last in order wins");
    // Completions come after the figures.
    let figures = bench.committer.figures();
    assert_eq!((figures.queued, figures.queued_bytes, figures.busy_since), (0, 0, None));
    assert_eq!((figures.group_batches.count(), figures.group_batches.sum), (2, 6));
    assert_eq!((figures.commit_micros.count(), figures.commit_micros.sum), (2, 2_000));
}

#[test]
fn marks_are_synced_a_tenth_of_a_second_after_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("watermark");
    let (file, _) = WatermarkFile::open(&path, StoreEpoch::new([1; 8]), Durability::Buffered).unwrap();
    let now = Arc::new(AtomicU64::new(0));
    let clock = now.clone();
    let bench = bench_with(Some(file), move || Duration::from_millis(clock.load(Ordering::Relaxed)));
    let mut id = 0;
    // One slot is written until it is synced, and then the other.
    let mut slots_used_after_a_commit_at = |millis: u64| {
        now.store(millis, Ordering::Relaxed);
        id += 1;
        bench.submit(id..=id);
        bench.permits.send(Permit::Commit).unwrap();
        assert_eq!(bench.completions(1), (vec![id], true));
        let bytes = std::fs::read(&path).unwrap();
        bytes.chunks(bytes.len() / 2).filter(|slot| slot.iter().any(|byte| *byte != 0)).count()
    };
    assert_eq!(slots_used_after_a_commit_at(1), 1);
    assert_eq!(slots_used_after_a_commit_at(60), 1);
    // Synced before this one or behind it.
    slots_used_after_a_commit_at(101);
    assert_eq!(slots_used_after_a_commit_at(102), 2);
}

#[test]
fn a_group_is_bounded() {
    let bench = bench(None);
    bench.submit(1..=1);
    bench.entered.recv().unwrap();
    bench.submit(2..=GROUP_BATCHES_MAX as u64 + 2);
    (0..3).for_each(|_| bench.permits.send(Permit::Commit).unwrap());
    assert_eq!(bench.entered.recv(), Ok(GROUP_BATCHES_MAX + 1));
    assert_eq!(bench.entered.recv(), Ok(2), "the one that was too many");
    bench.completions(GROUP_BATCHES_MAX + 2);

    bench.committer.try_submit(submission(0, 1)).unwrap();
    bench.entered.recv().unwrap();
    (1..=3).for_each(|id| bench.committer.try_submit(submission(id, GROUP_BYTES_MAX / 2)).unwrap());
    (0..3).for_each(|_| bench.permits.send(Permit::Commit).unwrap());
    assert_eq!((bench.entered.recv(), bench.entered.recv()), (Ok(3), Ok(2)));
}

#[test]
fn a_full_queue_refuses_and_never_blocks() {
    let bench = bench(None);
    bench.submit(0..=0);
    bench.entered.recv().unwrap();
    bench.submit(1..=QUEUE_BATCHES_MAX as u64);
    let refused = bench.committer.try_submit(submission(u64::MAX, 1));
    assert!(matches!(refused, Err(SubmitError::Full(back)) if back.id == BatchId(u64::MAX)));
    (0..9).for_each(|_| bench.permits.send(Permit::Commit).unwrap());
    assert!(bench.completions(QUEUE_BATCHES_MAX + 1).1);
    assert_eq!(bench.committer.figures().queued_bytes, 0);
    bench.submit(1..=1);
    assert!(bench.completions(1).1, "room again");
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let bench = bench(None);
    // Alone, a batch may be larger than the bound: otherwise it could never be written.
    bench.committer.try_submit(submission(1, QUEUE_BYTES_MAX + 1)).unwrap();
    assert!(matches!(bench.committer.try_submit(submission(2, 1)), Err(SubmitError::Full(_))));
    bench.permits.send(Permit::Commit).unwrap();
    assert!(bench.completions(1).1);
    bench.submit(3..=3);
    bench.permits.send(Permit::Commit).unwrap();
    assert!(bench.completions(1).1);
}

#[test]
fn a_failed_sync_fails_all_and_everything_later() {
    for (survivors, head) in [(Survivors::None, 1), (Survivors::Oldest(1), 2)] {
        let bench = bench(None);
        bench.submit(1..=1);
        bench.permits.send(Permit::Commit).unwrap();
        assert!(bench.completions(1).1);
        bench.store.fail_next_sync();
        bench.submit(2..=2);
        bench.entered.recv().unwrap();
        bench.entered.recv().unwrap();
        // Queued behind the commit that fails: never tried.
        bench.submit(5..=6);
        bench.permits.send(Permit::Commit).unwrap();
        assert_eq!(bench.completions(3), (vec![2, 5, 6], false));
        assert!(matches!(bench.committer.try_submit(submission(7, 1)), Err(SubmitError::Poisoned(_))));
        assert_eq!(bench.committer.figures().failures, 1);
        assert_eq!(bench.head(), Some(1), "reads go on");
        assert!(bench.entered.try_recv().is_err(), "no second try");
        bench.store.crash(survivors);
        assert_eq!(bench.head(), Some(head), "{survivors:?}");
    }
}

#[test]
fn a_panic_of_the_engine_is_a_failed_commit() {
    let bench = bench(None);
    bench.submit(1..=1);
    bench.permits.send(Permit::Panic).unwrap();
    let done = bench.done.recv().unwrap();
    let Outcome::Unknown(error) = done.outcome else { panic!("reported as durable") };
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("as the test asked"));
    assert!(matches!(bench.committer.try_submit(submission(2, 1)), Err(SubmitError::Poisoned(_))));
}

#[test]
fn an_entry_out_of_bounds_harms_nobody_else() {
    let bench = bench(None);
    let mut bad = submission(1, 1);
    bad.batch.put(Keyspace::Ops, "", "");
    assert!(matches!(bench.committer.try_submit(bad), Err(SubmitError::Invalid(_))));
    bench.submit(2..=2);
    bench.permits.send(Permit::Commit).unwrap();
    assert_eq!(bench.completions(1), (vec![2], true));
}

#[test]
fn finishing_commits_what_is_queued() {
    let bench = bench(None);
    bench.submit(1..=9);
    (0..9).for_each(|_| bench.permits.send(Permit::Commit).unwrap());
    bench.committer.finish();
    assert_eq!(bench.done.try_iter().count(), 9);
    let head = bench.store.get(Keyspace::Heads, b"head").unwrap().unwrap();
    assert_eq!(*head, 9u64.to_be_bytes());
}

#[test]
fn the_watermark_follows_commits_and_only_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("watermark");
    let open = || WatermarkFile::open(&path, StoreEpoch::ZERO, Durability::Buffered).unwrap();
    let bench = bench(Some(open().0));
    let recorded = || match open().1 {
        Recorded::Marks { watermark, .. } => watermark.marks().next(),
        Recorded::Nothing | Recorded::Damaged => None,
    };
    bench.submit(1..=1);
    bench.entered.recv().unwrap();
    bench.submit(2..=3);
    assert_eq!(recorded(), None, "not before the commit");
    (0..2).for_each(|_| bench.permits.send(Permit::Commit).unwrap());
    bench.completions(3);
    assert_eq!(recorded(), Some((StreamId::ZERO, mark(3))));
    bench.store.fail_next_sync();
    bench.submit(4..=4);
    bench.permits.send(Permit::Commit).unwrap();
    assert!(!bench.completions(1).1);
    assert_eq!(recorded(), Some((StreamId::ZERO, mark(3))), "never more than the store has");
}

#[test]
#[cfg(target_os = "linux")]
fn a_watermark_that_cannot_be_written_is_counted_and_commits_go_on() {
    // Reads as a file never written; refuses every write.
    let file = WatermarkFile::open("/dev/full".as_ref(), StoreEpoch::ZERO, Durability::Buffered).unwrap().0;
    let bench = bench(Some(file));
    for id in 1..=2 {
        bench.submit(id..=id);
        bench.permits.send(Permit::Commit).unwrap();
        assert_eq!(bench.completions(1), (vec![id], true));
    }
    assert_eq!(bench.committer.figures().watermark_failures, 2);
}
