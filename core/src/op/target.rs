//! What a right is about: collections, documents in them, and fields of these.

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize};

use super::fields::Fields;
use crate::id::{CollectionName, DocId};
use crate::limits;

/// What a right is about.
///
/// On the wire the fields are left out where they are all, and then the documents where they are.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Target {
    /// A collection name, a prefix followed by `*`, or `*` alone. System collections are never matched.
    pub collections: String,
    /// Which documents of these collections.
    #[serde(default)]
    pub documents: Documents,
    /// Which fields of these documents.
    #[serde(default)]
    pub fields: Fields,
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = !self.fields.is_all();
        let documents = fields || !self.documents.is_all();
        let mut target = serializer.serialize_struct("Target", 1 + usize::from(documents) + usize::from(fields))?;
        target.serialize_field("collections", &self.collections)?;
        if documents {
            target.serialize_field("documents", &self.documents)?;
        }
        if fields {
            target.serialize_field("fields", &self.fields)?;
        }
        target.end()
    }
}

/// Which documents of a collection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Documents {
    /// Each one.
    #[default]
    All,
    /// Those whose id begins so.
    Prefix(String),
}

impl Documents {
    /// Returns whether these are all documents.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(_) => false,
        }
    }

    fn covers(&self, doc: &DocId) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => doc.as_str().starts_with(prefix.as_str()),
        }
    }

    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Prefix(_), Self::All) => false,
            (Self::Prefix(prefix), Self::Prefix(other)) => other.starts_with(prefix.as_str()),
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => {
                !prefix.is_empty() && prefix.len() <= limits::DOC_ID_BYTES_MAX && !prefix.chars().any(char::is_control)
            }
        }
    }
}

// All, where it is said at all, is nil; a prefix is its text.
impl Serialize for Documents {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_none(),
            Self::Prefix(prefix) => serializer.serialize_some(prefix),
        }
    }
}

impl<'de> Deserialize<'de> for Documents {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map_or(Self::All, Self::Prefix))
    }
}

impl Target {
    /// Every field of every document of every collection.
    #[must_use]
    pub fn everything() -> Self {
        Self::collections("*")
    }

    /// All documents of these collections.
    #[must_use]
    pub fn collections(collections: impl Into<String>) -> Self {
        Self { collections: collections.into(), documents: Documents::All, fields: Fields::All }
    }

    /// Returns whether the target is every field of every document of every collection.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.contains(&Self::everything())
    }

    /// Returns whether some documents of the collection lie within the target.
    #[must_use]
    pub fn touches(&self, collection: &CollectionName) -> bool {
        !collection.is_system()
            && match self.collections.strip_suffix('*') {
                Some(prefix) => collection.as_str().starts_with(prefix),
                None => collection.as_str() == self.collections,
            }
    }

    /// Returns whether a document, or without one the whole collection, lies within the target with all its fields.
    #[must_use]
    pub fn covers(&self, collection: &CollectionName, doc: Option<&DocId>) -> bool {
        self.fields.is_all() && self.reaches(collection, doc)
    }

    /// Returns whether a document, or without one each of the collection, lies within the target with all its fields or some.
    #[must_use]
    pub fn reaches(&self, collection: &CollectionName, doc: Option<&DocId>) -> bool {
        self.touches(collection) && doc.map_or(self.documents.is_all(), |doc| self.documents.covers(doc))
    }

    /// Returns whether everything within `other` lies within this target too.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let collections = match self.collections.strip_suffix('*') {
            Some(prefix) => other.collections.starts_with(prefix),
            None => other.collections == self.collections,
        };
        collections && self.documents.contains(&other.documents) && self.fields.contains(&other.fields)
    }

    /// Checks the target; says what is wrong.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), &'static str> {
        let name = self.collections.strip_suffix('*').unwrap_or(&self.collections);
        let collections = (name.is_empty() && self.collections == "*")
            || name.parse::<CollectionName>().is_ok_and(|name| !name.is_system());
        if !collections {
            return Err("target is no collection name or prefix");
        }
        self.documents.is_valid().then_some(()).ok_or("target is no prefix of document ids")?;
        self.fields
            .is_valid()
            .then_some(())
            .ok_or("fields of a target are none, too many, out of order or below one another")
    }
}
