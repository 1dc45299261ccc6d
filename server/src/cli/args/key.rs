//! What can be said about keys that sign.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use folkmoot::api::Timestamp;
use folkmoot::{AuthorKey, OpId};

use super::{Reason, Unlock};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// List the keys that count: owners', nodes', devices', and hashes of recovery keys
    List,
    /// Make a key for an owner in a new file, and print its public half
    New {
        /// The file
        file: PathBuf,
        /// Seal it by a passphrase
        #[arg(long)]
        seal: bool,
        #[command(flatten)]
        passphrase: Passphrase,
    },
    /// Put an owner's key into a data directory on which no node runs
    Install {
        /// File of the key
        file: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
        #[command(flatten)]
        unlock: Unlock,
    },
    /// Change a key: of a node, or of a user's device
    #[command(subcommand)]
    Rotate(Rotate),
    /// Make other keys the owners, by the recovery keys: the owners' were lost, stolen, or are to be changed
    Recover(Recover),
    /// Take all back that a key was certified for, as when a device was stolen; what it signed until now stands
    Revoke {
        /// The key, as `folkmoot key list` shows it
        #[arg(value_name = "KEY")]
        author: AuthorKey,
        #[command(flatten)]
        reason: Reason,
    },
    /// Copy the recovery key from the data directory where it was made into a new file elsewhere
    SaveRecovery {
        /// The file
        file: PathBuf,
        /// Seal it by a passphrase
        #[arg(long)]
        seal: bool,
        #[command(flatten)]
        passphrase: Passphrase,
        #[command(flatten)]
        unlock: Unlock,
    },
    /// Show that the recovery key is put away elsewhere, and delete it from the data directory
    ConfirmRecovery {
        /// File of the copy [default: the key is asked for, or FOLKMOOT_RECOVERY_KEY holds it]
        #[arg(long, value_name = "FILE")]
        recovery_file: Option<PathBuf>,
        #[command(flatten)]
        passphrase: Passphrase,
        #[command(flatten)]
        unlock: Unlock,
    },
    /// Seal a key file by a passphrase
    Seal {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
    },
    /// Write the key of a sealed file in the clear again
    Unseal {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Rotate {
    /// Make the next key of this node, which it takes up at its next start; then the one before is taken back
    Node {
        /// A node of a stronger admin, to certify the key if this one may not: an address, or a data directory on this machine
        #[arg(long, value_name = "NODE")]
        by: Option<String>,
        /// File with the token for that node
        #[arg(long, value_name = "FILE")]
        by_token_file: Option<PathBuf>,
    },
    /// Certify a key in the place of another one, for the same principal, and take the other one back
    Author {
        /// The key that there is
        old: AuthorKey,
        /// The public half of the new one
        new: AuthorKey,
        #[command(flatten)]
        reason: Reason,
    },
}

/// Where the passphrase of key files comes from.
#[derive(Debug, Default, ClapArgs)]
pub(in crate::cli) struct Passphrase {
    /// File with the passphrase of key files (or FOLKMOOT_KEY_PASSPHRASE holds it) [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) key_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Recover {
    /// File of a recovery key; several are given one after the other
    #[arg(long, required = true, value_name = "FILE")]
    pub(in crate::cli) recovery_file: Vec<PathBuf>,
    /// The keys of the new owners, separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "KEYS")]
    pub(in crate::cli) owners: Vec<AuthorKey>,
    /// How many of them must agree on what they do
    #[arg(long, default_value_t = 1)]
    pub(in crate::cli) threshold: u8,
    /// New file for the next recovery key; several make as many keys
    #[arg(long, required = true, value_name = "FILE")]
    pub(in crate::cli) new_recovery_out: Vec<PathBuf>,
    /// How many of those the next change needs [default: more than half]
    #[arg(long)]
    pub(in crate::cli) recovery_threshold: Option<u8>,
    /// What the owners signed later than this time does not stand [default: all that the node has stands]
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<Timestamp>,
    /// Seal the new recovery keys by the passphrase too
    #[arg(long)]
    pub(in crate::cli) seal: bool,
    #[command(flatten)]
    pub(in crate::cli) passphrase: Passphrase,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ApprovalsCommand {
    /// Take back what the owner asked for whose key is on the node, while it waits: nobody is asked about it any more
    Withdraw {
        /// The act, as `folkmoot approvals` names it
        #[arg(value_parser = crate::cli::audit::op_id)]
        op: OpId,
    },
}
