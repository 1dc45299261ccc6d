//! Finding documents by what is in them ([docs/query.md]).
//!
//! A query is a value: what is wanted, in which order, and what is shown of it. [`find`] and [`aggregate`] run one over a snapshot of the
//! store. Deliberately absent: clocks. Whoever runs a query says when it has taken long enough.
//!
//! [docs/query.md]: https://github.com/folkmoot/folkmoot/blob/main/docs/query.md

mod aggregate;
mod find;
pub mod index;
mod order;
mod path;
mod plan;
mod request;
mod selector;
#[cfg(test)]
mod tests;

pub use aggregate::{Aggregate, Aggregated, Compute, aggregate};
pub use find::{Explain, Filter, Found, Place, Plan, QueryRunError, Row, Run, find};
pub use index::{Indexed, Indexes};
pub use order::SORTED_BYTES_MAX;
pub(crate) use order::equality_key;
pub use path::{Path, PathError};
pub use request::{Find, SortKey};
pub use selector::{Selector, Subject};

/// What is wrong with a query.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct QueryError {
    /// JSON pointer to it.
    pub pointer: String,
    /// What is wrong.
    pub reason: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl QueryError {
    pub(crate) fn new(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), reason: reason.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
