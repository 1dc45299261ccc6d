//! What an index is declared as, and which entries a document has in it.

use std::collections::BTreeSet;
use std::fmt;

use crate::document::json::{Value, Wanted};
use crate::limits;
use crate::op::IndexDeclaration;
use crate::query::order;
use crate::query::path::{Path, PathError};
use crate::query::selector::Subject;

/// Entries of one document in one index. A document with more is looked at by every query of the index.
pub(super) const ENTRIES_PER_DOCUMENT_MAX: usize = 256;
/// The key of documents with too many entries, before every other key.
pub(in crate::query) const ALWAYS: u8 = 0x01;

/// Why a declaration is not valid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IndexDeclarationError {
    /// The name.
    #[error("the name of an index has 1 to {max} letters, digits, _ and -, not {0:?}", max = limits::INDEX_NAME_BYTES_MAX)]
    Name(String),
    /// Number of places.
    #[error("an index has 1 to {max} places, not {0}", max = limits::INDEX_FIELDS_MAX)]
    Fields(usize),
    /// A place is not one.
    #[error("{text:?}: {source}")]
    Path {
        /// As given.
        text: String,
        /// What is wrong.
        source: PathError,
    },
    /// Documents are found by their id without any index.
    #[error("documents lie in the order of their ids: _id needs no index")]
    Id,
    /// A place comes twice.
    #[error("{0:?} comes twice in one index")]
    Twice(String),
}

/// A place that an index is sorted by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::query) struct IndexField {
    pub(in crate::query) path: Path,
    pub(in crate::query) descending: bool,
}

/// A declaration that is valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    declaration: IndexDeclaration,
    pub(in crate::query) fields: Vec<IndexField>,
}

impl IndexDeclaration {
    /// Reads the declaration.
    ///
    /// # Errors
    /// Of what is wrong.
    pub fn parse(&self) -> Result<Definition, IndexDeclarationError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || self.name.len() > limits::INDEX_NAME_BYTES_MAX || !self.name.chars().all(is_plain) {
            return Err(IndexDeclarationError::Name(self.name.chars().take(limits::INDEX_NAME_BYTES_MAX).collect()));
        }
        if !(1..=limits::INDEX_FIELDS_MAX).contains(&self.fields.len()) {
            return Err(IndexDeclarationError::Fields(self.fields.len()));
        }
        let mut fields: Vec<IndexField> = Vec::with_capacity(self.fields.len());
        for text in &self.fields {
            let (descending, path) = match text.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, text.as_str()),
            };
            let path: Path =
                path.parse().map_err(|source| IndexDeclarationError::Path { text: text.clone(), source })?;
            if path == Path::Id {
                return Err(IndexDeclarationError::Id);
            }
            if fields.iter().any(|field| field.path == path) {
                return Err(IndexDeclarationError::Twice(text.clone()));
            }
            fields.push(IndexField { path, descending });
        }
        Ok(Definition { declaration: self.clone(), fields })
    }
}

impl fmt::Display for IndexDeclaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}{}", self.name, self.fields.join(", "), if self.sparse { ", sparse" } else { "" })
    }
}

/// What a document has in an index.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(in crate::query) struct Keys {
    /// Ascending, each once.
    pub(in crate::query) keys: Vec<Vec<u8>>,
    /// Whether there are several values at one place.
    pub(in crate::query) is_multiple: bool,
}

impl Definition {
    /// Returns it as declared.
    #[must_use]
    pub const fn declaration(&self) -> &IndexDeclaration {
        &self.declaration
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.declaration.name
    }

    /// Adds the places that it is of.
    pub(in crate::query) fn add_wanted(&self, wanted: &mut Wanted) {
        self.fields.iter().for_each(|field| field.path.add_to(wanted));
    }

    /// Returns the keys of a document.
    pub(in crate::query) fn keys(&self, subject: &Subject<'_>) -> Keys {
        let missing = |key: &Vec<u8>| *key == order::key(None);
        let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
        let (mut is_multiple, mut is_there) = (false, false);
        for field in &self.fields {
            let mut values = BTreeSet::new();
            let mut take = |value: &Value| {
                values.insert(order::key(Some(value)));
                // No more than decide that there are too many.
                values.len() > ENTRIES_PER_DOCUMENT_MAX
            };
            subject.reach_each(&field.path, &mut take);
            if values.is_empty() {
                values.insert(order::key(None));
            }
            is_multiple |= values.len() > 1;
            is_there |= !values.iter().all(missing);
            if keys.len() * values.len() > ENTRIES_PER_DOCUMENT_MAX {
                return Keys { keys: vec![vec![ALWAYS]], is_multiple: true };
            }
            let mut next = Vec::with_capacity(keys.len() * values.len());
            for key in &keys {
                for value in &values {
                    let mut key = key.clone();
                    let start = key.len();
                    key.extend_from_slice(value);
                    if field.descending {
                        order::invert(key.get_mut(start..).unwrap_or_default());
                    }
                    next.push(key);
                }
            }
            keys = next;
        }
        if self.declaration.sparse && !is_there {
            return Keys::default();
        }
        keys.sort_unstable();
        Keys { keys, is_multiple }
    }
}
