//! Commands that erase documents and tell how far that is.

use std::time::{Duration, Instant};

use folkmoot::api::{Erasure, Erasures as _, ErasuresQuery, ExitCode, NewErasure};
use folkmoot::{Client, Error, ErrorCode};

use super::args::{Erase, ErasuresArgs};
use super::failure::Failure;
use super::output::{Output, facts, table};

/// How often it is asked how far an erasure is.
const POLL: Duration = Duration::from_millis(500);

fn progress(erasure: &Erasure) -> String {
    match erasure.verdict.as_str() {
        "allowed" => format!("{} of {} members", erasure.done(), erasure.members.len()),
        other => format!("does not count: {other}"),
    }
}

/// Waits until every member has carried an erasure out.
async fn wait(client: &Client, mut erasure: Erasure, until: Option<Instant>) -> Result<Erasure, Failure> {
    while !erasure.complete {
        if until.is_some_and(|until| Instant::now() >= until) {
            let missing: Vec<String> = erasure
                .members
                .iter()
                .filter(|member| member.done.is_none())
                .map(|member| member.name.clone())
                .collect();
            let detail = format!("the erasure {} is not carried out yet by {}", erasure.act, missing.join(", "));
            return Err(Error::new(ErrorCode::TooSlow, detail)
                .hint("it goes on by itself; `folkmoot erasures` tells how far it is")
                .into());
        }
        tokio::time::sleep(POLL).await;
        erasure = client.erasure(&erasure.act).await?;
    }
    Ok(erasure)
}

pub(super) async fn erase(client: &Client, args: Erase, output: &Output) -> Result<ExitCode, Failure> {
    let Erase { collection, ids, why, wait: waits, timeout } = args;
    let mut made = Vec::new();
    for ids in ids.chunks(NewErasure::IDS_MAX) {
        let new = NewErasure { ids: ids.to_vec(), why: why.clone().unwrap_or_default() };
        made.push(client.erase(&collection, &new).await?);
    }
    let until = timeout.map(|time| Instant::now() + time);
    for erasure in made {
        let erasure = if waits { wait(client, erasure, until).await? } else { erasure };
        output.show(&erasure, || {
            let count = erasure.ids.len();
            let documents = if count == 1 { "1 document".to_owned() } else { format!("{count} documents") };
            format!("erased {documents} of {collection} (act {}), carried out by {}", erasure.act, progress(&erasure))
        })?;
    }
    Ok(ExitCode::Done)
}

pub(super) async fn erasures(client: &Client, args: ErasuresArgs, output: &Output) -> Result<ExitCode, Failure> {
    if let Some(act) = args.act {
        let erasure = client.erasure(&act).await?;
        output.show(&erasure, || {
            let ids: Vec<&str> = erasure.ids.iter().map(folkmoot::DocId::as_str).collect();
            let mut rows = vec![
                ("act", erasure.act.to_string()),
                ("time", erasure.time.to_string()),
                ("by", erasure.name.clone()),
                ("signed by", erasure.signed_by.to_string()),
                ("collection", erasure.collection.to_string()),
                ("documents", ids.join(" ")),
                ("why", erasure.why.clone()),
                ("verdict", erasure.verdict.clone()),
            ];
            rows.extend(erasure.members.iter().map(|member| {
                let done = member.done.map_or_else(|| "not yet".to_owned(), |time| format!("done {time}"));
                ("member", format!("{} {done} ({})", member.name, member.node))
            }));
            facts(&rows)
        })?;
        return Ok(ExitCode::Done);
    }
    let page = client.erasures(&ErasuresQuery { after: args.after, limit: args.limit }).await?;
    output.show(&page, || {
        let rows = page.items.iter().map(|erasure| {
            let what = format!("{} of {}", erasure.ids.len(), erasure.collection);
            let (time, act) = (erasure.time.to_string(), erasure.act.to_string());
            [time, what, erasure.name.clone(), erasure.why.clone(), progress(erasure), act]
        });
        table(["time", "documents", "by", "why", "carried out by", "act"], rows)
    })?;
    if page.more {
        output.note("there are older ones: --after the last of these");
    }
    Ok(ExitCode::Done)
}
