//! Many hostile changes for the admission gate, and what each of them costs.
//!
//! The caller counts memory, since only a program has a say in its allocator. One thread offers; another one sees to it that
//! no input hangs.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use folkmoot_core::document::fuzzing::{Answer, Campaign, INPUTS_PER_ROUND};

use crate::simulator::with_stack;

/// Memory that one input may take at its peak, the checks of the document included: a change of the most operations that are
/// allowed, decoded, applied to a copy, saved and loaded. Most take less than a hundredth of it.
pub const PEAK_BYTES_MAX: usize = 192 << 20;
/// Processor time that one input may take, the checks of the document included.
pub const CPU_MAX: Duration = Duration::from_secs(5);
/// An input that takes longer than this by the clock on the wall is called hanging, and the program ends.
const HANG: Duration = Duration::from_secs(120);

/// What to offer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// The first round.
    pub round: u64,
    /// How many inputs.
    pub inputs: u64,
    /// Whether to tell how far it is, now and then.
    pub progress: bool,
}

/// How memory is counted.
#[derive(Clone, Copy)]
pub struct Meter {
    /// Makes the peak what is in use now, and returns that.
    pub reset: fn() -> usize,
    /// Returns the peak since.
    pub peak: fn() -> usize,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Inputs offered.
    pub inputs: u64,
    /// How often the gate said what.
    pub answers: BTreeMap<Answer, u64>,
    /// The most memory that one input took.
    pub peak_bytes: usize,
    /// The longest that one input took, by the clock on the wall.
    pub longest: Duration,
    /// How long it took in all.
    pub elapsed: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.inputs as f64 / self.elapsed.as_secs_f64().max(0.001);
        write!(
            f,
            "{} inputs in {:.0} s ({rate:.0}/s): {:?}; at most {} KiB and {:.3} s each",
            self.inputs,
            self.elapsed.as_secs_f64(),
            self.answers,
            self.peak_bytes >> 10,
            self.longest.as_secs_f64()
        )
    }
}

/// What went wrong, and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    seed: u64,
    round: u64,
    index: u64,
    input: Vec<u8>,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, round, index, input, what } = self;
        let hex: String = input.iter().take(4_096).map(|byte| format!("{byte:02x}")).collect();
        writeln!(f, "seed {seed}, round {round}, input {index}: {what}\n{hex}")?;
        let one = INPUTS_PER_ROUND;
        write!(
            f,
            "replay: cargo run -p folkmoot-tests --bin folkmoot-gate -- --seed {seed} --round {round} --inputs {one}"
        )
    }
}

/// Offers the inputs.
///
/// # Errors
/// [`Failure`]: the first input that broke a promise of the gate.
pub fn run(options: Options, meter: Meter) -> Result<Report, Failure> {
    // A panic inside the gate is caught there and is no news; one that is not caught is told below.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = AtomicBool::new(false);
    let at = AtomicU64::new(0);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| watch(options, &at, &done));
        let result = with_stack(|| offer_all(options, meter, &at));
        done.store(true, Ordering::SeqCst);
        result
    });
    std::panic::set_hook(hook);
    result
}

/// Ends the program when one round takes much too long, which no other thread could stop.
fn watch(options: Options, at: &AtomicU64, done: &AtomicBool) {
    let (mut seen, mut since) = (0, Instant::now());
    while !done.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
        let now = at.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > HANG {
            let (round, index) = (options.round + now / INPUTS_PER_ROUND, now % INPUTS_PER_ROUND);
            eprintln!("seed {}, round {round}, input {index} hangs", options.seed);
            std::process::abort();
        }
    }
}

fn offer_all(options: Options, meter: Meter, at: &AtomicU64) -> Result<Report, Failure> {
    let campaign = Campaign::new();
    let begun = Instant::now();
    let mut report = Report::default();
    for number in options.round.. {
        let cpu_before = cpu_time();
        let mut round = campaign.round(options.seed, number);
        for index in 0..INPUTS_PER_ROUND.min(options.inputs - report.inputs) {
            at.store(report.inputs, Ordering::Relaxed);
            let input = round.next_input();
            let fail = |what: String| Failure { seed: options.seed, round: number, index, input: input.clone(), what };
            let before = (meter.reset)();
            let clock = Instant::now();
            let answer = std::panic::catch_unwind(AssertUnwindSafe(|| round.offer(&input)))
                .map_err(|panic| fail(format!("a panic: {}", text_of(&*panic))))?;
            let took = clock.elapsed();
            let peak = (meter.peak)().saturating_sub(before);
            if peak > PEAK_BYTES_MAX {
                return Err(fail(format!("{} MiB of memory", peak >> 20)));
            }
            // The processor time of a whole round is no less than that of an input, and seldom has to be asked for.
            let cpu = if took > CPU_MAX { cpu_time().saturating_sub(cpu_before) } else { Duration::ZERO };
            if cpu > CPU_MAX {
                return Err(fail(format!("{:.1} s of processor time", cpu.as_secs_f64())));
            }
            report.peak_bytes = report.peak_bytes.max(peak);
            report.longest = report.longest.max(took);
            report.inputs += 1;
            *report.answers.entry(answer).or_default() += 1;
        }
        let end = std::panic::catch_unwind(AssertUnwindSafe(|| round.end()));
        end.map_err(|panic| Failure {
            seed: options.seed,
            round: number,
            index: INPUTS_PER_ROUND,
            input: Vec::new(),
            what: format!("the document at the end of the round: {}", text_of(&*panic)),
        })?;
        report.elapsed = begun.elapsed();
        if options.progress && (number + 1).is_multiple_of(2_048) {
            println!("{report}");
        }
        if report.inputs >= options.inputs {
            break;
        }
    }
    Ok(report)
}

/// Returns the processor time of this thread, where the system tells it; else nothing, so that no input takes too much.
pub(crate) fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
