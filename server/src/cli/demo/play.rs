//! The demo from its first process to its last check.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use folkmoot::api::{BulkOp, BulkOptions, Conflict, Database as _, Edit, LinkRule, ReadOptions, WriteStatus};
use folkmoot::{Client, CollectionName, DocId, Error, ErrorCode};
use futures_util::future::{try_join, try_join_all};
use serde_json::Value;

use super::Half;
use super::cases::{Case, Kind, Seen, geoname};
use super::cluster::{Cluster, DemoNode};
use super::data::{City, Edited, cities, random_edit};
use super::paper::{Ink, Paper, count, rate, span};
use super::report::{ConflictCount, NodeReport, Report, Timings};
use super::settling::{connected, digests, documents, ops, settle};
use crate::cli::agreement::{Agreement, compare};
use crate::cli::args::Demo;
use crate::cli::failure::Failure;
use crate::cli::random::Random;

/// Documents sent at once.
const IMPORT_BATCH: usize = 250;
/// Random edits sent at once: small, so that both halves and their nodes take turns.
const EDIT_BATCH: usize = 25;
/// The random edits go to a part of the documents, so that many of them meet.
const POOL_PART: usize = 20;
/// That part is not smaller than this, if there are so many.
const POOL_MIN: usize = 150;

/// Plays the demo and returns what was found.
pub(super) async fn play(args: &Demo, paper: &Paper<'_>, cluster: &mut Cluster) -> Result<Report, Failure> {
    let collection: CollectionName = "cities".parse()?;
    let cities = cities(args.documents)?;
    let imported = cities.len() as u64;
    let seed = match args.seed {
        Some(seed) => seed,
        None => fresh_seed()?,
    };
    let title = format!("Folkmoot: {} nodes, {} documents, one partition", args.nodes, count(imported));
    paper.line("")?;
    paper.line(&format!("  {}", paper.ink(Ink::Strong, &title)))?;
    paper.line("")?;
    let mut timings = Timings { start: start(args, paper, cluster).await?, ..Timings::default() };
    let cluster = &*cluster;
    let play = Play { paper, cluster, collection };
    timings.import = play.import(&cities).await?;
    timings.replication = play.replicate(imported).await?;
    let ids = Kind::ALL.map(|kind| geoname(kind).parse::<DocId>().map(|id| (kind, id)));
    let ids = ids.into_iter().collect::<Result<Vec<_>, _>>()?;
    play.prepare(&ids).await?;
    let before = play.documents(cluster.first_of(Half::Left)?, &ids).await?;

    timings.partition = play.cut().await?;
    let started = Instant::now();
    let rest: Vec<DocId> =
        cities.iter().map(|city| city.id.clone()).filter(|id| !ids.iter().any(|c| c.1 == *id)).collect();
    let edited = play.edit(&ids, &rest, args.edits, seed).await?;
    timings.edits = started.elapsed();
    let (left, right) = play.two_states(&ids).await?;
    let both = play.tell_edits(ids.len(), &edited, timings.edits)?;

    let (agreement, held, reconnect, convergence) = play.heal().await?;
    timings.reconnect = reconnect;
    timings.convergence = convergence;
    let equal = agreement == Agreement::Equal;
    let text = if equal { "healed: all nodes hold the same" } else { "healed, but the contents differ" };
    paper.marked(equal, text, &format!("{}  (links {})", span(convergence), span(reconnect)))?;

    let (cases, conflicts) = play.judge(&ids, [&before, &left, &right], &edited).await?;
    let started = Instant::now();
    let bar = paper.progress("checking every chain, signature and view", None);
    let checks = try_join_all(cluster.nodes().iter().map(|node| node.client.verify())).await?;
    bar.finish_and_clear();
    timings.verify = started.elapsed();
    let nodes = cluster.nodes().iter().zip(&held).zip(checks).map(|((node, held), check)| NodeReport {
        name: node.name.clone(),
        half: node.half,
        node: node.key,
        documents: documents(held),
        ops: ops(held),
        digests: held.clone(),
        verify: check,
    });
    Ok(Report {
        agreement,
        imported,
        seed,
        nodes: nodes.collect(),
        timings,
        left: edited[0].clone(),
        right: edited[1].clone(),
        edited_on_both_sides: both,
        cases,
        conflicts,
    })
}

fn fresh_seed() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::new(ErrorCode::Internal, format!("get randomness: {error}")))
}

/// Starts the nodes one after the other and waits until each is connected with each.
async fn start(args: &Demo, paper: &Paper<'_>, cluster: &mut Cluster) -> Result<Duration, Failure> {
    let started = Instant::now();
    let nodes = usize::from(args.nodes);
    let bar = paper.progress("starting nodes", Some(nodes as u64));
    for index in 0..nodes {
        let half = if index < nodes.div_ceil(2) { Half::Left } else { Half::Right };
        cluster.start(half).await?;
        bar.inc(1);
    }
    connected(cluster, |_| nodes - 1).await?;
    bar.finish_and_clear();
    let took = started.elapsed();
    paper.step(&format!("{nodes} processes started; all joined and connected"), &span(took))?;
    for node in cluster.nodes() {
        let key: String = node.key.to_string().chars().take(16).collect();
        paper.line(&paper.ink(Ink::Faint, &format!("      {}  {}  key {key}…", node.name, node.url)))?;
    }
    Ok(took)
}

struct Play<'a> {
    paper: &'a Paper<'a>,
    cluster: &'a Cluster,
    collection: CollectionName,
}

impl Play<'_> {
    fn half(&self, half: Half) -> impl Iterator<Item = &DemoNode> {
        self.cluster.nodes().iter().filter(move |node| node.half == half)
    }

    async fn import(&self, cities: &[City]) -> Result<Duration, Failure> {
        let node = self.cluster.first_of(Half::Left)?;
        let bar = self.paper.progress(&format!("importing on {}", node.name), Some(cities.len() as u64));
        let started = Instant::now();
        for batch in cities.chunks(IMPORT_BATCH) {
            let edits = batch.iter().map(City::put).collect();
            self.all_made(&node.client, edits).await?;
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        let took = started.elapsed();
        let number = cities.len() as u64;
        let text = format!("{} documents imported on {}, each one durable", count(number), node.name);
        self.paper.step(&text, &format!("{}  {} documents/s", span(took), count(rate(number, took))))?;
        Ok(took)
    }

    /// Makes edits that must all succeed.
    async fn all_made(&self, client: &Client, edits: Vec<BulkOp>) -> Result<(), Error> {
        for outcome in client.bulk(&self.collection, edits, &BulkOptions::default()).await? {
            outcome?;
        }
        Ok(())
    }

    async fn replicate(&self, imported: u64) -> Result<Duration, Failure> {
        let bar = self.paper.progress("replicating", Some(imported));
        let started = Instant::now();
        let (agreement, held) = settle(
            self.cluster,
            |_| true,
            |seen| {
                bar.set_position(seen.iter().map(|held| documents(held)).min().unwrap_or_default());
            },
        )
        .await?;
        bar.finish_and_clear();
        let took = started.elapsed();
        let whole = agreement == Agreement::Equal && held.iter().all(|held| documents(held) == imported);
        if !whole {
            return Err(Error::new(ErrorCode::Diverged, "the nodes hold different documents after the import").into());
        }
        self.paper.step("all nodes hold all of them, with equal digests", &format!("{} later", span(took)))?;
        Ok(took)
    }

    /// Makes the documents of the cases ready and waits until all nodes have them so.
    async fn prepare(&self, ids: &[(Kind, DocId)]) -> Result<(), Failure> {
        let edits = ids.iter().filter_map(|(kind, id)| kind.preparation(id)).collect();
        self.all_made(&self.cluster.first_of(Half::Left)?.client, edits).await?;
        settle(self.cluster, |_| true, |_| {}).await?;
        Ok(())
    }

    async fn documents(&self, node: &DemoNode, ids: &[(Kind, DocId)]) -> Result<Vec<Seen>, Error> {
        try_join_all(ids.iter().map(|(_, id)| async move {
            match node.client.get(&self.collection, id, &ReadOptions::default()).await {
                Ok(document) => serde_json::from_slice(&document.json).map(Some).map_err(|error| {
                    Error::new(ErrorCode::InvalidAnswer, format!("document {id} is no JSON: {error}"))
                }),
                Err(error) if error.code() == ErrorCode::DocumentNotFound => Ok(None),
                Err(error) => Err(error),
            }
        }))
        .await
    }

    /// Sets the rule of every link between the halves, at both ends.
    async fn set_links(&self, rule: LinkRule) -> Result<(), Error> {
        for left in self.half(Half::Left) {
            for right in self.half(Half::Right) {
                try_join(left.client.set_link(&right.key, rule), right.client.set_link(&left.key, rule)).await?;
            }
        }
        Ok(())
    }

    async fn cut(&self) -> Result<Duration, Failure> {
        let started = Instant::now();
        self.set_links(LinkRule::Blocked).await?;
        connected(self.cluster, |node| self.half(node.half).count() - 1).await?;
        let took = started.elapsed();
        let names = |half, ink| {
            let names: Vec<_> = self.half(half).map(|node| node.name.clone()).collect();
            self.paper.ink(ink, &names.join(", "))
        };
        self.paper.step("all links between two halves cut", &span(took))?;
        let (left, right) = (names(Half::Left, Ink::Left), names(Half::Right, Ink::Right));
        self.paper.line(&format!("      left: {left}   ✂   right: {right}"))?;
        Ok(took)
    }

    /// Edits both halves at once: the cases, and at random.
    async fn edit(
        &self,
        ids: &[(Kind, DocId)],
        rest: &[DocId],
        edits: usize,
        seed: u64,
    ) -> Result<[Edited; 2], Failure> {
        let left = ids.iter().map(|(kind, id)| kind.left(id)).collect();
        let right = ids.iter().filter_map(|(kind, id)| kind.right(id)).collect();
        let pool = rest.get(..(rest.len() / POOL_PART).max(POOL_MIN).min(rest.len())).unwrap_or_default();
        let bar = self.paper.progress("editing both halves", None);
        let (left, right) = try_join(
            self.edit_half(Half::Left, left, pool, edits, seed),
            self.edit_half(Half::Right, right, pool, edits, seed.wrapping_add(1)),
        )
        .await?;
        bar.finish_and_clear();
        Ok([left, right])
    }

    async fn edit_half(
        &self,
        half: Half,
        cases: Vec<BulkOp>,
        pool: &[DocId],
        edits: usize,
        seed: u64,
    ) -> Result<Edited, Error> {
        self.all_made(&self.cluster.first_of(half)?.client, cases).await?;
        let mut random = Random::new(seed);
        let mut edited = Edited::default();
        let nodes: Vec<_> = self.half(half).collect();
        let (mut left, mut turn) = (edits, 0);
        while left > 0 && !nodes.is_empty() {
            let Some(node) = nodes.get(turn % nodes.len()) else { break };
            turn += 1;
            let batch: Vec<_> =
                (0..left.min(EDIT_BATCH)).filter_map(|_| random_edit(&mut random, pool, &node.name)).collect();
            left -= left.min(EDIT_BATCH);
            let targets: Vec<_> = batch.iter().map(|op| op.edit.id().cloned()).collect();
            let deletes: Vec<_> = batch.iter().map(|op| matches!(op.edit, Edit::Delete { .. })).collect();
            let outcomes = node.client.bulk(&self.collection, batch, &BulkOptions::default()).await?;
            for ((outcome, id), is_delete) in outcomes.into_iter().zip(targets).zip(deletes) {
                match outcome {
                    Ok(outcome) if outcome.status == WriteStatus::Unchanged => {}
                    Ok(_) => {
                        edited.edits += 1;
                        edited.deletes += u64::from(is_delete);
                        edited.documents.extend(id);
                    }
                    Err(error) if error.code() == ErrorCode::DocumentNotFound => edited.too_late += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(edited)
    }

    /// Waits until each half agrees within itself, and makes sure that the halves differ: else nothing was cut.
    async fn two_states(&self, ids: &[(Kind, DocId)]) -> Result<(Vec<Seen>, Vec<Seen>), Failure> {
        let mut held = Vec::new();
        for half in Half::BOTH {
            let (_, mut digests) = settle(self.cluster, |node| node.half == half, |_| {}).await?;
            held.extend(digests.pop());
        }
        if compare(&held) == Agreement::Equal {
            return Err(Error::new(ErrorCode::Internal, "the halves hold the same although they are cut off").into());
        }
        let [left, right] = Half::BOTH.map(|half| self.cluster.first_of(half));
        Ok(try_join(self.documents(left?, ids), self.documents(right?, ids)).await?)
    }

    /// Tells of the edits; returns how many documents were edited in both halves.
    fn tell_edits(&self, cases: usize, [left, right]: &[Edited; 2], took: Duration) -> Result<u64, Failure> {
        let edits = count(left.edits + right.edits);
        self.paper.step(&format!("both halves edited: {cases} cases, {edits} edits at random"), &span(took))?;
        let both = left.documents.intersection(&right.documents).count() as u64;
        let text = format!(
            "      {} documents edited in both halves, {} deletes; the halves differ now, as they must",
            count(both),
            count(left.deletes + right.deletes)
        );
        self.paper.line(&self.paper.ink(Ink::Faint, &text))?;
        Ok(both)
    }

    /// Lets traffic through again; returns how the nodes agreed and how long links and contents took.
    async fn heal(&self) -> Result<(Agreement, Vec<Vec<folkmoot::api::ShardDigest>>, Duration, Duration), Failure> {
        let bar = self.paper.progress("healing", None);
        let started = Instant::now();
        self.set_links(LinkRule::Open).await?;
        let all = self.cluster.nodes().len() - 1;
        let links = async {
            connected(self.cluster, |_| all).await?;
            Ok::<_, Error>(started.elapsed())
        };
        let contents = async {
            let (agreement, _) = settle(self.cluster, |_| true, |_| {}).await?;
            Ok((agreement, started.elapsed()))
        };
        let (reconnect, (agreement, convergence)) = try_join(links, contents).await?;
        bar.finish_and_clear();
        let held = digests(&self.cluster.nodes().iter().collect::<Vec<_>>()).await?;
        Ok((agreement, held, reconnect, convergence))
    }

    /// Looks at the documents of the cases on every node, and at conflicts on one.
    async fn judge(
        &self,
        ids: &[(Kind, DocId)],
        [before, left, right]: [&[Seen]; 3],
        edited: &[Edited; 2],
    ) -> Result<(Vec<Case>, ConflictCount), Failure> {
        let nodes = self.cluster.nodes();
        let merged = try_join_all(nodes.iter().map(|node| self.documents(node, ids))).await?;
        let at = |seen: &[Seen], index: usize| -> Seen { seen.get(index).cloned().flatten() };
        let mut cases = Vec::new();
        let mut counted = ConflictCount::default();
        for (index, (kind, id)) in ids.iter().enumerate() {
            let stages = [at(before, index), at(left, index), at(right, index)];
            let merged: Vec<Seen> = merged.iter().map(|seen| at(seen, index)).collect();
            let mut listed: BTreeMap<String, Vec<Conflict>> = BTreeMap::new();
            for node in nodes {
                listed.insert(node.name.clone(), self.conflicts(&node.client, id).await?);
            }
            let conflicts = listed.values().next().cloned().unwrap_or_default();
            let mut case = Case::judge(*kind, id.clone(), stages, &merged, &conflicts);
            if listed.values().any(|other| *other != conflicts) {
                case.faults.push("nodes list different conflicts".to_owned());
            }
            counted.add(id, &case.name, &conflicts);
            cases.push(case);
        }
        let bar = self.paper.progress("listing conflicts", None);
        let client = &self.cluster.first_of(Half::Right)?.client;
        let both: BTreeSet<&DocId> = edited[0].documents.intersection(&edited[1].documents).collect();
        for id in both {
            let conflicts = self.conflicts(client, id).await?;
            if !conflicts.is_empty() {
                counted.add(id, &self.name(client, id).await?, &conflicts);
            }
        }
        bar.finish_and_clear();
        Ok((cases, counted))
    }

    async fn name(&self, client: &Client, id: &DocId) -> Result<String, Error> {
        let document = client.get(&self.collection, id, &ReadOptions::default()).await?;
        let value: Value = serde_json::from_slice(&document.json).unwrap_or_default();
        Ok(value["name"].as_str().unwrap_or(id.as_str()).to_owned())
    }

    /// A document that does not exist has no conflicts.
    async fn conflicts(&self, client: &Client, id: &DocId) -> Result<Vec<Conflict>, Error> {
        match client.conflicts(&self.collection, id).await {
            Err(error) if error.code() == ErrorCode::DocumentNotFound => Ok(Vec::new()),
            other => other,
        }
    }
}
