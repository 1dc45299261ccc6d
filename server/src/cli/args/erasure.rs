//! What can be said on the command line about erasing.

use std::time::Duration;

use clap::Args as ClapArgs;
use folkmoot::{CollectionName, DocId, OpId};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Erase {
    /// The collection
    pub(in crate::cli) collection: CollectionName,
    /// The documents, whether or not there are such: their ids are dead from then on
    #[arg(required = true)]
    pub(in crate::cli) ids: Vec<DocId>,
    /// Reason for people, kept for good
    #[arg(long)]
    pub(in crate::cli) why: Option<String>,
    /// Wait until every member has carried it out
    #[arg(long)]
    pub(in crate::cli) wait: bool,
    /// How long to wait [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "wait")]
    pub(in crate::cli) timeout: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct ErasuresArgs {
    /// Only this one, with every member
    pub(in crate::cli) act: Option<OpId>,
    /// Those that are older than this one
    #[arg(long, value_name = "ACT")]
    pub(in crate::cli) after: Option<OpId>,
    /// At most so many
    #[arg(long)]
    pub(in crate::cli) limit: Option<usize>,
}
