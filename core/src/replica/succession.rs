//! Changes of owners: what is needed to make one, and taking one in that was signed elsewhere. The recovery keys never come
//! to a node.

use std::sync::Arc;

use super::types::ActError;
use super::{Now, Replica};
use crate::authority::{CurrentOwners, Reach};
use crate::hlc::Hlc;
use crate::id::{AuthorKey, OpId};
use crate::keys::SecretKey;
use crate::limits::CLOCK_AHEAD_MAX;
use crate::op::{Op, Pin, RevokeTarget};

/// What a change of owners is made of, as a replica knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuccessionBasis {
    /// The owners now, and whose signatures a change needs.
    pub owners: CurrentOwners,
    /// What stands of their streams: all that is here, or what is not later than was asked for.
    pub pins: Vec<Pin>,
    /// The acts to name.
    pub control_heads: Vec<OpId>,
    /// A time that is not before theirs.
    pub hlc: Hlc,
}

impl Replica {
    /// Returns the keys that this replica signs with, whether or not they count.
    pub fn own_keys(&self) -> impl Iterator<Item = AuthorKey> + '_ {
        [Some(&self.identity.node), self.identity.owner.as_ref()].into_iter().flatten().map(SecretKey::author)
    }

    /// Returns the owner's key and certificate, if the key is here and an owner's now.
    pub(super) fn owner(&self) -> Option<(SecretKey, OpId)> {
        let owner = self.identity.owner.clone()?;
        let certificate = self.authority.owner_certificate(&owner.author())?;
        Some((owner, certificate))
    }

    /// Returns what a change of owners is made of; none while the genesis is not here. What the owners signed later than `until`
    /// does not stand: a stolen key has signed since.
    #[must_use]
    pub fn succession_basis(&self, now: Now, until: Option<Hlc>) -> Option<SuccessionBasis> {
        let owners = self.authority.owners()?;
        let mut pins = self.pins_for(&RevokeTarget::Statement(owners.certificate), Reach::Target);
        if let Some(until) = until {
            for pin in &mut pins {
                *pin = self.pin_until(*pin, until);
            }
        }
        let control_heads = self.authority.control_heads();
        // An op is not older than those it names, whatever this node's clock says.
        let named = control_heads.iter().filter_map(|head| self.authority.time_of(*head)).max();
        let hlc = named.map_or(Hlc::new(now.wall_ms, 0), |named| named.max(Hlc::new(now.wall_ms, 0)));
        Some(SuccessionBasis { owners, pins, control_heads, hlc })
    }

    /// Moves a pin back to the last op of its stream that is not later. Times do not fall along a stream.
    fn pin_until(&self, pin: Pin, until: Hlc) -> Pin {
        let chains = self.chains();
        let at = |seq| chains.main_op(&pin.stream, seq);
        let (mut stands, mut cut) = (0, pin.seq.saturating_add(1));
        while cut - stands > 1 {
            let middle = stands + (cut - stands) / 2;
            if at(middle).is_some_and(|op| op.header().hlc <= until) {
                stands = middle;
            } else {
                cut = middle;
            }
        }
        match at(stands) {
            Some(op) if stands > 0 => Pin { seq: stands, head: op.id(), ..pin },
            Some(_) | None => Pin { seq: 0, head: OpId::ZERO, ..pin },
        }
    }

    /// Takes in a change of owners that was signed elsewhere, if it will count.
    pub(super) fn take_succession(&mut self, now: Now, op: Arc<Op>) -> Result<OpId, ActError> {
        if op.header().cluster != self.identity.cluster {
            return Err(ActError::NotAllowed("it is for another cluster".to_owned()));
        }
        if op.header().hlc.millis() > now.wall_ms.saturating_add(ahead_ms()) {
            return Err(ActError::NotAllowed("its time is too far ahead of this node's clock".to_owned()));
        }
        if let Some(lack) = self.authority.succession_lacks(op.header()) {
            return Err(ActError::NotAllowed(lack.to_owned()));
        }
        if !self.import_whole(now, &op) {
            return Err(ActError::NotAllowed(
                "it is not the first op of a stream, or not signed by its author".to_owned(),
            ));
        }
        Ok(op.id())
    }
}

fn ahead_ms() -> u64 {
    u64::try_from(CLOCK_AHEAD_MAX.as_millis()).unwrap_or(u64::MAX)
}
