//! What can be said on the command line.

mod access;
mod audit;
mod device;
mod erasure;
mod history;
mod index;
mod key;
mod query;
mod witness;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use folkmoot::api::{At, Durability, Heads, PrincipalName, SessionToken};
use folkmoot::{AuthorKey, CollectionName, DocId, FieldPath, OpId};

pub(super) use access::{Can, GrantArgs, GroupCommand, Reason, Revoke, RoleCommand, Scope, TokenCommand, UserCommand};

pub(super) use device::DeviceCommand;
pub(super) use erasure::{Erase, ErasuresArgs};
pub(super) use history::{Diff, History, Restore};
pub(super) use index::IndexCommand;
pub(super) use query::{Aggregate, AsOf, Count, Query, Selected, Watch};

pub(super) use key::{ApprovalsCommand, KeyCommand, Passphrase, Recover, Rotate};
pub(super) use witness::WitnessCommand;

pub(super) use audit::{AuditCommand, AuditExport, AuditFilter};

use super::bench::{Bench, BenchBare};
use super::credential::secret;
use super::failure::Failure;
use super::output::Format;
use crate::config::{Flag, P2pTransport};

/// Folkmoot: a multi-master CRDT document database.
#[derive(Debug, Parser)]
#[command(
    name = "folkmoot",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 cannot reach a node, 4 denied, 5 conflict, 6 damage found, 7 diverged, 8 data directory locked"
)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) find: Find,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Which node, and how to answer.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Find {
    /// Address of the node; several, separated by commas, are tried in turn
    #[arg(long, global = true, env = "FOLKMOOT_URL", value_name = "URL")]
    pub(super) url: Option<String>,
    /// File that holds the token (or FOLKMOOT_TOKEN holds it)
    #[arg(long, global = true, env = "FOLKMOOT_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Name of a user, to come in by password instead of a token
    #[arg(long, global = true, env = "FOLKMOOT_USER", value_name = "NAME")]
    pub(super) user: Option<String>,
    /// File that holds the user's password (or FOLKMOOT_PASSWORD holds it) [default: it is asked for]
    #[arg(long, global = true, env = "FOLKMOOT_PASSWORD_FILE", value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// PEM file of a certificate to show to nodes that ask for one
    #[arg(long, global = true, env = "FOLKMOOT_CERT", value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, global = true, env = "FOLKMOOT_KEY", value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// PEM file of a certificate or an authority to trust, for a node that speaks TLS [default: those of this machine]
    #[arg(long, global = true, env = "FOLKMOOT_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Data directory of a node on this machine (or FOLKMOOT_DATA) [default: folkmoot-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// What must be seen at least: the token that `folkmoot session` printed, or an answer's header Folkmoot-Session
    #[arg(long, global = true, env = "FOLKMOOT_SESSION", value_name = "TOKEN")]
    pub(super) session: Option<SessionToken>,
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Find {
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::People }
    }

    /// Returns the password by which the command comes in itself, if it does by one.
    pub(super) fn own_password(&self) -> Result<Option<String>, Failure> {
        let Some(user) = &self.user else { return Ok(None) };
        let prompt = format!("Password of {user}: ");
        secret(&prompt, self.password_file.as_deref(), "FOLKMOOT_PASSWORD").map(Some)
    }

    /// Returns how to find another node: at an address, or by a data directory with the token in it.
    pub(super) fn of_other(&self, node: &str, token_file: Option<PathBuf>) -> Self {
        if node.contains("://") {
            let token_file = token_file.or_else(|| self.token_file.clone());
            return Self { url: Some(node.to_owned()), token_file, ..self.clone() };
        }
        let data = PathBuf::from(node);
        let token_file = token_file.unwrap_or_else(|| data.join(crate::serve::TOKEN_FILE));
        Self { url: None, token_file: Some(token_file), data: Some(data), ..self.clone() }
    }

    pub(super) fn data_directory(&self) -> PathBuf {
        match (&self.data, std::env::var_os("FOLKMOOT_DATA")) {
            (Some(data), _) => data.clone(),
            (None, Some(data)) => data.into(),
            (None, None) => crate::config::Config::default().data,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node; in a new data directory it founds a cluster first
    Serve(Serve),
    /// Found a cluster in a new data directory
    Init(Init),
    /// Join a cluster with a ticket from `folkmoot invite`
    Join(Join),
    /// Print a document
    Get(Get),
    /// Make a document have this content
    Put(Put),
    /// Create a document that must not exist; without --id the node makes an id
    Create(Create),
    /// Change parts of a document
    Patch(Patch),
    /// Delete a document
    Delete(Delete),
    /// Erase documents for good, on every node: what they said is removed from every disk, and their ids are dead
    Erase(Erase),
    /// List erasures, and which members have carried them out
    Erasures(ErasuresArgs),
    /// List documents by id
    List(List),
    /// Show who changed a document, when and how
    History(History),
    /// Show what is different between two versions of a document
    Diff(Diff),
    /// Make a document have the content again that it had in a version, or before it was deleted
    Restore(Restore),
    /// Find documents by what is in them
    Query(Query),
    /// Count documents
    Count(Count),
    /// Count, add up and list values over many documents, by groups
    Aggregate(Aggregate),
    /// Show where concurrent writers left more than one value in a document
    Conflicts(One),
    /// Load documents from NDJSON or CSV (.gz and .zst are unpacked)
    Import(Import),
    /// Write all documents of a collection as NDJSON or CSV
    Export(Export),
    /// Write a document with its history to a file of Automerge, or make a document of one
    #[command(subcommand)]
    Automerge(AutomergeCommand),
    /// List, show, configure or drop collections
    #[command(visible_alias = "collection")]
    Collections(Collections),
    /// Print changes in commit order
    Changes(Changes),
    /// Print what a query finds, and then how that changes; end with Ctrl-C
    Watch(Watch),
    /// Print a token of what the node shows now; with --session TOKEN another node waits until it shows as much
    Session(Session),
    /// Show what the node is and how it fares
    Status,
    /// Show the other members; block or unblock links to them
    Peers {
        #[command(subcommand)]
        command: Option<PeersCommand>,
    },
    /// Show the digest of every shard; equal digests mean equal contents
    Digests {
        /// Compare with this node, by its address or, on this machine, its data directory; exit 7 if both hold the same
        /// ops and differ
        #[arg(long, value_name = "URL|DIR")]
        against: Option<String>,
        /// File that holds the other node's token, if it is another one
        #[arg(long, value_name = "FILE", requires = "against")]
        against_token_file: Option<PathBuf>,
    },
    /// List the transactions that were refused and kept as evidence; let one stand that a revocation cut
    Quarantine {
        #[command(subcommand)]
        command: Option<QuarantineCommand>,
    },
    /// Check every chain, signature and view of the node, or of a data directory on which none runs; exit 6 on damage
    Verify(Unlock),
    /// Make the store of a data directory again of all that can be read; the node must not run. Exit 6 if some is missing
    Repair(Repair),
    /// Set the store of a data directory aside and take everything from peers; the node must not run
    Rejoin(Rejoin),
    /// Keys that sign, of owners, nodes and devices: list, make, seal, take back; make others the owners
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// List, invite or take back devices: nodes in apps that sign with a key of their own in the name of a user
    Device {
        #[command(subcommand)]
        command: Option<DeviceCommand>,
    },
    /// List what owners asked for and others have to approve, where more than one must agree; or take back what one asked for
    Approvals {
        #[command(subcommand)]
        command: Option<ApprovalsCommand>,
    },
    /// Consent to what another owner asked for, by the owner's key of the node
    Approve {
        /// The act, as `folkmoot approvals` names it
        #[arg(value_parser = crate::cli::audit::op_id)]
        op: OpId,
    },
    /// List, create or drop the indexes of a collection
    Index {
        #[command(subcommand)]
        command: IndexCommand,
    },
    /// List, add or remove witnesses: nodes that settle it when a node's stream forks, as when it ran twice
    #[command(visible_alias = "witnesses")]
    Witness {
        #[command(subcommand)]
        command: Option<WitnessCommand>,
    },
    /// Tell how a node's data is sealed, or change its keys
    Keys {
        #[command(subcommand)]
        command: Option<KeysCommand>,
    },
    /// Print a ticket with which a new node can join
    Invite(Invite),
    /// List, show, add or remove those who may do something: people and programs
    #[command(visible_alias = "users")]
    User {
        #[command(subcommand)]
        command: Option<UserCommand>,
    },
    /// Make a group, or somebody a member of one: what is granted to it counts for its members
    #[command(subcommand)]
    Group(GroupCommand),
    /// List roles, or make one
    #[command(visible_alias = "roles")]
    Role {
        #[command(subcommand)]
        command: Option<RoleCommand>,
    },
    /// Give a role to somebody
    Grant(GrantArgs),
    /// Take back a grant, a membership, a token or a role; what was written until now stands
    Revoke(Revoke),
    /// Make a token with which somebody is known to every node, or list somebody's
    #[command(subcommand)]
    Token(TokenCommand),
    /// Tell whether somebody may do something, and by which grant or why not; exit 4 if not
    Can(Can),
    /// Tell what was decided about an op (as `audit` and `quarantine` show it), and by which statements and revocations
    Why {
        /// Its id
        #[arg(value_parser = crate::cli::audit::op_id)]
        op: OpId,
    },
    /// Find out who did what, and what was denied; check and prove the node's audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Tell for whom the token stands
    Whoami,
    /// Start a small cluster, cut it in two, edit both halves, heal it and check everything; exit 6 on damage, 7 if diverged
    Demo(Demo),
    /// Measure how fast nodes are: a running node or cluster (--url), else nodes started for it
    Bench(Bench),
    /// Answer every request with the same bytes: what `bench bare` measures
    #[command(hide = true)]
    BenchBare(BenchBare),
    /// Check or show the configuration of a node
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Take commands line by line, over one connection: with completion and a history at a terminal, else from standard input
    Shell(Shell),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How the data directory is unlocked. The secrets themselves are in files, or in FOLKMOOT_MASTER_KEY and FOLKMOOT_PASSPHRASE.
#[derive(Debug, Default, ClapArgs)]
pub(super) struct Unlock {
    /// Where the master key of a new data directory comes from [default: file]
    #[arg(long, value_name = "SOURCE", value_parser = ["none", "file", "environment", "passphrase", "command"])]
    pub(super) key_source: Option<String>,
    /// The file of the master key [default: master.key in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// A file that holds the passphrase
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    /// A command that prints the master key
    #[arg(long, value_name = "COMMAND")]
    pub(super) key_command: Option<String>,
}

impl Unlock {
    /// Returns what was given, as flags of the configuration.
    pub(super) fn flags(&self) -> Vec<Flag> {
        let path = |path: &PathBuf| path.display().to_string();
        let given = [
            ("--key-source", "keys.source", self.key_source.clone()),
            ("--key-file", "keys.file", self.key_file.as_ref().map(path)),
            ("--passphrase-file", "keys.passphrase_file", self.passphrase_file.as_ref().map(path)),
            ("--key-command", "keys.command", self.key_command.clone()),
        ];
        let flag = |(name, key, value): (_, _, Option<String>)| Some(Flag { name, key, value: value?.into() });
        given.into_iter().filter_map(flag).collect()
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    #[command(flatten)]
    pub(super) unlock: Unlock,
    /// Where the HTTP API listens; port 0 picks a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<std::net::SocketAddr>,
    /// Where other nodes reach this one; may be given several times [default: 127.0.0.1:7071]
    #[arg(long, value_name = "ADDR")]
    pub(super) p2p_listen: Vec<std::net::SocketAddr>,
    /// How they reach it, by TCP or QUIC (UDP); may be given several times [default: tcp]
    #[arg(long, value_name = "TRANSPORT", value_enum)]
    pub(super) p2p_transport: Vec<P2pTransport>,
    /// Let the HTTP API listen where other machines reach it in the clear: only behind something that speaks TLS
    #[arg(long)]
    pub(super) insecure_listen: bool,
    /// PEM file with the certificate of the HTTP API
    #[arg(long, value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,
    /// PEM file with its key, for the owner alone to read
    #[arg(long, value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,
    /// Address (multiaddr) of a member to look for; may be given several times
    #[arg(long, value_name = "MULTIADDR")]
    pub(super) bootstrap: Vec<String>,
    /// The region that the node is in
    #[arg(long)]
    pub(super) region: Option<String>,
    /// The zone within the region
    #[arg(long)]
    pub(super) zone: Option<String>,
    /// A further label, NAME=VALUE; may be given several times
    #[arg(long)]
    pub(super) label: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Shell {
    /// Go on after a line that fails, where lines do not come from a terminal; the exit code is that of the first one
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Neither read nor keep what was typed
    #[arg(long)]
    pub(super) no_history: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Init {
    /// Name of the cluster
    #[arg(long, default_value = "folkmoot")]
    pub(super) name: String,
    /// Name of its first node
    #[arg(long, default_value = "first")]
    pub(super) node_name: String,
    #[command(flatten)]
    pub(super) unlock: Unlock,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Join {
    /// The ticket
    pub(super) ticket: String,
    /// Name of this node
    #[arg(long, default_value = "node")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) unlock: Unlock,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Repair {
    /// Another data directory, or a store that was set aside, whose ops are taken too; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(super) from: Vec<PathBuf>,
    /// Give acknowledged writes that cannot be found up for lost, and tell of them no more
    #[arg(long)]
    pub(super) accept_loss: bool,
    /// Only check the directory and say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) unlock: Unlock,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Tell how the data is sealed, and how far a rotation is
    Show,
    /// Give every collection a new key, under which those of its documents are wrapped again in the background
    Rotate {
        /// Change the master key instead, which is in a file
        #[arg(long)]
        master: bool,
    },
    /// Seal a data directory on which no node runs under another master key (FOLKMOOT_NEW_MASTER_KEY and
    /// FOLKMOOT_NEW_PASSPHRASE may hold the new one)
    Rekey(Rekey),
}

#[derive(Debug, ClapArgs)]
pub(super) struct Rekey {
    /// Where the new master key comes from
    #[arg(long, value_name = "SOURCE", value_parser = ["file", "environment", "passphrase", "command"])]
    pub(super) new_source: String,
    /// The file of the new master key, which is made if it is not there [default: master.key in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(super) new_file: Option<PathBuf>,
    /// A file that holds the new passphrase
    #[arg(long, value_name = "FILE")]
    pub(super) new_passphrase_file: Option<PathBuf>,
    /// A command that prints the new master key
    #[arg(long, value_name = "COMMAND")]
    pub(super) new_command: Option<String>,
    #[command(flatten)]
    pub(super) unlock: Unlock,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Rejoin {
    /// A ticket from `folkmoot invite`, if the control log is lost or no peer is known
    #[arg(long, value_name = "TICKET")]
    pub(super) ticket: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) unlock: Unlock,
}

#[derive(Debug, ClapArgs)]
pub(super) struct One {
    /// The collection
    pub(super) collection: CollectionName,
    /// The document
    pub(super) id: DocId,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Get {
    #[command(flatten)]
    pub(super) document: One,
    /// Print the version (heads) and time too
    #[arg(long)]
    pub(super) meta: bool,
    /// As it was: a version (heads), or a time like 2026-03-01T08:00:00Z
    #[arg(long, value_name = "VERSION")]
    pub(super) at: Option<At>,
}

/// How to write.
#[derive(Debug, ClapArgs)]
pub(super) struct Writing {
    /// Only if the document has this version (heads)
    #[arg(long, value_name = "HEADS")]
    pub(super) if_match: Option<Heads>,
    /// The version that was edited: merge with what came since
    #[arg(long, value_name = "HEADS")]
    pub(super) base: Option<Heads>,
    /// Where it must be durable: local, majority, all or a number of replicas
    #[arg(long, default_value = "local", value_name = "WHERE")]
    pub(super) durability: Durability,
    /// How long to wait for that
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) timeout: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Put {
    #[command(flatten)]
    pub(super) document: One,
    /// The document as JSON; `-` or nothing reads standard input
    #[arg(value_name = "JSON")]
    pub(super) body: Option<String>,
    #[command(flatten)]
    pub(super) writing: Writing,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Create {
    /// The collection
    pub(super) collection: CollectionName,
    /// The document as JSON; `-` or nothing reads standard input
    #[arg(value_name = "JSON")]
    pub(super) body: Option<String>,
    /// Its id
    #[arg(long)]
    pub(super) id: Option<DocId>,
}

/// The notations of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PatchNotation {
    /// RFC 7396
    Merge,
    /// RFC 6902
    JsonPatch,
    /// Increments, text splices, list inserts and removes
    Edit,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Patch {
    #[command(flatten)]
    pub(super) document: One,
    /// The patch as JSON; `-` or nothing reads standard input
    #[arg(value_name = "JSON")]
    pub(super) body: Option<String>,
    /// In which notation
    #[arg(long, value_enum, default_value = "merge")]
    pub(super) kind: PatchNotation,
    #[command(flatten)]
    pub(super) writing: Writing,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Delete {
    #[command(flatten)]
    pub(super) document: One,
    #[command(flatten)]
    pub(super) writing: Writing,
}

#[derive(Debug, ClapArgs)]
pub(super) struct List {
    /// The collection
    pub(super) collection: CollectionName,
    /// Only ids that begin with this
    #[arg(long)]
    pub(super) prefix: Option<String>,
    #[command(flatten)]
    pub(super) as_of: AsOf,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    pub(super) limit: usize,
}

/// The forms of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TransferFormat {
    /// JSON, a document a line
    Ndjson,
    /// A table, a document a row; the first row names fields, or places as in /address/city
    Csv,
}

/// What a cell of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum CellType {
    /// Numbers as people write them (no leading zero, no exponent) and true and false; all else is text
    #[default]
    Infer,
    /// Text, whatever it is
    Text,
    /// A number
    Number,
    /// true or false
    Boolean,
    /// JSON
    Json,
}

/// Parses COLUMN=TYPE. The column may have `=` in its name.
fn column_type(text: &str) -> Result<(String, CellType), String> {
    let (column, kind) = text.rsplit_once('=').ok_or("it is COLUMN=TYPE, as in zip=text")?;
    Ok((
        column.to_owned(),
        CellType::from_str(kind, false).map_err(|_| "the type is infer, text, number, boolean or json")?,
    ))
}

#[derive(Debug, ClapArgs)]
pub(super) struct Import {
    /// The collection
    pub(super) collection: CollectionName,
    /// NDJSON, a document a line, or CSV, a document a row; `-` reads standard input
    pub(super) file: PathBuf,
    /// Which of them it is [default: CSV if the file is called .csv, .csv.gz or .csv.zst, else NDJSON]
    #[arg(long, value_enum)]
    pub(super) format: Option<TransferFormat>,
    /// Member or column that holds the id of a document; numbers are taken as text. Without it lines are those of an export, else
    /// documents whose id is in the member `id`; rows have it in the column `id`, else the node makes ids
    #[arg(long, visible_alias = "id", value_name = "NAME")]
    pub(super) id_field: Option<String>,
    /// Go on after a document that cannot be written, and count it
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Begin at this line, to go on after an import that broke off
    #[arg(long, value_name = "NUMBER")]
    pub(super) from_line: Option<u64>,
    /// CSV: what cells are
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    pub(super) types: CellType,
    /// CSV: what the cells of one column are, as in zip=text; may be given several times
    #[arg(long = "as", value_name = "COLUMN=TYPE", value_parser = column_type)]
    pub(super) columns: Vec<(String, CellType)>,
    /// CSV: the column with the id is a field of the document too
    #[arg(long)]
    pub(super) keep_id: bool,
    /// CSV: what stands between cells: one character, or `tab`
    #[arg(long, default_value = ",", value_name = "CHARACTER", value_parser = super::columns::delimiter)]
    pub(super) delimiter: u8,
    /// Where it must be durable: local, majority, all or a number of replicas
    #[arg(long, default_value = "local", value_name = "WHERE")]
    pub(super) durability: Durability,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Export {
    /// The collection
    pub(super) collection: CollectionName,
    /// Where to write; standard output if not given. What ends in .gz or .zst is packed
    pub(super) file: Option<PathBuf>,
    /// In which form [default: CSV if the file is called .csv, .csv.gz or .csv.zst, else NDJSON]
    #[arg(long, value_enum)]
    pub(super) format: Option<TransferFormat>,
    /// Only ids that begin with this
    #[arg(long)]
    pub(super) prefix: Option<String>,
    /// Only the documents, without their ids and versions
    #[arg(long)]
    pub(super) bare: bool,
    /// CSV: the columns, names of members or places as in /address/city, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    pub(super) fields: Vec<String>,
    /// CSV: write a ' before text that a spreadsheet would take for a formula
    #[arg(long)]
    pub(super) for_spreadsheets: bool,
    /// CSV: what stands between cells: one character, or `tab`
    #[arg(long, default_value = ",", value_name = "CHARACTER", value_parser = super::columns::delimiter)]
    pub(super) delimiter: u8,
}

#[derive(Debug, Subcommand)]
pub(super) enum AutomergeCommand {
    /// Write a document with its history to a file, which Automerge's libraries load. It takes the right to all of its fields and their history
    Save {
        #[command(flatten)]
        document: One,
        /// Where to write; `-` writes to standard output
        file: PathBuf,
    },
    /// Create a document with the content of a file. What it was before is not taken over: nobody here signed that
    Load {
        /// The collection
        collection: CollectionName,
        /// The file; `-` reads standard input
        file: PathBuf,
        /// The document's id; if not given the node makes one
        #[arg(long)]
        id: Option<DocId>,
        /// Where it must be durable: local, majority, all or a number of replicas
        #[arg(long, default_value = "local", value_name = "WHERE")]
        durability: Durability,
    },
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Collections {
    #[command(subcommand)]
    pub(super) command: Option<CollectionsCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum CollectionsCommand {
    /// Show one collection
    Show {
        /// The collection
        collection: CollectionName,
    },
    /// Create a collection or replace its settings
    Set {
        /// The collection
        collection: CollectionName,
        /// Number of shards, fixed at creation
        #[arg(long, default_value_t = 1)]
        shards: u16,
        /// How a field merges, as in /body=text or /votes=counter (text, counter, timestamp, bytes)
        #[arg(long = "type", value_name = "POINTER=TYPE")]
        types: Vec<String>,
        /// Record in the audit logs who reads its documents
        #[arg(long)]
        audit_reads: bool,
        /// File with the JSON Schema that documents must meet; `-` reads standard input. Without it the schema stays
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
        /// Remove the schema
        #[arg(long, conflicts_with = "schema")]
        no_schema: bool,
        /// Field with the time after which a document is found no more, and is deleted, as /ends. Without it that stays as it is
        #[arg(long, value_name = "POINTER")]
        expires: Option<FieldPath>,
        /// How much longer documents are kept
        #[arg(long, value_name = "TIME", requires = "expires", value_parser = humantime::parse_duration)]
        expires_after: Option<Duration>,
        /// Keep documents for good
        #[arg(long, conflicts_with = "expires")]
        no_expires: bool,
        /// Fields whose values, taken together, no two documents share, as /email or /tenant,/login; once for each constraint. Without it they
        /// stay as they are
        #[arg(long, value_name = "POINTERS")]
        unique: Vec<String>,
        /// Let documents share all values
        #[arg(long, conflicts_with = "unique")]
        no_unique: bool,
    },
    /// List the documents that show what another one shows that wins, and what no two are to show
    Duplicates {
        /// The collection
        collection: CollectionName,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// List the documents that do not meet the collection's schema, with what is wrong
    Invalid {
        /// The collection
        collection: CollectionName,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Drop a collection: its documents are hidden everywhere
    Drop {
        /// The collection
        collection: CollectionName,
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct Session {
    /// Of documents of this collection; of who may do what if not given
    pub(super) collection: Option<CollectionName>,
    /// Of this document only
    pub(super) id: Option<DocId>,
    /// How long to wait for what --session names
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) timeout: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Changes {
    /// Only of this collection
    pub(super) collection: Option<CollectionName>,
    /// Begin behind this token; `now` for what comes from here on [default: the beginning]
    #[arg(long)]
    pub(super) since: Option<String>,
    /// Go on with what comes; end with Ctrl-C
    #[arg(long, short)]
    pub(super) follow: bool,
    /// Only ids that begin with this
    #[arg(long)]
    pub(super) prefix: Option<String>,
    /// Only documents that this selector means now, and those that are gone
    #[arg(long, value_name = "JSON", value_parser = query::selector)]
    pub(super) selector: Option<serde_json::Value>,
    /// Print the documents too
    #[arg(long)]
    pub(super) docs: bool,
    /// End after so many
    #[arg(long)]
    pub(super) limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// List them
    List,
    /// Let one stand that a revocation cut, and all that its principal wrote before it through the same node
    Release {
        /// The transaction, OP or OP#NUMBER, as the list tells it
        #[arg(value_parser = transaction)]
        transaction: (OpId, u16),
    },
}

/// Parses OP or OP#NUMBER.
fn transaction(text: &str) -> Result<(OpId, u16), String> {
    let (op, number) = text.split_once('#').unwrap_or((text, "0"));
    let op = op.parse().map_err(|error| format!("{error}"))?;
    Ok((op, number.parse().map_err(|error| format!("the number of the transaction: {error}"))?))
}

#[derive(Debug, Subcommand)]
pub(super) enum PeersCommand {
    /// Let no traffic through to a member, for drills
    Block {
        /// The member's key
        node: AuthorKey,
    },
    /// Let traffic through again
    Unblock {
        /// The member's key
        node: AuthorKey,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct Invite {
    /// How long the ticket is good
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) expires: Duration,
    /// How many nodes may join with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) uses: u32,
    /// What they may do: admin, editor or reader
    #[arg(long, default_value = "editor", value_parser = ["admin", "editor", "reader"])]
    pub(super) role: String,
    /// Whose devices they are, by name or id: they write in that principal's name, within its rights, and have no role
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "role")]
    pub(super) device_of: Option<PrincipalName>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Demo {
    /// How many nodes, each a process of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub(super) nodes: u8,
    /// How many documents of the data set (6,204 cities) to import
    #[arg(long, default_value = "6204", value_parser = at_least_the_cases)]
    pub(super) documents: usize,
    /// How many edits at random on each side of the cut
    #[arg(long, default_value_t = 300)]
    pub(super) edits: usize,
    /// Where the edits at random begin, to make the same ones again [default: another each time]
    #[arg(long, value_name = "NUMBER")]
    pub(super) seed: Option<u64>,
    /// Keep data and logs of the nodes in this new folder
    #[arg(long, value_name = "DIR")]
    pub(super) keep: Option<PathBuf>,
}

/// Fewer documents would lack some that the demo is about.
const DEMO_DOCUMENTS_MIN: usize = 10;

fn at_least_the_cases(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number >= DEMO_DOCUMENTS_MIN => Ok(number),
        Ok(_) => Err(format!("at least {DEMO_DOCUMENTS_MIN} are needed")),
        Err(error) => Err(format!("{error}")),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the configuration
    Check(ConfigFile),
    /// Show every key, its value and where it came from
    Show(ConfigFile),
}

#[derive(Debug, ClapArgs)]
pub(super) struct ConfigFile {
    /// The configuration file [default: folkmoot.toml, if it is there]
    #[arg(long, env = "FOLKMOOT_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}
