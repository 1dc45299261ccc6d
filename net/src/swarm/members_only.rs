//! Keeps a behaviour away from guests: on their connections it has no handler, so none of its protocols exist there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use either::Either;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::door::{Admission, Door};

/// `B`, to which only connections of members exist.
pub(crate) struct MembersOnly<B> {
    inner: B,
    door: Arc<Door>,
    guests: HashSet<ConnectionId>,
    /// Connections of each peer that `B` knows. What the swarm counts includes those of guests, and a guest may
    /// become a member while its first connection still exists.
    known: HashMap<PeerId, usize>,
}

impl<B> MembersOnly<B> {
    pub(crate) fn new(inner: B, door: Arc<Door>) -> Self {
        Self { inner, door, guests: HashSet::new(), known: HashMap::new() }
    }

    pub(crate) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Decides once per connection.
    fn is_shown(&mut self, connection: ConnectionId, peer: &PeerId) -> bool {
        let shown = self.door.admission(peer, Instant::now()) == Admission::Member;
        if !shown {
            self.guests.insert(connection);
        }
        shown
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for MembersOnly<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.is_shown(connection, &peer) {
            self.inner.handle_established_inbound_connection(connection, peer, local, remote).map(Either::Left)
        } else {
            Ok(Either::Right(dummy::ConnectionHandler))
        }
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.is_shown(connection, &peer) {
            self.inner
                .handle_established_outbound_connection(connection, peer, address, role, port_use)
                .map(Either::Left)
        } else {
            Ok(Either::Right(dummy::ConnectionHandler))
        }
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                if self.guests.contains(&established.connection_id) {
                    return;
                }
                let known = self.known.entry(established.peer_id).or_default();
                let other_established = *known;
                *known += 1;
                let shown = ConnectionEstablished { other_established, ..established };
                self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(shown));
            }
            FromSwarm::ConnectionClosed(closed) => {
                if self.guests.remove(&closed.connection_id) {
                    return;
                }
                let known = self.known.get(&closed.peer_id).copied().unwrap_or_default();
                let remaining_established = known.saturating_sub(1);
                if remaining_established == 0 {
                    self.known.remove(&closed.peer_id);
                } else {
                    self.known.insert(closed.peer_id, remaining_established);
                }
                let shown = ConnectionClosed { remaining_established, ..closed };
                self.inner.on_swarm_event(FromSwarm::ConnectionClosed(shown));
            }
            FromSwarm::AddressChange(change) if self.guests.contains(&change.connection_id) => {}
            FromSwarm::ListenFailure(failure) if self.guests.remove(&failure.connection_id) => {}
            FromSwarm::DialFailure(failure) if self.guests.remove(&failure.connection_id) => {}
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, connection, event),
            Either::Right(event) => match event {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx).map(|to_swarm| to_swarm.map_in(Either::Left))
    }
}
