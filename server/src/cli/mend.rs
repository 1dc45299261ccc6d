//! Commands on a data directory on which no node runs: verify, repair, rejoin.

use folkmoot::api::{ExitCode, VerifyReport};
use folkmoot::node::{DirectoryError, MendReport, Node, OpenError, RejoinOptions, RepairOptions};
use folkmoot::{Error, ErrorCode};
use indicatif::ProgressBar;

use super::args::{Find, Rejoin, Repair, Unlock};
use super::cluster::show_report;
use super::failure::Failure;
use super::node::open_failure;
use super::output::{Output, facts, table};
use super::settings;

/// Gaps that people are shown.
const GAPS_SHOWN: usize = 20;

/// Checks the data directory itself; none if a node runs on it, which is to be asked instead, or there is no directory.
pub(super) fn verify(find: &Find, unlock: &Unlock, output: &Output) -> Result<Option<ExitCode>, Failure> {
    let data = find.data_directory();
    if Node::is_new(&data) {
        return Ok(None);
    }
    match Node::verify_directory(&data, &settings::keys(find, unlock)?) {
        Ok(report) => show_report(&report, output).map(Some),
        Err(OpenError::Directory(DirectoryError::InUse(_) | DirectoryError::Empty(_))) => Ok(None),
        Err(error) => Err(open_failure(&error)),
    }
}

/// Says what is wrong with the directory, and ends there if that is all that is wanted.
fn plan(find: &Find, unlock: &Unlock, output: &Output, what: &str) -> Result<VerifyReport, Failure> {
    let data = find.data_directory();
    let report = Node::verify_directory(&data, &settings::keys(find, unlock)?).map_err(|error| mend_failure(&error))?;
    output.note(&format!(
        "{}: {} ops in {} streams, {} documents, {} damaged.\n{what}\nThe store that is there now is kept in {}.",
        data.display(),
        report.ops,
        report.streams,
        report.documents,
        report.damage_total,
        data.join("set-aside").display(),
    ));
    Ok(report)
}

/// Makes the store again of all that can be read.
pub(super) fn repair(find: &Find, args: Repair, output: &Output) -> Result<ExitCode, Failure> {
    let what = if args.accept_loss {
        "A new store is made of every op that can be read. What cannot be found is given up for lost."
    } else {
        "A new store is made of every op that can be read; documents, views and indexes are made of these. Ops behind a gap \
         are kept until a peer fills it."
    };
    if args.dry_run {
        return show_report(&plan(find, &args.unlock, output, what)?, output);
    }
    output.note(what);
    let bar = progress(output);
    let options =
        RepairOptions { from: args.from, accept_loss: args.accept_loss, keys: settings::keys(find, &args.unlock)? };
    let done = Node::repair(&find.data_directory(), &options, |ops| bar.set_position(ops));
    bar.finish_and_clear();
    let report = done.map_err(|error| mend_failure(&error))?;
    show(&report, output)?;
    if report.ops_missing == 0 {
        output.note("start the node with `folkmoot serve`");
        return Ok(ExitCode::Done);
    }
    if args.accept_loss {
        output.note("what is missing was given up for lost");
        return Ok(ExitCode::Done);
    }
    output.note(
        "start the node with `folkmoot serve`: peers give back what they have. What no peer has is lost; `folkmoot verify` \
         says so until `folkmoot repair --accept-loss` gives it up",
    );
    Ok(ExitCode::Damaged)
}

/// Sets the store aside and begins an empty one.
pub(super) async fn rejoin(find: &Find, args: Rejoin, output: &Output) -> Result<ExitCode, Failure> {
    let what = "The node keeps its identity and, as far as they can be read, the control log and what was signed here; it \
                takes everything else from peers when it runs.";
    if args.dry_run {
        return show_report(&plan(find, &args.unlock, output, what)?, output);
    }
    output.note(what);
    let bar = progress(output);
    let options = RejoinOptions { ticket: args.ticket, keys: settings::keys(find, &args.unlock)? };
    let done = Node::rejoin(&find.data_directory(), &options, |ops| bar.set_position(ops)).await;
    bar.finish_and_clear();
    let report = done.map_err(|error| mend_failure(&error))?;
    show(&report, output)?;
    output.note("start the node with `folkmoot serve`; `folkmoot status` tells when it has caught up");
    Ok(ExitCode::Done)
}

fn progress(output: &Output) -> ProgressBar {
    match output.format() {
        super::output::Format::People => ProgressBar::new_spinner().with_message("ops"),
        super::output::Format::Json => ProgressBar::hidden(),
    }
}

fn show(report: &MendReport, output: &Output) -> Result<(), Failure> {
    output.show(report, || {
        let mut text = facts(&[
            ("ops", format!("{} in {} streams", report.ops, report.streams)),
            ("waiting", format!("{} for one that is missing", report.ops_loose)),
            ("damaged", report.damaged.to_string()),
            ("missing", format!("{} ops", report.ops_missing)),
            ("set aside", format!("{} ({} bytes)", report.set_aside.display(), report.set_aside_bytes)),
            ("took", format!("{} ms", report.elapsed_ms)),
        ]);
        if !report.missing.is_empty() {
            let rows = report.missing.iter().take(GAPS_SHOWN).map(|gap| {
                let collection = gap.collection.clone().unwrap_or_default();
                [gap.stream.clone(), collection, format!("{} to {}", gap.from, gap.to)]
            });
            text.push_str(&format!("\n{}", table(["stream", "collection", "missing"], rows)));
        }
        for problem in &report.problems {
            text.push_str(&format!("\ncould not read {problem}"));
        }
        text
    })?;
    Ok(())
}

fn mend_failure(error: &OpenError) -> Failure {
    match error {
        OpenError::Directory(DirectoryError::InUse(_)) => {
            Error::new(ErrorCode::Internal, folkmoot::api::error_chain(error))
                .hint("stop the node first: `systemctl stop folkmoot`, or end its process")
                .into()
        }
        error => open_failure(error),
    }
}
