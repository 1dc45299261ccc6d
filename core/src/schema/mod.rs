//! JSON Schema (draft 2020-12): the form that a collection's documents are to have.
//!
//! A schema is read with bounds (`outline`), so that holding a document against it takes time in proportion to both: references
//! stay within the schema, do not multiply, and regular expressions are of a kind that is linear in the text. What is found wrong
//! with a document is a list of [`Violation`]s, in an order that depends on nothing but document and schema.
//!
//! What a schema says is no verdict. It is held against what is written here, before it is; what comes from elsewhere, or merges
//! to something else, is kept and flagged. So replicas may differ in the crate that does the work without diverging.

mod cache;
mod findings;
mod outline;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use cache::{Compiled, SchemaCache};
pub use findings::{Findings, Violation};

use crate::document::json::{self, Bounds, ParseErrorKind};
use crate::hash::{Domain, hash};
use crate::limits;

/// Why a schema cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SchemaError {
    /// JSON pointer to the place in the schema.
    pub pointer: String,
    /// What is wrong there.
    pub reason: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl SchemaError {
    fn new(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), reason: reason.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The canonical text of a schema: a JSON object of at most [`limits::SCHEMA_BYTES_MAX`] bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchemaText {
    text: Arc<str>,
    id: [u8; 32],
}

impl SchemaText {
    fn new(text: &str) -> Self {
        Self { text: text.into(), id: hash(Domain::Schema, &[text.as_bytes()]) }
    }

    /// Reads what somebody gives as a schema, and checks that it can be used.
    ///
    /// # Errors
    /// [`SchemaError`], with the place.
    pub fn from_json(given: &[u8]) -> Result<Self, SchemaError> {
        let bounds = Bounds { bytes: limits::SCHEMA_BYTES_MAX, ..Bounds::CLIENT };
        let value = json::parse_within(given, bounds).map_err(|error| {
            let refused = SchemaError::new(error.pointer, error.kind.to_string());
            match error.kind {
                ParseErrorKind::TooLarge { .. } => refused.hint("split the documents over several collections"),
                _ => refused,
            }
        })?;
        let text = Self::new(&json::render_value(&value));
        Schema::compile(&text)?;
        Ok(text)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns a hash that tells it from others.
    #[must_use]
    pub const fn id(&self) -> [u8; 32] {
        self.id
    }

    /// Returns whether it may be in an act. Whether it can be used is each node's own question.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.text.len() <= limits::SCHEMA_BYTES_MAX && self.text.starts_with('{')
    }
}

impl Serialize for SchemaText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SchemaText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// A schema that is ready for use.
pub struct Schema {
    validator: jsonschema::Validator,
    schema: serde_json::Value,
    /// How many parts of the schema are held against one value at most.
    parts: u64,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Schema {
    /// Makes a schema ready for use. Takes some milliseconds for a large one, and a stack of
    /// [`STACK_BYTES`](crate::document::gate::STACK_BYTES).
    ///
    /// # Errors
    /// [`SchemaError`], with the place.
    pub fn compile(text: &SchemaText) -> Result<Self, SchemaError> {
        let bounds = Bounds { bytes: limits::SCHEMA_BYTES_MAX, ..Bounds::CLIENT };
        let value = json::parse_within(text.as_str().as_bytes(), bounds)
            .map_err(|error| SchemaError::new(error.pointer, error.kind.to_string()))?;
        let parts = outline::read(&value)?;
        let schema: serde_json::Value = serde_json::from_str(text.as_str())
            .map_err(|error| SchemaError::new("", format!("the schema is no JSON: {error}")))?;
        let patterns = jsonschema::PatternOptions::regex()
            .size_limit(limits::SCHEMA_REGEX_COMPILED_BYTES_MAX)
            .dfa_size_limit(limits::SCHEMA_REGEX_COMPILED_BYTES_MAX);
        let options = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .with_pattern_options(patterns)
            .should_validate_formats(true);
        // The crate has been wrong before about what it takes: a schema that it cannot take is one that cannot be used.
        let built = catch_unwind(AssertUnwindSafe(|| {
            options.build(&schema).map_err(|error| {
                SchemaError::new(error.instance_path().as_str(), format!("this is no valid schema: {error}"))
            })
        }));
        let validator = built.unwrap_or_else(|_| Err(SchemaError::new("", "the schema cannot be read")))?;
        Ok(Self { validator, schema, parts })
    }

    /// Returns what is wrong with a document; nothing if it has the form. Needs a stack of
    /// [`STACK_BYTES`](crate::document::gate::STACK_BYTES).
    #[must_use]
    pub fn check(&self, json: &[u8]) -> Findings {
        let steps = self.parts.saturating_mul(json.len() as u64 / BYTES_OF_A_VALUE + 1);
        if steps > limits::SCHEMA_STEPS_MAX {
            return Findings::one(Violation::of_document(
                "",
                format!("the document has {} bytes, too many to be held against a schema of this size", json.len()),
            ));
        }
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(json) else {
            return Findings::one(Violation::of_document("", "the document cannot be read".to_owned()));
        };
        let found = catch_unwind(AssertUnwindSafe(|| {
            if self.validator.is_valid(&document) {
                return Findings::default();
            }
            Findings::of(self.validator.iter_errors(&document), &self.schema)
        }));
        found.unwrap_or_else(|_| {
            Findings::one(Violation::of_document("", "the document cannot be held against the schema".to_owned()))
        })
    }
}

/// About as many bytes of JSON text hold one value.
const BYTES_OF_A_VALUE: u64 = 8;
