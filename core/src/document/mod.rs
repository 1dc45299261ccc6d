//! Documents: Automerge behind an admission gate, seen as JSON.
