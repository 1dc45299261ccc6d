//! What a demo found, for programs and for people.

use std::io;
use std::time::Duration;

use folkmoot::api::{Conflict, ExitCode, ShardDigest, VerifyReport};
use folkmoot::{AuthorKey, DocId};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Half;
use super::cases::{Case, Seen};
use super::data::Edited;
use super::paper::{Ink, Paper, count, span};
use crate::cli::agreement::Agreement;

/// Conflicts that are listed; their number says the rest.
const CONFLICTS_SHOWN: usize = 5;
/// Characters of a digest that are shown.
const DIGEST_CHARS: usize = 16;

/// How long the parts took; in JSON in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Timings {
    #[serde(rename = "start_ms", serialize_with = "millis")]
    pub(super) start: Duration,
    #[serde(rename = "import_ms", serialize_with = "millis")]
    pub(super) import: Duration,
    /// From the end of the import until all nodes hold all.
    #[serde(rename = "replication_ms", serialize_with = "millis")]
    pub(super) replication: Duration,
    #[serde(rename = "partition_ms", serialize_with = "millis")]
    pub(super) partition: Duration,
    #[serde(rename = "edits_ms", serialize_with = "millis")]
    pub(super) edits: Duration,
    /// From healing until each node is connected with each.
    #[serde(rename = "reconnect_ms", serialize_with = "millis")]
    pub(super) reconnect: Duration,
    /// From healing until all nodes hold the same.
    #[serde(rename = "convergence_ms", serialize_with = "millis")]
    pub(super) convergence: Duration,
    #[serde(rename = "verify_ms", serialize_with = "millis")]
    pub(super) verify: Duration,
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// What a node holds at the end.
#[derive(Debug, Serialize)]
pub(super) struct NodeReport {
    pub(super) name: String,
    pub(super) half: Half,
    pub(super) node: AuthorKey,
    pub(super) documents: u64,
    pub(super) ops: u64,
    pub(super) digests: Vec<ShardDigest>,
    pub(super) verify: VerifyReport,
}

/// A document with conflicts.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    document: DocId,
    name: String,
    conflicts: Vec<Conflict>,
}

/// The conflicts of the documents that both halves edited.
#[derive(Debug, Default, Serialize)]
pub(super) struct ConflictCount {
    documents: u64,
    places: u64,
    listed: Vec<Listed>,
}

impl ConflictCount {
    pub(super) fn add(&mut self, id: &DocId, name: &str, conflicts: &[Conflict]) {
        if conflicts.is_empty() {
            return;
        }
        self.documents += 1;
        self.places += conflicts.len() as u64;
        if self.listed.len() < CONFLICTS_SHOWN {
            self.listed.push(Listed { document: id.clone(), name: name.to_owned(), conflicts: conflicts.to_vec() });
        }
    }
}

/// What a demo found.
pub(super) struct Report {
    pub(super) agreement: Agreement,
    pub(super) imported: u64,
    pub(super) seed: u64,
    pub(super) nodes: Vec<NodeReport>,
    pub(super) timings: Timings,
    pub(super) left: Edited,
    pub(super) right: Edited,
    pub(super) edited_on_both_sides: u64,
    pub(super) cases: Vec<Case>,
    pub(super) conflicts: ConflictCount,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            passed: bool,
            digests_equal: bool,
            exit_code: u8,
            imported: u64,
            seed: u64,
            timings: &'a Timings,
            nodes: &'a [NodeReport],
            cases: &'a [Case],
            random_edits: [(Half, &'a Edited); 2],
            edited_on_both_sides: u64,
            conflicts: &'a ConflictCount,
        }
        let code = self.exit_code();
        Shape {
            passed: code == ExitCode::Done,
            digests_equal: self.agreement == Agreement::Equal,
            exit_code: code.number(),
            imported: self.imported,
            seed: self.seed,
            timings: &self.timings,
            nodes: &self.nodes,
            cases: &self.cases,
            random_edits: [(Half::Left, &self.left), (Half::Right, &self.right)],
            edited_on_both_sides: self.edited_on_both_sides,
            conflicts: &self.conflicts,
        }
        .serialize(serializer)
    }
}

impl Report {
    /// Returns how the program ends for it: damage first, for it may be why the rest is as it is.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.damage() > 0 {
            ExitCode::Damaged
        } else if self.agreement != Agreement::Equal {
            ExitCode::Diverged
        } else if self.cases.iter().any(|case| !case.faults.is_empty()) {
            ExitCode::Failed
        } else {
            ExitCode::Done
        }
    }

    fn damage(&self) -> u64 {
        self.nodes.iter().map(|node| node.verify.damage_total).sum()
    }

    /// Prints it for people.
    pub(super) fn print(&self, paper: &Paper<'_>) -> io::Result<()> {
        self.print_cases(paper)?;
        self.print_conflicts(paper)?;
        self.print_nodes(paper)?;
        paper.line("")?;
        let (ink, word) = match self.exit_code() {
            ExitCode::Done => {
                (Ink::Good, "Everything holds: the nodes converged, nothing was lost, nothing is damaged.")
            }
            ExitCode::Diverged => (Ink::Bad, "DIVERGED: nodes hold the same ops and show different contents."),
            ExitCode::Damaged => (Ink::Bad, "DAMAGED: a check found broken data."),
            _ => (Ink::Bad, "FAILED: a merge did not come out as it should."),
        };
        paper.line(&format!("  {}", paper.ink(ink, word)))?;
        paper.line("")
    }

    fn print_cases(&self, paper: &Paper<'_>) -> io::Result<()> {
        paper.heading("What became of concurrent edits")?;
        let columns = [
            ("case", 19, Ink::Plain),
            ("before", 15, Ink::Faint),
            ("left half", 17, Ink::Left),
            ("right half", 17, Ink::Right),
            ("now, everywhere", 18, Ink::Strong),
        ];
        let mut rows = Vec::new();
        for case in &self.cases {
            let title = format!("{}\n{}\n{}", case.kind.title(), case.name, case.kind.meaning());
            rows.push([title, members(&case.before), members(&case.left), members(&case.right), members(&case.merged)]);
            rows.push([" "; 5].map(str::to_owned));
        }
        rows.pop();
        paper.table(columns, rows)?;
        for case in &self.cases {
            for fault in &case.faults {
                paper.marked(false, &format!("{} ({}): {fault}", case.kind.title(), case.name), "")?;
            }
        }
        Ok(())
    }

    fn print_conflicts(&self, paper: &Paper<'_>) -> io::Result<()> {
        let ConflictCount { documents, places, listed } = &self.conflicts;
        paper.heading(&format!("Conflicts: {} places in {} documents", count(*places), count(*documents)))?;
        let columns = [
            ("document", 24, Ink::Plain),
            ("place", 18, Ink::Plain),
            ("shown", 22, Ink::Strong),
            ("kept too", 22, Ink::Faint),
        ];
        let rows = listed.iter().filter_map(|listed| {
            let Conflict { pointer, values } = listed.conflicts.first()?;
            let mut values = values.iter().map(|value| plain(&value.value));
            let shown = values.next()?;
            Some([listed.name.clone(), pointer.clone(), shown, values.collect::<Vec<_>>().join("\n")])
        });
        paper.table(columns, rows)?;
        let listed = listed.len() as u64;
        if *documents > listed {
            paper.line(&paper.ink(Ink::Faint, &format!("    … and {} documents more", count(documents - listed))))?;
        }
        Ok(())
    }

    fn print_nodes(&self, paper: &Paper<'_>) -> io::Result<()> {
        paper.heading("What the nodes hold")?;
        let columns = [
            ("node", 8, Ink::Plain),
            ("half", 5, Ink::Plain),
            ("documents", 9, Ink::Plain),
            ("ops", 7, Ink::Plain),
            ("ops digest", DIGEST_CHARS, Ink::Plain),
            ("state digest", DIGEST_CHARS, Ink::Strong),
            ("damage", 6, Ink::Plain),
        ];
        let digest = |node: &NodeReport, text: fn(&ShardDigest) -> &str| {
            let cut = |shard| text(shard).chars().take(DIGEST_CHARS).collect::<String>();
            // The control log is compared like the rest, but has no documents to show a digest of.
            node.digests.iter().filter(|shard| shard.documents > 0).map(cut).collect::<Vec<_>>().join("\n")
        };
        let rows = self.nodes.iter().map(|node| {
            let damage = match node.verify.damage_total {
                0 => "none".to_owned(),
                some => count(some),
            };
            [
                node.name.clone(),
                node.half.name().to_owned(),
                format!("{:>9}", count(node.documents)),
                format!("{:>7}", count(node.ops)),
                digest(node, |shard| &shard.ops_digest),
                digest(node, |shard| &shard.state_digest),
                damage,
            ]
        });
        paper.table(columns, rows)?;
        paper.line("")?;
        paper.marked(
            self.agreement == Agreement::Equal,
            match self.agreement {
                Agreement::Equal => "the digests are equal on all nodes, those of the control log too",
                Agreement::NotYet | Agreement::Diverged => "the digests differ",
            },
            "",
        )?;
        let [ops, documents] = [|check: &VerifyReport| check.ops, |check: &VerifyReport| check.documents]
            .map(|number| count(self.nodes.iter().map(|node| number(&node.verify)).sum()));
        let text = format!("every node verified: {ops} ops, {documents} documents");
        paper.marked(self.damage() == 0, &text, &span(self.timings.verify))?;
        for node in &self.nodes {
            for damage in node.verify.damage.iter().take(CONFLICTS_SHOWN) {
                paper.marked(
                    false,
                    &format!("{}: {} {}: {}", node.name, damage.what, damage.place, damage.detail),
                    "",
                )?;
            }
        }
        Ok(())
    }
}

/// Returns a text as it is and other values as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), count),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Returns the members of a document, one below the other.
fn members(seen: &Seen) -> String {
    match seen {
        None => "(deleted)".to_owned(),
        Some(Value::Object(members)) => {
            let mut lines = members.iter().map(|(name, value)| match members.len() {
                1 => plain(value),
                _ => format!("{name} {}", plain(value)),
            });
            let first = lines.next().unwrap_or_default();
            lines.fold(first, |text, line| format!("{text}\n{line}"))
        }
        Some(other) => other.to_string(),
    }
}
