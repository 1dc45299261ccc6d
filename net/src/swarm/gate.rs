//! The first behaviour of the swarm: refuses connections before any other makes state for them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::door::{Admission, Door, rated_address};
use crate::event::RefusedReason;
use crate::limits::{
    GUESTS_MAX, GUESTS_PER_ADDRESS_BURST, GUESTS_PER_ADDRESS_RATE, HANDSHAKES_PER_ADDRESS_BURST,
    HANDSHAKES_PER_ADDRESS_RATE, RATED_ADDRESSES_MAX,
};
use crate::metrics::NetMetrics;
use folkmoot_core::rate::{Buckets, Rate};

/// What the swarm is told when the gate refuses.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("refused by the membership gate: {0:?}")]
pub(crate) struct Refused(pub(crate) RefusedReason);

/// Lets members in, guests while the join door is open, and nobody else.
pub(crate) struct Gate {
    door: Arc<Door>,
    metrics: NetMetrics,
    guests: HashSet<ConnectionId>,
    handshakes: Buckets<Option<IpAddr>>,
    guest_visits: Buckets<Option<IpAddr>>,
}

impl Gate {
    pub(crate) fn new(door: Arc<Door>, metrics: NetMetrics) -> Self {
        let handshakes = Rate { burst: HANDSHAKES_PER_ADDRESS_BURST, per_second: HANDSHAKES_PER_ADDRESS_RATE };
        let visits = Rate { burst: GUESTS_PER_ADDRESS_BURST, per_second: GUESTS_PER_ADDRESS_RATE };
        Self {
            door,
            metrics,
            guests: HashSet::new(),
            handshakes: Buckets::new(handshakes, RATED_ADDRESSES_MAX),
            guest_visits: Buckets::new(visits, RATED_ADDRESSES_MAX),
        }
    }

    fn refuse(&self, reason: RefusedReason) -> ConnectionDenied {
        self.metrics.refused.count(reason);
        ConnectionDenied::new(Refused(reason))
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.handshakes.take(rated_address(remote), Instant::now()) {
            Ok(())
        } else {
            Err(self.refuse(RefusedReason::HandshakeRate))
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let now = Instant::now();
        match self.door.admission(&peer, now) {
            Admission::Member => {}
            Admission::Guest => {
                if self.guests.len() >= GUESTS_MAX || !self.guest_visits.take(rated_address(remote), now) {
                    return Err(self.refuse(RefusedReason::GuestRate));
                }
                self.guests.insert(connection);
            }
            Admission::Refused(reason) => return Err(self.refuse(reason)),
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: Option<PeerId>,
        _addresses: &[Multiaddr],
        _role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // A bootstrap address may be dialled without knowing who answers; the handshake tells.
        match peer.map(|peer| self.door.admission(&peer, Instant::now())) {
            None | Some(Admission::Member) => Ok(Vec::new()),
            Some(Admission::Guest) => Err(ConnectionDenied::new(Refused(RefusedReason::Stranger))),
            Some(Admission::Refused(reason)) => Err(ConnectionDenied::new(Refused(reason))),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        match self.door.admission(&peer, Instant::now()) {
            Admission::Member => Ok(dummy::ConnectionHandler),
            Admission::Guest => Err(self.refuse(RefusedReason::Stranger)),
            Admission::Refused(reason) => Err(self.refuse(reason)),
        }
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // Guests that a later behaviour refused are told as listen failures.
        match event {
            FromSwarm::ConnectionClosed(closed) => drop(self.guests.remove(&closed.connection_id)),
            FromSwarm::ListenFailure(failure) => drop(self.guests.remove(&failure.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_core::keys::SecretKey;

    use super::*;
    use crate::door::JoinDoor;
    use crate::identity;

    fn peer(seed: u8) -> PeerId {
        identity::peer_id(&SecretKey::from_seed(&[seed; 32]).author()).unwrap()
    }

    fn gate() -> Gate {
        let key = |seed| SecretKey::from_seed(&[seed; 32]).author();
        let door = Arc::new(Door::new(key(1)));
        door.set_members([key(2)].into());
        Gate::new(door, NetMetrics::register())
    }

    fn address(host: usize) -> Multiaddr {
        format!("/ip4/192.0.2.{host}/tcp/1").parse().unwrap()
    }

    /// Why the gate refuses an inbound connection, if it does.
    fn inbound(gate: &mut Gate, number: usize, seed: u8, from: &Multiaddr) -> Option<RefusedReason> {
        let id = ConnectionId::new_unchecked(number);
        let denied = gate.handle_established_inbound_connection(id, peer(seed), &address(0), from).err()?;
        Some(denied.downcast_ref::<Refused>().unwrap().0)
    }

    #[test]
    fn only_members_pass_in_either_direction() {
        let mut gate = gate();
        assert_eq!(inbound(&mut gate, 1, 2, &address(1)), None);
        assert_eq!(inbound(&mut gate, 2, 3, &address(1)), Some(RefusedReason::Stranger));
        let id = ConnectionId::new_unchecked(3);
        for (seed, passes) in [(2, true), (3, false)] {
            let dialled = gate.handle_pending_outbound_connection(id, Some(peer(seed)), &[], Endpoint::Dialer);
            assert_eq!(dialled.is_ok(), passes);
            let (role, port) = (Endpoint::Dialer, PortUse::Reuse);
            let answered = gate.handle_established_outbound_connection(id, peer(seed), &address(1), role, port);
            assert_eq!(answered.is_ok(), passes);
        }
        // The door for guests opens inwards only.
        gate.door.set_join(JoinDoor::Open);
        assert_eq!(inbound(&mut gate, 4, 3, &address(1)), None);
        assert!(gate.handle_pending_outbound_connection(id, Some(peer(3)), &[], Endpoint::Dialer).is_err());
    }

    #[test]
    fn guests_are_capped_in_all_and_members_are_not() {
        let mut gate = gate();
        gate.door.set_join(JoinDoor::Open);
        for number in 0..GUESTS_MAX {
            assert_eq!(inbound(&mut gate, number, 3, &address(number)), None);
        }
        assert_eq!(inbound(&mut gate, 100, 3, &address(100)), Some(RefusedReason::GuestRate));
        assert_eq!(inbound(&mut gate, 101, 2, &address(100)), None);
    }

    #[test]
    fn handshakes_are_rated_by_address() {
        let mut gate = gate();
        let mut begins = |host| {
            let id = ConnectionId::new_unchecked(0);
            gate.handle_pending_inbound_connection(id, &address(0), &address(host)).is_ok()
        };
        let begun = (0..HANDSHAKES_PER_ADDRESS_BURST + 50).filter(|_| begins(1)).count();
        assert!(begun < HANDSHAKES_PER_ADDRESS_BURST as usize + 50, "{begun}");
        assert!(begins(2), "another address is not touched");
    }
}
