//! Documents: Automerge behind an admission gate, seen as JSON.

pub mod conflicts;
pub mod diff;
mod direct;
pub mod edit;
pub mod foreign;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gate;
pub mod json;
mod loaded;
mod local;
mod native;
pub mod redact;
mod rolled;
mod stored;
#[cfg(test)]
mod tests;
pub mod transplant;
mod view;

pub use gate::{Admission, Candidate, GateError, Hold};
pub use loaded::Document;
pub use local::{EditError, LocalChange};
pub use native::{change_hash, native_actor, native_hash};
pub use stored::{Folded, History, LoadError, SnapshotError, Turns};
pub use view::ViewError;
