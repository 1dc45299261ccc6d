//! Closes what has ended.
//!
//! A right that ends is compared with the time that an op claims, and its author can lie about that: it could use the right for
//! ever by writing into the past. So some time after the end a node that may revokes the statement, as of what it knows: what was
//! written in time and has arrived stands, and nothing can be added any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use folkmoot_core::authority::{Denial, Reach};
use folkmoot_core::id::OpId;
use folkmoot_core::op::{Act, RevokeTarget};
use folkmoot_core::replica::{ActError, ActRequest, Signer};

use super::Inner;
use super::access::now;
use super::core_thread::wall_ms;

/// The longest time between two looks: each reads all statements.
const LOOK_MAX: Duration = Duration::from_secs(600);
/// The shortest.
const LOOK_MIN: Duration = Duration::from_millis(500);
/// Statements closed in one turn, so that other acts have theirs.
const CLOSED_MAX: usize = 64;
/// Statements remembered that this node may not close.
const REFUSED_MAX: usize = 10_000;
/// What the revocation says.
const WHY: &str = "its time is over";

impl Inner {
    /// Closes statements for ever; run it as a task.
    pub(super) async fn close_ended(self: Arc<Self>) {
        let grace = self.config.ended_grace;
        let pause = (grace / 10).clamp(LOOK_MIN, LOOK_MAX);
        let mut refused = BTreeSet::new();
        loop {
            tokio::time::sleep(pause).await;
            let Ok(ended) = self.ended(grace).await else { return };
            if refused.len() > REFUSED_MAX {
                refused.clear();
            }
            for statement in ended.into_iter().filter(|id| !refused.contains(id)).take(CLOSED_MAX).collect::<Vec<_>>() {
                let (targets, why) = (vec![RevokeTarget::Statement(statement)], WHY.to_owned());
                let request = ActRequest::Revoke { targets, reach: Reach::Target, why, for_whom: None };
                match self.act(Signer::Node, request).await {
                    Ok(_) => {
                        metrics::counter!("folkmoot_access_ended_closed_total").increment(1);
                        tracing::info!(%statement, "closed a right whose time is over");
                    }
                    // Another node may. Asked again only after a restart.
                    Err(ActError::NotAllowed(_)) => drop(refused.insert(statement)),
                    Err(error) => {
                        tracing::debug!(%statement, error = crate::api::error_chain(&error), "not closed yet");
                        break;
                    }
                }
            }
        }
    }

    /// Returns the statements whose time was over so long ago, and that nobody has revoked.
    async fn ended(&self, grace: Duration) -> crate::api::Result<Vec<OpId>> {
        let before = wall_ms().saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        self.authority(move |authority| {
            let over = authority.statements(now()).filter(|statement| {
                let ended = statement.not_after.is_some_and(|end| end.millis() < before);
                // Tokens are no part of verdicts: nodes ask their own clocks.
                let counts = !matches!(statement.act, Act::Token(_));
                ended && counts && statement.denial == Some(Denial::Expired)
            });
            over.map(|statement| statement.id).collect()
        })
        .await
    }
}
