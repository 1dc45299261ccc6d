//! Who may come in: the desired state that handles write and the gate reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use folkmoot_core::id::AuthorKey;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::watch;

use crate::event::{DownReason, RefusedReason};
use crate::identity;
use crate::limits::BANS_MAX;

/// Whether strangers may knock to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JoinDoor {
    /// Strangers are refused after their handshake.
    #[default]
    Closed,
    /// A stranger may send one request to join, and nothing else.
    Open,
}

/// As what somebody may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Everything is open to it.
    Member,
    /// Only the join protocol is.
    Guest,
    /// Nothing is.
    Refused(RefusedReason),
}

#[derive(Debug, Default)]
struct State {
    members: BTreeSet<AuthorKey>,
    blocked: BTreeSet<AuthorKey>,
    bans: BTreeMap<AuthorKey, Instant>,
    join: JoinDoor,
}

/// The desired state. It outlives restarts of the swarm.
#[derive(Debug)]
pub(crate) struct Door {
    own: AuthorKey,
    state: RwLock<State>,
    changes: watch::Sender<()>,
}

impl Door {
    pub(crate) fn new(own: AuthorKey) -> Self {
        Self { own, state: RwLock::default(), changes: watch::Sender::new(()) }
    }

    /// Returns the node's own key.
    pub(crate) const fn own(&self) -> AuthorKey {
        self.own
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        // No code panics while it holds this lock; and a poisoned state would still be a whole one.
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, write: impl FnOnce(&mut State)) {
        write(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_replace(());
    }

    /// Returns what tells of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(crate) fn set_members(&self, mut members: BTreeSet<AuthorKey>) {
        members.remove(&self.own);
        self.write(|state| state.members = members);
    }

    pub(crate) fn set_blocked(&self, blocked: BTreeSet<AuthorKey>) {
        self.write(|state| state.blocked = blocked);
    }

    pub(crate) fn set_join(&self, join: JoinDoor) {
        self.write(|state| state.join = join);
    }

    /// Bans `peer` until `now + time`. When too many are banned the ban that ends first makes room.
    pub(crate) fn ban(&self, peer: AuthorKey, time: Duration, now: Instant) {
        let Some(until) = now.checked_add(time) else { return };
        self.write(|state| {
            state.bans.retain(|_, until| *until > now);
            if state.bans.len() >= BANS_MAX
                && let Some(first) = state.bans.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
            {
                state.bans.remove(&first);
            }
            state.bans.insert(peer, until);
        });
    }

    /// Ends the ban of a peer.
    pub(crate) fn pardon(&self, peer: &AuthorKey) {
        self.write(|state| {
            state.bans.remove(peer);
        });
    }

    pub(crate) fn members(&self) -> BTreeSet<AuthorKey> {
        self.read(|state| state.members.clone())
    }

    pub(crate) fn is_member(&self, peer: &AuthorKey) -> bool {
        self.read(|state| state.members.contains(peer))
    }

    pub(crate) fn join(&self) -> JoinDoor {
        self.read(|state| state.join)
    }

    /// Returns why no connection to `peer` may exist as that of a member, or `None` if it may.
    pub(crate) fn exclusion(&self, peer: &AuthorKey, now: Instant) -> Option<DownReason> {
        self.read(|state| {
            if !state.members.contains(peer) {
                Some(DownReason::Removed)
            } else if state.blocked.contains(peer) {
                Some(DownReason::Blocked)
            } else if state.bans.get(peer).is_some_and(|until| *until > now) {
                Some(DownReason::Banned)
            } else {
                None
            }
        })
    }

    /// Returns as what a peer that has proved its identity may come in.
    pub(crate) fn admission(&self, peer: &PeerId, now: Instant) -> Admission {
        let Some(peer) = identity::author_key(peer) else { return Admission::Refused(RefusedReason::Stranger) };
        self.read(|state| {
            if state.blocked.contains(&peer) {
                Admission::Refused(RefusedReason::Blocked)
            } else if state.bans.get(&peer).is_some_and(|until| *until > now) {
                Admission::Refused(RefusedReason::Banned)
            } else if state.members.contains(&peer) {
                Admission::Member
            } else {
                match state.join {
                    JoinDoor::Open => Admission::Guest,
                    JoinDoor::Closed => Admission::Refused(RefusedReason::Stranger),
                }
            }
        })
    }
}

/// Returns what a rate is counted by: the IPv4 address, or the /64 of an IPv6 address (one site usually has all of
/// it), or `None` for an address that has neither.
pub(crate) fn rated_address(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => {
            let network = u128::from(ip) & !u128::from(u64::MAX);
            Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(Ipv6Addr::from(network)), IpAddr::V4))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use folkmoot_core::keys::SecretKey;

    use super::*;

    fn key(seed: u8) -> AuthorKey {
        SecretKey::from_seed(&[seed; 32]).author()
    }

    #[test]
    fn admission_follows_members_blocks_bans_and_the_join_door() {
        let door = Door::new(key(1));
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let admission = |peer: u8, now| door.admission(&identity::peer_id(&key(peer)).unwrap(), now);
        assert_eq!(admission(2, now), Admission::Refused(RefusedReason::Stranger));
        door.set_members([key(1), key(2), key(3)].into());
        assert_eq!(door.members(), [key(2), key(3)].into(), "a node is no peer of itself");
        assert_eq!(admission(2, now), Admission::Member);
        door.set_blocked([key(2)].into());
        assert_eq!(admission(2, now), Admission::Refused(RefusedReason::Blocked));
        assert_eq!(door.exclusion(&key(2), now), Some(DownReason::Blocked));
        door.ban(key(3), Duration::from_secs(5), now);
        assert_eq!(admission(3, at(4)), Admission::Refused(RefusedReason::Banned));
        assert_eq!(door.exclusion(&key(3), at(4)), Some(DownReason::Banned));
        assert_eq!(admission(3, at(5)), Admission::Member);
        assert_eq!(door.exclusion(&key(3), at(5)), None);
        door.pardon(&key(3));
        assert_eq!(door.exclusion(&key(3), at(4)), None);
        door.set_join(JoinDoor::Open);
        assert_eq!(admission(4, now), Admission::Guest);
        assert_eq!(door.exclusion(&key(4), now), Some(DownReason::Removed));
        assert_eq!(door.admission(&PeerId::random(), now), Admission::Refused(RefusedReason::Stranger));
    }

    #[test]
    fn bans_are_bounded() {
        let door = Door::new(key(1));
        let now = Instant::now();
        for i in 0..BANS_MAX + 1 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(i as u64).to_be_bytes());
            door.ban(AuthorKey::new(bytes), Duration::from_secs(10 + i as u64), now);
        }
        assert_eq!(door.read(|state| state.bans.len()), BANS_MAX);
        assert!(door.read(|state| !state.bans.contains_key(&AuthorKey::ZERO)), "the one that ends first went");
    }

    #[test]
    fn addresses_of_one_site_are_rated_together() {
        let rated = |text: &str| rated_address(&text.parse().unwrap());
        assert_eq!(rated("/ip6/2001:db8::1/tcp/1"), rated("/ip6/2001:db8::ffff:2/tcp/9"));
        assert_ne!(rated("/ip6/2001:db8::1/tcp/1"), rated("/ip6/2001:db8:0:1::1/tcp/1"));
        assert_eq!(rated("/ip6/::ffff:192.0.2.1/tcp/1"), rated("/ip4/192.0.2.1/tcp/1"));
        assert_eq!(rated("/dns4/a.example/tcp/1"), None);
    }
}
