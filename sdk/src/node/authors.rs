//! Keys that sign, and changes of owners.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use folkmoot_core::audit::{AuditAction, AuditDecision, Event};
use folkmoot_core::authority::Authority;
use folkmoot_core::id::{AuthorKey, OpId, PrincipalId};
use folkmoot_core::op::{Act, Op, Rank, RevokeTarget};
use folkmoot_core::replica::{ActRequest, Signer};

use super::access::{end, now, until};
use super::convert::act_error;
use super::core_thread::Clock;
use super::{Inner, Node};
use crate::api::{
    Approval, Approved, AuthorInfo, AuthorKind, Authors, Error, ErrorCode, NodeRotation, Replacement, Result,
    Revocation, RevokeOptions, Succession, SuccessionBasis, Timestamp, Withdrawn,
};

/// Returns the keys that count.
fn list(authority: &Authority, is_here: impl Fn(&AuthorKey) -> bool) -> Vec<AuthorInfo> {
    let now = now();
    let mut keys = Vec::new();
    let name = |principal| authority.name_of(principal).unwrap_or_default().to_owned();
    if let Some(owners) = authority.owners() {
        let info = |key: String, kind, rank: Rank, here| {
            let (principal, statement) = (owners.principal, owners.certificate);
            AuthorInfo { key, kind, principal, name: name(principal), statement, rank: rank.0, until: None, here }
        };
        let told = |key: &AuthorKey| info(key.to_string(), AuthorKind::Owner, Rank::OWNER, is_here(key));
        keys.extend(owners.owners.iter().map(told));
        let hashed = |hash: &[u8; 32]| info(OpId::new(*hash).to_string(), AuthorKind::Recovery, Rank::RECOVERY, false);
        keys.extend(owners.recovery.iter().map(hashed));
    }
    for statement in authority.statements(now).filter(|statement| statement.denial.is_none()) {
        let Act::Certify(certify) = statement.act else { continue };
        // A device may be a member too: it is told by whose it is.
        let is_node = authority.is_introduced_with_key(statement.to);
        let kind = if is_node { AuthorKind::Node } else { AuthorKind::Device };
        keys.push(AuthorInfo {
            key: certify.key.to_string(),
            kind,
            principal: statement.to,
            name: name(statement.to),
            statement: statement.id,
            rank: statement.rank.0,
            until: until(statement.not_after),
            here: is_here(&certify.key),
        });
    }
    keys.sort_by(|a, b| (a.kind, &a.name, &a.key).cmp(&(b.kind, &b.name, &b.key)));
    keys
}

/// Returns what certifies a key, and makes it a member.
pub(super) fn statements_about(authority: &Authority, key: &AuthorKey) -> Vec<OpId> {
    let in_force = authority.statements(now()).filter(|statement| statement.denial.is_none());
    let about = in_force.filter(|statement| match statement.act {
        Act::Certify(certify) => certify.key == *key,
        Act::Member(member) => member.key == *key,
        _ => false,
    });
    about.map(|statement| statement.id).collect()
}

impl Inner {
    pub(super) async fn all_authors(&self) -> Result<Vec<AuthorInfo>> {
        let looked = self.core.look(|replica, _| {
            let own: BTreeSet<AuthorKey> = replica.own_keys().collect();
            list(replica.authority(), |key| own.contains(key))
        });
        looked.await.map_err(|_| super::access::gone())
    }

    pub(super) async fn take_back_key(
        &self,
        asker: Option<PrincipalId>,
        key: &AuthorKey,
        options: &RevokeOptions,
    ) -> Result<Revocation> {
        let key = *key;
        let (is_owner, statements, is_witness) = self
            .authority(move |authority| {
                let mut statements = statements_about(authority, &key);
                // Its certificate as a witness is stronger than this node may be, and goes by itself.
                let strong = authority.witness_certificates(key, now());
                statements.retain(|statement| strong.iter().all(|(_, id)| id != statement));
                (authority.owner_certificate(&key).is_some(), statements, !strong.is_empty())
            })
            .await?;
        if is_owner {
            return Err(Error::new(ErrorCode::NotAllowed, format!("{key} is an owner's key"))
                .hint("only the recovery keys replace owners: `folkmoot key recover`"));
        }
        if statements.is_empty() {
            return Err(Error::new(
                ErrorCode::StatementNotFound,
                format!("nothing certifies the key {key}, or not any more"),
            )
            .hint("`folkmoot key list` shows the keys that count"));
        }
        // The certificate is older than what makes its key a member, so it goes first.
        let targets: Vec<_> = statements.iter().copied().map(RevokeTarget::Statement).collect();
        let taken_back = self.take_back(asker, targets, options).await;
        if is_witness && taken_back.is_ok() {
            self.dismiss_removed(asker, vec![key], &options.why).await;
        }
        let refused = match taken_back {
            Err(error) if error.code() == ErrorCode::NotAllowed && statements.len() > 1 => error,
            other => return other,
        };
        // Whoever may certify can name any key: somebody stronger must not keep a stolen one alive by that.
        let (mut done, mut left) = (false, Vec::new());
        for statement in statements {
            match self.take_back(asker, vec![RevokeTarget::Statement(statement)], options).await {
                Ok(_) => done = true,
                Err(_) => left.push(statement.to_string()),
            }
        }
        if !done {
            return Err(refused);
        }
        let detail =
            format!("{key} is taken back but for {}, which is as strong as this node, or stronger", left.join(" "));
        Err(Error::new(ErrorCode::NotAllowed, detail).hint("ask an owner or a stronger admin for the rest"))
    }

    pub(super) async fn basis(&self, until: Option<Timestamp>) -> Result<SuccessionBasis> {
        let (clock, cluster): (Clock, _) = (self.core.clock, self.record.cluster);
        let until = end(until);
        let basis = self.core.look(move |replica, _| replica.succession_basis(clock.now(), until)).await;
        let basis = basis.map_err(|_| super::access::gone())?;
        let basis = basis.ok_or_else(|| Error::new(ErrorCode::NotReady, "this node does not know its cluster yet"))?;
        let owners = basis.owners;
        Ok(SuccessionBasis {
            cluster,
            after: owners.certificate,
            principal: owners.principal,
            owners: owners.owners,
            threshold: owners.threshold,
            recovery: owners.recovery.into_iter().map(OpId::new).collect(),
            recovery_threshold: owners.recovery_threshold,
            pins: basis.pins,
            control_heads: basis.control_heads,
            hlc: basis.hlc,
        })
    }

    pub(super) async fn take_succession(&self, asker: Option<PrincipalId>, op: &Bytes) -> Result<Succession> {
        let op = Op::decode(op, self.record.cluster)
            .map_err(|error| Error::new(ErrorCode::InvalidRequest, format!("this is no change of owners: {error}")))?;
        let event = Event::new(AuditAction::RotateKey, AuditDecision::Allowed).about("owners");
        let request = ActRequest::Succeed(Arc::new(op));
        metrics::counter!("folkmoot_access_acts_total").increment(1);
        let done = self.act(Signer::Node, request).await.map_err(act_error);
        self.note_done(asker, event, &done);
        let act = done?.op;
        metrics::counter!("folkmoot_key_rotations_total").increment(1);
        tracing::warn!(%act, "other keys are the owners of the cluster from now on");
        Ok(Succession { act })
    }
}

#[async_trait]
impl Authors for Node {
    async fn authors(&self) -> Result<Vec<AuthorInfo>> {
        self.inner.all_authors().await
    }

    async fn revoke_author(&self, key: &AuthorKey, options: &RevokeOptions) -> Result<Revocation> {
        self.inner.take_back_key(None, key, options).await
    }

    async fn replace_author(&self, old: &AuthorKey, new: &AuthorKey) -> Result<Replacement> {
        self.inner.replace(None, *old, *new).await
    }

    async fn rotate_node(&self) -> Result<NodeRotation> {
        self.inner.rotate_node(None).await
    }

    async fn succession_basis(&self, until: Option<Timestamp>) -> Result<SuccessionBasis> {
        self.inner.basis(until).await
    }

    async fn succeed(&self, op: Bytes) -> Result<Succession> {
        self.inner.take_succession(None, &op).await
    }

    async fn approvals(&self) -> Result<Vec<Approval>> {
        self.inner.approvals().await
    }

    async fn approve(&self, op: &OpId) -> Result<Approved> {
        self.inner.approve(None, *op).await
    }

    async fn withdraw(&self, op: &OpId) -> Result<Withdrawn> {
        self.inner.withdraw(None, *op).await
    }
}
