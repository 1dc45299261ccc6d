//! Commands that need no node: configuration and completions.

use clap::CommandFactory as _;
use folkmoot::api::ExitCode;
use folkmoot::node::{KeySettings, KeySource};
use serde::Deserialize as _;

use super::args::{Args, ConfigCommand, ConfigFile, Find, Unlock};
use super::failure::Failure;
use super::output::{Output, table};
use crate::config::{Flag, KEYS, Layered, load};

pub(super) fn config(find: &Find, command: ConfigCommand, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Check(file) => {
            super::node::check(&layered(find, &file, Vec::new())?.config)?;
            output.show(&serde_json::json!({ "valid": true }), || "the configuration is valid".to_owned())?;
        }
        ConfigCommand::Show(file) => {
            let Layered { values, .. } = layered(find, &file, Vec::new())?;
            let json: serde_json::Map<_, _> = values
                .iter()
                .map(|(key, (value, source))| {
                    (key.clone(), serde_json::json!({ "value": value, "source": source.to_string() }))
                })
                .collect();
            output.show(&json, || {
                let rows =
                    values.iter().map(|(key, (value, source))| [key.clone(), value.to_string(), source.to_string()]);
                table(["key", "value", "source"], rows)
            })?;
        }
    }
    Ok(ExitCode::Done)
}

/// Returns how the data directory is unlocked, by the configuration that a node on it would have, for commands that need none.
pub(super) fn keys(find: &Find, unlock: &Unlock) -> Result<KeySettings, Failure> {
    let file = std::env::var_os("FOLKMOOT_CONFIG").map(Into::into);
    layered(find, &ConfigFile { config: file }, unlock.flags())?.config.keys.settings(KEYS).map_err(Failure::usage)
}

/// Reads where a master key comes from.
pub(super) fn source(text: &str) -> Result<KeySource, Failure> {
    let read = KeySource::deserialize(toml::Value::from(text));
    read.map_err(|error: toml::de::Error| Failure::usage(error.message().to_owned()))
}

fn layered(find: &Find, file: &ConfigFile, mut flags: Vec<Flag>) -> Result<Layered, Failure> {
    if let Some(data) = &find.data {
        flags.push(Flag { name: "--data", key: "data", value: data.display().to_string().into() });
    }
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(load(file.config.as_deref(), environment, flags)?)
}

pub(super) fn completions(shell: clap_complete::Shell, output: &Output) -> Result<ExitCode, Failure> {
    // By way of memory: clap_complete panics when its writer fails, as standard output does behind `| head`.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "folkmoot", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::Done)
}
