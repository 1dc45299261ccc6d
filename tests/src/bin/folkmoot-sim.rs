//! Runs the simulators: whole replicas under faults, one seed with a readable trace or fresh seeds until one fails; and
//! thousands of peers, to see what grows with their number.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use folkmoot_tests::hostility::Outcome;
use folkmoot_tests::scale::{self, Figures};
use folkmoot_tests::simulator::{Options, Trace, Trouble, run, with_stack};
use folkmoot_tests::villain::Attack;

const USAGE: &str = "usage: folkmoot-sim [--seed N] [--count N] [--minutes N] [--trace] [--attack NAME]
       folkmoot-sim hostility [--attack NAME] [--seed N] [--count N] [--minutes N]
       folkmoot-sim scale --peers N[,N…] [--degree N] [--writers N] [--rate N] [--split SECONDS] [--seed N] [--svg FILE]

  --seed N     the first seed; from the clock if it is not given (scale: 1)
  --count N    how many seeds in a row (1)
  --minutes N  simulated minutes with faults (5)
  --trace      print what happens
  --attack A   one more member means harm, such as flood; a wrong name lists all (hostility: every one, each beside a run
               without; 3 seeds, 3 minutes)

  --peers N    how many peers; several numbers give a table
  --degree N   connections of a peer, on average (8)
  --writers N  peers that write (16)
  --rate N     ops that they write in a second, together (5)
  --split N    seconds for which the network is cut in halves (20)
  --svg FILE   draws a plot of the table
  --json FILE  writes the figures of a single size";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let command = args.first().filter(|arg| !arg.starts_with("--")).cloned();
    if command.is_some() {
        args.remove(0);
    }
    let result = match command.as_deref() {
        None => options(args, &["--seed", "--count", "--minutes", "--trace", "--attack"]).and_then(|o| run_seeds(&o)),
        Some("hostility") => {
            options(args, &["--seed", "--count", "--minutes", "--attack"]).and_then(|o| run_hostility(&o))
        }
        Some("scale") => {
            let known = ["--peers", "--degree", "--writers", "--rate", "--split", "--seed", "--svg", "--json"];
            options(args, &known).and_then(|o| run_scale(&o))
        }
        Some(other) => Err(format!("{other} is not known here")),
    };
    match result {
        Ok(code) => code,
        Err(what) => {
            eprintln!("{what}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

type Values = BTreeMap<String, String>;

fn options(args: Vec<String>, known: &[&str]) -> Result<Values, String> {
    let mut values = Values::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if !known.contains(&arg.as_str()) {
            return Err(format!("{arg} is not known here"));
        }
        let value = if arg == "--trace" { String::new() } else { args.next().ok_or(format!("{arg} needs a value"))? };
        values.insert(arg, value);
    }
    Ok(values)
}

fn number(values: &Values, name: &str, otherwise: u64) -> Result<u64, String> {
    values.get(name).map_or(Ok(otherwise), |text| text.parse().map_err(|_| format!("{name} needs a number")))
}

fn run_seeds(values: &Values) -> Result<ExitCode, String> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seed = number(values, "--seed", clock << 16)?;
    let count = number(values, "--count", 1)?;
    let minutes = number(values, "--minutes", 5)?;
    let trace = if values.contains_key("--trace") { Trace::Printed } else { Trace::Silent };
    let trouble = attack(values)?.map_or(Trouble::Faults, Trouble::Attack);
    let mut failed = 0;
    let begun = Instant::now();
    for seed in (seed..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        let begun = Instant::now();
        match with_stack(|| run(Options { seed, minutes, trace, trouble, write_every_ms: None })) {
            Ok(report) => println!("seed {seed}: {:.2} s, {report:?}", begun.elapsed().as_secs_f64()),
            Err(failure) => {
                failed += 1;
                println!("{failure}");
            }
        }
    }
    if count > 1 {
        println!("{failed} of {count} seeds failed; {:.1} s in all", begun.elapsed().as_secs_f64());
    }
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn attack(values: &Values) -> Result<Option<Attack>, String> {
    let attack = values.get("--attack").map(|name| {
        let found = Attack::ALL.into_iter().find(|attack| attack.name() == *name);
        found.ok_or_else(|| format!("no attack {name}; there are {}", Attack::ALL.map(Attack::name).join(", ")))
    });
    attack.transpose()
}

fn run_hostility(values: &Values) -> Result<ExitCode, String> {
    let seed = number(values, "--seed", 1)?;
    let minutes = number(values, "--minutes", 3)?;
    let seeds = seed..seed.saturating_add(number(values, "--count", 3)?);
    let attacks = attack(values)?.map_or_else(|| Attack::ALL.to_vec(), |attack| vec![attack]);
    let run =
        |attack| with_stack(|| Outcome::of(attack, seeds.clone(), minutes)).map_err(|failure| failure.to_string());
    let calm = run(None)?;
    println!("{}\n{calm}", Outcome::HEADING);
    let mut harmed = Vec::new();
    for attack in attacks {
        match run(Some(attack)) {
            Ok(outcome) => {
                println!("{outcome}");
                harmed.extend(outcome.harm(&calm).map(|harm| format!("{}: {harm}", attack.name())));
            }
            Err(failure) => harmed.push(failure),
        }
    }
    harmed.iter().for_each(|harm| println!("{harm}"));
    Ok(if harmed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_scale(values: &Values) -> Result<ExitCode, String> {
    let peers = values.get("--peers").ok_or("--peers is missing")?;
    let peers: Result<Vec<usize>, _> = peers.split(',').map(str::parse).collect();
    let peers = peers.map_err(|_| "--peers needs numbers")?;
    println!(
        "| peers | everywhere p50 | worst | after the split | frames/op | bytes/op | idle bytes/s | memory | took |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let alone = peers.len() == 1;
    let mut all = Vec::new();
    for peers in peers {
        let begun = Instant::now();
        let figures = if alone { measure(peers, values)? } else { measure_apart(peers, values)? };
        println!("{} {:.1} s |", figures.row(), begun.elapsed().as_secs_f64());
        all.push(figures);
    }
    if let Some(file) = values.get("--svg") {
        std::fs::write(file, scale::svg(&all)).map_err(|error| format!("write {file}: {error}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(peers: usize, values: &Values) -> Result<Figures, String> {
    let usual = scale::Options::default();
    let small = |name: &str, otherwise: usize| -> Result<usize, String> {
        usize::try_from(number(values, name, otherwise as u64)?).map_err(|_| format!("{name} is too large"))
    };
    let options = scale::Options {
        peers,
        degree: small("--degree", usual.degree)?,
        writers: small("--writers", usual.writers)?,
        rate: number(values, "--rate", usual.rate)?,
        split: Duration::from_secs(number(values, "--split", usual.split.as_secs())?),
        seed: number(values, "--seed", usual.seed)?,
        ..usual
    };
    let figures = with_stack(|| scale::run(options))?;
    if let Some(file) = values.get("--json") {
        let text = serde_json::to_vec(&figures.to_array()).map_err(|error| error.to_string())?;
        std::fs::write(file, text).map_err(|error| format!("write {file}: {error}"))?;
    }
    Ok(figures)
}

/// Measures in a process of its own, so that the memory of one network is not that of the one before.
fn measure_apart(peers: usize, values: &Values) -> Result<Figures, String> {
    let failed = |error: std::io::Error| format!("measure {peers} peers apart: {error}");
    let file = tempfile::NamedTempFile::new().map_err(failed)?;
    let mut command = std::process::Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("scale").stdout(std::process::Stdio::null());
    for (name, value) in values.iter().filter(|(name, _)| !["--peers", "--svg", "--json"].contains(&name.as_str())) {
        command.args([name, value]);
    }
    command.args(["--peers", &peers.to_string(), "--json"]).arg(file.path());
    if !command.status().map_err(failed)?.success() {
        return Err(format!("{peers} peers: see above"));
    }
    let text = std::fs::read(file.path()).map_err(failed)?;
    serde_json::from_slice(&text).map(Figures::from_array).map_err(|error| format!("{peers} peers: {error}"))
}
