//! What an op knew of the control log, in a form that costs a few words per chain of acts.
//!
//! The control log is cut into *chains*: runs of acts of one stream, each the direct successor of the one before. An
//! act that forks off begins a new chain. Whoever knows an act knows all before it in its chain, so a set of known acts
//! that is closed under "what they knew" is one number per chain: how many of its acts are known.

use std::sync::Arc;

/// Where an act lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) chain: usize,
    pub(super) index: u32,
}

/// A closed set of known acts. Never ends with zeros, so equal sets are equal values.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Past(Arc<[u32]>);

impl Past {
    pub(super) fn empty() -> Self {
        Self(Arc::from([]))
    }

    pub(super) fn contains(&self, place: Place) -> bool {
        self.0.get(place.chain).is_some_and(|known| *known > place.index)
    }

    /// Returns this set together with some acts and what they knew.
    pub(super) fn with<'a>(&self, acts: impl Iterator<Item = (&'a Self, Place)>) -> Self {
        let mut known = self.0.to_vec();
        let mut grown = false;
        for (past, place) in acts {
            if known.len() < past.0.len().max(place.chain + 1) {
                known.resize(past.0.len().max(place.chain + 1), 0);
            }
            for (mine, theirs) in known.iter_mut().zip(past.0.iter()) {
                grown |= *theirs > *mine;
                *mine = (*mine).max(*theirs);
            }
            if let Some(mine) = known.get_mut(place.chain) {
                grown |= *mine <= place.index;
                *mine = (*mine).max(place.index + 1);
            }
        }
        if !grown {
            return self.clone();
        }
        Self(known.into())
    }
}
