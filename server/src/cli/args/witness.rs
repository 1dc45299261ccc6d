//! What can be said on the command line about witnesses of forks.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WitnessCommand {
    /// Make nodes witnesses, or change the quorum of some; the node that is asked needs the key of an owner
    Add {
        /// Names or keys of member nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        /// How many witnesses must agree before what these say counts [default: the majority of all, for all]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
        quorum: Option<u8>,
    },
    /// Make a node a witness no longer; what it has said stands
    Remove {
        /// Its name or key
        node: String,
        /// Reason for people
        #[arg(long)]
        why: Option<String>,
    },
    /// List the witnesses
    List,
}
