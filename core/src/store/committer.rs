//! The one thread that writes.
//!
//! Batches queue up while a commit is in flight; the next commit takes all that wait, as one atomic batch with one
//! sync. Then the watermark is written, then every batch is reported, in the order of submission. The watermark is synced
//! a moment later, for all commits of that moment: it is what tells that a disk lost what it had confirmed, and a second
//! sync would double the price of every write.
//!
//! Invariant: the engine below can block for ever in a failing write. So submitting never blocks: a full queue refuses,
//! and [`CommitterFigures::busy_since`] lets a watchdog see a commit that does not return.
//!
//! Invariant: after a failed commit nothing is tried again. Whether the batches are on disk is unknown until the store
//! is opened again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::figures::{Histogram, HistogramFigures};
use super::watermark::{Mark, WatermarkFile};
use super::{Batch, Durability, Store, StoreError, panic_text};
use crate::id::StreamId;

/// For so long after a commit its marks may be in memory only: a power cut within it, upon a disk that also lost or damaged
/// the commit itself, goes unnoticed.
const MARKS_SYNCED_AFTER: Duration = Duration::from_millis(100);
/// Batches in one commit. More would only lengthen the wait of the first: at 256 items a sync is a tenth of the cost.
const GROUP_BATCHES_MAX: usize = 1_024;
/// A commit closes when it has this many bytes: some milliseconds of disk.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Batches that may wait: four commits' worth.
pub const QUEUE_BATCHES_MAX: usize = 4 * GROUP_BATCHES_MAX;
/// Bytes that may wait, so that a queue of large batches stays within memory. A single batch may be larger.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Names a batch between its submission and its completion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(pub u64);

/// A batch to be committed.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Comes back in the [`Completion`].
    pub id: BatchId,
    /// What to write.
    pub batch: Batch,
    /// Own streams that the batch extends, with their new ends, for the watermark.
    pub marks: Vec<(StreamId, Mark)>,
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Which.
    pub id: BatchId,
    /// What became of it.
    pub outcome: Outcome,
}

/// See [`Completion`].
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is on the disk.
    Durable,
    /// The commit failed, or an earlier one had. The batch may be on the disk nevertheless: after opening the store
    /// again it is there in full or not at all. No batch will be committed any more.
    Unknown(Arc<StoreError>),
}

/// Why a batch was not taken into the queue. It will not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The queue is full: try again after completions.
    #[error("the commit queue is full")]
    Full(Box<Submission>),
    /// An earlier commit failed.
    #[error("the store takes no more writes, since an earlier one failed")]
    Poisoned(Box<Submission>),
    /// The committer's thread has ended.
    #[error("the committer has stopped")]
    Stopped(Box<Submission>),
    /// The batch holds an entry that no store takes.
    #[error("the batch cannot be written")]
    Invalid(#[source] StoreError),
}

#[derive(Default)]
struct Shared {
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    poisoned: AtomicBool,
    /// In microseconds of the caller's clock, plus one; 0 when idle.
    busy_since: AtomicU64,
    failures: AtomicU64,
    watermark_failures: AtomicU64,
    bytes: AtomicU64,
    group_batches: Histogram,
    commit_micros: Histogram,
}

/// What a committer has done and is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitterFigures {
    /// Batches that wait or are being committed.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// When the commit in flight began, by the caller's clock.
    pub busy_since: Option<Duration>,
    /// Commits that failed, 0 or 1.
    pub failures: u64,
    /// Writes of the watermark that failed. Commits stand all the same; only losing them might go unseen.
    pub watermark_failures: u64,
    /// Bytes committed.
    pub bytes: u64,
    /// Batches in each commit.
    pub group_batches: HistogramFigures,
    /// Duration of each commit, watermark included, in microseconds.
    pub commit_micros: HistogramFigures,
}

/// A handle to the committer's thread. Dropping it lets the thread finish what is queued, without waiting for it.
pub struct Committer {
    queue: SyncSender<Submission>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Committer {
    /// Starts the thread.
    ///
    /// `clock` is monotonic; it measures, and says when marks are to be synced. `on_done` is called on the committer's
    /// thread, once for each submission, in their order; while it runs, no commit does.
    ///
    /// # Errors
    /// That of the operating system if it grants no thread.
    pub fn spawn(
        store: Arc<dyn Store>,
        watermark: Option<WatermarkFile>,
        clock: impl Fn() -> Duration + Send + 'static,
        on_done: impl FnMut(Completion) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE_BATCHES_MAX);
        let shared = Arc::<Shared>::default();
        let worker = Worker { store, watermark, marks_due: None, waiting, shared: shared.clone(), clock, on_done };
        let thread = std::thread::Builder::new().name("committer".into()).spawn(move || worker.run())?;
        Ok(Self { queue, shared, thread })
    }

    /// Queues a batch. Never blocks.
    ///
    /// # Errors
    /// [`SubmitError`]: the batch is not queued, will not be written, and has no completion.
    pub fn try_submit(&self, submission: Submission) -> Result<(), SubmitError> {
        submission.batch.check().map_err(SubmitError::Invalid)?;
        if self.shared.poisoned.load(Ordering::Acquire) {
            return Err(SubmitError::Poisoned(Box::new(submission)));
        }
        // Counted before it is queued, since the thread may be done with it before this returns.
        let bytes = submission.batch.bytes();
        let before = self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        let refused = if before > 0 && before.saturating_add(bytes) > QUEUE_BYTES_MAX {
            SubmitError::Full(Box::new(submission))
        } else {
            self.shared.queued.fetch_add(1, Ordering::AcqRel);
            match self.queue.try_send(submission) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.shared.queued.fetch_sub(1, Ordering::AcqRel);
                    match error {
                        TrySendError::Full(submission) => SubmitError::Full(Box::new(submission)),
                        TrySendError::Disconnected(submission) => SubmitError::Stopped(Box::new(submission)),
                    }
                }
            }
        };
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        Err(refused)
    }

    /// Returns the figures as of now.
    #[must_use]
    pub fn figures(&self) -> CommitterFigures {
        let shared = &self.shared;
        CommitterFigures {
            queued: shared.queued.load(Ordering::Acquire),
            queued_bytes: shared.queued_bytes.load(Ordering::Acquire),
            busy_since: shared.busy_since.load(Ordering::Acquire).checked_sub(1).map(Duration::from_micros),
            failures: shared.failures.load(Ordering::Relaxed),
            watermark_failures: shared.watermark_failures.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
            group_batches: shared.group_batches.read(),
            commit_micros: shared.commit_micros.read(),
        }
    }

    /// Commits what is queued, reports it, and ends the thread; with it goes its handle to the store. Waits for ever if
    /// the engine does.
    pub fn finish(self) {
        drop(self.queue);
        // An error would mean that `on_done` panicked; the panic was reported on its thread.
        let _ = self.thread.join();
    }
}

struct Worker<Clock, OnDone> {
    store: Arc<dyn Store>,
    watermark: Option<WatermarkFile>,
    /// When the marks are to be synced, by the clock, if there are any that are not.
    marks_due: Option<Duration>,
    waiting: Receiver<Submission>,
    shared: Arc<Shared>,
    clock: Clock,
    on_done: OnDone,
}

/// Submissions merged for one commit.
struct Group {
    ids: Vec<BatchId>,
    batch: Batch,
    marks: Vec<(StreamId, Mark)>,
    /// Sum over the submissions; the merged batch may have less.
    submitted_bytes: usize,
}

impl<Clock: Fn() -> Duration, OnDone: FnMut(Completion)> Worker<Clock, OnDone> {
    fn run(mut self) {
        while let Some(first) = self.next() {
            let group = self.gather(first);
            let outcome = self.commit(&group);
            self.shared.queued.fetch_sub(group.ids.len(), Ordering::AcqRel);
            self.shared.queued_bytes.fetch_sub(group.submitted_bytes, Ordering::AcqRel);
            for id in group.ids {
                (self.on_done)(Completion { id, outcome: outcome.clone() });
            }
            if self.marks_due.is_some_and(|due| due <= (self.clock)()) {
                self.sync_marks();
            }
        }
        self.sync_marks();
    }

    /// Waits for a submission; none when there will be no more.
    fn next(&mut self) -> Option<Submission> {
        while let Some(due) = self.marks_due {
            let now = (self.clock)();
            if due <= now {
                self.sync_marks();
                break;
            }
            match self.waiting.recv_timeout(due - now) {
                Ok(first) => return Some(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        self.waiting.recv().ok()
    }

    /// Takes all that wait, up to the bounds.
    fn gather(&self, first: Submission) -> Group {
        let submitted_bytes = first.batch.bytes();
        let mut group = Group { ids: vec![first.id], batch: first.batch, marks: first.marks, submitted_bytes };
        while group.ids.len() < GROUP_BATCHES_MAX && group.submitted_bytes < GROUP_BYTES_MAX {
            let Ok(next) = self.waiting.try_recv() else { break };
            group.submitted_bytes += next.batch.bytes();
            group.ids.push(next.id);
            group.batch.append(next.batch);
            group.marks.extend(next.marks);
        }
        group
    }

    fn commit(&mut self, group: &Group) -> Outcome {
        if self.shared.poisoned.load(Ordering::Acquire) {
            return Outcome::Unknown(Arc::new(StoreError::Poisoned));
        }
        let began = (self.clock)();
        self.shared.busy_since.store((began.as_micros() as u64).saturating_add(1), Ordering::Release);
        // A panic in the engine must not leave everybody waiting for an answer.
        let committed = catch_unwind(AssertUnwindSafe(|| self.store.commit(&group.batch, Durability::Synced)))
            .unwrap_or_else(|panic| Err(StoreError::Commit(panic_text(&*panic).into())));
        let outcome = match committed {
            Ok(()) => {
                self.record(&group.marks);
                self.shared.bytes.fetch_add(group.batch.bytes() as u64, Ordering::Relaxed);
                self.shared.group_batches.observe(group.ids.len() as u64);
                let took = (self.clock)().saturating_sub(began);
                self.shared.commit_micros.observe(took.as_micros() as u64);
                Outcome::Durable
            }
            Err(error) => {
                self.shared.poisoned.store(true, Ordering::Release);
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                Outcome::Unknown(Arc::new(error))
            }
        };
        self.shared.busy_since.store(0, Ordering::Release);
        outcome
    }

    fn record(&mut self, marks: &[(StreamId, Mark)]) {
        let Some(watermark) = self.watermark.as_mut().filter(|_| !marks.is_empty()) else { return };
        match watermark.record(marks) {
            Ok(()) => drop(self.marks_due.get_or_insert_with(|| (self.clock)() + MARKS_SYNCED_AFTER)),
            Err(_) => drop(self.shared.watermark_failures.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn sync_marks(&mut self) {
        if self.marks_due.take().is_some()
            && let Some(watermark) = &mut self.watermark
            && watermark.sync().is_err()
        {
            self.shared.watermark_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[path = "committer_tests.rs"]
mod tests;
