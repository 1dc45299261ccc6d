//! The document calls over serde types.

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::id::{CollectionName, DocId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Error, ErrorCode, Result};
use super::heads::Heads;
use super::write::{WriteOptions, WriteOutcome};
use super::{Database, ReadOptions};

/// A typed document with the version it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed<T> {
    /// The content.
    pub value: T,
    /// The version: pass it as [`WriteOptions::merge_onto`] or in a precondition when writing back.
    pub heads: Heads,
}

/// Typed reads and writes for every [`Database`].
#[async_trait]
pub trait TypedDatabase: Database {
    /// Returns a document as a `T`; none if it does not exist.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidDocument`] if the document is no `T`; otherwise as [`Database::get`].
    async fn get_as<T: DeserializeOwned + Send>(
        &self,
        collection: &CollectionName,
        id: &DocId,
    ) -> Result<Option<Typed<T>>> {
        let document = match self.get(collection, id, &ReadOptions::default()).await {
            Ok(document) => document,
            Err(error) if error.code() == ErrorCode::DocumentNotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let value = serde_json::from_slice(&document.json).map_err(|e| {
            Error::new(ErrorCode::InvalidDocument, format!("document {id} does not have the expected form: {e}"))
        })?;
        Ok(Some(Typed { value, heads: document.heads }))
    }

    /// Makes a document have this content.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidDocument`] if the value cannot be JSON; otherwise as [`Database::put`].
    async fn put_as<T: Serialize + Sync>(
        &self,
        collection: &CollectionName,
        id: DocId,
        value: &T,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        self.put(collection, id, encode(value)?, options).await
    }

    /// Creates a document with this content; without `id` the node makes a time-ordered one.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidDocument`] if the value cannot be JSON; otherwise as [`Database::create`].
    async fn create_as<T: Serialize + Sync>(
        &self,
        collection: &CollectionName,
        id: Option<DocId>,
        value: &T,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        self.create(collection, id, encode(value)?, options).await
    }
}

impl<D: Database + ?Sized> TypedDatabase for D {}

fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| Error::new(ErrorCode::InvalidDocument, format!("the value cannot be written as JSON: {e}")))
}
