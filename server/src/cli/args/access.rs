//! What can be said about who may do what.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use folkmoot::api::PrincipalName;
use folkmoot::{Action, CollectionName, DocId, FieldPath, OpId};

use crate::cli::access::principal_name;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum UserCommand {
    /// List all
    List,
    /// Show what one has
    Show {
        /// Name or id
        #[arg(value_parser = principal_name)]
        name: PrincipalName,
    },
    /// Add one, who may nothing yet
    Add {
        /// Name for people
        name: String,
        /// A program, not a person
        #[arg(long)]
        service: bool,
    },
    /// Set somebody's password, in place of the one before: asked for, or the first line of standard input
    Password {
        /// Name or id
        #[arg(value_parser = principal_name)]
        name: PrincipalName,
        /// File that holds the new password (or FOLKMOOT_NEW_PASSWORD holds it)
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        /// For how long [default: for good]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        good_for: Option<Duration>,
    },
    /// Believe a certificate: who shows it to a node that asks for one is this one
    Certificate {
        /// Name or id
        #[arg(value_parser = principal_name)]
        name: PrincipalName,
        /// PEM file of the certificate
        file: PathBuf,
        /// For how long [default: as long as the certificate says]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        good_for: Option<Duration>,
    },
    /// Link a subject of an issuer of tokens (OpenID Connect): who shows a token of it is this one
    Identity {
        /// Name or id
        #[arg(value_parser = principal_name)]
        name: PrincipalName,
        /// The issuer, as its tokens name it (`iss`)
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// The subject (`sub`)
        #[arg(long, value_name = "TEXT")]
        subject: String,
        /// For how long [default: for good]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        good_for: Option<Duration>,
    },
    /// Take all back that one has; what it wrote until now stands
    Remove {
        /// Name or id
        #[arg(value_parser = principal_name)]
        name: PrincipalName,
        #[command(flatten)]
        reason: Reason,
    },
}

/// Why something is taken back.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Reason {
    /// Reason for people, kept for good
    #[arg(long)]
    pub(in crate::cli) why: Option<String>,
    /// Also take back what was given under it
    #[arg(long)]
    pub(in crate::cli) cascade: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum GroupCommand {
    /// Make a group
    Add {
        /// Name for people
        name: String,
    },
    /// Make somebody a member
    Join {
        /// The group, by name or id
        #[arg(value_parser = principal_name)]
        group: PrincipalName,
        /// Who, by name or id
        #[arg(value_parser = principal_name)]
        name: PrincipalName,
        /// For how long [default: for good]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        good_for: Option<Duration>,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RoleCommand {
    /// List all
    List,
    /// Make one. It never changes: to narrow one, make another, grant that and revoke this
    Add {
        /// Name for people
        name: String,
        /// What it allows on all of a grant's target, separated by commas: read, create, update, delete, history, …
        #[arg(long, value_delimiter = ',', value_name = "ACTIONS")]
        allow: Vec<String>,
        /// What it allows on the own documents of whoever has it
        #[arg(long, value_delimiter = ',', value_name = "ACTIONS")]
        allow_own: Vec<String>,
    },
}

/// Where and how long.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Scope {
    /// On which collections: a name, a beginning of names followed by `*`, or `*`
    #[arg(long, default_value = "*", value_name = "COLLECTIONS")]
    pub(in crate::cli) on: String,
    /// Only on documents whose ids begin with this
    #[arg(long)]
    pub(in crate::cli) prefix: Option<String>,
    /// Only these fields and what is below them: JSON pointers, separated by commas; `*` is any list position or key
    #[arg(long, value_delimiter = ',', value_name = "POINTERS", conflicts_with = "without_fields")]
    pub(in crate::cli) fields: Vec<String>,
    /// All fields but these and what is below them
    #[arg(long, value_delimiter = ',', value_name = "POINTERS")]
    pub(in crate::cli) without_fields: Vec<String>,
    /// For how long, as in 30d [default: a grant for good, a token for 90 days]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) good_for: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct GrantArgs {
    /// To whom, by name or id
    #[arg(value_parser = principal_name)]
    pub(in crate::cli) name: PrincipalName,
    /// The role: admin, editor, contributor, reader, auditor, operator, or one of `folkmoot role`
    pub(in crate::cli) role: String,
    #[command(flatten)]
    pub(in crate::cli) scope: Scope,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Revoke {
    /// The statement, as `folkmoot user show` and `folkmoot role` tell it
    pub(in crate::cli) statement: OpId,
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Make a token and print it, this once
    Issue {
        /// For whom, by name or id
        #[arg(value_parser = principal_name)]
        name: PrincipalName,
        /// Name of the token, to tell it from others
        #[arg(long, default_value = "token")]
        label: String,
        /// Only these of the principal's actions, separated by commas [default: all]
        #[arg(long, value_delimiter = ',', value_name = "ACTIONS")]
        allow: Vec<String>,
        #[command(flatten)]
        scope: Scope,
    },
    /// List somebody's tokens
    List {
        /// Whose, by name or id
        #[arg(value_parser = principal_name)]
        name: PrincipalName,
    },
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Can {
    /// Who, by name or id
    #[arg(value_parser = principal_name)]
    pub(in crate::cli) name: PrincipalName,
    /// What: read, create, update, delete, history, administer, audit, monitor, operate, backup or erase
    pub(in crate::cli) action: Action,
    /// In which collection [default: everywhere]
    pub(in crate::cli) collection: Option<CollectionName>,
    /// To which document [default: to all of the collection]
    pub(in crate::cli) id: Option<DocId>,
    /// To which field, as /address/city; it needs a collection [default: to whole documents]
    #[arg(long, value_name = "POINTER", requires = "collection")]
    pub(in crate::cli) field: Option<FieldPath>,
}
