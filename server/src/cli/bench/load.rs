//! Loads a node: closed loop, where each connection sends when it has its answer, or open loop, where operations begin at
//! a given rate whatever the answers take.
//!
//! In the open loop the latency of an operation counts from when it should have begun, so a node that stalls is not
//! spared the operations that would have come meanwhile (no coordinated omission).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use folkmoot::{Error, ErrorCode};
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::meter::{Meter, Used};

/// Latencies are counted in microseconds up to this, to three digits.
const LATENCY_MICROS_MAX: u64 = 600_000_000;
/// After a connection was lost: do not spin.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// The start of an answer that is shown when an operation failed.
const SHOWN_BYTES: usize = 300;
/// How often memory is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// What one connection does.
pub(super) trait Work: Send + 'static {
    /// Writes the next request; returns the status that its answer should have.
    fn next(&mut self, request: &mut Vec<u8>) -> u16;

    /// Is told when an operation was answered as it should be.
    fn done(&mut self, _at: Instant) {}
}

/// How operations follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Closed,
    Open { per_second: u32 },
}

/// How to load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) pace: Pace,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// What a load came to.
pub(super) struct Loaded {
    /// Operations that ended well while it was measured.
    pub(super) operations: u64,
    /// Operations that failed, in the warm-up too.
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    /// Operations that should have begun and had not when the time was over: the rate was too high.
    pub(super) late: u64,
    pub(super) seconds: f64,
    pub(super) latency: Histogram<u64>,
    pub(super) used: Used,
}

/// Returns a histogram of microseconds.
pub(super) fn micros() -> Histogram<u64> {
    // The bounds are constants that the histogram takes.
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("bounds of a histogram")
}

/// Adds a time to a histogram.
pub(super) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

/// What all connections see.
struct Shared {
    measuring: AtomicBool,
    over: AtomicBool,
    start: Instant,
    pace: Pace,
    /// Open loop: operations that may begin.
    due: Semaphore,
    begun: AtomicU64,
}

impl Shared {
    /// Waits until the next operation is due; none when the time is over.
    async fn turn(&self) -> Option<Instant> {
        match self.pace {
            Pace::Closed => (!self.over.load(Ordering::Relaxed)).then(Instant::now),
            Pace::Open { per_second } => {
                self.due.acquire().await.ok()?.forget();
                let number = self.begun.fetch_add(1, Ordering::Relaxed);
                Some(self.start + intended(number, per_second))
            }
        }
    }
}

/// When an operation should begin.
fn intended(number: u64, per_second: u32) -> Duration {
    let micros = u128::from(number) * 1_000_000 / u128::from(per_second.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Lets operations begin at their times, on a thread of its own: timers of the runtime are a millisecond coarse. Returns
/// how many were due.
fn keep_pace(shared: &Shared, per_second: u32) -> u64 {
    let mut number = 0;
    while !shared.over.load(Ordering::Relaxed) {
        let due = shared.start + intended(number, per_second);
        let now = Instant::now();
        if due > now {
            std::thread::sleep((due - now).min(SAMPLE_INTERVAL));
        } else {
            shared.due.add_permits(1);
            number += 1;
        }
    }
    // What was due and still waits is late; nobody may begin it any more.
    shared.due.close();
    number
}

#[derive(Default)]
struct Tally {
    operations: u64,
    errors: u64,
    first_error: Option<String>,
    latency: Option<Histogram<u64>>,
}

impl Tally {
    fn failed(&mut self, why: impl FnOnce() -> String) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(why());
        }
    }

    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        match (&mut self.latency, other.latency) {
            (Some(all), Some(more)) => {
                // Both have the same bounds.
                let _ = all.add(more);
            }
            (none @ None, more) => *none = more,
            (Some(_), None) => {}
        }
    }
}

/// Loads the node at `authority` with one connection for each of `works`.
pub(super) async fn run<W: Work>(
    load: Load,
    authority: &str,
    works: Vec<W>,
    meter: &mut Meter,
) -> Result<Loaded, Error> {
    let mut connections = Vec::new();
    for _ in &works {
        connections.push(Connection::open(authority).await.map_err(|error| unreachable(authority, error))?);
    }
    let shared = Arc::new(Shared {
        measuring: AtomicBool::new(false),
        over: AtomicBool::new(false),
        start: Instant::now(),
        pace: load.pace,
        due: Semaphore::new(0),
        begun: AtomicU64::new(0),
    });
    let pacer = match load.pace {
        Pace::Closed => None,
        Pace::Open { per_second } => {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("pace".into());
            let pacer = thread.spawn(move || keep_pace(&shared, per_second));
            Some(pacer.map_err(|source| Error::new(ErrorCode::Internal, "start a thread").with_source(source))?)
        }
    };
    let mut tasks = JoinSet::new();
    for (work, connection) in works.into_iter().zip(connections) {
        tasks.spawn(worker(shared.clone(), authority.to_owned(), connection, work));
    }
    let measured = measure(load, &shared, meter).await;
    shared.over.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(share) => tally.add(share),
            Err(error) => tally.failed(|| error.to_string()),
        }
    }
    // A thread that panicked has nothing to tell.
    let due = pacer.and_then(|pacer| pacer.join().ok()).unwrap_or_default();
    let late = due.saturating_sub(shared.begun.load(Ordering::Relaxed));
    let (seconds, used) = measured?;
    let Tally { operations, errors, first_error, latency } = tally;
    Ok(Loaded { operations, errors, first_error, late, seconds, latency: latency.unwrap_or_else(micros), used })
}

/// Waits while the connections work; returns how long was measured, and what the nodes used meanwhile.
async fn measure(load: Load, shared: &Shared, meter: &mut Meter) -> Result<(f64, Used), Error> {
    tokio::time::sleep(load.warm_up).await;
    let before = meter.read().await?;
    shared.measuring.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let mut resident_max = before.resident_bytes_max();
    while let Some(left) = load.duration.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left.min(SAMPLE_INTERVAL)).await;
        if left > SAMPLE_INTERVAL {
            resident_max = resident_max.max(meter.read().await?.resident_bytes_max());
        }
    }
    shared.measuring.store(false, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let after = meter.read().await?;
    Ok((seconds, after.since(&before, resident_max)))
}

async fn worker<W: Work>(shared: Arc<Shared>, authority: String, connection: Connection, mut work: W) -> Tally {
    let mut tally = Tally { latency: Some(micros()), ..Tally::default() };
    let mut connection = Some(connection);
    let mut request = Vec::with_capacity(1 << 10);
    while let Some(begun) = shared.turn().await {
        let open = match &mut connection {
            Some(open) => open,
            None => match Connection::open(&authority).await {
                Ok(open) => connection.insert(open),
                Err(error) => {
                    tally.failed(|| format!("connect: {error}"));
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    continue;
                }
            },
        };
        let expected = work.next(&mut request);
        match open.exchange(&request).await {
            Ok(answer) if answer.status == expected => {
                let now = Instant::now();
                work.done(now);
                if shared.measuring.load(Ordering::Relaxed) {
                    tally.operations += 1;
                    if let Some(latency) = &mut tally.latency {
                        record(latency, now.saturating_duration_since(begun));
                    }
                }
            }
            Ok(answer) => tally.failed(|| {
                let body = answer.body.get(..SHOWN_BYTES).unwrap_or(answer.body);
                format!("answered {} where {expected} was expected: {}", answer.status, String::from_utf8_lossy(body))
            }),
            Err(error) => {
                tally.failed(|| error.to_string());
                connection = None;
            }
        }
    }
    tally
}

/// Returns the error for a node that cannot be reached.
pub(super) fn unreachable(authority: &str, source: io::Error) -> Error {
    Error::new(ErrorCode::Unreachable, format!("cannot reach {authority}: {source}")).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_spread_evenly_over_time() {
        assert_eq!(intended(0, 1_000), Duration::ZERO);
        assert_eq!(intended(1_500, 1_000), Duration::from_millis(1_500));
        assert_eq!(intended(1, 3), Duration::from_micros(333_333));
        assert_eq!(intended(3, 3), Duration::from_secs(1));
    }

    #[test]
    fn tallies_add_up_and_keep_the_first_error() {
        let mut all = Tally::default();
        for (operations, why) in [(1, None), (2, Some("a")), (3, Some("b"))] {
            let mut one = Tally { operations, latency: Some(micros()), ..Tally::default() };
            if let Some(latency) = &mut one.latency {
                record(latency, Duration::from_millis(operations));
            }
            if let Some(why) = why {
                one.failed(|| why.to_owned());
            }
            all.add(one);
        }
        assert_eq!((all.operations, all.errors, all.first_error.as_deref()), (6, 2, Some("a")));
        assert_eq!(all.latency.unwrap().len(), 3);
    }
}
