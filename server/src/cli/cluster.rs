//! Commands about collections, the change feed, the node and its peers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use folkmoot::api::{
    Bootstrap, BootstrapStage, Change, ChangeContent, ChangeKind, ChangeToken, ChangesQuery, CollectionInfo,
    CollectionSettings, Database as _, DuplicatesQuery, ExitCode, Expires, FieldType, InvalidQuery, InviteOptions,
    LastBootstrap, LinkRule, QuarantineQuery, SessionToken, Sessions as _, Since, Touched, VerifyReport,
};
use folkmoot::wire::{ChangeMeta, SessionAnswer};
use folkmoot::{AuthorKey, Client, CollectionName, Error, ErrorCode};
use futures_util::StreamExt as _;

use super::agreement::{Agreement, Judge};
use super::args::{Changes, Collections, CollectionsCommand, Invite, PeersCommand, Session};
use super::documents::raw;
use super::failure::Failure;
use super::input;
use super::output::{Format, Output, facts, table};
use super::process::POLL_INTERVAL;

pub(super) async fn collections(client: &Client, args: Collections, output: &Output) -> Result<ExitCode, Failure> {
    match args.command {
        None => {
            let all = client.collections().await?;
            output.show(&all, || {
                let rows = all.iter().map(|info| {
                    let settings = &info.settings;
                    [info.name.to_string(), counted(info.documents), counted(info.bytes), settings.shards.to_string()]
                });
                table(["name", "documents", "bytes", "shards"], rows)
            })?;
        }
        Some(CollectionsCommand::Show { collection }) => show(&client.collection(&collection).await?, output)?,
        Some(CollectionsCommand::Set {
            collection,
            shards,
            types,
            audit_reads,
            schema,
            no_schema,
            expires,
            expires_after,
            no_expires,
            unique,
            no_unique,
        }) => {
            let types = types.iter().map(|text| field(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
            let now = settings_of(client, &collection).await?;
            let schema = match schema {
                Some(file) => Some(schema_in(&file)?),
                None => now.schema.filter(|_| !no_schema),
            };
            let expires = match expires {
                Some(field) => {
                    let after = expires_after.unwrap_or_default().as_secs();
                    let after =
                        u32::try_from(after).map_err(|_| Failure::usage("documents are kept 136 years at most"))?;
                    Some(Expires { field, after })
                }
                None => now.expires.filter(|_| !no_expires),
            };
            let unique = match unique.as_slice() {
                [] if no_unique => Vec::new(),
                [] => now.unique,
                // A comma in the name of a field can be told by REST only.
                given => given.iter().map(|fields| fields.split(',').map(str::to_owned).collect()).collect(),
            };
            // Indexes have a command of their own.
            let indexes = now.indexes;
            let settings = CollectionSettings { shards, types, audit_reads, indexes, schema, expires, unique };
            show(&client.configure(&collection, settings).await?, output)?;
        }
        Some(CollectionsCommand::Invalid { collection, limit }) => invalid(client, &collection, limit, output).await?,
        Some(CollectionsCommand::Duplicates { collection, limit }) => {
            duplicates(client, &collection, limit, output).await?;
        }
        Some(CollectionsCommand::Drop { collection, yes }) => {
            if !yes {
                return Err(Failure::usage(format!(
                    "dropping {collection} hides its documents everywhere; add --yes if that is meant"
                )));
            }
            client.drop_collection(&collection).await?;
            output.show(&serde_json::json!({ "dropped": collection }), || format!("dropped {collection}"))?;
        }
    }
    Ok(ExitCode::Done)
}

/// What is not told to those who do not see all of it.
fn counted(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// Returns the settings that a collection has.
pub(super) async fn settings_of(client: &Client, collection: &CollectionName) -> Result<CollectionSettings, Failure> {
    match client.collection(collection).await {
        Ok(info) => Ok(info.settings),
        Err(error) if error.code() == ErrorCode::CollectionNotFound => Ok(CollectionSettings::default()),
        Err(error) => Err(error.into()),
    }
}

fn schema_in(file: &Path) -> Result<serde_json::Value, Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("read {}: {error}", file.display()));
    let text = if file == Path::new("-") {
        std::io::read_to_string(input::standard_input("name a file with --schema")?).map_err(unreadable)?
    } else {
        std::fs::read_to_string(file).map_err(unreadable)?
    };
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{} is no JSON: {error}", file.display())))
}

/// Lists documents that do not meet the schema.
async fn invalid(client: &Client, name: &CollectionName, limit: usize, output: &Output) -> Result<(), Failure> {
    let mut query = InvalidQuery::default();
    let (mut rows, mut left, mut more) = (Vec::new(), limit, false);
    loop {
        query.limit = Some(left.clamp(1, InvalidQuery::LIMIT_MAX));
        let page = client.invalid(name, &query).await?;
        left = left.saturating_sub(page.items.len());
        for document in page.items {
            match output.format() {
                Format::Json => output.show(&document, String::new)?,
                Format::People => rows.extend(
                    document
                        .violations
                        .iter()
                        .map(|found| [document.id.to_string(), found.pointer.clone(), found.detail.clone()]),
                ),
            }
        }
        more |= page.next.is_some();
        if !page.complete {
            output.note("not all documents have been held against the schema yet");
        }
        match page.next.filter(|_| left > 0) {
            Some(next) => (query.after, more) = (Some(next), false),
            None => break,
        }
    }
    if output.format() == Format::People {
        let nothing = rows.is_empty();
        output.line(&if nothing { "none".to_owned() } else { table(["id", "place", "what is wrong"], rows) })?;
    }
    if more {
        output.note("there are more; --limit shows them");
    }
    Ok(())
}

/// Lists documents that share what no two are to share.
async fn duplicates(client: &Client, name: &CollectionName, limit: usize, output: &Output) -> Result<(), Failure> {
    let mut query = DuplicatesQuery::default();
    let (mut rows, mut left, mut more) = (Vec::new(), limit, false);
    loop {
        query.limit = Some(left.clamp(1, DuplicatesQuery::LIMIT_MAX));
        let page = client.duplicates(name, &query).await?;
        left = left.saturating_sub(page.items.len());
        for document in page.items {
            match output.format() {
                Format::Json => output.show(&document, String::new)?,
                Format::People => rows.extend(document.shares.iter().map(|shared| {
                    let fields: Vec<_> = shared.fields.iter().map(ToString::to_string).collect();
                    [document.id.to_string(), fields.join(", "), shared.winner.to_string()]
                })),
            }
        }
        more |= page.next.is_some();
        if !page.complete {
            output.note("not all documents have been held against the unique constraints yet");
        }
        match page.next.filter(|_| left > 0) {
            Some(next) => (query.after, more) = (Some(next), false),
            None => break,
        }
    }
    if output.format() == Format::People {
        let nothing = rows.is_empty();
        output.line(&if nothing { "none".to_owned() } else { table(["id", "shares", "with"], rows) })?;
    }
    if more {
        output.note("there are more; --limit shows them");
    }
    Ok(())
}

fn field(text: &str) -> Result<(String, FieldType), Failure> {
    let wrong = || Failure::usage(format!("{text:?} is not POINTER=TYPE, with text, counter, timestamp or bytes"));
    let (pointer, name) = text.rsplit_once('=').ok_or_else(wrong)?;
    let kind = serde_json::from_value(name.into()).map_err(|_| wrong())?;
    Ok((pointer.to_owned(), kind))
}

fn show(info: &CollectionInfo, output: &Output) -> Result<(), Failure> {
    output.show(info, || {
        let mut rows = vec![
            ("name", info.name.to_string()),
            ("documents", counted(info.documents)),
            ("bytes", counted(info.bytes)),
            ("shards", info.settings.shards.to_string()),
            ("audit reads", info.settings.audit_reads.to_string()),
        ];
        if let Some(schema) = &info.settings.schema {
            rows.push(("schema", schema.to_string()));
        }
        if let Some(Expires { field, after }) = &info.settings.expires {
            rows.push(("expires", format!("{field} + {after} s")));
        }
        rows.extend(info.schema_check.iter().map(|check| {
            let so_far = if check.complete { String::new() } else { format!(", {} looked at so far", check.seen) };
            ("invalid", format!("{}{so_far}", check.invalid))
        }));
        rows.extend(info.settings.unique.iter().map(|fields| ("unique", fields.join(", "))));
        rows.extend(info.unique_check.iter().map(|check| {
            let so_far = if check.complete { String::new() } else { format!(", {} looked at so far", check.seen) };
            ("duplicates", format!("{}{so_far}", check.duplicates))
        }));
        rows.extend(info.settings.types.iter().map(|(pointer, kind)| ("type", format!("{pointer} = {kind:?}"))));
        let indexes = info.settings.indexes.iter();
        rows.extend(indexes.map(|(name, index)| ("index", format!("{name} on {}", index.fields.join(", ")))));
        facts(&rows)
    })?;
    Ok(())
}

pub(super) async fn changes(client: &Client, args: Changes, output: &Output) -> Result<ExitCode, Failure> {
    let since = match args.since.as_deref() {
        None => Since::Beginning,
        Some("now") => Since::Now,
        Some(token) => Since::After(ChangeToken::new(token)?),
    };
    let content = if args.docs { ChangeContent::Documents } else { ChangeContent::Names };
    let query = ChangesQuery {
        collection: args.collection,
        prefix: args.prefix,
        selector: args.selector.unwrap_or_default(),
        since,
        limit: None,
        wait: Duration::ZERO,
        content,
    };
    let mut left = args.limit.unwrap_or(usize::MAX);
    if args.follow {
        let mut stream = client.subscribe(query);
        while left > 0 {
            let Some(change) = stream.next().await else { break };
            print(&change?, output)?;
            left -= 1;
        }
        return Ok(ExitCode::Done);
    }
    let mut query = ChangesQuery { limit: Some(ChangesQuery::LIMIT_MAX), ..query };
    while left > 0 {
        let page = client.changes(&query).await?;
        for change in page.items.iter().take(left) {
            print(change, output)?;
        }
        left = left.saturating_sub(page.items.len());
        if !page.more {
            output.note(&format!("go on with --since {}", page.next));
            break;
        }
        query.since = Since::After(page.next);
    }
    Ok(ExitCode::Done)
}

/// A change beside the document, as programs get it.
#[derive(serde::Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    meta: ChangeMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    doc: Option<&'a serde_json::value::RawValue>,
}

fn print(change: &Change, output: &Output) -> Result<(), Failure> {
    let doc = change.json.as_deref().map(raw).transpose()?;
    let shown = Shown { meta: ChangeMeta::from(change), doc };
    output.show(&shown, || {
        let kind = match change.kind {
            ChangeKind::Changed => "changed",
            ChangeKind::Deleted => "deleted",
            ChangeKind::Erased => "erased",
            ChangeKind::Revised => "revised",
        };
        let doc = doc.map(|doc| format!("  {doc}")).unwrap_or_default();
        format!("{}  {kind}  {}/{}{doc}", change.modified, change.collection, change.id)
    })?;
    Ok(())
}

pub(super) async fn session(
    client: &Client,
    args: Session,
    seen: Option<&SessionToken>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let Session { collection, id, timeout } = args;
    let touched = Touched { collection, id };
    if let Some(seen) = seen {
        client.catch_up(&touched, seen, timeout).await?;
    }
    let session = client.session(&touched, seen).await?;
    output.show(&SessionAnswer { session: session.clone() }, || session.to_string())?;
    Ok(ExitCode::Done)
}

pub(super) async fn status(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let status = client.status().await?;
    output.show(&status, || {
        let ready = if status.readiness.ready {
            "yes".to_owned()
        } else {
            format!("no: {}", status.readiness.reasons.join("; "))
        };
        let mut rows = vec![
            ("node", status.node.to_string()),
            ("cluster", format!("{} ({})", status.cluster_name, status.cluster)),
            ("version", status.version.clone()),
            ("started", status.started.to_string()),
            ("ready", ready),
            ("store", format!("{:?}, {} bytes", status.store, status.store_bytes).to_lowercase()),
            ("collections", status.collections.to_string()),
            ("documents", status.documents.to_string()),
            ("ops", status.ops.to_string()),
            ("ops to apply", status.ops_unapplied.to_string()),
            ("ops that wait", status.ops_deferred.to_string()),
            ("quarantined", status.quarantined.to_string()),
            ("peers", peers_text(&status)),
        ];
        if status.recovery_unconfirmed {
            let nag = "lies in the data directory: put it away, then run `folkmoot key confirm-recovery`";
            rows.push(("recovery key", nag.to_owned()));
        }
        if status.approvals_waiting > 0 {
            let text = format!("{} wait for further owners: `folkmoot approvals` lists them", status.approvals_waiting);
            rows.push(("approvals", text));
        }
        if status.passwords_exposed > 0 {
            let text = format!(
                "{} can be guessed at by a node that acts for users no longer: `folkmoot user list` marks whose, have them changed",
                status.passwords_exposed
            );
            rows.push(("passwords", text));
        }
        rows.extend(status.p2p.iter().map(|address| ("p2p", address.clone())));
        rows.extend(status.bootstraps.iter().map(|bootstrap| ("bootstrap", bootstrap_text(bootstrap))));
        rows.extend(status.last_bootstrap.iter().map(|last| ("last bootstrap", last_bootstrap_text(last))));
        facts(&rows)
    })?;
    Ok(ExitCode::Done)
}

fn bootstrap_text(bootstrap: &Bootstrap) -> String {
    let Bootstrap { collection, shard, of, documents, documents_total, bytes, percent, .. } = bootstrap;
    let givers = if bootstrap.asked.is_empty() { &bootstrap.givers } else { &bootstrap.asked };
    let givers = members(givers);
    match bootstrap.stage {
        BootstrapStage::Documents => format!(
            "{collection}/{shard}of{of} from {givers}: {documents} of {documents_total} documents ({percent:.0} %), {bytes} \
             bytes, {:.0} documents/s",
            bootstrap.documents_per_second
        ),
        BootstrapStage::Ops => format!(
            "{collection}/{shard}of{of} from {givers}: {documents} documents are here, {} ops known to be missing",
            bootstrap.ops_missing
        ),
    }
}

fn last_bootstrap_text(last: &LastBootstrap) -> String {
    let LastBootstrap { collection, shard, of, documents, bytes, finished, .. } = last;
    let seconds = Duration::from_millis(finished.millis().saturating_sub(last.started.millis())).as_secs_f64();
    let refuted = match last.documents_false {
        0 => String::new(),
        count => format!("; {count} of them were not what the ops make"),
    };
    let givers = members(&last.givers);
    format!(
        "{finished}: {collection}/{shard}of{of} from {givers}, {documents} documents, {bytes} bytes in {seconds:.1} s{refuted}"
    )
}

fn members(keys: &[AuthorKey]) -> String {
    match keys {
        [] => "nobody yet".to_owned(),
        keys => keys.iter().map(AuthorKey::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn peers_text(status: &folkmoot::api::Status) -> String {
    let banned = if status.peers_banned > 0 { format!(", {} banned", status.peers_banned) } else { String::new() };
    format!("{} connected, {} members with this node{banned}", status.peers_connected, status.members)
}

/// What is known against a peer: why it is banned and until when, or its score.
fn conduct_text(conduct: &folkmoot::api::Conduct) -> String {
    match (&conduct.last, &conduct.banned_until) {
        (Some(last), Some(until)) => format!("banned until {until}: {last}"),
        (Some(last), None) if conduct.score > 0 => format!("{} of 100: {last}", conduct.score),
        (Some(last), None) if conduct.bans > 0 => format!("was banned: {last}"),
        (Some(_) | None, _) => String::new(),
    }
}

pub(super) async fn peers(
    client: &Client,
    command: Option<PeersCommand>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let (node, rule) = match command {
        Some(PeersCommand::Block { node }) => (node, LinkRule::Blocked),
        Some(PeersCommand::Unblock { node }) => (node, LinkRule::Open),
        None => {
            let peers = client.peers().await?;
            output.show(&peers, || {
                let number = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
                let rows = peers.iter().map(|peer| {
                    [
                        peer.node.to_string(),
                        peer.state.name().to_owned(),
                        number(peer.ops_behind),
                        number(peer.ops_ahead),
                        peer.in_sync.map(|time| time.to_string()).unwrap_or_default(),
                        peer.rtt_ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default(),
                        conduct_text(&peer.conduct),
                    ]
                });
                table(["node", "state", "behind", "ahead", "in sync", "rtt", "conduct"], rows)
            })?;
            return Ok(ExitCode::Done);
        }
    };
    client.set_link(&node, rule).await?;
    output.show(&serde_json::json!({ "node": node, "link": rule }), || format!("{rule:?} {node}").to_lowercase())?;
    Ok(ExitCode::Done)
}

pub(super) async fn digests(client: &Client, other: Option<Client>, output: &Output) -> Result<ExitCode, Failure> {
    let Some(other) = other else {
        let ours = client.digests().await?;
        output.show(&ours, || {
            let rows = ours.iter().map(|digest| {
                let shard = format!("{}/{}of{}", digest.collection, digest.shard, digest.of);
                let state = digest.state_digest.chars().take(16).collect();
                [shard, digest.documents.to_string(), digest.ops.to_string(), digest.ops_unapplied.to_string(), state]
            });
            table(["shard", "documents", "ops", "to apply", "state"], rows)
        })?;
        return Ok(ExitCode::Done);
    };
    let mut judge = Judge::default();
    let agreement = loop {
        let (ours, theirs) = tokio::try_join!(client.digests(), other.digests())?;
        let agreement = judge.judge(&[ours, theirs]);
        if !judge.is_in_doubt() || agreement == Agreement::Diverged {
            break agreement;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    let (word, code) = match agreement {
        Agreement::Equal => ("equal", ExitCode::Done),
        Agreement::NotYet => ("not yet equal: one holds ops that the other lacks or has not applied", ExitCode::Failed),
        Agreement::Diverged => ("diverged: the same ops, other contents", ExitCode::Diverged),
    };
    output.show(&serde_json::json!({ "result": word.split(':').next() }), || word.to_owned())?;
    Ok(code)
}

pub(super) async fn quarantine(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let mut query = QuarantineQuery { limit: Some(QuarantineQuery::LIMIT_MAX), ..QuarantineQuery::default() };
    let mut rows = Vec::new();
    loop {
        let page = client.quarantine(&query).await?;
        for item in page.items {
            output.show_if_json(&item)?;
            rows.push([
                format!("{}#{}", item.op, item.transaction),
                item.collection.to_string(),
                item.verdict,
                item.reason,
                item.made.to_string(),
            ]);
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    output.people(|| {
        if rows.is_empty() {
            return "nothing is quarantined".to_owned();
        }
        table(["op", "collection", "verdict", "reason", "made"], rows)
    })?;
    Ok(ExitCode::Done)
}

pub(super) async fn verify(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    show_report(&client.verify().await?, output)
}

/// Shows what a check found; returns how the program ends for it.
pub(super) fn show_report(report: &VerifyReport, output: &Output) -> Result<ExitCode, Failure> {
    output.show(report, || {
        let mut text = format!(
            "checked {} streams, {} ops and {} documents in {} ms",
            report.streams, report.ops, report.documents, report.elapsed_ms
        );
        if report.damage_total > 0 {
            text.push_str(&format!("\n{} damaged:\n", report.damage_total));
            let rows = report.damage.iter().map(|d| [d.what.clone(), d.place.clone(), d.detail.clone()]);
            text.push_str(&table(["what", "place", "detail"], rows));
        } else {
            text.push_str("\nno damage");
        }
        text
    })?;
    Ok(if report.damage_total > 0 { ExitCode::Damaged } else { ExitCode::Done })
}

pub(super) async fn invite(client: &Client, args: Invite, output: &Output) -> Result<ExitCode, Failure> {
    if args.expires.is_zero() {
        return Err(Error::new(ErrorCode::InvalidParameter, "a ticket is good for longer than nothing").into());
    }
    let Invite { expires, uses, role, device_of } = args;
    let invite = client.invite(&InviteOptions { expires, uses, role, device_of }).await?;
    output.show(&invite, || invite.ticket.clone())?;
    output.note(&format!(
        "good until {} for {} node(s); it is a secret. On the other machine: folkmoot join TICKET --data DIR",
        invite.expires, invite.uses
    ));
    Ok(ExitCode::Done)
}
