//! `folkmoot bench`: loads nodes and tells how fast they are, what that costs them, and what the machine can do.
//!
//! Every workload gets new nodes, processes of their own, so that memory and disk are those of the workload; or it runs
//! against a cluster that is there already.

mod args;
mod bare;
mod between;
mod calibrate;
mod connection;
mod feed;
mod load;
mod meter;
mod nodes;
mod report;
mod requests;

use std::path::{Path, PathBuf};

use folkmoot::api::{Database as _, ExitCode};
use folkmoot::{Error, ErrorCode};

pub(super) use self::args::{Bench, BenchBare};
use self::args::{FEED_RATE, Workload};
use self::calibrate::Calibration;
use self::load::{Load, Pace};
use self::nodes::Nodes;
use self::report::{Disk, Report, Run};
use self::requests::{STOCK, Share, Site};
use super::args::Find;
use super::failure::Failure;
use super::output::Output;
use crate::serve::stop_signal;

/// Runs a benchmark. However it ends, its processes end with it and their folder goes.
pub(super) async fn run(find: &Find, args: &Bench, output: &Output) -> Result<ExitCode, Failure> {
    let report = tokio::select! {
        biased;
        () = stop_signal() => return Err(Error::new(ErrorCode::Internal, "interrupted; its nodes are stopped").into()),
        report = measure(find, args, output) => report?,
    };
    output.show(&report, || report.people())?;
    Ok(report.exit_code())
}

/// Serves the baseline until it is killed.
pub(super) async fn bare(find: &Find, args: &BenchBare) -> Result<ExitCode, Failure> {
    bare::serve(&find.data_directory(), args).await?;
    Ok(ExitCode::Done)
}

/// What a run has: the settings, a number that no other run has, and where it may write.
struct Turn<'a> {
    args: &'a Bench,
    workload: Workload,
    number: u64,
    folder: PathBuf,
}

async fn measure(find: &Find, args: &Bench, output: &Output) -> Result<Report, Failure> {
    let urls: Option<Vec<String>> =
        find.url.as_ref().map(|urls| urls.split(',').map(|url| url.trim().to_owned()).collect());
    let workloads = args.workloads(urls.as_ref().map(Vec::len));
    if let Some(urls) = &urls {
        check(&workloads, urls)?;
    }
    let folder = temporary(args.folder.as_deref())?;
    let calibrate = || Calibration::take(folder.path()).map_err(|error| cannot("calibrate", error));
    let mut report = Report::new(args, calibrate()?);
    // Documents of an earlier benchmark may be there: ids that begin with the time are new.
    let begun = folkmoot::api::Timestamp::now().millis();
    let turns = (0..args.rounds).flat_map(|round| workloads.iter().map(move |workload| (round, *workload)));
    for (number, (round, workload)) in turns.enumerate() {
        let of = if args.rounds > 1 { format!(" ({} of {})", round + 1, args.rounds) } else { String::new() };
        output.note(&format!("{}{of} …", workload.name()));
        let path = folder.path().join(number.to_string());
        std::fs::create_dir(&path).map_err(|error| cannot("make a folder", error))?;
        if args.unsealed {
            // Nodes are started within the folder and read their configuration there.
            std::fs::write(path.join("folkmoot.toml"), "[keys]\nsource = \"none\"\n")
                .map_err(|error| cannot("write a configuration", error))?;
        }
        let number = begun.wrapping_add(number as u64);
        let turn = Turn { args, workload, number, folder: path.clone() };
        let mut nodes = match &urls {
            Some(urls) => Nodes::find(urls, &tokens(find)?, &args.collection).await?,
            None => {
                // The node that joins is not there yet.
                let least = if workload == Workload::Bootstrap { 1 } else { workload.nodes_min() };
                Nodes::start(&path, usize::from(args.nodes).max(least), &args.collection).await?
            }
        };
        let run = turn.run(&mut nodes).await?;
        report.push(run);
        drop(nodes);
        // The disk is for the next one; the folder above goes in any case.
        let _ = std::fs::remove_dir_all(path);
    }
    report.finish(calibrate()?);
    Ok(report)
}

fn cannot(what: &str, source: std::io::Error) -> Error {
    Error::new(ErrorCode::Internal, format!("{what}: {source}")).with_source(source)
}

fn temporary(within: Option<&Path>) -> Result<tempfile::TempDir, Error> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("folkmoot-bench-");
    let made = match within {
        None => builder.tempdir(),
        Some(within) => std::fs::create_dir_all(within)
            .and_then(|()| within.canonicalize())
            .and_then(|within| builder.tempdir_in(within)),
    };
    made.map_err(|error| cannot("make a temporary folder", error))
}

/// Checks that a running cluster can have these workloads.
fn check(workloads: &[Workload], urls: &[String]) -> Result<(), Failure> {
    if let Some(url) = urls.iter().find(|url| !url.starts_with("http://")) {
        // With TLS the load generator would measure its own cryptography.
        return Err(Failure::usage(format!("{url} does not begin with http://: the load is sent in the clear")));
    }
    let nodes = urls.len();
    for workload in workloads {
        if *workload == Workload::Bootstrap {
            return Err(Failure::usage("bootstrap is measured among nodes started for it: leave --url out"));
        }
        if workload.nodes_min() > nodes {
            let (name, least) = (workload.name(), workload.nodes_min());
            return Err(Failure::usage(format!("{name} takes at least {least} nodes: give their addresses to --url")));
        }
    }
    Ok(())
}

/// Returns the tokens of the nodes of a running cluster.
fn tokens(find: &Find) -> Result<Vec<String>, Failure> {
    let files = find.token_file.as_ref().map(|files| files.to_string_lossy().into_owned()).unwrap_or_default();
    if !files.contains(',') {
        return Ok(super::credential::token(find, &find.data_directory())?.into_iter().collect());
    }
    let read = |path: &str| {
        std::fs::read_to_string(path.trim()).map_err(|source| {
            let what = format!("cannot read the token file {path}: {source}");
            Error::new(ErrorCode::Unauthenticated, what).with_source(source)
        })
    };
    Ok(files.split(',').map(read).collect::<Result<_, _>>()?)
}

impl Turn<'_> {
    async fn run(&self, nodes: &mut Nodes) -> Result<Run, Error> {
        match self.workload {
            Workload::Create | Workload::Read | Workload::Update | Workload::Mixed | Workload::Bare => {
                self.load(nodes).await
            }
            Workload::Replicate | Workload::CatchUp | Workload::Bootstrap | Workload::Heal => {
                let count = u64::from(self.args.documents);
                let moved = between::run(self.workload, nodes, &self.folder, &self.tag(), count).await?;
                let disk = disk(nodes).await?;
                Ok(Run::moved(self.args, self.workload, nodes.all.len(), Some(disk), &moved))
            }
            Workload::Feed | Workload::Subscribers => {
                let per_second = self.args.rate.unwrap_or(FEED_RATE);
                let load = self.pace(Pace::Open { per_second });
                let (followed, feeds) = match self.workload {
                    Workload::Subscribers => (nodes.first()?, u64::from(self.args.subscribers)),
                    _ => (nodes.last()?, 1),
                };
                let connections = u64::from(self.args.connections);
                let shown = feed::run(nodes, (followed, feeds), &self.tag(), load, connections).await?;
                let disk = Some(disk(nodes).await?);
                Ok(Run::shown(self.args, self.workload, nodes.all.len(), disk, load.pace, &shown))
            }
        }
    }

    fn tag(&self) -> String {
        format!("b{}", self.number)
    }

    fn pace(&self, pace: Pace) -> Load {
        Load { pace, warm_up: self.args.warm_up, duration: self.args.duration }
    }

    async fn load(&self, nodes: &Nodes) -> Result<Run, Error> {
        let Self { args, workload, .. } = self;
        let load = self.pace(args.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }));
        let first = nodes.first()?;
        if *workload != Workload::Create {
            first.fill(nodes.collection(), STOCK, u64::from(args.documents)).await?;
        }
        let bare = match workload {
            Workload::Bare => Some(bare::start(&first.site, &self.folder).await?),
            _ => None,
        };
        // The bare handler takes any token.
        let site = bare.as_ref().map(|(url, _)| Site::new(url, "none", nodes.collection()));
        let site = site.as_ref().unwrap_or(&first.site);
        let shares = (0..u64::from(args.connections)).map(|connection| {
            // No two connections of a benchmark do the same.
            let seed = self.number.wrapping_mul(u64::from(u16::MAX)).wrapping_add(connection);
            Share::new(site, *workload, args.documents as usize, seed)
        });
        let mut meter = match &bare {
            Some(_) => meter::Meter::open([site.clone()]).await?,
            None => nodes.meter().await?,
        };
        let loaded = load::run(load, &site.authority, shares.collect(), &mut meter).await?;
        let disk = match workload {
            Workload::Bare => None,
            _ => Some(disk(nodes).await?),
        };
        Ok(Run::loaded(args, *workload, nodes.all.len(), disk, load.pace, &loaded))
    }
}

/// Returns what the first node stores.
async fn disk(nodes: &Nodes) -> Result<Disk, Error> {
    let client = &nodes.first()?.client;
    let status = client.status().await?;
    let json_bytes = client.collections().await?.iter().filter_map(|collection| collection.bytes).sum();
    Ok(Disk { store_bytes: status.store_bytes, documents: status.documents, json_bytes })
}
