//! Finding entries: the node's log and the ops, merged by their times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use folkmoot_core::audit::{
    AuditAction, AuditDecision, AuditMethod, Event, Found, LogCursor, LogError, LogPage, LogQuery, record_text, search,
    witness,
};
use folkmoot_core::hlc::Hlc;
use folkmoot_core::id::{AuthorKey, CollectionName, DocId, OpId, PrincipalId};
use folkmoot_core::limits::AUDIT_DOCUMENTS_MAX;
use folkmoot_core::op::{Act, RevokeTarget, Transaction, WriteAction};
use folkmoot_core::replica::{Written, WrittenAt, WrittenPage, WrittenQuery};
use folkmoot_core::store::Read;

use super::super::Inner;
use super::super::convert::read_error;
use crate::api::{
    AuditCursor, AuditEntry, AuditLayer, AuditPage, AuditQuery, AuditWitness, Error, ErrorCode, PrincipalName, Result,
    Timestamp,
};

/// What cursors begin with.
const CURSOR_VERSION: &str = "a1";

pub(super) fn log_error(error: LogError) -> Error {
    let code = match &error {
        LogError::NotFound(_) | LogError::OpNotFound(_) => ErrorCode::RecordNotFound,
        LogError::Store(_) | LogError::Damaged(_) => ErrorCode::Damaged,
        _ => ErrorCode::Internal,
    };
    Error::new(code, crate::api::error_chain(&error))
}

/// Returns what is kept of the logs of members.
pub(super) fn witnesses(store: &dyn Read, members: &[AuthorKey]) -> Result<Vec<AuditWitness>> {
    let mut all = Vec::new();
    for peer in members {
        let Some(seen) = witness::seen(store, peer).map_err(log_error)? else { continue };
        let last = seen.note().map_err(log_error)?.checkpoint;
        all.push(AuditWitness {
            peer: *peer,
            log: last.log.to_string(),
            seen: last.size,
            seen_at: Timestamp::from_millis(seen.seen_ms),
            trouble: seen.trouble.as_ref().map(|(trouble, _, _)| trouble.name().to_owned()),
            trouble_at: seen.trouble.as_ref().map(|(_, at, _)| Timestamp::from_millis(*at)),
        });
    }
    Ok(all)
}

/// Up to where each layer was looked through.
#[derive(Clone, Copy, Default)]
struct Places {
    log: Option<LogCursor>,
    ops: Option<WrittenAt>,
}

impl Places {
    fn text(&self) -> Result<AuditCursor> {
        let log = self.log.map(|at| format!("{:x}.{:x}.{:x}", at.hlc.raw(), at.ordinal, at.index));
        let ops = self.ops.map(|at| format!("{:x}.{}.{:x}.{:x}", at.hlc.raw(), at.stream, at.seq, at.transaction));
        AuditCursor::new(format!("{CURSOR_VERSION}~{}~{}", log.unwrap_or_default(), ops.unwrap_or_default()))
    }

    fn parse(cursor: &AuditCursor) -> Option<Self> {
        let mut parts = cursor.as_str().split('~');
        let (version, log, ops) = (parts.next()?, parts.next()?, parts.next()?);
        if version != CURSOR_VERSION || parts.next().is_some() {
            return None;
        }
        let hex = |text: Option<&str>| u64::from_str_radix(text?, 16).ok();
        let log = match log {
            "" => None,
            log => {
                let mut at = log.split('.');
                let (hlc, ordinal, index) = (hex(at.next())?, hex(at.next())?, hex(at.next())?);
                Some(LogCursor { hlc: Hlc::from_raw(hlc), ordinal: u32::try_from(ordinal).ok()?, index })
            }
        };
        let ops = match ops {
            "" => None,
            ops => {
                let mut at = ops.split('.');
                let (hlc, stream) = (hex(at.next())?, at.next()?.parse().ok()?);
                let (seq, transaction) = (hex(at.next())?, u16::try_from(hex(at.next())?).ok()?);
                Some(WrittenAt { hlc: Hlc::from_raw(hlc), stream, seq, transaction })
            }
        };
        Some(Self { log, ops })
    }
}

/// An entry of either layer, before it is put into words.
enum Item {
    Log(Found),
    Op(Written),
}

impl Item {
    fn hlc(&self) -> Hlc {
        match self {
            Self::Log(found) => found.at.hlc,
            Self::Op(written) => written.at.hlc,
        }
    }
}

/// Merges what both layers gave: up to the time that both were looked through, and no more than `limit`.
///
/// Returns each with where to go on behind it.
fn merge(log: LogPage, ops: WrittenPage, limit: usize, places: &mut Places) -> (Vec<(Item, Places)>, bool) {
    let bound = [log.reached.map(|at| at.hlc), ops.reached.map(|at| at.hlc)].into_iter().flatten().min();
    let is_in = |hlc: Hlc| bound.is_none_or(|bound| hlc <= bound);
    let log_items = log.items.into_iter().map(Item::Log);
    let mut items: Vec<Item> =
        log_items.chain(ops.items.into_iter().map(Item::Op)).filter(|item| is_in(item.hlc())).collect();
    // Stable: within a layer the order stays.
    items.sort_by_key(Item::hlc);
    let is_cut = items.len() > limit;
    items.truncate(limit);
    let mut behind = *places;
    let items = items.into_iter().map(|item| {
        match &item {
            Item::Log(found) => behind.log = behind.log.max(Some(found.at)),
            Item::Op(written) => behind.ops = behind.ops.max(Some(written.at)),
        }
        (item, behind)
    });
    let items: Vec<(Item, Places)> = items.collect();
    *places = items.last().map_or(*places, |(_, behind)| *behind);
    if !is_cut {
        places.log = places.log.max(log.reached.filter(|at| is_in(at.hlc)));
        places.ops = places.ops.max(ops.reached.filter(|at| is_in(at.hlc)));
    }
    (items, is_cut || bound.is_some())
}

impl Inner {
    /// Returns a page of entries; waits for the first if that is asked.
    pub(in super::super) async fn audit_page(&self, query: &AuditQuery) -> Result<AuditPage> {
        let mut places = match &query.after {
            None => Places::default(),
            Some(cursor) => Places::parse(cursor).ok_or_else(|| {
                Error::new(ErrorCode::InvalidCursor, "`after` is no cursor of the audit")
                    .hint("pass the `next` of the page before, as it is")
            })?,
        };
        // What was done just now is to be found.
        self.audit.flush().await?;
        let principal = query.principal.as_ref().map(|name| self.anybody(name));
        let deadline = tokio::time::Instant::now() + query.wait.min(AuditQuery::WAIT_MAX);
        let mut written = self.audit.written();
        loop {
            written.mark_unchanged();
            let page = self.audit_look(query, principal.as_ref(), &mut places).await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !page.items.is_empty() || page.more || left == Duration::ZERO {
                return Ok(page);
            }
            if let Ok(Err(_)) = tokio::time::timeout(left, written.changed()).await {
                return Err(Error::new(ErrorCode::ShuttingDown, "the node is shutting down"));
            }
        }
    }

    /// Finds a principal, removed or not; else what somebody may have called himself.
    fn anybody(&self, name: &PrincipalName) -> std::result::Result<PrincipalId, String> {
        match (self.find_principal(name), name) {
            (Ok(id), _) => Ok(id),
            (Err(_), PrincipalName::Id(id)) => Ok(*id),
            (Err(_), PrincipalName::Name(name)) => Err(name.clone()),
        }
    }

    async fn audit_look(
        &self,
        query: &AuditQuery,
        principal: Option<&std::result::Result<PrincipalId, String>>,
        places: &mut Places,
    ) -> Result<AuditPage> {
        let (since_ms, until_ms) = (query.since.map(Timestamp::millis), query.until.map(Timestamp::millis));
        let log_query = LogQuery {
            principal: principal.and_then(|who| who.as_ref().ok().copied()),
            name: principal.and_then(|who| who.as_ref().err().cloned()),
            collection: query.collection.clone(),
            action: query.action,
            class: query.class,
            decision: query.decision,
            since_ms,
            until_ms,
        };
        let limit = query.limit();
        let log_after = places.log;
        let log_page = if query.layer == Some(AuditLayer::Ops) {
            LogPage::default()
        } else {
            let found = self.read_on_thread(move |reader| {
                search(&*reader.store().snapshot(), &log_query, log_after, limit).map_err(log_error)
            });
            found.await??
        };
        let ops_page = self.audit_ops(query, principal, places.ops, (since_ms, until_ms)).await?;
        let (items, more) = merge(log_page, ops_page, limit, places);
        let certificates: BTreeSet<OpId> = items
            .iter()
            .filter_map(|(item, _)| match item {
                Item::Op(written) => Some(written.op.header().certificate),
                Item::Log(_) => None,
            })
            .collect();
        let certified: BTreeMap<OpId, PrincipalId> = self
            .core
            .look(move |replica, _| {
                let authority = replica.authority();
                certificates.into_iter().filter_map(|id| Some((id, authority.principal_of(id)?))).collect()
            })
            .await
            .map_err(|_| Error::new(ErrorCode::ShuttingDown, "the node is shutting down"))?;
        let behind = items.iter().map(|(_, behind)| behind.text()).collect::<Result<_>>()?;
        let items = items.into_iter().map(|(item, _)| self.entry(item, &certified)).collect();
        Ok(AuditPage { items, next: places.text()?, more, behind })
    }

    async fn audit_ops(
        &self,
        query: &AuditQuery,
        principal: Option<&std::result::Result<PrincipalId, String>>,
        after: Option<WrittenAt>,
        (since_ms, until_ms): (Option<u64>, Option<u64>),
    ) -> Result<WrittenPage> {
        let is_other = query.layer == Some(AuditLayer::Log)
            // Nobody who is no principal has signed anything.
            || principal.is_some_and(std::result::Result::is_err);
        if is_other {
            return Ok(WrittenPage::default());
        }
        let principal = match principal.and_then(|who| who.as_ref().ok()).copied() {
            None => None,
            Some(principal) => {
                let all =
                    self.read_on_thread(folkmoot_core::replica::Reader::certificates).await?.map_err(read_error)?;
                let own: BTreeSet<OpId> = self
                    .core
                    .look(move |replica, _| {
                        let authority = replica.authority();
                        all.into_iter().filter(|id| authority.principal_of(*id) == Some(principal)).collect()
                    })
                    .await
                    .map_err(|_| Error::new(ErrorCode::ShuttingDown, "the node is shutting down"))?;
                Some((principal, own))
            }
        };
        let wanted = WrittenQuery { principal, collection: query.collection.clone(), since_ms, until_ms };
        let (cluster, limit) = (self.record.cluster, query.limit());
        let page = self.read_on_thread(move |reader| reader.written(cluster, &wanted, after, limit)).await?;
        let mut page = page.map_err(read_error)?;
        page.items.retain(|written| {
            let (action, decision) = (action_of(written), decision_of(written));
            query.action.is_none_or(|wanted| wanted == action)
                && query.class.is_none_or(|wanted| wanted == action.class())
                && query.decision.is_none_or(|wanted| wanted == decision)
        });
        Ok(page)
    }

    /// Puts an entry into words.
    fn entry(&self, item: Item, certified: &BTreeMap<OpId, PrincipalId>) -> AuditEntry {
        match item {
            Item::Log(Found { at, incarnation, record }) => {
                let event = record.event;
                let named = event.principal.map(|id| self.name_of_principal(id));
                AuditEntry {
                    id: record_text(incarnation, at.index),
                    layer: AuditLayer::Log,
                    time: Timestamp::from_millis(record.hlc.millis()),
                    node: self.node_key.author(),
                    class: event.action.class(),
                    action: event.action,
                    decision: event.decision,
                    count: record.count,
                    first: Timestamp::from_millis(record.first_ms),
                    last: Timestamp::from_millis(record.last_ms),
                    principal: event.principal,
                    name: named.unwrap_or(event.name),
                    method: event.method,
                    credential: event.credential,
                    source: event.source,
                    collection: event.collection,
                    documents: event.documents,
                    target: event.target,
                    statements: event.statements,
                    reason: event.reason,
                    request: event.request,
                }
            }
            Item::Op(written) => self.op_entry(&written, certified),
        }
    }

    fn op_entry(&self, written: &Written, certified: &BTreeMap<OpId, PrincipalId>) -> AuditEntry {
        let header = written.op.header();
        let time = Timestamp::from_millis(header.hlc.millis());
        let transaction = header.transactions().get(usize::from(written.at.transaction));
        let certified = certified.get(&header.certificate).copied();
        let (principal, collection, documents, target, statements) = match (transaction, header.control()) {
            (Some(transaction), _) => {
                let documents = transaction.changes.iter().map(|change| change.doc.clone()).collect();
                (Some(transaction.principal), Some(header.collection().clone()), documents, String::new(), Vec::new())
            }
            (None, Some(control)) => {
                let (collection, documents) = documents_of(&control.act);
                (control.for_whom.or(certified), collection, documents, target_of(&control.act), control.proof.clone())
            }
            (None, None) => (None, None, Vec::new(), String::new(), Vec::new()),
        };
        // The key that signed is the principal's own, or a node's that wrote for it.
        let is_own = principal.is_some() && certified == principal;
        AuditEntry {
            id: format!("{}:{}", written.op.id(), written.at.transaction),
            layer: AuditLayer::Ops,
            time,
            node: header.author,
            class: action_of(written).class(),
            action: action_of(written),
            decision: decision_of(written),
            count: 1,
            first: time,
            last: time,
            principal,
            name: principal.map(|id| self.name_of_principal(id)).unwrap_or_default(),
            method: if is_own { AuditMethod::Signature } else { AuditMethod::Node },
            credential: Some(header.certificate),
            source: String::new(),
            collection,
            documents,
            target,
            statements,
            reason: written.state.as_ref().map(|(state, why)| format!("{}: {why}", state.name())).unwrap_or_default(),
            request: String::new(),
        }
    }
}

/// Returns what a transaction or an act did.
fn action_of(written: &Written) -> AuditAction {
    let header = written.op.header();
    let Some(control) = header.control() else {
        let transaction = header.transactions().get(usize::from(written.at.transaction));
        return transaction.map_or(AuditAction::Update, write_action);
    };
    kind_of(&control.act)
}

/// Returns what a transaction does, by its first change.
pub(super) fn write_action(transaction: &Transaction) -> AuditAction {
    match transaction.changes.first().map(|change| change.action) {
        Some(WriteAction::Create) => AuditAction::Create,
        Some(WriteAction::Delete) => AuditAction::Delete,
        Some(WriteAction::Update) | None => AuditAction::Update,
    }
}

/// Returns what an act does.
pub(super) fn kind_of(act: &Act) -> AuditAction {
    match act {
        Act::Principal(_) => AuditAction::AddPrincipal,
        Act::Revoke(revoke) => match revoke.target {
            RevokeTarget::Principal(_) => AuditAction::RemovePrincipal,
            RevokeTarget::Statement(_) => AuditAction::Revoke,
        },
        Act::Grant(_) => AuditAction::Grant,
        Act::Join(_) => AuditAction::JoinGroup,
        Act::Token(_) => AuditAction::IssueToken,
        Act::Role(_) => AuditAction::AddRole,
        Act::Readmit(_) => AuditAction::Release,
        Act::Member(_) => AuditAction::Admit,
        Act::Collection(config) if config.dropped => AuditAction::DropCollection,
        Act::Collection(_) => AuditAction::Configure,
        Act::Erase(_) => AuditAction::Erase,
        Act::Approve(_) => AuditAction::Approve,
        Act::Withdraw(_) => AuditAction::Revoke,
        _ => AuditAction::Administer,
    }
}

/// Returns whether it counts.
fn decision_of(written: &Written) -> AuditDecision {
    use folkmoot_core::replica::TxState;
    match written.state.as_ref().map(|(state, _)| *state) {
        None | Some(TxState::Duplicate) => AuditDecision::Allowed,
        Some(TxState::NotAllowed | TxState::AfterRevocation) => AuditDecision::Denied,
        Some(_) => AuditDecision::Failed,
    }
}

/// Returns whom or what an act is about.
pub(super) fn target_of(act: &Act) -> String {
    match act {
        Act::Principal(principal) => format!("{} {}", principal.kind.name(), principal.name),
        Act::Certify(certify) => format!("key {} of {}", certify.key, certify.name),
        Act::Member(member) => format!("node {}", member.key),
        Act::Grant(grant) => format!("{} on {}", grant.principal, grant.target.collections),
        Act::Join(join) => format!("{} in {}", join.principal, join.group),
        Act::Token(token) => format!("{} of {}", token.name, token.principal),
        Act::Role(role) => role.name.clone(),
        Act::Revoke(revoke) => match revoke.target {
            RevokeTarget::Principal(id) => id.to_string(),
            RevokeTarget::Statement(id) => id.to_string(),
        },
        Act::Readmit(readmit) => readmit.revocation.to_string(),
        Act::Duty(duty) => duty.principal.to_string(),
        Act::Approve(approve) => approve.act.to_string(),
        Act::Evidence(evidence) => format!("evidence of {} forked streams", evidence.pins.len()),
        Act::Withdraw(withdraw) => format!("request of {} acts", withdraw.acts.len()),
        Act::Pepper(shares) => format!("pepper {} for {} nodes", shares.pepper, shares.shares.len()),
        Act::Erased(erased) => format!("carried out {} erasures", erased.acts.len()),
        Act::Collection(config) => {
            let schema = config.schema.as_ref().map_or(0, |schema| schema.as_str().len());
            let (shards, types, indexes) = (config.shards, config.types.len(), config.indexes.len());
            let reads = config.audit_reads;
            format!("{shards} shards, {types} types, {indexes} indexes, audit_reads {reads}, schema of {schema} bytes")
        }
        _ => String::new(),
    }
}

/// Returns the event of an act that is to be signed.
pub(in super::super) fn act_event(act: &Act) -> Event {
    let (collection, documents) = documents_of(act);
    let mut event = Event::new(kind_of(act), AuditDecision::Allowed)
        .on(collection, None)
        .about(target_of(act))
        .because(reason_of(act));
    event.documents = documents;
    event
}

/// Returns which documents of which collection an act is about.
pub(super) fn documents_of(act: &Act) -> (Option<CollectionName>, Vec<DocId>) {
    match act {
        Act::Collection(config) => (Some(config.name.clone()), Vec::new()),
        Act::Erase(erase) => {
            let documents = erase.documents.iter().take(AUDIT_DOCUMENTS_MAX).cloned().collect();
            (Some(erase.collection.clone()), documents)
        }
        _ => (None, Vec::new()),
    }
}

/// Returns the reason that an act gives.
fn reason_of(act: &Act) -> String {
    match act {
        Act::Erase(erase) => erase.why.clone(),
        _ => String::new(),
    }
}
