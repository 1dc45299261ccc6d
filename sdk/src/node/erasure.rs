//! Erasing documents, and what members say of it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use folkmoot_core::audit::{AuditAction, AuditDecision, Event};
use folkmoot_core::authority::{Authority, ErasureInfo, MemberInfo};
use folkmoot_core::id::{CollectionName, DocId, OpId, PrincipalId};
use folkmoot_core::limits::{AUDIT_DOCUMENTS_MAX, AUDIT_STATEMENTS_MAX};
use folkmoot_core::op::{Act, Erase};

use super::access::now;
use super::{Inner, Node};
use crate::api::{
    Erasure, ErasureReceipt, Erasures, ErasuresPage, ErasuresQuery, Error, ErrorCode, NewErasure, Result, Timestamp,
};

pub(super) fn not_found(act: &OpId) -> Error {
    Error::new(ErrorCode::StatementNotFound, format!("there is no erasure {act}"))
        .hint("`folkmoot erasures` shows them")
}

fn shown(authority: &Authority, members: &[MemberInfo], info: ErasureInfo) -> Erasure {
    let time = |hlc: folkmoot_core::hlc::Hlc| Timestamp::from_millis(hlc.millis());
    let receipt = |member: &MemberInfo| ErasureReceipt {
        node: member.key,
        name: member.name.clone(),
        done: info.receipts.get(&member.key).map(|hlc| time(*hlc)),
    };
    let members: Vec<ErasureReceipt> = members.iter().map(receipt).collect();
    let name = info.principal.and_then(|id| authority.name_of(id)).unwrap_or_default().to_owned();
    Erasure {
        act: info.act,
        time: time(info.hlc),
        principal: info.principal,
        name,
        signed_by: info.signer,
        collection: info.collection,
        ids: info.documents,
        why: info.why,
        verdict: info.verdict.kind().to_owned(),
        complete: info.verdict.is_allowed() && members.iter().all(|member| member.done.is_some()),
        members,
    }
}

impl Inner {
    pub(super) async fn erase(
        &self,
        asker: Option<PrincipalId>,
        collection: &CollectionName,
        new: &NewErasure,
    ) -> Result<Erasure> {
        new.check()?;
        if collection.is_system() {
            return Err(Error::new(ErrorCode::InvalidCollection, "system collections have no documents to erase"));
        }
        let documents: BTreeSet<DocId> = new.ids.iter().cloned().collect();
        let documents = documents.into_iter().collect();
        let act = Act::Erase(Erase { collection: collection.clone(), documents, why: new.why.clone() });
        let act = self.state(asker, act).await?;
        self.erasure(act).await?.ok_or_else(|| not_found(&act))
    }

    pub(super) async fn erasure(&self, act: OpId) -> Result<Option<Erasure>> {
        self.authority(move |authority| {
            let members = authority.members(now());
            authority.erasure(act).map(|info| shown(authority, &members, info))
        })
        .await
    }

    /// Returns erasures, the latest first, of which somebody may see all documents.
    pub(super) async fn erasures_for(
        &self,
        query: &ErasuresQuery,
        may_see: impl Fn(&CollectionName, &DocId) -> bool + Send + 'static,
    ) -> Result<ErasuresPage> {
        let (after, limit) = (query.after, query.limit());
        let found = self
            .authority(move |authority| {
                let members = authority.members(now());
                let behind = match after {
                    None => None,
                    Some(act) => Some(authority.erasure(act).ok_or(act)?).map(|info| (info.hlc, info.act)),
                };
                let is_behind = |info: &ErasureInfo| behind.is_none_or(|behind| (info.hlc, info.act) < behind);
                let is_seen = |info: &ErasureInfo| info.documents.iter().all(|doc| may_see(&info.collection, doc));
                let mut all: Vec<ErasureInfo> =
                    authority.erasures().filter(|info| is_behind(info) && is_seen(info)).collect();
                all.sort_by_key(|info| std::cmp::Reverse((info.hlc, info.act)));
                let more = all.len() > limit;
                all.truncate(limit);
                Ok(ErasuresPage { items: all.into_iter().map(|info| shown(authority, &members, info)).collect(), more })
            })
            .await?;
        found.map_err(|act: OpId| not_found(&act))
    }

    /// Records that nothing is left here of what these acts erase.
    pub(super) async fn note_erased(&self, acts: Vec<OpId>) {
        for act in acts {
            let Ok(Some(erasure)) = self.erasure(act).await else { continue };
            metrics::counter!("folkmoot_erasures_carried_out_total").increment(1);
            tracing::info!(%act, collection = %erasure.collection, documents = erasure.ids.len(), "carried out an erasure");
            let mut event = Event::new(AuditAction::Erase, AuditDecision::Allowed)
                .on(Some(erasure.collection), None)
                .about("carried out here")
                .because(erasure.why);
            event.documents = erasure.ids.into_iter().take(AUDIT_DOCUMENTS_MAX).collect();
            event.statements = [act].into_iter().take(AUDIT_STATEMENTS_MAX).collect();
            self.note(event);
        }
    }
}

#[async_trait]
impl Erasures for Node {
    async fn erase(&self, collection: &CollectionName, new: &NewErasure) -> Result<Erasure> {
        self.inner.erase(None, collection, new).await
    }

    async fn erasures(&self, query: &ErasuresQuery) -> Result<ErasuresPage> {
        self.inner.erasures_for(query, |_, _| true).await
    }

    async fn erasure(&self, act: &OpId) -> Result<Erasure> {
        self.inner.erasure(*act).await?.ok_or_else(|| not_found(act))
    }
}
