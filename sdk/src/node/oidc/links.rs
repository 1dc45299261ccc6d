//! Who a token's subject is: links, introductions, and roles by claims.

use std::sync::Arc;
use std::time::Duration;

use folkmoot_core::authority::Authority;
use folkmoot_core::id::{OpId, PrincipalId, TokenVerifier};
use folkmoot_core::op::{Act, Secret};

use super::super::approvals::Asker;
use super::issuer::OidcIssuer;
use super::jwt::{Claims, Refusal};
use super::{Verified, refused};
use crate::api::{
    Error, ErrorCode, NewGrant, NewPrincipal, PrincipalKind, PrincipalName, Result, Timestamp, check_name,
};
use crate::node::Inner;
use crate::node::access::now;

/// Bytes of a name that a claim gives; another part may follow.
const NAME_BYTES_MAX: usize = 96;

fn after(time: Duration) -> Timestamp {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(Timestamp::now().millis().saturating_add(millis))
}

/// Returns whether a subject was ever linked here, as far as this node knows.
fn was_linked(authority: &Authority, verifier: &TokenVerifier) -> bool {
    authority.statements(now()).any(|statement| match statement.act {
        Act::Token(token) => token.verifier == *verifier,
        _ => false,
    })
}

impl Inner {
    fn linked(&self, verifier: &TokenVerifier) -> Option<(PrincipalId, OpId)> {
        let policy = self.core.policy.borrow();
        policy.token(verifier, now()).map(|token| (token.principal, token.statement))
    }

    /// Returns whose a token is that is right, and the link that says so.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`] if nobody's, or what keeps this node from introducing its subject.
    pub(super) async fn log_in(self: &Arc<Self>, verified: &Verified) -> Result<(PrincipalId, OpId)> {
        let Some(issuer) = self.oidc.issuers.get(verified.by.0) else { return Err(refused(&Refusal::Issuer)) };
        let (verifier, config) = (verified.shown.verifier, &issuer.config);
        let is_granted = config.grants.iter().any(|grant| verified.claims.has(grant));
        match self.linked(&verifier) {
            None if !config.register => return Err(refused(&Refusal::Nobody)),
            Some(found) if !is_granted => return Ok(found),
            None | Some(_) => {}
        }
        let busy = || Error::new(ErrorCode::Busy, "too many log-ins wait for rights to be given");
        let _waits = self.oidc.waiting.try_acquire().map_err(|_| busy())?;
        // Whoever asked may go away: what was begun is done whole all the same. And it is the node that does it, not who asked.
        let (inner, config, claims) = (self.clone(), config.clone(), verified.claims.clone());
        let signed = tokio::spawn(async move {
            let _alone = inner.oidc.signing.acquire().await.map_err(|_| busy())?;
            if inner.linked(&verifier).is_none() {
                inner.introduce(&config, &claims, verifier).await?;
            }
            let found = inner.linked(&verifier).ok_or_else(|| refused(&Refusal::Nobody))?;
            inner.grant_by_claims(&config, &claims, found.0).await;
            Ok(found)
        });
        signed.await.map_err(|error| Error::new(ErrorCode::Internal, format!("introduce somebody: {error}")))?
    }

    /// Makes a principal of a subject and links it. If two nodes do so at once, the link with the smaller statement counts on both,
    /// and what its holder does is done by that principal; the other principal has nothing more to it.
    async fn introduce(&self, config: &OidcIssuer, claims: &Claims, verifier: TokenVerifier) -> Result<()> {
        // Who was taken back does not come back by itself.
        if self.authority(move |authority| was_linked(authority, &verifier)).await? {
            return Err(refused(&Refusal::Nobody));
        }
        let name = self.free_name(claims.name(config), &verifier);
        let made = self
            .add_principal(Asker::Itself, &NewPrincipal { name, kind: PrincipalKind::User })
            .await
            .map_err(failed)?;
        let secret = Secret::Subject;
        self.believe(Asker::Itself, made.id, config.issuer.clone(), verifier, secret, None).await.map_err(failed)?;
        metrics::counter!("folkmoot_oidc_introduced_total").increment(1);
        tracing::info!(issuer = %config.issuer, principal = %made.id, "introduced a subject of an issuer");
        Ok(())
    }

    /// Returns a name that is nobody's yet: issuers let people choose what they are called, and nobody may be called like another.
    fn free_name(&self, wanted: &str, verifier: &TokenVerifier) -> String {
        let wanted: String = wanted.chars().map(|c| if c.is_control() || c == '/' { '_' } else { c }).collect();
        let mut wanted = wanted.trim().to_owned();
        while wanted.len() > NAME_BYTES_MAX {
            wanted.pop();
        }
        let wanted = wanted.trim_end();
        let is_id = wanted.parse::<PrincipalId>().is_ok();
        let free = self.core.policy.borrow().named(wanted, now()).next().is_none();
        if free && !is_id && check_name(wanted).is_ok() {
            return wanted.to_owned();
        }
        let tail: String = verifier.as_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("{wanted}~{tail}")
    }

    /// Gives the roles that the claims of a token ask for and that do not last for long any more. What this node may not give is
    /// left out, and told: the log-in is right all the same.
    async fn grant_by_claims(&self, config: &OidcIssuer, claims: &Claims, principal: PrincipalId) {
        let wanted = config.grants.iter().filter(|grant| claims.has(grant));
        let has = self.principals_of(Some(principal)).await.unwrap_or_default();
        let has: Vec<_> = has.into_iter().flat_map(|info| info.grants).collect();
        let soon = after(config.grant_for / 2);
        for grant in wanted {
            let new = NewGrant {
                role: grant.role.clone(),
                collections: grant.collections.clone(),
                prefix: None,
                fields: Vec::new(),
                without_fields: Vec::new(),
                until: Some(after(config.grant_for)),
            };
            let target = new.target();
            let lasts = has.iter().any(|has| {
                has.role == grant.role && has.target == target && has.until.is_none_or(|until| until > soon)
            });
            if lasts {
                continue;
            }
            let given = self.give(Asker::Itself, &PrincipalName::Id(principal), &new).await;
            let outcome = if given.is_ok() { "done" } else { "failed" };
            metrics::counter!("folkmoot_oidc_grants_total", "outcome" => outcome).increment(1);
            if let Err(error) = given {
                let (role, on) = (&grant.role, &grant.collections);
                tracing::warn!(issuer = %config.issuer, role, on, %error, "a role by a claim cannot be given");
            }
        }
    }
}

/// What keeps a node from introducing somebody is no fault of who comes.
fn failed(error: Error) -> Error {
    match error.code() {
        ErrorCode::NotAllowed => {
            let what = "the token is right, but nobody is linked to its subject, and this node may introduce nobody";
            Error::new(ErrorCode::Unauthenticated, what).hint(
                "log in at a node that is an admin first, or let an admin link the subject: `folkmoot user identity`",
            )
        }
        _ => error,
    }
}
