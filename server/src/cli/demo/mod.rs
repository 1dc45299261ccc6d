//! `folkmoot demo`: a cluster of processes is cut in two, edited on both sides, healed and checked.

mod cases;
mod cluster;
mod data;
mod paper;
mod play;
mod report;
mod settling;

use folkmoot::api::ExitCode;
use folkmoot::{Error, ErrorCode};
use serde::Serialize;

use self::cluster::Cluster;
use self::paper::Paper;
use super::args::Demo;
use super::failure::Failure;
use super::output::Output;
use crate::serve::stop_signal;

/// The sides of the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Half {
    Left,
    Right,
}

impl Half {
    const BOTH: [Self; 2] = [Self::Left, Self::Right];

    const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

/// Runs a demo. However it ends, its processes end with it, and their folder goes unless it is kept.
pub(super) async fn run(args: &Demo, output: &Output) -> Result<ExitCode, Failure> {
    let paper = Paper::new(output);
    let mut cluster = Cluster::new(args.keep.as_deref()).map_err(failure)?;
    let played = tokio::select! {
        biased;
        () = stop_signal() => Err(Error::new(ErrorCode::Internal, "interrupted; the nodes are stopped").into()),
        played = play::play(args, &paper, &mut cluster) => played,
    };
    // A process that died is the cause of what failed after it.
    let played = match played {
        Err(Failure::Call(error)) => Err(failure(cluster.check_running().err().unwrap_or(error))),
        played => played,
    };
    let report = played?;
    report.print(&paper)?;
    output.show_if_json(&report)?;
    if args.keep.is_some() {
        output.note(&format!("the data and logs of the nodes are in {}", cluster.folder().display()));
    }
    Ok(report.exit_code())
}

/// A demo tells by its exit code of damage and divergence; whatever else fails is the same to who runs it.
fn failure(error: Error) -> Failure {
    match error.code().exit_code() {
        ExitCode::Failed | ExitCode::Damaged | ExitCode::Diverged | ExitCode::Locked => error.into(),
        ExitCode::Done
        | ExitCode::Usage
        | ExitCode::Unreachable
        | ExitCode::Denied
        | ExitCode::Conflict
        | ExitCode::Waits => {
            let plain = Error::new(ErrorCode::Internal, error.to_string());
            match error.advice() {
                Some(hint) => plain.hint(hint.to_owned()).into(),
                None => plain.into(),
            }
        }
    }
}
