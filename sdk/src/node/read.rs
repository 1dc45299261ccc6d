//! Reads: on a thread for blocking calls where they may be long, on the caller's own where they are one look-up.

use folkmoot_core::document::conflicts;
use folkmoot_core::id::{CollectionName, DocId};
use folkmoot_core::replica::{DocKey, View};

use super::Inner;
use super::convert::{erased, not_found, read_error};
use crate::api::{
    Conflict, ConflictValue, Cursor, Document, Error, ErrorCode, Heads, ListPage, ListQuery, Result, Timestamp,
};

impl Inner {
    /// Runs a read that may take long, or load a document, on a thread with a stack that is large enough.
    pub(super) async fn read_on_thread<T: Send + 'static>(
        &self,
        read: impl FnOnce(&folkmoot_core::replica::Reader) -> T + Send + 'static,
    ) -> Result<T> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || read(&reader))
            .await
            .map_err(|error| Error::new(ErrorCode::Internal, "the read failed").with_source(error))
    }

    pub(super) fn document(collection: &CollectionName, view: View) -> Document {
        Document {
            collection: collection.clone(),
            id: view.doc,
            json: view.json,
            heads: Heads::new(view.heads),
            modified: Timestamp::from_millis(view.modified.millis()),
            stale: false,
            session: None,
        }
    }

    /// Returns the view of a document that exists.
    pub(super) fn view(&self, collection: &CollectionName, id: &DocId) -> Result<View> {
        let key = DocKey { collection: collection.clone(), doc: id.clone() };
        match self.reader.get(&key).map_err(read_error)? {
            Some(view) if !view.deleted => Ok(view),
            Some(view) if view.erased => Err(erased(id)),
            Some(_) | None => Err(not_found(id)),
        }
    }

    pub(super) fn get(&self, collection: &CollectionName, id: &DocId) -> Result<Document> {
        Ok(Self::document(collection, self.view(collection, id)?))
    }

    pub(super) async fn list(&self, collection: &CollectionName, query: &ListQuery) -> Result<ListPage> {
        let after = query.after.as_ref().map(Cursor::document).transpose()?;
        let (name, prefix, limit) = (collection.clone(), query.prefix.clone().unwrap_or_default(), query.limit());
        let views = self
            .read_on_thread(move |reader| {
                reader.list(&name, &prefix, after.as_ref(), limit + 1, ListQuery::PAGE_BYTES_MAX)
            })
            .await?
            .map_err(read_error)?;
        let bytes: usize = views.iter().map(|view| view.json.len()).sum();
        let full = views.len() > limit || bytes >= ListQuery::PAGE_BYTES_MAX;
        let items: Vec<Document> = views.into_iter().take(limit).map(|view| Self::document(collection, view)).collect();
        if items.is_empty() && query.after.is_none() {
            // Nothing in it, or no such collection: only the first is an answer.
            self.collection(collection).await?;
        }
        let next = items.last().filter(|_| full).map(|last| Cursor::after_document(&last.id));
        Ok(ListPage { items, next })
    }

    pub(super) async fn conflicts(&self, collection: &CollectionName, id: &DocId) -> Result<Vec<Conflict>> {
        let key = DocKey { collection: collection.clone(), doc: id.clone() };
        self.get(collection, id)?;
        let found = self
            .on_large_stack(move |reader| {
                let document = reader.document(&key).map_err(read_error)?;
                conflicts::list(document.view_with_history())
                    .map_err(|error| Error::new(ErrorCode::Damaged, "the document cannot be read").with_source(error))
            })
            .await??;
        found
            .places
            .into_iter()
            .map(|place| {
                let values = place.alternatives.into_iter().map(|alternative| {
                    let text = folkmoot_core::document::json::render_value(&alternative.value);
                    let value = serde_json::from_str(&text)
                        .map_err(|error| Error::new(ErrorCode::Internal, "render a value").with_source(error))?;
                    Ok(ConflictValue {
                        value,
                        change: Some(folkmoot_core::document::change_hash(&alternative.change)),
                        author: None,
                    })
                });
                Ok(Conflict { pointer: place.pointer.to_string(), values: values.collect::<Result<_>>()? })
            })
            .collect()
    }

    /// Runs a read on a thread of its own with the stack that documents need.
    pub(super) async fn on_large_stack<T: Send + 'static>(
        &self,
        read: impl FnOnce(&folkmoot_core::replica::Reader) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let reader = self.reader.clone();
        let failed = |what: String| Error::new(ErrorCode::Internal, format!("read a document: {what}"));
        std::thread::Builder::new()
            .name("folkmoot-read".into())
            .stack_size(folkmoot_core::document::gate::STACK_BYTES)
            .spawn(move || drop(reply.send(read(&reader))))
            .map_err(|error| failed(error.to_string()))?;
        answer.await.map_err(|_| failed("the reading thread ended".to_owned()))
    }
}
