//! Commands about what several owners have to agree on.

use folkmoot::api::{Approval, Authors as _, ExitCode};
use folkmoot::{Client, OpId};

use super::args::ApprovalsCommand;
use super::failure::Failure;
use super::output::Output;

pub(super) async fn approvals(
    client: &Client,
    command: Option<ApprovalsCommand>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    if let Some(ApprovalsCommand::Withdraw { op }) = command {
        let withdrawn = client.withdraw(&op).await?;
        output.show(&withdrawn, || format!("withdrawn by {}: nobody is asked about {op} any more", withdrawn.act))?;
        return Ok(ExitCode::Done);
    }
    let waiting = client.approvals().await?;
    output.show(&serde_json::json!({ "items": waiting }), || {
        if waiting.is_empty() {
            return "nothing waits for further owners".to_owned();
        }
        waiting.iter().map(in_lines).collect::<Vec<_>>().join("\n\n")
    })?;
    Ok(ExitCode::Done)
}

fn in_lines(approval: &Approval) -> String {
    let Approval { op, acts, owner, for_whom, name, since, consenting, missing, open_here } = approval;
    let mut lines = vec![format!("{op}")];
    lines.extend(acts.iter().map(|act| match act.rank {
        Some(rank) => format!("  {} (rank {rank})", act.does),
        None => format!("  {}", act.does),
    }));
    let asked = for_whom.map_or_else(String::new, |id| format!(", for {} ({id})", name.escape_debug()));
    lines.push(format!("  asked by the owner {owner}{asked}, since {since}"));
    let others = consenting.iter().filter(|key| *key != owner).map(ToString::to_string).collect::<Vec<_>>();
    if !others.is_empty() {
        lines.push(format!("  approved by {}", others.join(", ")));
    }
    let here = if *open_here { ": the owner's key of this node can, by `folkmoot approve`" } else { "" };
    lines.push(format!("  {missing} missing{here}"));
    lines.join("\n")
}

/// Exits with 9 if further owners are needed still.
pub(super) async fn approve(client: &Client, op: &OpId, output: &Output) -> Result<ExitCode, Failure> {
    let approved = client.approve(op).await?;
    output.show(&approved, || match approved.missing {
        0 => format!("approved by {}: enough owners consent to {op}, and it counts", approved.act),
        missing => format!("approved by {}: {missing} missing still, {op} counts nowhere yet", approved.act),
    })?;
    Ok(if approved.missing == 0 { ExitCode::Done } else { ExitCode::Waits })
}
