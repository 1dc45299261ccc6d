//! Arguments about devices.

use std::time::Duration;

use clap::Subcommand;
use folkmoot::AuthorKey;
use folkmoot::api::PrincipalName;

use super::Reason;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeviceCommand {
    /// List devices with keys of their own, of all or of one principal
    List {
        /// The principal: its name or id
        principal: Option<PrincipalName>,
    },
    /// Print a ticket with which a device of a principal joins: it writes in that principal's name with a key of its own
    Invite {
        /// The principal: its name or id
        principal: PrincipalName,
        /// How long the ticket is good
        #[arg(long, default_value = "1h", value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Duration,
    },
    /// Take back all that a device's key was certified for
    Revoke {
        /// The key, as `folkmoot device list` shows it
        #[arg(value_name = "KEY")]
        author: AuthorKey,
        #[command(flatten)]
        reason: Reason,
    },
}
