//! The same for programs that are not async: each call waits for its answer.
//!
//! A [`Database`] is a node elsewhere, one embedded in this process, or whatever else is a [`crate::Database`], with a runtime of its own
//! that nobody else sees. Threads may share one. What has no method of its own here is done by [`Database::call`].
//!
//! It must not be used from within an async runtime of tokio, whose threads it would hold up: each call says so by an error
//! ([`ErrorCode::NotSupported`]). There use [`Client`] and [`Node`] themselves.
//!
//! ```no_run
//! use folkmoot::{Client, blocking};
//!
//! fn main() -> folkmoot::Result<()> {
//!     let token = std::fs::read_to_string("folkmoot-data/owner.token").expect("the token of the data directory");
//!     let database = blocking::Database::connect(Client::builder("http://127.0.0.1:7070").token(token))?;
//!     let (notes, id) = ("notes".parse()?, "a".parse()?);
//!     database.put(&notes, id, r#"{"title": "hello"}"#.into(), &Default::default())?;
//!     for document in database.export(notes, None) {
//!         let document = document?;
//!         println!("{} {}", document.id, String::from_utf8_lossy(&document.json));
//!     }
//!     Ok(())
//! }
//! ```

use std::sync::Arc;

use bytes::Bytes;
use folkmoot_core::id::{CollectionName, DocId};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::api::{
    self, AggregatePage, AggregateQuery, At, BulkOp, BulkOptions, Change, ChangesPage, ChangesQuery, CollectionInfo,
    CollectionSettings, Conflict, Diff, Document, Error, ErrorCode, FindPage, FindQuery, HistoryPage, HistoryQuery,
    ListPage, ListQuery, LiveEvent, Patch, ReadOptions, Result, Status, WriteOptions, WriteOutcome, error_chain,
};
use crate::client::{Client, ClientBuilder};
use crate::node::{Node, NodeConfig, OpenError};

/// A node does work of its own beside that of its callers.
const NODE_THREADS: usize = 2;
/// A client only waits.
const CLIENT_THREADS: usize = 1;

/// A database whose calls wait for their answers.
///
/// ```
/// fn titles(database: &folkmoot::blocking::Database) -> folkmoot::Result<Vec<String>> {
///     let documents = database.export("notes".parse()?, None);
///     documents.map(|document| Ok(String::from_utf8_lossy(&document?.json).into_owned())).collect()
/// }
/// ```
pub struct Database {
    inner: Arc<dyn api::Database>,
    /// There until it is dropped.
    runtime: Option<Arc<Owned>>,
    /// If it is in this process.
    node: Option<Node>,
}

/// The runtime. To drop one waits for its tasks, which panics where nobody may wait; so they are left to end by themselves.
struct Owned(Option<Runtime>);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Checks that this thread may wait.
fn may_wait() -> Result<()> {
    if Handle::try_current().is_ok() {
        return Err(Error::new(ErrorCode::NotSupported, "blocking calls cannot be made from within an async runtime")
            .hint("use `folkmoot::Client` or `folkmoot::Node` there, or call from a thread of your own (`std::thread::spawn`)"));
    }
    Ok(())
}

fn start(threads: usize) -> Result<Arc<Owned>> {
    may_wait()?;
    let runtime =
        Builder::new_multi_thread().worker_threads(threads).thread_name("folkmoot-blocking").enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(ErrorCode::Internal, "start the runtime").with_source(error))?;
    Ok(Arc::new(Owned(Some(runtime))))
}

fn wait<T>(runtime: Option<&Arc<Owned>>, future: impl Future<Output = T>) -> Result<T> {
    may_wait()?;
    match runtime.and_then(|owned| owned.0.as_ref()) {
        Some(runtime) => Ok(runtime.block_on(future)),
        None => Err(Error::new(ErrorCode::ShuttingDown, "the database was shut down")),
    }
}

fn not_opened(error: OpenError) -> Error {
    let code = if matches!(error, OpenError::Unlock(_)) { ErrorCode::Locked } else { ErrorCode::Internal };
    Error::new(code, error_chain(&error)).with_source(error)
}

impl Database {
    /// Returns the database that a client reaches. No node is asked yet.
    ///
    /// ```
    /// # fn example() -> folkmoot::Result<()> {
    /// let client = folkmoot::Client::builder("http://127.0.0.1:7070").password("ann", "correct horse battery staple");
    /// let database = folkmoot::blocking::Database::connect(client)?;
    /// # Ok(()) }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`ClientBuilder::build`]; [`ErrorCode::NotSupported`] within an async runtime.
    pub fn connect(client: ClientBuilder) -> Result<Self> {
        let runtime = start(CLIENT_THREADS)?;
        let client: Client = wait(Some(&runtime), async { client.build() })??;
        Ok(Self { inner: Arc::new(client), runtime: Some(runtime), node: None })
    }

    /// Opens the node of a data directory in this process. End it by [`Self::shutdown`].
    ///
    /// ```
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use folkmoot::{InitOptions, Node, NodeConfig, blocking};
    ///
    /// let folder = std::path::Path::new("data");
    /// if Node::is_new(folder) {
    ///     Node::init(folder, &InitOptions::default())?;
    /// }
    /// let database = blocking::Database::open(NodeConfig::new(folder))?;
    /// println!("{}", database.status()?.node);
    /// database.shutdown()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorCode::Locked`] if the directory is sealed and was not unlocked, [`ErrorCode::Internal`] with all other reasons of [`Node::open`];
    /// [`ErrorCode::NotSupported`] within an async runtime.
    pub fn open(config: NodeConfig) -> Result<Self> {
        let runtime = start(NODE_THREADS)?;
        let node = wait(Some(&runtime), Node::open(config))?.map_err(not_opened)?;
        Ok(Self { inner: Arc::new(node.clone()), runtime: Some(runtime), node: Some(node) })
    }

    /// Returns a database of any kind, as the node that acts for one of the app's users. Its own tasks must not run on a runtime that
    /// waits for this.
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use std::sync::Arc;
    /// use folkmoot::blocking;
    ///
    /// if let Some(node) = database.node() {
    ///     let ann = blocking::Database::over(Arc::new(node.acting_for(&"ann".parse()?)?))?;
    ///     println!("{}", ann.collections()?.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorCode::NotSupported`] within an async runtime.
    pub fn over(database: Arc<dyn api::Database>) -> Result<Self> {
        Ok(Self { inner: database, runtime: Some(start(CLIENT_THREADS)?), node: None })
    }

    /// Returns the node, if it is in this process.
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) {
    /// if let Some(node) = database.node() {
    ///     println!("others reach it at {}", node.p2p_addresses().join(", "));
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Ends it. A node tells its peers and commits what waits; what was acknowledged is on the disk already, so a database that is dropped
    /// loses nothing of that either.
    ///
    /// ```
    /// # fn example(database: folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// database.shutdown()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorCode::NotSupported`] within an async runtime; then it is dropped.
    pub fn shutdown(self) -> Result<()> {
        match &self.node {
            Some(node) => wait(self.runtime.as_ref(), node.shutdown()),
            None => Ok(()),
        }
    }

    /// Makes any call of the async database, as those about access, keys and the audit, and waits for its answer.
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use folkmoot::Access as _;
    ///
    /// let caller = database.call(|database| async move { database.caller().await })?;
    /// println!("{}", caller.name);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of the call; [`ErrorCode::NotSupported`] within an async runtime.
    pub fn call<T, F: Future<Output = Result<T>>>(&self, call: impl FnOnce(Arc<dyn api::Database>) -> F) -> Result<T> {
        wait(self.runtime.as_ref(), async { call(self.inner.clone()).await })?
    }

    /// Returns a document: [`get`](api::Database::get).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// let document = database.get(&"notes".parse()?, &"a".parse()?, &Default::default())?;
    /// println!("{} is at {}", document.id, document.heads);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of that call, as all methods below; [`ErrorCode::NotSupported`] within an async runtime.
    pub fn get(&self, collection: &CollectionName, id: &DocId, options: &ReadOptions) -> Result<Document> {
        wait(self.runtime.as_ref(), self.inner.get(collection, id, options))?
    }

    /// Makes a document have this content: [`put`](api::Database::put).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// let json = r#"{"title": "hello"}"#;
    /// let outcome = database.put(&"notes".parse()?, "a".parse()?, json.into(), &Default::default())?;
    /// println!("{}", outcome.status.name());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn put(
        &self,
        collection: &CollectionName,
        id: DocId,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        wait(self.runtime.as_ref(), self.inner.put(collection, id, json, options))?
    }

    /// Creates a document that must not exist: [`create`](api::Database::create).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// let outcome = database.create(&"notes".parse()?, None, r#"{"title": "hello"}"#.into(), &Default::default())?;
    /// println!("it is {}", outcome.id);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn create(
        &self,
        collection: &CollectionName,
        id: Option<DocId>,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        wait(self.runtime.as_ref(), self.inner.create(collection, id, json, options))?
    }

    /// Changes parts of a document: [`patch`](api::Database::patch).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use folkmoot::api::{Patch, PatchKind};
    ///
    /// let patch = Patch { kind: PatchKind::Merge, body: r#"{"title": "hello again"}"#.into() };
    /// database.patch(&"notes".parse()?, "a".parse()?, patch, &Default::default())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn patch(
        &self,
        collection: &CollectionName,
        id: DocId,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        wait(self.runtime.as_ref(), self.inner.patch(collection, id, patch, options))?
    }

    /// Deletes a document: [`delete`](api::Database::delete).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// database.delete(&"notes".parse()?, "a".parse()?, &Default::default())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn delete(&self, collection: &CollectionName, id: DocId, options: &WriteOptions) -> Result<WriteOutcome> {
        wait(self.runtime.as_ref(), self.inner.delete(collection, id, options))?
    }

    /// Makes many edits: [`bulk`](api::Database::bulk).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use folkmoot::api::{BulkOp, Edit};
    ///
    /// let edits = vec![BulkOp::from(Edit::Put { id: "a".parse()?, json: "{}".into() })];
    /// for outcome in database.bulk(&"notes".parse()?, edits, &Default::default())? {
    ///     println!("{}", outcome?.status.name());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn bulk(
        &self,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>> {
        wait(self.runtime.as_ref(), self.inner.bulk(collection, edits, options))?
    }

    /// Returns a page of documents by id: [`list`](api::Database::list).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use folkmoot::api::ListQuery;
    ///
    /// let page = database.list(&"notes".parse()?, &ListQuery { limit: Some(10), ..ListQuery::default() })?;
    /// println!("{} documents, and {}", page.items.len(), if page.next.is_some() { "more" } else { "no more" });
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn list(&self, collection: &CollectionName, query: &ListQuery) -> Result<ListPage> {
        wait(self.runtime.as_ref(), self.inner.list(collection, query))?
    }

    /// Goes through all documents of a collection by id: [`export`](api::export).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// for document in database.export("notes".parse()?, Some("2026-".to_owned())) {
    ///     println!("{}", document?.id);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn export(&self, collection: CollectionName, prefix: Option<String>) -> Items<Document> {
        self.items(|database| api::export(database, collection, prefix))
    }

    /// Finds documents by what is in them: [`find`](api::Queries::find).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use folkmoot::api::FindQuery;
    ///
    /// let query = FindQuery::new(serde_json::json!({"age": {"$gte": 18}})).limit(10);
    /// for document in database.find(&"people".parse()?, &query)?.items {
    ///     println!("{}", document.id);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn find(&self, collection: &CollectionName, query: &FindQuery) -> Result<FindPage> {
        wait(self.runtime.as_ref(), self.inner.find(collection, query))?
    }

    /// Goes through all documents that a query means, page after page.
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use folkmoot::api::FindQuery;
    ///
    /// let query = FindQuery::new(serde_json::json!({"age": {"$gte": 18}}));
    /// println!("{} of age", database.find_all("people".parse()?, query).count());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn find_all(&self, collection: CollectionName, query: FindQuery) -> Items<Document> {
        self.items(|database| api::find_all(database, collection, query))
    }

    /// Computes values over many documents: [`aggregate`](api::Queries::aggregate).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use folkmoot::api::AggregateQuery;
    ///
    /// let query = AggregateQuery::count(serde_json::json!({"age": {"$gte": 18}}));
    /// println!("{:?}", database.aggregate(&"people".parse()?, &query)?.groups);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn aggregate(&self, collection: &CollectionName, query: &AggregateQuery) -> Result<AggregatePage> {
        wait(self.runtime.as_ref(), self.inner.aggregate(collection, query))?
    }

    /// Follows a query: [`live`](api::Live::live). The iterator waits for what comes; it ends after an error.
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// use folkmoot::api::{FindQuery, LiveEvent};
    ///
    /// for event in database.live(&"people".parse()?, FindQuery::new(serde_json::json!({"age": {"$gte": 18}}))) {
    ///     if let LiveEvent::Added(document) = event? {
    ///         println!("{}", document.id);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn live(&self, collection: &CollectionName, query: FindQuery) -> Items<LiveEvent> {
        self.items(|database| database.live(collection, query))
    }

    /// Returns where concurrent writers left more than one value: [`conflicts`](api::Database::conflicts).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// for conflict in database.conflicts(&"notes".parse()?, &"a".parse()?)? {
    ///     println!("{}: {} values", conflict.pointer, conflict.values.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn conflicts(&self, collection: &CollectionName, id: &DocId) -> Result<Vec<Conflict>> {
        wait(self.runtime.as_ref(), self.inner.conflicts(collection, id))?
    }

    /// Returns the collections by name: [`collections`](api::Database::collections).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// for collection in database.collections()? {
    ///     println!("{}", collection.name);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn collections(&self) -> Result<Vec<CollectionInfo>> {
        wait(self.runtime.as_ref(), self.inner.collections())?
    }

    /// Returns one collection: [`collection`](api::Database::collection).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// println!("{} shards", database.collection(&"notes".parse()?)?.settings.shards);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn collection(&self, name: &CollectionName) -> Result<CollectionInfo> {
        wait(self.runtime.as_ref(), self.inner.collection(name))?
    }

    /// Creates a collection or replaces its settings: [`configure`](api::Database::configure).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// database.configure(&"notes".parse()?, Default::default())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn configure(&self, name: &CollectionName, settings: CollectionSettings) -> Result<CollectionInfo> {
        wait(self.runtime.as_ref(), self.inner.configure(name, settings))?
    }

    /// Returns what was committed after a point: [`changes`](api::Database::changes).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// let page = database.changes(&Default::default())?;
    /// println!("{} changes", page.items.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage> {
        wait(self.runtime.as_ref(), self.inner.changes(query))?
    }

    /// Follows changes: [`subscribe`](api::Database::subscribe). The iterator waits for what comes; it ends after an error.
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// for change in database.subscribe(Default::default()).take(10) {
    ///     println!("{}", change?.id);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn subscribe(&self, query: ChangesQuery) -> Items<Change> {
        self.items(|database| database.subscribe(query))
    }

    /// Returns who changed a document, when and how: [`history`](api::Histories::history).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// for item in database.history(&"notes".parse()?, &"a".parse()?, &Default::default())?.items {
    ///     println!("{} {} by {}", item.time, item.action, item.name);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn history(&self, collection: &CollectionName, id: &DocId, query: &HistoryQuery) -> Result<HistoryPage> {
        wait(self.runtime.as_ref(), self.inner.history(collection, id, query))?
    }

    /// Returns what is different between two versions: [`diff`](api::Histories::diff).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// let since = "2026-03-01T08:00:00Z".parse()?;
    /// println!("{:?}", database.diff(&"notes".parse()?, &"a".parse()?, &since, None)?.patch);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn diff(&self, collection: &CollectionName, id: &DocId, from: &At, to: Option<&At>) -> Result<Diff> {
        wait(self.runtime.as_ref(), self.inner.diff(collection, id, from, to))?
    }

    /// Makes a document have the content again that it had: [`restore`](api::Histories::restore).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// let then = "2026-03-01T08:00:00Z".parse()?;
    /// database.restore(&"notes".parse()?, &"a".parse()?, Some(&then), &Default::default())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn restore(
        &self,
        collection: &CollectionName,
        id: &DocId,
        at: Option<&At>,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        wait(self.runtime.as_ref(), self.inner.restore(collection, id, at, options))?
    }

    /// Returns a document with its history as a file of Automerge: [`automerge`](api::Histories::automerge).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> Result<(), Box<dyn std::error::Error>> {
    /// std::fs::write("a.automerge", database.automerge(&"notes".parse()?, &"a".parse()?)?)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn automerge(&self, collection: &CollectionName, id: &DocId) -> Result<Bytes> {
        wait(self.runtime.as_ref(), self.inner.automerge(collection, id))?
    }

    /// Creates a document with the content of a file of Automerge: [`create_from_automerge`](api::Database::create_from_automerge).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = std::fs::read("a.automerge")?;
    /// database.create_from_automerge(&"notes".parse()?, None, file.into(), &Default::default())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn create_from_automerge(
        &self,
        collection: &CollectionName,
        id: Option<DocId>,
        file: Bytes,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        wait(self.runtime.as_ref(), self.inner.create_from_automerge(collection, id, file, options))?
    }

    /// Returns what the node is and how it fares: [`status`](api::Database::status).
    ///
    /// ```
    /// # fn example(database: &folkmoot::blocking::Database) -> folkmoot::Result<()> {
    /// println!("{}", database.status()?.node);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] tells.
    pub fn status(&self) -> Result<Status> {
        wait(self.runtime.as_ref(), self.inner.status())?
    }

    fn items<T>(&self, begin: impl FnOnce(Arc<dyn api::Database>) -> BoxStream<'static, Result<T>>) -> Items<T> {
        // Whatever it starts belongs to this runtime.
        let entered = self.runtime.as_ref().and_then(|owned| owned.0.as_ref()).map(Runtime::enter);
        let stream = begin(self.inner.clone());
        drop(entered);
        Items { stream, runtime: self.runtime.clone(), ended: false }
    }
}

/// What comes one after the other. Each step waits for the next; after an error there is nothing more.
///
/// ```
/// fn first(items: &mut folkmoot::blocking::Items<folkmoot::api::Change>) -> folkmoot::Result<()> {
///     if let Some(change) = items.next() {
///         println!("{}", change?.id);
///     }
///     Ok(())
/// }
/// ```
pub struct Items<T> {
    stream: BoxStream<'static, Result<T>>,
    runtime: Option<Arc<Owned>>,
    ended: bool,
}

impl<T> std::fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<T> Iterator for Items<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.ended {
            return None;
        }
        let next = wait(self.runtime.as_ref(), self.stream.next()).unwrap_or_else(|error| Some(Err(error)));
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::InitOptions;

    fn is_refused<T>(result: Result<T>) -> bool {
        result.err().is_some_and(|error| error.code() == ErrorCode::NotSupported)
    }

    #[test]
    fn a_node_is_used_without_async() {
        let folder = tempfile::tempdir().unwrap();
        Node::init(folder.path(), &InitOptions::default()).unwrap();
        let database = Database::open(NodeConfig::new(folder.path())).unwrap();
        let notes: CollectionName = "notes".parse().unwrap();
        let options = WriteOptions::default();
        for id in ["a", "b"] {
            database.put(&notes, id.parse().unwrap(), r#"{"n":1}"#.into(), &options).unwrap();
        }
        let ids: Vec<_> =
            database.export(notes.clone(), None).map(|document| document.unwrap().id.to_string()).collect();
        assert_eq!(ids, ["a", "b"]);
        let query = FindQuery::new(serde_json::json!({"n": 1}));
        assert_eq!(database.find_all(notes.clone(), query).count(), 2);
        let missing = database.get(&notes, &"c".parse().unwrap(), &ReadOptions::default()).unwrap_err();
        assert_eq!(missing.code(), ErrorCode::DocumentNotFound);
        let changes = database.subscribe(ChangesQuery::default()).take(2);
        assert_eq!(changes.map(|change| change.unwrap().id.to_string()).collect::<Vec<_>>(), ["a", "b"]);
        let nobody = database.call(|database| async move { database.collection(&"none".parse().unwrap()).await });
        assert_eq!(nobody.unwrap_err().code(), ErrorCode::CollectionNotFound);
        let file = database.automerge(&notes, &"a".parse().unwrap()).unwrap();
        let copy = database.create_from_automerge(&notes, None, file, &options).unwrap();
        assert_eq!(database.get(&notes, &copy.id, &ReadOptions::default()).unwrap().json, r#"{"n":1}"#);
        database.shutdown().unwrap();
        // The directory is free again.
        Database::open(NodeConfig::new(folder.path())).unwrap().shutdown().unwrap();
    }

    #[test]
    fn within_a_runtime_it_is_refused_without_a_panic() {
        let outside = Database::connect(Client::builder("http://127.0.0.1:1").attempts(1)).unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            assert!(is_refused(Database::connect(Client::builder("http://127.0.0.1:1"))));
            assert!(is_refused(Database::open(NodeConfig::new("nowhere"))));
            assert!(is_refused(outside.collections()));
            let mut items = outside.export("notes".parse().unwrap(), None);
            assert!(is_refused(items.next().unwrap()));
            assert!(items.next().is_none());
            // To drop it is allowed.
            drop((items, outside));
        });
    }
}
