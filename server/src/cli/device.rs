//! Commands about devices: nodes in apps that sign in the name of a user.

use folkmoot::api::{Access as _, AuthorKind, Authors as _, ExitCode, InviteOptions, PrincipalName};
use folkmoot::{Client, PrincipalId};

use super::args::{DeviceCommand, Find, Invite, KeyCommand};
use super::failure::Failure;
use super::output::{Output, table};
use super::{cluster, key};

pub(super) async fn device(
    client: &Client,
    find: &Find,
    command: Option<DeviceCommand>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match command.unwrap_or(DeviceCommand::List { principal: None }) {
        DeviceCommand::List { principal } => list(client, principal, output).await,
        DeviceCommand::Invite { principal, expires } => {
            let InviteOptions { uses, role, .. } = InviteOptions::default();
            cluster::invite(client, Invite { expires, uses, role, device_of: Some(principal) }, output).await
        }
        DeviceCommand::Revoke { author, reason } => {
            key::key(client, find, KeyCommand::Revoke { author, reason }, output).await
        }
    }
}

/// Finds the id of a principal by what somebody calls it.
async fn id_of(client: &Client, principal: PrincipalName) -> Result<Option<PrincipalId>, Failure> {
    let name = match principal {
        PrincipalName::Id(id) => return Ok(Some(id)),
        PrincipalName::Name(name) => name,
    };
    let all = client.principals().await?;
    Ok(all.into_iter().find(|info| info.name == name).map(|info| info.id))
}

async fn list(client: &Client, principal: Option<PrincipalName>, output: &Output) -> Result<ExitCode, Failure> {
    let mut devices = client.authors().await?;
    devices.retain(|author| author.kind == AuthorKind::Device);
    if let Some(principal) = principal {
        let id = id_of(client, principal).await?;
        devices.retain(|author| Some(author.principal) == id);
    }
    output.show(&devices, || {
        if devices.is_empty() {
            return "no devices".to_owned();
        }
        let rows = devices.iter().map(|device| {
            let until = device.until.map_or_else(String::new, |until| until.to_string());
            [device.name.clone(), device.key.clone(), until]
        });
        table(["whose", "key", "until"], rows)
    })?;
    Ok(ExitCode::Done)
}
