//! Another key for this node.
//!
//! A node that runs cannot change its key: that is its peer id, and its streams are bound to it. So the next key is made and
//! certified while it runs, and taken up when it starts again; then the key before is revoked with pins at all that it signed,
//! which is all here. At each moment one of the two works, and a crash between any two steps leaves it at one of them.

use std::sync::Arc;
use std::time::Duration;

use folkmoot_core::audit::{AuditAction, AuditDecision, Event};
use folkmoot_core::authority::{Authority, Reach};
use folkmoot_core::id::{AuthorKey, OpId, PrincipalId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::RevokeTarget;
use folkmoot_core::replica::{ActError, ActRequest, Signer};

use super::access::now;
use super::approvals::{awaits, counted};
use super::authors::statements_about;
use super::config::OpenError;
use super::convert::act_error;
use super::directory::{ClusterRecord, Directory, DirectoryError};
use super::peppers::is_handed_on;
use super::state::alarm;
use super::{Inner, random};
use crate::api::{Error, ErrorCode, NodeRotation, Replacement, Result, error_chain};

/// How often it is tried to take the key before back.
const RETIRE_INTERVAL: Duration = Duration::from_secs(2);
/// And after many tries.
const RETIRE_INTERVAL_LONG: Duration = Duration::from_secs(30);
/// Tries after which somebody is told that it does not go.
const RETIRE_TRIES: u32 = 15;
/// Keys before that are remembered: their audit logs are told from forged ones by that.
const EARLIER_KEYS_MAX: usize = 64;
/// What the revocation says.
const WHY: &str = "the node has another key";

/// Takes up the next key, if the control log certifies it. Returns whether the record has changed.
pub(super) fn take_up(
    directory: &Directory,
    record: &mut ClusterRecord,
    authority: &Authority,
) -> std::result::Result<bool, DirectoryError> {
    let Some(next) = directory.next_node_key()? else { return Ok(false) };
    let key = next.author();
    let certificate =
        authority.certificate_for(key, record.principal, now()).filter(|_| authority.is_member(key, now()));
    let Some(certificate) = certificate else { return Ok(false) };
    if !is_handed_on(&authority.policy(), directory.node_key()?.author(), key) {
        // The key before opens what it takes to check passwords, and shares it with the next one while it runs.
        tracing::warn!(%key, "the node's next key has no share of the peppers yet: it is taken up at the start after this one");
        return Ok(false);
    }
    record.earlier_keys.push(directory.node_key()?.author());
    let forgotten = record.earlier_keys.len().saturating_sub(EARLIER_KEYS_MAX);
    record.earlier_keys.drain(..forgotten);
    record.certificate = certificate.id;
    // The record first: with the key before in it, the next one is taken up at the next start at the latest.
    directory.write_cluster(record)?;
    directory.settle_rotation(record)?;
    tracing::warn!(%key, "the node has another key from now on");
    Ok(true)
}

impl Inner {
    /// Makes the next key, and certifies it if this node may.
    pub(super) async fn rotate_node(&self, asker: Option<PrincipalId>) -> Result<NodeRotation> {
        let directory = self.directory.clone();
        let next = tokio::task::spawn_blocking(move || {
            if let Some(next) = directory.next_node_key()? {
                return Ok(next);
            }
            let next = SecretKey::from_seed(&random()?);
            directory.write_next_node_key(&next)?;
            Ok::<_, OpenError>(next)
        });
        let next = next.await.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        let next = next.map_err(|error| Error::new(ErrorCode::Internal, error_chain(&error)))?;
        let (old, new) = (self.node_key.author(), next.author());
        let mut rotation = NodeRotation { old, new, certified: false };
        let mut waits = None;
        for signer in [Signer::Owner, Signer::Node] {
            match self.act(signer, ActRequest::Replace { old, new, for_whom: asker }).await {
                Ok(done) => {
                    rotation.certified = done.waits.is_none();
                    waits = done.waits;
                    break;
                }
                Err(ActError::NotAllowed(_) | ActError::NoOwnerKey) => {}
                Err(error) => return Err(act_error(error)),
            }
        }
        let event = Event::new(AuditAction::RotateKey, AuditDecision::Allowed).about(format!("node {old} to {new}"));
        let done = waits.map_or(Ok(()), |waits| Err(awaits(waits)));
        self.note_done(asker, event, &done);
        done?;
        metrics::counter!("folkmoot_key_rotations_total").increment(1);
        // The next key is to open what this one does. If it cannot be now, it is taken up later.
        if let Err(error) = self.share_peppers().await {
            tracing::warn!(error = error_chain(&error), "the node's next key has no share of the peppers yet");
        }
        Ok(rotation)
    }

    /// Certifies a key in the place of another's.
    pub(super) async fn replace(
        &self,
        asker: Option<PrincipalId>,
        old: AuthorKey,
        new: AuthorKey,
    ) -> Result<Replacement> {
        let request = || ActRequest::Replace { old, new, for_whom: asker };
        metrics::counter!("folkmoot_access_acts_total").increment(1);
        let done = match self.act(Signer::Node, request()).await {
            Err(ActError::NotAllowed(why)) => match self.act(Signer::Owner, request()).await {
                Err(ActError::NoOwnerKey) => Err(ActError::NotAllowed(why)),
                other => other,
            },
            other => other,
        };
        let done = done.map_err(act_error).and_then(counted);
        let event = Event::new(AuditAction::RotateKey, AuditDecision::Allowed).about(format!("{old} to {new}"));
        self.note_done(asker, event, &done);
        let certificate = done?;
        if let Err(error) = self.share_peppers().await {
            tracing::warn!(error = error_chain(&error), "the new key has no share of the peppers yet");
        }
        Ok(Replacement { certificate })
    }

    /// Takes the keys before back; run it as a task.
    pub(super) async fn retire_keys(self: Arc<Self>) {
        let mut tries = 0;
        loop {
            let left = match self.retire().await {
                Ok(left) => left,
                Err(()) => return,
            };
            metrics::gauge!("folkmoot_node_keys_retiring").set(left as f64);
            if left == 0 {
                return;
            }
            tries += 1;
            if tries == RETIRE_TRIES {
                let keys: Vec<String> = self.record.earlier_keys.iter().map(ToString::to_string).collect();
                alarm(
                    "old_node_key",
                    &format!(
                        "the key that this node had before still counts: approve that it is taken back, if `folkmoot approvals` lists it, or \
                     run `folkmoot key revoke {}` on a node of a stronger admin, once that has all that this one wrote",
                        keys.last().map_or("KEY", String::as_str)
                    ),
                );
            }
            // What others have to agree to may take days.
            tokio::time::sleep(if tries < RETIRE_TRIES { RETIRE_INTERVAL } else { RETIRE_INTERVAL_LONG }).await;
        }
    }

    /// Tries to take the keys before back; returns how many statements about them are in force still.
    async fn retire(&self) -> std::result::Result<usize, ()> {
        let (keys, own) = (self.record.earlier_keys.clone(), self.record.keys(self.node_key.author()));
        if keys.is_empty() {
            return Ok(0);
        }
        // Where acknowledged writes are missing here, pins would cut them off; and a peer may have them that is not asked yet.
        let whole = self.loss.streams.is_empty() && self.loss.notes.is_empty();
        let looked = self
            .core
            .look(move |replica, _| {
                let about: Vec<OpId> = keys.iter().flat_map(|key| statements_about(replica.authority(), key)).collect();
                let peers = replica.engine().peers();
                let others = replica.authority().members(now()).iter().any(|member| !own.contains(&member.key));
                (about, !others || peers.iter().any(|peer| peer.is_equal))
            })
            .await;
        let (about, settled) = looked.map_err(|_| ())?;
        let left = about.len();
        if !whole || !settled {
            return Ok(left);
        }
        let targets: Vec<_> = about.into_iter().map(RevokeTarget::Statement).collect();
        if targets.is_empty() {
            return Ok(0);
        }
        let why = WHY.to_owned();
        let request = ActRequest::Revoke { targets, reach: Reach::Target, why, for_whom: None };
        for signer in [Signer::Owner, Signer::Node] {
            // What waits for other owners is in force until then; it is not signed again.
            if let Ok(done) = self.act(signer, request.clone()).await {
                return Ok(if done.waits.is_none() { 0 } else { left });
            }
        }
        Ok(left)
    }
}
