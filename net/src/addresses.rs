//! Where members are, and when to dial them again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use folkmoot_core::id::AuthorKey;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use crate::config::HAS_QUIC;
use crate::identity;
use crate::limits::{
    ADDRESS_BYTES_MAX, ADDRESS_PEERS_MAX, LEARNT_ADDRESSES_MAX, PINNED_ADDRESSES_MAX, REDIAL_DELAY_MAX,
    REDIAL_DELAY_MIN,
};

/// Whom to dial, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dial {
    /// A known member at any of its addresses.
    Member(AuthorKey, Vec<Multiaddr>),
    /// Whoever answers at a bootstrap address.
    Whoever(Multiaddr),
}

/// Exponential back-off with jitter.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    failures: u32,
    next: Instant,
}

impl Backoff {
    const fn due_at(now: Instant) -> Self {
        Self { failures: 0, next: now }
    }

    /// `jitter` lies in 0 to 1 and takes up to half of the delay off, so that nodes that lost each other at one
    /// moment do not dial in step.
    fn fail(&mut self, now: Instant, jitter: f64) {
        let doubled = REDIAL_DELAY_MIN.saturating_mul(1 << self.failures.min(16));
        let delay = doubled.min(REDIAL_DELAY_MAX).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        self.failures = self.failures.saturating_add(1);
        self.next = now + delay;
    }
}

#[derive(Debug)]
struct Peer {
    /// Configured; never evicted by what somebody claims.
    pinned: Vec<Multiaddr>,
    /// From the peer itself or mDNS, the most recently confirmed first.
    learnt: VecDeque<Multiaddr>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Unnamed {
    address: Multiaddr,
    backoff: Backoff,
    /// Who answered last time.
    resolved: Option<AuthorKey>,
}

/// The addresses of peers. It outlives restarts of the swarm.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    peers: BTreeMap<AuthorKey, Peer>,
    unnamed: Vec<Unnamed>,
}

impl AddressBook {
    fn peer(&mut self, peer: AuthorKey, now: Instant) -> Option<&mut Peer> {
        if self.peers.len() >= ADDRESS_PEERS_MAX && !self.peers.contains_key(&peer) {
            return None;
        }
        let new = || Peer { pinned: Vec::new(), learnt: VecDeque::new(), backoff: Backoff::due_at(now) };
        Some(self.peers.entry(peer).or_insert_with(new))
    }

    /// Remembers a configured address, and makes the peer due if it is new. Returns whether there was room.
    pub(crate) fn pin(&mut self, peer: AuthorKey, address: Multiaddr, now: Instant) -> Room {
        let Some(peer) = self.peer(peer, now) else { return Room::Full };
        if peer.pinned.contains(&address) {
            return Room::Kept;
        }
        if peer.pinned.len() >= PINNED_ADDRESSES_MAX {
            return Room::Full;
        }
        peer.pinned.push(address);
        peer.backoff = Backoff::due_at(now);
        Room::Kept
    }

    /// Remembers an address at which nobody knows who answers.
    pub(crate) fn pin_unnamed(&mut self, address: Multiaddr, now: Instant) -> Room {
        if self.unnamed.iter().any(|unnamed| unnamed.address == address) {
            return Room::Kept;
        }
        if self.unnamed.len() >= PINNED_ADDRESSES_MAX {
            return Room::Full;
        }
        self.unnamed.push(Unnamed { address, backoff: Backoff::due_at(now), resolved: None });
        Room::Kept
    }

    /// Remembers an address that the peer told of itself, or under which it was found.
    pub(crate) fn learn(&mut self, peer: AuthorKey, address: Multiaddr, now: Instant) {
        let Some(peer) = self.peer(peer, now) else { return };
        if peer.pinned.contains(&address) {
            return;
        }
        let known = peer.learnt.iter().position(|known| *known == address);
        match known {
            Some(index) => drop(peer.learnt.remove(index)),
            None => peer.backoff.next = peer.backoff.next.min(now + REDIAL_DELAY_MIN),
        }
        peer.learnt.push_front(address);
        peer.learnt.truncate(LEARNT_ADDRESSES_MAX);
    }

    /// Whoever answered at `address` was `peer`.
    pub(crate) fn resolved(&mut self, address: &Multiaddr, peer: AuthorKey, now: Instant) {
        for unnamed in self.unnamed.iter_mut().filter(|unnamed| unnamed.address == *address) {
            unnamed.resolved = Some(peer);
            unnamed.backoff = Backoff::due_at(now);
        }
        self.pin(peer, address.clone(), now);
    }

    /// It was this node itself that answered at `address`.
    pub(crate) fn forget_unnamed(&mut self, address: &Multiaddr) {
        self.unnamed.retain(|unnamed| unnamed.address != *address);
    }

    /// Returns what to dial now. `is_wanted` says which peers are admitted and not connected, `is_member` which
    /// are members. Whatever is returned is not due again before a time.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        jitter: f64,
        mut is_wanted: impl FnMut(&AuthorKey) -> bool,
        mut is_member: impl FnMut(&AuthorKey) -> bool,
    ) -> Vec<Dial> {
        let mut dials = Vec::new();
        for (key, peer) in &mut self.peers {
            if peer.backoff.next > now || (peer.pinned.is_empty() && peer.learnt.is_empty()) || !is_wanted(key) {
                continue;
            }
            peer.backoff.fail(now, jitter);
            dials.push(Dial::Member(*key, peer.pinned.iter().chain(&peer.learnt).cloned().collect()));
        }
        for unnamed in &mut self.unnamed {
            if unnamed.backoff.next > now || unnamed.resolved.as_ref().is_some_and(&mut is_member) {
                continue;
            }
            unnamed.backoff.fail(now, jitter);
            dials.push(Dial::Whoever(unnamed.address.clone()));
        }
        dials
    }

    /// A session with `peer` ended: wait as after a failure.
    pub(crate) fn lost(&mut self, peer: &AuthorKey, stability: Stability, now: Instant, jitter: f64) {
        if let Some(peer) = self.peers.get_mut(peer) {
            match stability {
                Stability::Stable => peer.backoff.failures = 0,
                Stability::Short => {}
            }
            peer.backoff.fail(now, jitter);
        }
    }

    /// Makes a peer due at once.
    pub(crate) fn retry(&mut self, peer: &AuthorKey, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.backoff = Backoff::due_at(now);
        }
    }

    /// Forgets what was learnt of peers that are members no more.
    pub(crate) fn retain_learnt(&mut self, mut is_member: impl FnMut(&AuthorKey) -> bool) {
        self.peers.retain(|key, peer| {
            if !is_member(key) {
                peer.learnt.clear();
            }
            !peer.pinned.is_empty() || !peer.learnt.is_empty()
        });
    }
}

/// Whether something bounded had room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Kept,
    Full,
}

/// How long a session had lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stability {
    /// Long enough to forgive the failures before it.
    Stable,
    /// Not that long.
    Short,
}

/// Splits `/p2p/…` off an address. The key is `None` without it, or if it is not that of an ed25519 key.
pub(crate) fn split_peer(address: &Multiaddr) -> (Option<AuthorKey>, Multiaddr) {
    let mut address = address.clone();
    let mut peer = None;
    while let Some(Protocol::P2p(id)) = address.iter().last() {
        peer = identity::author_key(&id);
        address.pop();
    }
    (peer, address)
}

/// Returns whether an address that somebody told can be dialled at all: bounded, not unspecified, TCP, or QUIC if this build
/// has it.
pub(crate) fn is_dialable(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => true,
        _ => false,
    };
    let port = match parts.next() {
        Some(Protocol::Tcp(port)) => port != 0 && parts.next().is_none(),
        Some(Protocol::Udp(port)) => {
            HAS_QUIC && port != 0 && matches!(parts.next(), Some(Protocol::QuicV1)) && parts.next().is_none()
        }
        _ => false,
    };
    host && port && address.len() <= ADDRESS_BYTES_MAX
}

/// Returns whether the address is one of this machine only.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_core::keys::SecretKey;

    use super::*;

    fn key(seed: u8) -> AuthorKey {
        SecretKey::from_seed(&[seed; 32]).author()
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn delays_double_up_to_a_bound_and_reset() {
        let mut book = AddressBook::default();
        let start = Instant::now();
        book.pin(key(1), address(1), start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(book.due(now, 0.0, |_| true, |_| true).len(), 1);
            assert_eq!(book.due(now, 0.0, |_| true, |_| true).len(), 0, "not twice");
            let next = book.peers[&key(1)].backoff.next;
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits[..3], [REDIAL_DELAY_MIN, REDIAL_DELAY_MIN * 2, REDIAL_DELAY_MIN * 4]);
        assert_eq!(waits[11], REDIAL_DELAY_MAX);
        book.lost(&key(1), Stability::Stable, now, 1.0);
        assert_eq!(book.peers[&key(1)].backoff.next, now + REDIAL_DELAY_MIN / 2, "jitter takes half off at most");
        book.retry(&key(1), now);
        assert_eq!(book.due(now, 0.0, |_| true, |_| true).len(), 1);
    }

    #[test]
    fn only_wanted_peers_with_addresses_are_dialled() {
        let mut book = AddressBook::default();
        let now = Instant::now();
        book.pin(key(1), address(1), now);
        book.learn(key(1), address(2), now);
        book.pin(key(2), address(3), now);
        let dials = book.due(now, 0.0, |peer| *peer == key(1), |_| true);
        assert_eq!(dials, [Dial::Member(key(1), vec![address(1), address(2)])]);
    }

    #[test]
    fn whoever_answers_is_remembered_while_it_is_a_member() {
        let mut book = AddressBook::default();
        let now = Instant::now();
        book.pin_unnamed(address(1), now);
        assert_eq!(book.due(now, 0.0, |_| false, |_| true), [Dial::Whoever(address(1))]);
        book.resolved(&address(1), key(1), now);
        assert_eq!(book.due(now, 0.0, |_| false, |_| true), []);
        assert_eq!(book.due(now, 0.0, |_| false, |_| false), [Dial::Whoever(address(1))]);
        book.forget_unnamed(&address(1));
        assert_eq!(book.due(now + REDIAL_DELAY_MAX, 0.0, |_| false, |_| false), []);
    }

    #[test]
    fn everything_is_bounded_and_claims_do_not_evict_configuration() {
        let mut book = AddressBook::default();
        let now = Instant::now();
        book.pin(key(1), address(1), now);
        for port in 2..100 {
            book.learn(key(1), address(port), now);
        }
        let peer = &book.peers[&key(1)];
        assert_eq!(peer.pinned, [address(1)]);
        assert_eq!(peer.learnt.len(), LEARNT_ADDRESSES_MAX);
        assert_eq!(peer.learnt[0], address(99));
        for port in 2..100 {
            let room = book.pin(key(1), address(port), now);
            assert_eq!(room == Room::Kept, usize::from(port) <= PINNED_ADDRESSES_MAX);
            book.pin_unnamed(address(port), now);
        }
        assert_eq!(book.unnamed.len(), PINNED_ADDRESSES_MAX);
        for i in 0..2 * ADDRESS_PEERS_MAX as u64 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&i.to_be_bytes());
            book.learn(AuthorKey::new(bytes), address(1), now);
        }
        assert_eq!(book.peers.len(), ADDRESS_PEERS_MAX);
        book.retain_learnt(|_| false);
        assert_eq!(book.peers.len(), 1, "what was configured stays");
    }

    #[test]
    fn addresses_are_judged() {
        let dialable = |text: &str| is_dialable(&text.parse().unwrap());
        for good in ["/ip4/192.0.2.1/tcp/1", "/dns4/a.example/tcp/1", "/ip6/2001:db8::1/tcp/1"] {
            assert!(dialable(good), "{good}");
        }
        assert_eq!(dialable("/ip6/2001:db8::1/udp/1/quic-v1"), HAS_QUIC);
        for bad in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/192.0.2.1",
            "/ip4/192.0.2.1/udp/1",
            "/ip4/192.0.2.1/udp/0/quic-v1",
            "/ip4/192.0.2.1/udp/1/quic-v1/ws",
            "/unix/a",
            "/ip4/192.0.2.1/tcp/1/ws",
            "/ip6/::/tcp/1",
        ] {
            assert!(!dialable(bad), "{bad}");
        }
        assert!(!is_dialable(&format!("/dns4/{}/tcp/1", "a".repeat(300)).parse().unwrap()));
        let named = address(1).with_p2p(identity::peer_id(&key(1)).unwrap()).unwrap();
        assert_eq!(split_peer(&named), (Some(key(1)), address(1)));
        assert_eq!(split_peer(&address(1)), (None, address(1)));
    }
}
