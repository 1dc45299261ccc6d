//! Commands about keys: show, rotate, rekey.

use folkmoot::Client;
use folkmoot::api::{Database as _, ExitCode, KeyRotation, KeysInfo};
use folkmoot::node::Node;

use super::args::{Find, KeysCommand, Rekey};
use super::failure::Failure;
use super::node::open_failure;
use super::output::{Output, facts};
use super::settings;
use crate::config::{KeysConfig, NEW_KEYS};

/// Asks a node for its keys, or changes them.
pub(super) async fn keys(client: &Client, command: Option<KeysCommand>, output: &Output) -> Result<ExitCode, Failure> {
    let info = match command {
        None | Some(KeysCommand::Show | KeysCommand::Rekey(_)) => client.keys().await?,
        Some(KeysCommand::Rotate { master }) => {
            let which = if master { KeyRotation::Master } else { KeyRotation::Collections };
            client.rotate_keys(which).await?
        }
    };
    show(&info, output)?;
    Ok(ExitCode::Done)
}

fn show(info: &KeysInfo, output: &Output) -> Result<(), Failure> {
    output.show(info, || {
        let rotation = match info.rotating {
            true => format!("under way, {} keys looked at", info.rewrapped),
            false => "none".to_owned(),
        };
        facts(&[
            ("master key", info.source.clone()),
            ("collections", info.collections.to_string()),
            ("documents", info.documents.to_string()),
            ("rotation", rotation),
        ])
    })?;
    Ok(())
}

/// Seals a data directory under another master key.
pub(super) fn rekey(find: &Find, args: Rekey, output: &Output) -> Result<ExitCode, Failure> {
    let data = find.data_directory();
    let keys = settings::keys(find, &args.unlock)?;
    let source = settings::source(&args.new_source)?;
    let to = KeysConfig {
        source,
        file: args.new_file.unwrap_or_default(),
        passphrase_file: args.new_passphrase_file.unwrap_or_default(),
        command: args.new_command.unwrap_or_default(),
    };
    let to = to.settings(NEW_KEYS).map_err(Failure::usage)?;
    Node::rekey(&data, &keys, &to).map_err(|error| open_failure(&error))?;
    output.show(&serde_json::json!({ "data": data, "source": source }), || {
        format!("{} is opened by the new master key from now on ({}).", data.display(), source.name())
    })?;
    output.note("destroy the old master key, and copies of keyring.json that it opens");
    Ok(ExitCode::Done)
}
