//! Arguments of `folkmoot index`.

use clap::Subcommand;
use folkmoot::CollectionName;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum IndexCommand {
    /// Show the indexes of a collection as they are on the node
    List {
        /// The collection
        collection: CollectionName,
    },
    /// Declare an index; every node makes it, in the background
    Create {
        /// The collection
        collection: CollectionName,
        /// Its name [default: made of its places]
        #[arg(long)]
        name: Option<String>,
        /// Leave documents out that have none of the places
        #[arg(long)]
        sparse: bool,
        /// Wait until the node has made it
        #[arg(long)]
        wait: bool,
        /// What it is sorted by, as in city or address.city; -- before those that begin with -, which have the greatest first
        #[arg(required = true, num_args = 1..)]
        fields: Vec<String>,
    },
    /// Drop an index
    Drop {
        /// The collection
        collection: CollectionName,
        /// Its name
        name: String,
    },
}
