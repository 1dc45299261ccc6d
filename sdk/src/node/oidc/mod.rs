//! Log-in by JSON Web Tokens of issuers that the node's configuration names (OpenID Connect).
//!
//! A token is checked here, each time that it is shown, against the issuer's keys ([`keys`]) and what it must say ([`jwt`]). Whose it
//! is says a statement of the control log, which links issuer and subject to a principal: all nodes know it, and it is revoked like
//! any other. Who is not linked is introduced, where the configuration says so ([`links`]).

mod crypto;
mod issuer;
mod jwt;
mod keys;
mod links;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use folkmoot_core::audit::{AuditAction, AuditDecision, AuditMethod, Event};
use folkmoot_core::hash::{Domain, hash};
use folkmoot_core::id::{PrincipalId, TokenVerifier};
use folkmoot_core::op::{Actions, Secret};
use tokio::sync::Semaphore;

pub use issuer::{ClaimGrant, OidcIssuer};
pub use jwt::is_web_token;
use jwt::{Claims, Refusal};
use keys::{Issuer, NoKey, Pace};

use super::access::{count_login, now};
use super::config::OpenError;
use super::{Inner, lock, random};
use crate::api::{Error, ErrorCode, NewIdentity, PrincipalName, Result, Timestamp, TokenInfo};

/// Tokens that are known to be right without checking them again.
const KNOWN_MAX: usize = 4_096;
/// For how long. Whether the link still counts is asked each time, and other keys of the issuer end it.
const KNOWN_FOR_MS: u64 = 600_000;
/// Log-ins that wait for acts to be signed, one after the other.
const WAITING_MAX: usize = 64;

/// The issuers, and who has shown which token lately.
pub(super) struct Oidc {
    issuers: Vec<Arc<Issuer>>,
    /// Makes what is known useless outside of this process.
    key: [u8; 32],
    known: Mutex<BTreeMap<[u8; 32], Known>>,
    /// One log-in signs at a time: two tokens of one subject make one principal.
    signing: Semaphore,
    waiting: Semaphore,
}

/// Who shows a token, and how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Names the link.
    pub(super) verifier: TokenVerifier,
    /// When the token ends.
    pub(super) until: Timestamp,
    /// To which actions it is limited.
    pub(super) actions: Actions,
}

#[derive(Clone, Copy)]
struct Known {
    shown: Shown,
    /// Until when it is believed unchecked.
    fresh_until: Timestamp,
    /// By which issuer, and which of its sets of keys.
    by: (usize, u64),
}

/// A token that is right.
struct Verified {
    claims: Claims,
    shown: Shown,
    by: (usize, u64),
}

fn refused(refusal: &Refusal) -> Error {
    Error::new(ErrorCode::Unauthenticated, refusal.to_string())
}

impl Oidc {
    /// # Errors
    /// [`OpenError::Oidc`].
    pub(super) fn new(issuers: &[OidcIssuer]) -> Result<Self, OpenError> {
        OidcIssuer::check_all(issuers).map_err(OpenError::Oidc)?;
        crypto::install();
        Ok(Self {
            issuers: issuers.iter().cloned().map(|config| Arc::new(Issuer::new(config, Pace::USUAL))).collect(),
            key: random()?,
            known: Mutex::default(),
            signing: Semaphore::new(1),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    /// Begins to fetch keys. Must be called within a tokio runtime.
    pub(super) fn begin(&self) -> Vec<tokio::task::JoinHandle<()>> {
        self.issuers.iter().map(|issuer| tokio::spawn(issuer.clone().keep_keys())).collect()
    }

    /// Returns the issuers, and how many of them have had no keys yet.
    pub(super) fn standing(&self) -> (u64, u64) {
        let without = self.issuers.iter().filter(|issuer| issuer.is_without_keys()).count();
        (self.issuers.len() as u64, without as u64)
    }

    fn known(&self, token: &[u8; 32], at: Timestamp) -> Option<Shown> {
        let known = *lock(&self.known).get(token)?;
        let (issuer, version) = known.by;
        let is_current = self.issuers.get(issuer).is_some_and(|issuer| issuer.version() == version);
        (is_current && at < known.fresh_until && at < known.shown.until).then_some(known.shown)
    }

    fn remember(&self, token: [u8; 32], verified: &Verified, at: Timestamp) {
        let mut known = lock(&self.known);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| at < known.fresh_until && at < known.shown.until);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        let fresh_until = Timestamp::from_millis(at.millis().saturating_add(KNOWN_FOR_MS));
        known.insert(token, Known { shown: verified.shown, fresh_until, by: verified.by });
    }

    async fn verify(&self, token: &str) -> Result<Verified, NoKey> {
        let head = jwt::head(token).map_err(NoKey::Refused)?;
        let named = jwt::issuer(token).map_err(NoKey::Refused)?;
        let place = self.issuers.iter().position(|issuer| issuer.config.issuer == named);
        let (place, issuer) =
            place.and_then(|at| Some((at, self.issuers.get(at)?))).ok_or(NoKey::Refused(Refusal::Issuer))?;
        let (key, version) = issuer.key(&head).await?;
        let claims = jwt::verify(token, head.algorithm, &key, &issuer.config).map_err(NoKey::Refused)?;
        let verifier = TokenVerifier::of_subject(&issuer.config.issuer, &claims.subject);
        let shown = Shown { verifier, until: claims.until, actions: claims.actions(&issuer.config) };
        Ok(Verified { claims, shown, by: (place, version) })
    }
}

impl Inner {
    /// Finds out who shows a token.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`]; [`ErrorCode::NotReady`] while the issuer's keys could not be had; [`ErrorCode::Busy`].
    pub(super) async fn web_token(self: &Arc<Self>, token: &str) -> Result<Shown> {
        let at = Timestamp::now();
        let key = hash(Domain::Token, &[b"shown", &self.oidc.key, token.as_bytes()]);
        if let Some(shown) = self.oidc.known(&key, at)
            && self.core.policy.borrow().token(&shown.verifier, now()).is_some()
        {
            return Ok(shown);
        }
        let tried = |decision| Event::new(AuditAction::Login, decision);
        let checked = match self.oidc.verify(token).await {
            Ok(verified) => self.log_in(&verified).await.map(|principal| (principal, verified)),
            Err(NoKey::Refused(refusal)) => Err(refused(&refusal)),
            Err(NoKey::NotYet) => Err(Error::new(ErrorCode::NotReady, "the keys of the issuer are not known yet")),
        };
        match checked {
            Ok(((principal, statement), verified)) => {
                self.oidc.remember(key, &verified, at);
                count_login(AuditMethod::Oidc, "right");
                let by = tried(AuditDecision::Allowed).by(Some(principal), AuditMethod::Oidc, Some(statement));
                self.note(by.about(self.issuer_name(verified.by.0)));
                Ok(verified.shown)
            }
            Err(error) => {
                let wrong = error.code() == ErrorCode::Unauthenticated;
                count_login(AuditMethod::Oidc, if wrong { "wrong" } else { "failed" });
                let decision = if wrong { AuditDecision::Denied } else { AuditDecision::Failed };
                // Who it claims to be is not believed, and the token not told.
                let by = tried(decision).by(None, AuditMethod::Oidc, None);
                let whole = Some(token).filter(|token| token.len() <= jwt::TOKEN_BYTES_MAX);
                let issuer = whole.and_then(|token| jwt::issuer(token).ok()).filter(|name| self.believes(name));
                let issuer = issuer.unwrap_or_default();
                self.note(by.about(issuer).because(error.detail()));
                Err(error)
            }
        }
    }

    fn believes(&self, name: &str) -> bool {
        self.oidc.issuers.iter().any(|issuer| issuer.config.issuer == name)
    }

    fn issuer_name(&self, place: usize) -> String {
        self.oidc.issuers.get(place).map(|issuer| issuer.config.issuer.clone()).unwrap_or_default()
    }

    /// Links a subject of an issuer to a principal.
    pub(super) async fn link_identity(
        &self,
        asker: Option<PrincipalId>,
        principal: &PrincipalName,
        new: &NewIdentity,
    ) -> Result<TokenInfo> {
        let bad = |what: String, pointer| Err(Error::new(ErrorCode::InvalidRequest, what).pointer(pointer));
        let fits =
            |text: &str, max: usize| !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control);
        if !fits(&new.issuer, issuer::TEXT_BYTES_MAX) {
            return bad(format!("an issuer has 1 to {} bytes", issuer::TEXT_BYTES_MAX), "/issuer");
        }
        if let Err(what) = issuer::url(&new.issuer, None) {
            return bad(format!("the issuer {what}"), "/issuer");
        }
        if !fits(&new.subject, jwt::SUBJECT_BYTES_MAX) {
            return bad(format!("a subject has 1 to {} bytes", jwt::SUBJECT_BYTES_MAX), "/subject");
        }
        let principal = self.find_actor(principal)?;
        new.until.map_or(Ok(()), super::password::ended)?;
        let verifier = TokenVerifier::of_subject(&new.issuer, &new.subject);
        if self.core.policy.borrow().token(&verifier, now()).is_some() {
            return Err(Error::new(ErrorCode::NameTaken, "the subject is linked to somebody already"));
        }
        // The subject may be an address or a number of a person, and what is said in the control log stays: only the hash tells it.
        self.believe(asker, principal, new.issuer.clone(), verifier, Secret::Subject, new.until).await
    }
}
