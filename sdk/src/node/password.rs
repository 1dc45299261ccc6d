//! Passwords and certificates of users: how they are set, and who shows which.
//!
//! A password is a statement of the control log like a token, so every node knows it, and a changed or revoked one ends
//! everywhere. What the statement holds is a hash made by Argon2id with a salt of its own, and by a pepper that only nodes have
//! which act for users (`peppers`): the others check no passwords, and can try no guesses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, Version};
use folkmoot_core::audit::{AuditAction, AuditDecision, AuditMethod, Event};
use folkmoot_core::hash::{Domain, hash};
use folkmoot_core::id::{PepperId, PrincipalId, Salt, TokenVerifier};
use folkmoot_core::op::{Act, Actions, PasswordHash, Rank, RevokeTarget, Secret, Target, Token};
use folkmoot_core::rate::{Buckets, Rate};
use tokio::sync::Semaphore;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::access::{count_login, end, now, token_info};
use super::approvals::Asker;
use super::config::OpenError;
use super::{Inner, lock, peppers, random};
use crate::api::{
    Error, ErrorCode, NewCertificate, NewPassword, PrincipalName, Result, RevokeOptions, Timestamp, TokenInfo,
};

/// Memory of a hash, in KiB. OWASP asks for 19 MiB and two passes at least.
const MEMORY_KIB: u32 = 32 << 10;
/// Passes over it.
const PASSES: u32 = 3;
/// Characters of a password.
const CHARS_MIN: usize = 10;
/// The same, at most: a hash takes longer for longer ones.
const CHARS_MAX: usize = 256;
/// Hashes made at once; each takes its memory and a core.
const HASHES_MAX: usize = 2;
/// Log-ins that wait for one of these.
const WAITING_MAX: usize = 64;
/// How long a password that was right is known without hashing it again. Whether it still counts is asked each time.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// Passwords known so.
const KNOWN_MAX: usize = 4_096;
/// Wrong passwords for one user from one address: five, then one in half a minute.
const OF_USER: Rate = Rate { burst: 5, per_second: 1.0 / 30.0 };
/// Wrong passwords from one address for anybody.
const OF_SOURCE: Rate = Rate { burst: 50, per_second: 0.5 };
/// Addresses, and users by address, whose wrong passwords are counted.
const COUNTED_MAX: usize = 16_384;
/// Most bytes of a certificate.
const CERTIFICATE_BYTES_MAX: usize = 64 << 10;
/// The name of a password's statement.
const PASSWORD_NAME: &str = "password";

/// Who has shown which password lately, and who has to wait.
pub(super) struct Passwords {
    /// Makes what is known useless outside of this process.
    key: [u8; 32],
    known: Mutex<BTreeMap<[u8; 32], Known>>,
    wrong: Mutex<Wrong>,
    hashing: Semaphore,
    waiting: Semaphore,
}

#[derive(Clone, Copy)]
struct Known {
    verifier: TokenVerifier,
    until: Instant,
}

struct Wrong {
    of_user: Buckets<(IpAddr, PrincipalId)>,
    of_source: Buckets<IpAddr>,
}

/// The error for a password that is not right, or of nobody: which is not told.
pub(super) fn wrong() -> Error {
    Error::new(ErrorCode::Unauthenticated, "name or password is not right, or the password has ended or been revoked")
}

fn later(wait: Duration) -> Error {
    Error::new(ErrorCode::TooManyRequests, "too many wrong passwords came from this address").retry_after(wait)
}

/// What is counted for an address: of IPv6 the network, in which one machine may have any number of addresses.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

impl Passwords {
    pub(super) fn new() -> Result<Self, OpenError> {
        Ok(Self {
            key: random()?,
            known: Mutex::default(),
            wrong: Mutex::new(Wrong {
                of_user: Buckets::new(OF_USER, COUNTED_MAX),
                of_source: Buckets::new(OF_SOURCE, COUNTED_MAX),
            }),
            hashing: Semaphore::new(HASHES_MAX),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    fn shown(&self, principal: PrincipalId, password: &str) -> [u8; 32] {
        hash(Domain::Token, &[b"shown", &self.key, principal.as_bytes(), password.as_bytes()])
    }

    fn known(&self, shown: &[u8; 32], at: Instant) -> Option<TokenVerifier> {
        lock(&self.known).get(shown).filter(|known| known.until > at).map(|known| known.verifier)
    }

    fn remember(&self, shown: [u8; 32], verifier: TokenVerifier, at: Instant) {
        let mut known = lock(&self.known);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| known.until > at);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        known.insert(shown, Known { verifier, until: at + KNOWN_FOR });
    }

    /// Counts a try as a wrong one until it turns out right.
    fn begin(&self, source: Option<IpAddr>, principal: PrincipalId, at: Instant) -> Result<()> {
        let Some(source) = source.map(network) else { return Ok(()) };
        let mut wrong = lock(&self.wrong);
        wrong.of_user.take_many((source, principal), 1.0, at).map_err(later)?;
        wrong.of_source.take_many(source, 1.0, at).map_err(later)
    }

    fn was_right(&self, source: Option<IpAddr>, principal: PrincipalId) {
        let Some(source) = source.map(network) else { return };
        let mut wrong = lock(&self.wrong);
        wrong.of_user.give_back(&(source, principal), 1.0);
        wrong.of_source.give_back(&source, 1.0);
    }

    /// Hashes on a thread of its own kind, a few at once.
    async fn hash(&self, password: &str, how: Cost) -> Result<Hashed> {
        let busy = || Error::new(ErrorCode::Busy, "too many passwords are being checked");
        let _waits = self.waiting.try_acquire().map_err(|_| busy())?;
        let _one = self.hashing.acquire().await.map_err(|_| busy())?;
        let password = password.to_owned();
        let failed = |what: String| Error::new(ErrorCode::Internal, format!("hash a password: {what}"));
        let hashed = tokio::task::spawn_blocking(move || hashed(&password, &how)).await;
        hashed.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }
}

/// What Argon2id made of a password. With a pepper it becomes the verifier.
pub(super) type Hashed = Zeroizing<[u8; 32]>;

/// What Argon2id hashes with.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    salt: Salt,
    memory_kib: u32,
    passes: u32,
}

impl Cost {
    /// What is usual, with a salt.
    pub(super) const fn usual(salt: [u8; 16]) -> Self {
        Self { salt: Salt::new(salt), memory_kib: MEMORY_KIB, passes: PASSES }
    }

    pub(super) const fn of(hash: &PasswordHash) -> Self {
        Self { salt: hash.salt, memory_kib: hash.memory_kib, passes: hash.passes }
    }

    pub(super) const fn with(self, pepper: PepperId) -> PasswordHash {
        PasswordHash { salt: self.salt, memory_kib: self.memory_kib, passes: self.passes, pepper }
    }
}

pub(super) fn hashed(password: &str, how: &Cost) -> Result<Hashed, argon2::Error> {
    let params = Params::new(how.memory_kib, how.passes, 1, Some(32))?;
    let mut out = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
        password.as_bytes(),
        how.salt.as_bytes(),
        &mut out[..],
    )?;
    Ok(out)
}

fn check(password: &str, name: &str) -> Result<()> {
    let chars = password.chars().count();
    let what = if !(CHARS_MIN..=CHARS_MAX).contains(&chars) {
        format!("a password has {CHARS_MIN} to {CHARS_MAX} characters")
    } else if password.eq_ignore_ascii_case(name) {
        "the password is the name".to_owned()
    } else if password.chars().all(|char| password.starts_with(char)) {
        "the password is one character again and again".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorCode::InvalidPassword, what).pointer("/password"))
}

/// Refuses what would have ended before it begins.
pub(super) fn ended(until: Timestamp) -> Result<()> {
    if until > Timestamp::now() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidRequest, "it would have ended already").pointer("/until"))
}

/// What counts of a certificate.
pub(super) struct Certificate {
    /// Tells its key.
    pub(super) verifier: TokenVerifier,
    /// When it ends.
    not_after: Option<Timestamp>,
    /// Its subject, for people.
    subject: String,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCertificate`].
    pub(super) fn parse(der: &[u8]) -> Result<Self> {
        let invalid = |what: String| Error::new(ErrorCode::InvalidCertificate, what).pointer("/certificate");
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(invalid(format!("a certificate has at most {CERTIFICATE_BYTES_MAX} bytes")));
        }
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| invalid(format!("the certificate is no X.509: {error}")))?;
        if !rest.is_empty() {
            return Err(invalid("something follows the certificate".to_owned()));
        }
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).ok();
        Ok(Self {
            verifier: TokenVerifier::of_certificate(certificate.public_key().raw),
            not_after: not_after.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000))),
            subject: certificate.subject().to_string(),
        })
    }

    fn from_pem(text: &str) -> Result<Self> {
        let invalid = |what: &'static str| Error::new(ErrorCode::InvalidCertificate, what).pointer("/certificate");
        let no_pem = || invalid("the certificate is no PEM text that begins with -----BEGIN CERTIFICATE-----");
        let block = Pem::iter_from_buffer(text.as_bytes()).next().and_then(|block| block.ok()).ok_or_else(no_pem)?;
        if block.label != "CERTIFICATE" {
            return Err(no_pem());
        }
        Self::parse(&block.contents)
    }
}

/// Returns the event of somebody who shows a password.
fn tried(decision: AuditDecision, principal: Option<PrincipalId>, name: &PrincipalName) -> Event {
    let mut event = Event::new(AuditAction::Login, decision).by(principal, AuditMethod::Password, None);
    if principal.is_none() {
        event.name = name.to_string();
    }
    event
}

impl Inner {
    /// Finds the password that was shown.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`], [`ErrorCode::TooManyRequests`], [`ErrorCode::Busy`]; [`ErrorCode::PasswordsUnchecked`] if
    /// this node may not check passwords, or has not what it takes.
    pub(super) async fn password(
        &self,
        name: &PrincipalName,
        password: &str,
        source: Option<IpAddr>,
    ) -> Result<TokenVerifier> {
        // Nobody's password takes as long as a wrong one.
        let nobody = || PrincipalId::new(hash(Domain::Token, &[b"nobody", name.to_string().as_bytes()]));
        let principal = self.find_principal(name).unwrap_or_else(|_| nobody());
        if password.chars().count() > CHARS_MAX {
            return Err(wrong());
        }
        let passwords = &self.passwords;
        let policy = self.core.policy.borrow().clone();
        let (at, shown) = (Instant::now(), passwords.shown(principal, password));
        let may_check = policy.acts_for_others(self.node_key.author(), now());
        if may_check
            && let Some(verifier) = passwords.known(&shown, at)
            && policy.token(&verifier, now()).is_some()
        {
            return Ok(verifier);
        }
        passwords.begin(source, principal, at).inspect_err(|error| {
            count("refused");
            let mut event = tried(AuditDecision::Denied, self.find_principal(name).ok(), name).because(error.detail());
            event.action = AuditAction::Throttle;
            self.note(event);
        })?;
        if !may_check {
            let error = peppers::no_duty(self.node_key.author());
            return Err(self.not_checked(name, error));
        }
        let current = policy.passwords(principal).iter().rev();
        let mut current = current.filter(|password| policy.token(&password.verifier, now()).is_some());
        let current = current.next();
        let how = current.map_or(Cost::usual([0; 16]), |it| Cost::of(&it.hash));
        let made = passwords.hash(password, how).await?;
        let pepper = match current {
            Some(it) => self.pepper(it.hash.pepper).await?,
            None => None,
        };
        let made = pepper.map(|pepper| pepper.verifier(&made));
        match current.map(|it| it.verifier) {
            Some(verifier) if Some(verifier) == made => {
                passwords.was_right(source, principal);
                passwords.remember(shown, verifier, at);
                count("right");
                self.note(tried(AuditDecision::Allowed, Some(principal), name));
                Ok(verifier)
            }
            Some(_) | None => {
                if let Some(error) = self.lacks_peppers(&policy).await? {
                    return Err(self.not_checked(name, error));
                }
                count("wrong");
                let known = self.find_principal(name).ok();
                self.note(tried(AuditDecision::Denied, known, name).because("name or password is not right"));
                tracing::info!(user = %name, source = ?source, "a wrong password");
                Err(wrong())
            }
        }
    }

    /// Tells of somebody whose password this node cannot check. It stays counted as a wrong one.
    fn not_checked(&self, name: &PrincipalName, error: Error) -> Error {
        count("unchecked");
        let known = self.find_principal(name).ok();
        self.note(tried(AuditDecision::Failed, known, name).because(error.detail()));
        error
    }

    /// Checks a password of a principal that is known already.
    pub(super) async fn demand_password(
        &self,
        principal: PrincipalId,
        password: &str,
        source: Option<IpAddr>,
    ) -> Result<()> {
        self.password(&PrincipalName::Id(principal), password, source).await.map(|_| ())
    }

    pub(super) async fn set_password(
        &self,
        asker: Option<PrincipalId>,
        principal: &PrincipalName,
        new: &NewPassword,
    ) -> Result<TokenInfo> {
        let principal = self.find_actor(principal)?;
        check(&new.password, &self.name_of_principal(principal))?;
        new.until.map_or(Ok(()), ended)?;
        let how = Cost::usual(peppers::drawn("a salt")?);
        let made = self.passwords.hash(&new.password, how).await?;
        let pepper = self.pepper_for_another().await?;
        let verifier = pepper.verifier(&made);
        let before: Vec<_> = self.core.policy.borrow().passwords(principal).iter().map(|it| it.statement).collect();
        let secret = Secret::Password(how.with(pepper.id()));
        let info = self.believe(asker, principal, PASSWORD_NAME.to_owned(), verifier, secret, new.until).await?;
        let options = RevokeOptions { why: "another password was set".to_owned(), cascade: false };
        for statement in before {
            self.take_back(asker, vec![RevokeTarget::Statement(statement)], &options).await?;
        }
        Ok(info)
    }

    pub(super) async fn trust_certificate(
        &self,
        asker: Option<PrincipalId>,
        principal: &PrincipalName,
        new: &NewCertificate,
    ) -> Result<TokenInfo> {
        let principal = self.find_actor(principal)?;
        let certificate = Certificate::from_pem(&new.certificate)?;
        let until = new.until.or(certificate.not_after);
        until.map_or(Ok(()), ended)?;
        if self.core.policy.borrow().token(&certificate.verifier, now()).is_some() {
            return Err(Error::new(ErrorCode::NameTaken, "the certificate's key is somebody's already"));
        }
        let mut name = certificate.subject;
        while name.len() > folkmoot_core::limits::ACT_TEXT_BYTES_MAX {
            name.pop();
        }
        self.believe(asker, principal, name, certificate.verifier, Secret::Certificate, until).await
    }

    /// States what somebody may show besides tokens.
    pub(super) async fn believe(
        &self,
        asker: impl Into<Asker>,
        principal: PrincipalId,
        name: String,
        verifier: TokenVerifier,
        secret: Secret,
        until: Option<Timestamp>,
    ) -> Result<TokenInfo> {
        let (actions, target) = (Actions::ALL, Target::everything());
        let rank = Rank::DEVICE;
        let made = Token { principal, verifier, name, actions, target, rank, not_after: end(until), secret };
        let statement = self.state(asker, Act::Token(made.clone())).await?;
        Ok(token_info(statement, &made))
    }
}

fn count(outcome: &'static str) {
    count_login(AuditMethod::Password, outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn who_guesses_waits_and_nobody_else() {
        let passwords = Passwords::new().unwrap();
        let (ann, bob) = (PrincipalId::new([1; 32]), PrincipalId::new([2; 32]));
        let at = Instant::now();
        for _ in 0..OF_USER.burst {
            passwords.begin(source("192.0.2.1"), ann, at).unwrap();
        }
        let error = passwords.begin(source("192.0.2.1"), ann, at).unwrap_err();
        assert_eq!(error.code(), ErrorCode::TooManyRequests);
        assert_eq!(error.retry_delay(), Some(Duration::from_secs(30)));
        assert!(passwords.begin(source("192.0.2.1"), bob, at).is_ok(), "another user from there");
        assert!(passwords.begin(source("192.0.2.2"), ann, at).is_ok(), "the same user from elsewhere");
        assert!(passwords.begin(source("192.0.2.1"), ann, at + Duration::from_secs(31)).is_ok());
        // One network of IPv6 is one source.
        for n in 0..OF_USER.burst {
            passwords.begin(source(&format!("2001:db8::{n}")), ann, at).unwrap();
        }
        assert!(passwords.begin(source("2001:db8::ffff"), ann, at).is_err());
        assert!(passwords.begin(source("2001:db8:0:1::1"), ann, at).is_ok());
    }

    #[test]
    fn right_passwords_cost_nothing() {
        let passwords = Passwords::new().unwrap();
        let ann = PrincipalId::new([1; 32]);
        for _ in 0..100 {
            passwords.begin(source("192.0.2.1"), ann, Instant::now()).unwrap();
            passwords.was_right(source("192.0.2.1"), ann);
        }
    }

    #[test]
    fn an_address_that_tries_many_users_waits() {
        let passwords = Passwords::new().unwrap();
        let at = Instant::now();
        let tries = |n: u8| passwords.begin(source("192.0.2.1"), PrincipalId::new([n; 32]), at);
        assert_eq!((0..=u8::MAX).filter(|n| tries(*n).is_ok()).count(), OF_SOURCE.burst as usize);
    }

    #[test]
    fn weak_passwords_are_refused() {
        for bad in ["", "short", "123456789", "AnnOfTheHill", "aaaaaaaaaaaaaaaa", &"long".repeat(65)] {
            assert_eq!(check(bad, "annofthehill").unwrap_err().code(), ErrorCode::InvalidPassword, "{bad}");
        }
        for good in ["correct horse", "äöüäöüäöüä", &"long".repeat(64)] {
            assert!(check(good, "ann").is_ok(), "{good}");
        }
    }

    #[test]
    fn a_hash_depends_on_password_salt_and_cost() {
        let how = Cost { salt: Salt::new([7; 16]), memory_kib: 64, passes: 1 };
        let made = hashed("correct horse", &how).unwrap();
        assert_eq!(hashed("correct horse", &how).unwrap(), made);
        assert_ne!(hashed("correct horsE", &how).unwrap(), made);
        assert_ne!(hashed("correct horse", &Cost { salt: Salt::new([8; 16]), ..how }).unwrap(), made);
        assert_ne!(hashed("correct horse", &Cost { passes: 2, ..how }).unwrap(), made);
    }

    #[test]
    fn what_is_known_is_bounded_and_ends() {
        let passwords = Passwords::new().unwrap();
        let at = Instant::now();
        let verifier = TokenVerifier::new([1; 32]);
        let shown = passwords.shown(PrincipalId::new([1; 32]), "correct horse");
        passwords.remember(shown, verifier, at);
        assert_eq!(passwords.known(&shown, at), Some(verifier));
        assert_eq!(passwords.known(&shown, at + KNOWN_FOR), None);
        for n in 0..2 * KNOWN_MAX as u64 {
            passwords.remember(hash(Domain::Token, &[&n.to_le_bytes()]), verifier, at);
        }
        assert!(lock(&passwords.known).len() <= KNOWN_MAX);
    }
}
