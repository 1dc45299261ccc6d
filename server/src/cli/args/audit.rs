//! Arguments of commands on the audit.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use folkmoot::api::{AuditAction, AuditClass, AuditDecision, AuditLayer, AuditSubject};
use folkmoot::{ClusterId, CollectionName};

use crate::cli::args::Unlock;

/// What to do with the audit.
#[derive(Debug, Subcommand)]
pub(in super::super) enum AuditCommand {
    /// Print what was done, tried or denied, oldest first: from the node's log and from the signed ops
    Query {
        #[command(flatten)]
        filter: AuditFilter,
        /// At most so many
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
        /// Behind this place, as an earlier answer told it
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
    },
    /// Print what is recorded from now on; end with Ctrl-C
    Tail {
        #[command(flatten)]
        filter: AuditFilter,
    },
    /// Write entries for another program, a line each
    Export(AuditExport),
    /// Show how the node's log stands, and what it has seen of those of others
    Status,
    /// Check the log of the node, or of a data directory on which none runs; exit 6 if something was altered or cut
    Verify(Unlock),
    /// Write a proof of an entry that stands alone
    Prove {
        /// The id of the entry
        id: AuditSubject,
        /// Where to write; standard output if not given
        file: Option<PathBuf>,
    },
    /// Check such a proof, without any node; exit 6 if it proves nothing, 4 if what it shows gives no right to the op
    Check {
        /// The file
        file: PathBuf,
        /// The cluster that it has to be of, as `folkmoot status` shows it
        #[arg(long)]
        cluster: Option<ClusterId>,
    },
}

/// Which entries.
#[derive(Debug, ClapArgs)]
pub(in super::super) struct AuditFilter {
    /// By whom: name or id
    #[arg(long, value_name = "WHO")]
    pub(in super::super) principal: Option<String>,
    /// In which collection
    #[arg(long)]
    pub(in super::super) collection: Option<CollectionName>,
    /// What was done or tried, as in grant, read or login
    #[arg(long, value_parser = action)]
    pub(in super::super) action: Option<AuditAction>,
    /// What kind of thing: auth, admin, write, read or system
    #[arg(long, value_parser = class)]
    pub(in super::super) class: Option<AuditClass>,
    /// How it ended: allowed, denied or failed
    #[arg(long, value_parser = decision)]
    pub(in super::super) decision: Option<AuditDecision>,
    /// At or after this time, or so long ago, as in 7d
    #[arg(long, value_name = "TIME")]
    pub(in super::super) since: Option<String>,
    /// Before this time, or so long ago
    #[arg(long, value_name = "TIME")]
    pub(in super::super) until: Option<String>,
    /// Only from the node's log, or only from the ops
    #[arg(long, value_name = "log|ops")]
    pub(in super::super) layer: Option<AuditLayer>,
}

/// How entries are written.
#[derive(Debug, ClapArgs)]
pub(in super::super) struct AuditExport {
    #[command(flatten)]
    pub(in super::super) filter: AuditFilter,
    /// In which notation: jsonl, ocsf, cef or syslog
    #[arg(long, default_value = "jsonl")]
    pub(in super::super) format: String,
}

fn action(text: &str) -> Result<AuditAction, String> {
    let all = || AuditAction::ALL.into_iter().map(AuditAction::name).collect::<Vec<_>>().join(", ");
    AuditAction::named(text).ok_or_else(|| format!("actions are {}", all()))
}

fn class(text: &str) -> Result<AuditClass, String> {
    AuditClass::named(text).ok_or_else(|| "it is auth, admin, write, read or system".to_owned())
}

fn decision(text: &str) -> Result<AuditDecision, String> {
    AuditDecision::named(text).ok_or_else(|| "it is allowed, denied or failed".to_owned())
}
