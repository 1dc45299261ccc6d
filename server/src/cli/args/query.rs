//! Arguments of queries.

use clap::Args as ClapArgs;
use folkmoot::CollectionName;
use folkmoot::api::Timestamp;

/// Parses a selector; the node says whether it is one.
pub(super) fn selector(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| format!("a selector is JSON: {error}"))
}

/// Which documents are meant.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Selected {
    /// The collection
    pub(in crate::cli) collection: CollectionName,
    /// Which documents, as JSON: '{"age": {"$gte": 18}}' [default: all]
    pub(in crate::cli) selector: Option<String>,
}

/// As of when.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct AsOf {
    /// Look at the documents as they were at this time, like 2026-03-01T08:00:00Z, by the clocks of those who wrote
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) at: Option<Timestamp>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Count {
    #[command(flatten)]
    pub(in crate::cli) selected: Selected,
    #[command(flatten)]
    pub(in crate::cli) as_of: AsOf,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Query {
    #[command(flatten)]
    pub(in crate::cli) selected: Selected,
    #[command(flatten)]
    pub(in crate::cli) as_of: AsOf,
    /// Places to sort by, separated by commas; with - before one the greatest comes first [default: by id]
    #[arg(long, value_name = "PLACES", value_delimiter = ',', allow_hyphen_values = true)]
    pub(in crate::cli) sort: Vec<String>,
    /// Places to show, separated by commas [default: all]
    #[arg(long, value_name = "PLACES", value_delimiter = ',')]
    pub(in crate::cli) fields: Vec<String>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    pub(in crate::cli) limit: usize,
    /// Tell how the documents were found
    #[arg(long)]
    pub(in crate::cli) explain: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Watch {
    #[command(flatten)]
    pub(in crate::cli) selected: Selected,
    /// Which documents, where there are more than --limit: the first by these places, separated by commas [default: by id]
    #[arg(long, value_name = "PLACES", value_delimiter = ',', allow_hyphen_values = true)]
    pub(in crate::cli) sort: Vec<String>,
    /// Places to show, separated by commas [default: all]
    #[arg(long, value_name = "PLACES", value_delimiter = ',')]
    pub(in crate::cli) fields: Vec<String>,
    /// At most so many documents at once
    #[arg(long, default_value_t = 100)]
    pub(in crate::cli) limit: usize,
    /// End after so many lines
    #[arg(long, value_name = "LINES")]
    pub(in crate::cli) lines: Option<usize>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Aggregate {
    #[command(flatten)]
    pub(in crate::cli) selected: Selected,
    #[command(flatten)]
    pub(in crate::cli) as_of: AsOf,
    /// Places to group by, separated by commas [default: one group]
    #[arg(long, value_name = "PLACES", value_delimiter = ',')]
    pub(in crate::cli) group: Vec<String>,
    /// How many documents there are (also if nothing else is asked for)
    #[arg(long)]
    pub(in crate::cli) count: bool,
    /// Sum of the numbers at a place; this and the others may be given several times
    #[arg(long, value_name = "PLACE")]
    pub(in crate::cli) sum: Vec<String>,
    /// Mean of the numbers at a place
    #[arg(long, value_name = "PLACE")]
    pub(in crate::cli) avg: Vec<String>,
    /// Least value at a place
    #[arg(long, value_name = "PLACE")]
    pub(in crate::cli) min: Vec<String>,
    /// Greatest value at a place
    #[arg(long, value_name = "PLACE")]
    pub(in crate::cli) max: Vec<String>,
    /// The different values at a place
    #[arg(long, value_name = "PLACE")]
    pub(in crate::cli) distinct: Vec<String>,
    /// At most so many groups
    #[arg(long, default_value_t = 1_000)]
    pub(in crate::cli) limit: usize,
}
