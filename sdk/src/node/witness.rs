//! Witnesses of forks: who is one, and what this node has said as one.

use std::collections::BTreeMap;

use async_trait::async_trait;
use folkmoot_core::audit::{AuditAction, AuditDecision, Event};
use folkmoot_core::authority::Authority;
use folkmoot_core::id::{AuthorKey, OpId, PrincipalId};
use folkmoot_core::replica::{ActError, ActRequest, Appointment, Dismissal, Signer};

use super::access::now;
use super::convert::act_error;
use super::state::alarm;
use super::{Inner, Node};
use crate::api::{Error, ErrorCode, NewWitnesses, Result, Revocation, RevokeOptions, Witness, Witnesses};

fn list(authority: &Authority) -> Vec<Witness> {
    let now = now();
    let names: BTreeMap<AuthorKey, String> =
        authority.members(now).into_iter().map(|member| (member.key, member.name)).collect();
    let shown = |witness: folkmoot_core::authority::WitnessInfo| {
        let node = witness.signs.map(|(key, _)| key);
        Witness {
            node,
            name: node.and_then(|key| names.get(&key)).cloned().unwrap_or_default(),
            quorum: witness.quorum,
            rank: witness.rank.0,
            principal: witness.principal,
            statement: witness.duty,
            evidence: witness.evidence as u64,
        }
    };
    let mut witnesses: Vec<Witness> = authority.witnesses(now).into_iter().map(shown).collect();
    witnesses.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
    witnesses
}

/// Returns the key of a member by its name or key.
fn find(authority: &Authority, wanted: &str) -> Result<AuthorKey> {
    if let Ok(key) = wanted.parse::<AuthorKey>() {
        return Ok(key);
    }
    let members = authority.members(now());
    let mut named = members.iter().filter(|member| member.name == wanted);
    match (named.next(), named.next()) {
        (Some(member), None) => Ok(member.key),
        (Some(_), Some(_)) => Err(Error::new(ErrorCode::PeerNotFound, format!("several nodes are called {wanted}"))
            .hint("say its key, as `folkmoot peers` shows it")),
        (None, _) => Err(Error::new(ErrorCode::PeerNotFound, format!("no member node is called {wanted}"))
            .hint("`folkmoot peers` shows the members")),
    }
}

impl Inner {
    pub(super) async fn all_witnesses(&self) -> Result<Vec<Witness>> {
        self.authority(list).await
    }

    /// Signs with the first of these keys that may.
    async fn act_by(&self, signers: &[Signer], request: ActRequest) -> Result<OpId> {
        let mut refused = ActError::NoOwnerKey;
        for signer in signers {
            match self.act(*signer, request.clone()).await {
                Ok(done) => return Ok(done.op),
                Err(error @ (ActError::NotAllowed(_) | ActError::NoOwnerKey)) => refused = error,
                Err(error) => return Err(act_error(error)),
            }
        }
        Err(act_error(refused).hint("only an owner makes or dismisses witnesses: ask a node that has the key of one"))
    }

    pub(super) async fn appoint(
        &self,
        asker: Option<PrincipalId>,
        signers: &[Signer],
        new: &NewWitnesses,
    ) -> Result<Vec<Witness>> {
        new.check()?;
        let wanted = new.nodes.clone();
        let nodes = self.authority(move |authority| {
            wanted.iter().map(|name| find(authority, name)).collect::<Result<Vec<AuthorKey>>>()
        });
        let nodes = nodes.await??;
        let event = Event::new(AuditAction::Administer, AuditDecision::Allowed)
            .about(format!("witnesses {}", new.nodes.join(", ")));
        let appointment = Appointment { nodes, quorum: new.quorum, for_whom: asker };
        metrics::counter!("folkmoot_access_acts_total").increment(1);
        let done = self.act_by(signers, ActRequest::Appoint(appointment)).await;
        self.note_done(asker, event, &done);
        done?;
        self.all_witnesses().await
    }

    pub(super) async fn dismiss(
        &self,
        asker: Option<PrincipalId>,
        signers: &[Signer],
        node: &str,
        options: &RevokeOptions,
    ) -> Result<Revocation> {
        let wanted = node.to_owned();
        let key = self.authority(move |authority| find(authority, &wanted)).await??;
        let event = Event::new(AuditAction::Revoke, AuditDecision::Allowed)
            .about(format!("witness {node}"))
            .because(options.why.clone());
        let dismissal = Dismissal { nodes: vec![key], why: options.why.clone(), for_whom: asker };
        metrics::counter!("folkmoot_access_acts_total").increment(1);
        let done = self.act_by(signers, ActRequest::Dismiss(dismissal)).await;
        self.note_done(asker, event, &done);
        let act = done?;
        let pins = self.authority(move |authority| authority.pins_set_by(act)).await?;
        Ok(Revocation { act, pins })
    }

    /// Returns the nodes of a principal that are witnesses: that is another principal, stronger, and does not go with it.
    pub(super) async fn witnessing_nodes(&self, principal: PrincipalId) -> Result<Vec<AuthorKey>> {
        self.authority(move |authority| {
            let is_one = |key: &AuthorKey| !authority.witness_certificates(*key, now()).is_empty();
            let members = authority.members(now()).into_iter().filter(|member| member.principal == principal);
            members.map(|member| member.key).filter(is_one).collect()
        })
        .await
    }

    /// A node that was a witness has been removed: it is none any longer, or somebody is told that it still is.
    pub(super) async fn dismiss_removed(&self, asker: Option<PrincipalId>, nodes: Vec<AuthorKey>, why: &str) {
        if nodes.is_empty() {
            return;
        }
        let signers: &[Signer] = if asker.is_none() { &[Signer::Owner, Signer::Node] } else { &[Signer::Node] };
        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let dismissal = Dismissal { nodes, why: why.to_owned(), for_whom: asker };
        if self.act_by(signers, ActRequest::Dismiss(dismissal)).await.is_err() {
            alarm(
                "removed_witness",
                &format!(
                    "a node was removed that is still a witness of forks: run `folkmoot witness remove {}` where the key of an owner is",
                    names.join(" ")
                ),
            );
        }
    }

    /// Records what this node has said as a witness.
    pub(super) fn note_evidence(&self, act: OpId, streams: usize) {
        tracing::warn!(%act, streams, "gave evidence of forked streams");
        let mut event = Event::new(AuditAction::Administer, AuditDecision::Allowed)
            .about(format!("gave evidence of {streams} forked streams"));
        event.statements.push(act);
        self.note(event);
    }
}

/// With which keys a node does what its owner asks for.
const OF_OWNER: [Signer; 2] = [Signer::Owner, Signer::Node];

#[async_trait]
impl Witnesses for Node {
    async fn witnesses(&self) -> Result<Vec<Witness>> {
        self.inner.all_witnesses().await
    }

    async fn appoint_witnesses(&self, new: &NewWitnesses) -> Result<Vec<Witness>> {
        self.inner.appoint(None, &OF_OWNER, new).await
    }

    async fn dismiss_witness(&self, node: &str, options: &RevokeOptions) -> Result<Revocation> {
        self.inner.dismiss(None, &OF_OWNER, node, options).await
    }
}
