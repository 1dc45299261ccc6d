//! Commands about secondary indexes: list, create, drop.

use std::time::Duration;

use folkmoot::api::{ExitCode, IndexInfo, IndexProgress, IndexSettings, IndexState, Queries as _};
use folkmoot::{Client, Database as _, Error, ErrorCode};

use super::args::IndexCommand;
use super::cluster::settings_of;
use super::failure::Failure;
use super::output::{Output, table};

/// How often it is asked whether an index is made.
const POLL: Duration = Duration::from_millis(200);
/// The longest name.
const NAME_BYTES_MAX: usize = 64;

fn state(info: &IndexInfo) -> String {
    match (info.state, info.progress) {
        (IndexState::Ready, _) => "ready".to_owned(),
        (IndexState::Failed, _) => "is made anew".to_owned(),
        (IndexState::Building, Some(IndexProgress { looked_at, documents: Some(all) })) => {
            format!("building, {looked_at} of {all} documents")
        }
        (IndexState::Building, _) => "building".to_owned(),
    }
}

fn shown(indexes: &[IndexInfo]) -> String {
    let rows = indexes.iter().map(|info| {
        let fields = info.settings.fields.join(", ");
        let kind = if info.settings.sparse { "sparse" } else { "" };
        [info.name.clone(), fields, kind.to_owned(), state(info), info.entries.to_string(), info.bytes.to_string()]
    });
    table(["name", "places", "", "state", "entries", "bytes"], rows)
}

/// Makes a name of places.
fn name_of(fields: &[String]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let parts = fields.iter().map(|field| field.trim_start_matches(['-', '/']).chars().map(plain).collect::<String>());
    let mut name = parts.collect::<Vec<_>>().join("-");
    name.truncate(NAME_BYTES_MAX);
    name
}

pub(super) async fn index(client: &Client, command: IndexCommand, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        IndexCommand::List { collection } => {
            let indexes = client.indexes(&collection).await?;
            output.show(&serde_json::json!({ "items": indexes }), || shown(&indexes))?;
        }
        IndexCommand::Create { collection, name, sparse, wait, fields } => {
            let mut settings = settings_of(client, &collection).await?;
            let name = name.unwrap_or_else(|| name_of(&fields));
            let index = IndexSettings { fields, sparse };
            if settings.indexes.get(&name).is_some_and(|known| *known != index) {
                let what = format!("the collection {collection} has an index {name} already, on other places");
                return Err(Error::new(ErrorCode::NameTaken, what).hint("choose a --name, or drop it first").into());
            }
            settings.indexes.insert(name.clone(), index);
            client.configure(&collection, settings).await?;
            let mut told = String::new();
            loop {
                let indexes = client.indexes(&collection).await?;
                let made: Vec<_> = indexes.into_iter().filter(|info| info.name == name).collect();
                let is_ready = made.iter().any(|info| info.state == IndexState::Ready);
                if is_ready || !wait {
                    output.show(&serde_json::json!({ "items": made }), || {
                        if made.is_empty() {
                            format!("declared {name}; the node begins with it in a moment")
                        } else {
                            shown(&made)
                        }
                    })?;
                    return Ok(ExitCode::Done);
                }
                let now = made.first().map(state).unwrap_or_default();
                if now != told {
                    output.note(&now);
                    told = now;
                }
                tokio::time::sleep(POLL).await;
            }
        }
        IndexCommand::Drop { collection, name } => {
            let mut settings = client.collection(&collection).await?.settings;
            if settings.indexes.remove(&name).is_none() {
                let known: Vec<_> = settings.indexes.into_keys().collect();
                let known =
                    if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
                let what = format!("the collection {collection} has no index {name}");
                return Err(Failure::usage(format!("{what}: {known}")));
            }
            client.configure(&collection, settings).await?;
            output.show(&serde_json::json!({ "dropped": name }), || format!("dropped {name}"))?;
        }
    }
    Ok(ExitCode::Done)
}
