//! What a document claims: by its text, and as it is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::document::json::{self, Value, Wanted};
use crate::hash::{Domain, hash, keyed_hash_short};
use crate::limits::UNIQUE_MAX;
use crate::op::Unique;
use crate::op::codec::{self, CodecError};
use crate::query::equality_key;
use crate::store::keys::Claim;

/// Bytes of a record of claims: up to [`UNIQUE_MAX`] of them before and after the constraints were changed.
const RECORD_BYTES_MAX: usize = 64 * UNIQUE_MAX;

/// What claims are hashed with. Keys in the store are not sealed, so a hash without it could be tried out by who has the disk.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::replica) struct Secret(pub(super) [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The unique constraints of a collection, ready for use.
#[derive(Debug)]
pub(in crate::replica) struct Rule {
    constraints: Vec<Unique>,
    wanted: Wanted,
    secret: Secret,
}

impl Rule {
    pub(super) fn new(constraints: Vec<Unique>, secret: Secret) -> Self {
        let mut wanted = Wanted::default();
        constraints.iter().flat_map(|unique| &unique.0).for_each(|field| wanted.add(field.steps()));
        Self { constraints, wanted, secret }
    }

    /// Returns what a document claims, with the constraint of each.
    pub(in crate::replica) fn claims(&self, json: &[u8]) -> Vec<(&Unique, Claim)> {
        let Ok(value) = json::extract(json, &self.wanted) else { return Vec::new() };
        self.constraints.iter().filter_map(|unique| Some((unique, self.claim(unique, &value)?))).collect()
    }

    /// Returns the claims alone.
    pub(super) fn claimed(&self, json: &[u8]) -> BTreeSet<Claim> {
        self.claims(json).into_iter().map(|(_, claim)| claim).collect()
    }

    /// Returns what a document claims by one constraint; none if a field is missing, null, or no single value.
    fn claim(&self, unique: &Unique, value: &Value) -> Option<Claim> {
        let mut parts = Vec::with_capacity(2 * unique.0.len());
        for field in &unique.0 {
            let mut at = value;
            for step in field.steps() {
                at = at.get(step)?;
            }
            parts.push(field.to_string().into_bytes());
            parts.push(equality_key(at)?);
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Some(Claim(keyed_hash_short(&self.secret.0, Domain::Unique, &parts)))
    }
}

/// Names constraints, to see that they have changed.
pub(super) fn id_of(constraints: &[Unique]) -> [u8; 32] {
    hash(Domain::Unique, &[&codec::encode(&constraints)])
}

/// The claims of a document as they are stored, each with whether a document before it makes it too.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Claims(pub(super) BTreeMap<Claim, bool>);

#[derive(Serialize, Deserialize)]
struct StoredClaim(serde_bytes::ByteArray<16>, bool);

impl Claims {
    pub(super) fn encode(&self) -> Vec<u8> {
        let stored = self.0.iter().map(|(claim, is_lost)| StoredClaim(serde_bytes::ByteArray::new(claim.0), *is_lost));
        codec::encode(&stored.collect::<Vec<_>>())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let stored: Vec<StoredClaim> = codec::decode(bytes, RECORD_BYTES_MAX)?;
        Ok(Self(stored.into_iter().map(|StoredClaim(claim, is_lost)| (Claim(claim.into_array()), is_lost)).collect()))
    }

    /// Whether the document shows something that one before it shows.
    pub(super) fn are_lost(&self) -> bool {
        self.0.values().any(|is_lost| *is_lost)
    }

    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }
}
