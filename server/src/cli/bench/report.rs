//! What a benchmark found: a table for people, JSON for programs.

use folkmoot::api::ExitCode;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::{Bench, Workload};
use super::between::Moved;
use super::calibrate::Calibration;
use super::feed::Shown;
use super::load::{Loaded, Pace};
use super::requests::DOCUMENT_BYTES;
use crate::cli::agreement::Agreement;
use crate::cli::output::{facts, table};

/// Latencies, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Latency {
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }

    fn cells(latency: Option<&Self>) -> [String; 3] {
        let Some(Self { p50, p99, p999, .. }) = latency else { return [(); 3].map(|()| "–".to_owned()) };
        [p50, p99, p999].map(|micros| millis(*micros))
    }
}

fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1_000.0;
    if millis < 10.0 { format!("{millis:.2}") } else { format!("{millis:.0}") }
}

/// What is stored in the end.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Disk {
    /// Bytes of the first node's store, its journal included.
    pub(super) store_bytes: u64,
    /// Documents in it.
    pub(super) documents: u64,
    /// Bytes of their JSON text.
    pub(super) json_bytes: u64,
}

/// Documents that went from node to node.
#[derive(Debug, Clone, Serialize)]
struct Movement {
    documents: u64,
    reconnect_ms: Option<u64>,
    lost: u64,
    diverged: bool,
}

/// One run of one workload.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    workload: Workload,
    nodes: usize,
    connections: u16,
    /// Operations asked for in a second; none in the closed loop.
    rate_asked: Option<u32>,
    seconds: f64,
    operations: u64,
    errors: u64,
    first_error: Option<String>,
    /// Operations that should have begun and had not: the rate asked for was too high.
    late: u64,
    per_second: f64,
    latency_us: Option<Latency>,
    /// From acknowledgement to the feed of another node.
    visible_us: Option<Latency>,
    /// CPU time of all nodes.
    cpu_us_per_operation: f64,
    /// CPU time of the program that makes the load.
    client_cpu_us_per_operation: f64,
    resident_bytes_max: u64,
    disk: Option<Disk>,
    disk_bytes_per_document: Option<f64>,
    disk_per_json: Option<f64>,
    moved: Option<Movement>,
}

fn ratio(over: f64, under: f64) -> f64 {
    if under > 0.0 { over / under } else { 0.0 }
}

impl Run {
    /// What the settings tell of a run.
    fn new(args: &Bench, workload: Workload, nodes: usize, disk: Option<Disk>) -> Self {
        let documents = disk.as_ref().map(|disk| disk.documents as f64).filter(|documents| *documents > 0.0);
        let json = disk.as_ref().map(|disk| disk.json_bytes as f64).filter(|bytes| *bytes > 0.0);
        let bytes = disk.as_ref().map(|disk| disk.store_bytes as f64);
        Self {
            workload,
            nodes,
            connections: args.connections,
            rate_asked: None,
            seconds: 0.0,
            operations: 0,
            errors: 0,
            first_error: None,
            late: 0,
            per_second: 0.0,
            latency_us: None,
            visible_us: None,
            cpu_us_per_operation: 0.0,
            client_cpu_us_per_operation: 0.0,
            resident_bytes_max: 0,
            disk,
            disk_bytes_per_document: bytes.zip(documents).map(|(bytes, documents)| bytes / documents),
            disk_per_json: bytes.zip(json).map(|(bytes, json)| bytes / json),
            moved: None,
        }
    }

    pub(super) fn loaded(
        args: &Bench,
        workload: Workload,
        nodes: usize,
        disk: Option<Disk>,
        pace: Pace,
        loaded: &Loaded,
    ) -> Self {
        let operations = loaded.operations as f64;
        Self {
            rate_asked: match pace {
                Pace::Closed => None,
                Pace::Open { per_second } => Some(per_second),
            },
            seconds: loaded.seconds,
            operations: loaded.operations,
            errors: loaded.errors,
            first_error: loaded.first_error.clone(),
            late: loaded.late,
            per_second: ratio(operations, loaded.seconds),
            latency_us: Latency::of(&loaded.latency),
            cpu_us_per_operation: ratio(loaded.used.cpu_seconds * 1e6, operations),
            client_cpu_us_per_operation: ratio(loaded.used.client_cpu_seconds * 1e6, operations),
            resident_bytes_max: loaded.used.resident_bytes_max,
            ..Self::new(args, workload, nodes, disk)
        }
    }

    pub(super) fn shown(
        args: &Bench,
        workload: Workload,
        nodes: usize,
        disk: Option<Disk>,
        pace: Pace,
        shown: &Shown,
    ) -> Self {
        let mut run = Self::loaded(args, workload, nodes, disk, pace, &shown.writes);
        run.visible_us = Latency::of(&shown.visible);
        run.errors += shown.missing;
        if shown.missing > 0 {
            run.first_error.get_or_insert_with(|| format!("{} changes did not come in the feed", shown.missing));
        }
        run
    }

    pub(super) fn moved(args: &Bench, workload: Workload, nodes: usize, disk: Option<Disk>, moved: &Moved) -> Self {
        let documents = moved.documents as f64;
        let diverged = moved.agreement == Agreement::Diverged;
        let why = if diverged {
            Some("the nodes hold the same ops, which come to other contents".to_owned())
        } else {
            (moved.lost > 0).then(|| format!("{} documents were acknowledged and are not everywhere", moved.lost))
        };
        Self {
            seconds: moved.time.as_secs_f64(),
            operations: moved.documents.saturating_sub(moved.lost),
            errors: moved.lost + u64::from(diverged),
            first_error: why,
            per_second: ratio(documents, moved.time.as_secs_f64()),
            cpu_us_per_operation: ratio(moved.used.cpu_seconds * 1e6, documents),
            client_cpu_us_per_operation: ratio(moved.used.client_cpu_seconds * 1e6, documents),
            resident_bytes_max: moved.used.resident_bytes_max,
            moved: Some(Movement {
                documents: moved.documents,
                reconnect_ms: moved.reconnect.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
                lost: moved.lost,
                diverged,
            }),
            ..Self::new(args, workload, nodes, disk)
        }
    }

    fn row(&self) -> [String; 10] {
        let [p50, p99, p999] = Latency::cells(self.visible_us.as_ref().or(self.latency_us.as_ref()));
        let connect = self.moved.as_ref().and_then(|moved| moved.reconnect_ms);
        let workload = match connect {
            Some(millis) => format!("{} (linked after {millis} ms)", self.workload.name()),
            None => self.workload.name().to_owned(),
        };
        [
            workload,
            self.operations.to_string(),
            self.errors.to_string(),
            format!("{:.0}", self.per_second),
            p50,
            p99,
            p999,
            format!("{:.1} µs", self.cpu_us_per_operation),
            format!("{:.0}", self.resident_bytes_max as f64 / f64::from(1 << 20)),
            self.disk_per_json.map_or("–".to_owned(), |times| format!("{times:.1}")),
        ]
    }
}

/// How a read compares with the bare handler of the same round.
#[derive(Debug, Clone, Serialize)]
struct Ratios {
    read_rate_to_bare: f64,
    read_cpu_to_bare: f64,
}

/// The machine's class: figures of one do not hold for another.
#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    system: &'static str,
    architecture: &'static str,
}

/// What a benchmark found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    started: String,
    machine: Machine,
    document_bytes: usize,
    documents: u32,
    calibration_before: Calibration,
    calibration_after: Option<Calibration>,
    /// Of each workload the run with the median CPU time per operation.
    results: Vec<Run>,
    ratios: Option<Ratios>,
    /// All runs in their order.
    runs: Vec<Run>,
    failed: bool,
}

impl Report {
    pub(super) fn new(args: &Bench, calibration: Calibration) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            machine: Machine {
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                system: std::env::consts::OS,
                architecture: std::env::consts::ARCH,
            },
            document_bytes: DOCUMENT_BYTES,
            documents: args.documents,
            calibration_before: calibration,
            calibration_after: None,
            results: Vec::new(),
            ratios: None,
            runs: Vec::new(),
            failed: false,
        }
    }

    pub(super) fn push(&mut self, run: Run) {
        self.failed |= run.errors > 0 || run.operations == 0;
        self.runs.push(run);
    }

    pub(super) fn finish(&mut self, calibration: Calibration) {
        self.calibration_after = Some(calibration);
        let mut workloads: Vec<Workload> = Vec::new();
        for run in &self.runs {
            if !workloads.contains(&run.workload) {
                workloads.push(run.workload);
            }
        }
        self.results = workloads.into_iter().filter_map(|workload| median(&self.runs, workload)).collect();
        let found = |workload| self.results.iter().find(|run| run.workload == workload);
        self.ratios = found(Workload::Read).zip(found(Workload::Bare)).map(|(read, bare)| Ratios {
            read_rate_to_bare: ratio(read.per_second, bare.per_second),
            read_cpu_to_bare: ratio(read.cpu_us_per_operation, bare.cpu_us_per_operation),
        });
    }

    /// Returns how the program ends.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.runs.iter().any(|run| run.moved.as_ref().is_some_and(|moved| moved.diverged)) {
            ExitCode::Diverged
        } else if self.failed {
            ExitCode::Failed
        } else {
            ExitCode::Done
        }
    }

    pub(super) fn people(&self) -> String {
        let head =
            ["workload", "done", "errors", "per s", "p50 ms", "p99 ms", "p99.9 ms", "CPU/op", "MiB", "disk/JSON"];
        let mut text = table(head, self.results.iter().map(Run::row));
        let mut notes = Vec::new();
        if let Some(ratios) = &self.ratios {
            notes.push((
                "read / bare",
                format!("{:.2} of its rate, {:.2} of its CPU time", ratios.read_rate_to_bare, ratios.read_cpu_to_bare),
            ));
        }
        for run in self.results.iter().filter(|run| run.late > 0) {
            notes
                .push((run.workload.name(), format!("{} operations were due and never began: lower --rate", run.late)));
        }
        for run in &self.runs {
            if let Some(error) = &run.first_error {
                notes.push((run.workload.name(), format!("{} errors, the first: {error}", run.errors)));
            }
        }
        notes.push(("before", self.calibration_before.line()));
        if let Some(calibration) = &self.calibration_after {
            notes.push(("after", calibration.line()));
        }
        let Machine { cores, system, architecture } = &self.machine;
        notes.push(("machine", format!("{cores} cores, {system} {architecture}, shared with the load generator")));
        text.push_str("\n\n");
        text.push_str(&facts(&notes));
        text
    }
}

/// Returns the run with the median CPU time per operation.
fn median(runs: &[Run], workload: Workload) -> Option<Run> {
    let mut of: Vec<&Run> = runs.iter().filter(|run| run.workload == workload).collect();
    of.sort_by(|a, b| a.cpu_us_per_operation.total_cmp(&b.cpu_us_per_operation));
    of.get(of.len() / 2).map(|run| (*run).clone())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        bench: Bench,
    }

    fn run(workload: Workload, cpu: f64, errors: u64) -> Run {
        let args = Arguments::parse_from(["bench"]).bench;
        let disk = Disk { store_bytes: 900, documents: 3, json_bytes: 600 };
        Run {
            cpu_us_per_operation: cpu,
            errors,
            operations: 1,
            per_second: 1e6 / cpu,
            ..Run::new(&args, workload, 1, Some(disk))
        }
    }

    fn report(runs: impl IntoIterator<Item = Run>) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let calibration = Calibration::take(folder.path()).unwrap();
        let mut report = Report::new(&Arguments::parse_from(["bench"]).bench, calibration);
        runs.into_iter().for_each(|run| report.push(run));
        report.finish(calibration);
        report
    }

    #[test]
    fn the_median_run_stands_for_all_and_is_compared_with_the_bare_handler() {
        let cpus = [30.0, 10.0, 20.0];
        let report =
            report(cpus.into_iter().flat_map(|cpu| [run(Workload::Read, cpu, 0), run(Workload::Bare, cpu / 4.0, 0)]));
        let shown: Vec<_> = report.results.iter().map(|run| (run.workload, run.cpu_us_per_operation as u64)).collect();
        assert_eq!(shown, [(Workload::Read, 20), (Workload::Bare, 5)]);
        let ratios = report.ratios.as_ref().unwrap();
        assert!((ratios.read_rate_to_bare - 0.25).abs() < 1e-9 && (ratios.read_cpu_to_bare - 4.0).abs() < 1e-9);
        assert_eq!(report.exit_code(), ExitCode::Done);
        assert!(report.people().contains("0.25 of its rate"));
    }

    #[test]
    fn an_error_in_any_run_fails_the_whole() {
        assert_eq!(report([run(Workload::Read, 1.0, 0), run(Workload::Read, 2.0, 1)]).exit_code(), ExitCode::Failed);
        let nothing = Run { operations: 0, ..run(Workload::Create, 1.0, 0) };
        assert_eq!(report([nothing]).exit_code(), ExitCode::Failed);
        let apart = Movement { documents: 1, reconnect_ms: None, lost: 0, diverged: true };
        let diverged = Run { moved: Some(apart), ..run(Workload::Heal, 1.0, 1) };
        assert_eq!(report([diverged]).exit_code(), ExitCode::Diverged);
    }

    #[test]
    fn disk_is_told_by_document_and_by_byte() {
        let run = run(Workload::Create, 1.0, 0);
        assert_eq!((run.disk_bytes_per_document, run.disk_per_json), (Some(300.0), Some(1.5)));
    }
}
