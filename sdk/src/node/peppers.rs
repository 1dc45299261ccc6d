//! Peppers: what it takes to check passwords. A node opens those it has from the control log, makes one when another password is
//! set and none is fit, and shares those that it has with nodes that act for users and lack them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot_core::authority::Policy;
use folkmoot_core::id::{AuthorKey, ExchangeKey, PepperId, SealedPepper};
use folkmoot_core::limits::PEPPER_SHARES_MAX;
use folkmoot_core::op::Act;
use folkmoot_core::pepper::Pepper;

use super::access::now;
use super::approvals::Asker;
use super::{Inner, lock, random};
use crate::api::{Error, ErrorCode, Result, error_chain};

/// Peppers kept open: a cluster has one, and one more for each node that was taken away since.
const OPEN_MAX: usize = 64;
/// Shares of one pepper that are tried; each costs 0.1 ms, and one that does not open is somebody's mischief.
const TRIES_MAX: usize = 32;
/// Peppers shared in one turn.
const SHARED_MAX: usize = 16;
/// Within this time a node shares with one that lacks a pepper: at random, so that seldom two do it.
const SHARED_WITHIN: Duration = Duration::from_secs(2);
/// The longest time between two looks at who lacks one: duties and memberships end by themselves too.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest: each looks at all passwords.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The peppers that are open here.
#[derive(Default)]
pub(super) struct Peppers {
    open: Mutex<BTreeMap<PepperId, Pepper>>,
    /// Held while one is chosen for another password, so that two do not make two.
    choosing: tokio::sync::Mutex<()>,
}

impl Peppers {
    fn known(&self, id: PepperId) -> Option<Pepper> {
        lock(&self.open).get(&id).cloned()
    }

    fn keep(&self, pepper: &Pepper) {
        let mut open = lock(&self.open);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(pepper.id(), pepper.clone());
    }
}

/// The error of a node that has no duty to check passwords.
pub(super) fn no_duty(node: AuthorKey) -> Error {
    let what = format!("this node ({node}) checks no passwords: it has no duty to act for users");
    Error::new(ErrorCode::PasswordsUnchecked, what)
        .hint("ask a node that was invited as editor or admin; a token or a certificate is good at each one")
}

fn lacks(node: AuthorKey, missing: usize, all: usize) -> Error {
    let what = format!(
        "name or password is not right, or this node ({node}) cannot tell: of {missing} of the {all} peppers that passwords are \
         under it has no share"
    );
    Error::new(ErrorCode::PasswordsUnchecked, what).hint(
        "a node that has them shares them by itself when the two are connected; if none is left, set the password anew: \
         `folkmoot user password NAME`",
    )
}

/// Returns random bytes.
///
/// # Errors
/// [`ErrorCode::Internal`] if the system gives none.
pub(super) fn drawn<const N: usize>(what: &str) -> Result<[u8; N]> {
    random().map_err(|error| Error::new(ErrorCode::Internal, format!("draw {what}: {error}")))
}

/// Returns a random part of [`SHARED_WITHIN`].
fn some_time() -> Duration {
    let drawn = drawn("a time").map_or(0, u64::from_le_bytes);
    let most = u64::try_from(SHARED_WITHIN.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(drawn % most.max(1))
}

impl Inner {
    /// Returns a pepper, if this node has a share of it that opens.
    pub(super) async fn pepper(&self, id: PepperId) -> Result<Option<Pepper>> {
        if let Some(pepper) = self.peppers.known(id) {
            return Ok(Some(pepper));
        }
        let own = self.node_key.author();
        let shares = self.authority(move |authority| authority.pepper_shares(id, own)).await?;
        let open = |(with, sealed): &(ExchangeKey, SealedPepper)| {
            Pepper::open(self.record.cluster, id, &self.node_key, (with, sealed))
        };
        let pepper = shares.iter().take(TRIES_MAX).find_map(open);
        if let Some(pepper) = &pepper {
            self.peppers.keep(pepper);
        }
        Ok(pepper)
    }

    /// Returns the pepper for another password: the newest that is fit and that this node has, else a new one. All nodes that act
    /// for users have a share of it then.
    ///
    /// # Errors
    /// [`ErrorCode::PasswordsUnchecked`] if this node does not act for users.
    pub(super) async fn pepper_for_another(&self) -> Result<Pepper> {
        let _chosen = self.peppers.choosing.lock().await;
        let policy = self.core.policy.borrow().clone();
        let own = self.node_key.author();
        if !policy.acts_for_others(own, now()) {
            return Err(no_duty(own));
        }
        let mut fit = policy.fit_peppers(now()).into_iter().take(OPEN_MAX);
        let pepper = loop {
            match fit.next() {
                Some(id) => {
                    if let Some(pepper) = self.pepper(id).await? {
                        break pepper;
                    }
                }
                None => break Pepper::new(drawn("a pepper")?),
            }
        };
        self.share(&policy, &pepper).await?;
        Ok(pepper)
    }

    /// Seals a pepper for the nodes that act for users and lack it.
    async fn share(&self, policy: &Policy, pepper: &Pepper) -> Result<()> {
        let lacking: Vec<AuthorKey> = policy.lacking(pepper.id(), now()).into_iter().collect();
        for nodes in lacking.chunks(PEPPER_SHARES_MAX) {
            let nodes: BTreeSet<AuthorKey> = nodes.iter().copied().collect();
            let shares = pepper.share(self.record.cluster, &nodes, drawn("a key")?);
            let count = shares.shares.len();
            if count == 0 {
                continue;
            }
            tracing::info!(pepper = %pepper.id(), nodes = count, "shared what it takes to check passwords");
            self.state(Asker::Itself, Act::Pepper(shares)).await?;
            metrics::counter!("folkmoot_pepper_shares_total").increment(count as u64);
        }
        Ok(())
    }

    /// Shares the peppers that passwords are under with those that act for users and lack them, as far as this node has them.
    pub(super) async fn share_peppers(&self) -> Result<()> {
        let policy = self.core.policy.borrow().clone();
        for id in self.wanting(&policy).into_iter().take(SHARED_MAX) {
            if let Some(pepper) = self.pepper(id).await? {
                self.share(&policy, &pepper).await?;
            }
        }
        Ok(())
    }

    /// Returns the peppers in use that somebody lacks, if it is for this node to do something about that.
    fn wanting(&self, policy: &Policy) -> Vec<PepperId> {
        if !policy.acts_for_others(self.node_key.author(), now()) {
            return Vec::new();
        }
        let used = policy.peppers_in_use(now()).into_keys();
        used.filter(|id| !policy.lacking(*id, now()).is_empty()).collect()
    }

    /// Shares peppers for ever; run it as a task.
    pub(super) async fn keep_peppers_shared(self: Arc<Self>) {
        let mut policy = self.core.policy.clone();
        policy.mark_changed();
        loop {
            // An error means that the node has ended; what ends by its time is seen at the next look.
            if let Ok(Err(_)) = tokio::time::timeout(LOOK_INTERVAL, policy.changed()).await {
                return;
            }
            let seen = policy.borrow_and_update().clone();
            if !self.wanting(&seen).is_empty() {
                tokio::time::sleep(some_time()).await;
                if let Err(error) = self.share_peppers().await {
                    tracing::debug!(error = error_chain(&error), "no pepper is shared yet");
                }
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Returns the error of a log-in that may have failed because this node lacks a pepper; none if it lacks none. It is the same for
    /// all users, so that it tells nothing of who there is.
    pub(super) async fn lacks_peppers(&self, policy: &Policy) -> Result<Option<Error>> {
        let (missing, all) = self.missing_peppers(policy).await?;
        Ok((missing > 0).then(|| lacks(self.node_key.author(), missing, all)))
    }

    /// Returns how many of the peppers that passwords are under this node does not have, and how many there are.
    pub(super) async fn missing_peppers(&self, policy: &Policy) -> Result<(usize, usize)> {
        let used = policy.peppers_in_use(now());
        let mut missing = 0;
        for id in used.keys() {
            missing += usize::from(self.pepper(*id).await?.is_none());
        }
        Ok((missing, used.len()))
    }
}

/// Returns how many passwords are under a pepper that somebody knows who acts for users no longer.
pub(super) fn exposed_passwords(policy: &Policy) -> usize {
    let used = policy.peppers_in_use(now()).into_iter();
    used.filter(|(pepper, _)| policy.is_exposed(*pepper, now())).map(|(_, passwords)| passwords).sum()
}

/// Returns whether a node's next key has a share of each pepper that the key before has, as far as it is for it to have one.
pub(super) fn is_handed_on(policy: &Policy, old: AuthorKey, new: AuthorKey) -> bool {
    let acts = |key| policy.acts_for_others(key, now());
    let has = |id: &PepperId, key| policy.pepper(*id).is_some_and(|info| info.shared.contains(&key));
    let lost = |id: &PepperId| has(id, old) && !has(id, new);
    // Who acts no longer shares nothing any more: then there is nothing to wait for.
    !(acts(old) && acts(new) && policy.peppers_in_use(now()).keys().any(lost))
}

#[cfg(test)]
mod tests;
