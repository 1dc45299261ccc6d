//! Recovery keys, and how they make others the owners of a cluster. All of it happens where the keys are: a node gets only what
//! they have signed.

use bytes::Bytes;
use folkmoot_core::id::{AuthorKey, OpId, SessionId};
use folkmoot_core::keys::SecretKey;
use folkmoot_core::op::{Succeed, recovery_hash, succession::Place};

use crate::api::{Error, ErrorCode, Result, SuccessionBasis};

/// What the text of a recovery key begins with, so that a scanner of leaked secrets knows it.
const PREFIX: &str = "fmr_";

/// A key that can replace the owners of a cluster, with as many others as that asks for. Each is used once.
#[derive(Clone)]
pub struct RecoveryKey(SecretKey);

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey(…)")
    }
}

impl RecoveryKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] if the system gives no randomness.
    pub fn generate() -> Result<Self> {
        Ok(Self::from_seed(&random()?))
    }

    /// Makes it of 32 random bytes.
    #[must_use]
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SecretKey::from_seed(seed))
    }

    /// Reads one from its text.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`] if it is none. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = text.trim().strip_prefix(PREFIX);
        let seed = digits.and_then(|digits| digits.parse::<OpId>().ok()).ok_or_else(|| {
            Error::new(ErrorCode::InvalidRequest, "this is no recovery key")
                .hint(format!("one is the text {PREFIX} and 64 hexadecimal digits"))
        })?;
        Ok(Self(SecretKey::from_seed(seed.as_bytes())))
    }

    /// Returns the key as text: who has it, with as many others as the cluster asks for, can take the cluster over.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", OpId::new(self.0.to_seed()))
    }

    /// Returns by what the cluster knows the key until it is used.
    #[must_use]
    pub fn hash(&self) -> OpId {
        OpId::new(recovery_hash(&self.0.author()))
    }
}

/// Who is to own the cluster from now on.
#[derive(Debug, Clone)]
pub struct NewOwners {
    /// The owners' keys.
    pub owners: Vec<AuthorKey>,
    /// How many of them must agree on what they do; 1 to their number.
    pub threshold: u8,
    /// Hashes of the next recovery keys; with none the owners can never be changed again.
    pub recovery: Vec<OpId>,
    /// How many of those the next change needs.
    pub recovery_threshold: u8,
}

/// Signs a change of owners. What comes out goes to [`crate::Authors::succeed`] of any node.
///
/// # Errors
/// [`ErrorCode::InvalidRequest`] if the keys are not those that the cluster asks for, or the new owners are out of bounds.
pub fn sign_succession(basis: &SuccessionBasis, new: NewOwners, keys: &[RecoveryKey]) -> Result<Bytes> {
    let invalid = |what: String| Error::new(ErrorCode::InvalidRequest, what);
    if basis.recovery_threshold == 0 {
        return Err(invalid(
            "this cluster was founded without recovery keys: its owners can never be changed".to_owned(),
        ));
    }
    let mut known: Vec<&RecoveryKey> = Vec::new();
    for key in keys {
        if !basis.recovery.contains(&key.hash()) {
            let used = "it is of another cluster, or was used, or replaced, before";
            return Err(invalid(format!("a key is no recovery key of this cluster: {used}")));
        }
        if known.iter().all(|other| other.hash() != key.hash()) {
            known.push(key);
        }
    }
    if known.len() < usize::from(basis.recovery_threshold) {
        let (have, need) = (known.len(), basis.recovery_threshold);
        return Err(invalid(format!("this cluster asks for {need} of its recovery keys, and {have} are given")));
    }
    let sorted = |mut list: Vec<OpId>| {
        list.sort();
        list.dedup();
        list
    };
    let mut owners = new.owners;
    owners.sort();
    owners.dedup();
    let succeed = Succeed {
        after: basis.after,
        principal: basis.principal,
        owners,
        threshold: new.threshold,
        recovery: sorted(new.recovery).iter().map(|hash| *hash.as_bytes()).collect(),
        recovery_threshold: new.recovery_threshold,
        pins: basis.pins.clone(),
        signatures: Vec::new(),
    };
    let place = Place {
        cluster: basis.cluster,
        session: SessionId::new(random()?),
        hlc: basis.hlc,
        control_heads: basis.control_heads.clone(),
    };
    let keys: Vec<SecretKey> = known.into_iter().map(|key| key.0.clone()).collect();
    let op = succeed.sign(place, &keys).map_err(|error| invalid(format!("the change breaks a rule: {error}")))?;
    Ok(op.encode().into())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("the system gives no randomness: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use folkmoot_core::hlc::Hlc;
    use folkmoot_core::id::{ClusterId, PrincipalId};
    use folkmoot_core::op::{Act, Op};

    use super::*;

    fn basis(keys: &[RecoveryKey], threshold: u8) -> SuccessionBasis {
        let cluster = ClusterId::new([1; 32]);
        SuccessionBasis {
            cluster,
            after: cluster.genesis(),
            principal: PrincipalId::from(cluster.genesis()),
            owners: Vec::new(),
            threshold: 1,
            recovery: keys.iter().map(RecoveryKey::hash).collect(),
            recovery_threshold: threshold,
            pins: Vec::new(),
            control_heads: vec![cluster.genesis()],
            hlc: Hlc::new(5, 0),
        }
    }

    fn new_owners(next: &RecoveryKey) -> NewOwners {
        let owners = vec![SecretKey::from_seed(&[9; 32]).author()];
        NewOwners { owners, threshold: 1, recovery: vec![next.hash()], recovery_threshold: 1 }
    }

    #[test]
    fn as_many_of_the_right_keys_sign_as_are_asked_for() {
        let keys: Vec<_> = (0..3).map(|_| RecoveryKey::generate().unwrap()).collect();
        let (basis, next) = (basis(&keys, 2), RecoveryKey::generate().unwrap());
        let signed = sign_succession(&basis, new_owners(&next), &keys[1..]).unwrap();
        let op = Op::decode(&signed, basis.cluster).unwrap();
        let Act::Succeed(act) = &op.header().control().unwrap().act else { panic!() };
        assert_eq!((act.signatures.len(), act.recovery_threshold), (1, 1));
        let twice = [keys[0].clone(), keys[0].clone()];
        for wrong in [&keys[..1], &twice, &[keys[0].clone(), next.clone()], &[]] {
            assert_eq!(
                sign_succession(&basis, new_owners(&next), wrong).unwrap_err().code(),
                ErrorCode::InvalidRequest
            );
        }
        // A key is used once.
        let again = NewOwners { recovery: vec![keys[1].hash()], ..new_owners(&next) };
        assert!(sign_succession(&basis, again, &keys[1..]).is_err());
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_shown_nowhere_else() {
        let key = RecoveryKey::generate().unwrap();
        assert_eq!(RecoveryKey::parse(&format!("{}\n", key.reveal())).unwrap().hash(), key.hash());
        assert!(!format!("{key:?}").contains(&key.reveal()[4..12]));
        for wrong in ["", "fmr_", "fmr_12", &key.reveal()[4..]] {
            assert!(RecoveryKey::parse(wrong).is_err());
        }
    }
}
