//! Commands about witnesses of forks: add, remove, list.

use folkmoot::Client;
use folkmoot::api::{ExitCode, NewWitnesses, RevokeOptions, Witness, Witnesses as _};

use super::args::WitnessCommand;
use super::failure::Failure;
use super::output::{Output, table};

fn shown(witnesses: &[Witness]) -> String {
    let rows = witnesses.iter().map(|witness| {
        let key = witness.node.map_or_else(|| "no key".to_owned(), |key| key.to_string());
        let (quorum, evidence) = (witness.quorum.to_string(), witness.evidence.to_string());
        [witness.name.clone(), key, quorum, evidence, witness.statement.to_string()]
    });
    table(["name", "node", "quorum", "evidence", "statement"], rows)
}

pub(super) async fn witness(
    client: &Client,
    command: Option<WitnessCommand>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match command.unwrap_or(WitnessCommand::List) {
        WitnessCommand::List => {
            let witnesses = client.witnesses().await?;
            output.show(&serde_json::json!({ "items": witnesses }), || shown(&witnesses))?;
        }
        WitnessCommand::Add { nodes, quorum } => {
            let witnesses = client.appoint_witnesses(&NewWitnesses { nodes, quorum }).await?;
            output.show(&serde_json::json!({ "items": witnesses }), || shown(&witnesses))?;
        }
        WitnessCommand::Remove { node, why } => {
            let options = RevokeOptions { why: why.unwrap_or_default(), cascade: false };
            let done = client.dismiss_witness(&node, &options).await?;
            output.show(&done, || {
                format!("{node} is no witness any more (act {}); what it has said stands.", done.act)
            })?;
        }
    }
    Ok(ExitCode::Done)
}
