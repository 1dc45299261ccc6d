//! The node as one principal sees it: the one place where what leaves and what comes in is held against what the principal may.
//!
//! What may not be seen is absent: it is not found, not listed, not counted. Who may do nothing at all with a collection is told so
//! whether or not it exists. Writes are made in the principal's name, so that every replica judges them by its rights;
//! here they are refused early, before anything is told of what is there.

mod history;
mod queries;
mod sessions;
mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::audit::{AuditAction, AuditDecision, AuditMethod, Event};
use folkmoot_core::authority::{Action, Readable, TokenLimits};
use folkmoot_core::id::{AuthorKey, CollectionName, DocId, OpId, PrincipalId, TokenVerifier};
use folkmoot_core::op::{Actions, RevokeTarget};
use folkmoot_core::replica::Signer;
use futures_util::stream::BoxStream;

use self::view::{Tried, View};
use super::access::{count_login, now};
use super::feed::FeedSight;
use super::oidc::Shown;
use super::{Node, token};
use crate::api::{
    Access, AccessAnswer, AccessQuestion, Approval, Approved, Audit, AuditPage, AuditQuery, AuditStatus, AuditSubject,
    AuditVerifyReport, AuthorInfo, Authors, BulkOp, BulkOptions, Caller, Change, ChangesPage, ChangesQuery,
    CollectionInfo, CollectionSettings, Conflict, Database, Document, DuplicatesPage, DuplicatesQuery, Edit, Erasure,
    Erasures, ErasuresPage, ErasuresQuery, Error, ErrorCode, Explanation, GrantInfo, InvalidPage, InvalidQuery, Invite,
    InviteOptions, IssuedToken, KeyRotation, KeysInfo, LinkRule, ListPage, ListQuery, MembershipInfo, NewCertificate,
    NewErasure, NewGrant, NewIdentity, NewPassword, NewPrincipal, NewRole, NewToken, NewWitnesses, NodeRotation,
    PeerInfo, PrincipalInfo, PrincipalName, QuarantinePage, QuarantineQuery, ReadOptions, Readiness, Replacement,
    Result, Revocation, RevokeOptions, RoleInfo, ShardDigest, Status, Succession, SuccessionBasis, Timestamp,
    TokenInfo, VerifyReport, Withdrawn, Witness, Witnesses, WriteOptions, WriteOutcome, poll_changes,
};

/// How often it is asked whether somebody who waits may still see anything.
const RIGHTS_LOOK: Duration = Duration::from_secs(15);

/// The node, for one principal and perhaps one of its tokens. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Scoped {
    node: Node,
    principal: PrincipalId,
    /// The token that was shown, by its verifier: whether it still counts is asked each time.
    token: Option<TokenVerifier>,
    /// Where the request came from, if from elsewhere.
    source: Option<IpAddr>,
    /// What was shown goes no further than this.
    session: Session,
}

/// How far goes what somebody shows, besides what the control log says of it.
#[derive(Clone, Copy, Debug)]
struct Session {
    until: Option<Timestamp>,
    actions: Actions,
}

impl Session {
    /// For what has no limits of its own.
    const UNLIMITED: Self = Self { until: None, actions: Actions::ALL };
}

impl Node {
    /// Returns the node as a principal sees it that this node acts for: an app that has found out itself who its user is.
    ///
    /// # Errors
    /// [`ErrorCode::PrincipalNotFound`].
    pub fn acting_for(&self, principal: &PrincipalName) -> Result<Scoped> {
        let principal = self.inner.find_principal(principal)?;
        Ok(Scoped { node: self.clone(), principal, token: None, source: None, session: Session::UNLIMITED })
    }

    /// Returns the node as the holder of a token sees it.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`] if it is no token, or none that counts (any more).
    pub fn with_token(&self, text: &str) -> Result<Scoped> {
        let denied = || Error::new(ErrorCode::Unauthenticated, "the token is not valid, or has ended or been revoked");
        let shown =
            token::read(text).and_then(|secret| self.shown(TokenVerifier::of(&secret), None, AuditMethod::Token));
        shown.ok_or_else(|| self.not_known(AuditMethod::Token, denied()))
    }

    /// Returns the node as a user sees it who knows a password. `source` is where the request came from: who tries one password
    /// after the other from there has to wait, and nobody else.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`]; [`ErrorCode::TooManyRequests`] after many wrong ones; [`ErrorCode::Busy`].
    pub async fn with_password(&self, name: &PrincipalName, password: &str, source: Option<IpAddr>) -> Result<Scoped> {
        let verifier = self.inner.password(name, password, source).await?;
        self.shown(verifier, source, AuditMethod::Password).ok_or_else(super::password::wrong)
    }

    /// Returns the node as the holder of a certificate's key sees it. That it has the key was shown by its handshake; the
    /// certificate is DER.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`] if nobody has it; [`ErrorCode::InvalidCertificate`].
    pub fn with_certificate(&self, certificate: &[u8]) -> Result<Scoped> {
        let verifier = super::password::Certificate::parse(certificate)?.verifier;
        let denied = || Error::new(ErrorCode::Unauthenticated, "the certificate is nobody's here, or no longer");
        let shown = self.shown(verifier, None, AuditMethod::Mtls);
        shown.ok_or_else(|| self.not_known(AuditMethod::Mtls, denied()))
    }

    /// Returns the node as whoever shows a JSON Web Token of an issuer that the node believes ([`NodeConfig::oidc`]) sees it, until the
    /// token ends. Its subject is a principal by a link, or is made one if the issuer's configuration says so.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`], with what is wrong; [`ErrorCode::NotReady`] while the issuer's keys could not be had;
    /// [`ErrorCode::Busy`].
    ///
    /// [`NodeConfig::oidc`]: super::NodeConfig::oidc
    pub async fn with_web_token(&self, token: &str) -> Result<Scoped> {
        let Shown { verifier, until, actions } = self.inner.web_token(token).await?;
        let denied =
            || Error::new(ErrorCode::Unauthenticated, "the link of the token's subject has ended or been revoked");
        let mut scoped = self.shown(verifier, None, AuditMethod::Oidc).ok_or_else(denied)?;
        scoped.session = Session { until: Some(until), actions };
        Ok(scoped)
    }

    fn shown(&self, verifier: TokenVerifier, source: Option<IpAddr>, method: AuditMethod) -> Option<Scoped> {
        let (principal, statement) = {
            let policy = self.inner.core.policy.borrow();
            let token = policy.token(&verifier, now())?;
            (token.principal, token.statement)
        };
        self.inner.audit.token_used(principal, statement, method);
        Some(Scoped { node: self.clone(), principal, token: Some(verifier), source, session: Session::UNLIMITED })
    }

    /// Records that somebody showed what is nobody's.
    fn not_known(&self, method: AuditMethod, error: Error) -> Error {
        // Which token it was is not told: it may be a good one, mistyped.
        let event = Event::new(AuditAction::Authenticate, AuditDecision::Denied).by(None, AuditMethod::None, None);
        self.inner.note(event.about(method.name()).because(error.detail()));
        count_login(method, "wrong");
        error
    }
}

impl Scoped {
    /// Returns what the caller may now.
    fn view(&self) -> Result<View> {
        let (policy, now) = (self.node.inner.core.policy.borrow().clone(), now());
        if self.session.until.is_some_and(|until| until < Timestamp::now()) {
            return Err(Error::new(ErrorCode::Unauthenticated, "the token has ended"));
        }
        let (mut limits, statement) = match &self.token {
            None => (TokenLimits::none(), None),
            Some(verifier) => match policy.token(verifier, now) {
                Some(token) => (token.limits.clone(), Some(token.statement)),
                None => return Err(Error::new(ErrorCode::Unauthenticated, "the token has ended or been revoked")),
            },
        };
        limits.actions = limits.actions.intersection(self.session.actions);
        Ok(View { policy, limits, statement, principal: self.principal, now, node: self.node.clone() })
    }

    /// Returns the principal.
    #[must_use]
    pub fn principal(&self) -> PrincipalId {
        self.principal
    }

    /// Returns a page with what may be seen of its documents.
    async fn seen(&self, view: &View, collection: &CollectionName, mut page: ListPage) -> Result<ListPage> {
        let texts = page.items.iter_mut().map(|document| {
            let fields = view.fields(Action::Read, collection, Some(&document.id));
            (fields, &mut document.json)
        });
        self.node.inner.withhold(texts.collect()).await?;
        Ok(page)
    }

    /// Who gives rights must have them on everything, and may not be limited by its token.
    fn administers(&self) -> Result<View> {
        let view = self.view()?;
        view.demand_everywhere(Action::Administer)?;
        Ok(view)
    }
}

#[async_trait]
impl Database for Scoped {
    async fn get(&self, collection: &CollectionName, id: &DocId, options: &ReadOptions) -> Result<Document> {
        let view = self.view()?;
        if let Some(at) = &options.at {
            let rights = view.demand_history(collection, id)?;
            return self.node.get_at_for(Some(view.who()), rights, (collection, id), (at, options)).await;
        }
        let fields = view.demand_read(collection, id)?;
        let mut document = self.node.get_for(Some(view.who()), collection, id, options).await?;
        self.node.inner.withhold(vec![(fields, &mut document.json)]).await?;
        Ok(document)
    }

    async fn write(&self, collection: &CollectionName, edit: Edit, options: &WriteOptions) -> Result<WriteOutcome> {
        let view = self.view()?;
        view.demand_write(collection, &edit)?;
        let tried = Tried::of(&edit);
        let written = self.node.write_for(Some((self.principal, view.write_limits())), collection, edit, options).await;
        view.note_refused(collection, &tried, &written);
        written
    }

    async fn create_from_automerge(
        &self,
        collection: &CollectionName,
        id: Option<DocId>,
        file: Bytes,
        options: &WriteOptions,
    ) -> Result<WriteOutcome> {
        // Who may not write has no work done: reading a file is some.
        self.view()?.demand_write(collection, &Edit::Create { id: id.clone(), json: Bytes::new() })?;
        let json = crate::api::automerge_content(file).await?;
        self.create(collection, id, json, options).await
    }

    async fn bulk(
        &self,
        collection: &CollectionName,
        edits: Vec<BulkOp>,
        options: &BulkOptions,
    ) -> Result<Vec<Result<WriteOutcome>>> {
        let view = self.view()?;
        let writer = Some((self.principal, view.write_limits()));
        let checked: Vec<Result<()>> = edits.iter().map(|op| view.demand_write(collection, &op.edit)).collect();
        if options.atomicity == crate::api::Atomicity::AllOrNothing {
            checked.into_iter().collect::<Result<Vec<()>>>()?;
            let tried: Vec<Tried> = edits.iter().map(|op| Tried::of(&op.edit)).collect();
            let written = self.node.bulk_for(writer, collection, edits, options).await;
            if let (Err(_), Some(first)) = (&written, tried.first()) {
                view.note_refused(collection, first, &written);
            }
            view.note_each_refused(collection, &tried, written.as_deref().unwrap_or_default());
            return written;
        }
        let allowed = edits.into_iter().zip(&checked).filter(|(_, checked)| checked.is_ok()).map(|(op, _)| op);
        let allowed: Vec<BulkOp> = allowed.collect();
        let tried: Vec<Tried> = allowed.iter().map(|op| Tried::of(&op.edit)).collect();
        let written = self.node.bulk_for(writer, collection, allowed, options).await?;
        view.note_each_refused(collection, &tried, &written);
        let mut written = written.into_iter();
        let gone = || Err(Error::new(ErrorCode::Internal, "an edit without an outcome"));
        Ok(checked.into_iter().map(|checked| checked.and_then(|()| written.next().unwrap_or_else(gone))).collect())
    }

    async fn list(&self, collection: &CollectionName, query: &ListQuery) -> Result<ListPage> {
        let view = self.view()?;
        view.demand_some(collection)?;
        let wanted = query.prefix.clone().unwrap_or_default();
        let sight = || self.view()?.sight(collection, query.at.is_some());
        let prefixes = match view.readable(collection) {
            Readable::All => {
                let page = self.node.list_for(Some(view.who()), sight()?, collection, query).await?;
                return self.seen(&view, collection, page).await;
            }
            Readable::Nothing => Vec::new(),
            readable @ Readable::Prefixes(_) => match readable.within(&wanted) {
                Readable::Prefixes(prefixes) => prefixes,
                Readable::All | Readable::Nothing => Vec::new(),
            },
        };
        let mut page = ListPage { items: Vec::new(), next: None };
        let mut part = query.clone();
        let limit = query.limit();
        for prefix in prefixes {
            part.prefix = Some(prefix);
            part.limit = Some(limit.saturating_sub(page.items.len()));
            let found = match self.node.list_for(Some(view.who()), sight()?, collection, &part).await {
                Ok(found) => found,
                // Nothing is in it, which is no news to somebody who sees only a part of it.
                Err(error) if error.code() == ErrorCode::CollectionNotFound => continue,
                Err(error) => return Err(error),
            };
            page.items.extend(found.items);
            page.next = found.next;
            if page.next.is_some() {
                break;
            }
            if page.items.len() >= limit {
                page.next = page.items.last().map(|last| crate::api::Cursor::after_document(&last.id));
                break;
            }
        }
        self.seen(&view, collection, page).await
    }

    async fn conflicts(&self, collection: &CollectionName, id: &DocId) -> Result<Vec<Conflict>> {
        let view = self.view()?;
        let fields = view.demand_read(collection, id)?;
        let conflicts = self.node.conflicts_for(Some(view.who()), collection, id).await?;
        self.node.inner.withhold_conflicts(fields, conflicts).await
    }

    async fn invalid(&self, collection: &CollectionName, query: &InvalidQuery) -> Result<InvalidPage> {
        let view = self.view()?;
        view.demand_some(collection)?;
        let who = Some(view.who());
        self.node.inner.invalid_documents(who, queries::sight(view, collection), collection, query).await
    }

    async fn duplicates(&self, collection: &CollectionName, query: &DuplicatesQuery) -> Result<DuplicatesPage> {
        let view = self.view()?;
        view.demand_some(collection)?;
        let who = Some(view.who());
        self.node.inner.duplicate_documents(who, queries::sight(view, collection), collection, query).await
    }

    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        let view = self.view()?;
        let all = self.node.collections().await?;
        Ok(all.into_iter().filter(|info| view.knows(&info.name)).map(|info| counted(&view, info)).collect())
    }

    async fn collection(&self, name: &CollectionName) -> Result<CollectionInfo> {
        let view = self.view()?;
        view.demand_some(name)?;
        Ok(counted(&view, self.node.collection(name).await?))
    }

    async fn configure(&self, name: &CollectionName, settings: CollectionSettings) -> Result<CollectionInfo> {
        let view = self.view()?;
        view.demand(Action::Administer, name)?;
        self.node.inner.configure(Some(self.principal), name, &settings, false).await?;
        self.collection(name).await
    }

    async fn drop_collection(&self, name: &CollectionName) -> Result<()> {
        self.view()?.demand(Action::Administer, name)?;
        let info = self.node.collection(name).await?;
        self.node.inner.configure(Some(self.principal), name, &info.settings, true).await
    }

    async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage> {
        let view = self.view()?;
        if let Some(collection) = &query.collection {
            view.demand_some(collection)?;
        }
        let deadline = tokio::time::Instant::now() + query.wait.min(ChangesQuery::WAIT_MAX);
        let asked = query;
        let mut query = ChangesQuery { wait: Duration::ZERO, ..query.clone() };
        let mut policy = self.node.inner.core.policy.clone();
        policy.mark_unchanged();
        loop {
            let seen = self.view()?;
            let sight: FeedSight = Arc::new(move |collection, doc| seen.fields(Action::Read, collection, Some(doc)));
            // Whoever waits is told when rights change: what may be seen then is another question.
            let (found, is_other) = tokio::select! {
                found = self.node.changes_page(&query, &sight) => (Some(found?), false),
                Ok(()) = policy.changed() => (None, true),
            };
            let mut page = match found {
                Some(page) => page,
                None => {
                    query.wait = Duration::ZERO;
                    self.node.changes_page(&query, &sight).await?
                }
            };
            // What may be seen is asked when it leaves: it may have been taken back while this waited.
            let view = self.view()?;
            let fields = |change: &Change| view.fields(Action::Read, &change.collection, Some(&change.id));
            page.items.retain(|change| !fields(change).are_none());
            let texts = page.items.iter_mut().filter_map(|change| {
                let fields = fields(change);
                change.json.as_mut().map(|json| (fields, json))
            });
            self.node.inner.withhold(texts.collect()).await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !page.items.is_empty() || is_other || (left.is_zero() && !page.more) {
                self.node.inner.note_changes(Some(view.who()), asked, &page);
                return Ok(page);
            }
            query.since = crate::api::Since::After(page.next);
            // A token may end by the time alone.
            query.wait = left.min(RIGHTS_LOOK);
        }
    }

    fn subscribe(&self, query: ChangesQuery) -> BoxStream<'static, Result<Change>> {
        poll_changes(self.clone(), query)
    }

    async fn status(&self) -> Result<Status> {
        self.view()?.demand_everywhere(Action::Monitor)?;
        self.node.status().await
    }

    async fn readiness(&self) -> Result<Readiness> {
        self.node.readiness().await
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>> {
        self.view()?.demand_everywhere(Action::Monitor)?;
        self.node.peers().await
    }

    async fn set_link(&self, peer: &AuthorKey, rule: LinkRule) -> Result<()> {
        self.view()?.demand_everywhere(Action::Operate)?;
        let set = self.node.inner.set_link(peer, rule).await;
        self.node.inner.note_link(Some(self.principal), peer, rule, &set);
        set
    }

    async fn digests(&self) -> Result<Vec<ShardDigest>> {
        self.view()?.demand_everywhere(Action::Monitor)?;
        self.node.digests().await
    }

    async fn quarantine(&self, query: &QuarantineQuery) -> Result<QuarantinePage> {
        self.view()?.demand_everywhere(Action::Audit)?;
        self.node.quarantine(query).await
    }

    async fn verify(&self) -> Result<VerifyReport> {
        self.view()?.demand_everywhere(Action::Operate)?;
        self.node.inner.verify(Some(self.principal)).await
    }

    async fn keys(&self) -> Result<KeysInfo> {
        self.view()?.demand_everywhere(Action::Operate)?;
        self.node.keys().await
    }

    async fn rotate_keys(&self, which: KeyRotation) -> Result<KeysInfo> {
        self.view()?.demand_everywhere(Action::Operate)?;
        self.node.rotate_keys(which).await
    }

    async fn invite(&self, options: &InviteOptions) -> Result<Invite> {
        self.administers()?;
        let made = self.node.inner.invite(options).await;
        self.node.inner.note_invite(Some(self.principal), options, &made);
        made
    }
}

/// Who does not see all documents is not told how many there are; who does not see all of them, not how many have not the form or
/// share values.
fn counted(view: &View, mut info: CollectionInfo) -> CollectionInfo {
    if view.readable(&info.name) != Readable::All {
        (info.documents, info.bytes, info.schema_check, info.unique_check) = (None, None, None, None);
    } else if !view.fields(Action::Read, &info.name, None).are_all() {
        (info.schema_check, info.unique_check) = (None, None);
    }
    info
}

#[async_trait]
impl Erasures for Scoped {
    async fn erase(&self, collection: &CollectionName, new: &NewErasure) -> Result<Erasure> {
        let view = self.view()?;
        new.check()?;
        // Nothing is told of what there is: this is asked before anything else.
        if let Some(id) = new.ids.iter().find(|id| !view.may(Action::Erase, collection, Some(id))) {
            return Err(view.denied(Action::Erase, &format!("on {id} in {collection}"), Some(collection), Some(id)));
        }
        self.node.inner.erase(Some(self.principal), collection, new).await
    }

    async fn erasures(&self, query: &ErasuresQuery) -> Result<ErasuresPage> {
        let view = self.view()?;
        let sees_all = view.may_everywhere(Action::Audit);
        let may_see =
            move |collection: &CollectionName, id: &DocId| sees_all || view.may(Action::Erase, collection, Some(id));
        self.node.inner.erasures_for(query, may_see).await
    }

    async fn erasure(&self, act: &OpId) -> Result<Erasure> {
        let view = self.view()?;
        let may_see = |erasure: &Erasure| {
            view.may_everywhere(Action::Audit)
                || erasure.ids.iter().all(|id| view.may(Action::Erase, &erasure.collection, Some(id)))
        };
        let found = self.node.inner.erasure(*act).await?.filter(may_see);
        found.ok_or_else(|| super::erasure::not_found(act))
    }
}

#[async_trait]
impl Audit for Scoped {
    async fn audit(&self, query: &AuditQuery) -> Result<AuditPage> {
        self.view()?.demand_everywhere(Action::Audit)?;
        self.node.audit(query).await
    }

    async fn audit_status(&self) -> Result<AuditStatus> {
        self.view()?.demand_everywhere(Action::Audit)?;
        self.node.audit_status().await
    }

    async fn audit_proof(&self, subject: &AuditSubject) -> Result<Bytes> {
        self.view()?.demand_everywhere(Action::Audit)?;
        self.node.audit_proof(subject).await
    }

    async fn why(&self, op: &OpId) -> Result<Explanation> {
        self.view()?.demand_everywhere(Action::Audit)?;
        self.node.why(op).await
    }

    async fn audit_verify(&self) -> Result<AuditVerifyReport> {
        self.view()?.demand_everywhere(Action::Audit)?;
        self.node.audit_verify().await
    }
}

/// Who has not the owner's token asks for no more than the node's own key may.
#[async_trait]
impl Witnesses for Scoped {
    async fn witnesses(&self) -> Result<Vec<Witness>> {
        self.administers()?;
        self.node.witnesses().await
    }

    async fn appoint_witnesses(&self, new: &NewWitnesses) -> Result<Vec<Witness>> {
        self.administers()?;
        self.node.inner.appoint(Some(self.principal), &[Signer::Node], new).await
    }

    async fn dismiss_witness(&self, node: &str, options: &RevokeOptions) -> Result<Revocation> {
        self.administers()?;
        self.node.inner.dismiss(Some(self.principal), &[Signer::Node], node, options).await
    }
}

#[async_trait]
impl Authors for Scoped {
    async fn authors(&self) -> Result<Vec<AuthorInfo>> {
        self.administers()?;
        self.node.authors().await
    }

    async fn revoke_author(&self, key: &AuthorKey, options: &RevokeOptions) -> Result<Revocation> {
        self.administers()?;
        self.node.inner.take_back_key(Some(self.principal), key, options).await
    }

    async fn replace_author(&self, old: &AuthorKey, new: &AuthorKey) -> Result<Replacement> {
        self.administers()?;
        self.node.inner.replace(Some(self.principal), *old, *new).await
    }

    async fn rotate_node(&self) -> Result<NodeRotation> {
        self.view()?.demand_everywhere(Action::Operate)?;
        self.administers()?;
        self.node.inner.rotate_node(Some(self.principal)).await
    }

    async fn succession_basis(&self, until: Option<Timestamp>) -> Result<SuccessionBasis> {
        self.administers()?;
        self.node.succession_basis(until).await
    }

    async fn succeed(&self, op: Bytes) -> Result<Succession> {
        self.administers()?;
        self.node.inner.take_succession(Some(self.principal), &op).await
    }

    async fn approvals(&self) -> Result<Vec<Approval>> {
        self.administers()?;
        self.node.approvals().await
    }

    async fn approve(&self, op: &OpId) -> Result<Approved> {
        self.administers()?;
        self.node.inner.approve(Some(self.principal), *op).await
    }

    async fn withdraw(&self, op: &OpId) -> Result<Withdrawn> {
        self.administers()?;
        self.node.inner.withdraw(Some(self.principal), *op).await
    }
}

#[async_trait]
impl Access for Scoped {
    async fn caller(&self) -> Result<Caller> {
        let view = self.view()?;
        let name = self.node.inner.name_of_principal(self.principal);
        Ok(Caller { owner: false, principal: self.principal, name, token: view.statement })
    }

    async fn principals(&self) -> Result<Vec<PrincipalInfo>> {
        let only = if self.view()?.may_everywhere(Action::Administer) { None } else { Some(self.principal) };
        self.node.inner.principals_of(only).await
    }

    async fn add_principal(&self, new: &NewPrincipal) -> Result<PrincipalInfo> {
        self.administers()?;
        self.node.inner.add_principal(Some(self.principal), new).await
    }

    async fn remove_principal(&self, principal: &PrincipalName, options: &RevokeOptions) -> Result<Revocation> {
        self.administers()?;
        let id = self.node.inner.find_principal(principal)?;
        self.node.inner.take_back(Some(self.principal), vec![RevokeTarget::Principal(id)], options).await
    }

    async fn roles(&self) -> Result<Vec<RoleInfo>> {
        self.view()?;
        self.node.inner.all_roles().await
    }

    async fn add_role(&self, new: &NewRole) -> Result<RoleInfo> {
        self.administers()?;
        self.node.inner.add_role(Some(self.principal), new).await
    }

    async fn grant(&self, principal: &PrincipalName, new: &NewGrant) -> Result<GrantInfo> {
        self.administers()?;
        self.node.inner.give(Some(self.principal), principal, new).await
    }

    async fn join_group(
        &self,
        group: &PrincipalName,
        principal: &PrincipalName,
        until: Option<Timestamp>,
    ) -> Result<MembershipInfo> {
        self.administers()?;
        self.node.inner.enrol(Some(self.principal), group, principal, until).await
    }

    async fn issue_token(&self, principal: &PrincipalName, new: &NewToken) -> Result<IssuedToken> {
        self.administers()?;
        self.node.inner.issue(Some(self.principal), principal, new).await
    }

    async fn set_password(&self, principal: &PrincipalName, new: &NewPassword) -> Result<TokenInfo> {
        let view = self.view()?;
        if !view.may_everywhere(Action::Administer) {
            let own = self.node.inner.find_principal(principal).is_ok_and(|id| id == self.principal);
            if !own {
                view.demand_everywhere(Action::Administer)?;
            }
            // Who has only found somebody's token must not be able to stay.
            let current = new.current.as_deref().ok_or_else(|| {
                Error::new(ErrorCode::Unauthenticated, "to set one's own password the current one is needed")
                    .pointer("/current")
            })?;
            self.node.inner.demand_password(self.principal, current, self.source).await?;
        }
        self.node.inner.set_password(Some(self.principal), principal, new).await
    }

    async fn trust_certificate(&self, principal: &PrincipalName, new: &NewCertificate) -> Result<TokenInfo> {
        self.administers()?;
        self.node.inner.trust_certificate(Some(self.principal), principal, new).await
    }

    async fn link_identity(&self, principal: &PrincipalName, new: &NewIdentity) -> Result<TokenInfo> {
        self.administers()?;
        self.node.inner.link_identity(Some(self.principal), principal, new).await
    }

    async fn revoke(&self, statement: &OpId, options: &RevokeOptions) -> Result<Revocation> {
        let holder = self.node.inner.holder(statement).await;
        // One's own may always be given back. To others nothing is told of what there is.
        if !holder.as_ref().is_ok_and(|holder| *holder == self.principal) {
            self.administers()?;
        }
        holder?;
        self.node.inner.take_back(Some(self.principal), vec![RevokeTarget::Statement(*statement)], options).await
    }

    async fn readmit(&self, op: &OpId, transaction: u16) -> Result<Revocation> {
        self.administers()?;
        self.node.inner.release(Some(self.principal), *op, transaction).await
    }

    async fn can(&self, question: &AccessQuestion) -> Result<AccessAnswer> {
        let view = self.view()?;
        let principal = match &question.principal {
            None => self.principal,
            Some(PrincipalName::Id(id)) if *id == self.principal => self.principal,
            Some(name) => {
                self.administers()?;
                self.node.inner.find_principal(name)?
            }
        };
        let answer = self.node.inner.answer(principal, question).await?;
        let limited = principal == self.principal
            && match &question.collection {
                None => !view.limits.allow_everywhere(question.action),
                Some(collection) => match &question.field {
                    None => !view.limits.allow(question.action, collection, question.id.as_ref()),
                    Some(field) => {
                        !view.limits.reach(question.action, collection, question.id.as_ref())
                            || !view.limits.target.fields.include(field.steps())
                    }
                },
            };
        if answer.allowed && limited {
            let reason = Some("this token does not give the right, though its principal has it".to_owned());
            return Ok(AccessAnswer { allowed: false, grant: None, reason });
        }
        Ok(answer)
    }
}
