//! The change of owners: an act of the recovery keys, which alone can say whose the cluster is from now on.
//!
//! Only the hashes of recovery keys are known until they are used (pre-rotation, as in KERI): nobody can steal by a signature
//! scheme, or ask for, what nobody knows. A key is used once: its successors' hashes are in the act that it signs.

use serde::{Deserialize, Serialize};

use super::act::{Act, Control, Genesis, Pin, hash_list};
use super::check::ascending;
use super::{Header, Op, OpError, Payload, codec};
use crate::hash::{Domain, hash};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, ClusterId, OpId, PrincipalId, SessionId, ShardId};
use crate::keys::{PublicKey, SecretKey, Signature};
use crate::limits;

/// What precedes the hash of a change of owners in the message that further recovery keys sign.
const SIGN_CONTEXT: &[u8] = b"folkmoot/1/sign-succession";

/// Returns by what a recovery key is known until it is used.
#[must_use]
pub fn recovery_hash(key: &AuthorKey) -> [u8; 32] {
    hash(Domain::RecoveryKey, &[key.as_bytes()])
}

/// Other keys become the owners.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Succeed {
    /// The act that made the owners before: the genesis, or another change. Its recovery keys sign this one.
    pub after: OpId,
    /// The owners' principal, which stays: the one that the genesis introduced.
    pub principal: PrincipalId,
    /// Owner keys from now on, ascending.
    pub owners: Vec<AuthorKey>,
    /// How many owners an act of strength 0 needs.
    pub threshold: u8,
    /// Hashes of the recovery keys from now on, ascending; none of a key that has been shown.
    #[serde(with = "hash_list")]
    pub recovery: Vec<[u8; 32]>,
    /// How many recovery keys the next change needs.
    pub recovery_threshold: u8,
    /// What stands of the streams of the owners before, ascending by stream.
    pub pins: Vec<Pin>,
    /// Recovery keys that sign besides the op's author, ascending by key.
    pub signatures: Vec<RecoverySignature>,
}

/// The signature of a recovery key, by which it shows itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoverySignature {
    /// The key.
    pub key: AuthorKey,
    /// Over the act without signatures, see [`Succeed::message`].
    #[serde(with = "signature_bytes")]
    pub signature: Signature,
}

/// Who the owners are, and who can replace them: what a genesis and a change of owners say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnerSet<'a> {
    /// Owner keys, ascending.
    pub owners: &'a [AuthorKey],
    /// How many of them an act of strength 0 needs.
    pub threshold: u8,
    /// Hashes of the recovery keys, ascending.
    pub recovery: &'a [[u8; 32]],
    /// How many recovery keys a change of owners needs; 0 if there are none, and never can be.
    pub recovery_threshold: u8,
}

impl OwnerSet<'_> {
    /// Returns whether this is one of the recovery keys.
    #[must_use]
    pub fn may_recover(&self, key: &AuthorKey) -> bool {
        self.recovery.binary_search(&recovery_hash(key)).is_ok()
    }

    /// Checks what can be checked from the set alone; says what is wrong.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.owners.is_empty() || self.owners.len() > limits::OWNERS_MAX || self.recovery.len() > limits::OWNERS_MAX
        {
            return Err("number of owner or recovery keys out of bounds");
        }
        ascending(self.owners.iter()).ok_or("owner keys out of order")?;
        if self.owners.iter().any(|owner| PublicKey::new(owner).is_none()) {
            return Err("owner key is weak");
        }
        ascending(self.recovery.iter()).ok_or("recovery hashes out of order")?;
        let fits = |n: u8, of: usize| n >= 1 && usize::from(n) <= of;
        let none = self.recovery.is_empty() && self.recovery_threshold == 0;
        if !fits(self.threshold, self.owners.len()) || !(none || fits(self.recovery_threshold, self.recovery.len())) {
            return Err("threshold out of bounds");
        }
        // Whoever steals an owner's key must not have a recovery key by that.
        if self.owners.iter().any(|owner| self.may_recover(owner)) {
            return Err("owner key is a recovery key too");
        }
        Ok(())
    }
}

impl Act {
    /// Returns the owners that the act makes, if it makes any.
    #[must_use]
    pub fn owner_set(&self) -> Option<OwnerSet<'_>> {
        if let Self::Genesis(genesis) = self {
            return Some(genesis.owner_set());
        }
        if let Self::Succeed(succeed) = self {
            return Some(succeed.owner_set());
        }
        None
    }
}

impl Genesis {
    /// Returns the owners that it makes.
    #[must_use]
    pub fn owner_set(&self) -> OwnerSet<'_> {
        OwnerSet {
            owners: &self.owners,
            threshold: self.threshold,
            recovery: &self.recovery,
            recovery_threshold: self.recovery_threshold,
        }
    }
}

impl Succeed {
    /// Returns the owners that it makes.
    #[must_use]
    pub fn owner_set(&self) -> OwnerSet<'_> {
        OwnerSet {
            owners: &self.owners,
            threshold: self.threshold,
            recovery: &self.recovery,
            recovery_threshold: self.recovery_threshold,
        }
    }

    /// Returns what the further recovery keys sign: a hash of the cluster and of the act without signatures.
    #[must_use]
    pub fn message(&self, cluster: ClusterId) -> [u8; 32] {
        let bare = Self { signatures: Vec::new(), ..self.clone() };
        hash(Domain::Succession, &[cluster.as_bytes(), &codec::encode(&bare)])
    }

    /// Signs the act with a recovery key besides the one that will sign the op, in the place of an older signature of it.
    pub fn countersign(&mut self, cluster: ClusterId, key: &SecretKey) {
        let signature = key.sign(SIGN_CONTEXT, &self.message(cluster));
        let key = key.author();
        self.signatures.retain(|other| other.key != key);
        let at = self.signatures.partition_point(|other| other.key < key);
        self.signatures.insert(at, RecoverySignature { key, signature });
    }

    /// Makes the op of the act, signed by recovery keys: the first signs the op, the others the act.
    ///
    /// # Errors
    /// [`OpError`] if the act breaks a rule, or there is no key.
    pub fn sign(mut self, place: Place, keys: &[SecretKey]) -> Result<Op, OpError> {
        let Some((author, others)) = keys.split_first() else { return Err(OpError::Invalid("no recovery key")) };
        for key in others {
            self.countersign(place.cluster, key);
        }
        let certificate = self.after;
        let header = Header {
            version: limits::OP_VERSION,
            cluster: place.cluster,
            shard: ShardId::control(),
            author: author.author(),
            certificate,
            session: place.session,
            seq: 1,
            prev: OpId::ZERO,
            earlier: Vec::new(),
            hlc: place.hlc,
            control_heads: place.control_heads,
            payload: Payload::from(Control { proof: vec![certificate], act: Act::Succeed(self), for_whom: None }),
        };
        Op::sign(header, Vec::new(), author)
    }

    /// Checks what can be checked from the act alone; says what is wrong.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        self.owner_set().check()?;
        if self.signatures.len() >= limits::OWNERS_MAX {
            return Err("too many recovery signatures");
        }
        ascending(self.signatures.iter().map(|signature| signature.key)).ok_or("recovery signatures out of order")
    }

    /// Checks the act in the op that carries it: its place, and the signatures of the recovery keys, of which the op's own is
    /// one. Which keys have a say is not known here; that each has signed what it says is, so a rule that asks only which keys
    /// signed is asked of nothing forged.
    pub(super) fn check_signed(&self, header: &Header, control: &Control) -> Result<(), &'static str> {
        if header.certificate != self.after || control.proof != [self.after] || control.for_whom.is_some() {
            return Err("change of owners not under what it comes after");
        }
        if self.principal != PrincipalId::from(header.cluster.genesis()) {
            return Err("change of owners for another principal");
        }
        let set = self.owner_set();
        let shown = || std::iter::once(&header.author).chain(self.signatures.iter().map(|signature| &signature.key));
        if shown().any(|key| set.may_recover(key) || self.owners.contains(key)) {
            return Err("recovery key that has been shown is used again");
        }
        let message = self.message(header.cluster);
        for RecoverySignature { key, signature } in &self.signatures {
            if *key == header.author {
                return Err("recovery key signs twice");
            }
            let public = PublicKey::new(key).ok_or("recovery key is weak")?;
            if !public.verify(SIGN_CONTEXT, &message, signature) {
                return Err("bad recovery signature");
            }
        }
        Ok(())
    }
}

/// Where the op of a change of owners is put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The cluster.
    pub cluster: ClusterId,
    /// Random, another one for each op.
    pub session: SessionId,
    /// Its time, not before that of the acts it names.
    pub hlc: Hlc,
    /// The acts known where it is made; those that made the owners before must be reachable.
    pub control_heads: Vec<OpId>,
}

/// As 64 bytes, or as hexadecimal digits where people read.
mod signature_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::id::OpId;
    use crate::keys::Signature;

    pub(super) fn serialize<S: Serializer>(signature: &Signature, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(signature.as_bytes());
        }
        let mut halves = [[0; 32]; 2];
        let [first, second] = &mut halves;
        first.copy_from_slice(&signature.as_bytes()[..32]);
        second.copy_from_slice(&signature.as_bytes()[32..]);
        // The id types already know how to be hexadecimal.
        serializer.collect_str(&format_args!("{}{}", OpId::new(halves[0]), OpId::new(halves[1])))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Signature, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            let halves = text.split_at_checked(64).ok_or_else(|| D::Error::custom("a signature has 128 digits"))?;
            let half = |text: &str| text.parse::<OpId>().map_err(D::Error::custom);
            let (first, second) = (half(halves.0)?, half(halves.1)?);
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(first.as_bytes());
            bytes[32..].copy_from_slice(second.as_bytes());
            return Ok(Signature::new(bytes));
        }
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        let bytes: [u8; 64] = bytes.as_slice().try_into().map_err(|_| D::Error::custom("a signature has 64 bytes"))?;
        Ok(Signature::new(bytes))
    }
}
