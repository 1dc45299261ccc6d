//! Commands about what documents were.

use folkmoot::Client;
use folkmoot::api::{ExitCode, Histories as _, HistoryItem, HistoryQuery};

use super::args::{Diff, History, One, Restore};
use super::documents::{options, written};
use super::failure::Failure;
use super::output::{Output, table};

/// Returns a patch, an operation a line.
fn lines(patch: &[serde_json::Value]) -> String {
    patch.iter().map(|operation| format!("  {operation}")).collect::<Vec<_>>().join("\n")
}

fn row(item: &HistoryItem) -> [String; 5] {
    let change = item.change.map(|change| change.to_string()).unwrap_or_default();
    let who = if item.name.is_empty() { item.principal.to_string() } else { item.name.clone() };
    [item.time.to_string(), item.action.clone(), who, item.through.clone(), change]
}

pub(super) async fn history(client: &Client, args: History, output: &Output) -> Result<ExitCode, Failure> {
    let One { collection, id } = args.document;
    let mut query = HistoryQuery::default();
    let (mut items, mut more) = (Vec::new(), false);
    while items.len() < args.limit {
        query.limit = Some((args.limit - items.len()).min(HistoryQuery::LIMIT_MAX));
        let page = client.history(&collection, &id, &query).await?;
        items.extend(page.items);
        more = page.next.is_some();
        if page.next.is_none() {
            break;
        }
        query.after = page.next;
    }
    output.show(&items, || {
        if !args.patches {
            return table(["time", "what", "who", "through", "version"], items.iter().map(row));
        }
        let told = items.iter().map(|item| format!("{}\n{}", row(item).join("  "), lines(&item.patch)));
        told.collect::<Vec<_>>().join("\n")
    })?;
    if more {
        output.note("there are more; --limit shows them");
    }
    Ok(ExitCode::Done)
}

pub(super) async fn diff(client: &Client, args: Diff, output: &Output) -> Result<ExitCode, Failure> {
    let One { collection, id } = args.document;
    let diff = client.diff(&collection, &id, &args.from, args.to.as_ref()).await?;
    output.show(&diff, || if diff.patch.is_empty() { "no difference".to_owned() } else { lines(&diff.patch) })?;
    Ok(ExitCode::Done)
}

pub(super) async fn restore(client: &Client, args: Restore, output: &Output) -> Result<ExitCode, Failure> {
    let One { collection, id } = args.document;
    written(client.restore(&collection, &id, args.at.as_ref(), &options(args.writing)).await?, output)
}
