//! A database in memory for the tests of the HTTP face: enough to see that what is asked arrives and what is answered
//! comes back. It merges nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot::api::*;
use folkmoot::{AuthorKey, ChangeHash, ClusterId, CollectionName, Database, DocId, OpId, PrincipalId, Result};
use futures_util::stream::BoxStream;

type Key = (CollectionName, DocId);

#[derive(Default)]
struct State {
    documents: BTreeMap<Key, (Bytes, Heads)>,
    collections: BTreeMap<CollectionName, CollectionSettings>,
    log: Vec<Change>,
    keys: BTreeMap<IdempotencyKey, WriteOutcome>,
    version: u64,
    blocked: Vec<AuthorKey>,
}

/// Also notes what it was asked, so that tests can look.
#[derive(Default)]
pub(super) struct Memory {
    state: Mutex<State>,
    committed: tokio::sync::Notify,
    /// Told when somebody begins to wait for changes.
    pub(super) waiting: tokio::sync::Notify,
    /// Fails every read of a document with this id.
    pub(super) broken: Mutex<Option<Error>>,
    pub(super) last_write: Mutex<Option<WriteOptions>>,
}

impl State {
    fn write(&mut self, collection: &CollectionName, edit: Edit, precondition: &Precondition) -> Result<WriteOutcome> {
        self.version += 1;
        let made = DocId::clone(&format!("made-{}", self.version).parse().unwrap());
        let id = edit.id().cloned().unwrap_or(made);
        let key = (collection.clone(), id.clone());
        let current = self.documents.get(&key).cloned();
        precondition.check(current.as_ref().map(|(_, heads)| heads))?;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.version.to_be_bytes());
        let heads = Heads::new(vec![ChangeHash::new(hash)]);
        let missing = || Error::new(ErrorCode::DocumentNotFound, format!("document {id} does not exist"));
        let object = |json: &Bytes| {
            serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json)
                .map_err(|e| Error::new(ErrorCode::InvalidJson, e.to_string()))
        };
        let (json, status) = match edit {
            Edit::Create { .. } if current.is_some() => {
                return Err(Error::new(ErrorCode::AlreadyExists, format!("document {id} exists already")));
            }
            Edit::Create { json, .. } => (Some(json), WriteStatus::Created),
            Edit::Put { json, .. } => {
                (Some(json), if current.is_some() { WriteStatus::Updated } else { WriteStatus::Created })
            }
            Edit::Patch { patch, .. } => {
                let (old, _) = current.ok_or_else(missing)?;
                let mut merged = object(&old)?;
                merged.extend(object(&patch.body)?);
                (Some(serde_json::to_vec(&merged).unwrap().into()), WriteStatus::Updated)
            }
            Edit::Delete { .. } => {
                current.ok_or_else(missing)?;
                (None, WriteStatus::Deleted)
            }
        };
        if let Some(json) = &json {
            object(json)?;
        }
        self.collections.entry(collection.clone()).or_default();
        let kind = if json.is_some() { ChangeKind::Changed } else { ChangeKind::Deleted };
        match json {
            Some(json) => self.documents.insert(key, (json, heads.clone())),
            None => self.documents.remove(&key),
        };
        self.log.push(Change {
            token: ChangeToken::new((self.log.len() + 1).to_string())?,
            collection: collection.clone(),
            id: id.clone(),
            kind,
            heads: heads.clone(),
            modified: Timestamp::from_millis(self.version),
            json: None,
        });
        Ok(WriteOutcome {
            id,
            heads,
            status,
            modified: Timestamp::from_millis(self.version),
            durability: DurabilityReached::LOCAL,
            session: Some(SessionToken::default()),
        })
    }

    fn known(&self, name: &CollectionName) -> Result<CollectionInfo> {
        let settings = self.collections.get(name).cloned();
        let settings = settings
            .ok_or_else(|| Error::new(ErrorCode::CollectionNotFound, format!("collection {name} does not exist")))?;
        let of = self.documents.iter().filter(|((collection, _), _)| collection == name);
        let (documents, bytes) = of.fold((0, 0), |(n, bytes), (_, (json, _))| (n + 1, bytes + json.len() as u64));
        Ok(CollectionInfo {
            name: name.clone(),
            settings,
            documents: Some(documents),
            bytes: Some(bytes),
            schema_check: None,
            unique_check: None,
        })
    }

    fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage> {
        let from = match &query.since {
            Since::Beginning => 0,
            Since::Now => self.log.len(),
            Since::After(token) => {
                token.as_str().parse().map_err(|_| Error::new(ErrorCode::InvalidCursor, "no token of this node"))?
            }
        };
        let wanted = |change: &&Change| query.collection.as_ref().is_none_or(|name| change.collection == *name);
        let items: Vec<Change> = self.log.iter().skip(from).filter(wanted).take(query.limit()).cloned().collect();
        let next = match items.last() {
            Some(last) if items.len() == query.limit() => last.token.clone(),
            Some(_) | None => ChangeToken::new(self.log.len().to_string())?,
        };
        Ok(ChangesPage { items, next, more: false })
    }
}

/// Shared, because `poll_changes` wants a database it can clone.
#[derive(Clone, Default)]
pub(super) struct Shared(pub(super) std::sync::Arc<Memory>);

fn nobody<T>() -> Result<T> {
    Err(Error::new(ErrorCode::NotSupported, "nobody but the owner is known here"))
}

/// Nobody but the owner: who may do what is tested with real nodes.
#[async_trait]
impl Access for Shared {
    async fn caller(&self) -> Result<Caller> {
        Ok(Caller { owner: true, principal: PrincipalId::ZERO, name: "owner".to_owned(), token: None })
    }

    async fn principals(&self) -> Result<Vec<PrincipalInfo>> {
        Ok(Vec::new())
    }

    async fn add_principal(&self, _: &NewPrincipal) -> Result<PrincipalInfo> {
        nobody()
    }

    async fn remove_principal(&self, _: &PrincipalName, _: &RevokeOptions) -> Result<Revocation> {
        nobody()
    }

    async fn roles(&self) -> Result<Vec<RoleInfo>> {
        Ok(Vec::new())
    }

    async fn add_role(&self, _: &NewRole) -> Result<RoleInfo> {
        nobody()
    }

    async fn grant(&self, _: &PrincipalName, _: &NewGrant) -> Result<GrantInfo> {
        nobody()
    }

    async fn join_group(&self, _: &PrincipalName, _: &PrincipalName, _: Option<Timestamp>) -> Result<MembershipInfo> {
        nobody()
    }

    async fn issue_token(&self, _: &PrincipalName, _: &NewToken) -> Result<IssuedToken> {
        nobody()
    }

    async fn set_password(&self, _: &PrincipalName, _: &NewPassword) -> Result<TokenInfo> {
        nobody()
    }

    async fn trust_certificate(&self, _: &PrincipalName, _: &NewCertificate) -> Result<TokenInfo> {
        nobody()
    }

    async fn link_identity(&self, _: &PrincipalName, _: &NewIdentity) -> Result<TokenInfo> {
        nobody()
    }

    async fn revoke(&self, _: &OpId, _: &RevokeOptions) -> Result<Revocation> {
        nobody()
    }

    async fn readmit(&self, _: &OpId, _: u16) -> Result<Revocation> {
        nobody()
    }

    async fn can(&self, _: &AccessQuestion) -> Result<AccessAnswer> {
        Ok(AccessAnswer { allowed: true, grant: None, reason: None })
    }
}

#[async_trait]
impl Erasures for Shared {
    async fn erase(&self, _: &CollectionName, _: &NewErasure) -> Result<Erasure> {
        nobody()
    }

    async fn erasures(&self, _: &ErasuresQuery) -> Result<ErasuresPage> {
        Ok(ErasuresPage::default())
    }

    async fn erasure(&self, _: &OpId) -> Result<Erasure> {
        nobody()
    }
}

impl Live for Shared {
    fn live(&self, _: &CollectionName, _: FindQuery) -> BoxStream<'static, Result<LiveEvent>> {
        Box::pin(futures_util::stream::once(async { nobody() }))
    }
}

/// Has always seen everything.
#[async_trait]
impl Sessions for Shared {
    async fn catch_up(&self, _: &Touched, _: &SessionToken, _: Option<std::time::Duration>) -> Result<()> {
        Ok(())
    }

    async fn session(&self, _: &Touched, _: Option<&SessionToken>) -> Result<SessionToken> {
        Ok(SessionToken::default())
    }
}

#[async_trait]
impl Queries for Shared {
    async fn find(&self, _: &CollectionName, _: &FindQuery) -> Result<FindPage> {
        nobody()
    }

    async fn aggregate(&self, _: &CollectionName, _: &AggregateQuery) -> Result<AggregatePage> {
        nobody()
    }

    async fn indexes(&self, _: &CollectionName) -> Result<Vec<IndexInfo>> {
        nobody()
    }
}

#[async_trait]
impl Histories for Shared {
    async fn history(&self, _: &CollectionName, _: &DocId, _: &HistoryQuery) -> Result<HistoryPage> {
        nobody()
    }

    async fn diff(&self, _: &CollectionName, _: &DocId, _: &At, _: Option<&At>) -> Result<Diff> {
        nobody()
    }

    async fn restore(&self, _: &CollectionName, _: &DocId, _: Option<&At>, _: &WriteOptions) -> Result<WriteOutcome> {
        nobody()
    }

    async fn automerge(&self, _: &CollectionName, _: &DocId) -> Result<Bytes> {
        nobody()
    }
}

#[async_trait]
impl Audit for Shared {
    async fn audit(&self, _: &AuditQuery) -> Result<AuditPage> {
        nobody()
    }

    async fn audit_status(&self) -> Result<AuditStatus> {
        nobody()
    }

    async fn audit_proof(&self, _: &AuditSubject) -> Result<Bytes> {
        nobody()
    }

    async fn why(&self, _: &OpId) -> Result<Explanation> {
        nobody()
    }

    async fn audit_verify(&self) -> Result<AuditVerifyReport> {
        nobody()
    }
}

#[async_trait]
impl Witnesses for Shared {
    async fn witnesses(&self) -> Result<Vec<Witness>> {
        Ok(Vec::new())
    }

    async fn appoint_witnesses(&self, _: &NewWitnesses) -> Result<Vec<Witness>> {
        nobody()
    }

    async fn dismiss_witness(&self, _: &str, _: &RevokeOptions) -> Result<Revocation> {
        nobody()
    }
}

#[async_trait]
impl Authors for Shared {
    async fn authors(&self) -> Result<Vec<AuthorInfo>> {
        nobody()
    }

    async fn revoke_author(&self, _: &AuthorKey, _: &RevokeOptions) -> Result<Revocation> {
        nobody()
    }

    async fn replace_author(&self, _: &AuthorKey, _: &AuthorKey) -> Result<Replacement> {
        nobody()
    }

    async fn rotate_node(&self) -> Result<NodeRotation> {
        nobody()
    }

    async fn succession_basis(&self, _: Option<Timestamp>) -> Result<SuccessionBasis> {
        nobody()
    }

    async fn succeed(&self, _: Bytes) -> Result<Succession> {
        nobody()
    }

    async fn approvals(&self) -> Result<Vec<Approval>> {
        nobody()
    }

    async fn approve(&self, _: &OpId) -> Result<Approved> {
        nobody()
    }

    async fn withdraw(&self, _: &OpId) -> Result<Withdrawn> {
        nobody()
    }
}

#[async_trait]
impl Database for Shared {
    async fn get(&self, collection: &CollectionName, id: &DocId, _: &ReadOptions) -> Result<Document> {
        if let Some(error) = self.0.broken.lock().unwrap().clone() {
            return Err(error);
        }
        let state = self.0.state.lock().unwrap();
        let found = state.documents.get(&(collection.clone(), id.clone()));
        let (json, heads) = found
            .cloned()
            .ok_or_else(|| Error::new(ErrorCode::DocumentNotFound, format!("document {id} does not exist")))?;
        Ok(Document {
            collection: collection.clone(),
            id: id.clone(),
            json,
            heads,
            modified: Timestamp::from_millis(1_000),
            stale: false,
            session: Some(SessionToken::default()),
        })
    }

    async fn write(&self, collection: &CollectionName, edit: Edit, options: &WriteOptions) -> Result<WriteOutcome> {
        *self.0.last_write.lock().unwrap() = Some(options.clone());
        let mut state = self.0.state.lock().unwrap();
        if let Some(before) = options.idempotency_key.as_ref().and_then(|key| state.keys.get(key)) {
            return Ok(before.clone());
        }
        let mut outcome = state.write(collection, edit, &options.precondition)?;
        outcome.durability = match options.durability {
            Durability::Peers(n) => DurabilityReached { requested: options.durability, replicas: 1, needed: n },
            Durability::Local | Durability::Majority | Durability::All => DurabilityReached::LOCAL,
        };
        if let Some(key) = &options.idempotency_key {
            state.keys.insert(key.clone(), outcome.clone());
        }
        drop(state);
        self.0.committed.notify_waiters();
        Ok(outcome)
    }

    async fn bulk(
        &self,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>> {
        let mut state = self.0.state.lock().unwrap();
        let outcomes: Vec<_> = edits.into_iter().map(|op| state.write(collection, op.edit, &op.precondition)).collect();
        match options.atomicity {
            Atomicity::Each => Ok(outcomes),
            Atomicity::AllOrNothing => match outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
                Some(error) => Err(Error::new(ErrorCode::AtomicFailed, error.detail().to_owned())),
                None => Ok(outcomes),
            },
        }
    }

    async fn list(&self, collection: &CollectionName, query: &ListQuery) -> Result<ListPage> {
        let state = self.0.state.lock().unwrap();
        state.known(collection)?;
        let after = query.after.as_ref().map(Cursor::document).transpose()?;
        let prefix = query.prefix.clone().unwrap_or_default();
        let mut items: Vec<Document> = state
            .documents
            .iter()
            .filter(|((c, id), _)| {
                c == collection && id.as_str().starts_with(&prefix) && after.as_ref().is_none_or(|a| id > a)
            })
            .take(query.limit() + 1)
            .map(|((collection, id), (json, heads))| Document {
                collection: collection.clone(),
                id: id.clone(),
                json: json.clone(),
                heads: heads.clone(),
                modified: Timestamp::from_millis(0),
                stale: false,
                session: None,
            })
            .collect();
        let more = items.len() > query.limit();
        items.truncate(query.limit());
        let next = items.last().filter(|_| more).map(|last| Cursor::after_document(&last.id));
        Ok(ListPage { items, next })
    }

    async fn conflicts(&self, collection: &CollectionName, id: &DocId) -> Result<Vec<Conflict>> {
        self.get(collection, id, &ReadOptions::default()).await?;
        Ok(Vec::new())
    }

    async fn invalid(&self, collection: &CollectionName, query: &InvalidQuery) -> Result<InvalidPage> {
        self.0.state.lock().unwrap().known(collection)?;
        query.after.as_ref().map(Cursor::document).transpose()?;
        Ok(InvalidPage { items: Vec::new(), complete: true, next: None })
    }

    async fn duplicates(&self, collection: &CollectionName, query: &DuplicatesQuery) -> Result<DuplicatesPage> {
        self.0.state.lock().unwrap().known(collection)?;
        query.after.as_ref().map(Cursor::document).transpose()?;
        Ok(DuplicatesPage { items: Vec::new(), complete: true, next: None })
    }

    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        let state = self.0.state.lock().unwrap();
        state.collections.keys().map(|name| state.known(name)).collect()
    }

    async fn collection(&self, name: &CollectionName) -> Result<CollectionInfo> {
        self.0.state.lock().unwrap().known(name)
    }

    async fn configure(&self, name: &CollectionName, settings: CollectionSettings) -> Result<CollectionInfo> {
        let mut state = self.0.state.lock().unwrap();
        state.collections.insert(name.clone(), settings);
        state.known(name)
    }

    async fn drop_collection(&self, name: &CollectionName) -> Result<()> {
        let mut state = self.0.state.lock().unwrap();
        state.known(name)?;
        state.collections.remove(name);
        Ok(())
    }

    async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage> {
        let deadline = tokio::time::Instant::now() + query.wait;
        // The point is fixed before waiting: what comes meanwhile lies behind it.
        let since = match &query.since {
            Since::Now => Since::After(self.0.state.lock().unwrap().changes(query)?.next),
            since => since.clone(),
        };
        let query = ChangesQuery { since, ..query.clone() };
        loop {
            let committed = self.0.committed.notified();
            let page = self.0.state.lock().unwrap().changes(&query)?;
            if page.items.is_empty() && !query.wait.is_zero() {
                self.0.waiting.notify_one();
            }
            if !page.items.is_empty() || tokio::time::timeout_at(deadline, committed).await.is_err() {
                return Ok(page);
            }
        }
    }

    fn subscribe(&self, query: ChangesQuery) -> BoxStream<'static, Result<Change>> {
        poll_changes(self.clone(), query)
    }

    async fn status(&self) -> Result<Status> {
        let state = self.0.state.lock().unwrap();
        Ok(Status {
            node: AuthorKey::new([1; 32]),
            peer_id: "12D3".to_owned(),
            cluster: ClusterId::new([2; 32]),
            cluster_name: "test".to_owned(),
            version: "0".to_owned(),
            started: Timestamp::from_millis(0),
            readiness: Readiness { ready: true, reasons: Vec::new() },
            store: StoreState::Healthy,
            store_bytes: 0,
            collections: state.collections.len() as u64,
            documents: state.documents.len() as u64,
            ops: state.version,
            ops_unapplied: 0,
            ops_deferred: 0,
            quarantined: 0,
            members: 1,
            peers_connected: 0,
            peers_banned: 0,
            p2p: Vec::new(),
            bootstraps: Vec::new(),
            last_bootstrap: None,
            recovery_unconfirmed: false,
            approvals_waiting: 0,
            passwords_exposed: 0,
        })
    }

    async fn readiness(&self) -> Result<Readiness> {
        Ok(Readiness { ready: self.0.broken.lock().unwrap().is_none(), reasons: vec!["a secret reason".to_owned()] })
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>> {
        Ok(Vec::new())
    }

    async fn set_link(&self, peer: &AuthorKey, rule: LinkRule) -> Result<()> {
        let mut state = self.0.state.lock().unwrap();
        match rule {
            LinkRule::Blocked => state.blocked.push(*peer),
            LinkRule::Open => state.blocked.retain(|blocked| blocked != peer),
        }
        Ok(())
    }

    async fn digests(&self) -> Result<Vec<ShardDigest>> {
        Ok(Vec::new())
    }

    async fn quarantine(&self, _: &QuarantineQuery) -> Result<QuarantinePage> {
        Ok(QuarantinePage::default())
    }

    async fn verify(&self) -> Result<VerifyReport> {
        Ok(VerifyReport::default())
    }

    async fn keys(&self) -> Result<KeysInfo> {
        Ok(KeysInfo { source: "file".to_owned(), ..KeysInfo::default() })
    }

    async fn rotate_keys(&self, which: KeyRotation) -> Result<KeysInfo> {
        Ok(KeysInfo { rotating: which == KeyRotation::Collections, ..self.keys().await? })
    }

    async fn invite(&self, options: &InviteOptions) -> Result<Invite> {
        let expires = Timestamp::from_millis(options.expires.as_millis() as u64);
        Ok(Invite { ticket: "ticket".to_owned(), expires, uses: options.uses })
    }
}
