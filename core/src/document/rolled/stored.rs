//! A rolled document as it is stored.
//!
//! Its changes, one by one: a document that Automerge saves and loads takes the ids between two changes of an actor for ids
//! of operations, so that one could not tell any more what there is.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ActorId, Automerge, Change, ChangeHash};
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use super::{ENDS_MAX, Place, Rolled, Since};
use crate::document::gate::guarded;
use crate::document::view;
use crate::op::codec;

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    /// The settled part; its last change stands for all of it.
    #[serde(borrow)]
    settled: Vec<&'a Bytes>,
    ends: Vec<(Hash, u64, u64)>,
    #[serde(borrow)]
    last: Vec<(&'a Bytes, Hash, u64, u64)>,
    #[serde(borrow)]
    since: Vec<WireSince<'a>>,
    count: u64,
}

/// Signed hash, the change that stands for it, number, highest operation id, known ends, dependencies by their places.
#[derive(Serialize, Deserialize)]
struct WireSince<'a>(Hash, #[serde(borrow)] &'a Bytes, u64, u64, u64, Vec<u32>);

#[derive(Serialize, Deserialize, Clone, Copy)]
struct Hash(#[serde(with = "serde_bytes")] [u8; 32]);

impl From<ChangeHash> for Hash {
    fn from(hash: ChangeHash) -> Self {
        Self(hash.0)
    }
}

impl From<Hash> for ChangeHash {
    fn from(hash: Hash) -> Self {
        Self(hash.0)
    }
}

impl Rolled {
    /// Encodes it. None if Automerge does not give its changes.
    pub(in crate::document) fn encode(&mut self) -> Option<Vec<u8>> {
        let changes = guarded(|| self.doc.get_changes(&[])).ok()?;
        self.bytes = changes.iter().map(|change| change.raw_bytes().len()).sum();
        let by_hash: BTreeMap<ChangeHash, &Change> = changes.iter().map(|change| (change.hash(), change)).collect();
        let locals: BTreeSet<ChangeHash> = self.since.iter().map(|(_, since)| since.local).collect();
        let settled: Vec<&Bytes> = changes
            .iter()
            .filter(|change| !locals.contains(&change.hash()))
            .map(|change| Bytes::new(change.raw_bytes()))
            .collect();
        let since = self.since.iter().map(|(hash, since)| {
            let deps = since.deps.iter().map(|at| u32::try_from(*at).ok()).collect::<Option<_>>()?;
            let local = Bytes::new(by_hash.get(&since.local)?.raw_bytes());
            let Place { seq, max_op } = since.place;
            Some(WireSince((*hash).into(), local, seq, max_op, since.knows, deps))
        });
        let since = since.collect::<Option<_>>()?;
        let last = self
            .last
            .iter()
            .map(|(actor, (hash, place))| (Bytes::new(actor.to_bytes()), (*hash).into(), place.seq, place.max_op));
        let ends = self.ends.iter().map(|(hash, place)| ((*hash).into(), place.seq, place.max_op));
        Some(codec::encode(&Wire {
            settled,
            ends: ends.collect(),
            last: last.collect(),
            since,
            count: self.count as u64,
        }))
    }

    /// Decodes what [`encode`](Self::encode) returned. None if it is damaged.
    pub(in crate::document) fn decode(bytes: &[u8]) -> Option<Self> {
        let wire: Wire<'_> = rmp_serde::from_slice(bytes).ok()?;
        guarded(|| Self::of_wire(wire)).ok()?
    }

    fn of_wire(wire: Wire<'_>) -> Option<Self> {
        if wire.ends.is_empty() || wire.ends.len() > ENDS_MAX {
            return None;
        }
        let (mut changes, mut own_last, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
        let mut take = |raw: &[u8]| {
            let change = Change::try_from(raw).ok()?;
            own_last.insert(change.actor_id().clone(), (change.seq(), change.hash()));
            bytes += raw.len();
            let of = (change.actor_id().clone(), change.hash());
            changes.push(change);
            Some(of)
        };
        let mut tip = None;
        for raw in wire.settled {
            tip = Some(take(raw)?.1);
        }
        let mut since: Vec<(ChangeHash, Since)> = Vec::new();
        for WireSince(hash, raw, seq, max_op, knows, deps) in wire.since {
            let (actor, local) = take(raw)?;
            let deps: Vec<usize> = deps.into_iter().map(|at| at as usize).collect();
            if deps.iter().any(|at| *at >= since.len()) {
                return None;
            }
            since.push((hash.into(), Since { actor, place: Place { seq, max_op }, local, knows, deps }));
        }
        let mut doc = Automerge::new();
        view::apply_all(&mut doc, changes).ok()?;
        let place = |(hash, seq, max_op): (Hash, u64, u64)| (ChangeHash::from(hash), Place { seq, max_op });
        let last = wire.last.into_iter();
        Some(Self {
            tip: tip?,
            ends: wire.ends.into_iter().map(place).collect(),
            last: last
                .map(|(actor, hash, seq, max_op)| (ActorId::from(&**actor), place((hash, seq, max_op))))
                .collect(),
            index: since.iter().enumerate().map(|(at, (hash, _))| (*hash, at)).collect(),
            since,
            own_last,
            count: usize::try_from(wire.count).ok()?,
            bytes,
            doc,
        })
    }
}
