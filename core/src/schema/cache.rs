//! Schemas that are ready for use, each made so once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Schema, SchemaError, SchemaText};
use crate::limits;

/// What became of a schema.
pub type Compiled = Arc<Result<Schema, SchemaError>>;

/// The schemas used last, at most [`limits::SCHEMAS_COMPILED_MAX`].
#[derive(Debug, Default)]
pub struct SchemaCache {
    compiled: BTreeMap<[u8; 32], (u64, Compiled)>,
    uses: u64,
}

impl SchemaCache {
    /// Returns a schema ready for use, or why it cannot be used. The first time it takes as long as [`Schema::compile`].
    pub fn get(&mut self, text: &SchemaText) -> Compiled {
        self.uses += 1;
        if let Some((used, compiled)) = self.compiled.get_mut(&text.id()) {
            *used = self.uses;
            return compiled.clone();
        }
        let compiled: Compiled = Arc::new(Schema::compile(text));
        if self.compiled.len() >= limits::SCHEMAS_COMPILED_MAX
            && let Some(oldest) = self.compiled.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id)
        {
            self.compiled.remove(&oldest);
        }
        self.compiled.insert(text.id(), (self.uses, compiled.clone()));
        compiled
    }

    /// Returns how many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.compiled.len()
    }

    /// Returns whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.compiled.is_empty()
    }
}
