//! Runs the simulator: one seed with a readable trace, or fresh seeds until one fails.

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use folkmoot_tests::simulator::{Options, Trace, run, with_stack};

const USAGE: &str = "usage: folkmoot-sim [--seed N] [--count N] [--minutes N] [--trace]

  --seed N     the first seed; from the clock if it is not given
  --count N    how many seeds in a row (1)
  --minutes N  simulated minutes with faults (5)
  --trace      print what happens";

fn main() -> ExitCode {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (mut seed, mut count, mut minutes, mut trace) = (clock << 16, 1, 5, Trace::Silent);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let target = match arg.as_str() {
            "--trace" => {
                trace = Trace::Printed;
                continue;
            }
            "--seed" => &mut seed,
            "--count" => &mut count,
            "--minutes" => &mut minutes,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        };
        let Some(number) = args.next().and_then(|text| text.parse().ok()) else {
            eprintln!("{arg} needs a number\n{USAGE}");
            return ExitCode::from(2);
        };
        *target = number;
    }
    let mut failed = 0;
    for seed in (seed..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        let begun = Instant::now();
        match with_stack(|| run(Options { seed, minutes, trace })) {
            Ok(report) => println!("seed {seed}: {:.2} s, {report:?}", begun.elapsed().as_secs_f64()),
            Err(failure) => {
                failed += 1;
                println!("{failure}");
            }
        }
    }
    if failed > 0 {
        println!("{failed} of {count} seeds failed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
