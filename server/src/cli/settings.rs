//! Commands that need no node: configuration and completions.

use clap::CommandFactory as _;
use folkmoot::api::ExitCode;

use super::args::{Args, ConfigCommand, ConfigFile, Find};
use super::failure::Failure;
use super::output::{Output, table};
use crate::config::{Flag, Layered, load};

pub(super) fn config(find: &Find, command: ConfigCommand, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Check(file) => {
            super::node::check(&layered(find, &file)?.config)?;
            output.show(&serde_json::json!({ "valid": true }), || "the configuration is valid".to_owned())?;
        }
        ConfigCommand::Show(file) => {
            let Layered { values, .. } = layered(find, &file)?;
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

fn layered(find: &Find, file: &ConfigFile) -> Result<Layered, Failure> {
    let mut flags = Vec::new();
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
