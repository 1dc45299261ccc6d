//! Commands on the audit.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use folkmoot::api::{
    AuditEntry, AuditFormat, AuditQuery, AuditVerifyReport, ExitCode, ExplainedFork, Explanation, PrincipalName,
    Timestamp,
};
use folkmoot::node::{AuditChecked, DirectoryError, Node, OpenError};
use folkmoot::{Audit as _, Client, ClusterId, Error, ErrorCode, OpId};

use super::args::{AuditCommand, AuditExport, AuditFilter, Find, Unlock};
use super::failure::Failure;
use super::node::open_failure;
use super::output::{Output, facts, table};
use super::settings;

/// How long the node is asked to wait for something new.
const WAIT: Duration = Duration::from_secs(25);
/// The largest file that is read as a proof.
const PROOF_BYTES_MAX: u64 = folkmoot_core::limits::AUDIT_PROOF_BYTES_MAX as u64;

/// Returns the time so long ago, or the one that is named.
fn time(text: &str) -> Result<Timestamp, Failure> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        Failure::usage(format!("{text:?} is no time as in 2026-01-31T12:00:00Z, and no duration as in 7d"))
    })?;
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp::from_millis(Timestamp::now().millis().saturating_sub(ago)))
}

fn query(filter: &AuditFilter) -> Result<AuditQuery, Failure> {
    Ok(AuditQuery {
        principal: filter.principal.as_deref().map(str::parse::<PrincipalName>).transpose()?,
        collection: filter.collection.clone(),
        action: filter.action,
        class: filter.class,
        decision: filter.decision,
        since: filter.since.as_deref().map(time).transpose()?,
        until: filter.until.as_deref().map(time).transpose()?,
        layer: filter.layer,
        limit: None,
        after: None,
        wait: Duration::ZERO,
    })
}

pub(super) async fn run(client: &Client, command: AuditCommand, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        AuditCommand::Query { filter, limit, after } => {
            let mut wanted = query(&filter)?;
            wanted.after = after.map(folkmoot::api::AuditCursor::new).transpose()?;
            list(client, wanted, limit, output).await
        }
        AuditCommand::Tail { filter } => tail(client, query(&filter)?, output).await,
        AuditCommand::Export(args) => export(client, &args).await,
        AuditCommand::Status => status(client, output).await,
        AuditCommand::Verify(_) => report(&client.audit_verify().await?, output),
        AuditCommand::Prove { id, file } => {
            let proof = client.audit_proof(&id).await?;
            match file {
                Some(path) => std::fs::write(&path, &proof).map_err(|source| {
                    Error::new(ErrorCode::Internal, format!("write {}", path.display())).with_source(source)
                })?,
                None => output.line(String::from_utf8_lossy(&proof).trim_end())?,
            }
            Ok(ExitCode::Done)
        }
        // Handled without a node.
        AuditCommand::Check { .. } => Ok(ExitCode::Done),
    }
}

/// Checks the log of a data directory on which no node runs; none if one runs, which is to be asked instead.
pub(super) fn verify_directory(find: &Find, unlock: &Unlock, output: &Output) -> Result<Option<ExitCode>, Failure> {
    match Node::audit_verify_directory(&find.data_directory(), &settings::keys(find, unlock)?) {
        Ok(found) => report(&found, output).map(Some),
        Err(OpenError::Directory(DirectoryError::InUse(_) | DirectoryError::Empty(_))) => Ok(None),
        Err(error) => Err(open_failure(&error)),
    }
}

/// Takes the id of an op, with or without the number of a transaction behind it.
pub(super) fn op_id(text: &str) -> Result<OpId, String> {
    let id = text.split(['#', ':']).next().unwrap_or_default();
    id.parse().map_err(|_| "the id of an op has 64 hexadecimal digits".to_owned())
}

pub(super) async fn why(client: &Client, op: &OpId, output: &Output) -> Result<ExitCode, Failure> {
    let explained = client.why(op).await?;
    output.show(&explained, || in_words(&explained))?;
    Ok(ExitCode::Done)
}

fn in_words(explained: &Explanation) -> String {
    let signer = Some(explained.signer_name.as_str()).filter(|name| !name.is_empty()).unwrap_or("somebody unknown");
    let Explanation { op, seq, made, .. } = explained;
    let mut text = format!("op {op}, number {seq} of its stream, signed by {signer} at {made}");
    for part in &explained.parts {
        let place = part.collection.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
        let documents: Vec<&str> = part.documents.iter().map(folkmoot::DocId::as_str).collect();
        let about = [documents.join(" "), part.about.clone()].join(" ");
        let who = if part.name.is_empty() { "-" } else { &part.name };
        text.push_str(&format!(
            "\n\n{}: {} by {who}{place}: {}\n{}",
            part.transaction,
            part.action.name(),
            about.trim(),
            part.verdict
        ));
        if !part.reason.is_empty() {
            text.push_str(&format!(" ({})", part.reason));
        }
        let rows = part.grounds.iter().map(|ground| {
            let stance = match &ground.by {
                Some(by) => format!("{} by {by}", ground.stance),
                None => ground.stance.clone(),
            };
            [ground.part.clone(), ground.statement.to_string(), ground.says.clone(), stance]
        });
        text.push('\n');
        text.push_str(&table(["part", "statement", "says", "worth"], rows));
        if let Some(fork) = &part.fork {
            text.push('\n');
            text.push_str(&forked(fork));
        }
    }
    text
}

/// Tells which branch of a stream counts, and who says so.
fn forked(fork: &ExplainedFork) -> String {
    let kept = match (fork.kept, fork.kept_seq) {
        (Some(op), Some(seq)) => format!("of its branches that up to number {seq} ({op}) counts"),
        _ => "nothing from there on counts".to_owned(),
    };
    let by = match fork.by {
        Some(act) => format!(", by the pin of {act}"),
        None if fork.kept.is_some() => ", as witnesses saw it".to_owned(),
        None => String::new(),
    };
    let mut text = format!("its stream forks at number {}: {kept}{by}\n", fork.at);
    if !fork.evidence.is_empty() {
        let rows = fork.evidence.iter().map(|said| {
            let saw = format!("{} ({})", said.saw_seq, said.saw);
            [said.name.clone(), said.quorum.to_string(), saw, said.verdict.clone(), said.act.to_string()]
        });
        text.push_str(&table(["witness", "quorum", "saw", "worth", "act"], rows));
    }
    text
}

fn report(report: &AuditVerifyReport, output: &Output) -> Result<ExitCode, Failure> {
    output.show(report, || {
        let mut text = format!(
            "checked {} records in {} logs ({} more have expired), {} checkpoints and {} countersignatures",
            report.records, report.logs, report.expired, report.checkpoints, report.cosignatures
        );
        if report.damage_total > 0 {
            text.push_str(&format!("\n{} wrong:\n", report.damage_total));
            text.push_str(&table(["where", "what"], report.damage.iter().map(|d| [d.place.clone(), d.detail.clone()])));
        } else {
            text.push_str("\nno damage");
        }
        text
    })?;
    Ok(if report.damage_total > 0 { ExitCode::Damaged } else { ExitCode::Done })
}

fn shown(entry: &AuditEntry) -> String {
    let who = match (&entry.principal, entry.name.as_str()) {
        (_, name) if !name.is_empty() => name.to_owned(),
        (Some(id), _) => id.to_string(),
        (None, _) => "-".to_owned(),
    };
    let documents: Vec<&str> = entry.documents.iter().map(folkmoot::DocId::as_str).collect();
    let collection = entry.collection.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut text = format!("{} {} {} {} by {who}", entry.time, entry.id, entry.action.name(), entry.decision.name());
    let parts = [
        (" in ", collection),
        (" documents ", documents.join(" ")),
        (" about ", entry.target.clone()),
        (" from ", entry.source.clone()),
        (" times ", if entry.count > 1 { entry.count.to_string() } else { String::new() }),
        (" because ", entry.reason.clone()),
    ];
    for (name, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(name);
        // What somebody sent must not write on the terminal otherwise than as text.
        text.extend(value.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }));
    }
    text
}

async fn list(client: &Client, mut query: AuditQuery, limit: usize, output: &Output) -> Result<ExitCode, Failure> {
    let mut left = limit;
    while left > 0 {
        query.limit = Some(left.min(AuditQuery::LIMIT_MAX));
        let page = client.audit(&query).await?;
        for entry in &page.items {
            output.show(entry, || shown(entry))?;
        }
        left = left.saturating_sub(page.items.len());
        query.after = Some(page.next.clone());
        if !page.more {
            return Ok(ExitCode::Done);
        }
    }
    if let Some(after) = &query.after {
        output.note(&format!("there may be more: go on with --after {}", after.as_str()));
    }
    Ok(ExitCode::Done)
}

async fn tail(client: &Client, query: AuditQuery, output: &Output) -> Result<ExitCode, Failure> {
    let since = query.since.or_else(|| Some(Timestamp::now()));
    let mut query = AuditQuery { since, layer: query.layer.or(Some(folkmoot::api::AuditLayer::Log)), ..query };
    loop {
        let page = client.audit(&query).await?;
        for entry in &page.items {
            output.show(entry, || shown(entry))?;
        }
        query.after = Some(page.next);
        query.wait = WAIT;
    }
}

async fn export(client: &Client, args: &AuditExport) -> Result<ExitCode, Failure> {
    let mut query = AuditQuery { limit: Some(AuditQuery::LIMIT_MAX), ..query(&args.filter)? };
    let format: AuditFormat = args.format.parse().map_err(|error: Error| Failure::usage(error.to_string()))?;
    let mut out = std::io::stdout().lock();
    loop {
        let page = client.audit(&query).await?;
        for entry in &page.items {
            out.write_all(format.line(entry).as_bytes())?;
            out.write_all(b"\n")?;
        }
        query.after = Some(page.next);
        if !page.more {
            out.flush()?;
            return Ok(ExitCode::Done);
        }
    }
}

async fn status(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let status = client.audit_status().await?;
    output.show(&status, || {
        let mut text = facts(&[
            ("log", status.log.clone()),
            ("records", format!("{}, from {}", status.records, status.first)),
            ("bytes", status.bytes.to_string()),
            ("logs", status.logs.to_string()),
            ("lost", format!("details of {} events", status.lost)),
            ("cosigned by", format!("{} peers", status.cosigned.len())),
        ]);
        if !status.peers.is_empty() {
            let rows = status.peers.iter().map(|peer| {
                let trouble = peer.trouble.clone().unwrap_or_default();
                [peer.peer.to_string(), peer.seen.to_string(), peer.seen_at.to_string(), trouble]
            });
            text.push_str(&format!("\n\n{}", table(["peer", "records seen", "at", "trouble"], rows)));
        }
        text
    })?;
    Ok(ExitCode::Done)
}

/// Checks a proof without any node.
/// Exits with 6 if the file proves nothing, or is of another cluster than it should be; with 4 if it shows that there was no right.
pub(super) fn check(file: &Path, wanted: Option<ClusterId>, output: &Output) -> Result<ExitCode, Failure> {
    let read =
        |source| Failure::from(Error::new(ErrorCode::Internal, format!("read {}", file.display())).with_source(source));
    if std::fs::metadata(file).map_err(read)?.len() > PROOF_BYTES_MAX {
        return Err(Failure::usage(format!("{} is too large to be a proof", file.display())));
    }
    let bytes = std::fs::read(file).map_err(read)?;
    let of_another = |checked: &AuditChecked| wanted.filter(|wanted| *wanted != checked.cluster);
    let checked = match Node::audit_check(&bytes) {
        Ok(checked) => match of_another(&checked) {
            None => Ok(checked),
            Some(_) => Err(format!("it is of the cluster {}", checked.cluster)),
        },
        Err(why) => Err(why),
    };
    let checked = match checked {
        Ok(checked) => checked,
        Err(why) => {
            let what = serde_json::json!({ "holds": false, "why": why });
            output.show(&what, || format!("it proves nothing: {why}"))?;
            return Ok(ExitCode::Damaged);
        }
    };
    let AuditChecked { what, signed_by, cluster, log, size, cosigned, entry, right, acts } = &checked;
    output.show(&checked, || {
        let cosigned: Vec<String> = cosigned.iter().map(ToString::to_string).collect();
        let mut text = facts(&[
            ("it holds", what.clone()),
            ("signed by", signed_by.to_string()),
            ("cluster", cluster.to_string()),
            ("log", log.clone().unwrap_or_else(|| "-".to_owned())),
            ("of records", size.map_or_else(|| "-".to_owned(), |size| size.to_string())),
            ("countersigned by", cosigned.join(", ")),
            ("says", entry.to_string()),
        ]);
        if let (Some(right), Some(acts)) = (right, acts) {
            text.push_str(&format!("\n\nby the {acts} acts that its author knew:\n{}", in_words(right)));
        }
        text
    })?;
    output.note(match (right, wanted) {
        (Some(_), Some(_)) => "a revocation that its author had not heard of is not in the proof: `folkmoot why` asks a node",
        (Some(_), None) => "that this is the cluster is for you to know: name it with --cluster. A revocation that its author had not heard of is not in the proof",
        (None, _) => "that the key is a node's of the cluster is for you to know: `folkmoot peers` and `folkmoot status` show keys",
    });
    Ok(if checked.is_allowed() == Some(false) { ExitCode::Denied } else { ExitCode::Done })
}
