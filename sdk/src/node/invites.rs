//! The tickets that this node gave out, and who came in with them.
//!
//! A use is spent exactly when a node was admitted. Two things on the disk cannot change in one step, so the file says
//! first who is being admitted; after a crash the control log tells whether that came to be.

use folkmoot_core::hash::{Domain, hash};
use folkmoot_core::id::{AuthorKey, OpId, PrincipalId};
use serde::{Deserialize, Serialize};

use super::directory::{Directory, DirectoryError};

/// Tickets that are good at the same time.
const TICKETS_MAX: usize = 1_000;
/// Nodes that all good tickets together may admit: each leaves its key in the file.
pub(super) const USES_MAX: usize = 4_096;

/// A ticket that was given out and has not expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InviteRecord {
    /// Hash of the secret, so that reading the file invites nobody.
    pub(super) secret_hash: OpId,
    pub(super) expires_ms: u64,
    /// How many may still come in, those that are being admitted included.
    pub(super) uses: u32,
    pub(super) role: String,
    /// Whose devices come in, in the place of nodes with a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) device_of: Option<PrincipalId>,
    /// Who came in with it. Their answers may have been lost: they may ask again.
    #[serde(default)]
    pub(super) admitted: Vec<AuthorKey>,
    /// Who is being admitted.
    #[serde(default)]
    pub(super) pending: Vec<AuthorKey>,
}

/// Why nobody was let in, or no ticket given out; told to who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InviteError {
    #[error("the ticket is unknown, used up or expired; ask for a new one with `folkmoot invite`")]
    NotGood,
    #[error("this node is being admitted already; try again in a moment")]
    UnderWay,
    #[error("too many tickets are good already; wait until some have expired")]
    TooMany,
    #[error("the inviting node cannot write down who comes in: {0}")]
    Write(String),
}

impl From<DirectoryError> for InviteError {
    fn from(error: DirectoryError) -> Self {
        Self::Write(crate::api::error_chain(&error))
    }
}

/// What a good ticket gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// Admit the node in this role, or as a device of this principal, then [`Invites::settle`].
    Admit { role: String, device_of: Option<PrincipalId> },
    /// The node came in before: only its answer is to be given again.
    Again,
}

/// How an admission ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Admitted,
    /// Nothing was signed.
    Refused,
    /// The commit failed: the control log will tell, after a restart.
    Unknown,
}

/// Returns the hash of a ticket's secret, as the inviter keeps it.
pub(super) fn secret_hash(secret: &[u8]) -> OpId {
    OpId::new(hash(Domain::Network, &[b"invite", secret]))
}

/// All tickets of this node, as on its disk.
#[derive(Debug, Default)]
pub(super) struct Invites(Vec<InviteRecord>);

impl Invites {
    /// Reads the tickets and settles the admissions that a crash cut off. `is_certified` asks the control log.
    pub(super) fn open(
        directory: &Directory,
        is_certified: impl Fn(AuthorKey) -> bool,
    ) -> Result<Self, DirectoryError> {
        let mut invites = Self(directory.invites()?);
        let mut changed = false;
        for invite in &mut invites.0 {
            for key in std::mem::take(&mut invite.pending) {
                changed = true;
                if is_certified(key) {
                    invite.spend(key);
                }
            }
        }
        if changed {
            directory.write_invites(&invites.0)?;
        }
        Ok(invites)
    }

    /// Adds a ticket.
    pub(super) fn add(&mut self, directory: &Directory, record: InviteRecord, now_ms: u64) -> Result<(), InviteError> {
        self.0.retain(|invite| invite.expires_ms > now_ms);
        let uses = |invite: &InviteRecord| invite.uses as usize + invite.admitted.len();
        let all = self.0.iter().map(uses).fold(uses(&record), usize::saturating_add);
        if self.0.len() >= TICKETS_MAX || all > USES_MAX {
            return Err(InviteError::TooMany);
        }
        self.0.push(record);
        let written = directory.write_invites(&self.0);
        if written.is_err() {
            self.0.pop();
        }
        Ok(written?)
    }

    /// Returns whether strangers may come in with one of the tickets now.
    pub(super) fn is_any_good(&self, now_ms: u64) -> bool {
        self.0.iter().any(|invite| invite.expires_ms > now_ms && invite.uses > 0)
    }

    /// Takes up a ticket for the node with this key.
    pub(super) fn claim(
        &mut self,
        directory: &Directory,
        secret: &[u8],
        key: AuthorKey,
        now_ms: u64,
    ) -> Result<Claim, InviteError> {
        let wanted = secret_hash(secret);
        // Comparing hashes of secrets tells nothing about the secrets by its timing.
        let found = self.0.iter_mut().find(|invite| invite.secret_hash == wanted && invite.expires_ms > now_ms);
        let invite = found.ok_or(InviteError::NotGood)?;
        if invite.admitted.contains(&key) {
            return Ok(Claim::Again);
        }
        if invite.pending.contains(&key) {
            return Err(InviteError::UnderWay);
        }
        if invite.uses as usize <= invite.pending.len() {
            return Err(InviteError::NotGood);
        }
        invite.pending.push(key);
        let (role, device_of) = (invite.role.clone(), invite.device_of);
        if let Err(error) = directory.write_invites(&self.0) {
            self.forget(&wanted, key);
            return Err(error.into());
        }
        Ok(Claim::Admit { role, device_of })
    }

    fn forget(&mut self, secret_hash: &OpId, key: AuthorKey) {
        for invite in self.0.iter_mut().filter(|invite| invite.secret_hash == *secret_hash) {
            invite.pending.retain(|pending| *pending != key);
        }
    }

    /// Notes how the admission of a claim ended.
    pub(super) fn settle(
        &mut self,
        directory: &Directory,
        secret: &[u8],
        key: AuthorKey,
        ended: Ended,
    ) -> Result<(), InviteError> {
        let wanted = secret_hash(secret);
        match ended {
            // It stays pending: the next start asks the control log.
            Ended::Unknown => return Ok(()),
            Ended::Refused => self.forget(&wanted, key),
            Ended::Admitted => {
                self.forget(&wanted, key);
                if let Some(invite) = self.0.iter_mut().find(|invite| invite.secret_hash == wanted) {
                    invite.spend(key);
                }
            }
        }
        Ok(directory.write_invites(&self.0)?)
    }
}

impl InviteRecord {
    fn spend(&mut self, key: AuthorKey) {
        self.uses = self.uses.saturating_sub(1);
        self.admitted.push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    fn key(n: u8) -> AuthorKey {
        AuthorKey::new([n; 32])
    }

    fn record(secret: &[u8], uses: u32) -> InviteRecord {
        InviteRecord {
            secret_hash: secret_hash(secret),
            expires_ms: NOW + 1,
            uses,
            role: "editor".to_owned(),
            device_of: None,
            admitted: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn with(uses: u32) -> (tempfile::TempDir, Directory, Invites) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path());
        let mut invites = Invites::default();
        invites.add(&directory, record(b"s", uses), NOW).unwrap();
        (folder, directory, invites)
    }

    fn admit() -> Claim {
        Claim::Admit { role: "editor".to_owned(), device_of: None }
    }

    #[test]
    fn a_use_is_spent_with_the_admission_and_not_before() {
        let (_folder, directory, mut invites) = with(1);
        assert_eq!(invites.claim(&directory, b"s", key(1), NOW).unwrap(), admit());
        // The last use is taken while it is being decided.
        assert_eq!(invites.claim(&directory, b"s", key(2), NOW), Err(InviteError::NotGood));
        assert_eq!(invites.claim(&directory, b"s", key(1), NOW), Err(InviteError::UnderWay));
        invites.settle(&directory, b"s", key(1), Ended::Refused).unwrap();
        assert!(invites.is_any_good(NOW), "a refusal costs nothing");
        assert_eq!(invites.claim(&directory, b"s", key(2), NOW).unwrap(), admit());
        invites.settle(&directory, b"s", key(2), Ended::Admitted).unwrap();
        assert!(!invites.is_any_good(NOW));
        assert_eq!(invites.claim(&directory, b"s", key(2), NOW).unwrap(), Claim::Again, "its answer may be lost");
        assert_eq!(invites.claim(&directory, b"s", key(1), NOW), Err(InviteError::NotGood));
        assert_eq!(invites.claim(&directory, b"s", key(2), NOW + 1), Err(InviteError::NotGood), "expired");
        assert_eq!(invites.claim(&directory, b"x", key(2), NOW), Err(InviteError::NotGood));
    }

    #[test]
    fn a_crash_in_the_middle_neither_loses_nor_gives_away_a_use() {
        let (_folder, directory, mut invites) = with(2);
        for n in [1, 2] {
            invites.claim(&directory, b"s", key(n), NOW).unwrap();
        }
        invites.settle(&directory, b"s", key(1), Ended::Unknown).unwrap();
        drop(invites);
        // The control log has the first, not the second.
        let mut invites = Invites::open(&directory, |asked| asked == key(1)).unwrap();
        assert_eq!(invites.claim(&directory, b"s", key(1), NOW).unwrap(), Claim::Again);
        assert_eq!(invites.claim(&directory, b"s", key(3), NOW).unwrap(), admit());
        assert_eq!(invites.claim(&directory, b"s", key(2), NOW), Err(InviteError::NotGood));
    }

    #[test]
    fn tickets_are_bounded() {
        let (_folder, directory, mut invites) = with(1);
        let most = u32::try_from(USES_MAX).unwrap();
        assert_eq!(invites.add(&directory, record(b"t", most), NOW), Err(InviteError::TooMany));
        assert_eq!(invites.add(&directory, record(b"t", u32::MAX), NOW), Err(InviteError::TooMany));
        invites.add(&directory, record(b"t", most - 1), NOW).unwrap();
        assert_eq!(invites.add(&directory, record(b"u", 1), NOW), Err(InviteError::TooMany));
        invites.add(&directory, record(b"u", 1), NOW + 1).unwrap();
    }
}
