//! Arguments about what documents were.

use clap::Args as ClapArgs;
use folkmoot::api::At;

use super::{One, Writing};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct History {
    #[command(flatten)]
    pub(in crate::cli) document: One,
    /// At most so many changes
    #[arg(long, default_value_t = 20)]
    pub(in crate::cli) limit: usize,
    /// Show what each changed
    #[arg(long)]
    pub(in crate::cli) patches: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Diff {
    #[command(flatten)]
    pub(in crate::cli) document: One,
    /// A version: heads, or a time like 2026-03-01T08:00:00Z
    pub(in crate::cli) from: At,
    /// Another one [default: the present one]
    pub(in crate::cli) to: Option<At>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Restore {
    #[command(flatten)]
    pub(in crate::cli) document: One,
    /// A version: heads, or a time like 2026-03-01T08:00:00Z [default: what it was before it was deleted]
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) at: Option<At>,
    #[command(flatten)]
    pub(in crate::cli) writing: Writing,
}
