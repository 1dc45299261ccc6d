//! Offers very many hostile changes to the admission gate, and tells the first that it does not stand.
//!
//! A program of its own, since its allocator counts.

use std::process::ExitCode;

use folkmoot_tests::gate::{Meter, Options, run};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const USAGE: &str = "usage: folkmoot-gate [--inputs N] [--seed N] [--round N]

  --inputs N  how many changes to offer (10000000)
  --seed N    decides everything (1)
  --round N   the first round (0)";

fn main() -> ExitCode {
    let mut options = Options { seed: 1, round: 0, inputs: 10_000_000, progress: true };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (name.as_str(), value) {
            ("--inputs", Some(value)) => options.inputs = value,
            ("--seed", Some(value)) => options.seed = value,
            ("--round", Some(value)) => options.round = value,
            _ => {
                eprintln!("{name} is not known here, or has no number\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let meter = Meter {
        reset: || {
            ALLOCATOR.reset_peak_usage();
            ALLOCATOR.current_usage()
        },
        peak: || ALLOCATOR.peak_usage(),
    };
    match run(options, meter) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
